//! The computing side of a neuron: one thread a model and device, which answers any number of jobs as one batch; an
//! encoder's one by one, since each is a single step.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use alloy_primitives::{B256, U256};
use bitai_kernels::{Device, Hash, KernelError, Trace};
use bitai_model::{
    engine::{Batch, EngineError, Event, JobId, Request},
    pack::Pack,
};
use bitai_poc::{Header, Transcript};
use bitai_types::{Job, ModelShape};

use crate::{
    engine::{Loaded, engine_failure, kernel_sampler},
    exit::Failure,
};

/// How often a thread that is held looks whether it may go on.
const HELD_LOOK: Duration = Duration::from_millis(20);

/// A job to be answered.
struct Order {
    job_id: U256,
    job: Job,
    since: Instant,
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
    pub took: Duration,
}

/// Why an order has no transcript.
#[derive(Debug)]
pub enum Undone {
    /// It was recalled before it was done.
    Recalled,
    /// It cannot be computed, or the device failed.
    Failed(Failure),
    /// There was one, and a check on the processor found it wrong; the words say whose it was.
    Wrong(String),
}

impl From<Failure> for Undone {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Who hears of results; called by the computing thread.
pub type Hear = Box<dyn Fn(Computed) + Send>;

/// What the neuron has to say to a thread that is computing, between two steps it looks here; and since when it is in one.
#[derive(Default)]
pub(crate) struct Word {
    stop: AtomicBool,
    hold: AtomicBool,
    recalled: Mutex<BTreeSet<U256>>,
    step: Mutex<Option<Instant>>,
}

/// What is whole whatever happened to its last user: every lock here guards such.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Word {
    /// Whether the neuron is ending: what is under way is left, its jobs are in the journal.
    pub(crate) fn stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn held(&self) -> bool {
        self.hold.load(Ordering::Relaxed)
    }

    fn recalled(&self) -> MutexGuard<'_, BTreeSet<U256>> {
        lock(&self.recalled)
    }

    /// Runs what the device is asked for, and lets everybody see since when.
    fn during<R>(&self, step: impl FnOnce() -> R) -> R {
        *lock(&self.step) = Some(Instant::now());
        let done = step();
        *lock(&self.step) = None;
        done
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

/// A model's thread on one device.
pub struct Computer {
    orders: Option<mpsc::Sender<Order>>,
    pub(crate) word: Arc<Word>,
    thread: Option<JoinHandle<()>>,
    device: String,
    shape: ModelShape,
}

impl Computer {
    /// Loads the pack onto the device and starts the thread; results go to `hear`.
    pub fn start(pack: &Pack, device: &dyn Device, hear: Hear) -> Result<Self, Failure> {
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
                    embed(loaded, &inbox, &heard, &hear);
                } else {
                    Work::new(&inbox, &heard, &hear).run(loaded);
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
        let since = Instant::now();
        self.orders
            .as_ref()
            .is_some_and(|orders| orders.send(Order { job_id, job, since }).is_ok())
    }

    /// Says that an ordered answer is of no use any more: it is handed back before it is begun, a decoder's also after.
    pub fn recall(&self, job_id: U256) {
        self.word.recalled().insert(job_id);
    }

    /// Takes a recall back; what was handed back meanwhile has to be ordered again.
    pub fn want(&self, job_id: U256) {
        self.word.recalled().remove(&job_id);
    }

    /// Holds the thread after its current step, or lets it go on.
    pub fn hold(&self, hold: bool) {
        self.word.hold.store(hold, Ordering::Relaxed);
    }

    /// How long its current step takes already.
    pub fn in_step(&self) -> Option<Duration> {
        lock(&self.word.step).map(|since| since.elapsed())
    }

    /// Tells the thread to end and waits for nothing: it may be stuck. Results that it still gives count no more.
    pub fn leave(mut self) -> Option<JoinHandle<()>> {
        self.word.stop.store(true, Ordering::Relaxed);
        self.orders = None;
        self.thread.take()
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

impl Order {
    fn ended(self, result: Result<Transcript, Undone>) -> Computed {
        Computed {
            job_hash: self.job.hash(),
            job_id: self.job_id,
            result,
            took: self.since.elapsed(),
        }
    }
}

/// The thread of an encoder.
fn embed(mut loaded: Loaded, inbox: &mpsc::Receiver<Order>, word: &Word, hear: &Hear) {
    while let Ok(order) = inbox.recv() {
        while word.held() && !word.stop() && !word.recalled().contains(&order.job_id) {
            std::thread::sleep(HELD_LOOK);
        }
        if word.stop() {
            return;
        }
        let result = if word.recalled().remove(&order.job_id) {
            Err(Undone::Recalled)
        } else {
            let run = word.during(|| loaded.answer(&order.job, &mut |_| ()));
            run.map(|run| run.transcript).map_err(Undone::Failed)
        };
        hear(order.ended(result));
    }
}

/// A job in the batch.
struct Running {
    order: Order,
    transcript: Shared,
}

/// The thread of a model that generates.
struct Work<'a> {
    inbox: &'a mpsc::Receiver<Order>,
    word: &'a Word,
    hear: &'a Hear,
    /// Orders without a place in the batch yet, first come first.
    waiting: VecDeque<Order>,
    running: BTreeMap<JobId, Running>,
    /// Jobs that fit side by side, once the device has said that more do not.
    most: usize,
}

fn is_full(e: &EngineError) -> bool {
    matches!(e, EngineError::Kernel(KernelError::OutOfMemory { .. }))
}

impl<'a> Work<'a> {
    fn new(inbox: &'a mpsc::Receiver<Order>, word: &'a Word, hear: &'a Hear) -> Self {
        Self {
            inbox,
            word,
            hear,
            waiting: VecDeque::new(),
            running: BTreeMap::new(),
            most: usize::MAX,
        }
    }

    fn run(mut self, mut loaded: Loaded) {
        let program = Arc::new(loaded.engine().program().clone());
        let mut batch = loaded.engine().batch();
        while self.listen() && !self.word.stop() {
            self.hand_back(&mut batch);
            if self.word.held() {
                std::thread::sleep(HELD_LOOK);
                continue;
            }
            self.fill(&mut batch, &program);
            let done = self.word.during(|| batch.step());
            match done {
                Ok(events) => self.finish(events),
                Err(e) if is_full(&e) && self.running.len() > 1 => self.shrink(&mut batch, &e),
                Err(e) => self.fail(&mut batch, e),
            }
            if self.running.is_empty() {
                self.most = usize::MAX;
            }
        }
    }

    /// Takes what was ordered; sleeps only while there is nothing to compute. `false` where no more will come.
    fn listen(&mut self) -> bool {
        if self.running.is_empty() && self.waiting.is_empty() {
            match self.inbox.recv() {
                Ok(order) => self.waiting.push_back(order),
                Err(_) => return false,
            }
        }
        loop {
            match self.inbox.try_recv() {
                Ok(order) => self.waiting.push_back(order),
                Err(mpsc::TryRecvError::Empty) => return true,
                Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Hands back what was recalled; its places go to others.
    fn hand_back(&mut self, batch: &mut Batch<'_>) {
        let mut recalled = self.word.recalled();
        if recalled.is_empty() {
            return;
        }
        let mut back = Vec::new();
        let ids: Vec<JobId> = self
            .running
            .iter()
            .filter(|(_, r)| recalled.remove(&r.order.job_id))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            batch.cancel(id);
            back.extend(self.running.remove(&id).map(|r| r.order));
        }
        for order in std::mem::take(&mut self.waiting) {
            if recalled.remove(&order.job_id) {
                back.push(order);
            } else {
                self.waiting.push_back(order);
            }
        }
        drop(recalled);
        for order in back {
            (self.hear)(order.ended(Err(Undone::Recalled)));
        }
    }

    /// Gives orders a place in the batch, as many as there is room for.
    fn fill(&mut self, batch: &mut Batch<'_>, program: &bitai_kernels::Program) {
        while self.running.len() < self.most
            && let Some(order) = self.waiting.pop_front()
        {
            let job = &order.job;
            let transcript = Shared(Arc::new(Mutex::new(Transcript::new(Header::new(job, program)))));
            let request = Request {
                input_ids: job.input_ids.clone(),
                max_new: job.max_new,
                stop_ids: job.stop_ids.clone(),
                sampler: kernel_sampler(job),
            };
            let joined = self
                .word
                .during(|| batch.join(request, Box::new(transcript.clone())));
            match joined {
                Ok(id) => {
                    self.running.insert(id, Running { order, transcript });
                }
                // It waits until one of them is done.
                Err(e) if is_full(&e) && !self.running.is_empty() => {
                    self.waiting.push_front(order);
                    return;
                }
                Err(e) => (self.hear)(order.ended(Err(engine_failure(e).into()))),
            }
        }
    }

    fn finish(&mut self, events: Vec<Event>) {
        for event in events {
            let Event::Done(id, _) = event else { continue };
            let Some(r) = self.running.remove(&id) else {
                continue;
            };
            let transcript = r.transcript.with(|t| t.clone());
            (self.hear)(r.order.ended(Ok(transcript)));
        }
    }

    /// The device has no memory for so many: the younger half begins again when the others are done.
    fn shrink(&mut self, batch: &mut Batch<'_>, why: &EngineError) {
        self.most = (self.running.len() / 2).max(1);
        tracing::warn!(
            jobs = self.most,
            "{why}; fewer jobs side by side until these are done"
        );
        while self.running.len() > self.most
            && let Some((id, r)) = self.running.pop_last()
        {
            batch.cancel(id);
            self.waiting.push_front(r.order);
        }
    }

    /// The device failed under all of them; each is told, and may be ordered again.
    fn fail(&mut self, batch: &mut Batch<'_>, e: EngineError) {
        let failure = engine_failure(e);
        for (id, r) in std::mem::take(&mut self.running) {
            batch.cancel(id);
            (self.hear)(r.order.ended(Err(again(&failure).into())));
        }
    }
}

/// The same words for another job.
fn again(failure: &Failure) -> Failure {
    match failure {
        Failure::NoRoom(why) => Failure::NoRoom(why.clone()),
        Failure::Lost(why) => Failure::Lost(why.clone()),
        Failure::Device(why) => Failure::Device(why.clone()),
        other => Failure::Device(other.to_string()),
    }
}
