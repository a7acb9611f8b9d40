//! The ledger on disk: undo, restart, proofs, and agreement of chains that took different ways.

use crate::common::*;
use alloy::consensus::TrieAccount;
use alloy_primitives::{Address, Bytes, U256, keccak256};
use alloy_trie::Nibbles;
use alloy_trie::proof::verify_proof;
use bitai_node::block::BlockInput;
use bitai_node::genesis::GenesisError;
use bitai_node::indexer::{Ledger, LedgerError};
use bitai_node::state::{Chain, StateError, UNDO_BLOCKS};
use proptest::prelude::*;

/// Runtime code that stores calldata word 1 at slot calldata word 0, logs it, and reverts on empty calldata:
/// CALLDATASIZE PUSH1 6 JUMPI PUSH0 PUSH0 REVERT... laid out as: if size is zero, revert.
fn store_code() -> Vec<u8> {
    vec![
        0x36, 0x60, 0x06, 0x57, // CALLDATASIZE PUSH1 6 JUMPI
        0x5f, 0xfd, // PUSH0 (stack: 0) REVERT needs two: underflow halts, which is as good
        0x5b, // JUMPDEST
        0x60, 0x20, 0x35, // PUSH1 32 CALLDATALOAD (value)
        0x5f, 0x35, // PUSH0 CALLDATALOAD (slot)
        0x55, // SSTORE
        0x60, 0x20, 0x35, 0x5f, 0x5f, 0xa1, // LOG1 with the value as topic
    ]
}

fn store(from: u8, nonce: u64, contract: Address, slot: u64, value: u64) -> Bytes {
    let mut data = U256::from(slot).to_be_bytes::<32>().to_vec();
    data.extend_from_slice(&U256::from(value).to_be_bytes::<32>());
    call(from, nonce, contract, data, 100_000)
}

#[test]
fn rejects_a_block_out_of_sequence() {
    let (_dir, chain) = chain(1);
    let first = next_block(&chain, 0, vec![]);
    chain.apply(&first).unwrap();
    assert!(matches!(
        chain.apply(&first),
        Err(LedgerError::NotNext { expected: 2, got: 1 })
    ));
    let mut orphan = next_block(&chain, 0, vec![]);
    orphan.prev = keccak256("elsewhere");
    assert!(matches!(
        chain.apply(&orphan),
        Err(LedgerError::WrongParent { .. })
    ));
    assert_eq!(chain.tip().unwrap().height, 1);
}

#[test]
fn a_restart_finds_the_chain_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let chain = Chain::open(&path, genesis(2)).unwrap();
    mine(&chain, vec![create(0, 0, deployer(&store_code()), 300_000)]);
    mine(&chain, vec![store(0, 1, wallet(0).address().create(0), 5, 6)]);
    let (tip, head) = (chain.tip(), chain.head());
    drop(chain);
    let chain = Chain::open(&path, genesis(2)).unwrap();
    assert_eq!(chain.tip(), tip);
    assert_eq!(chain.head(), head);
    let contract = wallet(0).address().create(0);
    assert_eq!(
        chain.view().unwrap().slot(contract, U256::from(5)).unwrap(),
        U256::from(6)
    );
    mine(&chain, vec![transfer(1, 0, contract, 0, 1)]);
}

#[test]
fn rejects_a_genesis_with_an_envelope_format_that_it_cannot_read() {
    let mut genesis = genesis(1);
    genesis.check().unwrap();
    for version in [0, 2, 255] {
        genesis.envelope_version = version;
        assert_eq!(genesis.check(), Err(GenesisError::EnvelopeVersion(version)));
    }
}

#[test]
fn rejects_a_file_of_another_genesis() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    drop(Chain::open(&path, genesis(2)).unwrap());
    assert!(matches!(
        Chain::open(&path, genesis(3)),
        Err(StateError::OtherGenesis { .. })
    ));
}

#[test]
fn undoing_blocks_restores_the_old_root_and_the_old_answers() {
    let (_dir, chain) = chain(2);
    mine(&chain, vec![create(0, 0, deployer(&store_code()), 300_000)]);
    let contract = wallet(0).address().create(0);
    mine(&chain, vec![store(0, 1, contract, 1, 10)]);
    let before = (chain.tip(), chain.head());
    let doomed = store(0, 2, contract, 1, 0);
    mine(&chain, vec![doomed.clone()]);
    mine(&chain, vec![store(0, 3, contract, 2, 3)]);
    assert!(
        chain
            .view()
            .unwrap()
            .tx_place(keccak256(&doomed))
            .unwrap()
            .is_some()
    );
    let tip = chain.rewind(2).unwrap();
    assert_eq!((tip, chain.head()), before);
    let view = chain.view().unwrap();
    assert_eq!(view.slot(contract, U256::from(1)).unwrap(), U256::from(10));
    assert_eq!(view.tx_place(keccak256(&doomed)).unwrap(), None);
    assert_eq!(view.block(3).unwrap(), None);
}

#[test]
fn undoing_everything_is_genesis() {
    let (_dir, chain) = chain(2);
    let genesis = chain.head();
    mine(&chain, vec![transfer(0, 0, Address::repeat_byte(3), 5, 1)]);
    assert_eq!(chain.rewind(0).unwrap(), None);
    assert_eq!(chain.head(), genesis);
    assert_eq!(
        chain.view().unwrap().account(Address::repeat_byte(3)).unwrap(),
        None
    );
}

#[test]
fn a_reorg_beyond_the_undo_data_starts_again_from_genesis() {
    let (_dir, chain) = chain(1);
    let genesis = chain.head();
    for _ in 0..UNDO_BLOCKS + 2 {
        mine(&chain, vec![]);
    }
    assert!(chain.view_at(1).unwrap().is_none());
    assert_eq!(chain.rewind(1).unwrap(), None);
    assert_eq!(chain.head(), genesis);
    mine(&chain, vec![transfer(0, 0, Address::repeat_byte(3), 5, 1)]);
}

#[test]
fn an_earlier_state_answers_as_it_did() {
    let (_dir, chain) = chain(1);
    mine(&chain, vec![create(0, 0, deployer(&store_code()), 300_000)]);
    let contract = wallet(0).address().create(0);
    for value in 1..5 {
        mine(&chain, vec![store(0, value, contract, 9, value * 11)]);
    }
    for height in 2..=5u64 {
        let view = chain.view_at(height).unwrap().unwrap();
        let want = U256::from((height - 1) * 11);
        assert_eq!(view.slot(contract, U256::from(9)).unwrap(), want);
        assert_eq!(view.account(wallet(0).address()).unwrap().unwrap().nonce, height);
        check_proof(&chain, height, contract, U256::from(9));
    }
}

/// Verifies an account's and a slot's proof against the header's state root with alloy's verifier.
fn check_proof(chain: &Chain, height: u64, address: Address, slot: U256) {
    let view = chain.view_at(height).unwrap().unwrap();
    let (_, header) = view.header(height).unwrap().unwrap();
    let proof = view.prove(address, &[slot]).unwrap();
    let account = proof.account;
    let value =
        account.map(|a| alloy_rlp::encode(TrieAccount::new(a.nonce, a.balance, a.storage_root, a.code_hash)));
    verify_proof(
        header.state_root,
        Nibbles::unpack(keccak256(address)),
        value,
        &proof.nodes,
    )
    .unwrap();
    let (_, value, nodes) = &proof.slots[0];
    let value = (!value.is_zero()).then(|| alloy_rlp::encode(value));
    let root = account.map_or(alloy_trie::EMPTY_ROOT_HASH, |a| a.storage_root);
    verify_proof(
        root,
        Nibbles::unpack(keccak256(slot.to_be_bytes::<32>())),
        value,
        nodes,
    )
    .unwrap();
}

#[test]
fn proofs_hold_for_what_is_there_and_what_is_not() {
    let (_dir, chain) = chain(3);
    mine(&chain, vec![create(0, 0, deployer(&store_code()), 300_000)]);
    let contract = wallet(0).address().create(0);
    mine(
        &chain,
        (0..20).map(|i| store(0, 1 + i, contract, i, i + 1)).collect(),
    );
    for (address, slot) in [
        (contract, 3),
        (contract, 99),
        (wallet(1).address(), 0),
        (Address::repeat_byte(8), 0),
    ] {
        check_proof(&chain, 2, address, U256::from(slot));
    }
}

/// One action of a random history.
#[derive(Debug, Clone)]
enum Action {
    /// Send this much to a fresh or a known address.
    Send { from: u8, to: u8, value: u64 },
    /// Write a slot.
    Store { from: u8, slot: u64, value: u64 },
    /// Call the contract with nothing: it halts.
    Fail { from: u8 },
    /// Create another contract.
    Create { from: u8 },
    /// A transaction with a wrong nonce.
    Stray { from: u8, nonce: u64 },
}

fn action() -> impl Strategy<Value = Action> {
    let from = 0u8..3;
    prop_oneof![
        (from.clone(), any::<u8>(), any::<u64>()).prop_map(|(from, to, value)| Action::Send {
            from,
            to: to % 8,
            value
        }),
        (from.clone(), 0u64..6, 0u64..3).prop_map(|(from, slot, value)| Action::Store { from, slot, value }),
        from.clone().prop_map(|from| Action::Fail { from }),
        from.clone().prop_map(|from| Action::Create { from }),
        (from, 0u64..9).prop_map(|(from, nonce)| Action::Stray { from, nonce }),
    ]
}

/// A block of these actions on the chain's tip. Nonces are taken from the state, so that most run.
fn block_of(chain: &Chain, branch: u8, actions: &[Action]) -> BlockInput {
    let view = chain.view().unwrap();
    let mut nonces: Vec<u64> = (0..3)
        .map(|n| view.account(wallet(n).address()).unwrap().unwrap().nonce)
        .collect();
    let contract = wallet(0).address().create(0);
    let mut take = |from: u8| {
        nonces[usize::from(from)] += 1;
        nonces[usize::from(from)] - 1
    };
    let txs = actions
        .iter()
        .map(|action| match *action {
            Action::Send { from, to, value } => transfer(
                from,
                take(from),
                Address::repeat_byte(0xd0 + to),
                u128::from(value),
                1 + u128::from(to),
            ),
            Action::Store { from, slot, value } => store(from, take(from), contract, slot, value),
            Action::Fail { from } => call(from, take(from), contract, Bytes::new(), 50_000),
            Action::Create { from } => create(from, take(from), deployer(&store_code()), 300_000),
            Action::Stray { from, nonce } => transfer(from, nonce, contract, 0, 1),
        })
        .collect();
    next_block(chain, branch, vec![envelope(0, RECIPIENT, txs)])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// A chain that saw branches come and go ends as one that saw only the winning blocks.
    #[test]
    fn random_reorgs_leave_no_trace(
        rounds in proptest::collection::vec(
            (0u64..4, proptest::collection::vec(proptest::collection::vec(action(), 0..6), 1..4)), 1..6)
    ) {
        let (_dir, chain) = chain(3);
        let mut winning = vec![next_block(&chain, 0, vec![envelope(0, RECIPIENT, vec![create(0, 0, deployer(&store_code()), 300_000)])])];
        chain.apply(&winning[0]).unwrap();
        for (branch, (depth, blocks)) in (1u8..).zip(&rounds) {
            // Never below the block that makes the contract.
            let keep = (winning.len() as u64).saturating_sub(*depth).max(1);
            let tip = chain.rewind(keep).unwrap().unwrap();
            prop_assert_eq!(tip.height, keep);
            winning.truncate(usize::try_from(keep).unwrap());
            for actions in blocks {
                let block = block_of(&chain, branch, actions);
                chain.apply(&block).unwrap();
                winning.push(block);
            }
        }
        let (_other_dir, fresh) = self::chain(3);
        for block in &winning {
            fresh.apply(block).unwrap();
        }
        prop_assert_eq!(fresh.head(), chain.head());
        check_proof(&chain, winning.len() as u64, wallet(0).address().create(0), U256::from(1));
    }
}

/// A short history with everything in it. Its hashes are constants: whoever changes them changes consensus,
/// on purpose or not (a new revm, another field in a header).
#[test]
fn the_recorded_history_still_has_its_hashes() {
    let (_dir, chain) = chain(3);
    let mut seen = vec![hex::encode(chain.genesis().id()), hex::encode(chain.head().0)];
    mine(
        &chain,
        vec![
            create(0, 0, deployer(&store_code()), 300_000),
            transfer(1, 0, Address::repeat_byte(5), 77, 3),
        ],
    );
    let contract = wallet(0).address().create(0);
    mine(
        &chain,
        vec![
            store(0, 1, contract, 1, 10),
            store(2, 0, contract, 2, 20),
            transfer(1, 9, contract, 0, 1),
        ],
    );
    mine(&chain, vec![]);
    mine(
        &chain,
        vec![
            store(0, 2, contract, 1, 0),
            call(1, 1, contract, Bytes::new(), 50_000),
        ],
    );
    seen.extend([
        hex::encode(chain.head().1.state_root),
        hex::encode(chain.head().0),
    ]);
    assert_eq!(seen, RECORDED);
}

/// Genesis id, genesis block hash, state root and block hash after four blocks.
const RECORDED: [&str; 4] = [
    "057110e9",
    "8a9d94dc2ff13cf64561e710b698626c6cdb3a72c5d37558cd32f9ca792ce88a",
    "cf1948e1b6bdeea51eb99e38ad46759e43584facf0be22886b04438065b619de",
    "6f34b6fb7dce32c34c2225a69fc63e43a51eedcff3650e80cedd54a37bb5ec0f",
];
