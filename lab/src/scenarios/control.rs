//! The harm itself. If this scenario ever fails, the lab can't see a lost lock, and no other scenario proves
//! anything.

use anyhow::Result;

use crate::capture::WATCH_ALONE;
use crate::cluster::{CLIENT1, CLIENT2, Cluster, HOMES, NFS_A, NFS_B};
use crate::scenario::{EVERYWHERE, Scenario};

/// Without heirlock both clients end up with the same exclusive lock.
pub const CONTROL: Scenario = Scenario {
    name: "control",
    about: "without heirlock both clients end up with the same exclusive lock",
    needs_heirlock: false,
    releases: EVERYWHERE,
    captures: WATCH_ALONE,
    run,
};

fn run(lab: &mut Cluster) -> Result<()> {
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1, CLIENT2])?;
    lab.serve(NFS_A, &HOMES)?;
    lab.end_grace(NFS_A)?;
    lab.mount(CLIENT1, &HOMES)?;
    lab.mount(CLIENT2, &HOMES)?;
    lab.hold(CLIENT1, &HOMES, "f")?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;

    lab.power_loss(NFS_A)?;
    lab.serve(NFS_B, &HOMES)?;
    lab.wait_until_grace_is_over(&HOMES)?;

    // Client1's process still believes that it has the lock: its kernel was not told.
    lab.expect_locked(CLIENT2, &HOMES, "f")?;
    lab.expect_still_believes(CLIENT1, &HOMES, "f")?;
    lab.say("two clients hold the same exclusive lock, and neither was told");
    Ok(())
}
