//! Where things lie on disk, and the only ways of writing there: whole files, atomically, and one lock.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use crate::exit::Failure;

/// The data directory: models/, downloads/, keys/, receipts/, journal/, config.toml.
#[derive(Debug, Clone)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// The given directory, or the user's own (`$XDG_DATA_HOME/bitai`, `~/.local/share/bitai`).
    pub fn resolve(given: Option<PathBuf>) -> Result<Self, Failure> {
        let root = match given {
            Some(dir) => dir,
            None => dirs::data_dir()
                .ok_or_else(|| Failure::Usage("no home directory; name one with --data-dir".into()))?
                .join("bitai"),
        };
        Ok(Self { root })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Model packs.
    pub fn models(&self) -> PathBuf {
        self.root.join("models")
    }

    /// Models on their way.
    pub fn downloads(&self) -> PathBuf {
        self.root.join("downloads")
    }

    /// Encrypted keys.
    pub fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// Receipts of `infer`.
    pub fn receipts(&self) -> PathBuf {
        self.root.join("receipts")
    }

    /// The neuron's journal.
    pub fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// Signed moves of disputes and attestations.
    pub fn moves(&self) -> PathBuf {
        self.root.join("moves")
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// What a devnet on this data directory writes about itself.
    pub fn devnet(&self) -> PathBuf {
        self.root.join("devnet").join("chain.toml")
    }
}

/// Makes a directory and its parents.
pub fn make_dir(dir: &Path) -> Result<(), Failure> {
    fs::create_dir_all(dir).map_err(|e| Failure::disk(dir, e))
}

/// Writes a whole file so that a reader, or a machine that loses power, sees the old or the new one:
/// temporary file beside it, fsync, rename, fsync of the directory. `mode` is the Unix mode.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let dir = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    make_dir(dir)?;
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let temp = dir.join(format!(".{name}.{}.tmp", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        #[cfg(not(unix))]
        let _ = mode;
        let mut file = options.open(&temp)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temp, path)?;
        // A rename is durable only once its directory is.
        File::open(dir)?.sync_all()
    };
    write().map_err(|e| {
        // The half-written file is of no use to anyone; that it may already be gone is fine.
        let _ = fs::remove_file(&temp);
        Failure::disk(path, e)
    })
}

/// Held while a process owns a directory; freed when it drops or the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of `dir`, or says that another process has it.
    pub fn take(dir: &Path) -> Result<Self, Failure> {
        make_dir(dir)?;
        let path = dir.join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| Failure::disk(&path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(fs::TryLockError::WouldBlock) => Err(Failure::Locked { path }),
            Err(fs::TryLockError::Error(e)) => Err(Failure::disk(&path, e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atomic_writes_replace_the_whole_file_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b.json");
        write_atomic(&path, b"first, longer", 0o600).unwrap();
        write_atomic(&path, b"second", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "no temporary file stays"
        );
    }

    #[test]
    fn rejects_a_second_owner_of_the_same_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        assert!(matches!(Lock::take(dir.path()), Err(Failure::Locked { .. })));
        drop(first);
        Lock::take(dir.path()).unwrap();
    }
}
