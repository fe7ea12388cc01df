//! The conveyed files: description files to the byte, and records that a person can use without heirlock.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::stage::{RECLAIM_TIME_MAX, expect_both_back, expect_both_locks, stand_by, two_locks};
use crate::capture::MOSTLY_WATCH;
use crate::cluster::{CLIENT1, CLIENT2, Cluster, HOMES, NFS_A, NFS_B, Records, SETUP, Setup};
use crate::scenario::{EVERYWHERE, Scenario};

/// Byte for byte.
pub const CONVEY_COPY: Scenario = Scenario {
    name: "convey-copy",
    about: "the primary's client lock description files lie on the adoptive server byte for byte, until it has settled",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: MOSTLY_WATCH,
    run: copy,
};

/// Without heirlock.
pub const BY_HAND: Scenario = Scenario {
    name: "by-hand",
    about: "heirlock is stopped everywhere; stock sm-notify on a copy of the store's newest generation recovers the locks",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: MOSTLY_WATCH,
    run: by_hand,
};

fn copy(lab: &mut Cluster) -> Result<()> {
    let setup = Setup { convey: "copy", ..SETUP };
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1, CLIENT2])?;
    stand_by(lab, NFS_B, &setup)?;
    two_locks(lab, &setup)?;
    let number = lab.state_number(NFS_A)?;
    let originals = lab.records(NFS_A)?;
    ensure!(originals.len() == 2, "expected the records of two clients, found {originals:?}");

    lab.power_loss(NFS_A)?;
    lab.attach(NFS_B, &HOMES)?;
    lab.adopt(NFS_B, &HOMES, "--prepare --owner-fenced")?;
    let conveyed = lab.records(NFS_B)?;
    ensure!(
        contents(&conveyed) == contents(&originals),
        "expected copies of {originals:?}, found {conveyed:?}"
    );
    // The file's name is where stock tools send to; the address needs no name server.
    ensure!(
        conveyed.keys().all(|name| name.starts_with("10.99.0.2")),
        "expected addresses, found {conveyed:?}"
    );
    lab.say("the conveyed files are the primary's to the byte");

    lab.address_up(NFS_B, &HOMES)?;
    let report = lab.adopt(NFS_B, &HOMES, "--finish")?;
    expect_both_back(&report, &HOMES, &[number])?;
    expect_both_locks(lab, NFS_B)?;
    let left = lab.records(NFS_B)?;
    let own = left.values().all(|record| record.ends_with(&format!(" {NFS_B}\n")));
    ensure!(left.len() == 2 && own, "expected the adoptive server's own records alone, found {left:?}");
    Ok(())
}

fn contents(records: &Records) -> BTreeSet<&str> {
    records.values().map(String::as_str).collect()
}

fn by_hand(lab: &mut Cluster) -> Result<()> {
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1, CLIENT2])?;
    lab.protect(NFS_B, &SETUP)?;
    two_locks(lab, &SETUP)?;
    lab.power_loss(NFS_A)?;
    lab.go_on_without_heirlock(NFS_B)?;

    lab.serve(NFS_B, &HOMES)?;
    let newest = lab.newest_generation(&HOMES)?;
    // -f: although /run/sm-notify.pid, heirlock's guard, says that clients were notified already.
    let command = format!("cp -r {newest} /run/copy && sm-notify -f -P /run/copy -v {}", HOMES.address);
    lab.ok(NFS_B, &command)?;
    lab.wait_for_locks(NFS_B, 2, RECLAIM_TIME_MAX)?;
    expect_both_locks(lab, NFS_B)
}
