//! Drives a device's runner over a model: generation, re-check, and many jobs in one batch.
//!
//! With n prompt ids and m output ids, positions 0 ..= n + m - 2 are evaluated: the last output id is
//! never fed. Commitments go to a [`Trace`] in order of position.

mod batch;
mod error;
mod sequence;

pub use batch::{Batch, Event, JobId};
pub use error::EngineError;

use std::sync::Arc;

use bitai_kernels::{Device, Hash, Probe, Program, Runner, Sampler, SeqStep, Trace};

use crate::pack::Pack;
use sequence::Sequence;

/// Tokens of a prompt that run at once.
pub const PREFILL_CHUNK: usize = 256;
/// Most tokens of a re-check that run at once: a short rest joins the chunk before it, since the weights are
/// prepared once a chunk. Logits are made in smaller parts by the runner.
const RECHECK_CHUNK_MAX: usize = PREFILL_CHUNK + PREFILL_CHUNK / 8;
/// Positions between two hashings (see [`Runner::hash`]).
pub const HASH_EVERY: u32 = 32;

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Prompt ids.
    pub input_ids: Vec<u32>,
    /// Most ids to generate.
    pub max_new: u32,
    /// Generation ends after one of these.
    pub stop_ids: Vec<u32>,
    /// How ids are chosen.
    pub sampler: Sampler,
}

/// A model on a device.
pub struct Engine {
    runner: Box<dyn Runner>,
    program: Arc<Program>,
    model_root: Hash,
}

impl Engine {
    /// Refuses a program that rules V allow and that neither generates nor embeds.
    pub fn runs(program: &Program) -> Result<(), EngineError> {
        Ok(program.answers()?)
    }

    /// Loads the pack onto the device. The pack may be dropped afterwards.
    pub fn new(pack: &Pack, device: &dyn Device) -> Result<Self, EngineError> {
        let program = pack.program();
        Self::runs(&program)?;
        Ok(Self {
            runner: device.load(Arc::clone(&program), &pack.tensors())?,
            program,
            model_root: pack.root(),
        })
    }

    /// The model's root.
    pub fn model_root(&self) -> Hash {
        self.model_root
    }

    /// The model's program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Generates until a stop id or `max_new`; `on_token` hears each id as it comes.
    pub fn generate(
        &mut self,
        input_ids: &[u32],
        max_new: u32,
        stop_ids: &[u32],
        sampler: &Sampler,
        trace: &mut dyn Trace,
        on_token: &mut dyn FnMut(u32),
    ) -> Result<Vec<u32>, EngineError> {
        let request = Request {
            input_ids: input_ids.to_vec(),
            max_new,
            stop_ids: stop_ids.to_vec(),
            sampler: *sampler,
        };
        let mut sequence = Sequence::open(self.runner.as_mut(), &self.program, request)?;
        let result = self.drive(&mut sequence, trace, on_token);
        self.runner.close(sequence.id());
        result?;
        Ok(sequence.into_output())
    }

    fn drive(
        &mut self,
        sequence: &mut Sequence,
        trace: &mut dyn Trace,
        on_token: &mut dyn FnMut(u32),
    ) -> Result<(), EngineError> {
        while !sequence.is_done() {
            let sampled = self.runner.step(&[sequence.next_step()], None)?;
            let ids = sampled.first().map_or(&[][..], Vec::as_slice);
            if let Some(token) = sequence.advance(self.runner.as_mut(), ids, trace)? {
                on_token(token);
            }
        }
        sequence.settle(self.runner.as_mut(), trace)
    }

    /// Runs prompt and output as one prefill and gives the id that it would have sampled at each output
    /// position. The run is honest if they equal `output_ids` and the trace roots agree. The trace hears
    /// the ids sampled here.
    pub fn recheck(
        &mut self,
        input_ids: &[u32],
        output_ids: &[u32],
        sampler: &Sampler,
        trace: &mut dyn Trace,
    ) -> Result<Vec<u32>, EngineError> {
        self.recheck_probed(input_ids, output_ids, sampler, trace, None)
    }

    /// [`Engine::recheck`] while a probe sees every site's rows.
    pub fn recheck_probed(
        &mut self,
        input_ids: &[u32],
        output_ids: &[u32],
        sampler: &Sampler,
        trace: &mut dyn Trace,
        mut probe: Option<&mut dyn Probe>,
    ) -> Result<Vec<u32>, EngineError> {
        sequence::check(&self.program, input_ids, output_ids.len(), output_ids)?;
        let fed = [input_ids, &output_ids[..output_ids.len() - 1]].concat();
        let seq = self.runner.open(sequence::positions(&fed))?;
        // The first sampled position is the prompt's last.
        let first_sampled = input_ids.len() - 1;
        let result = (|| {
            let mut sampled = Vec::with_capacity(output_ids.len());
            let mut at = 0;
            while at < fed.len() {
                let left = fed.len() - at;
                let len = if left <= RECHECK_CHUNK_MAX {
                    left
                } else {
                    PREFILL_CHUNK
                };
                let sample = (at + len).saturating_sub(first_sampled).min(len);
                let step = SeqStep {
                    seq,
                    tokens: &fed[at..at + len],
                    // A chunk is far below u32::MAX.
                    sample: sample as u32,
                    sampler,
                };
                // Reborrowed by hand: an Option<&mut dyn> does not reborrow itself.
                let probe = probe.as_mut().map(|p| &mut **p as &mut dyn Probe);
                let ids = self.runner.step(&[step], probe)?.into_iter().flatten();
                for (pos, id) in (at + len - sample..).zip(ids) {
                    trace.sampled(pos as u32, id);
                    sampled.push(id);
                }
                at += len;
                if len as u32 >= HASH_EVERY || at == fed.len() {
                    sequence::commit(self.runner.as_mut(), seq, at == fed.len(), trace)?;
                }
            }
            Ok(sampled)
        })();
        self.runner.close(seq);
        result
    }

    /// Runs an encoder over `input_ids` and gives its output row, int32 elements with the fraction bits of
    /// [`crate::arch::encoder::F_ENCODER`]. The trace hears a root a layer and the row's words.
    pub fn embed(&mut self, input_ids: &[u32], trace: &mut dyn Trace) -> Result<Vec<i32>, EngineError> {
        sequence::check_encoder(&self.program, input_ids)?;
        let seq = self.runner.open(sequence::positions(input_ids))?;
        let step = SeqStep {
            seq,
            tokens: input_ids,
            sample: 1,
            sampler: &Sampler::Greedy,
        };
        let result = (|| {
            let words = self.runner.step(&[step], None)?.concat();
            sequence::commit(self.runner.as_mut(), seq, true, trace)?;
            trace.words(&words);
            Ok(words.iter().map(|w| w.cast_signed()).collect())
        })();
        self.runner.close(seq);
        result
    }

    /// Starts a batch of jobs on this engine.
    pub fn batch(&mut self) -> Batch<'_> {
        Batch::new(self.runner.as_mut(), Arc::clone(&self.program))
    }
}
