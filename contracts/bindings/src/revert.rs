//! Revert data as a sentence. Names, parameters and the sentence come from the natspec of the Solidity sources,
//! so a contract's error is explained in one place only.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::LazyLock;

use alloy_primitives::{Address, B256, U256, keccak256};

/// Every file that declares errors of the contracts.
const SOURCES: [&str; 15] = [
    include_str!("../../src/interfaces/IWorkerHub.sol"),
    include_str!("../../src/interfaces/IPayouts.sol"),
    include_str!("../../src/interfaces/IAttestations.sol"),
    include_str!("../../src/libraries/AttestTree.sol"),
    include_str!("../../src/interfaces/IModelRegistry.sol"),
    include_str!("../../src/interfaces/IPocVerifier.sol"),
    include_str!("../../src/interfaces/IProgramBook.sol"),
    include_str!("../../src/libraries/Ids.sol"),
    include_str!("../../src/libraries/Blake3Node.sol"),
    include_str!("../../src/libraries/Blob.sol"),
    include_str!("../../src/libraries/Merkle.sol"),
    include_str!("../../src/libraries/Sites.sol"),
    include_str!("../../src/libraries/Slices.sol"),
    include_str!("../../src/libraries/StepCall.sol"),
    include_str!("../../src/libraries/Wire.sol"),
];

/// `Error(string)`: a reason in plain text.
const ERROR_STRING: [u8; 4] = [0x08, 0xc3, 0x79, 0xa0];
/// `Panic(uint256)`: an assertion of the compiler.
const PANIC: [u8; 4] = [0x4e, 0x48, 0x7b, 0x71];

/// One declared error.
struct Declared {
    name: String,
    /// What follows "Thrown when".
    when: String,
    /// (type, name), enums kept by their name.
    params: Vec<(String, String)>,
}

static TABLE: LazyLock<HashMap<[u8; 4], Declared>> = LazyLock::new(|| {
    let declared = SOURCES.iter().flat_map(|source| parse(source));
    declared.map(|d| (selector(&d), d)).collect()
});

/// What a revert says, in words, or `None` where the data belongs to no error of ours (an out of gas, another
/// contract). Never fails on malformed data: arguments that are cut off are left out.
pub fn explain_revert(data: &[u8]) -> Option<String> {
    let (head, args) = data.split_first_chunk::<4>()?;
    match *head {
        ERROR_STRING => return string_at(args, 0),
        PANIC => return Some(panic_text(args)),
        _ => {}
    }
    let error = TABLE.get(head)?;
    let mut text = format!("{}: {}", error.name, error.when);
    let mut sep = " (";
    for (i, (ty, name)) in error.params.iter().enumerate() {
        let Some(value) = value_at(args, i, ty) else {
            continue;
        };
        // Writing to a string cannot fail.
        let _ = write!(text, "{sep}{name} {value}");
        sep = ", ";
    }
    if sep == ", " {
        text.push(')');
    }
    Some(text)
}

/// Errors declared in a Solidity source: `/// Thrown when ...` above `error Name(type name, ...);`.
fn parse(source: &str) -> Vec<Declared> {
    let mut found = Vec::new();
    let mut doc = String::new();
    for line in source.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("/// ") {
            doc.push_str(text);
            doc.push(' ');
            continue;
        }
        let declared = line.strip_prefix("error ").and_then(|l| l.strip_suffix(");"));
        if let Some((name, params)) = declared.and_then(|l| l.split_once('(')) {
            let when = doc.trim().trim_end_matches('.');
            found.push(Declared {
                name: name.to_owned(),
                when: when.strip_prefix("Thrown when ").unwrap_or(when).to_owned(),
                params: params
                    .split(", ")
                    .filter_map(|p| p.split_once(' '))
                    .map(|(t, n)| (t.to_owned(), n.to_owned()))
                    .collect(),
            });
        }
        doc.clear();
    }
    found
}

/// First four bytes of the hash of the canonical signature; an enum is a uint8 there.
fn selector(error: &Declared) -> [u8; 4] {
    let types: Vec<&str> = error
        .params
        .iter()
        .map(|(t, _)| {
            if t == "JobStatus" || t == "AttestationState" {
                "uint8"
            } else {
                t.as_str()
            }
        })
        .collect();
    let hash = keccak256(format!("{}({})", error.name, types.join(",")));
    [hash[0], hash[1], hash[2], hash[3]]
}

/// Argument `i` as text.
fn value_at(args: &[u8], i: usize, ty: &str) -> Option<String> {
    let word = word_at(args, i.checked_mul(32)?)?;
    Some(match ty {
        "string" => format!("\"{}\"", string_at(args, i)?),
        "address" => Address::from_word(word).to_string(),
        "bytes32" => word.to_string(),
        "JobStatus" => match u8::try_from(U256::from_be_bytes(word.0))
            .ok()
            .and_then(crate::JobStatus::from_u8)
        {
            Some(status) => format!("{status:?}"),
            None => U256::from_be_bytes(word.0).to_string(),
        },
        _ => U256::from_be_bytes(word.0).to_string(),
    })
}

/// The 32 bytes at `offset`.
fn word_at(args: &[u8], offset: usize) -> Option<B256> {
    let end = offset.checked_add(32)?;
    args.get(offset..end).map(B256::from_slice)
}

/// The string that argument `i` points to; control characters are dropped, so it can go to a terminal.
fn string_at(args: &[u8], i: usize) -> Option<String> {
    let offset = usize::try_from(U256::from_be_bytes(word_at(args, i.checked_mul(32)?)?.0)).ok()?;
    let len = usize::try_from(U256::from_be_bytes(word_at(args, offset)?.0)).ok()?;
    let start = offset.checked_add(32)?;
    let bytes = args.get(start..start.checked_add(len)?)?;
    let text = String::from_utf8_lossy(bytes);
    Some(text.chars().filter(|c| !c.is_control()).collect())
}

/// The compiler's assertions that can happen (Solidity documentation, "Panic via assert").
fn panic_text(args: &[u8]) -> String {
    let code = word_at(args, 0).map(|w| U256::from_be_bytes(w.0));
    let what = match code.and_then(|c| u64::try_from(c).ok()) {
        Some(0x01) => "an assertion failed",
        Some(0x11) => "an addition, subtraction or product left its range",
        Some(0x12) => "a division by zero",
        Some(0x21) => "a number that is no value of its enum",
        Some(0x32) => "an index beyond the end of an array",
        Some(0x41) => "too much memory was asked for",
        _ => "an internal check of the contract failed",
    };
    format!("Panic: {what}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attestations, ModelRegistry, PocVerifier, ProgramBook, WorkerHub};
    use alloy_sol_types::{SolError, SolInterface};
    use proptest::prelude::*;

    #[test]
    fn every_error_of_the_abi_has_a_sentence() {
        let hub = WorkerHub::WorkerHubErrors::selectors();
        let registry = ModelRegistry::ModelRegistryErrors::selectors();
        let verifier = PocVerifier::PocVerifierErrors::selectors();
        let book = ProgramBook::ProgramBookErrors::selectors();
        let mut n = 0;
        let attestations = Attestations::AttestationsErrors::selectors();
        for selector in hub
            .chain(registry)
            .chain(verifier)
            .chain(book)
            .chain(attestations)
        {
            let error = TABLE.get(&selector).unwrap_or_else(|| panic!("{selector:02x?}"));
            assert!(!error.when.is_empty(), "{}", error.name);
            n += 1;
        }
        assert!(n > 130, "{n}");
    }

    #[test]
    fn every_declared_error_says_when_it_is_thrown() {
        for source in SOURCES {
            let sentences = source.matches("/// Thrown when ").count();
            assert_eq!(parse(source).len(), sentences);
        }
    }

    #[test]
    fn names_the_values() {
        let data = WorkerHub::StakeLocked {
            asked: U256::from(5),
            free: U256::from(3),
        }
        .abi_encode();
        assert_eq!(
            explain_revert(&data).unwrap(),
            "StakeLocked: more stake is asked back than open jobs leave free (asked 5, free 3)"
        );
        let data = WorkerHub::WrongStatus {
            jobId: U256::from(7),
            status: 6,
        }
        .abi_encode();
        assert_eq!(
            explain_revert(&data).unwrap(),
            "WrongStatus: the job is in another state than the call needs (jobId 7, status Settled)"
        );
        let data = WorkerHub::BadParam {
            field: "minStake".into(),
        }
        .abi_encode();
        assert!(explain_revert(&data).unwrap().ends_with("(field \"minStake\")"));
    }

    #[test]
    fn reads_the_compilers_own_errors() {
        let data = alloy_sol_types::Revert::from("no\x1b[31m").abi_encode();
        assert_eq!(explain_revert(&data).unwrap(), "no[31m");
        let data = alloy_sol_types::Panic::from(0x11u64).abi_encode();
        assert!(explain_revert(&data).unwrap().contains("left its range"));
    }

    #[test]
    fn says_nothing_of_what_it_does_not_know() {
        assert_eq!(explain_revert(&[]), None);
        assert_eq!(explain_revert(&[1, 2, 3]), None);
        assert_eq!(explain_revert(&[0; 36]), None);
    }

    proptest! {
        #[test]
        fn never_panics(known in any::<prop::sample::Index>(), tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut selectors: Vec<[u8; 4]> = TABLE.keys().copied().collect();
            selectors.extend([ERROR_STRING, PANIC]);
            let mut data = known.get(&selectors).to_vec();
            data.extend(&tail);
            let _ = explain_revert(&data);
            let _ = explain_revert(&tail);
        }
    }
}
