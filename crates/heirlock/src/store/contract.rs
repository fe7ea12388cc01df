//! The promises of every store, tested over every store there is.

use std::path::Path;
use std::sync::Barrier;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use heirlock_core::claim::Claim;
use heirlock_core::incarnation::Incarnation;
use heirlock_core::limits::RECORD_BYTES_MAX;
use heirlock_core::planned_move::{MoveProgress, MoveRequest};
use heirlock_core::store::in_memory::InMemory;
use heirlock_core::store::{Decline, FurtherLockManager};
use heirlock_core::store_identity::{Found, Kept, StoreIdentity};
use heirlock_core::takeover::{Journal, OutcomeLine};
use heirlock_core::{Generation, LockManagerName, Outcome, RecordKey, ServerName, ServiceName};
use heirlock_nsm::{MonName, StateNumber};

use super::dir::DirStore;
use super::disk::faulty::FaultyDisk;
use super::timed::Timed;
use super::{
    Change, ClaimAnswer, Commit, Contents, Damaged, DamagedPart, ServerReport, Store, StoreError,
    StoreErrorKind,
};

/// Something on which stores can be opened that are one store.
struct Ground {
    open: Box<dyn Fn() -> Box<dyn Store> + Sync>,
    /// Its stores hint at changes by others.
    hints: bool,
}

impl Ground {
    fn new(open: impl Fn() -> Box<dyn Store> + Sync + 'static) -> Self {
        Self { open: Box::new(open), hints: false }
    }
}

fn real_disk() -> Ground {
    let folder = tempfile::tempdir().unwrap();
    DirStore::create(&folder.path().join("store")).unwrap();
    Ground::new(move || Box::new(DirStore::open(&folder.path().join("store")).unwrap()))
}

fn disk_in_memory() -> Ground {
    let disk = FaultyDisk::new();
    DirStore::create_on(Path::new("/store"), Box::new(disk.clone())).unwrap();
    Ground::new(move || Box::new(DirStore::on(Path::new("/store"), Box::new(disk.clone()))))
}

fn memory() -> Ground {
    let store = InMemory::new(StoreIdentity::of(1));
    Ground { hints: true, ..Ground::new(move || Box::new(store.clone())) }
}

fn memory_behind_threads() -> Ground {
    let store = InMemory::new(StoreIdentity::of(1));
    let open = move || Timed::patient(Box::new(store.clone()), Duration::from_secs(600));
    Ground { hints: true, ..Ground::new(move || Box::new(open())) }
}

fn behind_threads() -> Ground {
    let folder = tempfile::tempdir().unwrap();
    DirStore::create(&folder.path().join("store")).unwrap();
    let open = move || DirStore::open(&folder.path().join("store")).unwrap();
    Ground::new(move || Box::new(Timed::patient(Box::new(open()), Duration::from_secs(600))))
}

/// Each promise on a prefix of its own, in one cluster: to start one for each of them would take minutes.
#[cfg(feature = "etcd")]
mod on_etcd {
    use super::*;
    use crate::store::StoreOnHost;
    use crate::store::etcd::EtcdStore;
    use crate::store::etcd::testing::{Etcd, Fate, Plan, Proxy};

    fn each_on(etcd: &Etcd, through: Option<&Proxy>, behind_threads: bool, plan: impl Fn() -> Plan) {
        for (name, promise) in PROMISES {
            eprintln!("{name}");
            let mut settings = etcd.settings(&format!("/heirlock/{name}/"));
            EtcdStore::at(&settings).set_up().unwrap();
            if let Some(proxy) = through {
                settings.endpoints = vec![proxy.url()];
                proxy.plan(plan());
            }
            let open = move || -> Box<dyn Store> {
                let store = Box::new(EtcdStore::at(&settings));
                if behind_threads {
                    return Box::new(Timed::patient(store, Duration::from_secs(600)));
                }
                store
            };
            promise(&Ground::new(open));
        }
    }

    fn all_passes() -> Plan {
        Box::new(|_| Fate::Passes)
    }

    #[test]
    fn every_promise_is_kept() {
        let Some(etcd) = Etcd::start(1) else { return };
        each_on(&etcd, None, false, all_passes);
    }

    #[test]
    fn every_promise_is_kept_behind_threads() {
        let Some(etcd) = Etcd::start(1) else { return };
        each_on(&etcd, None, true, all_passes);
    }

    /// Each question is asked twice, for its first answer is lost: all that was done is recognised as done.
    #[test]
    fn every_promise_is_kept_where_each_answer_is_lost_once() {
        let Some(etcd) = Etcd::start(1) else { return };
        let proxy = Proxy::before(etcd.address(0));
        let lost = |number: usize| [Fate::Swallowed, Fate::Cut, Fate::NeverAsked][number % 3];
        let plan = move || -> Plan {
            Box::new(move |asked| if asked.is_repeated { Fate::Passes } else { lost(asked.number) })
        };
        each_on(&etcd, Some(&proxy), false, plan);
    }

    /// The first of the two is carried out after the second one.
    #[test]
    fn every_promise_is_kept_where_each_question_is_carried_out_once_more_and_late() {
        let Some(etcd) = Etcd::start(1) else { return };
        let proxy = Proxy::before(etcd.address(0));
        let plan = || -> Plan { Box::new(|asked| if asked.is_repeated { Fate::Passes } else { Fate::Late }) };
        each_on(&etcd, Some(&proxy), false, plan);
    }
}

macro_rules! contract {
    ($($promise:ident),* $(,)?) => {
        #[cfg(feature = "etcd")]
        const PROMISES: &[(&str, fn(&Ground))] = &[$((stringify!($promise), $promise)),*];
        mod on_the_real_disk {
            $(#[test] fn $promise() { super::$promise(&super::real_disk()); })*
        }
        mod behind_threads {
            $(#[test] fn $promise() { super::$promise(&super::behind_threads()); })*
        }
        mod in_memory {
            $(#[test] fn $promise() { super::$promise(&super::memory()); })*
        }
        mod in_memory_behind_threads {
            $(#[test] fn $promise() { super::$promise(&super::memory_behind_threads()); })*
        }
        mod on_a_disk_in_memory {
            $(#[test] fn $promise() { super::$promise(&super::disk_in_memory()); })*
        }
    };
}

contract! {
    exactly_one_of_all_claiming_servers_wins,
    one_store_claims_from_many_threads,
    a_claim_that_was_won_is_won_again_and_by_no_other_server,
    a_claim_is_released_once_and_for_all,
    a_claim_may_be_made_as_one_that_is_released_already,
    numbers_of_pruned_claims_stay_used,
    services_are_those_that_were_claimed,
    a_hint_of_another_server_s_claim_comes_once_until_claims_are_asked_for,
    a_store_is_given_one_identity_by_all_servers_that_try,
    nothing_is_done_to_another_store_than_the_one_that_is_expected,
    the_number_of_a_generation_is_read_alone,
    a_generation_begins_with_all_it_is_given,
    a_generation_that_exists_is_left_as_it_is,
    a_service_or_generation_that_does_not_exist_is_an_error,
    the_last_change_of_a_client_counts,
    a_record_of_several_services_is_there_in_each_of_them,
    a_commit_under_a_claim_that_gave_way_to_another_server_changes_nothing,
    a_commit_under_a_claim_that_no_other_server_has_followed_is_made,
    state_journal_and_outcomes_are_kept,
    a_damaged_record_is_named_and_left_alone,
    a_change_that_no_store_can_hold_is_refused_whole,
    every_name_a_client_may_have_is_held,
    commits_from_many_threads_are_all_done,
    prune_keeps_the_newest,
    outcomes_of_a_generation_outlive_it,
    heartbeats_are_seen_by_others,
    a_heartbeat_is_no_progress_of_the_call_that_is_on,
    a_probe_leaves_the_store_as_it_was,
}

fn service() -> ServiceName {
    ServiceName::parse("nfs-a").unwrap()
}

fn server(name: &str) -> ServerName {
    ServerName::parse(name).unwrap()
}

fn name(text: &str) -> MonName {
    MonName::parse(text).unwrap()
}

fn record(client: &str) -> Vec<u8> {
    format!("0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 {client} nfs-a\n")
        .into_bytes()
}

fn claim(generation: u64, owner: &str, agent: &str) -> Claim {
    Claim::new(Generation(generation), &server(owner), agent, 7)
}

fn journal(round: u64) -> Journal {
    Journal::quiet("run-1", &server("a"), round)
}

fn outcome(client: &str, why: Option<&str>) -> OutcomeLine {
    OutcomeLine {
        why: why.map(str::to_owned),
        ..OutcomeLine::new(RecordKey::parse(client).unwrap(), Outcome::Acknowledged, 7)
    }
}

fn contents(clients: usize) -> Contents {
    let clients = (0..clients).map(|i| format!("10.0.0.{i}"));
    Contents {
        state: Some(StateNumber(7)),
        records: clients.map(|client| (name(&client), record(&client))).collect(),
        journal: Some(journal(0)),
        outcomes: vec![outcome("10.0.0.0", None)],
        damaged: Vec::new(),
    }
}

/// A store with a claim and its generation.
fn begun(ground: &Ground, generation: u64, contents: &Contents) -> Box<dyn Store> {
    let store = (ground.open)();
    assert_eq!(store.claim(&service(), &claim(generation, "a", "1")).unwrap(), ClaimAnswer::Won);
    store.begin_generation(&service(), Generation(generation), contents).unwrap();
    store
}

fn commit(service: &ServiceName, by: &Claim, changes: &[Change]) -> Commit {
    Commit { service: service.clone(), by: by.clone(), changes: changes.to_vec() }
}

fn race(stores: &[Box<dyn Store>], claims: &[Claim]) -> Vec<ClaimAnswer> {
    let start = Barrier::new(claims.len());
    thread::scope(|scope| {
        let claimants: Vec<_> = claims
            .iter()
            .enumerate()
            .map(|(i, claim)| {
                let (start, store) = (&start, &stores[i % stores.len()]);
                scope.spawn(move || {
                    start.wait();
                    store.claim(&service(), claim).unwrap()
                })
            })
            .collect();
        claimants.into_iter().map(|claimant| claimant.join().unwrap()).collect()
    })
}

fn one_wins_each_of(stores: &[Box<dyn Store>], rounds: u64) {
    for generation in 1..=rounds {
        let claims: Vec<Claim> =
            (0..8).map(|i| claim(generation, ["a", "b"][i % 2], &format!("run-{i}"))).collect();
        let answers = race(stores, &claims);
        let winners: Vec<usize> = (0..8).filter(|i| answers[*i] == ClaimAnswer::Won).collect();
        assert_eq!(winners.len(), 1, "generation {generation}: {answers:?}");
        let winner = &claims[winners[0]];
        assert_eq!(stores[0].newest_claim(&service()).unwrap().as_ref(), Some(winner));
        for (i, answer) in answers.iter().enumerate() {
            assert!(i == winners[0] || *answer == ClaimAnswer::Taken(winner.clone()), "{answer:?}");
        }
    }
}

fn exactly_one_of_all_claiming_servers_wins(ground: &Ground) {
    one_wins_each_of(&[(ground.open)(), (ground.open)()], 10);
}

fn one_store_claims_from_many_threads(ground: &Ground) {
    one_wins_each_of(&[(ground.open)()], 10);
}

fn a_claim_that_was_won_is_won_again_and_by_no_other_server(ground: &Ground) {
    let (store, other) = ((ground.open)(), (ground.open)());
    assert_eq!(store.newest_claim(&service()).unwrap(), None);
    let ours = claim(1, "a", "run-1");
    for _ in 0..3 {
        assert_eq!(store.claim(&service(), &ours).unwrap(), ClaimAnswer::Won);
    }
    for rival in [claim(1, "b", "run-1"), claim(1, "a", "run-2")] {
        assert_eq!(other.claim(&service(), &rival).unwrap(), ClaimAnswer::Taken(ours.clone()));
    }
    assert_eq!(other.newest_claim(&service()).unwrap(), Some(ours));
}

fn a_claim_is_released_once_and_for_all(ground: &Ground) {
    let store = (ground.open)();
    assert!(store.release(&service(), Generation(1)).is_err(), "no server has claimed it");
    let ours = claim(1, "a", "run-1");
    store.claim(&service(), &ours).unwrap();
    store.release(&service(), Generation(1)).unwrap();
    store.release(&service(), Generation(1)).unwrap();
    let released = Claim { released: true, ..ours.clone() };
    assert_eq!((ground.open)().newest_claim(&service()).unwrap(), Some(released.clone()));
    assert_eq!(store.claim(&service(), &ours).unwrap(), ClaimAnswer::Taken(released));
    let next = claim(2, "b", "run-9");
    assert_eq!(store.claim(&service(), &next).unwrap(), ClaimAnswer::Won);
    assert_eq!(store.newest_claim(&service()).unwrap(), Some(next));
}

fn a_claim_may_be_made_as_one_that_is_released_already(ground: &Ground) {
    let store = (ground.open)();
    let passing = Claim { released: true, ..claim(1, "a", "run-1") };
    assert_eq!(store.claim(&service(), &passing).unwrap(), ClaimAnswer::Won);
    assert_eq!((ground.open)().newest_claim(&service()).unwrap(), Some(passing.clone()));
    assert_eq!(store.claim(&service(), &claim(1, "b", "run-2")).unwrap(), ClaimAnswer::Taken(passing));
    assert_eq!(store.claim(&service(), &claim(2, "b", "run-2")).unwrap(), ClaimAnswer::Won);
}

fn numbers_of_pruned_claims_stay_used(ground: &Ground) {
    let store = (ground.open)();
    for generation in 1..=4 {
        store.claim(&service(), &claim(generation, "a", "run-1")).unwrap();
    }
    store.prune(&service(), Generation(4)).unwrap();
    for generation in 1..=3 {
        let late = claim(generation, "b", "run-2");
        let newest = claim(4, "a", "run-1");
        assert_eq!(store.claim(&service(), &late).unwrap(), ClaimAnswer::Taken(newest));
    }
}

fn a_hint_of_another_server_s_claim_comes_once_until_claims_are_asked_for(ground: &Ground) {
    let (ours, theirs) = ((ground.open)(), (ground.open)());
    let (tell, told) = channel();
    ours.on_change(Box::new(move || tell.send(()).unwrap()));
    let hints = || told.try_iter().count();
    let expected = usize::from(ground.hints);
    for generation in [1, 4] {
        ours.claim(&service(), &claim(generation, "a", "1")).unwrap();
        assert_eq!(hints(), 0, "its own claim is no news");
        theirs.claim(&service(), &claim(generation + 1, "b", "1")).unwrap();
        theirs.claim(&service(), &claim(generation + 1, "b", "1")).unwrap();
        theirs.release(&service(), Generation(generation + 1)).unwrap();
        assert_eq!(hints(), expected);
        ours.newest_claim(&service()).unwrap();
        theirs.put_server(&ServerReport::new(server("b"), "run-1")).unwrap();
        assert_eq!(hints(), 0, "a heart beats");
        theirs.claim(&service(), &claim(generation + 2, "b", "1")).unwrap();
        assert_eq!(hints(), expected);
        ours.newest_claim(&service()).unwrap();
    }
    // A listener that is gone is told of nothing.
    drop(ours);
    theirs.claim(&service(), &claim(9, "b", "1")).unwrap();
}

fn services_are_those_that_were_claimed(ground: &Ground) {
    let store = (ground.open)();
    assert_eq!(store.services().unwrap(), []);
    let names = ["nfs-b", "nfs-a"].map(|name| ServiceName::parse(name).unwrap());
    let host = ServiceName::host(&server("a"));
    for service in names.iter().chain([&host]) {
        store.claim(service, &claim(1, "a", "run-1")).unwrap();
    }
    assert_eq!((ground.open)().services().unwrap(), [host, names[1].clone(), names[0].clone()]);
}

fn a_store_is_given_one_identity_by_all_servers_that_try(ground: &Ground) {
    let made = (ground.open)().found().unwrap().identity.unwrap();
    let given: Vec<StoreIdentity> = thread::scope(|scope| {
        let give = |i| (ground.open)().give_identity(&StoreIdentity::of(i)).unwrap();
        let threads: Vec<_> = (0..4).map(|i| scope.spawn(move || give(i))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(given, vec![made.clone(); 4], "it has the one that it was made with");
    let store = (ground.open)();
    assert_eq!(store.found().unwrap(), Found { identity: Some(made.clone()), kept: Kept::Nothing });
    store.claim(&ServiceName::host(&server("a")), &claim(1, "a", "run-1")).unwrap();
    assert_eq!(store.found().unwrap().kept, Kept::HostsAlone);
    store.claim(&service(), &claim(1, "a", "run-1")).unwrap();
    assert_eq!(store.found().unwrap(), Found { identity: Some(made), kept: Kept::Services });
}

fn nothing_is_done_to_another_store_than_the_one_that_is_expected(ground: &Ground) {
    let store = begun(ground, 1, &contents(2));
    let made = store.found().unwrap().identity.unwrap();
    let other = StoreIdentity::of(7);
    store.expect(Some(&other));
    let put = [Change::put(name("10.9.9.9"), record("10.9.9.9"))];
    let report = ServerReport::new(server("a"), "run-1");
    let refused = [
        store.probe().err(),
        store.services().err(),
        store.newest_claim(&service()).err(),
        store.claim(&service(), &claim(2, "a", "run-1")).err(),
        store.release(&service(), Generation(1)).err(),
        store.newest_generation(&service(), Generation(1)).err(),
        store.number_of(&service(), Generation(1)).err(),
        store.begin_generation(&service(), Generation(2), &contents(1)).err(),
        store.load(&service(), Generation(1)).err(),
        store.commit(&service(), &claim(1, "a", "1"), &put).err(),
        store.commit_each(&[commit(&service(), &claim(1, "a", "1"), &put)]).err(),
        store.prune(&service(), Generation(1)).err(),
        store.put_server(&report).err(),
        store.servers().err(),
    ];
    for (i, error) in refused.into_iter().enumerate() {
        assert!(error.as_ref().map(StoreError::kind) == Some(&StoreErrorKind::Wrong), "call {i}: {error:?}");
    }
    assert!(store.found().is_ok(), "it can be looked at");
    let same = (ground.open)();
    same.expect(Some(&made));
    assert_eq!(same.load(&service(), Generation(1)).unwrap(), contents(2));
    assert_eq!(same.newest_claim(&service()).unwrap(), Some(claim(1, "a", "1")));
    assert!(same.servers().unwrap().is_empty());
    store.expect(None);
    store.commit(&service(), &claim(1, "a", "1"), &put).unwrap();
}

fn the_number_of_a_generation_is_read_alone(ground: &Ground) {
    let store = begun(ground, 1, &Contents { state: Some(StateNumber(7)), ..contents(1) });
    assert_eq!(store.number_of(&service(), Generation(1)).unwrap(), Some(StateNumber(7)));
    assert_eq!(store.number_of(&service(), Generation(2)).unwrap(), None);
    begun(ground, 3, &Contents::default());
    assert_eq!(store.number_of(&service(), Generation(3)).unwrap(), None);
}

fn a_generation_begins_with_all_it_is_given(ground: &Ground) {
    // One sync for each file, one for all of them, and nothing at all.
    for (generation, contents) in [(3, contents(2)), (4, contents(40)), (5, Contents::default())] {
        begun(ground, generation, &contents);
        let store = (ground.open)();
        assert_eq!(store.load(&service(), Generation(generation)).unwrap(), contents);
    }
    let newest = |at_most| (ground.open)().newest_generation(&service(), Generation(at_most)).unwrap();
    assert_eq!([2, 3, 4, 9].map(newest), [None, Some(3), Some(4), Some(5)].map(|n| n.map(Generation)));
}

fn a_generation_that_exists_is_left_as_it_is(ground: &Ground) {
    let store = begun(ground, 1, &contents(3));
    store.begin_generation(&service(), Generation(1), &contents(5)).unwrap();
    assert_eq!(store.load(&service(), Generation(1)).unwrap(), contents(3));
}

fn a_service_or_generation_that_does_not_exist_is_an_error(ground: &Ground) {
    let store = begun(ground, 1, &contents(1));
    assert!(store.load(&service(), Generation(2)).is_err());
    for change in [Change::put(name("h"), record("h")), Change::remove(name("h"))] {
        assert!(store.commit(&service(), &claim(2, "a", "1"), &[change]).is_err());
    }
    assert_eq!(store.newest_generation(&service(), Generation(9)).unwrap(), Some(Generation(1)));
}

fn the_last_change_of_a_client_counts(ground: &Ground) {
    let store = begun(ground, 1, &Contents::default());
    let put = |client: &str, bytes: &str| Change::put(name(client), record(bytes));
    let remove = |client: &str| Change::remove(name(client));
    let mut changes = vec![
        put("one", "first"),
        put("two", "first"),
        remove("one"),
        put("three", "first"),
        remove("no-client"),
        put("one", "second"),
        remove("two"),
    ];
    let expect = |clients: &[(&str, &str)]| {
        let found = (ground.open)().load(&service(), Generation(1)).unwrap().records;
        assert_eq!(found, clients.iter().map(|(client, bytes)| (name(client), record(bytes))).collect());
    };
    store.commit(&service(), &claim(1, "a", "1"), &changes).unwrap();
    expect(&[("one", "second"), ("three", "first")]);
    store.commit(&service(), &claim(1, "a", "1"), &[remove("three"), put("one", "third")]).unwrap();
    expect(&[("one", "third")]);
    // Enough of them to share one sync.
    changes.extend((0..30).map(|i| put("four", &format!("{i}"))));
    changes.extend((0..30).map(|i| put(&format!("five-{i}"), "first")));
    changes.extend((0..30).map(|i| remove(&format!("five-{i}"))));
    changes.extend((0..10).map(|i| put(&format!("six-{i}"), "first")));
    store.commit(&service(), &claim(1, "a", "1"), &changes).unwrap();
    let six: Vec<String> = (0..10).map(|i| format!("six-{i}")).collect();
    let mut expected = vec![("one", "second"), ("three", "first"), ("four", "29")];
    expected.extend(six.iter().map(|client| (client.as_str(), "first")));
    expect(&expected);
}

/// Few of them, and enough to share one sync.
fn a_record_of_several_services_is_there_in_each_of_them(ground: &Ground) {
    let services = ["nfs-a", "nfs-b"].map(|name| ServiceName::parse(name).unwrap());
    let store = (ground.open)();
    for service in &services {
        store.claim(service, &claim(1, "a", "run-1")).unwrap();
        store.begin_generation(service, Generation(1), &contents(1)).unwrap();
    }
    for count in [2, 40] {
        let put = |i: usize, my: &str| Change::put(name(&format!("client-{count}-{i}")), record(my));
        let alike = || (0..count).map(|i| put(i, "both"));
        let first: Vec<Change> = alike().chain([put(count, "first")]).collect();
        let other: Vec<Change> =
            alike().chain([put(count, "other"), Change::remove(name("10.0.0.0"))]).collect();
        let ours = claim(1, "a", "run-1");
        let work = [commit(&services[0], &ours, &first), commit(&services[1], &ours, &other)];
        store.commit_each(&work).unwrap();
        for (service, own) in services.iter().zip(["first", "other"]) {
            let found = (ground.open)().load(service, Generation(1)).unwrap().records;
            for (i, bytes) in (0..count).map(|i| (i, "both")).chain([(count, own)]) {
                assert_eq!(*found.get(&name(&format!("client-{count}-{i}"))).unwrap(), record(bytes));
            }
            assert_eq!(found.contains_key(&name("10.0.0.0")), own == "first");
        }
        // A change of one of them is no change of the other.
        store.commit(&services[0], &claim(1, "a", "1"), &[put(0, "changed")]).unwrap();
        let found = (ground.open)().load(&services[1], Generation(1)).unwrap().records;
        assert_eq!(*found.get(&name(&format!("client-{count}-0"))).unwrap(), record("both"));
    }
}

fn a_commit_under_a_claim_that_gave_way_to_another_server_changes_nothing(ground: &Ground) {
    let (store, other) = (begun(ground, 1, &contents(2)), ServiceName::parse("nfs-b").unwrap());
    let ours = claim(1, "a", "1");
    store.claim(&other, &ours).unwrap();
    store.begin_generation(&other, Generation(1), &contents(2)).unwrap();
    let newer = claim(2, "b", "1");
    assert_eq!((ground.open)().claim(&service(), &newer).unwrap(), ClaimAnswer::Won);
    let change = || {
        vec![
            Change::put(name("10.9.9.9"), record("10.9.9.9")),
            Change::remove(name("10.0.0.0")),
            Change::PutState(StateNumber(99)),
            Change::PutJournal(Box::new(journal(99))),
            Change::AppendOutcome(outcome("10.0.0.0", None)),
        ]
    };
    let together = [commit(&other, &ours, &change()), commit(&service(), &ours, &change())];
    for refused in [store.commit(&service(), &ours, &change()), store.commit_each(&together)] {
        let error = refused.unwrap_err();
        assert_eq!(*error.kind(), StoreErrorKind::NotOwner, "{error}");
        let said = "nfs-a: expected that it is held by a, under claim 1, found that b has claimed it as generation 2; nothing \
                    was changed";
        assert_eq!(error.to_string(), said);
    }
    for service in [&service(), &other] {
        assert_eq!(store.load(service, Generation(1)).unwrap(), contents(2), "{service}");
    }
    // The new owner begins its generation, and changes it.
    store.begin_generation(&service(), Generation(2), &contents(1)).unwrap();
    store.commit(&service(), &newer, &[Change::remove(name("10.0.0.0"))]).unwrap();
    store.commit(&other, &ours, &[Change::remove(name("10.0.0.0"))]).unwrap();
    for (service, generation) in [(&service(), 2), (&other, 1)] {
        let found = store.load(service, Generation(generation)).unwrap().records;
        assert!(!found.contains_key(&name("10.0.0.0")), "{service}");
    }
}

fn a_commit_under_a_claim_that_no_other_server_has_followed_is_made(ground: &Ground) {
    let store = begun(ground, 1, &Contents::default());
    let put = |client: &str| [Change::put(name(client), record(client))];
    store.release(&service(), Generation(1)).unwrap();
    store.commit(&service(), &claim(1, "a", "1"), &put("given-up")).unwrap();
    // The same server has claimed on, and has not begun that generation.
    store.claim(&service(), &claim(2, "a", "2")).unwrap();
    store.commit(&service(), &claim(1, "a", "1"), &put("followed")).unwrap();
    let found = (ground.open)().load(&service(), Generation(1)).unwrap().records;
    assert!(found.clients().eq(&[name("followed"), name("given-up")]));
}

fn state_journal_and_outcomes_are_kept(ground: &Ground) {
    let store = begun(ground, 1, &Contents { state: Some(StateNumber(5)), ..Contents::default() });
    let line = |which: &str, round: u64| outcome(&format!("{which}-of-{round}"), Some("two\nlines"));
    for round in 0..3 {
        let changes = [
            Change::AppendOutcome(line("first", round)),
            Change::PutJournal(Box::new(journal(round))),
            Change::AppendOutcome(line("second", round)),
        ];
        store.commit(&service(), &claim(1, "a", "1"), &changes).unwrap();
    }
    let found = (ground.open)().load(&service(), Generation(1)).unwrap();
    assert_eq!(found.state, Some(StateNumber(5)));
    assert_eq!(found.journal, Some(journal(2)));
    let lines = (0..3).flat_map(|round| [line("first", round), line("second", round)]);
    assert_eq!(found.outcomes, lines.collect::<Vec<_>>());
}

fn a_damaged_record_is_named_and_left_alone(ground: &Ground) {
    let store = begun(ground, 1, &contents(1));
    let damage = Change::put(name("10.0.0.9"), b"garbage\n".to_vec());
    store.commit(&service(), &claim(1, "a", "1"), &[damage]).unwrap();
    store.commit(&service(), &claim(1, "a", "1"), &[Change::remove(name("10.0.0.0"))]).unwrap();
    let found = (ground.open)().load(&service(), Generation(1)).unwrap();
    assert_eq!(found.records.len(), 0);
    let [Damaged { path: which, why, part }] = found.damaged.as_slice() else {
        panic!("one is damaged: {:?}", found.damaged)
    };
    assert!(
        *part == DamagedPart::Record(Some(name("10.0.0.9").into()))
            && which.contains("10.0.0.9")
            && why.contains("expected")
            && why.contains("garbage"),
        "{which}: {why}"
    );
    let mend = Change::put(name("10.0.0.9"), record("10.0.0.9"));
    store.commit(&service(), &claim(1, "a", "1"), &[mend]).unwrap();
    let found = store.load(&service(), Generation(1)).unwrap();
    assert_eq!((found.records.len(), found.damaged.len()), (1, 0));
}

fn a_change_that_no_store_can_hold_is_refused_whole(ground: &Ground) {
    let store = begun(ground, 1, &contents(1));
    let good = Change::put(name("good"), record("good"));
    let bad = Change::put(name("huge"), vec![b'x'; RECORD_BYTES_MAX + 1]);
    let error = store.commit(&service(), &claim(1, "a", "1"), &[good, bad]).unwrap_err().to_string();
    assert!(error.contains("at most"), "{error}");
    assert_eq!(store.load(&service(), Generation(1)).unwrap(), contents(1));
    let mut huge = contents(1);
    huge.records.insert(name("huge"), vec![b'x'; RECORD_BYTES_MAX + 1]);
    assert!(store.begin_generation(&service(), Generation(2), &huge).is_err());
    assert_eq!(store.newest_generation(&service(), Generation(2)).unwrap(), Some(Generation(1)));
}

fn every_name_a_client_may_have_is_held(ground: &Ground) {
    let store = begun(ground, 1, &Contents::default());
    let longest = "x".repeat(255);
    let names = [longest.as_str(), "fe80::1%eth0", "2001:db8::7", "a*?\\\"'$(x)", "state", "claims", "7"];
    let changes: Vec<Change> = names.iter().map(|client| Change::put(name(client), record("c"))).collect();
    store.commit(&service(), &claim(1, "a", "1"), &changes).unwrap();
    let found = (ground.open)().load(&service(), Generation(1)).unwrap();
    assert_eq!(found.records, names.iter().map(|client| (name(client), record("c"))).collect());
    assert_eq!(found.damaged, []);
}

fn commits_from_many_threads_are_all_done(ground: &Ground) {
    let store = begun(ground, 1, &Contents::default());
    thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for i in 0..5 {
                    let client = format!("client-{thread}-{i}");
                    let changes = [
                        Change::put(name(&client), record(&client)),
                        Change::put(name("shared"), record(&client)),
                        Change::AppendOutcome(outcome(&client, None)),
                    ];
                    store.commit(&service(), &claim(1, "a", "1"), &changes).unwrap();
                }
            });
        }
    });
    let found = store.load(&service(), Generation(1)).unwrap();
    assert_eq!((found.records.len(), found.outcomes.len(), found.damaged.len()), (21, 20, 0));
}

fn prune_keeps_the_newest(ground: &Ground) {
    for generation in 1..=4 {
        begun(ground, generation, &contents(2));
    }
    let store = (ground.open)();
    store.release(&service(), Generation(1)).unwrap();
    for _ in 0..2 {
        store.prune(&service(), Generation(3)).unwrap();
        assert_eq!(store.newest_generation(&service(), Generation(2)).unwrap(), None);
        assert_eq!(store.load(&service(), Generation(3)).unwrap(), contents(2));
    }
    store.prune(&service(), Generation(99)).unwrap();
    assert_eq!(store.newest_generation(&service(), Generation(3)).unwrap(), None);
    assert_eq!(store.load(&service(), Generation(4)).unwrap(), contents(2));
    assert_eq!(store.newest_claim(&service()).unwrap(), Some(claim(4, "a", "1")));
    let unknown = ServiceName::parse("unknown").unwrap();
    store.prune(&unknown, Generation(3)).unwrap();
    assert_eq!(store.services().unwrap(), [service()]);
}

fn outcomes_of_a_generation_outlive_it(ground: &Ground) {
    for generation in 1..=3 {
        begun(ground, generation, &contents(2));
    }
    let store = (ground.open)();
    let account = store.account(&service(), Generation(1)).unwrap();
    let whole = contents(2);
    assert_eq!(
        (account.state, account.journal, account.outcomes),
        (whole.state, whole.journal, whole.outcomes)
    );
    assert!(account.keys.iter().eq(whole.records.keys()));
    assert!(store.account(&service(), Generation(9)).is_err());
    let told = |owner: &str| {
        let claim = claim(1, owner, "1");
        heirlock_core::history::tenure(&heirlock_core::history::Sources {
            claim: &claim,
            claim_before: None,
            released_before_s: None,
            journal: None,
            state_number: None,
            is_target: false,
            outcomes: &[],
            records: 2,
        })
    };
    store.keep_tenure(&service(), &told("a")).unwrap();
    store.keep_tenure(&service(), &told("b")).unwrap();
    store.prune(&service(), Generation(3)).unwrap();
    let past = (ground.open)().past(&service()).unwrap();
    assert_eq!(past.tenures, [told("a")], "never changed");
    assert_eq!((past.generations, past.claims.len()), (vec![Generation(3)], 1));
    assert_eq!(store.newest_generation(&service(), Generation(2)).unwrap(), None);
    assert_eq!(store.services().unwrap(), [service()]);
}

fn heartbeats_are_seen_by_others(ground: &Ground) {
    let report = |name: &str, beat| ServerReport {
        server: server(name),
        agent: "run-1".into(),
        beat,
        paused: beat == 2,
        incarnation: None,
        state: Some(5),
        further_states: vec![7],
        further_lock_managers: vec![FurtherLockManager {
            name: LockManagerName::parse("two").unwrap(),
            incarnation: Some(Incarnation { boot: "b".into(), start: "2".into(), reopened: 0 }),
            node: Some("node-two".into()),
            facts: [("fact".to_owned(), "another value".to_owned())].into(),
        }],
        written_at_s: 7,
        ailments: vec!["a full disk".into()],
        node: Some("node".into()),
        addresses: vec![[192, 0, 2, 1].into()],
        wants: vec![service()],
        asked: 7,
        declines: [(
            "nfs".parse().unwrap(),
            Decline { asked: 3, why: "busy".into(), waits: None, releasing_for_ms: None },
        )]
        .into(),
        moves: [(service(), MoveRequest { to: server("b"), asked: u64::MAX })].into(),
        moving: [(u64::MAX - 1, MoveProgress::begun(service()))].into(),
        facts: [("grace-s".to_owned(), "90".to_owned())].into(),
    };
    let (ours, theirs) = ((ground.open)(), (ground.open)());
    assert_eq!(theirs.servers().unwrap().len(), 0);
    for (name, beat) in [("a", 1), ("b", 1), ("a", 2)] {
        ours.put_server(&report(name, beat)).unwrap();
        assert_eq!(theirs.servers().unwrap().get(&server(name)), Some(&report(name, beat)));
    }
    let all = theirs.servers().unwrap();
    assert_eq!(all.into_values().collect::<Vec<_>>(), [report("a", 2), report("b", 1)]);
}

/// A heartbeat is repeated while a call is waited for. A call that hangs would be waited for as long as the heart beats.
fn a_heartbeat_is_no_progress_of_the_call_that_is_on(ground: &Ground) {
    let store = begun(ground, 1, &contents(1));
    let before = store.progress();
    let report = ServerReport::new(server("a"), "run-1");
    store.put_server(&report).unwrap();
    assert_eq!(store.hearts().unwrap().reports.len(), 1);
    store.beat(&ServerReport { beat: 1, ..report }).unwrap();
    assert_eq!(store.progress(), before);
    store.newest_claim(&service()).unwrap();
    assert!(store.progress() > before);
}

fn a_probe_leaves_the_store_as_it_was(ground: &Ground) {
    let store = begun(ground, 1, &contents(1));
    store.probe().unwrap();
    (ground.open)().probe().unwrap();
    assert_eq!(store.services().unwrap(), [service()]);
    assert_eq!(store.load(&service(), Generation(1)).unwrap(), contents(1));
    assert!(!store.describe().is_empty());
}
