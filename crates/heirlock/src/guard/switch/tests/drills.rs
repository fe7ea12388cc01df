//! The weekly drill's timer, which a person turns on.

use super::*;

/// As a package brings it.
const PACKAGED: &str = "/lib/systemd/system/heirlock-drill.timer";
const LINK: &str = "/etc/systemd/system/timers.target.wants/heirlock-drill.timer";
const STARTED: &str = "/run/active/heirlock-drill.timer";
const TURNED_OFF: &str = "disable --now heirlock-drill.timer";

/// A host with the timer, and whether it is enabled and whether it was started.
fn with_timer(is_enabled: bool, is_started: bool) -> Tree {
    let tree = Tree::debian();
    tree.put(PACKAGED, "[Timer]\nOnCalendar=weekly\n");
    tree.folder("/run/active");
    on(&tree);
    if is_enabled {
        tree.relink(LINK, PACKAGED);
    }
    if is_started {
        tree.put(STARTED, "");
    }
    tree
}

#[test]
fn a_weekly_drill_that_is_on_ends_before_the_agent_does() {
    for (is_enabled, is_started) in [(true, true), (true, false), (false, true)] {
        let tree = with_timer(is_enabled, is_started);
        let plan = disable(&tree.host(), &settings(SERVICE), true).unwrap();
        assert_eq!((tree.exists(LINK), tree.exists(STARTED)), (is_enabled, is_started), "a plan");
        let steps = off(&tree);
        assert!(!tree.exists(LINK) && !tree.exists(STARTED), "{is_enabled} {is_started}");
        for (said, outcome) in [(&plan, StepOutcome::Planned), (&steps, StepOutcome::Done)] {
            let what = outcomes(said, outcome)[0];
            assert!(what.starts_with("stop and disable heirlock-drill.timer"), "{what}");
            assert!(
                what.contains("'systemctl enable --now heirlock-drill.timer' turns it on again"),
                "{what}"
            );
        }
        let calls = tree.calls();
        let at = |call: &str| calls.iter().position(|one| one == call);
        assert!(at(TURNED_OFF).unwrap() < at("disable --now heirlock.service").unwrap(), "{calls:?}");
    }
}

#[test]
fn a_weekly_drill_that_is_off_is_not_spoken_of() {
    let tree = with_timer(false, false);
    let mut steps = disable(&tree.host(), &settings(SERVICE), true).unwrap();
    steps.extend(off(&tree));
    assert!(steps.iter().all(|step| !step.what.contains("drill")), "{steps:?}");
    assert!(!tree.calls().contains(&TURNED_OFF.to_owned()));
}

#[test]
fn a_link_that_leads_to_no_timer_is_no_reason_to_fail() {
    let tree = with_timer(true, false);
    tree.remove(PACKAGED);
    let steps = off(&tree);
    assert!(steps.iter().all(|step| !step.what.contains("drill")), "{steps:?}");
    assert!(!tree.exists(UNIT_FILE));
}

#[test]
fn without_systemd_no_timer_is_looked_for() {
    let tree = with_timer(true, true);
    let host = Host { systemctl: None, ..tree.host() };
    let steps = disable(&host, &settings(SERVICE), false).unwrap();
    assert!(steps.iter().all(|step| !step.what.contains("drill")), "{steps:?}");
    assert!(tree.exists(LINK) && tree.exists(STARTED));
}

#[test]
fn enable_leaves_the_weekly_drill_as_it_is() {
    for is_on in [true, false] {
        let tree = with_timer(is_on, is_on);
        let steps = on(&tree);
        assert!(steps.iter().all(|step| !step.what.contains("drill")), "{steps:?}");
        assert_eq!((tree.exists(LINK), tree.exists(STARTED)), (is_on, is_on));
    }
}
