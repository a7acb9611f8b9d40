//! The inner transcript of one token: every site's output row, its commitment, and the units (before the
//! layers, each layer, after them) that the commitments are grouped in. Nothing here is stored while mining;
//! whoever is asked regenerates it.

use bitai_kernels::{
    Hash, Op, Program,
    num::Scale,
    program::SiteId,
    program_check::{Shape, shapes},
    rows::{kv_record_len, kv_record_offset, kv_row_len, merkle_root},
};
use serde::{Deserialize, Serialize};

use super::DisputeError;

/// Tag of a site's commitment.
pub const SITE_TAG: &[u8; 16] = b"bitai/inner/v0\0\0";

/// Most layers of a program that can be disputed: one move opens a token with all of them.
pub const LAYERS_MAX: u32 = 256;
/// Most sites of one unit, for the same reason.
pub const UNIT_SITES_MAX: usize = 256;

/// One site's output for one token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SiteRow {
    /// int32 elements.
    Acts(Vec<i32>),
    /// Quantised elements (planes joined) and the scale of each group.
    Quant {
        /// 1 or 2: one byte an element, or two.
        planes: u8,
        /// The integers.
        data: Vec<i16>,
        /// A scale a group.
        scales: Vec<Scale>,
    },
    /// Canonical bytes of a cached row.
    Kv(Vec<u8>),
    /// A sampled id.
    Token(u32),
}

/// What commits to a [`SiteRow`]: hashes that its pieces open under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SiteCommit {
    /// BLAKE3 of the elements, int32 little-endian.
    Acts(Hash),
    /// BLAKE3 of the integers (i8, or i16 little-endian) and of the scales (4 bytes each).
    Quant {
        /// Of the integers.
        data: Hash,
        /// Of the scales.
        scales: Hash,
    },
    /// BLAKE3 of the canonical row: the `kv` hash of the layer's leaf.
    Kv(Hash),
    /// The id itself.
    Token(u32),
}

/// Which of a row's two byte strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Side {
    /// The elements.
    Data,
    /// The scales of a quantised row.
    Scales,
}

/// Bytes of quantised integers.
pub fn quant_bytes(planes: u8, data: &[i16]) -> Vec<u8> {
    if planes == 1 {
        // One-plane values lie in +-127; the low byte is the value.
        data.iter().map(|x| x.to_le_bytes()[0]).collect()
    } else {
        data.iter().flat_map(|x| x.to_le_bytes()).collect()
    }
}

/// The reverse of [`quant_bytes`]; an odd byte at the end of two-plane data is left out.
pub fn quant_from_bytes(planes: u8, bytes: &[u8]) -> Vec<i16> {
    if planes == 1 {
        bytes.iter().map(|b| i16::from(b.cast_signed())).collect()
    } else {
        bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| i16::from_le_bytes(*b))
            .collect()
    }
}

/// int32 values from bytes; a rest shorter than 4 is left out.
pub fn ints_from_bytes(bytes: &[u8]) -> Vec<i32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|b| i32::from_le_bytes(*b))
        .collect()
}

/// Scales from bytes; a rest shorter than 4 is left out.
pub fn scales_from_bytes(bytes: &[u8]) -> Vec<Scale> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|b| Scale::from_bytes(*b))
        .collect()
}

impl SiteRow {
    /// Canonical bytes of one side; `None` where the row has no such side.
    pub fn bytes(&self, side: Side) -> Option<Vec<u8>> {
        match (self, side) {
            (SiteRow::Acts(v), Side::Data) => Some(v.iter().flat_map(|x| x.to_le_bytes()).collect()),
            (SiteRow::Quant { planes, data, .. }, Side::Data) => Some(quant_bytes(*planes, data)),
            (SiteRow::Quant { scales, .. }, Side::Scales) => {
                Some(scales.iter().flat_map(|s| s.to_bytes()).collect())
            }
            (SiteRow::Kv(bytes), Side::Data) => Some(bytes.clone()),
            _ => None,
        }
    }

    /// Its commitment.
    pub fn commit(&self) -> SiteCommit {
        let hash = |side| *blake3::hash(&self.bytes(side).unwrap_or_default()).as_bytes();
        match self {
            SiteRow::Acts(_) => SiteCommit::Acts(hash(Side::Data)),
            SiteRow::Quant { .. } => SiteCommit::Quant {
                data: hash(Side::Data),
                scales: hash(Side::Scales),
            },
            SiteRow::Kv(_) => SiteCommit::Kv(hash(Side::Data)),
            SiteRow::Token(id) => SiteCommit::Token(*id),
        }
    }
}

impl SiteCommit {
    /// Its kind: int32 row, quantised row, cached row, token.
    pub const fn kind(&self) -> u8 {
        match self {
            SiteCommit::Acts(_) => 0,
            SiteCommit::Quant { .. } => 1,
            SiteCommit::Kv(_) => 2,
            SiteCommit::Token(_) => 3,
        }
    }

    /// The leaf of a unit's tree: H(tag, site, kind, content).
    pub fn leaf(&self, site: SiteId) -> Hash {
        let mut h = blake3::Hasher::new();
        h.update(SITE_TAG);
        h.update(&site.to_le_bytes());
        h.update(&u32::from(self.kind()).to_le_bytes());
        match self {
            SiteCommit::Acts(hash) | SiteCommit::Kv(hash) => h.update(hash),
            SiteCommit::Quant { data, scales } => h.update(data).update(scales),
            SiteCommit::Token(id) => h.update(&id.to_le_bytes()),
        };
        *h.finalize().as_bytes()
    }

    /// The hash of one side's bytes.
    pub fn hash(&self, side: Side) -> Option<Hash> {
        match (self, side) {
            (SiteCommit::Acts(h) | SiteCommit::Kv(h), Side::Data) => Some(*h),
            (SiteCommit::Quant { data, .. }, Side::Data) => Some(*data),
            (SiteCommit::Quant { scales, .. }, Side::Scales) => Some(*scales),
            _ => None,
        }
    }
}

/// How a program's sites fall into units, and what each puts out. Unit 0 holds the sites before the layers,
/// unit l + 1 those of layer l, the last one those after the layers (only tokens that sample have it).
#[derive(Debug, Clone)]
pub struct Units {
    shapes: Vec<Shape>,
    ranges: Vec<std::ops::Range<u32>>,
    /// Bytes of a canonical KV row.
    pub kv_row_len: u64,
}

impl Units {
    /// Splits a valid program; refuses one that is too large for a dispute.
    pub fn new(program: &Program) -> Result<Self, DisputeError> {
        let shapes = shapes(program).map_err(|e| DisputeError::Program(e.to_string()))?;
        if program.layers > LAYERS_MAX {
            return Err(DisputeError::Program(format!(
                "{} layers; at most {LAYERS_MAX} can be disputed",
                program.layers
            )));
        }
        let bidirectional = |op: &Op| matches!(op, Op::Attention { causal: false, .. });
        if program.sites.iter().any(|s| bidirectional(&s.op)) {
            return Err(DisputeError::Program(
                "a token sees later ones; its trace has another order, which has no dispute yet".into(),
            ));
        }
        let caching = |l| {
            let caches = |s: &&bitai_kernels::Site| s.layer == Some(l) && matches!(s.op, Op::KvAppend { .. });
            program.sites.iter().filter(caches).count()
        };
        if let Some(l) = (0..program.layers).find(|l| caching(*l) != 1) {
            return Err(DisputeError::Program(format!(
                "layer {l} does not cache exactly one row"
            )));
        }
        let layer_of = |i: usize| program.sites[i].layer;
        let n = program.sites.len();
        let first = (0..n).find(|i| layer_of(*i).is_some()).unwrap_or(n);
        let after = (0..n).rev().find(|i| layer_of(*i).is_some()).map_or(n, |i| i + 1);
        let to32 = |i: usize| u32::try_from(i).expect("Program::validate bounds the sites");
        let mut ranges = Vec::with_capacity(program.layers as usize + 2);
        ranges.push(0..to32(first));
        let mut at = first;
        for l in 0..program.layers {
            let end = (at..after).find(|i| layer_of(*i) != Some(l)).unwrap_or(after);
            ranges.push(to32(at)..to32(end));
            at = end;
        }
        ranges.push(to32(after)..to32(n));
        if let Some(r) = ranges.iter().find(|r| r.len() > UNIT_SITES_MAX) {
            return Err(DisputeError::Program(format!(
                "{} sites in one layer; at most {UNIT_SITES_MAX} can be disputed",
                r.len()
            )));
        }
        Ok(Self {
            shapes,
            ranges,
            kv_row_len: kv_row_len(program.kv_heads as usize, program.head_dim as usize) as u64,
        })
    }

    /// The units of a program that cannot be run: none.
    pub(super) fn none() -> Self {
        Self {
            shapes: vec![],
            ranges: vec![],
            kv_row_len: 0,
        }
    }

    /// Units of a token.
    pub fn count(&self, sampled: bool) -> u32 {
        let all = u32::try_from(self.ranges.len()).expect("at most LAYERS_MAX + 2");
        if sampled { all } else { all.saturating_sub(1) }
    }

    /// The sites of a unit.
    pub fn sites(&self, unit: u32) -> std::ops::Range<u32> {
        self.ranges.get(unit as usize).cloned().unwrap_or(0..0)
    }

    /// The unit that holds a site.
    pub fn unit_of(&self, site: SiteId) -> Option<u32> {
        let i = self.ranges.iter().position(|r| r.contains(&site))?;
        u32::try_from(i).ok()
    }

    /// What a site puts out.
    pub fn shape(&self, site: SiteId) -> Option<Shape> {
        self.shapes.get(site as usize).copied()
    }

    /// Bytes of one side of a site's row; `None` where it has no such side.
    pub fn row_len(&self, site: SiteId, side: Side) -> Option<u64> {
        match (self.shape(site)?, side) {
            (Shape::Acts { cols }, Side::Data) => Some(u64::from(cols) * 4),
            (Shape::Quant { cols, planes, .. }, Side::Data) => Some(u64::from(cols) * u64::from(planes)),
            (Shape::Quant { cols, group, .. }, Side::Scales) => Some(u64::from(cols / group) * 4),
            (Shape::Kv, Side::Data) => Some(self.kv_row_len),
            _ => None,
        }
    }

    /// Bytes of one element of a side: 4 for int32 and scales, 1 or 2 for quantised integers, 1 for cached rows.
    pub fn element_len(&self, site: SiteId, side: Side) -> Option<u64> {
        match (self.shape(site)?, side) {
            (Shape::Acts { .. }, Side::Data) | (Shape::Quant { .. }, Side::Scales) => Some(4),
            (Shape::Quant { planes, .. }, Side::Data) => Some(planes.into()),
            (Shape::Kv, Side::Data) => Some(1),
            _ => None,
        }
    }

    /// Whether a commitment is of the kind that the site's shape has.
    pub fn fits(&self, site: SiteId, commit: &SiteCommit) -> bool {
        matches!(
            (self.shape(site), commit),
            (Some(Shape::Acts { .. }), SiteCommit::Acts(_))
                | (Some(Shape::Quant { .. }), SiteCommit::Quant { .. })
                | (Some(Shape::Kv), SiteCommit::Kv(_))
                | (Some(Shape::Token), SiteCommit::Token(_))
        )
    }
}

/// The root of a unit's tree over its sites' commitments, the first being site `first`.
pub fn unit_root(first: SiteId, commits: &[SiteCommit]) -> Hash {
    merkle_root(&unit_leaves(first, commits))
}

/// The leaves of that tree.
pub fn unit_leaves(first: SiteId, commits: &[SiteCommit]) -> Vec<Hash> {
    (first..).zip(commits).map(|(s, c)| c.leaf(s)).collect()
}

/// The canonical KV row of quantised K and V rows of whole heads, one scale a head.
pub fn kv_row(head_dim: usize, (k, ks): (&[i16], &[Scale]), (v, vs): (&[i16], &[Scale])) -> Vec<u8> {
    let mut row = vec![0; kv_row_len(ks.len(), head_dim)];
    let half = kv_record_len(head_dim) / 2;
    for head in 0..ks.len().min(vs.len()) {
        for (data, scales, skip) in [(k, ks, 0), (v, vs, half)] {
            let at = kv_record_offset(head, head_dim) + skip;
            let values = &data[head * head_dim..(head + 1) * head_dim];
            row[at..at + head_dim].copy_from_slice(&quant_bytes(1, values));
            row[at + head_dim..at + head_dim + 4].copy_from_slice(&scales[head].to_bytes());
        }
    }
    row
}

/// The KV head whose record, or the gap behind it, holds a byte of a canonical row.
pub fn kv_head_at(byte: u32, head_dim: u32) -> u32 {
    let record = 2 * (head_dim + 4);
    if record > 1024 {
        return byte / record;
    }
    let a_chunk = 1024 / record;
    byte / 1024 * a_chunk + (byte % 1024 / record).min(a_chunk - 1)
}
