//! A scripted history is cut off before every one of its steps, or fails at it; the store must then show all that was
//! acknowledged, and nothing else.

use std::collections::BTreeMap;
use std::path::Path;

use heirlock_core::takeover::{Journal, OutcomeLine};
use heirlock_core::{Outcome, RecordKey, ServerName};
use heirlock_nsm::{MonName, StateNumber};
use rustix::io::Errno;

use super::super::disk::faulty::{Fault, FaultyDisk, Survives};
use super::*;
use crate::store::StoreErrorKind;

/// One call of a history.
#[derive(Debug, Clone)]
enum Call {
    Claim(Claim),
    Begin(u64, Box<Contents>),
    Commit(u64, Vec<Change>),
    Release(u64),
    Prune(u64),
    Beat(u64),
}

/// The contents that a store shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Picture {
    claim: Option<Claim>,
    generations: BTreeMap<u64, Contents>,
}

const ROOT: &str = "/srv/store";
const GENERATIONS: u64 = 4;

fn service() -> ServiceName {
    ServiceName::parse("nfs-a").unwrap()
}

fn name(text: &str) -> MonName {
    MonName::parse(text).unwrap()
}

fn record(client: &str, my_name: &str) -> Vec<u8> {
    format!("0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 {client} {my_name}\n")
        .into_bytes()
}

fn put(client: &str, my_name: &str) -> Change {
    Change::put(name(client), record(client, my_name))
}

fn remove(client: &str) -> Change {
    Change::remove(name(client))
}

fn outcome(client: &str, outcome: Outcome) -> Change {
    let line = OutcomeLine::new(RecordKey::parse(client).unwrap(), outcome, 7);
    Change::AppendOutcome(line)
}

fn journal(run: &str) -> Journal {
    Journal::quiet(run, &ServerName::parse("a").unwrap(), 7)
}

fn put_journal(run: &str) -> Change {
    Change::PutJournal(Box::new(journal(run)))
}

fn claim(generation: u64, owner: &str) -> Claim {
    let owner = ServerName::parse(owner).unwrap();
    Claim::new(Generation(generation), &owner, "run-1", 7)
}

fn contents(state: u32, clients: usize) -> Contents {
    let clients = (0..clients).map(|i| format!("10.0.0.{i}"));
    Contents {
        state: Some(StateNumber(state)),
        records: clients.map(|client| (name(&client), record(&client, "begun"))).collect(),
        journal: Some(journal(&format!("journal of {state}"))),
        ..Contents::default()
    }
}

/// A service that moves twice, with commits that sync each file and such that share one sync.
fn history() -> Vec<Call> {
    let many: Vec<Change> = (0..12).map(|i| put(&format!("10.0.1.{i}"), "many")).collect();
    let mut mixed =
        vec![put("10.0.1.3", "again"), remove("10.0.1.4"), outcome("10.0.1.4", Outcome::ReRegistered)];
    mixed.extend((4..13).map(|i| put(&format!("10.0.0.{i}"), "mixed")));
    vec![
        Call::Claim(claim(1, "a")),
        Call::Begin(1, Box::new(contents(3, 2))),
        Call::Beat(1),
        Call::Commit(1, vec![put("10.0.0.7", "one"), put("10.0.0.0", "new"), remove("10.0.0.1")]),
        Call::Commit(1, many),
        Call::Release(1),
        Call::Claim(claim(2, "b")),
        Call::Begin(2, Box::new(contents(5, 10))),
        Call::Commit(
            2,
            vec![outcome("10.0.0.0", Outcome::Acknowledged), outcome("10.0.0.1", Outcome::Unreachable)],
        ),
        Call::Commit(2, vec![put_journal("settling")]),
        Call::Commit(2, mixed),
        Call::Commit(2, vec![outcome("10.0.0.1", Outcome::Lost), put_journal("settled")]),
        Call::Claim(claim(3, "a")),
        Call::Begin(3, Box::new(contents(9, 3))),
        Call::Prune(3),
        Call::Beat(2),
        Call::Commit(3, vec![put("10.0.0.9", "last")]),
    ]
}

impl Call {
    fn make(&self, store: &DirStore) -> Result<(), StoreError> {
        match self {
            Call::Claim(claim) => {
                assert_eq!(store.claim(&service(), claim)?, ClaimAnswer::Won, "{claim:?}");
                Ok(())
            }
            Call::Begin(generation, contents) => {
                store.begin_generation(&service(), Generation(*generation), contents)
            }
            Call::Commit(generation, changes) => {
                let owner = if *generation == 2 { "b" } else { "a" };
                store.commit(&service(), &claim(*generation, owner), changes)
            }
            Call::Release(generation) => store.release(&service(), Generation(*generation)),
            Call::Prune(keep_from) => store.prune(&service(), Generation(*keep_from)),
            Call::Beat(beat) => store.put_server(&report(*beat)),
        }
    }

    /// Its effect on a picture.
    fn paint(&self, picture: &mut Picture) {
        match self {
            Call::Claim(claim) => picture.claim = Some(claim.clone()),
            Call::Begin(generation, contents) => {
                picture.generations.insert(*generation, Contents::clone(contents));
            }
            Call::Commit(generation, changes) => {
                let contents = picture.generations.get_mut(generation).unwrap();
                changes.iter().cloned().for_each(|change| contents.apply(change));
            }
            Call::Release(_) => picture.claim.as_mut().unwrap().released = true,
            Call::Prune(keep_from) => picture.generations.retain(|generation, _| generation >= keep_from),
            Call::Beat(_) => {}
        }
    }
}

fn report(beat: u64) -> ServerReport {
    ServerReport { beat, written_at_s: 7, ..ServerReport::new(ServerName::parse("a").unwrap(), "run-1") }
}

/// The pictures after nothing, after the first call, and so on.
fn pictures() -> Vec<Picture> {
    let mut pictures = vec![Picture::default()];
    for call in history() {
        let mut next = pictures.last().unwrap().clone();
        call.paint(&mut next);
        pictures.push(next);
    }
    pictures
}

fn create(disk: &FaultyDisk) -> Result<DirStore, StoreError> {
    DirStore::create_on(Path::new(ROOT), Box::new(disk.clone()))
}

fn open(disk: &FaultyDisk) -> DirStore {
    DirStore::on(Path::new(ROOT), Box::new(disk.clone()))
}

fn look(store: &DirStore) -> Picture {
    let mut picture =
        Picture { claim: store.newest_claim(&service()).unwrap(), generations: BTreeMap::new() };
    for number in 1..=GENERATIONS {
        if store.newest_generation(&service(), Generation(number)).unwrap() == Some(Generation(number)) {
            let mut contents = store.load(&service(), Generation(number)).unwrap();
            // A change that is repeated after a failure may have been there already.
            let mut seen = HashSet::new();
            contents.outcomes.retain(|line| seen.insert(line.clone()));
            picture.generations.insert(number, contents);
        }
    }
    picture
}

/// The steps of a store's creation, and all with the whole history.
fn count() -> (u64, u64) {
    let disk = FaultyDisk::new();
    let store = create(&disk).unwrap();
    let created = disk.steps();
    history().iter().for_each(|call| call.make(&store).unwrap());
    (created, disk.steps())
}

/// Whether a picture may be found when the call between two others was cut off.
fn check(found: &Picture, before: &Picture, after: &Picture, place: &str) {
    assert!(found.claim == before.claim || found.claim == after.claim, "{place}: claim {:?}", found.claim);
    for number in 1..=GENERATIONS {
        let [found, before, after] = [found, before, after].map(|picture| picture.generations.get(&number));
        match (found, before, after) {
            (Some(found), Some(before), Some(after)) => check_contents(found, before, after, place),
            _ => assert!(found == before || found == after, "{place}: generation {number}: {found:?}"),
        }
    }
}

fn check_contents(found: &Contents, before: &Contents, after: &Contents, place: &str) {
    assert_eq!(found.damaged, [], "{place}");
    assert!(found.state == before.state || found.state == after.state, "{place}: {:?}", found.state);
    assert!(
        found.journal == before.journal || found.journal == after.journal,
        "{place}: {:?}",
        found.journal
    );
    for client in found.records.keys().chain(before.records.keys()) {
        let [found, before, after] = [found, before, after].map(|contents| contents.records.get(client));
        assert!(found == before || found == after, "{place}: {client} is {found:?}");
    }
    assert!(found.outcomes.starts_with(&before.outcomes), "{place}: {:?}", found.outcomes);
    assert!(after.outcomes.starts_with(&found.outcomes), "{place}: {:?}", found.outcomes);
}

fn survivors() -> impl Iterator<Item = Survives> {
    [Survives::Nothing, Survives::Everything].into_iter().chain((0..6).map(Survives::Some))
}

#[test]
fn a_crash_before_any_step_loses_nothing_that_was_acknowledged() {
    let (created, all) = count();
    let (history, pictures) = (history(), pictures());
    for step in created..=all {
        let disk = FaultyDisk::new();
        let store = create(&disk).unwrap();
        disk.set(Fault::CrashBefore(step));
        let done = history.iter().take_while(|call| call.make(&store).is_ok()).count();
        let (before, after) = (&pictures[done], pictures.get(done + 1).unwrap_or(&pictures[done]));
        for survives in survivors() {
            let place = format!("step {step} of {all}, in {:?}, {survives:?}", history.get(done));
            let disk = disk.after_crash(survives);
            let store = open(&disk);
            check(&look(&store), before, after, &place);
            // The next run finishes the work, and its work is durable.
            for call in &history[done..] {
                call.make(&store).unwrap_or_else(|error| panic!("{place}: {error}"));
            }
            let found = look(&open(&disk.after_crash(Survives::Nothing)));
            assert_eq!(&found, pictures.last().unwrap(), "{place}");
        }
    }
}

#[test]
fn a_store_survives_a_crash_during_the_recovery_from_a_crash() {
    let (created, all) = count();
    let (history, pictures) = (history(), pictures());
    for seed in 0..150 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut disk = FaultyDisk::new();
        create(&disk).unwrap();
        let mut done = 0;
        for life in 0.. {
            let store = open(&disk);
            // Later lives have fewer steps before them; the last is not cut off.
            let ahead = random.u64(1..=(all - created) / 3);
            disk.set(if life < 6 { Fault::CrashBefore(disk.steps() + ahead) } else { Fault::None });
            done += history[done..].iter().take_while(|call| call.make(&store).is_ok()).count();
            disk = disk.after_crash(Survives::Some(random.u64(..)));
            let (before, after) = (&pictures[done], pictures.get(done + 1).unwrap_or(&pictures[done]));
            check(&look(&open(&disk)), before, after, &format!("seed {seed}, life {life}"));
            if done == history.len() {
                break;
            }
        }
    }
}

#[test]
fn a_claim_that_was_answered_never_changes_its_owner() {
    let (created, all) = count();
    for step in created..all {
        let disk = FaultyDisk::new();
        let store = create(&disk).unwrap();
        disk.set(Fault::CrashBefore(step));
        let answered = store.claim(&service(), &claim(1, "a")).is_ok();
        for survives in survivors() {
            let disk = disk.after_crash(survives);
            let answer = open(&disk).claim(&service(), &claim(1, "b")).unwrap();
            let owner = if answer == ClaimAnswer::Won { claim(1, "b") } else { claim(1, "a") };
            assert!(!answered || owner == claim(1, "a"), "step {step}, {survives:?}: {answer:?}");
            // The server that lost has been told of a winner whose claim stays.
            let store = open(&disk.after_crash(Survives::Nothing));
            assert_eq!(store.newest_claim(&service()).unwrap(), Some(owner), "step {step}, {survives:?}");
        }
        if answered {
            return;
        }
    }
    panic!("the claim was never answered");
}

#[test]
fn a_creation_that_was_cut_off_is_begun_again() {
    let (created, _) = count();
    for step in 0..created {
        let disk = FaultyDisk::new();
        disk.set(Fault::CrashBefore(step));
        assert!(create(&disk).is_err());
        for survives in survivors() {
            let disk = disk.after_crash(survives);
            let before = open(&disk).probe();
            create(&disk).unwrap_or_else(|error| panic!("step {step}, {survives:?}: {error}"));
            open(&disk.after_crash(Survives::Nothing)).probe().unwrap();
            // Half a store is none.
            assert!(before.is_err() || disk.paths().contains(&format!("{ROOT}/{MARKER}")));
        }
    }
}

/// Makes a call that may fail; where it does, its error must be of use.
fn attempt(call: &Call, store: &DirStore, place: &str) -> bool {
    match call.make(store) {
        Ok(()) => true,
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains(ROOT), "{place}: no path in {text:?}");
            assert!(text.contains("; "), "{place}: no remedy in {text:?}");
            false
        }
    }
}

#[test]
fn a_step_that_fails_once_is_told_and_the_call_repeated() {
    let (created, all) = count();
    let (history, pictures) = (history(), pictures());
    for error in [Errno::NOSPC, Errno::IO, Errno::ACCESS, Errno::ROFS, Errno::STALE] {
        for step in created..all {
            let place = format!("{error} at step {step}");
            let disk = FaultyDisk::new();
            let store = create(&disk).unwrap();
            disk.set(Fault::Once(step, error));
            let mut failures = 0;
            for (i, call) in history.iter().enumerate() {
                if !attempt(call, &store, &place) {
                    failures += 1;
                    check(&look(&store), &pictures[i], &pictures[i + 1], &place);
                    call.make(&store).unwrap_or_else(|error| panic!("{place}: {error}"));
                }
            }
            assert!(failures <= 1, "{place}");
            assert_eq!(&look(&store), pictures.last().unwrap(), "{place}");
            let found = look(&open(&disk.after_crash(Survives::Nothing)));
            assert_eq!(&found, pictures.last().unwrap(), "{place}, then a crash");
        }
    }
}

#[test]
fn a_fault_that_stays_fails_every_call_until_it_is_lifted() {
    let (created, all) = count();
    let (history, pictures) = (history(), pictures());
    for error in [Errno::NOSPC, Errno::IO, Errno::ACCESS, Errno::ROFS] {
        for step in created..all {
            let place = format!("{error} from step {step}");
            let disk = FaultyDisk::new();
            let store = create(&disk).unwrap();
            disk.set(Fault::From(step, error));
            let done = history.iter().take_while(|call| attempt(call, &store, &place)).count();
            if let Some(call) = history.get(done) {
                assert!(!attempt(call, &store, &place), "{place}: {call:?} can't have been done");
                assert!(store.probe().is_err(), "{place}: the probe sees nothing");
                check(&look(&store), &pictures[done], &pictures[done + 1], &place);
                if error == Errno::NOSPC {
                    // A file that fills the disk further would be in the way of its mending.
                    let left = disk.paths().into_iter().find(|path| path.contains("/."));
                    assert!(left.is_none() || matches!(call, Call::Prune(_)), "{place}: {left:?}");
                }
            }
            disk.set(Fault::None);
            store.probe().unwrap();
            history[done..].iter().for_each(|call| call.make(&store).unwrap());
            let found = look(&open(&disk.after_crash(Survives::Nothing)));
            assert_eq!(&found, pictures.last().unwrap(), "{place}, lifted");
        }
    }
}

#[test]
fn a_store_that_can_t_be_read_never_looks_empty() {
    for error in [Errno::IO, Errno::ACCESS, Errno::STALE] {
        let disk = FaultyDisk::new();
        let store = create(&disk).unwrap();
        history().iter().for_each(|call| call.make(&store).unwrap());
        disk.set(Fault::All(error));
        let errors = [
            store.probe().unwrap_err(),
            store.services().unwrap_err(),
            store.newest_claim(&service()).unwrap_err(),
            store.newest_generation(&service(), Generation(9)).unwrap_err(),
            store.load(&service(), Generation(3)).unwrap_err(),
            store.servers().unwrap_err(),
        ];
        for error in errors.map(|error| error.to_string()) {
            assert!(error.contains(ROOT) && error.contains("; "), "{error}");
        }
        disk.set(Fault::None);
        assert_eq!(&look(&store), pictures().last().unwrap());
        assert_eq!(store.servers().unwrap().into_values().collect::<Vec<_>>(), [report(2)]);
    }
}

/// Two clients of two services, each record one file with two names; few, and enough to share one sync.
#[test]
fn a_record_of_several_services_is_durable_in_all_of_them_when_it_is_acknowledged() {
    let services = ["nfs-a", "nfs-b"].map(|name| ServiceName::parse(name).unwrap());
    for clients in [2, 12] {
        let put = |i: usize| Change::put(name(&format!("c{i}")), record(&format!("c{i}"), "new"));
        let work = services.clone().map(|service| Commit {
            service,
            by: claim(1, "a"),
            changes: (0..clients).map(put).collect(),
        });
        let begun = || {
            let disk = FaultyDisk::new();
            let store = create(&disk).unwrap();
            for service in &services {
                store.claim(service, &claim(1, "a")).unwrap();
                store.begin_generation(service, Generation(1), &contents(1, 0)).unwrap();
            }
            (disk, store)
        };
        let (disk, store) = begun();
        let first = disk.steps();
        store.commit_each(&work).unwrap();
        for step in first..=disk.steps() {
            let (disk, store) = begun();
            disk.set(Fault::CrashBefore(step));
            let acknowledged = store.commit_each(&work).is_ok();
            for survives in survivors() {
                let store = open(&disk.after_crash(survives));
                for service in &services {
                    let found = store.load(service, Generation(1)).unwrap();
                    assert_eq!(found.damaged, [], "step {step}, {survives:?}");
                    assert!(
                        !acknowledged || found.records.len() == clients,
                        "step {step}, {survives:?}: {found:?}"
                    );
                }
            }
        }
    }
}

/// A commit of these clients to two services, on a disk where both have begun their first generation.
fn commit_of_two_services(clients: usize) -> (FaultyDisk, DirStore, Vec<Commit>) {
    let services = ["nfs-a", "nfs-b"].map(|name| ServiceName::parse(name).unwrap());
    let disk = FaultyDisk::new();
    let store = create(&disk).unwrap();
    for service in &services {
        store.claim(service, &claim(1, "a")).unwrap();
        store.begin_generation(service, Generation(1), &contents(1, 0)).unwrap();
    }
    let changes: Vec<Change> = (0..clients).map(|i| put(&format!("c{i}"), "new")).collect();
    let commit = |service| Commit { service, by: claim(1, "a"), changes: changes.clone() };
    (disk, store, services.map(commit).into())
}

#[test]
fn a_commit_waits_for_no_file_of_another_program() {
    for clients in [2, 12] {
        let (disk, store, work) = commit_of_two_services(clients);
        let others = Path::new("/srv/others");
        disk.write(others, b"unwritten", false).unwrap();
        disk.sync_folder(Path::new("/srv")).unwrap();
        store.commit_each(&work).unwrap();
        let found = disk.after_crash(Survives::Nothing);
        assert_eq!(found.read(others, 100).unwrap(), b"", "{clients} clients");
        assert_eq!(open(&found).load(&work[0].service, Generation(1)).unwrap().records.len(), clients);
    }
}

/// One at a time: each operation of the disk is a part of what the client waits for.
#[test]
fn a_clients_commit_to_two_services_is_thirteen_operations() {
    let (_disk, store, work) = commit_of_two_services(1);
    store.expect(store.found().unwrap().identity.as_ref());
    store.commit_each(&work).unwrap();
    let before = store.progress();
    let mut again = work;
    again.iter_mut().for_each(|commit| commit.changes = vec![put("c7", "new")]);
    store.commit_each(&again).unwrap();
    // Two to see the store, two each for its claims; the file is written, linked, and gets both names; two folders are synced. One
    // to see that the store was not closed meanwhile.
    assert_eq!(store.progress() - before, 2 + 2 * 2 + 1 + 1 + 2 + 2 + 1);
}

/// A server that was told of an identity finds that one, wherever the making of the store breaks off, and also where another
/// server made it.
#[test]
fn a_store_whose_making_was_cut_off_has_one_identity_for_ever() {
    let whole = FaultyDisk::new();
    create(&whole).unwrap();
    for step in 0..=whole.steps() {
        let disk = FaultyDisk::new();
        disk.set(Fault::CrashBefore(step));
        let told = create(&disk).ok().map(|store| store.found().unwrap().identity.unwrap());
        for survives in survivors() {
            let found = disk.after_crash(survives);
            // A store that can be found has one already.
            if let Ok(left) = open(&found).found() {
                assert!(left.identity.is_some(), "step {step}, {survives:?}");
            }
            let again = create(&found).unwrap().found().unwrap().identity.unwrap();
            assert!(told.as_ref().is_none_or(|told| *told == again), "step {step}, {survives:?}");
            let after = open(&found.after_crash(Survives::Nothing)).found().unwrap();
            assert_eq!(after.identity, Some(again.clone()), "step {step}, {survives:?}");
            let other = create(&found).unwrap().found().unwrap();
            assert_eq!(other.identity, Some(again), "and none is made over it");
        }
    }
}

#[test]
fn two_servers_that_make_a_store_at_the_same_moment_make_one() {
    for _ in 0..20 {
        let disk = FaultyDisk::new();
        let identities: Vec<_> = std::thread::scope(|scope| {
            let make = || create(&disk).unwrap().found().unwrap().identity.unwrap();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(identities.iter().all(|one| *one == identities[0]), "{identities:?}");
    }
}

#[test]
fn an_identity_that_can_t_be_read_never_passes_for_none() {
    let disk = FaultyDisk::new();
    let store = create(&disk).unwrap();
    let made = store.found().unwrap().identity.unwrap();
    store.expect(Some(&made));
    for error in [Errno::IO, Errno::ACCESS, Errno::STALE] {
        disk.set(Fault::All(error));
        let fails = [store.found().err(), store.services().err()];
        for failure in fails {
            let failure = failure.unwrap();
            let kind =
                if error == Errno::ACCESS { StoreErrorKind::Entry } else { StoreErrorKind::Unavailable };
            assert_eq!(*failure.kind(), kind, "{error:?}: {failure}");
        }
    }
    disk.set(Fault::None);
    let path = Path::new(ROOT).join("identity");
    for bytes in
        [&b""[..], b"heirlock store identity, format 1: 7f3a\n", b"heirlock store identity, format 2: x\n"]
    {
        disk.remove(&path).unwrap();
        disk.write(&path, bytes, true).unwrap();
        let error = store.found().unwrap_err();
        assert_eq!(*error.kind(), StoreErrorKind::Unexpected, "{error}");
        assert!(store.services().is_err() && store.give_identity(&made).is_err());
    }
}
