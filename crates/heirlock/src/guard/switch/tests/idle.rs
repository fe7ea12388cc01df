//! `disable --if-idle`, as a package says it that is removed.

use heirlock_core::ServerName;
use heirlock_core::takeover::{Journal, Phase};
use heirlock_nsm::MonName;

use super::*;

fn if_idle(tree: &Tree) -> Result<Vec<Step>, GuardError> {
    crate::guard::switch::disable(&tree.host(), &settings(SERVICE), false, true)
}

/// The service that a server is by itself.
const HOST: &str = "host.nfs-a";

/// A host under guard whose store has a service of this owner, with these clients.
fn with_service(service: &str, owner: &str, clients: &[&str], phase: Option<Phase>) -> Tree {
    let tree = Tree::debian();
    on(&tree);
    let store = DirStore::open(&tree.host().at("/srv/heirlock")).unwrap();
    let owner: ServerName = owner.parse().unwrap();
    let service = if service == HOST { ServiceName::host(&owner) } else { service.parse().unwrap() };
    let claim = Claim::new(Generation::FIRST, &owner, "agent", 0);
    store.claim(&service, &claim).unwrap();
    let record = |client: &&str| {
        let line = format!("0100007f 000186b5 00000003 00000010 {} {client} nfs-a\n", "0".repeat(32));
        (MonName::parse(client).unwrap(), line.into_bytes())
    };
    let contents = Contents {
        records: clients.iter().map(record).collect(),
        journal: phase.map(|phase| Journal { phase, ..Journal::quiet("run", &owner, 0) }),
        ..Contents::default()
    };
    store.begin_generation(&service, Generation::FIRST, &contents).unwrap();
    tree
}

#[test]
fn a_service_with_clients_that_is_this_servers_keeps_the_guard() {
    let tree = with_service("nfs", "nfs-a", &["192.0.2.7", "192.0.2.8"], Some(Phase::Settled));
    let (before, calls) = (tree.listing(), tree.calls());
    let refused = if_idle(&tree).unwrap_err();
    assert!(matches!(refused, GuardError::Refused { .. }), "{refused:?}");
    let said = refused.to_string();
    for part in ["nfs is this server's, with 2 client(s)", "'heirlock release nfs'", "without --if-idle"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    assert_eq!((tree.listing(), tree.calls()), (before, calls));
    off(&tree);
    assert!(!tree.exists(UNIT_FILE), "an administrator may insist");
}

#[test]
fn clients_that_are_being_told_keep_the_guard_whichever_service_they_are_of() {
    for service in ["nfs", HOST] {
        let tree = with_service(service, "nfs-a", &[], Some(Phase::Settling));
        let (before, calls) = (tree.listing(), tree.calls());
        let said = if_idle(&tree).unwrap_err().to_string();
        let expected = format!("the clients of {service} are being told (phase settling)");
        assert!(said.starts_with(&expected), "{said}");
        assert_eq!((tree.listing(), tree.calls()), (before, calls));
    }
}

#[test]
fn a_store_that_is_not_there_keeps_the_guard() {
    let tree = Tree::debian();
    on(&tree);
    fs::rename(tree.host().at("/srv/heirlock"), tree.host().at("/srv/elsewhere")).unwrap();
    let (before, calls) = (tree.listing(), tree.calls());
    let said = if_idle(&tree).unwrap_err().to_string();
    assert!(said.starts_with("whether clients depend on this server can't be told: "), "{said}");
    assert_eq!((tree.listing(), tree.calls()), (before, calls));
}

#[test]
fn a_server_without_clients_that_depend_on_it_is_given_back() {
    for (service, owner, clients, phase) in [
        // Another server's, without clients, and of this server's own: rpc.statd gets those.
        ("nfs", "nfs-b", &["192.0.2.7"][..], Some(Phase::Settling)),
        ("nfs", "nfs-a", &[], Some(Phase::Settled)),
        (HOST, "nfs-a", &["192.0.2.7"], Some(Phase::Settled)),
        (HOST, "nfs-a", &["192.0.2.7"], None),
    ] {
        let tree = with_service(service, owner, clients, phase);
        if_idle(&tree).unwrap();
        assert!(!tree.exists(UNIT_FILE), "{service} of {owner}");
    }
    let tree = Tree::debian();
    let steps = if_idle(&tree).unwrap();
    assert!(steps[0].what.contains("not under heirlock's guard"), "{steps:?}");
}
