//! NEON loops of linear sites: int16 multiply-adds (`smlal`), four int32 sums a register. Every AArch64
//! processor has them.
//!
//! The only `unsafe` here is reading whole vectors, each inside a slice whose length the same function has
//! checked, and entering code compiled for NEON where the machine has it.
#![allow(unsafe_code)]
// Loops over constant indices unroll into registers.
#![allow(clippy::needless_range_loop)]

use std::arch::aarch64::{
    int8x16_t, int16x8_t, int32x4_t, vaddlvq_s32, vdupq_n_s16, vdupq_n_s32, vdupq_n_u32, vget_low_s8,
    vget_low_s16, vmlal_high_s16, vmlal_s16, vmovl_high_s8, vmovl_s8, vmulq_n_s16, vpaddq_s32,
    vreinterpretq_s16_s32, vreinterpretq_s16_u32,
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

/// Elements a step along K: one load of int8 widened to two vectors of int16.
const STEP: usize = 16;
/// Weight rows of a tile across 16 tokens: 16 sums, eight halves of vectors of tokens, two weights.
const ROWS: usize = 2;

/// [`Site::walk_dots`] compiled for NEON; the machine has it.
pub(super) fn dots(site: &Site<'_>, first: usize, pieces: &mut [&mut [i32]]) {
    #[target_feature(enable = "neon")]
    fn run<const GROUPED: bool>(site: &Site<'_>, first: usize, pieces: &mut [&mut [i32]]) {
        site.walk_dots(
            first,
            pieces,
            |t, out| t.by(out, |t| tile::<4, 1, GROUPED>(t)),
            |t, out| t.by(out, |t| tile::<2, 2, GROUPED>(t)),
        );
    }
    // SAFETY: a site's instruction set is one that the machine was found to have.
    unsafe {
        if site.m.is_empty() {
            run::<false>(site, first, pieces);
        } else {
            run::<true>(site, first, pieces);
        }
    }
}

/// [`Site::walk`] compiled for NEON; the machine has it.
pub(super) fn block(
    site: &Site<'_>,
    packed: &Packed,
    rows: &mut Rows,
    first: usize,
    pieces: &mut [&mut [i32]],
) {
    #[target_feature(enable = "neon")]
    fn run(site: &Site<'_>, packed: &Packed, rows: &mut Rows, first: usize, pieces: &mut [&mut [i32]]) {
        site.walk(Part::Wide, packed, rows, first, pieces, |w, [x]| {
            pairs::<ROWS>(w, x)
        });
    }
    // SAFETY: a site's instruction set is one that the machine was found to have.
    unsafe { run(site, packed, rows, first, pieces) }
}

/// Sums of `R` rows of int16 pairs times the 16 tokens of a panel.
#[inline]
#[target_feature(enable = "neon")]
fn pairs<const R: usize>(w: [&[u32]; R], x: &[Line]) -> [[[i32; LANES]; 1]; R] {
    /// Vectors of a line: four tokens each, two values of K a token.
    const VECTORS: usize = 4;
    assert!(w.iter().all(|w| w.len() == x.len()), "rows of one length");
    // Of each vector's lower and upper half; the two values of a token stay apart until the end.
    let mut acc = [[[vdupq_n_s32(0); 2]; VECTORS]; R];
    let mut i = 0;
    while i < x.len() {
        // SAFETY: i < x.len(), which is every row's length; a line is four vectors of any bits.
        unsafe {
            let line = transmute::<Line, [int16x8_t; VECTORS]>(*x.as_ptr().wrapping_add(i));
            for r in 0..R {
                let by = vreinterpretq_s16_u32(vdupq_n_u32(*w[r].as_ptr().wrapping_add(i)));
                for v in 0..VECTORS {
                    acc[r][v][0] = vmlal_s16(acc[r][v][0], vget_low_s16(line[v]), vget_low_s16(by));
                    acc[r][v][1] = vmlal_high_s16(acc[r][v][1], line[v], by);
                }
            }
        }
        i = i.wrapping_add(1);
    }
    acc.map(|row| {
        let sums = row.map(|[low, high]| vpaddq_s32(low, high));
        // SAFETY: sixteen int32 are any 64 bytes.
        [unsafe { transmute::<[int32x4_t; VECTORS], [i32; LANES]>(sums) }]
    })
}

/// 16 int8 at `row + at`.
///
/// # Safety
/// `row[at .. at + 16]` is readable.
#[inline]
pub(in crate::cpu) unsafe fn load_i8(row: *const i8, at: usize) -> int8x16_t {
    // SAFETY: the caller's promise; an array of bytes needs no alignment, and any bits are a vector.
    unsafe { transmute::<[u8; 16], int8x16_t>(*row.wrapping_add(at).cast::<[u8; 16]>()) }
}

/// 16 int16 at `row + at`.
///
/// # Safety
/// `row[at .. at + 16]` is readable.
#[inline]
pub(in crate::cpu) unsafe fn load_i16(row: *const i16, at: usize) -> [int16x8_t; 2] {
    // SAFETY: the caller's promise; an array of bytes needs no alignment, and any bits are two vectors.
    unsafe { transmute::<[u8; 32], [int16x8_t; 2]>(*row.wrapping_add(at).cast::<[u8; 32]>()) }
}

/// 16 int8 as int16.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::cpu) fn widen(v: int8x16_t) -> [int16x8_t; 2] {
    [vmovl_s8(vget_low_s8(v)), vmovl_high_s8(v)]
}

/// `N` weight rows times `T` tokens, summed along K; `GROUPED` where the weight has multipliers.
#[inline]
#[target_feature(enable = "neon")]
fn tile<const N: usize, const T: usize, const GROUPED: bool>(tile: Tile<'_, T>) -> [[i64; T]; N] {
    let Tile { w, k, m, x, .. } = tile;
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
        // Eight lanes a sum, which is what the blocks are measured for.
        let mut acc = [[[vdupq_n_s32(0); 2]; T]; N];
        let mut i = start;
        while i < end {
            let mut wide = [[vdupq_n_s16(0); 2]; N];
            for n in 0..N {
                // SAFETY: i + 16 <= full <= len, and row n has len values from n * k on and, where there are
                // multipliers, one for the group that i lies in.
                wide[n] = widen(unsafe { load_i8(w.as_ptr(), n.wrapping_mul(k).wrapping_add(i)) });
                if GROUPED {
                    // SAFETY: as above.
                    let by = unsafe {
                        *m.as_ptr()
                            .wrapping_add(n.wrapping_mul(groups).wrapping_add(i / GROUP))
                    };
                    wide[n] = wide[n].map(|w| vmulq_n_s16(w, i16::from(by)));
                }
            }
            for t in 0..T {
                // SAFETY: i + 16 <= len.
                let v = unsafe { load_i16(x[t].as_ptr(), i) };
                for n in 0..N {
                    for half in 0..2 {
                        let (a, b) = (wide[n][half], v[half]);
                        let [low, high] = acc[n][t];
                        acc[n][t] = [
                            vmlal_s16(low, vget_low_s16(a), vget_low_s16(b)),
                            vmlal_high_s16(high, a, b),
                        ];
                    }
                }
            }
            i = i.wrapping_add(STEP);
        }
        for n in 0..N {
            for t in 0..T {
                out[n][t] += acc[n][t].map(|sum| vaddlvq_s32(sum)).iter().sum::<i64>();
            }
        }
        start = end;
    }
    add_rest::<N, T, GROUPED>(tile, full, &mut out);
    out
}

/// Adds what is left from `full` on: less than a step.
#[inline]
pub(super) fn add_rest<const N: usize, const T: usize, const GROUPED: bool>(
    tile: Tile<'_, T>,
    full: usize,
    out: &mut [[i64; T]; N],
) {
    let Tile { w, k, m, x, .. } = tile;
    let len = x[0].len();
    if full == len {
        return;
    }
    for n in 0..N {
        for t in 0..T {
            let w = &w[n * k..][full..len];
            out[n][t] += if GROUPED {
                portable::dot_grouped(w, &m[n * (k / GROUP) + full / GROUP..], &x[t][full..])
            } else {
                portable::dot(w, &x[t][full..])
            };
        }
    }
}

/// Multiply-adds on registers: the instructions of [`pairs`], sixteen sums side by side.
pub(super) fn multiply_adds(rounds: usize) -> u64 {
    const SUMS: usize = 16;
    const TURNS: usize = 64;
    #[target_feature(enable = "neon")]
    fn run(rounds: usize) {
        let (by, one) = std::hint::black_box((vdupq_n_s16(3), vdupq_n_s32(1)));
        let mut sums = [one; SUMS];
        for _ in 0..rounds * TURNS {
            for sum in &mut sums {
                // Each depends on the last, so that none can be left out.
                let last = vreinterpretq_s16_s32(*sum);
                *sum = vmlal_high_s16(vmlal_s16(*sum, vget_low_s16(last), vget_low_s16(by)), last, by);
            }
        }
        std::hint::black_box(sums);
    }
    // SAFETY: this is only called for NEON on machines that were found to have it.
    unsafe { run(rounds) };
    (rounds * TURNS * SUMS * 8) as u64
}
