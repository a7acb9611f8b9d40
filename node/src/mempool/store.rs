//! The mempool on disk, so that a restart loses nothing.

use alloy_primitives::{B256, Bytes};
use alloy_rlp::{Decodable, RlpDecodable, RlpEncodable};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::path::Path;

use crate::state::StateError;

/// Transaction hash -> record.
const POOL: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("pool");

/// A transaction as kept.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub(super) struct Record {
    /// Order of arrival.
    pub(super) seq: u64,
    /// Raw bytes.
    pub(super) raw: Bytes,
    /// Reveal that carries it; zero where none does yet.
    pub(super) reveal_txid: B256,
    /// BitAI height when it was inscribed.
    pub(super) since: u64,
}

/// The file.
#[derive(Debug)]
pub(super) struct Store(Database);

impl Store {
    pub(super) fn open(path: &Path) -> Result<Self, StateError> {
        let db = Database::create(path)?;
        let txn = db.begin_write()?;
        txn.open_table(POOL)?;
        txn.commit()?;
        Ok(Store(db))
    }

    /// Everything kept; a damaged record is left out with a warning, since its sender can send it again.
    pub(super) fn load(&self) -> Result<Vec<Record>, StateError> {
        let txn = self.0.begin_read()?;
        let table = txn.open_table(POOL)?;
        let mut records = Vec::new();
        for item in table.iter()? {
            let (key, value) = item?;
            match Record::decode(&mut value.value()) {
                Ok(record) => records.push(record),
                Err(error) => {
                    tracing::warn!(hash = hex::encode(key.value()), %error, "mempool: damaged record left out");
                }
            }
        }
        Ok(records)
    }

    /// Writes and removes, in one transaction.
    pub(super) fn write(
        &self,
        put: impl IntoIterator<Item = (B256, Record)>,
        remove: impl IntoIterator<Item = B256>,
    ) -> Result<(), StateError> {
        let txn = self.0.begin_write()?;
        {
            let mut table = txn.open_table(POOL)?;
            for hash in remove {
                table.remove(hash.as_slice())?;
            }
            for (hash, record) in put {
                table.insert(hash.as_slice(), alloy_rlp::encode(record).as_slice())?;
            }
        }
        txn.commit()?;
        Ok(())
    }
}
