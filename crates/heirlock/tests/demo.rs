//! The demo, as a newcomer runs it: real agents, and its word checked against its exit code.

#![allow(clippy::unwrap_used, clippy::panic)] // a test may

use std::process::Command;

use serde_json::Value;

fn demo(arguments: &[&str]) -> (Option<i32>, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_heirlock"))
        .args(["demo", "--json"])
        .args(arguments)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    (output.status.code(), report)
}

/// When something happened, in milliseconds since the primary was killed.
fn at(report: &Value, event: &str) -> i64 {
    let timeline = report["timeline"].as_array().unwrap();
    let entry = timeline.iter().find(|entry| entry["event"] == event);
    entry.unwrap_or_else(|| panic!("no {event} in {timeline:?}"))["at_ms"].as_i64().unwrap()
}

#[test]
fn every_client_is_told_and_holds_its_lock_again() {
    let (code, report) = demo(&["--clients", "20"]);
    assert_eq!(code, Some(0), "{report}");
    for count in ["clients", "acknowledged", "told", "locks_held_again"] {
        assert_eq!(report[count], 20, "{count} in {report}");
    }
    assert_eq!((&report["unreachable"], &report["lost"]), (&0.into(), &0.into()));
    let (number, before) =
        (report["state_number"].as_u64().unwrap(), report["primary_state_number"].as_u64().unwrap());
    assert!(number % 2 == 1 && number > before, "{report}");
    assert_eq!(report["contradictions"], serde_json::json!([]));
    let events = [
        "captured",
        "primary-killed",
        "claimed",
        "conveyed",
        "recognised",
        "first-notified",
        "last-notified",
        "settled",
    ];
    let times = events.map(|event| at(&report, event));
    assert!(times.is_sorted(), "{events:?} at {times:?}");
    // Not before "settled" always: a client is registered before the answer that it has its lock is on its way.
    assert!(at(&report, "last-lock-held-again") >= at(&report, "last-notified"), "{report}");
}

#[test]
fn dead_clients_are_reported_and_never_hidden() {
    let (code, report) = demo(&["--clients", "12", "--unreachable", "3"]);
    assert_eq!(code, Some(1), "{report}");
    assert_eq!(
        (&report["acknowledged"], &report["unreachable"], &report["told"]),
        (&9.into(), &3.into(), &9.into())
    );
    assert_eq!(report["contradictions"], serde_json::json!([]), "both accounts know of the dead");
    let failed = report["failed"].as_array().unwrap();
    assert_eq!(failed.len(), 3);
    assert!(failed.iter().all(|one| one["outcome"] == "unreachable" && one["why"] != ""), "{failed:?}");
}
