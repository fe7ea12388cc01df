//! How a server, its store, its services and the other servers are now.

use heirlock_agent::control::report::{
    AilmentKind, DrillStatus, Heart, Level, LockManagerStatus, Problem, ProblemKind, ServerStatus,
    ServiceStatus, StatusReport,
};
use heirlock_core::drill::Verdict;
use heirlock_core::takeover::Phase;

use super::family::{Family, number};
use super::truth;
use crate::limits::{LOCK_MANAGERS_MAX, SERVERS_MAX, SERVICES_MAX};

pub(super) fn families(status: Option<&StatusReport>) -> Vec<Family> {
    let services: &[ServiceStatus] = status.map_or(&[], |status| &status.services);
    let services = &services[..services.len().min(SERVICES_MAX)];
    let servers: &[ServerStatus] = status.map_or(&[], |status| &status.servers);
    let servers = &servers[..servers.len().min(SERVERS_MAX)];
    let mut families = of_server(status);
    families.extend(of_protection(status));
    families.push(problems(status));
    families.extend(of_services(services));
    families.extend(of_adoptions(services));
    families.extend(of_other_servers(status, servers));
    families.extend(of_drills(status));
    let left_out = |status: &StatusReport| {
        status.services.len().saturating_sub(SERVICES_MAX)
            + status.servers.len().saturating_sub(SERVERS_MAX)
            + status.lock_managers.len().saturating_sub(LOCK_MANAGERS_MAX)
    };
    let help = "Services, servers and lock managers that have no metrics, since there are too many.";
    families.push(
        Family::gauge("heirlock_left_out", help).with_some(&[], status.map(|status| count(left_out(status)))),
    );
    families
}

fn of_server(status: Option<&StatusReport>) -> Vec<Family> {
    let of = |value: fn(&StatusReport) -> f64| status.map(value);
    let mut info = Family::gauge("heirlock_build_info", "The server and the version of its agent.");
    if let Some(status) = status {
        info = info.with(&[("server", &status.server), ("version", &status.version)], 1.0);
    }
    vec![
        info,
        Family::gauge("heirlock_loop_age_seconds", "How long ago the loop of the agent last turned.")
            .with_some(&[], status.and_then(|status| status.loop_turned_ms_ago).map(seconds)),
        Family::gauge(
            "heirlock_look_age_seconds",
            "How long ago the directory of the status monitor was last seen.",
        )
        .with_some(&[], status.and_then(|status| status.looked_ms_ago).map(seconds)),
        Family::gauge(
            "heirlock_maintenance",
            "Whether this server is in maintenance: its silence is no reason to adopt.",
        )
        .with_some(&[], of(|status| truth(status.maintenance))),
        of_each_lock_manager(
            Family::gauge("heirlock_lock_manager_serving", "Whether the lock manager serves clients."),
            status,
            |manager| manager.serving,
        ),
        of_each_lock_manager(
            Family::gauge(
                "heirlock_lock_manager_needed",
                "Whether something that is held here needs the lock manager.",
            ),
            status,
            |manager| manager.needed,
        ),
        Family::gauge("heirlock_store_up", "Whether the store works: all that was to be written is durable.")
            .with_some(&[], of(|status| truth(status.store.well))),
    ]
}

/// A sample without a label where there is one lock manager; of several a sample each, with the name as its label.
fn of_each_lock_manager(
    family: Family,
    status: Option<&StatusReport>,
    of: fn(&LockManagerStatus) -> bool,
) -> Family {
    let Some(status) = status else { return family };
    if status.lock_managers.is_empty() {
        return family.with(&[], truth(of(&status.lock_manager)));
    }
    let named = status.lock_managers.iter().take(LOCK_MANAGERS_MAX);
    named
        .fold(family, |family, named| family.with(&[("lock_manager", &named.name)], truth(of(&named.status))))
}

fn of_protection(status: Option<&StatusReport>) -> Vec<Family> {
    let at_risk = |status: &StatusReport| {
        let counted = status.problems.iter().find(|problem| problem.kind == ProblemKind::ClientsAtRisk);
        let counted = counted.and_then(|problem| problem.clients).unwrap_or(0);
        count(counted.max(status.at_risk.len()))
    };
    vec![
        Family::gauge("heirlock_protected", "Whether every client that registers here is on record.")
            .with_some(&[], status.map(|status| truth(status.protected_since_s.is_some()))),
        Family::gauge(
            "heirlock_protected_since_timestamp_seconds",
            "Since when every client that registers here is on record, in seconds since 1970.",
        )
        .with_some(&[], status.and_then(|status| status.protected_since_s).map(number)),
        Family::gauge(
            "heirlock_unprotected_since_timestamp_seconds",
            "Since when new clients are unprotected, in seconds since 1970.",
        )
        .with_some(&[], status.and_then(|status| status.store.unprotected_since_s).map(number)),
        Family::gauge(
            "heirlock_clients_at_risk",
            "Clients that got locks and that the store does not know of.",
        )
        .with_some(&[], status.map(at_risk)),
    ]
}

/// How many problems there are of each kind, with a zero for the others: an alert needs a value before it.
fn problems(status: Option<&StatusReport>) -> Family {
    let mut family = Family::gauge("heirlock_problems", "Problems that the agent names, by kind and level.");
    let Some(status) = status else { return family };
    for kind in ProblemKind::ALL {
        let level = match Problem::new(kind).level() {
            Level::Well => "well",
            Level::Attention => "attention",
            Level::Unprotected => "unprotected",
        };
        let found = status.problems.iter().filter(|problem| problem.kind == kind).count();
        family = family.with(&[("kind", kind.as_str()), ("level", level)], count(found));
    }
    family
}

/// A gauge with a sample for each service that has a value.
fn of_each(
    services: &[ServiceStatus],
    name: &'static str,
    help: &'static str,
    value: impl Fn(&ServiceStatus) -> Option<f64>,
) -> Family {
    let family = Family::gauge(name, help);
    services
        .iter()
        .fold(family, |family, service| family.with_some(&[("service", &service.service)], value(service)))
}

fn of_services(services: &[ServiceStatus]) -> Vec<Family> {
    let mut owners = Family::gauge("heirlock_service_owner_info", "The server that holds a service.");
    for service in services {
        if let Some(owner) = &service.owner {
            owners = owners.with(&[("service", &service.service), ("owner", owner)], 1.0);
        }
    }
    let if_held = |service: &ServiceStatus, value: usize| service.held.then(|| count(value));
    vec![
        owners,
        of_each(services, "heirlock_service_held", "Whether this server holds a service.", |service| {
            Some(truth(service.held))
        }),
        of_each(
            services,
            "heirlock_service_movable",
            "Whether a service may move to another server.",
            |service| Some(truth(service.configured)),
        ),
        of_each(services, "heirlock_service_generation", "The generation of a service.", |service| {
            service.generation.map(number)
        }),
        of_each(
            services,
            "heirlock_service_clients",
            "Clients on record, of a service that is held here.",
            |service| if_held(service, service.records),
        ),
        of_each(
            services,
            "heirlock_service_leaving_clients",
            "Clients on record that seem to have left, of a service that is held here.",
            |service| if_held(service, service.tombstones),
        ),
        of_each(
            services,
            "heirlock_service_unreachable_clients",
            "Clients that did not answer in the last adoption and have not come back since.",
            |service| if_held(service, service.unreachable),
        ),
        of_each(
            services,
            "heirlock_service_lost_clients",
            "Clients that were not told in time in the last adoption and have not come back since.",
            |service| if_held(service, service.lost),
        ),
    ]
}

fn of_adoptions(services: &[ServiceStatus]) -> Vec<Family> {
    let mut phases = Family::gauge(
        "heirlock_service_phase",
        "How far the adoption of a service is, or how the last one ended.",
    );
    for service in services {
        let Some(now) = &service.phase else { continue };
        for phase in Phase::ALL.map(Phase::as_str) {
            phases =
                phases.with(&[("service", &service.service), ("phase", phase)], truth(phase == now.as_str()));
        }
    }
    let of_count = |value: Option<usize>| value.map(count);
    vec![
        phases,
        of_each(
            services,
            "heirlock_service_adopting",
            "Whether an adoption of a service is on here.",
            |service| Some(truth(service.clients_to_tell.is_some())),
        ),
        of_each(
            services,
            "heirlock_service_awaits_finish",
            "Whether an adoption waits for adopt --finish.",
            |service| Some(truth(service.awaits_finish)),
        ),
        of_each(
            services,
            "heirlock_service_clients_to_tell",
            "Clients that the adoption that is on is to tell.",
            |service| of_count(service.clients_to_tell),
        ),
        of_each(
            services,
            "heirlock_service_clients_told",
            "Clients that the adoption that is on has told.",
            |service| of_count(service.clients_told),
        ),
        of_each(
            services,
            "heirlock_service_grace_left_seconds",
            "How much of the grace period is left.",
            |service| service.grace_left_ms.map(seconds),
        ),
        of_each(
            services,
            "heirlock_service_adopted_timestamp_seconds",
            "When the last adoption of a service here began, in seconds since 1970.",
            |service| service.adopted_at_s.map(number),
        ),
    ]
}

/// The last drill of each service.
fn of_drills(status: Option<&StatusReport>) -> Vec<Family> {
    let drills = status.map_or(&[][..], |status| &status.drills);
    let drills = &drills[..drills.len().min(SERVICES_MAX)];
    let of_each = |name: &'static str, help: &'static str, value: fn(&DrillStatus) -> Option<f64>| {
        let family = Family::gauge(name, help);
        drills
            .iter()
            .fold(family, |family, drill| family.with_some(&[("service", &drill.service)], value(drill)))
    };
    let mut results =
        Family::gauge("heirlock_drill_result", "What the last drill of a service here amounted to.");
    for drill in drills {
        for verdict in Verdict::ALL {
            let labels = [("service", drill.service.as_str()), ("result", verdict.as_str())];
            results = results.with(&labels, truth(drill.verdict == verdict));
        }
    }
    vec![
        of_each(
            "heirlock_drill_timestamp_seconds",
            "When the last drill of a service here began, in seconds since 1970.",
            |drill| Some(number(drill.at_s)),
        ),
        results,
        of_each("heirlock_drill_duration_seconds", "How long the last drill took.", |drill| {
            Some(seconds(drill.took_ms))
        }),
        of_each("heirlock_drill_clients", "Clients on record, at the last drill.", |drill| {
            Some(count(drill.clients))
        }),
        of_each(
            "heirlock_drill_unreached_clients",
            "Clients that an adoption would not have told, at the last drill.",
            |drill| Some(count(drill.left_out)),
        ),
        of_each(
            "heirlock_drill_adoption_seconds",
            "How long an adoption would take until the last client is told, by the last drill.",
            |drill| drill.until_told_ms.map(seconds),
        ),
    ]
}

/// Whether another server could take something over, by its own heartbeat: it beats, and ails from nothing.
fn is_ready(server: &ServerStatus) -> bool {
    matches!(server.heart, Heart::Beating) && server.ailments.is_empty()
}

const HEARTS: [(Heart, &str); 6] = [
    (Heart::Beating, "beating"),
    (Heart::Late, "late"),
    (Heart::Silent, "silent"),
    (Heart::Paused, "paused"),
    (Heart::Unknown, "unknown"),
    (Heart::NeverSeen, "never-seen"),
];

const AILMENTS: [(AilmentKind, &str); 4] = [
    (AilmentKind::MonitorDirectoryUnreadable, "monitor-directory-unreadable"),
    (AilmentKind::StoreFails, "store-fails"),
    (AilmentKind::NoLockManager, "no-lock-manager"),
    (AilmentKind::Other, "other"),
];

fn of_other_servers(status: Option<&StatusReport>, servers: &[ServerStatus]) -> Vec<Family> {
    let mut hearts =
        Family::gauge("heirlock_server_heart", "The heart of another server, as far as it is known.");
    let mut ages = Family::gauge(
        "heirlock_server_heartbeat_age_seconds",
        "How long ago the heart of another server was last seen to beat.",
    );
    let mut ailments =
        Family::gauge("heirlock_server_ailments", "Ailments that another server tells, by kind.");
    for server in servers {
        let name = ("server", server.server.as_str());
        for (heart, word) in HEARTS {
            hearts = hearts.with(&[name, ("state", word)], truth(server.heart == heart));
        }
        ages = ages.with_some(&[name], server.last_beat_age_ms.map(seconds));
        for (kind, word) in AILMENTS {
            let found = server.ailments.iter().filter(|ailment| ailment.kind == kind).count();
            ailments = ailments.with(&[name, ("kind", word)], count(found));
        }
    }
    let ready =
        |status: &StatusReport| count(status.servers.iter().filter(|server| is_ready(server)).count());
    vec![
        Family::gauge("heirlock_other_servers", "Other servers that the store knows.")
            .with_some(&[], status.map(|status| count(status.servers.len()))),
        Family::gauge(
            "heirlock_other_servers_ready",
            "Other servers whose heart beats and that tell no ailment.",
        )
        .with_some(&[], status.map(ready)),
        hearts,
        ages,
        ailments,
    ]
}

fn count(number: usize) -> f64 {
    number as f64
}

fn seconds(ms: u64) -> f64 {
    number(ms) / 1_000.0
}
