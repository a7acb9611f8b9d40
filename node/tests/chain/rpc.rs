//! JSON-RPC over a real socket, asked with plain HTTP and with alloy.

use crate::common::*;
use crate::websocket::Socket;
use alloy::eips::BlockId;
use alloy::network::{EthereumWallet, TransactionBuilder};
use alloy::providers::{Provider, ProviderBuilder};
use alloy::rpc::types::{Filter, TransactionRequest};
use alloy::sol_types::SolError;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use bitai_node::indexer::Ledger;
use bitai_node::inscriber::source::{BatchRecord, InscriberView, Quote, TxSource};
use bitai_node::mempool::Mempool;
use bitai_node::rpc::{RpcHandle, Services, serve};
use bitai_node::state::Chain;
use serde_json::{Value, json};
use std::sync::Arc;

const TO: Address = Address::repeat_byte(0x77);

struct Tenth;

impl Quote for Tenth {
    fn min_priority_fee(&self, _raw_len: usize, _gas_used: u64) -> U256 {
        U256::from(GWEI / 10)
    }
}

/// An inscriber's answers, as the RPC server asks for them.
struct Desk;

impl InscriberView for Desk {
    fn record(&self, _tx_hash: B256) -> Option<BatchRecord> {
        None
    }
    fn balance_sats(&self) -> u64 {
        5_000
    }
    fn fee_recipient(&self) -> Address {
        RECIPIENT
    }
}

struct Node {
    _dir: tempfile::TempDir,
    chain: Arc<Chain>,
    mempool: Arc<Mempool>,
    handle: RpcHandle,
}

impl Node {
    async fn start(wallets: u8) -> Self {
        let (dir, chain) = chain(wallets);
        let mempool = Mempool::open(dir.path().join("mempool.redb"), chain.clone(), Arc::new(Tenth)).unwrap();
        let tip = chain.clone();
        let services = Services {
            chain: chain.clone(),
            mempool: mempool.clone(),
            inscriber: Some(Arc::new(Desk)),
            bitcoin_tip: Arc::new(move || tip.tip().map(|t| t.bitcoin_height)),
        };
        let handle = serve("127.0.0.1:0".parse().unwrap(), services).await.unwrap();
        Node {
            _dir: dir,
            chain,
            mempool,
            handle,
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.handle.addr())
    }

    /// One raw call: the whole response.
    async fn post(&self, body: Value) -> Value {
        let client = reqwest::Client::new();
        client
            .post(self.url())
            .json(&body)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    async fn ask(&self, method: &str, params: Value) -> Value {
        let response = self
            .post(json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }))
            .await;
        assert!(response.get("error").is_none(), "{method}: {response}");
        response["result"].clone()
    }

    async fn fail(&self, method: &str, params: Value) -> Value {
        let response = self
            .post(json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }))
            .await;
        assert!(response.get("error").is_some(), "{method}: {response}");
        response["error"].clone()
    }

    /// What the inscriber and Bitcoin would do: everything ready into one block.
    fn settle(&self) {
        let ready = self.mempool.ready(usize::MAX);
        let (hashes, txs): (Vec<B256>, Vec<Bytes>) = ready.into_iter().unzip();
        self.mempool.inscribed(&hashes, B256::repeat_byte(0x4e));
        mine(&self.chain, txs);
    }
}

#[tokio::test]
async fn alloy_sends_waits_and_reads() {
    let node = Node::start(2).await;
    let provider = ProviderBuilder::new()
        .wallet(EthereumWallet::from(wallet(0)))
        .connect_http(node.url().parse().unwrap());
    assert_eq!(provider.get_chain_id().await.unwrap(), 22216);
    let sent = provider
        .send_transaction(
            TransactionRequest::default()
                .with_to(TO)
                .with_value(U256::from(5)),
        )
        .await
        .unwrap();
    let hash = *sent.tx_hash();
    let pending = provider.get_transaction_by_hash(hash).await.unwrap().unwrap();
    assert_eq!(pending.block_number, None);
    assert_eq!(
        provider.get_transaction_count(wallet(0).address()).await.unwrap(),
        0
    );
    assert_eq!(
        provider
            .get_transaction_count(wallet(0).address())
            .pending()
            .await
            .unwrap(),
        1
    );
    assert_eq!(provider.get_transaction_receipt(hash).await.unwrap(), None);
    node.settle();
    let receipt = sent.get_receipt().await.unwrap();
    assert!(receipt.status());
    assert_eq!((receipt.block_number, receipt.gas_used), (Some(1), 21_000));
    assert_eq!(provider.get_balance(TO).await.unwrap(), U256::from(5));
    let block = provider
        .get_block(BlockId::latest())
        .full()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(block.header.hash, node.chain.head().0);
    assert_eq!(
        block.header.inner.hash_slow(),
        block.header.hash,
        "a real Ethereum block hash"
    );
    assert_eq!(block.transactions.as_transactions().unwrap().len(), 1);
    assert_eq!(
        provider
            .get_block_receipts(BlockId::latest())
            .await
            .unwrap()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn estimates_calls_and_overrides() {
    let node = Node::start(2).await;
    let provider = ProviderBuilder::new().connect_http(node.url().parse().unwrap());
    // Returns slot 0 after adding 1 to it: PUSH0 SLOAD PUSH1 1 ADD DUP1 PUSH0 SSTORE PUSH0 MSTORE PUSH1 32 PUSH0 RETURN
    let code = deployer(&[
        0x5f, 0x54, 0x60, 1, 1, 0x80, 0x5f, 0x55, 0x5f, 0x52, 0x60, 0x20, 0x5f, 0xf3,
    ]);
    mine(&node.chain, vec![create(0, 0, code, 300_000)]);
    let contract = wallet(0).address().create(0);
    let request = TransactionRequest::default()
        .with_from(wallet(1).address())
        .with_to(contract);
    assert_eq!(
        provider.call(request.clone()).await.unwrap().as_ref(),
        U256::from(1).to_be_bytes::<32>()
    );
    let gas = provider.estimate_gas(request.clone()).await.unwrap();
    // The estimate is enough, and not much more than enough.
    mine(&node.chain, vec![call(1, 0, contract, Bytes::new(), gas)]);
    let receipts = provider
        .get_block_receipts(BlockId::latest())
        .await
        .unwrap()
        .unwrap();
    assert!(receipts[0].status() && receipts[0].gas_used <= gas && gas < receipts[0].gas_used * 21 / 20);
    assert_eq!(
        provider.get_storage_at(contract, U256::ZERO).await.unwrap(),
        U256::from(1)
    );
    let overridden = node
        .ask(
            "eth_call",
            json!([{ "to": contract }, "latest", { contract.to_string(): { "stateDiff": { B256::ZERO.to_string(): B256::repeat_byte(0).to_string() } } }]),
        )
        .await;
    assert_eq!(overridden, json!(B256::from(U256::from(1))));
    // The state two blocks ago is still there; far ahead nothing is.
    let before = node
        .ask("eth_getStorageAt", json!([contract, "0x0", "0x1"]))
        .await;
    assert_eq!(before, json!(B256::ZERO));
    assert_eq!(
        node.fail("eth_getBalance", json!([contract, "0x99"])).await["code"],
        -32001
    );
}

#[tokio::test]
async fn estimates_stay_within_what_bytes_may_use() {
    let node = Node::start(1).await;
    // Burns all gas: JUMPDEST PUSH0 JUMP.
    mine(
        &node.chain,
        vec![create(0, 0, deployer(&[0x5b, 0x5f, 0x56]), 200_000)],
    );
    let contract = wallet(0).address().create(0);
    let error = node
        .fail(
            "eth_estimateGas",
            json!([{ "from": wallet(0).address(), "to": contract }]),
        )
        .await;
    assert_eq!(error["code"], -32000);
    assert!(
        error["message"].as_str().unwrap().contains("append calldata"),
        "{error}"
    );
}

#[tokio::test]
async fn reverts_carry_code_3_and_their_data() {
    let node = Node::start(2).await;
    mine(
        &node.chain,
        vec![create(
            0,
            0,
            deployer(&[0x36, 0x5f, 0x5f, 0x37, 0x36, 0x5f, 0xfd]),
            200_000,
        )],
    );
    let contract = wallet(0).address().create(0);
    let data = Bytes::from(alloy::sol_types::Revert::from("no stake").abi_encode());
    let request = json!([{ "from": wallet(1).address(), "to": contract, "data": data }]);
    for method in ["eth_call", "eth_estimateGas"] {
        let error = node.fail(method, request.clone()).await;
        assert_eq!(error["code"], 3);
        assert_eq!(error["message"], "execution reverted: no stake");
        assert_eq!(error["data"], json!(data));
    }
    let raw = call(1, 0, contract, data.clone(), 100_000);
    let error = node.fail("eth_sendRawTransaction", json!([raw])).await;
    assert_eq!((&error["code"], &error["data"]), (&json!(3), &json!(data)));
}

#[tokio::test]
async fn rejects_malformed_input_with_a_clear_error() {
    let node = Node::start(1).await;
    let error = node.fail("eth_sendRawTransaction", json!(["0xdeadbeef"])).await;
    assert_eq!(error["code"], -32000);
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .starts_with("malformed transaction"),
        "{error}"
    );
    assert_eq!(
        node.fail("eth_sendRawTransaction", json!(["nonsense"])).await["code"],
        -32602
    );
    assert_eq!(node.fail("eth_getBalance", json!(["0x12"])).await["code"], -32602);
    assert_eq!(node.fail("eth_getBalance", json!([])).await["code"], -32602);
    assert_eq!(node.fail("eth_noSuchThing", json!([])).await["code"], -32601);
    let wrong = sign(
        &wallet(0),
        alloy::consensus::TxEip1559 {
            chain_id: 5,
            ..blank(0, TO)
        },
    );
    let error = node.fail("eth_sendRawTransaction", json!([wrong])).await;
    assert!(
        error["message"].as_str().unwrap().contains("invalid chain id"),
        "{error}"
    );
}

#[tokio::test]
async fn logs_filters_and_proofs() {
    let node = Node::start(1).await;
    let provider = ProviderBuilder::new().connect_http(node.url().parse().unwrap());
    // Logs calldata word 0 as a topic: PUSH0 CALLDATALOAD PUSH0 PUSH0 LOG1
    mine(
        &node.chain,
        vec![create(0, 0, deployer(&[0x5f, 0x35, 0x5f, 0x5f, 0xa1]), 200_000)],
    );
    let contract = wallet(0).address().create(0);
    let block_filter = node.ask("eth_newBlockFilter", json!([])).await;
    let log_filter = node.ask("eth_newFilter", json!([{ "address": contract }])).await;
    for n in 0..3u8 {
        mine(
            &node.chain,
            vec![call(0, 1 + u64::from(n), contract, vec![n; 32], 60_000)],
        );
    }
    let all = provider
        .get_logs(&Filter::new().address(contract).from_block(0))
        .await
        .unwrap();
    assert_eq!(all.len(), 3);
    assert_eq!(all[2].block_number, Some(4));
    assert!(all[2].transaction_hash.is_some());
    let some = Filter::new().from_block(0).event_signature(B256::repeat_byte(1));
    assert_eq!(provider.get_logs(&some).await.unwrap().len(), 1);
    let at = Filter::new().at_block_hash(node.chain.head().0);
    assert_eq!(provider.get_logs(&at).await.unwrap().len(), 1);
    assert_eq!(
        node.ask("eth_getFilterChanges", json!([block_filter]))
            .await
            .as_array()
            .unwrap()
            .len(),
        3
    );
    assert_eq!(
        node.ask("eth_getFilterChanges", json!([log_filter]))
            .await
            .as_array()
            .unwrap()
            .len(),
        3
    );
    assert_eq!(
        node.ask("eth_getFilterChanges", json!([log_filter]))
            .await
            .as_array()
            .unwrap()
            .len(),
        0
    );
    assert_eq!(
        node.ask("eth_uninstallFilter", json!([log_filter])).await,
        json!(true)
    );
    node.fail("eth_getFilterChanges", json!([log_filter])).await;
    let proof = provider.get_proof(contract, vec![B256::ZERO]).await.unwrap();
    let state_root = node.chain.head().1.state_root;
    assert_eq!(keccak256(&proof.account_proof[0]), state_root);
    node.fail("eth_getLogs", json!([{ "fromBlock": "0x3", "toBlock": "0x1" }]))
        .await;
}

#[tokio::test]
async fn fees_are_advice_that_the_mempool_takes() {
    let node = Node::start(1).await;
    let tip = node.ask("eth_maxPriorityFeePerGas", json!([])).await;
    assert_eq!(tip, json!(U256::from(GWEI / 10 + GWEI / 40)));
    let history = node
        .ask("eth_feeHistory", json!(["0x4", "latest", [20.0, 50.0]]))
        .await;
    assert_eq!(history["reward"][0][0], tip);
    assert_eq!(history["baseFeePerGas"].as_array().unwrap().len(), 2);
    let price = node.ask("eth_gasPrice", json!([])).await;
    let price: U256 = serde_json::from_value(price).unwrap();
    let tx = alloy::consensus::TxEip1559 {
        max_fee_per_gas: price.to(),
        max_priority_fee_per_gas: price.to(),
        ..blank(0, TO)
    };
    node.ask("eth_sendRawTransaction", json!([sign(&wallet(0), tx)]))
        .await;
    node.fail("eth_feeHistory", json!(["0x4", "latest", [50.0, 20.0]]))
        .await;
}

#[tokio::test]
async fn batches_web3_and_browser_pages() {
    let node = Node::start(1).await;
    let call = |id: u32, method: &str| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": [] });
    let batch = node
        .post(json!([
            call(1, "eth_chainId"),
            call(2, "net_version"),
            call(3, "eth_blockNumber")
        ]))
        .await;
    let results: Vec<_> = batch
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["result"].clone())
        .collect();
    assert_eq!(results, [json!("0x56c8"), json!("22216"), json!("0x0")]);
    assert_eq!(node.ask("eth_syncing", json!([])).await, json!(false));
    assert_eq!(node.ask("eth_accounts", json!([])).await, json!([]));
    assert_eq!(node.ask("web3_sha3", json!(["0x"])).await, json!(keccak256([])));
    let client = reqwest::Client::new();
    let preflight = client
        .request(reqwest::Method::OPTIONS, node.url())
        .header("Origin", "http://example.org")
        .header("Access-Control-Request-Method", "POST")
        .send()
        .await
        .unwrap();
    assert!(preflight.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn a_batch_cannot_buy_more_gas_than_a_request_has() {
    let node = Node::start(1).await;
    // JUMPDEST GAS DUP1 SSTORE PUSH0 JUMP: takes all gas that there is.
    let greedy = json!({ TO.to_string(): { "code": "0x5b5a80555f56" } });
    let call = |id: u64| json!({ "jsonrpc": "2.0", "id": id, "method": "eth_call", "params": [{ "to": TO }, "latest", greedy] });
    let answers = node.post((0..6).map(call).collect()).await;
    let codes: Vec<i64> = answers
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["error"]["code"].as_i64().unwrap())
        .collect();
    assert_eq!(
        codes,
        [-32000, -32000, -32000, -32000, -32005, -32005],
        "{answers}"
    );
    assert_eq!(
        node.post(call(7)).await["error"]["code"],
        -32000,
        "another request"
    );
}

#[tokio::test]
async fn the_way_of_a_transaction_is_told() {
    let node = Node::start(2).await;
    let status = node.ask("bitai_status", json!([])).await;
    assert_eq!(
        (&status["network"], &status["height"]),
        (&json!("regtest"), &json!(0))
    );
    assert_eq!(status["inscriberSats"], json!(5_000));
    let tx = transfer(0, 0, TO, 1, 2);
    let accepted = node.ask("bitai_sendTransactions", json!([[tx]])).await;
    assert_eq!(accepted[0]["txHash"], json!(keccak256(&tx)));
    let stage = || async { node.ask("bitai_getInscription", json!([keccak256(&tx)])).await };
    assert_eq!(stage().await["stage"], "mempool");
    node.mempool.inscribed(&[keccak256(&tx)], B256::repeat_byte(0x4e));
    assert_eq!(stage().await["stage"], "broadcast");
    // One runs, one is dropped for its nonce.
    let loser = transfer(0, 0, TO, 2, 1);
    mine(&node.chain, vec![tx.clone(), loser.clone()]);
    let executed = stage().await;
    assert_eq!(
        (&executed["stage"], &executed["bitcoinHeight"]),
        (&json!("executed"), &json!(1))
    );
    let dropped = node.ask("bitai_getInscription", json!([keccak256(&loser)])).await;
    assert_eq!(dropped["stage"], "dropped");
    assert_eq!(
        node.ask("bitai_getInscription", json!([B256::ZERO])).await,
        Value::Null
    );
}

#[tokio::test]
async fn a_trace_shows_the_calls_inside() {
    let node = Node::start(1).await;
    // Inner: reverts with nothing. Outer: calls inner (address patched in below), ignores the answer.
    mine(
        &node.chain,
        vec![create(0, 0, deployer(&[0x5f, 0x5f, 0xfd]), 200_000)],
    );
    let inner = wallet(0).address().create(0);
    // PUSH0 x5 PUSH20 inner GAS CALL
    let mut code = vec![0x5f, 0x5f, 0x5f, 0x5f, 0x5f, 0x73];
    code.extend_from_slice(inner.as_slice());
    code.extend_from_slice(&[0x5a, 0xf1]);
    mine(&node.chain, vec![create(0, 1, deployer(&code), 200_000)]);
    let outer = wallet(0).address().create(1);
    let tx = call(0, 2, outer, Bytes::new(), 100_000);
    mine(&node.chain, vec![tx.clone()]);
    mine(&node.chain, vec![]);
    let trace = node
        .ask(
            "debug_traceTransaction",
            json!([keccak256(&tx), { "tracer": "callTracer" }]),
        )
        .await;
    assert_eq!((&trace["type"], &trace["to"]), (&json!("CALL"), &json!(outer)));
    assert!(trace.get("error").is_none());
    assert_eq!(trace["calls"][0]["to"], json!(inner));
    assert_eq!(trace["calls"][0]["error"], "execution reverted");
    let receipt = node
        .ask("eth_getTransactionReceipt", json!([keccak256(&tx)]))
        .await;
    assert_eq!(receipt["gasUsed"], trace["gasUsed"]);
    assert_eq!(
        node.fail("debug_traceTransaction", json!([keccak256(&tx)])).await["code"],
        -32602
    );
}

#[tokio::test]
async fn websocket_subscribers_hear_of_heads_logs_and_reorgs() {
    let node = Node::start(1).await;
    mine(
        &node.chain,
        vec![create(0, 0, deployer(&[0x5f, 0x35, 0x5f, 0x5f, 0xa1]), 200_000)],
    );
    let contract = wallet(0).address().create(0);
    let mut heads = Socket::open(node.handle.addr()).await;
    heads
        .send(json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"] }))
        .await;
    let id = heads.receive().await["result"].clone();
    assert!(id.as_str().unwrap().starts_with("0x"));
    let mut logs = Socket::open(node.handle.addr()).await;
    logs.send(json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["logs", {}] }))
        .await;
    logs.receive().await;
    mine(&node.chain, vec![call(0, 1, contract, vec![7; 32], 60_000)]);
    let head = heads.receive().await;
    assert_eq!(
        (&head["method"], &head["params"]["subscription"]),
        (&json!("eth_subscription"), &id)
    );
    assert_eq!(head["params"]["result"]["hash"], json!(node.chain.head().0));
    let log = logs.receive().await;
    assert_eq!(log["params"]["result"]["topics"][0], json!(B256::repeat_byte(7)));
    assert_eq!(log["params"]["result"]["removed"], json!(false));
    node.chain.rewind(1).unwrap();
    let gone = logs.receive().await;
    assert_eq!(gone["params"]["result"]["removed"], json!(true));
    logs.send(json!({ "jsonrpc": "2.0", "id": 2, "method": "eth_subscribe", "params": ["moonPhase"] }))
        .await;
    assert_eq!(logs.receive().await["error"]["code"], -32602);
}
