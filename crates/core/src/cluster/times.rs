//! Whether Pacemaker waits as long for an action as the action may take.

use std::time::Duration;

use super::expected::ExpectedService;
use super::parts::Parts;
use super::remark::{Remark, Subject, by_tools};
use super::resources::{Cluster, Place, Resource};

pub(super) fn check(cluster: &Cluster, service: &ExpectedService, parts: &Parts) -> Vec<Remark> {
    let times = service.times;
    let mut remarks = Vec::new();
    for (places, needed) in [
        (
            &parts.services,
            [("start", times.service_start), ("stop", times.service_stop), ("monitor", times.monitor)],
        ),
        (
            &parts.notifies,
            [("start", times.notify_start), ("stop", times.notify_stop), ("monitor", times.monitor)],
        ),
    ] {
        for resource in places.iter().map(|place| cluster.get(*place)) {
            let short =
                needed.iter().filter_map(|(action, needed)| too_short(resource, service, action, *needed));
            remarks.extend(short);
            remarks.extend(unmonitored(resource, service));
        }
    }
    remarks.extend(prepared(cluster, service, parts));
    remarks
}

fn too_short(
    resource: &Resource,
    service: &ExpectedService,
    action: &str,
    needed: Duration,
) -> Option<Remark> {
    let (id, name) = (&resource.id, &service.name);
    let seconds = needed.as_secs();
    let interval = if action == "monitor" { "5s" } else { "0" };
    let remedy = by_tools(
        format!("pcs resource update {id} op {action} timeout={seconds}s interval={interval}"),
        format!("crm configure set {id}.{action}.timeout {seconds}s"),
    );
    let harm = match (resource.kind.as_str(), action) {
        (_, "monitor") => "a look that is late restarts the service, and NFS with it",
        ("service", "start") => "a start that is ended early is begun anew elsewhere, while grace goes by",
        ("service", "stop") => "a stop that is ended early gets the node fenced",
        (_, "start") => "a start that is ended early takes the address away from clients that are being told",
        _ => "a stop that is ended early gets the node fenced",
    };
    let Some(given) = resource.timeout(action) else {
        let found = format!("{name}: the time-out of {id}'s {action} is no time that can be read: {harm}");
        return Some(Remark::warning(Subject::Times, found, remedy));
    };
    (given < needed).then(|| {
        let found = format!(
            "{name}: Pacemaker waits {} s for the {action} of {id}, which may take {seconds} s: {harm}",
            given.as_secs_f64()
        );
        Remark::warning(Subject::Times, found, remedy)
    })
}

fn unmonitored(resource: &Resource, service: &ExpectedService) -> Option<Remark> {
    if resource.has_operation("monitor") {
        return None;
    }
    let (id, look) = (&resource.id, service.times.monitor.as_secs());
    Some(Remark::warning(
        Subject::Times,
        format!(
            "{}: {id} has no monitor: crm_mon never shows clients that are lost, and a service that another node took over stays here",
            service.name
        ),
        by_tools(
            format!("pcs resource op add {id} monitor timeout={look}s interval=5s"),
            format!("crm configure monitor {id} 5s:{look}s"),
        ),
    ))
}

/// `prepared-time` says how long it may take until clients can be told. Pacemaker must not give up before that.
fn prepared(cluster: &Cluster, service: &ExpectedService, parts: &Parts) -> Option<Remark> {
    let (Some(from), Some(to)) = (parts.services.first(), parts.notifies.first()) else { return None };
    let is_between = |place: &Place| {
        cluster.relations.comes_before(*from, *place)
            && (place == to || cluster.relations.comes_before(*place, *to))
    };
    let between: Vec<&Resource> =
        (0..cluster.resources.len()).filter(is_between).map(|place| cluster.get(place)).collect();
    let given =
        between.iter().filter_map(|one| one.timeout("start")).fold(Duration::ZERO, Duration::saturating_add);
    let slowest = between.iter().find(|one| one.kind != "notify")?;
    (given < service.prepared_time).then(|| {
        let (given, wanted) = (given.as_secs_f64(), service.prepared_time.as_secs_f64());
        Remark::warning(
            Subject::Times,
            format!(
                "{}: lock-manager.prepared-time says that up to {wanted} s pass until clients are told, and Pacemaker waits {given} s for all that comes behind ocf:heirlock:service",
                service.name
            ),
            format!(
                "set a longer time-out for the start of {}, or a shorter prepared-time in heirlock.toml; {}",
                slowest.id,
                by_tools(
                    format!("pcs resource update {} op start timeout={wanted}s interval=0", slowest.id),
                    format!("crm configure set {}.start.timeout {wanted}s", slowest.id)
                )
            ),
        )
    })
}
