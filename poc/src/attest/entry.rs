//! What a validator says about one job, and the hash that stands for it in its tree (docs/spec/validators.md, 3).

use alloy_primitives::B256;
use bitai_kernels::Hash;

use super::draw::PICKS;
use crate::header::TraceRoot;

const LEAF_TAG: &[u8; 16] = b"bitai/attest/v0\0";

/// This answer of a job is right, and the validator has its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Output ids.
    pub outputs: u32,
    /// Trace root.
    pub root: TraceRoot,
    /// keccak256 of the output ids.
    pub output_hash: B256,
    /// Keyed hashes of the picked chunks, in order.
    pub hashes: [Hash; PICKS],
}

impl Entry {
    /// H(tag, outputs, trace root, outputHash, H(keyed hashes)).
    pub fn leaf(&self) -> Hash {
        let mut h = blake3::Hasher::new();
        h.update(LEAF_TAG);
        h.update(&self.outputs.to_le_bytes());
        h.update(B256::from(self.root).as_slice());
        h.update(self.output_hash.as_slice());
        h.update(blake3::hash(&self.hashes.concat()).as_bytes());
        *h.finalize().as_bytes()
    }
}
