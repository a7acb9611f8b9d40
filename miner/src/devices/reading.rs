//! What is known of one device at one moment: who it is, what it does, and the figures its driver gives.
//!
//! A figure that the driver does not give is absent, never zero.

use serde::Serialize;

/// One device at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// Stable name: a GPU's PCI address (`0000:01:00`), or `cpu`.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Number of the GPU, as the driver counts.
    pub index: Option<u32>,
    /// What it does.
    pub state: State,
    /// Bytes of its memory in use.
    pub memory_used: Option<u64>,
    /// Bytes of its memory.
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

/// What a device does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum State {
    /// It computes.
    Working,
    /// It is ready, and nothing waits for it.
    Idle,
    /// It takes no jobs until the reason goes away.
    Paused {
        /// Why.
        reason: Pause,
    },
    /// It failed, and is tried again.
    Failed {
        /// What it said.
        why: String,
        /// Seconds until it is tried again.
        again_in: u64,
    },
}

/// Why a device takes no jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Pause {
    /// Its owner asked for it, with these words.
    Asked {
        /// The owner's words; may be empty.
        words: String,
    },
    /// It is hotter than its owner allows.
    Hot {
        /// Degrees Celsius at which it stopped.
        at: u32,
        /// Degrees Celsius at which it goes on.
        resume: u32,
    },
    /// A check of its results found a wrong one.
    Wrong {
        /// The job whose result it was.
        job: String,
    },
}

/// How often what went wrong with one device, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Faults {
    /// Steps that took too long.
    pub hung: u64,
    /// Losses that the driver reported.
    pub lost: u64,
    /// Other failures of the device.
    pub failed: u64,
    /// Jobs refused for want of memory.
    pub no_room: u64,
    /// Stops for heat.
    pub hot: u64,
    /// Times that its driver's figures went away.
    pub unread: u64,
    /// Results computed again on the processor.
    pub checked: u64,
    /// Results that such a check found wrong.
    pub wrong: u64,
}
