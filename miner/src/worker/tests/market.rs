//! A node that the tests move: its price, its mempool, what it refuses.

use std::sync::{Arc, Mutex};

use alloy::{
    consensus::{Transaction, TxEnvelope},
    eips::eip2718::Decodable2718,
};
use alloy_primitives::{Address, B256, Bytes};
use serde_json::{Value, json};

use super::{CHAIN, HUB};
use crate::chain::{Hub, testnode};

/// A node with a mempool of one transaction a nonce, and the rules of ours: it asks a price, and takes another
/// transaction of a nonce only for a tenth more on both fees.
pub(super) struct Market {
    /// Priority fee per gas that it asks.
    pub(super) quote: u128,
    /// What waits.
    pub(super) pool: Option<TxEnvelope>,
    /// Whether that is already on its way to Bitcoin.
    pub(super) in_flight: bool,
    /// Whether a block has executed it.
    pub(super) executed: bool,
    /// Why it takes nothing.
    pub(super) refuses: Option<&'static str>,
}

impl Default for Market {
    /// Empty, at a price of 100.
    fn default() -> Self {
        Self {
            quote: 100,
            pool: None,
            in_flight: false,
            executed: false,
            refuses: None,
        }
    }
}

impl Market {
    fn answer(&mut self, method: &str, params: &Value) -> Result<Value, String> {
        let hash = |v: &Value| v.as_str().and_then(|s| s.parse::<B256>().ok());
        Ok(match method {
            "eth_chainId" => json!(format!("{CHAIN:#x}")),
            "eth_getCode" => json!("0x01"),
            "eth_estimateGas" => json!("0x186a0"),
            "eth_maxPriorityFeePerGas" => json!(format!("{:#x}", self.quote)),
            "eth_getBlockByNumber" => json!({ "baseFeePerGas": "0x7" }),
            "eth_getTransactionCount" => json!(if self.executed { "0x1" } else { "0x0" }),
            "eth_getTransactionReceipt" => match &self.pool {
                Some(tx) if self.executed && hash(&params[0]) == Some(*tx.tx_hash()) => json!({
                    "type": "0x2", "status": "0x1", "cumulativeGasUsed": "0x1", "gasUsed": "0x1",
                    "logs": [], "logsBloom": format!("0x{}", "00".repeat(256)), "effectiveGasPrice": "0x1",
                    "transactionHash": tx.tx_hash(), "transactionIndex": "0x0", "blockHash": B256::ZERO,
                    "blockNumber": "0x2", "from": Address::ZERO, "to": HUB, "contractAddress": null,
                }),
                _ => Value::Null,
            },
            "bitai_getInscription" => match &self.pool {
                Some(tx) if hash(&params[0]) == Some(*tx.tx_hash()) => json!({
                    "txHash": tx.tx_hash(), "stage": if self.in_flight { "broadcast" } else { "mempool" }
                }),
                _ => Value::Null,
            },
            "eth_sendRawTransaction" => {
                let raw: Bytes = serde_json::from_value(params[0].clone()).unwrap();
                let new = TxEnvelope::decode_2718(&mut raw.as_ref()).unwrap();
                self.take(&new)?;
                json!(new.tx_hash())
            }
            other => return Err(format!("no method {other}")),
        })
    }

    fn take(&mut self, new: &TxEnvelope) -> Result<(), String> {
        if let Some(why) = self.refuses {
            return Err(why.into());
        }
        let tip = |tx: &TxEnvelope| tx.max_priority_fee_per_gas().unwrap();
        if let Some(old) = &self.pool {
            if old.tx_hash() == new.tx_hash() {
                return Err("already known".into());
            }
            assert_eq!(
                old.nonce(),
                new.nonce(),
                "a second transaction instead of a dearer one"
            );
            if self.in_flight {
                return Err(
                    "nonce 0 is taken, which is already being inscribed and cannot be replaced".into(),
                );
            }
            let bump = |fee: u128| fee + fee.div_ceil(10);
            if tip(new) < bump(tip(old)) || new.max_fee_per_gas() < bump(old.max_fee_per_gas()) {
                return Err("replacement transaction underpriced".into());
            }
        }
        if tip(new) < self.quote {
            return Err("transaction underpriced: effective priority fee too low".into());
        }
        self.pool = Some(new.clone());
        Ok(())
    }
}

/// The node as a test moves it.
pub(super) type Shared = Arc<Mutex<Market>>;

/// Starts a node; a test moves what it answers by.
pub(super) async fn node() -> (Shared, Hub) {
    let market = Shared::default();
    let state = Arc::clone(&market);
    let answers = move |method: &str, params: &Value| state.lock().unwrap().answer(method, params);
    (market, testnode::hub(CHAIN, HUB, answers).await)
}
