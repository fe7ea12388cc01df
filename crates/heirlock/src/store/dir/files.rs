//! How single files and folders of the store come to be, and how they are found.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use heirlock_core::Generation;
use heirlock_core::log_limit::Source;

use super::{DirStore, FileError, failed};
use crate::from_elsewhere;
use crate::limits::STORE_FILE_BYTES_MAX;

/// The beginning of the names of entries that were moved aside.
pub(super) const ASIDE: &str = ".aside.";

impl DirStore {
    pub(super) fn read(&self, path: &Path) -> Result<Vec<u8>, FileError> {
        self.disk().read(path, STORE_FILE_BYTES_MAX).map_err(failed("read", path))
    }

    /// The file, or `None` where there is none.
    pub(super) fn read_if(&self, path: &Path) -> Result<Option<Vec<u8>>, FileError> {
        self.read_up_to(path, STORE_FILE_BYTES_MAX)
    }

    /// The same of a file that is no longer than this.
    pub(super) fn read_up_to(&self, path: &Path, max: usize) -> Result<Option<Vec<u8>>, FileError> {
        match self.disk().read(path, max) {
            Ok(bytes) => Ok(Some(bytes)),
            // The volume may have gone since the call began.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.enter().map(|()| None),
            Err(error) => Err(failed("read", path)(error)),
        }
    }

    /// The names in a folder that are text; unfinished ones are left out.
    pub(super) fn list(&self, path: &Path) -> Result<Vec<String>, FileError> {
        let names = self.disk().list(path).map_err(failed("list", path))?;
        let mut names: Vec<String> = names
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.sort();
        Ok(names)
    }

    /// The numbers in a folder, falling. A folder that does not exist has none.
    pub(super) fn numbers(&self, path: &Path) -> Result<Vec<Generation>, FileError> {
        let names = match self.list(path) {
            Err(error) if error.is_missing() => {
                return self.enter().map(|()| Vec::new());
            }
            names => names?,
        };
        let number = |name: &String| name.parse().ok().map(Generation).filter(|n| n.to_string() == *name);
        let mut numbers: Vec<Generation> = names.iter().filter_map(number).collect();
        numbers.sort_by(|a, b| b.cmp(a));
        Ok(numbers)
    }

    /// A folder and its name in its parent, durable.
    pub(super) fn make(&self, path: &Path) -> Result<(), FileError> {
        self.disk().make_folder(path).map_err(failed("create", path))?;
        self.sync_parent(path)
    }

    pub(super) fn sync_parent(&self, path: &Path) -> Result<(), FileError> {
        self.sync(path.parent().unwrap_or(&self.root))
    }

    pub(super) fn sync(&self, folder: &Path) -> Result<(), FileError> {
        self.disk().sync_folder(folder).map_err(failed("sync", folder))
    }

    /// A file with these bytes, durable, or the one that was there before.
    pub(super) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
        self.put(path, bytes, true)?;
        self.sync_parent(path)
    }

    /// A file with these bytes or the one that was there before; its name is not durable yet.
    pub(super) fn put(&self, path: &Path, bytes: &[u8], sync: bool) -> Result<(), FileError> {
        let temporary = self.temporary(path.parent().unwrap_or(&self.root));
        let written = self.disk().write(&temporary, bytes, sync).map_err(failed("write", &temporary));
        let put = written.and_then(|()| self.rename(&temporary, path));
        put.inspect_err(|_| self.discard(&[temporary]))
    }

    /// New files, durable.
    pub(super) fn write_all<B: AsRef<[u8]>>(&self, files: &[(PathBuf, B)]) -> Result<(), FileError> {
        if let [(path, bytes)] = files {
            return self.disk().write(path, bytes.as_ref(), true).map_err(failed("write", path));
        }
        let mut batch = self.memory.syncs.batch();
        for (path, bytes) in files {
            let begun = batch.add(path, || self.disk().begin_to_write(path, bytes.as_ref()));
            begun.map_err(failed("write", path))?;
        }
        let mut synced = batch.end().into_iter();
        synced.try_for_each(|(path, synced)| synced.map_err(failed("sync", path)))
    }

    /// A hidden name in this folder that no other process uses, and that was never used: a file that became another one by
    /// link(2) must not be written to again. Shorter than the longest client's name.
    pub(super) fn temporary(&self, folder: &Path) -> PathBuf {
        folder.join(format!(".{}", self.suffix()))
    }

    /// As [`DirStore::temporary`], for a generation: its number can be told from the name.
    pub(super) fn unfinished(&self, service: &Path, generation: Generation) -> PathBuf {
        service.join(format!(".{generation}.{}", self.suffix()))
    }

    fn suffix(&self) -> String {
        format!("{}.{:x}", self.memory.unique, self.memory.temporaries.fetch_add(1, Ordering::Relaxed))
    }

    /// Removes temporary files after a failure: on a full disk they would be in the way of the next attempt.
    pub(super) fn discard(&self, temporaries: &[PathBuf]) {
        for temporary in temporaries {
            // The failure before this one is the one to be told.
            let _ = self.disk().remove(temporary);
        }
    }

    pub(super) fn remove_if(&self, path: &Path) -> Result<(), FileError> {
        match self.disk().remove(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => self.move_aside(path),
            removed => removed.map_err(failed("remove", path)),
        }
    }

    /// Gives a file or a generation its name. An entry of that name that was never made by heirlock gives way: else one folder
    /// that is called as a client would stop every commit of its service.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        match self.disk().rename(from, to) {
            Err(error) if is_in_the_way(&error) && self.is_stray(from, to) => {
                self.move_aside(to)?;
                self.disk().rename(from, to).map_err(failed("rename", to))
            }
            renamed => renamed.map_err(failed("rename", to)),
        }
    }

    /// A file where a folder is to be, or the other way round.
    fn is_stray(&self, from: &Path, to: &Path) -> bool {
        match (self.disk().owner(from), self.disk().owner(to)) {
            (Ok(ours), Ok(there)) => ours.is_folder != there.is_folder,
            _ => false,
        }
    }

    /// Hides an entry that heirlock did not make. Nothing is lost: its text, if it has any, is an administrator's to look at.
    pub(super) fn move_aside(&self, path: &Path) -> Result<(), FileError> {
        let folder = path.parent().unwrap_or(&self.root);
        let aside = folder.join(format!("{ASIDE}{}", self.suffix()));
        self.disk().rename(path, &aside).map_err(failed("move aside", path))?;
        let (path, aside) = (path.display(), aside.display());
        if from_elsewhere::may_say("entry moved aside", Source::Unknown) {
            tracing::error!(%path, %aside, "{path} is none of the store's and was in the way, so it was moved to {aside}; look at it, and remove it");
        }
        self.sync(folder)
    }

    /// Creates a file, unless it exists already: then `false`. Either way it is durable.
    pub(super) fn create_exclusively(&self, path: &Path, bytes: &[u8]) -> Result<bool, FileError> {
        let temporary = self.temporary(path.parent().unwrap_or(&self.root));
        let created = self.link(&temporary, path, bytes);
        // A temporary file that stays is only in the way.
        self.discard(&[temporary]);
        let won = created?;
        self.sync_parent(path)?;
        Ok(won)
    }

    fn link(&self, temporary: &Path, path: &Path, bytes: &[u8]) -> Result<bool, FileError> {
        self.disk().write(temporary, bytes, true).map_err(failed("write", temporary))?;
        match self.disk().link(temporary, path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            // Over a network the answer may be lost although the link was made.
            Err(error) => match self.disk().links(temporary) {
                Ok(2) => Ok(true),
                _ => Err(failed("link", path)(error)),
            },
        }
    }
}

fn is_in_the_way(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory)
}
