//! Changes on top of a read-only state: what a block, or the pending block, has written so far.

use alloy_primitives::map::{HashMap, HashSet};
use alloy_primitives::{Address, B256, Bytes, U256};
use revm::bytecode::Bytecode;
use revm::database_interface::{Database, DatabaseCommit, DatabaseRef};
use revm::primitives::AddressMap;
use revm::state::{Account, AccountInfo};
use std::collections::BTreeMap;

/// An account's fields without its storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountFields {
    /// Nonce.
    pub nonce: u64,
    /// Wei.
    pub balance: U256,
    /// keccak256 of the runtime code.
    pub code_hash: B256,
}

/// What a block changed, in an order that does not depend on how it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateChanges {
    /// Accounts as they are after the block; `None` where there is none any more.
    pub accounts: BTreeMap<Address, Option<AccountFields>>,
    /// Slots as they are after the block; zero means absent.
    pub storage: BTreeMap<(Address, U256), U256>,
    /// New runtime code by hash.
    pub codes: BTreeMap<B256, Bytes>,
}

/// A state with changes on top. Reads are cached, since revm asks anew for every transaction.
#[derive(Debug, Clone)]
pub struct Overlay<S> {
    base: S,
    /// Account and whether it was written.
    accounts: HashMap<Address, (Option<AccountInfo>, bool)>,
    storage: HashMap<Address, HashMap<U256, (U256, bool)>>,
    codes: HashMap<B256, (Bytecode, bool)>,
    /// Accounts whose storage in the base no longer counts.
    wiped: HashSet<Address>,
}

impl<S: DatabaseRef> Overlay<S> {
    /// No changes yet.
    pub fn new(base: S) -> Self {
        Overlay {
            base,
            accounts: HashMap::default(),
            storage: HashMap::default(),
            codes: HashMap::default(),
            wiped: HashSet::default(),
        }
    }

    /// Writes a slot outside of any transaction (system contract, state override).
    pub fn set_storage(&mut self, address: Address, slot: U256, value: U256) {
        self.storage
            .entry(address)
            .or_default()
            .insert(slot, (value, true));
    }

    /// Writes an account outside of any transaction (state override).
    pub fn set_account(&mut self, address: Address, info: AccountInfo) {
        if let Some(code) = &info.code {
            self.codes.insert(info.code_hash, (code.clone(), true));
        }
        self.accounts.insert(address, (Some(info), true));
    }

    /// Forgets the base's storage of an account (state override `state`).
    pub fn wipe_storage(&mut self, address: Address) {
        self.storage.remove(&address);
        self.wiped.insert(address);
    }

    /// Nonce and balance of an account; zeros where there is none.
    pub fn nonce_and_balance(&mut self, address: Address) -> Result<(u64, U256), S::Error> {
        Ok(self
            .basic(address)?
            .map_or((0, U256::ZERO), |info| (info.nonce, info.balance)))
    }

    /// Everything written.
    pub fn into_changes(self) -> StateChanges {
        let mut changes = StateChanges::default();
        for (address, (info, dirty)) in self.accounts {
            if dirty {
                let fields = info.map(|i| AccountFields {
                    nonce: i.nonce,
                    balance: i.balance,
                    code_hash: i.code_hash,
                });
                changes.accounts.insert(address, fields);
            }
        }
        for (address, slots) in self.storage {
            for (slot, (value, dirty)) in slots {
                if dirty {
                    changes.storage.insert((address, slot), value);
                }
            }
        }
        for (hash, (code, dirty)) in self.codes {
            if dirty {
                changes.codes.insert(hash, code.original_bytes());
            }
        }
        changes
    }
}

impl<S: DatabaseRef> Database for Overlay<S> {
    type Error = S::Error;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, S::Error> {
        if let Some((info, _)) = self.accounts.get(&address) {
            return Ok(info.clone());
        }
        let info = self.base.basic_ref(address)?;
        self.accounts.insert(address, (info.clone(), false));
        Ok(info)
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, S::Error> {
        if let Some((code, _)) = self.codes.get(&code_hash) {
            return Ok(code.clone());
        }
        let code = self.base.code_by_hash_ref(code_hash)?;
        self.codes.insert(code_hash, (code.clone(), false));
        Ok(code)
    }

    fn storage(&mut self, address: Address, index: U256) -> Result<U256, S::Error> {
        if let Some((value, _)) = self.storage.get(&address).and_then(|slots| slots.get(&index)) {
            return Ok(*value);
        }
        let value = if self.wiped.contains(&address) {
            U256::ZERO
        } else {
            self.base.storage_ref(address, index)?
        };
        self.storage
            .entry(address)
            .or_default()
            .insert(index, (value, false));
        Ok(value)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, S::Error> {
        self.base.block_hash_ref(number)
    }
}

impl<S: DatabaseRef> DatabaseCommit for Overlay<S> {
    fn commit(&mut self, changes: AddressMap<Account>) {
        for (address, account) in changes {
            if !account.is_touched() {
                continue;
            }
            // Since EIP-6780 an account is destroyed only by the transaction that created it, so neither
            // case has storage in the base; what this block wrote before goes.
            if account.is_selfdestructed() || account.is_created() {
                self.wipe_storage(address);
            }
            // EIP-161: touched and empty is gone.
            if account.is_selfdestructed() || account.is_empty() {
                self.accounts.insert(address, (None, true));
                continue;
            }
            for (slot, value) in account.changed_storage_slots() {
                self.set_storage(address, *slot, value.present_value());
            }
            if let Some(code) = &account.info.code
                && !code.is_empty()
            {
                self.codes
                    .entry(account.info.code_hash)
                    .or_insert_with(|| (code.clone(), true));
            }
            self.accounts.insert(address, (Some(account.info), true));
        }
    }
}
