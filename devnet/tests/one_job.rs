//! One job from prompt to payment on real parts: node, Bitcoin regtest, contracts, neuron; then its answer is
//! checked from the chain, and every refusal has its own exit code.

// A helper that unwraps says the same as a test that does.
#![allow(clippy::unwrap_used)]

mod common;

use alloy_primitives::{Address, U256};
use bitai_devnet::{Devnet, accounts::Account};
use bitai_miner::{
    Failure, ask,
    chain::Hub,
    config::Chain,
    engine::Loaded,
    models,
    verify::{self, Claim},
    worker,
};
use common::{job, options, post, sender, settled};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_answered_committed_revealed_and_paid_once() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), true);
    let devnet = Devnet::start(&options).await.unwrap();
    let job = job(&devnet, 9, 32);
    let job_id = post(&devnet, &job).await;
    settled(&devnet, job_id).await.unwrap();

    let answered = ask::answer(&devnet.hub, job_id).await.unwrap();
    assert_eq!(answered.output_ids.len(), 32);
    assert_eq!(answered.neuron, Account::named("neuron").address());
    let steps: Vec<&str> = answered.legs.iter().map(|l| l.step.as_str()).collect();
    assert_eq!(steps, ["infer", "assign + commit", "reveal", "finalise"]);
    for leg in &answered.legs {
        assert!(leg.commit_txid.is_some() && leg.reveal_txid.is_some(), "{leg:?}");
        assert!(
            leg.bitcoin_height.is_some() && leg.vbytes.is_some_and(|v| v > 0) && leg.gas > 0,
            "{leg:?}"
        );
    }

    // Two more at once: the neuron answers them as one batch.
    let other = bitai_types::Job {
        seed: 43,
        ..job.clone()
    };
    let client = sender(&devnet, "client");
    let alice = sender(&devnet, "alice");
    let fee = U256::from(ask::DEFAULT_FEE_WEI);
    let key = devnet.model().key();
    let (a, b) = tokio::join!(
        ask::post(&devnet.hub, &client, &key, &job, 1, fee),
        ask::post(&devnet.hub, &alice, &key, &other, 1, fee)
    );
    let (a, b) = (a.unwrap().0, b.unwrap().0);
    settled(&devnet, a).await.unwrap();
    settled(&devnet, b).await.unwrap();
    let again = ask::answer(&devnet.hub, a).await.unwrap();
    assert_eq!(
        again.trace_root, answered.trace_root,
        "the same job gives the same root in company"
    );
    assert_ne!(
        ask::answer(&devnet.hub, b).await.unwrap().output_ids,
        again.output_ids
    );

    verifies_from_the_chain(&devnet, &options, job_id).await;
    refusals_have_their_codes(&devnet, &options).await;
    devnet.stop().await.unwrap();

    survives_a_restart(&options, job_id).await;
    rejects_a_pack_with_a_flipped_byte(&options.data);
}

/// The answer is computed again from what the chain holds; one changed id or root is found.
async fn verifies_from_the_chain(devnet: &Devnet, options: &bitai_devnet::Options, job_id: U256) {
    let posted = devnet.hub.find(job_id).await.unwrap();
    let revealed = devnet.hub.revealed(job_id).await.unwrap().remove(0);
    let (_, pack) = models::open_root(&options.data, &posted.job.model_root).unwrap();
    let mut loaded = Loaded::new(&pack, options.device).unwrap();
    let claim = Claim {
        job: posted.job.clone(),
        output_ids: revealed.output_ids.clone(),
        trace_root: revealed.trace_root.into(),
        transcript: None,
        who: Some(revealed.neuron),
        registered: Some(posted.model),
    };
    assert!(verify::check(&mut loaded, &claim).unwrap().ok);
    let mut wrong = claim.clone();
    wrong.output_ids[5] ^= 1;
    let found = verify::check(&mut loaded, &wrong).unwrap();
    assert!(
        !found.ok && found.finding.contains("output token 5"),
        "{}",
        found.finding
    );
    // The last id is never run: the root is right, and still this is not the answer behind it.
    let mut wrong = claim.clone();
    wrong.output_ids[31] ^= 1;
    let found = verify::check(&mut loaded, &wrong).unwrap();
    assert!(
        !found.ok && found.finding.contains("output token 31"),
        "{}",
        found.finding
    );
    let mut wrong = claim;
    wrong.trace_root.0.0[31] ^= 1;
    assert!(!verify::check(&mut loaded, &wrong).unwrap().ok);
    assert!(matches!(
        devnet.hub.find(U256::from(99)).await,
        Err(Failure::NoJob { .. })
    ));
}

/// Each cause ends a command with its own code.
async fn refusals_have_their_codes(devnet: &Devnet, options: &bitai_devnet::Options) {
    let chain = |chain_id, hub| Chain {
        nodes: vec![devnet.url.clone()],
        chain_id,
        hub: Some(hub),
        registry: Some(devnet.contracts.registry),
    };
    let code = |r: Result<Hub, Failure>| r.map(|_| 0).unwrap_or_else(|e| e.code());
    assert_eq!(
        code(Hub::connect(&chain(Some(1), devnet.contracts.hub)).await),
        21,
        "wrong chain id"
    );
    assert_eq!(
        code(Hub::connect(&chain(None, Address::repeat_byte(7))).await),
        22,
        "no contract"
    );
    let nowhere = Chain {
        nodes: vec!["http://127.0.0.1:9".into()],
        ..chain(None, devnet.contracts.hub)
    };
    assert_eq!(code(Hub::connect(&nowhere).await), 20, "node unreachable");

    let settings = worker::Settings {
        models: vec![common::MODEL.into()],
        ask: Default::default(),
        stake: None,
        keep_offers: false,
        batch_wait: 1,
        device: options.device,
        devices: Default::default(),
        finish: std::time::Duration::ZERO,
    };
    let hub = devnet.hub.clone();
    let signer = Account::named("bob").signer;
    let small = worker::prepare(&options.data, hub, signer, &settings)
        .await
        .map(|_| ());
    assert_eq!(small.unwrap_err().code(), 31, "stake too small");

    let client = sender(devnet, "client");
    let long = job(devnet, 500, 32);
    let refused = ask::post(
        &devnet.hub,
        &client,
        &devnet.model().key(),
        &long,
        1,
        U256::from(1),
    )
    .await
    .unwrap_err();
    assert!(refused.to_string().contains("context"), "{refused}");
    assert_eq!(refused.code(), 23, "the hub's own refusal");
    let poor = ask::post(
        &devnet.hub,
        &client,
        &devnet.model().key(),
        &job(devnet, 3, 4),
        1,
        U256::MAX >> 100,
    )
    .await
    .unwrap_err();
    assert_eq!(poor.code(), 32, "balance too small");
}

/// A devnet started again on the same directory has the job and answers the next one.
async fn survives_a_restart(options: &bitai_devnet::Options, job_id: U256) {
    let devnet = Devnet::start(options).await.unwrap();
    assert_eq!(
        ask::answer(&devnet.hub, job_id).await.unwrap().output_ids.len(),
        32
    );
    let next = post(&devnet, &job(&devnet, 3, 4)).await;
    settled(&devnet, next).await.unwrap();
    devnet.stop().await.unwrap();
}

fn rejects_a_pack_with_a_flipped_byte(data: &bitai_miner::datadir::DataDir) {
    let path = data.models().join(format!("{}.pack", common::MODEL));
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(
        models::open(data, Some(common::MODEL))
            .map(|_| ())
            .unwrap_err()
            .code(),
        11
    );
}
