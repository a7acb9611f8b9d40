//! Scores an integer engine against the oracle's logits: perplexity of both, KL divergence, cosine, how often
//! the likeliest token is the same, and how often any site of the program saturated.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use bitai_kernels::{Op, Probe, Program, Sampler, SiteRows, Trace, program::SiteId, rows::Hash};
use bitai_model::engine::Engine;

/// Commitments are not wanted here.
struct Deaf;

impl Trace for Deaf {
    fn bodies(&mut self, _: u32, _: &[Hash]) {}
    fn sampled(&mut self, _: u32, _: u32) {}
}

/// Values of one kind of site.
#[derive(Debug, Default, Clone, Copy)]
pub struct Reach {
    /// Values seen.
    pub values: u64,
    /// Of them, those at +-(2^31 - 1): rule N2 clamps there.
    pub saturated: u64,
    /// The largest magnitude.
    pub largest: u32,
}

/// What was measured, summed over scored tokens.
#[derive(Debug, Default)]
pub struct Score {
    /// Tokens scored.
    pub count: usize,
    nll_float: f64,
    nll_int: f64,
    /// Of the difference of both, squared: for the standard error.
    diff_squared: f64,
    kl: f64,
    cosine: f64,
    same_top: usize,
    /// By kind of site.
    pub reach: BTreeMap<&'static str, Reach>,
}

impl Score {
    fn mean(&self, sum: f64) -> f64 {
        sum / self.count as f64
    }

    /// Perplexity of the float model.
    pub fn perplexity_float(&self) -> f64 {
        self.mean(self.nll_float).exp()
    }

    /// Perplexity of the integers.
    pub fn perplexity_int(&self) -> f64 {
        self.mean(self.nll_int).exp()
    }

    /// Relative difference of the perplexities and its standard error, in per cent.
    pub fn difference(&self) -> (f64, f64) {
        let mean = self.mean(self.nll_int - self.nll_float);
        let variance = self.mean(self.diff_squared) - mean * mean;
        (
            mean.exp_m1() * 100.0,
            (variance.max(0.0) / self.count as f64).sqrt() * 100.0,
        )
    }

    /// Mean KL divergence of the integers' distribution from the floats', nats a token.
    pub fn kl(&self) -> f64 {
        self.mean(self.kl)
    }

    /// Mean cosine of the rows of logits.
    pub fn cosine(&self) -> f64 {
        self.mean(self.cosine)
    }

    /// Share of tokens whose likeliest successor is the same.
    pub fn same_top(&self) -> f64 {
        self.mean(self.same_top as f64)
    }

    /// Values of all sites that saturated.
    pub fn saturated(&self) -> u64 {
        self.reach.values().map(|r| r.saturated).sum()
    }

    fn add(&mut self, float: &[f64], int: &[f64], next: usize) {
        let ((top_f, lse_f), (top_i, lse_i)) = (top_and_lse(float), top_and_lse(int));
        let (a, b) = (lse_f - float[next], lse_i - int[next]);
        self.count += 1;
        self.nll_float += a;
        self.nll_int += b;
        self.diff_squared += (b - a) * (b - a);
        self.kl += float
            .iter()
            .zip(int)
            .map(|(f, i)| (f - lse_f).exp() * ((f - lse_f) - (i - lse_i)))
            .sum::<f64>();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        self.cosine += dot(float, int) / (dot(float, float) * dot(int, int)).sqrt();
        self.same_top += usize::from(top_f == top_i);
    }
}

/// (index of the largest, log of the sum of exponentials).
fn top_and_lse(x: &[f64]) -> (usize, f64) {
    let (top, max) = x.iter().enumerate().fold(
        (0, f64::NEG_INFINITY),
        |a, (i, v)| if *v > a.1 { (i, *v) } else { a },
    );
    (top, max + x.iter().map(|v| (v - max).exp()).sum::<f64>().ln())
}

/// A site's kind, with the rows that a model's numbers live in told apart.
fn kind(op: &Op) -> &'static str {
    match op {
        Op::Embed { .. } => "embedding",
        Op::RmsNorm { .. } => "norm",
        Op::Linear { .. } => "linear",
        Op::Rope { .. } => "rope",
        Op::Attention { .. } => "attention",
        Op::Glu { .. } => "gated unit",
        Op::Add | Op::Out => "residual",
        _ => "other",
    }
}

/// Sees every site: counts, and compares each row of logits with the oracle's as it comes by.
struct Watch<'a> {
    kinds: &'a [&'static str],
    logits: SiteId,
    f: i32,
    skip: usize,
    ids: &'a [u32],
    float: &'a [Vec<f32>],
    score: &'a mut Score,
}

impl Probe for Watch<'_> {
    fn site(&mut self, site: SiteId, first: u32, rows: &SiteRows) {
        let SiteRows::Acts { cols, data } = rows else {
            return;
        };
        let reach = self.score.reach.entry(self.kinds[site as usize]).or_default();
        reach.values += data.len() as u64;
        for v in data {
            let size = v.unsigned_abs();
            reach.saturated += u64::from(size >= i32::MAX.unsigned_abs());
            reach.largest = reach.largest.max(size);
        }
        if site != self.logits {
            return;
        }
        for (pos, row) in (first as usize..).zip(data.chunks(*cols)) {
            if pos < self.skip || pos + 1 >= self.ids.len() {
                continue;
            }
            let unit = f64::from(-self.f).exp2();
            let int: Vec<f64> = row.iter().map(|v| f64::from(*v) * unit).collect();
            let float: Vec<f64> = self.float[pos].iter().map(|v| f64::from(*v)).collect();
            self.score.add(&float, &int, self.ids[pos + 1] as usize);
        }
    }
}

/// The site of the logits and their fraction bits.
fn logits(program: &Program) -> anyhow::Result<(SiteId, i32)> {
    let sample = program.sites.last().context("the program is empty")?;
    match (&sample.op, &sample.inputs[..]) {
        (Op::Sample { f }, [site]) => Ok((*site, i32::from(*f))),
        _ => bail!("the program does not end in a sampler"),
    }
}

/// Runs the windows through the engine and compares with `float[window][position]`; the first `skip` tokens
/// of each window are context only.
pub fn score(
    engine: &mut Engine,
    windows: &[Vec<u32>],
    float: &[Vec<Vec<f32>>],
    skip: usize,
) -> anyhow::Result<Score> {
    let (site, f) = logits(engine.program())?;
    let kinds: Vec<&'static str> = engine.program().sites.iter().map(|s| kind(&s.op)).collect();
    let mut score = Score::default();
    for (ids, float) in windows.iter().zip(float) {
        ensure!(
            ids.len() == float.len(),
            "the oracle saw {} tokens of {}",
            float.len(),
            ids.len()
        );
        let mut watch = Watch {
            kinds: &kinds,
            logits: site,
            f,
            skip,
            ids,
            float,
            score: &mut score,
        };
        engine.recheck_probed(
            &ids[..1],
            &ids[1..],
            &Sampler::Greedy,
            &mut Deaf,
            Some(&mut watch),
        )?;
    }
    Ok(score)
}
