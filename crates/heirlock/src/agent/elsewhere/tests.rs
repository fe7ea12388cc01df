use std::net::Ipv4Addr;

use heirlock_agent::agent::beat::Condition;
use heirlock_core::claim::Claim;
use heirlock_core::limits::CLIENT_ADDRESSES_MAX;
use heirlock_core::takeover::{Journal, Part};
use heirlock_core::{Generation, Moment};
use heirlock_nsm::{MonName, StateNumber};
use tempfile::TempDir;

use crate::agent::testing::{Place, place, place_on_a_network, service};
use crate::store::dir::DirStore;
use crate::store::{Contents, ServerReport};

fn name(text: &str) -> MonName {
    MonName::parse(text).unwrap()
}

fn line(client: &str, server: &str) -> String {
    format!("0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 {client} {server}\n")
}

fn store_of(directory: &TempDir) -> DirStore {
    DirStore::open(&directory.path().join("store")).unwrap()
}

/// Holds `nfs` with these records, as after an adoption from nfs-a, whose own address is known or is not.
fn adopted(mut place: Place, records: &[(&str, String)], own: &[&str]) -> Place {
    let store = store_of(&place.directory);
    let agent = &mut place.agent;
    let report = ServerReport {
        node: Some("node-a.example".into()),
        addresses: own.iter().map(|address| address.parse().unwrap()).collect(),
        ..ServerReport::new("nfs-a".parse().unwrap(), "run-1")
    };
    agent.store().put_server(&report).unwrap();
    agent.pulse_mut().beat(Moment::START, &store, Condition::default()).unwrap();
    let us = agent.settings().server.clone();
    let (claim, journal) = (Claim::new(Generation::FIRST, &us, "agent", 0), Journal::quiet("run", &us, 0));
    let records =
        records.iter().map(|(client, record)| (name(client), record.clone().into_bytes())).collect();
    let contents = Contents { state: Some(StateNumber(7)), records, ..Contents::default() };
    agent.hold(&service("nfs"), claim, contents, journal);
    place
}

fn told(place: &Place, part: Part, client: &str) -> Result<Vec<String>, String> {
    let addresses = place.agent.addresses_of(&service("nfs"), part, &name(client))?;
    Ok(addresses.into_iter().map(|to| to.ip.to_string()).collect())
}

#[test]
fn a_server_that_mounted_its_own_service_is_called_at_its_own_address_or_named() {
    for node in ["nfs-a", "node-a", "NODE-A.example"] {
        for client in ["127.0.0.1", "::1", "192.0.2.10", "192.0.2.11", "localhost"] {
            let record = line(client, node);
            let place = adopted(place_on_a_network(), &[(client, record.clone())], &["198.51.100.1"]);
            let is_ours = client != "192.0.2.11";
            let expected = if is_ours { "198.51.100.1" } else { client };
            // 192.0.2.11 is the address of a service that this server does not hold: the server that holds it is there.
            assert_eq!(told(&place, Part::Target, client), Ok(vec![expected.to_owned()]), "{client} {node}");
            assert_eq!(
                place.agent.means_the_same_here(&name(client), record.as_bytes()),
                !is_ours,
                "{client}"
            );
            if is_ours {
                let place = adopted(place_on_a_network(), &[(client, record)], &[]);
                let why = told(&place, Part::Target, client).unwrap_err();
                assert!(why.contains("is nfs-a itself") && why.contains("host.addresses"), "{why}");
            }
        }
    }
}

#[test]
fn a_server_says_by_itself_where_it_is_and_leaves_floating_addresses_out() {
    let mut place = place_on_a_network();
    place.agent.beat(Moment::START);
    let servers = place.agent.store().servers().unwrap();
    let said = &servers[&place.agent.settings().server].addresses;
    let here = crate::host::Host::here().addresses();
    assert!(said.iter().all(|address| here.contains(address) && !address.is_loopback()), "{said:?}");
    let floating = heirlock_agent::agent::common::floating(place.agent.settings());
    let mut own = here.iter().filter(|one| one.is_ipv4() && !one.is_loopback() && !floating.contains(one));
    assert!(own.all(|one| said.contains(one) || said.len() == CLIENT_ADDRESSES_MAX), "{here:?}: {said:?}");
}

#[test]
fn an_address_that_a_third_server_has_as_well_is_not_that_of_the_first() {
    let mut place = adopted(
        place_on_a_network(),
        &[("127.0.0.1", line("127.0.0.1", "nfs-a"))],
        &["198.51.100.1", "198.51.100.2", "192.0.2.11"],
    );
    let called = told(&place, Part::Target, "127.0.0.1");
    assert_eq!(called, Ok(vec!["198.51.100.1".to_owned(), "198.51.100.2".to_owned()]), "one floats");
    // It has moved since: another host answers there.
    let addresses = vec!["198.51.100.2".parse().unwrap()];
    let third = ServerReport { addresses, ..ServerReport::new("nfs-c".parse().unwrap(), "run-1") };
    place.agent.store().put_server(&third).unwrap();
    place.agent.pulse_mut().look(Moment::START, &store_of(&place.directory)).unwrap();
    assert_eq!(told(&place, Part::Target, "127.0.0.1"), Ok(vec!["198.51.100.1".to_owned()]));
}

#[test]
fn on_the_same_server_own_names_and_addresses_count_as_written() {
    for (client, server, part) in [
        ("127.0.0.1", "nfs-b", Part::Target),
        ("192.0.2.10", "nfs-b.example", Part::Own),
        ("127.0.0.1", "old-name", Part::Own),
    ] {
        let place = adopted(place_on_a_network(), &[(client, line(client, server))], &[]);
        assert_eq!(told(&place, part, client), Ok(vec![client.to_owned()]), "{client} {server}");
    }
    let place = adopted(place_on_a_network(), &[("127.0.0.1", line("127.0.0.1", "nfs-x"))], &[]);
    assert!(told(&place, Part::Target, "127.0.0.1").unwrap_err().contains("(nfs-x)"));
}

#[test]
fn where_services_are_on_the_loopback_interface_so_are_clients() {
    let place = adopted(place(), &[("127.1.0.1", line("127.1.0.1", "nfs-a"))], &[]);
    assert_eq!(told(&place, Part::Target, "127.1.0.1"), Ok(vec!["127.1.0.1".to_owned()]));
}

#[test]
fn a_client_on_a_link_is_told_where_it_registered_alone() {
    let record = |server: &str| [("fe80::21%lo", line("fe80::21%lo", server))];
    let place = adopted(place_on_a_network(), &record("nfs-a"), &["198.51.100.1"]);
    assert!(told(&place, Part::Target, "fe80::21%lo").unwrap_err().contains("on a link of nfs-a"));
    let place = adopted(place_on_a_network(), &record("nfs-b"), &[]);
    assert_eq!(told(&place, Part::Target, "fe80::21%lo"), Ok(vec!["fe80::21".to_owned()]));
}

#[test]
fn all_addresses_in_a_record_are_tried_and_none_of_our_own_after_the_first() {
    let record = [
        line("client3", "nfs-a"),
        line("198.51.100.3", "nfs-a"),
        line("127.0.0.1", "nfs-a"),
        line("::ffff:192.0.2.21", "nfs-a"),
    ]
    .concat();
    let mut place = adopted(place_on_a_network(), &[("192.0.2.21", record)], &[]);
    assert_eq!(told(&place, Part::Target, "192.0.2.21").unwrap(), ["192.0.2.21", "198.51.100.3"]);
    // Found out since.
    place
        .agent
        .capture_mut()
        .addresses_mut()
        .insert(name("client3"), vec![Ipv4Addr::new(203, 0, 113, 3).into()]);
    let three = told(&place, Part::Target, "192.0.2.21").unwrap();
    assert_eq!(three, ["192.0.2.21", "203.0.113.3", "198.51.100.3"]);
}
