//! What was given an asker and is to be settled: a file a job, written before the reply says so and before anything leaves.
//!
//! A posting is in its record as signed before the node sees it. A process that dies between the two finds it there and sends
//! the same bytes again, which execute once; one that dies after the node took it finds the receipt. So nothing is lost
//! and nothing is paid twice.

use std::{collections::BTreeMap, fs, path::Path, path::PathBuf};

use alloy_primitives::{Address, B256, U256};
use bitai_types::Job;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    datadir::{Lock, make_dir, write_atomic},
    exit::Failure,
    gateway::{api::now, compute::Answer},
    journal::Signed,
};

/// Version of the files.
const VERSION: u32 = 1;
/// Seconds of a day; days are counted in UTC.
const DAY_S: u64 = 86_400;

/// Where an answer stands with the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// To be posted, or posted and not yet executed.
    Pending,
    /// The hub has the job; neurons are drawn and commit.
    Posted,
    /// An answer is public and may be disputed.
    Revealed,
    /// Paid, with the root that was given.
    Settled,
    /// Paid, with another root: what was given here or what was paid there is wrong.
    Mismatch,
    /// Nobody answered; the fee came back.
    Refunded,
    /// The hub would not have it.
    Refused,
    /// It would have cost more than may be spent.
    Unsettled,
}

impl State {
    /// Whether something is left to do.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Posted | Self::Revealed)
    }
}

/// One answer's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Of the file.
    pub version: u32,
    /// Its id.
    pub id: String,
    /// When it was answered, seconds since 1970.
    pub created: u64,
    /// The model's name here.
    pub model: String,
    /// What was computed, and is posted.
    pub job: Job,
    /// The root that was given.
    pub trace_root: B256,
    /// Where it stands.
    pub state: State,
    /// What holds it up, or how it ended.
    pub why: Option<String>,
    /// Wei set aside for it, or paid.
    pub fee: Option<U256>,
    /// Wei paid for the posting's gas.
    #[serde(default)]
    pub gas: U256,
    /// Everything that was signed to post it; all of one nonce, or of nonces that others have used.
    #[serde(default)]
    pub sent: Vec<Signed>,
    /// The transaction that posted it.
    pub tx: Option<B256>,
    /// Its number on chain.
    pub job_id: Option<U256>,
    /// The root that the chain settled.
    pub settled_root: Option<B256>,
}

impl Record {
    fn day(&self) -> u64 {
        self.created / DAY_S
    }

    /// Wei that it has cost or may cost.
    fn cost(&self) -> U256 {
        let fee = match self.state {
            State::Refunded | State::Refused | State::Unsettled => U256::ZERO,
            _ => self.fee.unwrap_or_default(),
        };
        fee.saturating_add(self.gas)
    }

    /// What `GET /v1/bitai/jobs/{id}` says of it.
    pub fn told(&self) -> Value {
        json!({
            "object": "bitai.job",
            "id": self.id,
            "state": self.state,
            "reason": self.why,
            "created": self.created,
            "model": self.model,
            "model_root": self.job.model_root,
            "job_hash": self.job.hash(),
            "trace_root": self.trace_root,
            "settled_root": self.settled_root,
            "job_id": self.job_id.map(|id| id.to_string()),
            "tx": self.tx,
            "fee": self.fee.map(|fee| fee.to_string()),
        })
    }
}

/// What may be spent, fees and gas together, in wei; nothing named is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caps {
    /// In a day (UTC).
    pub day: Option<U256>,
    /// In all, since the files began.
    pub total: Option<U256>,
}

/// The records of one account on one chain and hub; locked while open.
#[derive(Debug)]
pub struct Book {
    dir: PathBuf,
    records: BTreeMap<String, Record>,
    caps: Caps,
    _lock: Lock,
}

impl Book {
    /// Opens (or begins) the book below `root`. A file that cannot be read is an error: what it may still cost is not known.
    pub fn open(
        root: &Path,
        (chain_id, hub, who): (u64, Address, Address),
        caps: Caps,
    ) -> Result<Self, Failure> {
        let dir = root.join(format!("{chain_id}-{}-{}", hex::encode(hub), hex::encode(who)));
        make_dir(&dir)?;
        let lock = Lock::take(&dir)?;
        let mut records = BTreeMap::new();
        for file in fs::read_dir(&dir).map_err(|e| Failure::disk(&dir, e))? {
            let path = file.map_err(|e| Failure::disk(&dir, e))?.path();
            let name = path
                .file_name()
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_default();
            if name.starts_with('.') && name.ends_with(".tmp") {
                // Half-written by a process that died: the file it was to replace is still whole.
                let _ = fs::remove_file(&path);
                continue;
            }
            let Some(id) = name.strip_prefix("answer-").and_then(|n| n.strip_suffix(".json")) else {
                continue;
            };
            let text = fs::read(&path).map_err(|e| Failure::disk(&path, e))?;
            let record: Record = serde_json::from_slice(&text)
                .map_err(|e| Failure::disk(&path, format!("{e}; move it away if it can be missed")))?;
            if record.version != VERSION || record.id != id {
                return Err(Failure::disk(&path, "belongs to another version; move it away"));
            }
            records.insert(record.id.clone(), record);
        }
        Ok(Self {
            dir,
            records,
            caps,
            _lock: lock,
        })
    }

    /// Takes an answer in, with its fee where that is known; it is on disk when this returns. Where it would cost more than
    /// may be spent nothing is kept, and the words say so.
    pub fn admit(
        &mut self,
        model: &str,
        answer: &Answer,
        fee: Option<U256>,
    ) -> Result<Result<String, String>, Failure> {
        let created = now();
        if let Some(over) = self.over(created / DAY_S, fee.unwrap_or_default(), None) {
            return Ok(Err(over));
        }
        let id = format!("{:016x}", rand::random::<u64>());
        self.put(Record {
            version: VERSION,
            id: id.clone(),
            created,
            model: model.to_owned(),
            job: answer.job.clone(),
            trace_root: answer.trace_root,
            state: State::Pending,
            why: None,
            fee,
            gas: U256::ZERO,
            sent: Vec::new(),
            tx: None,
            job_id: None,
            settled_root: None,
        })?;
        Ok(Ok(id))
    }

    /// Why `fee` more, beside everything but the record `but`, is too much.
    fn over(&self, day: u64, fee: U256, but: Option<&str>) -> Option<String> {
        let spent = |of_day: bool| {
            self.records
                .values()
                .filter(|r| Some(r.id.as_str()) != but && (!of_day || r.day() == day))
                .fold(U256::ZERO, |sum, r| sum.saturating_add(r.cost()))
        };
        // A cap that is used up is reached also where the next fee is not known.
        let above = |cap: U256, spent: U256| spent >= cap || spent.saturating_add(fee) > cap;
        for (name, cap, of_day) in [
            ("max_spend_day", self.caps.day, true),
            ("max_spend", self.caps.total, false),
        ] {
            if let Some(cap) = cap {
                let spent = spent(of_day);
                if above(cap, spent) {
                    return Some(format!(
                        "{name} is reached: {spent} of {cap} wei are spent or set aside, and this would be {fee} more"
                    ));
                }
            }
        }
        None
    }

    /// Sets a fee aside for a record that is about to be posted. Where that is too much it ends unsettled, and this is false.
    pub fn reserve(&mut self, id: &str, fee: U256) -> Result<bool, Failure> {
        let Some(record) = self.records.get(id) else {
            return Ok(false);
        };
        // A fee that falls needs no leave: it was set aside already.
        let over = if record.fee.is_some_and(|set_aside| fee <= set_aside) {
            None
        } else {
            self.over(record.day(), fee, Some(id))
        };
        self.update(id, |r| match &over {
            None => r.fee = Some(fee),
            Some(why) => {
                r.state = State::Unsettled;
                r.why = Some(why.clone());
            }
        })?;
        Ok(over.is_none())
    }

    /// A record.
    pub fn get(&self, id: &str) -> Option<&Record> {
        self.records.get(id)
    }

    /// Those with something left to do, the oldest first.
    pub fn open_ids(&self) -> Vec<String> {
        let mut open: Vec<&Record> = self.records.values().filter(|r| r.state.is_open()).collect();
        open.sort_by_key(|r| r.created);
        open.into_iter().map(|r| r.id.clone()).collect()
    }

    /// Changes a record and writes it; when this returns it survives the machine.
    pub fn update(&mut self, id: &str, change: impl FnOnce(&mut Record)) -> Result<(), Failure> {
        let Some(mut record) = self.records.get(id).cloned() else {
            return Ok(());
        };
        change(&mut record);
        if self.records.get(id) == Some(&record) {
            return Ok(());
        }
        self.put(record)
    }

    fn put(&mut self, record: Record) -> Result<(), Failure> {
        let path = self.dir.join(format!("answer-{}.json", record.id));
        let bytes = serde_json::to_vec_pretty(&record).map_err(|e| Failure::disk(&path, e))?;
        write_atomic(&path, &bytes, 0o600)?;
        self.records.insert(record.id.clone(), record);
        Ok(())
    }
}

#[cfg(test)]
#[path = "../tests/book.rs"]
mod tests;
