//! A few tokens: 16 weight rows after another, each summed along K and read as it lies in the pack.

use super::{
    Site,
    output::{LaneScales, add_bias, add_segment, outputs},
    panel::LANES,
    portable,
};
use crate::{cpu::Isa, reference::linear::GROUP};

/// One segment of up to 16 weight rows and of `T` tokens: `w` starts at the first row's and `m` at its
/// multipliers (none where empty); rows follow every `k` and `k / 32`. `x` holds the tokens'.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a, const T: usize> {
    pub(super) rows: usize,
    pub(super) w: &'a [i8],
    pub(super) k: usize,
    pub(super) m: &'a [u8],
    pub(super) x: [&'a [i16]; T],
}

/// Sums of a [`Tile`]: one a token and weight row.
pub(super) type Sums<const T: usize> = [[i64; LANES]; T];

impl Site<'_> {
    /// Weight rows `first ..`; `pieces[t]` takes token t's outputs.
    pub(super) fn dots(&self, first: usize, pieces: &mut [&mut [i32]]) {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => super::avx2::dots(self, first, pieces),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni | Isa::AmxInt8 => super::vnni::dots(self, first, pieces),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => super::neon::dots(self, first, pieces),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => super::neon_dot::dots(self, first, pieces),
            _ => self.walk_dots(first, pieces, portable::dots::<1>, portable::dots::<2>),
        }
    }

    /// The walk, compiled for the caller's instruction set; `one` sums tiles of one token, `two` of two.
    #[inline(always)]
    pub(super) fn walk_dots(
        &self,
        first: usize,
        pieces: &mut [&mut [i32]],
        one: impl Fn(Tile<'_, 1>, &mut Sums<1>),
        two: impl Fn(Tile<'_, 2>, &mut Sums<2>),
    ) {
        let count = pieces.first().map_or(0, |p| p.len());
        for at in (0..count).step_by(LANES) {
            let (row, rows) = (first + at, LANES.min(count - at));
            let scales = &self.weight.host.scales[row..row + rows];
            let weights = LaneScales::new(scales.iter().copied());
            let mut t = 0;
            while t < pieces.len() {
                let mut totals = [[0; LANES]; 2];
                let tokens = if t + 1 < pieces.len() { 2 } else { 1 };
                for s in 0..self.x.groups() {
                    let mut sums = [[0; LANES]; 2];
                    if tokens == 2 {
                        let x = [self.token(t, s), self.token(t + 1, s)];
                        two(self.tile(row, rows, s, x), &mut sums);
                    } else {
                        let mut alone = [[0; LANES]];
                        one(self.tile(row, rows, s, [self.token(t, s)]), &mut alone);
                        sums[0] = alone[0];
                    }
                    for (q, (sums, total)) in sums.iter().zip(&mut totals).enumerate().take(tokens) {
                        self.add(&weights, t + q, s, sums, total);
                    }
                }
                for (piece, total) in pieces[t..].iter_mut().zip(&mut totals).take(tokens) {
                    self.put(row, total, &mut piece[at..at + rows]);
                }
                t += tokens;
            }
        }
    }

    /// Segment `s` of token `t`.
    #[inline(always)]
    fn token(&self, t: usize, s: usize) -> &[i16] {
        &self.x.q[t * self.x.cols + s * self.x.group..][..self.x.group]
    }

    /// Segment `s` of `rows` weight rows from `row` on, and of the tokens `x`.
    #[inline(always)]
    fn tile<'a, const T: usize>(
        &'a self,
        row: usize,
        rows: usize,
        s: usize,
        x: [&'a [i16]; T],
    ) -> Tile<'a, T> {
        let (len, k) = (self.x.group, self.weight.host.k);
        Tile {
            rows,
            w: &self.w[row * k + s * len..],
            k,
            m: self.m.get(row * (k / GROUP) + s * len / GROUP..).unwrap_or(&[]),
            x,
        }
    }

    /// Scales one segment's sums of up to 16 weight rows for token `t` and adds them to `total`.
    #[inline(always)]
    fn add(&self, w: &LaneScales, t: usize, s: usize, sums: &[i64; LANES], total: &mut [i32; LANES]) {
        let segments = self.x.groups();
        let x = self.x.scales[t * segments + s];
        let part = outputs(sums, self.x.planes, &x, w, self.f_out);
        add_segment(total, &part, segments);
    }

    /// Adds the bias of the weight rows from `row` on and writes them out.
    #[inline(always)]
    fn put(&self, row: usize, total: &mut [i32; LANES], out: &mut [i32]) {
        if let Some(bias) = &self.weight.host.bias {
            let mut lanes = [0; LANES];
            lanes[..out.len()].copy_from_slice(&bias[row..row + out.len()]);
            add_bias(total, &lanes);
        }
        out.copy_from_slice(&total[..out.len()]);
    }
}

#[cfg(target_arch = "aarch64")]
impl<'a, const T: usize> Tile<'a, T> {
    /// Sums the rows `N` at a time with `some`, those left over one by one in plain Rust.
    #[inline(always)]
    pub(super) fn by<const N: usize>(self, sums: &mut Sums<T>, some: impl Fn(Tile<'a, T>) -> [[i64; T]; N]) {
        let whole = self.rows - self.rows % N;
        for first in (0..whole).step_by(N) {
            let part = some(Tile {
                rows: N,
                w: &self.w[first * self.k..],
                m: self.m.get(first * (self.k / GROUP)..).unwrap_or(&[]),
                ..self
            });
            for (n, part) in part.iter().enumerate() {
                for (sums, sum) in sums.iter_mut().zip(part) {
                    sums[first + n] = *sum;
                }
            }
        }
        for n in whole..self.rows {
            for (sums, x) in sums.iter_mut().zip(self.x) {
                sums[n] = self.rest(n, x, 0);
            }
        }
    }
}
