//! The command line as typed: raw arguments only, one definition for parsing and help.

use std::path::PathBuf;

use alloy_primitives::B256;
use clap::{Parser, Subcommand};

use crate::exit::EXIT_CODES;

mod chain;
mod config;
mod device;
mod gateway;
mod heights;
mod infer;
mod manual;
mod models;
mod payout;
mod run;
mod validator;
mod wallet;

pub use chain::{AskArgs, ChainArgs, DoctorArgs, StakeArgs, StatusArgs, UnserveArgs};
pub use config::{ConfigArgs, Typed};
pub use device::{BenchArgs, DeviceArgs, DeviceKind, SelftestArgs};
pub use gateway::ServeArgs;
pub use heights::Heights;
pub use infer::{InferArgs, SamplingArgs, VerifyArgs, q16};
pub use manual::{CompletionsArgs, ManArgs};
pub use models::{ModelsCommand, Profile, PullArgs, RegisterArgs};
pub use payout::PayoutArgs;
pub use run::{AskPriceArgs, MiningArgs, RunArgs, ValidateArgs};
pub use validator::{EntryArgs, ValidatorCommand, WhereArgs};
pub use wallet::{ExportArgs, KeyArgs, WalletCommand};

/// The BitAI neuron: takes jobs, runs models on integers, submits what it can prove.
#[derive(Debug, Parser)]
#[command(name = "bitai-miner", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    /// Where models, keys and the journal live [default: the user's data directory + /bitai]
    #[arg(long, global = true, env = "BITAI_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// What to log, as in RUST_LOG (`info`, `bitai_miner=debug`) [default: warn; `run`, `validate`: info]
    #[arg(long, global = true, env = "BITAI_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// Log as JSON lines
    #[arg(long, global = true, env = "BITAI_LOG_JSON", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub log_json: Option<bool>,
    /// Set a key of one of the sections of config.toml for this run
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// What to do; nothing = say what is here.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fetch, import, list, check, remove and register models
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Run a model on this machine and write a receipt that anyone can verify
    Infer(InferArgs),
    /// Check an answer by computing it again: a job id on the chain, or a receipt file
    Verify(VerifyArgs),
    /// Make, import and show encrypted keys
    #[command(subcommand)]
    Wallet(WalletCommand),
    /// Mine: answer jobs until interrupted
    Run(RunArgs),
    /// Doubt others: re-check what is revealed, and dispute what was not computed as claimed
    Validate(ValidateArgs),
    /// Stake as a validator, choose models to be drawn for, ask others for what they attested
    #[command(subcommand)]
    Validator(ValidatorCommand),
    /// Answer programs at once, as OpenAI's API does, each answer with its trace root
    Serve(ServeArgs),
    /// Post a paid job and wait for the answer
    Ask(AskArgs),
    /// Put coins behind this neuron
    Stake(StakeArgs),
    /// Take offers back: no job is drawn for them any more
    Unserve(UnserveArgs),
    /// Show node, stake, balance and open jobs
    Status(StatusArgs),
    /// Print every setting as it is in force, and where it comes from
    Config(ConfigArgs),
    /// Find out why this neuron is not earning
    Doctor(DoctorArgs),
    /// Measure this machine: speeds, limits, and whether its integers are right; needs no chain, wallet or model
    Bench(BenchArgs),
    /// Compare this device with the tensor spec, rule by rule and bit for bit
    Selftest(SelftestArgs),
    /// Print what checks, attestations and disputes catch, with what chance and at what cost; needs no chain
    Soundness(crate::soundness::SoundnessArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Write manual pages
    Man(ManArgs),
    /// Print every command and flag as Markdown
    #[command(hide = true)]
    Reference,
}

/// Reads a model root given as 64 hex digits; `None` where the text is a name.
pub fn as_root(text: &str) -> Option<B256> {
    let hex = text.strip_prefix("0x").unwrap_or(text);
    (hex.len() == 64).then(|| hex.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
