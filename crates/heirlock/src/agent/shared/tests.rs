use std::collections::BTreeMap;
use std::fs;

use heirlock_agent::Outside;
use heirlock_agent::agent::holdings::claim_first;
use heirlock_core::claim::Claim;
use heirlock_core::takeover::{Event, Journal, Phase};
use heirlock_core::{Generation, ServerName};
use heirlock_nsm::{MonName, StateNumber};

use crate::agent::testing::{Place, place_in_mode, service};
use crate::store::Store;
use crate::store::dir::DirStore;

const CLIENTS: usize = 3;

/// A server that holds 'new', and is about to tell the clients of 'nfs', which was another's.
pub(crate) fn about_to_tell(mode: &str) -> Place {
    let mut place = place_in_mode(mode);
    let store = DirStore::open(&place.directory.path().join("store")).unwrap();
    let begin = |name: &str, owner: &str, records: BTreeMap<MonName, Vec<u8>>| {
        let owner = ServerName::parse(owner).unwrap();
        let claim = Claim::new(Generation::FIRST, &owner, "agent", 0);
        let journal = Journal::quiet("run", &owner, 0);
        claim_first(&store, &service(name), &claim, StateNumber(1), &journal).unwrap().unwrap();
        let put = records.into_iter().map(|(client, bytes)| crate::store::Change::put(client, bytes));
        store.commit(&service(name), &claim, &put.collect::<Vec<_>>()).unwrap();
    };
    let clients = (1..=CLIENTS).map(|number| {
        let client = MonName::parse(&format!("10.0.0.{number}")).unwrap();
        let line = format!("0100007f 000186b5 00000003 00000010 {number:032x} {} nfs-a\n", client.as_str());
        (client, line.into_bytes())
    });
    begin("nfs", "nfs-a", clients.collect());
    begin("new", "nfs-b", BTreeMap::new());
    place.agent.do_what_is_due();
    assert!(place.agent.held().contains_key(&service("new")));
    place.begin("nfs");
    place.drive(Phase::Recognised);
    place.event(Event::Proved(Ok(())));
    place.event(Event::BroughtUp(Ok(())));
    assert_eq!(place.phase(), Some(Phase::Notifying));
    place
}

fn waits(place: &Place) -> bool {
    place.agent.run().as_ref().unwrap().untold.is_some()
}

fn known_to_new(place: &Place) -> usize {
    place.agent.held()[&service("new")].ledger.stored().len()
}

#[test]
fn adopted_clients_are_durable_in_every_service_before_the_first_is_told() {
    let mut place = about_to_tell("callout");
    assert_eq!((waits(&place), known_to_new(&place)), (true, 0));
    place.agent.do_what_is_due();
    assert_eq!((waits(&place), known_to_new(&place)), (false, CLIENTS));
}

#[test]
fn no_client_waits_for_a_store_that_fails() {
    let mut place = about_to_tell("callout");
    let (there, away) = (place.directory.path().join("store"), place.directory.path().join("away"));
    fs::rename(&there, &away).unwrap();
    place.agent.do_what_is_due();
    assert_eq!((waits(&place), known_to_new(&place)), (false, 0));
    fs::rename(&away, &there).unwrap();
    let retry = place.agent.shared().due().unwrap();
    place.agent.share_a_portion(retry);
    assert_eq!(known_to_new(&place), CLIENTS);
}

#[test]
fn no_client_waits_long_for_a_store_that_is_slow() {
    let mut place = about_to_tell("callout");
    let until = place.agent.run().as_ref().unwrap().untold.as_ref().unwrap().until;
    place.agent.notify_once_shared(place.agent.outside().now());
    assert!(waits(&place));
    place.agent.notify_once_shared(until);
    assert_eq!((waits(&place), known_to_new(&place)), (false, 0));
    place.agent.do_what_is_due();
    assert_eq!(known_to_new(&place), CLIENTS, "the rest follows");
}

#[test]
fn where_the_directory_is_watched_the_next_look_shares() {
    assert!(!waits(&about_to_tell("watch")));
}
