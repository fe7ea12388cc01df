//! Three servers and two services, without a cluster manager: one server dies, and then the one that took its service.

use anyhow::{Result, ensure};

use super::stage::{RECLAIM_TIME_MAX, expect_lock_count, stand_by};
use crate::capture::MOSTLY_WATCH;
use crate::cluster::{
    CLIENT1, CLIENT2, Cluster, HOMES, NFS_A, NFS_B, NFS_C, Name, PROJECTS, SETUP, Service, Setup,
};
use crate::scenario::{EVERYWHERE, Scenario};

/// Two deaths of three.
pub const THREE_SERVERS: Scenario = Scenario {
    name: "three-servers",
    about: "two of three servers serve, and die one after the other: the preferred candidate adopts, then the last one both, with one fence",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: MOSTLY_WATCH,
    run,
};

/// nfs-b is preferred to nfs-c for both services, although it has one already and nfs-c has none.
const PREFERRED: Setup = Setup {
    services: &[HOMES, PROJECTS],
    elsewhere: &[("projects", NFS_B)],
    hooks: true,
    automatic: true,
    candidates: &[NFS_A, NFS_B, NFS_C],
    ..SETUP
};

/// Who holds the lock on which service, and who wants it.
const LOCKS: [(Name, Name, &Service); 2] = [(CLIENT1, CLIENT2, &HOMES), (CLIENT2, CLIENT1, &PROJECTS)];

fn run(lab: &mut Cluster) -> Result<()> {
    lab.switch_on(&[NFS_A, NFS_B, NFS_C, CLIENT1, CLIENT2])?;
    for (server, service) in [(NFS_A, &HOMES), (NFS_B, &PROJECTS)] {
        lab.power_switch(server, false)?;
        lab.serve(server, service)?;
        lab.end_grace(server)?;
        lab.protect(server, &PREFERRED)?;
    }
    stand_by(lab, NFS_C, &PREFERRED)?;
    for (holder, rival, service) in LOCKS {
        lab.mount(holder, service)?;
        lab.mount(rival, service)?;
        lab.hold(holder, service, "f")?;
        lab.expect_denied(rival, service, "f")?;
    }
    for (server, service) in [(NFS_A, &HOMES), (NFS_B, &PROJECTS)] {
        lab.wait_until_protected(server, service, 2)?;
    }

    die(lab, NFS_A, NFS_B, &[&HOMES])?;
    expect_locks(lab, NFS_B)?;
    die(lab, NFS_B, NFS_C, &[&HOMES, &PROJECTS])?;
    expect_locks(lab, NFS_C)?;
    for (holder, rival, service) in LOCKS {
        lab.let_go(holder, service, "f")?;
        lab.expect_locked(rival, service, "f")?;
    }
    Ok(())
}

/// A server loses power, and another one adopts its services without a word of any person.
fn die(lab: &mut Cluster, server: Name, heir: Name, services: &[&Service]) -> Result<()> {
    let status = lab.status(heir)?;
    let mut before = Vec::new();
    for service in services {
        before.push(status.of(service)?.generation.unwrap_or(0));
    }
    lab.wait_until_it_hears(heir, server)?;
    lab.power_loss(server)?;
    // As long as no fence confirms that the server is off, it may yet serve.
    lab.wait_until_it_misses(heir, server)?;
    for service in services {
        let (owner, _) = lab.status(heir)?.of(service)?.claim();
        ensure!(owner.as_deref() == Some(server), "claimed before the fence's word by {owner:?}");
    }
    lab.power_switch(server, true)?;
    lab.wait_until_it_fences(heir, server)?;
    for (service, generation) in services.iter().zip(before) {
        lab.wait_until_settled(heir, service.name, generation)?;
        let status = lab.status(heir)?;
        let adopted = status.of(service)?;
        ensure!(adopted.failure.is_none() && adopted.records == 2, "{adopted:?}");
    }
    Ok(())
}

/// That server has both locks, and no other client gets them, in grace or after it. The store knows all clients again.
fn expect_locks(lab: &Cluster, server: Name) -> Result<()> {
    lab.wait_for_locks(server, 2, RECLAIM_TIME_MAX)?;
    for (_, rival, service) in LOCKS {
        lab.expect_denied(rival, service, "f")?;
    }
    for (_, rival, service) in LOCKS {
        lab.wait_until_grace_is_over(service)?;
        lab.expect_denied(rival, service, "f")?;
        lab.wait_until_protected(server, service, 2)?;
    }
    expect_lock_count(lab, server, 2)
}
