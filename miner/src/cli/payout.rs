//! `wallet payout ...` as typed.

use std::path::PathBuf;

use alloy_primitives::Address;
use clap::Args;

use super::{ChainArgs, KeyArgs};

/// `wallet payout`
#[derive(Debug, Args)]
pub struct PayoutArgs {
    /// Address that this key's money is to go to from here on; without it, where it goes now is shown
    pub address: Option<Address>,
    /// Whose money it is, where the key is the payout address's or none is needed [default: the key's own]
    #[arg(long, value_name = "ADDRESS")]
    pub account: Option<Address>,
    /// Of a validator: at the contract of attestations, not at the hub
    #[arg(long)]
    pub validator: bool,
    /// Set it without asking: from then on only the payout address can change it
    #[arg(long)]
    pub yes: bool,
    /// Sign the change with the payout address's key into this file, without a node; needs --account, --contract, --nonce,
    /// --until and --chain-id, which `wallet payout` shows
    #[arg(long, value_name = "FILE", conflicts_with_all = ["relay", "recall", "withdraw"],
        requires_all = ["address", "account", "contract", "nonce", "until"])]
    pub sign: Option<PathBuf>,
    /// Send a signed change; any key may
    #[arg(long, value_name = "FILE", conflicts_with_all = ["address", "recall", "withdraw"])]
    pub relay: Option<PathBuf>,
    /// Call back the account's stake with the payout address's key: the account takes part no more
    #[arg(long, requires = "account", conflicts_with_all = ["address", "withdraw"])]
    pub recall: bool,
    /// Fetch what the account could withdraw with the payout address's key
    #[arg(long, requires = "account", conflicts_with = "address")]
    pub withdraw: bool,
    /// For --sign: the contract that pays
    #[arg(long, value_name = "ADDRESS")]
    pub contract: Option<Address>,
    /// For --sign: changes so far
    #[arg(long)]
    pub nonce: Option<u64>,
    /// For --sign: last height at which the change counts
    #[arg(long, value_name = "HEIGHT")]
    pub until: Option<u64>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Which chain.
    #[command(flatten)]
    pub chain: ChainArgs,
    /// Whose key.
    #[command(flatten)]
    pub key: KeyArgs,
}
