//! What was seen of grace in the life that runs: noted where the agent's next start finds it, and asked where it isn't known.

use heirlock_core::Moment;
use heirlock_core::grace::{Clocks, Recalled, Remembered};
use heirlock_core::incarnation::Incarnation;

use super::outside::InstanceOutside;
use crate::limits;

/// Since when grace has been open, and when it was last seen closed.
#[derive(Debug, Default)]
pub struct GraceNote {
    /// The note as it was last written.
    noted: Option<Remembered>,
}

impl GraceNote {
    /// The observations of the agent before us in the life that the store knows.
    pub fn recall(
        &mut self,
        known: Option<&Incarnation>,
        outside: &impl InstanceOutside,
        at: Clocks,
    ) -> Recalled {
        self.noted = outside.grace_note();
        let recalled = self.noted.as_ref().zip(known);
        recalled.map(|(noted, life)| noted.recall(life, at)).unwrap_or_default()
    }

    /// Grace of this life did not open before `since`.
    pub fn opened(
        &mut self,
        life: &Incarnation,
        since: Moment,
        outside: &mut impl InstanceOutside,
        at: Clocks,
    ) {
        let noted = Remembered::opened(life.clone(), since, at);
        outside.note_grace(self.noted.insert(noted));
    }

    /// Grace of this life was closed when the lock manager was looked at.
    pub fn closed(
        &mut self,
        life: &Incarnation,
        looked: Moment,
        outside: &mut impl InstanceOutside,
        at: Clocks,
    ) {
        let noted = self.noted.get_or_insert_with(|| Remembered::of(life.clone()));
        if noted.sees_closed(life, looked, at) {
            outside.note_grace(noted);
        }
    }
}

/// The questions about clients that were recorded before any life of the lock manager was noted
/// ([`EarlierLocks`](heirlock_core::duty::EarlierLocks)).
#[derive(Debug, Default)]
pub(crate) struct GraceInquiry {
    /// When the lock manager was last asked, in the life that runs.
    asked_at: Option<Moment>,
    /// Why the last answer told nothing.
    silent: Option<String>,
}

impl GraceInquiry {
    /// Whether the lock manager is to be asked now, which is noted; and whether that is the first time in this life.
    pub(crate) fn asks(&mut self, now: Moment) -> Option<bool> {
        let asked_lately = |at: Moment| now.since(at) < limits::ASK_GRACE_INTERVAL;
        if self.asked_at.is_some_and(asked_lately) {
            return None;
        }
        Some(self.asked_at.replace(now).is_none())
    }

    /// The answer told nothing, for this reason, or told all. Says whether that differs from the answer before.
    pub(crate) fn told(&mut self, silent: Option<String>) -> bool {
        let is_news = self.silent.is_some() != silent.is_some();
        self.silent = silent;
        is_news
    }

    /// Why the last answer told nothing.
    pub(crate) fn silent(&self) -> Option<&str> {
        self.silent.as_deref()
    }
}
