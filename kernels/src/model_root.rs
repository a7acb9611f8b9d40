//! The model root: 32 bytes that name a model everywhere, a Merkle tree of four branches (info, program,
//! tensors, tokenizer) shaped so that one site or one tensor opens alone with a short path. `docs/spec/pack.md`
//! is the standard; packs and disputes share this code.

use crate::{
    DType, Hash, KernelError, Program, Site, TensorId,
    rows::{merkle_root, node_hash},
};

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

/// Branches of a model root: info, program, tensors, tokenizer.
pub const BRANCHES: u32 = 4;
/// Index of the tensors among them.
pub const TENSORS: u32 = 2;

/// H over a tag and parts.
fn tagged(tag: &[u8; 16], parts: &[&[u8]]) -> Hash {
    let mut h = blake3::Hasher::new();
    h.update(tag);
    for part in parts {
        h.update(part);
    }
    *h.finalize().as_bytes()
}

/// Info leaf: tag, canonical JSON of the info.
pub fn info_leaf(json: &[u8]) -> Hash {
    tagged(INFO_TAG, &[json])
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

/// A site's leaf: tag, index (u32), [`Site::encode`]. Fails for a site that has no canonical record; a valid
/// program has none.
pub fn site_leaf(index: u32, site: &Site) -> Result<Hash, KernelError> {
    Ok(tagged(SITE_TAG, &[&index.to_le_bytes(), &site.encode()?]))
}

/// The leaves of the program's branch: dimensions first, then a leaf a site.
pub fn program_leaves(p: &Program) -> Result<Vec<Hash>, KernelError> {
    let sites = (0u32..).zip(&p.sites).map(|(i, s)| site_leaf(i, s));
    std::iter::once(Ok(program_leaf(p))).chain(sites).collect()
}

/// A tensor's leaf: tag, index (u32), dtype (u8), rows (u64), cols (u64), plain BLAKE3 of its bytes, name.
pub fn tensor_leaf(id: TensorId, name: &str, (dtype, rows, cols): (DType, u64, u64), hash: &Hash) -> Hash {
    let dtype = match dtype {
        DType::I8 => 0u8,
        DType::U8 => 1,
        DType::I16 => 2,
        DType::I32 => 3,
        DType::Scale => 4,
    };
    tagged(
        TENSOR_TAG,
        &[
            &id.to_le_bytes(),
            &[dtype],
            &rows.to_le_bytes(),
            &cols.to_le_bytes(),
            hash,
            name.as_bytes(),
        ],
    )
}

/// The tokenizer's leaf: tag, length (u64), hash.
pub fn tokenizer_leaf(len: u64, hash: &Hash) -> Hash {
    tagged(TOKENIZER_TAG, &[&len.to_le_bytes(), hash])
}

/// The top node of a tree of `leaves`, at least 2, from its two children. It holds the number of leaves, so
/// whoever knows the root and shows the children has shown their number.
pub fn top_node(leaves: u32, [left, right]: &[Hash; 2]) -> Hash {
    node_hash(
        u32::BITS - leaves.saturating_sub(1).leading_zeros(),
        leaves,
        left,
        right,
    )
}

/// The two children of the top node of a tree; none where a tree has no such node (fewer than two leaves).
pub fn top_children(leaves: &[Hash]) -> Option<[Hash; 2]> {
    let half = leaves.len().checked_next_power_of_two()? / 2;
    if half == 0 {
        return None;
    }
    // The left child is full; an odd last node rises unchanged, so the right one is the root of the rest.
    let (left, right) = leaves.split_at(half);
    Some([merkle_root(left), merkle_root(right)])
}

/// The model root of its four branches.
pub fn root(branches: &[Hash; BRANCHES as usize]) -> Hash {
    merkle_root(branches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_node_of_a_tree_holds_its_number_of_leaves() {
        let leaves: Vec<Hash> = (0u32..80)
            .map(|i| *blake3::hash(&i.to_le_bytes()).as_bytes())
            .collect();
        for n in 2..leaves.len() {
            let leaves = &leaves[..n];
            let (children, n) = (top_children(leaves).unwrap(), u32::try_from(n).unwrap());
            assert_eq!(top_node(n, &children), merkle_root(leaves), "{n}");
            assert_ne!(top_node(n - 1, &children), merkle_root(leaves));
            assert_ne!(top_node(n + 1, &children), merkle_root(leaves));
        }
        assert_eq!((top_children(&leaves[..1]), top_children(&[])), (None, None));
    }
}
