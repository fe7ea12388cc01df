//! Servers under a real Pacemaker: the configuration that the guide gives, stock resource agents for volume, exports and
//! address, and a fence that kills the other node's kernel.

use anyhow::{Result, ensure};

use super::stage::{RECLAIM_TIME_MAX, expect_lock_count};
use crate::capture::{Capture, Captures, MOSTLY_WATCH, WATCH_ALONE};
use crate::cluster::{CLIENT1, CLIENT2, Cluster, HOMES, NFS_A, NFS_B, NFS_C, Name, PROJECTS, SETUP, Setup};
use crate::documented::{Documented, Tool};
use crate::limits::GROUP_TIME_MAX;
use crate::release::Release;
use crate::scenario::Scenario;
use crate::witness::Witness;

/// The node that has the service dies.
pub const PACEMAKER_CRASH: Scenario = Scenario {
    name: "pacemaker-crash",
    about: "a node of Pacemaker dies, is fenced, and the other one takes its service over; the lock is kept",
    needs_heirlock: true,
    releases: &[Release::Bookworm],
    captures: MOSTLY_WATCH,
    run: crash,
};

/// The same group without heirlock.
pub const PACEMAKER_CRASH_CONTROL: Scenario = Scenario {
    name: "pacemaker-crash-control",
    about: "control: the same group without heirlock; two clients end up with the same exclusive lock",
    needs_heirlock: false,
    releases: &[Release::Bookworm],
    captures: WATCH_ALONE,
    run: crash_control,
};

/// Moved by an administrator, and back while the clients are being told.
pub const PACEMAKER_MOVE: Scenario = Scenario {
    name: "pacemaker-move",
    about: "a service is moved to the other node of Pacemaker, and back before its clients have settled; no node is fenced",
    needs_heirlock: true,
    releases: &[Release::Bookworm],
    captures: MOSTLY_WATCH,
    run: moves,
};

/// The fence of the dead node fails, until a person confirms that it is off.
pub const PACEMAKER_FENCE_FAILS: Scenario = Scenario {
    name: "pacemaker-fence-fails",
    about: "the fence of a dead node fails: nothing is claimed until a person confirms that it is off",
    needs_heirlock: true,
    releases: &[Release::Bookworm],
    captures: MOSTLY_WATCH,
    run: fence_fails,
};

/// heirlock's agent is killed, and comes back.
pub const PACEMAKER_AGENT_DIES: Scenario = Scenario {
    name: "pacemaker-agent-dies",
    about: "heirlock's agent is killed under Pacemaker: the resources are degraded, and nothing is stopped or moved",
    needs_heirlock: true,
    releases: &[Release::Bookworm],
    captures: MOSTLY_WATCH,
    run: agent_dies,
};

/// Both groups of a node that dies.
pub const PACEMAKER_TWO_GROUPS: Scenario = Scenario {
    name: "pacemaker-two-groups",
    about: "a node of Pacemaker dies that has two services; both are started elsewhere at the same time, and each lock is kept",
    needs_heirlock: true,
    releases: &[Release::Bookworm],
    captures: MOSTLY_WATCH,
    run: two_groups,
};

/// The NFS server is one of the group's resources.
pub const PACEMAKER_NFSSERVER: Scenario = Scenario {
    name: "pacemaker-nfsserver",
    about: "the NFS server moves with the service, as the stock resource agent has it; the lock is kept over a crash",
    needs_heirlock: true,
    releases: &[Release::Bookworm],
    // The resource agent starts rpc.statd and fails where none runs, so heirlock can't be the status monitor (docs/guide/pacemaker.md).
    captures: Captures { usual: &[Capture::Watch], possible: &[Capture::Watch, Capture::Callout] },
    run: nfsserver,
};

/// Two deaths, one after the other.
pub const PACEMAKER_THREE_NODES: Scenario = Scenario {
    name: "pacemaker-three-nodes",
    about: "of three nodes of Pacemaker the one with the service dies, and then the one that took it over; the lock is kept",
    needs_heirlock: true,
    releases: &[Release::Bookworm],
    captures: MOSTLY_WATCH,
    run: three_nodes,
};

/// Pacemaker places the service and fences.
pub(super) const PLACED: Setup = Setup { home: None, fence: false, ..SETUP };

pub(super) const NODES: [Name; 2] = [NFS_A, NFS_B];

/// The code of a resource that is active and needs somebody's attention.
const DEGRADED: i32 = 190;

/// The last member of the group.
pub(super) const LAST: &str = "homes-notify";

fn crash(lab: &mut Cluster) -> Result<()> {
    lab.with_pacemaker(&NODES, &form_a(Tool::Crmsh)?)?;
    begin(lab, Some(&PLACED), LAST)?;
    lose_and_keep(lab)
}

/// The node that has the service dies, and the holder of the lock has it on the other one.
fn lose_and_keep(lab: &mut Cluster) -> Result<()> {
    lab.hold(CLIENT1, &HOMES, "f")?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    lab.wait_until_protected(NFS_A, &HOMES, 2)?;

    let witness = Witness::of(HOMES.address)?;
    let loss = lab.loss(NFS_B)?;
    lab.power_loss(NFS_A)?;
    lab.wait_until_fenced(NFS_A)?;
    lab.wait_for_locks(NFS_B, 1, GROUP_TIME_MAX)?;
    lab.wait_until_runs(NFS_B, LAST, NFS_B)?;
    lab.wait_for("both clients to be told", RECLAIM_TIME_MAX, || {
        Ok((witness.told().len() == 2).then_some(()))
    })?;
    lab.tell_timeline(NFS_B, &HOMES, loss, &witness)?;
    expect_kept(lab, NFS_B)
}

/// The lock that the first client has got back on this node is its own until it lets go of it.
pub(super) fn expect_kept(lab: &mut Cluster, node: Name) -> Result<()> {
    lab.wait_until_grace_is_over(&HOMES)?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    expect_lock_count(lab, node, 1)?;
    lab.expect_no_failure(node)?;
    lab.let_go(CLIENT1, &HOMES, "f")?;
    lab.expect_locked(CLIENT2, &HOMES, "f")
}

fn moves(lab: &mut Cluster) -> Result<()> {
    lab.with_pacemaker(&NODES, &form_a(Tool::Pcs)?)?;
    begin(lab, Some(&PLACED), LAST)?;
    lab.hold(CLIENT1, &HOMES, "f")?;
    // It is on record and has no lock to get back, so it is waited for until grace ends.
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    lab.wait_until_protected(NFS_A, &HOMES, 2)?;

    for (from, to) in [(NFS_A, NFS_B), (NFS_B, NFS_A)] {
        lab.ok(from, &format!("crm_resource --resource homes --move --node {to}"))?;
        lab.wait_until_runs(to, LAST, to)?;
        lab.wait_for_locks(to, 1, RECLAIM_TIME_MAX)?;
        lab.ok(to, "crm_resource --resource homes --clear")?;
        // So the way back begins while the clients of the way there are settling.
        let phase = lab.status(to)?.of(&HOMES)?.phase.clone();
        ensure!(phase.as_deref() == Some("settling"), "expected to be quicker than grace, found {phase:?}");
    }
    lab.wait_until_grace_is_over(&HOMES)?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    expect_lock_count(lab, NFS_A, 1)?;
    lab.expect_no_failure(NFS_A)?;
    lab.expect_no_fence()?;
    lab.let_go(CLIENT1, &HOMES, "f")?;
    lab.expect_locked(CLIENT2, &HOMES, "f")
}

fn fence_fails(lab: &mut Cluster) -> Result<()> {
    lab.with_pacemaker(&NODES, &form_a(Tool::Crmsh)?)?;
    begin(lab, Some(&PLACED), LAST)?;
    lab.hold(CLIENT1, &HOMES, "f")?;
    lab.wait_until_protected(NFS_A, &HOMES, 1)?;
    let before = lab.newest_generation(&HOMES)?;

    lab.break_power_switch(true);
    lab.power_loss(NFS_A)?;
    lab.wait_for("three fences that fail", GROUP_TIME_MAX, || {
        let asked = lab.switched().into_iter().filter(|one| one.is_fence() && one.guest == NFS_A).count();
        Ok((asked >= 3).then_some(()))
    })?;
    ensure!(lab.newest_generation(&HOMES)? == before, "the service was claimed, and no fence has worked");
    let started = lab.actions(NFS_B)?;
    let started: Vec<_> =
        started.iter().filter(|one| one.name == "start" && one.resource.starts_with("homes")).collect();
    ensure!(started.is_empty(), "expected nothing to be started, found {started:?}");
    lab.say("no fence has worked, and nothing is claimed");

    lab.ok(NFS_B, &format!("stonith_admin --confirm {NFS_A}"))?;
    lab.wait_until_runs(NFS_B, LAST, NFS_B)?;
    lab.wait_for_locks(NFS_B, 1, RECLAIM_TIME_MAX)?;
    lab.wait_until_grace_is_over(&HOMES)?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    expect_lock_count(lab, NFS_B, 1)?;
    let fences = lab.switched().into_iter().filter(|one| one.is_fence() && one.is_off).count();
    ensure!(fences == 0, "the switch was broken all the time, and says that {fences} fences worked");
    lab.let_go(CLIENT1, &HOMES, "f")?;
    lab.expect_locked(CLIENT2, &HOMES, "f")
}

fn agent_dies(lab: &mut Cluster) -> Result<()> {
    lab.with_pacemaker(&NODES, &form_a(Tool::Crmsh)?)?;
    begin(lab, Some(&PLACED), LAST)?;
    lab.hold(CLIENT1, &HOMES, "f")?;
    lab.wait_until_protected(NFS_A, &HOMES, 1)?;
    if lab.capture() == Capture::Nsm {
        // The status monitor goes with the agent and its supervisor, and lockd would refuse a client that it does not know yet.
        lab.expect_denied(CLIENT2, &HOMES, "f")?;
        lab.wait_until_protected(NFS_A, &HOMES, 2)?;
    }
    let life = lab.status(NFS_A)?.lock_manager.incarnation;
    let actions = |lab: &Cluster| -> Result<usize> {
        let all = lab.actions(NFS_A)?;
        Ok(all.iter().filter(|one| ["start", "stop"].contains(&one.name.as_str())).count())
    };
    let before = actions(lab)?;

    lab.end_agent(NFS_A, "KILL")?;
    for resource in ["homes-service", LAST] {
        lab.wait_until_monitored(NFS_A, resource, DEGRADED)?;
    }
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    lab.start_agent(NFS_A)?;
    for resource in ["homes-service", LAST] {
        lab.wait_until_monitored(NFS_A, resource, 0)?;
    }
    ensure!(
        actions(lab)? == before,
        "the cluster has started or stopped something: {:?}",
        lab.actions(NFS_A)?
    );
    ensure!(lab.runs_on(NFS_B, LAST)? == [NFS_A], "the group has moved");
    lab.expect_no_fence()?;
    let status = lab.status(NFS_A)?;
    ensure!(
        status.lock_manager.incarnation == life,
        "the lock manager's life was {life:?}, found {status:?}"
    );
    ensure!(status.of(&HOMES)?.held && status.of(&HOMES)?.records == 2, "{status:?}");
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    expect_lock_count(lab, NFS_A, 1)
}

fn crash_control(lab: &mut Cluster) -> Result<()> {
    let documented = form_a(Tool::Crmsh)?.without("homes-service")?.without(LAST)?;
    lab.with_pacemaker(&NODES, &documented)?;
    begin(lab, None, "homes-address")?;
    lab.hold(CLIENT1, &HOMES, "f")?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;

    lab.power_loss(NFS_A)?;
    lab.wait_until_fenced(NFS_A)?;
    lab.wait_until_runs(NFS_B, "homes-address", NFS_B)?;
    lab.wait_until_grace_is_over(&HOMES)?;
    lab.expect_locked(CLIENT2, &HOMES, "f")?;
    lab.ok(CLIENT1, "kill -0 \"$(cat /run/lab/hold.homes.f.pid)\" && grep -q LOCKED /run/lab/hold.homes.f")?;
    lab.say("two clients hold the same exclusive lock, and neither was told");
    Ok(())
}

fn two_groups(lab: &mut Cluster) -> Result<()> {
    let second = Documented::listings(Tool::Crmsh, &["homes"])?.for_service(&PROJECTS)?;
    lab.with_pacemaker(&NODES, &form_a(Tool::Crmsh)?.and(second)?)?;
    let setup = Setup { services: &[HOMES, PROJECTS], ..PLACED };
    begin(lab, Some(&setup), LAST)?;
    lab.wait_until_runs(NFS_A, "projects-notify", NFS_A)?;
    lab.end_grace(NFS_A)?;
    for service in [&HOMES, &PROJECTS] {
        if service == &PROJECTS {
            lab.mount(CLIENT1, service)?;
            lab.mount(CLIENT2, service)?;
        }
        lab.hold(CLIENT1, service, "f")?;
        lab.expect_denied(CLIENT2, service, "f")?;
        lab.wait_until_protected(NFS_A, service, 2)?;
    }

    lab.power_loss(NFS_A)?;
    lab.wait_until_fenced(NFS_A)?;
    for last in [LAST, "projects-notify"] {
        lab.wait_until_runs(NFS_B, last, NFS_B)?;
    }
    lab.wait_for_locks(NFS_B, 2, RECLAIM_TIME_MAX)?;
    for service in [&HOMES, &PROJECTS] {
        lab.wait_until_grace_is_over(service)?;
        lab.expect_denied(CLIENT2, service, "f")?;
    }
    expect_lock_count(lab, NFS_B, 2)?;
    lab.expect_no_failure(NFS_B)?;
    for service in [&HOMES, &PROJECTS] {
        lab.let_go(CLIENT1, service, "f")?;
        lab.expect_locked(CLIENT2, service, "f")?;
    }
    Ok(())
}

fn nfsserver(lab: &mut Cluster) -> Result<()> {
    let documented = Documented::listings(Tool::Crmsh, &["fence", "homes, form B"])?
        .for_service(&HOMES)?
        .with_power_switch(&NODES)?
        // No systemd runs in these guests.
        .with(
            "nfs_no_notify=true",
            "nfs_no_notify=true nfs_init_script=/opt/nfs-server rpcpipefs_dir=/run/rpc_pipefs",
        )?;
    lab.with_pacemaker(&NODES, &documented)?;
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1, CLIENT2])?;
    lab.prepare_volume(NFS_A, &HOMES)?;
    for node in NODES {
        lab.set_grace(node)?;
        lab.protect(node, &Setup { strategy: "notify", ..PLACED })?;
    }
    lab.start_pacemaker(&NODES)?;
    lab.wait_until_runs(NFS_A, LAST, NFS_A)?;
    lab.expect_no_fence()?;
    lab.end_grace(NFS_A)?;
    lab.mount(CLIENT1, &HOMES)?;
    lab.mount(CLIENT2, &HOMES)?;
    lose_and_keep(lab)
}

fn three_nodes(lab: &mut Cluster) -> Result<()> {
    const ALL: [Name; 3] = [NFS_A, NFS_B, NFS_C];
    lab.with_pacemaker(&ALL, &form_a(Tool::Crmsh)?.with_node(NFS_C, NFS_B)?)?;
    begin_on(lab, &ALL, Some(&PLACED), LAST)?;
    lab.hold(CLIENT1, &HOMES, "f")?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    lab.wait_until_protected(NFS_A, &HOMES, 2)?;

    lab.power_loss(NFS_A)?;
    lab.wait_until_fenced(NFS_A)?;
    let (second, third) = taken_by(lab, [NFS_B, NFS_C])?;
    lab.wait_for_locks(second, 1, RECLAIM_TIME_MAX)?;
    lab.wait_until_grace_is_over(&HOMES)?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;

    // Two of three must be members for the cluster to go on: the first one is back, and has nothing.
    lab.switch_on(&[NFS_A])?;
    lab.start_nfs(NFS_A)?;
    lab.protect(NFS_A, &PLACED)?;
    lab.ok(third, &format!("crm_standby --node {NFS_A} --update on"))?;
    lab.start_pacemaker(&[NFS_A])?;
    lab.power_loss(second)?;
    lab.wait_until_runs(third, LAST, third)?;
    lab.wait_for_locks(third, 1, RECLAIM_TIME_MAX)?;
    lab.wait_until_grace_is_over(&HOMES)?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    expect_lock_count(lab, third, 1)?;
    let fenced: Vec<_> = lab.switched().into_iter().filter(|one| one.is_fence() && one.is_off).collect();
    ensure!(
        fenced.iter().all(|one| one.guest == NFS_A || one.guest == second),
        "expected the dead nodes alone to be fenced, found {fenced:?}"
    );
    lab.let_go(CLIENT1, &HOMES, "f")?;
    lab.expect_locked(CLIENT2, &HOMES, "f")
}

/// Which of two nodes has taken the service over, and the other one.
fn taken_by(lab: &Cluster, [one, other]: [Name; 2]) -> Result<(Name, Name)> {
    lab.wait_for(&format!("{LAST} elsewhere"), GROUP_TIME_MAX, || {
        let nodes = lab.runs_on(one, LAST)?;
        Ok(match nodes.as_slice() {
            [node] if node == one => Some((one, other)),
            [node] if node == other => Some((other, one)),
            _ => None,
        })
    })
}

/// The group of the guide in which the NFS server is always on.
pub(super) fn form_a(tool: Tool) -> Result<Documented> {
    Documented::listings(tool, &["fence", "homes"])?.for_service(&HOMES)?.with_power_switch(&NODES)
}

/// All is up, Pacemaker has started the group on nfs-a, and both clients have mounted the service.
pub(super) fn begin(lab: &mut Cluster, setup: Option<&Setup>, last: &str) -> Result<()> {
    begin_on(lab, &NODES, setup, last)
}

fn begin_on(lab: &mut Cluster, nodes: &[Name], setup: Option<&Setup>, last: &str) -> Result<()> {
    lab.switch_on(&[nodes, &[CLIENT1, CLIENT2]].concat())?;
    for service in setup.map_or(&[HOMES][..], |setup| setup.services) {
        lab.prepare_volume(NFS_A, service)?;
    }
    for node in nodes {
        lab.start_nfs(node)?;
        lab.end_grace(node)?;
        if let Some(setup) = setup {
            lab.protect(node, setup)?;
        }
    }
    lab.start_pacemaker(nodes)?;
    lab.wait_until_runs(NFS_A, last, NFS_A)?;
    lab.expect_no_fence()?;
    lab.end_grace(NFS_A)?;
    lab.mount(CLIENT1, &HOMES)?;
    lab.mount(CLIENT2, &HOMES)
}
