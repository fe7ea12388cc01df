//! The status of an agent in one line, as `systemctl status` shows it.

use crate::control::report::{ServiceStatus, StatusReport};
use crate::limits::SYSTEMD_STATUS_CHARS_MAX;
use crate::words::counted;

/// One line, without control characters: systemd takes a line for an assignment of its own.
pub(super) fn in_short(report: &StatusReport) -> String {
    let mut said = vec![services(&report.services)];
    said.push(match (&report.store.error, report.protected_since_s) {
        (Some(why), _) => format!("the store fails: {why}"),
        (None, Some(_)) => "every new client is on record".to_owned(),
        (None, None) => "some clients may not be on record".to_owned(),
    });
    if !report.at_risk.is_empty() {
        said.push(format!("{} at risk", counted(report.at_risk.len(), "client")));
    }
    if report.maintenance {
        said.push("in maintenance".to_owned());
    }
    if !report.problems.is_empty() {
        said.push(format!("{}, see 'heirlock status'", counted(report.problems.len(), "problem")));
    }
    one_line(&said.join("; "))
}

fn one_line(text: &str) -> String {
    let mut characters = text.chars();
    let shown = characters.by_ref().take(SYSTEMD_STATUS_CHARS_MAX);
    let mut line: String = shown.map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.push_str(if characters.next().is_some() { "…" } else { "" });
    line
}

fn services(services: &[ServiceStatus]) -> String {
    let adopting = services.iter().find(|service| service.clients_to_tell.is_some());
    if let Some(ServiceStatus { service, phase, clients_to_tell, clients_told, .. }) = adopting {
        let (told, all) = (clients_told.unwrap_or(0), counted(clients_to_tell.unwrap_or(0), "client"));
        return format!("adopts {service} ({}): {told} of {all} told", phase.as_deref().unwrap_or("begins"));
    }
    let held = services.iter().filter(|service| service.held && service.configured);
    let held: Vec<String> =
        held.map(|service| format!("{} ({})", service.service, counted(service.records, "client"))).collect();
    match held.is_empty() {
        true => "holds no service that moves".to_owned(),
        false => format!("holds {}", held.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::report::{Problem, ProblemKind};

    #[test]
    fn it_says_what_is_held_and_whether_clients_are_on_record() {
        let mut report = StatusReport::without_agent("nfs-b", "the folder /srv/heirlock");
        assert_eq!(in_short(&report), "holds no service that moves; some clients may not be on record");
        let service = ServiceStatus {
            service: "homes".into(),
            held: true,
            configured: true,
            records: 200,
            ..ServiceStatus::default()
        };
        report.services = vec![service];
        report.protected_since_s = Some(5);
        assert_eq!(in_short(&report), "holds homes (200 clients); every new client is on record");
        report.services[0].clients_to_tell = Some(200);
        report.services[0].clients_told = Some(1);
        report.services[0].phase = Some("notifying".into());
        report.problems = vec![Problem::new(ProblemKind::NoRoom)];
        assert_eq!(
            in_short(&report),
            "adopts homes (notifying): 1 of 200 clients told; every new client is on record; 1 problem, see 'heirlock \
             status'"
        );
    }

    #[test]
    fn an_error_can_say_nothing_to_systemd() {
        let mut report = StatusReport::without_agent("nfs-b", "x");
        report.store.error = Some("no\nWATCHDOG=trigger\nMAINPID=1".into());
        let said = in_short(&report);
        assert!(!said.contains('\n') && said.contains("WATCHDOG=trigger"), "{said}");
        report.store.error = Some("x".repeat(100_000));
        assert_eq!(in_short(&report).chars().count(), SYSTEMD_STATUS_CHARS_MAX + 1);
    }
}
