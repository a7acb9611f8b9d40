//! Validators on a running devnet: drawn, they compute answers again, attest them, open what they are asked for, defend it, and
//! are paid; a lazy one is slashed.

// A helper that unwraps says the same as a test that does.
#![allow(clippy::unwrap_used)]

mod common;

use std::{path::Path, sync::Arc};

use alloy_primitives::{B256, U256};
use bitai_devnet::{Devnet, Options, accounts::coin, deploy::Rules};
use bitai_miner::{
    attest::Attests,
    chain::{Attestations, Sender, attestations::ATTESTATION_STANDING},
    dispute::Shelf,
};
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

/// Stakes and enlists for the served model, and waits until that weighs.
async fn enlist(devnet: &Devnet, at: &Attestations, who: &Sender) {
    run(who, at.stake(coin() * U256::from(100))).await;
    run(who, at.enlist(devnet.model().key().id())).await;
}

async fn weighs(devnet: &Devnet, at: &Attestations, who: &Sender) {
    let model = devnet.model().key().id();
    until("the stake weighs", || async {
        let epoch = at.epoch_of(devnet.hub.node().height().await.unwrap());
        !at.weights(model, who.address(), epoch).await.unwrap().0.is_zero()
    })
    .await;
}

fn works(options: &Options, at: &Attestations, who: &Sender) -> Attests {
    let shelf = Arc::new(Shelf::new(options.data.clone(), options.device));
    Attests::start(at.clone(), who, &shelf)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_attests_opens_what_it_is_asked_for_and_is_paid() {
    let dir = tempfile::tempdir().unwrap();
    let options = attested(dir.path());
    let devnet = Devnet::start(&options).await.unwrap();
    let at = Attestations::of(&devnet.hub).await.unwrap().unwrap();
    let (alice, bob) = (sender(&devnet, "alice"), sender(&devnet, "bob"));
    enlist(&devnet, &at, &alice).await;
    weighs(&devnet, &at, &alice).await;
    let at_work = works(&options, &at, &alice);

    let job_id = post(&devnet, &job(&devnet, 9, 4)).await;
    until("the job is answered", || async {
        devnet.hub.job(job_id).await.unwrap().unwrap().answeredAt != 0
    })
    .await;
    let answered = devnet.hub.job(job_id).await.unwrap().unwrap().answeredAt;
    let epoch = at.epoch_of(answered);
    until("it is attested", || async {
        at.attestation(epoch, alice.address()).await.unwrap().state == ATTESTATION_STANDING
    })
    .await;

    // Somebody doubts it, when asks are taken.
    until("the ask window is open", || async {
        devnet.hub.node().height().await.unwrap() > at.windows(epoch).attest_by
    })
    .await;
    let bond = at.ask_bond().await.unwrap();
    run(&bob, at.ask(alice.address(), job_id, bond)).await;
    until("the entry is opened", || async {
        !at.waits(job_id, alice.address()).await.unwrap()
    })
    .await;
    let entry = at.entry(job_id, alice.address()).await.unwrap();
    let slot = devnet.hub.slots(job_id).await.unwrap()[0].clone();
    assert_eq!(
        entry.traceRoot, slot.traceRoot,
        "it claims what the neuron revealed"
    );

    // The job is paid, and so is the validator: the bond at once, its part when all is over.
    settled(&devnet, job_id).await.unwrap();
    let pay = at.pay(job_id).await.unwrap();
    assert!(!pay.is_zero());
    until("the validator is paid", || async {
        at.entry(job_id, alice.address()).await.unwrap().paid
            && at.due(alice.address()).await.unwrap().is_zero()
    })
    .await;
    drop(at_work);
    devnet.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_dispute_about_an_attested_root_costs_its_challenger_the_bond() {
    let dir = tempfile::tempdir().unwrap();
    let options = attested(dir.path());
    let devnet = Devnet::start(&options).await.unwrap();
    let at = Attestations::of(&devnet.hub).await.unwrap().unwrap();
    let (alice, bob) = (sender(&devnet, "alice"), sender(&devnet, "bob"));
    enlist(&devnet, &at, &alice).await;
    weighs(&devnet, &at, &alice).await;
    let at_work = works(&options, &at, &alice);
    let asked = job(&devnet, 9, 4);
    let job_id = post(&devnet, &asked).await;
    until("the job is answered", || async {
        devnet.hub.job(job_id).await.unwrap().unwrap().answeredAt != 0
    })
    .await;
    let epoch = at.epoch_of(devnet.hub.job(job_id).await.unwrap().unwrap().answeredAt);
    until("the ask window is open", || async {
        devnet.hub.node().height().await.unwrap() > at.windows(epoch).attest_by
    })
    .await;
    let bond = at.ask_bond().await.unwrap();
    run(&bob, at.ask(alice.address(), job_id, bond)).await;
    until("the entry is opened", || async {
        !at.waits(job_id, alice.address()).await.unwrap()
    })
    .await;

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
    run(&bob, verifier.open(&claim, bond)).await;
    let id = B256::from(claim.id());
    let positions = 9 + u32::try_from(claim.outputs.len()).unwrap() - 1;
    let ask = bitai_poc::dispute::Ask::Tokens {
        height: bitai_poc::merkle::height(positions),
        index: 0,
    };
    run(&bob, verifier.ask(id, &claim.id(), &ask)).await;
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
    devnet.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_over_nothing_computed_costs_a_fifth_of_the_stake() {
    let dir = tempfile::tempdir().unwrap();
    let options = attested(dir.path());
    let devnet = Devnet::start(&options).await.unwrap();
    let at = Attestations::of(&devnet.hub).await.unwrap().unwrap();
    let (lazy, bob) = (sender(&devnet, "alice"), sender(&devnet, "bob"));
    enlist(&devnet, &at, &lazy).await;
    weighs(&devnet, &at, &lazy).await;
    let job_id = post(&devnet, &job(&devnet, 9, 4)).await;
    until("the job is answered", || async {
        devnet.hub.job(job_id).await.unwrap().unwrap().answeredAt != 0
    })
    .await;
    let epoch = at.epoch_of(devnet.hub.job(job_id).await.unwrap().unwrap().answeredAt);
    let w = at.windows(epoch);
    until("the epoch is over", || async {
        devnet.hub.node().height().await.unwrap() >= w.header
    })
    .await;
    let header = at.header(w.header).await.unwrap().unwrap();
    run(&lazy, at.attest(epoch, header, job_id, B256::repeat_byte(5), &[])).await;
    until("the ask window is open", || async {
        devnet.hub.node().height().await.unwrap() > w.attest_by
    })
    .await;
    let bond = at.ask_bond().await.unwrap();
    run(&bob, at.ask(lazy.address(), job_id, bond)).await;
    let asked = at.asked(lazy.address(), 0, devnet.hub.node().height().await.unwrap());
    let open_by = asked.await.unwrap()[0].open_by;
    until("the time for opening is over", || async {
        devnet.hub.node().height().await.unwrap() >= open_by
    })
    .await;
    let before = at.validator(lazy.address()).await.unwrap().stake;
    run(&bob, at.expire(lazy.address(), job_id)).await;
    let after = at.validator(lazy.address()).await.unwrap().stake;
    let lost: U256 = (before - after).to();
    assert_eq!(lost, coin() * U256::from(20));
    assert_eq!(at.due(bob.address()).await.unwrap(), lost / U256::from(2) + bond);
    assert!(at.models(lazy.address()).await.unwrap().is_empty());
    devnet.stop().await.unwrap();
}
