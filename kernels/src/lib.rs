//! The BitAI tensor spec as code: integers only, the same bits on every device.
//!
//! `docs/spec/tensor.md` is the standard; `reference` reads like it; every other backend implements
//! [`Device`] and must pass the one `conformance` suite bit for bit. `program` is what a model is
//! (data, not code), `rows` is what of a run gets hashed, `trace` is where the hashes go, `step` is one small
//! step of a dispute as bytes.
//!
//! Without the feature `devices` only the spec itself is left: rules, programs, rows, steps. Consensus code
//! takes the crate like that, so that no thread and no vector instruction can come near it.

#[cfg(feature = "devices")]
mod batch;
#[cfg(feature = "devices")]
mod blocks;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(feature = "devices")]
pub mod cpu;
#[cfg(any(feature = "cuda", feature = "cuda-emulator"))]
pub mod cuda;
pub mod device;
pub mod error;
#[cfg(feature = "devices")]
mod host_part;
#[cfg(feature = "devices")]
pub mod interp;
#[cfg(feature = "devices")]
pub mod load;
pub mod model_root;
pub mod num;
pub mod ops;
pub mod part;
#[cfg(feature = "devices")]
mod plan;
pub mod program;
pub mod program_check;
pub mod reference;
pub mod rows;
#[cfg(feature = "devices")]
mod run;
pub mod sample;
#[cfg(feature = "devices")]
pub mod sequence;
pub mod site_code;
pub mod step;
pub mod tensor;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod trace;

pub use device::{Device, DeviceInfo, Peaks, Runner, SeqId, SeqStep};
pub use error::KernelError;
pub use num::Scale;
pub use part::{Carried, Part, PartDone, PartStep, RowHashes};
pub use program::{Op, Program, Site};
#[cfg(feature = "devices")]
pub use reference::ReferenceDevice;
pub use rows::Hash;
pub use sample::Sampler;
pub use tensor::{DType, HostTensor, TensorId};
pub use trace::{Probe, SiteRows, Trace};
