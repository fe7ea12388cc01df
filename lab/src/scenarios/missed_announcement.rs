//! A client that hears nothing when the address is announced, as one does whose cable is out, or whose switch does not forward yet.

use anyhow::{Result, ensure};

use super::stage::{RECLAIM_TIME_MAX, expect_both_back, expect_both_locks, let_both_go, stand_by, two_locks};
use crate::capture::MOSTLY_WATCH;
use crate::cluster::{CLIENT1, CLIENT2, Cluster, HOMES, NFS_A, NFS_B, SETUP};
use crate::scenario::{EVERYWHERE, Scenario};

/// It is cut off until the address was announced, and is told all the same.
pub const MISSED_ANNOUNCEMENT: Scenario = Scenario {
    name: "missed-announcement",
    about: "a client is cut off while the address is announced, and goes on answering to the dead server: the address is announced again, and it keeps its lock",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: MOSTLY_WATCH,
    run,
};

/// The announcement that belongs to the address is over: the kernel has given up each neighbour that was looked for by it. That of
/// the lab is looked for when the address is brought, those of heirlock when it sees the address.
const ANNOUNCED: &str = "[ \"$(ip neigh show dev vec0 | grep -c FAILED)\" -ge 2 ]";

fn run(lab: &mut Cluster) -> Result<()> {
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1, CLIENT2])?;
    // The cable is out for a good part of the usual grace period, and longer on a busy machine.
    lab.lengthen_grace();
    stand_by(lab, NFS_B, &SETUP)?;
    two_locks(lab, &SETUP)?;
    let number = lab.state_number(NFS_A)?;
    // A client that asks no server whether it still has an address, as systems other than Linux do for up to 20 minutes.
    lab.ok(CLIENT2, "sysctl -qw net.ipv4.neigh.vec0.delay_first_probe_time=86400")?;
    // And a server that knows where this client is, as after other talk with it: it does not ask, which would tell the client by
    // the way where the service's address is.
    let hardware = lab.ok(CLIENT2, "cat /sys/class/net/vec0/address")?;
    let known = format!("{} lladdr {} dev vec0 nud permanent", lab.address(CLIENT2)?, hardware.trim());
    lab.ok(NFS_B, &format!("ip neigh replace {known}"))?;
    lab.power_loss(NFS_A)?;
    lab.attach(NFS_B, &HOMES)?;
    lab.adopt(NFS_B, &HOMES, "--prepare --owner-fenced")?;
    lab.cable(CLIENT2, false)?;
    lab.address_up(NFS_B, &HOMES)?;
    lab.heirlock_in_background(NFS_B, "adopt homes --finish")?;
    lab.wait_for_locks(NFS_B, 1, RECLAIM_TIME_MAX)?;
    lab.wait_until(NFS_B, ANNOUNCED)?;
    let before = lab.report(NFS_B, HOMES.name)?;
    ensure!(before.phase == "notifying", "expected that client2 is still to be told, found {before:?}");

    lab.cable(CLIENT2, true)?;
    lab.wait_until_settled(NFS_B, HOMES.name, before.generation - 1)?;
    expect_both_back(&lab.report(NFS_B, HOMES.name)?, &HOMES, &[number])?;
    lab.end_grace(NFS_B)?;
    expect_both_locks(lab, NFS_B)?;
    let_both_go(lab)
}
