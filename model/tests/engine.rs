//! One job, one answer and one list of commitments: on every device, in company, decoded or re-checked.
#![allow(
    clippy::unwrap_used,
    reason = "in a test it says that the rest depends on this"
)]

mod common;

use std::{io::Cursor, path::Path, sync::Arc};

use bitai_kernels::{Device, Op, Program, ReferenceDevice, Sampler, cpu::CpuDevice, program::NoAnswer};
use bitai_model::{
    engine::{Engine, EngineError, Event, Request},
    pack::{Pack, PackWriter, Profile},
    synthetic::{self, Shape},
};
use common::{Heard, Shared};

fn devices() -> Vec<(String, Box<dyn Device>)> {
    let mut all: Vec<(String, Box<dyn Device>)> = vec![("reference".into(), Box::new(ReferenceDevice))];
    for threads in [1, 2, 8] {
        all.push((
            format!("cpu {threads}"),
            Box::new(CpuDevice::new(threads).unwrap()),
        ));
    }
    all.push(("cpu portable".into(), Box::new(CpuDevice::portable(2).unwrap())));
    all
}

const RANDOM: Sampler = Sampler::Random {
    temperature_q16: 52_429,
    top_k: 40,
    top_p_q16: 62_259,
    seed: 7,
};

fn prompt(len: usize) -> Vec<u32> {
    (0..len).map(|i| (i * 37 % 251) as u32).collect()
}

fn run(pack: &Pack, device: &dyn Device, input: &[u32], new: u32, sampler: &Sampler) -> (Vec<u32>, Heard) {
    let mut engine = Engine::new(pack, device).unwrap();
    let mut heard = Heard::default();
    let mut streamed = Vec::new();
    let output = engine
        .generate(input, new, &[257], sampler, &mut heard, &mut |t| streamed.push(t))
        .unwrap();
    assert_eq!(streamed, output);
    assert_eq!(heard.bodies.len(), input.len() + output.len() - 1);
    let pos = input.len() as u32 - 1;
    let want: Vec<(u32, u32)> = (pos..).zip(output.iter().copied()).collect();
    assert_eq!(heard.sampled, want);
    (output, heard)
}

#[test]
fn every_device_gives_the_same_answer_and_commitments() {
    for profile in [Profile::A, Profile::B] {
        let pack = synthetic::pack(
            &Shape {
                profile,
                ..Shape::tiny()
            },
            1,
        )
        .unwrap();
        for sampler in [Sampler::Greedy, RANDOM] {
            let mut first = None;
            for (name, device) in devices() {
                let got = run(&pack, device.as_ref(), &prompt(20), 20, &sampler);
                assert_eq!(
                    first.get_or_insert_with(|| got.clone()),
                    &got,
                    "{name}, {profile:?}, {sampler:?}"
                );
            }
        }
    }
}

#[test]
fn rechecking_as_one_prefill_hears_what_decoding_heard() {
    let pack = synthetic::pack(&Shape::tiny(), 2).unwrap();
    let device = CpuDevice::new(2).unwrap();
    // One chunk; one made longer by a short rest; sampling that begins in the middle of a chunk and at its end.
    for (n, m) in [(1, 1), (1, 40), (280, 9), (300, 70), (257, 65)] {
        let (output, heard) = run(&pack, &device, &prompt(n), m, &RANDOM);
        let mut engine = Engine::new(&pack, &device).unwrap();
        let mut again = Heard::default();
        let ids = engine.recheck(&prompt(n), &output, &RANDOM, &mut again).unwrap();
        assert_eq!((ids, again), (output, heard), "{n} + {m}");
    }
}

#[test]
fn a_changed_output_id_shows_in_the_recheck() {
    let pack = synthetic::pack(&Shape::tiny(), 2).unwrap();
    let device = CpuDevice::new(2).unwrap();
    let (mut output, heard) = run(&pack, &device, &prompt(5), 12, &Sampler::Greedy);
    output[6] ^= 1;
    let mut engine = Engine::new(&pack, &device).unwrap();
    let mut again = Heard::default();
    let ids = engine
        .recheck(&prompt(5), &output, &Sampler::Greedy, &mut again)
        .unwrap();
    assert_ne!(ids[6], output[6], "the model would have said another id");
    assert_eq!(
        again.bodies[..11],
        heard.bodies[..11],
        "what came before is the same"
    );
    assert_ne!(
        again.bodies[11], heard.bodies[11],
        "the row of the changed id is not"
    );
}

#[test]
fn jobs_that_join_and_leave_do_not_change_one_another() {
    let pack = synthetic::pack(&Shape::tiny(), 3).unwrap();
    let device = CpuDevice::new(2).unwrap();
    let jobs: Vec<(usize, u32, Sampler)> = vec![
        (3, 30, Sampler::Greedy),
        (300, 5, RANDOM),
        (40, 12, RANDOM),
        (7, 1, Sampler::Greedy),
        (64, 33, RANDOM),
    ];
    let alone: Vec<_> = jobs
        .iter()
        .map(|(n, m, s)| run(&pack, &device, &prompt(*n), *m, s))
        .collect();
    let mut engine = Engine::new(&pack, &device).unwrap();
    let mut batch = engine.batch();
    let traces: Vec<Shared> = jobs.iter().map(|_| Shared::default()).collect();
    let mut done = vec![None; jobs.len()];
    let mut joined = Vec::new();
    let mut steps = 0;
    while joined.len() < jobs.len() || !batch.is_empty() {
        // A job joins every third step.
        if steps % 3 == 0 && joined.len() < jobs.len() {
            let (n, m, sampler) = jobs[joined.len()];
            let request = Request {
                input_ids: prompt(n),
                max_new: m,
                stop_ids: vec![257],
                sampler,
            };
            joined.push(
                batch
                    .join(request, Box::new(traces[joined.len()].clone()))
                    .unwrap(),
            );
        }
        for event in batch.step().unwrap() {
            if let Event::Done(id, output) = event {
                let at = joined.iter().position(|j| *j == id).unwrap();
                done[at] = Some(output);
            }
        }
        steps += 1;
    }
    for (i, (output, heard)) in alone.into_iter().enumerate() {
        assert_eq!(done[i].as_ref(), Some(&output), "job {i}");
        assert_eq!(*traces[i].0.lock().unwrap(), heard, "job {i}");
    }
}

/// What an engine says to a prompt and a number of new tokens; then that it still works.
fn refusal(input: &[u32], new: u32) -> EngineError {
    let pack = synthetic::pack(&Shape::tiny(), 4).unwrap();
    let mut engine = Engine::new(&pack, &CpuDevice::new(1).unwrap()).unwrap();
    let mut run = |input: &[u32], new: u32| {
        let mut heard = Heard::default();
        engine.generate(input, new, &[], &Sampler::Greedy, &mut heard, &mut |_| {})
    };
    let refused = run(input, new).unwrap_err();
    assert!(run(&prompt(500), 12).is_ok());
    refused
}

#[test]
fn rejects_an_empty_prompt_and_an_empty_answer() {
    assert!(matches!(refusal(&[], 1), EngineError::EmptyInput));
    assert!(matches!(refusal(&[1], 0), EngineError::NothingAsked));
    let pack = synthetic::pack(&Shape::tiny(), 4).unwrap();
    let mut engine = Engine::new(&pack, &CpuDevice::new(1).unwrap()).unwrap();
    let mut heard = Heard::default();
    let recheck = engine.recheck(&[1], &[], &Sampler::Greedy, &mut heard);
    assert!(matches!(recheck, Err(EngineError::NothingAsked)));
    let recheck = engine.recheck(&[], &[1], &Sampler::Greedy, &mut heard);
    assert!(matches!(recheck, Err(EngineError::EmptyInput)));
    let request = Request {
        input_ids: vec![],
        max_new: 1,
        stop_ids: vec![],
        sampler: Sampler::Greedy,
    };
    let joined = engine.batch().join(request, Box::new(Heard::default()));
    assert!(matches!(joined, Err(EngineError::EmptyInput)));
}

#[test]
fn rejects_more_than_the_context_with_the_numbers() {
    assert_eq!(
        refusal(&prompt(500), 13).to_string(),
        "500 prompt ids + 13 new > context of 512; shorten the prompt or ask for less"
    );
    // Sums beyond 32 bits are no way around it.
    assert!(matches!(
        refusal(&prompt(500), u32::MAX),
        EngineError::ContextOverflow { .. }
    ));
}

#[test]
fn rejects_ids_outside_the_vocabulary() {
    assert_eq!(
        refusal(&[1, 320], 1).to_string(),
        "id 320 at 1 is not below the vocabulary of 320"
    );
}

/// The same pack with another program.
fn with_program(pack: &Pack, change: impl FnOnce(&mut Program)) -> Pack {
    let path = Path::new("changed");
    let mut writer = PackWriter::new(Cursor::new(Vec::new()), path).unwrap();
    for (entry, tensor) in pack.manifest().tensors.iter().zip(pack.tensors()) {
        writer
            .whole(
                &entry.name,
                tensor.dtype,
                tensor.rows,
                tensor.cols,
                (*tensor.bytes).as_ref(),
            )
            .unwrap();
    }
    let mut program = (*pack.program()).clone();
    change(&mut program);
    let info = pack.manifest().info.clone();
    let (sink, _) = writer.finish(info, program, pack.tokenizer_bytes()).unwrap();
    Pack::from_bytes(Arc::new(sink.into_inner()), path).unwrap()
}

#[test]
fn rejects_a_program_that_samples_but_looks_at_later_tokens() {
    let pack = synthetic::pack(&Shape::tiny(), 1).unwrap();
    let bidirectional = with_program(&pack, |p| {
        for site in &mut p.sites {
            if let Op::Attention { causal, .. } = &mut site.op {
                *causal = false;
            }
        }
    });
    bidirectional.program().validate().unwrap();
    let e = Engine::new(&bidirectional, &ReferenceDevice)
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(e, EngineError::NoAnswer(NoAnswer::Bidirectional)), "{e}");
    assert!(
        e.to_string().contains("causal attention, or as an encoder"),
        "{e}"
    );
    assert!(Engine::new(&with_program(&pack, |_| {}), &ReferenceDevice).is_ok());
}

#[test]
fn rejects_a_program_that_puts_nothing_out() {
    let pack = synthetic::pack(&Shape::tiny(), 1).unwrap();
    let mute = with_program(&pack, |p| drop(p.sites.pop()));
    mute.program().validate().unwrap();
    let e = Engine::new(&mute, &ReferenceDevice).map(|_| ()).unwrap_err();
    assert!(matches!(e, EngineError::NoAnswer(NoAnswer::Nothing)), "{e}");
}
