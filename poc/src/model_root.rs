//! A model root, as a judge sees it: four branches (info, program, tensors, tokenizer), so that the program
//! is checked against the root whole, and one tensor opens alone.
//!
//! The bytes are those of `docs/spec/pack.md`. Nothing here reads a pack: leaves come from its manifest.

use alloy_primitives::B256;
use bitai_kernels::{DType, Hash, HostTensor, KernelError, Program, TensorId, rows::merkle_root};
use serde::{Deserialize, Serialize};

use crate::{
    merkle::MerkleProof,
    opening::{OpenError, RangeOpening},
};

/// Tag of the program's first leaf: its dimensions.
pub const PROGRAM_TAG: &[u8; 16] = b"bitai/prog/v0\0\0\0";
/// Tag of a site's leaf.
pub const SITE_TAG: &[u8; 16] = b"bitai/site/v0\0\0\0";
/// Tag of a tensor's leaf.
pub const TENSOR_TAG: &[u8; 16] = b"bitai/tens/v0\0\0\0";

/// Branches of a model root.
const BRANCHES: u32 = 4;
/// Index of the tensors among them.
const TENSORS: u32 = 2;

/// H over a tag and parts.
fn tagged(tag: &[u8; 16], parts: &[&[u8]]) -> Hash {
    let mut h = blake3::Hasher::new();
    h.update(tag);
    for part in parts {
        h.update(part);
    }
    *h.finalize().as_bytes()
}

/// The program's branch: dimensions first, then a leaf a site.
///
/// Fails only for a site that has no canonical record; a valid program has none.
pub fn program_root(p: &Program) -> Result<Hash, KernelError> {
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
    let head = tagged(PROGRAM_TAG, &[&bytes]);
    let sites = (0u32..)
        .zip(&p.sites)
        .map(|(i, site)| Ok(tagged(SITE_TAG, &[&i.to_le_bytes(), &site.encode()?])));
    let leaves = std::iter::once(Ok(head))
        .chain(sites)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(merkle_root(&leaves))
}

/// The branches beside the program; with the program they give the model root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branches {
    /// The info leaf.
    pub info: Hash,
    /// Root over the tensors' leaves.
    pub tensors: Hash,
    /// Number of tensors; their tree binds it.
    pub tensor_count: u32,
    /// The tokenizer's leaf.
    pub tokenizer: Hash,
}

impl Branches {
    /// The model root with this program.
    pub fn root(&self, program: &Program) -> Result<B256, KernelError> {
        let branches = [self.info, program_root(program)?, self.tensors, self.tokenizer];
        Ok(B256::from(merkle_root(&branches)))
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
        let dtype = match self.dtype {
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
                &self.rows.to_le_bytes(),
                &self.cols.to_le_bytes(),
                &self.hash,
                self.name.as_bytes(),
            ],
        )
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

/// A byte range of a tensor, all the way from the model root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorOpening {
    /// The tensor's line.
    pub line: TensorLine,
    /// Its path to the tensors' root.
    pub proof: MerkleProof,
    /// From there to the model root.
    pub branch: MerkleProof,
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
        let merkle = |what| move |source| OpenError::Merkle { what, source };
        let tensors = self
            .proof
            .root(count, id, &self.line.leaf(id))
            .map_err(merkle("tensor"))?;
        self.branch
            .verify(&model_root.0, BRANCHES, TENSORS, &tensors)
            .map_err(merkle("tensors' branch"))?;
        let total = self.line.len().unwrap_or(u64::MAX);
        if (self.line.dtype, self.line.rows, self.line.cols) != (dtype, rows, cols) {
            return Err(OpenError::Range {
                what: "tensor of another type or shape",
                index: id.into(),
                count: count.into(),
            });
        }
        let size = dtype.size() as u64;
        let bytes = range.start.saturating_mul(size)..range.end.saturating_mul(size);
        self.range.verify("tensor", &self.line.hash, total, bytes)
    }

    /// Bytes on the wire.
    pub fn size(&self) -> usize {
        32 + 17 + self.line.name.len() + self.proof.size() + self.branch.size() + self.range.size()
    }
}

/// A pack as a player opens it: its lines and bytes.
#[derive(Clone)]
pub struct Pack {
    branches: Branches,
    program: Hash,
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
        Ok(Self {
            branches: Branches {
                info,
                tensors: merkle_root(&leaves(&lines)),
                tensor_count: u32::try_from(lines.len()).unwrap_or(u32::MAX),
                tokenizer,
            },
            program: program_root(program)?,
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
        let b = &self.branches;
        B256::from(merkle_root(&[b.info, self.program, b.tensors, b.tokenizer]))
    }

    /// A tensor.
    pub fn tensor(&self, id: TensorId) -> Option<&HostTensor> {
        self.tensors.get(id as usize)
    }

    /// Opens elements `range` of tensor `id`; `None` outside it.
    pub fn open(&self, id: TensorId, range: std::ops::Range<u64>) -> Option<TensorOpening> {
        let line = self.lines.get(id as usize)?.clone();
        let size = line.dtype.size() as u64;
        let bytes = range.start.checked_mul(size)?..range.end.checked_mul(size)?;
        let b = &self.branches;
        Some(TensorOpening {
            proof: MerkleProof::prove(&leaves(&self.lines), id)?,
            branch: MerkleProof::prove(&[b.info, self.program, b.tensors, b.tokenizer], TENSORS)?,
            range: RangeOpening::prove(self.tensors.get(id as usize)?.data(), bytes).ok()?,
            line,
        })
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
            other.line.name.push('x');
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
}
