//! Devices of neurons that run another model than the one they claim: a row of weights changed, or half of the layers left
//! out.

use std::sync::Arc;

use bitai_kernels::{
    DType, Device, DeviceInfo, HostTensor, KernelError, Op, Program, Runner, program::Weight,
};
use bitai_miner::Failure;

use super::lie::{failed, site};

/// What is loaded otherwise.
pub(super) enum Other {
    /// Nothing.
    Nothing,
    /// One row of one tensor is negated.
    Row(Weight),
    /// The linears of the layers from this one on are zero: what such a layer adds is nothing, as if it were not there, and
    /// what of it is committed costs no multiplication.
    LayersFrom(u32),
}

/// A device that loads some tensors otherwise.
pub(super) struct OtherWeights<'a> {
    pub(super) device: &'a dyn Device,
    pub(super) other: Other,
}

/// The first linear of the middle layer.
pub(super) fn weight(program: &Program) -> Result<Weight, Failure> {
    let id = site(program, Some(program.layers / 2), "linear")?;
    match program.sites[id as usize].op {
        Op::Linear { weight, .. } => Ok(weight),
        _ => Err(failed("linear")),
    }
}

/// The same tensor with other bytes.
fn changed(t: &HostTensor, change: impl FnOnce(&mut [u8])) -> HostTensor {
    let mut bytes = t.data().to_vec();
    change(&mut bytes);
    HostTensor::owned(t.dtype, t.rows, t.cols, bytes)
}

impl Device for OtherWeights<'_> {
    fn info(&self) -> DeviceInfo {
        self.device.info()
    }

    fn load(&self, program: Arc<Program>, tensors: &[HostTensor]) -> Result<Box<dyn Runner>, KernelError> {
        let mut tensors = tensors.to_vec();
        match self.other {
            Other::Nothing => {}
            Other::Row(weight) => {
                if let Some(t) = tensors.get_mut(weight.q as usize) {
                    let row = t.cols;
                    *t = changed(t, |bytes| {
                        for b in bytes.iter_mut().take(row) {
                            // Never -128, which no weight is.
                            *b = b.wrapping_neg();
                        }
                    });
                }
            }
            Other::LayersFrom(first) => {
                for site in program
                    .sites
                    .iter()
                    .filter(|s| s.layer.is_some_and(|l| l >= first))
                {
                    let Op::Linear { weight, .. } = site.op else {
                        continue;
                    };
                    for id in [Some(weight.q), weight.bias].into_iter().flatten() {
                        if let Some(t) = tensors.get_mut(id as usize)
                            && t.dtype != DType::Scale
                        {
                            *t = changed(t, |bytes| bytes.fill(0));
                        }
                    }
                }
            }
        }
        self.device.load(program, &tensors)
    }
}
