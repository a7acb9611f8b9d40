//! Which GPUs are meant, and opening them: by number, by PCI address, the first, or all.

use std::{fmt, str::FromStr};

use bitai_kernels::cuda::{CudaDevice, GpuInfo, Memory, gpus};
use serde::Deserialize;

use crate::{engine::kernel_failure, exit::Failure};

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

/// GPUs as they were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub enum List {
    /// Every one.
    #[default]
    All,
    /// These, in this order.
    These(Vec<Choice>),
}

impl TryFrom<String> for List {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for List {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let choices: Result<Vec<Choice>, _> = text.split(',').map(|part| part.trim().parse()).collect();
        choices.map(Self::These)
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::These(choices) => {
                let words: Vec<String> = choices.iter().map(Choice::to_string).collect();
                f.write_str(&words.join(", "))
            }
        }
    }
}

impl List {
    /// The one that serves where one is enough.
    pub fn first(&self) -> Choice {
        match self {
            Self::All => Choice::First,
            Self::These(choices) => choices.first().copied().unwrap_or_default(),
        }
    }

    /// The GPUs among those that are there, each once.
    pub fn choose(&self, all: &[GpuInfo]) -> Result<Vec<GpuInfo>, Failure> {
        let choices = match self {
            Self::All => {
                find(Choice::First, all.to_vec())?;
                return Ok(all.to_vec());
            }
            Self::These(choices) => choices,
        };
        let mut chosen: Vec<GpuInfo> = Vec::new();
        for choice in choices {
            let gpu = find(*choice, all.to_vec())?;
            if !chosen.contains(&gpu) {
                chosen.push(gpu);
            }
        }
        Ok(chosen)
    }
}

/// Whether there is a GPU with a driver.
pub fn any() -> bool {
    gpus().is_ok_and(|all| !all.is_empty())
}

/// The GPUs that are there, with those meant by a list.
pub fn chosen(list: &List) -> Result<Vec<GpuInfo>, Failure> {
    list.choose(&gpus().map_err(|e| kernel_failure(&e))?)
}

/// Opens a GPU that was described before.
pub fn open_known(gpu: GpuInfo) -> Result<CudaDevice, Failure> {
    CudaDevice::open(gpu, Memory::default()).map_err(|e| kernel_failure(&e))
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
    let all = gpus().map_err(|e| kernel_failure(&e))?;
    open_known(find(choice, all)?)
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
    fn a_list_names_each_gpu_once_and_in_its_order() {
        let all = [gpu(0, "0000:01:00"), gpu(1, "0000:c1:00"), gpu(2, "0000:c2:00")];
        let chosen = |text: &str| -> Vec<u32> {
            let list: List = text.parse().unwrap();
            list.choose(&all).unwrap().iter().map(|g| g.index).collect()
        };
        assert_eq!(chosen("all"), [0, 1, 2]);
        assert_eq!(chosen("2, 0000:01:00,2"), [2, 0]);
        assert_eq!("1,0".parse::<List>().unwrap().first(), Choice::Index(1));
        assert_eq!(List::All.first(), Choice::First);
    }

    #[test]
    fn rejects_a_list_with_a_gpu_that_is_not_there_or_no_gpu() {
        let all = [gpu(0, "0000:01:00")];
        let why = "0,5".parse::<List>().unwrap().choose(&all).unwrap_err();
        assert!(why.to_string().contains("GPU 5 is not there"), "{why}");
        assert!(
            List::All
                .choose(&[])
                .unwrap_err()
                .to_string()
                .contains("--device cpu")
        );
        for bad in ["", "0,", "all,0", "x"] {
            assert!(bad.parse::<List>().is_err(), "{bad}");
        }
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
