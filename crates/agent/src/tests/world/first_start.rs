//! A service that no server ever claimed: its first start disturbs no client of this server.

use heirlock_core::takeover::Journal;

use super::verbs::{Heard, adoption_of_new, asked};
use super::*;

/// A store that knows of no service, and an agent whose lock manager has a client already.
fn begun_with_a_client() -> (InMemory, Agent<Here>) {
    let store = InMemory::new(StoreIdentity::of(7));
    let [client, _] = clients();
    let registered = [(client.clone(), record(&client))].into();
    let world = World { now: Moment::of_process(Duration::ZERO), life: 1, registered, ..World::default() };
    let mut agent = taken_up(&store, world);
    // Its grace is over long since.
    agent.outside().pass(Moment::of_process(GRACE * 10));
    until(&mut agent, "it has captured its client, and knows that its locks live", |agent| {
        let is_known = |journal: &Journal| journal.life.is_some();
        agent.ledger_of(&host()).is_some_and(|ledger| ledger.stored().len() == 1)
            && agent.journal_of(&host()).is_some_and(is_known)
    });
    (store, agent)
}

fn report(heard: &Heard) -> crate::control::report::AdoptionReport {
    match heard.answer() {
        Some(Ok(Answer::Adoption(report))) => *report,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_first_start_restarts_no_lock_manager_and_leaves_its_clients_in_peace() {
    let (store, mut agent) = begun_with_a_client();
    let held = agent.claim_of(&host()).unwrap().generation;
    let prepared = asked(&mut agent, adoption_of_new(true, false));
    until(&mut agent, "it is prepared", |_| prepared.answer().is_some());
    assert_eq!(report(&prepared).phase, "prepared");
    let finished = asked(&mut agent, adoption_of_new(false, true));
    until(&mut agent, "it settles", |_| finished.answer().is_some());
    let report = report(&finished);
    assert_eq!((report.phase.as_str(), report.failure, report.clients), ("settled", None, 0));
    let world = agent.outside();
    assert_eq!(world.world().begun, ["check", "place", "notify", "bring up", "tell"]);
    assert_eq!(world.world().told, [] as [MonName; 0]);
    assert_eq!(agent.claim_of(&host()).unwrap().generation, held, "it was not claimed anew");
    let [client, _] = clients();
    until(&mut agent, "the client is on record for the new service", |agent| {
        let held = agent.claim_of(&service("new")).unwrap().generation;
        store.record(&service("new"), held, &client.clone().into()).is_some()
    });
    let again = asked(&mut agent, adoption_of_new(true, false));
    assert!(matches!(again.answer(), Some(Ok(_))), "it is adopted: {again:?}");
}

#[test]
fn an_agent_that_is_killed_in_a_first_start_leaves_one_that_loses_no_client() {
    let mut finished = 0;
    for killed_after in 1..40 {
        let (store, mut agent) = begun_with_a_client();
        let _ = asked(&mut agent, adoption_of_new(false, false));
        for _ in 0..killed_after {
            agent.do_what_is_due();
            if let Some(message) = agent.outside().next() {
                agent.handle(message);
            }
        }
        finished += usize::from(agent.journal_of(&service("new")).is_some_and(|j| j.phase == Phase::Settled));
        let mut world = agent.outside().take();
        world.said.clear();
        let mut agent = taken_up(&store, world);
        until(&mut agent, "all is settled", |agent| {
            agent.knows_its_holdings() && agent.is_at_rest() && agent.owes_nothing()
        });
        for held in agent.held().cloned().collect::<Vec<_>>() {
            let generation = agent.claim_of(&held).unwrap().generation;
            let outcomes = store.account(&held, generation).unwrap().outcomes;
            let lost = last_outcomes(&outcomes).values().filter(|line| !line.outcome.is_good()).count();
            assert_eq!(lost, 0, "{killed_after}: {outcomes:?}");
        }
    }
    assert!(finished > 0, "never killed after the end");
}
