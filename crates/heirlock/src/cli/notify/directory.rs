//! A status monitor's directory, taken over for one round of notifications.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use heirlock_core::limits::RECORDS_MAX;
use heirlock_core::notify::Destination;
use heirlock_nsm::record::{FileKind, RecordError, classify_file_name, parse_record};
use heirlock_nsm::state::StateError;
use heirlock_nsm::{MonName, MyName, StateNumber, limits};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, renameat, renameat_with, unlinkat};

use super::super::exit::{Exit, Failed};
use crate::notifier::destination_of;

/// A directory with `sm`, `sm.bak` and `state`. Only one of these programs at a time works on it.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    sm: File,
    sm_bak: File,
    /// Its lock is held as long as it is open.
    _locked: File,
}

/// What `state` is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counting {
    /// Go on to the number of the next life.
    Up,
    /// Stay.
    Keep,
}

/// One that is to be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Client {
    /// The name of its file.
    pub(super) key: MonName,
    /// Its addresses, as far as they are known without asking anybody.
    pub(super) addresses: Vec<Destination>,
}

/// Who is to be told.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) clients: Vec<Client>,
    /// The server's own names in the records; only where they were asked for.
    pub(super) my_names: BTreeSet<MyName>,
    /// Files that are somebody's record, it may be, and can't be told, and why.
    pub(super) passed_over: Vec<(String, String)>,
    pub(super) problems: Vec<String>,
}

impl Directory {
    pub(super) fn open(path: &Path) -> Result<Self, Failed> {
        let open = |name: &str| {
            let path = path.join(name);
            File::open(&path).map_err(|error| {
                let what = "expected a directory with sm and sm.bak, as rpc.statd keeps it";
                Failed::new(Exit::Usage, format!("{}: {what}: {error}", path.display()))
            })
        };
        let (sm, sm_bak, base) = (open("sm")?, open("sm.bak")?, open("")?);
        match base.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), sm, sm_bak, _locked: base }),
            Err(TryLockError::WouldBlock) => {
                let what = format!("another 'heirlock notify' tells the clients of {}", path.display());
                Err(Failed::new(Exit::Refused, what))
            }
            Err(TryLockError::Error(error)) => Err(failed("lock", path)(error)),
        }
    }

    /// Moves what is in `sm` to `sm.bak` if `move_records`, and says who is in there. A file whose name is an address is
    /// a client whatever it holds: what a crash tore is told as well. Files are read only where their name is none, or
    /// where `read_names`.
    pub(super) fn take_over(&mut self, move_records: bool, read_names: bool) -> Result<Found, Failed> {
        let mut found = Found::default();
        if move_records {
            self.move_records(&mut found.passed_over)?;
        }
        for key in self.records("sm.bak", &mut found.passed_over)? {
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
        let records = self.records("sm", passed_over)?;
        if records.is_empty() {
            return Ok(());
        }
        if self.exchange(records.len()) {
            return self.sync_folder("");
        }
        for key in records {
            renameat(&self.sm, key.as_str(), &self.sm_bak, key.as_str())
                .map_err(|error| failed("move", &self.path.join("sm").join(key.as_str()))(error.into()))?;
        }
        self.sync_folder("sm.bak")?;
        self.sync_folder("sm")
    }

    /// Moves all records at once, by exchanging the two folders: a hundred thousand moved one by one take seconds of a
    /// grace period. Only where nothing else is in either of them and both are the same user's.
    fn exchange(&mut self, records: usize) -> bool {
        let entries = |folder: &str| fs::read_dir(self.path.join(folder)).map_or(usize::MAX, Iterator::count);
        let whose = |file: &File| file.metadata().ok().map(|m| (m.uid(), m.gid(), m.mode()));
        let alike = whose(&self.sm).is_some() && whose(&self.sm) == whose(&self.sm_bak);
        if !alike || entries("sm.bak") != 0 || entries("sm") != records {
            return false;
        }
        let (sm, sm_bak) = (self.path.join("sm"), self.path.join("sm.bak"));
        // Not every file system can; then they are moved one by one.
        let exchanged = renameat_with(CWD, &sm, CWD, &sm_bak, RenameFlags::EXCHANGE).is_ok();
        if exchanged {
            std::mem::swap(&mut self.sm, &mut self.sm_bak);
        }
        exchanged
    }

    fn sync_folder(&self, name: &str) -> Result<(), Failed> {
        let path = self.path.join(name);
        File::open(&path).and_then(|folder| folder.sync_all()).map_err(failed("sync", &path))
    }

    fn records(&self, folder: &str, passed_over: &mut Vec<(String, String)>) -> Result<Vec<MonName>, Failed> {
        let path = self.path.join(folder);
        let (mut records, mut temporary) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&path).map_err(failed("read", &path))? {
            let entry = entry.map_err(failed("read", &path))?;
            let shown = format!("{folder}/{}", entry.file_name().as_encoded_bytes().escape_ascii());
            match classify_file_name(&entry.file_name()) {
                FileKind::Record(_) if records.len() >= RECORDS_MAX => {
                    let what = format!("{} holds more than {RECORDS_MAX} records", path.display());
                    return Err(Failed::new(Exit::Refused, what));
                }
                FileKind::Record(key) if entry.file_type().is_ok_and(|kind| kind.is_file()) => {
                    records.push(key);
                }
                FileKind::Hidden => {}
                FileKind::Temporary => temporary.push(entry.file_name()),
                FileKind::Record(_) => {
                    passed_over
                        .push((shown, "expected a file, found something else; it is left alone".into()));
                }
                FileKind::Refused(error) => passed_over.push((shown, format!("{error}; it is left alone"))),
            }
        }
        // One that nfs-utils did not come to rename is empty or torn, or the client is on record beside it. Another one is a
        // client of that name.
        let known: BTreeSet<&str> = records.iter().map(MonName::as_str).collect();
        for name in temporary {
            let text = name.to_string_lossy();
            let is_known = text
                .strip_suffix(".new")
                .is_some_and(|client| known.contains(client.trim_start_matches('.')));
            if !is_known && read_file(&path.join(&name)).is_ok_and(|bytes| is_whole(&bytes)) {
                let why = "it holds a whole record under the name of a temporary file; rename it, and tell the client";
                passed_over
                    .push((format!("{folder}/{}", name.as_encoded_bytes().escape_ascii()), why.into()));
            }
        }
        Ok(records)
    }

    /// The address that a client registered under, and the names under which it knows this server.
    fn read(&self, client: &mut Client, found: &mut Found) {
        let path = self.path.join("sm.bak").join(client.key.as_str());
        let parsed = read_file(&path).map_err(|error| error.to_string());
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
        let path = self.path.join("state");
        let before = match fs::read(&path) {
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
        self.write_state(number).map_err(failed("write", &path))?;
        Ok(number)
    }

    fn write_state(&self, number: StateNumber) -> io::Result<()> {
        let (path, temporary) = (self.path.join("state"), self.path.join(".state.new"));
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&number.render_file())?;
        if let Ok(old) = fs::metadata(&path) {
            // rpc.statd reads it as another user.
            let _ = std::os::unix::fs::chown(&temporary, Some(old.uid()), Some(old.gid()));
            file.set_permissions(fs::Permissions::from_mode(old.permissions().mode() & 0o7777))?;
        }
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(&self.path)?.sync_all()
    }

    /// Takes a client off the list.
    pub(super) fn remove(&self, client: &MonName) -> Result<(), String> {
        match unlinkat(&self.sm_bak, client.as_str(), AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => {
                let path = self.path.join("sm.bak").join(client.as_str());
                Err(format!("can't remove {}: {error}; it will be told again", path.display()))
            }
        }
    }

    /// Makes removals durable.
    pub(super) fn sync(&self) -> Result<(), String> {
        self.sm_bak
            .sync_all()
            .map_err(|error| format!("can't sync {}: {error}", self.path.join("sm.bak").display()))
    }
}

/// Whether there is a whole line, whatever its names are.
fn is_whole(bytes: &[u8]) -> bool {
    matches!(parse_record(bytes), Ok(_) | Err(RecordError::Name { .. }))
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "expected a file, found something else"));
    }
    let mut bytes = Vec::new();
    let max = u64::try_from(limits::RECORD_FILE_BYTES_MAX).unwrap_or(u64::MAX);
    io::Read::read_to_end(&mut io::Read::take(file, max.saturating_add(1)), &mut bytes)?;
    Ok(bytes)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failed + use<> {
    let path = path.display().to_string();
    move |error| Failed::new(Exit::Failed, format!("can't {action} {path}: {error}"))
}
