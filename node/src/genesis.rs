//! Genesis: the parameters and allocations that a BitAI chain starts from, and the id that every envelope
//! of that chain carries.

use alloy::consensus::Header;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_rlp::{Encodable, RlpEncodable};
use bitai_types::chain::{self, Network};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::transition::header;

/// Runtime code of the system contract at `HEADER_HASHES`:
/// `PUSH0 CALLDATALOAD SLOAD PUSH0 MSTORE PUSH1 32 PUSH0 RETURN`.
/// The slot's number is the BitAI height, its value the Bitcoin block hash (internal byte order).
pub const HEADER_HASHES_CODE: [u8; 9] = [0x5f, 0x35, 0x54, 0x5f, 0x52, 0x60, 0x20, 0x5f, 0xf3];

/// Witness bytes that fit a Bitcoin block (its weight limit): the most that can be inscribed in one.
pub const BITCOIN_BLOCK_BYTES: u64 = 4_000_000;

/// Addresses below this are Ethereum's precompiles; none may be allocated to.
const LOW_ADDRESSES: u64 = 0x1_0000;

/// EIP-1559 parameters. The base fee is burned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, RlpEncodable)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FeeRule {
    /// Base fee per gas of the first block, wei.
    pub initial_base_fee: u64,
    /// The base fee never falls below this, wei.
    pub min_base_fee: u64,
    /// Gas per block at which the base fee stays.
    pub gas_target: u64,
    /// A block that uses twice the target raises the base fee by one part in this.
    pub change_denominator: u64,
}

/// An account that exists from the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GenesisAccount {
    /// Wei.
    #[serde(default)]
    pub balance: U256,
    /// Nonce.
    #[serde(default)]
    pub nonce: u64,
    /// Runtime code.
    #[serde(default)]
    pub code: Bytes,
    /// Storage; zero values are refused.
    #[serde(default)]
    pub storage: BTreeMap<B256, B256>,
}

/// Everything two nodes must agree on before the first block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Genesis {
    /// The Bitcoin network; it fixes the chain id.
    pub network: Network,
    /// Bitcoin height of BitAI height 0. The first block that can hold envelopes is the next one.
    pub start_height: u64,
    /// Hash of the Bitcoin block at `start_height`, internal byte order.
    pub start_hash: B256,
    /// Timestamp of BitAI height 0, unix seconds (that block's median time past).
    pub start_time: u64,
    /// A transaction's gas limit is at most its raw bytes times this (PROTOCOL 16).
    pub gas_per_byte: u64,
    /// Version of the envelope format, which fixes the caps on decompression (`docs/spec/envelope.md`).
    pub envelope_version: u8,
    /// Base fee rule.
    pub fee_rule: FeeRule,
    /// Accounts with coins or code.
    pub alloc: BTreeMap<Address, GenesisAccount>,
}

/// Why a genesis is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// A parameter of zero would divide by zero or forbid every transaction.
    #[error("genesis: {0} must not be zero")]
    Zero(&'static str),
    /// An envelope format that this node cannot read.
    #[error("genesis: envelopeVersion {0} is unknown, this node reads {known}; take a node that knows it", known = crate::envelope::VERSION)]
    EnvelopeVersion(u8),
    /// An allocation to an address that the protocol owns.
    #[error("genesis: {0} belongs to the protocol and cannot be allocated")]
    Reserved(Address),
    /// So many coins that fees could overflow 128 bits.
    #[error("genesis: allocations add up to 2^127 wei or more")]
    Supply,
    /// A storage slot of value zero is no slot.
    #[error("genesis: {address} lists slot {slot} with value zero; leave it out")]
    ZeroSlot {
        /// Whose storage.
        address: Address,
        /// Which slot.
        slot: B256,
    },
    /// An account with nothing in it would not be in the state tree.
    #[error("genesis: {0} is allocated nothing; leave it out")]
    Empty(Address),
}

/// What the genesis id commits to, in this order, as RLP.
#[derive(RlpEncodable)]
struct Canonical<'a> {
    tag: &'a str,
    chain_id: u64,
    start_height: u64,
    start_hash: B256,
    start_time: u64,
    gas_per_byte: u64,
    envelope_version: u8,
    fee_rule: &'a FeeRule,
    alloc: Vec<CanonicalAccount<'a>>,
}

#[derive(RlpEncodable)]
struct CanonicalAccount<'a> {
    address: Address,
    balance: U256,
    nonce: u64,
    code: &'a Bytes,
    storage: Vec<CanonicalSlot>,
}

#[derive(RlpEncodable)]
struct CanonicalSlot {
    slot: B256,
    value: B256,
}

impl Genesis {
    /// A genesis with this project's default parameters and no allocations, from a Bitcoin block:
    /// its height, hash (internal byte order) and median time past in unix seconds.
    pub fn new(network: Network, start_height: u64, start_hash: B256, start_time: u64) -> Self {
        Genesis {
            network,
            start_height,
            start_hash,
            start_time,
            // 100 bytes, a bare transfer, then may use 400,000 gas; a full Bitcoin block 16 Ggas in about
            // 600 s, which one core executes with a margin of four at 100 Mgas/s.
            gas_per_byte: 4_000,
            envelope_version: crate::envelope::VERSION,
            fee_rule: FeeRule {
                initial_base_fee: 1_000_000_000,
                min_base_fee: 1_000_000,
                gas_target: 1_000_000_000,
                change_denominator: 8,
            },
            alloc: BTreeMap::new(),
        }
    }

    /// A regtest genesis on Bitcoin's regtest block 0 with these balances, in wei.
    pub fn regtest(balances: impl IntoIterator<Item = (Address, U256)>) -> Self {
        // Bitcoin regtest's block 0 is a constant of Bitcoin Core (chainparams.cpp): this hash in internal
        // byte order, time 2 February 2011.
        let hash: [u8; 32] = [
            0x06, 0x22, 0x6e, 0x46, 0x11, 0x1a, 0x0b, 0x59, 0xca, 0xaf, 0x12, 0x60, 0x43, 0xeb, 0x5b, 0xbf,
            0x28, 0xc3, 0x4f, 0x3a, 0x5e, 0x33, 0x2a, 0x1f, 0xc7, 0xb2, 0xb7, 0x3c, 0xf1, 0x88, 0x91, 0x0f,
        ];
        let mut genesis = Genesis::new(Network::Regtest, 0, B256::new(hash), 1_296_688_602);
        for (address, balance) in balances {
            genesis.alloc.entry(address).or_default().balance = balance;
        }
        genesis
    }

    /// EIP-155 chain id.
    pub fn chain_id(&self) -> u64 {
        self.network.chain_id()
    }

    /// Gas limit of every block: all that a Bitcoin block's bytes can buy, so nothing is carried over.
    pub fn block_gas_limit(&self) -> u64 {
        self.gas_per_byte.saturating_mul(BITCOIN_BLOCK_BYTES)
    }

    /// Hash of the canonical encoding.
    pub fn hash(&self) -> B256 {
        let canonical = Canonical {
            tag: "bitai genesis 1",
            chain_id: self.chain_id(),
            start_height: self.start_height,
            start_hash: self.start_hash,
            start_time: self.start_time,
            gas_per_byte: self.gas_per_byte,
            envelope_version: self.envelope_version,
            fee_rule: &self.fee_rule,
            alloc: self
                .alloc
                .iter()
                .map(|(address, account)| CanonicalAccount {
                    address: *address,
                    balance: account.balance,
                    nonce: account.nonce,
                    code: &account.code,
                    storage: account
                        .storage
                        .iter()
                        .map(|(slot, value)| CanonicalSlot {
                            slot: *slot,
                            value: *value,
                        })
                        .collect(),
                })
                .collect(),
        };
        let mut bytes = Vec::new();
        canonical.encode(&mut bytes);
        keccak256(bytes)
    }

    /// The id that envelopes carry: the first 4 bytes of [`Genesis::hash`].
    pub fn id(&self) -> [u8; 4] {
        let hash = self.hash();
        [hash[0], hash[1], hash[2], hash[3]]
    }

    /// Checks what the state machine relies on.
    pub fn check(&self) -> Result<(), GenesisError> {
        for (name, value) in [
            ("gasPerByte", self.gas_per_byte),
            ("feeRule.minBaseFee", self.fee_rule.min_base_fee),
            ("feeRule.gasTarget", self.fee_rule.gas_target),
            ("feeRule.changeDenominator", self.fee_rule.change_denominator),
        ] {
            if value == 0 {
                return Err(GenesisError::Zero(name));
            }
        }
        if self.envelope_version != crate::envelope::VERSION {
            return Err(GenesisError::EnvelopeVersion(self.envelope_version));
        }
        let mut supply = U256::ZERO;
        for (address, account) in &self.alloc {
            if is_reserved(address) {
                return Err(GenesisError::Reserved(*address));
            }
            if account.balance.is_zero() && account.nonce == 0 && account.code.is_empty() {
                return Err(GenesisError::Empty(*address));
            }
            if let Some((slot, _)) = account.storage.iter().find(|(_, value)| value.is_zero()) {
                return Err(GenesisError::ZeroSlot {
                    address: *address,
                    slot: *slot,
                });
            }
            supply = supply.saturating_add(account.balance);
        }
        if supply >= U256::from(1) << 127 {
            return Err(GenesisError::Supply);
        }
        Ok(())
    }

    /// Every account of height 0: the allocations and the system contract.
    pub fn accounts(&self) -> BTreeMap<Address, GenesisAccount> {
        let mut accounts = self.alloc.clone();
        accounts.insert(
            chain::HEADER_HASHES,
            GenesisAccount {
                balance: U256::ZERO,
                // Like any contract's (EIP-161), so that the account is never empty.
                nonce: 1,
                code: Bytes::from_static(&HEADER_HASHES_CODE),
                storage: BTreeMap::from([(B256::ZERO, self.start_hash)]),
            },
        );
        accounts
    }

    /// Header of height 0 over this state root.
    pub fn header(&self, state_root: B256) -> Header {
        Header {
            state_root,
            number: 0,
            gas_limit: self.block_gas_limit(),
            timestamp: self.start_time,
            base_fee_per_gas: Some(self.fee_rule.initial_base_fee),
            ..header::blank(self.start_hash)
        }
    }
}

/// Whether the protocol owns this address: Ethereum's precompiles, ours, the system contract.
fn is_reserved(address: &Address) -> bool {
    let system = [
        chain::HEADER_HASHES,
        chain::BLAKE3,
        chain::BLAKE3_KEYED,
        chain::BLAKE3_CV,
        chain::TENSOR_STEP,
        chain::POSEIDON_BN254,
        chain::BLAKE3_PARENT,
    ];
    U256::from_be_slice(address.as_slice()) < U256::from(LOW_ADDRESSES) || system.contains(address)
}
