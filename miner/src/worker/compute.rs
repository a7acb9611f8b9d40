//! The computing side of a neuron: one thread a model, which answers any number of jobs as one batch; an encoder's
//! one by one, since each is a single step.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Instant,
};

use alloy_primitives::{B256, U256};
use bitai_kernels::{Device, Hash, Trace};
use bitai_model::{
    engine::{Event, JobId, Request},
    pack::Pack,
};
use bitai_poc::{Header, Transcript};
use bitai_types::{Job, ModelShape};
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    engine::{Loaded, engine_failure, kernel_sampler},
    exit::Failure,
};

/// A job to be answered.
struct Order {
    job_id: U256,
    job: Job,
}

/// A job's end on the device.
#[derive(Debug)]
pub struct Computed {
    /// The job's number.
    pub job_id: U256,
    /// Hash of the job that was answered.
    pub job_hash: B256,
    /// Its transcript, or why there is none.
    pub result: Result<Transcript, Undone>,
    /// Wall time from the order to the end, in company of other jobs.
    pub took: std::time::Duration,
}

/// Why an order has no transcript.
#[derive(Debug)]
pub enum Undone {
    /// It was recalled before it was done.
    Recalled,
    /// It cannot be computed, or the device failed.
    Failed(Failure),
}

impl From<Failure> for Undone {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// What the neuron has to say to a thread that is computing: between two steps it looks here.
#[derive(Default)]
pub(super) struct Word {
    stop: AtomicBool,
    recalled: Mutex<BTreeSet<U256>>,
}

impl Word {
    /// Whether the neuron is ending: what is under way is left, its jobs are in the journal.
    pub(super) fn stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn recalled(&self) -> MutexGuard<'_, BTreeSet<U256>> {
        // A set of numbers is whole whatever happened to its last user.
        self.recalled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transcript that a batch writes to and the thread takes back at the end.
#[derive(Clone)]
struct Shared(Arc<Mutex<Transcript>>);

impl Shared {
    fn with<R>(&self, f: impl FnOnce(&mut Transcript) -> R) -> R {
        f(&mut self
            .0
            .lock()
            .expect("one thread uses it, and writing a transcript does not panic"))
    }
}

impl Trace for Shared {
    fn bodies(&mut self, first: u32, bodies: &[Hash]) {
        self.with(|t| t.bodies(first, bodies));
    }

    fn sampled(&mut self, pos: u32, token: u32) {
        self.with(|t| t.sampled(pos, token));
    }
}

/// A model's thread.
pub struct Computer {
    orders: Option<mpsc::Sender<Order>>,
    pub(super) word: Arc<Word>,
    thread: Option<JoinHandle<()>>,
    device: String,
    shape: ModelShape,
}

impl Computer {
    /// Loads the pack onto the device and starts the thread; results go to `done`.
    pub fn start(pack: &Pack, device: &dyn Device, done: UnboundedSender<Computed>) -> Result<Self, Failure> {
        let loaded = Loaded::on(pack, device)?;
        let name = loaded.info.name.clone();
        let shape = loaded.shape();
        let (orders, inbox) = mpsc::channel();
        let word = Arc::new(Word::default());
        let heard = Arc::clone(&word);
        let thread = std::thread::Builder::new()
            .name("compute".into())
            .spawn(move || {
                if loaded.shape().embeds() {
                    embed(loaded, &inbox, &heard, &done);
                } else {
                    work(loaded, &inbox, &heard, &done);
                }
            })
            .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("starting the computing thread")))?;
        Ok(Self {
            orders: Some(orders),
            word,
            thread: Some(thread),
            device: name,
            shape,
        })
    }

    /// The device's name.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// The model's public numbers, as its program has them.
    pub fn shape(&self) -> &ModelShape {
        &self.shape
    }

    /// Orders an answer; `false` where the thread has died.
    pub fn order(&self, job_id: U256, job: Job) -> bool {
        self.want(job_id);
        self.orders
            .as_ref()
            .is_some_and(|orders| orders.send(Order { job_id, job }).is_ok())
    }

    /// Says that an ordered answer is of no use any more: it is handed back before it is begun, a decoder's also after.
    pub fn recall(&self, job_id: U256) {
        self.word.recalled().insert(job_id);
    }

    /// Takes a recall back; what was handed back meanwhile has to be ordered again.
    pub fn want(&self, job_id: U256) {
        self.word.recalled().remove(&job_id);
    }
}

impl Drop for Computer {
    fn drop(&mut self) {
        // The thread ends after its current step, an idle one because its inbox closes.
        self.word.stop.store(true, Ordering::Relaxed);
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by its own message.
            let _ = thread.join();
        }
    }
}

struct Running {
    job_id: U256,
    job_hash: B256,
    transcript: Shared,
    since: Instant,
}

impl Running {
    fn ended(self, result: Result<Transcript, Undone>) -> Computed {
        Computed {
            job_id: self.job_id,
            job_hash: self.job_hash,
            result,
            took: self.since.elapsed(),
        }
    }
}

/// The thread of an encoder.
fn embed(mut loaded: Loaded, inbox: &mpsc::Receiver<Order>, word: &Word, done: &UnboundedSender<Computed>) {
    while let Ok(Order { job_id, job }) = inbox.recv() {
        if word.stop() {
            return;
        }
        let since = Instant::now();
        let result = if word.recalled().remove(&job_id) {
            Err(Undone::Recalled)
        } else {
            let run = loaded.answer(&job, &mut |_| ());
            run.map(|run| run.transcript).map_err(Undone::Failed)
        };
        // Nobody listens any more: the neuron is ending.
        let _ = done.send(Computed {
            job_id,
            job_hash: job.hash(),
            result,
            took: since.elapsed(),
        });
    }
}

/// The thread of a model that generates.
fn work(mut loaded: Loaded, inbox: &mpsc::Receiver<Order>, word: &Word, done: &UnboundedSender<Computed>) {
    let program = Arc::new(loaded.engine().program().clone());
    let mut batch = loaded.engine().batch();
    let mut running = std::collections::BTreeMap::new();
    loop {
        if word.stop() {
            return;
        }
        // Sleeps only while there is nothing to compute.
        let order = if running.is_empty() {
            match inbox.recv() {
                Ok(order) => Some(order),
                Err(_) => return,
            }
        } else {
            match inbox.try_recv() {
                Ok(order) => Some(order),
                Err(mpsc::TryRecvError::Empty) => None,
                Err(mpsc::TryRecvError::Disconnected) => return,
            }
        };
        if let Some(Order { job_id, job }) = order {
            let since = Instant::now();
            let job_hash = job.hash();
            let transcript = Shared(Arc::new(Mutex::new(Transcript::new(Header::new(&job, &program)))));
            let request = Request {
                input_ids: job.input_ids.clone(),
                max_new: job.max_new,
                stop_ids: job.stop_ids.clone(),
                sampler: kernel_sampler(&job),
            };
            match batch.join(request, Box::new(transcript.clone())) {
                Ok(id) => {
                    running.insert(
                        id,
                        Running {
                            job_id,
                            job_hash,
                            transcript,
                            since,
                        },
                    );
                }
                Err(e) => {
                    let result = Err(engine_failure(e).into());
                    // Nobody listens any more: the neuron is ending.
                    let _ = done.send(Computed {
                        job_id,
                        job_hash,
                        result,
                        took: since.elapsed(),
                    });
                }
            }
            continue;
        }
        // Their places in the batch go to others.
        let recalled: Vec<JobId> = {
            let mut recalled = word.recalled();
            let ids = running.iter().filter(|(_, r)| recalled.remove(&r.job_id));
            ids.map(|(id, _)| *id).collect()
        };
        for id in recalled {
            batch.cancel(id);
            let Some(r) = running.remove(&id) else { continue };
            let _ = done.send(r.ended(Err(Undone::Recalled)));
        }
        match batch.step() {
            Ok(events) => {
                for event in events {
                    let Event::Done(id, _) = event else { continue };
                    let Some(r) = running.remove(&id) else { continue };
                    let transcript = r.transcript.with(|t| t.clone());
                    let _ = done.send(r.ended(Ok(transcript)));
                }
            }
            Err(e) => {
                // The device failed under all of them; each is told, and may be ordered again.
                let words = e.to_string();
                for (id, r) in std::mem::take(&mut running) {
                    batch.cancel(id);
                    let _ = done.send(r.ended(Err(Failure::Device(words.clone()).into())));
                }
            }
        }
    }
}
