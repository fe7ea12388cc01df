//! Members whose disks are slow: strace holds each of their syncs up.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::cluster::{DEAD_AFTER, Pair, timed};

/// Longer than a heartbeat is waited for, and shorter than the members wait for their leader.
const DELAY: &str = "400ms";

/// Members that give their leader more time than usual. A tracer stops them at each call of the kernel: on a busy machine they would
/// elect another one all the time, which is no slow disk.
const PATIENT: [&str; 4] = ["--heartbeat-interval", "500", "--election-timeout", "10000"];

/// Holds up the syncs of a member until it is dropped.
struct SlowDisk {
    tracer: Child,
    seen: PathBuf,
}

impl SlowDisk {
    fn under(pair: &Pair, member: usize, folder: &Path) -> Self {
        let (process, seen) = (pair.stage.etcd.pid(member), folder.join(format!("seen-{member}")));
        let inject = format!("inject=fsync,fdatasync:delay_enter={DELAY}");
        let tracer = Command::new("strace")
            .args(["-f", "-qq", "-p", &process.to_string(), "-o"])
            .arg(&seen)
            .args(["-e", "trace=fsync,fdatasync", "-e", &inject])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let slow = Self { tracer, seen };
        pair.a.wait_for("a sync that is held up", |_| slow.holds_up().then_some(()));
        slow
    }

    /// Whether it has held one up.
    fn holds_up(&self) -> bool {
        fs::read_to_string(&self.seen).is_ok_and(|seen| seen.contains("(DELAYED)"))
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        // It lets go of the member when it is asked to end, and not when it is killed.
        let asked = Command::new("kill").arg(self.tracer.id().to_string()).status();
        assert!(asked.unwrap().success());
        self.tracer.wait().unwrap();
    }
}

#[test]
fn a_slow_disk_of_the_leader_costs_nothing_and_three_slow_disks_have_nobody_taken_for_dead() {
    let test =
        "slow_disk::a_slow_disk_of_the_leader_costs_nothing_and_three_slow_disks_have_nobody_taken_for_dead";
    if Command::new("strace").arg("--version").output().is_err() {
        return super::left_out::leave_out("strace");
    }
    let Some(mut pair) = Pair::with_options(test, &PATIENT) else { return };
    let folder = tempfile::tempdir().unwrap();
    let leader = pair.stage.etcd.leader();
    let mut slow = vec![SlowDisk::under(&pair, leader, folder.path())];
    timed("a slow disk of the leader: the next new client is durable after", || {
        pair.client_is_kept("127.2.0.1");
    });
    timed("and the heart beats after", || pair.heart_beats("nfs-a"));
    let others = (0..3).filter(|member| *member != leader);
    slow.extend(others.map(|member| SlowDisk::under(&pair, member, folder.path())));
    timed("three slow disks: the next new client is durable after", || pair.client_is_kept("127.2.0.2"));
    // For longer than a silence is watched after blindness.
    thread::sleep(DEAD_AFTER * 2 + Duration::from_secs(2));
    let status = pair.b.try_status().unwrap();
    eprintln!(
        "measured: three slow disks: the other server sees {}, and says {}",
        status["servers"], status["problems"]
    );
    pair.assert_nothing_was_adopted();
    drop(slow);
    Pair::store_is(&pair.a, true);
    Pair::store_is(&pair.b, true);
    pair.b.wait_until_it_hears_the_other();
    pair.wait_for_clients(1, &["127.1.0.1", "127.1.0.2", "127.2.0.1", "127.2.0.2"]);
    pair.assert_nothing_was_adopted();
    // The control: an owner that dies is taken for dead by the same servers.
    pair.a.kill();
    timed("an owner that dies: the claim of the other comes after", || {
        pair.b.wait_for("an adoption", |_| (pair.stage.claims() == ["1", "2"]).then_some(()));
    });
    assert!(pair.was_fenced());
}
