//! The places of a fleet: a device each, not opened yet.

use std::sync::Arc;

use bitai_kernels::Device;

use super::Gpus;
use crate::{cli::DeviceKind, config, engine, exit::Failure, gpu};

/// Opens a device; called again after each failure.
pub(super) type Open = Arc<dyn Fn() -> Result<Arc<dyn Device>, Failure> + Send + Sync>;

/// A device before it is opened.
#[derive(Clone)]
pub struct Place {
    /// Stable name: a GPU's PCI address, or `cpu`.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Number of the GPU.
    pub index: Option<u32>,
    /// Bytes of its memory, where it says.
    pub memory: Option<u64>,
    /// Whether it is a GPU: stopped where it fails, hangs or is hot, its results checked.
    pub is_gpu: bool,
    /// Opens it.
    pub open: Open,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.index {
            Some(index) => write!(f, "GPU {index} ({}, {})", self.id, self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The places that are meant: the GPUs chosen, or the one processor.
pub fn places(device: config::Device, gpus: &Gpus) -> Result<Vec<Place>, Failure> {
    let on_gpus = match device.kind {
        DeviceKind::Cuda => true,
        DeviceKind::Auto => gpu::any(),
        _ => false,
    };
    if on_gpus {
        return Ok(gpu::chosen(&gpus.using)?
            .into_iter()
            .map(|gpu| Place {
                id: gpu.pci.clone(),
                name: gpu.name.clone(),
                index: Some(gpu.index),
                memory: Some(gpu.memory_bytes),
                is_gpu: true,
                open: Arc::new(move || Ok(Arc::new(gpu::open_known(gpu.clone())?))),
            })
            .collect());
    }
    if device.kind == DeviceKind::Auto {
        tracing::info!("no GPU with a driver here: computing on the processor");
    }
    let open: Open = Arc::new(move || engine::device(device).map(Arc::from));
    Ok(vec![Place {
        id: "cpu".into(),
        name: "the processor".into(),
        index: None,
        memory: None,
        is_gpu: false,
        open,
    }])
}
