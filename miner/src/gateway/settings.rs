//! Settings of the endpoint: `[gateway]` of config.toml, each overridden by a flag of `serve`.

use std::{net::SocketAddr, path::PathBuf};

use alloy_primitives::U256;
use serde::{Deserialize, Serialize};

use super::settle::Caps;
use crate::{cli::ServeArgs, exit::Failure};

/// `[gateway]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// File of the API key, mode 600; needed off loopback.
    pub api_key_file: Option<PathBuf>,
    /// Models by name or root; none named = all of the data directory.
    pub models: Vec<String>,
    /// Most requests at once, those that wait included; more are refused with 429.
    pub queue: usize,
    /// Most jobs of a model that run side by side.
    pub batch: usize,
    /// Tokens of a chat that names no number.
    pub max_tokens: u32,
    /// Whether answers are posted as paid jobs.
    pub settle: bool,
    /// Most wei that settling may spend in a day (UTC), as a decimal string.
    pub max_spend_day: Option<U256>,
    /// Most wei that it may spend in all, as a decimal string.
    pub max_spend: Option<U256>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8008)),
            api_key_file: None,
            models: Vec::new(),
            queue: 64,
            batch: 8,
            max_tokens: 512,
            settle: false,
            max_spend_day: None,
            max_spend: None,
        }
    }
}

impl Settings {
    /// The same with what was typed.
    pub fn with(self, args: &ServeArgs) -> Result<Self, Failure> {
        let settings = Self {
            listen: args.listen.unwrap_or(self.listen),
            api_key_file: args.api_key_file.clone().or(self.api_key_file),
            models: if args.model.is_empty() {
                self.models
            } else {
                args.model.clone()
            },
            queue: args.queue.unwrap_or(self.queue),
            batch: args.batch.unwrap_or(self.batch),
            max_tokens: args.max_tokens.unwrap_or(self.max_tokens),
            settle: args.settle || self.settle,
            max_spend_day: args.max_spend_day.or(self.max_spend_day),
            max_spend: args.max_spend.or(self.max_spend),
        };
        for (name, value) in [
            ("queue", settings.queue),
            ("batch", settings.batch),
            ("max-tokens", settings.max_tokens as usize),
        ] {
            if value == 0 {
                return Err(Failure::Usage(format!("--{name} must be at least 1")));
            }
        }
        Ok(settings)
    }

    /// What settling may spend.
    pub fn caps(&self) -> Caps {
        Caps {
            day: self.max_spend_day,
            total: self.max_spend,
        }
    }
}
