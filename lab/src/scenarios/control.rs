//! The harm itself. If this scenario ever fails, the lab can't see a lost lock, and no other scenario proves
//! anything.

use anyhow::Result;

use super::stage::{expect_both_believe, lock_without_heirlock};
use crate::capture::WATCH_ALONE;
use crate::cluster::{Cluster, NFS_A};
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
    lock_without_heirlock(lab)?;
    lab.power_loss(NFS_A)?;
    expect_both_believe(lab)
}
