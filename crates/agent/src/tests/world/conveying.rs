//! A status monitor's directory that hangs while records are placed there, or taken away.

use std::sync::{Mutex, PoisonError};

use heirlock_core::takeover::Milestone;

use super::*;
use crate::control::report::AdoptionReport;
use crate::control::{Answer, Failure, Progress, Respond};
use crate::limits::{PLACED_TIME_MAX, TAKEN_AWAY_TIME_MAX};

/// Turns of the loop until something comes about: some for each heartbeat of some minutes. A loop that spins takes more.
const TURNS_MAX: usize = 2_000;

/// The answer, once it was given.
type Heard = Arc<Mutex<Option<Result<Answer, Failure>>>>;

#[derive(Debug)]
struct Listener(Heard);

impl Respond for Listener {
    fn progress(&mut self, _: &Progress) -> bool {
        true
    }

    fn end(self: Box<Self>, answer: Result<Answer, Failure>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }
}

fn ask_for(agent: &mut Agent<Here>, request: Request) -> Heard {
    let heard = Heard::default();
    agent.handle(Message::Request(Box::new(request), Responder::new(Listener(Arc::clone(&heard)))));
    heard
}

fn adopt_until(agent: &mut Agent<Here>, answer_when: AnswerWhen) -> Heard {
    let (prepare, finish, fenced, force) = (false, false, None, true);
    let service = service("new");
    ask_for(agent, Request::Adopt { service, prepare, finish, fenced, force, answer_when })
}

fn answer(heard: &Heard) -> Option<Result<Answer, Failure>> {
    heard.lock().unwrap().clone()
}

fn adoption(heard: &Heard) -> AdoptionReport {
    match answer(heard) {
        Some(Ok(Answer::Adoption(report))) => *report,
        other => panic!("expected a report, found {other:?}"),
    }
}

/// One turn of the loop: the work that is due, then a message; where there is none, time passes until something is due.
fn turn(agent: &mut Agent<Here>) {
    agent.do_what_is_due();
    assert_eq!(agent.must_end(), None);
    if let Some(message) = agent.outside().next() {
        agent.handle(message);
        return;
    }
    let due = agent.next_due();
    let mut world = agent.outside().world_mut();
    if due > world.now {
        world.now = due;
        world.look_at_lock_manager();
    }
}

/// Lets the loop turn until this is so. Answers at what moment it became so.
fn until(agent: &mut Agent<Here>, what: &str, is_so: impl Fn(&Agent<Here>) -> bool) -> Moment {
    for _ in 0..TURNS_MAX {
        if is_so(agent) {
            return agent.outside().now();
        }
        turn(agent);
    }
    panic!("it never comes about that {what}: {:?}", agent.status());
}

/// A server that knows what it holds, on which the directory hangs from now on.
fn hanging(restarts_nfs: bool) -> (InMemory, Agent<Here>) {
    let (store, mut agent) = begun_in(World { restarts_nfs, ..World::default() });
    until(&mut agent, "it knows its holdings", |agent| agent.is_at_rest() && agent.knows_its_holdings());
    agent.outside().world_mut().hangs = true;
    (store, agent)
}

fn heartbeat(store: &InMemory) -> u64 {
    store.hearts().unwrap().reports.get(&"nfs-b".parse().unwrap()).map_or(0, |report| report.beat)
}

#[test]
fn clients_are_told_while_records_are_being_placed_and_the_run_settles_once_that_hangs() {
    let (store, mut agent) = hanging(true);
    let heard = adopt_until(&mut agent, AnswerWhen::Settled);
    let (began, beats) = (agent.outside().now(), heartbeat(&store));
    let told = until(&mut agent, "all are told", |agent| agent.outside().world().told.len() == 2);
    assert_eq!(told, began, "nothing was waited for");
    assert_eq!(agent.outside().world().begun, ["check", "place", "restart-nfs", "prove", "bring up", "tell"]);
    assert_eq!(*agent.outside().placed(), *agent.outside().world().placed);
    // Grace is over, and the last record is waited for.
    until(&mut agent, "grace is over", |agent| agent.outside().now() > began + 2 * GRACE);
    assert!(phase(&agent) == Some(Phase::Settling) && answer(&heard).is_none());
    assert!(heartbeat(&store) > beats + 20, "the heart goes on beating");
    let settled = until(&mut agent, "it settles", |agent| phase(agent) == Some(Phase::Settled));
    assert!(settled > began + PLACED_TIME_MAX && settled < began + PLACED_TIME_MAX + GRACE);
    // Placed records that are being taken away are looked after a minute longer.
    assert!(answer(&heard).is_none());
    let ended = until(&mut agent, "the end is told", |_| answer(&heard).is_some());
    assert_eq!(ended, settled + TAKEN_AWAY_TIME_MAX);
    let report = adoption(&heard);
    assert!(report.troubles.iter().any(|trouble| trouble.why.contains("a disk or a thread hangs")));
    assert_eq!(outcomes(&store, &agent), [Outcome::ReRegistered, Outcome::Acknowledged]);
    // The service can be given away, and the agent ends as it should.
    let released = ask_for(&mut agent, Request::Release { service: service("new") });
    until(&mut agent, "it is released", |_| answer(&released).is_some());
    assert!(answer(&released).unwrap().is_ok(), "{released:?}");
    assert!(agent.stop().is_ok());
}

#[test]
fn a_command_finds_all_records_placed_and_one_that_hangs_keeps_it_from_no_client() {
    let (store, mut agent) = hanging(false);
    let heard = adopt_until(&mut agent, AnswerWhen::Notified);
    let (began, beats) = (agent.outside().now(), heartbeat(&store));
    until(&mut agent, "it has time", |agent| agent.outside().now() > began + PLACED_TIME_MAX / 2);
    assert_eq!((phase(&agent), agent.outside().world().told.len()), (Some(Phase::Claimed), 0));
    assert!(!agent.outside().world().begun.contains(&"command".to_owned()));
    assert!(heartbeat(&store) > beats + 20, "the heart goes on beating");
    let told = until(&mut agent, "all are told", |agent| agent.outside().world().told.len() == 2);
    assert!(told >= began + PLACED_TIME_MAX && told < began + PLACED_TIME_MAX + GRACE);
    until(&mut agent, "that is told", |_| answer(&heard).is_some());
    assert!(adoption(&heard).troubles.iter().any(|trouble| trouble.why.contains("hangs")));
    until(&mut agent, "it settles", |agent| phase(agent) == Some(Phase::Settled));
}

#[test]
fn a_record_that_could_not_be_placed_is_told_however_late_and_the_end_comes_after_all_is_taken_away() {
    let (_store, mut agent) = hanging(true);
    let (notified, settled) =
        (adopt_until(&mut agent, AnswerWhen::Notified), adopt_until(&mut agent, AnswerWhen::Settled));
    until(&mut agent, "all are told", |agent| phase(agent) == Some(Phase::Settling));
    assert!(answer(&notified).is_none(), "what can't be placed is told as well");
    let placed = agent.outside().world_mut().hanging.pop_front();
    let Some(News::Placed(run, _)) = placed else { panic!("nothing was placed") };
    let unplaced = vec![(clients()[0].clone(), "expected a file, found a folder".to_owned())];
    let news = News::Placed(run, vec![(service("new"), Ok(unplaced))]);
    agent.outside().world_mut().said.push_back(news);
    until(&mut agent, "it is told", |_| answer(&notified).is_some());
    let [trouble] = &adoption(&notified).troubles[..] else { panic!("{notified:?}") };
    assert!(trouble.entry.ends_with("sm/10.0.0.1") && trouble.why.contains("found a folder"));
    let conveyed = adoption(&notified).timeline.iter().any(|stamp| stamp.event == Milestone::Conveyed);
    assert!(conveyed, "{notified:?}");
    until(&mut agent, "it settles", |agent| phase(agent) == Some(Phase::Settled));
    assert!(answer(&settled).is_none() && !agent.is_at_rest());
    let hanging = std::mem::take(&mut agent.outside().world_mut().hanging);
    agent.outside().world_mut().said.extend(hanging);
    until(&mut agent, "the end is told", |_| answer(&settled).is_some());
    assert!(agent.is_at_rest());
}
