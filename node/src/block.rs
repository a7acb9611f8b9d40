//! What passes between the Bitcoin side (indexer, inscriber) and the BitAI side (state machine, mempool) of
//! a node: plain data, so that each side can be tested without the other.

use alloy_primitives::{Address, B256, Bytes};

/// Where in a Bitcoin block an envelope stands; also the tie-break of transaction order (PROTOCOL 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// Transaction in the block.
    pub tx: u32,
    /// Input of that transaction.
    pub input: u32,
    /// Envelope in that input's script.
    pub envelope: u32,
}

/// A valid envelope found in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inscribed {
    /// Where.
    pub position: Position,
    /// Txid of the reveal, internal byte order.
    pub reveal_txid: B256,
    /// Who gets the priority fees.
    pub fee_recipient: Address,
    /// Raw EIP-2718 transactions as the payload lists them; perhaps malformed.
    pub txs: Vec<Bytes>,
    /// Bytes of the payload as inscribed (compressed). Consensus: the gas limits of an envelope's
    /// transactions together may not exceed it times `gasPerByte`.
    pub payload_len: u32,
    /// Virtual size of the reveal transaction.
    pub reveal_vbytes: u32,
}

/// A Bitcoin block as the state machine sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockInput {
    /// Bitcoin height.
    pub bitcoin_height: u64,
    /// Block hash, internal byte order.
    pub hash: B256,
    /// Hash of the block before, internal byte order.
    pub prev: B256,
    /// Median time past of the block, unix seconds.
    pub median_time_past: u64,
    /// Its envelopes in order of position.
    pub envelopes: Vec<Inscribed>,
}

/// The newest executed block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// BitAI height (0 = genesis).
    pub height: u64,
    /// Bitcoin height of it.
    pub bitcoin_height: u64,
    /// Bitcoin hash of it, internal byte order.
    pub bitcoin_hash: B256,
    /// State root after it.
    pub state_root: B256,
}
