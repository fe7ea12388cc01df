use std::fs;
use std::time::Duration;

use heirlock_agent::agent::status;
use heirlock_agent::{InstanceOutside, News, Outside, Work};
use heirlock_core::Generation;
use heirlock_core::claim::Claim;
use heirlock_core::takeover::{Milestone, Phase};
use heirlock_nsm::{MonName, StateNumber};

use crate::agent::testing::{Place, place, service};
use crate::clock::Clock;
use crate::store::Contents;

/// Longer than records may take to be placed.
const LONG: Duration = Duration::from_secs(600);

/// Files of clients below the status monitor's directory.
fn files(place: &Place) -> usize {
    fs::read_dir(place.directory.path().join("nfs/sm")).unwrap().count()
}

/// A server that is about to adopt another one's service with so many clients.
fn adopting(clients: u8) -> Place {
    let mut place = place();
    let line = "0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 10.0.0.1 nfs-a\n";
    let names = (1..=clients).map(|number| MonName::from_address([10, 0, 0, number].into()));
    let records = names.map(|name| (name, line)).collect();
    let claim = Claim::new(Generation(1), &"nfs-a".parse().unwrap(), "run-a", 0);
    let contents = Contents { records, state: Some(StateNumber(7)), ..Contents::default() };
    place.agent.store().claim(&service("new"), &claim).unwrap();
    place.agent.store().begin_generation(&service("new"), Generation(1), &contents).unwrap();
    place.begin("new");
    place
}

fn is_conveyed(place: &Place) -> bool {
    let timeline = place.agent.run().as_ref().unwrap().machine.timeline();
    timeline.iter().any(|stamp| stamp.event == Milestone::Conveyed)
}

#[test]
fn a_directory_that_hangs_holds_up_neither_a_client_nor_the_loop() {
    let mut place = adopting(20);
    let conveyor = place.agent.lock_manager().conveyor.clone();
    // As where the disk does not answer once the files take their names.
    let hangs = conveyor.hold();
    place.drive(Phase::Claimed);
    while conveyor.placed().is_empty() {
        std::thread::yield_now();
    }
    place.turn();
    place.agent.scan(place.agent.outside().now());
    assert_eq!(place.agent.capture().blind(), None, "it is looked all the while");
    assert!(place.agent.capture().found().clients.is_empty(), "and no record is taken for a registration");
    assert_eq!((place.phase(), is_conveyed(&place)), (Some(Phase::Claimed), false));
    let machine = &place.agent.run().as_ref().unwrap().machine;
    let waits = status::progress(place.agent.outside().now(), machine, place.agent.settings(), None).wait;
    let said = waits.map(|wait| wait.for_what).unwrap_or_default();
    assert!(said.contains("records to be placed"), "{said}");
    // Time is up: the lock manager is made to recognise.
    place.agent.outside_mut().clock = Clock::ahead(LONG);
    place.agent.do_what_is_due();
    place.drive(Phase::Recognised);
    let troubles = place.agent.run().as_ref().unwrap().machine.troubles().to_vec();
    assert!(troubles.len() == 1 && troubles[0].why.contains("not placed in time"), "{troubles:?}");
    drop(hangs);
    let placed = place.next_that(|message| matches!(message, News::Placed(..)).then_some(message));
    place.hear(placed);
    assert!(is_conveyed(&place) && files(&place) == 20);
}

#[test]
fn records_are_taken_away_after_the_last_one_is_placed() {
    let mut place = adopting(20);
    let conveyor = place.agent.lock_manager().conveyor.clone();
    let hangs = conveyor.hold();
    place.drive(Phase::Claimed);
    place.agent.lock_manager_mut().begin(Work::TakePlacedAway);
    drop(hangs);
    let placed = place.next_that(|message| match message {
        News::Placed(_, done) => Some(done),
        News::PlacedTakenAway(_) => panic!("it was begun last"),
        _ => None,
    });
    assert_eq!(placed, [(service("new"), Ok(Vec::new()))]);
    let gone = place.next_that(|message| match message {
        News::PlacedTakenAway(done) => Some(done),
        _ => None,
    });
    assert_eq!(gone, Ok(Vec::new()));
    assert!(files(&place) == 0 && place.agent.lock_manager().placed().is_empty());
}
