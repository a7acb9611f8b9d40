//! A model root, as a judge sees it: four branches (info, program, tensors, tokenizer), so that the program
//! and the number of tensors are checked against the root whole, and one tensor opens alone.
//!
//! What a root is stands in `bitai_kernels::model_root`. Nothing here reads a pack: lines come from its manifest.

use alloy_primitives::B256;
use bitai_kernels::{
    DType, Hash, HostTensor, KernelError, Program, TensorId,
    model_root::{BRANCHES, TENSORS, program_leaves, root, tensor_leaf, top_children, top_node},
    program::Weight,
    reference::linear::GROUP,
    rows::merkle_root,
};
use serde::{Deserialize, Serialize};

use crate::{
    merkle::MerkleProof,
    opening::{OpenError, RangeOpening},
};

/// The program's branch: dimensions first, then a leaf a site.
///
/// Fails only for a site that has no canonical record; a valid program has none.
pub fn program_root(p: &Program) -> Result<Hash, KernelError> {
    Ok(merkle_root(&program_leaves(p)?))
}

/// The branches beside the program; with the program they give the model root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branches {
    /// The info leaf.
    pub info: Hash,
    /// Number of tensors. Their tree's top node holds it, so that another number gives another model root.
    pub tensor_count: u32,
    /// The two children of that top node. A valid program names at least two tensors (an embedding's integers
    /// and scales), so there are such; with fewer tensors no branches give the model's root.
    pub tensors: [Hash; 2],
    /// The tokenizer's leaf.
    pub tokenizer: Hash,
}

impl Branches {
    /// The model root with this program.
    pub fn root(&self, program: &Program) -> Result<B256, KernelError> {
        let tensors = top_node(self.tensor_count, &self.tensors);
        let branches = [self.info, program_root(program)?, tensors, self.tokenizer];
        Ok(B256::from(root(&branches)))
    }
}

/// A tensor's line of the manifest: what its leaf commits to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorLine {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Rows.
    pub rows: u64,
    /// Elements a row.
    pub cols: u64,
    /// Plain BLAKE3 of its canonical bytes.
    pub hash: Hash,
}

impl TensorLine {
    /// The leaf: H(tag, index, dtype, rows, cols, hash, name).
    pub fn leaf(&self, id: TensorId) -> Hash {
        tensor_leaf(id, &self.name, (self.dtype, self.rows, self.cols), &self.hash)
    }

    /// Bytes of the tensor; `None` where they cannot be counted.
    pub fn len(&self) -> Option<u64> {
        self.rows
            .checked_mul(self.cols)?
            .checked_mul(self.dtype.size() as u64)
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.rows == 0 || self.cols == 0
    }
}

/// A tensor's line alone, all the way from the model root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineOpening {
    /// The tensor's line.
    pub line: TensorLine,
    /// Its path to the tensors' root.
    pub proof: MerkleProof,
    /// From there to the model root.
    pub branch: MerkleProof,
}

impl LineOpening {
    /// Checks that tensor `id` of `count` has this line.
    pub fn verify(&self, model_root: B256, count: u32, id: TensorId) -> Result<(), OpenError> {
        let merkle = |what| move |source| OpenError::Merkle { what, source };
        let tensors = self
            .proof
            .root(count, id, &self.line.leaf(id))
            .map_err(merkle("tensor"))?;
        self.branch
            .verify(&model_root.0, BRANCHES, TENSORS, &tensors)
            .map_err(merkle("tensors' branch"))
    }
}

/// A byte range of a tensor, all the way from the model root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorOpening {
    /// The tensor's line.
    pub at: LineOpening,
    /// The bytes.
    pub range: RangeOpening,
}

impl TensorOpening {
    /// Checks tensor `id`, its type and shape and the bytes of elements `range`; gives the bytes.
    pub fn verify(
        &self,
        model_root: B256,
        count: u32,
        id: TensorId,
        (dtype, rows, cols): (DType, u64, u64),
        range: std::ops::Range<u64>,
    ) -> Result<Vec<u8>, OpenError> {
        self.at.verify(model_root, count, id)?;
        let line = &self.at.line;
        let total = line.len().unwrap_or(u64::MAX);
        if (line.dtype, line.rows, line.cols) != (dtype, rows, cols) {
            return Err(OpenError::Range {
                what: "tensor of another type or shape",
                index: id.into(),
                count: count.into(),
            });
        }
        let size = dtype.size() as u64;
        let bytes = range.start.saturating_mul(size)..range.end.saturating_mul(size);
        self.range.verify("tensor", &line.hash, total, bytes)
    }
}

/// Weights of one row with the multipliers of every group that they touch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightOpening {
    /// The integers.
    pub q: TensorOpening,
    /// The multipliers of their groups, where the weight is grouped.
    pub mult: Option<TensorOpening>,
}

/// A pack as a player opens it: its lines and bytes.
#[derive(Clone)]
pub struct Pack {
    branches: Branches,
    /// The four branches' roots.
    roots: [Hash; BRANCHES as usize],
    lines: Vec<TensorLine>,
    tensors: Vec<HostTensor>,
}

impl Pack {
    /// A pack from its parts; `names[i]` is tensor i's name. Hashes every tensor.
    pub fn new(
        info: Hash,
        program: &Program,
        names: &[String],
        tensors: Vec<HostTensor>,
        tokenizer: Hash,
    ) -> Result<Self, KernelError> {
        let lines: Vec<TensorLine> = names
            .iter()
            .zip(&tensors)
            .map(|(name, t)| TensorLine {
                name: name.clone(),
                dtype: t.dtype,
                rows: t.rows as u64,
                cols: t.cols as u64,
                hash: *blake3::hash(t.data()).as_bytes(),
            })
            .collect();
        Self::with_lines(info, program, lines, tensors, tokenizer)
    }

    /// The same from a manifest's lines, without hashing: openings of tensors that are not those of their
    /// lines fail.
    pub fn with_lines(
        info: Hash,
        program: &Program,
        lines: Vec<TensorLine>,
        tensors: Vec<HostTensor>,
        tokenizer: Hash,
    ) -> Result<Self, KernelError> {
        let leaves = leaves(&lines);
        Ok(Self {
            branches: Branches {
                info,
                tensor_count: u32::try_from(lines.len()).unwrap_or(u32::MAX),
                tensors: top_children(&leaves).unwrap_or_default(),
                tokenizer,
            },
            roots: [info, program_root(program)?, merkle_root(&leaves), tokenizer],
            lines,
            tensors,
        })
    }

    /// What a judge needs beside the program.
    pub fn branches(&self) -> Branches {
        self.branches
    }

    /// The model root.
    pub fn root(&self) -> B256 {
        B256::from(root(&self.roots))
    }

    /// A tensor.
    pub fn tensor(&self, id: TensorId) -> Option<&HostTensor> {
        self.tensors.get(id as usize)
    }

    /// Opens the line of tensor `id`; `None` where the pack has none.
    pub fn open_line(&self, id: TensorId) -> Option<LineOpening> {
        Some(LineOpening {
            line: self.lines.get(id as usize)?.clone(),
            proof: MerkleProof::prove(&leaves(&self.lines), id)?,
            branch: MerkleProof::prove(&self.roots, TENSORS)?,
        })
    }

    /// Opens elements `range` of tensor `id`; `None` outside it.
    pub fn open(&self, id: TensorId, range: std::ops::Range<u64>) -> Option<TensorOpening> {
        let size = self.lines.get(id as usize)?.dtype.size() as u64;
        let bytes = range.start.checked_mul(size)?..range.end.checked_mul(size)?;
        Some(TensorOpening {
            at: self.open_line(id)?,
            range: RangeOpening::prove(self.tensors.get(id as usize)?.data(), bytes).ok()?,
        })
    }

    /// Opens weights `range` of row `row` of a weight with `k` columns; `None` outside it.
    pub fn open_weights(
        &self,
        ids: &Weight,
        k: u32,
        row: u32,
        range: std::ops::Range<u32>,
    ) -> Option<WeightOpening> {
        let span = |width: u32, r: std::ops::Range<u32>| {
            let start = u64::from(row) * u64::from(width);
            start + u64::from(r.start)..start + u64::from(r.end)
        };
        let group = u32::try_from(GROUP).ok()?;
        let mult = match ids.mult {
            None => None,
            Some(id) => {
                let groups = range.start / group..range.end.div_ceil(group);
                Some(self.open(id, span(k / group, groups))?)
            }
        };
        Some(WeightOpening {
            q: self.open(ids.q, span(k, range))?,
            mult,
        })
    }

    /// A weight row's integers and multipliers (none where it is not grouped); `None` outside it.
    pub fn weight_row(&self, ids: &Weight, k: u32, row: u32) -> Option<(Vec<i8>, Vec<u8>)> {
        let (k, row) = (k as usize, row as usize);
        let slice = |id, width: usize| self.tensor(id)?.data().get(row * width..(row + 1) * width);
        let mults = match ids.mult {
            Some(id) => slice(id, k / GROUP)?.to_vec(),
            None => vec![],
        };
        Some((slice(ids.q, k)?.iter().map(|b| b.cast_signed()).collect(), mults))
    }
}

/// The leaves of the tensors' tree.
fn leaves(lines: &[TensorLine]) -> Vec<Hash> {
    (0u32..).zip(lines).map(|(i, l)| l.leaf(i)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Program {
        Program {
            layers: 1,
            d_model: 8,
            vocab: 9,
            context: 10,
            kv_heads: 1,
            head_dim: 8,
            checkpoint_stride: 1,
            sites: vec![],
        }
    }

    fn pack() -> Pack {
        let tensors: Vec<HostTensor> = (0..5u8)
            .map(|i| HostTensor::owned(DType::I32, 3, 300, vec![i; 3600]))
            .collect();
        let names: Vec<String> = (0..5).map(|i| format!("t{i}")).collect();
        Pack::new([1; 32], &program(), &names, tensors, [2; 32]).unwrap()
    }

    #[test]
    fn a_tensor_opens_from_the_model_root_alone() {
        let pack = pack();
        assert_eq!(pack.branches().root(&program()).unwrap(), pack.root());
        for id in 0..5 {
            let open = pack.open(id, 250..260).unwrap();
            let shape = (DType::I32, 3, 300);
            let bytes = open.verify(pack.root(), 5, id, shape, 250..260).unwrap();
            assert_eq!(bytes, vec![u8::try_from(id).unwrap(); 40]);
            let fails = |o: &TensorOpening, root, count, id, shape, range| {
                o.verify(root, count, id, shape, range).is_err()
            };
            assert!(fails(&open, B256::ZERO, 5, id, shape, 250..260));
            assert!(fails(&open, pack.root(), 6, id, shape, 250..260));
            assert!(fails(&open, pack.root(), 5, (id + 1) % 5, shape, 250..260));
            assert!(fails(&open, pack.root(), 5, id, (DType::I32, 300, 3), 250..260));
            assert!(fails(&open, pack.root(), 5, id, shape, 600..610));
            let mut other = open.clone();
            other.at.line.name.push('x');
            assert!(fails(&other, pack.root(), 5, id, shape, 250..260));
            let mut other = open;
            other.range.0[0].bytes[3] ^= 1;
            assert!(fails(&other, pack.root(), 5, id, shape, 250..260));
        }
        assert!(pack.open(5, 0..1).is_none());
        assert!(pack.open(0, 890..901).is_none());
    }

    #[test]
    fn another_program_gives_another_root() {
        let b = pack().branches();
        let other = Program {
            context: 11,
            ..program()
        };
        assert_ne!(b.root(&program()).unwrap(), b.root(&other).unwrap());
    }

    #[test]
    fn another_number_of_tensors_gives_another_root() {
        let b = pack().branches();
        for tensor_count in [0, 1, 2, 4, 6, 8, u32::MAX] {
            let other = Branches { tensor_count, ..b };
            assert_ne!(b.root(&program()).unwrap(), other.root(&program()).unwrap());
        }
        // A pack of one tensor has no node that tells their number; no program runs on it.
        let tensor = HostTensor::owned(DType::I8, 1, 1, vec![0]);
        let one = Pack::new([1; 32], &program(), &["t".into()], vec![tensor], [2; 32]).unwrap();
        assert_ne!(one.branches().root(&program()).unwrap(), one.root());
    }
}
