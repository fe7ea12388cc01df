use std::sync::mpsc::channel;

use super::*;
use crate::agent::testing::{service, settings_in};
use crate::control::Line;
use crate::control::heard;

fn drills(directory: &tempfile::TempDir) -> Drills {
    let (host, settings) = (Host::here(), settings_in(directory));
    let snapshot = Arc::new(Snapshot::new(&host, &settings));
    Drills::new(&host, &settings, Clock::start(), snapshot)
}

#[test]
fn a_drill_whose_step_hangs_is_answered_and_kept_as_one_that_fails() {
    let directory = tempfile::tempdir().unwrap();
    let drills = drills(&directory);
    let (_hangs, report) = channel();
    let (responder, lines) = heard();
    let steps = Steps::hanging("the store to tell its records", DRILL_SLACK * 2);
    drills.wait(&service("nfs"), &steps, &report, responder);
    let Some(Line::Done(Answer::Drill(report))) = lines.iter().last() else { panic!() };
    assert_eq!(report.verdict, Verdict::Fails);
    let why = &report.checks[0].found;
    assert!(why.starts_with("it hangs: it has waited for the store to tell its records"), "{why}");
    assert_eq!(drills.status().drills[0].verdict, Verdict::Fails);
}

#[test]
fn a_drill_whose_thread_has_a_fault_is_answered_and_the_next_one_may_begin() {
    let directory = tempfile::tempdir().unwrap();
    let drills = drills(&directory);
    let (sender, report) = channel();
    drop(sender);
    let (responder, lines) = heard();
    drills.wait(&service("nfs"), &Steps::new(), &report, responder);
    let Some(Line::Failed(failure)) = lines.iter().last() else { panic!() };
    assert_eq!(failure.message, "the thread of the drill ended without a report");
    *drills.on.lock().unwrap() = Some((service("new"), Instant::now()));
    let refused = drills.begin(&service("nfs")).unwrap_err();
    assert!(refused.starts_with("a drill of new has been on here for 0 s"), "{refused}");
    drop(Ends(Arc::clone(&drills.on)));
    let (_, report) = drills.begin(&service("nfs")).unwrap();
    assert!(report.recv().unwrap().is_some());
    assert!(drills.on.lock().unwrap().is_none());
}
