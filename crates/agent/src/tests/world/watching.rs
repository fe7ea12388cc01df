//! A store that is slower than its limits again and again, and what the agent says of the other servers meanwhile.

use heirlock_core::store::{ServerReport, StoreErrorKind};

use super::troubled::{Fault, Faults, Troubled};
use super::*;
use crate::control::report::{Level, Problem, ProblemKind, judge, level};

/// An agent beside a server that beats, on a store with these faults.
fn beside(faults: &Faults) -> (InMemory, Agent<Here>) {
    let (store, agent) = begun();
    let troubled = Box::new(Troubled::new(&store, faults));
    (store.clone(), again(&agent, troubled))
}

/// So many seconds pass, in each of which the other server beats. Those of which `is_slow` have heartbeats that are late.
fn pass(
    store: &InMemory,
    agent: &mut Agent<Here>,
    faults: &Faults,
    seconds: u64,
    is_slow: impl Fn(u64) -> bool,
) {
    for second in 0..seconds {
        let report = ServerReport::new("nfs-a".parse().unwrap(), "a run of its own");
        let beat = agent.outside().now().since(Moment::START).as_secs();
        store.put_server(&ServerReport { beat, ..report }).unwrap();
        faults.mend();
        if is_slow(second) {
            let kind = StoreErrorKind::TimedOut;
            let calls = &["put_server", "hearts"];
            faults.add(Fault { calls, service: None, kind, is_done: false, times: usize::MAX });
        }
        goes_on(agent, Duration::from_secs(1));
    }
    faults.mend();
}

fn unwatched(agent: &Agent<Here>) -> Option<Problem> {
    let mut status = agent.status();
    judge(&mut status);
    assert!(level(&status) <= Level::Attention, "clients are well: {:?}", status.problems);
    status.problems.into_iter().find(|problem| problem.kind == ProblemKind::HeartsUnwatched)
}

#[test]
fn a_store_that_is_late_every_second_time_is_named_with_its_price_and_the_time_since_when() {
    let faults = Faults::default();
    let (store, mut agent) = beside(&faults);
    pass(&store, &mut agent, &faults, 30, |second| second % 10 == 9);
    assert_eq!(unwatched(&agent), None, "a busy disk keeps a heartbeat waiting now and then");
    let began_s = agent.outside().wall_s();
    pass(&store, &mut agent, &faults, 70, |second| second % 2 == 1);
    let problem = unwatched(&agent).expect("no server has been watched to the end for more than a minute");
    let since_s = problem.since_s.unwrap();
    // No watch has come to its end after the last heartbeat that was late before.
    assert!((began_s - 30..=began_s + 2).contains(&since_s), "{since_s}, began {began_s}");
    let why = problem.error.unwrap();
    assert!(why.contains("watched for 20 s on end") && why.contains("the store of the test fails"), "{why}");
    // The time stays as it was told.
    pass(&store, &mut agent, &faults, 10, |second| second % 2 == 1);
    assert_eq!(unwatched(&agent).unwrap().since_s, Some(since_s));
    pass(&store, &mut agent, &faults, 30, |_| false);
    assert_eq!(unwatched(&agent), None, "the watch came to its end");
}
