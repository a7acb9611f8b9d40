//! Sums along K in plain Rust, shaped so that the compiler vectorises them with whatever the target always
//! has.
//!
//! Sums use wrapping operators because overflow checks stop vectorisation; [`crate::cpu::bounds`] proves that
//! nothing wraps.

use super::dot::Tile;
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

/// `N` weight rows times `T` tokens.
pub(super) fn dots<const N: usize, const T: usize>(tile: Tile<'_, T>) -> [[i64; T]; N] {
    std::array::from_fn(|n| {
        tile.x.map(|x| {
            let w = &tile.w[n * tile.k..][..x.len()];
            if tile.m.is_empty() {
                dot(w, x)
            } else {
                dot_grouped(w, &tile.m[n * (tile.k / GROUP)..], x)
            }
        })
    })
}
