//! The status monitor, and rpc.statd's callout, on an etcd that goes away: what a new client gets, and a known one.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{fs, thread};

use heirlock_nsm::rpcbind::Transport;

use super::members::{Members, program};
use super::monitor::{PATIENCE, Server, heirlock, mon, port, unmon, wait_until};
use super::{keys, namespaces, sh};

/// etcd in namespaces of its own, beside rpcbind.
fn etcd(test: &str) -> Option<Members> {
    let can = program().is_some() && Path::new("/sbin/rpcbind").exists();
    if !namespaces::is_inside(test, can, "root, rpcbind and etcd (Debian: etcd-server)") {
        return None;
    }
    sh("ip link set lo up");
    let etcd = Members::start(&[IpAddr::V4(Ipv4Addr::LOCALHOST)], None)?;
    keys::make_store(&etcd);
    Some(etcd)
}

/// A server on it; its lock manager lives the life that the file says.
fn server(etcd: &Members, capture: &str) -> Server {
    let server = Server::on(&format!("type = \"etcd\"\nendpoints = {:?}", etcd.urls()), capture);
    fs::write("/run/life", "one\n").unwrap();
    let text = fs::read_to_string("/run/heirlock.toml").unwrap();
    fs::write("/run/heirlock.toml", text.replace("[\"echo\", \"one\"]", "[\"cat\", \"/run/life\"]")).unwrap();
    server
}

/// Whether both services of this server have the client on record.
fn is_stored(etcd: &Members, client: &str) -> bool {
    ["nfs", "host.nfs-a"].iter().all(|service| {
        let newest = keys::claims(etcd, service).len().try_into().unwrap();
        keys::clients(etcd, service, newest).contains(&client.to_owned())
    })
}

fn is_granted(client: &str, cookie: u8) -> bool {
    mon(client, cookie, PATIENCE).unwrap().ok
}

fn status() -> serde_json::Value {
    let status = heirlock(&["status", "--json"]).output().unwrap();
    serde_json::from_slice(&status.stdout).unwrap()
}

fn nsm(when_unprotected: &str) -> String {
    format!(
        "mode = \"nsm\"\nmon-timeout = \"500ms\"\nscan-interval = \"1s\"\nwhen-unprotected = \"{when_unprotected}\"\n\
         [heartbeat]\ninterval = \"200ms\""
    )
}

#[test]
fn a_status_monitor_without_etcd_refuses_new_clients_and_grants_known_ones_also_in_a_new_life() {
    let test =
        "modes::a_status_monitor_without_etcd_refuses_new_clients_and_grants_known_ones_also_in_a_new_life";
    let Some(mut etcd) = etcd(test) else { return };
    let mut server = server(&etcd, &nsm("refuse"));
    server.start("agent");
    wait_until("the registration", || port(Transport::Tcp).is_some());
    wait_until("a grant", || is_granted("192.0.2.1", 1));
    assert!(is_stored(&etcd, "192.0.2.1"), "durable before it is granted");
    for is_silent in [true, false] {
        // It hangs; and then it is not there.
        match is_silent {
            true => etcd.stop(0, true),
            false => etcd.kill(0),
        }
        for round in 0..3 {
            // One whose commit hangs may be on record all the same, and is known from then on.
            let refused = mon(&format!("192.0.{}.{round}", 10 + u8::from(is_silent)), 1, PATIENCE).unwrap();
            assert!(!refused.ok && refused.state.0 == u32::MAX);
            assert!(is_granted("192.0.2.1", 1), "known");
        }
        wait_until("word of the store", || status()["store"]["well"] == false);
        // Its lock manager is started again, asks for its clients anew, and drops one that it had.
        fs::write("/run/life", format!("another, {is_silent}\n")).unwrap();
        wait_until("word of its new life", || {
            let life = status()["lock_manager"]["incarnation"].to_string();
            life.contains(&format!("another, {is_silent}"))
        });
        assert!(is_granted("192.0.2.1", 2), "known to the store, in a new life as well");
        unmon("192.0.2.1");
        assert!(is_granted("192.0.2.1", 3), "and where it was let go meanwhile");
        assert!(!is_granted("192.0.3.9", 1));
        match is_silent {
            true => etcd.stop(0, false),
            false => etcd.restart(0),
        }
        etcd.wait_for(0);
        let new = format!("192.0.4.{}", u8::from(is_silent));
        wait_until("a grant", || is_granted(&new, 1));
        assert!(is_stored(&etcd, &new), "durable before it is granted");
        assert!(is_stored(&etcd, "192.0.2.1"));
        wait_until("word of the store", || status()["store"]["well"] == true);
    }
}

#[test]
fn a_status_monitor_that_is_to_grant_lists_clients_at_risk_until_etcd_answers() {
    let test = "modes::a_status_monitor_that_is_to_grant_lists_clients_at_risk_until_etcd_answers";
    let Some(mut etcd) = etcd(test) else { return };
    let mut server = server(&etcd, &nsm("grant"));
    server.start("agent");
    wait_until("the registration", || port(Transport::Tcp).is_some());
    wait_until("a grant", || is_granted("192.0.2.1", 1));
    etcd.stop(0, true);
    assert!(is_granted("192.0.2.2", 1), "granted, and at risk");
    wait_until("its name in status", || status()["at_risk"].to_string().contains("192.0.2.2"));
    etcd.stop(0, false);
    wait_until("its record", || is_stored(&etcd, "192.0.2.2"));
    wait_until("the end of the risk", || !status()["at_risk"].to_string().contains("192.0.2.2"));
}

/// As on a disk that makes each sync wait: no answer comes at once, and each comes.
#[test]
fn on_an_etcd_that_is_slow_the_heart_beats_known_clients_are_granted_and_new_ones_are_kept() {
    let test =
        "modes::on_an_etcd_that_is_slow_the_heart_beats_known_clients_are_granted_and_new_ones_are_kept";
    let Some(mut etcd) = etcd(test) else { return };
    let mut server = server(&etcd, &nsm("refuse"));
    server.start("agent");
    wait_until("the registration", || port(Transport::Tcp).is_some());
    wait_until("a grant", || is_granted("192.0.2.1", 1));
    let beats = |etcd: &Members| keys::heartbeat(etcd, "nfs-a").writes;
    let before = beats(&etcd);
    let mut granted = 0;
    for stroke in 0..20 {
        etcd.stop(0, true);
        assert!(is_granted("192.0.2.1", 1), "known");
        // One that is refused comes again, as its process does.
        granted += u32::from(is_granted(&format!("192.0.5.{granted}"), 1));
        thread::sleep(Duration::from_millis(250));
        etcd.stop(0, false);
        thread::sleep(Duration::from_millis(100));
        if stroke == 10 {
            let now = beats(&etcd);
            assert!(now > before, "its heart beats");
        }
    }
    eprintln!(
        "measured: a slow etcd: {} heartbeats, {granted} new clients in 20 strokes",
        beats(&etcd) - before
    );
    wait_until("a grant", || is_granted("192.0.5.200", 1));
    wait_until("word of the store", || status()["store"]["well"] == true);
    for client in (0..granted).map(|client| format!("192.0.5.{client}")) {
        assert!(is_stored(&etcd, &client), "{client} was granted");
    }
    assert!(is_stored(&etcd, "192.0.5.200"));
}

#[test]
fn a_callout_without_etcd_ends_within_its_bound_and_its_client_is_kept_afterwards() {
    let test = "modes::a_callout_without_etcd_ends_within_its_bound_and_its_client_is_kept_afterwards";
    let Some(mut etcd) = etcd(test) else { return };
    let mut server = server(&etcd, "mode = \"callout\"\ncallout-timeout = \"1s\"");
    server.start("agent");
    let callout = |client: &str| {
        // As rpc.statd runs it: as the user that owns the records, in its directory.
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.args([env!("CARGO_BIN_EXE_heirlock-callout"), "add-client", client, "nfs-a"]);
        command.env("HEIRLOCK_CONFIG", "/run/heirlock.toml").current_dir("/var/lib/nfs").output().unwrap()
    };
    if !callout("192.0.2.1").status.success() {
        super::left_out::leave_out("a folder that other users may enter, to be built in");
        return;
    }
    assert!(is_stored(&etcd, "192.0.2.1"), "durable when it ended");
    etcd.stop(0, true);
    // Each ends although etcd says nothing: rpc.statd waits for it with its only thread.
    for (client, is_known) in [("192.0.2.2", false), ("192.0.2.1", true)] {
        let ended = callout(client);
        assert!(ended.status.success(), "{client}: {ended:?}");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(said.contains("not durable before its lock is granted"), !is_known, "{client}: {said}");
    }
    etcd.stop(0, false);
    wait_until("a client that came meanwhile", || is_stored(&etcd, "192.0.2.2"));
}
