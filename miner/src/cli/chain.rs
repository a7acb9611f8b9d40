//! Which chain, and the commands that only talk to it, as typed.

use alloy_primitives::{Address, U256};
use clap::Args;

use super::{DeviceArgs, KeyArgs, SamplingArgs};

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

/// `status`
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

/// `doctor`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Address of the neuron [default: of the keystore]
    #[arg(long)]
    pub address: Option<Address>,
    /// Where it is to compute.
    #[command(flatten)]
    pub device: DeviceArgs,
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
