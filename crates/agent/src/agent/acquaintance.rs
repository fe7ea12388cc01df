//! Whether the store is the one that this server knows, and still shows what was written to it.
//!
//! A store looks like one that works also where its volume isn't mounted, where another volume is mounted in its place, and where
//! it was set back to an older copy. So nothing is read from it or written to it before it is recognised, and it is well only
//! after every claim and generation of this server was looked for. Records and claims that vanished are written anew from the
//! agent's knowledge.

use std::collections::BTreeMap;

use heirlock_core::store::{Store, StoreError, StoreErrorKind};
use heirlock_core::store_identity::{StoreIdentity, Verdict, judge};
use heirlock_core::{Generation, ServiceName};
use heirlock_nsm::StateNumber;

use super::outside::Outside;
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

    /// Whether the store shows less of this service than this server knows.
    pub(crate) fn lacks(&self, service: &ServiceName) -> bool {
        self.missing.contains_key(service)
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

    /// Whether every record is to be looked for.
    pub(crate) fn is_doubted(&self) -> bool {
        self.doubted
    }

    /// Every record was looked for.
    pub(crate) fn was_looked_through(&mut self) {
        self.doubted = false;
    }

    /// Recognises the store, before anything is read from it or written to it. `is_well`: no call of it has failed since it was
    /// last recognised, and it has lost nothing.
    pub(crate) fn meet(
        &mut self,
        store: &dyn Store,
        outside: &mut impl Outside,
        is_well: bool,
    ) -> Result<(), StoreError> {
        if self.met && is_well {
            return Ok(());
        }
        self.met = false;
        if self.unremembered.is_none() {
            // 'heirlock enable --new-store' may have accepted another one meanwhile.
            self.memory = outside.store_memory()?;
        }
        let remembered = self.memory.remembered(outside.had_store());
        store.expect(remembered.identity.as_ref());
        let found = store.found()?;
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
            (Verdict::Refused(why), _) => return Err(store.wrong(why)),
            (Verdict::Name | Verdict::Ours, _) => {
                let random = (u128::from(outside.random()) << 64) | u128::from(outside.random());
                let identity = store.give_identity(&StoreIdentity::of(random))?;
                tracing::info!(store = identity.as_str(), kept = ?found.kept, "the store was made by an earlier version: its identity is {} from now on", identity.as_str());
                identity
            }
        };
        if self.memory.identity.as_ref() != Some(&identity) {
            self.remember(outside, |memory| memory.accept(&identity, found.kept));
        }
        store.expect(Some(&identity));
        (self.met, self.was_met) = (true, true);
        Ok(())
    }

    /// Remembers something for the time after this run of the agent. Where that fails the agent goes on by its own knowledge.
    fn remember(&mut self, outside: &mut impl Outside, change: impl Fn(&mut StoreMemory)) {
        let mut next = self.memory.clone();
        change(&mut next);
        if next == self.memory && self.unremembered.is_none() {
            return;
        }
        let whole = self.unremembered.is_some();
        let updated = outside.remember_store(&|memory| match whole {
            // A change that could not be written before is written as well.
            true => memory.clone_from(&next),
            false => change(memory),
        });
        match updated {
            Ok(memory) => {
                self.memory = memory;
                self.unremembered = None;
            }
            Err(error) => {
                tracing::error!(%error, "how far the services have come can't be remembered: {error}");
                self.memory = next;
                self.unremembered = Some(error.to_string());
            }
        }
    }

    /// A generation of a service is in the store. `claimed` is its newest claim's, `begun` the newest whole one.
    pub(crate) fn saw_generation(
        &mut self,
        outside: &mut impl Outside,
        service: &ServiceName,
        claimed: Generation,
        begun: Option<Generation>,
        number: Option<StateNumber>,
    ) {
        let known = self.memory.known(service);
        let is_known = known.highest >= Some(claimed) && known.expected >= begun;
        if is_known && known.number >= number.map(|number| number.0) {
            return;
        }
        self.remember(outside, |memory| memory.saw(service, claimed, begun, number));
    }
}
