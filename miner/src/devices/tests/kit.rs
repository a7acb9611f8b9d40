//! Fake GPUs over the reference device, with faults by script; a driver's figures that the test sets.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use alloy_primitives::{B256, U256};
use bitai_kernels::{
    Device, DeviceInfo, Hash, HostTensor, KernelError, Op, Probe, Program, ReferenceDevice, Runner, SeqId,
    SeqStep,
    reference::ReferenceOps,
    testing::{Fault, FaultyDevice},
};
use bitai_model::{
    pack::Pack,
    synthetic::{self, Shape},
};
use bitai_poc::TraceRoot;
use bitai_types::{Job, Sampler};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::{
    devices::{Computed, Devices, Figures, Fleet, Gpus, Health, Pause, Place, Reading, Start, State},
    engine::Loaded,
    exit::Failure,
};

/// Longest that anything may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until it is so.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !so() {
        assert!(since.elapsed() < PATIENCE, "{what}: not so after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What is wrong with a fake GPU.
#[derive(Default)]
pub(crate) struct Script {
    /// Steps and openings so far.
    pub(crate) steps: AtomicU32,
    pub(crate) opens: AtomicU32,
    /// Openings that fail from now on.
    pub(crate) bad_opens: AtomicU32,
    /// Steps from now until the driver loses it; 0: never.
    pub(crate) loses_in: AtomicU32,
    /// Steps from now that fail so.
    pub(crate) bad_steps: AtomicU32,
    /// Sequences that fit into one step; 0: any number.
    pub(crate) fits: AtomicUsize,
    /// Whether no sequence finds room.
    pub(crate) is_full: Mutex<bool>,
    /// Whether it computes wrong integers.
    pub(crate) errs: Mutex<bool>,
    /// Whether steps wait.
    shut: Mutex<bool>,
    moved: Condvar,
}

impl Script {
    /// Steps wait from now on, or go on.
    pub(crate) fn shut(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.moved.notify_all();
    }

    fn step(&self, sequences: usize) -> Result<(), KernelError> {
        self.steps.fetch_add(1, Ordering::Relaxed);
        let shut = self.shut.lock().unwrap();
        drop(self.moved.wait_while(shut, |shut| *shut).unwrap());
        let count = |n: u32| n.checked_sub(1);
        let (order, again) = (Ordering::Relaxed, Ordering::Relaxed);
        if self.bad_steps.fetch_update(order, again, count).is_ok()
            || self.loses_in.fetch_update(order, again, count) == Ok(1)
        {
            return Err(KernelError::Lost {
                device: "fake".into(),
                why: "fallen off the bus".into(),
            });
        }
        match self.fits.load(Ordering::Relaxed) {
            fits if fits != 0 && sequences > fits => Err(KernelError::OutOfMemory {
                device: "fake".into(),
                need: sequences as u64,
                free: fits as u64,
            }),
            _ => Ok(()),
        }
    }
}

struct Fake(Arc<Script>);

impl Device for Fake {
    fn info(&self) -> DeviceInfo {
        ReferenceDevice.info()
    }

    fn load(&self, program: Arc<Program>, tensors: &[HostTensor]) -> Result<Box<dyn Runner>, KernelError> {
        let inner = if *self.0.errs.lock().unwrap() {
            // A row of the cache, which every later one reads and the trace commits to.
            let append = |s: &&bitai_kernels::Site| matches!(s.op, Op::KvAppend { .. });
            let fault = Fault {
                site: program.sites.iter().find(append).unwrap().inputs[0],
                position: 1,
                element: 3,
            };
            FaultyDevice::new(ReferenceOps, fault).load(program, tensors)?
        } else {
            ReferenceDevice.load(program, tensors)?
        };
        Ok(Box::new(FakeRunner {
            inner,
            script: Arc::clone(&self.0),
        }))
    }
}

struct FakeRunner {
    inner: Box<dyn Runner>,
    script: Arc<Script>,
}

impl Runner for FakeRunner {
    fn program(&self) -> &Program {
        self.inner.program()
    }

    fn open(&mut self, max_tokens: u32) -> Result<SeqId, KernelError> {
        if *self.script.is_full.lock().unwrap() {
            return Err(KernelError::OutOfMemory {
                device: "fake, KV cache".into(),
                need: 4096,
                free: 77,
            });
        }
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
        self.script.step(batch.len())?;
        self.inner.step(batch, probe)
    }

    fn hash(&mut self, seq: SeqId) -> Result<(), KernelError> {
        self.inner.hash(seq)
    }

    fn take_bodies(&mut self, seq: SeqId, wait: bool) -> Result<(u32, Vec<Hash>), KernelError> {
        self.inner.take_bodies(seq, wait)
    }
}

/// Figures by PCI address, as the test sets them; none: the driver is silent.
pub(crate) type Weather = Arc<Mutex<BTreeMap<String, Figures>>>;

struct Scripted(Weather);

impl Health for Scripted {
    fn read(&mut self, pci: &str) -> Result<Figures, String> {
        let weather = self.0.lock().unwrap();
        weather.get(pci).copied().ok_or("the driver is gone".into())
    }

    fn limit(&mut self, _: &str, _: u32) -> Result<(), String> {
        Err("only root may set it".into())
    }
}

/// The address of a fake GPU.
pub(crate) fn pci(number: usize) -> String {
    format!("0000:{:02x}:00", number + 1)
}

/// A fleet of fake GPUs on the tiny model.
pub(crate) struct Rig {
    pub(crate) devices: Devices,
    pub(crate) fakes: Vec<Arc<Script>>,
    pub(crate) weather: Weather,
    pub(crate) fleet: Fleet,
    pub(crate) pack: Pack,
    results: UnboundedReceiver<Computed>,
}

/// Quick looks and retries; nothing is checked on the processor.
pub(crate) fn gpus() -> Gpus {
    Gpus {
        look_every: Duration::from_millis(5),
        retry_after: Duration::from_millis(5),
        retry_max: Duration::from_millis(40),
        recheck_percent: 0,
        ..Gpus::default()
    }
}

pub(crate) fn place(number: usize, script: &Arc<Script>) -> Place {
    let script = Arc::clone(script);
    Place {
        id: pci(number),
        name: "fake".into(),
        index: Some(number as u32),
        memory: None,
        is_gpu: true,
        open: Arc::new(move || {
            script.opens.fetch_add(1, Ordering::Relaxed);
            let count = |n: u32| n.checked_sub(1);
            let bad = &script.bad_opens;
            if bad
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, count)
                .is_ok()
            {
                return Err(Failure::Lost("fake: no such device".into()));
            }
            Ok(Arc::new(Fake(Arc::clone(&script))))
        }),
    }
}

impl Rig {
    pub(crate) fn new(number: usize, gpus: Gpus) -> Self {
        Self::with((0..number).map(|_| Arc::default()).collect(), gpus).unwrap()
    }

    pub(crate) fn with(fakes: Vec<Arc<Script>>, gpus: Gpus) -> Result<Self, Failure> {
        let places = fakes.iter().enumerate().map(|(n, s)| place(n, s)).collect();
        let pack = synthetic::pack(&Shape::tiny(), 7).unwrap();
        let warm = Figures {
            temperature: Some(50),
            ..Figures::default()
        };
        let weather: Weather = Arc::new(Mutex::new((0..fakes.len()).map(|n| (pci(n), warm)).collect()));
        let devices = Devices::new(gpus);
        let (done, results) = unbounded_channel();
        let fleet = Fleet::start(Start {
            places,
            packs: vec![pack.clone()],
            devices: &devices,
            health: Some(Box::new(Scripted(Arc::clone(&weather)))),
            threads: 1,
            done,
        })?;
        Ok(Self {
            devices,
            fakes,
            weather,
            fleet,
            pack,
            results,
        })
    }

    /// The job with this number: each has its own prompt.
    pub(crate) fn job(&self, number: u32) -> Job {
        Job {
            model_root: B256::from(self.pack.root()),
            spec_version: 0,
            input_ids: vec![1, 2 + number, 3],
            max_new: 6,
            stop_ids: vec![],
            sampler: Sampler::GREEDY,
            seed: 0,
        }
    }

    pub(crate) fn order(&self, numbers: std::ops::Range<u32>) {
        for n in numbers {
            assert!(self.fleet.order(U256::from(n), self.job(n)));
        }
    }

    /// The right root of a job.
    pub(crate) fn right(&self, number: u32) -> TraceRoot {
        let mut loaded = Loaded::on(&self.pack, &ReferenceDevice).unwrap();
        loaded.answer(&self.job(number), &mut |_| ()).unwrap().trace_root
    }

    /// The next result.
    pub(crate) fn next(&mut self) -> Computed {
        let mut done = None;
        until("a result", || {
            done = self.results.try_recv().ok();
            done.is_some()
        });
        done.unwrap()
    }

    /// Takes the results of these jobs, each once and right, and sees that no other comes.
    pub(crate) fn all_right(&mut self, numbers: std::ops::Range<u32>) {
        let mut missing: std::collections::BTreeSet<u32> = numbers.collect();
        while !missing.is_empty() {
            let done = self.next();
            let n: u32 = done.job_id.to();
            assert!(missing.remove(&n), "job {n} was answered twice");
            assert_eq!(done.result.unwrap().root().unwrap(), self.right(n), "job {n}");
        }
        assert!(self.results.try_recv().is_err());
    }

    pub(crate) fn reading(&self, number: usize) -> Reading {
        self.devices.readings().swap_remove(number)
    }

    pub(crate) fn until_failed(&self, number: usize) -> String {
        let mut why = String::new();
        until("a failed device", || match self.reading(number).state {
            State::Failed { why: said, .. } => {
                why = said;
                true
            }
            _ => false,
        });
        why
    }

    pub(crate) fn until_paused(&self, number: usize) -> Pause {
        let mut found = None;
        until("a paused device", || match self.reading(number).state {
            State::Paused { reason } => {
                found = Some(reason);
                true
            }
            _ => false,
        });
        found.unwrap()
    }

    /// Sets a GPU's temperature, or lets its driver fall silent.
    pub(crate) fn heat(&self, number: usize, temperature: Option<u32>) {
        let mut weather = self.weather.lock().unwrap();
        match temperature {
            Some(_) => weather.insert(
                pci(number),
                Figures {
                    temperature,
                    ..Figures::default()
                },
            ),
            None => weather.remove(&pci(number)),
        };
    }
}
