//! Runs of packs for tests: a transcript, and the rows behind it.

use std::sync::Arc;

use alloy_primitives::B256;
use bitai_kernels::{Device, Sampler as KernelSampler};
use bitai_model::{engine::Engine, pack::Pack};
use bitai_poc::{Header, Transcript, dispute::RunnerRegen};
use bitai_types::{Job, Sampler};

/// A greedy job on a pack.
pub(crate) fn job(pack: &Pack, input_ids: Vec<u32>, max_new: u32) -> Job {
    Job {
        model_root: B256::from(pack.root()),
        spec_version: 0,
        input_ids,
        max_new,
        stop_ids: vec![],
        sampler: Sampler::GREEDY,
        seed: 0,
    }
}

/// A finished run.
pub(crate) struct Run {
    pub(crate) transcript: Transcript,
    pub(crate) rows: RunnerRegen,
}

/// What a device answers over `prompt` (the job's own, if it is honest), with the transcript: it generates, or
/// re-checks claimed outputs.
pub(crate) fn answer(
    pack: &Pack,
    job: &Job,
    prompt: &[u32],
    device: &dyn Device,
    claimed: Option<&[u32]>,
) -> (Vec<u32>, Transcript) {
    let mut engine = Engine::new(pack, device).unwrap();
    let mut transcript = Transcript::new(Header::new(job, &pack.program()));
    let sampler = KernelSampler::Greedy;
    let outputs = match claimed {
        Some(ids) => {
            engine.recheck(prompt, ids, &sampler, &mut transcript).unwrap();
            ids.to_vec()
        }
        None => engine
            .generate(prompt, job.max_new, &[], &sampler, &mut transcript, &mut |_| {})
            .unwrap(),
    };
    (outputs, transcript)
}

/// The same with the rows behind it.
pub(crate) fn run(
    pack: &Pack,
    job: &Job,
    prompt: &[u32],
    device: &dyn Device,
    claimed: Option<&[u32]>,
) -> Run {
    let (outputs, transcript) = answer(pack, job, prompt, device, claimed);
    let ids = [prompt, &outputs[..outputs.len() - 1]].concat();
    let runner = device.load(Arc::clone(&pack.program()), &pack.tensors()).unwrap();
    let length = u32::try_from(prompt.len()).unwrap();
    Run {
        transcript,
        rows: RunnerRegen::new(runner, ids, length, KernelSampler::Greedy),
    }
}
