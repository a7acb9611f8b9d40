//! A weight as the CPU backend holds it: the pack's own bytes, and how much of a row one int32 can sum.

use rayon::prelude::*;

use crate::{
    ops::HostWeight,
    reference::{linear::GROUP, quant::q_max},
};

use super::norms::row_norm;

/// Largest sum of |w * m| in a block.
const BLOCK_SUM: u32 = (GROUP * W_MAX * M_MAX) as u32;
const W_MAX: usize = 128;
const M_MAX: usize = 15;
// A block that begins in the middle of a pair takes one value of its neighbour along.
const _: () = assert!((BLOCK_SUM as i64 + (2 * W_MAX * M_MAX) as i64) * q_max(2) < 1 << 31);

/// A weight and what its values allow.
pub struct CpuWeight {
    /// The checked weight, over the pack's bytes.
    pub(in crate::cpu) host: HostWeight,
    /// Of each row, as a power of two from 2^5 on, values of K: any such part of the row, aligned to its own
    /// length, times two-plane activations sums to less than 2^31 in magnitude, multipliers included.
    /// One-plane sums always do (T3).
    blocks: Vec<u8>,
    /// Of each row, an upper bound of its Euclidean norm, multipliers included.
    norms: Vec<u32>,
}

impl CpuWeight {
    /// Measures the rows.
    pub(in crate::cpu) fn new(host: HostWeight) -> Self {
        let (blocks, norms) = (0..host.n)
            .into_par_iter()
            .map(|i| {
                let (w, mults) = (host.row(i), host.mults(i));
                (row_block(w, mults).ilog2() as u8, row_norm(w, mults))
            })
            .unzip();
        Self { host, blocks, norms }
    }

    /// The largest norm of `rows` rows from `first` on, rounded up.
    #[inline]
    pub(super) fn norm(&self, first: usize, rows: usize) -> u32 {
        let rows = self.norms.iter().skip(first).take(rows);
        rows.fold(0, |most, norm| most.max(*norm))
    }

    /// Values of K, a power of two: aligned parts of this length sum to an int32 in `rows` rows from `first` on;
    /// rows past the last count as zero.
    #[inline]
    pub(super) fn block(&self, first: usize, rows: usize) -> usize {
        let rows = self.blocks.iter().skip(first).take(rows);
        1 << rows.fold(31, |least, block| least.min(*block))
    }
}

/// The largest block that one row allows.
fn row_block(w: &[i8], mults: &[u8]) -> usize {
    let mut sums: Vec<u32> = w
        .chunks(GROUP)
        .enumerate()
        .map(|(g, w)| {
            // Wrapping, so that it vectorises: 32 values of 128.
            let size = w
                .iter()
                .fold(0u32, |sum, w| sum.wrapping_add(u32::from(w.unsigned_abs())));
            size * mults.get(g).map_or(1, |m| u32::from(*m))
        })
        .collect();
    let mut block = GROUP;
    while sums.len() > 1 {
        sums = sums.chunks(2).map(|pair| pair.iter().sum()).collect();
        if sums.iter().any(|s| *s > BLOCK_SUM) {
            return block;
        }
        block *= 2;
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, HostTensor, num::Scale};

    #[test]
    fn the_largest_weights_allow_the_smallest_block() {
        assert_eq!(row_block(&[-128; 320], &[15; 10]), 32);
        assert_eq!(row_block(&[127; 4096], &[]), 256);
    }

    #[test]
    fn small_weights_allow_whole_rows() {
        assert_eq!(row_block(&[1; 4096], &[]), 4096);
        assert_eq!(row_block(&[1; 33], &[1, 1]), 64);
        assert_eq!(row_block(&[], &[]), 32);
    }

    #[test]
    fn the_largest_of_the_rows_at_hand_decides() {
        let (n, k) = (5, 1024);
        let mut q = vec![1u8; n * k];
        q[2 * k..3 * k].fill(127);
        let weight = CpuWeight::new(HostWeight {
            n,
            k,
            scales: vec![Scale { m: 40_000, e: -26 }; n],
            q: HostTensor::owned(DType::I8, n, k, q),
            mult: None,
            bias: None,
        });
        let blocks: Vec<usize> = (0..n).map(|row| weight.block(row, 2)).collect();
        assert_eq!(
            blocks,
            [1024, 256, 256, 1024, 1024],
            "the last row has no neighbour"
        );
        assert_eq!(weight.block(0, 6), 256);
    }

    #[test]
    fn one_large_block_decides() {
        let mut w = [1i8; 4096];
        w[1024..2048].fill(127);
        assert_eq!(row_block(&w, &[]), 256);
        w[1024..2048].fill(60);
        assert_eq!(row_block(&w, &[]), 1024);
    }
}
