//! Signed moves, on disk where a seat has a place for them: a process that starts again sends the very bytes that were
//! signed before, in the place of a second transaction that would be paid as well.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use alloy_primitives::Address;
use serde::{Deserialize, Serialize};

use crate::{
    datadir::{DataDir, write_atomic},
    journal::Signed,
};

/// Version of the file.
const VERSION: u32 = 1;

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    moves: BTreeMap<String, Signed>,
}

/// Moves by name.
#[derive(Debug, Default)]
pub(super) struct Moves {
    file: Option<PathBuf>,
    sent: BTreeMap<String, Signed>,
    /// Of a process before: not asked for since.
    old: BTreeSet<String>,
    /// Whether the last writing failed: said once.
    is_unwritten: bool,
}

impl Moves {
    /// Where a seat of an account before a contract keeps its moves.
    pub(super) fn path(data: &DataDir, (seat, at): (&str, Address), chain: u64, who: Address) -> PathBuf {
        data.moves().join(format!("{seat}-{chain}-{at:#x}-{who:#x}.json"))
    }

    /// The moves in a file. What cannot be read is said and begun anew: the chain says which moves are due, and a second
    /// one for the same costs its fee alone.
    pub(super) fn at(file: PathBuf) -> Self {
        let read = match std::fs::read(&file) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(e) => Err(e.to_string()),
            Ok(bytes) => match serde_json::from_slice::<File>(&bytes) {
                Ok(File {
                    version: VERSION,
                    moves,
                }) => Ok(moves),
                Ok(File { version, .. }) => Err(format!("version {version}; this program writes {VERSION}")),
                Err(e) => Err(e.to_string()),
            },
        };
        let sent = read.unwrap_or_else(|why| {
            tracing::warn!(
                file = %file.display(),
                "signed moves cannot be read and are begun anew: {why}. Delete the file if this is said again"
            );
            BTreeMap::new()
        });
        Self {
            old: sent.keys().cloned().collect(),
            file: Some(file),
            sent,
            is_unwritten: false,
        }
    }

    /// A move; it is one of this process from now on.
    pub(super) fn get(&mut self, name: &str) -> Option<Signed> {
        self.old.remove(name);
        self.sent.get(name).cloned()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.sent.contains_key(name)
    }

    /// Whether one of them has this nonce.
    pub(super) fn follows(&self, nonce: u64) -> bool {
        self.sent.values().any(|signed| signed.nonce == nonce)
    }

    /// Puts a move, or takes it away.
    pub(super) fn set(&mut self, name: &str, signed: Option<Signed>) {
        let before = match signed {
            Some(signed) => self.sent.insert(name.to_owned(), signed.clone()) != Some(signed),
            None => self.sent.remove(name).is_some(),
        };
        if before {
            self.write();
        }
    }

    /// Keeps the moves whose names these are.
    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        let before = self.sent.len();
        self.sent.retain(|name, _| keep(name));
        self.old.retain(|name| keep(name));
        if self.sent.len() != before {
            self.write();
        }
    }

    /// Forgets moves of a process before that nothing has asked for: what they were about is over.
    pub(super) fn forget_old(&mut self) {
        let old = std::mem::take(&mut self.old);
        if !old.is_empty() {
            self.retain(|name| !old.contains(name));
        }
    }

    /// A disk that takes nothing keeps nobody from moving: what is lost with it is a fee after the next start.
    fn write(&mut self) {
        let Some(path) = &self.file else { return };
        let file = File {
            version: VERSION,
            moves: self.sent.clone(),
        };
        let bytes = serde_json::to_vec(&file).map_err(|e| e.to_string());
        let written = bytes.and_then(|b| write_atomic(path, &b, 0o600).map_err(|e| e.to_string()));
        if let Err(why) = &written
            && !self.is_unwritten
        {
            tracing::warn!("signed moves are not kept, a restart may pay one twice: {why}");
        }
        self.is_unwritten = written.is_err();
    }
}
