//! A neuron against a node whose price and mempool the test moves, and on a device that fails.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use alloy::{
    consensus::{Transaction, TxEnvelope},
    eips::eip2718::Decodable2718,
    signers::local::PrivateKeySigner,
};
use alloy_primitives::{Address, B256, Bytes, U256};
use bitai_contracts::{JobStatus, SlotState};
use bitai_kernels::{
    Device, DeviceInfo, Hash, HostTensor, KernelError, Probe, Program, ReferenceDevice, Runner, SeqId,
    SeqStep, Trace,
};
use bitai_model::synthetic::{self, Shape};
use bitai_poc::{Header, Transcript};
use bitai_types::{Job, Sampler};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{Computer, Neuron, compute::Computed, submit::Standing};
use crate::{
    chain::{Hub, Sender, send::Call},
    config::Chain,
    journal::{Entry, Journal, Step},
    stake,
};

const HUB: Address = Address::repeat_byte(5);
const CHAIN: u64 = 22216;

/// A node with a mempool of one transaction a nonce, and the rules of ours: it asks a price, and takes another
/// transaction of a nonce only for a tenth more on both fees.
#[derive(Default)]
struct Market {
    quote: u128,
    pool: Option<TxEnvelope>,
    in_flight: bool,
    executed: bool,
    refuses: Option<&'static str>,
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

type Shared = Arc<Mutex<Market>>;

/// Answers one JSON-RPC request a connection.
async fn serve(mut stream: TcpStream, market: Shared) {
    let mut bytes = Vec::new();
    let body = loop {
        let mut piece = [0; 4096];
        let n = stream.read(&mut piece).await.unwrap_or(0);
        if n == 0 {
            return;
        }
        bytes.extend_from_slice(&piece[..n]);
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        let Some(end) = text.find("\r\n\r\n") else {
            continue;
        };
        let length = text[..end].split("content-length: ").nth(1).unwrap();
        let length: usize = length.split("\r\n").next().unwrap().trim().parse().unwrap();
        if bytes.len() >= end + 4 + length {
            break bytes[end + 4..end + 4 + length].to_vec();
        }
    };
    let request: Value = serde_json::from_slice(&body).unwrap();
    let answer = market
        .lock()
        .unwrap()
        .answer(request["method"].as_str().unwrap(), &request["params"]);
    let mut reply = json!({ "jsonrpc": "2.0", "id": request["id"] });
    match answer {
        Ok(result) => reply["result"] = result,
        Err(message) => reply["error"] = json!({ "code": -32000, "message": message }),
    }
    let reply = reply.to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        reply.len()
    );
    let _ = stream.write_all((head + &reply).as_bytes()).await;
}

async fn node() -> (Shared, Hub) {
    let market = Shared::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let state = Arc::clone(&market);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&state)));
        }
    });
    let chain = Chain {
        nodes: vec![url],
        chain_id: Some(CHAIN),
        hub: Some(HUB),
        registry: None,
    };
    (market, Hub::connect(&chain).await.unwrap())
}

fn job(model_root: B256) -> Job {
    Job {
        model_root,
        spec_version: 0,
        input_ids: vec![1, 2, 3],
        max_new: 2,
        stop_ids: vec![],
        sampler: Sampler::GREEDY,
        seed: 0,
    }
}

/// A neuron with one open job and no model, on the journal in `dir`.
fn neuron(dir: &std::path::Path, hub: &Hub, model_root: B256) -> Neuron {
    let signer = PrivateKeySigner::from_bytes(&B256::repeat_byte(3)).unwrap();
    let sender = Sender::new(Arc::clone(hub.node()), signer);
    let mut journal = Journal::open(&dir.join("journal"), CHAIN, HUB, sender.address()).unwrap();
    if journal.get(&U256::ONE).is_none() {
        journal
            .put(Entry::new(CHAIN, HUB, U256::ONE, job(model_root)))
            .unwrap();
    }
    Neuron {
        hub: hub.clone(),
        sender,
        journal,
        computers: Default::default(),
        results: tokio::sync::mpsc::unbounded_channel().1,
        names: Default::default(),
        receipts: dir.join("receipts"),
        computing: Default::default(),
        faults: Default::default(),
        height: 1,
    }
}

fn commit(neuron: &Neuron) -> Call {
    neuron
        .hub
        .commit(U256::ONE, B256::repeat_byte(1), B256::repeat_byte(2))
}

async fn submit(neuron: &mut Neuron) {
    let call = commit(neuron);
    neuron.submit(U256::ONE, Step::Commit, 0, call).await.unwrap();
}

/// What waits in the mempool: hash and tip. The journal must say the same.
fn waiting(neuron: &Neuron, market: &Shared) -> (B256, u128) {
    let market = market.lock().unwrap();
    let tx = market.pool.as_ref().unwrap();
    let noted = &neuron.journal.get(&U256::ONE).unwrap().sent[&Step::Commit];
    assert_eq!(noted.hash, *tx.tx_hash(), "the journal knows what waits");
    assert_eq!(noted.nonce, tx.nonce());
    (*tx.tx_hash(), tx.max_priority_fee_per_gas().unwrap())
}

#[tokio::test]
async fn a_step_that_waits_pays_more_once_the_price_has_risen() {
    let dir = tempfile::tempdir().unwrap();
    let (market, hub) = node().await;
    let mut n = neuron(dir.path(), &hub, B256::ZERO);
    market.lock().unwrap().quote = 100;
    submit(&mut n).await;
    let first = waiting(&n, &market);
    assert_eq!(first.1, 125, "a quarter above the price");
    submit(&mut n).await;
    market.lock().unwrap().quote = 120;
    submit(&mut n).await;
    assert_eq!(waiting(&n, &market), first, "it still pays enough");

    market.lock().unwrap().quote = 1000;
    submit(&mut n).await;
    let second = waiting(&n, &market);
    assert!(second.0 != first.0 && second.1 >= 1000, "{second:?}");
    submit(&mut n).await;
    assert_eq!(waiting(&n, &market), second, "once for one rise");
    // A rise of little more than what is paid: still a tenth dearer, or no mempool takes it.
    market.lock().unwrap().quote = 1251;
    submit(&mut n).await;
    assert!(waiting(&n, &market).1 >= 1375);
}

#[tokio::test]
async fn a_neuron_that_dies_between_journal_and_mempool_sends_the_dearer_one_when_it_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (market, hub) = node().await;
    let mut n = neuron(dir.path(), &hub, B256::ZERO);
    market.lock().unwrap().quote = 100;
    submit(&mut n).await;
    market.lock().unwrap().quote = 1000;
    let old = n.journal.get(&U256::ONE).unwrap().sent[&Step::Commit].clone();
    let dearer = n.sender.dearer(&old).await.unwrap().unwrap();
    n.journal
        .update(&U256::ONE, |e| {
            e.sent.insert(Step::Commit, dearer.clone());
        })
        .unwrap();
    drop(n);

    let mut n = neuron(dir.path(), &hub, B256::ZERO);
    submit(&mut n).await;
    assert_eq!(waiting(&n, &market).0, dearer.hash);
    submit(&mut n).await;
    assert_eq!(waiting(&n, &market).0, dearer.hash);
}

#[tokio::test]
async fn a_transaction_that_is_already_being_inscribed_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (market, hub) = node().await;
    let mut n = neuron(dir.path(), &hub, B256::ZERO);
    market.lock().unwrap().quote = 100;
    submit(&mut n).await;
    let first = waiting(&n, &market);
    let old = n.journal.get(&U256::ONE).unwrap().sent[&Step::Commit].clone();
    // The inscriber takes it between the look and the sending.
    market.lock().unwrap().quote = 1000;
    market.lock().unwrap().in_flight = true;
    n.pay_more(U256::ONE, Step::Commit, old).await.unwrap();
    assert_eq!(
        waiting(&n, &market),
        first,
        "the journal holds what the node holds"
    );
    submit(&mut n).await;
    assert_eq!(waiting(&n, &market), first);
}

#[tokio::test]
async fn a_stake_on_its_way_is_seen_to_its_end_and_not_sent_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (market, hub) = node().await;
    let n = neuron(dir.path(), &hub, B256::ZERO);
    market.lock().unwrap().quote = 100;
    let call = hub.stake(U256::from(7));
    // The process dies right after it sent; then right before.
    for sent in [true, false] {
        *market.lock().unwrap() = Market {
            quote: 100,
            ..Default::default()
        };
        let note = &mut |s: &crate::journal::Signed| n.journal.set_stake(Some(s));
        let signed = n.sender.send_noted(&call, note).await.unwrap();
        if !sent {
            market.lock().unwrap().pool = None;
        }
        let inclusion = async {
            while market.lock().unwrap().pool.is_none() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            market.lock().unwrap().executed = true;
        };
        let (settled, ()) = tokio::join!(stake::settle(&hub, &n.sender, &n.journal), inclusion);
        settled.unwrap();
        assert_eq!(n.journal.stake().unwrap(), None);
        let market = market.lock().unwrap();
        assert_eq!(
            *market.pool.as_ref().unwrap().tx_hash(),
            signed.hash,
            "the same bytes"
        );
    }
}

#[tokio::test]
async fn a_stake_that_no_node_takes_any_more_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let (market, hub) = node().await;
    let n = neuron(dir.path(), &hub, B256::ZERO);
    let signed = n.sender.sign(&hub.stake(U256::from(7)), 0, 0).await.unwrap();
    n.journal.set_stake(Some(&signed)).unwrap();
    market.lock().unwrap().refuses = Some("insufficient funds");
    stake::settle(&hub, &n.sender, &n.journal).await.unwrap();
    assert_eq!(n.journal.stake().unwrap(), None);
}

/// A device whose steps fail until the count is used up.
struct Flaky(Arc<AtomicU32>);

struct FlakyRunner {
    inner: Box<dyn Runner>,
    fails: Arc<AtomicU32>,
}

impl Device for Flaky {
    fn info(&self) -> DeviceInfo {
        ReferenceDevice.info()
    }

    fn load(&self, program: Arc<Program>, tensors: &[HostTensor]) -> Result<Box<dyn Runner>, KernelError> {
        Ok(Box::new(FlakyRunner {
            inner: ReferenceDevice.load(program, tensors)?,
            fails: Arc::clone(&self.0),
        }))
    }
}

impl Runner for FlakyRunner {
    fn program(&self) -> &Program {
        self.inner.program()
    }

    fn open(&mut self, max_tokens: u32) -> Result<SeqId, KernelError> {
        self.inner.open(max_tokens)
    }

    fn close(&mut self, seq: SeqId) {
        self.inner.close(seq);
    }

    fn len(&self, seq: SeqId) -> Result<u32, KernelError> {
        self.inner.len(seq)
    }

    fn step(
        &mut self,
        batch: &[SeqStep<'_>],
        probe: Option<&mut dyn Probe>,
    ) -> Result<Vec<Vec<u32>>, KernelError> {
        let left = self.fails.load(Ordering::Relaxed);
        if left > 0 {
            self.fails.store(left - 1, Ordering::Relaxed);
            return Err(KernelError::Device {
                device: "flaky".into(),
                why: "the bus fell silent".into(),
            });
        }
        self.inner.step(batch, probe)
    }

    fn hash(&mut self, seq: SeqId) -> Result<(), KernelError> {
        self.inner.hash(seq)
    }

    fn take_bodies(&mut self, seq: SeqId, wait: bool) -> Result<(u32, Vec<Hash>), KernelError> {
        self.inner.take_bodies(seq, wait)
    }
}

fn committing(height: u64) -> Standing {
    Standing {
        status: JobStatus::Committing,
        slot: SlotState::Assigned,
        drawn: false,
        height,
        deadline: 10,
        disputes: 0,
    }
}

/// A neuron on a device that fails so many times.
async fn on_flaky_device(dir: &std::path::Path, fails: u32) -> Neuron {
    let (_, hub) = node().await;
    let pack = synthetic::pack(&Shape::tiny(), 7).unwrap();
    let root = B256::from(pack.root());
    let mut n = neuron(dir, &hub, root);
    let (done, results) = tokio::sync::mpsc::unbounded_channel();
    let device = Flaky(Arc::new(AtomicU32::new(fails)));
    n.computers
        .insert(root, Computer::start(&pack, &device, done).unwrap());
    n.results = results;
    n
}

/// Orders the job and takes what comes of it.
async fn compute(n: &mut Neuron) {
    let job = n.journal.get(&U256::ONE).unwrap().job.clone();
    n.compute(U256::ONE, &job, 10).unwrap();
    let done = n.results.recv().await.unwrap();
    n.take(done).unwrap();
}

#[tokio::test]
async fn a_job_is_tried_again_after_a_device_failed() {
    let dir = tempfile::tempdir().unwrap();
    let mut n = on_flaky_device(dir.path(), 1).await;
    compute(&mut n).await;
    let entry = n.journal.get(&U256::ONE).unwrap().clone();
    assert!(entry.answer.is_none() && entry.closed.is_none(), "{entry:?}");
    // Not at once: nothing is ordered during the pause.
    n.compute(U256::ONE, &entry.job, 10).unwrap();
    assert!(n.computing.is_empty());
    n.leave_if_too_late(U256::ONE, committing(9)).unwrap();
    assert!(
        n.journal.get(&U256::ONE).unwrap().closed.is_none(),
        "there is time"
    );
    tokio::time::sleep(super::RETRY_AFTER).await;
    compute(&mut n).await;
    assert_eq!(
        n.journal
            .get(&U256::ONE)
            .unwrap()
            .answer
            .as_ref()
            .unwrap()
            .output_ids
            .len(),
        2
    );
    assert!(n.faults.is_empty());
}

#[tokio::test]
async fn rejects_an_answer_that_the_hub_would_refuse() {
    let dir = tempfile::tempdir().unwrap();
    let mut n = on_flaky_device(dir.path(), 0).await;
    let job = n.journal.get(&U256::ONE).unwrap().job.clone();
    assert!(job.max_new > 1 && job.stop_ids.is_empty());
    let program = synthetic::pack(&Shape::tiny(), 7).unwrap().program();
    let mut transcript = Transcript::new(Header::new(&job, &program));
    let positions = job.input_ids.len() as u32;
    transcript.bodies(0, &vec![[1; 32]; positions as usize]);
    // One token, and neither a stop id nor the last that was asked for.
    transcript.sampled(positions - 1, 5);
    assert!(transcript.root().is_ok());
    n.take(Computed {
        job_id: U256::ONE,
        job_hash: job.hash(),
        result: Ok(transcript),
        took: Duration::from_secs(1),
    })
    .unwrap();
    let entry = n.journal.get(&U256::ONE).unwrap();
    assert!(entry.answer.is_none() && entry.closed.is_none(), "{entry:?}");
    assert!(
        n.faults[&U256::ONE].why.contains("ends neither"),
        "{}",
        n.faults[&U256::ONE].why
    );
}

#[tokio::test]
async fn a_job_is_left_with_its_reason_once_the_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut n = on_flaky_device(dir.path(), u32::MAX).await;
    compute(&mut n).await;
    n.leave_if_too_late(U256::ONE, committing(10)).unwrap();
    let closed = n.journal.get(&U256::ONE).unwrap().closed.clone().unwrap();
    assert!(
        closed.why.contains("left") && closed.why.contains("bus fell silent"),
        "{closed:?}"
    );
}
