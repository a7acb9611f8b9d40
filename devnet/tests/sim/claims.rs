//! What a neuron claims in a case: an honest answer, a lie of the kit, or a run with one wrong integer anywhere.

use std::sync::Arc;

use bitai_devnet::liar::{self, Kind};
use bitai_kernels::{
    Device, Op, ReferenceDevice,
    reference::ReferenceOps,
    testing::{Fault, FaultyDevice},
};
use bitai_miner::{
    dispute::{Explainer, Mover, Shelf, opened},
    engine::Loaded,
};
use bitai_model::pack::Pack;
use bitai_poc::{
    TraceRoot, Transcript,
    dispute::{Challenger, Claim, Defend, Player, RunnerRegen, kernel_sampler},
};
use bitai_types::{Job, Sampler};

use crate::dice::Dice;

/// What is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// What an honest run gives.
    Honest,
    /// A lie of the kit.
    Kit(Kind),
    /// One wrong integer, and all that follows from it.
    Fault(Fault),
}

/// Lies of the kit that a neuron tells by what it reveals or answers.
const KINDS: [Kind; 21] = [
    Kind::Linear,
    Kind::Attention,
    Kind::Quant,
    Kind::Scale,
    Kind::Embed,
    Kind::Norm,
    Kind::Rope,
    Kind::Glu,
    Kind::Add,
    Kind::Out,
    Kind::Kv,
    Kind::Token,
    Kind::Draw,
    Kind::Truncated,
    Kind::Short,
    Kind::Output,
    Kind::Weights,
    Kind::Root,
    Kind::Opening,
    Kind::Silence,
    Kind::Late,
];

/// A lie of the kit that this model has a site for.
pub(crate) fn kind(dice: &mut Dice, pack: &Pack) -> Kind {
    let has_out = !pack.program().checkpoints().is_empty();
    match dice.pick(&KINDS) {
        Kind::Out if !has_out => Kind::Kv,
        kind => kind,
    }
}

/// What a neuron reveals, and who explains it.
pub(crate) struct Told {
    pub(crate) outputs: Vec<u32>,
    pub(crate) root: TraceRoot,
    pub(crate) explainer: Explainer,
}

/// A small job of this model.
pub(crate) fn job(dice: &mut Dice, pack: &Pack) -> Job {
    let vocab = pack.program().vocab;
    let sampler = if dice.percent(50) {
        Sampler::GREEDY
    } else {
        Sampler {
            temperature_q16: 30_000 + dice.small(60_000),
            top_k: dice.pick(&[0, 3, 40]),
            top_p_q16: 20_000 + dice.small(45_000),
        }
    };
    Job {
        model_root: pack.root().into(),
        spec_version: 0,
        input_ids: (0..2 + dice.small(9)).map(|_| dice.small(vocab)).collect(),
        max_new: 1 + dice.small(6),
        stop_ids: vec![],
        sampler,
        seed: dice.below(u64::MAX),
    }
}

/// Makes the job one that can be lied about so.
pub(crate) fn make_room(dice: &mut Dice, job: &mut Job, kind: Kind) {
    match kind {
        Kind::Draw if job.sampler == Sampler::GREEDY => {
            job.sampler = Sampler {
                temperature_q16: 30_000 + dice.small(60_000),
                top_k: dice.pick(&[0, 3, 40]),
                top_p_q16: 20_000 + dice.small(45_537),
            };
        }
        Kind::Truncated => {
            job.max_new = 3 + dice.small(4);
            // Above the bytes, seldom the most likely id.
            job.stop_ids = vec![257];
        }
        _ => {}
    }
}

/// A wrong integer somewhere.
pub(crate) fn fault(dice: &mut Dice, pack: &Pack, job: &Job) -> Fault {
    let program = pack.program();
    let positions = u32::try_from(job.input_ids.len()).unwrap() + job.max_new - 1;
    loop {
        let site = dice.small(u32::try_from(program.sites.len()).unwrap());
        let op = &program.sites[site as usize].op;
        if matches!(op, Op::KvAppend { .. } | Op::Out) {
            continue;
        }
        let is_draw = matches!(op, Op::Sample { .. });
        let least = if is_draw {
            u32::try_from(job.input_ids.len()).unwrap() - 1
        } else {
            0
        };
        return Fault {
            site,
            position: least + dice.small(positions - least),
            // No row has fewer elements, a draw but one.
            element: if is_draw { 0 } else { dice.index(16) },
        };
    }
}

fn player(pack: &Pack, device: &dyn Device, job: &Job, transcript: Transcript) -> Player<RunnerRegen> {
    let fed = transcript.outputs().split_last().map_or(&[][..], |(_, fed)| fed);
    let ids = [&job.input_ids[..], fed].concat();
    let runner = device.load(pack.program(), &pack.tensors()).unwrap();
    let prompt = u32::try_from(job.input_ids.len()).unwrap();
    let regen = RunnerRegen::new(runner, ids, prompt, kernel_sampler(job));
    let program = (*pack.program()).clone();
    Player::new(
        transcript,
        regen,
        opened(pack).unwrap(),
        program,
        kernel_sampler(job),
    )
    .unwrap()
}

fn faulty(fault: Fault) -> FaultyDevice<ReferenceOps> {
    FaultyDevice::new(ReferenceOps, fault)
}

/// What the neuron says about a job.
pub(crate) fn tell(shelf: &Arc<Shelf>, job: &Job, what: What) -> Told {
    let pack = shelf.pack(job.model_root).unwrap();
    let run = |device: &dyn Device| {
        let run = Loaded::on(&pack, device)
            .unwrap()
            .answer(job, &mut |_| ())
            .unwrap();
        let root = run.trace_root;
        let player = player(&pack, device, job, run.transcript);
        (root, player)
    };
    let of = |(root, mut player): (TraceRoot, Player<RunnerRegen>)| {
        let outputs = player.run().1.outputs().to_vec();
        Told {
            outputs,
            root,
            explainer: Box::new(player) as Box<dyn Defend + Send>,
        }
    };
    match what {
        What::Honest => of(run(&ReferenceDevice)),
        What::Fault(fault) => of(run(&faulty(fault))),
        What::Kit(kind) => {
            let lie = liar::lie(&pack, &ReferenceDevice, job, kind).unwrap();
            Told {
                outputs: lie.outputs,
                root: lie.root,
                explainer: lie.explainer,
            }
        }
    }
}

/// A challenger whose own run is wrong.
pub(crate) fn wrong_doubter(shelf: &Arc<Shelf>, claim: &Claim, fault: Fault) -> Option<Mover> {
    let pack = shelf.pack(claim.job.model_root).unwrap();
    let device = faulty(fault);
    let run = Loaded::on(&pack, &device)
        .unwrap()
        .recheck(&claim.job, &claim.outputs, &mut |_| ())
        .ok()?;
    let made = player(&pack, &device, &claim.job, run.transcript);
    Some(Box::new(Challenger::new(made)))
}
