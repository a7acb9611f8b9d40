//! Configuration: command line over environment over file over defaults; unknown keys are refused.
//!
//! [`Args`] and [`File`] are what a person writes, [`Config`] is what the node runs with.

use crate::bitcoin::core::Auth;
use crate::genesis::{Genesis, GenesisError};
use crate::inscriber::price::PriceConfig;
use alloy_primitives::Address;
use bitai_types::chain::{Network, RPC_PORT};
use clap::Args as ClapArgs;
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Every environment variable that is read begins so; others that begin so are refused.
pub const ENV_PREFIX: &str = "BITAI_NODE_";

/// What a node runs with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder of everything the node keeps.
    pub data_dir: PathBuf,
    /// The chain.
    pub genesis: Genesis,
    /// Where Bitcoin is.
    pub bitcoin: BitcoinConfig,
    /// JSON-RPC; `None` serves nobody.
    pub rpc: Option<SocketAddr>,
    /// Inscribing; `None` only follows.
    pub inscriber: Option<InscriberConfig>,
    /// Blocks on demand; regtest only.
    pub producer: Option<ProducerConfig>,
    /// How often Bitcoin is asked for news.
    pub poll: Duration,
}

/// Where Bitcoin is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BitcoinConfig {
    /// Regtest inside the process (feature `embedded-bitcoin`).
    Embedded,
    /// Bitcoin Core.
    Core {
        /// `http://127.0.0.1:8332`.
        url: String,
        /// Login.
        auth: Auth,
    },
}

/// Inscribing.
#[derive(Debug, Clone)]
pub struct InscriberConfig {
    /// Seed file; made where there is none.
    pub seed_file: PathBuf,
    /// Who gets the priority fees of this node's envelopes.
    pub fee_recipient: Address,
    /// Prices.
    pub price: PriceConfig,
}

/// Regtest blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerConfig {
    /// A block is made at least this often.
    pub block_interval: Duration,
    /// A block is made this long after a transaction began to wait.
    pub settle: Duration,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            block_interval: Duration::from_millis(2_000),
            settle: Duration::from_millis(250),
        }
    }
}

impl Config {
    /// A regtest node with Bitcoin inside, for devnets and tests: `genesis` decides who has coins.
    pub fn devnet(
        data_dir: impl Into<PathBuf>,
        genesis: Genesis,
        rpc: SocketAddr,
        fee_recipient: Address,
    ) -> Self {
        let data_dir = data_dir.into();
        Self {
            genesis,
            bitcoin: BitcoinConfig::Embedded,
            rpc: Some(rpc),
            inscriber: Some(InscriberConfig {
                seed_file: data_dir.join("inscriber.seed"),
                fee_recipient,
                price: PriceConfig::default(),
            }),
            producer: Some(ProducerConfig::default()),
            poll: Duration::from_millis(50),
            data_dir,
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{path}: {why}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What happened.
        why: String,
    },
    /// A file holds something else.
    #[error("{path}: {why}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// What is wrong, with line and key.
        why: String,
    },
    /// An environment variable that nothing reads.
    #[error("environment variable {0} is unknown; `bitai-node run --help` lists those that are read")]
    Environment(String),
    /// Settings that contradict each other.
    #[error("{0}")]
    Conflict(String),
    /// A bad genesis.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
}

/// What the command line and the environment say.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Args {
    /// TOML file with the settings below (keys as in docs/operator/node.md).
    #[arg(long, env = "BITAI_NODE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Folder of everything the node keeps [default: bitai-node-data].
    #[arg(long, env = "BITAI_NODE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Genesis file as `bitai-node genesis` writes it; without one: regtest, nobody funded.
    #[arg(long, env = "BITAI_NODE_GENESIS")]
    pub genesis: Option<PathBuf>,
    /// Address of the JSON-RPC server [default: 127.0.0.1:10002].
    #[arg(long, env = "BITAI_NODE_RPC")]
    pub rpc: Option<SocketAddr>,
    /// URL of a Bitcoin Core node; without one regtest runs inside.
    #[arg(long, env = "BITAI_NODE_BITCOIN_URL")]
    pub bitcoin_url: Option<String>,
    /// Cookie file of that node.
    #[arg(long, env = "BITAI_NODE_BITCOIN_COOKIE")]
    pub bitcoin_cookie: Option<PathBuf>,
    /// `user:password` instead of a cookie.
    #[arg(long, env = "BITAI_NODE_BITCOIN_LOGIN", hide_env_values = true)]
    pub bitcoin_login: Option<String>,
    /// Who gets the priority fees; without one the node does not inscribe.
    #[arg(long, env = "BITAI_NODE_FEE_RECIPIENT")]
    pub fee_recipient: Option<Address>,
    /// Seed of the inscriber's Bitcoin keys [default: DATA_DIR/inscriber.seed].
    #[arg(long, env = "BITAI_NODE_SEED_FILE")]
    pub seed_file: Option<PathBuf>,
    /// Regtest: milliseconds between blocks at most; 0 makes none.
    #[arg(long, env = "BITAI_NODE_BLOCK_INTERVAL_MS")]
    pub block_interval_ms: Option<u64>,
}

/// What a configuration file may say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    data_dir: Option<PathBuf>,
    genesis: Option<PathBuf>,
    rpc: Option<SocketAddr>,
    bitcoin_url: Option<String>,
    bitcoin_cookie: Option<PathBuf>,
    bitcoin_login: Option<String>,
    fee_recipient: Option<Address>,
    seed_file: Option<PathBuf>,
    block_interval_ms: Option<u64>,
    price: Option<PriceConfig>,
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|e| ConfigError::Read {
        path: path.to_owned(),
        why: e.to_string(),
    })
}

impl File {
    /// Reads a TOML file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(&read(path)?).map_err(|e| ConfigError::Parse {
            path: path.to_owned(),
            why: e.to_string(),
        })
    }
}

/// Reads a genesis as JSON and checks it.
pub fn read_genesis(path: &Path) -> Result<Genesis, ConfigError> {
    let genesis: Genesis = serde_json::from_str(&read(path)?).map_err(|e| ConfigError::Parse {
        path: path.to_owned(),
        why: e.to_string(),
    })?;
    genesis.check()?;
    Ok(genesis)
}

/// Refuses variables that begin with [`ENV_PREFIX`] and that `known` does not have.
pub fn check_environment<'a>(
    names: impl IntoIterator<Item = String>,
    known: impl IntoIterator<Item = &'a str>,
) -> Result<(), ConfigError> {
    let known: Vec<&str> = known.into_iter().collect();
    match names
        .into_iter()
        .find(|n| n.starts_with(ENV_PREFIX) && !known.contains(&n.as_str()))
    {
        Some(name) => Err(ConfigError::Environment(name)),
        None => Ok(()),
    }
}

impl Args {
    /// Fills in what the file and the defaults say.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let file = self
            .config
            .as_deref()
            .map(File::read)
            .transpose()?
            .unwrap_or_default();
        self.over(file)
    }

    fn over(self, file: File) -> Result<Config, ConfigError> {
        let conflict = |why: &str| ConfigError::Conflict(why.to_owned());
        let data_dir = self
            .data_dir
            .or(file.data_dir)
            .unwrap_or_else(|| "bitai-node-data".into());
        let genesis = match self.genesis.or(file.genesis) {
            Some(path) => read_genesis(&path)?,
            None => Genesis::regtest([]),
        };
        let regtest = genesis.network == Network::Regtest;
        let cookie = self.bitcoin_cookie.or(file.bitcoin_cookie);
        let login = self.bitcoin_login.or(file.bitcoin_login);
        let auth = match (cookie, login) {
            (Some(_), Some(_)) => return Err(conflict("give bitcoin_cookie or bitcoin_login, not both")),
            (Some(path), None) => Some(Auth::Cookie(path)),
            (None, Some(login)) => {
                let (user, password) = login
                    .split_once(':')
                    .ok_or_else(|| conflict("bitcoin_login must be user:password"))?;
                Some(Auth::Password(user.to_owned(), password.to_owned()))
            }
            (None, None) => None,
        };
        let bitcoin = match (self.bitcoin_url.or(file.bitcoin_url), auth) {
            (Some(url), Some(auth)) => BitcoinConfig::Core { url, auth },
            (Some(_), None) => return Err(conflict("bitcoin_url wants bitcoin_cookie or bitcoin_login")),
            (None, Some(_)) => return Err(conflict("a Bitcoin login without bitcoin_url")),
            (None, None) if regtest => BitcoinConfig::Embedded,
            (None, None) => {
                return Err(conflict(
                    "this network wants bitcoin_url: only regtest runs inside the node",
                ));
            }
        };
        let interval = self.block_interval_ms.or(file.block_interval_ms);
        if !regtest && interval.is_some_and(|ms| ms > 0) {
            return Err(conflict("block_interval_ms: blocks are made on regtest only"));
        }
        let producer = (regtest && interval != Some(0)).then(|| ProducerConfig {
            block_interval: interval.map_or(ProducerConfig::default().block_interval, Duration::from_millis),
            ..ProducerConfig::default()
        });
        let seed_file = self
            .seed_file
            .or(file.seed_file)
            .unwrap_or_else(|| data_dir.join("inscriber.seed"));
        let inscriber = self
            .fee_recipient
            .or(file.fee_recipient)
            .map(|fee_recipient| InscriberConfig {
                seed_file,
                fee_recipient,
                price: file.price.unwrap_or_default(),
            });
        let poll = Duration::from_millis(if bitcoin == BitcoinConfig::Embedded {
            50
        } else {
            500
        });
        Ok(Config {
            rpc: Some(
                self.rpc
                    .or(file.rpc)
                    .unwrap_or_else(|| (Ipv4Addr::LOCALHOST, RPC_PORT).into()),
            ),
            data_dir,
            genesis,
            bitcoin,
            inscriber,
            producer,
            poll,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<File, String> {
        toml::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn flags_beat_the_file_and_the_file_beats_defaults() {
        let in_file = file("data_dir = \"a\"\nrpc = \"127.0.0.1:1\"\nblock_interval_ms = 7").unwrap();
        let args = Args {
            data_dir: Some("b".into()),
            ..Args::default()
        };
        let config = args.over(in_file).unwrap();
        assert_eq!(config.data_dir, PathBuf::from("b"));
        assert_eq!(config.rpc.unwrap().port(), 1);
        assert_eq!(config.producer.unwrap().block_interval, Duration::from_millis(7));
        assert!(config.inscriber.is_none());
        assert_eq!(config.bitcoin, BitcoinConfig::Embedded);
    }

    #[test]
    fn refuses_unknown_keys() {
        assert!(file("dat_dir = \"a\"").unwrap_err().contains("unknown field"));
        assert!(file("[price]\nwei = 1").unwrap_err().contains("unknown field"));
        let env = |name: &str| check_environment([name.to_owned()], ["BITAI_NODE_RPC"]);
        assert!(matches!(env("BITAI_NODE_RPX"), Err(ConfigError::Environment(_))));
        assert!(env("BITAI_NODE_RPC").is_ok());
        assert!(env("BITAI_MINER_X").is_ok());
    }

    #[test]
    fn refuses_settings_that_contradict_each_other() {
        for text in [
            "bitcoin_url = \"http://127.0.0.1:1\"",
            "bitcoin_cookie = \"c\"",
            "bitcoin_url = \"u\"\nbitcoin_cookie = \"c\"\nbitcoin_login = \"a:b\"",
            "bitcoin_url = \"u\"\nbitcoin_login = \"ab\"",
        ] {
            let result = Args::default().over(file(text).unwrap());
            assert!(matches!(result, Err(ConfigError::Conflict(_))), "{text}");
        }
    }
}
