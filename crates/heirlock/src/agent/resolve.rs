//! Resolves clients' names when their records are captured, in threads that nothing waits for: a dead name server
//! delays nobody, and at failover no name is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::mpsc::Sender;
use std::thread;

use heirlock_core::Moment;
use heirlock_nsm::MonName;

use super::Message;
use crate::limits;

/// Names that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    asked: BTreeSet<MonName>,
    answered: BTreeMap<MonName, Moment>,
}

impl Resolver {
    /// Asks for names that are not being asked for already, again after a while.
    pub(crate) fn ask(&mut self, names: &BTreeSet<MonName>, now: Moment, inbox: &Sender<Message>) {
        self.answered.retain(|name, _| names.contains(name));
        for name in names {
            let early = self.answered.get(name).is_some_and(|at| now.since(*at) < limits::RESOLVE_RETRY);
            if early || self.asked.len() >= limits::RESOLVE_AT_ONCE_MAX || !self.asked.insert(name.clone()) {
                continue;
            }
            let (name, inbox) = (name.clone(), inbox.clone());
            thread::spawn(move || {
                let address = resolve(&name);
                let _ = inbox.send(Message::Resolved(name, address));
            });
        }
    }

    /// The answer came.
    pub(crate) fn answered(&mut self, name: &MonName, now: Moment) {
        self.asked.remove(name);
        self.answered.insert(name.clone(), now);
    }
}

/// A scoped address (`fe80::1%eth0`) means nothing on another server, so it is no address here.
fn resolve(name: &MonName) -> Option<IpAddr> {
    if name.as_str().contains('%') {
        return None;
    }
    let mut addresses = (name.as_str(), 0).to_socket_addrs().ok()?;
    addresses.next().map(|address| address.ip())
}
