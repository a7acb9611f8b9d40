//! `infer`: one answer or embedding on this machine, with a receipt that anyone can verify.

use std::{io::Write, path::PathBuf};

use alloy_primitives::B256;
use bitai_model::{engine::EngineError, tokenizer::Tokenizer};
use bitai_types::{Job, Sampler, job::SPEC_VERSION};

use crate::{
    cli::{InferArgs, SamplingArgs},
    config::Layers,
    datadir::DataDir,
    embed::{self, Embedding},
    engine::{Loaded, Run, engine_failure},
    exit::Failure,
    models::{self, Listed},
    receipt::Receipt,
};

/// The job that a prompt and its options mean.
pub fn job(
    tokenizer: &Tokenizer,
    model_root: B256,
    prompt: &str,
    options: &SamplingArgs,
) -> Result<Job, Failure> {
    let ids = if options.raw {
        tokenizer.encode(prompt)
    } else {
        tokenizer.prompt(prompt)
    };
    let input_ids = ids.map_err(|e| Failure::Usage(format!("prompt: {e}")))?;
    let greedy = options.temperature == 0;
    if greedy && (options.top_k != 0 || options.top_p != 65536 || options.seed != 0) {
        return Err(Failure::Usage(
            "--top-k, --top-p and --seed mean nothing at temperature 0; give --temperature".into(),
        ));
    }
    Ok(Job {
        model_root,
        spec_version: SPEC_VERSION,
        input_ids,
        max_new: options.max_new,
        stop_ids: tokenizer.special().stop.clone(),
        sampler: if greedy {
            Sampler::GREEDY
        } else {
            Sampler {
                temperature_q16: options.temperature,
                top_k: options.top_k,
                top_p_q16: options.top_p,
            }
        },
        seed: options.seed,
    })
}

/// The job that a prompt, or with `embed` a text, means to a model; refused where the model is of the other kind or the
/// hub would refuse it.
pub fn job_for(
    model: &Listed,
    tokenizer: &Tokenizer,
    prompt: &str,
    embed: bool,
    options: &SamplingArgs,
) -> Result<Job, Failure> {
    let job = if embed {
        embed::job(tokenizer, model, prompt)?
    } else if model.shape.embeds() {
        return Err(engine_failure(EngineError::NotADecoder));
    } else {
        job(tokenizer, model.model_root, prompt, options)?
    };
    job.check(&model.shape)?;
    Ok(job)
}

/// Text of output ids.
pub fn text(tokenizer: &Tokenizer, ids: &[u32]) -> Result<String, Failure> {
    tokenizer
        .decode(ids)
        .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("decoding the answer")))
}

/// Tokens a second, for people.
pub fn rate(tokens: usize, took: std::time::Duration) -> f64 {
    tokens as f64 / took.as_secs_f64().max(1e-9)
}

/// Prints text as it becomes certain. A pipe that closes early is no reason to lose the receipt.
struct Printer<'t> {
    stream: bitai_model::tokenizer::TextStream<'t>,
    on: bool,
}

impl Printer<'_> {
    fn push(&mut self, id: u32) {
        if self.on
            && let Ok(piece) = self.stream.push(id)
        {
            let mut out = std::io::stdout();
            let _ = out.write_all(piece.as_bytes()).and_then(|()| out.flush());
        }
    }
}

/// Runs the command.
pub fn run(data: &DataDir, layers: &Layers, args: &InferArgs) -> Result<(), Failure> {
    let (model, pack) = models::open(data, args.model.as_deref())?;
    let tokenizer = models::tokenizer(&pack)?;
    // Refused before the model is loaded: its numbers are in the manifest.
    let job = job_for(&model, &tokenizer, &args.prompt, args.embed, &args.sampling)?;
    let mut loaded = Loaded::new(&pack, layers.device(&args.device))?;
    let mut printer = Printer {
        stream: tokenizer.stream(),
        on: !args.json,
    };
    let run = loaded.answer(&job, &mut |id| printer.push(id))?;
    let text = if args.embed {
        String::new()
    } else {
        text(&tokenizer, run.transcript.outputs())?
    };
    let receipt = Receipt::new(&model.name, job, text, &run)?;
    let path = args
        .out
        .clone()
        .unwrap_or_else(|| data.receipts().join(Receipt::file_name(receipt.trace_root)));
    receipt.write(&path)?;
    if args.embed {
        report_embedding(args.json, &receipt, &run, &loaded.info.name, path);
        return Ok(());
    }
    report(args.json, &receipt, &run, &loaded.info.name, path)
}

fn report_embedding(json: bool, receipt: &Receipt, run: &Run, device: &str, path: PathBuf) {
    let embedding = Embedding::of(&receipt.output_ids);
    if json {
        let object = serde_json::json!({
            "model": receipt.model,
            "model_root": receipt.job.model_root,
            "input_ids": receipt.job.input_ids,
            "integers": embedding.integers,
            "fraction_bits": embedding.fraction_bits,
            "embedding": embedding.embedding,
            "trace_root": receipt.trace_root,
            "seconds": run.took.as_secs_f64(),
            "device": device,
            "receipt": path,
        });
        println!("{object}");
        return;
    }
    println!("model       {} ({:#x})", receipt.model, receipt.job.model_root);
    println!(
        "tokens      {} in, the ends included",
        receipt.job.input_ids.len()
    );
    println!("embedding   {embedding}");
    println!("time        {:.3} s on {device}", run.took.as_secs_f64());
    println!("trace root  {}", receipt.trace_root);
    println!(
        "receipt     {} (check it: bitai-miner verify {0})",
        path.display()
    );
}

fn report(json: bool, receipt: &Receipt, run: &Run, device: &str, path: PathBuf) -> Result<(), Failure> {
    let (prompt, new) = (receipt.job.input_ids.len(), receipt.output_ids.len());
    if json {
        let object = serde_json::json!({
            "text": receipt.text,
            "model": receipt.model,
            "model_root": receipt.job.model_root,
            "prompt_tokens": prompt,
            "output_tokens": new,
            "output_ids": receipt.output_ids,
            "trace_root": receipt.trace_root,
            "seconds": run.took.as_secs_f64(),
            "device": device,
            "receipt": path,
        });
        println!("{object}");
    } else {
        println!("\n");
        println!("model       {} ({:#x})", receipt.model, receipt.job.model_root);
        println!("tokens      {prompt} in, {new} out");
        println!(
            "speed       {:.1} tokens/s in {:.1} s, prompt included, on {device}",
            rate(new, run.took),
            run.took.as_secs_f64()
        );
        println!("trace root  {}", receipt.trace_root);
        println!(
            "receipt     {} (check it: bitai-miner verify {0})",
            path.display()
        );
    }
    Ok(())
}
