//! How a run claims: `heirlock_core::claim` decides whether it may, and the contents that the claim brings are read here.

use heirlock_core::claim::{Authority, Claim, ClaimRefusal, check_first, next_generation};
use heirlock_core::store::{ClaimAnswer, StoreError};
use heirlock_core::takeover::{Action, Authorities, Base, Claimed, Claiming, Event, HeldBefore, Part};
use heirlock_core::{Generation, ServiceName};
use heirlock_nsm::StateNumber;

use super::Instance;
use crate::agent::attempts::{Attempt, Attempts, Patience};
use crate::agent::common::Common;
use crate::agent::outside::Outside;
use crate::agent::put_off::Later;
use crate::agent::work::RunNumber;
use crate::limits;

/// Why a service was not claimed.
enum NotClaimed {
    /// The run may not claim it, or another server was faster.
    Refused(String),
    /// It is not known: a claim may have been made all the same.
    StoreFails(StoreError),
    /// It is claimed, and the contents that the claim brings can't be read.
    Unread(StoreError),
}

impl From<StoreError> for NotClaimed {
    fn from(error: StoreError) -> Self {
        Self::StoreFails(error)
    }
}

impl<O: Outside> Instance<O> {
    /// Claims for the run of this number. Where a call of the store fails or takes its time the claim is put off, and nothing is
    /// the answer. The end of a call is waited for as long as that takes. A store that answers, and fails, is asked again until
    /// [`limits::STORE_ANSWERS_TIME_MAX`] is over; then the claim is refused.
    pub(crate) fn claim_all(
        &mut self,
        server: &mut Common<O>,
        run: RunNumber,
        services: &[(ServiceName, Part)],
        authority: &Authorities,
    ) -> Option<Event> {
        let now = server.now();
        let running = self.running(run)?;
        let (mut attempts, until) = (std::mem::take(&mut running.attempts), running.claim_until);
        let spares_own = running.machine.spares_own();
        let patience = if until.is_some_and(|until| now >= until) { Patience::Over } else { Patience::Left };
        let claimed = self.try_to_claim(server, services, spares_own, authority, &mut attempts, patience);
        let until = until.unwrap_or_else(|| server.patience_with_the_store());
        let waits_for = claimed.as_ref().err().map(|error| {
            let has_end = !error.is_late();
            (error.to_string(), has_end.then_some(until))
        });
        let answer = match claimed {
            Ok(event) => Some(event),
            Err(error) => {
                server.fails(server.now(), &error);
                let may_be_made = error.is_late() || may_be_made(server, &attempts);
                let again = (!error.is_late()).then(|| server.now() + limits::STORE_RETRY);
                self.put_off(Later::Claim { run, may_be_made, again });
                None
            }
        };
        if let Some(running) = self.running(run) {
            running.attempts = attempts;
            running.claim_until = waits_for.is_some().then_some(until);
            running.claim_waits_for = waits_for;
            running.say_progress(now, server.settings());
        }
        answer
    }

    /// The store answers again, or is asked again, for a run that waits to claim.
    pub(crate) fn go_on_claiming(&mut self, server: &mut Common<O>, run: RunNumber) {
        self.prepares_to_claim(server, run);
        let Some(running) = self.running(run) else { return };
        let Action::Claim { services, authority } = running.machine.claim() else { return };
        let Some(claimed) = self.claim_all(server, run, &services, &authority) else { return };
        match self.asked_for(run).is_some() {
            true => self.claim_answered(server, run, claimed),
            false => self.worked_for(server, run, claimed),
        }
    }

    /// Claims, of which some may have come about already. `spares_own`: see [`Claiming::sparing_own`].
    ///
    /// # Errors
    /// Where the store takes its time, or fails and there is patience left: a claim may have been made all the same.
    pub fn try_to_claim(
        &mut self,
        server: &mut Common<O>,
        services: &[(ServiceName, Part)],
        spares_own: bool,
        authority: &Authorities,
        attempts: &mut Attempts,
        patience: Patience,
    ) -> Result<Event, StoreError> {
        // Records that were captured until this moment belong into the generation that is left.
        self.scan(server, server.now());
        let is_waited_for = |error: &StoreError| match patience {
            Patience::Left => error.may_pass(),
            Patience::Over => error.is_late(),
        };
        let mut claiming = Claiming::new(services.to_vec()).sparing_own(spares_own);
        let mut waits_for = None;
        // What can't get better by waiting is refused at once, whatever else fails.
        let nothing = claiming.look_ahead(|service, part| {
            match self.look_ahead(server, service, part, authority.of(service)) {
                Err(error) if is_waited_for(&error) => {
                    waits_for.get_or_insert(error);
                    Ok(())
                }
                looked => looked.map_err(|error| error.to_string()),
            }
        });
        if let Some(nothing) = nothing {
            return Ok(nothing);
        }
        if let Some(error) = waits_for {
            return Err(error);
        }
        while let Some(service) = claiming.take() {
            match self.claim(server, &service, authority.of(&service), attempts) {
                Ok(claimed) => claiming.won(claimed),
                Err(NotClaimed::Refused(why)) => {
                    // The agent looks up again which services it holds, before a caller asks another time.
                    server.beat_at(server.now());
                    self.looks_whose_it_is(server, &service);
                    claiming.refused(service, why);
                }
                Err(NotClaimed::StoreFails(error) | NotClaimed::Unread(error)) if is_waited_for(&error) => {
                    return Err(error);
                }
                Err(NotClaimed::StoreFails(error)) => {
                    // Else a recovery that is owed would begin the next one at once.
                    server.fails(server.now(), &error);
                    claiming.refused(service, error.to_string());
                }
                Err(NotClaimed::Unread(error)) => {
                    server.fails(server.now(), &error);
                    claiming.unread(service, error.to_string());
                }
            }
        }
        Ok(claiming.over())
    }

    /// Looks for the contents of the store that the claim of a service needs.
    fn look_ahead(
        &mut self,
        server: &mut Common<O>,
        service: &ServiceName,
        part: Part,
        authority: &Authority,
    ) -> Result<(), StoreError> {
        let looked = server.look_for_base(service, authority);
        if let Err(error) = &looked
            && (part == Part::Own || !error.is_of_one_entry())
        {
            // Else a recovery that is owed to our own clients would begin the next one at once.
            server.fails(server.now(), &error);
        }
        looked
    }

    fn claim(
        &mut self,
        server: &mut Common<O>,
        service: &ServiceName,
        authority: &Authority,
        attempts: &mut Attempts,
    ) -> Result<Claimed, NotClaimed> {
        let (newest, lost) = server.newest_or_lost(service, authority)?;
        if let Some(attempt) = attempts.get(service).filter(|attempt| attempt.came_about(newest.as_ref())) {
            tracing::info!(%service, generation = %attempt.claim.generation, "{service}: claimed as generation {}, though the store did not say so in time", attempt.claim.generation);
            return self.brought_by(server, service, attempt).map_err(NotClaimed::Unread);
        }
        let home = server.settings().service(service).and_then(|configured| configured.home.as_ref());
        let us = server.server();
        check_first(service, newest.as_ref(), us, home, authority)
            .map_err(|refusal| NotClaimed::Refused(refusal.to_string()))?;
        let known = server.memory().known(service);
        let begun = server.store().newest_generation(service, Generation(u64::MAX))?;
        server.check_age(service, begun).map_err(|error| NotClaimed::Refused(error.to_string()))?;
        let heart = server.heart_of_owner(newest.as_ref())?;
        let generation = next_generation(service, newest.as_ref(), server.server(), heart, authority)
            .map_err(|refusal| NotClaimed::Refused(refusal.to_string()))?;
        let generation = lost.as_ref().map_or(generation, |lost| generation.max(lost.generation.next()));
        let generation = known.above(generation, begun);
        let claim =
            Claim::new(generation, server.server(), server.id(), server.wall_s()).following(newest.as_ref());
        let attempt = Attempt { claim, newest, lost };
        let claimed = match server.store().claim(service, &attempt.claim) {
            Ok(ClaimAnswer::Won) => {
                tracing::info!(%service, %generation, "{service}: claimed as generation {generation}");
                self.brought_by(server, service, &attempt).map_err(NotClaimed::Unread)
            }
            Ok(ClaimAnswer::Taken(Claim { owner, generation, .. })) => {
                let overtaken = ClaimRefusal::Overtaken { service: service.clone(), owner, generation };
                return Err(NotClaimed::Refused(overtaken.to_string()));
            }
            Err(error) => Err(NotClaimed::StoreFails(error)),
        };
        attempts.insert(service.clone(), attempt);
        claimed
    }

    /// The contents that a claim brings, once it was made.
    fn brought_by(
        &self,
        server: &Common<O>,
        service: &ServiceName,
        attempt: &Attempt,
    ) -> Result<Claimed, StoreError> {
        let Attempt { claim, newest, lost } = attempt;
        let (newest, lost) = (newest.as_ref(), lost.as_ref());
        let known = server.memory().known(service);
        let mut base =
            Base { sent: self.own_state().into_iter().chain(known.sent()).collect(), ..Base::default() };
        // Loaded after the claim: the owner before us adds nothing any more.
        let before = server.store().newest_generation(service, claim.generation)?;
        if let Some(before) = before {
            let contents = server.store().load(service, before)?;
            let mended = self.mend(server, service, before, contents)?;
            base.sent.extend(mended.sent);
            (base.records, base.troubles) = (mended.contents.records, mended.troubles);
        }
        let is_begun = newest.is_none_or(|newest| Some(newest.generation) == before);
        let is_anothers = newest.is_some_and(|newest| newest.owner != *server.server());
        if lost.is_some() || (is_anothers && !is_begun) {
            // The owner before us has drawn a number that is not in the store yet, or can't be read. It may still send it.
            base.sent.extend(self.beyond_all(server, service)?);
        }
        if let Some(lost) = lost {
            base.troubles.push(server.claim_trouble(service, lost.generation, lost.why.clone()));
        } else if let Some((newest, why)) = newest.and_then(|c| Some((c, c.unreadable.clone()?))) {
            base.troubles.push(server.claim_trouble(service, newest.generation, why));
        }
        if let Some(claim) = newest {
            let of_owner = server.pulse().servers().get(&claim.owner);
            base.sent.extend(of_owner.into_iter().flat_map(|report| report.states()).map(StateNumber));
        }
        let held = self.held.get(service).map(|held| {
            let told = held.told_in(self.lives.current());
            HeldBefore { records: held.ledger.stored(), told, is_own: lost.is_some() || !claim.adopts }
        });
        Ok(Claimed::new(service.clone(), claim, base, held))
    }
}

/// Whether one of these claims is in the store, or may be: the call that was to make it has failed, and is over.
fn may_be_made<O: Outside>(server: &Common<O>, attempts: &Attempts) -> bool {
    attempts.iter().any(|(service, attempt)| {
        server.store().newest_claim(service).map_or(true, |newest| attempt.came_about(newest.as_ref()))
    })
}
