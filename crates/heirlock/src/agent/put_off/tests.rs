use std::fs;

use heirlock_agent::{Message, Outside};
use heirlock_core::ServerName;
use heirlock_core::claim::Claim;
use heirlock_core::monitor::Arrival;
use heirlock_core::takeover::{Event, Phase};
use heirlock_nsm::MyName;

use crate::agent::shared::tests::about_to_tell;
use crate::agent::testing::{Place, begin_monitoring, place, service};
use crate::control::{Answer, AnswerWhen, Line, Request};
use crate::limits::STORE_ANSWERS_TIME_MAX;
use crate::store::dir::DirStore;
use crate::store::steered::Gate;
use crate::store::timed::Timed;

/// The agent's store from now on: each call that the gate shuts out hangs.
fn hang(place: &mut Place) -> Gate {
    let gate = Gate::default();
    let store = DirStore::open(&place.directory.path().join("store")).unwrap();
    let inbox = place.agent.lock_manager().workshop.inbox.messages();
    let ended = move || drop(inbox.send(Message::StoreAnswers));
    place.agent.replace_store(Box::new(Timed::new(Box::new(gate.before(store)), ended).unwrap()));
    gate
}

/// The calls go on, and the agent hears of it.
fn answers(place: &mut Place, gate: &Gate) {
    gate.open();
    while place.agent.store().is_busy() {
        let message = place.next();
        place.agent.handle(message);
    }
    place.agent.store_answers(place.agent.outside().now());
}

/// A server that holds 'new'.
fn holder() -> Place {
    let mut place = place();
    let us = ServerName::parse("nfs-b").unwrap();
    let claim = Claim::new(heirlock_core::Generation(1), &us, "agent", 0);
    let journal = heirlock_core::takeover::Journal::quiet("run", &us, 0);
    let store = place.agent.store();
    let state = heirlock_nsm::StateNumber(1);
    heirlock_agent::agent::holdings::claim_first(store, &service("new"), &claim, state, &journal)
        .unwrap()
        .unwrap();
    place.agent.beat(place.agent.outside().now());
    assert!(place.agent.held().contains_key(&service("new")));
    place
}

fn beats(place: &Place) -> u64 {
    let store = DirStore::open(&place.directory.path().join("store")).unwrap();
    let reports = crate::store::Store::servers(&store).unwrap();
    reports.get(&place.agent.settings().server).map_or(0, |report| report.beat)
}

fn knows(place: &Place, client: &str) -> bool {
    let generation = place.agent.held()[&service("new")].claim.generation.to_string();
    place.directory.path().join("store/services/new").join(generation).join("sm").join(client).exists()
}

#[test]
fn a_heartbeat_that_hangs_is_a_failure_of_the_store_once_the_next_one_hangs_as_well() {
    let mut place = holder();
    let gate = hang(&mut place);
    gate.shut(&["put_server"]);
    place.agent.beat(place.agent.outside().now());
    assert_eq!(place.agent.store_error(), None);
    place.agent.beat(place.agent.outside().now());
    assert!(place.agent.store_error().is_some_and(|error| error.contains("a heartbeat takes longer")));
    gate.open();
}

#[test]
fn the_heart_beats_and_the_status_says_why_while_every_record_hangs() {
    let mut place = holder();
    let gate = hang(&mut place);
    place.turn();
    gate.shut(&["commit_each", "newest_claim", "found", "load"]);
    let line = format!("0100007f 000186b5 00000003 00000010 {:032x} 10.0.0.9 nfs-b\n", 9);
    fs::write(place.directory.path().join("nfs/sm/10.0.0.9"), line).unwrap();
    place.hint();
    place.turn();
    assert!(place.agent.store().is_busy() && !knows(&place, "10.0.0.9"));
    let before = beats(&place);
    for beat in 1..4 {
        place.agent.beat(place.agent.outside().now());
        assert_eq!(beats(&place), before + beat);
    }
    let said = place.status().store.error.unwrap();
    assert!(said.contains("takes longer than 800 ms"), "{said}");
    answers(&mut place, &gate);
    place.turn();
    place.agent.beat(place.agent.outside().now());
    assert!(knows(&place, "10.0.0.9") && place.agent.store_error().is_none());
}

#[test]
fn a_claim_that_came_about_late_is_the_runs_own_and_no_second_one_is_made() {
    let mut place = holder();
    place.turn();
    place.had_elsewhere("nfs");
    let gate = hang(&mut place);
    place.begin("nfs");
    gate.shut(&["claim"]);
    place.drive_until_put_off();
    assert_eq!((place.phase(), place.claims("nfs")), (Some(Phase::Intent), 1));
    // Looks go on meanwhile, and find nothing that they would mend.
    place.agent.beat(place.agent.outside().now());
    answers(&mut place, &gate);
    place.drive(Phase::Conveyed);
    let claims = (place.claims("nfs"), place.claims("new"));
    assert_eq!(claims, (2, 2), "one for the run, and one before it");
    assert_eq!(place.agent.held()[&service("nfs")].claim.generation.0, 2);
}

#[test]
fn a_request_waits_for_the_store_and_no_longer_than_it_may() {
    let mut place = holder();
    let gate = hang(&mut place);
    let now = place.agent.outside().now();
    let adopt = || {
        Box::new(Request::Adopt {
            service: service("nfs"),
            prepare: false,
            finish: false,
            fenced: None,
            force: true,
            answer_when: AnswerWhen::Settled,
        })
    };
    gate.shut(&["probe"]);
    assert!(place.agent.store().probe().is_err());
    let (responder, lines) = crate::control::heard();
    place.agent.handle(Message::Request(adopt(), responder));
    place.agent.say_messages_put_off(now);
    let Line::Progress(progress) = lines.recv().unwrap() else { panic!() };
    assert_eq!(progress.wait.unwrap().for_what, "the store to answer");
    place.agent.end_messages_put_off_too_long(now + STORE_ANSWERS_TIME_MAX * 2);
    let Line::Failed(failure) = lines.recv().unwrap() else { panic!() };
    assert!(failure.message.contains("takes longer than 800 ms"), "{}", failure.message);
    let (responder, lines) = crate::control::heard();
    place.agent.handle(Message::Request(adopt(), responder));
    let (asked, paused) = crate::control::heard();
    place.agent.handle(Message::Request(Box::new(Request::Maintenance { on: true }), asked));
    assert!(matches!(paused.recv().unwrap(), Line::Done(Answer::Verb { changed: true, .. })), "at once");
    assert!(place.agent.asked().is_empty() && lines.try_recv().is_err());
    answers(&mut place, &gate);
    assert_eq!(place.phase(), Some(Phase::Intent));
}

#[test]
fn a_release_is_done_once_the_store_answers_and_one_that_came_about_after_its_time_counts() {
    for waits_too_long in [false, true] {
        let mut place = holder();
        let gate = hang(&mut place);
        let (responder, lines) = crate::control::heard();
        place.agent.release(&service("new"), vec![responder], None);
        gate.shut(&["release"]);
        let now = place.agent.outside().now();
        place.agent.address_gone(now, &service("new"), Ok(()));
        assert!(place.agent.held().contains_key(&service("new")) && lines.try_recv().is_err());
        place.agent.beat(now);
        if waits_too_long {
            place.agent.end_messages_put_off_too_long(now + STORE_ANSWERS_TIME_MAX * 2);
            let end = lines.iter().find(|line| !matches!(line, Line::Progress(_)));
            assert!(matches!(end, Some(Line::Failed(_))), "{end:?}");
        }
        answers(&mut place, &gate);
        assert!(!place.agent.held().contains_key(&service("new")), "{waits_too_long}");
        let claim = &place.agent.others()[&service("new")];
        assert!(claim.released && claim.generation.0 == 1, "{claim:?}");
        assert_eq!(place.agent.releases_are_on(), !waits_too_long, "its volume is taken away");
    }
}

#[test]
fn a_client_that_registers_while_a_record_hangs_is_durable_as_soon_as_the_store_answers() {
    let mut place = about_to_tell("nsm");
    begin_monitoring(&mut place.agent);
    let gate = hang(&mut place);
    gate.shut(&["commit_each"]);
    let mon_name = heirlock_nsm::MonName::parse("10.0.0.9").unwrap();
    let line = heirlock_nsm::MonitorLine::generated(mon_name, MyName::parse("nfs-b").unwrap());
    let arrivals = vec![Arrival { line, peer: false }];
    let now = place.agent.outside().now();
    place.agent.wanted(now, heirlock_agent::status_monitor::Wanted::Commit { batch: 1, arrivals });
    assert!(place.agent.store().is_busy() && !knows(&place, "10.0.0.9"));
    answers(&mut place, &gate);
    assert!(knows(&place, "10.0.0.9"));
    // The run that is on was not held up by it for ever.
    place.event(Event::NotifyEnded { service: service("nfs"), left: Vec::new() });
}
