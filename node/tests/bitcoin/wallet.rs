//! Keys, simple spends, and reveals of any script: what the inscriber would make, and what it would not.

use bitai_node::inscriber::keys::Keys;
use bitcoin::absolute::LockTime;
use bitcoin::{Amount, Network, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};

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

/// A commit that spends `from` to one output for each leaf script, and a reveal of each.
#[cfg_attr(not(feature = "embedded-bitcoin"), allow(dead_code))]
pub(crate) fn reveals(keys: &Keys, from: (OutPoint, TxOut), leaves: &[ScriptBuf]) -> Vec<Transaction> {
    let each = (from.1.value.to_sat() - 10_000) / leaves.len() as u64;
    let infos: Vec<_> = leaves.iter().map(|leaf| keys.commit_output(leaf)).collect();
    let pay = |script_pubkey: ScriptBuf, sats: u64| TxOut {
        value: Amount::from_sat(sats),
        script_pubkey,
    };
    let mut commit = unsigned(from.0);
    commit.output = infos
        .iter()
        .map(|info| pay(ScriptBuf::new_p2tr_tweaked(info.output_key()), each))
        .collect();
    keys.sign_funds(&mut commit, 0, &[from.1]);
    let mut txs = vec![commit.clone()];
    for (vout, (leaf, info)) in (0u32..).zip(leaves.iter().zip(&infos)) {
        let (at, out) = output(&commit, vout);
        let mut reveal = unsigned(at);
        reveal.output = vec![pay(keys.script(), each - 50_000)];
        keys.sign_reveal(&mut reveal, 0, &[out], leaf as &Script, info);
        txs.push(reveal);
    }
    txs
}

fn unsigned(previous_output: OutPoint) -> Transaction {
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output,
            ..TxIn::default()
        }],
        output: vec![],
    }
}
