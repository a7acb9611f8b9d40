//! Moves before a node whose mempool the test moves: none is blocked by another's transaction, none is paid twice.

use std::sync::{Arc, Mutex};

use alloy::{consensus::Transaction, signers::local::PrivateKeySigner};
use alloy_primitives::{Address, B256, TxKind, U256};
use serde_json::{Value, json};

use crate::{
    chain::{
        Hub, Sender,
        send::Call,
        testnode,
        testpool::{Executed, Pool},
    },
    datadir::DataDir,
    dispute::Outbox,
};

const HUB: Address = Address::repeat_byte(5);

struct Stage {
    pool: Arc<Mutex<Pool>>,
    hub: Hub,
    outbox: Outbox,
}

impl Stage {
    async fn new() -> Self {
        let pool = Arc::new(Mutex::new(Pool::new(HUB)));
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
        let words = |e: &Executed| String::from_utf8_lossy(e.tx.input()).into_owned();
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

/// A seat with a place on disk.
fn kept(hub: &Hub, data: &DataDir) -> Outbox {
    Outbox::kept(sender(hub), data, ("defend", HUB))
}

#[tokio::test]
async fn a_restart_sends_the_very_bytes_again_and_signs_no_second_move() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::resolve(Some(dir.path().to_owned())).unwrap();
    let mut s = Stage::new().await;
    s.outbox = kept(&s.hub, &data);
    assert!(s.push(1, "due").await);
    let first = s.pool(|p| p.waiting.remove(&0)).unwrap();
    // The node has lost it, and so has the process.
    s.outbox = kept(&s.hub, &data);
    assert!(!s.push(1, "due").await, "sent again, not signed");
    let again = s.pool(|p| p.waiting.get(&0).cloned()).unwrap();
    assert_eq!(again.tx_hash(), first.tx_hash());
    // Executed above what the next process reads first: it is not paid twice.
    s.pool(|p| p.mine(2));
    s.outbox = kept(&s.hub, &data);
    assert!(!s.push(1, "due").await);
    assert!(s.push(1, "other").await);
    s.pool(|p| p.mine(3));
    assert_eq!(s.executed().iter().filter(|w| *w == "due").count(), 1);
}

#[tokio::test]
async fn a_move_that_left_without_an_answer_is_the_one_that_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::resolve(Some(dir.path().to_owned())).unwrap();
    let mut s = Stage::new().await;
    s.outbox = kept(&s.hub, &data);
    s.pool(|p| p.is_deaf = true);
    assert!(
        s.outbox.push(1, "due", &call("due")).await.is_err(),
        "nobody knows"
    );
    let raw = std::fs::read_dir(data.moves()).unwrap().count();
    assert_eq!(raw, 1, "noted before it left");
    s.pool(|p| p.is_deaf = false);
    s.outbox = kept(&s.hub, &data);
    assert!(!s.push(1, "due").await);
    s.pool(|p| p.mine(2));
    s.push(2, "due").await;
    assert_eq!(s.executed(), ["due"]);
}

#[tokio::test]
async fn moves_of_a_process_before_that_nothing_asks_for_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::resolve(Some(dir.path().to_owned())).unwrap();
    let mut s = Stage::new().await;
    s.outbox = kept(&s.hub, &data);
    assert!(s.push(1, "over").await);
    s.pool(|p| p.quote = 1000);
    // Its claim ended: it is never pushed again, and blocks what is due until it is taken for a stranger's.
    s.outbox = kept(&s.hub, &data);
    for height in 2..5 {
        assert!(!s.push(height, "due").await);
    }
    assert!(!s.outbox.is_under_way("over") || !s.push(5, "due").await);
    s.push(6, "due").await;
    assert!(!s.outbox.is_under_way("over"));
    s.pool(|p| p.mine(7));
    assert_eq!(s.executed(), ["due"]);
}

#[tokio::test]
async fn a_file_of_moves_that_cannot_be_read_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::resolve(Some(dir.path().to_owned())).unwrap();
    let mut s = Stage::new().await;
    let file = || {
        std::fs::read_dir(data.moves())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path()
    };
    s.outbox = kept(&s.hub, &data);
    s.push(1, "due").await;
    for broken in [
        "",
        "{",
        r#"{"version":2,"moves":{}}"#,
        r#"{"version":1,"moves":{},"more":1}"#,
    ] {
        std::fs::write(file(), broken).unwrap();
        s.outbox = kept(&s.hub, &data);
        assert!(!s.outbox.is_under_way("due"), "{broken}");
    }
    s.pool(|p| p.mine(1));
    assert!(s.push(2, "next").await);
    s.outbox = kept(&s.hub, &data);
    assert!(s.outbox.is_under_way("next"), "written whole again");
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
