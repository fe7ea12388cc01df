//! The releases that are on.

use std::collections::BTreeMap;

use heirlock_core::{Moment, ServiceName};

use crate::control::Responder;
use crate::control::report::EntryTrouble;

/// Releases that are on.
#[derive(Debug, Default)]
pub(crate) struct Releases {
    on: BTreeMap<ServiceName, Release>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Release {
    /// The callers that wait for it.
    pub(super) responders: Vec<Responder>,
    /// For which request of its home it is.
    pub(super) asked: Option<u64>,
    /// Until when its address has to be gone; none once the claim is given up.
    pub(super) address_until: Option<Moment>,
    /// Until when the store has to answer; none while it does.
    pub(super) store_until: Option<Moment>,
    /// Entries of the store that can't be read: the clients that they belong to are not known.
    pub(super) troubles: Vec<EntryTrouble>,
}

impl Releases {
    /// One more is.
    pub(super) fn add(&mut self, service: &ServiceName, release: Release) {
        self.on.insert(service.clone(), release);
    }

    /// None is.
    pub(crate) fn is_empty(&self) -> bool {
        self.on.is_empty()
    }

    /// Whether that of this service is.
    pub(crate) fn contains(&self, service: &ServiceName) -> bool {
        self.on.contains_key(service)
    }

    /// That of this service, where it is.
    pub(super) fn of(&self, service: &ServiceName) -> Option<&Release> {
        self.on.get(service)
    }

    /// The same, to change it.
    pub(super) fn of_mut(&mut self, service: &ServiceName) -> Option<&mut Release> {
        self.on.get_mut(service)
    }

    /// The services that are given away.
    pub(crate) fn services(&self) -> Vec<ServiceName> {
        self.on.keys().cloned().collect()
    }

    /// That of a service has ended. Answers its callers, and the entries that can't be read.
    pub(super) fn end(&mut self, service: &ServiceName) -> (Vec<Responder>, Vec<EntryTrouble>) {
        self.on.remove(service).map(|release| (release.responders, release.troubles)).unwrap_or_default()
    }
}
