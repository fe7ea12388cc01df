//! Whether the store is the one that this server knows, and still shows what was written to it.
//!
//! A store looks like one that works also where its volume isn't mounted, where another volume is mounted in its place, and where
//! it was set back to an older copy. So nothing is read from it or written to it before it is recognised, and it is well only
//! after every claim and generation of this server was looked for. Records and claims that vanished are written anew from the
//! agent's knowledge.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use heirlock_core::store::{Change, ClaimAnswer, Contents, Place, RecordChange, StoreError, StoreErrorKind};
use heirlock_core::store_identity::{StoreIdentity, Verdict, judge};
use heirlock_core::takeover::OutcomeLine;
use heirlock_core::{Generation, Moment, ServiceName};
use heirlock_nsm::StateNumber;

use super::Inside;
use super::holdings::Held;
use super::outside::Outside;
use crate::limits::COMMIT_RECORDS_MAX;
use crate::store_memory::StoreMemory;

/// This server's memory of its store, and how far it can be trusted now.
#[derive(Debug)]
pub struct Acquaintance {
    memory: StoreMemory,
    /// The store was recognised, and nothing failed since.
    met: bool,
    /// It was recognised at some time of this run of the agent.
    was_met: bool,
    /// The last heartbeat of this server is not in the store, or not as it was written: the store was exchanged or set back
    /// without an error, and every record is to be looked for.
    doubted: bool,
    /// Services of which the store shows less than this server knows, with what that is. Nothing is done for them.
    missing: BTreeMap<ServiceName, String>,
    /// Why something could not be remembered.
    unremembered: Option<String>,
}

impl Acquaintance {
    /// With what is remembered, before the store was looked at.
    pub(crate) fn new(memory: StoreMemory) -> Self {
        Self {
            memory,
            met: false,
            was_met: false,
            doubted: false,
            missing: BTreeMap::new(),
            unremembered: None,
        }
    }

    /// Whether the heart may beat though the store was not recognised now. It was recognised before, and any other store refuses
    /// every read and write: a server whose records hang lives, and says so where it can.
    pub(crate) fn may_beat(&self, error: &StoreError) -> bool {
        self.was_met && matches!(error.kind(), StoreErrorKind::TimedOut | StoreErrorKind::Unavailable)
    }

    /// This server's memory of its store, as it was last written.
    pub(crate) fn memory(&self) -> &StoreMemory {
        &self.memory
    }

    /// The store shows less of a service than this server knows.
    pub(crate) fn misses(&mut self, service: &ServiceName, error: &StoreError) {
        let why = error.to_string();
        if self.missing.get(service) != Some(&why) {
            tracing::error!(%service, %error, "{service}: nothing is done for it, for the store has lost what this server knows of it: {error}");
            self.missing.insert(service.clone(), why);
        }
    }

    /// The store shows all of a service that this server knows.
    pub(crate) fn found_again(&mut self, service: &ServiceName) {
        if self.missing.remove(service).is_some() {
            tracing::info!(%service, "{service}: the store shows all of it again");
        }
    }

    /// The loss of the store that is reported: of one service, where several services have one.
    pub(crate) fn missing(&self) -> Option<&str> {
        self.missing.values().next().map(String::as_str)
    }

    /// Every record is to be looked for.
    pub(crate) fn doubt(&mut self) {
        self.doubted = true;
    }

    /// The line of `status` where this server can't remember its store.
    pub fn problem(&self) -> Option<String> {
        let why = self.unremembered.as_ref()?;
        Some(format!(
            "how far the services have come can't be remembered, so that an older copy of the store may not be recognised after a restart: {why}"
        ))
    }
}

impl<O: Outside> Inside<O> {
    /// Recognises the store, before anything is read from it or written to it.
    pub(crate) fn meet_store(&mut self) -> Result<(), StoreError> {
        if self.acquaintance.met && self.store_error().is_none() {
            return Ok(());
        }
        self.acquaintance.met = false;
        if self.acquaintance.unremembered.is_none() {
            // 'heirlock enable --new-store' may have accepted another one meanwhile.
            self.acquaintance.memory = self.outside.store_memory()?;
        }
        let remembered = self.acquaintance.memory.remembered(self.outside.had_store());
        self.store.expect(remembered.identity.as_ref());
        let found = self.store.found()?;
        let identity = match (judge(&remembered, &found), remembered.identity) {
            (Verdict::Ours, Some(identity)) => identity,
            (Verdict::Remember(identity), None) => {
                tracing::info!(
                    store = identity.as_str(),
                    "the store {} is this server's from now on",
                    identity.as_str()
                );
                identity
            }
            (Verdict::Remember(identity), Some(before)) => {
                tracing::warn!(
                    store = identity.as_str(),
                    before = before.as_str(),
                    "the store {} that this server made, and in which no service was ever kept, gives way to {}, which is there",
                    before.as_str(),
                    identity.as_str()
                );
                identity
            }
            (Verdict::Refused(why), _) => return Err(self.store.wrong(why)),
            (Verdict::Name | Verdict::Ours, _) => {
                let random = (u128::from(self.outside.random()) << 64) | u128::from(self.outside.random());
                let identity = self.store.give_identity(&StoreIdentity::of(random))?;
                tracing::info!(store = identity.as_str(), kept = ?found.kept, "the store was made by an earlier version: its identity is {} from now on", identity.as_str());
                identity
            }
        };
        if self.acquaintance.memory.identity.as_ref() != Some(&identity) {
            self.remember(|memory| memory.accept(&identity, found.kept));
        }
        self.store.expect(Some(&identity));
        (self.acquaintance.met, self.acquaintance.was_met) = (true, true);
        Ok(())
    }

    /// Remembers something for the time after this run of the agent. Where that fails the agent goes on by its own knowledge.
    pub(crate) fn remember(&mut self, change: impl Fn(&mut StoreMemory)) {
        let known = &mut self.acquaintance;
        let mut next = known.memory.clone();
        change(&mut next);
        if next == known.memory && known.unremembered.is_none() {
            return;
        }
        let whole = known.unremembered.is_some();
        let updated = self.outside.remember_store(&|memory| match whole {
            // A change that could not be written before is written as well.
            true => memory.clone_from(&next),
            false => change(memory),
        });
        match updated {
            Ok(memory) => {
                known.memory = memory;
                known.unremembered = None;
            }
            Err(error) => {
                tracing::error!(%error, "how far the services have come can't be remembered: {error}");
                known.memory = next;
                known.unremembered = Some(error.to_string());
            }
        }
    }

    /// A generation of a service is in the store. `claimed` is its newest claim's, `begun` the newest whole one.
    pub fn saw_generation(
        &mut self,
        service: &ServiceName,
        claimed: Generation,
        begun: Option<Generation>,
        number: Option<StateNumber>,
    ) {
        let known = self.acquaintance.memory.known(service);
        let is_known = known.highest >= Some(claimed) && known.expected >= begun;
        if is_known && known.number >= number.map(|number| number.0) {
            return;
        }
        self.remember(|memory| memory.saw(service, claimed, begun, number));
    }

    /// Looks for all that this server holds where the store may have lost some of it.
    pub(crate) fn look_for_all(&mut self, now: Moment) {
        if !self.acquaintance.doubted {
            return;
        }
        tracing::warn!(
            "the store doesn't show the last heartbeat of this server: all records are looked for"
        );
        let services: BTreeSet<ServiceName> = self.held.keys().cloned().collect();
        for service in services {
            if let Err(error) = self.complete(&service) {
                self.store_failed(now, &error);
                self.holdings_known = false;
                return;
            }
        }
        self.acquaintance.doubted = false;
    }

    /// Writes a claim and its generation anew that the store has lost, with all that the agent knows of it: the same
    /// number, records, journal and outcomes.
    pub(crate) fn rebuild(&mut self, service: &ServiceName) -> Result<(), StoreError> {
        let Some(held) = self.held.get(service) else { return Ok(()) };
        let (generation, contents) = (held.claim.generation, held.contents());
        if let ClaimAnswer::Taken(other) = self.store.claim(service, &held.claim)? {
            // The next look finds it, and whose the service is then.
            tracing::warn!(%service, owner = %other.owner, generation = %other.generation, "{service}: {} has claimed generation {} meanwhile", other.owner, other.generation);
            return Ok(());
        }
        self.store.begin_generation(service, generation, &contents)?;
        self.saw_generation(service, generation, Some(generation), contents.state);
        tracing::error!(%service, %generation, records = contents.records.len(), "{service}: the store had lost generation {generation}, which was written anew from what this server knows");
        Ok(())
    }

    /// Makes a generation hold all that the agent knows of it. Anything that it holds besides, as an older copy of the store may,
    /// is believed: a client too many is told, one too few loses its locks. Answers the generation's contents after that; nothing
    /// where this server doesn't hold the service, or is beginning its next generation.
    pub(crate) fn complete(&mut self, service: &ServiceName) -> Result<Option<Contents>, StoreError> {
        if self.run.as_ref().is_some_and(|running| running.begins(service)) {
            return Ok(None); // its next generation is made of what the agent knows
        }
        let Some(held) = self.held.get_mut(service) else { return Ok(None) };
        let generation = held.claim.generation;
        let found = self.store.load(service, generation)?;
        let (lost, strange) = held.differences(&found);
        if found.state.is_some_and(|state| state != held.state) {
            let there = found.state.map_or_else(|| "none".to_owned(), |state| state.to_string());
            let sentence = format!(
                "{}, generation {generation} of {service}: expected state number {}, found {there}; put back the newest copy \
                 of the store",
                self.store.place(Place::Store),
                held.state
            );
            return Err(StoreError::new(StoreErrorKind::Unexpected, sentence));
        }
        for portion in lost.chunks(COMMIT_RECORDS_MAX) {
            self.store.commit(service, &held.claim, portion)?;
        }
        if !lost.is_empty() || !strange.is_empty() {
            tracing::error!(%service, %generation, written = lost.len(), found = strange.len(), "{service}: the store had lost some of generation {generation}, as an older copy of it has or one with damaged files; what it lacked was written anew");
        }
        held.ledger.committed(&strange);
        let is_whole = lost.is_empty();
        Ok(Some(if is_whole { found } else { self.store.load(service, generation)? }))
    }
}

impl Held {
    /// A generation as the agent knows it.
    fn contents(&self) -> Contents {
        Contents {
            state: Some(self.state),
            records: self.ledger.stored().clone(),
            journal: Some(self.journal.clone()),
            outcomes: self.outcomes.clone(),
            ..Contents::default()
        }
    }

    /// The records that a generation lacks, and those that it holds besides.
    fn differences(&self, found: &Contents) -> (Vec<Change>, Vec<RecordChange>) {
        let stored = self.ledger.stored();
        let lacks = stored.iter().filter(|(key, record)| found.records.get(*key) != Some(*record));
        let mut lost: Vec<Change> = lacks.map(|(key, record)| Change::put(key, record.clone())).collect();
        if found.state.is_none() {
            lost.push(Change::PutState(self.state));
        }
        if found.journal.as_ref() != Some(&self.journal) {
            lost.push(Change::PutJournal(Box::new(self.journal.clone())));
        }
        let there: HashSet<&OutcomeLine> = found.outcomes.iter().collect();
        let lines = self.outcomes.iter().filter(|line| !there.contains(line));
        lost.extend(lines.cloned().map(Change::AppendOutcome));
        let strange = found.records.iter().filter(|(key, _)| !stored.contains_key(*key));
        (lost, strange.map(|(key, record)| RecordChange::put(key, record.clone())).collect())
    }
}
