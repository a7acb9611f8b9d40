//! One unit of a program alone: the sites before the layers, one layer, or the sites after them. Whoever runs a program
//! unit by unit needs one unit's weights at a time, and may keep what it likes of the rows between them.
//!
//! Units are counted as the inner transcript counts them (`docs/spec/poc.md`, section 5): 0 lies before the layers, l + 1 is
//! layer l, the last one follows the layers.

use std::{collections::BTreeMap, ops::Range};

use crate::{
    KernelError, Op, Program, Sampler, TensorId,
    ops::QuantRows,
    program::{SiteId, Weight},
    rows::Hash,
    trace::Probe,
};

/// A site's rows on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    /// int32 rows, row-major.
    Acts(Vec<i32>),
    /// Quantised rows.
    Quant(QuantRows),
}

/// The rows that later units read, of the sites that they read: in most programs the residual alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carried(pub(crate) BTreeMap<SiteId, Block>);

impl Carried {
    /// Bytes that the rows take, scales included.
    pub fn bytes(&self) -> usize {
        let of = |block: &Block| match block {
            Block::Acts(v) => v.len() * 4,
            Block::Quant(q) => q.q.len() * 2 + q.scales.len() * 4,
        };
        self.0.values().map(of).sum()
    }

    /// The sites whose rows these are.
    pub fn sites(&self) -> impl Iterator<Item = SiteId> + '_ {
        self.0.keys().copied()
    }
}

/// Consecutive rows of one sequence on their way through a unit.
#[derive(Debug, Clone, Copy)]
pub struct PartStep<'a> {
    /// Position of the first row.
    pub first: u32,
    /// Their ids, at least one.
    pub tokens: &'a [u32],
    /// How every one of them is sampled, in the unit after the layers of a decoder.
    pub sampler: &'a Sampler,
}

/// What of a layer gets hashed for one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowHashes {
    /// BLAKE3 of the canonical KV row (of no bytes where the layer caches nothing).
    pub kv: Hash,
    /// BLAKE3 of the `out` row, where the layer is a checkpoint.
    pub out: Option<Hash>,
}

/// What a unit made of some rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartDone {
    /// What later units read of them; goes into the next one.
    pub carried: Carried,
    /// Of a layer: what gets hashed, a row each.
    pub hashes: Vec<RowHashes>,
    /// Of the unit after the layers: an id a row, or an encoder's words.
    pub sampled: Vec<u32>,
}

/// A unit on a device, with its weights and no others; dropping it lets them go.
pub trait Part: Send {
    /// Runs rows through the unit. `carried` is what the unit before made of the same rows (nothing for unit 0). `cache`
    /// holds the layer's canonical KV rows of the positions before `step.first` and grows by those of the step; other
    /// units leave it alone. Bit for bit what a [`crate::Runner`] computes, wherever a sequence is cut. A bidirectional
    /// program takes a whole sequence at once. On an error the cache is as it was.
    fn run(
        &mut self,
        step: PartStep<'_>,
        carried: Carried,
        cache: &mut Vec<u8>,
        probe: Option<&mut dyn Probe>,
    ) -> Result<PartDone, KernelError>;
}

impl Program {
    /// Units: the layers, what comes before them and what comes after.
    pub fn units(&self) -> u32 {
        self.layers.saturating_add(2)
    }

    /// The sites of a unit of a valid program; none where there is no such unit.
    pub fn unit_sites(&self, unit: u32) -> Range<usize> {
        let n = self.sites.len();
        let last = self.sites.iter().rposition(|s| s.layer.is_some());
        let after = last.map_or(n, |i| i + 1);
        let layer_from = |layer: u32| {
            let body = self.sites.iter().take(after);
            let before = |s: &&crate::Site| s.layer.is_none_or(|l| l < layer);
            body.take_while(before).count()
        };
        match unit.checked_sub(1) {
            None => 0..layer_from(0),
            Some(l) if l < self.layers => layer_from(l)..layer_from(l.saturating_add(1)),
            Some(l) if l == self.layers => after..n,
            Some(_) => n..n,
        }
    }

    /// The tensors that a unit reads, each once.
    pub fn unit_tensors(&self, unit: u32) -> Vec<TensorId> {
        let weight = |w: &Weight| {
            let all = [Some(w.q), Some(w.scale), w.mult, w.bias];
            all.into_iter().flatten().collect::<Vec<_>>()
        };
        let sites = self.sites.get(self.unit_sites(unit)).unwrap_or_default();
        let mut ids: Vec<TensorId> = sites
            .iter()
            .flat_map(|s| match &s.op {
                Op::Embed { weight: w, .. }
                | Op::PosEmbed { weight: w, .. }
                | Op::Linear { weight: w, .. } => weight(w),
                Op::RmsNorm { gain, .. } => vec![*gain],
                Op::LayerNorm { gain, bias, .. } => vec![*gain, *bias],
                Op::Rope { table, .. } => vec![*table],
                _ => vec![],
            })
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}
