//! Names of moves. A claim has an id, an ask names the answer it builds on (the first one the claim), an answer
//! names its ask, an accusation the answer it rests on. So every move names all that it relies on: replayed in
//! another job, for another neuron, or after a reorg that put another answer in that place, it names nothing
//! there and does not count (PROTOCOL 12).

use alloy_primitives::{Address, B256, U256};
use bitai_kernels::Hash;
use bitai_types::{Job, job::ids_hash};

use super::{
    codec::CodecError,
    msg::{Answer, Ask},
};
use crate::header::TraceRoot;

/// Tag of a claim's id.
pub const CLAIM_TAG: &[u8; 16] = b"bitai/claim/v0\0\0";
/// Tag of an ask's id.
pub const ASK_TAG: &[u8; 16] = b"bitai/ask/v0\0\0\0\0";
/// Tag of an answer's id.
pub const ANSWER_TAG: &[u8; 16] = b"bitai/answer/v0\0";

/// What one neuron revealed for one job of one hub: all of it is public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Chain of the hub.
    pub chain_id: u64,
    /// The hub.
    pub hub: Address,
    /// The job's number there.
    pub job_id: U256,
    /// Who revealed the answer.
    pub neuron: Address,
    /// The job.
    pub job: Job,
    /// The revealed output ids.
    pub outputs: Vec<u32>,
    /// The revealed trace root.
    pub root: TraceRoot,
}

impl Claim {
    /// H(tag, chain id u64, hub, job id as 32 bytes big-endian, neuron, jobHash, trace root, outputHash).
    pub fn id(&self) -> Hash {
        let mut h = blake3::Hasher::new();
        h.update(CLAIM_TAG);
        h.update(&self.chain_id.to_le_bytes());
        h.update(self.hub.as_slice());
        h.update(&self.job_id.to_be_bytes::<32>());
        h.update(self.neuron.as_slice());
        h.update(self.job.hash().as_slice());
        h.update(B256::from(self.root).as_slice());
        h.update(ids_hash(&self.outputs).as_slice());
        *h.finalize().as_bytes()
    }
}

impl Ask {
    /// What an answer names: H(tag, id of the answer (or claim) that the ask builds on, words).
    pub fn id(&self, to: &Hash) -> Hash {
        let mut h = blake3::Hasher::new();
        h.update(ASK_TAG);
        h.update(&self.encode(to));
        *h.finalize().as_bytes()
    }
}

impl Answer {
    /// What a later move names: H(tag, ask's id, content), the bytes behind the tag being those that are inscribed.
    /// An answer that has no bytes has no id.
    pub fn id(&self, ask: &Hash) -> Result<Hash, CodecError> {
        let mut h = blake3::Hasher::new();
        h.update(ANSWER_TAG);
        h.update(&self.encode(ask)?);
        Ok(*h.finalize().as_bytes())
    }
}
