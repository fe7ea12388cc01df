use std::fs;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use heirlock_agent::Outside;
use heirlock_core::ServerName;
use heirlock_core::claim::Claim;
use heirlock_core::takeover::{Journal, Phase};
use heirlock_nsm::StateNumber;

use crate::agent::testing::{Place, place, service};
use crate::store::dir::DirStore;
use crate::store::steered::Steered;
use crate::store::timed::Timed;

/// How long each call of the store takes: less than the time after which it would have failed.
const CALL: Duration = Duration::from_millis(300);

/// How often the heart beats.
const INTERVAL: Duration = Duration::from_secs(1);

/// Calls of the loop that fit between two heartbeats: as many as an interval holds, one that was on, one that was about to begin,
/// and as many again for a heartbeat that waits for the one before it.
const CALLS_BETWEEN_MAX: usize = 10;

/// The names of all calls that have begun, each with whether it was made for the loop.
type Calls = Arc<Mutex<Vec<(&'static str, bool)>>>;

/// The agent's store from now on: each call takes its time.
fn slow_down(place: &mut Place) -> Calls {
    let calls = Calls::default();
    let made = Arc::clone(&calls);
    let before = move |method| {
        let is_of_loop = thread::current().name() == Some("store");
        made.lock().unwrap().push((method, is_of_loop));
        thread::sleep(CALL);
        Ok(())
    };
    let store = DirStore::open(&place.directory.path().join("store")).unwrap();
    let store = Timed::new(Box::new(Steered { store, before }), || {}).unwrap();
    place.agent.replace_store(Box::new(store.beating_every(INTERVAL)));
    calls
}

/// The calls of the loop before the first heartbeat, between each two, and after the last.
fn between_beats(calls: &Calls) -> Vec<usize> {
    let calls = calls.lock().unwrap();
    let of_loop = |part: &[(&str, bool)]| part.iter().filter(|(_, is_of_loop)| *is_of_loop).count();
    calls.split(|(method, _)| *method == "put_server").map(of_loop).collect()
}

/// A server that holds 'new', and whose heart has beaten.
fn holder() -> Place {
    let mut place = place();
    let us = ServerName::parse("nfs-b").unwrap();
    let claim = Claim::new(heirlock_core::Generation(1), &us, "agent", 0);
    let journal = Journal::quiet("run", &us, 0);
    let store = place.agent.store();
    heirlock_agent::agent::holdings::claim_first(store, &service("new"), &claim, StateNumber(1), &journal)
        .unwrap()
        .unwrap();
    beat(&mut place);
    place.turn();
    place
}

/// The agent beats now.
fn beat(place: &mut Place) {
    let now = place.agent.outside().now();
    place.agent.beat(now);
}

/// One turn of the agent's loop.
fn go_on(place: &mut Place) {
    let patience = place.agent.next_due().since(place.agent.outside().now());
    if let Ok(message) = place.messages.recv_timeout(patience) {
        place.agent.handle(message);
    }
    place.agent.do_what_is_due();
}

#[test]
fn the_heart_beats_on_a_slow_store_while_an_adoption_and_a_capture_are_made() {
    let mut place = holder();
    let calls = slow_down(&mut place);
    let now = place.agent.outside().now();
    place.agent.beat_at(now);
    place.turn();
    place.begin("nfs");
    while place.phase() != Some(Phase::Conveyed) {
        go_on(&mut place);
    }
    assert_eq!(place.claims("nfs"), 1);
    assert!(place.agent.held().contains_key(&service("nfs")));
    let line = format!("0100007f 000186b5 00000003 00000010 {:032x} 10.0.0.9 nfs-b\n", 9);
    fs::write(place.directory.path().join("nfs/sm/10.0.0.9"), line).unwrap();
    place.supersede();
    place.hint();
    // The adoption has begun the next generation of 'new' too: its lock manager is the same.
    let generation = place.agent.held()[&service("new")].claim.generation;
    let records = place.directory.path().join(format!("store/services/new/{generation}/sm"));
    while !records.join("10.0.0.9").exists() {
        go_on(&mut place);
    }
    let between = between_beats(&calls);
    let (all, most) = (between.iter().sum::<usize>(), between.iter().copied().max().unwrap());
    assert!(all > 2 * CALLS_BETWEEN_MAX, "it was no load: {between:?}");
    assert!(most <= CALLS_BETWEEN_MAX, "the heart stood still: {between:?}");
    // The first beat was too slow to be waited for, and told its result at the next.
    while place.agent.store_error().is_some() {
        go_on(&mut place);
    }
}

#[test]
fn a_beat_of_an_agent_at_rest_costs_the_loop_no_call_of_its_own_however_many_services_there_are() {
    let mut place = holder();
    // The first look after the start learns of what is not held.
    beat(&mut place);
    let calls = Calls::default();
    let made = Arc::clone(&calls);
    let before = move |method| {
        made.lock().unwrap().push((method, thread::current().name() == Some("store")));
        Ok(())
    };
    let store = DirStore::open(&place.directory.path().join("store")).unwrap();
    place.agent.replace_store(Box::new(Timed::new(Box::new(Steered { store, before }), || {}).unwrap()));
    for _ in 0..3 {
        beat(&mut place);
        assert!(place.agent.holdings_known() && place.agent.store_error().is_none());
    }
    let calls = calls.lock().unwrap();
    let of_loop: Vec<_> = calls.iter().filter(|(_, is_of_loop)| *is_of_loop).collect();
    assert!(of_loop.is_empty() && calls.iter().any(|(method, _)| *method == "newest_claim"), "{calls:?}");
}

#[test]
fn a_claim_that_another_server_makes_is_seen_by_the_look_of_the_next_beat() {
    let mut place = holder();
    let gate = crate::store::steered::Gate::default();
    let store = DirStore::open(&place.directory.path().join("store")).unwrap();
    place.agent.replace_store(Box::new(Timed::new(Box::new(gate.before(store)), || {}).unwrap()));
    // A look that hangs holds up no heart, and what was seen before holds good meanwhile.
    gate.shut(&["newest_claim"]);
    for _ in 0..3 {
        beat(&mut place);
        assert!(place.agent.holdings_known() && place.agent.store_error().is_none());
    }
    let other = ServerName::parse("nfs-c").unwrap();
    let before = DirStore::open(&place.directory.path().join("store")).unwrap();
    let claim = Claim::new(heirlock_core::Generation(2), &other, "another", 0);
    crate::store::Store::claim(&before, &service("new"), &claim).unwrap();
    gate.open();
    while place.agent.held().contains_key(&service("new")) {
        beat(&mut place);
    }
    assert_eq!(place.agent.others()[&service("new")].owner, other);
}
