//! The inscriber on the embedded regtest: kills at every write point, reorgs, replacement, several reveals.

use super::*;
use crate::bitcoin::assemble::mine_on;
use crate::bitcoin::embedded::EmbeddedRegtest;
use crate::envelope::scan;
use bitcoin::Network;
use std::sync::Mutex;

/// Satoshis of a regtest coinbase.
const COINBASE: u64 = 50 * 100_000_000;
const GENESIS_ID: [u8; 4] = [1, 2, 3, 4];
const HEADER: Header = Header {
    genesis_id: GENESIS_ID,
    fee_recipient: Address::repeat_byte(7),
};

/// A mempool as far as the inscriber sees it; outlives the inscriber like one on disk.
#[derive(Default)]
struct Source {
    txs: Mutex<Vec<(B256, Bytes, bool)>>,
    released: Mutex<Vec<B256>>,
}

impl Source {
    fn add(&self, tx: Bytes) {
        let hash = alloy_primitives::keccak256(&tx);
        self.txs.lock().unwrap().push((hash, tx, false));
    }
}

impl TxSource for Source {
    fn ready(&self, max_bytes: usize) -> Vec<(B256, Bytes)> {
        let mut left = max_bytes;
        let txs = self.txs.lock().unwrap();
        txs.iter()
            .filter(|(_, _, taken)| !taken)
            .take_while(|(_, tx, _)| {
                let fits = tx.len() <= left;
                left -= tx.len().min(left);
                fits
            })
            .map(|(hash, tx, _)| (*hash, tx.clone()))
            .collect()
    }

    fn inscribed(&self, hashes: &[B256], _reveal_txid: B256) {
        for (hash, _, taken) in self.txs.lock().unwrap().iter_mut() {
            *taken |= hashes.contains(hash);
        }
    }

    fn released(&self, hashes: &[B256]) {
        self.released.lock().unwrap().extend(hashes);
    }
}

struct Rig {
    dir: tempfile::TempDir,
    chain: Arc<EmbeddedRegtest>,
    source: Arc<Source>,
    pricer: Arc<Pricer>,
    keys: Keys,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let chain = Arc::new(EmbeddedRegtest::open(&dir.path().join("bitcoin")).unwrap());
        let rig = Self {
            dir,
            chain,
            source: Arc::default(),
            pricer: Arc::new(Pricer::new(price::PriceConfig::default())),
            keys: Keys::from_seed(&[5; 32], Network::Regtest),
        };
        rig.chain.generate(101, &rig.keys.script()).unwrap();
        rig
    }

    fn inscriber(&self) -> Inscriber {
        Inscriber::open(
            &self.dir.path().join("inscriber.redb"),
            0,
            self.keys.clone(),
            HEADER,
            Arc::clone(&self.chain) as _,
            Arc::clone(&self.source) as _,
            Arc::clone(&self.pricer),
        )
        .unwrap()
    }

    /// As a kill of the whole process: pool and all memory are gone.
    fn restart(&mut self) {
        let aside = tempfile::tempdir().unwrap();
        self.chain = Arc::new(EmbeddedRegtest::open(aside.path()).unwrap());
        self.chain = Arc::new(EmbeddedRegtest::open(&self.dir.path().join("bitcoin")).unwrap());
    }

    fn mine(&self, blocks: u32) {
        self.chain
            .generate(blocks, &Keys::from_seed(&[9; 32], Network::Regtest).script())
            .unwrap();
    }

    /// Every transaction inscribed on the best chain, in order.
    fn on_chain(&self) -> Vec<Bytes> {
        let tip = self.chain.tip().unwrap().height;
        (1..=tip)
            .flat_map(|height| {
                let hash = self.chain.hash_at(height).unwrap().unwrap();
                let block = self.chain.block(&hash).unwrap().unwrap();
                scan::block(&block, GENESIS_ID).envelopes
            })
            .flat_map(|e| e.txs)
            .collect()
    }
}

/// A record's hash as Bitcoin's.
fn txid(hash: B256) -> bitcoin::Txid {
    bitcoin::hashes::Hash::from_byte_array(hash.0)
}

fn noise(seed: u64, len: usize) -> Bytes {
    let mut out = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out.into()
}

/// Pays `factor` times the rate of the only batch; whether it did.
fn bump(inscriber: &Inscriber, factor: u64) -> bool {
    let live = inscriber.store.live().unwrap();
    let fate = inscriber.store.fate(&live[0]).unwrap();
    let rate = SatPerKvb(fate.current().rate * factor);
    let tip = inscriber.backend.tip().unwrap();
    inscriber
        .bump(&fate, &live, advance::Pushed::InPool, rate, tip)
        .unwrap()
}

/// What the chain itself says of the inscriber's coins.
fn coins_on_chain(rig: &Rig) -> u64 {
    let mut coins = BTreeMap::new();
    let tip = rig.chain.tip().unwrap().height;
    for height in 1..=tip {
        let hash = rig.chain.hash_at(height).unwrap().unwrap();
        for (i, tx) in rig.chain.block(&hash).unwrap().unwrap().txdata.iter().enumerate() {
            tx.input.iter().for_each(|input| {
                coins.remove(&input.previous_output);
            });
            for (vout, out) in (0u32..).zip(&tx.output) {
                let ripe = i > 0 || tip + 1 >= height + 100;
                if out.script_pubkey == rig.keys.script() && ripe {
                    let txid = tx.compute_txid();
                    coins.insert(bitcoin::OutPoint { txid, vout }, out.value.to_sat());
                }
            }
        }
    }
    coins.values().sum()
}

#[test]
fn a_batch_confirms_once_and_costs_what_its_record_says() {
    let rig = Rig::new();
    let mut inscriber = rig.inscriber();
    inscriber.tick().unwrap();
    let before = inscriber.view().balance_sats();
    // At height 101 the coinbases of blocks 1 and 2 may go into block 102.
    assert_eq!(before, 2 * COINBASE);
    let txs = [noise(1, 120), noise(2, 300)];
    txs.iter().for_each(|tx| rig.source.add(tx.clone()));
    inscriber.tick().unwrap();
    assert_eq!(rig.chain.pool_len().unwrap(), 2);
    let hash = alloy_primitives::keccak256(&txs[0]);
    let record = inscriber.view().record(hash).unwrap();
    assert_eq!((record.batch, record.bitcoin_height), (2, None));
    inscriber.tick().unwrap();
    assert_eq!(rig.chain.pool_len().unwrap(), 2);
    rig.mine(1);
    inscriber.tick().unwrap();
    assert_eq!(rig.on_chain(), txs);
    let record = inscriber.view().record(hash).unwrap();
    assert_eq!(record.bitcoin_height, Some(102));
    // Block 3's coinbase matured meanwhile.
    assert_eq!(inscriber.view().balance_sats(), 3 * COINBASE - record.fee_sats);
    assert!(record.fee_sats >= SatPerKvb(1_000).fee(record.vbytes));
    assert_eq!(inscriber.view().record(B256::ZERO), None);
}

#[test]
fn a_kill_at_any_write_point_neither_loses_nor_doubles() {
    for point in [
        Point::Signed,
        Point::Persisted,
        Point::Told,
        Point::CommitSent,
        Point::RevealSent,
    ] {
        for lose_pool in [false, true] {
            let mut rig = Rig::new();
            let txs = [noise(1, 120), noise(2, 300)];
            txs.iter().for_each(|tx| rig.source.add(tx.clone()));
            let mut inscriber = rig.inscriber();
            inscriber.stop_at = Some(point);
            assert!(matches!(inscriber.tick(), Err(InscriberError::Stopped(p)) if p == point));
            drop(inscriber);
            if lose_pool {
                rig.restart();
            }
            let mut inscriber = rig.inscriber();
            inscriber.tick().unwrap();
            inscriber.tick().unwrap();
            assert_eq!(rig.chain.pool_len().unwrap(), 2, "{point:?}");
            rig.mine(1);
            inscriber.tick().unwrap();
            assert_eq!(rig.on_chain(), txs, "{point:?}");
            let fee = inscriber
                .view()
                .record(alloy_primitives::keccak256(&txs[0]))
                .unwrap()
                .fee_sats;
            assert_eq!(inscriber.view().balance_sats(), 3 * COINBASE - fee, "{point:?}");
            assert_eq!(inscriber.store.next_id().unwrap(), 1, "{point:?}");
        }
    }
}

#[test]
fn a_reorg_that_removes_commit_and_reveal_brings_them_back() {
    for lose_pool in [false, true] {
        let mut rig = Rig::new();
        let mut inscriber = rig.inscriber();
        let fork = rig.chain.tip().unwrap();
        rig.source.add(noise(1, 200));
        inscriber.tick().unwrap();
        rig.mine(2);
        inscriber.tick().unwrap();
        assert_eq!(rig.on_chain().len(), 1);
        let mut at = fork.hash;
        for tag in 0..3 {
            at = mine_on(&*rig.chain, &at, vec![], &rig.keys.reveal_key_script(), 50 + tag).unwrap();
        }
        assert!(rig.on_chain().is_empty());
        drop(inscriber);
        if lose_pool {
            rig.restart();
        }
        let mut inscriber = rig.inscriber();
        inscriber.tick().unwrap();
        assert_eq!(rig.chain.pool_len().unwrap(), 2);
        rig.mine(1);
        inscriber.tick().unwrap();
        assert_eq!(rig.on_chain(), [noise(1, 200)]);
        assert!(rig.source.released.lock().unwrap().is_empty());
    }
}

#[test]
fn a_batch_whose_funds_a_reorg_took_is_given_back() {
    let rig = Rig::new();
    let mut inscriber = rig.inscriber();
    rig.source.add(noise(1, 200));
    inscriber.tick().unwrap();
    rig.mine(1);
    inscriber.tick().unwrap();
    // A longer chain from block 0, in which our coinbase never was.
    let mut at = rig.chain.hash_at(0).unwrap().unwrap();
    for tag in 0..104 {
        at = mine_on(&*rig.chain, &at, vec![], &rig.keys.reveal_key_script(), tag).unwrap();
    }
    assert_eq!(rig.chain.tip().unwrap().hash, at);
    inscriber.tick().unwrap();
    assert_eq!(
        *rig.source.released.lock().unwrap(),
        [alloy_primitives::keccak256(noise(1, 200))]
    );
    assert_eq!(inscriber.view().balance_sats(), 0);
    assert_eq!(
        inscriber
            .view()
            .record(alloy_primitives::keccak256(noise(1, 200))),
        None
    );
    rig.source.add(noise(2, 200));
    let error = inscriber.tick().unwrap_err();
    assert!(
        matches!(error, InscriberError::Build(BuildError::Funds { have: 0, .. })),
        "{error}"
    );
    // That is no reason to offer everything again before the next block.
    assert_eq!(inscriber.pushed_at, Some(rig.chain.tip().unwrap()));
}

#[test]
fn several_reveals_wait_for_the_commit() {
    let rig = Rig::new();
    let mut inscriber = rig.inscriber();
    let txs: Vec<Bytes> = (0..4).map(|i| noise(i, 250_000)).collect();
    txs.iter().for_each(|tx| rig.source.add(tx.clone()));
    inscriber.tick().unwrap();
    assert_eq!(rig.chain.pool_len().unwrap(), 1);
    rig.mine(1);
    assert!(rig.on_chain().is_empty());
    inscriber.tick().unwrap();
    assert_eq!(rig.chain.pool_len().unwrap(), 4);
    rig.mine(1);
    let mut found = rig.on_chain();
    let mut want = txs;
    found.sort();
    want.sort();
    assert_eq!(found, want);
    inscriber.tick().unwrap();
    assert_eq!(rig.chain.pool_len().unwrap(), 0);
}

#[test]
fn batches_follow_each_other_on_unconfirmed_change() {
    let rig = Rig::new();
    let mut inscriber = rig.inscriber();
    let txs: Vec<Bytes> = (0..5).map(|i| noise(i, 150)).collect();
    for tx in &txs {
        rig.source.add(tx.clone());
        inscriber.tick().unwrap();
    }
    assert_eq!(rig.chain.pool_len().unwrap(), 10);
    rig.mine(1);
    let mut found = rig.on_chain();
    let mut want = txs;
    found.sort();
    want.sort();
    assert_eq!(found, want);
}

#[test]
fn a_lingering_batch_is_paid_for_again_by_its_reveal() {
    let rig = Rig::new();
    let mut inscriber = rig.inscriber();
    rig.source.add(noise(1, 2_000));
    inscriber.tick().unwrap();
    let hash = alloy_primitives::keccak256(noise(1, 2_000));
    let first = inscriber.view().record(hash).unwrap();
    bump(&inscriber, 2);
    let second = inscriber.view().record(hash).unwrap();
    assert_eq!(second.commit_txid, first.commit_txid);
    assert_ne!(second.reveal_txid, first.reveal_txid);
    assert!(second.fee_sats >= 2 * first.fee_sats - 2);
    assert_eq!(rig.chain.pool_len().unwrap(), 2);
    rig.mine(1);
    inscriber.tick().unwrap();
    assert_eq!(rig.on_chain(), [noise(1, 2_000)]);
    assert_eq!(inscriber.view().balance_sats(), 3 * COINBASE - second.fee_sats);
}

#[test]
fn a_lingering_commit_of_several_reveals_is_replaced() {
    let rig = Rig::new();
    let mut inscriber = rig.inscriber();
    let txs = [noise(1, 300_000), noise(2, 300_000)];
    txs.iter().for_each(|tx| rig.source.add(tx.clone()));
    inscriber.tick().unwrap();
    let live = inscriber.store.live().unwrap();
    assert!(bump(&inscriber, 3));
    assert_eq!(rig.chain.pool_len().unwrap(), 1);
    // The older commit confirms nevertheless: its own reveals follow.
    let old = live[0].newest().commit().clone();
    let tip = rig.chain.tip().unwrap().hash;
    mine_on(&*rig.chain, &tip, vec![old], &rig.keys.reveal_key_script(), 77).unwrap();
    inscriber.tick().unwrap();
    assert_eq!(rig.chain.pool_len().unwrap(), 2);
    rig.mine(1);
    let mut found = rig.on_chain();
    found.sort();
    let mut want = txs.to_vec();
    want.sort();
    assert_eq!(found, want);
}

#[test]
fn a_batch_settles_and_keeps_its_record() {
    let rig = Rig::new();
    let mut inscriber = rig.inscriber();
    rig.source.add(noise(1, 200));
    inscriber.tick().unwrap();
    rig.mine(1 + SETTLED_DEPTH as u32);
    inscriber.tick().unwrap();
    assert!(inscriber.store.live().unwrap().is_empty());
    let record = inscriber
        .view()
        .record(alloy_primitives::keccak256(noise(1, 200)))
        .unwrap();
    assert_eq!(record.bitcoin_height, Some(102));
}

#[test]
fn what_fits_no_reveal_is_left_out_and_harms_no_other() {
    let rig = Rig::new();
    let mut inscriber = rig.inscriber();
    rig.source.add(noise(1, 450_000));
    rig.source.add(noise(2, 200));
    inscriber.tick().unwrap();
    rig.mine(1);
    assert_eq!(rig.on_chain(), [noise(2, 200)]);
}

#[test]
fn an_older_reveal_that_confirms_leaves_no_phantom_of_the_newer() {
    let rig = Rig::new();
    let mut inscriber = rig.inscriber();
    rig.source.add(noise(1, 2_000));
    inscriber.tick().unwrap();
    let first = inscriber.store.live().unwrap()[0].newest().clone();
    assert!(bump(&inscriber, 30));
    let tip = rig.chain.tip().unwrap().hash;
    let old = vec![first.commit().clone(), first.reveals()[0].clone()];
    mine_on(&*rig.chain, &tip, old, &rig.keys.reveal_key_script(), 7).unwrap();
    inscriber.tick().unwrap();
    assert_eq!(inscriber.view().balance_sats(), coins_on_chain(&rig));
    // The next batch is built on what is there.
    rig.source.add(noise(2, 2_000));
    inscriber.tick().unwrap();
    rig.mine(1);
    inscriber.tick().unwrap();
    assert_eq!(rig.on_chain(), [noise(1, 2_000), noise(2, 2_000)]);
    assert_eq!(inscriber.view().balance_sats(), coins_on_chain(&rig));
}

#[test]
fn a_rise_beyond_the_headroom_is_paid_from_other_coins() {
    let rig = Rig::new();
    let mut inscriber = rig.inscriber();
    rig.source.add(noise(1, 2_000));
    inscriber.tick().unwrap();
    let hash = alloy_primitives::keccak256(noise(1, 2_000));
    let first = inscriber.view().record(hash).unwrap();
    assert!(bump(&inscriber, 50));
    let second = inscriber.view().record(hash).unwrap();
    assert_eq!(second.commit_txid, first.commit_txid);
    assert!(second.fee_sats >= 50 * first.fee_sats - 50, "{second:?}");
    // And once more, with the coin that is there already.
    assert!(bump(&inscriber, 2));
    let third = inscriber.view().record(hash).unwrap();
    assert!(third.fee_sats >= 2 * second.fee_sats - 2, "{third:?}");
    assert_eq!(rig.chain.pool_len().unwrap(), 2);
    assert!(rig.chain.tx_status(&txid(third.reveal_txid)).unwrap() == TxStatus::Pool);
    rig.mine(1);
    inscriber.tick().unwrap();
    assert_eq!(rig.on_chain(), [noise(1, 2_000)]);
    assert_eq!(inscriber.view().balance_sats(), coins_on_chain(&rig));
    assert_eq!(inscriber.view().balance_sats(), 3 * COINBASE - third.fee_sats);
}

#[test]
fn a_reveal_pays_what_it_can_where_no_coin_is_free() {
    let rig = Rig::new();
    let mut inscriber = rig.inscriber();
    rig.source.add(noise(1, 2_000));
    inscriber.tick().unwrap();
    let live = inscriber.store.live().unwrap();
    let fate = inscriber.store.fate(&live[0]).unwrap();
    let old = fate.current();
    let lingering = build::Lingering {
        old,
        open: vec![0],
        commit_mined: false,
        lost: vec![],
    };
    let builder = inscriber.builder(&live[0].parts);
    let version = builder
        .with_dearer_reveals(&lingering, &[], SatPerKvb(old.rate * 50), 102)
        .unwrap();
    assert_eq!(version.commit(), old.commit());
    // The commit funded four times the first rate; its own fee comes out of that.
    assert!(
        version.rate > 3 * old.rate && version.rate < 5 * old.rate,
        "{}",
        version.rate
    );
    let left = version.reveals()[0].output[0].value.to_sat();
    assert_eq!(left, 330, "all but dust is paid");
    let again = build::Lingering {
        old: &version,
        ..lingering
    };
    let error = builder.with_dearer_reveals(&again, &[], SatPerKvb(old.rate * 50), 103);
    assert!(matches!(error, Err(BuildError::Headroom { .. })), "{error:?}");
}

#[test]
fn a_kill_while_more_is_paid_neither_loses_nor_doubles() {
    for point in [Point::Signed, Point::Persisted, Point::Told, Point::CommitSent] {
        for lose_pool in [false, true] {
            let mut rig = Rig::new();
            let mut inscriber = rig.inscriber();
            rig.source.add(noise(1, 2_000));
            inscriber.tick().unwrap();
            inscriber.stop_at = Some(point);
            let live = inscriber.store.live().unwrap();
            let fate = inscriber.store.fate(&live[0]).unwrap();
            let tip = rig.chain.tip().unwrap();
            let rate = SatPerKvb(fate.current().rate * 50);
            let stopped = inscriber.bump(&fate, &live, advance::Pushed::InPool, rate, tip);
            assert!(matches!(stopped, Err(InscriberError::Stopped(p)) if p == point));
            drop(inscriber);
            if lose_pool {
                rig.restart();
            }
            let mut inscriber = rig.inscriber();
            inscriber.tick().unwrap();
            assert_eq!(rig.chain.pool_len().unwrap(), 2, "{point:?}");
            rig.mine(1);
            inscriber.tick().unwrap();
            assert_eq!(rig.on_chain(), [noise(1, 2_000)], "{point:?}");
            assert_eq!(inscriber.view().balance_sats(), coins_on_chain(&rig), "{point:?}");
        }
    }
}

#[test]
fn a_batch_given_up_whose_commit_confirms_after_all_sends_its_reveals() {
    let rig = Rig::new();
    let mut inscriber = rig.inscriber();
    rig.source.add(noise(1, 200));
    inscriber.tick().unwrap();
    let commit = inscriber.store.live().unwrap()[0].newest().commit().clone();
    let tip = rig.chain.tip().unwrap().hash;
    let mut ours = mine_on(&*rig.chain, &tip, vec![commit], &rig.keys.reveal_key_script(), 5).unwrap();
    let mut rival = rig.chain.hash_at(0).unwrap().unwrap();
    for tag in 0..104 {
        rival = mine_on(
            &*rig.chain,
            &rival,
            vec![],
            &rig.keys.reveal_key_script(),
            100 + tag,
        )
        .unwrap();
    }
    assert_eq!(rig.chain.tip().unwrap().hash, rival);
    inscriber.tick().unwrap();
    assert!(inscriber.store.live().unwrap().is_empty());
    assert_eq!(inscriber.view().balance_sats(), 0);
    for tag in 0..4 {
        ours = mine_on(
            &*rig.chain,
            &ours,
            vec![],
            &rig.keys.reveal_key_script(),
            300 + tag,
        )
        .unwrap();
    }
    assert_eq!(rig.chain.tip().unwrap().hash, ours);
    inscriber.tick().unwrap();
    assert_eq!(rig.chain.pool_len().unwrap(), 1, "the reveal");
    rig.mine(1);
    inscriber.tick().unwrap();
    assert_eq!(rig.on_chain(), [noise(1, 200)]);
    assert_eq!(inscriber.view().balance_sats(), coins_on_chain(&rig));
}

#[test]
fn a_kill_while_a_batch_is_given_up_gives_its_transactions_back() {
    let rig = Rig::new();
    let mut inscriber = rig.inscriber();
    rig.source.add(noise(1, 200));
    inscriber.tick().unwrap();
    let mut at = rig.chain.hash_at(0).unwrap().unwrap();
    for tag in 0..104 {
        at = mine_on(&*rig.chain, &at, vec![], &rig.keys.reveal_key_script(), tag).unwrap();
    }
    inscriber.stop_at = Some(Point::Released);
    assert!(matches!(
        inscriber.tick(),
        Err(InscriberError::Stopped(Point::Released))
    ));
    drop(inscriber);
    rig.source.released.lock().unwrap().clear();
    let mut inscriber = rig.inscriber();
    let _ = inscriber.tick();
    let hash = alloy_primitives::keccak256(noise(1, 200));
    assert_eq!(*rig.source.released.lock().unwrap(), [hash]);
    assert!(inscriber.store.live().unwrap().is_empty());
    // What waited in the pool spends a coin that is no more: it left, and blocks can be made.
    assert_eq!(rig.chain.pool_len().unwrap(), 0);
    rig.mine(1);
}
