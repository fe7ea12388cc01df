//! What the two resource agents decide by: the status of this server's agent, and the cluster's word on another node. No call
//! is made here.

use super::code::{Code, Verdict};
use crate::control::report::{ServiceStatus, StatusReport};
use crate::pacemaker::NodeState;

/// How a service stands, for `start` of `ocf:heirlock:service`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// It is prepared here, or beyond that: there is nothing to do.
    Prepared,
    /// It may be prepared as it is: no server owns it, or this one does.
    Free,
    /// This server owns it, and it must be confirmed off first.
    Owned(String),
    /// This server does not know the service.
    Unknown,
}

/// See [`Before`].
pub(super) fn before_start(status: &StatusReport, service: &str) -> Before {
    let Some(found) = find(status, service).filter(|found| found.configured) else { return Before::Unknown };
    match &found.owner {
        _ if found.held && (found.awaits_finish || is_told(found)) => Before::Prepared,
        Some(owner) if *owner != status.server => Before::Owned(owner.clone()),
        _ => Before::Free,
    }
}

/// Whether the cluster confirms that an owner is off: only then its claim counts no more. Else the answer of `start`.
///
/// A fence that worked, and a person's `stonith_admin --confirm`, leave `expected="down"` behind. The history of fences is no
/// proof: it shows the success of an earlier one.
pub(super) fn confirmed_off(owner: &str, service: &str, node: &NodeState) -> Result<(), Verdict> {
    let why = match node {
        NodeState::Known { is_online: false, is_expected_down: true } => return Ok(()),
        NodeState::Known { is_online: true, .. } => "is a member of the cluster and has not released it",
        NodeState::Known { .. } => "is lost, and no fence has confirmed that it is off",
        NodeState::Unknown => {
            "is no node of this cluster; 'server' in its heirlock.toml must be its node name"
        }
    };
    Err(Verdict::failed(format!("{owner} owns {service} and {why}")))
}

/// The answer of `monitor` of `ocf:heirlock:service`, for one that was started. A failure would take the address away and restart
/// the NFS server: the clients are spared that while their locks are not another server's.
pub(super) fn monitor_service(status: &StatusReport, service: &str) -> Verdict {
    let Some(found) = find(status, service) else {
        return Verdict::of(Code::Degraded, format!("the store does not show {service} now"));
    };
    if !found.held {
        return match &found.owner {
            Some(owner) if *owner != status.server => Verdict::failed(format!("{owner} owns {service} now")),
            // Its agent has just begun, or its store fails.
            Some(_) => Verdict::of(Code::Degraded, unread(status, service)),
            None if found.released_by.is_some() => Verdict::failed(format!("{service} was released by hand")),
            None => Verdict::of(Code::Degraded, unread(status, service)),
        };
    }
    if let Some(error) = status.store.error.as_ref().filter(|_| !status.store.well) {
        return Verdict::of(
            Code::Degraded,
            format!("the store fails, and new clients are not on record: {error}"),
        );
    }
    if let Some(first) = status.at_risk.first() {
        let more = match status.at_risk.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let why = format!("at risk: {}{more} hold locks and are not on record", first.client);
        return Verdict::of(Code::Degraded, why);
    }
    Verdict::success()
}

fn unread(status: &StatusReport, service: &str) -> String {
    let why = status.store.error.as_deref().unwrap_or("its agent has not read it yet");
    format!("the store does not show whose {service} is: {why}")
}

/// How far an adoption is, for `start` of `ocf:heirlock:notify`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Telling {
    /// It waits for `--finish`.
    Waits,
    /// It goes on, and no client is told yet.
    Begins,
    /// Clients are being told, or were.
    Told,
    /// It can't come to that.
    Never(String),
}

/// See [`Telling`].
pub(super) fn telling(status: &StatusReport, service: &str) -> Telling {
    let Some(found) = find(status, service).filter(|found| found.held) else {
        return Telling::Never(format!(
            "{service} is not held by this server: ocf:heirlock:service comes first"
        ));
    };
    if let Some(why) = &found.failure {
        return Telling::Never(format!("the adoption failed: {why}"));
    }
    match () {
        () if found.awaits_finish => Telling::Waits,
        () if is_told(found) => Telling::Told,
        () => Telling::Begins,
    }
}

/// The answer of `monitor` of `ocf:heirlock:notify`, for one that was started.
pub(super) fn monitor_notify(status: &StatusReport, service: &str) -> Verdict {
    let Some(found) = find(status, service) else { return Verdict::success() };
    let counts: Vec<String> = [(found.lost, "lost"), (found.unreachable, "unreachable")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if counts.is_empty() {
        return Verdict::success();
    }
    let names: Vec<&str> = found.missed.iter().take(3).map(|missed| missed.client.as_str()).collect();
    let names = if names.is_empty() { String::new() } else { format!(" ({}…)", names.join(", ")) };
    let why = format!("clients of {service}: {}{names}; see 'heirlock report {service}'", counts.join(", "));
    Verdict::of(Code::Degraded, why)
}

/// Whether clients are being told, or were, without a failure.
fn is_told(found: &ServiceStatus) -> bool {
    let told = ["notifying", "settling", "settled"];
    found.failure.is_none() && found.phase.as_deref().is_some_and(|phase| told.contains(&phase))
}

fn find<'a>(status: &'a StatusReport, service: &str) -> Option<&'a ServiceStatus> {
    status.services.iter().find(|found| found.service == service)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::report::ClientStatus;

    fn status(change: impl FnOnce(&mut ServiceStatus)) -> StatusReport {
        let mut service = ServiceStatus {
            service: "homes".into(),
            owner: Some("nfs-b".into()),
            held: true,
            configured: true,
            phase: Some("settled".into()),
            ..ServiceStatus::default()
        };
        change(&mut service);
        StatusReport { services: vec![service], ..StatusReport::without_agent("nfs-b", "/srv/heirlock") }
    }

    fn is_anothers(service: &mut ServiceStatus) {
        (service.owner, service.held) = (Some("nfs-a".into()), false);
    }

    #[test]
    fn a_service_is_prepared_once_and_taken_from_no_owner_unasked() {
        let begun = |phase: &str| {
            let phase = phase.to_owned();
            status(|service| service.phase = Some(phase))
        };
        for phase in ["notifying", "settling", "settled"] {
            assert_eq!(before_start(&begun(phase), "homes"), Before::Prepared, "{phase}");
        }
        let prepared = status(|service| {
            (service.phase, service.awaits_finish) = (Some("proved".into()), true);
        });
        assert_eq!(before_start(&prepared, "homes"), Before::Prepared);
        assert_eq!(before_start(&begun("claimed"), "homes"), Before::Free, "the agent has it join its run");
        let failed = status(|service| service.failure = Some("grace was too short".into()));
        assert_eq!(before_start(&failed, "homes"), Before::Free, "it is begun once more");
        let free = status(|service| (service.owner, service.held) = (None, false));
        assert_eq!(before_start(&free, "homes"), Before::Free);
        assert_eq!(before_start(&status(is_anothers), "homes"), Before::Owned("nfs-a".into()));
        assert_eq!(before_start(&status(|_| {}), "projects"), Before::Unknown);
        assert_eq!(before_start(&status(|service| service.configured = false), "homes"), Before::Unknown);
    }

    #[test]
    fn an_owner_counts_as_off_only_by_the_clusters_word_on_that_node() {
        let known = |is_online, is_expected_down| NodeState::Known { is_online, is_expected_down };
        assert_eq!(confirmed_off("nfs-a", "homes", &known(false, true)), Ok(()));
        for (node, part) in [
            (known(true, false), "is a member"),
            (known(true, true), "is a member"),
            (known(false, false), "no fence has confirmed"),
            (NodeState::Unknown, "is no node of this cluster"),
        ] {
            let refused = confirmed_off("nfs-a", "homes", &node).unwrap_err();
            assert_eq!(refused.code, Code::Failed);
            let why = refused.why.unwrap();
            assert!(why.starts_with("nfs-a owns homes and") && why.contains(part), "{why}");
        }
    }

    #[test]
    fn a_monitored_service_fails_only_where_it_is_gone_from_here() {
        let code = |status: &StatusReport| monitor_service(status, "homes").code;
        assert_eq!(code(&status(|_| {})), Code::Success);
        assert_eq!(code(&status(is_anothers)), Code::Failed);
        let released = |service: &mut ServiceStatus| {
            (service.owner, service.held, service.released_by) = (None, false, Some("nfs-b".into()));
        };
        assert_eq!(code(&status(released)), Code::Failed);
        assert_eq!(code(&status(|service| service.held = false)), Code::Degraded, "it was not read yet");
        assert_eq!(code(&status(|service| (service.owner, service.held) = (None, false))), Code::Degraded);
        assert_eq!(code(&StatusReport { services: Vec::new(), ..status(|_| {}) }), Code::Degraded);
        let mut failing = status(|_| {});
        (failing.store.well, failing.store.error) = (false, Some("No space left".into()));
        assert_eq!(code(&failing), Code::Degraded);
        let client = ClientStatus {
            client: "192.0.2.7".into(),
            names: Vec::new(),
            outcome: None,
            since_s: None,
            why: None,
        };
        let at_risk = StatusReport { at_risk: vec![client.clone(), client], ..status(|_| {}) };
        let verdict = monitor_service(&at_risk, "homes");
        assert_eq!(verdict.code, Code::Degraded);
        assert_eq!(verdict.why.unwrap(), "at risk: 192.0.2.7 and 1 more hold locks and are not on record");
    }

    #[test]
    fn clients_are_told_once_the_service_is_prepared_and_never_after_a_failure() {
        let of = |change: fn(&mut ServiceStatus)| telling(&status(change), "homes");
        assert_eq!(of(|_| {}), Telling::Told);
        assert_eq!(of(|service| service.awaits_finish = true), Telling::Waits);
        assert_eq!(of(|service| service.phase = Some("proved".into())), Telling::Begins);
        assert!(matches!(of(is_anothers), Telling::Never(_)));
        let failed = of(|service| service.failure = Some("no --finish came".into()));
        assert_eq!(failed, Telling::Never("the adoption failed: no --finish came".into()));
    }

    #[test]
    fn clients_that_were_not_told_degrade_the_resource_and_are_counted() {
        assert_eq!(monitor_notify(&status(|_| {}), "homes"), Verdict::success());
        let missed = monitor_notify(&status(|service| (service.lost, service.unreachable) = (2, 1)), "homes");
        assert_eq!(missed.code, Code::Degraded);
        assert!(missed.why.unwrap().starts_with("clients of homes: 2 lost, 1 unreachable;"));
    }
}
