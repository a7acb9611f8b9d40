//! What is laid over the file's sections: `BITAI_SECTION_KEY` from the environment, then `--set section.key=value`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{
    file::{File, unknown_key},
    settings::{self, Source},
};
use crate::exit::Failure;

/// Environment and flags for the keys of sections.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    env: Vec<(String, String)>,
    set: Vec<String>,
}

/// One key of a section, and where its value comes from.
struct Over {
    section: String,
    key: String,
    text: String,
    /// What errors name.
    named: String,
}

impl Overrides {
    /// The process's environment and what `--set` was given.
    pub fn of_process(set: &[String]) -> Self {
        let env =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Self::new(env.collect(), set)
    }

    /// Given ones.
    pub(super) fn new(mut env: Vec<(String, String)>, set: &[String]) -> Self {
        env.retain(|(k, _)| k.starts_with(settings::ENV));
        env.sort();
        Self {
            env,
            set: set.to_vec(),
        }
    }

    /// Variables of ours that no setting reads, each with the one that was meant, where there is one like it.
    pub(super) fn strangers(&self, file: &File) -> Vec<(String, Option<String>)> {
        let mut known: Vec<String> = settings::all(file)
            .into_iter()
            .map(|(key, _)| settings::env(&key))
            .collect();
        known.extend(settings::ELSEWHERE.map(str::to_owned));
        let names: Vec<&str> = known.iter().map(String::as_str).collect();
        let lower: Vec<String> = known.iter().map(|k| k.to_lowercase()).collect();
        let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
        self.env
            .iter()
            .filter(|(k, _)| !names.contains(&k.as_str()))
            .map(|(k, _)| (k.clone(), super::file::nearest(k, &lower).map(str::to_uppercase)))
            .collect()
    }

    /// Which keys of sections are laid over, as `section.key`, and from where.
    pub(super) fn sources(&self, file: &File) -> BTreeMap<String, Source> {
        let env = self.by_env(file).into_iter().map(|o| (o, Source::Environment));
        let set = self
            .by_set(file)
            .unwrap_or_default()
            .into_iter()
            .map(|o| (o, Source::Flag));
        env.chain(set)
            .map(|(o, s)| (format!("{}.{}", o.section, o.key), s))
            .collect()
    }

    fn by_env(&self, file: &File) -> Vec<Over> {
        let own: Vec<String> = settings::SETTINGS.iter().map(|s| settings::env(s.key)).collect();
        let mut found = Vec::new();
        for (name, text) in self.env.iter().filter(|(k, _)| !own.contains(k)) {
            let rest = name.trim_start_matches(settings::ENV).to_lowercase();
            for (section, _) in file.sections() {
                if let Some(key) = rest.strip_prefix(section).and_then(|r| r.strip_prefix('_')) {
                    found.push(Over {
                        section: section.into(),
                        key: key.into(),
                        text: text.clone(),
                        named: name.clone(),
                    });
                }
            }
        }
        found
    }

    fn by_set(&self, file: &File) -> Result<Vec<Over>, Failure> {
        let sections = file.sections();
        let split = |text: &String| {
            let (path, value) = text.split_once('=')?;
            let (section, key) = path.trim().split_once('.')?;
            Some(Over {
                section: section.into(),
                key: key.into(),
                text: value.trim().into(),
                named: format!("--set {}", path.trim()),
            })
        };
        let mut found = Vec::new();
        for text in &self.set {
            let over = split(text).ok_or_else(|| {
                Failure::Usage(format!(
                    "--set `{text}`: write section.key=value; keys outside sections have flags of their own"
                ))
            })?;
            if !sections.iter().any(|(name, _)| *name == over.section) {
                let names: Vec<&str> = sections.iter().map(|(n, _)| *n).collect();
                return Err(Failure::Usage(format!(
                    "--set `{text}`: no section `{}`; there are: {}",
                    over.section,
                    names.join(", ")
                )));
            }
            found.push(over);
        }
        Ok(found)
    }

    /// Lays them over the file's table: environment, then flags.
    pub(super) fn apply(&self, file: &File, mut table: toml::Table) -> Result<(File, toml::Table), Failure> {
        let mut file = file.clone();
        let over: Vec<Over> = self
            .by_env(&file)
            .into_iter()
            .chain(self.by_set(&file)?)
            .collect();
        for over in over {
            (file, table) = lay(&file, &table, &over)?;
        }
        Ok((file, table))
    }
}

fn lay(file: &File, table: &toml::Table, over: &Over) -> Result<(File, toml::Table), Failure> {
    let default = file.sections().into_iter().find(|(n, _)| *n == over.section);
    let default = default
        .and_then(|(_, v)| v.get(&over.key).cloned())
        .unwrap_or_default();
    let mut first = None;
    for value in readings(&over.text, &default) {
        let mut table = table.clone();
        let section = table
            .entry(over.section.clone())
            .or_insert_with(|| toml::Table::new().into());
        let Some(section) = section.as_table_mut() else {
            first.get_or_insert(format!(
                "config.toml gives `{0}` as a value; write it as a section: [{0}]",
                over.section
            ));
            break;
        };
        section.insert(over.key.clone(), value);
        match File::deserialize(table.clone()) {
            Ok(file) => return Ok((file, table)),
            Err(e) => {
                first.get_or_insert(unknown_key(e.message()).unwrap_or_else(|| e.message().to_owned()));
            }
        }
    }
    Err(Failure::Config {
        path: over.named.clone().into(),
        why: first.unwrap_or_default(),
    })
}

/// What a text outside a TOML file can mean, the likeliest first: no quotes are needed around a string.
fn readings(text: &str, default: &Value) -> Vec<toml::Value> {
    let string = toml::Value::from(text);
    if default.is_string() {
        return vec![string];
    }
    let parsed = toml::from_str::<toml::Table>(&format!("v = {text}"))
        .ok()
        .and_then(|mut t| t.remove("v"));
    let list = || toml::Value::Array(text.split(',').map(|p| p.trim().into()).collect());
    let mut found: Vec<_> = parsed.into_iter().chain([string]).collect();
    if default.is_array() && !text.trim_start().starts_with('[') {
        found.insert(0, list());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(env: &[(&str, &str)], set: &[&str]) -> Overrides {
        let env = env
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Overrides::new(env, &set.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
    }

    fn applied(o: &Overrides) -> Result<File, Failure> {
        let table: toml::Table = "[models]\nkeep_free_mib = 1".parse().unwrap();
        let file = File::deserialize(table.clone()).unwrap();
        o.apply(&file, table).map(|(file, _)| file)
    }

    #[test]
    fn flag_beats_environment_beats_file_inside_sections() {
        let keep = |o| applied(&o).unwrap().models.keep_free_mib;
        let env = [("BITAI_MODELS_KEEP_FREE_MIB", "2")];
        assert_eq!(keep(over(&[], &[])), 1);
        assert_eq!(keep(over(&env, &[])), 2);
        assert_eq!(keep(over(&env, &["models.keep_free_mib=3"])), 3);
        let o = over(&env, &["models.hub_url=http://127.0.0.1:1"]);
        assert_eq!(applied(&o).unwrap().models.hub_url, "http://127.0.0.1:1");
        let sources = o.sources(&applied(&o).unwrap());
        assert_eq!(sources["models.keep_free_mib"], Source::Environment);
        assert_eq!(sources["models.hub_url"], Source::Flag);
    }

    #[test]
    fn rejects_unknown_keys_of_sections_wherever_they_come_from() {
        let why = |o| applied(&o).unwrap_err().to_string();
        let env = why(over(&[("BITAI_MODELS_KEEP_FREE", "2")], &[]));
        assert!(
            env.contains("BITAI_MODELS_KEEP_FREE: ") && env.contains("`keep_free_mib`?"),
            "{env}"
        );
        assert!(why(over(&[], &["models.hub=x"])).contains("`hub_url`?"));
        assert!(why(over(&[], &["nope.hub=x"])).contains("no section `nope`"));
        assert!(why(over(&[], &["ask_in=5"])).contains("section.key=value"));
        assert!(why(over(&[], &["models.keep_free_mib=many"])).contains("--set models.keep_free_mib"));
    }

    #[test]
    fn a_variable_that_nothing_reads_is_told_with_the_nearest() {
        let o = over(&[("BITAI_NODES", "x"), ("BITAI_NODE", "y"), ("HOME", "z")], &[]);
        assert_eq!(
            o.strangers(&File::default()),
            [("BITAI_NODES".to_owned(), Some("BITAI_NODE".to_owned()))]
        );
    }
}
