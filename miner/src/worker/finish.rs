//! How a neuron ends: what can still be committed in a short time is, everything else is in the journal; it says what.

use std::time::{Duration, Instant};

use alloy_primitives::U256;

use super::{LOOK_EVERY, Neuron, signalled};
use crate::{
    exit::Failure,
    journal::{Batch, Step},
};

/// What a neuron that ends still owes, by job.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Owed {
    /// Being computed.
    pub(super) computing: Vec<U256>,
    /// Computed, and no commit has left.
    pub(super) uncommitted: Vec<U256>,
    /// Committed; what follows is the chain's to ask for.
    pub(super) committed: Vec<U256>,
}

impl Neuron {
    /// Whether a commit for this job has been signed.
    pub(super) fn is_committed(&self, job_id: &U256) -> bool {
        let entry = self.journal.get(job_id);
        let in_batch = |b: &Batch| b.step == Step::Commit && b.jobs.contains(job_id);
        entry.is_some_and(|e| e.sent.contains_key(&Step::Commit))
            || self.journal.batches().iter().any(|(_, batch)| in_batch(batch))
    }

    pub(super) fn owed(&self) -> Owed {
        let mut owed = Owed {
            computing: self.computing.iter().copied().collect(),
            ..Owed::default()
        };
        for job_id in self.journal.open_jobs() {
            let answered = self.journal.get(&job_id).is_some_and(|e| e.answer.is_some());
            if self.is_committed(&job_id) {
                owed.committed.push(job_id);
            } else if answered {
                owed.uncommitted.push(job_id);
            }
        }
        owed
    }

    /// Goes on for at most `grace` with what is computed and committed already, or until it is interrupted again. No other
    /// job is begun, and no answer waits for company.
    pub(super) async fn finish(&mut self, grace: Duration) -> Result<(), Failure> {
        self.is_ending = true;
        self.gathering.hurry();
        let ends = Instant::now() + grace;
        let first = self.owed();
        let waits = !first.computing.is_empty() || !first.uncommitted.is_empty();
        if waits && !grace.is_zero() {
            tracing::info!(
                computing = first.computing.len(),
                uncommitted = first.uncommitted.len(),
                "stopping within {} s: finishing what can still be committed; interrupt again to leave at once",
                grace.as_secs()
            );
        }
        let again = signalled();
        tokio::pin!(again);
        loop {
            let owed = self.owed();
            let left = ends.saturating_duration_since(Instant::now());
            if left.is_zero() || (owed.computing.is_empty() && owed.uncommitted.is_empty()) {
                break;
            }
            match self.look().await {
                Err(failure @ (Failure::Unreachable { .. } | Failure::Transaction { .. })) => {
                    tracing::warn!("{failure}");
                }
                looked => looked?,
            }
            tokio::select! {
                _ = &mut again => break,
                Some(done) = self.results.recv() => self.take(done)?,
                () = tokio::time::sleep(LOOK_EVERY.min(left)) => {}
            }
        }
        // What came with the last one.
        while let Ok(done) = self.results.try_recv() {
            self.take(done)?;
        }
        self.say(&self.owed());
        Ok(())
    }

    fn say(&self, owed: &Owed) {
        let list = |jobs: &[U256]| {
            let jobs: Vec<String> = jobs.iter().map(U256::to_string).collect();
            jobs.join(", ")
        };
        if !owed.computing.is_empty() {
            tracing::warn!(
                jobs = list(&owed.computing),
                "left without an answer: computed again at the next start; where their window ends before, part of the collateral is lost"
            );
        }
        if !owed.uncommitted.is_empty() {
            tracing::warn!(
                jobs = list(&owed.uncommitted),
                "answers not committed: they are in the journal, and committed at the next start within their window"
            );
        }
        if !owed.committed.is_empty() {
            tracing::info!(
                jobs = list(&owed.committed),
                "committed, and not paid yet: start again within their windows to reveal and be paid"
            );
        }
    }
}
