//! Adoptions that meet: two services are asked for at one server while neither is settled.
//!
//! Each adoption is a run of its own until it may claim: its needs are looked for and its owner is fenced, and a refusal concerns
//! that adoption alone. Adoptions that may claim at the same time claim as one run ([`Takeover::joined_by`]), which restarts the
//! lock manager once. A run that has claimed makes way for one that claims after it ([`Takeover::hands_on`]): that one takes over
//! what the first had to take over, drops the lock manager's locks, and tells the clients of both. Where the first run had not
//! begun to restart the lock manager, nothing was dropped yet, and one restart serves both again.
//!
//! So a journal that the next agent finds never tells of two runs, and a run that met another one is resumed as any other.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{Claimed, End, Hindrance};
use super::journal::{Part, Until};
use super::member::Member;
use super::{Action, Cause, Phase, Steps, Takeover, Work};
use crate::Batch;
use crate::claim::Authority;
use crate::limits;
use crate::moment::Moment;
use crate::names::{ServerName, ServiceName};
use crate::planted::{Bug, planted};
use crate::records::RecordKey;

/// What permits each claim of a run while the owner of the service lives. Who insists on one service has said nothing of those that
/// this server holds besides: another server may have claimed one of them a moment ago.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authorities {
    of: BTreeMap<ServiceName, Authority>,
    others: Authority,
}

impl Authorities {
    /// That of this service.
    #[must_use]
    pub fn of(&self, service: &ServiceName) -> &Authority {
        self.of.get(service).unwrap_or(&self.others)
    }
}

impl From<Authority> for Authorities {
    /// The same for each service.
    fn from(others: Authority) -> Self {
        Self { of: BTreeMap::new(), others }
    }
}

/// What a run hands on to the one that takes its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HandedOn {
    /// The services that it has taken over, or was to.
    targets: Vec<ServiceName>,
    /// Those of them of which no more was asked than to prepare them.
    prepared: BTreeSet<ServiceName>,
    /// It had not begun to restart the lock manager: locks of these services were dropped by no one, save those that were owed.
    untouched: Vec<ServiceName>,
    /// The services whose locks were gone before it began, of the untouched ones.
    lost: Vec<ServiceName>,
    /// The same where that is not known.
    unknown: Vec<ServiceName>,
    /// Clients that were told before it began, in the life that runs, of the untouched ones.
    told: BTreeMap<ServiceName, BTreeSet<RecordKey>>,
}

/// What a run has of the adoptions that it met.
#[derive(Debug, Clone, Default)]
pub(super) struct Met {
    /// Since when it may claim.
    may_claim: Option<Moment>,
    /// No server ever claimed what it is to take over, as far as was known when it was asked for.
    starts_first: bool,
    /// Services of which no more was asked than to prepare them, though it goes on by the word of another one.
    prepared: BTreeSet<ServiceName>,
    /// What permits the claims of the adoptions that joined it.
    joined: BTreeMap<ServiceName, Authority>,
    /// What the run that makes way for it hands on.
    along: HandedOn,
}

/// Whether an adoption that may claim does so now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It does, with the others that may.
    Claims,
    /// Others are being looked at, and one restart is to serve all of them. Until that moment it waits.
    WaitsForOthers(Moment),
    /// The lock manager is being restarted for the run that is on. That can't be interrupted, and ends soon.
    WaitsForRecognition,
    /// The lock manager was restarted for the run that is on, and the first start of a service needs no restart: it would drop
    /// the locks of clients that have just got them back. It begins when that run is over. No client waits for it.
    WaitsForEnd,
}

/// When a run that is on makes way.
enum MakesWay {
    Now { was_touched: bool },
    AfterRecognition,
}

impl Takeover {
    /// Nothing is in its way but other adoptions: it may claim.
    pub(super) fn may_claim(&mut self, now: Moment) -> Steps {
        self.met.may_claim = Some(now);
        Batch::only(self.claim())
    }

    /// Whether its needs are met and its owners are off, and it has not claimed yet.
    #[must_use]
    pub fn is_ready_to_claim(&self) -> bool {
        self.met.may_claim.is_some() && self.is_unclaimed()
    }

    /// No server ever claimed what it is to take over.
    pub fn will_start_first(&mut self) {
        self.met.starts_first = true;
    }

    /// Whether it claims now, where it may: `run` is the one that is on, `others` those that were asked for besides.
    #[must_use]
    pub fn turn<'a>(
        &self,
        now: Moment,
        run: Option<&Self>,
        mut others: impl Iterator<Item = &'a Self>,
    ) -> Option<Turn> {
        let since = self.met.may_claim.filter(|_| self.is_unclaimed())?;
        let until = since + limits::JOINING_TIME_MAX;
        Some(match run.map(Self::makes_way) {
            Some(MakesWay::AfterRecognition) => Turn::WaitsForRecognition,
            Some(MakesWay::Now { was_touched: true }) if self.met.starts_first => Turn::WaitsForEnd,
            _ if now < until && others.any(|other| !other.is_ready_to_claim()) => Turn::WaitsForOthers(until),
            _ => Turn::Claims,
        })
    }

    fn makes_way(&self) -> MakesWay {
        match self.phase {
            // It only follows what has happened.
            _ if self.cause() == Cause::OwnRestart => MakesWay::Now { was_touched: false },
            Phase::Claimed | Phase::Conveyed
                if self.is_before_recognition() && !planted(Bug::RestartForEach) =>
            {
                MakesWay::Now { was_touched: false }
            }
            Phase::Claimed | Phase::Conveyed | Phase::Recognised => MakesWay::AfterRecognition,
            _ => MakesWay::Now { was_touched: true },
        }
    }

    /// Whether it is an adoption that has claimed, and for which the lock manager is to be restarted and is not being yet.
    #[must_use]
    pub fn is_before_recognition(&self) -> bool {
        let is_begun =
            self.resumed_from.is_some() || self.working.is_some_and(|(work, _)| work == Work::Recognition);
        self.cause() != Cause::OwnRestart
            && matches!(self.phase, Phase::Claimed | Phase::Conveyed)
            && !is_begun
    }

    /// Whether it is to be told of another life that it did not begin: it is bound to the one before, or knows what was lost and who
    /// was told in that one.
    #[must_use]
    pub fn heeds_lives(&self) -> bool {
        self.phase.is_bound_to_a_life() || self.is_before_recognition()
    }

    /// Another life began before the lock manager was restarted for this run: the locks of all own services are gone, and none of
    /// their clients was told in the life that runs. By the time at which this run tells them, grace of that life may have ended.
    pub(super) fn loses_own_locks(&mut self) {
        let standing = &mut self.plan.standing;
        standing.lost.clone_from(&standing.own);
        standing.unknown.clear();
        self.members.iter_mut().for_each(|member| member.told_before.clear());
    }

    /// Both may claim, and do so as one run: this one, which takes over the services of both.
    pub fn joined_by(&mut self, other: Self) {
        let prepared = self.prepared().into_iter().chain(other.prepared()).collect();
        let Self { plan, met, .. } = other;
        let authority = |service: &ServiceName| met.joined.get(service).unwrap_or(&plan.authority).clone();
        self.met.joined.extend(plan.targets.iter().map(|service| (service.clone(), authority(service))));
        self.met.starts_first &= met.starts_first;
        self.plan.targets.extend(plan.targets);
        self.is_only_to_prepare(prepared);
    }

    /// A run that only prepares waits for a word. Where one of its services needs none, it goes on with all: their clients are told
    /// from an address as soon as that is here.
    fn is_only_to_prepare(&mut self, prepared: BTreeSet<ServiceName>) {
        self.met.prepared = prepared;
        if self.plan.targets.iter().any(|target| !self.met.prepared.contains(target)) {
            self.plan.until = Until::Settled;
        }
    }

    /// The services that it takes over of which no more is asked than to prepare them.
    fn prepared(&self) -> BTreeSet<ServiceName> {
        let is_it = |service: &&ServiceName| {
            self.plan.until == Until::Prepared || self.met.prepared.contains(*service)
        };
        self.plan.targets.iter().filter(is_it).cloned().collect()
    }

    /// The word has come that this service's clients may be told.
    pub fn has_word_for(&mut self, service: &ServiceName) {
        self.met.prepared.remove(service);
    }

    /// Whether grace is proved, and this service waits for its address and for a word, though the run goes on with another one.
    #[must_use]
    pub fn is_prepared_besides(&self, service: &ServiceName) -> bool {
        let is_away = |member: &Member| member.service == *service && !member.served;
        matches!(self.phase, Phase::Proved | Phase::Notifying)
            && self.met.prepared.contains(service)
            && self.taken_over().any(is_away)
    }

    /// What it hands on to an adoption that claims now, and takes its place.
    #[must_use]
    pub fn hands_on(&self) -> HandedOn {
        if self.is_own_restart() {
            return HandedOn::default();
        }
        let targets = self.plan.targets.clone();
        let prepared = self.prepared();
        if !self.is_before_recognition() {
            return HandedOn { targets, prepared, ..HandedOn::default() };
        }
        let standing = &self.plan.standing;
        let told = self.members.iter().map(|member| (member.service.clone(), member.told_before.clone()));
        HandedOn {
            targets,
            prepared,
            untouched: self.members.iter().map(|member| member.service.clone()).collect(),
            lost: standing.lost.clone(),
            unknown: standing.unknown.clone(),
            told: told.collect(),
        }
    }

    /// It is about to claim, in the place of a run that is on. To be said after [`Takeover::stands`]: what that run has begun says
    /// of services, whose locks it has not touched, that they are to be told.
    pub fn takes_place_of(&mut self, before: HandedOn) {
        if !self.is_unclaimed() {
            return;
        }
        let standing = &mut self.plan.standing;
        for (now, then) in [(&mut standing.lost, &before.lost), (&mut standing.unknown, &before.unknown)] {
            now.retain(|service| !before.untouched.contains(service));
            now.extend(then.iter().filter(|service| before.untouched.contains(service)).cloned());
        }
        self.met.along = before;
    }

    /// Whether it takes this service over from the run whose place it takes.
    pub(super) fn takes_along(&self, service: &ServiceName) -> bool {
        self.met.along.targets.contains(service) && !self.plan.targets.contains(service)
    }

    /// The services that it takes along and that this server does not hold yet.
    pub(super) fn taken_along_unheld(&self) -> impl Iterator<Item = &ServiceName> {
        let held = &self.plan.standing.own;
        self.met.along.targets.iter().filter(|service| self.takes_along(service) && !held.contains(service))
    }

    /// Whether it takes the place of a run that had something to take over.
    pub(super) fn takes_any_along(&self) -> bool {
        !self.met.along.targets.is_empty()
    }

    /// The services that it takes along are targets as its own: their adoption is not done.
    pub(super) fn go_on_with_those_taken_along(&mut self, won: &[Claimed]) {
        let along = std::mem::take(&mut self.met.along.targets);
        let prepared = std::mem::take(&mut self.met.along.prepared);
        let prepared = self.prepared().into_iter().chain(prepared).collect();
        if along.is_empty() {
            return;
        }
        for service in along {
            if won.iter().any(|claimed| claimed.service == service) && !self.plan.targets.contains(&service) {
                self.met.joined.insert(service.clone(), Authority::default());
                self.plan.targets.push(service);
            }
        }
        self.is_only_to_prepare(prepared);
    }

    /// Whether it tells no client of this service, where such a bug is planted: another adoption has brought it.
    pub(super) fn forgets_clients_of(&self, service: &ServiceName) -> bool {
        planted(Bug::ForgetJoined) && self.met.joined.contains_key(service)
    }

    pub(super) fn told_before(&self, claimed: &Claimed) -> BTreeSet<RecordKey> {
        let before = self.met.along.told.get(&claimed.service).into_iter().flatten();
        claimed.told.iter().chain(before).cloned().collect()
    }

    pub(super) fn authorities(&self) -> Authorities {
        let own = self.plan.targets.iter().map(|service| (service.clone(), self.plan.authority.clone()));
        Authorities { of: own.chain(self.met.joined.clone()).collect(), others: Authority::default() }
    }

    /// The owners that are off, as those who asked for the run say.
    pub fn fenced(&self) -> impl Iterator<Item = &ServerName> {
        let all = self.met.joined.values().chain([&self.plan.authority]);
        all.filter_map(|authority| authority.fenced.as_ref())
    }

    /// This service is not to be taken over after all. Answers whether the run goes on for others; else it is left as it was.
    pub fn goes_on_without(&mut self, service: &ServiceName) -> bool {
        let has_others = self.plan.targets.iter().any(|target| target != service);
        if has_others && self.is_unclaimed() {
            self.plan.targets.retain(|target| target != service);
        }
        has_others
    }

    /// The members that concern a caller who waits for this service: it, and what this server holds besides, whose locks are dropped
    /// for it. Other services that are taken over have callers of their own.
    fn concerning(&self, service: &ServiceName) -> impl Iterator<Item = &Member> {
        let is_member = self.members.iter().any(|member| member.service == *service);
        self.members
            .iter()
            .filter(move |member| !is_member || member.part == Part::Own || member.service == *service)
    }

    /// Whether another service is taken over as well.
    #[must_use]
    pub fn takes_over_besides(&self, service: &ServiceName) -> bool {
        self.taken_over().any(|member| member.service != *service)
    }

    /// Whether every client of this service is back, while the run goes on for another one that is taken over.
    #[must_use]
    pub fn is_settled_for(&self, service: &ServiceName) -> bool {
        matches!(self.phase, Phase::Notifying | Phase::Settling)
            && !self.is_placing()
            && self.takes_over_besides(service)
            && self.concerning(service).all(Member::all_registered)
    }

    /// Whether every client of this service has answered, or had its first round of tries ([`Takeover::has_tried_all`]).
    #[must_use]
    pub fn has_tried_all_of(&self, service: &ServiceName) -> bool {
        match self.phase {
            Phase::Notifying => self.concerning(service).all(|member| member.told || member.tried),
            phase => phase > Phase::Notifying,
        }
    }

    /// How the run has ended for a caller who waited for this service. That no client of another one could be called, or that all that
    /// was to be taken over has left the run, is no failure of this one.
    #[must_use]
    pub fn end_for(&self, service: &ServiceName, end: &End) -> End {
        let member = self.members.iter().find(|member| member.service == *service);
        let is_told = self.phase == Phase::Settled
            && member.is_some_and(|member| member.no_client_was_called().is_none());
        let is_of_others = |hindrance: &Hindrance| {
            matches!(hindrance, Hindrance::NoClientCalled | Hindrance::Released | Hindrance::Overtaken)
        };
        match end {
            End::Failed { hindrance, summaries, .. } if is_told && is_of_others(hindrance) => {
                End::Settled(summaries.clone())
            }
            end => end.clone(),
        }
    }

    /// The claims of a run, and by what they are permitted.
    pub(super) fn claim_of(&self, services: Vec<(ServiceName, Part)>) -> Action {
        Action::Claim { services, authority: self.authorities() }
    }
}

#[cfg(test)]
mod tests;
