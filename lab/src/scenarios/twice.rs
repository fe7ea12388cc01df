//! Faults in the middle of an adoption, and the failover after it.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::stage::{RECLAIM_TIME_MAX, expect_both_back, expect_both_locks, let_both_go, stand_by, two_locks};
use crate::capture::MOSTLY_WATCH;
use crate::cluster::{
    CLIENT1, CLIENT2, Cluster, HOMES, NFS_A, NFS_B, NFS_C, Name, SETUP, Setup, check_new_number,
};
use crate::grace::Grace;
use crate::limits::ADOPTION_TIME_MAX;
use crate::scenario::{EVERYWHERE, Scenario};

/// The adoptive server dies as well.
pub const DOUBLE: Scenario = Scenario {
    name: "double",
    about: "the adoptive server loses power when one of two clients was told: a third one finishes, under a new number",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: MOSTLY_WATCH,
    run: double,
};

/// The notification would come too late.
pub const LATE: Scenario = Scenario {
    name: "late",
    about: "a kill delays the notification past grace: it is not sent, the client is lost, and the next failover serves it",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: MOSTLY_WATCH,
    run: late,
};

fn double(lab: &mut Cluster) -> Result<()> {
    lab.switch_on(&[NFS_A, NFS_B, NFS_C, CLIENT1, CLIENT2])?;
    stand_by(lab, NFS_B, &SETUP)?;
    stand_by(lab, NFS_C, &SETUP)?;
    two_locks(lab, &SETUP)?;
    let number = lab.state_number(NFS_A)?;

    lab.power_loss(NFS_A)?;
    lab.attach(NFS_B, &HOMES)?;
    let prepared = lab.adopt(NFS_B, &HOMES, "--prepare --owner-fenced")?;
    check_new_number(prepared.state_number, &[number])?;
    lab.cable(CLIENT2, false)?;
    lab.address_up(NFS_B, &HOMES)?;
    lab.heirlock_in_background(NFS_B, "adopt homes --finish")?;
    lab.wait_for_locks(NFS_B, 1, RECLAIM_TIME_MAX)?; // client1 was told and is back, client2 was not
    let midway = lab.report(NFS_B, HOMES.name)?;
    ensure!(
        midway.phase == "notifying" && midway.acknowledged == 1,
        "expected one of two told, found {midway:?}"
    );
    lab.ok(NFS_B, "sync")?;
    lab.power_loss(NFS_B)?;
    lab.cable(CLIENT2, true)?;

    lab.attach(NFS_C, &HOMES)?;
    let again = lab.adopt(NFS_C, &HOMES, "--prepare --owner-fenced")?;
    ensure!(again.generation > prepared.generation, "{again:?}");
    lab.address_up(NFS_C, &HOMES)?;
    let report = lab.adopt(NFS_C, &HOMES, "--finish")?;
    expect_both_back(&report, &HOMES, &[number, prepared.state_number])?;
    expect_both_locks(lab, NFS_C)?;
    let_both_go(lab)
}

fn late(lab: &mut Cluster) -> Result<()> {
    // A client that was not told in time must be remembered longer than a tombstone.
    let setup = Setup { tombstone_delay: "2s", ..SETUP };
    lab.switch_on(&[NFS_A, NFS_B, NFS_C, CLIENT1, CLIENT2])?;
    stand_by(lab, NFS_B, &setup)?;
    stand_by(lab, NFS_C, &setup)?;
    two_locks(lab, &setup)?;
    let number = lab.state_number(NFS_A)?;

    lab.power_loss(NFS_A)?;
    lab.attach(NFS_B, &HOMES)?;
    let prepared = lab.adopt(NFS_B, &HOMES, "--prepare --owner-fenced")?;
    lab.end_agent(NFS_B, "KILL")?;
    let heard = [datagrams(lab, CLIENT1)?, datagrams(lab, CLIENT2)?];
    lab.address_up(NFS_B, &HOMES)?;
    lab.wait_until_grace_is_over(&HOMES)?;
    lab.start_agent(NFS_B)?;
    let lost = lab.wait_for("a report of two lost clients", ADOPTION_TIME_MAX, || {
        let report = lab.report(NFS_B, HOMES.name)?;
        Ok((report.lost == 2).then_some(report))
    })?;
    ensure!(lost.acknowledged == 0 && lost.failed.iter().all(|missed| missed.outcome == "lost"), "{lost:?}");
    let status = lab.status(NFS_B)?;
    ensure!(status.says("clients-lost"), "I8, nothing is silent: {status:?}");
    for (client, before) in [CLIENT1, CLIENT2].into_iter().zip(heard) {
        ensure!(datagrams(lab, client)? == before, "{client} was told after grace");
        lab.ok(client, "! dmesg | grep -q 'spurious grace period'")?;
    }
    ensure!(lab.locks(NFS_B)? == 0, "no client was told, so none can have reclaimed");

    // Longer than a tombstone waits, with a look at the directory in between.
    lab.ok(NFS_B, "touch /var/lib/nfs/sm/.look && rm /var/lib/nfs/sm/.look && sleep 3")?;
    ensure!(lab.grace(&HOMES)? == Grace::Over, "grace opened again");
    let status = lab.status(NFS_B)?;
    ensure!(status.of(&HOMES)?.records == 2, "lost clients must stay on record: {status:?}");

    lab.power_loss(NFS_B)?;
    lab.attach(NFS_C, &HOMES)?;
    lab.adopt(NFS_C, &HOMES, "--prepare --owner-fenced")?;
    lab.address_up(NFS_C, &HOMES)?;
    let report = lab.adopt(NFS_C, &HOMES, "--finish")?;
    expect_both_back(&report, &HOMES, &[number, prepared.state_number])?;
    lab.wait_for_locks(NFS_C, 2, Duration::from_secs(10))?;
    expect_both_locks(lab, NFS_C)
}

/// How many UDP datagrams a guest has got. Mounts and locks go over TCP here, a notification begins with a datagram
/// to rpcbind.
fn datagrams(lab: &Cluster, client: Name) -> Result<u64> {
    let count = lab.ok(client, "awk '/^Udp:/ { count = $2 } END { print count }' /proc/net/snmp")?;
    Ok(count.trim().parse()?)
}
