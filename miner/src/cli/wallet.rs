//! Whose key, and `wallet ...`, as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::PayoutArgs;

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
    /// Write a key without its encryption; asks first
    Export(ExportArgs),
    /// List the keys' names and addresses
    Show {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show or set the address that this key's money goes to, which the key itself cannot change afterwards
    Payout(Box<PayoutArgs>),
}

/// `wallet export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Name of the key, or its keystore file
    #[arg(default_value = "default")]
    pub name: String,
    /// Write it here, a new file that only its owner can read
    #[arg(long, value_name = "FILE", required_unless_present = "stdout")]
    pub out: Option<PathBuf>,
    /// Print it instead
    #[arg(long, conflicts_with = "out")]
    pub stdout: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// File that holds the keystore's password [default: ask]
    #[arg(long, env = "BITAI_PASSWORD_FILE", value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}
