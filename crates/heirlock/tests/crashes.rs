//! The real agent, killed at every step of its work: the store is looked at as the kill left it, the next agent
//! finishes the work, and the store is looked at again.
//!
//! `./test` tries some of the steps and `./test --full` all; without strace there is no test, so by itself none is run:
//! `cargo nextest run -p heirlock --test crashes --run-ignored all`.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the report")]

#[path = "agent/harness.rs"]
#[expect(dead_code, reason = "the tests of the agent as a whole use the rest")]
mod harness;
mod left_out;
mod namespaces;
#[path = "crashes/network.rs"]
mod network;
#[path = "crashes/steps.rs"]
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use harness::{Server, Site, line, names};
use heirlock_nsm::rpc::{Credential, Reply, encode_call};
use heirlock_nsm::sm::{self, MonArgs, MonId, MyId, Procedure, StatResult};
use network::Network;
use steps::{Killer, LINK, MKDIR, RENAME, SEND, SYNC, UNLINK, at_every_step};

const CLIENTS: [&str; 3] = ["127.1.0.1", "127.1.0.2", "127.1.0.3"];

/// Waits until it is so, or the agent is killed; `false` where it is.
fn wait_unless_killed(
    server: &mut Server,
    killer: &Killer,
    what: &str,
    there: impl Fn(&Server) -> bool,
) -> bool {
    let lives = server.wait_for_mut(what, |server| match (server.lives(), there(server)) {
        (false, _) => Some(false),
        (true, there) => there.then_some(true),
    });
    if !lives {
        killer.has_struck();
    }
    lives
}

/// Starts an agent that is to be killed; `false` where that happened before it served.
fn up_unless_killed(server: &mut Server, killer: &Killer) -> bool {
    server.start_by(&killer.runner());
    wait_unless_killed(server, killer, "an agent that answers, or a kill", Server::serves)
}

/// Where the newest generation of a service lies, and its number.
fn newest(site: &Site, service: &str) -> (u64, PathBuf) {
    let folder = site.store().join("services").join(service);
    let newest = names(&folder).iter().filter_map(|name| name.parse().ok()).max().unwrap();
    (newest, folder.join(newest.to_string()))
}

/// The records of the newest generation. Hidden files are unfinished, and are not read.
fn records(site: &Site, service: &str) -> BTreeMap<String, String> {
    let sm = newest(site, service).1.join("sm");
    let found = names(&sm).into_iter().filter(|name| !name.starts_with('.'));
    found.map(|name| (name.clone(), fs::read_to_string(sm.join(name)).unwrap())).collect()
}

/// The claims of a service, oldest first: one a generation, without a gap.
fn claims(site: &Site, service: &str) -> Vec<u64> {
    let found = names(&site.store().join("services").join(service).join("claims"));
    let mut numbers: Vec<u64> = found.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    let whole = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
    assert!(whole && numbers.last() >= Some(&newest(site, service).0), "{found:?}");
    numbers
}

/// A site whose service has these clients, and whose primary is dead.
fn captured(clients: &[&str]) -> (Site, Server) {
    let site = Site::new();
    let mut a = site.server("a", "nfs-a");
    a.up();
    for client in clients {
        a.register(client);
    }
    a.wait_until_captured("nfs", clients.len() as u64);
    a.kill();
    (site, a)
}

fn line_with_cookie(client: &str, cookie: u32) -> String {
    format!("0100007f 000186b5 00000003 00000010 {cookie:032x} {client} nfs-a\n")
}

#[test]
#[ignore = "needs strace: ./test runs it"]
fn an_agent_that_is_killed_at_any_step_of_a_capture_has_every_record_afterwards() {
    at_every_step(&[SYNC, RENAME, UNLINK], (4, 4), |killer| {
        let (site, mut a) = captured(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        a.configure("[lock-manager]", "[capture]\ntombstone-delay = \"500ms\"\n[lock-manager]");
        let before = records(&site, "nfs");
        let changed = line_with_cookie("10.0.0.1", 7);
        let expected = BTreeMap::from([
            ("10.0.0.1".to_owned(), changed.clone()),
            ("10.0.0.3".to_owned(), line("10.0.0.3")),
            ("10.0.0.4".to_owned(), line("10.0.0.4")),
        ]);
        if up_unless_killed(&mut a, killer) {
            // A look that finds the last one saw all in this life: only then is a deletion believed.
            let serving = |a: &Server| a.try_status().is_some_and(|s| s["lock_manager"]["serving"] == true);
            let looked = wait_unless_killed(&mut a, killer, "a lock manager", serving) && {
                a.register("10.0.0.4");
                let found = |_: &Server| records(&site, "nfs").contains_key("10.0.0.4");
                wait_unless_killed(&mut a, killer, "a look", found)
            };
            if looked {
                fs::write(a.path("sm/10.0.0.1"), &changed).unwrap();
                fs::remove_file(a.path("sm/10.0.0.2")).unwrap();
                wait_unless_killed(&mut a, killer, "all of it", |_| records(&site, "nfs") == expected);
            }
        }
        a.kill();
        // As the kill left it: each record is one that there was, to the byte, and a client that is there was never gone.
        for (client, text) in records(&site, "nfs") {
            let known = [before.get(&client), expected.get(&client)];
            assert!(known.contains(&Some(&text)), "{client}: {text:?}");
        }
        let kept = records(&site, "nfs");
        assert!(["10.0.0.1", "10.0.0.3"].iter().all(|client| kept.contains_key(*client)), "{kept:?}");
        a.up();
        a.wait_for("what is there", |_| {
            let mut found = records(&site, "nfs");
            // The agent that runs did not see it go, so it may be kept.
            found.remove("10.0.0.2");
            let there: BTreeMap<_, _> = names(&a.path("sm"))
                .into_iter()
                .map(|name| (name.clone(), fs::read_to_string(a.path("sm").join(name)).unwrap()))
                .filter(|(name, _)| name != "10.0.0.2")
                .collect();
            (found == there).then_some(())
        });
        assert_eq!(claims(&site, "nfs"), [1], "nothing was adopted");
    });
}

/// A second server, to which the clients come back, and the network that it speaks to.
fn adoptive(site: &Site) -> (Server, Network) {
    let b = site.server("b", "nfs-b");
    let network = adopts(&b, "nfs-b");
    (b, network)
}

/// Makes a server one that the clients come back to.
fn adopts(server: &Server, name: &'static str) -> Network {
    let network = Network::new(&CLIENTS, name, server.path(""));
    let life = server.path("life").display().to_string();
    let port = format!("rpcbind-port = {}\nprivileged-port = false", network.rpcbind_port);
    server.configure("rpcbind-port = 9", &port);
    let recognise = format!("recognise = [\"cp\", \"/proc/sys/kernel/random/uuid\", \"{life}\"]");
    server.configure("recognise = [\"true\"]", &recognise);
    server.configure("grace-period = \"20s\"", "grace-period = \"6s\"\nsettle-margin = \"1s\"");
    network
}

/// Every client was told, under numbers that rise and belong to one life each, and the last is that of the newest
/// generation, which is whole: records, journal and claims.
fn check_adoption(site: &Site, b: &Server, network: &Network) {
    let status = b.service("nfs").unwrap();
    assert_eq!(
        (status["phase"].as_str(), status["held"].as_bool()),
        (Some("settled"), Some(true)),
        "{status}"
    );
    let number = u32::try_from(status["state_number"].as_u64().unwrap()).unwrap();
    let mut lives: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for client in CLIENTS {
        let told = network.told(client);
        assert_eq!(told.last().map(|told| told.state), Some(number), "{client}: {told:?}");
        assert!(told.iter().all(|told| told.state % 2 == 1 && told.state > 5), "{client}: {told:?}");
        assert!(told.windows(2).all(|pair| pair[0].state <= pair[1].state), "{client}: {told:?}");
        for told in told {
            lives.entry(told.state).or_default().insert(told.life);
        }
    }
    assert!(
        lives.values().all(|lives| lives.len() == 1),
        "a number crossed from one life to another: {lives:?}"
    );
    let (generation, folder) = newest(site, "nfs");
    assert_eq!(status["generation"].as_u64(), Some(generation));
    assert_eq!(claims(site, "nfs").last(), Some(&generation), "the newest claim is begun");
    assert_eq!(records(site, "nfs").into_keys().collect::<Vec<_>>(), CLIENTS);
    let journal: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("journal.json")).unwrap()).unwrap();
    assert_eq!(journal["phase"], "settled", "{journal}");
    assert_eq!(journal["life"]["start"], fs::read_to_string(b.path("life")).unwrap().trim(), "{journal}");
    // An agent that begins takes away what an earlier one has left, beside all else.
    b.wait_for("a directory without conveyed records", |b| {
        let is_own = |client| {
            let registered = fs::read_to_string(b.path("sm").join(client)).ok()?;
            registered.lines().all(|line| line.ends_with(network.server)).then_some(())
        };
        CLIENTS.into_iter().try_for_each(is_own)
    });
}

/// How often a verb is said that a busy store keeps waiting.
const TRIES_MAX: usize = 100;

/// Says a verb. A machine that is busy may keep the store waiting, as a slow disk does: then nothing was changed, and the verb is
/// said again.
fn ask(server: &Server, verb: &[&str]) -> Output {
    let is_kept_waiting = |output: &Output| {
        output.status.code() == Some(3)
            && String::from_utf8_lossy(&output.stderr).contains("takes longer than")
    };
    let mut answer = server.run(verb);
    for _ in 0..TRIES_MAX {
        if !is_kept_waiting(&answer) {
            break;
        }
        answer = server.run(verb);
    }
    answer
}

/// An interrupted adoption goes on by itself, and `adopt` waits for its end; one that was not begun is asked for.
fn adopt_to_the_end(b: &Server) {
    let adopted = ask(b, &["adopt", "nfs", "--owner-fenced"]);
    let log = || fs::read_to_string(b.path("log")).unwrap();
    assert_eq!(adopted.status.code(), Some(0), "{adopted:?}\n{}", log());
}

fn adoption(kinds: &[&'static str], sample: (usize, usize)) {
    adoption_by(kinds, sample, |_| ());
}

/// NFS is restarted, so that records are placed beside recognition and telling.
fn restarts_nfs(server: &Server) {
    server.configure("strategy = \"command\"", "strategy = \"restart-nfs\"");
    server.configure("\nrecognise = ", "\nrestart-nfs = ");
}

fn adoption_by(kinds: &[&'static str], sample: (usize, usize), configure: fn(&Server)) {
    at_every_step(kinds, sample, |killer| {
        let (site, _a) = captured(&CLIENTS);
        let (mut b, network) = adoptive(&site);
        configure(&b);
        if up_unless_killed(&mut b, killer) {
            let adopted = ask(&b, &["adopt", "nfs", "--owner-fenced"]);
            // Where it failed there was a kill.
            let done = adopted.status.code() == Some(0);
            wait_unless_killed(&mut b, killer, &format!("an end: {adopted:?}"), |_| done);
        }
        b.kill();
        b.up();
        adopt_to_the_end(&b);
        check_adoption(&site, &b, &network);
    });
}

#[test]
#[ignore = "needs strace: ./test runs it"]
fn adoption_between_its_syncs() {
    adoption(&[SYNC], (10, 5));
}

#[test]
#[ignore = "needs strace: ./test runs it"]
fn adoption_between_its_changes() {
    adoption(&[RENAME, LINK, UNLINK, MKDIR], (10, 5));
}

#[test]
#[ignore = "needs strace: ./test runs it"]
fn adoption_that_places_records_beside_recognition_between_its_syncs_and_changes() {
    adoption_by(&[SYNC, RENAME, UNLINK], (10, 5), restarts_nfs);
}

#[test]
#[ignore = "needs strace: ./test runs it"]
fn adoption_between_its_datagrams() {
    adoption(&[SEND], (2, 1));
}

#[test]
#[ignore = "needs strace: ./test runs it"]
fn a_self_adoption_that_makes_way_is_finished_after_a_kill_at_any_step() {
    at_every_step(&[SYNC, RENAME], (1, 2), |killer| {
        let (site, mut a) = captured(&CLIENTS);
        let (mut b, network) = adoptive(&site);
        b.up();
        let began = up_unless_killed(&mut a, killer);
        adopt_to_the_end(&b);
        if began {
            wait_unless_killed(&mut a, killer, "an owner that gave way", gave_way);
        }
        a.kill();
        a.up();
        a.wait_for("an owner that gave way", |a| gave_way(a).then_some(()));
        // Its life goes on, and nothing of it comes into what is another's.
        a.register("10.0.0.9");
        a.wait_for("its own record", |_| records(&site, "host.nfs-a").contains_key("10.0.0.9").then_some(()));
        check_adoption(&site, &b, &network);
    });
}

fn gave_way(server: &Server) -> bool {
    server.service("nfs").is_some_and(|status| status["held"] == false && status["owner"] == "nfs-b")
}

/// An address that no server has: as if it had been taken away.
const GONE: &str = "192.0.2.77";

#[test]
#[ignore = "needs strace: ./test runs it"]
fn release() {
    at_every_step(&[SYNC, RENAME, LINK, UNLINK], (3, 3), |killer| {
        let (site, mut a) = captured(&CLIENTS);
        a.configure("\"127.0.0.1\"", &format!("\"{GONE}\""));
        let before = records(&site, "nfs");
        if up_unless_killed(&mut a, killer) {
            let released = ask(&a, &["release", "nfs"]);
            let done = released.status.code() == Some(0);
            wait_unless_killed(&mut a, killer, &format!("an end: {released:?}"), |_| done);
        }
        a.kill();
        a.up();
        // A service that was not released is, and one that was is not held any more.
        let released = ask(&a, &["release", "nfs"]);
        assert!(matches!(released.status.code(), Some(0 | 3)), "{released:?}");
        let mut claims = names(&site.store().join("services/nfs/claims"));
        claims.retain(|name| !name.starts_with('.'));
        assert_eq!(claims, ["1", "1.released"]);
        assert_eq!(records(&site, "nfs"), before);
        // And a server that takes it needs no word for its owner's end.
        let (mut b, network) = adoptive(&site);
        b.up();
        let adopted = ask(&b, &["adopt", "nfs"]);
        assert_eq!(adopted.status.code(), Some(0), "{adopted:?}");
        check_adoption(&site, &b, &network);
    });
}

/// Whether this host has that address.
fn is_here(address: &str) -> bool {
    let shown = Command::new("ip").args(["-o", "address", "show"]).output().unwrap();
    String::from_utf8_lossy(&shown.stdout).contains(&format!(" {address}/"))
}

fn ip(words: &[&str]) {
    assert!(Command::new("ip").args(words).status().unwrap().success(), "{words:?}");
}

#[test]
#[ignore = "needs strace and root: ./test runs it"]
fn a_release_that_is_killed_at_any_step_leaves_a_service_with_its_address_or_without_an_owner() {
    const TEST: &str =
        "a_release_that_is_killed_at_any_step_leaves_a_service_with_its_address_or_without_an_owner";
    if !namespaces::is_inside(TEST, true, "root, for a network namespace with an address of its own") {
        return;
    }
    ip(&["link", "set", "lo", "up"]);
    // An agent whose address is here waits as long as the hook of the one before may run.
    let word = |what: &str| {
        let command = format!("[\"ip\", \"address\", \"{what}\", \"{GONE}/32\", \"dev\", \"lo\"]");
        format!("{{ command = {command}, time-limit = \"5s\" }}")
    };
    let hooks = format!("[hooks]\naddress-up = {}\naddress-down = {}\n", word("replace"), word("delete"));
    let (mut brought_back, mut released) = (0, 0);
    at_every_step(&[SYNC, RENAME, LINK, UNLINK], (1, 6), |killer| {
        let (site, mut a) = captured(&CLIENTS);
        a.configure("\"127.0.0.1\"", &format!("\"{GONE}\""));
        a.configure("[notify]", &format!("{hooks}[notify]"));
        ip(&["address", "replace", &format!("{GONE}/32"), "dev", "lo"]);
        let before = records(&site, "nfs");
        if up_unless_killed(&mut a, killer) {
            let answer = ask(&a, &["release", "nfs"]);
            let done = answer.status.code() == Some(0);
            wait_unless_killed(&mut a, killer, &format!("an end: {answer:?}"), |_| done);
        }
        a.kill();
        let was_here = is_here(GONE);
        a.up();
        let is_released = names(&site.store().join("services/nfs/claims")).contains(&"1.released".to_owned());
        a.wait_for("an end of the note", |a| {
            let note = fs::read_to_string(a.path("local/addresses-taken-away.json"));
            note.map_or(true, |note| note == "{}").then_some(())
        });
        assert_eq!(is_here(GONE), !is_released, "was here: {was_here}");
        assert_eq!(a.service("nfs").unwrap()["held"], !is_released);
        assert_eq!((records(&site, "nfs"), claims(&site, "nfs")), (before, vec![1]), "no run was begun");
        brought_back += usize::from(!was_here && !is_released);
        released += usize::from(is_released);
    });
    assert!(brought_back > 0 && released > 0, "{brought_back} came back, {released} were released");
}

/// The service was taken over, and its home asks for it.
fn failback(kinds: &[&'static str], sample: (usize, usize), kill_the_home: bool) {
    at_every_step(kinds, sample, |killer| {
        let (site, mut a) = captured(&CLIENTS);
        let (mut b, network) = adoptive(&site);
        b.up();
        adopt_to_the_end(&b);
        b.kill();
        drop(network);
        b.configure("\"127.0.0.1\"", &format!("\"{GONE}\""));
        let network = adopts(&a, "nfs-a");
        let began = match kill_the_home {
            true => {
                b.up();
                up_unless_killed(&mut a, killer)
            }
            false => {
                a.up();
                up_unless_killed(&mut b, killer)
            }
        };
        if began && kill_the_home {
            let done = ask(&a, &["failback", "nfs"]).status.code() == Some(0);
            wait_unless_killed(&mut a, killer, "an end", |_| done);
        } else if began {
            let mut asked = a.command(&["failback", "nfs"]).spawn().unwrap();
            let ended = std::cell::RefCell::new(&mut asked);
            let done = |_: &Server| ended.borrow_mut().try_wait().unwrap().is_some();
            wait_unless_killed(&mut b, killer, "an end", done);
            // The verb waits until the next agent gives it up.
            let restarted = if b.lives() {
                false
            } else {
                b.kill();
                b.up();
                true
            };
            assert!(asked.wait().unwrap().success(), "restarted: {restarted}");
        }
        // Also an agent that was not killed yet: a later heartbeat would be the step that kills.
        for server in [&mut a, &mut b] {
            server.kill();
            server.up();
        }
        let home = ask(&a, &["failback", "nfs"]);
        assert_eq!(home.status.code(), Some(0), "{home:?}");
        a.wait_for("its end", |a| (a.service("nfs")?["phase"] == "settled").then_some(()));
        check_adoption(&site, &a, &network);
        b.wait_for("an owner that gave it up", |b| (b.service("nfs")?["held"] == false).then_some(()));
    });
}

#[test]
#[ignore = "needs strace: ./test runs it"]
fn failback_whose_home_is_killed() {
    failback(&[SYNC, RENAME, LINK], (20, 4), true);
}

#[test]
#[ignore = "needs strace: ./test runs it"]
fn failback_whose_owner_is_killed() {
    failback(&[SYNC, RENAME, LINK], (4, 3), false);
}

/// SM_MON, as lockd asks; whether it was granted.
fn mon(port: u16, client: &str) -> bool {
    let my_id = MyId { my_name: "nfs-a", prog: 100_021, vers: 3, proc_: 16 };
    let args = MonArgs { mon_id: MonId { mon_name: client, my_id }, cookie: [7; 16] };
    let call =
        encode_call(9, sm::PROGRAM, sm::VERSION, Procedure::Mon as u32, &Credential::None, &args.encode());
    // As lockd, the only program that asks for it.
    let mut ports = (700..1000).rev();
    let socket = ports.find_map(|port| UdpSocket::bind(("127.0.0.1", port)).ok()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket.send_to(&call, ("127.0.0.1", port)).unwrap();
    let mut buffer = [0; 512];
    // No answer is no grant: the agent may have been killed.
    let Ok((count, _)) = socket.recv_from(&mut buffer) else { return false };
    let reply = Reply::decode(&buffer[..count]).unwrap();
    StatResult::decode(reply.outcome.unwrap()).unwrap().ok
}

#[test]
#[ignore = "needs strace: ./test runs it"]
fn registration() {
    if !rustix::process::geteuid().is_root() {
        return left_out::leave_out("root, for the privileged ports that lockd asks from");
    }
    at_every_step(&[SYNC, RENAME], (12, 3), |killer| {
        let site = Site::new();
        let mut a = site.server("a", "nfs-a");
        let port = UdpSocket::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        a.configure("[lock-manager]", &format!("[capture]\nmode = \"nsm\"\nport = {port}\n[lock-manager]"));
        a.up();
        a.kill();
        let clients: Vec<String> = (1..=6).map(|i| format!("10.0.0.{i}")).collect();
        let mut granted = Vec::new();
        if up_unless_killed(&mut a, killer) {
            for client in &clients {
                if !wait_unless_killed(&mut a, killer, "a grant", |_| mon(port, client)) {
                    break;
                }
                granted.push(client);
            }
        }
        a.kill();
        let all_there = || {
            for service in ["nfs", "host.nfs-a"] {
                let records = records(&site, service);
                for client in &granted {
                    let record =
                        records.get(*client).unwrap_or_else(|| panic!("{client} was granted: {records:?}"));
                    assert!(record.ends_with(&format!("{client} nfs-a\n")), "{record:?}");
                }
            }
        };
        all_there();
        a.up();
        for client in &clients {
            a.wait_for("a grant", |_| mon(port, client).then_some(()));
        }
        all_there();
        assert_eq!(records(&site, "nfs").into_keys().collect::<Vec<_>>(), clients);
    });
}
