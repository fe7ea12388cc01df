//! Releases whose work hangs.

use heirlock_core::store::StoreErrorKind;

use super::troubled::{Fault, Faults, Troubled};
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

/// Time passes, or a message comes.
fn turn(agent: &mut Agent<Here>) {
    agent.do_what_is_due();
    take_in_next(agent);
}

/// An adoption of `new` that has come so far, and its caller.
fn adopting(until: Phase) -> (InMemory, Agent<Here>, Heard) {
    let (store, mut agent) = begun();
    agent.do_what_is_due();
    let adoption = asked(&mut agent, insisting());
    for _ in 0..1_000 {
        if phase(&agent) == Some(until) {
            return (store, agent, adoption);
        }
        turn(&mut agent);
    }
    panic!("it is never {until}: {:?}", phase(&agent));
}

#[test]
fn a_release_that_is_asked_for_while_the_lock_manager_is_restarted_begins_by_itself_after_that() {
    for at in
        [Phase::Claimed, Phase::Conveyed, Phase::Recognised, Phase::Proved, Phase::Notifying, Phase::Settling]
    {
        let (store, mut agent, adoption) = adopting(at);
        let began = agent.outside().now();
        let heard = [release(&mut agent), release(&mut agent)];
        let is_restarting = matches!(at, Phase::Claimed | Phase::Conveyed);
        assert!(heard[0].answer().is_none(), "{at}: {heard:?}");
        if is_restarting {
            let why = asked(&mut agent, adoption_of_new(false, false)).answer().unwrap().unwrap_err().message;
            assert!(why.contains("the lock manager is being restarted"), "{why}");
        }
        while heard.iter().any(|heard| heard.answer().is_none()) {
            turn(&mut agent);
            let took = agent.outside().now().since(began);
            assert!(took < Duration::from_secs(5), "{at}: {took:?}");
        }
        for heard in &heard {
            assert!(
                matches!(heard.answer(), Some(Ok(Answer::Verb { changed: true, .. }))),
                "{at}: {heard:?}"
            );
        }
        assert!(store.newest_claim(&service("new")).unwrap().unwrap().released, "{at}");
        while adoption.answer().is_none() {
            turn(&mut agent);
        }
        assert!(!agent.held().any(|held| *held == service("new")), "{at}");
    }
}

#[test]
fn a_release_that_waits_for_a_run_which_never_reports_fails_at_the_time_limit_of_that() {
    let (store, mut agent, _) = adopting(Phase::Conveyed);
    let heard = release(&mut agent);
    let end = agent.outside().now() + LONG;
    // The lock manager hangs: it never reports that it has recognised.
    while heard.answer().is_none() {
        agent.do_what_is_due();
        match agent.outside().next() {
            Some(Message::Of(_, News::Recognised(..))) => {}
            Some(message) => agent.handle(message),
            None => {
                let due = agent.next_due();
                agent.outside().pass(due);
            }
        }
        assert!(agent.outside().now() < end, "it has no limit");
    }
    // The run has failed by then, and what it claimed is given up.
    assert!(matches!(heard.answer(), Some(Ok(Answer::Verb { changed: true, .. }))), "{heard:?}");
    assert!(store.newest_claim(&service("new")).unwrap().unwrap().released);
}

#[test]
fn clients_of_a_service_whose_release_hangs_are_told_of_a_restart_of_nfs_as_long_as_its_address_is_here() {
    let (store, mut agent) = holder_of_new();
    let [client, other] = clients();
    agent.outside().world_mut().registered.insert(other.clone(), record(&other));
    agent.outside().world_mut().hinted = true;
    goes_on(&mut agent, Duration::from_secs(2));
    let adopted = agent.claim_of(&service("new")).unwrap().generation;
    let heard = release(&mut agent);
    goes_on(&mut agent, Duration::from_secs(2));
    agent.outside().world_mut().told.clear();
    agent.outside().world_mut().registered.clear();
    agent.outside().world_mut().restart_nfs();
    goes_on(&mut agent, GRACE + Duration::from_secs(10));
    assert!(agent.is_releasing(&service("new")) && heard.answer().is_none(), "its release is on still");
    let journal = agent.journal_of(&service("new")).unwrap();
    assert_eq!((journal.phase, journal.failure.as_deref()), (Phase::Settled, None));
    let told: BTreeSet<MonName> = agent.outside().world().told.iter().cloned().collect();
    assert_eq!(told, clients().into());
    let held = agent.claim_of(&service("new")).unwrap().generation;
    assert!(held > adopted);
    // The other one has answered and not come back: it may be on its way when the address goes.
    let records = store.load(&service("new"), held).unwrap().records;
    assert!(records.contains_key(&client) && records.contains_key(&other), "{records:?}");
    // Its address goes at last, in time, and the next server tells them once more.
    agent.outside().world_mut().keeps_services = false;
    reports(&mut agent);
    goes_on(&mut agent, Duration::from_secs(1));
    assert!(matches!(heard.answer(), Some(Ok(Answer::Verb { changed: true, .. }))), "{:?}", heard.answer());
    let claim = store.newest_claim(&service("new")).unwrap().unwrap();
    assert_eq!((claim.generation, claim.released), (held, true));
}

#[test]
fn clients_of_a_service_whose_address_is_gone_are_told_of_a_restart_of_nfs_by_its_next_server_alone() {
    let (store, mut agent) = holder_of_new();
    let faults = Faults::default();
    agent = again(&agent, Box::new(Troubled::new(&store, &faults)));
    // No heartbeat comes between the end of the address and the restart.
    goes_on(&mut agent, Duration::from_millis(2_500));
    let adopted = agent.claim_of(&service("new")).unwrap().generation;
    let heard = release(&mut agent);
    // A call that takes too long keeps the claim from being given up.
    faults.add(Fault { kind: StoreErrorKind::TimedOut, ..Fault::of(&service("new"), &["release"]) });
    reports(&mut agent);
    agent.outside().world_mut().told.clear();
    agent.outside().world_mut().restart_nfs();
    agent.outside().world_mut().look_at_lock_manager();
    goes_on(&mut agent, Duration::from_secs(5));
    assert!(heard.answer().is_none(), "{:?}", heard.answer());
    assert_eq!(agent.claim_of(&service("new")).unwrap().generation, adopted, "no run begins for it");
    assert_eq!(agent.outside().world().told, clients()[..1], "as a client of what its server serves itself");
    faults.mend();
    agent.handle(Message::StoreAnswers);
    assert!(store.newest_claim(&service("new")).unwrap().unwrap().released);
    assert!(store.load(&service("new"), adopted).unwrap().records.contains_key(&clients()[0]));
}

#[test]
fn a_release_after_grace_says_of_clients_that_a_hanging_notifier_did_not_tell_that_they_are_lost() {
    let (store, mut agent) = begun();
    agent.outside().world_mut().notifier_hangs = true;
    until(&mut agent, "it knows what it holds", |agent| agent.is_at_rest() && agent.knows_its_holdings());
    ask(&mut agent);
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
    let told: BTreeSet<MonName> = lost.map(|line| line.client.client().clone()).collect();
    assert_eq!(told, records.clients().cloned().collect(), "{outcomes:?}");
    assert_eq!((told.len(), outcomes.len()), (2, 2));
}

/// A release whose address is gone, on a store that meets this fault from then on.
fn released_with(fault: Fault) -> (InMemory, Faults, Agent<Here>, Heard) {
    let (store, agent) = holder_of_new();
    let faults = Faults::default();
    let mut agent = again(&agent, Box::new(Troubled::new(&store, &faults)));
    goes_on(&mut agent, Duration::from_millis(2_500));
    let heard = release(&mut agent);
    faults.add(fault);
    agent.outside().world_mut().keeps_services = false;
    reports(&mut agent);
    (store, faults, agent, heard)
}

#[test]
fn a_claim_whose_giving_up_fails_with_a_call_of_the_store_is_given_up_once_the_store_works_again() {
    for (call, is_done) in
        [(&["load"] as &[&str], false), (&["commit"], false), (&["release"], false), (&["release"], true)]
    {
        let what = format!("{call:?}, done: {is_done}");
        let fault = Fault { is_done, ..Fault::of(&service("new"), call) };
        let (store, faults, mut agent, heard) = released_with(fault);
        goes_on(&mut agent, Duration::from_secs(20));
        assert!(heard.answer().is_none(), "{what}: {:?}", heard.answer());
        faults.mend();
        goes_on(&mut agent, Duration::from_secs(2));
        let answer = heard.answer();
        assert!(matches!(answer, Some(Ok(Answer::Verb { changed: true, .. }))), "{what}: {answer:?}");
        assert!(store.newest_claim(&service("new")).unwrap().unwrap().released, "{what}");
        assert!(!agent.held().any(|held| *held == service("new")), "{what}");
    }
}

#[test]
fn a_release_fails_with_the_error_of_a_store_that_fails_for_too_long_or_for_good() {
    for (kind, at_once) in [(StoreErrorKind::Unavailable, false), (StoreErrorKind::Unexpected, true)] {
        let fault = Fault { kind, ..Fault::of(&service("new"), &["release"]) };
        let (store, _, mut agent, heard) = released_with(fault);
        assert_eq!(heard.answer().is_some(), at_once, "{:?}", heard.answer());
        goes_on(&mut agent, Duration::from_secs(29));
        assert_eq!(heard.answer().is_some(), at_once, "{:?}", heard.answer());
        goes_on(&mut agent, Duration::from_secs(3));
        let why = heard.answer().unwrap().unwrap_err().message;
        assert!(
            why.contains("new was not released: ") && why.contains("the store of the test fails"),
            "{why}"
        );
        assert!(agent.held().any(|held| *held == service("new")), "it stays here");
        assert!(!store.newest_claim(&service("new")).unwrap().unwrap().released);
    }
}
