//! `bitai-node`: run a node, ask one how it is, make a genesis.

use alloy_primitives::{Address, U256};
use bitai_node::bitcoin::b256;
use bitai_node::bitcoin::core::{Auth, CoreRpc};
use bitai_node::bitcoin::{Backend, network};
use bitai_node::config::{Args, ConfigError, check_environment};
use bitai_node::genesis::Genesis;
use bitai_node::node::{Node, NodeError};
use bitai_types::chain::{Network, RPC_PORT};
use clap::{CommandFactory, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// A BitAI node: mempool, inscriber, indexer, state machine and JSON-RPC over Bitcoin.
///
/// Exit codes: 0 ended as asked, 1 broke while running, 2 wrong usage or settings, 3 files, 4 another
/// chain's data or Bitcoin, 5 Bitcoin not reachable or refusing, 6 database, 7 keys, 8 JSON-RPC address,
/// 9 no answer from the node asked.
#[derive(Debug, Parser)]
#[command(name = "bitai-node", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node until Ctrl-C.
    Run {
        #[command(flatten)]
        args: Box<Args>,
        /// Log as JSON lines.
        #[arg(long)]
        log_json: bool,
    },
    /// Print what a running node says of itself, as JSON.
    Status {
        /// Its JSON-RPC.
        #[arg(long, default_value_t = format!("http://127.0.0.1:{RPC_PORT}"))]
        url: String,
    },
    /// Print a genesis as JSON: of regtest, or of the Bitcoin block at a height.
    Genesis {
        /// ADDRESS=WEI, as often as needed.
        #[arg(long, value_parser = parse_alloc)]
        alloc: Vec<(Address, U256)>,
        /// Network: regtest, signet, testnet4, bitcoin.
        #[arg(long, default_value = "regtest", value_parser = parse_network)]
        network: Network,
        /// Bitcoin height to start at (not for regtest, which starts at 0).
        #[arg(long)]
        start_height: Option<u64>,
        /// URL of a Bitcoin Core node of that network.
        #[arg(long)]
        bitcoin_url: Option<String>,
        /// Its cookie file.
        #[arg(long)]
        bitcoin_cookie: Option<PathBuf>,
    },
}

fn parse_network(text: &str) -> Result<Network, String> {
    serde_json::from_value(text.into())
        .map_err(|_| format!("`{text}` is none of regtest, signet, testnet4, bitcoin"))
}

fn parse_alloc(text: &str) -> Result<(Address, U256), String> {
    let (address, wei) = text.split_once('=').ok_or("want ADDRESS=WEI")?;
    let address = address.parse().map_err(|e| format!("address `{address}`: {e}"))?;
    let wei = wei.parse().map_err(|e| format!("wei `{wei}`: {e}"))?;
    Ok((address, wei))
}

/// What ends the program, with its exit code.
struct Failure(u8, String);

impl From<NodeError> for Failure {
    fn from(e: NodeError) -> Self {
        Self(e.exit_code(), e.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(e: ConfigError) -> Self {
        Self(2, e.to_string())
    }
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let done = match command {
        Command::Run { args, log_json } => run(*args, log_json),
        Command::Status { url } => status(&url),
        Command::Genesis {
            alloc,
            network,
            start_height,
            bitcoin_url,
            bitcoin_cookie,
        } => genesis(alloc, network, start_height, bitcoin_url.zip(bitcoin_cookie)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(code, why)) => {
            eprintln!("bitai-node: {why}");
            ExitCode::from(code)
        }
    }
}

fn run(args: Args, log_json: bool) -> Result<(), Failure> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if log_json {
        log.json().init()
    } else {
        log.init()
    }
    let command = Cli::command();
    let known: Vec<String> = command
        .find_subcommand("run")
        .into_iter()
        .flat_map(|run| run.get_arguments())
        .filter_map(|arg| arg.get_env().map(|name| name.to_string_lossy().into_owned()))
        .collect();
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    check_environment(names, known.iter().map(String::as_str))?;
    let config = args.resolve()?;
    let runtime = tokio::runtime::Runtime::new().map_err(|e| Failure(1, e.to_string()))?;
    runtime.block_on(async {
        let node = Node::start(config).await?;
        let broken = tokio::select! {
            () = ended() => false,
            () = broke(&node) => true,
        };
        tracing::info!("stopping");
        node.stop().await;
        match broken {
            true => Err(Failure(
                1,
                "a part of the node ended by itself; its log says why".into(),
            )),
            false => Ok(()),
        }
    })
}

async fn broke(node: &bitai_node::node::NodeHandle) {
    while !node.is_broken() {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Ctrl-C, or the signal that service managers send.
async fn ended() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut term) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = term.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

fn status(url: &str) -> Result<(), Failure> {
    let failed = |why: String| Failure(9, format!("{url}: {why}; is the node running?"));
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"bitai_status","params":[]}"#;
    let answer = bitreq::post(url)
        .with_header("Content-Type", "application/json")
        .with_timeout(Duration::from_secs(10))
        .with_body(body)
        .send()
        .map_err(|e| failed(e.to_string()))?;
    let answer: serde_json::Value =
        serde_json::from_slice(answer.as_bytes()).map_err(|e| failed(e.to_string()))?;
    let result = answer.get("result").ok_or_else(|| failed(answer.to_string()))?;
    println!("{result:#}");
    Ok(())
}

fn genesis(
    alloc: Vec<(Address, U256)>,
    chain: Network,
    start_height: Option<u64>,
    core: Option<(String, PathBuf)>,
) -> Result<(), Failure> {
    let made = match (chain, start_height, core) {
        (Network::Regtest, None, None) => Genesis::regtest(alloc),
        (_, Some(height), Some((url, cookie))) => {
            let core = CoreRpc::new(url, Auth::Cookie(cookie), network(chain));
            let bitcoin = |e: bitai_node::bitcoin::BackendError| Failure(5, e.to_string());
            core.check().map_err(bitcoin)?;
            let info = core.header_at(height).map_err(bitcoin)?;
            let info =
                info.ok_or_else(|| Failure(2, format!("Bitcoin has no block at height {height} yet")))?;
            let hash = b256(info.header.block_hash());
            let mut made = Genesis::new(chain, height, hash, info.median_time_past);
            for (address, wei) in alloc {
                made.alloc.entry(address).or_default().balance = wei;
            }
            made
        }
        _ => {
            return Err(Failure(
                2,
                "want --start-height, --bitcoin-url and --bitcoin-cookie (none of them: regtest)".into(),
            ));
        }
    };
    made.check().map_err(|e| Failure(2, e.to_string()))?;
    let text = serde_json::to_string_pretty(&made).map_err(|e| Failure(1, e.to_string()))?;
    println!("{text}");
    eprintln!(
        "chain id {}, genesis {}, genesis id {}",
        made.chain_id(),
        made.hash(),
        hex::encode(made.id())
    );
    Ok(())
}
