//! Follows Bitcoin's best chain and feeds its blocks to the state machine, undoing what a reorg replaced.

use crate::bitcoin::{Backend, BackendError, BlockRef, HeaderInfo, b256};
use crate::block::{BlockInput, Tip};
use crate::envelope::scan;
use crate::follow::{self, Follower, Step};
use alloy_primitives::B256;
use bitcoin::{Block, BlockHash};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// Why the state machine could not take a block. What a block *contains* is never a reason: foreign or
/// malformed envelopes and transactions are dropped and counted.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The block does not follow the ledger's tip.
    #[error("block {got} does not follow the ledger's tip: it wants Bitcoin height {expected}")]
    NotNext {
        /// Bitcoin height that the ledger can take.
        expected: u64,
        /// Bitcoin height offered.
        got: u64,
    },
    /// The block's parent is not the ledger's tip.
    #[error("block at Bitcoin height {bitcoin_height} has parent {got}, the ledger's tip is {expected}")]
    WrongParent {
        /// Bitcoin height offered.
        bitcoin_height: u64,
        /// Hash of the ledger's tip, internal byte order.
        expected: B256,
        /// Parent named by the block, internal byte order.
        got: B256,
    },
    /// Disk trouble.
    #[error("the ledger's storage failed: {0}")]
    Storage(String),
}

/// The state machine as the indexer sees it; implemented by the ledger of `state`.
pub trait Ledger: Send + Sync {
    /// Bitcoin height of BitAI's genesis (BitAI height 0). The first block applied is the one after it.
    fn start_height(&self) -> u64;

    /// The newest executed block; `None` while only genesis exists.
    fn tip(&self) -> Option<Tip>;

    /// Bitcoin hash (internal byte order) of the executed block at this Bitcoin height; `None` at or below
    /// [`Ledger::start_height`], above the tip, or where the ledger has forgotten it.
    fn bitcoin_hash_at(&self, bitcoin_height: u64) -> Option<B256>;

    /// Executes the block after the tip, durably; returns the hashes of the executed transactions in order.
    fn apply(&self, input: &BlockInput) -> Result<Vec<B256>, LedgerError>;

    /// Undoes blocks until the tip's Bitcoin height is `to_bitcoin_height` or less; returns the new tip
    /// (`None`: genesis). It may land lower than asked where undo data are gone (a snapshot, or genesis);
    /// the indexer goes on from wherever it lands.
    fn rewind(&self, to_bitcoin_height: u64) -> Result<Option<Tip>, LedgerError>;
}

/// Why the indexer stopped for a moment. It always goes on.
#[derive(Debug, thiserror::Error)]
pub enum IndexerError {
    /// Bitcoin.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The state machine.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Feeds Bitcoin's blocks to a ledger.
pub struct Indexer {
    backend: Arc<dyn Backend>,
    ledger: Arc<dyn Ledger>,
    genesis_id: [u8; 4],
    tips: watch::Sender<Option<Tip>>,
    bitcoin_tip: Arc<AtomicU64>,
}

/// No Bitcoin height: the node could not be asked.
const UNKNOWN: u64 = u64::MAX;

impl std::fmt::Debug for Indexer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Indexer")
            .field("tip", &self.ledger.tip())
            .finish_non_exhaustive()
    }
}

impl Indexer {
    /// An indexer of the chain whose envelopes carry `genesis_id`.
    pub fn new(backend: Arc<dyn Backend>, ledger: Arc<dyn Ledger>, genesis_id: [u8; 4]) -> Self {
        let (tips, _) = watch::channel(ledger.tip());
        Self {
            backend,
            ledger,
            genesis_id,
            tips,
            bitcoin_tip: Arc::new(AtomicU64::new(UNKNOWN)),
        }
    }

    /// Tells the height that Bitcoin had at the last step, without asking it; `None` while it does not answer.
    pub fn bitcoin_tip(&self) -> Arc<dyn Fn() -> Option<u64> + Send + Sync> {
        let seen = Arc::clone(&self.bitcoin_tip);
        Arc::new(move || Some(seen.load(Ordering::Relaxed)).filter(|height| *height != UNKNOWN))
    }

    /// The newest tip, now and whenever it changes.
    pub fn tips(&self) -> watch::Receiver<Option<Tip>> {
        self.tips.subscribe()
    }

    /// Takes one block, or undoes what a reorg replaced.
    pub fn step(&mut self) -> Result<Step, IndexerError> {
        let backend = Arc::clone(&self.backend);
        let seen = backend.tip();
        self.bitcoin_tip
            .store(seen.as_ref().map_or(UNKNOWN, |tip| tip.height), Ordering::Relaxed);
        seen?;
        let step = follow::step(&*backend, self)?;
        if step != Step::AtTip {
            self.tips.send_replace(self.ledger.tip());
        }
        Ok(step)
    }

    /// Steps until the ledger stands where Bitcoin does.
    pub fn catch_up(&mut self) -> Result<(), IndexerError> {
        while self.step()? != Step::AtTip {}
        Ok(())
    }

    /// Follows until told to stop; trouble is logged and tried again, ever more slowly.
    pub fn run(&mut self, poll: Duration, stop: &AtomicBool) {
        let mut wait = poll;
        while !stop.load(Ordering::Acquire) {
            match self.step() {
                Ok(Step::AtTip) => wait = poll,
                Ok(_) => continue,
                Err(error) => {
                    wait = (wait * 2).min(Duration::from_secs(10));
                    tracing::warn!(%error, "the indexer waits");
                }
            }
            std::thread::sleep(wait);
        }
    }
}

impl Follower for Indexer {
    type Error = IndexerError;

    fn start_height(&self) -> u64 {
        self.ledger.start_height()
    }

    fn place(&self) -> Result<Option<BlockRef>, IndexerError> {
        let start = self.ledger.start_height();
        Ok(self
            .ledger
            .tip()
            .filter(|tip| tip.bitcoin_height > start)
            .map(|tip| BlockRef {
                height: tip.bitcoin_height,
                hash: follow::block_hash(tip.bitcoin_hash),
            }))
    }

    fn own_hash_at(&self, height: u64) -> Result<Option<BlockHash>, IndexerError> {
        Ok(self.ledger.bitcoin_hash_at(height).map(follow::block_hash))
    }

    fn undo_to(&mut self, height: u64) -> Result<(), IndexerError> {
        let tip = self.ledger.rewind(height)?;
        let landed = tip.map_or(self.ledger.start_height(), |t| t.bitcoin_height);
        tracing::warn!(fork = height, landed, "Bitcoin reorganised: BitAI blocks undone");
        Ok(())
    }

    fn connect(&mut self, info: &HeaderInfo, block: &Block) -> Result<(), IndexerError> {
        let found = scan::block(block, self.genesis_id);
        for (reason, count) in &found.void {
            tracing::debug!(bitcoin_height = info.height, count, %reason, "void envelopes");
        }
        let input = BlockInput {
            bitcoin_height: info.height,
            hash: b256(info.header.block_hash()),
            prev: b256(info.header.prev_blockhash),
            median_time_past: info.median_time_past,
            envelopes: found.envelopes,
        };
        let executed = self.ledger.apply(&input)?;
        if !input.envelopes.is_empty() || !found.void.is_empty() {
            let inscribed: usize = input.envelopes.iter().map(|e| e.txs.len()).sum();
            tracing::info!(
                bitcoin_height = info.height,
                bitcoin_hash = %info.header.block_hash(),
                envelopes = input.envelopes.len(),
                void = found.void.values().sum::<u64>(),
                inscribed,
                executed = executed.len(),
                "block indexed"
            );
        }
        Ok(())
    }
}
