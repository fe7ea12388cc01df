//! The shared store, as the agents' `Store` promises it: claims are exclusive, a generation appears whole or not at all,
//! and after an error all, some or none of what was asked for is there.

use std::collections::{BTreeMap, BTreeSet};

use heirlock_core::claim::Claim;
use heirlock_core::store::{Change, Contents, ServerReport};
use heirlock_core::takeover::Journal;
use heirlock_core::{Generation, ServerName, ServiceName};
use heirlock_nsm::MonName;

/// All that the servers share.
#[derive(Debug, Default)]
pub(crate) struct SharedStore {
    pub(crate) shelves: BTreeMap<ServiceName, Shelf>,
    pub(crate) reports: BTreeMap<ServerName, ServerReport>,
}

/// One service's part.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    pub(crate) claims: BTreeMap<Generation, Claim>,
    pub(crate) generations: BTreeMap<Generation, Contents>,
    /// What each generation began with: every one of these must have an outcome. Not in a real store.
    begun_with: BTreeMap<Generation, BTreeSet<MonName>>,
}

impl SharedStore {
    pub(crate) fn newest_claim(&self, service: &ServiceName) -> Option<&Claim> {
        self.shelves.get(service)?.claims.values().next_back()
    }

    pub(crate) fn newest_generation(&self, service: &ServiceName, at_most: Generation) -> Option<Generation> {
        self.shelves.get(service)?.generations.range(..=at_most).next_back().map(|(g, _)| *g)
    }

    pub(crate) fn newest(&self, service: &ServiceName) -> Option<&Contents> {
        self.shelves.get(service)?.generations.values().next_back()
    }

    pub(crate) fn contents(&self, service: &ServiceName, generation: Generation) -> Option<&Contents> {
        self.shelves.get(service)?.generations.get(&generation)
    }

    /// The claim that won.
    pub(crate) fn claim(&mut self, service: &ServiceName, claim: &Claim) -> Claim {
        let shelf = self.shelves.entry(service.clone()).or_default();
        shelf.claims.entry(claim.generation).or_insert_with(|| claim.clone()).clone()
    }

    pub(crate) fn release(&mut self, service: &ServiceName, generation: Generation) {
        let claim = self.shelves.get_mut(service).and_then(|shelf| shelf.claims.get_mut(&generation));
        if let Some(claim) = claim {
            claim.released = true;
        }
    }

    /// The journal of the newest generation.
    pub(crate) fn newest_journal(&self, service: &ServiceName) -> Option<&Journal> {
        self.newest(service)?.journal.as_ref()
    }

    /// What a generation began with.
    pub(crate) fn begun_with(
        &self,
        service: &ServiceName,
        generation: Generation,
    ) -> Option<&BTreeSet<MonName>> {
        self.shelves.get(service)?.begun_with.get(&generation)
    }

    /// Begins a generation. One that goes on with what another one owes began with what that one began with.
    pub(crate) fn begin(
        &mut self,
        service: &ServiceName,
        generation: Generation,
        contents: Contents,
        goes_on_with: Option<Generation>,
    ) {
        let shelf = self.shelves.entry(service.clone()).or_default();
        let inherited = goes_on_with.and_then(|before| shelf.begun_with.get(&before).cloned());
        let begun_with = inherited.unwrap_or_else(|| contents.records.keys().cloned().collect());
        shelf.begun_with.entry(generation).or_insert(begun_with);
        shelf.generations.entry(generation).or_insert(contents);
    }

    pub(crate) fn apply(&mut self, service: &ServiceName, generation: Generation, change: Change) {
        let shelf = self.shelves.get_mut(service);
        if let Some(contents) = shelf.and_then(|shelf| shelf.generations.get_mut(&generation)) {
            contents.apply(change);
        }
    }
}
