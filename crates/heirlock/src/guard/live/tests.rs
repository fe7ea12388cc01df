use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::chown;

use heirlock_core::claim::Claim;
use heirlock_core::store::FurtherLockManager;
use heirlock_core::{Generation, ServiceName};
use heirlock_nsm::MonName;

use super::*;
use crate::fake_programs::rpcbind;
use crate::guard::testing::{SERVICE, Tree, report, settings, with_second_lock_manager};
use crate::lock_manager::KERNEL;
use crate::store::dir::DirStore;
use crate::store::{Change, Contents, Store};

fn at_port(port: u16, more: &str) -> Settings {
    settings(&format!("[notify]\nrpcbind-port = {port}\n{more}"))
}

/// A store in which nfs-a holds the service with these clients.
fn store_with(tree: &Tree, clients: &[&str], state: u32) -> DirStore {
    let store = DirStore::create(&tree.host().at("/srv/heirlock")).unwrap();
    let service: ServiceName = "nfs".parse().unwrap();
    let claim = Claim::new(Generation::FIRST, &"nfs-a".parse().unwrap(), "agent", 0);
    store.claim(&service, &claim).unwrap();
    let contents = Contents { state: Some(StateNumber(state)), ..Contents::default() };
    store.begin_generation(&service, Generation::FIRST, &contents).unwrap();
    let changes: Vec<Change> = clients
        .iter()
        .map(|client| {
            let line = format!("0100007f 000186b5 00000003 00000010 {:032} {client} nfs-a\n", 0);
            Change::put(MonName::parse(client).unwrap(), line.into_bytes())
        })
        .collect();
    store.commit(&service, &claim, &changes).unwrap();
    store
}

fn kept(store: &DirStore) -> Vec<Kept> {
    records::kept(store, &settings(SERVICE)).unwrap().into_iter().map(Result::unwrap).collect()
}

#[test]
fn a_status_monitor_that_is_not_registered_loses_locks() {
    let severities =
        |port| registrations(&at_port(port, "")).iter().map(|finding| finding.severity).collect::<Vec<_>>();
    assert_eq!(severities(rpcbind("127.0.0.1", 0, Some(4045))), [Severity::Ok, Severity::Ok]);
    assert_eq!(severities(rpcbind("127.0.0.1", 0, None)), [Severity::LosesLocks, Severity::Note]);
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let found = registrations(&at_port(silent.local_addr().unwrap().port(), ""));
    assert_eq!((found.len(), found[0].check, found[0].severity), (1, "rpcbind", Severity::LosesLocks));
}

#[test]
fn a_directory_that_cannot_serve_is_said() {
    let tree = Tree::debian();
    let said = || directory(&tree.host(), &settings("")).remove(0);
    assert_eq!(said().severity, Severity::Ok);
    tree.put("/var/lib/nfs/sm/a\nb", "x");
    assert_eq!(said().severity, Severity::Warning);
    tree.remove("/var/lib/nfs/sm/a\nb");
    let bak = tree.host().at("/var/lib/nfs/sm.bak");
    match chown(&bak, Some(4711), None) {
        Ok(()) => assert!(said().found.contains("sm.bak to user 4711"), "{}", said()),
        Err(_) => crate::left_out::leave_out("root, which alone can give a folder away, for its last part"),
    }
    fs::remove_dir(tree.host().at("/var/lib/nfs/sm")).unwrap();
    assert_eq!(said().severity, Severity::LosesLocks);
}

#[test]
fn a_fact_that_differs_on_another_server_is_reported_by_its_weight() {
    let tree = Tree::debian();
    let store = DirStore::create(&tree.host().at("/srv/heirlock")).unwrap();
    let ours: BTreeMap<String, String> =
        [("fsid:/srv/nfs", "77"), (GRACE_PERIOD, "90"), (KERNEL, "6.1"), ("ours-alone", "x")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
    let said = |key: &str, value: &str| {
        let mut other = report("nfs-b", 1);
        other.facts.clone_from(&ours);
        other.facts.remove("ours-alone");
        other.facts.insert(key.into(), value.into());
        store.put_server(&other).unwrap();
        let others = records::others(&store, &settings("")).unwrap();
        differences(&ours, &of_namesake(&others, &Managed::all(&tree.host(), &settings("")).remove(0)))
            .remove(0)
    };
    assert_eq!(differences(&ours, &BTreeMap::new()), [], "no server to compare with");
    assert_eq!(said("theirs-alone", "1").severity, Severity::Ok);
    let fsid = said("fsid:/srv/nfs", "78");
    assert_eq!(fsid.severity, Severity::LosesLocks);
    assert!(fsid.found.contains("fsid 77 here and 78 on nfs-b"), "{fsid}");
    assert_eq!(said(GRACE_PERIOD, "45").severity, Severity::Warning);
    assert_eq!(said(KERNEL, "6.12").severity, Severity::Note);
}

#[test]
fn each_lock_manager_is_compared_with_its_namesake_on_the_other_servers() {
    let tree = Tree::debian();
    let store = store_with(&tree, &["127.9.4.1"], 3);
    let settings = with_second_lock_manager(at_port(rpcbind("127.0.0.1", 0, Some(4045)), SERVICE));
    let said = |grace_s: &str, name: &str| {
        let managed = Managed::all(&tree.host(), &settings);
        let first = facts::of(&managed[0].settings, managed[0].lock_manager.as_ref());
        let mut further = facts::of(&managed[1].settings, managed[1].lock_manager.as_ref());
        further.insert(GRACE_PERIOD.into(), grace_s.into());
        let name = LockManagerName::parse(name).unwrap();
        let further = FurtherLockManager { name, incarnation: None, node: None, facts: further };
        let other = ServerReport { facts: first, further_lock_managers: vec![further], ..report("nfs-b", 1) };
        store.put_server(&other).unwrap();
        check(&tree.host(), &settings, &managed)
    };
    let of = |found: Vec<Finding>, check: &str| -> Vec<(Severity, String)> {
        let found = found.into_iter().filter(|one| one.check == check);
        found.map(|one| (one.severity, one.found)).collect()
    };
    let differ = "lock manager two: grace lasts 45 s here and 30 s on nfs-b".to_owned();
    let found = said("30", "two");
    assert!(of(found.clone(), OTHER_SERVERS).contains(&(Severity::Warning, differ)), "{found:#?}");
    let directories = of(found, "state-directory");
    assert!(
        directories.iter().any(|(severity, found)| {
            *severity == Severity::LosesLocks && found.starts_with("lock manager two: ")
        }),
        "its directory is not there: {directories:?}"
    );
    for (grace_s, name) in [("45", "two"), ("30", "three")] {
        let found = of(said(grace_s, name), OTHER_SERVERS);
        assert!(found.iter().all(|(severity, _)| *severity == Severity::Ok), "{found:?}");
    }
}

#[test]
fn a_state_file_that_is_none_is_said() {
    let tree = Tree::debian();
    let store = store_with(&tree, &[], 101);
    let said =
        || state_number(&tree.host(), &settings(SERVICE), &kept(&store).iter().collect::<Vec<_>>()).severity;
    assert_eq!(said(), Severity::Ok, "empty, as Debian ships it");
    for (number, severity) in [(5, Severity::Note), (101, Severity::Ok), (0x9000_0001, Severity::Warning)] {
        tree.put("/var/lib/nfs/state", StateNumber(number).render_file());
        assert_eq!(said(), severity, "{number}");
    }
    tree.put("/var/lib/nfs/state", "101       ");
    assert_eq!(said(), Severity::Warning, "as illumos writes it");
    tree.put("/var/lib/nfs/elsewhere", StateNumber(101).render_file());
    let state = tree.host().at("/var/lib/nfs/state");
    fs::remove_file(&state).unwrap();
    std::os::unix::fs::symlink("elsewhere", &state).unwrap();
    assert_eq!(said(), Severity::Warning, "the agent follows no link there");
}

#[test]
fn clients_that_do_not_answer_are_counted_and_named() {
    let tree = Tree::debian();
    let port = rpcbind("127.9.2.1", 0, Some(111));
    let store = store_with(&tree, &["127.9.2.1"], 3);
    let found = clients(&at_port(port, SERVICE), &kept(&store));
    assert_eq!(found, [Finding::ok("clients", "the one address of a client answers")]);
    let names: Vec<String> = (2..9).map(|n| format!("127.9.2.{n}")).chain(["unresolved".into()]).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let store = store_with(&tree, &names, 3);
    let found = clients(&at_port(port, SERVICE), &kept(&store));
    assert_eq!(found[0].severity, Severity::Warning);
    assert!(
        found[0].found.starts_with("7 of 8 addresses") && found[0].found.ends_with("127.9.2.6, …"),
        "{}",
        found[0]
    );
    assert!(found[1].found.ends_with("only a name is known of them: 1 client"), "{}", found[1]);
}

#[test]
fn a_neighbour_table_that_is_too_small_is_said() {
    let tree = Tree::debian();
    let store = store_with(&tree, &["10.0.0.1", "10.0.0.2", "10.0.0.3", "2001:db8::1"], 3);
    let said = || neighbours(&tree.host(), &kept(&store)).map(|finding| finding.severity);
    assert_eq!(said(), None, "no limit is shown");
    let limit = "/proc/sys/net/ipv4/neigh/default/gc_thresh3";
    tree.put(limit, "4\n");
    assert_eq!(said(), Some(Severity::Ok));
    tree.put(
        "/proc/self/net/arp",
        "IP address HW type\n10.0.0.1 0x1 0x2 m * eth0\n10.0.0.9 0x1 0x2 m * eth0\n",
    );
    assert_eq!(said(), Some(Severity::Warning), "three clients and one more");
    tree.put(limit, "1024\n");
    assert_eq!(said(), Some(Severity::Ok));
}

#[test]
fn a_doctor_says_all_of_it_in_ten_seconds() {
    let tree = Tree::debian();
    store_with(&tree, &["127.9.3.1"], 3);
    let port = rpcbind("127.0.0.1", 0, Some(4045));
    // It waits for answers that don't come: on a machine that does much else the first time may be slow, and not each.
    let mut took = Vec::new();
    let found = loop {
        let began = std::time::Instant::now();
        let settings = at_port(port, SERVICE);
        let found = check(&tree.host(), &settings, &Managed::all(&tree.host(), &settings));
        took.push(began.elapsed());
        if began.elapsed().as_secs() < 10 {
            break found;
        }
        assert!(took.len() < 5, "{took:?}");
    };
    let checks: BTreeSet<&str> = found.iter().map(|finding| finding.check).collect();
    for expected in ["lift-grace", "status-monitor", "strategy", "state-directory", "state-number", "clients"]
    {
        assert!(checks.contains(expected), "{expected} is missing in {checks:?}");
    }
    assert!(!checks.contains("store-writable"), "it can be written");
}
