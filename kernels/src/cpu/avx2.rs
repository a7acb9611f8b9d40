//! AVX2 inner loops: dot products of int8 weights or cache rows with 16-bit rows, exact in int32 blocks.
//!
//! The only `unsafe` here is reading and reinterpreting whole vectors: each read is inside a slice whose
//! length the same function has checked. The functions are safe to call where AVX2 is known to be there, which
//! [`super::simd::Simd`] proves before it calls them.
#![allow(unsafe_code)]
// Loops over constant indices unroll into registers; written with iterators, the same arrays went through
// memory and the loops ran at a quarter of the speed.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::{
    __m128i, __m256i, _mm_add_epi64, _mm_cvtsi128_si64, _mm_unpackhi_epi64, _mm256_add_epi32,
    _mm256_add_epi64, _mm256_castsi256_si128, _mm256_cvtepi8_epi16, _mm256_cvtepi32_epi64,
    _mm256_extracti128_si256, _mm256_madd_epi16, _mm256_permute2x128_si256, _mm256_set1_epi32,
    _mm256_setzero_si256, _mm256_unpackhi_epi16, _mm256_unpacklo_epi16,
};
use std::mem::transmute;

use crate::num::Scale;

use super::{
    bounds::{KEY_BLOCK, PLAIN_BLOCK},
    keys::{self, Scales},
};

/// Elements a step: one load of int8 widened to int16.
const STEP: usize = 16;

/// 16 int8 at `row + at` as int16 lanes.
///
/// A whole array is read and reinterpreted, where `_mm_loadu_si128` would drag its debug checks into the
/// innermost loop of the profile that tests and the devnet run.
///
/// # Safety
/// `row[at .. at + 16]` is readable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_i8(row: *const i8, at: usize) -> __m256i {
    // SAFETY: the caller's promise; an array of bytes needs no alignment, and any bits are a vector.
    _mm256_cvtepi8_epi16(unsafe { transmute::<[u8; 16], __m128i>(*row.wrapping_add(at).cast::<[u8; 16]>()) })
}

/// 16 int16 at `row + at`.
///
/// # Safety
/// `row[at .. at + 16]` is readable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_i16(row: *const i16, at: usize) -> __m256i {
    // SAFETY: the caller's promise; an array of bytes needs no alignment, and any bits are a vector.
    unsafe { transmute::<[u8; 32], __m256i>(*row.wrapping_add(at).cast::<[u8; 32]>()) }
}

/// The eight int32 lanes as four int64 sums.
#[inline]
#[target_feature(enable = "avx2")]
fn widen(v: __m256i) -> __m256i {
    _mm256_add_epi64(
        _mm256_cvtepi32_epi64(_mm256_castsi256_si128(v)),
        _mm256_cvtepi32_epi64(_mm256_extracti128_si256::<1>(v)),
    )
}

/// Sum of the four int64 lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_i64(v: __m256i) -> i64 {
    let two = _mm_add_epi64(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    _mm_cvtsi128_si64(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two)))
}

/// `N` weight rows times `T` activation rows, all of one length: out\[n\]\[t\] = sum of w * x.
#[target_feature(enable = "avx2")]
pub(super) fn tile<const N: usize, const T: usize>(w: [&[i8]; N], x: [&[i16]; T]) -> [[i64; T]; N] {
    let k = x[0].len();
    assert!(
        w.iter().all(|row| row.len() == k) && x.iter().all(|row| row.len() == k),
        "rows of one length"
    );
    let mut out = [[0i64; T]; N];
    let full = k - k % STEP;
    let mut start = 0;
    while start < full {
        let end = full.min(start + PLAIN_BLOCK);
        let mut acc = [[_mm256_setzero_si256(); T]; N];
        let mut i = start;
        while i < end {
            let mut wide = [_mm256_setzero_si256(); N];
            for n in 0..N {
                // SAFETY: i + 16 <= full <= the row's length, checked above.
                wide[n] = unsafe { load_i8(w[n].as_ptr(), i) };
            }
            for t in 0..T {
                // SAFETY: as above.
                let v = unsafe { load_i16(x[t].as_ptr(), i) };
                for n in 0..N {
                    acc[n][t] = _mm256_add_epi32(acc[n][t], _mm256_madd_epi16(wide[n], v));
                }
            }
            i = i.wrapping_add(STEP);
        }
        for n in 0..N {
            for t in 0..T {
                out[n][t] += sum_i64(widen(acc[n][t]));
            }
        }
        start = end;
    }
    if full < k {
        for n in 0..N {
            for t in 0..T {
                out[n][t] += super::portable::dot(&w[n][full..], &x[t][full..]);
            }
        }
    }
    out
}

/// acc\[d\] += sum over keys of p\[j\] * v\[j\]\[d\], key j's acc.len() values at `rows[j * stride ..]`.
///
/// Two keys a step: their int8 values interleave as int16 pairs, and one multiply-add serves both.
#[target_feature(enable = "avx2")]
pub(super) fn weighted_rows(p: &[i16], rows: &[i8], stride: usize, acc: &mut [i64]) {
    /// Vectors a tile: eight registers of sums, a whole head of the usual 64 elements.
    const TILE: usize = 4;
    let full = acc.len() / STEP;
    for first in (0..p.len()).step_by(KEY_BLOCK) {
        let p = &p[first..p.len().min(first + KEY_BLOCK)];
        let rows = &rows[first * stride..];
        let tiles = full - full % TILE;
        for at in (0..tiles).step_by(TILE) {
            let sums = pairs::<TILE>(p, &rows[at * STEP..], stride);
            add_pairs(sums, &mut acc[at * STEP..]);
        }
        for at in tiles..full {
            let sums = pairs::<1>(p, &rows[at * STEP..], stride);
            add_pairs(sums, &mut acc[at * STEP..]);
        }
    }
    let done = full * STEP;
    if done < acc.len() {
        super::portable::weighted_rows(p, &rows[done.min(rows.len())..], stride, &mut acc[done..]);
    }
}

/// Adds the sums of [`pairs`] to the elements that they belong to.
#[inline]
#[target_feature(enable = "avx2")]
fn add_pairs<const W: usize>(sums: [[__m256i; 2]; W], acc: &mut [i64]) {
    for ([even, odd], acc) in sums.into_iter().zip(acc.as_chunks_mut::<STEP>().0) {
        // unpack works inside 128-bit halves: put elements 0..8 and 8..16 back together.
        let halves = [
            _mm256_permute2x128_si256::<0x20>(even, odd),
            _mm256_permute2x128_si256::<0x31>(even, odd),
        ];
        for (half, acc) in halves.into_iter().zip(acc.as_chunks_mut::<8>().0) {
            // SAFETY: eight int32 are any 32 bytes.
            let lanes = unsafe { transmute::<__m256i, [i32; 8]>(half) };
            for (sum, lane) in acc.iter_mut().zip(lanes) {
                *sum += i64::from(lane);
            }
        }
    }
}

/// Int32 sums of p\[j\] * v\[j\]\[d\] for the first 16 * `W` elements of the rows; lanes in the order of unpack.
#[inline]
#[target_feature(enable = "avx2")]
fn pairs<const W: usize>(p: &[i16], rows: &[i8], stride: usize) -> [[__m256i; 2]; W] {
    let last_row = p.len().saturating_sub(1) * stride;
    assert!(p.is_empty() || rows.len() >= last_row + W * STEP, "a row a key");
    let mut sums = [[_mm256_setzero_si256(); 2]; W];
    let (whole, rest) = p.as_chunks::<2>();
    let mut at = 0usize;
    for [p0, p1] in whole {
        let by = _mm256_set1_epi32(i32::from(*p1) << 16 | i32::from(p0.cast_unsigned()));
        let next = at.wrapping_add(stride);
        for i in 0..W {
            // SAFETY: next <= last_row and 16 * i + 16 <= 16 * W, so both reads end within `rows`, as asserted.
            let (a, b) = unsafe {
                let base = rows.as_ptr();
                (
                    load_i8(base, at.wrapping_add(i * STEP)),
                    load_i8(base, next.wrapping_add(i * STEP)),
                )
            };
            sums[i][0] = _mm256_add_epi32(sums[i][0], _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), by));
            sums[i][1] = _mm256_add_epi32(sums[i][1], _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), by));
        }
        at = next.wrapping_add(stride);
    }
    if let [p0] = rest {
        // The last of an odd number: its neighbour is itself with weight 0.
        let by = _mm256_set1_epi32(i32::from(p0.cast_unsigned()));
        for i in 0..W {
            // SAFETY: `last_row` + 16 * W is within `rows`, as asserted.
            let a = unsafe { load_i8(rows.as_ptr(), last_row + i * STEP) };
            sums[i][0] = _mm256_add_epi32(sums[i][0], _mm256_madd_epi16(_mm256_unpacklo_epi16(a, a), by));
            sums[i][1] = _mm256_add_epi32(sums[i][1], _mm256_madd_epi16(_mm256_unpackhi_epi16(a, a), by));
        }
    }
    sums
}

/// [`keys::scores`] compiled for AVX2.
#[target_feature(enable = "avx2")]
pub(super) fn scores(dots: &[i64], q: Scale, k: &Scales, c: Scale, out: &mut [i32]) -> Option<()> {
    keys::scores(dots, q, k, c, out)
}

/// [`keys::max_weighted`] compiled for AVX2.
#[target_feature(enable = "avx2")]
pub(super) fn max_weighted(scores: &[i32], v: &Scales) -> Option<i64> {
    keys::max_weighted(scores, v)
}

/// [`keys::weights`] compiled for AVX2.
#[target_feature(enable = "avx2")]
pub(super) fn weights(
    scores: &[i32],
    max: i32,
    v: &Scales,
    r: Option<i32>,
    p_bits: u8,
    out: &mut [u32],
) -> Option<u64> {
    keys::weights(scores, max, v, r, p_bits, out)
}
