//! The memory of earlier looks, so that a hinted look opens only files that may have changed since.
//!
//! A file is known again by its metadata ([`Stamp`]). It is remembered only where it had last changed some ticks of the kernel's
//! clock before the look began: a change from then on, before, while or after it is read, gives it a later ctime than the one
//! that is remembered.
//!
//! It can't see: bytes that the kernel copies over others long after it has stamped the file, or that are written
//! through a mapping; a change after the wall clock was set back to that very tick; one on a file system whose own clock
//! is another. No status monitor writes like that (rpc.statd creates a file, or renames a new one onto it), and a look that
//! no hint causes opens every file: it finds them. Of what it reads the bytes that earlier looks read as well are kept once: a copy of
//! each record at every such look is much memory with very many clients, and what it replaces is left as holes.

use std::collections::HashMap;

use heirlock_core::Record;
use heirlock_core::ledger::Folder;
use heirlock_nsm::MonName;

use crate::files::{self, Stamp, WallTime};

/// The records that earlier looks read.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    sm: Records,
    sm_bak: Records,
}

impl Memory {
    /// How many files the last look had to open.
    pub(crate) fn opened(&self) -> usize {
        self.sm.opened + self.sm_bak.opened
    }

    /// The next look opens every file: nothing that earlier looks read is relied upon.
    pub(crate) fn distrust(&mut self) {
        (self.sm.is_distrusted, self.sm_bak.is_distrusted) = (true, true);
    }

    pub(super) fn of(&mut self, folder: Folder) -> &mut Records {
        match folder {
            Folder::Sm => &mut self.sm,
            Folder::SmBak => &mut self.sm_bak,
        }
    }
}

/// The remembered files of one folder.
#[derive(Debug, Default)]
pub(super) struct Records {
    known: HashMap<MonName, Known>,
    /// The number of the look that is on, or was the last one.
    look: u32,
    /// What the look that is on reads is all that counts in it.
    is_distrusted: bool,
    opened: usize,
}

/// A remembered file.
#[derive(Debug)]
struct Known {
    stamp: Stamp,
    record: Record,
    /// The last look that found it like this.
    look: u32,
}

impl Records {
    /// A look begins: files that it doesn't find are forgotten.
    pub(super) fn begin(&mut self) {
        self.look = self.look.wrapping_add(1);
        self.opened = 0;
    }

    /// A look is over.
    pub(super) fn end(&mut self) {
        let look = self.look;
        self.known.retain(|_, known| known.look == look);
        // The room of very many clients that have left is given back.
        if self.known.len() < self.known.capacity() / 4 {
            self.known.shrink_to_fit();
        }
        self.is_distrusted = false;
    }

    /// The content of this file, if it is known without opening it.
    pub(super) fn recall(&mut self, directory: &files::Folder, name: &MonName) -> Option<Record> {
        if self.is_distrusted {
            return None;
        }
        let known = self.known.get_mut(name)?;
        let there = directory.stat_of(name.as_str()).ok()?;
        if Stamp::of(&there) != known.stamp {
            return None;
        }
        known.look = self.look;
        Some(known.record.clone())
    }

    /// A file is being opened.
    pub(super) fn opening(&mut self) {
        self.opened += 1;
    }

    /// Remembers the content that a look, which began at that time, read from the file. The stamp was taken before that: a
    /// stamp taken afterwards could be that of a change in between, and vouch for content that is no longer there. Answers the
    /// content: that of an earlier look where its bytes are the same.
    pub(super) fn keep(&mut self, name: &MonName, stamp: Stamp, record: Record, began: WallTime) -> Record {
        let (look, is_settled) = (self.look, stamp.is_settled(began));
        match self.known.get_mut(name) {
            Some(known) => {
                let record = if known.record == record { known.record.clone() } else { record };
                if is_settled {
                    *known = Known { stamp, record: record.clone(), look };
                }
                record
            }
            None => {
                if is_settled {
                    self.known.insert(name.clone(), Known { stamp, record: record.clone(), look });
                }
                record
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs::{self, File, FileTimes};
    use std::os::unix::fs::MetadataExt;
    use std::path::PathBuf;
    use std::thread;
    use std::time::Duration;

    use heirlock_core::ledger::Scan;

    use super::super::{look, scan};
    use super::*;
    use crate::files::SETTLED_AFTER;

    /// All lines are of one size.
    fn line(cookie: usize) -> String {
        format!("0100007f 000186b5 00000003 00000010 {cookie:032x} 127.1.0.1 nfs-a\n")
    }

    struct Ground {
        above: tempfile::TempDir,
        memory: Memory,
    }

    impl Ground {
        fn new() -> Self {
            let above = tempfile::tempdir().unwrap();
            for folder in ["sm", "sm.bak"] {
                fs::create_dir(above.path().join(folder)).unwrap();
            }
            Self { above, memory: Memory::default() }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.above.path().join(path)
        }

        fn write(&self, path: &str, cookie: usize) {
            fs::write(self.at(path), line(cookie)).unwrap();
        }

        fn rename(&self, from: &str, to: &str) {
            fs::rename(self.at(from), self.at(to)).unwrap();
        }

        /// Looks, and answers how many files it opened. It must show what a look without memory shows.
        fn look(&mut self) -> usize {
            let seen = look(self.above.path(), &mut self.memory).unwrap();
            assert_eq!(sorted(&seen), sorted(&scan(self.above.path()).unwrap()));
            self.memory.opened()
        }

        /// Looks when all files are old enough to be remembered.
        fn settle(&mut self) {
            thread::sleep(SETTLED_AFTER * 2);
            self.look();
        }
    }

    fn sorted(scan: &Scan) -> (BTreeSet<String>, BTreeSet<String>) {
        let files = scan.files.iter().map(|file| format!("{file:?}")).collect();
        (files, scan.problems.iter().map(|problem| format!("{problem:?}")).collect())
    }

    #[test]
    fn a_file_that_was_left_alone_is_not_opened_again() {
        let mut ground = Ground::new();
        for (cookie, path) in ["sm/10.0.0.1", "sm/10.0.0.2", "sm.bak/10.0.0.1"].into_iter().enumerate() {
            ground.write(path, cookie);
        }
        ground.settle();
        assert_eq!((ground.memory.opened(), ground.look(), ground.look()), (3, 0, 0));
        ground.write("sm/10.0.0.3", 3);
        assert_eq!(ground.look(), 1);
    }

    #[test]
    fn a_look_that_relies_on_nothing_opens_every_file_and_keeps_once_what_is_the_same() {
        let mut ground = Ground::new();
        for (cookie, path) in ["sm/10.0.0.1", "sm/10.0.0.2", "sm.bak/10.0.0.3"].into_iter().enumerate() {
            ground.write(path, cookie);
        }
        ground.settle();
        let by_name = |scan: Scan| -> BTreeMap<_, _> {
            scan.files.into_iter().map(|file| (file.name, file.bytes)).collect()
        };
        let before = by_name(look(ground.above.path(), &mut ground.memory).unwrap());
        // Other bytes without another stamp: what a copy by the kernel long after the stamp was taken leaves.
        let known = ground.memory.sm.known.get_mut(&MonName::parse("10.0.0.2").unwrap()).unwrap();
        known.record = line(7).into_bytes().into();
        ground.memory.distrust();
        let found = by_name(look(ground.above.path(), &mut ground.memory).unwrap());
        assert_eq!((found == before, ground.memory.opened()), (true, 3));
        let shared = found.iter().map(|(name, bytes)| bytes.is_shared_with(&before[name]));
        assert_eq!(shared.collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(ground.look(), 0, "the next look relies on it");
    }

    #[test]
    fn the_room_of_very_many_files_that_are_gone_is_given_back() {
        let mut records = Records::default();
        records.known.reserve(10_000);
        records.begin();
        records.end();
        assert!(records.known.capacity() < 100);
    }

    #[test]
    fn a_file_that_is_young_or_no_record_is_opened_again() {
        let mut ground = Ground::new();
        fs::write(ground.at("sm/10.0.0.1"), line(1).repeat(2) + "torn").unwrap();
        fs::write(ground.at("sm/10.0.0.2"), "").unwrap();
        ground.settle();
        assert_eq!((ground.look(), ground.look()), (2, 2));
    }

    #[test]
    fn a_file_that_is_rewritten_right_after_a_look_is_seen_by_the_next() {
        let mut ground = Ground::new();
        for cookie in 0..500 {
            ground.write("sm/10.0.0.1", cookie);
            assert_eq!(ground.look(), 1, "{cookie}");
        }
    }

    #[test]
    fn a_remembered_file_is_opened_again_once_it_changed() {
        let mut ground = Ground::new();
        ground.write("sm/10.0.0.1", 0);
        for cookie in 1..20 {
            ground.settle();
            assert_eq!(ground.look(), 0);
            ground.write("sm/10.0.0.1", cookie);
            assert_eq!(ground.look(), 1);
        }
    }

    #[test]
    fn a_new_file_that_looks_like_an_old_one_is_none() {
        let mut ground = Ground::new();
        ground.write("sm/10.0.0.1", 0);
        ground.write("sm/10.0.0.2", 1);
        ground.settle();
        let before = fs::metadata(ground.at("sm/10.0.0.1")).unwrap();
        ground.write("sm/10.0.0.1", 2);
        let file = File::options().write(true).open(ground.at("sm/10.0.0.1")).unwrap();
        file.set_times(FileTimes::new().set_modified(before.modified().unwrap())).unwrap();
        let after = fs::metadata(ground.at("sm/10.0.0.1")).unwrap();
        let alike = |of: &fs::Metadata| (of.ino(), of.size(), of.mtime(), of.mtime_nsec());
        assert_eq!(alike(&before), alike(&after), "only the ctime gives it away");
        assert_eq!(ground.look(), 1);
        ground.settle();
        // Two files of one size change places; then one of them is another's link.
        for (from, to) in [("1", "x.new"), ("2", "1"), ("x.new", "2")] {
            ground.rename(&format!("sm/10.0.0.{from}"), &format!("sm/10.0.0.{to}"));
        }
        assert_eq!(ground.look(), 2);
        ground.settle();
        fs::remove_file(ground.at("sm/10.0.0.1")).unwrap();
        fs::hard_link(ground.at("sm/10.0.0.2"), ground.at("sm/10.0.0.1")).unwrap();
        ground.look();
    }

    #[test]
    fn a_file_that_is_replaced_or_goes_is_seen() {
        let mut ground = Ground::new();
        for cookie in 0..50 {
            ground.write("sm/10.0.0.1.new", 2 * cookie);
            ground.rename("sm/10.0.0.1.new", "sm/10.0.0.1");
            assert_eq!(ground.look(), 1, "renamed onto");
            // Where the inode is given out again, it has the same number.
            fs::remove_file(ground.at("sm/10.0.0.1")).unwrap();
            ground.write("sm/10.0.0.1", 2 * cookie + 1);
            assert_eq!(ground.look(), 1, "removed and created");
        }
        for cookie in 100..105 {
            ground.settle();
            ground.write("sm/10.0.0.1.new", 2 * cookie);
            ground.rename("sm/10.0.0.1.new", "sm/10.0.0.1");
            assert_eq!(ground.look(), 1, "renamed onto an old one");
            ground.settle();
            fs::remove_file(ground.at("sm/10.0.0.1")).unwrap();
            ground.write("sm/10.0.0.1", 2 * cookie + 1);
            assert_eq!(ground.look(), 1, "an old one, removed and created");
        }
        ground.settle();
        ground.rename("sm/10.0.0.1", "sm.bak/10.0.0.1");
        assert_eq!(ground.look(), 1, "moved by sm-notify");
        fs::remove_file(ground.at("sm.bak/10.0.0.1")).unwrap();
        assert_eq!(ground.look(), 0);
        assert!(ground.memory.sm.known.is_empty() && ground.memory.sm_bak.known.is_empty());
    }

    #[test]
    fn the_memory_of_the_detector_shows_the_files_that_are_there_after_any_change() {
        let mut ground = Ground::new();
        let mut random = fastrand::Rng::with_seed(7);
        let path = |random: &mut fastrand::Rng| {
            format!("{}/10.0.0.{}", ["sm", "sm.bak"][random.usize(..2)], random.usize(..4))
        };
        for step in 0..2_000 {
            let (one, other) = (path(&mut random), path(&mut random));
            match random.usize(..8) {
                7 => ground.memory.distrust(),
                0 | 1 => ground.write(&one, step),
                2 => fs::write(ground.at(&one), line(step).repeat(random.usize(..3))).unwrap(),
                3 => drop(fs::remove_file(ground.at(&one))),
                4 => drop(fs::rename(ground.at(&one), ground.at(&other))),
                5 => {
                    ground.write("sm/another.new", step);
                    ground.rename("sm/another.new", &one);
                }
                _ if random.usize(..10) == 0 => thread::sleep(SETTLED_AFTER + Duration::from_millis(10)),
                _ => {}
            }
            ground.look();
        }
    }
}
