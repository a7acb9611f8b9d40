//! Batches of jobs under one commitment: how job ids and answers are packed, and the tree over the commitments. The hub
//! computes the same (`contracts/src/libraries/Batch.sol`); `docs/spec/job.md` says it byte by byte.

use alloy_primitives::{B256, U256, keccak256};
use thiserror::Error;

use crate::job::ids_to_bytes;

/// Most jobs of a batch.
pub const JOBS_MAX: usize = 1024;

/// Why jobs are no batch.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BatchError {
    /// None, or too many.
    #[error("{got} jobs; a batch has 1 to {JOBS_MAX}: split it")]
    Size {
        /// How many.
        got: usize,
    },
    /// A number that does not lie behind the one before, or none that a hub gives.
    #[error("job {id} may not stand here; a batch names its jobs in ascending order, from 1 to 2^56 - 1")]
    Order {
        /// The job.
        id: U256,
    },
}

/// LEB128: seven bits a byte, the lowest first, all but the last with the top bit set.
fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value > 127 {
        out.push((value & 127) as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Ascending job ids: LEB128 of the first, then of each difference to the one before.
pub fn pack_jobs(ids: &[U256]) -> Result<Vec<u8>, BatchError> {
    if ids.is_empty() || ids.len() > JOBS_MAX {
        return Err(BatchError::Size { got: ids.len() });
    }
    let mut out = Vec::with_capacity(ids.len() + 8);
    let mut last = 0u64;
    for &id in ids {
        let order = BatchError::Order { id };
        let Some(small) = u64::try_from(id)
            .ok()
            .filter(|small| *small < 1 << 56 && *small > last)
        else {
            return Err(order);
        };
        put_number(&mut out, small - last);
        last = small;
    }
    Ok(out)
}

/// Appends one answer: its trace root, LEB128 of its number of ids or words, these.
pub fn put_answer(out: &mut Vec<u8>, trace_root: &B256, output_ids: &[u32]) {
    out.extend_from_slice(trace_root.as_slice());
    put_number(out, output_ids.len() as u64);
    out.extend_from_slice(&ids_to_bytes(output_ids));
}

/// keccak256 over the jobs' hashes, one behind another: what a batch's commit names, so that after a reorg it answers no
/// other jobs.
pub fn job_hashes(hashes: &[B256]) -> B256 {
    keccak256(hashes.concat())
}

/// The tree over the commitments of a batch (`job::commit_hash`, all with one salt). Nodes are numbered from the root: 1,
/// and 2n and 2n + 1 beneath n. All leaves lie at one level; a node is `keccak256(left, right)`, and where there is no
/// right one it counts as zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// From the leaves up to the root.
    levels: Vec<Vec<B256>>,
}

impl Tree {
    /// The tree over these leaves, in the order of their jobs.
    pub fn new(leaves: Vec<B256>) -> Result<Self, BatchError> {
        if leaves.is_empty() || leaves.len() > JOBS_MAX {
            return Err(BatchError::Size { got: leaves.len() });
        }
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|l| l.len() > 1) {
            let above = below
                .chunks(2)
                .map(|pair| keccak256([pair[0], pair.get(1).copied().unwrap_or_default()].concat()))
                .collect();
            levels.push(above);
        }
        Ok(Self { levels })
    }

    /// The commitment of the batch; of one leaf the leaf itself.
    pub fn root(&self) -> B256 {
        self.levels.last().map_or(B256::ZERO, |top| top[0])
    }

    /// Number of the leaf of job `index` of the batch.
    pub fn leaf(&self, index: usize) -> u64 {
        (1 << (self.levels.len() - 1)) + index as u64
    }

    /// The siblings from `node` up to the root, none for the root; `None` where the tree has no such node.
    pub fn path(&self, node: u64) -> Option<Vec<B256>> {
        let depth = usize::try_from(node.checked_ilog2()?).ok()?;
        let top = self.levels.len() - 1;
        let level = top.checked_sub(depth)?;
        let place = |above: usize| (node >> above) - (1 << (depth - above));
        self.levels[level].get(usize::try_from(place(0)).ok()?)?;
        (0..depth)
            .map(|above| {
                let sibling = usize::try_from(place(above) ^ 1).ok()?;
                Some(
                    self.levels[level + above]
                        .get(sibling)
                        .copied()
                        .unwrap_or_default(),
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaves(n: usize) -> Vec<B256> {
        (0..n).map(|i| keccak256([i as u8, (i >> 8) as u8])).collect()
    }

    fn climb(mut hash: B256, node: u64, path: &[B256]) -> B256 {
        for (i, sibling) in path.iter().enumerate() {
            let pair = if node >> i & 1 == 0 {
                [hash, *sibling]
            } else {
                [*sibling, hash]
            };
            hash = keccak256(pair.concat());
        }
        hash
    }

    #[test]
    fn every_leaf_of_every_tree_opens_at_its_place_alone() {
        for n in 1..=33 {
            let tree = Tree::new(leaves(n)).unwrap();
            for (i, leaf) in leaves(n).into_iter().enumerate() {
                let node = tree.leaf(i);
                let path = tree.path(node).unwrap();
                assert_eq!(climb(leaf, node, &path), tree.root(), "{n} {i}");
                if n > 1 {
                    assert_ne!(climb(leaf, node ^ 1, &path), tree.root());
                }
            }
            assert_eq!(tree.path(tree.leaf(n)), None, "no leaf behind the last");
        }
        let one = Tree::new(leaves(1)).unwrap();
        assert_eq!((one.root(), one.leaf(0)), (leaves(1)[0], 1));
        assert_eq!(one.path(1), Some(vec![]));
        assert_eq!(one.path(0), None);
    }

    #[test]
    fn a_missing_right_node_counts_as_zero() {
        let l = leaves(3);
        let pair = |a: B256, b: B256| keccak256([a, b].concat());
        let tree = Tree::new(l.clone()).unwrap();
        assert_eq!(tree.root(), pair(pair(l[0], l[1]), pair(l[2], B256::ZERO)));
    }

    #[test]
    fn job_numbers_take_a_byte_each() {
        let ids: Vec<U256> = (1_000_000..1_000_100).map(U256::from).collect();
        assert_eq!(pack_jobs(&ids).unwrap().len(), 3 + 99);
        assert_eq!(pack_jobs(&[U256::from(1)]).unwrap(), [1]);
        assert_eq!(pack_jobs(&[128, 129].map(U256::from)).unwrap(), [128, 1, 1]);
    }

    #[test]
    fn rejects_jobs_that_are_no_batch() {
        assert_eq!(pack_jobs(&[]), Err(BatchError::Size { got: 0 }));
        assert_eq!(Tree::new(leaves(1025)), Err(BatchError::Size { got: 1025 }));
        for bad in [vec![0u64], vec![2, 2], vec![3, 2], vec![1 << 56]] {
            let ids: Vec<U256> = bad.iter().map(|id| U256::from(*id)).collect();
            let id = ids[ids.len() - 1];
            assert_eq!(pack_jobs(&ids), Err(BatchError::Order { id }));
        }
        assert!(pack_jobs(&[U256::MAX]).is_err());
    }

    proptest! {
        #[test]
        fn what_is_packed_adds_up_again(steps in proptest::collection::vec(1u64..1 << 40, 1..50)) {
            let ids: Vec<U256> = steps
                .iter()
                .scan(0, |last, step| {
                    *last += step;
                    Some(U256::from(*last))
                })
                .collect();
            let packed = pack_jobs(&ids).unwrap();
            let (mut read, mut value, mut shift) = (Vec::new(), 0u64, 0);
            for byte in packed {
                value |= u64::from(byte & 127) << shift;
                shift += 7;
                if byte < 128 {
                    read.push(value);
                    (value, shift) = (0, 0);
                }
            }
            prop_assert_eq!(read, steps);
        }
    }
}
