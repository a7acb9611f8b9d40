//! Which command runs what.

use std::{ffi::OsString, io::IsTerminal, process::ExitCode};

use alloy::signers::local::PrivateKeySigner;
use clap::{Parser, error::ErrorKind};
use tracing_subscriber::EnvFilter;

use crate::{
    ask, attest, bench,
    cli::{Cli, Command, ModelsCommand, WalletCommand},
    config::Layers,
    datadir::DataDir,
    dispute::validate,
    exit::Failure,
    infer, models, offers, registration, selftest, soundness, stake, status, verify, wallet, worker,
};

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
        Command::Models(command) => run_models(&data, command),
        Command::Infer(args) => infer::run(&data, &layers, args),
        Command::Verify(args) => verify::run(&data, &layers, args).await,
        Command::Wallet(command) => run_wallet(&data, command),
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
    }
}

fn run_models(data: &DataDir, command: &ModelsCommand) -> Result<(), Failure> {
    match command {
        ModelsCommand::Import {
            file,
            profile,
            name,
            force,
            threads,
        } => {
            let model = models::import(data, file, *profile, name.clone(), *force, *threads)?;
            print_model(&model);
        }
        ModelsCommand::List { json } => {
            let mut damaged = None;
            let mut found = Vec::new();
            for model in models::list(data)? {
                match model {
                    Ok(model) => found.push(model),
                    Err(e) => {
                        eprintln!("bitai-miner: {e}");
                        damaged = Some(e);
                    }
                }
            }
            if *json {
                println!("{}", serde_json::json!(found));
            } else if found.is_empty() {
                println!(
                    "no models in {}; import one: bitai-miner models import FILE",
                    data.models().display()
                );
            } else {
                for model in &found {
                    println!(
                        "{:<28} {}  {} layers  {} MiB  {:?}",
                        model.name,
                        crate::exit::short(&model.model_root),
                        model.layers,
                        model.bytes >> 20,
                        model.profile
                    );
                }
            }
            return damaged.map_or(Ok(()), Err);
        }
        // It needs the chain: `run` has seen to it.
        ModelsCommand::Register(_) => {}
        ModelsCommand::Show { name, json } => {
            let (model, _pack) = models::open(data, Some(name))?;
            if *json {
                println!("{}", serde_json::json!(model));
            } else {
                print_model(&model);
                println!("bytes        all match the root");
            }
        }
    }
    Ok(())
}

fn print_model(model: &models::Listed) {
    println!("name         {}", model.name);
    println!("model root   {:#x}", model.model_root);
    println!("model        {} ({})", model.title, model.architecture);
    println!("profile      {:?}", model.profile);
    println!(
        "layers       {}, vocabulary {}, context {}",
        model.layers, model.shape.vocab, model.shape.context
    );
    if model.shape.embeds() {
        println!("words        {}: it embeds", model.shape.words);
    }
    println!("size         {} MiB", model.bytes >> 20);
    println!("source       BLAKE3 {:#x}", model.source_hash);
    println!("file         {}", model.path.display());
}

fn run_wallet(data: &DataDir, command: &WalletCommand) -> Result<(), Failure> {
    match command {
        WalletCommand::New { name, password_file } => {
            let signer = PrivateKeySigner::random_with(&mut rand::rngs::OsRng);
            let password = wallet::password(password_file.as_deref(), true)?;
            let path = wallet::store(data, name, &signer, &password)?;
            println!("{}  {}", signer.address(), path.display());
        }
        WalletCommand::Import {
            name,
            key_file,
            password_file,
        } => {
            let text = match key_file {
                Some(path) => std::fs::read_to_string(path).map_err(|e| Failure::Keystore {
                    path: path.clone(),
                    why: e.to_string(),
                })?,
                None => rpassword::prompt_password("Private key (hex): ").map_err(|e| {
                    Failure::Usage(format!("no terminal to ask for a key ({e}); use --key-file FILE"))
                })?,
            };
            let signer = wallet::parse_key(&text)?;
            let password = wallet::password(password_file.as_deref(), true)?;
            let path = wallet::store(data, name, &signer, &password)?;
            println!("{}  {}", signer.address(), path.display());
        }
        WalletCommand::Show { json } => {
            let keys = wallet::list(data)?;
            if *json {
                println!("{}", serde_json::json!(keys));
            } else if keys.is_empty() {
                println!(
                    "no keys in {}; make one: bitai-miner wallet new",
                    data.keys().display()
                );
            }
            for key in keys.iter().filter(|_| !*json) {
                println!("{:<16} {}  {}", key.name, key.address, key.path.display());
            }
        }
    }
    Ok(())
}
