//! Why the mempool refuses a transaction. Texts begin as Ethereum nodes' do, since clients match on them.

use alloy_primitives::{B256, Bytes, U256};

use crate::state::StateError;
use crate::transition::TxError;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// No block could execute it as it stands.
    #[error(transparent)]
    Tx(#[from] TxError),
    /// It is here already.
    #[error("already known: transaction {0}")]
    AlreadyKnown(B256),
    /// It fits no reveal.
    #[error("oversized data: {len} bytes, the most that one reveal carries is {max}")]
    TooLarge {
        /// Its raw bytes.
        len: usize,
        /// The most.
        max: usize,
    },
    /// The sender has too many here.
    #[error("sender has {max} transactions waiting already: wait for some to be inscribed")]
    SenderFull {
        /// The most.
        max: usize,
    },
    /// The nonce is so far ahead that it would wait too long.
    #[error("nonce too high: next nonce {next}, tx nonce {got}, at most {max} ahead are kept")]
    TooFarAhead {
        /// Sender's next nonce on the chain.
        next: u64,
        /// The transaction's.
        got: u64,
        /// The most ahead.
        max: u64,
    },
    /// Everything here is full, of what pays as much or more.
    #[error(
        "txpool is full: {max} transactions or {max_bytes} bytes wait already that pay as much; pay more"
    )]
    Full {
        /// The most transactions.
        max: usize,
        /// The most bytes.
        max_bytes: usize,
    },
    /// It pays less than inscribing it costs.
    #[error(
        "transaction underpriced: effective priority fee {got} wei per gas, inscribing it on Bitcoin costs {min} \
         (maxPriorityFeePerGas and the base fee {base_fee} within maxFeePerGas)"
    )]
    Underpriced {
        /// What it pays per gas beyond the base fee.
        got: u128,
        /// What it must pay.
        min: U256,
        /// Base fee of the next block.
        base_fee: u64,
    },
    /// It pays too little more than what it would replace.
    #[error(
        "replacement transaction underpriced: needs maxFeePerGas {max_fee} and maxPriorityFeePerGas {priority_fee} or more"
    )]
    ReplacementUnderpriced {
        /// Least maximal fee.
        max_fee: u128,
        /// Least priority fee.
        priority_fee: u128,
    },
    /// What it would replace is already paid for on Bitcoin.
    #[error("nonce {nonce} is taken by {hash}, which is already being inscribed and cannot be replaced")]
    InFlight {
        /// The nonce.
        nonce: u64,
        /// What holds it.
        hash: B256,
    },
    /// Pre-execution reverted.
    #[error("{reason}")]
    Reverted {
        /// Decoded.
        reason: String,
        /// As returned.
        data: Bytes,
    },
    /// Pre-execution failed without a revert (out of gas, invalid opcode).
    #[error("execution failed: {0}")]
    Halted(String),
    /// Storage trouble; the transaction may be fine.
    #[error(transparent)]
    State(#[from] StateError),
}

impl From<redb::Error> for PoolError {
    fn from(error: redb::Error) -> Self {
        PoolError::State(StateError::Storage(error.to_string()))
    }
}
