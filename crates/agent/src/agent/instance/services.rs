//! Which services this server holds, and how it comes to hold them or to lose them without a run.

use heirlock_core::claim::{self, Claim, Standing, standing};
use heirlock_core::ledger::learn_from_record;
use heirlock_core::planted::{Bug, planted};
use heirlock_core::store::{Asked, Change, Contents, DamagedPart, Place, Seen, StoreError, StoreErrorKind};
use heirlock_core::takeover::{Event, Journal, with_outcome};
use heirlock_core::{Generation, Moment, Outcome, RecordKey, ServiceName};
use heirlock_nsm::StateNumber;

use super::Instance;
use super::mend::{Mended, UNREADABLE_ENTRY};
use crate::agent::common::Common;
use crate::agent::holdings::{self, Found, Held};
use crate::agent::outside::Outside;
use crate::config::InstanceNumber;
use crate::limits::CLAIMS_AGE_MAX;
use crate::words::counted;

impl<O: Outside> Instance<O> {
    /// Compares what is held with what the store says, service by service.
    pub fn refresh_holdings(&mut self, server: &mut Common<O>, now: Moment) {
        self.refresh(server, now, &[]);
    }

    /// The services whose claims are looked at with each heartbeat: those that are configured, and this server's own, which the
    /// first lock manager serves.
    pub(crate) fn services_looked_at<'a>(
        &self,
        server: &'a Common<O>,
    ) -> impl Iterator<Item = &'a ServiceName> + use<'a, O> {
        let is_first = self.number == InstanceNumber::FIRST;
        let own = is_first.then(|| server.own_service());
        self.services(server).map(|service| &service.name).chain(own)
    }

    /// What the store is asked for them.
    pub(crate) fn looks_at(&self, server: &Common<O>) -> impl Iterator<Item = Asked> {
        let held = |service: &ServiceName| self.held.get(service).map(|held| held.claim.generation);
        let asked = move |service: &ServiceName| Asked { service: service.clone(), held: held(service) };
        self.services_looked_at(server).map(asked)
    }

    /// The same by a look that was made beside the loop. Where that goes on still, the one before holds good for a while.
    pub(crate) fn refresh_by(&mut self, server: &mut Common<O>, now: Moment, seen: Option<&[Seen]>) {
        if let Some(seen) = seen {
            return self.refresh(server, now, seen);
        }
        if self.put_off.may_have_come_about() {
            self.holdings_known = false;
        } else if self.claims_seen_at.is_none_or(|at| now.since(at) > CLAIMS_AGE_MAX) {
            self.holdings_known = false;
            let place = server.store().place(Place::Store);
            let why = format!(
                "{place}: a look at the claims takes longer than {} s; look at its disk, volume or network (dmesg)",
                CLAIMS_AGE_MAX.as_secs()
            );
            server.fails(now, &why);
        }
    }

    /// A service of which this look shows nothing new is not asked for again: each call of a slow store takes its time.
    fn refresh(&mut self, server: &mut Common<O>, now: Moment, seen: &[Seen]) {
        self.holdings_known = false;
        if self.put_off.may_have_come_about() {
            return; // what that has done is its own to find
        }
        for service in self.services_looked_at(server).cloned().collect::<Vec<_>>() {
            let shown = seen.iter().find(|seen| seen.service == service);
            let refreshed = match self.held.contains_key(&service) {
                _ if shown.is_some_and(|seen| self.is_as_before(server, seen)) => Ok(()),
                true => self.check_claim(server, &service),
                false => self.look_for(server, &service),
            };
            match refreshed {
                Ok(()) => {
                    self.unread.remove(&service);
                    self.unreadable.remove(&service);
                    server.acquaintance_mut().found_again(&service);
                }
                // A loss of one service's entries says nothing of the other services.
                Err(error) if *error.kind() == StoreErrorKind::Older => {
                    server.acquaintance_mut().misses(&service, &error);
                }
                // It says nothing of the other services, which are looked after all the same.
                Err(error) if error.is_of_one_entry() => {
                    let why = error.to_string();
                    if self.unreadable.get(&service) != Some(&why) {
                        tracing::error!(%service, why, "{service}: the store can't say whose it is: {why}");
                    }
                    self.unreadable.insert(service, why);
                }
                Err(error) => {
                    server.store_failed(now, &error);
                    return;
                }
            }
        }
        (self.holdings_known, self.claims_seen_at) = (true, Some(now));
        self.tidy_conveyed(server);
    }

    /// A service that clients may use here, and of which no look has shown yet whether this server holds it. A service that the
    /// store can't tell of for a fault of its own concerns no client where its address is elsewhere.
    pub(crate) fn unread_service(&self, server: &Common<O>) -> Option<&ServiceName> {
        let is_damaged = |service: &ServiceName| {
            self.unreadable.contains_key(service) || server.acquaintance().lacks(service)
        };
        let is_used = |service: &&ServiceName| {
            service.is_host() || !is_damaged(service) || self.has_address_of(server, service)
        };
        self.unread.iter().find(is_used)
    }

    /// Whether a look shows a service as this server knows it. Whatever else it shows is looked up step by step.
    fn is_as_before(&mut self, server: &mut Common<O>, seen: &Seen) -> bool {
        let (Ok(newest), Ok(begun)) = (&seen.newest, &seen.begun) else { return false };
        let (service, us) = (&seen.service, server.server());
        let is_readable = newest.as_ref().is_none_or(|claim| claim.unreadable.is_none());
        let known = server.memory().known(service);
        if let Some(held) = self.held.get(service) {
            let run_of = self.run_that_has(server, service);
            let was_here = known.expected.is_some();
            let stands = standing(held.claim.generation, us, newest.as_ref(), *begun, run_of, was_here);
            return is_readable && stands == Standing::Whole;
        }
        if self.run.as_ref().is_some_and(|running| running.machine.targets().contains(service)) {
            return false; // it is being taken over right now
        }
        let Some(claim) = newest else {
            return !self.is_at_home(server, service) && server.check_age(service, None).is_ok();
        };
        !claim.is_held_by(us)
            && is_readable
            && known.expected == Some(claim.generation)
            && self.others.get(service) == Some(claim)
            && server.check_age(service, *begun).is_ok()
            && self.is_others(server, service, claim).is_ok()
    }

    /// This agent, where its run has this service among those that it takes over.
    fn run_that_has<'a>(&self, server: &'a Common<O>, service: &ServiceName) -> Option<&'a str> {
        let of_run = self.run.as_ref().is_some_and(|running| running.machine.has_member(service));
        of_run.then_some(server.id())
    }

    /// Whether a service that we hold is still ours, and the store still has it.
    fn check_claim(&mut self, server: &mut Common<O>, service: &ServiceName) -> Result<(), StoreError> {
        let Some(held) = self.held.get(service) else { return Ok(()) };
        let generation = held.claim.generation;
        let newest = self.newest_but_for_ours(server, service, generation)?;
        let Some(held) = self.held.get(service) else { return Ok(()) };
        let newest = match newest {
            Some(newest) => newest,
            None => {
                server.store().restore_claim(service, &held.claim)?;
                say_restored(service, generation);
                Some(held.claim.clone())
            }
        };
        let begun = server.store().newest_generation(service, generation)?;
        let run_of = self.run_that_has(server, service);
        let was_here = server.memory().known(service).expected.is_some();
        let us = server.server();
        let stands = standing(generation, us, newest.as_ref(), begun, run_of, was_here);
        let other = match (stands, newest) {
            (Standing::Whole, _) => return Ok(()),
            (Standing::GivenUp, Some(ours)) => {
                self.was_given_up(server, service, ours);
                return Ok(());
            }
            (Standing::Overtaken, Some(other)) => other,
            (Standing::Vanished | Standing::Overtaken | Standing::GivenUp, _) => {
                return self.rebuild(server, service);
            }
        };
        self.left_by_service(server, service, Event::Overtaken(service.clone()));
        if other.owner == *server.server() {
            // By a run that ended before it was begun: held until what it left is, so that nothing is done without it.
            return self.look_for(server, service);
        }
        tracing::warn!(%service, owner = %other.owner, generation = %other.generation, "{service}: {} has claimed it as generation {}; it is not this server's any more", other.owner, other.generation);
        self.held.remove(service);
        self.others.insert(service.clone(), other);
        Ok(())
    }

    /// The claim of a service was refused that this server holds: where another one has it by now, it is no reason to leave the others
    /// without theirs.
    pub(super) fn looks_whose_it_is(&mut self, server: &mut Common<O>, service: &ServiceName) {
        if let Err(error) = self.check_claim(server, service) {
            tracing::debug!(%service, %error, "{service}: whose it is could not be looked up: {error}");
        }
    }

    /// The store has taken a release that this server was told had failed. All other servers go by the store.
    fn was_given_up(&mut self, server: &mut Common<O>, service: &ServiceName, claim: Claim) {
        if self.is_releasing(service) {
            return; // which finds it
        }
        tracing::error!(%service, generation = %claim.generation, "{service}: its release, which had failed, came about all the same: no server has it; adopt it where it is to be served");
        self.left_by_service(server, service, Event::GivenUp(service.clone()));
        self.held.remove(service);
        self.others.insert(service.clone(), claim);
    }

    /// The newest claim of a service that is held as this generation; nothing where that is our own and can't be read.
    fn newest_but_for_ours(
        &self,
        server: &Common<O>,
        service: &ServiceName,
        held: Generation,
    ) -> Result<Option<Option<Claim>>, StoreError> {
        match server.store().newest_claim(service) {
            Ok(Some(told)) if told.unreadable.is_some() && told.generation == held => {
                Ok((told.owner != *server.server()).then_some(Some(told)))
            }
            // This server knows the text of its claim.
            Err(error) if error.lost_claim() == Some(held) => Ok(None),
            newest => newest.map(Some),
        }
    }

    /// Takes up a service that is ours, and claims one that no server ever claimed and that is at home here.
    fn look_for(&mut self, server: &mut Common<O>, service: &ServiceName) -> Result<(), StoreError> {
        if self.run.as_ref().is_some_and(|running| running.machine.targets().contains(service)) {
            return Ok(()); // it is being taken over right now
        }
        match holdings::find(server.store(), service, server.server())? {
            Found::NotOurs(claim) => self.look_at_others(server, service, claim),
            Found::Unclaimed => {
                server.check_age(service, None)?;
                if self.is_at_home(server, service) { self.claim_first(server, service) } else { Ok(()) }
            }
            Found::Ours(claim, contents, journal) => {
                server.check_age(service, Some(claim.generation))?;
                let claim = self.restore_own(server, service, claim)?;
                let contents = Box::new(self.with_number(server, service, &claim, *contents)?);
                say_damaged(server.outside(), service, &contents);
                tracing::info!(%service, generation = %claim.generation, records = contents.records.len(), "{service}: held by this server as generation {}, with {} on record", claim.generation, counted(contents.records.len(), "client"));
                self.hold(server, service, claim, *contents, *journal);
                Ok(())
            }
            Found::Interrupted(claim, base) => {
                server.check_age(service, base.as_ref().map(|(generation, _)| *generation))?;
                let goes_on =
                    base.as_ref().is_some_and(|(generation, _)| claim::goes_on(&claim, *generation));
                let (left, base) =
                    base.map(|(left, base)| (left, *base)).unwrap_or((claim.generation, Contents::default()));
                let base = self.mend(server, service, left, base)?;
                self.finish_interrupted_claim(server, service, claim, base, goes_on)
            }
        }
    }

    /// Our own claim, which is written anew where it can't be read.
    fn restore_own(
        &self,
        server: &Common<O>,
        service: &ServiceName,
        claim: Claim,
    ) -> Result<Claim, StoreError> {
        if claim.unreadable.is_none() {
            return Ok(claim);
        }
        let claim = Claim { unreadable: None, ..claim };
        server.store().restore_claim(service, &claim)?;
        say_restored(service, claim.generation);
        Ok(claim)
    }

    /// A generation of ours with a number: the one that this server remembers, or one beyond all that may have been sent (I5),
    /// where it can't be read.
    fn with_number(
        &self,
        server: &Common<O>,
        service: &ServiceName,
        claim: &Claim,
        mut contents: Contents,
    ) -> Result<Contents, StoreError> {
        let generation = claim.generation;
        if contents.state.is_some() {
            return Ok(contents);
        }
        let known = server.memory().known(service);
        let state = match known.sent().filter(|_| known.expected == Some(generation)) {
            Some(state) => state,
            None => heirlock_core::state_number::next_unsent(
                &self.beyond_all(server, service)?.into_iter().collect::<Vec<_>>(),
            ),
        };
        tracing::error!(%service, %generation, %state, "{service}: the number of generation {generation} in the store can't be read; it is {state} from now on");
        server.store().commit(service, claim, &[Change::PutState(state)])?;
        contents.damaged.retain(|damaged| damaged.part != DamagedPart::State);
        contents.state = Some(state);
        Ok(contents)
    }

    /// Notes the claim of a service that another server holds, or none: its generation tells an older copy of the store from this
    /// one.
    fn look_at_others(
        &mut self,
        server: &mut Common<O>,
        service: &ServiceName,
        claim: Claim,
    ) -> Result<(), StoreError> {
        let known = server.memory().known(service);
        // Also where the claim is the same: the generation that was begun under it may have vanished.
        let begun = server.store().newest_generation(service, claim.generation)?;
        server.check_age(service, begun)?;
        if known.expected != Some(claim.generation) || self.others.get(service) != Some(&claim) {
            let number = match begun {
                Some(begun) => server.store().number_of(service, begun)?,
                None => None,
            };
            server.saw_generation(service, claim.generation, begun, number);
        }
        self.is_others(server, service, &claim)?;
        self.others.insert(service.clone(), claim);
        Ok(())
    }

    /// Claimed by an earlier run of this agent that ended before the generation was begun: it is begun now, and the run
    /// is done anew.
    fn finish_interrupted_claim(
        &mut self,
        server: &mut Common<O>,
        service: &ServiceName,
        claim: Claim,
        base: Mended,
        goes_on: bool,
    ) -> Result<(), StoreError> {
        tracing::warn!(%service, generation = %claim.generation, "{service}: an adoption was interrupted right after it claimed generation {}; it is begun again", claim.generation);
        let Mended { contents: base, sent, troubles } = base;
        let known = server.memory().known(service).sent();
        let sent: Vec<StateNumber> = sent.into_iter().chain(self.own_state()).chain(known).collect();
        let state = heirlock_core::state_number::next_unsent(&sent);
        if let Some(journal) = base.journal.clone().filter(|_| goes_on) {
            // The claim changed nothing: the duties towards its clients are the same as before, and their outcomes stay
            // true.
            let contents = Contents { state: Some(state), ..base };
            server.store().begin_generation(service, claim.generation, &contents)?;
            self.hold(server, service, claim, contents, journal);
            return Ok(());
        }
        // A generation whose number can't be read was one all the same.
        let had_one = base.state.is_some() || !base.records.is_empty() || !troubles.is_empty();
        let journal = Journal::quiet(server.id(), server.server(), server.wall_s());
        let journal = journal.interrupted(service, &claim, had_one, self.means(), troubles);
        let contents =
            holdings::begin(server.store(), service, claim.generation, state, base.records, &journal)?;
        self.hold(server, service, claim, contents, journal);
        Ok(())
    }

    /// From now on this service is held under this claim.
    pub fn hold(
        &mut self,
        server: &mut Common<O>,
        service: &ServiceName,
        claim: Claim,
        mut contents: Contents,
        journal: Journal,
    ) {
        // The services of one lock manager keep the same records.
        if let Some(known) =
            self.held.values().map(|held| held.ledger.stored()).max_by_key(|known| known.len())
        {
            contents.records.share_with(known);
        }
        let addresses = self.capture.addresses_mut();
        for (key, record) in &contents.records {
            learn_from_record(addresses, key.client(), record);
        }
        let (keeps_peers, delay) = (service.is_host(), self.settings.capture.tombstone_delay);
        let generation = claim.generation;
        let mut held = Held::new(claim, contents, journal, keeps_peers, delay);
        // A recovery begins the next generation while the service is being given away.
        held.frozen = self.held.get(service).is_some_and(|before| before.frozen);
        server.saw_generation(service, generation, Some(generation), Some(held.state));
        self.release_goes_on_in(service, generation);
        self.others.remove(service);
        self.unread.remove(service);
        self.held.insert(service.clone(), held);
        // An earlier count, of the time when it was held before, says nothing of this.
        self.durable_are_others();
    }

    fn is_at_home(&self, server: &Common<O>, service: &ServiceName) -> bool {
        let host = service == server.own_service();
        let home = server.settings().service(service).and_then(|s| s.home.as_ref());
        host || home == Some(server.server())
    }

    fn claim_first(&mut self, server: &mut Common<O>, service: &ServiceName) -> Result<(), StoreError> {
        // In a store that was accepted in the place of another one, generations and numbers go on from there.
        let known = server.memory().known(service);
        let generation = known.above(Generation::FIRST, None);
        let claim = Claim::new(generation, server.server(), server.id(), server.wall_s());
        let state = self.own_state().max(known.sent()).unwrap_or(StateNumber(1));
        let journal = Journal::quiet(server.id(), server.server(), server.wall_s());
        let Some(contents) = holdings::claim_first(server.store(), service, &claim, state, &journal)? else {
            return Ok(());
        };
        tracing::info!(%service, "{service}: claimed by this server for the first time, since it is at home here");
        self.hold(server, service, claim, contents, journal);
        self.capture.begin_anew();
        Ok(())
    }

    /// Clients that could not be told at an adoption and did not come back for `forget-after` are forgotten.
    pub(crate) fn forget_the_unreachable(&mut self, server: &mut Common<O>, now: Moment) {
        let (forget_after, wall_s) = (self.settings.capture.forget_after, server.wall_s());
        let wall_clock = server.wall_clock();
        // In another life than the one in which they were not told they are owed word once more.
        let has_seen = self.capture.sees_who_left(now);
        let life = self.life_that_deletes(server).filter(|_| has_seen);
        let due = |held: &Held| {
            // From when its outcomes were known, and not from when the run began that may have taken long.
            let age = wall_clock.age(now, wall_s, held.journal.last_event_at_s());
            let is_of_this_life = life.is_some() && held.journal.life == life;
            held.journal.phase.is_over() && is_of_this_life && age >= forget_after && !held.frozen
        };
        let mut failure = None;
        let mut held_services = std::mem::take(&mut self.held);
        for (service, held) in &mut held_services {
            let is_hasty = planted(Bug::ForgetUntold);
            if !due(held) && !is_hasty {
                held.ledger.lose_sight();
                continue;
            }
            let untold = with_outcome(&held.outcomes, Outcome::Unreachable)
                .chain(with_outcome(&held.outcomes, Outcome::Lost));
            let gone = match is_hasty {
                true => untold.filter(|client| held.ledger.stored().contains_key(*client)).cloned().collect(),
                false => held.ledger.long_absent(now, untold, self.capture.found()),
            };
            let gone: Vec<RecordKey> = gone
                .into_iter()
                .filter(|client| self.may_forget(client.client()))
                // The others at the next beats: new clients wait for each removal.
                .take(crate::limits::REMOVED_AT_ONCE_MAX)
                .collect();
            if gone.is_empty() {
                continue;
            }
            tracing::warn!(%service, clients = gone.len(), "{service}: {} could not be told for longer than forget-after, and nothing is kept of them any more", counted(gone.len(), "client"));
            let mut committing = server.committing();
            failure = held.remove(&mut committing, service, &gone).err().or(failure);
        }
        self.held = held_services;
        if let Some(error) = failure {
            server.store_failed(now, &error);
        }
    }
}

fn say_restored(service: &ServiceName, generation: Generation) {
    tracing::error!(%service, %generation, "{service}: claim {generation} in the store could not be read; it is this server's and was written anew; see what the kernel says of that disk or volume (dmesg)");
}

fn say_damaged(outside: &impl Outside, service: &ServiceName, contents: &Contents) {
    for damaged in &contents.damaged {
        let (path, why) = (&damaged.path, &damaged.why);
        if outside.may_say(UNREADABLE_ENTRY) {
            tracing::error!(%service, path, why, "{service}: the entry {path} of the store can't be read and is left alone: {why}");
        }
    }
}
