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

use std::sync::Arc;

use crate::{
    Device, DeviceInfo, HostTensor, KernelError, Program, Runner,
    interp::Interp,
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

/// The reference backend as a device.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReferenceDevice;

impl Device for ReferenceDevice {
    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            backend: "reference",
            name: "reference (plain loops, 1 thread)".into(),
            memory_bytes: None,
        }
    }

    fn load(&self, program: Arc<Program>, tensors: &[HostTensor]) -> Result<Box<dyn Runner>, KernelError> {
        Ok(Box::new(Interp::load(ReferenceOps, program, tensors)?))
    }
}
