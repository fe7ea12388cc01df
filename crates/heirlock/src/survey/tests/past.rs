use std::sync::atomic::{AtomicUsize, Ordering};

use heirlock_core::claim::Claim;
use heirlock_core::history::{Beginning, Tenure};
use heirlock_core::history_check::{HistoryCheck, Rule};
use heirlock_core::limits::TENURES_KEPT;
use heirlock_core::takeover::{Cause, Journal, Milestone, OutcomeLine, Part, Stamp};
use heirlock_core::{Generation, Outcome, RecordKey, ServerName, ServiceName};
use heirlock_nsm::{MonName, StateNumber};

use crate::store::dir::DirStore;
use crate::store::steered::Steered;
use crate::store::{Change, Contents, Store};
use crate::survey::past::*;

const LINE: &str = "0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 10.0.0.1 nfs-b\n";

fn service() -> ServiceName {
    ServiceName::parse("nfs").unwrap()
}

fn server(name: &str) -> ServerName {
    ServerName::parse(name).unwrap()
}

fn begin(store: &dyn Store, generation: u64, owner: &str, journal: &Journal) {
    let claim = Claim::new(Generation(generation), &server(owner), "agent", 100 * generation);
    store.claim(&service(), &claim).unwrap();
    let records = heirlock_core::Records::from([(MonName::parse("10.0.0.1").unwrap(), LINE)]);
    let contents = Contents {
        state: Some(StateNumber(11)),
        records,
        journal: Some(journal.clone()),
        outcomes: vec![OutcomeLine::new(RecordKey::parse("10.0.0.1").unwrap(), Outcome::Acknowledged, 2500)],
        damaged: Vec::new(),
    };
    store.begin_generation(&service(), Generation(generation), &contents).unwrap();
}

fn adopted(owner: &str, started_at_s: u64) -> Journal {
    Journal {
        timeline: vec![Stamp { event: Milestone::Ready, at_ms: 2_000 }],
        members: vec![(service(), Part::Target)],
        cause: Cause::Asked,
        ..Journal::quiet("run", &server(owner), started_at_s)
    }
}

/// nfs-a has it, gives it to nfs-b, and nfs-b dies.
fn story() -> (tempfile::TempDir, DirStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = DirStore::create(&folder.path().join("store")).unwrap();
    let home = Journal::quiet("run", &server("nfs-a"), 100);
    begin(&store, 1, "nfs-a", &home);
    let released = Change::PutJournal(Box::new(Journal { released_at_s: Some(192), ..home }));
    let ours = store.newest_claim(&service()).unwrap().unwrap();
    store.commit(&service(), &ours, &[released]).unwrap();
    store.release(&service(), Generation(1)).unwrap();
    begin(&store, 2, "nfs-b", &adopted("nfs-b", 200));
    begin(&store, 3, "nfs-a", &Journal { cause: Cause::OwnerDead, ..adopted("nfs-a", 300) });
    (folder, store)
}

#[test]
fn the_last_adoptions_are_told_with_the_times_of_their_clients_and_without_their_names() {
    let (_folder, store) = story();
    let reports = crate::survey::adoptions::last(&store).unwrap();
    let told: Vec<_> =
        reports.iter().map(|report| (report.generation, report.acknowledged, report.clients)).collect();
    assert_eq!(told, [(3, 1, 1), (2, 1, 1)], "the newest first, and no first claim");
    let [newest, _] = reports.as_slice() else { panic!("{reports:?}") };
    let times: Vec<_> = newest.each_client.iter().map(|client| (client.at_ms, client.outcome)).collect();
    assert_eq!(times, [(2_500, Some(Outcome::Acknowledged))]);
    assert_eq!(newest.tenure.as_ref().unwrap().from.as_deref(), Some("nfs-b"));
    assert!(!format!("{:?}", newest.each_client).contains("10.0.0.1"));
}

#[test]
fn the_history_of_a_service_says_from_whom_to_whom_and_why() {
    let (_folder, store) = story();
    let (tenures, unreadable) = history(&store, &service()).unwrap();
    let told: Vec<_> = tenures
        .iter()
        .map(|t| (t.generation.0, t.from.as_ref().map(ServerName::as_str), t.owner.as_str(), t.beginning))
        .collect();
    let expected = [
        (3, Some("nfs-b"), "nfs-a", Beginning::OwnerDead),
        (2, Some("nfs-a"), "nfs-b", Beginning::Moved),
        (1, None, "nfs-a", Beginning::First),
    ];
    assert_eq!((told.as_slice(), unreadable), (expected.as_slice(), Vec::new()));
    assert_eq!(tenures[1].gap.until_ready_ms(), Some(10_000), "from the release on");
    assert_eq!((tenures[1].clients.clients, tenures[1].clients.told), (1, 1));
}

#[test]
fn a_history_is_told_and_judged_by_one_reading_of_each_generation() {
    let (_folder, store) = story();
    // nfs-c uses the number of the others, and says nothing of the client.
    let journal = Journal { cause: Cause::Asked, ..Journal::quiet("another run", &server("nfs-c"), 400) };
    begin(&store, 4, "nfs-c", &journal);
    let read = AtomicUsize::new(0);
    let before = |method| {
        read.fetch_add(usize::from(method == "account"), Ordering::Relaxed);
        Ok(())
    };
    let counted = Steered { store, before };
    let judged = judged(&counted, &service()).unwrap();
    assert_eq!(read.load(Ordering::Relaxed), 4, "generations, each read once");
    let rules: Vec<Rule> = judged.broken.iter().map(|broken| broken.rule).collect();
    assert!(rules.contains(&Rule::NumbersUsedOnce), "{:?}", judged.broken);
    assert!(judged.unreadable.is_empty());
    assert_eq!(judged.tenures, history(&counted, &service()).unwrap().0);
    // As the look of the checker itself finds them.
    let mut check = HistoryCheck::default();
    check.look_at(&counted, &service()).unwrap();
    assert_eq!(judged.broken, check.broken().cloned().collect::<Vec<_>>());
}

#[test]
fn a_pruned_generation_is_told_as_before_and_a_second_time_changes_nothing() {
    let (_folder, store) = story();
    let before = history(&store, &service()).unwrap();
    for _ in 0..2 {
        keep_before(&store, &service(), Generation(3)).unwrap();
        store.prune(&service(), Generation(3)).unwrap();
    }
    assert_eq!(store.past(&service()).unwrap().claims.len(), 1);
    assert_eq!(history(&store, &service()).unwrap(), before);
    assert_eq!(tenure_of(&store, &service(), Generation(2)).unwrap().as_ref(), Some(&before.0[1]));
    assert_eq!(tenure_of(&store, &service(), Generation(9)).unwrap(), None);
}

#[test]
fn kept_accounts_are_bounded_and_damaged_ones_are_named() {
    let (folder, store) = story();
    let some = tenure_of(&store, &service(), Generation(1)).unwrap().unwrap();
    for number in 1..=u64::try_from(TENURES_KEPT + 3).unwrap() {
        store.keep_tenure(&service(), &Tenure { generation: Generation(number), ..some.clone() }).unwrap();
    }
    let kept = store.past(&service()).unwrap().tenures;
    assert_eq!((kept.len(), kept.last().unwrap().generation), (TENURES_KEPT, Generation(4)));
    let path = folder.path().join("store/services/nfs/history/5");
    std::fs::write(&path, "torn").unwrap();
    let (_, unreadable) = history(&store, &service()).unwrap();
    assert!(unreadable.len() == 1 && unreadable[0].contains("history/5"), "{unreadable:?}");
}
