//! What a neuron does next for a job: decided by where the chain says that the job stands, never by memory.

use alloy_primitives::{B256, U256, keccak256};
use bitai_contracts::{JobStatus, SlotState};
use bitai_types::job::{commit_hash, ids_hash};

use super::{
    Neuron,
    batch::{Found, Ready},
};
use crate::{
    chain::{
        Refusal,
        hub::{state_of, status_of},
        send::{Call, RAISES_MAX, is_in_flight, is_nonce_used, is_too_cheap},
    },
    exit::Failure,
    journal::{Closed, Signed, Step},
};
use bitai_types::rpc::InscriptionStage;

/// What a job needs now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing that this neuron could do.
    Wait,
    /// The answer, then its commitment.
    Commit,
    /// The answer published.
    Reveal,
    /// The end.
    Finalise,
    /// Somebody was silent for too long.
    Timeout,
    /// It is over.
    Close(&'static str),
}

/// Where a job stands, as far as the decision needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// The job's state.
    pub status: JobStatus,
    /// This neuron's part.
    pub slot: SlotState,
    /// Whether a draw made now would include this neuron.
    pub drawn: bool,
    /// Newest executed height; a transaction sent now executes above it.
    pub height: u64,
    /// Last height of the current window.
    pub deadline: u64,
    /// Disputes that block payment.
    pub disputes: u32,
}

/// The decision.
pub(super) fn next(s: Standing) -> Next {
    let over = s.height >= s.deadline;
    match (s.status, s.slot) {
        (JobStatus::None, _) => Next::Wait,
        (JobStatus::Settled, SlotState::Paid) => Next::Close("paid"),
        (JobStatus::Settled, _) => Next::Close("settled"),
        (JobStatus::Refunded, _) => Next::Close("refunded"),
        // Whoever is out of a job is never drawn for it again.
        (_, SlotState::Failed) => Next::Close("lost: silent or convicted"),
        // Open again after a redraw keeps whoever had committed; only the drawn commit.
        (JobStatus::Open, SlotState::None) if s.drawn => Next::Commit,
        (JobStatus::Committing, SlotState::Assigned) if !over => Next::Commit,
        (JobStatus::Revealing, SlotState::Committed) if !over => Next::Reveal,
        (JobStatus::Committing, SlotState::Committed) if over => Next::Timeout,
        (JobStatus::Revealing, SlotState::Revealed) if over => Next::Timeout,
        (JobStatus::Challenge | JobStatus::Quarrel, SlotState::Revealed) if over && s.disputes == 0 => {
            Next::Finalise
        }
        _ => Next::Wait,
    }
}

impl Neuron {
    /// The secret that hides an answer until its reveal. Derived, not drawn: even a neuron that lost its
    /// journal computes the same answer, and with the same salt it can still reveal.
    pub(super) fn salt(&self, job_id: U256) -> B256 {
        self.derived(b"bitai/salt/v0", &job_id.to_be_bytes::<32>())
    }

    /// A secret that only this key has, on this chain and hub, for `what`.
    pub(super) fn derived(&self, purpose: &[u8], what: &[u8]) -> B256 {
        let mut secret = purpose.to_vec();
        secret.extend_from_slice(self.sender.signer().to_bytes().as_slice());
        secret.extend_from_slice(&self.hub.node().chain_id().to_be_bytes());
        secret.extend_from_slice(self.hub.address().as_slice());
        secret.extend_from_slice(what);
        keccak256(secret)
    }

    /// Looks at one job and does what it needs, or tells which step is to be taken for it.
    pub(super) async fn advance(
        &mut self,
        job_id: U256,
        height: u64,
        found: &mut Found,
    ) -> Result<(), Failure> {
        let fail = |e: Refusal| e.into_failure("reading a job");
        let me = self.sender.address();
        let Some(entry) = self.journal.get(&job_id).cloned() else {
            return Ok(());
        };
        let Some(job) = self.hub.job(job_id).await.map_err(fail)? else {
            return Ok(());
        };
        if job.jobHash != entry.job.hash() {
            // A reorg gave the number to another job; `watch` replaces the entry when it reads the event.
            return Ok(());
        }
        let slot = self.hub.slot(job_id, me).await.map_err(fail)?;
        let status = status_of(&job);
        let drawn = status == JobStatus::Open && self.hub.drawn(job_id).await.map_err(fail)?.contains(&me);
        let standing = Standing {
            status,
            slot: state_of(&slot),
            drawn,
            height,
            deadline: job.deadline,
            disputes: job.openDisputes,
        };
        found.status.insert(job_id, status);
        let what = next(standing);
        let mut ready = |step: Step, lead: U256| {
            let own = entry.sent.get(&step);
            found.ready.push(Ready {
                job_id,
                step,
                attempt: job.attempt,
                job_hash: job.jobHash,
                deadline: job.deadline,
                committed: slot.commitment,
                lead,
                alone: own.is_some_and(|old| old.attempt == job.attempt),
            });
        };
        if !matches!(what, Next::Commit | Next::Reveal) {
            self.recall(job_id);
        }
        match what {
            Next::Wait => self.leave_if_too_late(job_id, standing),
            Next::Close(why) => {
                if standing.slot == SlotState::Paid {
                    tracing::info!(job = %job_id, share_wei = %job.share, "paid");
                }
                let earned = (standing.slot == SlotState::Paid).then(|| job.share.to());
                self.monitor.closed(job_id, why, earned);
                self.journal.update(&job_id, |e| {
                    e.closed = Some(Closed {
                        why: why.to_owned(),
                        height,
                    })
                })
            }
            Next::Commit | Next::Reveal if entry.answer.is_none() => {
                self.compute(job_id, &entry.job, job.deadline)
            }
            Next::Commit => {
                ready(Step::Commit, job_id);
                Ok(())
            }
            Next::Reveal => {
                let (lead, _) = self.hub.committed_at(job_id, me).await.map_err(fail)?;
                ready(Step::Reveal, lead);
                Ok(())
            }
            Next::Finalise => {
                ready(Step::Finalise, job_id);
                Ok(())
            }
            Next::Timeout => {
                self.submit(job_id, Step::Timeout, job.attempt, self.hub.timeout(job_id))
                    .await
            }
        }
    }

    /// What this neuron commits to for a job under a salt, once it has the answer.
    pub(super) fn leaf(&self, job_id: U256, salt: B256) -> Option<B256> {
        let answer = self.journal.get(&job_id)?.answer.as_ref()?;
        Some(commit_hash(
            self.hub.node().chain_id(),
            self.hub.address(),
            job_id,
            self.sender.address(),
            salt,
            answer.trace_root,
            ids_hash(&answer.output_ids),
        ))
    }

    /// Sends a step: the bytes that were signed before as long as they can still execute, new ones otherwise.
    /// What is signed is in the journal before it leaves.
    pub(super) async fn submit(
        &mut self,
        job_id: U256,
        step: Step,
        attempt: u8,
        call: Call,
    ) -> Result<(), Failure> {
        let node = std::sync::Arc::clone(self.hub.node());
        let old = self.journal.get(&job_id).and_then(|e| e.sent.get(&step)).cloned();
        let mut raises = 0;
        let mut nonce = None;
        if let Some(old) = old.filter(|old| old.attempt == attempt) {
            let fail = |e: Refusal| e.into_failure("looking for a transaction");
            if let Some(receipt) = node.receipt(old.hash).await.map_err(fail)? {
                if receipt.status() {
                    // Executed: the state shows it at the next look.
                    return Ok(());
                }
                tracing::warn!(job = %job_id, %step, tx = %old.hash, "reverted; trying again");
            } else {
                let mut is_behind_a_gap = false;
                match node.inscription(old.hash).await.map_err(fail)?.map(|w| w.stage) {
                    Some(InscriptionStage::Broadcast) => return Ok(()),
                    Some(InscriptionStage::Mempool) if !self.waits_behind_a_gap(&old).await? => {
                        return self.pay_more(job_id, step, old).await;
                    }
                    // It would wait for ever: signed anew at the free nonce, below.
                    Some(InscriptionStage::Mempool) => is_behind_a_gap = true,
                    _ => {}
                }
                if is_behind_a_gap {
                    tracing::warn!(job = %job_id, %step, tx = %old.hash, "a transaction before it was let go; signing anew");
                } else {
                    match self.sender.broadcast(&old).await {
                        Ok(()) => {
                            tracing::info!(job = %job_id, %step, tx = %old.hash, "sent again");
                            return Ok(());
                        }
                        Err(e) if is_nonce_used(&e) => {}
                        // The cheaper one of this nonce is on its way to Bitcoin, and does the same.
                        Err(e) if is_in_flight(&e) => return Ok(()),
                        Err(e) if is_too_cheap(&e) => {
                            raises = 1;
                            nonce = Some(old.nonce);
                        }
                        Err(e) => return self.refused(job_id, step, e),
                    }
                }
            }
        }
        // The seat that answers disputes sends with this key, too.
        let sender = self.sender.clone();
        let _turn = sender.turn().await;
        let nonce = match nonce {
            Some(nonce) => nonce,
            None => match node.nonce(self.sender.address(), "pending").await {
                Ok(nonce) => nonce,
                Err(e) => return self.refused(job_id, step, e),
            },
        };
        loop {
            let mut signed = match self.sender.sign(&call, nonce, raises).await {
                Ok(signed) => signed,
                Err(e) => return self.refused(job_id, step, e),
            };
            signed.attempt = attempt;
            self.journal.update(&job_id, |e| {
                e.sent.insert(step, signed.clone());
            })?;
            match self.sender.broadcast(&signed).await {
                Ok(()) => {
                    tracing::info!(job = %job_id, %step, tx = %signed.hash, "sent");
                    self.monitor.sent(step, &[job_id]);
                    return Ok(());
                }
                Err(e) if raises < RAISES_MAX && is_too_cheap(&e) => raises += 1,
                Err(e) => return self.refused(job_id, step, e),
            }
        }
    }

    /// Whether a transaction in the mempool stands behind a nonce that nothing there has any more: one before it was let
    /// go, and it could never be executed.
    pub(super) async fn waits_behind_a_gap(&self, signed: &Signed) -> Result<bool, Failure> {
        let free = self.hub.node().nonce(self.sender.address(), "pending").await;
        Ok(free.map_err(|e| e.into_failure("reading the nonce"))? < signed.nonce)
    }

    /// Replaces a transaction that waits in the mempool where the price has risen above what it pays. The dearer
    /// one is in the journal before it leaves; should the node refuse it, the old one stands there again.
    pub(super) async fn pay_more(&mut self, job_id: U256, step: Step, old: Signed) -> Result<(), Failure> {
        let dearer = match self.sender.dearer(&old).await {
            Ok(Some(dearer)) => dearer,
            Ok(None) => return Ok(()),
            Err(e) => return self.refused(job_id, step, e),
        };
        self.journal.update(&job_id, |e| {
            e.sent.insert(step, dearer.clone());
        })?;
        match self.sender.broadcast(&dearer).await {
            Ok(()) => {
                tracing::info!(job = %job_id, %step, tx = %dearer.hash, "the price has risen; paying more");
                Ok(())
            }
            // Nobody knows whether it arrived: the next look sends it again.
            Err(e @ Refusal::Down(_)) => self.refused(job_id, step, e),
            Err(e) => {
                self.journal.update(&job_id, |entry| {
                    entry.sent.insert(step, old);
                })?;
                if is_in_flight(&e) {
                    return Ok(());
                }
                self.refused(job_id, step, e)
            }
        }
    }

    /// A refusal is no end: the state may be read a moment too early, and the next look decides anew.
    fn refused(&self, job_id: U256, step: Step, refusal: Refusal) -> Result<(), Failure> {
        match refusal {
            Refusal::Down(failure) => Err(failure),
            said => {
                let said = said.into_failure("node");
                self.monitor.refused(job_id, &said);
                tracing::warn!(job = %job_id, %step, "refused: {said}");
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(status: JobStatus, slot: SlotState) -> Standing {
        Standing {
            status,
            slot,
            drawn: false,
            height: 5,
            deadline: 10,
            disputes: 0,
        }
    }

    #[test]
    fn a_job_goes_from_draw_to_pay() {
        use {JobStatus as J, SlotState as S};
        assert_eq!(next(at(J::Open, S::None)), Next::Wait);
        assert_eq!(
            next(Standing {
                drawn: true,
                ..at(J::Open, S::None)
            }),
            Next::Commit
        );
        assert_eq!(next(at(J::Committing, S::Assigned)), Next::Commit);
        assert_eq!(next(at(J::Committing, S::Committed)), Next::Wait);
        assert_eq!(next(at(J::Revealing, S::Committed)), Next::Reveal);
        assert_eq!(next(at(J::Revealing, S::Revealed)), Next::Wait);
        assert_eq!(next(at(J::Challenge, S::Revealed)), Next::Wait);
        assert_eq!(
            next(Standing {
                height: 10,
                ..at(J::Challenge, S::Revealed)
            }),
            Next::Finalise
        );
        assert_eq!(next(at(J::Settled, S::Paid)), Next::Close("paid"));
    }

    #[test]
    fn never_pays_under_dispute_nor_commits_after_the_window() {
        use {JobStatus as J, SlotState as S};
        let late = |status, slot| Standing {
            height: 10,
            ..at(status, slot)
        };
        assert_eq!(
            next(Standing {
                disputes: 1,
                ..late(J::Challenge, S::Revealed)
            }),
            Next::Wait
        );
        assert_eq!(next(late(J::Committing, S::Assigned)), Next::Wait);
        assert_eq!(next(late(J::Revealing, S::Committed)), Next::Wait);
    }

    #[test]
    fn those_who_did_their_part_call_out_the_silent() {
        use {JobStatus as J, SlotState as S};
        let late = |status, slot| Standing {
            height: 10,
            ..at(status, slot)
        };
        assert_eq!(next(late(J::Committing, S::Committed)), Next::Timeout);
        assert_eq!(next(late(J::Revealing, S::Revealed)), Next::Timeout);
        assert_eq!(next(late(J::Committing, S::None)), Next::Wait);
    }
}
