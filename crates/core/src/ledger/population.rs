//! Which clients a scan shows, each under one key, whatever their files are called.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use heirlock_nsm::record::{parse_record, render_record};
use heirlock_nsm::{MonName, MonitorLine};

use super::{Folder, Scan, ScannedFile};
use crate::limits;

/// What is known of names that are no addresses. They are resolved when a record is captured, never at failover: a
/// dead name server must not stand between a client and its notification.
pub type Addresses = BTreeMap<MonName, IpAddr>;

/// The clients that a scan shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Population {
    /// One entry a client: its numeric address where that is known, and statd's own lines.
    pub clients: BTreeMap<MonName, Vec<u8>>,
    /// Names for which no address is known yet: to be resolved.
    pub unresolved: BTreeSet<MonName>,
    /// Clients whose file is there but can't be read as a record: they are not gone.
    pub doubtful: BTreeSet<MonName>,
    /// Some file can't be read as a record, and it isn't known whose it is: anybody who is missing may be in it.
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
        let whole = parsed.problems.is_empty() && placed.is_empty();
        let mut lines: Vec<MonitorLine> = parsed.lines;
        lines.retain(|line| !placed.contains(line));
        for line in lines {
            let key = key_of(&line, &file.name, addresses, &mut found.unresolved);
            gathered.entry(key).or_default().add(line, whole.then_some(&file.bytes));
        }
    }
    found.clients = gathered.into_iter().map(|(key, client)| (key, client.into_bytes())).collect();
    found
}

/// Which lines of a description are to be placed, and remembered as placed, beside what lies in the client's file already.
///
/// A line that the status monitor wrote itself is left to it: where a record comes back to the server that it was
/// captured on, the copy is that very line, and whoever took it for placed would take a living client for gone, and its
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
    /// Whether this client may be there although no record of it could be read.
    #[must_use]
    pub fn may_hold(&self, client: &MonName) -> bool {
        self.incomplete || self.clients.contains_key(client) || self.doubtful.contains(client)
    }

    /// A file of this name can't be read as a record.
    fn doubt(&mut self, file: &str, addresses: &Addresses) {
        // What is no name can't be a record's file name either.
        let Ok(name) = MonName::parse(file) else { return };
        match name.address().or_else(|| addresses.get(&name).copied()) {
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
#[derive(Default)]
struct Gathered<'a> {
    lines: Vec<MonitorLine>,
    /// All lines, as they are kept.
    rendered: Vec<u8>,
    source: Source<'a>,
}

/// Where lines came from.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Source<'a> {
    #[default]
    Nowhere,
    /// One file, or several that are the same to the byte.
    File(&'a [u8]),
    /// Several, or a part of one.
    Several,
}

impl<'a> Gathered<'a> {
    /// Lines beyond what is kept for one client ([`limits::RECORD_BYTES_MAX`]) are left out, however many files there are.
    fn add(&mut self, line: MonitorLine, whole_file: Option<&'a Vec<u8>>) {
        let source = whole_file.map_or(Source::Several, |file| Source::File(file));
        self.source = if [Source::Nowhere, source].contains(&self.source) { source } else { Source::Several };
        if self.lines.contains(&line) {
            return;
        }
        let kept = self.rendered.len();
        line.render(&mut self.rendered);
        if self.rendered.len() > limits::RECORD_BYTES_MAX {
            self.rendered.truncate(kept);
            return;
        }
        self.lines.push(line);
    }

    /// Byte for byte where the client is exactly one file; else statd's lines, one after the other.
    fn into_bytes(self) -> Vec<u8> {
        match self.source {
            Source::File(file) if parse_record(file).is_ok_and(|parsed| parsed.lines == self.lines) => {
                file.to_vec()
            }
            _ => self.rendered,
        }
    }
}

fn placed_lines(conveyed: Option<&Vec<u8>>) -> Vec<MonitorLine> {
    conveyed.map(|bytes| lines_of(bytes)).unwrap_or_default()
}

fn lines_of(bytes: &[u8]) -> Vec<MonitorLine> {
    parse_record(bytes).map(|parsed| parsed.lines).unwrap_or_default()
}

fn key_of(
    line: &MonitorLine,
    file: &MonName,
    addresses: &Addresses,
    unresolved: &mut BTreeSet<MonName>,
) -> MonName {
    let known = line
        .mon_name
        .address()
        .or_else(|| addresses.get(&line.mon_name).copied())
        .or_else(|| file.address())
        .or_else(|| addresses.get(file).copied());
    match known {
        Some(address) => MonName::from_address(address),
        None => {
            unresolved.insert(line.mon_name.clone());
            line.mon_name.clone()
        }
    }
}
