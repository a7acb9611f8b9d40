//! The state machine, its storage, the mempool and JSON-RPC, driven from outside: no Bitcoin node needed,
//! since blocks are plain data.

// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used)]

mod common;
mod mempool;
mod precompiles;
mod rpc;
mod state;
mod transition;
mod websocket;
