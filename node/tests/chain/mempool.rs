//! What the mempool takes, refuses, orders, keeps and forgets.

use crate::common::*;
use alloy::consensus::TxEip1559;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use bitai_node::indexer::Ledger;
use bitai_node::inscriber::source::{Quote, TxSource};
use bitai_node::mempool::{FLIGHT_BLOCKS, MAX_BYTES, MAX_PER_SENDER, MAX_TX_BYTES, Mempool, PoolError};
use bitai_node::state::Chain;
use bitai_node::transition::TxError;
use std::path::Path;
use std::sync::Arc;

const TO: Address = Address::repeat_byte(0x77);
const REVEAL: B256 = B256::repeat_byte(0x4e);

/// Asks one gwei per gas for everything.
struct OneGwei;

impl Quote for OneGwei {
    fn min_priority_fee(&self, _raw_len: usize, _gas_used: u64) -> U256 {
        U256::from(GWEI)
    }
}

fn open(dir: &Path, chain: &Arc<Chain>) -> Arc<Mempool> {
    Mempool::open(dir.join("mempool.redb"), chain.clone(), Arc::new(OneGwei)).unwrap()
}

fn setup(wallets: u8) -> (tempfile::TempDir, Arc<Chain>, Arc<Mempool>) {
    let (dir, chain) = chain(wallets);
    let mempool = open(dir.path(), &chain);
    (dir, chain, mempool)
}

fn ready(mempool: &Mempool) -> Vec<B256> {
    mempool
        .ready(usize::MAX)
        .into_iter()
        .map(|(hash, _)| hash)
        .collect()
}

#[test]
fn offers_the_dearest_first_with_nonces_in_sequence() {
    let (_dir, _chain, mempool) = setup(2);
    let slow = [transfer(0, 0, TO, 1, 2), transfer(0, 1, TO, 1, 90)];
    let fast = transfer(1, 0, TO, 1, 5);
    for tx in slow.iter().chain([&fast]) {
        mempool.submit(tx).unwrap();
    }
    assert_eq!(ready(&mempool), [&fast, &slow[0], &slow[1]].map(keccak256));
    let one = mempool.ready(fast.len() + 10);
    assert_eq!(one.len(), 1, "as many as fit");
}

#[test]
fn queues_a_nonce_gap_until_it_is_filled() {
    let (_dir, _chain, mempool) = setup(1);
    let [a, b, c] = [0, 1, 2].map(|nonce| transfer(0, nonce, TO, 1, 2));
    mempool.submit(&c).unwrap();
    mempool.submit(&b).unwrap();
    assert_eq!(mempool.counts(), (0, 2));
    assert!(ready(&mempool).is_empty());
    mempool.submit(&a).unwrap();
    assert_eq!(mempool.counts(), (3, 0));
    assert_eq!(ready(&mempool), [a, b, c].map(keccak256));
    assert_eq!(mempool.pending_nonce(wallet(0).address()).unwrap(), 3);
}

#[test]
fn rejects_what_it_has() {
    let (_dir, _chain, mempool) = setup(1);
    let tx = transfer(0, 0, TO, 1, 2);
    let hash = mempool.submit(&tx).unwrap();
    assert_eq!(mempool.submit(&tx), Err(PoolError::AlreadyKnown(hash)));
}

#[test]
fn rejects_what_no_block_would_take() {
    let (_dir, chain, mempool) = setup(1);
    mine(&chain, vec![transfer(0, 0, TO, 1, 2)]);
    let refuse = |raw: &[u8]| match mempool.submit(raw).unwrap_err() {
        PoolError::Tx(error) => error,
        other => panic!("{other}"),
    };
    assert!(matches!(refuse(b"junk"), TxError::Malformed(_)));
    assert_eq!(
        refuse(&transfer(0, 0, TO, 2, 2)),
        TxError::NonceTooLow { next: 1, got: 0 }
    );
    assert!(matches!(refuse(&transfer(9, 0, TO, 1, 2)), TxError::Funds { .. }));
    let other_chain = sign(
        &wallet(0),
        TxEip1559 {
            chain_id: 1,
            ..blank(1, TO)
        },
    );
    assert_eq!(
        refuse(&other_chain),
        TxError::WrongChainId { want: 22216, got: 1 }
    );
    let greedy = call(0, 1, TO, Bytes::new(), 10_000_000);
    assert!(matches!(refuse(&greedy), TxError::GasAboveBytes { .. }));
    let stingy = call(0, 1, TO, vec![1; 100], 21_100);
    assert!(matches!(refuse(&stingy), TxError::Invalid(why) if why.contains("gas")));
    let cheap = sign(
        &wallet(0),
        TxEip1559 {
            max_fee_per_gas: 1,
            max_priority_fee_per_gas: 1,
            ..blank(1, TO)
        },
    );
    assert!(matches!(refuse(&cheap), TxError::FeeBelowBase { .. }));
    assert!(matches!(
        mempool.submit(&vec![2; MAX_TX_BYTES + 1]),
        Err(PoolError::TooLarge { .. })
    ));
    assert_eq!(mempool.counts(), (0, 0));
}

#[test]
fn rejects_what_pays_less_than_its_satoshis() {
    let (_dir, _chain, mempool) = setup(1);
    let free = sign(
        &wallet(0),
        TxEip1559 {
            max_priority_fee_per_gas: GWEI - 1,
            ..blank(0, TO)
        },
    );
    match mempool.submit(&free).unwrap_err() {
        PoolError::Underpriced { got, min, .. } => assert_eq!((got, min), (GWEI - 1, U256::from(GWEI))),
        other => panic!("{other}"),
    }
    let exact = sign(
        &wallet(0),
        TxEip1559 {
            max_priority_fee_per_gas: GWEI,
            ..blank(0, TO)
        },
    );
    mempool.submit(&exact).unwrap();
}

#[test]
fn rejects_what_would_revert_and_says_why() {
    let (_dir, chain, mempool) = setup(2);
    // Reverts with its calldata: CALLDATASIZE PUSH0 PUSH0 CALLDATACOPY CALLDATASIZE PUSH0 REVERT.
    mine(
        &chain,
        vec![create(
            0,
            0,
            deployer(&[0x36, 0x5f, 0x5f, 0x37, 0x36, 0x5f, 0xfd]),
            200_000,
        )],
    );
    let contract = wallet(0).address().create(0);
    let refuse = |data: Vec<u8>| match mempool.submit(&call(1, 0, contract, data, 60_000)).unwrap_err() {
        PoolError::Reverted { reason, data } => (reason, data),
        other => panic!("{other}"),
    };
    use alloy::sol_types::{Revert, SolError};
    let text = Revert::from("stake too small").abi_encode();
    assert_eq!(
        refuse(text.clone()),
        ("execution reverted: stake too small".into(), text.into())
    );
    let (reason, data) = refuse(vec![0xde, 0xad, 0xbe, 0xef]);
    assert_eq!(reason, "execution reverted: custom error 0xdeadbeef");
    assert_eq!(data.as_ref(), [0xde, 0xad, 0xbe, 0xef]);
    assert_eq!(refuse(vec![]).0, "execution reverted");
    let halt = create(1, 0, vec![0xfe], 100_000);
    assert!(matches!(mempool.submit(&halt), Err(PoolError::Halted(_))));
    assert_eq!(mempool.counts(), (0, 0));
}

#[test]
fn executes_on_the_pending_state() {
    let (_dir, _chain, mempool) = setup(1);
    let poor = wallet(9).address();
    assert!(mempool.submit(&transfer(9, 0, TO, 1, 2)).is_err());
    mempool.submit(&transfer(0, 0, poor, COIN, 2)).unwrap();
    mempool.submit(&transfer(9, 0, TO, 1, 2)).unwrap();
    assert_eq!(mempool.counts(), (2, 0));
}

#[test]
fn replaces_for_a_tenth_more() {
    let (_dir, _chain, mempool) = setup(1);
    let fees = |tip: u128, max: u128, value: u128| {
        let tx = TxEip1559 {
            max_priority_fee_per_gas: tip,
            max_fee_per_gas: max,
            value: U256::from(value),
            ..blank(0, TO)
        };
        sign(&wallet(0), tx)
    };
    let first = fees(10 * GWEI, 100 * GWEI, 1);
    mempool.submit(&first).unwrap();
    for (tip, max) in [(11 * GWEI - 1, 110 * GWEI), (11 * GWEI, 110 * GWEI - 1)] {
        let refused = mempool.submit(&fees(tip, max, 2)).unwrap_err();
        assert!(
            matches!(refused, PoolError::ReplacementUnderpriced { .. }),
            "{refused}"
        );
    }
    let second = fees(11 * GWEI, 110 * GWEI, 2);
    mempool.submit(&second).unwrap();
    assert_eq!(ready(&mempool), [keccak256(&second)]);
    assert!(mempool.get(keccak256(&first)).is_none());
    // A replacement that would fail leaves the old one in place.
    assert!(mempool.submit(&fees(20 * GWEI, 200 * GWEI, 1000 * COIN)).is_err());
    assert_eq!(ready(&mempool), [keccak256(&second)]);
}

#[test]
fn rejects_replacing_what_is_on_its_way() {
    let (_dir, _chain, mempool) = setup(1);
    let first = transfer(0, 0, TO, 1, 2);
    let hash = mempool.submit(&first).unwrap();
    mempool.inscribed(&[hash], REVEAL);
    assert!(ready(&mempool).is_empty());
    let dearer = sign(
        &wallet(0),
        TxEip1559 {
            max_priority_fee_per_gas: 50 * GWEI,
            max_fee_per_gas: 500 * GWEI,
            ..blank(0, TO)
        },
    );
    assert_eq!(
        mempool.submit(&dearer),
        Err(PoolError::InFlight { nonce: 0, hash })
    );
    // Its successor may go meanwhile.
    let next = mempool.submit(&transfer(0, 1, TO, 1, 2)).unwrap();
    assert_eq!(ready(&mempool), [next]);
}

#[test]
fn rejects_more_than_a_senders_share() {
    let (_dir, _chain, mempool) = setup(1);
    for nonce in 0..MAX_PER_SENDER as u64 {
        mempool.submit(&transfer(0, nonce, TO, 1, 2)).unwrap();
    }
    let over = mempool.submit(&transfer(0, MAX_PER_SENDER as u64, TO, 1, 2));
    assert!(matches!(over, Err(PoolError::TooFarAhead { .. })));
}

/// A transfer of 390,000 zero bytes: 86 of them fill the mempool.
fn large(from: u8, nonce: u64, tip_gwei: u128) -> Bytes {
    let tx = TxEip1559 {
        input: vec![0; 390_000].into(),
        gas_limit: 4_100_000,
        max_fee_per_gas: 20 * GWEI,
        max_priority_fee_per_gas: tip_gwei * GWEI,
        ..blank(nonce, TO)
    };
    sign(&wallet(from), tx)
}

#[test]
fn a_full_mempool_lets_the_cheapest_go_for_what_pays_more() {
    let (dir, chain, mempool) = setup(4);
    let most = MAX_BYTES / large(0, 0, 2).len();
    let submit = |from, nonce, tip| mempool.submit(&large(from, nonce, tip));
    // The third sender's first pays 3; what it sends later can only run after that, whatever it pays.
    let third = [submit(2, 0, 3).unwrap(), submit(2, 1, 9).unwrap()];
    let flying = submit(1, 0, 1).unwrap();
    let mut others = vec![submit(1, 1, 5).unwrap()];
    others.extend((0..60).map(|nonce| submit(0, nonce, 5).unwrap()));
    others.extend((2..most as u64 - 62).map(|nonce| submit(1, nonce, 5).unwrap()));
    mempool.inscribed(&[flying], REVEAL);
    assert_eq!(mempool.counts(), (most as u64, 0));
    assert!(
        matches!(submit(3, 0, 3), Err(PoolError::Full { .. })),
        "pays as much"
    );
    assert!(
        matches!(submit(2, 2, 9), Err(PoolError::Full { .. })),
        "hangs on what goes first"
    );
    assert!(
        matches!(submit(3, 1, 9), Err(PoolError::Full { .. })),
        "cannot run yet"
    );
    // The last of the cheapest sender goes first, so that nothing is left without what it needs.
    let dear = submit(3, 0, 4).unwrap();
    assert!(mempool.get(third[1]).is_none() && mempool.get(third[0]).is_some());
    let dearer = submit(3, 1, 4).unwrap();
    assert!(mempool.get(third[0]).is_none());
    assert_eq!(mempool.counts(), (most as u64, 0));
    // What would fail pushes nothing out.
    let poor = TxEip1559 {
        value: U256::from(1000 * COIN),
        max_priority_fee_per_gas: 9 * GWEI,
        input: vec![0; 390_000].into(),
        gas_limit: 4_100_000,
        ..blank(0, TO)
    };
    let refused = mempool.submit(&sign(&wallet(2), poor));
    assert!(
        matches!(refused, Err(PoolError::Tx(TxError::Funds { .. }))),
        "{refused:?}"
    );
    for hash in others.into_iter().chain([flying, dear, dearer]) {
        assert!(mempool.get(hash).is_some());
    }
    drop(mempool);
    assert_eq!(
        open(dir.path(), &chain).counts(),
        (most as u64, 0),
        "on disk, too"
    );
}

#[test]
fn forgets_what_a_block_executed_and_what_became_impossible() {
    let (_dir, chain, mempool) = setup(2);
    let mine_it = transfer(0, 0, TO, 1, 2);
    let later = transfer(0, 1, TO, 1, 2);
    let loser = transfer(1, 0, TO, 7, 2);
    for tx in [&mine_it, &later, &loser] {
        mempool.submit(tx).unwrap();
    }
    mine(&chain, vec![mine_it, transfer(1, 0, TO, 8, 3)]);
    assert_eq!(ready(&mempool), [keccak256(&later)]);
    assert_eq!(mempool.counts(), (1, 0));
}

#[test]
fn what_a_reorg_undid_comes_back() {
    let (_dir, chain, mempool) = setup(1);
    let tx = transfer(0, 0, TO, 1, 2);
    let hash = mempool.submit(&tx).unwrap();
    mempool.inscribed(&[hash], REVEAL);
    mine(&chain, vec![tx.clone()]);
    assert_eq!(mempool.counts(), (0, 0));
    chain.rewind(0).unwrap();
    // Its reveal probably confirms again: it waits, and is pending meanwhile.
    assert_eq!(mempool.counts(), (1, 0));
    assert!(ready(&mempool).is_empty());
    assert_eq!(mempool.pending_nonce(wallet(0).address()).unwrap(), 1);
    // Its inscriber learns that the reveal is lost: it may be inscribed anew.
    mempool.released(&[hash]);
    assert_eq!(ready(&mempool), [hash]);
    chain
        .apply(&next_block(&chain, 1, vec![envelope(0, RECIPIENT, vec![tx])]))
        .unwrap();
    assert_eq!(mempool.counts(), (0, 0));
}

#[test]
fn a_foreign_reveal_that_never_comes_back_times_out() {
    let (_dir, chain, mempool) = setup(1);
    let tx = transfer(0, 0, TO, 1, 2);
    mine(&chain, vec![tx.clone()]);
    chain.rewind(0).unwrap();
    for _ in 0..FLIGHT_BLOCKS {
        assert!(ready(&mempool).is_empty());
        chain.apply(&next_block(&chain, 1, vec![])).unwrap();
    }
    assert_eq!(ready(&mempool), [keccak256(&tx)]);
}

#[test]
fn a_restart_keeps_everything() {
    let (dir, chain) = chain(2);
    let mempool = open(dir.path(), &chain);
    let flying = transfer(0, 0, TO, 1, 2);
    let waiting = [transfer(0, 1, TO, 1, 2), transfer(1, 1, TO, 1, 2)];
    let hash = mempool.submit(&flying).unwrap();
    for tx in &waiting {
        mempool.submit(tx).unwrap();
    }
    mempool.inscribed(&[hash], REVEAL);
    drop(mempool);
    let mempool = open(dir.path(), &chain);
    assert_eq!(mempool.counts(), (2, 1));
    assert_eq!(mempool.get(hash).unwrap().reveal_txid, Some(REVEAL));
    assert_eq!(ready(&mempool), [keccak256(&waiting[0])]);
}

#[test]
fn a_transaction_that_would_now_fail_is_let_go() {
    let (_dir, chain, mempool) = setup(1);
    // Sends everything away in a block that this mempool did not make.
    let mine_it = transfer(0, 1, TO, 90 * COIN, 2);
    mempool.submit(&transfer(0, 0, TO, 1, 2)).unwrap();
    mempool.submit(&mine_it).unwrap();
    mine(&chain, vec![transfer(0, 0, TO, 50 * COIN, 2)]);
    assert_eq!(mempool.counts(), (0, 0));
}

#[test]
fn a_batch_that_would_compress_below_its_gas_is_stored() {
    use bitai_node::envelope::payload;
    let (_dir, chain, mempool) = setup(2);
    // Zeros that buy gas: together 7 Mgas in a payload that zstd makes tiny.
    let txs: Vec<Bytes> = (0..2)
        .map(|from| call(from, 0, TO, vec![0; 1_000], 3_500_000))
        .collect();
    let min_len = mempool.payload_min(&txs);
    assert_eq!(min_len, 7_000_000 / 4_000);
    assert!(payload::encode(&txs).unwrap().len() < min_len);
    let packed = payload::encode_at_least(&txs, min_len).unwrap();
    assert!(packed.len() >= min_len);
    let mut inscribed = envelope(0, RECIPIENT, payload::decode(&packed).unwrap());
    inscribed.payload_len = packed.len() as u32;
    assert_eq!(
        chain
            .apply(&next_block(&chain, 0, vec![inscribed]))
            .unwrap()
            .len(),
        2
    );
}
