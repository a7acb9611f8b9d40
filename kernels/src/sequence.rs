//! One sequence on the host: its cached KV rows, the `out` rows that wait to be hashed, and the body roots
//! that are done.

use rayon::prelude::*;

use crate::{
    KernelError,
    num::Scale,
    ops::QuantRows,
    rows::{self, Hash},
};

/// Positions that a cache grows by: few copies, little waste.
const PAGE: usize = 256;

/// A sequence's state.
pub(crate) struct Sequence {
    /// Positions held.
    pub(crate) len: u32,
    /// Positions that fit.
    pub(crate) max: u32,
    /// Canonical KV rows by layer, empty where the layer caches nothing.
    pub(crate) kv: Vec<Vec<u8>>,
    /// Canonical `out` rows by checkpoint, positions `hashed ..`.
    outs: Vec<Vec<u8>>,
    /// Positions hashed.
    hashed: u32,
    /// Positions taken.
    taken: u32,
    bodies: Vec<Hash>,
}

impl Sequence {
    pub(crate) fn new(layers: usize, checkpoints: usize, max: u32) -> Self {
        Self {
            len: 0,
            max,
            kv: vec![vec![]; layers],
            outs: vec![vec![]; checkpoints],
            hashed: 0,
            taken: 0,
            bodies: vec![],
        }
    }

    /// Makes room for `rows` more KV rows of `row_len` bytes in a layer.
    pub(crate) fn reserve(&mut self, layer: usize, rows: usize, row_len: usize) -> Result<(), KernelError> {
        let kv = &mut self.kv[layer];
        let need = kv.len() + rows * row_len;
        if need <= kv.capacity() {
            return Ok(());
        }
        let pages = need
            .div_ceil(PAGE * row_len)
            .min((self.max as usize).div_ceil(PAGE));
        let want = (pages * PAGE * row_len).max(need);
        kv.try_reserve_exact(want - kv.len())
            .map_err(|_| KernelError::OutOfMemory {
                device: "host".into(),
                need: want as u64,
                free: 0,
            })
    }

    /// Appends canonical KV rows: rows `at .. at + count` of quantised K and V.
    pub(crate) fn push_kv(&mut self, layer: usize, k: &QuantRows, v: &QuantRows, at: usize, count: usize) {
        let (heads, d) = (k.groups(), k.group);
        let row_len = rows::kv_row_len(heads, d);
        let kv = &mut self.kv[layer];
        for r in at..at + count {
            let start = kv.len();
            kv.resize(start + row_len, 0);
            write_kv_row(&mut kv[start..], k, v, r);
        }
        debug_assert_eq!(heads * d, k.cols);
    }

    /// Appends `out` rows of a checkpoint.
    pub(crate) fn push_out(&mut self, checkpoint: usize, rows: &[i32]) {
        self.outs[checkpoint].extend(rows.iter().flat_map(|v| v.to_le_bytes()));
    }

    /// Canonical `out` rows of a checkpoint that wait to be hashed.
    pub(crate) fn waiting(&self, checkpoint: usize) -> &[u8] {
        &self.outs[checkpoint]
    }

    /// Hashes every row that waits: a root a position, or, where a sequence runs whole (`by_layer`), a root a layer.
    pub(crate) fn hash(
        &mut self,
        kv_row_len: usize,
        out_row_len: usize,
        checkpoints: &[u32],
        by_layer: bool,
    ) {
        let (first, outs, kv) = (self.hashed, &self.outs, &self.kv);
        let leaf = |pos: u32, layer: usize| {
            let at = pos as usize * kv_row_len;
            let row = kv[layer].get(at..at + kv_row_len).unwrap_or(&[]);
            let checkpoint = checkpoints.iter().position(|l| *l as usize == layer);
            let out = checkpoint.map(|c| {
                let at = (pos - first) as usize * out_row_len;
                *blake3::hash(&outs[c][at..at + out_row_len]).as_bytes()
            });
            // A program has at most 1,024 layers.
            rows::leaf_hash(pos, layer as u32, blake3::hash(row).as_bytes(), out.as_ref())
        };
        let layers = kv.len();
        let leaves: Vec<Vec<Hash>> = if by_layer && first < self.len {
            (0..layers)
                .into_par_iter()
                .map(|l| (first..self.len).map(|pos| leaf(pos, l)).collect())
                .collect()
        } else {
            (first..self.len)
                .into_par_iter()
                .map(|pos| (0..layers).map(|l| leaf(pos, l)).collect())
                .collect()
        };
        self.bodies.extend(leaves.iter().map(|l| rows::merkle_root(l)));
        self.hashed = self.len;
        for out in &mut self.outs {
            out.clear();
        }
    }

    /// Takes the body roots that are done, and the position of the first.
    pub(crate) fn take(&mut self) -> (u32, Vec<Hash>) {
        let first = self.taken;
        self.taken = self.hashed;
        (first, std::mem::take(&mut self.bodies))
    }
}

/// One canonical KV row (see [`crate::rows`]) of row `r` of K and V into zeroed bytes.
pub fn write_kv_row(row: &mut [u8], k: &QuantRows, v: &QuantRows, r: usize) {
    let (heads, d) = (k.groups(), k.group);
    for h in 0..heads {
        let at = rows::kv_record_offset(h, d);
        let record = &mut row[at..at + rows::kv_record_len(d)];
        let (k_part, v_part) = record.split_at_mut(d + 4);
        for (part, x) in [(k_part, k), (v_part, v)] {
            let ints = &x.q[r * x.cols + h * d..][..d];
            write_head(part, ints, x.scales[r * heads + h]);
        }
    }
}

fn write_head(part: &mut [u8], ints: &[i16], scale: Scale) {
    let (bytes, tail) = part.split_at_mut(ints.len());
    for (b, q) in bytes.iter_mut().zip(ints) {
        // One-plane values lie in +-127.
        *b = *q as i8 as u8;
    }
    tail.copy_from_slice(&scale.to_bytes());
}
