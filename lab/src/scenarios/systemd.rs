//! Servers that systemd runs, with heirlock's unit as it is shipped: the changes of `enable` to the units of Debian's
//! packages, and an adoption that restarts NFS as systemd does it.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::stage::{
    RECLAIM_TIME_MAX, expect_both_back, expect_both_locks, expect_lock_count, let_both_go, stand_by,
    two_locks,
};
use crate::capture::{Capture, EACH, MOSTLY_WATCH};
use crate::cluster::{CLIENT1, CLIENT2, Cluster, HOMES, NFS_A, NFS_B, Name, PROJECTS, SETUP, Setup};
use crate::grace::Grace;
use crate::scenario::{EVERYWHERE, Scenario};

/// Other programs that notify where systemd starts them.
pub const STOCK_RIVAL_SYSTEMD: Scenario = Scenario {
    name: "stock-rival-systemd",
    about: "systemd starts rpc-statd-notify.service with NFS, which ends grace; `enable` masks it, `disable` gives all back",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: MOSTLY_WATCH,
    run: stock_rival,
};

/// An adoption by the default command.
pub const CRASH_SYSTEMD: Scenario = Scenario {
    name: "crash-systemd",
    about: "the primary loses power; systemd runs the adoptive server and its agent, and its restart of NFS brings both locks back",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: EACH,
    run: crash,
};

/// The unit that notifies.
const NOTIFY: &str = "rpc-statd-notify.service";

/// NFS's own.
const NFS: &str = "nfs-server.service";

/// heirlock's.
const AGENT: &str = "heirlock.service";

/// The status monitor's sockets.
const SOCKET: &str = "heirlock.socket";

/// How long what sm-notify might do to a lock may take to show.
const AFTERMATH: Duration = Duration::from_secs(5);

fn stock_rival(lab: &mut Cluster) -> Result<()> {
    for server in [NFS_A, NFS_B] {
        lab.under_systemd(server);
    }
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1, CLIENT2])?;
    unguarded(lab)?;

    let before = host(lab, NFS_B)?;
    guarded(lab)?;
    given_back(lab, &before)
}

/// The harm: a notification was not asked for, and systemd starts it with NFS.
fn unguarded(lab: &Cluster) -> Result<()> {
    lab.serve(NFS_A, &HOMES)?;
    lab.wait_until(NFS_A, &format!("systemctl is-active --quiet {NOTIFY}"))?;
    ensure!(lab.grace(&HOMES)? == Grace::Over, "{NOTIFY} is expected to end grace, and did not");
    lab.say("on the unguarded host systemd started sm-notify with NFS, and grace is over");
    Ok(())
}

/// The same under guard, and once more when NFS is restarted while a client holds a lock.
fn guarded(lab: &Cluster) -> Result<()> {
    let setup = Setup { services: &[PROJECTS], home: Some(NFS_B), ..SETUP };
    lab.protect(NFS_B, &setup)?;
    expect_state(lab, NOTIFY, "masked")?;
    lab.serve(NFS_B, &PROJECTS)?;
    lab.wait_until_systemd_rests(NFS_B)?;
    ensure!(lab.grace(&PROJECTS)? == Grace::Open, "grace was ended on a guarded host");
    let started = lab.run(NFS_B, &format!("systemctl start {NOTIFY}"), RECLAIM_TIME_MAX)?;
    ensure!(started.output.contains("masked"), "expected {NOTIFY} to be refused, found {started:?}");
    ensure!(lab.grace(&PROJECTS)? == Grace::Open, "grace was ended on a guarded host");
    lab.say("on the guarded host grace is open");

    lab.end_grace(NFS_B)?;
    for client in [CLIENT1, CLIENT2] {
        lab.mount(client, &PROJECTS)?;
    }
    lab.hold(CLIENT1, &PROJECTS, "f")?;
    lab.expect_denied(CLIENT2, &PROJECTS, "f")?;
    lab.wait_until_protected(NFS_B, &PROJECTS, 2)?;
    let generation = lab.status(NFS_B)?.of(&PROJECTS)?.generation.unwrap_or(0);
    lab.ok(NFS_B, &format!("systemctl restart {NFS}"))?;
    lab.wait_until_systemd_rests(NFS_B)?;
    ensure!(lab.grace(&PROJECTS)? == Grace::Open, "grace was ended when NFS was restarted on a guarded host");
    lab.say("systemd restarted NFS, and grace is open");
    lab.wait_for_locks(NFS_B, 1, RECLAIM_TIME_MAX)?;
    lab.wait_until_settled(NFS_B, PROJECTS.name, generation)?;
    lab.wait_until_grace_is_over(&PROJECTS)?;
    lab.expect_denied(CLIENT2, &PROJECTS, "f")
}

/// `disable`, while a client holds a lock.
fn given_back(lab: &Cluster, before: &str) -> Result<()> {
    let nfs = lab.unit_property(NFS_B, NFS, "InvocationID")?;
    lab.heirlock_ok(NFS_B, "disable")?;
    let after = host(lab, NFS_B)?;
    ensure!(after == before, "`disable` must give the host back whole, found\n{before}\nand then\n{after}");
    ensure!(lab.unit_property(NFS_B, AGENT, "LoadState")? == "not-found", "heirlock's unit is still there");
    ensure!(
        lab.unit_property(NFS_B, "rpc-statd.service", "ActiveState")? == "active",
        "rpc.statd is not back"
    );
    ensure!(lab.unit_property(NFS_B, NFS, "InvocationID")? == nfs, "NFS must not be restarted");
    // rpc.statd names its files by a client's name, and reads ours by its address.
    let records = lab.records(NFS_B)?;
    for client in [CLIENT1, CLIENT2] {
        let address = format!(" {} ", lab.address(client)?);
        let known = records.values().filter(|record| record.contains(&address)).count();
        ensure!(known == 1, "expected one record of {client}, found {records:?}");
    }
    std::thread::sleep(AFTERMATH);
    expect_lock_count(lab, NFS_B, 1)?;
    lab.expect_denied(CLIENT2, &PROJECTS, "f")?;
    lab.say("the host is as before, with its clients' records and locks");

    // And sm-notify is let loose again, by what starts it on a host without heirlock.
    lab.let_go(CLIENT1, &PROJECTS, "f")?;
    lab.ok(NFS_B, &format!("systemctl restart {NFS}"))?;
    lab.wait_until(NFS_B, &format!("systemctl is-active --quiet {NOTIFY} && [ -e /run/sm-notify.pid ]"))
}

/// The parts of a host that `enable` and `disable` may change: files with their content, folders, and systemd's view of the
/// units.
fn host(lab: &Cluster, server: Name) -> Result<String> {
    const LOOK: &str = "cd / && find etc/systemd etc/nfs.conf etc/nfs.conf.d etc/tmpfiles.d run/sm-notify.pid usr/local/lib/heirlock \
             -printf '%p %y %m %u %l\n' -type f -exec md5sum {} ';' 2>/dev/null | sort
         for unit in rpc-statd-notify rpc-statd nfs-server rpcbind; do echo $unit $(systemctl is-enabled $unit); done";
    lab.ok(server, LOOK)
}

fn expect_state(lab: &Cluster, unit: &str, expected: &str) -> Result<()> {
    let state = lab.unit_property(NFS_B, unit, "LoadState")?;
    ensure!(state == expected, "expected {unit} to be {expected}, found {state}");
    Ok(())
}

/// heirlock's hooks move volume and address; systemd restarts NFS.
fn crash(lab: &mut Cluster) -> Result<()> {
    let setup = Setup { strategy: "restart-nfs", hooks: true, ..SETUP };
    lab.under_systemd(NFS_B);
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1, CLIENT2])?;
    stand_by(lab, NFS_B, &setup)?;
    two_locks(lab, &setup)?;
    let number = lab.state_number(NFS_A)?;
    kill_agent(lab)?;
    let nfs = lab.unit_property(NFS_B, NFS, "InvocationID")?;

    lab.power_loss(NFS_A)?;
    let report = lab.adopt(NFS_B, &HOMES, "--owner-fenced")?;
    expect_both_back(&report, &HOMES, &[number])?;
    ensure!(report.strategy == "restart-nfs", "{report:?}");
    ensure!(lab.unit_property(NFS_B, NFS, "InvocationID")? != nfs, "expected systemd to restart NFS");
    expect_both_locks(lab, NFS_B)?;
    let_both_go(lab)
}

/// An agent that dies is replaced.
fn kill_agent(lab: &Cluster) -> Result<()> {
    let killed = lab.agent_pid(NFS_B)?;
    lab.ok(NFS_B, &format!("kill -KILL {killed}"))?;
    lab.wait_for("another agent", RECLAIM_TIME_MAX, || {
        let now = lab.unit_property(NFS_B, AGENT, "MainPID")?;
        Ok((now != "0" && now != killed).then_some(()))
    })?;
    lab.wait_for_agent(NFS_B)?;
    if lab.capture() == Capture::Nsm {
        // By the port that systemd's socket names and no other: the agent has taken it over.
        lab.ok(
            NFS_B,
            &format!("systemctl is-active {SOCKET} && rpcinfo -p 127.0.0.1 | grep -w 100024 | grep -w 662"),
        )?;
    }
    lab.say("systemd has replaced the agent that was killed");
    Ok(())
}
