//! The header of a trace (what binds it to its job) and the trace root itself.

use std::{fmt, str::FromStr};

use alloy_primitives::B256;
use bitai_kernels::{Hash, Program};
use bitai_types::{Job, ModelShape};
use serde::{Deserialize, Serialize};

/// Tag of a header's hash.
pub const HEADER_TAG: &[u8; 16] = b"bitai/header/v0\0";
/// Tag of a trace root.
pub const ROOT_TAG: &[u8; 16] = b"bitai/trace/v0\0\0";
/// Tag of a token's node.
pub const TOKEN_TAG: &[u8; 16] = b"bitai/token/v0\0\0";

/// Flag bit: `out` rows are committed at the checkpoints.
pub const FLAG_OUT_ROWS: u32 = 1;

/// A program's public numbers, by which jobs for it are judged.
pub fn model_shape(program: &Program) -> ModelShape {
    ModelShape {
        vocab: program.vocab,
        context: program.context,
        words: program.emits().unwrap_or(0),
    }
}

/// All that a trace is bound to and that is known before it starts. The number of outputs completes it.
///
/// Everything here follows from the public job and the model's manifest, so a judge derives the header; a root
/// made with another one does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Header {
    /// [`Job::hash`]: binds model root, spec version, prompt ids, limits, sampler and seed.
    pub job: B256,
    /// Layers of the program.
    pub layers: u32,
    /// Checkpoint stride: layer l has an `out` row where `(l + 1) % stride == 0`.
    pub stride: u32,
    /// Vocabulary of the program.
    pub vocab: u32,
    /// Prompt ids, at least 1.
    pub prompt: u32,
    /// Whether `out` rows are committed at all.
    pub out_rows: bool,
}

impl Header {
    /// The header of `job` on `program`. A prompt longer than u32 is cut to it: the hub refuses such a job.
    pub fn new(job: &Job, program: &Program) -> Self {
        Self {
            job: job.hash(),
            layers: program.layers,
            stride: program.checkpoint_stride.max(1),
            vocab: program.vocab,
            prompt: u32::try_from(job.input_ids.len()).unwrap_or(u32::MAX),
            out_rows: true,
        }
    }

    /// Positions that a trace with `outputs` sampled tokens has: the last token is never run.
    pub fn positions(&self, outputs: u32) -> u32 {
        self.prompt.saturating_add(outputs).saturating_sub(1)
    }

    /// Whether layer `layer` commits an `out` row.
    pub fn has_out(&self, layer: u32) -> bool {
        self.out_rows && layer % self.stride.max(1) == self.stride.max(1) - 1
    }

    /// The output index that position `pos` samples, if it samples one.
    pub fn output_at(&self, pos: u32) -> Option<u32> {
        pos.checked_add(1)?.checked_sub(self.prompt)
    }

    /// H(tag, job, layers, stride, vocab, flags, prompt length, output length, positions).
    pub fn hash(&self, outputs: u32) -> Hash {
        let mut h = blake3::Hasher::new();
        h.update(HEADER_TAG);
        h.update(self.job.as_slice());
        for word in [
            self.layers,
            self.stride,
            self.vocab,
            self.flags(),
            self.prompt,
            outputs,
            self.positions(outputs),
        ] {
            h.update(&word.to_le_bytes());
        }
        *h.finalize().as_bytes()
    }

    /// The flags word.
    pub fn flags(&self) -> u32 {
        if self.out_rows { FLAG_OUT_ROWS } else { 0 }
    }
}

/// The 32 bytes that a neuron submits: everything it computed, bound to its job.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TraceRoot(pub B256);

impl TraceRoot {
    /// H(tag, header hash, positions, Merkle root over the token nodes).
    pub fn new(header: &Hash, positions: u32, tree: &Hash) -> Self {
        let mut h = blake3::Hasher::new();
        h.update(ROOT_TAG);
        h.update(header);
        h.update(&positions.to_le_bytes());
        h.update(tree);
        Self(B256::from(*h.finalize().as_bytes()))
    }
}

impl From<TraceRoot> for B256 {
    fn from(root: TraceRoot) -> Self {
        root.0
    }
}

impl From<B256> for TraceRoot {
    fn from(root: B256) -> Self {
        Self(root)
    }
}

impl FromStr for TraceRoot {
    type Err = <B256 as FromStr>::Err;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse().map(Self)
    }
}

impl fmt::Display for TraceRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for TraceRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceRoot({:#x})", self.0)
    }
}

/// token(t): H(tag, position, presence of a sampled token, body root, the token).
pub fn token_node(pos: u32, body: &Hash, sampled: Option<u32>) -> Hash {
    let mut h = blake3::Hasher::new();
    h.update(TOKEN_TAG);
    h.update(&pos.to_le_bytes());
    h.update(&u32::from(sampled.is_some()).to_le_bytes());
    h.update(body);
    if let Some(token) = sampled {
        h.update(&token.to_le_bytes());
    }
    *h.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            job: B256::repeat_byte(3),
            layers: 30,
            stride: 16,
            vocab: 49152,
            prompt: 5,
            out_rows: true,
        }
    }

    #[test]
    fn every_field_changes_the_header_hash() {
        let h = header();
        let mut all = vec![
            h.hash(4),
            h.hash(5),
            Header {
                job: B256::repeat_byte(4),
                ..h
            }
            .hash(4),
            Header { layers: 31, ..h }.hash(4),
            Header { stride: 15, ..h }.hash(4),
            Header { vocab: 49151, ..h }.hash(4),
            Header { prompt: 6, ..h }.hash(4),
            Header { out_rows: false, ..h }.hash(4),
        ];
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 8);
    }

    #[test]
    fn the_last_token_is_sampled_and_never_run() {
        let h = header();
        assert_eq!(h.positions(1), 5);
        assert_eq!(h.output_at(3), None);
        assert_eq!(h.output_at(4), Some(0));
        assert_eq!(h.output_at(7), Some(3));
        assert!(h.has_out(15) && !h.has_out(16) && !h.has_out(0));
        assert!(!Header { out_rows: false, ..h }.has_out(15));
    }

    #[test]
    fn a_token_that_was_not_sampled_is_not_token_zero() {
        let body = [7; 32];
        assert_ne!(token_node(1, &body, None), token_node(1, &body, Some(0)));
        assert_ne!(token_node(1, &body, Some(0)), token_node(2, &body, Some(0)));
    }

    #[test]
    fn a_root_reads_back_from_its_own_words() {
        let root = TraceRoot::new(&[1; 32], 9, &[2; 32]);
        assert_eq!(root.to_string().parse::<TraceRoot>().unwrap(), root);
        assert_eq!(
            serde_json::from_str::<TraceRoot>(&serde_json::to_string(&root).unwrap()).unwrap(),
            root
        );
    }
}
