//! What is timed: prompts and decoding at several batch sizes, hashing on or off, on a runner directly.

use std::time::{Duration, Instant};

use bitai_kernels::{KernelError, Op, Program, Runner, Sampler, SeqId, SeqStep};
use serde::Serialize;

use crate::exit::Failure;

/// Decoded tokens between two hashings, as the engine does it.
const HASH_EVERY: u32 = 32;
/// Prompt ids before a decode test: what the cache holds is not what is measured.
const DECODE_PROMPT: usize = 16;

/// One test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// So many prompt ids a sequence, all sequences in one batch.
    Prompt(u32),
    /// So many tokens a sequence, one by one, all sequences together.
    Decode(u32),
}

impl Test {
    /// Its name in tables: `pp512`, `tg64`.
    pub fn name(self) -> String {
        match self {
            Self::Prompt(n) => format!("pp{n}"),
            Self::Decode(n) => format!("tg{n}"),
        }
    }

    fn tokens(self) -> u32 {
        match self {
            Self::Prompt(n) | Self::Decode(n) => n,
        }
    }
}

/// Times of one test, in the order they were taken.
#[derive(Debug, Clone, Serialize)]
pub struct Times {
    /// What was done.
    pub test: Test,
    /// Sequences side by side.
    pub batch: u32,
    /// Whether rows were hashed.
    pub hashing: bool,
    /// Nanoseconds of each repetition.
    pub nanoseconds: Vec<u64>,
}

impl Times {
    /// Tokens that one repetition computes.
    pub fn tokens(&self) -> u64 {
        u64::from(self.test.tokens()) * u64::from(self.batch)
    }

    /// Tokens a second: the repetitions' (lowest, median, highest).
    pub fn rates(&self) -> (f64, f64, f64) {
        let mut sorted = self.nanoseconds.clone();
        sorted.sort_unstable();
        let rate = |ns: Option<&u64>| {
            let seconds = ns.map_or(f64::INFINITY, |ns| *ns as f64 / 1e9);
            self.tokens() as f64 / seconds
        };
        (
            rate(sorted.last()),
            rate(sorted.get(sorted.len() / 2)),
            rate(sorted.first()),
        )
    }
}

/// Ids that mean nothing and are the same everywhere.
pub(super) fn ids(count: usize, vocab: u32, salt: u32) -> Vec<u32> {
    (0..count)
        .map(|i| {
            let i = u32::try_from(i).unwrap_or(u32::MAX).wrapping_add(salt);
            // Knuth's multiplicative hash; only variety is wanted.
            i.wrapping_mul(2_654_435_761) % vocab
        })
        .collect()
}

/// Bytes of weights that every decoded token reads, and multiply-adds that every prompt token needs in int8 planes.
pub(super) fn work(program: &Program) -> (u64, u64) {
    let mut planes = 1;
    let (mut bytes, mut multiply_adds) = (0, 0);
    for site in &program.sites {
        match &site.op {
            Op::Quant { planes: p, .. } => planes = u64::from(*p),
            Op::Linear { n, k, weight, .. } => {
                let weights = u64::from(*n) * u64::from(*k);
                let groups = if weight.mult.is_some() { weights / 32 } else { 0 };
                bytes += weights + groups;
                // The head runs for the last row of a prompt only.
                if site.layer.is_some() {
                    multiply_adds += weights * planes;
                }
            }
            _ => {}
        }
    }
    (bytes, multiply_adds)
}

/// Runs a test once, untimed parts included; gives the time of what is measured.
pub(super) fn once(
    runner: &mut dyn Runner,
    test: Test,
    batch: u32,
    hashing: bool,
) -> Result<Duration, Failure> {
    let mut seqs = vec![];
    let result = timed(runner, test, batch, hashing, &mut seqs);
    for seq in seqs {
        runner.close(seq);
    }
    result.map_err(|e| Failure::Device(e.to_string()))
}

fn timed(
    runner: &mut dyn Runner,
    test: Test,
    batch: u32,
    hashing: bool,
    seqs: &mut Vec<SeqId>,
) -> Result<Duration, KernelError> {
    let vocab = runner.program().vocab;
    let (prompt, decode) = match test {
        Test::Prompt(n) => (n as usize, 0),
        Test::Decode(n) => (DECODE_PROMPT, n),
    };
    let room = u32::try_from(prompt).unwrap_or(u32::MAX).saturating_add(decode);
    for _ in 0..batch {
        seqs.push(runner.open(room)?);
    }
    let prompts: Vec<Vec<u32>> = (0..batch).map(|b| ids(prompt, vocab, b * 7919)).collect();
    let started = Instant::now();
    let steps: Vec<SeqStep<'_>> = seqs
        .iter()
        .zip(&prompts)
        .map(|(seq, tokens)| step(*seq, tokens))
        .collect();
    let mut last: Vec<u32> = runner.step(&steps, None)?.concat();
    if decode == 0 {
        settle(runner, seqs, hashing)?;
        return Ok(started.elapsed());
    }
    settle(runner, seqs, hashing)?;
    let started = Instant::now();
    for i in 1..=decode {
        let steps: Vec<SeqStep<'_>> = seqs
            .iter()
            .zip(&last)
            .map(|(seq, token)| step(*seq, std::slice::from_ref(token)))
            .collect();
        let sampled = runner.step(&steps, None)?.concat();
        last = sampled;
        if hashing && i % HASH_EVERY == 0 {
            for seq in seqs.iter() {
                runner.hash(*seq)?;
                runner.take_bodies(*seq, false)?;
            }
        }
    }
    settle(runner, seqs, hashing)?;
    Ok(started.elapsed())
}

fn step(seq: SeqId, tokens: &[u32]) -> SeqStep<'_> {
    SeqStep {
        seq,
        tokens,
        sample: 1,
        sampler: &Sampler::Greedy,
    }
}

/// Hashes what waits and takes all roots.
fn settle(runner: &mut dyn Runner, seqs: &[SeqId], hashing: bool) -> Result<(), KernelError> {
    if hashing {
        for seq in seqs {
            runner.hash(*seq)?;
        }
        for seq in seqs {
            runner.take_bodies(*seq, true)?;
        }
    }
    Ok(())
}
