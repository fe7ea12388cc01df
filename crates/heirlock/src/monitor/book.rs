//! Registrations that survive a kill of the agent: a file in the runtime directory to which every change is appended
//! before it is answered. It lies in memory (/run), so that costs a system call and no disk. The cookies in it are
//! addresses in the lock manager's memory, so what another boot wrote is left out.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use heirlock_core::limits::RECORDS_MAX;
use heirlock_core::monitor::Persist;
use heirlock_nsm::MonitorLine;
use heirlock_nsm::limits::LINE_BYTES_MAX;

use super::directory::Found;
use crate::files::{self, trusted};

const NAME: &str = "registrations";

/// Changes after which it is begun anew with what is still true.
const CHANGES_MAX: usize = 200_000;

/// Bytes of a book that can be ours: as many registrations as there may be and [`CHANGES_MAX`] changes, each with its sign.
const BYTES_MAX: usize = (RECORDS_MAX + CHANGES_MAX) * (LINE_BYTES_MAX + 1);

/// The file.
#[derive(Debug)]
pub(super) struct Book {
    path: PathBuf,
    boot: String,
    file: File,
    changes: usize,
}

impl Book {
    /// Opens it. `found` is what lies in the status monitor's directory: where a file was written after the book, by
    /// another status monitor, it knows better; where the book is younger, the book does.
    pub(super) fn open(directory: &Path, found: Vec<Found>) -> io::Result<(Self, Vec<MonitorLine>)> {
        let path = directory.join(NAME);
        let boot = trusted::read_system("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = boot.trim().to_owned();
        let written = trusted::stat(&path).and_then(|meta| meta.modified()).ok();
        let mut lines = indexed::Lines::default();
        let book = read(&path, &boot)?;
        let since = book.as_ref().and(written).unwrap_or(SystemTime::UNIX_EPOCH);
        book.into_iter().flatten().for_each(|line| lines.keep(line));
        found.into_iter().filter(|(_, at)| *at >= since).for_each(|(line, _)| lines.keep(line));
        let lines = lines.into_lines();
        let file = rewrite(&path, &boot, &lines)?;
        Ok((Self { path, boot, file, changes: 0 }, lines))
    }

    /// Writes changes down. What can't be written is said; it is in the status monitor's directory as well.
    pub(super) fn write(&mut self, changes: &[Persist]) {
        if changes.is_empty() {
            return;
        }
        let mut bytes = Vec::new();
        for change in changes {
            let (sign, line) = match change {
                Persist::Keep(line) => (b'+', line),
                Persist::Drop(line) => (b'-', line),
            };
            bytes.push(sign);
            line.render(&mut bytes);
        }
        self.changes += changes.len();
        let written = match self.changes > CHANGES_MAX {
            true => self.begin_anew(&bytes),
            false => self.file.write_all(&bytes),
        };
        if let Err(error) = written {
            tracing::error!(path = %self.path.display(), %error, "a registration could not be written down: after a kill it would be unknown");
        }
    }

    fn begin_anew(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        let lines = read(&self.path, &self.boot)?.unwrap_or_default();
        self.file = rewrite(&self.path, &self.boot, &lines)?;
        self.changes = 0;
        Ok(())
    }
}

/// What the last agent of this boot was told; `None` where there was none.
pub(super) fn take_up(directory: &Path) -> io::Result<Option<Vec<MonitorLine>>> {
    let boot = trusted::read_system("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    read(&directory.join(NAME), boot.trim())
}

/// From now on it would not be true any more.
pub(super) fn close(directory: &Path) -> io::Result<()> {
    trusted::remove(&directory.join(NAME))
}

/// What a book of this boot says; `None` where there is none.
fn read(path: &Path, boot: &str) -> io::Result<Option<Vec<MonitorLine>>> {
    let Some(text) = files::if_present(trusted::read(path, BYTES_MAX))? else { return Ok(None) };
    let mut entries = text.split(|b| *b == b'\n');
    if boot.is_empty() || entries.next() != Some(boot.as_bytes()) {
        return Ok(None);
    }
    let mut kept = indexed::Lines::default();
    for entry in entries {
        // A torn last line was never answered.
        let Some((sign, line)) = entry.split_first() else { continue };
        let Ok(line) = MonitorLine::parse(line) else { continue };
        match sign {
            b'+' => kept.keep(line),
            _ => kept.drop(&line),
        }
    }
    Ok(Some(kept.into_lines()))
}

fn rewrite(path: &Path, boot: &str, lines: &[MonitorLine]) -> io::Result<File> {
    let mut bytes = format!("{boot}\n").into_bytes();
    for line in lines {
        bytes.push(b'+');
        line.render(&mut bytes);
    }
    trusted::replace(path, &bytes, 0o600, false)?;
    trusted::open_to_append(path, BYTES_MAX)
}

mod indexed {
    //! Lines by what makes them the same registration, so that a long book is read in one pass.

    use std::collections::BTreeMap;

    use heirlock_nsm::{MonName, MonitorLine, MyName};

    type Identity = (MonName, MyName, u32, u32, u32);

    #[derive(Default)]
    pub(super) struct Lines(BTreeMap<Identity, MonitorLine>);

    impl Lines {
        pub(super) fn keep(&mut self, line: MonitorLine) {
            self.0.insert(identity(&line), line);
        }

        pub(super) fn drop(&mut self, line: &MonitorLine) {
            self.0.remove(&identity(line));
        }

        pub(super) fn into_lines(self) -> Vec<MonitorLine> {
            self.0.into_values().collect()
        }
    }

    fn identity(line: &MonitorLine) -> Identity {
        (line.mon_name.clone(), line.my_name.clone(), line.prog, line.vers, line.proc_)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use heirlock_nsm::{MonName, MyName};

    use super::*;

    fn line(client: &str, cookie: u8) -> MonitorLine {
        let mut line =
            MonitorLine::generated(MonName::parse(client).unwrap(), MyName::parse("nfs-a").unwrap());
        line.cookie = [cookie; 16];
        line
    }

    #[test]
    fn what_was_written_down_is_known_after_a_kill() {
        let directory = tempfile::tempdir().unwrap();
        let (mut book, lines) =
            Book::open(directory.path(), vec![(line("10.0.0.9", 9), SystemTime::now())]).unwrap();
        assert_eq!(lines, [line("10.0.0.9", 9)], "no book yet");
        book.write(&[Persist::Keep(line("10.0.0.1", 1)), Persist::Keep(line("10.0.0.2", 1))]);
        book.write(&[Persist::Keep(line("10.0.0.1", 7)), Persist::Drop(line("10.0.0.2", 1))]);
        book.file.write_all(b"+0100007f 0001").unwrap(); // killed in the middle of a write
        drop(book);
        // Of an earlier time than the book: taken away since. Of a later time: somebody else's registration.
        let (before, after) = (SystemTime::UNIX_EPOCH, SystemTime::now() + Duration::from_secs(9));
        let found =
            vec![(line("10.0.0.7", 1), before), (line("10.0.0.8", 1), after), (line("10.0.0.9", 2), after)];
        let (_, lines) = Book::open(directory.path(), found).unwrap();
        assert_eq!(lines, [line("10.0.0.1", 7), line("10.0.0.8", 1), line("10.0.0.9", 2)]);
    }

    #[test]
    fn a_book_of_another_boot_means_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut text = b"00000000-another-boot\n+".to_vec();
        line("10.0.0.1", 1).render(&mut text);
        fs::write(directory.path().join(NAME), text).unwrap();
        let (_, lines) = Book::open(directory.path(), Vec::new()).unwrap();
        assert_eq!(lines, []);
    }

    #[test]
    fn a_long_book_is_begun_anew_and_loses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (mut book, _) = Book::open(directory.path(), Vec::new()).unwrap();
        book.changes = CHANGES_MAX;
        book.write(&[Persist::Keep(line("10.0.0.1", 1))]);
        book.write(&[Persist::Keep(line("10.0.0.2", 1))]);
        let (_, lines) = Book::open(directory.path(), Vec::new()).unwrap();
        assert_eq!(lines, [line("10.0.0.1", 1), line("10.0.0.2", 1)]);
    }

    #[test]
    fn the_longest_names_are_known_after_a_kill_and_the_bound_has_room_for_them() {
        let directory = tempfile::tempdir().unwrap();
        let longest = "x".repeat(heirlock_nsm::limits::FILE_NAME_BYTES_MAX);
        let mut line = line(&longest, 1);
        line.my_name = MyName::parse(&"s".repeat(heirlock_nsm::limits::STRING_BYTES_MAX)).unwrap();
        let mut bytes = Vec::new();
        line.render(&mut bytes);
        assert_eq!(bytes.len(), LINE_BYTES_MAX);
        let (mut book, _) = Book::open(directory.path(), Vec::new()).unwrap();
        book.write(&[Persist::Keep(line.clone())]);
        let (_, lines) = Book::open(directory.path(), Vec::new()).unwrap();
        assert_eq!(lines, [line]);
    }
}
