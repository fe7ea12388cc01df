//! What the contract of all stores does not ask: what etcd is asked, how often, and what comes late, twice, in parts or not at
//! all.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering as AtomicOrdering};
use std::thread;
use std::time::Duration;

use heirlock_core::claim::Claim;
use heirlock_core::store::{Change, ClaimAnswer, Commit, Contents, ServerReport, Store};
use heirlock_core::takeover::{Journal, OutcomeLine};
use heirlock_core::{Generation, Outcome, RecordKey, Records, ServerName, ServiceName};
use heirlock_nsm::{MonName, StateNumber};

use super::EtcdStore;
use super::client::Purpose;
use super::testing::members::post;
use super::testing::{Etcd, Fate, Proxy};
use super::wire::{Op, Txn};
use crate::config::EtcdSettings;
use crate::store::StoreOnHost;

mod figures;
mod members;

fn nfs() -> ServiceName {
    ServiceName::parse("nfs").unwrap()
}

fn server(name: &str) -> ServerName {
    ServerName::parse(name).unwrap()
}

fn claim(generation: u64, owner: &str) -> Claim {
    Claim::new(Generation(generation), &server(owner), "run", 7)
}

fn record(client: &str) -> Vec<u8> {
    format!("0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 {client} nfs-a\n")
        .into_bytes()
}

fn key(client: &str) -> RecordKey {
    RecordKey::Nsm(MonName::parse(client).unwrap())
}

fn put(client: &str) -> Change {
    Change::put(key(client), record(client))
}

fn contents(clients: usize, number: u32) -> Contents {
    let clients =
        (0..clients).map(|client| format!("10.{}.{}.{}", client >> 16, (client >> 8) & 255, client & 255));
    Contents {
        state: Some(StateNumber(number)),
        records: clients.map(|client| (key(&client), record(&client))).collect(),
        journal: Some(Journal::quiet("run", &server("a"), number.into())),
        outcomes: vec![OutcomeLine::new(key("10.0.0.0"), Outcome::Acknowledged, 7)],
        damaged: Vec::new(),
    }
}

/// As many records as of one transaction and some more, none of which [`contents`] has.
fn others() -> Records {
    (0..300).map(|client| format!("other-{client}")).map(|client| (key(&client), record(&client))).collect()
}

const PREFIX: &str = "/heirlock/";

/// An etcd with a store in it, and a proxy before it.
fn proxied() -> Option<(Etcd, Proxy, EtcdSettings)> {
    let etcd = Etcd::start(1)?;
    etcd.store(PREFIX).set_up().unwrap();
    let proxy = Proxy::before(etcd.address(0));
    let settings = EtcdSettings { endpoints: vec![proxy.url()], ..etcd.settings(PREFIX) };
    Some((etcd, proxy, settings))
}

fn begun(store: &EtcdStore, clients: usize) {
    assert_eq!(store.claim(&nfs(), &claim(1, "a")).unwrap(), ClaimAnswer::Won);
    store.begin_generation(&nfs(), Generation(1), &contents(clients, 7)).unwrap();
}

fn records(store: &EtcdStore) -> Records {
    store.load(&nfs(), Generation(1)).unwrap().records
}

#[test]
fn a_new_client_costs_one_question_and_so_do_a_heartbeat_and_a_look_at_many_services() {
    let Some((_etcd, proxy, settings)) = proxied() else { return };
    let store = EtcdStore::at(&settings);
    let (by, other) = (claim(1, "a"), ServiceName::parse("other").unwrap());
    begun(&store, 3);
    store.claim(&other, &by).unwrap();
    store.begin_generation(&other, Generation(1), &contents(3, 7)).unwrap();
    store.put_server(&ServerReport::new(server("a"), "run")).unwrap();
    store.commit(&nfs(), &by, &[put("first")]).unwrap();
    let asked = |call: &dyn Fn()| {
        proxy.plan(|_| Fate::Passes);
        call();
        proxy.asked()
    };
    assert_eq!(asked(&|| store.commit(&nfs(), &by, &[put("next")]).unwrap()), 1);
    let commit = |service: &ServiceName| Commit {
        service: service.clone(),
        by: by.clone(),
        changes: vec![put("both")],
    };
    store.commit_each(&[commit(&nfs()), commit(&other)]).unwrap();
    assert_eq!(asked(&|| store.commit_each(&[commit(&nfs()), commit(&other)]).unwrap()), 1);
    assert_eq!(
        asked(&|| drop(
            store.beat(&ServerReport { beat: 1, ..ServerReport::new(server("a"), "run") }).unwrap()
        )),
        1
    );
    let look = [nfs(), other].map(|service| heirlock_core::store::Asked { service, held: None });
    assert_eq!(
        asked(&|| assert!(store.look(&look).iter().all(|seen| seen.begun == Ok(Some(Generation(1)))))),
        1
    );
}

/// I3: no look comes before it. What the former owner knew is the condition, and etcd refuses. By a second question its owner
/// learns why; where that is not answered, nothing was written all the same.
#[test]
fn the_write_of_a_former_owner_fails_in_etcd_itself() {
    let Some((etcd, proxy, settings)) = proxied() else { return };
    for is_told in [true, false] {
        let store = EtcdStore::at(&settings);
        begun(&store, 3);
        store.commit(&nfs(), &claim(1, "a"), &[put("first")]).unwrap();
        let before = records(&store);
        assert_eq!(etcd.store(PREFIX).claim(&nfs(), &claim(2, "b")).unwrap(), ClaimAnswer::Won);
        let passes = if is_told { 2 } else { 1 };
        proxy.plan(move |asked| if asked.number <= passes { Fate::Passes } else { Fate::NeverAsked });
        let error = store.commit(&nfs(), &claim(1, "a"), &[put("late")]).unwrap_err();
        assert_eq!((error.is_not_owner(), error.may_pass()), (is_told, !is_told), "{error}");
        proxy.plan(|_| Fate::Passes);
        // Also of a commit that is several transactions, and where nothing is known any more.
        let many: Vec<Change> = (0..300).map(|client| put(&format!("late-{client}"))).collect();
        for store in [&store, &EtcdStore::at(&settings)] {
            assert!(store.commit(&nfs(), &claim(1, "a"), &many).unwrap_err().is_not_owner());
        }
        assert_eq!(records(&store), before);
        etcd.clear();
        etcd.store(PREFIX).set_up().unwrap();
    }
}

/// What a refused commit is looked at for is of a later moment than the refusal: what came about between them is in it.
#[test]
fn a_commit_that_is_refused_is_made_after_all_that_came_before_its_owner_looked() {
    let Some((etcd, proxy, settings)) = proxied() else { return };
    let (store, twin, by) = (EtcdStore::at(&settings), etcd.store(PREFIX), claim(1, "a"));
    begun(&store, 0);
    store.commit(&nfs(), &by, &[put("first")]).unwrap();
    // Another agent under the same name: its mark is not the one that is known here.
    twin.commit(&nfs(), &by, &[put("refused-by")]).unwrap();
    let (beside, ours) = (twin, by.clone());
    proxy.plan(move |asked| {
        if asked.number == 2 {
            beside.commit(&nfs(), &ours, &[put("between"), Change::remove(key("first"))]).unwrap();
        }
        Fate::Passes
    });
    store.commit(&nfs(), &by, &[put("last")]).unwrap();
    assert_eq!(proxy.asked(), 3, "the refused commit, the look, and the commit");
    let there: Vec<_> = records(&store).keys().map(|key| key.as_str().to_owned()).collect();
    assert_eq!(there, ["between", "last", "refused-by"]);
}

/// A commit that fails, since no answer comes, may be carried out until the next one is, and never after that.
#[test]
fn a_removal_that_comes_late_can_t_destroy_the_record_that_came_after_it() {
    let Some((_etcd, proxy, settings)) = proxied() else { return };
    let store = EtcdStore::at(&settings);
    let by = claim(1, "a");
    begun(&store, 3);
    store.commit(&nfs(), &by, &[put("client")]).unwrap();
    proxy.plan(|_| Fate::Late);
    let error = store.commit(&nfs(), &by, &[Change::remove(key("client"))]).unwrap_err();
    assert!(error.may_pass(), "{error}");
    proxy.plan(|_| Fate::Passes);
    store.commit(&nfs(), &by, &[put("client")]).unwrap();
    // By now what was late has been carried out.
    for _ in 0..10 {
        assert!(records(&store).contains_key(&key("client")));
    }
}

#[test]
fn a_heartbeat_that_comes_late_does_not_say_again_that_a_server_beats_which_has_stopped() {
    let Some((_etcd, proxy, settings)) = proxied() else { return };
    let store = EtcdStore::at(&settings);
    let report = |beat, paused| ServerReport { beat, paused, ..ServerReport::new(server("a"), "run") };
    store.put_server(&report(1, false)).unwrap();
    proxy.plan(|_| Fate::Late);
    store.put_server(&report(2, false)).unwrap_err();
    proxy.plan(|_| Fate::Passes);
    store.put_server(&report(3, true)).unwrap();
    for _ in 0..10 {
        assert!(store.servers().unwrap()[&server("a")].paused);
    }
}

/// Whatever is lost from the k-th question on, the generation is not there or whole; and the next attempt, which begins with
/// something else, leaves nothing of the one before.
#[test]
fn a_generation_whose_making_ends_anywhere_is_whole_or_not_there() {
    let Some((etcd, proxy, settings)) = proxied() else { return };
    for lost in [Fate::NeverAsked, Fate::Swallowed, Fate::Late] {
        for ends_at in 1..40 {
            let generation = Generation(ends_at as u64);
            let store = EtcdStore::at(&settings);
            proxy.plan(move |asked| if asked.number >= ends_at { lost } else { Fate::Passes });
            let made = store.begin_generation(&nfs(), generation, &contents(300, 7));
            proxy.plan(|_| Fate::Passes);
            if lost == Fate::NeverAsked && made.is_err() {
                assert_ne!(store.newest_generation(&nfs(), generation).unwrap(), Some(generation));
                assert!(store.load(&nfs(), generation).is_err());
                assert!(store.commit(&nfs(), &claim(generation.0, "a"), &[put("x")]).is_err());
            }
            let is_first = |store: &EtcdStore| store.load(&nfs(), generation).unwrap() == contents(300, 7);
            if made.is_ok() {
                assert!(is_first(&store), "{lost:?} {ends_at}");
                break;
            }
            // The next attempt begins with something else. What is left on the way of the first is carried out beside it.
            let other = Contents { records: others(), ..contents(1, 9) };
            store.begin_generation(&nfs(), generation, &other).unwrap();
            // The last step of the first may have been carried out: then it is there, and is left as it is.
            let expected = if is_first(&store) { contents(300, 7) } else { other };
            for _ in 0..5 {
                assert!(store.load(&nfs(), generation).unwrap() == expected, "{lost:?} {ends_at}");
            }
            assert!(ends_at < 39, "it ends");
        }
        etcd.clear();
        etcd.store(PREFIX).set_up().unwrap();
    }
}

/// Records of 64 KiB: all of them are more than etcd sends at once, or takes.
#[test]
fn records_of_any_length_are_written_and_read_in_portions() {
    let Some(etcd) = Etcd::start(1) else { return };
    let store = etcd.store(PREFIX);
    store.set_up().unwrap();
    begun(&store, 0);
    let line = record("10.0.0.1");
    let long: Vec<u8> = line.iter().copied().cycle().take(line.len() * (60_000 / line.len())).collect();
    let changes: Vec<Change> =
        (0..300).map(|client| Change::put(key(&format!("client-{client}")), long.clone())).collect();
    store.commit(&nfs(), &claim(1, "a"), &changes).unwrap();
    let loaded = store.load(&nfs(), Generation(1)).unwrap();
    // A record of so many lines is none that a status monitor writes: it is named, with its key.
    assert_eq!(loaded.records.len() + loaded.damaged.len(), 300);
    assert_eq!(store.account(&nfs(), Generation(1)).unwrap().keys.len(), 300);
}

/// A server's services keep the same records: a second copy of a hundred thousand would take 15 MiB, for a moment or for good.
#[test]
fn what_two_services_have_in_common_is_kept_once_as_it_is_read() {
    let Some(etcd) = Etcd::start(1) else { return };
    let store = etcd.store(PREFIX);
    store.set_up().unwrap();
    begun(&store, 3);
    let (other, generation) = (ServiceName::parse("other").unwrap(), Generation(1));
    let mut theirs = contents(4, 9);
    theirs.records.insert(key("10.0.0.1"), record("10.0.0.9"));
    store.begin_generation(&other, generation, &theirs).unwrap();
    let first = records(&store);
    // A heartbeat between the two readings takes nothing away.
    store.put_server(&ServerReport::new(server("a"), "run")).unwrap();
    let second = store.load(&other, generation).unwrap();
    assert!(second == theirs);
    let is_once = |client: &str| {
        let [(one, bytes), (two, others)] =
            [&first, &second.records].map(|all| all.get_key_value(&key(client)).unwrap());
        bytes.is_shared_with(others) && std::ptr::eq(one.as_str(), two.as_str())
    };
    assert_eq!(["10.0.0.0", "10.0.0.1", "10.0.0.2"].map(is_once), [true, false, true]);
    // A reading that fails takes nothing away either.
    assert!(store.load(&other, Generation(2)).is_err());
    let again = store.load(&other, generation).unwrap().records;
    assert!(again.iter().all(|(key, record)| second.records.get(key).unwrap().is_shared_with(record)));
}

#[test]
fn ten_thousand_records_are_read_as_they_were_written_also_where_etcd_is_compacted_meanwhile() {
    let Some((etcd, proxy, settings)) = proxied() else { return };
    let store = EtcdStore::at(&settings);
    begun(&store, 10_000);
    let expected = contents(10_000, 7);
    assert!(store.load(&nfs(), Generation(1)).unwrap() == expected);
    // Between two portions another server writes, and what was is compacted away.
    let other = etcd.store(PREFIX);
    let address = etcd.own(0);
    let compacted = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&compacted);
    proxy.plan(move |asked| {
        if asked.number == 3 {
            other.put_server(&ServerReport::new(server("b"), "run")).unwrap();
            compact(address);
            counted.fetch_add(1, AtomicOrdering::Relaxed);
        }
        Fate::Passes
    });
    assert!(store.load(&nfs(), Generation(1)).unwrap() == expected);
    assert_eq!(compacted.load(AtomicOrdering::Relaxed), 1);
}

/// Compacts away all but what is now.
fn compact(address: std::net::SocketAddr) {
    let answer = post(address, "/v3/kv/range", r#"{"key":"AA==","limit":"1"}"#).unwrap();
    let revision = answer.split("\"revision\":\"").nth(1).unwrap().split('"').next().unwrap();
    let answer = post(address, "/v3/kv/compaction", &format!(r#"{{"revision":"{revision}"}}"#)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_prefix_that_another_program_uses_is_not_taken_and_a_store_that_keeps_something_is_not_taken_away() {
    let Some(etcd) = Etcd::start(1) else { return };
    let store = etcd.store(PREFIX);
    let stray = Op::Put(b"/heirlock/theirs".to_vec(), b"x".to_vec());
    store.client.txn(&Txn { then: vec![stray], ..Txn::default() }, Purpose::Call).unwrap();
    let error = store.set_up().unwrap_err().to_string();
    assert!(error.contains("found the key /heirlock/theirs") && error.contains("store.prefix"), "{error}");
    etcd.clear();
    assert!(store.found().unwrap_err().is_absent());
    let made = store.set_up().unwrap();
    assert_eq!(store.set_up().unwrap(), made, "made once");
    store.put_server(&ServerReport::new(server("a"), "run")).unwrap();
    assert!(store.remove_empty(None).is_err());
    etcd.clear();
    store.set_up().unwrap();
    store.remove_empty(None).unwrap();
    let absent = store.found().unwrap_err().to_string();
    assert!(absent.contains("heirlock enable"), "{absent}");
    store.expect(made.identity.as_ref());
    let gone = store.services().unwrap_err();
    assert!(gone.is_absent() && gone.to_string().contains("has it lost its data?"), "{gone}");
}

#[test]
fn a_claim_that_can_t_be_read_is_told_by_its_generation_or_said_to_be_lost() {
    let Some(etcd) = Etcd::start(1) else { return };
    let store = etcd.store(PREFIX);
    store.set_up().unwrap();
    begun(&store, 3);
    let damage = |generation, value: Option<&[u8]>| {
        let key = store.keys.claim(&nfs(), Generation(generation));
        match value {
            Some(value) => store
                .client
                .txn(&Txn { then: vec![Op::Put(key, value.to_vec())], ..Txn::default() }, Purpose::Call)
                .map(drop)
                .unwrap(),
            None => store.remove(super::wire::Span::key(key)).unwrap(),
        }
    };
    for value in [Some(b"{".as_slice()), None] {
        damage(1, value);
        let told = store.newest_claim(&nfs()).unwrap().unwrap();
        assert!(told.owner == server("a") && told.unreadable.is_some(), "{told:?}");
        assert!(
            matches!(store.claim(&nfs(), &claim(1, "b")).unwrap(), ClaimAnswer::Taken(_)),
            "its number is used"
        );
        store.commit(&nfs(), &claim(1, "a"), &[put("kept")]).unwrap();
        store.restore_claim(&nfs(), &claim(1, "a")).unwrap();
        assert_eq!(store.newest_claim(&nfs()).unwrap(), Some(claim(1, "a")));
    }
    damage(2, Some(b"\xff\xfe"));
    let lost = store.newest_claim(&nfs()).unwrap_err();
    assert_eq!(lost.lost_claim(), Some(Generation(2)));
    assert!(lost.to_string().contains("heirlock adopt nfs --force"), "{lost}");
    assert_eq!(store.claim(&nfs(), &claim(3, "b")).unwrap(), ClaimAnswer::Won, "above it one is free");
}

/// Whatever the other side is: no panic, no endless waiting for more, and nothing that is kept beyond a bound.
#[test]
fn a_program_that_is_no_etcd_is_said_to_be_none() {
    let answers: [(&str, Vec<u8>); 6] = [
        ("nothing", b"".to_vec()),
        ("no HTTP", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("a page", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>".to_vec()),
        ("an answer to another question", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec()),
        (
            "a redirection",
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ),
        ("a length that no answer has", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{".to_vec()),
    ];
    for (what, answer) in answers {
        let said = asked_of(move |stream| drop(stream.write_all(&answer)));
        assert!(said.contains("expected"), "{what}: {said}");
    }
    let endless = asked_of(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while stream.write_all(&[b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat()).is_ok() {}
    });
    assert!(endless.contains("within its bound"), "{endless}");
    let heads = asked_of(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"X: y\r\n").is_ok() {}
    });
    assert!(heads.contains("expected"), "{heads}");
}

fn asked_of(answer: impl Fn(&mut std::net::TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut some = [0; 65536];
            let _ = stream.read(&mut some);
            answer(&mut stream);
        }
    });
    let settings = EtcdSettings {
        endpoints: vec![format!("http://{address}")],
        prefix: PREFIX.to_owned(),
        ca: None,
        certificate: None,
        user: None,
        connect_time: Duration::from_secs(20),
        answer_time: Duration::from_secs(20),
    };
    EtcdStore::at(&settings).services().unwrap_err().to_string()
}
