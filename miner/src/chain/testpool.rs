//! A node's mempool for tests, of one account: what it takes, what it lets go, what it executes.

use std::collections::BTreeMap;

use alloy::{
    consensus::{Transaction, TxEnvelope},
    eips::eip2718::Decodable2718,
};
use alloy_primitives::{Address, B256, Bytes};
use serde_json::{Value, json};

/// An executed transaction.
pub(crate) struct Executed {
    pub(crate) tx: TxEnvelope,
    /// Where.
    height: u64,
    /// Whether it did what it was to do.
    status: bool,
}

/// What a node says of a call: whether it would revert.
type Reverts = Box<dyn Fn(&[u8]) -> bool + Send>;

/// A node's view of one account.
pub(crate) struct Pool {
    /// Where receipts say that transactions went.
    to: Address,
    /// The chain's id.
    pub(crate) chain: u64,
    /// Priority fee per gas that it asks.
    pub(crate) quote: u128,
    /// Transactions that wait, by nonce.
    pub(crate) waiting: BTreeMap<u64, TxEnvelope>,
    /// Executed ones in order: those of an account count its nonces.
    pub(crate) executed: Vec<Executed>,
    /// Whether transactions are taken and no answer is given.
    pub(crate) is_deaf: bool,
    /// Calldata that reverts when it is estimated.
    pub(crate) refuses: Reverts,
    /// Calldata that reverts when it is executed.
    pub(crate) reverts: Reverts,
}

impl Pool {
    /// Nothing waits.
    pub(crate) fn new(to: Address) -> Self {
        Self {
            to,
            chain: 1,
            quote: 100,
            waiting: BTreeMap::new(),
            executed: Vec::new(),
            is_deaf: false,
            refuses: Box::new(|_| false),
            reverts: Box::new(|_| false),
        }
    }

    fn next(&self) -> u64 {
        self.executed.len() as u64
    }

    /// Answers as a node.
    pub(crate) fn answer(&mut self, method: &str, params: &Value) -> Result<Value, String> {
        let hash = || params[0].as_str().unwrap().parse::<B256>().unwrap();
        Ok(match method {
            "eth_chainId" => json!(format!("{:#x}", self.chain)),
            "eth_getCode" => json!("0x01"),
            "eth_estimateGas" => {
                let data: Bytes = serde_json::from_value(params[0]["input"].clone()).unwrap();
                if (self.refuses)(&data) {
                    return Err("execution reverted".into());
                }
                json!("0x186a0")
            }
            "eth_maxPriorityFeePerGas" => json!(format!("{:#x}", self.quote)),
            "eth_getBlockByNumber" => json!({ "baseFeePerGas": "0x7" }),
            "eth_getTransactionCount" if params[1] == "latest" => json!(format!("{:#x}", self.next())),
            "eth_getTransactionCount" => {
                let free = (self.next()..).find(|n| !self.waiting.contains_key(n));
                json!(format!("{:#x}", free.unwrap()))
            }
            "eth_getTransactionReceipt" => {
                let found = self.executed.iter().find(|e| *e.tx.tx_hash() == hash());
                match found {
                    Some(Executed { tx, height, status }) => json!({
                        "type": "0x2", "status": format!("{:#x}", u8::from(*status)), "cumulativeGasUsed": "0x1", "gasUsed": "0x1",
                        "logs": [], "logsBloom": format!("0x{}", "00".repeat(256)), "effectiveGasPrice": "0x1",
                        "transactionHash": tx.tx_hash(), "transactionIndex": "0x0", "blockHash": B256::ZERO,
                        "blockNumber": format!("{height:#x}"), "from": Address::ZERO, "to": self.to,
                        "contractAddress": null,
                    }),
                    None => Value::Null,
                }
            }
            "bitai_getInscription" => match self.waiting.values().find(|tx| *tx.tx_hash() == hash()) {
                Some(tx) => json!({ "txHash": tx.tx_hash(), "stage": "mempool" }),
                None => Value::Null,
            },
            "eth_sendRawTransaction" => {
                let raw: Bytes = serde_json::from_value(params[0].clone()).unwrap();
                let new = TxEnvelope::decode_2718(&mut raw.as_ref()).unwrap();
                let taken = self.take(new)?;
                // No hash: as good as a connection that broke.
                if self.is_deaf { json!("?") } else { taken }
            }
            other => return Err(format!("no method {other}")),
        })
    }

    fn take(&mut self, new: TxEnvelope) -> Result<Value, String> {
        let tip = |tx: &TxEnvelope| tx.max_priority_fee_per_gas().unwrap();
        if new.nonce() < self.next() {
            return Err("nonce too low".into());
        }
        if let Some(old) = self.waiting.get(&new.nonce()) {
            if old.tx_hash() == new.tx_hash() {
                return Err("already known".into());
            }
            if tip(&new) < tip(old) + tip(old).div_ceil(10) {
                return Err("replacement transaction underpriced".into());
            }
        }
        if tip(&new) < self.quote {
            return Err("transaction underpriced: effective priority fee too low".into());
        }
        let hash = json!(new.tx_hash());
        self.waiting.insert(new.nonce(), new);
        Ok(hash)
    }

    /// A block at this height: executes what waits in order of nonces and pays enough.
    pub(crate) fn mine(&mut self, height: u64) {
        while let Some(tx) = self.waiting.remove(&self.next()) {
            if tx.max_priority_fee_per_gas().unwrap() < self.quote {
                self.waiting.insert(self.next(), tx);
                return;
            }
            let status = !(self.reverts)(tx.input());
            self.executed.push(Executed { tx, height, status });
        }
    }
}
