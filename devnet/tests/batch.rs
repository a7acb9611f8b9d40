//! Some jobs at once: the neuron commits, reveals and finalises them with one transaction each, across a restart, and every
//! one is paid.

// A helper that unwraps says the same as a test that does.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use alloy_primitives::U256;
use bitai_contracts::SlotState;
use bitai_devnet::{Devnet, accounts::Account};
use bitai_miner::{ask, chain::hub::state_of, worker};
use bitai_types::Job;
use common::{job, options, sender, settled, until};
use tokio::{sync::oneshot, task::JoinHandle};

/// A neuron of this test's own: it waits for company as long as it takes.
struct Working {
    stop: oneshot::Sender<()>,
    done: JoinHandle<Result<(), bitai_miner::Failure>>,
}

async fn start(devnet: &Devnet, options: &bitai_devnet::Options) -> Working {
    let settings = worker::Settings {
        models: vec![common::MODEL.into()],
        ask: Default::default(),
        stake: None,
        keep_offers: false,
        batch_wait: 500,
        device: options.device,
        devices: Default::default(),
        finish: std::time::Duration::ZERO,
    };
    let signer = Account::named("neuron").signer;
    let neuron = worker::prepare(&options.data, devnet.hub.clone(), signer, &settings)
        .await
        .unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let done = tokio::spawn(neuron.run(async move {
        let _ = stopped.await;
    }));
    Working { stop, done }
}

async fn end(working: Working) {
    let _ = working.stop.send(());
    working.done.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_posted_at_once_are_committed_revealed_and_paid_in_one_transaction_each() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), true);
    let mut devnet = Devnet::start(&options).await.unwrap();
    // It has staked and offered; while it sleeps the jobs come in.
    devnet.stop_neuron().await.unwrap();
    let me = Account::named("neuron").address();
    let before = devnet.hub.node().balance(me).await.unwrap();
    let fee = U256::from(ask::DEFAULT_FEE_WEI);
    let key = devnet.model().key();
    let mut ids = Vec::new();
    for (i, who) in ["client", "alice", "bob"].into_iter().enumerate() {
        let job = Job {
            seed: i as u64,
            ..job(&devnet, 5, 6)
        };
        let posted = ask::post(&devnet.hub, &sender(&devnet, who), &key, &job, 1, fee).await;
        ids.push(posted.unwrap().0);
    }
    for id in &ids {
        until("the neuron is drawn", || async {
            devnet.hub.drawn(*id).await.unwrap().contains(&me)
        })
        .await;
    }
    let working = start(&devnet, &options).await;
    for id in &ids {
        until("the job is committed", || async {
            state_of(&devnet.hub.slot(*id, me).await.unwrap()) != SlotState::None
        })
        .await;
    }
    // Whoever comes back finds the batch in the journal.
    end(working).await;
    let working = start(&devnet, &options).await;
    for id in &ids {
        settled(&devnet, *id).await.unwrap();
    }
    end(working).await;

    let mut steps: Vec<(&str, BTreeSet<_>)> = Vec::new();
    for id in &ids {
        for leg in devnet.hub.flow(*id).await.unwrap() {
            match steps.iter_mut().find(|(event, _)| *event == leg.event) {
                Some((_, txs)) => {
                    txs.insert(leg.tx);
                }
                None => steps.push((leg.event, BTreeSet::from([leg.tx]))),
            }
        }
    }
    let counts: Vec<(&str, usize)> = steps.iter().map(|(event, txs)| (*event, txs.len())).collect();
    let expected = [
        ("infer", 3),
        ("assign + commit", 1),
        ("reveal", 1),
        ("finalise", 1),
    ];
    assert_eq!(counts, expected);
    for id in &ids {
        let slot = devnet.hub.slot(*id, me).await.unwrap();
        assert_eq!(state_of(&slot), SlotState::Paid);
        assert_eq!(ask::answer(&devnet.hub, *id).await.unwrap().output_ids.len(), 6);
    }
    assert!(devnet.hub.node().balance(me).await.unwrap() > before, "paid");
    devnet.stop().await.unwrap();
}
