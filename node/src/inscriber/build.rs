//! Builds and signs commit and reveals of a batch: pure, given coins and a rate.

use super::batch::{Part, Version};
use super::keys::Keys;
use crate::bitcoin::{CLUSTER_VBYTES_MAX, RELAY_WEIGHT_MAX, SatPerKvb};
use crate::envelope::{Header, script};
use bitcoin::absolute::LockTime;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};

/// Least value of a taproot output that nodes relay, satoshis.
const DUST: u64 = 330;
/// The commit funds its reveals for a rate this many times the first bid, so that a reveal can be replaced
/// by fee without touching the commit; less where the coins do not reach.
const HEADROOM: [u64; 3] = [4, 2, 1];
/// What a replacement pays on top of what it replaces, for its own bytes: the most that Bitcoin nodes ask
/// (BIP 125 rule 4 at the incremental relay fee of Core before 30; later ones ask a tenth).
pub const RELAY_STEP: SatPerKvb = SatPerKvb(1_000);
/// Virtual bytes of an input that spends a coin of ours, rounded up.
const INPUT_VBYTES: u64 = 58;
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
    /// What the commit funded is paid already, and no coin can be added.
    #[error(
        "the reveals pay all that their commit and free coins allow, {rate} sat per 1,000 vB are wanted; pay some to {address}"
    )]
    Headroom {
        /// Rate wanted.
        rate: u64,
        /// Where to pay.
        address: String,
    },
}

/// A version whose reveals are to pay more.
#[derive(Debug)]
pub struct Lingering<'a> {
    /// The version.
    pub old: &'a Version,
    /// Parts that no block has.
    pub open: Vec<usize>,
    /// Whether a block has the commit.
    pub commit_mined: bool,
    /// Coins that its reveals add and that a reorg took.
    pub lost: Vec<OutPoint>,
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

    /// The reveal of `part`, spending the commit's output first and then any coins of ours, paying `fee`.
    fn reveal(&self, part: &Part, from: &[Coin], fee: u64) -> Transaction {
        let leaf = self.leaf(part);
        let info = self.keys.commit_output(&leaf);
        let outs: Vec<TxOut> = from.iter().map(|(_, o)| o.clone()).collect();
        let back = total(from).saturating_sub(fee);
        let inputs = from.iter().map(|(at, _)| input(*at)).collect();
        let mut tx = transaction(inputs, vec![self.pay(back)]);
        self.keys.sign_reveal(&mut tx, 0, &outs, &leaf, &info);
        for i in 1..from.len() {
            self.keys.sign_funds(&mut tx, i, &outs);
        }
        tx
    }

    /// Virtual bytes of a first reveal: every value in it has a fixed width.
    fn reveal_vbytes(&self, part: &Part) -> u64 {
        self.reveal(part, &[(OutPoint::null(), self.pay(DUST))], 0)
            .vsize() as u64
    }

    /// Takes from `coins`, in their order, what commit and reveals need at `rate`.
    pub fn version(&self, coins: &[Coin], rate: SatPerKvb, height: u64) -> Result<Version, BuildError> {
        self.with_headroom(&[], coins, rate, rate, height)
    }

    /// A version with a new commit in the place of `old`'s: it spends the same coins and more from `coins`,
    /// which must be confirmed (BIP 125 rule 2), and pays more in all and per byte (rules 3, 4 and 6).
    pub fn with_dearer_commit(
        &self,
        old: &Version,
        coins: &[Coin],
        rate: SatPerKvb,
        height: u64,
    ) -> Result<Version, BuildError> {
        let paid = SatPerKvb::of(old.commit_fee(), old.commit().vsize() as u64);
        // `of` rounds down: one more makes up for it.
        let commit_rate = SatPerKvb(rate.0.max(paid.0 + 1 + RELAY_STEP.0));
        self.with_headroom(&old.spent, coins, rate, commit_rate, height)
    }

    /// As much headroom as the coins allow.
    fn with_headroom(
        &self,
        must: &[Coin],
        coins: &[Coin],
        rate: SatPerKvb,
        commit_rate: SatPerKvb,
        height: u64,
    ) -> Result<Version, BuildError> {
        let sizes: Vec<u64> = self.parts.iter().map(|p| self.reveal_vbytes(p)).collect();
        let mut version = None;
        for times in HEADROOM {
            let roomy = SatPerKvb(rate.0.saturating_mul(times).min(self.rate_max.0.max(rate.0)));
            match self.funded(must, coins, &sizes, roomy, commit_rate) {
                Ok((commit, spent)) => {
                    version = Some((commit, spent));
                    break;
                }
                Err(error) if times == HEADROOM[HEADROOM.len() - 1] => return Err(error),
                Err(_) => {}
            }
        }
        let (commit, spent) = version.expect("the last of HEADROOM returns where it fails");
        let txid = commit.compute_txid();
        let reveals = (0u32..)
            .zip(self.parts.iter().zip(&sizes))
            .map(|(vout, (part, vbytes))| {
                let from = (OutPoint { txid, vout }, commit.output[vout as usize].clone());
                self.reveal(part, &[from], rate.fee(*vbytes))
            })
            .collect();
        Ok(Version::new(commit, reveals, spent, rate.0, height))
    }

    /// A signed commit that funds reveals of these sizes at `roomy`, and what it spends: `must` and then as
    /// many of `coins` as it takes.
    fn funded(
        &self,
        must: &[Coin],
        coins: &[Coin],
        sizes: &[u64],
        roomy: SatPerKvb,
        commit_rate: SatPerKvb,
    ) -> Result<(Transaction, Vec<Coin>), BuildError> {
        let outputs: Vec<TxOut> = self
            .parts
            .iter()
            .zip(sizes)
            .map(|(part, vbytes)| TxOut {
                value: Amount::from_sat(DUST + roomy.fee(*vbytes)),
                script_pubkey: ScriptBuf::new_p2tr_tweaked(
                    self.keys.commit_output(&self.leaf(part)).output_key(),
                ),
            })
            .collect();
        let paid: u64 = outputs.iter().map(|o| o.value.to_sat()).sum();
        let mut spent: Vec<Coin> = must.to_vec();
        let mut coins = coins.iter();
        loop {
            let have = total(&spent);
            let fee = commit_rate.fee(self.commit_vbytes(spent.len(), &outputs));
            if !spent.is_empty() && have >= paid + fee {
                return Ok((self.sign_commit(&spent, outputs, paid + fee), spent));
            }
            match coins.next() {
                Some(coin) => spent.push(coin.clone()),
                None => {
                    return Err(BuildError::Funds {
                        need: paid + fee,
                        have,
                        address: self.keys.address().to_string(),
                    });
                }
            }
        }
    }

    /// Change goes behind the parts' outputs; less than dust goes to the fee.
    fn sign_commit(&self, spent: &[Coin], mut outputs: Vec<TxOut>, paid: u64) -> Transaction {
        let have = total(spent);
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

    /// The same commit with dearer reveals of the open parts; where it is unconfirmed, a reveal pays for both.
    /// A reveal pays what the commit funded, and where that is too little it spends `coins` as
    /// well; what cannot pay the whole of `rate` pays what it can. Parts that could not even pay
    /// [`RELAY_STEP`] more keep their reveal.
    pub fn with_dearer_reveals(
        &self,
        of: &Lingering<'_>,
        coins: &[Coin],
        rate: SatPerKvb,
        height: u64,
    ) -> Result<Version, BuildError> {
        let old = of.old;
        let commit = old.commit();
        let txid = commit.compute_txid();
        let parts = self.parts.len() as u64;
        let (share, size) = match of.commit_mined {
            true => (0, 0),
            false => (
                old.commit_fee().div_ceil(parts),
                (commit.vsize() as u64).div_ceil(parts),
            ),
        };
        // What hangs on an unconfirmed commit must fit a cluster with it.
        let vbytes_max = match of.commit_mined {
            true => RELAY_WEIGHT_MAX / 4,
            false => (RELAY_WEIGHT_MAX / 4).min(CLUSTER_VBYTES_MAX.saturating_sub(commit.vsize() as u64)),
        };
        let worth = rate.fee(INPUT_VBYTES);
        let mut coins = coins.iter().filter(|(_, o)| o.value.to_sat() > worth);
        let (mut reveals, mut added) = (old.reveals().to_vec(), old.added.clone());
        // The rate of the part that pays least, and whether any pays more than before.
        let (mut reached, mut better) = (rate, false);
        for &part in &of.open {
            let vout = u32::try_from(part).expect("a commit has as few outputs as fit a transaction");
            let mut from = vec![(OutPoint { txid, vout }, commit.output[part].clone())];
            from.extend(old.added_to(part));
            from.retain(|(at, _)| !of.lost.contains(at));
            let (reveal, fee) = loop {
                let sized = self.reveal(&self.parts[part], &from, 0);
                let want = rate.fee(sized.vsize() as u64 + size).saturating_sub(share);
                let most = total(&from) - DUST;
                let fits = sized.vsize() as u64 + INPUT_VBYTES <= vbytes_max;
                let more = if want > most && fits { coins.next() } else { None };
                match more {
                    Some(coin) => from.push(coin.clone()),
                    None => {
                        let fee = want.min(most);
                        break (self.reveal(&self.parts[part], &from, fee), fee);
                    }
                }
            };
            let vbytes = reveal.vsize() as u64;
            let was = old.reveals()[part].vsize() as u64;
            let fee_was = old.reveal_fee(part);
            if fee < fee_was + RELAY_STEP.fee(vbytes)
                || SatPerKvb::of(fee, vbytes) <= SatPerKvb::of(fee_was, was)
            {
                reached = reached.min(SatPerKvb::of(fee_was + share, was + size));
                continue;
            }
            reached = reached.min(SatPerKvb::of(fee + share, vbytes + size));
            reveals[part] = reveal;
            let before: Vec<OutPoint> = old.added_to(part).into_iter().map(|(at, _)| at).collect();
            added.retain(|(at, _)| !before.contains(at));
            added.extend(from.into_iter().skip(1));
            better = true;
        }
        if !better {
            return Err(BuildError::Headroom {
                rate: rate.0,
                address: self.keys.address().to_string(),
            });
        }
        Ok(Version::new(commit.clone(), reveals, old.spent.clone(), reached.0, height).with_added(added))
    }
}

fn total(coins: &[Coin]) -> u64 {
    coins.iter().map(|(_, o)| o.value.to_sat()).sum()
}
