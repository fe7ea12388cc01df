//! Real agents whose store is a real etcd.

#![cfg(feature = "etcd")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the report")]

#[path = "etcd/certificates.rs"]
mod certificates;
#[path = "etcd/cluster.rs"]
mod cluster;
#[path = "agent/harness.rs"]
#[expect(dead_code, reason = "the tests that ill-treat the agent use the rest")]
mod harness;
#[path = "agent/holder.rs"]
mod holder;
#[path = "etcd/keys.rs"]
mod keys;
mod left_out;
#[path = "etcd/members.rs"]
mod members;
#[path = "etcd/modes.rs"]
mod modes;
#[path = "monitor/server.rs"]
#[expect(dead_code, reason = "the tests of the status monitor use the rest")]
mod monitor;
mod namespaces;
#[path = "crashes/network.rs"]
#[expect(dead_code, reason = "the tests that kill it at every step look at what clients were told")]
mod network;
#[path = "etcd/phases.rs"]
mod phases;
#[path = "etcd/slow_disk.rs"]
mod slow_disk;
#[path = "etcd/split.rs"]
mod split;
#[path = "etcd/stage.rs"]
mod stage;

use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Output};

use harness::{Server, Site};
use members::{Members, program};
use network::Network;

fn sh(script: &str) {
    assert!(Command::new("sh").args(["-c", script]).status().unwrap().success(), "{script}");
}

/// Runs a verb and checks its exit code.
#[track_caller]
fn expect(server: &Server, words: &[&str], exit: i32) -> Output {
    let output = server.run(words);
    assert_eq!(output.status.code(), Some(exit), "{words:?}: {output:?}\n{}", server.log());
    output
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

const CLIENTS: [&str; 2] = ["127.1.0.1", "127.1.0.2"];

/// An address that no server has: as if it had been taken away.
const GONE: &str = "192.0.2.77";

/// Its configuration names this network's lock manager and clients.
fn meets(server: &Server, network: &Network) {
    server.configure("rpcbind-port = 9", &format!("rpcbind-port = {}", network.rpcbind_port));
    let life = server.path("life").display().to_string();
    server.configure("[\"true\"]", &format!("[\"cp\", \"/proc/sys/kernel/random/uuid\", \"{life}\"]"));
    // Nothing here waits for its end, save what fails.
    server.configure("grace-period = \"20s\"", "grace-period = \"10m\"");
}

/// Each client was told once, with one number; answers it.
#[track_caller]
fn told_once(network: &Network) -> u32 {
    let states = CLIENTS.map(|client| {
        let told = network.told(client);
        assert_eq!(told.len(), 1, "{client}: {told:?}");
        told[0].state
    });
    assert_eq!(states[0], states[1]);
    states[0]
}

#[test]
fn a_service_is_kept_released_adopted_and_adopted_again_in_etcd() {
    let test = "a_service_is_kept_released_adopted_and_adopted_again_in_etcd";
    if !namespaces::is_inside(test, program().is_some(), "root and etcd (Debian: etcd-server)") {
        return;
    }
    // All that 'enable' writes to.
    sh("mount -t tmpfs none /etc && mount -t tmpfs none /run && ip link set lo up");
    let Some(etcd) = Members::start(&[IpAddr::V4(Ipv4Addr::LOCALHOST)], None) else { return };
    let site = Site::on(|_| format!("type = \"etcd\"\nendpoints = {:?}\n", etcd.urls()));
    let (mut a, mut b) = (site.server("a", "nfs-a"), site.server("b", "nfs-b"));
    a.configure("\"127.0.0.1\"", &format!("\"{GONE}\""));
    let at_b = Network::new(&CLIENTS, "nfs-b", b.path(""));
    meets(&b, &at_b);
    for server in [&a, &b] {
        expect(server, &["enable"], 0);
        expect(server, &["check-config"], 0);
    }
    a.up();
    b.up();
    CLIENTS.iter().for_each(|client| a.register(client));
    a.wait_until_captured("nfs", 2);
    assert_eq!(keys::clients(&etcd, "nfs", 1), CLIENTS);
    let record = keys::below(&etcd, "generations/nfs/00000000000000000001/sm/").remove(CLIENTS[0]).unwrap();
    assert_eq!(record.value, harness::line(CLIENTS[0]), "to the byte");
    let beat = || keys::heartbeat(&etcd, "nfs-a").writes;
    for _ in 0..3 {
        let before = beat();
        a.wait_for("the next heartbeat", |_| (beat() > before).then_some(()));
    }
    b.wait_until_it_hears_the_other();
    assert!(text(&expect(&a, &["records", "list", "nfs"], 0)).contains(CLIENTS[1]));
    assert!(text(&expect(&b, &["adopt", "nfs"], 3)).contains("nfs-a, whose heartbeat changed"));
    // Given away in order, and taken without a word that the owner is off.
    expect(&a, &["release", "nfs"], 0);
    assert_eq!(keys::claims(&etcd, "nfs"), ["1", "1.released"]);
    expect(&b, &["adopt", "nfs"], 0);
    assert_eq!(keys::claims(&etcd, "nfs"), ["1", "1.released", "2"]);
    let first = told_once(&at_b);
    b.wait_until_captured("nfs", 2);
    assert_eq!(b.service("nfs").unwrap()["held"], true);
    // Its server dies, and the clients are on record for the one that had it before.
    b.kill();
    drop(at_b);
    a.kill();
    let at_a = Network::new(&CLIENTS, "nfs-a", a.path(""));
    a.configure(&format!("\"{GONE}\""), "\"127.0.0.1\"");
    meets(&a, &at_a);
    a.up();
    expect(&a, &["adopt", "nfs", "--owner-fenced", "nfs-b"], 0);
    assert_eq!(keys::claims(&etcd, "nfs").last().unwrap(), "3");
    assert!(told_once(&at_a) > first, "a number of its own");
    assert_eq!(a.stop(), Some(0));
    let last = keys::heartbeat(&etcd, "nfs-a").value;
    let last: serde_json::Value = serde_json::from_str(&last).unwrap();
    assert_eq!(last["paused"], true);
}
