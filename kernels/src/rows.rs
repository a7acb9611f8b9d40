//! What of a run gets hashed: canonical bytes of KV and `out` rows, leaves, and a token's body root.
//!
//! Defined in `docs/spec/poc.md`. A row depends on nothing but the model and the tokens before it.

/// A BLAKE3 hash.
pub type Hash = [u8; 32];

/// Tag of a (token, layer) leaf.
pub const LEAF_TAG: &[u8; 16] = b"bitai/leaf/v0\0\0\0";
/// Tag of an inner node of any BitAI Merkle tree.
pub const NODE_TAG: &[u8; 16] = b"bitai/node/v0\0\0\0";

/// Bytes of one KV head's record: K values, K scale, V values, V scale.
pub const fn kv_record_len(head_dim: usize) -> usize {
    2 * (head_dim + 4)
}

/// Byte offset of KV head `head` in the canonical row: records never cross a 1 KiB BLAKE3 chunk where
/// they fit in one (PROTOCOL rule 6); the gap before the next chunk is zero.
pub const fn kv_record_offset(head: usize, head_dim: usize) -> usize {
    let rec = kv_record_len(head_dim);
    if rec > 1024 {
        return head * rec;
    }
    let per_chunk = 1024 / rec;
    (head / per_chunk) * 1024 + (head % per_chunk) * rec
}

/// Bytes of a canonical KV row (no gap after the last record).
pub const fn kv_row_len(heads: usize, head_dim: usize) -> usize {
    if heads == 0 {
        0
    } else {
        kv_record_offset(heads - 1, head_dim) + kv_record_len(head_dim)
    }
}

/// leaf(t, l): BLAKE3 over tag, position, layer, presence of `out`, the KV row's hash and the `out` row's.
pub fn leaf_hash(pos: u32, layer: u32, kv: &Hash, out: Option<&Hash>) -> Hash {
    let mut h = blake3::Hasher::new();
    h.update(LEAF_TAG);
    h.update(&pos.to_le_bytes());
    h.update(&layer.to_le_bytes());
    h.update(&u32::from(out.is_some()).to_le_bytes());
    h.update(kv);
    if let Some(out) = out {
        h.update(out);
    }
    *h.finalize().as_bytes()
}

/// An inner node: BLAKE3 over tag, height above the leaves, leaves beneath it, left and right.
pub fn node_hash(height: u32, leaves: u32, left: &Hash, right: &Hash) -> Hash {
    let mut h = blake3::Hasher::new();
    h.update(NODE_TAG);
    h.update(&height.to_le_bytes());
    h.update(&leaves.to_le_bytes());
    h.update(left);
    h.update(right);
    *h.finalize().as_bytes()
}

/// Merkle root over `leaves`: neighbours pair up level by level, an odd last one rises unchanged.
/// One leaf is its own root; none is the zero hash.
pub fn merkle_root(leaves: &[Hash]) -> Hash {
    let mut level: Vec<(Hash, u32)> = leaves.iter().map(|h| (*h, 1)).collect();
    let mut height = 0;
    while level.len() > 1 {
        height += 1;
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [(l, a), (r, b)] => (node_hash(height, a + b, l, r), a + b),
                [one] => *one,
                _ => unreachable!("chunks(2) yields one or two"),
            })
            .collect();
    }
    level.first().map_or([0; 32], |(h, _)| *h)
}

/// A token's body root: Merkle over its layers' leaves, layer 0 first.
pub fn body_root(pos: u32, kv: &[Hash], out: &[Option<Hash>]) -> Hash {
    let leaves: Vec<Hash> = (0u32..)
        .zip(kv.iter().zip(out))
        .map(|(l, (kv, out))| leaf_hash(pos, l, kv, out.as_ref()))
        .collect();
    merkle_root(&leaves)
}
