//! The task of a run, and what its server holds when it begins.

use std::time::Duration;

use super::{Cause, Conveyance, Strategy, TimeLimits, Until};
use crate::claim::Authority;
use crate::incarnation::Incarnation;
use crate::moment::Moment;
use crate::names::{ServerName, ServiceName};

/// The task of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its name: unique, given by the agent, which may draw random numbers.
    pub run: String,
    /// The server.
    pub server: ServerName,
    /// Why it begins.
    pub cause: Cause,
    /// Services to be taken over. Empty in a self-adoption.
    pub targets: Vec<ServiceName>,
    /// The services that this server holds besides, and its duties.
    pub standing: Standing,
    /// How the lock manager is made to recognise; ignored in a self-adoption, where that has happened.
    pub strategy: Strategy,
    /// How records are conveyed.
    pub convey: Conveyance,
    /// Where to stop.
    pub until: Until,
    /// The grounds on which a claim is permitted while the owner lives.
    pub authority: Authority,
    /// Whether the owners must be confirmed off first.
    pub fence: bool,
    /// How much of grace must be left for a notification to leave.
    pub margin: Duration,
    /// How long what is done for it may take.
    pub limits: TimeLimits,
    /// The owner's last sign of life that was seen.
    pub primary_lost: Option<Moment>,
    /// When it begins, in seconds since 1970. For people.
    pub started_at_s: u64,
}

/// The services that a server holds and its duties, on which a run depends until it has claimed.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// Services of this server's lock manager, `host` among them. Services that are to be taken over are passed over.
    pub own: Vec<ServiceName>,
    /// The services of these whose locks are gone already: the lock manager was restarted before the run.
    pub lost: Vec<ServiceName>,
    /// Services whose locks may be gone or not: told like the lost ones, and not lost for good.
    pub unknown: Vec<ServiceName>,
    /// The life that this server's peers know of ([`Journal::life_told`]).
    pub life_before: Option<Incarnation>,
    /// The life that runs.
    pub life_now: Option<Incarnation>,
}

impl Standing {
    /// Whether this service's clients are to be told by the next run.
    #[must_use]
    pub fn owes(&self, service: &ServiceName) -> bool {
        self.lost.contains(service) || self.unknown.contains(service)
    }
}
