//! The CUDA backend: the kernels of `kernels/cuda`, driven over one [`driver::Driver`] by NVIDIA's driver or, on any
//! machine, by the emulator.
//!
//! Weights stay in their canonical layout, the KV cache holds canonical rows, and hashing reads both where they lie.
//! Nothing but token ids, lists of rows and hashes crosses between host and device. Every sum is of integers, so
//! however a kernel cuts its work the result is the reference's; the conformance suite runs on the emulator everywhere.

mod attention;
mod blocks;
mod cache;
mod driver;
#[cfg(feature = "cuda-emulator")]
mod emulator;
mod hashing;
#[cfg(feature = "cuda")]
mod images;
mod linear;
#[cfg(feature = "cuda")]
mod nvidia;
mod ops;
mod piece;
mod runner;
#[cfg(all(test, feature = "cuda-emulator"))]
mod spec_tests;
#[cfg(all(test, feature = "cuda-emulator"))]
mod tests;
mod weights;

use std::sync::Arc;

use crate::{Device, DeviceInfo, HostTensor, KernelError, Program, Runner};
use driver::Driver;
#[cfg(feature = "cuda")]
pub use nvidia::{GpuInfo, gpus};
pub use runner::Memory;

/// A GPU.
pub struct CudaDevice {
    driver: Arc<dyn Driver>,
    memory: Memory,
    backend: &'static str,
}

impl CudaDevice {
    /// Opens one of [`gpus`].
    #[cfg(feature = "cuda")]
    pub fn open(gpu: GpuInfo, memory: Memory) -> Result<Self, KernelError> {
        Ok(Self {
            driver: Arc::new(nvidia::Nvidia::open(gpu)?),
            memory,
            backend: "cuda",
        })
    }

    /// The emulated GPU with `bytes` of memory: the same kernels on this processor, slowly. `order` seeds the order in
    /// which threads and blocks run, which must not show in any result.
    #[cfg(feature = "cuda-emulator")]
    pub fn emulated(order: u64, bytes: u64) -> Self {
        Self {
            driver: Arc::new(emulator::Emulator::new(order, bytes)),
            memory: Memory {
                cache_bytes: Some(bytes / 16),
            },
            backend: "cuda-emulator",
        }
    }
}

impl CudaDevice {
    fn load_with(
        &self,
        memory: Memory,
        program: Arc<Program>,
        tensors: &[HostTensor],
    ) -> Result<Box<dyn Runner>, KernelError> {
        let runner = runner::CudaRunner::load(
            self.driver.clone(),
            memory,
            runner::Limits::default(),
            program,
            tensors,
        )?;
        Ok(Box::new(runner))
    }
}

impl Device for CudaDevice {
    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            backend: self.backend,
            name: self.driver.name(),
            memory_bytes: self.driver.memory().ok().map(|(free, _)| free),
        }
    }

    fn load(&self, program: Arc<Program>, tensors: &[HostTensor]) -> Result<Box<dyn Runner>, KernelError> {
        self.load_with(self.memory, program, tensors)
    }

    fn load_for(
        &self,
        program: Arc<Program>,
        tensors: &[HostTensor],
        tokens: u32,
    ) -> Result<Box<dyn Runner>, KernelError> {
        let cache_bytes = Some(cache::bytes_for(&program, tokens));
        self.load_with(Memory { cache_bytes }, program, tensors)
    }
}
