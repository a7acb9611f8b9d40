//! Which command runs what.

use std::{ffi::OsString, io::IsTerminal, process::ExitCode};

use clap::{Parser, error::ErrorKind};
use tracing_subscriber::EnvFilter;

use crate::{
    ask, attest, bench,
    cli::{Cli, Command, ModelsCommand},
    config::Layers,
    datadir::DataDir,
    dispute::validate,
    exit::Failure,
    infer, manual, offers, registration, selftest, soundness, stake, status, verify, worker,
};

mod models;
mod wallet;

/// The whole program: parses, resolves, runs, and turns a failure into its words and exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            let help = matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Nothing can be done where the terminal is gone.
            let _ = e.print();
            return ExitCode::from(if help { 0 } else { 2 });
        }
    };
    match start(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bitai-miner: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

fn start(cli: &Cli) -> Result<(), Failure> {
    init_logs(cli)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("starting threads")))?;
    runtime.block_on(run(cli))
}

/// Sends logs to standard error, as the flags say.
pub fn init_logs(cli: &Cli) -> Result<(), Failure> {
    let default = match cli.command {
        Command::Run(_) | Command::Validate(_) => "info",
        _ => "warn",
    };
    let filter = cli.log.as_deref().unwrap_or(default);
    let filter = EnvFilter::try_new(filter).map_err(|e| Failure::Usage(format!("--log `{filter}`: {e}")))?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Only the first call of a process counts; a program that embeds this one has its own.
    let _ = if cli.log_json {
        logs.json().try_init()
    } else {
        logs.try_init()
    };
    Ok(())
}

/// Runs the command that was typed.
pub async fn run(cli: &Cli) -> Result<(), Failure> {
    let data = DataDir::resolve(cli.data_dir.clone())?;
    let layers = Layers::read(&data)?;
    match &cli.command {
        Command::Models(ModelsCommand::Register(args)) => registration::run(&data, &layers, args).await,
        Command::Models(command) => models::run(&data, command),
        Command::Infer(args) => infer::run(&data, &layers, args),
        Command::Verify(args) => verify::run(&data, &layers, args).await,
        Command::Wallet(command) => wallet::run(&data, command),
        Command::Run(args) => worker::run(&data, &layers, args).await,
        Command::Validate(args) => validate::run(&data, &layers, args).await,
        Command::Ask(args) => ask::run(&data, &layers, args).await,
        Command::Validator(command) => attest::run(&data, &layers, command).await,
        Command::Stake(args) => stake::run(&data, &layers, args).await,
        Command::Unserve(args) => offers::run(&data, &layers, args).await,
        Command::Status(args) => status::run(&data, &layers, args).await,
        Command::Doctor(args) => status::doctor(&data, &layers, args).await,
        Command::Bench(args) => bench::run(&data, &layers, args),
        Command::Selftest(args) => selftest::run(&layers, args),
        Command::Soundness(args) => soundness::run(args),
        Command::Completions(args) => manual::completions(args),
        Command::Man(args) => manual::man(args),
        Command::Reference => manual::reference(),
    }
}
