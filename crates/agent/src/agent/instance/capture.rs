//! Capture: from a look at the status monitor's directory to durable records of every service that this server holds.
//!
//! A look is made beside the loop (`look.rs`), and its result is compared with the store a portion at each turn of the loop: with
//! hundreds of thousands of clients, those that register meanwhile wait for neither. While a run is on the loop looks itself:
//! the decisions of a run rest upon the clients that are registered just then.

use std::net::IpAddr;
use std::sync::Arc;

use heirlock_core::duty::Owed;
use heirlock_core::incarnation::Incarnation;
use heirlock_core::ledger::{Comparison, Portion};
use heirlock_core::store::{RecordChange, StoreError};
use heirlock_core::{Moment, ServiceName};
use heirlock_nsm::MonName;

use super::Instance;
use crate::agent::capture::Comparing;
use crate::agent::common::Common;
use crate::agent::holdings::{Committing, Held, commit_all};
use crate::agent::look::{Basis, Found, Looked, Recall};
use crate::agent::outside::{InstanceOutside, Outside};
use crate::agent::work::Work;
use crate::limits::STORE_RETRY;
use crate::words::counted;

impl<O: Outside> Instance<O> {
    /// Looks at the directory where that is due, and compares what a look found.
    pub fn tend_capture(&mut self, server: &mut Common<O>, now: Moment) {
        let is_waited_for = self.recovery_waits(now);
        if self.awaits_directory() {
            self.say_if_directory_hangs(now);
            if !is_waited_for {
                return; // nothing is compared with what the status monitor knows and its directory may lack
            }
        }
        self.compare_a_portion(server, now);
        self.capture.say_if_a_look_hangs(now);
        let anew = self.deletions_due().is_some_and(|at| now >= at) || self.capture.is_due(now);
        let hinted = self.outside.is_hinted();
        let decides = self.run.is_some() || !self.asked.is_empty() || self.lives.is_reborn() || is_waited_for;
        match (decides, anew) {
            (true, true) => self.scan(server, now),
            (true, false) if hinted && self.capture.heeds_hints(now) => self.look(server, now, false),
            (false, _) if anew || hinted => self.begin_look(server, now, anew),
            _ => {}
        }
    }

    /// Whether clients are to be told who wait for the first look since the agent began, or for the first reading of its status
    /// monitor's directory, and that takes too long: grace passes meanwhile, and the loop looks itself, as it does in a run.
    fn recovery_waits(&self, now: Moment) -> bool {
        if self.capture.has_looked() {
            return false;
        }
        let since = self.directory_read_since().or_else(|| self.capture.looking_since());
        let is_late = since.is_some_and(|since| now.since(since) > self.capture.believed_max());
        let are_to_be_told =
            |owed: Owed| owed.resume.is_some() || owed.redo.is_some() || !owed.lost.is_empty();
        is_late && are_to_be_told(self.owed())
    }

    /// When there is something to look at or to compare. That a deletion may be believed, where no lock manager serves again
    /// yet, is no reason to hurry.
    pub(crate) fn capture_due(&self, server: &Common<O>) -> Option<Moment> {
        if self.awaits_directory() {
            return None;
        }
        let deletions = self.deletions_due().map(|at| at.max(server.now() + STORE_RETRY));
        self.capture.next_due(self.outside.is_hinted()).into_iter().chain(deletions).min()
    }

    /// When a deletion may be believed and is looked for.
    fn deletions_due(&self) -> Option<Moment> {
        let from = self.held.values().filter_map(|held| held.ledger.next_tombstone_due()).min()?;
        self.capture.looks_for_deletions(from)
    }

    /// Looks, if more may have changed than the last look showed, before something is decided that rests upon the clients that
    /// are there.
    pub(crate) fn settle_capture(&mut self, server: &mut Common<O>, now: Moment) {
        if self.capture.is_looking() || self.outside.is_hinted() {
            self.look(server, now, false);
        }
    }

    /// Looks at the directory, reads all of it, and makes the store know what it shows, before anything else is done.
    pub fn scan(&mut self, server: &mut Common<O>, now: Moment) {
        self.capture.look_at(now + self.settings.capture.scan_interval);
        self.look(server, now, true);
    }

    /// The same; not `anew`, as after a hint, but opening only those files that may have changed since earlier looks.
    pub(super) fn look(&mut self, server: &mut Common<O>, now: Moment, anew: bool) {
        let began = server.now();
        self.capture.is_overtaken();
        let basis = self.begin_basis(server, now);
        let kept = self.run.is_some() || !self.asked.is_empty();
        let found = self.outside.look(self.capture.addresses(), Recall { anew, kept });
        self.take_look(server, now, Looked { basis, found });
        self.record(server, now);
        self.report_registrations(server);
        let ended = server.now();
        self.capture.looked_itself(ended, ended.since(began));
    }

    /// Begins to look, unless the last look is still on.
    fn begin_look(&mut self, server: &mut Common<O>, now: Moment, anew: bool) {
        if self.capture.is_busy() {
            return;
        }
        if anew {
            self.capture.look_at(now + self.settings.capture.scan_interval);
        }
        let basis = self.begin_basis(server, now);
        self.capture.prepares();
        match self.outside.begin_look(basis, Arc::clone(self.capture.addresses()), anew) {
            Ok(()) => self.capture.begins(now),
            Err(why) => {
                self.capture.say_blind(Some(why));
                self.capture.look_at(now + STORE_RETRY);
            }
        }
    }

    /// A look begins: it may not see any change from now on.
    fn begin_basis(&mut self, server: &mut Common<O>, now: Moment) -> Basis {
        self.outside.forget_hints();
        self.follow_all(server, now);
        let (life, placed) = (self.life_that_deletes(server), self.outside.placed());
        Basis { began: now, began_at: server.now(), life, placed }
    }

    /// A look is over that was made elsewhere.
    pub fn looked(&mut self, server: &mut Common<O>, now: Moment, looked: Looked) {
        let Some(counts) = self.capture.ends(now) else { return };
        let rests = Arc::ptr_eq(&looked.basis.placed, &self.outside.placed());
        if !counts || self.run.is_some() || !rests {
            // It may show a conveyed record as if its client had registered, or a client that was there before as if it had come
            // back.
            self.capture.look_at(now);
            return;
        }
        self.take_look(server, now, looked);
        if self.capture.is_old() {
            self.capture.look_at(now); // who has left since is still to be seen
        }
    }

    /// Knows what a look found, and begins to compare it with the store.
    pub fn take_look(&mut self, server: &mut Common<O>, now: Moment, Looked { basis, found }: Looked) {
        self.capture.take_comparing();
        let took = server.now().since(basis.began_at);
        server.counts_mut().looks.ended(took, found.is_ok());
        let Found { population, problems, opened } = match found {
            Ok(found) => found,
            Err(why) => {
                // Records that can't be seen are not gone.
                self.capture.say_blind(Some(why));
                return;
            }
        };
        tracing::debug!(clients = population.clients.len(), opened, "looked");
        self.capture.saw(basis.began_at, took, opened);
        self.capture.speak_of_problems(problems, || server.outside().may_say("no monitor record"));
        for name in self.capture.ask(&population, now) {
            self.outside.begin(Work::LookUp(name));
        }
        let before = self.capture.takes(population);
        self.outside.begin(Work::Discard(before));
        let remembers = self.held.values().any(|held| held.ledger.remembers_peers());
        let roles = self.outside.roles(&self.nlm_ports, remembers);
        let is_old = self.capture.is_old();
        let begin = |(service, held): (&ServiceName, &mut Held)| {
            let begun = if is_old { held.ledger.begin_arrivals() } else { held.ledger.begin_comparison() };
            (service.clone(), begun)
        };
        let services = self.held.iter_mut().map(begin).collect();
        let Basis { began, life, .. } = basis;
        self.capture.compares(Comparing { began, life, roles, services, committed: false, failed: false });
    }

    /// Compares what was found with what the store holds, and commits the difference: all of it.
    pub fn record(&mut self, server: &mut Common<O>, now: Moment) {
        self.compare(server, now, Portion::ALL);
    }

    /// The same for a portion of it, in which those that wait for a commit of their own get their turn.
    fn compare_a_portion(&mut self, server: &mut Common<O>, now: Moment) {
        if self.run.is_some() && self.capture.take_comparing().is_some() {
            // The run's own looks show more.
            self.capture.look_at(now);
        }
        self.compare(server, now, self.capture.portion());
    }

    pub fn compare(&mut self, server: &mut Common<O>, now: Moment, portion: Portion) {
        let Some(mut comparing) = self.capture.take_comparing() else { return };
        // Another life than the one that the look began in says nothing of what it lacked.
        let life = self.life_that_deletes(server).filter(|life| comparing.life.as_ref() == Some(life));
        // Taken out while removals are asked about.
        let mut held_services = std::mem::take(&mut self.held);
        // A service that is not held any more is no concern of this server's.
        comparing.services.retain(|service, _| held_services.contains_key(service));
        let mut work: Vec<(&ServiceName, &mut Held, Vec<RecordChange>)> = Vec::new();
        for (service, held) in &mut held_services {
            if self.run.as_ref().is_some_and(|running| running.begins(service)) {
                comparing.services.remove(service);
            }
            let Some(comparison) = comparing.services.get_mut(service) else { continue };
            let life = held.where_deletions_count(life.as_ref());
            let (began, found, roles) = (comparing.began, self.capture.found(), &comparing.roles);
            let entries = held.ledger.compare_some(comparison, began, found, roles, life, portion);
            if *comparison == Comparison::Over {
                comparing.services.remove(service);
                say_refused(service, held.ledger.refused());
            }
            let entries = self.only_forgettable(entries);
            if !entries.is_empty() {
                work.push((service, held, entries));
            }
        }
        comparing.committed |= !work.is_empty();
        let mut committing = server.committing();
        let failures = commit_captured(&mut committing, work);
        self.held = held_services;
        for (service, failure) in failures {
            // The others go on.
            comparing.services.remove(&service);
            comparing.failed = true;
            server.store_failed(now, &failure);
            self.capture.falls_behind(now + STORE_RETRY);
        }
        if !comparing.services.is_empty() {
            self.capture.compares(comparing);
        } else if !comparing.failed {
            self.capture.catches_up();
            if comparing.committed {
                server.be_checked(now);
            }
        }
    }

    /// The life of the lock manager in which a deletion may mean something. While a run drops and opens what it will,
    /// none does.
    pub(crate) fn life_that_deletes(&self, server: &Common<O>) -> Option<Incarnation> {
        self.lives.where_deletions_count(server.now(), self.run.is_some()).cloned()
    }

    /// A name was resolved, or could not be.
    pub fn resolved(
        &mut self,
        server: &Common<O>,
        now: Moment,
        name: &MonName,
        found: Result<Vec<IpAddr>, String>,
    ) {
        self.capture.answered(name, now);
        let addresses = match found {
            Ok(addresses) => addresses,
            Err(why) => {
                tracing::warn!(%name, why, "the addresses of {name} are looked up later: {why}");
                return;
            }
        };
        if addresses.is_empty() {
            if !self.capture.addresses().contains_key(name)
                && server.outside().may_say("client's name without an address")
            {
                tracing::warn!(%name, "the client {name} can't be told of an adoption, for its name has no address now");
            }
        } else if self.run.is_some() {
            self.capture.learns_later(name.clone(), addresses);
        } else {
            self.learn(server, now, name, addresses);
        }
    }

    /// Takes in the names that were resolved while a run was on.
    pub(crate) fn learn_names_that_were_put_off(&mut self, server: &Common<O>, now: Moment) {
        for (name, addresses) in self.capture.take_put_off() {
            self.learn(server, now, &name, addresses);
        }
    }

    fn learn(&mut self, server: &Common<O>, now: Moment, name: &MonName, addresses: Vec<IpAddr>) {
        if !self.capture.learns(now, name, addresses) {
            return;
        }
        if server.outside().may_say("client's name resolved") {
            let addresses = self.capture.addresses().get(name);
            tracing::info!(%name, ?addresses, "the client {name} has the addresses {addresses:?}");
        }
        self.durable_are_others();
    }

    /// While a run waits for clients to come back: tells it which clients registered since it recognised.
    fn report_registrations(&mut self, server: &mut Common<O>) {
        let Some(running) = &mut self.run else { return };
        running.spare(&self.capture.found().clients);
        running.machine.saw(self.capture.found().clients.keys());
        let before = self.run.as_ref().and_then(|running| running.before.as_ref());
        let Some(before) = before else { return };
        let came = self.came_since(before);
        if !came.is_empty() {
            self.advance(server, heirlock_core::takeover::Event::Registered(came));
        }
    }
}

fn say_refused(service: &ServiceName, refused: usize) {
    if refused > 0 {
        tracing::error!(%service, refused, "{service}: {} found no room and can't be protected, for the service has as many records as it may have", counted(refused, "client"));
    }
}

/// All of it together. Where that fails each service is tried by itself: one that is damaged takes no other with it.
fn commit_captured<O: Outside>(
    committing: &mut Committing<'_, O>,
    mut work: Vec<(&ServiceName, &mut Held, Vec<RecordChange>)>,
) -> Vec<(ServiceName, StoreError)> {
    let before: Vec<usize> = work.iter().map(|(_, held, _)| held.ledger.stored().len()).collect();
    let together = match commit_all(committing, &mut work) {
        Err(error) if work.len() == 1 => {
            return work.first().map(|(service, ..)| ((*service).clone(), error)).into_iter().collect();
        }
        together => together.is_ok(),
    };
    let mut failures = Vec::new();
    for (one, before) in work.iter_mut().zip(before) {
        if !together && let Err(error) = commit_all(committing, std::slice::from_mut(one)) {
            failures.push((one.0.clone(), error));
            continue;
        }
        let (service, held, entries) = one;
        let (changes, records) = (entries.len(), held.ledger.stored().len());
        tracing::info!(%service, changes, before, records, "{service}: {} captured; {} on record now, before that {before}", counted(changes, "change"), counted(records, "client"));
    }
    failures
}
