//! What opens what: a token under a trace root, a layer's rows under a token's body, a piece of a row or of a
//! weight tensor under its hash. Every check starts from roots that the verifier already has.

use alloy_primitives::B256;
use bitai_kernels::{
    Hash,
    rows::{leaf_hash, merkle_root},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    header::{Header, TraceRoot, token_node},
    merkle::{MerkleError, MerkleProof},
    slice::{SliceError, SliceProof},
    transcript::Transcript,
};

/// Why an opening does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OpenError {
    /// A Merkle path fails.
    #[error("{what}: {source}")]
    Merkle {
        /// What was opened.
        what: &'static str,
        /// How it fails.
        source: MerkleError,
    },
    /// A slice fails.
    #[error("{what}: {source}")]
    Slice {
        /// What was opened.
        what: &'static str,
        /// How it fails.
        source: SliceError,
    },
    /// The parts do not add up to the root.
    #[error("{0} does not lead to the root it is opened against")]
    Root(&'static str),
    /// A row or token is there where the header says there is none, or the other way round.
    #[error("{what} at {at}: the header says that {expected}")]
    Presence {
        /// What was looked at.
        what: &'static str,
        /// Position or layer.
        at: u32,
        /// What the header says.
        expected: &'static str,
    },
    /// Outside the trace, the program or the pack.
    #[error("{what} {index} of {count}")]
    Range {
        /// What was looked at.
        what: &'static str,
        /// Which one.
        index: u64,
        /// How many there are.
        count: u64,
    },
}

/// A token node's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenNode {
    /// Body root: Merkle over the layers' leaves.
    pub body: Hash,
    /// The token sampled at this position, if one was.
    pub sampled: Option<u32>,
}

impl TokenNode {
    /// The node's hash at position `pos`.
    pub fn hash(&self, pos: u32) -> Hash {
        token_node(pos, &self.body, self.sampled)
    }

    /// Whether a token is there exactly where the header says that one is sampled.
    pub fn check(&self, header: &Header, pos: u32) -> Result<(), OpenError> {
        match (self.sampled, header.output_at(pos)) {
            (Some(_), Some(_)) | (None, None) => Ok(()),
            (None, Some(_)) => Err(OpenError::Presence {
                what: "sampled token",
                at: pos,
                expected: "this position samples",
            }),
            (Some(_), None) => Err(OpenError::Presence {
                what: "sampled token",
                at: pos,
                expected: "this position does not sample",
            }),
        }
    }
}

/// A token under a trace root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenOpening {
    /// The token's node.
    pub node: TokenNode,
    /// Its path.
    pub proof: MerkleProof,
}

impl TokenOpening {
    /// Opens position `pos` of a finished transcript; `None` outside it.
    pub fn prove(transcript: &Transcript, pos: u32) -> Option<Self> {
        Some(Self {
            node: TokenNode {
                body: *transcript.body_roots().get(pos as usize)?,
                sampled: transcript.sampled_at(pos),
            },
            proof: MerkleProof::prove(&transcript.token_nodes(), pos)?,
        })
    }

    /// Checks it against the root of a trace with this header and number of outputs.
    pub fn verify(&self, root: TraceRoot, header: &Header, outputs: u32, pos: u32) -> Result<(), OpenError> {
        self.node.check(header, pos)?;
        let positions = header.positions(outputs);
        let tree = self
            .proof
            .root(positions, pos, &self.node.hash(pos))
            .map_err(|source| OpenError::Merkle {
                what: "token",
                source,
            })?;
        if TraceRoot::new(&header.hash(outputs), positions, &tree) == root {
            Ok(())
        } else {
            Err(OpenError::Root("token"))
        }
    }

    /// Bytes on the wire.
    pub fn size(&self) -> usize {
        32 + 5 + self.proof.size()
    }
}

/// The hashes of a (token, layer) leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRows {
    /// Hash of the KV row.
    pub kv: Hash,
    /// Hash of the residual row, at checkpoints.
    pub out: Option<Hash>,
}

impl LayerRows {
    /// The leaf's hash.
    pub fn hash(&self, pos: u32, layer: u32) -> Hash {
        leaf_hash(pos, layer, &self.kv, self.out.as_ref())
    }

    /// Whether the `out` row is there exactly at the checkpoints.
    pub fn check(&self, header: &Header, layer: u32) -> Result<(), OpenError> {
        if self.out.is_some() == header.has_out(layer) {
            return Ok(());
        }
        Err(OpenError::Presence {
            what: "out row",
            at: layer,
            expected: if self.out.is_some() {
                "this layer has none"
            } else {
                "this layer has one"
            },
        })
    }

    /// The body root of all layers' rows, layer 0 first.
    pub fn body(pos: u32, layers: &[LayerRows]) -> Hash {
        let leaves: Vec<Hash> = (0u32..).zip(layers).map(|(l, rows)| rows.hash(pos, l)).collect();
        merkle_root(&leaves)
    }
}

/// A (token, layer) leaf under a token's body root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerOpening {
    /// The leaf's hashes.
    pub rows: LayerRows,
    /// Its path.
    pub proof: MerkleProof,
}

impl LayerOpening {
    /// Opens layer `layer` of a token's rows; `None` outside them.
    pub fn prove(pos: u32, layers: &[LayerRows], layer: u32) -> Option<Self> {
        let leaves: Vec<Hash> = (0u32..).zip(layers).map(|(l, r)| r.hash(pos, l)).collect();
        Some(Self {
            rows: *layers.get(layer as usize)?,
            proof: MerkleProof::prove(&leaves, layer)?,
        })
    }

    /// Checks it against the body root of position `pos`.
    pub fn verify(&self, body: &Hash, header: &Header, pos: u32, layer: u32) -> Result<(), OpenError> {
        self.rows.check(header, layer)?;
        self.proof
            .verify(body, header.layers, layer, &self.rows.hash(pos, layer))
            .map_err(|source| OpenError::Merkle {
                what: "layer",
                source,
            })
    }

    /// Bytes on the wire.
    pub fn size(&self) -> usize {
        32 + self.rows.out.map_or(0, |_| 32) + self.proof.size()
    }
}

/// A piece of the KV row of an earlier token, all the way from the trace root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvOpening {
    /// The token under the trace root.
    pub token: TokenOpening,
    /// The layer under the token.
    pub layer: LayerOpening,
    /// The piece under the row's hash.
    pub slice: SliceProof,
}

impl KvOpening {
    /// Checks piece `index` of `piece` bytes of the KV row (`total` bytes) of (`pos`, `layer`).
    pub fn verify(
        &self,
        root: TraceRoot,
        header: &Header,
        outputs: u32,
        (pos, layer): (u32, u32),
        (total, piece, index): (u64, u64, u64),
    ) -> Result<&[u8], OpenError> {
        self.token.verify(root, header, outputs, pos)?;
        self.layer.verify(&self.token.node.body, header, pos, layer)?;
        self.slice
            .verify(&self.layer.rows.kv, total, piece, index)
            .map_err(|source| OpenError::Slice {
                what: "KV row",
                source,
            })?;
        Ok(&self.slice.bytes)
    }

    /// Bytes on the wire.
    pub fn size(&self) -> usize {
        self.token.size() + self.layer.size() + self.slice.size()
    }
}

/// A tensor's hash under a model root. The pack's tree has the manifest as leaf 0 and tensor `id` as leaf
/// `id + 1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorOpening {
    /// Plain BLAKE3 of the tensor's canonical bytes.
    pub hash: Hash,
    /// Its path.
    pub proof: MerkleProof,
}

impl TensorOpening {
    /// Opens tensor `id` of a pack whose leaves are manifest hash, then tensor hashes; `None` outside it.
    pub fn prove(leaves: &[Hash], id: u32) -> Option<Self> {
        let index = id.checked_add(1)?;
        Some(Self {
            hash: *leaves.get(index as usize)?,
            proof: MerkleProof::prove(leaves, index)?,
        })
    }

    /// Checks it against the root of a pack of `tensors` tensors.
    pub fn verify(&self, model_root: B256, tensors: u32, id: u32) -> Result<(), OpenError> {
        if id >= tensors || tensors == u32::MAX {
            return Err(OpenError::Range {
                what: "tensor",
                index: id.into(),
                count: tensors.into(),
            });
        }
        self.proof
            .verify(&model_root.0, tensors + 1, id + 1, &self.hash)
            .map_err(|source| OpenError::Merkle {
                what: "tensor",
                source,
            })
    }

    /// Bytes on the wire.
    pub fn size(&self) -> usize {
        32 + self.proof.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitai_kernels::{Trace, rows};
    use proptest::prelude::*;

    const LAYERS: u32 = 5;

    fn header(prompt: u32) -> Header {
        Header {
            job: B256::repeat_byte(1),
            layers: LAYERS,
            stride: 2,
            vocab: 50,
            prompt,
            out_rows: true,
        }
    }

    fn row(pos: u32, layer: u32) -> Vec<u8> {
        let mut bytes = vec![0; 2600];
        let mut h = blake3::Hasher::new();
        h.update(&pos.to_le_bytes());
        h.update(&layer.to_le_bytes());
        h.finalize_xof().fill(&mut bytes);
        bytes
    }

    fn layers(pos: u32) -> Vec<LayerRows> {
        (0..LAYERS)
            .map(|l| LayerRows {
                kv: *blake3::hash(&row(pos, l)).as_bytes(),
                out: header(1).has_out(l).then_some([9; 32]),
            })
            .collect()
    }

    fn transcript(prompt: u32, outputs: u32) -> Transcript {
        let h = header(prompt);
        let mut t = Transcript::new(h);
        for pos in 0..h.positions(outputs) {
            t.bodies(pos, &[LayerRows::body(pos, &layers(pos))]);
            if h.output_at(pos).is_some() {
                t.sampled(pos, pos % 50);
            }
        }
        t
    }

    fn kv_opening(t: &Transcript, pos: u32, layer: u32, index: u64) -> KvOpening {
        KvOpening {
            token: TokenOpening::prove(t, pos).unwrap(),
            layer: LayerOpening::prove(pos, &layers(pos), layer).unwrap(),
            slice: SliceProof::prove(&row(pos, layer), 1024, index).unwrap(),
        }
    }

    #[test]
    fn a_body_is_what_the_kernels_hash() {
        let rows = layers(3);
        let kv: Vec<Hash> = rows.iter().map(|r| r.kv).collect();
        let out: Vec<Option<Hash>> = rows.iter().map(|r| r.out).collect();
        assert_eq!(LayerRows::body(3, &rows), rows::body_root(3, &kv, &out));
    }

    #[test]
    fn rejects_an_out_row_or_a_token_where_the_header_has_none() {
        let t = transcript(3, 4);
        let (root, h) = (t.root().unwrap(), *t.header());
        let mut open = TokenOpening::prove(&t, 0).unwrap();
        open.node.sampled = Some(0);
        assert!(matches!(
            open.verify(root, &h, 4, 0),
            Err(OpenError::Presence { .. })
        ));
        let mut open = TokenOpening::prove(&t, 3).unwrap();
        open.node.sampled = None;
        assert!(matches!(
            open.verify(root, &h, 4, 3),
            Err(OpenError::Presence { .. })
        ));
        let mut layer = LayerOpening::prove(3, &layers(3), 1).unwrap();
        let body = t.body_roots()[3];
        layer.verify(&body, &h, 3, 1).unwrap();
        layer.rows.out = None;
        assert!(layer.verify(&body, &h, 3, 1).is_err());
    }

    #[test]
    fn a_tensor_opens_under_the_model_root_and_the_manifest_is_no_tensor() {
        let leaves: Vec<Hash> = (0u8..7).map(|i| [i; 32]).collect();
        let root = B256::from(merkle_root(&leaves));
        for id in 0..6 {
            let open = TensorOpening::prove(&leaves, id).unwrap();
            open.verify(root, 6, id).unwrap();
            assert!(open.verify(root, 5, id).is_err());
            assert!(open.verify(root, 7, id).is_err());
            assert!(open.verify(root, 6, (id + 1) % 6).is_err());
            assert!(open.verify(B256::ZERO, 6, id).is_err());
        }
        assert!(TensorOpening::prove(&leaves, 6).is_none());
        assert!(TensorOpening::prove(&leaves, u32::MAX).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn rejects_any_change_between_a_kv_byte_and_the_trace_root(
            prompt in 1u32..6, outputs in 1u32..8, pick in any::<[u32; 3]>(), at in any::<usize>(), what in 0usize..9,
        ) {
            let t = transcript(prompt, outputs);
            let (root, h) = (t.root().unwrap(), *t.header());
            let n = h.positions(outputs);
            let (pos, layer, index) = (pick[0] % n, pick[1] % LAYERS, u64::from(pick[2] % 3));
            let good = kv_opening(&t, pos, layer, index);
            let check = |o: &KvOpening, root, outs, pos, layer, i| {
                o.verify(root, &h, outs, (pos, layer), (2600, 1024, i)).is_ok()
            };
            prop_assert!(check(&good, root, outputs, pos, layer, index));
            let mut bad = good.clone();
            let flip = |hash: &mut Hash| hash[at % 32] ^= 1;
            let (mut root2, mut outs2, mut pos2, mut layer2) = (root, outputs, pos, layer);
            match what {
                0 => flip(&mut bad.token.node.body),
                1 => match &mut bad.token.node.sampled { Some(t) => *t ^= 1, s => *s = Some(0) },
                2 => flip(&mut bad.layer.rows.kv),
                3 => match &mut bad.layer.rows.out { Some(o) => flip(o), o => *o = Some([9; 32]) },
                4 => { let n = bad.slice.bytes.len(); bad.slice.bytes[at % n] ^= 4 }
                5 => outs2 += 1,
                6 => flip(&mut root2.0.0),
                7 => { if n == 1 { return Ok(()); } pos2 = (pos + 1) % n }
                _ => layer2 = (layer + 1) % LAYERS,
            }
            prop_assert!(!check(&bad, root2, outs2, pos2, layer2, index));
        }
    }
}
