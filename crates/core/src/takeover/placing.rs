//! Records are placed into the status monitor's directory. Where no program reads them that recognition runs, the run goes on
//! meanwhile: its generation is durable, and from it the clients are told. The files are there for the tools that would tell
//! them without heirlock.

use super::event::{Action, Hindrance};
use super::journal::{Milestone, Stamp, Trouble};
use super::member::Member;
use super::{Phase, Steps, Strategy, Takeover, Until};
use crate::Batch;
use crate::limits;
use crate::moment::Moment;

/// Whether records are being placed for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Placing {
    /// That has not begun, or has ended.
    #[default]
    No,
    /// Until that moment it may take.
    Until(Moment),
    /// Time is up. The work may end still, and then the run names the records that could not be placed.
    Late,
}

impl Placing {
    pub(super) fn until(self) -> Option<Moment> {
        match self {
            Placing::Until(at) => Some(at),
            Placing::No | Placing::Late => None,
        }
    }

    pub(super) fn is_late(self, now: Moment) -> bool {
        self.until().is_some_and(|at| now >= at)
    }

    pub(super) fn is_begun(self) -> bool {
        self != Placing::No
    }
}

impl Takeover {
    /// Whether records are being placed, within the time limit. The run settles after that in any case.
    #[must_use]
    pub fn is_placing(&self) -> bool {
        matches!(self.placing, Placing::Until(_))
    }

    /// Whether recognition may begin before all records are placed. A run that is prepared waits for them: another program, or a
    /// person, goes on from there.
    fn places_beside(&self) -> bool {
        !self.plan.strategy.reads_placed() && self.plan.until == Until::Settled
    }

    pub(super) fn placing_begun(&mut self, now: Moment) -> Steps {
        let records: usize = self.taken_over().map(|member| member.counts().0).sum();
        let each = limits::PLACED_TIME_EACH.saturating_mul(u32::try_from(records).unwrap_or(u32::MAX));
        self.placing = Placing::Until(now + self.plan.limits.conveying + each);
        if self.phase != Phase::Claimed || !self.places_beside() {
            return Batch::nothing();
        }
        self.go_on_to_recognition()
    }

    fn go_on_to_recognition(&mut self) -> Steps {
        self.phase = Phase::Conveyed;
        // A self-adoption follows what has happened already.
        let strategy = if self.is_own_restart() { Strategy::Notify } else { self.plan.strategy };
        Batch { persist: self.journals(None), then: vec![Action::Recognise(strategy)] }
    }

    /// Recognition has waited for the last record.
    pub(super) fn conveyed(&mut self, now: Moment, result: Result<Vec<Trouble>, String>) -> Steps {
        self.placing = Placing::No;
        match result {
            Ok(troubles) => self.trouble(troubles),
            Err(why) => return self.fail_untold(now, Hindrance::Conveying, why),
        }
        self.reach(now, Milestone::Conveyed);
        self.go_on_to_recognition()
    }

    /// The last record is placed, and recognition has begun before.
    pub(super) fn placed(&mut self, now: Moment, result: Result<Vec<Trouble>, String>) -> Steps {
        self.placing = Placing::No;
        match result {
            Ok(troubles) => self.trouble(troubles),
            Err(why) => self.not_placed(&why),
        }
        self.reach(now, Milestone::Conveyed);
        Batch { persist: self.journals(None), then: Vec::new() }
    }

    /// Records are not placed in time. The status monitor's directory hangs, and clients are told all the same.
    pub(super) fn placing_hangs(&mut self) -> Steps {
        self.placing = Placing::Late;
        self.not_placed(
            "its records were not placed in time: a disk or a thread hangs (look with 'heirlock doctor')",
        );
        match self.phase {
            Phase::Claimed => self.go_on_to_recognition(),
            _ => Batch { persist: self.journals(None), then: Vec::new() },
        }
    }

    fn not_placed(&mut self, why: &str) {
        let of = |member: &Member| Trouble {
            service: member.service.clone(),
            entry: "sm".to_owned(),
            why: why.to_owned(),
            fate_unknown: false,
        };
        let troubles: Vec<Trouble> = self.taken_over().map(of).collect();
        self.trouble(troubles);
    }

    fn reach(&mut self, now: Moment, event: Milestone) {
        let at_ms = self.since_began(now);
        self.timeline.push(Stamp { event, at_ms });
    }
}

#[cfg(test)]
mod tests;
