//! From what was typed to what is meant: flag, then environment (clap reads it), then config.toml, then what a
//! devnet on the same data directory says of itself, then the default. Unknown keys are refused.

use std::path::Path;

use alloy_primitives::{Address, U256};
use bitai_types::chain::RPC_PORT;
use serde::{Deserialize, Serialize};

use crate::{
    cli::{AskPriceArgs, ChainArgs, DeviceArgs, DeviceKind, KeyArgs},
    datadir::DataDir,
    exit::Failure,
    gpu,
};

/// The configuration file, every key optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Node URLs, tried in order.
    #[serde(default)]
    pub node: Vec<String>,
    /// Chain id to insist on.
    pub chain_id: Option<u64>,
    /// WorkerHub.
    pub hub: Option<Address>,
    /// ModelRegistry.
    pub registry: Option<Address>,
    /// Key name or keystore file.
    pub keystore: Option<String>,
    /// File that holds the password.
    pub password_file: Option<std::path::PathBuf>,
    /// Processor.
    pub device: Option<DeviceKind>,
    /// Threads.
    pub threads: Option<usize>,
    /// `--gpu`.
    pub gpu: Option<gpu::Choice>,
    /// Wei asked for a job, as a decimal string.
    pub ask_job: Option<U256>,
    /// Wei asked for a prompt id.
    pub ask_in: Option<u64>,
    /// Wei asked for a token of the answer.
    pub ask_out: Option<u64>,
}

/// What a devnet writes for the miners of its data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevnetChain {
    /// Node URL.
    pub node: String,
    /// Chain id.
    pub chain_id: u64,
    /// WorkerHub.
    pub hub: Address,
    /// ModelRegistry.
    pub registry: Address,
    /// Keystore file of an account with coins.
    pub keystore: String,
    /// Its password file.
    pub password_file: std::path::PathBuf,
}

/// Which chain is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Node URLs, at least one.
    pub nodes: Vec<String>,
    /// Chain id to insist on, where one is known.
    pub chain_id: Option<u64>,
    /// WorkerHub.
    pub hub: Option<Address>,
    /// ModelRegistry.
    pub registry: Option<Address>,
}

/// Which processor is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Backend.
    pub kind: DeviceKind,
    /// Threads, at least 1.
    pub threads: usize,
    /// Which GPU, where the backend is one's.
    pub gpu: gpu::Choice,
}

/// What a neuron asks for a job: all three together, for as many tokens as the job may generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Wei a job: its commit, reveal and finalise cost the same however short it is.
    pub per_job: U256,
    /// Wei a prompt id.
    pub per_input: u64,
    /// Wei a token of max_new.
    pub per_output: u64,
}

impl Default for Ask {
    /// A 128-token answer to 64 ids for about 10^-4 coin. A prompt runs as one batch, an answer token by token.
    fn default() -> Self {
        Self {
            per_job: U256::from(20_000_000_000_000u64),
            per_input: 60_000_000_000,
            per_output: 600_000_000_000,
        }
    }
}

/// The layers below the command line.
#[derive(Debug, Default)]
pub struct Layers {
    file: File,
    devnet: Option<DevnetChain>,
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, Failure> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Failure::disk(path, e)),
    };
    toml::from_str(&text).map(Some).map_err(|e| Failure::Config {
        path: path.into(),
        why: e.to_string().trim_end().to_owned(),
    })
}

impl Layers {
    /// Reads the files of the data directory; a missing one is an empty one.
    pub fn read(data: &DataDir) -> Result<Self, Failure> {
        Ok(Self {
            file: read::<File>(&data.config())?.unwrap_or_default(),
            devnet: read::<DevnetChain>(&data.devnet())?,
        })
    }

    /// The devnet's file counts only for whoever named no node: its contracts live on no other chain.
    fn devnet_for(&self, args: &ChainArgs) -> Option<&DevnetChain> {
        if args.node.is_empty() && self.file.node.is_empty() {
            self.devnet.as_ref()
        } else {
            None
        }
    }

    /// The chain that is meant.
    pub fn chain(&self, args: &ChainArgs) -> Chain {
        let devnet = self.devnet_for(args);
        let nodes = if !args.node.is_empty() {
            args.node.clone()
        } else if !self.file.node.is_empty() {
            self.file.node.clone()
        } else {
            vec![devnet.map_or_else(|| format!("http://127.0.0.1:{RPC_PORT}"), |d| d.node.clone())]
        };
        Chain {
            nodes,
            chain_id: args
                .chain_id
                .or(self.file.chain_id)
                .or(devnet.map(|d| d.chain_id)),
            hub: args.hub.or(self.file.hub).or(devnet.map(|d| d.hub)),
            registry: args
                .registry
                .or(self.file.registry)
                .or(devnet.map(|d| d.registry)),
        }
    }

    /// The processor that is meant.
    pub fn device(&self, args: &DeviceArgs) -> Device {
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        Device {
            kind: args.device.or(self.file.device).unwrap_or_default(),
            threads: args.threads.or(self.file.threads).unwrap_or(all).max(1),
            gpu: args.gpu.or(self.file.gpu).unwrap_or_default(),
        }
    }

    /// The key that is meant; `client` also takes the devnet's funded key where nothing else is named.
    pub fn key(&self, args: &KeyArgs, chain: &ChainArgs, client: bool) -> KeyArgs {
        if let Some(keystore) = args.keystore.clone().or_else(|| self.file.keystore.clone()) {
            return KeyArgs {
                keystore: Some(keystore),
                password_file: args
                    .password_file
                    .clone()
                    .or_else(|| self.file.password_file.clone()),
            };
        }
        match self.devnet_for(chain) {
            Some(d) if client => KeyArgs {
                keystore: Some(d.keystore.clone()),
                password_file: Some(d.password_file.clone()),
            },
            _ => KeyArgs {
                keystore: None,
                password_file: args
                    .password_file
                    .clone()
                    .or_else(|| self.file.password_file.clone()),
            },
        }
    }

    /// The price that is meant.
    pub fn ask(&self, args: &AskPriceArgs) -> Ask {
        let default = Ask::default();
        Ask {
            per_job: args.ask_job.or(self.file.ask_job).unwrap_or(default.per_job),
            per_input: args.ask_in.or(self.file.ask_in).unwrap_or(default.per_input),
            per_output: args.ask_out.or(self.file.ask_out).unwrap_or(default.per_output),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(config: &str, devnet: Option<&DevnetChain>) -> Result<Layers, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::resolve(Some(dir.path().into())).unwrap();
        std::fs::write(data.config(), config).unwrap();
        if let Some(d) = devnet {
            std::fs::create_dir_all(data.devnet().parent().unwrap()).unwrap();
            std::fs::write(data.devnet(), toml::to_string(d).unwrap()).unwrap();
        }
        Layers::read(&data)
    }

    fn devnet() -> DevnetChain {
        DevnetChain {
            node: "http://127.0.0.1:1".into(),
            chain_id: 22216,
            hub: Address::repeat_byte(1),
            registry: Address::repeat_byte(2),
            keystore: "k".into(),
            password_file: "p".into(),
        }
    }

    #[test]
    fn flag_beats_file_beats_devnet() {
        let flag = ChainArgs {
            hub: Some(Address::repeat_byte(9)),
            ..Default::default()
        };
        let l = layers("chain_id = 5", Some(&devnet())).unwrap();
        let c = l.chain(&flag);
        assert_eq!((c.hub, c.chain_id), (Some(Address::repeat_byte(9)), Some(5)));
        assert_eq!(c.nodes, ["http://127.0.0.1:1"]);
    }

    #[test]
    fn a_named_node_is_not_given_the_devnets_contracts() {
        let l = layers("", Some(&devnet())).unwrap();
        let c = l.chain(&ChainArgs {
            node: vec!["http://other".into()],
            ..Default::default()
        });
        assert_eq!((c.hub, c.chain_id), (None, None));
    }

    #[test]
    fn a_price_is_put_together_from_its_layers() {
        let l = layers("ask_job = \"7\"\nask_in = 5", None).unwrap();
        let flags = AskPriceArgs {
            ask_in: Some(3),
            ..Default::default()
        };
        let ask = l.ask(&flags);
        assert_eq!((ask.per_job, ask.per_input), (U256::from(7), 3));
        assert_eq!(ask.per_output, Ask::default().per_output);
    }

    #[test]
    fn rejects_unknown_keys() {
        let Err(Failure::Config { why, .. }) = layers("nodes = []", None) else {
            panic!("taken")
        };
        assert!(why.contains("nodes"), "{why}");
    }
}
