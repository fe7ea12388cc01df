//! `heirlock drill` on real agents: it finds what an adoption would come to, says so in every way there is, and changes nothing.

#![expect(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

#[path = "agent/harness.rs"]
#[expect(dead_code, reason = "other tests do more to agents")]
mod harness;
#[path = "crashes/network.rs"]
#[expect(dead_code, reason = "the tests that kill it at every step look at what clients were told")]
mod network;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use harness::{Server, Site};
use network::Network;
use serde_json::Value;

const CLIENTS: [&str; 3] = ["127.4.0.1", "127.4.0.2", "127.4.0.3"];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// A primary with three clients, of whom the last is switched off, and the server that would adopt.
struct Cast {
    site: Site,
    a: Server,
    b: Server,
    network: Network,
}

fn cast(living: &[&str]) -> Cast {
    cast_with(living, |_, _| {})
}

fn cast_with(living: &[&str], change: impl FnOnce(&Server, &Site)) -> Cast {
    let site = Site::new();
    let (mut a, mut b) = (site.server("a", "nfs-a"), site.server("b", "nfs-b"));
    let network = Network::new(living, "nfs-b", b.path(""));
    for server in [&a, &b] {
        server.configure("rpcbind-port = 9", &format!("rpcbind-port = {}", network.rpcbind_port));
        server.configure("grace-period = \"20s\"", "grace-period = \"10m\"");
    }
    let life = b.path("life").display().to_string();
    b.configure("[\"true\"]", &format!("[\"cp\", \"/proc/sys/kernel/random/uuid\", \"{life}\"]"));
    change(&b, &site);
    a.up();
    CLIENTS.iter().for_each(|client| a.register(client));
    a.wait_until_captured("nfs", 3);
    b.up();
    b.wait_until_it_hears_the_other();
    Cast { site, a, b, network }
}

/// Every file below a folder, with its content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut folders, mut found) = (vec![folder.to_owned()], BTreeMap::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => folders.push(entry),
                false => drop(found.insert(entry.clone(), fs::read(&entry).unwrap())),
            }
        }
    }
    found
}

/// All that an adoption would change: the store but for heartbeats, the status monitor's folders of both servers, their lock
/// managers' lives, and what the standby's agent remembers.
fn world(cast: &Cast) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = files(&cast.site.store().join("services"));
    for server in [&cast.a, &cast.b] {
        for folder in ["sm", "sm.bak"] {
            all.extend(files(&server.path(folder)));
        }
        for file in ["state", "life", "heirlock.toml"] {
            all.insert(server.path(file), fs::read(server.path(file)).unwrap());
        }
    }
    all.extend(files(&cast.b.path("local")));
    all.remove(&cast.b.path("local/drills.json"));
    all
}

fn unreached(report: &Value) -> Vec<&str> {
    report["unreached"].as_array().unwrap().iter().map(|one| one["client"].as_str().unwrap()).collect()
}

fn found<'a>(report: &'a Value, check: &str) -> (&'a str, &'a str) {
    let checks = report["checks"].as_array().unwrap();
    let check =
        checks.iter().find(|one| one["check"] == check).unwrap_or_else(|| panic!("{check}: {report}"));
    (check["finding"].as_str().unwrap(), check["found"].as_str().unwrap())
}

#[test]
fn a_drill_names_exactly_the_client_that_the_adoption_then_does_not_reach_and_changes_nothing() {
    let mut cast = cast(&CLIENTS[..2]);
    let before = world(&cast);
    let drilled = cast.b.run(&["drill", "nfs", "--json"]);
    let report = json(&drilled);
    assert_eq!(drilled.status.code(), Some(6), "{report}");
    assert_eq!(world(&cast), before, "the world is as it was, to the byte");
    assert_eq!((&report["verdict"], &report["owner"]), (&"leaves-out".into(), &"nfs-a".into()), "{report}");
    let counts = ["clients", "answered", "left_out"].map(|count| report[count].as_u64().unwrap());
    assert_eq!((counts, unreached(&report)), ([3, 2, 1], vec![CLIENTS[2]]));
    assert!(
        CLIENTS.iter().all(|client| cast.network.told(client).is_empty()),
        "no client was told of a restart"
    );
    // It is kept, shown, and outlives the agent.
    for _ in 0..2 {
        let status = cast.b.try_status().unwrap();
        let kept = &status["drills"][0];
        assert_eq!(
            (&kept["service"], &kept["verdict"], &kept["left_out"]),
            (&"nfs".into(), &"leaves-out".into(), &1.into())
        );
        assert_eq!(kept["unreached"][0], CLIENTS[2]);
        cast.b.kill();
        cast.b.start();
        cast.b.wait_until_it_hears_the_other();
    }
    let shown = text(&cast.b.run(&["status"]).stdout);
    assert!(
        shown.contains("last drill") && shown.contains("1 client would not be told of an adoption here"),
        "{shown}"
    );
    // The word of the drill comes true.
    cast.a.kill();
    let words = ["adopt", "nfs", "--owner-fenced", "nfs-a", "--until", "notified", "--json"];
    let adopted = cast.b.run(&words);
    assert_eq!(adopted.status.code(), Some(6), "{adopted:?}");
    assert_eq!((&json(&adopted)["acknowledged"], &json(&adopted)["unknown"]), (&2.into(), &1.into()));
    assert!(cast.network.told(CLIENTS[2]).is_empty() && !cast.network.told(CLIENTS[0]).is_empty());
}

#[test]
fn where_every_client_answers_the_drill_says_so_in_words_and_by_its_exit_code() {
    let cast = cast(&CLIENTS);
    let drilled = cast.b.run(&["drill", "nfs"]);
    let said = text(&drilled.stdout);
    assert_eq!(drilled.status.code(), Some(0), "{drilled:?}");
    for words in [
        "nfs: an adoption by nfs-b would work\n",
        "3 of 3 clients answered",
        "how long an adoption would take is not known: none was measured yet",
        "nfs-a has generation 1; the next is 2",
        "an adoption alone does that",
    ] {
        assert!(said.contains(words), "{words} is not in {said}");
    }
    assert!(!said.contains("would not be told"), "{said}");
    // All that this server would adopt, and the exit code of the worst: at the address of the other service no program answers.
    let all = cast.b.run(&["drill", "--all", "--json"]);
    let reports = json(&all);
    let told: Vec<(&Value, &Value)> =
        reports.as_array().unwrap().iter().map(|one| (&one["service"], &one["verdict"])).collect();
    assert_eq!(told, [(&"nfs".into(), &"works".into()), (&"new".into(), &"fails".into())], "{reports}");
    assert_eq!(all.status.code(), Some(1), "{all:?}");
}

#[test]
fn on_the_server_that_holds_the_service_its_clients_are_asked_and_another_server_is_named() {
    let cast = cast(&CLIENTS[..2]);
    let drilled = cast.a.run(&["drill", "nfs", "--json"]);
    let report = json(&drilled);
    assert_eq!(drilled.status.code(), Some(7), "{report}");
    assert_eq!((&report["verdict"], unreached(&report)), (&"held-here".into(), vec![CLIENTS[2]]), "{report}");
    let (finding, why) = found(&report, "owner");
    assert_eq!(finding, "unchecked");
    assert!(why.contains("this server holds nfs, so it is not the one that would adopt it"), "{why}");
    assert!(report["checks"].to_string().contains("say 'heirlock drill nfs' on nfs-b"), "{report}");
    // The other service has no home, and no server claimed it yet: this one might adopt that one alone.
    let all = json(&cast.a.run(&["drill", "--all", "--json"]));
    let services: Vec<&Value> = all.as_array().unwrap().iter().map(|one| &one["service"]).collect();
    assert_eq!(services, ["new"], "{all}");
}

/// Starts a drill that goes on until its fence-check ends, which is when the file is there.
fn long_drill(cast: &Cast, gone_on: &Path) -> Child {
    let mut command = cast.b.command(&["drill", "nfs", "--json"]);
    let drill = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    cast.b.wait_for("a fence that is being checked", |_| gone_on.exists().then_some(()));
    drill
}

/// The standby has a fence that leaves a mark where it is run, and a check of it by this script.
fn fenced(b: &Server, script: &str) {
    let mark = b.path("fenced").display().to_string();
    let check = b.path("fence-check");
    fs::write(&check, format!("#!/bin/sh\n{script}\n")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&check, mode).unwrap();
    let hooks =
        format!("[hooks]\nfence = [\"touch\", \"{mark}\"]\nfence-check = [\"{}\"]\n", check.display());
    b.configure("[heartbeat]", &format!("{hooks}[heartbeat]"));
}

#[test]
fn the_fence_is_checked_and_never_run() {
    let told = r#"test "$HEIRLOCK_OWNER" = nfs-a && test "$HEIRLOCK_DRY_RUN" = 1 && test "$HEIRLOCK_HOOK" = fence-check"#;
    let with = |script: &str| cast_with(&CLIENTS, |b, _| fenced(b, script));
    let cast = with(told);
    let drilled = cast.b.run(&["drill", "nfs", "--json"]);
    assert_eq!(drilled.status.code(), Some(0), "{drilled:?}");
    assert_eq!(found(&json(&drilled), "fence"), ("ok", "hooks.fence-check: nfs-a could be fenced"));
    assert!(!cast.b.path("fenced").exists());
    drop(cast);
    let cast = with("echo the switch does not answer >&2; exit 1");
    let drilled = cast.b.run(&["drill", "nfs", "--json"]);
    let report = json(&drilled);
    assert_eq!((drilled.status.code(), &report["verdict"]), (Some(1), &"fails".into()), "{report}");
    let (finding, why) = found(&report, "fence");
    assert!(finding == "fails" && why.contains("the switch does not answer"), "{report}");
    assert!(!cast.b.path("fenced").exists());
}

#[test]
fn a_fence_that_can_not_be_checked_leaves_the_drill_unproved() {
    let cast = cast_with(&CLIENTS, |b, _| {
        let mark = b.path("fenced").display().to_string();
        b.configure("[heartbeat]", &format!("[hooks]\nfence = [\"touch\", \"{mark}\"]\n[heartbeat]"));
    });
    let drilled = cast.b.run(&["drill", "nfs"]);
    let said = text(&drilled.stdout);
    assert_eq!(drilled.status.code(), Some(7), "{said}");
    assert!(
        said.starts_with("nfs: nothing speaks against an adoption by nfs-b, and not all could be checked\n"),
        "{said}"
    );
    assert!(said.contains("set hooks.fence-check") && !cast.b.path("fenced").exists(), "{said}");
}

#[test]
fn a_second_drill_is_refused_in_words_and_so_is_one_beside_an_adoption() {
    let go = |b: &Server| (b.path("checking"), b.path("go"));
    // One client is off, so that the adoption goes on to call it.
    let mut cast = cast_with(&CLIENTS[..2], |b, _| {
        let (checking, go) = go(b);
        fenced(
            b,
            &format!("touch {}\nwhile ! test -e {}; do sleep 0.05; done", checking.display(), go.display()),
        );
    });
    let (checking, go) = go(&cast.b);
    let drill = long_drill(&cast, &checking);
    let second = cast.b.run(&["drill", "nfs"]);
    assert_eq!(second.status.code(), Some(3), "{second:?}");
    assert!(text(&second.stderr).contains("a drill of nfs has been on here for"), "{second:?}");
    assert!(cast.b.try_status().is_some(), "the agent answers meanwhile");
    // The real thing goes before: the drill makes way, and says so.
    cast.a.kill();
    let words = ["adopt", "nfs", "--owner-fenced", "nfs-a", "--until", "notified"];
    let adopted = cast.b.run(&words);
    assert_eq!(adopted.status.code(), Some(6), "{adopted:?}");
    fs::write(&go, "").unwrap();
    let made_way = drill.wait_with_output().unwrap();
    assert_eq!(made_way.status.code(), Some(3), "{made_way:?}");
    assert!(text(&made_way.stdout).contains("the drill made way for it"), "{made_way:?}");
    let beside = cast.b.run(&["drill", "new"]);
    assert_eq!(beside.status.code(), Some(3), "{beside:?}");
    assert!(text(&beside.stderr).contains("an adoption is on here (nfs"), "{beside:?}");
}

#[test]
fn a_store_whose_volume_comes_with_an_adoption_is_named_as_not_checked_and_any_other_as_failing() {
    for (shared, expected, verdict) in [("false", 7, "unproved"), ("true", 5, "store-fails")] {
        let cast = cast_with(&CLIENTS, |b, _| b.configure("shared = true", &format!("shared = {shared}")));
        let (store, away) = (cast.site.store(), cast.site.store().with_file_name("away"));
        fs::rename(&store, &away).unwrap();
        let drilled = cast.b.run(&["drill", "nfs", "--json"]);
        fs::rename(&away, &store).unwrap();
        let report = json(&drilled);
        assert_eq!(
            (drilled.status.code(), &report["verdict"]),
            (Some(expected), &verdict.into()),
            "{report}"
        );
        let (_, why) = found(&report, "store");
        assert!(why.contains("neither the records nor the clients in it could be looked at"), "{why}");
        assert_eq!(report["clients"], 0);
    }
}

#[test]
fn a_need_that_an_adoption_is_refused_for_makes_the_drill_fail_and_so_does_a_word_for_no_service() {
    let cast = cast_with(&CLIENTS, |b, _| {
        b.configure("[heartbeat]", "[hooks]\naddress-up = [\"/nowhere/address-up\"]\n[heartbeat]");
    });
    let drilled = cast.b.run(&["drill", "nfs"]);
    let said = text(&drilled.stdout);
    assert_eq!(drilled.status.code(), Some(1), "{said}");
    assert!(said.starts_with("nfs: an adoption by nfs-b would not work\n"), "{said}");
    assert!(said.contains("fails") && said.contains("/nowhere/address-up"), "{said}");
    let unknown = cast.b.run(&["drill", "home"]);
    assert_eq!(unknown.status.code(), Some(3), "{unknown:?}");
    assert!(text(&unknown.stderr).contains("there is: nfs, new"), "{unknown:?}");
    assert_eq!(cast.b.run(&["drill"]).status.code(), Some(2));
}

#[test]
fn the_timer_drills_each_week_and_its_unit_takes_a_drill_that_was_made_for_done() {
    let of = |unit: &'static str, key: &str| {
        let lines: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix(key)).collect();
        <[&str; 1]>::try_from(lines).unwrap()[0]
    };
    let timer = include_str!("../../../dist/systemd/heirlock-drill.timer");
    assert_eq!((of(timer, "OnCalendar="), of(timer, "Persistent=")), ("weekly", "yes"));
    assert_eq!(of(timer, "WantedBy="), "timers.target", "off until it is enabled");
    let unit = include_str!("../../../dist/systemd/heirlock-drill.service");
    assert_eq!(of(unit, "SuccessExitStatus="), "6 7");
    assert!(!unit.contains("[Install]"), "the timer alone starts it");
    let words: Vec<&str> = of(unit, "ExecStart=").split(' ').skip(1).collect();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_heirlock"))
        .args(words)
        .arg("--help")
        .output()
        .unwrap();
    assert!(output.status.success());
}
