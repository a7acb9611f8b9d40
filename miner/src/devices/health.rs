//! The figures that a driver gives of its GPUs, beside the work: power, temperature, clocks.

use super::Reading;

/// One GPU's figures at one moment. What the driver does not give is absent, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Bytes of memory in use.
    pub memory_used: Option<u64>,
    /// Bytes of memory.
    pub memory_total: Option<u64>,
    /// Power drawn, in milliwatts.
    pub milliwatts: Option<u32>,
    /// Power limit in force, in milliwatts.
    pub limit_milliwatts: Option<u32>,
    /// Temperature of the chip, in degrees Celsius.
    pub temperature: Option<u32>,
    /// Per cent of the time that it computed.
    pub busy_percent: Option<u32>,
    /// Clock of the processors, in MHz.
    pub core_mhz: Option<u32>,
    /// Clock of the memory, in MHz.
    pub memory_mhz: Option<u32>,
    /// Fan speed in per cent.
    pub fan_percent: Option<u32>,
}

impl Figures {
    /// Writes them into a reading.
    pub(super) fn put(&self, reading: &mut Reading) {
        reading.memory_used = self.memory_used;
        reading.memory_total = self.memory_total.or(reading.memory_total);
        reading.milliwatts = self.milliwatts;
        reading.limit_milliwatts = self.limit_milliwatts;
        reading.temperature = self.temperature;
        reading.busy_percent = self.busy_percent;
        reading.core_mhz = self.core_mhz;
        reading.memory_mhz = self.memory_mhz;
        reading.fan_percent = self.fan_percent;
    }
}

/// Where figures come from.
pub trait Health: Send {
    /// The figures of the GPU at a PCI address (`0000:01:00`); the error is the driver's words.
    fn read(&mut self, pci: &str) -> Result<Figures, String>;

    /// Sets a GPU's power limit, in milliwatts; the error says who may.
    fn limit(&mut self, pci: &str, milliwatts: u32) -> Result<(), String>;
}
