use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use heirlock_agent::agent::holdings::{Committing, Held, claim_first};
use heirlock_agent::{InstanceOutside, News, Outside};
use heirlock_core::claim::Claim;
use heirlock_core::takeover::Journal;
use heirlock_core::{Generation, ServerName, ServiceName};
use heirlock_nsm::record::render_record;
use heirlock_nsm::{MonName, MonitorLine, MyName, StateNumber};
use rustix::io::Errno;

use crate::agent::testing::{Place, begin_monitoring, begun, place_in_mode, service};
use crate::control::report::ProblemKind;
use crate::control::report::observed::Observed;
use crate::limits;
use crate::store::dir::DirStore;
use crate::store::faulty::{Fault, FaultyDisk};
use crate::store::{Change, RecordChange, Store};

fn client(number: u8) -> MonName {
    MonName::from_address([10, 0, 0, number].into())
}

fn bytes(number: u8) -> Vec<u8> {
    render_record(&[MonitorLine::generated(client(number), MyName::parse("nfs-b").unwrap())])
}

/// A status monitor that holds 'nfs', of which one client is durable.
fn monitoring() -> Place {
    let mut place = place_in_mode("nsm");
    let store = DirStore::open(&place.directory.path().join("store")).unwrap();
    let owner = ServerName::parse("nfs-b").unwrap();
    let claim = Claim::new(Generation::FIRST, &owner, "agent", 0);
    let journal = Journal::quiet("run", &owner, 0);
    claim_first(&store, &service("nfs"), &claim, StateNumber(1), &journal).unwrap().unwrap();
    store.commit(&service("nfs"), &claim, &[Change::put(client(1), bytes(1))]).unwrap();
    let now = place.agent.outside().now();
    place.agent.refresh_holdings(now);
    // This server's implicit service is no concern of these tests.
    place.agent.held_mut().retain(|held, _| *held == service("nfs"));
    assert_eq!(place.agent.held().len(), 1);
    begin_monitoring(&mut place.agent);
    assert!(knows(&place, 1));
    place
}

fn knows(place: &Place, number: u8) -> bool {
    place.agent.lock_manager().monitor.as_ref().unwrap().knows(&client(number))
}

fn committed(place: &mut Place, entries: &[RecordChange]) {
    place.agent.held_mut().get_mut(&service("nfs")).unwrap().ledger.committed(entries);
}

#[test]
fn a_client_that_arrives_while_another_goes_is_made_known_as_durable() {
    let mut place = monitoring();
    // As one look does that believes one deletion and catches up with one client that was at risk.
    assert!(place.agent.may_forget(&client(1)));
    committed(&mut place, &[RecordChange::remove(client(1)), RecordChange::put(client(2), bytes(2))]);
    place.agent.tell_durable();
    assert_eq!((knows(&place, 1), knows(&place, 2)), (false, true));
}

#[test]
fn a_name_whose_address_is_durable_is_made_known_when_it_is_resolved() {
    let mut place = monitoring();
    let named = MonName::parse("client1.example.com").unwrap();
    let now = place.agent.outside().now();
    place.agent.resolved(now, &named, Ok(client(1).address().into_iter().collect()));
    place.agent.tell_durable();
    assert!(place.agent.lock_manager().monitor.as_ref().unwrap().knows(&named));
}

#[test]
fn a_service_that_is_held_anew_is_looked_at_anew() {
    let mut place = monitoring();
    let mut held: BTreeMap<ServiceName, Held> = std::mem::take(place.agent.held_mut());
    let held = held.remove(&service("nfs")).unwrap();
    // Lost sight of and found again, with another client than before.
    let records = heirlock_core::Records::from([(client(2), bytes(2))]);
    let contents = crate::store::Contents { records, ..crate::store::Contents::default() };
    place.agent.hold(&service("nfs"), held.claim, contents, held.journal);
    place.agent.tell_durable();
    assert!(knows(&place, 2) && !knows(&place, 1));
}

/// The agent is killed, and the next one has begun to answer but has read neither the store nor the directory.
fn killed_and_answering(place: &mut Place) {
    (place.agent, place.messages) = begun(Arc::clone(place.agent.settings()));
    begin_monitoring(&mut place.agent);
}

#[test]
fn after_a_kill_known_clients_are_answered_before_the_store_and_the_directory_are_read() {
    let mut place = monitoring();
    let line = |number| MonitorLine::generated(client(number), MyName::parse("nfs-b").unwrap());
    let monitor = place.agent.lock_manager().monitor.clone().unwrap();
    monitor.found(vec![(line(1), std::time::SystemTime::now())]);
    // A client that left just before: its file could not follow any more.
    let sm = place.directory.path().join("nfs/sm");
    std::fs::write(sm.join(client(2).as_str()), bytes(2)).unwrap();
    killed_and_answering(&mut place);
    assert!(knows(&place, 1) && !knows(&place, 3));
    place.agent.tend_capture(place.agent.outside().now());
    place.agent.tell_durable();
    assert!(place.agent.capture().looked().is_none(), "the directory may lack what the status monitor knows");
    assert!(knows(&place, 1), "nothing was read that says the contrary");
    while place.agent.awaits_directory() {
        let message = place.next();
        place.agent.handle(message);
    }
    place.agent.take_up();
    place.turn();
    assert!(place.agent.capture().looked().is_some() && sm.join(client(1).as_str()).exists());
    assert!(knows(&place, 1), "the store knows it as well");
}

#[test]
fn a_client_whose_removal_failed_and_came_about_all_the_same_is_on_record_before_it_is_granted_again() {
    let mut place = monitoring();
    let disk = FaultyDisk::new();
    let store = DirStore::create_on(Path::new("/store"), Box::new(disk.clone())).unwrap();
    let (nfs, us) = (service("nfs"), ServerName::parse("nfs-b").unwrap());
    let claim = Claim::new(Generation::FIRST, &us, "agent", 0);
    claim_first(&store, &nfs, &claim, StateNumber(1), &Journal::quiet("run", &us, 0)).unwrap().unwrap();
    store.commit(&nfs, &claim, &[Change::put(client(1), bytes(1))]).unwrap();
    // The file is removed, and the folder can't be synced.
    disk.set(Fault::From(disk.steps() + 1, Errno::IO));
    let mut held = place.agent.held_mut().remove(&nfs).unwrap();
    assert!(place.agent.lock_manager().may_forget(&client(1)));
    let mut counts = Observed::default();
    let mut committing = Committing::new(&store, place.agent.outside(), &mut counts);
    assert!(held.remove(&mut committing, &nfs, &[client(1).into()]).is_err());
    assert_eq!((counts.records.removed_total, counts.records.failed_total), (0, 1));
    assert_eq!((counts.commits.failed_total, counts.commits.seconds.count), (1, 1));
    assert_eq!(store.record(&nfs, Generation::FIRST, &client(1).into()), None, "it came about all the same");
    disk.set(Fault::None);
    place.agent.held_mut().insert(nfs.clone(), held);
    place.agent.replace_store(Box::new(store));
    place.agent.protect(place.agent.outside().now(), &client(1), &MyName::parse("nfs-b").unwrap()).unwrap();
    assert_eq!(place.agent.store().record(&nfs, Generation::FIRST, &client(1).into()), Some(bytes(1).into()));
}

#[test]
fn a_directory_that_is_not_read_for_long_after_the_start_is_a_problem_until_it_is() {
    let mut place = monitoring();
    killed_and_answering(&mut place);
    let began = place.agent.outside().now();
    let problems = |place: &Place| place.agent.monitor_problems().len();
    place.agent.tend_capture(began);
    assert_eq!(problems(&place), 0);
    place.agent.tend_capture(began + limits::LOOK_TIME_MAX);
    let problem = place.agent.monitor_problems().remove(0);
    assert_eq!(problem.kind, ProblemKind::MonitorDirectoryUnreadable);
    let read = place.next_that(|message| match message {
        News::DirectoryRead(read) => Some(read),
        _ => None,
    });
    place.hear(News::DirectoryRead(read));
    assert_eq!(problems(&place), 0);
}
