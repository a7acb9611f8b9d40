//! The committed vectors are what the reference gives, and a changed one is noticed.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::LazyLock;

use bitai_vectors::{File, compare, directory, files, write};

static FILES: LazyLock<Vec<File>> = LazyLock::new(|| files().unwrap());

#[test]
fn committed_vectors_agree_with_the_reference() {
    let cases = compare(&FILES, &directory()).unwrap();
    assert!(cases > 1_000, "{cases}");
}

#[test]
fn rejects_a_changed_vector() {
    let dir = std::env::temp_dir().join(format!("bitai-vectors-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    write(&FILES, &dir).unwrap();
    compare(&FILES, &dir).unwrap();
    for file in FILES.iter() {
        let path = dir.join(file.name);
        let good = file.render();
        let digit = good.rfind(|c: char| c.is_ascii_digit()).unwrap();
        let mut bad = good.clone();
        let other = if &good[digit..=digit] == "1" { "2" } else { "1" };
        bad.replace_range(digit..=digit, other);
        std::fs::write(&path, bad).unwrap();
        let error = compare(&FILES, &dir).unwrap_err().to_string();
        assert!(error.contains(file.name), "{error}");
        std::fs::write(&path, format!("{good} ")).unwrap();
        assert!(compare(&FILES, &dir).is_err(), "{}", file.name);
        std::fs::write(&path, good).unwrap();
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn vectors_stay_small() {
    let bytes: usize = FILES.iter().map(|f| f.render().len()).sum();
    assert!(bytes < 1_000_000, "{bytes} bytes");
}

#[test]
fn every_rule_of_arithmetic_has_cases_of_its_own() {
    let named: Vec<&str> = FILES
        .iter()
        .flat_map(|f| &f.rules)
        .filter(|(_, cases)| !cases.is_empty())
        .map(|(name, _)| *name)
        .collect();
    // "R3-R5" holds R4 as well; a whole group ("R") pins no rule down alone.
    let has = |rule: &str| {
        named.iter().any(|name| match name.split_once('-') {
            Some((first, last)) => rule.len() == 2 && (first..=last).contains(&rule),
            None => *name == rule,
        })
    };
    for rule in [
        "N1", "N2", "N3", "N4", "N5", "Q2", "Q3", "Q4", "Q5", "Q6", "Q7", "L1", "L2", "L3", "L4", "E1", "R1",
        "R2", "R3", "R4", "R5", "R6", "R7", "R8", "R9", "O1", "P1", "P2", "X1", "G1", "G2", "G3", "G4", "G5",
        "A1", "A2", "D1", "S1", "S2", "S3", "S4", "S5", "S6", "S7",
    ] {
        assert!(has(rule), "no golden vectors for rule {rule}");
    }
}
