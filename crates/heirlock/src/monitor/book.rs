//! Registrations that survive a kill of the agent, and of whom the lock manager is still to be told: a file in the runtime
//! directory to which every change is appended before it is answered. It lies in memory (/run), so that costs a system call and no disk. The cookies in it are
//! addresses in the lock manager's memory, so what another boot wrote is left out.
//!
//! After the boot's identity, a line each: `+` and `-` with a registration that came or went, `>` with a client and the
//! number that the lock manager is owed, `<` with a client that it was told of. A reader of an earlier version passes over
//! the last two.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use heirlock_core::limits::RECORDS_MAX;
use heirlock_core::monitor::{Monitor, Persist};
use heirlock_nsm::limits::LINE_BYTES_MAX;
use heirlock_nsm::{MonName, MonitorLine, StateNumber};

use crate::files::{self, trusted};
use crate::host::Host;

const NAME: &str = "registrations";

/// Changes after which it is begun anew with what is still true.
const CHANGES_MAX: usize = 200_000;

/// Changes that are rendered at a time.
const CHANGES_AT_ONCE: usize = 1024;

/// Bytes of a book that can be ours: as many registrations as there may be and [`CHANGES_MAX`] changes, each with its sign.
const BYTES_MAX: usize = (RECORDS_MAX + CHANGES_MAX) * (LINE_BYTES_MAX + 1);

/// After a write that failed, how long until it is tried again to write all of it.
const RETRY: Duration = Duration::from_secs(1);

/// The file.
#[derive(Debug)]
pub(super) struct Book {
    path: PathBuf,
    boot: String,
    file: File,
    changes: usize,
    /// It lacks something that could not be written, since it was last tried to write all.
    lacks: Option<Instant>,
}

/// The content of a book.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// Registrations.
    pub(super) lines: Vec<MonitorLine>,
    /// Of whom the lock manager is to be told, with the number.
    pub(super) owed: BTreeMap<MonName, StateNumber>,
}

impl Book {
    /// Opens it, and answers what it says and when it was last written: where a file of the status monitor's directory is
    /// younger, another status monitor knew better. `None` where there was no book of this boot.
    pub(super) fn open(host: &Host, directory: &Path) -> io::Result<(Self, Option<(Said, SystemTime)>)> {
        let path = directory.join(NAME);
        // Where that is not known, no book is of this boot.
        let boot = host.boot().unwrap_or_default();
        let written = trusted::stat(&path).and_then(|meta| meta.modified()).ok();
        let said = read(&path, &boot)?;
        let Said { lines, owed } = said.clone().unwrap_or_default();
        let file = rewrite(&path, &boot, lines.iter(), owed.iter().map(|(client, state)| (client, *state)))?;
        let since = written.unwrap_or(SystemTime::UNIX_EPOCH);
        Ok((Self { path, boot, file, changes: 0, lacks: None }, said.map(|said| (said, since))))
    }

    /// Writes changes down, which `machine` has taken in; `false` where the book lacks something. A failed write is
    /// reported, and tried again with all else.
    pub(super) fn write(&mut self, changes: &[Persist], machine: &Monitor) -> bool {
        if self.lacks.is_some_and(|since| since.elapsed() < RETRY) {
            return false;
        }
        if changes.is_empty() && self.lacks.is_none() {
            return true;
        }
        self.changes += changes.len();
        let written = match self.lacks.is_some() || self.changes > CHANGES_MAX {
            true => self.begin_anew(machine),
            // In portions: those of very many clients, who are there when an agent starts, are some MiB at once.
            false => changes.chunks(CHANGES_AT_ONCE).try_for_each(|some| self.file.write_all(&render(some))),
        };
        match written {
            Ok(()) if self.lacks.take().is_some() => {
                tracing::info!(path = %self.path.display(), "all registrations are written down again, in {}", self.path.display());
            }
            Ok(()) => {}
            Err(error) => {
                if self.lacks.replace(Instant::now()).is_none() {
                    tracing::error!(path = %self.path.display(), %error, "a registration, or a call to the lock manager, could not be written down in {}, so after a kill it would be unknown; make room there: {error}", self.path.display());
                }
            }
        }
        self.lacks.is_none()
    }

    fn begin_anew(&mut self, machine: &Monitor) -> io::Result<()> {
        self.file = rewrite(&self.path, &self.boot, machine.all_lines(), machine.all_owed())?;
        self.changes = 0;
        Ok(())
    }
}

fn render(changes: &[Persist]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for change in changes {
        match change {
            Persist::Keep(line) => render_line(b'+', line, &mut bytes),
            Persist::Drop(line) => render_line(b'-', line, &mut bytes),
            Persist::Owe(client, state) => render_owed(client, *state, &mut bytes),
            Persist::Paid(client) => bytes.extend(format!("<{client}\n").into_bytes()),
        }
    }
    bytes
}

fn render_line(sign: u8, line: &MonitorLine, into: &mut Vec<u8>) {
    into.push(sign);
    line.render(into);
}

fn render_owed(client: &MonName, state: StateNumber, into: &mut Vec<u8>) {
    into.extend(format!(">{client} {}\n", state.0).into_bytes());
}

/// A client and a number.
fn parse_owed(text: &[u8]) -> Option<(MonName, StateNumber)> {
    let (client, state) = std::str::from_utf8(text).ok()?.split_once(' ')?;
    Some((MonName::parse(client).ok()?, StateNumber(state.parse().ok()?)))
}

/// The registrations and calls that the last agent of this boot knew; `None` where there was none.
pub(super) fn take_up(host: &Host, directory: &Path) -> io::Result<Option<Said>> {
    read(&directory.join(NAME), &host.boot().unwrap_or_default())
}

/// From now on it would not be true any more.
pub(super) fn close(directory: &Path) -> io::Result<()> {
    trusted::remove(&directory.join(NAME))
}

/// The content of a book of this boot; `None` where there is none.
fn read(path: &Path, boot: &str) -> io::Result<Option<Said>> {
    let Some(text) = files::if_present(trusted::read(path, BYTES_MAX))? else { return Ok(None) };
    let mut entries = text.split(|b| *b == b'\n');
    if boot.is_empty() || entries.next() != Some(boot.as_bytes()) {
        return Ok(None);
    }
    let mut kept = indexed::Lines::default();
    let mut owed = BTreeMap::new();
    for entry in entries {
        // A torn last line was never answered.
        let Some((sign, rest)) = entry.split_first() else { continue };
        match (sign, MonitorLine::parse(rest)) {
            (b'+', Ok(line)) => kept.keep(line),
            (b'-', Ok(line)) => kept.drop(&line),
            (b'>', _) => owed.extend(parse_owed(rest)),
            (b'<', _) => {
                let client = std::str::from_utf8(rest).ok().and_then(|text| MonName::parse(text).ok());
                client.map(|client| owed.remove(&client));
            }
            _ => {}
        }
    }
    Ok(Some(Said { lines: kept.into_lines(), owed }))
}

fn rewrite<'a>(
    path: &Path,
    boot: &str,
    lines: impl Iterator<Item = &'a MonitorLine>,
    owed: impl Iterator<Item = (&'a MonName, StateNumber)>,
) -> io::Result<File> {
    let mut bytes = format!("{boot}\n").into_bytes();
    lines.for_each(|line| render_line(b'+', line, &mut bytes));
    owed.for_each(|(client, state)| render_owed(client, state, &mut bytes));
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

    use heirlock_core::monitor::{Rules, WhenUnprotected};
    use heirlock_nsm::{MonName, MyName};

    use super::*;

    fn line(client: &str, cookie: u8) -> MonitorLine {
        let mut line =
            MonitorLine::generated(MonName::parse(client).unwrap(), MyName::parse("nfs-a").unwrap());
        line.cookie = [cookie; 16];
        line
    }

    fn said(lines: &[MonitorLine], owed: &[(&str, u32)]) -> Said {
        let owed = owed.iter().map(|(client, state)| (name(client), StateNumber(*state)));
        Said { lines: lines.to_vec(), owed: owed.collect() }
    }

    fn name(client: &str) -> MonName {
        MonName::parse(client).unwrap()
    }

    /// A machine that knows this.
    fn knowing(Said { lines, owed }: Said) -> Monitor {
        let rules = Rules { mon_timeout: Duration::ZERO, when_unprotected: WhenUnprotected::Refuse };
        Monitor::resumed(rules, lines, owed)
    }

    #[test]
    fn a_registration_in_the_book_is_known_after_a_kill() {
        let directory = tempfile::tempdir().unwrap();
        let (mut book, lines) = Book::open(&Host::here(), directory.path()).unwrap();
        assert_eq!(lines, None, "no book yet");
        let machine = knowing(Said::default());
        book.write(&[Persist::Keep(line("10.0.0.1", 1)), Persist::Keep(line("10.0.0.2", 1))], &machine);
        book.write(
            &[
                Persist::Owe(name("10.0.0.1"), StateNumber(5)),
                Persist::Owe(name("b.example"), StateNumber(7)),
            ],
            &machine,
        );
        book.write(&[Persist::Paid(name("10.0.0.1"))], &machine);
        book.write(&[Persist::Keep(line("10.0.0.1", 7)), Persist::Drop(line("10.0.0.2", 1))], &machine);
        book.file.write_all(b"+0100007f 0001").unwrap(); // killed in the middle of a write
        drop(book);
        let before = SystemTime::now();
        let (_, found) = Book::open(&Host::here(), directory.path()).unwrap();
        let expected = said(&[line("10.0.0.1", 7)], &[("b.example", 7)]);
        let (lines, written) = found.unwrap();
        assert_eq!(lines, expected);
        assert!(written <= before, "it tells when it was written, not when it was opened");
        // The new book has the same content.
        assert_eq!(reopened(directory.path()), expected);
    }

    fn reopened(directory: &Path) -> Said {
        Book::open(&Host::here(), directory).unwrap().1.unwrap().0
    }

    #[test]
    fn a_book_of_another_boot_means_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut text = b"00000000-another-boot\n+".to_vec();
        line("10.0.0.1", 1).render(&mut text);
        text.extend(b">10.0.0.1 5\n");
        fs::write(directory.path().join(NAME), text).unwrap();
        assert_eq!(Book::open(&Host::here(), directory.path()).unwrap().1, None);
    }

    #[test]
    fn a_long_book_is_begun_anew_and_loses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (mut book, _) = Book::open(&Host::here(), directory.path()).unwrap();
        book.changes = CHANGES_MAX;
        let first = said(&[line("10.0.0.1", 1)], &[("10.0.0.1", 5)]);
        let changes = [Persist::Keep(line("10.0.0.1", 1)), Persist::Owe(name("10.0.0.1"), StateNumber(5))];
        assert!(book.write(&changes, &knowing(first.clone())));
        assert_eq!(book.changes, 0);
        assert!(book.write(&[Persist::Keep(line("10.0.0.2", 1))], &knowing(first)));
        assert_eq!(
            reopened(directory.path()),
            said(&[line("10.0.0.1", 1), line("10.0.0.2", 1)], &[("10.0.0.1", 5)])
        );
    }

    #[test]
    fn changes_of_more_than_one_portion_are_all_in_the_book_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let (mut book, _) = Book::open(&Host::here(), directory.path()).unwrap();
        let lines: Vec<_> =
            (0..CHANGES_AT_ONCE * 2 + 1).map(|n| line(&format!("client-{n:05}"), 1)).collect();
        let mut changes: Vec<_> = lines.iter().cloned().map(Persist::Keep).collect();
        changes.push(Persist::Drop(lines[0].clone()));
        assert!(book.write(&changes, &knowing(Said::default())));
        assert_eq!(reopened(directory.path()), said(&lines[1..], &[]));
    }

    #[test]
    fn a_registration_that_could_not_be_written_is_not_taken_for_written_and_is_caught_up() {
        let directory = tempfile::tempdir().unwrap();
        let (mut book, _) = Book::open(&Host::here(), directory.path()).unwrap();
        let whole = said(&[line("10.0.0.1", 1)], &[("10.0.0.1", 5)]);
        let machine = knowing(whole.clone());
        // No more room there: a file that is open for reading alone can't be written.
        book.file = File::open(directory.path().join(NAME)).unwrap();
        assert!(!book.write(&[Persist::Keep(line("10.0.0.1", 1))], &machine));
        assert!(!book.write(&[], &machine), "not tried again at once");
        book.lacks = book.lacks.and_then(|since| since.checked_sub(RETRY));
        assert!(book.write(&[], &machine), "and then with all that is true");
        assert_eq!(reopened(directory.path()), whole);
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
        let (mut book, _) = Book::open(&Host::here(), directory.path()).unwrap();
        let longest = said(&[line.clone()], &[]);
        assert!(book.write(&[Persist::Keep(line)], &knowing(longest.clone())));
        assert_eq!(reopened(directory.path()), longest);
    }
}
