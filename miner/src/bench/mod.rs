//! `bench`: what this machine does with a model, without a chain, a wallet or a download, and whether it does it right.

mod measure;
mod report;
mod shapes;

use std::sync::Arc;

use alloy_primitives::B256;
use bitai_kernels::{Device, Program, Runner};
use bitai_model::{pack::Pack, synthetic};
use bitai_poc::{Header, Transcript};
use bitai_types::{Job, Sampler, job::SPEC_VERSION};
pub use measure::{Test, Times};
pub use report::{Format, Report};
pub use shapes::Named;

use crate::{
    cli::BenchArgs,
    config::Layers,
    datadir::DataDir,
    engine::{device, engine_failure, load},
    exit::Failure,
    models,
    progress::bar,
};

/// Prompt ids and outputs of the job whose trace root is the checksum.
const CHECKSUM_PROMPT: usize = 24;
const CHECKSUM_NEW: u32 = 8;

/// Runs the command.
pub fn run(data: &DataDir, layers: &Layers, args: &BenchArgs) -> Result<(), Failure> {
    let tests = tests(args)?;
    let device = device(layers.device(&args.device))?;
    let pack = pack(data, args)?;
    let recorded = match args.model {
        Some(_) => None,
        None => args.shape.recorded(args.profile.into()),
    };
    let limits = device.peaks().map_err(|e| Failure::Device(e.to_string()))?;
    let root = checksum(&pack, device.as_ref())?;
    let program = pack.program();
    let mut runner = device
        .load(Arc::clone(&program), &pack.tensors())
        .map_err(|e| Failure::Device(e.to_string()))?;
    let times = measure_all(runner.as_mut(), &tests, args)?;
    let report = Report::new(
        title(args, &pack),
        device.info(),
        limits,
        &program,
        (root, recorded),
        args.price_per_hour,
        times,
    );
    print!("{}", report.text(args.output)?);
    match recorded {
        Some(recorded) if recorded != root => Err(Failure::TraceRoot(format!(
            "this device gives trace root {root:#x}, every right one gives {recorded:#x}; the speeds are worth nothing"
        ))),
        _ => Ok(()),
    }
}

/// The pack that was named, or the shape made from its seed.
fn pack(data: &DataDir, args: &BenchArgs) -> Result<Pack, Failure> {
    if let Some(name) = &args.model {
        return Ok(models::open(data, Some(name))?.1);
    }
    synthetic::pack(&args.shape.shape(args.profile.into()), shapes::SEED).map_err(models::pack_failure)
}

fn title(args: &BenchArgs, pack: &Pack) -> String {
    match &args.model {
        Some(name) => name.clone(),
        None => format!(
            "synthetic {}, profile {:?}, {} MiB",
            args.shape.name(),
            args.profile,
            pack.byte_len() >> 20
        ),
    }
}

/// (test, batch) in the order they run.
fn tests(args: &BenchArgs) -> Result<Vec<(Test, u32)>, Failure> {
    let zero = |what: &str, list: &[u32]| {
        if list.contains(&0) {
            return Err(Failure::Usage(format!("--{what} 0 measures nothing")));
        }
        Ok(())
    };
    zero("prompt", &args.prompt)?;
    zero("decode", &args.decode)?;
    zero("batch", &args.batch)?;
    if args.repeat == 0 {
        return Err(Failure::Usage("--repeat 0 measures nothing".into()));
    }
    let prompts = args.prompt.iter().map(|n| (Test::Prompt(*n), 1));
    let decodes = args
        .decode
        .iter()
        .flat_map(|n| args.batch.iter().map(|b| (Test::Decode(*n), *b)));
    let tests: Vec<_> = prompts.chain(decodes).collect();
    if tests.is_empty() {
        return Err(Failure::Usage(
            "nothing to measure: give --prompt or --decode".into(),
        ));
    }
    Ok(tests)
}

/// Every test, with hashing and (unless that is not wanted) without, in turn, so that a machine's moods hit both.
fn measure_all(
    runner: &mut dyn Runner,
    tests: &[(Test, u32)],
    args: &BenchArgs,
) -> Result<Vec<Times>, Failure> {
    let modes: &[bool] = if args.no_compare { &[true] } else { &[true, false] };
    let total = tests.len() * modes.len() * (args.warm_up + args.repeat) as usize;
    let progress = bar(total as u64, "measuring");
    let mut all = vec![];
    for (test, batch) in tests {
        let mut times: Vec<Times> = modes
            .iter()
            .map(|hashing| Times {
                test: *test,
                batch: *batch,
                hashing: *hashing,
                nanoseconds: vec![],
            })
            .collect();
        for round in 0..args.warm_up + args.repeat {
            for t in &mut times {
                let took = measure::once(runner, *test, *batch, t.hashing)?;
                if round >= args.warm_up {
                    t.nanoseconds
                        .push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
                }
                progress.inc(1);
            }
        }
        all.extend(times);
    }
    progress.finish_and_clear();
    Ok(all)
}

/// The trace root of one fixed job: the same on every right device.
pub fn checksum(pack: &Pack, device: &dyn Device) -> Result<B256, Failure> {
    let program = pack.program();
    let job = job(pack, &program);
    let mut engine = load(pack, device)?;
    let mut transcript = Transcript::new(Header::new(&job, &program));
    engine
        .generate(
            &job.input_ids,
            job.max_new,
            &[],
            &bitai_kernels::Sampler::Greedy,
            &mut transcript,
            &mut |_| {},
        )
        .map_err(engine_failure)?;
    let root = transcript
        .root()
        .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("the checksum's transcript")))?;
    Ok(root.into())
}

fn job(pack: &Pack, program: &Program) -> Job {
    Job {
        model_root: B256::from(pack.root()),
        spec_version: SPEC_VERSION,
        input_ids: measure::ids(CHECKSUM_PROMPT, program.vocab, 0),
        max_new: CHECKSUM_NEW,
        stop_ids: vec![],
        sampler: Sampler::GREEDY,
        seed: 0,
    }
}
