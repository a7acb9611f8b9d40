//! What a unit of gas buys: nanoseconds per gas of every precompile of ours, of every step by kind (the dearest of its
//! committed vectors) and, in the same run, of Ethereum's. `cargo bench -p bitai-node --bench precompiles`.

#![allow(clippy::unwrap_used, reason = "a bench")]

use std::{hint::black_box, time::Instant};

use alloy_primitives::{Address, hex, keccak256};
use bitai_kernels::step::Kind;
use bitai_node::transition::precompiles::all;
use bitai_types::chain;
use revm::precompile::{Precompile, u64_to_address};

/// Runs, of which the fastest third's slowest counts: other work on the machine only ever adds.
const RUNS: usize = 9;

/// Nanoseconds of one call.
fn time(mut call: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            let mut calls = 0;
            while start.elapsed().as_micros() < 1_500 {
                (0..8).for_each(|_| call());
                calls += 8;
            }
            start.elapsed().as_nanos() as f64 / f64::from(calls)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 3]
}

fn precompile(address: Address) -> &'static Precompile {
    all().get(&address).unwrap()
}

/// (nanoseconds, gas) of a call.
fn measure(address: Address, input: &[u8]) -> (f64, u64) {
    let p = precompile(address);
    let out = p.execute(input, u64::MAX, 0).unwrap();
    assert!(out.is_success(), "{address}: {:?}", out.halt_reason());
    let ns = time(|| {
        black_box(p.execute(black_box(input), u64::MAX, 0).unwrap());
    });
    (ns, out.gas_used)
}

fn line(name: &str, bytes: usize, (ns, gas): (f64, u64)) {
    println!(
        "{name:<24} {bytes:>6} bytes {ns:>9.0} ns {gas:>6} gas {:>7.2} ns/gas",
        ns / gas as f64
    );
}

/// A signature of private key 1 over the hash of nothing, as ECRECOVER takes it.
fn signed() -> Vec<u8> {
    let hash = keccak256([]);
    let signer = alloy::signers::local::PrivateKeySigner::from_slice(&[1; 32]).unwrap();
    let signature = alloy::signers::SignerSync::sign_hash_sync(&signer, &hash).unwrap();
    let raw = signature.as_bytes();
    [&hash[..], &[0; 31], &raw[64..], &raw[..64]].concat()
}

fn main() {
    line("ecrecover", 128, measure(u64_to_address(1), &signed()));
    for len in [32usize, 1024, 8192] {
        let data = vec![7; len];
        // An opcode: 30 and 6 a word.
        let gas = 30 + 6 * (len as u64 / 32);
        let ns = time(|| {
            black_box(keccak256(black_box(&data)));
        });
        line("keccak256", len, (ns, gas));
        line("sha256", len, measure(u64_to_address(2), &data));
        line("BLAKE3", len, measure(chain::BLAKE3, &data));
    }
    line("BLAKE3_PARENT", 65, measure(chain::BLAKE3_PARENT, &[1; 65]));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/steps.json");
    let text = std::fs::read_to_string(path).unwrap();
    let steps: serde_json::Value = serde_json::from_str(&text).unwrap();
    for kind in Kind::ALL {
        let (mut dearest, mut size) = ((0.0, 1), 0);
        for case in steps["rules"][kind.name()].as_array().unwrap().chunks(2) {
            let input = hex::decode(case[0].as_str().unwrap()).unwrap();
            let cost = measure(chain::TENSOR_STEP, &input);
            if cost.0 / cost.1 as f64 > dearest.0 / dearest.1 as f64 {
                (dearest, size) = (cost, input.len());
            }
        }
        line(kind.name(), size, dearest);
    }
}
