//! A run that was asked for, until it has claimed: whether it can work is checked, and owners are fenced. That takes its
//! time, and may end in a refusal. So it holds nothing up: a self-adoption goes on beside it, or begins, and makes way at
//! the moment in which the claim has succeeded.

use heirlock_core::takeover::{Action, End, Event, Standing};
use heirlock_core::{Moment, ServiceName};

use super::Agent;
use super::outside::Outside;
use super::runs::Running;
use super::work::RunWork;

impl<O: Outside> Agent<O> {
    /// What this server holds and owes now.
    pub(crate) fn standing(&self) -> Standing {
        self.lives.standing(&ServiceName::host(&self.settings.server), self.holdings())
    }

    /// The run that takes this service over or tells its clients, or is to.
    pub(crate) fn run_with(&self, service: &ServiceName) -> Option<&Running> {
        let runs = self.asked.iter().chain(&self.run);
        runs.into_iter().find(|running| running.machine.has_member(service))
    }

    /// The run that takes this service over, or is to; to be looked at.
    pub(crate) fn seen_run_for(&self, service: &ServiceName) -> Option<&Running> {
        let runs = self.asked.iter().chain(&self.run);
        runs.into_iter().find(|running| running.machine.targets().contains(service))
    }

    /// The run that takes this service over, or is to.
    pub(crate) fn run_for(&mut self, service: &ServiceName) -> Option<&mut Running> {
        let runs = self.asked.iter_mut().chain(&mut self.run);
        runs.into_iter().find(|running| running.machine.targets().contains(service))
    }

    /// Services that are being taken over, or are to be.
    pub(crate) fn being_adopted(&self) -> Vec<ServiceName> {
        let runs = self.asked.iter().chain(&self.run);
        runs.flat_map(|running| running.machine.targets().to_vec()).collect()
    }

    /// Tells the run that was asked for what has happened. Nothing of it is durable before it has claimed.
    pub(crate) fn advance_asked(&mut self, event: Event) {
        let standing = self.standing();
        let Some(asked) = &mut self.asked else { return };
        asked.machine.stands(standing);
        let (number, insists, brings) = (asked.number, asked.insists, asked.waits_for_addresses);
        let targets = asked.machine.targets().to_vec();
        let batch = asked.machine.step(self.outside.now(), event);
        for action in batch.then {
            if let Some(asked) = &mut self.asked {
                asked.machine.begins(self.outside.now(), &action);
            }
            match action {
                Action::CheckFit(strategy) => match self.would_drop_locks_of_others(strategy) {
                    Some(why) => self.advance_asked(Event::Fit(Err(why))),
                    None => {
                        let work = RunWork::CheckFit { targets: targets.clone(), insists, brings };
                        self.outside.begin_for(number, work);
                    }
                },
                Action::Fence(services) => {
                    let owners = services
                        .iter()
                        .filter_map(|service| Some((service.clone(), self.owner_of(service)?)));
                    let work = RunWork::Fence(owners.collect());
                    self.outside.begin_for(number, work);
                }
                Action::Claim { services, authority } => {
                    if let Some(claimed) = self.claim_all(number, services, authority) {
                        self.claim_answered(claimed);
                    }
                }
                Action::Over(end) => self.refused(end),
                other => tracing::error!(?other, "a run that has claimed nothing can't do this: {other:?}"),
            }
        }
        self.say_phase_asked();
    }

    /// The store has answered. Where the run has what it needs, what is done from now on is done for it alone.
    pub(crate) fn claim_answered(&mut self, claimed: Event) {
        let Some(asked) = &mut self.asked else { return };
        let batch = asked.machine.step(self.outside.now(), claimed);
        if let [Action::Over(end)] = batch.then.as_slice() {
            return self.refused(end.clone());
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
        self.carry_on(batch);
    }

    /// It can't begin. What is owed to anybody is owed as before.
    pub(crate) fn refused(&mut self, end: End) {
        if let Some(running) = self.asked.take() {
            self.conclude(running, end);
        }
    }

    /// Those who wait for it see that it is being checked.
    fn say_phase_asked(&mut self) {
        let Some(asked) = &mut self.asked else { return };
        let phase = asked.machine.phase();
        if asked.said.replace(phase) != Some(phase) {
            tracing::info!(run = asked.machine.run(), %phase, "{}: its adoption was asked for, run {}", super::status::names(asked.machine.targets()), asked.machine.run());
            asked.say_progress(self.outside.now(), &self.settings);
        }
    }

    /// Those who wait for it see that it is being checked still.
    pub(crate) fn say_progress_asked(&mut self, now: Moment) {
        if let Some(asked) = &mut self.asked {
            asked.say_progress(now, &self.settings);
        }
    }
}

#[cfg(test)]
mod tests {
    use heirlock_core::takeover::Phase;

    use crate::agent::outside::Outside;
    use crate::agent::requests::Adoption;
    use crate::agent::runs::Waiting;
    use crate::agent::testing::{Place, place, place_on_a_network, service};
    use crate::control::{AnswerWhen, Line, Progress};

    /// What the one who asks for an adoption hears until it has claimed.
    fn heard(mut place: Place, prepare: bool) -> Vec<Progress> {
        let (responder, lines) = crate::control::heard();
        let service = service("nfs");
        let adoption = Adoption { service, prepare, fenced: None, insisted: true, before: Vec::new() };
        let waiting = Waiting { responder, until: AnswerWhen::Settled };
        place.agent.adopt(place.agent.outside.now(), adoption, waiting);
        place.drive(Phase::Conveyed);
        let progress = lines.try_iter().filter_map(|line| match line {
            Line::Progress(progress) => Some(progress),
            Line::Done(_) | Line::Failed(_) => None,
        });
        progress.collect()
    }

    #[test]
    fn an_address_that_nothing_here_brings_is_said_before_the_run_waits_for_it() {
        let heard_of = heard(place_on_a_network(), false);
        let first = heard_of.iter().find(|progress| !progress.told.is_empty()).unwrap();
        assert_eq!(first.phase, Phase::Intent, "before anything is claimed");
        assert!(first.told[0].starts_with("nfs: 192.0.2.10 is not on this server"), "{first:?}");
        assert!(
            first.told[0].contains("within 15 s"),
            "20 s of grace, 5 s of which are kept free: {first:?}"
        );
        let is_quiet = |heard: Vec<Progress>| heard.iter().all(|progress| progress.told.is_empty());
        assert!(is_quiet(heard(place_on_a_network(), true)), "--prepare waits for no address");
        assert!(is_quiet(heard(place(), false)), "it is here");
    }
}
