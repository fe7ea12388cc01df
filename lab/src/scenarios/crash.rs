//! The primary loses power, and an adoptive server makes its lock manager recognise the locks: each of the three ways
//! by itself.

use anyhow::{Result, ensure};

use super::stage::{expect_both_back, expect_both_locks, let_both_go, stand_by, two_locks};
use crate::capture::{EACH, MOSTLY_WATCH};
use crate::cluster::{CLIENT1, CLIENT2, Cluster, HOMES, NFS_A, NFS_B, SETUP, Setup, check_new_number};
use crate::limits::ADOPTION_TIME_MAX;
use crate::release::Release;
use crate::scenario::{EVERYWHERE, Scenario};

/// By the lock recovery sequence alone.
pub const CRASH_NOTIFY: Scenario = Scenario {
    name: "crash-notify",
    about: "the primary loses power; NFS is just being started elsewhere, and `notify` brings both locks back",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: EACH,
    run: notify,
};

/// By SIGKILL to lockd, where that is heeded.
pub const CRASH_RESTART_LOCK_MANAGER: Scenario = Scenario {
    name: "crash-restart-lock-manager",
    about: "the primary loses power; SIGKILL to lockd brings both locks back, or is refused by name where lockd ignores it",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: MOSTLY_WATCH,
    run: restart_lock_manager,
};

/// By a restart of NFS, and without an administrator's word.
pub const CRASH_RESTART_NFS: Scenario = Scenario {
    name: "crash-restart-nfs",
    about: "the primary loses power; heartbeats, the fence and hooks do it all, and a restart of NFS brings both locks back",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: EACH,
    run: restart_nfs,
};

/// The scenario is the cluster manager: volume, NFS, `--prepare`, address, `--finish`.
fn notify(lab: &mut Cluster) -> Result<()> {
    let setup = Setup { strategy: "notify", ..SETUP };
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1, CLIENT2])?;
    lab.protect(NFS_B, &setup)?; // NFS does not run there yet
    two_locks(lab, &setup)?;
    let number = lab.state_number(NFS_A)?;

    lab.power_loss(NFS_A)?;
    lab.attach(NFS_B, &HOMES)?;
    lab.start_nfs(NFS_B)?;
    let prepared = lab.adopt(NFS_B, &HOMES, "--prepare --owner-fenced")?;
    ensure!(
        prepared.phase != "settled" && prepared.clients == 2,
        "expected a prepared adoption, found {prepared:?}"
    );
    lab.address_up(NFS_B, &HOMES)?;
    let report = lab.adopt(NFS_B, &HOMES, "--finish")?;
    expect_both_back(&report, &HOMES, &[number])?;
    ensure!(report.strategy == "notify" && report.state_number == prepared.state_number, "{report:?}");
    ensure!(report.others.is_empty(), "notify drops no locks, so no other client is told: {report:?}");
    expect_both_locks(lab, NFS_B)?;
    let_both_go(lab)
}

/// heirlock's hooks move volume and address: plain `adopt` does it all.
fn restart_lock_manager(lab: &mut Cluster) -> Result<()> {
    let setup = Setup { strategy: "restart-lock-manager", hooks: true, ..SETUP };
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1, CLIENT2])?;
    stand_by(lab, NFS_B, &setup)?;
    two_locks(lab, &setup)?;
    let number = lab.state_number(NFS_A)?;

    lab.power_loss(NFS_A)?;
    if lab.release() == Release::Trixie {
        let said = lab.adopt_refused(NFS_B, &HOMES, "--owner-fenced")?;
        ensure!(
            said.contains("restart-lock-manager") && said.contains("restart-nfs"),
            "expected the refused strategy and one that can, found {said}"
        );
        let claim = lab.status(NFS_B)?.of(&HOMES)?.claim();
        ensure!(claim.0.as_deref() == Some(NFS_A), "expected {NFS_A} to stay the owner, found {claim:?}");
        ensure!(lab.records(NFS_B)?.is_empty(), "a refused adoption may convey nothing");
        return Ok(());
    }
    let threads = "cat /proc/fs/nfsd/threads; grep -lsx lockd /proc/[0-9]*/comm; grep -lsx nfsd /proc/[0-9]*/comm; true";
    let before = lab.ok(NFS_B, threads)?;
    let report = lab.adopt(NFS_B, &HOMES, "--owner-fenced")?;
    expect_both_back(&report, &HOMES, &[number])?;
    ensure!(report.strategy == "restart-lock-manager", "{report:?}");
    expect_both_locks(lab, NFS_B)?;
    ensure!(lab.ok(NFS_B, threads)? == before, "nfsd and the thread lockd must be those of before");
    let_both_go(lab)
}

fn restart_nfs(lab: &mut Cluster) -> Result<()> {
    let setup = Setup { strategy: "restart-nfs", hooks: true, automatic: true, ..SETUP };
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1, CLIENT2])?;
    lab.power_switch(NFS_A, false)?;
    two_locks(lab, &setup)?;
    stand_by(lab, NFS_B, &setup)?;
    let number = lab.state_number(NFS_A)?;
    let (_, before) = lab.status(NFS_A)?.of(&HOMES)?.claim();

    lab.power_loss(NFS_A)?;
    // The heart is silent; but as long as no fence confirms that the server is off, it may yet serve.
    lab.wait_until_within(NFS_B, "grep -q 'heart is silent' /run/heirlock.log", ADOPTION_TIME_MAX)?;
    let status = lab.status(NFS_B)?;
    ensure!(
        status.of(&HOMES)?.claim().0.as_deref() == Some(NFS_A),
        "claimed before the fence's word: {status:?}"
    );
    lab.power_switch(NFS_A, true)?;
    lab.wait_until_settled(NFS_B, HOMES.name, before.unwrap_or(0))?;
    let status = lab.status(NFS_B)?;
    let homes = status.of(&HOMES)?;
    ensure!(homes.held && homes.failure.is_none() && homes.records == 2, "{homes:?}");
    check_new_number(homes.state_number.unwrap_or(0), &[number])?;
    expect_both_locks(lab, NFS_B)?;
    let_both_go(lab)
}
