//! A server's memory of its store: which one it is, and how far the services in it had come.
//!
//! It shows whether a store was exchanged, emptied or set back. A number in it only rises: a number that clients were told once
//! stays told, also where the store is lost.

use std::collections::BTreeMap;

use heirlock_core::store_identity::{Kept, OlderStore, Remembered, StoreIdentity, check_age};
use heirlock_core::{Generation, ServiceName};
use heirlock_nsm::StateNumber;
use serde::{Deserialize, Serialize};

/// All that is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StoreMemory {
    format: u32,
    /// Which store it is.
    pub identity: Option<StoreIdentity>,
    /// A service that moves was seen in it ([`Remembered::confirmed`]).
    #[serde(default)]
    pub confirmed: bool,
    /// How far each service had come.
    #[serde(default)]
    pub services: BTreeMap<ServiceName, Known>,
}

/// How far a service had come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Known {
    /// The generation that this store must show at least; none after another store was accepted.
    pub expected: Option<Generation>,
    /// The highest generation there ever was: the next claim is above it.
    pub highest: Option<Generation>,
    /// The highest state number of any of its generations: the next one is above it (I5).
    pub number: Option<u32>,
}

impl Default for StoreMemory {
    fn default() -> Self {
        Self { format: Self::FORMAT, identity: None, confirmed: false, services: BTreeMap::new() }
    }
}

impl StoreMemory {
    /// The one format there is.
    pub const FORMAT: u32 = 1;

    /// The format that it was written in.
    #[must_use]
    pub fn format(&self) -> u32 {
        self.format
    }

    /// The memory by which the store is judged.
    pub fn remembered(&self, had_one: bool) -> Remembered {
        Remembered { identity: self.identity.clone(), confirmed: self.confirmed, had_one }
    }

    /// This is the store from now on, accepted by the operator or met for the first time. Services of another store are
    /// no longer expected, but their numbers stay used.
    pub fn accept(&mut self, identity: &StoreIdentity, kept: Kept) {
        self.identity = Some(identity.clone());
        self.confirmed = kept == Kept::Services;
        self.services.values_mut().for_each(|known| known.expected = None);
    }

    /// The known history of a service.
    pub fn known(&self, service: &ServiceName) -> Known {
        self.services.get(service).copied().unwrap_or_default()
    }

    /// A service was seen in the store: its newest claim is `claimed`, its newest whole generation `begun`, with a number
    /// that may be known.
    pub fn saw(
        &mut self,
        service: &ServiceName,
        claimed: Generation,
        begun: Option<Generation>,
        number: Option<StateNumber>,
    ) {
        let known = self.services.entry(service.clone()).or_default();
        known.expected = known.expected.max(begun);
        known.highest = known.highest.max(Some(claimed));
        known.number = known.number.max(number.map(|number| number.0));
        self.confirmed |= !service.is_host();
    }

    /// Whether the store shows as much of a service as was seen of it; `found` is its newest whole generation.
    ///
    /// # Errors
    /// Where it shows less.
    pub fn check_age(&self, service: &ServiceName, found: Option<Generation>) -> Result<(), OlderStore> {
        check_age(service, self.known(service).expected, found)
    }
}

impl Known {
    /// A generation that no server ever had, or this one where it is newer than all that are known. `begun`, the newest one in
    /// the store, counts also where its claim is lost: under its number its clients were told another state number.
    pub fn above(&self, generation: Generation, begun: Option<Generation>) -> Generation {
        self.highest.max(begun).map_or(generation, |highest| generation.max(highest.next()))
    }

    /// The number that was sent last, as far as it is known.
    pub fn sent(&self) -> Option<StateNumber> {
        self.number.map(StateNumber)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accepted_store_need_show_nothing_and_repeats_nothing() {
        let (nfs, identity) = (ServiceName::parse("nfs").unwrap(), StoreIdentity::of(9));
        let mut memory = StoreMemory::default();
        memory.saw(&nfs, Generation(4), Some(Generation(4)), Some(StateNumber(11)));
        memory.accept(&identity, Kept::Nothing);
        assert_eq!(memory.check_age(&nfs, None), Ok(()));
        assert_eq!(memory.known(&nfs).above(Generation::FIRST, None), Generation(5));
        assert_eq!(memory.known(&nfs).sent(), Some(StateNumber(11)));
        assert!(!memory.confirmed);
    }
}
