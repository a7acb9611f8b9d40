//! Many tokens: vectors across tokens, blocks of weight rows prepared once for all of them.
// Loops over constant indices unroll into vectors; written with iterators, the same sums were added one by one.
#![allow(clippy::needless_range_loop)]

use std::cell::RefCell;

use super::{
    Site,
    norms::{panel_norms, sum_max},
    output::{LaneScales, add_bias, add_segment, outputs, small_outputs},
    panel::{Form, LANES, Line, Panels, Part, Rows},
};
use crate::cpu::{Isa, split::by_columns};

thread_local! {
    /// Room for a call's panels and for a task's rows, kept from call to call.
    static PANELS: RefCell<Panels> = RefCell::default();
    static ROWS: RefCell<[Rows; 2]> = RefCell::default();
}

/// A call's activations, their scales and how large their sums can become.
pub(super) struct Packed {
    pub(super) panels: Panels,
    /// `[panel][segment]`.
    scales: Vec<LaneScales>,
    /// The largest norm of a panel's rows, rounded up: `[panel][segment]`.
    norms: Vec<u32>,
}

impl Site<'_> {
    /// All outputs, `block` weight rows a task; `run(packed, rows, first, pieces)` does one task's: weight
    /// rows `first ..` against every panel, `pieces[t]` taking token t's outputs.
    pub(super) fn blocked(
        &self,
        block: usize,
        out: &mut [i32],
        run: impl Fn(&Packed, &mut [Rows; 2], usize, &mut [&mut [i32]]) + Send + Sync,
    ) {
        let mut panels = PANELS.take();
        panels.pack(self.form(), self.x);
        let segments = self.x.groups();
        let scales = (0..panels.count)
            .flat_map(|p| (0..segments).map(move |s| (p, s)))
            .map(|(p, s)| {
                let rows = p * LANES..self.x.rows.min((p + 1) * LANES);
                LaneScales::new(rows.map(|t| self.x.scales[t * segments + s]))
            })
            .collect();
        let norms = panel_norms(self.isa, self.x);
        let packed = Packed {
            panels,
            scales,
            norms,
        };
        by_columns(out, self.weight.host.n, block, |first, pieces| {
            let mut rows = ROWS.take();
            run(&packed, &mut rows, first, pieces);
            ROWS.set(rows);
        });
        PANELS.set(packed.panels);
    }

    /// One task in the site's instruction set.
    pub(super) fn block(
        &self,
        packed: &Packed,
        rows: &mut [Rows; 2],
        first: usize,
        pieces: &mut [&mut [i32]],
    ) {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => super::avx2::block(self, packed, &mut rows[0], first, pieces),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => {
                let bytes = self.form() == Form::Offset;
                super::vnni::block(self, packed, &mut rows[0], first, pieces, bytes);
            }
            #[cfg(target_arch = "x86_64")]
            Isa::AmxInt8 => super::amx::block(self, packed, rows, first, pieces),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => super::neon::block(self, packed, &mut rows[0], first, pieces),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => super::neon_dot::block(self, packed, &mut rows[0], first, pieces),
            // Plain loops sum along K, however many the tokens.
            _ => self.dots(first, pieces),
        }
    }

    /// How the instruction set wants this site's activations.
    fn form(&self) -> Form {
        match self.isa {
            Isa::AmxInt8 | Isa::NeonDot if self.x.planes == 1 => Form::Bytes,
            Isa::AmxInt8 | Isa::NeonDot => Form::Planes,
            Isa::Avx512Vnni if self.x.planes == 1 && self.m.is_empty() => Form::Offset,
            _ => Form::Pairs,
        }
    }

    /// Words of a segment whose sums fit int32, the next from word `at` of segment `s` on, where aligned parts
    /// of `block` values do.
    fn next_block(&self, block: usize, s: usize, at: usize, words: usize) -> usize {
        if self.x.planes == 1 {
            return words;
        }
        // Blocks are aligned in the row; the segment begins anywhere, also short of a block's end, and a word
        // holds two values.
        let from = s * self.x.group;
        let end = (from + 2 * at + 2) / block * block + block;
        ((end - from) / 2).clamp(at + 1, words)
    }

    /// Weight rows `first ..` against every panel; `pieces[t]` takes token t's outputs. `kernel` sums the
    /// words of `R` rows, which hold `part` of the weights, and `P` panels. Compiled for the caller's
    /// instruction set.
    #[inline(always)]
    pub(super) fn walk<const R: usize, const P: usize>(
        &self,
        part: Part,
        packed: &Packed,
        rows: &mut Rows,
        first: usize,
        pieces: &mut [&mut [i32]],
        kernel: impl Fn([&[u32]; R], [&[Line]; P]) -> [[[i32; LANES]; P]; R],
    ) {
        let count = pieces.first().map_or(0, |p| p.len());
        let segments = self.x.groups();
        let host = &self.weight.host;
        let padded = count.next_multiple_of(R);
        rows.take(part, host, first..first + count, padded, self.x.group);
        for p in (0..packed.panels.count).step_by(P) {
            // The last panel stands in for those that are missing.
            let ps: [usize; P] = std::array::from_fn(|q| (p + q).min(packed.panels.count - 1));
            for r in (0..count).step_by(R) {
                let mut tile = [[[0i32; LANES]; P]; R];
                let block = self.weight.block(first + r, R);
                let norm = self.weight.norm(first + r, R);
                for s in 0..segments {
                    let w: [&[u32]; R] = std::array::from_fn(|j| rows.segment(r + j, s));
                    let x: [&[Line]; P] = ps.map(|p| packed.panels.segment(0, p, s));
                    let words = w[0].len();
                    let most = ps.map(|p| sum_max(norm, packed.norms[p * segments + s]));
                    // Sums that fit in the end may wrap on the way.
                    let fits = most.iter().all(|most| *most < 1 << 31);
                    let mut at = if fits {
                        words
                    } else {
                        self.next_block(block, s, 0, words)
                    };
                    let part = kernel(w.map(|w| &w[..at]), x.map(|x| &x[..at]));
                    if at == words {
                        for j in 0..R.min(count - r) {
                            for q in 0..P {
                                let sums = (&part[j][q], most[q]);
                                self.add_small(packed, ps[q], s, first + r + j, sums, &mut tile[j][q]);
                            }
                        }
                        continue;
                    }
                    let mut sums = [[[0i64; LANES]; P]; R];
                    widen(&part, &mut sums);
                    while at < words {
                        let end = self.next_block(block, s, at, words);
                        widen(&kernel(w.map(|w| &w[at..end]), x.map(|x| &x[at..end])), &mut sums);
                        at = end;
                    }
                    for j in 0..R.min(count - r) {
                        for q in 0..P {
                            self.add_part(packed, ps[q], s, first + r + j, &sums[j][q], &mut tile[j][q]);
                        }
                    }
                }
                self.put_tile(&mut tile, p, first, r, pieces);
            }
        }
    }

    /// Adds one segment's outputs of weight row `row` and panel `p` to `total`.
    #[inline(always)]
    pub(super) fn add_part(
        &self,
        packed: &Packed,
        p: usize,
        s: usize,
        row: usize,
        sums: &[i64; LANES],
        total: &mut [i32; LANES],
    ) {
        let segments = self.x.groups();
        let x = &packed.scales[p * segments + s];
        let w = self.weight.host.scales[row];
        let part = outputs(sums, self.x.planes, x, &w, self.f_out);
        add_segment(total, &part, segments);
    }

    /// The same of sums that fit int32, and what they cannot exceed.
    #[inline(always)]
    fn add_small(
        &self,
        packed: &Packed,
        p: usize,
        s: usize,
        row: usize,
        (sums, most): (&[i32; LANES], u64),
        total: &mut [i32; LANES],
    ) {
        let segments = self.x.groups();
        let x = &packed.scales[p * segments + s];
        let w = self.weight.host.scales[row];
        if segments == 1 {
            // Straight to its place: a copy of each tile shows.
            *total = small_outputs(sums, most, self.x.planes, x, &w, self.f_out);
            return;
        }
        let part = small_outputs(sums, most, self.x.planes, x, &w, self.f_out);
        add_segment(total, &part, segments);
    }

    /// Adds the bias and writes out weight rows `first + r ..` for the tokens from panel `p` on.
    #[inline(always)]
    pub(super) fn put_tile<const R: usize, const P: usize>(
        &self,
        tile: &mut [[[i32; LANES]; P]; R],
        p: usize,
        first: usize,
        r: usize,
        pieces: &mut [&mut [i32]],
    ) {
        if let Some(bias) = &self.weight.host.bias {
            for (tile, bias) in tile.iter_mut().zip(&bias[first + r..]) {
                for lanes in tile {
                    add_bias(lanes, &[*bias; LANES]);
                }
            }
        }
        for (i, piece) in pieces.iter_mut().skip(p * LANES).take(P * LANES).enumerate() {
            let out = &mut piece[r..];
            if let Some(out) = out.first_chunk_mut::<R>() {
                for j in 0..R {
                    out[j] = tile[j][i / LANES][i % LANES];
                }
                continue;
            }
            for (out, lanes) in out.iter_mut().zip(tile.iter()) {
                *out = lanes[i / LANES][i % LANES];
            }
        }
    }
}

/// Adds a block's sums to a segment's.
#[inline(always)]
fn widen<const R: usize, const P: usize>(part: &[[[i32; LANES]; P]; R], sums: &mut [[[i64; LANES]; P]; R]) {
    for j in 0..R {
        for q in 0..P {
            for lane in 0..LANES {
                sums[j][q][lane] = sums[j][q][lane].wrapping_add(i64::from(part[j][q][lane]));
            }
        }
    }
}
