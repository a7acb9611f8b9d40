//! Every way a command can end, its exit code and its words: one table, also printed by `--help`.

use std::path::PathBuf;

use alloy_primitives::{Address, B256, U256};
use thiserror::Error;

/// The table of exit codes, for `--help` and `docs/operator/exit-codes.md`.
pub const EXIT_CODES: &str = "\
Exit codes:
   0  done
   1  a fault of the program itself
   2  bad usage (arguments)
   3  bad configuration file
  10  model file unknown, truncated or unsupported
  11  model pack's bytes do not match its root
  12  no such model in the data directory
  13  prompt and answer do not fit the context, or the job is malformed
  14  trace root mismatch: the answer was not computed as claimed
  15  device failed
  16  receipt malformed
  17  the chain does not list the model as the pack is, or has retired it
  18  an offer stands for a model that is not in the data directory
  19  a job was posted on a registration whose numbers are not the pack's
  20  node unreachable
  21  node is on another chain
  22  contract missing at its address
  23  transaction refused or reverted
  24  job refunded or not answered in time
  25  no such job
  30  keystore missing, malformed or wrong password
  31  stake too small
  32  balance too small
  33  the key is published, and this is no private chain
  40  data directory or journal cannot be read or written
  41  another process uses the data directory
  42  not enough space on the disk
  50  download failed; the same command goes on where it stopped
  51  a download has another SHA-256 than it should
  52  no device has room for the model or job
  53  the driver lost the GPU
 130  interrupted";

/// Why a command failed. The message names the bad thing and, where there is one, the mend.
#[derive(Debug, Error)]
pub enum Failure {
    /// Arguments that clap could not refuse on its own.
    #[error("{0}")]
    Usage(String),
    /// The configuration file.
    #[error("configuration {path}: {why}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A model file that cannot be imported.
    #[error("model file {path}: {why}")]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A pack that is not what its root says; the words name the pack, the part and the mend.
    #[error("{0}")]
    PackRoot(String),
    /// A model that was never imported.
    #[error(
        "no model {name} in {dir} (there: {have}). Fetch one: bitai-miner models pull smollm2, or models import FILE"
    )]
    NoModel {
        /// What was asked for: a name or a root.
        name: String,
        /// Where it was looked for.
        dir: PathBuf,
        /// The names there.
        have: String,
    },
    /// A pack that the registry does not list as it is.
    #[error("model {name} ({root:#x}) cannot be served: {why}")]
    Unlisted {
        /// Its name here.
        name: String,
        /// Its root.
        root: B256,
        /// What the registry says, field by field.
        why: String,
    },
    /// Offers whose jobs nobody here can answer.
    #[error(
        "offered without a pack here: {ids}. Unless another machine with this key answers their jobs, those cost \
         collateral: bitai-miner unserve ID, or import the model"
    )]
    Stray {
        /// Ids of the registrations.
        ids: String,
    },
    /// A job that the hub would refuse.
    #[error(transparent)]
    Job(#[from] bitai_types::JobError),
    /// The answer does not follow from the prompt.
    #[error("MISMATCH: {0}")]
    TraceRoot(String),
    /// Numbers that no honest neuron serves.
    #[error("MISREGISTERED: {0}")]
    Misregistered(String),
    /// A device failed while it computed.
    #[error("device: {0}")]
    Device(String),
    /// A receipt file that is none.
    #[error("receipt {path}: {why}")]
    Receipt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No node answered.
    #[error(
        "no node answers at {url}: {why}. Is it running? (scripts/devnet starts one; --node names another)"
    )]
    Unreachable {
        /// The URL or URLs tried.
        url: String,
        /// The last error.
        why: String,
    },
    /// The node serves another chain.
    #[error(
        "node {url} is on chain {got}, wanted {want}; name a node of chain {want} with --node, or set --chain-id {got}"
    )]
    ChainId {
        /// The node.
        url: String,
        /// Its chain id.
        got: u64,
        /// Ours.
        want: u64,
    },
    /// No code where a contract should be.
    #[error("no {what} contract at {address} on this chain; set --{flag} to where it was deployed")]
    NoContract {
        /// Which contract.
        what: &'static str,
        /// Where.
        address: Address,
        /// The flag that names it.
        flag: &'static str,
    },
    /// A transaction that the node refused or that reverted.
    #[error("{what}: {why}")]
    Transaction {
        /// Which step.
        what: String,
        /// The node's or the contract's reason.
        why: String,
    },
    /// A job that nobody answered.
    #[error("job {job}: {why}")]
    Unanswered {
        /// The job.
        job: U256,
        /// What happened instead.
        why: String,
    },
    /// A job id that the hub does not know.
    #[error("the hub knows no job {job}")]
    NoJob {
        /// The id.
        job: U256,
    },
    /// The key could not be had.
    #[error("keystore {path}: {why}")]
    Keystore {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Not enough staked.
    #[error("stake too small: {have} wei staked by {who}, at least {want} needed. Add {missing} wei: bitai-miner stake {missing}", missing = want.saturating_sub(*have))]
    Stake {
        /// The neuron.
        who: Address,
        /// Staked.
        have: U256,
        /// Needed.
        want: U256,
    },
    /// Not enough coins.
    #[error("balance too small: {who} has {have} wei, {want} needed")]
    Balance {
        /// The account.
        who: Address,
        /// Its balance.
        have: U256,
        /// Needed.
        want: U256,
    },
    /// A key that everyone knows, on a public chain.
    #[error(
        "everyone knows the key of {who}: on chain {chain_id} its coins are anyone's. Make a key: bitai-miner wallet new NAME"
    )]
    Published {
        /// The account.
        who: Address,
        /// The chain.
        chain_id: u64,
    },
    /// The disk.
    #[error("{path}: {why}")]
    Disk {
        /// File or directory.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// Two neurons with one journal would answer twice.
    #[error("{path} is in use by another bitai-miner; give this one its own --data-dir")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// What is to be downloaded would not fit.
    #[error(
        "{path}: {need} bytes are needed, and {keep} are to stay free, but only {free} are; free some, or name another --data-dir"
    )]
    Space {
        /// Where.
        path: PathBuf,
        /// Bytes needed.
        need: u64,
        /// Bytes free.
        free: u64,
        /// Bytes that are to stay free.
        keep: u64,
    },
    /// A download that ended without its file.
    #[error("download of {url}: {why}")]
    Download {
        /// From where.
        url: String,
        /// What happened.
        why: String,
    },
    /// A download that is not what it should be.
    #[error(
        "{url} has SHA-256 {got}, it should have {want}; it was thrown away. Pull again; if it stays so, do not use it"
    )]
    Checksum {
        /// From where.
        url: String,
        /// Its hash.
        got: String,
        /// The right one.
        want: String,
    },
    /// A model or job that no device has room for; the words name it, with the numbers.
    #[error("no room: {0}")]
    NoRoom(String),
    /// A GPU that its driver lost.
    #[error("device: {0}")]
    Lost(String),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// Ours to mend.
    #[error("internal: {0:#}")]
    Internal(#[from] anyhow::Error),
}

impl Failure {
    /// The process exit code of this failure (see [`EXIT_CODES`]).
    pub const fn code(&self) -> u8 {
        match self {
            Self::Internal(_) => 1,
            Self::Usage(_) => 2,
            Self::Config { .. } => 3,
            Self::ModelFile { .. } => 10,
            Self::PackRoot(_) => 11,
            Self::NoModel { .. } => 12,
            Self::Job(_) => 13,
            Self::TraceRoot(_) => 14,
            Self::Device(_) => 15,
            Self::Receipt { .. } => 16,
            Self::Unlisted { .. } => 17,
            Self::Stray { .. } => 18,
            Self::Misregistered(_) => 19,
            Self::Unreachable { .. } => 20,
            Self::ChainId { .. } => 21,
            Self::NoContract { .. } => 22,
            Self::Transaction { .. } => 23,
            Self::Unanswered { .. } => 24,
            Self::NoJob { .. } => 25,
            Self::Keystore { .. } => 30,
            Self::Stake { .. } => 31,
            Self::Balance { .. } => 32,
            Self::Published { .. } => 33,
            Self::Disk { .. } => 40,
            Self::Locked { .. } => 41,
            Self::Space { .. } => 42,
            Self::Download { .. } => 50,
            Self::Checksum { .. } => 51,
            Self::NoRoom(_) => 52,
            Self::Lost(_) => 53,
            Self::Interrupted => 130,
        }
    }

    /// Whether the device is to blame: another one may do what was asked.
    pub const fn is_device(&self) -> bool {
        matches!(self, Self::Device(_) | Self::Lost(_) | Self::NoRoom(_))
    }

    /// A disk failure at `path`.
    pub fn disk(path: impl Into<PathBuf>, why: impl std::fmt::Display) -> Self {
        Self::Disk {
            path: path.into(),
            why: why.to_string(),
        }
    }
}

/// A root as the command line prints it.
pub fn short(root: &B256) -> String {
    let hex = hex::encode(root);
    format!("{}..{}", &hex[..8], &hex[56..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_table_and_is_distinct() {
        let all = [
            Failure::Internal(anyhow::anyhow!("x")),
            Failure::Usage(String::new()),
            Failure::Config {
                path: "c".into(),
                why: String::new(),
            },
            Failure::ModelFile {
                path: "f".into(),
                why: String::new(),
            },
            Failure::PackRoot(String::new()),
            Failure::NoModel {
                name: String::new(),
                dir: "d".into(),
                have: String::new(),
            },
            Failure::Job(bitai_types::JobError::EmptyInput),
            Failure::TraceRoot(String::new()),
            Failure::Device(String::new()),
            Failure::Receipt {
                path: "f".into(),
                why: String::new(),
            },
            Failure::Unlisted {
                name: String::new(),
                root: B256::ZERO,
                why: String::new(),
            },
            Failure::Stray { ids: String::new() },
            Failure::Misregistered(String::new()),
            Failure::Unreachable {
                url: String::new(),
                why: String::new(),
            },
            Failure::ChainId {
                url: String::new(),
                got: 1,
                want: 2,
            },
            Failure::NoContract {
                what: "hub",
                address: Address::ZERO,
                flag: "hub",
            },
            Failure::Transaction {
                what: String::new(),
                why: String::new(),
            },
            Failure::Unanswered {
                job: U256::ZERO,
                why: String::new(),
            },
            Failure::NoJob { job: U256::ZERO },
            Failure::Keystore {
                path: "f".into(),
                why: String::new(),
            },
            Failure::Stake {
                who: Address::ZERO,
                have: U256::ZERO,
                want: U256::ONE,
            },
            Failure::Balance {
                who: Address::ZERO,
                have: U256::ZERO,
                want: U256::ONE,
            },
            Failure::Published {
                who: Address::ZERO,
                chain_id: 1,
            },
            Failure::disk("d", "full"),
            Failure::Locked { path: "l".into() },
            Failure::Space {
                path: "d".into(),
                need: 2,
                free: 1,
                keep: 0,
            },
            Failure::Download {
                url: String::new(),
                why: String::new(),
            },
            Failure::Checksum {
                url: String::new(),
                got: String::new(),
                want: String::new(),
            },
            Failure::NoRoom(String::new()),
            Failure::Lost(String::new()),
            Failure::Interrupted,
        ];
        let mut codes: Vec<u8> = all.iter().map(Failure::code).collect();
        for code in &codes {
            assert!(
                EXIT_CODES
                    .lines()
                    .any(|l| l.trim_start().starts_with(&format!("{code} "))),
                "code {code} has no line"
            );
        }
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), all.len());
        // 0 and the heading are the lines without a failure.
        assert_eq!(EXIT_CODES.lines().count(), all.len() + 2);
    }
}
