//! The neuron's seat: every question about its own claims is found on the chain, the rows are computed again beside
//! the mining, and the answer is sent within the clock. A challenger that falls silent is called out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use alloy_primitives::B256;
use bitai_poc::dispute::{Ask, Claim, Defend};
use tokio::task::JoinHandle;

use super::{
    outbox::Outbox,
    view::{asked, challengers},
};
use crate::{
    chain::{
        Refusal, Sender, Verifier,
        verifier::{CLAIM_CONVICTED, CLAIM_DISPUTED, GAME_PLAYING, Turn},
    },
    exit::Failure,
};

/// Makes who explains a claim: runs it again, which may take minutes. Called on a thread of its own.
pub type Maker = Arc<dyn Fn(&Claim) -> Result<Explainer, Failure> + Send + Sync>;
/// Who explains a claim.
pub type Explainer = Box<dyn Defend + Send>;

/// Heights that are read again at every look: a reorg may have moved a dispute there.
const REORG_DEPTH: u64 = 100;
/// Pause before a claim that could not be run again is tried anew.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Computed answers by the id of their ask; none where the run has no such node.
type Answers = Vec<(B256, Option<Vec<u8>>)>;

/// One own claim under dispute.
struct Case {
    claim: Claim,
    /// Height of its first game.
    since: u64,
    /// Behind a lock so that a neuron can be looked at from any thread; nobody else takes it.
    explainer: Option<Mutex<Explainer>>,
    answers: BTreeMap<B256, Vec<u8>>,
    work: Option<JoinHandle<Result<(Explainer, Answers), Failure>>>,
    again_at: Option<Instant>,
}

/// All own claims under dispute.
pub struct Defence {
    verifier: Verifier,
    outbox: Outbox,
    maker: Maker,
    /// Heights that a dispute can be old and still go on.
    look_back: u64,
    read_to: Option<u64>,
    cases: BTreeMap<B256, Case>,
}

impl Defence {
    /// A seat that answers for the sender's claims.
    pub async fn new(verifier: Verifier, sender: Sender, maker: Maker) -> Result<Self, Failure> {
        let longest = verifier
            .longest()
            .await
            .map_err(|e| e.into_failure("reading the verifier's constants"))?;
        Ok(Self {
            verifier,
            outbox: Outbox::new(sender),
            maker,
            look_back: longest + REORG_DEPTH,
            read_to: None,
            cases: BTreeMap::new(),
        })
    }

    /// One turn over everything. Never waits for a computation.
    pub async fn look(&mut self, height: u64) -> Result<(), Failure> {
        let fail = |e: Refusal| e.into_failure("reading disputes");
        self.find(height).await.map_err(fail)?;
        let ids: Vec<B256> = self.cases.keys().copied().collect();
        for id in ids {
            self.attend(id, height).await?;
        }
        let me = self.outbox.sender().address();
        if self.verifier.owed(me).await.map_err(fail)?.is_zero() {
            self.outbox.forget("withdraw");
        } else {
            let call = self.verifier.withdraw();
            self.outbox.push("withdraw", &call).await?;
        }
        Ok(())
    }

    /// Whether nothing is disputed that this neuron claims.
    pub fn is_idle(&self) -> bool {
        self.cases.is_empty()
    }

    /// Reads which own claims were disputed.
    async fn find(&mut self, height: u64) -> Result<(), Refusal> {
        if self.read_to == Some(height) {
            return Ok(());
        }
        let back = match self.read_to {
            Some(read) => read.min(height).saturating_sub(REORG_DEPTH),
            None => height.saturating_sub(self.look_back),
        };
        let me = self.outbox.sender().address();
        for (id, since) in self.verifier.disputed(me, back, height).await? {
            if let Some(case) = self.cases.get_mut(&id) {
                case.since = since;
                continue;
            }
            let state = self.verifier.claim(id).await?;
            // One without a game is kept in sight, too: a further one may be opened, and no event of the claim says so.
            if state.state != CLAIM_DISPUTED {
                continue;
            }
            let claim = match self.verifier.public(id).await {
                Ok(claim) => claim,
                Err(failure) => return Err(Refusal::Down(failure)),
            };
            tracing::warn!(claim = %id, job = %claim.job_id, "own claim disputed; answering");
            let case = Case {
                claim,
                since,
                explainer: None,
                answers: BTreeMap::new(),
                work: None,
                again_at: None,
            };
            self.cases.insert(id, case);
        }
        self.read_to = Some(height);
        Ok(())
    }

    /// Does what one claim needs now.
    async fn attend(&mut self, id: B256, height: u64) -> Result<(), Failure> {
        let fail = |e: Refusal| e.into_failure("reading a dispute");
        let state = self.verifier.claim(id).await.map_err(fail)?;
        let Some(case) = self.cases.get_mut(&id) else {
            return Ok(());
        };
        let job = case.claim.job_id;
        if state.state != CLAIM_DISPUTED || state.live == 0 {
            // Until its window is over the next game about it is found here.
            if state.state == CLAIM_CONVICTED {
                tracing::error!(claim = %id, %job, "own claim convicted: the collateral is lost");
            }
            if state.state != CLAIM_DISPUTED || !self.may_be_joined(job, height).await? {
                tracing::info!(claim = %id, %job, "no game about this claim goes on, and none can be opened");
                self.cases.remove(&id);
                self.outbox.forget(&format!("{id} "));
            } else if let Some(case) = self.cases.get_mut(&id)
                && case.explainer.take().is_some()
            {
                tracing::info!(claim = %id, %job, "no game about this claim goes on");
            }
            return Ok(());
        }
        let events = self.verifier.events(id, case.since).await.map_err(fail)?;
        let mut owed = BTreeMap::new();
        for who in challengers(&events) {
            let standing = self.verifier.standing(id, who, height).await.map_err(fail)?;
            if standing.game.state != GAME_PLAYING {
                continue;
            }
            match (standing.turn, standing.waiting) {
                (Turn::Neuron(left), Some(ask)) => {
                    if let Some(what) = asked(&events, ask) {
                        owed.insert(ask, (what, left));
                    }
                }
                (Turn::ChallengerIsOut, _) => {
                    let call = self.verifier.timeout(id, who);
                    if self.outbox.push(&format!("{id} timeout {who}"), &call).await? {
                        tracing::info!(claim = %id, %job, challenger = %who, "a silent challenger is called out");
                    }
                }
                _ => {}
            }
        }
        self.take(id).await;
        self.answer(id, &owed).await?;
        self.compute(id, &owed);
        Ok(())
    }

    /// Whether further games about a job's answers can be opened.
    async fn may_be_joined(&self, job: alloy_primitives::U256, height: u64) -> Result<bool, Failure> {
        let job = self.verifier.hub().job(job).await;
        let job = job.map_err(|e| e.into_failure("reading a job"))?;
        Ok(job.is_some_and(|j| height <= j.deadline.saturating_add(REORG_DEPTH)))
    }

    /// Takes in what was computed since the last look.
    async fn take(&mut self, id: B256) {
        let Some(case) = self.cases.get_mut(&id) else {
            return;
        };
        if !case.work.as_ref().is_some_and(JoinHandle::is_finished) {
            return;
        }
        let Some(work) = case.work.take() else { return };
        match work.await {
            Ok(Ok((explainer, answers))) => {
                let all = answers.len();
                let there = answers.into_iter().filter_map(|(ask, bytes)| Some((ask, bytes?)));
                let before = case.answers.len();
                case.answers.extend(there);
                if case.answers.len() < before + all {
                    // A device may have failed: the next try is on a new runner.
                    case.again_at = Some(Instant::now() + RETRY_AFTER);
                } else {
                    case.explainer = Some(Mutex::new(explainer));
                }
            }
            Ok(Err(failure)) => {
                tracing::error!(claim = %id, "cannot run the claim again: {failure}");
                case.again_at = Some(Instant::now() + RETRY_AFTER);
            }
            Err(e) => {
                tracing::error!(claim = %id, "computing an answer ended by itself: {e}");
                case.again_at = Some(Instant::now() + RETRY_AFTER);
            }
        }
    }

    /// Sends the answers that are there.
    async fn answer(&mut self, id: B256, owed: &BTreeMap<B256, (Ask, u64)>) -> Result<(), Failure> {
        for (ask, (what, left)) in owed {
            let Some(case) = self.cases.get(&id) else {
                return Ok(());
            };
            let Some(bytes) = case.answers.get(ask) else {
                continue;
            };
            let job = case.claim.job_id;
            let call = self.verifier.answer(bytes.clone());
            if self.outbox.push(&format!("{id} answer {ask}"), &call).await? {
                tracing::info!(claim = %id, %job, ?what, bytes = bytes.len(), clock = left, "answered");
            }
        }
        Ok(())
    }

    /// Starts computing what is owed and not there, unless a computation of this claim is under way.
    fn compute(&mut self, id: B256, owed: &BTreeMap<B256, (Ask, u64)>) {
        let Some(case) = self.cases.get_mut(&id) else {
            return;
        };
        let missing: BTreeSet<B256> = owed
            .keys()
            .filter(|ask| !case.answers.contains_key(*ask))
            .copied()
            .collect();
        let waits = case.again_at.is_some_and(|at| at > Instant::now());
        if missing.is_empty() || waits || case.work.is_some() {
            return;
        }
        let asks: Vec<(B256, Ask)> = owed
            .iter()
            .filter(|(ask, _)| missing.contains(*ask))
            .map(|(ask, (what, _))| (*ask, *what))
            .collect();
        let (explainer, maker, claim) = (case.explainer.take(), Arc::clone(&self.maker), case.claim.clone());
        case.work = Some(tokio::task::spawn_blocking(move || {
            let mut explainer = match explainer {
                Some(explainer) => explainer.into_inner().unwrap_or_else(PoisonError::into_inner),
                None => maker(&claim)?,
            };
            let answers = asks.into_iter().map(|(id, ask)| {
                let bytes = explainer.answer(&ask).and_then(|a| a.encode(&id.0).ok());
                if bytes.is_none() {
                    tracing::error!(?ask, "this run has no answer to that");
                }
                (id, bytes)
            });
            let answers = answers.collect();
            Ok((explainer, answers))
        }));
    }
}
