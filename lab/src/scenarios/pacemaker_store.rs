//! heirlock's store on the volume that moves with the service: a node without the volume has no store. Once on a disk that both
//! nodes reach, and once on DRBD, as the guide has it.

use anyhow::{Result, ensure};

use super::pacemaker::expect_kept;
use super::stage::RECLAIM_TIME_MAX;
use crate::capture::WATCH_ALONE;
use crate::cluster::{CLIENT1, CLIENT2, Cluster, Finding, HOMES, NFS_A, NFS_B, Name, SETUP, Setup};
use crate::documented::{Documented, Page, Tool};
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

/// The same over DRBD.
pub const PACEMAKER_DRBD: Scenario = Scenario {
    name: "pacemaker-drbd",
    about: "volume and store lie on a DRBD device that Pacemaker promotes: the lock is kept over a move there and back, and over a crash",
    needs_heirlock: true,
    releases: &[Release::Bookworm],
    captures: WATCH_ALONE,
    run: drbd,
};

const NODES: [Name; 2] = [NFS_A, NFS_B];

/// The last member of the group.
const LAST: &str = "homes-notify";

/// Pacemaker places the service and fences.
const PLACED: Setup = Setup { home: None, fence: false, ..SETUP };

/// How a node gets the volume before Pacemaker does that.
struct Volume {
    device: &'static str,
    /// Before it is mounted.
    up: &'static str,
    /// After it was mounted.
    down: &'static str,
}

fn store_moves(lab: &mut Cluster) -> Result<()> {
    let documented = Documented::listings(Tool::Crmsh, &["fence", "homes"])?;
    lab.with_pacemaker(&NODES, &documented.for_service(&HOMES)?.with_power_switch(&NODES)?)?;
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1, CLIENT2])?;
    lab.prepare_volume(NFS_A, &HOMES)?;
    move_and_lose(lab, &Volume { device: HOMES.disk, up: "true", down: "true" })
}

fn drbd(lab: &mut Cluster) -> Result<()> {
    let fences = Documented::listings(Tool::Crmsh, &["fence"])?;
    let documented = fences.and(Documented::of_page(Page::Drbd, Tool::Crmsh, &["homes"])?)?;
    // The lab's clients mount the volume's root.
    let documented = documented.with("/srv/homes/files", "/srv/homes")?.for_network(&HOMES)?;
    lab.with_pacemaker(&NODES, &documented.with_power_switch(&NODES)?)?;
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1, CLIENT2])?;
    let mut resource =
        Documented::block(Page::Drbd, "resource homes {")?.replace("/dev/vg0/homes", "/dev/loop0");
    for (node, documented) in [(NFS_A, "192.0.2.1:"), (NFS_B, "192.0.2.2:")] {
        resource = resource.replace(documented, &format!("{}:", lab.address(node)?));
    }
    for node in NODES {
        lab.write_file(node, "/etc/drbd.d/homes.res", &resource)?;
        // Each node's own disk.
        let disk = format!("/srv/store/disk-{node}");
        lab.ok(
            node,
            &format!(
                "$(cat /run/lab/modprobe) -a drbd loop && truncate -s 48M {disk} && losetup /dev/loop0 {disk} &&
                 drbdadm create-md --force homes && drbdadm up homes"
            ),
        )?;
    }
    lab.wait_until(NFS_A, "drbdadm cstate homes | grep -q Connected")?;
    lab.ok(NFS_A, "drbdadm -- --clear-bitmap new-current-uuid homes && drbdadm primary homes && mkfs.ext4 -q /dev/drbd0")?;
    lab.ok(
        NFS_A,
        "mkdir -p /srv/homes && mount /dev/drbd0 /srv/homes && chmod 777 /srv/homes &&
         for file in f g h; do touch /srv/homes/$file && chmod 666 /srv/homes/$file; done &&
         umount /srv/homes && drbdadm secondary homes",
    )?;
    let (up, down) = ("drbdadm primary homes", "drbdadm secondary homes");
    move_and_lose(lab, &Volume { device: "/dev/drbd0", up, down })
}

/// Both nodes get to know the store on the volume; then the service is moved there and back, and its node dies.
fn move_and_lose(lab: &mut Cluster, volume: &Volume) -> Result<()> {
    let Volume { device, up, down } = volume;
    for node in NODES {
        lab.start_nfs(node)?;
        lab.end_grace(node)?;
        lab.configure(node, &PLACED)?;
        let there =
            "sed -i 's|\"/srv/store/heirlock\"|\"/srv/homes/.heirlock\"|; s|shared = true|shared = false|'";
        lab.ok(node, &format!("{there} /etc/heirlock/heirlock.toml"))?;
        // Each server gets to know its store while the volume is there.
        lab.ok(
            node,
            &format!(
                "mkdir -p /srv/homes && {up} && mount -t ext4 {device} /srv/homes && heirlock enable && umount /srv/homes && {down}"
            ),
        )?;
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
    let said = lab.heirlock(NFS_A, "doctor --json")?;
    let found: Vec<Finding> = said.parsed()?;
    let wrong: Vec<_> = found
        .iter()
        .filter(|one| one.check.starts_with("cluster") && !["ok", "note"].contains(&one.severity.as_str()))
        .collect();
    ensure!(wrong.is_empty(), "expected doctor to find nothing wrong in the cluster, found {wrong:?}");

    for to in [NFS_B, NFS_A] {
        lab.ok(to, &format!("crm_resource --resource homes --move --node {to}"))?;
        lab.wait_until_runs(to, LAST, to)?;
        lab.wait_for_locks(to, 1, RECLAIM_TIME_MAX)?;
        lab.ok(to, "crm_resource --resource homes --clear")?;
    }
    lab.expect_no_failure(NFS_A)?;
    lab.expect_no_fence()?;
    lab.wait_until_grace_is_over(&HOMES)?;
    // The other client had no lock to get back, and has retired.
    lab.wait_until_protected(NFS_A, &HOMES, 1)?;

    lab.power_loss(NFS_A)?;
    lab.wait_until_fenced(NFS_A)?;
    lab.wait_until_runs(NFS_B, LAST, NFS_B)?;
    lab.wait_for_locks(NFS_B, 1, RECLAIM_TIME_MAX)?;
    expect_kept(lab, NFS_B)
}
