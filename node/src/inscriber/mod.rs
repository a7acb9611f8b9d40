//! Writes batches of BitAI transactions into Bitcoin: commit and reveal per batch, persisted before
//! broadcast, retried by txid until they confirm.

pub mod keys;
pub mod source;
