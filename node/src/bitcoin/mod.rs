//! Bitcoin as the node needs it: one trait, two implementations. [`embedded`] is a regtest chain inside the
//! process (Bitcoin Core's consensus code); [`core`] speaks to a Bitcoin Core node over RPC.
//!
//! Calls block. The indexer, the inscriber and the block producer each have a thread of their own, and none
//! of them holds a lock across a call.

pub mod assemble;
pub mod core;
#[cfg(feature = "embedded-bitcoin")]
pub mod embedded;

use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::{Block, BlockHash, Network, Script, Transaction, Txid};

/// Weight of a transaction that nodes relay, weight units.
pub const RELAY_WEIGHT_MAX: u64 = 400_000;
/// Unconfirmed transactions that hang together, at most (Bitcoin Core 31).
pub const CLUSTER_TXS_MAX: usize = 64;
/// Virtual bytes of the same, at most.
pub const CLUSTER_VBYTES_MAX: u64 = 101_000;

/// A block's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRef {
    /// Height.
    pub height: u64,
    /// Hash.
    pub hash: BlockHash,
}

/// A header with what only the chain knows about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderInfo {
    /// The 80 bytes.
    pub header: Header,
    /// Height.
    pub height: u64,
    /// Median time of the block and the ten before it, unix seconds.
    pub median_time_past: u64,
    /// Whether the best chain has it.
    pub in_best_chain: bool,
}

/// A fee rate in satoshis per 1,000 virtual bytes, as Bitcoin Core counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SatPerKvb(pub u64);

impl SatPerKvb {
    /// The fee of `vbytes` at this rate, satoshis, rounded up.
    pub fn fee(self, vbytes: u64) -> u64 {
        self.0.saturating_mul(vbytes).div_ceil(1000)
    }

    /// The rate of `fee` satoshis for `vbytes`, rounded down.
    pub fn of(fee: u64, vbytes: u64) -> Self {
        Self(fee.saturating_mul(1000) / vbytes.max(1))
    }
}

/// Where a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxStatus {
    /// Neither in the pool nor, as far as the backend can tell, in a block.
    Unknown,
    /// In the pool.
    Pool,
    /// In a block of the best chain. Bitcoin Core knows this only with `-txindex`.
    Confirmed(BlockRef),
}

/// What became of a submitted transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// It entered the pool.
    Accepted,
    /// It was there before.
    InPool,
    /// A block has it.
    Confirmed,
}

/// Why the pool refused a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// An input's coin is unknown or spent in a block.
    MissingInputs,
    /// It replaces others and pays too little for that.
    Replacement,
    /// It pays less than the pool asks.
    FeeTooLow,
    /// It pays more than the caller allowed.
    FeeTooHigh,
    /// Too many or too large unconfirmed relatives.
    Cluster,
    /// Against consensus or relay rules otherwise.
    Invalid,
}

impl Refusal {
    /// Whether the same bytes may be taken later.
    pub fn may_pass_later(self) -> bool {
        matches!(self, Self::MissingInputs | Self::FeeTooLow | Self::Cluster)
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The transaction was refused.
    #[error("Bitcoin refused transaction {txid}: {reason}")]
    TxRefused {
        /// Which.
        txid: Txid,
        /// The class of reason, for the caller to act on.
        refusal: Refusal,
        /// The reason as the backend says it.
        reason: String,
    },
    /// The block was refused.
    #[error("Bitcoin refused block {hash}: {reason}")]
    BlockRefused {
        /// Which.
        hash: BlockHash,
        /// The reason as the backend says it.
        reason: String,
    },
    /// The node cannot be reached: worth trying again.
    #[error("Bitcoin node {url} cannot be reached: {reason}; is it running, and do URL and cookie fit?")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The node answered with an error.
    #[error("Bitcoin RPC {method} failed ({code}): {message}")]
    Rpc {
        /// Method called.
        method: &'static str,
        /// JSON-RPC error code.
        code: i64,
        /// The node's words.
        message: String,
    },
    /// The node answered something that is no answer.
    #[error("Bitcoin RPC {method} gave an answer that cannot be read: {what}")]
    Answer {
        /// Method called.
        method: &'static str,
        /// What was wrong.
        what: String,
    },
    /// Only regtest mines on demand.
    #[error("blocks can be made on regtest only, this is {0}")]
    NotRegtest(Network),
    /// Another process, or another part of this one, has the embedded chain open.
    #[error("{} is in use by another node; stop that one, or name another data directory", .0.display())]
    InUse(std::path::PathBuf),
    /// Disk or library trouble.
    #[error("embedded Bitcoin failed: {0}")]
    Embedded(String),
}

/// A Bitcoin node as this node uses it.
pub trait Backend: Send + Sync {
    /// Which network it is on.
    fn network(&self) -> Network;

    /// The best chain's tip.
    fn tip(&self) -> Result<BlockRef, BackendError>;

    /// Hash of the best chain's block at `height`; `None` above the tip.
    fn hash_at(&self, height: u64) -> Result<Option<BlockHash>, BackendError>;

    /// A header by hash, on the best chain or off it; `None` if unknown.
    fn header(&self, hash: &BlockHash) -> Result<Option<HeaderInfo>, BackendError>;

    /// A block by hash; `None` if unknown or pruned.
    fn block(&self, hash: &BlockHash) -> Result<Option<Block>, BackendError>;

    /// Offers a transaction to the pool: it is tested first, and refused above `max_fee_rate`.
    fn submit(&self, tx: &Transaction, max_fee_rate: SatPerKvb) -> Result<Submitted, BackendError>;

    /// Where a transaction is.
    fn tx_status(&self, txid: &Txid) -> Result<TxStatus, BackendError>;

    /// Fee rate that confirms within about `blocks`; `None` where there is nothing to judge by.
    fn fee_rate(&self, blocks: u16) -> Result<Option<SatPerKvb>, BackendError>;

    /// Transactions that wait in the pool.
    fn pool_len(&self) -> Result<u64, BackendError>;

    /// Mines `blocks` with what the pool has, paying `to`. Regtest only.
    fn generate(&self, blocks: u32, to: &Script) -> Result<Vec<BlockHash>, BackendError>;

    /// Offers a block, on the tip or beside it.
    fn submit_block(&self, block: &Block) -> Result<(), BackendError>;

    /// Hash of the best chain's block at `height` with its header; `None` above the tip.
    fn header_at(&self, height: u64) -> Result<Option<HeaderInfo>, BackendError> {
        match self.hash_at(height)? {
            Some(hash) => self.header(&hash),
            None => Ok(None),
        }
    }
}

/// Bitcoin's network for ours.
pub fn network(network: bitai_types::chain::Network) -> Network {
    match network {
        bitai_types::chain::Network::Bitcoin => Network::Bitcoin,
        bitai_types::chain::Network::Testnet4 => Network::Testnet4,
        bitai_types::chain::Network::Signet => Network::Signet,
        bitai_types::chain::Network::Regtest => Network::Regtest,
    }
}

/// A hash in internal byte order, as the BitAI side keeps it.
pub fn b256<H: Hash<Bytes = [u8; 32]>>(hash: H) -> alloy_primitives::B256 {
    alloy_primitives::B256::from(hash.to_byte_array())
}
