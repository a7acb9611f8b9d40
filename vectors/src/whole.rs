//! Vectors of whole programs: the conformance suite's models, with what they sample and commit.

use anyhow::Result;
use bitai_kernels::{
    Device, ReferenceDevice, Sampler, SeqStep,
    conformance::{Case, build::Rng, cases},
};
use serde_json::{Value, json};

use crate::File;

pub(crate) fn files() -> Result<Vec<File>> {
    let runs = cases::models()
        .iter()
        .map(|c| run(&ReferenceDevice, c))
        .collect::<Result<Vec<_>>>()?;
    Ok(vec![File {
        name: "models.json",
        about: "programs and weights of the conformance suite (from seeds): prompt, sampler, sampled tokens and body roots",
        rules: vec![("MODEL", runs)],
    }])
}

/// One model on a device: a prompt, then six sampled tokens one by one.
fn run(device: &dyn Device, case: &Case) -> Result<Value> {
    let mut rng = Rng::new(&format!("vectors {}", case.name));
    let prompt: Vec<u32> = (0..7)
        .map(|_| rng.range(0, i64::from(case.program.vocab) - 1) as u32)
        .collect();
    let sampler = Sampler::Random {
        temperature_q16: 65_536,
        top_k: 20,
        top_p_q16: 62_000,
        seed: 42,
    };
    let mut runner = device.load(case.program.clone(), &case.tensors)?;
    let bidirectional = case.name.contains("bidirectional");
    let mut next = prompt.clone();
    let mut sampled: Vec<u32> = vec![];
    let seq = runner.open(16)?;
    for _ in 0..if bidirectional { 1 } else { 6 } {
        let step = SeqStep {
            seq,
            tokens: &next,
            sample: 1,
            sampler: &sampler,
        };
        next = runner.step(&[step], None)?.concat();
        sampled.extend(&next);
    }
    runner.hash(seq)?;
    let (_, bodies) = runner.take_bodies(seq, true)?;
    let bodies: Vec<String> = bodies.iter().map(hex::encode).collect();
    Ok(json!({"case": case.name, "prompt": prompt, "sampler": sampler, "sampled": sampled, "bodies": bodies}))
}
