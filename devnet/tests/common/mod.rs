//! What the end-to-end tests share: a devnet on a tiny synthetic model, a client, a way to wait.

// Each test file uses its own part of this.
#![allow(dead_code)]

use std::{path::Path, sync::Arc, time::Duration};

use alloy_primitives::{B256, U256};
use bitai_contracts::{JobStatus, ModelKey};
use bitai_devnet::{Devnet, Options, accounts::Account};
use bitai_miner::{
    Failure, ask,
    chain::{Sender, hub::status_of, send::Call},
    cli::DeviceKind,
    config,
    datadir::{DataDir, make_dir},
};
use bitai_model::synthetic::{self, Shape};
use bitai_node::bitcoin::Backend;
use bitai_types::{
    Job, Sampler,
    job::{commit_hash, ids_hash},
};

/// Name of the synthetic model.
pub(crate) const MODEL: &str = "tiny";
/// Longest that a job may take on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A data directory with the synthetic model in it.
pub(crate) fn data(dir: &Path) -> DataDir {
    let data = DataDir::resolve(Some(dir.to_owned())).unwrap();
    make_dir(&data.models()).unwrap();
    let path = data.models().join(format!("{MODEL}.pack"));
    if !path.exists() {
        synthetic::write(&path, &Shape::tiny(), 7).unwrap();
    }
    data
}

/// What every test starts.
pub(crate) fn options(dir: &Path, neuron: bool) -> Options {
    Options {
        data: data(dir),
        port: 0,
        models: vec![MODEL.into()],
        sources: vec![],
        neuron,
        device: config::Device {
            kind: DeviceKind::Cpu,
            threads: 2,
            gpu: bitai_miner::gpu::Choice::First,
        },
        block_interval_ms: None,
        rules: Default::default(),
    }
}

/// A job for the synthetic model: `prompt` ids, `max_new` tokens, no stops.
pub(crate) fn job(devnet: &Devnet, prompt: u32, max_new: u32) -> Job {
    Job {
        model_root: devnet.model().model_root,
        spec_version: 0,
        input_ids: (0..prompt)
            .map(|i| (i * 37 + 11) % devnet.model().shape.vocab)
            .collect(),
        max_new,
        stop_ids: vec![],
        sampler: Sampler {
            temperature_q16: 65536,
            top_k: 40,
            top_p_q16: 60000,
        },
        seed: 42,
    }
}

/// A sender with a published key.
pub(crate) fn sender(devnet: &Devnet, name: &'static str) -> Sender {
    Sender::new(Arc::clone(devnet.hub.node()), Account::named(name).signer)
}

/// Posts a job as the client, on the served model that it names.
pub(crate) async fn post(devnet: &Devnet, job: &Job) -> U256 {
    post_on(devnet, &key(devnet, job), job).await
}

/// The served model that a job names.
fn key(devnet: &Devnet, job: &Job) -> ModelKey {
    let mut models = devnet.models.iter();
    models.find(|m| m.model_root == job.model_root).unwrap().key()
}

/// Posts a job as the client, on any registration.
async fn post_on(devnet: &Devnet, model: &ModelKey, job: &Job) -> U256 {
    let client = sender(devnet, "client");
    let fee = U256::from(ask::DEFAULT_FEE_WEI);
    let posted = ask::post(&devnet.hub, &client, model, job, 1, fee).await;
    posted.unwrap().0
}

/// Waits until the job is paid.
pub(crate) async fn settled(devnet: &Devnet, job_id: U256) -> Result<(), Failure> {
    ask::wait(&devnet.hub, job_id, None, PATIENCE, &mut |_| ()).await
}

/// Asks until the answer is yes; panics with `what` when patience ends.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !ask().await {
        assert!(tokio::time::Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Executes one call.
pub(crate) async fn run(who: &Sender, call: Call) {
    who.execute(&call, "a step by hand", Duration::from_secs(60))
        .await
        .unwrap();
}

/// Answers a job by hand with whatever root: stands for a neuron that does not compute what it claims.
pub(crate) async fn answer(devnet: &Devnet, who: &Sender, job: &Job, root: B256, outputs: &[u32]) -> U256 {
    answer_on(devnet, who, &key(devnet, job), job, (root, outputs)).await
}

/// [`answer`] for a job on any registration.
pub(crate) async fn answer_on(
    devnet: &Devnet,
    who: &Sender,
    model: &ModelKey,
    job: &Job,
    (root, outputs): (B256, &[u32]),
) -> U256 {
    let hub = &devnet.hub;
    let job_id = post_on(devnet, model, job).await;
    until("the neuron is drawn", || async {
        hub.drawn(job_id).await.unwrap().contains(&who.address())
    })
    .await;
    let salt = B256::repeat_byte(7);
    let bound = commit_hash(
        hub.node().chain_id(),
        hub.address(),
        job_id,
        who.address(),
        salt,
        root,
        ids_hash(outputs),
    );
    run(who, hub.commit(job_id, job.hash(), bound)).await;
    run(who, hub.reveal(job_id, salt, root, outputs)).await;
    until("the challenge window is over", || async {
        let job = hub.job(job_id).await.unwrap().unwrap();
        status_of(&job) == JobStatus::Challenge && hub.node().height().await.unwrap() >= job.deadline
    })
    .await;
    run(who, hub.finalise(job_id)).await;
    job_id
}

/// Gives `to` the blocks of `from` above one height, up to another or the tip.
pub(crate) fn copy_blocks(from: &dyn Backend, to: &dyn Backend, above: u64, until: u64) {
    let tip = from.tip().unwrap().height.min(until);
    for height in above + 1..=tip {
        let hash = from.hash_at(height).unwrap().unwrap();
        to.submit_block(&from.block(&hash).unwrap().unwrap()).unwrap();
    }
}
