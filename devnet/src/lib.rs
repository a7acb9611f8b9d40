//! A whole BitAI devnet in one process: a node with Bitcoin's regtest inside, funded accounts, deployed
//! contracts, registered models and one neuron. What it keeps lies in `devnet/` of the data directory, so a
//! restart goes on where it stopped.

pub mod accounts;
pub mod banner;
pub mod deploy;
pub mod liar;
pub mod once;
#[cfg(test)]
mod overhead;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use bitai_miner::{
    Failure,
    chain::{Hub, Node as Rpc, Sender},
    config::{self, Chain, DevnetChain},
    datadir::{DataDir, Lock, write_atomic},
    models::{self, Listed},
    wallet, worker,
};
use bitai_node::{
    config::Config,
    genesis::Genesis,
    node::{Node, NodeHandle},
};
use tokio::{sync::oneshot, task::JoinHandle};

use accounts::Account;
use deploy::{Contracts, Rules};

/// Password of the devnet's keystores; the keys are published anyway.
const PASSWORD: &str = "devnet";

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Data directory, as the miner's.
    pub data: DataDir,
    /// JSON-RPC port on loopback; 0 = any free one.
    pub port: u16,
    /// Models by name; none = those of `sources`, or all that there are.
    pub models: Vec<String>,
    /// GGUF files and encoders' folders to import where the data directory has no such models.
    pub sources: Vec<PathBuf>,
    /// Whether a neuron works in this process.
    pub neuron: bool,
    /// Where it computes.
    pub device: config::Device,
    /// Longest time between two regtest blocks, in milliseconds; `None` = the node's default, 0 = no blocks.
    pub block_interval_ms: Option<u64>,
    /// How long disputes may take; counts where the contracts are not deployed yet.
    pub rules: Rules,
}

struct Working {
    stop: oneshot::Sender<()>,
    done: JoinHandle<Result<(), Failure>>,
}

/// A running devnet.
pub struct Devnet {
    /// The node.
    pub node: NodeHandle,
    /// The chain as a miner sees it.
    pub hub: Hub,
    /// Where the contracts are.
    pub contracts: Contracts,
    /// JSON-RPC.
    pub url: String,
    /// The models that are served, at least one.
    pub models: Vec<Listed>,
    /// Its data directory.
    pub data: DataDir,
    working: Option<Working>,
    _lock: Lock,
}

impl std::fmt::Debug for Devnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Devnet")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

fn dir(data: &DataDir) -> PathBuf {
    data.root().join("devnet")
}

/// Finds the models to serve, importing first what is not there yet.
fn served(options: &Options) -> Result<Vec<Listed>, Failure> {
    let data = &options.data;
    let mut names = Vec::new();
    for source in &options.sources {
        let name = models::name_of(source);
        match models::open(data, Some(&name)) {
            Ok(_) => {}
            Err(Failure::NoModel { .. }) => {
                models::import(data, source, bitai_miner::cli::Profile::A, None, false, None)?;
            }
            Err(e) => return Err(e),
        }
        names.push(name);
    }
    if !options.models.is_empty() {
        names.clone_from(&options.models);
    } else if names.is_empty() {
        for model in models::list(data)? {
            names.push(model?.name);
        }
    }
    if names.is_empty() {
        // Says where it looked and how a model gets there.
        return Ok(vec![models::open(data, None)?.0]);
    }
    names
        .iter()
        .map(|name| Ok(models::open(data, Some(name))?.0))
        .collect()
}

/// Writes a published key as a keystore, once.
fn keystore(dir: &Path, account: &Account) -> Result<PathBuf, Failure> {
    let keys = DataDir::resolve(Some(dir.to_owned()))?;
    let path = keys.keys().join(format!("{}.json", account.name));
    if path.is_file() && wallet::address(&path)? == account.address() {
        return Ok(path);
    }
    wallet::store(&keys, account.name, &account.signer, PASSWORD)
}

impl Devnet {
    /// Starts everything and returns when a job could be posted.
    pub async fn start(options: &Options) -> Result<Self, Failure> {
        let dir = dir(&options.data);
        let lock = Lock::take(&dir)?;
        let models = served(options)?;
        let rpc = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
        let mut config = Config::devnet(
            dir.join("node"),
            Genesis::regtest(accounts::balances()),
            rpc,
            Account::named("inscriber").address(),
        );
        match (options.block_interval_ms, &mut config.producer) {
            (Some(0), producer) => *producer = None,
            (Some(ms), Some(producer)) => producer.block_interval = std::time::Duration::from_millis(ms),
            _ => {}
        }
        let chain_id = config.genesis.chain_id();
        let node = Node::start(config)
            .await
            .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("starting the node")))?;
        let port = node.rpc_addr().map_or(options.port, |addr| addr.port());
        let url = format!("http://127.0.0.1:{port}");
        let chain = Chain {
            nodes: vec![url.clone()],
            chain_id: Some(chain_id),
            hub: None,
            registry: None,
        };
        let rpc = Arc::new(Rpc::connect(&chain).await?);
        let deployer = Sender::new(rpc, Account::named("deployer").signer);
        let contracts = deploy::contracts(&deployer, options.rules).await?;
        let chain = Chain {
            hub: Some(contracts.hub),
            registry: Some(contracts.registry),
            ..chain
        };
        let hub = Hub::connect(&chain).await?;
        for model in &models {
            deploy::register(&deployer, &hub, contracts.registry, model).await?;
            deploy::keep(&deployer, &hub, &options.data, model).await?;
        }
        let mut devnet = Self {
            node,
            hub,
            contracts,
            url,
            models,
            data: options.data.clone(),
            working: None,
            _lock: lock,
        };
        devnet.describe(chain_id)?;
        if options.neuron {
            devnet.start_neuron(options).await?;
        }
        Ok(devnet)
    }

    /// Writes what miners on this data directory need to find this chain, and the keystores.
    fn describe(&self, chain_id: u64) -> Result<(), Failure> {
        let dir = dir(&self.data);
        let password_file = dir.join("password");
        write_atomic(&password_file, PASSWORD.as_bytes(), 0o600)?;
        let client = keystore(&dir, &Account::named("client"))?;
        keystore(&dir, &Account::named("neuron"))?;
        let chain = DevnetChain {
            node: self.url.clone(),
            chain_id,
            hub: self.contracts.hub,
            registry: self.contracts.registry,
            keystore: client.to_string_lossy().into_owned(),
            password_file,
        };
        let path = self.data.devnet();
        let text = toml::to_string(&chain).map_err(|e| Failure::disk(&path, e))?;
        write_atomic(&path, text.as_bytes(), 0o644)
    }

    /// The first model that is served; what most tests ask.
    pub fn model(&self) -> &Listed {
        &self.models[0]
    }

    /// The first model that embeds, or that generates.
    pub fn model_that(&self, embeds: bool) -> Result<&Listed, Failure> {
        let found = self.models.iter().find(|m| m.shape.embeds() == embeds);
        found.ok_or_else(|| {
            let (kind, source) = if embeds {
                ("embeds", "--encoder FOLDER")
            } else {
                ("generates", "--gguf FILE")
            };
            Failure::Usage(format!(
                "this devnet serves no model that {kind}; import one with {source}"
            ))
        })
    }

    /// Starts a neuron in this process; it stakes and offers the models first.
    pub async fn start_neuron(&mut self, options: &Options) -> Result<(), Failure> {
        let settings = worker::Settings {
            models: self.models.iter().map(|m| m.name.clone()).collect(),
            ask: config::Ask::default(),
            stake: Some(deploy::stake_wei()),
            keep_offers: false,
            batch_wait: 1,
            device: options.device,
            devices: Default::default(),
            finish: std::time::Duration::ZERO,
        };
        let signer = Account::named("neuron").signer;
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = oneshot::channel();
        let (data, hub) = (self.data.clone(), self.hub.clone());
        let done = tokio::spawn(async move {
            let stop = async {
                // A dropped sender means the same.
                let _ = stopped.await;
            };
            worker::work(&data, hub, signer, &settings, ready, stop).await
        });
        self.working = Some(Working { stop, done });
        match is_ready.await {
            Ok(()) => Ok(()),
            // It says why when it ends.
            Err(_) => self.stop_neuron().await,
        }
    }

    /// Stops the neuron after its current turn; what it was doing is in its journal.
    pub async fn stop_neuron(&mut self) -> Result<(), Failure> {
        let Some(Working { stop, done }) = self.working.take() else {
            return Ok(());
        };
        // It may have ended by itself.
        let _ = stop.send(());
        done.await
            .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("the neuron")))?
    }

    /// Done when node or neuron ended by themselves, with the neuron's reason.
    pub async fn broken(&mut self) -> Failure {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            if self.node.is_broken() {
                return Failure::Internal(anyhow::anyhow!(
                    "a part of the node ended by itself; its log says why"
                ));
            }
            if self.working.as_ref().is_some_and(|w| w.done.is_finished()) {
                return match self.stop_neuron().await {
                    Err(failure) => failure,
                    Ok(()) => Failure::Internal(anyhow::anyhow!("the neuron ended by itself")),
                };
            }
        }
    }

    /// Stops neuron and node in order.
    pub async fn stop(mut self) -> Result<(), Failure> {
        let neuron = self.stop_neuron().await;
        self.node.stop().await;
        neuron
    }
}
