//! `heirlock doctor` and clusters: the configurations of the guide, and what is done to them.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::capture::WATCH_ALONE;
use crate::cluster::{Cluster, FAILED, Finding, HOMES, NFS_A, NFS_B, NFS_C, Name, SETUP, Setup};
use crate::documented::{Documented, Page, Tool, expect_pacemaker};
use crate::release::Release;
use crate::scenario::Scenario;
use crate::wire::Ending;

/// The guide's configurations are those that heirlock's own tests look at.
pub const DOCUMENTED_CLUSTERS: Scenario = Scenario {
    name: "documented-clusters",
    about: "every configuration of Pacemaker that the guide gives is taken by its tool, verified, and the one that the tests of doctor look at",
    needs_heirlock: true,
    releases: &[Release::Bookworm],
    captures: WATCH_ALONE,
    run: documented_clusters,
};

/// `doctor` within a cluster that runs.
pub const PACEMAKER_DOCTOR: Scenario = Scenario {
    name: "pacemaker-doctor",
    about: "doctor finds nothing wrong in a cluster that runs as the guide has it, and finds a fence that is switched off and an agent that is taken away",
    needs_heirlock: true,
    releases: &[Release::Bookworm],
    captures: WATCH_ALONE,
    run: doctor,
};

/// Where the tests of `doctor` have them.
const CIBS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/heirlock/src/guard/cluster/cibs");

/// Configurations with other names and another layout.
const OTHERS: [(Tool, &str, &str); 2] = [
    (
        Tool::Crmsh,
        "constraints-crmsh",
        include_str!("../../../crates/heirlock/src/guard/cluster/cibs/constraints.crm"),
    ),
    (
        Tool::Pcs,
        "two-groups-pcs",
        include_str!("../../../crates/heirlock/src/guard/cluster/cibs/two-groups.pcs"),
    ),
];

/// Set, it has the files written anew.
const REWRITE: &str = "HEIRLOCK_REWRITE";

const PAIR: &[Name] = &[NFS_A, NFS_B];

/// Pacemaker places the service and fences.
const PLACED: Setup = Setup { home: None, fence: false, ..SETUP };

fn documented_clusters(lab: &mut Cluster) -> Result<()> {
    expect_pacemaker()?;
    for (tool, word) in [(Tool::Crmsh, "crmsh"), (Tool::Pcs, "pcs")] {
        let pair = |titles: &[&str]| Documented::listings(tool, titles)?.with_power_switch(PAIR);
        look(lab, &format!("form-a-{word}"), &pair(&["fence", "homes"])?, PAIR)?;
        look(lab, &format!("form-b-{word}"), &pair(&["fence", "homes, form B"])?, PAIR)?;
        let with_drbd = Documented::of_page(Page::Drbd, tool, &["homes"])?;
        look(lab, &format!("drbd-{word}"), &pair(&["fence"])?.and(with_drbd)?, PAIR)?;
        let three = Documented::listings(tool, &["fence", "homes"])?;
        let three = three.and(Documented::of_page(Page::ThreeNodes, tool, &["third node"])?)?;
        let all = [NFS_A, NFS_B, NFS_C];
        look(lab, &format!("three-nodes-{word}"), &three.with_power_switch(&all)?, &all)?;
    }
    for (tool, name, text) in OTHERS {
        let documented = Documented::listings(tool, &["fence"])?.and(Documented::written(tool, text))?;
        look(lab, name, &documented.with_power_switch(PAIR)?, PAIR)?;
    }
    Ok(())
}

/// Makes a configuration, and compares it with the one of the tests.
fn look(lab: &Cluster, name: &str, documented: &Documented, nodes: &[Name]) -> Result<()> {
    let made = lab.made_of(documented, nodes).with_context(|| name.to_owned())?;
    let made = without_times(&made);
    let file = Path::new(CIBS).join(format!("{name}.xml"));
    if std::env::var_os(REWRITE).is_some() {
        std::fs::write(&file, &made)?;
    }
    let known = std::fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
    if known != made {
        bail!("{} is not what the guide makes; with {REWRITE}=1 it is written anew", file.display());
    }
    lab.say(format!("{name} is as the tests of doctor have it"));
    Ok(())
}

/// Without what differs from one making to the next: the root element says when, by whom and by which version.
fn without_times(cib: &str) -> String {
    let (_, inside) = cib.split_once('>').unwrap_or_default();
    format!("<cib>{}\n", inside.trim_end())
}

fn doctor(lab: &mut Cluster) -> Result<()> {
    let documented = Documented::listings(Tool::Crmsh, &["fence", "homes"])?;
    lab.with_pacemaker(PAIR, &documented.for_service(&HOMES)?.with_power_switch(PAIR)?)?;
    lab.switch_on(PAIR)?;
    lab.prepare_volume(NFS_A, &HOMES)?;
    for node in PAIR {
        lab.start_nfs(node)?;
        lab.end_grace(node)?;
        lab.protect(node, &PLACED)?;
    }
    expect(lab, NFS_A, &[])?;
    lab.start_pacemaker(PAIR)?;
    lab.wait_until_runs(NFS_A, "homes-notify", NFS_A)?;
    for node in PAIR {
        expect(lab, node, &[])?;
    }

    let set = |name: &str, value: &str| {
        let command = format!("crm_attribute --type crm_config --name {name} --update {value}");
        lab.ok(NFS_A, &command).map(drop)
    };
    set("stonith-enabled", "false")?;
    expect(lab, NFS_B, &[("cluster-fence", "loses-locks")])?;
    set("stonith-enabled", "true")?;
    expect(lab, NFS_B, &[])?;
    // So nothing is stopped while the group is changed.
    set("maintenance-mode", "true")?;
    expect(lab, NFS_A, &[("cluster-state", "warning")])?;
    lab.ok(NFS_A, "cibadmin --delete --xpath \"//primitive[@id='homes-service']\"")?;
    expect(lab, NFS_A, &[("cluster-agents", "loses-locks"), ("cluster-state", "warning")])?;
    lab.expect_no_fence()
}

/// What `doctor` says of the cluster on a node: these findings, besides what is well or worth a note.
fn expect(lab: &Cluster, node: Name, expected: &[(&str, &str)]) -> Result<()> {
    let called = lab.heirlock(node, "doctor --json")?;
    let all: Vec<Finding> = called.parsed()?;
    let of_cluster: Vec<&Finding> = all.iter().filter(|one| one.check.starts_with("cluster")).collect();
    ensure!(!of_cluster.is_empty(), "doctor on {node} says nothing of the cluster: {all:?}");
    let mut wrong: Vec<(&str, &str)> = of_cluster
        .iter()
        .filter(|one| !["ok", "note"].contains(&one.severity.as_str()))
        .map(|one| (one.check.as_str(), one.severity.as_str()))
        .collect();
    wrong.sort_unstable();
    ensure!(wrong == expected, "expected {expected:?} on {node}, found {of_cluster:?}");
    if expected.iter().any(|(_, severity)| *severity == "loses-locks") {
        ensure!(
            called.ending == Ending::Exit(FAILED),
            "locks will be lost, and doctor ended with {:?}",
            called.ending
        );
    }
    let wrong: Vec<String> = wrong.iter().map(|(check, severity)| format!("{check}: {severity}")).collect();
    lab.say(match wrong.as_slice() {
        [] => format!("doctor on {node} has no complaint of the cluster"),
        _ => format!("doctor on {node}: {}", wrong.join(", ")),
    });
    Ok(())
}
