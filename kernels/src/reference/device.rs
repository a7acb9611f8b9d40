//! The reference as a device: the host interpreter over the spec's own arithmetic.

use std::sync::Arc;

use super::ReferenceOps;
use crate::{
    Device, DeviceInfo, HostTensor, KernelError, Part, Program, Runner, host_part::HostPart, interp::Interp,
};

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

    fn has_parts(&self) -> bool {
        true
    }

    fn load_part(
        &self,
        program: Arc<Program>,
        tensors: &[HostTensor],
        unit: u32,
    ) -> Result<Box<dyn Part>, KernelError> {
        Ok(Box::new(HostPart::load(ReferenceOps, program, tensors, unit)?))
    }
}
