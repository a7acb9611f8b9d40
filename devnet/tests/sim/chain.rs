//! A chain in memory whose blocks the test makes: the node's state transition on a map, with every height kept, so that
//! blocks can be taken back.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::Arc,
};

use alloy::{consensus::Header, sol_types::SolCall};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, Log, TxKind, U256};
use bitai_node::{
    block::{BlockInput, Inscribed, Position},
    genesis::Genesis,
    transition::{
        self, evm,
        overlay::{AccountFields, Overlay, StateChanges},
    },
};
use revm::{
    ExecuteEvm,
    bytecode::Bytecode,
    context::{TxEnv, result::ExecutionResult},
    database_interface::DatabaseRef,
    state::AccountInfo,
};

/// A state: everything that a block left behind.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    accounts: HashMap<Address, AccountFields>,
    storage: HashMap<(Address, U256), U256>,
    codes: HashMap<B256, Bytecode>,
}

impl DatabaseRef for State {
    type Error = Infallible;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, Infallible> {
        Ok(self.accounts.get(&address).map(|a| AccountInfo {
            balance: a.balance,
            nonce: a.nonce,
            code_hash: a.code_hash,
            // Read by its hash where it is needed.
            code: None,
            ..Default::default()
        }))
    }

    fn code_by_hash_ref(&self, hash: B256) -> Result<Bytecode, Infallible> {
        Ok(self.codes.get(&hash).cloned().unwrap_or_default())
    }

    fn storage_ref(&self, address: Address, slot: U256) -> Result<U256, Infallible> {
        Ok(self.storage.get(&(address, slot)).copied().unwrap_or_default())
    }

    fn block_hash_ref(&self, _: u64) -> Result<B256, Infallible> {
        // No contract here asks for one: their beacons come from the system contract.
        Ok(B256::ZERO)
    }
}

impl State {
    fn apply(&mut self, changes: StateChanges) {
        for (address, fields) in changes.accounts {
            match fields {
                Some(fields) => self.accounts.insert(address, fields),
                None => self.accounts.remove(&address),
            };
        }
        for (slot, value) in changes.storage {
            if value.is_zero() {
                self.storage.remove(&slot);
            } else {
                self.storage.insert(slot, value);
            }
        }
        for (hash, code) in changes.codes {
            self.codes.insert(hash, Bytecode::new_raw(code));
        }
    }

    /// Coins of everybody.
    fn supply(&self) -> U256 {
        let balances = self.accounts.values().map(|a| a.balance);
        balances.fold(U256::ZERO, |sum, b| sum + b)
    }
}

/// A block and the state after it.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    header: Header,
    hash: B256,
    state: Arc<State>,
    /// Logs of what ran, in order.
    logs: Vec<Log>,
}

/// The chain: genesis and every block above it.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    pub(crate) genesis: Arc<Genesis>,
    blocks: Vec<Block>,
    /// Blocks ever made: those of another branch have other hashes.
    made: u64,
}

/// What became of a transaction in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It ran.
    Success,
    /// It ran and reverted.
    Reverted,
    /// It did not run, and why.
    Dropped(String),
}

fn block_hash(seed: u64, number: u64) -> B256 {
    let mut h = blake3::Hasher::new();
    h.update(b"a block of the simulation");
    h.update(&seed.to_le_bytes());
    h.update(&number.to_le_bytes());
    B256::from(*h.finalize().as_bytes())
}

impl Chain {
    pub(crate) fn new(genesis: Genesis) -> Self {
        let mut state = State::default();
        for (address, account) in genesis.accounts() {
            let code_hash = if account.code.is_empty() {
                KECCAK256_EMPTY
            } else {
                alloy_primitives::keccak256(&account.code)
            };
            let fields = AccountFields {
                nonce: account.nonce,
                balance: account.balance,
                code_hash,
            };
            state.accounts.insert(address, fields);
            if !account.code.is_empty() {
                state.codes.insert(code_hash, Bytecode::new_raw(account.code));
            }
            for (slot, value) in account.storage {
                state.storage.insert((address, slot.into()), value.into());
            }
        }
        let first = Block {
            header: genesis.header(B256::ZERO),
            hash: B256::repeat_byte(1),
            state: Arc::new(state),
            logs: vec![],
        };
        Self {
            genesis: Arc::new(genesis),
            blocks: vec![first],
            made: 0,
        }
    }

    fn tip(&self) -> &Block {
        self.blocks.last().expect("genesis is never taken back")
    }

    /// Its height.
    pub(crate) fn height(&self) -> u64 {
        self.tip().header.number
    }

    /// Base fee of the next block.
    pub(crate) fn base_fee(&self) -> u64 {
        self.sight().base_fee
    }

    fn sight(&self) -> evm::BlockSight {
        transition::next_sight(&self.genesis, &self.tip().header, B256::ZERO, 0)
    }

    /// Names a chain of its own: what was the same so far goes another way from here.
    pub(crate) fn fork(&self, seed: u64) -> Self {
        Self {
            made: seed << 20,
            ..self.clone()
        }
    }

    /// Takes blocks back.
    pub(crate) fn take_back(&mut self, count: usize) {
        let left = self.blocks.len().saturating_sub(count).max(1);
        self.blocks.truncate(left);
    }

    /// Makes a block of these transactions, an envelope each, and tells what became of each. Every wei is accounted for:
    /// what is missing afterwards is the base fee, which is burned.
    pub(crate) fn make(&mut self, txs: &[Bytes]) -> Vec<Fate> {
        let parent = self.tip().clone();
        let number = parent.header.number + 1;
        self.made += 1;
        let hash = block_hash(self.made, number);
        let envelopes = (0u32..).zip(txs).map(|(tx, raw)| Inscribed {
            position: Position {
                tx,
                input: 0,
                envelope: 0,
            },
            reveal_txid: block_hash(self.made, u64::from(tx) + 1),
            fee_recipient: MINER,
            txs: vec![raw.clone()],
            payload_len: u32::try_from(raw.len()).unwrap(),
            reveal_vbytes: 200,
        });
        let input = BlockInput {
            bitcoin_height: number,
            hash,
            prev: B256::ZERO,
            median_time_past: parent.header.timestamp + 600,
            envelopes: envelopes.collect(),
        };
        let done =
            transition::execute(&self.genesis, &parent.header, parent.hash, &*parent.state, &input).unwrap();
        let mut state = (*parent.state).clone();
        state.apply(done.changes);
        let burned = U256::from(done.header.gas_used) * U256::from(done.header.base_fee_per_gas.unwrap());
        assert_eq!(
            parent.state.supply(),
            state.supply() + burned,
            "coins at {number}"
        );
        let mut fates: BTreeMap<B256, Fate> = done
            .dropped
            .into_iter()
            .map(|d| (d.hash, Fate::Dropped(d.reason.to_string())))
            .collect();
        let mut logs = Vec::new();
        for tx in done.txs {
            let fate = if tx.success { Fate::Success } else { Fate::Reverted };
            fates.insert(*tx.tx.tx_hash(), fate);
            logs.extend(tx.logs);
        }
        self.blocks.push(Block {
            header: done.header,
            hash,
            state: Arc::new(state),
            logs,
        });
        let fate = |raw: &Bytes| fates[&alloy_primitives::keccak256(raw)].clone();
        txs.iter().map(fate).collect()
    }

    /// Runs a call on the newest state, keeping nothing.
    fn run(&self, from: Address, to: TxKind, data: Bytes, value: U256, gas_limit: u64) -> ExecutionResult {
        let mut sight = self.sight();
        sight.base_fee = 0;
        let overlay = Overlay::new(&*self.tip().state);
        let mut vm = evm::build(overlay, evm::cfg(&self.genesis), sight.env(MINER));
        let tx = TxEnv {
            caller: from,
            gas_limit,
            gas_price: 0,
            kind: to,
            value,
            data,
            nonce: self.nonce(from),
            chain_id: Some(self.genesis.chain_id()),
            ..Default::default()
        };
        vm.transact(tx).unwrap().result
    }

    /// A view.
    pub(crate) fn read<C: SolCall>(&self, to: Address, call: C) -> C::Return {
        let limit = self.genesis.block_gas_limit();
        let result = self.run(
            MINER,
            TxKind::Call(to),
            call.abi_encode().into(),
            U256::ZERO,
            limit,
        );
        let output = result.output().cloned().unwrap_or_default();
        assert!(result.is_success(), "{} reverts: {output}", C::SIGNATURE);
        C::abi_decode_returns(&output).unwrap()
    }

    /// Gas of a call in the next block, or the data of its revert.
    pub(crate) fn estimate(
        &self,
        from: Address,
        to: TxKind,
        data: &Bytes,
        value: U256,
    ) -> Result<u64, Bytes> {
        let result = self.run(from, to, data.clone(), value, 4_000_000_000);
        match result.is_success() {
            true => Ok(result.gas().tx_gas_used()),
            false => Err(result.output().cloned().unwrap_or_default()),
        }
    }

    pub(crate) fn nonce(&self, of: Address) -> u64 {
        self.tip().state.accounts.get(&of).map_or(0, |a| a.nonce)
    }

    pub(crate) fn balance(&self, of: Address) -> U256 {
        self.tip()
            .state
            .accounts
            .get(&of)
            .map_or(U256::ZERO, |a| a.balance)
    }

    /// Code of an account.
    pub(crate) fn code(&self, of: Address) -> Bytes {
        let state = &self.tip().state;
        let code = state
            .accounts
            .get(&of)
            .and_then(|a| state.codes.get(&a.code_hash));
        code.map(Bytecode::original_bytes).unwrap_or_default()
    }

    /// Every log of a contract, in order.
    pub(crate) fn logs(&self, of: Address) -> impl Iterator<Item = &Log> {
        let logs = self.blocks.iter().flat_map(|b| &b.logs);
        logs.filter(move |log| log.address == of)
    }
}

/// Who gets priority fees and reads.
const MINER: Address = Address::repeat_byte(0xee);
