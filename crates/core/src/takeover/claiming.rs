//! How a run claims: one service after the other, and what each claim brings.

use std::collections::{BTreeSet, VecDeque};

use heirlock_nsm::StateNumber;

use super::{Claimed, End, Event, Part, Trouble};
use crate::claim::Claim;
use crate::names::{Generation, ServiceName};
use crate::records::{RecordKey, Records};

/// The services that a run claims, in order.
#[derive(Debug)]
pub struct Claiming {
    left: VecDeque<(ServiceName, Part)>,
    takes_over: bool,
    spares_own: bool,
    won: Vec<Claimed>,
    refused: Vec<(ServiceName, String)>,
    unread: Vec<ServiceName>,
}

impl Claiming {
    /// The services that [`super::Action::Claim`] asks for: targets first.
    #[must_use]
    pub fn new(services: Vec<(ServiceName, Part)>) -> Self {
        let takes_over = services.first().is_some_and(|(_, part)| *part == Part::Target);
        let (won, refused, unread) = (Vec::new(), Vec::new(), Vec::new());
        Self { left: services.into(), takes_over, spares_own: false, won, refused, unread }
    }

    /// Whether nothing of this server's own is claimed where nothing but first starts is taken over ([`Claimed::is_first`]):
    /// then no lock is dropped ([`super::Takeover::spares_own`]).
    #[must_use]
    pub fn sparing_own(self, spares_own: bool) -> Self {
        Self { spares_own: spares_own && self.takes_over, ..self }
    }

    /// Before the first claim: `look` looks for all that the claim of a service needs. A fault of the store would otherwise be
    /// met after another service was claimed, which can't be undone. Where one of several targets can't be had, the others are
    /// claimed. Where a service of this server's own can't be had, nothing is claimed: the answer is the event for the run.
    pub fn look_ahead(
        &self,
        mut look: impl FnMut(&ServiceName, Part) -> Result<(), String>,
    ) -> Option<Event> {
        let (mut refused, mut own_fails, mut a_target_is_left) = (Vec::new(), false, !self.takes_over);
        for (service, part) in &self.left {
            match look(service, *part) {
                Ok(()) => a_target_is_left |= *part == Part::Target,
                Err(why) => {
                    own_fails |= *part == Part::Own;
                    refused.push((service.clone(), why));
                }
            }
        }
        let nothing = own_fails || !a_target_is_left;
        nothing.then(|| Event::Claimed { won: Vec::new(), refused, unread: Vec::new() })
    }

    /// Takes out the service that is to be claimed next. None is left where all that was to be taken over was refused, or where
    /// nothing but first starts is: then nothing of this server's own is touched.
    pub fn take(&mut self) -> Option<ServiceName> {
        let (service, part) = self.left.pop_front()?;
        let targets_lost = self.takes_over && self.won.is_empty();
        let is_spared = self.spares_own && self.won.iter().all(Claimed::is_first);
        (part == Part::Target || !(targets_lost || is_spared)).then_some(service)
    }

    /// This one is ours now.
    pub fn won(&mut self, claimed: Claimed) {
        self.won.push(claimed);
    }

    /// This one is not.
    pub fn refused(&mut self, service: ServiceName, why: String) {
        self.refused.push((service, why));
    }

    /// This one is ours now, and what its claim brings can't be read.
    pub fn unread(&mut self, service: ServiceName, why: String) {
        self.unread.push(service.clone());
        self.refused.push((service, why));
    }

    /// The event for the run.
    #[must_use]
    pub fn over(self) -> Event {
        Event::Claimed { won: self.won, refused: self.refused, unread: self.unread }
    }
}

impl End {
    /// Of a run that can't begin with what was claimed for it: nothing was changed, or some services are this server's.
    #[must_use]
    pub(super) fn before_the_beginning(
        won: Vec<Claimed>,
        refused: &[(ServiceName, String)],
        unread: Vec<ServiceName>,
    ) -> Self {
        // A store that fails is the reason for each of them.
        let mut reasons: Vec<&str> = Vec::new();
        for (_, why) in refused {
            if !reasons.contains(&why.as_str()) {
                reasons.push(why);
            }
        }
        let why = reasons.join("; ");
        let claimed: Vec<ServiceName> = won.into_iter().map(|one| one.service).chain(unread).collect();
        if claimed.is_empty() { Self::Refused(why) } else { Self::Unbegun { why, claimed } }
    }

    /// Whether the run never began: then another life of the lock manager has not been acted on yet.
    #[must_use]
    pub fn is_before_the_beginning(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Unbegun { .. })
    }
}

/// The content of the generation before a claim, read after the claim: the owner before adds nothing any more.
#[derive(Debug, Clone, Default)]
pub struct Base {
    /// Its records.
    pub records: Records,
    /// Every state number that may have been sent for the service, by this server, by the owner before, or in that
    /// generation.
    pub sent: Vec<StateNumber>,
    /// The entries of it that can't be read.
    pub troubles: Vec<Trouble>,
}

/// This server's knowledge of a service that it held when it claimed it again.
#[derive(Debug)]
pub struct HeldBefore<'a> {
    /// Its records, as far as they are known to be durable.
    pub records: &'a Records,
    /// Clients that were told in the life that runs.
    pub told: BTreeSet<RecordKey>,
    /// It was this server's own until the claim, as far as the store can still tell.
    pub is_own: bool,
}

impl Claimed {
    /// Whether no server ever claimed the service before, as far as any is known: no client has a lock that could be recovered.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.generation == Generation::FIRST && self.records.is_empty() && self.troubles.is_empty()
    }

    /// The service that a claim brings to the run that made it.
    #[must_use]
    pub fn new(service: ServiceName, claim: &Claim, base: Base, held: Option<HeldBefore<'_>>) -> Self {
        let Base { mut records, sent, troubles } = base;
        let mut told = BTreeSet::new();
        if let Some(held) = held {
            // This server's knowledge of its own service counts, also where the store was lost.
            if held.is_own {
                for (key, record) in held.records {
                    records.insert_if_absent(key, || record.clone());
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
    use crate::names::ServerName;

    fn service(name: &str) -> ServiceName {
        ServiceName::parse(name).unwrap()
    }

    fn claim(adopts: bool) -> Claim {
        let us = ServerName::parse("nfs-b").unwrap();
        Claim { adopts, ..Claim::new(Generation(4), &us, "agent", 0) }
    }

    fn records(of: &[(&str, &str)]) -> Records {
        of.iter().map(|(name, record)| (RecordKey::parse(name).unwrap(), *record)).collect()
    }

    fn won(name: &str) -> Claimed {
        Claimed::new(service(name), &claim(true), Base::default(), None)
    }

    #[test]
    fn services_that_are_refused_for_one_reason_have_it_said_once() {
        let refused = [("nfs", "the store fails"), ("own", "the store fails"), ("homes", "taken")];
        let refused = refused.map(|(name, why)| (service(name), why.to_owned()));
        let end = End::before_the_beginning(Vec::new(), &refused, Vec::new());
        assert_eq!(end, End::Refused("the store fails; taken".to_owned()));
    }

    #[test]
    fn a_run_whose_targets_are_all_refused_touches_no_service_of_its_own_server() {
        let services = [("nfs", Part::Target), ("homes", Part::Target), ("own", Part::Own)];
        let services = services.map(|(name, part)| (service(name), part)).to_vec();
        let mut claiming = Claiming::new(services.clone());
        while let Some(next) = claiming.take() {
            assert_ne!(next, service("own"));
            claiming.refused(next, "taken".into());
        }
        let Event::Claimed { won: none, refused, .. } = claiming.over() else { panic!() };
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
        let Event::Claimed { won, refused, .. } = claiming.over() else { panic!() };
        assert_eq!((won.len(), refused.len()), (2, 1));
    }

    #[test]
    fn a_first_start_touches_no_service_of_its_own_server_that_is_not_owed_anything() {
        let services =
            || [("nfs", Part::Target), ("own", Part::Own)].map(|(name, part)| (service(name), part));
        let asked = |spares_own, generation| {
            let mut claiming = Claiming::new(services().to_vec()).sparing_own(spares_own);
            let mut asked = 0;
            while let Some(next) = claiming.take() {
                asked += 1;
                claiming.won(Claimed { generation, ..won(next.as_str()) });
            }
            asked
        };
        assert_eq!(asked(true, Generation::FIRST), 1);
        assert_eq!((asked(false, Generation::FIRST), asked(true, Generation(2))), (2, 2));
        let mut own = Claiming::new(vec![(service("own"), Part::Own)]).sparing_own(true);
        assert_eq!(own.take(), Some(service("own")), "a self-adoption");
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
    fn nothing_is_claimed_where_a_service_of_our_own_can_not_be_or_no_target_can() {
        let services = [("nfs", Part::Target), ("homes", Part::Target), ("own", Part::Own)];
        let services = services.map(|(name, part)| (service(name), part)).to_vec();
        let refused = |services: &[(ServiceName, Part)], fails: &[&str]| {
            let look = |service: &ServiceName, _| match fails.contains(&service.as_str()) {
                true => Err("torn".to_owned()),
                false => Ok(()),
            };
            match Claiming::new(services.to_vec()).look_ahead(look)? {
                Event::Claimed { won, refused, unread } if won.is_empty() && unread.is_empty() => {
                    Some(refused.into_iter().map(|(service, _)| service.to_string()).collect::<Vec<_>>())
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(refused(&services, &[]), None);
        assert_eq!(refused(&services, &["nfs"]), None, "the other target is left");
        assert_eq!(refused(&services, &["nfs", "homes"]).unwrap(), ["nfs", "homes"]);
        assert_eq!(refused(&services, &["own"]).unwrap(), ["own"]);
        let own = [(service("own"), Part::Own), (service("homes"), Part::Own)];
        assert_eq!(refused(&own, &[]), None);
        assert_eq!(refused(&own, &["homes"]).unwrap(), ["homes"], "all are asked for again");
    }

    #[test]
    fn a_refusal_after_a_claim_names_what_was_claimed() {
        let refused = [(service("new"), "the store fails".to_owned())];
        let end = |won: Vec<Claimed>, unread: &[&str]| {
            let unread = unread.iter().map(|name| service(name)).collect();
            let end = End::before_the_beginning(won, &refused, unread);
            assert!(end.is_before_the_beginning());
            match end {
                End::Unbegun { why, claimed } if why == "the store fails" => {
                    claimed.iter().map(ServiceName::to_string).collect()
                }
                End::Refused(why) if why == "the store fails" => Vec::new(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(end(Vec::new(), &[]), Vec::<String>::new());
        assert_eq!(end(Vec::new(), &["new"]), ["new"]);
        assert_eq!(end(vec![won("nfs")], &["new"]), ["nfs", "new"]);
        assert_eq!(end(vec![won("nfs")], &[]), ["nfs"]);
    }

    #[test]
    fn this_servers_knowledge_of_its_own_service_counts_and_of_one_that_it_takes_over_it_does_not() {
        let (stored, known) =
            (records(&[("10.0.0.1", "store")]), records(&[("10.0.0.1", "we"), ("10.0.0.2", "we")]));
        let told = BTreeSet::from([RecordKey::parse("10.0.0.2").unwrap()]);
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
