//! Regenerating layer by layer: the same rows and the same transcript as a whole model gives, with one unit's tensors read
//! at a time, and no prefill for what was run before.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod common;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use alloy_primitives::B256;
use bitai_kernels::{
    Carried, Device, DeviceInfo, HostTensor, KernelError, Part, PartDone, PartStep, Probe, Program,
    ReferenceDevice, Runner, Sampler, TensorId, cpu::CpuDevice,
};
use bitai_model::{
    arch::encoder::EncoderShape,
    engine::Engine,
    pack::{Pack, Profile},
    synthetic::{self, Shape, encoder},
};
use bitai_poc::{
    Header, Transcript,
    dispute::{DisputeError, LayerRegen, Regenerate, RunnerRegen},
};
use bitai_types::Job;

/// What a device did, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Load(u32),
    Rows { unit: u32, first: u32, count: usize },
    Drop(u32),
    Done(Vec<TensorId>),
}

type Log = Arc<Mutex<Vec<Seen>>>;

/// Runs units alone, writing down what it holds; a whole model it refuses. Fails when a unit is to run that often.
struct Watched {
    inner: Box<dyn Device>,
    log: Log,
    fails_at: Option<u32>,
}

struct WatchedPart {
    inner: Box<dyn Part>,
    unit: u32,
    log: Log,
}

impl Device for Watched {
    fn info(&self) -> DeviceInfo {
        self.inner.info()
    }

    fn load(&self, _: Arc<Program>, _: &[HostTensor]) -> Result<Box<dyn Runner>, KernelError> {
        panic!("the whole model was loaded")
    }

    fn has_parts(&self) -> bool {
        true
    }

    fn load_part(
        &self,
        program: Arc<Program>,
        tensors: &[HostTensor],
        unit: u32,
    ) -> Result<Box<dyn Part>, KernelError> {
        if self.fails_at == Some(unit) {
            return Err(KernelError::Device {
                device: "a test's".into(),
                why: "the bus fell silent".into(),
            });
        }
        self.log.lock().unwrap().push(Seen::Load(unit));
        Ok(Box::new(WatchedPart {
            inner: self.inner.load_part(program, tensors, unit)?,
            unit,
            log: Arc::clone(&self.log),
        }))
    }
}

impl Part for WatchedPart {
    fn run(
        &mut self,
        step: PartStep<'_>,
        carried: Carried,
        cache: &mut Vec<u8>,
        probe: Option<&mut dyn Probe>,
    ) -> Result<PartDone, KernelError> {
        self.log.lock().unwrap().push(Seen::Rows {
            unit: self.unit,
            first: step.first,
            count: step.tokens.len(),
        });
        self.inner.run(step, carried, cache, probe)
    }
}

impl Drop for WatchedPart {
    fn drop(&mut self) {
        self.log.lock().unwrap().push(Seen::Drop(self.unit));
    }
}

/// A tensor's bytes that say when they are read.
struct Read {
    id: TensorId,
    bytes: HostTensor,
    read: Arc<Mutex<BTreeSet<TensorId>>>,
}

impl AsRef<[u8]> for Read {
    fn as_ref(&self) -> &[u8] {
        self.read.lock().unwrap().insert(self.id);
        self.bytes.data()
    }
}

/// A run by layers, and what was seen of it.
struct Bench {
    regen: LayerRegen,
    log: Log,
    read: Arc<Mutex<BTreeSet<TensorId>>>,
}

fn layered(pack: &Pack, device: Box<dyn Device>, ids: &[u32], prompt: u32, fails_at: Option<u32>) -> Bench {
    let (log, read) = (Log::default(), Arc::default());
    let device = Arc::new(Watched {
        inner: device,
        log: Arc::clone(&log),
        fails_at,
    });
    let watch = |(id, t): (TensorId, HostTensor)| HostTensor {
        bytes: Arc::new(Read {
            id,
            bytes: t.clone(),
            read: Arc::clone(&read),
        }),
        ..t
    };
    let tensors = (0u32..).zip(pack.tensors()).map(watch).collect();
    let done = Arc::clone(&log);
    let regen = LayerRegen::new(
        device,
        pack.program(),
        tensors,
        Box::new(move |ids| done.lock().unwrap().push(Seen::Done(ids.to_vec()))),
        (ids.to_vec(), prompt),
        Sampler::Greedy,
    );
    Bench {
        regen: regen.unwrap(),
        log,
        read,
    }
}

/// Small decoders of both profiles, tied and not, with one KV head and with several, with committed rows in their midst.
fn decoders() -> Vec<Pack> {
    let tiny = Shape {
        layers: 8,
        context: 64,
        ..Shape::tiny()
    };
    let shapes = [
        tiny.clone(),
        Shape {
            profile: Profile::B,
            tied: false,
            heads: 2,
            kv_heads: 1,
            ..tiny.clone()
        },
        Shape {
            kv_heads: 4,
            layers: 1,
            tied: false,
            ..tiny
        },
    ];
    shapes.iter().map(|s| synthetic::pack(s, 3).unwrap()).collect()
}

const PROMPT: [u32; 5] = [256, 72, 105, 33, 10];

/// A run of a decoder as mining runs it, generating, with the rows of a whole model behind it; and the ids that it was fed.
fn generated(pack: &Pack) -> (Job, common::Run, Vec<u32>) {
    let job = common::job(pack, PROMPT.to_vec(), 4);
    let run = common::run(pack, &job, &PROMPT, &ReferenceDevice, None);
    let outputs = run.transcript.outputs();
    let ids = [&PROMPT[..], &outputs[..outputs.len() - 1]].concat();
    (job, run, ids)
}

fn by_runner(pack: &Pack, ids: &[u32], prompt: u32) -> RunnerRegen {
    let runner = ReferenceDevice.load(pack.program(), &pack.tensors()).unwrap();
    RunnerRegen::new(runner, ids.to_vec(), prompt, Sampler::Greedy)
}

/// Devices to compare.
fn devices() -> Vec<Box<dyn Device>> {
    vec![Box::new(ReferenceDevice), Box::new(CpuDevice::new(2).unwrap())]
}

/// Most units that a device held at once.
fn most_held(log: &Log) -> usize {
    let (mut held, mut most) = (0usize, 0);
    for seen in log.lock().unwrap().iter() {
        match seen {
            Seen::Load(_) => held += 1,
            Seen::Drop(_) => held -= 1,
            _ => {}
        }
        most = most.max(held);
    }
    most
}

#[test]
fn every_row_of_every_position_is_the_one_that_the_whole_model_gives() {
    for pack in decoders() {
        let (job, run, ids) = generated(&pack);
        let (honest, mut whole) = (run.transcript, run.rows);
        let program = pack.program();
        for device in devices() {
            let mut b = layered(&pack, device, &ids, 5, None);
            // Forwards past what is known, back into it, and one behind the other.
            for pos in [3, 7, 0, 4, 6, 5, 1, 2, 7] {
                assert_eq!(
                    b.regen.token(pos).unwrap(),
                    whole.token(pos).unwrap(),
                    "position {pos}"
                );
                for layer in 0..program.layers {
                    assert_eq!(b.regen.kv(pos, layer), whole.kv(pos, layer));
                }
            }
            // And they are what the run committed to.
            let header = Header::new(&job, &program);
            for (pos, body) in (0u32..).zip(honest.body_roots()) {
                let node = b.regen.token(pos).unwrap().node(pos, &program, &header).unwrap();
                assert_eq!((node.body, node.sampled), (*body, honest.sampled_at(pos)));
            }
            assert_eq!(b.regen.transcript(header).unwrap(), honest);
            assert_eq!(most_held(&b.log), 1);
        }
    }
}

#[test]
fn an_encoder_gives_the_same_rows_layers_and_transcript() {
    let ids = [2, 4, 5, 6, 7, 8, 3];
    let pack = encoder::pack(
        &EncoderShape {
            layers: 3,
            ..encoder::tiny()
        },
        1,
    )
    .unwrap();
    let job = Job::embedding(B256::from(pack.root()), ids.to_vec());
    let header = Header::new(&job, &pack.program());
    let mut honest = Transcript::new(header);
    let mut engine = Engine::new(&pack, &ReferenceDevice).unwrap();
    engine.embed(&ids, &mut honest).unwrap();
    for device in devices() {
        let (mut whole, mut b) = (by_runner(&pack, &ids, 7), layered(&pack, device, &ids, 7, None));
        assert_eq!(b.regen.transcript(header).unwrap(), honest);
        assert_eq!(b.regen.pooled(), whole.pooled());
        for layer in 0..pack.program().layers {
            assert_eq!(b.regen.layer(layer), whole.layer(layer));
            for pos in 0..7 {
                assert_eq!(b.regen.kv(pos, layer), whole.kv(pos, layer));
            }
        }
        for pos in [0, 6, 3] {
            assert_eq!(b.regen.token(pos).unwrap(), whole.token(pos).unwrap());
        }
        assert_eq!(most_held(&b.log), 1);
    }
}

#[test]
fn one_unit_is_held_at_a_time_and_no_tensor_of_another_is_read() {
    let pack = decoders().remove(1);
    let (_, _, ids) = generated(&pack);
    let program = pack.program();
    let units = program.units();
    // One unit loaded alone reads its own tensors and no others.
    let mut all = BTreeSet::new();
    for unit in 0..units {
        let b = layered(&pack, Box::new(ReferenceDevice), &ids, 5, None);
        let watched: Vec<HostTensor> = (0u32..)
            .zip(pack.tensors())
            .map(|(id, t)| HostTensor {
                bytes: Arc::new(Read {
                    id,
                    bytes: t.clone(),
                    read: Arc::clone(&b.read),
                }),
                ..t
            })
            .collect();
        drop(ReferenceDevice.load_part(pack.program(), &watched, unit).unwrap());
        let own: BTreeSet<TensorId> = program.unit_tensors(unit).into_iter().collect();
        assert_eq!(*b.read.lock().unwrap(), own, "unit {unit}");
        all.extend(own);
    }
    assert_eq!(all.len(), pack.tensors().len(), "together they are the model");

    let mut b = layered(&pack, Box::new(ReferenceDevice), &ids, 5, None);
    b.regen.token(7).unwrap();
    let log = b.log.lock().unwrap().clone();
    let mut expected = vec![];
    for unit in 0..units {
        expected.push(Seen::Load(unit));
        if unit + 1 < units {
            let rows = |first, count| Seen::Rows { unit, first, count };
            expected.extend([rows(0, 7), rows(7, 1)]);
        } else {
            // Only the position that was asked about goes through the head.
            expected.push(Seen::Rows {
                unit,
                first: 7,
                count: 1,
            });
        }
        expected.push(Seen::Drop(unit));
        expected.push(Seen::Done(program.unit_tensors(unit)));
    }
    assert_eq!(log, expected);
}

#[test]
fn another_position_costs_a_row_and_not_a_prefill() {
    let pack = decoders().remove(0);
    let (_, _, ids) = generated(&pack);
    let mut b = layered(&pack, Box::new(ReferenceDevice), &ids, 5, None);
    b.regen.token(4).unwrap();
    let rows = |b: &Bench| {
        let mut log = b.log.lock().unwrap();
        let of = |seen: &Seen| match seen {
            Seen::Rows {
                unit: 1,
                first,
                count,
            } => Some((*first, *count)),
            _ => None,
        };
        let rows: Vec<(u32, usize)> = log.iter().filter_map(of).collect();
        log.clear();
        rows
    };
    assert_eq!(rows(&b), [(0, 4), (4, 1)]);
    b.regen.token(2).unwrap();
    assert_eq!(rows(&b), [(2, 1)], "known");
    b.regen.token(7).unwrap();
    assert_eq!(rows(&b), [(5, 2), (7, 1)], "from where the cache ends");
    b.regen.kv(7, 0).unwrap();
    b.regen.token(7).unwrap();
    assert_eq!(rows(&b), []);
}

#[test]
fn after_a_failure_half_way_everything_is_made_again() {
    let pack = decoders().remove(0);
    let (_, _, ids) = generated(&pack);
    let mut b = layered(&pack, Box::new(ReferenceDevice), &ids, 5, Some(4));
    for _ in 0..2 {
        let failed = b.regen.token(7);
        assert!(matches!(failed, Err(DisputeError::Device(_))), "{failed:?}");
        assert_eq!(most_held(&b.log), 1);
    }
    assert_eq!(
        b.log
            .lock()
            .unwrap()
            .iter()
            .filter(|s| **s == Seen::Load(0))
            .count(),
        2
    );
}

#[test]
fn rejects_positions_and_layers_that_there_are_not() {
    let pack = decoders().remove(2);
    let (_, _, ids) = generated(&pack);
    let mut b = layered(&pack, Box::new(ReferenceDevice), &ids, 5, None);
    for pos in [8, u32::MAX] {
        assert!(
            matches!(
                b.regen.token(pos),
                Err(DisputeError::Range { what: "position", .. })
            ),
            "{pos}"
        );
    }
    assert!(matches!(b.regen.kv(0, 9), Err(DisputeError::Setup(_))));
    assert!(
        matches!(b.regen.layer(0), Err(DisputeError::Setup(_))),
        "a decoder"
    );
    assert!(b.regen.token(7).is_ok());
}
