//! Creation bytecode and how to append constructor arguments to it.

use alloy_primitives::{Address, Bytes, U256};
use alloy_sol_types::SolConstructor;

use crate::{ModelRegistry, Params, WorkerHub};

/// Creation bytecode of `WorkerHub`, without constructor arguments.
pub static WORKER_HUB_BYTECODE: &Bytes = &WorkerHub::BYTECODE;
/// Creation bytecode of `ModelRegistry`, without constructor arguments.
pub static MODEL_REGISTRY_BYTECODE: &Bytes = &ModelRegistry::BYTECODE;

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

fn append(code: &Bytes, args: &[u8]) -> Bytes {
    [code.as_ref(), args].concat().into()
}
