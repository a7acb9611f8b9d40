//! Lies on a running devnet: the contract convicts who lied, and nobody else.

// A helper that unwraps says the same as a test that does.
#![allow(clippy::unwrap_used)]

mod common;

use std::{path::Path, sync::Arc};

use bitai_devnet::{
    Devnet, Options,
    accounts::Account,
    deploy::{Rules, stake_wei},
    liar::{Kind, Played, play},
};
use bitai_miner::{
    Failure,
    chain::{
        Verifier,
        verifier::{BY_CONTRADICTION, BY_SILENCE, CLAIM_CONVICTED, Event, Logged},
    },
    config, stake, worker,
};
use bitai_node::{
    bitcoin::{Backend, embedded::EmbeddedRegtest},
    inscriber::keys::Keys,
};
use bitai_types::{Job, Sampler};
use common::{job, options, settled};
use tokio::{sync::oneshot, task::JoinHandle};

/// Short blocks, and clocks that a test can wait for.
fn quick(dir: &Path, neuron: bool) -> Options {
    Options {
        block_interval_ms: Some(400),
        rules: Rules {
            challenge_window: 20,
            clock: 25,
        },
        ..options(dir, neuron)
    }
}

/// A greedy job of 9 prompt ids and 4 outputs.
fn greedy(devnet: &Devnet) -> Job {
    Job {
        sampler: Sampler::GREEDY,
        ..job(devnet, 9, 4)
    }
}

async fn played(devnet: &Devnet, options: &Options, kind: Kind) -> Played {
    let played = play(devnet, options.device, &greedy(devnet), kind).await.unwrap();
    println!("{kind:?}\n{}\n", played.report);
    assert!(played.is_as_expected(), "{played:?}");
    played
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_about_rows_and_tokens_are_convicted_by_an_executed_step() {
    let dir = tempfile::tempdir().unwrap();
    let options = quick(dir.path(), false);
    let devnet = Devnet::start(&options).await.unwrap();
    for (kind, step) in [
        (Kind::Linear, "LinearFinish"),
        (Kind::Attention, "Key"),
        (Kind::Token, "GreedyExceeded"),
    ] {
        let played = played(&devnet, &options, kind).await;
        assert_eq!(played.report.step.as_deref(), Some(step), "{kind:?}");
        let (who, _) = played.report.convicted.unwrap();
        assert_eq!(who, Account::named("alice").address());
        assert!(played.report.rounds() <= 8, "{}", played.report);
        let verifier = Verifier::of(&devnet.hub).await.unwrap().unwrap();
        let claim = verifier.claim(played.claim).await.unwrap();
        assert_eq!(claim.state, CLAIM_CONVICTED);
        assert!(verifier.owed(who).await.unwrap().is_zero(), "the bond is back");
    }
    devnet.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_convicted_when_the_clock_runs_out() {
    let dir = tempfile::tempdir().unwrap();
    let options = quick(dir.path(), false);
    let devnet = Devnet::start(&options).await.unwrap();
    let played = played(&devnet, &options, Kind::Silence).await;
    assert_eq!(played.report.convicted.unwrap().1, BY_SILENCE);
    assert_eq!(played.report.step, None);
    assert!(played.report.blocks() > 25, "{}", played.report);
    devnet.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_dispute_costs_its_challenger_the_bond_and_the_job_is_paid() {
    let dir = tempfile::tempdir().unwrap();
    let options = quick(dir.path(), true);
    let devnet = Devnet::start(&options).await.unwrap();
    let neuron = Account::named("neuron").address();
    let before = stake::staked(&devnet.hub, neuron).await.unwrap();
    let played = played(&devnet, &options, Kind::FalseDispute).await;
    assert_eq!(played.report.lost[0].0, Account::named("bob").address());
    settled(&devnet, played.job_id).await.unwrap();
    assert_eq!(stake::staked(&devnet.hub, neuron).await.unwrap(), before);
    let verifier = Verifier::of(&devnet.hub).await.unwrap().unwrap();
    common::until("the neuron has taken the bond", || async {
        verifier.owed(neuron).await.unwrap().is_zero()
    })
    .await;
    devnet.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_output_beside_a_right_root_contradicts_itself() {
    let dir = tempfile::tempdir().unwrap();
    let options = quick(dir.path(), false);
    let devnet = Devnet::start(&options).await.unwrap();
    let played = played(&devnet, &options, Kind::Output).await;
    assert_eq!(played.report.convicted.unwrap().1, BY_CONTRADICTION);
    devnet.stop().await.unwrap();
}

/// The honest neuron at work, in a task of its own.
async fn neuron(
    devnet: &Devnet,
    options: &Options,
) -> (oneshot::Sender<()>, JoinHandle<Result<(), Failure>>) {
    let settings = worker::Settings {
        models: options.models.clone(),
        ask: config::Ask::default(),
        stake: Some(stake_wei()),
        keep_offers: false,
        device: options.device,
    };
    let signer = Account::named("neuron").signer;
    let neuron = worker::prepare(&options.data, devnet.hub.clone(), signer, &settings)
        .await
        .unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let work = tokio::spawn(neuron.run(async move {
        let _ = stopped.await;
    }));
    (stop, work)
}

/// Waits for so many answers in the first game of an account.
async fn answered(devnet: &Devnet, who: &'static str, count: usize) {
    let verifier = Verifier::of(&devnet.hub).await.unwrap().unwrap();
    let who = Account::named(who).address();
    let is_answer = |logged: &&Logged| matches!(logged.event, Event::Answered { .. });
    common::until("the game is half played", || async {
        let tip = devnet.hub.node().height().await.unwrap();
        let games = verifier.games_of(who, 0, tip).await.unwrap();
        let Some((claim, _)) = games.first() else {
            return false;
        };
        verifier
            .events(*claim, 0)
            .await
            .unwrap()
            .iter()
            .filter(is_answer)
            .count()
            >= count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neuron_that_starts_again_in_mid_game_goes_on_answering() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = quick(dir.path(), false);
    options.rules.clock = 60;
    let devnet = Devnet::start(&options).await.unwrap();
    let (stop, work) = neuron(&devnet, &options).await;
    let restart = async {
        answered(&devnet, "bob", 2).await;
        stop.send(()).unwrap();
        work.await.unwrap().unwrap();
        // The transcript goes too: it can be made again.
        std::fs::remove_dir_all(options.data.journal()).unwrap();
        neuron(&devnet, &options).await
    };
    let (played, (stop, work)) = tokio::join!(played(&devnet, &options, Kind::FalseDispute), restart);
    assert!(played.report.rounds() > 2, "{}", played.report);
    stop.send(()).unwrap();
    work.await.unwrap().unwrap();
    devnet.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorg_of_two_blocks_in_mid_game_convicts_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let options = quick(dir.path(), false);
    let devnet = Devnet::start(&options).await.unwrap();
    let main = Arc::clone(&devnet.node.parts().backend);
    let reorg = async {
        answered(&devnet, "alice", 2).await;
        let other = EmbeddedRegtest::open(&dir.path().join("fork")).unwrap();
        let fork = main.tip().unwrap().height - 2;
        common::copy_blocks(main.as_ref(), &other, 0, fork);
        let lost = main.hash_at(fork + 1).unwrap();
        let nobody = Keys::from_seed(&[9; 32], main.network()).script();
        common::until("the other branch is the longer one", || async {
            let ahead = main.tip().unwrap().height + 2 - other.tip().unwrap().height;
            other.generate(u32::try_from(ahead).unwrap(), &nobody).unwrap();
            common::copy_blocks(&other, main.as_ref(), fork, u64::MAX);
            main.hash_at(fork + 1).unwrap() != lost
        })
        .await;
    };
    let (played, ()) = tokio::join!(played(&devnet, &options, Kind::Linear), reorg);
    assert_eq!(played.report.step.as_deref(), Some("LinearFinish"));
    devnet.stop().await.unwrap();
}
