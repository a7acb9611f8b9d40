//! kill -9 of the miner's and of the node's process at each step of a job: after a restart the job is finished
//! and paid once.

// A helper that unwraps says the same as a test that does.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use alloy_primitives::U256;
use bitai_devnet::accounts::{Account, coin};
use bitai_miner::{
    ask,
    chain::{Hub, Sender},
    config::Layers,
    datadir::DataDir,
};
use bitai_types::{Job, Sampler};
use common::{PATIENCE, until};

/// A process that is killed, hard, when the test ends.
struct Process(Child);

impl Process {
    fn kill9(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already dead where the test killed it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(dir: &Path, args: &[&str]) -> Process {
    let child = Command::new(env!("CARGO_BIN_EXE_bitai-devnet"))
        .args(args)
        .env("BITAI_DATA_DIR", dir)
        .env("BITAI_LOG", "warn,bitai_miner=info")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(if std::env::var_os("BITAI_TEST_LOG").is_some() {
            Stdio::inherit()
        } else {
            Stdio::null()
        })
        .spawn()
        .unwrap();
    Process(child)
}

fn spawn_node(dir: &Path, port: u16) -> Process {
    spawn(
        dir,
        &[
            "--no-neuron",
            "--model",
            common::MODEL,
            "--port",
            &port.to_string(),
        ],
    )
}

fn spawn_miner(dir: &Path) -> Process {
    let devnet = dir.join("devnet");
    let (keystore, password) = (devnet.join("keys/neuron.json"), devnet.join("password"));
    let stake = (coin() * U256::from(500)).to_string();
    let path = |p: &Path| p.to_str().unwrap().to_owned();
    spawn(
        dir,
        &[
            "miner",
            "run",
            "--threads",
            "1",
            "--stake",
            &stake,
            "--keystore",
            &path(&keystore),
            "--password-file",
            &path(&password),
        ],
    )
}

/// A port that was free a moment ago, below the range that systems give to outgoing connections.
fn free_port() -> u16 {
    let base = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    (base..base + 200)
        .find(|p| TcpListener::bind(("127.0.0.1", *p)).is_ok())
        .unwrap()
}

async fn connect(data: &DataDir) -> Hub {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let chain = Layers::read(data).unwrap().chain(&Default::default());
        if chain.hub.is_some()
            && let Ok(hub) = Hub::connect(&chain).await
        {
            return hub;
        }
        assert!(tokio::time::Instant::now() < end, "the devnet never answered");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// Text of the journal's file for a job, empty where there is none.
fn journal(dir: &Path, job_id: U256) -> String {
    let Ok(dirs) = std::fs::read_dir(dir.join("journal")) else {
        return String::new();
    };
    dirs.filter_map(|d| std::fs::read_to_string(d.ok()?.path().join(format!("job-{job_id}.json"))).ok())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_anywhere_the_job_is_finished_and_paid_once() {
    let dir = tempfile::tempdir().unwrap();
    let data = common::data(dir.path());
    let model = bitai_miner::models::open(&data, Some(common::MODEL))
        .unwrap()
        .0
        .key();
    let port = free_port();
    let mut node = spawn_node(dir.path(), port);
    let hub = connect(&data).await;
    let mut miner = spawn_miner(dir.path());
    until("the neuron offers the model", || async {
        !hub.offers(&model).await.unwrap().is_empty()
    })
    .await;

    let job = Job {
        model_root: model.model_root,
        spec_version: 0,
        input_ids: (0..40).collect(),
        max_new: 64,
        stop_ids: vec![],
        sampler: Sampler::GREEDY,
        seed: 0,
    };
    let client = Sender::new(Arc::clone(hub.node()), Account::named("client").signer);
    let (job_id, _) = ask::post(&hub, &client, &model, &job, 1, U256::from(ask::DEFAULT_FEE_WEI))
        .await
        .unwrap();

    // Each mark appears in the journal right before the step leaves; the process dies there, and comes back.
    for mark in [
        "\"job_id\"",
        "\"trace_root\"",
        "\"commit\"",
        "\"reveal\"",
        "\"finalise\"",
    ] {
        until(mark, || async { journal(dir.path(), job_id).contains(mark) }).await;
        miner.kill9();
        if mark.contains("commit") || mark.contains("reveal") || mark.contains("finalise") {
            // The node dies as well, with the step in its mempool or just inscribed.
            node.kill9();
            node = spawn_node(dir.path(), port);
            connect(&data).await;
        }
        miner = spawn_miner(dir.path());
    }
    ask::wait(&hub, job_id, None, PATIENCE, &mut |_| ())
        .await
        .unwrap();

    let steps: Vec<_> = ask::legs(&hub, job_id)
        .await
        .unwrap()
        .into_iter()
        .map(|l| l.step)
        .collect();
    assert_eq!(steps, ["infer", "assign + commit", "reveal", "finalise"]);
    let revealed = hub.revealed(job_id).await.unwrap();
    assert_eq!((revealed.len(), revealed[0].output_ids.len()), (1, 64));
    drop((miner, node));
}
