//! A drill: what would come of an adoption of a service by this server, found out without one.
//!
//! All of an adoption is looked at that can be without harm: the store is read, the needs of an adoption are looked for, and every
//! client on record is asked whether it can be reached. What only an adoption does is named as not tried. Here is decided whether a
//! drill may begin, what the findings amount to, in which order clients are named, and how long the adoption would take.

pub mod estimate;

use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::names::ServiceName;

/// The name of the check that the store can be read. An adoption begins with it.
pub const STORE: &str = "store";

/// The finding of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// As an adoption needs it.
    #[serde(rename = "ok")]
    Met,
    /// Worth knowing: something that an adoption alone does, or that hurts some clients.
    #[serde(rename = "note")]
    Noted,
    /// It could not be looked at now, or it is missing and may be brought right before an adoption. It may be as it should.
    Unchecked,
    /// An adoption would be refused for it, or fail.
    #[serde(rename = "fails")]
    Unmet,
}

impl Finding {
    /// As it is printed, and as `--json` spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Met => "ok",
            Self::Noted => "note",
            Self::Unchecked => "unchecked",
            Self::Unmet => "fails",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name: a word that does not change, for scripts.
    pub check: String,
    /// The finding.
    pub finding: Finding,
    /// The finding in words.
    pub found: String,
    /// The remedy for an administrator, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Check {
    /// A check of this name, with its finding in words.
    #[must_use]
    pub fn new(check: &str, finding: Finding, found: impl Into<String>) -> Self {
        Self { check: check.to_owned(), finding, found: found.into(), remedy: None }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

/// A client that an adoption would not tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreached {
    /// Its key in the store: its address. Where its record can't be read, the place of that.
    pub client: String,
    /// The names that it registered under, other than that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Why it would not be told.
    pub why: String,
}

/// The order in which clients are named: addresses by number, IPv4 before IPv6, then all others by their text.
#[must_use]
pub fn in_order(one: &Unreached, other: &Unreached) -> Ordering {
    let key = |client: &str| -> (bool, Option<IpAddr>) {
        let address = client.parse().ok();
        (address.is_none(), address)
    };
    key(&one.client).cmp(&key(&other.client)).then_with(|| one.client.cmp(&other.client))
}

/// What a drill amounts to, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// An adoption would work, and every client on record can be reached.
    Works,
    /// Nothing speaks against an adoption, and something that it needs could not be checked.
    Unproved,
    /// This server holds the service, so that another one would adopt it. Its clients were asked all the same.
    HeldHere,
    /// An adoption would work, and some clients on record would not be told of it.
    LeavesOut,
    /// An adoption would be refused, or fail.
    Fails,
    /// The store can't be read, and an adoption begins with it.
    StoreFails,
}

impl Verdict {
    /// All of them, the best first.
    pub const ALL: [Self; 6] =
        [Self::Works, Self::Unproved, Self::HeldHere, Self::LeavesOut, Self::Fails, Self::StoreFails];

    /// The verdict on these checks. `left_out`: clients that would not be told.
    ///
    /// Where this server holds the service, a need that is missing here is no other server's.
    #[must_use]
    pub fn of(is_held_here: bool, checks: &[Check], left_out: usize) -> Self {
        let any = |finding: Finding| checks.iter().any(|check| check.finding == finding);
        let store_fails = checks.iter().any(|check| check.check == STORE && check.finding == Finding::Unmet);
        match () {
            () if store_fails => Self::StoreFails,
            () if is_held_here => Self::HeldHere,
            () if any(Finding::Unmet) => Self::Fails,
            () if left_out > 0 => Self::LeavesOut,
            () if any(Finding::Unchecked) => Self::Unproved,
            () => Self::Works,
        }
    }

    /// As `--json` spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Unproved => "unproved",
            Self::HeldHere => "held-here",
            Self::LeavesOut => "leaves-out",
            Self::Fails => "fails",
            Self::StoreFails => "store-fails",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is going on on this server when a drill is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GoingOn {
    /// Services that are being adopted here, or whose clients are being told.
    pub adopting: Vec<String>,
    /// The drill that is on: of which service, and for how many seconds.
    pub drill: Option<(String, u64)>,
}

/// Why a drill is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The real thing is on.
    #[error(
        "an adoption is on here ({}): it tells more than a drill, which would ask the same clients beside it; see 'heirlock status', and \
         drill {service} when that has settled", .adopting.join(", ")
    )]
    Adopting {
        /// the service that was to be drilled
        service: ServiceName,
        /// the services that are being adopted
        adopting: Vec<String>,
    },
    /// One drill at a time.
    #[error(
        "a drill of {drilled} has been on here for {for_s} s, and one is made at a time: 'heirlock status' shows its result, and when \
         it is over drill {service}"
    )]
    Drilling {
        /// the service that was to be drilled
        service: ServiceName,
        /// the one that is being drilled
        drilled: String,
        /// for how long, in seconds
        for_s: u64,
    },
}

/// Whether a drill of a service may begin.
///
/// # Errors
/// Where an adoption is on here, or another drill.
pub fn may_begin(service: &ServiceName, going_on: &GoingOn) -> Result<(), Refusal> {
    let service = service.clone();
    match &going_on.drill {
        _ if !going_on.adopting.is_empty() => {
            Err(Refusal::Adopting { service, adopting: going_on.adopting.clone() })
        }
        Some((drilled, for_s)) => Err(Refusal::Drilling { service, drilled: drilled.clone(), for_s: *for_s }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
