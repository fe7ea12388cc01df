use heirlock_agent::agent::holdings;
use heirlock_agent::agent::holdings::begin;
use heirlock_core::claim::Claim;
use heirlock_core::takeover::{Journal, Phase, Strategy};
use heirlock_core::{Generation, ServerName};
use heirlock_nsm::StateNumber;

use crate::agent::testing::{Place, place, service};

/// A store in which `new` was this server's, or another's, and is nfs-c's now.
fn claimed_by_another(first: &str) -> (Place, Claim) {
    let place = place();
    let store = place.agent.store();
    let first = ServerName::parse(first).unwrap();
    let journal = Journal::quiet("run", &first, 0);
    let claim = Claim::new(Generation::FIRST, &first, "agent", 0);
    holdings::claim_first(store, &service("new"), &claim, StateNumber(1), &journal).unwrap().unwrap();
    let other = ServerName::parse("nfs-c").unwrap();
    let claim = Claim::new(Generation(2), &other, "agent", 0);
    store.claim(&service("new"), &claim).unwrap();
    let journal = Journal::quiet("run", &other, 0);
    let records = heirlock_core::Records::new();
    begin(store, &service("new"), Generation(2), StateNumber(3), records, &journal).unwrap();
    (place, claim)
}

#[test]
fn nothing_is_restarted_while_the_address_of_a_service_that_another_server_has_claimed_is_here() {
    let (mut place, claim) = claimed_by_another("nfs-b");
    place.agent.note_others(&service("new"), &claim, true).unwrap();
    let problems = place.agent.left_behind_problems();
    assert!(
        matches!(problems.as_slice(), [one] if one.starts_with("new belongs to nfs-c, and its address is on this"))
    );
    place.begin("nfs");
    let refused = |place: &Place, is_here| place.agent.would_drop_locks_at(Strategy::RestartNfs, |_| is_here);
    assert_eq!(refused(&place, true), None, "the operator insists");
    place.agent.asked_mut().clear();
    place.begin_uninsisted("nfs");
    assert!(refused(&place, true).unwrap().contains("clients of new took on this server"));
    assert_eq!(refused(&place, false), None, "it was taken away since");
    assert_eq!(place.agent.would_drop_locks_at(Strategy::Notify, |_| true), None, "it drops nothing");
    place.agent.asked_mut().clear();
    place.begin_uninsisted("new");
    assert_eq!(refused(&place, true), None, "its own clients are told");
    assert_eq!(place.phase(), Some(Phase::Intent));
    place.agent.note_others(&service("new"), &claim, false).unwrap();
    assert!(place.agent.left_behind_problems().is_empty());
}

#[test]
fn an_address_that_came_here_before_its_service_was_asked_for_forbids_nothing() {
    let (mut place, claim) = claimed_by_another("nfs-a");
    place.agent.note_others(&service("new"), &claim, true).unwrap();
    assert!(place.agent.left_behind_problems().is_empty());
    place.begin_uninsisted("nfs");
    assert_eq!(place.agent.would_drop_locks_at(Strategy::RestartNfs, |_| true), None);
}
