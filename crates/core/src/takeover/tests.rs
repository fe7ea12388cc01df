mod phases;
mod returned;
mod served;

use std::collections::BTreeMap;
use std::time::Duration;

use heirlock_nsm::StateNumber;

use super::*;
use crate::claim::Authority;
use crate::duty::{Duty, EarlierLocks, duty};
use crate::names::{Generation, ServerName};

pub(super) const LIMITS: TimeLimits = TimeLimits::each(Duration::from_secs(60));

pub(super) fn at(ms: u64) -> Moment {
    Moment::at(Duration::from_millis(ms))
}

pub(super) fn service(text: &str) -> ServiceName {
    ServiceName::parse(text).unwrap()
}

pub(super) fn client(text: &str) -> RecordKey {
    RecordKey::parse(text).unwrap()
}

/// By the name under which it is called.
pub(super) fn called(text: &str) -> MonName {
    MonName::parse(text).unwrap()
}

pub(super) fn life(start: &str) -> Incarnation {
    Incarnation { boot: "b".into(), start: start.into(), reopened: 0 }
}

pub(super) fn plan(strategy: Strategy, until: Until) -> Plan {
    Plan {
        run: "r1".into(),
        server: ServerName::parse("nfs-b").unwrap(),
        cause: Cause::Asked,
        targets: vec![service("nfs")],
        standing: Standing { own: vec![service("home")], ..Standing::default() },
        strategy,
        convey: Conveyance::Generate,
        until,
        authority: Authority::default(),
        fence: false,
        margin: Duration::from_secs(5),
        limits: LIMITS,
        primary_lost: None,
        started_at_s: 0,
    }
}

/// The same, where the locks of these services, which are this server's, are gone already.
pub(super) fn owing(lost: &[&str], plan: Plan) -> Plan {
    let own: Vec<ServiceName> = lost.iter().map(|name| service(name)).collect();
    Plan { standing: Standing { lost: own.clone(), own, ..Standing::default() }, ..plan }
}

pub(super) fn claimed(name: &str, generation: u64, clients: &[&str], sent: &[u32]) -> Claimed {
    Claimed {
        service: service(name),
        generation: Generation(generation),
        records: clients.iter().map(|c| (client(c), b"line\n".to_vec())).collect(),
        sent: sent.iter().map(|n| StateNumber(*n)).collect(),
        told: BTreeSet::new(),
        troubles: Vec::new(),
    }
}

pub(super) fn recognition(life: Incarnation) -> Event {
    let length = Duration::from_secs(15);
    Event::Recognised(Ok(Recognition {
        life,
        grace_opened: at(1_000),
        grace_length: length,
        too_late_for_the_lost: false,
    }))
}

/// A store that keeps what it is asked to, as the machine's successor would find it.
#[derive(Default, Clone)]
pub(super) struct Kept {
    pub(super) remains: BTreeMap<ServiceName, Remains>,
    pub(super) retired: Vec<RecordKey>,
}

impl Kept {
    pub(super) fn persist(&mut self, steps: &Steps) {
        for one in &steps.persist {
            match one.clone() {
                Persist::Begin { service, generation, state, records, journal } => {
                    let clients: Vec<RecordKey> = records.keys().cloned().collect();
                    let begun_with = Some(clients.iter().cloned().collect());
                    let remains = Remains {
                        begun_with,
                        service: service.clone(),
                        generation,
                        state,
                        clients,
                        journal,
                        outcomes: vec![],
                    };
                    self.remains.insert(service, remains);
                }
                Persist::Journal { service, journal, .. } => self.of(&service).journal = journal,
                Persist::Outcomes { service, lines, .. } => self.of(&service).outcomes.extend(lines),
                Persist::Retire { clients, .. } => self.retired.extend(clients),
            }
        }
    }

    /// The run as the next agent finds it, where it holds all its services still.
    pub(super) fn found(&self) -> Found {
        let held = self.remains.keys().cloned().collect();
        Found { remains: self.remains.values().cloned().collect(), held, came: BTreeSet::new() }
    }

    pub(super) fn of(&mut self, service: &ServiceName) -> &mut Remains {
        self.remains.get_mut(service).expect("begun before it is journaled")
    }
}

/// An adoption by a restart of NFS that nothing has happened to yet, and an empty store.
pub(super) fn asked_for() -> (Takeover, Kept) {
    (Takeover::new(at(0), plan(Strategy::RestartNfs, Until::Settled)), Kept::default())
}

/// What happens to a run that wins these services, until grace is proved.
pub(super) fn until_proved(won: Vec<Claimed>) -> [Event; 6] {
    [
        Event::Start,
        Event::Fit(Ok(())),
        Event::Claimed { won, refused: vec![], unread: vec![] },
        Event::Conveyed(Ok(Vec::new())),
        recognition(life("2")),
        Event::Proved(Ok(())),
    ]
}

/// Brings a run to the point where its clients are being told.
pub(super) fn notifying(run: &mut Takeover, kept: &mut Kept) -> Vec<Notice> {
    let notices = notifying_without_address(run, kept);
    kept.persist(&run.step(at(1_500), Event::Served(service("nfs"))));
    notices
}

/// The same, where the address of what is taken over is nowhere.
pub(super) fn notifying_without_address(run: &mut Takeover, kept: &mut Kept) -> Vec<Notice> {
    let won =
        vec![claimed("nfs", 5, &["10.0.0.1", "10.0.0.2"], &[7, 9]), claimed("home", 2, &["10.0.0.8"], &[3])];
    let mut last = Batch::nothing();
    for event in until_proved(won).into_iter().chain([Event::BroughtUp(Ok(()))]) {
        last = run.step(at(1_500), event);
        kept.persist(&last);
    }
    match last.then.as_slice() {
        [Action::Notify(notices)] => notices.clone(),
        other => panic!("expected to notify, found {other:?}"),
    }
}

#[test]
fn all_are_tried_when_each_notifier_has_said_so_or_is_through() {
    let (mut run, mut kept) = asked_for();
    assert!(!run.has_claimed());
    notifying(&mut run, &mut kept);
    assert!(run.has_claimed() && !run.has_tried_all());
    let steps = run.step(at(2_000), Event::TriedAll { service: service("nfs") });
    assert!(steps.persist.is_empty() && steps.then.is_empty(), "its outcomes are not known yet");
    assert!(!run.has_tried_all(), "the clients of home were not all called yet");
    ended(&mut run, &mut kept, "home", &[]);
    assert_eq!((run.has_tried_all(), run.phase()), (true, Phase::Notifying));
    ended(&mut run, &mut kept, "nfs", &[("10.0.0.2", Outcome::Unreachable)]);
    assert_eq!((run.has_tried_all(), run.phase()), (true, Phase::Settling));
}

#[test]
fn clients_of_a_service_given_away_during_a_self_adoption_are_told_by_its_next_owner_and_the_others_here() {
    let own =
        Plan { cause: Cause::OwnRestart, targets: Vec::new(), ..plan(Strategy::Notify, Until::Settled) };
    let (mut run, mut kept) = (Takeover::new(at(0), owing(&["nfs", "home"], own)), Kept::default());
    notifying(&mut run, &mut kept);
    let steps = run.step(at(2_000), Event::GivenUp(service("nfs")));
    let [Action::StopNotifying, Action::Notify(notices)] = steps.then.as_slice() else { panic!("{steps:?}") };
    assert_eq!(notices.iter().map(|n| n.service.as_str()).collect::<Vec<_>>(), ["home"]);
    assert!(steps.persist.is_empty(), "its generation is not ours any more");
    let steps = run.step(at(2_100), Event::GivenUp(service("home")));
    assert!(steps.persist.is_empty());
    let settled = Action::Over(End::Settled(Vec::new()));
    assert_eq!(steps.then, [Action::StopNotifying, Action::CleanUp, settled]);
    assert!(run.is_over());
}

/// A cluster manager that stops a group does not wait until its clients are told: the next owner tells them all, under another
/// number. This server's own clients, whose locks the adoption has dropped, are told here to the end.
#[test]
fn an_adopted_service_that_is_released_again_is_told_no_further_and_its_caller_learns_it() {
    let is_released = |end: End| matches!(end, End::Failed { hindrance: Hindrance::Released, .. });
    let (mut run, mut kept) = asked_for();
    notifying(&mut run, &mut kept);
    let steps = run.step(at(2_000), Event::GivenUp(service("nfs")));
    let [Action::StopNotifying, Action::Notify(notices)] = steps.then.as_slice() else { panic!("{steps:?}") };
    assert_eq!(notices.iter().map(|n| n.service.as_str()).collect::<Vec<_>>(), ["home"]);
    ended(&mut run, &mut kept, "home", &[]);
    let steps = tick(&mut run, &mut kept, 30_000, &[]);
    assert!(is_released(end_of(&steps)) && steps.then.contains(&Action::CleanUp));
    let of_home = |one: &Persist| one.generation().0.as_str() == "home";
    assert!(steps.persist.iter().all(of_home), "nfs is not this server's any more");

    let prepared = Takeover::new(at(0), plan(Strategy::Notify, Until::Prepared));
    for (mut run, tells) in [(run_of_target_alone(), true), (prepared, false)] {
        if !tells {
            let won = vec![claimed("nfs", 5, &["10.0.0.1"], &[7])];
            let claimed = Event::Claimed { won, refused: vec![], unread: vec![] };
            let conveyed = Event::Conveyed(Ok(Vec::new()));
            for event in [
                Event::Start,
                Event::Fit(Ok(())),
                claimed,
                conveyed,
                recognition(life("2")),
                Event::Proved(Ok(())),
            ] {
                run.step(at(1_000), event);
            }
            assert!(run.awaits_finish());
        }
        let steps = run.step(at(3_000), Event::GivenUp(service("nfs")));
        assert!(steps.persist.is_empty() && is_released(end_of(&steps)) && run.is_over());
        assert_eq!(steps.then.first() == Some(&Action::StopNotifying), tells);
        assert!(steps.then.contains(&Action::CleanUp), "a placed line would be a registration later");
    }
}

#[test]
fn the_cause_of_a_run_is_in_its_timeline_and_how_long_it_waits_is_known() {
    let mut run = Takeover::new(at(9_000), plan(Strategy::RestartNfs, Until::Settled));
    run.came_before(at(9_000), Milestone::Asked, at(2_000));
    run.came_before(at(9_000), Milestone::GivenUp, at(8_500));
    let stamps: Vec<_> = run.timeline().iter().map(|stamp| (stamp.event, stamp.at_ms)).collect();
    assert_eq!(stamps, [(Milestone::Asked, -7_000), (Milestone::GivenUp, -500)]);
    assert_eq!(run.waits_until(), None);
    let (mut run, mut kept) = asked_for();
    notifying(&mut run, &mut kept);
    assert_eq!((run.waits_until(), run.not_back()), (Some(at(11_000)), 3), "grace less the margin");
}

pub(super) fn ack(run: &mut Takeover, kept: &mut Kept, name: &str, who: &str) {
    kept.persist(
        &run.step(at(1_600), Event::Acknowledged { service: service(name), clients: vec![called(who)] }),
    );
}

pub(super) fn ended(run: &mut Takeover, kept: &mut Kept, name: &str, left: &[(&str, Outcome)]) {
    let left = left.iter().map(|(c, o)| (called(c), *o, "no answer".to_owned())).collect();
    kept.persist(&run.step(at(12_000), Event::NotifyEnded { service: service(name), left }));
}

pub(super) fn tick(run: &mut Takeover, kept: &mut Kept, ms: u64, present: &[&str]) -> Steps {
    let present = present.iter().map(|c| client(c)).collect();
    let steps = run.step(at(ms), Event::Tick { present, looked_at: Some(at(ms)) });
    kept.persist(&steps);
    steps
}

pub(super) fn outcome_of(end: &End, name: &str, who: &str) -> Option<Outcome> {
    let (End::Settled(all) | End::Failed { summaries: all, .. }) = end else { panic!("{end:?}") };
    let one = all.iter().find(|s| s.service == service(name)).unwrap();
    one.clients.iter().find(|c| c.client == client(who)).unwrap().outcome
}

pub(super) fn end_of(steps: &Steps) -> End {
    match steps.then.last() {
        Some(Action::Over(end)) => end.clone(),
        other => panic!("expected the end, found {other:?}"),
    }
}

#[test]
fn a_whole_adoption_tells_every_client_and_knows_what_became_of_it() {
    let (mut run, mut kept) = asked_for();
    let notices = notifying(&mut run, &mut kept);
    let numbers: Vec<_> = notices.iter().map(|n| (n.service.as_str(), n.state.0, n.clients.len())).collect();
    assert_eq!(
        numbers,
        [("nfs", 11, 2), ("home", 5, 1)],
        "each service has a number of its own, never sent before"
    );
    ack(&mut run, &mut kept, "nfs", "10.0.0.1");
    ack(&mut run, &mut kept, "home", "10.0.0.8");
    run.step(at(1_700), Event::Registered([client("10.0.0.8")].into()));
    ended(&mut run, &mut kept, "home", &[]);
    assert_eq!(run.phase(), Phase::Notifying, "the other service is still being told");
    ended(&mut run, &mut kept, "nfs", &[("10.0.0.2", Outcome::Unreachable)]);
    assert_eq!(run.phase(), Phase::Settling);
    assert_eq!(tick(&mut run, &mut kept, 15_000, &["10.0.0.8"]), Batch::nothing(), "grace is not over");
    let end = end_of(&tick(&mut run, &mut kept, 17_000, &["10.0.0.8"]));
    assert_eq!(outcome_of(&end, "nfs", "10.0.0.1"), Some(Outcome::Acknowledged));
    assert_eq!(outcome_of(&end, "nfs", "10.0.0.2"), Some(Outcome::Unreachable));
    assert_eq!(outcome_of(&end, "home", "10.0.0.8"), Some(Outcome::ReRegistered));
    assert_eq!(
        kept.retired,
        [client("10.0.0.1")],
        "told, and did not come back; the unreachable one is kept"
    );
}

#[test]
fn a_state_number_is_durable_before_a_notification_carries_it() {
    let (mut run, mut kept) = asked_for();
    notifying(&mut run, &mut kept);
    assert_eq!(kept.of(&service("nfs")).journal.phase, Phase::Notifying);
    assert_eq!(kept.of(&service("nfs")).state, StateNumber(11));
}

#[test]
fn a_strategy_that_drops_no_locks_tells_no_other_clients() {
    let mut run = Takeover::new(at(0), plan(Strategy::Notify, Until::Settled));
    run.step(at(0), Event::Start);
    let steps = run.step(at(0), Event::Fit(Ok(())));
    let [Action::Claim { services, .. }] = steps.then.as_slice() else { panic!("{steps:?}") };
    assert_eq!(*services, [(service("nfs"), Part::Target)]);
}

#[test]
fn clients_whose_locks_are_gone_already_are_told_by_the_next_run() {
    let mut run = Takeover::new(at(0), owing(&["home"], plan(Strategy::Notify, Until::Settled)));
    run.step(at(0), Event::Start);
    let steps = run.step(at(0), Event::Fit(Ok(())));
    let [Action::Claim { services, .. }] = steps.then.as_slice() else { panic!("{steps:?}") };
    assert_eq!(*services, [(service("nfs"), Part::Target), (service("home"), Part::Own)]);
}

#[test]
fn a_strategy_that_cannot_work_here_is_refused_before_anything_is_claimed() {
    let mut run = Takeover::new(at(0), plan(Strategy::RestartLockManager, Until::Settled));
    run.step(at(0), Event::Start);
    let end = end_of(&run.step(at(0), Event::Fit(Err("lockd ignores SIGKILL".into()))));
    assert_eq!(end, End::Refused("lockd ignores SIGKILL".into()));
}

#[test]
fn without_the_fences_word_nothing_is_claimed() {
    let mut plan = plan(Strategy::RestartNfs, Until::Settled);
    plan.fence = true;
    let mut run = Takeover::new(at(0), plan);
    run.step(at(0), Event::Start);
    assert_eq!(run.step(at(0), Event::Fit(Ok(()))).then, [Action::Fence(vec![service("nfs")])]);
    assert!(matches!(end_of(&run.step(at(0), Event::Fenced(Err("exit 1".into())))), End::Refused(_)));
}

#[test]
fn prepare_stops_with_grace_proved_and_finish_goes_on() {
    let mut run = Takeover::new(at(0), plan(Strategy::RestartNfs, Until::Prepared));
    let won = vec![claimed("nfs", 1, &["10.0.0.1"], &[])];
    for event in [
        Event::Start,
        Event::Fit(Ok(())),
        Event::Claimed { won, refused: vec![], unread: vec![] },
        Event::Conveyed(Ok(Vec::new())),
    ] {
        run.step(at(1_000), event);
    }
    run.step(at(1_000), recognition(life("2")));
    assert_eq!(run.step(at(1_000), Event::Proved(Ok(()))).then, [Action::AwaitFinish]);
    assert!(run.awaits_finish());
    let steps = run.step(at(2_000), Event::Finish);
    assert_eq!(steps.then, [Action::BringUp(vec![(service("nfs"), Part::Target)])]);
    assert_eq!(run.step(at(2_000), Event::Finish), Batch::nothing(), "said twice, done once");
}

#[test]
fn a_restart_in_the_middle_stops_the_notifier_at_once() {
    let (mut run, mut kept) = asked_for();
    notifying(&mut run, &mut kept);
    let steps = run.step(at(3_000), Event::LifeChanged);
    assert_eq!(steps.then.first(), Some(&Action::StopNotifying));
    assert!(run.is_over());
}

#[test]
fn a_run_that_learns_of_a_higher_generation_stops() {
    let (mut run, mut kept) = asked_for();
    notifying(&mut run, &mut kept);
    let steps = run.step(at(3_000), Event::Overtaken(service("nfs")));
    let [Action::StopNotifying, Action::Notify(notices)] = steps.then.as_slice() else { panic!("{steps:?}") };
    assert_eq!(
        notices.iter().map(|n| n.service.as_str()).collect::<Vec<_>>(),
        ["home"],
        "ours lost their locks"
    );
    run.step(at(4_000), Event::NotifyEnded { service: service("home"), left: vec![] });
    let steps = tick(&mut run, &mut kept, 30_000, &[]);
    let is_overtaken = |end: End| matches!(end, End::Failed { hindrance: Hindrance::Overtaken, .. });
    assert!(is_overtaken(end_of(&steps)), "it was asked to adopt, and has not");

    let steps = run_of_target_alone().step(at(3_000), Event::Overtaken(service("nfs")));
    assert_eq!(steps.then.first(), Some(&Action::StopNotifying));
    assert!(is_overtaken(end_of(&steps)));
}

#[test]
fn when_grace_is_gone_no_client_is_told_and_all_are_reported_lost() {
    let mut run = Takeover::new(at(0), plan(Strategy::RestartNfs, Until::Settled));
    let won = vec![claimed("nfs", 1, &["10.0.0.1"], &[])];
    for event in [
        Event::Start,
        Event::Fit(Ok(())),
        Event::Claimed { won, refused: vec![], unread: vec![] },
        Event::Conveyed(Ok(Vec::new())),
    ] {
        run.step(at(1_000), event);
    }
    run.step(at(1_000), recognition(life("2")));
    let steps = run.step(at(1_000), Event::Proved(Err("grace is over".into())));
    assert!(!steps.then.iter().any(|a| matches!(a, Action::Notify(_))));
    assert_eq!(outcome_of(&end_of(&steps), "nfs", "10.0.0.1"), Some(Outcome::Lost));
    assert!(!steps.persist.iter().any(|p| matches!(p, Persist::Retire { .. })), "it stays on record");
}

#[test]
fn a_self_adoption_touches_nothing_and_tells_the_clients_of_every_service() {
    let mut plan = plan(Strategy::RestartNfs, Until::Settled);
    (plan.cause, plan.targets) = (Cause::OwnRestart, vec![]);
    let plan = owing(&["home"], plan);
    let mut run = Takeover::new(at(0), plan);
    let steps = run.step(at(0), Event::Start);
    let [Action::Claim { services, .. }] = steps.then.as_slice() else { panic!("{steps:?}") };
    assert_eq!(*services, [(service("home"), Part::Own)]);
    run.step(
        at(0),
        Event::Claimed {
            won: vec![claimed("home", 2, &["10.0.0.8"], &[3])],
            refused: vec![],
            unread: vec![],
        },
    );
    let steps = run.step(at(0), Event::Conveyed(Ok(Vec::new())));
    assert_eq!(steps.then, [Action::Recognise(Strategy::Notify)]);
}

#[test]
fn all_clients_back_ends_the_waiting_early_and_retires_none() {
    let (mut run, mut kept) = asked_for();
    notifying(&mut run, &mut kept);
    let all = [client("10.0.0.1"), client("10.0.0.2"), client("10.0.0.8")];
    kept.persist(&run.step(at(2_000), Event::Registered(all.into())));
    ended(&mut run, &mut kept, "home", &[]);
    ended(&mut run, &mut kept, "nfs", &[]);
    assert!(matches!(end_of(&tick(&mut run, &mut kept, 12_100, &[])), End::Settled(_)));
    assert!(kept.retired.is_empty());
}

#[test]
fn all_clients_back_and_a_look_after_grace_are_due_at_once() {
    let (mut run, mut kept) = asked_for();
    notifying(&mut run, &mut kept);
    ended(&mut run, &mut kept, "home", &[]);
    ended(&mut run, &mut kept, "nfs", &[]);
    let mut alone = run.clone();
    assert!(!run.is_due(at(12_000)), "grace goes on, and they may come");
    let all = [client("10.0.0.1"), client("10.0.0.2"), client("10.0.0.8")];
    kept.persist(&run.step(at(12_000), Event::Registered(all.into())));
    assert!(run.is_due(at(12_000)), "nothing is left to wait for");

    assert!(alone.is_due(at(17_000)));
    let blind = Event::Tick { present: BTreeSet::new(), looked_at: Some(at(16_900)) };
    assert_eq!(alone.step(at(17_000), blind), Batch::nothing());
    assert!(alone.is_due(at(17_100)), "the next look ends it, and not the end of the wait for one");
}

#[test]
fn a_run_that_can_not_claim_for_its_own_clients_drops_none_of_their_locks() {
    let mut run = Takeover::new(at(0), plan(Strategy::RestartNfs, Until::Settled));
    run.step(at(0), Event::Start);
    run.step(at(0), Event::Fit(Ok(())));
    let won = vec![claimed("nfs", 5, &["10.0.0.1"], &[7])];
    let refused = vec![(service("home"), "the store fails".to_owned())];
    let steps = run.step(at(0), Event::Claimed { won, refused, unread: vec![] });
    let (why, claimed) = ("the store fails".into(), vec![service("nfs")]);
    assert_eq!(
        steps.then,
        [Action::Over(End::Unbegun { why, claimed })],
        "it is not said that nothing was changed"
    );
}

#[test]
fn a_target_that_was_claimed_by_another_leaves_our_own_clients_to_be_told() {
    let mut run = Takeover::new(at(0), plan(Strategy::RestartNfs, Until::Settled));
    let mut kept = Kept::default();
    run.step(at(0), Event::Start);
    run.step(at(0), Event::Fit(Ok(())));
    let won = vec![claimed("nfs", 5, &["10.0.0.1"], &[7]), claimed("home", 2, &["10.0.0.8"], &[3])];
    kept.persist(&run.step(at(0), Event::Claimed { won: won.clone(), refused: vec![], unread: vec![] }));
    let mut early = run.clone();
    assert!(
        early.step(at(0), Event::Overtaken(service("nfs"))).then.len() == 1,
        "nothing is dropped yet: it ends"
    );
    run.step(at(0), Event::Conveyed(Ok(Vec::new())));
    assert_eq!(run.step(at(0), Event::Overtaken(service("nfs"))), Batch::nothing());
    run.step(at(1_000), recognition(life("2")));
    run.step(at(1_000), Event::Proved(Ok(())));
    let told = run.step(at(1_000), Event::BroughtUp(Ok(()))).then;
    let [Action::Notify(notices)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(notices.iter().map(|n| n.service.as_str()).collect::<Vec<_>>(), ["home"]);
}

/// A run without clients of our own, on the point of telling the others.
fn run_of_target_alone() -> Takeover {
    let mut run = Takeover::new(at(0), plan(Strategy::Notify, Until::Settled));
    let won = vec![claimed("nfs", 5, &["10.0.0.1"], &[7])];
    for event in [Event::Start, Event::Fit(Ok(())), Event::Claimed { won, refused: vec![], unread: vec![] }] {
        run.step(at(0), event);
    }
    for event in [
        Event::Conveyed(Ok(Vec::new())),
        recognition(life("2")),
        Event::Proved(Ok(())),
        Event::BroughtUp(Ok(())),
    ] {
        run.step(at(1_500), event);
    }
    run
}

#[test]
fn a_finish_that_never_comes_is_waited_for_while_it_helps_and_no_longer() {
    let mut run = Takeover::new(at(0), plan(Strategy::RestartNfs, Until::Prepared));
    let won = vec![claimed("nfs", 5, &["10.0.0.1"], &[7]), claimed("home", 2, &["10.0.0.8"], &[3])];
    for event in [
        Event::Start,
        Event::Fit(Ok(())),
        Event::Claimed { won, refused: vec![], unread: vec![] },
        Event::Conveyed(Ok(Vec::new())),
    ] {
        run.step(at(0), event);
    }
    run.step(at(1_000), recognition(life("2")));
    run.step(at(1_000), Event::Proved(Ok(())));
    assert!(run.awaits_finish());
    assert_eq!(run.next_timeout(), Some(at(11_000)), "grace of 15 s, a margin of 5 s");
    let tick = || Event::Tick { present: BTreeSet::new(), looked_at: None };
    assert_eq!(run.step(at(10_900), tick()), Batch::nothing());
    let steps = run.step(at(11_000), tick());
    let End::Failed { summaries, .. } = end_of(&steps) else { panic!("{steps:?}") };
    let outcomes: Vec<_> = summaries.iter().flat_map(|s| &s.clients).map(|c| c.outcome).collect();
    assert_eq!(outcomes, [Some(Outcome::Lost), Some(Outcome::Lost)]);
}

#[test]
fn a_service_that_came_to_be_held_since_the_run_began_is_claimed_as_well() {
    let mut run = Takeover::new(at(0), Plan { fence: true, ..plan(Strategy::RestartNfs, Until::Settled) });
    run.step(at(0), Event::Start);
    run.step(at(0), Event::Fit(Ok(())));
    let own = vec![service("home"), service("late"), service("nfs")];
    run.stands(Standing { own, ..Standing::default() });
    let steps = run.step(at(900), Event::Fenced(Ok(())));
    let [Action::Claim { services, .. }] = steps.then.as_slice() else { panic!("{steps:?}") };
    let names: Vec<&str> = services.iter().map(|(service, _)| service.as_str()).collect();
    assert_eq!(names, ["nfs", "home", "late"]);
}

#[test]
fn a_self_adoption_leaves_none_of_its_services_behind() {
    let own = Plan {
        cause: Cause::OwnRestart,
        targets: vec![],
        ..owing(&["home", "nfs"], plan(Strategy::RestartNfs, Until::Settled))
    };
    let mut run = Takeover::new(at(0), own);
    run.step(at(0), Event::Start);
    let won = vec![claimed("home", 2, &["10.0.0.8"], &[3])];
    let refused = vec![(service("nfs"), "the store fails".to_owned())];
    let steps = run.step(at(0), Event::Claimed { won, refused, unread: vec![] });
    let (why, claimed) = ("the store fails".into(), vec![service("home")]);
    assert_eq!(steps.then, [Action::Over(End::Unbegun { why, claimed })], "all are asked for again");
}

#[test]
fn a_record_that_vanished_again_before_the_end_retires_no_client() {
    let (mut run, mut kept) = asked_for();
    notifying(&mut run, &mut kept);
    let who = || called("10.0.0.1");
    kept.persist(&run.step(at(2_000), Event::Acknowledged { service: service("nfs"), clients: vec![who()] }));
    ended(&mut run, &mut kept, "home", &[]);
    ended(&mut run, &mut kept, "nfs", &[]);
    tick(&mut run, &mut kept, 12_000, &["10.0.0.1"]);
    assert!(matches!(end_of(&tick(&mut run, &mut kept, 17_100, &[])), End::Settled(_)));
    assert!(kept.retired.is_empty(), "{:?}", kept.retired);
}

#[test]
fn a_client_that_was_seen_at_any_moment_of_the_wait_is_not_retired() {
    let (mut run, mut kept) = asked_for();
    notifying(&mut run, &mut kept);
    ack(&mut run, &mut kept, "nfs", "10.0.0.1");
    ack(&mut run, &mut kept, "nfs", "10.0.0.2");
    ended(&mut run, &mut kept, "home", &[]);
    ended(&mut run, &mut kept, "nfs", &[]);
    run.saw([client("10.0.0.1")].iter());
    assert!(!run.is_due(at(12_000)), "no time tells it");
    assert!(matches!(end_of(&tick(&mut run, &mut kept, 17_100, &[])), End::Settled(_)));
    assert_eq!(kept.retired, [client("10.0.0.2")]);
}

#[test]
fn a_client_that_is_captured_between_the_claim_and_the_restart_is_told_as_well() {
    let mut run = Takeover::new(at(0), plan(Strategy::RestartNfs, Until::Settled));
    let won = vec![claimed("nfs", 5, &["10.0.0.1"], &[7]), claimed("home", 2, &["10.0.0.8"], &[3])];
    for event in [Event::Start, Event::Fit(Ok(())), Event::Claimed { won, refused: vec![], unread: vec![] }] {
        run.step(at(0), event);
    }
    run.step(at(0), Event::Conveyed(Ok(Vec::new())));
    run.captured(&service("home"), [client("10.0.0.8"), client("10.0.0.9")].iter());
    run.step(at(1_000), recognition(life("2")));
    run.captured(&service("home"), [client("10.0.0.7")].iter());
    run.step(at(1_000), Event::Proved(Ok(())));
    let steps = run.step(at(1_000), Event::BroughtUp(Ok(())));
    let [Action::Notify(notices)] = steps.then.as_slice() else { panic!("{steps:?}") };
    let home = notices.iter().find(|notice| notice.service == service("home")).unwrap();
    assert_eq!(
        home.clients,
        [called("10.0.0.8"), called("10.0.0.9")],
        "the last one's locks are in the new life"
    );
}

#[test]
fn a_client_that_registers_after_grace_without_having_been_told_has_not_asked_to_reclaim() {
    let (mut run, mut kept) = asked_for();
    notifying(&mut run, &mut kept);
    ack(&mut run, &mut kept, "nfs", "10.0.0.2");
    ended(&mut run, &mut kept, "home", &[]);
    ended(&mut run, &mut kept, "nfs", &[("10.0.0.1", Outcome::Unreachable)]);
    run.step(at(16_500), Event::Registered([client("10.0.0.1"), client("10.0.0.2")].into()));
    let end = end_of(&tick(&mut run, &mut kept, 17_100, &[]));
    assert_eq!(outcome_of(&end, "nfs", "10.0.0.1"), Some(Outcome::Unreachable));
    assert_eq!(outcome_of(&end, "nfs", "10.0.0.2"), Some(Outcome::ReRegistered));
}

#[test]
fn no_client_is_retired_before_a_look_shows_that_the_same_life_goes_on() {
    let (mut run, mut kept) = asked_for();
    notifying(&mut run, &mut kept);
    ack(&mut run, &mut kept, "nfs", "10.0.0.1");
    ended(&mut run, &mut kept, "home", &[]);
    ended(&mut run, &mut kept, "nfs", &[]);
    let look = |looked_at| Event::Tick { present: BTreeSet::new(), looked_at };
    assert_eq!(run.step(at(17_100), look(Some(at(16_900)))), Batch::nothing(), "it may have stopped since");
    let mut blind = run.clone();
    kept.persist(&run.step(at(17_500), look(Some(at(17_400)))));
    assert_eq!(kept.retired, [client("10.0.0.1")]);
    kept.retired.clear();
    kept.persist(&blind.step(at(27_100), look(None)));
    assert!(blind.is_over() && kept.retired.is_empty(), "the wait is bounded");
}

#[test]
fn a_client_of_two_services_that_was_told_of_one_has_not_come_back_for_the_other() {
    let mut run = Takeover::new(at(0), plan(Strategy::RestartNfs, Until::Settled));
    let won = vec![claimed("nfs", 5, &["10.0.0.1"], &[7]), claimed("home", 2, &["10.0.0.1"], &[3])];
    let ready = [Event::Proved(Ok(())), Event::BroughtUp(Ok(()))];
    let before = [
        Event::Start,
        Event::Fit(Ok(())),
        Event::Claimed { won, refused: vec![], unread: vec![] },
        Event::Conveyed(Ok(Vec::new())),
    ];
    for event in before.into_iter().chain([recognition(life("2"))]).chain(ready) {
        run.step(at(1_000), event);
    }
    run.step(at(2_000), Event::Acknowledged { service: service("nfs"), clients: vec![called("10.0.0.1")] });
    run.step(at(2_500), Event::Registered([client("10.0.0.1")].into()));
    run.step(at(11_000), Event::NotifyEnded { service: service("nfs"), left: vec![] });
    let left = vec![(called("10.0.0.1"), Outcome::Unreachable, "no answer".to_owned())];
    run.step(at(11_000), Event::NotifyEnded { service: service("home"), left });
    let steps = run.step(at(17_100), Event::Tick { present: BTreeSet::new(), looked_at: Some(at(17_100)) });
    let end = end_of(&steps);
    assert_eq!(outcome_of(&end, "nfs", "10.0.0.1"), Some(Outcome::ReRegistered));
    assert_eq!(
        outcome_of(&end, "home", "10.0.0.1"),
        Some(Outcome::Unreachable),
        "its locks there are not back"
    );
}

#[test]
fn another_life_leaves_it_all_to_the_next_run_even_if_its_beginning_was_not_seen() {
    let (mut run, mut kept) = asked_for();
    notifying(&mut run, &mut kept);
    let steps = run.step(at(3_000), Event::LifeChanged);
    assert!(matches!(end_of(&steps), End::Failed { .. }));
    let duties: Vec<Duty> = steps
        .persist
        .iter()
        .filter_map(|one| match one {
            Persist::Journal { journal, .. } => {
                Some(duty(journal, true, &life("2"), false, EarlierLocks::Alive))
            }
            _ => None,
        })
        .collect();
    assert_eq!(
        duties,
        [Duty::Recover, Duty::Recover],
        "killed in place it looks like the life that was recognised"
    );
}

#[test]
fn a_client_that_was_not_told_before_an_earlier_grace_period_ended_is_lost_for_good() {
    let (mut run, mut kept) =
        (Takeover::new(at(0), owing(&["home"], plan(Strategy::RestartNfs, Until::Settled))), Kept::default());
    run.step(at(0), Event::Start);
    run.step(at(0), Event::Fit(Ok(())));
    let mut home = claimed("home", 2, &["10.0.0.8", "10.0.0.9"], &[3]);
    home.told.insert(client("10.0.0.9"));
    let won = vec![claimed("nfs", 5, &["10.0.0.1"], &[7]), home];
    kept.persist(&run.step(at(0), Event::Claimed { won, refused: vec![], unread: vec![] }));
    kept.persist(&run.step(at(0), Event::Conveyed(Ok(Vec::new()))));
    assert!(run.owes_already());
    let Event::Recognised(Ok(seen)) = recognition(life("3")) else { panic!() };
    let late = Recognition { too_late_for_the_lost: true, ..seen };
    kept.persist(&run.step(at(1_000), Event::Recognised(Ok(late))));
    let line = kept.of(&service("home")).outcomes.first().cloned().unwrap();
    assert_eq!(
        (line.client.as_str(), line.outcome, line.is_final),
        ("10.0.0.8", Outcome::Lost, true),
        "durable at once"
    );
    run.step(at(1_000), Event::Proved(Ok(())));
    let steps = run.step(at(1_000), Event::BroughtUp(Ok(())));
    kept.persist(&steps);
    let [Action::Notify(notices)] = steps.then.as_slice() else { panic!("{steps:?}") };
    let told = notices.iter().find(|notice| notice.service == service("home")).unwrap();
    assert_eq!(told.clients.len(), 2, "what is theirs still they get back");
    for who in ["10.0.0.8", "10.0.0.9"] {
        ack(&mut run, &mut kept, "home", who);
    }
    ack(&mut run, &mut kept, "nfs", "10.0.0.1");
    let back = Event::Registered([client("10.0.0.8")].into());
    kept.persist(&run.step(at(1_700), back));
    let mut again = Takeover::resume(at(0), Duration::from_secs(5), LIMITS, kept.found()).unwrap();
    again.step(at(1_000), recognition(life("3")));
    for run in [&mut run, &mut again] {
        kept.persist(&run.step(at(1_800), Event::Proved(Ok(()))));
        run.step(at(1_800), Event::BroughtUp(Ok(())));
        for name in ["home", "nfs"] {
            run.step(at(12_000), Event::NotifyEnded { service: service(name), left: vec![] });
        }
        let over = Event::Tick { present: BTreeSet::new(), looked_at: Some(at(17_000)) };
        let end = end_of(&run.step(at(17_000), over));
        assert_eq!(outcome_of(&end, "home", "10.0.0.8"), Some(Outcome::Lost));
        assert_eq!(
            outcome_of(&end, "home", "10.0.0.9"),
            Some(Outcome::Acknowledged),
            "it was told in that life"
        );
        assert_eq!(outcome_of(&end, "nfs", "10.0.0.1"), Some(Outcome::Acknowledged));
    }
}

#[test]
fn a_run_that_failed_before_any_restart_is_owed_to_a_life_that_begins_unseen() {
    let mut kept = Kept::default();
    let mut run = Takeover::new(at(0), plan(Strategy::RestartNfs, Until::Settled));
    let own = vec![service("home")];
    run.stands(Standing { own, life_now: Some(life("1")), ..Standing::default() });
    run.step(at(0), Event::Start);
    run.step(at(0), Event::Fit(Ok(())));
    let won = vec![claimed("nfs", 5, &["10.0.0.1"], &[7]), claimed("home", 2, &["10.0.0.8"], &[3])];
    kept.persist(&run.step(at(0), Event::Claimed { won, refused: vec![], unread: vec![] }));
    kept.persist(&run.step(at(0), Event::Conveyed(Err("no space".into()))));
    let journal = kept.of(&service("home")).journal.clone();
    let owed = |now| duty(&journal, true, &life(now), false, EarlierLocks::Unknown);
    assert_eq!((journal.phase, owed("1")), (Phase::Failed, Duty::Nothing), "a person's to repeat");
    assert_eq!(owed("2"), Duty::Recover, "whether an agent saw it begin or not");
}

#[test]
fn a_client_that_was_never_called_is_lost_though_it_registered_for_a_lock_of_another_service() {
    let (mut run, mut kept) = asked_for();
    notifying(&mut run, &mut kept);
    let came = || Event::Registered([client("10.0.0.1"), client("10.0.0.2")].into());
    kept.persist(&run.step(at(1_700), came()));
    ended(&mut run, &mut kept, "home", &[]);
    ended(&mut run, &mut kept, "nfs", &[("10.0.0.1", Outcome::Lost), ("10.0.0.2", Outcome::Unreachable)]);
    kept.persist(&run.step(at(12_500), came()));
    let end = end_of(&tick(&mut run, &mut kept, 17_000, &[]));
    assert_eq!(outcome_of(&end, "nfs", "10.0.0.1"), Some(Outcome::Lost));
    assert_eq!(outcome_of(&end, "nfs", "10.0.0.2"), Some(Outcome::ReRegistered), "it was called");
}
