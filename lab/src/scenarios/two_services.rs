//! A client locks on two addresses of one server. lockd monitors it once, so there is one record; it belongs to both
//! services.

use anyhow::{Result, ensure};

use super::stage::{RECLAIM_TIME_MAX, stand_by};
use crate::capture::MOSTLY_WATCH;
use crate::cluster::{
    CLIENT1, CLIENT2, Cluster, HOMES, NFS_A, NFS_B, NFS_C, PROJECTS, SETUP, Setup, check_new_number,
};
use crate::scenario::{EVERYWHERE, Scenario};

/// One record, two services.
pub const TWO_SERVICES: Scenario = Scenario {
    name: "two-services",
    about: "a client's one record serves both services: adopted alone, and then the other elsewhere, each keeps its lock",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: MOSTLY_WATCH,
    run,
};

fn run(lab: &mut Cluster) -> Result<()> {
    let setup = Setup { services: &[HOMES, PROJECTS], ..SETUP };
    lab.switch_on(&[NFS_A, NFS_B, NFS_C, CLIENT1, CLIENT2])?;
    stand_by(lab, NFS_B, &setup)?;
    stand_by(lab, NFS_C, &setup)?;
    for service in [&HOMES, &PROJECTS] {
        lab.serve(NFS_A, service)?;
    }
    lab.end_grace(NFS_A)?;
    lab.protect(NFS_A, &setup)?;
    for service in [&HOMES, &PROJECTS] {
        lab.mount(CLIENT1, service)?;
        lab.hold(CLIENT1, service, "f")?;
    }
    lab.mount(CLIENT2, &HOMES)?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    let records = lab.records(NFS_A)?;
    ensure!(records.len() == 2, "expected one record a client, found {records:?}");
    lab.wait_until_protected(NFS_A, &HOMES, 2)?;
    lab.wait_until_protected(NFS_A, &PROJECTS, 2)?;
    let number = lab.state_number(NFS_A)?;

    lab.power_loss(NFS_A)?;
    for (server, service) in [(NFS_B, &HOMES), (NFS_C, &PROJECTS)] {
        lab.attach(server, service)?;
        lab.adopt(server, service, "--prepare --owner-fenced")?;
        lab.address_up(server, service)?;
        let report = lab.adopt(server, service, "--finish")?;
        ensure!(report.clients == 2 && report.acknowledged == 2 && report.lost == 0, "{report:?}");
        check_new_number(report.state_number, &[number])?;
        lab.wait_for_locks(server, 1, RECLAIM_TIME_MAX)?;
    }
    lab.mount(CLIENT2, &PROJECTS)?;
    for service in [&HOMES, &PROJECTS] {
        lab.wait_until_grace_is_over(service)?;
        lab.expect_denied(CLIENT2, service, "f")?;
        lab.let_go(CLIENT1, service, "f")?;
        lab.expect_locked(CLIENT2, service, "f")?;
    }
    Ok(())
}
