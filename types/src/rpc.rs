//! Shapes of the `bitai_*` JSON-RPC methods: what a node says beyond Ethereum's own interface.

use alloy_primitives::{Address, B256, U256};
use serde::{Deserialize, Serialize};

/// `bitai_status`: where the node stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Bitcoin network's name.
    pub network: String,
    /// BitAI chain id.
    pub chain_id: u64,
    /// First 4 bytes of the genesis hash, hex: every envelope carries them.
    pub genesis_id: String,
    /// BitAI height executed.
    pub height: u64,
    /// Bitcoin height of that block.
    pub bitcoin_height: u64,
    /// Bitcoin block hash in display order.
    pub bitcoin_hash: String,
    /// Bitcoin height the backend has.
    pub bitcoin_tip: u64,
    /// State root of the executed block.
    pub state_root: B256,
    /// Transactions in the mempool that can run now.
    pub mempool_ready: u64,
    /// Transactions in the mempool that wait for an earlier nonce.
    pub mempool_queued: u64,
    /// Address that the inscriber's envelopes name as fee recipient.
    pub fee_recipient: Option<Address>,
    /// Satoshis that the inscriber can spend.
    pub inscriber_sats: Option<u64>,
}

/// `bitai_getInscription(txHash)`: how a BitAI transaction got onto Bitcoin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inscription {
    /// The BitAI transaction.
    pub tx_hash: B256,
    /// Where it is on its way.
    pub stage: InscriptionStage,
    /// Commit transaction, where this node inscribed it.
    pub commit_txid: Option<String>,
    /// Reveal transaction.
    pub reveal_txid: Option<String>,
    /// Bitcoin height of the block that holds the reveal.
    pub bitcoin_height: Option<u64>,
    /// Virtual bytes of commit and reveal together, for the whole batch (where known).
    pub vbytes: Option<u64>,
    /// Satoshis paid in Bitcoin fees for the whole batch (where this node inscribed it).
    pub fee_sats: Option<u64>,
    /// BitAI transactions that shared the envelope.
    pub batch: Option<u32>,
    /// Bytes of the envelope's payload as inscribed.
    pub payload_bytes: Option<u64>,
}

/// The stages between a signed transaction and an executed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum InscriptionStage {
    /// In this node's mempool.
    Mempool,
    /// Commit and reveal are broadcast.
    Broadcast,
    /// In a Bitcoin block and executed.
    Executed,
    /// In a Bitcoin block and dropped there (duplicate or unpayable).
    Dropped,
}

/// `bitai_sendTransactions([raw, ...])`: one answer a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// Hash of the transaction.
    pub tx_hash: B256,
    /// The least effective priority fee per gas that pays the inscriber's satoshis now.
    pub min_priority_fee: U256,
}
