//! The state machine, its storage, the mempool and JSON-RPC, driven from outside: no Bitcoin node needed,
//! since blocks are plain data.

mod common;
mod mempool;
mod rpc;
mod state;
mod transition;
