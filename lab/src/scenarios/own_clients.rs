//! The adoptive server has clients of its own. Its recognition of other clients' locks drops theirs, so they
//! are told as well, under the server's own name and a number of its own.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};

use super::stage::RECLAIM_TIME_MAX;
use crate::capture::MOSTLY_WATCH;
use crate::cluster::{
    CLIENT1, CLIENT2, Cluster, HOMES, NFS_A, NFS_B, PROJECTS, SETUP, Service, Setup, check_new_number,
};
use crate::release::Release;
use crate::scenario::{EVERYWHERE, Scenario};

/// With a restart of NFS, and what `notify` says to it.
pub const OWN_CLIENTS: Scenario = Scenario {
    name: "own-clients",
    about: "the adoptive server's own client keeps its lock under restart-nfs; notify refuses where no grace is open",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: MOSTLY_WATCH,
    run: |lab| own_clients(lab, "restart-nfs"),
};

/// With SIGKILL to lockd. Where that is ignored, crash-restart-lock-manager shows the refusal.
pub const OWN_CLIENTS_LOCK_MANAGER: Scenario = Scenario {
    name: "own-clients-lock-manager",
    about: "the adoptive server's own client keeps its lock under restart-lock-manager",
    needs_heirlock: true,
    releases: &[Release::Bookworm],
    captures: MOSTLY_WATCH,
    run: |lab| own_clients(lab, "restart-lock-manager"),
};

/// The export of nfs-b under its own name and address.
const OWN: Service = Service { address: Ipv4Addr::new(10, 99, 0, 2), ..PROJECTS };

/// heirlock's name for it.
const OWN_NAME: &str = "host.nfs-b";

fn own_clients(lab: &mut Cluster, strategy: &'static str) -> Result<()> {
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1, CLIENT2])?;
    lab.serve(NFS_A, &HOMES)?;
    lab.end_grace(NFS_A)?;
    lab.attach(NFS_B, &OWN)?;
    lab.start_nfs(NFS_B)?;
    lab.end_grace(NFS_B)?;
    let setup = Setup { strategy, ..SETUP };
    lab.protect(NFS_A, &setup)?;
    lab.protect(NFS_B, &Setup { strategy: "notify", ..SETUP })?;
    lab.mount(CLIENT1, &HOMES)?;
    lab.hold(CLIENT1, &HOMES, "f")?;
    lab.mount(CLIENT2, &OWN)?;
    lab.hold(CLIENT2, &OWN, "f")?;
    lab.mount(CLIENT1, &OWN)?;
    lab.expect_denied(CLIENT1, &OWN, "f")?;
    lab.wait_until_protected(NFS_A, &HOMES, 1)?;
    lab.wait_for("two own clients in the store", RECLAIM_TIME_MAX, || {
        Ok((lab.status(NFS_B)?.of_name(OWN_NAME)?.records == 2).then_some(()))
    })?;
    let (number_a, number_b) = (lab.state_number(NFS_A)?, lab.state_number(NFS_B)?);

    lab.power_loss(NFS_A)?;
    lab.attach(NFS_B, &HOMES)?;
    let said = lab.adopt_refused(NFS_B, &HOMES, "--owner-fenced")?;
    ensure!(said.contains("no grace period is open") && said.contains("restart-nfs"), "{said}");
    ensure!(lab.locks(NFS_B)? == 1, "a refused adoption must drop nothing");

    lab.end_agent(NFS_B, "TERM")?;
    lab.configure(NFS_B, &setup)?;
    lab.start_agent(NFS_B)?;
    lab.adopt(NFS_B, &HOMES, "--prepare --owner-fenced")?;
    lab.address_up(NFS_B, &HOMES)?;
    let report = lab.adopt(NFS_B, &HOMES, "--finish")?;
    // client1 is a client of nfs-b's own as well: where lockd itself lives on, it need not register a second time.
    // client2 too: while homes is claimed and its address may be here already, a lock through it would hide behind the
    // record that client2 has, for a record belongs to every service of its lock manager.
    ensure!(report.clients == 2 && report.acknowledged == 2 && report.lost == 0, "{report:?}");
    ensure!(report.phase == "settled", "{report:?}");
    check_new_number(report.state_number, &[number_a])?;
    let own = report.others.iter().find(|other| other.service == OWN_NAME);
    let own = own.with_context(|| format!("expected {OWN_NAME} in {report:?}"))?;
    // client1 was only refused the lock: it has a record there, and is told in vain.
    ensure!(own.clients == 2 && own.acknowledged == 2 && own.missed == 0, "{own:?}");
    check_new_number(own.state_number, &[number_b])?;

    lab.wait_for_locks(NFS_B, 2, RECLAIM_TIME_MAX)?;
    lab.expect_denied(CLIENT1, &OWN, "f")?;
    lab.wait_until_grace_is_over(&HOMES)?;
    lab.mount(CLIENT2, &HOMES)?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    lab.expect_denied(CLIENT1, &OWN, "f")?;
    lab.let_go(CLIENT2, &OWN, "f")?;
    lab.expect_locked(CLIENT1, &OWN, "f")
}
