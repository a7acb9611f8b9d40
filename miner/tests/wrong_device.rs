//! A device that flips one integer: whoever checks its receipt names the first token that differs, and with the
//! rows of that token the first layer.

// A helper that unwraps says the same as a test that does.
#![allow(clippy::unwrap_used)]

use bitai_kernels::{
    Device, Op, ReferenceDevice,
    reference::ReferenceOps,
    testing::{Fault, FaultyDevice},
};
use bitai_miner::{
    engine::{Loaded, kernel_sampler},
    receipt::Receipt,
    verify::{self, Claim},
};
use bitai_model::{
    pack::Pack,
    synthetic::{self, Shape},
};
use bitai_poc::{
    Header,
    dispute::{Regenerate, RunnerRegen},
    recheck::{Part, first_layer},
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
    let job = Job {
        model_root: pack.root().into(),
        spec_version: 0,
        input_ids: (20..28).collect(),
        max_new: 8,
        stop_ids: vec![],
        sampler: Sampler::GREEDY,
        seed: 0,
    };
    let run = Loaded::on(&pack, &wrong)
        .unwrap()
        .answer(&job, &mut |_| ())
        .unwrap();
    let receipt = Receipt::new("tiny", job.clone(), String::new(), &run).unwrap();

    let claim = Claim {
        transcript: receipt.transcript(),
        job: job.clone(),
        output_ids: receipt.output_ids.clone(),
        trace_root: receipt.trace_root,
        who: None,
    };
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
        let token = rows(&pack, device, &job, &receipt.output_ids)
            .token(POSITION)
            .unwrap();
        token.layers(&program, &header).unwrap()
    };
    let parted = first_layer(POSITION, &layers(&ReferenceDevice), &layers(&wrong)).unwrap();
    assert_eq!((parted.pos, parted.what), (POSITION, Part::Kv(LAYER)));
}
