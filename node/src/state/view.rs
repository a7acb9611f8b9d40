//! A consistent look at the state and the blocks: one redb snapshot, perhaps with newer blocks undone, so
//! that a reader never sees half a block and never holds up the writer.

use alloy::consensus::Header;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable};
use revm::bytecode::Bytecode;
use revm::database_interface::DatabaseRef;
use revm::state::AccountInfo;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::StateError;
use super::records::{self, Account, DroppedRecord};
use super::tables::{self, Batch, Table, UNDO};
use super::trie::{self, EMPTY_ROOT, NodeStore};
use crate::transition::ExecutedTx;

type Bytes2Bytes = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// A block as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBlock {
    /// Its hash.
    pub hash: B256,
    /// Its header.
    pub header: Header,
    /// Its transactions with what they did, in order.
    pub txs: Vec<ExecutedTx>,
}

/// Proof of an account and some of its slots (EIP-1186).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountProof {
    /// The account; `None` where the proof shows its absence.
    pub account: Option<Account>,
    /// Nodes from the state root.
    pub nodes: Vec<Bytes>,
    /// Slot, value, nodes from the storage root.
    pub slots: Vec<(U256, U256, Vec<Bytes>)>,
}

/// A snapshot. Cheap to clone.
#[derive(Clone)]
pub struct View {
    tables: Arc<BTreeMap<Table, Bytes2Bytes>>,
    /// Values that later blocks replaced, where this looks at an earlier state.
    past: Option<Arc<Batch>>,
    /// Height of the state.
    height: u64,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View")
            .field("height", &self.height)
            .field("past", &self.past.is_some())
            .finish()
    }
}

impl View {
    /// The newest state.
    pub(crate) fn newest(db: &Database) -> Result<Self, StateError> {
        let txn = db.begin_read()?;
        Self::of(&txn)
    }

    fn of(txn: &redb::ReadTransaction) -> Result<Self, StateError> {
        let mut opened = BTreeMap::new();
        for table in Table::ALL {
            opened.insert(table, txn.open_table(table.definition())?);
        }
        let mut view = View {
            tables: Arc::new(opened),
            past: None,
            height: 0,
        };
        view.height = view.tip()?.1.number;
        Ok(view)
    }

    /// The state after the block at `height`; `None` where undo data do not reach, or it is above the tip.
    pub(crate) fn at(db: &Database, height: u64) -> Result<Option<Self>, StateError> {
        let txn = db.begin_read()?;
        let mut view = Self::of(&txn)?;
        if height > view.height {
            return Ok(None);
        }
        if height == view.height {
            return Ok(Some(view));
        }
        let undo = txn.open_table(UNDO)?;
        let mut past = Batch::new();
        // Newest first: what the block after `height` replaced is written last and stays.
        for undone in (height + 1..=view.height).rev() {
            let Some(record) = undo.get(undone.to_be_bytes().as_slice())? else {
                return Ok(None);
            };
            past.extend(tables::decode(record.value())?);
        }
        view.past = Some(Arc::new(past));
        view.height = height;
        Ok(Some(view))
    }

    /// Height whose state this is.
    pub fn height(&self) -> u64 {
        self.height
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        if let Some(value) = self
            .past
            .as_ref()
            .and_then(|past| past.get(&(table, key.to_vec())))
        {
            return Ok(value.clone());
        }
        Ok(self.table(table).get(key)?.map(|guard| guard.value().to_vec()))
    }

    fn table(&self, table: Table) -> &Bytes2Bytes {
        self.tables
            .get(&table)
            .expect("every table is opened with the view")
    }

    /// Hash and header of the newest block of the chain (also where this looks at an earlier state).
    pub fn tip(&self) -> Result<(B256, Header), StateError> {
        let last = self.table(Table::Headers).last()?;
        let (_, value) = last.ok_or_else(|| StateError::corrupt("no genesis header"))?;
        records::decode_header(value.value())
    }

    /// Hash and header at a height.
    pub fn header(&self, height: u64) -> Result<Option<(B256, Header)>, StateError> {
        self.table(Table::Headers)
            .get(height.to_be_bytes().as_slice())?
            .map(|guard| records::decode_header(guard.value()))
            .transpose()
    }

    /// Height of a block hash.
    pub fn height_of(&self, hash: B256) -> Result<Option<u64>, StateError> {
        let Some(guard) = self.table(Table::Hashes).get(hash.as_slice())? else {
            return Ok(None);
        };
        number(guard.value()).map(Some)
    }

    /// The block at a height.
    pub fn block(&self, height: u64) -> Result<Option<StoredBlock>, StateError> {
        let Some((hash, header)) = self.header(height)? else {
            return Ok(None);
        };
        Ok(Some(StoredBlock {
            hash,
            header,
            txs: self.body(height)?,
        }))
    }

    /// The transactions of the block at a height.
    pub fn body(&self, height: u64) -> Result<Vec<ExecutedTx>, StateError> {
        match self.table(Table::Bodies).get(height.to_be_bytes().as_slice())? {
            Some(guard) => records::decode_body(guard.value()),
            None => Ok(Vec::new()),
        }
    }

    /// Height and index of an executed transaction.
    pub fn tx_place(&self, hash: B256) -> Result<Option<(u64, u32)>, StateError> {
        let Some(guard) = self.table(Table::TxIndex).get(hash.as_slice())? else {
            return Ok(None);
        };
        let bytes = guard.value();
        let (height, index) = bytes
            .split_first_chunk::<8>()
            .ok_or_else(|| StateError::corrupt("tx index"))?;
        let index: [u8; 4] = index.try_into().map_err(|_| StateError::corrupt("tx index"))?;
        Ok(Some((u64::from_be_bytes(*height), u32::from_be_bytes(index))))
    }

    /// Why a block dropped this transaction, if one did and none executed it.
    pub fn dropped(&self, hash: B256) -> Result<Option<DroppedRecord>, StateError> {
        let Some(guard) = self.table(Table::Dropped).get(hash.as_slice())? else {
            return Ok(None);
        };
        let record = <DroppedRecord as alloy_rlp::Decodable>::decode(&mut guard.value());
        record
            .map(Some)
            .map_err(|e| StateError::corrupt(format!("dropped record: {e}")))
    }

    /// An account.
    pub fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        self.get(Table::Accounts, address.as_slice())?
            .map(|bytes| Account::from_bytes(&bytes))
            .transpose()
    }

    /// A slot; zero where there is none.
    pub fn slot(&self, address: Address, slot: U256) -> Result<U256, StateError> {
        let value = self.get(Table::Storage, &slot_key(address, slot))?;
        Ok(value.map_or(U256::ZERO, |bytes| U256::from_be_slice(&bytes)))
    }

    /// Runtime code of an account; empty where there is none.
    pub fn code(&self, address: Address) -> Result<Bytes, StateError> {
        match self.account(address)? {
            Some(account) => self.code_of(account.code_hash),
            None => Ok(Bytes::new()),
        }
    }

    fn code_of(&self, hash: B256) -> Result<Bytes, StateError> {
        if hash == revm::primitives::KECCAK_EMPTY {
            return Ok(Bytes::new());
        }
        let code = self.get(Table::Codes, hash.as_slice())?;
        Ok(code
            .ok_or_else(|| StateError::corrupt(format!("code {hash} is missing")))?
            .into())
    }

    /// Proof of an account and its slots against the state root of this height.
    pub fn prove(&self, address: Address, slots: &[U256]) -> Result<AccountProof, StateError> {
        let (_, header) = self
            .header(self.height)?
            .ok_or_else(|| StateError::corrupt("header of the state is missing"))?;
        let bytes = |nodes: Vec<Vec<u8>>| nodes.into_iter().map(Bytes::from).collect::<Vec<_>>();
        let nodes = bytes(trie::prove(
            &AccountTrie(self),
            header.state_root,
            keccak256(address),
        )?);
        let account = self.account(address)?;
        let storage_root = account.map_or(EMPTY_ROOT, |a| a.storage_root);
        let mut proved = Vec::with_capacity(slots.len());
        for slot in slots {
            let key = keccak256(slot.to_be_bytes::<32>());
            let nodes = bytes(trie::prove(&StorageTrie(self, address), storage_root, key)?);
            proved.push((*slot, self.slot(address, *slot)?, nodes));
        }
        Ok(AccountProof {
            account,
            nodes,
            slots: proved,
        })
    }
}

/// Key of a slot.
pub(crate) fn slot_key(address: Address, slot: U256) -> Vec<u8> {
    let mut key = address.to_vec();
    key.extend_from_slice(&slot.to_be_bytes::<32>());
    key
}

/// Key of a node of the state trie.
pub(crate) fn account_node_key(path: &[u8]) -> Vec<u8> {
    let mut key = vec![0];
    key.extend_from_slice(path);
    key
}

/// Key of a node of an account's storage trie.
pub(crate) fn storage_node_key(address: Address, path: &[u8]) -> Vec<u8> {
    let mut key = vec![1];
    key.extend_from_slice(address.as_slice());
    key.extend_from_slice(path);
    key
}

fn number(bytes: &[u8]) -> Result<u64, StateError> {
    Ok(u64::from_be_bytes(
        bytes.try_into().map_err(|_| StateError::corrupt("height"))?,
    ))
}

/// The state trie's nodes.
pub(crate) struct AccountTrie<'a>(pub(crate) &'a View);

impl NodeStore for AccountTrie<'_> {
    fn node(&self, path: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.0.get(Table::Trie, &account_node_key(path))
    }
}

/// An account's storage trie's nodes.
pub(crate) struct StorageTrie<'a>(pub(crate) &'a View, pub(crate) Address);

impl NodeStore for StorageTrie<'_> {
    fn node(&self, path: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.0.get(Table::Trie, &storage_node_key(self.1, path))
    }
}

impl DatabaseRef for View {
    type Error = StateError;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, StateError> {
        let Some(account) = self.account(address)? else {
            return Ok(None);
        };
        Ok(Some(AccountInfo {
            balance: account.balance,
            nonce: account.nonce,
            code_hash: account.code_hash,
            code: None,
            ..Default::default()
        }))
    }

    fn code_by_hash_ref(&self, code_hash: B256) -> Result<Bytecode, StateError> {
        Ok(Bytecode::new_raw(self.code_of(code_hash)?))
    }

    fn storage_ref(&self, address: Address, index: U256) -> Result<U256, StateError> {
        self.slot(address, index)
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256, StateError> {
        Ok(self.header(number)?.map_or(B256::ZERO, |(hash, _)| hash))
    }
}
