//! Whether the cluster's nodes and heirlock's servers are the same, and whether only one of the two decides.

use super::configuration::Wanted;
use super::expected::{Expected, ExpectedService};
use super::parts::Parts;
use super::remark::{Remark, Subject};
use super::resources::Cluster;

pub(super) fn check(
    cluster: &Cluster,
    expected: &Expected,
    placed: &[(&ExpectedService, Parts)],
) -> Vec<Remark> {
    let mut remarks = vec![name(cluster, expected)];
    remarks.extend(silent_nodes(cluster, expected, placed));
    remarks.extend(hooks(expected));
    for (service, _) in placed {
        remarks.extend(decisions(service, expected));
    }
    remarks
}

/// An owner is looked for among the nodes by its server's name, and a start is refused where the names differ.
fn name(cluster: &Cluster, expected: &Expected) -> Remark {
    let (server, file) = (expected.server.as_str(), expected.file.display());
    let nodes = &cluster.configuration.nodes;
    let harm = "ocf:heirlock:service starts nothing here, and no other node believes that this one is off";
    match &expected.node {
        Some(node) if node != server => Remark::loses_locks(
            Subject::Node,
            format!("this node is {node} to the cluster, and {server} to heirlock: {harm}"),
            format!("set server = \"{node}\" in {file}, and restart the agent"),
        ),
        None if !nodes.is_empty() && nodes.iter().all(|node| node != server) => Remark::loses_locks(
            Subject::Node,
            format!("the cluster has no node {server}, but {}: {harm}", nodes.join(", ")),
            format!("set server to the name that 'crm_node --name' prints, in {file}, and restart the agent"),
        ),
        None if nodes.is_empty() => Remark::note(
            Subject::Node,
            "the cluster names no node: whether this server has its node's name is not known",
            "compare 'crm_node --name' with 'server' in the configuration",
        ),
        _ => Remark::well(Subject::Node, format!("{server} is a node of the cluster, by the same name")),
    }
}

/// Nodes that a service may come to, and that no server of heirlock runs on.
fn silent_nodes(cluster: &Cluster, expected: &Expected, placed: &[(&ExpectedService, Parts)]) -> Vec<Remark> {
    let Some(servers) = &expected.servers else { return Vec::new() };
    let is_server = |node: &str| {
        servers.iter().any(|server| server.as_str() == node) || expected.node.as_deref() == Some(node)
    };
    let mut remarks = Vec::new();
    for node in cluster.configuration.nodes.iter().filter(|node| !is_server(node)) {
        let comes: Vec<&str> = placed
            .iter()
            .filter(|(_, parts)| may_run(cluster, parts, node))
            .map(|(service, _)| service.name.as_str())
            .collect();
        if comes.is_empty() {
            continue;
        }
        remarks.push(Remark::warning(
            Subject::Node,
            format!(
                "Pacemaker may start {} on the node {node}, and no server of that name has ever written to the store: that start fails",
                comes.join(", ")
            ),
            format!("install heirlock there, with server = \"{node}\", and start its agent; or keep the service away from that node"),
        ));
    }
    remarks
}

fn may_run(cluster: &Cluster, parts: &Parts, node: &str) -> bool {
    let all = parts.all();
    let mut said = cluster.configuration.locations.iter().filter(|one| {
        one.node.as_deref() == Some(node)
            && cluster.named(&one.resource).iter().any(|place| all.contains(place))
    });
    match cluster.property_is_on("symmetric-cluster") {
        Some(false) => said.any(|one| one.wanted == Wanted::More),
        _ => said.all(|one| one.wanted != Wanted::Never),
    }
}

/// Hooks are common to all services.
fn hooks(expected: &Expected) -> Option<Remark> {
    let first = expected.hooks.first()?;
    let (all, file) = (expected.hooks.join(", hooks."), expected.file.display());
    // A fence that only an automatic adoption asks for harms nobody; that the service is automatic is said by itself.
    if expected.hooks == ["fence"] {
        return Some(Remark::note(
            Subject::Decisions,
            "hooks.fence is set, and Pacemaker fences: nothing of what it adopts asks for that hook",
            format!("take it out of {file}"),
        ));
    }
    Some(Remark::warning(
        Subject::Decisions,
        format!(
            "hooks.{all} {} set, and Pacemaker has resources for that: what a hook starts, Pacemaker neither knows nor stops",
            if expected.hooks.len() == 1 { "is" } else { "are" }
        ),
        format!(
            "take hooks.{first}{} out of {file}",
            if expected.hooks.len() == 1 { "" } else { " and the others" }
        ),
    ))
}

fn decisions(service: &ExpectedService, expected: &Expected) -> Vec<Remark> {
    let (name, file) = (&service.name, expected.file.display());
    let mut remarks = Vec::new();
    if service.has_home {
        remarks.push(Remark::warning(
            Subject::Decisions,
            format!("{name}: 'home' is set, and Pacemaker decides where it is: the agent at home claims it before Pacemaker has started it"),
            format!("take 'home' out of {file} on all nodes; a preference is a constraint of the cluster"),
        ));
    }
    if service.is_adopted_unasked {
        remarks.push(Remark::loses_locks(
            Subject::Decisions,
            format!("{name}: mode = \"automatic\", and Pacemaker moves it: both adopt it when its node dies, and it may come to two nodes"),
            format!("set mode = \"manual\" in {file} on all nodes, and restart the agents"),
        ));
    }
    remarks
}
