//! A server mounts from another, and heirlock is its status monitor: it does rpc.statd's work for the host's own locks,
//! even while the store is gone. Beside it a client whose status monitor died shows the harm to a client that isn't told.

use anyhow::{Result, ensure};

use super::stage::{RECLAIM_TIME_MAX, stand_by, without_store};
use crate::capture::NSM_ALONE;
use crate::cluster::{CLIENT1, CLIENT2, Cluster, HOMES, NFS_A, NFS_B, SETUP};
use crate::scenario::{EVERYWHERE, Scenario};

/// The other server reboots.
pub const OWN_MOUNTS: Scenario = Scenario {
    name: "own-mounts",
    about: "a server reboots that heirlock's host mounts from: heirlock is told, tells lockd, and the host reclaims its lock",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: NSM_ALONE,
    run,
};

fn run(lab: &mut Cluster) -> Result<()> {
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1, CLIENT2])?;
    lab.serve(NFS_A, &HOMES)?;
    lab.end_grace(NFS_A)?;
    stand_by(lab, NFS_B, &SETUP)?;
    for name in [NFS_B, CLIENT1, CLIENT2] {
        lab.mount(name, &HOMES)?;
    }

    // Whom a host mounts from is no client of its services: its record needs no store.
    without_store(lab, || lab.hold(NFS_B, &HOMES, "f"))?;

    lab.hold(CLIENT1, &HOMES, "g")?;
    lab.ok(CLIENT1, "kill -KILL $(cat /run/rpc.statd.pid)")?;
    lab.say("the status monitor of client1 died");
    // lockd sends with its locks the number that its status monitor says.
    let number = lab.state_number(NFS_B)?;
    let known = lab.ok(NFS_B, "cat /proc/sys/fs/nfs/nsm_local_state")?;
    ensure!(known.trim() == number.to_string(), "expected lockd to know the number {number}, found {known}");

    let records = lab.records(NFS_A)?;
    ensure!(records.len() == 2, "expected the records of two clients, found {records:?}");
    lab.power_loss(NFS_A)?;
    lab.switch_on(&[NFS_A])?;
    // A guest keeps nothing; the disk of a server would.
    lab.restore_records(NFS_A, &records)?;
    lab.serve(NFS_A, &HOMES)?;
    lab.ok(NFS_A, &format!("rm -f /run/sm-notify.pid; sm-notify -v {}", HOMES.address))?;
    lab.wait_for_locks(NFS_A, 1, RECLAIM_TIME_MAX)?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    lab.wait_until_grace_is_over(&HOMES)?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    lab.expect_locked(CLIENT2, &HOMES, "g")?; // as in `control`
    lab.let_go(NFS_B, &HOMES, "f")?;
    lab.expect_locked(CLIENT2, &HOMES, "f")
}
