//! Creation bytecode and how to append constructor arguments to it.

use alloy_primitives::{Address, Bytes, U256, aliases::U96};
use alloy_sol_types::SolConstructor;

use crate::{AttestationSettings, Attestations, ModelRegistry, Params, PocVerifier, ProgramBook, WorkerHub};

/// Creation bytecode of `Attestations`, without constructor arguments.
pub static ATTESTATIONS_BYTECODE: &Bytes = &Attestations::BYTECODE;
/// Creation bytecode of `WorkerHub`, without constructor arguments.
pub static WORKER_HUB_BYTECODE: &Bytes = &WorkerHub::BYTECODE;
/// Creation bytecode of `ModelRegistry`, without constructor arguments.
pub static MODEL_REGISTRY_BYTECODE: &Bytes = &ModelRegistry::BYTECODE;
/// Creation bytecode of `PocVerifier`, without constructor arguments.
pub static POC_VERIFIER_BYTECODE: &Bytes = &PocVerifier::BYTECODE;
/// Creation bytecode of `ProgramBook`, which takes no arguments.
pub static PROGRAM_BOOK_BYTECODE: &Bytes = &ProgramBook::BYTECODE;

/// What the verifier of a hub is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifierSettings {
    /// The hub; it may be deployed later, at an address that is known before.
    pub hub: Address,
    /// The book of programs.
    pub book: Address,
    /// Heights on each side's clock.
    pub clock: u32,
    /// Who sets the price of an inscribed byte.
    pub governor: Address,
    /// Wei a byte at first.
    pub wei_per_byte: u64,
    /// Most wei a byte may ever cost.
    pub wei_per_byte_max: u64,
}

/// Data of the transaction that creates the verifier.
pub fn verifier_init_code(settings: &VerifierSettings) -> Bytes {
    let args = PocVerifier::constructorCall {
        hub: settings.hub,
        book: settings.book,
        clock: settings.clock,
        governor: settings.governor,
        price: U96::from(settings.wei_per_byte),
        most: U96::from(settings.wei_per_byte_max),
    }
    .abi_encode();
    append(POC_VERIFIER_BYTECODE, &args)
}

/// Data of the transaction that creates the registry.
///
/// `bond_wei` is what a registration must carry, `bond_delay` the heights until a retired model's bond is free.
pub fn registry_init_code(bond_wei: U256, bond_delay: u64) -> Bytes {
    let args = ModelRegistry::constructorCall {
        bond: bond_wei,
        bondDelay: bond_delay,
    }
    .abi_encode();
    append(MODEL_REGISTRY_BYTECODE, &args)
}

/// Data of the transaction that creates the hub over `registry`.
pub fn hub_init_code(registry: Address, params: Params) -> Bytes {
    let args = WorkerHub::constructorCall { registry, p: params }.abi_encode();
    append(WORKER_HUB_BYTECODE, &args)
}

/// Data of the transaction that creates the attestations of a hub; `verifier` is a verifier whose hub is the address at which
/// they will be.
pub fn attestations_init_code(
    hub: Address,
    registry: Address,
    verifier: Address,
    settings: AttestationSettings,
) -> Bytes {
    let args = Attestations::constructorCall {
        hub,
        registry,
        verifier,
        s: settings,
    }
    .abi_encode();
    append(ATTESTATIONS_BYTECODE, &args)
}

fn append(code: &Bytes, args: &[u8]) -> Bytes {
    [code.as_ref(), args].concat().into()
}
