//! One device of a fleet: opened and loaded in a thread of its own, since either may take minutes or hang; given up and
//! opened anew when it fails.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use alloy_primitives::{B256, U256};
use bitai_model::pack::Pack;

use super::{Computer, Faults, Figures, Pause, Place, Reading, State, fleet::Msg};
use crate::exit::Failure;

/// Where a device stands.
pub(super) enum Life {
    /// It is being opened and its models loaded; after a failure of which this was said.
    Opening { since: Instant, after: Option<String> },
    /// It computes.
    Ready,
    /// It failed.
    Failed { why: String, again_at: Instant },
}

/// How a device failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fall {
    /// A step took too long.
    Hung,
    /// Its driver lost it.
    Lost,
    /// Anything else.
    Other,
}

impl From<&Failure> for Fall {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::Lost(_) => Self::Lost,
            _ => Self::Other,
        }
    }
}

/// What opening a device brought: the models that it holds, and those that it refused, with the numbers.
pub(super) struct Opened {
    pub(super) computers: BTreeMap<B256, Computer>,
    pub(super) refused: Vec<(B256, String)>,
}

/// A device.
pub(super) struct Unit {
    pub(super) place: Place,
    /// Degrees at which it stops, and goes on.
    limits: (u32, u32),
    /// Counts its openings; what an earlier life still says counts no more.
    pub(super) life: u64,
    pub(super) state: Life,
    /// Models to load, in this order.
    packs: Vec<Pack>,
    pub(super) computers: BTreeMap<B256, Computer>,
    /// Models that it refused when it was opened last.
    pub(super) refused: BTreeMap<B256, String>,
    /// Jobs that it has.
    pub(super) jobs: BTreeSet<U256>,
    /// Paused by its owner.
    pub(super) asked: Option<String>,
    /// Too hot.
    pub(super) hot: bool,
    /// It computed this job wrongly.
    pub(super) wrong: Option<String>,
    /// What its driver said last, and when.
    pub(super) figures: Option<(Figures, Instant)>,
    /// Failures in a row.
    pub(super) fails: u32,
    pub(super) faults: Faults,
    /// Per cent of results that are due to be checked.
    pub(super) due: u32,
    /// Threads of earlier lives; it is opened anew when they have ended.
    old: Vec<JoinHandle<()>>,
}

impl Unit {
    pub(super) fn new(place: Place, packs: Vec<Pack>, limits: (u32, u32)) -> Self {
        Self {
            place,
            limits,
            life: 0,
            state: Life::Opening {
                since: Instant::now(),
                after: None,
            },
            packs,
            computers: BTreeMap::new(),
            refused: BTreeMap::new(),
            jobs: BTreeSet::new(),
            asked: None,
            hot: false,
            wrong: None,
            figures: None,
            fails: 0,
            faults: Faults::default(),
            // The first result is checked.
            due: 100,
            old: Vec::new(),
        }
    }

    /// Opens it in a thread of its own, which tells the fleet what came of it.
    pub(super) fn open(&mut self, number: usize, fleet: &mpsc::Sender<Msg>) {
        self.life += 1;
        let after = match &mut self.state {
            Life::Failed { why, .. } => Some(std::mem::take(why)),
            _ => None,
        };
        self.state = Life::Opening {
            since: Instant::now(),
            after,
        };
        let (place, packs, life, fleet) = (self.place.clone(), self.packs.clone(), self.life, fleet.clone());
        let opened = std::thread::Builder::new().name("open".into()).spawn(move || {
            let result = load(&place, &packs, number, life, &fleet);
            // A fleet that has ended wants nothing any more.
            let _ = fleet.send(Msg::Opened { number, life, result });
        });
        match opened {
            Ok(thread) => self.old.push(thread),
            Err(e) => {
                self.state = Life::Failed {
                    why: format!("starting a thread: {e}"),
                    again_at: Instant::now() + Duration::from_secs(1),
                }
            }
        }
    }

    /// Does not wait any longer where it failed.
    pub(super) fn try_now(&mut self) {
        if let Life::Failed { again_at, .. } = &mut self.state {
            *again_at = Instant::now();
        }
    }

    /// Whether threads of an earlier life still run.
    pub(super) fn is_stuck(&mut self) -> bool {
        self.old.retain(|thread| !thread.is_finished());
        !self.old.is_empty()
    }

    /// Gives its models up without waiting for anything.
    pub(super) fn leave(&mut self) {
        self.life += 1;
        let computers = std::mem::take(&mut self.computers);
        self.old
            .extend(computers.into_values().filter_map(Computer::leave));
    }

    /// Whether it has this model, or will have it when it is opened again.
    pub(super) fn may_hold(&self, root: &B256) -> bool {
        self.packs.iter().any(|pack| B256::from(pack.root()) == *root) && !self.refused.contains_key(root)
    }

    /// Takes in what opening it brought.
    pub(super) fn is_open(&mut self, opened: Opened) {
        self.refused = opened.refused.into_iter().collect();
        self.computers = opened.computers;
        self.state = Life::Ready;
        self.hold();
    }

    /// Gives up what an earlier life opened.
    pub(super) fn discard(&mut self, opened: Opened) {
        let left = opened.computers.into_values().filter_map(Computer::leave);
        self.old.extend(left);
    }

    /// Ends: waits for its threads as long as they are not stuck. `false` where one is left behind.
    pub(super) fn end(&mut self, patience: Duration) -> bool {
        self.leave();
        let since = Instant::now();
        while self.is_stuck() {
            if self.place.is_gpu && since.elapsed() > patience {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Whether it may be given jobs.
    pub(super) fn takes_jobs(&self) -> bool {
        matches!(self.state, Life::Ready) && self.pause().is_none()
    }

    /// Why it takes no jobs though it is well.
    pub(super) fn pause(&self) -> Option<Pause> {
        if let Some(job) = &self.wrong {
            return Some(Pause::Wrong { job: job.clone() });
        }
        if self.hot {
            let (at, resume) = self.limits;
            return Some(Pause::Hot { at, resume });
        }
        let words = self.asked.clone()?;
        Some(Pause::Asked { words })
    }

    /// Holds its threads where it must not compute, and lets them go on where it may.
    pub(super) fn hold(&self) {
        for computer in self.computers.values() {
            computer.hold(self.hot || self.wrong.is_some());
        }
    }

    /// Longest current step of its threads.
    pub(super) fn in_step(&self) -> Option<Duration> {
        self.computers.values().filter_map(Computer::in_step).max()
    }

    /// As its owner sees it.
    pub(super) fn reading(&self) -> Reading {
        let state = match (&self.state, self.pause()) {
            (Life::Failed { why, again_at }, _) => State::Failed {
                why: why.clone(),
                again_in: again_at.saturating_duration_since(Instant::now()).as_secs(),
            },
            (Life::Opening { after: Some(why), .. }, _) => State::Failed {
                why: why.clone(),
                again_in: 0,
            },
            (_, Some(reason)) => State::Paused { reason },
            (Life::Ready, None) if !self.jobs.is_empty() => State::Working,
            _ => State::Idle,
        };
        let mut reading = Reading {
            id: self.place.id.clone(),
            name: self.place.name.clone(),
            index: self.place.index,
            state,
            memory_used: None,
            memory_total: self.place.memory,
            milliwatts: None,
            limit_milliwatts: None,
            temperature: None,
            busy_percent: None,
            core_mhz: None,
            memory_mhz: None,
            fan_percent: None,
        };
        if let Some((figures, _)) = &self.figures {
            figures.put(&mut reading);
        }
        reading
    }
}

/// Opens a device and loads what fits.
fn load(
    place: &Place,
    packs: &[Pack],
    number: usize,
    life: u64,
    fleet: &mpsc::Sender<Msg>,
) -> Result<Opened, Failure> {
    let device = (place.open)()?;
    let mut opened = Opened {
        computers: BTreeMap::new(),
        refused: Vec::new(),
    };
    for pack in packs {
        let root = B256::from(pack.root());
        let fleet = fleet.clone();
        let hear = Box::new(move |done| {
            // Nobody listens any more: the neuron is ending.
            let _ = fleet.send(Msg::Done { number, life, done });
        });
        match Computer::start(pack, device.as_ref(), hear) {
            Ok(computer) => {
                opened.computers.insert(root, computer);
            }
            Err(Failure::NoRoom(why)) => opened.refused.push((root, why)),
            Err(failure) => return Err(failure),
        }
    }
    Ok(opened)
}
