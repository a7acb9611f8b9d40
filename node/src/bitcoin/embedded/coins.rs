//! The unspent outputs of the embedded chain's best chain, with what undoes each block. The consensus
//! library keeps the same set but shows it to nobody.

use bitcoin::{Block, BlockHash, OutPoint, TxOut, Txid};
use std::collections::{BTreeMap, HashMap};

/// An unspent output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Coin {
    /// Value and script.
    pub(super) out: TxOut,
    /// Height of its block.
    pub(super) height: u64,
    /// Whether a coinbase made it.
    pub(super) coinbase: bool,
}

/// What a block changed.
#[derive(Debug)]
struct Undo {
    hash: BlockHash,
    txids: Vec<Txid>,
    created: Vec<OutPoint>,
    spent: Vec<(OutPoint, Coin)>,
}

/// Coins and the blocks that made them so, genesis excluded (its coinbase cannot be spent).
#[derive(Debug, Default)]
pub(super) struct Coins {
    coins: BTreeMap<OutPoint, Coin>,
    undo: Vec<Undo>,
    mined_at: HashMap<Txid, u64>,
}

impl Coins {
    /// Height of the newest block connected; 0 = genesis.
    pub(super) fn height(&self) -> u64 {
        self.undo.len() as u64
    }

    /// Hash of the block connected at `height`.
    pub(super) fn hash_at(&self, height: u64) -> Option<BlockHash> {
        let index = usize::try_from(height.checked_sub(1)?).ok()?;
        self.undo.get(index).map(|undo| undo.hash)
    }

    /// The coin, if unspent.
    pub(super) fn get(&self, at: &OutPoint) -> Option<&Coin> {
        self.coins.get(at)
    }

    /// Height of the block that has this transaction.
    pub(super) fn mined_at(&self, txid: &Txid) -> Option<u64> {
        self.mined_at.get(txid).copied()
    }

    /// Connects the next block, which consensus already took.
    pub(super) fn connect(&mut self, block: &Block) {
        let height = self.height() + 1;
        let mut undo = Undo {
            hash: block.block_hash(),
            txids: Vec::new(),
            created: Vec::new(),
            spent: Vec::new(),
        };
        for (i, tx) in block.txdata.iter().enumerate() {
            let txid = tx.compute_txid();
            for input in &tx.input {
                if let Some(coin) = self.coins.remove(&input.previous_output) {
                    undo.spent.push((input.previous_output, coin));
                }
            }
            for (vout, out) in (0u32..).zip(&tx.output) {
                if out.script_pubkey.is_op_return() {
                    continue;
                }
                let at = OutPoint { txid, vout };
                let coin = Coin {
                    out: out.clone(),
                    height,
                    coinbase: i == 0,
                };
                self.coins.insert(at, coin);
                undo.created.push(at);
            }
            self.mined_at.insert(txid, height);
            undo.txids.push(txid);
        }
        self.undo.push(undo);
    }

    /// Disconnects the newest block.
    pub(super) fn disconnect(&mut self) {
        let Some(undo) = self.undo.pop() else {
            return;
        };
        // A coin made and spent in the block is in both lists: put back first, then taken away.
        for (at, coin) in undo.spent {
            self.coins.insert(at, coin);
        }
        for at in undo.created {
            self.coins.remove(&at);
        }
        for txid in undo.txids {
            self.mined_at.remove(&txid);
        }
    }
}
