//! What this processor does at most: memory read by all threads at once, multiply-adds on registers alone.

use std::{hint::black_box, time::Instant};

use rayon::prelude::*;

use super::CpuOps;
use crate::Peaks;

/// Bytes read to measure memory: beyond any cache.
const BYTES: usize = 256 << 20;
/// Rounds of each measurement; the best counts, since others only take away.
const ROUNDS: usize = 5;
/// Rounds of multiply-adds a thread: a few milliseconds.
const MULTIPLY_ROUNDS: usize = 10_000;

/// Units a second.
fn rate(units: u64, since: Instant) -> u64 {
    let nanoseconds = since.elapsed().as_nanos().max(1);
    u64::try_from(u128::from(units) * 1_000_000_000 / nanoseconds).unwrap_or(u64::MAX)
}

impl CpuOps {
    /// Measures memory bandwidth and int8 multiply-adds with this device's threads.
    pub fn peaks(&self) -> Peaks {
        let data = vec![1u64; BYTES / 8];
        let read = || {
            let since = Instant::now();
            let sum: u64 = data
                .par_chunks(1 << 17)
                .map(|part| part.iter().fold(0, |sum: u64, v| sum.wrapping_add(*v)))
                .sum();
            black_box(sum);
            rate(BYTES as u64, since)
        };
        let multiply = || {
            let since = Instant::now();
            rate(self.multiply_adds(MULTIPLY_ROUNDS), since)
        };
        let best = |f: &(dyn Fn() -> u64 + Sync)| (0..ROUNDS).map(|_| f()).max();
        Peaks {
            bytes_per_s: self.pool.install(|| best(&read)),
            multiply_adds_per_s: best(&multiply),
        }
    }
}
