//! Other senders on the same host: distributions start sm-notify by themselves. With nothing to tell it ends grace,
//! so a client that was to reclaim in it loses its locks.

use anyhow::{Result, ensure};

use crate::capture::WATCH_ALONE;
use crate::cluster::{Cluster, HOMES, NFS_A, NFS_B, PROJECTS, SETUP};
use crate::grace::Grace;
use crate::scenario::{EVERYWHERE, Scenario};

/// Other programs that notify.
pub const STOCK_RIVAL: Scenario = Scenario {
    name: "stock-rival",
    about: "sm-notify, as distributions start it, ends grace on an unguarded host; `heirlock enable` keeps it from that",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: WATCH_ALONE,
    run,
};

/// ExecStart of rpc-statd-notify.service, of nfs-utils 2.6 and 2.8.
const UNIT_RUNS: &str = "/sbin/sm-notify";

/// The effect of a boot on /run.
const AFTER_A_BOOT: &str = "rm -f /run/sm-notify.pid";

fn run(lab: &mut Cluster) -> Result<()> {
    lab.switch_on(&[NFS_A, NFS_B])?;
    lab.configure(NFS_B, &SETUP)?;
    lab.heirlock_ok(NFS_B, "enable")?;
    lab.serve(NFS_A, &HOMES)?;
    lab.serve(NFS_B, &PROJECTS)?;
    ensure!(
        lab.grace(&HOMES)? == Grace::Open && lab.grace(&PROJECTS)? == Grace::Open,
        "no grace to begin with"
    );

    lab.ok(NFS_A, AFTER_A_BOOT)?;
    lab.ok(NFS_A, UNIT_RUNS)?;
    ensure!(lab.grace(&HOMES)? == Grace::Over, "stock sm-notify is expected to end grace, and did not");
    lab.say("on the unguarded host grace is over");

    // No systemd runs here, so no unit can be masked; only the command that the unit runs can be stopped.
    // A program that starts it finds that clients were notified already …
    lab.ok(NFS_B, UNIT_RUNS)?;
    ensure!(lab.grace(&PROJECTS)? == Grace::Open, "sm-notify ended grace on a guarded host");
    // … and after a boot, and by hand, that it must not end grace.
    lab.ok(NFS_B, AFTER_A_BOOT)?;
    lab.ok(NFS_B, UNIT_RUNS)?;
    lab.ok(NFS_B, "sm-notify -f")?;
    ensure!(lab.grace(&PROJECTS)? == Grace::Open, "sm-notify ended grace on a guarded host after a boot");
    lab.say("on the guarded host grace is open");

    lab.heirlock_ok(NFS_B, "disable")?;
    lab.ok(NFS_B, "sm-notify -f")?;
    ensure!(lab.grace(&PROJECTS)? == Grace::Over, "`disable` must give the host back whole");
    Ok(())
}
