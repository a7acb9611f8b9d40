//! `eth_subscribe` over WebSocket: new heads, logs, pending transactions.

use alloy::rpc::types::{Filter, Log};
use jsonrpsee::core::server::SubscriptionMessage;
use jsonrpsee::types::SubscriptionId;
use jsonrpsee::{PendingSubscriptionSink, RpcModule};
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::broadcast;

use super::Context;
use super::convert;
use super::error::invalid;
use crate::state::{AppliedBlock, ChainObserver, StoredBlock};

/// Blocks that a slow subscriber may be behind before it misses some.
const BACKLOG: usize = 256;

/// What happened to the chain.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Applied(Arc<AppliedBlock>),
    Removed(Arc<StoredBlock>),
}

/// Passes the chain's events to subscribers.
#[derive(Debug)]
pub(crate) struct Feed(pub(crate) broadcast::Sender<Event>);

impl Feed {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Feed(broadcast::channel(BACKLOG).0))
    }
}

impl ChainObserver for Feed {
    fn block_applied(&self, block: &Arc<AppliedBlock>) {
        // No subscribers is no error.
        let _ = self.0.send(Event::Applied(block.clone()));
    }

    fn rewound(&self, removed: &[StoredBlock]) {
        for block in removed {
            let _ = self.0.send(Event::Removed(Arc::new(block.clone())));
        }
    }
}

/// Subscription ids as Ethereum's clients expect them: hex strings.
#[derive(Debug)]
pub(crate) struct HexIds;

impl jsonrpsee::core::traits::IdProvider for HexIds {
    fn next_id(&self) -> SubscriptionId<'static> {
        use std::sync::atomic::{AtomicU64, Ordering};
        // Unique while the node runs, which is as long as a subscription can live.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        format!("0x{:x}", NEXT.fetch_add(1, Ordering::Relaxed)).into()
    }
}

enum Topic {
    Heads,
    Logs(Box<Filter>),
}

impl Topic {
    /// Messages of an event.
    fn messages(&self, event: &Event) -> Vec<Value> {
        let values = match (self, event) {
            (Topic::Heads, Event::Applied(block)) => {
                vec![serde_json::to_value(convert::rpc_header(
                    block.hash,
                    block.header.clone(),
                    0,
                ))]
            }
            (Topic::Heads, Event::Removed(_)) => Vec::new(),
            (Topic::Logs(filter), Event::Applied(block)) => {
                let logs = convert::block_logs(block.hash, &block.header, &block.txs);
                logs.into_iter()
                    .filter(|log| filter.matches(&log.inner))
                    .map(serde_json::to_value)
                    .collect()
            }
            (Topic::Logs(filter), Event::Removed(block)) => {
                let logs = convert::block_logs(block.hash, &block.header, &block.txs)
                    .into_iter()
                    .rev();
                logs.filter(|log| filter.matches(&log.inner))
                    .map(|log| serde_json::to_value(Log { removed: true, ..log }))
                    .collect()
            }
        };
        values.into_iter().filter_map(Result::ok).collect()
    }
}

/// Adds `eth_subscribe` and `eth_unsubscribe`.
pub(crate) fn register(module: &mut RpcModule<Context>) -> Result<(), jsonrpsee::core::RegisterMethodError> {
    module.register_subscription(
        "eth_subscribe",
        "eth_subscription",
        "eth_unsubscribe",
        |params, pending: PendingSubscriptionSink, context, _| async move {
            let mut params = params.sequence();
            let topic = match params.next::<String>().as_deref() {
                Ok("newHeads") => Topic::Heads,
                Ok("logs") => match params.optional_next::<Filter>() {
                    Ok(filter) => Topic::Logs(Box::new(filter.unwrap_or_default())),
                    Err(error) => return pending.reject(error).await,
                },
                Ok(other) => {
                    let text = format!("subscription {other} is not supported: newHeads, logs");
                    return pending.reject(invalid(text)).await;
                }
                Err(error) => return pending.reject(invalid(error.message())).await,
            };
            let mut events = context.feed.0.subscribe();
            let Ok(sink) = pending.accept().await else { return };
            loop {
                let event = tokio::select! {
                    () = sink.closed() => return,
                    event = events.recv() => event,
                };
                let event = match event {
                    Ok(event) => event,
                    // It was too slow: what it missed it can ask for.
                    Err(broadcast::error::RecvError::Lagged(_)) => continue,
                    Err(broadcast::error::RecvError::Closed) => return,
                };
                for value in topic.messages(&event) {
                    let message =
                        SubscriptionMessage::new(sink.method_name(), sink.subscription_id(), &value);
                    let Ok(message) = message else { continue };
                    if sink.send(message).await.is_err() {
                        return;
                    }
                }
            }
        },
    )?;
    Ok(())
}
