//! The clients that a scan shows, each under one key, whatever the names of their files.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use heirlock_nsm::record::{parse_record, render_record};
use heirlock_nsm::{MonName, MonitorLine};

use super::{Folder, Scan, ScannedFile};
use crate::limits;
use crate::records::{AsKey, Record, RecordKey, Records};

/// The addresses of names: where each client is. The first address is the client's key. Names are resolved when a record is
/// captured, not at failover: a dead name server must not stand between a client and its notification.
pub type Addresses = BTreeMap<MonName, Vec<IpAddr>>;

/// Takes in what a name was resolved to. The address that its client is known by stays as long as it is among them, in
/// whatever order they come: another one would make another client of it.
pub fn learn(addresses: &mut Addresses, name: &MonName, mut found: Vec<IpAddr>) {
    if found.is_empty() {
        return;
    }
    let known = addresses.get(name).and_then(|list| list.first());
    if let Some(at) = known.and_then(|known| found.iter().position(|address| address == known)) {
        let known = found.remove(at);
        found.insert(0, known);
    }
    found.truncate(limits::CLIENT_ADDRESSES_MAX);
    addresses.insert(name.clone(), found);
}

/// Takes in what a record in the store tells of the names in it: the record's key, and the addresses in its lines. Addresses
/// that are known already stay.
pub fn learn_from_record(addresses: &mut Addresses, key: &MonName, record: &[u8]) {
    let Some(known_by) = key.address() else { return };
    let lines = lines_of(record);
    if lines.iter().all(|line| line.mon_name.address().is_some()) {
        return;
    }
    let mut found = vec![known_by];
    for address in lines.iter().filter_map(|line| line.mon_name.address()) {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    for line in lines.into_iter().filter(|line| line.mon_name.is_host_name()) {
        addresses.entry(line.mon_name).or_insert_with(|| found.clone());
    }
}

/// The clients that a scan shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Population {
    /// One entry a client: its numeric address where that is known, and statd's own lines.
    pub clients: Records,
    /// Clients of which a line lies in `sm.bak`, and what of their record lies in `sm`: nothing where no line does.
    pub backed_up: BTreeMap<RecordKey, Option<Record>>,
    /// Further addresses of clients that are known by a name and have several.
    pub further: BTreeMap<MonName, Vec<IpAddr>>,
    /// Under which key each registration by a name is.
    pub keys: BTreeMap<MonName, MonName>,
    /// Names for which no address is known yet: to be resolved.
    pub unresolved: BTreeSet<MonName>,
    /// Clients whose file is there but can't be read as a record: they are not gone.
    pub doubtful: BTreeSet<MonName>,
    /// Some file can't be read as a record, and it isn't known whose it is: any client that is missing may be in it.
    pub incomplete: bool,
}

/// Finds the clients of a scan.
///
/// `conveyed` are the lines that we placed there ourselves, by file: they are no registration of this server's lock
/// manager. A client may have several files, and a file lines of several clients (nfs-utils names files by what
/// the resolver says at the moment); lines are gathered by the address they lead to.
#[must_use]
pub fn population(scan: &Scan, conveyed: &BTreeMap<MonName, Vec<u8>>, addresses: &Addresses) -> Population {
    let mut found = Population::default();
    for problem in &scan.problems {
        found.doubt(problem.path.rsplit('/').next().unwrap_or_default(), addresses);
    }
    let mut gathered: BTreeMap<MonName, Gathered> = BTreeMap::new();
    let mut files: Vec<&ScannedFile> = scan.files.iter().collect();
    files.sort_by(|a, b| (a.folder, &a.name).cmp(&(b.folder, &b.name)));
    for file in files {
        let Ok(parsed) = parse_record(&file.bytes) else {
            found.doubt(file.name.as_str(), addresses);
            continue;
        };
        if !parsed.problems.is_empty() {
            found.doubt(file.name.as_str(), addresses);
        }
        let placed =
            if file.folder == Folder::Sm { placed_lines(conveyed.get(&file.name)) } else { Vec::new() };
        let is_whole = parsed.problems.is_empty() && placed.is_empty();
        let whole = is_whole.then_some((&file.bytes, parsed.lines.len()));
        for line in parsed.lines.into_iter().filter(|line| !placed.contains(line)) {
            let key = found.key_of(&line, &file.name, addresses);
            let client = gathered.entry(key.clone()).or_default();
            // All files of `sm` were gathered before those of `sm.bak`.
            if file.folder == Folder::SmBak {
                found.backed_up.entry(key.into()).or_insert_with(|| client.so_far());
            }
            client.add(line, whole);
        }
    }
    found.clients = gathered.into_iter().map(|(key, client)| (key, client.record())).collect();
    found
}

/// The lines of a description that are to be placed, and remembered as placed, beside those in the client's file already.
///
/// A line that the status monitor wrote itself is left to it: where a record comes back to the server that it was
/// captured on, the copy is that very line, and a look that took it for placed would take a living client for gone, and its
/// registration away at the end. Nor is a line placed that names this server's own status monitor, `own`: restarted, it
/// would take the client for registered already, and write no line of its own.
#[must_use]
pub fn lines_to_place(there: &[u8], remembered: &[u8], description: &[u8], own: &str) -> Vec<u8> {
    let (there, remembered) = (lines_of(there), lines_of(remembered));
    let mut lines = lines_of(description);
    lines.retain(|line| remembered.contains(line) || !there.contains(line));
    lines.retain(|line| line.my_name.as_str() != own);
    render_record(&lines)
}

impl Population {
    /// The clients that are registered with the status monitor: what of their record lies in `sm`. The status monitor writes
    /// nothing into `sm.bak`; a notifier moves records there that it finds in `sm`, also those that this server placed.
    pub fn registered(&self) -> impl Iterator<Item = (&RecordKey, &Record)> {
        self.clients.iter().filter_map(|(key, record)| match self.backed_up.get(key) {
            Some(in_sm) => Some((key, in_sm.as_ref()?)),
            None => Some((key, record)),
        })
    }

    /// These are a client's registrations now.
    pub fn is_registered(&mut self, client: &MonName, record: &[u8]) {
        self.backed_up.remove(client as &dyn AsKey);
        self.clients.insert(client, record);
    }

    /// The record of a client in the store: statd's own lines, and one more for each further address, so that any server can
    /// tell it there without a name service.
    #[must_use]
    pub fn record_of(&self, key: &RecordKey, lines: &Record) -> Record {
        let Some(further) = self.further.get(key.client()) else { return lines.clone() };
        let registered = lines_of(lines);
        let Some(my_name) = registered.first().map(|line| line.my_name.clone()) else {
            return lines.clone();
        };
        let mut record = lines.to_vec();
        if !record.ends_with(b"\n") {
            record.push(b'\n');
        }
        let more = further
            .iter()
            .map(|address| MonitorLine::generated(MonName::from_address(*address), my_name.clone()));
        record.extend(render_record(&more.collect::<Vec<_>>()));
        if record.len() > limits::RECORD_BYTES_MAX { lines.clone() } else { record.into() }
    }

    /// Under which keys a client is that is no more under this one: it registered by a name, and where that leads is known
    /// only since, or is another place now. None where it did not move.
    #[must_use]
    pub fn moved_to(&self, key: &RecordKey, record: &[u8]) -> BTreeSet<&MonName> {
        if self.keys.is_empty() || self.clients.contains_key(key) {
            return BTreeSet::new();
        }
        let key = key.client();
        let (by_address, by_name): (Vec<_>, Vec<_>) =
            lines_of(record).into_iter().partition(|line| line.mon_name.address().is_some());
        let names_itself = by_address.iter().any(|line| line.mon_name.address() == key.address());
        let there: Vec<Option<&MonName>> =
            by_name.iter().map(|line| self.keys.get(&line.mon_name).filter(|other| *other != key)).collect();
        if names_itself || there.iter().any(Option::is_none) {
            return BTreeSet::new();
        }
        there.into_iter().flatten().filter(|other| self.clients.contains_key(*other)).collect()
    }

    fn key_of(&mut self, line: &MonitorLine, file: &MonName, addresses: &Addresses) -> MonName {
        if let Some(key) = line.mon_name.by_address() {
            return key;
        }
        let named = addresses.get(&line.mon_name).or_else(|| addresses.get(file));
        let by_name = addresses.get(&line.mon_name).and_then(|list| list.first()).copied();
        let known = by_name.or_else(|| file.address()).or_else(|| named?.first().copied());
        let Some(address) = known else {
            self.unresolved.insert(line.mon_name.clone());
            return line.mon_name.clone();
        };
        let key = MonName::from_address(address);
        self.keys.insert(line.mon_name.clone(), key.clone());
        for other in named.into_iter().flatten().filter(|other| **other != address) {
            let further = self.further.entry(key.clone()).or_default();
            if !further.contains(other) && further.len() + 1 < limits::CLIENT_ADDRESSES_MAX {
                further.push(*other);
            }
        }
        key
    }

    /// Whether this client may be there although no record of it could be read.
    #[must_use]
    pub fn may_hold(&self, key: &impl AsKey) -> bool {
        self.incomplete || self.clients.contains_key(key) || self.doubtful.contains(key.as_key().client())
    }

    /// A file of this name can't be read as a record.
    fn doubt(&mut self, file: &str, addresses: &Addresses) {
        // A text that is no name can't be a record's file name either.
        let Ok(name) = MonName::parse(file) else { return };
        match name.address().or_else(|| addresses.get(&name)?.first().copied()) {
            Some(address) => {
                self.doubtful.insert(MonName::from_address(address));
            }
            None => {
                self.unresolved.insert(name);
                self.incomplete = true;
            }
        }
    }
}

/// The lines gathered for one client, and the one file they all came from where there is just one.
///
/// Nearly every client is one file of one line. That line is not kept beside the file: those of very many clients take more memory
/// than the files, and it is in the file where another line comes.
#[derive(Default)]
struct Gathered<'a> {
    /// None where all there is is a file of one line.
    lines: Vec<MonitorLine>,
    /// Bytes of these lines, as they are kept.
    bytes: usize,
    source: Source<'a>,
}

/// Where lines came from.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Source<'a> {
    #[default]
    Nowhere,
    /// One file of so many lines, or several that are the same to the byte.
    File(&'a Record, usize),
    /// Several, or a part of one.
    Several,
}

impl<'a> Gathered<'a> {
    /// Lines beyond what is kept for one client ([`limits::RECORD_BYTES_MAX`]) are left out, however many files there are.
    fn add(&mut self, line: MonitorLine, whole_file: Option<(&'a Record, usize)>) {
        let source = whole_file.map_or(Source::Several, |(file, lines)| Source::File(file, lines));
        if self.source == Source::Nowhere && matches!(source, Source::File(_, 1)) {
            self.source = source;
            return;
        }
        if let Some(file) = self.only_file() {
            if self.source == source {
                return;
            }
            self.lines = lines_of(file);
            self.bytes = self.lines.iter().map(MonitorLine::rendered_len).sum();
        }
        self.source = if [Source::Nowhere, source].contains(&self.source) { source } else { Source::Several };
        if self.lines.contains(&line) {
            return;
        }
        let bytes = self.bytes + line.rendered_len();
        if bytes > limits::RECORD_BYTES_MAX {
            return;
        }
        self.bytes = bytes;
        self.lines.push(line);
    }

    /// The file of one line that is all there is.
    fn only_file(&self) -> Option<&'a Record> {
        match self.source {
            Source::File(file, 1) if self.lines.is_empty() => Some(file),
            _ => None,
        }
    }

    /// The record that its lines make until now; none where there is none.
    fn so_far(&self) -> Option<Record> {
        (self.source != Source::Nowhere).then(|| self.record())
    }

    /// Byte for byte where the client is exactly one file; else statd's lines, one after the other.
    fn record(&self) -> Record {
        match (self.only_file(), self.source) {
            (Some(file), _) => file.clone(),
            // All of its lines are here, in their order: none is another client's, or there twice.
            (None, Source::File(file, lines)) if lines == self.lines.len() => file.clone(),
            (None, _) => render_record(&self.lines).into(),
        }
    }
}

fn placed_lines(conveyed: Option<&Vec<u8>>) -> Vec<MonitorLine> {
    conveyed.map(|bytes| lines_of(bytes)).unwrap_or_default()
}

fn lines_of(bytes: &[u8]) -> Vec<MonitorLine> {
    parse_record(bytes).map(|parsed| parsed.lines).unwrap_or_default()
}
