//! The demo, as a newcomer runs it: real agents, and its word checked against its exit code.

#![allow(clippy::unwrap_used, clippy::panic)] // a test may

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

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

#[cfg(feature = "etcd")]
#[path = "left_out/mod.rs"]
mod left_out;

/// The same story on an etcd of the demo's own, which is gone afterwards.
#[cfg(feature = "etcd")]
#[test]
fn the_store_of_a_demo_lies_in_an_etcd_of_its_own_that_ends_with_it() {
    let path = std::env::var_os("PATH").unwrap();
    if !std::env::split_paths(&path).any(|folder| folder.join("etcd").is_file()) {
        return left_out::leave_out("etcd (Debian: etcd-server)");
    }
    let (code, report) = demo(&["--clients", "5", "--store", "etcd"]);
    assert_eq!(
        (code, &report["told"], &report["locks_held_again"]),
        (Some(0), &5.into(), &5.into()),
        "{report}"
    );
    assert!(report["records_at"].as_str().unwrap().starts_with("etcd at http://127.0.0.1:"), "{report}");
    // Other tests may run demos of their own: their folders are there.
    let left = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let line = fs::read_to_string(entry.ok()?.path().join("cmdline")).ok()?;
        let folder = line.split('\0').find(|word| word.contains("/heirlock-demo-"))?;
        (line.starts_with("etcd\0") && !Path::new(folder).exists()).then(|| line.clone())
    });
    assert_eq!(left.collect::<Vec<_>>(), [""; 0]);
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
    let harm = serde_json::json!({"granted_to_another": true, "holder_still_believes": true});
    assert_eq!((&report["without_heirlock"], &report["rival"]["granted"]), (&harm, &0.into()));
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

/// Waits for an event that must come, however slow the machine is.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// A demo that is killed can clear nothing up by itself.
#[test]
fn a_demo_that_is_killed_leaves_neither_agents_nor_a_folder_behind() {
    let place = tempfile::Builder::new().prefix("d").tempdir_in("/tmp").unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_heirlock"))
        .args(["demo", "--clients", "5"])
        .env("TMPDIR", place.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let agents = wait_for("two agents", || {
        let pids = ["nfs-a", "nfs-b"].map(|server| {
            let folder = entries(place.path()).into_iter().find(|folder| folder.join(server).exists())?;
            let pid = fs::read_to_string(folder.join(server).join("agent.pid")).ok()?;
            Some(pid).filter(|pid| Path::new("/proc").join(pid).exists() && !pid.is_empty())
        });
        let [Some(one), Some(other)] = pids else { return None };
        Some([one, other])
    });
    demo.kill().unwrap();
    demo.wait().unwrap();
    wait_for("an empty folder", || entries(place.path()).is_empty().then_some(()));
    for pid in agents {
        wait_for("the end of an agent", || {
            // Its number may belong to another process by then.
            let command = fs::read(Path::new("/proc").join(&pid).join("cmdline")).unwrap_or_default();
            (!String::from_utf8_lossy(&command).contains("--ends-with")).then_some(())
        });
    }
}

#[test]
fn the_page_of_each_demo_server_is_served_and_tells_of_the_adoption_in_the_end() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_heirlock"))
        .args(["demo", "--page", "--clients", "5", "--json"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(demo.stderr.take().unwrap()).lines().next().unwrap().unwrap();
    let address = said
        .split("of nfs-b at http://")
        .nth(1)
        .unwrap_or_else(|| panic!("{said}"))
        .split('/')
        .next()
        .unwrap();
    let page = wait_for("an adoption on the page", || {
        let mut stream = TcpStream::connect(address).ok()?;
        write!(stream, "GET / HTTP/1.1\r\nHost: {address}\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        page.contains("5 clients came back").then_some(page)
    });
    demo.kill().unwrap();
    demo.wait().unwrap();
    assert!(
        page.contains("homes, generation 2 by nfs-b") && page.contains("nfs-a had fallen silent"),
        "{page}"
    );
    assert!(page.contains("<svg viewBox=") && page.contains("From left to right: "), "{page}");
}
