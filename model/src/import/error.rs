//! Why a model file cannot be imported.

use std::path::PathBuf;

use thiserror::Error;

use crate::{pack::PackError, tokenizer::TokenizerError};

/// An import that was refused; every variant names the file's part and what was expected.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Its words.
        source: std::io::Error,
    },
    /// The file is no GGUF that can be read.
    #[error("{path}: not a readable GGUF file: {why}")]
    Gguf {
        /// The file.
        path: PathBuf,
        /// The reader's words.
        why: String,
    },
    /// The file is no safetensors file that can be read.
    #[error("{path}: not a readable safetensors file: {why}")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A model folder's JSON cannot be read.
    #[error("{path}: {why}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The file ends inside a tensor.
    #[error(
        "{path}: truncated: tensor {tensor} needs bytes up to {want}, the file has {have}; fetch it again"
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The first tensor that does not fit.
        tensor: String,
        /// Bytes needed.
        want: u64,
        /// Bytes there.
        have: u64,
    },
    /// An architecture that is not imported.
    #[error("architecture {got:?} is not supported, it needs {missing}; this importer reads: {known}")]
    Architecture {
        /// The architecture.
        got: String,
        /// What it needs that is not here.
        missing: &'static str,
        /// Those that are imported.
        known: String,
    },
    /// A field is missing, of another type, or out of range.
    #[error("field {key}: {why}")]
    Field {
        /// The field's name.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// Something of the architecture that is not computed.
    #[error("{what} is not supported")]
    Unsupported {
        /// The thing, by its name in the file.
        what: String,
    },
    /// A tensor is not there.
    #[error("tensor {name} is missing")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor that nothing reads: the model has a part which this importer does not know.
    #[error(
        "tensor {name} is not part of a model of this architecture; importing without it would change the model"
    )]
    ExtraTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor has another shape.
    #[error("tensor {name}: expected shape {want:?}, got {got:?}")]
    TensorShape {
        /// The tensor.
        name: String,
        /// Expected, outermost first.
        want: Vec<usize>,
        /// Found.
        got: Vec<usize>,
    },
    /// NaN or infinity.
    #[error("tensor {name}: element {index} is {value}; a model with such weights cannot be imported")]
    NotFinite {
        /// The tensor.
        name: String,
        /// Row-major index.
        index: usize,
        /// The value.
        value: f64,
    },
    /// A row that cannot be expressed under the spec's bounds.
    #[error("tensor {name}: row {row}: {why}")]
    Range {
        /// The tensor.
        name: String,
        /// The row.
        row: usize,
        /// The bound.
        why: String,
    },
    /// The tokenizer's fields are not usable.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The pack cannot be written.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Threads cannot be started.
    #[error("cannot start {threads} threads: {why}")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// The reason.
        why: String,
    },
}

impl ImportError {
    pub(crate) fn field(key: &str, why: impl Into<String>) -> Self {
        Self::Field {
            key: key.to_owned(),
            why: why.into(),
        }
    }
}
