//! JSON-RPC to one of several nodes: tries them in order, stays with the one that answers, returns to the first.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
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

/// Blocks that a node may be behind the highest that was seen, and still be turned to.
const BEHIND: u64 = 6;

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
    return_after: Duration,
    /// Highest block that any of them has told of.
    seen: AtomicU64,
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
            return_after: RETURN_AFTER,
            seen: AtomicU64::new(0),
            chain_id: 0,
        };
        let (index, chain_id) = node.first_on(chain.chain_id).await?;
        node.chain_id = chain_id;
        node.settle_on(index);
        Ok(node)
    }

    /// The first node that answers and is on the wanted chain, and its chain id; a wrong one is said and passed over.
    async fn first_on(&self, want: Option<u64>) -> Result<(usize, u64), Failure> {
        let (mut elsewhere, mut silent) = (None, Vec::new());
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let asked = endpoint
                .provider
                .client()
                .request::<_, U64>("eth_chainId", ())
                .await;
            let got = match asked {
                Ok(id) => id.to::<u64>(),
                Err(e) => {
                    silent.push(root_cause(&e));
                    continue;
                }
            };
            match want {
                Some(want) if want != got => {
                    let url = endpoint.url.clone();
                    let failure = Failure::ChainId { url, got, want };
                    if self.endpoints.len() > 1 {
                        tracing::warn!("{failure}");
                    }
                    elsewhere.get_or_insert(failure);
                }
                _ => return Ok((index, got)),
            }
        }
        Err(elsewhere.unwrap_or_else(|| self.unreachable(&silent)))
    }

    fn unreachable(&self, why: &[String]) -> Failure {
        let urls: Vec<&str> = self.endpoints.iter().map(|e| e.url.as_str()).collect();
        let mut why = why.to_vec();
        why.dedup();
        Failure::Unreachable {
            url: urls.join(", "),
            why: why.join("; "),
        }
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
            Some(at) if at.elapsed() >= self.return_after => {
                // Where it is not back yet, the next attempt is a whole pause later.
                *left = Some(Instant::now());
                0
            }
            _ => self.current.load(Ordering::Relaxed),
        }
    }

    /// One request, at each node once until one answers.
    pub async fn request<P: Params, R: Answer>(&self, method: &'static str, params: P) -> Result<R, Refusal> {
        let start = self.start();
        let mut why = Vec::new();
        for i in 0..self.endpoints.len() {
            let index = (start + i) % self.endpoints.len();
            let endpoint = &self.endpoints[index];
            // Whom we turn to must be on the same chain, and not far behind: an old state is worse than none.
            if index != self.current.load(Ordering::Relaxed)
                && let Err(reason) = self.usable(endpoint).await
            {
                tracing::debug!(url = endpoint.url, reason, "node passed over");
                why.push(reason);
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
                    why.push(root_cause(&e));
                }
            }
        }
        Err(Refusal::Down(self.unreachable(&why)))
    }

    /// Why a node cannot take the place of the one that is asked now, in words.
    async fn usable(&self, endpoint: &Endpoint) -> Result<(), String> {
        let client = endpoint.provider.client();
        let number = |method| client.request::<_, U64>(method, ());
        let id = number("eth_chainId")
            .await
            .map_err(|e| root_cause(&e))?
            .to::<u64>();
        if id != self.chain_id {
            return Err(format!(
                "{} is on chain {id}, not {}",
                endpoint.url, self.chain_id
            ));
        }
        let height = number("eth_blockNumber")
            .await
            .map_err(|e| root_cause(&e))?
            .to::<u64>();
        let seen = self.seen.load(Ordering::Relaxed);
        if height.saturating_add(BEHIND) < seen {
            return Err(format!("{} is {} blocks behind", endpoint.url, seen - height));
        }
        Ok(())
    }

    fn settle_on(&self, index: usize) {
        let before = self.current.swap(index, Ordering::Relaxed);
        if before != index {
            tracing::warn!(url = self.endpoints[index].url, "now talking to another node");
            let left = (index != 0).then(Instant::now);
            *self
                .left_first
                .lock()
                .expect("nothing panics while holding this lock") = left;
        }
    }

    /// Newest executed height.
    pub async fn height(&self) -> Result<u64, Refusal> {
        let height = self.request::<_, U64>("eth_blockNumber", ()).await?.to();
        self.seen.fetch_max(height, Ordering::Relaxed);
        Ok(height)
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

    /// Time of the newest block, in seconds since 1970.
    pub async fn time(&self) -> Result<Option<u64>, Refusal> {
        let block: Option<serde_json::Value> =
            self.request("eth_getBlockByNumber", ("latest", false)).await?;
        let time: Option<U64> = block.and_then(|b| b.get("timestamp")?.as_str()?.parse().ok());
        Ok(time.map(|t| t.to()))
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicBool};

    use serde_json::json;

    use super::*;
    use crate::chain::testnode::{self, Switch};

    /// A node of a chain at a height, and what turns it off.
    async fn node_at(chain_id: u64, height: u64) -> (String, Switch) {
        let up: Switch = Arc::new(AtomicBool::new(true));
        let answers = move |method: &str, _: &serde_json::Value| match method {
            "eth_chainId" => Ok(json!(U64::from(chain_id))),
            "eth_blockNumber" => Ok(json!(U64::from(height))),
            other => Err(format!("no {other} here")),
        };
        (testnode::start(answers, Arc::clone(&up)).await, up)
    }

    fn chain(nodes: &[&str], chain_id: u64) -> Chain {
        Chain {
            nodes: nodes.iter().map(|n| (*n).to_owned()).collect(),
            chain_id: Some(chain_id),
            hub: None,
            registry: None,
        }
    }

    #[tokio::test]
    async fn rejects_nodes_of_another_chain_and_takes_the_first_right_one() {
        let (wrong, _) = node_at(6, 10).await;
        let (right, _) = node_at(5, 10).await;
        let node = Node::connect(&chain(&[&wrong, &right], 5)).await.unwrap();
        assert_eq!((node.url(), node.chain_id()), (right, 5));
        let alone = Node::connect(&chain(&[&wrong], 5)).await.unwrap_err();
        assert_eq!(alone.code(), 21);
        assert!(alone.to_string().contains("is on chain 6, wanted 5"), "{alone}");
    }

    #[tokio::test]
    async fn a_silent_node_is_left_and_returned_to_when_it_is_back() {
        let (first, up) = node_at(5, 10).await;
        let (second, _) = node_at(5, 11).await;
        let mut node = Node::connect(&chain(&[&first, &second], 5)).await.unwrap();
        node.return_after = Duration::ZERO;
        assert_eq!((node.height().await.unwrap(), node.url()), (10, first.clone()));
        up.store(false, Ordering::Relaxed);
        // More than once: an attempt to return that fails must not be the last.
        for _ in 0..3 {
            assert_eq!((node.height().await.unwrap(), node.url()), (11, second.clone()));
        }
        up.store(true, Ordering::Relaxed);
        assert_eq!((node.height().await.unwrap(), node.url()), (10, first));
    }

    #[tokio::test]
    async fn rejects_a_node_that_is_far_behind_or_on_another_chain_as_the_next() {
        let (first, up) = node_at(5, 100).await;
        let (behind, _) = node_at(5, 100 - BEHIND - 1).await;
        let (wrong, _) = node_at(7, 100).await;
        let node = Node::connect(&chain(&[&first, &behind, &wrong], 5))
            .await
            .unwrap();
        assert_eq!(node.height().await.unwrap(), 100);
        up.store(false, Ordering::Relaxed);
        let Err(Refusal::Down(failure)) = node.height().await else {
            panic!("answered")
        };
        assert_eq!(failure.code(), 20);
        let words = failure.to_string();
        assert!(
            words.contains("7 blocks behind") && words.contains("is on chain 7, not 5"),
            "{words}"
        );
    }
}
