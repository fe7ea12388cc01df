//! Verbs that are said again, or of a service that needs nothing.

use std::sync::OnceLock;

use super::*;
use crate::control::{Answer, Failure, Progress, Respond};

/// The answer to a caller, once it was given.
#[derive(Debug, Default, Clone)]
pub(super) struct Heard(Arc<OnceLock<Result<Answer, Failure>>>);

impl Heard {
    /// The answer, where there is one by now.
    pub(super) fn answer(&self) -> Option<Result<Answer, Failure>> {
        self.0.get().cloned()
    }
}

impl Respond for Heard {
    fn progress(&mut self, _: &Progress) -> bool {
        true
    }

    fn end(self: Box<Self>, answer: Result<Answer, Failure>) {
        self.0.set(answer).unwrap();
    }
}

/// The answer that is given at once.
fn answer_at_once(agent: &mut Agent<Here>, request: Request) -> Result<Answer, Failure> {
    asked(agent, request).answer().expect("an answer at once")
}

/// Asks, and says where the answer will be.
pub(super) fn asked(agent: &mut Agent<Here>, request: Request) -> Heard {
    let heard = Heard::default();
    agent.handle(Message::Request(Box::new(request), Responder::new(heard.clone())));
    heard
}

pub(super) fn adoption_of_new(prepare: bool, finish: bool) -> Request {
    Request::Adopt {
        service: service("new"),
        prepare,
        finish,
        fenced: None,
        force: false,
        answer_when: AnswerWhen::Settled,
    }
}

#[test]
fn a_verb_that_is_said_again_after_an_adoption_succeeds_at_once_and_changes_nothing() {
    let (store, mut agent) = begun();
    adopt(&store, &mut agent, None);
    let begun = agent.outside().world().begun.len();
    for (prepare, finish) in [(false, false), (true, false), (false, true)] {
        let Ok(Answer::Adoption(report)) = answer_at_once(&mut agent, adoption_of_new(prepare, finish))
        else {
            panic!("{prepare} {finish}")
        };
        let told = (report.phase.as_str(), report.re_registered, report.acknowledged);
        assert_eq!((report.changed, told), (Some(false), ("settled", 1, 2)));
    }
    for (on, changes) in [(true, true), (true, false), (false, true), (false, false)] {
        let done = answer_at_once(&mut agent, Request::Maintenance { on });
        assert!(matches!(&done, Ok(Answer::Verb { changed, .. }) if *changed == changes), "{done:?}");
    }
    assert_eq!(agent.outside().world().begun.len(), begun, "nothing is begun anew");
    let Ok(Answer::Adoption(report)) =
        answer_at_once(&mut agent, Request::Report { service: service("new") })
    else {
        panic!()
    };
    assert_eq!(report.changed, None, "a report is no verb that does anything");
}

#[test]
fn a_service_that_its_home_has_claimed_first_is_prepared_and_finished_without_a_change() {
    let store = InMemory::new(StoreIdentity::of(7));
    let mut at_home = (*settings(false)).clone();
    at_home.services[0].home = Some(at_home.server.clone());
    let world = World { now: Moment::of_process(Duration::ZERO), life: 1, ..World::default() };
    let mut agent = started(Arc::new(at_home), &store, world);
    agent.take_up();
    for _ in 0..50 {
        agent.do_what_is_due();
        let due = agent.next_due();
        agent.outside().pass(due);
        while let Some(message) = agent.outside().next() {
            agent.handle(message);
        }
    }
    assert!(agent.held().any(|held| *held == service("new")));
    for (prepare, finish) in [(true, false), (false, true)] {
        let done = answer_at_once(&mut agent, adoption_of_new(prepare, finish));
        assert!(matches!(&done, Ok(Answer::Verb { changed: false, .. })), "{done:?}");
    }
    assert_eq!(agent.outside().world().begun, [] as [&str; 0]);
}

#[test]
fn a_failback_whose_needs_are_not_looked_at_in_time_is_refused_and_may_be_asked_for_again() {
    let (store, _) = begun();
    let mut at_home = (*settings(false)).clone();
    at_home.services[0].home = Some(at_home.server.clone());
    let here = Here::of(World { now: Moment::of_process(Duration::ZERO), life: 1, ..World::default() });
    let mut agent = Agent::new(Arc::new(at_home), Box::new(store), here.clone(), vec![here]).unwrap();
    agent.take_up();
    let request = Request::Failback { service: service("new"), answer_when: AnswerWhen::Settled };
    let heard = asked(&mut agent, request);
    let until = agent.outside().now() + crate::limits::GIVE_UP_TIME_MAX + Duration::from_secs(2);
    while agent.outside().now() < until {
        agent.do_what_is_due();
        let due = agent.next_due();
        agent.outside().pass(due);
        while let Some(message) = agent.outside().next() {
            if !matches!(message, Message::Of(_, News::HomeLookedFor(..))) {
                agent.handle(message);
            }
        }
    }
    let Some(Err(failure)) = heard.answer() else { panic!("{heard:?}") };
    assert!(failure.refused && failure.message.contains("its owner was not asked"), "{failure:?}");
    assert!(agent.is_at_rest(), "it may be asked for again");
}

#[test]
fn a_release_ends_an_adoption_that_has_claimed_nothing_yet() {
    let (store, mut agent) = begun();
    agent.do_what_is_due();
    assert!(agent.knows_its_holdings());
    let insisting = Request::Adopt {
        service: service("new"),
        prepare: true,
        finish: false,
        fenced: None,
        force: true,
        answer_when: AnswerWhen::Settled,
    };
    let adoption = asked(&mut agent, insisting);
    assert!(adoption.answer().is_none(), "its needs are being looked for");
    let released = answer_at_once(&mut agent, Request::Release { service: service("new") });
    assert!(matches!(&released, Ok(Answer::Verb { changed: true, .. })), "{released:?}");
    let why = adoption.answer().unwrap().unwrap_err();
    assert!(why.refused && why.message.contains("released before it was claimed"), "{why:?}");
    // The needs are found after that.
    while let Some(message) = agent.outside().next() {
        agent.handle(message);
    }
    agent.do_what_is_due();
    let claim = store.newest_claim(&service("new")).unwrap().unwrap();
    assert_eq!((claim.generation, claim.owner.as_str()), (Generation(1), "nfs-a"), "it was not claimed here");
    let again = answer_at_once(&mut agent, Request::Release { service: service("new") });
    assert!(matches!(&again, Ok(Answer::Verb { changed: false, .. })), "{again:?}");
}
