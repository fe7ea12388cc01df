//! A service goes away in order and comes home; the lock is held all the time.

use anyhow::{Result, ensure};

use super::stage::{expect_both_back, expect_both_locks, let_both_go, stand_by, two_locks};
use crate::capture::EACH;
use crate::cluster::{CLIENT1, CLIENT2, Cluster, HOMES, NFS_A, NFS_B, SETUP, Setup, check_new_number};
use crate::scenario::{EVERYWHERE, Scenario};

/// Away and back.
pub const FAILBACK: Scenario = Scenario {
    name: "failback",
    about: "release, adopt elsewhere, failback: a client that asks for the lock all the time never gets it",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: EACH,
    run,
};

fn run(lab: &mut Cluster) -> Result<()> {
    let setup = Setup { hooks: true, ..SETUP };
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1, CLIENT2])?;
    stand_by(lab, NFS_B, &setup)?;
    two_locks(lab, &setup)?;
    let number = lab.state_number(NFS_A)?;
    lab.keep_asking(CLIENT2, &HOMES, "f")?;

    lab.heirlock_ok(NFS_A, "release homes")?;
    let gone = format!(
        "! ip addr show dev vec0 | grep -q ' {}/' && ! grep -q ' /srv/homes ' /proc/mounts",
        HOMES.address
    );
    lab.ok(NFS_A, &gone)?;
    ensure!(lab.locks(NFS_A)? == 0, "a released service must leave no lock behind");
    ensure!(!lab.status(NFS_A)?.of(&HOMES)?.held, "released, and still held");
    let away = lab.adopt(NFS_B, &HOMES, "")?; // no server needs to be fenced
    expect_both_back(&away, &HOMES, &[number])?;
    lab.wait_for_locks(NFS_B, 2, super::stage::RECLAIM_TIME_MAX)?;

    lab.heirlock_ok(NFS_A, "failback homes")?;
    let status = lab.status(NFS_A)?;
    let homes = status.of(&HOMES)?;
    ensure!(homes.held && homes.records == 2, "{homes:?}");
    check_new_number(homes.state_number.unwrap_or(0), &[number, away.state_number])?;
    ensure!(lab.locks(NFS_B)? == 0, "a service that went home must leave no lock behind");
    expect_both_locks(lab, NFS_A)?;
    lab.expect_always_denied(CLIENT2, &HOMES, "f")?;
    let_both_go(lab)
}
