//! The chain as the miner sees it: nodes over JSON-RPC, the contracts, transactions.

pub mod hub;
pub mod node;
pub mod registry;
pub mod send;
pub mod verifier;

pub use hub::Hub;
pub use node::{Node, Refusal};
pub use send::Sender;
pub use verifier::Verifier;
