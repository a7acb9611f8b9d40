//! Builds and signs commit and reveals of a batch: pure, given coins and a rate.

use super::batch::{Part, Version};
use super::keys::Keys;
use crate::bitcoin::SatPerKvb;
use crate::envelope::{Header, script};
use bitcoin::absolute::LockTime;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};

/// Least value of a taproot output that nodes relay, satoshis.
const DUST: u64 = 330;
/// The commit funds its reveals for a rate this many times the first bid, so that a reveal can be replaced
/// by fee without touching the commit.
const HEADROOM: u64 = 4;
/// Bytes of a key-path signature (BIP 341, default sighash).
const SIGNATURE: usize = 64;

/// A coin that may be spent.
pub type Coin = (OutPoint, TxOut);

/// Why a version cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// Too few satoshis.
    #[error("inscribing needs {need} sat, {have} sat can be spent; pay some to {address}")]
    Funds {
        /// Needed.
        need: u64,
        /// There.
        have: u64,
        /// Where to pay.
        address: String,
    },
    /// The rate is above what the commit funded.
    #[error("the commit funds its reveal with {most} sat, {fee} sat are wanted")]
    Headroom {
        /// Most that the reveal can pay.
        most: u64,
        /// Wanted.
        fee: u64,
    },
}

/// What stays the same over all versions of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Builder<'a> {
    /// Keys of funds and reveals.
    pub keys: &'a Keys,
    /// Header of the envelopes.
    pub header: Header,
    /// Payloads.
    pub parts: &'a [Part],
    /// No rate goes above this.
    pub rate_max: SatPerKvb,
}

fn input(previous_output: OutPoint) -> TxIn {
    TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    }
}

fn transaction(input: Vec<TxIn>, output: Vec<TxOut>) -> Transaction {
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input,
        output,
    }
}

impl Builder<'_> {
    fn leaf(&self, part: &Part) -> ScriptBuf {
        script::build(&self.keys.reveal_key(), &self.header, &part.payload)
    }

    fn pay(&self, sats: u64) -> TxOut {
        TxOut {
            value: Amount::from_sat(sats),
            script_pubkey: self.keys.script(),
        }
    }

    /// The reveal of `part`, spending `from`, paying `fee`.
    fn reveal(&self, part: &Part, from: Coin, fee: u64) -> Transaction {
        let leaf = self.leaf(part);
        let info = self.keys.commit_output(&leaf);
        let back = from.1.value.to_sat().saturating_sub(fee);
        let mut tx = transaction(vec![input(from.0)], vec![self.pay(back)]);
        self.keys.sign_reveal(&mut tx, 0, &[from.1], &leaf, &info);
        tx
    }

    /// Virtual bytes of a reveal: every value in it has a fixed width.
    fn reveal_vbytes(&self, part: &Part) -> u64 {
        self.reveal(part, (OutPoint::null(), self.pay(DUST)), 0).vsize() as u64
    }

    /// Takes from `coins`, in their order, what commit and reveals need at `rate`; `must` are spent in any
    /// case (a replacement spends what it replaces).
    pub fn version(
        &self,
        must: &[Coin],
        coins: impl IntoIterator<Item = Coin>,
        rate: SatPerKvb,
        height: u64,
    ) -> Result<Version, BuildError> {
        let roomy = SatPerKvb(rate.0.saturating_mul(HEADROOM).min(self.rate_max.0.max(rate.0)));
        let sizes: Vec<u64> = self.parts.iter().map(|p| self.reveal_vbytes(p)).collect();
        let outputs: Vec<TxOut> = self
            .parts
            .iter()
            .zip(&sizes)
            .map(|(part, vbytes)| TxOut {
                value: Amount::from_sat(DUST + roomy.fee(*vbytes)),
                script_pubkey: ScriptBuf::new_p2tr_tweaked(
                    self.keys.commit_output(&self.leaf(part)).output_key(),
                ),
            })
            .collect();
        let paid: u64 = outputs.iter().map(|o| o.value.to_sat()).sum();
        let mut spent: Vec<Coin> = must.to_vec();
        let mut coins = coins.into_iter();
        let fee = loop {
            let have: u64 = spent.iter().map(|(_, o)| o.value.to_sat()).sum();
            let fee = rate.fee(self.commit_vbytes(spent.len(), &outputs));
            if !spent.is_empty() && have >= paid + fee {
                break fee;
            }
            match coins.next() {
                Some(coin) => spent.push(coin),
                None => {
                    return Err(BuildError::Funds {
                        need: paid + fee,
                        have,
                        address: self.keys.address().to_string(),
                    });
                }
            }
        };
        let commit = self.sign_commit(&spent, outputs, paid + fee);
        let txid = commit.compute_txid();
        let reveals = (0u32..)
            .zip(self.parts.iter().zip(&sizes))
            .map(|(vout, (part, vbytes))| {
                let from = (OutPoint { txid, vout }, commit.output[vout as usize].clone());
                self.reveal(part, from, rate.fee(*vbytes))
            })
            .collect();
        Ok(Version::new(commit, reveals, spent, rate.0, height))
    }

    /// Change goes behind the parts' outputs; less than dust goes to the fee.
    fn sign_commit(&self, spent: &[Coin], mut outputs: Vec<TxOut>, paid: u64) -> Transaction {
        let have: u64 = spent.iter().map(|(_, o)| o.value.to_sat()).sum();
        if have - paid >= DUST {
            outputs.push(self.pay(have - paid));
        }
        let mut commit = transaction(spent.iter().map(|(at, _)| input(*at)).collect(), outputs);
        let outs: Vec<TxOut> = spent.iter().map(|(_, o)| o.clone()).collect();
        for i in 0..spent.len() {
            self.keys.sign_funds(&mut commit, i, &outs);
        }
        commit
    }

    /// Virtual bytes of a commit with change.
    fn commit_vbytes(&self, inputs: usize, outputs: &[TxOut]) -> u64 {
        let mut sized = input(OutPoint::null());
        sized.witness = Witness::from_slice(&[[0; SIGNATURE]]);
        let mut outputs = outputs.to_vec();
        outputs.push(self.pay(DUST));
        transaction(vec![sized; inputs], outputs).vsize() as u64
    }

    /// The same commit with reveals at a higher rate; where the commit is unconfirmed, a reveal pays for both.
    pub fn with_dearer_reveals(
        &self,
        old: &Version,
        commit_mined: bool,
        rate: SatPerKvb,
        height: u64,
    ) -> Result<Version, BuildError> {
        let commit = old.commit().clone();
        let txid = commit.compute_txid();
        let share = old.commit_fee().div_ceil(self.parts.len() as u64);
        let size = (commit.vsize() as u64).div_ceil(self.parts.len() as u64);
        let mut reveals = Vec::with_capacity(self.parts.len());
        for (vout, part) in (0u32..).zip(self.parts) {
            let from = (OutPoint { txid, vout }, commit.output[vout as usize].clone());
            let vbytes = self.reveal_vbytes(part);
            let fee = match commit_mined {
                true => rate.fee(vbytes),
                false => rate.fee(vbytes + size).saturating_sub(share),
            };
            let most = from.1.value.to_sat() - DUST;
            if fee > most {
                return Err(BuildError::Headroom { most, fee });
            }
            reveals.push(self.reveal(part, from, fee));
        }
        Ok(Version::new(commit, reveals, old.spent.clone(), rate.0, height))
    }
}
