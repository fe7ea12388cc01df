//! The store is moved to another place while real agents use it, by the program as an administrator types it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the report")]

#[path = "agent/harness.rs"]
#[expect(dead_code, reason = "the tests that ill-treat the agent use the rest")]
mod harness;
mod left_out;
mod namespaces;
#[path = "agent/verbs.rs"]
mod verbs;

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use harness::{Server, Site};
use verbs::{error_of, expect, said};

/// The configuration of a server with its store elsewhere.
fn with_store(server: &Server, name: &str, before: &str, store: &str) -> PathBuf {
    let text = fs::read_to_string(server.path("heirlock.toml")).unwrap();
    assert!(text.contains(before), "{text}");
    let path = server.path(name);
    fs::write(&path, text.replace(before, store)).unwrap();
    path
}

fn copy(from: &Path, to: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heirlock"));
    command.args(["store", "copy"]).args([from, to]).args(more).output().unwrap()
}

/// A store that moved as it is moved by two agents' administrator: from one configuration of each server to another one.
struct Move {
    /// The text of the store in the configuration before, and after.
    before: String,
    after: String,
    /// A part of the words for the new place.
    place: String,
}

/// One agent's clients lock without an end meanwhile; the other one is left where it is.
fn is_moved_under_agents(a: &mut Server, b: &mut Server, first: u32, how: &Move) {
    let [new_a, new_b] = [&*a, &*b].map(|server| with_store(server, "new.toml", &how.before, &how.after));
    let before = a.service("nfs").unwrap();
    let known = before["records"].as_u64().unwrap();
    let moved = thread::scope(|scope| {
        let from = a.path("heirlock.toml");
        let moving = scope.spawn(move || copy(&from, &new_a, &[]));
        let mut clients = 0;
        while !moving.is_finished() || clients < 10 {
            clients += 1;
            a.register(&format!("10.{first}.{}.{}", clients / 200, clients % 200));
            thread::sleep(Duration::from_millis(5));
        }
        (moving.join().unwrap(), clients)
    });
    let (output, clients) = moved;
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains(&how.place) && text.contains("Next, on each server"), "{text}");

    // Both say it, and neither does anything in the place that was left.
    for server in [&*a, &*b] {
        server.wait_for("an agent that says that its store was moved", |server| {
            let error = error_of(server)?;
            (error.contains("was moved to ") && error.contains(&how.place)).then_some(())
        });
    }
    assert!(a.log().contains("was moved to "), "{}", a.log());
    expect(b, &["adopt", "nfs", "--force"], 3, &["was moved to ", &how.place]);
    expect(b, &["records", "list"], 3, &["was moved to "]);
    expect(b, &["enable", "--new-store", "--plan"], 3, &["was moved to "]);
    expect(b, &["doctor"], 1, &["was moved to "]);
    b.kill();
    b.start();
    b.wait_for("a new agent in the old place to say it", |b| {
        error_of(b)?.contains("was moved to ").then_some(())
    });

    // A client of the time between is put on record as soon as its agent has the new place.
    a.register(&format!("10.{first}.250.1"));
    for (server, new) in [(&mut *a, "new.toml"), (&mut *b, "new.toml")] {
        server.kill();
        fs::copy(server.path(new), server.path("heirlock.toml")).unwrap();
        server.start();
    }
    assert!(new_b.exists());
    a.wait_until_captured("nfs", known + clients + 1);
    b.wait_until_it_hears_the_other();
    let after = a.service("nfs").unwrap();
    for same in ["generation", "state_number"] {
        assert_eq!(before[same], after[same], "{same}");
    }
}

/// Two servers on a folder, of which the first one holds the service.
fn two_servers(site: &Site) -> (Server, Server) {
    let (mut a, mut b) = (site.server("a", "nfs-a"), site.server("b", "nfs-b"));
    a.up();
    a.register("10.0.0.1");
    a.wait_until_captured("nfs", 1);
    b.start();
    b.wait_until_it_hears_the_other();
    (a, b)
}

fn folder(at: &Path) -> String {
    format!("path = \"{}\"\nshared = true", at.display())
}

#[test]
fn a_store_is_moved_to_another_folder_under_agents_that_take_records() {
    let site = Site::new();
    let (mut a, mut b) = two_servers(&site);
    let new = site.store().with_file_name("new");
    let how = Move {
        before: folder(&site.store()),
        after: folder(&new),
        place: format!("the folder {}", new.display()),
    };
    is_moved_under_agents(&mut a, &mut b, 1, &how);
    // Neither is the place that was left a place to go to, nor is the new one moved onto itself.
    let old = with_store(&a, "old.toml", &how.after, &how.before);
    let refused = copy(&a.path("heirlock.toml"), &old, &[]);
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
    assert!(said(&refused).contains("what was left of store"), "{}", said(&refused));
    let refused = copy(&a.path("heirlock.toml"), &a.path("heirlock.toml"), &[]);
    assert!(said(&refused).contains("are one place"), "{}", said(&refused));
    let ended = copy(&old, &a.path("heirlock.toml"), &["--give-up"]);
    assert_eq!(ended.status.code(), Some(3), "{}", said(&ended));
    assert!(said(&ended).contains("can't be taken back"), "{}", said(&ended));
    let again = copy(&old, &a.path("heirlock.toml"), &["--json"]);
    assert_eq!(again.status.code(), Some(0), "{}", said(&again));
    let told: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&told["changed"], told["in_force"] == told["to"]), (&false.into(), true), "{told}");
}

/// The program is killed or interrupted in the middle, wherever that is, and is said again at last.
#[test]
fn a_copy_that_is_killed_or_interrupted_again_and_again_comes_to_its_end_and_loses_nothing() {
    let site = Site::new();
    let (mut a, mut b) = two_servers(&site);
    let new = site.store().with_file_name("new");
    let (before, after) = (folder(&site.store()), folder(&new));
    let to = with_store(&a, "to.toml", &before, &after);
    let mut clients = 1_u32;
    for round in 0..8_u64 {
        for _ in 0..20 {
            clients += 1;
            a.register(&format!("10.7.0.{clients}"));
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_heirlock"));
        command.args(["store", "copy"]).arg(a.path("heirlock.toml")).arg(&to).stderr(Stdio::piped());
        let copying = command.stdout(Stdio::piped()).spawn().unwrap();
        // In any step, as the machine has it: what is asserted holds after each.
        thread::sleep(Duration::from_millis(round / 2 * 150));
        let signal = if round % 2 == 0 { "INT" } else { "KILL" };
        let _ = Command::new("kill").args(["-s", signal, &copying.id().to_string()]).status();
        let output = copying.wait_with_output().unwrap();
        let text = said(&output);
        match output.status.code() {
            // By the signal, or it was quicker than that.
            None | Some(0) => {}
            Some(1) => assert!(text.contains("interrupted") && text.contains("FROM is in force"), "{text}"),
            other => panic!("{other:?}: {text}"),
        }
    }
    let known = u64::from(clients);
    let how = Move { before, after, place: format!("the folder {}", new.display()) };
    // Some of them were put on record in the place that is left, and some are on record as soon as their agent is in the new one.
    let back = copy(&a.path("heirlock.toml"), &to, &["--give-up"]);
    if back.status.code() == Some(0) {
        a.wait_until_captured("nfs", known);
        is_moved_under_agents(&mut a, &mut b, 1, &how);
        return;
    }
    // A round had come to its end.
    assert!(said(&back).contains("can't be taken back"), "{}", said(&back));
    for server in [&mut a, &mut b] {
        let new = with_store(server, "new.toml", &how.before, &how.after);
        server.kill();
        fs::copy(new, server.path("heirlock.toml")).unwrap();
        server.start();
    }
    a.wait_until_captured("nfs", known);
}

/// An etcd of its own, which ends with the test.
struct Etcd {
    child: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn etcd() -> Option<Etcd> {
    let path = std::env::var_os("PATH")?;
    let Some(program) = std::env::split_paths(&path).map(|at| at.join("etcd")).find(|at| at.is_file()) else {
        left_out::leave_out("etcd (Debian: etcd-server)");
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    let ports: Vec<_> = (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let [url, peer] = [0, 1].map(|at| format!("http://{}", ports[at].local_addr().unwrap()));
    drop(ports);
    let child = Command::new(program)
        .env_clear()
        .args(["--name", "m", "--data-dir"])
        .arg(folder.path().join("data"))
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("m={peer}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let etcd = Etcd { child, url, _folder: folder };
    let (address, began) = (etcd.url.trim_start_matches("http://").to_owned(), Instant::now());
    while std::net::TcpStream::connect(&address).is_err() {
        assert!(began.elapsed() < Duration::from_secs(120), "no etcd came up");
        thread::sleep(Duration::from_millis(50));
    }
    Some(etcd)
}

#[test]
fn a_store_is_moved_to_etcd_and_back_under_agents_that_take_records() {
    if cfg!(not(feature = "etcd")) {
        return;
    }
    let Some(etcd) = etcd() else { return };
    let site = Site::new();
    let (mut a, mut b) = two_servers(&site);
    let in_etcd = format!("type = \"etcd\"\nendpoints = [\"{}\"]\nprefix = \"/heirlock/\"", etcd.url);
    let there = Move {
        before: folder(&site.store()),
        after: in_etcd.clone(),
        place: format!("etcd at {}", etcd.url),
    };
    is_moved_under_agents(&mut a, &mut b, 1, &there);
    let back = site.store().with_file_name("back");
    let place = format!("the folder {}", back.display());
    is_moved_under_agents(&mut a, &mut b, 2, &Move { before: in_etcd, after: folder(&back), place });
}

/// A client at this address, as far as a notifier sees it: its rpcbind tells a port, at which it takes what it is told.
fn told_to_client_at(address: &str) -> Receiver<(String, u32)> {
    let rpcbind = UdpSocket::bind((address, 111)).unwrap();
    let monitor = UdpSocket::bind((address, 0)).unwrap();
    let port = u32::from(monitor.local_addr().unwrap().port());
    let answer = |socket: &UdpSocket, results: &[u32]| {
        let mut call = [0; 2048];
        let (length, from) = socket.recv_from(&mut call).unwrap();
        let xid = u32::from_be_bytes(call[..4].try_into().unwrap());
        // A reply that was accepted: no credentials, success (RFC 5531).
        let words = [xid, 1, 0, 0, 0, 0].into_iter().chain(results.iter().copied());
        let reply: Vec<u8> = words.flat_map(u32::to_be_bytes).collect();
        socket.send_to(&reply, from).unwrap();
        call[..length].to_vec()
    };
    let (told, asked) = channel();
    // Both end with the process of the test.
    thread::spawn(move || {
        loop {
            answer(&rpcbind, &[port]);
        }
    });
    thread::spawn(move || {
        loop {
            let call = answer(&monitor, &[]);
            let word = |at: usize| u32::from_be_bytes(call[at..at + 4].try_into().unwrap());
            // Six words, then credentials and a verifier, each with its length; then the name and the number (X/Open XNFS).
            let credentials = 24 + 8 + usize::try_from(word(28)).unwrap();
            let arguments = credentials + 8 + usize::try_from(word(credentials + 4)).unwrap();
            let length = usize::try_from(word(arguments)).unwrap();
            let name = String::from_utf8(call[arguments + 4..arguments + 4 + length].to_vec()).unwrap();
            let _ = told.send((name, word(arguments + 4 + length.next_multiple_of(4))));
        }
    });
    asked
}

/// With heirlock gone, stock sm-notify tells the clients of a store in etcd from an export of it.
#[test]
fn stock_sm_notify_takes_an_export_from_etcd_and_tells_the_client() {
    const SM_NOTIFY: &str = "/usr/sbin/sm-notify";
    if cfg!(not(feature = "etcd")) {
        return;
    }
    let test = "stock_sm_notify_takes_an_export_from_etcd_and_tells_the_client";
    let needs = "root, and sm-notify (Debian: nfs-common)";
    if !namespaces::is_inside(test, Path::new(SM_NOTIFY).exists(), needs) {
        return;
    }
    let sh = |script: &str| {
        assert!(Command::new("sh").args(["-c", script]).status().unwrap().success(), "{script}");
    };
    sh("mount -t tmpfs none /run && ip link set lo up && echo '127.0.0.9 nfs.example.test' > /run/hosts && \
        mount --bind /run/hosts /etc/hosts");
    let Some(etcd) = etcd() else { return };
    let site = Site::new();
    let mut a = site.server("a", "nfs-a");
    a.up();
    a.register("127.0.0.5");
    a.wait_until_captured("nfs", 1);
    let in_etcd = format!("type = \"etcd\"\nendpoints = [\"{}\"]\nprefix = \"/heirlock/\"", etcd.url);
    let new = with_store(&a, "new.toml", &folder(&site.store()), &in_etcd);
    let moved = copy(&a.path("heirlock.toml"), &new, &[]);
    assert_eq!(moved.status.code(), Some(0), "{}", said(&moved));
    a.kill();
    fs::copy(&new, a.path("heirlock.toml")).unwrap();
    let exported = site.store().with_file_name("exported");
    expect(&a, &["records", "export", "nfs", exported.to_str().unwrap()], 0, &["sm-notify -f -P"]);
    let state = fs::read(exported.join("state")).unwrap();
    let number = heirlock_nsm::StateNumber::parse_file(&state).unwrap();

    let told = told_to_client_at("127.0.0.5");
    let mut sm_notify = Command::new(SM_NOTIFY)
        .args(["-d", "-f", "-m", "1", "-v", "nfs.example.test", "-P"])
        .arg(&exported)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert!(sm_notify.wait().unwrap().success());
    // Under the whole name and the short one.
    let mut names = Vec::new();
    for (name, sent) in told.try_iter() {
        assert!(sent > number.0 && sent % 2 == 1, "{sent} after {number:?}");
        names.push(name);
    }
    names.sort();
    names.dedup();
    assert_eq!(names, ["nfs", "nfs.example.test"]);
    assert_eq!(harness::names(&exported.join("sm.bak")), [""; 0], "the client answered");
}
