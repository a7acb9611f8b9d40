//! The dispute: a challenger walks down a defendant's own commitments to one integer step, and a judge that
//! sees only the job, the model root, the claimed trace root and the messages executes that step.
//!
//! The tree is published lazily: an [`Ask`] names a node whose parent is published, the [`Answer`] must hash
//! to it, and stays there for everyone. An [`Accusation`] names one step whose inputs the tree (and the model
//! root) already fix; the judge executes it with `kernels::reference` and one side has lost. A challenger
//! needs no commitment of its own: at the first wrong step all inputs are what it computed too, so it can
//! open them, and a step that is right convicts nobody.
//!
//! Several challengers play at once over the one tree: a published node serves everyone, a loss binds only
//! its challenger, a conviction ends all games. Every move names by hash what it relies on ([`ids`]).
//!
//! Levels: trace root -> token (256-ary) -> its layers and units -> sites of a unit -> pieces of a row ->
//! element -> parts of its sum. [`rounds_max`] counts them.

mod answers;
mod challenger;
pub mod codec;
mod game;
pub mod ids;
pub mod inner;
mod judge;
mod keys;
mod layered;
mod leaf;
mod leaf_attention;
mod leaf_draw;
mod leaf_model;
mod leaf_norm;
mod leaf_quant;
mod leaf_row;
pub mod levels;
mod links;
pub mod msg;
mod openings;
mod player;
mod probe;
mod published;
mod regenerate;
mod seats;
#[cfg(test)]
mod tests;

use thiserror::Error;

pub use challenger::Challenger;
pub use codec::{AnswerKind, CodecError};
pub use game::{Challenge, Defend, Game, Move, MoveRecord, Seat, Side as GameSide, play, play_all};
pub use ids::Claim;
pub use judge::{Judge, kernel_sampler};
pub use layered::LayerRegen;
pub use leaf_model::{ModelChallenger, ModelFault};
pub use levels::{ASKS_MAX, Maxima, rounds_max};
pub use msg::{Accusation, Answer, Ask};
pub use player::Player;
pub use published::Published;
pub use regenerate::{Regenerate, RunnerRegen, TokenRows};

use crate::{opening::OpenError, slice::SliceError};

/// How a dispute ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The defendant's commitments are wrong.
    Guilty(Ground),
    /// This challenger was wrong, or fell silent. Binds nobody else.
    Cleared(Ground),
}

/// What decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// A side let its clock run out.
    Silence,
    /// Published nodes contradict each other or the public output.
    Contradiction(&'static str),
    /// The judge executed this step.
    Step(&'static str),
}

/// Why a move does not count. The mover may try another; the clock goes on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DisputeError {
    /// The dispute is over.
    #[error("the claim is convicted")]
    Decided,
    /// Who moves has no game to move in.
    #[error("{0}")]
    Seat(&'static str),
    /// The move relies on an answer that is not the one published here: a replay, or a race lost.
    #[error("the move relies on another answer than the one published here; look again")]
    OtherAnswer,
    /// The program cannot be disputed.
    #[error("program: {0}")]
    Program(String),
    /// The job, its output and the model do not belong together.
    #[error("setup: {0}")]
    Setup(String),
    /// What a player's own rows come from failed; asked again it may not.
    #[error("device: {0}")]
    Device(String),
    /// The parent of what is asked or accused is not published.
    #[error("{0} is not published yet")]
    Unpublished(&'static str),
    /// What is asked is published already.
    #[error("this node is published already")]
    Published,
    /// A game asks for more than the longest way down needs.
    #[error("this game has asked {most} times, which is all that it may: accuse")]
    TooManyAsks {
        /// Asks of a game.
        most: u32,
    },
    /// Nothing open has this id.
    #[error("no open ask has this id")]
    NotAsked,
    /// An index outside the trace, program or row.
    #[error("{what} {got} of {count}")]
    Range {
        /// What was indexed.
        what: &'static str,
        /// The index.
        got: u64,
        /// How many there are.
        count: u64,
    },
    /// The move does not fit the site.
    #[error("{0}")]
    Kind(&'static str),
    /// An answer that does not lead to its parent or breaks a rule.
    #[error("answer: {0}")]
    Answer(&'static str),
    /// A move that has no bytes.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// An opening fails.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A slice fails.
    #[error(transparent)]
    Slice(#[from] SliceError),
}
