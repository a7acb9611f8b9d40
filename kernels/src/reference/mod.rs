//! The readable backend: plain loops, one op a file, each a set of pure functions over slices that follow
//! `docs/spec/tensor.md` rule by rule. Disputes, vectors and consensus call these and nothing faster.

pub mod add;
pub mod attention;
pub mod bounds;
pub mod embed;
pub mod exp2;
pub mod glu;
pub mod layer_norm;
pub mod linear;
pub mod norm;
pub mod pool;
pub mod quant;
pub mod rope;
pub mod sample;
pub mod tables;

#[cfg(feature = "devices")]
mod device;

#[cfg(feature = "devices")]
pub use device::ReferenceDevice;

use crate::{
    KernelError,
    ops::{HostWeight, Ops, QuantRows},
};

/// The reference's arithmetic: every method is the spec's own.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReferenceOps;

impl Ops for ReferenceOps {
    type Weight = HostWeight;

    fn load_weight(&self, weight: HostWeight) -> Result<HostWeight, KernelError> {
        Ok(weight)
    }

    fn embed(&self, weight: &HostWeight, ids: &[u32], f_out: u8, out: &mut [i32]) {
        embed::embed_rows(weight, ids, f_out, out);
    }

    fn linear(&self, weight: &HostWeight, x: &QuantRows, f_out: u8, out: &mut [i32]) {
        linear::linear_rows(weight, x, f_out, out);
    }
}
