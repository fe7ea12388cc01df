//! inotify's word that something happened in a directory. Hints may be lost, doubled and late; each only causes a look.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::files::trusted;
use crate::threads::{self, Lasting};

/// How often a directory that vanished is looked for.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often it is looked whether another directory has taken the place of a watched one, where neither a move above it nor a
/// mount has told: a link above it may lead elsewhere.
const REPLACED_PATIENCE: Duration = Duration::from_secs(30);

/// A thread that watches directories. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Hints {
    stop: Arc<Stop>,
    thread: Option<Lasting>,
}

/// The word that the thread is to end.
#[derive(Debug)]
struct Stop {
    is_said: AtomicBool,
    /// Wakes the thread for it.
    waker: OwnedFd,
}

impl Hints {
    /// Watches these directories, and the table of mounts for a volume that is mounted over one of them, and calls `changed` for every batch of events, when a directory vanishes, and when
    /// one is back. Until `changed` answers, further events wait: a burst causes few calls.
    ///
    /// # Errors
    /// Where no thread or no descriptor can be had.
    pub(crate) fn start(
        directories: Vec<PathBuf>,
        mount_table: PathBuf,
        changed: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let stop = Arc::new(Stop { is_said: AtomicBool::new(false), waker });
        let stopped = Arc::clone(&stop);
        let thread = threads::lasting("hints", move || {
            while !stopped.is_said.load(Ordering::Relaxed) {
                if let Err(error) = watch(&directories, &mount_table, &changed, &stopped) {
                    tracing::debug!(error = %std::io::Error::from(error), "a watch ended and is begun anew");
                    thread::sleep(PATIENCE);
                }
                changed();
            }
            Ok(())
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// The thread that watches, for the watchdog to keep.
    pub(crate) fn take_thread(&mut self) -> Option<Lasting> {
        self.thread.take()
    }
}

impl Drop for Hints {
    fn drop(&mut self) {
        self.stop.is_said.store(true, Ordering::Relaxed);
        let _ = rustix::io::write(&self.stop.waker, &1_u64.to_le_bytes());
    }
}

/// Watches until a directory vanishes, a watch is lost, or the stop.
fn watch(directories: &[PathBuf], mount_table: &Path, changed: &impl Fn(), stop: &Stop) -> Result<(), Errno> {
    // Without it a mount is found by the look that comes in any case. The kernel tells of a change since the last poll (proc(5)).
    let mounts = trusted::open(mount_table).ok();
    let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    // A watch stays on its directory when another takes its place: one above is moved, or a volume mounted over it.
    let watched = identities(directories);
    for directory in directories {
        add(&queue, directory)?;
        for above in directory.ancestors().skip(1).filter(|above| above.parent().is_some()) {
            add_above(&queue, above)?;
        }
    }
    // This look sees all that happened before the watch was set.
    changed();
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    loop {
        if stop.is_said.load(Ordering::Relaxed) {
            return Ok(());
        }
        let is_whole = watched.iter().all(Option::is_some);
        let patience = if is_whole { REPLACED_PATIENCE } else { PATIENCE };
        let patience = Timespec::try_from(patience).map_err(|_| Errno::INVAL)?;
        let mut sources = vec![PollFd::new(&queue, PollFlags::IN), PollFd::new(&stop.waker, PollFlags::IN)];
        sources.extend(mounts.iter().map(|mounts| PollFd::new(mounts, PollFlags::PRI)));
        match poll(&mut sources, Some(&patience)) {
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
            Ok(_) if sources[0].revents().is_empty() => {
                if identities(directories) != watched {
                    return Ok(());
                }
                continue;
            }
            Ok(_) => {}
        }
        let lost = drain(&queue, &mut buffer)?;
        changed();
        if lost {
            return Ok(());
        }
    }
}

/// The identity of the directories now; `None` where there is none.
fn identities(directories: &[PathBuf]) -> Vec<Option<(u64, u64)>> {
    let identity = |path: &PathBuf| trusted::stat_of_link(path).ok().map(|found| (found.dev(), found.ino()));
    directories.iter().map(identity).collect()
}

/// Watches a directory, unless there is none.
fn add(queue: &OwnedFd, directory: &Path) -> Result<(), Errno> {
    // No OPEN or MODIFY: a look itself would cause the next one.
    let wanted = WatchFlags::ONLYDIR
        | WatchFlags::DONT_FOLLOW
        | WatchFlags::CREATE
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVED_FROM
        | WatchFlags::DELETE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF;
    match inotify::add_watch(queue, directory, wanted) {
        Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Watches a directory above a watched one for a move of itself alone. A watch of one above does no harm to a watched one.
fn add_above(queue: &OwnedFd, directory: &Path) -> Result<(), Errno> {
    let wanted = WatchFlags::ONLYDIR | WatchFlags::MASK_ADD | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
    match inotify::add_watch(queue, directory, wanted) {
        // One that may not be watched is found by the look that comes in any case.
        Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads all events that are there; says whether a watch was lost. An overflow needs nothing more: a look is due in any case.
fn drain(queue: &OwnedFd, buffer: &mut [MaybeUninit<u8>]) -> Result<bool, Errno> {
    let gone = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED | ReadFlags::UNMOUNT;
    let mut reader = inotify::Reader::new(queue, buffer);
    let mut lost = false;
    loop {
        match reader.next() {
            Ok(event) => lost |= event.events().intersects(gone),
            Err(Errno::AGAIN) => return Ok(lost),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Instant;

    use super::super::scan;
    use super::*;

    const LINE: &str =
        "0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 127.1.0.1 nfs-a\n";

    fn start(directory: &Path) -> (Hints, Receiver<()>) {
        let (sender, receiver) = channel();
        let watched = vec![directory.join("sm"), directory.join("sm.bak")];
        let hints = Hints::start(watched, "/proc/self/mounts".into(), move || {
            let _ = sender.send(());
        });
        (hints.unwrap(), receiver)
    }

    fn made() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("sm")).unwrap();
        fs::create_dir(directory.path().join("sm.bak")).unwrap();
        directory
    }

    /// Waits for hints until a look shows that many files.
    fn wait_for(directory: &Path, hints: &Receiver<()>, files: usize) {
        let end = Instant::now() + Duration::from_secs(30);
        while scan(directory).map_or(usize::MAX, |scan| scan.files.len()) != files {
            let left = end.saturating_duration_since(Instant::now());
            hints.recv_timeout(left).expect("a hint before the time is up");
        }
    }

    #[test]
    fn a_file_that_appears_moves_and_vanishes_is_hinted() {
        let directory = made();
        let (_hints, receiver) = start(directory.path());
        let sm = directory.path().join("sm");
        fs::write(sm.join("10.0.0.1"), LINE).unwrap();
        wait_for(directory.path(), &receiver, 1);
        fs::write(sm.join("10.0.0.2.new"), LINE).unwrap();
        fs::rename(sm.join("10.0.0.2.new"), sm.join("10.0.0.2")).unwrap();
        wait_for(directory.path(), &receiver, 2);
        fs::write(sm.join(".10.0.0.3.new"), LINE).unwrap();
        fs::rename(sm.join(".10.0.0.3.new"), sm.join("10.0.0.3")).unwrap();
        wait_for(directory.path(), &receiver, 3);
        fs::remove_file(sm.join("10.0.0.1")).unwrap();
        wait_for(directory.path(), &receiver, 2);
    }

    #[test]
    fn a_queue_of_hints_that_overflows_loses_no_record() {
        let directory = made();
        let (sender, receiver) = channel();
        let sm = directory.path().join("sm");
        let (slow, let_go) = channel::<()>();
        let hints = Hints::start(vec![sm.clone()], "/proc/self/mounts".into(), move || {
            let _ = sender.send(());
            // Holds the reader up until all files are made.
            let _ = let_go.recv();
        });
        receiver.recv().unwrap();
        for i in 0..20_000 {
            fs::write(sm.join(format!("10.1.{}.{}", i / 250, i % 250)), LINE).unwrap();
        }
        drop(slow);
        wait_for(directory.path(), &receiver, 20_000);
        drop(hints);
    }

    #[test]
    fn a_directory_that_vanishes_is_watched_again_when_it_is_back() {
        let directory = made();
        let (_hints, receiver) = start(directory.path());
        let sm = directory.path().join("sm");
        fs::remove_dir(&sm).unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while scan(directory.path()).is_ok() {
            receiver.recv_timeout(end.saturating_duration_since(Instant::now())).unwrap();
        }
        fs::create_dir(&sm).unwrap();
        fs::write(sm.join("10.0.0.1"), LINE).unwrap();
        wait_for(directory.path(), &receiver, 1);
        while receiver.try_recv().is_ok() {}
        fs::write(sm.join("10.0.0.2"), LINE).unwrap();
        wait_for(directory.path(), &receiver, 2);
    }
}
