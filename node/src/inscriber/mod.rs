//! Writes batches of BitAI transactions into Bitcoin: commit and reveal per batch, persisted before
//! broadcast, retried by txid until they confirm, paid for again by fee where they linger.
//!
//! One thread owns an [`Inscriber`] and calls [`Inscriber::tick`]; everybody else reads through
//! [`View`]. Whatever a kill interrupts, the next start finds in the [`store`] and goes on with.

mod advance;
pub mod batch;
pub mod build;
pub mod fate;
pub mod keys;
pub mod price;
pub mod source;
pub mod store;
#[cfg(test)]
#[cfg(feature = "embedded-bitcoin")]
mod tests;

use crate::bitcoin::{Backend, BackendError, BlockRef, SatPerKvb, TxStatus, b256};
use crate::envelope::{Header, REVEAL_PAYLOAD_MAX, payload};
use crate::follow::{self, Step};
use alloy_primitives::{Address, B256, Bytes};
use batch::{Batch, Part, Stage, Version};
use build::{BuildError, Builder, Coin};
use fate::Fate;
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
    /// Given up: the mempool has its transactions back, the batch is not yet marked dead.
    Released,
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
    /// Batches that the mempool was told of since the start.
    told: BTreeSet<u64>,
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
        let mut this = Self {
            backend,
            source,
            store,
            keys,
            header,
            pricer,
            pushed_at: None,
            told: BTreeSet::new(),
            #[cfg(test)]
            stop_at: None,
        };
        let live = this.store.live()?;
        this.tell_new(&live)?;
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
        let mut live = self.store.live()?;
        self.tell_new(&live)?;
        if self.pushed_at != Some(tip) {
            self.pricer
                .update(self.backend.fee_rate(self.pricer.config().target_blocks)?);
            // One batch's trouble does not keep the others; the first is reported after all had their turn.
            let mut trouble = None;
            for id in live.iter().map(|b| b.id).collect::<Vec<_>>() {
                match self.advance(id, &live, tip) {
                    Ok(false) => continue,
                    Ok(true) => {}
                    // Perhaps after it was put on disk.
                    Err(error) => {
                        trouble.get_or_insert(error);
                    }
                }
                // The next batch must not add coins that this one took.
                live = self.store.live()?;
            }
            if let Some(error) = trouble {
                return Err(error);
            }
            self.pushed_at = Some(tip);
        }
        let inscribed = self.inscribe(tip);
        if !matches!(inscribed, Ok(()) | Err(InscriberError::Build(_))) {
            // Perhaps signed and not broadcast: the next tick must not wait for a block to try again. Where the
            // coins do not reach nothing was signed, and what is on its way is in the pool already.
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

    /// Tells the mempool of batches that it has not heard of: after a start, and when one that was given up
    /// lives again.
    fn tell_new(&mut self, live: &[Batch]) -> Result<(), InscriberError> {
        let ids: BTreeSet<u64> = live.iter().map(|b| b.id).collect();
        self.told.retain(|id| ids.contains(id));
        for batch in live {
            if !self.told.contains(&batch.id) {
                self.tell(&self.store.fate(batch)?);
                self.told.insert(batch.id);
            }
        }
        Ok(())
    }

    /// Tells the mempool what is on its way. What a block has shown is the ledger's to judge: a transaction
    /// that it dropped may be inscribed again.
    fn tell(&self, fate: &Fate<'_>) {
        let reveals = fate.current().reveals();
        for part in fate.open_parts() {
            let txid = b256(reveals[part].compute_txid());
            self.source.inscribed(&fate.batch.parts[part].hashes, txid);
        }
    }

    /// Makes one batch of what the mempool has ready.
    fn inscribe(&mut self, tip: BlockRef) -> Result<(), InscriberError> {
        let live = self.store.live()?;
        let mut waiting = 0;
        let mut on_the_way: BTreeSet<B256> = BTreeSet::new();
        for batch in &live {
            let open = self.store.fate(batch)?.open_parts();
            waiting += usize::from(!open.is_empty());
            on_the_way.extend(open.iter().flat_map(|part| &batch.parts[*part].hashes));
        }
        if waiting >= LIVE_MAX {
            return Ok(());
        }
        let mut ready = self.source.ready(READY_BYTES);
        ready.retain(|(hash, _)| !on_the_way.contains(hash));
        let mut parts = Vec::new();
        split(&*self.source, &ready, &mut parts)?;
        if parts.is_empty() {
            return Ok(());
        }
        let version = self
            .builder(&parts)
            .version(&self.coins(&live)?, self.pricer.rate(), tip.height)?;
        let batch = Batch {
            id: self.store.next_id()?,
            stage: Stage::Live,
            parts,
            versions: vec![version],
        };
        self.reached(Point::Signed)?;
        self.store.put(&batch)?;
        self.reached(Point::Persisted)?;
        let fate = Fate::new(&batch, BTreeMap::new());
        self.tell(&fate);
        self.told.insert(batch.id);
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
        self.push(&fate).map(drop)
    }

    /// Coins for a new commit: confirmed ones first, then the largest. Change counts if the pool has what
    /// makes it.
    fn coins(&self, live: &[Batch]) -> Result<Vec<Coin>, InscriberError> {
        let mut coins = Vec::new();
        for (at, (out, confirmed)) in self.store.spendable(live)? {
            if confirmed || self.backend.tx_status(&at.txid)? == TxStatus::Pool {
                coins.push((at, out, confirmed));
            }
        }
        coins.sort_by_key(|(at, out, confirmed)| (!confirmed, std::cmp::Reverse(out.value), *at));
        Ok(coins.into_iter().map(|(at, out, _)| (at, out)).collect())
    }
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
