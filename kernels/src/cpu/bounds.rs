//! How many products an int32 lane may sum before it must go into an int64: the proofs that the fast loops
//! compute exact sums.
//!
//! Quantised activations lie in +-32639 (A16; A8 is inside), weights and cached values in [-128, 127] (the
//! loader refuses -128, but nothing here leans on that), multipliers in 1..=15, probability planes in 0..=32767.

/// Weights that share a multiplier.
pub(crate) const GROUP: usize = 32;

/// Largest quantised activation.
const X_MAX: i64 = 32639;
/// Largest magnitude of a weight or a cached value.
const W_MAX: i64 = 128;
/// Largest group multiplier.
const M_MAX: i64 = 15;
/// Largest probability plane.
const P_MAX: i64 = 32767;
/// Int32 lanes that a block's products spread over (a vector register of AVX2).
const LANES: i64 = 8;

/// Elements of K that eight int32 lanes sum without overflow, no multiplier.
pub(super) const PLAIN_BLOCK: usize = 4096;
const _: () = assert!((PLAIN_BLOCK as i64 / LANES) * X_MAX * W_MAX < 1 << 31);

/// Elements of K that eight int32 lanes sum without overflow, multiplier applied to the weight.
pub(super) const GROUPED_BLOCK: usize = 256;
const _: () = assert!((GROUPED_BLOCK as i64 / LANES) * X_MAX * W_MAX * M_MAX < 1 << 31);
const _: () = assert!(W_MAX * M_MAX <= i16::MAX as i64, "w * m is one int16");

/// Elements of K that one int32 sums without overflow: the portable loops, whatever lanes they are given.
pub(super) const SCALAR_BLOCK: usize = 512;
const _: () = assert!(SCALAR_BLOCK as i64 * X_MAX * W_MAX < 1 << 31);

/// Keys whose probability x value one int32 sums without overflow.
pub(super) const KEY_BLOCK: usize = 512;
const _: () = assert!(KEY_BLOCK as i64 * P_MAX * W_MAX < 1 << 31);
