//! What a neuron has done since it started, as one value: the API and Prometheus both show this and nothing else,
//! so their counts agree.

use alloy_primitives::U256;
use serde::Serialize;

use super::rates::Windows;
use crate::devices::{Faults, Reading};

/// Everything at one moment. Counters begin at zero with the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Version of the program.
    pub version: &'static str,
    /// Seconds that the process has run.
    pub uptime_seconds: u64,
    /// Newest height seen; absent until the node has answered.
    pub height: Option<u64>,
    /// What the node said when it was last asked in vain; absent while it answers.
    pub node_fault: Option<String>,
    /// What became of jobs.
    pub jobs: Jobs,
    /// Ids and seconds computed.
    pub work: Work,
    /// Wei earned by jobs that were seen paid, after the hub's and the validators' parts.
    pub earned_wei: U256,
    /// Answers in windows of time.
    pub answers: Windows,
    /// Ids of answers in windows of time.
    pub tokens: Windows,
    /// How long each step takes.
    pub latency: Latencies,
    /// The devices, in the order of their numbers; empty until they are opened.
    pub devices: Vec<DeviceView>,
}

/// A device, and what went wrong with it since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceView {
    /// Its figures.
    #[serde(flatten)]
    pub reading: Reading,
    /// Counts of faults.
    pub faults: Faults,
}

/// Counts of jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Jobs {
    /// Drawn and given to a device; one that was tried again counts again.
    pub ordered: u64,
    /// Answered by a device.
    pub computed: u64,
    /// Tries that a device failed at.
    pub failed: u64,
    /// Commits sent.
    pub committed: u64,
    /// Reveals sent.
    pub revealed: u64,
    /// Seen paid.
    pub paid: u64,
    /// Seen refunded to the user.
    pub refunded: u64,
    /// Ended in another way: lost, settled without this neuron, left.
    pub unpaid: u64,
    /// Steps that the node or the contract refused.
    pub refused: u64,
    /// In hand now.
    pub open: u64,
}

/// What was computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Work {
    /// Ids of prompts.
    pub input_ids: u64,
    /// Ids of answers.
    pub output_ids: u64,
    /// Milliseconds from order to answer, summed over jobs that may have run side by side.
    pub milliseconds: u64,
}

/// Times of one step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// How often.
    pub count: u64,
    /// Their sum in milliseconds.
    pub sum_milliseconds: u64,
    /// The longest in milliseconds.
    pub max_milliseconds: u64,
}

impl Latency {
    /// Counts one more.
    pub fn add(&mut self, milliseconds: u64) {
        self.count += 1;
        self.sum_milliseconds = self.sum_milliseconds.saturating_add(milliseconds);
        self.max_milliseconds = self.max_milliseconds.max(milliseconds);
    }
}

/// Times of the steps of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Latencies {
    /// From the order to the answer.
    pub compute: Latency,
    /// From the answer to the first commit sent.
    pub commit: Latency,
    /// From the first commit sent to the first reveal sent.
    pub reveal: Latency,
    /// From the first reveal sent until the pay was seen.
    pub payment: Latency,
}

/// One job, as far as this process saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobView {
    /// Its number.
    pub job_id: U256,
    /// Where it stands: `computing`, `computed`, `committed`, `revealed`, or why it is closed.
    pub state: String,
    /// Ids of the prompt.
    pub input_ids: u64,
    /// Ids of the answer, once computed.
    pub output_ids: Option<u64>,
    /// Wei earned, once paid.
    pub earned_wei: Option<U256>,
    /// What last went wrong.
    pub trouble: Option<String>,
}
