//! The chain as the miner sees it: nodes over JSON-RPC, the two contracts, transactions.

pub mod hub;
pub mod node;
pub mod registry;
pub mod send;

pub use hub::Hub;
pub use node::{Node, Refusal};
pub use send::Sender;
