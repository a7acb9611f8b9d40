//! A validator's re-checks: every answer that can be disputed is computed again, one at a time beside the games. An
//! answer counts as looked at once something was found; where the own engine fails it is tried again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use alloy_primitives::{Address, B256, U256};
use bitai_contracts::{JobStatus, SlotState};
use bitai_model::pack::Pack;
use bitai_poc::{dispute::Claim, model_shape};
use tokio::task::JoinHandle;

use super::{
    challenge::{Doubter, Mover, RETRY_AFTER},
    shelf::Shelf,
    validate::{Finding, Line},
};
use crate::{
    chain::{
        Hub, Refusal, Verifier,
        hub::{Revealed, state_of, status_of},
    },
    exit::Failure,
};

/// One answer: job, neuron, root.
pub(super) type Answer = (U256, Address, B256);
/// A wrong claim with its pack, the height of its job, and who decides the moves about it.
pub(super) type Wrong = (Claim, Pack, u64, Mover);

/// A finished check.
pub(super) struct Checked {
    pub(super) line: Line,
    pub(super) wrong: Option<Wrong>,
}

/// An answer that waits for its check.
struct Waiting {
    revealed: Revealed,
    height: u64,
    again_at: Option<Instant>,
    /// The last failure: said once.
    said: Option<String>,
}

/// Re-checks under way and to come.
pub(super) struct Checks {
    verifier: Verifier,
    shelf: Arc<Shelf>,
    doubter: Doubter,
    waiting: BTreeMap<Answer, Waiting>,
    /// Answers that were looked at, with the heights of their reveals.
    seen: BTreeMap<Answer, u64>,
    work: Option<(Answer, JoinHandle<Result<Found, Failure>>)>,
    /// Models that are not in the book of programs: said once.
    unknown: BTreeSet<B256>,
}

/// What a computation found.
enum Found {
    Right,
    Wrong(Box<Wrong>),
    Unable(String),
}

/// Whether a job's answers can be disputed.
enum Disputable {
    Now,
    Later,
    Never,
}

impl Checks {
    pub(super) fn new(verifier: Verifier, shelf: Arc<Shelf>, doubter: Doubter) -> Self {
        Self {
            verifier,
            shelf,
            doubter,
            waiting: BTreeMap::new(),
            seen: BTreeMap::new(),
            work: None,
            unknown: BTreeSet::new(),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// An answer to be checked, unless it was.
    pub(super) fn put(&mut self, job_id: U256, revealed: Revealed, height: u64) {
        let answer = (job_id, revealed.neuron, revealed.trace_root);
        if let Some(at) = self.seen.get_mut(&answer) {
            *at = height;
            return;
        }
        let fresh = |revealed| Waiting {
            revealed,
            height,
            again_at: None,
            said: None,
        };
        self.waiting.entry(answer).or_insert_with(|| fresh(revealed));
    }

    /// Nothing is left to check of an answer.
    pub(super) fn done(&mut self, answer: Answer, height: u64) {
        let height = self.waiting.remove(&answer).map_or(height, |w| w.height);
        self.seen.insert(answer, height);
    }

    /// Forgets answers that nobody reads again.
    pub(super) fn forget_below(&mut self, height: u64) {
        self.seen.retain(|_, at| *at >= height);
    }

    /// Takes in what was computed, or begins the next check.
    pub(super) async fn look(&mut self, height: u64) -> Result<Option<Checked>, Failure> {
        match self.work.take() {
            Some((answer, work)) if work.is_finished() => {
                let found = work.await.unwrap_or_else(|e| {
                    Err(Failure::Device(format!(
                        "computing an answer again ended by itself: {e}"
                    )))
                });
                Ok(self.conclude(answer, height, found))
            }
            Some(work) => {
                self.work = Some(work);
                Ok(None)
            }
            None => {
                let now = Instant::now();
                let due = |w: &Waiting| w.again_at.is_none_or(|at| at <= now);
                let waiting = self.waiting.iter().filter(|(_, w)| due(w));
                let answers: Vec<Answer> = waiting.map(|(answer, _)| *answer).collect();
                for answer in answers {
                    match self.begin(answer, height).await {
                        Ok(Some(found)) => return Ok(self.conclude(answer, height, Ok(found))),
                        Ok(None) if self.work.is_some() => break,
                        Ok(None) => {}
                        Err(failure @ Failure::Unreachable { .. }) => return Err(failure),
                        Err(failure) => return Ok(self.conclude(answer, height, Err(failure))),
                    }
                }
                Ok(None)
            }
        }
    }

    /// Begins to check an answer that can be disputed now; gives what is found without computing.
    async fn begin(&mut self, answer: Answer, height: u64) -> Result<Option<Found>, Failure> {
        let (job_id, neuron, _) = answer;
        let hub = self.verifier.hub().clone();
        let Some(waiting) = self.waiting.get(&answer) else {
            return Ok(None);
        };
        match disputable(&hub, answer, height).await? {
            Disputable::Later => return Ok(None),
            Disputable::Never => {
                self.done(answer, height);
                return Ok(None);
            }
            Disputable::Now => {}
        }
        let posted = hub.find(job_id).await?;
        let claim = Claim {
            chain_id: hub.node().chain_id(),
            hub: hub.address(),
            job_id,
            neuron,
            job: posted.job,
            outputs: waiting.revealed.output_ids.clone(),
            root: waiting.revealed.trace_root.into(),
        };
        let root = claim.job.model_root;
        let fail = |e: Refusal| e.into_failure("reading the book of programs");
        let is_known = self.verifier.knows(root).await.map_err(fail)?;
        if !is_known && self.unknown.insert(root) {
            tracing::warn!(
                %root,
                "no game is opened about this model: its program is not in the book of programs, so the contract refuses one"
            );
        }
        let (shelf, doubter, posted) = (Arc::clone(&self.shelf), Arc::clone(&self.doubter), posted.height);
        let work = tokio::task::spawn_blocking(move || {
            let pack = match shelf.pack(root) {
                Ok(pack) => pack,
                Err(failure) => return Ok(Found::Unable(failure.to_string())),
            };
            if model_shape(&pack.program()).embeds() {
                return Ok(Found::Unable("embeddings have no disputes yet".into()));
            }
            if !is_known {
                return Ok(Found::Unable("its program is not in the book of programs".into()));
            }
            match doubter(&claim) {
                Ok((true, _)) => Ok(Found::Right),
                Ok((false, mover)) => Ok(Found::Wrong(Box::new((claim, pack, posted, mover)))),
                // An answer that no honest run can end with: the hub took it, so it is malformed only for this pack.
                Err(Failure::Job(e)) => Ok(Found::Unable(format!("no job for this pack: {e}"))),
                Err(failure) => Err(failure),
            }
        });
        self.work = Some((answer, work));
        Ok(None)
    }

    /// Notes what was found, or when to try again.
    fn conclude(&mut self, answer: Answer, height: u64, found: Result<Found, Failure>) -> Option<Checked> {
        let (job_id, neuron, _) = answer;
        let (finding, wrong) = match found {
            Ok(Found::Right) => (Finding::Right, None),
            Ok(Found::Wrong(wrong)) => (Finding::Wrong, Some(*wrong)),
            Ok(Found::Unable(why)) => (Finding::Unable(why), None),
            Err(failure) => {
                if let Some(waiting) = self.waiting.get_mut(&answer) {
                    let words = failure.to_string();
                    if waiting.said.as_ref() != Some(&words) {
                        tracing::error!(job = %job_id, %neuron, "not checked yet: {words}");
                        waiting.said = Some(words);
                    }
                    waiting.again_at = Some(Instant::now() + RETRY_AFTER);
                }
                return None;
            }
        };
        self.done(answer, height);
        Some(Checked {
            line: Line {
                job_id,
                neuron,
                finding,
            },
            wrong,
        })
    }
}

/// Whether an answer can be disputed in the block above `height`.
async fn disputable(hub: &Hub, (job_id, neuron, root): Answer, height: u64) -> Result<Disputable, Failure> {
    let fail = |e: Refusal| e.into_failure("reading a job");
    let Some(job) = hub.job(job_id).await.map_err(fail)? else {
        return Ok(Disputable::Never);
    };
    let slot = hub.slot(job_id, neuron).await.map_err(fail)?;
    let stands = state_of(&slot) == SlotState::Revealed && slot.traceRoot == root;
    Ok(match status_of(&job) {
        JobStatus::Challenge | JobStatus::Quarrel if stands && height < job.deadline => Disputable::Now,
        JobStatus::Revealing if stands => Disputable::Later,
        _ => Disputable::Never,
    })
}
