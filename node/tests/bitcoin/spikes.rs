//! The inscriber with a real ledger and mempool: fees that rise past what was funded, on both backends, and
//! transactions that a block dropped.

use crate::bitcoind::Bitcoind;
use crate::eth::{GWEI, blank, genesis, sign, transfer, wallet};
use crate::wallet::{keys, output, spend};
use alloy_primitives::{Address, B256, Bytes};
use bitai_node::bitcoin::assemble::mine_on;
use bitai_node::bitcoin::{Backend, SatPerKvb, TxStatus};
use bitai_node::envelope::Header;
use bitai_node::indexer::{Indexer, Ledger};
use bitai_node::inscriber::Inscriber;
use bitai_node::inscriber::price::{PriceConfig, Pricer};
use bitai_node::inscriber::source::{BatchRecord, InscriberView};
use bitai_node::mempool::Mempool;
use bitai_node::state::Chain;
use bitcoin::hashes::Hash;
use bitcoin::{Amount, Transaction, Txid};
use std::sync::Arc;

const TO: Address = Address::repeat_byte(0xcc);
/// Of whom no coin is counted.
const NOBODY: u8 = 9;

struct Rig {
    dir: tempfile::TempDir,
    backend: Arc<dyn Backend>,
    chain: Arc<Chain>,
    mempool: Arc<Mempool>,
    indexer: Indexer,
    tag: u64,
}

impl Rig {
    /// On a chain of 101 blocks of which the first pays the inscriber, or whose coins are `coins` of that
    /// many satoshis.
    fn new(backend: Arc<dyn Backend>, coins: Option<(u64, u64)>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let payee = if coins.is_some() { keys(NOBODY) } else { keys(1) };
        backend.generate(1, &payee.script()).unwrap();
        backend.generate(100, &keys(NOBODY).script()).unwrap();
        if let Some((count, sats)) = coins {
            let hash = backend.hash_at(1).unwrap().unwrap();
            let coin = output(&backend.block(&hash).unwrap().unwrap().txdata[0], 0);
            let mut tx = spend(&payee, std::slice::from_ref(&coin), 1_000_000, count);
            for out in &mut tx.output {
                out.value = Amount::from_sat(sats);
                out.script_pubkey = keys(1).script();
            }
            payee.sign_funds(&mut tx, 0, &[coin.1]);
            let tip = backend.tip().unwrap().hash;
            mine_on(&*backend, &tip, vec![tx], &keys(NOBODY).script(), 1).unwrap();
        }
        let chain = Chain::open(dir.path().join("state.redb"), genesis(2)).unwrap();
        let free = Pricer::new(PriceConfig {
            wei_per_sat: 1,
            ..PriceConfig::default()
        });
        let mempool = Mempool::open(
            dir.path().join("mempool.redb"),
            Arc::clone(&chain),
            Arc::new(free),
        )
        .unwrap();
        let ledger: Arc<dyn Ledger> = Arc::clone(&chain) as _;
        let mut indexer = Indexer::new(Arc::clone(&backend), ledger, chain.genesis().id());
        indexer.catch_up().unwrap();
        Self {
            dir,
            backend,
            chain,
            mempool,
            indexer,
            tag: 1000,
        }
    }

    /// An inscriber that bids `rate` sat per 1,000 vB, ticked once.
    fn inscriber(&self, rate: u64) -> Inscriber {
        let price = PriceConfig {
            rate_min: rate,
            // Core has no estimate on regtest.
            rate_fallback: rate,
            ..PriceConfig::default()
        };
        let header = Header {
            genesis_id: self.chain.genesis().id(),
            fee_recipient: Address::repeat_byte(0xee),
        };
        let mut inscriber = Inscriber::open(
            &self.dir.path().join("inscriber.redb"),
            0,
            keys(1),
            header,
            Arc::clone(&self.backend),
            Arc::clone(&self.mempool) as _,
            Arc::new(Pricer::new(price)),
        )
        .unwrap();
        inscriber.tick().unwrap();
        inscriber
    }

    /// Mines a block of these transactions alone.
    fn mine_only(&mut self, txs: Vec<Transaction>) {
        self.tag += 1;
        let tip = self.backend.tip().unwrap().hash;
        mine_on(&*self.backend, &tip, txs, &keys(NOBODY).script(), self.tag).unwrap();
        self.indexer.catch_up().unwrap();
    }

    /// Blocks that take nothing from the pool.
    fn linger(&mut self, blocks: u32) {
        (0..blocks).for_each(|_| self.mine_only(vec![]));
    }

    fn mine(&mut self) {
        self.backend.generate(1, &keys(NOBODY).script()).unwrap();
        self.indexer.catch_up().unwrap();
    }

    fn nonce(&self, n: u8) -> u64 {
        let account = self.chain.view().unwrap().account(wallet(n).address()).unwrap();
        account.map_or(0, |a| a.nonce)
    }

    /// What the pool has of these txids.
    fn waiting(&self, txids: &[Txid]) -> usize {
        let status = |t: &&Txid| self.backend.tx_status(t).unwrap() == TxStatus::Pool;
        txids.iter().filter(status).count()
    }
}

/// A transfer with so much calldata that does not compress.
fn bulky(from: u8, nonce: u64, bytes: usize) -> Bytes {
    let mut input = vec![0; bytes];
    blake3::Hasher::new()
        .update(&[from])
        .update(&nonce.to_le_bytes())
        .finalize_xof()
        .fill(&mut input);
    let mut tx = blank(nonce, TO);
    tx.input = input.into();
    tx.gas_limit = 100_000 + 41 * bytes as u64;
    tx.max_priority_fee_per_gas = GWEI;
    sign(&wallet(from), tx)
}

fn txid(hash: B256) -> Txid {
    Txid::from_byte_array(hash.0)
}

fn record(inscriber: &Inscriber, hash: B256) -> BatchRecord {
    inscriber.view().record(hash).unwrap()
}

fn pays(record: &BatchRecord, rate: u64) -> bool {
    record.fee_sats >= SatPerKvb(rate).fee(record.vbytes)
}

/// The quote rises twentyfold while a batch waits: it pays that, and the next batch does not wait for it.
fn a_rise_is_followed(backend: Arc<dyn Backend>) {
    let mut rig = Rig::new(backend, None);
    let hash = rig.mempool.submit(&transfer(0, 0, TO, 1, 2)).unwrap();
    let inscriber = rig.inscriber(1_000);
    let first = record(&inscriber, hash);
    assert!(pays(&first, 1_000) && !pays(&first, 4_000));
    rig.linger(3);
    drop(inscriber);
    let mut inscriber = rig.inscriber(20_000);
    let second = record(&inscriber, hash);
    assert!(pays(&second, 20_000), "{second:?}");
    assert_eq!(
        rig.waiting(&[txid(second.commit_txid), txid(second.reveal_txid)]),
        2
    );
    rig.mine();
    inscriber.tick().unwrap();
    assert_eq!(rig.nonce(0), 1);
    assert_eq!(record(&inscriber, hash).reveal_txid, second.reveal_txid);
    assert_eq!(
        inscriber.view().balance_sats(),
        50 * 100_000_000 - second.fee_sats
    );
}

/// Commit and reveal are over the cluster limit together: the commit waits alone, and is replaced alone.
fn a_commit_too_large_for_its_reveal_is_replaced(backend: Arc<dyn Backend>) {
    let mut rig = Rig::new(backend, Some((150, 10_000)));
    let hash = rig.mempool.submit(&bulky(0, 0, 393_000)).unwrap();
    let inscriber = rig.inscriber(1_000);
    let first = record(&inscriber, hash);
    assert!(first.vbytes > 101_000, "{first:?}");
    assert_eq!(
        rig.waiting(&[txid(first.commit_txid), txid(first.reveal_txid)]),
        1
    );
    rig.linger(3);
    drop(inscriber);
    let mut inscriber = rig.inscriber(2_500);
    let second = record(&inscriber, hash);
    assert_ne!(second.commit_txid, first.commit_txid);
    assert!(pays(&second, 2_500), "{second:?}");
    assert_eq!(rig.waiting(&[txid(first.commit_txid)]), 0);
    assert_eq!(
        rig.waiting(&[txid(second.commit_txid), txid(second.reveal_txid)]),
        1
    );
    rig.mine();
    inscriber.tick().unwrap();
    rig.mine();
    inscriber.tick().unwrap();
    assert_eq!(rig.nonce(0), 1);
}

#[test]
fn bitcoin_core_takes_a_batch_that_follows_a_rise() {
    let Some(node) = Bitcoind::start() else {
        return;
    };
    a_rise_is_followed(Arc::new(node.client()));
}

#[test]
fn bitcoin_core_takes_a_dearer_commit_that_travels_alone() {
    let Some(node) = Bitcoind::start() else {
        return;
    };
    a_commit_too_large_for_its_reveal_is_replaced(Arc::new(node.client()));
}

#[test]
fn a_batch_that_the_pool_no_longer_keeps_gets_a_new_commit() {
    let Some(mut node) = Bitcoind::start() else {
        return;
    };
    let mut rig = Rig::new(Arc::new(node.client()), None);
    let first = rig.mempool.submit(&transfer(0, 0, TO, 1, 2)).unwrap();
    let mut inscriber = rig.inscriber(1_000);
    // A second batch leans on the change of the first.
    let second = rig.mempool.submit(&transfer(0, 1, TO, 1, 2)).unwrap();
    inscriber.tick().unwrap();
    let was = record(&inscriber, first);
    assert_eq!(rig.backend.pool_len().unwrap(), 4);
    // As when the pool filled with dearer transactions: what is there goes, and it takes nothing so cheap.
    drop(inscriber);
    node.restart(&["-persistmempool=0", "-minrelaytxfee=0.0001"]);
    rig.backend = Arc::new(node.client());
    let ledger: Arc<dyn Ledger> = Arc::clone(&rig.chain) as _;
    rig.indexer = Indexer::new(Arc::clone(&rig.backend), ledger, rig.chain.genesis().id());
    rig.linger(1);
    let mut inscriber = rig.inscriber(20_000);
    let now = record(&inscriber, first);
    assert_ne!(now.commit_txid, was.commit_txid);
    assert_eq!(rig.waiting(&[txid(now.commit_txid), txid(now.reveal_txid)]), 2);
    rig.mine();
    // What leaned on the old change is inscribed anew.
    inscriber.tick().unwrap();
    inscriber.tick().unwrap();
    rig.mine();
    inscriber.tick().unwrap();
    assert_eq!(rig.nonce(0), 2);
    assert!(record(&inscriber, second).bitcoin_height.is_some());
}

#[cfg(feature = "embedded-bitcoin")]
mod embedded {
    use super::*;
    use bitai_node::bitcoin::embedded::EmbeddedRegtest;

    fn embedded() -> (tempfile::TempDir, Arc<dyn Backend>) {
        let dir = tempfile::tempdir().unwrap();
        let chain = EmbeddedRegtest::open(dir.path()).unwrap();
        (dir, Arc::new(chain))
    }

    #[test]
    fn a_batch_follows_a_rise() {
        let (_dir, backend) = embedded();
        a_rise_is_followed(backend);
    }

    #[test]
    fn a_dearer_commit_travels_alone() {
        let (_dir, backend) = embedded();
        a_commit_too_large_for_its_reveal_is_replaced(backend);
    }

    /// The inscribed transactions of the newest batch that wait in the pool, by BitAI transaction.
    fn reveal(rig: &Rig, inscriber: &Inscriber, hash: B256, sent: &Sent) -> Transaction {
        let id = txid(record(inscriber, hash).reveal_txid);
        assert_eq!(rig.waiting(&[id]), 1);
        sent.get(&id)
    }

    /// Remembers what is offered to the pool, so that tests can mine some of it.
    struct Sent {
        inner: Arc<dyn Backend>,
        txs: std::sync::Mutex<std::collections::BTreeMap<Txid, Transaction>>,
    }

    impl Sent {
        fn get(&self, txid: &Txid) -> Transaction {
            self.txs.lock().unwrap()[txid].clone()
        }
    }

    impl Backend for Sent {
        fn submit(
            &self,
            tx: &Transaction,
            max: SatPerKvb,
        ) -> Result<bitai_node::bitcoin::Submitted, bitai_node::bitcoin::BackendError> {
            self.txs.lock().unwrap().insert(tx.compute_txid(), tx.clone());
            self.inner.submit(tx, max)
        }
        fn network(&self) -> bitcoin::Network {
            self.inner.network()
        }
        fn tip(&self) -> Result<bitai_node::bitcoin::BlockRef, bitai_node::bitcoin::BackendError> {
            self.inner.tip()
        }
        fn hash_at(
            &self,
            height: u64,
        ) -> Result<Option<bitcoin::BlockHash>, bitai_node::bitcoin::BackendError> {
            self.inner.hash_at(height)
        }
        fn header(
            &self,
            hash: &bitcoin::BlockHash,
        ) -> Result<Option<bitai_node::bitcoin::HeaderInfo>, bitai_node::bitcoin::BackendError> {
            self.inner.header(hash)
        }
        fn block(
            &self,
            hash: &bitcoin::BlockHash,
        ) -> Result<Option<bitcoin::Block>, bitai_node::bitcoin::BackendError> {
            self.inner.block(hash)
        }
        fn tx_status(&self, txid: &Txid) -> Result<TxStatus, bitai_node::bitcoin::BackendError> {
            self.inner.tx_status(txid)
        }
        fn fee_rate(&self, blocks: u16) -> Result<Option<SatPerKvb>, bitai_node::bitcoin::BackendError> {
            self.inner.fee_rate(blocks)
        }
        fn pool_len(&self) -> Result<u64, bitai_node::bitcoin::BackendError> {
            self.inner.pool_len()
        }
        fn generate(
            &self,
            blocks: u32,
            to: &bitcoin::Script,
        ) -> Result<Vec<bitcoin::BlockHash>, bitai_node::bitcoin::BackendError> {
            self.inner.generate(blocks, to)
        }
        fn submit_block(&self, block: &bitcoin::Block) -> Result<(), bitai_node::bitcoin::BackendError> {
            self.inner.submit_block(block)
        }
    }

    fn watched() -> (tempfile::TempDir, Arc<Sent>) {
        let (dir, inner) = embedded();
        let sent = Sent {
            inner,
            txs: Default::default(),
        };
        (dir, Arc::new(sent))
    }

    #[test]
    fn a_dropped_transaction_is_inscribed_again_at_once() {
        let (_dir, sent) = watched();
        let mut rig = Rig::new(Arc::clone(&sent) as _, None);
        let first = rig.mempool.submit(&transfer(0, 0, TO, 1, 2)).unwrap();
        let mut inscriber = rig.inscriber(1_000);
        let second = rig.mempool.submit(&transfer(0, 1, TO, 1, 2)).unwrap();
        inscriber.tick().unwrap();
        // A block takes the second batch's reveal and leaves the first's: the second transaction has a gap
        // below it and is dropped.
        let commits = [first, second].map(|hash| sent.get(&txid(record(&inscriber, hash).commit_txid)));
        let late = reveal(&rig, &inscriber, second, &sent);
        let lost = record(&inscriber, second).reveal_txid;
        rig.mine_only(commits.into_iter().chain([late]).collect());
        inscriber.tick().unwrap();
        let again = record(&inscriber, second);
        assert_ne!(again.reveal_txid, lost);
        assert_eq!(again.bitcoin_height, None);
        rig.mine();
        inscriber.tick().unwrap();
        assert_eq!(rig.nonce(0), 2);
        assert_eq!(rig.mempool.counts(), (0, 0));
    }

    #[test]
    fn a_dropped_transaction_of_one_part_does_not_wait_for_the_other_part() {
        let (_dir, sent) = watched();
        let mut rig = Rig::new(Arc::clone(&sent) as _, None);
        let first = rig.mempool.submit(&bulky(0, 0, 250_000)).unwrap();
        let second = rig.mempool.submit(&bulky(0, 1, 250_000)).unwrap();
        let mut inscriber = rig.inscriber(1_000);
        let commit = record(&inscriber, first).commit_txid;
        assert_eq!(
            record(&inscriber, second).commit_txid,
            commit,
            "one batch, two parts"
        );
        rig.mine_only(vec![sent.get(&txid(commit))]);
        inscriber.tick().unwrap();
        let late = reveal(&rig, &inscriber, second, &sent);
        rig.mine_only(vec![late]);
        assert_eq!(rig.nonce(0), 0);
        for restart in [false, true] {
            if restart {
                drop(inscriber);
                inscriber = rig.inscriber(1_000);
            } else {
                inscriber.tick().unwrap();
            }
            let again = record(&inscriber, second);
            assert_eq!(again.bitcoin_height, None, "inscribed anew; restart {restart}");
            assert_ne!(again.commit_txid, commit);
        }
        rig.mine();
        inscriber.tick().unwrap();
        rig.mine();
        assert_eq!(rig.nonce(0), 2);
    }
}
