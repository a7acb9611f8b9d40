//! What can go wrong between text and ids.

use thiserror::Error;

/// An error of tokenizer or chat template.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// The section's bytes are no vocabulary.
    #[error("tokenizer section: {0}")]
    Section(String),
    /// The vocabulary cannot be built.
    #[error("tokenizer: {0}")]
    Build(String),
    /// Text cannot be encoded.
    #[error("cannot encode text: {0}")]
    Encode(String),
    /// Bytes that are no text.
    #[error("the text is not UTF-8: byte {at} is 0x{byte:02x}; give it in UTF-8")]
    NotUtf8 {
        /// Index of the first byte that belongs to no character.
        at: usize,
        /// That byte.
        byte: u8,
    },
    /// An id outside the vocabulary.
    #[error("id {id} is not below the vocabulary of {vocab}")]
    UnknownId {
        /// The id.
        id: u32,
        /// The vocabulary.
        vocab: usize,
    },
    /// The pack has no chat template.
    #[error("the model has no chat template: give it plain text instead")]
    NoTemplate,
    /// The template cannot be read, or refuses the messages.
    #[error("chat template: {0}")]
    Template(String),
}
