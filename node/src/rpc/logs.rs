//! `eth_getLogs` and the polling filters built on it.

use alloy::rpc::types::{Filter, FilterBlockOption, Log};
use alloy_primitives::{B256, U256};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Context;
use super::convert;
use super::error::{Answer, LIMIT_EXCEEDED, NOT_FOUND, error, internal, invalid};

/// Most blocks that one query may span.
const MAX_RANGE: u64 = 100_000;
/// Most logs in one answer.
const MAX_LOGS: usize = 20_000;
/// Most filters kept.
const MAX_FILTERS: usize = 1_024;
/// A filter nobody asks for is forgotten after this.
const FILTER_LIFE: Duration = Duration::from_secs(300);

/// What a filter watches.
#[derive(Debug, Clone)]
enum Watch {
    Blocks,
    Logs(Box<Filter>),
    Pending,
}

/// A filter and how far it was read.
#[derive(Debug)]
struct Watched {
    watch: Watch,
    /// Height up to which it was read.
    seen: u64,
    /// Transactions that it has told of (pending filters).
    told: Vec<B256>,
    used: Instant,
}

/// The polling filters.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    next: Mutex<u64>,
    all: Mutex<BTreeMap<u64, Watched>>,
}

impl Context {
    /// Logs that match, in order.
    pub(crate) fn logs(&self, filter: &Filter) -> Answer<Vec<Log>> {
        let view = self.chain.view().map_err(internal)?;
        let tip = view.height();
        let (from, to) = match filter.block_option {
            FilterBlockOption::AtBlockHash(hash) => {
                let height = view.height_of(hash).map_err(internal)?;
                let height = height.ok_or_else(|| error(NOT_FOUND, format!("block {hash} not found")))?;
                (height, height)
            }
            FilterBlockOption::Range { from_block, to_block } => {
                let height = |tag: Option<_>| tag.map_or(Some(tip), |t| self.height(t)).unwrap_or(tip);
                (height(from_block), height(to_block).min(tip))
            }
        };
        if from > to && from <= tip {
            return Err(invalid(format!("fromBlock {from} is above toBlock {to}")));
        }
        if to.saturating_sub(from) >= MAX_RANGE {
            return Err(error(
                LIMIT_EXCEEDED,
                format!("at most {MAX_RANGE} blocks a query: narrow the range"),
            ));
        }
        let mut found = Vec::new();
        for height in from..=to {
            let Some((hash, header)) = view.header(height).map_err(internal)? else {
                break;
            };
            if !filter.matches_bloom(header.logs_bloom) {
                continue;
            }
            let txs = view.body(height).map_err(internal)?;
            let logs = convert::block_logs(hash, &header, &txs);
            found.extend(logs.into_iter().filter(|log| filter.matches(&log.inner)));
            if found.len() > MAX_LOGS {
                return Err(error(
                    LIMIT_EXCEEDED,
                    format!("query returned more than {MAX_LOGS} results: narrow the range"),
                ));
            }
        }
        Ok(found)
    }

    fn add_filter(&self, watch: Watch) -> Answer<U256> {
        let mut all = self.filters.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, f| f.used.elapsed() < FILTER_LIFE);
        if all.len() >= MAX_FILTERS {
            return Err(error(
                LIMIT_EXCEEDED,
                format!("{MAX_FILTERS} filters are in use already"),
            ));
        }
        let mut next = self.filters.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next += 1;
        let seen = self.chain.head().1.number;
        all.insert(
            *next,
            Watched {
                watch,
                seen,
                told: Vec::new(),
                used: Instant::now(),
            },
        );
        Ok(U256::from(*next))
    }

    /// `eth_newBlockFilter`.
    pub(crate) fn new_block_filter(&self) -> Answer<U256> {
        self.add_filter(Watch::Blocks)
    }

    /// `eth_newPendingTransactionFilter`.
    pub(crate) fn new_pending_filter(&self) -> Answer<U256> {
        self.add_filter(Watch::Pending)
    }

    /// `eth_newFilter`.
    pub(crate) fn new_filter(&self, filter: Filter) -> Answer<U256> {
        self.add_filter(Watch::Logs(Box::new(filter)))
    }

    /// `eth_uninstallFilter`.
    pub(crate) fn uninstall_filter(&self, id: U256) -> bool {
        let mut all = self.filters.all.lock().unwrap_or_else(PoisonError::into_inner);
        u64::try_from(id).is_ok_and(|id| all.remove(&id).is_some())
    }

    /// `eth_getFilterChanges`: what is new since the last call.
    pub(crate) fn filter_changes(&self, id: U256) -> Answer<Value> {
        let mut all = self.filters.all.lock().unwrap_or_else(PoisonError::into_inner);
        let filter = u64::try_from(id).ok().and_then(|id| all.get_mut(&id));
        let filter = filter.ok_or_else(|| error(super::error::SERVER_ERROR, "filter not found"))?;
        filter.used = Instant::now();
        let tip = self.chain.head().1.number;
        // After a reorg to a lower tip, go on from there.
        let from = filter.seen.min(tip) + 1;
        filter.seen = tip;
        match &filter.watch {
            Watch::Blocks => {
                let view = self.chain.view().map_err(internal)?;
                let mut hashes = Vec::new();
                for height in from..=tip {
                    hashes.extend(view.header(height).map_err(internal)?.map(|(hash, _)| hash));
                }
                Ok(serde_json::json!(hashes))
            }
            Watch::Pending => {
                let now: Vec<B256> = self.mempool.content().iter().map(|tx| tx.tx.hash).collect();
                let fresh: Vec<B256> = now
                    .iter()
                    .filter(|hash| !filter.told.contains(hash))
                    .copied()
                    .collect();
                filter.told = now;
                Ok(serde_json::json!(fresh))
            }
            Watch::Logs(_) if from > tip => Ok(serde_json::json!([])),
            Watch::Logs(watched) => {
                let mut query = (**watched).clone();
                query.block_option = FilterBlockOption::Range {
                    from_block: Some(from.into()),
                    to_block: Some(tip.into()),
                };
                Ok(serde_json::json!(self.logs(&query)?))
            }
        }
    }

    /// `eth_getFilterLogs`: everything that matches.
    pub(crate) fn filter_logs(&self, id: U256) -> Answer<Vec<Log>> {
        let watch = {
            let all = self.filters.all.lock().unwrap_or_else(PoisonError::into_inner);
            u64::try_from(id)
                .ok()
                .and_then(|id| all.get(&id))
                .map(|f| f.watch.clone())
        };
        match watch {
            Some(Watch::Logs(filter)) => self.logs(&filter),
            _ => Err(error(super::error::SERVER_ERROR, "filter not found")),
        }
    }
}
