//! An owner that falls silent is fenced, and one that lives is not.

use heirlock_core::store::ServerReport;

use super::troubled::{Fault, Faults, Troubled};
use super::*;

/// nfs-b adopts `new` by itself once nfs-a is silent, and has a fence.
fn automatic() -> Arc<Settings> {
    let mut settings = (*settings(false)).clone();
    settings.services[0].mode = Mode::Automatic;
    settings.hooks.fence = settings.lock_manager.recognise.clone();
    Arc::new(settings)
}

/// An agent that has begun to look for what it needs to adopt `new`, for nfs-a has said nothing for long enough.
fn about_to_fence() -> (InMemory, Agent<Here>) {
    let (store, _, agent) = about_to_fence_on_a_store_with_faults();
    (store, agent)
}

fn about_to_fence_on_a_store_with_faults() -> (InMemory, Faults, Agent<Here>) {
    let (store, before) = begun();
    let (world, faults) = (before.outside().take(), Faults::default());
    let mut agent = started_on(automatic(), Box::new(Troubled::new(&store, &faults)), world);
    agent.take_up();
    let mut beat = 0;
    for _ in 0..5_000 {
        agent.do_what_is_due();
        if matches!(agent.outside().world().said.front(), Some(News::Fit(..))) {
            return (store, faults, agent);
        }
        match agent.outside().next() {
            Some(message) => agent.handle(message),
            None => {
                let due = agent.next_due();
                agent.outside().pass(due);
                // For a while it lives.
                if beat < 5 {
                    beat += 1;
                    let report = ServerReport::new("nfs-a".parse().unwrap(), "run-a");
                    store.put_server(&ServerReport { beat, ..report }).unwrap();
                }
            }
        }
    }
    panic!("nothing is adopted: {:?}", agent.outside().world().begun);
}

/// Takes in what has come, and does what is due.
fn take_in(agent: &mut Agent<Here>) {
    while let Some(message) = agent.outside().next() {
        agent.handle(message);
    }
    agent.do_what_is_due();
}

#[test]
fn an_owner_that_stays_silent_is_fenced() {
    let (_store, mut agent) = about_to_fence();
    take_in(&mut agent);
    assert!(
        agent.outside().world().begun.contains(&"fence".to_owned()),
        "{:?}",
        agent.outside().world().begun
    );
}

#[test]
fn an_owner_whose_heart_beats_again_is_not_fenced() {
    let (store, mut agent) = about_to_fence();
    let report = ServerReport::new("nfs-a".parse().unwrap(), "run-a");
    store.put_server(&ServerReport { beat: 99, ..report }).unwrap();
    take_in(&mut agent);
    assert!(
        !agent.outside().world().begun.contains(&"fence".to_owned()),
        "{:?}",
        agent.outside().world().begun
    );
}

#[test]
fn an_agent_that_stood_still_since_it_saw_the_silence_fences_no_owner() {
    let (_store, mut agent) = about_to_fence();
    // As after SIGSTOP, or a pause of the whole virtual machine: the other servers may have stood still as well.
    let later = agent.outside().now() + Duration::from_secs(3_600);
    agent.outside().world_mut().now = later;
    take_in(&mut agent);
    assert!(
        !agent.outside().world().begun.contains(&"fence".to_owned()),
        "{:?}",
        agent.outside().world().begun
    );
}

#[test]
fn an_owner_is_fenced_though_the_store_fails_for_a_moment_when_it_is_asked_whether_it_may_be() {
    let (_store, faults, mut agent) = about_to_fence_on_a_store_with_faults();
    faults.add(Fault { times: 2, ..Fault::of(&service("new"), &["newest_claim"]) });
    take_in(&mut agent);
    let begun = |agent: &Agent<Here>| agent.outside().world().begun.clone();
    assert!(!begun(&agent).contains(&"fence".to_owned()), "{:?}", begun(&agent));
    goes_on(&mut agent, Duration::from_secs(5));
    assert!(begun(&agent).contains(&"fence".to_owned()), "{:?}", begun(&agent));
}

#[test]
fn no_owner_is_fenced_while_the_store_does_not_say_whose_a_service_is() {
    let (store, faults, mut agent) = about_to_fence_on_a_store_with_faults();
    faults.add(Fault::of(&service("new"), &["newest_claim"]));
    goes_on(&mut agent, Duration::from_secs(60));
    assert!(!agent.outside().world().begun.contains(&"fence".to_owned()));
    assert!(agent.is_at_rest(), "the run was refused in the end");
    assert_eq!(store.newest_claim(&service("new")).unwrap().unwrap().owner.as_str(), "nfs-a");
}
