//! The manifest: all of a pack but tensors' bytes and tokenizer, as canonical JSON (fixed field order, no
//! white space, no floats). `docs/spec/pack.md` is its description.

use bitai_kernels::{DType, Hash, Program};
use serde::{Deserialize, Serialize};

/// Version of the file format.
pub const PACK_VERSION: u32 = 1;

/// Serialises a hash as 64 hex digits.
mod hex32 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(hash: &[u8; 32], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(hash))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(d)?;
        let mut out = [0; 32];
        hex::decode_to_slice(&text, &mut out).map_err(|e| D::Error::custom(format!("hash {text:?}: {e}")))?;
        Ok(out)
    }
}

/// Per-site numeric settings that an import chooses (TENSOR_SPEC, profiles).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Quality: row-scaled body, 16-bit activations, grouped head, Walsh-Hadamard on Q and K.
    #[default]
    A,
    /// Throughput for pre-norm models: rotated, 8-bit activations, Walsh-Hadamard on the down input too.
    B,
}

/// Where a pack's weights came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// `gguf`, or `synthetic`.
    pub kind: String,
    /// Bytes of the source file (0 where there is none).
    pub bytes: u64,
    /// BLAKE3 of the source file; of the seed where there is none.
    #[serde(with = "hex32")]
    pub blake3: Hash,
    /// Name and version of the importer that decided the integers.
    pub importer: String,
}

/// Integer hyperparameters, for people and tools; the program is what runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hyper {
    /// Layers.
    pub layers: u32,
    /// Residual width.
    pub d_model: u32,
    /// Query heads.
    pub heads: u32,
    /// KV heads.
    pub kv_heads: u32,
    /// Elements a head.
    pub head_dim: u32,
    /// Inner width of the gated unit.
    pub d_ff: u32,
    /// Vocabulary.
    pub vocab: u32,
    /// Longest sequence.
    pub context: u32,
    /// Whether head and embedding are one tensor.
    pub tied: bool,
}

/// A tensor's line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorEntry {
    /// Name, unique: `blk.0.attn_q.q`.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Rows.
    pub rows: u64,
    /// Elements a row.
    pub cols: u64,
    /// Plain BLAKE3 of the canonical bytes, so that slices open with Bao proofs.
    #[serde(with = "hex32")]
    pub hash: Hash,
}

impl TensorEntry {
    /// Bytes of the tensor, if they can be counted.
    pub fn len(&self) -> Option<u64> {
        self.rows
            .checked_mul(self.cols)?
            .checked_mul(self.dtype.size() as u64)
    }

    /// Whether the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.rows == 0 || self.cols == 0
    }
}

/// Token ids with a meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Special {
    /// Begin of sequence.
    pub bos: Option<u32>,
    /// End of sequence, as chat templates write it.
    pub eos: Option<u32>,
    /// End of sequence, turn or text: generation stops at any of these. Ascending.
    pub stop: Vec<u32>,
    /// Whether plain text is encoded with `bos` in front.
    pub add_bos: bool,
}

/// The tokenizer section's line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerEntry {
    /// Bytes.
    pub len: u64,
    /// Plain BLAKE3.
    #[serde(with = "hex32")]
    pub hash: Hash,
}

/// All of a manifest that is neither program nor tensor table: one leaf of the model root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Info {
    /// Tensor spec version.
    pub spec_version: u32,
    /// Architecture: `llama`.
    pub architecture: String,
    /// The model's own name.
    pub name: String,
    /// Numeric profile.
    pub profile: Profile,
    /// Where the weights came from.
    pub source: Source,
    /// Hyperparameters.
    pub hyper: Hyper,
    /// Special ids.
    pub special: Special,
    /// Jinja chat template, if the model has one.
    pub chat_template: Option<String>,
    /// Lines of the tensor table.
    pub tensor_count: u32,
    /// Sites of the program.
    pub site_count: u32,
}

/// The whole manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Who and what.
    pub info: Info,
    /// What runs.
    pub program: Program,
    /// Tensor table, indexed by tensor id.
    pub tensors: Vec<TensorEntry>,
    /// The tokenizer section.
    pub tokenizer: TokenizerEntry,
}

impl Manifest {
    /// Canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest has string keys only and writes to memory")
    }

    /// Reads canonical bytes and refuses any other spelling of the same manifest.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|e| format!("manifest: {e}"))?;
        if manifest.encode() != bytes {
            return Err("manifest: not in canonical form".into());
        }
        Ok(manifest)
    }
}
