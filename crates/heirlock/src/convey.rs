//! The conveyor: places records into the adoptive server's status-monitor directory, and takes them away again.
//!
//! Placed lines are remembered in the local directory, so that the detector doesn't take them for registrations of this
//! server's lock manager, also after a restart of the agent.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use heirlock_agent::{Placed, Unplaced};
use heirlock_core::Records;
use heirlock_core::ledger::lines_to_place;
use heirlock_core::limits::RECORDS_MAX;
use heirlock_core::takeover::Conveyance;
use heirlock_nsm::limits::RECORD_FILE_BYTES_MAX;
use heirlock_nsm::record::{parse_record, render_record};
use heirlock_nsm::{MonName, MonitorLine, MyName};

use crate::files::syncs::{Batch, Syncs};
use crate::files::{self, Folder, Links, Owner, Temporary, trusted};
use crate::first_round::FirstRounds;
use crate::limits::{CONVEYED_BOOK_BYTES_MAX, PLACING_GIVES_WAY_MAX};

/// The file below the local directory that remembers the placed lines.
const BOOK: &str = "conveyed.json";

/// The name of a book that could not be read.
const BOOK_ASIDE: &str = "conveyed.json.unreadable";

/// How often a client's file is written anew where the status monitor changes it at that very moment.
const CHANGES_MET_MAX: usize = 16;

/// The lines that were placed into one status-monitor directory. One thread places and takes away; a clone in another thread
/// knows the same lines.
#[derive(Debug, Clone)]
pub(crate) struct Conveyor {
    state_directory: PathBuf,
    book: PathBuf,
    placed: Arc<Mutex<Placed>>,
    /// Held while a file is read and changed.
    files: Arc<Mutex<()>>,
    /// The notifiers that files give way to.
    notifiers: FirstRounds,
}

impl Conveyor {
    /// Remembers the lines that an earlier run of the agent placed. A book that can't be read is put aside, and the agent
    /// goes on: lines that were placed then count as registered here, so clients are told once more than they need.
    ///
    /// # Errors
    /// Where a book that can't be read can't be put aside either.
    pub(crate) fn open(state_directory: &Path, local_directory: &Path) -> io::Result<Self> {
        let book = local_directory.join(BOOK);
        let read = files::if_present(trusted::read(&book, CONVEYED_BOOK_BYTES_MAX));
        let placed = match read.and_then(|bytes| bytes.as_deref().map(parse_book).transpose()) {
            Ok(placed) => placed.unwrap_or_default(),
            Err(error) => {
                let folder = Folder::open(local_directory)?;
                folder.rename(BOOK, &folder, BOOK_ASIDE)?;
                let (book, aside) = (book.display(), local_directory.join(BOOK_ASIDE));
                let aside = aside.display();
                tracing::error!(%book, %error, "{book} can't be read, so clients whose records were placed here count as registered here; it was moved to {aside}: {error}");
                BTreeMap::new()
            }
        };
        let placed = Arc::new(Mutex::new(Arc::new(placed)));
        let (files, notifiers) = (Arc::default(), FirstRounds::default());
        Ok(Self { state_directory: state_directory.to_owned(), book, placed, files, notifiers })
    }

    /// The same, whose files give way to clients that these notifiers tell for the first time.
    pub(crate) fn giving_way_to(self, notifiers: FirstRounds) -> Self {
        Self { notifiers, ..self }
    }

    /// Removes files that a kill left half written. The agent that does so is alone at work in the directory.
    pub(crate) fn tidy(&self) -> io::Result<()> {
        // The folder may hold twice as many files as clients: each file and its new version.
        self.sm()?.tidy(2 * RECORDS_MAX)
    }

    /// The lines that were placed, by file, and those that are about to be.
    pub(crate) fn placed(&self) -> Placed {
        Arc::clone(&self.placed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn remember(&self, placed: BTreeMap<MonName, Vec<u8>>) -> io::Result<()> {
        self.write_book(&placed)?;
        *self.placed.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(placed);
        Ok(())
    }

    /// As long as this is held no file is changed here. It is held for one file at a time.
    pub(crate) fn hold(&self) -> MutexGuard<'_, ()> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Places a service's records, and answers which could not be. A file that exists belongs to this server's own status
    /// monitor and gets the lines added, as nfs-utils itself adds a line (support/nsm/file.c).
    ///
    /// # Errors
    /// Where nothing can be placed: the directory is not there, or the lines can't be remembered.
    pub(crate) fn place(&self, records: &Records, how: Conveyance, my_name: &MyName) -> io::Result<Unplaced> {
        // The server's name under which the kernel registers its clients.
        let node = rustix::system::uname();
        let own = node.nodename().to_str().unwrap_or_default();
        let sm = self.sm()?;
        let mut unplaced = Unplaced::new();
        let mut left = PLACING_GIVES_WAY_MAX;
        let mut planned: Vec<(MonName, Vec<u8>, Option<Vec<u8>>)> = Vec::with_capacity(records.len());
        let mut placed = BTreeMap::clone(&self.placed());
        for (client, record) in records.conveyed() {
            let bytes = description(client, record, how, my_name);
            self.notifiers.give_way(&mut left);
            let there = match read(&sm, client) {
                Ok(there) => there,
                Err(error) => {
                    unplaced.push((client.clone(), error.to_string()));
                    continue;
                }
            };
            let remembered = placed.get(client).map(Vec::as_slice).unwrap_or_default();
            let lines = lines_to_place(there.as_deref().unwrap_or_default(), remembered, &bytes, own);
            match parse_record(&bytes) {
                Ok(_) if lines.is_empty() => {}
                Ok(parsed) if render_record(&parsed.lines) != lines => {
                    planned.push((client.clone(), lines, there));
                }
                // All of it, to the byte.
                _ => planned.push((client.clone(), bytes, there)),
            }
        }
        for (client, bytes, _) in &planned {
            let remembered = placed.entry(client.clone()).or_default();
            if !holds(remembered, bytes) {
                remembered.extend(bytes);
            }
        }
        // Remembered before it is placed: a line that is not remembered would count as a registration.
        self.remember(placed)?;
        let changes = planned.iter_mut().map(|(client, bytes, there)| {
            let change = FileChange::of(client, bytes, with_added, there.take());
            change.map_err(|error| (client.clone(), error.to_string()))
        });
        unplaced.extend(self.change(&sm, changes, &mut left)?);
        Ok(unplaced)
    }

    /// Removes all placed lines; lines that the status monitor wrote stay. Lines that can't be removed are remembered, and
    /// tried again at the next time.
    pub(crate) fn clean_up(&self) -> io::Result<Unplaced> {
        let sm = self.sm()?;
        let placed = self.placed();
        let changes = placed.iter().map(|(client, bytes)| {
            let change = FileChange::plan(&sm, client, bytes, without);
            change.map_err(|error| (client.clone(), error.to_string()))
        });
        let left = self.change(&sm, changes, &mut { Duration::ZERO })?;
        let stays: BTreeSet<&MonName> = left.iter().map(|(client, _)| client).collect();
        let mut placed = BTreeMap::clone(&placed);
        placed.retain(|client, _| stays.contains(client));
        self.remember(placed)?;
        Ok(left)
    }

    /// Changes the files of all these clients. No file takes its name before the bytes of all are durable. Each failure for one
    /// client is answered with its name. As long as clients are told for the first time, and something of that time is left, it
    /// waits.
    fn change<'a>(
        &self,
        sm: &Folder,
        changes: impl Iterator<Item = Result<FileChange<'a>, (MonName, String)>>,
        left: &mut Duration,
    ) -> io::Result<Unplaced> {
        let (syncs, mut failed) = (Syncs::new("convey-sync", Arc::default()), Unplaced::new());
        let (mut batch, mut prepared) = (syncs.batch(), Vec::new());
        for change in changes {
            self.notifiers.give_way(left);
            match change.and_then(|change| change.begin(sm, &mut batch)) {
                Ok(change) => prepared.push(change),
                Err(why) => failed.push(why),
            }
        }
        let unsynced: BTreeMap<&MonName, io::Error> =
            batch.end().into_iter().filter_map(|(client, synced)| Some((client, synced.err()?))).collect();
        for (change, temporary) in prepared {
            self.notifiers.give_way(left);
            let client = change.client;
            if let Some(error) = unsynced.get(client) {
                // The failure before this one is the one to be told.
                let _ = temporary.map(|temporary| sm.discard(&temporary));
                failed.push((client.clone(), error.to_string()));
                continue;
            }
            let held = self.hold();
            let done = change.carry_out(sm, temporary);
            drop(held);
            failed.extend(done.err().map(|error| (client.clone(), error.to_string())));
        }
        sm.sync()?;
        Ok(failed)
    }

    fn sm(&self) -> io::Result<Folder> {
        Folder::open(&self.state_directory)?.folder("sm")
    }

    fn write_book(&self, placed: &BTreeMap<MonName, Vec<u8>>) -> io::Result<()> {
        let book: BTreeMap<&str, String> = placed
            .iter()
            .map(|(name, bytes)| (name.as_str(), String::from_utf8_lossy(bytes).into_owned()))
            .collect();
        let written =
            trusted::replace(&self.book, serde_json::to_string_pretty(&book)?.as_bytes(), 0o600, true);
        written.map_err(|error| {
            let book = self.book.display();
            io::Error::new(
                error.kind(),
                format!("{book}, which remembers the placed lines, can't be written: {error}"),
            )
        })
    }
}

/// The change of a client's file.
enum Work {
    Nothing,
    Replace(Vec<u8>),
    Remove,
}

/// The work for a client's file with this content, for the sake of these lines.
type How = fn(Option<&[u8]>, &[u8]) -> io::Result<Work>;

/// A change of one client's file. The status monitor changes the same file when it likes: a registration that it wrote
/// meanwhile stays.
struct FileChange<'a> {
    client: &'a MonName,
    lines: &'a [u8],
    how: How,
    /// The file's content when the change was planned.
    there: Option<Vec<u8>>,
    work: Work,
}

impl<'a> FileChange<'a> {
    fn plan(sm: &Folder, client: &'a MonName, lines: &'a [u8], how: How) -> io::Result<Self> {
        Self::of(client, lines, how, read(sm, client)?)
    }

    /// The change of a file with this content.
    fn of(client: &'a MonName, lines: &'a [u8], how: How, there: Option<Vec<u8>>) -> io::Result<Self> {
        let work = how(there.as_deref(), lines)?;
        Ok(Self { client, lines, how, there, work })
    }

    /// Begins to write the new file, under a name that no status monitor reads, to be synced with others.
    fn begin(
        self,
        sm: &Folder,
        batch: &mut Batch<'_, &'a MonName>,
    ) -> Result<(Self, Option<Temporary>), (MonName, String)> {
        let Work::Replace(bytes) = &self.work else { return Ok((self, None)) };
        let temporary = Cell::new(None);
        let begun = batch.add(self.client, || {
            let (name, file) = sm.prepare_begun(bytes, 0o600, Owner::OfFolder)?;
            temporary.set(Some(name));
            Ok(Box::new(file))
        });
        begun.map_err(|error| (self.client.clone(), error.to_string()))?;
        Ok((self, temporary.take()))
    }

    /// The new file, under a name that no status monitor reads. Owner and mode as statd's own.
    fn prepare(&self, sm: &Folder) -> io::Result<Option<Temporary>> {
        match &self.work {
            Work::Replace(bytes) => sm.prepare(bytes, 0o600, Owner::OfFolder, true).map(Some),
            Work::Nothing | Work::Remove => Ok(None),
        }
    }

    /// Carries it out. Where the file has changed since, the change is planned anew.
    fn carry_out(mut self, sm: &Folder, mut temporary: Option<Temporary>) -> io::Result<()> {
        for _ in 0..CHANGES_MET_MAX {
            match self.try_carry_out(sm, temporary)? {
                Met::Nothing => return Ok(()),
                Met::AChange => {
                    self = Self::plan(sm, self.client, self.lines, self.how)?;
                    temporary = self.prepare(sm)?;
                }
            }
        }
        if let Some(temporary) = temporary {
            let _ = sm.discard(&temporary);
        }
        Err(io::Error::other(
            "expected a file that stays as it is for a moment, found another one at each look",
        ))
    }

    fn try_carry_out(&self, sm: &Folder, temporary: Option<Temporary>) -> io::Result<Met> {
        let name = self.client.as_str();
        let Some(there) = &self.there else {
            let Some(temporary) = temporary else { return Ok(Met::Nothing) };
            // Atomically: a registration that comes in this moment makes the file as well.
            return match sm.put_new(&temporary, name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Met::AChange),
                put => put.map(|()| Met::Nothing),
            };
        };
        if matches!(self.work, Work::Nothing) {
            return Ok(Met::Nothing);
        }
        let now = read(sm, self.client);
        if !matches!(&now, Ok(now) if now.as_ref() == Some(there)) {
            if let Some(temporary) = temporary {
                let _ = sm.discard(&temporary);
            }
            return now.map(|_| Met::AChange);
        }
        match temporary {
            Some(temporary) => sm.put(&temporary, name)?,
            None => files::unless_absent(sm.remove(name))?,
        }
        Ok(Met::Nothing)
    }
}

/// Whether the status monitor was at the same file.
enum Met {
    Nothing,
    /// The status monitor has changed the file since the change was planned.
    AChange,
}

/// The content of a client's file, if there is one.
fn read(sm: &Folder, client: &MonName) -> io::Result<Option<Vec<u8>>> {
    files::if_present(sm.read(client.as_str(), Links::One, RECORD_FILE_BYTES_MAX))
}

/// A file with these lines added.
fn with_added(there: Option<&[u8]>, bytes: &[u8]) -> io::Result<Work> {
    let there = there.unwrap_or_default();
    if holds(there, bytes) {
        return Ok(Work::Nothing);
    }
    let whole = [there, bytes].concat();
    if whole.len() > RECORD_FILE_BYTES_MAX {
        let (max, found) = (RECORD_FILE_BYTES_MAX, whole.len());
        let why =
            format!("expected at most {max} bytes together with the file that lies there, found {found}");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(Work::Replace(whole))
}

/// A file without these lines.
#[expect(clippy::unnecessary_wraps, reason = "as the other one")]
fn without(there: Option<&[u8]>, bytes: &[u8]) -> io::Result<Work> {
    let Some(there) = there else { return Ok(Work::Nothing) };
    if there == bytes {
        return Ok(Work::Remove);
    }
    let Ok(parsed) = parse_record(there) else { return Ok(Work::Nothing) };
    let placed = parse_record(bytes).map(|p| p.lines).unwrap_or_default();
    let kept: Vec<MonitorLine> = parsed.lines.iter().filter(|line| !placed.contains(line)).cloned().collect();
    Ok(match kept.len() {
        unchanged if unchanged == parsed.lines.len() => Work::Nothing,
        0 => Work::Remove,
        _ => Work::Replace(render_record(&kept)),
    })
}

/// The lines that are placed for one client.
fn description(client: &MonName, record: &[u8], how: Conveyance, my_name: &MyName) -> Vec<u8> {
    match how {
        Conveyance::Copy => record.to_vec(),
        Conveyance::Generate => render_record(&[MonitorLine::generated(client.clone(), my_name.clone())]),
    }
}

fn holds(there: &[u8], lines: &[u8]) -> bool {
    let (Ok(there), Ok(lines)) = (parse_record(there), parse_record(lines)) else { return false };
    lines.lines.iter().all(|line| there.lines.contains(line))
}

fn parse_book(bytes: &[u8]) -> io::Result<BTreeMap<MonName, Vec<u8>>> {
    let book: BTreeMap<String, String> = serde_json::from_slice(bytes)?;
    Ok(book
        .into_iter()
        .filter_map(|(name, text)| Some((MonName::parse(&name).ok()?, text.into_bytes())))
        .collect())
}

#[cfg(test)]
mod tests;
