//! TENSOR_STEP and BLAKE3_PARENT inside the EVM give what the committed vectors say, and fail for anything else, with a
//! reason.

use alloy_primitives::hex;
use bitai_node::transition::precompiles::all;
use bitai_types::chain;
use revm::precompile::{PrecompileHalt, PrecompileOutput};
use serde_json::Value;

use crate::{common::*, transition::precompile};

fn rules() -> Value {
    read(concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/steps.json"))
}

fn read(path: &str) -> Value {
    serde_json::from_str::<Value>(&std::fs::read_to_string(path).unwrap()).unwrap()["rules"].take()
}

fn bytes(case: &Value) -> Vec<u8> {
    hex::decode(case.as_str().unwrap()).unwrap()
}

#[test]
fn steps_agree_with_the_vectors() {
    let (_dir, chain) = chain(1);
    let mut cases = 0;
    for (name, list) in rules().as_object().unwrap() {
        if name == "refused" {
            continue;
        }
        for case in list.as_array().unwrap().chunks(2) {
            let out = precompile(&chain, chain::TENSOR_STEP, &bytes(&case[0]));
            assert_eq!(out, Some(bytes(&case[1])), "{name} {}", case[0]);
            cases += 1;
        }
    }
    assert!(cases > 500, "{cases}");
}

#[test]
fn rejects_what_is_no_step() {
    let (_dir, chain) = chain(1);
    for case in rules()["refused"].as_array().unwrap() {
        assert_eq!(
            precompile(&chain, chain::TENSOR_STEP, &bytes(case)),
            None,
            "{case}"
        );
    }
}

fn step(input: &[u8], gas: u64) -> PrecompileOutput {
    all()
        .get(&chain::TENSOR_STEP)
        .unwrap()
        .execute(input, gas, 0)
        .unwrap()
}

/// D1: 7 + (-3).
const SUM: [u8; 9] = [0x51, 7, 0, 0, 0, 0xfd, 0xff, 0xff, 0xff];

#[test]
fn a_step_takes_its_gas_and_no_less() {
    let out = step(&SUM, 112);
    assert_eq!(
        (out.is_success(), out.gas_used, &out.bytes[..]),
        (true, 112, &[4u8, 0, 0, 0][..])
    );
    assert_eq!(step(&SUM, 111).halt_reason(), Some(&PrecompileHalt::OutOfGas));
    // 33 bytes are two words, and no step costs nothing.
    assert_eq!(step(&[0; 33], 123).halt_reason(), Some(&PrecompileHalt::OutOfGas));
}

#[test]
fn what_is_no_step_halts_with_its_reason() {
    let text = |input: &[u8]| format!("{:?}", step(input, 1_000).halt_reason().unwrap());
    assert!(text(&SUM[..8]).contains("TENSOR_STEP: add: 8 bytes, its layout needs 9 or more"));
    assert!(text(&[0]).contains("TENSOR_STEP: no step has number 0x00"));
    assert!(text(&[]).contains("TENSOR_STEP: the input is empty"));
}

fn parent(input: &[u8], gas: u64) -> PrecompileOutput {
    all()
        .get(&chain::BLAKE3_PARENT)
        .unwrap()
        .execute(input, gas, 0)
        .unwrap()
}

#[test]
fn parents_agree_with_the_vectors() {
    let (_dir, chain) = chain(1);
    let rules = read(concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/blake3.json"));
    let cases = rules["PARENT"].as_array().unwrap();
    assert_eq!(cases.len(), 10);
    for case in cases {
        let values = [bytes(&case["left"]), bytes(&case["right"])].concat();
        for (flag, out) in [(0u8, "cv"), (1, "root")] {
            let input = [&[flag][..], &values].concat();
            let got = precompile(&chain, chain::BLAKE3_PARENT, &input);
            assert_eq!(got, Some(bytes(&case[out])), "{case}");
        }
    }
    let data: Vec<u8> = (0..1025u32).map(|i| (i % 251) as u8).collect();
    assert_eq!(
        bytes(&cases[0]["root"]),
        blake3::hash(&data).as_bytes(),
        "1025 bytes"
    );
    for case in rules["NO_PARENT"].as_array().unwrap() {
        let got = precompile(&chain, chain::BLAKE3_PARENT, &bytes(&case["input"]));
        assert_eq!(got, None, "{case}");
    }
}

#[test]
fn a_parent_takes_its_gas_and_halts_with_its_reason() {
    // 65 bytes are three words.
    let out = parent(&[0; 65], 78);
    assert_eq!((out.is_success(), out.gas_used), (true, 78));
    assert_eq!(
        parent(&[0; 65], 77).halt_reason(),
        Some(&PrecompileHalt::OutOfGas)
    );
    let text = |input: &[u8]| format!("{:?}", parent(input, 1_000).halt_reason().unwrap());
    assert!(text(&[0; 64]).contains("a flag and two chaining values, 65 bytes"));
    assert!(text(&[2; 65]).contains("the flag is neither 0 nor 1"));
}
