//! Which server adopts a service without being asked, once the heart of the service's owner is silent.
//!
//! A service may name its candidates, in the order of preference. Every server knows the same of all services from the store: whose
//! they are, and which servers live. So each server computes the same turns ([`turns`]), and acts where the turn is its own
//! ([`is_turn_of`]). No server tells another one what to do. Where two servers see different hearts for a moment, both may act: the
//! first claim wins, and the second one is refused ([`crate::claim`]).
//!
//! A candidate that does not act within its time is followed by the next one, and keeps its right to act. So a service with one
//! candidate that lives and can adopt it does not stay without a server.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::limits::CANDIDATES_MAX;
use crate::names::{ServerName, ServiceName};

/// The servers that may adopt a service without being asked: groups in the order of preference. The servers of one group are
/// equally preferred. There is at least one server, none is there twice, and no group is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates(Vec<BTreeSet<ServerName>>);

/// Why a list of candidates says nothing that could be followed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CandidatesError {
    /// No server could adopt the service.
    #[error("expected at least one server, found an empty list")]
    Empty,
    /// A server has two places in the order.
    #[error("{0} is there twice; take one out")]
    Twice(ServerName),
    /// More than the bound.
    #[error("expected at most {CANDIDATES_MAX} servers, found {0}")]
    TooMany(usize),
}

impl Candidates {
    /// The groups in the order of preference.
    ///
    /// # Errors
    /// Where there is no server, a group is empty, a server is there twice, or there are more than [`CANDIDATES_MAX`].
    pub fn new(groups: Vec<Vec<ServerName>>) -> Result<Self, CandidatesError> {
        if groups.is_empty() || groups.iter().any(Vec::is_empty) {
            return Err(CandidatesError::Empty);
        }
        let mut known = BTreeSet::new();
        if let Some(twice) = groups.iter().flatten().find(|server| !known.insert((*server).clone())) {
            return Err(CandidatesError::Twice(twice.clone()));
        }
        if known.len() > CANDIDATES_MAX {
            return Err(CandidatesError::TooMany(known.len()));
        }
        Ok(Self(groups.into_iter().map(|group| group.into_iter().collect()).collect()))
    }

    /// All of them, the most preferred first; equally preferred ones by name.
    pub fn servers(&self) -> impl Iterator<Item = &ServerName> {
        self.0.iter().flatten()
    }

    /// Whether this server is one.
    #[must_use]
    pub fn contains(&self, server: &ServerName) -> bool {
        self.0.iter().any(|group| group.contains(server))
    }
}

/// For people, and for comparing two servers' configurations: `nfs-b = nfs-c > nfs-d`.
impl fmt::Display for Candidates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, group) in self.0.iter().enumerate() {
            let names: Vec<&str> = group.iter().map(ServerName::as_str).collect();
            write!(f, "{}{}", if number == 0 { "" } else { " > " }, names.join(" = "))?;
        }
        Ok(())
    }
}

/// For each service whose owner is silent: its candidates that live, in the order of their turns.
///
/// `owned` says how many services each server has. Of equally preferred servers the one with the fewest comes first, and of those with
/// equally many the first by name. A service counts for the server that is to adopt it, before the next service is looked at; services
/// are looked at by name. So the services of one dead server are spread. What a server has adopted already counts for it as what it was
/// to adopt did: the turns of the remaining services stay the same while each server adopts its own, by name.
#[must_use]
pub fn turns<'a>(
    orphans: impl IntoIterator<Item = (&'a ServiceName, &'a Candidates)>,
    living: &BTreeSet<ServerName>,
    owned: &BTreeMap<ServerName, usize>,
) -> BTreeMap<ServiceName, Vec<ServerName>> {
    let by_name: BTreeMap<&ServiceName, &Candidates> = orphans.into_iter().collect();
    let mut load = owned.clone();
    let mut turns = BTreeMap::new();
    for (service, candidates) in by_name {
        let mut of_service: Vec<ServerName> = Vec::new();
        for group in &candidates.0 {
            let mut group: Vec<&ServerName> = group.intersection(living).collect();
            group.sort_by_key(|server| (load.get(*server).copied().unwrap_or(0), (*server).clone()));
            of_service.extend(group.into_iter().cloned());
        }
        if let Some(first) = of_service.first() {
            *load.entry(first.clone()).or_default() += 1;
        }
        turns.insert(service.clone(), of_service);
    }
    turns
}

/// Whether `who` may act on the silence of a service's owner, `waited` after that silence was first believed. The first of `turns` may
/// act at once, and each further one after another `each`. `each` is longer than zero.
#[must_use]
pub fn is_turn_of(turns: &[ServerName], who: &ServerName, waited: Duration, each: Duration) -> bool {
    let place = turns.iter().position(|server| server == who).and_then(|place| u32::try_from(place).ok());
    place.is_some_and(|place| waited >= each.saturating_mul(place))
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, btree_set, vec};
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
    use proptest::strategy::Strategy;

    use super::*;

    const EACH: Duration = Duration::from_secs(30);

    fn server(name: &str) -> ServerName {
        ServerName::parse(name).unwrap()
    }

    fn service(name: &str) -> ServiceName {
        ServiceName::parse(name).unwrap()
    }

    fn candidates(groups: &[&[&str]]) -> Candidates {
        let group = |names: &&[&str]| names.iter().map(|name| server(name)).collect();
        Candidates::new(groups.iter().map(group).collect()).unwrap()
    }

    fn set(names: &[&str]) -> BTreeSet<ServerName> {
        names.iter().map(|name| server(name)).collect()
    }

    fn first(turns: &BTreeMap<ServiceName, Vec<ServerName>>, name: &str) -> Option<String> {
        turns[&service(name)].first().map(ToString::to_string)
    }

    #[test]
    fn a_list_that_could_not_be_followed_is_none() {
        let new = |groups: &[&[&str]]| {
            let group = |names: &&[&str]| names.iter().map(|name| server(name)).collect();
            Candidates::new(groups.iter().map(group).collect()).map_err(|error| error.to_string())
        };
        assert!(new(&[]).unwrap_err().contains("at least one server"));
        assert!(new(&[&["nfs-b"], &[]]).unwrap_err().contains("at least one server"));
        assert!(new(&[&["nfs-b"], &["nfs-c", "nfs-b"]]).unwrap_err().contains("nfs-b is there twice"));
        let names: Vec<String> = (0..=CANDIDATES_MAX).map(|number| format!("nfs-{number}")).collect();
        let many: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(new(&[&many]).unwrap_err().contains("at most"));
        assert_eq!(candidates(&[&["nfs-c", "nfs-b"], &["nfs-d"]]).to_string(), "nfs-b = nfs-c > nfs-d");
    }

    #[test]
    fn a_preferred_server_that_lives_comes_first_and_a_silent_one_never() {
        let order = candidates(&[&["nfs-b"], &["nfs-c"]]);
        let name = service("nfs");
        let of = |living: &[&str]| turns([(&name, &order)], &set(living), &BTreeMap::new());
        assert_eq!(of(&["nfs-c", "nfs-b"])[&name], [server("nfs-b"), server("nfs-c")]);
        assert_eq!(of(&["nfs-c"])[&name], [server("nfs-c")]);
        assert_eq!(of(&["nfs-d"])[&name], [], "a server that isn't named adopts nothing");
    }

    #[test]
    fn services_of_equally_preferred_servers_are_spread_by_how_many_each_has() {
        let equal = candidates(&[&["nfs-b", "nfs-c"]]);
        let names = ["a", "b", "c"].map(service);
        let orphans = || names.iter().map(|name| (name, &equal));
        let living = set(&["nfs-b", "nfs-c"]);
        let idle = turns(orphans(), &living, &BTreeMap::new());
        assert_eq!(["a", "b", "c"].map(|name| first(&idle, name).unwrap()), ["nfs-b", "nfs-c", "nfs-b"]);
        let busy = turns(orphans(), &living, &[(server("nfs-b"), 2)].into());
        assert_eq!(["a", "b", "c"].map(|name| first(&busy, name).unwrap()), ["nfs-c", "nfs-c", "nfs-b"]);
    }

    #[test]
    fn the_next_candidate_acts_when_those_before_it_had_their_time_and_they_may_act_still() {
        let order = ["nfs-b", "nfs-c", "nfs-d"].map(server);
        let who = |waited: u64| -> Vec<&str> {
            let waited = Duration::from_secs(waited);
            let may = |server: &&ServerName| is_turn_of(&order, server, waited, EACH);
            order.iter().filter(may).map(ServerName::as_str).collect()
        };
        assert_eq!(who(0), ["nfs-b"]);
        assert_eq!(who(29), ["nfs-b"]);
        assert_eq!(who(30), ["nfs-b", "nfs-c"]);
        assert_eq!(who(60), ["nfs-b", "nfs-c", "nfs-d"]);
        assert!(!is_turn_of(&order, &server("nfs-e"), Duration::MAX, EACH));
    }

    /// Names of six servers.
    fn servers() -> impl Strategy<Value = ServerName> {
        (0..6_u8).prop_map(|number| server(&format!("nfs-{number}")))
    }

    /// Up to six servers, cut into groups.
    fn some_candidates() -> impl Strategy<Value = Candidates> {
        let cuts = vec(proptest::bool::ANY, 6);
        (btree_set(servers(), 1..6), cuts).prop_map(|(servers, cuts)| {
            let mut groups: Vec<Vec<ServerName>> = vec![Vec::new()];
            for (server, cut) in servers.into_iter().zip(cuts) {
                if cut && groups.last().is_some_and(|last| !last.is_empty()) {
                    groups.push(Vec::new());
                }
                groups.last_mut().unwrap().push(server);
            }
            groups.reverse(); // else the order of preference is always that of the names
            Candidates::new(groups).unwrap()
        })
    }

    fn orphans() -> impl Strategy<Value = BTreeMap<ServiceName, Candidates>> {
        let name = (0..12_u8).prop_map(|number| service(&format!("home-{number:02}")));
        btree_map(name, some_candidates(), 1..9)
    }

    fn group_of<'a>(candidates: &'a Candidates, of: &ServerName) -> &'a BTreeSet<ServerName> {
        candidates.0.iter().find(|group| group.contains(of)).unwrap()
    }

    proptest! {
        /// One taker for each service of which a candidate lives, and among the most preferred of those that live; the same one
        /// whatever the order in which services are told.
        #[test]
        fn each_service_has_one_taker_among_the_most_preferred_of_those_that_live(
            orphans in orphans(),
            living in btree_set(servers(), 0..6),
            owned in btree_map(servers(), 0..5_usize, 0..6),
        ) {
            let found = turns(&orphans, &living, &owned);
            prop_assert_eq!(&found, &turns(orphans.iter().rev(), &living, &owned));
            for (name, candidates) in &orphans {
                let acts = |who: &&ServerName| is_turn_of(&found[name], who, Duration::ZERO, EACH);
                let takers: Vec<&ServerName> = living.iter().filter(acts).collect();
                let preferred = candidates.0.iter().find(|group| !group.is_disjoint(&living));
                prop_assert_eq!(takers.len(), usize::from(preferred.is_some()), "{}: {:?}", name, takers);
                prop_assert!(takers.iter().all(|taker| preferred.unwrap().contains(*taker)));
                // In the end every candidate that lives may act, and no other server.
                let late: BTreeSet<&ServerName> = living
                    .iter()
                    .filter(|who| is_turn_of(&found[name], who, EACH * 6, EACH))
                    .collect();
                let able: BTreeSet<&ServerName> = candidates.servers().filter(|one| living.contains(*one)).collect();
                prop_assert_eq!(late, able);
            }
        }

        /// No server is given a service while an equally preferred one has two fewer: where two live that have equally many,
        /// two services go to two servers.
        #[test]
        fn equally_preferred_servers_share(
            names in 1..9_u8,
            order in some_candidates(),
            living in btree_set(servers(), 1..6),
            owned in btree_map(servers(), 0..5_usize, 0..6),
        ) {
            let names: Vec<ServiceName> = (0..names).map(|number| service(&format!("s{number}"))).collect();
            let found = turns(names.iter().map(|name| (name, &order)), &living, &owned);
            let mut load = owned.clone();
            for taker in names.iter().filter_map(|name| found[name].first()) {
                *load.entry(taker.clone()).or_default() += 1;
            }
            let of = |server: &ServerName| load.get(server).copied().unwrap_or(0);
            for taker in names.iter().filter_map(|name| found[name].first()) {
                for other in group_of(&order, taker).intersection(&living) {
                    prop_assert!(of(taker) <= of(other) + 1, "{} has {}, {} has {}", taker, of(taker), other, of(other));
                }
            }
        }

        /// While the takers adopt, each its own services by name and at its own pace, the remaining services have the takers
        /// that they had.
        #[test]
        fn what_was_adopted_changes_no_other_services_taker(
            orphans in orphans(),
            living in btree_set(servers(), 1..6),
            owned in btree_map(servers(), 0..5_usize, 0..6),
            pace in vec(0..9_usize, 6),
        ) {
            let before = turns(&orphans, &living, &owned);
            let (mut left, mut load) = (orphans.clone(), owned.clone());
            for (server, pace) in living.iter().zip(pace) {
                let own = |name: &&ServiceName| before[*name].first() == Some(server);
                for name in orphans.keys().filter(own).take(pace) {
                    left.remove(name);
                    *load.entry(server.clone()).or_default() += 1;
                }
            }
            let after = turns(&left, &living, &load);
            for name in left.keys() {
                prop_assert_eq!(before[name].first(), after[name].first(), "{}", name);
            }
        }
    }
}
