//! A drill on the server that would adopt, and then the adoption, which shows whether the drill's word was true.

use anyhow::{Context, Result, ensure};

use super::stage::{RECLAIM_TIME_MAX, expect_lock_count, stand_by, two_locks};
use crate::capture::MOSTLY_WATCH;
use crate::cluster::{CLIENT1, CLIENT2, Cluster, DrillReport, HOMES, NFS_A, NFS_B, SETUP, Setup, UNTOLD};
use crate::scenario::{EVERYWHERE, Scenario};
use crate::wire::Ending;

/// It names the one client that is dead, and touches nothing.
pub const DRILL: Scenario = Scenario {
    name: "drill",
    about: "a drill on the standby names exactly the client that is switched off and changes nothing; the adoption after a crash \
            does not reach that one, and brings the other's lock back",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: MOSTLY_WATCH,
    run: drill,
};

/// What a drill might touch: the claim, the records on either server, the locks, and the exports of the standby.
fn world(lab: &Cluster) -> Result<String> {
    let claim = lab.status(NFS_B)?.of(&HOMES)?.claim();
    let exports =
        lab.ok(NFS_B, "exportfs -s; cat /proc/fs/nfsd/threads; cat /proc/fs/lockd/nlm_end_grace")?;
    let (a, b) = (lab.records(NFS_A)?, lab.records(NFS_B)?);
    Ok(format!("{claim:?} {a:?} {b:?} {:?} {exports}", lab.locks(NFS_A)?))
}

/// Who would not be told.
fn unreached(report: &DrillReport) -> Vec<&str> {
    report.unreached.iter().map(|one| one.client.as_str()).collect()
}

fn drill(lab: &mut Cluster) -> Result<()> {
    let setup = Setup { hooks: true, fence: false, ..SETUP };
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1, CLIENT2])?;
    stand_by(lab, NFS_B, &setup)?;
    two_locks(lab, &setup)?;
    let dead = lab.address(CLIENT2)?;
    let before = world(lab)?;

    let (report, ending) = lab.drill(NFS_B, &HOMES)?;
    ensure!(ending == Ending::Exit(0) && report.verdict == "works", "both clients live: {report:?}");
    ensure!((report.clients, report.answered) == (2, 2) && report.unreached.is_empty(), "{report:?}");
    ensure!(world(lab)? == before, "expected {before}, found {}", world(lab)?);

    lab.power_loss(CLIENT2)?;
    let (report, ending) = lab.drill(NFS_B, &HOMES)?;
    ensure!(ending == Ending::Exit(UNTOLD) && report.verdict == "leaves-out", "{ending}: {report:?}");
    ensure!(unreached(&report) == [dead.as_str()] && report.answered == 1, "{report:?}");
    ensure!(world(lab)? == before, "expected {before}, found {}", world(lab)?);
    // On the server that has it the same client is named, and another server.
    let (held, _) = lab.drill(NFS_A, &HOMES)?;
    ensure!(held.verdict == "held-here" && unreached(&held) == [dead.as_str()], "{held:?}");

    lab.power_loss(NFS_A)?;
    let (adopted, ending) = lab.adopt_anyhow(NFS_B, &HOMES, "--owner-fenced")?;
    ensure!(ending == Ending::Exit(UNTOLD), "{ending}: {adopted:?}");
    let missed = adopted.failed.first().context("the client that is off was told")?;
    ensure!(
        (adopted.clients, adopted.re_registered, adopted.unreachable) == (2, 1, 1) && missed.client == dead,
        "the drill's word was not true: {adopted:?}"
    );
    lab.wait_for_locks(NFS_B, 1, RECLAIM_TIME_MAX)?;
    expect_lock_count(lab, NFS_B, 1)?;
    lab.let_go(CLIENT1, &HOMES, "f")
}
