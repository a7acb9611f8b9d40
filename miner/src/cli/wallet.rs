//! Whose key, and `wallet ...`, as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
