//! The one door to a backend: a [`Device`] loads a program with its tensors and gives a [`Runner`], which
//! owns every buffer (packed weights, KV pages, `out` rows waiting to be hashed) and runs whole batches.
//!
//! The door is this high on purpose. A GPU backend may fuse sites, capture graphs, overlap hashing with the
//! next token and page its cache as it likes; nothing but token ids and hashes has to cross. What it may not
//! do is change a bit: the conformance suite runs programs of one site and of many on every backend and
//! compares what a [`Probe`] sees, and the hashes, with the reference.

use std::sync::Arc;

use crate::{
    KernelError, part::Part, program::Program, rows::Hash, sample::Sampler, tensor::HostTensor, trace::Probe,
};

/// What a device says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Backend: `reference`, `cpu`, `cuda`.
    pub backend: &'static str,
    /// Name for people, with what was chosen at run time: `cpu (AVX2, 8 threads)`.
    pub name: String,
    /// Bytes of memory that models and caches may use, where known.
    pub memory_bytes: Option<u64>,
}

/// What a device does at most, measured on it: the limits that speeds are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Peaks {
    /// Bytes of memory read in a second, where it can be measured.
    pub bytes_per_s: Option<u64>,
    /// int8 multiply-adds in a second, in the instructions that exact sums take.
    pub multiply_adds_per_s: Option<u64>,
}

/// A processor that runs programs.
pub trait Device: Send + Sync {
    /// Name, backend, memory.
    fn info(&self) -> DeviceInfo;

    /// Measures its limits; takes about a second.
    fn peaks(&self) -> Result<Peaks, KernelError> {
        Ok(Peaks::default())
    }

    /// Checks program and tensors against the spec (overflow bounds included) and takes them in; `tensors`
    /// are indexed by [`crate::TensorId`]. Refuses what does not fit, with the numbers.
    fn load(&self, program: Arc<Program>, tensors: &[HostTensor]) -> Result<Box<dyn Runner>, KernelError>;

    /// [`Device::load`] for one sequence of at most `tokens` positions at a time: a device that sets memory aside for
    /// its cache sets aside no more than that takes.
    fn load_for(
        &self,
        program: Arc<Program>,
        tensors: &[HostTensor],
        tokens: u32,
    ) -> Result<Box<dyn Runner>, KernelError> {
        let _ = tokens;
        self.load(program, tensors)
    }

    /// Whether [`Device::load_part`] works here.
    fn has_parts(&self) -> bool {
        false
    }

    /// Takes in one unit of a program ([`crate::part`]), checking what [`Device::load`] checks of its tensors, and no
    /// tensor of another unit. Only a device that has parts does.
    fn load_part(
        &self,
        program: Arc<Program>,
        tensors: &[HostTensor],
        unit: u32,
    ) -> Result<Box<dyn Part>, KernelError> {
        let _ = (program, tensors);
        Err(KernelError::Device {
            device: self.info().name,
            why: format!("it runs whole models only, and unit {unit} alone was to be run"),
        })
    }
}

/// A sequence that a runner holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqId(pub u64);

/// A sequence's part of one batch: its next tokens, and which of them get a sampled successor.
#[derive(Debug, Clone)]
pub struct SeqStep<'a> {
    /// The sequence.
    pub seq: SeqId,
    /// Tokens to append, at positions `len ..`. At least one.
    pub tokens: &'a [u32],
    /// The last `sample` of these rows go through the head and are sampled (decode and prefill: 1; re-check:
    /// as many as were generated; 0: none). For an encoder 1 asks for its output.
    pub sample: u32,
    /// How to sample.
    pub sampler: &'a Sampler,
}

/// A model on a device, and its sequences.
pub trait Runner: Send {
    /// The program it runs.
    fn program(&self) -> &Program;

    /// Opens a sequence with room for `max_tokens` positions (at most the context).
    fn open(&mut self, max_tokens: u32) -> Result<SeqId, KernelError>;

    /// Forgets a sequence; unknown ones are ignored.
    fn close(&mut self, seq: SeqId);

    /// Positions that a sequence holds.
    fn len(&self, seq: SeqId) -> Result<u32, KernelError>;

    /// Runs one batch; element i of the answer holds the `batch[i].sample` sampled ids, or an encoder's output
    /// words. Each sequence at most
    /// once a batch. On an error no sequence has moved. A probe watches a batch of one sequence only.
    fn step(
        &mut self,
        batch: &[SeqStep<'_>],
        probe: Option<&mut dyn Probe>,
    ) -> Result<Vec<Vec<u32>>, KernelError>;

    /// Starts hashing every row that waits (asynchronously where the device can). Call every 32 tokens or
    /// more, and at the end: a hash costs latency, not throughput.
    fn hash(&mut self, seq: SeqId) -> Result<(), KernelError>;

    /// Takes the body roots that are done, first position first (of a bidirectional program: a root a layer, first
    /// layer first); `wait` also waits for those under way.
    fn take_bodies(&mut self, seq: SeqId, wait: bool) -> Result<(u32, Vec<Hash>), KernelError>;
}
