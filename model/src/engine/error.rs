//! What an engine refuses.

use bitai_kernels::{KernelError, program::NoAnswer};
use thiserror::Error;

/// Why a run was refused or failed.
#[derive(Debug, Error)]
pub enum EngineError {
    /// No prompt.
    #[error("the prompt has no ids; give at least one")]
    EmptyInput,
    /// Nothing to generate or to check.
    #[error("no tokens were asked for; max_new or the output must be at least 1")]
    NothingAsked,
    /// Too long.
    #[error("{input} prompt ids + {new} new > context of {context}; shorten the prompt or ask for less")]
    ContextOverflow {
        /// Prompt ids.
        input: usize,
        /// New ids.
        new: usize,
        /// The model's context.
        context: u32,
    },
    /// An id outside the vocabulary.
    #[error("id {id} at {at} is not below the vocabulary of {vocab}")]
    IdOutOfRange {
        /// The id.
        id: u32,
        /// Its index over prompt and output.
        at: usize,
        /// The vocabulary.
        vocab: u32,
    },
    /// A generating job for a model that samples nothing.
    #[error("the model is an encoder: it gives one row for a text and generates nothing; ask it to embed")]
    NotADecoder,
    /// An embedding job for a model that puts out no row.
    #[error("the model generates text and puts out no row; embedding needs an encoder such as MiniLM")]
    NotAnEncoder,
    /// A program whose output no job can ask for.
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    /// The device.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}
