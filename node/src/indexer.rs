//! Follows Bitcoin's best chain and feeds its blocks to the state machine, undoing what a reorg replaced.

use crate::block::{BlockInput, Tip};
use alloy_primitives::B256;

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
