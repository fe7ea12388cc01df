//! A server that exports nothing, as the passive one of a cluster after a boot: its own service knows the clients of a service that
//! another server has by now.

use super::*;

/// nfs-b had `new` with its clients; nfs-a has it now, with all of its records but those of these clients, and nfs-b begins another
/// life in which it exports nothing. Answers what its own service knows of each client then.
fn rebooted_without(left_out: &[MonName]) -> (Agent<Here>, BTreeMap<MonName, Outcome>) {
    let (store, mut agent) = begun();
    adopt(&store, &mut agent, None);
    let registered = clients().map(|client| (client.clone(), record(&client))).into();
    agent.outside().world_mut().registered = registered;
    agent.outside().world_mut().hinted = true;
    until(&mut agent, "its own service knows both", |agent| {
        agent.ledger_of(&host()).is_some_and(|ledger| ledger.stored().len() == 2)
    });
    let held = agent.claim_of(&service("new")).unwrap().generation;
    let claim = Claim::new(held.next(), &"nfs-a".parse().unwrap(), "run-a", 0);
    let mut contents = store.load(&service("new"), held).unwrap();
    contents.records.retain(|key, _| !left_out.contains(key.client()));
    store.claim(&service("new"), &claim).unwrap();
    store.begin_generation(&service("new"), held.next(), &contents).unwrap();
    until(&mut agent, "it is not held any more", |agent| agent.claim_of(&service("new")).is_none());
    {
        let mut world = agent.outside().world_mut();
        (world.life, world.life_began) = (world.life + 1, world.now);
        (world.exports_nothing, world.hinted) = (true, true);
        world.registered.clear();
        world.begun.clear();
        world.look_at_lock_manager();
    }
    until(&mut agent, "it has asked for grace", |agent| {
        agent.outside().world().begun.iter().any(|work| work == "prove")
    });
    until(&mut agent, "it is at rest", Agent::is_at_rest);
    let generation = agent.claim_of(&host()).unwrap().generation;
    let outcomes = store.account(&host(), generation).unwrap().outcomes;
    let known = outcomes.iter().map(|line| (line.client.client().clone(), line.outcome)).collect();
    (agent, known)
}

#[test]
fn a_server_that_exports_nothing_after_a_boot_loses_no_client_of_a_service_that_moved_away() {
    let (agent, outcomes) = rebooted_without(&[]);
    assert_eq!(outcomes, BTreeMap::new());
    let journal = agent.journal_of(&host()).unwrap();
    assert_eq!((journal.phase, &journal.failure), (Phase::Settled, &None));
    assert_eq!(agent.ledger_of(&host()).unwrap().stored().len(), 2, "they stay on record");
    let status = agent.status();
    let own = status.services.iter().find(|status| status.service == host().as_str()).unwrap();
    assert_eq!((own.lost, own.unreachable), (0, 0));
    assert!(agent.owes_nothing());
}

#[test]
fn a_client_that_no_other_server_has_on_record_is_lost_where_nothing_is_exported() {
    let [first, _] = clients();
    let (agent, outcomes) = rebooted_without(std::slice::from_ref(&first));
    assert_eq!(outcomes, [(first, Outcome::Lost)].into());
    let journal = agent.journal_of(&host()).unwrap();
    assert_eq!(journal.failure.as_deref(), Some("its credential was refused"));
}
