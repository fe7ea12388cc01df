//! How far an adoption has come.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The phases, in order. Each is entered only after the one before is durable.
///
/// ```text
/// intent ─► fenced ─► claimed ─► conveyed ─► recognised ─► proved ─► ready ─► notifying ─► settling ─► settled
///    │         │         │           │            │           │  (prepared: waits here for --finish)
///    └refused──┘         └───────────┴────────────┴─ failed; the next run begins a new generation
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Asked for; nothing was changed.
    Intent,
    /// The owner is confirmed off.
    Fenced,
    /// The next generation is ours, with all records and a state number that was never sent.
    Claimed,
    /// The records lie where the lock manager's status monitor looks; or they are being placed there, where no program reads
    /// them that recognition runs ([`Strategy::reads_placed`](super::Strategy::reads_placed)).
    Conveyed,
    /// The lock manager was made to drop what it had and to open a grace period. From here on the state number
    /// belongs to this life.
    Recognised,
    /// Grace is open, by the lock manager's own word.
    Proved,
    /// Address up, exports active, NLM registered.
    Ready,
    /// Clients are being told: the state number may have been sent.
    Notifying,
    /// All were told or can't be; clients come back until grace ends.
    Settling,
    /// Each client's outcome is known and durable.
    Settled,
    /// It could not go on. Claimed services stay claimed; the next run begins a new generation.
    Failed,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Self; 11] = [
        Self::Intent,
        Self::Fenced,
        Self::Claimed,
        Self::Conveyed,
        Self::Recognised,
        Self::Proved,
        Self::Ready,
        Self::Notifying,
        Self::Settling,
        Self::Settled,
        Self::Failed,
    ];

    /// As logs and reports spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Intent => "intent",
            Phase::Fenced => "fenced",
            Phase::Claimed => "claimed",
            Phase::Conveyed => "conveyed",
            Phase::Recognised => "recognised",
            Phase::Proved => "proved",
            Phase::Ready => "ready",
            Phase::Notifying => "notifying",
            Phase::Settling => "settling",
            Phase::Settled => "settled",
            Phase::Failed => "failed",
        }
    }

    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Phase::Settled | Phase::Failed)
    }

    /// As people are shown it: a run that failed did not settle, though the outcome of each of its clients is known.
    #[must_use]
    pub fn shown(self, has_failed: bool) -> Self {
        if has_failed && self == Phase::Settled { Phase::Failed } else { self }
    }

    /// Whether the state number is bound to the life of the lock manager that was recognised then: a run that is
    /// resumed in the same life may go on with it.
    #[must_use]
    pub fn is_bound_to_a_life(self) -> bool {
        matches!(self, Phase::Recognised | Phase::Proved | Phase::Ready | Phase::Notifying | Phase::Settling)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
