//! No failover at all: the server restarts NFS, or itself. Every lock is dropped and no client is told; heirlock
//! adopts from itself. On a second server without heirlock the same happens, and there the lock is lost.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::stage::RECLAIM_TIME_MAX;
use crate::capture::{EACH, MOSTLY_WATCH};
use crate::cluster::{
    CLIENT1, CLIENT2, Cluster, HOMES, NFS_A, NFS_B, Name, PROJECTS, RESTART_NFS, SETUP, Service,
    check_new_number,
};
use crate::grace::Grace;
use crate::release::Release;
use crate::scenario::{EVERYWHERE, Scenario};

/// NFS alone.
pub const RESTART_SERVER: Scenario = Scenario {
    name: "restart-server",
    about: "an administrator restarts NFS: the locks come back by self-adoption, and are lost without heirlock",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: MOSTLY_WATCH,
    run: restart,
};

/// The whole server.
pub const REBOOT_PRIMARY: Scenario = Scenario {
    name: "reboot-primary",
    about: "the server reboots: the locks come back by self-adoption, and are lost without heirlock, stock sm-notify or not",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: EACH,
    run: reboot,
};

/// lockd alone, by another program, while no agent runs. Newer kernels' lockd ignores the signal.
pub const LOCKD_KILLED: Scenario = Scenario {
    name: "lockd-killed",
    about: "lockd drops its locks in place while the agent is dead: the next agent sees it, and the locks come back",
    needs_heirlock: true,
    releases: &[Release::Bookworm],
    captures: MOSTLY_WATCH,
    run: kill_lockd,
};

/// SIGKILL to lockd, which heeds it at the next request.
const KILL_LOCKD: &str = "for status in /proc/[0-9]*/status; do
        grep -qsx 'Name:.lockd' $status && lockd=${status#/proc/} && kill -KILL ${lockd%/status}
    done; true";

/// How long lockd may take to heed a signal once it is asked something.
const LOCKD_WAKES_TIME_MAX: Duration = Duration::from_secs(5);

/// client1 holds a lock on each of two servers: nfs-a has heirlock, nfs-b has not.
fn begin(lab: &mut Cluster) -> Result<()> {
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1, CLIENT2])?;
    lab.serve(NFS_A, &HOMES)?;
    lab.serve(NFS_B, &PROJECTS)?;
    lab.end_grace(NFS_A)?;
    lab.end_grace(NFS_B)?;
    lab.protect(NFS_A, &SETUP)?;
    for service in [&HOMES, &PROJECTS] {
        lab.mount(CLIENT1, service)?;
        lab.mount(CLIENT2, service)?;
        lab.hold(CLIENT1, service, "f")?;
        lab.expect_denied(CLIENT2, service, "f")?;
    }
    lab.wait_until_protected(NFS_A, &HOMES, 2)
}

fn end(lab: &Cluster, generation: u64, number: u32) -> Result<()> {
    lab.wait_for_locks(NFS_A, 1, RECLAIM_TIME_MAX)?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    lab.wait_until_grace_is_over(&PROJECTS)?;
    lab.expect_locked(CLIENT2, &PROJECTS, "f")?; // as in `control`
    lab.wait_until_settled(NFS_A, HOMES.name, generation)?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    let report = lab.report(NFS_A, HOMES.name)?;
    // client2 was only refused: it is told, and has nothing to reclaim.
    ensure!(report.clients == 2 && report.acknowledged == 2 && report.lost == 0, "{report:?}");
    check_new_number(report.state_number, &[number])?;
    lab.let_go(CLIENT1, &HOMES, "f")?;
    lab.expect_locked(CLIENT2, &HOMES, "f")
}

fn generation(lab: &Cluster) -> Result<u64> {
    Ok(lab.status(NFS_A)?.of(&HOMES)?.generation.unwrap_or(0))
}

fn restart(lab: &mut Cluster) -> Result<()> {
    begin(lab)?;
    let (before, number) = (generation(lab)?, lab.state_number(NFS_A)?);
    lab.ok(NFS_A, RESTART_NFS)?;
    lab.ok(NFS_B, RESTART_NFS)?;
    lab.say("NFS is restarted on both servers");
    end(lab, before, number)
}

fn reboot(lab: &mut Cluster) -> Result<()> {
    begin(lab)?;
    let (before, number) = (generation(lab)?, lab.state_number(NFS_A)?);
    let kept = [(NFS_A, lab.records(NFS_A)?), (NFS_B, lab.records(NFS_B)?)];
    lab.power_loss(NFS_A)?;
    lab.power_loss(NFS_B)?;
    lab.switch_on(&[NFS_A, NFS_B])?;
    // A guest keeps nothing; the disk of a server would.
    for (server, records) in &kept {
        lab.restore_records(server, records)?;
    }
    // As the units have it: the agent before NFS, so that it sees grace open; sm-notify after NFS, where it is not
    // forbidden. It tells all clients from the server's own address, by which none mounts.
    lab.protect(NFS_A, &SETUP)?;
    lab.serve(NFS_A, &HOMES)?;
    lab.serve(NFS_B, &PROJECTS)?;
    lab.ok_within(NFS_B, "rm -f /run/sm-notify.pid; sm-notify", Duration::from_secs(10))?;
    end(lab, before, number)
}

fn kill_lockd(lab: &mut Cluster) -> Result<()> {
    begin(lab)?;
    let (before, number) = (generation(lab)?, lab.state_number(NFS_A)?);
    // The agent has seen by then that grace is closed.
    lab.wait_until(NFS_A, "grep -q closed-ms /run/heirlock/grace.json")?;
    kill_lockd_of(lab, NFS_B, &PROJECTS)?;
    lab.end_agent(NFS_A, "KILL")?;
    kill_lockd_of(lab, NFS_A, &HOMES)?;
    lab.start_agent(NFS_A)?;
    end(lab, before, number)
}

fn kill_lockd_of(lab: &Cluster, server: Name, service: &Service) -> Result<()> {
    lab.ok(server, KILL_LOCKD)?;
    lab.wait_for("grace", LOCKD_WAKES_TIME_MAX, || Ok((lab.grace(service)? == Grace::Open).then_some(())))?;
    lab.say(format!("{server}'s lockd has dropped its locks, and nothing was restarted"));
    Ok(())
}
