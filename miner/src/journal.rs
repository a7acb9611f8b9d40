//! What the neuron has done for each job, on disk before it acts: computed answers and signed transactions.
//!
//! One JSON file a job, written atomically. The chain decides where a job stands; the journal only makes sure
//! that an answer is not computed twice and that a step is re-sent byte for byte instead of signed anew, so a
//! process that dies between any two instructions neither loses an answer nor pays for a step twice.

use std::{collections::BTreeMap, fs, path::PathBuf};

use alloy_primitives::{Address, B256, Bytes, U256};
use bitai_types::Job;
use serde::{Deserialize, Serialize};

use crate::{
    datadir::{Lock, make_dir, write_atomic},
    exit::Failure,
};

/// Version of the journal's files.
pub const VERSION: u32 = 1;

/// The steps that a neuron sends for a job, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Bind the answer, unreadable.
    Commit,
    /// Publish the answer.
    Reveal,
    /// Close the job after the challenge window and be paid.
    Finalise,
    /// Act on somebody's silence.
    Timeout,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Commit => "commit",
            Self::Reveal => "reveal",
            Self::Finalise => "finalise",
            Self::Timeout => "timeout",
        })
    }
}

/// A transaction as signed; `raw` can be sent any number of times and executes once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// Its hash.
    pub hash: B256,
    /// Its nonce.
    pub nonce: u64,
    /// The job's draw that it belongs to, counted from 0: a redraw makes it stale.
    pub attempt: u8,
    /// EIP-2718 bytes.
    pub raw: Bytes,
}

/// A transaction for many jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// [`VERSION`].
    pub version: u32,
    /// What it does.
    pub step: Step,
    /// Its jobs, in their order.
    pub jobs: Vec<U256>,
    /// What each is committed to; of a commit alone. What lies under its root is revealed from here.
    pub leaves: Vec<B256>,
    /// The newest that was signed for it.
    pub signed: Signed,
    /// Set once it executed or never will: what its jobs still need goes alone.
    pub over: bool,
}

impl Batch {
    /// A batch that has not left yet.
    pub fn new(step: Step, jobs: Vec<U256>, leaves: Vec<B256>, signed: Signed) -> Self {
        Self {
            version: VERSION,
            step,
            jobs,
            leaves,
            signed,
            over: false,
        }
    }
}

/// A computed answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Output ids.
    pub output_ids: Vec<u32>,
    /// Root over everything computed.
    pub trace_root: B256,
    /// The encoded transcript, to answer a challenge with.
    pub transcript: Bytes,
}

/// One job's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// [`VERSION`].
    pub version: u32,
    /// Chain that the job is on.
    pub chain_id: u64,
    /// Hub that holds it.
    pub hub: Address,
    /// Its number.
    pub job_id: U256,
    /// What is asked.
    pub job: Job,
    /// The answer, once computed.
    pub answer: Option<Answer>,
    /// The newest signed transaction of each step.
    #[serde(default)]
    pub sent: BTreeMap<Step, Signed>,
    /// Set when nothing is left to do.
    pub closed: Option<Closed>,
}

/// Why nothing is left to do for a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// The reason.
    pub why: String,
    /// Height at which it was seen: a reorg below it opens the job again.
    pub height: u64,
}

impl Entry {
    /// A job of which nothing is done yet.
    pub fn new(chain_id: u64, hub: Address, job_id: U256, job: Job) -> Self {
        Self {
            version: VERSION,
            chain_id,
            hub,
            job_id,
            job,
            answer: None,
            sent: BTreeMap::new(),
            closed: None,
        }
    }
}

/// An answer with this trace root in any journal below `root` of this chain and hub, whoever keeps it. Read
/// without the lock: files are replaced whole. What cannot be read is not there.
pub fn answer(
    root: &std::path::Path,
    chain_id: u64,
    hub: Address,
    job_id: U256,
    trace_root: B256,
) -> Option<Answer> {
    let prefix = format!("{chain_id}-{}-", hex::encode(hub));
    fs::read_dir(root).ok()?.find_map(|dir| {
        let dir = dir.ok()?;
        if !dir.file_name().to_string_lossy().starts_with(&prefix) {
            return None;
        }
        let text = fs::read(dir.path().join(format!("job-{job_id}.json"))).ok()?;
        let entry: Entry = serde_json::from_slice(&text).ok()?;
        entry.answer.filter(|a| a.trace_root == trace_root)
    })
}

/// How far the chain's events were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Next height to read.
    pub next_height: u64,
    /// Hash of the block before it, to notice a reorg.
    pub parent: B256,
}

/// The journal of one account on one chain and hub; locked while open.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    entries: BTreeMap<U256, Entry>,
    batches: BTreeMap<u64, Batch>,
    _lock: Lock,
}

impl Journal {
    /// Opens (or begins) the journal below `root`. Files that cannot be read are an error, never skipped: an
    /// answer would be lost.
    pub fn open(root: &std::path::Path, chain_id: u64, hub: Address, who: Address) -> Result<Self, Failure> {
        let dir = root.join(format!("{chain_id}-{}-{}", hex::encode(hub), hex::encode(who)));
        make_dir(&dir)?;
        let lock = Lock::take(&dir)?;
        let mut entries = BTreeMap::new();
        let mut batches = BTreeMap::new();
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
            let batch = name.strip_prefix("batch-").and_then(|n| n.strip_suffix(".json"));
            if batch.is_none() && !name.starts_with("job-") {
                continue;
            }
            let text = fs::read(&path).map_err(|e| Failure::disk(&path, e))?;
            if let Some(id) = batch {
                let batch: Batch = serde_json::from_slice(&text).map_err(|e| Failure::disk(&path, e))?;
                let id = id.parse().ok().filter(|_| batch.version == VERSION);
                let id =
                    id.ok_or_else(|| Failure::disk(&path, "belongs to another version; move it away"))?;
                batches.insert(id, batch);
                continue;
            }
            let entry: Entry = serde_json::from_slice(&text).map_err(|e| Failure::disk(&path, e))?;
            if entry.version != VERSION || entry.chain_id != chain_id || entry.hub != hub {
                return Err(Failure::disk(
                    &path,
                    "belongs to another version, chain or hub; move it away",
                ));
            }
            entries.insert(entry.job_id, entry);
        }
        Ok(Self {
            dir,
            entries,
            batches,
            _lock: lock,
        })
    }

    /// A job's entry.
    pub fn get(&self, job_id: &U256) -> Option<&Entry> {
        self.entries.get(job_id)
    }

    /// Jobs with something left to do, lowest number first.
    pub fn open_jobs(&self) -> Vec<U256> {
        self.entries
            .values()
            .filter(|e| e.closed.is_none())
            .map(|e| e.job_id)
            .collect()
    }

    /// Every entry.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Writes the entry; when this returns it survives the machine.
    pub fn put(&mut self, entry: Entry) -> Result<(), Failure> {
        let path = self.dir.join(format!("job-{}.json", entry.job_id));
        let bytes = serde_json::to_vec_pretty(&entry).map_err(|e| Failure::disk(&path, e))?;
        write_atomic(&path, &bytes, 0o600)?;
        self.entries.insert(entry.job_id, entry);
        Ok(())
    }

    /// The batches, oldest first.
    pub fn batches(&self) -> Vec<(u64, Batch)> {
        self.batches.iter().map(|(id, b)| (*id, b.clone())).collect()
    }

    /// The number of the next batch.
    pub fn next_batch(&self) -> u64 {
        self.batches.keys().next_back().map_or(0, |last| last + 1)
    }

    /// Writes a batch; when this returns it survives the machine.
    pub fn put_batch(&mut self, id: u64, batch: Batch) -> Result<(), Failure> {
        let path = self.dir.join(format!("batch-{id}.json"));
        let bytes = serde_json::to_vec(&batch).map_err(|e| Failure::disk(&path, e))?;
        write_atomic(&path, &bytes, 0o600)?;
        self.batches.insert(id, batch);
        Ok(())
    }

    /// Forgets a batch that never left, or none of whose jobs is in the journal any more.
    pub fn drop_batch(&mut self, id: u64) -> Result<(), Failure> {
        let path = self.dir.join(format!("batch-{id}.json"));
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Failure::disk(&path, e)),
            _ => {}
        }
        self.batches.remove(&id);
        Ok(())
    }

    /// Opens again what was closed at `height` or later: those blocks may be gone.
    pub fn reopen(&mut self, height: u64) -> Result<(), Failure> {
        let late = |e: &&Entry| e.closed.as_ref().is_some_and(|c| c.height >= height);
        let ids: Vec<U256> = self.entries.values().filter(late).map(|e| e.job_id).collect();
        ids.iter().try_for_each(|id| self.update(id, |e| e.closed = None))
    }

    /// Changes an entry and writes it; does nothing where there is none.
    pub fn update(&mut self, job_id: &U256, change: impl FnOnce(&mut Entry)) -> Result<(), Failure> {
        let Some(mut entry) = self.entries.get(job_id).cloned() else {
            return Ok(());
        };
        change(&mut entry);
        self.put(entry)
    }

    /// How far events were read, if ever.
    pub fn cursor(&self) -> Result<Option<Cursor>, Failure> {
        let path = self.dir.join("cursor.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| Failure::disk(&path, e)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Failure::disk(&path, e)),
        }
    }

    /// The stake that is on its way, if any.
    pub fn stake(&self) -> Result<Option<Signed>, Failure> {
        let path = self.dir.join("stake.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| Failure::disk(&path, e)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Failure::disk(&path, e)),
        }
    }

    /// Remembers a stake before it leaves, or that none is on its way.
    pub fn set_stake(&self, signed: Option<&Signed>) -> Result<(), Failure> {
        let path = self.dir.join("stake.json");
        match signed {
            Some(signed) => {
                let bytes = serde_json::to_vec(signed).map_err(|e| Failure::disk(&path, e))?;
                write_atomic(&path, &bytes, 0o600)
            }
            None => match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Failure::disk(&path, e)),
                _ => Ok(()),
            },
        }
    }

    /// Removes the files of jobs that were closed below `height`. `keep` hears each entry first and may write
    /// what is to stay of it; where it fails, the entry stays.
    pub fn prune(
        &mut self,
        height: u64,
        keep: &mut dyn FnMut(&Entry) -> Result<(), Failure>,
    ) -> Result<usize, Failure> {
        let old = |e: &&Entry| e.closed.as_ref().is_some_and(|c| c.height < height);
        let ids: Vec<U256> = self.entries.values().filter(old).map(|e| e.job_id).collect();
        for id in &ids {
            if let Some(entry) = self.entries.get(id) {
                keep(entry)?;
            }
            let path = self.dir.join(format!("job-{id}.json"));
            match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Failure::disk(&path, e)),
                _ => {}
            }
            self.entries.remove(id);
        }
        if !ids.is_empty() {
            let gone = |b: &Batch| b.jobs.iter().all(|id| !self.entries.contains_key(id));
            let old: Vec<u64> = self
                .batches
                .iter()
                .filter(|(_, b)| gone(b))
                .map(|(id, _)| *id)
                .collect();
            old.iter().try_for_each(|id| self.drop_batch(*id))?;
        }
        Ok(ids.len())
    }

    /// Remembers how far events were read.
    pub fn set_cursor(&self, cursor: Cursor) -> Result<(), Failure> {
        let path = self.dir.join("cursor.json");
        let bytes = serde_json::to_vec(&cursor).map_err(|e| Failure::disk(&path, e))?;
        write_atomic(&path, &bytes, 0o600)
    }
}

#[cfg(test)]
mod tests {
    use bitai_types::Sampler;

    use super::*;

    fn entry(id: u64) -> Entry {
        let job = Job {
            model_root: B256::repeat_byte(1),
            spec_version: 0,
            input_ids: vec![1, 2],
            max_new: 3,
            stop_ids: vec![2],
            sampler: Sampler::GREEDY,
            seed: 0,
        };
        Entry::new(22216, Address::repeat_byte(5), U256::from(id), job)
    }

    fn open(dir: &tempfile::TempDir) -> Result<Journal, Failure> {
        Journal::open(
            dir.path(),
            22216,
            Address::repeat_byte(5),
            Address::repeat_byte(6),
        )
    }

    #[test]
    fn what_was_put_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(&dir).unwrap();
        journal.put(entry(3)).unwrap();
        journal.put(entry(1)).unwrap();
        let signed = Signed {
            hash: B256::repeat_byte(7),
            nonce: 4,
            attempt: 0,
            raw: Bytes::from_static(b"raw"),
        };
        journal
            .update(&U256::from(3), |e| {
                e.answer = Some(Answer {
                    output_ids: vec![9],
                    trace_root: B256::ZERO,
                    transcript: Bytes::new(),
                });
                e.sent.insert(Step::Commit, signed.clone());
            })
            .unwrap();
        let closed = Closed {
            why: "paid".into(),
            height: 9,
        };
        journal
            .update(&U256::from(1), |e| e.closed = Some(closed))
            .unwrap();
        let cursor = Cursor {
            next_height: 8,
            parent: B256::repeat_byte(2),
        };
        journal.set_cursor(cursor).unwrap();
        drop(journal);

        let mut journal = open(&dir).unwrap();
        assert_eq!(journal.open_jobs(), [U256::from(3)]);
        assert_eq!(journal.get(&U256::from(3)).unwrap().sent[&Step::Commit], signed);
        assert_eq!(journal.cursor().unwrap(), Some(cursor));
        journal.reopen(10).unwrap();
        assert_eq!(journal.open_jobs().len(), 1, "closed below the reorg");
        journal.reopen(9).unwrap();
        assert_eq!(journal.open_jobs().len(), 2);
    }

    #[test]
    fn finished_jobs_go_once_no_reorg_can_open_them_and_their_receipts_are_kept_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(&dir).unwrap();
        for (id, closed) in [(1, Some(9)), (2, Some(10)), (3, None)] {
            journal.put(entry(id)).unwrap();
            let closed = closed.map(|height| Closed {
                why: "paid".into(),
                height,
            });
            journal.update(&U256::from(id), |e| e.closed = closed).unwrap();
        }
        // What cannot be kept is not thrown away.
        let full = &mut |_: &Entry| Err(Failure::disk("receipts", "full"));
        assert_eq!(journal.prune(10, full).unwrap_err().code(), 40);
        assert_eq!(journal.entries().count(), 3);
        let mut kept = Vec::new();
        let keep = &mut |e: &Entry| {
            kept.push(e.job_id);
            Ok(())
        };
        assert_eq!(journal.prune(10, keep).unwrap(), 1);
        assert_eq!(kept, [U256::from(1)]);
        drop(journal);
        let left: Vec<U256> = open(&dir).unwrap().entries().map(|e| e.job_id).collect();
        assert_eq!(left, [2, 3].map(U256::from));
    }

    #[test]
    fn a_batch_survives_a_restart_and_goes_with_the_last_of_its_jobs() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(&dir).unwrap();
        let signed = Signed {
            hash: B256::repeat_byte(7),
            nonce: 4,
            attempt: 0,
            raw: Bytes::from_static(b"raw"),
        };
        let jobs = [1, 2].map(U256::from).to_vec();
        let batch = Batch::new(Step::Commit, jobs, vec![B256::ZERO; 2], signed);
        for id in [1, 2] {
            journal.put(entry(id)).unwrap();
        }
        assert_eq!(journal.next_batch(), 0);
        journal.put_batch(0, batch.clone()).unwrap();
        journal.put_batch(1, batch.clone()).unwrap();
        journal.drop_batch(1).unwrap();
        drop(journal);
        let mut journal = open(&dir).unwrap();
        assert_eq!(journal.batches(), [(0, batch)]);
        assert_eq!(journal.next_batch(), 1);
        let keep = &mut |_: &Entry| Ok(());
        for (id, left) in [(1, 1), (2, 0)] {
            let why = "paid".into();
            let closed = Some(Closed { why, height: 3 });
            journal.update(&U256::from(id), |e| e.closed = closed).unwrap();
            journal.prune(10, keep).unwrap();
            assert_eq!(journal.batches().len(), left, "{id}");
        }
        drop(journal);
        assert_eq!(open(&dir).unwrap().batches(), []);
    }

    #[test]
    fn a_stake_on_its_way_survives_a_restart_until_it_is_settled() {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(&dir).unwrap();
        assert_eq!(journal.stake().unwrap(), None);
        let signed = Signed {
            hash: B256::repeat_byte(7),
            nonce: 4,
            attempt: 0,
            raw: Bytes::from_static(b"raw"),
        };
        journal.set_stake(Some(&signed)).unwrap();
        drop(journal);
        let journal = open(&dir).unwrap();
        assert_eq!(journal.stake().unwrap(), Some(signed));
        journal.set_stake(None).unwrap();
        journal.set_stake(None).unwrap();
        assert_eq!(journal.stake().unwrap(), None);
    }

    #[test]
    fn rejects_a_damaged_file_instead_of_losing_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(&dir).unwrap();
        journal.put(entry(1)).unwrap();
        let path = journal.dir.join("job-1.json");
        drop(journal);
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert_eq!(open(&dir).unwrap_err().code(), 40);
    }

    #[test]
    fn a_half_written_temporary_file_is_swept_away() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(&dir).unwrap();
        journal.put(entry(1)).unwrap();
        let temp = journal.dir.join(".job-1.json.99.tmp");
        fs::write(&temp, b"{").unwrap();
        drop(journal);
        assert_eq!(open(&dir).unwrap().open_jobs().len(), 1);
        assert!(!temp.exists());
    }

    #[test]
    fn rejects_two_neurons_with_one_journal() {
        let dir = tempfile::tempdir().unwrap();
        let _first = open(&dir).unwrap();
        assert_eq!(open(&dir).unwrap_err().code(), 41);
    }
}
