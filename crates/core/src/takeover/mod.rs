//! The phases of an adoption, as a state machine that can be resumed after every step (I9).
//!
//! A *run* brings the clients of some services back to their locks under one new life of one lock manager. Taking a
//! service over, and recovering from a restart of one's own lock manager (self-adoption), are the same run: in the
//! first there are targets whose records are conveyed; in both, every service of the lock manager whose locks were
//! dropped gets a new generation, a number that was never sent, and has its clients told inside grace.
//!
//! [`Takeover::step`] is told what happened and answers with a [`Batch`]. All state that a successor needs is in the
//! [`Journal`]s and outcomes it asks to persist: [`Takeover::resume`] makes the machine anew from them.
//!
//! A fence that does not confirm ends a run before anything was claimed:
//!
//! ```
//! use std::time::Duration;
//!
//! use heirlock_core::claim::Authority;
//! use heirlock_core::takeover::{
//!     Action, Cause, Conveyance, End, Event, Plan, Standing, Strategy, Takeover, TimeLimits, Until,
//! };
//! use heirlock_core::{Moment, ServerName, ServiceName};
//!
//! let nfs = ServiceName::parse("nfs")?;
//! let plan = Plan {
//!     run: "1".into(),
//!     server: ServerName::parse("nfs-b")?,
//!     cause: Cause::OwnerDead,
//!     targets: vec![nfs.clone()],
//!     standing: Standing::default(),
//!     strategy: Strategy::RestartNfs,
//!     convey: Conveyance::Generate,
//!     until: Until::Settled,
//!     authority: Authority::default(),
//!     fence: true,
//!     margin: Duration::from_secs(5),
//!     limits: TimeLimits::each(Duration::from_secs(60)),
//!     primary_lost: None,
//!     started_at_s: 0,
//! };
//! let mut run = Takeover::new(Moment::START, plan);
//! let now = Moment::START;
//! assert_eq!(run.step(now, Event::Start).then, [Action::CheckFit(Strategy::RestartNfs)]);
//! assert_eq!(run.step(now, Event::Fit(Ok(()))).then, [Action::Fence(vec![nfs])]);
//! let refused = End::Refused("the fence did not answer".into());
//! let steps = run.step(now, Event::Fenced(Err("the fence did not answer".into())));
//! assert_eq!((steps.persist.len(), steps.then), (0, vec![Action::Over(refused)]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![doc = include_str!("phases.md")]

mod claiming;
mod event;
mod first;
mod journal;
mod meeting;
mod member;
mod order;
mod outcomes;
mod phase;
mod placing;
mod plan;
mod queue;
mod registrations;
mod resume;
mod served;
mod strategy;
mod timers;
mod untold;
mod view;

use std::collections::BTreeSet;

use heirlock_nsm::MonName;

pub use claiming::{Base, Claiming, HeldBefore};
pub use event::{Action, Claimed, End, Event, Hindrance, Notice, Persist, Recognition};
pub use journal::{Cause, Journal, Milestone, OutcomeLine, Part, Stamp, Trouble, Until, tells_peers};
pub use meeting::{Authorities, HandedOn, Turn};
pub use member::{ClientSummary, Summary};
pub use order::{Admission, Means, Order, Redo};
pub use outcomes::{last_outcomes, told_in, with_outcome};
pub use phase::Phase;
pub use plan::{Plan, Standing};
pub use queue::{Queue, Todo};
pub use registrations::{REGISTRATIONS_BYTES_MAX, Registrations};
pub use resume::{Found, Remains};
pub use strategy::{Conveyance, Strategy, UnknownWord};
pub use timers::{TimeLimits, Work};

use meeting::Met;
use member::Member;
use placing::Placing;

use crate::Batch;
use crate::grace::Grace;
use crate::incarnation::Incarnation;
use crate::limits;
use crate::moment::Moment;
use crate::names::ServiceName;
use crate::outcome::Outcome;
use crate::planted::{Bug, planted};
use crate::records::RecordKey;
use crate::state_number::next_unsent;

/// One run.
#[derive(Debug, Clone)]
pub struct Takeover {
    plan: Plan,
    began: Moment,
    /// How far the timeline had come when the run was resumed.
    before_ms: i64,
    phase: Phase,
    /// The phase that was durable when the agent before this one ended.
    resumed_from: Option<Phase>,
    awaits_finish: bool,
    /// Its services were never claimed before: no lock is recovered.
    is_first_start: bool,
    /// The work that was begun for it and has not reported, with its time limit.
    working: Option<(Work, Moment)>,
    /// Whether records are being placed. Other work may go on meanwhile.
    placing: Placing,
    members: Vec<Member>,
    life: Option<Incarnation>,
    grace: Option<Grace>,
    timeline: Vec<Stamp>,
    troubles: Vec<Trouble>,
    /// The services that were to be taken over are not this server's any more, and why: the run goes on for this server's own
    /// clients alone.
    left_by_targets: Option<(Hindrance, String)>,
    /// The part of it that comes of adoptions that it met.
    met: Met,
    /// The clients that were seen registered since it recognised. A record that vanished again is no reason to retire a
    /// client: the next stop of the lock manager may have taken it away (I2).
    seen: BTreeSet<RecordKey>,
    /// The clients that registered since it recognised. Where one does before it has answered under every name, that counts when it
    /// has: it registers once, and no look need show that again.
    came: BTreeSet<RecordKey>,
    /// Grace is over, and since then a look is awaited that shows the same life.
    looking_since: Option<Moment>,
    over: bool,
}

type Steps = Batch<Persist, Action>;

const RESTARTED: &str = "the lock manager was restarted meanwhile: all is to be done again";

impl Takeover {
    /// A new run. The first event it expects is [`Event::Start`].
    #[must_use]
    pub fn new(now: Moment, plan: Plan) -> Self {
        let mut run = Self {
            plan,
            began: now,
            before_ms: 0,
            phase: Phase::Intent,
            resumed_from: None,
            awaits_finish: false,
            is_first_start: false,
            working: None,
            placing: Placing::default(),
            members: Vec::new(),
            life: None,
            grace: None,
            timeline: Vec::new(),
            troubles: Vec::new(),
            left_by_targets: None,
            met: Met::default(),
            seen: BTreeSet::new(),
            came: BTreeSet::new(),
            looking_since: None,
            over: false,
        };
        if let Some(lost) = run.plan.primary_lost {
            run.came_before(now, Milestone::PrimaryLost, lost);
        }
        run
    }

    /// This came before the run: its cause took its time too.
    pub fn came_before(&mut self, now: Moment, event: Milestone, at: Moment) {
        let before = i64::try_from(now.since(at).as_millis()).unwrap_or(i64::MAX);
        self.timeline.push(Stamp { event, at_ms: -before });
    }

    /// How many clients have not registered again.
    #[must_use]
    pub fn not_back(&self) -> usize {
        self.members.iter().map(Member::not_back).sum()
    }

    /// Takes in the services that this server holds now, and its duties. Until a service is claimed, services that came to be
    /// held since the run began belong to it as well: their locks would be dropped with the others.
    pub fn stands(&mut self, standing: Standing) {
        if self.is_unclaimed() {
            self.plan.standing = standing;
        }
    }

    /// These clients are on record now. Until the lock manager has recognised, a client that is captured has locks in the life
    /// that ends, and is told like those that were known at the claim.
    pub fn captured<'a>(&mut self, service: &ServiceName, clients: impl Iterator<Item = &'a RecordKey>) {
        let may_lose = matches!(self.phase, Phase::Claimed | Phase::Conveyed) && !self.is_first_start;
        if !may_lose || self.resumed_from.is_some() || self.forgets_clients_of(service) {
            return;
        }
        if let Some(member) = self.members.iter_mut().find(|member| member.service == *service) {
            member.know(clients);
        }
    }

    /// These clients are registered now. A client that was at any moment of the wait is not retired at its end: a record that
    /// came may vanish with the next stop of the lock manager.
    pub fn saw<'a>(&mut self, clients: impl Iterator<Item = &'a RecordKey>) {
        if matches!(self.phase, Phase::Notifying | Phase::Settling) {
            self.seen.extend(clients.cloned());
        }
    }

    /// Takes in one event.
    ///
    /// An event that doesn't belong to the phase is ignored: hints may come twice or late (I6).
    pub fn step(&mut self, now: Moment, event: Event) -> Steps {
        if self.over {
            return Batch::nothing();
        }
        self.ended_by(&event);
        match (self.phase, event) {
            (_, Event::Begun(work)) => self.begun(now, work),
            (_, Event::Tick { .. }) if self.late(now).is_some() => self.hangs(now),
            (_, Event::Tick { .. }) if self.placing.is_late(now) => self.placing_hangs(),
            (_, Event::Overtaken(service)) => {
                self.left_by(now, &service, Hindrance::Overtaken, was_claimed(&service))
            }
            (_, Event::GivenUp(service)) => {
                self.left_by(now, &service, Hindrance::Released, format!("{service} was released meanwhile"))
            }
            (phase, Event::LifeChanged) if phase.is_bound_to_a_life() => self.life_changed(now),
            (_, Event::LifeChanged) if self.is_before_recognition() => {
                self.loses_own_locks();
                Batch::nothing()
            }
            (Phase::Intent, Event::Start) if self.is_own_restart() => Batch::only(self.claim()),
            (Phase::Intent, Event::Start) => Batch::only(Action::CheckFit(self.plan.strategy)),
            (Phase::Intent, Event::Fit(Ok(()))) if self.plan.fence => {
                Batch::only(Action::Fence(self.plan.targets.clone()))
            }
            (Phase::Intent, Event::Fit(Ok(()))) => self.may_claim(now),
            (Phase::Intent, Event::Fit(Err(why)) | Event::Fenced(Err(why))) => self.refuse(End::Refused(why)),
            (Phase::Intent, Event::Fenced(Ok(()))) => {
                self.enter(now, Phase::Fenced, Some(Milestone::Fenced));
                self.may_claim(now)
            }
            (Phase::Intent | Phase::Fenced, Event::Claimed { won, refused, unread }) => {
                self.claimed(now, won, &refused, unread)
            }
            (Phase::Claimed, Event::Conveyed(result)) => self.conveyed(now, result),
            (_, Event::Conveyed(result)) if self.placing.is_begun() => self.placed(now, result),
            (Phase::Conveyed, Event::Recognised(result)) => self.recognised(now, result),
            (Phase::Recognised, Event::Proved(result)) => self.proved(now, result),
            (Phase::Proved, Event::Finish) if self.awaits_finish => self.finish(),
            // The person or program that was to say it has forgotten: the wait is bounded, and its end is no silence.
            (Phase::Proved, Event::Tick { .. })
                if self.is_first_start && self.is_due(now) && self.awaits_finish =>
            {
                self.settle_first_start(now)
            }
            (Phase::Proved, Event::Tick { .. }) if self.awaits_finish && self.is_due(now) => {
                self.too_late(now, Hindrance::Finish, "no --finish came before grace was too short")
            }
            (Phase::Proved | Phase::Notifying | Phase::Settling, Event::Served(service)) => {
                self.served(now, &service)
            }
            (Phase::Proved, Event::BroughtUp(result)) => self.brought_up(now, result),
            (Phase::Notifying, Event::Acknowledged { service, clients }) => {
                self.acknowledged(now, &service, &clients)
            }
            (Phase::Notifying, Event::TriedAll { service }) => {
                self.members.iter_mut().filter(|m| m.service == service).for_each(|m| m.tried = true);
                Batch::nothing()
            }
            (Phase::Notifying, Event::NotifyEnded { service, left }) => self.told(now, &service, left),
            (Phase::Recognised | Phase::Proved, Event::Registered(clients)) => {
                self.came.extend(clients);
                Batch::nothing()
            }
            (Phase::Notifying | Phase::Settling, Event::Registered(clients)) => self.registered(now, clients),
            (Phase::Settling, Event::Tick { present, looked_at }) => self.settle(now, present, looked_at),
            _ => Batch::nothing(),
        }
    }

    fn is_own_restart(&self) -> bool {
        self.plan.cause == Cause::OwnRestart
    }

    /// Whether it will drop the locks of this server's own clients.
    fn drops_own_locks(&self) -> bool {
        !self.is_own_restart() && self.plan.strategy.drops_own_locks() && !planted(Bug::ForgetOwn)
    }

    /// The claim that it asks for ([`Action::Claim`]), by what this server holds now: it is tried again where the store failed.
    #[must_use]
    pub fn claim(&self) -> Action {
        let targets = self.plan.targets.iter().map(|service| (service.clone(), Part::Target));
        // A strategy that drops this server's own locks, or a life that has dropped them, makes its own services members (I7).
        let drops_all = self.drops_own_locks();
        let standing = &self.plan.standing;
        let own = standing.own.iter().filter(|service| !self.plan.targets.contains(service));
        let own = own.filter(|service| drops_all || standing.owes(service) || self.takes_along(service));
        // Services that are taken along are claimed after those that it is for: where these are refused, it takes no run's place.
        let own = own.chain(self.taken_along_unheld()).map(|service| (service.clone(), Part::Own));
        self.claim_of(targets.chain(own).collect())
    }

    fn claimed(
        &mut self,
        now: Moment,
        won: Vec<Claimed>,
        refused: &[(ServiceName, String)],
        unread: Vec<ServiceName>,
    ) -> Steps {
        let any_target = won.iter().any(|c| self.plan.targets.contains(&c.service));
        // An own service whose generation can't be had would lose its locks, and its clients would not be told (I7).
        // A service whose locks are gone would have to wait until the others have settled, and by then grace is over.
        let leaves_out = refused.iter().any(|(service, _)| {
            self.plan.standing.owes(service)
                || self.takes_along(service)
                || (self.drops_own_locks() && self.plan.standing.own.contains(service))
        });
        if won.is_empty() || !(any_target || self.is_own_restart()) || leaves_out {
            return self.refuse(End::before_the_beginning(won, refused, unread));
        }
        self.plan.targets.retain(|target| won.iter().any(|c| c.service == *target));
        self.notice_first_start(&won);
        self.go_on_with_those_taken_along(&won);
        self.enter(now, Phase::Claimed, Some(Milestone::Claimed));
        let mut conveyed = Vec::new();
        let mut begins = Vec::new();
        for mut claimed in won {
            if planted(Bug::BeginWithoutOne)
                && let Some(last) = claimed.records.keys().next_back().cloned()
            {
                claimed.records.remove(&last);
            }
            self.trouble(claimed.troubles.iter().cloned());
            let part = if self.plan.targets.contains(&claimed.service) { Part::Target } else { Part::Own };
            let state = next_unsent(&claimed.sent);
            let clients = claimed.records.keys().cloned();
            let clients = clients.filter(|_| !self.forgets_clients_of(&claimed.service));
            let mut member = Member::new(claimed.service.clone(), part, claimed.generation, state, clients);
            member.told_before = self.told_before(&claimed);
            self.members.push(member);
            if part == Part::Target {
                conveyed.push((claimed.service.clone(), claimed.records.clone()));
            }
            begins.push((claimed, state));
        }
        let journal = self.journal(None);
        let persist = begins
            .into_iter()
            .map(|(c, state)| Persist::Begin {
                service: c.service,
                generation: c.generation,
                state,
                records: c.records,
                journal: journal.clone(),
            })
            .collect();
        Batch { persist, then: vec![Action::Convey { services: conveyed, how: self.plan.convey }] }
    }

    fn recognised(&mut self, now: Moment, result: Result<Recognition, String>) -> Steps {
        let seen = match result {
            Ok(seen) => seen,
            Err(why) => return self.fail_untold(now, Hindrance::Recognition, why),
        };
        let resumed = self.life.is_some();
        if resumed && self.life.as_ref() != Some(&seen.life) {
            return self.fail(now, Hindrance::AnotherLife, RESTARTED.into());
        }
        self.life = Some(seen.life);
        // Of a first start it is the time that it waits.
        let opened = if self.is_first_start { now } else { seen.grace_opened };
        self.grace = Some(Grace::new(opened, seen.grace_length, self.plan.margin));
        // A client that came back before the agent's end becomes durable now: else a grace period that has become too short
        // would make it lost.
        let mut persist =
            if self.had_begun_to_tell() { self.note_registered(now, &self.seen.clone()) } else { Vec::new() };
        if seen.too_late_for_the_lost && !resumed {
            persist.extend(self.lose_the_lost(now));
        }
        if self.resumed_from == Some(Phase::Settling) {
            // Every client was told, or could not be.
            persist.extend(self.wait_for_the_end());
            return Batch { persist, then: Vec::new() };
        }
        if self.is_first_start {
            return self.is_as_good_as_proved(now);
        }
        self.enter(now, Phase::Recognised, (!resumed).then_some(Milestone::Recognised));
        persist.extend(self.journals(None));
        Batch { persist, then: vec![Action::Prove] }
    }

    /// Clients whose locks died with an earlier life could have been told in the grace period of the life before this one, and
    /// were not. Outside grace that life may have granted their locks to others, whatever they are told now.
    fn lose_the_lost(&mut self, now: Moment) -> Vec<Persist> {
        let at_ms = self.since_began(now);
        let why = "it was not told before grace ended, and then the lock manager was restarted once more: others may have its locks";
        let lost = &self.plan.standing.lost;
        let late = self.members.iter_mut().filter(|member| lost.contains(&member.service));
        late.filter_map(|member| {
            let told = std::mem::take(&mut member.told_before);
            let lines = member.lose_for_good(&told, at_ms, why);
            (!lines.is_empty()).then(|| outcomes(member, lines))
        })
        .collect()
    }

    /// All members' clients were told or can't be: the run only waits for those that come back.
    fn wait_for_the_end(&mut self) -> Vec<Persist> {
        self.members.iter_mut().for_each(|member| member.told = true);
        (self.phase, self.working) = (Phase::Settling, None);
        self.journals(None)
    }

    fn proved(&mut self, now: Moment, result: Result<(), String>) -> Steps {
        let had_told = self.resumed_from == Some(Phase::Notifying);
        match result {
            // The agent before had told all clients already.
            Err(_) if had_told && self.members.iter().all(Member::is_every_client_known) => {
                return Batch { persist: self.wait_for_the_end(), then: Vec::new() };
            }
            Err(why) => return self.too_late(now, Hindrance::Proof, &why),
            Ok(()) => {}
        }
        self.enter(now, Phase::Proved, Some(Milestone::Proved));
        self.awaits_finish |= self.plan.until == Until::Prepared;
        let next = if self.awaits_finish { Action::AwaitFinish } else { self.bring_up() };
        Batch { persist: self.journals(None), then: vec![next] }
    }

    /// It was to stop when it is prepared, and more was asked for since, before it came to that. Once it is prepared
    /// [`Event::Finish`] says so.
    pub fn goes_on_when_prepared(&mut self) {
        if self.phase < Phase::Proved {
            (self.plan.until, self.awaits_finish) = (Until::Settled, false);
        }
    }

    fn finish(&mut self) -> Steps {
        self.awaits_finish = false;
        self.plan.until = Until::Settled;
        Batch { persist: self.journals(None), then: vec![self.bring_up()] }
    }

    fn bring_up(&self) -> Action {
        Action::BringUp(self.members.iter().map(|m| (m.service.clone(), m.part)).collect())
    }

    fn brought_up(&mut self, now: Moment, result: Result<(), String>) -> Steps {
        if let Err(why) = result {
            return self.too_late(now, Hindrance::BringUp, &why);
        }
        let has_address = self.members.iter().any(|member| !member.service.is_host());
        self.enter(now, Phase::Ready, (!has_address).then_some(Milestone::Ready));
        // Durable before the first datagram leaves: from here on the number may have been sent.
        self.phase = Phase::Notifying;
        let notices = self.notices(now);
        Batch { persist: self.journals(None), then: vec![Action::Notify(notices)] }
    }

    fn acknowledged(&mut self, now: Moment, service: &ServiceName, clients: &[MonName]) -> Steps {
        let at_ms = self.since_began(now);
        let Some(member) = self.members.iter_mut().find(|m| m.service == *service) else {
            return Batch::nothing();
        };
        let clients: Vec<RecordKey> = clients.iter().map(RecordKey::from).collect();
        let mut lines: Vec<_> =
            clients.iter().filter_map(|client| member.acknowledged(client, at_ms)).collect();
        let came = clients.iter().filter(|client| self.came.contains(*client));
        lines.extend(came.filter_map(|client| member.registered(client, at_ms, false)));
        if lines.is_empty() {
            return Batch::nothing();
        }
        let persist = vec![outcomes(member, lines)];
        if !self.timeline.iter().any(|s| s.event == Milestone::FirstNotified) {
            self.timeline.push(Stamp { event: Milestone::FirstNotified, at_ms });
        }
        self.timeline.retain(|s| s.event != Milestone::LastNotified);
        self.timeline.push(Stamp { event: Milestone::LastNotified, at_ms });
        Batch { persist, then: Vec::new() }
    }

    fn told(&mut self, now: Moment, service: &ServiceName, left: Vec<(MonName, Outcome, String)>) -> Steps {
        let at_ms = self.since_began(now);
        let Some(member) = self.members.iter_mut().find(|m| m.service == *service) else {
            return Batch::nothing();
        };
        member.told = true;
        let lines: Vec<_> = left
            .into_iter()
            .filter(|_| !planted(Bug::SilentOutcome))
            .filter_map(|(client, outcome, why)| member.left(&client.into(), outcome, at_ms, why))
            .collect();
        let mut persist = Vec::new();
        if !lines.is_empty() {
            persist.push(outcomes(member, lines));
        }
        if self.members.iter().all(|m| m.told) {
            persist.extend(self.wait_for_the_end());
        }
        Batch { persist, then: Vec::new() }
    }

    fn registered(&mut self, now: Moment, clients: BTreeSet<RecordKey>) -> Steps {
        let persist = self.note_registered(now, &clients);
        self.came.extend(clients);
        Batch { persist, then: Vec::new() }
    }

    fn note_registered(&mut self, now: Moment, clients: &BTreeSet<RecordKey>) -> Vec<Persist> {
        let at_ms = self.since_began(now);
        self.seen.extend(clients.iter().cloned());
        let in_grace = self.grace.is_some_and(|grace| now < grace.ends());
        // It registers with the lock manager, not for a service: where it is a client of several, the one it asked for is
        // any of them. There it must have been told as well.
        let of_one = |client: &&RecordKey| self.members.iter().filter(|m| m.has(client)).count() == 1;
        let alone: BTreeSet<&RecordKey> = clients.iter().filter(of_one).collect();
        let mut persist = Vec::new();
        for member in &mut self.members {
            let lines: Vec<_> = clients
                .iter()
                .filter_map(|client| member.registered(client, at_ms, in_grace && alone.contains(client)))
                .collect();
            if !lines.is_empty() {
                persist.push(outcomes(member, lines));
            }
        }
        persist
    }

    fn settle(&mut self, now: Moment, present: BTreeSet<RecordKey>, looked_at: Option<Moment>) -> Steps {
        self.seen.extend(present);
        let grace_over = now >= self.settled_at();
        let awaits_clients = (!grace_over || planted(Bug::NeverSettle)) && !self.are_all_clients_back();
        if awaits_clients || self.is_placing() {
            return Batch::nothing();
        }
        // A stop of the lock manager takes records away, and may not have been seen yet: whom nothing shows to be here is
        // retired only if a later look still shows the same life.
        let since = *self.looking_since.get_or_insert(now);
        let is_same_life = looked_at.is_some_and(|at| at >= since);
        if grace_over && !is_same_life && now < since + limits::LAST_LOOK_TIME_MAX {
            return Batch::nothing();
        }
        let mut persist: Vec<Persist> = self
            .members
            .iter()
            .map(|m| Persist::Retire {
                service: m.service.clone(),
                generation: m.generation,
                clients: if grace_over && is_same_life { m.retired(&self.seen) } else { Vec::new() },
            })
            .collect();
        self.enter(now, Phase::Settled, Some(Milestone::Settled));
        self.over = true;
        persist.extend(self.final_journals());
        let summaries = self.summaries();
        let untold = self.no_client_was_called().map(|why| (Hindrance::NoClientCalled, why));
        let end = match self.left_by_targets.take().or(untold) {
            Some((hindrance, why)) => End::Failed { hindrance, why, summaries },
            None => End::Settled(summaries),
        };
        Batch { persist, then: vec![Action::CleanUp, Action::Over(end)] }
    }

    /// Grace is not open, or nothing can be sent inside it: no client can be told any more. It is not an end in silence:
    /// each client is reported as lost, and stays on record for the next failover.
    fn too_late(&mut self, now: Moment, hindrance: Hindrance, why: &str) -> Steps {
        let mut persist = self.lose_the_untold(now, why, |_| true);
        self.enter(now, Phase::Settled, Some(Milestone::Settled));
        self.over = true;
        // A self-adoption without a client had nothing to do.
        let failed = self.counts().0 > 0 || !self.is_own_restart();
        persist.extend(self.journals(failed.then(|| why.to_owned())));
        let summaries = self.summaries();
        let end = match failed {
            true => End::Failed { hindrance, why: why.to_owned(), summaries },
            false => End::Settled(summaries),
        };
        Batch { persist, then: vec![Action::CleanUp, Action::Over(end)] }
    }

    fn refuse(&mut self, end: End) -> Steps {
        self.over = true;
        Batch::only(Action::Over(end))
    }

    fn fail(&mut self, now: Moment, hindrance: Hindrance, why: String) -> Steps {
        let notifying = self.phase == Phase::Notifying;
        if matches!(self.phase, Phase::Notifying | Phase::Settling) || self.had_begun_to_tell() {
            self.plan.standing.life_before = self.life.clone();
        }
        // Where it had not recognised, a life that begins after the one that runs now shows by itself that all locks are
        // gone, also to an agent that did not see it begin.
        self.life = self.life.take().or_else(|| self.plan.standing.life_now.clone());
        self.enter(now, Phase::Failed, Some(Milestone::Failed));
        self.over = true;
        let mut then = Vec::new();
        if notifying {
            then.push(Action::StopNotifying);
        }
        let persist = self.journals(Some(why.clone()));
        then.push(Action::Over(End::Failed { hindrance, why, summaries: self.summaries() }));
        Batch { persist, then }
    }

    /// All is to be done again, by the next run: where lockd was killed in place an agent that is started now can't
    /// see that this life isn't the one that was recognised. So the generations are left as if no life had served them yet.
    fn life_changed(&mut self, now: Moment) -> Steps {
        let mut steps = self.fail(now, Hindrance::AnotherLife, RESTARTED.into());
        for one in &mut steps.persist {
            if let Persist::Journal { journal, .. } = one {
                (journal.phase, journal.life) = (Phase::Settled, None);
            }
        }
        steps
    }

    /// A service that is not this server's any more is no member: a write or a notification for it is the next owner's business,
    /// who tells all clients anew, under another number.
    fn left_by(&mut self, now: Moment, service: &ServiceName, hindrance: Hindrance, why: String) -> Steps {
        if !self.members.iter().any(|m| m.service == *service) {
            return Batch::nothing();
        }
        self.members.retain(|m| m.service != *service);
        let was_target = self.plan.targets.contains(service);
        self.plan.targets.retain(|target| target != service);
        // Where locks of our own are gone, or are just being dropped, their clients are told all the same (I7).
        let owes_own = self.phase >= Phase::Conveyed
            || self.members.iter().any(|member| self.plan.standing.owes(&member.service));
        let is_without_targets = was_target && self.plan.targets.is_empty();
        if self.members.is_empty() || (is_without_targets && !owes_own) {
            return self.end_left(now, hindrance, why);
        }
        if is_without_targets {
            self.left_by_targets = Some((hindrance, why));
        }
        if self.phase != Phase::Notifying {
            return Batch::nothing();
        }
        // The notifiers stop together; those of the others begin anew with the clients that have not answered.
        let mut steps = Batch::only(Action::StopNotifying);
        let notices = self.notices(now);
        if notices.is_empty() {
            steps.persist = self.wait_for_the_end();
        } else {
            steps.then.push(Action::Notify(notices));
        }
        steps
    }

    /// No clients are left that this run could tell.
    fn end_left(&mut self, now: Moment, hindrance: Hindrance, why: String) -> Steps {
        let is_given_away = self.is_own_restart() && hindrance == Hindrance::Released;
        let mut steps = self.fail(now, hindrance, why);
        if hindrance == Hindrance::Released {
            let over = steps.then.pop().filter(|_| !is_given_away);
            let over = over.unwrap_or_else(|| Action::Over(End::Settled(Vec::new())));
            // A line that was placed for it would be a registration to the next life of the status monitor.
            steps.then.extend([Action::CleanUp, over]);
        }
        steps
    }

    /// The notices to begin: for the members whose notifiers are not through.
    fn notices(&self, now: Moment) -> Vec<Notice> {
        let last_call = self.grace.map_or(now, |grace| grace.last_call());
        let untold = self.members.iter().filter(|member| !member.told);
        untold
            .map(|m| Notice { service: m.service.clone(), state: m.state, clients: m.to_tell(), last_call })
            .collect()
    }

    fn enter(&mut self, now: Moment, phase: Phase, milestone: Option<Milestone>) {
        self.phase = phase;
        if let Some(event) = milestone {
            let at_ms = self.since_began(now);
            self.timeline.push(Stamp { event, at_ms });
        }
    }

    fn journals(&self, failure: Option<String>) -> Vec<Persist> {
        let journal = self.journal(failure);
        self.members
            .iter()
            .map(|m| Persist::Journal {
                service: m.service.clone(),
                generation: m.generation,
                journal: Journal { left_to_others: m.left_to_others, ..journal.clone() },
            })
            .collect()
    }

    fn journal(&self, failure: Option<String>) -> Journal {
        let (phase, life) = self.as_journaled();
        Journal {
            run: self.plan.run.clone(),
            server: self.plan.server.clone(),
            phase,
            until: self.plan.until,
            cause: self.plan.cause,
            strategy: self.plan.strategy,
            convey: self.plan.convey,
            members: self.members.iter().map(|m| (m.service.clone(), m.part)).collect(),
            life,
            life_before: self.plan.standing.life_before.clone(),
            started_at_s: self.plan.started_at_s,
            timeline: self.timeline.clone(),
            failure,
            troubles: self.troubles.clone(),
            left_to_others: 0,
            released_at_s: None,
        }
    }

    /// Entries that are not what they should be. A service may have as many as it has records: that there are
    /// more than the bound is said as the last of them.
    fn trouble(&mut self, found: impl IntoIterator<Item = Trouble>) {
        for trouble in found {
            if self.troubles.contains(&trouble) {
                continue;
            }
            let room = limits::TROUBLES_MAX.saturating_sub(self.troubles.len());
            match room {
                0 => return,
                1 => self.troubles.push(Trouble {
                    entry: "more".into(),
                    why: limits::TROUBLES_MAX_TOLD.into(),
                    ..trouble
                }),
                _ => self.troubles.push(trouble),
            }
        }
    }

    fn since_began(&self, now: Moment) -> i64 {
        let now_ms = i64::try_from(now.since(self.began).as_millis()).unwrap_or(i64::MAX);
        self.before_ms.saturating_add(now_ms)
    }
}

fn was_claimed(service: &ServiceName) -> String {
    format!("{service} was claimed by another server meanwhile")
}

fn outcomes(member: &Member, lines: Vec<OutcomeLine>) -> Persist {
    Persist::Outcomes { service: member.service.clone(), generation: member.generation, lines }
}

#[cfg(test)]
mod crashes;
#[cfg(test)]
mod tests;
