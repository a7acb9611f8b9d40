//! Quality of the integer engine against candle's float32 on the same weights and tokens: perplexity of
//! both, their relative difference, mean KL divergence and how often the likeliest token is the same.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use bitai_benches::{corpus, oracle::Oracle};
use bitai_kernels::{Op, Probe, Sampler, SiteRows, Trace, cpu::CpuDevice, program::SiteId, rows::Hash};
use bitai_model::{
    engine::Engine,
    import::{ImportOptions, import_gguf},
    pack::{Pack, Profile},
    tokenizer::Tokenizer,
};
use clap::Parser;

/// Compares the integer engine with candle float32.
#[derive(Parser)]
struct Args {
    /// The model.
    #[arg(long)]
    gguf: PathBuf,
    /// Plain text (Debian `bible-kjv`: `bible -f -p /usr/lib gen1:1-rev22:21`).
    #[arg(long)]
    text: PathBuf,
    /// Tokens that are scored, at least.
    #[arg(long, default_value_t = 2048)]
    tokens: usize,
    /// Windows that run side by side.
    #[arg(long, default_value_t = 4)]
    windows: usize,
    /// Tokens of each window that are context only.
    #[arg(long, default_value_t = 16)]
    skip: usize,
    /// Numeric profiles: a, b or both.
    #[arg(long, value_delimiter = ',', default_value = "a")]
    profile: Vec<String>,
    /// Threads of the integer engine.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Fails if the relative difference is larger, in per cent.
    #[arg(long)]
    limit: Option<f64>,
}

/// Commitments are not wanted here.
struct Deaf;

impl Trace for Deaf {
    fn bodies(&mut self, _: u32, _: &[Hash]) {}
    fn sampled(&mut self, _: u32, _: u32) {}
}

#[derive(Default)]
struct Sums {
    count: usize,
    nll_float: f64,
    nll_int: f64,
    /// Of the difference of both, squared: for the standard error.
    diff_squared: f64,
    kl: f64,
    same_top: usize,
    saturated: u64,
}

/// Compares each row of logits with the oracle's as it comes by.
struct Compare<'a> {
    site: SiteId,
    f: i32,
    skip: usize,
    ids: &'a [u32],
    float: &'a [Vec<f32>],
    sums: &'a mut Sums,
}

impl Probe for Compare<'_> {
    fn site(&mut self, site: SiteId, first: u32, rows: &SiteRows) {
        if site != self.site {
            return;
        }
        let SiteRows::Acts { cols, data } = rows else {
            return;
        };
        for (pos, row) in (first as usize..).zip(data.chunks(*cols)) {
            if pos < self.skip || pos + 1 >= self.ids.len() {
                continue;
            }
            let unit = f64::from(-self.f).exp2();
            let int: Vec<f64> = row.iter().map(|v| f64::from(*v) * unit).collect();
            let float: Vec<f64> = self.float[pos].iter().map(|v| f64::from(*v)).collect();
            self.sums.add(&float, &int, self.ids[pos + 1] as usize);
            self.sums.saturated += row
                .iter()
                .filter(|v| v.unsigned_abs() >= i32::MAX.unsigned_abs())
                .count() as u64;
        }
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

impl Sums {
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
        self.same_top += usize::from(top_f == top_i);
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let profiles = args.profile.iter().map(|name| match name.as_str() {
        "a" => Ok(Profile::A),
        "b" => Ok(Profile::B),
        other => anyhow::bail!("profile {other:?}: must be a or b"),
    });
    let packs = profiles
        .map(|p| pack(&args.gguf, p?))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let len = args.tokens.div_ceil(args.windows) + args.skip + 1;
    let tokenizer = Tokenizer::of(packs.first().context("no profile was named")?)?;
    let text = std::fs::read_to_string(&args.text).with_context(|| args.text.display().to_string())?;
    let windows = corpus::windows(&corpus::clean(&text), &tokenizer, args.windows, len)?;

    eprintln!("candle float32: {} windows of {len} tokens", windows.len());
    let oracle = Oracle::load(&args.gguf, len)?;
    let mut float: Vec<Vec<Vec<f32>>> = vec![vec![Vec::new(); len]; windows.len()];
    oracle.logits(&windows, |w, pos, row| float[w][pos] = row)?;
    drop(oracle);

    for pack in &packs {
        compare(&args, pack, &windows, &float)?;
    }
    Ok(())
}

/// Imports to a temporary file whose name is gone when this returns: the map keeps the bytes.
fn pack(gguf: &Path, profile: Profile) -> anyhow::Result<Pack> {
    let path = std::env::temp_dir().join(format!("bitai-quality-{}.pack", std::process::id()));
    let options = ImportOptions {
        profile,
        ..Default::default()
    };
    import_gguf(gguf, &path, &options, &mut |_, _| {})?;
    let pack = Pack::open(&path);
    let _ = std::fs::remove_file(&path);
    Ok(pack?)
}

/// Runs one pack over the windows and prints the report.
fn compare(args: &Args, pack: &Pack, windows: &[Vec<u32>], float: &[Vec<Vec<f32>>]) -> anyhow::Result<()> {
    let profile = pack.manifest().info.profile;
    eprintln!("integers: profile {profile:?}, {} threads", args.threads);
    let mut engine = Engine::new(pack, &CpuDevice::new(args.threads)?)?;
    let sites = &engine.program().sites;
    let sample = sites.last().context("the program is empty")?;
    let (site, f) = match (&sample.op, &sample.inputs[..]) {
        (Op::Sample { f }, [site]) => (*site, i32::from(*f)),
        _ => anyhow::bail!("the program does not end in a sampler"),
    };
    let mut sums = Sums::default();
    for (ids, float) in windows.iter().zip(float) {
        let mut probe = Compare {
            site,
            f,
            skip: args.skip,
            ids,
            float,
            sums: &mut sums,
        };
        engine.recheck_probed(
            &ids[..1],
            &ids[1..],
            &Sampler::Greedy,
            &mut Deaf,
            Some(&mut probe),
        )?;
    }
    ensure!(
        sums.count >= args.tokens,
        "{} tokens scored, {} wanted",
        sums.count,
        args.tokens
    );

    let n = sums.count as f64;
    let mean = (sums.nll_int - sums.nll_float) / n;
    let relative = (mean.exp() - 1.0) * 100.0;
    let error = ((sums.diff_squared / n - mean * mean) / n).sqrt() * 100.0;
    println!("model root            {}", hex(&pack.root()));
    println!("profile               {profile:?}");
    println!("tokens                {}", sums.count);
    println!("perplexity float32    {:.4}", (sums.nll_float / n).exp());
    println!("perplexity integer    {:.4}", (sums.nll_int / n).exp());
    println!("relative difference   {relative:+.3} % (standard error {error:.3})");
    println!("mean KL               {:.5} nats a token", sums.kl / n);
    println!("same likeliest token  {:.2} %", 100.0 * sums.same_top as f64 / n);
    println!("saturated logits      {}", sums.saturated);
    if let Some(limit) = args.limit {
        ensure!(
            relative.abs() <= limit,
            "relative difference {relative:+.3} % is beyond {limit} %"
        );
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
