//! The command line, as administrators and cluster managers use it: the real program, its output and its exit codes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

#[path = "cli/harness.rs"]
mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use heirlock_nsm::StateNumber;
use serde_json::{Value, json};

use harness::{Server, line};

fn status() -> Value {
    json!({"done": {
        "kind": "status", "server": "nfs-b", "agent": "5f3a", "version": "0.1.0",
        "store": {"place": "/srv/heirlock", "well": true, "error": null, "unprotected_since_s": null},
        "lock_manager": {"kind": "kernel", "incarnation": "lockd 812", "serving": true},
        "services": [{
            "service": "nfs", "owner": "nfs-b", "held": true, "configured": true, "generation": 4, "state_number": 11,
            "records": 2, "tombstones": 0, "phase": "settled", "failure": null
        }],
        "servers": [], "maintenance": false, "problems": []
    }})
}

fn adoption(unreachable: u32) -> Value {
    let failed =
        json!({"client": "192.0.2.9", "outcome": "unreachable", "why": "no answer until grace ended"});
    json!({
        "kind": "adoption", "service": "nfs", "generation": 4, "state_number": 11, "strategy": "restart-nfs",
        "phase": "settled", "clients": 3, "re_registered": 2, "acknowledged": 3 - unreachable,
        "unreachable": unreachable, "lost": 0, "unknown": 0,
        "timeline": [{"event": "claimed", "at_ms": 4}, {"event": "settled", "at_ms": 91_500}],
        "slowest": [{"client": "192.0.2.7", "took_ms": 812}],
        "failed": if unreachable > 0 { vec![failed] } else { vec![] },
        "others": [], "records_at": "/srv/heirlock/services/nfs/4", "started_at_s": 1_795_598_700
    })
}

fn progress(phase: &str, answered: u32) -> Value {
    json!({"progress": {"phase": phase, "clients": 3, "answered": answered}})
}

#[test]
fn the_help_lists_the_exit_codes_and_every_verb() {
    let said = Server::new().run(&["--help"]);
    assert_eq!((said.exit, said.err.as_str()), (0, ""));
    for part in [
        "0  done, and every client was told",
        "6  done, but some clients",
        "1  it failed",
        "2  the command line",
        "3  refused",
        "4  no agent",
        "5  the store",
        "agent",
        "adopt",
        "release",
        "failback",
        "move",
        "maintenance",
        "status",
        "report",
        "records",
        "check-config",
        "doctor",
        "enable",
        "disable",
        "demo",
        "HEIRLOCK_CONFIG",
    ] {
        assert!(said.out.contains(part), "{part:?} is not in\n{}", said.out);
    }
    assert_eq!(Server::new().run(&["--version"]).out, concat!("heirlock ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_command_line_that_cannot_be_is_a_usage_error_in_words_and_as_json() {
    let server = Server::new();
    let said = server.run(&["adopt", "nfs", "--prepare", "--finish"]);
    assert_eq!((said.exit, said.out.as_str()), (2, ""));
    assert!(said.err.contains("--finish"), "{}", said.err);
    let said = server.run(&["adopt", "--json"]);
    assert_eq!((said.exit, &said.json()["exit"]), (2, &json!(2)));
    let said = server.run(&["adopt", "../../etc"]);
    assert_eq!(said.exit, 2);
    assert!(said.err.starts_with("heirlock: a service name is made of letters"), "{}", said.err);
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_a_suggestion() {
    let server = Server::new();
    let path = server.path("heirlock.toml");
    let text = fs::read_to_string(&path).unwrap().replace("addresses", "adresses");
    fs::write(&path, text).unwrap();
    let said = server.run(&["status", "--json"]);
    let expected =
        format!("{}, line 9: there is no key \"adresses\" here; did you mean \"addresses\"?", path.display());
    assert_eq!((said.exit, said.err), (2, format!("heirlock: {expected}\n")));
    let document: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(document, json!({"error": expected, "exit": 2}));
}

#[test]
fn a_missing_configuration_is_named_and_config_comes_before_the_environment() {
    let server = Server::new();
    let said = server.run(&["--config", "/nowhere/heirlock.toml", "status"]);
    assert_eq!((said.exit, said.out.as_str()), (2, ""));
    assert!(said.err.contains("/nowhere/heirlock.toml") && said.err.contains("--config"), "{}", said.err);
}

#[test]
fn without_an_agent_the_remedy_is_said() {
    let server = Server::new();
    let said = server.run(&["status"]);
    assert_eq!((said.exit, said.err.as_str()), (4, ""), "no store either");
    let remedy = match std::path::Path::new("/run/systemd/system").is_dir() {
        true => "'systemctl start heirlock'",
        false => "'heirlock agent'",
    };
    assert!(said.out.contains("no agent answers; start it ") && said.out.contains(remedy), "{}", said.out);
    let said = server.run(&["adopt", "nfs"]);
    assert_eq!((said.exit, said.out.as_str()), (4, ""));
    assert!(
        said.err.starts_with("heirlock: no agent answers at ") && said.err.contains(remedy),
        "{}",
        said.err
    );
    let said = server.run(&["adopt", "nfs", "--json"]);
    assert_eq!((said.exit, &said.json()["exit"]), (4, &json!(4)));
}

#[test]
fn status_is_text_or_one_document() {
    let server = Server::new().with_store();
    let (request, said) = server.run_with_agent(&[status()], &["status"]);
    assert_eq!(request, json!({"verb": "status"}));
    assert_eq!((said.exit, said.err.as_str()), (0, ""));
    assert!(said.out.contains("\nnfs      nfs-b (here)        2       0           4 "), "{}", said.out);
    assert!(!said.out.contains('\u{1b}'), "colours without a terminal: {}", said.out);
    let (_, said) = server.run_with_agent(&[status()], &["status", "--json"]);
    assert_eq!(said.json()["services"][0]["state_number"], 11);
}

#[test]
fn a_store_that_fails_shows_in_the_exit_code_of_status() {
    let mut status = status();
    let store = &mut status["done"]["store"];
    store["well"] = json!(false);
    store["unprotected_since_s"] = json!(1_795_598_700);
    let (_, said) = Server::new().run_with_agent(&[status], &["status"]);
    assert_eq!(said.exit, 5);
    assert!(said.out.contains("unprotected since 2026-11-25 "), "{}", said.out);
}

#[test]
fn an_adoption_shows_nothing_but_its_report_where_there_is_no_terminal() {
    let server = Server::new();
    let answers = [
        progress("claimed", 0),
        progress("notifying", 1),
        progress("settling", 3),
        json!({"done": adoption(0)}),
    ];
    let (request, said) = server.run_with_agent(&answers, &["adopt", "nfs", "--owner-fenced"]);
    let expected = json!({
        "verb": "adopt", "service": "nfs", "prepare": false, "finish": false, "fenced": "owner", "force": false,
        "answer-when": "settled"
    });
    assert_eq!(request, expected);
    let (request, _) = server.run_with_agent(&answers, &["adopt", "--owner-fenced=nfs-a", "nfs"]);
    assert_eq!(request["fenced"], json!({"server": "nfs-a"}));
    let (request, _) = server.run_with_agent(&answers, &["adopt", "nfs", "--owner-fenced", "nfs-a"]);
    assert_eq!(request["fenced"], json!({"server": "nfs-a"}), "a space is as good as '='");
    let (request, _) = server.run_with_agent(&answers, &["adopt", "nfs", "--owner-fenced", "--json"]);
    assert_eq!(request["fenced"], json!("owner"));
    assert_eq!((said.exit, said.err.as_str()), (0, ""));
    assert!(said.out.starts_with("nfs: every client was told\n"), "{}", said.out);
    let (_, said) = server.run_with_agent(&answers, &["adopt", "nfs", "--json"]);
    assert_eq!(
        (said.json()["acknowledged"].as_u64(), said.json()["phase"].as_str()),
        (Some(3), Some("settled"))
    );
}

#[test]
fn a_service_that_would_be_taken_for_the_fenced_server_is_an_error_that_explains() {
    let server = Server::new();
    for words in [
        &["adopt", "--owner-fenced", "nfs"] as &[&str],
        &["adopt", "--prepare", "--owner-fenced", "nfs"],
        &["records", "import", "--owner-fenced", "nfs", "/var/lib/nfs"],
    ] {
        let said = server.run(words);
        assert_eq!((said.exit, said.out.as_str()), (2, ""), "{words:?}");
        let hint = "hint: \"nfs\" after --owner-fenced was taken for the server that is off";
        assert!(said.err.contains(hint), "{}", said.err);
        let said = server.run(&[words, &["--json"]].concat());
        assert!(said.json()["error"].as_str().unwrap().contains("was taken for the server"), "{}", said.out);
    }
    // A script's empty variable names no server.
    let said = server.run(&["adopt", "nfs", "--owner-fenced="]);
    assert_eq!(said.exit, 2, "{}", said.err);
}

#[test]
fn an_adoption_that_missed_a_client_is_told_from_one_that_failed_and_names_it() {
    let (_, said) = Server::new().run_with_agent(&[json!({"done": adoption(1)})], &["adopt", "nfs"]);
    assert_eq!(said.exit, 6);
    assert!(said.out.contains("  192.0.2.9: no answer until grace ended\n"), "{}", said.out);
    assert!(said.out.contains("what to do: "), "{}", said.out);
}

#[test]
fn a_verb_waits_as_long_as_it_is_told_and_its_exit_code_tells_the_state_by_then() {
    let server = Server::new();
    let under_way = |phase: &str, unreachable| {
        let mut report = adoption(unreachable);
        report["phase"] = json!(phase);
        json!({"done": report})
    };
    let finish = ["adopt", "nfs", "--finish", "--until", "notified"];
    let (request, said) = server.run_with_agent(&[under_way("settling", 0)], &finish);
    assert_eq!((&request["answer-when"], &request["finish"]), (&json!("notified"), &json!(true)));
    assert_eq!(said.exit, 0, "all were told: {}", said.out);
    let (_, said) = server.run_with_agent(&[under_way("notifying", 1)], &finish);
    assert_eq!(said.exit, 6, "one has not answered: {}", said.out);
    let (request, said) = server.run_with_agent(&[under_way("claimed", 3)], &["adopt", "nfs", "--no-wait"]);
    assert_eq!((&request["answer-when"], said.exit), (&json!("accepted"), 0));
    let (request, _) = server.run_with_agent(&[under_way("settled", 0)], &["failback", "nfs", "--no-wait"]);
    assert_eq!(request, json!({"verb": "failback", "service": "nfs", "answer-when": "accepted"}));
    assert_eq!(server.run(&["adopt", "nfs", "--no-wait", "--until", "notified"]).exit, 2);
}

#[test]
fn each_verb_that_tells_clients_explains_its_exit_codes() {
    let server = Server::new();
    for (verb, expected) in [
        (&["adopt"] as &[&str], "6  adopted and serving, but not every client was told"),
        (&["failback"], "6  adopted and serving, but not every client was told"),
        (&["move"], "6  adopted and serving, but not every client was told"),
        (&["release"], "1  not released"),
        (&["report"], "6  adopted and serving, but not every client was told"),
        (&["notify"], "1  failed, or some clients have not answered"),
        (&["records", "import"], "1  failed, or some can't be read or have no address"),
    ] {
        for flag in ["--help", "-h"] {
            let said = server.run(&[verb, &[flag]].concat());
            assert_eq!(said.exit, 0);
            assert!(said.out.contains(expected) && said.out.contains("Example"), "{verb:?}: {}", said.out);
        }
    }
}

#[test]
fn every_verb_has_an_example_its_exit_codes_and_lines_that_fit() {
    let server = Server::new();
    let verbs = |help: &str| -> Vec<String> {
        let of =
            help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        let named = of.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        named.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
    };
    let mut all: Vec<Vec<String>> = Vec::new();
    for verb in verbs(&server.run(&["--help"]).out).into_iter().filter(|verb| verb != "help") {
        let below = verbs(&server.run(&[&verb, "--help"]).out);
        let below = below.into_iter().filter(|inner| inner != "help");
        all.extend(below.map(|inner| vec![verb.clone(), inner]));
        all.push(vec![verb]);
    }
    assert!(all.len() >= 20, "{all:?}");
    for verb in all {
        let words: Vec<&str> = verb.iter().map(String::as_str).chain(["--help"]).collect();
        let said = server.run(&words);
        assert_eq!(said.exit, 0, "{verb:?}");
        assert!(said.out.contains("Examples:") && said.out.contains("Exit codes:\n  0  "), "{}", said.out);
        // clap wraps its own text to the terminal; text that is laid out by hand must fit into the narrowest.
        let by_hand = said.out.split_once("Options:").map_or(said.out.as_str(), |(_, after)| after);
        let by_hand = by_hand.split_once("\n\nThe store:").or_else(|| by_hand.split_once("\n\nExamples:"));
        let long = by_hand.map_or("", |(_, lines)| lines).lines().find(|line| line.chars().count() > 80);
        assert_eq!(long, None, "{verb:?}");
    }
}

#[test]
fn a_refused_adoption_changes_nothing_and_one_that_broke_off_names_its_clients() {
    let server = Server::new();
    let refused =
        json!({"failed": {"message": "nfs belongs to nfs-a\u{1b}[2J, release it there", "refused": true}});
    let (_, said) = server.run_with_agent(&[refused], &["adopt", "nfs"]);
    let expected = "heirlock: nfs belongs to nfs-a\\u{1b}[2J, release it there\n";
    assert_eq!((said.exit, said.out.as_str(), said.err.as_str()), (3, "", expected));
    let broken = json!({"failed": {"message": "grace ended", "refused": false, "report": adoption(1)}});
    let (_, said) = server.run_with_agent(&[progress("notifying", 0), broken], &["adopt", "nfs", "--json"]);
    assert_eq!((said.exit, &said.json()["error"]), (1, &json!("grace ended")));
    assert_eq!(said.json()["report"]["failed"][0]["client"], "192.0.2.9");
    let (_, said) = server.run_with_agent(&[progress("claimed", 0)], &["adopt", "nfs"]);
    assert_eq!(said.exit, 1);
    assert!(said.err.contains("went away before it was done"), "{}", said.err);
}

#[test]
fn the_other_verbs_send_the_request_of_their_name() {
    let server = Server::new();
    let done = json!({"done": {"kind": "verb", "service": "nfs", "changed": true, "text": "it is done"}});
    for (words, request) in [
        (&["release", "nfs"] as &[&str], json!({"verb": "release", "service": "nfs"})),
        (&["failback", "nfs"], json!({"verb": "failback", "service": "nfs", "answer-when": "settled"})),
        (
            &["move", "nfs", "nfs-c"],
            json!({"verb": "move", "service": "nfs", "to": "nfs-c", "answer-when": "settled"}),
        ),
        (&["maintenance", "on"], json!({"verb": "maintenance", "on": true})),
        (&["maintenance", "off"], json!({"verb": "maintenance", "on": false})),
        (&["report", "host"], json!({"verb": "report", "service": "host.nfs-b"})),
        (
            &["records", "forget", "nfs", "192.0.2.9"],
            json!({"verb": "forget", "service": "nfs", "client": "192.0.2.9"}),
        ),
    ] {
        let (asked, said) = server.run_with_agent(std::slice::from_ref(&done), words);
        assert_eq!((asked, said.exit, said.out.as_str()), (request, 0, "it is done\n"), "{words:?}");
    }
    let (_, said) = server.run_with_agent(&[done], &["release", "nfs", "--json"]);
    assert_eq!(said.json(), json!({"service": "nfs", "changed": true, "text": "it is done"}));
    assert_eq!(server.run(&["records", "forget", "nfs", "../x"]).exit, 2);
}

#[test]
fn records_come_in_are_looked_at_and_go_out_again() {
    let server = Server::new().with_store();
    let one = line("192.0.2.1", "nfs-a");
    let two = line("client2", "nfs-a") + &line("client2", "nfs");
    let from = server.state_directory("from", &[("192.0.2.1", &one), ("192.0.2.2", &two)], 8);
    let said = server.run(&["records", "import", "nfs", from.to_str().unwrap(), "--json"]);
    assert_eq!((said.exit, said.err.as_str()), (0, ""), "{}", said.out);
    let document = said.json();
    assert_eq!(document["imported"], json!(["192.0.2.1", "192.0.2.2"]));
    assert_eq!((&document["generation"], &document["state_number"]), (&json!(1), &json!(9)));

    let said = server.run(&["records", "list"]);
    let expected = "SERVICE  OWNER              GENERATION  STATE NUMBER  CLIENTS  UNREADABLE\n\
                    nfs      (nfs-b, released)           1             9        2           0\n";
    assert_eq!((said.exit, said.out.as_str()), (0, expected));
    let said = server.run(&["records", "list", "nfs"]);
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(
        lines[..2],
        ["nfs, generation 1: 2 records", "CLIENT     NAME      ON RECORD SINCE  LAST ADOPTION"]
    );
    assert!(lines[2].starts_with("192.0.2.1  -        20") && lines[2].ends_with("  -"), "{}", said.out);
    assert!(lines[3].starts_with("192.0.2.2  client2  20"), "{}", said.out);
    let document = server.run(&["records", "list", "nfs", "--json"]).json();
    assert_eq!(document["records"][1]["names"], json!(["client2"]));
    assert!(document["records"][1]["since_s"].as_u64() > Some(1_700_000_000), "{document}");
    let said = server.run(&["records", "show", "nfs", "client2"]);
    assert!(
        said.out.starts_with("192.0.2.2 of nfs, generation 1\n  registered as client2\n  on record since 20")
            && said.out.contains("\n\nline 1\n  client    client2\n"),
        "{}",
        said.out
    );
    assert!(said.out.ends_with(&format!("\nraw\n{two}")), "{}", said.out);
    assert_eq!(server.run(&["records", "show", "nfs", "192.0.2.3"]).exit, 2);

    let to = server.path("to");
    let said = server.run(&["records", "export", "nfs", to.to_str().unwrap()]);
    assert_eq!((said.exit, said.err.as_str()), (0, ""), "{}", said.out);
    assert!(said.out.contains("sm-notify -f -P"), "{}", said.out);
    assert_eq!(fs::read_to_string(to.join("sm/192.0.2.1")).unwrap(), one);
    assert_eq!(fs::read_to_string(to.join("sm/192.0.2.2")).unwrap(), two);
    assert_eq!(fs::read(to.join("state")).unwrap(), StateNumber(9).render_file());
    assert_eq!(fs::read_dir(to.join("sm.bak")).unwrap().count(), 0);
    assert_eq!(fs::metadata(to.join("sm/192.0.2.1")).unwrap().permissions().mode() & 0o777, 0o600);
    let said = server.run(&["records", "export", "nfs", to.to_str().unwrap()]);
    assert_eq!(said.exit, 3);
    assert!(said.err.contains("expected an empty directory"), "{}", said.err);
}

#[test]
fn a_client_is_meant_by_its_address_or_any_of_its_names_and_one_of_several_is_refused() {
    let server = Server::new().with_store();
    let files = [
        ("192.0.2.1", line("one.example.com", "nfs-a")),
        ("192.0.2.2", line("two.example.com", "nfs-a")),
        ("192.0.2.3", line("Two.example.org", "nfs-a")),
        ("2001:db8::1", line("2001:db8::1", "nfs-a")),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(file, text)| (*file, text.as_str())).collect();
    let from = server.state_directory("from", &files, 7);
    assert_eq!(server.run(&["records", "import", "nfs", from.to_str().unwrap()]).exit, 0);
    for (given, client) in [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:0db8:0:0::1", "2001:db8::1"),
        ("ONE.example.com", "192.0.2.1"),
        ("one", "192.0.2.1"),
        ("two.example.org", "192.0.2.3"),
    ] {
        let said = server.run(&["records", "show", "nfs", given, "--json"]);
        assert_eq!((said.exit, &said.json()["client"]), (0, &json!(client)), "{given}: {said:?}");
    }
    let done = json!({"done": {"kind": "verb", "service": "nfs", "changed": true, "text": "it is done"}});
    let (asked, _) = server.run_with_agent(&[done], &["records", "forget", "nfs", "one"]);
    assert_eq!(asked, json!({"verb": "forget", "service": "nfs", "client": "192.0.2.1"}));
    for verb in ["show", "forget"] {
        let said = server.run(&["records", verb, "nfs", "two"]);
        let expected = "2 clients of nfs are called two: 192.0.2.2, 192.0.2.3; say which by its address\n";
        assert!(said.exit == 2 && said.err.ends_with(expected), "{verb}: {said:?}");
        let said = server.run(&["records", verb, "nfs", "example"]);
        assert!(said.exit == 2 && said.err.contains("'heirlock records list nfs'"), "{verb}: {said:?}");
    }
}

#[test]
fn a_monitoring_system_gets_one_line_and_its_own_exit_codes() {
    let server = Server::new().with_store();
    let check = |status: Value| server.run_with_agent(&[status], &["status", "--check"]).1;
    let said = check(status());
    assert_eq!((said.exit, said.err.as_str()), (0, ""));
    assert_eq!(
        said.out,
        "OK - nfs-b: nfs held, 2 clients on record | clients=2 unreachable=0 lost=0 at_risk=0\n"
    );
    let mut prepared = status();
    prepared["done"]["services"][0]["awaits_finish"] = json!(true);
    let said = check(prepared);
    assert_eq!((said.exit, said.out.lines().count()), (1, 1));
    assert!(said.out.starts_with("WARNING - nfs-b: nfs: its adoption is prepared"), "{}", said.out);
    let mut failing = status();
    failing["done"]["store"]["well"] = json!(false);
    failing["done"]["problems"] = json!([{"kind": "store-fails", "error": "no space"}]);
    let said = check(failing);
    assert_eq!(said.exit, 2);
    assert!(said.out.starts_with("CRITICAL - nfs-b: the store fails: no space |"), "{}", said.out);
    let said = server.run(&["status", "--check"]);
    assert_eq!(said.exit, 1, "nothing is held here: {}", said.out);
    assert!(said.out.starts_with("WARNING - nfs-b: no agent answers: start it "), "{}", said.out);
    server.claim(1, "nfs-b");
    let said = server.run(&["status", "--check"]);
    assert_eq!(said.exit, 2);
    assert!(
        said.out.starts_with(
            "CRITICAL - nfs-b: nfs: belongs to this server, and clients that register are not noticed"
        ),
        "{}",
        said.out
    );
    let document = server.run(&["status", "--check", "--json"]).json();
    assert_eq!(
        (&document["level"], &document["problems"][0]["kind"]),
        (&json!("unprotected"), &json!("no-agent"))
    );
    let said = server.run(&["status", "--check", "--config", "/nowhere"]);
    assert_eq!((said.exit, said.err.as_str()), (3, ""));
    assert!(said.out.starts_with("UNKNOWN - ") && said.out.lines().count() == 1, "{}", said.out);
}

#[test]
fn likely_slips_get_a_hint() {
    let server = Server::new();
    let said = server.run(&["adopt"]);
    assert_eq!(said.exit, 2);
    assert!(said.err.ends_with(" are: nfs\n") && said.err.contains("hint: the services of "), "{}", said.err);
    let said = server.run(&["takeover", "nfs"]);
    assert!(
        said.exit == 2 && said.err.ends_with("hint: did you mean 'heirlock adopt SERVICE'?\n"),
        "{}",
        said.err
    );
    let said = server.with_store().run(&["status", "nsf"]);
    assert!(said.exit == 2 && said.err.contains("there is no service nsf; there is: nfs"), "{}", said.err);
}

#[test]
fn an_entry_that_is_no_record_is_left_alone_and_named() {
    let server = Server::new().with_store();
    let torn = &line("192.0.2.3", "nfs-a")[..60];
    let half = line("192.0.2.4", "nfs-a") + "0100007f 0001";
    let bad_name = line("192.0.2.5", "nfs-a").replace("192.0.2.5", "a\u{1b}[2Jb");
    let good = line("192.0.2.1", "nfs-a");
    let from = server.state_directory(
        "from",
        &[
            ("192.0.2.1", &good),
            ("192.0.2.2", ""),
            ("192.0.2.3", torn),
            ("192.0.2.4", &half),
            ("192.0.2.5", &bad_name),
            ("garbage", "hello\n"),
            ("192.0.2.6.new", &good),
        ],
        7,
    );
    let said = server.run(&["records", "import", "nfs", from.to_str().unwrap()]);
    assert_eq!((said.exit, said.err.as_str()), (1, ""));
    assert!(said.out.starts_with("nfs, generation 1: 2 clients of "), "{}", said.out);
    for part in [
        "  192.0.2.1\n",
        "  192.0.2.4\n",
        "sm/192.0.2.2: ",
        "sm/192.0.2.3: ",
        "sm/192.0.2.4: line 2",
        "sm/192.0.2.5: ",
        "sm/192.0.2.6.new: ",
        "sm/garbage: ",
    ] {
        assert!(said.out.contains(part), "{part:?} is not in\n{}", said.out);
    }
    assert!(!said.out.contains('\u{1b}') && !said.out.contains("  192.0.2.6\n"), "{}", said.out);
    // All of it is still there.
    assert_eq!(fs::read_dir(from.join("sm")).unwrap().count(), 7);
    assert_eq!(
        server.run(&["records", "list", "nfs", "--json"]).json()["records"].as_array().unwrap().len(),
        2
    );
    let nothing = server.state_directory("nothing", &[("garbage", "hello\n")], 7);
    let said = server.run(&["records", "import", "nfs", nothing.to_str().unwrap()]);
    assert_eq!(said.exit, 3);
    assert!(said.err.contains("found none; nothing was changed\n  sm/garbage: "), "{}", said.err);
}

#[test]
fn an_import_joins_the_records_of_the_store_under_a_number_that_was_never_sent() {
    let server = Server::new().with_store();
    let old = line("192.0.2.1", "nfs-a");
    let first = server.state_directory("first", &[("192.0.2.1", &old)], 20);
    assert_eq!(server.run(&["records", "import", "nfs", first.to_str().unwrap()]).exit, 0);
    let more = line("192.0.2.1", "nfs");
    let second = server.state_directory(
        "second",
        &[("192.0.2.1", &more), ("192.0.2.2", &line("192.0.2.2", "nfs"))],
        4,
    );
    let document = server.run(&["records", "import", "nfs", second.to_str().unwrap(), "--json"]).json();
    assert_eq!((&document["generation"], &document["records"]), (&json!(2), &json!(2)));
    assert_eq!(document["state_number"], 23);
    let record = server.path("store/services/nfs/2/sm/192.0.2.1");
    assert_eq!(fs::read_to_string(record).unwrap(), old + &more);
}

#[test]
fn an_import_takes_nothing_from_an_owner_that_may_be_serving() {
    let server = Server::new().with_store();
    let from = server.state_directory("from", &[("192.0.2.1", &line("192.0.2.1", "nfs-a"))], 7);
    let import =
        |more: &[&str]| server.run(&[&["records", "import", "nfs", from.to_str().unwrap()], more].concat());
    server.claim(1, "nfs-b");
    let said = import(&["--owner-fenced"]);
    assert_eq!(said.exit, 3);
    assert!(
        said.err.contains("belongs to this server") && said.err.contains("heirlock release nfs"),
        "{}",
        said.err
    );
    server.claim(2, "nfs-a");
    let said = import(&[]);
    assert_eq!(said.exit, 3);
    assert!(said.err.contains("belongs to nfs-a") && said.err.contains("--owner-fenced"), "{}", said.err);
    assert!(!server.path("store/services/nfs/claims/3").exists());
    assert_eq!(import(&["--owner-fenced"]).exit, 0);
    let service = &server.run(&["records", "list", "--json"]).json()[0];
    assert_eq!((&service["generation"], &service["released"]), (&json!(3), &json!(true)));
}

#[test]
fn an_import_that_was_ended_right_after_its_claim_is_run_again() {
    let server = Server::new().with_store();
    let from = server.state_directory("from", &[("192.0.2.1", &line("192.0.2.1", "nfs-a"))], 7);
    server.claim(1, "nfs-b");
    let claim = server.path("store/services/nfs/claims/1");
    let ended = fs::read_to_string(&claim).unwrap().replace("\"released\":false", "\"released\":true");
    fs::write(&claim, ended).unwrap();
    let said = server.run(&["records", "list", "nfs"]);
    assert_eq!(said.exit, 1);
    assert!(said.err.ends_with("was interrupted before it held a record; import again\n"), "{}", said.err);
    let said = server.run(&["records", "import", "nfs", from.to_str().unwrap(), "--json"]);
    assert_eq!((said.exit, &said.json()["generation"]), (0, &json!(2)), "{}", said.err);
    assert_eq!(server.run(&["records", "list", "--json"]).json()[0]["records"], 1);
}

#[test]
fn an_unknown_service_is_said_with_those_that_are_known() {
    let server = Server::new().with_store();
    let from = server.state_directory("from", &[("192.0.2.1", &line("192.0.2.1", "nfs-a"))], 7);
    let from = from.to_str().unwrap();
    let said = server.run(&["records", "import", "nsf", from]);
    assert_eq!(said.exit, 2);
    assert!(said.err.contains("expected a service of the configuration (nfs), found nsf"), "{}", said.err);
    assert_eq!(server.run(&["records", "import", "nfs", from]).exit, 0);
    let said = server.run(&["records", "list", "nsf"]);
    assert_eq!(said.exit, 2);
    assert!(
        said.err.contains("there is no service nsf in ") && said.err.contains("it holds nfs\n"),
        "{}",
        said.err
    );
}

#[test]
fn a_store_that_is_not_there_is_a_failure_of_the_store() {
    let said = Server::new().run(&["records", "list", "--json"]);
    assert_eq!((said.exit, &said.json()["exit"]), (5, &json!(5)));
    assert!(said.err.contains("mount the volume"), "{}", said.err);
}

#[test]
fn another_store_takes_no_import_and_its_records_are_shown_as_another_stores() {
    let server = Server::new().with_store();
    let from = server.state_directory("from", &[("192.0.2.1", &line("192.0.2.1", "nfs-a"))], 7);
    server.remember(&json!({"format": 1, "identity": "7f3a9c01".repeat(4), "confirmed": true}));
    let why = "expected store 7f3a9c01…, found a new one: is its volume mounted?";
    let said = server.run(&["records", "import", "nfs", from.to_str().unwrap(), "--json"]);
    assert_eq!((said.exit, &said.json()["exit"]), (3, &json!(3)));
    assert!(said.err.contains(why) && said.err.contains("'heirlock enable --new-store'"), "{}", said.err);
    assert_eq!(fs::read_dir(server.path("store/services")).unwrap().count(), 0);
    let said = server.run(&["records", "list", "--json"]);
    assert_eq!((said.exit, said.json()), (1, json!([])), "standard output stays one document");
    assert!(said.err.contains(why), "{}", said.err);
    // The mount point alone.
    fs::rename(server.path("store"), server.path("away")).unwrap();
    fs::create_dir(server.path("store")).unwrap();
    let said = server.run(&["records", "list"]);
    assert_eq!(said.exit, 5);
    assert!(said.err.contains("expected store 7f3a9c01…") && said.err.contains("is its volume mounted?"));
    assert!(!said.err.contains("enable"), "mounting is the remedy: {}", said.err);
}

#[test]
fn an_older_copy_of_the_store_takes_no_import_and_one_that_is_accepted_gets_numbers_above_it() {
    let server = Server::new().with_store();
    let from = server.state_directory("from", &[("192.0.2.1", &line("192.0.2.1", "nfs-a"))], 7);
    let import = ["records", "import", "nfs", from.to_str().unwrap(), "--json"];
    let known = |expected: Value| json!({"format": 1, "identity": null, "services": {"nfs": {"expected": expected, "highest": 4, "number": 21}}});
    server.remember(&known(json!(4)));
    let said = server.run(&import);
    assert_eq!(said.exit, 3, "{said:?}");
    assert!(said.err.contains("expected generation 4 of nfs or a newer one, found none"), "{}", said.err);
    fs::write(server.path("local/store.json"), known(json!(null)).to_string()).unwrap();
    let document = server.run(&import).json();
    assert_eq!((&document["generation"], &document["state_number"]), (&json!(5), &json!(23)));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let server = Server::new().with_store();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = server.command(&["records", "list"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
}

#[test]
fn a_log_level_that_is_none_is_a_usage_error() {
    let said = Server::new().run(&["agent", "--log", "heirlock=loud"]);
    assert_eq!((said.exit, said.out.as_str()), (2, ""));
    assert!(
        said.err.contains("--log: expected error, warn, ") && said.err.contains("heirlock=loud"),
        "{}",
        said.err
    );
}

#[test]
fn a_state_file_that_is_none_is_said() {
    let server = Server::new().with_store();
    let from = server.state_directory("from", &[("192.0.2.1", &line("192.0.2.1", "nfs-a"))], 7);
    fs::write(from.join("state"), "0000000012").unwrap();
    let said = server.run(&["records", "import", "nfs", from.to_str().unwrap(), "--json"]);
    let left = json!([{"what": "state", "why": "a state file: expected 4 bytes, found 10"}]);
    assert_eq!((said.exit, &said.json()["left"]), (1, &left));
}

/// An entry of any kind: no verb waits for it, none reads it without end, and all other entries are there.
#[test]
fn one_entry_of_the_store_that_is_no_file_is_named_and_holds_no_verb_up() {
    let server = Server::new().with_store();
    let from = server.state_directory("from", &[("192.0.2.1", &line("192.0.2.1", "nfs-a"))], 7);
    assert_eq!(server.run(&["records", "import", "nfs", from.to_str().unwrap()]).exit, 0);
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
    for pipe in ["services/nfs/1/sm/192.0.2.2", "servers/nfs-c", "services/nfs/claims/7", "services/pipe"] {
        rustix::fs::mknodat(rustix::fs::CWD, server.path("store").join(pipe), kind, mode, 0).unwrap();
    }
    std::os::unix::fs::symlink("/dev/zero", server.path("store/services/nfs/1/sm/192.0.2.3")).unwrap();
    let sparse = server.path("store/services/nfs/1/sm/192.0.2.4");
    fs::File::create(sparse).unwrap().set_len(8 << 30).unwrap();
    let said = server.run(&["records", "list", "nfs", "--json"]);
    assert_eq!((said.exit, said.json()["records"].as_array().unwrap().len()), (1, 1), "{said:?}");
    let left: Vec<_> =
        said.json()["left"].as_array().unwrap().iter().map(|left| left["what"].to_string()).collect();
    assert_eq!(left, ["\"sm/192.0.2.2\"", "\"sm/192.0.2.3\"", "\"sm/192.0.2.4\""], "{said:?}");
    assert_eq!(server.run(&["records", "list"]).exit, 1);
    let to = server.path("to");
    let said = server.run(&["records", "export", "nfs", to.to_str().unwrap()]);
    assert_eq!(said.exit, 1, "{said:?}");
    assert!(to.join("sm/192.0.2.1").is_file());
}

/// They concern no record: the adoption that the journal told of is begun again, and a line of the outcomes is left out.
#[test]
fn a_journal_and_outcomes_without_sense_are_no_entries_that_were_left_alone() {
    let server = Server::new().with_store();
    let from = server.state_directory("from", &[("192.0.2.1", &line("192.0.2.1", "nfs-a"))], 7);
    assert_eq!(server.run(&["records", "import", "nfs", from.to_str().unwrap()]).exit, 0);
    fs::write(server.path("store/services/nfs/1/journal.json"), "torn").unwrap();
    let outcome = "{\"client\":\"192.0.2.1\",\"outcome\":\"acknowledged\",\"at-ms\":9}\n";
    fs::write(server.path("store/services/nfs/1/outcomes"), format!("torn\n{outcome}{{}}\n")).unwrap();
    let said = server.run(&["records", "list", "nfs", "--json"]);
    assert_eq!((said.exit, &said.json()["left"]), (0, &json!([])), "{said:?}");
    assert_eq!(said.json()["records"][0]["outcome"], "acknowledged", "{said:?}");
    let said = server.run(&["records", "list", "--json"]);
    assert_eq!((said.exit, &said.json()[0]["damaged"]), (0, &json!(0)), "{said:?}");
    let to = server.path("to");
    let said = server.run(&["records", "export", "nfs", to.to_str().unwrap(), "--json"]);
    assert_eq!((said.exit, &said.json()["left"]), (0, &json!([])), "{said:?}");
    let said = server.run(&["history", "nfs", "--json"]);
    assert_eq!((said.exit, &said.json()[0]["unreadable"]), (0, &json!([])), "{said:?}");
    let said = server.run(&["records", "import", "nfs", from.to_str().unwrap(), "--json"]);
    assert_eq!((said.exit, &said.json()["left"]), (0, &json!([])), "{said:?}");
}

/// In each verb that reads or writes it.
#[test]
fn the_longest_name_of_a_client_is_imported_listed_and_exported() {
    let server = Server::new().with_store();
    let longest = "x".repeat(255);
    let record = line(&longest, "nfs-a");
    let from = server.state_directory("from", &[(&longest, &record)], 7);
    let said = server.run(&["records", "import", "nfs", from.to_str().unwrap()]);
    assert!(said.out.contains("1 client"), "{said:?}");
    let said = server.run(&["records", "list", "nfs", "--json"]);
    assert_eq!(said.json()["records"].as_array().unwrap().len(), 1, "{said:?}");
    let to = server.path("to");
    assert_eq!(server.run(&["records", "export", "nfs", to.to_str().unwrap()]).exit, 0);
    assert_eq!(fs::read_to_string(to.join("sm").join(&longest)).unwrap(), record);
}
