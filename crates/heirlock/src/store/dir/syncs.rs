//! Many new files become durable together.
//!
//! The writing of each begins at once; then each is synced by itself, several at a time. The syncs of a file system's journal
//! join to few commits that way. A sync of the whole file system would need no threads, and was as quick where no other
//! program writes; but it also waits for all that others have left unwritten there
//! (docs/decisions/0006-one-file-for-all-services.md).
//!
//! The threads begin when they are first needed and last as long as the store. A sync that hangs holds up the call that waits
//! for it, as it would without a thread of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

use super::super::disk::Unsynced;
use super::{DirStore, FileError, failed};
use crate::limits::{STORE_FILES_OPEN_MAX, STORE_SYNC_THREADS_MAX};
use crate::threads;

type Share = Box<dyn FnOnce() + Send>;

/// The threads.
#[derive(Default)]
pub(super) struct Syncs(Mutex<Vec<Sender<Share>>>);

impl DirStore {
    /// New files, durable.
    pub(super) fn write_all<B: AsRef<[u8]>>(&self, files: &[(PathBuf, B)]) -> Result<(), FileError> {
        if let [(path, bytes)] = files {
            return self.disk().write(path, bytes.as_ref(), true).map_err(failed("write", path));
        }
        let mut begun: Vec<(&Path, Box<dyn Unsynced>)> = Vec::new();
        for (path, bytes) in files {
            let file = match self.disk().begin_to_write(path, bytes.as_ref()) {
                // Other parts of the program have taken the descriptors.
                Err(error) if is_out_of_descriptors(&error) && !begun.is_empty() => {
                    self.sync_files(std::mem::take(&mut begun))?;
                    self.disk().begin_to_write(path, bytes.as_ref())
                }
                file => file,
            };
            begun.push((path, file.map_err(failed("write", path))?));
            if begun.len() == STORE_FILES_OPEN_MAX {
                self.sync_files(std::mem::take(&mut begun))?;
            }
        }
        self.sync_files(begun)
    }

    fn sync_files(&self, begun: Vec<(&Path, Box<dyn Unsynced>)>) -> Result<(), FileError> {
        let (paths, files): (Vec<&Path>, Vec<_>) = begun.into_iter().unzip();
        let mut done = Ok(());
        for (at, synced) in self.memory.syncs.of(files, &self.memory.operations) {
            // All are waited for: until then a file could not be removed for good.
            done = done.and(synced.map_err(failed("sync", paths[at])));
        }
        done
    }
}

impl Syncs {
    /// Syncs these files, counts each that has ended, and says how that went.
    fn of(
        &self,
        files: Vec<Box<dyn Unsynced>>,
        ended: &Arc<AtomicU64>,
    ) -> impl Iterator<Item = (usize, io::Result<()>)> + use<> {
        let (answer, answered) = channel();
        let mut shares = dealt(files, STORE_SYNC_THREADS_MAX + 1).into_iter().map(|share| {
            let (answer, ended) = (answer.clone(), Arc::clone(ended));
            let work: Share = Box::new(move || {
                for (at, file) in share {
                    let synced = file.sync();
                    ended.fetch_add(1, Ordering::Relaxed);
                    // The call waits for it.
                    let _ = answer.send((at, synced));
                }
            });
            work
        });
        let own = shares.next();
        let left: Vec<Share> = shares.enumerate().filter_map(|(at, share)| self.give(at, share)).collect();
        drop(answer);
        own.into_iter().chain(left).for_each(|share| share());
        answered.into_iter()
    }

    /// Gives a share to a thread, or back where there is none.
    fn give(&self, to: usize, share: Share) -> Option<Share> {
        let mut threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if threads.len() <= to {
            let (shares, given) = channel::<Share>();
            let started = threads::start("store-sync", move || given.into_iter().for_each(|share| share()));
            if let Err(error) = started {
                tracing::warn!(%error, "files of the store are synced one after the other: {error}");
                return Some(share);
            }
            threads.push(shares);
        }
        match threads.get(to) {
            Some(thread) => thread.send(share).err().map(|back| back.0),
            None => Some(share),
        }
    }
}

/// The files in so many shares at most, with their places. Each share that there is has one.
fn dealt(files: Vec<Box<dyn Unsynced>>, shares: usize) -> Vec<Vec<(usize, Box<dyn Unsynced>)>> {
    let mut dealt: Vec<Vec<_>> = (0..shares.min(files.len())).map(|_| Vec::new()).collect();
    for (at, file) in files.into_iter().enumerate() {
        dealt[at % shares].push((at, file));
    }
    dealt
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE].iter().any(|full| error.raw_os_error() == Some(full.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Barrier;
    use std::sync::mpsc::Receiver;
    use std::thread::{self, ThreadId};

    use super::*;

    /// A file whose sync is this.
    struct Played<F>(F);

    impl<F: FnOnce() -> io::Result<()> + Send> Unsynced for Played<F> {
        fn sync(self: Box<Self>) -> io::Result<()> {
            (self.0)()
        }
    }

    fn file(sync: impl FnOnce() -> io::Result<()> + Send + 'static) -> Box<dyn Unsynced> {
        Box::new(Played(sync))
    }

    #[test]
    fn as_many_files_as_there_are_threads_are_synced_at_once() {
        let at_once = STORE_SYNC_THREADS_MAX + 1;
        let all = Arc::new(Barrier::new(at_once));
        let waits = |_| {
            let all = Arc::clone(&all);
            // Each goes on only while all the others are on.
            file(move || {
                all.wait();
                Ok(())
            })
        };
        let files = (0..3 * at_once).map(waits).collect();
        let ended = Arc::default();
        assert_eq!(
            Syncs::default().of(files, &ended).filter(|(_, synced)| synced.is_ok()).count(),
            3 * at_once
        );
        assert_eq!(ended.load(Ordering::Relaxed), 3 * u64::try_from(at_once).unwrap());
    }

    #[test]
    fn the_threads_last_and_there_are_no_more_than_files() {
        let syncs = Syncs::default();
        let threads_of = |files: usize| -> BTreeSet<String> {
            let (said, heard) = channel::<ThreadId>();
            let says = |_| {
                let said = said.clone();
                file(move || said.send(thread::current().id()).map_err(|_| io::ErrorKind::Other.into()))
            };
            assert!(
                syncs.of((0..files).map(says).collect(), &Arc::default()).all(|(_, synced)| synced.is_ok())
            );
            drop(said);
            heard.into_iter().map(|id| format!("{id:?}")).collect()
        };
        assert_eq!(threads_of(1), BTreeSet::from([format!("{:?}", thread::current().id())]));
        let three = threads_of(3);
        assert_eq!(three.len(), 3);
        let many = threads_of(100);
        assert_eq!(many.len(), STORE_SYNC_THREADS_MAX + 1);
        assert!(many.is_superset(&three) && threads_of(100) == many);
    }

    #[test]
    fn a_file_that_fails_is_told_by_its_place_and_all_others_are_synced() {
        let files = (0..20).map(|at| {
            let result = if at == 13 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) };
            file(move || result)
        });
        let mut ends: Vec<_> = Syncs::default().of(files.collect(), &Arc::default()).collect();
        ends.sort_by_key(|(at, _)| *at);
        assert_eq!(ends.len(), 20);
        for (at, synced) in ends {
            assert_eq!(
                synced.map_err(|error| error.kind()).err(),
                (at == 13).then_some(io::ErrorKind::StorageFull)
            );
        }
    }

    #[test]
    fn while_a_sync_hangs_the_files_of_other_threads_are_synced_and_counted_and_its_call_waits() {
        let (go_on, hangs): (_, Receiver<()>) = channel();
        let mut hanging = Some(file(move || hangs.recv().map_err(|_| io::ErrorKind::BrokenPipe.into())));
        let at_once = STORE_SYNC_THREADS_MAX + 1;
        let files = (0..2 * at_once).map(|at| match at {
            1 => hanging.take().unwrap(),
            _ => file(|| Ok(())),
        });
        let (files, ended) = (files.collect(), Arc::default());
        let counted = Arc::clone(&ended);
        let call =
            thread::spawn(move || Syncs::default().of(files, &ended).all(|(_, synced)| synced.is_ok()));
        // All but the one that hangs and the one after it, on the same thread.
        let others = u64::try_from(2 * at_once - 2).unwrap();
        while counted.load(Ordering::Relaxed) < others {
            thread::yield_now();
        }
        assert!(!call.is_finished());
        go_on.send(()).unwrap();
        assert!(call.join().unwrap());
        assert_eq!(counted.load(Ordering::Relaxed), others + 2);
    }
}
