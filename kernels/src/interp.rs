//! The host interpreter: walks a program over an [`Ops`] backend and is the [`Runner`] of every host
//! backend. It owns sequences, caches and row buffers; arithmetic is the backend's.
//!
//! A batch runs as blocks of rows (tokens of all sequences together, at most [`BODY_ROWS`] at a time, so that
//! a long prompt does not need much memory) through every site up to the last layer. The sites after it, the
//! epilogue, run for sampled rows only, a few at a time, because a row of logits is large. A row block is
//! given back as soon as its last reader has run.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    HostTensor, KernelError, Program, Runner, SeqId, SeqStep, batch,
    blocks::Pool,
    ops::Ops,
    plan::Plan,
    program::Op,
    rows::{Hash, kv_row_len},
    run::Run,
    sequence::Sequence,
    trace::Probe,
};

/// Rows that go through the layers together; a bidirectional program takes all of a sequence.
pub const BODY_ROWS: usize = 512;

/// A program on a host backend, and its sequences.
pub struct Interp<O: Ops> {
    ops: O,
    program: Arc<Program>,
    plan: Plan<O::Weight>,
    seqs: BTreeMap<SeqId, Sequence>,
    next: u64,
    pool: Pool,
    /// The integer that a test makes wrong.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fault: Option<crate::testing::Fault>,
}

impl<O: Ops> Interp<O> {
    /// Checks program and tensors and takes the weights in.
    pub fn load(ops: O, program: Arc<Program>, tensors: &[HostTensor]) -> Result<Self, KernelError> {
        let plan = ops.scope(|| {
            let all = 0..program.sites.len();
            Plan::load(&program, tensors, all, |w| ops.load_weight(w))
        })?;
        Ok(Self {
            ops,
            program,
            plan,
            seqs: BTreeMap::new(),
            next: 0,
            pool: Pool::default(),
            #[cfg(any(test, feature = "testing"))]
            fault: None,
        })
    }

    fn seq(&self, id: SeqId) -> Result<&Sequence, KernelError> {
        self.seqs.get(&id).ok_or(KernelError::Unknown {
            what: "sequence",
            id: id.0,
        })
    }

    /// Room for the batch's KV rows; on an error nothing has moved.
    fn reserve(&mut self, batch: &[SeqStep<'_>]) -> Result<(), KernelError> {
        let row_len = kv_row_len(self.program.kv_heads as usize, self.program.head_dim as usize);
        for site in &self.program.sites {
            let (Op::KvAppend { .. }, Some(layer)) = (&site.op, site.layer) else {
                continue;
            };
            for step in batch {
                if let Some(seq) = self.seqs.get_mut(&step.seq) {
                    seq.reserve(layer as usize, step.tokens.len(), row_len)?;
                }
            }
        }
        Ok(())
    }
}

impl<O: Ops> Runner for Interp<O> {
    fn program(&self) -> &Program {
        &self.program
    }

    fn open(&mut self, max_tokens: u32) -> Result<SeqId, KernelError> {
        if max_tokens > self.program.context {
            return Err(KernelError::ContextFull {
                have: 0,
                max: self.program.context,
                want: max_tokens,
            });
        }
        let id = SeqId(self.next);
        self.next += 1;
        let seq = Sequence::new(
            self.program.layers as usize,
            self.plan.checkpoints.len(),
            max_tokens,
        );
        self.seqs.insert(id, seq);
        Ok(id)
    }

    fn close(&mut self, seq: SeqId) {
        self.seqs.remove(&seq);
    }

    fn len(&self, seq: SeqId) -> Result<u32, KernelError> {
        Ok(self.seq(seq)?.len)
    }

    fn step(
        &mut self,
        batch: &[SeqStep<'_>],
        probe: Option<&mut dyn Probe>,
    ) -> Result<Vec<Vec<u32>>, KernelError> {
        batch::check(&self.program, self.plan.emits, batch, probe.is_some(), |id| {
            self.seq(id).map(|s| (s.len, s.max))
        })?;
        self.reserve(batch)?;
        #[cfg(any(test, feature = "testing"))]
        let fault = self.fault;
        let Self {
            ops,
            program,
            plan,
            seqs,
            pool,
            ..
        } = self;
        let ops = &*ops;
        let mut run = Run {
            ops,
            program,
            plan,
            blocks: program.sites.iter().map(|_| None).collect(),
            positions: vec![],
            ids: vec![],
            spans: vec![],
            samplers: vec![],
            sampled: vec![],
            seqs,
            pool,
            #[cfg(any(test, feature = "testing"))]
            fault,
            // Shortens the trait object's lifetime to this call's.
            probe: match probe {
                Some(p) => Some(p),
                None => None,
            },
        };
        ops.scope(|| run.batch(batch));
        let mut sampled = run.sampled.into_iter();
        // A sampled row gives one id, an encoder's sequence all of its words.
        let words = plan.emits.unwrap_or(1);
        Ok(batch
            .iter()
            .map(|step| sampled.by_ref().take(step.sample as usize * words).collect())
            .collect())
    }

    fn hash(&mut self, seq: SeqId) -> Result<(), KernelError> {
        self.seq(seq)?;
        let kv_len = kv_row_len(self.program.kv_heads as usize, self.program.head_dim as usize);
        let out_len = self.program.d_model as usize * 4;
        if let Some(seq) = self.seqs.get_mut(&seq) {
            let checkpoints = &self.plan.checkpoints;
            let by_layer = self.plan.bidirectional;
            self.ops
                .scope(|| seq.hash(kv_len, out_len, checkpoints, by_layer));
        }
        Ok(())
    }

    fn take_bodies(&mut self, seq: SeqId, _wait: bool) -> Result<(u32, Vec<Hash>), KernelError> {
        // Hashing is done when `hash` returns: there is nothing to wait for.
        self.seq(seq)?;
        Ok(self.seqs.get_mut(&seq).map(Sequence::take).unwrap_or_default())
    }
}
