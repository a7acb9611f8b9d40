//! A BitAI node: an Ethereum-compatible state machine whose only ledger is Bitcoin.
//!
//! Transactions enter the mempool, the inscriber writes them into Bitcoin witness data, the indexer finds
//! them in Bitcoin blocks, the state machine executes them in order of gas fee, JSON-RPC serves the result.

pub mod bitcoin;
pub mod block;
pub mod config;
pub mod envelope;
pub mod follow;
pub mod genesis;
pub mod indexer;
pub mod inscriber;
pub mod mempool;
pub mod node;
pub mod rpc;
pub mod state;
pub mod transition;
