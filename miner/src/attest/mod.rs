//! A validator's attestations (docs/spec/validators.md): jobs for which a header draws it are computed again, one root an epoch
//! says what holds, asks are answered, and the pay is fetched. What it said it keeps on disk, all else says the chain.

mod book;
mod command;
mod compute;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_primitives::{Address, B256, U256};
use bitai_contracts::JobStatus;
use tokio::task::JoinHandle;

use self::{
    book::{Book, Holds, Page, Said},
    compute::Drawn,
};
use crate::{
    chain::{
        Attestations, Refusal, Sender,
        attestations::{ATTESTATION_NONE, ATTESTATION_STANDING},
        hub::status_of,
    },
    dispute::{Guard, Outbox, Shelf},
    exit::Failure,
};

pub use command::run;

/// Heights behind the tip that are read again: a reorg may have moved an answer there.
const REORG_DEPTH: u64 = 100;
/// Jobs of which nothing is attested in one call: its bytes have to pay for their gas.
const LISTED: usize = 30;
/// Jobs whose pay is claimed in one call, for the same reason.
const CLAIMED: usize = 6;
/// How often the chain is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest pause between looks while no node answers.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// After a failure of the device.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What is known of a drawn job.
enum Work {
    /// To be computed, not before this.
    Due(Drawn, Option<Instant>),
    /// Being computed.
    Running,
    /// Computed: which answer holds.
    Done(Option<Holds>),
}

/// A result that a thread of its own computes.
enum Task {
    Check(u64, u32, Drawn, JoinHandle<Result<Option<Holds>, Failure>>),
    Open(u32, JoinHandle<Result<Vec<u8>, Failure>>),
}

/// A validator's seat before the attestations of a hub.
pub struct Attesting {
    at: Attestations,
    outbox: Outbox,
    shelf: Arc<Shelf>,
    book: Book,
    me: Address,
    /// Drawn jobs by epoch and number, with the header that drew.
    epochs: BTreeMap<u64, BTreeMap<u32, (B256, Work)>>,
    /// Openings that wait to be executed.
    openings: BTreeMap<u32, Vec<u8>>,
    task: Option<Task>,
    looked_at: Option<u64>,
    said: Option<String>,
}

fn fail(e: Refusal) -> Failure {
    e.into_failure("reading attestations")
}

impl Attesting {
    /// The seat of the sender.
    pub fn new(at: Attestations, sender: Sender, shelf: Arc<Shelf>) -> Self {
        let me = sender.address();
        Self {
            book: Book::new(shelf.data(), at.hub().node().chain_id(), at.address(), me),
            outbox: Outbox::kept(sender, shelf.data(), ("attest", at.address())),
            at,
            shelf,
            me,
            epochs: BTreeMap::new(),
            openings: BTreeMap::new(),
            task: None,
            looked_at: None,
            said: None,
        }
    }

    /// One turn over everything; never waits for a computation.
    pub async fn look(&mut self) -> Result<(), Failure> {
        let height = self.at.hub().node().height().await.map_err(fail)?;
        self.take_in().await;
        if self.looked_at != Some(height) {
            self.find(height).await?;
            self.looked_at = Some(height);
        }
        self.attest(height).await?;
        self.list(height).await?;
        self.answer(height).await?;
        self.compute();
        self.fetch(height).await
    }

    /// Takes in what was computed.
    async fn take_in(&mut self) {
        match self.task.take() {
            Some(Task::Check(epoch, job, drawn, work)) if work.is_finished() => {
                let found = ended(work.await);
                let Some((_, slot)) = self.epochs.get_mut(&epoch).and_then(|jobs| jobs.get_mut(&job)) else {
                    return;
                };
                *slot = match found {
                    Ok(holds) => {
                        let holds_one = holds.is_some();
                        tracing::info!(job, epoch, holds_one, "a drawn job is computed again");
                        self.said = None;
                        Work::Done(holds)
                    }
                    Err(failure) => {
                        say(
                            &mut self.said,
                            format!("job {job} is not computed yet: {failure}"),
                        );
                        Work::Due(drawn, Some(Instant::now() + RETRY_AFTER))
                    }
                };
            }
            Some(Task::Open(job, work)) if work.is_finished() => match ended(work.await) {
                Ok(bytes) => {
                    self.openings.insert(job, bytes);
                }
                Err(failure) => say(
                    &mut self.said,
                    format!("the entry of job {job} does not open: {failure}"),
                ),
            },
            other => self.task = other,
        }
    }

    /// Finds jobs for which this validator was drawn, in epochs that are not attested.
    async fn find(&mut self, height: u64) -> Result<(), Failure> {
        let s = self.at.settings();
        let oldest = self
            .at
            .epoch_of(height.saturating_sub(s.epoch + s.attestWindow + 2));
        self.epochs.retain(|epoch, _| *epoch >= oldest);
        for epoch in oldest..=self.at.epoch_of(height) {
            let w = self.at.windows(epoch);
            if height > w.attest_by || self.state(epoch).await? != ATTESTATION_NONE {
                self.epochs.remove(&epoch);
                continue;
            }
            let mut jobs = self.epochs.remove(&epoch).unwrap_or_default();
            let answered = self
                .at
                .answered(w.first, w.last.min(height))
                .await
                .map_err(fail)?;
            // A reorg may have taken some of them.
            jobs.retain(|job, _| answered.iter().any(|(id, _)| *id == U256::from(*job)));
            for (job_id, at) in answered {
                // Beyond the tree there is no place for an entry.
                let Ok(job) = u32::try_from(job_id) else { continue };
                let drawn_by = self
                    .at
                    .header(Attestations::draw_height(at))
                    .await
                    .map_err(fail)?;
                let Some(header) = drawn_by else { continue };
                if jobs.get(&job).is_some_and(|(known, _)| *known == header) {
                    continue;
                }
                jobs.remove(&job);
                if !self.at.is_drawn(job_id, self.me).await.map_err(fail)? {
                    continue;
                }
                let drawn = Drawn::read(&self.at, self.me, job_id, header).await?;
                tracing::info!(%job_id, epoch, "drawn");
                jobs.insert(job, (header, Work::Due(drawn, None)));
            }
            self.epochs.insert(epoch, jobs);
        }
        Ok(())
    }

    async fn state(&self, epoch: u64) -> Result<u8, Failure> {
        let a = self.at.attestation(epoch, self.me).await.map_err(fail)?;
        Ok(a.state)
    }

    /// Posts the root of an epoch that is over: when all its jobs are computed, at the last moment without those that are not.
    async fn attest(&mut self, height: u64) -> Result<(), Failure> {
        let epochs: Vec<u64> = self.epochs.keys().copied().collect();
        for epoch in epochs {
            let w = self.at.windows(epoch);
            let Some(jobs) = self.epochs.get(&epoch) else {
                continue;
            };
            if height < w.header || height > w.attest_by || jobs.is_empty() {
                continue;
            }
            let open = jobs
                .values()
                .filter(|(_, work)| !matches!(work, Work::Done(_)))
                .count();
            // Half of the window is left for the transaction.
            let latest = w.attest_by - self.at.settings().attestWindow / 2;
            if open != 0 && height < latest {
                continue;
            }
            let Some(header) = self.at.header(w.header).await.map_err(fail)? else {
                continue;
            };
            let page = match self.book.read(epoch)? {
                // What was written is what was sent, unless a reorg took the header that it was made with.
                Some(page) if page.header == header => page,
                _ => {
                    if open != 0 {
                        tracing::warn!(
                            epoch,
                            open,
                            "too late for some drawn jobs: nothing is attested of them"
                        );
                    }
                    let page = Page {
                        header,
                        jobs: jobs
                            .iter()
                            .map(|(job, (_, work))| Said {
                                job: *job,
                                holds: match work {
                                    Work::Done(holds) => holds.clone(),
                                    _ => None,
                                },
                            })
                            .collect(),
                    };
                    self.book.write(epoch, &page)?;
                    page
                }
            };
            let Some(first) = page.jobs.first() else { continue };
            let none = page.none();
            let none = none.get(..LISTED).unwrap_or(&none);
            let root = B256::from(page.tree().root());
            let call = self.at.attest(epoch, header, U256::from(first.job), root, none);
            if self
                .outbox
                .push(height, &format!("attest {epoch}"), &call)
                .await?
            {
                tracing::info!(epoch, jobs = page.jobs.len(), %root, "attested");
            }
        }
        Ok(())
    }

    /// Lists the jobs of which nothing is attested and that did not go with the root.
    async fn list(&mut self, height: u64) -> Result<(), Failure> {
        for epoch in self.book.epochs()? {
            let w = self.at.windows(epoch);
            if height < w.header || height > w.attest_by {
                continue;
            }
            let Some(page) = self.book.read(epoch)? else {
                continue;
            };
            let none = page.none();
            if none.len() <= LISTED || self.state(epoch).await? != ATTESTATION_STANDING {
                continue;
            }
            let mut left = Vec::new();
            for job in none {
                let entry = self.at.entry(U256::from(job), self.me).await.map_err(fail)?;
                if entry.noneIn != epoch + 1 {
                    left.push(job);
                }
                if left.len() == LISTED {
                    break;
                }
            }
            if !left.is_empty() {
                let call = self.at.none(epoch, page.header, &left);
                self.outbox.push(height, &format!("none {epoch}"), &call).await?;
            }
        }
        Ok(())
    }

    /// Opens what is asked for.
    async fn answer(&mut self, height: u64) -> Result<(), Failure> {
        let s = self.at.settings();
        let back = s.openWindow + s.askWindow + REORG_DEPTH;
        let asked = self
            .at
            .asked(self.me, height.saturating_sub(back), height)
            .await
            .map_err(fail)?;
        for ask in asked {
            if ask.open_by < height || !self.at.waits(ask.job_id, self.me).await.map_err(fail)? {
                continue;
            }
            let Ok(job) = u32::try_from(ask.job_id) else {
                continue;
            };
            if let Some(opening) = self.openings.get(&job) {
                let call = self.at.open(ask.job_id, opening.clone());
                let name = format!("open {job}");
                if self.outbox.push(height, &name, &call).await? {
                    tracing::info!(job, pick = ask.pick, bytes = opening.len(), "opening an entry");
                }
            } else if self.task.is_none() {
                self.begin_opening(job, ask.pick).await?;
            }
        }
        Ok(())
    }

    /// Begins to compute an opening.
    async fn begin_opening(&mut self, job: u32, pick: u8) -> Result<(), Failure> {
        let job_id = U256::from(job);
        let hub = self.at.hub();
        let Some(answered) = hub.job(job_id).await.map_err(fail)?.map(|j| j.answeredAt) else {
            return Ok(());
        };
        let epoch = self.at.epoch_of(answered);
        let page = self.book.read(epoch)?;
        let holds = page
            .as_ref()
            .and_then(|page| page.jobs.iter().find(|said| said.job == job)?.holds.clone());
        let path = page.as_ref().and_then(|page| page.tree().path(job));
        let header = self
            .at
            .header(Attestations::draw_height(answered))
            .await
            .map_err(fail)?;
        let (Some(holds), Some(path), Some(header)) = (holds, path, header) else {
            say(
                &mut self.said,
                format!(
                    "job {job} is asked for, and the record of epoch {epoch} is gone: its ask cannot be answered"
                ),
            );
            return Ok(());
        };
        let drawn = Drawn::read(&self.at, self.me, job_id, header).await?;
        let shelf = Arc::clone(&self.shelf);
        let work = tokio::task::spawn_blocking(move || drawn.open(&shelf, &holds, path, pick));
        self.task = Some(Task::Open(job, work));
        Ok(())
    }

    /// Begins to compute the next drawn job.
    fn compute(&mut self) {
        if self.task.is_some() {
            return;
        }
        let now = Instant::now();
        let due = |work: &Work| matches!(work, Work::Due(_, again) if again.is_none_or(|at| at <= now));
        for (epoch, jobs) in &mut self.epochs {
            let Some((job, (_, slot))) = jobs.iter_mut().find(|(_, (_, work))| due(work)) else {
                continue;
            };
            if let Work::Due(drawn, _) = std::mem::replace(slot, Work::Running) {
                let (shelf, theirs) = (Arc::clone(&self.shelf), drawn.clone());
                let work = tokio::task::spawn_blocking(move || theirs.check(&shelf));
                self.task = Some(Task::Check(*epoch, *job, drawn, work));
            }
            return;
        }
    }

    /// Claims the pay of epochs that are over, and fetches what is due.
    async fn fetch(&mut self, height: u64) -> Result<(), Failure> {
        for epoch in self.book.epochs()? {
            let attested = self.at.attestation(epoch, self.me).await.map_err(fail)?;
            if height < self.at.windows(epoch).paid_from.max(attested.clearFrom) {
                continue;
            }
            let Some(jobs) = self.payable(epoch).await? else {
                // Nothing of it can be asked for or paid any more.
                self.book.remove(epoch)?;
                self.outbox.forget(&format!("claim {epoch}"));
                continue;
            };
            if jobs.is_empty() {
                continue;
            }
            let call = self.at.claim(&jobs);
            if self.outbox.push(height, &format!("claim {epoch}"), &call).await? {
                tracing::info!(epoch, jobs = jobs.len(), "claiming the pay of an epoch");
            }
        }
        if self.at.due(self.me).await.map_err(fail)?.is_zero() {
            self.outbox.forget("fetch");
        } else {
            self.outbox.push(height, "fetch", &self.at.withdraw()).await?;
        }
        Ok(())
    }

    /// Jobs of an epoch that are settled and not paid for, some at once; none where nothing of it will be paid any more.
    async fn payable(&self, epoch: u64) -> Result<Option<Vec<u32>>, Failure> {
        let Some(page) = self.book.read(epoch)? else {
            return Ok(None);
        };
        if self.state(epoch).await? != ATTESTATION_STANDING {
            return Ok(None);
        }
        let (mut jobs, mut is_open) = (Vec::new(), false);
        for said in page.jobs.iter().filter(|said| said.holds.is_some()) {
            let job_id = U256::from(said.job);
            let status = match self.at.hub().job(job_id).await.map_err(fail)? {
                Some(job) => status_of(&job),
                None => JobStatus::None,
            };
            let is_paid = self.at.entry(job_id, self.me).await.map_err(fail)?.paid;
            match status {
                JobStatus::Settled if !is_paid => jobs.push(said.job),
                // A dispute may hold it up.
                JobStatus::Challenge | JobStatus::Quarrel => is_open = true,
                _ => {}
            }
            if jobs.len() == CLAIMED {
                break;
            }
        }
        Ok((is_open || !jobs.is_empty()).then_some(jobs))
    }
}

/// A validator's attestations and their defence at work, until this is dropped.
pub struct Attests {
    task: JoinHandle<()>,
    _guard: Guard,
}

impl Attests {
    /// Takes both seats of the sender.
    pub fn start(at: Attestations, sender: &Sender, shelf: &Arc<Shelf>) -> Self {
        let guard = Guard::of(at.verifier().clone(), sender.clone(), Arc::clone(shelf));
        let seat = Attesting::new(at, sender.clone(), Arc::clone(shelf));
        Self {
            task: tokio::spawn(work(seat)),
            _guard: guard,
        }
    }
}

impl Drop for Attests {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Looks again and again.
async fn work(mut seat: Attesting) {
    let mut pause = LOOK_EVERY;
    let mut said = None;
    loop {
        match seat.look().await {
            Ok(()) => (pause, said) = (LOOK_EVERY, None),
            Err(failure) => {
                say(&mut said, failure.to_string());
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// A task's result; one that ended by itself failed.
fn ended<T>(done: Result<Result<T, Failure>, tokio::task::JoinError>) -> Result<T, Failure> {
    done.unwrap_or_else(|e| {
        Err(Failure::Device(format!(
            "computing a drawn job ended by itself: {e}"
        )))
    })
}

/// Says a failure once.
fn say(said: &mut Option<String>, words: String) {
    if said.as_ref() != Some(&words) {
        tracing::error!("attesting: {words}");
        *said = Some(words);
    }
}
