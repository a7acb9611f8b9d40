//! `model_root`: a Merkle tree of four branches (info, program, tensors, tokenizer), shaped so that one site
//! or one tensor opens alone with a short path.

use bitai_kernels::{Hash, KernelError, Program, Site, rows::merkle_root};

use super::manifest::{Info, Manifest, TensorEntry, TokenizerEntry};

/// Tag of the info leaf.
pub const INFO_TAG: &[u8; 16] = b"bitai/info/v0\0\0\0";
/// Tag of the program's first leaf: its dimensions.
pub const PROGRAM_TAG: &[u8; 16] = b"bitai/prog/v0\0\0\0";
/// Tag of a site's leaf.
pub const SITE_TAG: &[u8; 16] = b"bitai/site/v0\0\0\0";
/// Tag of a tensor's leaf.
pub const TENSOR_TAG: &[u8; 16] = b"bitai/tens/v0\0\0\0";
/// Tag of the tokenizer's leaf.
pub const TOKENIZER_TAG: &[u8; 16] = b"bitai/tokn/v0\0\0\0";

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
        let sites = (0u32..)
            .zip(&manifest.program.sites)
            .map(|(i, s)| site_leaf(i, s));
        Ok(Self {
            info: info_leaf(&manifest.info),
            program: std::iter::once(Ok(program_leaf(&manifest.program)))
                .chain(sites)
                .collect::<Result<_, _>>()?,
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
        merkle_root(&self.branches())
    }
}

fn tagged(tag: &[u8; 16], parts: &[&[u8]]) -> Hash {
    let mut h = blake3::Hasher::new();
    h.update(tag);
    for part in parts {
        h.update(part);
    }
    *h.finalize().as_bytes()
}

/// Info leaf: tag, canonical JSON of the info.
pub fn info_leaf(info: &Info) -> Hash {
    let json = serde_json::to_vec(info).expect("info has string keys only and writes to memory");
    tagged(INFO_TAG, &[&json])
}

/// First leaf of the program: tag, then layers, d_model, vocab, context, kv_heads, head_dim,
/// checkpoint_stride and the number of sites, u32 little-endian each.
pub fn program_leaf(p: &Program) -> Hash {
    let sites = u32::try_from(p.sites.len()).unwrap_or(u32::MAX);
    let words = [
        p.layers,
        p.d_model,
        p.vocab,
        p.context,
        p.kv_heads,
        p.head_dim,
        p.checkpoint_stride,
        sites,
    ];
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    tagged(PROGRAM_TAG, &[&bytes])
}

/// A site's leaf: tag, index (u32), [`Site::encode`].
pub fn site_leaf(index: u32, site: &Site) -> Result<Hash, KernelError> {
    Ok(tagged(SITE_TAG, &[&index.to_le_bytes(), &site.encode()?]))
}

/// A tensor's leaf: tag, index (u32), dtype (u8), rows (u64), cols (u64), hash, name.
pub fn tensor_leaf(index: u32, t: &TensorEntry) -> Hash {
    let dtype = match t.dtype {
        bitai_kernels::DType::I8 => 0u8,
        bitai_kernels::DType::U8 => 1,
        bitai_kernels::DType::I16 => 2,
        bitai_kernels::DType::I32 => 3,
        bitai_kernels::DType::Scale => 4,
    };
    tagged(
        TENSOR_TAG,
        &[
            &index.to_le_bytes(),
            &[dtype],
            &t.rows.to_le_bytes(),
            &t.cols.to_le_bytes(),
            &t.hash,
            t.name.as_bytes(),
        ],
    )
}

/// The tokenizer's leaf: tag, length (u64), hash.
pub fn tokenizer_leaf(t: &TokenizerEntry) -> Hash {
    tagged(TOKENIZER_TAG, &[&t.len.to_le_bytes(), &t.hash])
}
