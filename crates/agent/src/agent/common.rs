//! What the lock managers of a server have in common: its store and how well that is, its heart, its configuration, its clock and
//! its counts.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use heirlock_core::Generation;
use heirlock_core::Moment;
use heirlock_core::ServerName;
use heirlock_core::ServiceName;
use heirlock_core::claim::{Authority, Claim, OwnerHeart};
use heirlock_core::grace::Clocks;
use heirlock_core::liveness::Hearts;
use heirlock_core::own_addresses::own_addresses;
use heirlock_core::store::{Asked, Place, Seen, ServerReport, Store, StoreError, StoreErrorKind};
use heirlock_core::takeover::Trouble;
use heirlock_core::wall_clock::WallClock;
use heirlock_nsm::StateNumber;

use super::acquaintance::Acquaintance;
use super::attempts::LostClaim;
use super::beat::{Condition, Namesake, Pulse};
use super::health::Health;
use super::holdings::Committing;
use super::outside::Outside;
use crate::config::Settings;
use crate::control::report::observed::Observed;
use crate::limits::{STORE_ANSWERS_TIME_MAX, STORE_RETRY};
use crate::store_memory::StoreMemory;

/// All that is not one lock manager's.
pub struct Common<O> {
    settings: Arc<Settings>,
    /// Tells this configuration from others.
    fingerprint: String,
    own_service: ServiceName,
    /// This run of the agent: random.
    id: String,
    outside: O,
    store: Box<dyn Store>,
    acquaintance: Acquaintance,
    health: Health,
    pulse: Pulse,
    beat_due: Moment,
    /// The clock on the wall when the agent began.
    wall_clock: WallClock,
    /// The counts, but for those that the tally and the status monitor keep.
    counts: Observed,
    /// Why the agent must end.
    fatal: Option<String>,
}

/// How a heartbeat went.
pub(crate) enum Beat {
    /// The store did not take it.
    Unwritten,
    /// The store did not take it in time, as it happens on a busy disk: what was known a moment ago holds good until the next.
    Late,
    /// Another agent lives under this server's name, and this one ends.
    GivesWay,
    /// All other servers' were read. `met`: the store was recognised, so that more of it may be read. `seen`: the claims of
    /// services, unless the look at them goes on still.
    Written { met: bool, seen: Option<Vec<Seen>> },
}

/// The holder of a service.
pub(crate) enum Whose {
    /// This server's.
    Owned(ServerName),
    /// No server's: this server released it.
    Released(ServerName),
    /// No server's: it was never claimed.
    Unclaimed,
    /// It can't be known now, and why.
    Unknown(String),
}

impl<O: Outside> Common<O> {
    /// That of a server with this store, of which it has read nothing yet.
    ///
    /// # Errors
    /// Where the store isn't what it should be, or what is remembered of it can't be read.
    pub(crate) fn new(
        settings: Arc<Settings>,
        store: Box<dyn Store>,
        mut outside: O,
        node: Option<String>,
    ) -> Result<Self> {
        let id = format!("{:016x}", outside.random());
        let memory = outside.store_memory()?;
        meet_first(store.as_ref(), &memory)?;
        let report = own_report(&settings, &id, &outside, node);
        let (began, began_at_s) = (outside.now(), report.written_at_s);
        Ok(Self {
            id,
            beat_due: outside.now(),
            outside,
            store,
            acquaintance: Acquaintance::new(memory),
            pulse: Pulse::new(report, Hearts::new(settings.heartbeat.dead_after)),
            health: Health::default(),
            fingerprint: settings.fingerprint(),
            wall_clock: WallClock::read(began, began_at_s),
            own_service: ServiceName::host(&settings.server),
            fatal: None,
            counts: Observed { began_at_s, ..Observed::default() },
            settings,
        })
    }

    // What it is.

    /// Its configuration.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Tells this configuration from others.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Its name.
    pub(crate) fn server(&self) -> &ServerName {
        &self.settings.server
    }

    /// The service that it is itself, with the exports that it serves under its own name.
    pub(crate) fn own_service(&self) -> &ServiceName {
        &self.own_service
    }

    /// This run of its agent.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Its outside.
    pub fn outside(&self) -> &O {
        &self.outside
    }

    /// The same, to change something there.
    pub fn outside_mut(&mut self) -> &mut O {
        &mut self.outside
    }

    /// The time by which everything is decided.
    pub fn now(&self) -> Moment {
        self.outside.now()
    }

    /// This moment, by the clock of the agent and by that of this boot.
    pub(crate) fn clocks(&self) -> Clocks {
        Clocks { now: self.now(), since_boot: self.outside.since_boot() }
    }

    /// Seconds since 1970 by its clock, for people.
    pub(crate) fn wall_s(&self) -> u64 {
        self.outside.wall_s()
    }

    /// The clock on the wall when the agent began.
    pub(crate) fn wall_clock(&self) -> WallClock {
        self.wall_clock
    }

    /// The counts, but for those that the tally and the status monitor keep.
    pub(crate) fn counts(&self) -> &Observed {
        &self.counts
    }

    /// The same, to count something.
    pub(crate) fn counts_mut(&mut self) -> &mut Observed {
        &mut self.counts
    }

    /// The agent must end, for this reason.
    pub(crate) fn must_end_because(&mut self, why: String) {
        self.fatal = Some(why);
    }

    /// Why the agent must end, if so; told once.
    pub(crate) fn must_end(&mut self) -> Option<String> {
        self.fatal.take()
    }

    // Its heart.

    /// Its heart, and the others'.
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// The same, to change what it says.
    pub fn pulse_mut(&mut self) -> &mut Pulse {
        &mut self.pulse
    }

    /// When it beats next.
    pub fn beat_due(&self) -> Moment {
        self.beat_due
    }

    /// It beats at this moment, and not when it was to.
    pub(crate) fn beat_at(&mut self, at: Moment) {
        self.beat_due = at;
    }

    /// It beats by this moment.
    pub(crate) fn beat_by(&mut self, at: Moment) {
        self.beat_due = self.beat_due.min(at);
    }

    /// Says that this server lives, reads what the others say, and looks at the claims of these services.
    pub(crate) fn beat(&mut self, now: Moment, condition: Condition, of: &[Asked]) -> Beat {
        let met = self.meet_store();
        if let Err(error) = &met {
            self.fails(now, error);
            if !self.acquaintance.may_beat(error) {
                // A server that can't see the others' hearts must not take them for silent.
                self.pulse.blind();
                return Beat::Unwritten;
            }
        }
        let began = self.now();
        // Of a store that is not met nothing is read.
        let of = if met.is_ok() { of } else { &[] };
        let beaten = self.pulse.beat_and_look(now, self.store.as_ref(), condition, of);
        self.counts.heartbeats.ended(self.outside.now().since(began), beaten.is_ok());
        self.say_unreadable_hearts();
        let (namesake, seen) = match beaten {
            Ok(beaten) => beaten,
            Err(error) => {
                return if self.health.beat_failed(now, &error) { Beat::Unwritten } else { Beat::Late };
            }
        };
        self.health.beat_was_written();
        match namesake {
            None => {}
            Some(Namesake::WasFirst) => {
                self.must_end_because(format!(
                    "another agent lives under the name {} in this store: give each server a name of its own (server = …)",
                    self.settings.server
                ));
                return Beat::GivesWay;
            }
            Some(Namesake::IsNew) => {
                tracing::error!(server = %self.settings.server, "another agent was started under this server's name {}", self.settings.server);
            }
        }
        if self.pulse.was_set_back() {
            self.acquaintance.doubt();
        }
        Beat::Written { met: met.is_ok(), seen }
    }

    /// From now on this server's silence is no reason to adopt.
    ///
    /// # Errors
    /// Where the others can't be told.
    pub(crate) fn say_farewell(&mut self) -> Result<()> {
        const UNTOLD: &str = "the last heartbeat could not be written: others may take this server for dead";
        self.pulse.pause(true);
        self.meet_store().context(UNTOLD)?;
        let condition = Condition { written_at_s: self.wall_s(), ..Condition::default() };
        let last = self.pulse.beat(self.outside.now(), self.store.as_ref(), condition);
        self.say_unreadable_hearts();
        last.map(drop).context(UNTOLD)
    }

    /// Names the heartbeats in the store that can't be read, each once.
    pub(crate) fn say_unreadable_hearts(&mut self) {
        for (entry, why) in self.pulse.take_unsaid() {
            if self.outside.may_say("unreadable heartbeat") {
                tracing::error!(entry, why, "the heartbeat {entry} in the store can't be read: {why}");
            }
        }
    }

    /// The addresses of this server are looked at anew.
    pub(crate) fn look_at_addresses(&mut self) {
        self.pulse.is_at(own_addresses_of(&self.settings, &self.outside));
    }

    // Its store.

    /// The store.
    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// Another store takes its place, for a test.
    #[cfg(feature = "inside")]
    pub fn replace_store(&mut self, store: Box<dyn Store>) {
        self.store = store;
    }

    /// Where records become durable, and where that is counted.
    pub fn committing(&mut self) -> Committing<'_, O> {
        Committing::new(self.store.as_ref(), &self.outside, &mut self.counts)
    }

    /// How well the store is.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The same, where it has changed.
    pub(crate) fn health_mut(&mut self) -> &mut Health {
        &mut self.health
    }

    /// A call of the store, or what should follow it, has failed.
    pub fn fails(&mut self, now: Moment, error: &impl ToString) {
        self.health.failed(now, &error.to_string());
    }

    /// A call of the store has failed. Where the service is another server's by now, the store is well: the agent soon looks up
    /// its services anew. That look gives the service up, and tells the run that is on.
    pub(crate) fn store_failed(&mut self, now: Moment, error: &StoreError) {
        if !error.is_not_owner() {
            return self.fails(now, error);
        }
        tracing::warn!(%error, "the store refuses a change of a service that this server holds no more: {error}");
        // Not at once: the call that has failed may be a part of that look.
        self.beat_by(now + STORE_RETRY);
    }

    /// A store that failed has taken something: it is well once all that this server holds was looked for in it.
    pub(crate) fn be_checked(&mut self, now: Moment) {
        if self.health.error().is_some() {
            self.beat_due = now;
        }
    }

    /// The store's error or loss.
    pub fn store_error(&self) -> Option<&str> {
        self.health.error().or_else(|| self.acquaintance.missing())
    }

    /// Until when something waits for the store that begins to wait now.
    pub(crate) fn patience_with_the_store(&self) -> Moment {
        self.now() + STORE_ANSWERS_TIME_MAX
    }

    /// Whether the store is the one that this server knows.
    pub fn acquaintance(&self) -> &Acquaintance {
        &self.acquaintance
    }

    /// The same, where something was learnt of it.
    pub(crate) fn acquaintance_mut(&mut self) -> &mut Acquaintance {
        &mut self.acquaintance
    }

    /// This server's memory of its store, as it was last written.
    pub(crate) fn memory(&self) -> &StoreMemory {
        self.acquaintance.memory()
    }

    /// Recognises the store, before anything is read from it or written to it.
    pub(crate) fn meet_store(&mut self) -> Result<(), StoreError> {
        let is_well = self.store_error().is_none();
        self.acquaintance.meet(self.store.as_ref(), &mut self.outside, is_well)
    }

    /// A generation of a service is in the store. `claimed` is its newest claim's, `begun` the newest whole one.
    pub fn saw_generation(
        &mut self,
        service: &ServiceName,
        claimed: Generation,
        begun: Option<Generation>,
        number: Option<StateNumber>,
    ) {
        self.acquaintance.saw_generation(&mut self.outside, service, claimed, begun, number);
    }

    /// Whether the store shows as much of a service as this server knows of; `found` is its newest whole generation.
    pub(crate) fn check_age(
        &self,
        service: &ServiceName,
        found: Option<Generation>,
    ) -> Result<(), StoreError> {
        let checked = self.memory().check_age(service, found);
        checked.map_err(|why| self.store.older(why))
    }

    /// Clients that registered at that moment are answered.
    pub(crate) fn answered_registrations(&mut self, heard: Moment, count: usize, are_durable: bool) {
        self.counts.registrations.answered(self.outside.now().since(heard), count, are_durable);
    }

    // The owners of services.

    /// The holder of a service that this server does not hold. The store is asked: this agent may not have seen yet what another
    /// server did a moment ago.
    pub(crate) fn whose(&self, service: &ServiceName) -> Whose {
        match self.store.newest_claim(service) {
            Ok(Some(Claim { owner, released: false, .. })) => Whose::Owned(owner),
            Ok(Some(Claim { owner, .. })) => Whose::Released(owner),
            Ok(None) => Whose::Unclaimed,
            Err(error) => Whose::Unknown(format!(
                "{service} is not held by this server, and its owner is not known: {error}"
            )),
        }
    }

    /// The heart of the owner of this claim, as far as it is known at this moment; of our own nothing has to be known.
    pub(crate) fn heart_of_owner(&mut self, newest: Option<&Claim>) -> Result<OwnerHeart, StoreError> {
        match newest {
            Some(claim) if claim.owner != self.settings.server => {
                let now = self.outside.now();
                self.pulse.look(now, self.store.as_ref())?;
                self.say_unreadable_hearts();
                Ok(self.pulse.heart_of(&claim.owner, now))
            }
            _ => Ok(OwnerHeart::NeverSeen),
        }
    }

    /// The newest claim. A claim that can't be read, and whose text nothing else tells, is none where the operator insists.
    pub(crate) fn newest_or_lost(
        &self,
        service: &ServiceName,
        authority: &Authority,
    ) -> Result<(Option<Claim>, Option<LostClaim>), StoreError> {
        match self.store.newest_claim(service) {
            Ok(newest) => Ok((newest, None)),
            Err(error) => match error.lost_claim().filter(|_| authority.insisted) {
                Some(generation) => Ok((None, Some(LostClaim { generation, why: error.to_string() }))),
                None => Err(error),
            },
        }
    }

    /// Whether the contents can be read that the claim of a service needs.
    pub(crate) fn look_for_base(
        &self,
        service: &ServiceName,
        authority: &Authority,
    ) -> Result<(), StoreError> {
        self.newest_or_lost(service, authority)?;
        let begun = self.store.newest_generation(service, Generation(u64::MAX))?;
        self.check_age(service, begun)?;
        begun.map_or(Ok(()), |begun| self.store.check_records(service, begun))
    }

    /// The entry in a report for a claim that can't be read.
    pub(crate) fn claim_trouble(
        &self,
        service: &ServiceName,
        generation: Generation,
        why: String,
    ) -> Trouble {
        let entry = self.store.place(Place::Claim(service, generation));
        Trouble { service: service.clone(), entry, why, fate_unknown: false }
    }
}

/// A store that isn't what it should be is an error; one that isn't there may come yet.
fn meet_first(store: &dyn Store, memory: &StoreMemory) -> Result<()> {
    store.expect(memory.identity.as_ref());
    match store.found() {
        Ok(_) => {}
        Err(error) if *error.kind() == StoreErrorKind::Unexpected => return Err(error.into()),
        Err(error) => tracing::error!(%error, "the store can't be opened yet: {error}"),
    }
    Ok(())
}

/// Where this server is, and no other one will be.
fn own_addresses_of(settings: &Settings, outside: &impl Outside) -> Vec<IpAddr> {
    own_addresses(&settings.host.addresses, &outside.interface_addresses(), &floating(settings))
}

/// The addresses of all services.
pub fn floating(settings: &Settings) -> Vec<IpAddr> {
    settings.services.iter().flat_map(|service| service.addresses.iter().copied()).collect()
}

/// This server's report before its first heartbeat.
fn own_report(settings: &Settings, id: &str, outside: &impl Outside, node: Option<String>) -> ServerReport {
    ServerReport {
        paused: outside.is_maintained(),
        written_at_s: outside.wall_s(),
        node,
        addresses: own_addresses_of(settings, outside),
        ..ServerReport::new(settings.server.clone(), id)
    }
}
