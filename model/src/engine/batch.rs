//! Continuous batching: jobs join and leave between two tokens, and all of them step together. A job's
//! integers do not depend on its company.

use std::{collections::BTreeMap, sync::Arc};

use bitai_kernels::{Program, Runner, Trace};

use super::{EngineError, Request, sequence::Sequence};

/// A job's number in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub u64);

/// What a step brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A job sampled an id.
    Token(JobId, u32),
    /// A job is complete and committed: its whole output.
    Done(JobId, Vec<u32>),
}

struct Running<'e> {
    sequence: Sequence,
    trace: Box<dyn Trace + 'e>,
}

/// Jobs that run together on one engine.
pub struct Batch<'e> {
    runner: &'e mut dyn Runner,
    program: Arc<Program>,
    jobs: BTreeMap<JobId, Running<'e>>,
    next: u64,
}

impl<'e> Batch<'e> {
    pub(super) fn new(runner: &'e mut dyn Runner, program: Arc<Program>) -> Self {
        Self {
            runner,
            program,
            jobs: BTreeMap::new(),
            next: 0,
        }
    }

    /// Adds a job; it takes part from the next step on.
    pub fn join(&mut self, request: Request, trace: Box<dyn Trace + 'e>) -> Result<JobId, EngineError> {
        let sequence = Sequence::open(self.runner, &self.program, request)?;
        let id = JobId(self.next);
        self.next += 1;
        self.jobs.insert(id, Running { sequence, trace });
        Ok(id)
    }

    /// Drops a job unfinished; unknown ones are ignored.
    pub fn cancel(&mut self, id: JobId) {
        if let Some(job) = self.jobs.remove(&id) {
            self.runner.close(job.sequence.id());
        }
    }

    /// Ends a job after the ids that it has by now, at least one, and commits them: its trace is that of the same request
    /// with so many new ids. False where it is not under way: unknown, complete, or still reading its prompt.
    pub fn finish(&mut self, id: JobId) -> Result<bool, EngineError> {
        if !self.jobs.get(&id).is_some_and(|job| job.sequence.has_output()) {
            return Ok(false);
        }
        let Some(mut job) = self.jobs.remove(&id) else {
            return Ok(false);
        };
        let settled = job.sequence.settle(self.runner, job.trace.as_mut());
        self.runner.close(job.sequence.id());
        settled.map(|()| true)
    }

    /// Jobs under way.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether no job is under way.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Runs every job one step on: a part of its prompt or one id. On an error of the device's step no job has moved.
    pub fn step(&mut self) -> Result<Vec<Event>, EngineError> {
        if self.jobs.is_empty() {
            return Ok(Vec::new());
        }
        let steps: Vec<_> = self.jobs.values().map(|job| job.sequence.next_step()).collect();
        let sampled = self.runner.step(&steps, None)?;
        let mut events = Vec::new();
        let mut done = Vec::new();
        for ((id, job), ids) in self.jobs.iter_mut().zip(sampled) {
            if let Some(token) = job.sequence.advance(self.runner, &ids, job.trace.as_mut())? {
                events.push(Event::Token(*id, token));
            }
            if job.sequence.is_done() {
                job.sequence.settle(self.runner, job.trace.as_mut())?;
                done.push(*id);
            }
        }
        for id in done {
            if let Some(job) = self.jobs.remove(&id) {
                self.runner.close(job.sequence.id());
                events.push(Event::Done(id, job.sequence.into_output()));
            }
        }
        Ok(events)
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for job in self.jobs.values() {
            self.runner.close(job.sequence.id());
        }
    }
}
