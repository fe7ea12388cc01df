//! The first start of a service: no server ever claimed it, so no client has a lock that could be recovered. The lock manager is
//! not restarted for it, and clients of this server's other services keep their locks.
//!
//! The run goes through the same phases: volume and addresses are brought up, and `--prepare` waits for `--finish`. Grace is not
//! asked for. The time that a grace period takes is the time that it waits, and where no `--finish` comes nothing is lost.

use super::event::Claimed;
use super::journal::{Milestone, Part};
use super::{Action, End, Phase, Remains, Steps, Strategy, Takeover, Until};
use crate::Batch;
use crate::incarnation::Incarnation;
use crate::moment::Moment;

impl Takeover {
    /// Whether it starts services that no server ever claimed, and nothing else.
    #[must_use]
    pub fn is_first_start(&self) -> bool {
        self.is_first_start
    }

    /// Whether this server's own services are members for the sake of a restart alone: then they are left in peace where none is
    /// needed ([`Claimed::is_first`]).
    #[must_use]
    pub fn spares_own(&self) -> bool {
        let standing = &self.plan.standing;
        let owes = standing.own.iter().any(|service| standing.owes(service));
        self.drops_own_locks() && !owes && !self.takes_any_along()
    }

    /// Takes in what was won: nothing is recovered where no server claimed any of it before.
    pub(super) fn notice_first_start(&mut self, won: &[Claimed]) {
        let is_target = |claimed: &Claimed| self.plan.targets.contains(&claimed.service);
        self.is_first_start = won.iter().all(|claimed| claimed.is_first() && is_target(claimed));
        if self.is_first_start {
            self.plan.strategy = Strategy::Notify;
        }
    }

    /// The phase, and the life that its locks live in, as the journal has them. That of a first start is the life that runs: the
    /// agent that comes after this one goes on with it, and has nothing to do anew.
    pub(super) fn as_journaled(&self) -> (Phase, Option<Incarnation>) {
        let is_to_recognise = matches!(self.phase, Phase::Claimed | Phase::Conveyed);
        match &self.plan.standing.life_now {
            Some(life) if self.is_first_start && is_to_recognise => (Phase::Recognised, Some(life.clone())),
            _ => (self.phase, self.life.clone()),
        }
    }

    /// The lock manager serves, and is not asked for grace.
    pub(super) fn is_as_good_as_proved(&mut self, now: Moment) -> Steps {
        self.enter(now, Phase::Proved, None);
        self.awaits_finish |= self.plan.until == Until::Prepared;
        let next = if self.awaits_finish { Action::AwaitFinish } else { self.bring_up() };
        Batch { persist: self.journals(None), then: vec![next] }
    }

    /// No `--finish` came. No client was to be told, so none is lost: the service is held here, and served once its address is.
    pub(super) fn settle_first_start(&mut self, now: Moment) -> Steps {
        self.enter(now, Phase::Settled, Some(Milestone::Settled));
        self.over = true;
        let end = End::Settled(self.summaries());
        Batch { persist: self.journals(None), then: vec![Action::CleanUp, Action::Over(end)] }
    }
}

/// Whether the run that left this was a first start: its clients, if any, came in the life that runs.
pub(super) fn was_first_start(remains: &[Remains]) -> bool {
    let is_first = |one: &Remains| {
        let part = one.journal.members.iter().find(|(service, _)| *service == one.service);
        one.generation == crate::Generation::FIRST && part.is_some_and(|(_, part)| *part == Part::Target)
    };
    !remains.is_empty() && remains.iter().all(is_first)
}

#[cfg(test)]
mod tests;
