//! A batch on its way: its payloads, and every version of commit and reveals that was ever signed for it.

use alloy_primitives::B256;
use bitcoin::{OutPoint, Transaction, TxOut, Txid};
use serde::{Deserialize, Serialize};

/// Transactions as hex of their consensus bytes.
mod hex_tx {
    use bitcoin::Transaction;
    use bitcoin::consensus::encode;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(txs: &[Transaction], to: S) -> Result<S::Ok, S::Error> {
        txs.iter()
            .map(encode::serialize_hex)
            .collect::<Vec<_>>()
            .serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Transaction>, D::Error> {
        Vec::<String>::deserialize(from)?
            .iter()
            .map(|hex| encode::deserialize_hex(hex).map_err(D::Error::custom))
            .collect()
    }
}

/// Commit and reveals, signed. A later version replaces an earlier one by fee; any of them may confirm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The commit, then one reveal for each part.
    #[serde(with = "hex_tx")]
    txs: Vec<Transaction>,
    /// What the commit spends.
    pub spent: Vec<(OutPoint, TxOut)>,
    /// Coins that reveals spend beside the commit's outputs, where the headroom was too little.
    #[serde(default)]
    pub added: Vec<(OutPoint, TxOut)>,
    /// Rate of commit and reveals, sat per 1,000 vB.
    pub rate: u64,
    /// Bitcoin height when it was signed.
    pub signed_at: u64,
}

impl Version {
    /// A version of `commit` and its reveals.
    pub fn new(
        commit: Transaction,
        reveals: Vec<Transaction>,
        spent: Vec<(OutPoint, TxOut)>,
        rate: u64,
        signed_at: u64,
    ) -> Self {
        let mut txs = vec![commit];
        txs.extend(reveals);
        Self {
            txs,
            spent,
            added: Vec::new(),
            rate,
            signed_at,
        }
    }

    /// The same with coins that its reveals spend as well.
    pub fn with_added(self, added: Vec<(OutPoint, TxOut)>) -> Self {
        Self { added, ..self }
    }

    /// The coins that reveal `part` spends beside the commit's output.
    pub fn added_to(&self, part: usize) -> Vec<(OutPoint, TxOut)> {
        let spends = |at: &OutPoint| {
            self.reveals()[part]
                .input
                .iter()
                .any(|i| i.previous_output == *at)
        };
        self.added.iter().filter(|(at, _)| spends(at)).cloned().collect()
    }

    /// The commit.
    pub fn commit(&self) -> &Transaction {
        &self.txs[0]
    }

    /// The reveals, one for each part.
    pub fn reveals(&self) -> &[Transaction] {
        &self.txs[1..]
    }

    /// Satoshis that the commit pays in fees.
    pub fn commit_fee(&self) -> u64 {
        let paid: u64 = self.spent.iter().map(|(_, o)| o.value.to_sat()).sum();
        paid - self.commit().output.iter().map(|o| o.value.to_sat()).sum::<u64>()
    }

    /// Satoshis that reveal `part` pays in fees.
    pub fn reveal_fee(&self, part: usize) -> u64 {
        let reveal = &self.reveals()[part];
        let added: u64 = self.added_to(part).iter().map(|(_, o)| o.value.to_sat()).sum();
        let paid = self.commit().output[part].value.to_sat() + added;
        paid - reveal.output.iter().map(|o| o.value.to_sat()).sum::<u64>()
    }

    /// Virtual bytes of everything.
    pub fn vbytes(&self) -> u64 {
        self.txs.iter().map(|tx| tx.vsize() as u64).sum()
    }
}

/// What one reveal carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Hashes of the BitAI transactions, in order.
    pub hashes: Vec<B256>,
    /// The payload, hex.
    #[serde(with = "hex::serde")]
    pub payload: Vec<u8>,
}

/// How a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// To be pushed until it confirms.
    Live,
    /// Deep enough under blocks to be let alone.
    Settled,
    /// Its funds vanished in a reorg; its transactions went back to the mempool.
    Dead,
}

/// A batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Counts up.
    pub id: u64,
    /// How it stands.
    pub stage: Stage,
    /// One for each reveal.
    pub parts: Vec<Part>,
    /// Every version signed, oldest first, never empty.
    pub versions: Vec<Version>,
}

impl Batch {
    /// The newest version.
    pub fn newest(&self) -> &Version {
        self.versions.last().expect("a batch is born with a version")
    }

    /// All txids that any version has.
    pub fn txids(&self) -> impl Iterator<Item = Txid> + '_ {
        self.versions
            .iter()
            .flat_map(|v| &v.txs)
            .map(Transaction::compute_txid)
    }
}
