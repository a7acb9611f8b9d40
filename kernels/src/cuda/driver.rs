//! The door between the runner and a GPU: memory, copies, launches, two queues. The NVIDIA driver is one
//! implementation, the emulator that every machine can run is the other.
//!
//! Addresses are numbers here; only a driver turns them into memory. What keeps them right is [`Buffer`], which frees
//! what it holds and checks every copy against its length, and [`Arguments`], which only takes addresses of buffers.

use std::sync::Arc;

use crate::KernelError;

/// Work in the order it was given; the two queues run beside each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queue {
    /// The model.
    Work,
    /// Hashing, which must not hold the next token up.
    Hash,
}

/// A point in a queue that the host can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark(pub(crate) u64);

/// One kernel to run.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// Its name in `kernels/cuda`.
    pub(crate) kernel: &'static str,
    /// Blocks.
    pub(crate) grid: [u32; 3],
    /// Threads a block, 1 to 1,024.
    pub(crate) block: u32,
    /// Bytes of dynamic shared memory.
    pub(crate) shared: u32,
    /// What it is told.
    pub(crate) arguments: &'a Arguments,
    /// Where it runs. The emulated GPU runs every launch when it comes.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    pub(crate) queue: Queue,
}

/// A GPU, or what stands for one.
pub(crate) trait Driver: Send + Sync {
    /// Name for people.
    fn name(&self) -> String;
    /// Bytes of memory that are free, and in all.
    fn memory(&self) -> Result<(u64, u64), KernelError>;
    /// Bytes of shared memory that one block may have.
    fn shared_max(&self) -> u32;
    /// `bytes` of memory (at least 1), contents unspecified, aligned to 256.
    fn alloc(&self, bytes: usize) -> Result<u64, KernelError>;
    /// Gives back what `alloc` gave; work that still uses it finishes first.
    fn free(&self, address: u64, bytes: usize);
    /// Host to device, in the order of the work queue; the source may change when this returns.
    fn upload(&self, to: u64, bytes: &[u8]) -> Result<(), KernelError>;
    /// Device to host, after all work of `queue` so far; waits for it.
    fn download(&self, from: u64, bytes: &mut [u8], queue: Queue) -> Result<(), KernelError>;
    /// Device to device, in the order of the work queue.
    fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), KernelError>;
    /// Starts a kernel.
    fn launch(&self, launch: Launch<'_>) -> Result<(), KernelError>;
    /// Makes what `queue` gets from now on wait for all that `other` has to do so far.
    fn follow(&self, queue: Queue, other: Queue) -> Result<(), KernelError>;
    /// Marks the end of what `queue` has to do so far.
    fn mark(&self, queue: Queue) -> Result<Mark, KernelError>;
    /// Whether a mark was reached; `wait` waits until it is. A mark that was reached is forgotten.
    fn reached(&self, mark: Mark, wait: bool) -> Result<bool, KernelError>;
    /// Forgets a mark that nobody will ask for.
    fn forget(&self, mark: Mark);
}

/// Memory of a driver, freed when dropped.
pub(crate) struct Buffer {
    driver: Arc<dyn Driver>,
    address: u64,
    len: usize,
}

impl Buffer {
    /// `len` bytes with unspecified contents.
    pub(crate) fn new(driver: &Arc<dyn Driver>, len: usize) -> Result<Self, KernelError> {
        let address = driver.alloc(len.max(1))?;
        Ok(Self {
            driver: driver.clone(),
            address,
            len,
        })
    }

    /// A copy of host bytes.
    pub(crate) fn from_bytes(driver: &Arc<dyn Driver>, bytes: &[u8]) -> Result<Self, KernelError> {
        let mut buffer = Self::new(driver, bytes.len())?;
        buffer.write(0, bytes)?;
        Ok(buffer)
    }

    /// Bytes held.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Writes host bytes at `at`.
    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) -> Result<(), KernelError> {
        self.inside(at, bytes.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.driver.upload(self.address + at as u64, bytes)
    }

    /// Reads into host bytes from `at`, after all work of `queue`.
    pub(crate) fn read(&self, at: usize, bytes: &mut [u8], queue: Queue) -> Result<(), KernelError> {
        self.inside(at, bytes.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.driver.download(self.address + at as u64, bytes, queue)
    }

    /// Copies `bytes` of another buffer, from its start, to `at`.
    pub(crate) fn copy_from(&mut self, at: usize, from: &Buffer, bytes: usize) -> Result<(), KernelError> {
        self.inside(at, bytes)?;
        from.inside(0, bytes)?;
        self.driver.copy(self.address + at as u64, from.address, bytes)
    }

    /// Its address plus `at`, for rows that a kernel is told one by one.
    pub(crate) fn address(&self, at: usize) -> u64 {
        self.address + at as u64
    }

    fn inside(&self, at: usize, bytes: usize) -> Result<(), KernelError> {
        if at.checked_add(bytes).is_some_and(|end| end <= self.len) {
            return Ok(());
        }
        Err(KernelError::Shape {
            what: "copy on a device",
            expected: format!("at most {} bytes", self.len),
            got: format!("{bytes} bytes at {at}"),
        })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.driver.free(self.address, self.len.max(1));
    }
}

/// A kernel's argument struct, field by field in the order of `kernels/cuda/args.h`.
#[derive(Debug, Default, Clone)]
pub(crate) struct Arguments(Vec<u8>);

impl Arguments {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The address of a buffer.
    pub(crate) fn buffer(self, buffer: &Buffer) -> Self {
        self.word64(buffer.address)
    }

    /// The address inside of a buffer.
    pub(crate) fn buffer_at(self, buffer: &Buffer, at: usize) -> Self {
        self.word64(buffer.address + at as u64)
    }

    /// A buffer's address, or null.
    pub(crate) fn maybe(self, buffer: Option<&Buffer>) -> Self {
        self.word64(buffer.map_or(0, |b| b.address))
    }

    pub(crate) fn word64(mut self, v: u64) -> Self {
        self.0.extend(v.to_le_bytes());
        self
    }

    pub(crate) fn words<const N: usize>(mut self, words: [u32; N]) -> Self {
        for w in words {
            self.0.extend(w.to_le_bytes());
        }
        self
    }

    /// The struct's bytes: C pads to its alignment, 8.
    pub(crate) fn bytes(&self) -> std::borrow::Cow<'_, [u8]> {
        if self.0.len().is_multiple_of(8) {
            return (&self.0).into();
        }
        let mut padded = self.0.clone();
        padded.resize(self.0.len().next_multiple_of(8), 0);
        padded.into()
    }
}
