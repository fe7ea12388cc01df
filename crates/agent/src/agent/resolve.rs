//! Which clients' names are looked up when their records are captured: at failover no name is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use heirlock_core::Moment;
use heirlock_nsm::MonName;

use crate::limits;

/// Names that were asked for.
#[derive(Debug, Default)]
pub struct Resolver {
    /// Each is being looked up since this moment.
    asked: BTreeMap<MonName, Moment>,
    answered: BTreeMap<MonName, Moment>,
    /// As many names as may be are being looked up, and the name service answers for none of them.
    hangs: bool,
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
            if early || self.asked.contains_key(name) {
                continue;
            }
            if self.asked.len() >= limits::RESOLVE_AT_ONCE_MAX {
                self.say_if_it_hangs(now);
                break;
            }
            self.asked.insert(name.clone(), now);
            asked.push(name.clone());
        }
        asked
    }

    /// The answer came.
    pub(crate) fn answered(&mut self, name: &MonName, now: Moment) {
        self.asked.remove(name);
        self.answered.insert(name.clone(), now);
        if std::mem::take(&mut self.hangs) {
            tracing::info!("the name service answers again: the names of clients are looked up");
        }
    }

    /// No name more can be looked up: either many are being looked up, or the name service answers for none of them.
    fn say_if_it_hangs(&mut self, now: Moment) {
        let waited = self.asked.values().max().map_or(Duration::ZERO, |youngest| now.since(*youngest));
        if waited >= limits::RESOLVE_TIME_MAX && !std::mem::replace(&mut self.hangs, true) {
            tracing::error!(
                names = self.asked.len(),
                "the name service has answered for none of {} names in {} s: no other name of a client is looked up until it does",
                self.asked.len(),
                waited.as_secs()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_asked_for_once_at_a_time_and_again_after_a_while_found_or_not() {
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

    #[test]
    fn a_name_service_that_answers_for_no_name_is_asked_for_no_more_names_and_said_once() {
        let names = |count: usize| -> BTreeSet<MonName> {
            (0..count).map(|number| MonName::parse(&format!("client{number}")).unwrap()).collect()
        };
        let mut resolver = Resolver::default();
        let began = Moment::START + Duration::from_secs(1);
        let all = names(limits::RESOLVE_AT_ONCE_MAX * 2);
        let ask = |resolver: &mut Resolver, after| {
            resolver.ask(&all, std::iter::empty(), began + Duration::from_secs(after)).len()
        };
        assert_eq!(ask(&mut resolver, 0), limits::RESOLVE_AT_ONCE_MAX);
        for (after, hangs) in [(1, false), (59, false), (60, true), (600, true)] {
            assert_eq!((ask(&mut resolver, after), resolver.hangs), (0, hangs), "{after}");
        }
        let one = resolver.asked.pop_first().unwrap().0;
        resolver.answered(&one, began + Duration::from_secs(601));
        assert!(!resolver.hangs);
        assert_eq!(ask(&mut resolver, 601), 1);
    }
}
