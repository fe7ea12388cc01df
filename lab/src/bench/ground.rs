//! Where the benches' folders lie: below TMPDIR, until all benches are over.
//!
//! Nothing is removed before. For five minutes ext4 passes over the inode of a removed file, and looks at each of them again
//! for every file that is created (fs/ext4/ialloc.c, `recently_deleted`): after the removal of a hundred thousand files,
//! each new one took 0.3 ms, and the bench measured only that.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use tempfile::TempDir;

static GROUND: Mutex<Option<TempDir>> = Mutex::new(None);

/// A new, empty folder.
pub(super) fn folder() -> Result<PathBuf> {
    let mut ground = GROUND.lock().unwrap_or_else(PoisonError::into_inner);
    let ground = match &mut *ground {
        Some(ground) => ground,
        none => none.insert(made("heirlock-bench-", &std::env::temp_dir())?),
    };
    Ok(made("", ground.path())?.keep())
}

/// Removes all of them.
pub(super) fn clear() {
    drop(GROUND.lock().unwrap_or_else(PoisonError::into_inner).take());
}

fn made(prefix: &str, place: &std::path::Path) -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(place)?;
    // Programs that drop their privileges must get through.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}
