//! Speed of the integer engine on this machine's CPU: prefill and decode tokens a second with hashing on, a
//! re-check beside the generating that it checks, and peak memory against the pack's size.

use std::{path::PathBuf, time::Instant};

use anyhow::Context;
use bitai_benches::rss;
use bitai_kernels::{Device, Sampler, Trace, cpu::CpuDevice, rows::Hash};
use bitai_model::{
    engine::Engine,
    import::{ImportOptions, import_gguf},
    pack::{self, Pack},
};
use clap::{Parser, ValueEnum};

/// Prompt tokens before decoding is timed, and to warm up with; as in benches/peers/llama.py.
const SHORT: usize = 16;

/// Measures prefill, decode, re-check and memory.
#[derive(Parser)]
struct Args {
    /// The model as GGUF; imported to a temporary pack by a child process, so that importing does not
    /// count as this one's memory.
    #[arg(long, required_unless_present = "pack")]
    gguf: Option<PathBuf>,
    /// Numeric profile of the import.
    #[arg(long, value_enum, default_value_t = Profile::A)]
    profile: Profile,
    /// A pack instead.
    #[arg(long)]
    pack: Option<PathBuf>,
    /// Prompt tokens of the prefill; 0 leaves it out.
    #[arg(long, default_value_t = 512)]
    prompt: usize,
    /// Tokens generated one by one after a prompt of 16; 0 leaves them out.
    #[arg(long, default_value_t = 128)]
    decode: u32,
    /// Tokens of a job after a prompt of 16 that is generated, then re-checked; 0 leaves it out.
    #[arg(long, default_value_t = 0)]
    job: u32,
    /// Re-checks of that job; the median counts, beside the median of as many generations.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Prints one line of JSON instead.
    #[arg(long)]
    json: bool,
    /// Imports `gguf` to this pack and ends.
    #[arg(long, requires = "gguf")]
    import_to: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Profile {
    A,
    B,
}

/// Counts what a trace gets.
#[derive(Default)]
struct Count {
    bodies: usize,
}

impl Trace for Count {
    fn bodies(&mut self, _: u32, bodies: &[Hash]) {
        self.bodies += bodies.len();
    }
    fn sampled(&mut self, _: u32, _: u32) {}
}

/// An engine and what its runs trace to.
struct Bench {
    engine: Engine,
    trace: Count,
}

/// A generation's ids and its times.
struct Generated {
    output: Vec<u32>,
    /// Seconds to the first token, and from it to the last.
    first: f64,
    rest: f64,
}

impl Bench {
    fn prompt(&self, len: usize) -> Vec<u32> {
        let vocab = self.engine.program().vocab;
        (0..len as u32).map(|i| (i * 7919 + 11) % vocab).collect()
    }

    fn generate(&mut self, prompt: usize, count: u32) -> anyhow::Result<Generated> {
        let ids = self.prompt(prompt);
        let (mut first, mut last) = (None, None);
        let start = Instant::now();
        let mut heard = |_| {
            last = Some(Instant::now());
            first.get_or_insert_with(Instant::now);
        };
        let output = self
            .engine
            .generate(&ids, count, &[], &Sampler::Greedy, &mut self.trace, &mut heard)?;
        let (first, last) = (first.context("no token")?, last.context("no token")?);
        Ok(Generated {
            output,
            first: (first - start).as_secs_f64(),
            rest: (last - first).as_secs_f64(),
        })
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let (Some(gguf), Some(target)) = (&args.gguf, &args.import_to) {
        let options = ImportOptions {
            profile: match args.profile {
                Profile::A => pack::Profile::A,
                Profile::B => pack::Profile::B,
            },
            ..ImportOptions::default()
        };
        import_gguf(gguf, target, &options, &mut |_, _| {})?;
        return Ok(());
    }
    let pack = open(&args)?;
    let pack_bytes = pack.byte_len();
    let device = CpuDevice::new(args.threads)?;
    let start = Instant::now();
    let engine = Engine::new(&pack, &device)?;
    drop(pack);
    let mut lines = vec![
        ("device", device.info().name),
        ("load", format!("{:.2} s", start.elapsed().as_secs_f64())),
    ];
    let mut json = serde_json::Map::new();
    json.insert("engine".into(), lines[0].1.clone().into());
    let mut bench = Bench {
        engine,
        trace: Count::default(),
    };

    // Once to warm caches and page in the map.
    bench.generate(SHORT, 3)?;
    if args.prompt > 0 {
        let rate = args.prompt as f64 / bench.generate(args.prompt, 1)?.first;
        lines.push(("prefill", format!("{rate:.1} tokens/s ({} tokens)", args.prompt)));
        json.insert("prefill".into(), rate.into());
    }
    if args.decode > 0 {
        let rate = f64::from(args.decode) / bench.generate(SHORT, args.decode + 1)?.rest;
        lines.push(("decode", format!("{rate:.1} tokens/s ({} tokens)", args.decode)));
        json.insert("decode".into(), rate.into());
    }
    if args.job > 0 {
        let prompt = bench.prompt(SHORT);
        let (mut checks, mut makes) = (vec![], vec![]);
        for _ in 0..args.rounds.max(1) {
            let made = bench.generate(SHORT, args.job)?;
            makes.push(made.first + made.rest);
            let start = Instant::now();
            bench
                .engine
                .recheck(&prompt, &made.output, &Sampler::Greedy, &mut bench.trace)?;
            checks.push(start.elapsed().as_secs_f64());
        }
        let (checking, making) = (median(&mut checks), median(&mut makes));
        lines.push((
            "re-check",
            format!(
                "{checking:.2} s ({:.2} to {:.2}) = {:.3} x the {making:.2} s ({:.2} to {:.2}) of generating ({} tokens, medians of {})",
                checks[0],
                checks[checks.len() - 1],
                checking / making,
                makes[0],
                makes[makes.len() - 1],
                args.job,
                checks.len(),
            ),
        ));
        json.insert("recheck".into(), (checking / making).into());
    }
    if let Some(peak) = rss::peak_bytes() {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let ratio = peak as f64 / pack_bytes as f64;
        lines.push((
            "peak memory",
            format!(
                "{:.1} MiB = {ratio:.2} x the pack of {:.1} MiB ({:.1} MiB of it anonymous now)",
                mib(peak),
                mib(pack_bytes),
                mib(rss::anonymous_bytes().unwrap_or_default())
            ),
        ));
        json.insert("memory".into(), ratio.into());
    }
    if args.json {
        println!("{}", serde_json::Value::Object(json));
    } else {
        for (name, value) in lines {
            println!("{name:<12} {value}");
        }
    }
    Ok(())
}

/// The middle of some times, which are sorted.
fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The pack, imported first where a GGUF was given.
fn open(args: &Args) -> anyhow::Result<Pack> {
    let gguf = match (&args.pack, &args.gguf) {
        (Some(pack), _) => return Ok(Pack::open(pack)?),
        (None, Some(gguf)) => gguf,
        (None, None) => anyhow::bail!("give --gguf or --pack"),
    };
    let target = std::env::temp_dir().join(format!("bitai-speed-{}.pack", std::process::id()));
    let profile = match args.profile {
        Profile::A => "a",
        Profile::B => "b",
    };
    let status = std::process::Command::new(std::env::current_exe()?)
        .args(["--profile", profile])
        .args([&"--gguf".into(), gguf, &"--import-to".into(), &target])
        .status()?;
    anyhow::ensure!(status.success(), "the import failed");
    let pack = Pack::open(&target);
    // The map stays.
    let _ = std::fs::remove_file(&target);
    Ok(pack?)
}
