//! NVIDIA's driver, loaded at run time: contexts, memory, two streams, modules. The only place that calls CUDA.
#![allow(unsafe_code)]

use std::{
    collections::BTreeMap,
    ffi::{CString, c_void},
    sync::{Mutex, MutexGuard, PoisonError},
};

use cudarc::driver::{
    result::{self, DriverError, ctx, device, event, function, module, stream},
    sys::{self, CUdevice_attribute as Attribute, CUfunction_attribute_enum as FunctionAttribute},
};

use super::{
    driver::{Driver, Launch, Mark, Queue},
    images,
};
use crate::KernelError;

/// What is known of a GPU before it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuInfo {
    /// Number among this machine's GPUs, from 0, in the driver's order.
    pub index: u32,
    /// Name for people.
    pub name: String,
    /// PCI address: domain:bus:device.
    pub pci: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Bytes of memory in all.
    pub memory_bytes: u64,
}

/// Every GPU of this machine; empty where there is no driver.
pub fn gpus() -> Result<Vec<GpuInfo>, KernelError> {
    // SAFETY: opens a library by name and looks whether it is there.
    if !unsafe { sys::is_culib_present() } {
        return Ok(vec![]);
    }
    match result::init() {
        Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => return Ok(vec![]),
        other => other.map_err(|e| failed("CUDA", "cuInit", &e))?,
    }
    let count = device::get_count().map_err(|e| failed("CUDA", "cuDeviceGetCount", &e))?;
    (0..count).map(describe).collect()
}

fn describe(ordinal: i32) -> Result<GpuInfo, KernelError> {
    let who = format!("GPU {ordinal}");
    let fail = |what: &'static str| {
        let who = who.clone();
        move |e: DriverError| failed(&who, what, &e)
    };
    let dev = device::get(ordinal).map_err(fail("cuDeviceGet"))?;
    // SAFETY: `dev` came from `device::get`.
    let attribute = |a| unsafe { device::get_attribute(dev, a) }.map_err(fail("cuDeviceGetAttribute"));
    let number = |a| attribute(a).map(|v| v.max(0) as u32);
    Ok(GpuInfo {
        index: ordinal.max(0) as u32,
        name: device::get_name(dev).map_err(fail("cuDeviceGetName"))?,
        pci: format!(
            "{:04x}:{:02x}:{:02x}",
            number(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID)?,
            number(Attribute::CU_DEVICE_ATTRIBUTE_PCI_BUS_ID)?,
            number(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID)?,
        ),
        capability: (
            number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        // SAFETY: as above.
        memory_bytes: unsafe { device::total_mem(dev) }.map_err(fail("cuDeviceTotalMem"))? as u64,
    })
}

fn failed(who: &str, what: &str, e: &DriverError) -> KernelError {
    let name = e
        .error_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_else(|_| format!("{:?}", e.0));
    let (device, why) = (who.into(), format!("{what}: {name}"));
    if loses(e.0) {
        KernelError::Lost { device, why }
    } else {
        KernelError::Device { device, why }
    }
}

/// Errors after which a context gives nothing but errors (CUDA driver API, "data types", `CUresult`).
fn loses(e: sys::CUresult) -> bool {
    use sys::CUresult as E;
    matches!(
        e,
        E::CUDA_ERROR_DEINITIALIZED
            | E::CUDA_ERROR_NO_DEVICE
            | E::CUDA_ERROR_DEVICE_UNAVAILABLE
            | E::CUDA_ERROR_ECC_UNCORRECTABLE
            | E::CUDA_ERROR_NVLINK_UNCORRECTABLE
            | E::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | E::CUDA_ERROR_ILLEGAL_ADDRESS
            | E::CUDA_ERROR_LAUNCH_TIMEOUT
            | E::CUDA_ERROR_HARDWARE_STACK_ERROR
            | E::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | E::CUDA_ERROR_MISALIGNED_ADDRESS
            | E::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | E::CUDA_ERROR_INVALID_PC
            | E::CUDA_ERROR_LAUNCH_FAILED
            | E::CUDA_ERROR_SYSTEM_NOT_READY
            | E::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
            | E::CUDA_ERROR_UNKNOWN
    )
}

/// A GPU that is open.
pub(crate) struct Nvidia {
    info: GpuInfo,
    dev: sys::CUdevice,
    context: sys::CUcontext,
    work: sys::CUstream,
    hash: sys::CUstream,
    /// What one stream waits for at the other's end, by the other; recorded anew each time, record and wait together,
    /// since several models share these streams.
    fences: Mutex<[usize; 2]>,
    module: sys::CUmodule,
    shared_max: i32,
    functions: Mutex<BTreeMap<&'static str, usize>>,
    marks: Mutex<Marks>,
}

#[derive(Default)]
struct Marks {
    next: u64,
    events: BTreeMap<u64, usize>,
    spare: Vec<usize>,
}

// SAFETY: handles of the CUDA driver may be used by any thread whose current context is theirs; every method sets it.
unsafe impl Send for Nvidia {}
// SAFETY: as above; what is not the driver's own is behind a mutex.
unsafe impl Sync for Nvidia {}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Nvidia {
    /// Opens a GPU and loads the kernels that were compiled for it.
    pub(crate) fn open(info: GpuInfo) -> Result<Self, KernelError> {
        let who = format!("GPU {} ({})", info.index, info.name);
        let image = images::pick(info.capability).map_err(|why| KernelError::Device {
            device: who.clone(),
            why,
        })?;
        let fail = |what: &'static str| {
            let who = who.clone();
            move |e: DriverError| failed(&who, what, &e)
        };
        let dev = device::get(info.index as i32).map_err(fail("cuDeviceGet"))?;
        // SAFETY: the device came from `device::get`; its context is current before streams, events and the module are
        // made; the image is a whole cubin, or PTX that ends in a zero byte.
        unsafe {
            let context = result::primary_ctx::retain(dev).map_err(fail("cuDevicePrimaryCtxRetain"))?;
            ctx::set_current(context).map_err(fail("cuCtxSetCurrent"))?;
            let stream = || stream::create(stream::StreamKind::NonBlocking).map_err(fail("cuStreamCreate"));
            let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
            let module = module::load_data(image.as_ptr().cast::<c_void>()).map_err(|e| match e.0 {
                sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
                | sys::CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
                | sys::CUresult::CUDA_ERROR_INVALID_IMAGE => KernelError::Device {
                    device: who.clone(),
                    why: "the driver is too old for these kernels; version 525 or newer is needed".into(),
                },
                _ => failed(&who, "cuModuleLoadData", &e),
            })?;
            let shared = Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
            Ok(Self {
                work: stream()?,
                hash: stream()?,
                fences: Mutex::new([
                    event::create(flags).map_err(fail("cuEventCreate"))? as usize,
                    event::create(flags).map_err(fail("cuEventCreate"))? as usize,
                ]),
                shared_max: device::get_attribute(dev, shared).map_err(fail("cuDeviceGetAttribute"))?,
                info,
                dev,
                context,
                module,
                functions: Mutex::default(),
                marks: Mutex::default(),
            })
        }
    }

    fn who(&self) -> String {
        format!("GPU {} ({})", self.info.index, self.info.name)
    }

    fn check<T>(&self, what: &str, result: Result<T, DriverError>) -> Result<T, KernelError> {
        result.map_err(|e| failed(&self.who(), what, &e))
    }

    /// Makes this GPU the calling thread's.
    fn enter(&self) -> Result<(), KernelError> {
        // SAFETY: the context lives as long as this.
        self.check("cuCtxSetCurrent", unsafe { ctx::set_current(self.context) })
    }

    fn stream(&self, queue: Queue) -> sys::CUstream {
        match queue {
            Queue::Work => self.work,
            Queue::Hash => self.hash,
        }
    }

    fn function(&self, name: &'static str) -> Result<sys::CUfunction, KernelError> {
        let mut known = lock(&self.functions);
        if let Some(f) = known.get(name) {
            return Ok(*f as sys::CUfunction);
        }
        let text = CString::new(name).map_err(|e| KernelError::Device {
            device: self.who(),
            why: format!("kernel {name}: {e}"),
        })?;
        // SAFETY: the module is loaded and its context current; the attribute is set on a function of it.
        let f = unsafe {
            let f = self.check(name, module::get_function(self.module, text))?;
            let most = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let fixed = FunctionAttribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
            let fixed = self.check(name, function::get_function_attribute(f, fixed))?;
            let room = self.shared_max - fixed;
            self.check(name, function::set_function_attribute(f, most, room))?;
            f
        };
        known.insert(name, f as usize);
        Ok(f)
    }
}

impl Driver for Nvidia {
    fn name(&self) -> String {
        self.who()
    }

    fn memory(&self) -> Result<(u64, u64), KernelError> {
        self.enter()?;
        let (free, total) = self.check("cuMemGetInfo", result::mem_get_info())?;
        Ok((free as u64, total as u64))
    }

    fn shared_max(&self) -> u32 {
        self.shared_max.max(0) as u32
    }

    fn alloc(&self, bytes: usize) -> Result<u64, KernelError> {
        self.enter()?;
        // SAFETY: `Buffer` frees it.
        match unsafe { result::malloc_sync(bytes) } {
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Err(KernelError::OutOfMemory {
                device: self.who(),
                need: bytes as u64,
                free: self.memory()?.0,
            }),
            other => self.check("cuMemAlloc", other),
        }
    }

    fn free(&self, address: u64, _: usize) {
        // A failure here is the device's, and its next call says so.
        if self.enter().is_ok() {
            // SAFETY: `Buffer` gives back what `alloc` gave, once; freeing waits for work that uses it.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    fn upload(&self, to: u64, bytes: &[u8]) -> Result<(), KernelError> {
        self.enter()?;
        // SAFETY: `Buffer` has checked the range. From pageable memory the call returns when the source was read.
        self.check("cuMemcpyHtoD", unsafe {
            result::memcpy_htod_async(to, bytes, self.work)
        })
    }

    fn download(&self, from: u64, bytes: &mut [u8], queue: Queue) -> Result<(), KernelError> {
        self.enter()?;
        let stream = self.stream(queue);
        // SAFETY: `Buffer` has checked the range; the stream is synchronised before `bytes` is used.
        unsafe {
            self.check("cuMemcpyDtoH", result::memcpy_dtoh_async(bytes, from, stream))?;
            self.check("cuStreamSynchronize", stream::synchronize(stream))
        }
    }

    fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), KernelError> {
        self.enter()?;
        // SAFETY: `Buffer` has checked both ranges.
        self.check("cuMemcpyDtoD", unsafe {
            result::memcpy_dtod_async(to, from, bytes, self.work)
        })
    }

    fn launch(&self, launch: Launch<'_>) -> Result<(), KernelError> {
        self.enter()?;
        let f = self.function(launch.kernel)?;
        let mut args = launch.arguments.bytes().into_owned();
        let mut params = [args.as_mut_ptr().cast::<c_void>()];
        let [x, y, z] = launch.grid;
        // SAFETY: every kernel takes one struct; the tests hold its length equal to the one compiled, and its addresses
        // come from live buffers. The driver copies it before it returns.
        let started = unsafe {
            result::launch_kernel(
                f,
                (x, y, z),
                (launch.block, 1, 1),
                launch.shared,
                self.stream(launch.queue),
                &mut params,
            )
        };
        self.check(launch.kernel, started)
    }

    fn follow(&self, queue: Queue, other: Queue) -> Result<(), KernelError> {
        self.enter()?;
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        let fences = lock(&self.fences);
        let fence = fences[usize::from(other == Queue::Hash)] as sys::CUevent;
        let (queue, other) = (self.stream(queue), self.stream(other));
        // SAFETY: streams and events live as long as this; a wait holds what was recorded when it was made.
        unsafe {
            self.check("cuEventRecord", event::record(fence, other))?;
            self.check("cuStreamWaitEvent", stream::wait_event(queue, fence, flags))
        }
    }

    fn mark(&self, queue: Queue) -> Result<Mark, KernelError> {
        self.enter()?;
        let mut marks = lock(&self.marks);
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
        let event = match marks.spare.pop() {
            Some(event) => event as sys::CUevent,
            None => self.check("cuEventCreate", event::create(flags))?,
        };
        // SAFETY: event and stream are this context's.
        self.check("cuEventRecord", unsafe {
            event::record(event, self.stream(queue))
        })?;
        let id = marks.next;
        marks.next += 1;
        marks.events.insert(id, event as usize);
        Ok(Mark(id))
    }

    fn reached(&self, mark: Mark, wait: bool) -> Result<bool, KernelError> {
        self.enter()?;
        let known = lock(&self.marks).events.get(&mark.0).copied();
        let Some(event) = known else {
            return Ok(true);
        };
        // SAFETY: events of marks are destroyed only with this.
        let state = unsafe {
            if wait {
                event::synchronize(event as sys::CUevent)
            } else {
                event::query(event as sys::CUevent)
            }
        };
        if matches!(&state, Err(DriverError(sys::CUresult::CUDA_ERROR_NOT_READY))) {
            return Ok(false);
        }
        self.check("cuEventQuery", state)?;
        self.forget(mark);
        Ok(true)
    }

    fn forget(&self, mark: Mark) {
        let mut marks = lock(&self.marks);
        if let Some(event) = marks.events.remove(&mark.0) {
            marks.spare.push(event);
        }
    }
}

impl Drop for Nvidia {
    fn drop(&mut self) {
        if self.enter().is_err() {
            return;
        }
        let marks = std::mem::take(&mut *lock(&self.marks));
        // SAFETY: nothing uses them any more: buffers and runners hold the driver, so they are gone. Errors are a lost
        // device's, which holds nothing.
        unsafe {
            let _ = stream::synchronize(self.work);
            let _ = stream::synchronize(self.hash);
            for event in marks.spare.into_iter().chain(marks.events.into_values()) {
                let _ = event::destroy(event as sys::CUevent);
            }
            for fence in *lock(&self.fences) {
                let _ = event::destroy(fence as sys::CUevent);
            }
            let _ = stream::destroy(self.work);
            let _ = stream::destroy(self.hash);
            let _ = module::unload(self.module);
            let _ = result::primary_ctx::release(self.dev);
        }
    }
}
