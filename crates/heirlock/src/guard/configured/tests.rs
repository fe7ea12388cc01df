use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::finding::Severity;
use super::*;
use crate::config::Mode;
use crate::guard::testing::{SERVICE, Tree, report, settings};
use crate::store::dir::DirStore;

/// The severities of one check.
fn said(tree: &Tree, more: &str, check: &str) -> Vec<Severity> {
    let settings = settings(more);
    super::check(&tree.host(), &settings, &Managed::all(&tree.host(), &settings))
        .into_iter()
        .filter(|finding| finding.check == check)
        .map(|finding| finding.severity)
        .collect()
}

fn service(from: &str, to: &str) -> String {
    assert!(SERVICE.contains(from), "{from}");
    SERVICE.replace(from, to)
}

#[test]
fn an_address_that_cannot_move_is_said() {
    let tree = Tree::debian();
    assert_eq!(said(&tree, SERVICE, "address"), [Severity::Ok]);
    for bad in ["127.0.0.5", "::1", "169.254.1.1", "fe80::1"] {
        assert_eq!(said(&tree, &service("192.0.2.10", bad), "address"), [Severity::Warning], "{bad}");
    }
    let own = format!("[host]\naddresses = [\"192.0.2.10\"]\n{SERVICE}");
    assert_eq!(said(&tree, &own, "address"), [Severity::Warning]);
}

#[test]
fn a_name_that_clients_would_not_know_is_said() {
    let tree = Tree::debian();
    assert_eq!(said(&tree, SERVICE, "names"), [Severity::Ok]);
    for (name, said) in [
        ("nfs", "has no domain"),
        ("NFS-A", "is this server's own name"),
        ("nfs-a.example.com", "is this server's own name"),
        ("192.0.2.10", "are announced anyway"),
    ] {
        let more = format!("[host]\nnames = [\"nfs-a.example.com\"]\n{}", service("nfs.example.com", name));
        let settings = settings(&more);
        let found = check(&tree.host(), &settings, &Managed::all(&tree.host(), &settings));
        let finding = found.iter().find(|finding| finding.check == "names").unwrap();
        assert!(finding.found.contains(said), "{name}: {finding}");
    }
    assert_eq!(
        said(&tree, &service("names = [\"nfs.example.com\"]", "names = []"), "names"),
        [Severity::Warning]
    );
}

#[test]
fn two_services_of_one_name_are_said_also_of_one_short_name() {
    let tree = Tree::debian();
    let other = service("\"nfs\"", "\"home\"").replace("192.0.2.10", "192.0.2.11");
    let two = |name: &str| format!("{SERVICE}{}", other.replace("nfs.example.com", name));
    assert_eq!(said(&tree, &two("home.example.com"), "names"), [Severity::Ok, Severity::Ok]);
    assert_eq!(
        said(&tree, &two("nfs.example.org"), "names"),
        [Severity::Ok, Severity::Ok, Severity::Warning]
    );
}

#[test]
fn an_automatic_service_needs_its_hooks() {
    let tree = Tree::debian();
    assert_eq!(said(&tree, SERVICE, "hooks"), []);
    let mut automatic = settings(SERVICE);
    automatic.services[0].mode = Mode::Automatic;
    let found = hooks(&automatic, &automatic.services[0]);
    assert_eq!(found.len(), 5);
    assert_eq!(found[0].severity, Severity::LosesLocks, "without a fence two serve the same files");
    let command = crate::config::Command { argv: vec!["true".into()], time_limit: Duration::from_secs(1) };
    let all = &mut automatic.hooks;
    all.fence = Some(command.clone());
    all.volume_up = Some(command.clone());
    all.address_up = Some(command.clone());
    all.address_down = Some(command.clone());
    all.volume_down = Some(command);
    assert_eq!(hooks(&automatic, &automatic.services[0])[0].severity, Severity::Ok);
}

#[test]
fn an_export_without_fsid_is_said() {
    let tree = Tree::debian();
    assert_eq!(said(&tree, SERVICE, "fsid"), [Severity::Note], "not exported");
    tree.put("/etc/exports", "/srv/nfs *(rw)\n");
    assert_eq!(said(&tree, SERVICE, "fsid"), [Severity::Warning]);
    tree.put("/var/lib/nfs/etab", "/srv/nfs\t*(rw,fsid=77)\n");
    assert_eq!(said(&tree, SERVICE, "fsid"), [Severity::Ok]);
}

#[test]
fn times_that_do_not_fit_grace_are_said() {
    let tree = Tree::debian();
    assert_eq!(said(&tree, "", "times"), [Severity::Ok]);
    tree.put("/proc/sys/fs/nfs/nlm_grace_period", "5\n");
    assert_eq!(said(&tree, "", "times"), [Severity::LosesLocks], "the margin takes all of it");
    tree.put("/proc/sys/fs/nfs/nlm_grace_period", "8\n");
    assert_eq!(said(&tree, "", "times"), [Severity::Warning]);
    tree.put("/proc/sys/fs/nfs/nlm_grace_period", "150\n");
    assert_eq!(said(&tree, "", "times"), [Severity::Warning], "tombstones are believed too early");
    tree.remove("/proc/sys/fs/nfs/nlm_grace_period");
    assert_eq!(said(&tree, "", "times"), [Severity::Note]);
}

#[test]
fn a_store_that_dies_with_the_server_is_said() {
    let (alone, serving) = (settings(""), settings(SERVICE));
    let severity = |settings, said| of_place("/srv/heirlock", settings, &said).severity;
    assert_eq!(severity(&serving, PlaceFinding::OtherDisk), Severity::Ok);
    assert_eq!(severity(&serving, PlaceFinding::OwnDisk), Severity::Warning);
    assert_eq!(severity(&alone, PlaceFinding::OwnDisk), Severity::Note);
    assert_eq!(severity(&serving, PlaceFinding::InMemory), Severity::LosesLocks);
    assert_eq!(severity(&serving, PlaceFinding::Unknown("no".into())), Severity::Note);
    let tree = Tree::debian();
    assert_eq!(said(&tree, SERVICE, "store-place").len(), 1);
    let inside = service("/srv/nfs", "/srv");
    assert_eq!(said(&tree, &inside, "store-place")[0], Severity::Warning, "clients could change it");
}

#[test]
fn a_store_that_is_none_is_said_and_worse_where_all_should_see_it() {
    let tree = Tree::debian();
    let shared = |more: &str| format!("shared = true\n{more}");
    assert_eq!(said(&tree, SERVICE, "store"), [Severity::Warning]);
    assert_eq!(said(&tree, &shared(SERVICE), "store"), [Severity::LosesLocks]);
    DirStore::create(&tree.host().at("/srv/heirlock")).unwrap();
    assert_eq!(said(&tree, SERVICE, "store"), [Severity::Ok]);
}

#[test]
fn a_home_that_is_no_known_server_is_said() {
    let tree = Tree::debian();
    let store = DirStore::create(&tree.host().at("/srv/heirlock")).unwrap();
    assert_eq!(said(&tree, SERVICE, "home"), [Severity::Ok]);
    assert_eq!(said(&tree, &service("home = \"nfs-a\"\n", ""), "home"), [Severity::Note]);
    let elsewhere = service("home = \"nfs-a\"", "home = \"nfs-b\"");
    assert_eq!(said(&tree, &elsewhere, "home"), [Severity::Warning]);
    store.put_server(&report("nfs-b", 1)).unwrap();
    assert_eq!(said(&tree, &elsewhere, "home"), [Severity::Ok]);
}

#[test]
fn a_shared_store_is_proved_by_a_heart_that_beats() {
    let tree = Tree::debian();
    let store = Arc::new(DirStore::create(&tree.host().at("/srv/heirlock")).unwrap());
    let mut shared_store = settings(SERVICE);
    assert_eq!(shared(&*store, &shared_store), None, "the configuration does not say so");
    shared_store.store.shared = true;
    shared_store.heartbeat.interval = Duration::from_millis(200);
    let text = |found: Option<Finding>| found.unwrap().found;
    assert!(text(shared(&*store, &shared_store)).contains("no other server has written"));
    store.put_server(&report("nfs-b", 1)).unwrap();
    assert!(text(shared(&*store, &shared_store)).contains("no beat of nfs-b was seen in 0.9 s"));
    let stop = Arc::new(AtomicBool::new(false));
    let heart = {
        let (store, stop) = (store.clone(), stop.clone());
        thread::spawn(move || {
            let mut beat = 1;
            while !stop.load(Ordering::Relaxed) {
                beat += 1;
                store.put_server(&report("nfs-b", beat)).unwrap();
                thread::sleep(Duration::from_millis(20));
            }
        })
    };
    let proved = shared(&*store, &shared_store).unwrap();
    stop.store(true, Ordering::Relaxed);
    heart.join().unwrap();
    assert_eq!(
        (proved.severity, proved.found.as_str()),
        (Severity::Ok, "proved: the heart of nfs-b was seen to beat")
    );
}
