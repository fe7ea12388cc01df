//! The registrations in the status monitor's own directory, as rpc.statd would write them: what the detector reads, and
//! what stock tools go by when heirlock is left. Nothing waits for these writes to be durable; the store is.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use heirlock_core::monitor::key;
use heirlock_nsm::record::{FileKind, classify_file_name, parse_record, render_record};
use heirlock_nsm::{MonName, MonitorLine};

/// `sm`, and which files in it hold lines of which client: rpc.statd names files as the resolver of the moment says.
#[derive(Debug)]
pub(crate) struct Directory {
    sm: PathBuf,
    files: BTreeMap<MonName, BTreeSet<MonName>>,
    /// Clients that were there at the start and whose lines are of this boot.
    current: BTreeSet<MonName>,
}

/// A line, and when the file that it lies in was written.
pub(crate) type Found = (MonitorLine, SystemTime);

impl Directory {
    /// Looks which files there are. The lines are registrations that the lock manager of this boot still means; what
    /// was written before the boot, it knows nothing of.
    ///
    /// # Errors
    /// Where the directory can't be read.
    pub(crate) fn open(state_directory: &Path) -> io::Result<(Self, Vec<Found>)> {
        Self::open_as_of(state_directory, booted_at())
    }

    fn open_as_of(state_directory: &Path, booted: SystemTime) -> io::Result<(Self, Vec<Found>)> {
        let sm = state_directory.join("sm");
        let mut directory = Self { sm: sm.clone(), files: BTreeMap::new(), current: BTreeSet::new() };
        let mut current = Vec::new();
        for entry in fs::read_dir(&sm)? {
            let entry = entry?;
            let FileKind::Record(file) = classify_file_name(&entry.file_name()) else { continue };
            let Ok(meta) = fs::symlink_metadata(entry.path()) else { continue };
            if !meta.is_file() {
                continue;
            }
            let Some(lines) = read_lines(&entry.path())? else { continue };
            for line in &lines {
                directory.files.entry(key(&line.mon_name)).or_default().insert(file.clone());
            }
            let Ok(at) = meta.modified() else { continue };
            if at >= booted {
                directory.current.extend(lines.iter().map(|line| key(&line.mon_name)));
                current.extend(lines.into_iter().map(|line| (line, at)));
            }
        }
        Ok((directory, current))
    }

    /// Clients that were there at the start, with registrations of this boot.
    pub(crate) fn current(&self) -> &BTreeSet<MonName> {
        &self.current
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
        let mut files = self.files.get(client).cloned().unwrap_or_default();
        files.insert(client.clone());
        for file in files {
            let path = self.sm.join(file.as_str());
            let there = read_lines(&path)?.unwrap_or_default();
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
                true => remove(&path)?,
                false => self.replace(&file, &render_record(&wanted))?,
            }
        }
        match lines.is_empty() {
            true => self.files.remove(client),
            false => self.files.insert(client.clone(), BTreeSet::from([client.clone()])),
        };
        Ok(())
    }

    /// Makes what was written durable; for a thread that may wait.
    pub(crate) fn sync(state_directory: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(state_directory.join("sm"))?)?)
    }

    /// By a hidden temporary name, which every status monitor ignores; owner and mode as rpc.statd's own.
    fn replace(&self, file: &MonName, bytes: &[u8]) -> io::Result<()> {
        let mut hidden = OsString::from(".");
        hidden.push(file.as_str());
        hidden.push(".heirlock");
        // Together with its mark a long name would be too long.
        hidden = if hidden.len() > 255 { OsString::from(".heirlock") } else { hidden };
        let temporary = self.sm.join(hidden);
        let mut new =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        let owner = fs::metadata(&self.sm)?;
        if new.metadata()?.uid() != owner.uid() {
            fchown(&new, Some(owner.uid()), Some(owner.gid()))?;
        }
        new.write_all(bytes)?;
        fs::rename(&temporary, self.sm.join(file.as_str()))
    }
}

fn read_lines(path: &Path) -> io::Result<Option<Vec<MonitorLine>>> {
    match fs::read(path) {
        // What can't be read as a record is not ours to keep where a registration is to be written.
        Ok(bytes) => Ok(parse_record(&bytes).ok().map(|parsed| parsed.lines)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// `btime` of /proc/stat; the start of time where it can't be read, so that everything counts as of this boot.
fn booted_at() -> SystemTime {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
    UNIX_EPOCH + Duration::from_secs(seconds.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use heirlock_nsm::MyName;

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
        let (mut directory, _) = Directory::open(state.path()).unwrap();
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
        let (mut directory, kept) = Directory::open(state.path()).unwrap();
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
    fn what_was_conveyed_stays_beside_the_registration() {
        let state = made();
        let placed = render_record(&[line("10.0.0.1", "nfs-service", 0)]);
        fs::write(state.path().join("sm/10.0.0.1"), &placed).unwrap();
        let (mut directory, _) = Directory::open(state.path()).unwrap();
        let conveyed = BTreeMap::from([(name("10.0.0.1"), placed.clone())]);
        directory.update(&name("10.0.0.1"), &[line("10.0.0.1", "nfs-b", 5)], &conveyed).unwrap();
        let both = [placed.clone(), render_record(&[line("10.0.0.1", "nfs-b", 5)])].concat();
        assert_eq!(fs::read(state.path().join("sm/10.0.0.1")).unwrap(), both);
        directory.update(&name("10.0.0.1"), &[], &conveyed).unwrap();
        assert_eq!(fs::read(state.path().join("sm/10.0.0.1")).unwrap(), placed);
    }

    #[test]
    fn what_is_older_than_the_boot_is_no_registration() {
        let state = made();
        fs::write(state.path().join("sm/10.0.0.1"), render_record(&[line("10.0.0.1", "nfs-a", 1)])).unwrap();
        let later = SystemTime::now() + Duration::from_secs(60);
        assert!(Directory::open_as_of(state.path(), later).unwrap().1.is_empty());
        assert_eq!(names(state.path()), ["10.0.0.1"], "and stays");
    }
}
