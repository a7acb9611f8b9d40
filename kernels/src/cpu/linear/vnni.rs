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
    __m256i, __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_cvtepi8_epi16, _mm512_dpbusd_epi32,
    _mm512_dpwssd_epi32, _mm512_mullo_epi16, _mm512_set1_epi16, _mm512_set1_epi32, _mm512_setzero_si512,
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

/// Weight rows of a tile across 32 tokens: sixteen sums of the 32 registers.
const ROWS: usize = 8;
/// Panels of such a tile.
const PANELS: usize = 2;
/// Elements a step along K.
const STEP: usize = 32;
/// Bytes of a cache line.
const LINE: usize = 64;

/// [`Site::walk_dots`] compiled for AVX512-VNNI; the machine has it.
pub(super) fn dots(site: &Site<'_>, first: usize, pieces: &mut [&mut [i32]]) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
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

/// 32 int8 at `row + at` as int16 lanes.
///
/// # Safety
/// `row[at .. at + 32]` is readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn load_i8(row: *const i8, at: usize) -> __m512i {
    // SAFETY: the caller's promise; an array of bytes needs no alignment, and any bits are a vector.
    _mm512_cvtepi8_epi16(unsafe { transmute::<[u8; 32], __m256i>(*row.wrapping_add(at).cast::<[u8; 32]>()) })
}

/// 32 int16 at `row + at`.
///
/// # Safety
/// `row[at .. at + 32]` is readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn load_i16(row: *const i16, at: usize) -> __m512i {
    // SAFETY: the caller's promise; an array of bytes needs no alignment, and any bits are a vector.
    unsafe { transmute::<[u8; 64], __m512i>(*row.wrapping_add(at).cast::<[u8; 64]>()) }
}

/// `N` weight rows times `T` tokens, summed along K; `GROUPED` where the weight has multipliers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
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
    for row in w.chunks(k).skip(2 * N).take(N) {
        for line in row[..len.min(row.len())].chunks(LINE) {
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr());
        }
    }
    let mut out = [[0i64; T]; N];
    let block = if GROUPED { GROUPED_BLOCK } else { PLAIN_BLOCK };
    let full = len - len % STEP;
    let mut start = 0;
    while start < full {
        let end = full.min(start + block);
        let mut acc = [[_mm512_setzero_si512(); T]; N];
        let mut i = start;
        while i < end {
            let mut wide = [_mm512_setzero_si512(); N];
            for n in 0..N {
                // SAFETY: i + 32 <= full <= len, and row n has len values from n * k on and, where there are
                // multipliers, one for the group that begins at i.
                wide[n] = unsafe { load_i8(w.as_ptr(), n.wrapping_mul(k).wrapping_add(i)) };
                if GROUPED {
                    // SAFETY: as above.
                    let m = unsafe {
                        *m.as_ptr()
                            .wrapping_add(n.wrapping_mul(groups).wrapping_add(i / GROUP))
                    };
                    wide[n] = _mm512_mullo_epi16(wide[n], _mm512_set1_epi16(i16::from(m)));
                }
            }
            for t in 0..T {
                // SAFETY: i + 32 <= len.
                let v = unsafe { load_i16(x[t].as_ptr(), i) };
                for n in 0..N {
                    acc[n][t] = _mm512_dpwssd_epi32(acc[n][t], wide[n], v);
                }
            }
            i = i.wrapping_add(STEP);
        }
        for n in 0..N {
            for t in 0..T {
                // SAFETY: sixteen int32 are any 64 bytes.
                let lanes = unsafe { transmute::<__m512i, [i32; LANES]>(acc[n][t]) };
                out[n][t] += lanes.iter().map(|v| i64::from(*v)).sum::<i64>();
            }
        }
        start = end;
    }
    if full < len {
        for n in 0..N {
            for t in 0..T {
                let w = &w[n * k..][full..len];
                out[n][t] += if GROUPED {
                    portable::dot_grouped(w, &m[n * groups + full / GROUP..], &x[t][full..])
                } else {
                    portable::dot(w, &x[t][full..])
                };
            }
        }
    }
    out
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
