//! One dispute from the job to the verdict: the liar on one side, the product's seat on the other.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_primitives::{Address, B256, U256};
use bitai_contracts::JobStatus;
use bitai_kernels::Device;
use bitai_miner::{
    Failure, ask,
    chain::{Hub, Sender, Verifier, hub::status_of},
    cli::Heights,
    config,
    dispute::{
        Challenge, Mover, Outbox, Outcome, Shelf, opened,
        report::{Report, report},
        validate::{Validator, validate},
    },
    engine, models, stake,
};
use bitai_poc::dispute::{Challenger, Claim};
use bitai_types::Job;

use super::{Kind, Liar, Lie, lie};
use crate::{Devnet, accounts::Account};

/// Longest that a dispute may take.
const PATIENCE: Duration = Duration::from_secs(900);
/// How often the chain is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A dispute that was played.
#[derive(Debug, Clone)]
pub struct Played {
    /// The lie.
    pub kind: Kind,
    /// The job.
    pub job_id: U256,
    /// The claim.
    pub claim: B256,
    /// Its moves and what they took.
    pub report: Report,
    /// The neuron.
    pub neuron: Address,
    /// Stake that it lost, in wei.
    pub slashed: U256,
    /// Bond of a game, in wei.
    pub bond: U256,
    /// Wall time from the reveal to the verdict.
    pub took: Duration,
}

impl Played {
    /// Whether the side lost that lied, and nobody else.
    pub fn is_as_expected(&self) -> bool {
        if self.kind.is_neurons() {
            self.report.convicted.is_some() && self.report.lost.is_empty() && !self.slashed.is_zero()
        } else {
            self.report.convicted.is_none() && !self.report.lost.is_empty() && self.slashed.is_zero()
        }
    }
}

fn sender(hub: &Hub, name: &'static str) -> Sender {
    Sender::new(Arc::clone(hub.node()), Account::named(name).signer)
}

/// Makes the lie on a thread of its own.
async fn made(devnet: &Devnet, device: &Arc<dyn Device>, job: &Job, kind: Kind) -> Result<Lie, Failure> {
    let (data, device, job) = (devnet.data.clone(), Arc::clone(device), job.clone());
    let worked = tokio::task::spawn_blocking(move || {
        let (_, pack) = models::open_root(&data, &job.model_root)?;
        lie(&pack, device.as_ref(), &job, kind)
    });
    worked
        .await
        .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("making a lie")))?
}

/// Posts a job on a served model and plays it to the verdict. Where the challenger lies the devnet's own neuron has to
/// be at work; where the neuron does it must not be.
pub async fn play(devnet: &Devnet, device: config::Device, job: &Job, kind: Kind) -> Result<Played, Failure> {
    let hub = &devnet.hub;
    let fail = |e: bitai_miner::chain::Refusal| e.into_failure("reading the chain");
    let verifier = Verifier::of(hub)
        .await
        .map_err(fail)?
        .ok_or_else(|| Failure::Usage("this hub names no verifier".into()))?;
    let model = devnet.model_that(false)?;
    let device: Arc<dyn Device> = Arc::from(engine::device(device)?);
    let neuron = Account::named("neuron").address();
    let liar = if kind.is_neurons() {
        Some(Liar::new(hub, sender(hub, "neuron"), model).await?)
    } else {
        None
    };
    let staked = stake::staked(hub, neuron).await?;
    let client = sender(hub, "client");
    let fee = ask::fee(hub, &model.key(), job, 1).await?;
    let (job_id, _) = ask::post(hub, &client, &model.key(), job, 1, fee).await?;
    let posted = hub.find(job_id).await?.height;
    let lie = made(devnet, &device, job, kind).await?;
    if let Some(liar) = &liar {
        liar.claim(job_id, job, &lie).await?;
    }
    let claim = claimed(devnet, job_id, job).await?;
    let id = B256::from(claim.id());
    let started = Instant::now();
    let verdict = async {
        match kind {
            Kind::FalseDispute => doubt(devnet, &verifier, &claim, posted, lie).await,
            Kind::Late => {
                let liar = liar.as_ref().ok_or_else(nobody)?;
                tokio::select! {
                    failure = liar.answer_late(verifier.clone(), id, lie.player) => Err(failure),
                    judged = convict(devnet, &device, posted, &["alice"]) => judged,
                }
            }
            _ => {
                let liar = liar.as_ref().ok_or_else(nobody)?;
                let names: &[&'static str] = if kind == Kind::Two {
                    &["alice", "bob"]
                } else {
                    &["alice"]
                };
                tokio::select! {
                    failure = liar.answer(verifier.clone(), lie) => Err(failure),
                    judged = convict(devnet, &device, posted, names) => judged,
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, verdict)
        .await
        .map_err(|_| Failure::Unanswered {
            job: job_id,
            why: format!("no verdict within {} s", PATIENCE.as_secs()),
        })??;
    let took = started.elapsed();
    Ok(Played {
        kind,
        job_id,
        claim: id,
        report: report(&verifier, id, posted).await?,
        neuron,
        slashed: staked.saturating_sub(stake::staked(hub, neuron).await?),
        bond: verifier.bond(job.model_root).await.map_err(fail)?,
        took,
    })
}

fn nobody() -> Failure {
    Failure::Usage("this lie is a neuron's".into())
}

/// What was revealed, once it can be disputed.
async fn claimed(devnet: &Devnet, job_id: U256, job: &Job) -> Result<Claim, Failure> {
    let hub = &devnet.hub;
    let fail = |e: bitai_miner::chain::Refusal| e.into_failure("waiting for the reveal");
    let end = Instant::now() + PATIENCE;
    loop {
        let status = hub.job(job_id).await.map_err(fail)?.map(|j| status_of(&j));
        if status == Some(JobStatus::Challenge)
            && let Some(first) = hub.revealed(job_id).await.map_err(fail)?.into_iter().next()
        {
            return Ok(Claim {
                chain_id: hub.node().chain_id(),
                hub: hub.address(),
                job_id,
                neuron: first.neuron,
                job: job.clone(),
                outputs: first.output_ids,
                root: first.trace_root.into(),
            });
        }
        if Instant::now() > end {
            return Err(Failure::Unanswered {
                job: job_id,
                why: "nobody revealed".into(),
            });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Validators with these accounts, until each has nothing left to do.
async fn convict(
    devnet: &Devnet,
    device: &Arc<dyn Device>,
    posted: u64,
    names: &[&'static str],
) -> Result<(), Failure> {
    let one = |name: &'static str| async move {
        let heights = Heights {
            from: posted,
            to: None,
        };
        let signer = Account::named(name).signer;
        let shelf = Arc::new(Shelf::on(devnet.data.clone(), Arc::clone(device), 1));
        let validator = Validator::new(&devnet.hub, signer, shelf, Some(heights)).await?;
        validate(validator, true, std::future::pending(), &mut |_| ()).await
    };
    let all = names.iter().map(|name| one(name));
    futures_all(all).await.map(|_| ())
}

/// Runs all to the end; the first failure.
async fn futures_all<T>(
    all: impl Iterator<Item = impl Future<Output = Result<T, Failure>>>,
) -> Result<Vec<T>, Failure> {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(move |cx| {
        let mut failed = None;
        all.retain_mut(|one| match one.as_mut().poll(cx) {
            std::task::Poll::Pending => true,
            std::task::Poll::Ready(Ok(value)) => {
                done.push(value);
                false
            }
            std::task::Poll::Ready(Err(failure)) => {
                failed = Some(failure);
                false
            }
        });
        match failed {
            Some(failure) => std::task::Poll::Ready(Err(failure)),
            None if all.is_empty() => std::task::Poll::Ready(Ok(std::mem::take(&mut done))),
            None => std::task::Poll::Pending,
        }
    })
    .await
}

/// A challenger whose own run is wrong doubts a right claim, and accuses whatever it sees.
async fn doubt(
    devnet: &Devnet,
    verifier: &Verifier,
    claim: &Claim,
    posted: u64,
    lie: Lie,
) -> Result<(), Failure> {
    let (_, pack) = models::open_root(&devnet.data, &claim.job.model_root)?;
    let model = (pack.program(), opened(&pack)?.branches());
    let mover = Some(Box::new(Challenger::new(lie.player)) as Mover);
    let mut seat = Challenge::new(verifier.clone(), claim.clone(), model, posted, mover).reckless();
    let mut outbox = Outbox::new(sender(&devnet.hub, "bob"));
    loop {
        let height = devnet.hub.node().height().await;
        let height = height.map_err(|e| e.into_failure("eth_blockNumber"))?;
        match seat.step(&mut outbox, height).await? {
            Outcome::Playing => tokio::time::sleep(LOOK_EVERY).await,
            Outcome::Won | Outcome::Lost | Outcome::TooLate => return Ok(()),
        }
    }
}
