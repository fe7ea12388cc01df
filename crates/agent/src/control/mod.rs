//! The language of an agent's control socket: requests, answers, and how far it is. The program writes each as JSON in one line.

pub mod report;
mod responder;

use std::fmt;
use std::str::FromStr;

use heirlock_core::names::NameError;
use heirlock_core::takeover::Phase;
use heirlock_core::{Moment, ServerName, ServiceName};
use serde::{Deserialize, Serialize};

pub use responder::{Respond, Responder};

use report::observed::Verb;
use report::{AdoptionReport, EntryTrouble};

/// The server that is confirmed off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fenced {
    /// The server that owns the service when this is said.
    Owner,
    /// This server, and no other one.
    Server(ServerName),
}

impl Fenced {
    /// The word for the owner on the command line. No server has this name, and an empty variable does not leave it.
    pub const OWNER: &str = "*";

    /// The server, where the owner is this one.
    pub fn server(self, owner: impl FnOnce() -> Option<ServerName>) -> Option<ServerName> {
        match self {
            Self::Owner => owner(),
            Self::Server(server) => Some(server),
        }
    }
}

/// As on the command line.
impl FromStr for Fenced {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == Self::OWNER { Ok(Self::Owner) } else { ServerName::parse(text).map(Self::Server) }
    }
}

/// When the caller that asked for an adoption is answered. The adoption goes on in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnswerWhen {
    /// When the service is claimed: nothing can refuse it any more.
    Accepted,
    /// When grace is proved to be open.
    Prepared,
    /// When every client has answered or had its first round of tries.
    Notified,
    /// When every client's outcome is known, after grace at the latest.
    #[default]
    Settled,
}

/// A request to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How it is.
    Status,
    /// Take a service over.
    Adopt {
        /// which
        service: ServiceName,
        /// only as far as grace is proved
        prepare: bool,
        /// go on from there
        finish: bool,
        /// the server that is confirmed off
        fenced: Option<Fenced>,
        /// in spite of everything
        force: bool,
        /// how long the caller wants to wait
        #[serde(default)]
        answer_when: AnswerWhen,
    },
    /// Give a service away in order.
    Release {
        /// which
        service: ServiceName,
    },
    /// Bring a service home to this server.
    Failback {
        /// which
        service: ServiceName,
        /// how long the caller wants to wait
        #[serde(default)]
        answer_when: AnswerWhen,
    },
    /// Move a service to a server that lives, in order: its owner gives it up, and that server adopts it.
    Move {
        /// which
        service: ServiceName,
        /// the server that is to have it
        to: ServerName,
        /// how long the caller wants to wait
        #[serde(default)]
        answer_when: AnswerWhen,
    },
    /// This server's silence is no reason to adopt, or is one again.
    Maintenance {
        /// on or off
        on: bool,
    },
    /// Forget a client.
    Forget {
        /// of which service
        service: ServiceName,
        /// its key in the store
        client: String,
    },
    /// The report of the last adoption of a service.
    Report {
        /// which
        service: ServiceName,
    },
    /// The last adoptions in the store. The agent's server answers, and the agent never sees it.
    Past,
    /// Find out what would come of an adoption of a service, without one. The agent's server answers, and the agent never sees it.
    Drill {
        /// which
        service: ServiceName,
    },
}

impl Request {
    /// It changes nothing, and is answered without the agent's loop: at any time, and to readers that may ask for no more.
    #[must_use]
    pub fn only_reads(&self) -> bool {
        matches!(self, Self::Status | Self::Past)
    }

    /// Its verb, where it is one that is counted.
    #[must_use]
    pub fn verb(&self) -> Option<Verb> {
        Some(match self {
            Self::Status | Self::Past | Self::Drill { .. } => return None,
            Self::Adopt { .. } => Verb::Adopt,
            Self::Release { .. } => Verb::Release,
            Self::Failback { .. } => Verb::Failback,
            Self::Move { .. } => Verb::Move,
            Self::Maintenance { .. } => Verb::Maintenance,
            Self::Forget { .. } => Verb::Forget,
            Self::Report { .. } => Verb::Report,
        })
    }
}

/// One line of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// It goes on.
    Progress(Progress),
    /// It is done.
    Done(Answer),
    /// It is not.
    Failed(Failure),
}

/// How far an adoption is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Progress {
    /// Its phase.
    pub phase: Phase,
    /// Clients to be told.
    pub clients: usize,
    /// Clients that have answered.
    pub answered: usize,
    /// The present wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,
    /// The sentences that the caller is to know: the same ones with each message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<String>,
}

/// A wait: its reason, and its bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Wait {
    /// The thing that is waited for, and why, as in "waiting for …".
    pub for_what: String,
    /// How long at most from now, in milliseconds, where that is known.
    pub at_most_ms: Option<u64>,
}

impl Wait {
    /// Until this moment at the latest, where one is known.
    pub fn new(for_what: impl Into<String>, now: Moment, until: Option<Moment>) -> Self {
        let left_ms = |until: Moment| u64::try_from(until.since(now).as_millis()).unwrap_or(u64::MAX);
        Self { for_what: for_what.into(), at_most_ms: until.map(left_ms) }
    }
}

impl Progress {
    /// Nothing but a wait, before a run begins or where there is none.
    pub fn waiting(wait: Wait) -> Self {
        Self { phase: Phase::Intent, clients: 0, answered: 0, wait: Some(wait), told: Vec::new() }
    }
}

/// The end of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<report::StatusReport>),
    /// To [`Request::Past`], the newest first.
    Past {
        /// the adoptions, each with the outcomes of its first clients, unnamed
        adoptions: Vec<AdoptionReport>,
    },
    /// To [`Request::Drill`].
    Drill(Box<report::DrillReport>),
    /// To an adoption that settled, or is prepared.
    Adoption(Box<AdoptionReport>),
    /// To [`Request::Move`] to another server than the one that was asked: the service is there. What became of its clients is in the
    /// store.
    Moved {
        /// which service
        service: ServiceName,
        /// the server that has it
        to: ServerName,
        /// whether anything was done: it may have been there before
        changed: bool,
    },
    /// To a verb that is done, or that found nothing to do.
    Verb {
        /// of which service, where it is about one
        service: Option<ServiceName>,
        /// whether it changed anything: a verb that is said twice changes nothing the second time, and succeeds
        changed: bool,
        /// a sentence on its result
        text: String,
        /// entries that are not what they should be: it is done, and clients may be missing
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        troubles: Vec<EntryTrouble>,
    },
}

impl Answer {
    /// It is done.
    pub fn changed(service: Option<&ServiceName>, text: impl Into<String>) -> Self {
        Self::Verb { service: service.cloned(), changed: true, text: text.into(), troubles: Vec::new() }
    }

    /// To an adoption. `changed`: it was done, or waited for; else all that was asked for was reached before.
    pub fn adopted(report: AdoptionReport, changed: bool) -> Self {
        Self::Adoption(Box::new(AdoptionReport { changed: Some(changed), ..report }))
    }

    /// It was done before.
    pub fn unchanged(service: Option<&ServiceName>, text: impl Into<String>) -> Self {
        Self::Verb { service: service.cloned(), changed: false, text: text.into(), troubles: Vec::new() }
    }
}

/// One thing that an adoption needs and that isn't there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Missing {
    /// Which check: a word that does not change, for scripts.
    pub check: String,
    /// The finding.
    pub found: String,
    /// The remedy that an administrator has.
    pub remedy: String,
}

impl Missing {
    /// A need that a check of this name found unmet, and its remedy.
    pub fn new(check: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check: check.to_owned(), found: found.into(), remedy: remedy.into() }
    }
}

/// Without its check, which scripts go by.
impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.found, self.remedy)
    }
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failure {
    /// The expectation, the finding, and the remedy.
    pub message: String,
    /// Nothing was changed.
    pub refused: bool,
    /// The report on the clients, where an adoption could not go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Box<AdoptionReport>>,
    /// The unmet needs of an adoption that was refused, one by one; the message says the same in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
}
