//! The documents of `heirlock … --json`, as far as scenarios ask for them: written from its documentation, not shared
//! with the program, so that a field that is renamed is noticed here.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::Service;

/// Of an adoption.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the program documents them")]
pub struct AdoptionReport {
    pub service: String,
    pub generation: u64,
    pub state_number: u32,
    pub strategy: String,
    pub phase: String,
    pub clients: usize,
    pub re_registered: usize,
    pub acknowledged: usize,
    pub unreachable: usize,
    pub lost: usize,
    pub failed: Vec<Missed>,
    pub others: Vec<OtherService>,
    pub timeline: Vec<TimelineEntry>,
    #[serde(default)]
    pub changed: Option<bool>,
}

/// Of an adoption's timeline.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the program documents them")]
pub struct TimelineEntry {
    pub event: String,
    pub at_ms: i64,
}

/// Of the past of a service.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the program documents them")]
pub struct HistoryReport {
    pub service: String,
    pub generations: Vec<TenureReport>,
}

/// Of one generation in it; the newest is the first.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the program documents them")]
pub struct TenureReport {
    pub generation: u64,
    pub from: Option<String>,
    pub to: String,
    pub cause: String,
    pub clients: usize,
    pub re_registered: usize,
    pub without_service_ms: Option<u64>,
    pub until_last_client_ms: Option<u64>,
}

/// Of a drill.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the program documents them")]
pub struct DrillReport {
    pub verdict: String,
    pub clients: usize,
    pub answered: usize,
    pub unreached: Vec<Unreached>,
    pub checks: Vec<Check>,
}

/// A client that would not be told.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the program documents them")]
pub struct Unreached {
    pub client: String,
    pub why: String,
}

/// One finding of a drill.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the program documents them")]
pub struct Check {
    pub check: String,
    pub finding: String,
    pub found: String,
}

/// Of an adoption that could not go on.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the program documents them")]
pub struct Failure {
    pub error: String,
    pub report: Option<AdoptionReport>,
}

/// Of `doctor`.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the program documents them")]
pub struct Finding {
    pub check: String,
    pub severity: String,
    pub found: String,
    pub remedy: Option<String>,
}

/// A client that was not told.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the program documents them")]
pub struct Missed {
    pub client: String,
    pub outcome: String,
}

/// Another service of the same lock manager.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the program documents them")]
pub struct OtherService {
    pub service: String,
    pub state_number: u32,
    pub clients: usize,
    pub acknowledged: usize,
    pub missed: usize,
}

/// Of an agent.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the program documents them")]
pub struct StatusReport {
    pub server: String,
    pub store: StoreStatus,
    pub lock_manager: LockManagerStatus,
    pub services: Vec<ServiceStatus>,
    pub at_risk: Vec<ClientAtRisk>,
    pub problems: Vec<Problem>,
    #[serde(default)]
    pub observed: Option<Observed>,
    pub servers: Vec<ServerStatus>,
}

/// Of another server.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the program documents them")]
pub struct ServerStatus {
    pub server: String,
    pub heart: String,
}

/// The counts of an agent.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the program documents them")]
pub struct Observed {
    pub monitor: MonitorCounts,
}

/// Of its status monitor.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the program documents them")]
pub struct MonitorCounts {
    pub refused_late_total: u64,
    pub refused_store_fails_total: u64,
}

/// Of a client.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the program documents them")]
pub struct ClientAtRisk {
    pub client: String,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the program documents them")]
pub struct Problem {
    pub kind: String,
}

/// Of a store.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the program documents them")]
pub struct StoreStatus {
    pub well: bool,
    pub error: Option<String>,
}

/// Of a lock manager.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the program documents them")]
pub struct LockManagerStatus {
    pub incarnation: Option<String>,
    pub serving: bool,
}

/// Of a service.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the program documents them")]
pub struct ServiceStatus {
    pub service: String,
    pub owner: Option<String>,
    pub held: bool,
    pub generation: Option<u64>,
    pub state_number: Option<u32>,
    pub records: usize,
    pub tombstones: usize,
    pub phase: Option<String>,
    pub failure: Option<String>,
}

impl AdoptionReport {
    /// For the story.
    #[must_use]
    pub fn in_words(&self) -> String {
        let others: Vec<_> = self
            .others
            .iter()
            .map(|other| format!("; {} told {} of {}", other.service, other.acknowledged, other.clients))
            .collect();
        format!(
            "{} {} as generation {} by {}, state number {}: {} clients, {} re-registered, {} acknowledged, \
             {} unreachable, {} lost{}",
            self.service,
            self.phase,
            self.generation,
            self.strategy,
            self.state_number,
            self.clients,
            self.re_registered,
            self.acknowledged,
            self.unreachable,
            self.lost,
            others.concat()
        )
    }

    /// When an event of its timeline came, after the adoption began.
    ///
    /// # Errors
    /// When it is not there, or came before.
    pub fn at(&self, event: &str) -> Result<Duration> {
        let entry = self.timeline.iter().find(|entry| entry.event == event);
        let at = entry.and_then(|entry| u64::try_from(entry.at_ms).ok());
        at.map(Duration::from_millis).with_context(|| format!("expected {event} in {:?}", self.timeline))
    }

    /// Every client must have been told and have registered again.
    ///
    /// # Errors
    /// When it has not.
    pub fn expect_all_back(&self, clients: usize) -> Result<()> {
        let all = [self.clients, self.acknowledged, self.re_registered].iter().all(|count| *count == clients);
        ensure!(
            all && self.phase == "settled" && self.unreachable == 0 && self.lost == 0,
            "expected {clients} clients, all back, found {self:?}"
        );
        Ok(())
    }
}

impl StatusReport {
    /// Whether something of this kind is wrong.
    #[must_use]
    pub fn says(&self, kind: &str) -> bool {
        self.problems.iter().any(|problem| problem.kind == kind)
    }

    /// Whether the heart of another server beats.
    #[must_use]
    pub fn hears(&self, server: &str) -> bool {
        self.servers.iter().any(|one| one.server == server && one.heart == "beating")
    }

    /// The status of a service.
    ///
    /// # Errors
    /// When it does not know it.
    pub fn of(&self, service: &Service) -> Result<&ServiceStatus> {
        self.of_name(service.name)
    }

    /// The same for any name, such as that of a server's own service.
    ///
    /// # Errors
    /// When it does not know it.
    pub fn of_name(&self, name: &str) -> Result<&ServiceStatus> {
        self.services
            .iter()
            .find(|one| one.service == name)
            .with_context(|| format!("{} knows nothing of {name}: {self:?}", self.server))
    }
}

impl ServiceStatus {
    /// The owner and the generation.
    #[must_use]
    pub fn claim(&self) -> (Option<String>, Option<u64>) {
        (self.owner.clone(), self.generation)
    }
}
