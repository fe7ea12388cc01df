//! Many new files become durable together.
//!
//! The writing of each begins at once; then each is synced by itself, several at a time. The syncs of a file system's journal
//! join to few commits that way. A sync of the whole file system would need no threads, and was as quick where no other
//! program writes; but it also waits for all that others have left unwritten there
//! (docs/decisions/0006-one-file-for-all-services.md).
//!
//! The threads begin when they are first needed and last as long as their [`Syncs`]. A sync that hangs holds up the call that
//! waits for it, as it would without a thread of its own.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

use crate::limits::{SYNC_THREADS_MAX, UNSYNCED_FILES_MAX};
use crate::threads;

type Share = Box<dyn FnOnce() + Send>;

/// A new file whose bytes are not durable yet.
pub(crate) trait Unsynced: Send {
    /// Makes them durable.
    fn sync(self: Box<Self>) -> io::Result<()>;
}

impl Unsynced for File {
    fn sync(self: Box<Self>) -> io::Result<()> {
        self.sync_all()
    }
}

/// The threads.
pub(crate) struct Syncs {
    name: &'static str,
    threads: Mutex<Vec<Sender<Share>>>,
    /// Files whose sync has ended.
    ended: Arc<AtomicU64>,
}

/// New files that are synced together, as many at a time as may be open. Each stands for something.
pub(crate) struct Batch<'a, T> {
    syncs: &'a Syncs,
    begun: Vec<(T, Box<dyn Unsynced>)>,
    done: Vec<(T, io::Result<()>)>,
}

impl<T> Batch<'_, T> {
    /// A file whose writing is begun now.
    ///
    /// # Errors
    /// Where that can't be.
    pub(crate) fn add(&mut self, of: T, begin: impl Fn() -> io::Result<Box<dyn Unsynced>>) -> io::Result<()> {
        let file = match begin() {
            // Other parts of the program have taken the descriptors.
            Err(error) if is_out_of_descriptors(&error) && !self.begun.is_empty() => {
                self.sync();
                begin()
            }
            file => file,
        };
        self.begun.push((of, file?));
        if self.begun.len() == UNSYNCED_FILES_MAX {
            self.sync();
        }
        Ok(())
    }

    /// Waits until all are synced: until then a file could not be removed for good. Answers how that went for each.
    pub(crate) fn end(mut self) -> Vec<(T, io::Result<()>)> {
        self.sync();
        self.done
    }

    fn sync(&mut self) {
        let (of, files): (Vec<T>, Vec<_>) = std::mem::take(&mut self.begun).into_iter().unzip();
        let mut synced: Vec<_> = self.syncs.of(files).collect();
        synced.sort_by_key(|(at, _)| *at);
        self.done.extend(of.into_iter().zip(synced.into_iter().map(|(_, synced)| synced)));
    }
}

impl Syncs {
    /// Threads of this name, of which none has begun yet. Each file whose sync has ended is counted.
    pub(crate) fn new(name: &'static str, ended: Arc<AtomicU64>) -> Self {
        Self { name, threads: Mutex::default(), ended }
    }

    /// No file yet.
    pub(crate) fn batch<T>(&self) -> Batch<'_, T> {
        Batch { syncs: self, begun: Vec::new(), done: Vec::new() }
    }

    /// Syncs these files, counts each that has ended, and says how that went.
    fn of(&self, files: Vec<Box<dyn Unsynced>>) -> impl Iterator<Item = (usize, io::Result<()>)> + use<> {
        let (answer, answered) = channel();
        let mut shares = dealt(files, SYNC_THREADS_MAX + 1).into_iter().map(|share| {
            let (answer, ended) = (answer.clone(), Arc::clone(&self.ended));
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
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if threads.len() <= to {
            let (shares, given) = channel::<Share>();
            let started = threads::start(self.name, move || given.into_iter().for_each(|share| share()));
            if let Err(error) = started {
                tracing::warn!(thread = self.name, %error, "new files are synced one after the other, for no further thread {} can be had: {error}", self.name);
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

    fn syncs() -> Syncs {
        Syncs::new("a-test-sync", Arc::default())
    }

    #[test]
    fn as_many_files_as_there_are_threads_are_synced_at_once() {
        let at_once = SYNC_THREADS_MAX + 1;
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
        let syncs = syncs();
        assert_eq!(syncs.of(files).filter(|(_, synced)| synced.is_ok()).count(), 3 * at_once);
        assert_eq!(syncs.ended.load(Ordering::Relaxed), 3 * u64::try_from(at_once).unwrap());
    }

    #[test]
    fn the_threads_last_and_there_are_no_more_than_files() {
        let syncs = syncs();
        let threads_of = |files: usize| -> BTreeSet<String> {
            let (said, heard) = channel::<ThreadId>();
            let says = |_| {
                let said = said.clone();
                file(move || said.send(thread::current().id()).map_err(|_| io::ErrorKind::Other.into()))
            };
            assert!(syncs.of((0..files).map(says).collect()).all(|(_, synced)| synced.is_ok()));
            drop(said);
            heard.into_iter().map(|id| format!("{id:?}")).collect()
        };
        assert_eq!(threads_of(1), BTreeSet::from([format!("{:?}", thread::current().id())]));
        let three = threads_of(3);
        assert_eq!(three.len(), 3);
        let many = threads_of(100);
        assert_eq!(many.len(), SYNC_THREADS_MAX + 1);
        assert!(many.is_superset(&three) && threads_of(100) == many);
    }

    #[test]
    fn a_file_that_fails_is_told_by_its_place_and_all_others_are_synced() {
        let files = (0..20).map(|at| {
            let result = if at == 13 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) };
            file(move || result)
        });
        let mut ends: Vec<_> = syncs().of(files.collect()).collect();
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
        let at_once = SYNC_THREADS_MAX + 1;
        let files = (0..2 * at_once).map(|at| match at {
            1 => hanging.take().unwrap(),
            _ => file(|| Ok(())),
        });
        let (files, syncs) = (files.collect(), syncs());
        let counted = Arc::clone(&syncs.ended);
        let call = thread::spawn(move || syncs.of(files).all(|(_, synced)| synced.is_ok()));
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

    #[test]
    fn a_batch_syncs_in_portions_and_tells_each_end_by_what_the_file_stands_for() {
        let syncs = syncs();
        let mut batch = syncs.batch();
        let fails = 2 * UNSYNCED_FILES_MAX;
        for at in 0..=fails {
            let result = move || if at == fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) };
            batch.add(at, || Ok(file(result))).unwrap();
            assert_eq!(batch.done.len(), (at + 1) / UNSYNCED_FILES_MAX * UNSYNCED_FILES_MAX);
        }
        let ends = batch.end();
        assert!(ends.iter().map(|(at, _)| *at).eq(0..=fails));
        assert!(ends.iter().all(|(at, synced)| synced.is_err() == (*at == fails)));
    }

    #[test]
    fn where_no_descriptor_is_left_the_files_that_are_open_are_synced_and_closed_first() {
        let syncs = syncs();
        let mut batch = syncs.batch();
        batch.add("first", || Ok(file(|| Ok(())))).unwrap();
        let few = || io::Error::from(Errno::MFILE);
        let ended = Arc::clone(&syncs.ended);
        batch
            .add("second", || match ended.load(Ordering::Relaxed) {
                0 => Err(few()),
                _ => Ok(file(|| Ok(()))),
            })
            .unwrap();
        let never = batch.add("third", || Err(few())).unwrap_err();
        assert_eq!(never.raw_os_error(), few().raw_os_error());
        let ends: Vec<_> = batch.end().into_iter().map(|(of, synced)| (of, synced.is_ok())).collect();
        assert_eq!(ends, [("first", true), ("second", true)]);
    }
}
