//! Capture: from a scan of the status monitor's directory to durable records of every service that this server holds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use heirlock_core::incarnation::Incarnation;
use heirlock_core::ledger::{Addresses, Entry, Population, Problem, Scan, learn, population};
use heirlock_core::{Moment, ServiceName};
use heirlock_nsm::MonName;

use super::Agent;
use super::holdings::{Held, commit_all};
use super::resolve::Resolver;
use crate::detector;
use crate::store::{Store, StoreError};

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
    /// Those that are news since a run began.
    put_off: Addresses,
    pub(crate) resolver: Resolver,
    /// The store doesn't know yet what was found.
    pub(crate) behind: bool,
    /// The directory itself can't be read.
    pub(crate) blind: Option<String>,
    /// When the directory was last seen.
    pub(crate) looked: Option<Instant>,
    /// When everything is read anew, whatever hints say; `None`: now.
    pub(crate) due: Option<Moment>,
    /// A hint came since the last look began. The watch sets it: one hint is enough for all that happens until the next look,
    /// a thousand in the inbox would each cost one.
    pub(crate) hinted: Arc<AtomicBool>,
    /// What looks have read since everything was read anew.
    memory: detector::Memory,
}

impl Agent {
    /// Looks at the directory, reads all of it, and makes the store know what it shows.
    pub(crate) fn scan(&mut self, now: Moment) {
        self.capture.due = Some(now + self.settings.capture.scan_interval);
        self.capture.memory = detector::Memory::default();
        self.look(now);
    }

    /// The same after a hint, but opens only those files that may have changed since earlier looks.
    pub(crate) fn look(&mut self, now: Moment) {
        // Before the look: what happens from now on may not be seen by it.
        self.capture.hinted.swap(false, Ordering::SeqCst);
        self.follow_all(now);
        let scan = match detector::look(&self.settings.state_directory, &mut self.capture.memory) {
            Ok(scan) => scan,
            Err(error) => {
                // What can't be seen is not gone.
                self.say_blind(Some(error.to_string()));
                return;
            }
        };
        tracing::debug!(files = scan.files.len(), opened = self.capture.memory.opened(), "looked");
        self.capture.looked = Some(Instant::now());
        self.say_blind(None);
        self.speak_of_problems(&scan);
        let found = population(&scan, self.conveyor.placed(), &self.capture.addresses);
        let known = found.keys.keys();
        self.capture.resolver.ask(&found.unresolved, known, now, &self.inbox);
        self.capture.found = found;
        self.record(now);
        self.report_registrations();
    }

    /// Compares what was found with what the store holds, and commits the difference.
    pub(crate) fn record(&mut self, now: Moment) {
        let remembers = self.held.values().any(|held| held.ledger.remembers_peers());
        let roles = self.peers.roles(&self.nlm_ports, remembers);
        let life = self.life_that_deletes();
        // Taken out while removals are asked about.
        let mut held_services = std::mem::take(&mut self.held);
        let mut work: Vec<(&ServiceName, &mut Held, Vec<Entry>)> = Vec::new();
        for (service, held) in &mut held_services {
            if self.run.as_ref().is_some_and(|running| running.begins(service)) {
                continue;
            }
            let life = held.where_deletions_count(life.as_ref());
            let entries = held.ledger.compare(now, &self.capture.found, &roles, life);
            let entries = self.only_forgettable(entries);
            if held.ledger.refused() > 0 {
                tracing::error!(%service, refused = held.ledger.refused(), "{service}: {} clients are unprotected, for the service has as many records as it may have", held.ledger.refused());
            }
            if !entries.is_empty() {
                work.push((service, held, entries));
            }
        }
        let committed = !work.is_empty();
        let failure = commit_captured(self.store.as_ref(), work).err();
        self.held = held_services;
        self.capture.behind = failure.is_some();
        if let Some(failure) = failure {
            self.health.failed(now, &failure.to_string());
            // Not put off by the hints that come meanwhile.
            let retry = now + crate::limits::STORE_RETRY;
            self.capture.due = self.capture.due.map(|due| due.min(retry));
        } else if committed {
            self.be_checked(now);
        }
    }

    /// A store that failed has taken something: it is well once all that this server holds was looked for in it.
    pub(crate) fn be_checked(&mut self, now: Moment) {
        if self.health.error().is_some() {
            self.beat_due = now;
        }
    }

    /// The life of the lock manager in which a deletion may mean something. While a run drops and opens what it will,
    /// none does.
    pub(crate) fn life_that_deletes(&self) -> Option<Incarnation> {
        match self.run {
            None if self.serving => self.follower.current().cloned(),
            _ => None,
        }
    }

    /// A name was resolved, or could not be.
    pub(crate) fn resolved(&mut self, now: Moment, name: &MonName, addresses: Vec<std::net::IpAddr>) {
        self.capture.resolver.answered(name, now);
        if addresses.is_empty() {
            if !self.capture.addresses.contains_key(name) {
                tracing::warn!(%name, "the client {name} can't be told of an adoption, for its name has no address now");
            }
        } else if self.run.is_some() {
            // A client that is being told must not become another one: its outcome would be nobody's.
            self.capture.put_off.insert(name.clone(), addresses);
        } else {
            self.learn(now, name, addresses);
        }
    }

    /// What was resolved while a run was on.
    pub(crate) fn learn_what_was_put_off(&mut self, now: Moment) {
        for (name, addresses) in std::mem::take(&mut self.capture.put_off) {
            self.learn(now, &name, addresses);
        }
    }

    fn learn(&mut self, now: Moment, name: &MonName, addresses: Vec<std::net::IpAddr>) {
        let before = self.capture.addresses.get(name).cloned();
        learn(&mut self.capture.addresses, name, addresses);
        if self.capture.addresses.get(name) != before.as_ref() {
            tracing::info!(%name, addresses = ?self.capture.addresses.get(name), "the client {name} has the addresses {:?}", self.capture.addresses.get(name));
            self.durable_are_others();
            self.capture.due = Some(now);
        }
    }

    fn say_blind(&mut self, why: Option<String>) {
        if self.capture.blind != why {
            match &why {
                Some(why) => {
                    tracing::error!(%why, "new clients are unprotected, for the status monitor's directory can't be read: {why}");
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
                tracing::warn!(path = %problem.path, why = %problem.why, "{} is no monitor record, and is left alone: {}", problem.path, problem.why);
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
        let came = before.came(&self.capture.found.clients);
        if !came.is_empty() {
            self.advance(heirlock_core::takeover::Event::Registered(came));
        }
    }
}

/// All of it together. Where that fails each service is tried by itself: one that is damaged takes no other with it.
fn commit_captured(
    store: &dyn Store,
    mut work: Vec<(&ServiceName, &mut Held, Vec<Entry>)>,
) -> Result<(), StoreError> {
    let before: Vec<usize> = work.iter().map(|(_, held, _)| held.ledger.stored().len()).collect();
    let together = match commit_all(store, &mut work) {
        Err(error) if work.len() == 1 => return Err(error),
        together => together.is_ok(),
    };
    let mut outcome = Ok(());
    for (one, before) in work.iter_mut().zip(before) {
        if !together && let Err(error) = commit_all(store, std::slice::from_mut(one)) {
            outcome = Err(error);
            continue;
        }
        let (service, held, entries) = one;
        let (changes, records) = (entries.len(), held.ledger.stored().len());
        tracing::info!(%service, changes, before, records, "{service}: {changes} changes captured; {records} clients are on record, {before} were before");
    }
    outcome
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use heirlock_core::Generation;
    use heirlock_core::claim::Claim;
    use heirlock_core::takeover::Journal;
    use heirlock_nsm::StateNumber;

    use super::*;
    use crate::agent::Message;
    use crate::agent::holdings::claim_first;
    use crate::agent::testing::{place, service};

    const LINE: &str =
        "0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 10.0.0.1 nfs-b\n";

    /// A conveyed crowd, or one that registers, is thousands of hints while the agent is at work.
    #[test]
    fn hints_that_come_while_one_waits_are_that_one() {
        let mut place = place();
        let sm = place.directory.path().join("nfs/sm");
        let _hints = place.agent.watch_directory();
        assert!(matches!(place.next(), Message::Changed), "from the watch itself, when it is set");
        for i in 0..200 {
            fs::write(sm.join(format!("10.0.0.{i}")), LINE).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(place.messages.try_recv().is_err(), "the agent has not heard that one yet");
        place.agent.handle(Message::Changed);
        place.agent.do_what_is_due();
        fs::write(sm.join("10.0.1.1"), LINE).unwrap();
        assert!(matches!(place.next(), Message::Changed), "what comes later may be missed by the look");
    }

    #[test]
    fn a_service_whose_folder_is_damaged_takes_no_other_with_it() {
        let mut place = place();
        let us = place.agent.settings.server.clone();
        let (claim, journal) =
            (Claim::new(Generation::FIRST, &us, "agent", 0), Journal::quiet("run", &us, 0));
        let store = place.agent.store.as_ref();
        claim_first(store, &service("new"), &claim, StateNumber(1), &journal).unwrap().unwrap();
        place.agent.do_what_is_due();
        let (whole, damaged) = (ServiceName::host(&us), service("new"));
        let services = place.directory.path().join("store/services");
        fs::remove_dir_all(services.join("new/1/sm")).unwrap();
        fs::write(place.directory.path().join("nfs/sm/10.0.0.1"), LINE).unwrap();
        place.agent.scan(place.agent.clock.now());
        let known = |of| place.agent.held[of].ledger.stored().len();
        assert_eq!((known(&whole), known(&damaged), place.agent.capture.behind), (1, 0, true));
        assert!(services.join("host.nfs-b/1/sm/10.0.0.1").exists());
    }

    #[test]
    fn a_hinted_look_opens_what_changed_and_any_other_opens_all() {
        let mut place = place();
        let sm = place.directory.path().join("nfs/sm");
        let register = |name: &str| fs::write(sm.join(name), LINE.replace("10.0.0.1", name)).unwrap();
        register("10.0.0.1");
        register("10.0.0.2");
        std::thread::sleep(Duration::from_millis(100));
        place.agent.do_what_is_due();
        assert_eq!(place.agent.capture.memory.opened(), 2, "the first");
        let due = place.agent.capture.due;
        register("10.0.0.3");
        place.hint();
        assert_eq!(place.agent.next_due(), Moment::START);
        place.agent.do_what_is_due();
        assert_eq!(place.agent.capture.memory.opened(), 1, "hinted");
        let hinted = Arc::clone(&place.agent.capture.hinted);
        assert!(place.agent.capture.found.clients.len() == 3 && !hinted.load(Ordering::SeqCst));
        // However many hints come.
        assert_eq!(place.agent.capture.due, due);
        place.hint();
        place.agent.capture.due = Some(place.agent.clock.now());
        place.agent.do_what_is_due();
        assert_eq!(place.agent.capture.memory.opened(), 3, "due");
        assert!(!hinted.load(Ordering::SeqCst));
    }
}
