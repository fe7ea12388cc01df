use super::super::tests::{at, called, claimed, end_of, life, outcome_of, plan, recognition, service};
use super::super::{End, Event, Hindrance, Plan, Work};
use super::*;
use crate::outcome::Outcome;

const LIMIT_MS: u64 = 60_000;

/// Two clients of what is taken over.
const LATE_MS: u64 = 100 + LIMIT_MS + 2 * 2;

fn claims() -> Event {
    let won =
        vec![claimed("nfs", 5, &["10.0.0.1", "10.0.0.2"], &[7, 9]), claimed("home", 2, &["10.0.0.8"], &[3])];
    Event::Claimed { won, refused: Vec::new(), unread: Vec::new() }
}

/// A run whose records begin to be placed, and what it asks for beside that.
fn begun(plan: Plan) -> (Takeover, Steps) {
    let mut run = Takeover::new(at(0), plan);
    for event in [Event::Start, Event::Fit(Ok(())), claims()] {
        let _ = run.step(at(0), event);
    }
    let beside = run.step(at(100), Event::Begun(Work::Conveying));
    (run, beside)
}

fn trouble() -> Trouble {
    let (service, entry) = (service("nfs"), "/var/lib/nfs/sm/10.0.0.1".to_owned());
    Trouble { service, entry, why: "expected a file, found a folder".to_owned(), fate_unknown: false }
}

fn passed(run: &mut Takeover, ms: u64) -> Steps {
    run.step(at(ms), Event::Tick { present: Default::default(), looked_at: Some(at(ms)) })
}

#[test]
fn the_lock_manager_recognises_beside_placing_unless_what_it_runs_reads_the_records() {
    for (strategy, until, goes_on) in [
        (Strategy::RestartNfs, Until::Settled, true),
        (Strategy::Notify, Until::Settled, true),
        (Strategy::RestartLockManager, Until::Settled, false),
        (Strategy::Command, Until::Settled, false),
        (Strategy::RestartNfs, Until::Prepared, false),
    ] {
        let (mut run, beside) = begun(plan(strategy, until));
        assert!(run.is_placing(), "{strategy}");
        let recognises = [Action::Recognise(strategy)];
        if goes_on {
            assert_eq!((beside.then.as_slice(), run.phase()), (&recognises[..], Phase::Conveyed));
            assert!(!beside.persist.is_empty(), "that it may have recognised is durable first");
        } else {
            assert_eq!((beside, run.phase()), (Steps::nothing(), Phase::Claimed), "{strategy} {until:?}");
            let placed = run.step(at(200), Event::Conveyed(Ok(Vec::new())));
            assert_eq!((placed.then.as_slice(), run.phase()), (&recognises[..], Phase::Conveyed));
        }
    }
}

#[test]
fn a_run_settles_after_the_last_record_is_placed_and_tells_what_could_not_be() {
    let (mut run, _) = begun(plan(Strategy::RestartNfs, Until::Settled));
    for event in [recognition(life("2")), Event::Proved(Ok(())), Event::BroughtUp(Ok(()))] {
        let _ = run.step(at(1_000), event);
    }
    let _ = run.step(at(1_000), Event::Served(service("nfs")));
    for (of, one) in [("nfs", "10.0.0.1"), ("nfs", "10.0.0.2"), ("home", "10.0.0.8")] {
        let clients = vec![called(one)];
        let _ = run.step(at(2_000), Event::Acknowledged { service: service(of), clients });
    }
    for of in ["nfs", "home"] {
        let _ = run.step(at(3_000), Event::NotifyEnded { service: service(of), left: Vec::new() });
    }
    assert!(run.has_tried_all() && run.phase() == Phase::Settling);
    // Grace is over, and placing isn't.
    assert_eq!((passed(&mut run, 30_000), run.is_due(at(30_000))), (Steps::nothing(), false));
    assert_eq!(run.next_timeout(), Some(at(LATE_MS)), "it does not spin until then");
    let placed = run.step(at(40_000), Event::Conveyed(Ok(vec![trouble()])));
    assert!(placed.then.is_empty() && placed.persist.len() == 2, "{placed:?}");
    assert!(run.is_due(at(40_000)));
    let end = end_of(&passed(&mut run, 40_000));
    assert!(matches!(end, End::Settled(_)), "{end:?}");
    assert_eq!(run.troubles(), [trouble()]);
    assert_eq!(outcome_of(&end, "nfs", "10.0.0.1"), Some(Outcome::Acknowledged));
}

#[test]
fn placing_that_hangs_keeps_no_client_from_being_told_and_is_said() {
    for (strategy, phase) in [(Strategy::RestartNfs, Phase::Conveyed), (Strategy::Command, Phase::Claimed)] {
        let (mut run, _) = begun(plan(strategy, Until::Settled));
        assert_eq!((run.phase(), run.next_timeout()), (phase, Some(at(LATE_MS))), "{strategy}");
        assert!(!run.is_due(at(LATE_MS - 1)) && run.is_due(at(LATE_MS)));
        assert_eq!(passed(&mut run, LATE_MS - 1), Steps::nothing());
        let steps = passed(&mut run, LATE_MS);
        let waited = phase == Phase::Claimed;
        assert_eq!(steps.then, if waited { vec![Action::Recognise(strategy)] } else { Vec::new() });
        assert!(!run.is_placing() && run.phase() == Phase::Conveyed);
        let [trouble_of_all] = run.troubles() else { panic!("{:?}", run.troubles()) };
        assert!(trouble_of_all.service == service("nfs") && trouble_of_all.why.contains("hangs"));
        assert_eq!((run.next_timeout(), passed(&mut run, 2 * LATE_MS)), (None, Steps::nothing()));
        // It may end still.
        let late = run.step(at(3 * LATE_MS), Event::Conveyed(Ok(vec![trouble()])));
        assert!(!late.persist.is_empty() && run.troubles().len() == 2);
        assert_eq!(run.step(at(3 * LATE_MS), Event::Conveyed(Ok(Vec::new()))), Steps::nothing(), "once");
    }
}

#[test]
fn records_that_cannot_be_placed_at_all_end_a_run_only_where_it_waits_for_them() {
    let (mut run, _) = begun(plan(Strategy::Command, Until::Settled));
    let failed = end_of(&run.step(at(200), Event::Conveyed(Err("no name".into()))));
    assert!(matches!(failed, End::Failed { hindrance: Hindrance::Conveying, .. }), "{failed:?}");
    assert_eq!(outcome_of(&failed, "nfs", "10.0.0.1"), Some(Outcome::Lost));
    let (mut run, _) = begun(plan(Strategy::RestartNfs, Until::Settled));
    let steps = run.step(at(200), Event::Conveyed(Err("no name".into())));
    assert!(steps.then.is_empty() && !run.is_over() && run.troubles().len() == 1);
}
