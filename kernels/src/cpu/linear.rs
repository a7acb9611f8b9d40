//! Linear sites: blocks of weight rows go to threads; each weight row is read once for a block of tokens.
//!
//! A task holds a block of weight rows small enough for the second-level cache and walks the tokens four at
//! a time, so that weights come from memory once however long the prompt is.

use crate::{
    num::{Scale, sat32},
    ops::{HostWeight, QuantRows},
    reference::linear::{GROUP, SEGMENTS_MAX, finish, requant},
};

use super::{
    simd::Simd,
    split::{SERIAL_WORK, by_columns},
};

/// Bytes of weights that a task keeps in the second-level cache while it walks the tokens.
const CACHED_BYTES: usize = 128 << 10;
/// Weight rows and tokens of the large tile: eight sums in registers.
const TILE: (usize, usize) = (2, 4);
/// Weight rows a tile when one token is left.
const ROWS_ALONE: usize = 4;

/// One linear site over one block of rows.
struct Site<'a> {
    simd: Simd,
    weight: &'a HostWeight,
    /// The weight's integers, `[n, k]`.
    q: &'a [i8],
    /// Its multipliers, `[n, k / 32]`, where it is grouped.
    mult: Option<&'a [u8]>,
    x: &'a QuantRows,
    f_out: u8,
}

/// Every row of `x` against every row of the weight (rules L1 to L5); `out` is `[x.rows, n]`.
pub(super) fn linear(simd: Simd, weight: &HostWeight, x: &QuantRows, f_out: u8, out: &mut [i32]) {
    let site = Site {
        simd,
        weight,
        q: bytemuck::cast_slice(weight.q.data()),
        mult: weight.mult.as_ref().map(|m| m.data()),
        x,
        f_out,
    };
    let block = columns_a_block(weight, x.rows, rayon::current_num_threads());
    by_columns(out, weight.n, block, |first, pieces| site.block(first, pieces));
}

/// Weight rows a task.
fn columns_a_block(weight: &HostWeight, tokens: usize, threads: usize) -> usize {
    let row_work = weight.k * tokens;
    if weight.n * row_work <= SERIAL_WORK || threads <= 1 {
        let cached = if tokens < TILE.1 {
            weight.n
        } else {
            CACHED_BYTES / weight.k.max(1)
        };
        return round_up(cached).min(weight.n.max(1));
    }
    let fair = weight.n.div_ceil(threads * 4);
    let least = SERIAL_WORK.div_ceil(row_work.max(1));
    let most = CACHED_BYTES / weight.k.max(1);
    round_up(fair.max(least).min(most.max(least)))
}

/// Whole tiles.
const fn round_up(rows: usize) -> usize {
    let rows = rows.next_multiple_of(ROWS_ALONE);
    if rows == 0 { ROWS_ALONE } else { rows }
}

impl Site<'_> {
    /// Weight rows `first ..`; `pieces[t]` takes token t's outputs.
    fn block(&self, first: usize, pieces: &mut [&mut [i32]]) {
        let count = pieces.first().map_or(0, |p| p.len());
        let tokens = pieces.len();
        let quads = tokens - tokens % TILE.1;
        for t in (0..quads).step_by(TILE.1) {
            let pairs = count - count % TILE.0;
            for i in (0..pairs).step_by(TILE.0) {
                if t == 0 {
                    self.prefetch(first + i, TILE.0);
                }
                self.tile::<{ TILE.0 }, { TILE.1 }>(first, i, t, pieces);
            }
            for i in pairs..count {
                self.tile::<1, { TILE.1 }>(first, i, t, pieces);
            }
        }
        for t in quads..tokens {
            let quads = count - count % ROWS_ALONE;
            for i in (0..quads).step_by(ROWS_ALONE) {
                if t == 0 {
                    self.prefetch(first + i, ROWS_ALONE);
                }
                self.tile::<ROWS_ALONE, 1>(first, i, t, pieces);
            }
            for i in quads..count {
                self.tile::<1, 1>(first, i, t, pieces);
            }
        }
    }

    /// Asks for the `count` weight rows that come two tiles after `row`: far enough ahead to be there in time.
    #[inline]
    fn prefetch(&self, row: usize, count: usize) {
        let k = self.weight.k;
        let (from, to) = ((row + 2 * count) * k, (row + 3 * count) * k);
        if let Some(rows) = self.q.get(from..to) {
            self.simd.prefetch(rows);
        }
    }

    /// Outputs `i .. i + N` of the block that starts at weight row `first`, for tokens `t .. t + T`.
    #[inline]
    fn tile<const N: usize, const T: usize>(
        &self,
        first: usize,
        i: usize,
        t: usize,
        pieces: &mut [&mut [i32]],
    ) {
        let (weight, x) = (self.weight, self.x);
        let segments = x.groups();
        let len = x.group;
        let mut parts = [[[0i32; T]; N]; SEGMENTS_MAX];
        for (s, parts) in parts.iter_mut().enumerate().take(segments) {
            let range = s * len..(s + 1) * len;
            let w: [&[i8]; N] = std::array::from_fn(|n| &self.q[(first + i + n) * weight.k..][range.clone()]);
            let xs: [&[i16]; T] = std::array::from_fn(|j| &x.q[(t + j) * x.cols..][range.clone()]);
            let sums = if let Some(mult) = self.mult {
                let groups = range.start / GROUP..range.end / GROUP;
                let m =
                    std::array::from_fn(|n| &mult[(first + i + n) * (weight.k / GROUP)..][groups.clone()]);
                self.simd.tile_grouped(w, m, xs)
            } else {
                self.simd.tile(w, xs)
            };
            for n in 0..N {
                let w_scale = weight.scales[first + i + n];
                for j in 0..T {
                    parts[n][j] = self.output(sums[n][j], x.scales[(t + j) * segments + s], w_scale);
                }
            }
        }
        for n in 0..N {
            let bias = weight.bias.as_ref().map_or(0, |b| b[first + i + n]);
            for j in 0..T {
                pieces[t + j][i + n] = if segments == 1 && bias == 0 {
                    // L4 does nothing to a single segment, which lies within its limit.
                    parts[0][n][j]
                } else {
                    let parts: [i32; SEGMENTS_MAX] = std::array::from_fn(|s| parts[s][n][j]);
                    finish(&parts[..segments], bias)
                };
            }
        }
    }

    /// L2, L3: a sum in the output's format. The usual scales need neither a saturating product nor a left
    /// shift; all others go to the reference.
    #[inline(always)]
    fn output(&self, acc: i64, x: Scale, w: Scale) -> i32 {
        let planes = self.x.planes;
        let shift =
            -(i32::from(x.e) + i32::from(w.e) + i32::from(self.f_out)) - if planes == 1 { 0 } else { 16 };
        if planes == 1 || !(1..=62).contains(&shift) || acc.unsigned_abs() >= 1 << 46 {
            return requant(acc, planes, x, w, self.f_out);
        }
        // |acc * mx| < 2^62; a sixteenth bit less after the shift and 16 more after mw: below 2^62 + 2^16.
        let y = acc.wrapping_mul(i64::from(x.m)).wrapping_add(1 << 15) >> 16;
        let y = y.wrapping_mul(i64::from(w.m));
        sat32(
            y.wrapping_add(1i64.wrapping_shl(shift as u32 - 1))
                .wrapping_shr(shift as u32),
        )
    }
}
