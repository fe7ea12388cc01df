//! The meaning of a status: its problems, how bad each is, and the next step. Pure: of the report alone.

use heirlock_core::LockManagerName;
use heirlock_core::drill::Verdict;
use serde::{Deserialize, Serialize};

use super::{DrillStatus, Heart, ServiceStatus, StatusReport};

/// How bad it is, the best first. Monitoring systems go by these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Every client that registers is on record, and nothing is to be done.
    Well,
    /// An administrator should look at it.
    Attention,
    /// Clients are unprotected, without their service, or have lost their locks.
    Unprotected,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The kind of problem.
    pub kind: ProblemKind,
    /// Of which service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Of which server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Of which lock manager, where a server has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_manager: Option<String>,
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How many clients it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<usize>,
    /// The words of the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Since when, in seconds since 1970, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_s: Option<u64>,
}

/// The kinds of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// No agent answers on this server.
    NoAgent,
    /// The agent listens and says nothing: it is stopped, or hangs.
    AgentSilent,
    /// A service belongs to this server, and no agent captures its clients.
    NotCaptured,
    /// The store does not answer.
    StoreSilent,
    /// The store fails.
    StoreFails,
    /// The status monitor's directory can't be read: new clients are unprotected.
    MonitorDirectoryUnreadable,
    /// No lock manager runs, though something that is held needs one.
    NoLockManager,
    /// Clients were granted locks that the store does not know of.
    ClientsAtRisk,
    /// The store does not take new clients in: they get no locks.
    ClientsRefused,
    /// Clients found no room in the store.
    NoRoom,
    /// An address of a service, or a program that serves there, is missing: no client could be told from it.
    NotReady,
    /// The status monitor's files of some clients could not be written.
    ClientFilesBehind,
    /// The lock manager takes no call that some clients were restarted: it may keep locks that no client holds.
    RestartsNotTaken,
    /// The address of a service that belongs to another server is on this one still.
    AddressLeftBehind,
    /// A release took the address of a service away and did not come to its end: no client reaches the service.
    AddressTakenAway,
    /// Clients were there before the agent, and it is not known whether their locks are gone.
    GraceUnknown,
    /// An entry of a directory is no monitor record.
    NoRecord,
    /// The other servers are not watched to the end, since the store is slower than its time limits again and again: none is taken for
    /// dead.
    HeartsUnwatched,
    /// Something in the store can't be read.
    Unreadable,
    /// The last adoption of a service failed.
    AdoptionFailed,
    /// Clients lost their locks in the last adoption.
    ClientsLost,
    /// Clients did not answer in the last adoption.
    ClientsUnreachable,
    /// An adoption waits for `--finish`.
    AwaitsFinish,
    /// The owner of a service is silent, and no server serves it.
    OwnerSilent,
    /// A service was given up, and no server has taken it.
    #[serde(rename = "nobody-serves")]
    Unserved,
    /// No server has ever claimed a service: none of its clients is on record under its name.
    NeverClaimed,
    /// The last drill here of a service that another server holds says that an adoption would not work.
    DrillFails,
    /// Something else.
    Other,
}

/// The next step for a service. The command that does it is made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Next {
    /// Nothing: the agent is at it.
    Wait,
    /// Bring the address up, then `adopt --finish`.
    Finish,
    /// `adopt`: no server holds it, or its adoption failed.
    Adopt,
    /// Make sure that its owner is off, then `adopt --owner-fenced`.
    AdoptFenced,
    /// Start the agent: it goes on with the adoption that was interrupted.
    StartAgent,
    /// `report`: some clients were not told.
    LookAtClients,
}

impl ProblemKind {
    /// All kinds.
    pub const ALL: [Self; 28] = [
        Self::NoAgent,
        Self::AgentSilent,
        Self::NotCaptured,
        Self::StoreSilent,
        Self::StoreFails,
        Self::MonitorDirectoryUnreadable,
        Self::NoLockManager,
        Self::ClientsAtRisk,
        Self::ClientsRefused,
        Self::NoRoom,
        Self::NotReady,
        Self::ClientFilesBehind,
        Self::RestartsNotTaken,
        Self::AddressLeftBehind,
        Self::AddressTakenAway,
        Self::GraceUnknown,
        Self::NoRecord,
        Self::HeartsUnwatched,
        Self::Unreadable,
        Self::AdoptionFailed,
        Self::ClientsLost,
        Self::ClientsUnreachable,
        Self::AwaitsFinish,
        Self::OwnerSilent,
        Self::Unserved,
        Self::NeverClaimed,
        Self::DrillFails,
        Self::Other,
    ];

    /// As `--json` spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoAgent => "no-agent",
            Self::AgentSilent => "agent-silent",
            Self::NotCaptured => "not-captured",
            Self::StoreSilent => "store-silent",
            Self::StoreFails => "store-fails",
            Self::MonitorDirectoryUnreadable => "monitor-directory-unreadable",
            Self::NoLockManager => "no-lock-manager",
            Self::ClientsAtRisk => "clients-at-risk",
            Self::ClientsRefused => "clients-refused",
            Self::NoRoom => "no-room",
            Self::NotReady => "not-ready",
            Self::ClientFilesBehind => "client-files-behind",
            Self::RestartsNotTaken => "restarts-not-taken",
            Self::AddressLeftBehind => "address-left-behind",
            Self::AddressTakenAway => "address-taken-away",
            Self::GraceUnknown => "grace-unknown",
            Self::NoRecord => "no-record",
            Self::HeartsUnwatched => "hearts-unwatched",
            Self::Unreadable => "unreadable",
            Self::AdoptionFailed => "adoption-failed",
            Self::ClientsLost => "clients-lost",
            Self::ClientsUnreachable => "clients-unreachable",
            Self::AwaitsFinish => "awaits-finish",
            Self::OwnerSilent => "owner-silent",
            Self::Unserved => "nobody-serves",
            Self::NeverClaimed => "never-claimed",
            Self::DrillFails => "drill-fails",
            Self::Other => "other",
        }
    }
}

impl Problem {
    /// Of a kind, and no more.
    pub fn new(kind: ProblemKind) -> Self {
        Self {
            kind,
            service: None,
            server: None,
            lock_manager: None,
            path: None,
            clients: None,
            error: None,
            since_s: None,
        }
    }

    /// Of this service.
    #[must_use]
    pub fn of(self, service: &str) -> Self {
        Self { service: Some(service.to_owned()), ..self }
    }

    /// Of this server.
    #[must_use]
    pub fn by(self, server: &str) -> Self {
        Self { server: Some(server.to_owned()), ..self }
    }

    /// Of this lock manager, where the server has several. A service says by itself which one it is.
    #[must_use]
    pub fn of_lock_manager(self, name: Option<&LockManagerName>) -> Self {
        let lock_manager = name.filter(|_| self.service.is_none()).map(ToString::to_string);
        Self { lock_manager, ..self }
    }

    /// At this path.
    #[must_use]
    pub fn at(self, path: &str) -> Self {
        Self { path: Some(path.to_owned()), ..self }
    }

    /// Of so many clients.
    #[must_use]
    pub fn with(self, clients: usize) -> Self {
        Self { clients: Some(clients), ..self }
    }

    /// In the words of the error.
    #[must_use]
    pub fn saying(self, error: &str) -> Self {
        Self { error: Some(error.to_owned()), ..self }
    }

    /// Since then, in seconds since 1970.
    #[must_use]
    pub fn since(self, since_s: u64) -> Self {
        Self { since_s: Some(since_s), ..self }
    }

    /// How bad it is.
    pub fn level(&self) -> Level {
        match self.kind {
            ProblemKind::AgentSilent
            | ProblemKind::NotCaptured
            | ProblemKind::StoreSilent
            | ProblemKind::StoreFails
            | ProblemKind::MonitorDirectoryUnreadable
            | ProblemKind::NoLockManager
            | ProblemKind::ClientsAtRisk
            | ProblemKind::ClientsRefused
            | ProblemKind::NoRoom
            | ProblemKind::AddressLeftBehind
            | ProblemKind::AddressTakenAway
            | ProblemKind::AdoptionFailed
            | ProblemKind::ClientsLost
            | ProblemKind::OwnerSilent => Level::Unprotected,
            ProblemKind::NoAgent
            | ProblemKind::NotReady
            | ProblemKind::ClientFilesBehind
            | ProblemKind::RestartsNotTaken
            | ProblemKind::GraceUnknown
            | ProblemKind::NoRecord
            | ProblemKind::HeartsUnwatched
            | ProblemKind::Unreadable
            | ProblemKind::ClientsUnreachable
            | ProblemKind::AwaitsFinish
            | ProblemKind::Unserved
            | ProblemKind::NeverClaimed
            | ProblemKind::DrillFails
            | ProblemKind::Other => Level::Attention,
        }
    }
}

impl StatusReport {
    /// The store's entries for a service can't be read.
    pub fn cannot_read(&self, service: &str) -> bool {
        let is_it = |problem: &Problem| {
            problem.kind == ProblemKind::Unreadable && problem.service.as_deref() == Some(service)
        };
        self.problems.iter().any(is_it)
    }
}

/// How bad the worst of it is.
pub fn level(report: &StatusReport) -> Level {
    report.problems.iter().map(Problem::level).max().unwrap_or(Level::Well)
}

/// Adds all that follows from the rest of a report: the problems of its services, and their next steps.
pub fn judge(report: &mut StatusReport) {
    let hearts: Vec<(String, Heart)> =
        report.servers.iter().map(|server| (server.server.clone(), server.heart)).collect();
    let heart_of = |owner: &str| hearts.iter().find(|(name, _)| name == owner).map(|(_, heart)| *heart);
    let mut found = Vec::new();
    let us = report.server.clone();
    // Of a store that can't be read nothing is known, and so nothing is wrong with what would lie in it.
    let is_never_claimed = |service: &ServiceStatus| {
        let is_anybodys = service.owner.is_some() || service.released_by.is_some() || service.held;
        let is_read = report.store.well && !report.cannot_read(&service.service);
        is_read && service.configured && service.generation.is_none() && !is_anybodys
    };
    let never: Vec<bool> = report.services.iter().map(is_never_claimed).collect();
    for (service, is_never_claimed) in report.services.iter_mut().zip(never) {
        if is_never_claimed {
            let problem = Problem::new(ProblemKind::NeverClaimed).of(&service.service);
            found.push(Problem { server: service.home.clone().filter(|home| *home != us), ..problem });
            service.next = (service.home.as_ref().is_none_or(|home| *home == us)).then_some(Next::Adopt);
            continue;
        }
        let is_ours = service.held || service.owner.as_ref() == Some(&us);
        let heart = service.owner.as_deref().and_then(heart_of);
        found.extend(problems_of(service, is_ours, heart));
        service.next = next_of(service, is_ours, heart);
    }
    found.extend(failed_drills(report));
    report.problems.extend(found);
}

/// A server that would not adopt a service is no standby of it. Where it holds the service by now, it did.
fn failed_drills(report: &StatusReport) -> Vec<Problem> {
    let is_held = |name: &str| report.services.iter().any(|service| service.service == name && service.held);
    let fails = |verdict: Verdict| matches!(verdict, Verdict::Fails | Verdict::StoreFails);
    let failed = report.drills.iter().filter(|drill| fails(drill.verdict) && !is_held(&drill.service));
    let why = |drill: &DrillStatus| drill.why.clone().unwrap_or_default();
    failed.map(|drill| Problem::new(ProblemKind::DrillFails).of(&drill.service).saying(&why(drill))).collect()
}

fn problems_of(service: &ServiceStatus, is_ours: bool, heart: Option<Heart>) -> Vec<Problem> {
    let problem = |kind| Problem::new(kind).of(&service.service);
    let mut found = Vec::new();
    if !is_ours {
        // For a service of another server, this server's status says only that no server serves it: each speaks for itself.
        if service.configured
            && let Some(server) = &service.released_by
        {
            found.push(problem(ProblemKind::Unserved).by(server));
        }
        if service.configured && heart == Some(Heart::Silent) {
            let silent = problem(ProblemKind::OwnerSilent).by(service.owner.as_deref().unwrap_or_default());
            found.push(Problem { error: service.left_to.clone(), ..silent });
        }
        return found;
    }
    if service.awaits_finish {
        found.push(problem(ProblemKind::AwaitsFinish));
    }
    if let Some(failure) = failure(service) {
        found.push(problem(ProblemKind::AdoptionFailed).saying(failure));
    }
    if service.lost > 0 {
        found.push(problem(ProblemKind::ClientsLost).with(service.lost));
    }
    if service.unreachable > 0 {
        found.push(problem(ProblemKind::ClientsUnreachable).with(service.unreachable));
    }
    found
}

fn next_of(service: &ServiceStatus, is_ours: bool, heart: Option<Heart>) -> Option<Next> {
    if service.awaits_finish {
        return Some(Next::Finish);
    }
    if service.clients_to_tell.is_some() {
        return Some(Next::Wait);
    }
    if is_ours {
        // A client that was never told still believes that it holds its locks: another grace period brings them back.
        let has_failed =
            service.phase.as_deref() == Some("failed") || service.lost > 0 && failure(service).is_some();
        let can_be_adopted = service.configured && has_failed;
        // No agent works on it, for none answers here.
        let is_interrupted = !service.held && service.adopted_at_s.is_some() && phase_goes_on(service);
        return match service.lost + service.unreachable {
            _ if can_be_adopted => Some(Next::Adopt),
            _ if is_interrupted => Some(Next::StartAgent),
            0 => None,
            _ => Some(Next::LookAtClients),
        };
    }
    if !service.configured {
        return None;
    }
    match (&service.owner, heart) {
        (None, _) if service.released_by.is_some() => Some(Next::Adopt),
        (Some(_), Some(Heart::Silent)) if service.automatic && !service.lacks_candidates => Some(Next::Wait),
        (Some(_), Some(Heart::Silent)) => Some(Next::AdoptFenced),
        _ => None,
    }
}

fn phase_goes_on(service: &ServiceStatus) -> bool {
    service.phase.as_deref().is_some_and(|phase| !matches!(phase, "settled" | "failed"))
}

/// Why its last adoption failed, as long as that matters: until every client that was missed is back, or forgotten.
fn failure(service: &ServiceStatus) -> Option<&str> {
    let matters = service.phase.as_deref() == Some("failed") || service.lost + service.unreachable > 0;
    service.failure.as_deref().filter(|_| matters)
}

#[cfg(test)]
mod tests;
