//! The runner of a model on a GPU: sequences and their places in the cache, batches in pieces, hashing beside them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{
    attention::Lengths,
    blocks::Pool,
    cache::{Cache, Place},
    driver::{Driver, Queue},
    hashing::{Hasher, Outs, Roots, Waiting},
    ops::Ops,
    piece::{Piece, Span},
    weights::{DeviceWeight, Extra, extras},
};
use crate::{
    HostTensor, KernelError, Probe, Program, Runner, SeqId, SeqStep,
    batch::{check, pieces},
    plan::Plan,
    rows::Hash,
};

/// How much runs and waits at once; tests make it small.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Rows that go through the layers together.
    pub(crate) body: usize,
    /// Positions whose `out` rows may wait to be hashed.
    pub(crate) waiting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 512,
            waiting: 2048,
        }
    }
}

/// How much memory a model may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Bytes of the KV cache; None: half of what is free when the weights are loaded, so that another model finds room.
    pub cache_bytes: Option<u64>,
}

/// A sequence's state.
struct Sequence {
    place: Place,
    len: u32,
    max: u32,
    waiting: Vec<Waiting>,
    roots: VecDeque<Roots>,
    /// Body roots handed out.
    taken: u32,
}

/// A model on a GPU.
pub(crate) struct CudaRunner {
    // Fields drop in this order: what kernels may still read goes before the driver.
    seqs: BTreeMap<SeqId, Sequence>,
    outs: Outs,
    cache: Cache,
    pool: Pool,
    ops: Ops,
    extras: Vec<Extra>,
    plan: Plan<DeviceWeight>,
    program: Arc<Program>,
    driver: Arc<dyn Driver>,
    limits: Limits,
    next: u64,
}

impl CudaRunner {
    /// Checks program and tensors, uploads them and plans the cache.
    pub(crate) fn load(
        driver: Arc<dyn Driver>,
        memory: Memory,
        limits: Limits,
        program: Arc<Program>,
        tensors: &[HostTensor],
    ) -> Result<Self, KernelError> {
        let (free, _) = driver.memory()?;
        let need: u64 = tensors.iter().map(|t| t.data().len() as u64).sum();
        if need > free {
            return Err(KernelError::OutOfMemory {
                device: format!("{}, weights", driver.name()),
                need,
                free,
            });
        }
        let plan = Plan::load(&program, tensors, 0..program.sites.len(), |w| {
            DeviceWeight::new(&driver, &w)
        })?;
        let extras = extras(&driver, &plan)?;
        let whole = if plan.bidirectional {
            program.context as usize
        } else {
            0
        };
        let outs = Outs::new(&driver, &program, limits.waiting.max(whole))?;
        let bytes = match memory.cache_bytes {
            Some(bytes) => bytes,
            None => driver.memory()?.0 / 2,
        };
        Ok(Self {
            seqs: BTreeMap::new(),
            outs,
            cache: Cache::new(&driver, &program, bytes)?,
            pool: Pool::new(driver.clone()),
            ops: Ops::new(driver.clone())?,
            extras,
            plan,
            program,
            driver,
            limits,
            next: 0,
        })
    }

    fn seq(&self, id: SeqId) -> Result<&Sequence, KernelError> {
        self.seqs.get(&id).ok_or(KernelError::Unknown {
            what: "sequence",
            id: id.0,
        })
    }

    /// Starts hashing what waits of one sequence.
    fn start_hashing(&mut self, id: SeqId) -> Result<(), KernelError> {
        let Some(seq) = self.seqs.get_mut(&id) else {
            return Ok(());
        };
        let mut hasher = Hasher {
            driver: self.driver.as_ref(),
            pool: &mut self.pool,
            program: &self.program,
            checkpoints: &self.plan.checkpoints,
            cache: &self.cache,
            outs: &self.outs,
            bidirectional: self.plan.bidirectional,
        };
        let roots = hasher.start(&seq.place, &seq.waiting)?;
        seq.roots.extend(roots);
        seq.waiting.clear();
        Ok(())
    }

    /// Room for the `out` rows of a piece: where there is none, everything that waits is hashed first.
    fn make_room(&mut self, rows: usize) -> Result<(), KernelError> {
        if self.outs.fits(rows) {
            return Ok(());
        }
        if rows > self.outs.capacity() {
            return Err(KernelError::ContextFull {
                have: 0,
                max: self.outs.capacity() as u32,
                want: rows as u32,
            });
        }
        self.hash_all()
    }

    /// Starts hashing all that waits, and gives its places to the work that comes after.
    fn hash_all(&mut self) -> Result<(), KernelError> {
        for id in self.seqs.keys().copied().collect::<Vec<_>>() {
            self.start_hashing(id)?;
        }
        self.driver.follow(Queue::Work, Queue::Hash)?;
        self.outs.clear();
        Ok(())
    }

    /// Runs one piece and moves its sequences.
    fn piece(
        &mut self,
        piece: &[SeqStep<'_>],
        probe: Option<&mut dyn Probe>,
    ) -> Result<Vec<u32>, KernelError> {
        let rows = piece.iter().map(|s| s.tokens.len()).sum();
        self.make_room(rows)?;
        let out_place = self.outs.reserve(rows);
        let mut spans = Vec::with_capacity(piece.len());
        for step in piece {
            let seq = self.seq(step.seq)?;
            spans.push(Span {
                slot: seq.place.slot,
                first: seq.len,
                tokens: step.tokens,
                sample: step.sample,
                sampler: step.sampler,
            });
        }
        let mut run = Piece {
            program: &self.program,
            plan: &self.plan,
            extras: &self.extras,
            ops: &self.ops,
            pool: &mut self.pool,
            cache: &self.cache,
            outs: &mut self.outs,
            driver: self.driver.as_ref(),
            lengths: Lengths {
                keys: spans
                    .iter()
                    .map(|s| s.first as usize + s.tokens.len())
                    .max()
                    .unwrap_or(0),
                rows: spans.iter().map(|s| s.tokens.len()).max().unwrap_or(0),
            },
            out_place,
            blocks: self.program.sites.iter().map(|_| None).collect(),
            positions: vec![],
            samplers: vec![],
            sampled: vec![],
            // Shortens the trait object's lifetime to this call's.
            probe: match probe {
                Some(p) => Some(p),
                None => None,
            },
        };
        run.run(&spans)?;
        let sampled = run.sampled;
        let mut place = out_place;
        for step in piece {
            let count = step.tokens.len();
            if let Some(seq) = self.seqs.get_mut(&step.seq) {
                seq.waiting.push(Waiting {
                    pos: seq.len,
                    count: count as u32,
                    place,
                });
                seq.len += count as u32;
            }
            place += count;
        }
        Ok(sampled)
    }
}

impl Runner for CudaRunner {
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
        let place = self.cache.open(max_tokens)?;
        let id = SeqId(self.next);
        self.next += 1;
        let seq = Sequence {
            place,
            len: 0,
            max: max_tokens,
            waiting: vec![],
            roots: VecDeque::new(),
            taken: 0,
        };
        self.seqs.insert(id, seq);
        Ok(id)
    }

    fn close(&mut self, seq: SeqId) {
        let Some(seq) = self.seqs.remove(&seq) else {
            return;
        };
        // Its pages are written again only after hashing has read them. A driver that fails here fails the next step.
        let _ = self.driver.follow(Queue::Work, Queue::Hash);
        for roots in seq.roots {
            roots.forget(self.driver.as_ref());
        }
        self.cache.close(seq.place);
    }

    fn len(&self, seq: SeqId) -> Result<u32, KernelError> {
        Ok(self.seq(seq)?.len)
    }

    fn step(
        &mut self,
        batch: &[SeqStep<'_>],
        mut probe: Option<&mut dyn Probe>,
    ) -> Result<Vec<Vec<u32>>, KernelError> {
        check(&self.program, self.plan.emits, batch, probe.is_some(), |id| {
            self.seq(id).map(|s| (s.len, s.max))
        })?;
        let before: Vec<(SeqId, u32)> = batch
            .iter()
            .map(|s| Ok((s.seq, self.seq(s.seq)?.len)))
            .collect::<Result<_, KernelError>>()?;
        let cut = if self.plan.bidirectional {
            // A sequence whole, and by itself: nothing bounds how long several are together.
            batch.iter().map(|s| vec![s.clone()]).collect()
        } else {
            pieces(batch, self.limits.body)
        };
        let rows = batch.iter().map(|s| s.tokens.len()).sum();
        if !self.outs.fits(rows) {
            // What waits from before this step is hashed by itself, so that a step that fails can be taken back whole.
            self.hash_all()?;
        }
        let mut sampled = vec![];
        for piece in cut {
            // Reborrowed by hand: an Option<&mut dyn> does not reborrow itself.
            let probe = probe.as_mut().map(|p| &mut **p as &mut dyn Probe);
            match self.piece(&piece, probe) {
                Ok(more) => sampled.extend(more),
                Err(e) => {
                    self.back_to(&before);
                    return Err(e);
                }
            }
        }
        let mut sampled = sampled.into_iter();
        // A sampled row gives one id, an encoder's sequence all of its words.
        let words = self.plan.emits.unwrap_or(1);
        Ok(batch
            .iter()
            .map(|step| sampled.by_ref().take(step.sample as usize * words).collect())
            .collect())
    }

    fn hash(&mut self, seq: SeqId) -> Result<(), KernelError> {
        self.seq(seq)?;
        self.start_hashing(seq)
    }

    fn take_bodies(&mut self, seq: SeqId, wait: bool) -> Result<(u32, Vec<Hash>), KernelError> {
        self.seq(seq)?;
        let mut bodies = vec![];
        let Some(seq) = self.seqs.get_mut(&seq) else {
            return Ok((0, bodies));
        };
        let first = seq.taken;
        while let Some(roots) = seq.roots.pop_front() {
            match roots.take(self.driver.as_ref(), &mut self.pool, wait)? {
                Ok(hashes) => bodies.extend(hashes),
                Err(roots) => {
                    seq.roots.push_front(roots);
                    break;
                }
            }
        }
        seq.taken += bodies.len() as u32;
        Ok((first, bodies))
    }
}

impl CudaRunner {
    /// After a failure no sequence has moved: rows behind `len` do not exist.
    fn back_to(&mut self, before: &[(SeqId, u32)]) {
        for (id, len) in before {
            if let Some(seq) = self.seqs.get_mut(id) {
                seq.len = *len;
                seq.waiting.retain_mut(|w| {
                    w.count = w.count.min(len.saturating_sub(w.pos));
                    w.count > 0
                });
                // Roots of rows that do not exist any more; none begins before `len` and ends behind it.
                let kept = seq.roots.partition_point(|r| r.first() < *len);
                for roots in seq.roots.split_off(kept) {
                    roots.forget(self.driver.as_ref());
                }
            }
        }
    }
}
