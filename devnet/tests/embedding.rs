//! A text from its posting to the payment of its embedding, on real parts, and a neuron that lies about one word.

// A helper that unwraps says the same as a test that does.
#![allow(clippy::unwrap_used)]

mod common;

use std::{path::Path, process::Command};

use alloy_primitives::U256;
use bitai_devnet::{Devnet, Options, accounts::coin, deploy::stake_wei};
use bitai_kernels::Trace;
use bitai_miner::{ask, config::Ask, datadir::DataDir, engine::Loaded, models};
use bitai_model::synthetic::encoder::{tiny, write};
use bitai_poc::{Header, Transcript};
use bitai_types::Job;
use common::{answer, job, options, post, run, sender, settled};

/// Both models lie in the data directory, and both are served where none is named.
fn both(dir: &Path, neuron: bool) -> Options {
    let options = options(dir, neuron);
    write(&options.data.models().join("encoder.pack"), &tiny(), 7).unwrap();
    Options {
        models: vec![],
        ..options
    }
}

fn embedding(devnet: &Devnet) -> Job {
    let model = devnet.model_that(true).unwrap();
    assert_eq!((model.name.as_str(), model.shape.words), ("encoder", 64));
    Job::embedding(model.model_root, vec![2, 4, 7, 9, 5, 3])
}

fn loaded(data: &DataDir, options: &Options, job: &Job) -> Loaded {
    let (_, pack) = models::open_root(data, &job.model_root).unwrap();
    Loaded::new(&pack, options.device).unwrap()
}

/// `miner ...` as a user types it: exit code, standard output, standard error.
fn miner(dir: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_bitai-devnet"))
        .arg("miner")
        .args(args)
        .env("BITAI_DATA_DIR", dir)
        .env_remove("BITAI_MODEL")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_is_embedded_paid_and_verified_beside_a_model_that_generates() {
    let dir = tempfile::tempdir().unwrap();
    let options = both(dir.path(), true);
    let devnet = Devnet::start(&options).await.unwrap();
    let asked = embedding(&devnet);
    let job_id = post(&devnet, &asked).await;
    let generating = job(&devnet, 5, 4);
    let generating = Job {
        model_root: devnet.model_that(false).unwrap().model_root,
        input_ids: vec![7; 5],
        ..generating
    };
    let other_id = post(&devnet, &generating).await;
    settled(&devnet, job_id).await.unwrap();
    settled(&devnet, other_id).await.unwrap();

    let answered = ask::answer(&devnet.hub, job_id).await.unwrap();
    let mine = loaded(&options.data, &options, &asked)
        .answer(&asked, &mut |_| ())
        .unwrap();
    assert_eq!(answered.trace_root, mine.trace_root);
    assert_eq!(answered.output_ids, mine.transcript.outputs());
    assert_eq!(answered.output_ids.len(), 64);

    let (d, id) = (dir.path(), job_id.to_string());
    let (code, out, err) = miner(d, &["verify", &id, "--against", "reference"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(
        out.contains("64 words out")
            && out.contains("OK: same trace root")
            && out.contains("the claimed root"),
        "{out}"
    );
    let (code, _, err) = miner(d, &["verify", &id, "--from", "1"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("depends on the whole text"), "{err}");
    let (code, out, err) = miner(d, &["verify", "--jobs", "0.."]);
    assert_eq!((code, out.matches(" OK ").count()), (Some(0), 2), "{out}{err}");

    // The same from a text, as a user types it.
    let text = ["ask", "--embed", "The deep sky, sea", "--model", "encoder"];
    let (code, out, err) = miner(d, &[&text[..], &["--json"]].concat());
    assert_eq!(code, Some(0), "{out}{err}");
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["embedding"]["integers"].as_array().unwrap().len(), 64);
    let words = json["answer"]["output_ids"].as_array().unwrap();
    let first = json["embedding"]["integers"][0].as_i64().unwrap();
    assert_eq!(
        words[0].as_u64().unwrap(),
        u64::from((first as i32).cast_unsigned())
    );
    // Each model is asked for what it can do.
    let (code, _, err) = miner(d, &["ask", "sea", "--model", "encoder"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("is an encoder"), "{err}");
    let (code, _, err) = miner(d, &["ask", "--embed", "sea", "--model", "tiny"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("needs an encoder"), "{err}");
    devnet.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_flipped_word_is_named_whatever_root_stands_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = both(dir.path(), false);
    let devnet = Devnet::start(&options).await.unwrap();
    let hub = &devnet.hub;
    let bob = sender(&devnet, "bob");
    run(&bob, hub.stake(stake_wei())).await;
    let key = devnet.model_that(true).unwrap().key();
    run(&bob, hub.serve(&key, &Ask::default(), coin() * U256::from(10))).await;

    let asked = embedding(&devnet);
    let mut loaded = loaded(&options.data, &options, &asked);
    let honest = loaded.answer(&asked, &mut |_| ()).unwrap();
    let mut words = honest.transcript.outputs().to_vec();
    words[5] ^= 1;
    let mut lie = Transcript::new(Header::new(&asked, loaded.engine().program()));
    lie.bodies(0, honest.transcript.body_roots());
    lie.words(&words);
    for root in [honest.trace_root, lie.root().unwrap()] {
        let id = answer(&devnet, &bob, &asked, root.0, &words).await;
        let (code, out, err) = miner(dir.path(), &["verify", &id.to_string()]);
        assert_eq!(code, Some(14), "{out}{err}");
        let (mine, theirs) = (words[5] ^ 1, words[5]);
        let named = format!(
            "output word 5 should be {}, not {}",
            mine.cast_signed(),
            theirs.cast_signed()
        );
        assert!(out.contains(&named), "{out}");
        let (code, out, err) = miner(dir.path(), &["verify", &id.to_string(), "--against", "reference"]);
        assert_eq!(code, Some(14), "{out}{err}");
        assert!(root != honest.trace_root || out.contains(&named), "{out}");
    }
    let (code, out, _) = miner(dir.path(), &["verify", "--jobs", "0.."]);
    assert_eq!((code, out.matches(" MISMATCH ").count()), (Some(14), 2), "{out}");
    devnet.stop().await.unwrap();
}
