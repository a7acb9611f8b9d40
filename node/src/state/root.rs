//! From what a block changed to a new state root and the records to write.

use alloy_primitives::{Address, B256, U256, keccak256};
use std::collections::{BTreeMap, BTreeSet};

use super::error::StateError;
use super::records::Account;
use super::tables::{Batch, Table};
use super::trie::{EMPTY_ROOT, NodeChanges, NodeStore, Trie};
use super::view::{AccountTrie, StorageTrie, View, account_node_key, slot_key, storage_node_key};
use crate::transition::overlay::{AccountFields, StateChanges};

/// What the root is computed over: an existing state, or nothing yet (genesis).
pub(crate) trait Base {
    /// The account before the changes.
    fn account(&self, address: Address) -> Result<Option<Account>, StateError>;
    /// Changes the state trie.
    fn change_accounts(
        &self,
        root: B256,
        leaves: &[(B256, Option<Vec<u8>>)],
    ) -> Result<(B256, NodeChanges), StateError>;
    /// Changes an account's storage trie.
    fn change_storage(
        &self,
        address: Address,
        root: B256,
        leaves: &[(B256, Option<Vec<u8>>)],
    ) -> Result<(B256, NodeChanges), StateError>;
}

fn change<S: NodeStore>(
    store: &S,
    root: B256,
    leaves: &[(B256, Option<Vec<u8>>)],
) -> Result<(B256, NodeChanges), StateError> {
    let mut trie = Trie::new(store, root);
    for (key, value) in leaves {
        trie.set(*key, value.clone())?;
    }
    Ok(trie.finish())
}

impl Base for View {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        View::account(self, address)
    }

    fn change_accounts(
        &self,
        root: B256,
        leaves: &[(B256, Option<Vec<u8>>)],
    ) -> Result<(B256, NodeChanges), StateError> {
        change(&AccountTrie(self), root, leaves)
    }

    fn change_storage(
        &self,
        address: Address,
        root: B256,
        leaves: &[(B256, Option<Vec<u8>>)],
    ) -> Result<(B256, NodeChanges), StateError> {
        change(&StorageTrie(self, address), root, leaves)
    }
}

/// The state before genesis.
pub(crate) struct Nothing;

impl NodeStore for Nothing {
    fn node(&self, _path: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        Ok(None)
    }
}

impl Base for Nothing {
    fn account(&self, _address: Address) -> Result<Option<Account>, StateError> {
        Ok(None)
    }

    fn change_accounts(
        &self,
        root: B256,
        leaves: &[(B256, Option<Vec<u8>>)],
    ) -> Result<(B256, NodeChanges), StateError> {
        change(self, root, leaves)
    }

    fn change_storage(
        &self,
        _address: Address,
        root: B256,
        leaves: &[(B256, Option<Vec<u8>>)],
    ) -> Result<(B256, NodeChanges), StateError> {
        change(self, root, leaves)
    }
}

/// Adds to `batch` what turns the state with `root` into the changed one; returns the new root.
pub(crate) fn advance<B: Base>(
    base: &B,
    root: B256,
    changes: &StateChanges,
    batch: &mut Batch,
) -> Result<B256, StateError> {
    let mut slots: BTreeMap<Address, Vec<(U256, U256)>> = BTreeMap::new();
    for ((address, slot), value) in &changes.storage {
        slots.entry(*address).or_default().push((*slot, *value));
    }
    for (hash, code) in &changes.codes {
        batch.insert((Table::Codes, hash.to_vec()), Some(code.to_vec()));
    }

    let touched: BTreeSet<Address> = slots.keys().chain(changes.accounts.keys()).copied().collect();
    let mut leaves = Vec::with_capacity(touched.len());
    for address in touched {
        let before = base.account(address)?;
        let fields = match changes.accounts.get(&address) {
            Some(fields) => *fields,
            None => before.map(|a| AccountFields {
                nonce: a.nonce,
                balance: a.balance,
                code_hash: a.code_hash,
            }),
        };
        let mut storage_root = before.map_or(EMPTY_ROOT, |a| a.storage_root);
        // An account that is gone had its storage only inside this block (EIP-6780).
        if let (Some(slots), Some(_)) = (slots.get(&address), fields) {
            let mut hashed = Vec::with_capacity(slots.len());
            for (slot, value) in slots {
                let present = !value.is_zero();
                hashed.push((
                    keccak256(slot.to_be_bytes::<32>()),
                    present.then(|| alloy_rlp::encode(value)),
                ));
                batch.insert(
                    (Table::Storage, slot_key(address, *slot)),
                    present.then(|| value.to_be_bytes::<32>().to_vec()),
                );
            }
            let (new_root, nodes) = base.change_storage(address, storage_root, &hashed)?;
            storage_root = new_root;
            for (path, rlp) in nodes {
                batch.insert((Table::Trie, storage_node_key(address, &path)), rlp);
            }
        }
        let after = fields.map(|f| Account {
            nonce: f.nonce,
            balance: f.balance,
            code_hash: f.code_hash,
            storage_root,
        });
        batch.insert((Table::Accounts, address.to_vec()), after.map(Account::to_bytes));
        leaves.push((keccak256(address), after.map(|a| a.trie_value())));
    }
    let (root, nodes) = base.change_accounts(root, &leaves)?;
    for (path, rlp) in nodes {
        batch.insert((Table::Trie, account_node_key(&path)), rlp);
    }
    Ok(root)
}
