//! `heirlock records import`: the records of a status monitor become a generation of a service that no server holds, for
//! `heirlock adopt` to take over. It is how locks of a server without heirlock, or of a dead one whose disk is left, come
//! into the store.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use heirlock_core::Records;
use heirlock_core::claim::{Authority, Claim, ClaimRefusal, OwnerHeart, next_generation};
use heirlock_core::ledger::{Addresses, Population, Roles, Scan, learn, population};
use heirlock_core::state_number::next_unsent;
use heirlock_core::takeover::Journal;
use heirlock_core::{Generation, ServiceName, limits as core_limits};
use heirlock_nsm::record::{parse_record, render_record};
use heirlock_nsm::state::StateError;
use heirlock_nsm::{MonName, StateNumber};
use serde::Serialize;

use crate::config::Settings;
use crate::control::Fenced;
use crate::detector;
use crate::files::{Folder, trusted};
use crate::host::Host;
use crate::limits;
use crate::lock_manager::{self, LockManager};
use crate::monitor;
use crate::store::memory::{StoreMemory, open_ours};
use crate::store::{ClaimAnswer, Contents, Store};
use crate::this_server::look_up::resolve;
use crate::threads;

use super::super::exit::{Exit, Failed};
use super::super::output::now_s;
use super::{Left, left_of};

/// The result of an import.
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
    /// Servers that this server mounts from, which are none of the service's clients (I7).
    pub(in crate::cli) peers: Vec<String>,
    /// Clients that were brought in, but can't be told until their name has an address.
    pub(in crate::cli) unresolved: Vec<String>,
    /// The entries that were left alone, and why.
    pub(in crate::cli) left: Vec<Left>,
}

/// The directory that is imported.
struct Source {
    directory: String,
    population: Population,
    roles: Roles,
    state: Option<StateNumber>,
    left: Vec<Left>,
}

/// Brings a status monitor's directory in.
pub(super) fn import(
    host: &Host,
    settings: &Settings,
    service: &ServiceName,
    directory: &Path,
    fenced: Option<Fenced>,
) -> Result<Imported, Failed> {
    check_service(settings, service)?;
    let (store, memory) = open_ours(host, settings)?;
    import_into(store.as_ref(), &memory, settings, service, fenced, || {
        let lock_manager = lock_manager::open_on(settings, host);
        let roles = roles_in(lock_manager.as_ref(), directory, &settings.state_directory);
        read(host, directory, roles)
    })
}

fn import_into(
    store: &dyn Store,
    memory: &StoreMemory,
    settings: &Settings,
    service: &ServiceName,
    fenced: Option<Fenced>,
    read: impl FnOnce() -> Result<Source, Failed>,
) -> Result<Imported, Failed> {
    let newest = store.newest_claim(service)?;
    let known = memory.known(service);
    let next = may_claim(settings, service, newest.as_ref(), fenced)?;
    let begun = store.newest_generation(service, Generation(u64::MAX))?;
    let generation = known.above(next, begun);
    memory.check_age(service, begun).map_err(|why| store.older(why))?;
    let source = read()?;
    let base = match &newest {
        Some(claim) => store.newest_generation(service, claim.generation)?,
        None => None,
    };
    let base = base.map(|base| store.load(service, base)).transpose()?.unwrap_or_default();
    let mut sent = sent(store, &base, &source)?;
    sent.extend(known.sent());
    let state = next_unsent(&sent);
    let nameless = nameless(&source.population);
    let unresolved = nameless.iter().filter(|name| !source.roles.is_peer(name));
    let mut imported = Imported {
        service: service.clone(),
        generation,
        state_number: state.0,
        directory: source.directory,
        imported: Vec::new(),
        known: 0,
        records: 0,
        peers: Vec::new(),
        unresolved: unresolved.map(ToString::to_string).collect(),
        left: source.left,
    };
    imported.left.extend(left_of(&base));
    let records = unite(base.records, kept(&source.population), &source.roles, &mut imported);
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
    write(store, settings, service, generation, contents)?;
    Ok(imported)
}

/// A service that is not configured would never be adopted.
fn check_service(settings: &Settings, service: &ServiceName) -> Result<(), Failed> {
    if settings.service(service).is_some() {
        return Ok(());
    }
    let what = match service.host_of() {
        Some(server) => format!(
            "{service} is the implicit service of {server}: its agent finds those records by itself, nothing can \
             be imported there"
        ),
        None => {
            let known = settings.services_in_words();
            format!(
                "expected a service of the configuration ({known}), found {service}; add a [[service]] section"
            )
        }
    };
    Err(Failed::new(Exit::Usage, what))
}

/// An import is no adoption: it never takes a service from a server that may be serving it.
fn may_claim(
    settings: &Settings,
    service: &ServiceName,
    newest: Option<&Claim>,
    fenced: Option<Fenced>,
) -> Result<Generation, Failed> {
    if newest.is_some_and(|claim| claim.owner == settings.server && !claim.released) {
        let what = format!(
            "{service} belongs to this server, whose agent keeps its records: put these into its status monitor's \
             directory, or say 'heirlock release {service}' first; nothing was changed"
        );
        return Err(Failed::new(Exit::Refused, what));
    }
    // The owner's heart was not watched: this is a short run of a program.
    let heart = OwnerHeart::Unknown { watched: Duration::ZERO, needed: settings.heartbeat.dead_after * 2 };
    let fenced = fenced.and_then(|fenced| fenced.server(|| newest.map(|claim| claim.owner.clone())));
    let authority = Authority { fenced, ..Authority::default() };
    next_generation(service, newest, &settings.server, heart, &authority).map_err(|refusal| match refusal {
        ClaimRefusal::OwnerUnknown { service, owner, .. } => {
            let what = format!(
                "{service} belongs to {owner}, which may be serving it: release it there, or make sure that {owner} is \
                 off and say '--owner-fenced {owner}'; nothing was changed"
            );
            Failed::new(Exit::Refused, what)
        }
        other => Failed::new(Exit::Refused, other),
    })
}

/// The roles of hosts, where it is this server's own directory: in another server's directory only that server's mounts
/// could tell.
fn roles_in(lock_manager: &dyn LockManager, directory: &Path, own: &Path) -> Roles {
    if is_own(directory, own) { lock_manager.peers().roles(&[], false) } else { Roles::default() }
}

fn is_own(directory: &Path, own: &Path) -> bool {
    let identity = |path: &Path| trusted::stat(path.join("sm")).map(|meta| (meta.dev(), meta.ino())).ok();
    identity(directory).is_some_and(|here| identity(own) == Some(here))
}

fn read(host: &Host, directory: &Path, roles: Roles) -> Result<Source, Failed> {
    let scan = detector::scan(directory).map_err(|error| Failed::new(Exit::Usage, error))?;
    let mut left: Vec<Left> =
        scan.problems.iter().map(|p| Left { what: p.path.clone(), why: p.why.clone() }).collect();
    left.sort_by(|a, b| a.what.cmp(&b.what));
    let state = read_state(directory, &mut left);
    let population = resolved_population(host, &scan);
    if population.clients.is_empty() {
        let found: Vec<String> = left.iter().map(|left| format!("\n  {}: {}", left.what, left.why)).collect();
        let what = format!(
            "expected monitor records in {}/sm or sm.bak, found none; nothing was changed{}",
            directory.display(),
            found.concat()
        );
        return Err(Failed::new(Exit::Refused, what));
    }
    Ok(Source { directory: directory.display().to_string(), population, roles, state, left })
}

/// The number that the directory's server sent last.
fn read_state(directory: &Path, left: &mut Vec<Left>) -> Option<StateNumber> {
    let read = Folder::open(directory).and_then(|folder| monitor::read_state(&folder));
    let why = match read.map(|bytes| StateNumber::parse_file(&bytes)) {
        Ok(Ok(state)) => return Some(state),
        // Debian ships this: nothing was ever sent.
        Ok(Err(StateError::Empty)) => return None,
        Ok(Err(error)) => error.to_string(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => error.to_string(),
    };
    left.push(Left { what: "state".into(), why });
    None
}

/// The clients under their addresses: at failover no name is asked for.
fn resolved_population(host: &Host, scan: &Scan) -> Population {
    let by_name = population(scan, &BTreeMap::new(), &Addresses::new());
    let addresses = resolve_all(host, &nameless(&by_name));
    population(scan, &BTreeMap::new(), &addresses)
}

/// The record of each client as the store keeps it.
fn kept(population: &Population) -> Records {
    population.clients.iter().map(|(key, lines)| (key, population.record_of(key, lines))).collect()
}

/// Clients without an address.
fn nameless(population: &Population) -> Vec<MonName> {
    population.clients.clients().filter(|client| client.address().is_none()).cloned().collect()
}

fn resolve_all(host: &Host, names: &[MonName]) -> Addresses {
    let mut addresses = Addresses::new();
    for some in names.chunks(limits::RESOLVE_AT_ONCE_MAX) {
        thread::scope(|scope| {
            let begin = |name| threads::start_in(scope, "resolve", move || resolve(host, name));
            let threads: Vec<_> = some.iter().map(|name| (name, begin(name))).collect();
            for (name, thread) in threads {
                let found = match thread {
                    Ok(thread) => thread.join(),
                    // One after the other then.
                    Err(_) => Ok(resolve(host, name)),
                };
                if let Ok(found) = found {
                    learn(&mut addresses, name, found);
                }
            }
        });
    }
    addresses
}

/// Every number that any server may have sent to these clients (I5).
fn sent(store: &dyn Store, base: &Contents, source: &Source) -> Result<Vec<StateNumber>, Failed> {
    let servers = store.servers()?;
    let theirs = servers.values().filter_map(|report| report.state).map(StateNumber);
    Ok(base.state.into_iter().chain(source.state).chain(theirs).collect())
}

/// The store's lines stay, to the byte; new ones come after them.
fn unite(mut records: Records, found: Records, roles: &Roles, imported: &mut Imported) -> Records {
    for (key, record) in found {
        let Some(there) = records.get(&key) else {
            if roles.is_peer(key.client()) {
                imported.peers.push(key.to_string());
                continue;
            }
            imported.imported.push(key.to_string());
            records.insert(key, record);
            continue;
        };
        let added = added_lines(there, &record);
        if added.is_empty() {
            imported.known += 1;
        } else if there.len() + 1 + added.len() > core_limits::RECORD_BYTES_MAX {
            let why = format!("its record would grow above {} bytes", core_limits::RECORD_BYTES_MAX);
            imported.left.push(Left { what: key.to_string(), why });
        } else {
            let mut united = there.to_vec();
            if !united.ends_with(b"\n") {
                united.push(b'\n');
            }
            united.extend(added);
            imported.imported.push(key.to_string());
            records.insert(key, united);
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

/// Takes a number and begins its generation. The claim has no holder from its beginning, so an import that ends between
/// the two has changed nothing that a server goes by, and is simply run again.
fn write(
    store: &dyn Store,
    settings: &Settings,
    service: &ServiceName,
    generation: Generation,
    contents: Contents,
) -> Result<(), Failed> {
    let run = format!("import-{:08x}", fastrand::u32(..));
    let new = Claim::new(generation, &settings.server, &run, now_s());
    let claim = Claim { released: true, adopts: true, ..new };
    if let ClaimAnswer::Taken(Claim { owner, generation, .. }) = store.claim(service, &claim)? {
        let overtaken = ClaimRefusal::Overtaken { service: service.clone(), owner, generation };
        return Err(Failed::new(Exit::Refused, overtaken));
    }
    let journal = Some(Journal::quiet(&run, &settings.server, claim.claimed_at_s));
    begin(store, service, generation, &Contents { journal, ..contents })
}

/// Begins what was claimed; a server that has claimed meanwhile may not have seen it.
fn begin(
    store: &dyn Store,
    service: &ServiceName,
    generation: Generation,
    contents: &Contents,
) -> Result<(), Failed> {
    store.begin_generation(service, generation, contents)?;
    match store.newest_claim(service)?.filter(|newest| newest.generation > generation) {
        None => Ok(()),
        Some(Claim { owner, generation, .. }) => Err(Failed::new(
            Exit::Failed,
            format!(
                "{owner} claimed {service} as generation {generation} during the import, perhaps without these records: \
                 'heirlock records list {service}' shows what it has; release it, import again and adopt it again for \
                 those that it lacks"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::dir::DirStore;
    use crate::store::faulty::{Fault, FaultyDisk, Survives};
    use std::fs;

    const LINE: &str =
        "0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 127.1.0.1 nfs-a\n";

    #[test]
    fn a_record_that_is_there_keeps_its_bytes_and_gains_what_is_new() {
        let other = LINE.replace("nfs-a", "nfs-b");
        assert!(added_lines(LINE.as_bytes(), LINE.as_bytes()).is_empty());
        let both = format!("{LINE}{other}");
        assert_eq!(added_lines(LINE.as_bytes(), both.as_bytes()), other.as_bytes());
    }

    const ROOT: &str = "/store";

    fn settings() -> Settings {
        let text = "server = \"nfs-a\"\n[store]\npath = \"/store\"\n\
                    [[service]]\nname = \"nfs\"\naddresses = [\"192.0.2.10\"]\n";
        crate::config::parse(Path::new("test.toml"), text).unwrap()
    }

    fn nfs() -> ServiceName {
        ServiceName::parse("nfs").unwrap()
    }

    fn source(clients: &[&str], roles: Roles) -> Source {
        let client =
            |name: &&str| (MonName::parse(name).unwrap(), LINE.replace("127.1.0.1", name).into_bytes());
        let population =
            Population { clients: clients.iter().map(client).collect(), ..Population::default() };
        Source {
            directory: "/var/lib/nfs".into(),
            population,
            roles,
            state: Some(StateNumber(7)),
            left: Vec::new(),
        }
    }

    fn import(store: &DirStore, source: Source) -> Result<Imported, Failed> {
        import_into(store, &StoreMemory::default(), &settings(), &nfs(), None, || Ok(source))
    }

    #[test]
    fn a_server_that_this_server_mounts_from_is_none_of_the_services_clients() {
        let store = DirStore::create_on(Path::new(ROOT), Box::new(FaultyDisk::new())).unwrap();
        let names = |names: &[&str]| names.iter().map(|name| MonName::parse(name).unwrap()).collect();
        let peers = ["10.0.0.7", "10.0.0.8", "filer"];
        import(&store, source(&["10.0.0.8"], Roles::default())).unwrap();
        let roles = Roles {
            peers: names(&["10.0.0.7", "10.0.0.8", "10.0.0.9", "filer"]),
            connected: names(&["10.0.0.9"]),
        };
        let done = import(&store, source(&[&peers[..], &["10.0.0.1", "10.0.0.9"]].concat(), roles)).unwrap();
        assert_eq!(done.peers, ["10.0.0.7", "filer"], "and a host that is a client as well stays one");
        assert_eq!((done.imported, done.known), (vec!["10.0.0.1".to_owned(), "10.0.0.9".into()], 1));
        assert_eq!((done.unresolved, done.records), (vec![], 3));
    }

    #[test]
    fn only_this_servers_own_directory_is_judged_by_its_mounts() {
        let tree = tempfile::tempdir().unwrap();
        let path = |name: &str| tree.path().join(name);
        for name in ["own", "own/sm", "other", "other/sm"] {
            fs::create_dir(path(name)).unwrap();
        }
        std::os::unix::fs::symlink("own", path("link")).unwrap();
        assert!(is_own(&path("link"), &path("own")));
        assert!(!is_own(&path("other"), &path("own")) && !is_own(&path("none"), &path("none")));
    }

    #[test]
    fn an_import_that_ended_at_any_step_belongs_to_no_server_and_is_finished_by_the_next() {
        let mut step = 0;
        loop {
            let disk = FaultyDisk::new();
            let store = DirStore::create_on(Path::new(ROOT), Box::new(disk.clone())).unwrap();
            import(&store, source(&["10.0.0.1"], Roles::default())).unwrap();
            disk.set(Fault::CrashBefore(disk.steps() + step));
            let ended = import(&store, source(&["10.0.0.2", "10.0.0.3"], Roles::default()));
            if ended.is_ok() {
                break;
            }
            for survives in [Survives::Nothing, Survives::Everything, Survives::Some(step)] {
                let store = DirStore::on(Path::new(ROOT), Box::new(disk.after_crash(survives)));
                let claim = store.newest_claim(&nfs()).unwrap().unwrap();
                assert!(claim.released, "step {step}, {survives:?}: {claim:?}");
                let done = import(&store, source(&["10.0.0.2", "10.0.0.3"], Roles::default())).unwrap();
                assert_eq!(done.records, 3, "step {step}, {survives:?}");
                assert!(store.newest_claim(&nfs()).unwrap().unwrap().released);
                let newest = store.newest_generation(&nfs(), done.generation).unwrap();
                assert_eq!(newest, Some(done.generation), "step {step}, {survives:?}");
            }
            step += 1;
        }
        assert!(step > 10, "an import has more steps than {step}");
    }

    #[test]
    fn an_adoption_during_an_import_is_said() {
        let store = DirStore::create_on(Path::new(ROOT), Box::new(FaultyDisk::new())).unwrap();
        import(&store, source(&["10.0.0.1"], Roles::default())).unwrap();
        let ours =
            Claim { released: true, ..Claim::new(Generation(2), &"nfs-a".parse().unwrap(), "import", 0) };
        let adopter = Claim::new(Generation(3), &"nfs-b".parse().unwrap(), "run", 0);
        for claim in [ours, adopter] {
            assert_eq!(store.claim(&nfs(), &claim).unwrap(), ClaimAnswer::Won);
        }
        let contents = Contents { state: Some(StateNumber(9)), ..Contents::default() };
        let refused = begin(&store, &nfs(), Generation(2), &contents).unwrap_err();
        assert!(refused.message.contains("nfs-b claimed nfs as generation 3 during"), "{refused:?}");
    }
}
