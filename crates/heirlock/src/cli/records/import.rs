//! `heirlock records import`: what a status monitor knows becomes a generation of a service that nobody holds, for
//! `heirlock adopt` to take over. It is how locks of a server without heirlock, or of a dead one whose disk is left,
//! come into the store.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;
use std::thread;
use std::time::Duration;

use heirlock_core::claim::{Authority, Claim, ClaimRefusal, OwnerHeart, next_generation};
use heirlock_core::ledger::{Addresses, Population, Scan, population};
use heirlock_core::state_number::next_unsent;
use heirlock_core::takeover::Journal;
use heirlock_core::{Generation, ServiceName, limits as core_limits};
use heirlock_nsm::record::{parse_record, render_record};
use heirlock_nsm::state::StateError;
use heirlock_nsm::{MonName, StateNumber};
use rustix::fs::{Mode, OFlags, open};
use serde::Serialize;

use crate::config::Settings;
use crate::detector;
use crate::limits;
use crate::store::dir::DirStore;
use crate::store::{ClaimAnswer, Contents, Store, journal_text};

use super::super::exit::{Exit, Failed};
use super::super::output::now_s;
use super::{Left, left_of};

/// As much of a `state` file as tells whether it is one.
const STATE_BYTES_READ: u64 = 16;

/// What was brought in.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Imported {
    pub(in crate::cli) service: ServiceName,
    pub(in crate::cli) generation: Generation,
    pub(in crate::cli) state_number: u32,
    pub(in crate::cli) directory: String,
    /// Clients whose record is new, or has new lines.
    pub(in crate::cli) imported: Vec<String>,
    /// Clients of the directory that the store knew just so.
    pub(in crate::cli) known: usize,
    /// All that the service has now.
    pub(in crate::cli) records: usize,
    /// Clients that were brought in, but can't be told until their name has an address.
    pub(in crate::cli) unresolved: Vec<String>,
    /// What was left alone, and why.
    pub(in crate::cli) left: Vec<Left>,
}

/// What the directory says.
struct Source {
    population: Population,
    state: Option<StateNumber>,
    left: Vec<Left>,
}

/// Brings a status monitor's directory in.
pub(super) fn import(
    settings: &Settings,
    service: &ServiceName,
    directory: &Path,
    owner_fenced: bool,
) -> Result<Imported, Failed> {
    check_service(settings, service)?;
    let store = DirStore::open(&settings.store.path)?;
    let newest = store.newest_claim(service)?;
    let generation = may_claim(settings, service, newest.as_ref(), owner_fenced)?;
    let source = read(directory)?;
    let base = match &newest {
        Some(claim) => store.newest_generation(service, claim.generation)?,
        None => None,
    };
    let base = base.map(|base| store.load(service, base)).transpose()?.unwrap_or_default();
    let state = next_unsent(&sent(&store, &base, &source)?);
    let mut imported = Imported {
        service: service.clone(),
        generation,
        state_number: state.0,
        directory: directory.display().to_string(),
        imported: Vec::new(),
        known: 0,
        records: 0,
        unresolved: nameless(&source.population).iter().map(ToString::to_string).collect(),
        left: source.left,
    };
    imported.left.extend(left_of(&base));
    let records = unite(base.records, source.population.clients, &mut imported);
    imported.records = records.len();
    if records.len() > core_limits::RECORDS_MAX {
        let what = format!(
            "expected at most {} records with those that {service} has, found {}; nothing was changed",
            core_limits::RECORDS_MAX,
            records.len()
        );
        return Err(Failed::new(Exit::Refused, what));
    }
    let contents = Contents { state: Some(state), records, ..Contents::default() };
    write(&store, settings, service, generation, contents)?;
    Ok(imported)
}

/// A service that nobody has configured would never be adopted.
fn check_service(settings: &Settings, service: &ServiceName) -> Result<(), Failed> {
    if settings.service(service).is_some() {
        return Ok(());
    }
    let what = match service.host_of() {
        Some(server) => format!(
            "{service} is what {server} serves under its own name: its agent finds those records by itself, nothing can \
             be imported there"
        ),
        None => {
            let known: Vec<&str> = settings.services.iter().map(|service| service.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            format!(
                "expected a service of the configuration ({known}), found {service}; add a [[service]] section"
            )
        }
    };
    Err(Failed::new(Exit::Usage, what))
}

/// An import is no adoption: it never takes anything from somebody who may be serving.
fn may_claim(
    settings: &Settings,
    service: &ServiceName,
    newest: Option<&Claim>,
    owner_fenced: bool,
) -> Result<Generation, Failed> {
    if newest.is_some_and(|claim| claim.owner == settings.server && !claim.released) {
        let what = format!(
            "{service} belongs to this server, whose agent keeps its records: put these into its status monitor's \
             directory, or say 'heirlock release {service}' first; nothing was changed"
        );
        return Err(Failed::new(Exit::Refused, what));
    }
    // Nobody has watched the owner's heart: this is a short run of a program.
    let heart = OwnerHeart::Unknown { watched: Duration::ZERO, needed: settings.heartbeat.dead_after * 2 };
    let authority = Authority { owner_fenced, insisted: false };
    next_generation(service, newest, &settings.server, heart, authority).map_err(|refusal| match refusal {
        ClaimRefusal::OwnerUnknown { service, owner, .. } => {
            let what = format!(
                "{service} belongs to {owner}, which may be serving it: release it there, or make sure that {owner} is \
                 off and say --owner-fenced; nothing was changed"
            );
            Failed::new(Exit::Refused, what)
        }
        other => Failed::new(Exit::Refused, other),
    })
}

fn read(directory: &Path) -> Result<Source, Failed> {
    let scan = detector::scan(directory).map_err(|error| Failed::new(Exit::Usage, error))?;
    let mut left: Vec<Left> =
        scan.problems.iter().map(|p| Left { what: p.path.clone(), why: p.why.clone() }).collect();
    left.sort_by(|a, b| a.what.cmp(&b.what));
    let state = read_state(directory, &mut left)?;
    let population = resolved_population(&scan);
    if population.clients.is_empty() {
        let found: Vec<String> = left.iter().map(|left| format!("\n  {}: {}", left.what, left.why)).collect();
        let what = format!(
            "expected monitor records in {}/sm or sm.bak, found none; nothing was changed{}",
            directory.display(),
            found.concat()
        );
        return Err(Failed::new(Exit::Refused, what));
    }
    Ok(Source { population, state, left })
}

/// The number that the directory's server sent last.
fn read_state(directory: &Path, left: &mut Vec<Left>) -> Result<Option<StateNumber>, Failed> {
    let path = directory.join("state");
    let read = || -> io::Result<Vec<u8>> {
        // A pipe would make us wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut bytes = Vec::new();
        File::from(open(&path, flags, Mode::empty())?).take(STATE_BYTES_READ).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read().map(|bytes| StateNumber::parse_file(&bytes)) {
        Ok(Ok(state)) => Ok(Some(state)),
        // What Debian ships: nothing was ever sent.
        Ok(Err(StateError::Empty)) => Ok(None),
        Ok(Err(error)) => {
            left.push(Left { what: "state".into(), why: error.to_string() });
            Ok(None)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failed::new(Exit::Usage, format!("can't read {}: {error}", path.display()))),
    }
}

/// The clients under their addresses: at failover no name is asked for.
fn resolved_population(scan: &Scan) -> Population {
    let by_name = population(scan, &BTreeMap::new(), &Addresses::new());
    let addresses = resolve(&nameless(&by_name));
    population(scan, &BTreeMap::new(), &addresses)
}

/// Clients without an address.
fn nameless(population: &Population) -> Vec<MonName> {
    population.clients.keys().filter(|key| key.address().is_none()).cloned().collect()
}

fn resolve(names: &[MonName]) -> Addresses {
    let mut addresses = Addresses::new();
    for some in names.chunks(limits::RESOLVE_AT_ONCE_MAX) {
        thread::scope(|scope| {
            let threads: Vec<_> = some.iter().map(|name| (name, scope.spawn(|| address_of(name)))).collect();
            for (name, thread) in threads {
                if let Ok(Some(address)) = thread.join() {
                    addresses.insert(name.clone(), address);
                }
            }
        });
    }
    addresses
}

/// A scoped address (`fe80::1%eth0`) means nothing on another server.
fn address_of(name: &MonName) -> Option<IpAddr> {
    if name.as_str().contains('%') {
        return None;
    }
    (name.as_str(), 0).to_socket_addrs().ok()?.next().map(|address| address.ip())
}

/// Every number that may have been sent to these clients by anybody (I5).
fn sent(store: &DirStore, base: &Contents, source: &Source) -> Result<Vec<StateNumber>, Failed> {
    let servers = store.servers()?;
    let theirs = servers.values().filter_map(|report| report.state).map(StateNumber);
    Ok(base.state.into_iter().chain(source.state).chain(theirs).collect())
}

/// What the store has stays, to the byte; what is new comes after it.
fn unite(
    mut records: BTreeMap<MonName, Vec<u8>>,
    found: BTreeMap<MonName, Vec<u8>>,
    imported: &mut Imported,
) -> BTreeMap<MonName, Vec<u8>> {
    for (client, bytes) in found {
        let Some(there) = records.get_mut(&client) else {
            imported.imported.push(client.to_string());
            records.insert(client, bytes);
            continue;
        };
        let added = added_lines(there, &bytes);
        if added.is_empty() {
            imported.known += 1;
        } else if there.len() + 1 + added.len() > core_limits::RECORD_BYTES_MAX {
            let why = format!("its record would grow above {} bytes", core_limits::RECORD_BYTES_MAX);
            imported.left.push(Left { what: client.to_string(), why });
        } else {
            if !there.ends_with(b"\n") {
                there.push(b'\n');
            }
            there.extend(added);
            imported.imported.push(client.to_string());
        }
    }
    records
}

/// The lines of `new` that are not in `old`.
fn added_lines(old: &[u8], new: &[u8]) -> Vec<u8> {
    let lines = |bytes| parse_record(bytes).map(|parsed| parsed.lines).unwrap_or_default();
    let (old, mut new) = (lines(old), lines(new));
    new.retain(|line| !old.contains(line));
    render_record(&new)
}

/// Claims, begins, gives up: whoever adopts next finds a service that is nobody's, with all its records.
fn write(
    store: &DirStore,
    settings: &Settings,
    service: &ServiceName,
    generation: Generation,
    contents: Contents,
) -> Result<(), Failed> {
    let run = format!("import-{:08x}", fastrand::u32(..));
    let claim = Claim { adopts: true, ..Claim::new(generation, &settings.server, &run, now_s()) };
    if let ClaimAnswer::Taken(Claim { owner, generation, .. }) = store.claim(service, &claim)? {
        let overtaken = ClaimRefusal::Overtaken { service: service.clone(), owner, generation };
        return Err(Failed::new(Exit::Refused, overtaken));
    }
    let journal = Some(journal_text(&Journal::quiet(&run, &settings.server, claim.claimed_at_s)));
    store.begin_generation(service, generation, &Contents { journal, ..contents })?;
    store.release(service, generation)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str =
        "0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 127.1.0.1 nfs-a\n";

    #[test]
    fn a_record_that_is_there_keeps_its_bytes_and_gains_what_is_new() {
        let other = LINE.replace("nfs-a", "nfs-b");
        assert!(added_lines(LINE.as_bytes(), LINE.as_bytes()).is_empty());
        let both = format!("{LINE}{other}");
        assert_eq!(added_lines(LINE.as_bytes(), both.as_bytes()), other.as_bytes());
    }
}
