//! How most scenarios begin and end.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cluster::{
    AdoptionReport, CLIENT1, CLIENT2, Cluster, HOMES, NFS_A, NFS_B, Name, PROJECTS, Service, Setup,
    check_new_number,
};

/// How long a client may take to have its locks back after it was told.
pub(super) const RECLAIM_TIME_MAX: Duration = Duration::from_secs(10);

/// The usual primary serves homes without heirlock; client1 holds the lock on `f`, and client2 is refused it.
pub(super) fn lock_without_heirlock(lab: &mut Cluster) -> Result<()> {
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1, CLIENT2])?;
    lab.serve(NFS_A, &HOMES)?;
    lab.end_grace(NFS_A)?;
    lab.mount(CLIENT1, &HOMES)?;
    lab.mount(CLIENT2, &HOMES)?;
    lab.hold(CLIENT1, &HOMES, "f")?;
    lab.expect_denied(CLIENT2, &HOMES, "f")
}

/// nfs-b serves homes now, and no client was told: client2 gets the lock, and client1's process still believes that it has it.
pub(super) fn expect_both_believe(lab: &Cluster) -> Result<()> {
    lab.serve(NFS_B, &HOMES)?;
    lab.wait_until_grace_is_over(&HOMES)?;
    lab.expect_locked(CLIENT2, &HOMES, "f")?;
    lab.expect_still_believes(CLIENT1, &HOMES, "f")?;
    lab.say("two clients hold the same exclusive lock, and neither was told");
    Ok(())
}

/// The usual primary serves homes under heirlock's eyes; client1 holds the lock on `f`, client2 that on `g`, and is
/// refused the one on `f`. The store knows both clients.
pub(super) fn two_locks(lab: &Cluster, setup: &Setup) -> Result<()> {
    lab.serve(NFS_A, &HOMES)?;
    lab.end_grace(NFS_A)?;
    lab.protect(NFS_A, setup)?;
    lab.mount(CLIENT1, &HOMES)?;
    lab.mount(CLIENT2, &HOMES)?;
    lab.hold(CLIENT1, &HOMES, "f")?;
    lab.hold(CLIENT2, &HOMES, "g")?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    lab.wait_until_protected(NFS_A, &HOMES, 2)
}

/// A server that waits: NFS runs and grants what it is asked for, but has nothing to serve.
pub(super) fn stand_by(lab: &Cluster, server: Name, setup: &Setup) -> Result<()> {
    lab.start_nfs(server)?;
    lab.end_grace(server)?;
    lab.protect(server, setup)
}

/// A server that had clients is back, and waits. As the units have it, the agent begins before NFS: it has the whole grace
/// period to tell the clients of the life before, however slow this machine is. The next steps may restart NFS, and a
/// client that was not told by then would be reported as lost, and rightly. The server exports something, or lockd would
/// not say to it whether grace is open.
pub(super) fn stand_by_again(lab: &Cluster, server: Name, setup: &Setup) -> Result<()> {
    lab.protect(server, setup)?;
    let before = lab.own_service(server)?;
    lab.attach(server, &PROJECTS)?;
    lab.start_nfs(server)?;
    lab.wait_until_own_clients_are_told(server, &before)
}

/// Both locks are on that server, and no other client gets them: neither now, in grace, where a request waits for the end
/// of it, nor afterwards.
pub(super) fn expect_both_locks(lab: &Cluster, server: Name) -> Result<()> {
    lab.wait_for_locks(server, 2, RECLAIM_TIME_MAX)?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    lab.wait_until_grace_is_over(&HOMES)?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    lab.expect_denied(CLIENT1, &HOMES, "g")?;
    expect_lock_count(lab, server, 2)
}

/// And each is let go of in order: it was a lock, and no left-over.
pub(super) fn let_both_go(lab: &Cluster) -> Result<()> {
    lab.let_go(CLIENT1, &HOMES, "f")?;
    lab.expect_locked(CLIENT2, &HOMES, "f")?;
    lab.let_go(CLIENT2, &HOMES, "g")?;
    lab.expect_locked(CLIENT1, &HOMES, "g")
}

/// Does something while the store is gone. A server that finds none must not begin another one in its place.
pub(super) fn without_store(lab: &Cluster, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
    let (store, away) = (lab.store().join("heirlock"), lab.store().join("heirlock.away"));
    fs::rename(&store, &away).context("can't take the store away")?;
    lab.say("the store is gone");
    meanwhile()?;
    ensure!(!store.exists(), "a store was made where there was none");
    fs::rename(&away, &store).context("can't bring the store back")?;
    lab.say("the store is back");
    Ok(())
}

pub(super) fn expect_lock_count(lab: &Cluster, server: Name, count: usize) -> Result<()> {
    let found = lab.locks(server)?;
    ensure!(found == count, "expected {count} locks on {server}, found {found}");
    Ok(())
}

/// Both clients of homes are back, under a number that none of those was.
pub(super) fn expect_both_back(report: &AdoptionReport, service: &Service, sent: &[u32]) -> Result<()> {
    ensure!(report.service == service.name, "expected a report of {}, found {report:?}", service.name);
    report.expect_all_back(2)?;
    check_new_number(report.state_number, sent)
}
