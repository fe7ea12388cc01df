//! Which services this server holds, and what is asked of it.

use std::collections::BTreeMap;

use heirlock_core::claim::{Authority, Standing, goes_on, standing};
use heirlock_core::duty::is_adopted;
use heirlock_core::liveness::silence_to_act_on;
use heirlock_core::state_number::next_unsent;
use heirlock_core::store::Contents;
use heirlock_core::takeover::{Admission, Event, Journal, Order, with_outcome};
use heirlock_core::{Generation, Moment, Outcome, ServiceName};
use heirlock_nsm::StateNumber;

use super::runs::Running;
use super::{Agent, DEAD_AFTER, Held};
use crate::cluster::Word;
use crate::outside::Out;

impl Agent {
    pub(super) fn refresh_holdings(&mut self, out: &mut Out<'_>, now: Moment) {
        self.holdings_known = false;
        for service in out.configured() {
            let refreshed = match self.held.contains_key(&service) {
                true => self.check_claim(out, now, &service),
                false => self.look_for(out, &service),
            };
            if refreshed.is_err() {
                self.failing = true;
                return;
            }
        }
        self.holdings_known = true;
    }

    fn check_claim(&mut self, out: &mut Out<'_>, now: Moment, service: &ServiceName) -> Result<(), String> {
        let Some(ours) = self.held.get(service).map(|held| held.claim.generation) else { return Ok(()) };
        let of_run = self.run.as_ref().is_some_and(|running| running.machine.has_member(service));
        let id = self.id.to_string();
        let run_of = of_run.then_some(id.as_str());
        let newest = out.newest_claim(service)?;
        // The same call of a real store tells it.
        let begun = out.w.store.newest_generation(service, ours);
        let other = match (standing(ours, &out.server().name, newest.as_ref(), begun, run_of, true), newest) {
            (Standing::Whole, _) => return Ok(()),
            (Standing::GivenUp, _) => {
                if !self.releasing.contains(service) {
                    out.say(|| format!("the release of {service}, which had failed, came about"));
                    self.advance(out, now, Event::GivenUp(service.clone()));
                    self.held.remove(service);
                }
                return Ok(());
            }
            (Standing::Overtaken, Some(other)) => other,
            (Standing::Overtaken | Standing::Vanished, _) => {
                out.w.violated(2, format!("generation {ours} of {service} vanished from the store"));
                return Ok(());
            }
        };
        out.say(|| format!("{service} was claimed by {} as {}", other.owner, other.generation));
        self.advance(out, now, Event::Overtaken(service.clone()));
        if other.owner == out.server().name {
            return self.look_for(out, service);
        }
        self.held.remove(service);
        Ok(())
    }

    fn look_for(&mut self, out: &mut Out<'_>, service: &ServiceName) -> Result<(), String> {
        if self.run.as_ref().is_some_and(|running| running.machine.targets().contains(service)) {
            return Ok(());
        }
        let us = out.server().name.clone();
        let claim = out.newest_claim(service)?;
        if let Some(claim) = claim.as_ref().filter(|claim| !claim.is_held_by(&us)) {
            self.is_others(out, service, claim)?;
        }
        let Some(claim) = claim else {
            return if out.is_at_home(service) { self.claim_first(out, service) } else { Ok(()) };
        };
        if !claim.is_held_by(&us) {
            return Ok(());
        }
        let base = out.load_newest(service, claim.generation)?;
        let whole = out.w.store.contents(service, claim.generation).is_some();
        let journal = base.as_ref().and_then(|contents| contents.journal.clone());
        if let Some((contents, journal)) = base.as_ref().zip(journal.clone()).filter(|_| whole) {
            self.held.insert(service.clone(), Held::new(claim, contents, journal, service.is_host()));
            return Ok(());
        }
        let newest = out.w.store.newest_generation(service, claim.generation);
        let goes_on = newest.is_some_and(|generation| goes_on(&claim, generation));
        let own = StateNumber(out.server().state);
        let mut sent: Vec<StateNumber> = base.iter().filter_map(|contents| contents.state).collect();
        sent.push(own);
        let ours = base.as_ref().zip(journal).filter(|_| goes_on);
        if let Some((contents, journal)) = ours {
            let contents = Contents { state: Some(next_unsent(&sent)), ..contents.clone() };
            out.begin(service, claim.generation, contents.clone(), newest)?;
            self.held.insert(service.clone(), Held::new(claim, &contents, journal, service.is_host()));
            return Ok(());
        }
        let records = base.as_ref().map(|contents| contents.records.clone()).unwrap_or_default();
        let (journal, means) = (self.quiet_journal(out), out.means());
        let journal = journal.interrupted(service, &claim, base.is_some(), means, Vec::new());
        let contents = self.begin(out, service, claim.generation, next_unsent(&sent), records, &journal)?;
        self.held.insert(service.clone(), Held::new(claim, &contents, journal, service.is_host()));
        Ok(())
    }

    fn claim_first(&mut self, out: &mut Out<'_>, service: &ServiceName) -> Result<(), String> {
        let claim = self.our_claim(out, Generation::FIRST);
        if out.claim(service, &claim, &Authority::default())? != claim {
            return Ok(());
        }
        let state = StateNumber(out.server().state);
        let journal = self.quiet_journal(out);
        let contents = self.begin(out, service, claim.generation, state, BTreeMap::new(), &journal)?;
        self.held.insert(service.clone(), Held::new(claim, &contents, journal, service.is_host()));
        self.scan_due = None;
        Ok(())
    }

    fn quiet_journal(&self, out: &Out<'_>) -> Journal {
        Journal::quiet(&self.id.to_string(), &out.server().name, out.wall_s())
    }

    pub(super) fn tidy_conveyed(&self, out: &mut Out<'_>) {
        if self.held.values().all(|held| held.journal.phase.is_over()) {
            out.clean_up();
        }
    }

    pub(super) fn look_for_silence(&mut self, out: &mut Out<'_>, now: Moment) {
        if self.run.is_some() || self.asked.is_some() || !self.holdings_known {
            return;
        }
        for service in out.automatic() {
            let too_soon = self.unasked_not_before.get(&service).is_some_and(|at| now < *at);
            if self.held.contains_key(&service) || too_soon {
                continue;
            }
            let Ok(Some(claim)) = out.newest_claim(&service) else { continue };
            let heart = self.hearts.heart_of(&claim.owner, now);
            let Some(for_time) = silence_to_act_on(&claim, &out.server().name, heart) else { continue };
            self.unasked_not_before.insert(service.clone(), now + DEAD_AFTER);
            return self.begin_run(out, now, Order::owner_dead(service, now - for_time));
        }
    }

    pub(super) fn adopt(
        &mut self,
        out: &mut Out<'_>,
        now: Moment,
        service: usize,
        prepare: bool,
        authority: Authority,
    ) {
        let name = out.w.services[service].name.clone();
        if self.releasing.contains(&name) || !self.holdings_known {
            return out.answer(&name, Word::Refused);
        }
        let runs = self.asked.iter().chain(&self.run);
        let being_adopted: Vec<_> = runs.flat_map(|running| running.machine.targets().to_vec()).collect();
        let is_adopted = self.is_adopted_already(&name);
        match Admission::of(&name, &being_adopted, is_adopted, authority.insisted) {
            Admission::Joins => {
                if self.run_for(&name).is_some_and(|running| running.machine.awaits_finish()) {
                    out.answer(&name, Word::Prepared);
                }
                return;
            }
            Admission::Busy => return out.answer(&name, Word::Refused),
            Admission::Adopted => return out.answer(&name, Word::Settled),
            Admission::Begins => {}
        }
        self.begin_run(out, now, Order::asked(name, prepare, authority, None));
    }

    fn is_adopted_already(&self, service: &ServiceName) -> bool {
        let Some(held) = self.held.get(service) else { return false };
        let has_lost = with_outcome(&held.outcomes, Outcome::Lost).next().is_some();
        is_adopted(&held.journal, has_lost, self.lives.running())
    }

    pub(super) fn finish(&mut self, out: &mut Out<'_>, now: Moment, service: usize) {
        let name = out.w.services[service].name.clone();
        if let Some(running) = self.run_for(&name) {
            let number = running.number;
            return self.worked_for(out, now, number, Event::Finish);
        }
        let word = if self.is_adopted_already(&name) { Word::Settled } else { Word::Refused };
        out.answer(&name, word);
    }

    pub(super) fn release(&mut self, out: &mut Out<'_>, service: usize) {
        let name = out.w.services[service].name.clone();
        let hinders = |running: &Running| running.machine.hinders_release(&name, running.begins(&name));
        if self.run.as_ref().is_some_and(hinders) || self.failing || self.releasing.contains(&name) {
            return out.answer(&name, Word::Refused);
        }
        let Some(held) = self.held.get_mut(&name) else { return out.answer(&name, Word::Refused) };
        held.frozen = true;
        self.releasing.insert(name);
        out.take_address_away(service);
    }

    pub(super) fn address_gone(&mut self, out: &mut Out<'_>, now: Moment, service: usize) {
        let name = out.w.services[service].name.clone();
        let given_up = self.give_up(out, now, service, &name);
        self.releasing.remove(&name);
        match given_up {
            Ok(()) => {
                self.held.remove(&name);
                self.advance(out, now, Event::GivenUp(name.clone()));
                out.answer(&name, Word::Released);
            }
            Err(_) => {
                if let Some(held) = self.held.get_mut(&name) {
                    held.frozen = false;
                }
                out.answer(&name, Word::Refused);
            }
        }
    }

    fn give_up(
        &mut self,
        out: &mut Out<'_>,
        now: Moment,
        service: usize,
        name: &ServiceName,
    ) -> Result<(), String> {
        if out.has_address(name) {
            return Err("its address is here again".into());
        }
        self.scan(out, now);
        let held = self.held.get(name).ok_or("not ours any more")?;
        if self.run.as_ref().is_some_and(|running| running.begins(name)) {
            return Err("its next generation is being begun".into());
        }
        let contents = out.load_newest(name, held.claim.generation)?;
        if contents.map(|contents| contents.records).as_ref() != Some(held.ledger.stored()) {
            return Err("the store does not hold what was captured".into());
        }
        out.release(name, held.claim.generation)?;
        out.let_go(service);
        Ok(())
    }
}
