//! Speed of the integer engine on this machine's CPU: prefill and decode tokens a second, the cost of
//! hashing's trace, and peak memory against the pack's size.

use std::{path::PathBuf, time::Instant};

use anyhow::Context;
use bitai_benches::rss;
use bitai_kernels::{Device, Sampler, Trace, cpu::CpuDevice, rows::Hash};
use bitai_model::{
    engine::Engine,
    import::{ImportOptions, import_gguf},
    pack::Pack,
};
use clap::Parser;

/// Measures prefill, decode and memory.
#[derive(Parser)]
struct Args {
    /// The model as GGUF; imported to a temporary pack by a child process, so that importing does not
    /// count as this one's memory.
    #[arg(long, required_unless_present = "pack")]
    gguf: Option<PathBuf>,
    /// A pack instead.
    #[arg(long)]
    pack: Option<PathBuf>,
    /// Prompt tokens.
    #[arg(long, default_value_t = 256)]
    prompt: usize,
    /// Tokens to generate.
    #[arg(long, default_value_t = 128)]
    decode: u32,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Imports `gguf` to this pack and ends.
    #[arg(long, hide = true)]
    import_to: Option<PathBuf>,
}

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

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let (Some(gguf), Some(target)) = (&args.gguf, &args.import_to) {
        import_gguf(gguf, target, &ImportOptions::default(), &mut |_, _| {})?;
        return Ok(());
    }
    let (path, temporary) = match (&args.pack, &args.gguf) {
        (Some(pack), _) => (pack.clone(), false),
        (None, Some(gguf)) => {
            let target = std::env::temp_dir().join(format!("bitai-speed-{}.pack", std::process::id()));
            let status = std::process::Command::new(std::env::current_exe()?)
                .args([&"--gguf".into(), gguf, &"--import-to".into(), &target])
                .status()?;
            anyhow::ensure!(status.success(), "the import failed");
            (target, true)
        }
        (None, None) => anyhow::bail!("give --gguf or --pack"),
    };
    let pack = Pack::open(&path);
    if temporary {
        let _ = std::fs::remove_file(&path);
    }
    let pack = pack?;
    let pack_bytes = pack.byte_len();
    let device = CpuDevice::new(args.threads)?;
    let start = Instant::now();
    let mut engine = Engine::new(&pack, &device)?;
    drop(pack);
    println!("device       {}", device.info().name);
    println!("load         {:.2} s", start.elapsed().as_secs_f64());
    let vocab = engine.program().vocab;
    let prompt: Vec<u32> = (0..args.prompt as u32).map(|i| (i * 7919 + 11) % vocab).collect();
    let mut trace = Count::default();

    // Once to warm caches and page in the map.
    engine.generate(
        &prompt[..prompt.len().min(32)],
        2,
        &[],
        &Sampler::Greedy,
        &mut trace,
        &mut |_| {},
    )?;
    let mut first = None;
    let mut last = None;
    let mut count = 0u32;
    let start = Instant::now();
    engine.generate(
        &prompt,
        args.decode,
        &[],
        &Sampler::Greedy,
        &mut trace,
        &mut |_| {
            count += 1;
            last = Some(Instant::now());
            first.get_or_insert_with(Instant::now);
        },
    )?;
    let (first, last) = (first.context("no token")?, last.context("no token")?);
    let rate = |n: f64, t: std::time::Duration| n / t.as_secs_f64();
    println!(
        "prefill      {:.1} tokens/s ({} tokens)",
        rate(prompt.len() as f64, first - start),
        prompt.len()
    );
    println!(
        "decode       {:.1} tokens/s ({} tokens)",
        rate(f64::from(count - 1), last - first),
        count - 1
    );
    if let Some(peak) = rss::peak_bytes() {
        println!(
            "peak memory  {:.1} MiB = {:.2} x the pack of {:.1} MiB ({:.1} MiB of it anonymous now)",
            peak as f64 / 1048576.0,
            peak as f64 / pack_bytes as f64,
            pack_bytes as f64 / 1048576.0,
            rss::anonymous_bytes().unwrap_or_default() as f64 / 1048576.0
        );
    }
    Ok(())
}
