//! The emulated GPU: `kernels/cuda` compiled for this processor, a block's threads as fibers (kernels/cuda/emu). Slow,
//! and the same source that runs on GPUs, so that every machine can check every kernel.
#![allow(unsafe_code)]

#[cfg(test)]
use std::ffi::CStr;
use std::{
    alloc::{Layout, alloc, dealloc},
    collections::BTreeSet,
    ffi::{CString, c_char},
    sync::Mutex,
};

use super::driver::{Driver, Launch, Mark, Queue};
use crate::KernelError;

unsafe extern "C" {
    fn bitai_emu_launch(
        name: *const c_char,
        grid: *const u32,
        block: u32,
        shared: u32,
        args: *const u8,
        args_len: usize,
        order: u64,
    ) -> i32;
    #[cfg(test)]
    fn bitai_emu_kernel(index: usize) -> *const c_char;
}

/// What stands before and behind every allocation, so that a kernel that writes past its rows is seen.
const GUARD: usize = 256;
const GUARD_BYTE: u8 = 0xa5;

/// Names of the kernels that were compiled, in the order of their files.
#[cfg(test)]
pub(crate) fn kernels() -> Vec<String> {
    (0..)
        .map_while(|i| {
            // SAFETY: gives a string literal, or null past the end.
            let name = unsafe { bitai_emu_kernel(i) };
            // SAFETY: not null, so a literal that ends in a zero byte.
            (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
        })
        .collect()
}

/// Names of the kernels that ran in this process.
static USED: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// Names of the kernels that ran in this process, for tests of the choice among them.
#[cfg(test)]
pub(crate) fn used() -> BTreeSet<String> {
    let used = USED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    used.iter().map(|name| (*name).to_owned()).collect()
}

/// The emulated GPU.
pub(crate) struct Emulator {
    /// Seeds the order in which threads and blocks run.
    order: u64,
    /// Bytes it may hand out.
    limit: u64,
    used: Mutex<u64>,
    /// Allocations until the last of two that fail; 0: none.
    fails_at: std::sync::atomic::AtomicU32,
}

impl Emulator {
    pub(crate) fn new(order: u64, limit: u64) -> Self {
        Self {
            order,
            limit,
            used: Mutex::new(0),
            fails_at: 0.into(),
        }
    }

    /// Makes the nth allocation from now on fail, and the next one, which is its second try; 0: none.
    #[cfg(test)]
    pub(crate) fn fail_at(&self, nth: u32) {
        let left = if nth == 0 { 0 } else { nth + 1 };
        self.fails_at.store(left, std::sync::atomic::Ordering::Relaxed);
    }

    fn used(&self) -> std::sync::MutexGuard<'_, u64> {
        self.used
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn failed(why: String) -> KernelError {
        KernelError::Device {
            device: "emulated GPU".into(),
            why,
        }
    }
}

fn layout(bytes: usize) -> Result<Layout, KernelError> {
    Layout::from_size_align(bytes + 2 * GUARD, 256)
        .map_err(|_| Emulator::failed(format!("{bytes} bytes are no allocation")))
}

impl Driver for Emulator {
    fn name(&self) -> String {
        "emulated GPU".into()
    }

    fn memory(&self) -> Result<(u64, u64), KernelError> {
        Ok((self.limit - *self.used(), self.limit))
    }

    fn shared_max(&self) -> u32 {
        227 << 10
    }

    fn alloc(&self, bytes: usize) -> Result<u64, KernelError> {
        let order = std::sync::atomic::Ordering::Relaxed;
        let left = self.fails_at.load(order);
        if left > 0 {
            self.fails_at.store(left - 1, order);
        }
        let mut used = self.used();
        if left == 1 || left == 2 || *used + bytes as u64 > self.limit {
            return Err(KernelError::OutOfMemory {
                device: self.name(),
                need: bytes as u64,
                free: self.limit - *used,
            });
        }
        let layout = layout(bytes)?;
        // SAFETY: the size is not zero.
        let start = unsafe { alloc(layout) };
        if start.is_null() {
            return Err(KernelError::OutOfMemory {
                device: self.name(),
                need: bytes as u64,
                free: 0,
            });
        }
        // SAFETY: the allocation holds the guards on both sides.
        unsafe {
            start.write_bytes(GUARD_BYTE, GUARD);
            // A GPU gives what others left there.
            start.add(GUARD).write_bytes(0xcd ^ self.order as u8, bytes);
            start.add(GUARD + bytes).write_bytes(GUARD_BYTE, GUARD);
        }
        *used += bytes as u64;
        Ok(start as u64 + GUARD as u64)
    }

    fn free(&self, address: u64, bytes: usize) {
        let start = (address as usize - GUARD) as *mut u8;
        // SAFETY: `Buffer` gives back what `alloc` gave, once, with the same length.
        let (before, after) = unsafe {
            (
                std::slice::from_raw_parts(start, GUARD).to_vec(),
                std::slice::from_raw_parts(start.add(GUARD + bytes), GUARD).to_vec(),
            )
        };
        assert!(
            before.iter().chain(&after).all(|b| *b == GUARD_BYTE),
            "a kernel wrote outside of a buffer of {bytes} bytes"
        );
        if let Ok(layout) = layout(bytes) {
            // SAFETY: the same layout as in `alloc`.
            unsafe { dealloc(start, layout) };
        }
        *self.used() -= bytes as u64;
    }

    fn upload(&self, to: u64, bytes: &[u8]) -> Result<(), KernelError> {
        // SAFETY: `Buffer` has checked that the range lies inside an allocation of this driver.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(())
    }

    fn download(&self, from: u64, bytes: &mut [u8], _: Queue) -> Result<(), KernelError> {
        // SAFETY: as in `upload`.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), KernelError> {
        // SAFETY: as in `upload`, for both sides.
        unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    fn launch(&self, launch: Launch<'_>) -> Result<(), KernelError> {
        let name = CString::new(launch.kernel).map_err(|e| Self::failed(e.to_string()))?;
        let args = launch.arguments.bytes();
        // SAFETY: the struct's length is checked by the emulator; the addresses in it come from live buffers.
        let code = unsafe {
            bitai_emu_launch(
                name.as_ptr(),
                launch.grid.as_ptr(),
                launch.block,
                launch.shared,
                args.as_ptr(),
                args.len(),
                self.order,
            )
        };
        let why = match code {
            0 => {
                let mut used = USED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                used.insert(launch.kernel);
                return Ok(());
            }
            1 => "there is no such kernel".into(),
            2 => format!("{} bytes are not its arguments", args.len()),
            3 => format!(
                "grid {:?}, block {}, {} bytes shared are no geometry",
                launch.grid, launch.block, launch.shared
            ),
            4 => "its threads wait for each other at different barriers".into(),
            other => format!("code {other}"),
        };
        Err(Self::failed(format!("kernel {}: {why}", launch.kernel)))
    }

    fn follow(&self, _: Queue, _: Queue) -> Result<(), KernelError> {
        Ok(())
    }

    fn mark(&self, _: Queue) -> Result<Mark, KernelError> {
        Ok(Mark(0))
    }

    fn reached(&self, _: Mark, _: bool) -> Result<bool, KernelError> {
        Ok(true)
    }

    fn forget(&self, _: Mark) {}
}
