//! heirlock's status monitor goes away under a running lockd, in every way that there is. Its sockets stay, so lockd waits
//! for the next one: no lock is granted without a record, and no client waits much longer than it takes to start.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use heirlock_nsm::nlm::Nlm4Status;

use crate::busy::stretched;
use crate::capture::NSM_ALONE;
use crate::cluster::{CLIENT1, CLIENT2, Cluster, HOMES, NFS_A, SETUP};
use crate::crowd::Crowd;
use crate::rpc::{call_once, port_of, privileged_socket};
use crate::scenario::{EVERYWHERE, Scenario};

/// Killed, stopped, hung, upgraded, and rpcbind restarted.
pub const MONITOR_GONE: Scenario = Scenario {
    name: "monitor-gone",
    about: "heirlock's status monitor is killed, stopped, hung, upgraded, rpcbind restarted: no lock is granted without a record",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: NSM_ALONE,
    run: |lab| story(lab, &BY_SUPERVISOR),
};

/// The same where systemd holds the sockets.
pub const MONITOR_GONE_SYSTEMD: Scenario = Scenario {
    name: "monitor-gone-systemd",
    about: "the same under heirlock's units, which systemd runs: their sockets stay, and its watchdog ends the one that hangs",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: NSM_ALONE,
    run: |lab| {
        lab.under_systemd(NFS_A);
        story(lab, &BY_SYSTEMD)
    },
};

/// The commands on a server that systemd or `heirlock supervise` looks after.
struct Blows {
    /// Starts the agent that a package manager has just installed.
    upgraded: &'static str,
    /// rpcbind that remembers, as Debian's unit runs it.
    rpcbind_restarted: &'static str,
    /// The command that makes rpcbind forget.
    rpcbind_forgets: &'static str,
}

const BY_SUPERVISOR: Blows = Blows {
    upgraded: "kill -HUP $(cat /run/lab/agent.pid)",
    rpcbind_restarted: "kill $(pidof rpcbind); while pidof rpcbind; do sleep 0.02; done; rpcbind -w",
    rpcbind_forgets: "kill -KILL $(pidof rpcbind); while pidof rpcbind; do sleep 0.02; done; rpcbind",
};

const BY_SYSTEMD: Blows = Blows {
    upgraded: "systemctl restart heirlock.service",
    rpcbind_restarted: "systemctl restart rpcbind.service",
    rpcbind_forgets: "systemctl kill --signal=KILL rpcbind.service; rm -f /run/rpcbind/*.xdr
        while systemctl is-active --quiet rpcbind.service; do sleep 0.02; done; systemctl start rpcbind.service",
};

impl Blows {
    /// The blows to the status monitor, each with its name.
    fn on_the_monitor(&self) -> [(&'static str, String); 5] {
        // As a package manager does it: a new file takes the name, then the process that runs it is told.
        let upgraded = format!(
            "cp /usr/local/bin/heirlock /usr/local/bin/heirlock.new
             mv /usr/local/bin/heirlock.new /usr/local/bin/heirlock; {}",
            self.upgraded
        );
        [
            ("killed", "kill -KILL $agent".to_owned()),
            ("stopped in order", "kill -TERM $agent".to_owned()),
            ("hung", "kill -STOP $agent".to_owned()),
            ("upgraded", upgraded),
            ("killed once more", "kill -KILL $agent".to_owned()),
        ]
    }

    fn on_rpcbind(&self) -> [(&'static str, &'static str); 2] {
        [("rpcbind is restarted", self.rpcbind_restarted), ("rpcbind forgets", self.rpcbind_forgets)]
    }
}

/// How much longer than it must a process may wait.
const MARGIN: Duration = Duration::from_secs(1);

/// While no status monitor is registered, lockd looks again after so long (RPC_CALL's bind delay, net/sunrpc/clnt.c).
const LOCKD_LOOKS_AGAIN: Duration = Duration::from_secs(3);

/// How long the lab waits for an answer that should have come long ago.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(90);

/// How many clients there are: each blow needs some that are unknown.
const CLIENTS: usize = 32;

fn story(lab: &mut Cluster, blows: &Blows) -> Result<()> {
    lab.switch_on(&[NFS_A, CLIENT1, CLIENT2])?;
    lab.serve(NFS_A, &HOMES)?;
    lab.end_grace(NFS_A)?;
    lab.protect(NFS_A, &SETUP)?;
    lab.mount(CLIENT1, &HOMES)?;
    lab.mount(CLIENT2, &HOMES)?;
    lab.hold(CLIENT1, &HOMES, "f")?;
    let mut newcomers = 0..CLIENTS;
    let mut crowd = Crowd::gather(CLIENTS, HOMES.address, "/srv/homes", "g")?;
    let (took, _) =
        first_lock(lab, &mut crowd, newcomers.next().context("no client is left")?, Instant::now())?;
    lab.say(format!("a first lock takes {:.3} s", took.as_secs_f64()));

    for (what, blow) in blows.on_the_monitor() {
        let agent = lab.agent_pid(NFS_A)?;
        let command = format!("agent={agent}; {blow}");
        // One is in the middle of it, one comes right after.
        let during = newcomers.next().context("no client is left")?;
        crowd.begin(during)?;
        lab.ok(NFS_A, &command)?;
        let began = Instant::now();
        let after = newcomers.next().context("no client is left")?;
        crowd.begin(after)?;
        let back = when_another_answers(lab, &mut crowd, &agent)?;
        let first = crowd.answer(during, ANSWER_TIME_MAX)?;
        let second = crowd.answer(after, ANSWER_TIME_MAX)?;
        lab.say(format!(
            "{what}: back after {:.2} s; a client in the middle was told {:?} after {:.2} s, one that came then {:?} after {:.2} s",
            back.duration_since(began).as_secs_f64(),
            first.status,
            first.took.as_secs_f64(),
            second.status,
            second.took.as_secs_f64()
        ));
        for (client, answer) in [(during, first), (after, second)] {
            expect_recorded(lab, &crowd, client, answer.status)?;
            let late = answer.at.saturating_duration_since(back);
            ensure!(late < stretched(MARGIN), "{what}: a process waited {late:?} longer than it must");
        }
        // And it is as good as before.
        first_lock(lab, &mut crowd, newcomers.next().context("no client is left")?, began)?;
    }

    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    for (what, blow) in blows.on_rpcbind() {
        lab.ok(NFS_A, blow)?;
        let began = Instant::now();
        let (took, _) = first_lock(lab, &mut crowd, newcomers.next().context("no client is left")?, began)?;
        lab.say(format!("{what}: the next first lock takes {:.2} s", took.as_secs_f64()));
        ensure!(took < LOCKD_LOOKS_AGAIN + stretched(MARGIN), "{what}: a process waited {took:?}");
        lab.wait_until(
            NFS_A,
            "rpcinfo -p | grep -q ' 100024 .* udp ' && rpcinfo -p | grep -q ' 100024 .* tcp '",
        )?;
    }
    Ok(())
}

/// How long a client that was refused waits before it asks again.
const ASKS_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// A new client gets its first lock, and the store has its record. On a machine that does much else a commit may take longer than
/// `mon-timeout`. Then the client is refused, as it must be, and so is each client until the store was tried again: it asks again.
fn first_lock(
    lab: &Cluster,
    crowd: &mut Crowd,
    client: usize,
    since: Instant,
) -> Result<(Duration, Duration)> {
    let asked = Instant::now();
    loop {
        let answer = crowd.lock(client, ANSWER_TIME_MAX)?;
        expect_recorded(lab, crowd, client, answer.status)?;
        match answer.status {
            Nlm4Status::Granted => break,
            Nlm4Status::DeniedNoLocks if asked.elapsed() < ANSWER_TIME_MAX => {
                lab.say(format!(
                    "a new client is refused after {:.2} s, and asks again",
                    answer.took.as_secs_f64()
                ));
                thread::sleep(ASKS_AGAIN_AFTER);
            }
            _ => bail!("expected a lock for a new client, found {answer:?}"),
        }
    }
    Ok((asked.elapsed(), since.elapsed()))
}

/// I1: no lock is granted without a record.
fn expect_recorded(lab: &Cluster, crowd: &Crowd, client: usize, status: Nlm4Status) -> Result<()> {
    let known = lab.stored(&HOMES)?.contains_key(&crowd.address(client));
    ensure!(
        known || status != Nlm4Status::Granted,
        "{} was granted a lock, and the store does not know it",
        crowd.address(client)
    );
    Ok(())
}

/// When another agent than that one answers: asked beside lockd, at the same sockets.
fn when_another_answers(lab: &Cluster, crowd: &mut Crowd, agent: &str) -> Result<Instant> {
    let address = lab.address(NFS_A)?.parse()?;
    let port = port_of(&privileged_socket()?, address, 100_024, 1)?;
    lab.wait_for("another agent that answers", ANSWER_TIME_MAX, || {
        crowd.turn()?;
        let is_another = lab.agent_pid(NFS_A).is_ok_and(|found| found != agent);
        // A socket of its own each time: a late answer is none to another question.
        let answers = || call_once(&privileged_socket()?, address, port, [100_024, 1, 0], &[]);
        Ok((is_another && answers().is_ok()).then(Instant::now))
    })
}
