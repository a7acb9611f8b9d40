//! The chain as the miner sees it: nodes over JSON-RPC, the contracts, transactions.

pub mod attestations;
pub mod hub;
pub mod node;
pub mod payouts;
pub mod registry;
pub mod send;
#[cfg(test)]
pub(crate) mod testnode;
#[cfg(test)]
pub(crate) mod testpool;
pub mod verifier;

pub use attestations::Attestations;
pub use hub::Hub;
pub use node::{Node, Refusal};
pub use send::Sender;
pub use verifier::Verifier;
