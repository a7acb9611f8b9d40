//! `vectors/job.json`: job hashes, commitments, draw tickets and outputs, written from Rust and read by forge, so
//! that both sides compute the same. `BITAI_WRITE_VECTORS=1 cargo test -p bitai-contracts` writes it anew.

// A helper that unwraps says the same as a test that does.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_sol_types::SolValue;
use bitai_contracts::ModelKey;
use bitai_types::{
    ModelShape,
    batch::{Tree, pack_jobs},
    job::{Job, Sampler, commit_hash, ids_hash, ids_to_bytes},
};
use serde_json::{Value, json};

fn jobs() -> Vec<Job> {
    let base = Job {
        model_root: B256::repeat_byte(0x11),
        spec_version: 0,
        input_ids: vec![1, 2, 3],
        max_new: 4,
        stop_ids: vec![2],
        sampler: Sampler::GREEDY,
        seed: 0,
    };
    vec![
        base.clone(),
        // No stop ids; ids whose four bytes all differ; the largest id.
        Job {
            input_ids: vec![0x0403_0201, u32::MAX - 1, 0],
            stop_ids: vec![],
            ..base.clone()
        },
        // Every field at its largest.
        Job {
            model_root: B256::repeat_byte(0xff),
            spec_version: u32::MAX,
            input_ids: (0..300).collect(),
            max_new: u32::MAX,
            stop_ids: (0..16).map(|i| i * 0x0101_0101).collect(),
            sampler: Sampler {
                temperature_q16: u32::MAX,
                top_k: u32::MAX,
                top_p_q16: 65536,
            },
            seed: u64::MAX,
        },
        // A random sampler.
        Job {
            sampler: Sampler {
                temperature_q16: 52429,
                top_k: 40,
                top_p_q16: 62259,
            },
            seed: 7,
            ..base
        },
        Job::embedding(B256::repeat_byte(0x22), vec![101, 258, 102]),
    ]
}

/// Outputs of a job with these stop ids, max_new and vocabulary, and whether each may answer it.
fn outputs() -> Vec<Value> {
    let job = |stops: &[u32], max_new| Job {
        stop_ids: stops.to_vec(),
        max_new,
        ..jobs().remove(0)
    };
    // 258 = 0x102 and 2 share their lowest byte: a filter by that byte must not confuse them.
    let cases: [(Job, u32, &[u32]); 14] = [
        (job(&[2], 4), 300, &[5, 5, 2]),
        (job(&[2], 4), 300, &[2]),
        (job(&[2], 4), 300, &[5, 5, 5, 5]),
        (job(&[2], 4), 300, &[5, 5, 5, 2]),
        (job(&[2], 4), 300, &[258, 258, 2]),
        (job(&[258], 4), 300, &[2, 2, 258]),
        (job(&[2], 4), 300, &[258]),
        (job(&[], 2), 300, &[2, 2]),
        (job(&[], 2), 300, &[2]),
        (job(&[2], 4), 300, &[]),
        (job(&[2], 4), 300, &[2, 5, 5, 5]),
        (job(&[2], 4), 300, &[5, 5, 5, 5, 5]),
        (job(&[2], 4), 300, &[300, 2]),
        (job(&[2, 7], 4), 300, &[7, 2]),
    ];
    cases
        .iter()
        .map(|(job, vocab, out)| {
            json!({
                "stopIds": hex0x(&ids_to_bytes(&job.stop_ids)),
                "maxNew": job.max_new,
                "vocab": vocab,
                "output": hex0x(&ids_to_bytes(out)),
                "answers": job.check_output(out, &shape(*vocab, 0)).is_ok(),
            })
        })
        .collect()
}

/// Batches: jobs packed, the root over leaves, and the path of the last one.
fn batches() -> Vec<Value> {
    let cases: [&[u64]; 5] = [
        &[1],
        &[127, 255],
        &[5, 6, 7],
        &[300, 301, 1000, 1 << 40, (1 << 40) + 1],
        &[1, 2, 3, 4, 5, 6, 7, 8, 9],
    ];
    cases
        .iter()
        .map(|jobs| {
            let ids: Vec<U256> = jobs.iter().map(|id| U256::from(*id)).collect();
            let leaves: Vec<B256> = ids.iter().map(|id| keccak256(id.to_be_bytes::<32>())).collect();
            let tree = Tree::new(leaves.clone()).unwrap();
            let leaf = tree.leaf(jobs.len() - 1);
            json!({
                "jobs": jobs, "packed": hex0x(&pack_jobs(&ids).unwrap()),
                "leaves": leaves, "root": tree.root(), "leaf": leaf, "path": tree.path(leaf),
            })
        })
        .collect()
}

/// Outputs of embedding jobs, and whether each may answer a model of that many words. The first holds every sort of word.
fn words() -> Vec<Value> {
    let job = Job::embedding(B256::ZERO, vec![1]);
    let cases: [(u32, &[u32]); 5] = [
        (4, &[0, 1, u32::MAX, 1 << 31]),
        (1, &[u32::MAX]),
        (4, &[1, 2, 3]),
        (4, &[1, 2, 3, 4, 5]),
        (4, &[]),
    ];
    cases
        .iter()
        .map(|(words, out)| {
            json!({
                "words": words,
                "output": hex0x(&ids_to_bytes(out)),
                "answers": job.check_output(out, &shape(1, *words)).is_ok(),
            })
        })
        .collect()
}

fn shape(vocab: u32, words: u32) -> ModelShape {
    ModelShape {
        vocab,
        context: u32::MAX,
        words,
    }
}

fn hex0x(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

fn vectors() -> Value {
    let jobs: Vec<Value> = jobs()
        .iter()
        .map(|j| {
            json!({
                "modelRoot": j.model_root,
                "specVersion": j.spec_version,
                "inputIds": hex0x(&ids_to_bytes(&j.input_ids)),
                "maxNew": j.max_new,
                "stopIds": hex0x(&ids_to_bytes(&j.stop_ids)),
                "temperatureQ16": j.sampler.temperature_q16,
                "topK": j.sampler.top_k,
                "topPQ16": j.sampler.top_p_q16,
                // A string, since JSON readers lose bits of large numbers.
                "seed": j.seed.to_string(),
                "hash": j.hash(),
            })
        })
        .collect();

    let commits: Vec<Value> = (1u64..=3)
        .map(|i| {
            let b = i as u8;
            let (chain_id, hub) = (22212 + i, Address::repeat_byte(b));
            let (job_id, sender) = (U256::from(i), Address::repeat_byte(b + 16));
            let (salt, root) = (B256::repeat_byte(b + 32), B256::repeat_byte(b + 48));
            let output = ids_hash(&[i as u32, 258, 2]);
            json!({
                "chainId": chain_id, "hub": hub, "jobId": i, "sender": sender, "salt": salt,
                "traceRoot": root, "outputHash": output,
                "hash": commit_hash(chain_id, hub, job_id, sender, salt, root, output),
            })
        })
        .collect();

    // beacon = keccak256(abi.encode(header hash, job id, attempt)); ticket = keccak256(abi.encode(beacon, neuron))
    let draws: Vec<Value> = (0u64..3)
        .map(|attempt| {
            let header = B256::repeat_byte(0xb1);
            let neuron = Address::repeat_byte(0x77);
            let beacon = keccak256((header, U256::from(5), U256::from(attempt)).abi_encode());
            let ticket = keccak256((beacon, neuron).abi_encode());
            json!({"header": header, "jobId": 5, "attempt": attempt, "neuron": neuron, "beacon": beacon, "ticket": ticket})
        })
        .collect();

    let models: Vec<Value> = [
        (0x11u8, 0, 49152, 8192, 0),
        (0x22, 0, 30522, 512, 384),
        (0xff, u32::MAX, 1, u32::MAX, u32::MAX),
    ]
    .map(|(root, spec_version, vocab, context, words)| {
        let model_root = B256::repeat_byte(root);
        let key = ModelKey {
            model_root,
            spec_version,
            shape: ModelShape {
                vocab,
                context,
                words,
            },
        };
        json!({
            "modelRoot": model_root, "specVersion": spec_version, "vocab": vocab, "context": context,
            "words": words,
            "id": key.id(),
        })
    })
    .to_vec();

    json!({
        "about": "written by contracts/bindings/tests/vectors.rs, read by contracts/test/Vectors.t.sol",
        "models": models,
        "jobs": jobs,
        "commits": commits,
        "draws": draws,
        "outputs": outputs(),
        "words": words(),
        "batches": batches(),
    })
}

#[test]
fn committed_vectors_are_what_rust_computes() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../vectors/job.json");
    let text = serde_json::to_string_pretty(&vectors()).unwrap() + "\n";
    if std::env::var_os("BITAI_WRITE_VECTORS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert_eq!(committed, text, "run with BITAI_WRITE_VECTORS=1 and commit");
}
