//! Which GPU is meant, and opening it: by number, by PCI address, or the first.

use std::{fmt, str::FromStr};

use bitai_kernels::cuda::{CudaDevice, GpuInfo, Memory, gpus};
use serde::Deserialize;

use crate::exit::Failure;

/// A GPU as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub enum Choice {
    /// The first that the driver names.
    #[default]
    First,
    /// By number.
    Index(u32),
    /// By PCI address: domain, bus, device.
    Pci(u32, u32, u32),
}

impl TryFrom<String> for Choice {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(index) = text.parse() {
            return Ok(Self::Index(index));
        }
        // The function behind the point is 0 on every GPU.
        let address = text.split_once('.').map_or(text, |(address, _)| address);
        let parts: Option<Vec<u32>> = address
            .split(':')
            .map(|part| u32::from_str_radix(part, 16).ok())
            .collect();
        match parts.as_deref() {
            Some([domain, bus, device]) => Ok(Self::Pci(*domain, *bus, *device)),
            Some([bus, device]) => Ok(Self::Pci(0, *bus, *device)),
            _ => Err(format!(
                "`{text}` is neither a GPU's number nor its PCI address (like 0 or 0000:01:00)"
            )),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => write!(f, "the first GPU"),
            Self::Index(index) => write!(f, "GPU {index}"),
            Self::Pci(domain, bus, device) => write!(f, "the GPU at {domain:04x}:{bus:02x}:{device:02x}"),
        }
    }
}

impl Choice {
    fn is(self, gpu: &GpuInfo) -> bool {
        match self {
            Self::First => true,
            Self::Index(index) => gpu.index == index,
            Self::Pci(..) => gpu.pci.parse() == Ok(self),
        }
    }
}

/// Opens the GPU that was asked for.
pub fn open(choice: Choice) -> Result<CudaDevice, Failure> {
    let failed = |e: bitai_kernels::KernelError| Failure::Device(e.to_string());
    let all = gpus().map_err(failed)?;
    let gpu = find(choice, all)?;
    CudaDevice::open(gpu, Memory::default()).map_err(failed)
}

fn find(choice: Choice, all: Vec<GpuInfo>) -> Result<GpuInfo, Failure> {
    if all.is_empty() {
        return Err(Failure::Device(
            "no NVIDIA GPU here, or no driver for it (version 525 or newer is needed); --device cpu runs on the processor".into(),
        ));
    }
    let there: Vec<String> = all
        .iter()
        .map(|g| format!("{} ({}, {})", g.index, g.pci, g.name))
        .collect();
    all.into_iter()
        .find(|g| choice.is(g))
        .ok_or_else(|| Failure::Device(format!("{choice} is not there; there are: {}", there.join("; "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(index: u32, pci: &str) -> GpuInfo {
        GpuInfo {
            index,
            name: "GPU of a test".into(),
            pci: pci.into(),
            capability: (9, 0),
            memory_bytes: 1 << 30,
        }
    }

    #[test]
    fn a_gpu_is_found_by_number_and_by_address() {
        let all = || vec![gpu(0, "0000:01:00"), gpu(1, "0000:c1:00")];
        let index = |text: &str| find(text.parse().unwrap(), all()).unwrap().index;
        assert_eq!(index("1"), 1);
        assert_eq!(index("0000:C1:00.0"), 1);
        assert_eq!(index("01:00"), 0);
        assert_eq!(find(Choice::First, all()).unwrap().index, 0);
    }

    #[test]
    fn rejects_a_gpu_that_is_not_there() {
        let why = find(Choice::Index(7), vec![gpu(0, "0000:01:00")])
            .unwrap_err()
            .to_string();
        assert!(
            why.contains("GPU 7 is not there") && why.contains("0000:01:00"),
            "{why}"
        );
        assert!(
            find(Choice::First, vec![])
                .unwrap_err()
                .to_string()
                .contains("--device cpu")
        );
        assert!("first".parse::<Choice>().is_err());
    }
}
