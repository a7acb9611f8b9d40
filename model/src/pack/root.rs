//! `model_root` of a manifest: its leaves, by the shared definition in `bitai_kernels::model_root`.

pub use bitai_kernels::model_root::{
    INFO_TAG, PROGRAM_TAG, SITE_TAG, TENSOR_TAG, TOKENIZER_TAG, program_leaf, site_leaf,
};
use bitai_kernels::{
    Hash, KernelError,
    model_root::{self as root, program_leaves},
    rows::merkle_root,
};

use super::manifest::{Info, Manifest, TensorEntry, TokenizerEntry};

/// The leaves of a model root. `program[0]` holds the dimensions, `program[1 + i]` is site i;
/// `tensors[i]` is tensor i.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootLeaves {
    /// The info leaf.
    pub info: Hash,
    /// The program's leaves.
    pub program: Vec<Hash>,
    /// The tensors' leaves.
    pub tensors: Vec<Hash>,
    /// The tokenizer's leaf.
    pub tokenizer: Hash,
}

impl RootLeaves {
    /// The leaves of a manifest; fails where a site has no canonical encoding.
    pub fn of(manifest: &Manifest) -> Result<Self, KernelError> {
        Ok(Self {
            info: info_leaf(&manifest.info),
            program: program_leaves(&manifest.program)?,
            tensors: (0u32..)
                .zip(&manifest.tensors)
                .map(|(i, t)| tensor_leaf(i, t))
                .collect(),
            tokenizer: tokenizer_leaf(&manifest.tokenizer),
        })
    }

    /// The four branches, in order: info, program, tensors, tokenizer.
    pub fn branches(&self) -> [Hash; 4] {
        [
            self.info,
            merkle_root(&self.program),
            merkle_root(&self.tensors),
            self.tokenizer,
        ]
    }

    /// The model root.
    pub fn root(&self) -> Hash {
        root::root(&self.branches())
    }
}

/// Info leaf: tag, canonical JSON of the info.
pub fn info_leaf(info: &Info) -> Hash {
    let json = serde_json::to_vec(info).expect("info has string keys only and writes to memory");
    root::info_leaf(&json)
}

/// A tensor's leaf: tag, index (u32), dtype (u8), rows (u64), cols (u64), hash, name.
pub fn tensor_leaf(index: u32, t: &TensorEntry) -> Hash {
    root::tensor_leaf(index, &t.name, (t.dtype, t.rows, t.cols), &t.hash)
}

/// The tokenizer's leaf: tag, length (u64), hash.
pub fn tokenizer_leaf(t: &TokenizerEntry) -> Hash {
    root::tokenizer_leaf(t.len, &t.hash)
}
