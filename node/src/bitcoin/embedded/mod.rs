//! A private regtest chain in the process: Bitcoin Core's consensus code through `bitcoinkernel`, a small
//! pool, blocks on demand. On disk; a kill loses nothing that a call had answered.

mod coins;
mod log;
mod pool;

use super::assemble::{self, Parent};
use super::{Backend, BackendError, BlockRef, HeaderInfo, SatPerKvb, Submitted, TxStatus};
use bitcoin::consensus::encode;
use bitcoin::hashes::Hash;
use bitcoin::{Block, BlockHash, Network, Script, Transaction, Txid};
use bitcoinkernel::prelude::*;
use bitcoinkernel::{
    Block as KernelBlock, BlockHash as KernelHash, BlockTreeEntry, BlockValidationStateRef, ChainType,
    ChainstateManager, Context, ContextBuilder, ProcessBlockResult, ValidationMode,
};
use coins::Coins;
use log::BlockLog;
use pool::Pool;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Blocks whose times make a median.
const MEDIAN_SPAN: usize = 11;
/// Rate that an empty pool asks, so that the inscriber has something to bid.
const FALLBACK_RATE: SatPerKvb = SatPerKvb(1_000);

/// Why the last block checked was found invalid.
type Verdict = Arc<Mutex<Option<String>>>;

/// The chain.
pub struct EmbeddedRegtest {
    // Dropped in this order: the chain before the context it lives in.
    inner: Mutex<Inner>,
    verdict: Verdict,
    _context: Context,
    /// Held as long as the files are open.
    _lock: File,
}

struct Inner {
    chain: ChainstateManager,
    coins: Coins,
    pool: Pool,
    log: BlockLog,
    mined: u64,
}

fn embedded(what: impl std::fmt::Display) -> BackendError {
    BackendError::Embedded(what.to_string())
}

impl std::fmt::Debug for EmbeddedRegtest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EmbeddedRegtest")
    }
}

impl EmbeddedRegtest {
    /// Opens the chain kept in `dir`, or begins one there.
    pub fn open(dir: &Path) -> Result<Self, BackendError> {
        static QUIET: Once = Once::new();
        QUIET.call_once(bitcoinkernel::disable_logging);
        std::fs::create_dir_all(dir).map_err(|e| embedded(format!("{}: {e}", dir.display())))?;
        let lock = lock(dir)?;
        let verdict: Verdict = Arc::default();
        let heard = Arc::clone(&verdict);
        let context = ContextBuilder::new()
            .chain_type(ChainType::Regtest)
            .with_block_checked_validation(move |_block: KernelBlock, state: BlockValidationStateRef<'_>| {
                let why = (state.mode() != ValidationMode::Valid).then(|| format!("{:?}", state.result()));
                *heard.lock().unwrap_or_else(PoisonError::into_inner) = why;
            })
            .build()
            .map_err(embedded)?;
        let (log, logged) = BlockLog::open(&dir.join("blocks.log")).map_err(embedded)?;
        let chain = open_chain(&context, dir)?;
        let mut inner = Inner {
            chain,
            coins: Coins::default(),
            pool: Pool::default(),
            log,
            mined: 0,
        };
        for block in &logged {
            if inner.entry(&block.block_hash()).is_none() {
                inner.process(block, &verdict)?;
            }
        }
        inner.follow()?;
        // Blocks mined after a restart differ from those before it, whatever the clock says.
        inner.mined = logged.len() as u64;
        Ok(Self {
            inner: Mutex::new(inner),
            verdict,
            _context: context,
            _lock: lock,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere leaves the consensus library's state as it was: it has its own locks.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the directory for this process. Without it a second node would find the files of the first
/// unreadable, and make them anew.
fn lock(dir: &Path) -> Result<File, BackendError> {
    let path = dir.join("lock");
    let trouble = |e: std::io::Error| embedded(format!("{}: {e}", path.display()));
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(trouble)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BackendError::InUse(dir.to_owned())),
        Err(TryLockError::Error(e)) => Err(trouble(e)),
    }
}

/// Opens the consensus library's files; where a kill left them unreadable they are made anew from the log.
fn open_chain(context: &Context, dir: &Path) -> Result<ChainstateManager, BackendError> {
    let (data, blocks) = (dir.join("chain"), dir.join("chain/blocks"));
    let open = || {
        let path = |p: &Path| {
            p.to_str()
                .map(str::to_owned)
                .ok_or_else(|| embedded(format!("{}: not UTF-8", p.display())))
        };
        std::fs::create_dir_all(&blocks).map_err(embedded)?;
        let chain = ChainstateManager::builder(context, &path(&data)?, &path(&blocks)?)
            .and_then(|b| b.worker_threads(0).build())
            .map_err(embedded)?;
        chain.import_blocks().map_err(embedded)?;
        Ok(chain)
    };
    open().or_else(|e: BackendError| {
        tracing::warn!(error = %e, "the embedded chain's files cannot be read; they are made anew from the block log");
        std::fs::remove_dir_all(&data).map_err(embedded)?;
        open()
    })
}

fn hash_of(entry: &BlockTreeEntry<'_>) -> BlockHash {
    BlockHash::from_byte_array(entry.block_hash().to_bytes())
}

fn height_of(entry: &BlockTreeEntry<'_>) -> u64 {
    u64::try_from(entry.height()).unwrap_or(0)
}

fn median_time_past(entry: BlockTreeEntry<'_>) -> u64 {
    let mut times = Vec::with_capacity(MEDIAN_SPAN);
    let mut at = Some(entry);
    while let Some(entry) = at.filter(|_| times.len() < MEDIAN_SPAN) {
        times.push(entry.header().timestamp());
        at = entry.prev();
    }
    times.sort_unstable();
    u64::from(times[times.len() / 2])
}

impl Inner {
    fn entry(&self, hash: &BlockHash) -> Option<BlockTreeEntry<'_>> {
        self.chain
            .get_block_tree_entry(&KernelHash::from(hash.to_byte_array()))
    }

    fn tip(&self) -> BlockRef {
        let tip = self.chain.active_chain().tip();
        BlockRef {
            height: height_of(&tip),
            hash: hash_of(&tip),
        }
    }

    fn hash_at(&self, height: u64) -> Option<BlockHash> {
        let entry = self
            .chain
            .active_chain()
            .at_height(usize::try_from(height).ok()?)?;
        Some(hash_of(&entry))
    }

    fn read(&self, entry: &BlockTreeEntry<'_>) -> Result<Block, BackendError> {
        let bytes = self
            .chain
            .read_block_data(entry)
            .and_then(|b| b.consensus_encode())
            .map_err(embedded)?;
        encode::deserialize(&bytes).map_err(embedded)
    }

    /// Gives a block to consensus. The library answers "new" for a block that it then finds invalid, so the
    /// verdict of the check is asked as well.
    fn process(&self, block: &Block, verdict: &Verdict) -> Result<(), BackendError> {
        let hash = block.block_hash();
        let refused = |reason: String| BackendError::BlockRefused { hash, reason };
        let kernel = KernelBlock::new(&encode::serialize(block)).map_err(|e| refused(e.to_string()))?;
        *verdict.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let result = self.chain.process_block(&kernel);
        let why = verdict.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (result, why) {
            (ProcessBlockResult::Rejected, why) => Err(refused(why.unwrap_or_else(|| "rejected".into()))),
            (_, Some(why)) => Err(refused(why)),
            (_, None) => Ok(()),
        }
    }

    /// Brings coins and pool to the consensus library's tip.
    fn follow(&mut self) -> Result<(), BackendError> {
        let (mut back, mut undone) = (Vec::new(), false);
        while let Some(hash) = self.coins.hash_at(self.coins.height()) {
            if self.hash_at(self.coins.height()) == Some(hash) {
                break;
            }
            let block = self.entry(&hash).map(|e| self.read(&e)).transpose()?;
            back.extend(block.into_iter().flat_map(|b| b.txdata.into_iter().skip(1)).rev());
            self.coins.disconnect();
            undone = true;
        }
        if undone {
            // Oldest first, parents before children, then what waited already: its coins may be gone, too.
            back.reverse();
            back.extend(self.pool.drain());
        }
        while let Some(hash) = self.hash_at(self.coins.height() + 1) {
            let entry = self
                .entry(&hash)
                .ok_or_else(|| embedded(format!("block {hash} vanished")))?;
            let block = self.read(&entry)?;
            self.coins.connect(&block);
            self.pool.connected(&block.txdata[1..]);
        }
        for tx in back {
            let mtp = self.tip_median();
            // What the new branch spent otherwise, or has already, falls away here.
            if let Err((_, why)) = self.pool.add(&tx, &self.coins, mtp, SatPerKvb(u64::MAX)) {
                tracing::debug!(txid = %tx.compute_txid(), why, "not returned to the pool after a reorg");
            }
        }
        Ok(())
    }

    fn tip_median(&self) -> u64 {
        median_time_past(self.chain.active_chain().tip())
    }

    /// Checks, logs and connects a block.
    fn accept(&mut self, block: &Block, verdict: &Verdict) -> Result<(), BackendError> {
        let known = self.entry(&block.block_hash()).is_some();
        self.process(block, verdict)?;
        if !known {
            self.log.append(block).map_err(embedded)?;
        }
        self.follow()
    }
}

impl Backend for EmbeddedRegtest {
    fn network(&self) -> Network {
        Network::Regtest
    }

    fn tip(&self) -> Result<BlockRef, BackendError> {
        Ok(self.lock().tip())
    }

    fn hash_at(&self, height: u64) -> Result<Option<BlockHash>, BackendError> {
        Ok(self.lock().hash_at(height))
    }

    fn header(&self, hash: &BlockHash) -> Result<Option<HeaderInfo>, BackendError> {
        let inner = self.lock();
        let Some(entry) = inner.entry(hash) else {
            return Ok(None);
        };
        let header = encode::deserialize(&<[u8; 80]>::from(entry.header().to_owned())).map_err(embedded)?;
        Ok(Some(HeaderInfo {
            header,
            height: height_of(&entry),
            in_best_chain: inner.chain.active_chain().contains(&entry),
            median_time_past: median_time_past(entry),
        }))
    }

    fn block(&self, hash: &BlockHash) -> Result<Option<Block>, BackendError> {
        let inner = self.lock();
        inner.entry(hash).map(|entry| inner.read(&entry)).transpose()
    }

    fn submit(&self, tx: &Transaction, max_fee_rate: SatPerKvb) -> Result<Submitted, BackendError> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let txid = tx.compute_txid();
        if inner.pool.contains(&txid) {
            return Ok(Submitted::InPool);
        }
        if inner.coins.mined_at(&txid).is_some() {
            return Ok(Submitted::Confirmed);
        }
        let mtp = inner.tip_median();
        match inner.pool.add(tx, &inner.coins, mtp, max_fee_rate) {
            Ok(()) => Ok(Submitted::Accepted),
            Err((refusal, reason)) => Err(BackendError::TxRefused {
                txid,
                refusal,
                reason,
            }),
        }
    }

    fn tx_status(&self, txid: &Txid) -> Result<TxStatus, BackendError> {
        let inner = self.lock();
        if inner.pool.contains(txid) {
            return Ok(TxStatus::Pool);
        }
        let at = inner.coins.mined_at(txid);
        Ok(at
            .and_then(|height| inner.coins.hash_at(height).map(|hash| BlockRef { height, hash }))
            .map_or(TxStatus::Unknown, TxStatus::Confirmed))
    }

    fn fee_rate(&self, _blocks: u16) -> Result<Option<SatPerKvb>, BackendError> {
        Ok(Some(FALLBACK_RATE))
    }

    fn pool_len(&self) -> Result<u64, BackendError> {
        Ok(self.lock().pool.len() as u64)
    }

    fn generate(&self, blocks: u32, to: &Script) -> Result<Vec<BlockHash>, BackendError> {
        let mut made = Vec::new();
        for _ in 0..blocks {
            let mut inner = self.lock();
            let tip = inner.tip();
            let parent = Parent {
                hash: tip.hash,
                height: tip.height,
                median_time_past: inner.tip_median(),
            };
            let (txs, fees) = inner.pool.template();
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| d.as_secs());
            inner.mined += 1;
            let tag = inner.mined.to_be_bytes();
            let block = assemble::block(parent, txs, fees, to, now, tag);
            inner.accept(&block, &self.verdict)?;
            made.push(block.block_hash());
        }
        Ok(made)
    }

    fn submit_block(&self, block: &Block) -> Result<(), BackendError> {
        self.lock().accept(block, &self.verdict)
    }
}
