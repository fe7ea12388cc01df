//! Resolves clients' names when their records are captured, in threads that nothing waits for: a dead name server
//! delays nobody, and at failover no name is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::mpsc::Sender;
use std::time::Duration;

use heirlock_core::Moment;
use heirlock_nsm::MonName;
use heirlock_nsm::name::no_clients_address;

use super::Message;
use crate::limits;
use crate::presence::is_present;
use crate::threads;

/// Names that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    /// Each has a thread, and was asked for at this moment.
    asked: BTreeMap<MonName, Moment>,
    answered: BTreeMap<MonName, Moment>,
    /// All threads wait for a name service that hangs.
    hangs: bool,
}

impl Resolver {
    /// Asks for names that are not being asked for already: those whose address isn't known again after a while, and those
    /// that are known now and then, for a client may be moved.
    pub(crate) fn ask<'a>(
        &mut self,
        unresolved: &BTreeSet<MonName>,
        known: impl Iterator<Item = &'a MonName>,
        now: Moment,
        inbox: &Sender<Message>,
    ) {
        let known: BTreeSet<&MonName> = known.collect();
        self.answered.retain(|name, _| unresolved.contains(name) || known.contains(name));
        let names = unresolved.iter().map(|name| (name, limits::RESOLVE_RETRY));
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
            let (asked, inbox) = (name.clone(), inbox.clone());
            let begun = threads::start("resolve", move || {
                let addresses = resolve(&asked);
                let _ = inbox.send(Message::Resolved(asked, addresses));
            });
            if let Err(error) = begun {
                tracing::warn!(%name, %error, "the addresses of {name} are looked up later: {error}");
                self.answered(name, now);
            }
        }
    }

    /// The answer came.
    pub(crate) fn answered(&mut self, name: &MonName, now: Moment) {
        self.asked.remove(name);
        self.answered.insert(name.clone(), now);
        if std::mem::take(&mut self.hangs) {
            tracing::info!("the name service answers again: the names of clients are looked up");
        }
    }

    /// There is no thread for one name more: either many are asked for, or none of them is answered.
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

/// All addresses of a client's name, the most likely first. What is no address of another host says nothing of where the
/// client is: this server's own, which it may have in common with the client (a bridge of containers, say), are left out,
/// unless the name has no other.
pub(crate) fn resolve(name: &MonName) -> Vec<IpAddr> {
    if !name.is_host_name() {
        return Vec::new();
    }
    let found = (name.as_str(), 0).to_socket_addrs().into_iter().flatten();
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found.map(|address| address.ip().to_canonical()) {
        if no_clients_address(address).is_none() && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let others: Vec<IpAddr> = addresses.iter().copied().filter(|address| !is_present(*address)).collect();
    if others.is_empty() { addresses } else { others }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_a_scope_and_one_of_nobody_are_not_looked_up() {
        for name in ["fe80::1%lo", "0.0.0.0", "255.255.255.255", "::"] {
            assert!(resolve(&MonName::parse(name).unwrap()).is_empty(), "{name}");
        }
        let own = resolve(&MonName::parse("localhost").unwrap());
        assert!(own.iter().all(IpAddr::is_loopback) && !own.is_empty(), "{own:?}");
    }

    #[test]
    fn a_name_service_that_answers_for_no_name_is_given_no_more_threads_and_said_once() {
        let names = |count: usize| -> BTreeSet<MonName> {
            (0..count).map(|number| MonName::parse(&format!("host{number}.invalid")).unwrap()).collect()
        };
        // As if each had a thread that hangs.
        let (inbox, mut resolver) = (std::sync::mpsc::channel().0, Resolver::default());
        let began = Moment::START + Duration::from_secs(1);
        resolver.asked = names(limits::RESOLVE_AT_ONCE_MAX).into_iter().map(|name| (name, began)).collect();
        let all = names(limits::RESOLVE_AT_ONCE_MAX * 2);
        for (after, hangs) in [(1, false), (59, false), (60, true), (600, true)] {
            resolver.ask(&all, std::iter::empty(), began + Duration::from_secs(after), &inbox);
            assert_eq!(
                (resolver.asked.len(), resolver.hangs),
                (limits::RESOLVE_AT_ONCE_MAX, hangs),
                "{after}"
            );
        }
        let one = names(1).pop_first().unwrap();
        resolver.answered(&one, began + Duration::from_secs(601));
        assert!(!resolver.hangs && resolver.asked.len() < limits::RESOLVE_AT_ONCE_MAX);
    }
}
