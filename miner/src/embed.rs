//! `infer --embed`: one text as an encoder's row of integers on this machine.

use std::time::Instant;

use bitai_kernels::{Hash, Trace};
use bitai_model::{arch::encoder::F_ENCODER, engine::Engine, pack::Pack, tokenizer::Tokenizer};

use crate::{
    cli::InferArgs,
    config::Layers,
    engine::{device, engine_failure},
    exit::Failure,
    models::Listed,
};

/// Elements that are shown to people; JSON has all.
const SHOWN: usize = 8;

/// The roots that a run commits to, a root a layer.
#[derive(Default)]
struct LayerRoots(Vec<Hash>);

impl Trace for LayerRoots {
    fn bodies(&mut self, _: u32, bodies: &[Hash]) {
        self.0.extend(bodies);
    }
    fn sampled(&mut self, _: u32, _: u32) {}
}

/// Runs the command for an encoder.
pub fn run(
    model: &Listed,
    pack: &Pack,
    tokenizer: &Tokenizer,
    layers: &Layers,
    args: &InferArgs,
) -> Result<(), Failure> {
    let ids = tokenizer
        .sentence(&args.prompt)
        .map_err(|e| Failure::Usage(format!("text: {e}")))?;
    let device = device(layers.device(&args.device))?;
    let mut engine = Engine::new(pack, device.as_ref()).map_err(engine_failure)?;
    let mut roots = LayerRoots::default();
    let started = Instant::now();
    let row = engine.embed(&ids, &mut roots).map_err(engine_failure)?;
    let took = started.elapsed();
    let root = bitai_kernels::rows::merkle_root(&roots.0);
    // Exact: the integers are below 2^31 and the divisor is a power of two. For people only.
    let real: Vec<f64> = row
        .iter()
        .map(|v| f64::from(*v) / f64::from(1u32 << F_ENCODER))
        .collect();
    if args.json {
        let object = serde_json::json!({
            "model": model.name,
            "model_root": model.model_root,
            "input_ids": ids,
            "integers": row,
            "fraction_bits": F_ENCODER,
            "embedding": real,
            "layers_root": format!("0x{}", hex::encode(root)),
            "seconds": took.as_secs_f64(),
            "device": device.info().name,
        });
        println!("{object}");
        return Ok(());
    }
    let shown: Vec<String> = real.iter().take(SHOWN).map(|v| format!("{v:.4}")).collect();
    println!("model       {} ({:#x})", model.name, model.model_root);
    println!("tokens      {} in, the ends included", ids.len());
    println!(
        "embedding   {} elements in Q{F_ENCODER}: {} ... (all: --json)",
        row.len(),
        shown.join(", ")
    );
    println!("layers root 0x{}", hex::encode(root));
    println!(
        "time        {:.3} s on {}",
        took.as_secs_f64(),
        device.info().name
    );
    Ok(())
}
