//! From what was typed to what is meant: flag, then environment (clap reads it), then config.toml, then what a
//! devnet on the same data directory says of itself, then the default. Unknown keys are refused.

mod file;
mod reload;
mod sections;
mod settings;
mod show;

use alloy_primitives::{Address, U256};
use bitai_types::chain::RPC_PORT;

pub use file::{DevnetChain, File};
pub use reload::{Following, follow};
pub use sections::Overrides;
pub use settings::{SETTINGS, Setting, Source, env, flag};
pub use show::run;

use crate::{
    cli::{AskPriceArgs, ChainArgs, Cli, DeviceArgs, DeviceKind, KeyArgs, MiningArgs},
    datadir::DataDir,
    devices::Gpus,
    exit::Failure,
    gpu,
};

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

/// How a neuron serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serve {
    /// Models by name or root; none = all that the chain lists.
    pub models: Vec<String>,
    /// Stake up to this much first, in wei.
    pub stake: Option<U256>,
    /// Whether offers for other models stay.
    pub keep_offers: bool,
    /// Blocks that an answer waits for others.
    pub batch_wait: u64,
}

/// Blocks that an answer waits for others, where nobody says.
const BATCH_WAIT: u64 = 1;

/// The layers below the command line.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    file: File,
    /// The keys that are set, with what is laid over sections.
    table: toml::Table,
    devnet: Option<DevnetChain>,
    over: Overrides,
}

impl Layers {
    /// Reads the files of the data directory, a missing one being an empty one, and the environment's sections.
    pub fn read(data: &DataDir) -> Result<Self, Failure> {
        Self::with(data, Overrides::of_process(&[]))
    }

    /// The same with the `--set` of a command line.
    pub fn of(data: &DataDir, cli: &Cli) -> Result<Self, Failure> {
        Self::with(data, Overrides::of_process(&cli.set))
    }

    fn with(data: &DataDir, over: Overrides) -> Result<Self, Failure> {
        let (file, table) = file::config(data, &over)?;
        Ok(Self {
            file,
            table,
            devnet: file::devnet(data)?,
            over,
        })
    }

    /// Reads the files again.
    fn again(&self, data: &DataDir) -> Result<Self, Failure> {
        Self::with(data, self.over.clone())
    }

    /// The file's keys and sections, with what is laid over the sections.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What to log: `cli`'s word, else the file's.
    pub fn log(&self, cli: &Cli) -> Option<String> {
        cli.log.clone().or_else(|| self.file.log.clone())
    }

    /// Whether to log as JSON lines.
    pub fn log_json(&self, cli: &Cli) -> bool {
        cli.log_json.or(self.file.log_json).unwrap_or(false)
    }

    /// How the neuron is to serve.
    pub fn serve(&self, args: &MiningArgs) -> Serve {
        let models = if args.model.is_empty() {
            &self.file.model
        } else {
            &args.model
        };
        Serve {
            models: models.clone(),
            stake: args.stake.or(self.file.stake),
            keep_offers: args.keep_offers.or(self.file.keep_offers).unwrap_or(false),
            batch_wait: args.batch_wait.or(self.file.batch_wait).unwrap_or(BATCH_WAIT),
        }
    }

    /// The devnet's file counts only for whoever named no node: its contracts live on no other chain.
    pub(crate) fn devnet_for(&self, args: &ChainArgs) -> Option<&DevnetChain> {
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

    /// Where the neuron shows itself.
    pub const fn monitor(&self) -> &crate::monitor::Settings {
        &self.file.monitor
    }

    /// The processor that is meant.
    pub fn device(&self, args: &DeviceArgs) -> Device {
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        Device {
            kind: args.device.or(self.file.device).unwrap_or_default(),
            threads: args.threads.or(self.file.threads).unwrap_or(all).max(1),
            gpu: self.gpus(args).using.first(),
        }
    }

    /// The processor that is meant where several GPUs can be used: all that there are, unless another one is named.
    pub fn mining_device(&self, args: &DeviceArgs) -> Device {
        Device {
            kind: args.device.or(self.file.device).unwrap_or(DeviceKind::Auto),
            ..self.device(args)
        }
    }

    /// Which GPUs are meant, and how they are looked after.
    pub fn gpus(&self, args: &DeviceArgs) -> Gpus {
        Gpus {
            using: args.gpu.clone().or(self.file.gpu.clone()).unwrap_or_default(),
            ..self.file.gpus.clone()
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

    /// The endpoint's settings, before what was typed.
    pub fn gateway(&self) -> &crate::gateway::Settings {
        &self.file.gateway
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
    fn how_to_serve_is_put_together_from_its_layers() {
        let l = layers(
            "model = [\"a\", \"b\"]\nkeep_offers = true\nbatch_wait = 0\nstake = \"9\"",
            None,
        )
        .unwrap();
        let serve = l.serve(&MiningArgs::default());
        assert_eq!(
            (serve.models.len(), serve.keep_offers, serve.batch_wait),
            (2, true, 0)
        );
        assert_eq!(serve.stake, Some(U256::from(9)));
        let flags = MiningArgs {
            model: vec!["c".into()],
            keep_offers: Some(false),
            ..Default::default()
        };
        let serve = l.serve(&flags);
        assert_eq!((serve.models, serve.keep_offers), (vec!["c".to_owned()], false));
    }

    #[test]
    fn rejects_unknown_keys() {
        let Err(Failure::Config { why, .. }) = layers("nodes = []", None) else {
            panic!("taken")
        };
        assert!(why.contains("did you mean `node`"), "{why}");
    }
}
