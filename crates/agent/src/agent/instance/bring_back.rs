//! Addresses that a release took away and that have to come back, since this server holds their services still: an agent was killed
//! on the way, the store failed for too long, a volume or a program hung. `heirlock_core::taken_away` decides what follows.
//!
//! Nothing is told to any client. The lock manager lets go of locks when the claim is given up, and not before: while the address was
//! away no other server served them, and the locks are here still. Where the lock manager lost them meanwhile, a run is owed as after
//! any other restart, and that run brings the address by itself, once grace is proved.

use std::time::Duration;

use heirlock_core::claim::Claim;
use heirlock_core::taken_away::{Next, Standing};
use heirlock_core::{Generation, Moment, ServiceName};

use super::Instance;
use crate::agent::common::Common;
use crate::agent::outside::{InstanceOutside, Outside};
use crate::agent::taken_away::TakenAddresses;
use crate::agent::work::Work;
use crate::control::report::{Problem, ProblemKind};
use crate::limits;

impl<O: Outside> Instance<O> {
    /// Takes up what earlier agents noted.
    pub(super) fn recall_taken_away(&mut self, server: &Common<O>) {
        let hook = server.settings().hooks.address_down.as_ref();
        let hook = hook.map_or(Duration::ZERO, |hook| hook.time_limit) + limits::KILLED_TIME_MAX;
        match self.outside.taken_away() {
            Ok(noted) => self.taken_away = TakenAddresses::of(noted, server.now() + hook),
            Err(why) => {
                tracing::error!(
                    why,
                    "which addresses a release had taken away can't be read, so none of them is brought back; look whether each service that this server holds has its address: {why}"
                );
            }
        }
    }

    /// Notes, durably, that the address of a service is about to be taken away. Of an address that is not here nothing is taken.
    ///
    /// # Errors
    /// Where it can't be noted: then the address must stay.
    pub(super) fn note_taken_away(
        &mut self,
        server: &Common<O>,
        service: &ServiceName,
    ) -> Result<(), String> {
        let Some(generation) = self.held.get(service).map(|held| held.claim.generation) else {
            return Ok(());
        };
        if !self.has_address_of(server, service) || !self.taken_away.noted_mut().note(service, generation) {
            return Ok(());
        }
        let noted = self.outside.note_taken_away(self.taken_away.noted());
        if noted.is_err() {
            self.taken_away.forget(service);
        }
        noted
    }

    /// A run has begun another generation of a service, while its release goes on.
    pub(super) fn release_goes_on_in(&mut self, service: &ServiceName, generation: Generation) {
        if self.releases.contains(service) && self.taken_away.noted_mut().goes_on_in(service, generation) {
            self.keep_taken_away(service);
        }
    }

    /// Nothing is to be brought back for this service any more.
    pub(super) fn forget_taken_away(&mut self, service: &ServiceName) {
        if self.taken_away.forget(service) {
            self.keep_taken_away(service);
        }
    }

    fn keep_taken_away(&mut self, service: &ServiceName) {
        if let Err(why) = self.outside.note_taken_away(self.taken_away.noted()) {
            tracing::warn!(%service, why, "{service}: how far its release has come could not be noted: {why}");
        }
    }

    /// Brings back what has to come back, after a look at the store and at what the other servers ask for.
    pub(crate) fn bring_addresses_back(&mut self, server: &mut Common<O>, now: Moment) {
        if !self.holdings_known || self.put_off.may_have_come_about() {
            return; // whose they are is not known
        }
        for (service, generation) in self.taken_away.all() {
            let is_unknown = self.unread.contains(&service)
                || self.unreadable.contains_key(&service)
                || server.acquaintance().lacks(&service);
            if is_unknown {
                continue;
            }
            let standing = self.standing_of_taken(server, &service);
            match self.taken_away.next(&service, standing) {
                Next::Wait => {}
                Next::IsBack if self.taken_away.may_go(now) => {}
                Next::IsOver => self.forget_taken_away(&service),
                Next::IsBack => {
                    tracing::info!(%service, "{service}: its address, which a release had taken away, is on this server; its clients have their locks still");
                    self.forget_taken_away(&service);
                }
                Next::BringBack => self.bring_back(server, now, &service, generation),
            }
        }
    }

    fn standing_of_taken(&self, server: &Common<O>, service: &ServiceName) -> Standing {
        let held = self.held.get(service);
        // Of a life that no look of this agent has shown yet it is not known whether it goes on.
        let lives_here = |life: &_| self.lives.to_recover_in() == Some(life);
        let has_its_locks = held.is_some_and(|held| held.journal.life.as_ref().is_some_and(lives_here));
        Standing {
            held: held.map(|held| held.claim.generation),
            is_released: self.releases.contains(service),
            is_here: self.has_all_addresses_of(server, service),
            is_served: has_its_locks && self.run_with(service).is_none(),
        }
    }

    fn bring_back(
        &mut self,
        server: &mut Common<O>,
        now: Moment,
        service: &ServiceName,
        generation: Generation,
    ) {
        let Some(hook) = server.settings().hooks.address_up.as_ref().map(|hook| hook.time_limit) else {
            let why = "no hook address-up is set that would bring it back, so bring the address back";
            return self.is_away(service, why);
        };
        if !self.taken_away.may_begin(service, now) || !is_still_ours(server, service, generation) {
            return;
        }
        self.is_away(service, "the hook address-up is run to bring it back");
        let report_until = now + hook + limits::KILLED_TIME_MAX + limits::ADDRESS_BACK_TIME_MAX;
        self.taken_away.begins(service, report_until + limits::WORK_SLACK);
        self.outside.begin(Work::BringAddressBack(service.clone()));
    }

    /// Says once that an address is away, and why it is not back.
    fn is_away(&mut self, service: &ServiceName, why: &str) {
        if self.taken_away.is_away_because(service, why) {
            tracing::error!(%service, why, "{}", away(service, why));
        }
    }

    /// The work that brings an address back has ended.
    pub(crate) fn address_back(
        &mut self,
        server: &mut Common<O>,
        now: Moment,
        service: &ServiceName,
        back: &Result<(), String>,
    ) {
        self.taken_away.ended(service, if back.is_ok() { now } else { now + limits::ADDRESS_BACK_AGAIN });
        if let Err(why) = back {
            let seconds = limits::ADDRESS_BACK_AGAIN.as_secs();
            let why = format!(
                "{why}; it is tried again every {seconds} s, and a person may bring the address back"
            );
            self.is_away(service, &why);
        }
        self.bring_addresses_back(server, now);
    }

    /// Work that should have brought an address back by now, hangs.
    pub(crate) fn end_returns_that_hang(&mut self, now: Moment) {
        for service in self.taken_away.begin_to_hang(now) {
            let why =
                "the work that brings it back hangs, so bring the address back, or start the agent again";
            self.is_away(&service, why);
        }
    }

    /// The problems with addresses that were taken away and are not back, for `status`.
    pub fn taken_away_problems(&self) -> Vec<Problem> {
        let problem = |(service, why): (&ServiceName, &str)| {
            Problem::new(ProblemKind::AddressTakenAway).of(service.as_str()).saying(&away(service, why))
        };
        self.taken_away.away().map(problem).collect()
    }
}

/// Whether the store says, now, that this server holds a service in this generation. The look of a moment ago may have been made
/// before a call ended that had been given up, and gave the service up.
fn is_still_ours<O: Outside>(server: &Common<O>, service: &ServiceName, generation: Generation) -> bool {
    let is_ours = |claim: Claim| claim.generation == generation && claim.is_held_by(server.server());
    server.store().newest_claim(service).ok().flatten().is_some_and(is_ours)
}

fn away(service: &ServiceName, why: &str) -> String {
    format!(
        "{service} is this server's, and no client reaches it: a release took its address away and did not come to its end; {why}; \
         'heirlock release {service}' goes on with the release"
    )
}
