//! Downloads that go on where they stopped: `Range` with `If-Range`, so that a file that has changed meanwhile starts
//! again, and SHA-256 over every byte on disk.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{
    Client, Response, StatusCode, Url,
    header::{ACCEPT, CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, LAST_MODIFIED, LOCATION, RANGE},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    datadir::{make_dir, write_atomic},
    exit::Failure,
    progress, space,
};

/// Longest that a connection, and the pause between two pieces of an answer, may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Redirects that are followed.
const HOPS: u32 = 10;
/// Attempts without a new byte before a download is given up.
const TRIES: u32 = 4;
/// Largest answer that is read as text.
const TEXT_MAX: usize = 32 << 20;

/// Free bytes where a path lies; tests put a full disk in its place.
pub(super) type Space = fn(&Path) -> Result<u64, Failure>;

/// A client for downloads.
pub(super) struct Http {
    client: Client,
    space: Space,
    /// Bytes that stay free.
    keep_free: u64,
    /// Pause before an attempt that follows a failed one.
    pause: Duration,
}

/// What is known of a file that is partly here.
#[derive(Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
struct Part {
    url: String,
    /// Strong validator of the bytes that are here.
    validator: Option<String>,
}

/// A whole file.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) sha256: String,
    pub(super) bytes: u64,
}

/// One answer, after its redirects.
struct Answer {
    response: Response,
    /// SHA-256 that a hub's redirect names.
    linked: Option<String>,
}

/// How an attempt ended that did not end the download.
enum Broken {
    /// Worth another attempt.
    Again(String),
    /// Not.
    Ended(Failure),
}

fn failed(url: &Url, why: impl std::fmt::Display) -> Failure {
    Failure::Download {
        url: shown(url),
        why: why.to_string(),
    }
}

/// A URL without what may be a secret in it.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Neither can fail on an http URL, and one that it fails on is shown as it is.
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.set_query(None);
    url.to_string()
}

/// The innermost reason of an error.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn text_of(headers: &HeaderMap, name: impl reqwest::header::AsHeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// What names the bytes of an answer exactly: a strong ETag, else when they last changed.
fn validator(headers: &HeaderMap) -> Option<String> {
    let etag = text_of(headers, ETAG).filter(|e| !e.starts_with("W/"));
    etag.or_else(|| text_of(headers, LAST_MODIFIED))
        .map(str::to_owned)
}

impl Http {
    pub(super) fn new(keep_free: u64) -> Result<Self, Failure> {
        Self::with(keep_free, space::free, Duration::from_secs(1))
    }

    pub(super) fn with(keep_free: u64, space: Space, pause: Duration) -> Result<Self, Failure> {
        let client = Client::builder()
            .connect_timeout(PATIENCE)
            .read_timeout(PATIENCE)
            // Followed here: a hub names the file's hash in the redirect.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| Failure::Internal(anyhow::Error::new(e).context("HTTP client")))?;
        Ok(Self {
            client,
            space,
            keep_free,
            pause,
        })
    }

    /// Refuses what would not leave enough of the disk free.
    pub(super) fn check_space(&self, at: &Path, need: u64) -> Result<(), Failure> {
        let free = (self.space)(at)?;
        if need.saturating_add(self.keep_free) > free {
            return Err(Failure::Space {
                path: at.into(),
                need,
                free,
                keep: self.keep_free,
            });
        }
        Ok(())
    }

    async fn ask(&self, url: &Url, headers: HeaderMap) -> Result<Answer, Broken> {
        let mut at = url.clone();
        let mut linked = None;
        for _ in 0..HOPS {
            let response = self
                .client
                .get(at.clone())
                .headers(headers.clone())
                .send()
                .await
                .map_err(|e| Broken::Again(reason(&e)))?;
            if let Some(hash) = text_of(response.headers(), "x-linked-etag") {
                linked = Some(hash.trim_matches('"').to_owned());
            }
            if !response.status().is_redirection() {
                return Ok(Answer { response, linked });
            }
            let next = text_of(response.headers(), LOCATION).and_then(|to| at.join(to).ok());
            let next = next.ok_or_else(|| Broken::Ended(failed(&at, "it redirects to nowhere")))?;
            if at.scheme() == "https" && next.scheme() != "https" {
                return Err(Broken::Ended(failed(
                    &at,
                    format!("it redirects to {}, which is not encrypted", shown(&next)),
                )));
            }
            at = next;
        }
        Err(Broken::Ended(failed(url, format!("more than {HOPS} redirects"))))
    }

    /// A small answer as text.
    pub(super) async fn text(&self, url: &Url, accept: &str) -> Result<String, Failure> {
        let mut headers = HeaderMap::new();
        if let Ok(accept) = accept.parse() {
            headers.insert(ACCEPT, accept);
        }
        let answer = self.ask(url, headers).await.map_err(|b| b.failure(url))?;
        let mut response = answer.response;
        if !response.status().is_success() {
            return Err(refused(url, response.status()));
        }
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|e| failed(url, reason(&e)))? {
            bytes.extend_from_slice(&piece);
            if bytes.len() > TEXT_MAX {
                return Err(failed(
                    url,
                    format!("the answer is longer than {} MiB", TEXT_MAX >> 20),
                ));
            }
        }
        String::from_utf8(bytes).map_err(|_| failed(url, "the answer is no text"))
    }

    /// Downloads a file to `target`, from where an earlier attempt stopped. `sha256` is what it must hash to, where
    /// that is known. `room` says how many times the file's bytes will be needed beside it on the same disk.
    pub(super) async fn file(
        &self,
        url: &Url,
        target: &Path,
        sha256: Option<&str>,
        room: u64,
    ) -> Result<Got, Failure> {
        let part = Partial::at(target);
        if let Some(dir) = target.parent() {
            make_dir(dir)?;
        }
        let bar = progress::bar(0, "downloading");
        // The most that was ever here: a server without ranges starts again each time, which alone is no progress.
        let (mut most, mut tries) = (part.len(), 0);
        let mut linked = None;
        let ended = loop {
            match self.attempt(url, &part, room, &bar, &mut linked).await {
                Ok(()) => break Ok(()),
                Err(Broken::Ended(failure)) => break Err(failure),
                Err(Broken::Again(why)) => {
                    tries = if part.len() > most { 1 } else { tries + 1 };
                    most = most.max(part.len());
                    if tries >= TRIES {
                        let on = match part.len() {
                            0 => String::new(),
                            here => format!("; {here} bytes are here: the same command goes on from there"),
                        };
                        break Err(failed(url, format!("{why}{on}")));
                    }
                    tracing::warn!("{}: {why}; trying again", shown(url));
                    tokio::time::sleep(self.pause).await;
                }
            }
        };
        bar.finish_and_clear();
        ended?;
        let got = hash_file(&part.bytes)?;
        let linked = linked.filter(|h: &String| h.len() == 64);
        if let Some(want) = sha256.or(linked.as_deref())
            && !got.sha256.eq_ignore_ascii_case(want)
        {
            part.forget();
            return Err(Failure::Checksum {
                url: shown(url),
                got: got.sha256,
                want: want.to_owned(),
            });
        }
        fs::rename(&part.bytes, target).map_err(|e| Failure::disk(target, e))?;
        part.forget();
        Ok(got)
    }

    async fn attempt(
        &self,
        url: &Url,
        part: &Partial,
        room: u64,
        bar: &indicatif::ProgressBar,
        linked: &mut Option<String>,
    ) -> Result<(), Broken> {
        let known = part.known(url);
        let have = if known.is_some() { part.len() } else { 0 };
        let mut headers = HeaderMap::new();
        if have > 0
            && let Some(validator) = known.and_then(|v| v.parse().ok())
        {
            headers.insert(IF_RANGE, validator);
            if let Ok(range) = format!("bytes={have}-").parse() {
                headers.insert(RANGE, range);
            }
        }
        let answer = self.ask(url, headers).await?;
        *linked = answer.linked.or(linked.take());
        let mut response = answer.response;
        let status = response.status();
        let from = match status {
            StatusCode::PARTIAL_CONTENT => {
                let range = text_of(response.headers(), CONTENT_RANGE)
                    .unwrap_or_default()
                    .to_owned();
                if !range.starts_with(&format!("bytes {have}-")) {
                    part.forget();
                    return Err(Broken::Again(format!(
                        "asked for the bytes from {have}, it sent `{range}`"
                    )));
                }
                have
            }
            StatusCode::OK => 0,
            StatusCode::RANGE_NOT_SATISFIABLE => {
                part.forget();
                return Err(Broken::Again(
                    "what is here does not fit what is there; starting again".into(),
                ));
            }
            s if s.is_server_error() || s == StatusCode::TOO_MANY_REQUESTS => {
                return Err(Broken::Again(format!("the server answers {s}")));
            }
            s => return Err(Broken::Ended(refused(url, s))),
        };
        let left = response.content_length();
        let all = left.map(|left| left.saturating_add(from));
        let need = left
            .unwrap_or(0)
            .saturating_add(all.unwrap_or(0).saturating_mul(room));
        self.check_space(&part.bytes, need).map_err(Broken::Ended)?;
        bar.set_length(all.unwrap_or(0));
        let mut file = part.open(url, &response, from).map_err(Broken::Ended)?;
        let mut done = from;
        loop {
            match response.chunk().await {
                Ok(Some(piece)) => {
                    file.write_all(&piece)
                        .map_err(|e| Broken::Ended(Failure::disk(&part.bytes, e)))?;
                    done += piece.len() as u64;
                    bar.set_position(done);
                }
                Ok(None) => break,
                Err(e) => return Err(Broken::Again(format!("it broke off: {}", reason(&e)))),
            }
        }
        match all {
            Some(all) if done != all => {
                Err(Broken::Again(format!("it broke off after {done} of {all} bytes")))
            }
            _ => Ok(()),
        }
    }
}

impl Broken {
    fn failure(self, url: &Url) -> Failure {
        match self {
            Self::Again(why) => failed(url, why),
            Self::Ended(failure) => failure,
        }
    }
}

fn refused(url: &Url, status: StatusCode) -> Failure {
    let mend = match status {
        StatusCode::NOT_FOUND => "; there is no such file: check the name",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "; it wants a login or the owner's licence accepted: fetch it with a browser, then models import FILE"
        }
        _ => "",
    };
    failed(url, format!("the server answers {status}{mend}"))
}

/// A file that is partly here: its bytes, and beside them what they are.
struct Partial {
    bytes: PathBuf,
    about: PathBuf,
}

impl Partial {
    fn at(target: &Path) -> Self {
        let beside = |end: &str| {
            let mut name = target.file_name().unwrap_or_default().to_owned();
            name.push(end);
            target.with_file_name(name)
        };
        Self {
            bytes: beside(".part"),
            about: beside(".part.json"),
        }
    }

    fn len(&self) -> u64 {
        fs::metadata(&self.bytes).map_or(0, |m| m.len())
    }

    /// The validator of the bytes that are here, if they are of this URL and have one.
    fn known(&self, url: &Url) -> Option<String> {
        let part: Part = serde_json::from_slice(&fs::read(&self.about).ok()?).ok()?;
        if part.url == shown(url) {
            part.validator
        } else {
            None
        }
    }

    fn open(&self, url: &Url, response: &Response, from: u64) -> Result<File, Failure> {
        if from == 0 {
            let about = Part {
                url: shown(url),
                validator: validator(response.headers()),
            };
            let json = serde_json::to_vec(&about).map_err(|e| Failure::disk(&self.about, e))?;
            // The bytes of another file must not be taken for those of this one, whenever the machine stops.
            self.forget();
            write_atomic(&self.about, &json, 0o644)?;
        }
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.bytes)
            .map_err(|e| Failure::disk(&self.bytes, e))
    }

    /// Throws away what is here; that it is gone already is fine.
    fn forget(&self) {
        let _ = fs::remove_file(&self.about);
        let _ = fs::remove_file(&self.bytes);
    }
}

/// Hashes a file, after seeing to it that it is on the disk.
pub(super) fn hash_file(path: &Path) -> Result<Got, Failure> {
    let io = |e| Failure::disk(path, e);
    let mut file = File::open(path).map_err(io)?;
    file.sync_all().map_err(io)?;
    let (mut hash, mut bytes) = (Sha256::new(), 0u64);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(io)? {
            0 => break,
            n => {
                hash.update(&buffer[..n]);
                bytes += n as u64;
            }
        }
    }
    Ok(Got {
        sha256: hex::encode(hash.finalize()),
        bytes,
    })
}
