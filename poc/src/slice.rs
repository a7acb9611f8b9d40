//! Slices of a plain BLAKE3 hash: a piece of a row or of a tensor, with the chaining values beside its path.
//!
//! BLAKE3 is itself a binary tree over 1 KiB chunks, left-complete, the left half being the largest power of
//! two that leaves something on the right. A piece is an aligned power of two of chunks (the last one may be
//! short), so it is one subtree and has one chaining value; the siblings on its way up prove it. The same
//! numbers verify through the chain's BLAKE3 chaining-value precompile.
//!
//! The total length is the verifier's own: it follows from a shape that is public.

use bitai_kernels::Hash;
use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Bytes of a BLAKE3 chunk.
pub const CHUNK: u64 = 1024;
/// Most pieces whose chaining values one move publishes.
pub const PIECES_MAX: u64 = 256;

/// Most bytes that a slice is taken of; keeps every sum of lengths far from overflow.
pub const TOTAL_MAX: u64 = 1 << 48;

/// Why a slice does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SliceError {
    /// Outside the hashed bytes, or not a piece.
    #[error(
        "piece {index} of {piece} bytes lies outside {total} bytes, or is no power of two of 1 KiB chunks"
    )]
    Range {
        /// Piece asked for.
        index: u64,
        /// Bytes a piece.
        piece: u64,
        /// Bytes hashed.
        total: u64,
    },
    /// Another number of bytes or siblings than this piece has.
    #[error("{what}: {got}, expected {expected}")]
    Shape {
        /// What was counted.
        what: &'static str,
        /// How many there must be.
        expected: u64,
        /// How many there are.
        got: u64,
    },
    /// The path ends in another hash.
    #[error("piece {index} leads to another hash")]
    Hash {
        /// The piece.
        index: u64,
    },
}

/// One piece's bytes and the chaining values beside its path, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceProof {
    /// Bytes of the piece.
    pub bytes: Vec<u8>,
    /// Chaining values of the siblings, lowest first.
    pub siblings: Vec<Hash>,
}

/// Bytes a piece such that `total` bytes have at most [`PIECES_MAX`]: a power of two of chunks.
pub fn piece_len(total: u64) -> u64 {
    total
        .div_ceil(CHUNK)
        .div_ceil(PIECES_MAX)
        .max(1)
        .next_power_of_two()
        * CHUNK
}

/// Number of pieces in `total` bytes; at least one (of no bytes).
pub const fn pieces(total: u64, piece: u64) -> u64 {
    let n = total.div_ceil(piece);
    if n == 0 { 1 } else { n }
}

/// The chaining value of bytes that lie at `offset` of a longer input (never its root).
pub(crate) fn subtree(offset: u64, bytes: &[u8]) -> ChainingValue {
    blake3::Hasher::new()
        .set_input_offset(offset)
        .update(bytes)
        .finalize_non_root()
}

/// Chaining values of all pieces of `bytes`, in order. A single piece gives the hash itself.
pub fn piece_values(bytes: &[u8], piece: u64) -> Vec<Hash> {
    let total = bytes.len() as u64;
    if total <= piece {
        return vec![*blake3::hash(bytes).as_bytes()];
    }
    let size = usize::try_from(piece).expect("shorter than the bytes, which are in memory");
    (0u64..)
        .zip(bytes.chunks(size))
        .map(|(i, b)| subtree(i * piece, b))
        .collect()
}

/// The hash of `total` bytes from the chaining values of all their pieces; `None` if their number is wrong.
pub fn join_values(total: u64, piece: u64, values: &[Hash]) -> Option<Hash> {
    if !valid_piece(piece) || total > TOTAL_MAX || values.len() as u64 != pieces(total, piece) {
        return None;
    }
    if let [one] = values {
        return Some(*one);
    }
    let left_len = left_subtree_len(total);
    let split = usize::try_from(left_len / piece).ok()?;
    let left = join_inner(left_len, piece, &values[..split]);
    let right = join_inner(total - left_len, piece, &values[split..]);
    Some(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
}

/// [`join_values`] below the root; the numbers fit by construction.
fn join_inner(len: u64, piece: u64, values: &[Hash]) -> ChainingValue {
    if let [one] = values {
        return *one;
    }
    let left_len = left_subtree_len(len);
    // Aligned pieces: the left part is a power of two of chunks and longer than a piece.
    let split = usize::try_from(left_len / piece).expect("at most the number of values");
    merge_subtrees_non_root(
        &join_inner(left_len, piece, &values[..split]),
        &join_inner(len - left_len, piece, &values[split..]),
        Mode::Hash,
    )
}

/// Whether `piece` is a power of two of chunks.
fn valid_piece(piece: u64) -> bool {
    piece >= CHUNK && piece.is_power_of_two()
}

/// For the piece at `index`, from the root down: whether it lies in the left part, and the other part's range.
fn path(total: u64, piece: u64, index: u64) -> Vec<(bool, std::ops::Range<u64>)> {
    let (mut start, mut len) = (0, total);
    let at = index * piece;
    let mut steps = Vec::new();
    while len > piece {
        let left = left_subtree_len(len);
        if at < start + left {
            steps.push((true, start + left..start + len));
            len = left;
        } else {
            steps.push((false, start..start + left));
            start += left;
            len -= left;
        }
    }
    steps
}

/// Bytes that piece `index` has.
fn bytes_of(total: u64, piece: u64, index: u64) -> Result<u64, SliceError> {
    let bad = SliceError::Range { index, piece, total };
    if !valid_piece(piece) || total > TOTAL_MAX || index >= pieces(total, piece) {
        return Err(bad);
    }
    let start = index.checked_mul(piece).ok_or(bad)?;
    Ok((total - start).min(piece))
}

impl SliceProof {
    /// Opens piece `index` of `bytes`.
    pub fn prove(bytes: &[u8], piece: u64, index: u64) -> Result<Self, SliceError> {
        let total = bytes.len() as u64;
        let len = bytes_of(total, piece, index)?;
        let range = |r: std::ops::Range<u64>| {
            let at = |x| usize::try_from(x).expect("inside bytes that are in memory");
            &bytes[at(r.start)..at(r.end)]
        };
        let siblings = path(total, piece, index)
            .into_iter()
            .rev()
            .map(|(_, r)| subtree(r.start, range(r)))
            .collect();
        let start = index * piece;
        Ok(Self {
            bytes: range(start..start + len).to_vec(),
            siblings,
        })
    }

    /// Checks that the bytes are piece `index` of the `total` bytes with `hash`.
    pub fn verify(&self, hash: &Hash, total: u64, piece: u64, index: u64) -> Result<(), SliceError> {
        let expected = bytes_of(total, piece, index)?;
        let got = self.bytes.len() as u64;
        if got != expected {
            return Err(SliceError::Shape {
                what: "bytes of the piece",
                expected,
                got,
            });
        }
        let steps = path(total, piece, index);
        let (expected, got) = (steps.len() as u64, self.siblings.len() as u64);
        if got != expected {
            return Err(SliceError::Shape {
                what: "chaining values beside the piece",
                expected,
                got,
            });
        }
        let found = if steps.is_empty() {
            *blake3::hash(&self.bytes).as_bytes()
        } else {
            let mut cv = subtree(index * piece, &self.bytes);
            for (i, ((left, _), sibling)) in steps.iter().rev().zip(&self.siblings).enumerate() {
                let (l, r) = if *left { (&cv, sibling) } else { (sibling, &cv) };
                cv = if i + 1 == steps.len() {
                    *merge_subtrees_root(l, r, Mode::Hash).as_bytes()
                } else {
                    merge_subtrees_non_root(l, r, Mode::Hash)
                };
            }
            cv
        };
        if found == *hash {
            Ok(())
        } else {
            Err(SliceError::Hash { index })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn data(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new()
            .update(b"slice")
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    }

    /// Lengths at which the shape of BLAKE3's tree changes.
    const LENGTHS: [usize; 14] = [
        0, 1, 1023, 1024, 1025, 2048, 2049, 3072, 3073, 4096, 5000, 8193, 16384, 31745,
    ];

    #[test]
    fn every_piece_of_every_boundary_length_opens_and_joins() {
        for len in LENGTHS {
            let bytes = data(len);
            let (hash, total) = (*blake3::hash(&bytes).as_bytes(), len as u64);
            for piece in [1024, 2048, 4096] {
                let values = piece_values(&bytes, piece);
                assert_eq!(join_values(total, piece, &values), Some(hash), "{len} {piece}");
                assert_eq!(join_values(total, piece, &values[1..]), None);
                for i in 0..pieces(total, piece) {
                    let proof = SliceProof::prove(&bytes, piece, i).unwrap();
                    proof.verify(&hash, total, piece, i).unwrap();
                }
                assert!(SliceProof::prove(&bytes, piece, pieces(total, piece)).is_err());
            }
        }
    }

    #[test]
    fn a_row_of_logits_has_at_most_256_pieces() {
        assert_eq!(piece_len(0), 1024);
        assert_eq!(piece_len(256 * 1024), 1024);
        assert_eq!(piece_len(256 * 1024 + 1), 2048);
        assert_eq!(piece_len(262_144 * 4), 4096);
        assert_eq!(pieces(262_144 * 4, 4096), 256);
    }

    #[test]
    fn rejects_pieces_that_are_no_power_of_two_of_chunks() {
        let bytes = data(5000);
        for piece in [0, 512, 1536, 3072] {
            assert!(matches!(
                SliceProof::prove(&bytes, piece, 0),
                Err(SliceError::Range { .. })
            ));
        }
        assert_eq!(join_values(5000, 3072, &[[0; 32]; 2]), None);
        let proof = SliceProof::prove(&bytes, 1024, 4).unwrap();
        let hash = *blake3::hash(&bytes).as_bytes();
        assert!(proof.verify(&hash, 5000, 1024, u64::MAX).is_err());
        assert!(proof.verify(&hash, u64::MAX, 1024, 4).is_err());
    }

    proptest! {
        #[test]
        fn rejects_a_changed_byte_index_piece_or_order(
            len in 1usize..20_000, pick in any::<u64>(), at in any::<usize>(), bit in 0u8..8, other in any::<u64>(),
        ) {
            let bytes = data(len);
            let (hash, total) = (*blake3::hash(&bytes).as_bytes(), len as u64);
            let n = pieces(total, 1024);
            let i = pick % n;
            let proof = SliceProof::prove(&bytes, 1024, i).unwrap();
            prop_assert!(proof.verify(&hash, total, 1024, i).is_ok());

            let mut bad = proof.clone();
            let size = bad.bytes.len();
            bad.bytes[at % size] ^= 1 << bit;
            prop_assert!(bad.verify(&hash, total, 1024, i).is_err());

            let mut short = proof.clone();
            short.bytes.pop();
            prop_assert!(short.verify(&hash, total, 1024, i).is_err());

            let j = other % n;
            if j != i { prop_assert!(proof.verify(&hash, total, 1024, j).is_err()); }
            if n > 1 {
                prop_assert!(proof.verify(&hash, total, 2048, i).is_err());
                let mut bad = proof.clone();
                let count = bad.siblings.len();
                bad.siblings[at % count][at / 5 % 32] ^= 1 << bit;
                prop_assert!(bad.verify(&hash, total, 1024, i).is_err());
                if count > 1 {
                    let mut swapped = proof.clone();
                    swapped.siblings.swap(0, count - 1);
                    prop_assert!(swapped.verify(&hash, total, 1024, i).is_err());
                }
                let mut more = proof;
                more.siblings.push([0; 32]);
                prop_assert!(more.verify(&hash, total, 1024, i).is_err());
            }
        }
    }
}
