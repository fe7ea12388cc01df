//! What is switched off, or left over, so that a failover does not come about.

use super::configuration::Wanted;
use super::expected::ExpectedService;
use super::parts::Parts;
use super::remark::{Remark, Subject, by_tools};
use super::resources::{Cluster, Place, Resource};

/// Properties of the whole cluster.
pub(super) fn of_cluster(cluster: &Cluster) -> Vec<Remark> {
    let mut remarks = Vec::new();
    if cluster.property_is_on("maintenance-mode") == Some(true) {
        remarks.push(Remark::warning(
            Subject::State,
            "maintenance-mode is on: Pacemaker starts nothing elsewhere when a node dies, and stops nothing",
            by_tools(
                "pcs property set maintenance-mode=false",
                "crm configure property maintenance-mode=false",
            ),
        ));
    }
    if cluster.property_is_on("stop-all-resources") == Some(true) {
        remarks.push(Remark::warning(
            Subject::State,
            "stop-all-resources is on: no service runs",
            by_tools(
                "pcs property set stop-all-resources=false",
                "crm configure property stop-all-resources=false",
            ),
        ));
    }
    remarks
}

/// Resources of a service.
pub(super) fn check(cluster: &Cluster, service: &ExpectedService, parts: &Parts) -> Vec<Remark> {
    let name = &service.name;
    let all = parts.all();
    let (off, on): (Vec<Place>, Vec<Place>) =
        all.iter().partition(|place| cluster.get(**place).is_disabled());
    let mut remarks = Vec::new();
    match (off.first(), on.is_empty()) {
        (Some(_), true) => remarks.push(Remark::note(
            Subject::State,
            format!("{name}: all its resources are switched off (target-role), so it runs on no node"),
            "that is as it should be where it is meant to be off",
        )),
        _ => remarks.extend(off.iter().map(|place| switched_off(cluster.get(*place), service))),
    }
    let unmanaged = all.iter().map(|place| cluster.get(*place)).filter(|one| !one.is_managed());
    remarks.extend(unmanaged.map(|one| {
        let id = &one.id;
        Remark::warning(
            Subject::State,
            format!("{name}: Pacemaker leaves {id} alone (is-managed or maintenance): the service is not taken over when its node dies"),
            by_tools(format!("pcs resource manage {id}"), format!("crm resource manage {id}")),
        )
    }));
    remarks.extend(left_over(cluster, service, &all));
    remarks
}

fn switched_off(resource: &Resource, service: &ExpectedService) -> Remark {
    let id = &resource.id;
    let harm = match resource.kind.as_str() {
        "notify" if resource.provider == "heirlock" => "clients are never told to get their locks back",
        _ => "the service does not come up",
    };
    Remark::loses_locks(
        Subject::State,
        format!(
            "{}: {id} is switched off (target-role), and the rest of the service is not: {harm}",
            service.name
        ),
        by_tools(format!("pcs resource enable {id}"), format!("crm resource start {id}")),
    )
}

/// Constraints that programs have left behind: an earlier move (crm_resource(8), `--move` and `--ban`), or DRBD's handler
/// (crm-fence-peer.sh), which forbids the promotion of a copy that is not up to date.
fn left_over(cluster: &Cluster, service: &ExpectedService, all: &[Place]) -> Vec<Remark> {
    let name = &service.name;
    let is_below = |place: &Place| {
        let relations = &cluster.relations;
        all.iter().any(|one| one == place || relations.are_together(*one, *place))
    };
    let concerns = |resource: &str| cluster.named(resource).iter().any(is_below);
    let mut remarks = Vec::new();
    for one in cluster.configuration.locations.iter().filter(|one| concerns(&one.resource)) {
        let resource = &one.resource;
        if one.id.starts_with("cli-") {
            let node = one.node.as_deref().unwrap_or("some nodes");
            let what = if one.wanted == Wanted::Never { "keeps it away from" } else { "binds it to" };
            remarks.push(Remark::note(
                Subject::State,
                format!(
                    "{name}: an earlier move of {resource} has left a constraint behind that {what} {node}"
                ),
                format!("crm_resource --resource {resource} --clear"),
            ));
        } else if one.id.starts_with("drbd-fence-by-handler") {
            remarks.push(Remark::warning(
                Subject::State,
                format!(
                    "{name}: DRBD forbids the promotion of {resource} on nodes whose copy is not up to date (constraint {}): until it is, no other node can take the service over",
                    one.id
                ),
                "look at 'drbdadm status' on both nodes and let the copy come up to date: DRBD takes the constraint away itself",
            ));
        }
    }
    remarks
}
