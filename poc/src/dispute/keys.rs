//! What is published of an attention's head: units and largest score, sums of parts of the keys, single keys.

use serde::{Deserialize, Serialize};

use super::msg::Max;

/// Sums over some keys of one head and element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KeySums {
    /// Sum of weight times value.
    pub acc: i64,
    /// Sum of the keys' shares of Z.
    pub z: u64,
}

/// One key's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyShare {
    /// Share of Z.
    pub exp: u32,
    /// Probability times V scale, in the head's unit.
    pub weight: u32,
    /// V's integer.
    pub value: i8,
}

/// What an attention's element is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysAnswer {
    /// Unit of the keys: the largest exponent of their scales; none where every K scale is zero.
    pub k_unit: Option<Max<i16>>,
    /// Unit of the values; none where every V scale is zero.
    pub v_unit: Option<Max<i16>>,
    /// Largest score.
    pub max: Max<i32>,
    /// The sums of each part of the keys.
    pub parts: Vec<KeySums>,
}

impl KeysAnswer {
    /// A published unit.
    pub fn unit(&self, side: KvSide) -> Option<Max<i16>> {
        match side {
            KvSide::K => self.k_unit,
            KvSide::V => self.v_unit,
        }
    }
}

/// Which half of a cached row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvSide {
    /// Keys.
    K,
    /// Values.
    V,
}
