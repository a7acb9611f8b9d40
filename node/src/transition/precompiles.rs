//! Precompiles beyond Ethereum's: BLAKE3 plain, keyed, the chaining value of a subtree and the node above two of them,
//! so that contracts can check the commitments of a transcript, and TENSOR_STEP, so that they can execute the leaf of a dispute. Gas is a
//! constant formula of the input's length (`node/benches/precompiles.rs` measures what it buys).

use bitai_kernels::step;
use bitai_types::chain;
use blake3::hazmat::{self, HasherExt};
use revm::precompile::{
    EthPrecompileOutput, EthPrecompileResult, Precompile, PrecompileHalt, PrecompileId, PrecompileOutput,
    PrecompileResult, PrecompileSpecId, Precompiles, calc_linear_cost,
};
use revm::primitives::hardfork::SpecId;
use std::sync::LazyLock;

/// Gas of any BLAKE3 call before its input counts, the same as SHA-256's.
pub const BLAKE3_BASE_GAS: u64 = 60;
/// Gas per 32-byte word of input: half of SHA-256's. Plain scalar code takes about 60 ns for a word, and
/// 10 ns a gas is the rate that the block gas limit is sized by.
pub const BLAKE3_WORD_GAS: u64 = 6;

/// Gas of any TENSOR_STEP call before its input counts: it reads fields, puts out bytes, and divides once or twice.
pub const STEP_BASE_GAS: u64 = 100;
/// Gas per 32-byte word of a step's input, SHA-256's. A word holds at most 16 multiply-adds of a linear, 8 terms of a
/// transform, 8 ids of a draw; the dearest of them takes about 110 ns (`node/benches/precompiles.rs`).
pub const STEP_WORD_GAS: u64 = 12;

/// Bytes of a BLAKE3 chunk.
const CHUNK: u64 = blake3::CHUNK_LEN as u64;

/// Ethereum's precompiles of Osaka and BitAI's.
pub fn all() -> &'static Precompiles {
    static ALL: LazyLock<Precompiles> = LazyLock::new(|| {
        let mut set = Precompiles::new(PrecompileSpecId::from_spec_id(SpecId::OSAKA)).clone();
        set.extend([
            Precompile::new(PrecompileId::custom("BLAKE3"), chain::BLAKE3, |i, g, r| {
                wrap(plain, i, g, r)
            }),
            Precompile::new(
                PrecompileId::custom("BLAKE3_KEYED"),
                chain::BLAKE3_KEYED,
                |i, g, r| wrap(keyed, i, g, r),
            ),
            Precompile::new(PrecompileId::custom("BLAKE3_CV"), chain::BLAKE3_CV, |i, g, r| {
                wrap(chaining_value, i, g, r)
            }),
            Precompile::new(
                PrecompileId::custom("BLAKE3_PARENT"),
                chain::BLAKE3_PARENT,
                |i, g, r| wrap(parent, i, g, r),
            ),
            Precompile::new(
                PrecompileId::custom("TENSOR_STEP"),
                chain::TENSOR_STEP,
                |i, g, r| Ok(PrecompileOutput::from_eth_result(tensor_step(i, g), r)),
            ),
        ]);
        set
    });
    &ALL
}

/// Charges gas, runs, and shapes the answer.
fn wrap(
    run: fn(&[u8]) -> Result<[u8; 32], &'static str>,
    input: &[u8],
    gas_limit: u64,
    reservoir: u64,
) -> PrecompileResult {
    Ok(PrecompileOutput::from_eth_result(
        charged(run, input, gas_limit),
        reservoir,
    ))
}

fn charged(
    run: fn(&[u8]) -> Result<[u8; 32], &'static str>,
    input: &[u8],
    gas_limit: u64,
) -> EthPrecompileResult {
    let gas = calc_linear_cost(input.len(), BLAKE3_BASE_GAS, BLAKE3_WORD_GAS);
    if gas > gas_limit {
        return Err(PrecompileHalt::OutOfGas);
    }
    let hash = run(input).map_err(PrecompileHalt::other_static)?;
    Ok(EthPrecompileOutput::new(gas, hash.to_vec().into()))
}

/// One step of the tensor spec (`docs/spec/poc.md`, section 9), computed by the reference.
fn tensor_step(input: &[u8], gas_limit: u64) -> EthPrecompileResult {
    let gas = calc_linear_cost(input.len(), STEP_BASE_GAS, STEP_WORD_GAS);
    if gas > gas_limit {
        return Err(PrecompileHalt::OutOfGas);
    }
    let out = step::execute(input).map_err(|e| PrecompileHalt::other(format!("TENSOR_STEP: {e}")))?;
    Ok(EthPrecompileOutput::new(gas, out.into()))
}

/// BLAKE3 of the input.
fn plain(input: &[u8]) -> Result<[u8; 32], &'static str> {
    Ok(*blake3::hash(input).as_bytes())
}

/// Keyed BLAKE3: a 32-byte key, then the message.
fn keyed(input: &[u8]) -> Result<[u8; 32], &'static str> {
    let (key, message) = input
        .split_first_chunk::<32>()
        .ok_or("BLAKE3_KEYED: input is shorter than a key")?;
    Ok(*blake3::keyed_hash(key, message).as_bytes())
}

/// Chaining value (not the root) of a subtree: its first chunk's number, 8 bytes little-endian, then its
/// bytes. The bytes must be at least one and no more than a subtree at that offset can hold
/// (BLAKE3 paper, section 2.1).
fn chaining_value(input: &[u8]) -> Result<[u8; 32], &'static str> {
    let (chunk, bytes) = input
        .split_first_chunk::<8>()
        .ok_or("BLAKE3_CV: input is shorter than an offset")?;
    if bytes.is_empty() {
        return Err("BLAKE3_CV: a subtree has at least one byte");
    }
    let offset = u64::from_le_bytes(*chunk)
        .checked_mul(CHUNK)
        .ok_or("BLAKE3_CV: offset beyond 2^64 bytes")?;
    let len = bytes.len() as u64;
    if hazmat::max_subtree_len(offset).is_some_and(|max| len > max) || offset.checked_add(len).is_none() {
        return Err("BLAKE3_CV: more bytes than a subtree at this offset holds");
    }
    Ok(blake3::Hasher::new()
        .set_input_offset(offset)
        .update(bytes)
        .finalize_non_root())
}

/// The node above two subtrees: 1 byte, 1 where it is the root and 0 where it is not, then the left and the right
/// chaining value (BLAKE3 paper, section 2.4). One compression, so that it costs what hashing its 65 bytes would.
fn parent(input: &[u8]) -> Result<[u8; 32], &'static str> {
    let input: &[u8; 65] = input
        .try_into()
        .map_err(|_| "BLAKE3_PARENT: the input is a flag and two chaining values, 65 bytes")?;
    let (flag, values) = input.split_at(1);
    let (left, right) = values.split_at(32);
    let value = |bytes: &[u8]| bytes.try_into().unwrap_or([0; 32]);
    let (left, right) = (value(left), value(right));
    match flag {
        [0] => Ok(hazmat::merge_subtrees_non_root(&left, &right, hazmat::Mode::Hash)),
        [1] => Ok(*hazmat::merge_subtrees_root(&left, &right, hazmat::Mode::Hash).as_bytes()),
        _ => Err("BLAKE3_PARENT: the flag is neither 0 nor 1"),
    }
}
