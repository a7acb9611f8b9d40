//! The public numbers of a model: all that a hub needs to judge a job and its output.

use serde::{Deserialize, Serialize};

/// What a registration says of a model beside its root and spec version; a pack's manifest and program say the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelShape {
    /// Token ids are below this.
    pub vocab: u32,
    /// Most tokens of a sequence, input and output together.
    pub context: u32,
    /// 0 for a model that generates; else the 32-bit words that it puts out for a text: it embeds.
    pub words: u32,
}

impl ModelShape {
    /// Whether its jobs ask for a row of words and not for tokens.
    pub const fn embeds(&self) -> bool {
        self.words != 0
    }
}
