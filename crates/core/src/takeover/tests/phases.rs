//! The table of phases and events in the documentation, against the machine.

use super::super::*;
use super::{LIMITS, at, called, claimed, life, plan, recognition, service};
use crate::takeover::timers::Work;

const TABLE: &str = include_str!("../phases.md");

const PHASES: [Phase; 8] = [
    Phase::Intent,
    Phase::Fenced,
    Phase::Claimed,
    Phase::Conveyed,
    Phase::Recognised,
    Phase::Proved,
    Phase::Notifying,
    Phase::Settling,
];

/// The events that lead from each phase of the table to the next one.
fn steps() -> [Vec<Event>; 7] {
    let won =
        vec![claimed("nfs", 5, &["10.0.0.1", "10.0.0.2"], &[7]), claimed("home", 2, &["10.0.0.8"], &[3])];
    let ended = |name| Event::NotifyEnded { service: service(name), left: vec![] };
    [
        vec![Event::Start, Event::Fit(Ok(())), Event::Fenced(Ok(()))],
        vec![Event::Claimed { won, refused: vec![], unread: vec![] }],
        vec![Event::Conveyed(Ok(vec![]))],
        vec![recognition(life("2"))],
        vec![Event::Proved(Ok(()))],
        vec![Event::BroughtUp(Ok(()))],
        vec![ended("nfs"), ended("home")],
    ]
}

/// Runs that have come to this phase, with and without the work that they wait for there.
fn runs_in(phase: Phase) -> Vec<Takeover> {
    let count = PHASES.iter().position(|other| *other == phase).unwrap();
    let mut runs = Vec::new();
    for until in [Until::Settled, Until::Prepared] {
        let mut run =
            Takeover::new(at(0), Plan { fence: true, limits: LIMITS, ..plan(Strategy::RestartNfs, until) });
        for event in steps().iter().take(count).flatten() {
            // Records are still being placed, where nothing waits for that.
            let event = match event {
                Event::Conveyed(_) if until == Until::Settled => Event::Begun(Work::Conveying),
                event => event.clone(),
            };
            let _ = run.step(at(1_000), event);
        }
        assert_eq!(run.phase(), phase);
        let works: &[Work] = match phase {
            Phase::Intent => &[Work::Fit, Work::Fence],
            Phase::Claimed if until == Until::Prepared => &[Work::Conveying],
            Phase::Conveyed => &[Work::Recognition],
            Phase::Recognised => &[Work::Proof],
            Phase::Proved => &[Work::BringUp],
            Phase::Notifying => &[Work::Telling],
            _ => &[],
        };
        for work in works {
            let mut working = run.clone();
            let _ = working.step(at(1_000), Event::Begun(*work));
            runs.push(working);
        }
        runs.push(run);
    }
    runs
}

/// Every event under its name, as it may come.
fn events() -> Vec<(&'static str, Vec<Event>)> {
    let why = || "why".to_owned();
    let (nfs, one) = (service("nfs"), called("10.0.0.1"));
    let won = vec![claimed("nfs", 5, &["10.0.0.1"], &[7]), claimed("home", 2, &["10.0.0.8"], &[3])];
    let refused = vec![(nfs.clone(), why())];
    let claims = [(won, vec![]), (vec![], refused)];
    let claims = claims.map(|(won, refused)| Event::Claimed { won, refused, unread: vec![] });
    let left = vec![(one.clone(), Outcome::Unreachable, why())];
    let tick = Event::Tick { present: BTreeSet::new(), looked_at: Some(at(3_600_000)) };
    vec![
        ("Start", vec![Event::Start]),
        ("Begun", vec![Event::Begun(Work::Proof)]),
        ("Fit", vec![Event::Fit(Ok(())), Event::Fit(Err(why()))]),
        ("Fenced", vec![Event::Fenced(Ok(())), Event::Fenced(Err(why()))]),
        ("Claimed", claims.to_vec()),
        ("Conveyed", vec![Event::Conveyed(Ok(vec![])), Event::Conveyed(Err(why()))]),
        ("Recognised", vec![recognition(life("2")), Event::Recognised(Err(why()))]),
        ("Proved", vec![Event::Proved(Ok(())), Event::Proved(Err(why()))]),
        ("Finish", vec![Event::Finish]),
        ("BroughtUp", vec![Event::BroughtUp(Ok(())), Event::BroughtUp(Err(why()))]),
        ("Served", vec![Event::Served(nfs.clone())]),
        ("Acknowledged", vec![Event::Acknowledged { service: nfs.clone(), clients: vec![one.clone()] }]),
        ("TriedAll", vec![Event::TriedAll { service: nfs.clone() }]),
        ("NotifyEnded", vec![Event::NotifyEnded { service: nfs.clone(), left }]),
        ("Registered", vec![Event::Registered([one.into()].into())]),
        ("Tick", vec![tick]),
        ("LifeChanged", vec![Event::LifeChanged]),
        ("GivenUp", vec![Event::GivenUp(nfs.clone())]),
        ("Overtaken", vec![Event::Overtaken(nfs)]),
    ]
}

/// Whether an event means anything to a run: it asks for something, or is another one afterwards. Work that was begun for
/// it, and is over by this event, does not count.
fn acts(run: &Takeover, event: &Event) -> bool {
    let mut after = run.clone();
    let asks = after.step(at(3_600_000), event.clone()) != Batch::nothing();
    if !matches!(event, Event::Begun(_)) {
        after.working = run.working;
    }
    asks || format!("{after:?}") != format!("{run:?}")
}

#[test]
fn the_table_of_phases_and_events_is_what_the_machine_does() {
    let mut lines = Vec::new();
    for (name, events) in events() {
        let marks = PHASES.map(|phase| {
            let runs = runs_in(phase);
            let acts = runs.iter().any(|run| events.iter().any(|event| acts(run, event)));
            if acts { "x" } else { " " }
        });
        lines.push(format!("| [`Event::{name}`] | {} |", marks.join(" | ")));
    }
    let told: Vec<&str> = TABLE.lines().filter(|line| line.starts_with("| [`Event::")).collect();
    assert_eq!(told, lines, "\n{}", lines.join("\n"));
    let heads = PHASES.map(Phase::as_str).join(" | ");
    assert!(TABLE.contains(&format!("| event | {heads} |")));
}
