//! Model packs: one canonical file with manifest, tensors and tokenizer, bound by one Merkle root.
//! The format is `docs/spec/pack.md`.

mod error;
mod manifest;
mod reader;
mod root;
mod writer;

pub use error::PackError;
pub use manifest::{
    Hyper, Info, Manifest, PACK_VERSION, Profile, Source, Special, TensorEntry, TokenizerEntry,
};
pub use reader::{Pack, PackBytes};
pub use root::{
    INFO_TAG, PROGRAM_TAG, RootLeaves, SITE_TAG, TENSOR_TAG, TOKENIZER_TAG, info_leaf, program_leaf,
    site_leaf, tensor_leaf, tokenizer_leaf,
};
pub use writer::{PackFile, PackWriter, TensorWriter};

use bitai_kernels::Hash;

/// First bytes of every pack.
pub const MAGIC: &[u8; 8] = b"BITAIPK\n";
/// Bytes of the header.
pub const HEADER_LEN: u64 = 128;
/// Sections start at multiples of this.
pub const ALIGN: u64 = 64;
/// The largest manifest that is read: 64 MiB is some 300,000 tensors.
pub const MANIFEST_MAX: u64 = 64 << 20;

/// The next multiple of [`ALIGN`], if there is one.
pub(crate) fn align_up(n: u64) -> Option<u64> {
    n.checked_next_multiple_of(ALIGN)
}

/// The header behind magic and version.
pub(crate) struct Header {
    pub(crate) manifest_at: u64,
    pub(crate) manifest_len: u64,
    pub(crate) root: Hash,
}

impl Header {
    /// Magic (8), version u32, zero u32, manifest offset u64, manifest length u64, model root (32), zeros.
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN as usize] {
        let mut out = [0; HEADER_LEN as usize];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&PACK_VERSION.to_le_bytes());
        out[16..24].copy_from_slice(&self.manifest_at.to_le_bytes());
        out[24..32].copy_from_slice(&self.manifest_len.to_le_bytes());
        out[32..64].copy_from_slice(&self.root);
        out
    }
}
