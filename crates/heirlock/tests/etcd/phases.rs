//! A server whose etcd says nothing, in each phase of what it does: what it does meanwhile, and that all of it ends well once etcd
//! answers.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Output, Stdio};

use super::harness::{Server, Site};
use super::members::{Members, program};
use super::network::Network;
use super::{CLIENTS, GONE, expect, keys, meets, namespaces, sh, text, told_once};

/// A client that comes while etcd says nothing.
const NEW: &str = "127.2.0.1";

/// A dead owner with both clients on record, and the server that adopts from it. Its hooks wait until they are let go.
struct Adopting {
    etcd: Members,
    _site: Site,
    b: Server,
    network: Network,
}

impl Adopting {
    /// It meets these clients; the others are off.
    fn new(clients: &[&str]) -> Option<Self> {
        let etcd = Members::start(&[IpAddr::V4(Ipv4Addr::LOCALHOST)], None)?;
        keys::make_store(&etcd);
        let site = Site::on(|_| format!("type = \"etcd\"\nendpoints = {:?}\n", etcd.urls()));
        let (mut a, mut b) = (site.server("a", "nfs-a"), site.server("b", "nfs-b"));
        a.up();
        CLIENTS.iter().for_each(|client| a.register(client));
        a.wait_until_captured("nfs", 2);
        let network = Network::new(clients, "nfs-b", b.path(""));
        meets(&b, &network);
        let life = b.path("life").display().to_string();
        let recognise = format!("[\"cp\", \"/proc/sys/kernel/random/uuid\", \"{life}\"]");
        let waiting = waits(&b, "recognise", &format!("cp /proc/sys/kernel/random/uuid {life}"));
        b.configure(&recognise, &waiting);
        let hook = |name| format!("{name} = {}\n", waits(&b, name, "true"));
        let hooks = ["fence", "volume-up"].map(hook).concat();
        b.configure("[heartbeat]", &format!("[hooks]\n{hooks}[heartbeat]"));
        b.up();
        b.wait_until_it_hears_the_other();
        a.kill();
        Some(Self { etcd, _site: site, b, network })
    }

    /// Etcd says nothing from now on, and the agent knows it.
    fn etcd_falls_silent(&mut self) {
        self.etcd.stop(0, true);
        self.b.wait_for("word of the store", |b| (!is_well(b)?).then_some(()));
    }

    fn etcd_answers(&mut self) {
        self.etcd.stop(0, false);
    }

    fn phase(&self) -> String {
        self.b.service("nfs").unwrap()["phase"].as_str().unwrap_or("none").to_owned()
    }

    fn claims(&self) -> Vec<String> {
        keys::claims(&self.etcd, "nfs")
    }
}

/// What the agent itself says of its store.
fn is_well(server: &Server) -> Option<bool> {
    let status = server.try_status()?;
    (status["source"] == "agent").then(|| status["store"]["well"] == true)
}

/// A command of the configuration that waits while there is a file of its name, and then does this.
fn waits(server: &Server, name: &str, does: &str) -> String {
    let here = server.path("").display().to_string();
    let script =
        format!("touch {here}/at-{name}; while test -e {here}/hold-{name}; do sleep 0.05; done; {does}");
    format!("{{ command = [\"sh\", \"-c\", \"{script}\"], time-limit = \"600s\" }}")
}

/// From now on this hook waits.
fn hold(server: &Server, hook: &str) {
    fs::write(server.path(&format!("hold-{hook}")), "").unwrap();
}

fn let_go(server: &Server, hook: &str) {
    fs::remove_file(server.path(&format!("hold-{hook}"))).unwrap();
}

/// Says a verb, and waits until the hook of this name waits.
fn say(server: &Server, words: &[&str], hook: &str) -> Child {
    let verb = server.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    server.wait_for(hook, |server| server.path(&format!("at-{hook}")).exists().then_some(()));
    verb
}

/// Waits until the agent, which can't reach etcd, has beaten some more times.
fn goes_on(server: &Server) {
    let failed = || {
        let status = server.try_status()?;
        status["observed"]["heartbeats"]["failed_total"].as_u64()
    };
    let before = server.wait_for("a status", |_| failed());
    server.wait_for("heartbeats that fail", |_| failed().filter(|failed| *failed >= before + 5));
}

#[track_caller]
fn succeeded(verb: Child, server: &Server) -> Output {
    let done = verb.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{done:?}\n{}", server.log());
    done
}

fn is_inside(test: &str) -> bool {
    let inside = namespaces::is_inside(test, program().is_some(), "root and etcd (Debian: etcd-server)");
    if inside {
        sh("ip link set lo up && mount -t tmpfs none /run");
    }
    inside
}

#[test]
fn an_adoption_that_has_claimed_waits_for_etcd_and_tells_no_client_before() {
    let test = "phases::an_adoption_that_has_claimed_waits_for_etcd_and_tells_no_client_before";
    if !is_inside(test) {
        return;
    }
    for hook in ["volume-up", "recognise"] {
        let Some(mut adopting) = Adopting::new(&CLIENTS) else { return };
        hold(&adopting.b, hook);
        let verb = say(&adopting.b, &["adopt", "nfs", "--owner-fenced", "nfs-a"], hook);
        assert_eq!((adopting.phase().as_str(), adopting.claims().len()), ("conveyed", 2), "{hook}");
        adopting.etcd_falls_silent();
        adopting.b.register(NEW);
        let_go(&adopting.b, hook);
        goes_on(&adopting.b);
        assert!(adopting.network.told(CLIENTS[0]).is_empty(), "{hook}: before what it rests on is durable");
        adopting.etcd_answers();
        succeeded(verb, &adopting.b);
        told_once(&adopting.network);
        assert_eq!(adopting.claims(), ["1", "2"], "{hook}: claimed once");
        adopting.b.wait_for("a client that came meanwhile", |_| {
            keys::clients(&adopting.etcd, "nfs", 2).contains(&NEW.to_owned()).then_some(())
        });
    }
}

/// Its server is blind meanwhile: the owner may have come back, and its silence counts from the beginning.
#[test]
fn an_adoption_by_a_silent_heart_that_met_a_silent_etcd_before_its_claim_is_refused_and_changes_nothing() {
    let test = "phases::an_adoption_by_a_silent_heart_that_met_a_silent_etcd_before_its_claim_is_refused_and_changes_nothing";
    if !is_inside(test) {
        return;
    }
    let Some(mut adopting) = Adopting::new(&CLIENTS) else { return };
    adopting.b.wait_for("a heart that is still", |b| {
        b.try_status()?["servers"][0]["heart"].as_str()?.starts_with("silent").then_some(())
    });
    hold(&adopting.b, "fence");
    let mut verb = say(&adopting.b, &["adopt", "nfs"], "fence");
    adopting.etcd_falls_silent();
    let_go(&adopting.b, "fence");
    goes_on(&adopting.b);
    assert!(verb.try_wait().unwrap().is_none(), "it waits");
    adopting.etcd_answers();
    let refused = verb.wait_with_output().unwrap();
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    let said = text(&refused);
    assert!(said.contains("has been watched for only") && said.contains("--owner-fenced nfs-a"), "{said}");
    assert_eq!(adopting.claims(), ["1"]);
    expect(&adopting.b, &["adopt", "nfs", "--owner-fenced", "nfs-a"], 0);
    told_once(&adopting.network);
}

#[test]
fn clients_are_told_while_etcd_says_nothing_and_their_outcome_is_kept_afterwards() {
    let test = "phases::clients_are_told_while_etcd_says_nothing_and_their_outcome_is_kept_afterwards";
    if !is_inside(test) {
        return;
    }
    let Some(mut adopting) = Adopting::new(&CLIENTS[..1]) else { return };
    let words = ["adopt", "nfs", "--owner-fenced", "nfs-a"];
    let mut verb = adopting.b.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    adopting.b.wait_for("clients that are told", |b| (b.service("nfs")?["clients_told"] == 1).then_some(()));
    adopting.etcd_falls_silent();
    // The other one comes up meanwhile, with the port where clients have their rpcbind.
    let port = adopting.network.rpcbind_port;
    let before = std::mem::replace(&mut adopting.network, Network::new(&[], "nfs-b", adopting.b.path("")));
    drop(before);
    adopting.network = Network::at(port, &CLIENTS, "nfs-b", adopting.b.path(""));
    adopting.b.wait_for("the client that was off", |_| {
        (!adopting.network.told(CLIENTS[1]).is_empty()).then_some(())
    });
    goes_on(&adopting.b);
    assert!(verb.try_wait().unwrap().is_none(), "nothing is answered before it is durable");
    adopting.etcd_answers();
    succeeded(verb, &adopting.b);
    let outcomes = keys::below(&adopting.etcd, "generations/nfs/00000000000000000002/outcomes/");
    let outcomes: String = outcomes.into_values().map(|entry| entry.value).collect();
    assert!(CLIENTS.iter().all(|client| outcomes.contains(client)), "{outcomes}");
    assert_eq!(adopting.claims(), ["1", "2"]);
}

/// Its own heart beats on, so no other server would be asked; what it can see is that no client answers.
#[test]
fn a_server_cut_off_from_its_clients_and_not_from_etcd_says_so_and_keeps_them_on_record() {
    let test = "phases::a_server_cut_off_from_its_clients_and_not_from_etcd_says_so_and_keeps_them_on_record";
    if !is_inside(test) {
        return;
    }
    let Some(mut adopting) = Adopting::new(&[]) else { return };
    adopting.b.kill();
    adopting.b.configure("\"10m\"", "\"6s\"\nsettle-margin = \"1s\"");
    adopting.b.up();
    let beats = || keys::heartbeat(&adopting.etcd, "nfs-b").writes;
    let before = beats();
    let told = expect(&adopting.b, &["adopt", "nfs", "--owner-fenced", "nfs-a", "--json"], 6);
    let report: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&report["unreachable"], &report["acknowledged"]), (&2.into(), &0.into()), "{report}");
    assert!(beats() >= before + 5, "its heart beats on");
    assert_eq!(keys::clients(&adopting.etcd, "nfs", 2), CLIENTS, "for the next adoption");
    assert_eq!(adopting.b.service("nfs").unwrap()["unreachable"], 2);
}

#[test]
fn a_release_waits_for_etcd_and_a_client_that_comes_meanwhile_is_kept() {
    let test = "phases::a_release_waits_for_etcd_and_a_client_that_comes_meanwhile_is_kept";
    if !is_inside(test) {
        return;
    }
    let Some(mut etcd) = Members::start(&[IpAddr::V4(Ipv4Addr::LOCALHOST)], None) else { return };
    keys::make_store(&etcd);
    let site = Site::on(|_| format!("type = \"etcd\"\nendpoints = {:?}\n", etcd.urls()));
    let mut a = site.server("a", "nfs-a");
    a.configure("\"127.0.0.1\"", &format!("\"{GONE}\""));
    let hook = waits(&a, "address-down", "true");
    a.configure("[heartbeat]", &format!("[hooks]\naddress-down = {hook}\n[heartbeat]"));
    a.up();
    CLIENTS.iter().for_each(|client| a.register(client));
    a.wait_until_captured("nfs", 2);
    hold(&a, "address-down");
    let mut verb = say(&a, &["release", "nfs"], "address-down");
    etcd.stop(0, true);
    a.register(NEW);
    let_go(&a, "address-down");
    goes_on(&a);
    assert!(verb.try_wait().unwrap().is_none(), "it waits");
    assert_eq!(a.service("nfs").unwrap()["held"], true);
    etcd.stop(0, false);
    succeeded(verb, &a);
    assert_eq!(keys::claims(&etcd, "nfs"), ["1", "1.released"]);
    assert!(keys::clients(&etcd, "nfs", 1).contains(&NEW.to_owned()), "{}", a.log());
}
