//! The registrations in the status monitor's own directory, as rpc.statd would write them: the files that the detector
//! reads, and that stock tools go by when heirlock is left. Nothing waits for these writes to be durable; the store is.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use heirlock_core::limits::RECORDS_MAX;
use heirlock_core::monitor::key;
use heirlock_nsm::limits::RECORD_FILE_BYTES_MAX;
use heirlock_nsm::record::{FileKind, classify_file_name, parse_record, render_record};
use heirlock_nsm::{MonName, MonitorLine, MyName};

use crate::files::syncs::Syncs;
use crate::files::{self, Folder, Links, Listed, Owner};
use crate::host::Host;

/// `sm`, and which files in it hold lines of which client: rpc.statd names files as the resolver of the moment says.
#[derive(Debug)]
pub(crate) struct Directory {
    state_directory: PathBuf,
    /// The files in which a client has lines and that are named otherwise than the client is.
    elsewhere: BTreeMap<MonName, BTreeSet<MonName>>,
    /// Clients that were there at the start and whose lines are of this boot.
    current: BTreeSet<MonName>,
    /// The lines that were there at the start, until they are compared with the registrations.
    lines: BTreeMap<MonName, Vec<MonitorLine>>,
    changes: Changes,
}

/// The changes that are not durable yet. A clone, for a thread that may wait, knows the same.
#[derive(Debug, Clone)]
pub(crate) struct Changes {
    state_directory: PathBuf,
    /// The files that were written since.
    written: Arc<Mutex<BTreeSet<MonName>>>,
}

/// A line, and when the file that it lies in was written.
pub(crate) type Found = (MonitorLine, SystemTime);

impl Directory {
    /// Looks which files there are. The lines are registrations that the lock manager of this boot still means; it knows
    /// nothing of lines that were written before the boot.
    ///
    /// # Errors
    /// Where the directory can't be read.
    pub(crate) fn open(host: &Host, state_directory: &Path) -> io::Result<(Self, Vec<Found>)> {
        // Where the boot is not known, everything counts as of this one.
        Self::open_as_of(state_directory, host.booted_at().unwrap_or(UNIX_EPOCH))
    }

    fn open_as_of(state_directory: &Path, booted: SystemTime) -> io::Result<(Self, Vec<Found>)> {
        let mut directory = Self {
            state_directory: state_directory.to_owned(),
            elsewhere: BTreeMap::new(),
            current: BTreeSet::new(),
            lines: BTreeMap::new(),
            changes: Changes { state_directory: state_directory.to_owned(), written: Arc::default() },
        };
        let sm = open_sm(state_directory)?;
        let (mut current, mut last_name) = (Vec::new(), None::<MyName>);
        for (name, listed) in sm.entries(2 * RECORDS_MAX)? {
            let FileKind::Record(file) = classify_file_name(&name) else { continue };
            // A file that can't be read is named by the detector, and is no registration.
            let Ok((at, mut lines)) = read_dated(&sm, &file, listed) else { continue };
            for line in &mut lines {
                let client = key(&line.mon_name);
                // Nearly all lines bear the same name of a server, and a client's usual name is its key: each is kept once.
                if client == line.mon_name {
                    line.mon_name = client.clone();
                }
                match &last_name {
                    Some(last) if *last == line.my_name => line.my_name = last.clone(),
                    _ => last_name = Some(line.my_name.clone()),
                }
                if client != file {
                    directory.elsewhere.entry(client.clone()).or_default().insert(file.clone());
                }
                if at >= booted {
                    directory.current.insert(client.clone());
                }
                match directory.lines.entry(client) {
                    Entry::Occupied(mut known) => known.get_mut().push(line.clone()),
                    // Nearly every client has one line, and a vector that grows makes room for four.
                    Entry::Vacant(unknown) => drop(unknown.insert(vec![line.clone()])),
                }
            }
            if at >= booted {
                current.extend(lines.into_iter().map(|line| (line, at)));
            }
        }
        Ok((directory, current))
    }

    /// Of which clients the files are to follow, since they don't say what is registered. `conveyed` are the lines in them,
    /// by client, that are no registrations. Asked once, after the start.
    pub(crate) fn differing(
        &mut self,
        registered: &BTreeSet<MonName>,
        lines_of: impl Fn(&MonName) -> Vec<MonitorLine>,
        conveyed: &BTreeMap<MonName, Vec<MonitorLine>>,
    ) -> BTreeSet<MonName> {
        let (there, current) = (std::mem::take(&mut self.lines), std::mem::take(&mut self.current));
        let differs = |client: &&MonName| {
            let conveyed = conveyed.get(*client).map(Vec::as_slice).unwrap_or_default();
            let own = there.get(*client).into_iter().flatten().filter(|line| !conveyed.contains(line));
            !own.eq(lines_of(client).iter()) || self.elsewhere.contains_key(*client)
        };
        registered.union(&current).filter(differs).cloned().collect()
    }

    /// Makes the files of a client say what is registered. Lines that were conveyed stay, for they are no registrations.
    ///
    /// # Errors
    /// Where it can't be written; a look at the registrations later tries again.
    pub(crate) fn update(
        &mut self,
        client: &MonName,
        lines: &[MonitorLine],
        placed: &BTreeMap<MonName, Vec<u8>>,
    ) -> io::Result<()> {
        let mut files = self.elsewhere.get(client).cloned().unwrap_or_default();
        files.insert(client.clone());
        let sm = open_sm(&self.state_directory)?;
        for file in files {
            let there = read_lines(&sm, &file)?.unwrap_or_default();
            let conveyed = placed.get(&file).and_then(|bytes| parse_record(bytes).ok());
            let conveyed = conveyed.map(|parsed| parsed.lines).unwrap_or_default();
            let mut wanted: Vec<MonitorLine> = there
                .iter()
                .filter(|line| conveyed.contains(line) || key(&line.mon_name) != *client)
                .cloned()
                .collect();
            if file == *client {
                wanted.extend(lines.iter().cloned());
            }
            if wanted == there {
                continue;
            }
            match wanted.is_empty() {
                true => files::unless_absent(sm.remove(file.as_str()))?,
                // Owner and mode as rpc.statd's own.
                false => {
                    sm.replace(file.as_str(), &render_record(&wanted), 0o600, Owner::OfFolder, false)?;
                    self.changes.written().insert(file);
                }
            }
        }
        self.elsewhere.remove(client);
        Ok(())
    }

    /// The changes that are not durable yet.
    pub(crate) fn changes(&self) -> Changes {
        self.changes.clone()
    }

    /// Makes all files durable, also those that another process wrote.
    ///
    /// # Errors
    /// Where one of them may not be.
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        let sm = open_sm(&self.state_directory)?;
        for name in sm.names(2 * RECORDS_MAX)? {
            // An entry that is no file holds no registration.
            if let FileKind::Record(file) = classify_file_name(&name)
                && sm.begin_to_sync(&name).is_ok()
            {
                self.changes.written().insert(file);
            }
        }
        self.changes.sync()
    }
}

impl Changes {
    /// Makes them durable; for a thread that may wait. Those that may not be durable count as changes further on.
    ///
    /// # Errors
    /// Where that are some.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let written = std::mem::take(&mut *self.written());
        let synced = self.sync_files(&written);
        if synced.is_err() {
            self.written().extend(written);
        }
        synced
    }

    fn sync_files(&self, written: &BTreeSet<MonName>) -> io::Result<()> {
        let sm = open_sm(&self.state_directory)?;
        let syncs = Syncs::new("directory-sync", Arc::default());
        let mut batch = syncs.batch();
        for file in written {
            // One that was removed since needs no sync but its folder's.
            files::unless_absent(batch.add((), || Ok(Box::new(sm.begin_to_sync(file.as_str())?))))?;
        }
        batch.end().into_iter().try_for_each(|((), synced)| synced)?;
        sm.sync()
    }

    fn written(&self) -> MutexGuard<'_, BTreeSet<MonName>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_sm(state_directory: &Path) -> io::Result<Folder> {
    Folder::open(state_directory)?.folder("sm")
}

fn read_lines(sm: &Folder, file: &MonName) -> io::Result<Option<Vec<MonitorLine>>> {
    let bytes = files::if_present(sm.read(file.as_str(), Links::One, RECORD_FILE_BYTES_MAX))?;
    // A text that is no record need not be kept where a registration is to be written.
    Ok(bytes.and_then(|bytes| parse_record(&bytes).ok()).map(|parsed| parsed.lines))
}

/// The lines of a file, and when it was written.
fn read_dated(sm: &Folder, file: &MonName, listed: Listed) -> io::Result<(SystemTime, Vec<MonitorLine>)> {
    let (file, stat) = sm.open_listed(file.as_str(), listed, Links::One)?;
    let at = files::written_at(&stat);
    let bytes = files::read_whole(file, &stat, RECORD_FILE_BYTES_MAX)?;
    Ok((at, parse_record(&bytes).map(|parsed| parsed.lines).map_err(io::Error::other)?))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::time::Duration;

    use super::*;

    fn line(client: &str, my_name: &str, cookie: u8) -> MonitorLine {
        let mut line =
            MonitorLine::generated(MonName::parse(client).unwrap(), MyName::parse(my_name).unwrap());
        line.cookie = [cookie; 16];
        line
    }

    fn name(text: &str) -> MonName {
        MonName::parse(text).unwrap()
    }

    fn made() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("sm")).unwrap();
        directory
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory.join("sm"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_registration_becomes_a_file_as_statd_writes_it_and_goes_again() {
        let state = made();
        let (mut directory, _) = Directory::open(&Host::here(), state.path()).unwrap();
        let (client, nothing) = (name("10.0.0.1"), BTreeMap::new());
        directory.update(&client, &[line("10.0.0.1", "nfs-a", 1)], &nothing).unwrap();
        let path = state.path().join("sm/10.0.0.1");
        assert_eq!(fs::read(&path).unwrap(), render_record(&[line("10.0.0.1", "nfs-a", 1)]));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        directory.update(&client, &[], &nothing).unwrap();
        assert_eq!(names(state.path()), [] as [&str; 0]);
    }

    #[test]
    fn files_that_statd_named_by_the_resolver_give_way_to_one_named_by_the_address() {
        let state = made();
        let (old, other) = (line("10.0.0.1", "nfs-a", 1), line("10.0.0.2", "nfs-a", 1));
        fs::write(state.path().join("sm/client1.example"), render_record(&[old.clone(), other.clone()]))
            .unwrap();
        let (mut directory, kept) = Directory::open(&Host::here(), state.path()).unwrap();
        let kept: Vec<_> = kept.into_iter().map(|(line, _)| line).collect();
        assert_eq!(kept, [old, other.clone()]);
        let new = line("10.0.0.1", "nfs-a", 2);
        directory.update(&name("10.0.0.1"), std::slice::from_ref(&new), &BTreeMap::new()).unwrap();
        assert_eq!(names(state.path()), ["10.0.0.1", "client1.example"]);
        assert_eq!(fs::read(state.path().join("sm/client1.example")).unwrap(), render_record(&[other]));
        directory.update(&name("10.0.0.2"), &[], &BTreeMap::new()).unwrap();
        assert_eq!(names(state.path()), ["10.0.0.1"]);
    }

    #[test]
    fn a_conveyed_line_stays_beside_the_registration() {
        let state = made();
        let placed = render_record(&[line("10.0.0.1", "nfs-service", 0)]);
        fs::write(state.path().join("sm/10.0.0.1"), &placed).unwrap();
        let (mut directory, _) = Directory::open(&Host::here(), state.path()).unwrap();
        let conveyed = BTreeMap::from([(name("10.0.0.1"), placed.clone())]);
        directory.update(&name("10.0.0.1"), &[line("10.0.0.1", "nfs-b", 5)], &conveyed).unwrap();
        let both = [placed.clone(), render_record(&[line("10.0.0.1", "nfs-b", 5)])].concat();
        assert_eq!(fs::read(state.path().join("sm/10.0.0.1")).unwrap(), both);
        directory.update(&name("10.0.0.1"), &[], &conveyed).unwrap();
        assert_eq!(fs::read(state.path().join("sm/10.0.0.1")).unwrap(), placed);
    }

    #[test]
    fn a_line_that_is_older_than_the_boot_is_no_registration() {
        let state = made();
        fs::write(state.path().join("sm/10.0.0.1"), render_record(&[line("10.0.0.1", "nfs-a", 1)])).unwrap();
        let later = SystemTime::now() + Duration::from_secs(60);
        assert!(Directory::open_as_of(state.path(), later).unwrap().1.is_empty());
        assert_eq!(names(state.path()), ["10.0.0.1"], "and stays");
    }

    #[test]
    fn an_entry_that_is_no_file_keeps_its_own_client_alone_from_being_written() {
        use std::os::unix::fs::symlink;
        let state = made();
        let sm = state.path().join("sm");
        let secret = state.path().join("secret");
        fs::write(&secret, "only for root").unwrap();
        symlink(&secret, sm.join("10.0.0.1")).unwrap();
        symlink(&secret, sm.join(".10.0.0.2.heirlock")).unwrap();
        fs::create_dir(sm.join("10.0.0.3")).unwrap();
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
        rustix::fs::mknodat(rustix::fs::CWD, sm.join("10.0.0.4"), kind, mode, 0).unwrap();
        let (mut directory, found) = Directory::open(&Host::here(), state.path()).unwrap();
        assert_eq!(found, []);
        for (client, is_written) in
            [("10.0.0.1", false), ("10.0.0.2", true), ("10.0.0.3", false), ("10.0.0.4", false)]
        {
            let updated = directory.update(&name(client), &[line(client, "nfs-a", 1)], &BTreeMap::new());
            assert_eq!(updated.is_ok(), is_written, "{client}: {updated:?}");
        }
        assert_eq!(fs::read_to_string(&secret).unwrap(), "only for root");
        assert!(sm.join("10.0.0.2").is_file());
    }

    #[test]
    fn the_longest_names_are_written_and_removed() {
        let state = made();
        let longest = "x".repeat(heirlock_nsm::limits::FILE_NAME_BYTES_MAX);
        let path = state.path().join("sm").join(&longest);
        let my_name = "s".repeat(heirlock_nsm::limits::STRING_BYTES_MAX);
        let lines: Vec<MonitorLine> = (0..u8::try_from(heirlock_core::limits::MON_LINES_MAX).unwrap())
            .map(|cookie| line(&longest, &my_name, cookie))
            .collect();
        let (mut directory, _) = Directory::open(&Host::here(), state.path()).unwrap();
        directory.update(&name(&longest), &lines, &BTreeMap::new()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), render_record(&lines));
        assert_eq!(fs::read(&path).unwrap().len(), lines.len() * heirlock_nsm::limits::LINE_BYTES_MAX);
        let (mut again, found) = Directory::open(&Host::here(), state.path()).unwrap();
        assert_eq!(found.len(), lines.len());
        again.update(&name(&longest), &[], &BTreeMap::new()).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn only_files_that_say_something_else_than_what_is_registered_are_to_follow() {
        let state = made();
        let write = |file: &str, lines: &[MonitorLine]| {
            fs::write(state.path().join("sm").join(file), render_record(lines)).unwrap();
        };
        let registered = |client: &str| line(client, "nfs-a", 1);
        let placed = line("10.0.0.4", "nfs-service", 0);
        write("10.0.0.1", &[registered("10.0.0.1")]);
        write("10.0.0.2", &[line("10.0.0.2", "nfs-a", 2)]);
        write("client3.example", &[registered("10.0.0.3")]);
        write("10.0.0.4", &[placed.clone(), registered("10.0.0.4")]);
        write("10.0.0.6", &[registered("10.0.0.6")]);
        let (mut directory, _) = Directory::open(&Host::here(), state.path()).unwrap();
        let clients = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"].map(name);
        let lines_of = |client: &MonName| match client.as_str() {
            "10.0.0.6" => Vec::new(), // it has left, and the agent was killed before the file did
            other => vec![registered(other)],
        };
        let conveyed = BTreeMap::from([(name("10.0.0.4"), vec![placed])]);
        let differing = directory.differing(&clients.into(), lines_of, &conveyed);
        assert_eq!(differing, ["10.0.0.2", "10.0.0.3", "10.0.0.5", "10.0.0.6"].map(name).into());
    }

    #[test]
    fn changes_are_synced_once_and_those_that_can_not_be_are_kept_for_the_next_time() {
        let state = made();
        let (mut directory, _) = Directory::open(&Host::here(), state.path()).unwrap();
        let nothing = BTreeMap::new();
        for client in ["10.0.0.1", "10.0.0.2"] {
            directory.update(&name(client), &[line(client, "nfs-a", 1)], &nothing).unwrap();
        }
        let changes = directory.changes();
        assert_eq!(*changes.written(), ["10.0.0.1", "10.0.0.2"].map(name).into());
        // It has left again; nothing but the folder is to be synced for it.
        directory.update(&name("10.0.0.2"), &[], &nothing).unwrap();
        let (sm, away) = (state.path().join("sm"), state.path().join("away"));
        fs::rename(&sm, &away).unwrap();
        changes.sync().unwrap_err();
        assert_eq!(*changes.written(), ["10.0.0.1", "10.0.0.2"].map(name).into());
        fs::rename(&away, &sm).unwrap();
        changes.sync().unwrap();
        assert!(changes.written().is_empty());
        // A file that says so already is not written, and is no change.
        directory.update(&name("10.0.0.1"), &[line("10.0.0.1", "nfs-a", 1)], &nothing).unwrap();
        assert!(changes.written().is_empty());
    }
}
