//! NFS is stopped in order while locks are held. Newer kernels then ask the status monitor to forget every client,
//! older ones some; heirlock forgets none.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::stage::{RECLAIM_TIME_MAX, expect_both_back, expect_both_locks, stand_by, two_locks};
use crate::capture::MOSTLY_WATCH;
use crate::cluster::{CLIENT1, CLIENT2, Cluster, HOMES, NFS_A, NFS_B, NFS_C, Name, PROJECTS, SETUP, Setup};
use crate::guest_program;
use crate::release::Release;
use crate::scenario::{EVERYWHERE, Scenario};

/// Nothing is forgotten.
pub const ORDERLY: Scenario = Scenario {
    name: "orderly",
    about: "an orderly stop of NFS deletes every record while locks are held: tombstones keep them, and only they do",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: MOSTLY_WATCH,
    run,
};

/// How long an agent may take to notice that a record is gone: where it is the status monitor it looks every 10 s.
const NOTICED_WITHIN: Duration = Duration::from_secs(15);

/// The same with the shortest wait that there is: a deleted record is soon forgotten.
const WITHOUT_TOMBSTONES: Setup =
    Setup { services: &[PROJECTS], home: Some(NFS_C), tombstone_delay: "500ms", ..SETUP };

/// The deletion that newer kernels do by themselves when NFS stops.
fn unmonitor(lab: &Cluster, server: Name, clients: &[&str]) -> Result<()> {
    for client in clients {
        lab.ok(server, &format!("{} unmonitor {client} {server}", guest_program::NAME))?;
    }
    expect_no_records(lab, server)
}

fn expect_no_records(lab: &Cluster, server: Name) -> Result<()> {
    lab.wait_for("a status monitor that has forgotten all clients", RECLAIM_TIME_MAX, || {
        Ok(lab.records(server)?.is_empty().then_some(()))
    })
}

fn run(lab: &mut Cluster) -> Result<()> {
    lab.switch_on(&[NFS_A, NFS_B, NFS_C, CLIENT1, CLIENT2])?;
    lab.serve(NFS_C, &PROJECTS)?;
    lab.end_grace(NFS_C)?;
    lab.protect(NFS_C, &WITHOUT_TOMBSTONES)?;
    stand_by(lab, NFS_B, &SETUP)?;
    two_locks(lab, &SETUP)?;
    lab.mount(CLIENT1, &PROJECTS)?;
    lab.hold(CLIENT1, &PROJECTS, "f")?;
    lab.wait_until_protected(NFS_C, &PROJECTS, 1)?;
    let number = lab.state_number(NFS_A)?;
    let known = lab.stored(&HOMES)?;
    ensure!(known.len() == 2, "expected the records of both clients in the store, found {known:?}");

    // The proof that it is the tombstones that remember.
    unmonitor(lab, NFS_C, &["10.99.0.21"])?;
    lab.wait_for("a client that is forgotten without tombstones", NOTICED_WITHIN, || {
        Ok(lab.stored(&PROJECTS)?.is_empty().then_some(()))
    })?;
    ensure!(lab.locks(NFS_C)? == 1, "it was forgotten while it held its lock");
    lab.say("without tombstones a client that holds a lock is forgotten");

    if lab.release() == Release::Bookworm {
        unmonitor(lab, NFS_A, &["10.99.0.21", "10.99.0.22"])?;
        lab.wait_for("two tombstones", NOTICED_WITHIN, || {
            Ok((lab.status(NFS_A)?.of(&HOMES)?.tombstones == 2).then_some(()))
        })?;
    }
    lab.ok(NFS_A, "rpc.nfsd 0")?;
    expect_no_records(lab, NFS_A)?;
    // The agent has seen it all: the directory, and that nothing is served any more.
    lab.wait_for("an agent that knows that NFS is stopped", RECLAIM_TIME_MAX, || {
        Ok((!lab.status(NFS_A)?.lock_manager.serving).then_some(()))
    })?;
    ensure!(lab.stored(&HOMES)? == known, "forgotten: {:?}", lab.stored(&HOMES)?);
    lab.say("NFS is stopped, rpc.statd has forgotten all clients, and the store none");

    lab.power_loss(NFS_A)?;
    lab.attach(NFS_B, &HOMES)?;
    lab.adopt(NFS_B, &HOMES, "--prepare --owner-fenced")?;
    lab.address_up(NFS_B, &HOMES)?;
    let report = lab.adopt(NFS_B, &HOMES, "--finish")?;
    expect_both_back(&report, &HOMES, &[number])?;
    expect_both_locks(lab, NFS_B)
}
