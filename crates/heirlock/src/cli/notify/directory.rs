//! A status monitor's directory, taken over for one round of notifications.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::Path;

use heirlock_core::limits::RECORDS_MAX;
use heirlock_core::notify::Destination;
use heirlock_nsm::record::{FileKind, RecordError, classify_file_name, parse_record};
use heirlock_nsm::state::StateError;
use heirlock_nsm::{MonName, MyName, StateNumber, limits};
use rustix::fs::FileType;

use super::super::exit::{Exit, Failed};
use crate::files::{self, Folder, Links};
use crate::monitor;
use crate::notifier::destination_of;

/// A directory with `sm`, `sm.bak` and `state`. Only one of these programs at a time works on it.
#[derive(Debug)]
pub(super) struct Directory {
    /// Its lock is held as long as it is open.
    base: Folder,
    sm: Folder,
    sm_bak: Folder,
}

/// Whether the number in `state` is counted up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counting {
    /// Go on to the number of the next life.
    Up,
    /// Stay.
    Keep,
}

/// A client that is to be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Client {
    /// The name of its file.
    pub(super) key: MonName,
    /// Its addresses, as far as they are known without a name service.
    pub(super) addresses: Vec<Destination>,
}

/// The clients that are to be told, and all else that was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) clients: Vec<Client>,
    /// The server's own names in the records; only where they were asked for.
    pub(super) my_names: BTreeSet<MyName>,
    /// Files that may be a client's record and can't be told, and why.
    pub(super) passed_over: Vec<(String, String)>,
    pub(super) problems: Vec<String>,
}

impl Directory {
    pub(super) fn open(path: &Path) -> Result<Self, Failed> {
        let usage = |name: &'static str| {
            move |error: io::Error| {
                let what = "expected a directory with sm and sm.bak, as rpc.statd keeps it";
                Failed::new(Exit::Usage, format!("{}: {what}: {error}", path.join(name).display()))
            }
        };
        let base = Folder::open(path).map_err(usage(""))?;
        let sm = base.folder("sm").map_err(usage("sm"))?;
        let sm_bak = base.folder("sm.bak").map_err(usage("sm.bak"))?;
        if base.try_lock().map_err(failed("lock", path))? {
            return Ok(Self { base, sm, sm_bak });
        }
        let what = format!("another 'heirlock notify' tells the clients of {}", path.display());
        Err(Failed::new(Exit::Refused, what))
    }

    /// Moves the records in `sm` to `sm.bak` if `move_records`, and returns the clients there. A file whose name is an
    /// address is a client whatever it holds, so that a record which a crash tore is told as well. Files are read only
    /// where their name is no address, or where `read_names`.
    pub(super) fn take_over(&mut self, move_records: bool, read_names: bool) -> Result<Found, Failed> {
        let mut found = Found::default();
        if move_records {
            self.move_records(&mut found.passed_over)?;
        }
        for key in records(&self.sm_bak, "sm.bak", &mut found.passed_over)? {
            let addresses = destination_of(&key).into_iter().collect();
            let mut client = Client { key, addresses };
            if client.addresses.is_empty() || read_names {
                self.read(&mut client, &mut found);
            }
            // Also where no way to it is known: it is told of then.
            found.clients.push(client);
        }
        Ok(found)
    }

    fn move_records(&mut self, passed_over: &mut Vec<(String, String)>) -> Result<(), Failed> {
        let records = records(&self.sm, "sm", passed_over)?;
        if records.is_empty() {
            return Ok(());
        }
        if self.exchange(records.len()) {
            return sync(&self.base);
        }
        for key in records {
            // An obstacle in its way concerns this client alone.
            if let Err(error) = self.sm.rename(key.as_str(), &self.sm_bak, key.as_str()) {
                let to = self.sm_bak.path().display();
                passed_over.push((format!("sm/{key}"), format!("it can't be moved to {to}: {error}")));
            }
        }
        sync(&self.sm_bak)?;
        sync(&self.sm)
    }

    /// Moves all records at once, by exchanging the two folders: a hundred thousand moved one by one take seconds of a
    /// grace period. Only where nothing else is in either of them and both are the same user's.
    fn exchange(&mut self, records: usize) -> bool {
        let entries = |folder: &Folder| folder.names(2 * RECORDS_MAX).map_or(usize::MAX, |names| names.len());
        let whose = |folder: &Folder| folder.stat().ok().map(|stat| (stat.st_uid, stat.st_gid, stat.st_mode));
        let alike = whose(&self.sm).is_some() && whose(&self.sm) == whose(&self.sm_bak);
        if !alike || entries(&self.sm_bak) != 0 || entries(&self.sm) != records {
            return false;
        }
        // Not every file system can; then they are moved one by one.
        if self.base.exchange("sm", "sm.bak").is_err() {
            return false;
        }
        // The folders that are open go by the other's name now; if something else took their names, nothing was moved.
        match (self.base.folder("sm"), self.base.folder("sm.bak")) {
            (Ok(sm), Ok(sm_bak)) => {
                (self.sm, self.sm_bak) = (sm, sm_bak);
                true
            }
            _ => false,
        }
    }

    /// The address that a client registered under, and the names under which it knows this server.
    fn read(&self, client: &mut Client, found: &mut Found) {
        let path = self.sm_bak.path().join(client.key.as_str());
        let read = self.sm_bak.read(client.key.as_str(), Links::One, limits::RECORD_FILE_BYTES_MAX);
        let parsed = read.map_err(|error| error.to_string());
        match parsed.and_then(|bytes| parse_record(&bytes).map_err(|error| error.to_string())) {
            Ok(record) => {
                for line in record.lines {
                    client.addresses.extend(destination_of(&line.mon_name));
                    found.my_names.insert(line.my_name);
                }
                client.addresses.sort_unstable();
                client.addresses.dedup();
                // The file's own name comes first: it is where sm-notify sends to.
                if let Some(own) = destination_of(&client.key) {
                    client.addresses.retain(|address| *address != own);
                    client.addresses.insert(0, own);
                }
            }
            Err(why) => found.problems.push(format!("{}: {why}", path.display())),
        }
    }

    /// The number to send. It is durable before this returns.
    pub(super) fn count_state(&self, counting: Counting) -> Result<StateNumber, Failed> {
        let path = self.base.path().join("state");
        let before = match monitor::read_state(&self.base) {
            Ok(bytes) => match StateNumber::parse_file(&bytes) {
                Ok(number) => Some(number),
                Err(StateError::Empty) => None,
                Err(error) => {
                    let what = "write the number of its last life there, or remove it: then clients are told under 3";
                    return Err(Failed::new(Exit::Refused, format!("{}: {error}; {what}", path.display())));
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("read", &path)(error)),
        };
        match (before, counting) {
            (Some(number), Counting::Keep) if number.is_odd() => return Ok(number),
            // As sm-notify -n does: the file stays as it is.
            (Some(number), Counting::Keep) => return Ok(number.next_odd()),
            _ => {}
        }
        let number = StateNumber::after_restart(before);
        // rpc.statd reads it as another user.
        let written = self.base.replace_as_it_is("state", &number.render_file(), 0o600);
        written.map_err(failed("write", &path))?;
        Ok(number)
    }

    /// Takes a client off the list.
    pub(super) fn remove(&self, client: &MonName) -> Result<(), String> {
        files::unless_absent(self.sm_bak.remove(client.as_str())).map_err(|error| {
            let path = self.sm_bak.path().join(client.as_str());
            format!("can't remove {}: {error}; it will be told again", path.display())
        })
    }

    /// Makes removals durable.
    pub(super) fn sync(&self) -> Result<(), String> {
        self.sm_bak.sync().map_err(|error| format!("can't sync {}: {error}", self.sm_bak.path().display()))
    }
}

/// The records in a folder. Any other entry may be a client's record, and is named.
fn records(
    folder: &Folder,
    name: &str,
    passed_over: &mut Vec<(String, String)>,
) -> Result<Vec<MonName>, Failed> {
    let (mut records, mut temporary) = (Vec::new(), Vec::new());
    for (file, listed) in folder.entries(2 * RECORDS_MAX).map_err(failed("read", folder.path()))? {
        let shown = format!("{name}/{}", file.as_encoded_bytes().escape_ascii());
        match classify_file_name(&file) {
            FileKind::Record(_) if records.len() >= RECORDS_MAX => {
                let what = format!("{} holds more than {RECORDS_MAX} records", folder.path().display());
                return Err(Failed::new(Exit::Refused, what));
            }
            FileKind::Record(key) if is_file(folder, &file, listed.kind) => records.push(key),
            FileKind::Hidden => {}
            FileKind::Temporary => temporary.push(file),
            FileKind::Record(_) => {
                passed_over.push((shown, "expected a file, found something else; it is left alone".into()));
            }
            FileKind::Refused(error) => passed_over.push((shown, format!("{error}; it is left alone"))),
        }
    }
    // A file that nfs-utils did not come to rename is empty or torn, or the client is on record beside it. Any other one
    // is a client of that name.
    let known: BTreeSet<&str> = records.iter().map(MonName::as_str).collect();
    for file in temporary {
        let text = file.to_string_lossy();
        let is_known =
            text.strip_suffix(".new").is_some_and(|client| known.contains(client.trim_start_matches('.')));
        let read = || folder.read(&file, Links::One, limits::RECORD_FILE_BYTES_MAX);
        if !is_known && read().is_ok_and(|bytes| is_whole(&bytes)) {
            let why =
                "it holds a whole record under the name of a temporary file; rename it, and tell the client";
            passed_over.push((format!("{name}/{}", file.as_encoded_bytes().escape_ascii()), why.into()));
        }
    }
    Ok(records)
}

/// Some file systems don't say in a folder what its entries are.
fn is_file(folder: &Folder, file: &OsStr, kind: FileType) -> bool {
    let look =
        || folder.stat_of(file).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile);
    kind == FileType::RegularFile || (kind == FileType::Unknown && look())
}

fn sync(folder: &Folder) -> Result<(), Failed> {
    folder.sync().map_err(failed("sync", folder.path()))
}

/// Whether there is a whole line, whatever its names are.
fn is_whole(bytes: &[u8]) -> bool {
    matches!(parse_record(bytes), Ok(_) | Err(RecordError::Name { .. }))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failed + use<> {
    let path = path.display().to_string();
    move |error| Failed::new(Exit::Failed, format!("can't {action} {path}: {error}"))
}
