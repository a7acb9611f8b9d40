//! Quality of an encoder: the integer row of each line of a text against candle's BERT in float32 over the same
//! weights, as cosines.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use bitai_benches::corpus;
use bitai_kernels::{Hash, Trace, cpu::CpuDevice};
use bitai_model::{
    engine::Engine,
    import::{ImportOptions, import_encoder},
    pack::Pack,
    tokenizer::Tokenizer,
};
use candle_core::{DType, Device, IndexOp, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use clap::Parser;

/// Measures how well an encoder's integers follow its floats.
#[derive(Parser)]
struct Args {
    /// The encoder's folder.
    #[arg(long)]
    folder: PathBuf,
    /// A text; every line of some length is a sentence.
    #[arg(long)]
    text: PathBuf,
    /// Sentences, spread evenly over the text.
    #[arg(long, default_value_t = 300)]
    sentences: usize,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

struct Ignore;

impl Trace for Ignore {
    fn bodies(&mut self, _: u32, _: &[Hash]) {}
    fn sampled(&mut self, _: u32, _: u32) {}
}

/// Characters of a line that counts as a sentence.
const SENTENCE: std::ops::Range<usize> = 40..300;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let text = std::fs::read_to_string(&args.text).with_context(|| args.text.display().to_string())?;
    let lines: Vec<&str> = text
        .lines()
        .map(|line| corpus::verse(line).trim())
        .filter(|l| SENTENCE.contains(&l.chars().count()))
        .collect();
    ensure!(
        lines.len() >= args.sentences,
        "{} sentences in the text",
        lines.len()
    );
    let chosen: Vec<&str> = (0..args.sentences)
        .map(|i| lines[i * lines.len() / args.sentences])
        .collect();

    let dir = tempfile::tempdir()?;
    let target = dir.path().join("encoder.pack");
    let made = import_encoder(&args.folder, &target, &ImportOptions::default(), &mut |_, _| {})?;
    let pack = Pack::open(&target)?;
    let tokenizer = Tokenizer::of(&pack)?;
    let mut engine = Engine::new(&pack, &CpuDevice::new(args.threads)?)?;
    let float = Float::load(&args.folder)?;

    let (mut cosines, mut tokens) = (vec![], 0);
    for line in &chosen {
        let ids = tokenizer.sentence(line)?;
        tokens += ids.len();
        let row = engine.embed(&ids, &mut Ignore)?;
        let row: Vec<f64> = row.iter().map(|v| f64::from(*v)).collect();
        cosines.push(cosine(&row, &float.embed(&ids)?));
    }
    let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
    let least = cosines.iter().copied().fold(1.0, f64::min);
    println!("model root     {}", hex::encode(made.model_root));
    println!("pack           {:.1} MiB", made.pack_bytes as f64 / 1048576.0);
    println!("sentences      {} ({tokens} tokens)", cosines.len());
    println!("cosine         mean {mean:.6}, least {least:.6}");
    Ok(())
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The model in float32, mean-pooled.
struct Float(BertModel);

impl Float {
    fn load(folder: &std::path::Path) -> anyhow::Result<Self> {
        let config: Config = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
        let weights = std::fs::read(folder.join("model.safetensors"))?;
        let vars = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu)?;
        Ok(Self(BertModel::load(vars, &config)?))
    }

    fn embed(&self, ids: &[u32]) -> anyhow::Result<Vec<f64>> {
        let ids = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?;
        let rows = self.0.forward(&ids, &ids.zeros_like()?, None)?.i(0)?;
        let mean: Vec<f32> = rows.mean(0)?.to_vec1()?;
        Ok(mean.iter().map(|v| f64::from(*v)).collect())
    }
}
