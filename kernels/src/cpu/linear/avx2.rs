//! AVX2 loops of linear sites: int16 multiply-adds, eight int32 sums a register.
//!
//! The only `unsafe` here is reading whole vectors, each inside a slice whose length the same function has
//! checked, and entering code compiled for AVX2 where the machine has it.
#![allow(unsafe_code)]
// Loops over constant indices unroll into registers; written with iterators, the same arrays went through
// memory and the loops ran at a quarter of the speed.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::{
    __m128i, __m256i, _MM_HINT_T0, _mm_add_epi64, _mm_cvtsi128_si64, _mm_prefetch, _mm_unpackhi_epi64,
    _mm256_add_epi32, _mm256_add_epi64, _mm256_castsi256_si128, _mm256_cvtepi8_epi16, _mm256_cvtepi32_epi64,
    _mm256_extracti128_si256, _mm256_madd_epi16, _mm256_mullo_epi16, _mm256_set1_epi16, _mm256_set1_epi32,
    _mm256_setzero_si256,
};
use std::mem::transmute;

use super::{
    Site,
    blocked::Packed,
    dot::Tile,
    panel::{LANES, Line, Part, Rows},
    portable,
};
use crate::cpu::bounds::{GROUP, GROUPED_BLOCK, PLAIN_BLOCK};

/// Elements a step along K: one load of int8 widened to int16.
const STEP: usize = 16;
/// Weight rows of a tile across tokens: twelve sums, two vectors of tokens, a weight and a product.
const ROWS: usize = 6;
/// Bytes of a cache line.
const LINE: usize = 64;

/// [`Site::walk_dots`] compiled for AVX2; the machine has it.
pub(super) fn dots(site: &Site<'_>, first: usize, pieces: &mut [&mut [i32]]) {
    #[target_feature(enable = "avx2")]
    fn run(site: &Site<'_>, first: usize, pieces: &mut [&mut [i32]]) {
        if site.m.is_empty() {
            site.walk_dots(
                first,
                pieces,
                |t| tile::<4, 1, false>(t),
                |t| tile::<2, 2, false>(t),
            );
        } else {
            site.walk_dots(
                first,
                pieces,
                |t| tile::<4, 1, true>(t),
                |t| tile::<2, 2, true>(t),
            );
        }
    }
    // SAFETY: a site's instruction set is one that the machine was found to have.
    unsafe { run(site, first, pieces) }
}

/// [`Site::walk`] compiled for AVX2; the machine has it.
pub(super) fn block(
    site: &Site<'_>,
    packed: &Packed,
    rows: &mut Rows,
    first: usize,
    pieces: &mut [&mut [i32]],
) {
    #[target_feature(enable = "avx2")]
    fn run(site: &Site<'_>, packed: &Packed, rows: &mut Rows, first: usize, pieces: &mut [&mut [i32]]) {
        if pieces.len() <= LANES / 2 {
            site.walk(Part::Wide, packed, rows, first, pieces, |w, [x]| {
                pairs::<ROWS, 1>(w, x)
            });
        } else {
            site.walk(Part::Wide, packed, rows, first, pieces, |w, [x]| {
                pairs::<ROWS, 2>(w, x)
            });
        }
    }
    // SAFETY: a site's instruction set is one that the machine was found to have.
    unsafe { run(site, packed, rows, first, pieces) }
}

/// Sums of `R` rows of int16 pairs times the first 8 * `V` tokens of a panel.
#[inline]
#[target_feature(enable = "avx2")]
fn pairs<const R: usize, const V: usize>(w: [&[u32]; R], x: &[Line]) -> [[[i32; LANES]; 1]; R] {
    assert!(w.iter().all(|w| w.len() == x.len()), "rows of one length");
    let mut acc = [[_mm256_setzero_si256(); V]; R];
    let mut i = 0;
    while i < x.len() {
        let mut tokens = [_mm256_setzero_si256(); V];
        // SAFETY: i < x.len(), which is every row's length; a line is two vectors and V <= 2.
        unsafe {
            let line = x.as_ptr().wrapping_add(i).cast::<[u8; 32]>();
            for v in 0..V {
                tokens[v] = transmute::<[u8; 32], __m256i>(*line.wrapping_add(v));
            }
            for r in 0..R {
                let by = _mm256_set1_epi32((*w[r].as_ptr().wrapping_add(i)).cast_signed());
                for v in 0..V {
                    acc[r][v] = _mm256_add_epi32(acc[r][v], _mm256_madd_epi16(by, tokens[v]));
                }
            }
        }
        i = i.wrapping_add(1);
    }
    let mut out = [[[0; LANES]; 1]; R];
    for r in 0..R {
        for v in 0..V {
            // SAFETY: eight int32 are any 32 bytes.
            let lanes = unsafe { transmute::<__m256i, [i32; 8]>(acc[r][v]) };
            out[r][0][8 * v..8 * v + 8].copy_from_slice(&lanes);
        }
    }
    out
}

/// 16 int8 at `row + at` as int16 lanes.
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

/// Sum of the eight int32 lanes, exact.
#[inline]
#[target_feature(enable = "avx2")]
fn sum(v: __m256i) -> i64 {
    let four = _mm256_add_epi64(
        _mm256_cvtepi32_epi64(_mm256_castsi256_si128(v)),
        _mm256_cvtepi32_epi64(_mm256_extracti128_si256::<1>(v)),
    );
    let two = _mm_add_epi64(_mm256_castsi256_si128(four), _mm256_extracti128_si256::<1>(four));
    _mm_cvtsi128_si64(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two)))
}

/// `N` weight rows times `T` tokens, summed along K; `GROUPED` where the weight has multipliers.
#[inline]
#[target_feature(enable = "avx2")]
fn tile<const N: usize, const T: usize, const GROUPED: bool>(tile: Tile<'_, T>) -> [[i64; T]; N] {
    let Tile { w, k, m, x } = tile;
    let len = x[0].len();
    let groups = k / GROUP;
    assert!(
        x.iter().all(|x| x.len() == len) && w.len() >= (N - 1) * k + len,
        "rows of one length"
    );
    assert!(
        !GROUPED || m.len() >= (N - 1) * groups + len / GROUP,
        "a multiplier a group"
    );
    // Rows read side by side are a pattern that the processor's own prefetcher does not follow: ask for those
    // that come two tiles later.
    for row in w.chunks(k).skip(2 * N).take(N) {
        for line in row[..len.min(row.len())].chunks(LINE) {
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr());
        }
    }
    let mut out = [[0i64; T]; N];
    let (step, block) = if GROUPED {
        (GROUP, GROUPED_BLOCK)
    } else {
        (STEP, PLAIN_BLOCK)
    };
    let full = len - len % step;
    let mut start = 0;
    while start < full {
        let end = full.min(start + block);
        let mut acc = [[_mm256_setzero_si256(); T]; N];
        let mut i = start;
        while i < end {
            if !GROUPED {
                let mut wide = [_mm256_setzero_si256(); N];
                for n in 0..N {
                    // SAFETY: i + 16 <= full <= len, and row n has len values from n * k on.
                    wide[n] = unsafe { load_i8(w.as_ptr(), n.wrapping_mul(k).wrapping_add(i)) };
                }
                for t in 0..T {
                    // SAFETY: i + 16 <= len.
                    let v = unsafe { load_i16(x[t].as_ptr(), i) };
                    for n in 0..N {
                        acc[n][t] = _mm256_add_epi32(acc[n][t], _mm256_madd_epi16(wide[n], v));
                    }
                }
            } else {
                let mut lo = [_mm256_setzero_si256(); N];
                let mut hi = [_mm256_setzero_si256(); N];
                for n in 0..N {
                    let at = n.wrapping_mul(k).wrapping_add(i);
                    // SAFETY: i + 32 <= full <= len, so the group has its values and its multiplier.
                    let (by, a, b) = unsafe {
                        (
                            *m.as_ptr()
                                .wrapping_add(n.wrapping_mul(groups).wrapping_add(i / GROUP)),
                            load_i8(w.as_ptr(), at),
                            load_i8(w.as_ptr(), at.wrapping_add(STEP)),
                        )
                    };
                    let by = _mm256_set1_epi16(i16::from(by));
                    lo[n] = _mm256_mullo_epi16(a, by);
                    hi[n] = _mm256_mullo_epi16(b, by);
                }
                for t in 0..T {
                    // SAFETY: i + 32 <= len.
                    let (a, b) = unsafe {
                        let row = x[t].as_ptr();
                        (load_i16(row, i), load_i16(row, i.wrapping_add(STEP)))
                    };
                    for n in 0..N {
                        let both = _mm256_add_epi32(_mm256_madd_epi16(lo[n], a), _mm256_madd_epi16(hi[n], b));
                        acc[n][t] = _mm256_add_epi32(acc[n][t], both);
                    }
                }
            }
            i = i.wrapping_add(step);
        }
        for n in 0..N {
            for t in 0..T {
                out[n][t] += sum(acc[n][t]);
            }
        }
        start = end;
    }
    if full < len {
        for n in 0..N {
            for t in 0..T {
                let w = &w[n * k..][full..len];
                out[n][t] += if !GROUPED {
                    portable::dot(w, &x[t][full..])
                } else {
                    portable::dot_grouped(w, &m[n * groups + full / GROUP..], &x[t][full..])
                };
            }
        }
    }
    out
}

/// Multiply-adds on registers: the pair of instructions of [`pairs`], twelve sums side by side.
pub(super) fn multiply_adds(rounds: usize) -> u64 {
    const SUMS: usize = 12;
    const TURNS: usize = 64;
    #[target_feature(enable = "avx2")]
    fn run(rounds: usize) {
        let (by, one) = std::hint::black_box((_mm256_set1_epi16(3), _mm256_set1_epi32(1)));
        let mut sums = [one; SUMS];
        for _ in 0..rounds * TURNS {
            for sum in &mut sums {
                // Each depends on the last, so that none can be left out.
                *sum = _mm256_add_epi32(_mm256_madd_epi16(*sum, by), one);
            }
        }
        std::hint::black_box(sums);
    }
    // SAFETY: this is only called for AVX2 on machines that were found to have it.
    unsafe { run(rounds) };
    (rounds * TURNS * SUMS * STEP) as u64
}
