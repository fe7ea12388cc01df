//! Owners whose hearts are silent: which of their services this server adopts without being asked, and which it leaves to another
//! candidate.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use heirlock_core::candidates::{Candidates, is_turn_of, turns};
use heirlock_core::claim::OwnerHeart;
use heirlock_core::liveness::silence_to_act_on;
use heirlock_core::takeover::Order;
use heirlock_core::{Moment, ServerName, ServiceName};

use super::Instance;
use crate::agent::common::Common;
use crate::agent::outside::Outside;
use crate::agent::running::Commission;

/// Why this server does not adopt a service whose owner is silent, without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LeftTo {
    /// The turn is that server's, and this server's comes later.
    Another(ServerName),
    /// The same, and this server is no candidate.
    AnotherAlone(ServerName),
    /// No candidate lives: no server adopts it unasked.
    Nobody(Candidates),
}

impl LeftTo {
    /// For people, as a part of a sentence.
    pub(crate) fn in_words(&self, candidate_time: Duration) -> String {
        match self {
            Self::Another(server) => format!(
                "{server} comes before this server and is to adopt it within {} s; else it is this server's turn",
                candidate_time.as_secs()
            ),
            Self::AnotherAlone(server) => {
                format!("{server} is to adopt it, and this server is none of its candidates")
            }
            Self::Nobody(candidates) => {
                format!(
                    "none of its candidates lives ({candidates}), so no server adopts it without being asked"
                )
            }
        }
    }
}

/// A service whose owner is silent.
struct Orphan {
    service: ServiceName,
    owner: ServerName,
    for_time: Duration,
}

impl<O: Outside> Instance<O> {
    /// Adopts by itself what is `automatic` and whose owner's heart fell silent: all services of an owner in one run, with one
    /// fence.
    pub(crate) fn look_for_silence(&mut self, server: &mut Common<O>, now: Moment) {
        let knows_all = self.knows_its_own(server, false).is_ok();
        if server.pulse().is_paused() || !knows_all {
            self.left_to.clear();
            return;
        }
        let orphans = self.orphans(server, now);
        let mine = self.those_of_my_turn(server, now, &orphans);
        let mut silent: BTreeMap<ServerName, (Duration, Vec<ServiceName>)> = BTreeMap::new();
        for Orphan { service, owner, for_time } in orphans {
            if !mine.contains(&service)
                || self.run_with(&service).is_some()
                || self.unreadable.contains_key(&service)
                // Work that hangs would take the locks of a service that was adopted here meanwhile.
                || self.is_releasing(&service)
                || self.unasked_not_before.get(&service).is_some_and(|at| now < *at)
            {
                continue;
            }
            tracing::warn!(%service, %owner, silent_ms = for_time.as_millis(), "{service}: the agent of its owner {owner} says nothing for {} ms: its heart is silent", for_time.as_millis());
            self.unasked_not_before.insert(service.clone(), now + server.settings().heartbeat.dead_after);
            silent.entry(owner).or_insert((for_time, Vec::new())).1.push(service);
        }
        for (for_time, services) in silent.into_values() {
            let order = Order::owner_dead(services, now - for_time);
            self.begin_run(server, now, Commission { insists: false, ..Commission::unasked(order) });
        }
    }

    /// The services that are `automatic` and whose owners are silent, as the look of this heartbeat has shown them. A run that
    /// begins looks again before it claims.
    fn orphans(&self, server: &Common<O>, now: Moment) -> Vec<Orphan> {
        let automatic = self.services(server).filter(|service| service.is_adopted_unasked());
        let not_held = automatic.filter(|service| !self.held.contains_key(&service.name));
        let orphan = |service: &ServiceName| {
            let claim = self.others.get(service)?;
            let heart = server.pulse().heart_of(&claim.owner, now);
            let for_time = silence_to_act_on(claim, server.server(), heart)?;
            Some(Orphan { service: service.clone(), owner: claim.owner.clone(), for_time })
        };
        not_held.filter_map(|service| orphan(&service.name)).collect()
    }

    /// Those of them that this server may adopt now. A service without candidates is adopted by the server that is the first to
    /// claim it.
    fn those_of_my_turn(
        &mut self,
        server: &Common<O>,
        now: Moment,
        orphans: &[Orphan],
    ) -> BTreeSet<ServiceName> {
        let configured = |orphan: &Orphan| server.settings().service(&orphan.service)?.candidates.as_ref();
        let with_candidates = || orphans.iter().filter_map(|orphan| Some((orphan, configured(orphan)?)));
        let of = || with_candidates().map(|(orphan, candidates)| (&orphan.service, candidates));
        let us = server.server();
        let lives = |candidate: &&ServerName| {
            // A heart that is not known yet may beat; where it does not, the next candidate's turn comes.
            let heart = || server.pulse().heart_of(candidate, now);
            *candidate == us || matches!(heart(), OwnerHeart::Beating { .. } | OwnerHeart::Unknown { .. })
        };
        let living: BTreeSet<ServerName> =
            of().flat_map(|(_, candidates)| candidates.servers()).filter(lives).cloned().collect();
        let turns = turns(of(), &living, &self.services_of_each(server));
        let heartbeat = &server.settings().heartbeat;
        let (dead_after, each) = (heartbeat.dead_after, heartbeat.candidate_time);
        let mut mine: BTreeSet<ServiceName> =
            orphans.iter().filter(|orphan| configured(orphan).is_none()).map(|o| o.service.clone()).collect();
        let mut left_to = BTreeMap::new();
        for (Orphan { service, for_time, .. }, candidates) in with_candidates() {
            let of_service = turns.get(service).map(Vec::as_slice).unwrap_or_default();
            let waited = for_time.saturating_sub(dead_after);
            if is_turn_of(of_service, us, waited, each) {
                mine.insert(service.clone());
                continue;
            }
            // The last one whose turn has come; those before it had their time.
            let is_on = |other: &&ServerName| is_turn_of(of_service, other, waited, each);
            let left = match of_service.iter().rev().find(is_on) {
                Some(other) if of_service.contains(us) => LeftTo::Another(other.clone()),
                Some(other) => LeftTo::AnotherAlone(other.clone()),
                None => LeftTo::Nobody(candidates.clone()),
            };
            left_to.insert(service.clone(), left);
        }
        self.say_left_to(left_to, each);
        mine
    }

    /// How many services each server has, as this server knows it.
    fn services_of_each(&self, server: &Common<O>) -> BTreeMap<ServerName, usize> {
        let mut owned = BTreeMap::new();
        for service in self.services(server) {
            let owner = match self.held.get(&service.name) {
                Some(held) => Some(&held.claim.owner),
                None => {
                    self.others.get(&service.name).filter(|claim| !claim.released).map(|claim| &claim.owner)
                }
            };
            if let Some(owner) = owner {
                *owned.entry(owner.clone()).or_default() += 1;
            }
        }
        owned
    }

    /// Logs of each service to whom it is left, once.
    fn say_left_to(&mut self, left_to: BTreeMap<ServiceName, LeftTo>, candidate_time: Duration) {
        for (service, left) in &left_to {
            if self.left_to.get(service) != Some(left) {
                let why = left.in_words(candidate_time);
                tracing::warn!(%service, why, "{service}: its owner's heart is silent, and this server leaves it alone: {why}");
            }
        }
        self.left_to = left_to;
    }
}
