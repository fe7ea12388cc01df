//! The promises of a server and of its lock managers to their agent, over every one there is. Work is left out, save that records are placed and taken
//! away: the results of other work depend on the host.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::BTreeMap;

use heirlock_core::incarnation::Incarnation;
use heirlock_core::{Generation, Records};

use super::super::News;
use super::super::work::{Placing, Unplaced};
use super::*;
use heirlock_core::takeover::Conveyance;
use heirlock_nsm::MyName;

/// A server keeps its promises. `anew` is what the next agent finds where the one before was killed.
pub fn a_server_keeps_its_promises<O: Outside>(mut outside: O, anew: impl Fn(O) -> O) {
    time_goes_on_and_numbers_differ(&mut outside);
    outside = maintenance_is_noted(outside, &anew);
    the_store_is_remembered(outside, &anew);
}

/// A lock manager keeps its promises. `next` is the next news that it has for its agent, once there are any. `anew` is what the
/// next agent finds where the one before was killed.
pub fn a_lock_manager_keeps_its_promises<O: InstanceOutside>(
    mut outside: O,
    next: impl Fn(&mut O) -> News,
    anew: impl Fn(O) -> O,
) {
    assert_eq!(outside.node(), outside.node());
    outside = grace_is_noted(outside, &anew);
    outside = registrations_are_noted_for_their_run(outside, &anew);
    outside = addresses_that_are_taken_away_are_noted(outside, &anew);
    outside = placed_records_are_known_and_taken_for_no_registration(outside, &next, &anew);
    hints_are_forgotten(&mut outside);
    assert!(outside.monitor_standing().is_none() && outside.may_forget(&client(1)));
    assert_eq!(outside.registered_lines(&client(1)), []);
    assert_eq!(outside.all_registered_lines(), []);
    assert_eq!(outside.unready(), [], "nothing was brought up yet");
    outside.stop_telling();
}

fn client(number: u8) -> MonName {
    MonName::from_address([192, 0, 2, number].into())
}

fn record(number: u8) -> Vec<u8> {
    let my_name = MyName::parse("nfs").unwrap();
    heirlock_nsm::record::render_record(&[MonitorLine::generated(client(number), my_name)])
}

fn time_goes_on_and_numbers_differ(outside: &mut impl Outside) {
    let before = (outside.now(), outside.since_boot());
    assert!(before.0 <= outside.now() && before.1 <= outside.since_boot());
    assert_ne!(outside.random(), outside.random());
    assert_eq!(outside.boot(), outside.boot());
}

fn grace_is_noted<O: InstanceOutside>(mut outside: O, anew: &impl Fn(O) -> O) -> O {
    assert_eq!(outside.grace_note(), None);
    for start in ["1", "2"] {
        let life = Incarnation { boot: "boot".into(), start: start.into(), reopened: 0 };
        let noted = Remembered::of(life);
        outside.note_grace(&noted);
        assert_eq!(outside.grace_note().as_ref(), Some(&noted));
        outside = anew(outside);
        assert_eq!(outside.grace_note(), Some(noted));
    }
    outside
}

fn registrations_are_noted_for_their_run<O: InstanceOutside>(mut outside: O, anew: &impl Fn(O) -> O) -> O {
    assert_eq!(outside.registrations("run-1"), None);
    for (run, number) in [("run-1", 1), ("run-2", 2)] {
        let noted = Registrations::of(run, &Records::from([(client(number), record(number))]));
        outside.note_registrations(&noted);
        outside = anew(outside);
        assert_eq!(outside.registrations(run), Some(noted));
        assert_eq!(outside.registrations("run-0"), None, "they are another run's");
    }
    outside
}

fn addresses_that_are_taken_away_are_noted<O: InstanceOutside>(mut outside: O, anew: &impl Fn(O) -> O) -> O {
    assert_eq!(outside.taken_away(), Ok(TakenAway::default()), "none ever was");
    let service = ServiceName::parse("nfs").unwrap();
    let mut noted = TakenAway::default();
    for generation in [1, 2] {
        noted.note(&service, Generation(generation));
        outside.note_taken_away(&noted).unwrap();
        outside = anew(outside);
        assert_eq!(outside.taken_away().as_ref(), Ok(&noted));
    }
    noted.forget(&service);
    outside.note_taken_away(&noted).unwrap();
    outside = anew(outside);
    assert_eq!(outside.taken_away(), Ok(noted));
    outside
}

fn maintenance_is_noted<O: Outside>(mut outside: O, anew: &impl Fn(O) -> O) -> O {
    assert!(!outside.is_maintained());
    for on in [true, true, false, false] {
        outside.maintain(on).unwrap();
        outside = anew(outside);
        assert_eq!(outside.is_maintained(), on);
    }
    outside
}

fn the_store_is_remembered<O: Outside>(mut outside: O, anew: &impl Fn(O) -> O) {
    assert_eq!(outside.store_memory().unwrap(), StoreMemory::default());
    let mut expected = StoreMemory::default();
    for generation in [1, 2] {
        let change = |memory: &mut StoreMemory| {
            let generation = Generation(generation);
            memory.saw(
                &ServiceName::parse("nfs").unwrap(),
                generation,
                Some(generation),
                Some(StateNumber(7)),
            );
        };
        change(&mut expected);
        assert_eq!(outside.remember_store(&change).unwrap(), expected);
        outside = anew(outside);
        assert_eq!(outside.store_memory().unwrap(), expected);
    }
}

fn placed_records_are_known_and_taken_for_no_registration<O: InstanceOutside>(
    mut outside: O,
    next: &impl Fn(&mut O) -> News,
    anew: &impl Fn(O) -> O,
) -> O {
    let before = outside.placed();
    let (service, my_name) = (ServiceName::parse("nfs").unwrap(), MyName::parse("nfs").unwrap());
    let lines = BTreeMap::from([1, 2].map(|number| (client(number), record(number))));
    let records: Records = lines.clone().into_iter().collect();
    let place = |outside: &mut O, run| {
        let (service, my_name) = (service.clone(), my_name.clone());
        let services = vec![Placing { service, records: records.clone(), my_name }];
        outside.begin_for(run, RunWork::Place { services, how: Conveyance::Copy });
    };
    let is_placed = |message, run| match message {
        News::Placed(of, done) => of == run && done == [(service.clone(), Ok(Unplaced::new()))],
        _ => false,
    };
    let is_taken_away =
        |message| matches!(message, News::PlacedTakenAway(Ok(unplaced)) if unplaced.is_empty());
    // Work is done in the order in which it was begun, so the last of it lasts.
    let [first, second] = [RunNumber::default().next(), RunNumber::default().next().next()];
    place(&mut outside, first);
    outside.begin(Work::TakePlacedAway);
    place(&mut outside, second);
    assert!(is_placed(next(&mut outside), first));
    assert!(is_taken_away(next(&mut outside)));
    assert!(is_placed(next(&mut outside), second));
    assert!(before.is_empty(), "a map that is held does not change");
    assert!(!Arc::ptr_eq(&before, &outside.placed()));
    for _ in 0..2 {
        assert_eq!(*outside.placed(), lines);
        for recall in [(true, true), (false, true), (false, false)] {
            let recall = Recall { anew: recall.0, kept: recall.1 };
            let found = outside.look(&Addresses::new(), recall).unwrap();
            assert!(found.population.clients.is_empty(), "{recall:?}: {:?}", found.population);
        }
        outside = anew(outside);
    }
    for _ in 0..2 {
        outside.begin(Work::TakePlacedAway);
        assert!(is_taken_away(next(&mut outside)));
        outside = anew(outside);
        assert!(outside.placed().is_empty());
    }
    outside
}

fn hints_are_forgotten(outside: &mut impl InstanceOutside) {
    outside.forget_hints();
    assert!(!outside.is_hinted(), "nothing watches here");
}
