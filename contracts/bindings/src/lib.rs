//! Typed Rust bindings and committed bytecode of the BitAI contracts.
