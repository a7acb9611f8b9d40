//! What opens what: a token under a trace root, a layer's rows under a token's body, a byte range of a row or
//! of a weight tensor under its hash. Every check starts from roots that the verifier already has.

use bitai_kernels::{
    Hash,
    rows::{leaf_hash, merkle_root},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    header::{Header, TraceRoot, token_node},
    merkle::{MerkleError, MerkleProof},
    slice::{CHUNK, SliceError, SliceProof},
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
    /// Opens position `pos` of a finished transcript; `None` outside it, and in an encoder's, which has no tokens.
    pub fn prove(transcript: &Transcript, pos: u32) -> Option<Self> {
        if transcript.header().by_layer {
            return None;
        }
        Some(Self {
            node: TokenNode {
                body: *transcript.body_roots().get(pos as usize)?,
                sampled: transcript.sampled_at(pos),
            },
            proof: MerkleProof::prove(&transcript.nodes(), pos)?,
        })
    }

    /// Checks it against the root of a trace with this header and number of outputs.
    pub fn verify(&self, root: TraceRoot, header: &Header, outputs: u32, pos: u32) -> Result<(), OpenError> {
        if header.by_layer {
            return Err(OpenError::Root("token"));
        }
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
}

/// Bytes `start .. end` of hashed bytes, as the 1 KiB chunks that hold them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeOpening(pub Vec<SliceProof>);

impl RangeOpening {
    /// Opens a range of `bytes`.
    pub fn prove(bytes: &[u8], range: std::ops::Range<u64>) -> Result<Self, SliceError> {
        let (first, last) = chunks_of(&range);
        let total = bytes.len() as u64;
        if range.start > range.end || range.end > total {
            return Err(SliceError::Range {
                index: last,
                piece: CHUNK,
                total,
            });
        }
        (first..=last)
            .map(|i| SliceProof::prove(bytes, CHUNK, i))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Checks the chunks against the hash of `total` bytes and gives the range's own bytes.
    pub fn verify(
        &self,
        what: &'static str,
        hash: &Hash,
        total: u64,
        range: std::ops::Range<u64>,
    ) -> Result<Vec<u8>, OpenError> {
        if range.start > range.end || range.end > total {
            return Err(OpenError::Range {
                what,
                index: range.end,
                count: total,
            });
        }
        let (first, last) = chunks_of(&range);
        let (expected, got) = (last - first + 1, self.0.len() as u64);
        if got != expected {
            let source = SliceError::Shape {
                what: "chunks",
                expected,
                got,
            };
            return Err(OpenError::Slice { what, source });
        }
        let mut bytes = Vec::with_capacity(self.0.len() * 1024);
        for (i, slice) in (first..).zip(&self.0) {
            slice
                .verify(hash, total, CHUNK, i)
                .map_err(|source| OpenError::Slice { what, source })?;
            bytes.extend_from_slice(&slice.bytes);
        }
        let at = |x: u64| usize::try_from(x - first * CHUNK).expect("inside the chunks just joined");
        Ok(bytes[at(range.start)..at(range.end)].to_vec())
    }
}

/// First and last chunk of a range; an empty range still has the chunk it lies in.
fn chunks_of(range: &std::ops::Range<u64>) -> (u64, u64) {
    let first = range.start / CHUNK;
    (first, (range.end.max(range.start + 1) - 1) / CHUNK)
}

/// A byte range of the KV row of some token, all the way from the trace root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvOpening {
    /// The token under the trace root.
    pub token: TokenOpening,
    /// The layer under the token.
    pub layer: LayerOpening,
    /// The bytes under the row's hash.
    pub range: RangeOpening,
}

impl KvOpening {
    /// Checks it and gives bytes `range` of the KV row (`total` bytes) of (`pos`, `layer`).
    pub fn verify(
        &self,
        root: TraceRoot,
        header: &Header,
        outputs: u32,
        (pos, layer): (u32, u32),
        total: u64,
        range: std::ops::Range<u64>,
    ) -> Result<Vec<u8>, OpenError> {
        self.token.verify(root, header, outputs, pos)?;
        self.layer.verify(&self.token.node.body, header, pos, layer)?;
        self.range.verify("KV row", &self.layer.rows.kv, total, range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::B256;
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
            by_layer: false,
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

    fn kv_opening(t: &Transcript, pos: u32, layer: u32, range: std::ops::Range<u64>) -> KvOpening {
        KvOpening {
            token: TokenOpening::prove(t, pos).unwrap(),
            layer: LayerOpening::prove(pos, &layers(pos), layer).unwrap(),
            range: RangeOpening::prove(&row(pos, layer), range).unwrap(),
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
    fn rejects_a_range_of_other_chunks_or_outside_the_bytes() {
        let bytes = row(1, 1);
        let hash = *blake3::hash(&bytes).as_bytes();
        let open = RangeOpening::prove(&bytes, 1000..1100).unwrap();
        assert_eq!(
            open.verify("row", &hash, 2600, 1000..1100).unwrap(),
            bytes[1000..1100]
        );
        assert!(open.verify("row", &hash, 2600, 1000..1024).is_err());
        assert!(open.verify("row", &hash, 2600, 2000..2100).is_err());
        assert!(open.verify("row", &hash, 2600, 2599..2601).is_err());
        #[allow(clippy::reversed_empty_ranges, reason = "what a hostile opening may ask for")]
        let reversed = 1100..1000;
        assert!(open.verify("row", &hash, 2600, reversed).is_err());
        assert!(RangeOpening::prove(&bytes, 2600..4000).is_err());
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn rejects_any_change_between_a_kv_byte_and_the_trace_root(
            prompt in 1u32..6, outputs in 1u32..8, pick in any::<[u32; 3]>(), at in any::<usize>(), what in 0usize..9,
        ) {
            let t = transcript(prompt, outputs);
            let (root, h) = (t.root().unwrap(), *t.header());
            let n = h.positions(outputs);
            let (pos, layer, start) = (pick[0] % n, pick[1] % LAYERS, u64::from(pick[2] % 2600));
            let range = start..(start + 1 + at as u64 % 300).min(2600);
            let good = kv_opening(&t, pos, layer, range.clone());
            let check = |o: &KvOpening, root, outs, pos, layer| {
                o.verify(root, &h, outs, (pos, layer), 2600, range.clone()).is_ok()
            };
            prop_assert!(check(&good, root, outputs, pos, layer));
            let (a, b) = (range.start as usize, range.end as usize);
            prop_assert_eq!(
                &good.verify(root, &h, outputs, (pos, layer), 2600, range.clone()).unwrap(),
                &row(pos, layer)[a..b]
            );
            let mut bad = good.clone();
            let flip = |hash: &mut Hash| hash[at % 32] ^= 1;
            let (mut root2, mut outs2, mut pos2, mut layer2) = (root, outputs, pos, layer);
            match what {
                0 => flip(&mut bad.token.node.body),
                1 => match &mut bad.token.node.sampled { Some(t) => *t ^= 1, s => *s = Some(0) },
                2 => flip(&mut bad.layer.rows.kv),
                3 => match &mut bad.layer.rows.out { Some(o) => flip(o), o => *o = Some([9; 32]) },
                4 => { let b = &mut bad.range.0[0].bytes; let n = b.len(); b[at % n] ^= 4 }
                5 => outs2 += 1,
                6 => flip(&mut root2.0.0),
                7 => { if n == 1 { return Ok(()); } pos2 = (pos + 1) % n }
                _ => layer2 = (layer + 1) % LAYERS,
            }
            prop_assert!(!check(&bad, root2, outs2, pos2, layer2));
        }
    }
}
