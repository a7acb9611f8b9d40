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
/// Tag of the node of an encoder's layer.
pub const LAYER_TAG: &[u8; 16] = b"bitai/layer/v0\0\0";
/// Tag of the node of an encoder's output.
pub const WORDS_TAG: &[u8; 16] = b"bitai/words/v0\0\0";

/// Flag bit: `out` rows are committed at the checkpoints.
pub const FLAG_OUT_ROWS: u32 = 1;
/// Flag bit: an encoder's trace, a root a layer and then the words.
pub const FLAG_BY_LAYER: u32 = 2;

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
    /// Whether the program embeds: its trace has a root a layer and no sampled tokens.
    pub by_layer: bool,
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
            by_layer: program.emits().is_some(),
        }
    }

    /// Positions that are run: of a decoder with `outputs` sampled tokens all but the last, which is never run; of an
    /// encoder the prompt's.
    pub fn positions(&self, outputs: u32) -> u32 {
        if self.by_layer {
            self.prompt
        } else {
            self.prompt.saturating_add(outputs).saturating_sub(1)
        }
    }

    /// Body roots of a finished run: one a position, or one a layer.
    pub fn bodies(&self, outputs: u32) -> u32 {
        if self.by_layer {
            self.layers
        } else {
            self.positions(outputs)
        }
    }

    /// Leaves of the trace's tree, T in the hashes: the tokens, or the layers and the words behind them.
    pub fn leaves(&self, outputs: u32) -> u32 {
        self.bodies(outputs).saturating_add(u32::from(self.by_layer))
    }

    /// Whether layer `layer` commits an `out` row.
    pub fn has_out(&self, layer: u32) -> bool {
        self.out_rows && layer % self.stride.max(1) == self.stride.max(1) - 1
    }

    /// The output index that position `pos` samples, if it samples one.
    pub fn output_at(&self, pos: u32) -> Option<u32> {
        if self.by_layer {
            return None;
        }
        pos.checked_add(1)?.checked_sub(self.prompt)
    }

    /// H(tag, job, layers, stride, vocab, flags, prompt length, output length, leaves of the tree).
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
            self.leaves(outputs),
        ] {
            h.update(&word.to_le_bytes());
        }
        *h.finalize().as_bytes()
    }

    /// The flags word.
    pub fn flags(&self) -> u32 {
        let flag = |on, bit| if on { bit } else { 0 };
        flag(self.out_rows, FLAG_OUT_ROWS) | flag(self.by_layer, FLAG_BY_LAYER)
    }
}

/// The 32 bytes that a neuron submits: everything it computed, bound to its job.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TraceRoot(pub B256);

impl TraceRoot {
    /// H(tag, header hash, leaves, Merkle root over them): token nodes, or layer nodes and the words' node.
    pub fn new(header: &Hash, leaves: u32, tree: &Hash) -> Self {
        let mut h = blake3::Hasher::new();
        h.update(ROOT_TAG);
        h.update(header);
        h.update(&leaves.to_le_bytes());
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

/// layer(l) of an encoder: H(tag, layer, body root over its positions' leaves).
pub fn layer_node(layer: u32, body: &Hash) -> Hash {
    let mut h = blake3::Hasher::new();
    h.update(LAYER_TAG);
    h.update(&layer.to_le_bytes());
    h.update(body);
    *h.finalize().as_bytes()
}

/// The node of an encoder's output: H(tag, number of words, BLAKE3 of the words as little-endian bytes).
pub fn words_node(words: &[u32]) -> Hash {
    let mut bytes = blake3::Hasher::new();
    for word in words {
        bytes.update(&word.to_le_bytes());
    }
    let mut h = blake3::Hasher::new();
    h.update(WORDS_TAG);
    h.update(&u32::try_from(words.len()).unwrap_or(u32::MAX).to_le_bytes());
    h.update(bytes.finalize().as_bytes());
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
            by_layer: false,
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
            Header { by_layer: true, ..h }.hash(4),
        ];
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 9);
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
    fn an_encoder_runs_its_prompt_and_commits_layers_and_words() {
        let h = Header {
            by_layer: true,
            ..header()
        };
        assert_eq!((h.positions(384), h.bodies(384), h.leaves(384)), (5, 30, 31));
        assert_eq!((h.flags(), h.output_at(4)), (3, None));
        assert_ne!(h.hash(384), h.hash(383), "the number of words is bound");
        let body = [7; 32];
        assert_ne!(layer_node(0, &body), layer_node(1, &body));
        assert_ne!(layer_node(0, &body), token_node(0, &body, None));
        assert_ne!(words_node(&[0]), words_node(&[]));
        assert_ne!(words_node(&[1, 2]), words_node(&[2, 1]));
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
