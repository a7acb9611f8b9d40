//! What can be wrong with a pack file; every variant is a different mend.

use std::path::PathBuf;

use thiserror::Error;

/// Why a pack cannot be read, written or trusted.
#[derive(Debug, Error)]
pub enum PackError {
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Its words.
        source: std::io::Error,
    },
    /// Another kind of file.
    #[error("{path}: not a BitAI pack (it starts with {got}); import the model again")]
    WrongMagic {
        /// The file.
        path: PathBuf,
        /// Its first bytes in hex.
        got: String,
    },
    /// A pack of another format version.
    #[error("{path}: pack version {got}, this program reads {want}; import the model again")]
    WrongVersion {
        /// The file.
        path: PathBuf,
        /// The version found.
        got: u32,
        /// The version read here.
        want: u32,
    },
    /// A pack for another tensor spec.
    #[error("{path}: made for tensor spec {got}, this program runs {want}; import the model again")]
    WrongSpec {
        /// The file.
        path: PathBuf,
        /// The spec version found.
        got: u32,
        /// The spec version run here.
        want: u32,
    },
    /// Shorter than its header says.
    #[error("{path}: truncated: {have} of {want} bytes; fetch or import it again")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes there.
        have: u64,
        /// Bytes needed.
        want: u64,
    },
    /// Structure that no writer makes.
    #[error("{path}: malformed pack: {why}; fetch or import it again")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A tensor's bytes do not have the hash that the manifest says.
    #[error(
        "{path}: tensor {name}: hash mismatch, expected {want}, got {got}; the pack is damaged: fetch or import it again"
    )]
    TensorHash {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The manifest's hash.
        want: String,
        /// The bytes' hash.
        got: String,
    },
    /// The tokenizer's bytes do not have the hash that the manifest says.
    #[error(
        "{path}: tokenizer: hash mismatch, expected {want}, got {got}; the pack is damaged: fetch or import it again"
    )]
    TokenizerHash {
        /// The file.
        path: PathBuf,
        /// The manifest's hash.
        want: String,
        /// The bytes' hash.
        got: String,
    },
    /// Another model than was asked for, or a manifest that was changed.
    #[error("{path}: model root mismatch: expected {want}, got {got}")]
    Root {
        /// The file.
        path: PathBuf,
        /// The root that was expected.
        want: String,
        /// The root of what is there.
        got: String,
    },
    /// The program or a tensor breaks the tensor spec.
    #[error("{path}: {source}")]
    Program {
        /// The file.
        path: PathBuf,
        /// The rule that is broken.
        source: bitai_kernels::KernelError,
    },
}

impl PackError {
    /// For `map_err` on I/O at `path`.
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}
