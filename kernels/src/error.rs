//! What can go wrong in a kernel call: wrong shapes, missing things, a device that fails.

use thiserror::Error;

/// An error of a device or of a program; every variant names the thing and what was expected.
#[derive(Debug, Error)]
pub enum KernelError {
    /// A buffer, tensor or program has another shape than the operation needs.
    #[error("{what}: expected {expected}, got {got}")]
    Shape {
        /// What was looked at.
        what: &'static str,
        /// The shape that was needed.
        expected: String,
        /// The shape that was found.
        got: String,
    },
    /// A tensor or site breaks a rule of the spec.
    #[error("{what} breaks the tensor spec: {why}")]
    Spec {
        /// The tensor or site.
        what: String,
        /// The rule and the value that breaks it.
        why: String,
    },
    /// A handle (sequence, tensor) that this device does not hold.
    #[error("unknown {what} {id}")]
    Unknown {
        /// The kind of handle.
        what: &'static str,
        /// Its number.
        id: u64,
    },
    /// The context of a sequence is full.
    #[error("sequence holds {have} of {max} tokens; {want} more do not fit")]
    ContextFull {
        /// Tokens held.
        have: u32,
        /// Tokens that fit.
        max: u32,
        /// Tokens asked for.
        want: u32,
    },
    /// The device has no room.
    #[error("{device}: out of memory: {need} bytes needed, {free} free")]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// Bytes needed.
        need: u64,
        /// Bytes free.
        free: u64,
    },
    /// The device failed.
    #[error("{device} failed: {why}")]
    Device {
        /// The device's name.
        device: String,
        /// The driver's or our own words.
        why: String,
    },
    /// The driver lost the device: nothing runs on it until it is opened anew, or reset.
    #[error(
        "{device} is lost: {why}; if it stays away, reset it (nvidia-smi --gpu-reset) or restart the machine"
    )]
    Lost {
        /// The device's name.
        device: String,
        /// The driver's words.
        why: String,
    },
}
