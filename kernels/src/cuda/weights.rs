//! Tensors on the device: a site's weight, gains and tables, uploaded once.

use std::sync::Arc;

use super::driver::{Buffer, Driver};
use crate::{
    KernelError,
    num::Scale,
    ops::HostWeight,
    plan::{Loaded, Plan},
};

/// A checked weight in its canonical layout, which is the one that the kernels read.
pub(crate) struct DeviceWeight {
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) q: Buffer,
    pub(crate) mult: Option<Buffer>,
    pub(crate) scales: Buffer,
    pub(crate) bias: Option<Buffer>,
}

/// A scale as the kernels read it.
pub(crate) fn scale_word(s: Scale) -> u32 {
    u32::from_le_bytes(s.to_bytes())
}

impl DeviceWeight {
    pub(crate) fn new(driver: &Arc<dyn Driver>, w: &HostWeight) -> Result<Self, KernelError> {
        let scales: Vec<u32> = w.scales.iter().map(|s| scale_word(*s)).collect();
        Ok(Self {
            n: w.n,
            k: w.k,
            q: Buffer::from_bytes(driver, w.q.data())?,
            mult: w
                .mult
                .as_ref()
                .map(|m| Buffer::from_bytes(driver, m.data()))
                .transpose()?,
            scales: Buffer::from_bytes(driver, bytemuck::cast_slice(&scales))?,
            bias: w
                .bias
                .as_ref()
                .map(|b| Buffer::from_bytes(driver, bytemuck::cast_slice(b)))
                .transpose()?,
        })
    }
}

/// What a site reads besides its rows and its weight.
pub(crate) enum Extra {
    None,
    /// Gains, perhaps a bias.
    Norm(Buffer, Option<Buffer>),
    /// A RoPE table, shared by the sites that name it.
    Table(Arc<Buffer>),
}

/// Uploads the rest of a plan's tensors, a site each.
pub(crate) fn extras(driver: &Arc<dyn Driver>, plan: &Plan<DeviceWeight>) -> Result<Vec<Extra>, KernelError> {
    let ints = |v: &[i32]| Buffer::from_bytes(driver, bytemuck::cast_slice(v));
    let mut tables: Vec<(*const Vec<i16>, Arc<Buffer>)> = vec![];
    plan.loaded
        .iter()
        .map(|loaded| {
            Ok(match loaded {
                Loaded::Gain(gain) => Extra::Norm(ints(gain)?, None),
                Loaded::GainBias(gain, bias) => Extra::Norm(ints(gain)?, Some(ints(bias)?)),
                Loaded::Table(table) => {
                    let known = tables.iter().find(|(p, _)| *p == Arc::as_ptr(table));
                    Extra::Table(if let Some((_, t)) = known {
                        t.clone()
                    } else {
                        let t = Arc::new(Buffer::from_bytes(driver, bytemuck::cast_slice(table))?);
                        tables.push((Arc::as_ptr(table), t.clone()));
                        t
                    })
                }
                Loaded::None | Loaded::Weight(_) => Extra::None,
            })
        })
        .collect()
}
