//! Wallets, raw transactions and blocks for the tests.

use alloy::consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy::eips::eip2718::Encodable2718;
use alloy::signers::SignerSync;
use alloy::signers::local::PrivateKeySigner;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use bitai_node::block::{BlockInput, Inscribed, Position};
use bitai_node::genesis::Genesis;
use bitai_node::indexer::Ledger;
use bitai_node::state::Chain;
use bitai_types::chain::Network;
use std::sync::Arc;

/// 10^18 wei.
pub(crate) const COIN: u128 = 1_000_000_000_000_000_000;
/// 10^9 wei.
pub(crate) const GWEI: u128 = 1_000_000_000;

/// The n-th test wallet.
pub(crate) fn wallet(n: u8) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&B256::repeat_byte(n + 1)).unwrap()
}

/// A regtest genesis where the first `wallets` wallets have 100 coins each.
pub(crate) fn genesis(wallets: u8) -> Genesis {
    Genesis::regtest((0..wallets).map(|n| (wallet(n).address(), U256::from(100 * COIN))))
}

/// A fresh chain in a directory that lives as long as the value.
pub(crate) fn chain(wallets: u8) -> (tempfile::TempDir, Arc<Chain>) {
    let dir = tempfile::tempdir().unwrap();
    let chain = Chain::open(dir.path().join("state.redb"), genesis(wallets)).unwrap();
    (dir, chain)
}

/// A transaction before signing: a transfer of one wei at 2 gwei tip, unless changed.
pub(crate) fn blank(nonce: u64, to: Address) -> TxEip1559 {
    TxEip1559 {
        chain_id: Network::Regtest.chain_id(),
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 100 * GWEI,
        max_priority_fee_per_gas: 2 * GWEI,
        to: TxKind::Call(to),
        value: U256::from(1),
        access_list: Default::default(),
        input: Bytes::new(),
    }
}

/// Signs and encodes.
pub(crate) fn sign(wallet: &PrivateKeySigner, tx: TxEip1559) -> Bytes {
    let signature = wallet.sign_hash_sync(&tx.signature_hash()).unwrap();
    TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into()
}

/// A transfer with this tip in gwei.
pub(crate) fn transfer(from: u8, nonce: u64, to: Address, value: u128, tip_gwei: u128) -> Bytes {
    let tx = TxEip1559 {
        value: U256::from(value),
        max_priority_fee_per_gas: tip_gwei * GWEI,
        ..blank(nonce, to)
    };
    sign(&wallet(from), tx)
}

/// A call of `data` with this gas limit.
pub(crate) fn call(from: u8, nonce: u64, to: Address, data: impl Into<Bytes>, gas_limit: u64) -> Bytes {
    let tx = TxEip1559 {
        input: data.into(),
        gas_limit,
        value: U256::ZERO,
        ..blank(nonce, to)
    };
    sign(&wallet(from), tx)
}

/// A contract creation.
pub(crate) fn create(from: u8, nonce: u64, code: impl Into<Bytes>, gas_limit: u64) -> Bytes {
    let tx = TxEip1559 {
        input: code.into(),
        gas_limit,
        to: TxKind::Create,
        value: U256::ZERO,
        ..blank(nonce, Address::ZERO)
    };
    sign(&wallet(from), tx)
}

/// Init code that deploys this runtime code (at most 255 bytes).
pub(crate) fn deployer(runtime: &[u8]) -> Vec<u8> {
    let len = u8::try_from(runtime.len()).unwrap();
    // PUSH1 len DUP1 PUSH1 9 PUSH0 CODECOPY PUSH0 RETURN
    let mut code = vec![0x60, len, 0x80, 0x60, 0x09, 0x5f, 0x39, 0x5f, 0xf3];
    code.extend_from_slice(runtime);
    code
}

/// The address that envelopes of the tests name unless they say otherwise.
pub(crate) const RECIPIENT: Address = Address::repeat_byte(0xfe);

/// An envelope in the n-th transaction of its block, uncompressed.
pub(crate) fn envelope(n: u32, fee_recipient: Address, txs: Vec<Bytes>) -> Inscribed {
    let payload_len = txs.iter().map(|tx| tx.len() as u32).sum();
    Inscribed {
        position: Position {
            tx: n,
            input: 0,
            envelope: 0,
        },
        reveal_txid: keccak256(n.to_be_bytes()),
        fee_recipient,
        txs,
        payload_len,
        reveal_vbytes: payload_len / 4 + 200,
    }
}

/// The next block of the chain with these envelopes; blocks of another `branch` have other hashes.
pub(crate) fn next_block(chain: &Chain, branch: u8, envelopes: Vec<Inscribed>) -> BlockInput {
    let (bitcoin_height, prev) = match chain.tip() {
        Some(tip) => (tip.bitcoin_height + 1, tip.bitcoin_hash),
        None => (chain.genesis().start_height + 1, chain.genesis().start_hash),
    };
    let mut seed = prev.to_vec();
    seed.push(branch);
    BlockInput {
        bitcoin_height,
        hash: keccak256(seed),
        prev,
        median_time_past: chain.genesis().start_time + 600 * bitcoin_height,
        envelopes,
    }
}

/// Applies a block with one envelope of these transactions.
pub(crate) fn mine(chain: &Chain, txs: Vec<Bytes>) -> Vec<B256> {
    chain
        .apply(&next_block(chain, 0, vec![envelope(0, RECIPIENT, txs)]))
        .unwrap()
}
