//! Recoveries from a restart of NFS that do not come to their end.

use super::*;
use crate::control::report::{ProblemKind, judge};

/// Longer than any limit of a run.
const LONG: Duration = Duration::from_secs(600);

#[test]
fn clients_of_a_recovery_that_hangs_have_an_outcome_and_are_told_after_the_next_restart_of_nfs() {
    let (store, mut agent) = begun();
    adopt(&store, &mut agent, None);
    let [client, _] = clients();
    agent.outside().world_mut().recognition_hangs = true;
    agent.outside().world_mut().told.clear();
    agent.outside().world_mut().registered.clear();
    agent.outside().world_mut().restart_nfs();
    goes_on(&mut agent, LONG);
    assert!(agent.outside().world().told.is_empty() && agent.is_at_rest() && agent.owes_nothing());
    let hangs = "the lock manager was not made to recognise in time";
    let status = agent.status();
    for of in [service("new"), host()] {
        let held = agent.claim_of(&of).unwrap().generation;
        let account = store.account(&of, held).unwrap();
        let line = last_outcomes(&account.outcomes)[&client.as_key()].clone();
        assert_eq!((line.outcome, account.journal.unwrap().phase), (Outcome::Lost, Phase::Failed), "{of}");
        assert!(line.why.as_deref().is_some_and(|why| why.starts_with(hangs)), "{line:?}");
        let shown = status.services.iter().find(|service| service.service == of.as_str()).unwrap();
        assert_eq!((shown.lost, shown.missed[0].why.as_deref()), (1, line.why.as_deref()));
        assert!(shown.failure.as_deref().is_some_and(|why| why.starts_with(hangs)), "{shown:?}");
    }
    let mut judged = status;
    judge(&mut judged);
    for kind in [ProblemKind::ClientsLost, ProblemKind::AdoptionFailed] {
        assert!(judged.problems.iter().any(|problem| problem.kind == kind), "{:?}", judged.problems);
    }
    // Whatever hung is ended, and NFS is restarted once more.
    agent.outside().world_mut().recognition_hangs = false;
    agent.outside().world_mut().restart_nfs();
    goes_on(&mut agent, GRACE + Duration::from_secs(10));
    assert_eq!(outcomes_of_held(&store, &agent), Some(Outcome::ReRegistered));
    assert_eq!(agent.status().services.iter().map(|service| service.lost).sum::<usize>(), 0);
}

/// The outcome of the client that `new` knows, in the generation that is held.
fn outcomes_of_held(store: &InMemory, agent: &Agent<Here>) -> Option<Outcome> {
    let held = agent.claim_of(&service("new")).unwrap().generation;
    let outcomes = store.account(&service("new"), held).unwrap().outcomes;
    last_outcomes(&outcomes).get(&clients()[0].as_key()).map(|line| line.outcome)
}
