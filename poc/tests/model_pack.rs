//! Real packs under dispute: the model root that a judge computes is the one that packs carry, and a Llama
//! program that an engine ran is settled from it.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod common;

use alloy_primitives::{Address, B256, U256};
use bitai_kernels::{
    Device, ReferenceDevice, Sampler as KernelSampler,
    reference::ReferenceOps,
    testing::{Fault, FaultyDevice},
};
use bitai_model::{
    pack::{Pack as ModelPack, Profile},
    synthetic,
};
use bitai_poc::{
    Pack, TensorLine, Transcript,
    dispute::{Challenger, Claim, DisputeError, Game, Ground, Judge, Player, RunnerRegen, Verdict, play},
};
use bitai_types::Job;

/// A small Llama of one profile.
fn model(profile: Profile, tied: bool) -> ModelPack {
    let shape = synthetic::Shape {
        layers: 3,
        profile,
        tied,
        ..synthetic::Shape::tiny()
    };
    synthetic::pack(&shape, 4).unwrap()
}

/// The pack as a dispute's players open it.
fn opened(pack: &ModelPack) -> Pack {
    let (leaves, manifest) = (pack.leaves(), pack.manifest());
    let lines = manifest
        .tensors
        .iter()
        .map(|t| TensorLine {
            name: t.name.clone(),
            dtype: t.dtype,
            rows: t.rows,
            cols: t.cols,
            hash: t.hash,
        })
        .collect();
    Pack::with_lines(
        leaves.info,
        &manifest.program,
        lines,
        pack.tensors(),
        leaves.tokenizer,
    )
    .unwrap()
}

/// A run of a device, and a player who can explain it.
fn player(
    pack: &ModelPack,
    job: &Job,
    device: &dyn Device,
    claimed: Option<&[u32]>,
) -> (Vec<u32>, Transcript, Player<RunnerRegen>) {
    let program = pack.program();
    let run = common::run(pack, job, &job.input_ids, device, claimed);
    let player = Player::new(
        run.transcript.clone(),
        run.rows,
        opened(pack),
        (*program).clone(),
        KernelSampler::Greedy,
    )
    .unwrap();
    (run.transcript.outputs().to_vec(), run.transcript, player)
}

fn dispute(pack: &ModelPack, device: &dyn Device) -> Game {
    let job = common::job(pack, vec![256, 72, 105, 33, 10], 4);
    let (outputs, t, mut neuron) = player(pack, &job, device, None);
    let (_, _, doubter) = player(pack, &job, &ReferenceDevice, Some(&outputs));
    let branches = opened(pack).branches();
    let root = t.root().unwrap();
    let claim = Claim {
        chain_id: 31_337,
        hub: Address::repeat_byte(1),
        job_id: U256::from(5),
        neuron: Address::repeat_byte(2),
        job,
        outputs,
        root,
    };
    let mut judge = Judge::new(claim, (*pack.program()).clone(), branches).unwrap();
    let who = Address::repeat_byte(3);
    play(&mut judge, who, &mut Challenger::new(doubter), &mut neuron)
}

#[test]
fn a_packs_root_is_the_root_that_a_judge_computes() {
    for (profile, tied) in [(Profile::A, true), (Profile::B, false)] {
        let pack = model(profile, tied);
        let open = opened(&pack);
        assert_eq!(open.root(), B256::from(pack.root()));
        assert_eq!(open.branches().root(&pack.program()).unwrap(), open.root());
    }
}

#[test]
fn an_honest_engine_is_cleared_and_a_faulty_one_convicted() {
    for (profile, tied) in [(Profile::A, true), (Profile::B, false)] {
        let pack = model(profile, tied);
        assert_eq!(
            dispute(&pack, &ReferenceDevice).verdict,
            Verdict::Cleared(Ground::Silence)
        );
        let program = pack.program();
        let mut convicted = 0;
        for (site, s) in (0u32..).zip(&program.sites) {
            if s.layer != Some(1) || s.op.name() != "quant" {
                continue;
            }
            let fault = Fault {
                site,
                position: 5,
                element: 6,
            };
            let game = dispute(&pack, &FaultyDevice::new(ReferenceOps, fault));
            match game.verdict {
                Verdict::Guilty(ground) => {
                    assert_eq!(ground, Ground::Step("a quantised element"), "{game:#?}");
                    convicted += 1;
                }
                // Layer 1 is no checkpoint: a fault that later quantisations swallow commits nothing wrong.
                Verdict::Cleared(ground) => assert_eq!(ground, Ground::Silence, "{game:#?}"),
            }
        }
        assert!(convicted >= 3, "{convicted}");
    }
}

#[test]
fn rejects_a_dispute_of_an_encoder_when_it_is_set_up() {
    let pack = synthetic::encoder::pack(&synthetic::encoder::tiny(), 4).unwrap();
    let claim = Claim {
        chain_id: 22216,
        hub: Address::repeat_byte(1),
        job_id: U256::ONE,
        neuron: Address::repeat_byte(2),
        job: Job::embedding(B256::from(pack.root()), vec![2, 4, 3]),
        outputs: vec![0; 64],
        root: B256::repeat_byte(3).into(),
    };
    let judge = Judge::new(claim, (*pack.program()).clone(), opened(&pack).branches());
    let Err(DisputeError::Program(why)) = judge.map(|_| ()) else {
        panic!("a dispute of an encoder was set up")
    };
    assert!(why.contains("no dispute yet"), "{why}");
}
