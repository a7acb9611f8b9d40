//! Model packs: import, tokenizer, and the transformer as a program over kernels.
//!
//! A [`pack::Pack`] is a model in one canonical file; [`import`] makes one from GGUF or an encoder's
//! safetensors, [`synthetic`] from a seed. [`engine::Engine`] drives a device's runner over it: prompts in, ids
//! (or an encoder's row) and commitments out. The only floats here are in `import` and never reach an answer.

pub mod arch;
pub mod engine;
pub mod import;
pub mod pack;
pub mod synthetic;
pub mod tokenizer;

/// The tensor spec that packs are made for (`bitai_types::job::SPEC_VERSION`).
pub const SPEC_VERSION: u32 = 0;
