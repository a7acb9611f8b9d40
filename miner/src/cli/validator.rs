//! `validator ...` as typed.

use alloy_primitives::{Address, U256};
use clap::{Args, Subcommand};

use super::{ChainArgs, KeyArgs};

/// Which chain, and whose key.
#[derive(Debug, Args)]
pub struct WhereArgs {
    /// Which chain.
    #[command(flatten)]
    pub chain: ChainArgs,
    /// Whose key.
    #[command(flatten)]
    pub key: KeyArgs,
}

/// Another validator's entry for a job.
#[derive(Debug, Args)]
pub struct EntryArgs {
    /// The validator
    pub validator: Address,
    /// Number of the job
    pub job: U256,
    /// Where.
    #[command(flatten)]
    pub to: WhereArgs,
}

/// `validator ...`
#[derive(Debug, Subcommand)]
pub enum ValidatorCommand {
    /// Add to this validator's stake; it weighs from the second epoch after
    Stake {
        /// Wei to add
        amount: U256,
        /// Where.
        #[command(flatten)]
        to: WhereArgs,
    },
    /// Ask for stake; `withdraw` fetches it when nothing can be lost of it any more
    Unstake {
        /// Wei to take out
        amount: U256,
        /// Where.
        #[command(flatten)]
        to: WhereArgs,
    },
    /// Be drawn for the jobs of a model, which must be imported here
    Enlist {
        /// Name or root of the model
        model: String,
        /// Where.
        #[command(flatten)]
        to: WhereArgs,
    },
    /// Be drawn for a model's jobs no more
    Delist {
        /// Name or root of the model
        model: String,
        /// Where.
        #[command(flatten)]
        to: WhereArgs,
    },
    /// Fetch stake that has left, rewards, bonds and parts of slashes
    Withdraw {
        /// Where.
        #[command(flatten)]
        to: WhereArgs,
    },
    /// Show stake, models and weights
    Status {
        /// Where.
        #[command(flatten)]
        to: WhereArgs,
    },
    /// Ask a validator to open its entry for a job; costs a bond, which comes back where it cannot
    Ask {
        /// Whose entry.
        #[command(flatten)]
        entry: EntryArgs,
    },
    /// End an ask that was not opened in time: the validator is slashed
    Expire {
        /// Whose entry.
        #[command(flatten)]
        entry: EntryArgs,
    },
    /// Report a validator that was drawn for a job and did not attest its epoch
    Absent {
        /// Whose entry.
        #[command(flatten)]
        entry: EntryArgs,
    },
}

impl ValidatorCommand {
    /// Which chain, and whose key.
    pub fn to(&self) -> &WhereArgs {
        match self {
            Self::Stake { to, .. }
            | Self::Unstake { to, .. }
            | Self::Enlist { to, .. }
            | Self::Delist { to, .. }
            | Self::Withdraw { to }
            | Self::Status { to } => to,
            Self::Ask { entry, .. } | Self::Expire { entry } | Self::Absent { entry } => &entry.to,
        }
    }
}
