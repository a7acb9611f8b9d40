//! What the inscriber and the rest of the node ask of each other: transactions to inscribe, the price of
//! inscribing, and the record of what was inscribed.

use alloy_primitives::{Address, B256, Bytes, U256};

/// Where batches come from: the mempool.
pub trait TxSource: Send + Sync {
    /// Transactions that can run now and are not yet inscribed, in the order in which they should be
    /// inscribed, at most `max_bytes` of raw bytes together; each with its transaction hash.
    fn ready(&self, max_bytes: usize) -> Vec<(B256, Bytes)>;

    /// The inscriber took these: their commit and reveal are persisted. `ready` no longer returns them, but
    /// they stay known until a block executes them. Called again for every batch after a restart.
    fn inscribed(&self, hashes: &[B256], reveal_txid: B256);

    /// Least bytes that one payload of these transactions must have as inscribed: the state machine bounds
    /// the gas of an envelope by its payload (`docs/spec/chain.md`). Never more than their bytes together.
    fn payload_min(&self, _txs: &[Bytes]) -> usize {
        0
    }

    /// The reveal of these can never confirm (its funds vanished in a reorg): they may be inscribed anew.
    fn released(&self, hashes: &[B256]);
}

/// What inscribing costs now. The inscriber pays satoshis and is paid in priority fees (PROTOCOL 15), so its
/// mempool refuses what pays less than this.
pub trait Quote: Send + Sync {
    /// Least effective priority fee per gas, in wei, that pays for inscribing a transaction of `raw_len`
    /// bytes that uses `gas_used` gas (as pre-executed; 0 counts as 1).
    fn min_priority_fee(&self, raw_len: usize, gas_used: u64) -> U256;
}

/// How one batch got onto Bitcoin, for `bitai_getInscription`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRecord {
    /// Txid of the commit, internal byte order.
    pub commit_txid: B256,
    /// Txid of the reveal, internal byte order.
    pub reveal_txid: B256,
    /// Virtual bytes of the reveal and of its share of the commit.
    pub vbytes: u64,
    /// Satoshis of Bitcoin fees for the same.
    pub fee_sats: u64,
    /// BitAI transactions in the envelope.
    pub batch: u32,
    /// Bytes of the payload as inscribed.
    pub payload_bytes: u64,
    /// Bitcoin height of the reveal's block, once it has one.
    pub bitcoin_height: Option<u64>,
}

/// What the inscriber tells the RPC server.
pub trait InscriberView: Send + Sync {
    /// The batch that carried this BitAI transaction, if this node inscribed it.
    fn record(&self, tx_hash: B256) -> Option<BatchRecord>;
    /// Satoshis that can be spent now, unconfirmed change included.
    fn balance_sats(&self) -> u64;
    /// The address that envelopes name as fee recipient.
    fn fee_recipient(&self) -> Address;
}
