//! Whether the services that are taken over are served here again, and whether any of their clients could be told.

use std::collections::BTreeSet;

use crate::records::RecordKey;

use super::journal::{Milestone, Part, Stamp};
use super::member::Member;
use super::{Persist, Phase, Steps, Takeover};
use crate::Batch;
use crate::moment::Moment;
use crate::names::ServiceName;

impl Takeover {
    /// From now on clients of a service that moves reach it again. That this server's own can be told says nothing of that.
    pub(super) fn served(&mut self, now: Moment, service: &ServiceName) -> Steps {
        for member in self.members.iter_mut().filter(|member| member.service == *service) {
            member.served = true;
        }
        let counts = |member: &Member| {
            member.service == *service && (member.part == Part::Target || self.plan.targets.is_empty())
        };
        if self.is_ready() || !self.members.iter().any(counts) {
            return Batch::nothing();
        }
        let at_ms = self.since_began(now);
        self.timeline.push(Stamp { event: Milestone::Ready, at_ms });
        Batch { persist: self.journals(None), then: Vec::new() }
    }

    /// This server exports nothing, so no client has a lock to reclaim here. These clients are on record with services that are not
    /// this server's any more: the server that takes such a service over tells them. A self-adoption has nothing to do for them.
    /// Answers for how many. They stay on record.
    pub fn leave_to_others(&mut self, clients: &BTreeSet<RecordKey>) -> usize {
        if !self.is_own_restart() || self.phase != Phase::Recognised {
            return 0;
        }
        self.members.iter_mut().map(|member| member.leave_to_others(clients)).sum()
    }

    /// Whether this run has seen an address of its services served, beside what a run before it saw.
    fn is_ready(&self) -> bool {
        self.timeline.iter().any(|stamp| stamp.event == Milestone::Ready && stamp.at_ms >= self.before_ms)
    }

    /// Why not one client of something that was taken over could be called.
    pub(super) fn no_client_was_called(&self) -> Option<String> {
        self.taken_over().find_map(Member::no_client_was_called).map(str::to_owned)
    }

    pub(super) fn taken_over(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.part == Part::Target)
    }

    /// A service that was taken over and of whose clients not one could be called was not adopted, however well those of
    /// this server itself were told: it may be adopted again, and its clients reclaim then.
    pub(super) fn final_journals(&self) -> Vec<Persist> {
        let mut journals = self.journals(None);
        for one in &mut journals {
            let Persist::Journal { service, journal, .. } = one else { continue };
            let target = self.taken_over().find(|member| member.service == *service);
            journal.failure = target.and_then(Member::no_client_was_called).map(str::to_owned);
        }
        journals
    }
}
