//! The messages of a dispute: what a challenger asks for, what a defendant publishes, and the accusations that
//! end a game in one executed step. Their bytes are in `codec`.

use bitai_kernels::{Hash, num::Scale, program::SiteId, reference::sample::Threshold};
use serde::{Deserialize, Serialize};

pub use super::keys::{KeyShare, KeySums, KeysAnswer, KvSide};
use super::{
    inner::{Side, SiteCommit},
    leaf_model::ModelFault,
};
use crate::{
    merkle::MerkleProof,
    model_root::{TensorOpening, WeightOpening},
    opening::{KvOpening, LayerRows, RangeOpening, TokenNode},
};

/// A node of the published tree that the challenger pays to see. Its parent must be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Ask {
    /// The nodes beneath node `index` at `height` of the token tree, one level of the game down.
    Tokens {
        /// Height above the token nodes.
        height: u32,
        /// Index at that height.
        index: u32,
    },
    /// A token with its layers' rows and its units' roots.
    Token {
        /// Position.
        pos: u32,
    },
    /// The commitments of a unit's sites.
    Unit {
        /// Position.
        pos: u32,
        /// The unit.
        unit: u32,
    },
    /// Chaining values of the pieces of a row.
    Row {
        /// Position.
        pos: u32,
        /// The site.
        site: SiteId,
        /// Which of its byte strings.
        side: Side,
    },
    /// One piece's bytes.
    Piece {
        /// Position.
        pos: u32,
        /// The site.
        site: SiteId,
        /// Which of its byte strings.
        side: Side,
        /// Which piece.
        index: u32,
    },
    /// The partial sums of one element of a linear.
    Sum {
        /// Position.
        pos: u32,
        /// The linear.
        site: SiteId,
        /// The element.
        element: u32,
    },
    /// The maxima and partial sums over keys of one element of an attention.
    Keys {
        /// Position.
        pos: u32,
        /// The attention.
        site: SiteId,
        /// The element.
        element: u32,
    },
    /// The keys of one part of that sum, one by one.
    KeyPart {
        /// Position.
        pos: u32,
        /// The attention.
        site: SiteId,
        /// The element.
        element: u32,
        /// Which part.
        part: u32,
    },
    /// The maxima of one group of a quantised row.
    Group {
        /// Position.
        pos: u32,
        /// The quantisation.
        site: SiteId,
        /// The group.
        group: u32,
    },
    /// Maximum and partial sums of one group of a norm.
    Norm {
        /// Position.
        pos: u32,
        /// The norm.
        site: SiteId,
        /// The group.
        group: u32,
    },
    /// Maximum, threshold and partial sums over ids of a random draw.
    Draw {
        /// Position.
        pos: u32,
    },
    /// The parts of one part of those sums.
    DrawPart {
        /// Position.
        pos: u32,
        /// Which part.
        part: u32,
    },
}

/// A largest value and the place that attains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Max<T> {
    /// The value.
    pub value: T,
    /// Its index: an element of a group, a key's position, a token id.
    pub at: u32,
}

/// What a quantised group is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupAnswer {
    /// Largest magnitude before the transform (of the group as it is where there is none).
    pub raw: Max<u32>,
    /// Largest magnitude after it; equal to `raw` where there is none.
    pub max: Max<u32>,
}

/// What a norm's group is made of, in parts of [`super::levels::NORM_PART`] elements.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NormAnswer {
    /// The plain sum of each part; none of an RMS norm.
    pub sums: Vec<i64>,
    /// Largest magnitude of an element; of a layer norm when the sum is gone (rule R7).
    pub max: Max<u64>,
    /// The sum of squares of each part.
    pub squares: Vec<u64>,
}

/// Sums over some ids of a random draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DrawSums {
    /// Ids that top-k keeps.
    pub k_count: u32,
    /// Their mass.
    pub k_mass: u64,
    /// Ids that the final threshold keeps.
    pub count: u32,
    /// Their mass.
    pub mass: u64,
    /// Mass of those below the sampled id.
    pub below: u64,
}

impl DrawSums {
    /// Bytes on the wire.
    pub const SIZE: usize = 4 + 8 + 4 + 8 + 8;

    /// The sums of a list of parts. They saturate, as the step's do: whatever is published is judged by a step.
    pub fn total(parts: &[DrawSums]) -> DrawSums {
        parts.iter().fold(DrawSums::default(), |a, b| DrawSums {
            k_count: a.k_count.saturating_add(b.k_count),
            k_mass: a.k_mass.saturating_add(b.k_mass),
            count: a.count.saturating_add(b.count),
            mass: a.mass.saturating_add(b.mass),
            below: a.below.saturating_add(b.below),
        })
    }
}

/// What a random draw is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrawAnswer {
    /// Largest logit.
    pub max: Max<i32>,
    /// Where top-k cuts, `(0, u32::MAX)` where it does not.
    pub k_threshold: (u32, u32),
    /// Where top-p cuts: probability and id of the last kept.
    pub threshold: (u32, u32),
    /// The sampled id's probability.
    pub p: u32,
    /// The sums of each part of the ids.
    pub parts: Vec<DrawSums>,
}

impl DrawAnswer {
    /// The thresholds as the spec has them: top-k's, then top-p's.
    pub fn thresholds(&self) -> (Threshold, Threshold) {
        let t = |(p, id)| Threshold { p, id };
        (t(self.k_threshold), t(self.threshold))
    }
}

/// A published node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Ask::Tokens`]: the nodes, left to right.
    Tokens(Vec<Hash>),
    /// To [`Ask::Token`].
    Token {
        /// Body root and sampled token.
        node: TokenNode,
        /// Each layer's hashes.
        layers: Vec<LayerRows>,
        /// The root of each unit.
        units: Vec<Hash>,
    },
    /// To [`Ask::Unit`]: the sites in order.
    Unit(Vec<SiteCommit>),
    /// To [`Ask::Row`]: the pieces in order.
    Row(Vec<Hash>),
    /// To [`Ask::Piece`].
    Piece(Vec<u8>),
    /// To [`Ask::Sum`]: the parts of each K segment, segments in order.
    Sum(Vec<i64>),
    /// To [`Ask::Keys`].
    Keys(KeysAnswer),
    /// To [`Ask::KeyPart`].
    KeyPart(Vec<KeyShare>),
    /// To [`Ask::Group`].
    Group(GroupAnswer),
    /// To [`Ask::Norm`].
    Norm(NormAnswer),
    /// To [`Ask::Draw`].
    Draw(DrawAnswer),
    /// To [`Ask::DrawPart`].
    DrawPart(Vec<DrawSums>),
}

/// A site's commitment: taken from a published unit, or opened under a published unit's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitOpening {
    /// The commitment.
    pub commit: SiteCommit,
    /// Its path to the unit's root; none where the unit is published.
    pub proof: Option<MerkleProof>,
}

/// A byte range of an input row of the accused site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputOpening {
    /// The input site's commitment.
    pub site: CommitOpening,
    /// The bytes.
    pub range: RangeOpening,
}

/// One head of a quantised row: its integers and its scale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadOpening {
    /// The integers.
    pub data: InputOpening,
    /// The scale.
    pub scale: RangeOpening,
}

/// One K and one V head of one key, and the query's head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyOpening {
    /// The key's position.
    pub key: u32,
    /// Its record of the KV head, under the claimed root.
    pub kv: KvOpening,
    /// The query head's integers.
    pub q: InputOpening,
    /// Its scale.
    pub q_scale: RangeOpening,
}

/// Where an accused element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct At {
    /// Position.
    pub pos: u32,
    /// Site.
    pub site: SiteId,
    /// Element of its row (for moves about a group: of the row, too; of a cached row: the byte).
    pub element: u32,
}

/// The step that the challenger says is wrong, with what the judge needs to execute it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Accusation {
    /// A part of a linear's sum.
    LinearPart {
        /// The element.
        at: At,
        /// The part.
        part: u32,
        /// The row's integers.
        x: InputOpening,
        /// The weights.
        w: WeightOpening,
    },
    /// A linear's requantisation of its published parts.
    LinearFinish {
        /// The element.
        at: At,
        /// All scales of the input row.
        x_scales: InputOpening,
        /// The weight row's scale.
        w_scale: TensorOpening,
        /// The bias, where the weight has one.
        bias: Option<TensorOpening>,
    },
    /// One key's published numbers.
    Key {
        /// The element.
        at: At,
        /// The key.
        key: Box<KeyOpening>,
    },
    /// The published largest score is not the score of its key.
    MaxNotAttained {
        /// The element.
        at: At,
        /// That key.
        key: Box<KeyOpening>,
    },
    /// A key's score exceeds the published largest one.
    MaxExceeded {
        /// The element.
        at: At,
        /// The key that exceeds it.
        key: Box<KeyOpening>,
    },
    /// A published unit of the keys or values is not the exponent of its key's scale.
    UnitNotAttained {
        /// The element.
        at: At,
        /// Which unit.
        side: KvSide,
        /// That key.
        key: Box<KeyOpening>,
    },
    /// The exponent of a key's scale exceeds the published unit.
    UnitExceeded {
        /// The element.
        at: At,
        /// Which unit.
        side: KvSide,
        /// The key that exceeds it.
        key: Box<KeyOpening>,
    },
    /// The published absmax of a group is not the magnitude at its index.
    AbsMaxNotAttained {
        /// An element of the group.
        at: At,
        /// Whether the maximum before the transform is meant.
        raw: bool,
        /// The input block that holds the index.
        block: InputOpening,
    },
    /// The input exceeds the published absmax.
    AbsMaxExceeded {
        /// The element that does.
        at: At,
        /// Whether the maximum before the transform is meant.
        raw: bool,
        /// Its input block.
        block: InputOpening,
    },
    /// A group's published scale does not follow from its absmax.
    GroupScale {
        /// An element of the group.
        at: At,
    },
    /// A quantised element does not follow from its input and the group's absmax.
    QuantElement {
        /// The element.
        at: At,
        /// Its input block.
        block: InputOpening,
    },
    /// Another id has a larger logit, or an equal one and a lower id.
    GreedyExceeded {
        /// Position.
        pos: u32,
        /// The better id.
        id: u32,
        /// The sampled id's logit.
        sampled: InputOpening,
        /// The better id's logit.
        better: RangeOpening,
    },
    /// A number of a draw's head is wrong: executed on one logit.
    DrawHead {
        /// Position.
        pos: u32,
        /// Which number.
        what: DrawFault,
        /// The id whose logit decides.
        id: u32,
        /// The logit.
        logit: InputOpening,
    },
    /// The sums of one published smallest part are wrong.
    DrawIds {
        /// Position.
        pos: u32,
        /// The part.
        part: u32,
        /// The part of that part.
        sub: u32,
        /// Its logits.
        logits: InputOpening,
    },
    /// An embedding's element: of the position's id, or of the position itself.
    Embed {
        /// The element.
        at: At,
        /// The id, opened under the prompt's hash, where the position runs one of the prompt.
        id: Option<RangeOpening>,
        /// The table's integer.
        w: WeightOpening,
        /// The row's scale.
        w_scale: TensorOpening,
    },
    /// An out row that is not the row that it passes on.
    Out {
        /// Position.
        pos: u32,
        /// The site.
        site: SiteId,
        /// The commitment of what it passes on.
        input: CommitOpening,
    },
    /// The model breaks the tensor spec: nobody can have run it.
    Model(ModelFault),
    /// A part of the plain sum of a layer norm's group.
    NormSum {
        /// An element of the group.
        at: At,
        /// The part.
        part: u32,
        /// Its elements.
        x: InputOpening,
    },
    /// The largest magnitude of a norm's group.
    NormMax {
        /// An element of the group: the one that exceeds the maximum, if one does.
        at: At,
        /// Whether that element exceeds it; else the maximum is not the magnitude at its index.
        exceeded: bool,
        /// The element that exceeds it, or the one at its index.
        x: InputOpening,
    },
    /// A part of the sum of squares of a norm's group.
    NormSquares {
        /// An element of the group.
        at: At,
        /// The part.
        part: u32,
        /// Its elements.
        x: InputOpening,
    },
    /// A norm's element does not follow from its input and what is published of the group.
    NormElement {
        /// The element.
        at: At,
        /// Its input.
        x: InputOpening,
        /// Its gain.
        gain: TensorOpening,
        /// Its bias, where the norm has one.
        bias: Option<TensorOpening>,
    },
    /// An element of a sum of rows, of a gated unit or of a unit without a gate.
    Elementwise {
        /// The element.
        at: At,
        /// The same element of input 0.
        x: InputOpening,
        /// The same element of input 1, where there is one.
        y: Option<InputOpening>,
    },
    /// An element of a rotated pair.
    Rope {
        /// The element.
        at: At,
        /// The input from the pair's first element to its second.
        pair: InputOpening,
        /// The position's row of the table from the pair's cosine to its sine.
        table: TensorOpening,
    },
    /// A byte of a cached row.
    Record {
        /// The byte.
        at: At,
        /// Its head of the keys.
        k: Box<HeadOpening>,
        /// Its head of the values.
        v: Box<HeadOpening>,
    },
}

/// Which number of a draw's head is accused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DrawFault {
    /// The largest logit is not the logit at its id.
    MaxNotAttained,
    /// A logit exceeds the largest.
    MaxExceeded,
    /// The threshold's probability is not that of its id.
    Threshold,
    /// The sampled id's probability.
    Sampled,
}

/// Scales of an opening's bytes: one.
pub fn one_scale(bytes: &[u8]) -> Scale {
    bytes.first_chunk().map_or(Scale::ZERO, |b| Scale::from_bytes(*b))
}
