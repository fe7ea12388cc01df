//! Services that another server has claimed from this one, while their address is on this server still. Clients that reach
//! it lock with a lock manager that is not theirs any more: the server that serves them by right knows nothing of those
//! locks, and a restart of NFS here would drop them untold (I3).

use std::collections::BTreeMap;

use crate::claim::Claim;
use crate::names::{Generation, ServerName, ServiceName};
use crate::takeover::{Strategy, Takeover};

/// A service that another server holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Left {
    /// Of which claim.
    generation: Generation,
    owner: ServerName,
    /// It was claimed from this server.
    was_ours: bool,
    /// Its address is on this server.
    is_here: bool,
}

/// The services that other servers hold, and whose address was on this server.
#[derive(Debug, Clone, Default)]
pub struct LeftBehind(BTreeMap<ServiceName, Left>);

impl LeftBehind {
    /// Another server holds this service, or it was given up. Answers whether its address is to be taken away now: it was
    /// claimed from this server, and its address is here, which is news.
    ///
    /// `was_ours` says whether a generation before this claim is this server's ([`was_held_by`]): it is asked once for each
    /// claim, and only where the address is here.
    ///
    /// # Errors
    /// Where `was_ours` fails. Then nothing is noted, and the next call asks again.
    pub fn note<E>(
        &mut self,
        us: &ServerName,
        service: &ServiceName,
        claim: &Claim,
        has_address: bool,
        was_ours: impl FnOnce() -> Result<bool, E>,
    ) -> Result<bool, E> {
        let is_here = has_address && !claim.released;
        let known = self.0.get(service).filter(|known| known.generation == claim.generation);
        let was_here = known.is_some_and(|known| known.is_here);
        let was_ours = match known {
            Some(known) => known.was_ours,
            None if is_here && claim.owner != *us => was_ours()?,
            None => return Ok(false),
        };
        let (generation, owner) = (claim.generation, claim.owner.clone());
        self.0.insert(service.clone(), Left { generation, owner, was_ours, is_here });
        Ok(is_here && was_ours && !was_here)
    }

    /// The services whose address is here and should not be, each with its owner; `is_held` says which ones this server
    /// holds again.
    pub fn here<'a>(
        &'a self,
        is_held: impl Fn(&ServiceName) -> bool + 'a,
    ) -> impl Iterator<Item = (&'a ServiceName, &'a ServerName)> + 'a {
        let left = self.0.iter().filter(|(_, left)| left.is_here && left.was_ours);
        left.filter(move |(service, _)| !is_held(service)).map(|(service, left)| (service, &left.owner))
    }

    /// A service whose locks this run would drop by this strategy without telling its clients, and whose it is. Whether its
    /// address is here still is asked once more: it may have been taken away since it was noted.
    pub fn dropped_by<'a>(
        &'a self,
        run: &Takeover,
        strategy: Strategy,
        is_held: impl Fn(&ServiceName) -> bool + 'a,
        has_address: impl Fn(&ServiceName) -> bool,
    ) -> Option<(&'a ServiceName, &'a ServerName)> {
        self.here(is_held)
            .find(|(service, _)| run.would_drop_untold(strategy, service) && has_address(service))
    }
}

/// Whether a generation before this claim is this server's. `newest` looks up the newest generation that is no later than
/// the one it is given, and the server whose journal begins it, where that can be read.
///
/// # Errors
/// Where `newest` fails.
pub fn was_held_by<E>(
    us: &ServerName,
    claim: &Claim,
    mut newest: impl FnMut(Generation) -> Result<Option<(Generation, Option<ServerName>)>, E>,
) -> Result<bool, E> {
    let mut before = claim.generation.before();
    while let Some(at_most) = before {
        let Some((generation, server)) = newest(at_most)? else { return Ok(false) };
        if server.as_ref() == Some(us) {
            return Ok(true);
        }
        before = generation.before();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn server(name: &str) -> ServerName {
        ServerName::parse(name).unwrap()
    }

    fn nfs() -> ServiceName {
        ServiceName::parse("nfs").unwrap()
    }

    fn claim(generation: u64, owner: &str) -> Claim {
        Claim::new(Generation(generation), &server(owner), "agent", 0)
    }

    fn note(left: &mut LeftBehind, claim: &Claim, has_address: bool, was_ours: bool) -> bool {
        let asked = || Ok::<_, Infallible>(was_ours);
        left.note(&server("nfs-a"), &nfs(), claim, has_address, asked).unwrap()
    }

    fn names(left: &LeftBehind) -> Vec<&str> {
        left.here(|_| false).map(|(_, owner)| owner.as_str()).collect()
    }

    #[test]
    fn an_address_is_taken_away_when_it_is_seen_here_and_again_when_it_came_back() {
        let (mut left, theirs) = (LeftBehind::default(), claim(2, "nfs-b"));
        assert!(!note(&mut left, &theirs, false, true) && names(&left).is_empty());
        assert!(note(&mut left, &theirs, true, true), "news");
        assert!(!note(&mut left, &theirs, true, true), "known");
        assert_eq!(names(&left), ["nfs-b"]);
        assert_eq!(left.here(|_| true).count(), 0, "this server holds it again");
        assert!(!note(&mut left, &theirs, false, true) && names(&left).is_empty(), "gone");
        assert!(note(&mut left, &theirs, true, true), "here again");
        assert!(note(&mut left, &claim(3, "nfs-c"), true, true), "another claim is news of its own");
        assert_eq!(names(&left), ["nfs-c"]);
    }

    #[test]
    fn a_service_that_was_never_this_servers_or_was_given_up_or_is_its_own_has_its_address_left_alone() {
        let mut left = LeftBehind::default();
        assert!(!note(&mut left, &claim(2, "nfs-b"), true, false));
        assert!(!note(&mut left, &Claim { released: true, ..claim(3, "nfs-b") }, true, true));
        assert!(!note(&mut left, &claim(4, "nfs-a"), true, true));
        assert!(names(&left).is_empty());
    }

    #[test]
    fn the_store_is_asked_once_for_a_claim_and_again_where_it_failed() {
        let (mut left, theirs, us) = (LeftBehind::default(), claim(2, "nfs-b"), server("nfs-a"));
        assert_eq!(left.note(&us, &nfs(), &theirs, true, || Err("it fails")), Err("it fails"));
        assert_eq!(left.note(&us, &nfs(), &theirs, true, || Ok::<_, &str>(true)), Ok(true));
        assert_eq!(left.note(&us, &nfs(), &theirs, true, || Err("it is not asked")), Ok(false));
    }

    #[test]
    fn all_generations_before_a_claim_are_asked_about_newest_first() {
        let us = server("nfs-a");
        let kept = [(1, "nfs-a"), (3, "nfs-b"), (4, "nfs-c")];
        let asked = |kept: &[(u64, &str)], of: u64| {
            was_held_by(&us, &claim(of, "nfs-d"), |at_most| {
                let newest = kept.iter().rev().find(|(generation, _)| Generation(*generation) <= at_most);
                Ok::<_, Infallible>(newest.map(|(g, owner)| (Generation(*g), Some(server(owner)))))
            })
            .unwrap()
        };
        assert!(asked(&kept, 5) && asked(&kept, 2));
        assert!(!asked(&kept, 1), "none comes before the first");
        assert!(!asked(&kept[1..], 5), "of a removed generation nothing is known");
        assert!(!asked(&[], 5));
        let unread = was_held_by(&us, &claim(2, "nfs-b"), |g| Ok::<_, Infallible>(Some((g, None))));
        assert_eq!(unread, Ok(false), "a journal that can't be read names no owner");
        assert_eq!(was_held_by(&us, &claim(2, "nfs-b"), |_| Err("it fails")), Err("it fails"));
    }
}
