//! JSON-RPC over HTTP and WebSocket on one port: what Ethereum's tools call, and `bitai_*`.

mod bitai;
mod budget;
mod call;
mod convert;
mod error;
mod eth;
mod fees;
mod ground;
mod logs;
mod methods;
mod subscribe;
mod trace;

use jsonrpsee::core::middleware::RpcServiceBuilder;
use jsonrpsee::server::{BatchRequestConfig, Server, ServerConfig, ServerHandle};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use tower_http::cors::CorsLayer;

use crate::inscriber::source::InscriberView;
use crate::mempool::Mempool;
use crate::state::Chain;
use logs::Filters;
use subscribe::{Feed, HexIds};

/// Limits of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RpcLimits {
    /// Bytes of a request.
    pub max_request_bytes: u32,
    /// Bytes of a response.
    pub max_response_bytes: u32,
    /// Connections at once.
    pub max_connections: u32,
    /// Calls in one batch.
    pub max_batch: u32,
    /// Subscriptions on one connection.
    pub max_subscriptions: u32,
}

impl Default for RpcLimits {
    fn default() -> Self {
        RpcLimits {
            max_request_bytes: 16 << 20,
            max_response_bytes: 64 << 20,
            max_connections: 256,
            max_batch: 1_000,
            max_subscriptions: 256,
        }
    }
}

/// What the server answers from.
#[derive(Clone)]
pub struct Services {
    /// Blocks and state.
    pub chain: Arc<Chain>,
    /// Where transactions go.
    pub mempool: Arc<Mempool>,
    /// The inscriber, where this node has one.
    pub inscriber: Option<Arc<dyn InscriberView>>,
    /// Height of the Bitcoin backend's best block; `None` while it cannot be reached.
    pub bitcoin_tip: Arc<dyn Fn() -> Option<u64> + Send + Sync>,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services")
            .field("chain", &self.chain)
            .finish_non_exhaustive()
    }
}

/// What methods share.
pub(crate) struct Context {
    pub(crate) chain: Arc<Chain>,
    pub(crate) mempool: Arc<Mempool>,
    pub(crate) inscriber: Option<Arc<dyn InscriberView>>,
    pub(crate) bitcoin_tip: Arc<dyn Fn() -> Option<u64> + Send + Sync>,
    pub(crate) filters: Filters,
    pub(crate) feed: Arc<Feed>,
}

/// A running server; it stops when this is dropped.
#[derive(Debug)]
pub struct RpcHandle {
    addr: SocketAddr,
    server: ServerHandle,
}

impl RpcHandle {
    /// Address that it listens on (with the port, where 0 was asked for).
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops listening; requests under way are answered.
    pub async fn stop(self) {
        // An error says that it has stopped already.
        let _ = self.server.stop();
        self.server.clone().stopped().await;
    }
}

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be had.
    #[error("cannot listen on {addr}: {source}; choose another port")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Two methods of one name.
    #[error("rpc methods: {0}")]
    Methods(#[from] jsonrpsee::core::RegisterMethodError),
}

/// Listens on `addr` (port 0 for any) and answers from `services` with the default limits.
pub async fn serve(addr: SocketAddr, services: Services) -> Result<RpcHandle, ServeError> {
    serve_with(addr, services, RpcLimits::default()).await
}

/// The same with limits of one's own.
pub async fn serve_with(
    addr: SocketAddr,
    services: Services,
    limits: RpcLimits,
) -> Result<RpcHandle, ServeError> {
    let feed = Feed::new();
    let observer: Weak<Feed> = Arc::downgrade(&feed);
    services.chain.observe(observer);
    let context = Context {
        chain: services.chain,
        mempool: services.mempool,
        inscriber: services.inscriber,
        bitcoin_tip: services.bitcoin_tip,
        filters: Filters::default(),
        feed,
    };
    let module = methods::module(context)?;
    let config = ServerConfig::builder()
        .max_request_body_size(limits.max_request_bytes)
        .max_response_body_size(limits.max_response_bytes)
        .max_connections(limits.max_connections)
        .max_subscriptions_per_connection(limits.max_subscriptions)
        .set_batch_request_config(BatchRequestConfig::Limit(limits.max_batch))
        .set_id_provider(HexIds)
        .build();
    // Wallets in a browser ask from any page; nothing here is behind a cookie or a password.
    let cors = CorsLayer::permissive();
    let server = Server::builder()
        .set_config(config)
        .set_rpc_middleware(RpcServiceBuilder::new().layer_fn(budget::Metered))
        .set_http_middleware(tower::ServiceBuilder::new().layer(cors))
        .build(addr)
        .await
        .map_err(|source| ServeError::Listen { addr, source })?;
    let addr = server
        .local_addr()
        .map_err(|source| ServeError::Listen { addr, source })?;
    Ok(RpcHandle {
        addr,
        server: server.start(module),
    })
}
