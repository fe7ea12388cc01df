//! A fault of one entry of the store concerns that entry alone: the real program, and its messages to a person.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "agent/harness.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod harness;

use std::fs;
use std::process::Stdio;

use harness::{Server, Site, line};
use heirlock_nsm::StateNumber;
use serde_json::Value;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A service whose newest claim can't be read and began nothing, beside one that is well.
fn with_a_torn_claim(site: &Site) -> Server {
    let claims = site.store().join("services/new/claims");
    fs::create_dir_all(&claims).unwrap();
    fs::write(claims.join("6"), "torn").unwrap();
    let mut server = site.server("a", "nfs-a");
    server.up();
    server
}

#[test]
fn a_claim_that_cannot_be_read_is_named_with_its_way_out_and_holds_up_no_other_service() {
    let site = Site::new();
    let server = with_a_torn_claim(&site);
    server.register("127.1.0.1");
    server.wait_until_captured("nfs", 1);
    let status = text(&server.run(&["status"]).stdout);
    assert!(status.contains("new         unknown"), "{status}");
    assert!(status.contains("claims/6") && status.contains("'heirlock adopt new --force'"), "{status}");
    let doctor = text(&server.run(&["doctor"]).stdout);
    assert!(doctor.contains("claims/6") && doctor.contains("'heirlock adopt new --force'"), "{doctor}");
    let listed = server.run(&["records", "list"]);
    assert!(text(&listed.stdout).contains("nfs") && text(&listed.stderr).contains("claims/6"), "{listed:?}");
    assert_eq!(listed.status.code(), Some(1));

    let refused = server.run(&["adopt", "new"]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    let said = text(&refused.stderr);
    assert!(said.contains("claims/6") && said.contains("'heirlock adopt new --force'"), "{said}");

    let mut forced = server.command(&["adopt", "new", "--force"]).stderr(Stdio::null()).spawn().unwrap();
    let state = site.store().join("services/new/7/state");
    server.wait_for("the next generation", |_| state.exists().then_some(()));
    let number = StateNumber::parse_file(&fs::read(&state).unwrap()).unwrap().0;
    assert!(number > 5 + 1000, "{number} may have been sent by the server that claimed generation 6");
    let journal = fs::read_to_string(site.store().join("services/new/7/journal.json")).unwrap();
    let journal: Value = serde_json::from_str(&journal).unwrap();
    let entry = journal["troubles"][0]["entry"].as_str().unwrap();
    assert!(entry.ends_with("services/new/claims/6"), "{journal}");
    assert_eq!(server.service("nfs").unwrap()["records"], 1);
    forced.kill().unwrap();
    forced.wait().unwrap();
}

#[test]
fn an_owner_writes_its_claim_anew_and_goes_on_whether_it_ran_or_begins() {
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    server.up();
    server.register("127.1.0.1");
    server.wait_until_captured("nfs", 1);
    let claim = site.store().join("services/nfs/claims/1");
    let is_whole = |_: &Server| {
        let claim: Value = serde_json::from_slice(&fs::read(&claim).ok()?).ok()?;
        (claim["owner"] == "nfs-a").then_some(())
    };
    fs::write(&claim, "torn").unwrap();
    server.wait_for("its claim", is_whole);
    server.kill();
    fs::write(&claim, "torn").unwrap();
    server.up();
    server.wait_for("its claim", is_whole);
    server.register("127.1.0.2");
    server.wait_until_captured("nfs", 2);
    assert!(server.log().contains("was written anew"), "{}", server.log());
}

#[test]
fn a_service_is_released_whose_entry_is_damaged_and_the_exit_code_says_so() {
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    server.configure("127.0.0.1", "192.0.2.10");
    server.up();
    for client in ["127.1.0.1", "127.1.0.2"] {
        server.register(client);
    }
    server.wait_until_captured("nfs", 2);
    let sm = site.store().join("services/nfs/1/sm");
    // A record that the agent knows, one that it does not, and the number.
    fs::write(sm.join("127.1.0.1"), "torn").unwrap();
    fs::write(sm.join("127.1.0.9"), "torn").unwrap();
    fs::write(sm.join("127.1.0.8"), line("127.1.0.8")).unwrap();
    fs::write(site.store().join("services/nfs/1/state"), "no number").unwrap();
    let released = server.run(&["release", "nfs", "--json"]);
    assert_eq!(released.status.code(), Some(6), "{released:?}\n{}", server.log());
    let said: Value = serde_json::from_slice(&released.stdout).unwrap();
    let troubles = said["troubles"].as_array().unwrap();
    assert!(
        matches!(troubles.as_slice(), [one] if one["entry"].as_str().unwrap().ends_with("1/sm/127.1.0.9")),
        "{said}"
    );
    assert!(site.store().join("services/nfs/claims/1.released").exists());
    // The record that the agent knew was written anew.
    assert_eq!(fs::read_to_string(sm.join("127.1.0.1")).unwrap(), line("127.1.0.1"));
    let state = fs::read(site.store().join("services/nfs/1/state")).unwrap();
    assert_eq!(StateNumber::parse_file(&state), Ok(StateNumber(5)));
}

#[test]
fn a_service_without_damage_is_released_without_a_word_of_it() {
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    server.configure("127.0.0.1", "192.0.2.10");
    server.up();
    let released = server.run(&["release", "nfs"]);
    assert_eq!(released.status.code(), Some(0), "{released:?}");
}
