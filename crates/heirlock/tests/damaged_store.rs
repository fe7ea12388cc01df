//! A store of which one entry is damaged, left behind or gone: the end of an adoption there, with the real program on two
//! servers. It must neither drop locks without telling their clients, nor say that nothing was changed where something
//! was.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "agent/harness.rs"]
#[expect(dead_code, reason = "the tests that ill-treat the agent use the rest")]
mod harness;

use std::fs;
use std::process::Command;

use harness::{Server, Site, names};
use heirlock_nsm::StateNumber;

/// Runs a verb and checks its exit code and parts of its output.
#[track_caller]
fn expect(server: &Server, words: &[&str], exit: i32, parts: &[&str]) {
    let output = server.run(words);
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(exit), "{words:?}: {text}\n{}", server.log());
    for part in parts {
        assert!(text.contains(part), "{words:?}: expected {part:?} in {text}");
    }
}

fn claims(site: &Site, service: &str) -> Vec<String> {
    names(&site.store().join("services").join(service).join("claims"))
}

/// A server whose service `new` is at home on it.
fn at_home(site: &Site, folder: &str, name: &str) -> Server {
    let server = site.server(folder, name);
    server.configure("name = \"new\"\n", &format!("name = \"new\"\nhome = \"{name}\"\n"));
    server
}

/// The owner of `nfs`, which has one client and is off, and a server that holds `new` with another one.
fn an_owner_that_is_off(site: &Site) -> Server {
    let (mut a, mut b) = (site.server("a", "nfs-a"), at_home(site, "b", "nfs-b"));
    a.up();
    a.register("10.0.0.1");
    a.wait_until_captured("nfs", 1);
    b.up();
    b.register("10.0.0.9");
    b.wait_until_captured("new", 1);
    a.kill();
    b
}

const ADOPT: [&str; 3] = ["adopt", "nfs", "--owner-fenced=nfs-a"];

/// Damages the first claim of a service, and the journal that would tell what it said.
fn damage_claim(site: &Site, service: &str) {
    let folder = site.store().join("services").join(service);
    fs::write(folder.join("claims/1"), "torn").unwrap();
    if folder.join("1").exists() {
        fs::write(folder.join("1/journal.json"), "torn").unwrap();
    }
}

#[track_caller]
fn wait_until_said(server: &Server, part: &str) {
    server.wait_for("a server that says it", |server| {
        server.try_status()?["problems"].to_string().contains(part).then_some(())
    });
}

#[test]
fn nothing_is_adopted_while_the_store_cannot_say_whose_another_service_is() {
    let site = Site::new();
    let mut b = an_owner_that_is_off(&site);
    let folder = site.store().join("services/new");
    let whole =
        ["claims/1", "1/journal.json"].map(|name| (folder.join(name), fs::read(folder.join(name)).unwrap()));
    b.kill();
    damage_claim(&site, "new");
    b.start();
    wait_until_said(&b, "services/new/claims/1");
    expect(
        &b,
        &ADOPT,
        3,
        &["can't say whose new is", "services/new/claims/1", "'heirlock adopt new --force'"],
    );
    assert_eq!(claims(&site, "nfs"), ["1"]);
    assert_eq!(claims(&site, "host.nfs-b"), ["1"]);
    for (path, bytes) in whole {
        fs::write(path, bytes).unwrap();
    }
    // Its agent's own word: before that 'status' shows its entries in the store.
    b.wait_for("a server that has it again", |b| (b.service("new")?["held"] == true).then_some(()));
    expect(&b, &[&ADOPT[..], &["--no-wait"]].concat(), 0, &[]);
    assert_eq!(
        (claims(&site, "nfs").len(), claims(&site, "new").len()),
        (2, 2),
        "its clients are told as well"
    );
}

#[test]
fn an_owner_is_not_asked_for_a_service_that_could_not_be_adopted_then() {
    let site = Site::new();
    let (mut a, mut b) = (at_home(&site, "a", "nfs-a"), site.server("b", "nfs-b"));
    // It has the service although it is at home on the other one.
    b.configure("home = \"nfs-a\"", "home = \"nfs-b\"");
    b.up();
    b.register("10.0.0.1");
    b.wait_until_captured("nfs", 1);
    b.configure("home = \"nfs-b\"", "home = \"nfs-a\"");
    b.kill();
    a.up();
    b.up();
    a.kill();
    damage_claim(&site, "new");
    a.start();
    wait_until_said(&a, "services/new/claims/1");
    expect(&a, &["failback", "nfs"], 3, &["services/new/claims/1"]);
    assert_eq!(claims(&site, "nfs"), ["1"], "it was not given up");
}

#[test]
fn records_that_cannot_be_listed_are_found_out_before_the_claim() {
    let site = Site::new();
    let b = an_owner_that_is_off(&site);
    let sm = site.store().join("services/nfs/1/sm");
    fs::rename(&sm, sm.with_file_name("away")).unwrap();
    expect(&b, &ADOPT, 3, &["services/nfs/1/sm"]);
    assert_eq!(claims(&site, "nfs"), ["1"]);
    fs::write(&sm, "a file in its place").unwrap();
    expect(&b, &ADOPT, 3, &["services/nfs/1/sm"]);
    assert_eq!(claims(&site, "nfs"), ["1"]);
}

/// As after a repair of the file system that lost the claim and kept the generation.
#[test]
fn a_generation_without_its_claim_is_gone_on_from_and_never_taken_for_the_next_one() {
    let site = Site::new();
    let b = an_owner_that_is_off(&site);
    let (first, second) = (site.store().join("services/nfs/1"), site.store().join("services/nfs/2"));
    assert!(Command::new("cp").arg("-a").args([&first, &second]).status().unwrap().success());
    fs::write(second.join("state"), StateNumber(91).render_file()).unwrap();
    expect(&b, &[&ADOPT[..], &["--no-wait"]].concat(), 0, &[]);
    assert_eq!(claims(&site, "nfs"), ["1", "3"]);
    let third = site.store().join("services/nfs/3");
    b.wait_for("its generation", |_| third.exists().then_some(()));
    let number = StateNumber::parse_file(&fs::read(third.join("state")).unwrap()).unwrap();
    assert!(number > StateNumber(91), "{number} was sent already (I5)");
    assert_eq!(StateNumber::parse_file(&fs::read(second.join("state")).unwrap()), Ok(StateNumber(91)));
    assert!(names(&third.join("sm")).contains(&"10.0.0.1".to_owned()));
}

/// Damaged, the claim is in the way; without it, and with a word of an administrator's, its clients get their locks back.
#[test]
fn a_service_whose_claim_is_lost_is_adopted_by_force_alone() {
    let site = Site::new();
    let b = an_owner_that_is_off(&site);
    damage_claim(&site, "nfs");
    fs::remove_file(site.store().join("services/nfs/claims/1")).unwrap();
    let lost = "expected claim 1 of nfs, found nothing";
    expect(&b, &["records", "list", "nfs"], 5, &[lost, "--force"]);
    wait_until_said(&b, lost);
    expect(&b, &ADOPT, 3, &[lost, "'heirlock adopt nfs --force'"]);
    let from = b.path("elsewhere");
    fs::create_dir_all(from.join("sm")).unwrap();
    fs::write(from.join("sm/10.0.0.5"), harness::line("10.0.0.5")).unwrap();
    expect(&b, &["records", "import", "nfs", from.to_str().unwrap()], 5, &[lost]);
    assert_eq!(claims(&site, "nfs"), [""; 0]);
    expect(&b, &["adopt", "nfs", "--force", "--no-wait"], 0, &[]);
    assert_eq!(claims(&site, "nfs"), ["2"]);
    let sm = site.store().join("services/nfs/2/sm");
    b.wait_for("its generation", |_| sm.exists().then_some(()));
    assert!(names(&sm).contains(&"10.0.0.1".to_owned()));
}

#[test]
fn a_generation_that_vanishes_under_a_claim_is_seen_by_a_server_that_only_looks_on() {
    let site = Site::new();
    let b = an_owner_that_is_off(&site);
    fs::remove_dir_all(site.store().join("services/nfs/1")).unwrap();
    b.wait_for("an alarm", |b| {
        let check = b.run(&["status", "--check"]);
        let text = String::from_utf8_lossy(&check.stdout).into_owned();
        (check.status.code() == Some(2) && text.contains("expected generation 1 of nfs")).then_some(())
    });
}

#[test]
fn all_services_are_told_of_but_the_one_that_cannot_be_read() {
    let site = Site::new();
    let b = an_owner_that_is_off(&site);
    let sm = site.store().join("services/nfs/1/sm");
    fs::rename(&sm, sm.with_file_name("away")).unwrap();
    for missing in [true, false] {
        if !missing {
            fs::write(&sm, "a file in its place").unwrap();
        }
        expect(&b, &["records", "list"], 1, &["services/nfs/1/sm", "new", "host.nfs-b"]);
        expect(&b, &["history"], 1, &["services/nfs/1/sm", "new", "host.nfs-b"]);
    }
    fs::create_dir_all(site.store().join("services/other/claims/1")).unwrap();
    let output = b.run(&["records", "list", "other"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("there is no service other") && !text.contains(", other"), "{text}");
}
