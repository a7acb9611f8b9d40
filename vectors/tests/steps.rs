//! The committed steps, read back from the file: each input gives its output, and what is no step is refused.

#![allow(clippy::unwrap_used, reason = "tests")]

use bitai_kernels::step::{Kind, execute};
use bitai_vectors::directory;
use serde_json::Value;

fn rules() -> Value {
    let text = std::fs::read_to_string(directory().join("steps.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["rules"].take()
}

fn bytes(case: &Value) -> Vec<u8> {
    hex::decode(case.as_str().unwrap().strip_prefix("0x").unwrap()).unwrap()
}

#[test]
fn every_step_gives_its_output() {
    let rules = rules();
    for kind in Kind::ALL {
        let cases = rules[kind.name()].as_array().unwrap();
        assert!(cases.len() >= 36, "{kind}");
        for case in cases.chunks(2) {
            let input = bytes(&case[0]);
            assert_eq!(input[0], *kind as u8);
            assert_eq!(execute(&input).unwrap(), bytes(&case[1]), "{kind}");
        }
    }
    assert_eq!(rules.as_object().unwrap().len(), Kind::ALL.len() + 1);
}

#[test]
fn rejects_what_is_no_step() {
    for case in rules()["refused"].as_array().unwrap() {
        let input = bytes(case);
        assert!(execute(&input).is_err(), "{case}");
    }
}

#[test]
fn a_draw_has_cases_of_every_answer() {
    let rules = rules();
    let outs: Vec<_> = rules["draw"]
        .as_array()
        .unwrap()
        .chunks(2)
        .map(|c| bytes(&c[1]))
        .collect();
    for answer in 0..3 {
        assert!(outs.contains(&vec![answer]), "{answer}");
    }
}
