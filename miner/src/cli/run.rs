//! The commands that stay up, as typed.

use alloy_primitives::U256;
use clap::Args;

use super::{ChainArgs, DeviceArgs, Heights, KeyArgs};

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

/// What to serve, and how.
#[derive(Debug, Clone, Default, Args)]
pub struct MiningArgs {
    /// Models to serve, by name or root [default: every model in the data directory that the chain lists]
    #[arg(long, env = "BITAI_MODEL", value_delimiter = ',')]
    pub model: Vec<String>,
    /// Stake up to this much first, in wei
    #[arg(long, env = "BITAI_STAKE", value_name = "WEI")]
    pub stake: Option<U256>,
    /// Let this key's offers for other models stand: another machine serves them [default: they are withdrawn]
    #[arg(long, env = "BITAI_KEEP_OFFERS", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub keep_offers: Option<bool>,
    /// Most blocks that a finished answer waits for others that are being computed, to be committed with them in one
    /// transaction; 0 sends each at once [default: 1]
    #[arg(long, env = "BITAI_BATCH_WAIT", value_name = "BLOCKS")]
    pub batch_wait: Option<u64>,
}

/// `run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Say what would be done and with what, ask the node, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// On a devnet of this data directory: make a key where there is none, take coins from the devnet's account, and stake
    #[arg(long, conflicts_with = "dry_run")]
    pub devnet: bool,
    /// What to serve, and how.
    #[command(flatten)]
    pub serve: MiningArgs,
    /// What to ask.
    #[command(flatten)]
    pub ask: AskPriceArgs,
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
