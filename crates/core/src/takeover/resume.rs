//! How a run goes on after the agent's death: from what it left in the store, in the same life of the lock manager.
//!
//! All that decides an outcome is durable, or follows from durable facts (docs/decisions/0009-resumed-runs.md has each field).

use std::collections::BTreeSet;
use std::time::Duration;

use heirlock_nsm::StateNumber;

use super::journal::Milestone;
use super::journal::{Journal, OutcomeLine, Part, Until};
use super::member::Member;
use super::phase::Phase;
use super::{Plan, Standing, Takeover, TimeLimits};
use crate::claim::Authority;
use crate::moment::Moment;
use crate::names::{Generation, ServiceName};
use crate::records::RecordKey;

/// One member of a run that is resumed, as the store shows it.
#[derive(Debug, Clone)]
pub struct Remains {
    /// The service.
    pub service: ServiceName,
    /// Its generation.
    pub generation: Generation,
    /// Its number.
    pub state: StateNumber,
    /// Its clients.
    pub clients: Vec<RecordKey>,
    /// The clients that the generation before it knew, where that can be read still: the run began with them.
    pub begun_with: Option<BTreeSet<RecordKey>>,
    /// How far it had come.
    pub journal: Journal,
    /// The outcomes of its clients.
    pub outcomes: Vec<OutcomeLine>,
}

/// A run that is resumed, as the store shows it.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Of those members that this server holds still.
    pub remains: Vec<Remains>,
    /// All that this server holds. A member that is not among it was claimed by another server meanwhile.
    pub held: BTreeSet<ServiceName>,
    /// Clients that registered since the run recognised.
    pub came: BTreeSet<RecordKey>,
}

impl Takeover {
    /// A run that was interrupted after it had recognised, in the same life of the lock manager: it goes on with
    /// its numbers and its outcomes. The first event it expects is [`super::Event::Recognised`], for the rest of grace.
    ///
    /// `None` where a member that is held has no such journal: then only a new run, with new numbers, is safe (I5).
    #[must_use]
    pub fn resume(now: Moment, margin: Duration, limits: TimeLimits, found: Found) -> Option<Self> {
        let Found { remains, held, came } = found;
        let first = remains.first()?.journal.clone();
        let phase = remains.iter().map(|r| r.journal.phase).min()?;
        let same = remains.iter().all(|r| r.journal.run == first.run && r.journal.life == first.life);
        let left = |service: &ServiceName| remains.iter().any(|r| r.service == *service);
        let all = first.members.iter().all(|(service, _)| left(service) || !held.contains(service));
        if !(same && all && phase.is_bound_to_a_life()) {
            return None;
        }
        let of = |part| {
            let members = first.members.iter().filter(move |(service, p)| *p == part && left(service));
            members.map(|(service, _)| service.clone()).collect::<Vec<_>>()
        };
        let (targets, own) = (of(Part::Target), of(Part::Own));
        let gone = first.members.iter().find(|(service, part)| *part == Part::Target && !left(service));
        let left = gone.filter(|_| targets.is_empty());
        let left_by_targets =
            left.map(|(service, _)| (super::Hindrance::Overtaken, super::was_claimed(service)));
        let plan = Plan {
            run: first.run,
            server: first.server,
            cause: first.cause,
            targets,
            standing: Standing {
                lost: own.clone(),
                unknown: Vec::new(),
                own,
                life_before: first.life_before,
                life_now: first.life.clone(),
            },
            strategy: first.strategy,
            convey: first.convey,
            until: first.until,
            authority: Authority::default(),
            fence: false,
            margin,
            limits,
            primary_lost: None,
            started_at_s: first.started_at_s,
        };
        let before_ms = first.timeline.iter().map(|stamp| stamp.at_ms).max().unwrap_or(0);
        let mut run = Self::new(now, plan);
        (run.timeline, run.troubles, run.before_ms) = (first.timeline, first.troubles, before_ms);
        (run.phase, run.life) = (Phase::Conveyed, first.life);
        (run.resumed_from, run.seen, run.left_by_targets) = (Some(phase), came, left_by_targets);
        run.awaits_finish = phase == Phase::Proved && run.plan.until == Until::Prepared;
        run.is_first_start = super::first::was_first_start(&remains);
        // A run that is past `--finish` does not wait for it again.
        if phase > Phase::Proved {
            run.plan.until = Until::Settled;
        }
        for one in remains {
            let member = run.resumed_member(phase, one);
            run.members.push(member);
        }
        Some(run)
    }

    /// A service of a run that had come so far, with those of its clients that have lost something.
    fn resumed_member(&self, phase: Phase, one: Remains) -> Member {
        let part = if self.plan.targets.contains(&one.service) { Part::Target } else { Part::Own };
        // A client that came after the lock manager had recognised, and was unknown before, has lost nothing with the
        // life before. Where it is not known which clients were known, such a client is told like the others.
        let with_outcome: BTreeSet<&RecordKey> = one.outcomes.iter().map(|line| &line.client).collect();
        let has_lost = |client: &RecordKey| {
            let knew = one.begun_with.as_ref().is_none_or(|known| known.contains(client));
            let came = self.seen.contains(client);
            // A run that settles has an outcome for each client that it told. Any other client came in the life that
            // runs, also where it has left since: unless it was known before, and its outcome is lost.
            match phase >= Phase::Settling {
                true => with_outcome.contains(client) || (knew && !came),
                false => knew || !came,
            }
        };
        let clients = one.clients.into_iter().filter(|client| !self.is_first_start && has_lost(client));
        let mut member =
            Member::new(one.service, part, one.generation, one.state, clients.collect::<Vec<_>>());
        member.recall(&one.outcomes);
        // The milestone is one of what is taken over alone.
        member.served = one.journal.timeline.iter().any(|stamp| stamp.event == Milestone::Ready);
        member
    }
}

#[cfg(test)]
mod tests;
