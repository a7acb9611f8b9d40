//! A neuron's devices as one: ordered from, told to stop. What it does is decided by one thread, the [`Crew`].

use std::{collections::BTreeMap, sync::mpsc, thread::JoinHandle};

use alloy_primitives::{B256, U256};
use bitai_model::pack::Pack;
use bitai_types::{Job, ModelShape};
use tokio::sync::mpsc::UnboundedSender;

use super::{Computed, Devices, Figures, Health, Place, crew::Crew, unit::Opened};
use crate::exit::Failure;

/// What the deciding thread hears.
pub(super) enum Msg {
    /// A job is wanted.
    Order { job_id: U256, job: Job },
    /// A job is of no use any more.
    Recall { job_id: U256 },
    /// It is, after all.
    Want { job_id: U256 },
    /// A device's thread is done with a job.
    Done {
        number: usize,
        life: u64,
        done: Computed,
    },
    /// A device was opened.
    Opened {
        number: usize,
        life: u64,
        result: Result<Opened, Failure>,
    },
    /// What a device's driver says; `None` where it says nothing any more.
    Figures { number: usize, figures: Option<Figures> },
    /// A result was computed again.
    Checked {
        number: usize,
        job_id: U256,
        job_hash: B256,
        verdict: Result<Option<String>, Failure>,
    },
    /// The owner pauses a device, or all.
    Pause { id: Option<String>, words: String },
    /// The owner lets a device go on, or all.
    Resume { id: Option<String> },
    /// Whoever waits wants to know that all before this was heard.
    #[cfg(test)]
    Heard(mpsc::Sender<()>),
    /// The neuron ends.
    Stop,
}

impl std::fmt::Debug for Msg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a message to the fleet")
    }
}

/// What a fleet is made of.
pub struct Start<'a> {
    /// Its devices, in the order of their numbers.
    pub places: Vec<Place>,
    /// Models to hold.
    pub packs: Vec<Pack>,
    /// Where it is seen.
    pub devices: &'a Devices,
    /// Where the GPUs' figures come from.
    pub health: Option<Box<dyn Health>>,
    /// Threads for checking results.
    pub threads: usize,
    /// Where results go.
    pub done: UnboundedSender<Computed>,
}

/// What the first opening of all devices brought.
#[derive(Default)]
pub(super) struct First {
    pub(super) held: BTreeMap<B256, (ModelShape, Vec<String>)>,
    pub(super) refused: BTreeMap<B256, Vec<String>>,
    pub(super) failed: Vec<Failure>,
}

/// A neuron's devices at work; they stop when this is dropped.
pub struct Fleet {
    to: mpsc::Sender<Msg>,
    models: BTreeMap<B256, (ModelShape, Vec<String>)>,
    refused: BTreeMap<B256, String>,
    thread: Option<JoinHandle<()>>,
    devices: Devices,
}

impl Fleet {
    /// Opens the devices side by side and loads the models; fails where no device can be used.
    pub fn start(start: Start<'_>) -> Result<Self, Failure> {
        let (to, inbox) = mpsc::channel();
        let (first, is_open) = mpsc::channel();
        let devices = start.devices.clone();
        let packs: Vec<B256> = start.packs.iter().map(|p| B256::from(p.root())).collect();
        let mut crew = Crew::new(start, to.clone(), first)?;
        devices.board().fleet = Some(to.clone());
        let thread = std::thread::Builder::new()
            .name("devices".into())
            .spawn(move || crew.run(&inbox))
            .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("starting the devices' thread")))?;
        let mut fleet = Self {
            to,
            models: BTreeMap::new(),
            refused: BTreeMap::new(),
            thread: Some(thread),
            devices,
        };
        let mut first: First = is_open
            .recv()
            .map_err(|_| Failure::Internal(anyhow::anyhow!("the devices' thread has died")))?;
        for root in packs.iter().filter(|root| !first.held.contains_key(*root)) {
            let why = first.refused.remove(root).unwrap_or_default();
            fleet.refused.insert(*root, why.join("; "));
        }
        fleet.models = first.held;
        if fleet.models.is_empty() && !packs.is_empty() && !first.failed.is_empty() {
            return Err(first.failed.swap_remove(0));
        }
        Ok(fleet)
    }

    /// The public numbers of a model that a device holds.
    pub fn shape(&self, root: &B256) -> Option<&ModelShape> {
        self.models.get(root).map(|(shape, _)| shape)
    }

    /// The devices that held a model when they were opened first.
    pub fn holders(&self, root: &B256) -> Vec<String> {
        self.models
            .get(root)
            .map(|(_, names)| names.clone())
            .unwrap_or_default()
    }

    /// Why no device holds a model: what each said.
    pub fn refusal(&self, root: &B256) -> Option<&str> {
        self.refused.get(root).map(String::as_str)
    }

    /// Orders an answer; `false` where the deciding thread has died.
    pub fn order(&self, job_id: U256, job: Job) -> bool {
        self.to.send(Msg::Order { job_id, job }).is_ok()
    }

    /// Says that an ordered answer is of no use any more: it is handed back.
    pub fn recall(&self, job_id: U256) {
        // A fleet that has ended computes nothing.
        let _ = self.to.send(Msg::Recall { job_id });
    }

    /// Takes a recall back; what was handed back meanwhile has to be ordered again.
    pub fn want(&self, job_id: U256) {
        // As above.
        let _ = self.to.send(Msg::Want { job_id });
    }

    /// Why no device computes a job that was ordered.
    pub fn waiting(&self, job_id: &U256) -> Option<String> {
        self.devices.waiting(job_id)
    }

    /// Returns when everything said before has been heard.
    #[cfg(test)]
    pub(crate) fn heard(&self) {
        let (to, heard) = mpsc::channel();
        self.to.send(Msg::Heard(to)).unwrap();
        heard.recv().unwrap();
    }

    /// A fleet without devices.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self {
            to: mpsc::channel().0,
            models: BTreeMap::new(),
            refused: BTreeMap::new(),
            thread: None,
            devices: Devices::default(),
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.to.send(Msg::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by its own message.
            let _ = thread.join();
        }
        *self.devices.board() = Default::default();
    }
}
