//! Raw transactions: decoding, the sender, and the rules that need no state.

use alloy::consensus::transaction::SignerRecoverable;
use alloy::consensus::{Transaction, TxEnvelope, TxType};
use alloy::eips::eip2718::{Decodable2718, Encodable2718};
use alloy_primitives::{Address, B256, U256};
use revm::context::TxEnv;
use revm::context_interface::either::Either;

use crate::genesis::Genesis;

/// Why a transaction cannot run. The same names serve the mempool's refusals and a block's drops.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TxError {
    /// Not an RLP transaction of a known type.
    #[error("malformed transaction: {0}")]
    Malformed(String),
    /// EIP-4844.
    #[error("blob transactions (type 3) are not supported: BitAI has no blobs")]
    Blob,
    /// A transaction that any chain could replay.
    #[error("transaction has no chain id (pre EIP-155): sign it for chain id {want}")]
    NoChainId {
        /// This chain's.
        want: u64,
    },
    /// Signed for another chain.
    #[error("invalid chain id: transaction is signed for {got}, this chain is {want}")]
    WrongChainId {
        /// This chain's.
        want: u64,
        /// The transaction's.
        got: u64,
    },
    /// No sender can be recovered.
    #[error("invalid signature: no sender can be recovered")]
    BadSignature,
    /// PROTOCOL 16.
    #[error(
        "gas limit {gas_limit} exceeds what {raw_len} inscribed bytes may use ({max}): lower it or append calldata"
    )]
    GasAboveBytes {
        /// The transaction's.
        gas_limit: u64,
        /// Its raw bytes.
        raw_len: usize,
        /// Bytes times the chain's constant.
        max: u64,
    },
    /// The envelope's compressed bytes are spent by the transactions before this one.
    #[error("gas limit {gas_limit} exceeds the {left} gas that its envelope's bytes leave")]
    EnvelopeGas {
        /// The transaction's.
        gas_limit: u64,
        /// What the envelope had left.
        left: u64,
    },
    /// Already used, or replaced by another of the same nonce.
    #[error("nonce too low: next nonce {next}, tx nonce {got}")]
    NonceTooLow {
        /// The sender's next nonce.
        next: u64,
        /// The transaction's.
        got: u64,
    },
    /// An earlier nonce is missing.
    #[error("nonce too high: next nonce {next}, tx nonce {got}")]
    NonceTooHigh {
        /// The sender's next nonce.
        next: u64,
        /// The transaction's.
        got: u64,
    },
    /// Value and the dearest gas are more than the sender has.
    #[error("insufficient funds for gas * price + value: have {have} want {want}")]
    Funds {
        /// Balance, wei.
        have: U256,
        /// Needed, wei.
        want: U256,
    },
    /// The base fee has risen above what the transaction offers.
    #[error("max fee per gas {max_fee} less than block base fee {base_fee}")]
    FeeBelowBase {
        /// The transaction's.
        max_fee: u128,
        /// The block's.
        base_fee: u64,
    },
    /// Anything else that revm's validation refuses (intrinsic gas, init code size, sender with code).
    #[error("{0}")]
    Invalid(String),
}

/// A decoded transaction with its sender.
#[derive(Debug, Clone)]
pub struct SignedTx {
    /// The transaction.
    pub tx: TxEnvelope,
    /// Its hash.
    pub hash: B256,
    /// Who signed it.
    pub sender: Address,
    /// Bytes as inscribed (before compression).
    pub raw_len: usize,
}

impl SignedTx {
    /// Decodes a raw EIP-2718 transaction and applies every rule that needs no state.
    pub fn decode(raw: &[u8], genesis: &Genesis) -> Result<Self, TxError> {
        // Before decoding: the pooled form with blobs would decode to something much larger.
        if raw.first() == Some(&(TxType::Eip4844 as u8)) {
            return Err(TxError::Blob);
        }
        let tx = TxEnvelope::decode_2718_exact(raw).map_err(|e| TxError::Malformed(e.to_string()))?;
        // One transaction has one encoding: its hash and its price depend on these bytes.
        if tx.encode_2718_len() != raw.len() || tx.encoded_2718() != raw {
            return Err(TxError::Malformed("not in canonical encoding".into()));
        }
        let want = genesis.chain_id();
        match tx.chain_id() {
            None => return Err(TxError::NoChainId { want }),
            Some(got) if got != want => return Err(TxError::WrongChainId { want, got }),
            Some(_) => {}
        }
        let max = (raw.len() as u64).saturating_mul(genesis.gas_per_byte);
        if tx.gas_limit() > max {
            return Err(TxError::GasAboveBytes {
                gas_limit: tx.gas_limit(),
                raw_len: raw.len(),
                max,
            });
        }
        let sender = tx.recover_signer().map_err(|_| TxError::BadSignature)?;
        Ok(SignedTx {
            hash: *tx.tx_hash(),
            tx,
            sender,
            raw_len: raw.len(),
        })
    }

    /// What the fee recipient gets per gas at this base fee; `None` where the fee does not reach it.
    pub fn priority_fee(&self, base_fee: u64) -> Option<u128> {
        let headroom = self.tx.max_fee_per_gas().checked_sub(u128::from(base_fee))?;
        Some(
            self.tx
                .max_priority_fee_per_gas()
                .map_or(headroom, |tip| tip.min(headroom)),
        )
    }

    /// The transaction as revm takes it.
    pub fn env(&self) -> TxEnv {
        let tx = &self.tx;
        TxEnv {
            tx_type: tx.tx_type() as u8,
            caller: self.sender,
            gas_limit: tx.gas_limit(),
            gas_price: tx.max_fee_per_gas(),
            kind: tx.kind(),
            value: tx.value(),
            data: tx.input().clone(),
            nonce: tx.nonce(),
            chain_id: tx.chain_id(),
            access_list: tx.access_list().cloned().unwrap_or_default(),
            gas_priority_fee: tx.max_priority_fee_per_gas(),
            blob_hashes: Vec::new(),
            max_fee_per_blob_gas: 0,
            authorization_list: tx
                .authorization_list()
                .map(|list| list.iter().cloned().map(Either::Left).collect())
                .unwrap_or_default(),
        }
    }
}

/// Gas limit that a raw transaction names; `None` where it is no transaction. For batching: the gas limits
/// of an envelope must fit its inscribed bytes.
pub fn gas_limit_of(raw: &[u8]) -> Option<u64> {
    TxEnvelope::decode_2718_exact(raw).ok().map(|tx| tx.gas_limit())
}
