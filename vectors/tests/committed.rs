//! The committed vectors are what the reference gives, and a changed one is noticed.

#![allow(clippy::unwrap_used, reason = "tests")]

use bitai_vectors::{check, directory, files, generate};

#[test]
fn committed_vectors_agree_with_the_reference() {
    let cases = check(&directory()).unwrap();
    assert!(cases > 1_000, "{cases}");
}

#[test]
fn rejects_a_changed_vector() {
    let dir = std::env::temp_dir().join(format!("bitai-vectors-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    generate(&dir).unwrap();
    check(&dir).unwrap();
    for file in files().unwrap() {
        let path = dir.join(file.name);
        let good = std::fs::read_to_string(&path).unwrap();
        let digit = good.rfind(|c: char| c.is_ascii_digit()).unwrap();
        let mut bad = good.clone();
        let other = if &good[digit..=digit] == "1" { "2" } else { "1" };
        bad.replace_range(digit..=digit, other);
        std::fs::write(&path, bad).unwrap();
        let error = check(&dir).unwrap_err().to_string();
        assert!(error.contains(file.name), "{error}");
        std::fs::write(&path, format!("{good} ")).unwrap();
        assert!(check(&dir).is_err(), "{}", file.name);
        std::fs::write(&path, good).unwrap();
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn vectors_stay_small() {
    let bytes: usize = files().unwrap().iter().map(|f| f.render().len()).sum();
    assert!(bytes < 1_000_000, "{bytes} bytes");
}
