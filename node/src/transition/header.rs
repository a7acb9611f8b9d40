//! Block headers: real Ethereum ones (Osaka's fields), with what comes from Bitcoin written into them.

use alloy::consensus::constants::{EMPTY_OMMER_ROOT_HASH, EMPTY_ROOT_HASH};
use alloy::consensus::{Eip658Value, Header, Receipt, ReceiptEnvelope, TxType};
use alloy::eips::eip7685::EMPTY_REQUESTS_HASH;
use alloy_primitives::{B64, B256, Bloom, Bytes, Log, U256, keccak256};

use crate::genesis::FeeRule;

/// A header with every field that BitAI fixes: no ommers, withdrawals, blobs or requests, the Bitcoin block
/// hash (internal byte order) as extra data, and `prevrandao` from it (PROTOCOL 17).
/// The beneficiary is zero: each transaction has its own (PROTOCOL 15).
pub fn blank(bitcoin_hash: B256) -> Header {
    Header {
        parent_hash: B256::ZERO,
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        beneficiary: alloy_primitives::Address::ZERO,
        state_root: EMPTY_ROOT_HASH,
        transactions_root: EMPTY_ROOT_HASH,
        receipts_root: EMPTY_ROOT_HASH,
        logs_bloom: Bloom::ZERO,
        difficulty: U256::ZERO,
        number: 0,
        gas_limit: 0,
        gas_used: 0,
        timestamp: 0,
        extra_data: Bytes::copy_from_slice(bitcoin_hash.as_slice()),
        mix_hash: prevrandao(bitcoin_hash),
        nonce: B64::ZERO,
        base_fee_per_gas: Some(0),
        withdrawals_root: Some(EMPTY_ROOT_HASH),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(B256::ZERO),
        requests_hash: Some(EMPTY_REQUESTS_HASH),
        ..Default::default()
    }
}

/// Randomness of a block: keccak256 of the Bitcoin block hash in internal byte order. The hash itself has
/// dozens of zero bits on mainnet and none on regtest.
pub fn prevrandao(bitcoin_hash: B256) -> B256 {
    keccak256(bitcoin_hash)
}

/// Base fee of the block after one that used `gas_used` at `base_fee` (EIP-1559, with a target of its own
/// instead of half the gas limit, and a floor).
pub fn next_base_fee(rule: &FeeRule, base_fee: u64, gas_used: u64) -> u64 {
    let (base, target) = (u128::from(base_fee), u128::from(rule.gas_target));
    let step = |gas: u64| base * u128::from(gas) / target / u128::from(rule.change_denominator);
    let next = if gas_used > rule.gas_target {
        base.saturating_add(step(gas_used - rule.gas_target).max(1))
    } else {
        base.saturating_sub(step(rule.gas_target - gas_used))
    };
    u64::try_from(next).unwrap_or(u64::MAX).max(rule.min_base_fee)
}

/// A receipt in the envelope of its transaction's type.
pub fn receipt(tx_type: TxType, success: bool, cumulative_gas_used: u64, logs: Vec<Log>) -> ReceiptEnvelope {
    let receipt = Receipt {
        status: Eip658Value::Eip658(success),
        cumulative_gas_used,
        logs,
    }
    .with_bloom();
    match tx_type {
        TxType::Legacy => ReceiptEnvelope::Legacy(receipt),
        TxType::Eip2930 => ReceiptEnvelope::Eip2930(receipt),
        TxType::Eip1559 => ReceiptEnvelope::Eip1559(receipt),
        TxType::Eip4844 => ReceiptEnvelope::Eip4844(receipt),
        TxType::Eip7702 => ReceiptEnvelope::Eip7702(receipt),
    }
}
