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
    config,
    dispute::{Challenge, Mover, Outbox, opened},
    models, stake, worker,
};
use bitai_node::{
    bitcoin::{Backend, embedded::EmbeddedRegtest},
    inscriber::keys::Keys,
};
use bitai_poc::dispute::{Ask, Challenge as Plays, Judge, Move};
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
            ..Rules::default()
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

/// The honest neuron at work on a model, in a task of its own.
async fn neuron(
    devnet: &Devnet,
    options: &Options,
    model: &str,
) -> (oneshot::Sender<()>, JoinHandle<Result<(), Failure>>) {
    let settings = worker::Settings {
        models: vec![model.into()],
        ask: config::Ask::default(),
        stake: Some(stake_wei()),
        keep_offers: false,
        batch_wait: 1,
        device: options.device,
        devices: Default::default(),
        finish: std::time::Duration::ZERO,
    };
    let signer = Account::named("neuron").signer;
    let (stop, stopped) = oneshot::channel::<()>();
    let (data, hub) = (options.data.clone(), devnet.hub.clone());
    let (ready, is_ready) = oneshot::channel();
    let work = tokio::spawn(async move {
        let stop = async {
            let _ = stopped.await;
        };
        worker::work(&data, hub, signer, &settings, ready, stop).await
    });
    // It may never be: the seat answers all the same.
    let _ = is_ready.await;
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
async fn a_neuron_that_starts_again_in_mid_game_goes_on_answering_even_where_it_can_take_no_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = quick(dir.path(), false);
    options.rules.clock = 60;
    let devnet = Devnet::start(&options).await.unwrap();
    let (stop, work) = neuron(&devnet, &options, common::MODEL).await;
    let restart = async {
        answered(&devnet, "bob", 2).await;
        stop.send(()).unwrap();
        work.await.unwrap().unwrap();
        // The transcript goes too: it can be made again.
        std::fs::remove_dir_all(options.data.journal()).unwrap();
        // Nor does it find what it is to serve.
        neuron(&devnet, &options, "nowhere").await
    };
    let (played, (stop, work)) = tokio::join!(played(&devnet, &options, Kind::FalseDispute), restart);
    assert!(played.report.rounds() > 2, "{}", played.report);
    assert!(!work.is_finished(), "another game may come");
    stop.send(()).unwrap();
    let why = work.await.unwrap().unwrap_err();
    assert!(matches!(why, Failure::NoModel { .. }), "{why}");
    devnet.stop().await.unwrap();
}

/// Asks for one position, and says nothing more.
struct Puppet(u32);

impl Plays for Puppet {
    fn next(&mut self, judge: &Judge) -> Move {
        let ask = Ask::Token { pos: self.0 };
        match judge.builds_on(&ask) {
            Ok(to) if !judge.published().token.contains_key(&self.0) => Move::Ask { to, ask },
            _ => Move::Resign,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_first_game_is_over_is_answered_for_until_its_window_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = quick(dir.path(), true);
    options.rules.challenge_window = 300;
    let devnet = Devnet::start(&options).await.unwrap();
    let first = played(&devnet, &options, Kind::FalseDispute).await;
    // Deeper than any reorg is looked for.
    let backend = Arc::clone(&devnet.node.parts().backend);
    let nobody = Keys::from_seed(&[9; 32], backend.network()).script();
    let height = || async { devnet.hub.node().height().await.unwrap() };
    let since = height().await;
    backend.generate(130, &nobody).unwrap();
    common::until("the node has followed", || async { height().await > since + 120 }).await;
    // The seat has looked at this height.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;

    let verifier = Verifier::of(&devnet.hub).await.unwrap().unwrap();
    let claim = verifier.public(first.claim).await.unwrap();
    let (_, pack) = models::open_root(&devnet.data, &claim.job.model_root).unwrap();
    let model = (pack.program(), opened(&pack).unwrap().branches());
    let posted = devnet.hub.find(first.job_id).await.unwrap().height;
    let alice = common::sender(&devnet, "alice");
    let asked = 1;
    let puppet: Mover = Box::new(Puppet(asked));
    let mut seat = Challenge::new(verifier.clone(), claim, model, posted, Some(puppet));
    let mut outbox = Outbox::new(alice);
    let is_answered =
        |logged: &Logged| logged.height > since + 100 && matches!(logged.event, Event::Answered { .. });
    let end = tokio::time::Instant::now() + common::PATIENCE;
    loop {
        let now = height().await;
        seat.step(&mut outbox, now).await.unwrap();
        let events = verifier.events(first.claim, 0).await.unwrap();
        if events.iter().any(is_answered) {
            break;
        }
        assert!(
            tokio::time::Instant::now() < end,
            "the neuron has lost sight of its claim"
        );
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
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
