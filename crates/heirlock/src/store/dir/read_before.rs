//! The records that were read a moment ago. Services of one lock manager keep the same records, and in the store such a record
//! is one file with several names: it is read once, and kept once.

use std::collections::HashMap;
use std::io;

use heirlock_core::limits::{RECORD_BYTES_MAX, RECORDS_MAX};
use heirlock_core::records::WeakRecord;
use heirlock_core::{Record, RecordKey};
use heirlock_nsm::record::parse_record;

use super::super::disk::Reader;
use super::names::file_name;
use crate::files::{Inode, Listed, Stamp, WallTime};

/// The records, each by the number of the file that it was read from, with the file's stamp. It keeps none of them alive.
#[derive(Debug, Default)]
pub(super) struct ReadBefore {
    records: HashMap<Inode, (Stamp, WeakRecord)>,
    /// One was read or asked for since it was last to forget.
    is_in_use: bool,
}

impl ReadBefore {
    /// A record, or nothing where its owner removed it meanwhile. `listed` is as the list of the folder said, if there was one, and
    /// `began` is when this reading of many records began.
    pub(super) fn read(
        &mut self,
        reader: &dyn Reader,
        key: &RecordKey,
        listed: Listed,
        began: WallTime,
    ) -> Result<Option<Record>, String> {
        let name = file_name(key).as_ref();
        // A file that is listed under a number which was not read before need not be looked at for that.
        let may_be_known = match listed.inode {
            Some(inode) => self.records.contains_key(&Inode::from(inode)),
            None => !self.records.is_empty(),
        };
        if may_be_known && let Some(known) = reader.stamp(name).and_then(|stamp| self.known(&stamp)) {
            return Ok(Some(known));
        }
        let (bytes, stamp) = match reader.read(name, listed, RECORD_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| error.to_string())?,
        };
        parse_record(&bytes).map_err(|error| error.to_string())?;
        let record = Record::from(bytes);
        self.is_in_use = true;
        if self.records.len() < RECORDS_MAX
            && let Some(stamp) = stamp.filter(|stamp| stamp.is_settled(began))
        {
            self.records.insert(stamp.inode(), (stamp, record.downgrade()));
        }
        Ok(Some(record))
    }

    /// The record in the file that has this stamp, if it was read a moment ago and is still in use.
    pub(super) fn known(&mut self, stamp: &Stamp) -> Option<Record> {
        self.is_in_use = true;
        let (read, record) = self.records.get(&stamp.inode())?;
        if read == stamp { record.upgrade() } else { None }
    }

    /// Forgets all of them, where none was read or asked for since it was last to forget: with very many records there are
    /// heartbeats between a reading and the work that follows from it, and in the middle of both.
    pub(super) fn forget(&mut self) {
        if !std::mem::take(&mut self.is_in_use) {
            self.records = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::ffi::{OsStr, OsString};
    use std::fs;
    use std::path::Path;
    use std::thread;

    use heirlock_nsm::MonName;

    use super::*;
    use crate::files::{Folder, SETTLED_AFTER};

    const LINE: &str =
        "0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 10.0.0.1 nfs-a\n";

    fn read(before: &mut ReadBefore, folder: &Path) -> Record {
        let key = MonName::parse("10.0.0.1").unwrap().into();
        let folder = Folder::open(folder).unwrap();
        before.read(&folder, &key, Listed::NOWHERE, WallTime::now()).unwrap().unwrap()
    }

    /// Two folders in which a record is one file.
    fn linked() -> (tempfile::TempDir, [std::path::PathBuf; 2]) {
        let above = tempfile::tempdir().unwrap();
        let folders = ["a", "b"].map(|name| above.path().join(name));
        folders.iter().for_each(|folder| fs::create_dir(folder).unwrap());
        fs::write(folders[0].join("10.0.0.1"), LINE).unwrap();
        fs::hard_link(folders[0].join("10.0.0.1"), folders[1].join("10.0.0.1")).unwrap();
        (above, folders)
    }

    #[test]
    fn a_file_with_two_names_is_kept_once_until_it_is_forgotten() {
        let (_above, [one, other]) = linked();
        thread::sleep(SETTLED_AFTER * 2);
        let mut before = ReadBefore::default();
        let first = read(&mut before, &one);
        assert!(read(&mut before, &other).is_shared_with(&first));
        for heartbeat in 0..3 {
            before.forget();
            assert!(read(&mut before, &other).is_shared_with(&first), "in use, {heartbeat}");
        }
        before.forget();
        before.forget();
        assert!(!read(&mut before, &other).is_shared_with(&first));
    }

    /// A folder that counts how often a stamp was asked for.
    struct Counted<'a>(&'a Folder, Cell<usize>);

    impl Reader for Counted<'_> {
        fn entries(&self) -> io::Result<Vec<(OsString, Listed)>> {
            Reader::entries(self.0)
        }

        fn read(&self, name: &OsStr, listed: Listed, max: usize) -> io::Result<(Vec<u8>, Option<Stamp>)> {
            Reader::read(self.0, name, listed, max)
        }

        fn stamp(&self, name: &OsStr) -> Option<Stamp> {
            self.1.set(self.1.get() + 1);
            Reader::stamp(self.0, name)
        }
    }

    #[test]
    fn only_a_file_that_is_listed_under_a_number_that_was_read_is_looked_at_before_it_is_read() {
        let (_above, [one, other]) = linked();
        fs::write(other.join("10.0.0.2"), LINE).unwrap();
        thread::sleep(SETTLED_AFTER * 2);
        let mut before = ReadBefore::default();
        let first = read(&mut before, &one);
        let folder = Folder::open(&other).unwrap();
        let counted = Counted(&folder, Cell::new(0));
        for (name, listed) in Reader::entries(&counted).unwrap() {
            let key = MonName::parse(name.to_str().unwrap()).unwrap().into();
            let record = before.read(&counted, &key, listed, WallTime::now()).unwrap().unwrap();
            assert_eq!(record.is_shared_with(&first), name == "10.0.0.1");
        }
        assert_eq!(counted.1.get(), 1);
    }

    #[test]
    fn a_file_that_was_changed_or_replaced_since_is_read_anew() {
        let (_above, [one, other]) = linked();
        thread::sleep(SETTLED_AFTER * 2);
        let mut before = ReadBefore::default();
        assert_eq!(read(&mut before, &one), *LINE.as_bytes());
        let changed = LINE.replace("nfs-a", "nfs-b");
        fs::write(other.join("10.0.0.1"), &changed).unwrap();
        assert_eq!(read(&mut before, &other), *changed.as_bytes(), "a change of the file");
        fs::write(other.join("new"), LINE.replace("nfs-a", "nfs-c")).unwrap();
        fs::rename(other.join("new"), other.join("10.0.0.1")).unwrap();
        assert_eq!(read(&mut before, &other), *LINE.replace("nfs-a", "nfs-c").as_bytes(), "another file");
        assert_eq!(read(&mut before, &one), *changed.as_bytes());
    }

    #[test]
    fn what_no_set_holds_any_more_is_not_kept_for_its_own_sake() {
        let (_above, [one, other]) = linked();
        thread::sleep(SETTLED_AFTER * 2);
        let mut before = ReadBefore::default();
        drop(read(&mut before, &one));
        assert!(before.records.values().all(|(_, record)| record.upgrade().is_none()));
        assert_eq!(read(&mut before, &other), *LINE.as_bytes());
    }
}
