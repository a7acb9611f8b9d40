//! AVX512-VNNI loops of linear sites: 16 int32 sums a register.
//!
//! One-plane sites without multipliers multiply uint8 by int8, four products a lane: activations carry an
//! offset of 128 that the sum of each weight row takes back out. All others multiply int16 pairs, which need
//! neither planes nor offsets and take multipliers along in the weight, at the same products an instruction
//! as two passes over planes would have.
//!
//! The only `unsafe` here is reading whole vectors, each inside a slice whose length the same function has
//! checked, and entering code compiled for AVX512-VNNI where the machine has it.
#![allow(unsafe_code)]
// Loops over constant indices unroll into registers.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::{
    __m256i, __m512i, _mm512_cvtepi8_epi16, _mm512_dpbusd_epi32, _mm512_dpwssd_epi32, _mm512_mullo_epi16,
    _mm512_set1_epi16, _mm512_set1_epi32, _mm512_setzero_si512,
};
use std::mem::transmute;

use super::{
    Site,
    blocked::Packed,
    dot::{Sums, Tile},
    panel::{LANES, Line, Part, Rows},
};
use crate::cpu::bounds::{GROUP, GROUPED_BLOCK, PLAIN_BLOCK};

/// Weight rows of a tile across 32 tokens: sixteen sums of the 32 registers.
const ROWS: usize = 8;
/// Panels of such a tile.
const PANELS: usize = 2;

/// [`Site::walk_dots`] compiled for AVX512-VNNI; the machine has it.
pub(super) fn dots(site: &Site<'_>, first: usize, pieces: &mut [&mut [i32]]) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
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

/// [`Site::walk`] compiled for AVX512-VNNI, over int16 pairs or (`bytes`) over bytes with an offset; the
/// machine has it.
pub(super) fn block(
    site: &Site<'_>,
    packed: &Packed,
    rows: &mut Rows,
    first: usize,
    pieces: &mut [&mut [i32]],
    bytes: bool,
) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn run(
        site: &Site<'_>,
        packed: &Packed,
        rows: &mut Rows,
        first: usize,
        pieces: &mut [&mut [i32]],
        bytes: bool,
    ) {
        let one = pieces.len() <= LANES;
        match (bytes, one) {
            (false, true) => site.walk(Part::Wide, packed, rows, first, pieces, |w, x| {
                pairs::<ROWS, 1>(w, x)
            }),
            (false, false) => site.walk(Part::Wide, packed, rows, first, pieces, |w, x| {
                pairs::<ROWS, PANELS>(w, x)
            }),
            (true, true) => site.walk(Part::Plain, packed, rows, first, pieces, |w, x| {
                offset_bytes::<ROWS, 1>(w, x)
            }),
            (true, false) => site.walk(Part::Plain, packed, rows, first, pieces, |w, x| {
                offset_bytes::<ROWS, PANELS>(w, x)
            }),
        }
    }
    // SAFETY: a site's instruction set is one that the machine was found to have.
    unsafe { run(site, packed, rows, first, pieces, bytes) }
}

/// Sums of `R` rows of words times `P` panels, `step` being one instruction's part of them.
#[inline(always)]
fn words<const R: usize, const P: usize>(
    w: [&[u32]; R],
    x: [&[Line]; P],
    zero: __m512i,
    step: impl Fn(__m512i, __m512i, i32) -> __m512i,
) -> [[[i32; LANES]; P]; R] {
    let len = x[0].len();
    assert!(
        w.iter().all(|w| w.len() == len) && x.iter().all(|x| x.len() == len),
        "rows and panels of one length"
    );
    let mut acc = [[zero; P]; R];
    let mut i = 0;
    while i < len {
        for p in 0..P {
            // SAFETY: i < len, every panel's length; a line is a vector.
            let tokens = unsafe { transmute::<Line, __m512i>(*x[p].as_ptr().wrapping_add(i)) };
            for r in 0..R {
                // SAFETY: i < len, every row's length.
                let by = unsafe { *w[r].as_ptr().wrapping_add(i) };
                acc[r][p] = step(acc[r][p], tokens, by.cast_signed());
            }
        }
        i = i.wrapping_add(1);
    }
    // SAFETY: sixteen int32 are any 64 bytes.
    acc.map(|row| row.map(|v| unsafe { transmute::<__m512i, [i32; LANES]>(v) }))
}

/// Int16 pairs: two products a lane and word.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn pairs<const R: usize, const P: usize>(w: [&[u32]; R], x: [&[Line]; P]) -> [[[i32; LANES]; P]; R] {
    words(w, x, _mm512_setzero_si512(), |acc, x, w| {
        _mm512_dpwssd_epi32(acc, x, _mm512_set1_epi32(w))
    })
}

/// Bytes: sum (x + 128) * w, less 128 times the sum of w. Both wrap at 2^32, their difference lies within
/// int32 (T3), so it is exact.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn offset_bytes<const R: usize, const P: usize>(w: [&[u32]; R], x: [&[Line]; P]) -> [[[i32; LANES]; P]; R] {
    let mut sums = words(w, x, _mm512_setzero_si512(), |acc, x, w| {
        _mm512_dpbusd_epi32(acc, x, _mm512_set1_epi32(w))
    });
    for r in 0..R {
        let bytes: &[i8] = bytemuck::cast_slice(w[r]);
        let sum = bytes.iter().fold(0i32, |sum, w| sum.wrapping_add(i32::from(*w)));
        for lane in sums[r].as_flattened_mut() {
            *lane = lane.wrapping_sub(sum.wrapping_mul(128));
        }
    }
    sums
}

/// Whole groups of one weight row times `T` tokens. `GROUPED` where the weight has multipliers, one a group in
/// `m`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn row<const T: usize, const GROUPED: bool>(
    w: &[[i8; GROUP]],
    m: &[u8],
    x: &[&[[i16; GROUP]]; T],
) -> [i64; T] {
    let block = if GROUPED { GROUPED_BLOCK } else { PLAIN_BLOCK } / GROUP;
    let mut sums = [0i64; T];
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
        let mut acc = [_mm512_setzero_si512(); T];
        let mut i = 0;
        while i < w.len() {
            // SAFETY: any bits are a vector.
            let mut wide = _mm512_cvtepi8_epi16(unsafe { transmute::<[i8; GROUP], __m256i>(w[i]) });
            if GROUPED {
                wide = _mm512_mullo_epi16(wide, _mm512_set1_epi16(i16::from(m[i])));
            }
            for t in 0..T {
                // SAFETY: any bits are a vector.
                let x = unsafe { transmute::<[i16; GROUP], __m512i>(tokens[t][i]) };
                acc[t] = _mm512_dpwssd_epi32(acc[t], wide, x);
            }
            i = i.wrapping_add(1);
        }
        for t in 0..T {
            // SAFETY: sixteen int32 are any 64 bytes.
            let lanes = unsafe { transmute::<__m512i, [i32; LANES]>(acc[t]) };
            // Each lane is below 2^31.
            sums[t] = lanes
                .iter()
                .fold(sums[t], |sum, v| sum.wrapping_add(i64::from(*v)));
        }
        start = end;
    }
    sums
}

/// A tile's weight rows times its tokens, along K and row after row; `GROUPED` where the weight has multipliers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn tile<const T: usize, const GROUPED: bool>(tile: Tile<'_, T>, out: &mut Sums<T>) {
    let Tile { rows, w, k, m, x } = tile;
    let len = x[0].len();
    let groups = len / GROUP;
    let mut tokens: [&[[i16; GROUP]]; T] = [&[]; T];
    for t in 0..T {
        tokens[t] = &x[t].as_chunks::<GROUP>().0[..groups];
    }
    for n in 0..rows {
        let w = &w[n * k..][..len].as_chunks::<GROUP>().0[..groups];
        let m = if GROUPED {
            &m[n * (k / GROUP)..][..groups]
        } else {
            m
        };
        let sums = row::<T, GROUPED>(w, m, &tokens);
        for t in 0..T {
            out[t][n] = sums[t];
            if len % GROUP > 0 {
                out[t][n] += tile.rest(n, x[t], groups * GROUP);
            }
        }
    }
}

/// Multiply-adds of bytes on registers, sixteen sums side by side.
pub(super) fn multiply_adds(rounds: usize) -> u64 {
    const SUMS: usize = 16;
    const TURNS: usize = 64;
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn run(rounds: usize) {
        let (a, b) = std::hint::black_box((_mm512_set1_epi32(3), _mm512_set1_epi32(1)));
        let mut sums = [b; SUMS];
        for _ in 0..rounds * TURNS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        std::hint::black_box(sums);
    }
    // SAFETY: this is only called for AVX512-VNNI on machines that were found to have it.
    unsafe { run(rounds) };
    (rounds * TURNS * SUMS * 4 * LANES) as u64
}
