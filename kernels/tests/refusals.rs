//! What programs, tensors and batches are refused, and that a refusal changes nothing.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use proptest::prelude::*;

use bitai_kernels::{
    Device, HostTensor, KernelError, Op, Program, ReferenceDevice, Sampler, SeqId, SeqStep,
    conformance::{Case, Shape},
};

fn case() -> Case {
    Shape::SMALL.build("refusals")
}

/// The message for a program with one thing changed.
fn refused(change: impl FnOnce(&mut Program)) -> String {
    let mut program = (*case().program).clone();
    program.validate().unwrap();
    change(&mut program);
    program.validate().unwrap_err().to_string()
}

/// The first site that `f` picks.
fn find(p: &mut Program, f: impl Fn(&Op) -> bool) -> &mut bitai_kernels::Site {
    p.sites.iter_mut().find(|s| f(&s.op)).unwrap()
}

fn assert_says(message: &str, part: &str) {
    assert!(message.contains(part), "{message:?} does not say {part:?}");
}

#[test]
fn rejects_numbers_out_of_range() {
    assert_says(&refused(|p| p.layers = 0), "layers is 0");
    assert_says(&refused(|p| p.context = 131_073), "context is 131073");
    assert_says(&refused(|p| p.vocab = u32::MAX), "vocab");
    assert_says(&refused(|p| p.checkpoint_stride = 0), "checkpoint_stride");
    assert_says(&refused(|p| p.d_model = 32_769), "d_model");
    assert_says(&refused(|p| p.head_dim = 1_025), "head_dim");
}

#[test]
fn rejects_sites_out_of_order() {
    assert_says(&refused(|p| p.sites[1].inputs = vec![1]), "not before it");
    assert_says(&refused(|p| p.sites[1].inputs = vec![u32::MAX]), "not before it");
    assert_says(&refused(|p| p.sites[1].layer = Some(9)), "layer 9 of 2");
    assert_says(&refused(|p| p.sites[1].layer = Some(1)), "a later layer");
    assert_says(&refused(|p| p.sites[3].layer = None), "epilogue comes before");
    assert_says(&refused(|p| p.layers = 3), "layer 2");
    let out_of_no_layer = refused(|p| find(p, |o| matches!(o, Op::Out)).layer = None);
    assert_says(&out_of_no_layer, "needs a layer");
    let twice = refused(|p| {
        let sample = p.sites.last().unwrap().clone();
        p.sites.push(sample);
    });
    assert_says(&twice, "not the last site");
}

#[test]
fn rejects_wrong_arity_and_kinds() {
    assert_says(&refused(|p| p.sites[0].inputs = vec![0]), "not before it");
    assert_says(&refused(|p| p.sites[1].inputs = vec![]), "reads 0 sites, needs 1");
    assert_says(
        &refused(|p| p.sites[1].inputs = vec![0, 0]),
        "reads 2 sites, needs 1",
    );
    let linear_of_acts = refused(|p| find(p, |o| matches!(o, Op::Linear { .. })).inputs = vec![0]);
    assert_says(&linear_of_acts, "needs quantised rows");
    let add_of_quant = refused(|p| find(p, |o| matches!(o, Op::Add)).inputs = vec![0, 2]);
    assert_says(&add_of_quant, "needs int32 rows");
    let no_cache = refused(|p| find(p, |o| matches!(o, Op::Attention { .. })).inputs = vec![8, 8]);
    assert_says(&no_cache, "not its layer's KvAppend");
}

#[test]
fn rejects_shapes_that_do_not_meet() {
    let set = |f: fn(&mut Op)| refused(|p| p.sites.iter_mut().for_each(|s| f(&mut s.op)));
    let k = set(|o| {
        if let Op::Linear { k, .. } = o {
            *k += 1;
        }
    });
    assert_says(&k, "k is 65");
    let segments = set(|o| {
        if let Op::Linear { k_segments, .. } = o {
            *k_segments = 3;
        }
    });
    assert_says(&segments, "k_segments is 3");
    let unsplit = set(|o| {
        if let Op::Linear { k_segments, .. } = o {
            *k_segments = 2;
        }
    });
    assert_says(&unsplit, "need input groups of k / segments");
    let vocab = refused(|p| p.vocab = 41);
    assert_says(&vocab, "40 logits, the vocabulary is 41");
    let wht = set(|o| {
        if let Op::Quant { wht, .. } = o {
            *wht = 24;
        }
    });
    assert_says(&wht, "transform block 24");
    let planes = set(|o| {
        if let Op::Quant { planes, .. } = o {
            *planes = 3;
        }
    });
    assert_says(&planes, "planes is 3");
    let bits = set(|o| {
        if let Op::Attention { p_bits, .. } = o {
            *p_bits = 16;
        }
    });
    assert_says(&bits, "p_bits is 16");
    let heads = set(|o| {
        if let Op::Attention { heads, .. } = o {
            *heads = 3;
        }
    });
    assert_says(&heads, "do not share");
    let fraction = set(|o| {
        if let Op::Glu { f, .. } = o {
            *f = 31;
        }
    });
    assert_says(&fraction, "31 fraction bits");
    let cached = refused(|p| p.kv_heads = 1);
    assert_says(&cached, "the program says 1 of 16");
    let group = set(|o| {
        if let Op::RmsNorm { group, .. } = o {
            *group = 0;
        }
    });
    assert_says(&group, "groups of 0");
}

/// The message of loading with one tensor changed.
fn load_refused(case: &Case, id: usize, change: impl FnOnce(&mut HostTensor, &mut Vec<u8>)) -> String {
    let mut tensors = case.tensors.clone();
    let mut bytes = tensors[id].data().to_vec();
    change(&mut tensors[id], &mut bytes);
    tensors[id].bytes = Arc::new(bytes);
    let direct = bitai_kernels::load::check(&case.program, &tensors)
        .unwrap_err()
        .to_string();
    let loaded = ReferenceDevice.load(case.program.clone(), &tensors);
    assert_eq!(loaded.err().unwrap().to_string(), direct);
    direct
}

#[test]
fn rejects_tensors_of_other_shapes_types_and_lengths() {
    let case = case();
    assert_says(
        &load_refused(&case, 0, |t, _| t.rows -= 1),
        "is I8 [39, 64], the program needs I8 [40, 64]",
    );
    let dtype = load_refused(&case, 0, |t, _| t.dtype = bitai_kernels::DType::U8);
    assert_says(&dtype, "is U8");
    assert_says(
        &load_refused(&case, 0, |_, b| b.truncate(9)),
        "has 9 bytes, its shape needs 2560",
    );
    let fewer = ReferenceDevice.load(case.program.clone(), &case.tensors[..3]);
    assert_says(&fewer.err().unwrap().to_string(), "the pack holds 3");
}

#[test]
fn rejects_weights_that_could_overflow() {
    let case = case();
    assert_says(&load_refused(&case, 0, |_, b| b[70] = 0x80), "row 1 holds -128");
    let grouped = Shape {
        grouped: true,
        ..Shape::SMALL
    }
    .build("refusals grouped");
    let mult = grouped.program.sites.iter().find_map(|s| match &s.op {
        Op::Linear { weight, .. } => weight.mult,
        _ => None,
    });
    for bad in [0, 16, 255] {
        let message = load_refused(&grouped, mult.unwrap() as usize, |_, b| b[3] = bad);
        assert_says(&message, &format!("holds multiplier {bad}"));
    }
    // 127 * 15 * 8832 * 128 passes 2^31; 8800 elements do not.
    for (k, fits) in [(8_800usize, true), (8_832, false)] {
        let w = bitai_kernels::program::Weight {
            q: 0,
            scale: 1,
            mult: Some(2),
            bias: None,
        };
        use bitai_kernels::DType;
        let tensors = [
            HostTensor::owned(DType::I8, 1, k, vec![127; k]),
            HostTensor::owned(DType::Scale, 1, 1, vec![0; 4]),
            HostTensor::owned(DType::U8, 1, k / 32, vec![15; k / 32]),
        ];
        let loaded = bitai_kernels::load::weight(&tensors, &w, 1, k);
        assert_eq!(loaded.is_ok(), fits, "{k}");
    }
}

#[test]
fn a_refused_batch_moves_no_sequence() {
    let case = case();
    let mut run = ReferenceDevice.load(case.program.clone(), &case.tensors).unwrap();
    let (a, b) = (run.open(8).unwrap(), run.open(4).unwrap());
    let sampler = Sampler::Greedy;
    let step = |seq, tokens: &'static [u32], sample| SeqStep {
        seq,
        tokens,
        sample,
        sampler: &sampler,
    };
    let good = step(a, &[1, 2, 3], 1);
    let bad = [
        (step(b, &[1, 2, 3, 4, 5], 0), "5 more do not fit"),
        (step(b, &[40], 0), "below 40"),
        (step(b, &[], 0), "at least 1"),
        (step(b, &[1], 2), "at most 1"),
        (step(a, &[1], 0), "twice"),
        (step(SeqId(99), &[1], 0), "unknown sequence 99"),
    ];
    for (bad, says) in bad {
        let error = run.step(&[good.clone(), bad], None).unwrap_err();
        assert_says(&error.to_string(), says);
        assert_eq!((run.len(a).unwrap(), run.len(b).unwrap()), (0, 0));
    }
    let want = run.step(std::slice::from_ref(&good), None).unwrap();
    let fresh = run.open(8).unwrap();
    let again = run.step(&[SeqStep { seq: fresh, ..good }], None).unwrap();
    assert_eq!(want, again);
    assert!(matches!(
        run.open(49),
        Err(KernelError::ContextFull { max: 48, .. })
    ));
    run.close(a);
    run.close(a);
    assert!(run.len(a).is_err() && run.hash(a).is_err() && run.take_bodies(a, true).is_err());
}

#[test]
fn bodies_come_in_order_and_once() {
    let case = case();
    let mut run = ReferenceDevice.load(case.program.clone(), &case.tensors).unwrap();
    let seq = run.open(8).unwrap();
    let sampler = Sampler::Greedy;
    let step = |tokens| SeqStep {
        seq,
        tokens,
        sample: 0,
        sampler: &sampler,
    };
    run.step(&[step(&[1, 2, 3])], None).unwrap();
    assert_eq!(run.take_bodies(seq, true).unwrap(), (0, vec![]));
    run.hash(seq).unwrap();
    run.step(&[step(&[4, 5])], None).unwrap();
    let (first, bodies) = run.take_bodies(seq, true).unwrap();
    assert_eq!((first, bodies.len()), (0, 3));
    run.hash(seq).unwrap();
    let (first, more) = run.take_bodies(seq, true).unwrap();
    assert_eq!((first, more.len()), (3, 2));
    assert!(more.iter().all(|b| !bodies.contains(b)));
}

proptest! {
    /// Whatever bytes a manifest's sites hold: refused, or run without a panic.
    #[test]
    fn no_site_record_panics(changes in prop::collection::vec((0usize..48, 0usize..104, any::<u8>()), 1..4)) {
        let case = case();
        let mut program = (*case.program).clone();
        for (site, at, byte) in changes {
            let i = site % program.sites.len();
            let mut record = program.sites[i].encode().unwrap();
            record[at] = byte;
            if let Ok(changed) = bitai_kernels::Site::decode(&record) {
                program.sites[i] = changed;
            }
        }
        if program.validate().is_ok()
            && let Ok(mut run) = ReferenceDevice.load(Arc::new(program), &case.tensors)
        {
            let seq = run.open(3).unwrap();
            let step = SeqStep { seq, tokens: &[1, 2, 3], sample: 1, sampler: &Sampler::Greedy };
            run.step(&[step], None).unwrap();
            run.hash(seq).unwrap();
        }
    }
}
