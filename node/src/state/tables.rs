//! The tables, and the one way to write them: a batch, applied in one transaction, whose old values are
//! kept so that a reorg can put them back.

use redb::{ReadableTable, TableDefinition, WriteTransaction};
use std::collections::BTreeMap;

use super::error::StateError;

/// A table of bytes under bytes.
pub(crate) type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// The tables that a block changes. Heights are 8 bytes big-endian, so that order is order of height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Table {
    /// Address -> account record.
    Accounts = 0,
    /// Address, slot -> value (32 bytes).
    Storage = 1,
    /// Code hash -> runtime code.
    Codes = 2,
    /// 0 + path, or 1 + address + path -> trie node.
    Trie = 3,
    /// Height -> block hash, header.
    Headers = 4,
    /// Height -> transactions with what they did.
    Bodies = 5,
    /// Transaction hash -> height, index.
    TxIndex = 6,
    /// Block hash -> height.
    Hashes = 7,
    /// Transaction hash -> why a block dropped it.
    Dropped = 8,
}

impl Table {
    /// All of them, by number.
    pub(crate) const ALL: [Table; 9] = [
        Table::Accounts,
        Table::Storage,
        Table::Codes,
        Table::Trie,
        Table::Headers,
        Table::Bodies,
        Table::TxIndex,
        Table::Hashes,
        Table::Dropped,
    ];

    /// redb's name of it.
    pub(crate) const fn definition(self) -> Definition {
        TableDefinition::new(match self {
            Table::Accounts => "accounts",
            Table::Storage => "storage",
            Table::Codes => "codes",
            Table::Trie => "trie",
            Table::Headers => "headers",
            Table::Bodies => "bodies",
            Table::TxIndex => "tx_index",
            Table::Hashes => "hashes",
            Table::Dropped => "dropped",
        })
    }
}

/// Height -> the values that a block replaced.
pub(crate) const UNDO: Definition = TableDefinition::new("undo");
/// What the file is about: `genesis` -> hash.
pub(crate) const META: Definition = TableDefinition::new("meta");

/// Changes: `None` deletes.
pub(crate) type Batch = BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>;

/// Applies a batch and returns the old values of everything that really changed.
pub(crate) fn apply(txn: &WriteTransaction, batch: &Batch) -> Result<Batch, StateError> {
    let mut undo = Batch::new();
    for which in Table::ALL {
        let mut table = txn.open_table(which.definition())?;
        for ((_, key), value) in batch
            .range((which, Vec::new())..)
            .take_while(|((t, _), _)| *t == which)
        {
            let old = table.get(key.as_slice())?.map(|guard| guard.value().to_vec());
            if old == *value {
                continue;
            }
            match value {
                Some(value) => table.insert(key.as_slice(), value.as_slice())?,
                None => table.remove(key.as_slice())?,
            };
            undo.insert((which, key.clone()), old);
        }
    }
    Ok(undo)
}

/// Undo records as bytes: table, key length and key, then 0, or 1, value length and value.
pub(crate) fn encode(batch: &Batch) -> Vec<u8> {
    let mut out = Vec::new();
    for ((table, key), value) in batch {
        out.push(*table as u8);
        put(&mut out, key);
        match value {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                put(&mut out, value);
            }
        }
    }
    out
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    // A record is at most a block's body: far below 4 GiB.
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode(mut bytes: &[u8]) -> Result<Batch, StateError> {
    let bad = || StateError::corrupt("undo record");
    let mut batch = Batch::new();
    while let Some((table, rest)) = bytes.split_first() {
        bytes = rest;
        let table = *Table::ALL.get(usize::from(*table)).ok_or_else(bad)?;
        let key = take(&mut bytes).ok_or_else(bad)?;
        let (has, rest) = bytes.split_first().ok_or_else(bad)?;
        bytes = rest;
        let value = match has {
            0 => None,
            1 => Some(take(&mut bytes).ok_or_else(bad)?),
            _ => return Err(bad()),
        };
        batch.insert((table, key), value);
    }
    Ok(batch)
}

fn take(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    let (value, rest) = rest.split_at_checked(len)?;
    *bytes = rest;
    Some(value.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn undo_records_round_trip(entries in proptest::collection::vec((0usize..9, any::<Vec<u8>>(), any::<Option<Vec<u8>>>()), 0..20)) {
            let batch: Batch = entries.into_iter().map(|(t, k, v)| ((Table::ALL[t], k), v)).collect();
            prop_assert_eq!(decode(&encode(&batch)).unwrap(), batch);
        }

        #[test]
        fn undo_decoder_survives_any_bytes(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
