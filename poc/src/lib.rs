//! Proof of Compute: what a neuron commits to, how any part of it is opened, how a claim is re-checked, and
//! the dispute that ends in one integer step.
//!
//! `docs/spec/poc.md` is the standard. The arrows: `header` and `transcript` make the trace root while a model
//! runs; `merkle`, `slice` and `opening` prove parts of it (and of the model's weights) from roots alone;
//! `recheck` names where two traces part; `dispute` settles a quarrel between two players before a judge that
//! sees only messages; `attest` is what validators say about answers before anybody quarrels; `soundness` reckons what all this
//! catches and costs. Nothing here knows what a model pack is: programs and rows come from `kernels`.

pub mod attest;
pub mod dispute;
pub mod header;
pub mod merkle;
pub mod model_root;
pub mod opening;
pub mod recheck;
pub mod slice;
pub mod soundness;
pub mod transcript;

pub use header::{Header, TraceRoot, model_shape};
pub use merkle::{MerkleError, MerkleProof};
pub use model_root::{Branches, LineOpening, Pack, TensorLine, TensorOpening, WeightOpening};
pub use opening::{KvOpening, LayerOpening, LayerRows, OpenError, RangeOpening, TokenNode, TokenOpening};
pub use recheck::{Divergence, Verdict};
pub use slice::{SliceError, SliceProof};
pub use transcript::{DecodeError, Transcript, TranscriptError};
