//! Writes batches of BitAI transactions into Bitcoin: commit and reveal per batch, persisted before
//! broadcast, retried by txid until they confirm, paid for again by fee where they linger.
//!
//! One thread owns an [`Inscriber`] and calls [`Inscriber::tick`]; everybody else reads through
//! [`View`]. Whatever a kill interrupts, the next start finds in the [`store`] and goes on with.

pub mod batch;
pub mod build;
pub mod keys;
pub mod price;
pub mod source;
pub mod store;
#[cfg(test)]
#[cfg(feature = "embedded-bitcoin")]
mod tests;

use crate::bitcoin::{
    Backend, BackendError, BlockRef, CLUSTER_VBYTES_MAX, Refusal, SatPerKvb, Submitted, b256,
};
use crate::envelope::{Header, REVEAL_PAYLOAD_MAX, payload};
use crate::follow::{self, Step};
use alloy_primitives::{Address, B256, Bytes};
use batch::{Batch, Part, Stage, Version};
use bitcoin::{Transaction, Txid};
use build::{BuildError, Builder, Coin};
use keys::Keys;
use price::Pricer;
use source::{BatchRecord, InscriberView, TxSource};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use store::{Store, StoreError};

/// Raw bytes asked of the mempool at once.
const READY_BYTES: usize = 1_500_000;
/// Batches on their way at once; more transactions wait in the mempool and share the next envelope.
const LIVE_MAX: usize = 20;
/// Blocks over a reveal after which it is let alone.
const SETTLED_DEPTH: u64 = 100;
/// Blocks without confirmation after which more is paid.
const BUMP_AFTER: u64 = 3;

/// Why a tick failed. The next one tries again.
#[derive(Debug, thiserror::Error)]
pub enum InscriberError {
    /// Disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Bitcoin.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Funds.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Payload.
    #[error(transparent)]
    Payload(#[from] payload::EncodeError),
    /// A test stopped it here, as a kill would.
    #[cfg(test)]
    #[error("stopped at {0:?}")]
    Stopped(Point),
}

/// Where a kill hurts most; tests stop at each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Signed, not on disk.
    Signed,
    /// On disk; the mempool does not know.
    Persisted,
    /// The mempool knows; nothing is broadcast.
    Told,
    /// The commit is broadcast.
    CommitSent,
    /// The first reveal is broadcast.
    RevealSent,
}

/// Writes batches into Bitcoin.
pub struct Inscriber {
    backend: Arc<dyn Backend>,
    source: Arc<dyn TxSource>,
    store: Arc<Store>,
    keys: Keys,
    header: Header,
    pricer: Arc<Pricer>,
    /// Tip at which everything live was last pushed.
    pushed_at: Option<BlockRef>,
    #[cfg(test)]
    pub(crate) stop_at: Option<Point>,
}

impl std::fmt::Debug for Inscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inscriber")
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

impl Inscriber {
    /// Opens the database at `path` and tells the mempool again what is on its way. Coins are looked for in
    /// blocks after `start_height`.
    pub fn open(
        path: &Path,
        start_height: u64,
        keys: Keys,
        header: Header,
        backend: Arc<dyn Backend>,
        source: Arc<dyn TxSource>,
        pricer: Arc<Pricer>,
    ) -> Result<Self, InscriberError> {
        let store = Arc::new(Store::open(path, keys.script(), start_height)?);
        let this = Self {
            backend,
            source,
            store,
            keys,
            header,
            pricer,
            pushed_at: None,
            #[cfg(test)]
            stop_at: None,
        };
        // What a block has shown is the ledger's to judge: a transaction it dropped may be inscribed again.
        for batch in this.store.live()? {
            if !this.all_mined(&batch) {
                this.tell(&batch, batch.newest());
            }
        }
        Ok(this)
    }

    /// For the RPC server.
    pub fn view(&self) -> View {
        View {
            store: Arc::clone(&self.store),
            fee_recipient: self.header.fee_recipient,
        }
    }

    /// Ticks until told to stop; trouble is logged and tried again.
    pub fn run(&mut self, poll: Duration, stop: &AtomicBool) {
        let mut said = String::new();
        while !stop.load(Ordering::Acquire) {
            match self.tick() {
                Ok(()) => said.clear(),
                Err(error) => {
                    // The same trouble every tick is one line in the log.
                    let now = error.to_string();
                    if now != said {
                        tracing::warn!(%error, "the inscriber waits");
                        said = now;
                    }
                }
            }
            std::thread::sleep(poll);
        }
    }

    /// Brings the coins to Bitcoin's tip.
    pub fn catch_up(&mut self) -> Result<(), InscriberError> {
        let mut store = &*self.store;
        while follow::step(&*self.backend, &mut store)? != Step::AtTip {}
        Ok(())
    }

    /// Follows Bitcoin, pushes what is on its way, inscribes what is ready.
    pub fn tick(&mut self) -> Result<(), InscriberError> {
        self.catch_up()?;
        let tip = self.backend.tip()?;
        let live = self.store.live()?;
        if self.pushed_at != Some(tip) {
            self.pricer
                .update(self.backend.fee_rate(self.pricer.config().target_blocks)?);
            // One batch's trouble does not keep the others; the first is reported after all had their turn.
            let mut trouble = None;
            for batch in &live {
                if let Err(error) = self.advance(batch, &live, tip) {
                    trouble.get_or_insert(error);
                }
            }
            if let Some(error) = trouble {
                return Err(error);
            }
            self.pushed_at = Some(tip);
        }
        let inscribed = self.inscribe(tip);
        if inscribed.is_err() {
            // Perhaps signed and not broadcast: the next tick must not wait for a block to try again.
            self.pushed_at = None;
        }
        inscribed
    }

    fn reached(&self, _point: Point) -> Result<(), InscriberError> {
        #[cfg(test)]
        if self.stop_at == Some(_point) {
            return Err(InscriberError::Stopped(_point));
        }
        Ok(())
    }

    fn builder<'a>(&'a self, parts: &'a [Part]) -> Builder<'a> {
        Builder {
            keys: &self.keys,
            header: self.header,
            parts,
            rate_max: SatPerKvb(self.pricer.config().rate_max),
        }
    }

    fn tell(&self, batch: &Batch, version: &Version) {
        for (part, reveal) in batch.parts.iter().zip(version.reveals()) {
            self.source.inscribed(&part.hashes, b256(reveal.compute_txid()));
        }
    }

    /// Makes one batch of what the mempool has ready.
    fn inscribe(&self, tip: BlockRef) -> Result<(), InscriberError> {
        let live = self.store.live()?;
        let waiting: Vec<&Batch> = live.iter().filter(|b| !self.all_mined(b)).collect();
        if waiting.len() >= LIVE_MAX {
            return Ok(());
        }
        let on_the_way: BTreeSet<B256> = waiting
            .iter()
            .flat_map(|b| &b.parts)
            .flat_map(|p| &p.hashes)
            .copied()
            .collect();
        let mut ready = self.source.ready(READY_BYTES);
        ready.retain(|(hash, _)| !on_the_way.contains(hash));
        let mut parts = Vec::new();
        split(&*self.source, &ready, &mut parts)?;
        if parts.is_empty() {
            return Ok(());
        }
        let version =
            self.builder(&parts)
                .version(&[], self.coins(&live)?, self.pricer.rate(), tip.height)?;
        let batch = Batch {
            id: self.store.next_id()?,
            stage: Stage::Live,
            parts,
            versions: vec![version],
        };
        self.reached(Point::Signed)?;
        self.store.put(&batch)?;
        self.reached(Point::Persisted)?;
        self.tell(&batch, batch.newest());
        self.reached(Point::Told)?;
        let version = batch.newest();
        tracing::info!(
            batch = batch.id,
            txs = batch.parts.iter().map(|p| p.hashes.len()).sum::<usize>(),
            payload_bytes = batch.parts.iter().map(|p| p.payload.len()).sum::<usize>(),
            commit = %version.commit().compute_txid(),
            reveals = batch.parts.len(),
            vbytes = version.vbytes(),
            fee_sats = total_fee(version),
            rate_sat_per_kvb = version.rate,
            "batch inscribed"
        );
        self.push(&batch, &BTreeMap::new()).map(drop)
    }

    fn all_mined(&self, batch: &Batch) -> bool {
        self.store
            .mined(batch)
            .is_ok_and(|mined| revealed_since(batch, &mined).is_some())
    }

    /// Coins to spend: confirmed ones first, then the largest.
    fn coins(&self, live: &[Batch]) -> Result<Vec<Coin>, InscriberError> {
        let mut coins: Vec<_> = self.store.spendable(live)?.into_iter().collect();
        coins.sort_by_key(|(at, (out, confirmed))| (!confirmed, std::cmp::Reverse(out.value), *at));
        Ok(coins.into_iter().map(|(at, (out, _))| (at, out)).collect())
    }

    /// Settles, pushes, pays more, or gives up.
    fn advance(&self, batch: &Batch, live: &[Batch], tip: BlockRef) -> Result<(), InscriberError> {
        let mined = self.store.mined(batch)?;
        if let Some(since) = revealed_since(batch, &mined) {
            if tip.height >= since + SETTLED_DEPTH {
                self.store.put(&Batch {
                    stage: Stage::Settled,
                    ..batch.clone()
                })?;
            }
            return Ok(());
        }
        match self.push(batch, &mined)? {
            Pushed::Waiting => Ok(()),
            Pushed::Orphaned => self.bury(batch, live, &mined),
            Pushed::InPool => self.pay_more(batch, live, &mined, tip),
        }
    }

    /// Offers commit and reveals of the version that can still go; idempotent.
    fn push(&self, batch: &Batch, mined: &BTreeMap<Txid, u64>) -> Result<Pushed, InscriberError> {
        let is_mined = |tx: &Transaction| mined.contains_key(&tx.compute_txid());
        let mut version = batch.current(|txid| mined.contains_key(txid));
        let commit_mined = is_mined(version.commit());
        if !commit_mined {
            // The newest first; where an older one is in the pool and pays more, that one.
            let mut refusals = Vec::new();
            let mut taken = None;
            for v in batch.versions.iter().rev() {
                match self.offer(v.commit())? {
                    Offered::Taken => {
                        taken = Some(v);
                        break;
                    }
                    Offered::Refused(refusal) => refusals.push(refusal),
                }
            }
            match taken {
                Some(v) => version = v,
                None if refusals.iter().all(|r| *r == Refusal::MissingInputs) => return Ok(Pushed::Orphaned),
                None => return Ok(Pushed::Waiting),
            }
        }
        self.reached(Point::CommitSent)?;
        let alone = batch.parts.len() == 1 && version.vbytes() <= CLUSTER_VBYTES_MAX;
        if !commit_mined && !alone {
            return Ok(Pushed::InPool);
        }
        let mut pushed = Pushed::InPool;
        for (part, reveal) in version.reveals().iter().enumerate() {
            let done = batch.versions.iter().any(|v| is_mined(&v.reveals()[part]));
            if !done && self.offer(reveal)? != Offered::Taken {
                pushed = Pushed::Waiting;
            }
            self.reached(Point::RevealSent)?;
        }
        Ok(pushed)
    }

    /// Offers one transaction to the pool.
    fn offer(&self, tx: &Transaction) -> Result<Offered, InscriberError> {
        let max = SatPerKvb(self.pricer.config().rate_max.saturating_mul(2));
        match self.backend.submit(tx, max) {
            Ok(Submitted::Accepted) => {
                tracing::info!(txid = %tx.compute_txid(), vbytes = tx.vsize(), "broadcast");
                Ok(Offered::Taken)
            }
            Ok(_) => Ok(Offered::Taken),
            Err(BackendError::TxRefused {
                txid,
                refusal,
                reason,
            }) => {
                tracing::warn!(%txid, reason, "Bitcoin does not take it now");
                Ok(Offered::Refused(refusal))
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Signs a dearer version where the newest has waited long enough and nothing of ours hangs on it.
    fn pay_more(
        &self,
        batch: &Batch,
        live: &[Batch],
        mined: &BTreeMap<Txid, u64>,
        tip: BlockRef,
    ) -> Result<(), InscriberError> {
        let old = batch.newest();
        if tip.height < old.signed_at + BUMP_AFTER {
            return Ok(());
        }
        let config = self.pricer.config();
        let rate = SatPerKvb(
            self.pricer
                .rate()
                .0
                .max(old.rate + old.rate / 4)
                .min(config.rate_max),
        );
        self.bump(batch, live, mined, rate, tip)
            .or_else(|error| match error {
                InscriberError::Build(error) => {
                    tracing::warn!(batch = batch.id, %error, "cannot pay more for a batch that lingers");
                    Ok(())
                }
                error => Err(error),
            })
    }

    /// Replaces the newest version of `batch` by one at `rate`.
    pub(crate) fn bump(
        &self,
        batch: &Batch,
        live: &[Batch],
        mined: &BTreeMap<Txid, u64>,
        rate: SatPerKvb,
        tip: BlockRef,
    ) -> Result<(), InscriberError> {
        let old = batch.current(|txid| mined.contains_key(txid));
        let ours: BTreeSet<Txid> = batch.txids().collect();
        let leaned_on = live
            .iter()
            .filter(|b| b.id != batch.id)
            .flat_map(|b| &b.versions)
            .any(|v| v.spent.iter().any(|(at, _)| ours.contains(&at.txid)));
        if leaned_on || rate.0 <= old.rate {
            return Ok(());
        }
        let builder = self.builder(&batch.parts);
        let commit_mined = mined.contains_key(&old.commit().compute_txid());
        // Reveals in the pool can only be replaced for more than they and the commit pay together, so a
        // reveal that is there pays for both; a commit that is alone is replaced itself.
        let version = if commit_mined || batch.parts.len() == 1 {
            builder.with_dearer_reveals(old, commit_mined, rate, tip.height)?
        } else {
            builder.version(&old.spent, self.coins(live)?, rate, tip.height)?
        };
        let mut batch = batch.clone();
        tracing::info!(
            batch = batch.id,
            commit = %version.commit().compute_txid(),
            fee_sats = total_fee(&version),
            rate_sat_per_kvb = rate.0,
            "paying more for a batch that lingers"
        );
        batch.versions.push(version);
        self.store.put(&batch)?;
        self.tell(&batch, batch.newest());
        self.push(&batch, mined).map(drop)
    }

    /// Gives a batch up if what it spends is gone for good as far as this chain goes.
    fn bury(&self, batch: &Batch, live: &[Batch], mined: &BTreeMap<Txid, u64>) -> Result<(), InscriberError> {
        // Outputs of other live batches will be there again once those are pushed.
        let coming: BTreeSet<Txid> = live
            .iter()
            .filter(|b| b.id != batch.id)
            .flat_map(Batch::txids)
            .collect();
        let coins = self.store.coins()?;
        let gone = |v: &Version| {
            v.spent
                .iter()
                .any(|(at, _)| !coins.contains_key(at) && !coming.contains(&at.txid))
        };
        if !mined.is_empty() || !batch.versions.iter().all(gone) {
            return Ok(());
        }
        tracing::error!(
            batch = batch.id,
            "a reorg took what this batch spends; its transactions are inscribed anew"
        );
        self.store.put(&Batch {
            stage: Stage::Dead,
            ..batch.clone()
        })?;
        for part in &batch.parts {
            self.source.released(&part.hashes);
        }
        Ok(())
    }
}

/// What the pool said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offered {
    /// It, or a block, has the transaction.
    Taken,
    /// Not now.
    Refused(Refusal),
}

/// What pushing came to.
enum Pushed {
    /// Everything that may be in the pool is.
    InPool,
    /// Refused by the backend; the next tick tries again.
    Waiting,
    /// No version's commit finds its coins.
    Orphaned,
}

/// Height of the last of the blocks that hold a reveal of every part; `None` while one is missing.
fn revealed_since(batch: &Batch, mined: &BTreeMap<Txid, u64>) -> Option<u64> {
    (0..batch.parts.len())
        .map(|part| {
            batch
                .versions
                .iter()
                .find_map(|v| mined.get(&v.reveals()[part].compute_txid()).copied())
        })
        .try_fold(0, |max, height| height.map(|h| max.max(h)))
}

fn total_fee(version: &Version) -> u64 {
    version.commit_fee()
        + (0..version.reveals().len())
            .map(|i| version.reveal_fee(i))
            .sum::<u64>()
}

/// Cuts `ready` into as few parts as fit reveals, in order. A transaction that fits none is left out.
fn split(
    source: &dyn TxSource,
    ready: &[(B256, Bytes)],
    parts: &mut Vec<Part>,
) -> Result<(), payload::EncodeError> {
    if ready.is_empty() {
        return Ok(());
    }
    let txs: Vec<Bytes> = ready.iter().map(|(_, tx)| tx.clone()).collect();
    match payload::encode_at_least(&txs, source.payload_min(&txs)) {
        Ok(payload) if payload.len() <= REVEAL_PAYLOAD_MAX => {
            let hashes = ready.iter().map(|(hash, _)| *hash).collect();
            parts.push(Part { hashes, payload });
            Ok(())
        }
        Ok(_) | Err(payload::EncodeError::TooLong { .. } | payload::EncodeError::Count { .. }) => {
            if let [(hash, tx)] = ready {
                tracing::error!(%hash, bytes = tx.len(), "this transaction fits no reveal; the mempool should have refused it");
                return Ok(());
            }
            let (left, right) = ready.split_at(ready.len() / 2);
            split(source, left, parts)?;
            split(source, right, parts)
        }
        Err(e) => Err(e),
    }
}

/// What others may ask of the inscriber; answers come from its database.
#[derive(Debug, Clone)]
pub struct View {
    store: Arc<Store>,
    fee_recipient: Address,
}

impl InscriberView for View {
    fn record(&self, tx_hash: B256) -> Option<BatchRecord> {
        self.store.record(&tx_hash).unwrap_or_else(|error| {
            tracing::error!(%error, "the inscriber's record cannot be read");
            None
        })
    }

    fn balance_sats(&self) -> u64 {
        let spendable = self.store.live().and_then(|live| self.store.spendable(&live));
        spendable.map_or(0, |coins| coins.values().map(|(out, _)| out.value.to_sat()).sum())
    }

    fn fee_recipient(&self) -> Address {
        self.fee_recipient
    }
}
