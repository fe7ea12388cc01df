//! The store is gone. heirlock as status monitor refuses the lock that it could not protect, and no other client
//! suffers.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::stage::{expect_lock_count, without_store};
use crate::busy::stretched;
use crate::capture::NSM_ALONE;
use crate::cluster::{CLIENT1, CLIENT2, CLIENT3, Cluster, HOMES, Lock, NFS_A, NFS_B, PROJECTS, SETUP, Setup};
use crate::scenario::{EVERYWHERE, Scenario};

/// One server refuses, another grants.
pub const REFUSED: Scenario = Scenario {
    name: "refused",
    about: "the store is gone: a new client's process gets ENOLCK, known ones go on; or, as configured, it is granted and named",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: NSM_ALONE,
    run,
};

/// The client at risk.
const AT_RISK: &str = "10.99.0.22";

/// As long as `mon-timeout`, and a second for the machine.
const REFUSAL_TIME_MAX: Duration = Duration::from_millis(1500);

/// How long a process that is known may wait: nothing is written for it.
const KNOWN_TIME_MAX: Duration = Duration::from_secs(1);

fn run(lab: &mut Cluster) -> Result<()> {
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1, CLIENT2, CLIENT3])?;
    let grants = Setup { services: &[PROJECTS], home: Some(NFS_B), when_unprotected: "grant", ..SETUP };
    for (server, service, setup) in [(NFS_A, &HOMES, &SETUP), (NFS_B, &PROJECTS, &grants)] {
        lab.serve(server, service)?;
        lab.end_grace(server)?;
        lab.protect(server, setup)?;
    }
    lab.mount(CLIENT1, &HOMES)?;
    lab.mount(CLIENT2, &HOMES)?;
    lab.mount(CLIENT3, &HOMES)?;
    lab.mount(CLIENT2, &PROJECTS)?;
    lab.hold(CLIENT1, &HOMES, "f")?;
    lab.wait_until_protected(NFS_A, &HOMES, 1)?;

    without_store(lab, || {
        refuses(lab)?;
        grants_and_names(lab)
    })?;
    lab.wait_for("a server that grants again", Duration::from_secs(10), || {
        Ok((lab.try_lock(CLIENT2, &HOMES, "g")? == Lock::Locked).then_some(()))
    })?;
    ensure!(lab.stored(&HOMES)?.contains_key("10.99.0.22"), "granted before the store knew it");
    lab.expect_denied(CLIENT3, &HOMES, "f")?;
    ensure!(lab.stored(&HOMES)?.contains_key("10.99.0.23"), "answered before the store knew it");
    lab.wait_for("a client that is no more at risk", Duration::from_secs(10), || {
        let status = lab.status(NFS_B)?;
        let well = status.store.well && !status.at_risk.iter().any(|client| client.client == AT_RISK);
        Ok((well && lab.stored(&PROJECTS)?.contains_key("10.99.0.22")).then_some(()))
    })
}

/// New clients get ENOLCK in time; a known one goes on.
fn refuses(lab: &Cluster) -> Result<()> {
    for (client, file) in [(CLIENT2, "g"), (CLIENT2, "g"), (CLIENT3, "h")] {
        let (got, took) = lab.time_lock(client, &HOMES, file)?;
        // ENOLCK
        ensure!(
            got == Lock::Failed("FAILED No locks available (os error 37)".to_owned()),
            "expected no lock for {client}, found {got:?}"
        );
        ensure!(took < stretched(REFUSAL_TIME_MAX), "{client} waited for {took:?}");
        let (got, took) = lab.time_lock(CLIENT1, &HOMES, "h")?;
        ensure!(
            got == Lock::Locked && took < stretched(KNOWN_TIME_MAX),
            "a known client suffers: {got:?} {took:?}"
        );
    }
    expect_lock_count(lab, NFS_A, 1)?;
    let status = lab.status(NFS_A)?;
    ensure!(!status.store.well && status.says("clients-refused"), "I8, nothing is silent: {status:?}");
    Ok(())
}

/// `when-unprotected = "grant"`.
fn grants_and_names(lab: &Cluster) -> Result<()> {
    lab.hold(CLIENT2, &PROJECTS, "f")?;
    let status = lab.status(NFS_B)?;
    ensure!(
        !status.store.well && status.at_risk.iter().any(|client| client.client == AT_RISK),
        "I8, nothing is silent: {status:?}"
    );
    Ok(())
}
