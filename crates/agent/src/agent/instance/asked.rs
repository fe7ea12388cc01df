//! A run that was asked for, until it has claimed: whether it can work is checked, and owners are fenced. That takes its
//! time, and may end in a refusal. So it holds nothing up: a self-adoption goes on beside it, or begins, and makes way at
//! the moment in which the claim has succeeded.

use heirlock_core::claim::may_fence;
use heirlock_core::takeover::{Action, Cause, End, Event, Standing};
use heirlock_core::{Moment, ServiceName};

use super::Instance;
use crate::agent::common::Common;
use crate::agent::outside::{InstanceOutside, Outside};
use crate::agent::running::Running;
use crate::agent::status;
use crate::agent::work::{RunNumber, RunWork};

impl<O: Outside> Instance<O> {
    /// The services that this server holds, and its duties, now.
    pub(crate) fn standing(&self, server: &Common<O>) -> Standing {
        self.lives.standing(&ServiceName::host(server.server()), self.holdings())
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

    /// The run that takes this service over, or is to, or a self-adoption that tells its clients.
    pub(crate) fn run_that_serves(&mut self, service: &ServiceName) -> Option<&mut Running> {
        match self.run_for(service).is_some() {
            true => self.run_for(service),
            false => self.run.as_mut().filter(|running| tells_its_own(running, service)),
        }
    }

    /// Whether a self-adoption tells the clients of this service, which is held here.
    pub(crate) fn tells_its_own(&self, service: &ServiceName) -> bool {
        self.run.as_ref().is_some_and(|running| tells_its_own(running, service))
    }

    /// The run of this number, where it is on or was asked for.
    pub(crate) fn running(&mut self, run: RunNumber) -> Option<&mut Running> {
        self.asked.iter_mut().chain(&mut self.run).find(|running| running.number == run)
    }

    /// Services that are being taken over, or are to be.
    pub(crate) fn being_adopted(&self) -> Vec<ServiceName> {
        let runs = self.asked.iter().chain(&self.run);
        runs.flat_map(|running| running.machine.targets().to_vec()).collect()
    }

    /// Looks once more at the owners that are to be fenced: this agent, or its whole server, may have stood still since the run
    /// was asked for, and a server that lives must not be switched off.
    fn may_fence(&mut self, server: &mut Common<O>, services: &[ServiceName]) -> Result<(), String> {
        let Some(authority) = self.asked.as_ref().map(|asked| asked.machine.authority().clone()) else {
            return Ok(());
        };
        for service in services {
            let looked = server.newest_or_lost(service, &authority);
            let (newest, _) = looked.map_err(|error| error.to_string())?;
            let heart = server.heart_of_owner(newest.as_ref()).map_err(|error| error.to_string())?;
            let may = may_fence(service, newest.as_ref(), server.server(), heart, &authority);
            may.map_err(|refusal| refusal.to_string())?;
        }
        Ok(())
    }

    /// Tells an event to the run that was asked for. Nothing of it is durable before it has claimed.
    pub(crate) fn advance_asked(&mut self, server: &mut Common<O>, event: Event) {
        let standing = self.standing(server);
        let Some(asked) = &mut self.asked else { return };
        asked.machine.stands(standing);
        let (number, insists, brings) = (asked.number, asked.insists, asked.waits_for_addresses);
        let targets = asked.machine.targets().to_vec();
        let batch = asked.machine.step(server.now(), event);
        for action in batch.then {
            if let Some(asked) = &mut self.asked {
                asked.machine.begins(server.now(), &action);
            }
            match action {
                Action::CheckFit(strategy) => match self.would_drop_locks_of_others(server, strategy) {
                    Some(why) => self.advance_asked(server, Event::Fit(Err(why))),
                    None => {
                        let work = RunWork::CheckFit { targets: targets.clone(), insists, brings };
                        self.outside.begin_for(number, work);
                    }
                },
                Action::Fence(services) => match self.may_fence(server, &services) {
                    Err(why) => self.advance_asked(server, Event::Fenced(Err(why))),
                    Ok(()) => {
                        let owners = services
                            .iter()
                            .filter_map(|service| Some((service.clone(), server.owner_of(service)?)));
                        let work = RunWork::Fence(owners.collect());
                        self.outside.begin_for(number, work);
                    }
                },
                Action::Claim { services, authority } => {
                    if let Some(claimed) = self.claim_all(server, number, &services, &authority) {
                        self.claim_answered(server, claimed);
                    }
                }
                Action::Over(end) => self.refused(server, end),
                other => tracing::error!(?other, "a run that has claimed nothing can't do this: {other:?}"),
            }
        }
        self.say_phase_asked(server);
    }

    /// The store has answered. Where all needs of the run are met, all further work is done for it alone.
    pub(crate) fn claim_answered(&mut self, server: &mut Common<O>, claimed: Event) {
        let Some(asked) = &mut self.asked else { return };
        let batch = asked.machine.step(server.now(), claimed);
        if let [Action::Over(end)] = batch.then.as_slice() {
            return self.refused(server, end.clone());
        }
        if let Some(running) = self.run.take() {
            tracing::info!(
                run = running.machine.run(),
                "the run {} tells clients of a restart; it makes way for the adoption that was asked for",
                running.machine.run()
            );
            self.outside.stop_telling();
        }
        self.run = self.asked.take();
        if let Some(running) = &mut self.run {
            running.reborn = self.lives.is_reborn();
        }
        self.carry_on(server, batch);
    }

    /// The run can't begin. Duties towards clients stay as they were.
    pub fn refused(&mut self, server: &mut Common<O>, end: End) {
        if let Some(running) = self.asked.take() {
            self.conclude(server, running, end);
        }
    }

    /// Tells the callers that wait for it that it is being checked.
    fn say_phase_asked(&mut self, server: &mut Common<O>) {
        let Some(asked) = &mut self.asked else { return };
        let phase = asked.machine.phase();
        let before = asked.said.replace(phase);
        if before != Some(phase) {
            let now = server.now();
            server.counts_mut().phases.passed(before, &mut asked.in_phase_since, now);
            tracing::info!(run = asked.machine.run(), %phase, "{}: its adoption was asked for, run {}", status::names(asked.machine.targets()), asked.machine.run());
            asked.say_progress(server.now(), server.settings());
        }
    }

    /// Tells the callers that wait for it that it is being checked still.
    pub(crate) fn say_progress_asked(&mut self, server: &Common<O>, now: Moment) {
        if let Some(asked) = &mut self.asked {
            asked.say_progress(now, server.settings());
        }
    }
}

fn tells_its_own(running: &Running, service: &ServiceName) -> bool {
    running.machine.cause() == Cause::OwnRestart && running.machine.has_member(service)
}
