//! One job's sequence on a runner: what it feeds next, what it has sampled, what it has committed.

use bitai_kernels::{Program, Runner, SeqId, SeqStep, Trace};

use super::{EngineError, HASH_EVERY, PREFILL_CHUNK, Request};

/// A job under way.
pub(super) struct Sequence {
    seq: SeqId,
    request: Request,
    /// Prompt ids fed.
    fed: usize,
    output: Vec<u32>,
    /// Positions evaluated and not yet sent to be hashed.
    unhashed: u32,
}

/// Refuses what cannot run: `new` ids are wanted after the prompt; `output` are ids to check beside it.
pub(super) fn check(program: &Program, input: &[u32], new: usize, output: &[u32]) -> Result<(), EngineError> {
    if program.emits().is_some() {
        return Err(EngineError::NotADecoder);
    }
    if new == 0 && !input.is_empty() {
        return Err(EngineError::NothingAsked);
    }
    within(program, input, new, output)
}

/// An encoder's input.
pub(super) fn check_encoder(program: &Program, input: &[u32]) -> Result<(), EngineError> {
    if program.emits().is_none() {
        return Err(EngineError::NotAnEncoder);
    }
    within(program, input, 0, &[])
}

/// Ids that fit the context and the vocabulary, at least one of them.
fn within(program: &Program, input: &[u32], new: usize, output: &[u32]) -> Result<(), EngineError> {
    if input.is_empty() {
        return Err(EngineError::EmptyInput);
    }
    if input.len() as u64 + new as u64 > u64::from(program.context) {
        return Err(EngineError::ContextOverflow {
            input: input.len(),
            new,
            context: program.context,
        });
    }
    match input
        .iter()
        .chain(output)
        .enumerate()
        .find(|(_, id)| **id >= program.vocab)
    {
        Some((at, id)) => Err(EngineError::IdOutOfRange {
            id: *id,
            at,
            vocab: program.vocab,
        }),
        None => Ok(()),
    }
}

/// Positions of ids that [`check`] found to fit the context.
pub(super) fn positions(ids: &[u32]) -> u32 {
    u32::try_from(ids.len()).expect("checked against the context, which is a u32")
}

/// Sends waiting rows to be hashed and hands on the roots that are done (all of them if `wait`).
pub(super) fn commit(
    runner: &mut dyn Runner,
    seq: SeqId,
    wait: bool,
    trace: &mut dyn Trace,
) -> Result<(), EngineError> {
    runner.hash(seq)?;
    let (first, bodies) = runner.take_bodies(seq, wait)?;
    if !bodies.is_empty() {
        trace.bodies(first, &bodies);
    }
    Ok(())
}

impl Sequence {
    /// Checks the request and opens a sequence with room for it.
    pub(super) fn open(
        runner: &mut dyn Runner,
        program: &Program,
        request: Request,
    ) -> Result<Self, EngineError> {
        let new = request.max_new as usize;
        check(program, &request.input_ids, new, &request.stop_ids)?;
        // The last output id is never fed.
        let room = positions(&request.input_ids) + request.max_new - 1;
        Ok(Self {
            seq: runner.open(room)?,
            request,
            fed: 0,
            output: Vec::new(),
            unhashed: 0,
        })
    }

    pub(super) fn id(&self) -> SeqId {
        self.seq
    }

    pub(super) fn into_output(self) -> Vec<u32> {
        self.output
    }

    /// Whether an id has been sampled.
    pub(super) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Whether the output is complete.
    pub(super) fn is_done(&self) -> bool {
        self.output.len() >= self.request.max_new as usize
            || self
                .output
                .last()
                .is_some_and(|id| self.request.stop_ids.contains(id))
    }

    fn next_tokens(&self) -> &[u32] {
        let prompt = &self.request.input_ids;
        if self.fed < prompt.len() {
            &prompt[self.fed..prompt.len().min(self.fed + PREFILL_CHUNK)]
        } else {
            &self.output[self.output.len() - 1..]
        }
    }

    /// The next part of the prompt, or the last id that was sampled.
    pub(super) fn next_step(&self) -> SeqStep<'_> {
        let tokens = self.next_tokens();
        SeqStep {
            seq: self.seq,
            tokens,
            sample: u32::from(self.fed + tokens.len() >= self.request.input_ids.len()),
            sampler: &self.request.sampler,
        }
    }

    /// Takes what the step sampled (nothing while the prompt is being read).
    pub(super) fn advance(
        &mut self,
        runner: &mut dyn Runner,
        sampled: &[u32],
        trace: &mut dyn Trace,
    ) -> Result<Option<u32>, EngineError> {
        let len = positions(self.next_tokens());
        self.unhashed += len;
        if self.fed < self.request.input_ids.len() {
            self.fed += len as usize;
        }
        let token = sampled.last().copied();
        if let Some(token) = token {
            let pos = positions(&self.request.input_ids) + positions(&self.output) - 1;
            trace.sampled(pos, token);
            self.output.push(token);
        }
        if self.unhashed >= HASH_EVERY && !self.is_done() {
            self.unhashed = 0;
            commit(runner, self.seq, false, trace)?;
        }
        Ok(token)
    }

    /// Hashes the rest and waits for all of it.
    pub(super) fn settle(
        &mut self,
        runner: &mut dyn Runner,
        trace: &mut dyn Trace,
    ) -> Result<(), EngineError> {
        commit(runner, self.seq, true, trace)
    }
}
