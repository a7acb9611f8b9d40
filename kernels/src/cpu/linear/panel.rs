//! Activations and weights as the blocked loops read them: 16 tokens side by side, weights in rows as they
//! lie in the pack.
//!
//! Each lane of a vector is one token, so a sum over K stays in its lane, nothing is added across lanes, and
//! the scaling after it runs on whole vectors. Packing turns the activations, which are few, and leaves the
//! weights: a block of their rows is widened (or only padded) into a small buffer that the second-level cache
//! holds, once for all tokens. No packed copy of a weight is kept.

use std::ops::Range;

use rayon::prelude::*;

use crate::{
    ops::{HostWeight, QuantRows},
    reference::{linear::GROUP, quant::planes_of},
};

/// Tokens side by side.
pub(super) const LANES: usize = 16;
/// Lines that are packed together: half of the nearest cache.
const NEAR: usize = 256;
/// Bytes of K that a byte form's segment is padded to: a tile row of AMX.
const BYTES: usize = 64;

/// The next four bytes of 16 tokens: two int16 or four int8 each. A cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u32; LANES]);

/// What the four bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Two values of K, int16 each, any site.
    Pairs,
    /// Four values of K as `value + 128`, uint8 each: one-plane sites.
    Offset,
    /// Four values of K, int8 each: one-plane sites.
    Bytes,
    /// The same of the high, then of the low plane of two-plane sites.
    Planes,
}

impl Form {
    /// Words of a segment of `len` values.
    pub(super) const fn words(self, len: usize) -> usize {
        match self {
            Self::Pairs => len.div_ceil(2),
            _ => len.next_multiple_of(BYTES) / 4,
        }
    }

    const fn planes(self) -> usize {
        if matches!(self, Self::Planes) { 2 } else { 1 }
    }
}

/// Quantised rows, 16 tokens side by side: `[plane][panel][segment][word]`. Lanes past the last token are of
/// no meaning.
#[derive(Debug, Default)]
pub(super) struct Panels {
    lines: Vec<Line>,
    words: usize,
    segments: usize,
    /// Panels of a plane.
    pub(super) count: usize,
}

impl Panels {
    /// Packs `x`, keeping the allocation.
    pub(super) fn pack(&mut self, form: Form, x: &QuantRows) {
        self.words = form.words(x.group);
        self.segments = x.groups();
        self.count = x.rows.div_ceil(LANES);
        let panel = self.segments * self.words;
        let need = form.planes() * self.count * panel;
        self.lines.truncate(need);
        self.lines.resize(need, Line([0; LANES]));
        let count = self.count;
        self.lines
            .par_chunks_mut(panel.max(1))
            .enumerate()
            .for_each(|(i, lines)| {
                let first = i % count * LANES;
                match form {
                    Form::Pairs => pack_panel(x, first, lines, |[a, b]: [i16; 2]| {
                        u32::from(a.cast_unsigned()) | u32::from(b.cast_unsigned()) << 16
                    }),
                    // One-plane values are int8.
                    Form::Bytes => pack_panel(x, first, lines, |v| four(v, |v| v as i8)),
                    Form::Offset => pack_panel(x, first, lines, |v| four(v, |v| v as i8) ^ 0x8080_8080),
                    Form::Planes if i < count => pack_panel(x, first, lines, |v| four(v, |v| planes_of(v).0)),
                    Form::Planes => pack_panel(x, first, lines, |v| four(v, |v| planes_of(v).1)),
                }
            });
    }

    /// The words of a panel's segment.
    #[inline]
    pub(super) fn segment(&self, plane: usize, panel: usize, s: usize) -> &[Line] {
        let at = ((plane * self.count + panel) * self.segments + s) * self.words;
        &self.lines[at..at + self.words]
    }
}

/// Four int8 in a word.
#[inline]
fn four(values: [i16; 4], int8: impl Fn(i16) -> i8) -> u32 {
    u32::from_le_bytes(values.map(|v| int8(v).cast_unsigned()))
}

/// One panel: the tokens from `first` on, `A` values a word; those past a segment's end are zero.
fn pack_panel<const A: usize>(
    x: &QuantRows,
    first: usize,
    lines: &mut [Line],
    word: impl Fn([i16; A]) -> u32,
) {
    let words = lines.len() / x.groups();
    let rows = &x.q[first * x.cols..x.rows.min(first + LANES) * x.cols];
    for (s, lines) in lines.chunks_exact_mut(words).enumerate() {
        // A few lines at a time, so that they stay near while 16 tokens are written into each.
        for (i, lines) in lines.chunks_mut(NEAR).enumerate() {
            for (lane, row) in rows.chunks_exact(x.cols).enumerate() {
                let values = &row[s * x.group..][..x.group];
                let (whole, rest) = values.as_chunks::<A>();
                let from = whole.len().min(i * NEAR);
                let (filled, tail) = lines.split_at_mut(lines.len().min(whole.len() - from));
                for (line, values) in filled.iter_mut().zip(&whole[from..]) {
                    line.0[lane] = word(*values);
                }
                // The first line past the whole words holds the rest, the others are zero.
                for (k, line) in tail.iter_mut().enumerate() {
                    let mut last = [0; A];
                    if i * NEAR + filled.len() + k == whole.len() {
                        last[..rest.len()].copy_from_slice(rest);
                    }
                    line.0[lane] = word(last);
                }
            }
        }
    }
}

/// A block of weight rows in words of the form that the panels have: `[row][segment][word]`.
#[derive(Debug, Default)]
pub(super) struct Rows {
    words: Vec<u32>,
    /// Words of a segment, of a row.
    segment: usize,
    row: usize,
}

/// What of a weight goes into the words.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // the last two are for AMX
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// w * multiplier as int16.
    Wide,
    /// w as int8; weights without multipliers.
    Plain,
    /// The high int8 of w * multiplier = 256 high + low.
    High,
    /// The low int8 of it.
    Low,
}

impl Rows {
    /// Takes in rows `rows` of a weight, each cut into segments of `len`, and zero rows up to `padded` of them.
    /// Compiled for the caller's instruction set.
    #[inline(always)]
    pub(super) fn take(
        &mut self,
        part: Part,
        weight: &HostWeight,
        rows: Range<usize>,
        padded: usize,
        len: usize,
    ) {
        let form = if part == Part::Wide {
            Form::Pairs
        } else {
            Form::Bytes
        };
        self.segment = form.words(len);
        self.row = self.segment * weight.k.checked_div(len).unwrap_or(0);
        // What was there is written over, but for the rows of padding.
        let count = rows.len();
        self.words.resize(padded * self.row, 0);
        self.words[count * self.row..].fill(0);
        for (i, out) in rows.zip(self.words.chunks_exact_mut(self.row.max(1))) {
            let (row, mults) = (weight.row(i), weight.mults(i));
            let pieces = row.chunks_exact(len).zip(out.chunks_exact_mut(self.segment));
            for (s, (w, out)) in pieces.enumerate() {
                // Segments of grouped weights are whole groups.
                let m = mults.get(s * len / GROUP..(s + 1) * len / GROUP).unwrap_or(&[]);
                if part == Part::Wide {
                    let out = bytemuck::cast_slice_mut(out);
                    out[len..].fill(0);
                    wide(w, m, &mut out[..len]);
                    continue;
                }
                let out = bytemuck::cast_slice_mut(out);
                out[len..].fill(0);
                let out = &mut out[..len];
                match part {
                    Part::High => plane(w, m, out, |v| planes_of(v).0),
                    Part::Low => plane(w, m, out, |v| planes_of(v).1),
                    Part::Plain | Part::Wide => out.copy_from_slice(w),
                }
            }
        }
    }

    /// Segment `s` of row `i`.
    #[inline]
    pub(super) fn segment(&self, i: usize, s: usize) -> &[u32] {
        &self.words[i * self.row + s * self.segment..][..self.segment]
    }

    /// Segment `s` of the rows from `i` on, and how many words each comes after the last.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(super) fn stack(&self, i: usize, s: usize) -> (&[u32], usize) {
        (&self.words[i * self.row + s * self.segment..], self.row)
    }
}

/// w * multiplier; no more than 128 * 15.
#[inline(always)]
fn wide(w: &[i8], groups: &[u8], out: &mut [i16]) {
    if groups.is_empty() {
        for (o, w) in out.iter_mut().zip(w) {
            *o = i16::from(*w);
        }
    }
    for ((out, w), m) in out.chunks_mut(GROUP).zip(w.chunks(GROUP)).zip(groups) {
        for (o, w) in out.iter_mut().zip(w) {
            *o = i16::from(*w).wrapping_mul(i16::from(*m));
        }
    }
}

/// One plane of w * multiplier.
#[inline(always)]
fn plane(w: &[i8], groups: &[u8], out: &mut [i8], of: impl Fn(i16) -> i8) {
    for ((out, w), m) in out.chunks_mut(GROUP).zip(w.chunks(GROUP)).zip(groups) {
        for (o, w) in out.iter_mut().zip(w) {
            *o = of(i16::from(*w).wrapping_mul(i16::from(*m)));
        }
    }
}
