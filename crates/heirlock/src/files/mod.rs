//! Every file that heirlock opens, reads, writes, renames or removes, it opens, reads, writes, renames or removes here.
//!
//! rpc.statd's directory belongs to rpc.statd's user, and the store is written by other servers. An entry of such a folder
//! may be a link to a file of root's, a pipe that no process writes to, or a file without end. So what is below a
//! [`Folder`] is reached from its descriptor and name by name: no link is followed, nothing but a file is opened, no file is
//! read beyond a bound, and all bytes are written into files that were made for them.
//!
//! [`trusted`] is for places that only root writes: /proc, /sys, /etc, and heirlock's own directories. There a link is an
//! administrator's. clippy's `disallowed-methods` (clippy.toml) keeps the ordinary calls out of all other modules.

mod folder;
mod stamp;
pub(crate) mod syncs;
#[cfg(test)]
mod tests;
pub(crate) mod trusted;

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use folder::{Folder, Links, Listed, Owner, Temporary};
use rustix::fs::{FileType, Stat};
#[cfg(test)]
pub(crate) use stamp::SETTLED_AFTER;
pub(crate) use stamp::{Inode, Stamp, WallTime};

/// For work that may have been done already: an absent file is no failure.
pub(crate) fn unless_absent(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The content; `None` where there is no such file.
pub(crate) fn if_present<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// When a file was last written. A time before 1970, and one that is beyond all clocks, count as 1970.
pub(crate) fn written_at(stat: &Stat) -> SystemTime {
    let seconds = u64::try_from(i128::from(stat.st_mtime)).map_or(Duration::ZERO, Duration::from_secs);
    let fraction = u64::try_from(i128::from(stat.st_mtime_nsec)).map_or(Duration::ZERO, Duration::from_nanos);
    UNIX_EPOCH.checked_add(seconds.saturating_add(fraction)).unwrap_or(UNIX_EPOCH)
}

/// Refuses what is no file.
fn expect_file(stat: &Stat) -> io::Result<()> {
    let found = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => return Ok(()),
        FileType::Symlink => "a symbolic link, which is not followed",
        FileType::Directory => return Err(refused(io::ErrorKind::IsADirectory, "a folder")),
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        _ => "a device",
    };
    Err(refused(io::ErrorKind::InvalidInput, found))
}

fn refused(kind: io::ErrorKind, found: &str) -> io::Error {
    io::Error::new(kind, format!("expected a file, found {found}; remove it, or put it elsewhere"))
}

/// Refuses more bytes than are expected.
fn expect_at_most(max: usize, found: u64) -> io::Result<()> {
    if found <= u64::try_from(max).unwrap_or(u64::MAX) {
        return Ok(());
    }
    let why = format!("expected a file of at most {max} bytes, found {found} or more; remove it");
    Err(io::Error::new(io::ErrorKind::FileTooLarge, why))
}

/// All of a file that was opened a moment ago, of at most `max` bytes. It may grow while it is read.
pub(crate) fn read_whole(file: impl io::Read, stat: &Stat, max: usize) -> io::Result<Vec<u8>> {
    read_sized(file, u64::try_from(stat.st_size).unwrap_or(u64::MAX), max)
}

fn read_sized(file: impl io::Read, size: u64, max: usize) -> io::Result<Vec<u8>> {
    /// Room for a file without a size, as those of the kernel are. Some of them give all their text to the first read.
    const WITHOUT_SIZE: usize = 4_096;

    expect_at_most(max, size)?;
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    let mut file = io::Read::take(file, limit);
    let size = usize::try_from(size).unwrap_or(0);
    // Room for all of it and for a byte more: a read that leaves that empty has seen the end.
    let room = if size == 0 { WITHOUT_SIZE } else { size.saturating_add(1) };
    let mut bytes = vec![0; room];
    let mut filled = 0;
    while filled < bytes.len() {
        match io::Read::read(&mut file, &mut bytes[filled..]) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if size > 0 && filled == size {
            break;
        }
    }
    let may_be_longer = filled == room;
    bytes.truncate(filled);
    if may_be_longer {
        io::Read::read_to_end(&mut file, &mut bytes)?;
    }
    expect_at_most(max, u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
    Ok(bytes)
}
