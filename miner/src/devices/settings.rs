//! `[gpus]`: how GPUs are looked after. Which of them are used is the setting `gpu`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::gpu::List;

/// How a neuron uses its GPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Table", into = "Table")]
pub struct Gpus {
    /// Which: the setting `gpu`.
    pub using: List,
    /// Degrees Celsius at which a GPU stops, where its driver gives its temperature.
    pub stop_at: u32,
    /// Degrees Celsius at which it goes on.
    pub resume_at: u32,
    /// Longest that a step may take before the GPU counts as hung.
    pub hang_after: Duration,
    /// Most watts that a GPU may draw; none: as its driver has it.
    pub power_limit_watts: Option<u32>,
    /// Of a hundred results, how many are computed again on the processor.
    pub recheck_percent: u32,
    /// How often GPUs are looked at.
    pub look_every: Duration,
    /// First pause before a GPU that failed is opened again; it doubles each time.
    pub retry_after: Duration,
    /// Longest such pause.
    pub retry_max: Duration,
}

impl Default for Gpus {
    fn default() -> Self {
        Self {
            using: List::All,
            stop_at: 90,
            resume_at: 80,
            hang_after: Duration::from_secs(60),
            power_limit_watts: None,
            recheck_percent: 1,
            look_every: Duration::from_secs(1),
            retry_after: Duration::from_secs(2),
            retry_max: Duration::from_secs(300),
        }
    }
}

/// The section as it is written.
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Table {
    stop_at: u32,
    resume_at: u32,
    hang_after: u64,
    power_limit_watts: Option<u32>,
    recheck_percent: u32,
}

impl Default for Table {
    fn default() -> Self {
        Gpus::default().into()
    }
}

impl From<Gpus> for Table {
    fn from(gpus: Gpus) -> Self {
        Self {
            stop_at: gpus.stop_at,
            resume_at: gpus.resume_at,
            hang_after: gpus.hang_after.as_secs(),
            power_limit_watts: gpus.power_limit_watts,
            recheck_percent: gpus.recheck_percent,
        }
    }
}

impl TryFrom<Table> for Gpus {
    type Error = String;

    fn try_from(t: Table) -> Result<Self, String> {
        if t.resume_at >= t.stop_at {
            return Err(format!(
                "gpus.resume_at is {} and must be below gpu.stop_at, {}",
                t.resume_at, t.stop_at
            ));
        }
        if t.recheck_percent > 100 {
            return Err(format!(
                "gpus.recheck_percent is {} and must be 0 to 100",
                t.recheck_percent
            ));
        }
        if t.hang_after == 0 {
            return Err("gpus.hang_after is 0 and must be at least 1 second".into());
        }
        if t.power_limit_watts == Some(0) {
            return Err("gpus.power_limit_watts is 0; leave it out for no limit of ours".into());
        }
        Ok(Self {
            stop_at: t.stop_at,
            resume_at: t.resume_at,
            hang_after: Duration::from_secs(t.hang_after),
            power_limit_watts: t.power_limit_watts,
            recheck_percent: t.recheck_percent,
            ..Self::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Gpus, String> {
        toml::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_not_said_is_as_it_was() {
        let gpus = read("stop_at = 85\nhang_after = 20").unwrap();
        assert_eq!((gpus.stop_at, gpus.resume_at), (85, 80));
        assert_eq!(gpus.hang_after, Duration::from_secs(20));
        assert_eq!(read("").unwrap(), Gpus::default());
    }

    #[test]
    fn rejects_what_makes_no_sense() {
        for (text, word) in [
            ("stopp_at = 80", "stopp_at"),
            ("stop_at = 80", "resume_at"),
            ("recheck_percent = 101", "recheck_percent"),
            ("hang_after = 0", "hang_after"),
            ("power_limit_watts = 0", "power_limit_watts"),
        ] {
            let why = read(text).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
    }
}
