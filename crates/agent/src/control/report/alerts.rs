//! Alerts: what an administrator is to be told of without having asked, made from the statuses of an agent one after the other.
//!
//! A condition is told when it begins, and again after a restart of the agent while it lasts. An event is told once, and only where
//! this agent has seen it come about: a store that can't be read for a while makes no event of what it shows later.

use std::collections::{BTreeMap, BTreeSet};

use heirlock_core::limits::SERVICES_MAX;
use heirlock_core::takeover::Phase;
use serde::Serialize;

use super::{ClientStatus, ServiceStatus, StatusReport};
use crate::limits::{ALERT_CLIENTS_MAX, UNPROTECTED_ALERT_AFTER_S};
use crate::words::counted;

/// The kinds of alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertKind {
    /// A condition: new clients are not on record, for longer than an agent needs at its start.
    Unprotected,
    /// An event: they are again.
    ProtectedAgain,
    /// A condition: clients hold locks and are not on record.
    AtRisk,
    /// An event: a service was adopted, and its clients are being told.
    Adopted,
    /// A condition: the last adoption failed.
    AdoptionFailed,
    /// An event: the outcome of each client of an adoption is known.
    Settled,
    /// A condition: clients were not told in an adoption, and are not back since.
    ClientsLost,
}

impl AlertKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Unprotected,
        Self::ProtectedAgain,
        Self::AtRisk,
        Self::Adopted,
        Self::AdoptionFailed,
        Self::Settled,
        Self::ClientsLost,
    ];

    /// As the command is told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unprotected => "unprotected",
            Self::ProtectedAgain => "protected-again",
            Self::AtRisk => "at-risk",
            Self::Adopted => "adopted",
            Self::AdoptionFailed => "adoption-failed",
            Self::Settled => "settled",
            Self::ClientsLost => "clients-lost",
        }
    }

    /// Whether someone must do something: `critical`, `warning` or `info`.
    pub fn level(self) -> &'static str {
        match self {
            Self::Unprotected | Self::AdoptionFailed | Self::ClientsLost => "critical",
            Self::AtRisk => "warning",
            Self::Adopted | Self::Settled | Self::ProtectedAgain => "info",
        }
    }
}

/// One alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alert {
    /// Of which kind it is.
    pub alert: AlertKind,
    /// See [`AlertKind::level`].
    pub level: &'static str,
    /// The server that tells it.
    pub server: String,
    /// The service that it speaks of; nothing where it speaks of the server.
    pub service: Option<String>,
    /// The generation of that service.
    pub generation: Option<u64>,
    /// How many clients it speaks of.
    pub count: usize,
    /// Some of them, by their keys in the store.
    pub clients: Vec<String>,
    /// A sentence for people.
    pub message: String,
}

/// What was told already.
#[derive(Debug, Default)]
pub struct Alerts {
    /// Since when new clients are not on record, in seconds of the clock that the caller gives, and whether that was told.
    unprotected: Option<(u64, bool)>,
    at_risk: BTreeSet<String>,
    services: BTreeMap<String, Told>,
}

/// What was told of one service.
#[derive(Debug, Default)]
struct Told {
    /// The generation whose adoption was seen while it was on.
    seen: Option<u64>,
    adopted: Option<u64>,
    settled: Option<u64>,
    failure: Option<(Option<u64>, String)>,
    missed: BTreeSet<String>,
    /// How many clients were missed, where not all are named.
    missed_count: usize,
    /// In which generation.
    missed_in: Option<u64>,
}

impl Alerts {
    /// The alerts that follow from this status. `now_s`: seconds of a clock that is never set.
    pub fn take(&mut self, now_s: u64, report: &StatusReport) -> Vec<Alert> {
        // Nothing is known yet.
        let Some(observed) = &report.observed else { return Vec::new() };
        let mut alerts = self.protection(now_s, report);
        alerts.extend(self.at_risk(report));
        for service in &report.services {
            if self.services.len() >= SERVICES_MAX && !self.services.contains_key(&service.service) {
                continue;
            }
            let told = self.services.entry(service.service.clone()).or_default();
            alerts.extend(told.take(observed.began_at_s, report, service));
        }
        alerts
    }

    fn protection(&mut self, now_s: u64, report: &StatusReport) -> Vec<Alert> {
        if report.protected_since_s.is_some() {
            let was_told = self.unprotected.take().is_some_and(|(_, told)| told);
            let message = format!("{}: new clients are on record again", report.server);
            return Vec::from_iter(was_told.then(|| of_server(AlertKind::ProtectedAgain, report, message)));
        }
        let (since, told) = self.unprotected.get_or_insert((now_s, false));
        // Clients at risk are told by name.
        if *told || now_s.saturating_sub(*since) < UNPROTECTED_ALERT_AFTER_S || !report.at_risk.is_empty() {
            return Vec::new();
        }
        *told = true;
        let why = report.store.error.as_deref().unwrap_or("see 'heirlock status' there");
        let message = format!("{}: new clients are not on record: {why}", report.server);
        vec![of_server(AlertKind::Unprotected, report, message)]
    }

    fn at_risk(&mut self, report: &StatusReport) -> Option<Alert> {
        let now: BTreeSet<String> = report.at_risk.iter().map(|client| client.client.clone()).collect();
        let has_new = !now.is_subset(&self.at_risk);
        self.at_risk = now;
        let count = report.at_risk.len();
        let message = format!(
            "{}: {} hold locks and are not on record: {}",
            report.server,
            counted(count, "client"),
            named(&report.at_risk, count)
        );
        let alert = of_server(AlertKind::AtRisk, report, message);
        has_new.then(|| Alert { count, clients: keys(&report.at_risk), ..alert })
    }
}

impl Told {
    /// `began_at_s`: when the agent began, in seconds since 1970.
    fn take(&mut self, began_at_s: u64, report: &StatusReport, service: &ServiceStatus) -> Vec<Alert> {
        let mut alerts = Vec::new();
        if service.held {
            alerts.extend(self.events(began_at_s, report, service));
            alerts.extend(self.failure(report, service));
        }
        alerts.extend(self.missed(report, service));
        alerts
    }

    fn events(&mut self, began_at_s: u64, report: &StatusReport, service: &ServiceStatus) -> Vec<Alert> {
        let (name, server) = (&service.service, &report.server);
        // A generation that no adoption began tells no client.
        let (Some(at_s), Some(generation)) = (service.adopted_at_s, service.generation) else {
            return Vec::new();
        };
        let Some(phase) = service.phase.as_deref().and_then(phase) else { return Vec::new() };
        if !phase.is_over() || at_s >= began_at_s {
            self.seen = Some(generation);
        }
        let is_new = |told: Option<u64>| told != Some(generation) && self.seen == Some(generation);
        let (adopted, settled) = (is_new(self.adopted), is_new(self.settled));
        let mut alerts = Vec::new();
        if adopted && matches!(phase, Phase::Notifying | Phase::Settling | Phase::Settled) {
            self.adopted = Some(generation);
            let message = format!("{server} has adopted {name}, and tells its clients");
            alerts.push(of_service(AlertKind::Adopted, report, service, message));
        }
        if settled && phase == Phase::Settled {
            self.settled = Some(generation);
            let outcome = match service.lost + service.unreachable {
                0 => "every client was told".to_owned(),
                missed => format!("{} {} not told", counted(missed, "client"), was(missed)),
            };
            let message = format!("the adoption of {name} by {server} is over: {outcome}");
            let alert = of_service(AlertKind::Settled, report, service, message);
            alerts.push(Alert { count: service.records, ..alert });
        }
        alerts
    }

    fn failure(&mut self, report: &StatusReport, service: &ServiceStatus) -> Option<Alert> {
        let failure = service.failure.clone().map(|why| (service.generation, why));
        let is_new = self.failure != failure;
        self.failure = failure;
        let (_, why) = self.failure.as_ref().filter(|_| is_new)?;
        let message = format!("the adoption of {} by {} failed: {why}", service.service, report.server);
        Some(of_service(AlertKind::AdoptionFailed, report, service, message))
    }

    fn missed(&mut self, report: &StatusReport, service: &ServiceStatus) -> Option<Alert> {
        let is_on = |phase: Phase| !phase.is_over();
        if service.phase.as_deref().and_then(phase).is_some_and(is_on) {
            return None;
        }
        if self.missed_in != service.generation {
            (self.missed, self.missed_count, self.missed_in) = (BTreeSet::new(), 0, service.generation);
        }
        let count = service.lost + service.unreachable;
        let now: BTreeSet<String> = service.missed.iter().map(|client| client.client.clone()).collect();
        let has_new = !now.is_subset(&self.missed) || count > self.missed_count;
        (self.missed, self.missed_count) = (now, count);
        let (name, verb) = (&service.service, was(count));
        let message = format!(
            "{} of {name} {verb} not told: {}; see 'heirlock report {name} --clients'",
            counted(count, "client"),
            named(&service.missed, count)
        );
        let alert = of_service(AlertKind::ClientsLost, report, service, message);
        (has_new && count > 0).then(|| Alert { count, clients: keys(&service.missed), ..alert })
    }
}

fn phase(text: &str) -> Option<Phase> {
    Phase::ALL.into_iter().find(|phase| phase.as_str() == text)
}

fn of_server(alert: AlertKind, report: &StatusReport, message: String) -> Alert {
    Alert {
        alert,
        level: alert.level(),
        server: report.server.clone(),
        service: None,
        generation: None,
        count: 0,
        clients: Vec::new(),
        message,
    }
}

fn of_service(alert: AlertKind, report: &StatusReport, service: &ServiceStatus, message: String) -> Alert {
    let (name, generation) = (Some(service.service.clone()), service.generation);
    Alert { service: name, generation, ..of_server(alert, report, message) }
}

fn was(count: usize) -> &'static str {
    if count == 1 { "was" } else { "were" }
}

fn keys(of: &[ClientStatus]) -> Vec<String> {
    of.iter().take(ALERT_CLIENTS_MAX).map(|client| client.client.clone()).collect()
}

fn named(of: &[ClientStatus], count: usize) -> String {
    let keys = keys(of);
    match count.saturating_sub(keys.len()) {
        0 => keys.join(", "),
        more => format!("{} and {more} more", keys.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::observed::Observed;
    use super::*;

    fn status(change: impl FnOnce(&mut StatusReport, &mut ServiceStatus)) -> StatusReport {
        let mut report = StatusReport::without_agent("nfs-b", "/store");
        report.protected_since_s = Some(7);
        report.observed = Some(Box::new(Observed { began_at_s: 100, ..Observed::default() }));
        let mut service = ServiceStatus {
            service: "nfs".into(),
            owner: Some("nfs-b".into()),
            held: true,
            generation: Some(2),
            adopted_at_s: Some(99),
            ..ServiceStatus::default()
        };
        change(&mut report, &mut service);
        report.services.push(service);
        report
    }

    fn client(key: &str) -> ClientStatus {
        ClientStatus { client: key.into(), names: Vec::new(), outcome: None, since_s: None, why: None }
    }

    fn kinds(alerts: &[Alert]) -> Vec<&'static str> {
        alerts.iter().map(|alert| alert.alert.as_str()).collect()
    }

    #[test]
    fn a_server_that_is_unprotected_for_long_is_told_once_and_so_is_its_recovery() {
        let (mut alerts, after) = (Alerts::default(), UNPROTECTED_ALERT_AFTER_S);
        let unprotected = status(|report, _| report.protected_since_s = None);
        let well = status(|_, _| ());
        assert_eq!(alerts.take(0, &unprotected), []);
        assert_eq!(alerts.take(after - 1, &well), [], "an agent that has just begun is not sure");
        assert_eq!(alerts.take(after, &unprotected), [], "it begins anew");
        assert_eq!(kinds(&alerts.take(after * 2, &unprotected)), ["unprotected"]);
        assert_eq!(alerts.take(after * 3, &unprotected), []);
        assert_eq!(kinds(&alerts.take(after * 3, &well)), ["protected-again"]);
        assert_eq!(alerts.take(after * 4, &well), []);
    }

    #[test]
    fn an_adoption_is_told_when_clients_are_told_and_when_it_is_over_and_never_twice() {
        let mut alerts = Alerts::default();
        let at = |phase: &str| status(|_, service| service.phase = Some(phase.into()));
        let mut other = status(|_, service| (service.held, service.generation) = (false, Some(1)));
        other.services[0].owner = Some("nfs-a".into());
        assert_eq!(alerts.take(0, &other), []);
        for (phase, expected) in [
            ("conveyed", &[][..]),
            ("notifying", &["adopted"][..]),
            ("settling", &[]),
            ("settled", &["settled"]),
            ("settled", &[]),
        ] {
            assert_eq!(kinds(&alerts.take(1, &at(phase))), expected, "{phase}");
        }
        let next = status(|_, service| {
            (service.generation, service.phase) = (Some(3), Some("settled".into()));
            service.adopted_at_s = Some(101);
        });
        assert_eq!(kinds(&alerts.take(2, &next)), ["adopted", "settled"], "both came between two looks");
    }

    #[test]
    fn an_agent_that_begins_tells_no_old_event_again_and_every_condition_that_lasts() {
        let report = status(|report, service| {
            service.phase = Some("settled".into());
            (service.lost, service.missed) = (1, vec![client("10.0.0.1")]);
            report.at_risk.push(client("10.0.0.2"));
        });
        let mut alerts = Alerts::default();
        let told = alerts.take(0, &report);
        assert_eq!(kinds(&told), ["at-risk", "clients-lost"]);
        assert_eq!(
            told[1].message,
            "1 client of nfs was not told: 10.0.0.1; see 'heirlock report nfs --clients'"
        );
        assert_eq!(alerts.take(1, &report), []);
    }

    #[test]
    fn a_store_that_can_be_read_again_makes_no_event_of_an_old_adoption() {
        let mut alerts = Alerts::default();
        let unread = status(|_, service| {
            (service.held, service.generation, service.adopted_at_s) = (false, None, None);
        });
        assert_eq!(alerts.take(0, &unread), []);
        let read = status(|_, service| service.phase = Some("settled".into()));
        assert_eq!(alerts.take(1, &read), []);
    }

    #[test]
    fn an_adoption_that_an_earlier_agent_began_is_told_by_the_agent_that_ends_it() {
        let mut alerts = Alerts::default();
        let at = |phase: &str| status(|_, service| service.phase = Some(phase.into()));
        assert_eq!(kinds(&alerts.take(0, &at("notifying"))), ["adopted"]);
        assert_eq!(kinds(&alerts.take(1, &at("settled"))), ["settled"]);
    }

    #[test]
    fn a_further_client_is_told_and_one_that_is_back_is_not() {
        let with = |keys: &[&str], count| {
            status(|_, service| {
                service.unreachable = count;
                service.missed = keys.iter().map(|key| client(key)).collect();
            })
        };
        let mut alerts = Alerts::default();
        assert_eq!(kinds(&alerts.take(0, &with(&["10.0.0.1"], 1))), ["clients-lost"]);
        let further = alerts.take(1, &with(&["10.0.0.1", "10.0.0.2"], 30));
        assert_eq!((further[0].count, further[0].clients.len()), (30, 2));
        assert!(further[0].message.contains("10.0.0.2 and 28 more"), "{further:?}");
        assert_eq!(alerts.take(2, &with(&["10.0.0.2"], 1)), []);
        assert_eq!(alerts.take(3, &with(&[], 0)), []);
        assert_eq!(kinds(&alerts.take(4, &with(&["10.0.0.2"], 1))), ["clients-lost"], "it was missed again");
        let mut next = with(&["10.0.0.2"], 1);
        (next.services[0].generation, next.services[0].phase) = (Some(3), Some("notifying".into()));
        assert_eq!(kinds(&alerts.take(5, &next)), ["adopted"], "it may be told still");
        next.services[0].phase = Some("settled".into());
        assert_eq!(kinds(&alerts.take(6, &next)), ["settled", "clients-lost"], "and in the next adoption");
    }

    #[test]
    fn a_failed_adoption_is_told_with_its_reason() {
        let mut alerts = Alerts::default();
        assert_eq!(alerts.take(0, &status(|_, _| ())), []);
        let failed = status(|_, service| service.failure = Some("no volume".into()));
        let told = alerts.take(1, &failed);
        assert_eq!(told[0].message, "the adoption of nfs by nfs-b failed: no volume");
        assert_eq!((told[0].alert, told[0].generation), (AlertKind::AdoptionFailed, Some(2)));
        assert_eq!(alerts.take(2, &failed), []);
    }
}
