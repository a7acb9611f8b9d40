//! A device that is wrong on purpose: one integer of one site's row differs. For tests of re-check and
//! disputes only; behind the `testing` feature.

use std::sync::Arc;

use crate::{
    Device, DeviceInfo, HostTensor, KernelError, Op, Part, Program, Runner,
    host_part::HostPart,
    interp::Interp,
    ops::{Ops, QuantRows},
    program::SiteId,
};

/// The integer that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The site whose output is wrong. `KvAppend` and `Out` put out nothing of their own: name the site
    /// that they read.
    pub site: SiteId,
    /// The position of the row.
    pub position: u32,
    /// The element of the row; a sampled token has only one.
    pub element: usize,
}

impl Fault {
    pub(crate) fn act(v: &mut i32) {
        *v ^= 1;
    }

    pub(crate) fn quant(q: &mut QuantRows, at: usize) {
        let v = &mut q.q[at];
        *v += if *v > 0 { -1 } else { 1 };
    }
}

/// A host backend with a [`Fault`].
#[derive(Debug, Clone)]
pub struct FaultyDevice<O> {
    ops: O,
    fault: Fault,
}

impl<O: Ops + Clone> FaultyDevice<O> {
    /// Wraps a backend's arithmetic.
    pub fn new(ops: O, fault: Fault) -> Self {
        Self { ops, fault }
    }
}

impl<O: Ops + Clone> Device for FaultyDevice<O> {
    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            backend: "faulty",
            name: format!("a test device that is wrong at {:?}", self.fault),
            memory_bytes: None,
        }
    }

    fn load(&self, program: Arc<Program>, tensors: &[HostTensor]) -> Result<Box<dyn Runner>, KernelError> {
        let op = program.sites.get(self.fault.site as usize).map(|s| &s.op);
        if matches!(op, None | Some(Op::KvAppend { .. } | Op::Out)) {
            return Err(KernelError::Spec {
                what: format!("fault at site {}", self.fault.site),
                why: "name a site that puts out rows of its own".into(),
            });
        }
        let mut interp = Interp::load(self.ops.clone(), program, tensors)?;
        interp.fault = Some(self.fault);
        Ok(Box::new(interp))
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
        let mut part = HostPart::load(self.ops.clone(), program, tensors, unit)?;
        part.fault = Some(self.fault);
        Ok(Box::new(part))
    }
}
