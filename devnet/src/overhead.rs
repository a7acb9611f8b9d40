//! `vectors/overhead.json`: what a job's transactions take on Bitcoin, alone and in envelopes of a hundred, made by the
//! real signer, codec and inscriber. `poc::soundness` reads the file; nothing of it is estimated.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use alloy::{
    consensus::{SignableTransaction, TxEip1559, TxEnvelope},
    eips::eip2718::Encodable2718,
    signers::{SignerSync, local::PrivateKeySigner},
    sol_types::SolCall,
};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use bitai_contracts::{JobSpec, WorkerHub};
use bitai_node::{
    bitcoin::SatPerKvb,
    envelope::{Header, payload},
    inscriber::{batch::Part, build::Builder, keys::Keys},
};
use bitcoin::{Amount, Network, OutPoint, TxOut};
use serde_json::{Value, json};

/// Gas that an inscribed byte buys (docs/spec/chain.md).
const GAS_PER_BYTE: u64 = 4_000;
/// Transactions of a full envelope.
const BATCH: u64 = 100;
/// Ids are drawn below SmolLM2's vocabulary: evenly, which compresses worse than text.
const VOCAB: u32 = 49_152;

/// 32 bytes that no compressor shortens.
fn noise(what: &str, n: u64) -> B256 {
    keccak256([what.as_bytes(), &n.to_be_bytes()].concat())
}

fn ids(what: &str, job: u64, count: u64) -> Bytes {
    let id = |i: u64| {
        let word = noise(what, job << 32 | i);
        u32::from_le_bytes(*word.first_chunk().unwrap()) % VOCAB
    };
    (0..count).flat_map(|i| id(i).to_le_bytes()).collect()
}

/// A gas limit: a fifth more than what is used.
fn with_margin(gas: u64) -> u64 {
    gas + gas / 5
}

/// A signed transaction of the `n`-th account.
fn signed(n: u64, gas: u64, input: Vec<u8>) -> Bytes {
    let signer = PrivateKeySigner::from_bytes(&noise("key", n)).unwrap();
    let tx = TxEip1559 {
        chain_id: 22_213,
        nonce: 1_000 + n,
        gas_limit: with_margin(gas),
        // A base fee at its minimum, and a tip like one that pays 10 sat/vB.
        max_fee_per_gas: 42_000_000_000 + u128::from(n) * 1_000_003,
        max_priority_fee_per_gas: 41_000_000_000 + u128::from(n) * 1_000_003,
        to: TxKind::Call(Address::from_slice(&noise("hub", 0)[..20])),
        value: U256::ZERO,
        access_list: alloy::eips::eip2930::AccessList::default(),
        input: input.into(),
    };
    let signature = signer.sign_hash_sync(&tx.signature_hash()).unwrap();
    TxEnvelope::Eip1559(tx.into_signed(signature))
        .encoded_2718()
        .into()
}

/// Virtual bytes of commit and reveal of one envelope, by the inscriber itself.
fn inscribed(payload: Vec<u8>) -> (u64, u64) {
    let keys = Keys::from_seed(&[7; 32], Network::Bitcoin);
    let parts = [Part {
        hashes: vec![],
        payload,
    }];
    let header = Header {
        genesis_id: [1, 2, 3, 4],
        fee_recipient: Address::from_slice(&noise("inscriber", 0)[..20]),
    };
    let builder = Builder {
        keys: &keys,
        header,
        parts: &parts,
        rate_max: SatPerKvb(500_000),
    };
    let coin = TxOut {
        value: Amount::from_sat(100_000_000_000),
        script_pubkey: keys.script(),
    };
    let version = builder
        .version(&[(OutPoint::null(), coin)], SatPerKvb(10_000), 800_000)
        .unwrap();
    (
        version.commit().vsize() as u64,
        version.reveals()[0].vsize() as u64,
    )
}

fn envelope(txs: &[Bytes], gas: u64) -> u64 {
    let least = with_margin(gas) * txs.len() as u64 / GAS_PER_BYTE;
    let payload = payload::encode_at_least(txs, usize::try_from(least).unwrap()).unwrap();
    assert_eq!(payload::decode(&payload).unwrap(), txs);
    let (commit, reveal) = inscribed(payload);
    commit + reveal
}

/// What a call that uses about `gas` takes.
fn call(name: &str, gas: u64, input: impl Fn(u64) -> Vec<u8>) -> Value {
    let txs: Vec<Bytes> = (0..BATCH).map(|n| signed(n, gas, input(n))).collect();
    json!({
        "name": name,
        "calldata": input(0).len(),
        "raw": txs[0].len(),
        "alone": envelope(&txs[..1], gas),
        "hundred": envelope(&txs, gas),
    })
}

fn file() -> Value {
    let job = |n: u64| U256::from(700_000 + n);
    let infer = |n: u64| {
        let spec = JobSpec {
            modelRoot: noise("model", 0),
            specVersion: 0,
            vocab: VOCAB,
            context: 8_192,
            words: 0,
            maxNew: 128,
            temperatureQ16: 0,
            topK: 0,
            topPQ16: 0,
            seed: 0,
            inputIds: ids("prompt", n, 512),
            stopIds: 2u32.to_le_bytes().to_vec().into(),
        };
        WorkerHub::inferCall {
            spec,
            k: 1,
            collateral: Default::default(),
        }
        .abi_encode()
    };
    let commit = |n: u64| {
        WorkerHub::commitCall {
            jobId: job(n),
            jobHash: noise("job", n),
            commitment: noise("commitment", n),
        }
        .abi_encode()
    };
    let reveal = |outputs: u64| {
        move |n: u64| {
            WorkerHub::revealCall {
                jobId: job(n),
                salt: noise("salt", n),
                traceRoot: noise("root", n),
                outputIds: ids("output", n, outputs),
            }
            .abi_encode()
        }
    };
    let finalise = |n: u64| WorkerHub::finaliseCall { jobId: job(n) }.abi_encode();
    let frames: Vec<[u64; 3]> = [
        1, 75, 76, 255, 256, 520, 521, 1_040, 5_000, 25_000, 65_000, 300_000,
    ]
    .into_iter()
    .map(|len| {
        let (commit, reveal) = inscribed(vec![7; usize::try_from(len).unwrap()]);
        [len, commit, reveal]
    })
    .collect();
    json!({
        "about": "written by devnet/src/overhead.rs, read by poc::soundness",
        "batch": BATCH,
        "frames": frames,
        "transactions": [
            call("infer, 512 prompt ids", 400_000, infer),
            call("commit, with the draw", 167_000, commit),
            call("reveal, 1 id", 104_000, reveal(1)),
            call("reveal, 128 ids", 166_000, reveal(128)),
            call("finalise", 107_000, finalise),
        ],
    })
}

#[test]
fn the_committed_overhead_is_what_codec_and_inscriber_make() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../vectors/overhead.json");
    let text = serde_json::to_string_pretty(&file()).unwrap() + "\n";
    if std::env::var_os("BITAI_WRITE_VECTORS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "run with BITAI_WRITE_VECTORS=1 and commit {}",
        path.display()
    );
}
