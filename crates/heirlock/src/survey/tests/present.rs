use heirlock_core::claim::Claim;
use heirlock_core::takeover::{Journal, Milestone, OutcomeLine, Stamp};
use heirlock_core::{Generation, Outcome, RecordKey, ServerName, ServiceName};
use heirlock_nsm::{MonName, StateNumber};

use crate::control::report::{Heart, ProblemKind, ServiceStatus, StatusReport};
use crate::store::dir::DirStore;
use crate::store::{Change, Contents, ServerReport, Store};
use crate::survey::present::*;

fn server(name: &str) -> ServerName {
    ServerName::parse(name).unwrap()
}

fn key(client: &str) -> MonName {
    MonName::parse(client).unwrap()
}

fn record(name: &str) -> Vec<u8> {
    format!("0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 {name} nfs\n").into_bytes()
}

/// nfs-a has adopted nfs, and missed two of its three clients; the adoption ended in the future, as it seems to a
/// record that was written before.
fn store(folder: &std::path::Path, started_at_s: u64) -> (DirStore, ServiceName) {
    let (store, service) =
        (DirStore::create(&folder.join("store")).unwrap(), ServiceName::parse("nfs").unwrap());
    store.claim(&service, &Claim::new(Generation(4), &server("nfs-a"), "agent", 7)).unwrap();
    let journal = Journal {
        timeline: vec![Stamp { event: Milestone::Settled, at_ms: 90_000 }],
        ..Journal::quiet("run", &server("nfs-a"), started_at_s)
    };
    let outcome = |client: &str, outcome: Outcome| OutcomeLine {
        why: Some("no answer".into()),
        ..OutcomeLine::new(RecordKey::parse(client).unwrap(), outcome, 90_000)
    };
    let contents = Contents {
        state: Some(StateNumber(11)),
        records: [("192.0.2.1", "one"), ("192.0.2.2", "two.example"), ("192.0.2.3", "three")]
            .map(|(client, name)| (key(client), record(name)))
            .into(),
        journal: Some(journal),
        outcomes: vec![
            outcome("192.0.2.1", Outcome::Acknowledged),
            outcome("192.0.2.2", Outcome::Unreachable),
            outcome("192.0.2.3", Outcome::Lost),
        ],
        damaged: Vec::new(),
    };
    store.begin_generation(&service, Generation(4), &contents).unwrap();
    (store, service)
}

const FUTURE_S: u64 = 4_000_000_000;

#[test]
fn a_standby_sees_every_services_clients_and_whom_the_last_adoption_missed_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = store(folder.path(), FUTURE_S);
    store.put_server(&ServerReport::new(server("nfs-a"), "agent")).unwrap();
    let present = look(&store, &server("nfs-b")).unwrap();
    let nfs = &present.services[0];
    assert_eq!((nfs.owner.as_deref(), nfs.held, nfs.records), (Some("nfs-a"), false, 3));
    assert_eq!((nfs.unreachable, nfs.lost, nfs.adopted_at_s), (1, 1, Some(FUTURE_S)));
    let missed: Vec<_> = nfs.missed.iter().map(|c| (c.client.as_str(), c.names.join(" "))).collect();
    assert_eq!(missed, [("192.0.2.2", "two.example".into()), ("192.0.2.3", "three".into())]);
    assert_eq!(nfs.missed[0].since_s, Some(FUTURE_S + 90));
    assert_eq!((present.servers[0].heart, present.problems.len()), (Heart::Unknown, 0));
}

#[test]
fn a_client_that_registered_again_or_is_forgotten_is_missed_no_more() {
    let folder = tempfile::tempdir().unwrap();
    // Long ago: a report that is written now is news.
    let (store, service) = store(folder.path(), 1_000);
    assert_eq!(look(&store, &server("nfs-b")).unwrap().services[0].missed, []);
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = self::store(folder.path(), FUTURE_S);
    let ours = store.newest_claim(&service).unwrap().unwrap();
    store.commit(&service, &ours, &[Change::remove(key("192.0.2.2"))]).unwrap();
    let present = look(&store, &server("nfs-a")).unwrap();
    assert_eq!((present.services[0].unreachable, present.services[0].lost), (0, 1));
}

#[test]
fn a_service_that_cannot_be_read_takes_no_other_with_it_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = store(folder.path(), FUTURE_S);
    let other = ServiceName::parse("home").unwrap();
    store.claim(&other, &Claim::new(Generation(1), &server("nfs-a"), "agent", 7)).unwrap();
    std::fs::write(folder.path().join("store/services/home/claims/1"), "torn").unwrap();
    let present = look(&store, &server("nfs-b")).unwrap();
    assert_eq!(present.services.len(), 1);
    assert_eq!(present.problems[0].kind, ProblemKind::Unreadable);
    assert_eq!(present.problems[0].service.as_deref(), Some("home"));
}

#[test]
fn the_agents_word_counts_for_what_it_holds_and_the_stores_for_the_rest() {
    let mut report = StatusReport::without_agent("nfs-a", "the folder /x");
    report.agent = "5f3a".into();
    let of = |service: &str, held, generation, records| ServiceStatus {
        service: service.into(),
        held,
        configured: true,
        generation: Some(generation),
        records,
        ..ServiceStatus::default()
    };
    report.services = vec![of("nfs", true, 4, 7), of("home", false, 1, 0)];
    let owned = |status| ServiceStatus { owner: Some("nfs-b".into()), configured: false, lost: 1, ..status };
    let services = vec![
        owned(of("nfs", false, 4, 5)),
        owned(of("home", false, 2, 9)),
        owned(of("host.nfs-b", false, 1, 1)),
    ];
    add(&mut report, Present { services, ..Present::default() });
    let seen: Vec<_> = report
        .services
        .iter()
        .map(|s| (s.service.as_str(), s.held, s.configured, s.generation.unwrap(), s.records, s.lost))
        .collect();
    let expected =
        [("nfs", true, true, 4, 7, 1), ("home", false, true, 2, 9, 1), ("host.nfs-b", false, false, 1, 1, 1)];
    assert_eq!(seen, expected);
    assert_eq!(report.services[1].owner.as_deref(), Some("nfs-b"));
}
