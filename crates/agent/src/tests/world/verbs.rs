//! Verbs that are said again, or of a service that needs nothing.

use std::sync::OnceLock;

use super::*;
use crate::control::{Answer, Failure, Progress, Respond};

/// The answer to a caller, once it was given.
#[derive(Debug, Default, Clone)]
struct Heard(Arc<OnceLock<Result<Answer, Failure>>>);

impl Respond for Heard {
    fn progress(&mut self, _: &Progress) -> bool {
        true
    }

    fn end(self: Box<Self>, answer: Result<Answer, Failure>) {
        self.0.set(answer).unwrap();
    }
}

/// The answer that is given at once.
fn answer_at_once(agent: &mut Agent<World>, request: Request) -> Result<Answer, Failure> {
    let heard = Heard::default();
    agent.handle(Message::Request(Box::new(request), Responder::new(heard.clone())));
    heard.0.get().expect("an answer at once").clone()
}

fn adoption_of_new(prepare: bool, finish: bool) -> Request {
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
    let begun = agent.outside().begun.len();
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
    assert_eq!(agent.outside().begun.len(), begun, "nothing is begun anew");
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
    let mut agent = Agent::new(Arc::new(at_home), Box::new(store), world).unwrap();
    agent.take_up();
    for _ in 0..50 {
        agent.do_what_is_due();
        let due = agent.next_due();
        let world = agent.outside_mut();
        world.now = due.max(world.now + Duration::from_millis(1));
        world.look_at_lock_manager();
        while let Some(message) = agent.outside_mut().said.pop_front() {
            agent.handle(message);
        }
    }
    assert!(agent.held().any(|held| *held == service("new")));
    for (prepare, finish) in [(true, false), (false, true)] {
        let done = answer_at_once(&mut agent, adoption_of_new(prepare, finish));
        assert!(matches!(&done, Ok(Answer::Verb { changed: false, .. })), "{done:?}");
    }
    assert_eq!(agent.outside().begun, [] as [&str; 0]);
}

#[test]
fn a_failback_whose_needs_are_not_looked_at_in_time_is_refused_and_may_be_asked_for_again() {
    let (store, _) = begun();
    let mut at_home = (*settings(false)).clone();
    at_home.services[0].home = Some(at_home.server.clone());
    let world = World { now: Moment::of_process(Duration::ZERO), life: 1, ..World::default() };
    let mut agent = Agent::new(Arc::new(at_home), Box::new(store), world).unwrap();
    agent.take_up();
    let heard = Heard::default();
    let request = Request::Failback { service: service("new"), answer_when: AnswerWhen::Settled };
    agent.handle(Message::Request(Box::new(request), Responder::new(heard.clone())));
    let until = agent.outside().now + crate::limits::GIVE_UP_TIME_MAX + Duration::from_secs(2);
    while agent.outside().now < until {
        agent.do_what_is_due();
        let due = agent.next_due();
        let world = agent.outside_mut();
        world.now = due.max(world.now + Duration::from_millis(1));
        world.look_at_lock_manager();
        while let Some(message) = agent.outside_mut().said.pop_front() {
            if !matches!(message, Message::HomeLookedFor(..)) {
                agent.handle(message);
            }
        }
    }
    let Some(Err(failure)) = heard.0.get() else { panic!("{heard:?}") };
    assert!(failure.refused && failure.message.contains("its owner was not asked"), "{failure:?}");
    assert!(agent.is_at_rest(), "it may be asked for again");
}

/// An agent of nfs-b that holds `new` and was asked to release it; the work for that is begun, and does not report.
fn releasing(agent: &mut Agent<World>, kind: fn(&Message) -> bool) -> (Heard, Message) {
    let heard = Heard::default();
    let request = Request::Release { service: service("new") };
    agent.handle(Message::Request(Box::new(request), Responder::new(heard.clone())));
    loop {
        let message = agent.outside_mut().said.pop_front().unwrap();
        if kind(&message) {
            return (heard, message);
        }
        agent.handle(message);
    }
}

/// Lets time pass until a release that hangs is ended.
fn until_hung_work_is_given_up(agent: &mut Agent<World>) {
    let until = agent.outside().now + crate::limits::WORK_SLACK + Duration::from_secs(20);
    while agent.outside().now < until {
        agent.do_what_is_due();
        let due = agent.next_due();
        let world = agent.outside_mut();
        world.now = due.max(world.now + Duration::from_millis(1));
        world.look_at_lock_manager();
        while let Some(message) = agent.outside_mut().said.pop_front() {
            agent.handle(message);
        }
    }
}

#[test]
fn a_release_whose_address_is_not_taken_away_in_time_is_ended_and_a_late_report_gives_nothing_up() {
    let (store, mut agent) = begun();
    adopt(&store, &mut agent, None);
    let (heard, late) = releasing(&mut agent, |message| matches!(message, Message::AddressGone(..)));
    until_hung_work_is_given_up(&mut agent);
    let Some(Err(failure)) = heard.0.get() else { panic!("{heard:?}") };
    assert!(failure.message.contains("its address was not taken away in time"), "{failure:?}");
    assert!(agent.is_at_rest(), "its clients are told again where that is owed");
    agent.handle(late);
    assert!(!store.newest_claim(&service("new")).unwrap().unwrap().released);
}

#[test]
fn a_release_whose_volume_is_not_taken_away_in_time_is_answered_and_is_over_when_that_work_ends() {
    let (store, mut agent) = begun();
    adopt(&store, &mut agent, None);
    let (heard, late) = releasing(&mut agent, |message| matches!(message, Message::VolumeGone(..)));
    until_hung_work_is_given_up(&mut agent);
    let Some(Err(failure)) = heard.0.get() else { panic!("{heard:?}") };
    assert!(failure.message.contains("its volume was not taken away in time"), "{failure:?}");
    assert!(
        agent.is_releasing(&service("new")),
        "that work would take the locks of a service that is adopted here"
    );
    agent.handle(late);
    assert!(agent.is_at_rest(), "it may be adopted here again");
}
