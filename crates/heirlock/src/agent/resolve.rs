//! Which clients' names are looked up when their records are captured: at failover no name is asked for.

use std::collections::{BTreeMap, BTreeSet};

use heirlock_core::Moment;
use heirlock_nsm::MonName;

use crate::limits;

/// Names that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
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
