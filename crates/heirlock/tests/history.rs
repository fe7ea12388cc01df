//! The past of a service, told by any server: after a failover, with an agent and without one.

#![expect(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

#[path = "agent/harness.rs"]
#[expect(dead_code, reason = "the tests of the agent as a whole use the rest")]
mod harness;
#[path = "crashes/network.rs"]
#[expect(dead_code, reason = "the tests that kill the agent at every step use the rest")]
mod network;

use std::fs;

use harness::{Server, Site};
use network::Network;
use serde_json::{Value, json};

const CLIENTS: [&str; 2] = ["127.1.0.1", "127.1.0.2"];

/// No client answers there.
const DEAD: &str = "127.1.0.9";

fn document(server: &Server, words: &[&str]) -> (Option<i32>, Value) {
    let said = server.run(&[words, &["--json"]].concat());
    let document = serde_json::from_slice(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    (said.status.code(), document)
}

fn text(server: &Server, words: &[&str]) -> String {
    String::from_utf8(server.run(words).stdout).unwrap()
}

/// nfs-a had three clients and died; nfs-b adopts, and one of the clients is off.
fn failed_over() -> (Site, Server, Server, Network) {
    let (site, a, b, network) = dead();
    let adopted = b.run(&["adopt", "nfs", "--owner-fenced=nfs-a", "--json"]);
    assert_eq!(adopted.status.code(), Some(6), "one is off: {adopted:?}");
    (site, a, b, network)
}

/// The same before any server has adopted. The adoptive server takes itself for the home.
fn dead() -> (Site, Server, Server, Network) {
    let site = Site::new();
    let mut a = site.server("a", "nfs-a");
    a.up();
    for client in CLIENTS.iter().chain([&DEAD]) {
        a.register(client);
    }
    a.wait_until_captured("nfs", 3);
    let mut b = site.server("b", "nfs-b");
    let network = Network::new(&CLIENTS, "nfs-b", b.path(""));
    let life = b.path("life").display().to_string();
    b.configure(
        "rpcbind-port = 9",
        &format!("rpcbind-port = {}\nprivileged-port = false", network.rpcbind_port),
    );
    b.configure(
        "recognise = [\"true\"]",
        &format!("recognise = [\"cp\", \"/proc/sys/kernel/random/uuid\", \"{life}\"]"),
    );
    b.configure("home = \"nfs-a\"", "home = \"nfs-b\"");
    b.configure("grace-period = \"20s\"", "grace-period = \"6s\"\nsettle-margin = \"1s\"");
    b.up();
    b.wait_until_it_hears_the_other();
    a.kill();
    (site, a, b, network)
}

#[test]
fn a_plain_adopt_goes_on_with_a_prepared_one_and_a_verb_that_is_repeated_says_the_same() {
    let (_site, _a, b, _network) = dead();
    let prepared = b.run(&["adopt", "nfs", "--prepare", "--owner-fenced=nfs-a", "--json"]);
    assert_eq!(prepared.status.code(), Some(0), "{prepared:?}");
    let status = document(&b, &["status"]).1;
    let waits = |name: &str| {
        let of = status["services"].as_array().unwrap().iter().find(|s| s["service"] == name).unwrap();
        (of["awaits_finish"] == true, of["clients_to_tell"].clone())
    };
    assert_eq!(waits("nfs"), (true, json!(3)));
    assert_eq!(waits("host.nfs-b"), (false, json!(0)), "there is no --finish for it");
    let (code, adopted) = document(&b, &["adopt", "nfs"]);
    assert_eq!((code, &adopted["phase"], &adopted["unreachable"]), (Some(6), &json!("settled"), &json!(1)));
    for again in [&["adopt", "nfs"] as &[&str], &["adopt", "nfs", "--finish"], &["failback", "nfs"]] {
        let (code, said) = document(&b, again);
        assert_eq!((code, &said["unreachable"]), (Some(6), &json!(1)), "{again:?}: {said}");
    }
}

#[test]
fn a_failover_is_told_on_any_server_with_an_agent_and_without_one() {
    let (_site, a, mut b, _network) = failed_over();

    // The new owner names the client that is off, and a monitoring system is warned.
    let (code, status) = document(&b, &["status"]);
    let nfs = status["services"].as_array().unwrap().iter().find(|s| s["service"] == "nfs").unwrap();
    assert_eq!((code, &nfs["owner"], &nfs["records"]), (Some(0), &json!("nfs-b"), &json!(3)), "{status}");
    assert_eq!(
        (&nfs["unreachable"], &nfs["lost"], &nfs["next"]),
        (&json!(1), &json!(0), &json!("look-at-clients"))
    );
    assert_eq!(nfs["missed"][0]["client"], DEAD);
    assert!(nfs["missed"][0]["since_s"].as_u64().is_some() && status["protected_since_s"].as_u64().is_some());
    assert_eq!(b.run(&["status", "--check"]).status.code(), Some(1));

    let with_agent = document(&b, &["report", "nfs"]).1;
    b.stop();
    for (who, server) in [("the new owner", &b), ("the old one", &a)] {
        let (code, history) = document(server, &["history", "nfs"]);
        let [second, first] = history[0]["generations"].as_array().unwrap().as_slice() else {
            panic!("{who}: {history}")
        };
        assert_eq!(
            (code, &first["cause"], &first["to"]),
            (Some(0), &json!("first"), &json!("nfs-a")),
            "{who}"
        );
        assert_eq!((&second["cause"], &second["from"]), (&json!("asked"), &json!("nfs-a")), "{who}");
        assert_eq!(
            (&second["clients"], &second["told"], &second["re_registered"]),
            (&json!(3), &json!(2), &json!(2))
        );
        assert_eq!((&second["unreachable"], &second["lost"]), (&json!(1), &json!(0)), "{who}");
        let (sign, ready) =
            (second["last_sign_ms"].as_i64().unwrap(), second["without_service_ms"].as_i64().unwrap());
        assert!(sign < 0 && ready > -sign, "{who}: from the last beat on: {second}");
        assert!(second["until_last_client_ms"].as_i64().unwrap() >= ready, "{who}: {second}");

        let (code, report) = document(server, &["report", "nfs"]);
        assert_eq!(code, Some(6), "one is off");
        assert_eq!(report["tenure"], *second, "{who}");
        for key in ["generation", "state_number", "timeline", "failed", "clients", "started_at_s", "strategy"]
        {
            assert_eq!(report[key], with_agent[key], "{who}: {key}");
        }
        let (_, report) = document(server, &["report", "nfs", "--generation", "2", "--clients"]);
        let each: Vec<_> =
            report["each_client"].as_array().unwrap().iter().map(|c| (&c["client"], &c["outcome"])).collect();
        let expected = [
            (&json!(CLIENTS[0]), &json!("re-registered")),
            (&json!(CLIENTS[1]), &json!("re-registered")),
            (&json!(DEAD), &json!("unreachable")),
        ];
        assert_eq!(each, expected, "{who}");
        let said = server.run(&["report", "nfs", "--generation", "1"]);
        assert_eq!(said.status.code(), Some(3));
        assert!(
            String::from_utf8_lossy(&said.stderr).contains("nfs-a claimed nfs for the first time"),
            "{said:?}"
        );
        assert_eq!(server.run(&["report", "nfs", "--generation", "7"]).status.code(), Some(2));
        assert!(text(server, &["history", "nfs"]).contains("  nfs-a  nfs-b  asked for "), "{who}");
    }
    // Without an agent the service is shown from the store, with its owner.
    let said = a.run(&["status"]);
    assert_eq!(said.status.code(), Some(4));
    let shown = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(shown.contains("no agent answers; ") && shown.contains("\nnfs         nfs-b "), "{shown}");
    assert!(shown.contains(&format!("missed: {DEAD} is unreachable since ")), "{shown}");
    assert!(shown.contains("nfs-b   stopped in order, or in maintenance\n  last beat: at "), "{shown}");
}

#[test]
fn a_history_that_leaves_a_client_out_or_has_a_second_server_in_a_generation_is_called_broken() {
    let (site, a, b, _network) = failed_over();
    let broken = |server: &Server| {
        let (code, history) = document(server, &["history", "nfs"]);
        (code, history[0]["broken"].clone())
    };
    assert_eq!(broken(&b), (Some(0), Value::Null), "all went well");
    let second = site.store().join("services/nfs/2");
    let outcomes = fs::read_to_string(second.join("outcomes")).unwrap();
    let without: String =
        outcomes.lines().filter(|line| !line.contains(DEAD)).map(|line| format!("{line}\n")).collect();
    assert_ne!(without, outcomes);
    fs::write(second.join("outcomes"), without).unwrap();
    let silent = format!(
        "{DEAD} was on record before generation 2, whose run is over (settled) and says nothing of it (every client has an outcome)"
    );
    assert_eq!(broken(&a), (Some(1), json!([silent])));
    let journal = fs::read_to_string(second.join("journal.json")).unwrap();
    fs::write(second.join("journal.json"), journal.replace("\"nfs-b\"", "\"nfs-a\"")).unwrap();
    let foreign =
        "nfs-a wrote the journal of generation 2, which nfs-b claimed (one server acts in a generation)";
    assert_eq!(broken(&a), (Some(1), json!([foreign, silent])));
    let shown = text(&a, &["history", "nfs"]);
    assert!(shown.contains("  a promise was broken: "), "{shown}");
}
