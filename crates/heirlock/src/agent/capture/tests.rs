use std::fs;
use std::time::Duration;

use heirlock_agent::agent::holdings::claim_first;
use heirlock_agent::{Found, InstanceOutside, Looked, News, Outside, Placing, RunNumber, RunWork};
use heirlock_core::claim::Claim;
use heirlock_core::incarnation::{Incarnation, Observation};
use heirlock_core::ledger::{Population, Portion};
use heirlock_core::lives::Lives;
use heirlock_core::takeover::Journal;
use heirlock_core::{Generation, Moment, ServiceName};
use heirlock_nsm::{MonName, StateNumber};

use crate::agent::testing::{Place, place, service};
use crate::limits::LOOK_TIME_MAX;

const LINE: &str = "0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 10.0.0.1 nfs-b\n";

/// A conveyed crowd, or one that registers, is thousands of hints while the agent is at work.
#[test]
fn hints_that_come_while_one_waits_are_that_one() {
    let mut place = place();
    let sm = place.directory.path().join("nfs/sm");
    let _hints = place.agent.lock_manager().watch_directory().unwrap();
    let hint = |news: News| matches!(news, News::Changed).then_some(());
    place.next_that(hint); // from the watch itself, when it is set
    for i in 0..200 {
        fs::write(sm.join(format!("10.0.0.{i}")), LINE).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(place.news().find_map(hint), None, "the agent has not heard that one yet");
    place.hear(News::Changed);
    place.turn();
    fs::write(sm.join("10.0.1.1"), LINE).unwrap();
    place.next_that(hint); // what comes later may be missed by the look
}

#[test]
fn a_service_whose_folder_is_damaged_takes_no_other_with_it() {
    let mut place = place();
    let us = place.agent.settings().server.clone();
    let (claim, journal) = (Claim::new(Generation::FIRST, &us, "agent", 0), Journal::quiet("run", &us, 0));
    let store = place.agent.store();
    claim_first(store, &service("new"), &claim, StateNumber(1), &journal).unwrap().unwrap();
    place.turn();
    let (whole, damaged) = (ServiceName::host(&us), service("new"));
    let services = place.directory.path().join("store/services");
    fs::remove_dir_all(services.join("new/1/sm")).unwrap();
    fs::write(place.directory.path().join("nfs/sm/10.0.0.1"), LINE).unwrap();
    place.agent.scan(place.agent.outside().now());
    let known = |of| place.agent.held()[of].ledger.stored().len();
    assert_eq!((known(&whole), known(&damaged), place.agent.capture().is_behind()), (1, 0, true));
    assert!(services.join("host.nfs-b/1/sm/10.0.0.1").exists());
}

#[test]
fn a_hinted_look_opens_changed_files_and_any_other_opens_all() {
    let mut place = place();
    let sm = place.directory.path().join("nfs/sm");
    let register = |name: &str| fs::write(sm.join(name), LINE.replace("10.0.0.1", name)).unwrap();
    register("10.0.0.1");
    register("10.0.0.2");
    std::thread::sleep(Duration::from_millis(100));
    place.turn();
    assert_eq!(place.agent.capture().opened(), 2, "the first");
    let due = place.agent.capture().due();
    register("10.0.0.3");
    place.hint();
    assert_eq!(place.agent.next_due(), Moment::START);
    place.turn();
    assert_eq!(place.agent.capture().opened(), 1, "hinted");
    assert!(place.agent.capture().found().clients.len() == 3 && !place.agent.lock_manager().is_hinted());
    // However many hints come.
    assert_eq!(place.agent.capture().due(), due);
    place.hint();
    let now = place.agent.outside().now();
    place.agent.capture_mut().look_at(now);
    place.turn();
    assert_eq!(place.agent.capture().opened(), 3, "due");
    assert!(!place.agent.lock_manager().is_hinted());
}

/// A server that holds a service, whose first look is over.
fn looked_once() -> Place {
    let mut place = place();
    hold(&mut place, "new");
    place.turn();
    place
}

fn hold(place: &mut Place, name: &str) {
    let us = place.agent.settings().server.clone();
    let (claim, journal) = (Claim::new(Generation::FIRST, &us, "agent", 0), Journal::quiet("run", &us, 0));
    claim_first(place.agent.store(), &service(name), &claim, StateNumber(1), &journal).unwrap().unwrap();
}

fn register(place: &Place, client: &str) {
    let file = place.directory.path().join("nfs/sm").join(client);
    fs::write(file, LINE.replace("10.0.0.1", client)).unwrap();
}

/// A look that was begun is over, but nothing of it is taken in yet.
fn begun(place: &mut Place) -> Looked {
    place.hint();
    place.agent.tend_capture(place.agent.outside().now());
    assert!(place.agent.capture().is_busy());
    place.next_that(|message| match message {
        News::Looked(looked) => Some(*looked),
        _ => None,
    })
}

fn known(place: &Place) -> Vec<String> {
    place.agent.held()[&service("new")].ledger.stored().keys().map(ToString::to_string).collect()
}

#[test]
fn the_loop_goes_on_during_a_look_and_takes_its_result_in() {
    let mut place = looked_once();
    register(&place, "10.0.0.1");
    let looked = begun(&mut place);
    assert_eq!(known(&place), [] as [&str; 0]);
    place.agent.looked(place.agent.outside().now(), looked);
    place.turn();
    assert_eq!(known(&place), ["10.0.0.1"]);
}

#[test]
fn a_look_counts_for_nothing_once_the_loop_has_looked_or_records_were_conveyed() {
    let mut place = looked_once();
    let looked = begun(&mut place);
    register(&place, "10.0.0.1");
    place.agent.scan(place.agent.outside().now());
    place.agent.looked(place.agent.outside().now(), looked);
    assert!(place.agent.capture().found().clients.len() == 1 && !place.agent.capture().is_busy());
    assert!(place.agent.next_due() <= place.agent.outside().now(), "it is looked at once more");
    // A record that was placed during the look may have been taken for a registration.
    place.turn();
    let looked = begun(&mut place);
    let conveyed = heirlock_core::Records::from([(MonName::parse("10.0.0.9").unwrap(), LINE)]);
    let my_name = heirlock_nsm::MyName::parse("nfs").unwrap();
    let how = heirlock_core::takeover::Conveyance::Generate;
    let services = vec![Placing { service: service("nfs"), records: conveyed, my_name }];
    place.agent.lock_manager_mut().begin_for(RunNumber::default(), RunWork::Place { services, how });
    place.next_that(|message| matches!(message, News::Placed(..)).then_some(()));
    let before = place.agent.capture().looked();
    place.agent.looked(place.agent.outside().now(), looked);
    assert_eq!(place.agent.capture().looked(), before);
}

#[test]
fn a_client_that_registers_while_it_is_looked_is_not_taken_for_gone() {
    let mut place = looked_once();
    let looked = begun(&mut place);
    let client = MonName::parse("10.0.0.1").unwrap();
    place.agent.capture_mut().knows(&client, LINE.as_bytes());
    let other = MonName::parse("10.0.0.2").unwrap();
    place.agent.capture_mut().expects(&other, b"until it is found");
    place.agent.looked(place.agent.outside().now(), looked);
    let found = &place.agent.capture().found().clients;
    assert_eq!(
        (&**found.get(&client).unwrap(), &**found.get(&other).unwrap()),
        (LINE.as_bytes(), &b"until it is found"[..])
    );
}

#[test]
fn a_deletion_is_not_believed_where_the_look_began_in_another_life() {
    let mut place = looked_once();
    register(&place, "10.0.0.1");
    place.agent.scan(place.agent.outside().now());
    let life = |start: &str| Incarnation { boot: "b".into(), start: start.into(), reopened: 0 };
    let mut looked = begun(&mut place);
    for (began_in, tombstones) in [("1", 0), ("2", 1)] {
        let mut basis = looked.basis.clone();
        basis.life = Some(life(began_in));
        let found = Found { population: Population::default(), ..Found::default() };
        *place.agent.lives_mut() = Lives::new(Some(life("2")), Default::default());
        let seen = Observation { boot: "b".into(), start: Some("2".into()), in_grace: None, serving: true };
        let now = place.agent.outside().now();
        assert_eq!(place.agent.lives_mut().looked(now, &seen), None);
        place
            .agent
            .held_mut()
            .get_mut(&service("new"))
            .unwrap()
            .ledger
            .saw(MonName::parse("10.0.0.1").unwrap(), Some(&life("2")));
        place.agent.take_look(place.agent.outside().now(), Looked { basis, found: Ok(found) });
        place.agent.record(place.agent.outside().now());
        assert_eq!(place.agent.held()[&service("new")].ledger.tombstones(), tombstones, "{began_in}");
    }
    looked.found = Err("gone".into());
    place.agent.looked(place.agent.outside().now(), looked);
    assert!(place.agent.capture().blind().is_some());
}

#[test]
fn a_service_that_fails_in_one_portion_leaves_the_others_theirs() {
    let mut place = looked_once();
    (1..=4).for_each(|number| register(&place, &format!("10.0.0.{number}")));
    fs::remove_dir_all(place.directory.path().join("store/services/host.nfs-b/1/sm")).unwrap();
    let (now, looked) = (place.agent.outside().now(), begun(&mut place));
    place.agent.looked(now, looked);
    while place.agent.capture().is_busy() {
        place.agent.compare(now, Portion::of(1, 1, 1));
    }
    assert_eq!((known(&place).len(), place.agent.capture().is_behind()), (4, true));
}

#[test]
fn a_look_that_does_not_end_is_said_and_its_end_as_well() {
    let mut place = looked_once();
    let looked = begun(&mut place);
    let late = place.agent.outside().now() + LOOK_TIME_MAX;
    assert!(place.agent.next_due() <= late);
    place.agent.tend_capture(late);
    assert!(place.agent.capture().blind().is_some_and(|why| why.contains("60 s")));
    place.agent.note_protection();
    assert_eq!(place.agent.protection().since_s(), None);
    place.agent.looked(late, looked);
    assert_eq!(place.agent.capture().blind(), None);
}
