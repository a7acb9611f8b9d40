//! Consensus types and codecs everyone shares: job, trace header, commitments, inscription limits, chain
//! constants, RPC shapes. No I/O, no float, no clock.

pub mod batch;
pub mod chain;
pub mod job;
pub mod model;
pub mod rpc;

pub use alloy_primitives::{Address, B256, Bytes, U256};
pub use job::{Job, JobError, Sampler};
pub use model::ModelShape;
