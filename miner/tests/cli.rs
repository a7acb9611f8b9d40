//! The program as its user meets it: answers, receipts, checks, and a distinct exit code for each failure.

// A helper that unwraps says the same as a test that does.
#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use bitai_model::synthetic::{self, Shape};

fn miner(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bitai-miner"))
        .args(args)
        .env("BITAI_DATA_DIR", dir)
        .env_remove("BITAI_NODE")
        .env_remove("BITAI_MODEL")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn code(dir: &Path, args: &[&str]) -> i32 {
    let out = miner(dir, args);
    out.status
        .code()
        .unwrap_or_else(|| panic!("{args:?}: {}", String::from_utf8_lossy(&out.stderr)))
}

fn with_model() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("models")).unwrap();
    synthetic::write(&dir.path().join("models/tiny.pack"), &Shape::tiny(), 7).unwrap();
    dir
}

#[test]
fn an_answer_is_the_same_everywhere_and_its_receipt_verifies() {
    let dir = with_model();
    let receipt = dir.path().join("r.json");
    let receipt = receipt.to_str().unwrap();
    let mut roots = Vec::new();
    for device in [
        &["--device", "reference"][..],
        &["--threads", "1"],
        &["--threads", "2"],
    ] {
        let mut args = vec![
            "infer",
            "sea",
            "--max-new",
            "40",
            "--temperature",
            "1",
            "--seed",
            "9",
            "--json",
            "--out",
            receipt,
        ];
        args.extend(device);
        let out = miner(dir.path(), &args);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert!(json["output_tokens"].as_u64().unwrap() >= 1);
        roots.push(json["trace_root"].as_str().unwrap().to_owned());
        assert_eq!(code(dir.path(), &["verify", receipt]), 0);
    }
    roots.dedup();
    assert_eq!(roots.len(), 1, "{roots:?}");

    let edit = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(receipt).unwrap()).unwrap();
        change(&mut json);
        let path = dir.path().join("edited.json");
        std::fs::write(&path, json.to_string()).unwrap();
        miner(dir.path(), &["verify", path.to_str().unwrap()])
    };
    let other_token = edit(&|r| r["output_ids"][0] = (r["output_ids"][0].as_u64().unwrap() ^ 1).into());
    assert_eq!(other_token.status.code(), Some(14));
    assert!(String::from_utf8_lossy(&other_token.stderr).contains("output token 0"));
    let other_prompt = edit(&|r| r["job"]["input_ids"][0] = 5.into());
    assert_eq!(other_prompt.status.code(), Some(14));
    let other_root = edit(&|r| r["trace_root"] = format!("0x{}", "11".repeat(32)).into());
    assert_eq!(other_root.status.code(), Some(14));
    let other_model = edit(&|r| r["job"]["model_root"] = format!("0x{}", "11".repeat(32)).into());
    assert_eq!(other_model.status.code(), Some(12));
    assert_eq!(edit(&|r| r["version"] = 9.into()).status.code(), Some(16));
}

#[test]
fn a_check_compares_a_second_device_or_pack_and_shows_its_work() {
    let dir = with_model();
    let d = dir.path();
    synthetic::write(&d.join("models/other.pack"), &Shape::tiny(), 8).unwrap();
    let receipt = d.join("r.json");
    let receipt = receipt.to_str().unwrap();
    let infer = [
        "infer",
        "sea",
        "--model",
        "tiny",
        "--max-new",
        "12",
        "--out",
        receipt,
    ];
    assert_eq!(code(d, &infer), 0);
    let text = |args: &[&str]| {
        let out = miner(d, &[&["verify", receipt], args].concat());
        (
            out.status.code(),
            String::from_utf8_lossy(&out.stdout).into_owned(),
            String::from_utf8_lossy(&out.stderr).into_owned(),
        )
    };
    // No bar where standard error is no terminal.
    let (ended, out, err) = text(&["--against", "cpu-portable"]);
    assert_eq!((ended, err.as_str()), (Some(0), ""));
    assert!(
        out.contains("the claimed root") && out.contains("of the time of generating"),
        "{out}"
    );
    let (ended, out, _) = text(&["--other-pack", "other", "--no-timing"]);
    assert_eq!(
        ended,
        Some(0),
        "the claim is right; the other pack is another model"
    );
    assert!(out.contains("token 0, site embedding of the id"), "{out}");
    assert!(!out.contains("of the time of generating"), "{out}");
    let (ended, out, _) = text(&["--from", "3", "--to", "6"]);
    assert_eq!(ended, Some(0));
    assert!(out.contains("positions 3 to 6 are as claimed"), "{out}");
    assert_eq!(text(&["--from", "6", "--to", "3"]).0, Some(2));
    assert_eq!(text(&["--to", "99"]).0, Some(2));
    assert_eq!(text(&["--jobs", "1..2"]).0, Some(2), "one or the other");
    assert_eq!(code(d, &["verify"]), 2);
    assert_eq!(code(d, &["verify", "--jobs", "5..2"]), 2);

    // Who really computed with the other pack is found out by it.
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(receipt).unwrap()).unwrap();
    let lie = d.join("lie.json");
    let lie = lie.to_str().unwrap();
    let infer = [
        "infer",
        "sea",
        "--model",
        "other",
        "--max-new",
        "12",
        "--out",
        lie,
    ];
    assert_eq!(code(d, &infer), 0);
    let other: serde_json::Value = serde_json::from_slice(&std::fs::read(lie).unwrap()).unwrap();
    json["output_ids"] = other["output_ids"].clone();
    json["trace_root"] = other["trace_root"].clone();
    json["transcript"] = other["transcript"].clone();
    std::fs::write(lie, json.to_string()).unwrap();
    let out = miner(d, &["verify", lie, "--other-pack", "other", "--json"]);
    assert_eq!(out.status.code(), Some(14));
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(json["result"]["against"]["place"]["token"], 0, "{json}");
}

#[test]
fn an_embedding_has_a_receipt_that_verifies_and_a_changed_word_is_named() {
    let dir = with_model();
    let d = dir.path();
    synthetic::encoder::write(&d.join("models/enc.pack"), &synthetic::encoder::tiny(), 7).unwrap();
    let receipt = d.join("r.json");
    let receipt = receipt.to_str().unwrap();
    let text = [
        "infer",
        "--embed",
        "The deep sea",
        "--model",
        "enc",
        "--out",
        receipt,
    ];
    let out = miner(d, &[&text[..], &["--json"]].concat());
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(json["input_ids"], serde_json::json!([2, 4, 7, 5, 3]));
    assert_eq!(json["integers"].as_array().unwrap().len(), 64);
    for device in ["reference", "cpu-portable"] {
        let out = miner(d, &["verify", receipt, "--against", device]);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(out.status.code(), Some(0), "{text}");
        assert!(
            text.contains("64 words out") && !text.contains("generating"),
            "{text}"
        );
    }
    let mut read: serde_json::Value = serde_json::from_slice(&std::fs::read(receipt).unwrap()).unwrap();
    assert_eq!(read["trace_root"], json["trace_root"]);
    read["output_ids"][9] = (read["output_ids"][9].as_u64().unwrap() ^ 1).into();
    let lie = d.join("lie.json");
    std::fs::write(&lie, read.to_string()).unwrap();
    let out = miner(d, &["verify", lie.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(14));
    assert!(String::from_utf8_lossy(&out.stderr).contains("output word 9 should be"));
    read["output_ids"].as_array_mut().unwrap().pop();
    std::fs::write(&lie, read.to_string()).unwrap();
    let out = miner(d, &["verify", lie.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(14));
    assert!(String::from_utf8_lossy(&out.stderr).contains("output of 63 words; this model puts out 64"));

    assert_eq!(
        code(d, &["infer", "sea", "--model", "enc"]),
        2,
        "generates nothing"
    );
    assert_eq!(
        code(d, &["infer", "--embed", "sea", "--model", "tiny"]),
        2,
        "puts out no row"
    );
    assert_eq!(
        code(d, &["infer", "--embed", "sea", "--model", "enc", "--seed", "1"]),
        2,
        "draws nothing"
    );
    assert_eq!(
        code(d, &["infer", "--embed", &"sea ".repeat(30), "--model", "enc"]),
        13,
        "longer than the context"
    );
}

#[test]
fn rejects_model_files_that_are_unknown_or_cut_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.gguf");
    let path = file.to_str().unwrap();
    for bytes in [
        &b"junk"[..],
        b"",
        b"GGUF",
        b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f\0\0\0\0\0\0\0\0",
    ] {
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(code(dir.path(), &["models", "import", path]), 10, "{bytes:?}");
    }
    assert_eq!(code(dir.path(), &["models", "import", "/nowhere/x.gguf"]), 10);
    let models = std::fs::read_dir(dir.path().join("models")).map_or(0, Iterator::count);
    assert_eq!(models, 0);
    assert_eq!(code(dir.path(), &["models", "show", "x"]), 12);
}

#[test]
fn rejects_a_pack_in_which_any_part_has_a_flipped_byte() {
    let dir = with_model();
    let path = dir.path().join("models/tiny.pack");
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(code(dir.path(), &["models", "show", "tiny"]), 0);
    for at in [0, 40, 200, whole.len() / 3, whole.len() / 2, whole.len() - 20] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(code(dir.path(), &["models", "show", "tiny"]), 11, "byte {at}");
        assert_eq!(
            code(dir.path(), &["infer", "x", "--model", "tiny"]),
            11,
            "byte {at}"
        );
    }
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(code(dir.path(), &["models", "list"]), 11);
}

#[test]
fn every_refusal_has_its_code_and_names_the_mend() {
    let dir = with_model();
    let d = dir.path();
    assert_eq!(code(d, &["infer"]), 2);
    assert_eq!(
        code(d, &["infer", "x", "--top-k", "5"]),
        2,
        "top-k without a temperature"
    );
    assert_eq!(code(d, &["infer", "x", "--model", "other"]), 12);
    assert_eq!(code(d, &["infer", "x", "--max-new", "0"]), 13);
    assert_eq!(code(d, &["infer", &"long ".repeat(600), "--max-new", "4"]), 13);
    let nowhere = [
        "status",
        "--node",
        "http://127.0.0.1:9",
        "--hub",
        "0x0000000000000000000000000000000000000001",
    ];
    let address = ["--address", "0x0000000000000000000000000000000000000001"];
    let out = miner(d, &[&nowhere[..], &address].concat());
    assert_eq!(out.status.code(), Some(20));
    assert!(String::from_utf8_lossy(&out.stderr).contains("127.0.0.1:9"));
    assert_eq!(code(d, &["status"]), 30, "no key");
    std::fs::write(d.join("config.toml"), "nodes = 1").unwrap();
    assert_eq!(code(d, &["models", "list"]), 3);
    assert_eq!(code(d, &["--help"]), 0);
}

#[test]
fn a_wallet_is_made_shown_and_never_prints_its_secret() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (password, key) = (d.join("password"), d.join("key"));
    std::fs::write(&password, "open sesame\n").unwrap();
    std::fs::write(&key, "11".repeat(32)).unwrap();
    let (password, key) = (password.to_str().unwrap(), key.to_str().unwrap());
    assert_eq!(code(d, &["wallet", "new", "--password-file", password]), 0);
    let out = miner(
        d,
        &[
            "wallet",
            "import",
            "second",
            "--key-file",
            key,
            "--password-file",
            password,
        ],
    );
    assert_eq!(out.status.code(), Some(0));
    // The account of this key, as every Ethereum tool derives it.
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        text.contains("0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"),
        "{text}"
    );
    assert!(!text.contains(&"11".repeat(32)) && !text.contains("sesame"));
    let shown = miner(d, &["wallet", "show"]);
    assert_eq!(String::from_utf8_lossy(&shown.stdout).lines().count(), 2);
    assert_eq!(
        code(
            d,
            &[
                "wallet",
                "import",
                "bad",
                "--key-file",
                password,
                "--password-file",
                password
            ]
        ),
        2
    );
    assert_eq!(
        code(d, &["wallet", "new", "--password-file", password]),
        30,
        "never replaced"
    );
}

/// What stands between the two marks of the security page.
const PAGE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../docs/security/proof-of-compute.md"
);
const MARKS: [&str; 2] = ["<!-- soundness: begin -->\n", "<!-- soundness: end -->"];

#[test]
fn the_security_page_holds_what_soundness_prints() {
    let dir = tempfile::tempdir().unwrap();
    let printed = String::from_utf8(miner(dir.path(), &["soundness"]).stdout).unwrap();
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (before, rest) = page.split_once(MARKS[0]).unwrap();
    let (held, after) = rest.split_once(MARKS[1]).unwrap();
    if std::env::var_os("BITAI_WRITE_DOCS").is_some() {
        std::fs::write(PAGE, [before, MARKS[0], &printed, MARKS[1], after].concat()).unwrap();
        return;
    }
    assert!(
        held == printed,
        "run with BITAI_WRITE_DOCS=1 and commit docs/security/proof-of-compute.md"
    );
}

#[test]
fn soundness_answers_for_what_was_typed_and_needs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let args = "soundness --fee-rate 10 --honest 0.75 --validators 4 --model 8b --prompt 100 --json";
    let out = miner(dir.path(), &args.split(' ').collect::<Vec<_>>());
    assert!(out.status.success());
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    // (1 - 3/4)^4.
    assert_eq!(report["attest"]["none_honest"]["minus_log2_hundredths"], 800);
    assert_eq!(report["params"]["fee"], 2_000 + 6 * 100 + 60 * 128);
    let models = report["disputes"]["models"].as_array().unwrap();
    assert_eq!(models.len(), 1);
    assert_eq!(models[0]["rounds"], 8);
    assert_eq!(models[0]["rates"].as_array().unwrap().len(), 1);
    let text = miner(dir.path(), &["soundness", "--model", "135m"]).stdout;
    assert!(
        String::from_utf8(text)
            .unwrap()
            .contains("Disputes about SmolLM2-135M")
    );
}

#[test]
fn rejects_nonsense_to_soundness_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for (args, named) in [
        ("--honest 1.5", "no share"),
        ("--honest=-1", "no share"),
        ("--rechecked half", "no share"),
        ("--validators 0", "validators drawn must be 1 or more"),
        ("--fee-rate 0", "fee rate"),
        ("--fee-rate 10,x", "invalid digit"),
        ("--model 2b", "135m"),
        ("--prompt 9000", "do not fit the context"),
        ("--hash-work 257", "at most 256"),
    ] {
        let mut all = vec!["soundness"];
        all.extend(args.split(' '));
        let out = miner(dir.path(), &all);
        assert_eq!(out.status.code(), Some(2), "{args}");
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(said.contains(named), "{args}: {said}");
    }
}

#[test]
fn the_reference_page_holds_what_the_definition_says() {
    const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operator/cli.md");
    let dir = tempfile::tempdir().unwrap();
    let printed = String::from_utf8(miner(dir.path(), &["reference"]).stdout).unwrap();
    if std::env::var_os("BITAI_WRITE_DOCS").is_some() {
        std::fs::write(REFERENCE, printed).unwrap();
        return;
    }
    let held = std::fs::read_to_string(REFERENCE).unwrap_or_default();
    assert!(
        held == printed,
        "run with BITAI_WRITE_DOCS=1 and commit docs/operator/cli.md"
    );
}
