//! The command line as typed: raw arguments only, one definition for parsing and help.

use std::path::PathBuf;

use alloy_primitives::{Address, B256, U256};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::exit::EXIT_CODES;

mod heights;
mod validator;

pub use heights::Heights;
pub use validator::{EntryArgs, ValidatorCommand, WhereArgs};

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
    #[arg(long, global = true)]
    pub log_json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Import, list, show and register models
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
    /// Post a paid job and wait for the answer
    Ask(AskArgs),
    /// Put coins behind this neuron
    Stake(StakeArgs),
    /// Take offers back: no job is drawn for them any more
    Unserve(UnserveArgs),
    /// Show node, stake, balance and open jobs
    Status(StatusArgs),
    /// Find out why this neuron is not earning
    Doctor(StatusArgs),
    /// Measure this machine: speeds, limits, and whether its integers are right; needs no chain, wallet or model
    Bench(BenchArgs),
    /// Compare this device with the tensor spec, rule by rule and bit for bit
    Selftest(SelftestArgs),
    /// Print what checks, attestations and disputes catch, with what chance and at what cost; needs no chain
    Soundness(crate::soundness::SoundnessArgs),
}

/// `models ...`
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// Turn a GGUF file, or an encoder's folder, into a model pack
    Import {
        /// The GGUF file; for an encoder the folder with config.json, model.safetensors and tokenizer.json
        file: PathBuf,
        /// Numeric profile
        #[arg(long, value_enum, default_value_t = Profile::A)]
        profile: Profile,
        /// Name of the model here [default: from the file's name]
        #[arg(long)]
        name: Option<String>,
        /// Replace a model of that name
        #[arg(long)]
        force: bool,
        /// Threads [default: all]
        #[arg(long)]
        threads: Option<usize>,
    },
    /// List the models in the data directory
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Register a model on the chain, so that jobs can name it; costs a bond
    Register(RegisterArgs),
    /// Show a model: root, sizes, settings; checks every byte against the root
    Show {
        /// Name or model root
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// `models register`
#[derive(Debug, Args)]
pub struct RegisterArgs {
    /// The model: its name or root here, or a pack file
    #[arg(long)]
    pub pack: String,
    /// Where others can get the pack, 1 to 256 bytes
    #[arg(long)]
    pub uri: String,
    /// Print the model's id and the numbers that would be registered, and send nothing; needs no node
    #[arg(long)]
    pub dry_run: bool,
    /// Which chain.
    #[command(flatten)]
    pub chain: ChainArgs,
    /// Whose key pays the bond.
    #[command(flatten)]
    pub key: KeyArgs,
}

/// Per-site numeric settings of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// Quality: 16-bit activations, any architecture
    A,
    /// Throughput: 8-bit activations and rotation, pre-norm architectures
    B,
}

impl From<Profile> for bitai_model::pack::Profile {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::A => Self::A,
            Profile::B => Self::B,
        }
    }
}

/// Which processor, and how much of it.
#[derive(Debug, Clone, Args)]
pub struct DeviceArgs {
    /// Processor
    #[arg(long, value_enum, env = "BITAI_DEVICE")]
    pub device: Option<DeviceKind>,
    /// Threads [default: all]
    #[arg(long, env = "BITAI_THREADS")]
    pub threads: Option<usize>,
    /// Which GPU: its number, or its PCI address (`0000:01:00`) [default: the first]
    #[arg(long, env = "BITAI_GPU", value_name = "GPU")]
    pub gpu: Option<crate::gpu::Choice>,
}

/// The backends this build has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// The CPU, with the best instructions it has
    #[default]
    Cpu,
    /// The CPU with plain loops: slower, and what a processor without vector instructions runs
    #[value(name = "cpu-portable")]
    #[serde(rename = "cpu-portable")]
    CpuPortable,
    /// The plain loops of the spec: slow, and what every other backend is compared with
    Reference,
    /// An NVIDIA GPU
    Cuda,
}

/// `selftest`
#[derive(Debug, Args)]
pub struct SelftestArgs {
    /// Where to run.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// `bench`
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Measure a model that was imported
    #[arg(long, conflicts_with_all = ["shape", "profile"])]
    pub model: Option<String>,
    /// Measure a model of this shape, made from a seed
    #[arg(long, value_enum, default_value = "0.5b")]
    pub shape: crate::bench::Named,
    /// Numeric profile of the shape
    #[arg(long, value_enum, default_value_t = Profile::B)]
    pub profile: Profile,
    /// Prompt lengths
    #[arg(long, value_delimiter = ',', default_value = "512", value_name = "TOKENS")]
    pub prompt: Vec<u32>,
    /// Tokens to decode
    #[arg(long, value_delimiter = ',', default_value = "64", value_name = "TOKENS")]
    pub decode: Vec<u32>,
    /// Sequences that decode side by side
    #[arg(long, value_delimiter = ',', default_value = "1,8", value_name = "SEQUENCES")]
    pub batch: Vec<u32>,
    /// Repetitions of each test
    #[arg(long, default_value_t = 3)]
    pub repeat: u32,
    /// Repetitions before them that do not count
    #[arg(long, default_value_t = 1)]
    pub warm_up: u32,
    /// Leave out the runs without hashing that show what hashing costs
    #[arg(long)]
    pub no_compare: bool,
    /// What this machine costs an hour; adds the cost of a million tokens
    #[arg(long, value_name = "PRICE")]
    pub price_per_hour: Option<f64>,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: crate::bench::Format,
    /// Where to run.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// How to choose tokens, in the words of people.
#[derive(Debug, Clone, Args)]
pub struct SamplingArgs {
    /// Most tokens to generate
    #[arg(long, default_value_t = 128)]
    pub max_new: u32,
    /// 0 = always the likeliest token
    #[arg(long, default_value = "0", value_parser = q16)]
    pub temperature: u32,
    /// Draw among so many of the likeliest tokens; 0 = all
    #[arg(long, default_value_t = 0)]
    pub top_k: u32,
    /// Draw among the likeliest tokens that hold this much of the mass
    #[arg(long, default_value = "1", value_parser = q16)]
    pub top_p: u32,
    /// Seed of the draw
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Feed the prompt as it is, without the model's chat template
    #[arg(long)]
    pub raw: bool,
}

/// Reads a decimal like `0.7` as Q16, exactly: digits, no float, at most 6 after the point, at most 16.
pub fn q16(text: &str) -> Result<u32, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || (whole.is_empty() && part.is_empty()) || part.len() > 6 {
        return Err(format!(
            "`{text}` is no decimal number with at most 6 digits after the point"
        ));
    }
    let whole: u32 = if whole.is_empty() {
        0
    } else {
        whole.parse().map_err(|_| format!("`{text}` is too large"))?
    };
    if whole > 16 {
        return Err(format!("`{text}` is above 16"));
    }
    let micros: u64 = format!("{part:0<6}")
        .parse()
        .map_err(|_| format!("`{text}` is no number"))?;
    let q = (u64::from(whole) << 16) + ((micros << 16) + 500_000) / 1_000_000;
    u32::try_from(q).map_err(|_| format!("`{text}` is too large"))
}

/// `infer`
#[derive(Debug, Args)]
pub struct InferArgs {
    /// The prompt
    pub prompt: String,
    /// Turn the prompt into an embedding; the model must be an encoder
    #[arg(long, conflicts_with_all = ["max_new", "temperature", "top_k", "top_p", "seed", "raw"])]
    pub embed: bool,
    /// Name or root of the model
    #[arg(long, env = "BITAI_MODEL")]
    pub model: Option<String>,
    /// How to choose tokens.
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Where to run.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
    /// Write the receipt here [default: receipts/ in the data directory]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// `verify`
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A job id on the chain, or a receipt file
    #[arg(required_unless_present = "jobs")]
    pub what: Option<String>,
    /// Re-check every job that was paid between two BitAI heights, both included; TO may be left out
    #[arg(long, value_name = "FROM..TO", conflicts_with_all = ["what", "against", "other_pack", "from", "to"])]
    pub jobs: Option<Heights>,
    /// Compute on this processor as well and name the first token, layer, site and number that differ
    #[arg(long, value_enum, value_name = "DEVICE")]
    pub against: Option<DeviceKind>,
    /// Compute with this pack as well (a name or a file) and name the first place that differs
    #[arg(long, value_name = "PACK")]
    pub other_pack: Option<String>,
    /// First position to compare (prompt and output, from 0)
    #[arg(long, value_name = "POSITION", conflicts_with_all = ["against", "other_pack"])]
    pub from: Option<u32>,
    /// Last position to compare; nothing after it is computed
    #[arg(long, value_name = "POSITION", conflicts_with_all = ["against", "other_pack"])]
    pub to: Option<u32>,
    /// Leave out the timing of generation that the check is compared with
    #[arg(long)]
    pub no_timing: bool,
    /// Where to run.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Which chain.
    #[command(flatten)]
    pub chain: ChainArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// Which chain and contracts.
#[derive(Debug, Clone, Default, Args)]
pub struct ChainArgs {
    /// URL of a node; several are tried in order
    #[arg(long, env = "BITAI_NODE", value_delimiter = ',', value_name = "URL")]
    pub node: Vec<String>,
    /// Chain id to insist on
    #[arg(long, env = "BITAI_CHAIN_ID")]
    pub chain_id: Option<u64>,
    /// WorkerHub contract
    #[arg(long, env = "BITAI_HUB", value_name = "ADDRESS")]
    pub hub: Option<Address>,
    /// ModelRegistry contract
    #[arg(long, env = "BITAI_REGISTRY", value_name = "ADDRESS")]
    pub registry: Option<Address>,
}

/// Whose key.
#[derive(Debug, Clone, Default, Args)]
pub struct KeyArgs {
    /// Name of a key in the data directory, or a keystore file
    #[arg(long, env = "BITAI_KEYSTORE")]
    pub keystore: Option<String>,
    /// File that holds the keystore's password [default: ask]
    #[arg(long, env = "BITAI_PASSWORD_FILE", value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

/// `wallet ...`
#[derive(Debug, Subcommand)]
pub enum WalletCommand {
    /// Make a new key
    New {
        /// Name of the key
        #[arg(default_value = "default")]
        name: String,
        /// File that holds the password [default: ask twice]
        #[arg(long, env = "BITAI_PASSWORD_FILE", value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Take in a private key (hex, from a file or asked for; never from the command line)
    Import {
        /// Name of the key
        #[arg(default_value = "default")]
        name: String,
        /// File that holds the private key as hex [default: ask]
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
        /// File that holds the password [default: ask twice]
        #[arg(long, env = "BITAI_PASSWORD_FILE", value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// List the keys' names and addresses
    Show {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// The price of a job: all three together.
#[derive(Debug, Clone, Default, Args)]
pub struct AskPriceArgs {
    /// Wei asked for a job, whatever its length [default: 2 * 10^13]
    #[arg(long, env = "BITAI_ASK_JOB", value_name = "WEI")]
    pub ask_job: Option<U256>,
    /// Wei asked for each prompt id [default: 6 * 10^10]
    #[arg(long, env = "BITAI_ASK_IN", value_name = "WEI")]
    pub ask_in: Option<u64>,
    /// Wei asked for each token that the job may generate, or word of an embedding [default: 6 * 10^11]
    #[arg(long, env = "BITAI_ASK_OUT", value_name = "WEI")]
    pub ask_out: Option<u64>,
}

/// `run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Models to serve, by name or root [default: every model in the data directory that the chain lists]
    #[arg(long, env = "BITAI_MODEL", value_delimiter = ',')]
    pub model: Vec<String>,
    /// What to ask.
    #[command(flatten)]
    pub ask: AskPriceArgs,
    /// Stake up to this much first, in wei
    #[arg(long)]
    pub stake: Option<U256>,
    /// Let this key's offers for other models stand: another machine serves them [default: they are withdrawn]
    #[arg(long, env = "BITAI_KEEP_OFFERS")]
    pub keep_offers: bool,
    /// Most blocks that a finished answer waits for others that are being computed, to be committed with them in one
    /// transaction; 0 sends each at once
    #[arg(long, env = "BITAI_BATCH_WAIT", value_name = "BLOCKS", default_value_t = 1)]
    pub batch_wait: u64,
    /// Where to run.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Which chain.
    #[command(flatten)]
    pub chain: ChainArgs,
    /// Whose key.
    #[command(flatten)]
    pub key: KeyArgs,
}

/// `validate`
#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// Leave when everything that can be disputed now is checked and every own game is over
    #[arg(long)]
    pub once: bool,
    /// Only answers that were revealed between two BitAI heights, both included; TO may be left out
    #[arg(long, value_name = "FROM..TO")]
    pub jobs: Option<Heights>,
    /// Where to run.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Which chain.
    #[command(flatten)]
    pub chain: ChainArgs,
    /// Whose key plays, and pays the bonds.
    #[command(flatten)]
    pub key: KeyArgs,
}

/// `ask`
#[derive(Debug, Args)]
pub struct AskArgs {
    /// The prompt
    pub prompt: String,
    /// Turn the prompt into an embedding; the model must be an encoder
    #[arg(long, conflicts_with_all = ["max_new", "temperature", "top_k", "top_p", "seed", "raw"])]
    pub embed: bool,
    /// Name or root of the model; its tokenizer is needed here, so it must be imported
    #[arg(long, env = "BITAI_MODEL")]
    pub model: Option<String>,
    /// How to choose tokens.
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Fee in wei [default: the least that enough neurons take now, and a tenth more]
    #[arg(long)]
    pub fee: Option<U256>,
    /// Neurons that must answer
    #[arg(long, default_value_t = 1)]
    pub neurons: u8,
    /// Leave as soon as the job is posted
    #[arg(long)]
    pub no_wait: bool,
    /// Seconds to wait for the answer
    #[arg(long, default_value_t = 600)]
    pub timeout_s: u64,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
    /// Which chain.
    #[command(flatten)]
    pub chain: ChainArgs,
    /// Whose key.
    #[command(flatten)]
    pub key: KeyArgs,
}

/// `stake`
#[derive(Debug, Args)]
pub struct StakeArgs {
    /// Wei to add
    pub amount: U256,
    /// Which chain.
    #[command(flatten)]
    pub chain: ChainArgs,
    /// Whose key.
    #[command(flatten)]
    pub key: KeyArgs,
}

/// `unserve`
#[derive(Debug, Args)]
pub struct UnserveArgs {
    /// Models by name, root or id
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub model: Vec<String>,
    /// Every model that this key offers
    #[arg(long)]
    pub all: bool,
    /// Which chain.
    #[command(flatten)]
    pub chain: ChainArgs,
    /// Whose key.
    #[command(flatten)]
    pub key: KeyArgs,
}

/// `status` and `doctor`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Address of the neuron [default: of the keystore]
    #[arg(long)]
    pub address: Option<Address>,
    /// Which chain.
    #[command(flatten)]
    pub chain: ChainArgs,
    /// Whose key (only its address is read).
    #[command(flatten)]
    pub key: KeyArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
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

    #[test]
    fn decimals_become_q16_exactly() {
        assert_eq!(q16("0"), Ok(0));
        assert_eq!(q16("1"), Ok(65536));
        assert_eq!(q16(".5"), Ok(32768));
        assert_eq!(q16("0.7"), Ok(45875));
        assert_eq!(q16("16"), Ok(16 << 16));
    }

    #[test]
    fn rejects_what_is_no_decimal() {
        for bad in [
            "",
            ".",
            "-1",
            "1e3",
            "0.1234567",
            "17",
            "abc",
            "1.2.3",
            "99999999999",
        ] {
            assert!(q16(bad).is_err(), "{bad}");
        }
    }
}
