//! The challenger's seat about one claim: opens or joins, asks, reads, accuses, and takes its bond back. Every step
//! follows from what stands on the chain.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_primitives::{Address, B256};
use bitai_kernels::Program;
use bitai_poc::{
    Branches,
    dispute::{Accusation, Ask, Challenge as Plays, Claim, Judge, Move, Verdict},
};

use tokio::task::JoinHandle;

use super::{
    outbox::Outbox,
    view::{View, view},
};
use crate::{
    chain::{
        Refusal, Verifier,
        send::Call,
        verifier::{
            BY_CONTRADICTION, BY_SILENCE, CLAIM_CONVICTED, CLAIM_NONE, Event, GAME_LOST, GAME_NONE,
            GAME_PLAYING, Logged, Turn,
        },
    },
    exit::Failure,
};

/// Who decides the moves.
pub type Mover = Box<dyn Plays + Send>;
/// Runs a claim again: whether it is right, and who decides the moves about it. Called on a thread of its own.
pub type Doubter = Arc<dyn Fn(&Claim) -> Result<(bool, Mover), Failure> + Send + Sync>;

/// Pause before the next try after the own engine failed.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Where a challenger stands with a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The game goes on, or a move is on its way.
    Playing,
    /// The claim is convicted, and nothing of this challenger lies in a game any more.
    Won,
    /// This challenger's game is lost.
    Lost,
    /// No game could be opened: the window is over.
    TooLate,
}

/// A challenger's seat.
pub struct Challenge {
    verifier: Verifier,
    claim: Claim,
    id: B256,
    program: Arc<Program>,
    branches: Branches,
    /// Height below which nothing happened to the claim.
    from: u64,
    mover: Option<Mover>,
    /// Makes a mover where there is none: after a restart, or after the device failed under the last one.
    doubter: Option<Doubter>,
    /// Sends accusations that the own judge would clear: for tests of what happens to those who do.
    reckless: bool,
    view: Option<View>,
    /// The move decided on what `view` shows: name, call, words.
    decided: Option<(String, Call, String)>,
    /// Whether `view` leaves nothing to say.
    silent: bool,
    /// A decision under way, and whether something was published since it began.
    work: Option<JoinHandle<Worked>>,
    is_stale: bool,
    again_at: Option<Instant>,
    /// The last failure of the own engine: said once.
    failed: Option<String>,
    told: usize,
}

/// The mover unless it failed, its move, what that was decided on.
struct Worked {
    mover: Option<Mover>,
    made: Result<Move, Failure>,
    judge: Judge,
}

impl Challenge {
    /// A seat about a claim on a model, with nothing asked yet; `from` is a height before the reveal.
    pub fn new(
        verifier: Verifier,
        claim: Claim,
        (program, branches): (Arc<Program>, Branches),
        from: u64,
        mover: Option<Mover>,
    ) -> Self {
        Self {
            id: B256::from(claim.id()),
            verifier,
            claim,
            program,
            branches,
            from,
            mover,
            doubter: None,
            reckless: false,
            view: None,
            decided: None,
            silent: false,
            work: None,
            is_stale: false,
            again_at: None,
            failed: None,
            told: 0,
        }
    }

    /// The same, sending accusations that lose as well.
    pub fn reckless(self) -> Self {
        Self {
            reckless: true,
            ..self
        }
    }

    /// The same with somebody who makes movers.
    pub fn remade_by(self, doubter: Doubter) -> Self {
        Self {
            doubter: Some(doubter),
            ..self
        }
    }

    /// The claim.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Its id.
    pub fn id(&self) -> B256 {
        self.id
    }

    /// Does what is due at `height`.
    pub async fn step(&mut self, outbox: &mut Outbox, height: u64) -> Result<Outcome, Failure> {
        let fail = |e: Refusal| e.into_failure("reading a dispute");
        let me = outbox.sender().address();
        let (id, job) = (self.id, self.claim.job_id);
        let state = self.verifier.claim(id).await.map_err(fail)?.state;
        let standing = self.verifier.standing(id, me, height).await.map_err(fail)?;
        match (state, standing.game.state) {
            (_, GAME_LOST) => {
                self.tell().await?;
                return Ok(Outcome::Lost);
            }
            (CLAIM_CONVICTED, GAME_PLAYING) => {
                self.tell().await?;
                let call = self.verifier.take_back(id);
                outbox.push(height, &format!("{id} take back"), &call).await?;
            }
            (CLAIM_CONVICTED, _) => {
                self.tell().await?;
                return Ok(Outcome::Won);
            }
            (_, GAME_NONE) => {
                let due = self.verifier.hub().job(job).await.map_err(fail)?;
                if due.is_none_or(|j| height >= j.deadline) {
                    return Ok(Outcome::TooLate);
                }
                let bond = self
                    .verifier
                    .bond(self.claim.job.model_root)
                    .await
                    .map_err(fail)?;
                let call = if state == CLAIM_NONE {
                    self.verifier.open(&self.claim, bond)
                } else {
                    self.verifier.join(id, bond)
                };
                if outbox.push(height, &format!("{id} open"), &call).await? {
                    tracing::info!(claim = %id, %job, bond_wei = %bond, "opening a game");
                }
            }
            _ => {
                self.look().await?;
                match standing.turn {
                    Turn::NeuronIsOut => {
                        let call = self.verifier.timeout(id, me);
                        if outbox.push(height, &format!("{id} timeout"), &call).await? {
                            tracing::info!(claim = %id, %job, "the neuron's clock ran out; ending the game");
                        }
                    }
                    Turn::Challenger(left) => self.play(outbox, height, left).await?,
                    Turn::Neuron(_) | Turn::ChallengerIsOut => {}
                }
            }
        }
        Ok(Outcome::Playing)
    }

    /// Reads what is published; a change throws the move away that was decided before it.
    async fn look(&mut self) -> Result<(), Failure> {
        let fail = |e: Refusal| e.into_failure("reading a dispute");
        let events = self.verifier.events(self.id, self.from).await.map_err(fail)?;
        if self.view.as_ref().is_some_and(|v| v.events == events) {
            return Ok(());
        }
        let model = (&*self.program, &self.branches);
        let view = view(&self.verifier, &self.claim, model, self.from).await?;
        self.say(&view.events);
        self.view = Some(view);
        self.decided = None;
        self.silent = false;
        self.is_stale = true;
        Ok(())
    }

    /// Says what happened since the last time, where nothing is played on it any more.
    async fn tell(&mut self) -> Result<(), Failure> {
        let events = self.verifier.events(self.id, self.from).await;
        self.say(&events.map_err(|e| e.into_failure("reading a dispute"))?);
        Ok(())
    }

    /// Logs what happened since the last time.
    fn say(&mut self, events: &[Logged]) {
        let asks = |until: usize| {
            let asked = |l: &&Logged| matches!(l.event, Event::Asked { .. });
            events.iter().take(until).filter(asked).count()
        };
        // A reorg may have taken some away.
        let told = self.told.min(events.len());
        for (i, logged) in events.iter().enumerate().skip(told) {
            let (round, height, job) = (asks(i + 1), logged.height, self.claim.job_id);
            let words = describe(&logged.event);
            tracing::info!(%job, round, height, "{words}");
        }
        self.told = events.len();
    }

    /// Decides the next move, once for what is published, and sends it. Never waits for a computation.
    async fn play(&mut self, outbox: &mut Outbox, height: u64, left: u64) -> Result<(), Failure> {
        if self.decided.is_none() && !self.silent {
            match self.work.take() {
                Some(work) if work.is_finished() => self.take(work, outbox.sender().address()).await?,
                Some(work) => self.work = Some(work),
                None => self.begin(),
            }
        }
        let Some((name, call, words)) = &self.decided else {
            return Ok(());
        };
        if outbox.push(height, name, call).await? {
            tracing::info!(job = %self.claim.job_id, bytes = call.data.len(), clock = left, "{words}");
        }
        Ok(())
    }

    /// Begins to decide on what is published.
    fn begin(&mut self) {
        let Some(view) = &self.view else { return };
        if self.again_at.is_some_and(|at| at > Instant::now()) {
            return;
        }
        let (mover, doubter) = (self.mover.take(), self.doubter.clone());
        let (judge, claim) = (view.judge.clone(), self.claim.clone());
        self.is_stale = false;
        self.work = Some(tokio::task::spawn_blocking(move || {
            let mover = match (mover, doubter) {
                (Some(mover), _) => Ok(mover),
                (None, Some(doubter)) => doubter(&claim).map(|(_, mover)| mover),
                (None, None) => Err(Failure::Device("nothing here can run the claim again".into())),
            };
            match mover.and_then(|mut mover| {
                // Whoever runs on a device that failed is not asked again.
                let made = mover
                    .try_next(&judge)
                    .map_err(|e| Failure::Device(e.to_string()))?;
                Ok((mover, made))
            }) {
                Ok((mover, made)) => Worked {
                    mover: Some(mover),
                    made: Ok(made),
                    judge,
                },
                Err(failure) => Worked {
                    mover: None,
                    made: Err(failure),
                    judge,
                },
            }
        }));
    }

    /// Takes in what was decided, unless something was published meanwhile.
    async fn take(&mut self, work: JoinHandle<Worked>, me: Address) -> Result<(), Failure> {
        let job = self.claim.job_id;
        let (made, judge) = match work.await {
            Ok(worked) => {
                self.mover = worked.mover;
                (worked.made, Some(worked.judge))
            }
            Err(e) => (
                Err(Failure::Device(format!("deciding ended by itself: {e}"))),
                None,
            ),
        };
        let (made, judge) = match (made, judge) {
            (Ok(made), Some(judge)) => (made, judge),
            (Err(failure), _) => {
                let words = failure.to_string();
                if self.failed.as_ref() != Some(&words) {
                    tracing::error!(%job, "no move now: {words}");
                    self.failed = Some(words);
                }
                self.again_at = Some(Instant::now() + RETRY_AFTER);
                return Ok(());
            }
            (Ok(_), None) => return Ok(()),
        };
        (self.failed, self.again_at) = (None, None);
        if self.is_stale {
            return Ok(());
        }
        self.decided = match made {
            Move::Ask { to, ask } => Some(self.asking(&to, &ask)),
            Move::Accuse { to, accusation } => {
                let found = judge.clone().accuse(me, to, &accusation);
                if matches!(found, Ok(Verdict::Guilty(_))) || self.reckless {
                    Some(self.accusing(&to, &accusation)?)
                } else {
                    tracing::error!(%job, "not accused: the own judge finds {found:?}");
                    None
                }
            }
            Move::Resign => {
                tracing::error!(%job, "nothing to prove: what is published is what was computed here");
                None
            }
        };
        self.silent = self.decided.is_none();
        Ok(())
    }

    fn asking(&self, to: &[u8; 32], ask: &Ask) -> (String, Call, String) {
        let name = format!("{} ask {}", self.id, B256::from(ask.id(to)));
        (
            name,
            self.verifier.ask(self.id, to, ask),
            format!("asking {ask:?}"),
        )
    }

    fn accusing(&self, to: &[u8; 32], accusation: &Accusation) -> Result<(String, Call, String), Failure> {
        let bytes = accusation
            .encode(to)
            .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("writing an accusation")))?;
        let name = format!(
            "{} accuse {}",
            self.id,
            B256::from(blake3::hash(&bytes).as_bytes())
        );
        let words = format!("accusing: {}", accusation.name());
        Ok((name, self.verifier.accuse(self.id, bytes), words))
    }
}

/// What ended a game, by the number that the contract gives.
pub(super) fn ended_by(by: u8) -> String {
    match by {
        BY_SILENCE => "silence".into(),
        BY_CONTRADICTION => "an answer that contradicts what is public".into(),
        kind => format!("an executed step (accusation {kind})"),
    }
}

/// An event in words.
pub(super) fn describe(event: &Event) -> String {
    match event {
        Event::Opened(who, bond) => format!("{who} opened a game for {bond} wei"),
        Event::Asked { ask, .. } => format!("asked: {ask:?}"),
        Event::Answered { .. } => "answered".into(),
        Event::Lost(who, by) => format!("{who} lost its game by {}", ended_by(*by)),
        Event::Convicted(who, by) => format!("CONVICTED by {}; {who} did it", ended_by(*by)),
    }
}
