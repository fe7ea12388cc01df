//! What is reported: of an adoption, and of an agent. These are what `--json` prints.

use heirlock_core::Outcome;
use heirlock_core::takeover::Milestone;
use serde::{Deserialize, Serialize};

/// What became of one adoption.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AdoptionReport {
    /// The service that was taken over; in a self-adoption the server's own.
    pub(crate) service: String,
    /// Its generation.
    pub(crate) generation: u64,
    /// The number its clients were told.
    pub(crate) state_number: u32,
    /// How the lock manager was made to recognise.
    pub(crate) strategy: String,
    /// `settled`, `prepared`, or how far it came.
    pub(crate) phase: String,
    /// Why it failed; none where it did not.
    #[serde(default)]
    pub(crate) failure: Option<String>,
    /// How many clients it has.
    pub(crate) clients: usize,
    /// How many registered again with the adoptive server.
    pub(crate) re_registered: usize,
    /// How many answered; those that registered again are among them.
    pub(crate) acknowledged: usize,
    /// How many never answered.
    pub(crate) unreachable: usize,
    /// How many were not told in time.
    pub(crate) lost: usize,
    /// How many nothing is known of yet.
    pub(crate) unknown: usize,
    /// What happened when.
    pub(crate) timeline: Vec<TimelineEntry>,
    /// Those that answered last.
    pub(crate) slowest: Vec<Slow>,
    /// Those that were not told.
    pub(crate) failed: Vec<Missed>,
    /// Other services of the same lock manager, whose clients were told as well.
    pub(crate) others: Vec<OtherService>,
    /// What is missing at the service's addresses from which nobody could be told.
    #[serde(default)]
    pub(crate) unready: Vec<String>,
    /// Where the records lie.
    pub(crate) records_at: String,
    /// When it began, in seconds since 1970.
    pub(crate) started_at_s: u64,
}

/// One entry of the timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TimelineEntry {
    /// What happened.
    pub(crate) event: Milestone,
    /// Milliseconds since the adoption began.
    pub(crate) at_ms: i64,
}

/// A client that took long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slow {
    /// Which.
    pub(crate) client: String,
    /// Milliseconds from the first notification of the adoption until it answered.
    pub(crate) took_ms: i64,
}

/// A client that was not told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Missed {
    /// Which.
    pub(crate) client: String,
    /// What became of it.
    pub(crate) outcome: Outcome,
    /// Why.
    pub(crate) why: String,
}

/// Another service of the same run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OtherService {
    /// Which.
    pub(crate) service: String,
    /// The number its clients were told.
    pub(crate) state_number: u32,
    /// How many clients it has.
    pub(crate) clients: usize,
    /// How many answered.
    pub(crate) acknowledged: usize,
    /// How many were not told.
    pub(crate) missed: usize,
}

/// How an agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StatusReport {
    /// The server.
    pub(crate) server: String,
    /// This run of its agent.
    pub(crate) agent: String,
    /// The version of the program.
    pub(crate) version: String,
    /// Tells its configuration from others.
    #[serde(default)]
    pub(crate) configuration: String,
    /// Milliseconds since its loop last turned; nothing before the first turn.
    #[serde(default)]
    pub(crate) loop_turned_ms_ago: Option<u64>,
    /// Milliseconds since it last saw the status monitor's directory.
    #[serde(default)]
    pub(crate) looked_ms_ago: Option<u64>,
    /// The store.
    pub(crate) store: StoreStatus,
    /// The lock manager.
    pub(crate) lock_manager: LockManagerStatus,
    /// The services that it holds or knows of.
    pub(crate) services: Vec<ServiceStatus>,
    /// The other servers.
    pub(crate) servers: Vec<ServerStatus>,
    /// This server's silence is no reason to adopt.
    pub(crate) maintenance: bool,
    /// What is wrong, in words.
    pub(crate) problems: Vec<String>,
}

/// How the store is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoreStatus {
    /// Where it is.
    pub(crate) place: String,
    /// Everything that was to be written is durable.
    pub(crate) well: bool,
    /// What fails.
    pub(crate) error: Option<String>,
    /// Since when new clients are unprotected, in seconds since 1970.
    pub(crate) unprotected_since_s: Option<u64>,
}

/// How the lock manager is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LockManagerStatus {
    /// What it is.
    pub(crate) kind: String,
    /// Its life.
    pub(crate) incarnation: Option<String>,
    /// Clients are served.
    pub(crate) serving: bool,
}

/// How a service is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceStatus {
    /// Which.
    pub(crate) service: String,
    /// Whose it is; nobody's where it was never claimed.
    pub(crate) owner: Option<String>,
    /// Ours.
    pub(crate) held: bool,
    /// Its generation.
    pub(crate) generation: Option<u64>,
    /// The number of this generation.
    pub(crate) state_number: Option<u32>,
    /// Clients that the store knows.
    pub(crate) records: usize,
    /// Deletions that wait to be believed.
    pub(crate) tombstones: usize,
    /// How far its adoption is, or how the last one ended.
    pub(crate) phase: Option<String>,
    /// Why the last one failed.
    pub(crate) failure: Option<String>,
}

/// How another server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerStatus {
    /// Which.
    pub(crate) server: String,
    /// What is known of its heart, in words.
    pub(crate) heart: String,
    /// What ails it, in its own words.
    pub(crate) ailments: Vec<String>,
}
