//! A unit of a program on a host backend: [`crate::run`] over the sites of one unit, with the weights of no other.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use rayon::prelude::*;

use crate::{
    HostTensor, KernelError, Op, Program, SeqId, SeqStep,
    blocks::{Block, Pool},
    ops::Ops,
    part::{Carried, Part, PartDone, PartStep, RowHashes},
    plan::Plan,
    program_check::Shape,
    rows::kv_row_len,
    run::Run,
    sequence::Sequence,
    trace::Probe,
};

/// The sequence of a run of parts: there is one.
const SEQ: SeqId = SeqId(0);

/// A unit on a host backend.
pub(crate) struct HostPart<O: Ops> {
    ops: O,
    program: Arc<Program>,
    plan: Plan<O::Weight>,
    sites: Range<usize>,
    layer: Option<usize>,
    pool: Pool,
    /// The integer that a test makes wrong.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fault: Option<crate::testing::Fault>,
}

impl<O: Ops> HostPart<O> {
    /// Checks the program and the unit's tensors and takes its weights in.
    pub(crate) fn load(
        ops: O,
        program: Arc<Program>,
        tensors: &[HostTensor],
        unit: u32,
    ) -> Result<Self, KernelError> {
        if unit >= program.units() {
            return Err(KernelError::Unknown {
                what: "unit of a program",
                id: unit.into(),
            });
        }
        let sites = program.unit_sites(unit);
        let plan = ops.scope(|| Plan::load(&program, tensors, sites.clone(), |w| ops.load_weight(w)))?;
        let layer = unit.checked_sub(1).filter(|l| *l < program.layers);
        Ok(Self {
            ops,
            program,
            plan,
            sites,
            layer: layer.map(|l| l as usize),
            pool: Pool::default(),
            #[cfg(any(test, feature = "testing"))]
            fault: None,
        })
    }

    /// Bytes of a KV row of this unit's layer; 0 where it caches nothing.
    fn kv_len(&self) -> usize {
        let sites = &self.program.sites[self.sites.clone()];
        match sites.iter().any(|s| matches!(s.op, Op::KvAppend { .. })) {
            true => kv_row_len(self.program.kv_heads as usize, self.program.head_dim as usize),
            false => 0,
        }
    }

    /// All that a caller can get wrong, before anything moves.
    fn check(&self, step: PartStep<'_>, carried: &Carried, cached: usize) -> Result<(), KernelError> {
        let shape = |what, expected: String, got: String| Err(KernelError::Shape { what, expected, got });
        let count = step.tokens.len();
        if count == 0 {
            return shape("rows of a unit", "at least 1".into(), "0".into());
        }
        let want = u32::try_from(count).unwrap_or(u32::MAX);
        if step.first.saturating_add(want) > self.program.context {
            return Err(KernelError::ContextFull {
                have: step.first,
                max: self.program.context,
                want,
            });
        }
        let vocab = self.program.vocab;
        if let Some(id) = step.tokens.iter().find(|id| **id >= vocab) {
            return shape("token id", format!("below {vocab}"), format!("{id}"));
        }
        if self.plan.bidirectional && step.first > 0 {
            let got = format!("{} tokens before it", step.first);
            return shape(
                "rows of a bidirectional program",
                "a whole sequence at once".into(),
                got,
            );
        }
        let expected = step.first as usize * self.kv_len();
        if self.layer.is_some() && cached != expected {
            return shape(
                "bytes of a layer's cache",
                format!("{expected}"),
                format!("{cached}"),
            );
        }
        // Exactly the rows that this unit or a later one reads of those before it.
        let crosses = |i: &usize| self.plan.source[*i] == *i && self.plan.last_reader[*i] >= self.sites.start;
        let needed = (0..self.sites.start).filter(crosses);
        if !needed.eq(carried.sites().map(|s| s as usize)) {
            let got = format!("sites {:?}", carried.sites().collect::<Vec<_>>());
            return shape(
                "rows carried into a unit",
                "what units before it left".into(),
                got,
            );
        }
        for (site, block) in &carried.0 {
            let fits = match (block, self.plan.shapes[*site as usize]) {
                (Block::Acts(v), Shape::Acts { cols }) => v.len() == count * cols as usize,
                (Block::Quant(q), Shape::Quant { cols, group, planes }) => {
                    (q.rows, q.cols, q.group, q.planes) == (count, cols as usize, group as usize, planes)
                }
                _ => false,
            };
            if !fits {
                let got = format!("others of site {site}");
                return shape("rows carried into a unit", format!("{count} rows"), got);
            }
        }
        Ok(())
    }

    /// What gets hashed of the rows from `first` on.
    fn hashes(&self, seq: &Sequence, layer: usize, first: u32, count: usize) -> Vec<RowHashes> {
        let (kv_len, out_len) = (self.kv_len(), self.program.d_model as usize * 4);
        let checkpoint = self.plan.checkpoints.iter().position(|l| *l as usize == layer);
        let outs = checkpoint.map(|c| seq.waiting(c));
        let hash = |bytes: &[u8]| *blake3::hash(bytes).as_bytes();
        let kv = &seq.kv[layer][first as usize * kv_len..];
        self.ops.scope(|| {
            (0..count)
                .into_par_iter()
                .map(|r| RowHashes {
                    kv: hash(&kv[r * kv_len..(r + 1) * kv_len]),
                    out: outs.map(|o| hash(&o[r * out_len..(r + 1) * out_len])),
                })
                .collect()
        })
    }
}

impl<O: Ops> Part for HostPart<O> {
    fn run(
        &mut self,
        step: PartStep<'_>,
        carried: Carried,
        cache: &mut Vec<u8>,
        probe: Option<&mut dyn Probe>,
    ) -> Result<PartDone, KernelError> {
        self.check(step, &carried, cache.len())?;
        let count = step.tokens.len();
        // Checked against the context, a u32.
        let end = step.first + count as u32;
        let mut seq = Sequence::new(self.program.layers as usize, self.plan.checkpoints.len(), end);
        if let Some(layer) = self.layer {
            seq.kv[layer] = std::mem::take(cache);
            let room = seq.reserve(layer, count, self.kv_len().max(1));
            if room.is_err() {
                *cache = std::mem::take(&mut seq.kv[layer]);
                return room.map(|()| PartDone::default());
            }
        }
        let mut seqs = BTreeMap::from([(SEQ, seq)]);
        let mut blocks: Vec<Option<Block>> = self.program.sites.iter().map(|_| None).collect();
        for (site, block) in carried.0 {
            blocks[site as usize] = Some(block);
        }
        #[cfg(any(test, feature = "testing"))]
        let fault = self.fault;
        let mut run = Run {
            ops: &self.ops,
            program: &self.program,
            plan: &self.plan,
            seqs: &mut seqs,
            pool: &mut self.pool,
            // Shortens the trait object's lifetime to this call's.
            probe: match probe {
                Some(p) => Some(p),
                None => None,
            },
            blocks,
            positions: vec![],
            ids: vec![],
            spans: vec![],
            samplers: vec![],
            sampled: vec![],
            #[cfg(any(test, feature = "testing"))]
            fault,
        };
        let whole = SeqStep {
            seq: SEQ,
            tokens: step.tokens,
            sample: match self.plan.emits {
                Some(_) => 1,
                None => count as u32,
            },
            sampler: step.sampler,
        };
        let sites = self.sites.clone();
        self.ops.scope(|| run.unit(sites, &whole, step.first));
        let sampled = run.sampled;
        let left = (0u32..).zip(run.blocks);
        let carried = Carried(left.filter_map(|(site, block)| Some((site, block?))).collect());
        let mut hashes = vec![];
        if let (Some(layer), Some(seq)) = (self.layer, seqs.get_mut(&SEQ)) {
            hashes = self.hashes(seq, layer, step.first, count);
            *cache = std::mem::take(&mut seq.kv[layer]);
        }
        Ok(PartDone {
            carried,
            hashes,
            sampled,
        })
    }
}
