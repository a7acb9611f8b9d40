//! Typed Rust bindings and committed bytecode of the BitAI contracts: calls, events and errors from the ABI
//! that `contracts/build.sh` writes, init code for deployment, revert data as text. Building needs no Node.

mod abi;
pub mod deploy;
pub mod job;
pub mod payout;
pub mod revert;

pub use abi::attestations::Attestations;
pub use abi::attestations::Attestations::Settings as AttestationSettings;
pub use abi::book::ProgramBook;
pub use abi::hub::WorkerHub;
pub use abi::hub::WorkerHub::{Job, JobSpec, Neuron, Offer, Params, Payee, Slot};
pub use abi::registry::ModelRegistry;
pub use abi::registry::ModelRegistry::Model;
pub use abi::verifier::PocVerifier;
pub use deploy::{
    ATTESTATIONS_BYTECODE, MODEL_REGISTRY_BYTECODE, POC_VERIFIER_BYTECODE, PROGRAM_BOOK_BYTECODE,
    VerifierSettings, WORKER_HUB_BYTECODE, attestations_init_code, hub_init_code, registry_init_code,
    verifier_init_code,
};
pub use job::{JobStatus, ModelKey, SlotState, job_from_spec, spec_from_job};
pub use payout::{ChangePayout, change_digest};
pub use revert::explain_revert;
