//! `validate`: doubts others. What is revealed is computed again as one prefill; where the root differs a game is
//! opened and played to its end. Which games there are says the chain, so a restart goes on where it stopped.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use alloy::signers::local::PrivateKeySigner;
use alloy_primitives::{Address, B256, U256};
use bitai_model::pack::Pack;
use bitai_poc::dispute::Claim;

use super::{
    challenge::{Challenge, Doubter, Mover, Outcome},
    checks::{Answer, Checks},
    outbox::Outbox,
    player::{doubter, lend, opened},
    shelf::{Lent, Shelf},
};
use crate::{
    attest::Attests,
    chain::{Attestations, Hub, Refusal, Sender, Verifier, verifier::GAME_PLAYING},
    cli::{Heights, ValidateArgs},
    config::Layers,
    datadir::DataDir,
    exit::Failure,
    wallet, worker,
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

/// A validator at work.
pub struct Validator {
    verifier: Verifier,
    outbox: Outbox,
    shelf: Arc<Shelf>,
    doubter: Doubter,
    heights: Option<Heights>,
    /// Heights that a game can be old and still go on.
    look_back: u64,
    read_to: Option<u64>,
    checks: Checks,
    seats: BTreeMap<B256, Challenge>,
    /// The last failure of a game: said once.
    said: BTreeMap<B256, String>,
}

/// Hands on what concerns everything: that no node answers. Everything else concerns one claim only.
fn alone<T>(done: Result<T, Failure>) -> Result<Result<T, String>, Failure> {
    match done {
        Err(failure @ Failure::Unreachable { .. }) => Err(failure),
        done => Ok(done.map_err(|failure| failure.to_string())),
    }
}

/// Runs claims again. Where a whole model is loaded for that, the last one is kept: the next claim is likely to be about
/// the same.
fn keeping(shelf: Arc<Shelf>) -> Doubter {
    let last: Mutex<Option<Lent>> = Mutex::new(None);
    Arc::new(move |claim| {
        // The device may have no room for two.
        let mut kept = last.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take_if(|lent| claim.job.model_root != lent.pack().root());
        let made = doubter(&shelf, claim);
        *kept = match &made {
            Ok(_) if !shelf.in_layers(claim.job.model_root) => lend(&shelf, claim).ok(),
            _ => None,
        };
        made
    })
}

impl Validator {
    /// A validator on a hub whose key is `signer`.
    pub async fn new(
        hub: &Hub,
        signer: PrivateKeySigner,
        shelf: Arc<Shelf>,
        heights: Option<Heights>,
    ) -> Result<Self, Failure> {
        Self::by(hub, Sender::new(Arc::clone(hub.node()), signer), shelf, heights).await
    }

    /// A validator that sends by `sender`, of which others may hold clones.
    pub async fn by(
        hub: &Hub,
        sender: Sender,
        shelf: Arc<Shelf>,
        heights: Option<Heights>,
    ) -> Result<Self, Failure> {
        let fail = |e: Refusal| e.into_failure("reading the verifier");
        let verifier = Verifier::of(hub).await.map_err(fail)?.ok_or(Failure::Usage(
            "this hub names no verifier: nothing can be disputed on it".into(),
        ))?;
        let doubter = keeping(Arc::clone(&shelf));
        Ok(Self {
            look_back: verifier.longest().await.map_err(fail)? + REORG_DEPTH,
            outbox: Outbox::kept(sender, shelf.data(), ("validate", verifier.address())),
            checks: Checks::new(verifier.clone(), Arc::clone(&shelf), Arc::clone(&doubter)),
            verifier,
            shelf,
            doubter,
            heights,
            read_to: None,
            seats: BTreeMap::new(),
            said: BTreeMap::new(),
        })
    }

    /// Whether nothing is left to do now.
    pub fn is_idle(&self) -> bool {
        self.checks.is_idle() && self.seats.is_empty()
    }

    /// One turn over everything; `hear` is told each check, gives the games that ended. Never waits for a computation,
    /// and what goes wrong with one claim stops no other.
    pub async fn look(&mut self, hear: &mut (dyn FnMut(&Line) + Send)) -> Result<Vec<Ended>, Failure> {
        let fail = |e: Refusal| e.into_failure("reading answers");
        let hub = self.verifier.hub().clone();
        let height = hub.node().height().await.map_err(fail)?;
        if self.read_to != Some(height) {
            self.find(&hub, height).await?;
            self.read_to = Some(height);
        }
        // Games first: their clocks run.
        let ended = self.play(height).await?;
        if let Some(checked) = self.checks.look(height).await? {
            if let Some((claim, pack, posted, mover)) = checked.wrong {
                self.sit(claim, &pack, posted, Some(mover))?;
            }
            hear(&checked.line);
        }
        let me = self.outbox.sender().address();
        if self.verifier.owed(me).await.map_err(fail)?.is_zero() {
            self.outbox.forget("withdraw");
        } else {
            let call = self.verifier.withdraw();
            self.outbox.push(height, "withdraw", &call).await?;
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

    /// Does what is due in every game.
    async fn play(&mut self, height: u64) -> Result<Vec<Ended>, Failure> {
        let mut ended = Vec::new();
        let ids: Vec<B256> = self.seats.keys().copied().collect();
        for id in ids {
            let Some(seat) = self.seats.get_mut(&id) else {
                continue;
            };
            match alone(seat.step(&mut self.outbox, height).await)? {
                Ok(Outcome::Playing) => {
                    self.said.remove(&id);
                }
                Ok(outcome) => {
                    self.seats.remove(&id);
                    self.outbox.forget(&format!("{id} "));
                    ended.push((id, outcome));
                }
                Err(words) => self.say(id, words),
            }
        }
        Ok(ended)
    }

    fn say(&mut self, claim: B256, words: String) {
        if self.said.get(&claim) != Some(&words) {
            tracing::error!(%claim, "the own game: {words}");
            self.said.insert(claim, words);
        }
    }

    /// Reads new answers, and the own games that go on: whatever was over before may go on again after a reorg.
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
        for (job_id, revealed, at) in hub.reveals(from, to).await.map_err(fail)? {
            if revealed.neuron != me {
                self.checks.put(job_id, revealed, at);
            }
        }
        self.checks.forget_below(back.saturating_sub(self.look_back));
        let games = self.verifier.games_of(me, back, height).await.map_err(fail)?;
        self.said
            .retain(|id, _| self.seats.contains_key(id) || games.iter().any(|(game, _)| game == id));
        for (id, at) in games {
            if self.seats.contains_key(&id) {
                continue;
            }
            let game = self.verifier.standing(id, me, height).await.map_err(fail)?.game;
            if game.state == GAME_PLAYING
                && let Err(words) = alone(self.resume(hub, id, at).await)?
            {
                self.say(id, format!("cannot be played: {words}"));
            }
        }
        Ok(())
    }

    /// Sits down at an own game that goes on; the claim is run again when a move is due.
    async fn resume(&mut self, hub: &Hub, id: B256, at: u64) -> Result<(), Failure> {
        let claim = self.verifier.public(id).await?;
        let posted = hub.find(claim.job_id).await?.height;
        let (shelf, root) = (Arc::clone(&self.shelf), claim.job.model_root);
        let pack = tokio::task::spawn_blocking(move || shelf.pack(root)).await;
        let pack = pack.map_err(|e| Failure::Internal(anyhow::Error::new(e).context("opening a pack")))??;
        let answer: Answer = (claim.job_id, claim.neuron, claim.root.0);
        tracing::info!(claim = %id, job = %claim.job_id, "an own game goes on");
        self.sit(claim, &pack, posted, None)?;
        self.checks.done(answer, at);
        Ok(())
    }

    fn sit(&mut self, claim: Claim, pack: &Pack, posted: u64, mover: Option<Mover>) -> Result<(), Failure> {
        let model = (pack.program(), opened(pack)?.branches());
        let from = posted.saturating_sub(REORG_DEPTH);
        let seat = Challenge::new(self.verifier.clone(), claim, model, from, mover)
            .remade_by(Arc::clone(&self.doubter));
        self.seats.insert(seat.id(), seat);
        Ok(())
    }
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
    let signer = wallet::open_on(
        data,
        &layers.key(&args.key, &args.chain, true),
        hub.node().chain_id(),
    )?;
    let shelf = Arc::new(Shelf::new(data.clone(), layers.device(&args.device)));
    // One key, two roles: their transactions take turns.
    let sender = Sender::new(Arc::clone(hub.node()), signer);
    let _attests = match Attestations::of(&hub)
        .await
        .map_err(|e| e.into_failure("reading attestations"))?
    {
        Some(at) if !args.once => Some(Attests::start(at, &sender, &shelf)),
        _ => None,
    };
    let validator = Validator::by(&hub, sender, shelf, args.jobs).await?;
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
