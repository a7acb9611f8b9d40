//! Whole nodes: a transaction from the mempool through Bitcoin to the state, on both backends; restarts; a
//! reorg under a running node.

use crate::bitcoind::Bitcoind;
use crate::eth::{genesis, transfer, wallet};
use crate::wallet::keys;
use alloy_primitives::{Address, U256};
use bitai_node::bitcoin::assemble::mine_on;
use bitai_node::config::{BitcoinConfig, Config};
use bitai_node::inscriber::source::InscriberView;
use bitai_node::node::{Node, NodeError, NodeHandle};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

const TO: Address = Address::repeat_byte(0xcc);
const RECIPIENT: Address = Address::repeat_byte(0xee);

fn config(dir: &Path) -> Config {
    Config::devnet(
        dir,
        genesis(2),
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        RECIPIENT,
    )
}

fn balance(node: &NodeHandle, who: Address) -> U256 {
    let account = node.parts().chain.view().unwrap().account(who).unwrap();
    account.map_or(U256::ZERO, |a| a.balance)
}

/// Waits until `done`, or says what it waited for: the limit is far beyond what a busy machine takes.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn sends_and_executes(node: &NodeHandle, nonce: u64) {
    let raw = transfer(0, nonce, TO, 1000, 2);
    let before = balance(node, TO);
    let hash = node.parts().mempool.submit(&raw).unwrap();
    until("executed", || balance(node, TO) == before + U256::from(1000)).await;
    let view = node.parts().inscriber.clone().unwrap();
    // The state may be a moment ahead of the inscriber's own scan.
    until("recorded", || view.record(hash).unwrap().bitcoin_height.is_some()).await;
    let record = view.record(hash).unwrap();
    assert!(record.fee_sats >= record.vbytes && record.payload_bytes > 0);
    assert!(balance(node, RECIPIENT) > U256::ZERO, "the inscriber is paid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_inscribes_executes_stops_and_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(config(dir.path())).await.unwrap();
    assert!(node.rpc_addr().unwrap().port() != 0);
    sends_and_executes(&node, 0).await;
    node.stop().await;
    let node = Node::start(config(dir.path())).await.unwrap();
    assert_eq!(balance(&node, TO), U256::from(1000));
    sends_and_executes(&node, 1).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reorg_that_removes_commit_and_reveal_under_a_running_node_ends_well() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(config(dir.path())).await.unwrap();
    let bitcoin = node.parts().backend.clone();
    let fork = bitcoin.tip().unwrap();
    sends_and_executes(&node, 0).await;
    let reached = bitcoin.tip().unwrap().height;
    let mut at = fork.hash;
    let mut tag = 0;
    // The producer goes on meanwhile: the rival branch must overtake it.
    while bitcoin.tip().unwrap().hash != at || bitcoin.tip().unwrap().height <= reached {
        tag += 1;
        at = mine_on(&*bitcoin, &at, vec![], &keys(3).script(), tag).unwrap();
        assert!(tag < 1000);
    }
    let rewound = bitcoin.tip().unwrap();
    until("executed again on the new branch", || {
        let tip = node.parts().chain.head().1.number;
        tip > rewound.height && balance(&node, TO) == U256::from(1000)
    })
    .await;
    let nonce = node
        .parts()
        .chain
        .view()
        .unwrap()
        .account(wallet(0).address())
        .unwrap()
        .unwrap()
        .nonce;
    assert_eq!(nonce, 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_over_bitcoin_core_inscribes_and_executes() {
    let Some(core) = Bitcoind::start() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (url, auth) = core.access();
    let config = Config {
        bitcoin: BitcoinConfig::Core { url, auth },
        ..config(dir.path())
    };
    let node = Node::start(config).await.unwrap();
    sends_and_executes(&node, 0).await;
    sends_and_executes(&node, 1).await;
    node.stop().await;
}

#[tokio::test]
async fn refuses_another_chain_s_data_with_a_code_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = config(dir.path());
    one.inscriber = None;
    one.producer = None;
    Node::start(one.clone()).await.unwrap().stop().await;
    let mut other = one.clone();
    other.genesis = genesis(1);
    let error = Node::start(other).await.unwrap_err();
    assert_eq!(error.exit_code(), 4, "{error}");
    let mut wrong = one.clone();
    wrong.genesis.start_hash = alloy_primitives::B256::repeat_byte(1);
    let error = Node::start(wrong).await.unwrap_err();
    assert!(matches!(error, NodeError::OtherChain { .. }), "{error}");
    let url = "http://127.0.0.1:9".to_owned();
    let auth = bitai_node::bitcoin::core::Auth::Password("a".into(), "b".into());
    let away = Config {
        bitcoin: BitcoinConfig::Core { url, auth },
        ..one
    };
    assert_eq!(Node::start(away).await.unwrap_err().exit_code(), 5);
}
