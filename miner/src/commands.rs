//! Which command runs what.

use std::{
    ffi::OsString,
    io::{IsTerminal, Write},
    process::ExitCode,
};

use clap::{Parser, error::ErrorKind};

use crate::{
    ask, attest, bench,
    cli::{Cli, Command, ModelsCommand},
    config::{self, Following, Layers, follow},
    datadir::DataDir,
    dispute::validate,
    exit::Failure,
    first, gateway, health, infer, logs, manual, offers, registration, selftest, soundness, stake, status,
    verify, worker,
};

mod models;
mod wallet;

/// Takes changes of `log` in the file, where neither flag nor environment is stronger.
fn follow_log(cli: &Cli, command: &Command, following: &Following) -> tokio::task::AbortHandle {
    let mut layers = following.layers.clone();
    let (typed, default) = (cli.log.is_some(), log_default(command));
    let mut now = layers.borrow().file().log.clone();
    let task = tokio::spawn(async move {
        while layers.changed().await.is_ok() {
            let next = layers.borrow_and_update().file().log.clone();
            if next == now {
                continue;
            }
            now = next;
            if typed {
                tracing::warn!("config.toml: log changed, but --log or BITAI_LOG is stronger");
            } else if let Err(e) = logs::change(now.as_deref().unwrap_or(default)) {
                tracing::error!("{e}; what is logged stays as it was");
            }
        }
    });
    task.abort_handle()
}

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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("starting threads")))?;
    let ended = runtime.block_on(run(cli));
    if cli.command.is_none() {
        // A name that is being looked up must not keep the greeting from ending.
        runtime.shutdown_background();
    }
    ended
}

/// What is logged where nobody says.
fn log_default(command: &Command) -> &'static str {
    match command {
        Command::Run(_) | Command::Validate(_) | Command::Serve(_) => "info",
        _ => "warn",
    }
}

/// Runs the command that was typed.
pub async fn run(cli: &Cli) -> Result<(), Failure> {
    let Some(command) = &cli.command else {
        first::run(cli).await;
        return Ok(());
    };
    let data = DataDir::resolve(cli.data_dir.clone())?;
    let layers = Layers::of(&data, cli)?;
    let log = layers.log(cli);
    logs::begin(
        log.as_deref().unwrap_or(log_default(command)),
        layers.log_json(cli),
    )?;
    match command {
        Command::Models(ModelsCommand::Register(args)) => registration::run(&data, &layers, args).await,
        Command::Models(command) => models::run(&data, &layers, command).await,
        Command::Infer(args) => infer::run(&data, &layers, args),
        Command::Verify(args) => verify::run(&data, &layers, args).await,
        Command::Wallet(command) => wallet::run(&data, &layers, command).await,
        Command::Run(args) => {
            let following = follow(&data, &layers);
            let _logs = follow_log(cli, command, &following);
            worker::run(&data, &layers, args, following.layers.clone()).await
        }
        Command::Validate(args) => {
            let following = follow(&data, &layers);
            let _logs = follow_log(cli, command, &following);
            validate::run(&data, &layers, args).await
        }
        Command::Config(args) => config::run(&data, &layers, cli, args),
        Command::Serve(args) => gateway::run(&data, &layers, args).await,
        Command::Ask(args) => ask::run(&data, &layers, args).await,
        Command::Validator(command) => attest::run(&data, &layers, command).await,
        Command::Stake(args) => stake::run(&data, &layers, args).await,
        Command::Unserve(args) => offers::run(&data, &layers, args).await,
        Command::Status(args) => status::run(&data, &layers, args).await,
        Command::Doctor(args) => health::run(&data, &layers, args).await,
        Command::Bench(args) => bench::run(&data, &layers, args),
        Command::Selftest(args) => selftest::run(&layers, args),
        Command::Soundness(args) => soundness::run(args),
        Command::Completions(args) => manual::completions(args),
        Command::Man(args) => manual::man(args),
        Command::Reference => manual::reference(),
    }
}

/// Has the owner type a name before something that cannot be taken back.
fn confirm(name: &str, what: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(format!(
            "{what} No terminal to confirm it at; say --yes"
        )));
    }
    eprint!("{what} Type `{name}` to go on: ");
    // A prompt that cannot be shown will not be answered with the name either.
    let _ = std::io::stderr().flush();
    let mut typed = String::new();
    std::io::stdin()
        .read_line(&mut typed)
        .map_err(|e| Failure::Usage(format!("reading the confirmation: {e}; say --yes")))?;
    if typed.trim() == name {
        Ok(())
    } else {
        Err(Failure::Usage("not confirmed; nothing was done".into()))
    }
}
