//! A neuron on its own: before a node that the test moves, and on devices that fail or take their time.

mod batch;
mod device;
mod market;
mod price;

use std::sync::Arc;

use alloy::signers::local::PrivateKeySigner;
use alloy_primitives::{Address, B256, U256};
use bitai_types::{Job, Sampler};

use super::Neuron;
use crate::{
    chain::{Hub, Sender},
    devices::Fleet,
    journal::{Entry, Journal},
};
use market::Shared;

const HUB: Address = Address::repeat_byte(5);
const CHAIN: u64 = 22216;

fn job(model_root: B256) -> Job {
    Job {
        model_root,
        spec_version: 0,
        input_ids: vec![1, 2, 3],
        max_new: 2,
        stop_ids: vec![],
        sampler: Sampler::GREEDY,
        seed: 0,
    }
}

/// A neuron with one open job, number 1, and no model; the node that it talks to; the directory of its journal.
struct Stage {
    neuron: Neuron,
    market: Shared,
    dir: tempfile::TempDir,
}

impl Stage {
    async fn new(job: Job) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (market, hub) = market::node().await;
        let mut neuron = neuron(&dir, hub);
        neuron
            .journal
            .put(Entry::new(CHAIN, HUB, U256::ONE, job))
            .unwrap();
        Self { neuron, market, dir }
    }

    /// The neuron died, and another process goes on from its journal.
    fn restarted(self) -> Self {
        let Self {
            neuron: old,
            market,
            dir,
        } = self;
        let hub = old.hub.clone();
        drop(old);
        let neuron = neuron(&dir, hub);
        Self { neuron, market, dir }
    }

    /// The job's entry.
    fn entry(&self) -> Entry {
        self.neuron.journal.get(&U256::ONE).unwrap().clone()
    }

    /// Changes the job's entry.
    fn note(&mut self, change: impl FnOnce(&mut Entry)) {
        self.neuron.journal.update(&U256::ONE, change).unwrap();
    }
}

fn neuron(dir: &tempfile::TempDir, hub: Hub) -> Neuron {
    let signer = PrivateKeySigner::from_bytes(&B256::repeat_byte(3)).unwrap();
    let sender = Sender::new(Arc::clone(hub.node()), signer);
    Neuron {
        journal: Journal::open(&dir.path().join("journal"), CHAIN, HUB, sender.address()).unwrap(),
        hub,
        sender,
        fleet: Fleet::none(),
        results: tokio::sync::mpsc::unbounded_channel().1,
        names: Default::default(),
        receipts: dir.path().join("receipts"),
        computing: Default::default(),
        faults: Default::default(),
        gathering: Default::default(),
        height: 1,
        grace: std::time::Duration::ZERO,
        is_ending: false,
        monitor: Default::default(),
    }
}
