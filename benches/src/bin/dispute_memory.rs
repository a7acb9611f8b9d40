//! What answering a dispute takes in memory and time on a synthetic shape: a whole game's answers, with the rows made
//! again layer by layer or by a whole model, beside the run that mined the answer and the prefill that re-checks it.

use std::{path::PathBuf, sync::Arc, time::Instant};

use anyhow::Context;
use bitai_benches::rss;
use bitai_kernels::{Device, Op, Sampler, cpu::CpuDevice};
use bitai_model::{
    engine::Engine,
    pack::{Pack as ModelPack, Profile},
    synthetic::{self, Shape},
};
use bitai_poc::{
    Header, Pack, TensorLine, Transcript,
    dispute::{Ask, LayerRegen, Player, Regenerate, RunnerRegen, inner::Side},
};
use bitai_types::Job;
use clap::{Parser, ValueEnum};

/// Answers every kind of question about one position, then about another one.
#[derive(Parser)]
struct Args {
    /// Sizes as `bitai-miner bench` has them.
    #[arg(long, value_enum, default_value_t = Size::Tiny)]
    shape: Size,
    /// The pack; written first where there is none.
    #[arg(long)]
    pack: PathBuf,
    /// Prompt ids.
    #[arg(long, default_value_t = 64)]
    prompt: u32,
    /// Ids generated.
    #[arg(long, default_value_t = 32)]
    new: u32,
    /// How rows are made again.
    #[arg(long, value_enum, default_value_t = Way::Layers)]
    way: Way,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Outputs are made up, so that no whole model need be run: the transcript is made by layers first, as where a
    /// journal was lost.
    #[arg(long)]
    claimed: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Size {
    Tiny,
    #[value(name = "0.5b")]
    Half,
    #[value(name = "1b")]
    One,
    #[value(name = "8b")]
    Eight,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    /// One layer of the model at a time.
    Layers,
    /// A whole model, a prefill for each position.
    Whole,
}

impl Size {
    fn shape(self) -> Shape {
        let (layers, heads, kv_heads, head_dim, d_ff, vocab, tied) = match self {
            Self::Tiny => return Shape::tiny(),
            Self::Half => (24, 14, 2, 64, 4864, 151_936, true),
            Self::One => (16, 32, 8, 64, 8192, 128_256, true),
            Self::Eight => (32, 32, 8, 128, 14_336, 128_256, false),
        };
        Shape {
            layers,
            heads,
            kv_heads,
            head_dim,
            d_ff,
            vocab,
            context: 8192,
            tied,
            profile: Profile::B,
        }
    }
}

/// Peaks since the last line, as lines of a table.
struct Report {
    pack: u64,
    started: Instant,
}

impl Report {
    fn start(&mut self) {
        rss::reset_peak();
        self.started = Instant::now();
    }

    fn line(&mut self, what: &str) {
        let took = self.started.elapsed();
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let peak = rss::peak_bytes().unwrap_or(0);
        let ratio = peak as f64 / self.pack as f64;
        println!(
            "| {what} | {:.2} | {:.0} | {ratio:.3} |",
            took.as_secs_f64(),
            mib(peak)
        );
        self.start();
    }
}

/// The pack as a dispute's players open it.
fn opened(pack: &ModelPack) -> anyhow::Result<Pack> {
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
    let (tensors, tokenizer) = (pack.tensors(), leaves.tokenizer);
    Ok(Pack::with_lines(
        leaves.info,
        &manifest.program,
        lines,
        tensors,
        tokenizer,
    )?)
}

/// What a game asks on its way down, of every kind that a greedy run knows, at one position.
fn asks(pack: &ModelPack, pos: u32, layer: u32) -> Vec<(&'static str, Ask)> {
    let program = pack.program();
    let site = |matches: &dyn Fn(&Op) -> bool| {
        let found = program
            .sites
            .iter()
            .position(|s| s.layer == Some(layer) && matches(&s.op));
        found.and_then(|i| u32::try_from(i).ok()).unwrap_or(0)
    };
    let linear = site(&|op| matches!(op, Op::Linear { .. }));
    let attention = site(&|op| matches!(op, Op::Attention { .. }));
    let quant = site(&|op| matches!(op, Op::Quant { .. }));
    let norm = site(&|op| matches!(op, Op::RmsNorm { .. }));
    let (side, element) = (Side::Data, 5);
    vec![
        ("token", Ask::Token { pos }),
        ("unit", Ask::Unit { pos, unit: layer + 1 }),
        (
            "row",
            Ask::Row {
                pos,
                site: linear,
                side,
            },
        ),
        (
            "piece",
            Ask::Piece {
                pos,
                site: linear,
                side,
                index: 0,
            },
        ),
        (
            "sum",
            Ask::Sum {
                pos,
                site: linear,
                element,
            },
        ),
        (
            "keys",
            Ask::Keys {
                pos,
                site: attention,
                element,
            },
        ),
        (
            "part of keys",
            Ask::KeyPart {
                pos,
                site: attention,
                element,
                part: 0,
            },
        ),
        (
            "group",
            Ask::Group {
                pos,
                site: quant,
                group: 0,
            },
        ),
        (
            "norm",
            Ask::Norm {
                pos,
                site: norm,
                group: 0,
            },
        ),
    ]
}

/// Mines the answer on a whole model, and re-checks it there.
fn mine(
    pack: &ModelPack,
    device: &dyn Device,
    job: &Job,
    header: Header,
    report: &mut Report,
) -> anyhow::Result<Transcript> {
    let (ids, greedy) = (&job.input_ids, Sampler::Greedy);
    let mut engine = Engine::new(pack, device)?;
    let mut mined = Transcript::new(header);
    let outputs = engine.generate(ids, job.max_new, &[], &greedy, &mut mined, &mut |_| ())?;
    report.line("mining the answer, whole model");
    let mut checked = Transcript::new(header);
    engine.recheck(ids, &outputs, &greedy, &mut checked)?;
    anyhow::ensure!(checked == mined, "the re-check differs");
    report.line("re-check, one prefill, whole model");
    Ok(mined)
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if !args.pack.exists() {
        synthetic::write(&args.pack, &args.shape.shape(), 1).context("writing the pack")?;
    }
    let pack = ModelPack::open(&args.pack)?;
    let mut report = Report {
        pack: pack.byte_len(),
        started: Instant::now(),
    };
    println!("pack: {:.0} MiB", pack.byte_len() as f64 / f64::from(1 << 20));
    println!("| what | seconds | peak MiB | peak / pack |\n|---|---|---|---|");
    report.start();
    pack.verify(&mut |_, _| ())?;
    report.line("hashing the pack");

    let device: Arc<dyn Device> = Arc::new(CpuDevice::new(args.threads)?);
    let program = pack.program();
    let input_ids: Vec<u32> = (0..args.prompt).map(|i| i * 37 % 256).collect();
    let job = Job {
        model_root: pack.root().into(),
        spec_version: 0,
        input_ids: input_ids.clone(),
        max_new: args.new,
        stop_ids: vec![],
        sampler: bitai_types::Sampler::GREEDY,
        seed: 0,
    };
    let header = Header::new(&job, &program);
    let mined = match args.claimed {
        true => None,
        false => {
            let mined = mine(&pack, device.as_ref(), &job, header, &mut report)?;
            let all: Vec<u32> = (0u32..).take(pack.tensors().len()).collect();
            pack.release(&all);
            Some(mined)
        }
    };
    let outputs: Vec<u32> = match &mined {
        Some(mined) => mined.outputs().to_vec(),
        None => (0..args.new).map(|i| i * 31 % 256).collect(),
    };
    report.start();

    let ids = [&input_ids[..], &outputs[..outputs.len() - 1]].concat();
    let last = u32::try_from(ids.len()).context("positions")? - 1;
    let released = pack.clone();
    let mut layers = LayerRegen::new(
        Arc::clone(&device),
        Arc::clone(&program),
        pack.tensors(),
        Box::new(move |tensors| released.release(tensors)),
        (ids.clone(), args.prompt),
        Sampler::Greedy,
    )?;
    let transcript = match mined {
        Some(mined) => mined,
        None => {
            let made = layers.transcript(header)?;
            report.line("making the transcript by layers");
            made
        }
    };
    let regen: Box<dyn Regenerate> = match args.way {
        Way::Layers => Box::new(layers),
        Way::Whole => {
            let runner = device.load(Arc::clone(&program), &pack.tensors())?;
            Box::new(RunnerRegen::new(runner, ids, args.prompt, Sampler::Greedy))
        }
    };
    let mut player = Player::new(
        transcript,
        regen,
        opened(&pack)?,
        (*program).clone(),
        Sampler::Greedy,
    )?;
    report.line("taking the seat");
    let whole = Instant::now();
    for pos in [last, last / 2] {
        for (name, ask) in asks(&pack, pos, program.layers / 2) {
            player.respond(&ask)?;
            if name == "token" {
                report.line(&format!("answer: {name} {pos}"));
            }
        }
        report.line(&format!("answers: all below token {pos}"));
    }
    println!("both positions together: {:.2} s", whole.elapsed().as_secs_f64());
    Ok(())
}
