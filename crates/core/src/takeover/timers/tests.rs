use super::super::tests::{
    ack, at, claimed, client, end_of, life, notifying, outcome_of, plan, recognition, service, tick,
};
use super::super::{End, Plan, Strategy, Until};
use super::*;
use crate::outcome::Outcome;

/// As in the plan of these tests.
const LIMIT_MS: u64 = 60_000;

fn run() -> Takeover {
    Takeover::new(at(0), Plan { fence: true, ..plan(Strategy::RestartNfs, Until::Settled) })
}

/// A run to which all this has happened, the last of it the beginning of this work, a second after its start.
fn working(before: &[Event], work: Work) -> Takeover {
    let mut run = run();
    let _ = run.step(at(0), Event::Start);
    for event in before {
        let _ = run.step(at(500), event.clone());
    }
    assert_eq!(run.next_timeout(), None, "what waits for the store is not counted");
    assert_eq!(run.step(at(1_000), Event::Begun(work)), Steps::nothing());
    run
}

fn after(run: &mut Takeover, ms: u64) -> Steps {
    run.step(at(ms), Event::Tick { present: Default::default(), looked_at: Some(at(ms)) })
}

fn claims() -> Event {
    let won = vec![claimed("nfs", 5, &["10.0.0.1"], &[7]), claimed("home", 2, &["10.0.0.8"], &[3])];
    Event::Claimed { won, refused: vec![], unread: vec![] }
}

#[test]
fn a_run_whose_work_hangs_ends_at_its_time_limit_and_says_what_hangs() {
    let (fit, fenced, conveyed) = (Event::Fit(Ok(())), Event::Fenced(Ok(())), Event::Conveyed(Ok(vec![])));
    let all = [fit, fenced, claims(), conveyed, recognition(life("2")), Event::Proved(Ok(()))];
    let grace_ends = 1_000 + 15_000;
    let late = grace_ends + u64::try_from(limits::LATE_REPORT_TIME_MAX.as_millis()).unwrap();
    for (work, count, until, said) in [
        (Work::Fit, 0, 1_000 + LIMIT_MS, "the adoption's needs could not be looked at"),
        (Work::Fence, 1, 1_000 + LIMIT_MS, "the fence has not answered"),
        (Work::Recognition, 4, 1_000 + LIMIT_MS, "the lock manager was not made to recognise"),
        (Work::Proof, 5, 1_000 + LIMIT_MS, "whether grace is open was not learnt"),
        (Work::BringUp, 6, late, "addresses were not looked for"),
    ] {
        let mut run = working(&all[..count], work);
        assert_eq!(run.next_timeout(), Some(at(until)), "{work:?}");
        assert!(!run.is_due(at(until - 1)) && run.is_due(at(until)), "{work:?}");
        assert_eq!(after(&mut run, until - 1), Steps::nothing(), "{work:?}");
        let steps = after(&mut run, until);
        let (why, hindrance) = match end_of(&steps) {
            End::Refused(why) => (why, None),
            End::Failed { hindrance, why, .. } => (why, Some(hindrance)),
            other => panic!("{other:?}"),
        };
        let has_claimed = hindrance.is_some();
        let expected = match work {
            Work::Recognition => Some(Hindrance::Recognition),
            Work::Proof => Some(Hindrance::Proof),
            Work::BringUp => Some(Hindrance::BringUp),
            Work::Fit | Work::Fence | Work::Conveying | Work::Telling => None,
        };
        assert_eq!(hindrance, expected, "{work:?}");
        assert!(why.starts_with(said) && why.contains("hangs"), "{why}");
        assert_eq!(has_claimed, count >= 3, "{work:?}: before its claim it changed nothing");
        assert_eq!(steps.persist.is_empty(), !has_claimed, "{work:?}");
        assert!(run.is_over() && run.next_timeout().is_none(), "{work:?}");
    }
}

#[test]
fn work_that_reported_is_not_waited_for_and_late_reports_change_nothing() {
    let mut run = working(&[], Work::Fit);
    let _ = run.step(at(1_100), Event::Fit(Ok(())));
    assert_eq!((run.next_timeout(), after(&mut run, 10 * LIMIT_MS)), (None, Steps::nothing()));
    let _ = run.step(at(1_200), Event::Begun(Work::Fence));
    let refused = after(&mut run, 1_200 + LIMIT_MS);
    assert!(matches!(end_of(&refused), End::Refused(_)));
    assert_eq!(run.step(at(2 * LIMIT_MS), Event::Fenced(Ok(()))), Steps::nothing());
}

#[test]
fn clients_of_a_notifier_that_never_reports_are_lost_and_those_that_answered_are_not() {
    let (mut run, mut kept) = super::super::tests::asked_for();
    notifying(&mut run, &mut kept);
    let _ = run.step(at(1_500), Event::Begun(Work::Telling));
    ack(&mut run, &mut kept, "nfs", "10.0.0.1");
    ack(&mut run, &mut kept, "home", "10.0.0.8");
    let _ = run.step(at(2_000), Event::NotifyEnded { service: service("home"), left: vec![] });
    let late = at(16_000) + limits::LATE_REPORT_TIME_MAX;
    assert_eq!(run.next_timeout(), Some(late), "one of two services is through");
    let steps = run.step(late, Event::Tick { present: Default::default(), looked_at: None });
    kept.persist(&steps);
    assert_eq!((steps.then.as_slice(), run.phase()), (&[Action::StopNotifying][..], Phase::Settling));
    let steps = tick(&mut run, &mut kept, 40_000, &[]);
    let end = end_of(&steps);
    let outcome = |name, who| outcome_of(&end, name, who);
    assert_eq!(outcome("nfs", "10.0.0.1"), Some(Outcome::Acknowledged));
    assert_eq!(outcome("nfs", "10.0.0.2"), Some(Outcome::Lost));
    assert_eq!(outcome("home", "10.0.0.8"), Some(Outcome::Acknowledged));
    let lines = &kept.remains[&service("nfs")].outcomes;
    let lost = lines.iter().find(|line| line.client == client("10.0.0.2")).unwrap();
    assert!(lost.why.as_deref().is_some_and(|why| why.starts_with("the notifier has not reported")));
}
