//! A neuron on a device that fails, or takes its time: what it computes again, leaves, and never begins.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use alloy_primitives::{B256, U256};
use bitai_contracts::{JobStatus, SlotState};
use bitai_kernels::{
    Device, DeviceInfo, Hash, HostTensor, KernelError, Probe, Program, ReferenceDevice, Runner, SeqId,
    SeqStep, Trace,
};
use bitai_model::{
    pack::Pack,
    synthetic::{self, Shape, encoder},
};
use bitai_poc::{Header, Transcript};
use bitai_types::Job;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{Stage, job};
use crate::{
    devices::{Computed, Computer, Devices, Fleet, Place, Start, Undone},
    journal::{Signed, Step},
    worker::{RETRY_AFTER, submit::Standing},
};

/// What a device does before each step.
trait Hook: Send + Sync + 'static {
    fn before(&self) -> Result<(), KernelError>;
}

/// The reference device behind a hook.
struct Hooked<H>(Arc<H>);

struct HookedRunner<H> {
    inner: Box<dyn Runner>,
    hook: Arc<H>,
}

impl<H: Hook> Device for Hooked<H> {
    fn info(&self) -> DeviceInfo {
        ReferenceDevice.info()
    }

    fn load(&self, program: Arc<Program>, tensors: &[HostTensor]) -> Result<Box<dyn Runner>, KernelError> {
        Ok(Box::new(HookedRunner {
            inner: ReferenceDevice.load(program, tensors)?,
            hook: Arc::clone(&self.0),
        }))
    }
}

impl<H: Hook> Runner for HookedRunner<H> {
    fn program(&self) -> &Program {
        self.inner.program()
    }

    fn open(&mut self, max_tokens: u32) -> Result<SeqId, KernelError> {
        self.inner.open(max_tokens)
    }

    fn close(&mut self, seq: SeqId) {
        self.inner.close(seq);
    }

    fn len(&self, seq: SeqId) -> Result<u32, KernelError> {
        self.inner.len(seq)
    }

    fn step(
        &mut self,
        batch: &[SeqStep<'_>],
        probe: Option<&mut dyn Probe>,
    ) -> Result<Vec<Vec<u32>>, KernelError> {
        self.hook.before()?;
        self.inner.step(batch, probe)
    }

    fn hash(&mut self, seq: SeqId) -> Result<(), KernelError> {
        self.inner.hash(seq)
    }

    fn take_bodies(&mut self, seq: SeqId, wait: bool) -> Result<(u32, Vec<Hash>), KernelError> {
        self.inner.take_bodies(seq, wait)
    }
}

/// Steps fail until the count is used up.
struct Flaky(AtomicU32);

impl Hook for Flaky {
    fn before(&self) -> Result<(), KernelError> {
        let used = |left: u32| left.checked_sub(1);
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, used) {
            Ok(_) => Err(KernelError::Device {
                device: "flaky".into(),
                why: "the bus fell silent".into(),
            }),
            Err(_) => Ok(()),
        }
    }
}

/// Steps wait until they are let through.
#[derive(Default)]
struct Gate {
    /// Steps begun, steps let through.
    counts: Mutex<(u32, u32)>,
    moved: Condvar,
}

impl Gate {
    fn open(&self, steps: u32) {
        self.counts.lock().unwrap().1 += steps;
        self.moved.notify_all();
    }

    fn begun(&self) -> u32 {
        self.counts.lock().unwrap().0
    }

    /// Returns when so many steps have been begun.
    fn until(&self, steps: u32) {
        let counts = self.counts.lock().unwrap();
        drop(self.moved.wait_while(counts, |c| c.0 < steps).unwrap());
    }
}

impl Hook for Gate {
    fn before(&self) -> Result<(), KernelError> {
        let mut counts = self.counts.lock().unwrap();
        counts.0 += 1;
        let mine = counts.0;
        self.moved.notify_all();
        drop(self.moved.wait_while(counts, |c| c.1 < mine).unwrap());
        Ok(())
    }
}

fn committing(height: u64) -> Standing {
    Standing {
        status: JobStatus::Committing,
        slot: SlotState::Assigned,
        drawn: false,
        height,
        deadline: 10,
        disputes: 0,
    }
}

impl Stage {
    /// The job is one for this pack, which the neuron serves on the device.
    async fn on(pack: &Pack, job: Job, device: Arc<dyn Device>) -> Self {
        let mut s = Self::new(job).await;
        let (done, results) = unbounded_channel();
        s.neuron.fleet = Fleet::start(Start {
            places: vec![Place {
                id: "cpu".into(),
                name: "a processor".into(),
                index: None,
                memory: None,
                is_gpu: false,
                open: Arc::new(move || Ok(Arc::clone(&device))),
            }],
            packs: vec![pack.clone()],
            devices: &Devices::default(),
            health: None,
            threads: 1,
            done,
        })
        .unwrap();
        s.neuron.results = results;
        s
    }

    async fn flaky(fails: u32) -> Self {
        let pack = synthetic::pack(&Shape::tiny(), 7).unwrap();
        let device = Arc::new(Hooked(Arc::new(Flaky(fails.into()))));
        Self::on(&pack, job(pack.root().into()), device).await
    }

    fn order(&mut self) {
        let job = self.entry().job;
        self.neuron.compute(U256::ONE, &job, 10).unwrap();
    }

    /// Orders the job and takes what comes of it.
    async fn compute(&mut self) {
        self.order();
        let done = self.neuron.results.recv().await.unwrap();
        self.neuron.take(done).unwrap();
    }

    fn too_late(&mut self, height: u64) {
        self.neuron
            .leave_if_too_late(U256::ONE, committing(height))
            .unwrap();
    }
}

#[tokio::test]
async fn a_job_is_tried_again_after_a_device_failed() {
    let mut s = Stage::flaky(1).await;
    s.compute().await;
    let entry = s.entry();
    assert!(entry.answer.is_none() && entry.closed.is_none(), "{entry:?}");
    // Not at once: nothing is ordered during the pause.
    s.order();
    assert!(s.neuron.computing.is_empty());
    s.too_late(9);
    assert!(s.entry().closed.is_none(), "there is time");
    tokio::time::sleep(RETRY_AFTER).await;
    s.compute().await;
    assert_eq!(s.entry().answer.unwrap().output_ids.len(), 2);
    assert!(s.neuron.faults.is_empty());
}

#[tokio::test]
async fn rejects_an_answer_that_the_hub_would_refuse() {
    let mut s = Stage::flaky(0).await;
    let job = s.entry().job;
    assert!(job.max_new > 1 && job.stop_ids.is_empty());
    let program = synthetic::pack(&Shape::tiny(), 7).unwrap().program();
    let mut transcript = Transcript::new(Header::new(&job, &program));
    let positions = job.input_ids.len() as u32;
    transcript.bodies(0, &vec![[1; 32]; positions as usize]);
    // One token, and neither a stop id nor the last that was asked for.
    transcript.sampled(positions - 1, 5);
    assert!(transcript.root().is_ok());
    let done = Computed {
        job_id: U256::ONE,
        job_hash: job.hash(),
        result: Ok(transcript),
        took: Duration::from_secs(1),
    };
    s.neuron.take(done).unwrap();
    let entry = s.entry();
    assert!(entry.answer.is_none() && entry.closed.is_none(), "{entry:?}");
    let why = &s.neuron.faults[&U256::ONE].why;
    assert!(why.contains("ends neither"), "{why}");
}

#[tokio::test]
async fn a_job_is_left_with_its_reason_once_the_time_is_over() {
    let mut s = Stage::flaky(u32::MAX).await;
    s.compute().await;
    s.too_late(10);
    let closed = s.entry().closed.unwrap();
    assert!(
        closed.why.contains("left") && closed.why.contains("bus fell silent"),
        "{closed:?}"
    );
}

/// An encoder's thread with jobs 1 to 3 ordered, the first one at the gate.
fn encoder_at_the_gate() -> (Arc<Gate>, Computer, UnboundedReceiver<Computed>) {
    let pack = encoder::pack(&encoder::tiny(), 7).unwrap();
    let gate = Arc::new(Gate::default());
    let (done, results) = unbounded_channel();
    let hear = Box::new(move |computed| {
        // A test that ended hears no more.
        let _ = done.send(computed);
    });
    let computer = Computer::start(&pack, &Hooked(Arc::clone(&gate)), hear).unwrap();
    for id in 1..=3u32 {
        let job = Job::embedding(B256::from(pack.root()), vec![2, 3 + id, 3]);
        assert!(computer.order(U256::from(id), job));
    }
    gate.until(1);
    (gate, computer, results)
}

#[test]
fn an_encoder_that_ends_finishes_one_job_and_begins_no_other() {
    let (gate, computer, mut results) = encoder_at_the_gate();
    let word = Arc::clone(&computer.word);
    let ending = std::thread::spawn(move || drop(computer));
    while !word.stop() {
        std::thread::yield_now();
    }
    gate.open(3);
    ending.join().unwrap();
    assert_eq!(gate.begun(), 1, "the others are in the journal");
    let done = results.try_recv().unwrap();
    assert!(done.job_id == U256::ONE && done.result.is_ok(), "{done:?}");
    assert!(results.try_recv().is_err());
}

#[test]
fn an_encoder_hands_a_recalled_job_back_without_running_it() {
    let (gate, computer, mut results) = encoder_at_the_gate();
    computer.recall(U256::from(2));
    computer.recall(U256::from(3));
    computer.want(U256::from(3));
    gate.open(3);
    let mut next = || {
        let done = results.blocking_recv().unwrap();
        (
            done.job_id,
            done.result.map_err(|e| matches!(e, Undone::Recalled)).map(|_| ()),
        )
    };
    assert_eq!(next(), (U256::from(1), Ok(())));
    assert_eq!(next(), (U256::from(2), Err(true)));
    assert_eq!(next(), (U256::from(3), Ok(())));
    assert_eq!(gate.begun(), 2);
}

/// A decoder's job is taken off the batch even while it runs.
#[tokio::test]
async fn a_job_whose_time_is_over_is_recalled_and_left() {
    let pack = synthetic::pack(&Shape::tiny(), 7).unwrap();
    let gate = Arc::new(Gate::default());
    let long = Job {
        max_new: 50,
        ..job(pack.root().into())
    };
    let mut s = Stage::on(&pack, long, Arc::new(Hooked(Arc::clone(&gate)))).await;
    s.order();
    gate.open(3);
    gate.until(4);
    s.too_late(9);
    assert!(s.entry().closed.is_none(), "there is time");
    s.too_late(10);
    let closed = s.entry().closed.unwrap();
    assert!(closed.why.contains("waited for other jobs"), "{closed:?}");
    s.neuron.recall(U256::ONE);
    s.neuron.fleet.heard();
    gate.open(100);
    let done = s.neuron.results.recv().await.unwrap();
    assert!(matches!(done.result, Err(Undone::Recalled)), "{done:?}");
    assert!(gate.begun() <= 5, "no step more than the one under way");
    s.neuron.take(done).unwrap();
    assert!(s.neuron.computing.is_empty() && s.entry().answer.is_none());
}

/// A neuron whose job is at the gate.
async fn at_the_gate() -> (Stage, Arc<Gate>) {
    let pack = synthetic::pack(&Shape::tiny(), 7).unwrap();
    let gate = Arc::new(Gate::default());
    let device = Arc::new(Hooked(Arc::clone(&gate)));
    let mut s = Stage::on(&pack, job(pack.root().into()), device).await;
    s.order();
    let waits = Arc::clone(&gate);
    tokio::task::spawn_blocking(move || waits.until(1)).await.unwrap();
    (s, gate)
}

#[tokio::test]
async fn a_neuron_that_ends_takes_what_is_nearly_done_into_the_journal_and_begins_nothing() {
    let (mut s, gate) = at_the_gate().await;
    assert_eq!(s.neuron.owed().computing, [U256::ONE]);
    gate.open(100);
    // The node is silent meanwhile: nothing can be committed, so it goes on until the time is over.
    s.neuron.finish(Duration::from_secs(2)).await.unwrap();
    let owed = s.neuron.owed();
    assert_eq!((owed.computing.len(), owed.uncommitted), (0, vec![U256::ONE]));
    s.note(|e| e.answer = None);
    s.order();
    assert!(s.neuron.computing.is_empty(), "no other job is begun");
}

#[tokio::test]
async fn a_neuron_without_time_to_end_leaves_at_once() {
    let (mut s, gate) = at_the_gate().await;
    s.neuron.finish(Duration::ZERO).await.unwrap();
    assert_eq!(s.neuron.owed().computing, [U256::ONE]);
    assert!(s.entry().answer.is_none() && s.entry().closed.is_none());
    gate.open(100);
}

/// The word that job 1 was computed wrongly.
fn wrong(s: &Stage) -> Computed {
    Computed {
        job_id: U256::ONE,
        job_hash: s.entry().job.hash(),
        result: Err(Undone::Wrong("GPU 0 erred".into())),
        took: Duration::ZERO,
    }
}

#[tokio::test]
async fn an_answer_found_wrong_before_its_commit_is_computed_again() {
    let mut s = Stage::flaky(0).await;
    s.compute().await;
    assert!(s.entry().answer.is_some());
    let done = wrong(&s);
    s.neuron.take(done).unwrap();
    assert!(s.entry().answer.is_none() && s.entry().closed.is_none());
    s.compute().await;
    assert!(s.entry().answer.is_some());
}

#[tokio::test]
async fn an_answer_found_wrong_after_its_commit_is_not_revealed() {
    let mut s = Stage::flaky(0).await;
    s.compute().await;
    s.note(|e| {
        let signed = Signed {
            hash: B256::ZERO,
            nonce: 0,
            attempt: 0,
            raw: Default::default(),
        };
        e.sent.insert(Step::Commit, signed);
    });
    let done = wrong(&s);
    s.neuron.take(done).unwrap();
    let closed = s.entry().closed.unwrap();
    assert!(closed.why.contains("GPU 0 erred"), "{closed:?}");
}
