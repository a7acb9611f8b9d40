//! Rules of a block: order, nonces, duplicates, fees, gas by bytes, system contract, precompiles.

use crate::common::*;
use alloy::consensus::{SignableTransaction, TxEnvelope, TxLegacy};
use alloy::eips::eip2718::Encodable2718;
use alloy::signers::SignerSync;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use bitai_node::block::{BlockInput, Inscribed};
use bitai_node::state::Chain;
use bitai_node::transition::{BlockOutcome, SignedTx, TxError, execute};
use bitai_types::chain;
use blake3::hazmat::HasherExt;

const TO: Address = Address::repeat_byte(0x77);

fn run(chain: &Chain, envelopes: Vec<Inscribed>) -> BlockOutcome {
    run_block(chain, &next_block(chain, 0, envelopes))
}

fn run_block(chain: &Chain, block: &BlockInput) -> BlockOutcome {
    let (hash, header) = chain.head();
    execute(chain.genesis(), &header, hash, chain.view().unwrap(), block).unwrap()
}

fn hashes(outcome: &BlockOutcome) -> Vec<B256> {
    outcome.txs.iter().map(|t| *t.tx.tx_hash()).collect()
}

#[test]
fn the_dearest_goes_first_and_ties_go_by_place() {
    let (_dir, chain) = chain(4);
    let [a, b, c, d] = [(0, 3), (1, 9), (2, 3), (3, 5)].map(|(from, tip)| transfer(from, 0, TO, 1, tip));
    let outcome = run(
        &chain,
        vec![
            envelope(0, RECIPIENT, vec![a.clone(), b.clone()]),
            envelope(1, RECIPIENT, vec![c.clone(), d.clone()]),
        ],
    );
    assert_eq!(hashes(&outcome), [b, d, a, c].map(keccak256));
}

#[test]
fn nonces_of_a_sender_stay_in_sequence_whatever_they_pay() {
    let (_dir, chain) = chain(2);
    let first = transfer(0, 0, TO, 1, 1);
    let second = transfer(0, 1, TO, 1, 50);
    let other = transfer(1, 0, TO, 1, 10);
    let outcome = run(
        &chain,
        vec![envelope(
            0,
            RECIPIENT,
            vec![second.clone(), first.clone(), other.clone()],
        )],
    );
    assert_eq!(hashes(&outcome), [other, first, second].map(keccak256));
}

#[test]
fn drops_a_duplicate_unpaid() {
    let (_dir, chain) = chain(1);
    let tx = transfer(0, 0, TO, 7, 2);
    let outcome = run(
        &chain,
        vec![
            envelope(0, RECIPIENT, vec![tx.clone()]),
            envelope(1, Address::repeat_byte(9), vec![tx.clone()]),
        ],
    );
    assert_eq!(hashes(&outcome), [keccak256(&tx)]);
    assert_eq!(outcome.dropped.len(), 1);
    assert_eq!(
        outcome.dropped[0].reason,
        TxError::NonceTooLow { next: 1, got: 0 }
    );
    assert!(!outcome.changes.accounts.contains_key(&Address::repeat_byte(9)));
}

#[test]
fn of_two_with_one_nonce_the_dearer_runs() {
    let (_dir, chain) = chain(1);
    let cheap = transfer(0, 0, TO, 1, 1);
    let dear = transfer(0, 0, TO, 2, 3);
    let outcome = run(
        &chain,
        vec![envelope(0, RECIPIENT, vec![cheap.clone(), dear.clone()])],
    );
    assert_eq!(hashes(&outcome), [keccak256(dear)]);
    assert_eq!(outcome.dropped[0].hash, keccak256(cheap));
}

#[test]
fn drops_what_waits_for_a_missing_nonce() {
    let (_dir, chain) = chain(1);
    let outcome = run(
        &chain,
        vec![envelope(0, RECIPIENT, vec![transfer(0, 1, TO, 1, 1)])],
    );
    assert!(outcome.txs.is_empty());
    assert_eq!(
        outcome.dropped[0].reason,
        TxError::NonceTooHigh { next: 0, got: 1 }
    );
}

#[test]
fn money_may_arrive_in_the_same_block_from_a_cheaper_transaction() {
    let (_dir, chain) = chain(1);
    let poor = wallet(9).address();
    let gift = transfer(0, 0, poor, COIN, 1);
    let spends = [transfer(9, 0, TO, 5, 20), transfer(9, 1, TO, 6, 20)];
    let outcome = run(
        &chain,
        vec![envelope(
            0,
            RECIPIENT,
            vec![spends[1].clone(), spends[0].clone(), gift.clone()],
        )],
    );
    assert_eq!(hashes(&outcome), [&gift, &spends[0], &spends[1]].map(keccak256));
    assert!(outcome.dropped.is_empty());
}

#[test]
fn drops_what_the_sender_cannot_pay() {
    let (_dir, chain) = chain(1);
    let outcome = run(
        &chain,
        vec![envelope(0, RECIPIENT, vec![transfer(9, 0, TO, 5, 20)])],
    );
    assert!(matches!(
        outcome.dropped[0].reason,
        TxError::Funds { have: U256::ZERO, .. }
    ));
}

#[test]
fn each_envelope_names_who_gets_its_fees_and_the_base_fee_is_burned() {
    let (_dir, chain) = chain(2);
    let (left, right) = (Address::repeat_byte(0xaa), Address::repeat_byte(0xbb));
    let outcome = run(
        &chain,
        vec![
            envelope(0, left, vec![transfer(0, 0, TO, 1, 3)]),
            envelope(1, right, vec![transfer(1, 0, TO, 1, 5)]),
        ],
    );
    let balance = |a: Address| outcome.changes.accounts[&a].unwrap().balance;
    assert_eq!(balance(left), U256::from(21_000 * 3 * GWEI));
    assert_eq!(balance(right), U256::from(21_000 * 5 * GWEI));
    let base_fee = u128::from(outcome.header.base_fee_per_gas.unwrap());
    let paid = U256::from(100 * COIN) - balance(wallet(0).address());
    assert_eq!(paid, U256::from(1 + 21_000 * (3 * GWEI + base_fee)));
}

#[test]
fn coinbase_opcode_sees_the_fee_recipient() {
    let (_dir, chain) = chain(1);
    // COINBASE PUSH0 SSTORE
    let code = deployer(&[0x41, 0x5f, 0x55]);
    mine(&chain, vec![create(0, 0, code, 200_000)]);
    let contract = wallet(0).address().create(0);
    let who = Address::repeat_byte(0xcc);
    let outcome = run(
        &chain,
        vec![envelope(0, who, vec![call(0, 1, contract, Bytes::new(), 60_000)])],
    );
    assert_eq!(
        outcome.changes.storage[&(contract, U256::ZERO)],
        U256::from_be_slice(who.as_slice())
    );
}

#[test]
fn rejects_a_gas_limit_above_what_its_bytes_buy() {
    let (_dir, chain) = chain(1);
    let per_byte = chain.genesis().gas_per_byte;
    let len = call(0, 0, TO, Bytes::new(), 400_000).len() as u64;
    let edge = call(0, 0, TO, Bytes::new(), len * per_byte);
    assert_eq!(edge.len() as u64, len);
    assert!(SignedTx::decode(&edge, chain.genesis()).is_ok());
    let above = call(0, 0, TO, Bytes::new(), len * per_byte + 1);
    let outcome = run(&chain, vec![envelope(0, RECIPIENT, vec![above])]);
    assert!(matches!(outcome.dropped[0].reason, TxError::GasAboveBytes { .. }));
}

#[test]
fn compression_buys_no_gas() {
    let (_dir, chain) = chain(2);
    let txs = vec![
        call(0, 0, TO, Bytes::new(), 400_000),
        call(1, 0, TO, Bytes::new(), 400_000),
    ];
    let mut squeezed = envelope(0, RECIPIENT, txs);
    // As if both had been compressed into 150 bytes: gas for one of them.
    squeezed.payload_len = 150;
    let outcome = run(&chain, vec![squeezed]);
    assert_eq!(outcome.txs.len(), 1);
    assert_eq!(
        outcome.dropped[0].reason,
        TxError::EnvelopeGas {
            gas_limit: 400_000,
            left: 200_000
        }
    );
}

#[test]
fn rejects_transactions_of_no_chain_or_another() {
    let (_dir, chain) = chain(1);
    let legacy = |chain_id| {
        let tx = TxLegacy {
            chain_id,
            nonce: 0,
            gas_price: 50 * GWEI,
            gas_limit: 21_000,
            to: TxKind::Call(TO),
            value: U256::from(1),
            input: Bytes::new(),
        };
        let signature = wallet(0).sign_hash_sync(&tx.signature_hash()).unwrap();
        Bytes::from(TxEnvelope::from(tx.into_signed(signature)).encoded_2718())
    };
    let none = SignedTx::decode(&legacy(None), chain.genesis());
    assert_eq!(none.unwrap_err(), TxError::NoChainId { want: 22216 });
    let other = SignedTx::decode(&legacy(Some(1)), chain.genesis());
    assert_eq!(other.unwrap_err(), TxError::WrongChainId { want: 22216, got: 1 });
    assert!(SignedTx::decode(&legacy(Some(22216)), chain.genesis()).is_ok());
}

#[test]
fn rejects_blobs_garbage_and_trailing_bytes() {
    let (_dir, chain) = chain(1);
    let genesis = chain.genesis();
    assert_eq!(SignedTx::decode(&[3, 0xc0], genesis).unwrap_err(), TxError::Blob);
    for raw in [&[][..], &[0xc0], &[0x7f, 1, 2, 3], b"hello"] {
        assert!(
            matches!(SignedTx::decode(raw, genesis), Err(TxError::Malformed(_))),
            "{raw:?}"
        );
    }
    let mut long = transfer(0, 0, TO, 1, 1).to_vec();
    long.push(0);
    assert!(matches!(
        SignedTx::decode(&long, genesis),
        Err(TxError::Malformed(_))
    ));
}

#[test]
fn garbage_beside_a_good_transaction_costs_it_nothing() {
    let (_dir, chain) = chain(1);
    let good = transfer(0, 0, TO, 1, 1);
    let outcome = run(
        &chain,
        vec![envelope(
            0,
            RECIPIENT,
            vec![Bytes::from_static(b"junk"), good.clone(), Bytes::new()],
        )],
    );
    assert_eq!(hashes(&outcome), [keccak256(good)]);
    assert_eq!(outcome.dropped.len(), 2);
}

#[test]
fn a_revert_is_paid_and_leaves_no_logs() {
    let (_dir, chain) = chain(1);
    // LOG0 of nothing, then REVERT
    mine(
        &chain,
        vec![create(
            0,
            0,
            deployer(&[0x5f, 0x5f, 0xa0, 0x5f, 0x5f, 0xfd]),
            200_000,
        )],
    );
    let contract = wallet(0).address().create(0);
    let outcome = run(
        &chain,
        vec![envelope(
            0,
            RECIPIENT,
            vec![call(0, 1, contract, Bytes::new(), 60_000)],
        )],
    );
    let tx = &outcome.txs[0];
    assert!(!tx.success && tx.gas_used > 21_000 && tx.gas_used < 60_000);
    assert!(tx.logs.is_empty());
}

#[test]
fn header_hashes_answers_for_every_height() {
    let (_dir, chain) = chain(1);
    let block = next_block(&chain, 0, vec![]);
    let first = block.hash;
    mine(&chain, vec![]);
    mine(&chain, vec![]);
    let ask = |height: u64| {
        let mut evm = bitai_node::transition::evm::build(
            bitai_node::transition::overlay::Overlay::new(chain.view().unwrap()),
            bitai_node::transition::evm::cfg(chain.genesis()),
            bitai_node::transition::next_sight(chain.genesis(), &chain.head().1, B256::ZERO, 0)
                .env(Address::ZERO),
        );
        let data = U256::from(height).to_be_bytes::<32>();
        let raw = call(0, 0, chain::HEADER_HASHES, data.to_vec(), 60_000);
        let tx = SignedTx::decode(&raw, chain.genesis()).unwrap();
        let result = bitai_node::transition::evm::run(&mut evm, tx.env(), 0).unwrap();
        B256::from_slice(result.output().unwrap())
    };
    assert_eq!(ask(0), chain.genesis().start_hash);
    assert_eq!(ask(1), first);
    assert_ne!(ask(2), B256::ZERO);
    assert_eq!(ask(3), B256::ZERO);
}

#[test]
fn a_block_carries_bitcoins_hash_time_and_randomness() {
    let (_dir, chain) = chain(1);
    let mut block = next_block(&chain, 0, vec![]);
    let outcome = run_block(&chain, &block);
    assert_eq!(outcome.header.number, 1);
    assert_eq!(outcome.header.extra_data.as_ref(), block.hash.as_slice());
    assert_eq!(outcome.header.mix_hash, keccak256(block.hash));
    assert_eq!(outcome.header.timestamp, block.median_time_past);
    assert_eq!(outcome.header.parent_hash, chain.head().0);
    // Bitcoin's clock may stand still or run back; BitAI's never does.
    block.median_time_past = 5;
    assert_eq!(
        run_block(&chain, &block).header.timestamp,
        chain.genesis().start_time + 1
    );
}

#[test]
fn the_base_fee_follows_the_target_and_stops_at_the_floor() {
    use bitai_node::genesis::FeeRule;
    use bitai_node::transition::header::next_base_fee;
    let rule = FeeRule {
        initial_base_fee: 1000,
        min_base_fee: 10,
        gas_target: 100,
        change_denominator: 8,
    };
    assert_eq!(next_base_fee(&rule, 800, 100), 800);
    assert_eq!(next_base_fee(&rule, 800, 200), 900);
    assert_eq!(next_base_fee(&rule, 800, 0), 700);
    assert_eq!(next_base_fee(&rule, 10, 101), 11);
    assert_eq!(next_base_fee(&rule, 10, 0), 10);
    assert_eq!(next_base_fee(&rule, u64::MAX, u64::MAX), u64::MAX);
}

/// Calls a precompile inside the EVM; `None` where it fails.
pub(crate) fn precompile(chain: &Chain, address: Address, input: &[u8]) -> Option<Vec<u8>> {
    let mut evm = bitai_node::transition::evm::build(
        bitai_node::transition::overlay::Overlay::new(chain.view().unwrap()),
        bitai_node::transition::evm::cfg(chain.genesis()),
        bitai_node::transition::next_sight(chain.genesis(), &chain.head().1, B256::ZERO, 0)
            .env(Address::ZERO),
    );
    let raw = call(0, 0, address, input.to_vec(), 200_000 + 60 * input.len() as u64);
    let tx = SignedTx::decode(&raw, chain.genesis()).unwrap();
    let result = bitai_node::transition::evm::run(&mut evm, tx.env(), 0).unwrap();
    result.is_success().then(|| result.output().unwrap().to_vec())
}

#[test]
fn blake3_precompiles_agree_with_the_hash() {
    let (_dir, chain) = chain(1);
    // Lengths around a block (64), a chunk (1024) and a subtree.
    for len in [0usize, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 3000] {
        let data: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        assert_eq!(
            precompile(&chain, chain::BLAKE3, &data).unwrap(),
            blake3::hash(&data).as_bytes()
        );
        let key = [7u8; 32];
        let keyed = [&key[..], &data].concat();
        assert_eq!(
            precompile(&chain, chain::BLAKE3_KEYED, &keyed).unwrap(),
            blake3::keyed_hash(&key, &data).as_bytes()
        );
    }
}

#[test]
fn blake3_chaining_values_merge_into_the_root() {
    let (_dir, chain) = chain(1);
    let data: Vec<u8> = (0..3000u32).map(|i| (i % 251) as u8).collect();
    let cv = |chunk: u64, bytes: &[u8]| -> [u8; 32] {
        let input = [&chunk.to_le_bytes()[..], bytes].concat();
        precompile(&chain, chain::BLAKE3_CV, &input)
            .unwrap()
            .try_into()
            .unwrap()
    };
    let (left, right) = (cv(0, &data[..2048]), cv(2, &data[2048..]));
    let root = blake3::hazmat::merge_subtrees_root(&left, &right, blake3::hazmat::Mode::Hash);
    assert_eq!(root, blake3::hash(&data));
    let direct = blake3::Hasher::new()
        .set_input_offset(2048)
        .update(&data[2048..])
        .finalize_non_root();
    assert_eq!(right, direct);
}

#[test]
fn rejects_impossible_precompile_inputs() {
    let (_dir, chain) = chain(1);
    assert_eq!(precompile(&chain, chain::BLAKE3_KEYED, &[1; 31]), None);
    assert_eq!(precompile(&chain, chain::BLAKE3_CV, &[0; 7]), None);
    assert_eq!(
        precompile(&chain, chain::BLAKE3_CV, &[0; 8]),
        None,
        "an empty subtree"
    );
    let after_first = [&1u64.to_le_bytes()[..], &[5; 1025]].concat();
    assert_eq!(
        precompile(&chain, chain::BLAKE3_CV, &after_first),
        None,
        "chunk 1 stands alone"
    );
    let far = [&u64::MAX.to_le_bytes()[..], &[5; 10]].concat();
    assert_eq!(
        precompile(&chain, chain::BLAKE3_CV, &far),
        None,
        "beyond 2^64 bytes"
    );
}

#[test]
fn larger_code_than_ethereums_deploys() {
    let (_dir, chain) = chain(1);
    // Init code that returns 100,000 zero bytes: PUSH3 len PUSH0 RETURN.
    let mut code = vec![0x62, 0x01, 0x86, 0xa0, 0x5f, 0xf3];
    // Appended bytes buy the gas: 200 a byte of code, 4,000 a byte inscribed.
    code.extend_from_slice(&[0; 6_000]);
    let outcome = run(
        &chain,
        vec![envelope(0, RECIPIENT, vec![create(0, 0, code, 22_000_000)])],
    );
    assert!(outcome.txs[0].success);
    let code_hash = outcome.changes.accounts[&wallet(0).address().create(0)]
        .unwrap()
        .code_hash;
    assert_eq!(outcome.changes.codes[&code_hash].len(), 100_000);
}
