//! The view of a run from outside.

use std::time::Duration;

use super::journal::{Cause, OutcomeLine, Stamp, Trouble};
use super::member::{Member, Summary};
use super::phase::Phase;
use super::{Strategy, Takeover};
use crate::claim::Authority;
use crate::grace::Grace;
use crate::moment::Moment;
use crate::names::ServiceName;
use crate::outcome::Outcome;

impl Takeover {
    /// How far it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether it waits for `--finish`.
    #[must_use]
    pub fn awaits_finish(&self) -> bool {
        self.phase == Phase::Proved && self.awaits_finish
    }

    /// Whether grace is proved to be open, so that an adoption which is only to be prepared has what it wants: it waits for
    /// `--finish`, or is beyond that.
    #[must_use]
    pub fn is_prepared(&self) -> bool {
        self.phase >= Phase::Proved && self.phase != Phase::Failed
    }

    /// How many clients of one of its services there are, and of how many something good is known.
    #[must_use]
    pub fn counts_of(&self, service: &ServiceName) -> Option<(usize, usize)> {
        self.members.iter().find(|member| member.service == *service).map(Member::counts)
    }

    /// Whether a fence has to confirm first that the owners are off.
    #[must_use]
    pub fn has_fence(&self) -> bool {
        self.plan.fence
    }

    /// The permission to claim, before a fence has confirmed anything.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.plan.authority
    }

    /// Whether it has claimed what it is to take over.
    #[must_use]
    pub fn has_claimed(&self) -> bool {
        !self.is_unclaimed()
    }

    /// Whether every client has answered, or had its first round of tries. Of those that have not answered nothing is known
    /// yet: they are called until grace is too short.
    #[must_use]
    pub fn has_tried_all(&self) -> bool {
        match self.phase {
            Phase::Notifying => self.members.iter().all(|member| member.told || member.tried),
            phase => phase > Phase::Notifying,
        }
    }

    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Its name.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.plan.run
    }

    /// Why it began.
    #[must_use]
    pub fn cause(&self) -> Cause {
        self.plan.cause
    }

    /// Services that are being taken over.
    #[must_use]
    pub fn targets(&self) -> &[ServiceName] {
        &self.plan.targets
    }

    /// Entries of a folder that are not what they should be.
    #[must_use]
    pub fn troubles(&self) -> &[Trouble] {
        &self.troubles
    }

    /// Whether a service's clients are told by it, or will be.
    #[must_use]
    pub fn has_member(&self, service: &ServiceName) -> bool {
        self.plan.targets.contains(service) || self.members.iter().any(|member| member.service == *service)
    }

    /// Whether nothing was claimed for it yet.
    #[must_use]
    pub fn is_unclaimed(&self) -> bool {
        matches!(self.phase, Phase::Intent | Phase::Fenced)
    }

    /// Whether it waits for the lock manager to recognise, or, resumed, to be seen in the life that it recognised in.
    #[must_use]
    pub fn awaits_recognition(&self) -> bool {
        self.phase == Phase::Conveyed
    }

    /// Whether it is resumed, and the agent before had begun to tell its clients.
    #[must_use]
    pub fn had_begun_to_tell(&self) -> bool {
        self.resumed_from.is_some_and(|phase| phase >= Phase::Notifying)
    }

    /// Whether a service can't be given away yet. A run that tells its clients is no hindrance: the server that takes the
    /// service next tells them all. But a generation that is claimed has to be begun first: `begins` says whether one of this
    /// service waits for that ([`super::Queue::begins`]). And a lock manager that is being restarted is not asked to let go of
    /// locks.
    #[must_use]
    pub fn hinders_release(&self, service: &ServiceName, begins: bool) -> bool {
        let is_restarting =
            self.cause() != Cause::OwnRestart && matches!(self.phase, Phase::Claimed | Phase::Conveyed);
        self.has_member(service) && (begins || self.is_unclaimed() || is_restarting)
    }

    /// The clients of a service that are lost where it leaves this run now, for it is given away: nothing is known of them, and grace is
    /// over, so that others may have their locks. The next owner tells them of another number, and does not know that.
    #[must_use]
    pub fn lost_by_leaving(&self, now: Moment, service: &ServiceName) -> Vec<OutcomeLine> {
        const WHY: &str = "it was not told before grace ended, and then its service was given away";
        if self.grace.is_none_or(|grace| now < grace.ends()) {
            return Vec::new();
        }
        let at_ms = self.since_began(now);
        let summaries = self.summaries().into_iter().filter(|summary| summary.service == *service);
        let silent = summaries.flat_map(|summary| summary.clients).filter(|client| client.outcome.is_none());
        let line = |client| OutcomeLine {
            why: Some(WHY.to_owned()),
            ..OutcomeLine::new(client, Outcome::Lost, at_ms)
        };
        silent.map(|client| line(client.client)).collect()
    }

    /// Whether it was asked for, or follows from a death, and tells this service's clients still. A move that can wait, waits for
    /// that: in grace, clients are told once and not twice.
    #[must_use]
    pub fn tells_adopted(&self, service: &ServiceName) -> bool {
        self.has_member(service) && self.cause() != Cause::OwnRestart
    }

    /// Whether its end has come: a client that is retired for having no record is looked for once more.
    #[must_use]
    pub fn wants_last_look(&self, now: Moment) -> bool {
        self.is_due(now) && self.timeout_of_phase().is_some_and(|at| now >= at)
    }

    /// The grace period that it recognised in.
    #[must_use]
    pub fn grace(&self) -> Option<&Grace> {
        self.grace.as_ref()
    }

    /// For how long grace stays open. A first start asks for none.
    #[must_use]
    pub fn grace_left(&self, now: Moment) -> Option<Duration> {
        let asked_for = self.grace.filter(|_| !self.is_first_start && !self.over);
        asked_for.map(|grace| grace.ends().since(now))
    }

    /// Within which time `--finish` has to be said, where it waits for that.
    #[must_use]
    pub fn finish_within(&self, now: Moment) -> Option<Duration> {
        self.grace.filter(|_| self.awaits_finish()).map(|grace| grace.last_call().since(now))
    }

    /// Within which time the address of a service has to be here, whose clients are to be told.
    #[must_use]
    pub fn last_call_within(&self, now: Moment) -> Option<Duration> {
        let may_tell = matches!(self.phase, Phase::Proved | Phase::Notifying);
        self.grace.filter(|_| may_tell).map(|grace| grace.last_call().since(now))
    }

    /// The timeline.
    #[must_use]
    pub fn timeline(&self) -> &[Stamp] {
        &self.timeline
    }

    /// When it began, in seconds since 1970.
    #[must_use]
    pub fn started_at_s(&self) -> u64 {
        self.plan.started_at_s
    }

    /// Whether the operator insists on it, also where locks are known to be lost.
    #[must_use]
    pub fn is_insisted(&self) -> bool {
        self.plan.authority.insisted
    }

    /// Whether this strategy would drop the locks of a service that is left behind here, and the run would tell none of
    /// its clients. A run that the operator insists on (`--force`) is not asked about.
    #[must_use]
    pub fn would_drop_untold(&self, strategy: Strategy, service: &ServiceName) -> bool {
        strategy.drops_own_locks() && !self.is_insisted() && !self.plan.targets.contains(service)
    }

    /// See [`Journal::has_rebooted`].
    #[must_use]
    pub fn has_rebooted(&self) -> bool {
        self.journal(None).has_rebooted()
    }

    /// Whether locks of clients that it tells were gone before it began.
    #[must_use]
    pub fn owes_already(&self) -> bool {
        self.members.iter().any(|member| self.plan.standing.lost.contains(&member.service))
    }

    /// How it recognises.
    #[must_use]
    pub fn strategy(&self) -> Strategy {
        self.plan.strategy
    }

    /// The outcomes of each member's clients.
    #[must_use]
    pub fn summaries(&self) -> Vec<Summary> {
        self.members.iter().map(Member::summary).collect()
    }

    /// How many clients there are, and of how many something good is known.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        self.members.iter().map(Member::counts).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{asked_for, at, claimed, life, plan, recognition, service};
    use super::super::{Event, Standing, Until};
    use super::*;

    #[test]
    fn a_run_hinders_a_release_until_its_generation_is_begun_and_the_lock_manager_is_restarted() {
        let (mut asked, _) = asked_for();
        let won = vec![claimed("nfs", 5, &["10.0.0.1"], &[7]), claimed("home", 2, &[], &[3])];
        let claimed_both = Event::Claimed { won, refused: Vec::new(), unread: Vec::new() };
        let steps = [
            (Event::Start, true),
            (Event::Fit(Ok(())), true),
            (claimed_both, true),
            (Event::Conveyed(Ok(Vec::new())), true),
            (recognition(life("2")), false),
            (Event::Proved(Ok(())), false),
            (Event::BroughtUp(Ok(())), false),
        ];
        for (event, hinders) in steps {
            let what = format!("{event:?}");
            let _ = asked.step(at(1_000), event);
            assert_eq!(asked.hinders_release(&service("nfs"), false), hinders, "{what}");
            assert!(!asked.hinders_release(&service("other"), true), "{what}");
        }
        assert!(asked.hinders_release(&service("nfs"), true));
        assert!(asked.tells_adopted(&service("nfs")) && !asked.tells_adopted(&service("other")));
        let lost = vec![service("home")];
        let standing = Standing { own: lost.clone(), lost, ..Standing::default() };
        let asked = plan(Strategy::RestartNfs, Until::Settled);
        let own = super::super::Plan { cause: Cause::OwnRestart, targets: Vec::new(), standing, ..asked };
        let mut own = Takeover::new(at(0), own);
        let _ = own.step(at(0), Event::Start);
        let claimed = super::super::Claimed {
            service: service("home"),
            generation: crate::Generation(4),
            records: crate::Records::new(),
            sent: Vec::new(),
            told: std::collections::BTreeSet::new(),
            troubles: Vec::new(),
        };
        let _ =
            own.step(at(0), Event::Claimed { won: vec![claimed], refused: Vec::new(), unread: Vec::new() });
        assert!(own.hinders_release(&service("home"), true));
        assert!(!own.hinders_release(&service("home"), false) && !own.tells_adopted(&service("home")));
        assert!(!own.hinders_release(&service("other"), true));
    }
}
