//! Logs on standard error, and changing what is logged while a neuron runs.

use std::{io::IsTerminal, sync::OnceLock};

use tracing_subscriber::EnvFilter;

use crate::exit::Failure;

type Change = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// How the filter of this process's logs is changed, once they have begun.
static CHANGE: OnceLock<Change> = OnceLock::new();

fn filter(text: &str) -> Result<EnvFilter, Failure> {
    EnvFilter::try_new(text).map_err(|e| {
        Failure::Usage(format!(
            "log filter `{text}`: {e}; write it as in RUST_LOG: info,bitai_miner=debug"
        ))
    })
}

/// Begins to log. Only the first call of a process counts; a program that embeds this one has its own.
pub fn begin(words: &str, as_json: bool) -> Result<(), Failure> {
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter(words)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let begun = if as_json {
        let logs = logs.json().with_filter_reloading();
        let handle = logs.reload_handle();
        (logs.try_init().is_ok())
            .then(|| -> Change { Box::new(move |f| handle.reload(f).map_err(|e| e.to_string())) })
    } else {
        let logs = logs.with_filter_reloading();
        let handle = logs.reload_handle();
        (logs.try_init().is_ok())
            .then(|| -> Change { Box::new(move |f| handle.reload(f).map_err(|e| e.to_string())) })
    };
    if let Some(change) = begun {
        // Another thread that was first has the logs.
        let _ = CHANGE.set(change);
    }
    Ok(())
}

/// Logs what this filter says from now on.
pub fn change(words: &str) -> Result<(), Failure> {
    let filter = filter(words)?;
    match CHANGE.get() {
        Some(change) => change(filter).map_err(|e| Failure::Internal(anyhow::anyhow!("log filter: {e}"))),
        None => Ok(()),
    }
}
