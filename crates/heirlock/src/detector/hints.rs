//! inotify's word that something happened in a directory. Hints may be lost, doubled and late; each only causes a look.

use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::files::trusted;
use crate::threads::{self, Lasting};

/// How often a directory that vanished is looked for.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often it is looked whether another directory has taken the place of a watched one, and a stop is noticed at the latest.
const REPLACED_PATIENCE: Duration = Duration::from_secs(2);

/// A thread that watches directories. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Hints {
    stop: Arc<AtomicBool>,
    thread: Option<Lasting>,
}

impl Hints {
    /// Watches these directories and calls `changed` for every batch of events, when a directory vanishes, and when
    /// one is back. Until `changed` answers, further events wait: a burst causes few calls.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub(crate) fn start(
        directories: Vec<PathBuf>,
        changed: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = threads::start("hints", move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Err(error) = watch(&directories, &changed, &stopped) {
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
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Watches until a directory vanishes, a watch is lost, or the stop.
fn watch(directories: &[PathBuf], changed: &impl Fn(), stop: &AtomicBool) -> Result<(), Errno> {
    let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    // A watch stays on its directory when another takes its place: one above is moved, or a volume mounted over it.
    let watched = identities(directories);
    for directory in directories {
        add(&queue, directory)?;
    }
    // This look sees all that happened before the watch was set.
    changed();
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let is_whole = watched.iter().all(Option::is_some);
        let patience = if is_whole { REPLACED_PATIENCE } else { PATIENCE };
        let patience = Timespec::try_from(patience).map_err(|_| Errno::INVAL)?;
        let ready = poll(&mut [PollFd::new(&queue, PollFlags::IN)], Some(&patience));
        match ready {
            Ok(0) if identities(directories) != watched => return Ok(()),
            Ok(0) | Err(Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error),
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
fn add(queue: &std::os::fd::OwnedFd, directory: &Path) -> Result<(), Errno> {
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

/// Reads all events that are there; says whether a watch was lost. An overflow needs nothing more: a look is due in any case.
fn drain(queue: &std::os::fd::OwnedFd, buffer: &mut [MaybeUninit<u8>]) -> Result<bool, Errno> {
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
        let hints = Hints::start(watched, move || {
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
        let hints = Hints::start(vec![sm.clone()], move || {
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
