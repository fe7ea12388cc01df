//! Files that only root writes, or the kernel: /proc, /sys, /etc, /run, and heirlock's own directories.
//!
//! Links are followed, for an administrator made them. All else is as careful as below a [`Folder`]: a configuration
//! may be named that is a pipe or a device, and a file may be of any length.
#![cfg_attr(
    not(test),
    expect(clippy::disallowed_methods, reason = "the one place where files are opened by their whole path")
)]

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::{Folder, Owner, read_sized, refused};

/// Bytes of a file of the system that is read whole: the tables under /proc of a busy host have some.
pub(crate) const SYSTEM_FILE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// All of a file, of at most `max` bytes. The null device is an empty file: an administrator's link leads there.
pub(crate) fn read(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    if is_null(&fs::metadata(path)?) {
        return Ok(Vec::new());
    }
    let file = open(path)?;
    let size = file.metadata()?.len();
    read_sized(file, size, max)
}

/// All of a file of text, of at most `max` bytes.
pub(crate) fn read_text(path: &Path, max: usize) -> io::Result<String> {
    String::from_utf8(read(path, max)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        io::Error::new(io::ErrorKind::InvalidData, format!("expected text, found other bytes at byte {at}"))
    })
}

/// All of a file of text of the kernel's or the system's. Bytes that are no text are replaced: the name of a mount point or
/// of a program may be any bytes, and says nothing of the other lines.
pub(crate) fn read_system(path: impl AsRef<Path>) -> io::Result<String> {
    let bytes = read(path.as_ref(), SYSTEM_FILE_BYTES_MAX)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Opens a file for reading. It does not wait for a pipe, and refuses a device.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    expect_file(&fs::metadata(path)?)?;
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    expect_file(&file.metadata()?)?;
    Ok(file)
}

fn is_null(found: &Metadata) -> bool {
    let null = fs::metadata("/dev/null").ok().filter(|null| null.file_type().is_char_device());
    found.file_type().is_char_device() && null.is_some_and(|null| null.rdev() == found.rdev())
}

fn expect_file(found: &Metadata) -> io::Result<()> {
    let kind = found.file_type();
    match kind {
        _ if kind.is_file() => Ok(()),
        _ if kind.is_dir() => Err(refused(io::ErrorKind::IsADirectory, "a folder")),
        _ if kind.is_fifo() => Err(refused(io::ErrorKind::InvalidInput, "a pipe")),
        _ if kind.is_socket() => Err(refused(io::ErrorKind::InvalidInput, "a socket")),
        _ => Err(refused(io::ErrorKind::InvalidInput, "a device")),
    }
}

/// Writes into a file of the kernel's, as those under /proc are.
pub(crate) fn write_to_kernel(path: &Path, text: &str) -> io::Result<()> {
    io::Write::write_all(&mut OpenOptions::new().write(true).open(path)?, text.as_bytes())
}

/// Opens a file that bytes are added to, and makes it, with mode 0600, where there is none.
pub(crate) fn open_to_append(path: &Path, max: usize) -> io::Result<File> {
    let (folder, name) = place(path)?;
    folder.open_to_append(name, max)
}

/// Puts these bytes in the place of a file, or makes it; durable if `sync`.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32, sync: bool) -> io::Result<()> {
    let (folder, name) = place(path)?;
    folder.replace(name, bytes, mode, Owner::Ours, sync)
}

/// The folder that a file lies in, and its name there.
pub(crate) fn place(path: &Path) -> io::Result<(Folder, &OsStr)> {
    let name = path.file_name().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("expected a file, found {}", path.display()))
    })?;
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    Ok((Folder::open(above.unwrap_or(Path::new(".")))?, name))
}

/// Whether a file or a folder may be written, told without writing: it is read-only as root sees it where its file system is,
/// or where it is immutable (chattr +i).
pub(crate) fn may_write(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::access(path, rustix::fs::Access::WRITE_OK)?)
}

/// The metadata of a file or folder; of the target of a link.
pub(crate) fn stat(path: impl AsRef<Path>) -> io::Result<Metadata> {
    fs::metadata(path)
}

/// The metadata of a file, a folder or a link itself.
pub(crate) fn stat_of_link(path: impl AsRef<Path>) -> io::Result<Metadata> {
    fs::symlink_metadata(path)
}

/// Where a link leads.
pub(crate) fn read_link(path: impl AsRef<Path>) -> io::Result<PathBuf> {
    fs::read_link(path)
}

/// Makes a link.
pub(crate) fn make_link(to: impl AsRef<Path>, path: impl AsRef<Path>) -> io::Result<()> {
    std::os::unix::fs::symlink(to, path)
}

/// The names in a folder, in no order. More than `max` are an error of the kind `FileTooLarge`.
pub(crate) fn names(path: &Path, max: usize) -> io::Result<Vec<OsString>> {
    Folder::open(path)?.names(max)
}

/// A folder, and those above it that are missing.
pub(crate) fn make_folders(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// A new folder.
pub(crate) fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)
}

/// Gives a file or a folder these rights.
pub(crate) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Gives a file to a user.
pub(crate) fn set_owner(path: &Path, uid: u32) -> io::Result<()> {
    std::os::unix::fs::chown(path, Some(uid), None)
}

/// Removes a file, a link or a socket.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

/// Removes an empty folder.
pub(crate) fn remove_empty_folder(path: &Path) -> io::Result<()> {
    fs::remove_dir(path)
}

/// Makes the name of a file or a folder durable.
pub(crate) fn sync_name(path: &Path) -> io::Result<()> {
    place(path)?.0.sync()
}
