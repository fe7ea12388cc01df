//! How long a run waits, and for what: no thread and no program that hangs keeps one for ever.
//!
//! | it waits for | until | then |
//! |---|---|---|
//! | [`Work::Fit`] | [`TimeLimits::fit`] | it is refused: nothing was changed |
//! | [`Work::Fence`] | [`TimeLimits::fence`] | it is refused: nothing was changed |
//! | [`Work::Conveying`] | [`TimeLimits::conveying`], and [`limits::PLACED_TIME_EACH`] for each record | it goes on, and says that records were not placed; their clients are told all the same |
//! | [`Work::Recognition`] | [`TimeLimits::recognition`] | it fails. When another life of the lock manager begins all the same, that one's run tells the clients |
//! | [`Work::Proof`] | [`TimeLimits::proof`] | its clients are lost, and it is over |
//! | `--finish` | the last moment at which a notification may leave | its clients are lost, and it is over |
//! | [`Work::BringUp`] | [`limits::LATE_REPORT_TIME_MAX`] after grace | its clients are lost, and it is over |
//! | [`Work::Telling`] | [`limits::LATE_REPORT_TIME_MAX`] after grace | clients that have not answered are lost; it settles |
//! | clients that come back | a second after grace | it looks once more |
//! | a last look at the lock manager | [`limits::LAST_LOOK_TIME_MAX`] | it settles, and retires no client |
//!
//! A wait for the store has no limit: the write is tried again until the store takes it. Every other wait is counted from the
//! moment at which the work began ([`Event::Begun`]).

use std::time::Duration;

use super::event::{Action, Event, Hindrance};
use super::member::Member;
use super::{Phase, Steps, Takeover};
use crate::limits;
use crate::moment::Moment;

/// Work that is done beside a run, and that reports to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// [`Action::CheckFit`].
    Fit,
    /// [`Action::Fence`].
    Fence,
    /// [`Action::Convey`]. Other work may go on meanwhile.
    Conveying,
    /// [`Action::Recognise`].
    Recognition,
    /// [`Action::Prove`].
    Proof,
    /// [`Action::BringUp`].
    BringUp,
    /// [`Action::Notify`].
    Telling,
}

/// How long work may take whose end no grace period sets. Longer than all limits that it keeps to itself: work that is late
/// here hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// To find out what an adoption needs.
    pub fit: Duration,
    /// To have the owners confirmed off.
    pub fence: Duration,
    /// To place records, however few.
    pub conveying: Duration,
    /// To bring volumes up and to make the lock manager recognise.
    pub recognition: Duration,
    /// To prove that grace is open.
    pub proof: Duration,
}

impl TimeLimits {
    /// The same limit for each.
    #[must_use]
    pub const fn each(limit: Duration) -> Self {
        Self { fit: limit, fence: limit, conveying: limit, recognition: limit, proof: limit }
    }
}

impl Action {
    /// The work that it begins, where that reports.
    #[must_use]
    pub fn work(&self) -> Option<Work> {
        match self {
            Action::CheckFit(_) => Some(Work::Fit),
            Action::Fence(_) => Some(Work::Fence),
            Action::Convey { .. } => Some(Work::Conveying),
            Action::Recognise(_) => Some(Work::Recognition),
            Action::Prove => Some(Work::Proof),
            Action::BringUp(_) => Some(Work::BringUp),
            Action::Notify(_) => Some(Work::Telling),
            Action::Claim { .. }
            | Action::StopNotifying
            | Action::CleanUp
            | Action::AwaitFinish
            | Action::Over(_) => None,
        }
    }
}

impl Event {
    /// The work that it is the end of. [`Work::Telling`] ends once for each service: the run knows when it is through.
    fn ends(&self) -> Option<Work> {
        match self {
            Event::Fit(_) => Some(Work::Fit),
            Event::Fenced(_) => Some(Work::Fence),
            Event::Conveyed(_) => Some(Work::Conveying),
            Event::Recognised(_) => Some(Work::Recognition),
            Event::Proved(_) => Some(Work::Proof),
            Event::BroughtUp(_) => Some(Work::BringUp),
            _ => None,
        }
    }
}

impl Takeover {
    /// An action that it asked for begins: work that reports is waited for from now on. What is to be done beside that, where
    /// records are being placed, [`Takeover::step`] answers when it is told of [`Event::Begun`]; here it is nothing.
    pub fn begins(&mut self, now: Moment, action: &Action) {
        if let Some(work) = action.work().filter(|work| *work != Work::Conveying) {
            let _ = self.step(now, Event::Begun(work));
        }
    }

    /// Until when at the latest it waits in this phase, where that is known.
    #[must_use]
    pub fn waits_until(&self) -> Option<Moment> {
        match self.phase {
            Phase::Proved | Phase::Ready | Phase::Notifying => self.grace.map(|grace| grace.last_call()),
            Phase::Settling => Some(self.settled_at()),
            _ => None,
        }
    }

    /// When to tell it that time has passed.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Moment> {
        self.placing.until().into_iter().chain(self.timeout_of_phase()).min()
    }

    /// The same, but for records that are being placed.
    pub(super) fn timeout_of_phase(&self) -> Option<Moment> {
        match self.phase {
            // It is over with the last record.
            Phase::Settling if self.is_placing() => None,
            Phase::Settling => Some(match self.looking_since {
                Some(since) => since + limits::LAST_LOOK_TIME_MAX,
                None => self.settled_at(),
            }),
            Phase::Proved if self.awaits_finish => self.grace.map(|grace| grace.last_call()),
            _ => self.working.map(|(_, until)| until),
        }
    }

    /// Whether it may matter now that time has passed, or that another look was taken. To be asked after every event: no time
    /// announces that all clients are back, or that a look shows the same life.
    #[must_use]
    pub fn is_due(&self, now: Moment) -> bool {
        if self.placing.until().is_some_and(|at| now >= at) {
            return true;
        }
        match self.phase {
            Phase::Settling if self.is_placing() => false,
            Phase::Settling => {
                self.looking_since.is_some() || now >= self.settled_at() || self.are_all_clients_back()
            }
            _ => self.timeout_of_phase().is_some_and(|at| now >= at),
        }
    }

    pub(super) fn are_all_clients_back(&self) -> bool {
        self.members.iter().all(Member::all_registered)
    }

    /// Reclaims are accepted until grace ends, and SM_MON precedes them: a second later all registrations are seen.
    pub(super) fn settled_at(&self) -> Moment {
        self.grace.map_or(Moment::START, |grace| grace.ends()) + Duration::from_secs(1)
    }

    /// Work began for it.
    pub(super) fn begun(&mut self, now: Moment, work: Work) -> Steps {
        let TimeLimits { fit, fence, recognition, proof, .. } = self.plan.limits;
        let until = match work {
            Work::Conveying => return self.placing_begun(now),
            Work::Fit => now + fit,
            Work::Fence => now + fence,
            Work::Recognition => now + recognition,
            Work::Proof => now + proof,
            // They end by themselves where grace is too short for a notification.
            Work::BringUp | Work::Telling => {
                self.grace.map_or(now, |grace| grace.ends()) + limits::LATE_REPORT_TIME_MAX
            }
        };
        self.working = Some((work, until));
        Steps::nothing()
    }

    /// The work that it waited for may have ended by this event.
    pub(super) fn ended_by(&mut self, event: &Event) {
        self.working = self.working.filter(|(work, _)| event.ends() != Some(*work));
    }

    /// The work that it waits for and that should have reported by now.
    pub(super) fn late(&self, now: Moment) -> Option<Work> {
        self.working.and_then(|(work, until)| (now >= until).then_some(work))
    }

    /// The work that it waits for has not reported in time.
    pub(super) fn hangs(&mut self, now: Moment) -> Steps {
        let Some((work, _)) = self.working.take() else { return Steps::nothing() };
        let what = match work {
            Work::Fit => "the adoption's needs could not be looked at in time",
            Work::Fence => "the fence has not answered in time",
            // It holds nothing else up; see `placing_hangs`.
            Work::Conveying => return Steps::nothing(),
            Work::Recognition => "the lock manager was not made to recognise in time",
            Work::Proof => "whether grace is open was not learnt in time",
            Work::BringUp => "addresses were not looked for in time",
            Work::Telling => "the notifier has not reported before grace ended",
        };
        let why = format!("{what}: a program, a disk or a thread hangs (look with 'heirlock doctor')");
        match (work, self.phase) {
            (Work::Fit | Work::Fence, Phase::Intent) => self.refuse(super::End::Refused(why)),
            (Work::Recognition, Phase::Conveyed) => self.fail_untold(now, Hindrance::Recognition, why),
            (Work::Proof, Phase::Recognised) => self.too_late(now, Hindrance::Proof, &why),
            (Work::BringUp, Phase::Proved) => self.too_late(now, Hindrance::BringUp, &why),
            (Work::Telling, Phase::Notifying) => self.lose_the_silent(now, &why),
            _ => Steps::nothing(),
        }
    }

    /// Clients of which no notifier reports any more are lost; nothing more is sent, and the run sees which clients come back.
    fn lose_the_silent(&mut self, now: Moment, why: &str) -> Steps {
        let mut persist = self.lose_the_untold(now, why, |member| !member.told);
        persist.extend(self.wait_for_the_end());
        Steps { persist, then: vec![Action::StopNotifying] }
    }
}

#[cfg(test)]
mod tests;
