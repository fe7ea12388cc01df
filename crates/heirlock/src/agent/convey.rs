//! The conveyor: places records into the adoptive server's status-monitor directory, and takes them away again.
//!
//! What was placed is remembered in the local directory, so that the detector doesn't take it for a registration of
//! this server's lock manager, also after a restart of the agent.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use heirlock_core::ledger::lines_to_place;
use heirlock_core::takeover::Conveyance;
use heirlock_nsm::record::{parse_record, render_record};
use heirlock_nsm::{MonName, MonitorLine, MyName};

/// The file below the local directory that remembers what was placed.
const BOOK: &str = "conveyed.json";

/// Above this many files one sync of the whole file system is cheaper than one each: the agent waits for it.
const SYNC_EACH_MAX: usize = 8;

/// What was placed into one status-monitor directory.
#[derive(Debug)]
pub(crate) struct Conveyor {
    sm: PathBuf,
    book: PathBuf,
    placed: BTreeMap<MonName, Vec<u8>>,
}

impl Conveyor {
    /// Remembers what an earlier run of the agent placed.
    pub(crate) fn open(state_directory: &Path, local_directory: &Path) -> io::Result<Self> {
        let book = local_directory.join(BOOK);
        let placed = match fs::read(&book) {
            Ok(bytes) => parse_book(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { sm: state_directory.join("sm"), book, placed })
    }

    /// The lines that were placed, by file.
    pub(crate) fn placed(&self) -> &BTreeMap<MonName, Vec<u8>> {
        &self.placed
    }

    /// All lines that were placed.
    pub(crate) fn placed_lines(&self) -> Vec<MonitorLine> {
        self.placed.values().filter_map(|bytes| parse_record(bytes).ok()).flat_map(|p| p.lines).collect()
    }

    /// Places a service's records. A file that exists belongs to this server's own status monitor and gets the lines
    /// added, as nfs-utils itself adds a line (support/nsm/file.c).
    pub(crate) fn place(
        &mut self,
        records: &BTreeMap<MonName, Vec<u8>>,
        how: Conveyance,
        my_name: &MyName,
    ) -> io::Result<usize> {
        // What the kernel registers its clients under.
        let node = rustix::system::uname();
        let own = node.nodename().to_str().unwrap_or_default();
        let mut planned: Vec<(MonName, Vec<u8>)> = Vec::with_capacity(records.len());
        for (client, record) in records {
            let bytes = description(client, record, how, my_name);
            let there = self.read(client)?;
            let remembered = self.placed.get(client).map(Vec::as_slice).unwrap_or_default();
            let lines = lines_to_place(&there, remembered, &bytes, own);
            match parse_record(&bytes) {
                Ok(_) if lines.is_empty() => {}
                Ok(parsed) if render_record(&parsed.lines) != lines => planned.push((client.clone(), lines)),
                // All of it, to the byte.
                _ => planned.push((client.clone(), bytes)),
            }
        }
        for (client, bytes) in &planned {
            let remembered = self.placed.entry(client.clone()).or_default();
            if !holds(remembered, bytes) {
                remembered.extend(bytes);
            }
        }
        // Remembered before it is placed: a line that nobody remembers would count as a registration.
        self.write_book()?;
        let mut files = Vec::new();
        for (client, bytes) in &planned {
            files.extend(self.with_added(client, bytes)?.map(|whole| (client, whole)));
        }
        self.replace(&files)?;
        Ok(records.len())
    }

    /// Takes away all that was placed; lines that the status monitor wrote stay.
    pub(crate) fn clean_up(&mut self) -> io::Result<()> {
        let mut files = Vec::new();
        for (client, bytes) in &self.placed {
            files.extend(self.without(client, bytes)?.map(|kept| (client, kept)));
        }
        self.replace(&files)?;
        self.placed.clear();
        self.write_book()
    }

    /// What lies in a client's file; nothing where there is none.
    fn read(&self, client: &MonName) -> io::Result<Vec<u8>> {
        match fs::read(self.sm.join(client.as_str())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read,
        }
    }

    /// A client's file with these lines added; `None` where it has them already.
    fn with_added(&self, client: &MonName, bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let there = self.read(client)?;
        Ok((!holds(&there, bytes)).then(|| [there.as_slice(), bytes].concat()))
    }

    /// Removes a client's file; what is to be kept of it, where that is not all and not nothing.
    fn without(&self, client: &MonName, bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let path = self.sm.join(client.as_str());
        let there = match fs::read(&path) {
            Ok(there) => there,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if there == bytes {
            return fs::remove_file(&path).map(|()| None);
        }
        let Ok(parsed) = parse_record(&there) else { return Ok(None) };
        let placed = parse_record(bytes).map(|p| p.lines).unwrap_or_default();
        let kept: Vec<MonitorLine> =
            parsed.lines.iter().filter(|line| !placed.contains(line)).cloned().collect();
        if kept.len() == parsed.lines.len() {
            return Ok(None);
        }
        if kept.is_empty() { fs::remove_file(&path).map(|()| None) } else { Ok(Some(render_record(&kept))) }
    }

    /// Writes files by hidden temporary names, which every status monitor ignores. None takes its name before the bytes of
    /// all are durable; many share one sync.
    fn replace(&self, files: &[(&MonName, Vec<u8>)]) -> io::Result<()> {
        let folder = File::open(&self.sm)?;
        let owner = folder.metadata()?;
        let each = files.len() <= SYNC_EACH_MAX;
        for (client, bytes) in files {
            self.write_hidden(client, bytes, &owner, each)?;
        }
        if !each {
            rustix::fs::syncfs(&folder)?;
        }
        for (client, _) in files {
            fs::rename(self.hidden(client), self.sm.join(client.as_str()))?;
        }
        folder.sync_all()
    }

    /// Owner and mode as statd's own.
    fn write_hidden(
        &self,
        client: &MonName,
        bytes: &[u8],
        owner: &fs::Metadata,
        sync: bool,
    ) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(self.hidden(client))?;
        // Only root may give a file away; in a folder of our own there is nothing to give.
        if file.metadata()?.uid() != owner.uid() {
            fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
        }
        file.write_all(bytes)?;
        if sync { file.sync_all() } else { Ok(()) }
    }

    fn hidden(&self, client: &MonName) -> PathBuf {
        let mut hidden = OsString::from(".");
        hidden.push(client.as_str());
        hidden.push(".heirlock");
        self.sm.join(hidden)
    }

    fn write_book(&self) -> io::Result<()> {
        let book: BTreeMap<&str, String> = self
            .placed
            .iter()
            .map(|(name, bytes)| (name.as_str(), String::from_utf8_lossy(bytes).into_owned()))
            .collect();
        let temporary = self.book.with_extension("new");
        let mut file = File::create(&temporary)?;
        file.write_all(serde_json::to_string_pretty(&book)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &self.book)
    }
}

/// What is placed for one client.
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
mod tests {
    use super::*;

    struct Place {
        _directory: tempfile::TempDir,
        state: PathBuf,
        local: PathBuf,
    }

    fn place() -> Place {
        let directory = tempfile::tempdir().unwrap();
        let (state, local) = (directory.path().join("nfs"), directory.path().join("local"));
        fs::create_dir_all(state.join("sm")).unwrap();
        fs::create_dir(&local).unwrap();
        Place { _directory: directory, state, local }
    }

    const LINE: &str =
        "0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 10.0.0.1 nfs-a\n";
    const OWN: &str = "0100007f 000186b5 00000003 00000010 000102030405060708090a0b0c0d0e0f 10.0.0.1 nfs-b\n";

    fn records(bytes: &str) -> BTreeMap<MonName, Vec<u8>> {
        BTreeMap::from([(client(), bytes.as_bytes().to_vec())])
    }

    fn client() -> MonName {
        MonName::parse("10.0.0.1").unwrap()
    }

    fn name() -> MyName {
        MyName::parse("nfs-service").unwrap()
    }

    fn sm(place: &Place) -> Option<String> {
        fs::read_to_string(place.state.join("sm/10.0.0.1")).ok()
    }

    #[test]
    fn a_copy_is_the_record_to_the_byte() {
        let place = place();
        let torn_end = LINE.trim_end();
        let mut conveyor = Conveyor::open(&place.state, &place.local).unwrap();
        assert_eq!(conveyor.place(&records(torn_end), Conveyance::Copy, &name()).unwrap(), 1);
        assert_eq!(sm(&place).as_deref(), Some(torn_end));
        assert_eq!(fs::metadata(place.state.join("sm/10.0.0.1")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_generated_one_names_the_service() {
        let place = place();
        let mut conveyor = Conveyor::open(&place.state, &place.local).unwrap();
        conveyor.place(&records(LINE), Conveyance::Generate, &name()).unwrap();
        let placed = sm(&place).unwrap();
        assert!(placed.ends_with(" 10.0.0.1 nfs-service\n") && placed.contains(" 000186b5 "), "{placed}");
    }

    #[test]
    fn what_was_placed_is_known_after_a_restart_and_taken_away_again() {
        let place = place();
        Conveyor::open(&place.state, &place.local)
            .unwrap()
            .place(&records(LINE), Conveyance::Copy, &name())
            .unwrap();
        let mut again = Conveyor::open(&place.state, &place.local).unwrap();
        assert_eq!(again.placed(), &records(LINE));
        again.clean_up().unwrap();
        assert_eq!(sm(&place), None);
        assert!(Conveyor::open(&place.state, &place.local).unwrap().placed().is_empty());
    }

    #[test]
    fn a_copy_that_is_the_servers_own_registration_is_neither_placed_nor_taken_away() {
        let place = place();
        fs::write(place.state.join("sm/10.0.0.1"), LINE).unwrap();
        let mut conveyor = Conveyor::open(&place.state, &place.local).unwrap();
        conveyor.place(&records(LINE), Conveyance::Copy, &name()).unwrap();
        assert!(conveyor.placed().is_empty(), "it would seem to be gone");
        conveyor.clean_up().unwrap();
        assert_eq!(sm(&place).as_deref(), Some(LINE));
    }

    #[test]
    fn a_line_of_the_servers_own_status_monitor_stays() {
        let place = place();
        fs::write(place.state.join("sm/10.0.0.1"), OWN).unwrap();
        let mut conveyor = Conveyor::open(&place.state, &place.local).unwrap();
        conveyor.place(&records(LINE), Conveyance::Copy, &name()).unwrap();
        conveyor.place(&records(LINE), Conveyance::Copy, &name()).unwrap();
        assert_eq!(sm(&place), Some(format!("{OWN}{LINE}")), "placed once");
        conveyor.clean_up().unwrap();
        assert_eq!(sm(&place).as_deref(), Some(OWN));
    }

    #[test]
    fn many_are_placed_together_beside_what_is_there_and_leave_nothing_behind() {
        let place = place();
        fs::write(place.state.join("sm/10.0.0.1"), OWN).unwrap();
        let many: BTreeMap<MonName, Vec<u8>> = (1..=u8::try_from(3 * SYNC_EACH_MAX).unwrap())
            .map(|i| MonName::from_address([10, 0, 0, i].into()))
            .map(|client| (client.clone(), LINE.replace("10.0.0.1", client.as_str()).into_bytes()))
            .collect();
        let names = || {
            let entries = fs::read_dir(place.state.join("sm")).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        let mut conveyor = Conveyor::open(&place.state, &place.local).unwrap();
        assert_eq!(conveyor.place(&many, Conveyance::Copy, &name()).unwrap(), many.len());
        assert_eq!(sm(&place), Some(format!("{OWN}{LINE}")));
        for (client, record) in many.iter().skip(1) {
            let path = place.state.join("sm").join(client.as_str());
            assert_eq!(fs::read(&path).unwrap(), *record);
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        }
        assert_eq!(names().len(), many.len(), "no temporary one stays");
        conveyor.clean_up().unwrap();
        assert_eq!((names(), sm(&place)), (vec!["10.0.0.1".to_owned()], Some(OWN.to_owned())));
    }
}
