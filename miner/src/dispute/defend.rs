//! The neuron's seat: every question about its own claims is found on the chain, the rows are computed again beside
//! the mining, and the answer is sent within the clock. A challenger that falls silent is called out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use alloy_primitives::{B256, U256};
use bitai_contracts::{JobStatus, SlotState};
use bitai_poc::dispute::Claim;

use super::{
    desk::{Desk, Maker, Wanted},
    outbox::Outbox,
    view::{asked, challengers},
};
use crate::{
    chain::{
        Refusal, Sender, Verifier,
        hub::{state_of, status_of},
        verifier::{CLAIM_CONVICTED, CLAIM_DISPUTED, GAME_PLAYING, Turn},
    },
    datadir::DataDir,
    exit::Failure,
};

/// Heights that are read again at every look: a reorg may have moved a dispute there.
const REORG_DEPTH: u64 = 100;

/// One own claim under dispute.
struct Case {
    claim: Arc<Claim>,
    /// Height of its first game.
    since: u64,
    /// Whether a game about it went on at the last look.
    is_live: bool,
    /// The last failure of this case: said once.
    said: Option<String>,
}

/// All own claims under dispute.
pub struct Defence {
    verifier: Verifier,
    outbox: Outbox,
    desk: Desk,
    /// Heights that a dispute can be old and still go on.
    look_back: u64,
    read_to: Option<u64>,
    cases: BTreeMap<B256, Case>,
    /// Disputed claims that could not be read, and why: said once.
    unread: BTreeMap<B256, String>,
}

fn fail(e: Refusal) -> Failure {
    e.into_failure("reading a dispute")
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
            desk: Desk::start(maker)?,
            look_back: longest + REORG_DEPTH,
            read_to: None,
            cases: BTreeMap::new(),
            unread: BTreeMap::new(),
        })
    }

    /// Takes up the moves that a process before has signed, and keeps those of this one.
    pub fn keeping(mut self, data: &DataDir) -> Self {
        self.outbox = Outbox::kept(
            self.outbox.sender().clone(),
            data,
            ("defend", self.verifier.address()),
        );
        self
    }

    /// One turn over everything. Never waits for a computation; what goes wrong with one claim keeps no other from being
    /// answered.
    pub async fn look(&mut self, height: u64) -> Result<(), Failure> {
        self.find(height).await?;
        let ids: Vec<B256> = self.cases.keys().copied().collect();
        let mut wanted = Vec::new();
        for id in ids {
            let attended = self.attend(id, height).await;
            let said = match attended {
                Ok(asks) => {
                    wanted.extend(asks);
                    None
                }
                Err(failure @ Failure::Unreachable { .. }) => return Err(failure),
                Err(failure) => Some(failure.to_string()),
            };
            if let Some(case) = self.cases.get_mut(&id)
                && case.said != said
            {
                if let Some(words) = &said {
                    tracing::error!(claim = %id, job = %case.claim.job_id, "answering a dispute: {words}");
                }
                case.said = said;
            }
        }
        wanted.sort_by_key(|w| w.left);
        let live = self.cases.iter().filter(|(_, case)| case.is_live);
        let live: BTreeSet<B256> = live.map(|(id, _)| *id).collect();
        self.desk.want(wanted.clone(), live);
        for w in &wanted {
            self.answer(w, height).await?;
        }
        let me = self.outbox.sender().address();
        if self.verifier.owed(me).await.map_err(fail)?.is_zero() {
            self.outbox.forget("withdraw");
        } else {
            let call = self.verifier.withdraw();
            self.outbox.push(height, "withdraw", &call).await?;
        }
        Ok(())
    }

    /// Whether something is disputed that this neuron claims, or can be: a claim that was revealed and whose window is
    /// open.
    pub async fn is_needed(&self, height: u64) -> Result<bool, Failure> {
        if !self.cases.is_empty() {
            return Ok(true);
        }
        let (hub, me) = (self.verifier.hub(), self.outbox.sender().address());
        let from = height.saturating_sub(self.look_back);
        for (job_id, revealed, _) in hub.reveals(from, height).await.map_err(fail)? {
            if revealed.neuron != me {
                continue;
            }
            let Some(job) = hub.job(job_id).await.map_err(fail)? else {
                continue;
            };
            let open = match status_of(&job) {
                JobStatus::Revealing => true,
                JobStatus::Challenge | JobStatus::Quarrel => height <= job.deadline,
                _ => false,
            };
            if open && state_of(&hub.slot(job_id, me).await.map_err(fail)?) == SlotState::Revealed {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads which own claims were disputed.
    async fn find(&mut self, height: u64) -> Result<(), Failure> {
        if self.read_to == Some(height) {
            return Ok(());
        }
        let back = match self.read_to {
            Some(read) => read.min(height).saturating_sub(REORG_DEPTH),
            None => height.saturating_sub(self.look_back),
        };
        let me = self.outbox.sender().address();
        let disputed = self.verifier.disputed(me, back, height).await.map_err(fail)?;
        let before = std::mem::take(&mut self.unread);
        for (id, since) in disputed {
            match self.meet(id, since, height).await {
                Ok(()) => {}
                Err(failure @ Failure::Unreachable { .. }) => return Err(failure),
                Err(failure) => {
                    let words = failure.to_string();
                    if before.get(&id) != Some(&words) {
                        tracing::error!(claim = %id, "an own claim is disputed and cannot be read: {words}");
                    }
                    self.unread.insert(id, words);
                }
            }
        }
        // Those are looked for again at every look.
        if self.unread.is_empty() {
            self.read_to = Some(height);
        }
        Ok(())
    }

    /// Takes up an own claim that was disputed, unless all about it is over.
    async fn meet(&mut self, id: B256, since: u64, height: u64) -> Result<(), Failure> {
        if let Some(case) = self.cases.get_mut(&id) {
            case.since = since;
            return Ok(());
        }
        let state = self.verifier.claim(id).await.map_err(fail)?;
        // One without a game is kept in sight, too, while a further one may be opened: no event of the claim says so.
        if state.state != CLAIM_DISPUTED
            || (state.live == 0 && !self.may_be_joined(state.jobId, height).await?)
        {
            return Ok(());
        }
        let claim = self.verifier.public(id).await?;
        tracing::warn!(claim = %id, job = %claim.job_id, "own claim disputed; answering");
        let case = Case {
            claim: Arc::new(claim),
            since,
            is_live: true,
            said: None,
        };
        self.cases.insert(id, case);
        Ok(())
    }

    /// Calls out whoever is silent about one claim, and tells what is asked about it.
    async fn attend(&mut self, id: B256, height: u64) -> Result<Vec<Wanted>, Failure> {
        let state = self.verifier.claim(id).await.map_err(fail)?;
        let Some(case) = self.cases.get_mut(&id) else {
            return Ok(Vec::new());
        };
        let job = case.claim.job_id;
        if state.state != CLAIM_DISPUTED || state.live == 0 {
            if state.state == CLAIM_CONVICTED {
                tracing::error!(claim = %id, %job, "own claim convicted: the collateral is lost");
            }
            let was_live = std::mem::take(&mut case.is_live);
            // Until its window is over the next game about it is found here.
            if state.state != CLAIM_DISPUTED || !self.may_be_joined(job, height).await? {
                tracing::info!(claim = %id, %job, "no game about this claim goes on, and none can be opened");
                self.cases.remove(&id);
                self.outbox.forget(&format!("{id} "));
            } else if was_live {
                tracing::info!(claim = %id, %job, "no game about this claim goes on");
            }
            return Ok(Vec::new());
        }
        case.is_live = true;
        let (claim, since) = (Arc::clone(&case.claim), case.since);
        let events = self.verifier.events(id, since).await.map_err(fail)?;
        let mut wanted = BTreeMap::new();
        for who in challengers(&events) {
            let standing = self.verifier.standing(id, who, height).await.map_err(fail)?;
            if standing.game.state != GAME_PLAYING {
                continue;
            }
            match (standing.turn, standing.waiting) {
                (Turn::Neuron(left), Some(ask)) => {
                    if let Some(what) = asked(&events, ask) {
                        let least = wanted.entry(ask).or_insert((what, left));
                        least.1 = least.1.min(left);
                    }
                }
                (Turn::ChallengerIsOut, _) => {
                    let call = self.verifier.timeout(id, who);
                    let name = format!("{id} timeout {who}");
                    if self.outbox.push(height, &name, &call).await? {
                        tracing::info!(claim = %id, %job, challenger = %who, "a silent challenger is called out");
                    }
                }
                _ => {}
            }
        }
        let wanted = wanted.into_iter().map(|(ask_id, (ask, left))| Wanted {
            claim: Arc::clone(&claim),
            id: ask_id,
            ask,
            left,
        });
        Ok(wanted.collect())
    }

    /// Whether further games about a job's answers can be opened.
    async fn may_be_joined(&self, job: U256, height: u64) -> Result<bool, Failure> {
        let job = self.verifier.hub().job(job).await;
        let job = job.map_err(|e| e.into_failure("reading a job"))?;
        Ok(job.is_some_and(|j| height <= j.deadline.saturating_add(REORG_DEPTH)))
    }

    /// Sends an answer that is there.
    async fn answer(&mut self, w: &Wanted, height: u64) -> Result<(), Failure> {
        let Some(bytes) = self.desk.answer(&w.id) else {
            return Ok(());
        };
        let (id, job, count) = (B256::from(w.claim.id()), w.claim.job_id, bytes.len());
        let call = self.verifier.answer(bytes);
        let name = format!("{id} answer {}", w.id);
        if self.outbox.push(height, &name, &call).await? {
            tracing::info!(claim = %id, %job, what = ?w.ask, bytes = count, clock = w.left, "answered");
        }
        Ok(())
    }
}
