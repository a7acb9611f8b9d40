//! One conformance suite, both Bitcoin backends: what the inscriber and the indexer rely on.

use crate::bitcoind::Bitcoind;
use crate::wallet::{keys, output, spend};
use bitai_node::bitcoin::assemble::mine_on;
use bitai_node::bitcoin::{Backend, BackendError, Refusal, SatPerKvb, Submitted, TxStatus};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint, Transaction, TxOut};
use std::slice::from_ref;

const ANY_RATE: SatPerKvb = SatPerKvb(100_000_000);

fn refused(result: Result<Submitted, BackendError>) -> Refusal {
    match result {
        Err(BackendError::TxRefused { refusal, .. }) => refusal,
        other => panic!("wanted a refusal, got {other:?}"),
    }
}

fn coinbase(backend: &dyn Backend, height: u64) -> (OutPoint, TxOut) {
    let hash = backend.hash_at(height).unwrap().unwrap();
    output(&backend.block(&hash).unwrap().unwrap().txdata[0], 0)
}

fn conformance(backend: &dyn Backend) {
    begins_at_genesis(backend);
    mines_and_tells_headers(backend);
    let spent = refuses_bad_transactions_and_takes_good_ones(backend);
    replaces_by_fee_and_confirms(backend, spent);
    limits_clusters(backend);
    keeps_its_tip_when_offered_an_invalid_block(backend);
    follows_the_longer_branch(backend);
}

fn begins_at_genesis(backend: &dyn Backend) {
    let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
    let tip = backend.tip().unwrap();
    assert_eq!((tip.height, tip.hash), (0, genesis.block_hash()));
    assert_eq!(backend.hash_at(0).unwrap(), Some(genesis.block_hash()));
    assert_eq!(backend.hash_at(1).unwrap(), None);
    assert_eq!(backend.block(&tip.hash).unwrap(), Some(genesis));
    let unknown = BlockHash::from_byte_array([5; 32]);
    assert_eq!(backend.header(&unknown).unwrap(), None);
    assert_eq!(backend.block(&unknown).unwrap(), None);
}

fn mines_and_tells_headers(backend: &dyn Backend) {
    let made = backend.generate(101, &keys(1).script()).unwrap();
    assert_eq!(made.len(), 101);
    let tip = backend.tip().unwrap();
    assert_eq!((tip.height, tip.hash), (101, made[100]));
    let mut times = Vec::new();
    for height in 91..=101 {
        let info = backend.header_at(height).unwrap().unwrap();
        assert_eq!(info.height, height);
        assert!(info.in_best_chain);
        assert_eq!(
            info.header.prev_blockhash,
            backend.hash_at(height - 1).unwrap().unwrap()
        );
        times.push(u64::from(info.header.time));
    }
    times.sort_unstable();
    assert_eq!(
        backend.header_at(101).unwrap().unwrap().median_time_past,
        times[5]
    );
    assert_eq!(backend.header_at(102).unwrap(), None);
}

fn refuses_bad_transactions_and_takes_good_ones(backend: &dyn Backend) -> Transaction {
    let k = keys(1);
    let coin = coinbase(backend, 1);
    let good = spend(&k, from_ref(&coin), 1_000, 2);
    let early = spend(&k, &[coinbase(backend, 50)], 1_000, 1);
    assert_eq!(refused(backend.submit(&early, ANY_RATE)), Refusal::Invalid);
    let foreign = spend(&keys(2), from_ref(&coin), 1_000, 1);
    assert_eq!(refused(backend.submit(&foreign, ANY_RATE)), Refusal::Invalid);
    let free = spend(&k, from_ref(&coin), 0, 1);
    assert_eq!(refused(backend.submit(&free, ANY_RATE)), Refusal::FeeTooLow);
    assert_eq!(
        refused(backend.submit(&good, SatPerKvb(1_000))),
        Refusal::FeeTooHigh
    );
    let orphan = spend(&k, &[output(&good, 0)], 1_000, 1);
    assert_eq!(refused(backend.submit(&orphan, ANY_RATE)), Refusal::MissingInputs);
    assert_eq!(
        backend.tx_status(&good.compute_txid()).unwrap(),
        TxStatus::Unknown
    );

    assert_eq!(backend.submit(&good, ANY_RATE).unwrap(), Submitted::Accepted);
    assert_eq!(backend.submit(&good, ANY_RATE).unwrap(), Submitted::InPool);
    assert_eq!(backend.submit(&orphan, ANY_RATE).unwrap(), Submitted::Accepted);
    assert_eq!(backend.tx_status(&good.compute_txid()).unwrap(), TxStatus::Pool);
    assert_eq!(backend.pool_len().unwrap(), 2);
    good
}

fn replaces_by_fee_and_confirms(backend: &dyn Backend, first: Transaction) {
    let k = keys(1);
    let coin = coinbase(backend, 1);
    let same = spend(&k, from_ref(&coin), 1_001, 1);
    assert_eq!(refused(backend.submit(&same, ANY_RATE)), Refusal::Replacement);
    let better = spend(&k, from_ref(&coin), 9_000, 2);
    assert_eq!(backend.submit(&better, ANY_RATE).unwrap(), Submitted::Accepted);
    // The child of what was replaced went with it.
    assert_eq!(backend.pool_len().unwrap(), 1);
    assert_eq!(
        backend.tx_status(&first.compute_txid()).unwrap(),
        TxStatus::Unknown
    );
    let child = spend(&k, &[output(&better, 0)], 500, 1);
    assert_eq!(backend.submit(&child, ANY_RATE).unwrap(), Submitted::Accepted);
    let hash = backend.generate(1, &k.script()).unwrap()[0];
    let block = backend.block(&hash).unwrap().unwrap();
    let ids: Vec<_> = block.txdata[1..].iter().map(Transaction::compute_txid).collect();
    assert_eq!(ids, [better.compute_txid(), child.compute_txid()]);
    assert_eq!(backend.pool_len().unwrap(), 0);
    assert!(
        matches!(backend.tx_status(&child.compute_txid()).unwrap(), TxStatus::Confirmed(at) if at.hash == hash)
    );
    assert_eq!(backend.submit(&better, ANY_RATE).unwrap(), Submitted::Confirmed);
    let double = spend(&k, &[coin], 20_000, 1);
    assert_eq!(refused(backend.submit(&double, ANY_RATE)), Refusal::MissingInputs);
}

fn limits_clusters(backend: &dyn Backend) {
    let k = keys(1);
    let mut last = coinbase(backend, 2);
    for i in 0..65 {
        let tx = spend(&k, &[last], 300, 1);
        let result = backend.submit(&tx, ANY_RATE);
        match i {
            64 => assert_eq!(refused(result), Refusal::Cluster),
            _ => assert_eq!(result.unwrap(), Submitted::Accepted, "{i}"),
        }
        last = output(&tx, 0);
    }
    backend.generate(1, &k.script()).unwrap();
    assert_eq!(backend.pool_len().unwrap(), 0);
}

fn keeps_its_tip_when_offered_an_invalid_block(backend: &dyn Backend) {
    let k = keys(1);
    let tip = backend.tip().unwrap();
    // The coin is spent already: the block is well-formed and against consensus.
    let double = spend(&k, &[coinbase(backend, 1)], 20_000, 1);
    let bad = mine_on(backend, &tip.hash, vec![double], &k.script(), 1);
    assert!(matches!(bad, Err(BackendError::BlockRefused { .. })), "{bad:?}");
    assert_eq!(backend.tip().unwrap(), tip);
    backend.generate(1, &k.script()).unwrap();
    assert_eq!(backend.tip().unwrap().height, tip.height + 1);
}

fn follows_the_longer_branch(backend: &dyn Backend) {
    let k = keys(1);
    let fork = backend.tip().unwrap();
    let kept = spend(&k, &[coinbase(backend, 4)], 1_000, 1);
    let lost = spend(&k, &[coinbase(backend, 5)], 1_000, 1);
    let rival = spend(&k, &[coinbase(backend, 5)], 5_000, 1);
    backend.submit(&kept, ANY_RATE).unwrap();
    backend.submit(&lost, ANY_RATE).unwrap();
    let old = backend.generate(3, &k.script()).unwrap();
    let mut at = fork.hash;
    for i in 0..4 {
        let txs = if i == 1 { vec![rival.clone()] } else { vec![] };
        at = mine_on(backend, &at, txs, &keys(3).script(), 100 + i).unwrap();
        let tip = backend.tip().unwrap();
        assert_eq!(tip.hash, if i < 3 { old[2] } else { at }, "{i}");
    }
    assert_eq!(backend.tip().unwrap().height, fork.height + 4);
    let stale = backend.header(&old[0]).unwrap().unwrap();
    assert!(!stale.in_best_chain);
    assert_ne!(backend.hash_at(fork.height + 1).unwrap(), Some(old[0]));
    assert!(backend.block(&old[0]).unwrap().is_some());
    // What the new branch left possible waits again; what it spent otherwise is gone.
    assert_eq!(backend.tx_status(&kept.compute_txid()).unwrap(), TxStatus::Pool);
    assert_eq!(
        backend.tx_status(&lost.compute_txid()).unwrap(),
        TxStatus::Unknown
    );
    assert!(matches!(
        backend.tx_status(&rival.compute_txid()).unwrap(),
        TxStatus::Confirmed(_)
    ));
}

#[test]
fn bitcoin_core_conforms() {
    let Some(node) = Bitcoind::start() else {
        return;
    };
    let core = node.client();
    core.check().unwrap();
    conformance(&core);
}

#[cfg(feature = "embedded-bitcoin")]
mod embedded {
    use super::*;
    use bitai_node::bitcoin::embedded::EmbeddedRegtest;

    #[test]
    fn embedded_regtest_conforms() {
        let dir = tempfile::tempdir().unwrap();
        conformance(&EmbeddedRegtest::open(dir.path()).unwrap());
    }

    #[test]
    fn embedded_regtest_survives_a_kill_with_the_log_alone() {
        let dir = tempfile::tempdir().unwrap();
        let k = keys(1);
        let chain = EmbeddedRegtest::open(dir.path()).unwrap();
        chain.generate(105, &k.script()).unwrap();
        let side = chain.hash_at(103).unwrap().unwrap();
        let mut at = side;
        for i in 0..3 {
            at = mine_on(&chain, &at, vec![], &k.script(), 7 + i).unwrap();
        }
        let tip = chain.tip().unwrap();
        assert_eq!(tip.hash, at);
        // What a kill leaves for certain: the log, and files of the library in any state.
        let torn = tempfile::tempdir().unwrap();
        std::fs::copy(dir.path().join("blocks.log"), torn.path().join("blocks.log")).unwrap();
        drop(chain);
        for path in [dir.path(), torn.path()] {
            let again = EmbeddedRegtest::open(path).unwrap();
            assert_eq!(again.tip().unwrap(), tip);
            let tx = spend(&k, &[coinbase(&again, 1)], 1_000, 1);
            assert_eq!(again.submit(&tx, ANY_RATE).unwrap(), Submitted::Accepted);
            again.generate(1, &k.script()).unwrap();
            assert_eq!(again.tip().unwrap().height, tip.height + 1);
        }
    }

    #[test]
    fn embedded_regtest_leaves_a_directory_in_use_alone() {
        let dir = tempfile::tempdir().unwrap();
        let chain = EmbeddedRegtest::open(dir.path()).unwrap();
        chain.generate(5, &keys(1).script()).unwrap();
        let second = EmbeddedRegtest::open(dir.path()).unwrap_err();
        assert!(
            second.to_string().contains(&dir.path().display().to_string()),
            "{second}"
        );
        let hash = chain.generate(1, &keys(1).script()).unwrap()[0];
        drop(chain);
        let again = EmbeddedRegtest::open(dir.path()).unwrap();
        assert_eq!(again.tip().unwrap().hash, hash);
    }

    #[test]
    fn embedded_regtest_makes_unreadable_files_anew() {
        let dir = tempfile::tempdir().unwrap();
        let chain = EmbeddedRegtest::open(dir.path()).unwrap();
        chain.generate(5, &keys(1).script()).unwrap();
        let tip = chain.tip().unwrap();
        drop(chain);
        for entry in std::fs::read_dir(dir.path().join("chain/blocks/index")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::write(path, b"torn").unwrap();
            }
        }
        assert_eq!(EmbeddedRegtest::open(dir.path()).unwrap().tip().unwrap(), tip);
    }
}
