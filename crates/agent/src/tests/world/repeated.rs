//! Verbs that are said again while the run that they ask for is on.

use super::verbs::{Heard, adoption_of_new, asked};
use super::*;

/// The operator insists on the adoption of `new`, as far as that.
fn insisting(prepare: bool, answer_when: AnswerWhen) -> Request {
    Request::Adopt { service: service("new"), prepare, finish: false, fenced: None, force: true, answer_when }
}

fn has_begun(agent: &Agent<Here>, work: &str) -> usize {
    agent.outside().world().begun.iter().filter(|begun| *begun == work).count()
}

/// The phase that the caller is told of, once it is answered.
fn told(heard: &Heard) -> Option<String> {
    match heard.answer()? {
        Ok(Answer::Adoption(report)) => Some(report.phase),
        other => panic!("{other:?}"),
    }
}

/// An adoption of `new` was asked for in this way, and has claimed it.
fn claimed(request: Request) -> (InMemory, Agent<Here>, Heard) {
    let (store, mut agent) = begun();
    agent.do_what_is_due();
    let first = asked(&mut agent, request);
    until(&mut agent, "it is claimed", |agent| phase(agent).is_some());
    assert_eq!(has_begun(&agent, "prove"), 0, "grace is not proved yet");
    (store, agent, first)
}

#[test]
fn a_prepare_that_is_said_while_a_whole_adoption_is_on_is_answered_when_grace_is_proved() {
    let (_, mut agent, first) = claimed(insisting(false, AnswerWhen::Settled));
    let again = asked(&mut agent, adoption_of_new(true, false));
    assert_eq!(told(&again), None, "nothing is prepared yet");
    until(&mut agent, "it is answered", |_| again.answer().is_some());
    assert_eq!((told(&again).as_deref(), has_begun(&agent, "tell")), (Some("proved"), 0));
    until(&mut agent, "it settles", |_| first.answer().is_some());
    assert_eq!(told(&first).as_deref(), Some("settled"));
}

#[test]
fn a_whole_adoption_that_is_asked_for_before_one_is_prepared_does_not_stop_there() {
    for (again, is_accepted) in [
        (insisting(false, AnswerWhen::Settled), false),
        (insisting(false, AnswerWhen::Accepted), true),
        (adoption_of_new(false, true), false),
    ] {
        let (_, mut agent, first) = claimed(insisting(true, AnswerWhen::Settled));
        let again = asked(&mut agent, again);
        until(&mut agent, "it settles", |agent| phase(agent) == Some(Phase::Settled));
        until(&mut agent, "all is said", |agent| agent.is_at_rest() && again.answer().is_some());
        let expected = if is_accepted { "conveyed" } else { "settled" };
        assert!(told(&again).is_some_and(|phase| is_accepted || phase == expected), "{again:?}");
        assert_eq!(told(&first).as_deref(), Some("proved"), "the first one asked for no more");
        assert_eq!(has_begun(&agent, "command"), 1);
    }
}

#[test]
fn a_prepare_that_is_said_to_the_next_agent_is_answered_when_it_has_proved_grace_anew() {
    let (store, mut agent, _) = claimed(insisting(false, AnswerWhen::Settled));
    until(&mut agent, "clients are told", |agent| has_begun(agent, "tell") == 1);
    let mut world = agent.outside().take();
    world.said.clear();
    let mut agent = taken_up(&store, world);
    until(&mut agent, "it goes on with the run", |agent| agent.run_count() > 0);
    let again = asked(&mut agent, adoption_of_new(true, false));
    until(&mut agent, "it is answered", |_| again.answer().is_some());
    assert_ne!(phase(&agent), Some(Phase::Settled), "it waits for no client");
}

/// The lock manager is restarted by somebody else, and the clients of what is held here are being told of it.
fn recovering() -> (InMemory, Agent<Here>) {
    let (store, mut agent) = begun();
    adopt(&store, &mut agent, None);
    {
        let mut world = agent.outside().world_mut();
        (world.life, world.life_began) = (world.life + 1, world.now);
        world.begun.clear();
        world.look_at_lock_manager();
    }
    until(&mut agent, "they are told", |agent| has_begun(agent, "tell") > 0);
    (store, agent)
}

#[test]
fn an_adoption_of_a_service_whose_clients_a_self_adoption_tells_waits_for_that_and_restarts_nothing() {
    let (_, mut agent) = recovering();
    let prepared = asked(&mut agent, adoption_of_new(true, false));
    let report = prepared.answer().unwrap().unwrap();
    assert!(matches!(&report, Answer::Adoption(report) if report.changed == Some(false)), "{report:?}");
    let whole = asked(&mut agent, adoption_of_new(false, false));
    let finished = asked(&mut agent, adoption_of_new(false, true));
    assert!(whole.answer().is_none() && finished.answer().is_none());
    until(&mut agent, "it settles", |agent| phase(agent) == Some(Phase::Settled) && agent.is_at_rest());
    assert_eq!([told(&whole), told(&finished)], [Some("settled".to_owned()), Some("settled".to_owned())]);
    assert_eq!((has_begun(&agent, "command"), has_begun(&agent, "check")), (0, 0), "it is adopted already");
}

#[test]
fn an_operator_that_insists_adopts_also_what_a_self_adoption_tells() {
    let (_, mut agent) = recovering();
    let insisted = asked(&mut agent, insisting(false, AnswerWhen::Settled));
    until(&mut agent, "it settles", |_| insisted.answer().is_some());
    assert_eq!(has_begun(&agent, "command"), 1);
}
