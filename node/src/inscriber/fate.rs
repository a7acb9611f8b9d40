//! What may still become of a batch, given which of its transactions blocks have. Versions rule each other
//! out: they spend the same coins, so that of all commits one confirms, and of a part's reveals one.

use super::batch::{Batch, Version};
use bitcoin::{Transaction, Txid};
use std::collections::{BTreeMap, BTreeSet};

/// A batch and the heights of those of its transactions that blocks have.
#[derive(Debug)]
pub struct Fate<'a> {
    /// The batch.
    pub batch: &'a Batch,
    mined: BTreeMap<Txid, u64>,
}

impl<'a> Fate<'a> {
    /// Of `batch`, where blocks at these heights have these transactions of it.
    pub fn new(batch: &'a Batch, mined: BTreeMap<Txid, u64>) -> Self {
        Self { batch, mined }
    }

    /// Height of the block that has `tx`.
    pub fn mined_at(&self, tx: &Transaction) -> Option<u64> {
        self.mined.get(&tx.compute_txid()).copied()
    }

    /// Whether no block has anything of it.
    pub fn unseen(&self) -> bool {
        self.mined.is_empty()
    }

    /// Whether a block has a commit of it.
    pub fn commit_mined(&self) -> bool {
        self.batch
            .versions
            .iter()
            .any(|v| self.mined_at(v.commit()).is_some())
    }

    /// The versions whose commit is in a block or may still come to be in one, oldest first; never none.
    pub fn possible(&self) -> Vec<&'a Version> {
        let versions = &self.batch.versions;
        let mined = versions.iter().find(|v| self.mined_at(v.commit()).is_some());
        match mined.map(|v| v.commit().compute_txid()) {
            Some(txid) => versions
                .iter()
                .filter(|v| v.commit().compute_txid() == txid)
                .collect(),
            None => versions.iter().collect(),
        }
    }

    /// The version to push: the newest of those that are possible.
    pub fn current(&self) -> &'a Version {
        self.possible()
            .last()
            .copied()
            .unwrap_or_else(|| self.batch.newest())
    }

    /// Height of the block that has a reveal of this part, of whichever version.
    pub fn revealed_at(&self, part: usize) -> Option<u64> {
        self.batch
            .versions
            .iter()
            .find_map(|v| self.mined_at(&v.reveals()[part]))
    }

    /// Parts that no block has.
    pub fn open_parts(&self) -> Vec<usize> {
        (0..self.batch.parts.len())
            .filter(|part| self.revealed_at(*part).is_none())
            .collect()
    }

    /// Height of the last of the blocks that hold a reveal of every part; `None` while one is missing.
    pub fn revealed_since(&self) -> Option<u64> {
        (0..self.batch.parts.len())
            .map(|part| self.revealed_at(part))
            .try_fold(0, |max, height| height.map(|h| max.max(h)))
    }

    /// Every transaction, of any version, that no block has and one may still get.
    pub fn pending(&self) -> Vec<&'a Transaction> {
        let open = self.open_parts();
        let mut seen = BTreeSet::new();
        let mut pending = Vec::new();
        for version in self.possible() {
            let reveals = open.iter().map(|part| &version.reveals()[*part]);
            for tx in std::iter::once(version.commit()).chain(reveals) {
                if self.mined_at(tx).is_none() && seen.insert(tx.compute_txid()) {
                    pending.push(tx);
                }
            }
        }
        pending
    }
}
