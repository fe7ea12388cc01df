use std::thread;

use heirlock_core::ServerName;
use heirlock_nsm::MonName;
use tempfile::TempDir;

use super::*;
use crate::store::dir::DirStore;
use crate::store::steered::Gate;

/// A store with one generation, whose calls hang where the gate is shut, and the signals that are heard when one has ended late.
struct Place {
    _directory: TempDir,
    gate: Gate,
    store: Timed,
    ended: Receiver<()>,
}

fn service() -> ServiceName {
    ServiceName::parse("nfs").unwrap()
}

fn client() -> MonName {
    MonName::parse("10.0.0.1").unwrap()
}

fn record() -> Vec<u8> {
    format!("0100007f 000186b5 00000003 00000010 {:032x} 10.0.0.1 nfs-a\n", 1).into_bytes()
}

fn report(beat: u64) -> ServerReport {
    ServerReport { beat, ..ServerReport::new("nfs-a".parse().unwrap(), "run-1") }
}

fn claim() -> Claim {
    Claim::new(Generation(1), &ServerName::parse("nfs-a").unwrap(), "run-1", 0)
}

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let store = DirStore::create(&directory.path().join("store")).unwrap();
    store.claim(&service(), &claim()).unwrap();
    store.begin_generation(&service(), Generation(1), &Contents::default()).unwrap();
    let gate = Gate::default();
    let (late, ended) = channel();
    let store = Timed::new(Box::new(gate.before(store)), move || late.send(()).unwrap()).unwrap();
    Place { _directory: directory, gate, store, ended }
}

fn kind<T: std::fmt::Debug>(answer: Answer<T>) -> StoreErrorKind {
    answer.unwrap_err().kind().clone()
}

#[test]
fn a_call_that_hangs_fails_in_time_and_no_other_one_overtakes_it() {
    let place = place();
    let put = [Change::put(client(), record())];
    place.gate.shut(&["commit"]);
    let error = place.store.commit(&service(), &claim(), &put).unwrap_err();
    assert_eq!(*error.kind(), StoreErrorKind::TimedOut);
    let sentence = error.to_string();
    assert!(sentence.contains("/store: a commit takes longer than 800 ms"), "{sentence}");
    // The store could answer these, and they would find or leave what the commit changes later.
    assert_eq!(place.store.load(&service(), Generation(1)).unwrap_err().to_string(), sentence);
    assert_eq!(kind(place.store.newest_claim(&service())), StoreErrorKind::TimedOut);
    assert_eq!(place.store.record(&service(), Generation(1), &client().into()), None);
    assert!(place.store.is_busy() && place.ended.try_recv().is_err());
    place.gate.open();
    place.ended.recv().unwrap();
    assert!(!place.store.is_busy());
    let found = place.store.record(&service(), Generation(1), &client().into());
    assert_eq!(found, Some(record().into()), "it came about");
}

#[test]
fn a_heart_beats_while_a_record_hangs_and_a_record_is_written_while_a_heart_does() {
    let place = place();
    let put = [Change::put(client(), record())];
    place.gate.shut(&["commit"]);
    assert_eq!(kind(place.store.commit(&service(), &claim(), &put)), StoreErrorKind::TimedOut);
    for beat in 1..3 {
        assert_eq!(place.store.beat(&report(beat)).unwrap().taken, beat);
    }
    place.gate.open();
    place.ended.recv().unwrap();
    place.gate.shut(&["put_server"]);
    assert_eq!(kind(place.store.beat(&report(3))), StoreErrorKind::TimedOut);
    place.store.commit(&service(), &claim(), &put).unwrap();
    assert_eq!(place.store.hearts().unwrap().reports.len(), 1);
    place.gate.open();
}

#[test]
fn a_heartbeat_that_ends_late_tells_its_result_at_the_next_one() {
    let mut place = place();
    place.store.late_max = Duration::from_secs(600);
    place.gate.shut(&["put_server"]);
    assert_eq!(kind(place.store.beat(&report(1))), StoreErrorKind::TimedOut);
    place.gate.open();
    while entered(&place.store.beats).is_busy() {
        thread::yield_now();
    }
    place.gate.shut(&["put_server"]);
    let late = place.store.beat(&report(2)).unwrap();
    assert_eq!((late.taken, late.hearts.reports.len()), (1, 0), "what the first had found");
    assert_eq!(kind(place.store.beat(&report(3))), StoreErrorKind::TimedOut, "it is told once");
    place.gate.open();
}

#[test]
fn a_call_that_carries_much_is_waited_for_as_long_as_it_makes_progress() {
    let Place { mut store, _directory, .. } = place();
    let wait_max = Duration::from_secs(3);
    store.calls.wait_max = wait_max;
    let (lane, inner) = (&store.calls, Arc::clone(&store.store));
    let working = move |store: &dyn Store| {
        for _ in 0..2 {
            thread::sleep(wait_max * 2 / 3);
            store.number_of(&service(), Generation(1))?;
        }
        Ok(())
    };
    let waits = [Wait::WhileItProgresses, Wait::Brief];
    let done =
        waits.map(|wait| lane.call(inner.as_ref(), "work", wait, &|| None, working).map_err(|e| e.is_late()));
    assert_eq!(done, [Ok(()), Err(true)]);
}
