//! Validators on a running devnet: drawn, they compute answers again, attest them, open what they are asked for, defend it, and
//! are paid; a lazy one is slashed.

// A helper that unwraps says the same as a test that does.
#![allow(clippy::unwrap_used)]

mod common;

use std::{path::Path, sync::Arc};

use alloy_primitives::{B256, U256};
use bitai_devnet::{
    Devnet, Options,
    accounts::coin,
    deploy::Rules,
    liar::validator::{answered, ask_for, enlist, lazy},
};
use bitai_miner::{
    attest::Attests,
    chain::{
        Attestations, Sender,
        attestations::{ATTESTATION_STANDING, Windows},
    },
    dispute::Shelf,
};
use bitai_types::Job;
use common::{job, options, post, run, sender, settled, until};

/// Short blocks, and validators.
fn attested(dir: &Path) -> Options {
    Options {
        block_interval_ms: Some(400),
        rules: Rules {
            clock: 25,
            validators: true,
            ..Rules::default()
        },
        ..options(dir, true)
    }
}

/// A devnet with validators: alice is one whose stake weighs, bob somebody who doubts.
struct Stage {
    options: Options,
    devnet: Devnet,
    at: Attestations,
    alice: Sender,
    bob: Sender,
}

async fn stage(dir: &Path) -> Stage {
    let options = attested(dir);
    let devnet = Devnet::start(&options).await.unwrap();
    let at = Attestations::of(&devnet.hub).await.unwrap().unwrap();
    let (alice, bob) = (sender(&devnet, "alice"), sender(&devnet, "bob"));
    Stage {
        options,
        devnet,
        at,
        alice,
        bob,
    }
}

impl Stage {
    /// Alice at work as a validator.
    async fn works(&self) -> Attests {
        let model = self.devnet.model().key().id();
        enlist(&self.devnet, &self.at, &self.alice, model).await.unwrap();
        let shelf = Arc::new(Shelf::new(self.options.data.clone(), self.options.device));
        Attests::start(self.at.clone(), &self.alice, &shelf)
    }

    /// A job that is answered, and the epoch of that.
    async fn answered(&self, asked: &Job) -> (U256, u64, Windows) {
        let job_id = post(&self.devnet, asked).await;
        let (epoch, windows) = answered(&self.devnet, &self.at, job_id).await.unwrap();
        (job_id, epoch, windows)
    }

    /// Bob asks for alice's entry, and waits until it is opened.
    async fn opens(&self, job_id: U256, windows: Windows) {
        let what = (self.alice.address(), job_id, windows);
        ask_for(&self.devnet, &self.at, &self.bob, what).await.unwrap();
        until("the entry is opened", || async {
            !self.at.waits(job_id, self.alice.address()).await.unwrap()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_attests_opens_what_it_is_asked_for_and_is_paid() {
    let dir = tempfile::tempdir().unwrap();
    let stage = stage(dir.path()).await;
    let at_work = stage.works().await;
    let (job_id, epoch, windows) = stage.answered(&job(&stage.devnet, 9, 4)).await;
    let Stage {
        at, alice, devnet, ..
    } = &stage;
    until("it is attested", || async {
        at.attestation(epoch, alice.address()).await.unwrap().state == ATTESTATION_STANDING
    })
    .await;

    // Somebody doubts it, when asks are taken.
    stage.opens(job_id, windows).await;
    let entry = at.entry(job_id, alice.address()).await.unwrap();
    let slot = devnet.hub.slots(job_id).await.unwrap()[0].clone();
    assert_eq!(
        entry.traceRoot, slot.traceRoot,
        "it claims what the neuron revealed"
    );

    // The job is paid, and so is the validator: the bond at once, its part when all is over.
    settled(devnet, job_id).await.unwrap();
    let pay = at.pay(job_id).await.unwrap();
    assert!(!pay.is_zero());
    until("the validator is paid", || async {
        at.entry(job_id, alice.address()).await.unwrap().paid
            && at.due(alice.address()).await.unwrap().is_zero()
    })
    .await;
    drop(at_work);
    stage.devnet.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_dispute_about_an_attested_root_costs_its_challenger_the_bond() {
    let dir = tempfile::tempdir().unwrap();
    let stage = stage(dir.path()).await;
    let at_work = stage.works().await;
    let asked = job(&stage.devnet, 9, 4);
    let (job_id, epoch, windows) = stage.answered(&asked).await;
    stage.opens(job_id, windows).await;
    let Stage {
        at,
        alice,
        bob,
        devnet,
        ..
    } = &stage;

    // Bob disputes what alice claims now, asks, and falls silent.
    let revealed = devnet.hub.revealed(job_id).await.unwrap()[0].clone();
    let claim = bitai_poc::dispute::Claim {
        chain_id: devnet.hub.node().chain_id(),
        hub: at.address(),
        job_id,
        neuron: alice.address(),
        job: asked,
        outputs: revealed.output_ids,
        root: revealed.trace_root.into(),
    };
    let verifier = at.verifier();
    let bond = verifier.bond(claim.job.model_root).await.unwrap();
    run(bob, verifier.open(&claim, bond)).await;
    let id = B256::from(claim.id());
    let positions = 9 + u32::try_from(claim.outputs.len()).unwrap() - 1;
    let ask = bitai_poc::dispute::Ask::Tokens {
        height: bitai_poc::merkle::height(positions),
        index: 0,
    };
    run(bob, verifier.ask(id, &claim.id(), &ask)).await;
    until(
        "alice has called out the silent challenger and has its bond",
        || async {
            let game = verifier.standing(id, bob.address(), 0).await.unwrap().game;
            game.state == bitai_miner::chain::verifier::GAME_LOST
        },
    )
    .await;
    assert_eq!(
        at.attestation(epoch, alice.address()).await.unwrap().state,
        ATTESTATION_STANDING
    );
    drop(at_work);
    stage.devnet.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_over_nothing_computed_costs_a_fifth_of_the_stake() {
    let dir = tempfile::tempdir().unwrap();
    let stage = stage(dir.path()).await;
    let Stage {
        at,
        alice,
        bob,
        devnet,
        ..
    } = &stage;
    let client = sender(devnet, "client");
    let lazy = lazy(devnet, &job(devnet, 9, 4), (alice, bob, &client)).await;
    let lazy = lazy.unwrap();
    assert_eq!(lazy.lost, coin() * U256::from(20));
    assert_eq!(lazy.due, lazy.lost / U256::from(2) + lazy.bond);
    assert!(at.models(alice.address()).await.unwrap().is_empty());
    stage.devnet.stop().await.unwrap();
}
