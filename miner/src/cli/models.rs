//! `models ...` as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{ChainArgs, KeyArgs};

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
    /// Fetch a model and import it: a known name, hf:OWNER/NAME, a URL, or a file
    Pull(PullArgs),
    /// List the models in the data directory: what holds them, and what the chain pays for them
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Which chain.
        #[command(flatten)]
        chain: ChainArgs,
    },
    /// Check every byte of a model against its root
    Verify {
        /// Name or model root
        name: String,
    },
    /// Remove a model from the data directory; asks first
    Remove {
        /// Its name
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
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

/// `models pull`
#[derive(Debug, Clone, Args)]
pub struct PullArgs {
    /// smollm2, minilm, hf:OWNER/NAME, hf:OWNER/NAME:FILE, a URL, or a file
    pub what: String,
    /// What its SHA-256 must be
    #[arg(long, value_name = "HEX")]
    pub sha256: Option<String>,
    /// Numeric profile
    #[arg(long, value_enum, default_value_t = Profile::A)]
    pub profile: Profile,
    /// Name of the model here [default: from the file's name]
    #[arg(long)]
    pub name: Option<String>,
    /// Replace a model of that name
    #[arg(long)]
    pub force: bool,
    /// Keep what was downloaded
    #[arg(long)]
    pub keep: bool,
    /// Threads of the import [default: all]
    #[arg(long)]
    pub threads: Option<usize>,
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
