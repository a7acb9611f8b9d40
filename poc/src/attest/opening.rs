//! One entry opened at one chunk: from the attested root down to the bytes of a row, as the contract reads it
//! (docs/spec/validators.md, 4).

use alloy_primitives::Address;
use bitai_kernels::Hash;
use thiserror::Error;

use super::{draw::Draw, entry::Entry, tree::EntryPath};
use crate::{
    header::Header,
    opening::{LayerOpening, OpenError, TokenOpening},
    slice::{CHUNK, SliceError, SliceProof},
};

/// Why an opening does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AttestError {
    /// The entry does not lead to the attested root.
    #[error("the entry of job {0} does not lead to the attested root")]
    Root(u32),
    /// A path fails.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The chunk fails.
    #[error("the chunk: {0}")]
    Chunk(#[from] SliceError),
    /// The entry has other hashes, or none.
    #[error("chunk {0} has another keyed hash than the entry")]
    Digest(u8),
    /// There is no such chunk: of an entry, or of a trace without positions, layers or rows.
    #[error("chunk {0} is not one that the header picks")]
    Pick(u8),
}

/// An entry opened at one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// What it says.
    pub entry: Entry,
    /// Its way to the attested root.
    pub path: EntryPath,
    /// A neuron that revealed the answer.
    pub neuron: Address,
    /// The token under the trace root.
    pub token: TokenOpening,
    /// The layer under the token.
    pub layer: LayerOpening,
    /// The chunk under the KV row's hash.
    pub chunk: SliceProof,
}

impl Opening {
    /// The bytes of `open`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.neuron.as_slice().to_vec();
        out.extend_from_slice(&self.entry.outputs.to_le_bytes());
        out.extend_from_slice(&self.entry.hashes.concat());
        self.path.encode(&mut out);
        out.extend_from_slice(&self.token.node.body);
        out.push(u8::from(self.token.node.sampled.is_some()));
        if let Some(id) = self.token.node.sampled {
            out.extend_from_slice(&id.to_le_bytes());
        }
        path(&self.token.proof.0, &mut out);
        out.extend_from_slice(&self.layer.rows.kv);
        out.push(u8::from(self.layer.rows.out.is_some()));
        if let Some(hash) = &self.layer.rows.out {
            out.extend_from_slice(hash);
        }
        path(&self.layer.proof.0, &mut out);
        // A chunk has at most 1,024 bytes.
        out.extend_from_slice(
            &u16::try_from(self.chunk.bytes.len())
                .unwrap_or(u16::MAX)
                .to_le_bytes(),
        );
        out.extend_from_slice(&self.chunk.bytes);
        path(&self.chunk.siblings, &mut out);
        out
    }

    /// Checks chunk `pick` of the entry for a job with this header, whose KV rows have `row` bytes, as the contract does.
    pub fn verify(
        &self,
        attested: &Hash,
        draw: &Draw,
        job: u32,
        header: &Header,
        row: u64,
        pick: u8,
    ) -> Result<(), AttestError> {
        let entry = &self.entry;
        if self.path.root(job, entry.leaf()) != *attested {
            return Err(AttestError::Root(job));
        }
        let index = usize::from(pick);
        let picks = draw.picks(header.positions(entry.outputs), header.layers, row);
        let Some(at) = picks.and_then(|p| p.get(index).copied()) else {
            return Err(AttestError::Pick(pick));
        };
        self.token.verify(entry.root, header, entry.outputs, at.token)?;
        self.layer
            .verify(&self.token.node.body, header, at.token, at.layer)?;
        self.chunk
            .verify(&self.layer.rows.kv, row, CHUNK, u64::from(at.chunk))?;
        if entry.hashes[index] == draw.keyed(&self.chunk.bytes) {
            Ok(())
        } else {
            Err(AttestError::Digest(pick))
        }
    }
}

/// A count and that many hashes; trees have at most 32 levels.
fn path(hashes: &[Hash], out: &mut Vec<u8>) {
    out.push(u8::try_from(hashes.len()).unwrap_or(u8::MAX));
    for hash in hashes {
        out.extend_from_slice(hash);
    }
}
