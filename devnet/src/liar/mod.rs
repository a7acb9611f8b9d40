//! The test kit's liars: neurons that claim what they did not compute, and a challenger who doubts what is right. They
//! play against the product's own seats on a running devnet. Nothing of this is in the miner.

mod explain;
mod lie;
mod neuron;
mod other;
mod play;
mod print;
pub mod validator;

use clap::ValueEnum;

pub use lie::{Lie, Tampered, lie};
pub use neuron::Liar;
pub use play::{Played, play};
pub use print::run;

/// How to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// One element of a linear
    Linear,
    /// One element of an attention, with sums over keys that explain it
    Attention,
    /// One integer of a quantised row
    Quant,
    /// One scale of a quantised row
    Scale,
    /// One element of an embedding
    Embed,
    /// One element of a norm
    Norm,
    /// One element of a rotation
    Rope,
    /// One element of a gated unit
    Glu,
    /// One element of a sum of two rows
    Add,
    /// One element of a committed residual
    Out,
    /// One byte of a cached row
    Kv,
    /// The last token
    Token,
    /// The last token of random draws, with sums over ids that draw it
    Draw,
    /// Half of the output, ended by a stop id that was not sampled
    Truncated,
    /// Another last token than the one behind the root
    Output,
    /// Weights of another model, in one row of one tensor
    Weights,
    /// A shorter model: the second half of the layers left out
    Short,
    /// A root behind which there is nothing
    Root,
    /// Pieces of rows that are not the committed ones
    Opening,
    /// A wrong element, and no answer to any question
    Silence,
    /// A wrong element, and an answer that comes after the clock ran out
    Late,
    /// A wrong element, doubted by two challengers at once
    Two,
    /// An honest neuron, doubted by a challenger whose own run is wrong
    FalseDispute,
    /// An honest neuron, and a validator that attests a root over nothing
    Validator,
}

impl Kind {
    /// Whether the neuron is the one who lies.
    pub const fn is_neurons(self) -> bool {
        !matches!(self, Self::FalseDispute | Self::Validator)
    }
}
