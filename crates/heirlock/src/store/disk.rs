//! The file operations that the `dir` store is made of. They are a seam for one reason: the tests put a disk under the
//! store that loses what was not synced, tears writes and fails.

#[cfg(test)]
pub(crate) mod faulty;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::FileType;

use crate::files::syncs::Unsynced;
use crate::files::{self, Folder, Links, Listed, Stamp, trusted};
use crate::limits::{STORE_FILE_BYTES_MAX, STORE_FOLDER_NAMES_MAX, STORE_FOLDERS_OPEN_MAX};

/// File operations below one folder. Each is either done or an error; only the `sync` ones make anything durable.
pub(crate) trait Disk: Send + Sync {
    /// The whole file, at most `max` bytes of it; a longer one is an error.
    fn read(&self, path: &Path, max: usize) -> io::Result<Vec<u8>>;
    /// A reader of the files of one folder, which is reached once for all of them.
    fn reader<'a>(&'a self, folder: &Path) -> io::Result<Box<dyn Reader + 'a>>;
    /// The names in a folder.
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;
    /// A folder, mode 0700; one that exists is fine.
    fn make_folder(&self, path: &Path) -> io::Result<()>;
    /// Whether it is a folder, its owner, and whether other users may write to it.
    fn owner(&self, path: &Path) -> io::Result<Owner>;
    /// Takes every right to a folder from all but its owner.
    fn protect(&self, path: &Path) -> io::Result<()>;
    /// A new file, mode 0600, with these bytes; durable if `sync`. A file that exists is never touched: it may be
    /// another name of a file in use.
    fn write(&self, path: &Path, bytes: &[u8], sync: bool) -> io::Result<()>;
    /// The same file, whose bytes are on their way to the disk and not durable yet. It stays open, so that its own sync tells
    /// whether they arrived.
    fn begin_to_write(&self, path: &Path, bytes: &[u8]) -> io::Result<Box<dyn Unsynced>>;
    /// Adds bytes to a file in one write, and makes them durable.
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Atomic; durable after the folder is synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Exclusive, on shared file systems too; durable after the folder is synced.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Two folders, the second of which is to have files of the first.
    fn sharer<'a>(&'a self, from: &Path, to: &Path) -> io::Result<Box<dyn Sharer + 'a>>;
    /// How many names a file has: tells a link whose answer was lost on the way.
    fn links(&self, path: &Path) -> io::Result<u64>;
    /// When a file was last written, in seconds since 1970.
    fn written_at_s(&self, path: &Path) -> io::Result<u64>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder and all in it, or what else has its name.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// The same disk for the length of one call of the store. Each folder is opened once and stays the one that it was, so all
    /// that the call writes lies in the folder that it looked at first. Kept for longer, an open folder would keep its volume
    /// from being unmounted.
    fn for_one_call(&self) -> Box<dyn Disk>;
}

/// The files of one folder.
pub(crate) trait Reader {
    /// The names in the folder, and what its list says of each.
    fn entries(&self) -> io::Result<Vec<(OsString, Listed)>>;
    /// The whole file of this name, as [`Disk::read`] reads it, and its stamp from before it was read. No stamp where the disk
    /// keeps none. `listed` is as [`Self::entries`] said a moment ago, if it was asked.
    fn read(&self, name: &OsStr, listed: Listed, max: usize) -> io::Result<(Vec<u8>, Option<Stamp>)>;
    /// The stamp of the file, which is not opened for that.
    fn stamp(&self, name: &OsStr) -> Option<Stamp>;
}

/// Two folders, the second of which is to have files of the first under the same names.
pub(crate) trait Sharer {
    /// The stamp of the file of this name in the first folder, which is not opened for that. No stamp where the disk keeps none.
    fn stamp(&self, name: &OsStr) -> Option<Stamp>;
    /// As [`Disk::link`]. Says whether the file that has the new name is the one of this stamp: another may have taken its place
    /// in the first folder a moment ago.
    fn link(&self, name: &OsStr, stamp: &Stamp) -> io::Result<bool>;
}

/// The facts about a folder that are checked before anything in it is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    /// A folder, and not something else of that name.
    pub(crate) is_folder: bool,
    /// The user it belongs to.
    pub(crate) uid: u32,
    /// Its permissions.
    pub(crate) mode: u32,
}

/// Folders below each other in a store: services, a service, a generation, its records.
const FOLDERS_DEEP_MAX: usize = 4;

/// The operating system's. Other servers write the store: below its folder no link is followed, and nothing but files is
/// opened.
#[derive(Debug)]
pub(crate) struct RealDisk {
    root: PathBuf,
    /// The folders that were opened, where they are to stay open.
    opened: Option<Mutex<HashMap<PathBuf, Arc<Folder>>>>,
}

impl RealDisk {
    /// The folder of a store, which need not be there yet.
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), opened: None }
    }

    /// An open folder of the store, or one above it.
    fn folder(&self, path: &Path) -> io::Result<Arc<Folder>> {
        let Some(opened) = &self.opened else { return self.open(path).map(Arc::new) };
        if let Some(folder) = entered(opened).get(path) {
            return Ok(Arc::clone(folder));
        }
        let folder = Arc::new(self.open(path)?);
        let mut opened = entered(opened);
        if opened.len() < STORE_FOLDERS_OPEN_MAX {
            opened.insert(path.to_owned(), Arc::clone(&folder));
        }
        Ok(folder)
    }

    fn open(&self, path: &Path) -> io::Result<Folder> {
        match path.strip_prefix(&self.root) {
            Ok(below) if below.as_os_str().is_empty() => Folder::open(&self.root),
            Ok(below) if self.opened.is_some() => self.folder(&self.root)?.below(below),
            Ok(below) => Folder::open(&self.root)?.below(below),
            Err(_) => Folder::open(path),
        }
    }

    /// The folder that a file lies in, and its name.
    fn place<'a>(&self, path: &'a Path) -> io::Result<(Arc<Folder>, &'a OsStr)> {
        match (path.parent(), path.file_name()) {
            (Some(above), Some(name)) if above.as_os_str().is_empty() => {
                Ok((self.folder(Path::new("."))?, name))
            }
            (Some(above), Some(name)) => Ok((self.folder(above)?, name)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "expected the path of a file, found none")),
        }
    }
}

fn entered<T>(opened: &Mutex<T>) -> MutexGuard<'_, T> {
    // Its contents are still true after a thread has panicked.
    opened.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder that is open for the length of a call.
struct Opened(Arc<Folder>);

impl Reader for Opened {
    fn entries(&self) -> io::Result<Vec<(OsString, Listed)>> {
        Reader::entries(self.0.as_ref())
    }

    fn read(&self, name: &OsStr, listed: Listed, max: usize) -> io::Result<(Vec<u8>, Option<Stamp>)> {
        Reader::read(self.0.as_ref(), name, listed, max)
    }

    fn stamp(&self, name: &OsStr) -> Option<Stamp> {
        self.0.stamp(name)
    }
}

impl Reader for Folder {
    fn entries(&self) -> io::Result<Vec<(OsString, Listed)>> {
        Self::entries(self, STORE_FOLDER_NAMES_MAX)
    }

    fn read(&self, name: &OsStr, listed: Listed, max: usize) -> io::Result<(Vec<u8>, Option<Stamp>)> {
        let (file, stat) = self.open_listed(name, listed, Links::Any)?;
        Ok((files::read_whole(file, &stat, max)?, Some(Stamp::of(&stat))))
    }

    fn stamp(&self, name: &OsStr) -> Option<Stamp> {
        self.stat_of(name).ok().map(|stat| Stamp::of(&stat))
    }
}

/// Two folders that are open for the length of a call.
struct OpenedTwo {
    from: Arc<Folder>,
    to: Arc<Folder>,
}

impl Sharer for OpenedTwo {
    fn stamp(&self, name: &OsStr) -> Option<Stamp> {
        self.from.stamp(name)
    }

    fn link(&self, name: &OsStr, stamp: &Stamp) -> io::Result<bool> {
        self.from.link_as_it_is(name, &self.to, name)?;
        // Nothing but a file has the stamp of a file that was read.
        Ok(self.to.stamp(name).is_some_and(|there| there.is_of_the_same_bytes(stamp)))
    }
}

impl Disk for RealDisk {
    fn read(&self, path: &Path, max: usize) -> io::Result<Vec<u8>> {
        let (folder, name) = self.place(path)?;
        folder.read(name, Links::Any, max)
    }

    fn reader<'a>(&'a self, folder: &Path) -> io::Result<Box<dyn Reader + 'a>> {
        Ok(Box::new(Opened(self.folder(folder)?)))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.folder(path)?.names(STORE_FOLDER_NAMES_MAX)
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        let (folder, name) = self.place(path)?;
        match folder.make_folder(name, 0o700) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.folder(path).map(|_| ()),
            made => made,
        }
    }

    fn owner(&self, path: &Path) -> io::Result<Owner> {
        if !path.starts_with(&self.root) || path == self.root {
            // The store's folder may be reached by an administrator's link.
            let found = trusted::stat(path)?;
            return Ok(Owner { is_folder: found.is_dir(), uid: found.uid(), mode: found.mode() & 0o7777 });
        }
        let (folder, name) = self.place(path)?;
        let found = folder.stat_of(name)?;
        let is_folder = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        Ok(Owner { is_folder, uid: found.st_uid, mode: found.st_mode & 0o7777 })
    }

    fn protect(&self, path: &Path) -> io::Result<()> {
        self.folder(path)?.set_mode(0o700)
    }

    fn write(&self, path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
        let (folder, name) = self.place(path)?;
        folder.create(name, bytes, 0o600, files::Owner::Ours, sync)
    }

    fn begin_to_write(&self, path: &Path, bytes: &[u8]) -> io::Result<Box<dyn Unsynced>> {
        let (folder, name) = self.place(path)?;
        Ok(Box::new(folder.create_begun(name, bytes, 0o600, files::Owner::Ours)?))
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let (folder, name) = self.place(path)?;
        let mut file = folder.open_to_append(name, STORE_FILE_BYTES_MAX)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (above, from) = self.place(from)?;
        let (folder, name) = self.place(to)?;
        above.rename(from, &folder, name)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (above, from) = self.place(from)?;
        let (folder, name) = self.place(to)?;
        above.link(from, &folder, name)
    }

    fn sharer<'a>(&'a self, from: &Path, to: &Path) -> io::Result<Box<dyn Sharer + 'a>> {
        Ok(Box::new(OpenedTwo { from: self.folder(from)?, to: self.folder(to)? }))
    }

    fn links(&self, path: &Path) -> io::Result<u64> {
        let (folder, name) = self.place(path)?;
        Ok(folder.open_file(name, Links::Any)?.0.metadata()?.nlink())
    }

    fn written_at_s(&self, path: &Path) -> io::Result<u64> {
        let (folder, name) = self.place(path)?;
        Ok(u64::try_from(folder.stat_of(name)?.st_mtime).unwrap_or(0))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (folder, name) = self.place(path)?;
        folder.remove(name)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        let (folder, name) = self.place(path)?;
        match folder.remove_folder(name, FOLDERS_DEEP_MAX, STORE_FOLDER_NAMES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => folder.remove(name),
            removed => removed,
        }
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.folder(path)?.sync()
    }

    fn for_one_call(&self) -> Box<dyn Disk> {
        Box::new(Self { root: self.root.clone(), opened: Some(Mutex::default()) })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_call_writes_where_it_looked_and_the_next_call_looks_anew() {
        let root = tempfile::tempdir().unwrap();
        let (there, away) = (root.path().join("there"), root.path().join("away"));
        fs::create_dir(&there).unwrap();
        let disk = RealDisk::at(root.path());
        let call = disk.for_one_call();
        assert_eq!(call.list(&there).unwrap().len(), 0);
        fs::rename(&there, &away).unwrap();
        fs::create_dir(&there).unwrap();
        call.write(&there.join("first"), b"1", true).unwrap();
        call.begin_to_write(&there.join("second"), b"22").unwrap().sync().unwrap();
        assert_eq!([&there, &away].map(|folder| disk.list(folder).unwrap().len()), [0, 2]);
        assert_eq!(disk.read(&away.join("second"), 10).unwrap(), b"22");
        disk.for_one_call().write(&there.join("third"), b"3", true).unwrap();
        assert_eq!(disk.list(&there).unwrap(), ["third"]);
    }

    #[test]
    fn a_call_keeps_a_bounded_number_of_folders_open_and_still_finds_all_others() {
        let root = tempfile::tempdir().unwrap();
        let call = RealDisk::at(root.path()).for_one_call();
        let folders = (0..STORE_FOLDERS_OPEN_MAX + 5).map(|i| root.path().join(i.to_string()));
        for folder in folders {
            call.make_folder(&folder).unwrap();
            call.write(&folder.join("file"), b"1", false).unwrap();
            assert_eq!(call.list(&folder).unwrap(), ["file"]);
        }
        let ours = RealDisk { root: root.path().to_owned(), opened: Some(Mutex::default()) };
        for i in 0..STORE_FOLDERS_OPEN_MAX + 5 {
            ours.list(&root.path().join(i.to_string())).unwrap();
        }
        assert_eq!(entered(ours.opened.as_ref().unwrap()).len(), STORE_FOLDERS_OPEN_MAX);
    }
}
