//! AVX2 loops of linear sites: int16 multiply-adds, eight int32 sums a register.
//!
//! The only `unsafe` here is reading whole vectors, each inside a slice whose length the same function has
//! checked, and entering code compiled for AVX2 where the machine has it.
#![allow(unsafe_code)]
// Loops over constant indices unroll into registers; written with iterators, the same arrays went through
// memory and the loops ran at a quarter of the speed.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::{
    __m128i, __m256i, _mm256_add_epi32, _mm256_add_epi64, _mm256_castsi256_si128, _mm256_cvtepi8_epi16,
    _mm256_cvtepi32_epi64, _mm256_extracti128_si256, _mm256_madd_epi16, _mm256_mullo_epi16,
    _mm256_permute2x128_si256, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_setzero_si256,
    _mm256_srli_epi16, _mm256_unpackhi_epi64, _mm256_unpacklo_epi64,
};
use std::mem::transmute;

use super::{
    Site,
    blocked::Packed,
    dot::{Sums, Tile},
    panel::{LANES, Line, Part, Rows},
};
use crate::cpu::bounds::{GROUP, GROUPED_BLOCK, PLAIN_BLOCK};

/// Elements of a vector of int16.
const STEP: usize = 16;
/// Rows whose lanes are added up together.
const SUMS: usize = 4;
/// Weight rows of a tile across tokens: twelve sums, two vectors of tokens, a weight and a product.
const ROWS: usize = 6;

/// [`Site::walk_dots`] compiled for AVX2; the machine has it.
pub(super) fn dots(site: &Site<'_>, first: usize, pieces: &mut [&mut [i32]]) {
    #[target_feature(enable = "avx2")]
    fn run(site: &Site<'_>, first: usize, pieces: &mut [&mut [i32]]) {
        if site.m.is_empty() {
            site.walk_dots(
                first,
                pieces,
                |t, out| tile::<1, false>(t, out),
                |t, out| tile::<2, false>(t, out),
            );
        } else {
            site.walk_dots(
                first,
                pieces,
                |t, out| tile::<1, true>(t, out),
                |t, out| tile::<2, true>(t, out),
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
            // SAFETY: V <= 2 times 32 bytes are the first of 16 int32; eight int32 are any 32 bytes.
            unsafe {
                let half = out[r].as_mut_ptr().cast::<[u8; 32]>().wrapping_add(v);
                *half = transmute::<__m256i, [u8; 32]>(acc[r][v]);
            }
        }
    }
    out
}

/// 32 int8 as int16 lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn wide(w: &[i8; GROUP]) -> [__m256i; 2] {
    // SAFETY: any bits are vectors.
    let halves = unsafe { transmute::<[i8; GROUP], [__m128i; 2]>(*w) };
    [_mm256_cvtepi8_epi16(halves[0]), _mm256_cvtepi8_epi16(halves[1])]
}

/// The eight int32 lanes as four int64, two and two added.
#[inline]
#[target_feature(enable = "avx2")]
fn widen_sums(v: __m256i) -> __m256i {
    _mm256_add_epi64(
        _mm256_cvtepi32_epi64(_mm256_castsi256_si128(v)),
        _mm256_cvtepi32_epi64(_mm256_extracti128_si256::<1>(v)),
    )
}

/// The sums of the int64 lanes of four vectors.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_each([a, b, c, d]: [__m256i; 4]) -> [i64; 4] {
    let ab = _mm256_add_epi64(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    let cd = _mm256_add_epi64(_mm256_unpacklo_epi64(c, d), _mm256_unpackhi_epi64(c, d));
    // Each holds the sums of the lower halves, then of the upper halves.
    let all = _mm256_add_epi64(
        _mm256_permute2x128_si256::<0x20>(ab, cd),
        _mm256_permute2x128_si256::<0x31>(ab, cd),
    );
    // SAFETY: four int64 are any 32 bytes.
    unsafe { transmute::<__m256i, [i64; 4]>(all) }
}

/// Whole groups of one weight row times `T` tokens; four int64 lanes to be added up. `GROUPED` where the weight
/// has multipliers, one a group in `m`.
#[inline]
#[target_feature(enable = "avx2")]
fn row<const T: usize, const GROUPED: bool>(
    w: &[[i8; GROUP]],
    m: &[u8],
    x: &[&[[i16; GROUP]]; T],
) -> [__m256i; T] {
    let block = if GROUPED { GROUPED_BLOCK } else { PLAIN_BLOCK } / GROUP;
    let mut sums = [_mm256_setzero_si256(); T];
    let mut start = 0;
    while start < w.len() {
        let end = w.len().min(start.wrapping_add(block));
        // Slices of one length, so that nothing is checked in the innermost loop.
        let w = &w[start..end];
        let m = if GROUPED { &m[start..end] } else { m };
        let mut tokens: [&[[i16; GROUP]]; T] = [&[]; T];
        for t in 0..T {
            tokens[t] = &x[t][start..end];
        }
        let mut acc = [[_mm256_setzero_si256(); 2]; T];
        let mut i = 0;
        while i < w.len() {
            let mut both = wide(&w[i]);
            if GROUPED {
                // Bytes broadcast straight from memory; every second one is shifted away.
                let by = _mm256_srli_epi16::<8>(_mm256_set1_epi8(m[i].cast_signed()));
                both = [_mm256_mullo_epi16(both[0], by), _mm256_mullo_epi16(both[1], by)];
            }
            for t in 0..T {
                // SAFETY: any bits are vectors.
                let x = unsafe { transmute::<[i16; GROUP], [__m256i; 2]>(tokens[t][i]) };
                for h in 0..2 {
                    acc[t][h] = _mm256_add_epi32(acc[t][h], _mm256_madd_epi16(both[h], x[h]));
                }
            }
            i = i.wrapping_add(1);
        }
        for t in 0..T {
            // The bound is that of eight lanes: the halves may be added.
            let part = widen_sums(_mm256_add_epi32(acc[t][0], acc[t][1]));
            sums[t] = _mm256_add_epi64(sums[t], part);
        }
        start = end;
    }
    sums
}

/// A tile's weight rows times its tokens, along K; `GROUPED` where the weight has multipliers.
///
/// Row after row, so that memory is read from one end to the other: the processor fetches ahead of one such
/// stream by itself, and did not of rows read side by side.
#[inline]
#[target_feature(enable = "avx2")]
fn tile<const T: usize, const GROUPED: bool>(tile: Tile<'_, T>, out: &mut Sums<T>) {
    let Tile { rows, w, k, m, x } = tile;
    let len = x[0].len();
    let groups = len / GROUP;
    let mut tokens: [&[[i16; GROUP]]; T] = [&[]; T];
    for t in 0..T {
        tokens[t] = &x[t].as_chunks::<GROUP>().0[..groups];
    }
    let mut n = 0;
    while n < rows {
        let some = SUMS.min(rows.wrapping_sub(n));
        let mut sums = [[_mm256_setzero_si256(); SUMS]; T];
        for j in 0..SUMS {
            if j < some {
                let at = n.wrapping_add(j);
                let w = &w[at.wrapping_mul(k)..][..len].as_chunks::<GROUP>().0[..groups];
                let m = if GROUPED {
                    &m[at.wrapping_mul(k / GROUP)..][..groups]
                } else {
                    m
                };
                let row = row::<T, GROUPED>(w, m, &tokens);
                for t in 0..T {
                    sums[t][j] = row[t];
                }
            }
        }
        for t in 0..T {
            out[t][n..n.wrapping_add(some)].copy_from_slice(&sum_each(sums[t])[..some]);
        }
        n = n.wrapping_add(SUMS);
    }
    if len % GROUP > 0 {
        for t in 0..T {
            for n in 0..rows {
                out[t][n] += tile.rest(n, x[t], groups * GROUP);
            }
        }
    }
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
