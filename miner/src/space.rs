//! Free bytes on the disk that a path lies on, or will.

use std::path::Path;

use crate::exit::Failure;

/// Bytes that an ordinary user can still write where `path` lies; a path that is not there counts as its nearest parent.
pub fn free(path: &Path) -> Result<u64, Failure> {
    let here = Path::new(".");
    let there = path.ancestors().find(|p| p.exists()).unwrap_or(here);
    let stat = rustix::fs::statvfs(there).map_err(|e| Failure::disk(there, e))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_there_yet_has_its_parents_space() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free(&dir.path().join("a/b/c")).unwrap() > 0);
    }
}
