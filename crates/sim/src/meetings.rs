//! The checkers of adoptions that meet on one lock manager: one restart serves all that were asked for before it, and no adoption is
//! refused for another one's sake. Where anything but that went wrong meanwhile, nothing is judged.

use std::collections::BTreeMap;

use heirlock_core::ServiceName;

use crate::Ms;
use crate::lock_manager::LockManagerAt;
use crate::schedule::Level;
use crate::work::AgentAt;
use crate::world::World;

/// The memory of these checkers.
#[derive(Debug, Default)]
pub(crate) struct Meetings {
    /// Since when each server is asked for each service.
    asked: BTreeMap<(usize, ServiceName), Ms>,
    /// When a run last had each lock manager restarted, of which run of the agent, and for which services.
    restarted: BTreeMap<LockManagerAt, (u64, Ms, Vec<ServiceName>)>,
}

impl Meetings {
    /// An adoption is asked for.
    pub(crate) fn asked(&mut self, now: Ms, server: usize, service: &ServiceName) {
        self.asked.entry((server, service.clone())).or_insert(now);
    }

    /// It is answered, or is prepared.
    pub(crate) fn answered(&mut self, server: usize, service: &ServiceName) {
        self.asked.remove(&(server, service.clone()));
    }
}

impl World {
    /// Nothing has gone wrong since then that may keep an adoption from being done as it should.
    fn was_quiet_since(&self, since: Ms, server: usize, service: usize) -> bool {
        let troubles = [
            Level::StoreFails,
            Level::StoreAnswersLost,
            Level::StoreLate,
            Level::StoreSlow,
            Level::FenceFails,
            Level::WorkHangs,
        ];
        troubles.into_iter().all(|level| self.levels.of(level) == 0)
            && !self.was_disturbed_since(since.saturating_sub(5_000), service)
            && !self.is_stopped(server)
            && self.servers[server].resumed_at < since
            && !self.is_cut_off(server)
            && !self.store_is_away()
    }

    /// I10: a run has the lock manager restarted, to take these services over.
    pub(crate) fn check_restart(&mut self, (of, agent): AgentAt, targets: &[ServiceName]) {
        let now = self.now;
        let before = self.checks.meetings.restarted.insert(of, (agent, now, targets.to_vec()));
        let Some((_, at, served)) = before.filter(|(by, ..)| *by == agent) else { return };
        let late = targets.iter().find_map(|service| {
            let asked = *self.checks.meetings.asked.get(&(of.server, service.clone()))?;
            let place = self.service(service)?;
            let is_again = asked < at && !served.contains(service);
            (is_again && self.was_quiet_since(asked, of.server, place)).then_some((service.clone(), asked))
        });
        if let Some((service, asked)) = late {
            let what = format!(
                "{} is restarted once more for {service}, which was asked for at {asked}, before it was restarted at {at}",
                self.servers[of].name
            );
            self.violated(10, what);
        }
    }

    /// I9: an adoption is refused, or has failed, for this reason.
    pub(crate) fn check_refusal(&mut self, server: usize, service: &ServiceName, why: &str) {
        let Some(asked) = self.checks.meetings.asked.get(&(server, service.clone())).copied() else { return };
        let Some(place) = self.service(service) else { return };
        let is_others = |other: &crate::service::Service| {
            other.host_of.is_none() && other.name != *service && why.contains(other.name.as_str())
        };
        // Of a service whose address is still here a restart would drop locks: that is a reason of its own.
        let is_named = self.services.iter().any(is_others) && !why.contains("would drop locks");
        if is_named && self.was_quiet_since(asked, server, place) {
            let us = &self.servers[server].name;
            let what = format!("{us} does not adopt {service}, for the sake of another service: {why}");
            self.violated(9, what);
        }
    }
}
