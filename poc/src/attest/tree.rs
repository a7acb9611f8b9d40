//! The tree of a validator's entries: height 32, one place for each job number, so that a job has one entry and no more.
//! An empty place, and a node above two empty ones, are zero.

use std::collections::BTreeMap;

use bitai_kernels::Hash;

const NODE_TAG: &[u8; 16] = b"bitai/anode/v0\0\0";

/// Levels above the entries.
pub const HEIGHT: u32 = 32;

/// An empty place.
const EMPTY: Hash = [0; 32];

/// Entries by job number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryTree(BTreeMap<u32, Hash>);

/// The siblings on an entry's way to the root, the lowest first; zero where a side is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryPath([Hash; HEIGHT as usize]);

impl EntryTree {
    /// Puts an entry's leaf into its place; gives what was there.
    pub fn insert(&mut self, job: u32, leaf: Hash) -> Option<Hash> {
        self.0.insert(job, leaf)
    }

    /// The root; zero of no entries.
    pub fn root(&self) -> Hash {
        self.node(HEIGHT, 0)
    }

    /// The way of an entry to the root; `None` where there is none.
    pub fn path(&self, job: u32) -> Option<EntryPath> {
        self.0.get(&job)?;
        let mut siblings = [EMPTY; HEIGHT as usize];
        for (h, sibling) in (0..).zip(&mut siblings) {
            *sibling = self.node(h, (u64::from(job) >> h) ^ 1);
        }
        Some(EntryPath(siblings))
    }

    /// Node `index` at `height`: only what is not empty is visited.
    fn node(&self, height: u32, index: u64) -> Hash {
        let first = index << height;
        let last = first + ((1u64 << height) - 1);
        // Both lie below 2^32.
        let (Ok(first), Ok(last)) = (u32::try_from(first), u32::try_from(last)) else {
            return EMPTY;
        };
        let mut inside = self.0.range(first..=last);
        let Some((_, leaf)) = inside.next() else {
            return EMPTY;
        };
        if height == 0 {
            return *leaf;
        }
        node_hash(
            height,
            &self.node(height - 1, 2 * index),
            &self.node(height - 1, 2 * index + 1),
        )
    }
}

impl EntryPath {
    /// The root that this path gives an entry.
    pub fn root(&self, job: u32, leaf: Hash) -> Hash {
        (0..).zip(&self.0).fold(leaf, |node, (h, sibling)| {
            if job >> h & 1 == 0 {
                node_hash(h + 1, &node, sibling)
            } else {
                node_hash(h + 1, sibling, &node)
            }
        })
    }

    /// As the contract reads it: a bit for each level with a sibling (u32, little-endian), then those.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut present = 0u32;
        for (h, sibling) in (0..).zip(&self.0) {
            present |= u32::from(*sibling != EMPTY) << h;
        }
        out.extend_from_slice(&present.to_le_bytes());
        for sibling in self.0.iter().filter(|s| **s != EMPTY) {
            out.extend_from_slice(sibling);
        }
    }
}

/// H(tag, height, left, right).
fn node_hash(height: u32, left: &Hash, right: &Hash) -> Hash {
    let mut h = blake3::Hasher::new();
    h.update(NODE_TAG);
    h.update(&height.to_le_bytes());
    h.update(left);
    h.update(right);
    *h.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaf(x: u32) -> Hash {
        *blake3::hash(&x.to_le_bytes()).as_bytes()
    }

    #[test]
    fn an_empty_tree_has_no_root_and_no_paths() {
        let tree = EntryTree::default();
        assert_eq!(tree.root(), EMPTY);
        assert_eq!(tree.path(0), None);
    }

    #[test]
    fn the_first_and_the_last_place_are_places() {
        let mut tree = EntryTree::default();
        for job in [0, u32::MAX] {
            tree.insert(job, leaf(job));
        }
        for job in [0, u32::MAX] {
            assert_eq!(tree.path(job).unwrap().root(job, leaf(job)), tree.root());
        }
        let mut bytes = Vec::new();
        tree.path(0).unwrap().encode(&mut bytes);
        assert_eq!(bytes.len(), 4 + 32, "one sibling: the other half");
        assert_eq!(bytes[..4], [0, 0, 0, 0x80]);
    }

    proptest! {
        #[test]
        fn rejects_another_job_leaf_or_entry(
            jobs in proptest::collection::btree_set(0u32..5000, 1..40),
            pick in any::<proptest::sample::Index>(), other in any::<u32>(),
        ) {
            let mut tree = EntryTree::default();
            for &job in &jobs {
                prop_assert_eq!(tree.insert(job, leaf(job)), None);
            }
            let all: Vec<u32> = jobs.iter().copied().collect();
            let job = all[pick.index(all.len())];
            let path = tree.path(job).unwrap();
            prop_assert_eq!(path.root(job, leaf(job)), tree.root());
            prop_assert_ne!(path.root(job, leaf(job ^ 1)), tree.root());
            if other != job {
                prop_assert_ne!(path.root(other, leaf(job)), tree.root());
            }
            let mut more = tree.clone();
            more.insert(job, leaf(other.wrapping_add(6000)));
            prop_assert_ne!(more.root(), tree.root());
        }
    }
}
