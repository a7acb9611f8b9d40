//! `[monitor]` of config.toml.

use serde::Deserialize;

/// Where a neuron shows itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Address and port; empty = nowhere. Whoever reaches it may read, so only loopback by default.
    pub listen: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9187".into(),
        }
    }
}
