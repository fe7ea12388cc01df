//! Whether heirlock's resource agents are there for each service, once each, and nothing more.

use super::expected::{Expected, ExpectedService};
use super::parts::Parts;
use super::remark::{Remark, Subject, by_tools};
use super::resources::{Cluster, Place, Resource};

/// A service that no resource of the cluster serves.
pub(super) fn placed_nowhere(service: &ExpectedService) -> Remark {
    let name = &service.name;
    Remark::note(
        Subject::Service,
        format!(
            "{name}: no resource of the cluster brings one of its addresses or exports one of its paths: Pacemaker does not move it"
        ),
        "where Pacemaker is to move it, correct its addresses and exports, or the cluster's",
    )
}

/// Resources of heirlock's agents for services that this server does not know.
pub(super) fn of_unknown_services(cluster: &Cluster, expected: &Expected) -> Vec<Remark> {
    let ours = |one: &Resource| one.class == "ocf" && one.provider == "heirlock";
    let mut remarks = Vec::new();
    for place in cluster.places(ours) {
        let resource = cluster.get(place);
        let (id, file) = (&resource.id, expected.file.display());
        if let Some(other) = resource.parameters.get("config").filter(|other| **other != file.to_string()) {
            remarks.push(Remark::note(
                Subject::Agents,
                format!("{id} goes by the configuration {other}, and what is said here goes by {file}"),
                format!("ask with 'heirlock --config {other} doctor' as well"),
            ));
            continue;
        }
        let given = resource.parameters.get("service").map(String::as_str).unwrap_or_default();
        if given.is_empty() {
            remarks.push(Remark::loses_locks(
                Subject::Agents,
                format!("{id} has no parameter 'service': it starts on no node"),
                by_tools(
                    format!("pcs resource update {id} service=SERVICE"),
                    format!("crm resource param {id} set service SERVICE"),
                ),
            ));
        } else if expected.services.iter().all(|service| service.name.as_str() != given) {
            remarks.push(Remark::loses_locks(
                Subject::Agents,
                format!("{id} is for the service {given}, and {file} has no such service: it does not start on this node"),
                format!("add the service to {file}, as the other nodes have it, or correct the parameter 'service' of {id}"),
            ));
        }
    }
    remarks
}

/// Both agents must be there, once each, and not in a clone.
pub(super) fn check(cluster: &Cluster, service: &ExpectedService, parts: &Parts) -> Vec<Remark> {
    let mut remarks = Vec::new();
    if parts.services.is_empty() {
        remarks.push(missing_service(cluster, service, parts));
    }
    if parts.notifies.is_empty() {
        remarks.push(missing_notify(cluster, service, parts));
    }
    for places in [&parts.services, &parts.notifies] {
        remarks.extend(twice(cluster, service, places));
    }
    for place in parts.services.iter().chain(&parts.notifies).chain(&parts.addresses) {
        remarks.extend(in_clone(cluster.get(*place), service));
    }
    let missing = service
        .addresses
        .iter()
        .filter(|address| !parts.addresses.iter().any(|place| cluster.get(*place).brings(**address)));
    remarks.extend(missing.map(|address| {
        Remark::warning(
            Subject::Agents,
            format!(
                "{}: no resource of the cluster brings its address {address}: clients that mounted by it are not told, unless something else brings it in time",
                service.name
            ),
            "create a resource for it behind ocf:heirlock:service, or take the address out of the configuration on all servers",
        )
    }));
    remarks
}

fn missing_service(cluster: &Cluster, service: &ExpectedService, parts: &Parts) -> Remark {
    let name = &service.name;
    let new = New {
        id: cluster.free_name(&format!("{name}-service")),
        kind: "service",
        stop: service.times.service_stop,
    };
    let remedy = match parts.addresses.first().map(|place| cluster.get(*place)) {
        Some(address) => new.before(service, address, service.times.service_start),
        None => new.in_group(service, parts.group(cluster), service.times.service_start),
    };
    Remark::loses_locks(
        Subject::Agents,
        format!(
            "{name}: the cluster moves it, and has no ocf:heirlock:service for it: no lock survives a failover"
        ),
        remedy,
    )
}

fn missing_notify(cluster: &Cluster, service: &ExpectedService, parts: &Parts) -> Remark {
    let name = &service.name;
    let new = New {
        id: cluster.free_name(&format!("{name}-notify")),
        kind: "notify",
        stop: service.times.notify_stop,
    };
    Remark::loses_locks(
        Subject::Agents,
        format!(
            "{name}: the cluster moves it, and has no ocf:heirlock:notify for it: its clients are never told to get their locks back"
        ),
        new.in_group(service, parts.group(cluster), service.times.notify_start),
    )
}

/// A resource that is to be created.
struct New {
    id: String,
    kind: &'static str,
    stop: std::time::Duration,
}

impl New {
    fn created(&self, service: &ExpectedService, start: std::time::Duration) -> (String, String) {
        let Self { id, kind, stop } = self;
        let (start, stop, look) = (start.as_secs(), stop.as_secs(), service.times.monitor.as_secs());
        let operations = format!(
            "op start timeout={start}s interval=0 op stop timeout={stop}s interval=0 op monitor timeout={look}s interval=5s"
        );
        let name = &service.name;
        (
            format!("pcs resource create {id} ocf:heirlock:{kind} service={name} {operations}"),
            format!("crm configure primitive {id} ocf:heirlock:{kind} params service={name} {operations}"),
        )
    }

    fn in_group(&self, service: &ExpectedService, group: Option<&str>, start: std::time::Duration) -> String {
        let (pcs, crmsh) = self.created(service, start);
        let id = &self.id;
        match group {
            Some(group) => by_tools(
                format!("{pcs} --group {group}"),
                format!("{crmsh} && crm configure modgroup {group} add {id}"),
            ),
            None => format!("{}; and put it into a group with the rest of the service", by_tools(pcs, crmsh)),
        }
    }

    fn before(&self, service: &ExpectedService, address: &Resource, start: std::time::Duration) -> String {
        let (pcs, crmsh) = self.created(service, start);
        let (id, address_id) = (&self.id, &address.id);
        match &address.group {
            Some(group) => by_tools(
                format!("{pcs} --group {group} --before {address_id}"),
                format!("{crmsh} && crm configure modgroup {group} add {id} before {address_id}"),
            ),
            None => by_tools(
                format!(
                    "{pcs} && pcs constraint order start {id} then start {address_id} && pcs constraint colocation add {address_id} with {id} INFINITY"
                ),
                format!(
                    "{crmsh} && crm configure order {id}-then-{address_id} Mandatory: {id}:start {address_id}:start && crm configure colocation {address_id}-with-{id} inf: {address_id} {id}"
                ),
            ),
        }
    }
}

fn twice(cluster: &Cluster, service: &ExpectedService, places: &[Place]) -> Option<Remark> {
    let [first, second, ..] = places else { return None };
    let (first, second) = (cluster.get(*first), cluster.get(*second));
    Some(Remark::loses_locks(
        Subject::Agents,
        format!(
            "{}: both {} and {} are ocf:heirlock:{} for it: the stop of one undoes what the other one has started",
            service.name, first.id, second.id, first.kind
        ),
        format!(
            "keep one of them; {}",
            by_tools(
                format!("pcs resource delete {}", second.id),
                format!("crm resource stop {} && crm configure delete {}", second.id, second.id)
            )
        ),
    ))
}

fn in_clone(resource: &Resource, service: &ExpectedService) -> Option<Remark> {
    let clone = resource.clone.as_ref()?;
    Some(Remark::loses_locks(
        Subject::Agents,
        format!(
            "{}: {} is in the clone {}, which runs on several nodes at once: a service has one owner, and an address one place",
            service.name, resource.id, clone.id
        ),
        by_tools(
            format!("pcs resource unclone {}", clone.id),
            format!("crm configure delete {}, and create its resource anew without the clone", clone.id),
        ),
    ))
}

/// What is as it should be.
pub(super) fn well(cluster: &Cluster, service: &ExpectedService, parts: &Parts) -> Remark {
    let ids = |places: &[Place]| -> Vec<String> {
        places.iter().map(|place| cluster.get(*place).id.clone()).collect()
    };
    let chain: Vec<String> =
        [&parts.volumes, &parts.servers, &parts.exports, &parts.services, &parts.addresses, &parts.notifies]
            .into_iter()
            .map(|places| ids(places).join(" and "))
            .filter(|part| !part.is_empty())
            .collect();
    Remark::well(
        Subject::Service,
        format!("{}: Pacemaker starts {} in this order, on one node", service.name, chain.join(", ")),
    )
}
