//! `config.toml`: its keys and sections, and errors that name the line and the key that was meant.

use std::path::Path;

use alloy_primitives::{Address, U256};
use serde::{Deserialize, Serialize};

use super::sections::Overrides;
use crate::{cli::DeviceKind, datadir::DataDir, exit::Failure, gpu, models};

/// The configuration file, every key optional. A part with settings of its own has a section: one field here, with a
/// type that derives `Default`, `Serialize` and `Deserialize` with `default, deny_unknown_fields`, and one line in
/// [`File::sections`]. That gives its keys the file, `BITAI_SECTION_KEY`, `--set section.key=value`, their errors and
/// their lines in `config`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// Node URLs, tried in order.
    pub node: Vec<String>,
    /// Chain id to insist on.
    pub chain_id: Option<u64>,
    /// WorkerHub.
    pub hub: Option<Address>,
    /// ModelRegistry.
    pub registry: Option<Address>,
    /// Key name or keystore file.
    pub keystore: Option<String>,
    /// File that holds the password.
    pub password_file: Option<std::path::PathBuf>,
    /// Processor.
    pub device: Option<DeviceKind>,
    /// Threads.
    pub threads: Option<usize>,
    /// `--gpu`.
    pub gpu: Option<gpu::List>,
    /// Wei asked for a job, as a decimal string.
    pub ask_job: Option<U256>,
    /// Wei asked for a prompt id.
    pub ask_in: Option<u64>,
    /// Wei asked for a token of the answer.
    pub ask_out: Option<u64>,
    /// Models to serve.
    pub model: Vec<String>,
    /// Stake up to this much first, in wei, as a decimal string.
    pub stake: Option<U256>,
    /// Whether offers for other models stay.
    pub keep_offers: Option<bool>,
    /// Blocks that an answer waits for others.
    pub batch_wait: Option<u64>,
    /// What to log.
    pub log: Option<String>,
    /// Whether to log as JSON lines.
    pub log_json: Option<bool>,
    /// `[models]`.
    pub models: models::Settings,
    /// `[gpus]`: how GPUs are looked after.
    pub gpus: crate::devices::Gpus,
    /// `[monitor]`: where the neuron shows itself.
    pub monitor: crate::monitor::Settings,
    /// `[gateway]`: the endpoint for programs.
    pub gateway: crate::gateway::Settings,
}

impl File {
    /// The sections as they are in force: a line each.
    pub fn sections(&self) -> Vec<(&'static str, serde_json::Value)> {
        vec![
            ("models", shown(&self.models)),
            ("gpus", shown(&self.gpus)),
            ("gateway", shown(&self.gateway)),
        ]
    }
}

fn shown(section: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(section).unwrap_or_default()
}

/// What a devnet writes for the miners of its data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevnetChain {
    /// Node URL.
    pub node: String,
    /// Chain id.
    pub chain_id: u64,
    /// WorkerHub.
    pub hub: Address,
    /// ModelRegistry.
    pub registry: Address,
    /// Keystore file of an account with coins.
    pub keystore: String,
    /// Its password file.
    pub password_file: std::path::PathBuf,
}

/// A file's text; none where there is no file.
fn text(path: &Path) -> Result<Option<String>, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::disk(path, e)),
    }
}

/// What a text says, or the line that is wrong.
pub(super) fn parse<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T, Failure> {
    toml::from_str(text).map_err(|e| {
        let line = e
            .span()
            .map(|s| 1 + text[..s.start.min(text.len())].matches('\n').count());
        let why = match (unknown_key(e.message()), line) {
            (Some(why), Some(line)) => format!("line {line}: {why}"),
            _ => e.to_string().trim_end().to_owned(),
        };
        Failure::Config {
            path: path.into(),
            why,
        }
    })
}

/// The devnet's file of a data directory.
pub(super) fn devnet(data: &DataDir) -> Result<Option<DevnetChain>, Failure> {
    let path = data.devnet();
    text(&path)?.map(|text| parse(&path, &text)).transpose()
}

/// The configuration file with what is laid over it; and the keys that are set, as tables.
pub(super) fn config(data: &DataDir, over: &Overrides) -> Result<(File, toml::Table), Failure> {
    let path = data.config();
    let text = text(&path)?.unwrap_or_default();
    let file: File = parse(&path, &text)?;
    let table: toml::Table = parse(&path, &text)?;
    over.apply(&file, table)
}

/// Serde's words about a key that it does not know, turned into ours; `None` for other words.
pub(super) fn unknown_key(message: &str) -> Option<String> {
    let rest = message.strip_prefix("unknown field ")?;
    // Names stand in backticks: the unknown one, then those that there are.
    let mut names = rest.split('`').skip(1).step_by(2);
    let name = names.next()?;
    let known: Vec<&str> = names.collect();
    Some(match nearest(name, &known) {
        Some(near) => format!("unknown key `{name}`; did you mean `{near}`?"),
        None => format!("unknown key `{name}`; there are: {}", known.join(", ")),
    })
}

/// The known name that is most like `name`, if one is.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let name = name.to_lowercase();
    let alike = |k: &str| match k.starts_with(&name) || name.starts_with(k) {
        true => 900,
        false => (1000.0 * strsim::normalized_damerau_levenshtein(&name, k)) as u32,
    };
    known
        .iter()
        .map(|k| (alike(k), *k))
        .filter(|(alike, _)| *alike >= 500)
        .max()
        .map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(text: &str) -> String {
        match parse::<File>(Path::new("config.toml"), text) {
            Err(Failure::Config { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rejects_unknown_keys_naming_line_and_nearest() {
        assert_eq!(
            why("nodes = []"),
            "line 1: unknown key `nodes`; did you mean `node`?"
        );
        assert_eq!(
            why("chain_id = 5\n\nchian_ID = 6"),
            "line 3: unknown key `chian_ID`; did you mean `chain_id`?"
        );
        let far = why("zzzz = 1");
        assert!(
            far.starts_with("line 1: unknown key `zzzz`; there are: node, "),
            "{far}"
        );
    }

    #[test]
    fn rejects_unknown_keys_inside_a_section() {
        let why = why("[models]\nkeep_fre_mib = 5");
        assert_eq!(
            why,
            "line 2: unknown key `keep_fre_mib`; did you mean `keep_free_mib`?"
        );
    }

    #[test]
    fn rejects_values_of_another_type_naming_the_line() {
        let why = why("chain_id = 5\nthreads = \"many\"");
        assert!(why.contains("line 2") && why.contains("threads"), "{why}");
    }
}
