//! What must start before what, and run on the node of what.

use super::expected::ExpectedService;
use super::parts::Parts;
use super::remark::{Remark, Subject, by_tools};
use super::resources::{Cluster, Place, Resource};

/// Two kinds of resources of one service, the first of which must come first.
struct Pair<'a> {
    first: &'a [Place],
    then: &'a [Place],
    /// What happens else.
    harm: &'static str,
}

pub(super) fn check(cluster: &Cluster, service: &ExpectedService, parts: &Parts) -> Vec<Remark> {
    let pair = |first, then, harm| Pair { first, then, harm };
    let absent = "its start finds a volume that is not mounted, and the service is adopted nowhere";
    let pairs = [
        pair(&parts.volumes[..], &parts.services[..], absent),
        pair(
            &parts.store_volumes,
            &parts.services,
            "heirlock's store lies on that volume, and without a store nothing is adopted",
        ),
        pair(
            &parts.servers,
            &parts.exports,
            "the start of the NFS server drops all exports that are in no file, and clients get stale handles",
        ),
        pair(
            &parts.servers,
            &parts.services,
            "no grace period is open yet, and one that opens later finds clients that were told before it",
        ),
        pair(
            &parts.exports,
            &parts.services,
            "the adoption is refused while a path is not exported, and the service is adopted nowhere",
        ),
        pair(
            &parts.services,
            &parts.addresses,
            "a client that reaches this server before its grace period is open may take a lock that another client still holds",
        ),
        pair(
            &parts.addresses,
            &parts.notifies,
            "clients are told from the address, so they are told too late or not at all",
        ),
        // Where there is an address it stands between them.
        pair(
            if parts.addresses.is_empty() { &parts.services } else { &[] },
            &parts.notifies,
            "there is no adoption yet whose clients it could tell",
        ),
    ];
    let mut remarks = Vec::new();
    for pair in pairs {
        for first in pair.first {
            for then in pair.then {
                remarks.extend(one(cluster, service, (*first, *then), pair.harm));
            }
        }
    }
    remarks.extend(apart(cluster, service, parts));
    remarks
}

fn one(
    cluster: &Cluster,
    service: &ExpectedService,
    (first, then): (Place, Place),
    harm: &str,
) -> Option<Remark> {
    let relations = &cluster.relations;
    if relations.comes_before(first, then) {
        return None;
    }
    let is_reversed = relations.comes_before(then, first);
    let (first, then) = (cluster.get(first), cluster.get(then));
    let how = match is_reversed {
        true => format!("{} is started before {}", then.id, first.id),
        false => format!("nothing has {} wait until {} is started", then.id, first.id),
    };
    Some(Remark::loses_locks(
        Subject::Order,
        format!("{}: {how}: {harm}", service.name),
        reorder(first, then, is_reversed),
    ))
}

fn reorder(first: &Resource, then: &Resource, is_reversed: bool) -> String {
    let (a, b) = (&first.id, &then.id);
    match (&first.group, &then.group) {
        (Some(one), Some(other)) if one == other && is_reversed => by_tools(
            format!("pcs resource group add {one} {a} --before {b}"),
            format!(
                "crm configure modgroup {one} remove {a} && crm configure modgroup {one} add {a} before {b}"
            ),
        ),
        (Some(one), Some(other)) if one == other => {
            format!("take 'ordered=false' away from the group {one}")
        }
        _ if is_reversed => {
            format!("take the constraint away by which {b} comes first, then {}", ordered(a, b))
        }
        _ => ordered(a, b),
    }
}

fn ordered(first: &str, then: &str) -> String {
    by_tools(
        format!("pcs constraint order start {first} then start {then}"),
        format!("crm configure order {first}-then-{then} Mandatory: {first}:start {then}:start"),
    )
}

/// Each part of the service that the cluster may start on another node than the rest.
fn apart(cluster: &Cluster, service: &ExpectedService, parts: &Parts) -> Vec<Remark> {
    let Some(with) = parts.services.first().or(parts.addresses.first()) else { return Vec::new() };
    let is_apart = |place: &Place| {
        let resource = cluster.get(*place);
        // Of a clone there is one on this node too; that an agent or an address is cloned is said elsewhere.
        resource.clone.is_none() && !cluster.relations.are_together(*place, *with)
    };
    let remark = |place: Place| {
        let (part, with) = (&cluster.get(place).id, &cluster.get(*with).id);
        Remark::loses_locks(
            Subject::Order,
            format!(
                "{}: nothing keeps {part} on the node of {with}: where they come apart, locks are recovered on one node and clients reach the other",
                service.name
            ),
            by_tools(
                format!("pcs constraint colocation add {part} with {with} INFINITY"),
                format!("crm configure colocation {part}-with-{with} inf: {part} {with}"),
            ),
        )
    };
    parts.all().into_iter().filter(is_apart).map(remark).collect()
}
