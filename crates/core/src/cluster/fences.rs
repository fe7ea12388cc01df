//! Whether a node that is lost is confirmed off before its services are started elsewhere.

use std::collections::BTreeSet;

use super::remark::{Remark, Subject, by_tools};
use super::resources::{Cluster, Resource, duration};

pub(super) fn check(cluster: &Cluster) -> Vec<Remark> {
    if cluster.property_is_on("stonith-enabled") == Some(false) {
        return vec![Remark::loses_locks(
            Subject::Fence,
            "stonith-enabled is false: nothing confirms that a lost node is off, so two nodes may grant the same lock; ocf:heirlock:service adopts nothing that another node owns",
            by_tools("pcs property set stonith-enabled=true", "crm configure property stonith-enabled=true"),
        )];
    }
    let fences: Vec<&Resource> = cluster.resources.iter().filter(|one| one.is_fence()).collect();
    let by_watchdog = cluster.configuration.properties.get("stonith-watchdog-timeout");
    if by_watchdog.and_then(|time| duration(time)).is_some_and(|time| !time.is_zero()) {
        return vec![Remark::well(
            Subject::Fence,
            "a node that is lost is off once its watchdog has ended it",
        )];
    }
    let enabled: Vec<&Resource> = fences.iter().filter(|one| !one.is_disabled()).copied().collect();
    if enabled.is_empty() {
        let found = match fences.first() {
            None => "stonith is on, and there is no fence device: Pacemaker starts no resource, and none is taken over".to_owned(),
            Some(first) => format!(
                "stonith is on, and every fence device is switched off, {} first: a node that dies is never confirmed off, and none of its services is taken over",
                first.id
            ),
        };
        let remedy = match fences.first() {
            None => "create one for each node: docs/guide/pacemaker.md has an example".to_owned(),
            Some(first) => by_tools(
                format!("pcs resource enable {}", first.id),
                format!("crm resource start {}", first.id),
            ),
        };
        return vec![Remark::loses_locks(Subject::Fence, found, remedy)];
    }
    let off: Vec<&Resource> = fences.iter().filter(|one| one.is_disabled()).copied().collect();
    let uncovered = uncovered(cluster, &enabled);
    let is_for = |fence: &Resource, node: &String| nodes_of(fence).is_some_and(|nodes| nodes.contains(node));
    let mut remarks: Vec<Remark> = uncovered
        .iter()
        .map(|node| match off.iter().find(|one| is_for(one, node)) {
            Some(fence) => switched_off(fence, Some(node)),
            None => without_fence(node),
        })
        .collect();
    let is_needed = |one: &&&Resource| uncovered.iter().any(|node| is_for(one, node));
    remarks.extend(off.iter().filter(|one| !is_needed(one)).map(|one| switched_off(one, None)));
    if remarks.is_empty() {
        let names: Vec<&str> = enabled.iter().map(|one| one.id.as_str()).collect();
        remarks.push(Remark::well(
            Subject::Fence,
            format!("a lost node is confirmed off by {}", names.join(", ")),
        ));
    }
    remarks
}

fn without_fence(node: &str) -> Remark {
    Remark::loses_locks(
        Subject::Fence,
        format!(
            "no fence device is for the node {node}: when it dies it is never confirmed off, and none of its services is taken over"
        ),
        format!(
            "create a fence device with {node} in its pcmk_host_list, or correct the list of the one that is meant"
        ),
    )
}

/// A device that is switched off; with the node for which there is no other.
fn switched_off(fence: &Resource, node: Option<&String>) -> Remark {
    let id = &fence.id;
    let remedy = by_tools(format!("pcs resource enable {id}"), format!("crm resource start {id}"));
    match node {
        Some(node) => Remark::loses_locks(
            Subject::Fence,
            format!(
                "{id}, the only fence device for the node {node}, is switched off (target-role): when {node} dies it is never confirmed off, and none of its services is taken over"
            ),
            remedy,
        ),
        None => Remark::warning(
            Subject::Fence,
            format!("the fence device {id} is switched off (target-role)"),
            remedy,
        ),
    }
}

/// The nodes that a device is for, where its configuration says so; else it is asked itself which nodes it knows.
fn nodes_of(fence: &Resource) -> Option<BTreeSet<String>> {
    let given = ["pcmk_host_list", "pcmk_host_map"].map(|name| fence.parameters.get(name));
    if given == [None, None] {
        return None;
    }
    let words = given.into_iter().flatten().flat_map(|text| text.split([' ', ',', ';', '\t', '\n']));
    let names = words.filter_map(|word| word.split([':', '=']).next()).filter(|name| !name.is_empty());
    Some(names.map(str::to_owned).collect())
}

/// The nodes that no device is for, where every device says for which it is.
fn uncovered(cluster: &Cluster, fences: &[&Resource]) -> Vec<String> {
    let Some(covered) = fences.iter().map(|one| nodes_of(one)).collect::<Option<Vec<_>>>() else {
        return Vec::new();
    };
    let nodes = cluster.configuration.nodes.iter();
    nodes.filter(|node| covered.iter().all(|names| !names.contains(*node))).cloned().collect()
}
