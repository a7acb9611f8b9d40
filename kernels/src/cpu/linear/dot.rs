//! A few tokens: 16 weight rows after another, each summed along K and read as it lies in the pack.

use super::{
    Site,
    output::{LaneScales, add_bias, add_segment, outputs},
    panel::LANES,
    portable,
};
use crate::{
    cpu::Isa,
    reference::linear::{GROUP, SEGMENTS_MAX},
};

/// Weight rows summed side by side for one token, and for two or more.
const ALONE: usize = 4;
const PAIR: usize = 2;

/// Weight rows and activation rows of a tile: `w` starts at the first row's segment and `m` at its
/// multipliers (none where empty); rows follow every `k` and `k / 32`. `x` holds the tokens' segments.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a, const T: usize> {
    pub(super) w: &'a [i8],
    pub(super) k: usize,
    pub(super) m: &'a [u8],
    pub(super) x: [&'a [i16]; T],
}

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
            _ => self.walk_dots(
                first,
                pieces,
                portable::dots::<ALONE, 1>,
                portable::dots::<PAIR, 2>,
            ),
        }
    }

    /// The walk, compiled for the caller's instruction set; `one` sums tiles of one token, `two` of two.
    #[inline(always)]
    pub(super) fn walk_dots(
        &self,
        first: usize,
        pieces: &mut [&mut [i32]],
        one: impl Fn(Tile<'_, 1>) -> [[i64; 1]; ALONE],
        two: impl Fn(Tile<'_, 2>) -> [[i64; 2]; PAIR],
    ) {
        let count = pieces.first().map_or(0, |p| p.len());
        for at in (0..count).step_by(LANES) {
            let rows = LANES.min(count - at);
            let mut t = 0;
            while t < pieces.len() {
                let mut sums = [[[0i64; LANES]; 2]; SEGMENTS_MAX];
                let tokens = if t + 1 < pieces.len() { 2 } else { 1 };
                for (s, sums) in sums.iter_mut().enumerate().take(self.x.groups()) {
                    let mut i = 0;
                    while i < rows {
                        if tokens == 2 && i + PAIR <= rows {
                            for (j, sum) in two(self.tile(first + at + i, [t, t + 1], s))
                                .into_iter()
                                .enumerate()
                            {
                                [sums[0][i + j], sums[1][i + j]] = sum;
                            }
                            i += PAIR;
                        } else if tokens == 1 && i + ALONE <= rows {
                            for (j, [sum]) in one(self.tile(first + at + i, [t], s)).into_iter().enumerate() {
                                sums[0][i + j] = sum;
                            }
                            i += ALONE;
                        } else {
                            for (q, sums) in sums.iter_mut().enumerate().take(tokens) {
                                sums[i] = self.tile(first + at + i, [t + q], s).plain();
                            }
                            i += 1;
                        }
                    }
                }
                for (q, piece) in pieces[t..t + tokens].iter_mut().enumerate() {
                    self.put(first + at, t + q, &sums, q, &mut piece[at..at + rows]);
                }
                t += tokens;
            }
        }
    }

    /// One segment of the weight rows from `row` on and of the tokens `t`.
    #[inline(always)]
    fn tile<const T: usize>(&self, row: usize, t: [usize; T], s: usize) -> Tile<'_, T> {
        let host = &self.weight.host;
        let (len, k) = (self.x.group, host.k);
        Tile {
            w: &self.w[row * k + s * len..],
            k,
            m: self.m.get(row * (k / GROUP) + s * len / GROUP..).unwrap_or(&[]),
            x: t.map(|t| &self.x.q[t * self.x.cols + s * len..][..len]),
        }
    }

    /// Scales the sums of up to 16 weight rows for token `t` into `out`.
    #[inline(always)]
    fn put(&self, row: usize, t: usize, sums: &[[[i64; LANES]; 2]; SEGMENTS_MAX], q: usize, out: &mut [i32]) {
        let host = &self.weight.host;
        let segments = self.x.groups();
        let w = LaneScales::new(host.scales[row..row + out.len()].iter().copied());
        let mut total = [0; LANES];
        for (s, sums) in sums.iter().enumerate().take(segments) {
            let x = LaneScales::all(self.x.scales[t * segments + s]);
            let part = outputs(&sums[q], self.x.planes, &x, &w, self.f_out);
            add_segment(&mut total, &part, segments);
        }
        if let Some(bias) = &host.bias {
            let mut lanes = [0; LANES];
            lanes[..out.len()].copy_from_slice(&bias[row..row + out.len()]);
            add_bias(&mut total, &lanes);
        }
        out.copy_from_slice(&total[..out.len()]);
    }
}

impl Tile<'_, 1> {
    /// The first row's sum, in plain Rust.
    fn plain(&self) -> i64 {
        let [[sum]] = portable::dots::<1, 1>(*self);
        sum
    }
}
