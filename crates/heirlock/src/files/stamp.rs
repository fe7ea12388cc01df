//! The metadata of a file that tell whether it is still the one that was read.
//!
//! A change of its content, or another file in its place, leaves a file with another ctime: that is the present, and unlike
//! mtime no program can set it back. But the kernel's clock for it goes on by ticks, and two changes in one tick look like
//! one. So, as in git's index ("racily clean"), a stamp counts only where the file had last changed some ticks before.

use std::time::Duration;

use rustix::fs::Stat;
use rustix::time::{ClockId, clock_gettime};

/// How long a file must have been left alone: two ticks of the slowest kernel.
pub(crate) const SETTLED_AFTER: Duration = Duration::from_millis(20);

/// The same where the ctime has no fraction: it may come from a file system that counts whole seconds, as ext4 with
/// inodes of 128 bytes.
const SETTLED_AFTER_IN_SECONDS: Duration = Duration::from_secs(2);

const SECOND: i128 = 1_000_000_000;

/// Nanoseconds since 1970, by the clock that the kernel stamps files with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct WallTime(i128);

impl WallTime {
    fn new(seconds: impl Into<i128>, nanos: impl Into<i128>) -> Self {
        Self(seconds.into() * SECOND + nanos.into())
    }

    /// Now. The precise clock runs ahead of the stamps, by far where a host takes processors away: by it, a file could seem
    /// settled in the very tick of its last change.
    pub(crate) fn now() -> Self {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        Self::new(now.tv_sec, now.tv_nsec)
    }
}

/// The number of a file on its file system.
pub(crate) type Inode = i128;

/// The metadata that tell whether a file is still the one that was read. Each architecture has its own types for these; all
/// of them fit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Stamp {
    device: i128,
    inode: Inode,
    size: i128,
    modified: WallTime,
    changed: WallTime,
}

impl Stamp {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            device: i128::from(stat.st_dev),
            inode: i128::from(stat.st_ino),
            size: i128::from(stat.st_size),
            modified: WallTime::new(stat.st_mtime, stat.st_mtime_nsec),
            changed: WallTime::new(stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// The file's number.
    pub(crate) fn inode(&self) -> Inode {
        self.inode
    }

    /// Whether it is the stamp of that file with those bytes, whatever names it was given or lost in between: these change its
    /// ctime, and no write that the kernel was asked for leaves its mtime.
    pub(crate) fn is_of_the_same_bytes(&self, other: &Self) -> bool {
        let of = |stamp: &Self| (stamp.device, stamp.inode, stamp.size, stamp.modified);
        of(self) == of(other)
    }

    /// A stamp of a disk without times, where no file is written to once it has its bytes.
    #[cfg(test)]
    pub(crate) fn without_times(inode: usize, size: usize) -> Self {
        let number = |of: usize| i128::try_from(of).unwrap();
        let (modified, changed) = (WallTime::new(0, 0), WallTime::new(0, 0));
        Self { device: 0, inode: number(inode), size: number(size), modified, changed }
    }

    /// Whether the last change was long enough ago that the next one can't pass for it. One in the future never is.
    pub(crate) fn is_settled(&self, now: WallTime) -> bool {
        let in_seconds = self.changed.0 % SECOND == 0;
        let margin = if in_seconds { SETTLED_AFTER_IN_SECONDS } else { SETTLED_AFTER };
        i128::try_from(margin.as_nanos()).is_ok_and(|margin| now.0 - self.changed.0 >= margin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_settled_once_no_further_change_can_have_the_same_time() {
        let folder = tempfile::tempdir().unwrap();
        let young = Stamp::of(&rustix::fs::stat(folder.path()).unwrap());
        let settled = |changed: i128, now: i128| {
            let stamp = Stamp { changed: WallTime(changed), ..young.clone() };
            stamp.is_settled(WallTime(now))
        };
        let (millis, long_ago) = (1_000_000, 1_795_598_700 * SECOND);
        assert!(!settled(long_ago + 1, long_ago + 1 + 19 * millis), "a tick or two");
        assert!(settled(long_ago + 1, long_ago + 1 + 20 * millis));
        assert!(!settled(long_ago, long_ago + 1999 * millis), "a file system that counts seconds");
        assert!(settled(long_ago, long_ago + 2000 * millis));
        assert!(!settled(long_ago + 1, long_ago), "a clock that was set back");
        assert!(!settled(long_ago + 1, 0), "no clock at all");
    }
}
