//! NEON loops of attention: dot products of a query with int8 keys, and the weighted sum of int8 values, exact
//! in int32 blocks. What lies between them are the plain loops of [`super::keys`], which the compiler vectorises
//! for NEON anyway.
//!
//! The only `unsafe` here is reading whole vectors, each inside a slice whose length the same function has
//! checked. The functions are safe to call where NEON, or FEAT_DotProd, is known to be there, which
//! [`super::simd::Simd`] proves before it calls them.
#![allow(unsafe_code)]
// Loops over constant indices unroll into registers.
#![allow(clippy::needless_range_loop)]

use std::arch::aarch64::{
    int32x4_t, vdupq_n_s8, vdupq_n_s32, vget_low_s16, vmlal_high_n_s16, vmlal_high_s16, vmlal_n_s16,
    vmlal_s16, vpaddq_s32,
};
use std::mem::transmute;

use super::{
    bounds::KEY_BLOCK,
    linear::neon::{load_i8, load_i16, widen},
    linear::neon_dot::{low, sdot},
    portable,
};

/// Elements a step: one load of int8.
const STEP: usize = 16;

/// acc\[d\] += sum over keys of p\[j\] * v\[j\]\[d\], key j's acc.len() values at `rows[j * stride ..]`.
#[target_feature(enable = "neon")]
pub(super) fn weighted_rows(p: &[i16], rows: &[i8], stride: usize, acc: &mut [i64]) {
    /// Vectors a tile: sixteen registers of sums, a whole head of the usual 64 elements.
    const TILE: usize = 4;
    let full = acc.len() / STEP;
    for first in (0..p.len()).step_by(KEY_BLOCK) {
        let p = &p[first..p.len().min(first + KEY_BLOCK)];
        let rows = &rows[first * stride..];
        let tiles = full - full % TILE;
        for at in (0..tiles).step_by(TILE) {
            add(sums::<TILE>(p, &rows[at * STEP..], stride), &mut acc[at * STEP..]);
        }
        for at in tiles..full {
            add(sums::<1>(p, &rows[at * STEP..], stride), &mut acc[at * STEP..]);
        }
    }
    let done = full * STEP;
    if done < acc.len() {
        portable::weighted_rows(p, &rows[done.min(rows.len())..], stride, &mut acc[done..]);
    }
}

/// Adds the sums of [`sums`] to the elements that they belong to.
#[inline]
#[target_feature(enable = "neon")]
fn add<const W: usize>(sums: [[int32x4_t; 4]; W], acc: &mut [i64]) {
    for (sums, acc) in sums.into_iter().zip(acc.as_chunks_mut::<STEP>().0) {
        // SAFETY: sixteen int32 are any 64 bytes.
        let lanes = unsafe { transmute::<[int32x4_t; 4], [i32; STEP]>(sums) };
        for (sum, lane) in acc.iter_mut().zip(lanes) {
            *sum += i64::from(lane);
        }
    }
}

/// Int32 sums of p\[j\] * v\[j\]\[d\] for the first 16 * `W` elements of the rows; at most [`KEY_BLOCK`] keys.
#[inline]
#[target_feature(enable = "neon")]
fn sums<const W: usize>(p: &[i16], rows: &[i8], stride: usize) -> [[int32x4_t; 4]; W] {
    let last_row = p.len().saturating_sub(1) * stride;
    assert!(p.is_empty() || rows.len() >= last_row + W * STEP, "a row a key");
    let mut sums = [[vdupq_n_s32(0); 4]; W];
    let mut at = 0usize;
    for p in p {
        for i in 0..W {
            // SAFETY: at <= last_row and 16 * i + 16 <= 16 * W, so the read ends within `rows`, as asserted.
            let [a, b] = widen(unsafe { load_i8(rows.as_ptr(), at.wrapping_add(i * STEP)) });
            sums[i] = [
                vmlal_n_s16(sums[i][0], vget_low_s16(a), *p),
                vmlal_high_n_s16(sums[i][1], a, *p),
                vmlal_n_s16(sums[i][2], vget_low_s16(b), *p),
                vmlal_high_n_s16(sums[i][3], b, *p),
            ];
        }
        at = at.wrapping_add(stride);
    }
    sums
}

/// Keys a step: two vectors of int32 sums.
const KEYS: usize = 8;

/// Walks the keys [`KEYS`] at a time: `step(sums, first, i)` adds the products of elements `i .. i + 16` of the
/// keys from `rows[first ..]` on, `sum` is [`sum_each`]. Compiled for the caller's instruction set.
#[inline(always)]
fn walk(
    q: &[i16],
    rows: &[i8],
    stride: usize,
    out: &mut [i32],
    zero: int32x4_t,
    step: impl Fn(&mut [int32x4_t; KEYS], usize, usize),
    sum: impl Fn([int32x4_t; KEYS]) -> [i32; KEYS],
) {
    let (k, keys) = (q.len(), out.len());
    assert!(
        keys == 0 || rows.len() >= (keys - 1) * stride + k,
        "a row a key, each as long as the query"
    );
    let full = k - k % STEP;
    let mut first = 0usize;
    for out in out.as_chunks_mut::<KEYS>().0 {
        let mut acc = [zero; KEYS];
        for i in (0..full).step_by(STEP) {
            step(&mut acc, first, i);
        }
        *out = sum(acc);
        if full < k {
            for (j, sum) in out.iter_mut().enumerate() {
                let at = first + j * stride;
                *sum += portable::dot_i32(&rows[at + full..at + k], &q[full..]);
            }
        }
        first = first.wrapping_add(KEYS.wrapping_mul(stride));
    }
    let done = keys - keys % KEYS;
    portable::dots(q, rows.get(first..).unwrap_or(&[]), stride, &mut out[done..]);
}

/// The sums of the lanes of eight vectors.
#[inline]
#[target_feature(enable = "neon")]
fn sum_each([a, b, c, d, e, f, g, h]: [int32x4_t; KEYS]) -> [i32; KEYS] {
    let abcd = vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
    let efgh = vpaddq_s32(vpaddq_s32(e, f), vpaddq_s32(g, h));
    // SAFETY: eight int32 are any 32 bytes.
    unsafe { transmute::<[int32x4_t; 2], [i32; KEYS]>([abcd, efgh]) }
}

/// Dot products of `q` and the keys at `rows[j * stride ..]`, one for each of `out`. Heads are at most 1,024 long, so
/// a sum fits int32.
#[target_feature(enable = "neon")]
pub(super) fn dots(q: &[i16], rows: &[i8], stride: usize, out: &mut [i32]) {
    let step = |acc: &mut [int32x4_t; KEYS], first: usize, i: usize| {
        // SAFETY: `walk` steps over whole 16 elements of the query, and keys are as long, as it asserted.
        let x = unsafe { load_i16(q.as_ptr(), i) };
        let mut w = [vdupq_n_s8(0); KEYS];
        for j in 0..KEYS {
            let at = first.wrapping_add(j.wrapping_mul(stride)).wrapping_add(i);
            // SAFETY: as above.
            w[j] = unsafe { load_i8(rows.as_ptr(), at) };
        }
        for j in 0..KEYS {
            let [a, b] = widen(w[j]);
            acc[j] = vmlal_s16(acc[j], vget_low_s16(a), vget_low_s16(x[0]));
            acc[j] = vmlal_high_s16(acc[j], a, x[0]);
            acc[j] = vmlal_s16(acc[j], vget_low_s16(b), vget_low_s16(x[1]));
            acc[j] = vmlal_high_s16(acc[j], b, x[1]);
        }
    };
    walk(q, rows, stride, out, vdupq_n_s32(0), step, |v| sum_each(v));
}

/// The same with `sdot`; queries have one plane, so their values are int8.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn dots_dot(q: &[i16], rows: &[i8], stride: usize, out: &mut [i32]) {
    let step = |acc: &mut [int32x4_t; KEYS], first: usize, i: usize| {
        // SAFETY: `walk` steps over whole 16 elements of the query, and keys are as long, as it asserted.
        let x = low(unsafe { load_i16(q.as_ptr(), i) });
        for j in 0..KEYS {
            let at = first.wrapping_add(j.wrapping_mul(stride)).wrapping_add(i);
            // SAFETY: as above.
            let w = unsafe { load_i8(rows.as_ptr(), at) };
            acc[j] = sdot(acc[j], w, x);
        }
    };
    walk(q, rows, stride, out, vdupq_n_s32(0), step, |v| sum_each(v));
}
