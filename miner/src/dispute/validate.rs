//! `validate`: doubts others. What is revealed is computed again as one prefill; where the root differs a game is
//! opened and played to its end. Which games there are says the chain, so a restart goes on where it stopped.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    time::Duration,
};

use alloy::signers::local::PrivateKeySigner;
use alloy_primitives::{Address, B256, U256};
use bitai_contracts::{JobStatus, SlotState};
use bitai_kernels::Device;
use bitai_model::pack::Pack;
use bitai_poc::dispute::Claim;

use super::{
    challenge::{Challenge, Mover, Outcome},
    outbox::Outbox,
    player::{doubter, opened},
};
use crate::{
    chain::{
        Hub, Refusal, Sender, Verifier,
        hub::{Revealed, state_of, status_of},
        verifier::GAME_PLAYING,
    },
    cli::{Heights, ValidateArgs},
    config::Layers,
    datadir::DataDir,
    engine,
    exit::Failure,
    models, wallet, worker,
};

/// How often the chain is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest pause between looks while no node answers.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Heights that are read again at every look.
const REORG_DEPTH: u64 = 100;

/// What a re-check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Computed as claimed.
    Right,
    /// Not computed as claimed.
    Wrong,
    /// Cannot be checked or disputed here, and why.
    Unable(String),
}

/// A re-checked answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The job.
    pub job_id: U256,
    /// Who answered.
    pub neuron: Address,
    /// What was found.
    pub finding: Finding,
}

/// How an own game ended.
pub type Ended = (B256, Outcome);

/// One answer: job, neuron, root.
type Answer = (U256, Address, B256);

/// A validator at work.
pub struct Validator {
    data: DataDir,
    verifier: Verifier,
    outbox: Outbox,
    device: Arc<dyn Device>,
    heights: Option<Heights>,
    /// Heights that a game can be old and still go on.
    look_back: u64,
    read_to: Option<u64>,
    /// Answers that were looked at, and those that wait for their job to be disputable.
    seen: BTreeSet<Answer>,
    waiting: BTreeMap<Answer, Revealed>,
    seats: BTreeMap<B256, Challenge>,
    /// Claims whose game is over.
    over: BTreeSet<B256>,
}

/// Whether a job's answers can be disputed.
enum Disputable {
    Now,
    Later,
    Never,
}

impl Validator {
    /// A validator on a hub whose key is `signer`.
    pub async fn new(
        data: &DataDir,
        hub: &Hub,
        signer: PrivateKeySigner,
        device: Arc<dyn Device>,
        heights: Option<Heights>,
    ) -> Result<Self, Failure> {
        let fail = |e: Refusal| e.into_failure("reading the verifier");
        let verifier = Verifier::of(hub).await.map_err(fail)?.ok_or(Failure::Usage(
            "this hub names no verifier: nothing can be disputed on it".into(),
        ))?;
        Ok(Self {
            look_back: verifier.longest().await.map_err(fail)? + REORG_DEPTH,
            outbox: Outbox::new(Sender::new(Arc::clone(hub.node()), signer)),
            data: data.clone(),
            verifier,
            device,
            heights,
            read_to: None,
            seen: BTreeSet::new(),
            waiting: BTreeMap::new(),
            seats: BTreeMap::new(),
            over: BTreeSet::new(),
        })
    }

    /// Whether nothing is left to do now.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.seats.is_empty()
    }

    /// One turn over everything; `hear` is told each check, gives the games that ended.
    pub async fn look(&mut self, hear: &mut (dyn FnMut(&Line) + Send)) -> Result<Vec<Ended>, Failure> {
        let fail = |e: Refusal| e.into_failure("reading answers");
        let hub = self.verifier.hub().clone();
        let height = hub.node().height().await.map_err(fail)?;
        if self.read_to != Some(height) {
            self.find(&hub, height).await?;
            self.read_to = Some(height);
        }
        let answers: Vec<Answer> = self.waiting.keys().copied().collect();
        for answer in answers {
            self.check(&hub, answer, height, hear).await?;
        }
        let mut ended = Vec::new();
        let ids: Vec<B256> = self.seats.keys().copied().collect();
        for id in ids {
            let Some(seat) = self.seats.get_mut(&id) else {
                continue;
            };
            // A check or another game may have taken a while.
            let height = hub.node().height().await.map_err(fail)?;
            let outcome = seat.step(&mut self.outbox, height).await?;
            if outcome != Outcome::Playing {
                self.seats.remove(&id);
                self.outbox.forget(&format!("{id} "));
                self.over.insert(id);
                ended.push((id, outcome));
            }
        }
        let me = self.outbox.sender().address();
        if self.verifier.owed(me).await.map_err(fail)?.is_zero() {
            self.outbox.forget("withdraw");
        } else {
            let call = self.verifier.withdraw();
            self.outbox.push("withdraw", &call).await?;
        }
        Ok(ended)
    }

    /// Whether coins are on their way to this validator.
    pub async fn is_owed(&self) -> Result<bool, Failure> {
        let owed = self.verifier.owed(self.outbox.sender().address()).await;
        Ok(!owed
            .map_err(|e| e.into_failure("reading what is owed"))?
            .is_zero())
    }

    /// Reads new answers, and the own games that go on.
    async fn find(&mut self, hub: &Hub, height: u64) -> Result<(), Failure> {
        let fail = |e: Refusal| e.into_failure("reading answers");
        let me = self.outbox.sender().address();
        let back = match self.read_to {
            Some(read) => read.min(height).saturating_sub(REORG_DEPTH),
            None => height.saturating_sub(self.look_back),
        };
        let wanted = self.heights.unwrap_or(Heights { from: 0, to: None });
        let from = back.max(wanted.from);
        let to = wanted.to.map_or(height, |to| to.min(height));
        for (job_id, revealed, _) in hub.reveals(from, to).await.map_err(fail)? {
            let answer = (job_id, revealed.neuron, revealed.trace_root);
            if revealed.neuron != me && !self.seen.contains(&answer) {
                self.waiting.insert(answer, revealed);
            }
        }
        for (id, _) in self.verifier.games_of(me, back, height).await.map_err(fail)? {
            if self.seats.contains_key(&id) || self.over.contains(&id) {
                continue;
            }
            let game = self.verifier.standing(id, me, height).await.map_err(fail)?.game;
            if game.state != GAME_PLAYING {
                continue;
            }
            let claim = self.verifier.public(id).await?;
            self.seen.insert((claim.job_id, claim.neuron, claim.root.0));
            self.waiting.remove(&(claim.job_id, claim.neuron, claim.root.0));
            tracing::info!(claim = %id, job = %claim.job_id, "an own game goes on");
            match models::open_root(&self.data, &claim.job.model_root) {
                Ok((_, pack)) => {
                    let posted = hub.find(claim.job_id).await?.height;
                    let (_, mover) = self.compute(&pack, &claim).await?;
                    self.sit(claim, &pack, posted, mover)?;
                }
                Err(failure) => {
                    tracing::error!(claim = %id, "the own game cannot be played: {failure}");
                    self.over.insert(id);
                }
            }
        }
        Ok(())
    }

    /// Re-checks an answer as soon as it can be disputed, and sits down where it is wrong.
    async fn check(
        &mut self,
        hub: &Hub,
        answer: Answer,
        height: u64,
        hear: &mut (dyn FnMut(&Line) + Send),
    ) -> Result<(), Failure> {
        let (job_id, neuron, _) = answer;
        match disputable(hub, answer, height).await? {
            Disputable::Later => return Ok(()),
            Disputable::Never => {
                self.seen.insert(answer);
                self.waiting.remove(&answer);
                return Ok(());
            }
            Disputable::Now => {}
        }
        let Some(revealed) = self.waiting.remove(&answer) else {
            return Ok(());
        };
        self.seen.insert(answer);
        let posted = hub.find(job_id).await?;
        let claim = Claim {
            chain_id: hub.node().chain_id(),
            hub: hub.address(),
            job_id,
            neuron,
            job: posted.job,
            outputs: revealed.output_ids,
            root: revealed.trace_root.into(),
        };
        let finding = self.recheck(claim, posted.height).await?;
        hear(&Line {
            job_id,
            neuron,
            finding,
        });
        Ok(())
    }

    async fn recheck(&mut self, claim: Claim, posted: u64) -> Result<Finding, Failure> {
        let root = claim.job.model_root;
        let pack = match models::open_root(&self.data, &root) {
            Ok((model, _)) if model.shape.embeds() => {
                return Ok(Finding::Unable("embeddings have no disputes yet".into()));
            }
            Ok((_, pack)) => pack,
            Err(failure) => return Ok(Finding::Unable(failure.to_string())),
        };
        let fail = |e: Refusal| e.into_failure("reading the book of programs");
        if !self.verifier.knows(root).await.map_err(fail)? {
            return Ok(Finding::Unable(
                "its program is not in the book of programs".into(),
            ));
        }
        let (right, mover) = match self.compute(&pack, &claim).await {
            Ok(computed) => computed,
            // An answer that no honest run can end with: the hub took it, so it is malformed only for this pack.
            Err(Failure::Job(e)) => return Ok(Finding::Unable(format!("no job for this pack: {e}"))),
            Err(failure) => return Err(failure),
        };
        if right {
            return Ok(Finding::Right);
        }
        self.sit(claim, &pack, posted, mover)?;
        Ok(Finding::Wrong)
    }

    fn sit(&mut self, claim: Claim, pack: &Pack, posted: u64, mover: Mover) -> Result<(), Failure> {
        let model = (pack.program(), opened(pack)?.branches());
        let from = posted.saturating_sub(REORG_DEPTH);
        let seat = Challenge::new(self.verifier.clone(), claim, model, from, mover);
        self.seats.insert(seat.id(), seat);
        Ok(())
    }

    /// Runs a claim again, off the threads that talk to the chain: whether it is right, and who can explain the run.
    async fn compute(&self, pack: &Pack, claim: &Claim) -> Result<(bool, Mover), Failure> {
        let (device, claim) = (Arc::clone(&self.device), claim.clone());
        let data = self.data.clone();
        let root = pack.root();
        let worked = tokio::task::spawn_blocking(move || {
            let (_, pack) = models::open_root(&data, &root.into())?;
            doubter(&pack, device.as_ref(), &claim)
        });
        worked
            .await
            .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("computing an answer again")))?
    }
}

/// Whether an answer can be disputed in the block above `height`.
async fn disputable(hub: &Hub, (job_id, neuron, root): Answer, height: u64) -> Result<Disputable, Failure> {
    let fail = |e: Refusal| e.into_failure("reading a job");
    let Some(job) = hub.job(job_id).await.map_err(fail)? else {
        return Ok(Disputable::Never);
    };
    let slot = hub.slot(job_id, neuron).await.map_err(fail)?;
    let stands = state_of(&slot) == SlotState::Revealed && slot.traceRoot == root;
    Ok(match status_of(&job) {
        JobStatus::Challenge | JobStatus::Quarrel if stands && height < job.deadline => Disputable::Now,
        JobStatus::Revealing if stands => Disputable::Later,
        _ => Disputable::Never,
    })
}

/// Runs a validator until `stop` is done, or with `once` until nothing is left to do. `hear` is told each check.
pub async fn validate(
    mut validator: Validator,
    once: bool,
    stop: impl Future<Output = ()>,
    hear: &mut (dyn FnMut(&Line) + Send),
) -> Result<Vec<Ended>, Failure> {
    tokio::pin!(stop);
    let mut pause = LOOK_EVERY;
    let mut ended = Vec::new();
    loop {
        match validator.look(hear).await {
            Ok(over) => {
                pause = LOOK_EVERY;
                ended.extend(over);
                if once && validator.is_idle() && !validator.is_owed().await? {
                    return Ok(ended);
                }
            }
            Err(failure @ (Failure::Unreachable { .. } | Failure::Transaction { .. })) => {
                tracing::warn!("{failure}");
                pause = (pause * 2).min(PAUSE_MAX);
            }
            Err(failure) if once => return Err(failure),
            Err(failure) => {
                tracing::error!("{failure}");
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
        tokio::select! {
            () = &mut stop => return Ok(ended),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Runs the command. Ends with code 14 where a wrong answer was found and could not be convicted.
pub async fn run(data: &DataDir, layers: &Layers, args: &ValidateArgs) -> Result<(), Failure> {
    let hub = Hub::connect(&layers.chain(&args.chain)).await?;
    let signer = wallet::open(data, &layers.key(&args.key, &args.chain, true))?;
    let device = Arc::from(engine::device(layers.device(&args.device))?);
    let validator = Validator::new(data, &hub, signer, device, args.jobs).await?;
    let stop = async {
        worker::signalled().await;
    };
    let mut wrong = BTreeSet::new();
    let mut count = 0u64;
    let hear = &mut |line: &Line| {
        count += 1;
        let Line {
            job_id,
            neuron,
            finding,
        } = line;
        match finding {
            Finding::Right => println!("job {job_id} neuron {neuron} OK"),
            Finding::Wrong => {
                wrong.insert(*job_id);
                println!("job {job_id} neuron {neuron} MISMATCH: disputing");
            }
            Finding::Unable(why) => println!("job {job_id} neuron {neuron} UNCHECKED: {why}"),
        }
    };
    let ended = validate(validator, args.once, stop, hear).await?;
    for (claim, outcome) in &ended {
        println!("claim {claim} {outcome:?}");
    }
    if count == 0 && args.once {
        println!("nothing is revealed that can be disputed now");
    }
    let lost = ended.iter().filter(|(_, o)| *o != Outcome::Won).count();
    if lost != 0 {
        let jobs: Vec<String> = wrong.iter().map(U256::to_string).collect();
        return Err(Failure::TraceRoot(format!(
            "{lost} games did not convict; wrong answers: job {}",
            jobs.join(", ")
        )));
    }
    Ok(())
}
