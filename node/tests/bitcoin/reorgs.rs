//! Ledgers on the embedded chain through reorgs: what remains is what the winning branch alone would make.

use crate::eth::{RECIPIENT, chain, transfer};
use crate::wallet::{keys, output, reveals};
use alloy_primitives::{Address, Bytes};
use bitai_node::bitcoin::Backend;
use bitai_node::bitcoin::assemble::mine_on;
use bitai_node::bitcoin::embedded::EmbeddedRegtest;
use bitai_node::envelope::{Header, payload, script};
use bitai_node::indexer::{Indexer, Ledger};
use bitai_node::state::Chain;
use bitcoin::{BlockHash, ScriptBuf, Transaction};
use std::sync::Arc;

const TO: Address = Address::repeat_byte(0xcc);

struct Rig {
    _dir: tempfile::TempDir,
    bitcoin: Arc<EmbeddedRegtest>,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bitcoin = Arc::new(EmbeddedRegtest::open(dir.path()).unwrap());
        bitcoin.generate(110, &keys(1).script()).unwrap();
        Self { _dir: dir, bitcoin }
    }

    fn ledger(&self) -> (tempfile::TempDir, Arc<Chain>, Indexer) {
        let (dir, chain) = chain(3);
        let ledger: Arc<dyn Ledger> = Arc::clone(&chain) as _;
        let indexer = Indexer::new(Arc::clone(&self.bitcoin) as _, ledger, chain.genesis().id());
        (dir, chain, indexer)
    }

    /// Commit and reveals of these leaf scripts, funded by the coinbase of block `coin`.
    fn inscribe(&self, coin: u64, leaves: &[ScriptBuf]) -> Vec<Transaction> {
        let hash = self.bitcoin.hash_at(coin).unwrap().unwrap();
        let coinbase = self.bitcoin.block(&hash).unwrap().unwrap().txdata[0].clone();
        reveals(&keys(1), output(&coinbase, 0), leaves)
    }

    fn mine_on(&self, parent: BlockHash, txs: Vec<Transaction>, tag: u64) -> BlockHash {
        mine_on(&*self.bitcoin, &parent, txs, &keys(2).script(), tag).unwrap()
    }
}

fn header(chain: &Chain) -> Header {
    Header {
        genesis_id: chain.genesis().id(),
        fee_recipient: RECIPIENT,
    }
}

fn leaf(header: &Header, txs: &[Bytes]) -> ScriptBuf {
    script::build(&keys(1).reveal_key(), header, &payload::encode(txs).unwrap())
}

#[test]
fn a_three_deep_reorg_ends_where_one_that_saw_only_the_winner_ends() {
    let rig = Rig::new();
    let (_a, chain_a, mut a) = rig.ledger();
    let head = header(&chain_a);
    let fork = rig.bitcoin.tip().unwrap();
    a.catch_up().unwrap();

    let lost = [transfer(0, 0, TO, 111, 2), transfer(1, 0, TO, 222, 3)];
    let both = transfer(2, 0, TO, 333, 4);
    let mut at = rig.mine_on(fork.hash, rig.inscribe(1, &[leaf(&head, &lost)]), 1);
    at = rig.mine_on(
        at,
        rig.inscribe(2, &[leaf(&head, std::slice::from_ref(&both))]),
        2,
    );
    rig.mine_on(at, vec![], 3);
    a.catch_up().unwrap();
    let before = chain_a.tip().unwrap();
    assert_eq!(before.bitcoin_height, fork.height + 3);

    let other = transfer(0, 0, TO, 444, 5);
    let mut at = rig.mine_on(fork.hash, vec![], 11);
    at = rig.mine_on(at, rig.inscribe(2, &[leaf(&head, &[both, other])]), 12);
    at = rig.mine_on(at, vec![], 13);
    rig.mine_on(at, vec![], 14);
    a.catch_up().unwrap();

    let (_b, chain_b, mut b) = rig.ledger();
    b.catch_up().unwrap();
    let tip = chain_a.tip().unwrap();
    assert_eq!(tip, chain_b.tip().unwrap());
    assert_eq!(tip.bitcoin_height, fork.height + 4);
    assert_ne!(tip.state_root, before.state_root);
    assert_eq!(chain_a.head(), chain_b.head());
    assert_eq!(*a.tips().borrow(), Some(tip));
}

#[test]
fn two_ledgers_through_random_reorgs_agree_with_a_fresh_one() {
    let rig = Rig::new();
    let (_a, chain_a, mut a) = rig.ledger();
    let (_b, chain_b, mut b) = rig.ledger();
    let head = header(&chain_a);
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    // A coin for each block, so that no branch spends what another part of it has spent.
    rig.bitcoin.generate(90, &keys(1).script()).unwrap();
    let mut coin = 0;
    for round in 0..12u64 {
        let tip = rig.bitcoin.tip().unwrap();
        let depth = next(6).min(tip.height - 200);
        let mut at = rig.bitcoin.hash_at(tip.height - depth).unwrap().unwrap();
        for block in 0..=depth {
            coin += 1;
            let who = next(3) as u8;
            let txs = [transfer(
                who,
                next(3),
                TO,
                1 + u128::from(next(1000)),
                2 + u128::from(next(5)),
            )];
            let txs = rig.inscribe(coin, &[leaf(&head, &txs)]);
            at = rig.mine_on(at, txs, 1000 + round * 100 + block);
            if next(3) == 0 {
                a.catch_up().unwrap();
            }
        }
        if next(2) == 0 {
            b.catch_up().unwrap();
        }
    }
    a.catch_up().unwrap();
    b.catch_up().unwrap();
    let (_c, chain_c, mut c) = rig.ledger();
    c.catch_up().unwrap();
    assert_eq!(chain_a.head(), chain_c.head());
    assert_eq!(chain_b.head(), chain_c.head());
    assert_eq!(
        chain_c.tip().unwrap().bitcoin_hash.0,
        *AsRef::<[u8; 32]>::as_ref(&rig.bitcoin.tip().unwrap().hash)
    );
}

#[test]
fn malformed_and_foreign_envelopes_cost_their_neighbours_nothing() {
    let rig = Rig::new();
    let (_dir, chain, mut indexer) = rig.ledger();
    let head = header(&chain);
    let good = transfer(0, 0, TO, 5, 2);
    let key = keys(1).reveal_key();
    let foreign = Header {
        genesis_id: [0xff; 4],
        ..head
    };
    let mut cut = leaf(&head, &[transfer(1, 0, TO, 7, 2)]).into_bytes();
    // Another opcode where OP_ENDIF was; OP_ENDIF behind it keeps the script valid for Bitcoin.
    cut.pop();
    cut.extend([0x61, 0x68]);
    let leaves = [
        script::build(&key, &head, b"no zstd frame"),
        leaf(&foreign, &[transfer(1, 0, TO, 9, 2)]),
        ScriptBuf::from_bytes(cut),
        script::build(&key, &head, &[]),
        leaf(&head, &[Bytes::from_static(b"no transaction"), good.clone()]),
        script::build_drop(
            &key,
            &head,
            &payload::encode(&[transfer(2, 0, TO, 11, 2)]).unwrap(),
        ),
    ];
    let tip = rig.bitcoin.tip().unwrap();
    let at = rig.mine_on(tip.hash, rig.inscribe(1, &leaves), 1);
    assert_eq!(rig.bitcoin.tip().unwrap().hash, at);
    indexer.catch_up().unwrap();
    let balance = chain.view().unwrap().account(TO).unwrap().unwrap().balance;
    assert_eq!(balance, alloy_primitives::U256::from(5 + 11));
    rig.mine_on(at, vec![], 2);
    indexer.catch_up().unwrap();
    assert_eq!(chain.tip().unwrap().bitcoin_height, tip.height + 2);
}
