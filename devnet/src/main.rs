//! `bitai-devnet`: starts a devnet, prints how to use it, and runs until interrupted; `--once` runs one job.

use std::{path::PathBuf, process::ExitCode};

use bitai_devnet::{
    Devnet, Options, banner,
    deploy::Rules,
    liar::{self, Kind},
    once,
};
use bitai_miner::{
    Failure,
    cli::{DeviceArgs, SamplingArgs},
    config::Layers,
    datadir::{DataDir, make_dir},
};
use bitai_types::chain::RPC_PORT;
use clap::Parser;
use tracing_subscriber::EnvFilter;

/// A whole BitAI devnet: node with Bitcoin's regtest inside, funded accounts, contracts, one neuron.
///
/// `bitai-devnet miner ...` is the same as `bitai-miner ...`.
#[derive(Debug, Parser)]
#[command(name = "bitai-devnet", version, after_help = bitai_miner::exit::EXIT_CODES)]
struct Cli {
    /// Where models and the devnet's state live [default: the user's data directory + /bitai]
    #[arg(long, env = "BITAI_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// JSON-RPC port on loopback; 0 = any free one
    #[arg(long, default_value_t = RPC_PORT)]
    port: u16,
    /// Models to register and serve [default: those of --gguf and --encoder, or all that there are]
    #[arg(long, env = "BITAI_MODEL", value_delimiter = ',')]
    model: Vec<String>,
    /// GGUF file to import where the model is not there yet
    #[arg(long, value_name = "FILE")]
    gguf: Option<PathBuf>,
    /// Folder of an encoder to import where the model is not there yet
    #[arg(long, value_name = "FOLDER")]
    encoder: Option<PathBuf>,
    /// Run one job for this prompt, print all of it, exit
    #[arg(long, value_name = "PROMPT")]
    once: Option<String>,
    /// With --once: turn the prompt into an embedding
    #[arg(long, requires = "once", conflicts_with_all = ["max_new", "temperature", "top_k", "top_p", "seed", "raw"])]
    embed: bool,
    /// With --once: a neuron (or a challenger) that lies so, in a devnet of its own; prints the dispute
    #[arg(long, value_enum, requires = "once", conflicts_with = "embed")]
    liar: Option<Kind>,
    /// How to choose tokens (with --once).
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Where the neuron computes.
    #[command(flatten)]
    device: DeviceArgs,
    /// Start no neuron
    #[arg(long)]
    no_neuron: bool,
    /// Throw the devnet's state away first (models stay)
    #[arg(long)]
    fresh: bool,
    /// Most milliseconds between two Bitcoin blocks; 0 = make none
    #[arg(long, value_name = "MS")]
    block_interval_ms: Option<u64>,
    /// Heights for opening disputes after a reveal (fixed when the devnet is first started)
    #[arg(long, value_name = "HEIGHTS", default_value_t = Rules::default().challenge_window)]
    challenge_window: u64,
    /// Heights on each side's clock in a dispute (fixed when the devnet is first started)
    #[arg(long, value_name = "HEIGHTS", default_value_t = Rules::default().clock)]
    clock: u32,
    /// Deploy the validators' contracts too; answers can then be disputed for 12 heights at least (fixed when the devnet is first
    /// started)
    #[arg(long)]
    validators: bool,
    /// How the banner calls the miner
    #[arg(long, hide = true, default_value = "bitai-miner")]
    program: String,
    /// What to log, as in RUST_LOG
    #[arg(long, env = "BITAI_LOG", default_value = "warn,bitai_miner=info")]
    log: String,
}

/// Heights for opening a dispute about a lie: a slow machine computes the answer again meanwhile.
const LIAR_WINDOW: u64 = 30;
/// Milliseconds between blocks while a lie is played: clocks are counted in blocks.
const LIAR_INTERVAL_MS: u64 = 1_000;

fn main() -> ExitCode {
    let mut args: Vec<_> = std::env::args_os().collect();
    if args.get(1).is_some_and(|a| a == "miner") {
        args.remove(1);
        return bitai_miner::commands::main(args);
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => e.exit(),
    };
    match start(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bitai-devnet: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

fn start(cli: &Cli) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&cli.log).map_err(|e| Failure::Usage(format!("--log: {e}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("threads")))?;
    runtime.block_on(run(cli))
}

async fn run(cli: &Cli) -> Result<(), Failure> {
    let mut data = DataDir::resolve(cli.data_dir.clone())?;
    if cli.liar.is_some() {
        data = apart(&data)?;
    }
    if cli.fresh || cli.liar.is_some() {
        wipe(&data)?;
    }
    let options = Options {
        device: Layers::read(&data)?.device(&cli.device),
        data,
        port: cli.port,
        models: cli.model.clone(),
        sources: cli.gguf.iter().chain(&cli.encoder).cloned().collect(),
        // The lying neuron works in the place of the devnet's own.
        neuron: !cli.no_neuron && cli.liar.is_none_or(|kind| !kind.is_neurons()),
        block_interval_ms: cli.block_interval_ms.or(cli.liar.map(|_| LIAR_INTERVAL_MS)),
        rules: Rules {
            challenge_window: match cli.liar {
                Some(_) => cli.challenge_window.max(LIAR_WINDOW),
                None => cli.challenge_window,
            },
            clock: cli.clock,
            validators: cli.validators || cli.liar == Some(Kind::Validator),
        },
    };
    let spinner = bitai_miner::progress::spinner("starting the devnet");
    let started = tokio::select! {
        started = Devnet::start(&options) => started,
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
    };
    spinner.finish_and_clear();
    let mut devnet = started?;
    banner::print(&devnet, &cli.program).await?;
    let result = match (&cli.once, cli.liar) {
        (Some(prompt), Some(kind)) => liar::run(&devnet, options.device, prompt, &cli.sampling, kind).await,
        (Some(prompt), None) => once::run(&devnet, prompt, cli.embed, &cli.sampling).await,
        (None, _) => tokio::select! {
            failure = devnet.broken() => Err(failure),
            () = ended() => Ok(()),
        },
    };
    let stopped = devnet.stop().await;
    result.and(stopped)
}

/// Ctrl-C, or the signal that service managers send.
async fn ended() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut term) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = term.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// A data directory beside the user's own, with the same models: a lie is played on a chain of its own.
fn apart(data: &DataDir) -> Result<DataDir, Failure> {
    let dir = data.root().join("liar");
    make_dir(&dir)?;
    make_dir(&data.models())?;
    let models = dir.join("models");
    if !models.exists() {
        let target = std::path::Path::new("..").join("models");
        #[cfg(unix)]
        std::os::unix::fs::symlink(&target, &models).map_err(|e| Failure::disk(&models, e))?;
        #[cfg(windows)]
        std::os::windows::fs::symlink_dir(&target, &models).map_err(|e| Failure::disk(&models, e))?;
    }
    DataDir::resolve(Some(dir))
}

/// Removes the devnet's own directory, which this program made.
fn wipe(data: &DataDir) -> Result<(), Failure> {
    let dir = data.root().join("devnet");
    // Not under the feet of a devnet that runs.
    drop(bitai_miner::datadir::Lock::take(&dir)?);
    match std::fs::remove_dir_all(&dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Failure::disk(dir, e)),
        _ => Ok(()),
    }
}
