//! The reports of an adoption, of a service's past, and of a server. `--json` prints them: enums, numbers and names. Text for
//! people is made from them (`cli/render`).

pub mod alerts;
mod drill;
mod judge;
pub mod observed;

use heirlock_core::history::{Beginning, Tenure};
use heirlock_core::takeover::{Milestone, Phase};
use heirlock_core::{LockManagerName, Outcome};
use serde::{Deserialize, Serialize};

use crate::limits::{AILMENT_CHARS_MAX, AILMENTS_MAX};

use observed::Observed;

pub use drill::{DrillReport, DrillStatus};
pub use judge::{Level, Next, Problem, ProblemKind, judge, level};

/// The report of one adoption.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptionReport {
    /// The service that was taken over; in a self-adoption the server's own.
    pub service: String,
    /// Its generation.
    pub generation: u64,
    /// The number its clients were told.
    pub state_number: u32,
    /// How the lock manager was made to recognise.
    pub strategy: String,
    /// `settled`, `prepared`, `failed`, or how far it came.
    pub phase: String,
    /// For how long grace stays open, in milliseconds; none where it is over, or was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_left_ms: Option<u64>,
    /// Within how many milliseconds `--finish` has to be said, where that is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_within_ms: Option<u64>,
    /// Why it failed; none where it did not.
    #[serde(default)]
    pub failure: Option<String>,
    /// How many clients it has.
    pub clients: usize,
    /// How many registered again with the adoptive server.
    pub re_registered: usize,
    /// How many answered; those that registered again are among them.
    pub acknowledged: usize,
    /// How many never answered.
    pub unreachable: usize,
    /// How many were not told in time.
    pub lost: usize,
    /// How many nothing is known of yet.
    pub unknown: usize,
    /// Its events, with their times.
    pub timeline: Vec<TimelineEntry>,
    /// The clients that answered last.
    pub slowest: Vec<Slow>,
    /// The clients that were not told.
    pub failed: Vec<Missed>,
    /// Entries of a folder that are not what they should be.
    #[serde(default)]
    pub troubles: Vec<EntryTrouble>,
    /// Other services of the same lock manager, whose clients were told as well.
    pub others: Vec<OtherService>,
    /// The things that are missing at those addresses of the service from which no client could be told.
    #[serde(default)]
    pub unready: Vec<String>,
    /// Where the records lie.
    pub records_at: String,
    /// When it began, in seconds since 1970.
    pub started_at_s: u64,
    /// The server before, the cause, and how long clients were without the service; where the store was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenure: Option<Box<TenureReport>>,
    /// The outcome of each client, where that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub each_client: Vec<ClientOutcome>,
    /// Whether the verb that is answered with it changed anything, or waited for the run that did; nothing where it is only
    /// looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<bool>,
}

/// One generation of a service, as it is told afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenureReport {
    /// Which generation.
    pub generation: u64,
    /// The server that held the service before.
    pub from: Option<String>,
    /// The server that held it in this generation.
    pub to: String,
    /// Why it began.
    pub cause: Beginning,
    /// When it began, in seconds since 1970 by the clock of `to`.
    pub began_at_s: u64,
    /// When its owner gave it up in order, in seconds since 1970 by the clock of `to`.
    pub released_at_s: Option<u64>,
    /// How far the run that began it came.
    pub phase: Phase,
    /// Why that run failed.
    pub failure: Option<String>,
    /// The number that its clients were told.
    pub state_number: Option<u32>,
    /// How many clients it had when it began.
    pub clients: usize,
    /// How many of them were told.
    pub told: usize,
    /// How many of those registered again.
    pub re_registered: usize,
    /// How many never answered.
    pub unreachable: usize,
    /// How many were not told in time.
    pub lost: usize,
    /// Of how many nothing is known.
    pub unknown: usize,
    /// The last sign that the service was served, in milliseconds since `began_at_s`; negative for earlier ones.
    pub last_sign_ms: Option<i64>,
    /// From the last sign, or from `began_at_s` where none is known, until the service could be reached again.
    pub without_service_ms: Option<u64>,
    /// The same until the last client was back.
    pub until_last_client_ms: Option<u64>,
}

impl From<&Tenure> for TenureReport {
    fn from(tenure: &Tenure) -> Self {
        Self {
            generation: tenure.generation.0,
            from: tenure.from.as_ref().map(ToString::to_string),
            to: tenure.owner.to_string(),
            cause: tenure.beginning,
            began_at_s: tenure.began_at_s,
            released_at_s: tenure.released_at_s,
            phase: tenure.phase.shown(tenure.failure.is_some()),
            failure: tenure.failure.clone(),
            state_number: tenure.state_number,
            clients: tenure.clients.clients,
            told: tenure.clients.told,
            re_registered: tenure.clients.re_registered,
            unreachable: tenure.clients.unreachable,
            lost: tenure.clients.lost,
            unknown: tenure.clients.unknown,
            last_sign_ms: tenure.gap.last_sign_ms,
            without_service_ms: tenure.gap.until_ready_ms(),
            until_last_client_ms: tenure.gap.until_last_client_ms(),
        }
    }
}

/// The past of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryReport {
    /// Which.
    pub service: String,
    /// Its generations, the newest first.
    pub generations: Vec<TenureReport>,
    /// The entries that could not be read, each with its error.
    pub unreadable: Vec<String>,
    /// How what lies in the store breaks the rules that every history keeps, a sentence for each; see
    /// `heirlock_core::history_check`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub broken: Vec<String>,
}

/// The outcome of one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientOutcome {
    /// Its key in the store: its address.
    pub client: String,
    /// The names it registered under, other than that.
    pub names: Vec<String>,
    /// Its outcome; nothing where that is not known.
    pub outcome: Option<Outcome>,
    /// When that was known, in milliseconds since the adoption began.
    pub at_ms: i64,
    /// Why, where it isn't good.
    pub why: Option<String>,
}

/// One entry of the timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// The event.
    pub event: Milestone,
    /// Milliseconds since the adoption began.
    pub at_ms: i64,
}

/// A client that took long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slow {
    /// Which.
    pub client: String,
    /// Milliseconds from the first notification of the adoption until it answered.
    pub took_ms: i64,
}

/// A client that was not told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// Which.
    pub client: String,
    /// Its outcome.
    pub outcome: Outcome,
    /// Why.
    pub why: String,
}

/// An entry of the store or of the status monitor's directory that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryTrouble {
    /// Which.
    pub entry: String,
    /// The expectation, the finding, and the remedy that an administrator has.
    pub why: String,
}

/// Another service of the same run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherService {
    /// Which.
    pub service: String,
    /// The number its clients were told.
    pub state_number: u32,
    /// How many clients it has.
    pub clients: usize,
    /// How many answered.
    pub acknowledged: usize,
    /// How many were not told.
    pub missed: usize,
}

/// How a server, its store and the services in it are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The server.
    pub server: String,
    /// This run of its agent; empty where none answers.
    pub agent: String,
    /// The version of the program.
    pub version: String,
    /// Tells its configuration from others.
    #[serde(default)]
    pub configuration: String,
    /// Milliseconds since its loop last turned; nothing before the first turn.
    #[serde(default)]
    pub loop_turned_ms_ago: Option<u64>,
    /// Milliseconds since it last saw the status monitor's directory.
    #[serde(default)]
    pub looked_ms_ago: Option<u64>,
    /// The source of the report.
    #[serde(default)]
    pub source: Source,
    /// The store.
    pub store: StoreStatus,
    /// The lock manager.
    pub lock_manager: LockManagerStatus,
    /// Each of several lock managers, by name, the first among them; none where there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lock_managers: Vec<NamedLockManager>,
    /// Since when every client that registers here is on record, in seconds since 1970; nothing where that is not so.
    #[serde(default)]
    pub protected_since_s: Option<u64>,
    /// The services of the configuration and of the store.
    pub services: Vec<ServiceStatus>,
    /// The other servers.
    pub servers: Vec<ServerStatus>,
    /// This server's silence is no reason to adopt.
    pub maintenance: bool,
    /// Clients that were granted locks and that the store does not know of.
    #[serde(default)]
    pub at_risk: Vec<ClientStatus>,
    /// The problems.
    pub problems: Vec<Problem>,
    /// The last drill of each service that was drilled here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drills: Vec<DrillStatus>,
    /// The counts of its agent since it began; nothing where none answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Box<Observed>>,
}

impl StatusReport {
    /// Where no agent answers, and the store has not been looked at yet.
    pub fn without_agent(server: &str, place: &str) -> Self {
        Self {
            server: server.to_owned(),
            agent: String::new(),
            version: env!("CARGO_PKG_VERSION").into(),
            configuration: String::new(),
            loop_turned_ms_ago: None,
            looked_ms_ago: None,
            source: Source::Store,
            store: StoreStatus {
                place: place.to_owned(),
                well: true,
                error: None,
                unprotected_since_s: None,
            },
            lock_manager: LockManagerStatus::default(),
            lock_managers: Vec::new(),
            protected_since_s: None,
            services: Vec::new(),
            servers: Vec::new(),
            maintenance: false,
            at_risk: Vec::new(),
            problems: Vec::new(),
            drills: Vec::new(),
            observed: None,
        }
    }
}

/// The source of a server's report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Its agent.
    #[default]
    Agent,
    /// The store alone: no agent answers.
    Store,
}

/// How the store is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Where it is.
    pub place: String,
    /// Everything that was to be written is durable.
    pub well: bool,
    /// The error.
    pub error: Option<String>,
    /// Since when new clients are unprotected, in seconds since 1970.
    pub unprotected_since_s: Option<u64>,
}

/// How the lock manager is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockManagerStatus {
    /// Its kind.
    pub kind: String,
    /// Its life.
    pub incarnation: Option<String>,
    /// Clients are served.
    pub serving: bool,
    /// Something held here needs one: it is no fault of a standby that none runs.
    #[serde(default)]
    pub needed: bool,
}

/// How one of several lock managers is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedLockManager {
    /// Its name.
    pub name: String,
    /// How it is.
    #[serde(flatten)]
    pub status: LockManagerStatus,
    /// How its records are noticed: the mode of capture.
    #[serde(default)]
    pub captures_by: String,
    /// Every client that registers with its status monitor is on record.
    #[serde(default)]
    pub captures_all: bool,
    /// Milliseconds since its status monitor's directory was last seen.
    #[serde(default)]
    pub looked_ms_ago: Option<u64>,
    /// The configured services that it serves.
    #[serde(default)]
    pub services: Vec<String>,
}

/// How a service is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Which.
    pub service: String,
    /// The server that holds it; none where it was never claimed, or given up.
    pub owner: Option<String>,
    /// The server that gave it up, where none holds it.
    #[serde(default)]
    pub released_by: Option<String>,
    /// Ours.
    pub held: bool,
    /// It is in this server's configuration.
    #[serde(default)]
    pub configured: bool,
    /// Where it is at home.
    #[serde(default)]
    pub home: Option<String>,
    /// The agents decide by themselves that its owner is dead.
    #[serde(default)]
    pub automatic: bool,
    /// Its owner is silent and it is `automatic`, but this server does not adopt it without being asked: why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_to: Option<String>,
    /// No candidate lives: no server adopts it without being asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lacks_candidates: bool,
    /// Its generation.
    pub generation: Option<u64>,
    /// The number of this generation.
    pub state_number: Option<u32>,
    /// Clients that the store knows.
    pub records: usize,
    /// Deletions that wait to be believed.
    pub tombstones: usize,
    /// How far its adoption is, or how the last one ended.
    pub phase: Option<String>,
    /// It waits for `adopt --finish`.
    #[serde(default)]
    pub awaits_finish: bool,
    /// What its adoption waits for before it begins, in words: other adoptions that are on here, or, with a move or a failback, its owner.
    #[serde(default)]
    pub waits_for: Option<String>,
    /// While an adoption is on: how many clients are to be told.
    #[serde(default)]
    pub clients_to_tell: Option<usize>,
    /// While an adoption is on: how many of them were.
    #[serde(default)]
    pub clients_told: Option<usize>,
    /// While an adoption is on: how much of the grace period is left.
    #[serde(default)]
    pub grace_left_ms: Option<u64>,
    /// When the adoption that began its generation began, in seconds since 1970; nothing where none did.
    #[serde(default)]
    pub adopted_at_s: Option<u64>,
    /// Why the last one failed.
    pub failure: Option<String>,
    /// How many clients did not answer in the last adoption and have not come back since.
    #[serde(default)]
    pub unreachable: usize,
    /// How many were not told in time and have not come back since.
    #[serde(default)]
    pub lost: usize,
    /// Of these, some by name.
    #[serde(default)]
    pub missed: Vec<ClientStatus>,
    /// The next step.
    #[serde(default)]
    pub next: Option<Next>,
}

/// A client in trouble.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientStatus {
    /// Its key in the store: its address.
    pub client: String,
    /// The names it registered under, other than that.
    pub names: Vec<String>,
    /// Its outcome; nothing where it is at risk.
    pub outcome: Option<Outcome>,
    /// Since when, in seconds since 1970.
    pub since_s: Option<u64>,
    /// Why.
    pub why: Option<String>,
}

/// How another server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Which.
    pub server: String,
    /// Its heart, as far as it is known.
    pub heart: Heart,
    /// How long ago its heart was last seen to beat, by this server's clock; nothing where it was not seen.
    #[serde(default)]
    pub last_beat_age_ms: Option<u64>,
    /// How long it has been watched, where that is too short to say more.
    #[serde(default)]
    pub watched_ms: Option<u64>,
    /// How long it must be watched.
    #[serde(default)]
    pub to_watch_ms: Option<u64>,
    /// When its last beat was written, in seconds since 1970 by its own clock.
    #[serde(default)]
    pub last_beat_at_s: Option<u64>,
    /// Its ailments.
    pub ailments: Vec<Ailment>,
}

impl ServerStatus {
    /// One of which nothing is known but its name.
    pub fn unknown(server: &str) -> Self {
        Self {
            server: server.to_owned(),
            heart: Heart::Unknown,
            last_beat_age_ms: None,
            watched_ms: None,
            to_watch_ms: None,
            last_beat_at_s: None,
            ailments: Vec::new(),
        }
    }
}

/// The state of another server's heart, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Heart {
    /// It beats.
    Beating,
    /// Beats are missing, for less than `dead-after` yet.
    Late,
    /// It has not beaten for longer than `dead-after`.
    Silent,
    /// It stopped in order, or is in maintenance.
    Paused,
    /// It has not been watched for long enough to say.
    Unknown,
    /// It never wrote a heartbeat.
    NeverSeen,
}

/// An ailment of a server, as it tells the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ailment {
    /// The kind of ailment.
    pub kind: AilmentKind,
    /// The words of the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The kinds of ailment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AilmentKind {
    /// The status monitor's directory can't be read.
    MonitorDirectoryUnreadable,
    /// The store fails.
    StoreFails,
    /// No lock manager runs, though something that it holds needs one.
    NoLockManager,
    /// Something that this version does not know.
    Other,
}

impl Ailment {
    /// As it is written into a heartbeat: `store-fails: No space left`. Versions before this one show it as it is.
    pub fn in_a_heartbeat(&self) -> String {
        match (self.kind.as_str(), &self.error) {
            (kind, Some(error)) => format!("{kind}: {error}"),
            (kind, None) => kind.to_owned(),
        }
    }

    /// The same where several lock managers run there, and it concerns this one.
    #[must_use]
    pub fn of_lock_manager(self, name: Option<&LockManagerName>) -> Self {
        let Some(name) = name else { return self };
        let error = match self.error {
            Some(error) => format!("lock manager {name}: {error}"),
            None => format!("lock manager {name}"),
        };
        Self { error: Some(error), ..self }
    }

    /// The ailments that another server tells in its heartbeat, as many of them as are shown.
    pub fn all_of_a_heartbeat(texts: &[String]) -> Vec<Self> {
        let cut = |text: &String| text.chars().take(AILMENT_CHARS_MAX).collect::<String>();
        let mut all: Vec<Self> =
            texts.iter().take(AILMENTS_MAX).map(|text| Self::of_a_heartbeat(&cut(text))).collect();
        if let Some(more) = texts.len().checked_sub(AILMENTS_MAX).filter(|more| *more > 0) {
            all.push(Self::of_a_heartbeat(&format!("and {more} more things")));
        }
        all
    }

    /// From another server's heartbeat.
    fn of_a_heartbeat(text: &str) -> Self {
        let (word, error) = match text.split_once(": ") {
            Some((word, error)) => (word, Some(error.to_owned())),
            None => (text, None),
        };
        let known =
            [AilmentKind::MonitorDirectoryUnreadable, AilmentKind::StoreFails, AilmentKind::NoLockManager];
        match known.into_iter().find(|kind| kind.as_str() == word) {
            Some(kind) => Self { kind, error },
            None => Self { kind: AilmentKind::Other, error: Some(text.to_owned()) },
        }
    }
}

impl AilmentKind {
    fn as_str(self) -> &'static str {
        match self {
            AilmentKind::MonitorDirectoryUnreadable => "monitor-directory-unreadable",
            AilmentKind::StoreFails => "store-fails",
            AilmentKind::NoLockManager => "no-lock-manager",
            AilmentKind::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_another_servers_ailments_no_more_are_taken_than_are_shown() {
        let texts: Vec<String> = (0..1_000).map(|_| "x".repeat(100_000)).collect();
        let all = Ailment::all_of_a_heartbeat(&texts);
        let of = |ailment: &Ailment| ailment.error.clone().unwrap_or_default();
        assert_eq!((all.len(), of(&all[AILMENTS_MAX])), (AILMENTS_MAX + 1, "and 984 more things".to_owned()));
        assert!(all.iter().all(|ailment| of(ailment).len() <= AILMENT_CHARS_MAX));
    }

    #[test]
    fn an_ailment_comes_out_of_a_heartbeat_as_it_went_in_and_one_of_another_version_is_shown() {
        let ailments = [
            Ailment { kind: AilmentKind::StoreFails, error: Some("a: b".into()) },
            Ailment { kind: AilmentKind::NoLockManager, error: None },
            Ailment { kind: AilmentKind::Other, error: Some("the store: full".into()) },
        ];
        for ailment in ailments {
            let text = match ailment.kind {
                AilmentKind::Other => "the store: full".to_owned(),
                _ => ailment.in_a_heartbeat(),
            };
            assert_eq!(Ailment::of_a_heartbeat(&text), ailment);
            let word = serde_json::to_value(ailment.kind).unwrap();
            assert_eq!(word, ailment.kind.as_str());
        }
    }
}
