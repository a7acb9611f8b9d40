//! The node's own mempool: checks and pre-executes what users send, keeps it over restarts, and hands the
//! inscriber what should go to Bitcoin next. It is never gossiped: another node learns of a transaction
//! from Bitcoin.

mod error;
mod pending;
mod pool;
mod store;

use alloy::consensus::Transaction;
use alloy_primitives::{Address, B256, Bytes, U256};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::envelope::REVEAL_PAYLOAD_MAX;
use crate::genesis::Genesis;
use crate::inscriber::source::{Quote, TxSource};
use crate::state::{AppliedBlock, Chain, ChainObserver, StateError, StoredBlock, View, raw_txs};
use crate::transition::evm::BlockSight;
use crate::transition::overlay::Overlay;
use crate::transition::tx::gas_limit_of;
use crate::transition::{SignedTx, TxError};
pub use error::PoolError;
use pending::Pending;
use pool::{Entry, Flight, Pool};
use store::Store;

/// Largest raw transaction: one reveal carries it even if it does not compress (zstd frame, RLP headers).
pub const MAX_TX_BYTES: usize = REVEAL_PAYLOAD_MAX - 1_000;
/// Transactions that one sender may have here.
pub const MAX_PER_SENDER: usize = 64;
/// Transactions in all.
pub const MAX_TXS: usize = 4_096;
/// Raw bytes in all.
pub const MAX_BYTES: usize = 32 << 20;
/// Blocks after which an inscribed transaction that no block executed may be inscribed anew. The inscriber
/// says sooner when its own reveal is lost; this is for reveals of others.
pub const FLIGHT_BLOCKS: u64 = 144;

/// A transaction here, as RPC shows it.
#[derive(Debug, Clone)]
pub struct PoolTx {
    /// The transaction.
    pub tx: SignedTx,
    /// Reveal that carries it (internal byte order), once it is on its way.
    pub reveal_txid: Option<B256>,
    /// Whether it can run now.
    pub ready: bool,
}

/// The mempool.
pub struct Mempool {
    chain: Arc<Chain>,
    quote: Arc<dyn Quote>,
    store: Store,
    inner: Mutex<Inner>,
}

struct Inner {
    pool: Pool,
    pending: Pending,
    coinbase: Address,
}

impl std::fmt::Debug for Mempool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (ready, queued) = self.counts();
        f.debug_struct("Mempool")
            .field("ready", &ready)
            .field("queued", &queued)
            .finish_non_exhaustive()
    }
}

impl Mempool {
    /// Opens the mempool in this file and follows the chain. What was there is checked anew.
    pub fn open(
        path: impl AsRef<Path>,
        chain: Arc<Chain>,
        quote: Arc<dyn Quote>,
    ) -> Result<Arc<Self>, StateError> {
        let store = Store::open(path.as_ref())?;
        let mut pool = Pool::default();
        let mut lost = Vec::new();
        for record in store.load()? {
            match SignedTx::decode(&record.raw, chain.genesis()) {
                Ok(tx) => {
                    let flight = (record.reveal_txid != B256::ZERO).then_some(Flight {
                        reveal_txid: record.reveal_txid,
                        since: record.since,
                    });
                    pool.insert(Entry {
                        tx,
                        raw: record.raw,
                        seq: record.seq,
                        flight,
                        gas_used: None,
                    });
                }
                Err(_) => lost.push(alloy_primitives::keccak256(&record.raw)),
            }
        }
        store.write([], lost)?;
        let pending = Pending::new(chain.genesis(), chain.view()?, Address::ZERO)?;
        let inner = Mutex::new(Inner {
            pool,
            pending,
            coinbase: Address::ZERO,
        });
        let mempool = Arc::new(Mempool {
            chain,
            quote,
            store,
            inner,
        });
        mempool.refresh(&mut mempool.lock())?;
        let observer: Weak<Mempool> = Arc::downgrade(&mempool);
        mempool.chain.observe(observer);
        Ok(mempool)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn genesis(&self) -> &Genesis {
        self.chain.genesis()
    }

    /// COINBASE of pre-executions from now on: what this node's envelopes will name.
    pub fn set_fee_recipient(&self, coinbase: Address) {
        self.lock().coinbase = coinbase;
    }

    /// Takes a raw transaction, or says why not. Returns its hash once it is on disk.
    pub fn submit(&self, raw: &[u8]) -> Result<B256, PoolError> {
        if raw.len() > MAX_TX_BYTES {
            return Err(PoolError::TooLarge {
                len: raw.len(),
                max: MAX_TX_BYTES,
            });
        }
        let tx = SignedTx::decode(raw, self.genesis())?;
        let mut inner = self.lock();
        let hash = tx.hash;
        if inner.pool.get(hash).is_some() {
            return Err(PoolError::AlreadyKnown(hash));
        }
        let (sender, nonce) = (tx.sender, tx.tx.nonce());
        let on_chain = self.chain.view()?.account(sender)?.map_or(0, |a| a.nonce);
        if nonce < on_chain {
            return Err(TxError::NonceTooLow {
                next: on_chain,
                got: nonce,
            }
            .into());
        }
        if nonce - on_chain >= MAX_PER_SENDER as u64 {
            let max = MAX_PER_SENDER as u64 - 1;
            return Err(PoolError::TooFarAhead {
                next: on_chain,
                got: nonce,
                max,
            });
        }
        let replaces = inner.pool.at(sender, nonce).cloned();
        let mut evicted = Vec::new();
        match &replaces {
            Some(old) => Pool::check_replacement(old, &tx)?,
            None => evicted = self.check_room(&mut inner, &tx, raw.len())?,
        }
        let seq = replaces
            .as_ref()
            .map_or_else(|| inner.pool.next_seq(), |old| old.seq);
        let mut entry = Entry {
            tx,
            raw: Bytes::copy_from_slice(raw),
            seq,
            flight: None,
            gas_used: None,
        };
        match replaces {
            Some(old) => self.replace(&mut inner, vec![old], entry)?,
            None => {
                let (next, balance) = inner.pending.nonce_and_balance(sender)?;
                let sight = inner.pending.sight();
                // The more gas, the less per gas: what is too cheap at its limit is too cheap, unexecuted.
                self.check_price(&entry, sight, entry.tx.tx.gas_limit())?;
                if !evicted.is_empty() {
                    if nonce != next {
                        check_funds(&entry.tx, balance)?;
                    }
                    let gone = evicted.iter().filter_map(|hash| inner.pool.get(*hash).cloned());
                    let gone: Vec<Entry> = gone.collect();
                    self.replace(&mut inner, gone, entry)?;
                } else if nonce == next {
                    let price = |gas_used| self.check_price(&entry, sight, gas_used);
                    entry.gas_used = Some(inner.pending.run(self.genesis(), &entry.tx, price)?);
                    self.store.write([(hash, entry.record())], [])?;
                    inner.pool.insert(entry);
                    self.promote(&mut inner, sender)?;
                } else {
                    check_funds(&entry.tx, balance)?;
                    self.store.write([(hash, entry.record())], [])?;
                    inner.pool.insert(entry);
                }
            }
        }
        Ok(hash)
    }

    /// Whether there is room for `tx`; what must go for it, where everything here is full and it pays more.
    fn check_room(&self, inner: &mut Inner, tx: &SignedTx, len: usize) -> Result<Vec<B256>, PoolError> {
        let (sender, nonce) = (tx.sender, tx.tx.nonce());
        let queue = inner.pool.of(sender);
        if queue.is_some_and(|queue| queue.len() >= MAX_PER_SENDER) {
            return Err(PoolError::SenderFull { max: MAX_PER_SENDER });
        }
        let base_fee = inner.pending.sight().base_fee;
        let (next, _) = inner.pending.nonce_and_balance(sender)?;
        // Whether it runs on the pending state is not known yet: here it counts as if it did.
        let worth = tx
            .priority_fee(base_fee)
            .map_or((false, 0), |tip| (nonce == next, tip));
        let pool = &inner.pool;
        pool.make_room(MAX_TXS - 1, MAX_BYTES - len, base_fee, (sender, nonce), worth)
            .ok_or(PoolError::Full {
                max: MAX_TXS,
                max_bytes: MAX_BYTES,
            })
    }

    /// Whether the priority fee pays the inscriber's satoshis (PROTOCOL 15).
    fn check_price(&self, entry: &Entry, sight: BlockSight, gas_used: u64) -> Result<(), PoolError> {
        let max_fee = entry.tx.tx.max_fee_per_gas();
        let base_fee = sight.base_fee;
        let got = entry
            .tx
            .priority_fee(base_fee)
            .ok_or(TxError::FeeBelowBase { max_fee, base_fee })?;
        let min = self.quote.min_priority_fee(entry.raw.len(), gas_used);
        if U256::from(got) < min {
            return Err(PoolError::Underpriced { got, min, base_fee });
        }
        Ok(())
    }

    /// Puts `new` in the place of `old`; where `new` would fail, everything stays as it was.
    fn replace(&self, inner: &mut Inner, old: Vec<Entry>, new: Entry) -> Result<(), PoolError> {
        let (hash, record) = (new.tx.hash, new.record());
        let (sender, nonce) = (new.tx.sender, new.nonce());
        for old in &old {
            inner.pool.remove(old.tx.hash);
        }
        inner.pool.insert(new.clone());
        let verdict = self.rebuild(inner).map_err(PoolError::State).and_then(|refused| {
            if let Some((_, why)) = refused.into_iter().find(|(refused, _)| *refused == hash) {
                return Err(why);
            }
            let entry = inner.pool.at(sender, nonce).unwrap_or(&new);
            let gas_used = entry.gas_used.unwrap_or(new.tx.tx.gas_limit());
            self.check_price(entry, inner.pending.sight(), gas_used)
        });
        match verdict {
            Ok(()) => {
                let gone = old.iter().map(|old| old.tx.hash);
                Ok(self.store.write([(hash, record)], gone)?)
            }
            Err(error) => {
                inner.pool.remove(hash);
                for old in old {
                    inner.pool.insert(old);
                }
                self.rebuild(inner)?;
                Err(error)
            }
        }
    }

    /// Runs what waited for the transaction that just came.
    fn promote(&self, inner: &mut Inner, sender: Address) -> Result<(), StateError> {
        loop {
            let (next, _) = inner.pending.nonce_and_balance(sender)?;
            let Some(entry) = inner.pool.at(sender, next) else {
                return Ok(());
            };
            if entry.gas_used.is_some() {
                return Ok(());
            }
            let (tx, hash) = (entry.tx.clone(), entry.tx.hash);
            match inner.pending.run(self.genesis(), &tx, |_| Ok(())) {
                Ok(gas_used) => {
                    if let Some(entry) = inner.pool.get_mut(hash) {
                        entry.gas_used = Some(gas_used);
                    }
                }
                Err(PoolError::State(error)) => return Err(error),
                Err(why) => {
                    self.let_go(inner, hash, &why)?;
                    return Ok(());
                }
            }
        }
    }

    /// Removes a waiting transaction that turned out to fail.
    fn let_go(&self, inner: &mut Inner, hash: B256, why: &PoolError) -> Result<(), StateError> {
        tracing::info!(%hash, %why, "mempool: transaction let go");
        inner.pool.remove(hash);
        self.store.write([], [hash])
    }

    /// Builds the pending state anew from the newest block, removing what is executed or would fail.
    fn refresh(&self, inner: &mut Inner) -> Result<(), StateError> {
        for (hash, why) in self.rebuild(inner)? {
            self.let_go(inner, hash, &why)?;
        }
        Ok(())
    }

    /// The same without removing what would fail: returns that, with reasons.
    fn rebuild(&self, inner: &mut Inner) -> Result<Vec<(B256, PoolError)>, StateError> {
        let view = self.chain.view()?;
        let mut gone = Vec::new();
        for sender in inner.pool.senders() {
            let nonce = view.account(sender)?.map_or(0, |a| a.nonce);
            let used: Vec<B256> = inner
                .pool
                .of(sender)
                .map(|queue| queue.range(..nonce).map(|(_, e)| e.tx.hash).collect())
                .unwrap_or_default();
            gone.extend(used);
        }
        for hash in &gone {
            inner.pool.remove(*hash);
        }
        if !gone.is_empty() {
            self.store.write([], gone)?;
        }
        inner.pending = Pending::new(self.genesis(), view, inner.coinbase)?;
        let mut refused = Vec::new();
        for (sender, nonce) in inner.pool.by_arrival() {
            let Some(entry) = inner.pool.at_mut(sender, nonce) else {
                continue;
            };
            entry.gas_used = None;
            let (next, _) = inner.pending.nonce_and_balance(sender)?;
            if nonce != next {
                continue;
            }
            let run = match entry.flight {
                Some(_) => inner.pending.run_inscribed(self.chain.genesis(), &entry.tx),
                None => inner.pending.run(self.chain.genesis(), &entry.tx, |_| Ok(())),
            };
            match run {
                Ok(gas_used) => entry.gas_used = Some(gas_used),
                Err(PoolError::State(error)) => return Err(error),
                // On Bitcoin it is out of our hands; with a base fee too high it waits.
                Err(_) if entry.flight.is_some() => {}
                Err(PoolError::Tx(TxError::FeeBelowBase { .. })) => {}
                Err(why) => refused.push((entry.tx.hash, why)),
            }
        }
        Ok(refused)
    }

    /// Transactions that can run now, and those that wait for an earlier nonce.
    pub fn counts(&self) -> (u64, u64) {
        let inner = self.lock();
        let ready = inner.pool.all().filter(|e| e.gas_used.is_some()).count() as u64;
        (ready, inner.pool.len() as u64 - ready)
    }

    /// A transaction here.
    pub fn get(&self, hash: B256) -> Option<PoolTx> {
        let inner = self.lock();
        let entry = inner.pool.get(hash)?;
        Some(PoolTx {
            tx: entry.tx.clone(),
            reveal_txid: entry.flight.map(|f| f.reveal_txid),
            ready: entry.gas_used.is_some(),
        })
    }

    /// Everything here, by sender and nonce.
    pub fn content(&self) -> Vec<PoolTx> {
        let inner = self.lock();
        inner
            .pool
            .all()
            .map(|entry| PoolTx {
                tx: entry.tx.clone(),
                reveal_txid: entry.flight.map(|f| f.reveal_txid),
                ready: entry.gas_used.is_some(),
            })
            .collect()
    }

    /// The nonce that an account's next transaction should have.
    pub fn pending_nonce(&self, address: Address) -> Result<u64, StateError> {
        Ok(self.lock().pending.nonce_and_balance(address)?.0)
    }

    /// The pending state and the block that it belongs to.
    pub fn pending(&self) -> (Overlay<View>, BlockSight) {
        let inner = self.lock();
        (inner.pending.overlay(), inner.pending.sight())
    }

    /// A priority fee per gas, in wei, that pays for inscribing a plain transfer with a quarter to spare.
    /// Calls and creations use more gas a byte, so it pays for them too.
    pub fn suggested_priority_fee(&self) -> U256 {
        let min = self.quote.min_priority_fee(150, 21_000);
        min + min / U256::from(4)
    }

    /// The least priority fee per gas for a transaction here, by its bytes and the gas it used.
    pub fn min_priority_fee(&self, hash: B256) -> Option<U256> {
        let inner = self.lock();
        let entry = inner.pool.get(hash)?;
        let gas = entry.gas_used.unwrap_or(entry.tx.tx.gas_limit());
        Some(self.quote.min_priority_fee(entry.raw.len(), gas))
    }

    /// Storage trouble while following the chain: the next block or submission tries again.
    fn report(&self, result: Result<(), StateError>) {
        if let Err(error) = result {
            tracing::error!(%error, "mempool");
        }
    }
}

/// What every transaction of a queue must show on its own: value and dearest gas are there.
fn check_funds(tx: &SignedTx, have: U256) -> Result<(), TxError> {
    let gas = U256::from(tx.tx.gas_limit()).saturating_mul(U256::from(tx.tx.max_fee_per_gas()));
    let want = gas.saturating_add(tx.tx.value());
    if want > have {
        Err(TxError::Funds { have, want })
    } else {
        Ok(())
    }
}

impl TxSource for Mempool {
    fn ready(&self, max_bytes: usize) -> Vec<(B256, Bytes)> {
        let inner = self.lock();
        let sight = inner.pending.sight();
        inner.pool.best(sight.base_fee, max_bytes, |entry| {
            entry
                .gas_used
                .is_some_and(|gas| self.check_price(entry, sight, gas).is_ok())
        })
    }

    fn inscribed(&self, hashes: &[B256], reveal_txid: B256) {
        let mut inner = self.lock();
        let since = self.chain.head().1.number;
        let mut put = Vec::new();
        for hash in hashes {
            if let Some(entry) = inner.pool.get_mut(*hash) {
                entry.flight = Some(Flight { reveal_txid, since });
                put.push((*hash, entry.record()));
            }
        }
        self.report(self.store.write(put, []));
    }

    fn payload_min(&self, txs: &[Bytes]) -> usize {
        let gas = txs
            .iter()
            .filter_map(|raw| gas_limit_of(raw))
            .fold(0, u64::saturating_add);
        usize::try_from(gas.div_ceil(self.genesis().gas_per_byte)).unwrap_or(usize::MAX)
    }

    fn released(&self, hashes: &[B256]) {
        let mut inner = self.lock();
        let mut put = Vec::new();
        for hash in hashes {
            if let Some(entry) = inner.pool.get_mut(*hash) {
                entry.flight = None;
                put.push((*hash, entry.record()));
            }
        }
        self.report(self.store.write(put, []));
        self.report(self.refresh(&mut inner));
    }
}

impl ChainObserver for Mempool {
    fn block_applied(&self, block: &Arc<AppliedBlock>) {
        let mut inner = self.lock();
        let height = block.header.number;
        let mut put = Vec::new();
        // Dropped by the block though we hold it: it may be worth another envelope, if it can still run.
        for dropped in &block.dropped {
            if let Some(entry) = inner.pool.get_mut(dropped.hash) {
                entry.flight = None;
                put.push((dropped.hash, entry.record()));
            }
        }
        for entry in inner.pool.all_mut() {
            if entry.flight.is_some_and(|f| f.since + FLIGHT_BLOCKS <= height) {
                entry.flight = None;
                put.push((entry.tx.hash, entry.record()));
            }
        }
        if !put.is_empty() {
            self.report(self.store.write(put, []));
        }
        self.report(self.refresh(&mut inner));
    }

    fn rewound(&self, removed: &[StoredBlock]) {
        let mut inner = self.lock();
        let since = self.chain.head().1.number;
        let mut put = Vec::new();
        // Oldest block first, so that arrival keeps the order they ran in.
        for block in removed.iter().rev() {
            for (raw, executed) in raw_txs(block).into_iter().zip(&block.txs) {
                let Ok(tx) = SignedTx::decode(&raw, self.genesis()) else {
                    continue;
                };
                if inner.pool.at(tx.sender, tx.tx.nonce()).is_some() {
                    continue;
                }
                let seq = inner.pool.next_seq();
                // Its reveal most likely confirms again; whoever wrote it says when it cannot.
                let flight = Some(Flight {
                    reveal_txid: executed.reveal_txid,
                    since,
                });
                let entry = Entry {
                    tx,
                    raw,
                    seq,
                    flight,
                    gas_used: None,
                };
                put.push((entry.tx.hash, entry.record()));
                inner.pool.insert(entry);
            }
        }
        self.report(self.store.write(put, []));
        self.report(self.refresh(&mut inner));
    }
}
