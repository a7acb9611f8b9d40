//! Models that disputes run, on devices that count, refuse and fail.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use alloy_primitives::{Address, B256, U256};
use bitai_kernels::{
    Device, DeviceInfo, Hash, HostTensor, KernelError, Probe, Program, ReferenceDevice, Runner, SeqId,
    SeqStep,
};
use bitai_model::synthetic::{self, Shape};
use bitai_poc::dispute::{Answer, Ask, Claim};
use bitai_types::{Job, Sampler};

use crate::{
    datadir::{DataDir, make_dir},
    dispute::{
        Shelf,
        desk::{Desk, Wanted},
        honest, lend, player, rerun,
    },
    engine::Loaded,
};

/// What a device was asked for, and how often it is to fail.
#[derive(Default)]
struct Counts {
    loads: AtomicU32,
    /// Rooms that were loaded for, the newest.
    room: AtomicU32,
    steps: AtomicU32,
    refuses: AtomicU32,
    fails: AtomicU32,
}

impl Counts {
    fn of(count: &AtomicU32) -> u32 {
        count.load(Ordering::Relaxed)
    }

    fn use_up(count: &AtomicU32) -> Result<(), KernelError> {
        let one_less = |left: u32| left.checked_sub(1);
        match count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less) {
            Ok(_) => Err(KernelError::Device {
                device: "a test's".into(),
                why: "the bus fell silent".into(),
            }),
            Err(_) => Ok(()),
        }
    }
}

/// The reference device that counts, refuses and fails.
struct Counting(Arc<Counts>);

struct CountingRunner(Box<dyn Runner>, Arc<Counts>);

impl Device for Counting {
    fn info(&self) -> DeviceInfo {
        ReferenceDevice.info()
    }

    fn load(&self, program: Arc<Program>, tensors: &[HostTensor]) -> Result<Box<dyn Runner>, KernelError> {
        Counts::use_up(&self.0.refuses)?;
        self.0.loads.fetch_add(1, Ordering::Relaxed);
        let runner = ReferenceDevice.load(program, tensors)?;
        Ok(Box::new(CountingRunner(runner, Arc::clone(&self.0))))
    }

    fn load_for(
        &self,
        program: Arc<Program>,
        tensors: &[HostTensor],
        tokens: u32,
    ) -> Result<Box<dyn Runner>, KernelError> {
        self.0.room.store(tokens, Ordering::Relaxed);
        self.load(program, tensors)
    }
}

impl Runner for CountingRunner {
    fn program(&self) -> &Program {
        self.0.program()
    }

    fn open(&mut self, max_tokens: u32) -> Result<SeqId, KernelError> {
        assert!(max_tokens <= Counts::of(&self.1.room), "room for the claim");
        self.0.open(max_tokens)
    }

    fn close(&mut self, seq: SeqId) {
        self.0.close(seq);
    }

    fn len(&self, seq: SeqId) -> Result<u32, KernelError> {
        self.0.len(seq)
    }

    fn step(
        &mut self,
        batch: &[SeqStep<'_>],
        probe: Option<&mut dyn Probe>,
    ) -> Result<Vec<Vec<u32>>, KernelError> {
        Counts::use_up(&self.1.fails)?;
        self.1.steps.fetch_add(1, Ordering::Relaxed);
        self.0.step(batch, probe)
    }

    fn hash(&mut self, seq: SeqId) -> Result<(), KernelError> {
        self.0.hash(seq)
    }

    fn take_bodies(&mut self, seq: SeqId, wait: bool) -> Result<(u32, Vec<Hash>), KernelError> {
        self.0.take_bodies(seq, wait)
    }
}

/// A shelf with one model on such a device.
struct Stage {
    shelf: Arc<Shelf>,
    counts: Arc<Counts>,
    root: B256,
    _dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::resolve(Some(dir.path().to_owned())).unwrap();
        make_dir(&data.models()).unwrap();
        synthetic::write(&data.models().join("tiny.pack"), &Shape::tiny(), 7).unwrap();
        let root = B256::from(synthetic::pack(&Shape::tiny(), 7).unwrap().root());
        let counts = Arc::new(Counts::default());
        let device = Arc::new(Counting(Arc::clone(&counts)));
        Self {
            shelf: Arc::new(Shelf::on(data, device, 1)),
            counts,
            root,
            _dir: dir,
        }
    }

    /// An honest claim about a prompt of so many ids.
    fn claim(&self, job_id: u32, prompt: u32) -> Claim {
        let job = Job {
            model_root: self.root,
            spec_version: 0,
            input_ids: (1..=prompt).collect(),
            max_new: 2,
            stop_ids: vec![],
            sampler: Sampler::GREEDY,
            seed: 0,
        };
        let pack = synthetic::pack(&Shape::tiny(), 7).unwrap();
        let mut loaded = Loaded::on(&pack, &ReferenceDevice).unwrap();
        let run = loaded.answer(&job, &mut |_| ()).unwrap();
        Claim {
            chain_id: 1,
            hub: Address::ZERO,
            job_id: U256::from(job_id),
            neuron: Address::ZERO,
            outputs: run.transcript.outputs().to_vec(),
            root: run.trace_root,
            job,
        }
    }

    fn loads(&self) -> u32 {
        Counts::of(&self.counts.loads)
    }

    /// What the claim's own run answers, on a shelf of its own.
    fn right(&self, claim: &Claim, ask: &Ask) -> Answer {
        let other = Self::new();
        let lent = lend(&other.shelf, claim).unwrap();
        let transcript = rerun(&lent, claim).unwrap().transcript;
        player(&lent, claim, transcript).unwrap().respond(ask).unwrap()
    }
}

fn wanted(claim: &Claim, number: u8, ask: Ask) -> Wanted {
    Wanted {
        claim: Arc::new(claim.clone()),
        id: B256::with_last_byte(number),
        ask,
        left: number.into(),
    }
}

/// Puts the questions down and waits until all are answered.
fn answered(desk: &Desk, wanted: &[Wanted]) -> Vec<Vec<u8>> {
    let live: BTreeSet<B256> = wanted.iter().map(|w| w.claim.id().into()).collect();
    desk.want(wanted.to_vec(), live);
    let end = Instant::now() + Duration::from_secs(60);
    let answer = |w: &Wanted| loop {
        if let Some(bytes) = desk.answer(&w.id) {
            return bytes;
        }
        assert!(Instant::now() < end, "waited in vain for {:?}", w.ask);
        std::thread::sleep(Duration::from_millis(5));
    };
    wanted.iter().map(answer).collect()
}

#[test]
fn two_challengers_at_two_jobs_of_one_model_load_it_once() {
    let s = Stage::new();
    let claims = [s.claim(1, 5), s.claim(2, 5)];
    let desk = Desk::start(honest(Arc::clone(&s.shelf))).unwrap();
    let mut all = Vec::new();
    for (i, claim) in (0u8..).zip(&claims) {
        for pos in [1, 3] {
            all.push(wanted(claim, 10 * i + pos as u8, Ask::Token { pos }));
        }
    }
    let answers = answered(&desk, &all);
    for (w, bytes) in all.iter().zip(&answers) {
        assert_eq!(*bytes, s.right(&w.claim, &w.ask).encode(&w.id.0).unwrap());
    }
    assert_eq!(s.loads(), 1);
    // A transcript each, made anew, and a prefill for each position: asked again in turns they cost nothing.
    let steps = Counts::of(&s.counts.steps);
    let again: Vec<Wanted> = all
        .iter()
        .enumerate()
        .map(|(i, w)| {
            let Ask::Token { pos } = w.ask else {
                panic!("those were asked")
            };
            wanted(&w.claim, 100 + i as u8, Ask::Unit { pos, unit: 1 })
        })
        .collect();
    answered(&desk, &again);
    assert_eq!(
        Counts::of(&s.counts.steps),
        steps,
        "rows of several positions are kept"
    );
    assert_eq!(s.loads(), 1);
}

#[test]
fn a_longer_claim_loads_the_model_again_with_room_for_it_and_only_while_it_is_needed() {
    let s = Stage::new();
    let (short, long) = (s.claim(1, 3), s.claim(2, 9));
    let first = lend(&s.shelf, &short).unwrap();
    assert_eq!(Counts::of(&s.counts.room), 4, "the last output is not run");
    let second = lend(&s.shelf, &long).unwrap();
    assert_eq!((s.loads(), Counts::of(&s.counts.room)), (2, 10));
    // The first one runs on the new one, too.
    for (lent, claim) in [(&first, &short), (&second, &long)] {
        assert_eq!(rerun(lent, claim).unwrap().trace_root, claim.root);
    }
    lend(&s.shelf, &short).unwrap();
    assert_eq!(s.loads(), 2);
    drop((first, second));
    lend(&s.shelf, &short).unwrap();
    assert_eq!(
        (s.loads(), Counts::of(&s.counts.room)),
        (3, 4),
        "it had been let go"
    );
}

#[test]
fn where_the_device_refuses_the_model_the_processor_takes_it() {
    let s = Stage::new();
    s.counts.refuses.store(u32::MAX, Ordering::Relaxed);
    let claim = s.claim(1, 5);
    let lent = lend(&s.shelf, &claim).unwrap();
    assert_eq!(lent.info().backend, "cpu");
    assert_eq!(rerun(&lent, &claim).unwrap().trace_root, claim.root);
    assert_eq!(s.loads(), 0);
}

#[test]
fn a_question_under_which_the_device_failed_is_answered_by_the_processor() {
    let s = Stage::new();
    let claim = s.claim(1, 5);
    let desk = Desk::retrying(honest(Arc::clone(&s.shelf)), Duration::from_millis(10)).unwrap();
    // The transcript is made before it fails.
    s.counts.fails.store(1, Ordering::Relaxed);
    let asked = [wanted(&claim, 1, Ask::Token { pos: 2 })];
    let answers = answered(&desk, &asked);
    assert_eq!(
        answers[0],
        s.right(&claim, &asked[0].ask).encode(&asked[0].id.0).unwrap()
    );
    assert_eq!(
        (s.loads(), Counts::of(&s.counts.fails)),
        (1, 0),
        "the second load was the processor's"
    );
}
