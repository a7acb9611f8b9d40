//! What this machine has: driver, GPUs, memory; and whether a model fits.

use std::time::Duration;

use bitai_kernels::cuda::gpus;
use nvml_wrapper::{
    Nvml,
    enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor},
};
use serde::Serialize;

use super::Report;
use crate::{cli::DeviceKind, exit::Failure, models::Listed};

/// Longest that the driver is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Degrees Celsius from which a GPU that does nothing is too hot.
const HOT: u32 = 85;
/// What a neuron needs beside the weights: KV cache, rows, program.
const BESIDE: u64 = 512 << 20;

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// Number.
    pub index: u32,
    /// Name.
    pub name: String,
    /// PCI address.
    pub pci: String,
    /// Compute capability.
    pub capability: (u32, u32),
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of it that are free.
    pub memory_free: Option<u64>,
    /// Degrees Celsius.
    pub temperature: Option<u32>,
    /// Memory errors since the machine started that could not be corrected.
    pub memory_errors: Option<u64>,
}

/// A machine.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Version of the NVIDIA driver, where its library says one.
    pub driver: Option<String>,
    /// Why the library that gives temperature and power cannot be used.
    pub nvml_missing: Option<String>,
    /// GPUs, or why they cannot be listed.
    pub gpus: Result<Vec<Gpu>, String>,
    /// Processor cores.
    pub cores: usize,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of it that programs can still have.
    pub memory_free: Option<u64>,
}

/// Looks at the machine; nothing where a driver hangs for longer than this.
pub async fn look_within(patience: Duration) -> Option<Machine> {
    let (tell, told) = tokio::sync::oneshot::channel();
    // A thread of its own, not the runtime's: a driver that hangs must not keep the program from ending.
    std::thread::Builder::new()
        .name("look".into())
        .spawn(move || tell.send(look()))
        .ok()?;
    tokio::time::timeout(patience, told).await.ok()?.ok()
}

fn look() -> Machine {
    let nvml = Nvml::init();
    let found = gpus().map_err(|e| e.to_string());
    let (memory, memory_free) = memory();
    Machine {
        driver: nvml.as_ref().ok().and_then(|n| n.sys_driver_version().ok()),
        nvml_missing: nvml.as_ref().err().map(ToString::to_string),
        gpus: found.map(|all| {
            let gpu = |g: bitai_kernels::cuda::GpuInfo| {
                let figures = nvml
                    .as_ref()
                    .ok()
                    .and_then(|n| n.device_by_pci_bus_id(format!("{}.0", g.pci)).ok());
                let figures = figures.as_ref();
                Gpu {
                    memory_free: figures.and_then(|d| d.memory_info().ok()).map(|m| m.free),
                    temperature: figures.and_then(|d| d.temperature(TemperatureSensor::Gpu).ok()),
                    memory_errors: figures.and_then(|d| {
                        d.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile)
                            .ok()
                    }),
                    index: g.index,
                    name: g.name,
                    pci: g.pci,
                    capability: g.capability,
                    memory: g.memory_bytes,
                }
            };
            all.into_iter().map(gpu).collect()
        }),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory,
        memory_free,
    }
}

/// Memory of the machine, and what of it is free, as Linux says.
fn memory() -> (Option<u64>, Option<u64>) {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    (kibibytes(&text, "MemTotal:"), kibibytes(&text, "MemAvailable:"))
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(name))?;
    line.split_whitespace()
        .next()?
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

/// Bytes for people.
pub(crate) fn gib(bytes: u64) -> String {
    let tenths = (u128::from(bytes) * 10) >> 30;
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

/// Lines about driver and GPUs.
pub(super) fn driver(report: &mut Report, machine: Option<&Machine>, kind: DeviceKind) {
    let wanted = kind == DeviceKind::Cuda;
    let Some(machine) = machine else {
        let why =
            "the NVIDIA driver does not answer; restart the machine, or look for `Xid` in dmesg".to_owned();
        return match wanted {
            true => report.fault("driver", Failure::Device(why)),
            false => report.warn("driver", why),
        };
    };
    let none = "no NVIDIA GPU, or no driver for it (version 525 or newer)";
    match (&machine.gpus, &machine.driver) {
        (Err(why), _) => {
            let why = format!("{why}; install the driver again, or restart the machine");
            match wanted {
                true => report.fault("driver", Failure::Device(why)),
                false => report.warn("driver", why),
            }
        }
        (Ok(gpus), _) if gpus.is_empty() && wanted => report.fault(
            "driver",
            Failure::Device(format!(
                "{none}; install one, or compute on the processor: --device cpu"
            )),
        ),
        (Ok(gpus), _) if gpus.is_empty() => {
            report.ok(
                "driver",
                format!("{none}: computing on the processor, {} cores", machine.cores),
            );
        }
        (Ok(_), Some(version)) => report.ok("driver", format!("NVIDIA {version}")),
        (Ok(_), None) => report.warn(
            "driver",
            format!(
                "there, but without the library for watts and temperatures ({}); mining works without",
                machine.nvml_missing.as_deref().unwrap_or("no version")
            ),
        ),
    }
    for gpu in machine.gpus.iter().flatten() {
        one(report, gpu, wanted);
    }
}

fn one(report: &mut Report, gpu: &Gpu, wanted: bool) {
    let who = format!(
        "GPU {} {} ({}), {}",
        gpu.index,
        gpu.pci,
        gpu.name,
        gib(gpu.memory)
    );
    if gpu.capability < (7, 5) {
        let (major, minor) = gpu.capability;
        let why = format!("{who}: compute capability {major}.{minor}, 7.5 or newer is needed (Turing, 2018)");
        return match wanted {
            true => report.fault("gpu", Failure::Device(why)),
            false => report.warn("gpu", why),
        };
    }
    if let Some(errors) = gpu.memory_errors.filter(|n| *n > 0) {
        report.warn(
            "gpu",
            format!(
                "{who}: {errors} memory errors could not be corrected; reset it, replace it if they come back"
            ),
        );
    } else if let Some(t) = gpu.temperature.filter(|t| *t >= HOT) {
        report.warn(
            "gpu",
            format!("{who}: {t} degrees; clean its fans or lower its power limit"),
        );
    } else {
        let t = gpu
            .temperature
            .map_or_else(String::new, |t| format!(", {t} degrees"));
        report.ok("gpu", format!("{who}{t}"));
    }
}

/// Whether a device can hold a model, by its pack's bytes and what is needed beside them.
pub(crate) fn holds(memory: u64, model: &Listed) -> bool {
    model.bytes.saturating_add(BESIDE) <= memory
}

/// Lines about models and memory.
pub(super) fn fits(report: &mut Report, machine: Option<&Machine>, kind: DeviceKind, models: &[Listed]) {
    let Some(machine) = machine else { return };
    let (place, memory) = match kind {
        DeviceKind::Cuda => {
            let largest = machine.gpus.iter().flatten().map(|g| g.memory).max();
            ("the largest GPU", largest)
        }
        _ => ("this machine", machine.memory_free.or(machine.memory)),
    };
    let Some(memory) = memory else { return };
    let (fit, too_large): (Vec<_>, Vec<_>) = models.iter().partition(|m| holds(memory, m));
    for model in &too_large {
        let words = format!(
            "{} takes {} and {} beside it, {place} has {} free; serve a smaller model",
            model.name,
            gib(model.bytes),
            gib(BESIDE),
            gib(memory)
        );
        // One model that fits is enough to earn.
        if fit.is_empty() {
            report.fault("memory", Failure::Device(words));
        } else {
            report.warn("memory", words);
        }
    }
    if !fit.is_empty() {
        let names: Vec<&str> = fit.iter().map(|m| m.name.as_str()).collect();
        report.ok(
            "memory",
            format!("{} free on {place}, holds {}", gib(memory), names.join(", ")),
        );
    }
}

/// A line about an address to listen at.
pub(super) fn port(report: &mut Report, key: &str, address: &str) {
    match std::net::TcpListener::bind(address) {
        Ok(_) => report.ok("port", format!("{address} ({key}) is free")),
        Err(e) => report.warn(
            "port",
            format!("{address} ({key}): {e}; a neuron that runs already has it, or set {key} to another"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(gpus: Result<Vec<Gpu>, String>) -> Machine {
        Machine {
            driver: Some("550.1".into()),
            nvml_missing: None,
            gpus,
            cores: 2,
            memory: Some(8 << 30),
            memory_free: Some(4 << 30),
        }
    }

    fn gpu() -> Gpu {
        Gpu {
            index: 0,
            name: "GPU of a test".into(),
            pci: "0000:01:00".into(),
            capability: (9, 0),
            memory: 8 << 30,
            memory_free: None,
            temperature: Some(40),
            memory_errors: None,
        }
    }

    fn lines(machine: Option<&Machine>, kind: DeviceKind) -> (Vec<super::super::Line>, Option<u8>) {
        let mut report = Report {
            is_quiet: true,
            ..Default::default()
        };
        driver(&mut report, machine, kind);
        (report.lines, report.first.map(|f| f.code()))
    }

    #[test]
    fn a_machine_without_gpu_is_fine_unless_a_gpu_is_wanted() {
        let none = machine(Ok(vec![]));
        assert_eq!(lines(Some(&none), DeviceKind::Cpu).1, None);
        assert_eq!(lines(Some(&none), DeviceKind::Cuda).1, Some(15));
        // A driver that hangs.
        assert_eq!(lines(None, DeviceKind::Cpu).1, None);
        assert_eq!(lines(None, DeviceKind::Cuda).1, Some(15));
        assert_eq!(
            lines(Some(&machine(Err("lost".into()))), DeviceKind::Cuda).1,
            Some(15)
        );
    }

    #[test]
    fn sick_gpus_are_named() {
        use super::super::Verdict;
        let hot = Gpu {
            temperature: Some(91),
            ..gpu()
        };
        let errors = Gpu {
            memory_errors: Some(3),
            ..gpu()
        };
        let (found, code) = lines(Some(&machine(Ok(vec![gpu(), hot, errors]))), DeviceKind::Cuda);
        assert_eq!(code, None);
        let verdicts: Vec<_> = found.iter().map(|l| l.verdict).collect();
        assert_eq!(
            verdicts,
            [Verdict::Ok, Verdict::Ok, Verdict::Warning, Verdict::Warning]
        );
        assert!(found[2].words.contains("91 degrees") && found[3].words.contains("0000:01:00"));
        let old = Gpu {
            capability: (6, 1),
            ..gpu()
        };
        assert_eq!(lines(Some(&machine(Ok(vec![old]))), DeviceKind::Cuda).1, Some(15));
    }

    #[test]
    fn memory_is_read_as_linux_writes_it() {
        let text = "MemTotal:       16280000 kB\nMemFree: 1 kB\nMemAvailable:    8140000 kB\n";
        assert_eq!(kibibytes(text, "MemAvailable:"), Some(8_140_000 * 1024));
        assert_eq!(kibibytes("", "MemTotal:"), None);
        assert_eq!(gib(3 << 29), "1.5 GiB");
    }
}
