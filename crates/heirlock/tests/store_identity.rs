//! The store's volume is not mounted: heirlock's words and acts then, with real mounts, the real program on two
//! servers, and everything that an administrator may try in that hour.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the report")]

#[path = "agent/harness.rs"]
#[expect(dead_code, reason = "the tests that ill-treat the agent use the rest")]
mod harness;
mod left_out;
mod namespaces;
#[path = "agent/verbs.rs"]
mod verbs;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use harness::{Server, Site, names};
use verbs::{error_of, expect};

/// Whether this test runs where mounts are its own.
fn is_inside(test: &str) -> bool {
    namespaces::is_inside(test, true, "root")
}

fn sh(script: &str) {
    assert!(Command::new("sh").args(["-c", script]).status().unwrap().success(), "{script}");
}

fn is_well(server: &Server) -> Option<()> {
    (server.try_status()?["store"]["well"] == true).then_some(())
}

/// A store as an earlier version, or another server, makes one.
fn make_a_store(at: &Path) {
    for folder in ["services", "servers"] {
        fs::create_dir(at.join(folder)).unwrap();
    }
    fs::set_permissions(at, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(at.join("heirlock-store"), "heirlock store, format 1\n").unwrap();
}

#[test]
fn while_the_volume_is_not_mounted_nothing_takes_the_stores_place_and_nothing_is_lost() {
    if !is_inside("while_the_volume_is_not_mounted_nothing_takes_the_stores_place_and_nothing_is_lost") {
        return;
    }
    // All that 'enable' writes to.
    sh("mount -t tmpfs none /etc && mount -t tmpfs none /run && ip link set lo up");
    let site = Site::new();
    let (store, keep) = (site.store(), site.store().with_file_name("keep"));
    sh(&format!(
        "rm -r {0}/* && chmod 755 {0} && mkdir {1} && mount -t tmpfs none {1} && mount --bind {1} {0}",
        store.display(),
        keep.display()
    ));
    let (mut a, mut b) = (site.server("a", "nfs-a"), site.server("b", "nfs-b"));
    for server in [&a, &b] {
        expect(server, &["enable"], 0, &[]);
    }
    a.up();
    for client in ["10.0.0.1", "10.0.0.2"] {
        a.register(client);
    }
    a.wait_until_captured("nfs", 2);
    b.up();
    b.wait_until_it_hears_the_other();
    let before = a.service("nfs").unwrap();

    sh(&format!("umount -l {}", store.display()));
    a.wait_for("the owner to say it", |a| {
        let error = error_of(a)?;
        (error.contains("expected store ") && error.contains("is its volume mounted?")).then_some(())
    });
    expect(&a, &["status"], 5, &["it fails"]);
    expect(&a, &["enable"], 3, &["expected store ", "found none: is its volume mounted?"]);
    assert_eq!(names(&store), [""; 0], "nothing is written below the mount point");
    a.register("10.0.0.3");

    // A new store is made all the same.
    make_a_store(&store);
    let new = "found a new one: is its volume mounted?";
    for server in [&a, &b] {
        server.wait_for("a server that sees through it", |server| {
            error_of(server)?.contains(new).then_some(())
        });
        expect(server, &["status"], 5, &[]);
        expect(server, &["enable"], 3, &["expected store ", new]);
        expect(server, &["doctor"], 1, &[new]);
        expect(server, &["records", "list"], 1, &[new]);
    }
    for words in [&["adopt", "nfs"][..], &["adopt", "nfs", "--force"], &["adopt", "nfs", "--owner-fenced"]] {
        expect(&b, words, 3, &[new]);
    }
    let directory = a.path("");
    expect(&b, &["records", "import", "nfs", directory.to_str().unwrap()], 3, &[new]);
    // Nor does a new start forget which store it was.
    a.kill();
    a.start();
    a.wait_for("the new agent to see it", |a| error_of(a)?.contains(new).then_some(()));
    assert_eq!(names(&store.join("services")), [""; 0]);
    assert_eq!(names(&store.join("servers")), [""; 0]);

    sh(&format!("rm -r {0}/* && mount --bind {1} {0}", store.display(), keep.display()));
    for server in [&a, &b] {
        server.wait_for("a store that is well", is_well);
    }
    a.wait_until_captured("nfs", 3);
    let after = a.service("nfs").unwrap();
    for same in ["generation", "state_number"] {
        assert_eq!(before[same], after[same], "{same}");
    }
    assert_eq!(names(&store.join("services/nfs/1/sm")), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    expect(&a, &["enable"], 0, &["so already", "is the store"]);
    b.wait_until_it_hears_the_other();
}

/// An agent takes up a store that the operator accepts with --new-store without a new start, with all that it knows.
#[test]
fn a_new_store_that_is_wanted_gets_all_that_the_owner_knows() {
    if !is_inside("a_new_store_that_is_wanted_gets_all_that_the_owner_knows") {
        return;
    }
    sh("mount -t tmpfs none /etc && mount -t tmpfs none /run && ip link set lo up");
    let site = Site::new();
    let mut a = site.server("a", "nfs-a");
    expect(&a, &["enable"], 0, &[]);
    a.up();
    a.register("10.0.0.1");
    a.wait_until_captured("nfs", 1);
    let before = a.service("nfs").unwrap();
    fs::rename(site.store(), site.store().with_file_name("gone")).unwrap();
    a.wait_for("the owner to say it", |a| error_of(a).map(drop));
    expect(&a, &["enable", "--new-store"], 0, &["done", "a new store"]);
    // The agent may not even have seen that the store was gone: the command line looks for itself.
    let rebuilt = site.store().join("services/nfs/1/sm/10.0.0.1");
    a.wait_for("a record that was written anew", |_| rebuilt.exists().then_some(()));
    a.wait_for("a store that is well", is_well);
    let after = a.service("nfs").unwrap();
    for same in ["generation", "state_number", "records"] {
        assert_eq!(before[same], after[same], "{same}");
    }
    assert_eq!(names(&site.store().join("services/nfs/1/sm")), ["10.0.0.1"]);
    let log = fs::read_to_string(a.path("log")).unwrap();
    assert!(log.contains("was written anew from what this server knows"), "{log}");
}
