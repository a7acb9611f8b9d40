//! The neuron: watches jobs, answers those it is drawn for, submits, and is paid.
//!
//! One loop over the journal's open jobs; each turn asks the chain where a job stands and does the one thing
//! that it needs. So a restart, a reorg and a lost transaction are all the same case: look again.

mod compute;
mod setup;
mod submit;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    time::Duration,
};

use alloy_primitives::{B256, U256};
use bitai_types::Job;
use tokio::sync::mpsc::UnboundedReceiver;

pub use compute::{Computed, Computer};
pub use setup::{Settings, prepare};

use crate::{
    chain::{Hub, Sender},
    cli::RunArgs,
    config::Layers,
    datadir::DataDir,
    exit::Failure,
    journal::{Answer, Closed, Journal},
    wallet,
};

/// How often the chain is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest pause between looks while no node answers.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A neuron at work.
pub struct Neuron {
    hub: Hub,
    sender: Sender,
    journal: Journal,
    computers: BTreeMap<B256, Computer>,
    results: UnboundedReceiver<Computed>,
    computing: BTreeSet<U256>,
}

impl Neuron {
    /// Runs until `stop` is done. A node that does not answer is waited for.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), Failure> {
        tokio::pin!(stop);
        let mut pause = LOOK_EVERY;
        loop {
            match self.look().await {
                Ok(()) => pause = LOOK_EVERY,
                Err(failure @ (Failure::Unreachable { .. } | Failure::Transaction { .. })) => {
                    tracing::warn!("{failure}");
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Err(failure) => return Err(failure),
            }
            tokio::select! {
                () = &mut stop => return Ok(()),
                Some(done) = self.results.recv() => self.take(done)?,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One turn over everything.
    async fn look(&mut self) -> Result<(), Failure> {
        let models: Vec<B256> = self.computers.keys().copied().collect();
        watch::watch(&self.hub, &mut self.journal, &models).await?;
        let height = self
            .hub
            .node()
            .height()
            .await
            .map_err(|e| e.into_failure("eth_blockNumber"))?;
        for job_id in self.journal.open_jobs() {
            self.advance(job_id, height).await?;
        }
        Ok(())
    }

    /// Orders an answer, once.
    fn compute(&mut self, job_id: U256, job: &Job) -> Result<(), Failure> {
        if self.computing.contains(&job_id) {
            return Ok(());
        }
        let Some(computer) = self.computers.get(&job.model_root) else {
            return Ok(());
        };
        tracing::info!(job = %job_id, prompt = job.input_ids.len(), max_new = job.max_new, "drawn; computing");
        if !computer.order(job_id, job.clone()) {
            return Err(Failure::Device(format!(
                "{}: the computing thread has died",
                computer.device()
            )));
        }
        self.computing.insert(job_id);
        Ok(())
    }

    /// Takes a computed answer into the journal.
    fn take(&mut self, done: Computed) -> Result<(), Failure> {
        self.computing.remove(&done.job_id);
        let is_current = self
            .journal
            .get(&done.job_id)
            .is_some_and(|e| e.job.hash() == done.job_hash);
        if !is_current {
            return Ok(());
        }
        let root = done.result.and_then(|transcript| {
            let internal = |e| Failure::Internal(anyhow::Error::new(e).context("the job's transcript"));
            let root = transcript.root().map_err(internal)?;
            let encoded = transcript.encode().map_err(internal)?;
            Ok((root, encoded, transcript))
        });
        match root {
            Ok((root, encoded, transcript)) => {
                tracing::info!(
                    job = %done.job_id,
                    tokens = transcript.outputs().len(),
                    seconds = done.took.as_secs_f32(),
                    %root,
                    "computed"
                );
                let answer = Answer {
                    output_ids: transcript.outputs().to_vec(),
                    trace_root: root.into(),
                    transcript: encoded.into(),
                };
                self.journal.update(&done.job_id, |e| e.answer = Some(answer))
            }
            Err(failure) => {
                // Nothing that this neuron can answer: the draw will pass to another one.
                tracing::error!(job = %done.job_id, "cannot be computed: {failure}");
                let closed = Closed {
                    why: failure.to_string(),
                    height: u64::MAX,
                };
                self.journal.update(&done.job_id, |e| e.closed = Some(closed))
            }
        }
    }
}

/// Done on SIGINT or SIGTERM; says which.
async fn signalled() -> bool {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut term) = signal(SignalKind::terminate()) else {
            return tokio::signal::ctrl_c().await.is_ok();
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => true,
            _ = term.recv() => false,
        }
    }
    #[cfg(not(unix))]
    {
        tokio::signal::ctrl_c().await.is_ok()
    }
}

/// Runs the command.
pub async fn run(data: &DataDir, layers: &Layers, args: &RunArgs) -> Result<(), Failure> {
    let hub = Hub::connect(&layers.chain(&args.chain)).await?;
    let signer = wallet::open(data, &layers.key(&args.key, &args.chain, false))?;
    let settings = Settings {
        models: args.model.clone(),
        ask: layers.ask(args.ask),
        stake: args.stake,
        device: layers.device(&args.device),
    };
    let interrupted = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = std::sync::Arc::clone(&interrupted);
    let stop = async move {
        let ctrl_c = signalled().await;
        flag.store(ctrl_c, std::sync::atomic::Ordering::Relaxed);
    };
    tokio::pin!(stop);
    let neuron = tokio::select! {
        neuron = prepare(data, hub, signer, &settings) => neuron?,
        () = &mut stop => return Err(Failure::Interrupted),
    };
    neuron.run(stop).await?;
    tracing::info!("stopped; what is under way is in the journal");
    if interrupted.load(std::sync::atomic::Ordering::Relaxed) {
        Err(Failure::Interrupted)
    } else {
        Ok(())
    }
}
