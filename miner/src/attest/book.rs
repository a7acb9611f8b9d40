//! What was said about an epoch, on disk before it is said on the chain: without it an ask could be answered only by computing
//! every job of the epoch again.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use alloy_primitives::{Address, B256, hex};
use bitai_poc::{
    TraceRoot,
    attest::{Entry, EntryTree, PICKS},
};
use serde::{Deserialize, Serialize};

use crate::{
    datadir::{DataDir, make_dir, write_atomic},
    exit::Failure,
};

/// One job of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Said {
    /// Its number.
    pub(super) job: u32,
    /// The neuron whose answer holds, and the entry; none where nothing is attested.
    pub(super) holds: Option<Holds>,
}

/// An answer that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holds {
    /// A neuron that revealed it.
    pub(super) neuron: Address,
    outputs: u32,
    root: B256,
    output_hash: B256,
    hashes: [B256; PICKS],
}

impl Holds {
    /// An entry as it is kept.
    pub(super) fn new(neuron: Address, entry: &Entry) -> Self {
        Self {
            neuron,
            outputs: entry.outputs,
            root: entry.root.into(),
            output_hash: entry.output_hash,
            hashes: entry.hashes.map(B256::from),
        }
    }

    /// The entry.
    pub(super) fn entry(&self) -> Entry {
        Entry {
            outputs: self.outputs,
            root: TraceRoot::from(self.root),
            output_hash: self.output_hash,
            hashes: self.hashes.map(|hash| hash.0),
        }
    }
}

/// An epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Page {
    /// Hash of the header that ends it.
    pub(super) header: B256,
    /// Its jobs for which this validator was drawn.
    pub(super) jobs: Vec<Said>,
}

impl Page {
    /// The tree of its entries.
    pub(super) fn tree(&self) -> EntryTree {
        let mut tree = EntryTree::default();
        for said in &self.jobs {
            if let Some(holds) = &said.holds {
                tree.insert(said.job, holds.entry().leaf());
            }
        }
        tree
    }

    /// Jobs of which nothing is attested.
    pub(super) fn none(&self) -> Vec<u32> {
        let none = self.jobs.iter().filter(|said| said.holds.is_none());
        none.map(|said| said.job).collect()
    }
}

/// The pages of one validator on one contract.
#[derive(Debug, Clone)]
pub(super) struct Book(PathBuf);

impl Book {
    /// Pages lie in the data directory by chain, contract and validator.
    pub(super) fn new(data: &DataDir, chain_id: u64, contract: Address, validator: Address) -> Self {
        let name = format!("{chain_id}-{}-{}", hex::encode(contract), hex::encode(validator));
        Self(data.root().join("attestations").join(name))
    }

    fn file(&self, epoch: u64) -> PathBuf {
        self.0.join(format!("{epoch}.json"))
    }

    /// An epoch's page, if it was written.
    pub(super) fn read(&self, epoch: u64) -> Result<Option<Page>, Failure> {
        let path = self.file(epoch);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(broken(&path, e)),
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| broken(&path, e))
    }

    /// Writes an epoch's page, whole or not at all.
    pub(super) fn write(&self, epoch: u64, page: &Page) -> Result<(), Failure> {
        let path = self.file(epoch);
        make_dir(&self.0)?;
        let bytes = serde_json::to_vec_pretty(page).map_err(|e| broken(&path, e))?;
        write_atomic(&path, &bytes, 0o600)
    }

    /// Removes an epoch's page.
    pub(super) fn remove(&self, epoch: u64) -> Result<(), Failure> {
        let path = self.file(epoch);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(broken(&path, e)),
            _ => Ok(()),
        }
    }

    /// Epochs with a page, in order.
    pub(super) fn epochs(&self) -> Result<Vec<u64>, Failure> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(broken(&self.0, e)),
        };
        let mut epochs: Vec<u64> = entries
            .filter_map(|entry| {
                entry
                    .ok()?
                    .file_name()
                    .to_str()?
                    .strip_suffix(".json")?
                    .parse()
                    .ok()
            })
            .collect();
        epochs.sort_unstable();
        Ok(epochs)
    }
}

fn broken(path: &Path, e: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::Internal(anyhow::Error::new(e).context(format!(
        "the record of attestations {}: mend its permissions, or remove it where it is broken (its epoch is then computed again)",
        path.display()
    )))
}
