//! Releases whose work hangs.

use heirlock_core::takeover::OutcomeLine;

use super::verbs::{Heard, adoption_of_new, asked};
use super::*;

/// Longer than any limit of a release.
const LONG: Duration = Duration::from_secs(1_000);

/// An agent that holds `new`, on a server that reports nothing of an address or a volume that is to be taken away.
fn holder_of_new() -> (InMemory, Agent<Here>) {
    let (store, mut agent) = begun();
    adopt(&store, &mut agent, None);
    agent.outside().world_mut().keeps_services = true;
    (store, agent)
}

fn release(agent: &mut Agent<Here>) -> Heard {
    asked(agent, Request::Release { service: service("new") })
}

/// Time passes until the caller is answered.
fn failure(agent: &mut Agent<Here>, heard: &Heard) -> String {
    let end = agent.outside().now() + LONG;
    while heard.answer().is_none() {
        agent.do_what_is_due();
        let due = agent.next_due();
        agent.outside().pass(due);
        assert!(agent.outside().now() < end, "the release has no limit");
        while let Some(message) = agent.outside().next() {
            agent.handle(message);
        }
    }
    heard.answer().unwrap().unwrap_err().message
}

/// What hung reports after all.
fn reports(agent: &mut Agent<Here>) {
    let news = agent.outside().world_mut().hanging.pop_front().unwrap();
    let number = agent.outside().world().number;
    agent.handle(Message::Of(number, news));
    agent.do_what_is_due();
}

#[test]
fn a_release_whose_volume_hangs_ends_and_its_service_is_left_alone_until_that_reports() {
    let (store, mut agent) = holder_of_new();
    let heard = release(&mut agent);
    reports(&mut agent); // its address is gone
    assert!(store.newest_claim(&service("new")).unwrap().unwrap().released);
    let why = failure(&mut agent, &heard);
    assert!(why.contains("new is released, but its volume was not taken away in time"), "{why}");
    // The volume may go at any moment.
    for request in [adoption_of_new(false, false), Request::Release { service: service("new") }] {
        let why = asked(&mut agent, request).answer().unwrap().unwrap_err().message;
        assert!(why.contains("its volume is still being taken away"), "{why}");
    }
    assert!(agent.is_releasing(&service("new")));
    reports(&mut agent);
    assert!(!agent.is_releasing(&service("new")));
    let again = release(&mut agent).answer().unwrap();
    assert!(matches!(&again, Ok(Answer::Verb { changed: false, .. })), "{again:?}");
}

#[test]
fn a_release_whose_address_hangs_fails_and_an_address_that_goes_later_gives_nothing_up() {
    let (store, mut agent) = holder_of_new();
    let heard = release(&mut agent);
    let why = failure(&mut agent, &heard);
    assert!(why.contains("new was not released: its address was not taken away in time"), "{why}");
    let again = release(&mut agent).answer().unwrap().unwrap_err().message;
    assert!(again.contains("its address is still being taken away"), "{again}");
    reports(&mut agent);
    assert!(!agent.is_releasing(&service("new")) && agent.held().any(|held| *held == service("new")));
    assert!(!store.newest_claim(&service("new")).unwrap().unwrap().released);
    // The next release is one of its own.
    let heard = release(&mut agent);
    agent.outside().world_mut().keeps_services = false;
    reports(&mut agent);
    let gone = agent.outside().next().unwrap();
    agent.handle(gone);
    assert!(matches!(heard.answer(), Some(Ok(Answer::Verb { changed: true, .. }))), "{:?}", heard.answer());
}

/// Messages are taken in and time passes, until this is so.
fn until(agent: &mut Agent<Here>, what: &str, is_so: impl Fn(&Agent<Here>) -> bool) {
    for _ in 0..5_000 {
        agent.do_what_is_due();
        if is_so(agent) {
            return;
        }
        match agent.outside().next() {
            Some(message) => agent.handle(message),
            None => {
                let due = agent.next_due();
                agent.outside().pass(due);
            }
        }
    }
    panic!("never: {what}");
}

#[test]
fn a_release_after_grace_says_of_clients_that_a_hanging_notifier_did_not_tell_that_they_are_lost() {
    let (store, mut agent) = begun();
    agent.outside().world_mut().notifier_hangs = true;
    until(&mut agent, "it knows what it holds", |agent| agent.is_at_rest() && agent.knows_its_holdings());
    ask(&mut agent);
    let phase = |agent: &Agent<Here>| agent.journal_of(&service("new")).map(|journal| journal.phase);
    until(&mut agent, "it tells", |agent| phase(agent) == Some(Phase::Notifying));
    let generation = agent.claim_of(&service("new")).unwrap().generation;
    let grace_ends = agent.outside().world().life_began + GRACE;
    until(&mut agent, "grace is over", |agent| agent.outside().now() >= grace_ends);
    assert_eq!(phase(&agent), Some(Phase::Notifying), "the notifier may report yet");
    // From now on another client can have their locks, and the next owner does not know that.
    let released = release(&mut agent);
    until(&mut agent, "it is released", |_| released.answer().is_some());
    let Contents { outcomes, records, .. } = store.load(&service("new"), generation).unwrap();
    let lost = outcomes.iter().filter(|line| line.outcome == Outcome::Lost && line.why.is_some());
    let told: BTreeSet<MonName> = lost.filter_map(OutcomeLine::key).collect();
    assert_eq!(told, records.clients().cloned().collect(), "{outcomes:?}");
    assert_eq!((told.len(), outcomes.len()), (2, 2));
}
