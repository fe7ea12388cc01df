//! The real agent, ill-treated: no record may be lost or invented when it is killed, when its folders vanish, or when two
//! of them want the same.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "agent/harness.rs"]
mod harness;
#[path = "crashes/network.rs"]
#[expect(dead_code, reason = "the tests that kill it at every step look at what clients were told")]
mod network;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use harness::{Server, Site, line, names};
use network::Network;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_captured_record_survives_a_kill_and_one_that_came_meanwhile_is_caught_up() {
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    server.up();
    server.register("10.0.0.1");
    server.wait_until_captured("nfs", 1);
    server.kill();
    server.register("10.0.0.2");
    server.up();
    server.wait_until_captured("nfs", 2);
    let sm = site.store().join("services/nfs/1/sm");
    assert_eq!(names(&sm), ["10.0.0.1", "10.0.0.2"], "in the same generation: nothing was adopted");
    assert_eq!(fs::read_to_string(sm.join("10.0.0.1")).unwrap(), line("10.0.0.1"), "to the byte");
}

#[test]
fn an_orderly_stop_of_the_agent_is_said_and_forgets_no_record() {
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    server.up();
    server.register("10.0.0.1");
    server.wait_until_captured("nfs", 1);
    assert_eq!(server.stop(), Some(0));
    let heartbeat = fs::read_to_string(site.store().join("servers/nfs-a")).unwrap();
    assert!(heartbeat.contains("\"paused\": true"), "{heartbeat}");
    assert!(!server.path("run/control.sock").exists(), "its socket goes with it");
    server.up();
    server.wait_until_captured("nfs", 1);
}

#[test]
fn of_two_agents_under_one_name_the_newcomer_gives_way() {
    let site = Site::new();
    let (mut first, mut second) = (site.server("a", "nfs-a"), site.server("b", "nfs-a"));
    first.up();
    second.start();
    let (code, log) = second.ended();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("another agent lives under the name nfs-a"), "{log}");
    assert!(first.lives());
    assert_eq!(first.run(&["status"]).status.code(), Some(0));
}

#[test]
fn two_agents_cannot_share_a_runtime_directory() {
    let site = Site::new();
    let mut first = site.server("a", "nfs-a");
    first.up();
    let second = first.run(&["agent"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("another agent listens"), "{}", text(&second.stderr));
    assert!(first.lives());
}

#[test]
fn of_two_adopters_at_the_same_moment_one_is_refused() {
    let site = Site::new();
    let (mut b, mut c) = (site.server("b", "nfs-b"), site.server("c", "nfs-c"));
    b.up();
    c.up();
    // The second adopter then knows that the first one lives. It would refuse to claim from a server that it has not
    // watched long enough, for that reason.
    b.wait_until_it_hears_the_other();
    c.wait_until_it_hears_the_other();
    let adopters = [&b, &c].map(|server| {
        let mut command = server.command(&["adopt", "new", "--json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    // Nothing answers the winner's question for grace here, so it ends without having told a client; that is not the point.
    let outputs = adopters.map(|adopter| adopter.wait_with_output().unwrap());
    let codes = outputs.each_ref().map(|output| output.status.code());
    assert!(codes == [Some(1), Some(3)] || codes == [Some(3), Some(1)], "{codes:?}: {outputs:?}");
    let loser = outputs.iter().find(|output| output.status.code() == Some(3)).unwrap();
    let said = text(&loser.stderr);
    assert!(said.contains("at the same moment") || said.contains("belongs to nfs-"), "{said}");
    assert_eq!(names(&site.store().join("services/new/claims")), ["1"]);
}

#[test]
fn a_service_that_is_not_configured_is_refused_and_the_others_are_named() {
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    server.up();
    for verb in ["adopt", "release", "failback"] {
        let refused = server.run(&[verb, "nfz"]);
        assert_eq!(refused.status.code(), Some(3), "{verb}");
        let said = text(&refused.stderr);
        assert!(said.contains("there is no service nfz") && said.contains("nfs, new"), "{said}");
    }
}

#[test]
fn a_living_owner_keeps_its_service_and_the_refusal_names_a_remedy() {
    let site = Site::new();
    let (mut a, mut b) = (site.server("a", "nfs-a"), site.server("b", "nfs-b"));
    a.up();
    b.up();
    b.wait_until_it_hears_the_other();
    let refused = b.run(&["adopt", "nfs"]);
    assert_eq!(refused.status.code(), Some(3));
    let said = text(&refused.stderr);
    assert!(said.contains("nfs-a, whose heartbeat changed") && said.contains("--owner-fenced"), "{said}");
    assert_eq!(names(&site.store().join("services/nfs/claims")), ["1"], "nothing was claimed");
}

/// A primary that is gone, and a server that has seen its heart stop.
fn with_a_silent_owner(fence: Option<&str>) -> (Site, Server) {
    let site = Site::new();
    let (mut a, mut b) = (site.server("a", "nfs-a"), site.server("b", "nfs-b"));
    if let Some(fence) = fence {
        b.configure("[heartbeat]", &format!("[hooks]\nfence = [\"{fence}\"]\n[heartbeat]"));
    }
    a.up();
    b.up();
    b.wait_until_it_hears_the_other();
    a.kill();
    b.wait_for("a heart that is still", |server| {
        let status = server.try_status()?;
        status["servers"][0]["heart"].as_str()?.starts_with("silent").then_some(())
    });
    (site, b)
}

#[test]
fn a_silent_owner_keeps_its_service_until_it_is_known_to_be_off() {
    let (site, b) = with_a_silent_owner(None);
    let claims = || names(&site.store().join("services/nfs/claims"));
    for (words, expected) in [
        (&["adopt", "nfs"] as &[&str], ["nfs-a, whose heart is still", "'--owner-fenced nfs-a'"]),
        (&["adopt", "nfs", "--owner-fenced", "nfs-c"], ["belongs to nfs-a", "speaks of nfs-c"]),
        (
            &["adopt", "nfs", "--owner-fenced=NFS-A"],
            ["speaks of NFS-A", "'--owner-fenced nfs-a', as the store"],
        ),
        (
            &["adopt", "nfs", "--owner-fenced", "nfs-a.example.com"],
            ["nfs-a.example.com", "as the store spells it"],
        ),
    ] {
        let refused = b.run(words);
        assert_eq!(refused.status.code(), Some(3), "{words:?}: {refused:?}");
        let said = text(&refused.stderr);
        assert!(expected.iter().all(|part| said.contains(part)), "{words:?}: {said}");
    }
    assert_eq!(claims(), ["1"], "nothing was claimed");
    b.run(&["adopt", "nfs", "--owner-fenced", "nfs-a"]);
    assert_eq!(claims(), ["1", "2"]);
}

#[test]
fn a_fence_is_asked_where_no_administrator_says_that_the_owner_is_off() {
    let (site, b) = with_a_silent_owner(Some("false"));
    let refused = b.run(&["adopt", "nfs"]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    assert!(text(&refused.stderr).contains("the fence did not confirm that nfs-a is off"), "{refused:?}");
    assert_eq!(names(&site.store().join("services/nfs/claims")), ["1"]);
    let (site, b) = with_a_silent_owner(Some("true"));
    let adopted = b.run(&["adopt", "nfs"]);
    assert_eq!(names(&site.store().join("services/nfs/claims")), ["1", "2"], "{adopted:?}");
}

/// A server to which the clients of a primary that is dead come back, but for the last of them, which is switched off.
fn with_one_client_off(site: &Site) -> (Server, Network) {
    let mut a = site.server("a", "nfs-a");
    a.up();
    let clients = ["127.1.0.1", "127.1.0.2", "127.1.0.3"];
    clients.iter().for_each(|client| a.register(client));
    a.wait_until_captured("nfs", 3);
    a.kill();
    let mut b = site.server("b", "nfs-b");
    let network = Network::new(&clients[..2], "nfs-b", b.path(""));
    b.configure("rpcbind-port = 9", &format!("rpcbind-port = {}", network.rpcbind_port));
    let life = b.path("life").display().to_string();
    b.configure("[\"true\"]", &format!("[\"cp\", \"/proc/sys/kernel/random/uuid\", \"{life}\"]"));
    // Nothing here waits for its end, save what fails.
    b.configure("grace-period = \"20s\"", "grace-period = \"10m\"");
    b.up();
    (b, network)
}

#[test]
fn a_client_that_is_off_keeps_no_until_notified_waiting_until_grace_ends() {
    let site = Site::new();
    let (b, _network) = with_one_client_off(&site);
    let told = b.run(&["adopt", "nfs", "--owner-fenced", "nfs-a", "--until", "notified", "--json"]);
    assert_eq!(told.status.code(), Some(6), "{told:?}");
    let report: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&report["acknowledged"], &report["unknown"]), (&2.into(), &1.into()), "{report}");
    assert_eq!(b.service("nfs").unwrap()["phase"], "notifying", "the one that is off is called on");
    let again = b.run(&["adopt", "nfs", "--until", "notified"]);
    assert_eq!(again.status.code(), Some(6), "an adopt that is said again knows it at once: {again:?}");
    assert!(text(&again.stdout).contains("they are called until grace ends"), "{again:?}");
}

#[test]
fn an_adopt_with_no_wait_is_answered_once_the_service_is_claimed() {
    let site = Site::new();
    let (b, _network) = with_one_client_off(&site);
    let refused = b.run(&["adopt", "nfs", "--owner-fenced", "nfs-c", "--no-wait"]);
    assert_eq!(refused.status.code(), Some(3), "a refusal is waited for: {refused:?}");
    let accepted = b.run(&["adopt", "nfs", "--owner-fenced", "nfs-a", "--no-wait"]);
    assert_eq!(accepted.status.code(), Some(0), "{accepted:?}");
    assert_eq!(names(&site.store().join("services/nfs/claims")), ["1", "2"]);
    b.wait_for("clients that are told", |b| (b.service("nfs")?["phase"] == "notifying").then_some(()));
    let known = b.run(&["report", "nfs"]);
    assert_eq!(known.status.code(), Some(6), "{known:?}");
}

#[test]
fn a_service_that_the_store_has_never_seen_is_claimed_away_from_its_home_by_force_alone() {
    let site = Site::new();
    let mut b = site.server("b", "nfs-b");
    b.up();
    let refused = b.run(&["adopt", "nfs"]);
    assert_eq!(refused.status.code(), Some(3));
    let said = text(&refused.stderr);
    assert!(said.contains("it is at home on nfs-a") && said.contains("--force"), "{said}");
    assert!(!site.store().join("services/nfs").exists(), "nothing was claimed");
    let mut forced =
        b.command(&["adopt", "nfs", "--prepare", "--force"]).stderr(Stdio::null()).spawn().unwrap();
    let claim = site.store().join("services/nfs/claims/1");
    b.wait_for("a claim", |_| claim.exists().then_some(()));
    forced.kill().unwrap();
    forced.wait().unwrap();
}

/// As by an unmount and a new store below the mount point: see also tests/store_identity.rs.
#[test]
fn another_store_in_the_place_of_this_servers_is_refused_by_its_agent() {
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    server.up();
    server.register("10.0.0.1");
    server.wait_until_captured("nfs", 1);
    let away = site.store().with_file_name("elsewhere");
    fs::rename(site.store(), &away).unwrap();
    let other = Site::new();
    fs::rename(other.store(), site.store()).unwrap();
    let refused = |server: &Server| {
        let said = server.try_status()?["store"]["error"].as_str()?.to_owned();
        said.contains("found a new one: is its volume mounted?").then_some(())
    };
    server.wait_for("an agent that sees it", refused);
    assert_eq!(server.run(&["status"]).status.code(), Some(5));
    assert_eq!(server.run(&["adopt", "new"]).status.code(), Some(3));
    server.kill();
    server.start();
    server.wait_for("the next agent to see it", refused);
    assert_eq!(names(&site.store().join("services")), [""; 0], "nothing is claimed in it");
    fs::rename(site.store(), other.store()).unwrap();
    fs::rename(&away, site.store()).unwrap();
    server.wait_until_captured("nfs", 1);
    // The command line sees the records before the agent has looked for all that it holds.
    server.wait_for("a store that works", |server| {
        (server.run(&["status"]).status.code() == Some(0)).then_some(())
    });
}

#[test]
fn all_that_is_missing_is_said_at_once_before_anything_is_claimed_and_force_goes_on_without_it() {
    let (site, mut b) = with_a_silent_owner(None);
    b.kill();
    let here = b.path("").display().to_string();
    b.configure(
        "addresses = [\"127.0.0.1\"]",
        "addresses = [\"127.0.0.1\"]\nexports = [\"/no/such/export\"]",
    );
    b.configure("[\"true\"]", &format!("[\"{here}recognise\"]"));
    b.configure("[heartbeat]", "[hooks]\naddress-up = [\"/no/such/program\"]\n[heartbeat]");
    b.up();
    b.wait_for("a lock manager", |b| (b.try_status()?["lock_manager"]["serving"] == true).then_some(()));
    fs::rename(b.path("life"), b.path("no-life")).unwrap();
    fs::rename(b.path("local"), b.path("no-local")).unwrap();
    fs::write(b.path("local"), "no folder").unwrap();
    let adopt = ["adopt", "nfs", "--owner-fenced", "nfs-a"];
    let refused = b.run(&[&adopt[..], &["--json"]].concat());
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    let said = text(&refused.stderr);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "heirlock: nfs can't be adopted here now; nothing was changed:");
    let document: serde_json::Value = serde_json::from_slice(&refused.stdout).unwrap();
    let missing = document["missing"].as_array().unwrap();
    let expected = [
        ("command", "hooks.address-up: /no/such/program"),
        ("local-directory", "/local: "),
        ("volume", "nfs: /no/such/export"),
        ("command", "recognise is no program"),
        ("incarnation", "No such file"),
    ];
    for (check, found) in expected {
        assert!(lines.iter().any(|line| line.contains(found)), "{found}: {said}");
        let has = |one: &serde_json::Value| one["check"] == check && one["found"].to_string().contains(found);
        assert!(missing.iter().any(has), "{check}: {document}");
        assert!(missing.iter().all(|one| one["remedy"].as_str().is_some_and(|text| !text.is_empty())));
    }
    assert_eq!(lines.len(), 2 + missing.len(), "one line for each, and what --force does: {said}");
    assert_eq!(names(&site.store().join("services/nfs/claims")), ["1"], "nothing was claimed");
    b.run(&[&adopt[..], &["--force"]].concat());
    assert_eq!(names(&site.store().join("services/nfs/claims")), ["1", "2"]);
}

#[test]
fn an_adoption_that_failed_says_how_to_try_again_and_the_same_words_do() {
    let site = Site::new();
    let (mut b, network) = with_one_client_off(&site);
    b.kill();
    let port = network.rpcbind_port;
    drop(network);
    b.up();
    // No server answers at the service's address.
    let failed = b.run(&["adopt", "nfs", "--owner-fenced", "nfs-a"]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let said = text(&failed.stderr) + &text(&failed.stdout);
    assert!(said.contains("say 'heirlock adopt nfs' again") && !said.contains("restart"), "{said}");
    assert_eq!(b.run(&["report", "nfs"]).status.code(), Some(1));
    assert_eq!(b.run(&["adopt", "nfs", "--finish"]).status.code(), Some(3), "nothing is prepared");
    let before = b.service("nfs").unwrap()["state_number"].as_u64().unwrap();
    let clients = ["127.1.0.1", "127.1.0.2", "127.1.0.3"];
    let network = Network::at(port, &clients, "nfs-b", b.path(""));
    let again = b.run(&["adopt", "nfs"]);
    assert_eq!(again.status.code(), Some(0), "{again:?}");
    assert_eq!(names(&site.store().join("services/nfs/claims")), ["1", "2", "3"]);
    for client in clients {
        let told = network.told(client);
        assert!(told.len() == 1 && u64::from(told[0].state) > before, "{client}: {told:?}");
    }
    let held = b.run(&["adopt", "nfs"]);
    assert_eq!(held.status.code(), Some(0), "{held:?}");
    assert_eq!(names(&site.store().join("services/nfs/claims")), ["1", "2", "3"], "nothing is adopted twice");
}

/// An address that no server has: as if it had been taken away.
const GONE: &str = "192.0.2.77";

#[test]
fn a_release_of_a_service_that_this_server_does_not_hold_changes_nothing_and_succeeds() {
    let site = Site::new();
    let (mut a, mut b) = (site.server("a", "nfs-a"), site.server("b", "nfs-b"));
    a.configure("\"127.0.0.1\"", &format!("\"{GONE}\""));
    a.register("10.0.0.1");
    a.up();
    b.up();
    a.wait_until_captured("nfs", 1);
    let release = |server: &Server, service: &str| {
        let output = server.run(&["release", service, "--json"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["service"], service);
        (document["changed"].as_bool().unwrap(), document["text"].as_str().unwrap().to_owned())
    };
    let unchanged = |why: &str, service: &str| {
        (false, format!("{service} is not held by this server, and nothing was changed: {why}"))
    };
    assert_eq!(release(&b, "nfs"), unchanged("it belongs to nfs-a", "nfs"));
    assert_eq!(release(&b, "new"), unchanged("no server ever claimed it", "new"));
    assert_eq!(a.service("nfs").unwrap()["held"], true);
    assert!(release(&a, "nfs").0);
    assert_eq!(release(&a, "nfs"), unchanged("it was released before", "nfs"));
    assert_eq!(release(&b, "nfs"), unchanged("nfs-a released it", "nfs"));
    assert_eq!(names(&site.store().join("services/nfs/claims")), ["1", "1.released"]);
}

#[test]
fn a_verb_that_a_cluster_manager_repeats_is_answered_as_far_as_the_run_has_come() {
    let site = Site::new();
    let (b, _network) = with_one_client_off(&site);
    let say = |words: &[&str]| {
        let output = b.run(&[words, &["--json"]].concat());
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let phase = document["phase"].as_str().map(str::to_owned);
        (output.status.code().unwrap(), document["changed"].as_bool().unwrap(), phase)
    };
    let phase = |phase: &str| Some(phase.to_owned());
    let prepare = ["adopt", "nfs", "--prepare", "--owner-fenced", "nfs-a"];
    assert_eq!(say(&prepare), (0, true, phase("prepared")));
    assert_eq!(say(&prepare), (0, false, phase("prepared")));
    let finish = ["adopt", "nfs", "--finish", "--until", "notified"];
    assert_eq!(say(&finish), (6, true, phase("notifying")), "one client is off");
    assert_eq!(say(&finish), (6, false, phase("notifying")));
    // Grace is open and stays so for minutes: no caller waits for the outcome of that client.
    assert_eq!(say(&prepare), (0, false, phase("notifying")));
    assert_eq!(names(&site.store().join("services/nfs/claims")), ["1", "2"]);
}

/// `nfs-b` has adopted from `nfs-a`, its home, which is back. One client of `nfs-b`, and one of `nfs-a` itself, are off.
fn away_from_home(site: &Site, address: &str) -> (Server, Server, Network) {
    let (mut b, network) = with_one_client_off(site);
    b.kill();
    b.configure("\"10m\"", "\"6s\"\nsettle-margin = \"1s\"");
    b.up();
    let told = b.run(&["adopt", "nfs", "--owner-fenced", "nfs-a"]);
    assert_eq!(told.status.code(), Some(6), "{told:?}");
    b.kill();
    drop(network);
    b.configure("\"6s\"", "\"10m\"");
    b.configure("\"127.0.0.1\"", &format!("\"{address}\""));
    let mut a = site.again("a");
    let network = Network::new(&["127.1.0.1", "127.1.0.2"], "nfs-a", a.path(""));
    for server in [&a, &b] {
        let port = format!("rpcbind-port = {}", network.rpcbind_port);
        let text = fs::read_to_string(server.path("heirlock.toml")).unwrap();
        let before = text.lines().find(|line| line.starts_with("rpcbind-port")).unwrap();
        server.configure(before, &port);
    }
    let life = a.path("life").display().to_string();
    a.configure("[\"true\"]", &format!("[\"cp\", \"/proc/sys/kernel/random/uuid\", \"{life}\"]"));
    a.configure("\"20s\"", "\"10m\"");
    a.register("127.1.0.9");
    a.up();
    b.up();
    a.wait_until_it_hears_the_other();
    b.wait_until_it_hears_the_other();
    (a, b, network)
}

fn is_telling(server: &Server, service: &str) -> bool {
    server.service(service).is_some_and(|service| service["phase"] == "notifying")
}

#[test]
fn a_service_comes_home_while_both_servers_tell_clients_of_a_restart_of_their_own() {
    let site = Site::new();
    let (a, b, network) = away_from_home(&site, GONE);
    a.wait_for("its own record", |a| (a.service("host.nfs-a")?["records"] == 4).then_some(()));
    fs::write(a.path("life"), "next\n").unwrap();
    fs::write(b.path("life"), "next\n").unwrap();
    a.wait_for("a self-adoption", |a| is_telling(a, "host.nfs-a").then_some(()));
    // Its address is nowhere, for which it waits.
    b.wait_for("a self-adoption", |b| (b.service("nfs")?["phase"] == "proved").then_some(()));
    let home = a.run(&["failback", "nfs", "--until", "notified", "--json"]);
    assert_eq!(home.status.code(), Some(6), "two clients are off: {home:?}\n{}", b.log());
    let report: serde_json::Value = serde_json::from_slice(&home.stdout).unwrap();
    let events: Vec<_> =
        report["timeline"].as_array().unwrap().iter().map(|stamp| stamp["event"].as_str().unwrap()).collect();
    assert_eq!(events[..4], ["asked", "giving-up", "given-up", "claimed"], "{report}");
    assert!(report["timeline"][0]["at_ms"].as_i64() < Some(0), "{report}");
    for client in ["127.1.0.1", "127.1.0.2"] {
        let told = network.told(client);
        let last = told.last().map(|told| u64::from(told.state));
        assert_eq!(last, report["state_number"].as_u64(), "{client}: {told:?}");
    }
    b.wait_for("an owner that gave it up", |b| (b.service("nfs")?["held"] == false).then_some(()));
    a.wait_for("its own clients", |a| is_telling(a, "host.nfs-a").then_some(()));
}

#[test]
fn a_service_is_moved_by_a_word_on_its_owner_and_the_verb_says_how_long_clients_were_without_it() {
    let site = Site::new();
    let (a, b, network) = away_from_home(&site, GONE);
    let json = |out: &std::process::Output| serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap();
    let unknown = b.run(&["move", "nfs", "nfs-x"]);
    assert_eq!(unknown.status.code(), Some(3), "{unknown:?}");
    assert!(text(&unknown.stderr).contains("there are: nfs-a, nfs-b"), "{unknown:?}");
    let there = b.run(&["move", "nfs", "nfs-b", "--json"]);
    assert_eq!((there.status.code(), &json(&there)["changed"]), (Some(6), &false.into()), "{there:?}");
    let moved = b.run(&["move", "nfs", "nfs-a", "--until", "notified", "--json"]);
    assert_eq!(moved.status.code(), Some(6), "two clients are off: {moved:?}\n{}", a.log());
    let report = json(&moved);
    assert_eq!((&report["service"], &report["changed"]), (&"nfs".into(), &true.into()), "{report}");
    assert_eq!(report["tenure"]["to"], "nfs-a", "{report}");
    let without = report["tenure"]["until_last_client_ms"].as_u64();
    assert!(without.is_some_and(|ms| ms < 600_000), "{report}");
    for client in ["127.1.0.1", "127.1.0.2"] {
        assert!(!network.told(client).is_empty(), "{client}");
    }
    b.wait_for("an owner that gave it up", |b| (b.service("nfs")?["held"] == false).then_some(()));
    let again = a.run(&["move", "nfs", "nfs-a", "--no-wait", "--json"]);
    assert_eq!(json(&again)["service"], "nfs", "{again:?}");
    let history = text(&a.run(&["history", "nfs"]).stdout);
    assert!(history.contains("nfs-b"), "{history}");
}

#[test]
fn why_the_owner_cannot_give_a_service_up_is_said_where_it_was_asked_for_and_so_is_the_wait() {
    let site = Site::new();
    let (a, b, _network) = away_from_home(&site, "127.0.0.1");
    let refused = a.run(&["failback", "nfs"]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    let said = text(&refused.stderr);
    let waits = "waiting for nfs-b to give nfs up: its address is being taken away, at most ";
    assert!(said.contains(waits), "{said}");
    let why = "nfs-b can't give nfs up: 127.0.0.1 is still on this server; take it away first";
    assert!(said.contains(why), "{said}");
    assert_eq!(b.service("nfs").unwrap()["held"], true);
    // The reason is gone by now: a release that is asked for again is not told of the last time.
    let released = b.run(&["release", "nfs"]);
    assert!(
        text(&released.stderr).contains("waiting for nfs to be released: its address is"),
        "{released:?}"
    );
}

#[test]
fn a_home_that_could_not_adopt_asks_no_server_to_give_anything_up() {
    let site = Site::new();
    let (mut a, b, _network) = away_from_home(&site, GONE);
    a.kill();
    a.configure("home = \"nfs-a\"", "home = \"nfs-a\"\nexports = [\"/no/such/export\"]");
    a.up();
    let refused = a.run(&["failback", "nfs", "--json"]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    let document: serde_json::Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(document["missing"][0]["check"], "volume", "{document}");
    assert_eq!(b.service("nfs").unwrap()["held"], true);
    assert!(!b.log().contains("nfs: released"));
}

#[test]
fn a_status_monitors_directory_that_vanishes_takes_nothing_with_it() {
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    server.up();
    server.register("10.0.0.1");
    server.wait_until_captured("nfs", 1);
    fs::remove_dir_all(server.path("sm")).unwrap();
    let problem = server.wait_for("a problem", |server| {
        let status = server.try_status()?;
        status["problems"].as_array()?.iter().find(|p| p["kind"] == "monitor-directory-unreadable").cloned()
    });
    assert!(problem["error"].as_str().unwrap().contains("state-directory"), "{problem}");
    assert_eq!(names(&site.store().join("services/nfs/1/sm")), ["10.0.0.1"]);
    fs::create_dir(server.path("sm")).unwrap();
    server.register("10.0.0.2");
    server.wait_until_captured("nfs", 2);
}

#[test]
fn a_store_that_vanishes_is_said_at_once_and_caught_up_when_it_is_back() {
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    server.up();
    let away = site.store().with_file_name("elsewhere");
    fs::rename(site.store(), &away).unwrap();
    server.register("10.0.0.1");
    server.wait_for("an unprotected service", |server| {
        let status = server.try_status()?;
        status["store"]["unprotected_since_s"].as_u64().map(drop)
    });
    let said = server.run(&["status"]);
    assert_eq!(said.status.code(), Some(5));
    assert!(text(&said.stdout).contains("unprotected since"), "{}", text(&said.stdout));
    assert!(!site.store().exists(), "nothing may be written where the volume was");
    fs::rename(&away, site.store()).unwrap();
    server.wait_until_captured("nfs", 1);
    assert_eq!(server.run(&["status"]).status.code(), Some(0));
}

#[test]
fn an_agent_whose_store_is_not_there_yet_waits_for_it() {
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    let away = site.store().with_file_name("elsewhere");
    fs::rename(site.store(), &away).unwrap();
    server.register("10.0.0.1");
    server.start();
    server.wait_for("an agent that complains", |server| {
        let status = server.try_status()?;
        (status["store"]["well"] == false && status["agent"] != "").then_some(())
    });
    fs::rename(&away, site.store()).unwrap();
    server.wait_until_captured("nfs", 1);
}

#[test]
fn a_store_that_others_may_change_is_refused() {
    let site = Site::new();
    let server = site.server("a", "nfs-a");
    fs::set_permissions(site.store(), fs::Permissions::from_mode(0o777)).unwrap();
    let refused = server.run(&["agent"]);
    assert_eq!(refused.status.code(), Some(5), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("0700"), "{}", text(&refused.stderr));
}

#[test]
fn an_entry_that_is_no_record_is_named_once_and_hinders_no_client() {
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    fs::write(server.path("sm/garbage"), "hello\n").unwrap();
    fs::write(server.path("sm/empty"), "").unwrap();
    server.register("10.0.0.1");
    server.up();
    server.wait_until_captured("nfs", 1);
    let problems = server.wait_for("both problems", |server| {
        // A second look finds that neither is a record in the making.
        fs::write(server.path("sm/.look"), "").unwrap();
        let status = server.try_status()?;
        let problems = status["problems"].to_string();
        (problems.contains("sm/garbage") && problems.contains("sm/empty")).then_some(problems)
    });
    assert!(problems.contains("expected"), "{problems}");
    assert_eq!(names(&server.path("sm")), [".look", "10.0.0.1", "empty", "garbage"], "they are left alone");
}

#[test]
fn a_deleted_record_is_not_believed_to_be_gone_at_once() {
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    server.up();
    server.register("10.0.0.1");
    server.wait_until_captured("nfs", 1);
    fs::remove_file(server.path("sm/10.0.0.1")).unwrap();
    server.wait_for("a tombstone", |server| (server.service("nfs")?["tombstones"] == 1).then_some(()));
    assert_eq!(names(&site.store().join("services/nfs/1/sm")), ["10.0.0.1"]);
    server.register("10.0.0.1");
    server.wait_for("no tombstone", |server| (server.service("nfs")?["tombstones"] == 0).then_some(()));
}

/// Another user on this host.
const NEIGHBOUR: u32 = 65_534;

/// The group that may read the status, in which the neighbour is or is not.
const READ_GROUP: u32 = 4_242;

#[test]
fn a_member_of_the_read_group_reads_the_status_and_no_verb_of_that_user_is_carried_out() {
    if !rustix::process::geteuid().is_root() {
        return; // only root can run a program as another user
    }
    let site = Site::new();
    // Where every user of this host reaches the program and each configuration.
    let folder = site.store().parent().unwrap().to_owned();
    let program = folder.join("heirlock");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o711)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_heirlock"), &program).unwrap();
    let (mut a, mut b) = (site.server("a", "nfs-a"), site.server("b", "nfs-b"));
    a.configure("[notify]", &format!("[control]\nread-group = \"{READ_GROUP}\"\n[notify]"));
    a.up();
    b.up();
    let say_as = |group: u32, server: &Server, words: &[&str]| {
        let mut command = std::process::Command::new(&program);
        command.arg("--config").arg(server.path("heirlock.toml")).args(words).uid(NEIGHBOUR).gid(group);
        let output = command.output().unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let (code, shown, said) = say_as(READ_GROUP, &a, &["status", "--json"]);
    assert_eq!(code, 0, "{said}");
    let status: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&status["server"], &status["source"]), (&"nfs-a".into(), &"agent".into()));
    assert!(
        status["services"].as_array().unwrap().iter().any(|s| s["service"] == "nfs" && s["held"] == true)
    );
    assert!(status["observed"]["heartbeats"]["done_total"].as_u64().unwrap() > 0, "{status}");
    let (code, line, _) = say_as(READ_GROUP, &a, &["status", "--check"]);
    assert_ne!(code, 3, "{line}");
    for verb in [&["maintenance", "on"], &["release", "nfs"]] {
        let (code, _, said) = say_as(READ_GROUP, &a, verb);
        assert!(code == 4 && said.contains("run this as root"), "{verb:?}: {code} {said}");
    }
    assert_eq!(a.try_status().unwrap()["maintenance"], false);
    let (code, _, said) = say_as(NEIGHBOUR, &a, &["status"]);
    let remedy = format!("as a member of the group {READ_GROUP} (control.read-group)");
    assert!(code == 4 && said.contains(&remedy), "{said}");
    let (code, _, said) = say_as(READ_GROUP, &b, &["status"]);
    assert!(code == 4 && said.contains("where control.read-group names one"), "{said}");
    a.kill();
    let (code, _, said) = say_as(READ_GROUP, &a, &["status"]);
    assert!(code == 4 && said.contains("no agent answers at "), "{said}");
}

#[test]
fn maintenance_outlives_the_agent() {
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    server.up();
    let say = |server: &Server, word: &str| {
        let output = server.run(&["maintenance", word, "--json"]);
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), document["changed"].as_bool())
    };
    assert_eq!(say(&server, "on"), (Some(0), Some(true)));
    assert_eq!(say(&server, "on"), (Some(0), Some(false)), "twice is once");
    server.kill();
    server.up();
    assert_eq!(server.try_status().unwrap()["maintenance"], true);
    assert_eq!(say(&server, "on"), (Some(0), Some(false)), "also after a restart");
    assert_eq!(say(&server, "off"), (Some(0), Some(true)));
    server.wait_for("the end of it", |server| (server.try_status()?["maintenance"] == false).then_some(()));
}

#[test]
fn a_restart_of_the_lock_manager_begins_a_generation_with_a_number_of_its_own() {
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    server.up();
    server.register("10.0.0.1");
    server.wait_until_captured("nfs", 1);
    let before = server.service("nfs").unwrap()["state_number"].as_u64().unwrap();
    fs::write(server.path("life"), "2\n").unwrap();
    let after = server.wait_for("the next generation", |server| {
        let service = server.service("nfs")?;
        (service["generation"] == 2).then(|| service["state_number"].as_u64().unwrap())
    });
    assert!(after > before && after % 2 == 1, "{before} and then {after}");
    // A kill in the midst of it: the next agent goes on or begins anew, and no client is forgotten.
    thread::sleep(Duration::from_millis(100));
    server.kill();
    server.up();
    server.wait_until_captured("nfs", 1);
}

#[test]
fn doctor_says_of_its_agent_whether_it_runs_is_the_one_that_is_meant_and_works() {
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    let doctor = |server: &Server| {
        let output = server.run(&["doctor", "--json"]);
        let findings: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        let word = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap().to_owned();
        let of_agent = findings.iter().filter(|finding| finding["check"] == "agent");
        let said: Vec<_> = of_agent.map(|f| (word(f, "severity"), word(f, "found"))).collect();
        (output.status.code(), said)
    };
    let says = |server: &Server, severity: &str, words: &str| {
        let (code, said) = doctor(server);
        said.iter().any(|(is, found)| is == severity && found.contains(words)).then_some(code)
    };
    assert_eq!(says(&server, "loses-locks", "no agent answers"), Some(Some(1)));
    server.up();
    server.wait_for("a word that all is well", |server| says(server, "ok", "it runs, of this version"));
    server.configure("interval = \"200ms\"", "interval = \"300ms\"");
    let (_, said) = doctor(&server);
    assert!(says(&server, "warning", "another configuration").is_some(), "{said:?}");
    server.signal("STOP");
    let code = says(&server, "loses-locks", "is stopped by a signal");
    server.signal("CONT");
    assert_eq!(code, Some(Some(1)));
}

/// As systemd listens to a unit that has a watchdog.
#[test]
fn systemd_is_told_in_one_line_what_the_agent_holds() {
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    let socket = server.path("notify");
    let systemd = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    let words = ["env", "WATCHDOG_USEC=2000000"].map(str::to_owned);
    let runner: Vec<String> =
        words.into_iter().chain([format!("NOTIFY_SOCKET={}", socket.display())]).collect();
    server.start_by(&runner);
    server.wait_for("an agent that answers", |server| server.serves().then_some(()));
    server.register("10.0.0.1");
    let told = server.wait_for("a line with the client", |_| {
        let mut words = [0; 4096];
        let length = systemd.recv(&mut words).unwrap();
        let told = String::from_utf8(words[..length].to_vec()).unwrap();
        told.contains("nfs (1 client)").then_some(told)
    });
    assert!(
        told.starts_with("WATCHDOG=1\nSTATUS=holds nfs (1 client)") && told.trim_end().lines().count() == 2,
        "{told}"
    );
}
