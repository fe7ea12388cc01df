//! Two services that are adopted to one server at once, as a cluster manager has it that starts two groups on the surviving node.

use anyhow::{Result, ensure};

use super::stage::{RECLAIM_TIME_MAX, expect_lock_count, stand_by};
use crate::capture::MOSTLY_WATCH;
use crate::cluster::{
    AdoptionReport, CLIENT1, CLIENT2, Cluster, HOMES, NFS_A, NFS_B, PROJECTS, SETUP, Service, Setup,
    check_new_number,
};
use crate::scenario::{EVERYWHERE, Scenario};

/// They meet before the lock manager is restarted.
pub const JOIN: Scenario = Scenario {
    name: "join",
    about: "two services are adopted at once to one server: NFS is restarted once, and each keeps its lock",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: MOSTLY_WATCH,
    run: join,
};

/// The second comes while the first one's clients are being told.
pub const JOIN_WHILE_TOLD: Scenario = Scenario {
    name: "join-while-told",
    about: "a service is adopted while a client of another one can't be told: NFS is restarted again at once, and each keeps its lock",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: MOSTLY_WATCH,
    run: join_while_told,
};

const BOTH: [&Service; 2] = [&HOMES, &PROJECTS];

/// client1 holds a lock on homes, and client2 one on projects; each is refused the other's. Then their server loses power, and the
/// volumes are on the other one. Says the number of the server that is gone.
fn lose_both(lab: &mut Cluster) -> Result<u32> {
    let setup = Setup { services: &[HOMES, PROJECTS], ..SETUP };
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1, CLIENT2])?;
    stand_by(lab, NFS_B, &setup)?;
    for service in BOTH {
        lab.serve(NFS_A, service)?;
    }
    lab.end_grace(NFS_A)?;
    lab.protect(NFS_A, &setup)?;
    for service in BOTH {
        lab.mount(CLIENT1, service)?;
        lab.mount(CLIENT2, service)?;
    }
    lab.hold(CLIENT1, &HOMES, "f")?;
    lab.hold(CLIENT2, &PROJECTS, "f")?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    lab.expect_denied(CLIENT1, &PROJECTS, "f")?;
    for service in BOTH {
        lab.wait_until_protected(NFS_A, service, 2)?;
    }
    let number = lab.state_number(NFS_A)?;
    lab.power_loss(NFS_A)?;
    for service in BOTH {
        lab.attach(NFS_B, service)?;
    }
    Ok(number)
}

fn expect_all_told(report: &AdoptionReport, sent: u32) -> Result<()> {
    ensure!(report.clients == 2 && report.acknowledged == 2 && report.lost == 0, "{report:?}");
    check_new_number(report.state_number, &[sent])
}

/// Both locks are on the adoptive server, and no other client gets them, in grace or after it. Each was a lock, and no left-over.
fn expect_both_locks(lab: &Cluster) -> Result<()> {
    lab.wait_for_locks(NFS_B, 2, RECLAIM_TIME_MAX)?;
    let held = [(CLIENT1, CLIENT2, &HOMES), (CLIENT2, CLIENT1, &PROJECTS)];
    for (_, rival, service) in held {
        lab.expect_denied(rival, service, "f")?;
    }
    for (_, rival, service) in held {
        lab.wait_until_grace_is_over(service)?;
        lab.expect_denied(rival, service, "f")?;
    }
    expect_lock_count(lab, NFS_B, 2)?;
    for (holder, rival, service) in held {
        lab.let_go(holder, service, "f")?;
        lab.expect_locked(rival, service, "f")?;
    }
    Ok(())
}

fn expect_starts(lab: &Cluster, count: usize) -> Result<()> {
    let found = lab.nfs_starts(NFS_B)?;
    ensure!(found == count, "expected that NFS was started {count} times on {NFS_B}, found {found}");
    Ok(())
}

fn join(lab: &mut Cluster) -> Result<()> {
    let number = lose_both(lab)?;
    let before = lab.nfs_starts(NFS_B)?;
    for report in lab.adopt_at_once(NFS_B, &BOTH, "--prepare --owner-fenced")? {
        ensure!(report.phase == "prepared", "{report:?}");
    }
    expect_starts(lab, before + 1)?;
    for service in BOTH {
        lab.address_up(NFS_B, service)?;
    }
    for report in lab.adopt_at_once(NFS_B, &BOTH, "--finish")? {
        expect_all_told(&report, number)?;
    }
    expect_both_locks(lab)?;
    expect_starts(lab, before + 1)
}

fn join_while_told(lab: &mut Cluster) -> Result<()> {
    let number = lose_both(lab)?;
    let before = lab.nfs_starts(NFS_B)?;
    lab.adopt(NFS_B, &HOMES, "--prepare --owner-fenced")?;
    lab.cable(CLIENT2, false)?;
    lab.address_up(NFS_B, &HOMES)?;
    lab.heirlock_in_background(NFS_B, "adopt homes --finish")?;
    lab.wait_for_locks(NFS_B, 1, RECLAIM_TIME_MAX)?; // client1 was told and is back, client2 can't be told
    let first = lab.report(NFS_B, HOMES.name)?;
    ensure!(first.phase == "notifying", "expected that a client is still to be told, found {first:?}");
    expect_starts(lab, before + 1)?;

    let second = lab.adopt(NFS_B, &PROJECTS, "--prepare --owner-fenced")?;
    ensure!(second.phase == "prepared", "{second:?}");
    expect_starts(lab, before + 2)?;
    let again = lab.report(NFS_B, HOMES.name)?;
    ensure!(again.generation > first.generation && again.phase != "settled", "{again:?}");
    lab.wait_for_locks(NFS_B, 1, RECLAIM_TIME_MAX)?; // client1 is told at once that its lock is gone, and is back
    lab.cable(CLIENT2, true)?;
    lab.address_up(NFS_B, &PROJECTS)?;
    expect_all_told(&lab.adopt(NFS_B, &PROJECTS, "--finish")?, number)?;
    lab.wait_until_settled(NFS_B, HOMES.name, first.generation)?;
    let homes = lab.report(NFS_B, HOMES.name)?;
    check_new_number(homes.state_number, &[number, first.state_number])?;
    expect_all_told(&homes, number)?;
    expect_both_locks(lab)?;
    expect_starts(lab, before + 2)
}
