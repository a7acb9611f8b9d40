//! The `bitai-miner` program: parses, resolves, runs, and turns a failure into its words and exit code.

use std::process::ExitCode;

use bitai_miner::{Failure, cli::Cli, commands};
use clap::{Parser, error::ErrorKind};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
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
    commands::init_logs(cli)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("starting threads")))?;
    runtime.block_on(commands::run(cli))
}
