//! The shared store, as the agents' `Store` promises it: claims are exclusive, a generation appears whole or not at all,
//! and after an error all, some or none of what was asked for is there.

use std::collections::{BTreeMap, BTreeSet};

use heirlock_core::claim::Claim;
use heirlock_core::takeover::{Journal, OutcomeLine};
use heirlock_core::{Generation, ServerName, ServiceName};
use heirlock_nsm::{MonName, StateNumber};

/// All that the servers share.
#[derive(Debug, Default)]
pub(crate) struct SharedStore {
    pub(crate) shelves: BTreeMap<ServiceName, Shelf>,
    pub(crate) reports: BTreeMap<ServerName, Report>,
}

/// One service's part.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    pub(crate) claims: BTreeMap<Generation, Claim>,
    pub(crate) generations: BTreeMap<Generation, Contents>,
}

/// One generation.
#[derive(Debug, Clone)]
pub(crate) struct Contents {
    pub(crate) state: StateNumber,
    pub(crate) records: BTreeMap<MonName, Vec<u8>>,
    pub(crate) journal: Journal,
    pub(crate) outcomes: Vec<OutcomeLine>,
    /// What it began with: every one of these must have an outcome. Not in a real store.
    pub(crate) begun_with: BTreeSet<MonName>,
}

/// A server's heartbeat.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) agent: String,
    pub(crate) beat: u64,
    pub(crate) paused: bool,
    pub(crate) state: u32,
}

/// One change of a generation.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    PutRecord(MonName, Vec<u8>),
    RemoveRecord(MonName),
    PutJournal(Box<Journal>),
    AppendOutcome(OutcomeLine),
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

    pub(crate) fn begin(&mut self, service: &ServiceName, generation: Generation, contents: Contents) {
        self.shelves.entry(service.clone()).or_default().generations.entry(generation).or_insert(contents);
    }

    pub(crate) fn apply(&mut self, service: &ServiceName, generation: Generation, change: Change) {
        let shelf = self.shelves.get_mut(service);
        let Some(contents) = shelf.and_then(|shelf| shelf.generations.get_mut(&generation)) else { return };
        match change {
            Change::PutRecord(client, bytes) => drop(contents.records.insert(client, bytes)),
            Change::RemoveRecord(client) => drop(contents.records.remove(&client)),
            Change::PutJournal(journal) => contents.journal = *journal,
            Change::AppendOutcome(line) => contents.outcomes.push(line),
        }
    }
}
