//! The shared store, and the checkers' memory of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use heirlock_core::claim::Claim;
use heirlock_core::store::in_memory::InMemory;
use heirlock_core::store::{Contents, Store as _};
use heirlock_core::store_identity::StoreIdentity;
use heirlock_core::takeover::Journal;
use heirlock_core::{Generation, ServerName, ServiceName};
use heirlock_nsm::MonName;

/// All that the servers share. It keeps what a store promises; that it fails is up to `calls`.
#[derive(Debug)]
pub(crate) struct SharedStore {
    pub(crate) memory: InMemory,
    /// The clients that each generation began with: every one of these must have an outcome. Not in a real store.
    begun_with: BTreeMap<(ServiceName, Generation), BTreeSet<MonName>>,
}

impl SharedStore {
    pub(crate) fn new() -> Self {
        Self { memory: InMemory::new(StoreIdentity::of(1)), begun_with: BTreeMap::new() }
    }

    pub(crate) fn newest_claim(&self, service: &ServiceName) -> Option<Arc<Claim>> {
        self.memory.newest(service)
    }

    /// Whether a server's last heartbeat says that it is being maintained.
    pub(crate) fn is_maintained(&self, server: &ServerName) -> bool {
        let hearts = self.memory.hearts().ok();
        hearts.is_some_and(|hearts| hearts.reports.get(server).is_some_and(|report| report.paused))
    }

    pub(crate) fn newest_generation(&self, service: &ServiceName, at_most: Generation) -> Option<Generation> {
        self.memory.newest_generation(service, at_most).ok().flatten()
    }

    /// Looks at what a generation holds.
    pub(crate) fn see<T>(
        &self,
        service: &ServiceName,
        generation: Generation,
        see: impl FnOnce(&Contents) -> T,
    ) -> Option<T> {
        self.memory.see(service, generation, see)
    }

    /// Looks at what the newest generation holds.
    pub(crate) fn see_newest<T>(&self, service: &ServiceName, see: impl FnOnce(&Contents) -> T) -> Option<T> {
        self.see(service, self.newest_generation(service, Generation(u64::MAX))?, see)
    }

    pub(crate) fn journal(&self, service: &ServiceName, generation: Generation) -> Option<Journal> {
        self.see(service, generation, |contents| contents.journal.clone()).flatten()
    }

    /// The clients that a generation began with.
    pub(crate) fn begun_with(
        &self,
        service: &ServiceName,
        generation: Generation,
    ) -> Option<&BTreeSet<MonName>> {
        self.begun_with.get(&(service.clone(), generation))
    }

    /// A generation is begun, and is not there yet. A generation that goes on with the duties of another one, by the same
    /// journal, began with the clients of that one.
    pub(crate) fn begins(&mut self, service: &ServiceName, generation: Generation, contents: &Contents) {
        let before = generation.before().and_then(|before| self.newest_generation(service, before));
        let goes_on = before.filter(|before| {
            contents.journal.is_some() && self.journal(service, *before) == contents.journal
        });
        let inherited = goes_on.and_then(|before| self.begun_with(service, before).cloned());
        let begun_with = inherited.unwrap_or_else(|| contents.records.clients().cloned().collect());
        self.begun_with.entry((service.clone(), generation)).or_insert(begun_with);
    }
}
