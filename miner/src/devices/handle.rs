//! What everybody else sees of a fleet: readings, counts, and the owner's pause. It outlives the fleet and is there
//! before it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
};

use alloy_primitives::U256;

use super::{Faults, Gpus, Reading, fleet::Msg};

/// A device that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no device {id} here; there are: {have}")]
pub struct Unknown {
    /// The name given.
    pub id: String,
    /// The names there are.
    pub have: String,
}

/// What is published after each change.
#[derive(Debug, Default)]
pub(super) struct Board {
    pub(super) readings: Vec<Reading>,
    pub(super) faults: Vec<Faults>,
    /// Jobs that no device computes now, and why.
    pub(super) waiting: BTreeMap<U256, String>,
    /// The fleet, while it is there.
    pub(super) fleet: Option<mpsc::Sender<Msg>>,
}

/// A neuron's devices; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Devices {
    gpus: Arc<Gpus>,
    board: Arc<Mutex<Board>>,
}

impl Devices {
    /// No devices yet; a fleet that is started with this puts its own in.
    pub fn new(gpus: Gpus) -> Self {
        Self {
            gpus: Arc::new(gpus),
            board: Arc::default(),
        }
    }

    /// How GPUs are used.
    pub fn settings(&self) -> &Gpus {
        &self.gpus
    }

    pub(super) fn board(&self) -> MutexGuard<'_, Board> {
        // It is replaced whole, field by field.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each device as it is now, in the order of their numbers; empty before the neuron has opened them.
    pub fn readings(&self) -> Vec<Reading> {
        self.board().readings.clone()
    }

    /// What went wrong with each device since the start, by its id, in the same order.
    pub fn faults(&self) -> Vec<(String, Faults)> {
        let board = self.board();
        let ids = board.readings.iter().map(|r| r.id.clone());
        ids.zip(board.faults.iter().copied()).collect()
    }

    /// Why no device computes a job that was ordered; `None` where one does, or nobody ordered it.
    pub fn waiting(&self, job_id: &U256) -> Option<String> {
        self.board().waiting.get(job_id).cloned()
    }

    /// Gives a device no more jobs, for the owner's reason; what it computes is finished. `all` names all.
    pub fn pause(&self, id: &str, words: &str) -> Result<(), Unknown> {
        let words = words.to_owned();
        self.tell(id, |id| Msg::Pause { id, words })
    }

    /// Lets a device go on, whatever it was paused for. `all` names all.
    pub fn resume(&self, id: &str) -> Result<(), Unknown> {
        self.tell(id, |id| Msg::Resume { id })
    }

    fn tell(&self, id: &str, msg: impl FnOnce(Option<String>) -> Msg) -> Result<(), Unknown> {
        let board = self.board();
        let known = id == "all" || board.readings.iter().any(|r| r.id == id);
        match &board.fleet {
            Some(fleet) if known => {
                // It ends at this moment: nothing is left to pause.
                let _ = fleet.send(msg((id != "all").then(|| id.to_owned())));
                Ok(())
            }
            _ => Err(Unknown {
                id: id.to_owned(),
                have: board
                    .readings
                    .iter()
                    .map(|r| r.id.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }
}
