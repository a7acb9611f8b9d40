//! Sums along K in plain Rust, shaped so that the compiler vectorises them with whatever the target always
//! has.
//!
//! Sums use wrapping operators because overflow checks stop vectorisation; [`crate::cpu::bounds`] proves that
//! nothing wraps.

use super::dot::{Sums, Tile};
use crate::cpu::bounds::{GROUP, SCALAR_BLOCK};

/// Sum of w * x in one int32; at most [`SCALAR_BLOCK`] elements.
#[inline]
fn dot_i32(w: &[i8], x: &[i16]) -> i32 {
    w.iter().zip(x).fold(0i32, |sum, (w, x)| {
        sum.wrapping_add(i32::from(*w).wrapping_mul(i32::from(*x)))
    })
}

/// Sum of w * x.
#[inline]
pub(super) fn dot(w: &[i8], x: &[i16]) -> i64 {
    w.chunks(SCALAR_BLOCK)
        .zip(x.chunks(SCALAR_BLOCK))
        .map(|(w, x)| i64::from(dot_i32(w, x)))
        .sum()
}

/// Sum of m * w * x, a multiplier for each [`GROUP`] of weights.
#[inline]
pub(super) fn dot_grouped(w: &[i8], m: &[u8], x: &[i16]) -> i64 {
    w.chunks(GROUP)
        .zip(x.chunks(GROUP))
        .zip(m)
        .map(|((w, x), m)| i64::from(dot_i32(w, x)) * i64::from(*m))
        .sum()
}

/// A tile's weight rows times its tokens.
pub(super) fn dots<const T: usize>(tile: Tile<'_, T>, sums: &mut Sums<T>) {
    for (x, sums) in tile.x.iter().zip(sums) {
        for (n, sum) in sums.iter_mut().enumerate().take(tile.rows) {
            *sum = tile.rest(n, x, 0);
        }
    }
}

impl<const T: usize> Tile<'_, T> {
    /// The sum of row `n` and a token `x` from value `from` on, which begins a group.
    pub(super) fn rest(&self, n: usize, x: &[i16], from: usize) -> i64 {
        let w = &self.w[n * self.k..][from..x.len()];
        if self.m.is_empty() {
            dot(w, &x[from..])
        } else {
            dot_grouped(w, &self.m[n * (self.k / GROUP) + from / GROUP..], &x[from..])
        }
    }
}
