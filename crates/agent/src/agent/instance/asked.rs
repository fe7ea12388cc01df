//! Runs that were asked for, until they have claimed: whether each can work is checked, and owners are fenced. That takes its
//! time, and may end in a refusal. So they hold nothing up: the run that is on goes on beside them, or one begins, and makes way at
//! the moment in which the claim has succeeded (`meeting.rs`).

use heirlock_core::claim::may_fence;
use heirlock_core::store::StoreError;
use heirlock_core::takeover::{Action, End, Event, Standing};
use heirlock_core::{Moment, ServerName, ServiceName};

use super::Instance;
use crate::agent::common::Common;
use crate::agent::outside::{InstanceOutside, Outside};
use crate::agent::put_off::{Later, Tries};
use crate::agent::running::Running;
use crate::agent::status;
use crate::agent::work::{RunNumber, RunWork};

impl<O: Outside> Instance<O> {
    /// The services that this server holds, and its duties, now.
    pub(crate) fn standing(&self, server: &Common<O>) -> Standing {
        self.lives.standing(server.own_service(), self.holdings())
    }

    /// The run that takes this service over or tells its clients, or is to.
    pub(crate) fn run_with(&self, service: &ServiceName) -> Option<&Running> {
        let runs = self.asked.iter().chain(&self.run);
        runs.into_iter().find(|running| running.machine.has_member(service))
    }

    /// The run that takes this service over, or is to.
    pub(crate) fn run_for(&mut self, service: &ServiceName) -> Option<&mut Running> {
        let runs = self.asked.iter_mut().chain(&mut self.run);
        runs.into_iter().find(|running| running.machine.targets().contains(service))
    }

    /// The run that takes this service over, or is to, or one that tells its clients for another reason.
    pub(crate) fn run_that_serves(&mut self, service: &ServiceName) -> Option<&mut Running> {
        match self.run_for(service).is_some() {
            true => self.run_for(service),
            false => self.run.as_mut().filter(|running| tells_its_own(running, service)),
        }
    }

    /// Whether a run tells the clients of this service, which is held here and which it does not take over.
    pub(crate) fn tells_its_own(&self, service: &ServiceName) -> bool {
        self.run.as_ref().is_some_and(|running| tells_its_own(running, service))
    }

    /// The run of this number, where it is on or was asked for.
    pub(crate) fn running(&mut self, run: RunNumber) -> Option<&mut Running> {
        self.asked.iter_mut().chain(&mut self.run).find(|running| running.number == run)
    }

    /// The run of this number, where it was asked for and has not claimed.
    pub(crate) fn asked_for(&mut self, run: RunNumber) -> Option<&mut Running> {
        self.asked.iter_mut().find(|running| running.number == run)
    }

    /// Has the owners of these services fenced for a run. Whether they may be is asked for as long as a claim is, where the store
    /// fails.
    pub(crate) fn fence(&mut self, server: &mut Common<O>, run: RunNumber, services: Vec<ServiceName>) {
        let looked = self.owners_to_fence(server, run, &services);
        let (now, patience) = (server.now(), server.patience_with_the_store());
        let Some(asked) = self.asked_for(run) else { return };
        let until = *asked.fence_until.get_or_insert(patience);
        let why = match looked {
            Ok(Ok(owners)) => {
                asked.fence_until = None;
                // Its time counts from now, and not from the first look.
                asked.machine.begins(now, &Action::Fence(services));
                return self.outside.begin_for(run, RunWork::Fence(owners));
            }
            Ok(Err(why)) => why,
            Err(error) => {
                if let Some(Tries { again, .. }) = Tries::after(&error, now, until) {
                    server.fails(now, &error);
                    return self.put_off(Later::Fence(run, services, again));
                }
                error.to_string()
            }
        };
        self.advance_asked(server, run, Event::Fenced(Err(why)));
    }

    /// Looks once more at the owners that are to be fenced: this agent, or its whole server, may have stood still since the run
    /// was asked for, and a server that lives must not be switched off. Each is named once, with one of its services, however many it
    /// had; or why one may not be fenced.
    ///
    /// # Errors
    /// Where that can't be read. Then none is known to be all of them.
    fn owners_to_fence(
        &mut self,
        server: &mut Common<O>,
        run: RunNumber,
        services: &[ServiceName],
    ) -> Result<Result<Vec<(ServiceName, ServerName)>, String>, StoreError> {
        let mut owners: Vec<(ServiceName, ServerName)> = Vec::new();
        let Some(authority) = self.asked_for(run).map(|asked| asked.machine.authority().clone()) else {
            return Ok(Ok(owners));
        };
        for service in services {
            let (newest, _) = server.newest_or_lost(service, &authority)?;
            let heart = server.heart_of_owner(newest.as_ref())?;
            if let Err(refusal) = may_fence(service, newest.as_ref(), server.server(), heart, &authority) {
                return Ok(Err(refusal.to_string()));
            }
            let owner = newest.map(|claim| claim.owner);
            owners.extend(
                owner
                    .filter(|owner| owners.iter().all(|(_, other)| other != owner))
                    .map(|owner| (service.clone(), owner)),
            );
        }
        Ok(Ok(owners))
    }

    /// Tells an event to a run that was asked for. Nothing of it is durable before it has claimed.
    pub(crate) fn advance_asked(&mut self, server: &mut Common<O>, run: RunNumber, event: Event) {
        let standing = self.standing(server);
        let Some(asked) = self.asked_for(run) else { return };
        asked.machine.stands(standing);
        let (insists, brings) = (asked.insists, asked.waits_for_addresses);
        let targets = asked.machine.targets().to_vec();
        let batch = asked.machine.step(server.now(), event);
        for action in batch.then {
            if let Some(asked) = self.asked_for(run) {
                asked.machine.begins(server.now(), &action);
            }
            match action {
                Action::CheckFit(strategy) => match self.would_drop_locks_of_others(server, run, strategy) {
                    Some(why) => self.advance_asked(server, run, Event::Fit(Err(why))),
                    None => {
                        let work = RunWork::CheckFit { targets: targets.clone(), insists, brings };
                        self.outside.begin_for(run, work);
                    }
                },
                Action::Fence(services) => self.fence(server, run, services),
                Action::Claim { .. } => self.claim_in_turn(server),
                Action::Over(end) => self.refused(server, run, &end),
                other => tracing::error!(?other, "a run that has claimed nothing can't do this: {other:?}"),
            }
        }
        self.say_phase_asked(server, run);
    }

    /// A run can't begin. Duties towards clients stay as they were.
    pub fn refused(&mut self, server: &mut Common<O>, run: RunNumber, end: &End) {
        if let Some(running) = self.take_asked(run) {
            self.conclude(server, running, end);
        }
        // Others may have waited until it was looked at.
        self.claim_in_turn(server);
    }

    /// Takes out a run that was asked for.
    pub(crate) fn take_asked(&mut self, run: RunNumber) -> Option<Running> {
        let at = self.asked.iter().position(|asked| asked.number == run)?;
        Some(self.asked.remove(at))
    }

    /// Tells the callers that wait for it that it is being checked.
    fn say_phase_asked(&mut self, server: &mut Common<O>, run: RunNumber) {
        let Some(asked) = self.asked_for(run) else { return };
        let phase = asked.machine.phase();
        let before = asked.said.replace(phase);
        if before != Some(phase) {
            let now = server.now();
            server.counts_mut().phases.passed(before, &mut asked.in_phase_since, now);
            tracing::info!(run = asked.machine.run(), %phase, "{}: its adoption was asked for, run {}", status::names(asked.machine.targets()), asked.machine.run());
            asked.say_progress(server.now(), server.settings());
        }
    }

    /// Tells the callers that wait for runs which were asked for that these are being checked still.
    pub(crate) fn say_progress_asked(&mut self, server: &Common<O>, now: Moment) {
        for asked in &mut self.asked {
            asked.say_progress(now, server.settings());
        }
    }
}

fn tells_its_own(running: &Running, service: &ServiceName) -> bool {
    running.machine.has_member(service) && !running.machine.targets().contains(service)
}
