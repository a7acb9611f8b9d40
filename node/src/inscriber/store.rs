//! What the inscriber knows, on disk: its coins (found by scanning blocks), where it stands in Bitcoin's
//! chain and how to go back, its batches. Every write is one durable redb transaction.

use super::batch::{Batch, Stage};
use super::fate::Fate;
use super::source::BatchRecord;
use crate::bitcoin::{BackendError, BlockRef, HeaderInfo, b256};
use crate::follow::Follower;
use alloy_primitives::B256;
use bitcoin::hashes::Hash;
use bitcoin::{Block, BlockHash, OutPoint, ScriptBuf, TxOut, Txid};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Outpoint (36 bytes) -> [`Coin`].
const COINS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("coins");
/// Bitcoin height -> [`Undo`].
const CHAIN: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("chain");
/// Txid of ours -> Bitcoin height of its block.
const MINED: TableDefinition<'_, &[u8], u64> = TableDefinition::new("mined");
/// Id -> [`Batch`].
const BATCHES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("batches");
/// Ids of the batches that are still to be pushed.
const LIVE: TableDefinition<'_, u64, ()> = TableDefinition::new("live");
/// BitAI transaction -> (batch, part).
const CARRIED: TableDefinition<'_, &[u8], (u64, u32)> = TableDefinition::new("carried");
/// Txid of any version of any batch -> batch.
const OURS: TableDefinition<'_, &[u8], u64> = TableDefinition::new("ours");

/// Blocks before a coinbase may be spent.
const MATURITY: u64 = 100;

/// Why the inscriber cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Disk.
    #[error("the inscriber's database: {0}; is the disk full, or another node using it?")]
    Database(String),
    /// Bytes that this version did not write.
    #[error("the inscriber's database holds a record that cannot be read: {0}")]
    Record(String),
    /// Bitcoin, while following it.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(e: E) -> Self {
        Self::Database(e.into().to_string())
    }
}

/// An unspent confirmed output of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coin {
    /// Value and script.
    pub out: TxOut,
    /// Bitcoin height of its block.
    pub height: u64,
    /// Whether a coinbase made it.
    pub coinbase: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Undo {
    hash: BlockHash,
    created: Vec<OutPoint>,
    spent: Vec<(OutPoint, Coin)>,
    mined: Vec<Txid>,
}

/// The database.
#[derive(Debug)]
pub struct Store {
    db: Database,
    script: ScriptBuf,
    start_height: u64,
}

fn key(at: &OutPoint) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(at.txid.as_byte_array());
    key[32..].copy_from_slice(&at.vout.to_be_bytes());
    key
}

fn outpoint(key: &[u8]) -> Result<OutPoint, StoreError> {
    let bad = || StoreError::Record(format!("outpoint of {} bytes", key.len()));
    let (txid, vout) = key.split_at_checked(32).ok_or_else(bad)?;
    Ok(OutPoint {
        txid: Txid::from_slice(txid).map_err(|_| bad())?,
        vout: u32::from_be_bytes(vout.try_into().map_err(|_| bad())?),
    })
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|e| StoreError::Record(e.to_string()))
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|e| StoreError::Record(e.to_string()))
}

impl Store {
    /// Opens or makes the database of the coins that pay `script`, in blocks after `start_height`.
    pub fn open(path: &Path, script: ScriptBuf, start_height: u64) -> Result<Self, StoreError> {
        let db = Database::create(path)?;
        let write = db.begin_write()?;
        write.open_table(COINS)?;
        write.open_table(CHAIN)?;
        write.open_table(MINED)?;
        write.open_table(BATCHES)?;
        write.open_table(LIVE)?;
        write.open_table(CARRIED)?;
        write.open_table(OURS)?;
        write.commit()?;
        Ok(Self {
            db,
            script,
            start_height,
        })
    }

    /// Bitcoin height scanned.
    pub fn height(&self) -> Result<u64, StoreError> {
        let table = self.db.begin_read()?.open_table(CHAIN)?;
        Ok(table.last()?.map_or(self.start_height, |(h, _)| h.value()))
    }

    /// Height of the block that has this transaction of ours.
    pub fn mined_at(&self, txid: &Txid) -> Result<Option<u64>, StoreError> {
        let table = self.db.begin_read()?.open_table(MINED)?;
        Ok(table.get(&txid.as_byte_array()[..])?.map(|h| h.value()))
    }

    /// What may still become of this batch.
    pub fn fate<'a>(&self, batch: &'a Batch) -> Result<Fate<'a>, StoreError> {
        let table = self.db.begin_read()?.open_table(MINED)?;
        let mut mined = BTreeMap::new();
        for txid in batch.txids() {
            if let Some(height) = table.get(&txid.as_byte_array()[..])? {
                mined.insert(txid, height.value());
            }
        }
        Ok(Fate::new(batch, mined))
    }

    /// Confirmed coins, immature coinbases included.
    pub fn coins(&self) -> Result<BTreeMap<OutPoint, Coin>, StoreError> {
        let table = self.db.begin_read()?.open_table(COINS)?;
        let mut coins = BTreeMap::new();
        for row in table.iter()? {
            let (at, coin) = row?;
            coins.insert(outpoint(at.value())?, decode(coin.value())?);
        }
        Ok(coins)
    }

    /// What can be spent now: mature confirmed coins, and change of the commits of live batches; less what
    /// any transaction that may still confirm spends. For each whether it is confirmed. What a reveal pays
    /// back counts once a block has it: until then another reveal may take its place.
    pub fn spendable(&self, live: &[Batch]) -> Result<BTreeMap<OutPoint, (TxOut, bool)>, StoreError> {
        let height = self.height()?;
        let mut free: BTreeMap<OutPoint, (TxOut, bool)> = self
            .coins()?
            .into_iter()
            .filter(|(_, c)| !c.coinbase || height + 1 >= c.height + MATURITY)
            .map(|(at, c)| (at, (c.out, true)))
            .collect();
        let mut spent = BTreeSet::new();
        for batch in live {
            let fate = self.fate(batch)?;
            for tx in fate.pending() {
                spent.extend(tx.input.iter().map(|i| i.previous_output));
            }
            let commit = fate.current().commit();
            if fate.mined_at(commit).is_some() {
                continue;
            }
            let txid = commit.compute_txid();
            for (vout, out) in (0u32..).zip(&commit.output) {
                if out.script_pubkey == self.script {
                    free.insert(OutPoint { txid, vout }, (out.clone(), false));
                }
            }
        }
        free.retain(|at, _| !spent.contains(at));
        Ok(free)
    }

    /// Batches that are still to be pushed, oldest first.
    pub fn live(&self) -> Result<Vec<Batch>, StoreError> {
        let read = self.db.begin_read()?;
        let batches = read.open_table(BATCHES)?;
        let mut live = Vec::new();
        for row in read.open_table(LIVE)?.iter()? {
            let id = row?.0.value();
            let batch = batches
                .get(id)?
                .ok_or_else(|| StoreError::Record(format!("batch {id} is missing")))?;
            live.push(decode(batch.value())?);
        }
        Ok(live)
    }

    /// The id of the next batch.
    pub fn next_id(&self) -> Result<u64, StoreError> {
        let table = self.db.begin_read()?.open_table(BATCHES)?;
        Ok(table.last()?.map_or(0, |(id, _)| id.value() + 1))
    }

    /// Writes a batch, durable when it returns.
    pub fn put(&self, batch: &Batch) -> Result<(), StoreError> {
        let write = self.db.begin_write()?;
        write.open_table(BATCHES)?.insert(batch.id, &encode(batch)?[..])?;
        {
            let mut live = write.open_table(LIVE)?;
            if batch.stage == Stage::Live {
                live.insert(batch.id, ())?;
            } else {
                live.remove(batch.id)?;
            }
            let mut carried = write.open_table(CARRIED)?;
            for (part, hashes) in (0u32..).zip(batch.parts.iter().map(|p| &p.hashes)) {
                for hash in hashes {
                    carried.insert(&hash[..], (batch.id, part))?;
                }
            }
            let mut ours = write.open_table(OURS)?;
            for txid in batch.txids() {
                ours.insert(&txid.as_byte_array()[..], batch.id)?;
            }
        }
        write.commit()?;
        Ok(())
    }

    /// The newest batch that carries this BitAI transaction, and in which part.
    pub fn carrier(&self, tx_hash: &B256) -> Result<Option<(Batch, usize)>, StoreError> {
        let read = self.db.begin_read()?;
        let Some((id, part)) = read.open_table(CARRIED)?.get(&tx_hash[..])?.map(|v| v.value()) else {
            return Ok(None);
        };
        let batch = read
            .open_table(BATCHES)?
            .get(id)?
            .map(|b| decode::<Batch>(b.value()))
            .transpose()?;
        Ok(batch
            .filter(|b| b.parts.len() > part as usize)
            .map(|b| (b, part as usize)))
    }

    /// What `bitai_getInscription` tells of a BitAI transaction.
    pub fn record(&self, tx_hash: &B256) -> Result<Option<BatchRecord>, StoreError> {
        let Some((batch, part)) = self.carrier(tx_hash)? else {
            return Ok(None);
        };
        if batch.stage == Stage::Dead {
            return Ok(None);
        }
        let fate = self.fate(&batch)?;
        // A reveal that confirmed speaks for itself, whichever version it is of.
        let confirmed = batch
            .versions
            .iter()
            .find(|v| fate.mined_at(&v.reveals()[part]).is_some());
        let version = confirmed.unwrap_or_else(|| fate.current());
        let reveal = &version.reveals()[part];
        let reveal_txid = reveal.compute_txid();
        let parts = batch.parts.len() as u64;
        Ok(Some(BatchRecord {
            commit_txid: b256(version.commit().compute_txid()),
            reveal_txid: b256(reveal_txid),
            vbytes: reveal.vsize() as u64 + (version.commit().vsize() as u64).div_ceil(parts),
            fee_sats: version.reveal_fee(part) + version.commit_fee().div_ceil(parts),
            batch: u32::try_from(batch.parts[part].hashes.len()).unwrap_or(u32::MAX),
            payload_bytes: batch.parts[part].payload.len() as u64,
            bitcoin_height: fate.mined_at(reveal),
        }))
    }

    /// A batch that was given up lives again when a block has its commit after all: the commit's outputs can
    /// only be spent by its reveals.
    fn revive(&self, write: &WriteTransaction, id: u64) -> Result<(), StoreError> {
        let mut batches = write.open_table(BATCHES)?;
        let batch = batches.get(id)?.map(|b| decode::<Batch>(b.value())).transpose()?;
        if let Some(batch) = batch.filter(|b| b.stage == Stage::Dead) {
            let batch = Batch {
                stage: Stage::Live,
                ..batch
            };
            batches.insert(id, &encode(&batch)?[..])?;
            write.open_table(LIVE)?.insert(id, ())?;
        }
        Ok(())
    }

    /// Undoes the newest block.
    fn disconnect(&self, write: &WriteTransaction) -> Result<(), StoreError> {
        let Some((_, undo)) = write
            .open_table(CHAIN)?
            .pop_last()?
            .map(|(h, u)| Ok::<_, StoreError>((h.value(), decode::<Undo>(u.value())?)))
            .transpose()?
        else {
            return Ok(());
        };
        let mut coins = write.open_table(COINS)?;
        // A coin made and spent in the block is in both lists: put back first, then taken away.
        for (at, coin) in &undo.spent {
            coins.insert(&key(at)[..], &encode(coin)?[..])?;
        }
        for at in &undo.created {
            coins.remove(&key(at)[..])?;
        }
        let mut mined = write.open_table(MINED)?;
        for txid in &undo.mined {
            mined.remove(&txid.as_byte_array()[..])?;
        }
        Ok(())
    }
}

/// The coins follow Bitcoin by themselves, so that a ledger that replays does not disturb them.
impl Follower for &Store {
    type Error = StoreError;

    fn start_height(&self) -> u64 {
        self.start_height
    }

    fn place(&self) -> Result<Option<BlockRef>, StoreError> {
        let table = self.db.begin_read()?.open_table(CHAIN)?;
        table
            .last()?
            .map(|(height, undo)| {
                Ok(BlockRef {
                    height: height.value(),
                    hash: decode::<Undo>(undo.value())?.hash,
                })
            })
            .transpose()
    }

    fn own_hash_at(&self, height: u64) -> Result<Option<BlockHash>, StoreError> {
        let table = self.db.begin_read()?.open_table(CHAIN)?;
        table
            .get(height)?
            .map(|undo| Ok(decode::<Undo>(undo.value())?.hash))
            .transpose()
    }

    fn undo_to(&mut self, height: u64) -> Result<(), StoreError> {
        let write = self.db.begin_write()?;
        while write
            .open_table(CHAIN)?
            .last()?
            .is_some_and(|(h, _)| h.value() > height)
        {
            self.disconnect(&write)?;
        }
        write.commit()?;
        Ok(())
    }

    fn connect(&mut self, info: &HeaderInfo, block: &Block) -> Result<(), StoreError> {
        let write = self.db.begin_write()?;
        let mut touched = BTreeSet::new();
        let mut undo = Undo {
            hash: info.header.block_hash(),
            created: Vec::new(),
            spent: Vec::new(),
            mined: Vec::new(),
        };
        {
            let mut coins = write.open_table(COINS)?;
            let mut mined = write.open_table(MINED)?;
            let ours = write.open_table(OURS)?;
            for (i, tx) in block.txdata.iter().enumerate() {
                let txid = tx.compute_txid();
                if let Some(id) = ours.get(&txid.as_byte_array()[..])? {
                    touched.insert(id.value());
                    mined.insert(&txid.as_byte_array()[..], info.height)?;
                    undo.mined.push(txid);
                }
                for input in &tx.input {
                    let at = input.previous_output;
                    let coin = coins
                        .remove(&key(&at)[..])?
                        .map(|c| decode(c.value()))
                        .transpose()?;
                    undo.spent.extend(coin.map(|c| (at, c)));
                }
                for (vout, out) in (0u32..).zip(&tx.output) {
                    if out.script_pubkey == self.script {
                        let coin = Coin {
                            out: out.clone(),
                            height: info.height,
                            coinbase: i == 0,
                        };
                        let at = OutPoint { txid, vout };
                        coins.insert(&key(&at)[..], &encode(&coin)?[..])?;
                        undo.created.push(at);
                    }
                }
            }
        }
        for id in touched {
            self.revive(&write, id)?;
        }
        write
            .open_table(CHAIN)?
            .insert(info.height, &encode(&undo)?[..])?;
        write.commit()?;
        Ok(())
    }
}
