//! Chain constants that every part must agree on: chain ids by Bitcoin network, system addresses, ports.

use alloy_primitives::{Address, address};

/// A Bitcoin network that BitAI can live on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Bitcoin mainnet.
    Bitcoin,
    /// Testnet4.
    Testnet4,
    /// Signet.
    Signet,
    /// A private chain.
    Regtest,
}

impl Network {
    /// EIP-155 chain id: differs by network, so that no transaction can be replayed on another (PROTOCOL 14).
    pub const fn chain_id(self) -> u64 {
        match self {
            Network::Bitcoin => 22213,
            Network::Testnet4 => 22214,
            Network::Signet => 22215,
            Network::Regtest => 22216,
        }
    }
}

/// Gas that one inscribed byte buys by the default genesis (`docs/spec/chain.md`).
pub const GAS_PER_BYTE: u64 = 4_000;

/// JSON-RPC port of a node.
pub const RPC_PORT: u16 = 10002;

/// System contract that holds Bitcoin block hashes (internal byte order) for every BitAI height:
/// call it with a 32-byte height, it returns the 32-byte hash, or zero where there is none.
pub const HEADER_HASHES: Address = address!("00000000000000000000000000000000b17a0001");
/// Precompile: BLAKE3 of the input.
pub const BLAKE3: Address = address!("00000000000000000000000000000000b17a0101");
/// Precompile: keyed BLAKE3 (32-byte key, then the input).
pub const BLAKE3_KEYED: Address = address!("00000000000000000000000000000000b17a0102");
/// Precompile: BLAKE3 chaining value of a subtree (8-byte little-endian chunk offset, then its bytes), not the root.
pub const BLAKE3_CV: Address = address!("00000000000000000000000000000000b17a0103");
/// Precompile TENSOR_STEP: one small step of the tensor spec (`docs/spec/poc.md`, section 9).
pub const TENSOR_STEP: Address = address!("00000000000000000000000000000000b17a0104");
/// Precompile: BLAKE3's node above two subtrees (1 byte: whether it is the root, then their chaining values).
pub const BLAKE3_PARENT: Address = address!("00000000000000000000000000000000b17a0106");
/// Reserved for the precompile POSEIDON_BN254.
pub const POSEIDON_BN254: Address = address!("00000000000000000000000000000000b17a0105");

/// Blocks after a reveal or a posting whose hash decides (PROTOCOL 17).
pub const BEACON_DELAY: u64 = 2;
