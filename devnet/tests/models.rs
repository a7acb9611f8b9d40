//! Models on the chain as their owners use them: registered, offered, and taken back before a job is drawn that nobody
//! answers.

// A helper that unwraps says the same as a test that does.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::{Command, Output};

use alloy_primitives::B256;
use bitai_devnet::{Devnet, Options, accounts::Account, deploy::stake_wei};
use bitai_miner::{config::Ask, models, wallet, worker};
use bitai_model::synthetic::encoder;
use common::{MODEL, options, until};

/// Name of the encoder.
const ENCODER: &str = "enc";

/// A devnet without a neuron that lists both models.
async fn devnet(dir: &std::path::Path) -> (Options, Devnet) {
    let mut options = options(dir, false);
    let path = options.data.models().join(format!("{ENCODER}.pack"));
    encoder::write(&path, &encoder::tiny(), 7).unwrap();
    options.models.push(ENCODER.into());
    let devnet = Devnet::start(&options).await.unwrap();
    (options, devnet)
}

/// Gives bob a keystore in the data directory.
fn keystore(options: &Options) {
    std::fs::write(options.data.root().join("password"), "sesame").unwrap();
    wallet::store(&options.data, "bob", &Account::named("bob").signer, "sesame").unwrap();
}

/// The miner as bob types it: exit code, what it printed, what it logged.
fn bob(dir: &std::path::Path, args: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_bitai-devnet"))
        .arg("miner")
        .args(args)
        .env("BITAI_DATA_DIR", dir)
        .env("BITAI_KEYSTORE", "bob")
        .env("BITAI_PASSWORD_FILE", dir.join("password"))
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (status.code(), text(&stdout), text(&stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neuron_takes_back_offers_that_it_does_not_serve() {
    let dir = tempfile::tempdir().unwrap();
    let (options, devnet) = devnet(dir.path()).await;
    let hub = &devnet.hub;
    let account = Account::named("bob");
    let ids: Vec<_> = devnet.models.iter().map(|m| m.key().id()).collect();
    // Gets ready to serve these models; the chain shows what is offered then.
    let serve = async |models: &[&str], keep_offers, offered: &[B256]| {
        let settings = worker::Settings {
            models: models.iter().map(|m| (*m).into()).collect(),
            ask: Ask::default(),
            stake: Some(stake_wei()),
            keep_offers,
            batch_wait: 1,
            device: options.device,
            devices: Default::default(),
            finish: std::time::Duration::ZERO,
        };
        let prepared = worker::prepare(&options.data, hub.clone(), account.signer.clone(), &settings).await;
        prepared.unwrap();
        until("it offers what it serves", || async {
            hub.offered(account.address()).await.unwrap() == offered
        })
        .await;
    };
    serve(&[MODEL, ENCODER], false, &ids).await;
    serve(&[MODEL], true, &ids).await;
    let count = |tag| hub.node().nonce(account.address(), tag);
    let (done, sent) = (count("latest").await.unwrap(), count("pending").await.unwrap());
    assert_eq!(done, sent, "nothing is on its way");
    serve(&[MODEL], false, &ids[..1]).await;
    let left = hub.offers_by_id(ids[1]).await.unwrap();
    assert!(left.is_empty(), "nobody is drawn for it");
    serve(&[MODEL, ENCODER], false, &ids).await;

    // The owner, by hand; one pack is gone.
    keystore(&options);
    std::fs::remove_file(options.data.models().join(format!("{ENCODER}.pack"))).unwrap();
    let encoder = ids[1].to_string();
    let (code, out, _) = bob(dir.path(), &["doctor"]);
    assert!(
        out.contains(&format!(
            "FAULT   offers    offered without a pack here: {encoder}"
        )),
        "{out}"
    );
    assert_eq!(code, Some(18), "{out}");
    assert_eq!(bob(dir.path(), &["unserve"]).0, Some(2), "which ones?");
    assert_eq!(
        bob(dir.path(), &["unserve", ENCODER]).0,
        Some(12),
        "no such name here"
    );
    let root = devnet.models[1].model_root.to_string();
    let (code, out, err) = bob(dir.path(), &["unserve", &root]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains(&format!("withdrawn    {encoder}")), "{out}");
    assert!(
        out.contains("offers 1 models") && !out.contains("open jobs"),
        "{out}"
    );
    let (code, out, _) = bob(dir.path(), &["unserve", &encoder]);
    assert_eq!(code, Some(0), "what is wanted is so");
    assert!(out.contains(&format!("not offered  {encoder}")), "{out}");
    let (code, out, err) = bob(dir.path(), &["unserve", "--all"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.contains(&format!("withdrawn    {MODEL} (")) && out.contains("offers 0 models"),
        "{out}"
    );
    assert!(hub.offered(account.address()).await.unwrap().is_empty());
    devnet.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_is_registered_by_its_owner_once() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), false);
    let devnet = Devnet::start(&options).await.unwrap();
    keystore(&options);
    let file = dir.path().join("Elsewhere.pack");
    encoder::write(&file, &encoder::tiny(), 9).unwrap();
    let (model, _) = models::open_at(&options.data, file.to_str().unwrap()).unwrap();
    let id = model.key().id().to_string();
    let register = |uri: &str, more: &[&str]| {
        let pack = file.to_str().unwrap();
        let args = ["models", "register", "--pack", pack, "--uri", uri];
        bob(dir.path(), &[&args[..], more].concat())
    };
    let uri = "https://example.org/Elsewhere.pack";
    // Without a node there is only the dry run.
    let nowhere = ["--node", "http://127.0.0.1:9"];
    assert_eq!(register(uri, &nowhere).0, Some(20));
    let (code, out, err) = register(uri, &[&nowhere[..], &["--dry-run"]].concat());
    assert_eq!(code, Some(0), "{err}");
    for line in [
        format!("model id     {id}"),
        format!("model root   {:#x}", model.model_root),
        "vocabulary   12".into(),
        "context      24".into(),
        "words        64: it embeds".into(),
        format!("uri          {uri}"),
        "nothing was sent".into(),
    ] {
        assert!(out.contains(&line), "{line} is not in {out}");
    }
    assert!(devnet.hub.model(&model.key()).await.unwrap().is_none());

    let (code, out, err) = register(uri, &[]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("registered   transaction 0x"), "{out}");
    let line = devnet.hub.model(&model.key()).await.unwrap().unwrap();
    assert_eq!(
        (line.owner, line.uri.as_str()),
        (Account::named("bob").address(), uri)
    );
    assert_eq!(line.sourceHash, model.source_hash);
    let (code, out, _) = register("another", &[]);
    assert_eq!(code, Some(0), "what is wanted is so");
    assert!(
        out.contains("registered already by 0x") && out.contains(uri),
        "{out}"
    );

    let (code, _, err) = register(&"x".repeat(257), &[]);
    assert_eq!(code, Some(2));
    assert!(err.contains("--uri has 257 bytes"), "{err}");
    assert_eq!(register("", &[]).0, Some(2));
    let absent = ["models", "register", "--pack", "absent", "--uri", "u"];
    assert_eq!(bob(dir.path(), &absent).0, Some(12));
    devnet.stop().await.unwrap();
}
