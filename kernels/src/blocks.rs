//! Row blocks while a batch runs: what a site puts out, the buffers they come from and go back to, and how
//! a probe sees them.

pub(crate) use crate::part::Block;
use crate::{Sampler, ops::QuantRows, plan::pairs, trace::SiteRows};

/// Row buffers that wait for their next use.
#[derive(Default)]
pub(crate) struct Pool {
    acts: Vec<Vec<i32>>,
    quants: Vec<QuantRows>,
}

impl Pool {
    pub(crate) fn acts(&mut self, len: usize) -> Vec<i32> {
        // The smallest that fits, else the largest: or every buffer would grow to a block of logits.
        let best = (0..self.acts.len()).min_by_key(|i| {
            let room = self.acts[*i].capacity();
            if room >= len {
                (0, room)
            } else {
                (1, usize::MAX - room)
            }
        });
        let mut v = best.map(|i| self.acts.swap_remove(i)).unwrap_or_default();
        v.resize(len, 0);
        v
    }

    pub(crate) fn quant(&mut self, rows: usize, cols: usize, group: usize, planes: u8) -> QuantRows {
        let mut q = self.quants.pop().unwrap_or_default();
        q.reset(rows, cols, group, planes);
        q
    }

    pub(crate) fn give(&mut self, block: Block) {
        match block {
            Block::Acts(v) => self.acts.push(v),
            Block::Quant(q) => self.quants.push(q),
        }
    }
}
/// The chunk's rows of a block.
pub(crate) fn gather(pool: &mut Pool, block: &Block, chunk: &[(usize, Sampler)], rows: usize) -> Block {
    match block {
        Block::Acts(v) => {
            let cols = v.len() / rows;
            let mut out = pool.acts(chunk.len() * cols);
            for (o, (r, _)) in out.chunks_exact_mut(cols).zip(chunk) {
                o.copy_from_slice(&v[r * cols..(r + 1) * cols]);
            }
            Block::Acts(out)
        }
        Block::Quant(q) => {
            let (cols, groups) = (q.cols, q.groups());
            let mut out = pool.quant(chunk.len(), cols, q.group, q.planes);
            for (i, (r, _)) in chunk.iter().enumerate() {
                out.q[i * cols..(i + 1) * cols].copy_from_slice(&q.q[r * cols..(r + 1) * cols]);
                out.scales[i * groups..(i + 1) * groups]
                    .copy_from_slice(&q.scales[r * groups..(r + 1) * groups]);
            }
            Block::Quant(out)
        }
    }
}

pub(crate) fn acts_rows(v: &[i32], rows: usize) -> SiteRows {
    SiteRows::Acts {
        cols: v.len() / rows,
        data: v.to_vec(),
    }
}

pub(crate) fn quant_rows(q: &QuantRows) -> SiteRows {
    SiteRows::Quant {
        cols: q.cols,
        groups: q.groups(),
        data: q.q.clone(),
        scales: pairs(&q.scales),
    }
}

/// A cached row as a probe sees it: head by head, K then V, as in the canonical row.
pub(crate) fn kv_rows(k: &QuantRows, v: &QuantRows) -> SiteRows {
    let (heads, d) = (k.groups(), k.group);
    let mut data = Vec::with_capacity(2 * k.q.len());
    let mut scales = Vec::with_capacity(2 * k.scales.len());
    for i in 0..k.rows * heads {
        for x in [k, v] {
            data.extend_from_slice(&x.q[i * d..(i + 1) * d]);
            scales.push((x.scales[i].m, x.scales[i].e));
        }
    }
    SiteRows::Quant {
        cols: 2 * k.cols,
        groups: 2 * heads,
        data,
        scales,
    }
}
