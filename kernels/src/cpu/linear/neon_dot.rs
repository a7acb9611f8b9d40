//! Loops of linear sites for AArch64 with FEAT_DotProd: `sdot` multiplies int8 by int8, four products a lane.
//!
//! A16 activations go as two planes of int8, each of whose sums fits int32 (T3), multipliers included. A
//! group's multiplier is applied to the sum of its 32 products.
//!
//! The intrinsics are not stable yet, so the one instruction stands in inline assembly. The rest of `unsafe`
//! is reading whole vectors, each inside a slice whose length the same function has checked, and entering code
//! compiled for FEAT_DotProd where the machine has it.
#![allow(unsafe_code)]
// Loops over constant indices unroll into registers.
#![allow(clippy::needless_range_loop)]

use std::{
    arch::{
        aarch64::{
            int8x16_t, int16x8_t, int32x4_t, vaddlvq_s32, vaddq_s16, vdupq_n_s8, vdupq_n_s16, vdupq_n_s32,
            vmlaq_n_s32, vreinterpretq_s8_s16, vuzp1q_s8, vuzp2q_s8,
        },
        asm,
    },
    mem::transmute,
};

use super::{
    Site,
    blocked::Packed,
    dot::Tile,
    neon::{add_rest, load_i8, load_i16},
    panel::{LANES, Line, Part, Rows},
};
use crate::cpu::bounds::GROUP;

/// Elements a step along K.
const STEP: usize = 16;
/// Weight rows of a tile across 16 tokens: 16 sums, of the 32 registers.
const ROWS: usize = 4;
/// Vectors of a line: four tokens each, four values of K a token.
const VECTORS: usize = 4;
/// Words of a group of 32 values.
const GROUP_WORDS: usize = GROUP / 4;

/// acc\[i\] + the dot product of lane i's four int8 of `a` and `b`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(in crate::cpu) fn sdot(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: three registers, no memory, and the processor has the instruction.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b",
            acc = inout(vreg) acc,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

/// The same with word `W` of `b` for every lane.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot_word<const W: usize>(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: as in `sdot`; W is 0 to 3, or the assembler refuses it.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {a:v}.16b, {b:v}.4b[{word}]",
            acc = inout(vreg) acc,
            a = in(vreg) a,
            b = in(vreg) b,
            word = const W,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

/// The low int8 of 16 int16: of one-plane values, themselves.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::cpu) fn low([a, b]: [int16x8_t; 2]) -> int8x16_t {
    vuzp1q_s8(vreinterpretq_s8_s16(a), vreinterpretq_s8_s16(b))
}

/// The high int8 of them, so that the value is 256 high + low with a signed low.
#[inline]
#[target_feature(enable = "neon")]
fn high(v: [int16x8_t; 2]) -> int8x16_t {
    let [a, b] = v.map(|v| vreinterpretq_s8_s16(vaddq_s16(v, vdupq_n_s16(128))));
    vuzp2q_s8(a, b)
}

/// [`Site::walk_dots`] compiled for FEAT_DotProd; the machine has it.
pub(super) fn dots(site: &Site<'_>, first: usize, pieces: &mut [&mut [i32]]) {
    #[target_feature(enable = "neon,dotprod")]
    fn run<const P: usize, const GROUPED: bool>(site: &Site<'_>, first: usize, pieces: &mut [&mut [i32]]) {
        site.walk_dots(
            first,
            pieces,
            |t, out| t.by(out, |t| tile::<4, 1, P, GROUPED>(t)),
            |t, out| t.by(out, |t| tile::<2, 2, P, GROUPED>(t)),
        );
    }
    // SAFETY: a site's instruction set is one that the machine was found to have.
    unsafe {
        match (site.x.planes, site.m.is_empty()) {
            (1, true) => run::<1, false>(site, first, pieces),
            (1, false) => run::<1, true>(site, first, pieces),
            (_, true) => run::<2, false>(site, first, pieces),
            (_, false) => run::<2, true>(site, first, pieces),
        }
    }
}

/// `N` weight rows times `T` tokens of `P` planes, summed along K; `GROUPED` where the weight has multipliers.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn tile<const N: usize, const T: usize, const P: usize, const GROUPED: bool>(
    tile: Tile<'_, T>,
) -> [[i64; T]; N] {
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
    let step = if GROUPED { GROUP } else { STEP };
    let full = len - len % step;
    // By plane, the low one first.
    let mut total = [[[vdupq_n_s32(0); P]; T]; N];
    let mut i = 0;
    while i < full {
        let mut acc = if GROUPED {
            [[[vdupq_n_s32(0); P]; T]; N]
        } else {
            total
        };
        for at in (i..i.wrapping_add(step)).step_by(STEP) {
            let mut weights = [vdupq_n_s8(0); N];
            for n in 0..N {
                // SAFETY: at + 16 <= full <= len, and row n has len values from n * k on.
                weights[n] = unsafe { load_i8(w.as_ptr(), n.wrapping_mul(k).wrapping_add(at)) };
            }
            for t in 0..T {
                // SAFETY: at + 16 <= len.
                let v = unsafe { load_i16(x[t].as_ptr(), at) };
                for p in 0..P {
                    let plane = if p == 0 { low(v) } else { high(v) };
                    for n in 0..N {
                        acc[n][t][p] = sdot(acc[n][t][p], weights[n], plane);
                    }
                }
            }
        }
        if GROUPED {
            for n in 0..N {
                // SAFETY: row n has a multiplier for the group that begins at i.
                let by = unsafe {
                    *m.as_ptr()
                        .wrapping_add(n.wrapping_mul(groups).wrapping_add(i / GROUP))
                };
                for t in 0..T {
                    for p in 0..P {
                        total[n][t][p] = vmlaq_n_s32(total[n][t][p], acc[n][t][p], i32::from(by));
                    }
                }
            }
        } else {
            total = acc;
        }
        i = i.wrapping_add(step);
    }
    let mut out = [[0i64; T]; N];
    for n in 0..N {
        for t in 0..T {
            for p in 0..P {
                out[n][t] += vaddlvq_s32(total[n][t][p]) << (8 * p);
            }
        }
    }
    add_rest::<N, T, GROUPED>(tile, full, &mut out);
    out
}

/// Weight rows `first ..` against every panel; the machine has FEAT_DotProd.
pub(super) fn block(
    site: &Site<'_>,
    packed: &Packed,
    rows: &mut Rows,
    first: usize,
    pieces: &mut [&mut [i32]],
) {
    #[target_feature(enable = "neon,dotprod")]
    fn run<const GROUPED: bool>(
        site: &Site<'_>,
        packed: &Packed,
        rows: &mut Rows,
        first: usize,
        pieces: &mut [&mut [i32]],
    ) {
        walk(site, packed, rows, first, pieces, |w, m, x| {
            bytes::<ROWS, GROUPED>(w, m, x)
        });
    }
    // SAFETY: a site's instruction set is one that the machine was found to have.
    unsafe {
        if site.m.is_empty() {
            run::<false>(site, packed, rows, first, pieces);
        } else {
            run::<true>(site, packed, rows, first, pieces);
        }
    }
}

/// The walk, compiled for the caller's instruction set; `multiply` as [`bytes`].
#[inline(always)]
fn walk(
    site: &Site<'_>,
    packed: &Packed,
    rows: &mut Rows,
    first: usize,
    pieces: &mut [&mut [i32]],
    multiply: impl Fn([&[u32]; ROWS], [&[u8]; ROWS], &[Line]) -> [[i32; LANES]; ROWS],
) {
    let count = pieces.first().map_or(0, |p| p.len());
    let (host, len) = (&site.weight.host, site.x.group);
    let padded = count.next_multiple_of(ROWS);
    rows.take(Part::Plain, host, first..first + count, padded, len);
    let planes = if site.x.planes == 1 { 1 } else { 2 };
    for p in 0..packed.panels.count {
        for r in (0..count).step_by(ROWS) {
            let mut tile = [[[0i32; LANES]; 1]; ROWS];
            for s in 0..site.x.groups() {
                let w: [&[u32]; ROWS] = std::array::from_fn(|j| rows.segment(r + j, s));
                // Rows past the last are zeros, whatever they are multiplied by.
                let m: [&[u8]; ROWS] = std::array::from_fn(|j| {
                    let mults = host.mults(first + (r + j).min(count - 1));
                    mults.get(s * len / GROUP..(s + 1) * len / GROUP).unwrap_or(&[])
                });
                let mut sums = [[0i64; LANES]; ROWS];
                // The high plane comes first.
                for plane in 0..planes {
                    let part = multiply(w, m, packed.panels.segment(plane, p, s));
                    for (sum, part) in sums.as_flattened_mut().iter_mut().zip(part.as_flattened()) {
                        // Sums of planes fit int32 (T3).
                        *sum = sum.wrapping_shl(8).wrapping_add(i64::from(*part));
                    }
                }
                for j in 0..ROWS.min(count - r) {
                    site.add_part(packed, p, s, first + r + j, &sums[j], &mut tile[j][0]);
                }
            }
            site.put_tile(&mut tile, p, first, r, pieces);
        }
    }
}

/// Sums of `R` rows of bytes times the 16 tokens of a panel; `GROUPED` where `m` holds each row's multipliers.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn bytes<const R: usize, const GROUPED: bool>(
    w: [&[u32]; R],
    m: [&[u8]; R],
    x: &[Line],
) -> [[i32; LANES]; R] {
    let (x, rest) = x.as_chunks::<GROUP_WORDS>();
    // Segments are padded with zeros to an even number of such groups.
    let groups = if GROUPED { m[0].len() } else { x.len() };
    assert!(rest.is_empty() && groups <= x.len(), "whole groups");
    let w = w.map(|w| &w.as_chunks::<GROUP_WORDS>().0[..groups]);
    let m = m.map(|m| if GROUPED { &m[..groups] } else { m });
    let zero = vdupq_n_s32(0);
    // By quarter of the tokens.
    let mut total = [[zero; R]; VECTORS];
    for (g, x) in x[..groups].iter().enumerate() {
        let mut weights = [[vdupq_n_s8(0); 2]; R];
        let mut by = [0; R];
        for r in 0..R {
            // SAFETY: eight words are any 32 bytes.
            weights[r] = unsafe { transmute::<[u32; GROUP_WORDS], [int8x16_t; 2]>(w[r][g]) };
            by[r] = if GROUPED { i32::from(m[r][g]) } else { 1 };
        }
        let add = |total: [int32x4_t; R], v: usize| {
            if GROUPED {
                let mut total = total;
                let sums = group([zero; R], x, v, weights);
                for r in 0..R {
                    total[r] = vmlaq_n_s32(total[r], sums[r], by[r]);
                }
                total
            } else {
                group(total, x, v, weights)
            }
        };
        // Four in so many words: a loop keeps the sums in memory.
        total = [
            add(total[0], 0),
            add(total[1], 1),
            add(total[2], 2),
            add(total[3], 3),
        ];
    }
    std::array::from_fn(|r| {
        // SAFETY: sixteen int32 are any 64 bytes.
        unsafe { transmute::<[int32x4_t; VECTORS], [i32; LANES]>(total.map(|rows| rows[r])) }
    })
}

/// Adds the products of a group of words, quarter `v` of the tokens, to the sums of `R` rows.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn group<const R: usize>(
    sums: [int32x4_t; R],
    x: &[Line; GROUP_WORDS],
    v: usize,
    w: [[int8x16_t; 2]; R],
) -> [int32x4_t; R] {
    // SAFETY: a line is 64 bytes of any bits.
    let [a, b, c, d, e, f, g, h] = x.map(|line| unsafe { transmute::<Line, [int8x16_t; VECTORS]>(line) }[v]);
    let sums = four(sums, [a, b, c, d], w.map(|w| w[0]));
    four(sums, [e, f, g, h], w.map(|w| w[1]))
}

/// Adds the products of four words.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn four<const R: usize>(mut sums: [int32x4_t; R], x: [int8x16_t; 4], w: [int8x16_t; R]) -> [int32x4_t; R] {
    for r in 0..R {
        sums[r] = sdot_word::<0>(sums[r], x[0], w[r]);
    }
    for r in 0..R {
        sums[r] = sdot_word::<1>(sums[r], x[1], w[r]);
    }
    for r in 0..R {
        sums[r] = sdot_word::<2>(sums[r], x[2], w[r]);
    }
    for r in 0..R {
        sums[r] = sdot_word::<3>(sums[r], x[3], w[r]);
    }
    sums
}

/// Multiply-adds of bytes on registers, sixteen sums side by side.
pub(super) fn multiply_adds(rounds: usize) -> u64 {
    const SUMS: usize = 16;
    const TURNS: usize = 64;
    #[target_feature(enable = "neon,dotprod")]
    fn run(rounds: usize) {
        let (a, b) = std::hint::black_box((vdupq_n_s8(3), vdupq_n_s32(1)));
        let mut sums = [b; SUMS];
        for _ in 0..rounds * TURNS {
            for sum in &mut sums {
                *sum = sdot(*sum, a, a);
            }
        }
        std::hint::black_box(sums);
    }
    // SAFETY: this is only called for FEAT_DotProd on machines that were found to have it.
    unsafe { run(rounds) };
    (rounds * TURNS * SUMS * STEP) as u64
}
