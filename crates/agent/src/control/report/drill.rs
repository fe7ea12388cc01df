//! The report of a drill, and what is kept of it.

use heirlock_core::drill::estimate::Estimate;
use heirlock_core::drill::{Check, Finding, Unreached, Verdict};
use serde::{Deserialize, Serialize};

/// Clients that [`DrillStatus`] names; it counts all of them.
const NAMED_MAX: usize = 5;

/// Characters of [`DrillStatus::why`].
const WHY_CHARS_MAX: usize = 500;

/// The report of one drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillReport {
    /// The service.
    pub service: String,
    /// The server that was drilled, which would adopt it.
    pub server: String,
    /// What it amounts to.
    pub verdict: Verdict,
    /// The server that holds the service; none where it was never claimed, or given up.
    #[serde(default)]
    pub owner: Option<String>,
    /// When the drill began, in seconds since 1970.
    pub at_s: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// How many clients are on record.
    pub clients: usize,
    /// How many of them answered.
    pub answered: usize,
    /// How many would not be told: they did not answer, can't be called from here, or their records can't be read.
    pub left_out: usize,
    /// From which addresses the clients were asked; none where the routes to them chose.
    #[serde(default)]
    pub asked_from: Vec<String>,
    /// How long an adoption would take.
    pub estimate: Estimate,
    /// What was looked at, in the order in which an adoption needs it.
    pub checks: Vec<Check>,
    /// The clients that would not be told, in order; the first ten thousand.
    pub unreached: Vec<Unreached>,
}

/// The part of a drill that is kept, and shown in a status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillStatus {
    /// The service.
    pub service: String,
    /// What it amounted to.
    pub verdict: Verdict,
    /// When the drill began, in seconds since 1970.
    pub at_s: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// How many clients were on record.
    pub clients: usize,
    /// How many of them would not have been told.
    pub left_out: usize,
    /// Some of those, by name.
    #[serde(default)]
    pub unreached: Vec<String>,
    /// The first finding that speaks against an adoption, or that leaves it open.
    #[serde(default)]
    pub why: Option<String>,
    /// How long an adoption would take until the last client is told, in milliseconds.
    #[serde(default)]
    pub until_told_ms: Option<u64>,
}

impl DrillReport {
    /// The findings that are the ground of the verdict, the worst first.
    pub fn against(&self) -> impl Iterator<Item = &Check> {
        let of = |finding: Finding| self.checks.iter().filter(move |check| check.finding == finding);
        of(Finding::Unmet).chain(of(Finding::Unchecked))
    }
}

impl From<&DrillReport> for DrillStatus {
    fn from(report: &DrillReport) -> Self {
        let cut = |text: &String| text.chars().take(WHY_CHARS_MAX).collect();
        Self {
            service: report.service.clone(),
            verdict: report.verdict,
            at_s: report.at_s,
            took_ms: report.took_ms,
            clients: report.clients,
            left_out: report.left_out,
            unreached: report.unreached.iter().take(NAMED_MAX).map(|one| cut(&one.client)).collect(),
            why: report.against().next().map(|check| cut(&check.found)),
            until_told_ms: report.estimate.until_told_ms,
        }
    }
}
