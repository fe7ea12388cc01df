//! Services that this server holds, and whose address it took away to give them up. Where the release does not come about, since the
//! agent was killed or the store failed, no client reaches the service, and its locks live on here: the address has to come back.
//!
//! It is noted before an address is taken away, with the generation that is to be given up. The note counts for no other generation:
//! another one was begun by a run, which brings the address by itself, and at its own time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::{Generation, ServiceName};

/// The services whose address was taken away for a release, as far as it is not known that this is over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TakenAway(BTreeMap<ServiceName, Generation>);

/// A service of which it is noted, as it stands now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The generation in which this server holds it; nothing where it is another server's or no server's.
    pub held: Option<Generation>,
    /// A release of it is on, or the work of one that hangs: its address may go at any moment.
    pub is_released: bool,
    /// All of its addresses are on this server.
    pub is_here: bool,
    /// The locks of its clients live in the lock manager that runs, and no run has the service. Else a run is on or owed, which
    /// brings the address once grace is proved.
    pub is_served: bool,
}

/// What follows for a service of which it is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The release or a run goes on with it.
    Wait,
    /// The note is of use no more: the generation was given up, or went over into another one.
    IsOver,
    /// The note is of use no more: the address is here again, and clients reach the service.
    IsBack,
    /// Its address is to be brought back.
    BringBack,
}

impl TakenAway {
    /// The address of a service is about to be taken away, to give this generation up. Answers whether that is news.
    pub fn note(&mut self, service: &ServiceName, generation: Generation) -> bool {
        self.0.insert(service.clone(), generation) != Some(generation)
    }

    /// A service is held in another generation from now on, while its release goes on. Answers whether the note has changed.
    pub fn goes_on_in(&mut self, service: &ServiceName, generation: Generation) -> bool {
        self.0.contains_key(service) && self.note(service, generation)
    }

    /// Nothing is to be brought back for this service. Answers whether something was noted.
    pub fn forget(&mut self, service: &ServiceName) -> bool {
        self.0.remove(service).is_some()
    }

    /// The noted services, each with the generation that was to be given up.
    pub fn noted(&self) -> impl Iterator<Item = (&ServiceName, Generation)> {
        self.0.iter().map(|(service, generation)| (service, *generation))
    }

    /// What follows for a service that stands like this. It is to be asked after a look into the store that told whose the service is.
    #[must_use]
    pub fn next(&self, service: &ServiceName, standing: Standing) -> Next {
        let Some(noted) = self.0.get(service) else { return Next::IsOver };
        match standing {
            Standing { is_released: true, .. } => Next::Wait,
            Standing { held, .. } if held != Some(*noted) => Next::IsOver,
            Standing { is_here: true, .. } => Next::IsBack,
            Standing { is_served: false, .. } => Next::Wait,
            _ => Next::BringBack,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nfs() -> ServiceName {
        ServiceName::parse("nfs").unwrap()
    }

    /// Held in generation 4, without its address, and nothing is on.
    const LEFT: Standing =
        Standing { held: Some(Generation(4)), is_released: false, is_here: false, is_served: true };

    fn noted() -> TakenAway {
        let mut taken = TakenAway::default();
        assert!(taken.note(&nfs(), Generation(4)) && !taken.note(&nfs(), Generation(4)));
        taken
    }

    #[test]
    fn an_address_that_a_release_took_away_comes_back_where_nothing_else_brings_it() {
        let next = |standing| noted().next(&nfs(), standing);
        assert_eq!(next(LEFT), Next::BringBack);
        assert_eq!(next(Standing { is_released: true, ..LEFT }), Next::Wait);
        assert_eq!(next(Standing { is_served: false, ..LEFT }), Next::Wait, "a run brings it");
        assert_eq!(next(Standing { is_here: true, ..LEFT }), Next::IsBack);
        assert_eq!(TakenAway::default().next(&nfs(), LEFT), Next::IsOver, "it was never taken away");
    }

    #[test]
    fn a_service_that_is_not_held_any_more_or_in_another_generation_is_left_alone() {
        for held in [None, Some(Generation(3)), Some(Generation(5))] {
            for is_here in [false, true] {
                let standing = Standing { held, is_here, ..LEFT };
                assert_eq!(noted().next(&nfs(), standing), Next::IsOver, "{held:?}");
            }
            let released = Standing { held, is_released: true, ..LEFT };
            assert_eq!(noted().next(&nfs(), released), Next::Wait, "its release ends the note by itself");
        }
    }

    #[test]
    fn a_generation_that_is_begun_while_the_release_is_on_is_the_one_that_is_given_up() {
        let mut taken = TakenAway::default();
        assert!(!taken.goes_on_in(&nfs(), Generation(5)), "nothing was taken away");
        taken = noted();
        assert!(taken.goes_on_in(&nfs(), Generation(5)) && !taken.goes_on_in(&nfs(), Generation(5)));
        assert_eq!(taken.next(&nfs(), Standing { held: Some(Generation(5)), ..LEFT }), Next::BringBack);
        assert!(taken.forget(&nfs()) && !taken.forget(&nfs()));
        assert_eq!(taken, TakenAway::default());
    }

    #[test]
    fn the_note_is_a_list_of_services_and_generations() {
        let text = r#"{"nfs":4}"#;
        assert_eq!(serde_json::from_str::<TakenAway>(text).unwrap(), noted());
        assert_eq!(serde_json::to_string(&noted()).unwrap(), text);
        assert!(serde_json::from_str::<TakenAway>(r#"{"../nfs":4}"#).is_err());
    }
}
