//! Quality of the integer engine against candle's float32 on the same weights and tokens: perplexity of
//! both, their relative difference, mean KL divergence, how often the likeliest token is the same, and how
//! often a site of the program saturated. Several profiles and packs are compared with one float run.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use bitai_benches::{
    corpus,
    oracle::Oracle,
    score::{Score, score},
};
use bitai_kernels::cpu::CpuDevice;
use bitai_model::{
    engine::Engine,
    import::{ImportOptions, import_gguf},
    pack::{Pack, Profile},
    tokenizer::Tokenizer,
};
use clap::Parser;

/// Compares the integer engine with candle float32.
#[derive(Parser)]
struct Args {
    /// The model that float32 runs.
    #[arg(long)]
    gguf: PathBuf,
    /// Plain text (Debian `bible-kjv`: `bible -f -p /usr/lib gen1:1-rev22:21`).
    #[arg(long)]
    text: PathBuf,
    /// Tokens that are scored, at least.
    #[arg(long, default_value_t = 2048)]
    tokens: usize,
    /// Windows that run side by side.
    #[arg(long, default_value_t = 4)]
    windows: usize,
    /// Tokens of each window that are context only.
    #[arg(long, default_value_t = 16)]
    skip: usize,
    /// Numeric profiles to import and compare: a, b or both.
    #[arg(long, value_delimiter = ',')]
    profile: Vec<String>,
    /// Packs of the same model to compare, as they are.
    #[arg(long, value_delimiter = ',')]
    pack: Vec<PathBuf>,
    /// Threads of the integer engine.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Fails if the relative difference is larger, in per cent.
    #[arg(long)]
    limit: Option<f64>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut packs = Vec::new();
    let asked = !args.profile.is_empty() || !args.pack.is_empty();
    let default = if asked { None } else { Some("a".to_owned()) };
    for name in args.profile.iter().chain(&default) {
        let profile = match name.as_str() {
            "a" => Profile::A,
            "b" => Profile::B,
            other => anyhow::bail!("profile {other:?}: must be a or b"),
        };
        packs.push(import(&args.gguf, profile)?);
    }
    for path in &args.pack {
        packs.push(Pack::open(path)?);
    }
    let len = args.tokens.div_ceil(args.windows) + args.skip + 1;
    let tokenizer = Tokenizer::of(packs.first().context("no pack to compare")?)?;
    let text = std::fs::read_to_string(&args.text).with_context(|| args.text.display().to_string())?;
    let windows = corpus::windows(&corpus::clean(&text), &tokenizer, args.windows, len)?;

    eprintln!("candle float32: {} windows of {len} tokens", windows.len());
    let mut oracle = Oracle::load(&args.gguf, len)?;
    let mut float: Vec<Vec<Vec<f32>>> = vec![vec![Vec::new(); len]; windows.len()];
    oracle.logits(&windows, |w, pos, row| float[w][pos] = row)?;
    drop(oracle);

    for pack in &packs {
        let profile = pack.manifest().info.profile;
        eprintln!("integers: profile {profile:?}, {} threads", args.threads);
        let mut engine = Engine::new(pack, &CpuDevice::new(args.threads)?)?;
        let score = score(&mut engine, &windows, &float, args.skip)?;
        report(pack, &score);
        ensure!(
            score.count >= args.tokens,
            "{} tokens scored, {} wanted",
            score.count,
            args.tokens
        );
        let (relative, _) = score.difference();
        if let Some(limit) = args.limit {
            ensure!(
                relative.abs() <= limit,
                "relative difference {relative:+.3} % is beyond {limit} %"
            );
        }
    }
    Ok(())
}

/// Imports to a temporary file whose name is gone when this returns: the map keeps the bytes.
fn import(gguf: &Path, profile: Profile) -> anyhow::Result<Pack> {
    let path = std::env::temp_dir().join(format!("bitai-quality-{}.pack", std::process::id()));
    let options = ImportOptions {
        profile,
        ..Default::default()
    };
    import_gguf(gguf, &path, &options, &mut |_, _| {})?;
    let pack = Pack::open(&path);
    let _ = std::fs::remove_file(&path);
    Ok(pack?)
}

fn report(pack: &Pack, score: &Score) {
    let info = &pack.manifest().info;
    let (relative, error) = score.difference();
    println!("architecture          {}", info.architecture);
    println!("model root            {}", hex(&pack.root()));
    println!("profile               {:?}", info.profile);
    println!("pack                  {} bytes", pack.byte_len());
    println!("tokens                {}", score.count);
    println!("perplexity float32    {:.4}", score.perplexity_float());
    println!("perplexity integer    {:.4}", score.perplexity_int());
    println!("relative difference   {relative:+.3} % (standard error {error:.3})");
    println!("mean KL               {:.5} nats a token", score.kl());
    println!("mean cosine           {:.6}", score.cosine());
    println!("same likeliest token  {:.2} %", 100.0 * score.same_top());
    println!(
        "saturated values      {} (+-(2^31 - 1), all sites)",
        score.saturated()
    );
    for (kind, reach) in &score.reach {
        println!(
            "  {kind:<12} {:>14} values, {} saturated, largest needs {} of 31 bits",
            reach.values,
            reach.saturated,
            u32::BITS - reach.largest.leading_zeros()
        );
    }
    println!();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
