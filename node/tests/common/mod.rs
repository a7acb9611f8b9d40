//! What several test binaries of the node share: a real bitcoind where there is one, and simple spends.
#![allow(dead_code)]

pub(crate) mod bitcoind;

use bitai_node::inscriber::keys::Keys;
use bitcoin::absolute::LockTime;
use bitcoin::{Amount, Network, OutPoint, Sequence, Transaction, TxIn, TxOut, Witness};

/// Keys for regtest from a byte.
pub(crate) fn keys(seed: u8) -> Keys {
    Keys::from_seed(&[seed; 32], Network::Regtest)
}

/// Spends `from` back to the same key, less `fee`, split over `outputs`.
pub(crate) fn spend(keys: &Keys, from: &[(OutPoint, TxOut)], fee: u64, outputs: u64) -> Transaction {
    let value: u64 = from.iter().map(|(_, o)| o.value.to_sat()).sum::<u64>() - fee;
    let mut tx = Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: from
            .iter()
            .map(|(previous_output, _)| TxIn {
                previous_output: *previous_output,
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: Witness::new(),
                script_sig: Default::default(),
            })
            .collect(),
        output: (0..outputs)
            .map(|_| TxOut {
                value: Amount::from_sat(value / outputs),
                script_pubkey: keys.script(),
            })
            .collect(),
    };
    let spent: Vec<TxOut> = from.iter().map(|(_, o)| o.clone()).collect();
    for i in 0..from.len() {
        keys.sign_funds(&mut tx, i, &spent);
    }
    tx
}

/// Output `vout` of `tx`, ready to be spent.
pub(crate) fn output(tx: &Transaction, vout: u32) -> (OutPoint, TxOut) {
    let txid = tx.compute_txid();
    (OutPoint { txid, vout }, tx.output[vout as usize].clone())
}
