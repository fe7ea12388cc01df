use std::time::Duration;

use super::super::tests::LIMITS;
use super::super::tests::{
    Kept, ack, asked_for, at, called, claimed, client, end_of, ended, life, notifying, outcome_of, plan,
    recognition, service, tick, until_proved,
};
use super::super::{Action, End, Event, Strategy};
use super::*;
use crate::incarnation::Incarnation;
use crate::outcome::Outcome;

const MARGIN: Duration = Duration::from_secs(5);

#[test]
fn a_run_that_is_resumed_in_the_same_life_keeps_its_number_and_asks_no_client_twice() {
    let (mut run, mut kept) = asked_for();
    notifying(&mut run, &mut kept);
    ack(&mut run, &mut kept, "nfs", "10.0.0.1");
    let mut again = Takeover::resume(at(0), MARGIN, LIMITS, kept.found()).expect("bound to a life");
    again.step(at(2_000), recognition(life("2")));
    again.step(at(2_000), Event::Proved(Ok(())));
    let steps = again.step(at(2_000), Event::BroughtUp(Ok(())));
    let [Action::Notify(notices)] = steps.then.as_slice() else { panic!("{steps:?}") };
    let nfs = notices.iter().find(|n| n.service == service("nfs")).unwrap();
    assert_eq!((nfs.state, nfs.clients.as_slice()), (StateNumber(11), [called("10.0.0.2")].as_slice()));
}

#[test]
fn resumed_in_another_life_it_fails_so_that_a_new_run_takes_the_next_number() {
    let (mut run, mut kept) = asked_for();
    notifying(&mut run, &mut kept);
    let mut again = Takeover::resume(at(0), MARGIN, LIMITS, kept.found()).unwrap();
    assert!(matches!(end_of(&again.step(at(2_000), recognition(life("3")))), End::Failed { .. }));
}

#[test]
fn a_run_that_had_not_recognised_is_not_resumed() {
    let (mut run, mut kept) = asked_for();
    run.step(at(0), Event::Start);
    run.step(at(0), Event::Fit(Ok(())));
    let won = vec![claimed("nfs", 1, &["10.0.0.1"], &[])];
    kept.persist(&run.step(at(0), Event::Claimed { won, refused: vec![], unread: vec![] }));
    assert!(Takeover::resume(at(0), Duration::ZERO, LIMITS, kept.found()).is_none());
}

/// A run in the store whose members' journals show these phases.
fn found_in(phases: [Phase; 2]) -> Found {
    let (mut run, mut kept) = asked_for();
    notifying(&mut run, &mut kept);
    for (one, phase) in kept.remains.values_mut().zip(phases) {
        one.journal.phase = phase;
    }
    kept.found()
}

/// The runs that a whole adoption leaves at each of its steps, by the phase that its journals show.
#[test]
fn only_a_run_that_is_bound_to_a_life_is_resumed() {
    let mut run = Takeover::new(at(0), plan(Strategy::RestartNfs, Until::Settled));
    let mut kept = Kept::default();
    let won = vec![claimed("nfs", 5, &["10.0.0.1"], &[7]), claimed("home", 2, &["10.0.0.8"], &[3])];
    let ended = |name| Event::NotifyEnded { service: service(name), left: vec![] };
    let then = [
        Event::BroughtUp(Ok(())),
        ended("nfs"),
        ended("home"),
        Event::Tick { present: BTreeSet::new(), looked_at: Some(at(17_000)) },
    ];
    let mut seen = Vec::new();
    for event in until_proved(won).into_iter().chain(then) {
        let now = if matches!(event, Event::Tick { .. }) { at(17_000) } else { at(1_500) };
        kept.persist(&run.step(now, event));
        let Some(phase) = kept.remains.values().map(|one| one.journal.phase).min() else {
            assert!(Takeover::resume(at(0), MARGIN, LIMITS, kept.found()).is_none(), "nothing is left of it");
            continue;
        };
        seen.push((phase, Takeover::resume(at(0), MARGIN, LIMITS, kept.found()).is_some()));
    }
    seen.dedup();
    let expected = [
        (Phase::Claimed, false),
        (Phase::Conveyed, false),
        (Phase::Recognised, true),
        (Phase::Proved, true),
        (Phase::Notifying, true),
        (Phase::Settling, true),
        (Phase::Settled, false),
    ];
    assert_eq!(seen, expected);
    let (mut run, mut kept) = asked_for();
    notifying(&mut run, &mut kept);
    kept.persist(&run.step(at(3_000), Event::LifeChanged));
    assert!(Takeover::resume(at(0), MARGIN, LIMITS, kept.found()).is_none(), "it failed");
}

#[test]
fn killed_between_two_members_journals_it_is_resumed_at_the_earlier() {
    let resume = |phases| Takeover::resume(at(0), Duration::ZERO, LIMITS, found_in(phases));
    assert!(resume([Phase::Settled, Phase::Settling]).is_some());
    assert!(resume([Phase::Settling, Phase::Settled]).is_some());
    assert!(resume([Phase::Conveyed, Phase::Recognised]).is_none());
}

#[test]
fn a_member_that_another_run_holds_forbids_it_and_one_that_another_server_holds_does_not() {
    let (home, nfs) = (service("home"), service("nfs"));
    for gone in [&home, &nfs] {
        let mut found = found_in([Phase::Notifying; 2]);
        found.remains.retain(|one| one.service != *gone);
        assert!(
            Takeover::resume(at(0), MARGIN, LIMITS, found.clone()).is_none(),
            "{gone} is held, by another run"
        );
        found.held.remove(gone);
        let mut again = Takeover::resume(at(0), MARGIN, LIMITS, found).expect("the others go on");
        again.step(at(2_000), recognition(life("2")));
        again.step(at(2_000), Event::Proved(Ok(())));
        let steps = again.step(at(2_000), Event::BroughtUp(Ok(())));
        let [Action::Notify(notices)] = steps.then.as_slice() else { panic!("{steps:?}") };
        assert!(notices.len() == 1 && notices[0].service != *gone, "{notices:?}");
        again.step(at(3_000), Event::NotifyEnded { service: notices[0].service.clone(), left: vec![] });
        let over = Event::Tick { present: BTreeSet::new(), looked_at: Some(at(17_000)) };
        let end = end_of(&again.step(at(17_000), over));
        assert_eq!(
            matches!(end, End::Failed { .. }),
            *gone == nfs,
            "what was to be adopted is another's: {end:?}"
        );
    }
}

#[test]
fn when_a_client_answered_stays_known_after_it_registered_and_after_a_kill() {
    let (mut run, mut kept) = asked_for();
    notifying(&mut run, &mut kept);
    ack(&mut run, &mut kept, "nfs", "10.0.0.1");
    let known = |run: &Takeover| {
        let nfs = run.summaries().into_iter().find(|s| s.service == service("nfs")).unwrap();
        let one = nfs.clients.into_iter().find(|c| c.client == client("10.0.0.1")).unwrap();
        (one.outcome, one.at_ms, one.answered_ms)
    };
    assert_eq!(known(&run), (Some(Outcome::Acknowledged), 1_600, Some(1_600)));
    kept.persist(&run.step(at(9_000), Event::Registered([client("10.0.0.1")].into())));
    let registered = (Some(Outcome::ReRegistered), 9_000, Some(1_600));
    assert_eq!(known(&run), registered);
    let again = Takeover::resume(at(0), MARGIN, LIMITS, kept.found()).unwrap();
    assert_eq!(known(&again), registered);
}

/// Two clients of `nfs` have answered when the agent is killed; the third, of `home`, has not.
fn killed_while_telling() -> Kept {
    let (mut run, mut kept) = asked_for();
    notifying(&mut run, &mut kept);
    ack(&mut run, &mut kept, "nfs", "10.0.0.1");
    ack(&mut run, &mut kept, "nfs", "10.0.0.2");
    kept
}

fn resume(kept: &Kept, came: &[&str]) -> Takeover {
    let came = came.iter().map(|name| client(name)).collect();
    Takeover::resume(at(0), MARGIN, LIMITS, Found { came, ..kept.found() }).unwrap()
}

#[test]
fn a_client_that_came_back_before_the_kill_is_known_to_have_come_back() {
    let mut kept = killed_while_telling();
    let mut again = resume(&kept, &["10.0.0.2"]);
    let steps = again.step(at(2_000), recognition(life("2")));
    kept.persist(&steps);
    let line = |one: &OutcomeLine| (one.client.clone(), one.outcome);
    let nfs: Vec<_> = kept.of(&service("nfs")).outcomes.iter().map(line).collect();
    assert_eq!(nfs.last(), Some(&(client("10.0.0.2"), Outcome::ReRegistered)), "durable at once");
    again.step(at(2_000), Event::Proved(Ok(())));
    again.step(at(2_000), Event::BroughtUp(Ok(())));
    ended(&mut again, &mut kept, "nfs", &[]);
    ended(&mut again, &mut kept, "home", &[("10.0.0.8", Outcome::Unreachable)]);
    let end = end_of(&tick(&mut again, &mut kept, 17_000, &[]));
    assert_eq!(outcome_of(&end, "nfs", "10.0.0.1"), Some(Outcome::Acknowledged));
    assert_eq!(outcome_of(&end, "nfs", "10.0.0.2"), Some(Outcome::ReRegistered));
    assert_eq!(kept.retired, [client("10.0.0.1")], "who came back is kept");
}

#[test]
fn a_client_that_registered_and_did_not_answer_is_told_again() {
    let mut kept = killed_while_telling();
    let mut again = resume(&kept, &["10.0.0.8"]);
    kept.persist(&again.step(at(2_000), recognition(life("2"))));
    again.step(at(2_000), Event::Proved(Ok(())));
    let steps = again.step(at(2_000), Event::BroughtUp(Ok(())));
    let [Action::Notify(notices)] = steps.then.as_slice() else { panic!("{steps:?}") };
    let home = notices.iter().find(|notice| notice.service == service("home")).unwrap();
    assert_eq!(home.clients, [called("10.0.0.8")], "a new lock's registration is no reclaim");
}

#[test]
fn when_grace_is_over_meanwhile_a_client_that_came_back_in_it_is_not_lost() {
    let kept = killed_while_telling();
    for (came, known) in [(true, Outcome::ReRegistered), (false, Outcome::Lost)] {
        let mut kept = kept.clone();
        let mut again = resume(&kept, if came { &["10.0.0.8"] } else { &[] });
        // Inside the margin: no client may be told any more, and one that registered asked to reclaim.
        kept.persist(&again.step(at(14_000), recognition(life("2"))));
        let steps = again.step(at(14_100), Event::Proved(Err("grace is over".into())));
        kept.persist(&steps);
        let end = if came {
            assert_eq!(
                (steps.then.len(), again.phase()),
                (0, Phase::Settling),
                "no client is left to be told"
            );
            end_of(&tick(&mut again, &mut kept, 17_000, &[]))
        } else {
            end_of(&steps)
        };
        assert_eq!(outcome_of(&end, "home", "10.0.0.8"), Some(known));
        assert_eq!(matches!(end, End::Settled(_)), came, "{end:?}");
        assert_eq!(outcome_of(&end, "nfs", "10.0.0.1"), Some(Outcome::Acknowledged), "it stays what it was");
    }
}

/// A run in the store that had told one client of 'nfs', and no other.
fn killed_while_settling() -> Kept {
    let (mut run, mut kept) = asked_for();
    notifying(&mut run, &mut kept);
    ack(&mut run, &mut kept, "nfs", "10.0.0.1");
    ended(&mut run, &mut kept, "nfs", &[("10.0.0.2", Outcome::Unreachable)]);
    ended(&mut run, &mut kept, "home", &[("10.0.0.8", Outcome::Unreachable)]);
    kept
}

/// How many clients of this service concern the run that goes on.
fn clients_of(kept: &Kept, came: &[&str], of: &str) -> usize {
    let summaries = resume(kept, came).summaries();
    summaries.into_iter().find(|one| one.service == service(of)).unwrap().clients.len()
}

#[test]
fn a_run_that_had_told_all_clients_goes_on_to_wait_for_those_that_come_back_also_after_grace() {
    let mut kept = killed_while_settling();
    let mut again = resume(&kept, &[]);
    let steps = again.step(at(30_000), recognition(life("2")));
    assert_eq!(
        (again.phase(), steps.then.as_slice()),
        (Phase::Settling, [].as_slice()),
        "nothing is proved, no client told"
    );
    let end = end_of(&tick(&mut again, &mut kept, 30_100, &[]));
    assert!(matches!(end, End::Settled(_)), "nothing went wrong: {end:?}");
    assert_eq!(outcome_of(&end, "nfs", "10.0.0.2"), Some(Outcome::Unreachable));
    assert_eq!(kept.retired, [client("10.0.0.1")]);
}

#[test]
fn a_client_that_is_new_in_the_life_that_runs_has_nothing_to_be_told() {
    let mut kept = killed_while_telling();
    kept.of(&service("nfs")).clients.push(client("10.0.0.9"));
    let counted = |came: &[&str], kept: &Kept| clients_of(kept, came, "nfs");
    assert_eq!(counted(&["10.0.0.9"], &kept), 2, "it came after all had been recognised");
    assert_eq!(counted(&[], &kept), 3, "it was captured between the claim and the restart");
    kept.of(&service("nfs")).begun_with = None;
    assert_eq!(counted(&["10.0.0.9"], &kept), 3, "where nothing is known of the beginning all are told");
}

#[test]
fn a_client_that_came_after_all_was_recognised_is_none_of_what_settles_though_it_has_left_again() {
    let mut kept = killed_while_settling();
    kept.of(&service("home")).clients.push(client("10.0.0.9"));
    let counted = |kept: &Kept| clients_of(kept, &[], "home");
    assert_eq!(counted(&kept), 1);
    kept.of(&service("home")).begun_with = None;
    assert_eq!(counted(&kept), 2, "where nothing is known of the beginning its fate is not known");
}

#[test]
fn a_run_that_was_settling_has_no_client_without_an_outcome() {
    let (mut run, mut kept) = asked_for();
    notifying(&mut run, &mut kept);
    let unreachable = Outcome::Unreachable;
    ended(&mut run, &mut kept, "nfs", &[("10.0.0.1", unreachable), ("10.0.0.2", unreachable)]);
    ended(&mut run, &mut kept, "home", &[("10.0.0.8", unreachable)]);
    // A claim that was not begun goes on: the generation before knows the newcomer too.
    let nfs = kept.of(&service("nfs"));
    nfs.clients.push(client("10.0.0.9"));
    nfs.begun_with.as_mut().unwrap().insert(client("10.0.0.9"));
    let mut again = resume(&kept, &["10.0.0.9"]);
    again.step(at(2_000), recognition(life("2")));
    let End::Settled(summaries) = end_of(&tick(&mut again, &mut kept, 17_000, &[])) else { panic!() };
    assert!(summaries.iter().flat_map(|one| &one.clients).all(|client| client.outcome.is_some()));
}

#[test]
fn a_reboot_is_told_to_peers_by_whichever_run_comes_to_tell() {
    let boot = |boot: &str| Incarnation { boot: boot.into(), ..life("1") };
    let journal = |phase, life, life_before| {
        let server = crate::names::ServerName::parse("nfs-b").unwrap();
        Journal { phase, life, life_before, ..Journal::quiet("r", &server, 0) }
    };
    let (old, new) = (boot("old"), boot("new"));
    let told = |phase, life: Option<&Incarnation>| {
        journal(phase, life.cloned(), Some(old.clone())).life_told().cloned()
    };
    for phase in [Phase::Claimed, Phase::Conveyed] {
        assert_eq!(told(phase, None), Some(old.clone()), "interrupted in {phase}");
    }
    for phase in [Phase::Recognised, Phase::Proved, Phase::Failed] {
        assert_eq!(told(phase, Some(&new)), Some(old.clone()), "interrupted in {phase}");
    }
    for phase in [Phase::Notifying, Phase::Settling, Phase::Settled] {
        assert_eq!(told(phase, Some(&new)), Some(new.clone()), "{phase}");
    }
    assert_eq!(journal(Phase::Failed, Some(old.clone()), None).life_told(), Some(&old));

    let (mut run, mut kept) = asked_for();
    run.stands(Standing { own: vec![service("home")], life_before: Some(old), ..Standing::default() });
    notifying(&mut run, &mut kept);
    assert!(run.has_rebooted(), "life 2 is of another boot");
    assert!(resume(&kept, &[]).has_rebooted(), "and the next agent knows it");
}
