//! A run that was asked for, until it has claimed; a self-adoption goes on beside it.

use std::collections::BTreeSet;

use heirlock_core::takeover::{Action, End, Event, Standing};
use heirlock_core::{Moment, ServiceName};

use super::Agent;
use super::runs::Running;
use crate::outside::Out;

impl Agent {
    pub(super) fn standing(&self, out: &Out<'_>) -> Standing {
        self.lives.standing(&ServiceName::host(&out.server().name), self.holdings())
    }

    pub(super) fn run_for(&self, service: &ServiceName) -> Option<&Running> {
        let runs = self.asked.iter().chain(&self.run);
        runs.into_iter().find(|running| running.machine.targets().contains(service))
    }

    pub(super) fn advance_asked(&mut self, out: &mut Out<'_>, now: Moment, event: Event) {
        let standing = self.standing(out);
        let Some(asked) = &mut self.asked else { return };
        asked.machine.stands(standing);
        let (number, before) = (asked.number, asked.machine.phase());
        let told = crate::check::event_word(&event);
        let batch = asked.machine.step(now, event);
        let (run, after) = (asked.machine.run().to_owned(), asked.machine.phase());
        out.say(|| format!("run {run}: {before} --{told}--> {after}"));
        for action in batch.then {
            if let Some(asked) = &mut self.asked {
                asked.machine.begins(now, &action);
            }
            match action {
                Action::CheckFit(strategy) => match self.would_drop_locks_of_others(out, strategy) {
                    Some(why) => self.advance_asked(out, now, Event::Fit(Err(why))),
                    None => out.later(20, number, Event::Fit(Ok(()))),
                },
                Action::Fence(services) => out.fence(number, &services),
                Action::Claim { services, authority } => {
                    let claimed = self.claim_all(out, now, services, &authority);
                    self.claim_answered(out, now, claimed);
                }
                Action::Over(end) => self.refused(out, now, &end),
                other => out.w.violated(3, format!("{other:?} before anything is claimed")),
            }
        }
    }

    pub(super) fn tick_asked(&mut self, out: &mut Out<'_>, now: Moment) {
        if self.asked.as_ref().is_some_and(|asked| asked.machine.is_due(now)) {
            self.advance_asked(out, now, Event::Tick { present: BTreeSet::new(), looked_at: None });
        }
    }

    fn claim_answered(&mut self, out: &mut Out<'_>, now: Moment, claimed: Event) {
        let Some(asked) = &mut self.asked else { return };
        let batch = asked.machine.step(now, claimed);
        if let [Action::Over(end)] = batch.then.as_slice() {
            return self.refused(out, now, &end.clone());
        }
        if self.run.take().is_some() {
            out.say(|| "a self-adoption makes way".into());
            self.tellings.iter_mut().for_each(|telling| *telling = None);
        }
        self.run = self.asked.take();
        if let Some(running) = &mut self.run {
            running.reborn = self.lives.is_reborn();
        }
        self.carry_on(out, now, batch);
    }

    fn refused(&mut self, out: &mut Out<'_>, now: Moment, end: &End) {
        if let Some(running) = self.asked.take() {
            self.conclude(out, now, &running, end);
        }
    }
}
