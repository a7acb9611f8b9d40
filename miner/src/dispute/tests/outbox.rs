//! Moves before a node whose mempool the test moves: none is blocked by another's transaction, none is paid twice.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use alloy::{
    consensus::{Transaction, TxEnvelope},
    eips::eip2718::Decodable2718,
    signers::local::PrivateKeySigner,
};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use serde_json::{Value, json};

use crate::{
    chain::{Hub, Sender, send::Call, testnode},
    dispute::Outbox,
};

const HUB: Address = Address::repeat_byte(5);

/// A node's view of one account.
struct Pool {
    /// Priority fee per gas that it asks.
    quote: u128,
    /// Transactions that wait, by nonce.
    waiting: BTreeMap<u64, TxEnvelope>,
    /// Executed ones in order, with their heights: those of an account count its nonces.
    executed: Vec<(TxEnvelope, u64)>,
}

impl Pool {
    fn next(&self) -> u64 {
        self.executed.len() as u64
    }

    fn answer(&mut self, method: &str, params: &Value) -> Result<Value, String> {
        let hash = || params[0].as_str().unwrap().parse::<B256>().unwrap();
        Ok(match method {
            "eth_chainId" => json!("0x1"),
            "eth_getCode" => json!("0x01"),
            "eth_estimateGas" => json!("0x186a0"),
            "eth_maxPriorityFeePerGas" => json!(format!("{:#x}", self.quote)),
            "eth_getBlockByNumber" => json!({ "baseFeePerGas": "0x7" }),
            "eth_getTransactionCount" if params[1] == "latest" => json!(format!("{:#x}", self.next())),
            "eth_getTransactionCount" => {
                let free = (self.next()..).find(|n| !self.waiting.contains_key(n));
                json!(format!("{:#x}", free.unwrap()))
            }
            "eth_getTransactionReceipt" => {
                let found = self.executed.iter().find(|(tx, _)| *tx.tx_hash() == hash());
                match found {
                    Some((tx, height)) => json!({
                        "type": "0x2", "status": "0x1", "cumulativeGasUsed": "0x1", "gasUsed": "0x1",
                        "logs": [], "logsBloom": format!("0x{}", "00".repeat(256)), "effectiveGasPrice": "0x1",
                        "transactionHash": tx.tx_hash(), "transactionIndex": "0x0", "blockHash": B256::ZERO,
                        "blockNumber": format!("{height:#x}"), "from": Address::ZERO, "to": HUB,
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
                self.take(new)?
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
    fn mine(&mut self, height: u64) {
        while let Some(tx) = self.waiting.remove(&self.next()) {
            if tx.max_priority_fee_per_gas().unwrap() < self.quote {
                self.waiting.insert(self.next(), tx);
                return;
            }
            self.executed.push((tx, height));
        }
    }
}

struct Stage {
    pool: Arc<Mutex<Pool>>,
    hub: Hub,
    outbox: Outbox,
}

impl Stage {
    async fn new() -> Self {
        let pool = Arc::new(Mutex::new(Pool {
            quote: 100,
            waiting: BTreeMap::new(),
            executed: Vec::new(),
        }));
        let state = Arc::clone(&pool);
        let answers = move |method: &str, params: &Value| state.lock().unwrap().answer(method, params);
        let hub = testnode::hub(1, HUB, answers).await;
        let outbox = Outbox::new(sender(&hub));
        Self { pool, hub, outbox }
    }

    async fn push(&mut self, height: u64, name: &str) -> bool {
        self.outbox.push(height, name, &call(name)).await.unwrap()
    }

    /// What was executed, by what each call says.
    fn executed(&self) -> Vec<String> {
        let pool = self.pool.lock().unwrap();
        let words = |(tx, _): &(TxEnvelope, u64)| String::from_utf8_lossy(tx.input()).into_owned();
        pool.executed.iter().map(words).collect()
    }

    fn pool<R>(&self, change: impl FnOnce(&mut Pool) -> R) -> R {
        change(&mut self.pool.lock().unwrap())
    }
}

fn sender(hub: &Hub) -> Sender {
    let signer = PrivateKeySigner::from_bytes(&B256::repeat_byte(3)).unwrap();
    Sender::new(Arc::clone(hub.node()), signer)
}

fn call(words: &str) -> Call {
    Call {
        to: TxKind::Call(HUB),
        data: words.as_bytes().to_vec().into(),
        value: U256::ZERO,
    }
}

#[tokio::test]
async fn a_move_of_an_earlier_process_that_pays_too_little_is_replaced_by_the_one_that_is_due() {
    let mut s = Stage::new().await;
    assert!(s.push(1, "before").await);
    s.pool(|p| p.quote = 1000);
    // Another process: it knows nothing of that.
    s.outbox = Outbox::new(sender(&s.hub));
    for height in 1..4 {
        assert!(!s.push(height, "due").await, "one of before may be the very move");
        s.pool(|p| p.mine(height));
    }
    assert!(s.push(4, "due").await);
    s.pool(|p| p.mine(5));
    assert_eq!(s.executed(), ["due"]);
}

#[tokio::test]
async fn what_an_earlier_process_sent_is_waited_for_as_long_as_it_moves() {
    let mut s = Stage::new().await;
    assert!(s.push(1, "before").await);
    s.outbox = Outbox::new(sender(&s.hub));
    assert!(!s.push(1, "due").await);
    s.pool(|p| p.mine(2));
    assert!(s.push(2, "due").await);
    s.pool(|p| p.mine(3));
    assert_eq!(s.executed(), ["before", "due"]);
}

#[tokio::test]
async fn a_move_behind_a_gap_is_signed_anew_at_the_right_nonce() {
    let mut s = Stage::new().await;
    assert!(s.push(1, "first").await);
    assert!(s.push(1, "second").await);
    // The node lets the first one go: it would revert by now.
    s.pool(|p| p.waiting.remove(&0));
    assert!(s.push(2, "second").await);
    s.pool(|p| p.waiting.remove(&1));
    s.pool(|p| p.mine(3));
    assert_eq!(s.executed(), ["second"]);
    assert!(
        !s.push(2, "second").await,
        "executed after the state was read that says it is due"
    );
}

#[tokio::test]
async fn a_stranger_that_blocks_a_followed_move_is_replaced_in_the_end() {
    let mut s = Stage::new().await;
    // A transaction of this account that nobody follows here: the price rises above it.
    let stranger = sender(&s.hub).send(&call("stranger")).await.unwrap();
    s.outbox.push(1, "warm-up", &call("warm-up")).await.unwrap();
    s.pool(|p| p.mine(1));
    assert_eq!(s.executed(), ["stranger"]);
    drop(stranger);
    sender(&s.hub).send(&call("cheap")).await.unwrap();
    assert!(s.push(2, "due").await);
    s.pool(|p| p.quote = 1000);
    for height in 2..5 {
        s.push(height, "due").await;
        s.pool(|p| p.mine(height));
        assert_eq!(s.executed(), ["stranger"], "nothing moves");
    }
    s.push(5, "due").await;
    s.pool(|p| p.mine(6));
    assert_eq!(s.executed()[..2], ["stranger", "due"]);
}

#[tokio::test]
async fn a_move_that_is_due_once_more_is_sent_once_more() {
    let mut s = Stage::new().await;
    assert!(s.push(1, "withdraw").await);
    s.pool(|p| p.mine(2));
    assert!(
        !s.push(1, "withdraw").await,
        "what was read is older than what was executed"
    );
    // More money came: due by a state in which the first one is executed.
    assert!(s.push(2, "withdraw").await);
    assert!(!s.push(2, "withdraw").await, "once");
    s.pool(|p| p.mine(3));
    assert_eq!(s.executed(), ["withdraw", "withdraw"]);
}

#[tokio::test]
async fn events_are_read_in_smaller_pieces_where_a_node_refuses_the_range() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let spans = Arc::clone(&asked);
    let hub = testnode::hub(1, HUB, move |method: &str, params: &Value| {
        let number = |name: &str| {
            let text = params[0][name].as_str().unwrap();
            u64::from_str_radix(&text[2..], 16).unwrap()
        };
        Ok(match method {
            "eth_chainId" => json!("0x1"),
            "eth_getCode" => json!("0x01"),
            "eth_getLogs" => {
                let (from, to) = (number("fromBlock"), number("toBlock"));
                if to - from >= 1000 {
                    return Err("at most 1000 blocks a query: narrow the range".into());
                }
                spans.lock().unwrap().push((from, to));
                json!([])
            }
            other => return Err(format!("no method {other}")),
        })
    })
    .await;
    assert!(hub.reveals(7, 6000).await.unwrap().is_empty());
    let spans = asked.lock().unwrap();
    assert_eq!((spans.first().unwrap().0, spans.last().unwrap().1), (7, 6000));
    assert!(
        spans.windows(2).all(|w| w[0].1 + 1 == w[1].0),
        "none twice, none left out: {spans:?}"
    );
}
