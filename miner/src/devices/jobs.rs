//! A job that a fleet was given: who computes it now, and what became of it before.

use std::{collections::BTreeMap, time::Instant};

use alloy_primitives::B256;
use bitai_types::Job;

/// A job until it has a result.
pub(super) struct Held {
    pub(super) job: Job,
    pub(super) hash: B256,
    /// The device that computes it, by number and life.
    pub(super) at: Option<(usize, u64)>,
    pub(super) since: Instant,
    /// Devices that failed while they computed it.
    pub(super) falls: u32,
    /// Devices without room for it, with the numbers.
    pub(super) refused: BTreeMap<usize, String>,
    /// Whether the neuron still waits for it.
    pub(super) is_wanted: bool,
}

impl Held {
    pub(super) fn new(job: Job) -> Self {
        Self {
            hash: job.hash(),
            job,
            at: None,
            since: Instant::now(),
            falls: 0,
            refused: BTreeMap::new(),
            is_wanted: true,
        }
    }

    /// Its model.
    pub(super) fn root(&self) -> B256 {
        self.job.model_root
    }
}
