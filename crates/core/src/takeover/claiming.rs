//! How a run claims: one service after the other, and what each claim brings.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use heirlock_nsm::{MonName, StateNumber};

use super::{Claimed, Event, Part, Trouble};
use crate::claim::Claim;
use crate::names::ServiceName;

/// The services that a run claims, in order.
#[derive(Debug)]
pub struct Claiming {
    left: VecDeque<(ServiceName, Part)>,
    takes_over: bool,
    won: Vec<Claimed>,
    refused: Vec<(ServiceName, String)>,
}

impl Claiming {
    /// What [`super::Action::Claim`] asks for: targets first.
    #[must_use]
    pub fn new(services: Vec<(ServiceName, Part)>) -> Self {
        let takes_over = services.first().is_some_and(|(_, part)| *part == Part::Target);
        Self { left: services.into(), takes_over, won: Vec::new(), refused: Vec::new() }
    }

    /// Takes out the service that is to be claimed next. None is left where all that was to be taken over was refused: then
    /// nothing of this server's own is touched.
    pub fn take(&mut self) -> Option<ServiceName> {
        let (service, part) = self.left.pop_front()?;
        let targets_lost = self.takes_over && part == Part::Own && self.won.is_empty();
        (!targets_lost).then_some(service)
    }

    /// This one is ours now.
    pub fn won(&mut self, claimed: Claimed) {
        self.won.push(claimed);
    }

    /// This one is not.
    pub fn refused(&mut self, service: ServiceName, why: String) {
        self.refused.push((service, why));
    }

    /// What the run is told.
    #[must_use]
    pub fn over(self) -> Event {
        Event::Claimed { won: self.won, refused: self.refused }
    }
}

/// What the generation before a claim holds, read after the claim: the owner before adds nothing any more.
#[derive(Debug, Clone, Default)]
pub struct Base {
    /// Its records.
    pub records: BTreeMap<MonName, Vec<u8>>,
    /// Every state number that may have been sent for the service, by this server, by the owner before, or in that
    /// generation.
    pub sent: Vec<StateNumber>,
    /// What can't be read of it.
    pub troubles: Vec<Trouble>,
}

/// What this server knows of a service that it held when it claimed it again.
#[derive(Debug)]
pub struct HeldBefore<'a> {
    /// Its records, as far as they are known to be durable.
    pub records: &'a BTreeMap<MonName, Vec<u8>>,
    /// Clients that were told in the life that runs.
    pub told: BTreeSet<MonName>,
    /// It was this server's own until the claim, as far as the store can still tell.
    pub is_own: bool,
}

impl Claimed {
    /// What a claim brings to the run that made it.
    #[must_use]
    pub fn new(service: ServiceName, claim: &Claim, base: Base, held: Option<HeldBefore<'_>>) -> Self {
        let Base { mut records, sent, troubles } = base;
        let mut told = BTreeSet::new();
        if let Some(held) = held {
            // What this server knows of its own service counts, whatever became of the store.
            if held.is_own {
                for (client, bytes) in held.records {
                    records.entry(client.clone()).or_insert_with(|| bytes.clone());
                }
            }
            told = held.told;
        }
        Self { service, generation: claim.generation, records, sent, told, troubles }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{Generation, ServerName};

    fn service(name: &str) -> ServiceName {
        ServiceName::parse(name).unwrap()
    }

    fn claim(adopts: bool) -> Claim {
        let us = ServerName::parse("nfs-b").unwrap();
        Claim { adopts, ..Claim::new(Generation(4), &us, "agent", 0) }
    }

    fn records(of: &[(&str, &str)]) -> BTreeMap<MonName, Vec<u8>> {
        of.iter().map(|(name, record)| (MonName::parse(name).unwrap(), record.as_bytes().to_vec())).collect()
    }

    fn won(name: &str) -> Claimed {
        Claimed::new(service(name), &claim(true), Base::default(), None)
    }

    #[test]
    fn where_all_that_was_to_be_taken_over_is_refused_nothing_of_our_own_is_touched() {
        let services = [("nfs", Part::Target), ("homes", Part::Target), ("own", Part::Own)];
        let services = services.map(|(name, part)| (service(name), part)).to_vec();
        let mut claiming = Claiming::new(services.clone());
        while let Some(next) = claiming.take() {
            assert_ne!(next, service("own"));
            claiming.refused(next, "taken".into());
        }
        let Event::Claimed { won: none, refused } = claiming.over() else { panic!() };
        assert_eq!((none.len(), refused.len()), (0, 2));

        let mut claiming = Claiming::new(services);
        let mut asked = Vec::new();
        while let Some(next) = claiming.take() {
            asked.push(next.to_string());
            match next == service("nfs") {
                true => claiming.refused(next, "taken".into()),
                false => claiming.won(won(next.as_str())),
            }
        }
        assert_eq!(asked, ["nfs", "homes", "own"], "one of them was won");
        let Event::Claimed { won, refused } = claiming.over() else { panic!() };
        assert_eq!((won.len(), refused.len()), (2, 1));
    }

    #[test]
    fn a_self_adoption_claims_each_service_whatever_became_of_the_others() {
        let mut claiming = Claiming::new(["a", "b"].map(|name| (service(name), Part::Own)).to_vec());
        let mut asked = 0;
        while let Some(next) = claiming.take() {
            claiming.refused(next, "the store fails".into());
            asked += 1;
        }
        assert_eq!(asked, 2);
    }

    #[test]
    fn what_this_server_knows_of_its_own_service_counts_and_of_what_it_takes_over_it_does_not() {
        let (stored, known) =
            (records(&[("10.0.0.1", "store")]), records(&[("10.0.0.1", "we"), ("10.0.0.2", "we")]));
        let told = BTreeSet::from([MonName::parse("10.0.0.2").unwrap()]);
        for (is_own, expected) in
            [(true, records(&[("10.0.0.1", "store"), ("10.0.0.2", "we")])), (false, stored.clone())]
        {
            let base = Base { records: stored.clone(), ..Base::default() };
            let held = HeldBefore { records: &known, told: told.clone(), is_own };
            let claimed = Claimed::new(service("nfs"), &claim(!is_own), base, Some(held));
            assert_eq!((claimed.records, claimed.told), (expected, told.clone()));
            assert_eq!(claimed.generation, Generation(4));
        }
    }
}
