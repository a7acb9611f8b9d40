//! Figures of NVIDIA GPUs from NVML, the library that comes with the driver; found at run time, and missed without harm.

use nvml_wrapper::{
    Device, Nvml,
    enum_wrappers::device::{Clock, TemperatureSensor},
    error::NvmlError,
};

use super::health::{Figures, Health};

/// NVML, open.
pub struct FromNvml(Nvml);

impl FromNvml {
    /// Opens it, or says in the driver's words why it cannot be had.
    pub fn open() -> Result<Self, String> {
        Nvml::init().map(Self).map_err(|e| e.to_string())
    }

    fn device(&self, pci: &str) -> Result<Device<'_>, String> {
        self.0
            .device_by_pci_bus_id(bus_id(pci))
            .map_err(|e| e.to_string())
    }
}

/// CUDA's domain:bus:device as NVML names it: with the function, which is 0 on every GPU.
fn bus_id(pci: &str) -> String {
    format!("{pci}.0")
}

/// A figure that this GPU does not have is absent; an error of the library itself is one of all figures.
fn figure<T>(of: Result<T, NvmlError>) -> Result<Option<T>, String> {
    match of {
        Ok(value) => Ok(Some(value)),
        Err(e @ (NvmlError::GpuLost | NvmlError::Uninitialized | NvmlError::DriverNotLoaded)) => {
            Err(e.to_string())
        }
        Err(_) => Ok(None),
    }
}

impl Health for FromNvml {
    fn read(&mut self, pci: &str) -> Result<Figures, String> {
        let gpu = self.device(pci)?;
        let memory = figure(gpu.memory_info())?;
        Ok(Figures {
            memory_used: memory.as_ref().map(|m| m.used),
            memory_total: memory.as_ref().map(|m| m.total),
            milliwatts: figure(gpu.power_usage())?,
            limit_milliwatts: figure(gpu.enforced_power_limit())?,
            temperature: figure(gpu.temperature(TemperatureSensor::Gpu))?,
            busy_percent: figure(gpu.utilization_rates())?.map(|u| u.gpu),
            core_mhz: figure(gpu.clock_info(Clock::SM))?,
            memory_mhz: figure(gpu.clock_info(Clock::Memory))?,
            fan_percent: figure(gpu.fan_speed(0))?,
        })
    }

    fn limit(&mut self, pci: &str, milliwatts: u32) -> Result<(), String> {
        let mut gpu = self.device(pci)?;
        gpu.set_power_management_limit(milliwatts).map_err(|e| match e {
            NvmlError::NoPermission => format!(
                "only root may set it; as root: nvidia-smi -i {} -pl {}",
                bus_id(pci),
                milliwatts / 1000
            ),
            e => e.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_named_as_nvml_names_it() {
        assert_eq!(bus_id("0000:c1:00"), "0000:c1:00.0");
    }

    #[test]
    fn what_a_gpu_does_not_have_is_absent_and_never_zero() {
        assert_eq!(figure::<u32>(Err(NvmlError::NotSupported)), Ok(None));
        assert_eq!(figure(Ok(7)), Ok(Some(7)));
        assert!(figure::<u32>(Err(NvmlError::GpuLost)).is_err());
    }
}
