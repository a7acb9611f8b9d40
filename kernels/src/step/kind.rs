//! The steps and their numbers: the first byte of an input. The high half is the family.

use std::fmt;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)+) => {
        /// A step. Numbers are part of consensus: they never change their meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$doc])* $name = $number,)+
        }

        impl Kind {
            /// Every step, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The step with a number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// Its name, as docs and vectors have it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

kinds! {
    /// L1: the sum of up to 256 multiply-adds.
    LinearPart = 0x10, "linear_part";
    /// L2 to L5: an output element from the parts of its sum.
    LinearFinish = 0x11, "linear_finish";
    /// T2, T3: a piece of a weight's row.
    WeightBounds = 0x12, "weight_bounds";
    /// A3: the exponent of a scale that counts for its unit.
    KeyUnit = 0x20, "key_unit";
    /// A2 to A4: a key's score.
    KeyScore = 0x21, "key_score";
    /// A2 to A6: a key's share of Z, weight and value.
    KeyShare = 0x22, "key_share";
    /// A5, A7: the sums over a few published keys.
    KeySums = 0x23, "key_sums";
    /// A8, A9: an output element from its sums over keys.
    AttentionFinish = 0x24, "attention_finish";
    /// Q1, W1 to W3: the magnitude of an element, as it is or after its block's transform.
    Magnitude = 0x30, "magnitude";
    /// Q2 to Q5: a group's scale.
    QuantScale = 0x31, "quant_scale";
    /// Q6: a quantised element.
    QuantElement = 0x32, "quant_element";
    /// S2, S3: a logit's probability.
    Probability = 0x40, "probability";
    /// S3 to S5: the sums over a few ids.
    IdSums = 0x41, "id_sums";
    /// S5: the total of such sums.
    IdTotal = 0x42, "id_total";
    /// S4 to S7: whether the thresholds cut where the job says, and the draw falls on the sampled id.
    Draw = 0x43, "draw";
    /// S1: whether an id stands before the sampled one.
    Greedy = 0x44, "greedy";
    /// E1, E2: an element of an embedding.
    Embed = 0x50, "embed";
    /// D1: an element of a sum of rows.
    Add = 0x51, "add";
    /// G1 to G4: an element of a gated unit.
    Glu = 0x52, "glu";
    /// G5: an element of a unit without a gate.
    Act = 0x53, "act";
    /// P2: a rotated pair.
    Rope = 0x54, "rope";
    /// A head's record of a cached row, with its place and the gap behind it.
    KvRecord = 0x55, "kv_record";
    /// R1, R2: sum of squares of up to 256 elements.
    Squares = 0x60, "squares";
    /// R3 to R6: an element of an RMS norm from its group's maximum and sums.
    RmsElement = 0x61, "rms_element";
    /// R7, O1: the plain sum of up to 256 elements.
    Sum = 0x62, "sum";
    /// R7: the magnitude of a centred element.
    Centred = 0x63, "centred";
    /// R8: sum of squares of up to 256 centred elements.
    CentredSquares = 0x64, "centred_squares";
    /// R8, R9: an element of a layer norm from its group's sum, maximum and sums of squares.
    LayerElement = 0x65, "layer_element";
    /// O1: an element of a mean over a sequence.
    PoolMean = 0x66, "pool_mean";
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
