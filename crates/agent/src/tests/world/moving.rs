//! A service is moved to another server that lives, by a caller on any server.

use heirlock_core::history::Beginning;
use heirlock_core::store::ServerReport;
use heirlock_core::takeover::Milestone;

use super::several::Several;
use super::verbs::{Heard, asked};
use super::*;
use crate::control::Failure;
use crate::survey::past;

/// nfs-a has `new`, with two clients; nfs-b and nfs-c live as well.
fn on_three() -> Several {
    let mut at_home = (*settings(false)).clone();
    at_home.services[0].home = Some("nfs-a".parse().unwrap());
    let store = InMemory::new(StoreIdentity::of(7));
    let mut several = Several::on(store, &["nfs-a", "nfs-b", "nfs-c"], &at_home);
    let mut on_a = several.agents[0].outside().world_mut();
    on_a.registered = clients().map(|client| (client.clone(), record(&client))).into();
    on_a.hinted = true;
    drop(on_a);
    several.until("nfs-a has both on record", |several| {
        several.agents[0].ledger_of(&service("new")).is_some_and(|ledger| ledger.stored().len() == 2)
    });
    several.goes_on(Duration::from_secs(25));
    assert!(several.agents[0].claim_of(&service("new")).is_some(), "nfs-a holds it");
    several
}

/// A caller on the server of this place has `new` moved.
fn asks(several: &mut Several, at: usize, to: &str, answer_when: AnswerWhen) -> Heard {
    let request = Request::Move { service: service("new"), to: to.parse().unwrap(), answer_when };
    asked(&mut several.agents[at], request)
}

fn answered(several: &mut Several, heard: &Heard) -> Result<Answer, Failure> {
    several.until("it is answered", |_| heard.answer().is_some());
    heard.answer().unwrap()
}

/// It is nfs-b's, and both clients were told by nfs-b and by no other server.
fn is_moved(several: &mut Several) {
    several.until("all is at rest", |several| several.agents.iter().all(Agent::is_at_rest));
    assert_eq!(several.owner_of("new").as_deref(), Some("nfs-b"));
    let told = |at: usize| several.agents[at].outside().world().told.clone();
    assert_eq!((told(0), told(2)), (vec![], vec![]));
    let told_by_b: BTreeSet<MonName> = told(1).into_iter().collect();
    assert_eq!(told_by_b, clients().into());
    assert_eq!(several.begun("fence"), [0, 0, 0]);
}

fn refused(answer: Result<Answer, Failure>) -> String {
    let failure = answer.unwrap_err();
    assert!(failure.refused, "{failure:?}");
    failure.message
}

#[test]
fn a_service_moves_wherever_it_is_asked_for_and_the_time_without_it_is_in_the_history() {
    for at in 0..3 {
        let mut several = on_three();
        let began = several.now();
        let heard = asks(&mut several, at, "nfs-b", AnswerWhen::Settled);
        match answered(&mut several, &heard).unwrap() {
            Answer::Adoption(report) if at == 1 => {
                assert_eq!((report.changed, report.phase.as_str()), (Some(true), "settled"));
            }
            Answer::Moved { to, changed, .. } if at != 1 => {
                assert_eq!((to.as_str(), changed), ("nfs-b", true));
            }
            other => panic!("{at}: {other:?}"),
        }
        is_moved(&mut several);
        let (tenures, unreadable) = past::history(&several.store, &service("new")).unwrap();
        let of = &tenures[0];
        assert_eq!((of.beginning, unreadable), (Beginning::Moved, vec![]));
        let journal = several.store.account(&service("new"), of.generation).unwrap().journal.unwrap();
        let first = |event| journal.timeline.iter().find(|stamp| stamp.event == event).unwrap().at_ms;
        let (asked, giving_up, given_up) =
            (first(Milestone::Asked), first(Milestone::GivingUp), first(Milestone::GivenUp));
        assert!(asked <= giving_up && giving_up <= given_up && given_up <= 0, "{:?}", journal.timeline);
        assert_eq!(of.gap.last_sign_ms, Some(giving_up));
        let without = of.gap.until_last_client_ms().unwrap();
        assert!(i64::try_from(without).unwrap() >= given_up - giving_up, "{without}");
        assert!(u128::from(without) <= several.now().since(began).as_millis(), "{without}");
        // The request is withdrawn, so that no server takes it up again.
        several.goes_on(Duration::from_secs(3));
        let hearts = several.store.hearts().unwrap().reports;
        assert!(hearts.values().all(|report| report.moves.is_empty() && report.moving.is_empty()), "{at}");
    }
}

#[test]
fn a_move_that_is_said_again_changes_nothing_and_one_that_is_on_is_said_to_be() {
    let mut several = on_three();
    let first = asks(&mut several, 0, "nfs-b", AnswerWhen::Settled);
    let twice = asks(&mut several, 0, "nfs-b", AnswerWhen::Settled);
    assert!(refused(answered(&mut several, &twice)).contains("new is being moved to nfs-b already"));
    several.until("nfs-b asks for it", |several| {
        let hearts = several.store.hearts().unwrap();
        hearts.reports.values().any(|report| report.wants.contains(&service("new")))
    });
    let at_target = asks(&mut several, 1, "nfs-b", AnswerWhen::Settled);
    let elsewhere = asks(&mut several, 2, "nfs-b", AnswerWhen::Settled);
    assert!(refused(answered(&mut several, &at_target)).contains("on its way to this server already"));
    // The third one's request reaches nfs-b before or after the service has come.
    match answered(&mut several, &elsewhere) {
        Err(failure) => {
            assert!(failure.message.starts_with("nfs-b: new is on its way to this server already"));
        }
        moved => assert!(matches!(moved, Ok(Answer::Moved { .. })), "{moved:?}"),
    }
    answered(&mut several, &first).unwrap();
    is_moved(&mut several);
    let generation = several.store.newest_claim(&service("new")).unwrap().unwrap().generation;
    for at in 0..3 {
        let again = asks(&mut several, at, "nfs-b", AnswerWhen::Settled);
        match answered(&mut several, &again).unwrap() {
            Answer::Adoption(report) => assert_eq!((at, report.changed), (1, Some(false))),
            Answer::Moved { changed, .. } => assert!(!changed && at != 1),
            other => panic!("{at}: {other:?}"),
        }
    }
    is_moved(&mut several);
    assert_eq!(several.store.newest_claim(&service("new")).unwrap().unwrap().generation, generation);
}

#[test]
fn a_move_to_a_server_that_is_unknown_silent_or_in_maintenance_changes_nothing() {
    let mut several = on_three();
    let unknown = asks(&mut several, 0, "nfs-x", AnswerWhen::Settled);
    assert!(refused(answered(&mut several, &unknown)).contains("there are: nfs-a, nfs-b, nfs-c"));
    let done = asked(&mut several.agents[2], Request::Maintenance { on: true });
    assert!(done.answer().unwrap().is_ok());
    several.goes_on(Duration::from_secs(3));
    let paused = asks(&mut several, 0, "nfs-c", AnswerWhen::Settled);
    assert!(refused(answered(&mut several, &paused)).contains("is in maintenance"));
    drop(several.agents.remove(1));
    several.goes_on(Duration::from_secs(15));
    let silent = asks(&mut several, 0, "nfs-b", AnswerWhen::Settled);
    assert!(refused(answered(&mut several, &silent)).contains("its agent says nothing for"));
    assert_eq!(several.owner_of("new").as_deref(), Some("nfs-a"));
    assert!(several.agents[0].claim_of(&service("new")).is_some());
    // One in maintenance moves its services away.
    let away = asks(&mut several, 1, "nfs-a", AnswerWhen::Settled);
    assert!(matches!(answered(&mut several, &away), Ok(Answer::Moved { changed: false, .. })));
}

#[test]
fn a_server_that_dies_before_it_takes_a_move_up_is_not_waited_for_and_the_service_stays() {
    let mut several = on_three();
    drop(several.agents.remove(1));
    let heard = asks(&mut several, 0, "nfs-b", AnswerWhen::Settled);
    let failure = answered(&mut several, &heard).unwrap_err();
    assert!(failure.message.contains("nfs-b did not take it up") && !failure.refused, "{failure:?}");
    several.goes_on(Duration::from_secs(3));
    assert_eq!(several.owner_of("new").as_deref(), Some("nfs-a"));
    let hearts = several.store.hearts().unwrap();
    assert!(hearts.reports.values().all(|report| report.moves.is_empty()), "it is asked for no more");
}

#[test]
fn a_service_that_another_server_takes_while_it_is_asked_for_is_not_asked_of_that_one_too() {
    let mut several = on_three();
    several.beating.insert("nfs-d", 0);
    let heard = asks(&mut several, 1, "nfs-b", AnswerWhen::Settled);
    several.until("nfs-b asks for it", |several| {
        let hearts = several.store.hearts().unwrap();
        hearts.reports.values().any(|report| report.wants.contains(&service("new")))
    });
    several.until("nfs-a gives it up", |several| several.agents[0].is_releasing(&service("new")));
    // As a cluster manager would have it, before nfs-b sees that it is free.
    let generation = several.store.newest_claim(&service("new")).unwrap().unwrap().generation.next();
    let claim = Claim::new(generation, &"nfs-d".parse().unwrap(), "run", 0);
    several.store.claim(&service("new"), &claim).unwrap();
    let failure = answered(&mut several, &heard).unwrap_err();
    assert!(failure.message.contains("nfs-d has adopted it meanwhile"), "{failure:?}");
    several.goes_on(Duration::from_secs(3));
    let hearts = several.store.hearts().unwrap();
    assert!(
        hearts.reports.values().all(|report| report.wants.is_empty()),
        "no server is asked for it any more"
    );
    assert_eq!(several.owner_of("new").as_deref(), Some("nfs-d"));
}

/// nfs-b dies at every message of its move, and begins again: the same word goes on.
#[test]
fn a_move_that_is_interrupted_goes_on_by_the_same_word() {
    let mut killed = 0;
    for after in 1..60 {
        let mut several = on_three();
        let heard = asks(&mut several, 0, "nfs-b", AnswerWhen::Settled);
        for _ in 0..after * 4 {
            several.step();
        }
        if heard.answer().is_some() {
            break;
        }
        killed += 1;
        several.restart(1);
        let first = answered(&mut several, &heard);
        // What the agent left goes on, as after each death; the same word waits for it, or does it.
        let again = asks(&mut several, 0, "nfs-b", AnswerWhen::Settled);
        let again = answered(&mut several, &again);
        assert!(again.is_ok(), "{after}: {first:?}, {again:?}");
        several.until("all is at rest", |several| several.agents.iter().all(Agent::is_at_rest));
        assert_eq!(several.owner_of("new").as_deref(), Some("nfs-b"), "{after}");
        let told: BTreeSet<MonName> = several.agents[1].outside().world().told.iter().cloned().collect();
        assert_eq!(told, clients().into(), "{after}: {first:?}");
    }
    assert!(killed >= 5, "{killed}");
}

#[test]
fn a_move_is_answered_as_soon_as_its_caller_wants_to_know() {
    let mut several = on_three();
    let heard = asks(&mut several, 2, "nfs-b", AnswerWhen::Accepted);
    let Ok(Answer::Verb { changed: true, text, .. }) = answered(&mut several, &heard) else { panic!() };
    assert!(text.contains("nfs-b takes new over"), "{text}");
    is_moved_after_a_while(&mut several);
}

/// nfs-b calls a client that answers nothing until grace ends.
#[test]
fn a_caller_on_another_server_that_waits_for_the_first_round_alone_does_not_wait_for_a_client_that_is_off() {
    let mut several = on_three();
    several.agents[1].outside().world_mut().calls_on_for = Some(clients()[1].clone());
    let heard = asks(&mut several, 2, "nfs-b", AnswerWhen::Notified);
    assert!(matches!(answered(&mut several, &heard), Ok(Answer::Moved { changed: true, .. })));
    let phase = several.agents[1].journal_of(&service("new")).map(|journal| journal.phase);
    assert_eq!(phase, Some(Phase::Notifying), "it is called still");
}

/// The time that a wait has left runs down by itself: a heart that beat for it would beat as fast as its store takes it.
#[test]
fn a_server_that_waits_in_a_move_of_another_ones_caller_beats_for_news_and_not_for_the_time_that_passes() {
    let mut several = on_three();
    several.agents[1].outside().world_mut().calls_on_for = Some(clients()[1].clone());
    let of_b = |several: &Several| {
        let hearts = several.store.hearts().unwrap();
        Arc::clone(&hearts.reports[&"nfs-b".parse().unwrap()])
    };
    let heard = asks(&mut several, 2, "nfs-b", AnswerWhen::Settled);
    let waits = |several: &Several| {
        of_b(several).moving.values().any(|said| said.phase == Phase::Notifying && said.at_most_ms.is_some())
    };
    several.until("it waits for a client, and says for how long at most", waits);
    let (since, before) = (several.now(), of_b(&several));
    let at_most_ms = |report: &ServerReport| report.moving.values().next().unwrap().at_most_ms.unwrap();
    several.goes_on(Duration::from_secs(10));
    let (time, now) = (several.now().since(since), of_b(&several));
    let intervals = time.div_duration_f64(settings(false).heartbeat.interval).ceil() as u64;
    assert!(now.beat - before.beat <= intervals + 2, "{} beats in {time:?}", now.beat - before.beat);
    assert!(at_most_ms(&now) + 8_000 < at_most_ms(&before), "each beat says anew what is left");
    assert!(answered(&mut several, &heard).is_ok());
}

fn is_moved_after_a_while(several: &mut Several) {
    several.until("it is moved", |several| several.owner_of("new").as_deref() == Some("nfs-b"));
    is_moved(several);
}

#[test]
fn a_server_that_died_after_it_asked_for_a_service_is_not_given_it() {
    let mut several = on_three();
    let report = ServerReport::new("nfs-d".parse().unwrap(), "run-d");
    let wants = ServerReport { wants: vec![service("new")], asked: 9, ..report };
    several.store.put_server(&wants).unwrap();
    several.goes_on(Duration::from_secs(30));
    assert_eq!(several.owner_of("new").as_deref(), Some("nfs-a"));
    several.store.put_server(&ServerReport { beat: 1, ..wants }).unwrap();
    several.until("nfs-a gives it up", |several| several.owner_of("new").is_none());
}
