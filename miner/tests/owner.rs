//! The program as its owner first meets it: what it finds, its settings, its keys and models.

// A helper that unwraps says the same as a test that does.
#![allow(clippy::unwrap_used)]

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use bitai_model::synthetic::{self, Shape};

/// A key that only this test knows.
const KEY: &str = "1b7f0d5c3a9e8264f0c1d2e3b4a5968778695a4b3c2d1e0f1122334455667788";
/// The first key of Hardhat and Anvil.
const PUBLISHED: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

fn miner(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bitai-miner"))
        .args(args)
        .env_clear()
        .env("BITAI_DATA_DIR", dir)
        // Nothing answers there.
        .env("BITAI_NODE", "http://127.0.0.1:1")
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn said(out: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    )
}

fn setting(dir: &Path, key: &str, args: &[&str], env: &[(&str, &str)]) -> (serde_json::Value, String) {
    let out = miner(dir, &[&["config", "--json"], args].concat(), env);
    assert!(out.status.success(), "{}", said(&out));
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let line = json["settings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["key"] == key)
        .unwrap()
        .clone();
    (line["value"].clone(), line["source"].as_str().unwrap().to_owned())
}

#[test]
fn without_anything_it_says_what_is_here_even_where_nothing_is() {
    let dir = tempfile::tempdir().unwrap();
    let out = miner(dir.path(), &[], &[]);
    assert!(out.status.success(), "{}", said(&out));
    let text = said(&out);
    for words in [
        "processor",
        "models     none",
        "none answers at http://127.0.0.1:1",
        "bench",
        "doctor",
        "run",
        "devnet",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // No home, no data directory, no network, settings that are broken.
    let bare = Command::new(env!("CARGO_BIN_EXE_bitai-miner"))
        .env_clear()
        .output()
        .unwrap();
    assert!(bare.status.success(), "{}", said(&bare));
    std::fs::write(dir.path().join("config.toml"), "nodes = 5").unwrap();
    let broken = miner(dir.path(), &[], &[]);
    assert!(
        broken.status.success() && said(&broken).contains("did you mean `node`"),
        "{}",
        said(&broken)
    );
    std::fs::write(dir.path().join("config.toml"), "").unwrap();
    std::fs::create_dir(dir.path().join("models")).unwrap();
    synthetic::write(&dir.path().join("models/tiny.pack"), &Shape::tiny(), 7).unwrap();
    let with = said(&miner(dir.path(), &[], &[]));
    assert!(
        with.contains("model      tiny") && !with.contains("models pull"),
        "{with}"
    );
}

#[test]
fn settings_come_from_flag_then_environment_then_file_then_default() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let env = [("BITAI_ASK_IN", "6"), ("BITAI_MODELS_KEEP_FREE_MIB", "6")];
    let source = |key, args: &[&str], env: &[(&str, &str)]| setting(d, key, args, env).1;
    let value = |args: &[&str], env: &[(&str, &str)]| setting(d, "ask_in", args, env).0.as_u64().unwrap();
    assert_eq!(source("ask_in", &[], &[]), "default");
    std::fs::write(d.join("config.toml"), "ask_in = 5\n[models]\nkeep_free_mib = 5").unwrap();
    assert_eq!((value(&[], &[]), source("ask_in", &[], &[])), (5, "file".into()));
    assert_eq!(
        (value(&[], &env), source("ask_in", &[], &env)),
        (6, "environment".into())
    );
    let flag = ["--ask-in", "7", "--set", "models.keep_free_mib=7"];
    assert_eq!(
        (value(&flag, &env), source("ask_in", &flag, &env)),
        (7, "flag".into())
    );
    // The same inside a section.
    let inside = |args: &[&str], env: &[(&str, &str)]| {
        let (value, source) = setting(d, "models.keep_free_mib", args, env);
        (value.as_u64().unwrap(), source)
    };
    assert_eq!(inside(&[], &[]), (5, "file".into()));
    assert_eq!(inside(&[], &env), (6, "environment".into()));
    assert_eq!(inside(&flag, &env), (7, "flag".into()));
    // The table for people, and a variable that nothing reads.
    let out = miner(d, &["config"], &[("BITAI_ASK_INN", "1")]);
    let text = said(&out);
    assert!(
        text.contains("BITAI_ASK_IN?") && text.contains("config.toml"),
        "{text}"
    );
}

#[test]
fn rejects_settings_that_nobody_knows_with_the_nearest_one() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let check = |env: &[(&str, &str)]| miner(d, &["config", "--check"], env);
    assert_eq!(check(&[]).status.code(), Some(0));
    std::fs::write(d.join("config.toml"), "ask_in = 5\nask_inn = 6").unwrap();
    let out = check(&[]);
    assert_eq!(out.status.code(), Some(3));
    let text = said(&out);
    assert!(
        text.contains("config.toml: line 2: unknown key `ask_inn`; did you mean `ask_in`?"),
        "{text}"
    );
    std::fs::write(d.join("config.toml"), "log = \"=,=\"").unwrap();
    assert_eq!(check(&[]).status.code(), Some(2));
    std::fs::write(d.join("config.toml"), "").unwrap();
    assert_eq!(
        check(&[("BITAI_MODELS_KEEP_FREE_MIB", "many")]).status.code(),
        Some(3)
    );
}

#[test]
fn no_key_and_no_password_is_in_any_log() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (key, password, out) = (d.join("key.hex"), d.join("password"), d.join("out.hex"));
    std::fs::write(&key, format!("0x{KEY}\n")).unwrap();
    std::fs::write(&password, "correct horse\n").unwrap();
    let paths = [&key, &password, &out].map(|p| p.to_str().unwrap());
    let trace = [("BITAI_LOG", "trace"), ("BITAI_PASSWORD_FILE", paths[1])];
    let commands: [&[&str]; 6] = [
        &["wallet", "import", "mine", "--key-file", paths[0]],
        &["wallet", "show"],
        &["wallet", "export", "mine", "--out", paths[2], "--yes"],
        // The node is down: they end with 20, with the key unlocked or not.
        &[
            "stake",
            "1",
            "--hub",
            "0x0000000000000000000000000000000000000001",
        ],
        &["run", "--dry-run"],
        &["config", "--json"],
    ];
    let mut logs = String::new();
    for args in commands {
        logs += &said(&miner(d, args, &trace));
    }
    for secret in [KEY, "correct horse"] {
        assert!(!logs.contains(secret), "{logs}");
    }
    // Both files can be read by everyone, which is said.
    assert!(
        logs.contains("key.hex can be read by others") && logs.contains("password can be read by others"),
        "{logs}"
    );
    assert_eq!(std::fs::read_to_string(&out).unwrap().trim(), KEY);
    assert_eq!(
        std::fs::metadata(&out).unwrap().permissions().mode() & 0o777,
        0o600
    );
    // What is there is not written over, and nothing is written without a word.
    let export = |args: &[&str]| {
        miner(d, &[&["wallet", "export", "mine"], args].concat(), &trace)
            .status
            .code()
    };
    assert_eq!(export(&["--out", paths[2], "--yes"]), Some(2));
    assert_eq!(export(&["--stdout"]), Some(2));
    assert_eq!(export(&["--yes"]), Some(2));
    let printed = miner(d, &["wallet", "export", "mine", "--stdout", "--yes"], &trace);
    assert_eq!(String::from_utf8_lossy(&printed.stdout).trim(), KEY);
}

#[test]
fn imports_are_checked_and_published_keys_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (key, password) = (d.join("key.hex"), d.join("password"));
    std::fs::write(&password, "p").unwrap();
    let import = |text: &str, name: &str| {
        std::fs::write(&key, text).unwrap();
        let paths = [&key, &password].map(|p| p.to_str().unwrap());
        miner(
            d,
            &[
                "wallet",
                "import",
                name,
                "--key-file",
                paths[0],
                "--password-file",
                paths[1],
            ],
            &[],
        )
    };
    for bad in ["", "0x12", &"00".repeat(32), &"ff".repeat(32), "not a key"] {
        assert_eq!(import(bad, "k").status.code(), Some(2), "{bad}");
    }
    let out = import(PUBLISHED, "known");
    assert!(
        out.status.success() && said(&out).contains("everyone knows the key"),
        "{}",
        said(&out)
    );
    assert_eq!(import(KEY, "known").status.code(), Some(30));
    assert_eq!(import(KEY, "../k").status.code(), Some(2));
}

#[test]
fn models_are_pulled_from_files_verified_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let code = |args: &[&str]| miner(d, args, &[]).status.code();
    assert_eq!(code(&["models", "pull", "no-such-model"]), Some(2));
    std::fs::write(d.join("m.gguf"), b"GGUF").unwrap();
    assert_eq!(
        code(&["models", "pull", d.join("m.gguf").to_str().unwrap()]),
        Some(10)
    );
    synthetic::write(&d.join("models/tiny.pack"), &Shape::tiny(), 7).unwrap();
    assert_eq!(code(&["models", "verify", "tiny"]), Some(0));
    let list = miner(d, &["models", "list", "--json"], &[]);
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(list[0]["name"], "tiny");
    assert!(
        list[0]["fits"].as_array().unwrap().iter().any(|f| f == "CPU"),
        "{list}"
    );
    assert!(list[0]["paid"].is_null());
    // No terminal to confirm at.
    assert_eq!(code(&["models", "remove", "tiny"]), Some(2));
    assert_eq!(code(&["models", "remove", "other", "--yes"]), Some(12));
    assert_eq!(code(&["models", "remove", "tiny", "--yes"]), Some(0));
    assert_eq!(code(&["models", "verify", "tiny"]), Some(12));
}

#[test]
fn doctor_names_what_is_wrong_and_ends_with_the_first_faults_code() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let out = miner(d, &["doctor", "--json"], &[]);
    assert_eq!(out.status.code(), Some(12), "{}", said(&out));
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let faults: Vec<_> = json["lines"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|l| l["verdict"] == "fault")
        .collect();
    let codes: Vec<_> = faults.iter().map(|l| l["code"].as_u64().unwrap()).collect();
    assert_eq!(codes, [12, 30, 20], "model, key, node: {json}");
    assert_eq!(json["code"], 12);
    std::fs::create_dir(d.join("models")).unwrap();
    synthetic::write(&d.join("models/tiny.pack"), &Shape::tiny(), 7).unwrap();
    assert_eq!(miner(d, &["doctor"], &[]).status.code(), Some(30));
    let text = said(&miner(d, &["doctor"], &[]));
    assert!(
        text.contains("ok      model") && text.contains("FAULT   node"),
        "{text}"
    );
}
