//! Which clients' names are looked up when their records are captured: at failover no name is asked for.

use std::collections::{BTreeMap, BTreeSet};

use heirlock_core::Moment;
use heirlock_nsm::MonName;

use crate::limits;

/// Names that were asked for.
#[derive(Debug, Default)]
pub struct Resolver {
    asked: BTreeSet<MonName>,
    answered: BTreeMap<MonName, Moment>,
}

impl Resolver {
    /// Names to be looked up that are not being looked up already: those whose address isn't known again after a while, and
    /// those that are known now and then, for a client may be moved.
    pub(crate) fn ask<'a>(
        &mut self,
        unresolved: &BTreeSet<MonName>,
        known: impl Iterator<Item = &'a MonName>,
        now: Moment,
    ) -> Vec<MonName> {
        let known: BTreeSet<&MonName> = known.collect();
        self.answered.retain(|name, _| unresolved.contains(name) || known.contains(name));
        let names = unresolved.iter().map(|name| (name, limits::RESOLVE_RETRY));
        let mut asked = Vec::new();
        for (name, again) in names.chain(known.iter().map(|name| (*name, limits::RESOLVE_REFRESH))) {
            let early = self.answered.get(name).is_some_and(|at| now.since(*at) < again);
            if !early && self.asked.len() < limits::RESOLVE_AT_ONCE_MAX && self.asked.insert(name.clone()) {
                asked.push(name.clone());
            }
        }
        asked
    }

    /// The answer came.
    pub(crate) fn answered(&mut self, name: &MonName, now: Moment) {
        self.asked.remove(name);
        self.answered.insert(name.clone(), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_asked_for_once_at_a_time_and_again_after_a_while_whatever_came_of_it() {
        let names = ["client1", "client2"].map(|name| MonName::parse(name).unwrap());
        let unresolved = BTreeSet::from([names[0].clone()]);
        let mut resolver = Resolver::default();
        let mut ask = |now, answered: bool| {
            if answered {
                names.iter().for_each(|name| resolver.answered(name, now));
            }
            resolver.ask(&unresolved, std::iter::once(&names[1]), now)
        };
        let began = Moment::START;
        assert_eq!(ask(began, false), names);
        assert_eq!(ask(began + limits::RESOLVE_REFRESH, false), [], "they are being looked up");
        assert_eq!(ask(began, true), [], "they were, just now");
        assert_eq!(ask(began + limits::RESOLVE_RETRY, false), names[..1]);
        assert_eq!(ask(began + limits::RESOLVE_REFRESH, false), names[1..]);
    }

    #[test]
    fn no_more_names_are_asked_for_at_a_time_than_may_be() {
        let names = |number: usize| MonName::parse(&format!("client{number}")).unwrap();
        let unresolved: BTreeSet<MonName> = (0..=limits::RESOLVE_AT_ONCE_MAX).map(names).collect();
        let mut resolver = Resolver::default();
        let asked = resolver.ask(&unresolved, std::iter::empty(), Moment::START);
        assert_eq!(asked.len(), limits::RESOLVE_AT_ONCE_MAX);
        resolver.answered(&asked[0], Moment::START);
        assert_eq!(resolver.ask(&unresolved, std::iter::empty(), Moment::START).len(), 1);
    }
}
