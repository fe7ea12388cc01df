use super::super::tests::{Kept, at, claimed, client, end_of, life, plan, recognition, service, tick};
use super::super::{Event, Persist, Plan, Standing, Work};
use super::*;

/// Of this generation and these clients, with a first start or not.
fn claims(won: Vec<Claimed>) -> Event {
    Event::Claimed { won, refused: Vec::new(), unread: Vec::new() }
}

/// A run that has claimed a service that was never claimed before, and what it asks for then.
fn first(until: Until) -> (Takeover, Kept, Steps) {
    let (mut run, mut kept) = (Takeover::new(at(0), plan(Strategy::RestartNfs, until)), Kept::default());
    run.step(at(0), Event::Start);
    run.step(at(0), Event::Fit(Ok(())));
    let steps = run.step(at(0), claims(vec![claimed("nfs", 1, &[], &[3])]));
    kept.persist(&steps);
    let steps = run.step(at(0), Event::Conveyed(Ok(Vec::new())));
    kept.persist(&steps);
    (run, kept, steps)
}

/// Grace was over long ago.
fn served(run: &mut Takeover, kept: &mut Kept) -> Steps {
    let steps = run.step(at(500_000), recognition(life("1")));
    kept.persist(&steps);
    steps
}

#[test]
fn a_service_that_no_server_ever_claimed_restarts_nothing_and_asks_for_no_grace() {
    let (mut run, mut kept, steps) = first(Until::Settled);
    assert_eq!(steps.then, [Action::Recognise(Strategy::Notify)]);
    run.begins(at(0), &steps.then[0]);
    let steps = served(&mut run, &mut kept);
    assert_eq!(steps.then, [Action::BringUp(vec![(service("nfs"), Part::Target)])]);
    let steps = run.step(at(500_100), Event::BroughtUp(Ok(())));
    kept.persist(&steps);
    let [Action::Notify(notices)] = steps.then.as_slice() else { panic!("{steps:?}") };
    assert_eq!((notices.len(), notices[0].clients.len()), (1, 0));
    kept.persist(&run.step(at(500_200), Event::NotifyEnded { service: service("nfs"), left: Vec::new() }));
    let end = end_of(&tick(&mut run, &mut kept, 500_300, &["10.0.0.9"]));
    assert!(matches!(end, End::Settled(_)), "{end:?}");
    let journal = &kept.of(&service("nfs")).journal;
    assert_eq!((journal.phase, &journal.failure, &journal.life), (Phase::Settled, &None, &Some(life("1"))));
    let events: Vec<Milestone> = journal.timeline.iter().map(|stamp| stamp.event).collect();
    assert!(!events.contains(&Milestone::Proved) && !events.contains(&Milestone::Recognised), "{events:?}");
}

#[test]
fn a_first_start_that_is_prepared_waits_for_finish_and_loses_nothing_where_none_comes() {
    let (mut run, mut kept, _) = first(Until::Prepared);
    assert_eq!(served(&mut run, &mut kept).then, [Action::AwaitFinish]);
    assert!(run.awaits_finish() && run.is_prepared());
    let due = run.next_timeout().unwrap();
    assert!(due > at(500_000), "{due:?}");
    let steps = run.step(due, Event::Tick { present: [].into(), looked_at: None });
    kept.persist(&steps);
    assert!(matches!(end_of(&steps), End::Settled(_)), "{steps:?}");
    assert_eq!(kept.of(&service("nfs")).journal.failure, None);
}

#[test]
fn clients_that_come_while_a_service_is_started_for_the_first_time_are_not_told() {
    let (mut run, kept, _) = first(Until::Settled);
    let newcomer = client("10.0.0.9");
    run.captured(&service("nfs"), [&newcomer].into_iter());
    assert_eq!(run.counts(), (0, 0));
    for phase in [Phase::Proved, Phase::Notifying, Phase::Settling] {
        let mut kept = kept.clone();
        let remains = kept.of(&service("nfs"));
        (remains.journal.phase, remains.journal.life) = (phase, Some(life("1")));
        remains.clients = vec![newcomer.clone()];
        let limits = super::super::tests::LIMITS;
        let mut resumed =
            Takeover::resume(at(0), std::time::Duration::from_secs(5), limits, kept.found()).unwrap();
        assert!(resumed.is_first_start() && resumed.counts() == (0, 0), "{phase}");
        resumed.begins(at(0), &Action::Recognise(Strategy::Notify));
        let steps = resumed.step(at(500_000), recognition(life("1")));
        assert!(!steps.then.contains(&Action::Prove), "{phase}: {steps:?}");
        let lost = |one: &Persist| matches!(one, Persist::Outcomes { .. });
        assert!(!steps.persist.iter().any(lost), "{phase}: {steps:?}");
    }
}

#[test]
fn a_service_with_a_client_or_with_a_generation_before_is_recovered_as_ever() {
    let own = || claimed("home", 2, &["10.0.0.8"], &[3]);
    for won in [
        claimed("nfs", 2, &[], &[3]),
        claimed("nfs", 1, &["10.0.0.1"], &[3]),
        Claimed { troubles: vec![trouble()], ..claimed("nfs", 1, &[], &[3]) },
    ] {
        let mut run = Takeover::new(at(0), plan(Strategy::RestartNfs, Until::Settled));
        run.step(at(0), Event::Start);
        run.step(at(0), Event::Fit(Ok(())));
        let what = format!("{won:?}");
        run.step(at(0), claims(vec![won, own()]));
        let steps = run.step(at(0), Event::Conveyed(Ok(Vec::new())));
        assert_eq!(steps.then, [Action::Recognise(Strategy::RestartNfs)], "{what}");
    }
}

fn trouble() -> super::super::Trouble {
    let why = "torn".to_owned();
    super::super::Trouble { service: service("nfs"), entry: "x".into(), why, fate_unknown: true }
}

#[test]
fn what_is_owed_to_own_clients_already_is_claimed_beside_a_first_start() {
    let spares = |standing| {
        let asked = plan(Strategy::RestartNfs, Until::Settled);
        Takeover::new(at(0), Plan { standing, ..asked }).spares_own()
    };
    let own = vec![service("home")];
    assert!(spares(Standing { own: own.clone(), ..Standing::default() }));
    assert!(!spares(Standing { own: own.clone(), lost: own.clone(), ..Standing::default() }));
    assert!(!spares(Standing { unknown: own.clone(), own, ..Standing::default() }));
}

#[test]
fn an_address_that_does_not_come_is_said_though_no_client_is_lost() {
    let (mut run, mut kept, _) = first(Until::Settled);
    let steps = served(&mut run, &mut kept);
    run.begins(at(500_000), &steps.then[0]);
    assert_eq!(steps.then[0].work(), Some(Work::BringUp));
    let end = end_of(&run.step(at(510_000), Event::BroughtUp(Err("192.0.2.10 is nowhere".into()))));
    assert!(matches!(end, End::Failed { .. }), "{end:?}");
}
