//! The CPU backend: threads over rows and columns, vector loops chosen at run time, the reference's integers.
//!
//! [`CpuDevice`] is the interpreter of [`crate::interp`] over [`CpuOps`]. Weights stay the pack's canonical
//! bytes (a memory map serves): nothing is kept repacked, so a model costs its pack and its caches, no more.
//! Sums are cut by outputs only, never inside, so thread count and vector width cannot show in a result;
//! the conformance suite checks that they do not.

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
mod bounds;
mod compiled;
mod isa;
mod keys;
mod lanes;
mod limits;
mod linear;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod rowwise;
mod sample;
mod simd;
mod split;
#[cfg(test)]
mod tests;
mod warm;

use std::sync::Arc;

use crate::{
    Device, DeviceInfo, HostTensor, KernelError, Part, Peaks, Program, Runner, Sampler,
    host_part::HostPart,
    interp::Interp,
    ops::{AttentionParams, HostWeight, KvSpan, NormParams, Ops, QuantParams, QuantRows},
    program::{Activation, RopeStyle},
};

pub use isa::{Isa, UnknownIsa};
pub use linear::CpuWeight;
use simd::Simd;
use warm::Warm;

/// Most threads that a device takes: beyond it an argument is a slip.
const THREADS_MAX: usize = 1024;

/// The CPU's arithmetic: a pool of threads and the inner loops that this processor has.
#[derive(Clone)]
pub struct CpuOps {
    pool: Arc<rayon::ThreadPool>,
    warm: Warm,
    /// Checked: this machine has it.
    isa: Isa,
    simd: Simd,
}

impl CpuOps {
    /// `threads` threads (1 to 1024) with the loops of [`Isa::chosen`].
    pub fn new(threads: usize) -> Result<Self, KernelError> {
        Self::with(Isa::chosen()?, threads)
    }

    /// The same with the loops of `isa`; fails where this machine lacks it.
    pub fn with(isa: Isa, threads: usize) -> Result<Self, KernelError> {
        let isa = isa.checked()?;
        if !(1..=THREADS_MAX).contains(&threads) {
            return Err(KernelError::Shape {
                what: "cpu threads",
                expected: format!("1 to {THREADS_MAX}"),
                got: threads.to_string(),
            });
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("bitai-cpu-{i}"))
            .build()
            .map_err(|e| KernelError::Device {
                device: "cpu".into(),
                why: format!("cannot start {threads} threads: {e}"),
            })?;
        Ok(Self {
            pool: Arc::new(pool),
            warm: Warm::default(),
            isa,
            simd: Simd::of(isa),
        })
    }

    /// Does int8 multiply-adds on registers alone, on all threads, in the instructions that exact sums take;
    /// how many were done. What linear sites are measured against.
    pub fn multiply_adds(&self, rounds: usize) -> u64 {
        let done = self
            .pool
            .broadcast(|_| linear::peak::multiply_adds(self.isa, rounds));
        done.into_iter().sum()
    }

    /// The instruction set of its loops.
    pub fn isa(&self) -> Isa {
        self.isa
    }
}

impl Ops for CpuOps {
    type Weight = CpuWeight;

    fn load_weight(&self, weight: HostWeight) -> Result<CpuWeight, KernelError> {
        Ok(CpuWeight::new(weight))
    }

    fn scope<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.warm.run(&self.pool, f)
    }

    fn embed(&self, weight: &CpuWeight, ids: &[u32], f_out: u8, out: &mut [i32]) {
        rowwise::embed(&weight.host, ids, f_out, out);
    }

    fn linear(&self, weight: &CpuWeight, x: &QuantRows, f_out: u8, out: &mut [i32]) {
        linear::linear(self.isa, weight, x, f_out, out);
    }

    fn rms_norm(&self, p: NormParams<'_>, x: &[i32], out: &mut [i32]) {
        rowwise::rms_norm(self.isa, p, x, out);
    }

    fn quant(&self, p: QuantParams, x: &[i32], out: &mut QuantRows) {
        rowwise::quant(self.isa, p, x, out);
    }

    fn rope(
        &self,
        table: &[i16],
        head_dim: usize,
        style: RopeStyle,
        positions: &[u32],
        x: &[i32],
        out: &mut [i32],
    ) {
        rowwise::rope(self.isa, table, head_dim, style, positions, x, out);
    }

    fn attention(&self, p: AttentionParams, q: &QuantRows, spans: &[KvSpan<'_>], out: &mut [i32]) {
        attention::attention(self.simd, p, q, spans, out);
    }

    fn glu(&self, act: Activation, f: u8, gate: &[i32], up: &[i32], out: &mut [i32]) {
        rowwise::glu(self.isa, act, f, gate, up, out);
    }

    fn add(&self, a: &[i32], b: &[i32], out: &mut [i32]) {
        rowwise::add(self.isa, a, b, out);
    }

    fn sample(&self, logits: &[i32], f: u8, sampler: &Sampler, pos: u32) -> u32 {
        sample::sample(logits, f, sampler, pos)
    }
}

/// The processor as a device.
pub struct CpuDevice {
    ops: CpuOps,
    threads: usize,
}

impl CpuDevice {
    /// A device of `threads` threads (1 to 1024) with the loops of [`Isa::chosen`]: the best that this machine
    /// has, unless the environment says otherwise.
    pub fn new(threads: usize) -> Result<Self, KernelError> {
        Self::with(Isa::chosen()?, threads)
    }

    /// The same with the loops of `isa`; fails where this machine lacks it.
    pub fn with(isa: Isa, threads: usize) -> Result<Self, KernelError> {
        Ok(Self {
            ops: CpuOps::with(isa, threads)?,
            threads,
        })
    }

    /// The same with plain Rust loops, which every machine has.
    pub fn portable(threads: usize) -> Result<Self, KernelError> {
        Self::with(Isa::Portable, threads)
    }
}

impl Device for CpuDevice {
    fn info(&self) -> DeviceInfo {
        let plural = if self.threads == 1 { "" } else { "s" };
        DeviceInfo {
            backend: "cpu",
            name: format!("cpu ({}, {} thread{plural})", self.ops.isa, self.threads),
            memory_bytes: None,
        }
    }

    fn peaks(&self) -> Result<Peaks, KernelError> {
        Ok(self.ops.peaks())
    }

    fn load(&self, program: Arc<Program>, tensors: &[HostTensor]) -> Result<Box<dyn Runner>, KernelError> {
        Ok(Box::new(Interp::load(self.ops.clone(), program, tensors)?))
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
        Ok(Box::new(HostPart::load(
            self.ops.clone(),
            program,
            tensors,
            unit,
        )?))
    }
}
