//! heirlock's store on the volume that moves with the service, as the guide has it for a pair with DRBD: a node without the volume
//! has no store.

use anyhow::{Result, ensure};

use super::stage::{RECLAIM_TIME_MAX, expect_lock_count};
use crate::capture::WATCH_ALONE;
use crate::cluster::{CLIENT1, CLIENT2, Cluster, HOMES, NFS_A, NFS_B, Name, SETUP, Setup};
use crate::documented::{Documented, Tool};
use crate::release::Release;
use crate::scenario::Scenario;

/// Moved there and back, and over a crash.
pub const PACEMAKER_STORE_MOVES: Scenario = Scenario {
    name: "pacemaker-store-moves",
    about: "the store lies on the volume that Pacemaker moves: the lock is kept over a move there and back, and over a crash",
    needs_heirlock: true,
    releases: &[Release::Bookworm],
    captures: WATCH_ALONE,
    run: store_moves,
};

const NODES: [Name; 2] = [NFS_A, NFS_B];

/// The last member of the group.
const LAST: &str = "homes-notify";

/// Pacemaker places the service and fences.
const PLACED: Setup = Setup { home: None, fence: false, ..SETUP };

fn store_moves(lab: &mut Cluster) -> Result<()> {
    let documented = Documented::listings(Tool::Crmsh, &["fence", "homes"])?;
    lab.with_pacemaker(&NODES, &documented.for_service(&HOMES)?.with_power_switch(&NODES)?)?;
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1, CLIENT2])?;
    lab.prepare_volume(NFS_A, &HOMES)?;
    for node in NODES {
        lab.start_nfs(node)?;
        lab.end_grace(node)?;
        lab.configure(node, &PLACED)?;
        let there =
            "sed -i 's|\"/srv/store/heirlock\"|\"/srv/homes/.heirlock\"|; s|shared = true|shared = false|'";
        lab.ok(node, &format!("{there} /etc/heirlock/heirlock.toml"))?;
        // Each server gets to know its store while the volume is there.
        let disk = HOMES.disk;
        lab.ok(node, &format!("mkdir -p /srv/homes && mount -t ext4 {disk} /srv/homes && heirlock enable && umount /srv/homes"))?;
        lab.begin_agent(node)?;
    }
    lab.start_pacemaker(&NODES)?;
    lab.wait_until_runs(NFS_A, LAST, NFS_A)?;
    lab.end_grace(NFS_A)?;
    lab.mount(CLIENT1, &HOMES)?;
    lab.mount(CLIENT2, &HOMES)?;
    lab.hold(CLIENT1, &HOMES, "f")?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    lab.wait_until_protected(NFS_A, &HOMES, 2)?;
    ensure!(!lab.status(NFS_B)?.store.well, "a node without the volume has a store");

    for to in [NFS_B, NFS_A] {
        lab.ok(to, &format!("crm_resource --resource homes --move --node {to}"))?;
        lab.wait_until_runs(to, LAST, to)?;
        lab.wait_for_locks(to, 1, RECLAIM_TIME_MAX)?;
        lab.ok(to, "crm_resource --resource homes --clear")?;
    }
    lab.expect_no_failure(NFS_A)?;
    lab.expect_no_fence()?;
    lab.wait_until_grace_is_over(&HOMES)?;
    lab.wait_until_protected(NFS_A, &HOMES, 2)?;

    lab.power_loss(NFS_A)?;
    lab.wait_until_fenced(NFS_A)?;
    lab.wait_until_runs(NFS_B, LAST, NFS_B)?;
    lab.wait_for_locks(NFS_B, 1, RECLAIM_TIME_MAX)?;
    lab.wait_until_grace_is_over(&HOMES)?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    expect_lock_count(lab, NFS_B, 1)?;
    lab.expect_no_failure(NFS_B)?;
    lab.let_go(CLIENT1, &HOMES, "f")?;
    lab.expect_locked(CLIENT2, &HOMES, "f")
}
