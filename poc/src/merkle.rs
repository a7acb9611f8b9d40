//! Proofs in the one Merkle tree that BitAI uses (`kernels::rows::merkle_root`): neighbours pair up level by
//! level, an odd last node rises unchanged, every node is tagged with its height and its leaves.

use bitai_kernels::{Hash, rows::node_hash};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a Merkle proof does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MerkleError {
    /// The index lies outside the tree.
    #[error("leaf {index} of a tree of {leaves}")]
    Index {
        /// Index asked for.
        index: u32,
        /// Leaves of the tree.
        leaves: u32,
    },
    /// Too few or too many siblings for this index.
    #[error("{got} siblings; leaf {index} of {leaves} needs {expected}")]
    Siblings {
        /// Index of the leaf.
        index: u32,
        /// Leaves of the tree.
        leaves: u32,
        /// Siblings needed.
        expected: u32,
        /// Siblings found.
        got: usize,
    },
    /// The path ends in another root.
    #[error("the path of leaf {index} ends in another root")]
    Root {
        /// Index of the leaf.
        index: u32,
    },
}

/// The siblings on a leaf's way to the root, lowest first. Index and size of the tree are the verifier's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MerkleProof(pub Vec<Hash>);

/// Nodes at `height` of a tree of `leaves`.
pub const fn width(leaves: u32, height: u32) -> u32 {
    if height >= 32 {
        return if leaves == 0 { 0 } else { 1 };
    }
    let span = 1u64 << height;
    // At most `leaves`, so it fits.
    (leaves as u64).div_ceil(span) as u32
}

/// Height of the root: the least h with one node.
pub const fn height(leaves: u32) -> u32 {
    let mut h = 0;
    while width(leaves, h) > 1 {
        h += 1;
    }
    h
}

/// Leaves beneath node `index` at `height`.
pub const fn span(leaves: u32, height: u32, index: u32) -> u32 {
    let first = (index as u64) << (if height > 31 { 31 } else { height });
    let size = 1u64 << (if height > 31 { 31 } else { height });
    let all = leaves as u64;
    if first >= all {
        0
    } else if all - first < size {
        (all - first) as u32
    } else {
        size as u32
    }
}

/// Folds `nodes`, all the nodes at height `from` beneath node `index` at height `to`, into that node.
///
/// `None` where their number is not what the tree of `leaves` has there.
pub fn fold(leaves: u32, from: u32, to: u32, index: u32, nodes: &[Hash]) -> Option<Hash> {
    if from > to || to > 31 || index >= width(leaves, to) {
        return None;
    }
    let first = u64::from(index) << (to - from);
    let last = (first + (1u64 << (to - from))).min(u64::from(width(leaves, from)));
    if nodes.len() as u64 != last.checked_sub(first)? {
        return None;
    }
    let mut level = nodes.to_vec();
    let mut first = u32::try_from(first).ok()?;
    for h in from..to {
        level = (0u32..)
            .zip(level.chunks(2))
            .map(|(i, pair)| match pair {
                [l, r] => node_hash(h + 1, span(leaves, h + 1, first / 2 + i), l, r),
                [one] => *one,
                _ => unreachable!("chunks(2) yields one or two"),
            })
            .collect();
        first /= 2;
    }
    level.first().copied()
}

impl MerkleProof {
    /// The proof of `leaves[index]`; `None` outside the tree.
    pub fn prove(leaves: &[Hash], index: u32) -> Option<Self> {
        let n = u32::try_from(leaves.len()).ok()?;
        if index >= n {
            return None;
        }
        let mut siblings = Vec::new();
        let (mut level, mut at) = (leaves.to_vec(), index);
        for h in 0..height(n) {
            if let Some(s) = level.get((at ^ 1) as usize) {
                siblings.push(*s);
            }
            let wide = width(n, h + 1);
            level = (0..wide)
                .map(|i| {
                    let l = level[2 * i as usize];
                    match level.get(2 * i as usize + 1) {
                        Some(r) => node_hash(h + 1, span(n, h + 1, i), &l, r),
                        None => l,
                    }
                })
                .collect();
            at /= 2;
        }
        Some(Self(siblings))
    }

    /// The root that this proof gives leaf `index` of `leaves`.
    pub fn root(&self, leaves: u32, index: u32, leaf: &Hash) -> Result<Hash, MerkleError> {
        if index >= leaves {
            return Err(MerkleError::Index { index, leaves });
        }
        let expected = depth(leaves, index);
        if self.0.len() != expected as usize {
            return Err(MerkleError::Siblings {
                index,
                leaves,
                expected,
                got: self.0.len(),
            });
        }
        let (mut node, mut at, mut siblings) = (*leaf, index, self.0.iter());
        for h in 0..height(leaves) {
            if at ^ 1 < width(leaves, h) {
                let s = siblings
                    .next()
                    .expect("as many as depth() counted, by the check above");
                let (l, r) = if at & 1 == 0 { (&node, s) } else { (s, &node) };
                node = node_hash(h + 1, span(leaves, h + 1, at / 2), l, r);
            }
            at /= 2;
        }
        Ok(node)
    }

    /// Checks that `leaf` is leaf `index` of the tree of `leaves` with `root`.
    pub fn verify(&self, root: &Hash, leaves: u32, index: u32, leaf: &Hash) -> Result<(), MerkleError> {
        if self.root(leaves, index, leaf)? == *root {
            Ok(())
        } else {
            Err(MerkleError::Root { index })
        }
    }
}

/// Siblings that leaf `index` has on its way up.
fn depth(leaves: u32, index: u32) -> u32 {
    let siblings = (0..height(leaves)).filter(|h| (index >> h) ^ 1 < width(leaves, *h));
    u32::try_from(siblings.count()).expect("a tree of u32 leaves has at most 32 levels")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitai_kernels::rows::merkle_root;
    use proptest::prelude::*;

    fn leaves(n: u32) -> Vec<Hash> {
        (0..n)
            .map(|i| *blake3::hash(&i.to_le_bytes()).as_bytes())
            .collect()
    }

    #[test]
    fn every_leaf_of_every_small_tree_opens() {
        for n in 1..70 {
            let all = leaves(n);
            let root = merkle_root(&all);
            for i in 0..n {
                let proof = MerkleProof::prove(&all, i).unwrap();
                proof.verify(&root, n, i, &all[i as usize]).unwrap();
            }
            assert_eq!(MerkleProof::prove(&all, n), None);
        }
    }

    #[test]
    fn every_node_folds_from_every_height_beneath() {
        for n in [1, 2, 3, 7, 8, 9, 33, 100] {
            let mut levels = vec![leaves(n)];
            for h in 1..=height(n) {
                let below = &levels[h as usize - 1];
                let next = (0..width(n, h))
                    .map(|i| {
                        let kids = &below[2 * i as usize..below.len().min(2 * i as usize + 2)];
                        fold(n, h - 1, h, i, kids).unwrap()
                    })
                    .collect();
                levels.push(next);
            }
            assert_eq!(levels.last().unwrap(), &vec![merkle_root(&levels[0])]);
            for from in 0..=height(n) {
                let all = &levels[from as usize];
                assert_eq!(fold(n, from, height(n), 0, all), Some(merkle_root(&levels[0])));
                assert_eq!(fold(n, from, height(n), 0, &all[1..]), None);
                assert_eq!(fold(n, from, height(n), 1, all), None);
            }
        }
    }

    #[test]
    fn rejects_one_sibling_more_or_less() {
        let all = leaves(5);
        let root = merkle_root(&all);
        let mut proof = MerkleProof::prove(&all, 4).unwrap();
        assert_eq!(proof.0.len(), 1);
        proof.0.push([0; 32]);
        assert!(matches!(
            proof.verify(&root, 5, 4, &all[4]),
            Err(MerkleError::Siblings {
                expected: 1,
                got: 2,
                ..
            })
        ));
        proof.0.clear();
        assert!(proof.verify(&root, 5, 4, &all[4]).is_err());
        assert_eq!(
            proof.verify(&root, 5, 5, &all[4]),
            Err(MerkleError::Index { index: 5, leaves: 5 })
        );
    }

    proptest! {
        #[test]
        fn rejects_a_changed_byte_index_size_or_order(
            n in 2u32..300, pick in any::<u32>(), at in any::<usize>(), bit in 0u8..8, other in any::<u32>(),
        ) {
            let all = leaves(n);
            let root = merkle_root(&all);
            let i = pick % n;
            let leaf = all[i as usize];
            let proof = MerkleProof::prove(&all, i).unwrap();
            prop_assert!(proof.verify(&root, n, i, &leaf).is_ok());

            let mut bad = proof.clone();
            let len = bad.0.len();
            bad.0[at % len][at / 7 % 32] ^= 1 << bit;
            prop_assert!(bad.verify(&root, n, i, &leaf).is_err());

            let mut bad_leaf = leaf;
            bad_leaf[at % 32] ^= 1 << bit;
            prop_assert!(proof.verify(&root, n, i, &bad_leaf).is_err());

            let j = other % n;
            if j != i { prop_assert!(proof.verify(&root, n, j, &leaf).is_err()); }
            let m = 1 + other % 600;
            if m != n { prop_assert!(proof.verify(&root, m, i, &leaf).is_err()); }
            if len > 1 {
                let mut swapped = proof.clone();
                swapped.0.swap(0, len - 1);
                prop_assert!(swapped.verify(&root, n, i, &leaf).is_err());
            }
        }
    }
}
