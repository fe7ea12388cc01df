//! How a run claims: `heirlock_core::claim` decides whether it may, and the contents that the claim brings are read here.

use heirlock_core::claim::{Authority, Claim, ClaimRefusal, check_first, next_generation};
use heirlock_core::store::{ClaimAnswer, StoreError};
use heirlock_core::takeover::{Base, Claimed, Claiming, Event, HeldBefore, Part};
use heirlock_core::{Generation, ServiceName};
use heirlock_nsm::StateNumber;

use super::Instance;
use crate::agent::attempts::{Attempt, Attempts};
use crate::agent::common::Common;
use crate::agent::outside::Outside;
use crate::agent::put_off::Later;
use crate::agent::work::RunNumber;

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
    /// Claims for the run of this number. Where the store takes its time it is put off, and nothing is the answer.
    pub(crate) fn claim_all(
        &mut self,
        server: &mut Common<O>,
        run: RunNumber,
        services: Vec<(ServiceName, Part)>,
        authority: Authority,
    ) -> Option<Event> {
        let running = self.running(run)?;
        let (mut attempts, spares_own) =
            (std::mem::take(&mut running.attempts), running.machine.spares_own());
        let claimed = self.try_to_claim(server, &services, spares_own, &authority, &mut attempts);
        let waits_for = claimed.as_ref().err().map(ToString::to_string);
        if let Some(running) = self.running(run) {
            (running.attempts, running.claim_waits_for) = (attempts, waits_for);
        }
        match claimed {
            Ok(event) => Some(event),
            Err(error) => {
                server.fails(server.now(), &error);
                self.put_off(Later::Claim(run, services, authority));
                None
            }
        }
    }

    /// The store answers again, for a run that waits to claim.
    pub(crate) fn go_on_claiming(
        &mut self,
        server: &mut Common<O>,
        run: RunNumber,
        services: Vec<(ServiceName, Part)>,
        authority: Authority,
    ) {
        let Some(claimed) = self.claim_all(server, run, services, authority) else { return };
        match self.asked.as_ref().is_some_and(|asked| asked.number == run) {
            true => self.claim_answered(server, claimed),
            false => self.worked_for(server, run, claimed),
        }
    }

    /// Claims, of which some may have come about already. `spares_own`: see [`Claiming::sparing_own`].
    ///
    /// # Errors
    /// Where the store takes its time: a claim may have been made all the same.
    pub fn try_to_claim(
        &mut self,
        server: &mut Common<O>,
        services: &[(ServiceName, Part)],
        spares_own: bool,
        authority: &Authority,
        attempts: &mut Attempts,
    ) -> Result<Event, StoreError> {
        // Records that were captured until this moment belong into the generation that is left.
        self.scan(server, server.now());
        let mut claiming = Claiming::new(services.to_vec()).sparing_own(spares_own);
        let mut takes_its_time = None;
        let nothing = claiming.look_ahead(|service, part| {
            let looked = self.look_ahead(server, service, part, authority);
            looked.map_err(|error| {
                let why = error.to_string();
                takes_its_time.get_or_insert(error);
                why
            })
        });
        if let Some(error) = takes_its_time.filter(StoreError::is_late) {
            return Err(error);
        }
        if let Some(nothing) = nothing {
            return Ok(nothing);
        }
        while let Some(service) = claiming.take() {
            match self.claim(server, &service, authority, attempts) {
                Ok(claimed) => claiming.won(claimed),
                Err(NotClaimed::Refused(why)) => {
                    // The agent looks up again which services it holds, before a caller asks another time.
                    server.beat_at(server.now());
                    claiming.refused(service, why);
                }
                Err(NotClaimed::StoreFails(error) | NotClaimed::Unread(error)) if error.is_late() => {
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
