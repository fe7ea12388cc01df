//! An adoption that is prepared, and waits for another program to bring the address up.

use super::verbs::{Heard, adoption_of_new, asked};
use super::*;
use crate::control::report::{AdoptionReport, TenureReport};

/// `new` is prepared; the store knows no client of it unless it is said to.
fn prepared(has_clients: bool) -> (InMemory, Agent<Here>, Heard) {
    let (store, mut agent) = begun();
    if !has_clients {
        let claim = Claim::new(Generation(2), &"nfs-a".parse().unwrap(), "run-a", 0);
        let contents = Contents { state: Some(StateNumber(9)), ..Contents::default() };
        store.claim(&service("new"), &claim).unwrap();
        store.begin_generation(&service("new"), Generation(2), &contents).unwrap();
    }
    agent.do_what_is_due();
    let request = Request::Adopt {
        service: service("new"),
        prepare: true,
        finish: false,
        fenced: None,
        force: true,
        answer_when: AnswerWhen::Settled,
    };
    let heard = asked(&mut agent, request);
    until(&mut agent, "it is prepared", |_| heard.answer().is_some());
    (store, agent, heard)
}

fn report(heard: &Heard) -> AdoptionReport {
    match heard.answer() {
        Some(Ok(Answer::Adoption(report))) => *report,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_prepared_adoption_says_how_long_grace_stays_open_and_until_when_it_waits() {
    let (_, mut agent, heard) = prepared(true);
    let told = report(&heard);
    assert_eq!(told.phase, "prepared");
    let (grace, margin) = (GRACE.as_millis(), Duration::from_secs(5).as_millis());
    assert_eq!(told.grace_left_ms.map(u128::from), Some(grace));
    assert_eq!(told.finish_within_ms.map(u128::from), Some(grace - margin));
    let later = agent.outside().now() + Duration::from_secs(3);
    agent.outside().pass(later);
    let again = report(&asked(&mut agent, adoption_of_new(true, false)));
    assert_eq!(again.grace_left_ms.map(u128::from), Some(grace - 3_000));
    let finished = asked(&mut agent, adoption_of_new(false, true));
    until(&mut agent, "it settles", |_| finished.answer().is_some());
    let settled = report(&finished);
    assert_eq!((settled.grace_left_ms, settled.finish_within_ms), (None, None));
}

#[test]
fn an_adoption_that_was_never_finished_has_failed_wherever_it_is_shown() {
    for has_clients in [true, false] {
        let (store, mut agent, _) = prepared(has_clients);
        until(&mut agent, "its time is up", Agent::is_at_rest);
        let journal = agent.journal_of(&service("new")).unwrap();
        assert!(journal.failure.is_some(), "{journal:?}");
        let status = agent.status();
        let shown = status.services.iter().find(|status| status.service == "new").unwrap();
        assert_eq!(shown.phase.as_deref(), Some("failed"), "{has_clients}");
        assert_eq!(shown.lost, if has_clients { 2 } else { 0 });
        let asked_for = asked(&mut agent, Request::Report { service: service("new") });
        let told = report(&asked_for);
        assert_eq!((told.phase.as_str(), told.failure.is_some()), ("failed", true), "{has_clients}");
        let present = crate::survey::present::look(&store, &"nfs-b".parse().unwrap()).unwrap();
        let mut without_agent = StatusReport::without_agent("nfs-b", "a store");
        crate::survey::present::add(&mut without_agent, present);
        let shown = without_agent.services.iter().find(|status| status.service == "new").unwrap();
        assert_eq!(shown.phase.as_deref(), Some("failed"), "{has_clients}");
        let (tenures, _) = crate::survey::past::history(&store, &service("new")).unwrap();
        let phases: Vec<Phase> = tenures.iter().map(|tenure| TenureReport::from(tenure).phase).collect();
        assert_eq!(phases[0], Phase::Failed, "{has_clients}: {phases:?}");
    }
}
