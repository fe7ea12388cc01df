//! The file operations that the `dir` store is made of. They are a seam for one reason: the tests put a disk under the
//! store that loses what was not synced, tears writes and fails.

#[cfg(test)]
pub(crate) mod faulty;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// File operations below one folder. Each is either done or an error; what is durable is said by the `sync` ones.
pub(crate) trait Disk: Send + Sync {
    /// The whole file, at most `max` bytes of it; a longer one is an error.
    fn read(&self, path: &Path, max: u64) -> io::Result<Vec<u8>>;
    /// The names in a folder.
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;
    /// A folder, mode 0700; one that exists is fine.
    fn make_folder(&self, path: &Path) -> io::Result<()>;
    /// Whose a folder is, and who may write to it.
    fn owner(&self, path: &Path) -> io::Result<Owner>;
    /// Takes every right to a folder from all but its owner.
    fn protect(&self, path: &Path) -> io::Result<()>;
    /// A new file, mode 0600, with these bytes; durable if `sync`. One that exists is never touched: it may be another
    /// name of what is in use.
    fn write(&self, path: &Path, bytes: &[u8], sync: bool) -> io::Result<()>;
    /// Adds bytes to a file in one write, and makes them durable.
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Atomic; durable after the folder is synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Exclusive, on shared file systems too; durable after the folder is synced.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// How many names a file has: tells a link whose answer was lost on the way.
    fn links(&self, path: &Path) -> io::Result<u64>;
    /// When a file was last written, in seconds since 1970.
    fn written_at_s(&self, path: &Path) -> io::Result<u64>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder and all in it.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes everything on the file system durable: one sync for many files.
    fn sync_all(&self, path: &Path) -> io::Result<()>;
}

/// What is said of a folder before anything in it is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    /// A folder, and not something else of that name.
    pub(crate) is_folder: bool,
    /// The user it belongs to.
    pub(crate) uid: u32,
    /// Its permissions.
    pub(crate) mode: u32,
}

/// The operating system's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn read(&self, path: &Path, max: u64) -> io::Result<Vec<u8>> {
        let length = fs::metadata(path)?.size();
        if length > max {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{length} bytes, at most {max} expected"),
            ));
        }
        fs::read(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            made => made,
        }
    }

    fn owner(&self, path: &Path) -> io::Result<Owner> {
        let found = fs::metadata(path)?;
        Ok(Owner { is_folder: found.is_dir(), uid: found.uid(), mode: found.mode() & 0o7777 })
    }

    fn protect(&self, path: &Path) -> io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
    }

    fn write(&self, path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        if sync { file.sync_all() } else { Ok(()) }
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn links(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.nlink())
    }

    fn written_at_s(&self, path: &Path) -> io::Result<u64> {
        Ok(u64::try_from(fs::symlink_metadata(path)?.mtime()).unwrap_or(0))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(path)?)?)
    }
}
