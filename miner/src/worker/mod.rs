//! The neuron: watches jobs, answers those it is drawn for, submits, and is paid.
//!
//! One loop over the journal's open jobs; each turn asks the chain where a job stands and does the one thing
//! that it needs. So a restart, a reorg and a lost transaction are all the same case: look again.

mod batch;
mod dry;
mod finish;
mod reprice;
mod setup;
mod submit;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use alloy::signers::local::PrivateKeySigner;
use alloy_primitives::{B256, U256};
use bitai_contracts::{JobStatus, SlotState};
use bitai_types::Job;
use tokio::sync::{mpsc::UnboundedReceiver, oneshot, watch::Receiver as Now};

use setup::Post;
pub use setup::{Settings, prepare};

use crate::{
    chain::{Hub, Sender},
    cli::RunArgs,
    config::{Ask, Layers},
    datadir::DataDir,
    devices::{Computed, Devices, Fleet, Undone},
    dispute::{Guard, Shelf},
    exit::Failure,
    journal::{Answer, Closed, Journal},
    monitor::{self, Monitor},
    offers, onboard,
    receipt::Receipt,
    wallet,
};

/// How often the chain is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest pause between looks while no node answers.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// First pause before a job that a device failed at is computed again; it doubles each time.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Heights for which a finished job stays in the journal: deeper than the reorgs that open it again.
const KEEP_HEIGHTS: u64 = 2 * watch::REORG_DEPTH;

/// How long `run` may go on after it was told to stop.
const FINISH: Duration = Duration::from_secs(20);

/// A neuron at work.
pub struct Neuron {
    hub: Hub,
    sender: Sender,
    journal: Journal,
    fleet: Fleet,
    results: UnboundedReceiver<Computed>,
    /// By root: id on the chain, name.
    names: BTreeMap<B256, (B256, String)>,
    receipts: PathBuf,
    computing: BTreeSet<U256>,
    faults: BTreeMap<U256, Fault>,
    gathering: batch::Gathering,
    /// Newest height seen.
    height: u64,
    /// How long it may go on after it was told to stop.
    grace: Duration,
    /// Told to stop: no job is begun any more.
    is_ending: bool,
    /// Who is told what happens.
    monitor: Monitor,
}

/// A job that a device failed at.
#[derive(Debug)]
struct Fault {
    times: u32,
    again_at: Instant,
    why: String,
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
                    self.monitor.node_failed(&failure);
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Err(failure) => return Err(failure),
            }
            tokio::select! {
                () = &mut stop => return self.finish(self.grace).await,
                Some(done) = self.results.recv() => {
                    self.take(done)?;
                    // What is done by now goes in one batch.
                    while let Ok(done) = self.results.try_recv() {
                        self.take(done)?;
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One turn over everything.
    async fn look(&mut self) -> Result<(), Failure> {
        let height = self
            .hub
            .node()
            .height()
            .await
            .map_err(|e| e.into_failure("eth_blockNumber"))?;
        if height != self.height {
            self.height = height;
            self.prune()?;
        }
        let models: Vec<B256> = self.names.values().map(|(id, _)| *id).collect();
        watch::watch(&self.hub, &mut self.journal, &models).await?;
        let mut found = batch::Found::default();
        for job_id in self.journal.open_jobs() {
            self.advance(job_id, height, &mut found).await?;
        }
        self.monitor.looked(height, self.journal.open_jobs().len());
        self.take_steps(found, height).await
    }

    /// Takes finished jobs out of the journal, after writing a receipt of each answer.
    fn prune(&mut self) -> Result<(), Failure> {
        let (names, receipts) = (&self.names, &self.receipts);
        let pruned = self
            .journal
            .prune(self.height.saturating_sub(KEEP_HEIGHTS), &mut |entry| {
                let Some(answer) = &entry.answer else {
                    return Ok(());
                };
                let name = names.get(&entry.job.model_root);
                let receipt = Receipt::of_answer(name.map_or("", |(_, n)| n), &entry.job, answer);
                let path = receipts.join(Receipt::file_name(receipt.trace_root));
                if path.exists() {
                    Ok(())
                } else {
                    receipt.write(&path)
                }
            })?;
        if pruned != 0 {
            tracing::debug!(jobs = pruned, "finished jobs taken out of the journal");
        }
        Ok(())
    }

    /// Gives up a job whose time is over without an answer, and says what that means.
    fn leave_if_too_late(&mut self, job_id: U256, s: submit::Standing) -> Result<(), Failure> {
        let owed = matches!(
            (s.status, s.slot),
            (JobStatus::Committing, SlotState::Assigned) | (JobStatus::Revealing, SlotState::Committed)
        );
        if !owed || s.height < s.deadline {
            return Ok(());
        }
        let (times, why) = match (self.faults.remove(&job_id), self.fleet.waiting(&job_id)) {
            (Some(fault), _) => (fault.times, fault.why),
            (None, Some(why)) => (0, why),
            (None, None) if self.computing.contains(&job_id) => {
                (0, "it took longer, or waited for other jobs".into())
            }
            (None, None) => return Ok(()),
        };
        tracing::error!(
            job = %job_id, failures = times,
            "left: not computed before height {}: {why}. Part of the collateral is lost and another neuron is drawn",
            s.deadline
        );
        self.close(job_id, format!("left: {why}"))
    }

    /// Hands an order back that no step waits for any more: its time is over, or the job is.
    fn recall(&self, job_id: U256) {
        if self.computing.contains(&job_id) {
            self.fleet.recall(job_id);
        }
    }

    fn close(&mut self, job_id: U256, why: String) -> Result<(), Failure> {
        let height = self.height;
        self.monitor.closed(job_id, &why, None);
        self.journal
            .update(&job_id, |e| e.closed = Some(Closed { why, height }))
    }

    /// Orders an answer, once; again after a pause where a device has failed at it.
    fn compute(&mut self, job_id: U256, job: &Job, deadline: u64) -> Result<(), Failure> {
        if self.computing.contains(&job_id) {
            // It may have been recalled for a moment, by a chain that was undone since.
            self.fleet.want(job_id);
            return Ok(());
        }
        if self.is_ending {
            return Ok(());
        }
        if let Some(fault) = self.faults.get(&job_id) {
            if fault.again_at > Instant::now() {
                return Ok(());
            }
            tracing::warn!(
                job = %job_id, "trying again after {} failures of the device; there is time until height {deadline}",
                fault.times
            );
        }
        if self.fleet.shape(&job.model_root).is_none() {
            return Ok(());
        }
        tracing::info!(job = %job_id, prompt = job.input_ids.len(), max_new = job.max_new, "drawn; computing");
        if !self.fleet.order(job_id, job.clone()) {
            return Err(Failure::Internal(anyhow::anyhow!("the devices' thread has died")));
        }
        self.computing.insert(job_id);
        self.monitor.ordered(job_id, job.input_ids.len());
        Ok(())
    }

    /// Takes a computed answer into the journal.
    fn take(&mut self, done: Computed) -> Result<(), Failure> {
        if let Err(Undone::Wrong(why)) = &done.result {
            return self.take_back(done.job_id, done.job_hash, why);
        }
        self.computing.remove(&done.job_id);
        let entry = self.journal.get(&done.job_id);
        let Some(entry) = entry.filter(|e| e.job.hash() == done.job_hash) else {
            return Ok(());
        };
        let result = match done.result {
            Ok(transcript) => Ok(transcript),
            Err(Undone::Failed(failure)) => Err(failure),
            // The second was dealt with above.
            Err(Undone::Recalled | Undone::Wrong(_)) => {
                tracing::info!(job = %done.job_id, "not computed: nothing waits for it any more");
                return Ok(());
            }
        };
        let job = &entry.job;
        let shape = self.fleet.shape(&job.model_root).copied();
        let root = result.and_then(|transcript| {
            // The hub would refuse its reveal, and a commitment that is not revealed costs collateral.
            if let Some(shape) = shape {
                job.check_output(transcript.outputs(), &shape)
                    .map_err(|e| Failure::Device(format!("it gave an answer that is none: {e}")))?;
            }
            let internal = |e| Failure::Internal(anyhow::Error::new(e).context("the job's transcript"));
            let root = transcript.root().map_err(internal)?;
            let encoded = transcript.encode().map_err(internal)?;
            Ok((root, encoded, transcript))
        });
        match root {
            Ok((root, encoded, transcript)) => {
                self.faults.remove(&done.job_id);
                tracing::info!(
                    job = %done.job_id,
                    outputs = transcript.outputs().len(),
                    seconds = done.took.as_secs_f32(),
                    %root,
                    "computed"
                );
                self.monitor.computed(
                    done.job_id,
                    job.input_ids.len(),
                    transcript.outputs().len(),
                    done.took,
                );
                let answer = Answer {
                    output_ids: transcript.outputs().to_vec(),
                    trace_root: root.into(),
                    transcript: encoded.into(),
                };
                self.journal.update(&done.job_id, |e| e.answer = Some(answer))
            }
            // A device may recover: the chain's deadline decides how long it is worth trying.
            Err(Failure::Device(why) | Failure::Lost(why)) => {
                self.monitor.failed(done.job_id, &why);
                let times = self.faults.get(&done.job_id).map_or(0, |f| f.times) + 1;
                let pause = RETRY_AFTER
                    .saturating_mul(1 << (times - 1).min(10))
                    .min(RETRY_MAX);
                tracing::warn!(job = %done.job_id, times, "the device failed: {why}; again in {} s", pause.as_secs());
                let again_at = Instant::now() + pause;
                self.faults.insert(done.job_id, Fault { times, again_at, why });
                Ok(())
            }
            Err(failure) => {
                // Nothing that this neuron can answer: the draw will pass to another one.
                tracing::error!(job = %done.job_id, "cannot be computed: {failure}");
                self.close(done.job_id, failure.to_string())
            }
        }
    }
}

impl Neuron {
    /// A check on the processor found an answer wrong that was taken before. One that is not committed is forgotten and
    /// computed again, elsewhere. One that is committed is left: revealing it would be a lie that anyone can convict,
    /// and another answer does not open the commitment.
    fn take_back(&mut self, job_id: U256, job_hash: B256, why: &str) -> Result<(), Failure> {
        let entry = self.journal.get(&job_id);
        if entry.is_none_or(|e| e.job.hash() != job_hash || e.closed.is_some()) {
            return Ok(());
        }
        if self.is_committed(&job_id) {
            tracing::error!(job = %job_id, "{why}. Its commit has left: the answer is not revealed, part of the collateral is lost");
            // Not even a reorg may bring it back.
            self.journal.update(&job_id, |e| e.answer = None)?;
            return self.close(job_id, format!("left: {why}"));
        }
        tracing::warn!(job = %job_id, "not submitted; computed again: {why}");
        self.journal.update(&job_id, |e| e.answer = None)
    }
}

/// Done on SIGINT or SIGTERM; says which.
pub(crate) async fn signalled() -> bool {
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

/// A neuron from first to last, until `stop` is done; `ready` is told when jobs can be drawn. The seat that answers
/// disputes comes first and stays longest: where the neuron can take no jobs, for whatever reason, it goes on until
/// nothing that was claimed can be disputed any more, and only then the reason is given.
pub async fn work(
    data: &DataDir,
    hub: Hub,
    signer: PrivateKeySigner,
    settings: &Settings,
    ready: oneshot::Sender<()>,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    work_at(
        data,
        hub,
        signer,
        settings,
        None,
        &Monitor::default(),
        ready,
        stop,
    )
    .await
}

/// The same with prices that change while it runs, reported to a monitor.
pub async fn work_at(
    data: &DataDir,
    hub: Hub,
    signer: PrivateKeySigner,
    settings: &Settings,
    prices: Option<Now<Ask>>,
    monitor: &Monitor,
    ready: oneshot::Sender<()>,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    tokio::pin!(stop);
    // A second neuron on this journal ends here, before it spends anything.
    let post = Post::take(data, hub.clone(), signer.clone())?;
    let shelf = Arc::new(Shelf::new(data.clone(), settings.device));
    let guard = Guard::start(hub.clone(), post.sender(), shelf);
    let mined: Result<(), Failure> = async {
        let mut neuron = tokio::select! {
            neuron = post.prepare(settings) => neuron?,
            () = &mut stop => return Err(Failure::Interrupted),
        };
        let _prices = prices.map(|prices| reprice::follow(&neuron, prices));
        neuron.monitor = monitor.clone();
        // Nobody need wait for it.
        let _ = ready.send(());
        neuron.run(&mut stop).await
    }
    .await;
    match mined {
        Err(failure) if !matches!(failure, Failure::Interrupted) => {
            tracing::error!("no more jobs: {failure}");
            tracing::info!("what was claimed before is defended until it cannot be disputed any more");
            // The place went with the neuron; where another process has it now, that one answers.
            let Ok(_place) = Post::take(data, hub, signer) else {
                return Err(failure);
            };
            tokio::select! {
                () = &mut stop => {}
                () = guard.until_over() => {}
            }
            Err(failure)
        }
        ended => ended,
    }
}

/// Runs the command; the layers of `now` change while it runs.
pub async fn run(
    data: &DataDir,
    layers: &Layers,
    args: &RunArgs,
    mut now: Now<Layers>,
) -> Result<(), Failure> {
    let serve = layers.serve(&args.serve);
    let mut settings = Settings {
        models: serve.models,
        ask: layers.ask(&args.ask),
        stake: serve.stake,
        keep_offers: serve.keep_offers,
        batch_wait: serve.batch_wait,
        device: layers.mining_device(&args.device),
        devices: Devices::new(layers.gpus(&args.device)),
        finish: FINISH,
    };
    if args.dry_run {
        return dry::run(data, layers, args, &settings).await;
    }
    let hub = Hub::connect(&layers.chain(&args.chain)).await?;
    let key = layers.key(&args.key, &args.chain, false);
    let signer = if args.devnet {
        let ready =
            onboard::prepare(data, &hub, layers.devnet_for(&args.chain), &key, settings.stake).await?;
        settings.stake = Some(ready.stake);
        ready.signer
    } else {
        wallet::open_on(data, &key, hub.node().chain_id())?
    };
    let (tell, prices) = tokio::sync::watch::channel(settings.ask);
    let asked = args.ask.clone();
    tokio::spawn(async move {
        while now.changed().await.is_ok() {
            let ask = now.borrow_and_update().ask(&asked);
            // A price that the command line or the environment gives stays: then nothing has changed.
            tell.send_if_modified(|old| std::mem::replace(old, ask) != ask);
        }
    });
    let interrupted = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    let stop = async move {
        let ctrl_c = signalled().await;
        flag.store(ctrl_c, std::sync::atomic::Ordering::Relaxed);
    };
    let who = signer.address();
    let (ready, _) = oneshot::channel();
    let monitor = Monitor::of(settings.devices.clone());
    let _shown = monitor::serve(&layers.monitor().listen, &monitor).await;
    let ended = work_at(
        data,
        hub.clone(),
        signer,
        &settings,
        Some(prices),
        &monitor,
        ready,
        stop,
    )
    .await;
    // However it ended: what is offered goes on being drawn.
    offers::remind(&hub, who).await;
    ended?;
    tracing::info!("stopped; what is under way is in the journal");
    if interrupted.load(std::sync::atomic::Ordering::Relaxed) {
        Err(Failure::Interrupted)
    } else {
        Ok(())
    }
}
