//! Puts a node together: Bitcoin, ledger, mempool, inscriber, indexer, JSON-RPC, and on regtest the block
//! producer; starts them, and stops them in order.

use crate::bitcoin::core::CoreRpc;
use crate::bitcoin::{Backend, BackendError, network};
use crate::config::{BitcoinConfig, Config, ProducerConfig};
use crate::envelope::Header;
use crate::indexer::{Indexer, IndexerError, Ledger};
use crate::inscriber::keys::{KeyError, Keys};
use crate::inscriber::price::{PriceConfig, Pricer};
use crate::inscriber::source::InscriberView;
use crate::inscriber::{Inscriber, InscriberError, View};
use crate::mempool::Mempool;
use crate::rpc::{self, RpcHandle, Services};
use crate::state::{Chain, StateError};
use bitai_types::chain::Network;
use bitcoin::ScriptBuf;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

use crate::block::Tip;

/// Blocks that make the first coinbase spendable.
const MATURE: u32 = 101;
/// The producer pays the inscriber while it has less than this, satoshis.
const LOW_WATER: u64 = 10 * 100_000_000;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Folder or file.
    #[error("{path}: {why}")]
    Files {
        /// Which.
        path: PathBuf,
        /// What happened.
        why: String,
    },
    /// The binary lacks it.
    #[error("this build has no Bitcoin inside: build with `--features embedded-bitcoin`, or set bitcoin_url")]
    NoEmbedded,
    /// The genesis names a block that Bitcoin has otherwise.
    #[error(
        "the genesis starts at Bitcoin block {wanted}, the node has {found} there: wrong chain or wrong genesis"
    )]
    OtherChain {
        /// In the genesis, display order.
        wanted: String,
        /// On Bitcoin's side, display order.
        found: String,
    },
    /// Bitcoin.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Ledger or mempool.
    #[error(transparent)]
    State(#[from] StateError),
    /// Keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// Inscriber.
    #[error(transparent)]
    Inscriber(#[from] InscriberError),
    /// Indexer.
    #[error(transparent)]
    Indexer(#[from] IndexerError),
    /// JSON-RPC.
    #[error("JSON-RPC at {addr}: {why} (is another node running?)")]
    Rpc {
        /// Where.
        addr: std::net::SocketAddr,
        /// What happened.
        why: String,
    },
    /// A start-up thread died.
    #[error("start-up was cut short: {0}")]
    Task(String),
}

impl NodeError {
    /// Exit code of `bitai-node` for this cause; 2 is wrong usage, 0 success.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Files { .. } | Self::Backend(BackendError::InUse(_)) => 3,
            Self::NoEmbedded => 2,
            Self::OtherChain { .. } | Self::State(StateError::OtherGenesis { .. }) => 4,
            Self::Backend(_) | Self::Indexer(IndexerError::Backend(_)) => 5,
            Self::State(_) | Self::Inscriber(_) | Self::Indexer(_) => 6,
            Self::Keys(_) => 7,
            Self::Rpc { .. } => 8,
            Self::Task(_) => 1,
        }
    }
}

/// Starts nodes.
#[derive(Debug)]
pub struct Node;

/// The parts of a running node, for whoever lives in the same process.
#[derive(Clone)]
pub struct Parts {
    /// Bitcoin.
    pub backend: Arc<dyn Backend>,
    /// The ledger.
    pub chain: Arc<Chain>,
    /// The mempool.
    pub mempool: Arc<Mempool>,
    /// What the inscriber tells; `None` where the node does not inscribe.
    pub inscriber: Option<View>,
    /// The newest tip.
    pub tips: watch::Receiver<Option<Tip>>,
}

/// A running node. Dropping it stops the threads but does not wait for them; [`NodeHandle::stop`] does.
pub struct NodeHandle {
    parts: Parts,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    rpc: Option<RpcHandle>,
}

impl std::fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeHandle")
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

/// What start-up opens before anything runs.
struct Opened {
    parts: Parts,
    indexer: Indexer,
    inscriber: Option<Inscriber>,
    keys: Option<Keys>,
}

impl Node {
    /// Opens everything, catches up where that is quick (regtest), starts the threads and the server.
    pub async fn start(config: Config) -> Result<NodeHandle, NodeError> {
        let opening = config.clone();
        let opened = tokio::task::spawn_blocking(move || open(&opening))
            .await
            .map_err(|e| NodeError::Task(e.to_string()))??;
        let Opened {
            parts,
            mut indexer,
            inscriber,
            keys,
        } = opened;
        let rpc = match config.rpc {
            Some(addr) => {
                let services = Services {
                    chain: Arc::clone(&parts.chain),
                    mempool: Arc::clone(&parts.mempool),
                    inscriber: parts.inscriber.clone().map(|view| Arc::new(view) as _),
                    bitcoin_tip: indexer.bitcoin_tip(),
                };
                let served = rpc::serve(addr, services).await;
                Some(served.map_err(|e| NodeError::Rpc {
                    addr,
                    why: e.to_string(),
                })?)
            }
            None => None,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let poll = config.poll;
        let flag = Arc::clone(&stop);
        threads.push(spawn("indexer", move || indexer.run(poll, &flag))?);
        if let Some(mut inscriber) = inscriber {
            let flag = Arc::clone(&stop);
            threads.push(spawn("inscriber", move || inscriber.run(poll, &flag))?);
        }
        if let Some(producer) = config.producer {
            let flag = Arc::clone(&stop);
            let made = Producer::new(&parts, keys.as_ref(), producer);
            threads.push(spawn("producer", move || made.run(&flag))?);
        }
        tracing::info!(
            chain_id = config.genesis.chain_id(),
            genesis_id = hex::encode(config.genesis.id()),
            rpc = ?rpc.as_ref().map(RpcHandle::addr),
            "node started"
        );
        Ok(NodeHandle {
            parts,
            stop,
            threads,
            rpc,
        })
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, NodeError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|e| NodeError::Task(format!("thread {name}: {e}")))
}

fn open_backend(config: &Config) -> Result<Arc<dyn Backend>, NodeError> {
    match &config.bitcoin {
        BitcoinConfig::Core { url, auth } => {
            let core = CoreRpc::new(url, auth.clone(), network(config.genesis.network));
            core.check()?;
            Ok(Arc::new(core))
        }
        #[cfg(feature = "embedded-bitcoin")]
        BitcoinConfig::Embedded => {
            let chain = crate::bitcoin::embedded::EmbeddedRegtest::open(&config.data_dir.join("bitcoin"))?;
            Ok(Arc::new(chain))
        }
        #[cfg(not(feature = "embedded-bitcoin"))]
        BitcoinConfig::Embedded => Err(NodeError::NoEmbedded),
    }
}

/// Whether Bitcoin has the block that the genesis starts at. A node that still syncs may not have it yet.
fn check_start(config: &Config, backend: &dyn Backend) -> Result<(), NodeError> {
    let wanted = crate::follow::block_hash(config.genesis.start_hash);
    match backend.hash_at(config.genesis.start_height)? {
        Some(found) if found != wanted => Err(NodeError::OtherChain {
            wanted: wanted.to_string(),
            found: found.to_string(),
        }),
        _ => Ok(()),
    }
}

fn make_dir(path: &Path) -> Result<(), NodeError> {
    std::fs::create_dir_all(path).map_err(|e| NodeError::Files {
        path: path.to_owned(),
        why: e.to_string(),
    })
}

fn open(config: &Config) -> Result<Opened, NodeError> {
    let dir = &config.data_dir;
    make_dir(dir)?;
    let backend = open_backend(config)?;
    check_start(config, &*backend)?;
    let genesis_id = config.genesis.id();
    let chain = Chain::open(dir.join("state.redb"), config.genesis.clone())?;
    let price = config
        .inscriber
        .as_ref()
        .map_or_else(PriceConfig::default, |i| i.price);
    let pricer = Arc::new(Pricer::new(price));
    let mempool = Mempool::open(
        dir.join("mempool.redb"),
        Arc::clone(&chain),
        Arc::clone(&pricer) as _,
    )?;
    let ledger: Arc<dyn Ledger> = Arc::clone(&chain) as _;
    let mut indexer = Indexer::new(Arc::clone(&backend), ledger, genesis_id);
    let (mut inscriber, mut keys) = (None, None);
    if let Some(settings) = &config.inscriber {
        mempool.set_fee_recipient(settings.fee_recipient);
        let own = Keys::open(&settings.seed_file, network(config.genesis.network))?;
        let header = Header {
            genesis_id,
            fee_recipient: settings.fee_recipient,
        };
        let mut opened = Inscriber::open(
            &dir.join("inscriber.redb"),
            config.genesis.start_height,
            own.clone(),
            header,
            Arc::clone(&backend),
            Arc::clone(&mempool) as _,
            pricer,
        )?;
        if config.producer.is_some() {
            opened.catch_up()?;
            if opened.view().balance_sats() == 0 {
                tracing::info!(blocks = MATURE, address = %own.address(), "making the inscriber's first coins spendable");
                backend.generate(MATURE, &own.script())?;
                opened.catch_up()?;
            }
        }
        inscriber = Some(opened);
        keys = Some(own);
    }
    if config.genesis.network == Network::Regtest {
        indexer.catch_up()?;
    }
    let parts = Parts {
        backend,
        chain,
        mempool,
        inscriber: inscriber.as_ref().map(Inscriber::view),
        tips: indexer.tips(),
    };
    Ok(Opened {
        parts,
        indexer,
        inscriber,
        keys,
    })
}

impl NodeHandle {
    /// The node's parts.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Where JSON-RPC is served.
    pub fn rpc_addr(&self) -> Option<std::net::SocketAddr> {
        self.rpc.as_ref().map(RpcHandle::addr)
    }

    /// Whether a thread ended by itself: the node cannot go on then.
    pub fn is_broken(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Stops taking calls, then the threads; returns when all have ended.
    pub async fn stop(mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(rpc) = self.rpc.take() {
            rpc.stop().await;
        }
        let threads = std::mem::take(&mut self.threads);
        let joined =
            tokio::task::spawn_blocking(move || threads.into_iter().filter_map(|t| t.join().err()).count());
        if joined.await.is_ok_and(|failed| failed > 0) {
            tracing::error!("a thread of the node had panicked");
        }
    }
}

impl Drop for NodeHandle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// Makes regtest blocks: soon when transactions wait, and now and then in any case.
struct Producer {
    backend: Arc<dyn Backend>,
    view: Option<View>,
    funds: ScriptBuf,
    nobody: ScriptBuf,
    config: ProducerConfig,
}

impl Producer {
    fn new(parts: &Parts, keys: Option<&Keys>, config: ProducerConfig) -> Self {
        // Anyone could take these on regtest; what matters is that no wallet has to count them.
        let nobody = Keys::from_seed(&[0; 32], bitcoin::Network::Regtest).script();
        Self {
            backend: Arc::clone(&parts.backend),
            view: parts.inscriber.clone(),
            funds: keys.map_or_else(|| nobody.clone(), Keys::script),
            nobody,
            config,
        }
    }

    fn run(&self, stop: &AtomicBool) {
        let mut last = Instant::now();
        let mut waiting_since: Option<Instant> = None;
        let step = Duration::from_millis(25).min(self.config.settle.max(Duration::from_millis(1)));
        while !stop.load(Ordering::Acquire) {
            let made = self.backend.pool_len().and_then(|waiting| {
                waiting_since = (waiting > 0).then(|| waiting_since.unwrap_or_else(Instant::now));
                let due = last.elapsed() >= self.config.block_interval
                    || waiting_since.is_some_and(|since| since.elapsed() >= self.config.settle);
                if due {
                    self.backend.generate(1, self.pay_to())?;
                }
                Ok(due)
            });
            match made {
                Ok(true) => {
                    last = Instant::now();
                    waiting_since = None;
                }
                Ok(false) => std::thread::sleep(step),
                Err(error) => {
                    tracing::warn!(%error, "no block could be made");
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
        }
    }

    fn pay_to(&self) -> &ScriptBuf {
        let low = self.view.as_ref().is_some_and(|v| v.balance_sats() < LOW_WATER);
        if low { &self.funds } else { &self.nobody }
    }
}
