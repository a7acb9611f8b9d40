//! `config`: every setting as it is in force, with its source, its flag and its variable.

use std::collections::BTreeMap;

use clap::parser::ValueSource;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Layers, Source,
    settings::{self, env, flag},
};
use crate::{
    cli::{Cli, ConfigArgs},
    datadir::DataDir,
    exit::Failure,
};

/// A setting in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Its key, `section.key` inside a section.
    pub key: String,
    /// Its value; null where there is none.
    pub value: Value,
    /// Where the value comes from.
    pub source: Source,
    /// Its flag.
    pub flag: String,
    /// Its variable.
    pub env: String,
    /// Whether a running neuron takes a change of the file.
    pub live: bool,
}

impl Layers {
    /// Every setting in force under these arguments.
    pub fn shown(&self, cli: &Cli, args: &ConfigArgs) -> Vec<Shown> {
        let values = self.values(cli, args);
        let over = self.over.sources(&self.file);
        settings::all(&self.file)
            .into_iter()
            .map(|(key, live)| Shown {
                value: values.get(&key).cloned().unwrap_or_default(),
                source: over.get(&key).copied().unwrap_or_else(|| self.source(&key, args)),
                flag: flag(&key),
                env: env(&key),
                live,
                key,
            })
            .collect()
    }

    fn source(&self, key: &str, args: &ConfigArgs) -> Source {
        match args.typed.source(key) {
            Some(ValueSource::CommandLine) => return Source::Flag,
            Some(ValueSource::EnvVariable) => return Source::Environment,
            _ => {}
        }
        let in_file = match key.split_once('.') {
            Some((section, key)) => self.table.get(section).is_some_and(|s| s.get(key).is_some()),
            None => self.table.contains_key(key),
        };
        let by_devnet = matches!(key, "node" | "chain_id" | "hub" | "registry");
        if in_file {
            Source::File
        } else if by_devnet && self.devnet_for(&args.chain).is_some() {
            Source::Devnet
        } else {
            Source::Default
        }
    }

    fn values(&self, cli: &Cli, args: &ConfigArgs) -> BTreeMap<String, Value> {
        let chain = self.chain(&args.chain);
        let key = self.key(&args.key, &args.chain, false);
        let device = self.device(&args.device);
        let ask = self.ask(&args.ask);
        let serve = self.serve(&args.serve);
        let wei = |wei: alloy_primitives::U256| wei.to_string();
        let own = json!({
            "node": chain.nodes,
            "chain_id": chain.chain_id,
            "hub": chain.hub,
            "registry": chain.registry,
            "keystore": key.keystore,
            "password_file": key.password_file,
            "device": name(device.kind),
            "threads": device.threads,
            "gpu": self.gpus(&args.device).using.to_string(),
            "ask_job": wei(ask.per_job),
            "ask_in": ask.per_input,
            "ask_out": ask.per_output,
            "model": serve.models,
            "stake": serve.stake.map(wei),
            "keep_offers": serve.keep_offers,
            "batch_wait": serve.batch_wait,
            "log": self.log(cli),
            "log_json": self.log_json(cli),
        });
        let own = own
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.clone(), v.clone()));
        let sections = self.file.sections();
        let inner = sections.iter().flat_map(|(section, values)| {
            let values = values.as_object().into_iter().flatten();
            values.map(move |(key, v)| (format!("{section}.{key}"), veiled(key, v)))
        });
        own.chain(inner).collect()
    }
}

fn name(kind: crate::cli::DeviceKind) -> String {
    use clap::ValueEnum;
    kind.to_possible_value()
        .map_or_else(String::new, |v| v.get_name().to_owned())
}

/// A value as it may be printed: of what a section holds as a secret, only that there is one.
fn veiled(key: &str, value: &Value) -> Value {
    let is_secret = ["token", "secret", "password", "key"]
        .iter()
        .any(|w| key.split('_').any(|part| part == *w));
    if is_secret && !key.ends_with("_file") && words(value) != "-" {
        json!("(set)")
    } else {
        value.clone()
    }
}

/// A value for people, in one line.
fn words(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(s) => s.clone(),
        Value::Array(items) if items.is_empty() => "-".into(),
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Runs `config`.
pub fn run(data: &DataDir, layers: &Layers, cli: &Cli, args: &ConfigArgs) -> Result<(), Failure> {
    let strangers = layers.over.strangers(&layers.file);
    for (name, near) in &strangers {
        match near {
            Some(near) => eprintln!("bitai-miner: nothing reads {name}; did you mean {near}?"),
            None => eprintln!("bitai-miner: nothing reads {name}"),
        }
    }
    let path = data.config();
    if args.check {
        let there = if path.exists() {
            "is sound"
        } else {
            "is not there: defaults"
        };
        println!("{} {there}", path.display());
        return Ok(());
    }
    let shown = layers.shown(cli, args);
    if args.json {
        println!("{}", json!({ "file": path, "settings": shown }));
        return Ok(());
    }
    println!("{:<24} {:<44} {:<12} variable", "key", "value", "source");
    for s in &shown {
        println!("{:<24} {:<44} {:<12} {}", s.key, words(&s.value), s.source, s.env);
    }
    let live: Vec<&str> = shown.iter().filter(|s| s.live).map(|s| s.key.as_str()).collect();
    println!(
        "\nfile: {} (a running neuron takes changes of {})",
        path.display(),
        live.join(", ")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_sections_are_not_printed() {
        let value = json!("sesame");
        assert_eq!(veiled("api_key", &value), json!("(set)"));
        assert_eq!(veiled("token", &value), json!("(set)"));
        assert_eq!(veiled("token", &Value::Null), Value::Null);
        assert_eq!(veiled("api_key_file", &value), value);
        assert_eq!(veiled("max_tokens", &json!(5)), json!(5));
    }
}
