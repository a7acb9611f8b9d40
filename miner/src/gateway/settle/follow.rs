//! Posting and following: one look at every open record after the other, each decided from the chain alone.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use alloy::rpc::types::TransactionReceipt;
use alloy_primitives::{B256, U256};
use bitai_contracts::{JobStatus, SlotState, WorkerHub};
use tokio::time::Instant;

use super::book::{Book, Caps, Record, State};
use crate::{
    ask,
    chain::{
        Hub, Sender,
        hub::{state_of, status_of},
        send::{is_in_flight, is_nonce_used, is_too_cheap},
    },
    datadir::DataDir,
    exit::Failure,
    gateway::{compute::Answer, reply::Settlement},
    journal::Signed,
    models::Listed,
    stake,
};

/// How often the open records are looked at.
const POLL: Duration = Duration::from_millis(500);
/// Longest that a reply waits for a price.
const QUOTE_PATIENCE: Duration = Duration::from_secs(1);
/// How often what is not executed is sent again, and silence called out.
const NUDGE_EVERY: Duration = Duration::from_secs(10);
/// Refusals of a posting after which it is given up.
const TRIES_MAX: u32 = 8;
/// Looks in a row that must find a nonce used by others, and no receipt of ours, before a posting is signed anew.
const LOST_MIN: u32 = 5;
/// Neurons that a job asks for.
const NEURONS: u8 = 1;

/// What is known of a record beside its file; a restart may forget it.
#[derive(Default)]
struct Memory {
    /// When it was last sent again or called out.
    nudged: Option<Instant>,
    /// Refusals so far.
    tries: u32,
    /// Not looked at before.
    rest_until: Option<Instant>,
    /// Looks in a row that found the nonce used by others.
    lost: u32,
}

/// Settles answers as one account.
pub struct Settler {
    hub: Hub,
    sender: Sender,
    models: Vec<Listed>,
    book: Mutex<Book>,
}

impl Settler {
    /// Opens the account's book in the data directory, for jobs on `models`.
    pub fn open(
        data: &DataDir,
        hub: Hub,
        sender: Sender,
        models: Vec<Listed>,
        caps: Caps,
    ) -> Result<Self, Failure> {
        let whose = (hub.node().chain_id(), hub.address(), sender.address());
        let book = Mutex::new(Book::open(&data.root().join("gateway"), whose, caps)?);
        Ok(Self {
            hub,
            sender,
            models,
            book,
        })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Every change is a whole file first.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record as it stands.
    pub fn record(&self, id: &str) -> Option<Record> {
        self.book().get(id).cloned()
    }

    /// Takes an answer in; never fails the reply, since the answer itself is right.
    pub async fn admit(&self, model: &Listed, answer: &Answer) -> Settlement {
        let key = model.key();
        let price = ask::fee(&self.hub, &key, &answer.job, NEURONS);
        // A node that is slow or down is asked again behind.
        let fee = match tokio::time::timeout(QUOTE_PATIENCE, price).await {
            Ok(Ok(fee)) => Some(fee),
            _ => None,
        };
        let admitted = self.book().admit(&model.name, answer, fee);
        match admitted {
            Ok(Ok(id)) => Settlement::Pending { id, job_id: None },
            Ok(Err(reason)) => Settlement::Unsettled { reason },
            Err(failure) => {
                tracing::error!("an answer is not settled: {failure}");
                Settlement::Unsettled {
                    reason: format!("it could not be written down: {failure}"),
                }
            }
        }
    }

    /// Posts and follows until it is dropped.
    pub async fn follow(self: Arc<Self>) {
        let mut memories: BTreeMap<String, Memory> = BTreeMap::new();
        loop {
            let open = self.book().open_ids();
            memories.retain(|id, _| open.contains(id));
            for id in open {
                let memory = memories.entry(id.clone()).or_default();
                if memory.rest_until.is_some_and(|t| Instant::now() < t) {
                    continue;
                }
                if let Err(failure) = self.look(&id, memory).await {
                    self.failed(&id, memory, &failure);
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Rests a record that could not be moved; gives it up where nothing of it has left and it was refused too often.
    fn failed(&self, id: &str, memory: &mut Memory, failure: &Failure) {
        let down = matches!(failure, Failure::Unreachable { .. });
        memory.tries += u32::from(!down);
        let rest = Duration::from_secs(1 << memory.tries.min(5));
        memory.rest_until = Some(Instant::now() + rest);
        let given_up = memory.tries >= TRIES_MAX;
        tracing::warn!(id, "settling waits: {failure}");
        let noted = self.book().update(id, |r| {
            r.why = Some(failure.to_string());
            if given_up && r.sent.is_empty() {
                r.state = State::Refused;
            }
        });
        if let Err(e) = noted {
            tracing::error!(id, "{e}");
        }
    }

    fn note(&self, id: &str, signed: &Signed) -> Result<(), Failure> {
        self.book().update(id, |r| r.sent.push(signed.clone()))
    }

    /// One look at a record, and what follows from it.
    async fn look(&self, id: &str, memory: &mut Memory) -> Result<(), Failure> {
        let Some(record) = self.record(id) else {
            return Ok(());
        };
        if record.sent.is_empty() {
            return self.post(&record).await;
        }
        let Some(receipt) = self.receipt(&record).await? else {
            return self.push(&record, memory).await;
        };
        memory.lost = 0;
        let gas = U256::from(receipt.gas_used).saturating_mul(U256::from(receipt.effective_gas_price));
        let posted = receipt.inner.logs().iter().find_map(|log| {
            let event = log.log_decode::<WorkerHub::JobPosted>().ok()?;
            Some(event.inner.data.jobId)
        });
        let Some(job_id) = posted.filter(|_| receipt.status()) else {
            return self.book().update(id, |r| {
                r.gas = gas;
                r.state = State::Refused;
                r.why = Some(format!(
                    "the posting {} was executed and reverted",
                    receipt.transaction_hash
                ));
            });
        };
        self.stands(&record, memory, job_id, (receipt.transaction_hash, gas))
            .await
    }

    /// The receipt of whichever posting was executed. Asked each time: a reorg may take it back, or give the job another
    /// number.
    async fn receipt(&self, record: &Record) -> Result<Option<TransactionReceipt>, Failure> {
        for signed in &record.sent {
            let receipt = self.hub.node().receipt(signed.hash).await;
            if let Some(receipt) = receipt.map_err(|e| e.into_failure("reading a receipt"))? {
                return Ok(Some(receipt));
            }
        }
        Ok(None)
    }

    /// Posts a job; it is in its record, signed, before it leaves.
    async fn post(&self, record: &Record) -> Result<(), Failure> {
        let found = self.models.iter().find(|m| m.model_root == record.job.model_root);
        let key = found
            .ok_or_else(|| {
                Failure::Usage(format!(
                    "the model {} is not served any more; serve it again to settle this",
                    record.model
                ))
            })?
            .key();
        let fee = ask::fee(&self.hub, &key, &record.job, NEURONS).await?;
        if !self.book().reserve(&record.id, fee)? {
            tracing::warn!(id = record.id, "not settled: the spending cap is reached");
            return Ok(());
        }
        stake::check_balance(&self.hub, self.sender.address(), fee).await?;
        let call = self.hub.infer(&key, &record.job, NEURONS, fee);
        let signed = self
            .sender
            .send_noted(&call, &mut |signed| self.note(&record.id, signed))
            .await?;
        tracing::info!(id = record.id, tx = %signed.hash, "posted");
        self.book().update(&record.id, |r| r.why = None)
    }

    /// Sends again what has left and is not executed: the node may have lost it, or ask more by now. Where others have used
    /// its nonce it never will be, and is signed anew.
    async fn push(&self, record: &Record, memory: &mut Memory) -> Result<(), Failure> {
        if memory.nudged.is_some_and(|t| t.elapsed() < NUDGE_EVERY) && memory.lost == 0 {
            return Ok(());
        }
        memory.nudged = Some(Instant::now());
        let Some(last) = record.sent.last() else {
            return Ok(());
        };
        let failure = |e: crate::chain::node::Refusal| e.into_failure("posting a job");
        let waits = self.sender.waits(last).await.map_err(failure)?;
        if !waits {
            match self.sender.broadcast(last).await {
                Ok(()) => memory.lost = 0,
                Err(e) if is_in_flight(&e) => memory.lost = 0,
                Err(e) if is_nonce_used(&e) => {
                    memory.lost += 1;
                    if memory.lost >= LOST_MIN && self.receipt(record).await?.is_none() {
                        tracing::warn!(
                            id = record.id,
                            "its nonce went to another transaction; signed anew"
                        );
                        memory.lost = 0;
                        self.book().update(&record.id, |r| r.sent.clear())?;
                    }
                    return Ok(());
                }
                Err(e) if is_too_cheap(&e) => {}
                Err(e) => return Err(failure(e)),
            }
        }
        if let Some(dearer) = self.sender.dearer(last).await.map_err(failure)? {
            self.note(&record.id, &dearer)?;
            tracing::info!(id = record.id, tx = %dearer.hash, "the price has risen; paying more");
            match self.sender.broadcast(&dearer).await {
                Ok(()) => {}
                // The one before is on its way already.
                Err(e) if is_in_flight(&e) || is_nonce_used(&e) || is_too_cheap(&e) => {}
                Err(e) => return Err(failure(e)),
            }
        }
        Ok(())
    }

    /// Where a posted job stands, and at its end whether it is the same answer.
    async fn stands(
        &self,
        record: &Record,
        memory: &mut Memory,
        job_id: U256,
        (tx, gas): (B256, U256),
    ) -> Result<(), Failure> {
        let job = self.hub.job(job_id).await;
        let Some(job) = job.map_err(|e| e.into_failure("reading the job"))? else {
            return Ok(());
        };
        let status = status_of(&job);
        let mut settled_root = None;
        let (state, why) = match status {
            JobStatus::Challenge | JobStatus::Quarrel => (State::Revealed, None),
            JobStatus::Settled => {
                settled_root = self.paid_root(job_id).await?;
                match settled_root {
                    Some(root) if root == record.trace_root => (State::Settled, None),
                    Some(root) => {
                        let why = format!(
                            "given {:#x}, settled {root:#x}; bitai-miner verify {job_id} says which follows from the prompt",
                            record.trace_root
                        );
                        tracing::error!(id = record.id, job = %job_id, "MISMATCH: {why}");
                        (State::Mismatch, Some(why))
                    }
                    None => return Ok(()),
                }
            }
            JobStatus::Refunded => (
                State::Refunded,
                Some("nobody answered it in time; the fee came back".to_owned()),
            ),
            _ => (State::Posted, None),
        };
        if state.is_open() && memory.nudged.is_none_or(|t| t.elapsed() >= NUDGE_EVERY) {
            memory.nudged = Some(Instant::now());
            ask::call_out(&self.hub, &self.sender, job_id, job.deadline, status).await?;
        }
        if state != record.state {
            tracing::info!(id = record.id, job = %job_id, ?state, "settling");
        }
        self.book().update(&record.id, |r| {
            r.state = state;
            r.why = why;
            r.tx = Some(tx);
            r.gas = gas;
            r.job_id = Some(job_id);
            r.settled_root = settled_root;
        })
    }

    /// The root of the answer that was paid: whoever was convicted has revealed as well.
    async fn paid_root(&self, job_id: U256) -> Result<Option<B256>, Failure> {
        let revealed = self.hub.revealed(job_id).await;
        for one in revealed.map_err(|e| e.into_failure("reading the answers"))? {
            let slot = self.hub.slot(job_id, one.neuron).await;
            let slot = slot.map_err(|e| e.into_failure("reading a slot"))?;
            if state_of(&slot) == SlotState::Paid {
                return Ok(Some(one.trace_root));
            }
        }
        Ok(None)
    }
}
