use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use heirlock_agent::Outside;
use heirlock_core::Generation;
use heirlock_core::store_identity::Kept;
use heirlock_core::takeover::Phase;
use heirlock_nsm::{MonName, StateNumber};

use crate::agent::testing::{Place, place, place_with, service};
use crate::store::dir::DirStore;
use crate::store::memory::StoreMemory;
use crate::store::{self, Change as StoreChange, Contents, Store};

const HOME: &str = "home = \"nfs-b\"\n";

/// A server that holds 'nfs' with these clients.
fn holding(clients: &[&str]) -> Place {
    let mut place = place_with(HOME);
    clients.iter().for_each(|client| register(&place, client));
    look(&mut place);
    assert_eq!(known(&place), clients);
    place
}

fn register(place: &Place, client: &str) {
    let line =
        format!("0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 {client} nfs-b\n");
    fs::write(place.directory.path().join("nfs/sm").join(client), line).unwrap();
}

/// A whole turn of the loop: a beat, and a look at the directory.
fn look(place: &mut Place) {
    let now = place.agent.outside().now();
    place.agent.beat_at(now);
    place.agent.capture_mut().look_at(now);
    place.turn();
}

fn known(place: &Place) -> Vec<String> {
    let held = &place.agent.held()[&service("nfs")];
    held.ledger.stored().keys().map(ToString::to_string).collect()
}

fn path(place: &Place, name: &str) -> PathBuf {
    place.directory.path().join(name)
}

fn stored(place: &Place) -> DirStore {
    DirStore::at(&path(place, "store"))
}

fn clients(place: &Place, generation: u64) -> Vec<String> {
    let contents = stored(place).load(&service("nfs"), Generation(generation)).unwrap();
    contents.records.keys().map(ToString::to_string).collect()
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

fn error(place: &Place) -> String {
    place.status().store.error.unwrap_or_default()
}

/// Any part of it may vanish.
#[test]
fn a_claim_or_a_generation_that_vanishes_is_written_anew_with_all_that_is_known() {
    for gone in ["services/nfs", "services/nfs/1", "services/nfs/claims/1", "services/nfs/claims"] {
        let mut place = holding(&["10.0.0.1", "10.0.0.2"]);
        let before = stored(&place).load(&service("nfs"), Generation(1)).unwrap();
        let claim = stored(&place).newest_claim(&service("nfs")).unwrap().unwrap();
        let gone = path(&place, "store").join(gone);
        match gone.is_dir() {
            true => fs::remove_dir_all(&gone).unwrap(),
            false => fs::remove_file(&gone).unwrap(),
        }
        look(&mut place);
        let store = stored(&place);
        assert_eq!(store.newest_claim(&service("nfs")).unwrap(), Some(claim), "{}", gone.display());
        assert_eq!(store.load(&service("nfs"), Generation(1)).unwrap(), before, "{}", gone.display());
        assert_eq!(error(&place), "");
    }
}

#[test]
fn a_store_that_comes_back_without_its_records_is_not_well_before_they_are_in_it_again() {
    let mut place = holding(&["10.0.0.1"]);
    let (store, away) = (path(&place, "store"), path(&place, "away"));
    fs::rename(&store, &away).unwrap();
    register(&place, "10.0.0.2");
    look(&mut place);
    assert!(error(&place).contains("is its volume mounted?"), "{}", error(&place));
    fs::remove_dir_all(away.join("services/nfs")).unwrap();
    fs::rename(&away, &store).unwrap();
    // A commit that succeeds, of the server's own service, says nothing of the other one.
    place.agent.scan(place.agent.outside().now());
    assert_ne!(error(&place), "");
    look(&mut place);
    look(&mut place);
    assert_eq!(error(&place), "");
    assert_eq!(clients(&place, 1), ["10.0.0.1", "10.0.0.2"]);
}

#[test]
fn an_older_copy_under_a_living_agent_is_found_out_and_completed() {
    let mut place = holding(&["10.0.0.1", "10.0.0.2"]);
    let (store, old) = (path(&place, "store"), path(&place, "old"));
    // Mounted in between two beats: no call fails.
    copy(&store, &old);
    let [first, strange] = ["10.0.0.1", "10.0.0.9"].map(|name| MonName::parse(name).unwrap());
    let of_old = DirStore::at(&old);
    let record = of_old.load(&service("nfs"), Generation(1)).unwrap().records.get(&first).unwrap().clone();
    let changes = [StoreChange::put(strange, record), StoreChange::remove(first)];
    let ours = of_old.newest_claim(&service("nfs")).unwrap().unwrap();
    of_old.commit(&service("nfs"), &ours, &changes).unwrap();
    register(&place, "10.0.0.3");
    look(&mut place);
    fs::remove_dir_all(&store).unwrap();
    fs::rename(&old, &store).unwrap();
    look(&mut place);
    let all = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.9"];
    assert_eq!(clients(&place, 1), all, "and a client that is in it besides is believed");
    assert_eq!(known(&place), all);
    assert_eq!(error(&place), "");
}

#[test]
fn another_store_is_refused_and_nothing_is_written_to_it() {
    let mut place = holding(&["10.0.0.1"]);
    let (store, away) = (path(&place, "store"), path(&place, "away"));
    fs::rename(&store, &away).unwrap();
    DirStore::create(&store).unwrap();
    for start in 0..2 {
        look(&mut place);
        assert!(
            error(&place).contains("found a new one: is its volume mounted?"),
            "{start}: {}",
            error(&place)
        );
        assert!(!place.agent.holdings_known());
        for folder in ["services", "servers"] {
            assert_eq!(fs::read_dir(store.join(folder)).unwrap().count(), 0, "{start}, {folder}");
        }
        if start == 0 {
            place.start_again();
            assert!(place.agent.held().is_empty());
        }
    }
    fs::remove_dir_all(&store).unwrap();
    fs::rename(&away, &store).unwrap();
    look(&mut place);
    assert_eq!((error(&place).as_str(), known(&place)), ("", vec!["10.0.0.1".to_owned()]));
}

#[test]
fn an_agent_that_begins_on_an_older_copy_acts_on_nothing_and_goes_on_above_it_where_it_is_accepted() {
    let mut place = holding(&["10.0.0.1"]);
    let old = path(&place, "old");
    copy(&path(&place, "store"), &old);
    let nfs = service("nfs");
    // Since then this server has adopted three times.
    let happened = |memory: &mut StoreMemory| {
        memory.saw(&nfs, Generation(4), Some(Generation(4)), Some(StateNumber(15)));
    };
    store::memory::update(&path(&place, "local"), happened).unwrap();
    place.start_again();
    look(&mut place);
    let said = "expected generation 4 of nfs or a newer one, found generation 1: is the store an older copy of itself?";
    assert!(error(&place).contains(said), "{}", error(&place));
    assert!(!place.agent.held().contains_key(&nfs) && !place.status().store.well);
    assert!(
        place.agent.held().len() == 1,
        "what it shows of others is good: {:?}",
        place.agent.held().keys()
    );
    // Not even where the claim is asked for.
    place.begin("nfs");
    while place.agent.run().is_some() {
        let message = place.next();
        place.agent.handle(message);
    }
    assert_eq!(place.claims("nfs"), 1);
    let identity = stored(&place).found().unwrap().identity.unwrap();
    store::memory::update(&path(&place, "local"), |memory| memory.accept(&identity, Kept::Services)).unwrap();
    look(&mut place);
    assert_eq!(known(&place), ["10.0.0.1"]);
    place.begin("nfs");
    place.drive(Phase::Conveyed);
    let claim = stored(&place).newest_claim(&nfs).unwrap().unwrap();
    assert_eq!(claim.generation, Generation(5));
    assert_eq!(stored(&place).number_of(&nfs, Generation(5)).unwrap(), Some(StateNumber(17)));
}

#[test]
fn a_service_that_the_store_has_lost_is_never_claimed_as_if_for_the_first_time() {
    let mut place = holding(&["10.0.0.1"]);
    fs::remove_dir_all(path(&place, "store/services/nfs")).unwrap();
    place.start_again();
    look(&mut place);
    let said = "expected generation 1 of nfs or a newer one, found none: did the store lose it?";
    assert!(error(&place).contains(said), "{}", error(&place));
    assert_eq!(place.claims("nfs"), 0);
}

/// It may be serving there.
#[test]
fn the_holder_of_a_service_in_an_accepted_store_keeps_it() {
    let mut place = holding(&["10.0.0.1"]);
    let (store, nfs) = (path(&place, "store"), service("nfs"));
    fs::rename(&store, path(&place, "away")).unwrap();
    let other = DirStore::create(&store).unwrap();
    let theirs = heirlock_core::claim::Claim::new(Generation::FIRST, &"nfs-a".parse().unwrap(), "agent", 0);
    other.claim(&nfs, &theirs).unwrap();
    look(&mut place);
    let identity = other.found().unwrap().identity.unwrap();
    store::memory::update(&path(&place, "local"), |memory| memory.accept(&identity, Kept::Services)).unwrap();
    look(&mut place);
    assert!(!place.agent.held().contains_key(&nfs));
    assert_eq!(other.newest_claim(&nfs).unwrap(), Some(theirs));
}

#[test]
fn a_store_of_an_earlier_version_gets_an_identity_and_keeps_all() {
    let mut place = holding(&["10.0.0.1"]);
    fs::remove_file(path(&place, "store/identity")).unwrap();
    store::memory::forget(&path(&place, "local")).unwrap();
    place.start_again();
    look(&mut place);
    assert_eq!((error(&place).as_str(), known(&place)), ("", vec!["10.0.0.1".to_owned()]));
    let identity = stored(&place).found().unwrap().identity;
    assert!(identity.is_some());
    assert_eq!(store::memory::load(&path(&place, "local")).unwrap().identity, identity);
}

#[test]
fn a_service_of_another_server_is_remembered_with_its_number() {
    let mut place = place();
    let (store, nfs) = (stored(&place), service("nfs"));
    let claim = heirlock_core::claim::Claim::new(Generation(3), &"nfs-a".parse().unwrap(), "agent", 0);
    store.claim(&nfs, &claim).unwrap();
    let contents = Contents { state: Some(StateNumber(11)), ..Contents::default() };
    store.begin_generation(&nfs, Generation(3), &contents).unwrap();
    look(&mut place);
    let known = store::memory::load(&path(&place, "local")).unwrap().known(&nfs);
    assert_eq!((known.expected, known.number), (Some(Generation(3)), Some(11)));
    fs::remove_dir_all(path(&place, "store/services/nfs")).unwrap();
    look(&mut place);
    assert!(error(&place).contains("did the store lose it?"), "{}", error(&place));
    // Its owner, which knows it all, has written it anew.
    store.claim(&nfs, &claim).unwrap();
    store.begin_generation(&nfs, Generation(3), &contents).unwrap();
    look(&mut place);
    assert_eq!(error(&place), "");
}

#[test]
fn a_memory_that_cannot_be_written_is_said_and_written_later() {
    let mut place = holding(&[]);
    let (local, away) = (path(&place, "local"), path(&place, "elsewhere"));
    fs::rename(&local, &away).unwrap();
    let nfs = service("nfs");
    place.agent.saw_generation(&nfs, Generation(2), Some(Generation(2)), None);
    place.agent.saw_generation(&nfs, Generation(3), Some(Generation(3)), None);
    let problem = place.agent.acquaintance().problem().unwrap();
    assert!(problem.contains("store.json"), "{problem}");
    fs::rename(&away, &local).unwrap();
    place.agent.saw_generation(&service("new"), Generation(1), None, None);
    assert_eq!(place.agent.acquaintance().problem(), None);
    let memory = store::memory::load(&local).unwrap();
    assert_eq!(memory.known(&nfs).expected, Some(Generation(3)));
    assert_eq!(memory.known(&service("new")).highest, Some(Generation(1)));
}
