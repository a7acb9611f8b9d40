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
    Carried, Device, DeviceInfo, Hash, HostTensor, KernelError, Part, PartDone, PartStep, Probe, Program,
    ReferenceDevice, Runner, SeqId, SeqStep,
};
use bitai_model::synthetic::{self, Shape};
use bitai_poc::dispute::{Answer, Ask, Claim, Regenerate};
use bitai_types::{Job, Sampler};

use crate::{
    datadir::{DataDir, make_dir},
    dispute::{
        Shelf, again,
        desk::{Desk, Wanted},
        honest, layered, lend, player,
    },
    engine::Loaded,
    exit::Failure,
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
    /// Units in memory, and the most that ever were.
    held: AtomicU32,
    most_held: AtomicU32,
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

/// The reference device that counts, refuses and fails; with its layers or as one that has whole models alone.
struct Counting {
    counts: Arc<Counts>,
    has_parts: bool,
}

struct CountingPart(Box<dyn Part>, Arc<Counts>);

impl Part for CountingPart {
    fn run(
        &mut self,
        step: PartStep<'_>,
        carried: Carried,
        cache: &mut Vec<u8>,
        probe: Option<&mut dyn Probe>,
    ) -> Result<PartDone, KernelError> {
        Counts::use_up(&self.1.fails)?;
        self.1.steps.fetch_add(1, Ordering::Relaxed);
        self.0.run(step, carried, cache, probe)
    }
}

impl Drop for CountingPart {
    fn drop(&mut self) {
        self.1.held.fetch_sub(1, Ordering::Relaxed);
    }
}

struct CountingRunner(Box<dyn Runner>, Arc<Counts>);

impl Device for Counting {
    fn info(&self) -> DeviceInfo {
        ReferenceDevice.info()
    }

    fn load(&self, program: Arc<Program>, tensors: &[HostTensor]) -> Result<Box<dyn Runner>, KernelError> {
        Counts::use_up(&self.counts.refuses)?;
        self.counts.loads.fetch_add(1, Ordering::Relaxed);
        let runner = ReferenceDevice.load(program, tensors)?;
        Ok(Box::new(CountingRunner(runner, Arc::clone(&self.counts))))
    }

    fn has_parts(&self) -> bool {
        self.has_parts
    }

    fn load_part(
        &self,
        program: Arc<Program>,
        tensors: &[HostTensor],
        unit: u32,
    ) -> Result<Box<dyn Part>, KernelError> {
        assert!(self.has_parts, "it has whole models alone");
        Counts::use_up(&self.counts.refuses)?;
        let part = ReferenceDevice.load_part(program, tensors, unit)?;
        let held = self.counts.held.fetch_add(1, Ordering::Relaxed) + 1;
        self.counts.most_held.fetch_max(held, Ordering::Relaxed);
        Ok(Box::new(CountingPart(part, Arc::clone(&self.counts))))
    }

    fn load_for(
        &self,
        program: Arc<Program>,
        tensors: &[HostTensor],
        tokens: u32,
    ) -> Result<Box<dyn Runner>, KernelError> {
        self.counts.room.store(tokens, Ordering::Relaxed);
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
        Self::on(true)
    }

    /// A device that has whole models alone.
    fn whole() -> Self {
        Self::on(false)
    }

    fn on(has_parts: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::resolve(Some(dir.path().to_owned())).unwrap();
        make_dir(&data.models()).unwrap();
        synthetic::write(&data.models().join("tiny.pack"), &Shape::tiny(), 7).unwrap();
        let root = B256::from(synthetic::pack(&Shape::tiny(), 7).unwrap().root());
        let counts = Arc::new(Counts::default());
        let device = Arc::new(Counting {
            counts: Arc::clone(&counts),
            has_parts,
        });
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

    fn steps(&self) -> u32 {
        Counts::of(&self.counts.steps)
    }

    /// What the claim's own run answers, on a shelf of its own and of the whole model.
    fn right(&self, claim: &Claim, ask: &Ask) -> Answer {
        let other = Self::whole();
        let run = again(&other.shelf, claim).unwrap();
        assert_eq!(other.loads(), 1);
        player(&other.shelf, claim, run).unwrap().respond(ask).unwrap()
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
fn two_challengers_at_two_jobs_are_answered_with_one_layer_in_memory() {
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
    assert_eq!((s.loads(), Counts::of(&s.counts.most_held)), (0, 1));
    // A transcript each, made anew, and a row for each position: asked again in turns they cost nothing.
    let steps = s.steps();
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
    assert_eq!(s.steps(), steps, "rows of several positions are kept");
}

#[test]
fn two_threads_take_turns_at_the_layers() {
    let s = Stage::new();
    let claims = [s.claim(1, 5), s.claim(2, 6)];
    std::thread::scope(|scope| {
        for claim in &claims {
            scope.spawn(|| {
                let mut rows = layered(&s.shelf, claim).unwrap();
                for pos in [4, 0, 2] {
                    rows.token(pos).unwrap();
                }
            });
        }
    });
    assert_eq!(Counts::of(&s.counts.most_held), 1);
    assert_eq!(Counts::of(&s.counts.held), 0);
}

#[test]
fn a_device_of_whole_models_runs_claims_again_and_the_processor_makes_rows() {
    let s = Stage::whole();
    let claim = s.claim(1, 5);
    assert!(!s.shelf.in_layers(s.root));
    let (transcript, _) = again(&s.shelf, &claim).unwrap();
    assert_eq!((transcript.root(), s.loads()), (Ok(claim.root), 1));
    let steps = s.steps();
    let desk = Desk::start(honest(Arc::clone(&s.shelf))).unwrap();
    let asked = [wanted(&claim, 1, Ask::Token { pos: 2 })];
    let answers = answered(&desk, &asked);
    let right = s.right(&claim, &asked[0].ask);
    assert_eq!(answers[0], right.encode(&asked[0].id.0).unwrap());
    assert_eq!((s.loads(), s.steps()), (1, steps), "nothing of it on the device");
}

#[test]
fn rejects_claims_that_no_run_can_have_made_before_the_device_is_asked() {
    let s = Stage::new();
    let claim = s.claim(1, 5);
    let with = |outputs: Vec<u32>| Claim {
        outputs,
        ..claim.clone()
    };
    for (wrong, why) in [
        (with(vec![]), "no output"),
        (with(vec![1, 320]), "an id outside the vocabulary"),
        (with(vec![1; 508]), "more than the context"),
    ] {
        assert!(
            matches!(layered(&s.shelf, &wrong).map(|_| ()), Err(Failure::Job(_))),
            "{why}"
        );
    }
    assert_eq!((s.loads(), Counts::of(&s.counts.most_held)), (0, 0));
    layered(&s.shelf, &with(vec![1; 507])).unwrap();
}

#[test]
fn a_longer_claim_loads_a_whole_model_again_with_room_for_it_and_only_while_it_is_needed() {
    let s = Stage::whole();
    let (short, long) = (s.claim(1, 3), s.claim(2, 9));
    let first = lend(&s.shelf, &short).unwrap();
    assert_eq!(Counts::of(&s.counts.room), 4, "the last output is not run");
    let second = lend(&s.shelf, &long).unwrap();
    assert_eq!((s.loads(), Counts::of(&s.counts.room)), (2, 10));
    // The first one runs on the new one, too.
    for (lent, claim) in [(&first, &short), (&second, &long)] {
        let mut loaded = Loaded::on(lent.pack(), lent).unwrap();
        let run = loaded.recheck(&claim.job, &claim.outputs, &mut |_| ()).unwrap();
        assert_eq!(run.trace_root, claim.root);
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
fn where_the_device_refuses_the_processor_takes_over() {
    for has_parts in [true, false] {
        let s = Stage::on(has_parts);
        s.counts.refuses.store(u32::MAX, Ordering::Relaxed);
        let claim = s.claim(1, 5);
        assert_eq!(lend(&s.shelf, &claim).unwrap().info().backend, "cpu");
        let (transcript, mut rows) = again(&s.shelf, &claim).unwrap();
        assert_eq!(transcript.root(), Ok(claim.root));
        rows.token(3).unwrap();
        assert_eq!((s.loads(), s.steps()), (0, 0));
    }
}

#[test]
fn a_question_under_which_the_device_failed_is_answered_by_the_processor() {
    let s = Stage::new();
    let claim = s.claim(1, 5);
    let desk = Desk::retrying(honest(Arc::clone(&s.shelf)), Duration::from_millis(10)).unwrap();
    s.counts.fails.store(1, Ordering::Relaxed);
    let asked = [wanted(&claim, 1, Ask::Token { pos: 2 })];
    let answers = answered(&desk, &asked);
    assert_eq!(
        answers[0],
        s.right(&claim, &asked[0].ask).encode(&asked[0].id.0).unwrap()
    );
    assert_eq!(
        (s.steps(), Counts::of(&s.counts.fails)),
        (0, 0),
        "it failed once, and then the processor ran"
    );
}
