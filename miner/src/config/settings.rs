//! The table of settings: one name each, from which follow the key in `config.toml`, the flag and the variable.

use serde::Serialize;

use super::file::File;

/// How the variables of ours begin.
pub(super) const ENV: &str = "BITAI_";

/// Variables that are read, and have no key in the file: it lies in the data directory; the others belong to the
/// project's own programs and tests.
pub(super) const ELSEWHERE: [&str; 2] = ["BITAI_DATA_DIR", "BITAI_REQUIRE_MODEL"];

/// Where a value comes from, the strongest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// What a devnet on the same data directory wrote about itself.
    Devnet,
    /// `config.toml`.
    File,
    /// A `BITAI_...` variable.
    Environment,
    /// The command line.
    Flag,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Default => "default",
            Self::Devnet => "devnet file",
            Self::File => "config.toml",
            Self::Environment => "environment",
            Self::Flag => "flag",
        })
    }
}

/// A setting outside the sections.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its key in `config.toml`.
    pub key: &'static str,
    /// Whether a running neuron takes a change of the file.
    pub live: bool,
}

const fn fixed(key: &'static str) -> Setting {
    Setting { key, live: false }
}

const fn live(key: &'static str) -> Setting {
    Setting { key, live: true }
}

/// All of them, in the order in which `config` prints them.
pub const SETTINGS: [Setting; 18] = [
    fixed("node"),
    fixed("chain_id"),
    fixed("hub"),
    fixed("registry"),
    fixed("keystore"),
    fixed("password_file"),
    fixed("device"),
    fixed("threads"),
    fixed("gpu"),
    live("ask_job"),
    live("ask_in"),
    live("ask_out"),
    fixed("model"),
    fixed("stake"),
    fixed("keep_offers"),
    fixed("batch_wait"),
    live("log"),
    fixed("log_json"),
];

/// The variable of a key, `section.key` included.
pub fn env(key: &str) -> String {
    format!("{ENV}{}", key.replace('.', "_").to_uppercase())
}

/// The flag of a key.
pub fn flag(key: &str) -> String {
    if key.contains('.') {
        format!("--set {key}=VALUE")
    } else {
        format!("--{}", key.replace('_', "-"))
    }
}

/// Every key, those of sections as `section.key`, and whether it is live.
pub(super) fn all(file: &File) -> Vec<(String, bool)> {
    let mut keys: Vec<_> = SETTINGS.iter().map(|s| (s.key.to_owned(), s.live)).collect();
    for (section, values) in file.sections() {
        let names = values.as_object().into_iter().flat_map(|o| o.keys());
        keys.extend(names.map(|key| (format!("{section}.{key}"), false)));
    }
    keys
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_setting_has_a_key_a_flag_and_a_variable() {
        let mut cli = Cli::command();
        cli.build();
        let config = cli.find_subcommand("config").unwrap();
        for setting in &SETTINGS {
            let key = setting.key;
            let arg = config.get_arguments().find(|a| a.get_id() == key);
            let arg = arg.unwrap_or_else(|| panic!("`config` has no flag for {key}"));
            assert_eq!(format!("--{}", arg.get_long().unwrap()), flag(key));
            assert_eq!(
                arg.get_env().map(|e| e.to_str().unwrap()),
                Some(env(key).as_str()),
                "{key}"
            );
            // A table is no value of any of these keys: the key is known where that is what is complained about.
            let table = format!("{key} = {{ x = 1 }}");
            let e = toml::from_str::<File>(&table).unwrap_err();
            assert!(!e.message().contains("unknown field `"), "{key}: {e}");
        }
        // And none is left out: `config` has these flags, and a few of its own.
        let own = ["check", "json", "data_dir", "set", "help"];
        for arg in config.get_arguments() {
            let id = arg.get_id().as_str();
            assert!(own.contains(&id) || SETTINGS.iter().any(|s| s.key == id), "{id}");
        }
    }
}
