//! A device that flips one integer: whoever checks its receipt names the first token that differs, and, where
//! that device can be run as well, the layer, the site and the number itself.

// A helper that unwraps says the same as a test that does.
#![allow(clippy::unwrap_used)]

use bitai_kernels::{
    Device, Op, ReferenceDevice, Site,
    reference::ReferenceOps,
    testing::{Fault, FaultyDevice},
};
use bitai_miner::{
    engine::{Loaded, kernel_sampler},
    receipt::Receipt,
    verify::{self, Claim, locate::Side},
};
use bitai_model::{
    arch::encoder::EncoderShape,
    pack::Pack,
    synthetic::{self, Shape, encoder},
};
use bitai_poc::{
    Header,
    dispute::{Regenerate, RunnerRegen},
    recheck::{Divergence, Part, first_layer},
};
use bitai_types::{Job, Sampler};

const LAYER: u32 = 5;
const POSITION: u32 = 11;

/// The site whose quantised key the layer caches: a wrong integer there is in the committed row itself.
/// (One unit in the residual could vanish in the rounding of the layers after it.)
fn site(pack: &Pack) -> u32 {
    let program = pack.program();
    let append = |s: &&bitai_kernels::Site| s.layer == Some(LAYER) && matches!(s.op, Op::KvAppend { .. });
    program.sites.iter().find(append).unwrap().inputs[0]
}

fn job(pack: &Pack) -> Job {
    Job {
        model_root: pack.root().into(),
        spec_version: 0,
        input_ids: (20..28).collect(),
        max_new: 8,
        stop_ids: vec![],
        sampler: Sampler::GREEDY,
        seed: 0,
    }
}

/// What a neuron on this device claims.
fn claim(pack: &Pack, device: &dyn Device, job: &Job) -> Claim {
    let run = Loaded::on(pack, device)
        .unwrap()
        .answer(job, &mut |_| ())
        .unwrap();
    let receipt = Receipt::new("tiny", job.clone(), String::new(), &run).unwrap();
    Claim {
        transcript: receipt.transcript(),
        job: job.clone(),
        output_ids: receipt.output_ids,
        trace_root: receipt.trace_root,
        who: None,
        registered: None,
    }
}

fn rows(pack: &Pack, device: &dyn Device, job: &Job, outputs: &[u32]) -> RunnerRegen {
    let runner = device.load(pack.program(), &pack.tensors()).unwrap();
    let ids = [&job.input_ids[..], &outputs[..outputs.len() - 1]].concat();
    let prompt = u32::try_from(job.input_ids.len()).unwrap();
    RunnerRegen::new(runner, ids, prompt, kernel_sampler(job))
}

#[test]
fn one_flipped_integer_is_named_by_its_token_and_layer() {
    let pack = synthetic::pack(&Shape::tiny(), 7).unwrap();
    let fault = Fault {
        site: site(&pack),
        position: POSITION,
        element: 3,
    };
    let wrong = FaultyDevice::new(ReferenceOps, fault);
    let job = job(&pack);
    let claim = claim(&pack, &wrong, &job);
    let outputs = claim.output_ids.clone();
    let mut honest = Loaded::on(&pack, &ReferenceDevice).unwrap();
    let found = verify::check(&mut honest, &claim).unwrap();
    assert!(!found.ok);
    assert!(
        found.finding.contains(&format!("token {POSITION}")),
        "{}",
        found.finding
    );
    // Without the claimant's transcript the roots still differ.
    assert!(
        !verify::check(
            &mut honest,
            &Claim {
                transcript: None,
                ..claim
            }
        )
        .unwrap()
        .ok
    );

    let program = pack.program();
    let header = Header::new(&job, &program);
    let layers = |device: &dyn Device| {
        let token = rows(&pack, device, &job, &outputs).token(POSITION).unwrap();
        token.layers(&program, &header).unwrap()
    };
    let parted = first_layer(POSITION, &layers(&ReferenceDevice), &layers(&wrong)).unwrap();
    let there = Divergence::Token {
        pos: POSITION,
        what: Part::Kv(LAYER),
    };
    assert_eq!(parted, there);
}

/// A fault at every kind of site: where the trace shows it at all, exactly that number is named.
#[test]
fn the_other_way_of_computing_names_layer_site_and_number() {
    let pack = synthetic::pack(&Shape::tiny(), 7).unwrap();
    let program = pack.program();
    let job = job(&pack);
    let mut honest = Loaded::on(&pack, &ReferenceDevice).unwrap();
    let here = Side {
        pack: &pack,
        device: &ReferenceDevice,
    };
    let (mut named, mut swallowed) = (Vec::new(), 0);
    for (site, s) in (0u32..).zip(&program.sites) {
        let outside = s.layer.is_none();
        let names_itself = matches!(s.op, Op::KvAppend { .. } | Op::Out);
        if !(outside || s.layer == Some(LAYER)) || names_itself {
            continue;
        }
        let fault = Fault {
            site,
            position: POSITION,
            element: usize::from(!matches!(s.op, Op::Sample { .. })) * 3,
        };
        let wrong = FaultyDevice::new(ReferenceOps, fault);
        let claim = claim(&pack, &wrong, &job);
        let there = Side {
            pack: &pack,
            device: &wrong,
        };
        let found = verify::check_against(&mut honest, here, there, "wrong", &claim).unwrap();
        let against = found.against.unwrap();
        assert!(
            against.is_claim,
            "{fault:?}: the faulty device computed the claim"
        );
        if found.ok {
            swallowed += 1;
            continue;
        }
        let place = against
            .place
            .unwrap_or_else(|| panic!("{fault:?}: {}", found.finding));
        assert_eq!(
            (place.token, place.layer, place.site, place.index),
            (POSITION, s.layer, site, fault.element),
            "{place}"
        );
        assert!(found.finding.contains(&place.to_string()), "{}", found.finding);
        named.push(place.name);
    }
    // A unit in an int32 row that is quantised next is often rounded away; what reaches the trace is named.
    for name in [
        "quant of attn_norm",
        "quant of rope of attn_q",
        "quant of attn_v",
        "attn_output",
        "residual after attn_output",
        "quant of glu of ffn_gate",
        "ffn_down",
        "residual after ffn_down",
        "sample",
    ] {
        assert!(named.iter().any(|n| n == name), "{name} is not among {named:?}");
    }
    assert!(
        named.len() >= 12,
        "{swallowed} faults left no trace, only {named:?} did"
    );
}

#[test]
fn a_part_is_compared_alone_and_says_what_it_compared() {
    let pack = synthetic::pack(&Shape::tiny(), 7).unwrap();
    let fault = Fault {
        site: site(&pack),
        position: POSITION,
        element: 3,
    };
    let job = job(&pack);
    let claim = claim(&pack, &FaultyDevice::new(ReferenceOps, fault), &job);
    let mut honest = Loaded::on(&pack, &ReferenceDevice).unwrap();
    let mut part = |claim: &Claim, from, to| verify::check_part(&mut honest, claim, from, to);
    let before = part(&claim, None, Some(POSITION - 1)).unwrap();
    assert!(before.ok, "{}", before.finding);
    assert_eq!(
        before.positions, POSITION as usize,
        "nothing behind the part is computed"
    );
    assert_eq!(before.part, Some((0, POSITION - 1)));
    let inside = part(&claim, Some(2), Some(4)).unwrap();
    assert!(inside.ok, "a part of the prompt: {}", inside.finding);
    for from in [None, Some(POSITION)] {
        let found = part(&claim, from, None).unwrap();
        assert!(!found.ok);
        assert!(
            found.finding.contains(&format!("token {POSITION}")),
            "{}",
            found.finding
        );
    }
    // Without a transcript only what was sampled can be compared, and that is said.
    let mut bare = claim.clone();
    bare.transcript = None;
    let honest_run = part(&bare, Some(9), Some(10)).unwrap();
    assert!(
        honest_run.ok && honest_run.finding.contains("not compared"),
        "{}",
        honest_run.finding
    );
    bare.output_ids[2] ^= 1;
    let found = part(&bare, Some(9), Some(10)).unwrap();
    assert!(
        !found.ok && found.finding.contains("sampled"),
        "{}",
        found.finding
    );
    assert_eq!(
        part(&bare, Some(1), Some(3)).unwrap_err().code(),
        2,
        "nothing to compare"
    );
    assert_eq!(part(&claim, Some(3), Some(2)).unwrap_err().code(), 2);
    assert_eq!(
        part(&claim, None, Some(15)).unwrap_err().code(),
        2,
        "positions 0 to 14"
    );
}

/// Of an encoder whose last layer is no checkpoint only the words tell; the token is found by the rows that are pooled.
#[test]
fn a_wrong_integer_behind_an_encoders_last_checkpoint_is_named() {
    let deep = EncoderShape {
        layers: 17,
        ..encoder::tiny()
    };
    let pack = encoder::pack(&deep, 7).unwrap();
    let program = pack.program();
    let adds = |(_, s): &(u32, &Site)| s.layer == Some(16) && matches!(s.op, Op::Add);
    // The residual before the last norm of the last layer.
    let (site, _) = (0..program.sites.len() as u32)
        .zip(&program.sites)
        .rev()
        .find(adds)
        .unwrap();
    let job = Job::embedding(pack.root().into(), vec![2, 4, 5, 6, 3]);
    let fault = |element| Fault {
        site,
        position: 1,
        element,
    };
    let mut honest = Loaded::on(&pack, &ReferenceDevice).unwrap();
    let here = Side {
        pack: &pack,
        device: &ReferenceDevice,
    };
    // One unit may be rounded away on its way to the words.
    let place = (0..64).find_map(|element| {
        let wrong = FaultyDevice::new(ReferenceOps, fault(element));
        let claim = claim(&pack, &wrong, &job);
        let there = Side {
            pack: &pack,
            device: &wrong,
        };
        let found = verify::check_against(&mut honest, here, there, "wrong", &claim).unwrap();
        let place = found.against.unwrap().place;
        assert_eq!(found.ok, place.is_none(), "{}", found.finding);
        place.map(|place| (place, element))
    });
    let (place, element) = place.unwrap();
    assert_eq!((place.token, place.layer), (1, Some(16)), "{place}");
    assert_eq!((place.site, place.index), (site, element), "{place}");
}
