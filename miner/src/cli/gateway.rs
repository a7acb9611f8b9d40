//! `serve` as typed.

use std::{net::SocketAddr, path::PathBuf};

use alloy_primitives::U256;
use clap::Args;

use super::{ChainArgs, DeviceArgs, KeyArgs};

/// `serve`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:8008]
    #[arg(long, env = "BITAI_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// File with the API key that requests must carry, mode 600; needed to listen off loopback
    #[arg(long, env = "BITAI_API_KEY_FILE", value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Models to answer with, by name or root [default: every model in the data directory]
    #[arg(long, env = "BITAI_MODEL", value_delimiter = ',')]
    pub model: Vec<String>,
    /// Most requests at once, those that wait included; more are refused with 429 [default: 64]
    #[arg(long, value_name = "REQUESTS")]
    pub queue: Option<usize>,
    /// Most jobs of a model that run side by side [default: 8]
    #[arg(long, value_name = "JOBS")]
    pub batch: Option<usize>,
    /// Tokens of a chat that names no number [default: 512]
    #[arg(long, value_name = "TOKENS")]
    pub max_tokens: Option<u32>,
    /// Post every answer as a paid job, follow it to its end and compare the settled trace root
    #[arg(long, env = "BITAI_SETTLE")]
    pub settle: bool,
    /// Most wei that settling may spend in a day (UTC), fees and gas; answers beyond are given unsettled [default: no limit]
    #[arg(long, env = "BITAI_MAX_SPEND_DAY", value_name = "WEI")]
    pub max_spend_day: Option<U256>,
    /// Most wei that settling may spend in all [default: no limit]
    #[arg(long, env = "BITAI_MAX_SPEND", value_name = "WEI")]
    pub max_spend: Option<U256>,
    /// Where to run.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Which chain, for `--settle`.
    #[command(flatten)]
    pub chain: ChainArgs,
    /// Whose coins, for `--settle`.
    #[command(flatten)]
    pub key: KeyArgs,
}
