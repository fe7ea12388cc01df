//! Two agents and three members: members that die, a majority that is lost, and a server that is cut off or stopped while the other
//! one adopts from it.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::harness::Server;
use super::holder::Holder;
use super::members::program;
use super::network::Network;
use super::stage::Stage;
use super::{CLIENTS, expect, namespaces, told_once};

/// How long an owner is silent before the automatic standby takes it for dead.
pub(super) const DEAD_AFTER: Duration = Duration::from_secs(5);

/// The stage, where this test runs in namespaces of its own. A server that is named is on a switch beside a member of its own.
fn staged(test: &str, beside: Option<char>, options: &[&str]) -> Option<Stage> {
    let can = program().is_some();
    if !namespaces::is_inside(test, can, "root and etcd (Debian: etcd-server)") {
        return None;
    }
    if !super::certificates::can_be_made() {
        return None;
    }
    Stage::new(beside, options)
}

/// Runs something, and says how long it took. No test judges by it.
pub(super) fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = run();
    eprintln!("measured: {what}: {} ms", began.elapsed().as_millis());
    done
}

/// Both servers, of which the second one adopts from the first by itself.
pub(super) struct Pair {
    pub(super) stage: Stage,
    pub(super) a: Server,
    pub(super) b: Server,
    at_a: Network,
    at_b: Network,
}

impl Pair {
    /// Both are up, and the clients of the first are on record.
    pub(super) fn new(test: &str) -> Option<Self> {
        staged(test, None, &[]).map(Self::on)
    }

    /// The same, where one of them is on a switch beside a member of its own.
    pub(super) fn with_far(test: &str, beside: char) -> Option<Self> {
        staged(test, Some(beside), &[]).map(Self::on)
    }

    /// The same with members that have these options besides.
    pub(super) fn with_options(test: &str, options: &[&str]) -> Option<Self> {
        staged(test, None, options).map(Self::on)
    }

    fn on(stage: Stage) -> Self {
        let ((a, at_a), (b, at_b)) = (stage.server('a', 11), stage.server('b', 12));
        let mut pair = Self { stage, a, b, at_a, at_b };
        let fence = pair.b.path("fenced").display().to_string();
        pair.b.configure("home = \"nfs-a\"", "home = \"nfs-a\"\nmode = \"automatic\"");
        pair.b.configure(
            "[heartbeat]",
            &format!("[hooks]\nfence = [\"sh\", \"-c\", \"echo $HEIRLOCK_OWNER >> {fence}\"]\n[heartbeat]"),
        );
        let dead_after = format!("dead-after = \"{}s\"", DEAD_AFTER.as_secs());
        for server in [&pair.a, &pair.b] {
            server.configure("dead-after = \"3s\"", &dead_after);
        }
        pair.stage.up(&mut pair.a, 'a');
        pair.stage.up(&mut pair.b, 'b');
        pair.b.wait_until_it_hears_the_other();
        CLIENTS.iter().for_each(|client| pair.a.register(client));
        pair.wait_for_clients(1, &CLIENTS);
        pair
    }

    /// Waits until these are on record, and no others.
    pub(super) fn wait_for_clients(&self, generation: u64, clients: &[&str]) {
        self.a.wait_for("clients on record", |_| (self.stage.clients(generation) == clients).then_some(()));
    }

    /// A client takes its first lock at the first server, and is on record.
    pub(super) fn client_is_kept(&self, client: &str) {
        self.a.register(client);
        self.a.wait_for("a client on record", |_| {
            self.stage.clients(1).contains(&client.to_owned()).then_some(())
        });
    }

    /// Waits until a server's heartbeat changes in etcd.
    pub(super) fn heart_beats(&self, server: &str) {
        let before = self.stage.beats(server);
        self.a.wait_for("a heartbeat", |_| (self.stage.beats(server) > before).then_some(()));
    }

    /// Whether the second server had the first one switched off.
    pub(super) fn was_fenced(&self) -> bool {
        self.b.path("fenced").exists()
    }

    /// The first server has its service still, and was never taken for dead.
    #[track_caller]
    pub(super) fn assert_nothing_was_adopted(&self) {
        assert_eq!(self.stage.claims(), ["1"], "{}", self.b.log());
        assert!(!self.was_fenced(), "{}", self.b.log());
    }

    /// Waits until a server's agent itself says this of its store.
    pub(super) fn store_is(server: &Server, well: bool) {
        server.wait_for("word of the store", |server| {
            let status = server.try_status()?;
            (status["agent"] != "" && status["store"]["well"] == well).then_some(())
        });
    }
}

#[test]
fn a_member_or_a_leader_that_dies_or_is_silent_costs_no_client_and_no_living_server_its_service() {
    let test = "cluster::a_member_or_a_leader_that_dies_or_is_silent_costs_no_client_and_no_living_server_its_service";
    let Some(mut pair) = Pair::new(test) else { return };
    let cases = [
        ("a follower is killed", false, true),
        ("the leader is killed", true, true),
        ("the leader is stopped", true, false),
    ];
    for (number, (what, of_leader, is_killed)) in cases.into_iter().enumerate() {
        let leader = pair.stage.etcd.leader();
        let victim = if of_leader { leader } else { (leader + 1) % 3 };
        match is_killed {
            true => pair.stage.etcd.kill(victim),
            false => pair.stage.etcd.stop(victim, true),
        }
        timed(&format!("{what}: the next new client is durable after"), || {
            pair.client_is_kept(&format!("127.2.0.{number}"));
        });
        timed(&format!("{what}: and the heart beats after"), || pair.heart_beats("nfs-a"));
        match is_killed {
            true => pair.stage.etcd.restart(victim),
            false => pair.stage.etcd.stop(victim, false),
        }
        pair.stage.etcd.wait_for(victim);
    }
    pair.b.wait_until_it_hears_the_other();
    Pair::store_is(&pair.a, true);
    pair.wait_for_clients(1, &["127.1.0.1", "127.1.0.2", "127.2.0.0", "127.2.0.1", "127.2.0.2"]);
    pair.assert_nothing_was_adopted();
}

#[test]
fn while_no_majority_is_there_nobody_is_taken_for_dead_and_what_came_meanwhile_is_caught_up() {
    let test =
        "cluster::while_no_majority_is_there_nobody_is_taken_for_dead_and_what_came_meanwhile_is_caught_up";
    let Some(mut pair) = Pair::new(test) else { return };
    // One is gone, and one is silent: calls are refused, and calls hang.
    pair.stage.etcd.kill(0);
    pair.stage.etcd.stop(1, true);
    pair.a.register("127.2.0.1");
    timed("no majority: its owner says so after", || Pair::store_is(&pair.a, false));
    timed("no majority: and so does the other server after", || Pair::store_is(&pair.b, false));
    timed("no majority: a status takes", || expect(&pair.a, &["status"], 5));
    assert_eq!(pair.a.service("nfs").unwrap()["held"], true, "it serves on");
    expect(&pair.b, &["maintenance", "off"], 0);
    // For longer than a silent owner has: the standby sees nothing of it, and its own blindness is no silence.
    thread::sleep(DEAD_AFTER + Duration::from_secs(2));
    // The standby sees etcd again before the owner does: of that one it has seen nothing for all that time.
    pair.stage.cut('a');
    pair.stage.etcd.restart(0);
    pair.stage.etcd.stop(1, false);
    Pair::store_is(&pair.b, true);
    (0..3).for_each(|_| pair.heart_beats("nfs-b"));
    pair.stage.mend('a');
    timed("a majority is back: the client that came meanwhile is durable after", || {
        pair.wait_for_clients(1, &["127.1.0.1", "127.1.0.2", "127.2.0.1"]);
    });
    timed("and all is well after", || {
        Pair::store_is(&pair.a, true);
        Pair::store_is(&pair.b, true);
        pair.b.wait_until_it_hears_the_other();
    });
    pair.assert_nothing_was_adopted();
    for server in [&pair.a, &pair.b] {
        let said = server.log().lines().filter(|line| is_of_the_outage(line)).count();
        assert!((1..=LINES_MAX).contains(&said), "{said} lines: {}", server.log());
    }
    // The control: an owner that dies is taken for dead by the same servers.
    pair.a.kill();
    timed("an owner that dies: the claim of the other comes after", || {
        pair.b.wait_for("an adoption", |_| (pair.stage.claims() == ["1", "2"]).then_some(()));
    });
    assert!(pair.was_fenced());
}

/// Lines of an outage in the log. A server beats some forty times in it, and each heartbeat fails, and other calls beside them.
const LINES_MAX: usize = 20;

fn is_of_the_outage(line: &str) -> bool {
    line.contains(" the store fails") || line.contains("it counts as failed")
}

/// What the former owner says when it learns of it.
const OVERTAKEN: &str = "nfs-b has claimed it as generation 2; it is not this server's any more";

impl Pair {
    /// The second server has adopted, and told the clients that are there.
    pub(super) fn is_adopted(&self) {
        self.b.wait_for("clients that are told", |_| {
            CLIENTS.iter().all(|client| !self.at_b.told(client).is_empty()).then_some(())
        });
        self.b.wait_for("an adoption", |b| (b.service("nfs")?["held"] == true).then_some(()));
        assert_eq!(self.stage.claims(), ["1", "2"]);
        told_once(&self.at_b);
    }

    /// The first server, which can reach etcd from now on, says that it has lost the service. It has done nothing for it since.
    /// `before` is how many heartbeats of it etcd had taken.
    pub(super) fn gives_way(&mut self, before: u64) {
        let beats = timed("a former owner: from its next heartbeat until it says that it is one", || {
            let first = self
                .a
                .wait_for("a heartbeat", |_| Some(self.stage.beats("nfs-a")).filter(|beat| *beat > before));
            self.a.wait_for("word of the former owner", |a| a.log().contains(OVERTAKEN).then_some(()));
            self.stage.beats("nfs-a") - first
        });
        eprintln!(
            "measured: a former owner: heartbeats after that one until it had said so: {beats} of it in etcd"
        );
        assert!(beats <= BEATS_MAX, "{beats} heartbeats: {}", self.a.log());
        self.a.wait_for("a status without it", |a| (a.service("nfs")?["held"] == false).then_some(()));
        self.heart_beats("nfs-a");
        for client in CLIENTS {
            let told = self.at_a.told(client);
            assert!(told.is_empty(), "{client} was told by the former owner: {}", self.a.log());
        }
        assert_eq!(self.stage.claims(), ["1", "2"], "{}", self.a.log());
        for generation in [1, 2] {
            let kept = self.stage.clients(generation);
            assert!(!kept.contains(&MEANWHILE.to_owned()), "{generation}: the write of a former owner");
        }
    }
}

/// It knows it by the look that follows its next heartbeat. This test may look seconds later, on a machine that does much else.
const BEATS_MAX: u64 = 25;

/// A client that comes to a server that has lost its service, and does not know it.
pub(super) const MEANWHILE: &str = "127.2.0.2";

#[test]
fn a_server_that_is_cut_off_from_etcd_writes_nothing_once_another_one_has_adopted() {
    let test = "cluster::a_server_that_is_cut_off_from_etcd_writes_nothing_once_another_one_has_adopted";
    let Some(mut pair) = Pair::new(test) else { return };
    // The control: cut off for a while, and nobody adopts. What came meanwhile is written.
    pair.b.run(&["maintenance", "on"]);
    pair.stage.cut('a');
    pair.a.register("127.2.0.1");
    timed("cut off: it says so after", || Pair::store_is(&pair.a, false));
    pair.stage.mend('a');
    timed("reached again: the client that came meanwhile is durable after", || {
        pair.wait_for_clients(1, &["127.1.0.1", "127.1.0.2", "127.2.0.1"]);
    });
    Pair::store_is(&pair.a, true);
    pair.b.run(&["maintenance", "off"]);
    pair.b.wait_until_it_hears_the_other();
    pair.assert_nothing_was_adopted();
    // The same while the other one adopts. Its lock manager begins a new life meanwhile, whose clients it would have to tell.
    let before = pair.stage.beats("nfs-a");
    pair.stage.cut('a');
    pair.a.register(MEANWHILE);
    Pair::store_is(&pair.a, false);
    fs::write(pair.a.path("life"), "2\n").unwrap();
    timed("cut off: the other one has adopted, and told all, after", || pair.is_adopted());
    // Both think that they own it; etcd knows better.
    assert_eq!(pair.a.service("nfs").unwrap()["held"], true);
    assert_eq!(pair.b.service("nfs").unwrap()["held"], true);
    assert!(pair.was_fenced());
    pair.stage.mend('a');
    pair.gives_way(before);
}

#[test]
fn an_agent_that_was_stopped_while_another_one_adopted_does_nothing_and_says_so() {
    let test = "cluster::an_agent_that_was_stopped_while_another_one_adopted_does_nothing_and_says_so";
    let Some(mut pair) = Pair::new(test) else { return };
    let before = pair.stage.beats("nfs-a");
    pair.a.signal("STOP");
    // What it finds when it goes on: a client to keep, and clients to tell.
    pair.a.register(MEANWHILE);
    fs::write(pair.a.path("life"), "2\n").unwrap();
    timed("stopped: the other one has adopted, and told all, after", || pair.is_adopted());
    assert!(pair.was_fenced());
    pair.a.signal("CONT");
    pair.gives_way(before);
}

/// Its heart hangs, and all else of it goes on: it can't know that another server has the service, and etcd alone refuses.
#[test]
fn a_write_of_a_living_agent_that_does_not_know_that_it_is_overtaken_is_refused_by_etcd() {
    let test =
        "cluster::a_write_of_a_living_agent_that_does_not_know_that_it_is_overtaken_is_refused_by_etcd";
    if Command::new("strace").arg("--version").output().is_err() {
        return super::left_out::leave_out("strace");
    }
    let Some(mut pair) = Pair::new(test) else { return };
    let mut holder = None;
    // Where it was held while it looked at the claims, the heart has got another thread. On a busy machine it may also be held no
    // more before the other server has watched it for long enough; a thread that is traced still can't be held a second time.
    while !pair.was_fenced() {
        drop(holder.take());
        holder = Some(Holder::of(&pair.a, "heartbeat", "?sendto,?write,?connect"));
        let before = pair.stage.beats("nfs-a");
        pair.b.wait_for("a fence, or a heart that beats", |_| {
            (pair.was_fenced() || pair.stage.beats("nfs-a") > before + 1).then_some(())
        });
    }
    pair.is_adopted();
    assert!(!pair.a.log().contains(OVERTAKEN), "it does not know: {}", pair.a.log());
    pair.a.register(MEANWHILE);
    let refused = "the store refuses a change of a service that this server holds no more";
    pair.a.wait_for("a refusal", |a| {
        let kept = pair.stage.clients(1).contains(&MEANWHILE.to_owned());
        assert!(!kept, "the write of a former owner: {}", a.log());
        a.log().contains(refused).then_some(())
    });
    drop(holder);
    let before = pair.stage.beats("nfs-a");
    pair.gives_way(before);
}
