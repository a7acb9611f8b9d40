//! How accounts, blocks and transactions lie in the tables.

use alloy::consensus::{Header, TxEnvelope};
use alloy::eips::eip2718::{Decodable2718, Encodable2718};
use alloy_primitives::{Address, B256, Bytes, Log, U256};
use alloy_rlp::{Decodable, Encodable, RlpDecodable, RlpEncodable};

use super::error::StateError;
use crate::transition::ExecutedTx;

/// An account as stored: fields and the root of its storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Nonce.
    pub nonce: u64,
    /// Wei.
    pub balance: U256,
    /// keccak256 of the runtime code.
    pub code_hash: B256,
    /// Root of the storage trie.
    pub storage_root: B256,
}

/// Bytes of an account record.
const ACCOUNT_BYTES: usize = 8 + 32 + 32 + 32;

impl Account {
    /// Fixed layout: nonce, balance (both big-endian), code hash, storage root.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(ACCOUNT_BYTES);
        out.extend_from_slice(&self.nonce.to_be_bytes());
        out.extend_from_slice(&self.balance.to_be_bytes::<32>());
        out.extend_from_slice(self.code_hash.as_slice());
        out.extend_from_slice(self.storage_root.as_slice());
        out
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        let bytes: &[u8; ACCOUNT_BYTES] = bytes
            .try_into()
            .map_err(|_| StateError::corrupt("account record"))?;
        let (nonce, rest) = bytes.split_at(8);
        Ok(Account {
            nonce: U256::from_be_slice(nonce).to::<u64>(),
            balance: U256::from_be_slice(&rest[..32]),
            code_hash: B256::from_slice(&rest[32..64]),
            storage_root: B256::from_slice(&rest[64..]),
        })
    }

    /// The account's value in the state trie.
    pub(crate) fn trie_value(&self) -> Vec<u8> {
        alloy_rlp::encode(alloy::consensus::TrieAccount::new(
            self.nonce,
            self.balance,
            self.storage_root,
            self.code_hash,
        ))
    }
}

/// A transaction with what it did, as stored.
#[derive(Debug, RlpEncodable, RlpDecodable)]
struct TxRecord {
    raw: Bytes,
    sender: Address,
    success: bool,
    gas_used: u64,
    cumulative_gas_used: u64,
    gas_price: u128,
    logs: Vec<Log>,
    /// Empty or 20 bytes.
    contract: Bytes,
    fee_recipient: Address,
    reveal_txid: B256,
}

/// A block's transactions as bytes.
pub(crate) fn encode_body(txs: &[ExecutedTx]) -> Vec<u8> {
    let records: Vec<TxRecord> = txs
        .iter()
        .map(|t| TxRecord {
            raw: t.tx.encoded_2718().into(),
            sender: t.sender,
            success: t.success,
            gas_used: t.gas_used,
            cumulative_gas_used: t.cumulative_gas_used,
            gas_price: t.gas_price,
            logs: t.logs.clone(),
            contract: t
                .contract
                .map(|a| Bytes::copy_from_slice(a.as_slice()))
                .unwrap_or_default(),
            fee_recipient: t.fee_recipient,
            reveal_txid: t.reveal_txid,
        })
        .collect();
    alloy_rlp::encode(records)
}

pub(crate) fn decode_body(mut bytes: &[u8]) -> Result<Vec<ExecutedTx>, StateError> {
    let records =
        Vec::<TxRecord>::decode(&mut bytes).map_err(|e| StateError::corrupt(format!("block body: {e}")))?;
    records
        .into_iter()
        .map(|r| {
            Ok(ExecutedTx {
                tx: TxEnvelope::decode_2718_exact(&r.raw)
                    .map_err(|e| StateError::corrupt(format!("stored transaction: {e}")))?,
                sender: r.sender,
                success: r.success,
                gas_used: r.gas_used,
                cumulative_gas_used: r.cumulative_gas_used,
                gas_price: r.gas_price,
                logs: r.logs,
                contract: (r.contract.len() == 20).then(|| Address::from_slice(&r.contract)),
                fee_recipient: r.fee_recipient,
                reveal_txid: r.reveal_txid,
            })
        })
        .collect()
}

/// Hash and header of a block as bytes.
pub(crate) fn encode_header(hash: B256, header: &Header) -> Vec<u8> {
    let mut out = hash.to_vec();
    header.encode(&mut out);
    out
}

pub(crate) fn decode_header(bytes: &[u8]) -> Result<(B256, Header), StateError> {
    let (hash, mut rlp) = bytes
        .split_first_chunk::<32>()
        .ok_or_else(|| StateError::corrupt("header record"))?;
    let header = Header::decode(&mut rlp).map_err(|e| StateError::corrupt(format!("header: {e}")))?;
    Ok((B256::new(*hash), header))
}

/// Why a block dropped a transaction, as stored.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct DroppedRecord {
    /// BitAI height of the block.
    pub height: u64,
    /// Txid of the reveal that carried it, internal byte order.
    pub reveal_txid: B256,
    /// Why.
    pub reason: String,
}
