//! Clients that a run tells no more: each of them has its outcome all the same.

use super::event::Hindrance;
use super::journal::Part;
use super::member::Member;
use super::{Persist, Steps, Takeover, outcomes};
use crate::moment::Moment;
use crate::names::ServiceName;
use crate::planted::{Bug, planted};

impl Takeover {
    /// Whether clients of this service are without their locks until a run tells them: those of what is taken over, and those
    /// whose locks were gone before the run.
    #[must_use]
    pub fn owes(&self, service: &ServiceName) -> bool {
        let is_target = |member: &Member| member.part == Part::Target && member.service == *service;
        self.members.iter().any(is_target) || self.plan.standing.owes(service)
    }

    /// The clients of these members that have no outcome are lost.
    pub(super) fn lose_the_untold(
        &mut self,
        now: Moment,
        why: &str,
        of: impl Fn(&Member) -> bool,
    ) -> Vec<Persist> {
        let at_ms = self.since_began(now);
        let members = self.members.iter_mut().filter(|member| !planted(Bug::SilentLoss) && of(member));
        let lose = |member: &mut Member| {
            let lines = member.lose_the_rest(at_ms, why);
            member.told = true;
            (!lines.is_empty()).then(|| outcomes(member, lines))
        };
        members.filter_map(lose).collect()
    }

    /// It can't go on in this life of the lock manager, and no run begins by itself before the next life: the clients that it
    /// owes word are lost. This server's own clients whose locks were alive when it claimed are not among them: where a strategy
    /// dropped these locks after all, another life shows that, and the run of that life tells them.
    pub(super) fn fail_untold(&mut self, now: Moment, hindrance: Hindrance, why: String) -> Steps {
        let members = self.members.iter().map(|member| member.service.clone());
        let owed: Vec<ServiceName> = members.filter(|service| self.owes(service)).collect();
        let lost = self.lose_the_untold(now, &why, |member| owed.contains(&member.service));
        let mut steps = self.fail(now, hindrance, why);
        steps.persist.splice(0..0, lost);
        steps
    }
}

#[cfg(test)]
mod tests;
