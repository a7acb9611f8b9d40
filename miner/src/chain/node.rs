//! JSON-RPC to one of several nodes: tries them in order, stays with the one that answers, returns to the first.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use alloy::{
    providers::{Provider, RootProvider},
    rpc::{
        client::RpcClient,
        types::{Filter, Log, Transaction, TransactionReceipt, TransactionRequest},
    },
    transports::{RpcError, http::Http},
};
use alloy_primitives::{Address, B256, Bytes, U64, U256};
use bitai_types::rpc::{Inscription, NodeStatus};

use crate::{config::Chain, exit::Failure};

/// What can be sent as parameters.
pub trait Params: serde::Serialize + Clone + std::fmt::Debug + Send + Sync + Unpin {}
impl<T: serde::Serialize + Clone + std::fmt::Debug + Send + Sync + Unpin> Params for T {}
/// What can be an answer.
pub trait Answer: serde::de::DeserializeOwned + std::fmt::Debug + Send + Sync + Unpin + 'static {}
impl<T: serde::de::DeserializeOwned + std::fmt::Debug + Send + Sync + Unpin + 'static> Answer for T {}

/// Longest that one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest that a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a node that failed is left alone before the miner returns to it.
const RETURN_AFTER: Duration = Duration::from_secs(60);

/// Why a request brought no answer.
#[derive(Debug)]
pub enum Refusal {
    /// The node answered: no.
    Said {
        /// JSON-RPC error code.
        code: i64,
        /// Its words.
        message: String,
        /// Revert data, where there is any.
        data: Option<Bytes>,
    },
    /// No node answered.
    Down(Failure),
}

impl Refusal {
    /// The failure of a command that needed this answer; `what` says for what.
    pub fn into_failure(self, what: &str) -> Failure {
        match self {
            Self::Said { message, data, .. } => Failure::Transaction {
                what: what.to_owned(),
                why: super::hub::revert_reason(data.as_ref()).unwrap_or(message),
            },
            Self::Down(failure) => failure,
        }
    }
}

struct Endpoint {
    url: String,
    provider: RootProvider,
}

/// Nodes of one chain.
pub struct Node {
    endpoints: Vec<Endpoint>,
    current: AtomicUsize,
    left_first: std::sync::Mutex<Option<Instant>>,
    chain_id: u64,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("url", &self.url())
            .field("chain_id", &self.chain_id)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// Connects to the first node that answers and checks its chain id.
    pub async fn connect(chain: &Chain) -> Result<Self, Failure> {
        let http = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("HTTP client")))?;
        let mut endpoints = Vec::new();
        for url in &chain.nodes {
            let parsed: reqwest::Url = url
                .parse()
                .map_err(|e| Failure::Usage(format!("node URL `{url}`: {e}")))?;
            let local = parsed
                .host_str()
                .is_some_and(|h| h == "127.0.0.1" || h == "localhost" || h == "[::1]");
            let client = RpcClient::new(Http::with_client(http.clone(), parsed), local);
            endpoints.push(Endpoint {
                url: url.clone(),
                provider: RootProvider::new(client),
            });
        }
        if endpoints.is_empty() {
            return Err(Failure::Usage("no node URL".into()));
        }
        let mut node = Self {
            endpoints,
            current: AtomicUsize::new(0),
            left_first: std::sync::Mutex::new(None),
            chain_id: 0,
        };
        let got = node
            .request::<_, U64>("eth_chainId", ())
            .await
            .map_err(|e| e.into_failure("eth_chainId"))?;
        node.chain_id = got.to::<u64>();
        if let Some(want) = chain.chain_id
            && want != node.chain_id
        {
            return Err(Failure::ChainId {
                url: node.url(),
                got: node.chain_id,
                want,
            });
        }
        Ok(node)
    }

    /// URL of the node that is asked now.
    pub fn url(&self) -> String {
        self.endpoints[self.current.load(Ordering::Relaxed)].url.clone()
    }

    /// The chain's id.
    pub fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// Where to start asking: the first node again once it has been left alone long enough.
    fn start(&self) -> usize {
        let mut left = self
            .left_first
            .lock()
            .expect("nothing panics while holding this lock");
        match *left {
            Some(at) if at.elapsed() > RETURN_AFTER => {
                *left = None;
                0
            }
            _ => self.current.load(Ordering::Relaxed),
        }
    }

    /// One request, at each node once until one answers.
    pub async fn request<P: Params, R: Answer>(&self, method: &'static str, params: P) -> Result<R, Refusal> {
        let start = self.start();
        let mut last = String::new();
        for i in 0..self.endpoints.len() {
            let index = (start + i) % self.endpoints.len();
            let endpoint = &self.endpoints[index];
            // A node that fails over must be on the same chain: a wrong one is as good as none.
            if self.chain_id != 0
                && index != self.current.load(Ordering::Relaxed)
                && !self.same_chain(endpoint).await
            {
                last = format!("{} is on another chain or down", endpoint.url);
                continue;
            }
            match endpoint
                .provider
                .client()
                .request::<P, R>(method, params.clone())
                .await
            {
                Ok(answer) => {
                    self.settle_on(index);
                    return Ok(answer);
                }
                Err(RpcError::ErrorResp(said)) => {
                    self.settle_on(index);
                    return Err(Refusal::Said {
                        code: said.code,
                        data: said.as_revert_data(),
                        message: said.message.into_owned(),
                    });
                }
                Err(e) => {
                    tracing::debug!(url = endpoint.url, method, error = %e, "node did not answer");
                    last = root_cause(&e);
                }
            }
        }
        let url = self
            .endpoints
            .iter()
            .map(|e| e.url.as_str())
            .collect::<Vec<_>>()
            .join(", ");
        Err(Refusal::Down(Failure::Unreachable { url, why: last }))
    }

    async fn same_chain(&self, endpoint: &Endpoint) -> bool {
        let id = endpoint
            .provider
            .client()
            .request::<_, U64>("eth_chainId", ())
            .await;
        id.is_ok_and(|id| id.to::<u64>() == self.chain_id)
    }

    fn settle_on(&self, index: usize) {
        let before = self.current.swap(index, Ordering::Relaxed);
        if before != index {
            tracing::warn!(url = self.endpoints[index].url, "now talking to another node");
            if before == 0 {
                *self
                    .left_first
                    .lock()
                    .expect("nothing panics while holding this lock") = Some(Instant::now());
            }
        }
    }

    /// Newest executed height.
    pub async fn height(&self) -> Result<u64, Refusal> {
        Ok(self.request::<_, U64>("eth_blockNumber", ()).await?.to())
    }

    /// Hash of the block at a height, if there is one.
    pub async fn block_hash(&self, height: u64) -> Result<Option<B256>, Refusal> {
        let block: Option<serde_json::Value> = self
            .request("eth_getBlockByNumber", (U64::from(height), false))
            .await?;
        Ok(block.and_then(|b| b.get("hash")?.as_str()?.parse().ok()))
    }

    /// Base fee of the newest block, in wei a gas.
    pub async fn base_fee(&self) -> Result<U256, Refusal> {
        let block: Option<serde_json::Value> =
            self.request("eth_getBlockByNumber", ("latest", false)).await?;
        Ok(block
            .and_then(|b| b.get("baseFeePerGas")?.as_str()?.parse().ok())
            .unwrap_or_default())
    }

    /// Balance in wei.
    pub async fn balance(&self, who: Address) -> Result<U256, Refusal> {
        self.request("eth_getBalance", (who, "latest")).await
    }

    /// Code at an address.
    pub async fn code(&self, at: Address) -> Result<Bytes, Refusal> {
        self.request("eth_getCode", (at, "latest")).await
    }

    /// Transactions of an account that are executed (`latest`) or also waiting (`pending`).
    pub async fn nonce(&self, who: Address, block: &'static str) -> Result<u64, Refusal> {
        Ok(self
            .request::<_, U64>("eth_getTransactionCount", (who, block))
            .await?
            .to())
    }

    /// Runs a call on the newest state.
    pub async fn call(&self, request: TransactionRequest) -> Result<Bytes, Refusal> {
        self.request("eth_call", (request, "latest")).await
    }

    /// Events.
    pub async fn logs(&self, filter: &Filter) -> Result<Vec<Log>, Refusal> {
        self.request("eth_getLogs", (filter.clone(),)).await
    }

    /// Receipt of an executed transaction.
    pub async fn receipt(&self, hash: B256) -> Result<Option<TransactionReceipt>, Refusal> {
        self.request("eth_getTransactionReceipt", (hash,)).await
    }

    /// A transaction as the chain has it.
    pub async fn transaction(&self, hash: B256) -> Result<Option<Transaction>, Refusal> {
        self.request("eth_getTransactionByHash", (hash,)).await
    }

    /// How a transaction got onto Bitcoin.
    pub async fn inscription(&self, hash: B256) -> Result<Option<Inscription>, Refusal> {
        self.request("bitai_getInscription", (hash,)).await
    }

    /// Where the node stands.
    pub async fn status(&self) -> Result<NodeStatus, Refusal> {
        self.request("bitai_status", ()).await
    }
}

/// The innermost reason, which is what a person can act on ("connection refused").
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
