//! Who computes what: gives each job to the least busy device that holds its model, stops a device that fails, hangs, is
//! too hot or erred, hands its jobs to the others and tries it again. One thread decides, from messages and a clock.

use std::{
    collections::BTreeMap,
    sync::mpsc,
    time::{Duration, Instant},
};

use alloy_primitives::U256;
use bitai_poc::Transcript;
use tokio::sync::mpsc::UnboundedSender;

use super::{
    Computed, Devices, Figures, Gpus, State, Undone,
    check::Checker,
    figures,
    fleet::{First, Msg, Start},
    jobs::Held,
    placement,
    unit::{Fall, Life, Opened, Unit},
};
use crate::exit::Failure;

/// Devices that may fail under one job before the neuron hears of it.
const FALLS_MAX: u32 = 3;
/// Longest that opening a device and loading its models may take, in steps that count as hung.
const OPEN_STEPS: u32 = 10;
/// Looks after which figures that did not come again are old.
const OLD_LOOKS: u32 = 30;
/// Longest that an ending fleet waits for a GPU's current step.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// The deciding thread.
pub(super) struct Crew {
    pub(super) gpus: Gpus,
    pub(super) units: Vec<Unit>,
    jobs: BTreeMap<U256, Held>,
    pub(super) checker: Option<Checker>,
    devices: Devices,
    to: mpsc::Sender<Msg>,
    pub(super) done: UnboundedSender<Computed>,
    first: Option<(mpsc::Sender<First>, First)>,
}

impl Crew {
    pub(super) fn new(
        start: Start<'_>,
        to: mpsc::Sender<Msg>,
        first: mpsc::Sender<First>,
    ) -> Result<Self, Failure> {
        let Start {
            places,
            packs,
            devices,
            health,
            threads,
            done,
        } = start;
        let gpus = devices.settings().clone();
        let needs: Vec<u64> = packs.iter().map(|p| placement::need(p.byte_len())).collect();
        let rooms: Vec<Option<u64>> = places.iter().map(|p| p.memory).collect();
        let lists = placement::plan(&needs, &rooms);
        let mut heard = First::default();
        for (m, pack) in packs.iter().enumerate() {
            for (place, list) in places.iter().zip(&lists).filter(|(_, list)| !list.contains(&m)) {
                let beside = if list.is_empty() {
                    ""
                } else {
                    ", less what others need"
                };
                let why = format!(
                    "{place}: {} bytes needed, {} there{beside}",
                    needs[m],
                    place.memory.unwrap_or_default()
                );
                heard.refused.entry(pack.root().into()).or_default().push(why);
            }
        }
        let watched: Vec<(usize, String)> = places
            .iter()
            .enumerate()
            .filter(|(_, p)| p.is_gpu)
            .map(|(n, p)| (n, p.id.clone()))
            .collect();
        let checker = if watched.is_empty() || gpus.recheck_percent == 0 {
            None
        } else {
            let by_root = packs.iter().map(|p| (p.root().into(), p.clone())).collect();
            Some(Checker::start(by_root, threads, to.clone())?)
        };
        if let Some(health) = health {
            figures::watch(health, watched, &gpus, to.clone())?;
        }
        let limits = (gpus.stop_at, gpus.resume_at);
        let units = places.into_iter().zip(lists).map(|(place, list)| {
            let packs = list.into_iter().map(|m| packs[m].clone()).collect();
            Unit::new(place, packs, limits)
        });
        Ok(Self {
            units: units.collect(),
            gpus,
            jobs: BTreeMap::new(),
            checker,
            devices: devices.clone(),
            to,
            done,
            first: Some((first, heard)),
        })
    }

    pub(super) fn run(&mut self, inbox: &mpsc::Receiver<Msg>) {
        for number in 0..self.units.len() {
            self.units[number].open(number, &self.to);
        }
        self.publish();
        let mut looked = Instant::now();
        loop {
            match inbox.recv_timeout(self.gpus.look_every) {
                Ok(Msg::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Ok(msg) => self.hear(msg),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            if looked.elapsed() >= self.gpus.look_every {
                self.look();
                looked = Instant::now();
            }
            self.publish();
        }
        // All are told before any is waited for.
        for unit in &mut self.units {
            unit.leave();
        }
        for unit in &mut self.units {
            if !unit.end(END_PATIENCE) {
                tracing::warn!(device = %unit.place, "still in a step; left behind");
            }
        }
    }

    fn hear(&mut self, msg: Msg) {
        match msg {
            Msg::Order { job_id, job } => {
                self.jobs
                    .entry(job_id)
                    .or_insert_with(|| Held::new(job))
                    .is_wanted = true;
                if self.jobs[&job_id].at.is_none() {
                    self.dispatch(job_id);
                }
            }
            Msg::Recall { job_id } => self.recall(job_id),
            Msg::Want { job_id } => {
                let Some(held) = self.jobs.get_mut(&job_id) else {
                    return;
                };
                held.is_wanted = true;
                let root = held.root();
                if let Some((n, _)) = held.at
                    && let Some(computer) = self.units[n].computers.get(&root)
                {
                    computer.want(job_id);
                }
            }
            Msg::Done { number, life, done } => self.done(number, life, done),
            Msg::Opened { number, life, result } => self.opened(number, life, result),
            Msg::Figures { number, figures } => self.figures(number, figures),
            Msg::Checked {
                number,
                job_id,
                job_hash,
                verdict,
            } => self.checked(number, (job_id, job_hash), verdict),
            Msg::Pause { id, words } => {
                for unit in self.named(id.as_deref()) {
                    tracing::info!(device = %unit.place, words, "paused by its owner; what it computes is finished");
                    unit.asked = Some(words.clone());
                }
            }
            Msg::Resume { id } => {
                for unit in self.named(id.as_deref()) {
                    tracing::info!(device = %unit.place, "goes on");
                    unit.asked = None;
                    unit.hot = false;
                    unit.wrong = None;
                    unit.try_now();
                    unit.hold();
                }
                self.dispatch_all();
            }
            #[cfg(test)]
            Msg::Heard(to) => {
                let _ = to.send(());
            }
            Msg::Stop => {}
        }
    }

    fn named(&mut self, id: Option<&str>) -> impl Iterator<Item = &mut Unit> {
        self.units
            .iter_mut()
            .filter(move |u| id.is_none_or(|id| u.place.id == id))
    }

    fn tell(&self, job_id: U256, held: &Held, result: Result<Transcript, Undone>) {
        // Nobody listens any more: the neuron is ending.
        let _ = self.done.send(Computed {
            job_id,
            job_hash: held.hash,
            result,
            took: held.since.elapsed(),
        });
    }

    /// Gives a job to the least busy device that holds its model; it waits where none can take it now.
    fn dispatch(&mut self, job_id: U256) {
        let Some(held) = self.jobs.get_mut(&job_id) else {
            return;
        };
        let root = held.root();
        let best = (0..self.units.len())
            .filter(|n| {
                let unit = &self.units[*n];
                unit.takes_jobs() && unit.computers.contains_key(&root) && !held.refused.contains_key(n)
            })
            .min_by_key(|&n| self.units[n].jobs.len());
        if let Some(n) = best {
            let unit = &mut self.units[n];
            held.at = Some((n, unit.life));
            unit.jobs.insert(job_id);
            let ordered = unit
                .computers
                .get(&root)
                .is_some_and(|computer| computer.order(job_id, held.job.clone()));
            if !ordered {
                self.fall(n, Fall::Other, "its computing thread has died");
            }
            return;
        }
        let hope = self
            .units
            .iter()
            .enumerate()
            .any(|(n, unit)| !held.refused.contains_key(&n) && unit.may_hold(&root));
        if hope {
            return;
        }
        if let Some(held) = self.jobs.remove(&job_id) {
            let why: Vec<&str> = held.refused.values().map(String::as_str).collect();
            let why = if why.is_empty() {
                "no device holds its model".to_owned()
            } else {
                why.join("; ")
            };
            self.tell(
                job_id,
                &held,
                Err(Failure::NoRoom(format!("job {job_id}: {why}")).into()),
            );
        }
    }

    /// The same for all that wait.
    fn dispatch_all(&mut self) {
        let waiting: Vec<U256> = self
            .jobs
            .iter()
            .filter(|(_, held)| held.at.is_none())
            .map(|(id, _)| *id)
            .collect();
        for job_id in waiting {
            self.dispatch(job_id);
        }
    }

    fn recall(&mut self, job_id: U256) {
        let Some(held) = self.jobs.get_mut(&job_id) else {
            return;
        };
        held.is_wanted = false;
        let root = held.root();
        match held.at {
            Some((n, _)) => {
                if let Some(computer) = self.units[n].computers.get(&root) {
                    computer.recall(job_id);
                }
            }
            None => {
                if let Some(held) = self.jobs.remove(&job_id) {
                    self.tell(job_id, &held, Err(Undone::Recalled));
                }
            }
        }
    }

    /// A device's thread is done with a job; what counts is only what the job's device says in its present life.
    fn done(&mut self, n: usize, life: u64, done: Computed) {
        let job_id = done.job_id;
        let Some(held) = self.jobs.get_mut(&job_id) else {
            return;
        };
        let unit = &mut self.units[n];
        if held.at != Some((n, life)) || unit.life != life {
            return;
        }
        match done.result {
            Err(Undone::Recalled) if held.is_wanted => {
                held.at = None;
                unit.jobs.remove(&job_id);
                self.dispatch(job_id);
            }
            Err(Undone::Failed(Failure::NoRoom(why))) if unit.place.is_gpu => {
                tracing::warn!(device = %unit.place, job = %job_id, "{why}");
                unit.faults.no_room += 1;
                unit.jobs.remove(&job_id);
                held.at = None;
                held.refused.insert(n, why);
                self.dispatch(job_id);
            }
            Err(Undone::Failed(failure)) if unit.place.is_gpu && failure.is_device() => {
                let words = failure.to_string();
                self.fall(n, Fall::from(&failure), &words);
            }
            result => {
                unit.jobs.remove(&job_id);
                let Some(held) = self.jobs.remove(&job_id) else {
                    return;
                };
                if let Ok(transcript) = &result {
                    unit.fails = 0;
                    self.sample(n, job_id, &held.job, transcript);
                }
                self.tell(job_id, &held, result);
            }
        }
    }

    /// A device failed: it is given up and tried again later, its jobs go to others at once.
    fn fall(&mut self, n: usize, fall: Fall, why: &str) {
        let unit = &mut self.units[n];
        unit.leave();
        let pause = self
            .gpus
            .retry_after
            .saturating_mul(1 << unit.fails.min(16))
            .min(self.gpus.retry_max);
        unit.fails += 1;
        match fall {
            Fall::Hung => unit.faults.hung += 1,
            Fall::Lost => unit.faults.lost += 1,
            Fall::Other => unit.faults.failed += 1,
        }
        let jobs = std::mem::take(&mut unit.jobs);
        tracing::error!(
            device = %unit.place, jobs = jobs.len(),
            "stopped: {why}; tried again in {} s, its jobs go to other devices", pause.as_secs()
        );
        unit.state = Life::Failed {
            why: why.to_owned(),
            again_at: Instant::now() + pause,
        };
        let place = unit.place.to_string();
        for job_id in jobs {
            let Some(held) = self.jobs.get_mut(&job_id) else {
                continue;
            };
            held.at = None;
            held.falls += 1;
            if !held.is_wanted {
                self.recall(job_id);
            } else if held.falls >= FALLS_MAX {
                let why = format!(
                    "{} devices failed under it, the last was {place}: {why}",
                    held.falls
                );
                if let Some(held) = self.jobs.remove(&job_id) {
                    self.tell(job_id, &held, Err(Failure::Device(why).into()));
                }
            } else {
                self.dispatch(job_id);
            }
        }
    }

    fn opened(&mut self, n: usize, life: u64, result: Result<Opened, Failure>) {
        let unit = &mut self.units[n];
        if unit.life != life {
            if let Ok(opened) = result {
                unit.discard(opened);
            }
            return;
        }
        let failed = match result {
            Ok(opened) => {
                for (root, why) in &opened.refused {
                    tracing::warn!(device = %unit.place, %root, "does not hold this model: {why}");
                }
                unit.is_open(opened);
                if unit.fails != 0 {
                    tracing::info!(device = %unit.place, "computes again");
                }
                None
            }
            Err(failure) => {
                self.fall(n, Fall::from(&failure), &failure.to_string());
                Some(failure)
            }
        };
        self.note_first(n, failed);
        self.dispatch_all();
    }

    /// Tells who waits for the start what the first opening brought, once all are through.
    fn note_first(&mut self, n: usize, failed: Option<Failure>) {
        let unit = &self.units[n];
        let Some((_, heard)) = &mut self.first else {
            return;
        };
        for (root, computer) in &unit.computers {
            let model = heard
                .held
                .entry(*root)
                .or_insert_with(|| (*computer.shape(), Vec::new()));
            model.1.push(computer.device().to_owned());
        }
        for (root, why) in &unit.refused {
            heard.refused.entry(*root).or_default().push(why.clone());
        }
        heard.failed.extend(failed);
        let is_opening = |u: &Unit| matches!(u.state, Life::Opening { .. });
        if !self.units.iter().any(is_opening)
            && let Some((first, heard)) = self.first.take()
        {
            // Whoever waits holds the fleet.
            let _ = first.send(heard);
        }
    }

    fn figures(&mut self, n: usize, figures: Option<Figures>) {
        let (stop_at, resume_at) = (self.gpus.stop_at, self.gpus.resume_at);
        let unit = &mut self.units[n];
        if figures.is_none() && unit.figures.is_some() {
            unit.faults.unread += 1;
        }
        unit.figures = figures.map(|f| (f, Instant::now()));
        let Some(degrees) = figures.and_then(|f| f.temperature) else {
            return;
        };
        if !unit.hot && degrees >= stop_at {
            tracing::warn!(
                device = %unit.place,
                "{degrees} degrees: stopped until it has cooled to {resume_at}; are its fans free, its room cool?"
            );
            unit.hot = true;
            unit.faults.hot += 1;
            unit.hold();
            self.move_jobs(n, false);
        } else if unit.hot && degrees <= resume_at {
            tracing::info!(device = %unit.place, "{degrees} degrees: goes on");
            unit.hot = false;
            unit.hold();
            self.dispatch_all();
        }
    }

    /// Hands a held device's jobs to others; what none can take stays and goes on with it, unless `all` must go.
    pub(super) fn move_jobs(&mut self, n: usize, all: bool) {
        let jobs: Vec<U256> = self.units[n].jobs.iter().copied().collect();
        for job_id in jobs {
            let Some(held) = self.jobs.get_mut(&job_id) else {
                continue;
            };
            let root = held.root();
            let others = self.units.iter().enumerate().any(|(m, unit)| {
                unit.takes_jobs() && unit.computers.contains_key(&root) && !held.refused.contains_key(&m)
            });
            if others || all {
                held.at = None;
                let unit = &mut self.units[n];
                unit.jobs.remove(&job_id);
                if let Some(computer) = unit.computers.get(&root) {
                    computer.recall(job_id);
                }
                self.dispatch(job_id);
            }
        }
    }

    /// What only the clock says: steps that take too long, figures that are old, pauses that are over.
    fn look(&mut self) {
        let hang_after = self.gpus.hang_after;
        for n in 0..self.units.len() {
            let unit = &mut self.units[n];
            let old = self.gpus.look_every * OLD_LOOKS;
            if unit.figures.as_ref().is_some_and(|(_, at)| at.elapsed() > old) {
                tracing::warn!(device = %unit.place, "its driver gives no figures any more");
                unit.figures = None;
                unit.faults.unread += 1;
            }
            let is_stuck = unit.is_stuck();
            match &unit.state {
                Life::Ready if unit.place.is_gpu => {
                    if let Some(took) = unit.in_step().filter(|took| *took > hang_after) {
                        let why = format!(
                            "hung: a step takes {} s already, longer than gpu.hang_after = {}",
                            took.as_secs(),
                            hang_after.as_secs()
                        );
                        self.fall(n, Fall::Hung, &why);
                    }
                }
                Life::Opening { since, .. }
                    if unit.place.is_gpu && since.elapsed() > hang_after * OPEN_STEPS =>
                {
                    let why = format!("hung: not opened in {} s", since.elapsed().as_secs());
                    self.fall(n, Fall::Hung, &why);
                    self.note_first(
                        n,
                        Some(Failure::Device(format!("{}: {why}", self.units[n].place))),
                    );
                }
                Life::Failed { again_at, .. } if *again_at <= Instant::now() && !is_stuck => {
                    unit.open(n, &self.to);
                }
                _ => {}
            }
        }
    }

    /// Shows everybody how things stand.
    fn publish(&self) {
        let readings: Vec<_> = self.units.iter().map(Unit::reading).collect();
        let waiting = self.jobs.iter().filter(|(_, held)| held.at.is_none());
        let why: Vec<String> = readings
            .iter()
            .filter_map(|r| match &r.state {
                State::Failed { why, .. } => Some(format!("{} failed: {why}", r.id)),
                State::Paused { reason } => Some(format!("{} is paused ({reason:?})", r.id)),
                _ => None,
            })
            .collect();
        let why = if why.is_empty() {
            "its device is being opened".to_owned()
        } else {
            why.join("; ")
        };
        let mut board = self.devices.board();
        board.faults = self.units.iter().map(|u| u.faults).collect();
        board.waiting = waiting.map(|(id, _)| (*id, why.clone())).collect();
        board.readings = readings;
    }
}
