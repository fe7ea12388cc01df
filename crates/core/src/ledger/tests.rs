use heirlock_nsm::MonitorLine;

use super::*;

const DELAY: Duration = Duration::from_secs(120);

fn at(seconds: u64) -> Moment {
    Moment::at(Duration::from_secs(seconds))
}

fn name(text: &str) -> MonName {
    MonName::parse(text).unwrap()
}

fn line(client: &str, cookie: u8) -> Vec<u8> {
    format!("0100007f 000186b5 00000003 00000010 {} {client} nfs-a\n", format!("{cookie:02x}").repeat(16))
        .into_bytes()
}

fn file(folder: Folder, file: &str, bytes: Vec<u8>) -> ScannedFile {
    ScannedFile { folder, name: name(file), bytes: bytes.into() }
}

fn scan_of(clients: &[&str]) -> Scan {
    Scan { files: clients.iter().map(|c| file(Folder::Sm, c, line(c, 1))).collect(), problems: Vec::new() }
}

fn found(clients: &[&str]) -> Population {
    population(&scan_of(clients), &BTreeMap::new(), &Addresses::new())
}

fn life(start: &str) -> Incarnation {
    Incarnation { boot: "b".into(), start: start.into(), reopened: 0 }
}

/// A ledger whose store holds these clients already.
fn ledger(clients: &[&str]) -> Ledger {
    Ledger::new(found(clients).clients, false, DELAY)
}

fn compare(
    ledger: &mut Ledger,
    second: u64,
    clients: &[&str],
    life: Option<&Incarnation>,
) -> Vec<RecordChange> {
    let entries = ledger.compare(at(second), &found(clients), &Roles::default(), life);
    ledger.committed(&entries);
    entries
}

#[test]
fn a_new_client_is_written_once() {
    let (mut ledger, life) = (ledger(&[]), life("1"));
    let entries = compare(&mut ledger, 0, &["10.0.0.1"], Some(&life));
    assert_eq!(entries, [RecordChange::put(name("10.0.0.1"), line("10.0.0.1", 1))]);
    assert_eq!(compare(&mut ledger, 1, &["10.0.0.1"], Some(&life)), []);
}

#[test]
fn a_commit_that_failed_is_asked_for_again() {
    let (mut ledger, life) = (ledger(&[]), life("1"));
    let first = ledger.compare(at(0), &found(&["10.0.0.1"]), &Roles::default(), Some(&life));
    let again = ledger.compare(at(1), &found(&["10.0.0.1"]), &Roles::default(), Some(&life));
    assert_eq!(first, again);
}

#[test]
fn a_deletion_is_believed_only_after_the_delay_in_one_serving_life() {
    let (mut ledger, life) = (ledger(&["10.0.0.1"]), life("1"));
    assert_eq!(compare(&mut ledger, 0, &["10.0.0.1"], Some(&life)), []);
    assert_eq!(compare(&mut ledger, 0, &[], Some(&life)), []);
    assert_eq!(ledger.tombstones(), 1);
    assert_eq!(ledger.next_tombstone_due(), Some(at(120)));
    assert_eq!(compare(&mut ledger, 119, &[], Some(&life)), []);
    assert_eq!(compare(&mut ledger, 120, &[], Some(&life)), [RecordChange::remove(name("10.0.0.1"))]);
}

#[test]
fn a_deletion_at_an_orderly_stop_is_never_believed() {
    let mut ledger = ledger(&["10.0.0.1"]);
    compare(&mut ledger, 0, &["10.0.0.1"], Some(&life("1")));
    compare(&mut ledger, 1, &[], Some(&life("1")));
    for second in 2..400 {
        assert_eq!(compare(&mut ledger, second, &[], None), [], "no lock manager serves");
    }
    for second in [400, 401, 520, 5_000] {
        assert_eq!(compare(&mut ledger, second, &[], Some(&life("2"))), [], "another life");
    }
    assert_eq!(ledger.tombstones(), 0);
    assert!(ledger.stored().contains_key(&name("10.0.0.1")));
}

#[test]
fn a_record_that_vanished_before_a_life_was_interrupted_is_kept_and_one_that_vanishes_after_is_not() {
    let (mut ledger, life) = (ledger(&["10.0.0.1", "10.0.0.2"]), life("1"));
    compare(&mut ledger, 0, &["10.0.0.1", "10.0.0.2"], Some(&life));
    compare(&mut ledger, 1, &["10.0.0.2"], Some(&life));
    compare(&mut ledger, 100, &["10.0.0.2"], None);
    compare(&mut ledger, 101, &["10.0.0.2"], Some(&life));
    assert_eq!(compare(&mut ledger, 102, &[], Some(&life)), []);
    assert_eq!(compare(&mut ledger, 221, &[], Some(&life)), []);
    assert_eq!(compare(&mut ledger, 222, &[], Some(&life)), [RecordChange::remove(name("10.0.0.2"))]);
}

/// A client that was told too late, or could not be reached, has no record on the adoptive server. The next failover
/// must still know of it.
#[test]
fn a_client_that_never_registered_in_this_life_is_kept() {
    let (mut ledger, life) = (ledger(&["10.0.0.1"]), life("2"));
    for second in [0, 1, 121, 500_000] {
        assert_eq!(compare(&mut ledger, second, &[], Some(&life)), []);
    }
    assert_eq!(ledger.next_tombstone_due(), None);
}

#[test]
fn a_re_registration_is_no_loss() {
    let (mut ledger, life) = (ledger(&["10.0.0.1"]), life("1"));
    compare(&mut ledger, 0, &["10.0.0.1"], Some(&life));
    compare(&mut ledger, 0, &[], Some(&life));
    assert_eq!(ledger.tombstones(), 1);
    compare(&mut ledger, 1, &["10.0.0.1"], Some(&life));
    assert_eq!(ledger.tombstones(), 0);
    assert_eq!(compare(&mut ledger, 500, &["10.0.0.1"], Some(&life)), []);
}

#[test]
fn a_record_that_moves_to_sm_bak_is_still_there() {
    let (mut ledger, life) = (ledger(&["10.0.0.1"]), life("1"));
    compare(&mut ledger, 0, &["10.0.0.1"], Some(&life));
    let moved = Scan { files: vec![file(Folder::SmBak, "10.0.0.1", line("10.0.0.1", 1))], problems: vec![] };
    let moved = population(&moved, &BTreeMap::new(), &Addresses::new());
    assert_eq!(ledger.compare(at(0), &moved, &Roles::default(), Some(&life)), []);
    assert_eq!(ledger.tombstones(), 0);
}

#[test]
fn a_record_that_lies_in_sm_bak_alone_is_there_and_registers_no_client() {
    let (placed, own) = (line("10.0.0.1", 1), line("10.0.0.1", 2));
    let conveyed = BTreeMap::from([(name("10.0.0.1"), placed.clone())]);
    let shown = |files: &[(Folder, &Vec<u8>)]| {
        let files = files.iter().map(|(folder, bytes)| file(*folder, "10.0.0.1", (*bytes).clone())).collect();
        let found = population(&Scan { files, problems: vec![] }, &conveyed, &Addresses::new());
        let registered = found.registered().map(|(_, record)| record.to_vec()).next();
        (found.clients.contains_key(&name("10.0.0.1")), registered)
    };
    assert_eq!(shown(&[(Folder::Sm, &placed)]), (false, None));
    assert_eq!(shown(&[(Folder::SmBak, &placed)]), (true, None), "moved by a notifier");
    assert_eq!(shown(&[(Folder::SmBak, &placed), (Folder::Sm, &own)]), (true, Some(own.clone())));
    assert_eq!(shown(&[(Folder::SmBak, &own), (Folder::Sm, &own)]), (true, Some(own.clone())));
    assert_eq!(shown(&[(Folder::Sm, &own)]), (true, Some(own.clone())));
}

/// The line of a file of one line is not kept beside the file, and counts like any other where more comes.
#[test]
fn a_file_of_one_line_is_the_record_byte_for_byte_until_another_line_comes() {
    let (one, other) = (line("10.0.0.1", 1), line("10.0.0.1", 2));
    let both = [one.clone(), other.clone()].concat();
    let record = |files: &[(Folder, &str, &Vec<u8>)]| {
        let files = files.iter().map(|(folder, name, bytes)| file(*folder, name, (*bytes).clone())).collect();
        let found = population(&Scan { files, problems: vec![] }, &BTreeMap::new(), &Addresses::new());
        assert_eq!(found.clients.len(), 1);
        found.clients.get(&name("10.0.0.1")).unwrap().to_vec()
    };
    let unended = one.trim_ascii_end().to_vec();
    assert_eq!(record(&[(Folder::Sm, "10.0.0.1", &unended)]), unended);
    assert_eq!(record(&[(Folder::Sm, "10.0.0.1", &unended), (Folder::SmBak, "10.0.0.1", &unended)]), unended);
    // The same line in other bytes is no other line, but no file has all of it to the byte.
    assert_eq!(record(&[(Folder::Sm, "10.0.0.1", &unended), (Folder::SmBak, "10.0.0.1", &one)]), one);
    for more in [&other, &both] {
        assert_eq!(record(&[(Folder::Sm, "10.0.0.1", &one), (Folder::SmBak, "10.0.0.1", more)]), both);
    }
    let last = (Folder::SmBak, "10.0.0.1", &one);
    assert_eq!(record(&[(Folder::Sm, "10.0.0.1", &both), last]), both);
}

#[test]
fn a_file_that_cannot_be_read_keeps_its_client_and_no_other() {
    let (mut ledger, life) = (ledger(&["10.0.0.1", "10.0.0.2"]), life("1"));
    compare(&mut ledger, 0, &["10.0.0.1", "10.0.0.2"], Some(&life));
    let problem = Problem { path: "sm/10.0.0.1".into(), why: "empty".into(), may_be_in_the_making: true };
    let torn = Scan { files: vec![], problems: vec![problem] };
    let torn = population(&torn, &BTreeMap::new(), &Addresses::new());
    ledger.compare(at(0), &torn, &Roles::default(), Some(&life));
    let entries = ledger.compare(at(300), &torn, &Roles::default(), Some(&life));
    assert_eq!(entries, [RecordChange::remove(name("10.0.0.2"))]);
}

#[test]
fn a_file_of_no_known_client_keeps_all_clients() {
    let (mut ledger, life) = (ledger(&["10.0.0.1"]), life("1"));
    compare(&mut ledger, 0, &["10.0.0.1"], Some(&life));
    let problem = Problem { path: "sm/client1".into(), why: "torn".into(), may_be_in_the_making: false };
    let torn =
        population(&Scan { files: vec![], problems: vec![problem] }, &BTreeMap::new(), &Addresses::new());
    ledger.compare(at(0), &torn, &Roles::default(), Some(&life));
    assert_eq!(ledger.compare(at(300), &torn, &Roles::default(), Some(&life)), []);
}

#[test]
fn a_record_is_kept_under_its_address_byte_for_byte() {
    let mut odd = line("10.0.0.1", 7);
    odd.pop();
    let scan = Scan { files: vec![file(Folder::Sm, "client1.example.test", odd.clone())], problems: vec![] };
    let found = population(&scan, &BTreeMap::new(), &Addresses::new());
    assert_eq!(found.clients, Records::from([(name("10.0.0.1"), odd)]), "also without its final newline");
}

#[test]
fn a_name_is_kept_under_the_address_it_was_resolved_to_and_asked_for_otherwise() {
    let scan =
        Scan { files: vec![file(Folder::Sm, "client3.example.test", line("client3", 1))], problems: vec![] };
    let unknown = population(&scan, &BTreeMap::new(), &Addresses::new());
    assert_eq!(unknown.unresolved, BTreeSet::from([name("client3")]));
    assert!(unknown.clients.contains_key(&name("client3")), "known by name until then");
    let addresses = Addresses::from([(name("client3"), vec!["10.0.0.3".parse().unwrap()])]);
    let known = population(&scan, &BTreeMap::new(), &addresses);
    assert!(known.unresolved.is_empty() && known.clients.contains_key(&name("10.0.0.3")));
}

/// A look at one registration by name, where the name leads to these addresses.
fn named(addresses: &[&str]) -> Population {
    let scan = Scan { files: vec![file(Folder::Sm, "client3", line("client3", 1))], problems: vec![] };
    let addresses: Vec<_> = addresses.iter().map(|a| a.parse().unwrap()).collect();
    let known = (!addresses.is_empty()).then(|| (name("client3"), addresses));
    population(&scan, &BTreeMap::new(), &known.into_iter().collect())
}

#[test]
fn a_client_that_was_known_by_name_is_the_same_under_its_address_and_under_its_next() {
    let (mut ledger, life) = (ledger(&[]), life("1"));
    let mut keys = |second, addresses: &[&str]| {
        let entries = ledger.compare(at(second), &named(addresses), &Roles::default(), Some(&life));
        ledger.committed(&entries);
        assert_eq!(ledger.tombstones(), 0, "it did not leave");
        ledger.stored().keys().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(keys(0, &[]), ["client3"]);
    assert_eq!(keys(1, &["10.0.0.3"]), ["10.0.0.3"]);
    assert_eq!(keys(2, &["10.0.0.4"]), ["10.0.0.4"]);
}

#[test]
fn while_a_run_is_on_no_client_changes_its_key() {
    let mut ledger = ledger(&[]);
    for addresses in [&[][..], &["10.0.0.3"]] {
        let entries = ledger.compare(at(0), &named(addresses), &Roles::default(), None);
        ledger.committed(&entries);
    }
    assert_eq!(ledger.stored().len(), 2, "its outcome is that of the one that was told");
}

#[test]
fn a_client_that_registered_by_its_address_as_well_does_not_move() {
    let (mut ledger, life) = (ledger(&["10.0.0.9"]), life("1"));
    let entries = ledger.compare(at(0), &named(&["10.0.0.3"]), &Roles::default(), Some(&life));
    assert!(entries.iter().all(|entry| matches!(entry, RecordChange::Put(..))), "{entries:?}");
}

#[test]
fn all_addresses_of_a_name_are_kept_and_known_again_without_a_name_service() {
    let found = named(&["10.0.0.3", "192.0.2.3", "2001:db8::3"]);
    let (mut ledger, life) = (ledger(&[]), life("1"));
    let entries = ledger.compare(at(0), &found, &Roles::default(), Some(&life));
    let [RecordChange::Put(key, record)] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(*key, name("10.0.0.3"));
    let text = String::from_utf8(record.to_vec()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].ends_with(" client3 nfs-a") && lines[1].ends_with(" 192.0.2.3 nfs-a"), "{text}");
    ledger.committed(&entries);
    assert_eq!(ledger.compare(at(1), &found, &Roles::default(), Some(&life)), []);
    let mut again = Addresses::new();
    learn_from_record(&mut again, key.client(), record);
    assert_eq!(again[&name("client3")].len(), 3);
    assert_eq!(again[&name("client3")][0], "10.0.0.3".parse::<std::net::IpAddr>().unwrap());
}

#[test]
fn the_address_that_a_client_is_known_by_stays_while_it_is_among_them() {
    let mut addresses = Addresses::new();
    let parse = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect::<Vec<std::net::IpAddr>>();
    let mut first = |list: &[&str]| {
        learn(&mut addresses, &name("client3"), parse(list));
        addresses[&name("client3")][0].to_string()
    };
    assert_eq!(first(&["10.0.0.3", "192.0.2.3"]), "10.0.0.3");
    assert_eq!(first(&["192.0.2.3", "10.0.0.3"]), "10.0.0.3", "in whatever order they come");
    assert_eq!(first(&["192.0.2.3"]), "192.0.2.3");
    assert_eq!(first(&[]), "192.0.2.3", "a name service that knows nothing takes nothing away");
}

#[test]
fn a_mapped_address_is_the_same_client() {
    let found = found(&["::ffff:10.0.0.1", "10.0.0.1"]);
    assert_eq!(found.clients.clients().collect::<Vec<_>>(), [&name("10.0.0.1")]);
}

#[test]
fn two_files_of_one_client_are_one_record_and_one_file_of_two_clients_two() {
    let mut both = line("10.0.0.1", 1);
    both.extend(line("10.0.0.2", 2));
    let files = vec![
        file(Folder::Sm, "clients.example.test", both),
        file(Folder::Sm, "10.0.0.2", line("10.0.0.2", 3)),
    ];
    let found = population(&Scan { files, problems: vec![] }, &BTreeMap::new(), &Addresses::new());
    assert_eq!(*found.clients.get(&name("10.0.0.1")).unwrap(), line("10.0.0.1", 1));
    let second = String::from_utf8(found.clients.get(&name("10.0.0.2")).unwrap().to_vec()).unwrap();
    assert_eq!(second.lines().count(), 2, "{second}");
}

#[test]
fn lines_we_placed_ourselves_are_no_registration() {
    let generated =
        MonitorLine::generated(name("10.0.0.1"), heirlock_nsm::MyName::parse("nfs-service").unwrap());
    let mut placed = Vec::new();
    generated.render(&mut placed);
    let mut with_own = placed.clone();
    with_own.extend(line("10.0.0.1", 5));
    let conveyed = BTreeMap::from([(name("10.0.0.1"), placed.clone())]);
    let alone = Scan { files: vec![file(Folder::Sm, "10.0.0.1", placed)], problems: vec![] };
    assert!(population(&alone, &conveyed, &Addresses::new()).clients.is_empty());
    let registered = Scan { files: vec![file(Folder::Sm, "10.0.0.1", with_own)], problems: vec![] };
    let found = population(&registered, &conveyed, &Addresses::new());
    assert_eq!(found.clients, Records::from([(name("10.0.0.1"), line("10.0.0.1", 5))]));
}

#[test]
fn a_peer_is_kept_for_the_host_alone_unless_it_is_a_client_as_well() {
    let life = life("1");
    let peer = Roles { peers: BTreeSet::from([name("10.0.0.9")]), connected: BTreeSet::new() };
    let mut service = ledger(&[]);
    assert_eq!(service.compare(at(0), &found(&["10.0.0.9"]), &peer, Some(&life)), []);
    let unmounted = Roles::default();
    let entries = service.compare(at(1), &found(&["10.0.0.9"]), &unmounted, Some(&life));
    assert_eq!(entries, [], "the mount ended, its record is still that of a peer");
    let connected = Roles { connected: BTreeSet::from([name("10.0.0.9")]), ..peer.clone() };
    assert_eq!(service.compare(at(2), &found(&["10.0.0.9"]), &connected, Some(&life)).len(), 1);

    let mut host = Ledger::new(Records::new(), true, DELAY);
    assert_eq!(host.compare(at(0), &found(&["10.0.0.9"]), &peer, Some(&life)).len(), 1);
}

#[test]
fn a_line_that_the_status_monitor_wrote_itself_is_never_placed() {
    let line = |cookie: &str| format!("0100007f 000186b5 00000003 00000010 {cookie:0>32} 10.0.0.1 nfs-a\n");
    let (own, other) = (line("1"), line("2"));
    let both = format!("{own}{other}");
    let place = |there: &str, remembered: &str, description: &str| {
        let [there, remembered, description] = [there, remembered, description].map(str::as_bytes);
        String::from_utf8(lines_to_place(there, remembered, description, "nfs-b")).unwrap()
    };
    let of_b = own.replace("nfs-a", "nfs-b");
    assert_eq!(place("", "", &format!("{of_b}{other}")), other, "captured here, and come home");
    assert_eq!(place("", "", &both), both);
    assert_eq!(place(&own, "", &both), other, "its own registration came back as a copy");
    assert_eq!(place(&both, &other, &both), other, "placed by the run before");
}

#[test]
fn a_client_that_came_and_went_between_two_looks_was_seen() {
    let (mut ledger, life) = (ledger(&["10.0.0.1", "10.0.0.2"]), life("1"));
    compare(&mut ledger, 0, &[], None);
    ledger.saw(name("10.0.0.1"), Some(&life));
    compare(&mut ledger, 1, &[], Some(&life));
    assert_eq!(ledger.tombstones(), 1, "and a client that was not seen is kept");
}

#[test]
fn a_client_that_came_while_none_served_or_in_an_earlier_life_was_not_seen_in_this_one() {
    let (mut ledger, first, second) = (ledger(&["10.0.0.1"]), life("1"), life("2"));
    ledger.saw(name("10.0.0.1"), None);
    compare(&mut ledger, 0, &[], Some(&first));
    assert_eq!(ledger.tombstones(), 0, "no life, nothing seen");
    ledger.saw(name("10.0.0.1"), Some(&first));
    compare(&mut ledger, 1, &[], Some(&second));
    assert_eq!(ledger.tombstones(), 0, "another life saw it");
}

/// A directory full of foreign files holds a look up no longer than one of as many clients.
#[test]
fn of_a_client_with_countless_files_the_first_lines_are_kept() {
    let line =
        |i: usize| format!("0100007f 000186b5 00000003 00000010 {i:032x} 10.0.0.1 nfs-a\n").into_bytes();
    let files = (0..20_000).map(|i| file(Folder::Sm, &format!("name{i:05}"), line(i)));
    let scan = Scan { files: files.collect(), problems: Vec::new() };
    let found = population(&scan, &BTreeMap::new(), &Addresses::new());
    let kept = found.clients.get(&name("10.0.0.1")).unwrap();
    let expected: Vec<u8> = (0..limits::RECORD_BYTES_MAX / line(0).len()).flat_map(line).collect();
    assert!(*kept == expected, "{} bytes are kept, of {}", kept.len(), expected.len());
}

#[test]
fn a_client_that_registers_again_has_its_whole_delay_before_it_when_it_leaves() {
    let (mut ledger, life) = (ledger(&["10.0.0.1"]), life("1"));
    compare(&mut ledger, 0, &["10.0.0.1"], Some(&life));
    compare(&mut ledger, 1, &[], Some(&life));
    // It was there between two looks.
    ledger.saw(name("10.0.0.1"), Some(&life));
    assert_eq!((ledger.tombstones(), compare(&mut ledger, 121, &[], Some(&life))), (0, vec![]));
    assert_eq!(compare(&mut ledger, 241, &[], Some(&life)), [RecordChange::remove(name("10.0.0.1"))]);
}

#[test]
fn a_client_whose_removal_failed_is_written_anew_where_it_is_found_again_and_removed_again_where_it_is_not() {
    let (mut ledger, life) = (ledger(&["10.0.0.1"]), life("1"));
    compare(&mut ledger, 0, &["10.0.0.1"], Some(&life));
    compare(&mut ledger, 1, &[], Some(&life));
    let gone = [RecordChange::remove(name("10.0.0.1"))];
    let removes =
        |ledger: &mut Ledger, second| ledger.compare(at(second), &found(&[]), &Roles::default(), Some(&life));
    assert_eq!(removes(&mut ledger, 200), gone);
    ledger.uncommitted(&gone);
    assert!(!ledger.holds(&name("10.0.0.1")) && ledger.stored().contains_key(&name("10.0.0.1")));
    assert_eq!(removes(&mut ledger, 201), gone, "it is gone still, and may be on record");
    ledger.uncommitted(&gone);
    let arrived = ledger.arrived();
    let written = compare(&mut ledger, 202, &["10.0.0.1"], Some(&life));
    assert_eq!(written, [RecordChange::put(name("10.0.0.1"), line("10.0.0.1", 1))]);
    assert!(ledger.holds(&name("10.0.0.1")) && ledger.arrived() > arrived, "it counts as a new one");
    assert_eq!(compare(&mut ledger, 203, &["10.0.0.1"], Some(&life)), []);
}

#[test]
fn a_record_whose_replacement_failed_is_written_anew_even_as_it_was_before() {
    let (mut ledger, life) = (ledger(&["10.0.0.1"]), life("1"));
    ledger.uncommitted(&[RecordChange::put(name("10.0.0.1"), line("10.0.0.1", 2))]);
    let written = compare(&mut ledger, 0, &["10.0.0.1"], Some(&life));
    assert_eq!(written, [RecordChange::put(name("10.0.0.1"), line("10.0.0.1", 1))]);
}
