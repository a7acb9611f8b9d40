//! Numeric settings by site: what a profile chooses for an architecture.

use super::Description;
use crate::pack::Profile;

/// Numeric settings by site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Activation planes of the body: 2 = A16, 1 = A8.
    pub planes: u8,
    /// A multiplier for every 32 weights of the body too, not of head and embedding only.
    pub grouped_body: bool,
    /// Walsh-Hadamard transform on Q and K.
    pub wht_qk: bool,
    /// Walsh-Hadamard transform on the input of the down projection (its weight is transformed to match).
    pub wht_down: bool,
}

impl Settings {
    /// The settings of a profile. Models with norms behind attention and gated unit have a wider spread of
    /// weights and get the grouped body (TENSOR_SPEC, evidence).
    pub fn of(profile: Profile, model: &Description) -> Self {
        match profile {
            Profile::A => Self {
                planes: 2,
                grouped_body: model.post_norms,
                wht_qk: true,
                wht_down: false,
            },
            Profile::B => Self {
                planes: 1,
                grouped_body: false,
                wht_qk: true,
                wht_down: true,
            },
        }
    }
}
