//! The conveyor: places records into the adoptive server's status-monitor directory, and takes them away again.
//!
//! Placed lines are remembered in the local directory, so that the detector doesn't take them for registrations of this
//! server's lock manager, also after a restart of the agent.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use heirlock_core::ledger::lines_to_place;
use heirlock_core::limits::RECORDS_MAX;
use heirlock_core::takeover::Conveyance;
use heirlock_nsm::limits::RECORD_FILE_BYTES_MAX;
use heirlock_nsm::record::{parse_record, render_record};
use heirlock_nsm::{MonName, MonitorLine, MyName};

use crate::files::{self, Folder, Links, Owner, Temporary, trusted};
use crate::limits::CONVEYED_BOOK_BYTES_MAX;

/// The file below the local directory that remembers the placed lines.
const BOOK: &str = "conveyed.json";

/// The name of a book that could not be read.
const BOOK_ASIDE: &str = "conveyed.json.unreadable";

/// Above this many files one sync of the whole file system is cheaper than one each: the agent waits for it.
const SYNC_EACH_MAX: usize = 8;

/// The lines that were placed into one status-monitor directory.
#[derive(Debug)]
pub(crate) struct Conveyor {
    state_directory: PathBuf,
    book: PathBuf,
    placed: Arc<BTreeMap<MonName, Vec<u8>>>,
}

/// Clients whose file is not as it should be, and why. It concerns no other client.
pub(crate) type Unplaced = Vec<(MonName, String)>;

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
        Ok(Self { state_directory: state_directory.to_owned(), book, placed: Arc::new(placed) })
    }

    /// Removes files that a kill left half written. The agent that does so is alone at work in the directory.
    pub(crate) fn tidy(&self) -> io::Result<()> {
        // The folder may hold twice as many files as clients: each file and its new version.
        self.sm()?.tidy(2 * RECORDS_MAX)
    }

    /// The lines that were placed, by file. Where a look holds the map, later lines go into a copy of it.
    pub(crate) fn placed(&self) -> &Arc<BTreeMap<MonName, Vec<u8>>> {
        &self.placed
    }

    /// Places a service's records, and answers which could not be. A file that exists belongs to this server's own status
    /// monitor and gets the lines added, as nfs-utils itself adds a line (support/nsm/file.c).
    ///
    /// # Errors
    /// Where nothing can be placed: the directory is not there, or the lines can't be remembered.
    pub(crate) fn place(
        &mut self,
        records: &BTreeMap<MonName, Vec<u8>>,
        how: Conveyance,
        my_name: &MyName,
    ) -> io::Result<Unplaced> {
        // The server's name under which the kernel registers its clients.
        let node = rustix::system::uname();
        let own = node.nodename().to_str().unwrap_or_default();
        let sm = self.sm()?;
        let mut unplaced = Unplaced::new();
        let mut planned: Vec<(MonName, Vec<u8>)> = Vec::with_capacity(records.len());
        for (client, record) in records {
            let bytes = description(client, record, how, my_name);
            let there = match read(&sm, client) {
                Ok(there) => there.unwrap_or_default(),
                Err(error) => {
                    unplaced.push((client.clone(), error.to_string()));
                    continue;
                }
            };
            let remembered = self.placed.get(client).map(Vec::as_slice).unwrap_or_default();
            let lines = lines_to_place(&there, remembered, &bytes, own);
            match parse_record(&bytes) {
                Ok(_) if lines.is_empty() => {}
                Ok(parsed) if render_record(&parsed.lines) != lines => planned.push((client.clone(), lines)),
                // All of it, to the byte.
                _ => planned.push((client.clone(), bytes)),
            }
        }
        let placed = Arc::make_mut(&mut self.placed);
        for (client, bytes) in &planned {
            let remembered = placed.entry(client.clone()).or_default();
            if !holds(remembered, bytes) {
                remembered.extend(bytes);
            }
        }
        // Remembered before it is placed: a line that is not remembered would count as a registration.
        self.write_book()?;
        let work = planned.iter().map(|(client, bytes)| (client, with_added(&sm, client, bytes)));
        unplaced.extend(carry_out(&sm, work.collect())?);
        Ok(unplaced)
    }

    /// Removes all placed lines; lines that the status monitor wrote stay. Lines that can't be removed are remembered, and
    /// tried again at the next time.
    pub(crate) fn clean_up(&mut self) -> io::Result<Unplaced> {
        let sm = self.sm()?;
        let work = self.placed.iter().map(|(client, bytes)| (client, without(&sm, client, bytes)));
        let left = carry_out(&sm, work.collect())?;
        Arc::make_mut(&mut self.placed).retain(|client, _| left.iter().any(|(other, _)| other == client));
        self.write_book()?;
        Ok(left)
    }

    fn sm(&self) -> io::Result<Folder> {
        Folder::open(&self.state_directory)?.folder("sm")
    }

    fn write_book(&self) -> io::Result<()> {
        let book: BTreeMap<&str, String> = self
            .placed
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

/// Carries it out for all clients together. No file takes its name before the bytes of all are durable; many share one
/// sync. A failure for one client is returned with its name.
fn carry_out(sm: &Folder, work: Vec<(&MonName, io::Result<Work>)>) -> io::Result<Unplaced> {
    let replaced = work.iter().filter(|(_, work)| matches!(work, Ok(Work::Replace(_)))).count();
    let each = replaced <= SYNC_EACH_MAX;
    let mut written: Vec<(&MonName, Temporary)> = Vec::with_capacity(replaced);
    let mut failed = Unplaced::new();
    for (client, work) in work {
        let done = work.and_then(|work| match work {
            Work::Nothing => Ok(()),
            Work::Remove => files::unless_absent(sm.remove(client.as_str())),
            // Owner and mode as statd's own.
            Work::Replace(bytes) => {
                written.push((client, sm.prepare(&bytes, 0o600, Owner::OfFolder, each)?));
                Ok(())
            }
        });
        failed.extend(done.err().map(|error| (client.clone(), error.to_string())));
    }
    if !each && let Err(error) = sm.sync_all() {
        for (_, temporary) in written {
            let _ = sm.discard(&temporary);
        }
        return Err(error);
    }
    for (client, temporary) in written {
        let put = sm.put(&temporary, client.as_str());
        failed.extend(put.err().map(|error| (client.clone(), error.to_string())));
    }
    sm.sync()?;
    Ok(failed)
}

/// The content of a client's file, if there is one.
fn read(sm: &Folder, client: &MonName) -> io::Result<Option<Vec<u8>>> {
    files::if_present(sm.read(client.as_str(), Links::One, RECORD_FILE_BYTES_MAX))
}

/// A client's file with these lines added.
fn with_added(sm: &Folder, client: &MonName, bytes: &[u8]) -> io::Result<Work> {
    let there = read(sm, client)?.unwrap_or_default();
    if holds(&there, bytes) {
        return Ok(Work::Nothing);
    }
    let whole = [there.as_slice(), bytes].concat();
    if whole.len() > RECORD_FILE_BYTES_MAX {
        let (max, found) = (RECORD_FILE_BYTES_MAX, whole.len());
        let why =
            format!("expected at most {max} bytes together with the file that lies there, found {found}");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(Work::Replace(whole))
}

/// A client's file without these lines.
fn without(sm: &Folder, client: &MonName, bytes: &[u8]) -> io::Result<Work> {
    let Some(there) = read(sm, client)? else { return Ok(Work::Nothing) };
    if there == bytes {
        return Ok(Work::Remove);
    }
    let Ok(parsed) = parse_record(&there) else { return Ok(Work::Nothing) };
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
