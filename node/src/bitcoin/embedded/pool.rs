//! The embedded chain's transaction pool: what waits for a block. Rules follow Bitcoin Core's relay policy
//! where it matters to the inscriber (weight, fees, dust, replacement by fee, cluster limits); scripts are
//! verified by Bitcoin Core's own code. Relative time locks are refused: nothing here makes one.

use super::super::{CLUSTER_TXS_MAX, CLUSTER_VBYTES_MAX, RELAY_WEIGHT_MAX, Refusal, SatPerKvb};
use super::coins::{Coin, Coins};
use bitcoin::absolute::{Height, Time};
use bitcoin::{OutPoint, Transaction, TxOut, Txid};
use bitcoinkernel::{
    PrecomputedTransactionData, ScriptPubkey, Transaction as KernelTx, TxOut as KernelOut, verify,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Least rate of a transaction, and what each virtual byte of a replacement pays on top (Core 30 and later).
const MIN_RATE: SatPerKvb = SatPerKvb(100);
/// Blocks before a coinbase may be spent.
const MATURITY: u64 = 100;
/// Weight left to transactions in a block, after header and coinbase.
const BLOCK_WEIGHT: u64 = 3_990_000;
/// Signature operations cost in a block, less the coinbase's.
const BLOCK_SIGOPS: usize = 79_000;

/// A waiting transaction.
#[derive(Debug, Clone)]
struct Entry {
    tx: Transaction,
    fee: u64,
    vbytes: u64,
    sigops: usize,
}

/// The pool.
#[derive(Debug, Default)]
pub(super) struct Pool {
    entries: BTreeMap<Txid, Entry>,
    spenders: HashMap<OutPoint, Txid>,
}

/// Class and words of a refusal.
type Refused = (Refusal, String);

impl Pool {
    pub(super) fn contains(&self, txid: &Txid) -> bool {
        self.entries.contains_key(txid)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes a transaction that may go into the block after `height`, or says why not.
    pub(super) fn add(
        &mut self,
        tx: &Transaction,
        coins: &Coins,
        median_time_past: u64,
        max_rate: SatPerKvb,
    ) -> Result<(), Refused> {
        let height = coins.height();
        let invalid = |why: &str| (Refusal::Invalid, why.to_owned());
        if tx.is_coinbase() || tx.input.is_empty() || tx.output.is_empty() {
            return Err(invalid("coinbase or without inputs or outputs"));
        }
        if !(1..=3).contains(&tx.version.0) {
            return Err(invalid("version"));
        }
        if tx.weight().to_wu() > RELAY_WEIGHT_MAX {
            return Err(invalid("tx-size"));
        }
        if tx
            .output
            .iter()
            .any(|o| !o.script_pubkey.is_op_return() && o.value < o.script_pubkey.minimal_non_dust())
        {
            return Err(invalid("dust"));
        }
        let next = u32::try_from(height + 1)
            .ok()
            .and_then(|h| Height::from_consensus(h).ok());
        let time = u32::try_from(median_time_past)
            .ok()
            .and_then(|t| Time::from_consensus(t).ok());
        let locked = match (next, time) {
            (Some(next), Some(time)) => !tx.is_absolute_timelock_satisfied(next, time),
            _ => true,
        };
        if locked {
            return Err(invalid("non-final"));
        }
        if tx.version.0 >= 2
            && tx
                .input
                .iter()
                .any(|i| i.sequence.to_relative_lock_time().is_some_and(|l| !is_zero(l)))
        {
            return Err(invalid("non-BIP68-final"));
        }
        let spent = self.spent_outputs(tx, coins, height)?;
        let fee = fee_of(tx, &spent)?;
        let vbytes = tx.vsize() as u64;
        let rate = SatPerKvb::of(fee, vbytes);
        if rate > max_rate {
            return Err((
                Refusal::FeeTooHigh,
                format!("max-fee-exceeded: {} > {} sat/kvB", rate.0, max_rate.0),
            ));
        }
        if fee < MIN_RATE.fee(vbytes) {
            return Err((
                Refusal::FeeTooLow,
                format!("min relay fee not met, {fee} < {}", MIN_RATE.fee(vbytes)),
            ));
        }
        let evicted = self.replaced(tx, fee, vbytes)?;
        self.check_cluster(tx, vbytes, &evicted)?;
        verify_scripts(tx, &spent).map_err(|e| (Refusal::Invalid, e))?;
        let by_outpoint: HashMap<OutPoint, TxOut> =
            tx.input.iter().map(|i| i.previous_output).zip(spent).collect();
        let sigops = tx.total_sigop_cost(|at| by_outpoint.get(at).cloned());
        for txid in evicted {
            self.remove(&txid);
        }
        let txid = tx.compute_txid();
        for input in &tx.input {
            self.spenders.insert(input.previous_output, txid);
        }
        let entry = Entry {
            tx: tx.clone(),
            fee,
            vbytes,
            sigops,
        };
        self.entries.insert(txid, entry);
        Ok(())
    }

    /// The outputs that `tx` spends, from blocks or from the pool.
    fn spent_outputs(&self, tx: &Transaction, coins: &Coins, height: u64) -> Result<Vec<TxOut>, Refused> {
        let mut seen = BTreeSet::new();
        tx.input
            .iter()
            .map(|input| {
                let at = input.previous_output;
                if !seen.insert(at) {
                    return Err((Refusal::Invalid, "bad-txns-inputs-duplicate".into()));
                }
                match coins.get(&at) {
                    Some(Coin {
                        coinbase: true,
                        height: made,
                        ..
                    }) if height + 1 < made + MATURITY => {
                        Err((Refusal::Invalid, "bad-txns-premature-spend-of-coinbase".into()))
                    }
                    Some(coin) => Ok(coin.out.clone()),
                    None => self
                        .entries
                        .get(&at.txid)
                        .and_then(|e| e.tx.output.get(at.vout as usize))
                        .cloned()
                        .ok_or_else(|| (Refusal::MissingInputs, format!("missing-inputs: {at}"))),
                }
            })
            .collect()
    }

    /// What `tx` would push out: whoever spends one of its inputs, with descendants (BIP 125 without opt-in).
    fn replaced(&self, tx: &Transaction, fee: u64, vbytes: u64) -> Result<BTreeSet<Txid>, Refused> {
        let direct: BTreeSet<Txid> = tx
            .input
            .iter()
            .filter_map(|i| self.spenders.get(&i.previous_output))
            .copied()
            .collect();
        if direct.is_empty() {
            return Ok(direct);
        }
        let mut all = BTreeSet::new();
        for txid in &direct {
            self.with_descendants(txid, &mut all);
        }
        if tx.input.iter().any(|i| all.contains(&i.previous_output.txid)) {
            return Err((Refusal::Invalid, "bad-txns-spends-conflicting-tx".into()));
        }
        let old: u64 = all.iter().map(|t| self.entries[t].fee).sum();
        let least = old + MIN_RATE.fee(vbytes);
        if fee < least {
            return Err((Refusal::Replacement, format!("insufficient fee, {fee} < {least}")));
        }
        let beats = |t: &Txid| {
            let e = &self.entries[t];
            SatPerKvb::of(fee, vbytes) > SatPerKvb::of(e.fee, e.vbytes)
        };
        if !direct.iter().all(beats) {
            return Err((
                Refusal::Replacement,
                "insufficient feerate: does not improve on what it replaces".into(),
            ));
        }
        Ok(all)
    }

    fn with_descendants(&self, txid: &Txid, into: &mut BTreeSet<Txid>) {
        if !into.insert(*txid) {
            return;
        }
        for vout in 0..self.entries.get(txid).map_or(0, |e| e.tx.output.len()) {
            let at = OutPoint {
                txid: *txid,
                vout: vout as u32,
            };
            if let Some(child) = self.spenders.get(&at).copied() {
                self.with_descendants(&child, into);
            }
        }
    }

    /// Everything unconfirmed that hangs together with `tx` must fit a cluster.
    fn check_cluster(&self, tx: &Transaction, vbytes: u64, without: &BTreeSet<Txid>) -> Result<(), Refused> {
        let mut seen = BTreeSet::new();
        let mut todo: Vec<Txid> = tx.input.iter().map(|i| i.previous_output.txid).collect();
        while let Some(txid) = todo.pop() {
            let Some(entry) = self.entries.get(&txid) else {
                continue;
            };
            if without.contains(&txid) || !seen.insert(txid) {
                continue;
            }
            todo.extend(entry.tx.input.iter().map(|i| i.previous_output.txid));
            for vout in 0..entry.tx.output.len() {
                let at = OutPoint {
                    txid,
                    vout: vout as u32,
                };
                todo.extend(self.spenders.get(&at));
            }
        }
        let size: u64 = seen.iter().map(|t| self.entries[t].vbytes).sum::<u64>() + vbytes;
        if seen.len() + 1 > CLUSTER_TXS_MAX || size > CLUSTER_VBYTES_MAX {
            // A transaction alone may be larger than a cluster of several.
            if !seen.is_empty() {
                return Err((
                    Refusal::Cluster,
                    format!("too-large-cluster: {} txs, {size} vB", seen.len() + 1),
                ));
            }
        }
        Ok(())
    }

    fn remove(&mut self, txid: &Txid) {
        if let Some(entry) = self.entries.remove(txid) {
            for input in &entry.tx.input {
                if self.spenders.get(&input.previous_output) == Some(txid) {
                    self.spenders.remove(&input.previous_output);
                }
            }
        }
    }

    /// Forgets what a connected block has, and whatever spends the same coins otherwise.
    pub(super) fn connected(&mut self, txs: &[Transaction]) {
        for tx in txs {
            self.remove(&tx.compute_txid());
        }
        for tx in txs {
            for input in &tx.input {
                if let Some(rival) = self.spenders.get(&input.previous_output).copied() {
                    let mut all = BTreeSet::new();
                    self.with_descendants(&rival, &mut all);
                    for txid in all {
                        self.remove(&txid);
                    }
                }
            }
        }
    }

    /// Takes everything out, parents before children: after a reorg it is offered again.
    pub(super) fn drain(&mut self) -> Vec<Transaction> {
        let (txs, _) = self.select(u64::MAX, usize::MAX);
        self.entries.clear();
        self.spenders.clear();
        txs
    }

    /// Transactions of the next block, parents first, and their fees: again and again the entry whose
    /// unconfirmed ancestors and itself pay best together.
    pub(super) fn template(&self) -> (Vec<Transaction>, u64) {
        self.select(BLOCK_WEIGHT, BLOCK_SIGOPS)
    }

    fn select(&self, weight_max: u64, sigops_max: usize) -> (Vec<Transaction>, u64) {
        let mut taken: BTreeSet<Txid> = BTreeSet::new();
        let mut skipped: BTreeSet<Txid> = BTreeSet::new();
        let (mut txs, mut fees, mut weight, mut sigops) = (Vec::new(), 0, 0u64, 0usize);
        loop {
            let best = self
                .entries
                .keys()
                .filter(|t| !taken.contains(*t) && !skipped.contains(*t))
                .map(|txid| {
                    let mut package = Vec::new();
                    self.ancestors_first(txid, &taken, &mut package);
                    let fee: u64 = package.iter().map(|t| self.entries[t].fee).sum();
                    let vbytes: u64 = package.iter().map(|t| self.entries[t].vbytes).sum();
                    (SatPerKvb::of(fee, vbytes), *txid, package)
                })
                .max_by_key(|(rate, txid, _)| (*rate, std::cmp::Reverse(*txid)));
            let Some((_, txid, package)) = best else {
                return (txs, fees);
            };
            let add: u64 = package.iter().map(|t| self.entries[t].tx.weight().to_wu()).sum();
            let ops: usize = package.iter().map(|t| self.entries[t].sigops).sum();
            if weight.saturating_add(add) > weight_max || sigops.saturating_add(ops) > sigops_max {
                skipped.insert(txid);
                continue;
            }
            (weight, sigops) = (weight + add, sigops + ops);
            for t in package {
                txs.push(self.entries[&t].tx.clone());
                fees += self.entries[&t].fee;
                taken.insert(t);
            }
        }
    }

    /// `txid` and its ancestors that are in the pool and not in `taken`, parents first.
    fn ancestors_first(&self, txid: &Txid, taken: &BTreeSet<Txid>, into: &mut Vec<Txid>) {
        if taken.contains(txid) || into.contains(txid) {
            return;
        }
        if let Some(entry) = self.entries.get(txid) {
            for input in &entry.tx.input {
                self.ancestors_first(&input.previous_output.txid, taken, into);
            }
            into.push(*txid);
        }
    }
}

fn is_zero(lock: bitcoin::relative::LockTime) -> bool {
    match lock {
        bitcoin::relative::LockTime::Blocks(h) => h.value() == 0,
        bitcoin::relative::LockTime::Time(t) => t.value() == 0,
    }
}

fn fee_of(tx: &Transaction, spent: &[TxOut]) -> Result<u64, Refused> {
    let add = |sum: u64, out: &TxOut| sum.checked_add(out.value.to_sat());
    let have = spent.iter().try_fold(0, add);
    let want = tx.output.iter().try_fold(0, add);
    match (have, want) {
        (Some(have), Some(want)) if have >= want => Ok(have - want),
        _ => Err((Refusal::Invalid, "bad-txns-in-belowout".into())),
    }
}

fn verify_scripts(tx: &Transaction, spent: &[TxOut]) -> Result<(), String> {
    let fail = |e: bitcoinkernel::KernelError| format!("script-verify-flag-failed: {e}");
    let kernel_tx = KernelTx::new(&bitcoin::consensus::encode::serialize(tx)).map_err(fail)?;
    let mut outs = Vec::with_capacity(spent.len());
    for out in spent {
        let script = ScriptPubkey::new(out.script_pubkey.as_bytes()).map_err(fail)?;
        let amount = i64::try_from(out.value.to_sat()).map_err(|e| e.to_string())?;
        outs.push((script, amount));
    }
    let kernel_outs: Vec<KernelOut> = outs.iter().map(|(s, a)| KernelOut::new(s, *a)).collect();
    let data = PrecomputedTransactionData::new(&kernel_tx, &kernel_outs).map_err(fail)?;
    for (i, (script, amount)) in outs.iter().enumerate() {
        verify(script, Some(*amount), &kernel_tx, i, None, &data).map_err(fail)?;
    }
    Ok(())
}
