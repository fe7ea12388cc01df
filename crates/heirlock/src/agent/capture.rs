//! Capture: from a scan of the status monitor's directory to durable records of every service that this server holds.

use std::collections::BTreeSet;
use std::path::Path;

use heirlock_core::Moment;
use heirlock_core::ledger::{Addresses, Population, Problem, Scan, population};
use heirlock_nsm::MonName;

use super::resolve::Resolver;
use super::{Agent, roles};
use crate::detector;

/// What capturing needs to remember between scans.
#[derive(Debug, Default)]
pub(crate) struct Capture {
    /// Who was there at the last scan.
    pub(crate) found: Population,
    /// Problems that were there at the last scan: those that may have been in the making are spoken of now.
    problems: BTreeSet<Problem>,
    /// Problems that were spoken of.
    pub(crate) known_problems: BTreeSet<Problem>,
    /// Addresses that names were resolved to.
    pub(crate) addresses: Addresses,
    pub(crate) resolver: Resolver,
    /// The store doesn't know yet what was found.
    pub(crate) behind: bool,
    /// The directory itself can't be read.
    pub(crate) blind: Option<String>,
    pub(crate) due: Option<Moment>,
}

impl Agent {
    /// Looks at the directory and makes the store know what it shows.
    pub(crate) fn scan(&mut self, now: Moment) {
        self.capture.due = Some(now + self.settings.capture.scan_interval);
        self.follow_all(now);
        let scan = match detector::scan(&self.settings.state_directory) {
            Ok(scan) => scan,
            Err(error) => {
                // What can't be seen is not gone.
                self.say_blind(Some(error.to_string()));
                return;
            }
        };
        self.say_blind(None);
        self.speak_of_problems(&scan);
        let found = population(&scan, self.conveyor.placed(), &self.capture.addresses);
        self.capture.resolver.ask(&found.unresolved, now, &self.inbox);
        self.capture.found = found;
        self.record(now);
        self.report_registrations();
    }

    /// Compares what was found with what the store holds, and commits the difference.
    pub(crate) fn record(&mut self, now: Moment) {
        let roles = roles::read(Path::new("/proc"), &self.nlm_ports);
        // While a run drops and opens what it will, no deletion means anything.
        let life = match self.run {
            None if self.serving => self.follower.current().cloned(),
            _ => None,
        };
        let (mut failure, mut committed) = (None, false);
        // Taken out while removals are asked about.
        let mut held_services = std::mem::take(&mut self.held);
        for (service, held) in &mut held_services {
            if self.run.as_ref().is_some_and(|running| running.begins(service)) {
                continue;
            }
            // While it is being given away nothing is forgotten any more.
            let life = life.as_ref().filter(|_| !held.frozen);
            let entries = held.ledger.compare(now, &self.capture.found, &roles, life);
            let entries = self.only_forgettable(entries);
            if entries.is_empty() {
                continue;
            }
            let (before, count) = (held.ledger.stored().len(), entries.len());
            match held.commit(self.store.as_ref(), service, &entries) {
                Ok(()) => {
                    committed = true;
                    let records = held.ledger.stored().len();
                    tracing::info!(%service, changes = count, before, records, "captured");
                }
                Err(error) => failure = Some(error.to_string()),
            }
            if held.ledger.refused() > 0 {
                tracing::error!(%service, refused = held.ledger.refused(), "too many records: these clients are unprotected");
            }
        }
        self.held = held_services;
        self.capture.behind = failure.is_some();
        if let Some(failure) = failure {
            self.health.failed(now, &failure);
            self.capture.due = Some(now + crate::limits::STORE_RETRY);
        } else if committed {
            self.health.worked();
        }
    }

    /// A name was resolved, or could not be.
    pub(crate) fn resolved(&mut self, now: Moment, name: &MonName, address: Option<std::net::IpAddr>) {
        self.capture.resolver.answered(name, now);
        if let Some(address) = address {
            tracing::info!(%name, %address, "resolved a client's name");
            self.capture.addresses.insert(name.clone(), address);
            self.capture.due = Some(now);
        } else {
            tracing::warn!(%name, "a client's name has no address now: it can't be told before it has one");
        }
    }

    fn say_blind(&mut self, why: Option<String>) {
        if self.capture.blind != why {
            match &why {
                Some(why) => {
                    tracing::error!(%why, "the status monitor's directory can't be read: new clients are unprotected");
                }
                None => tracing::info!("the status monitor's directory can be read again"),
            }
            self.capture.blind = why;
        }
    }

    /// Each problem is said once, and not before it was seen twice if it may be a record in the making.
    fn speak_of_problems(&mut self, scan: &Scan) {
        let seen: BTreeSet<Problem> = scan.problems.iter().cloned().collect();
        for problem in &seen {
            let stays = !problem.may_be_in_the_making || self.capture.problems.contains(problem);
            if stays && self.capture.known_problems.insert(problem.clone()) {
                tracing::warn!(path = %problem.path, why = %problem.why, "no monitor record; it is left alone");
            }
        }
        self.capture.known_problems.retain(|problem| seen.contains(problem));
        self.capture.problems = seen;
    }

    /// While a run waits for clients to come back: who registered since it recognised.
    fn report_registrations(&mut self) {
        let Some(running) = &mut self.run else { return };
        running.spare(&self.capture.found.clients);
        running.machine.saw(self.capture.found.clients.keys());
        let Some(before) = &running.before else { return };
        let came: BTreeSet<MonName> = self
            .capture
            .found
            .clients
            .iter()
            .filter(|(client, record)| before.get(*client) != Some(*record))
            .map(|(client, _)| client.clone())
            .collect();
        if !came.is_empty() {
            self.advance(heirlock_core::takeover::Event::Registered(came));
        }
    }
}
