//! Capture: from a look at the status monitor's directory to durable records of every service that this server holds.
//!
//! A look is made beside the loop (`look.rs`), and its result is compared with the store a portion at each turn of the loop: with
//! hundreds of thousands of clients, those that register meanwhile wait for neither. While a run is on the loop looks itself:
//! the decisions of a run rest upon the clients that are registered just then.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use heirlock_core::incarnation::Incarnation;
use heirlock_core::ledger::{Addresses, Comparison, Population, Portion, Problem, Roles, learn};
use heirlock_core::store::{RecordChange, StoreError};
use heirlock_core::{Moment, ServiceName};
use heirlock_nsm::MonName;

use super::Inside;
use super::holdings::{Committing, Held, commit_all};
use super::look::{Basis, Found, Looked, Recall};
use super::outside::Outside;
use super::resolve::Resolver;
use super::work::Work;
use crate::limits::{
    COMMIT_RECORDS_MAX, COMPARED_AT_ONCE_MAX, LOOK_PAUSE, LOOK_TIME_MAX, REMOVED_AT_ONCE_MAX, STORE_RETRY,
};
use crate::words::counted;

/// The memory of capturing between looks.
#[derive(Debug)]
pub struct Capture {
    /// The clients that were there at the last look.
    pub found: Population,
    /// Problems that were there at the last look: those that may have been in the making are spoken of now.
    problems: BTreeSet<Problem>,
    /// Problems that were spoken of.
    pub(crate) known_problems: BTreeSet<Problem>,
    /// Addresses that names were resolved to.
    pub addresses: Arc<Addresses>,
    /// Addresses that were learnt since a run began.
    put_off: Addresses,
    pub(crate) resolver: Resolver,
    /// The store doesn't know yet what was found.
    pub behind: bool,
    /// Everything that a look found has been compared with the store since everything was to be looked at anew.
    pub(crate) caught_up: bool,
    /// The directory itself can't be read.
    pub blind: Option<String>,
    /// When the last look began that is over.
    pub looked: Option<Moment>,
    /// When everything is read anew, with or without a hint; `None`: now.
    pub due: Option<Moment>,
    /// The look that is on.
    looking: Option<Looking>,
    /// Clients that registered since the look began, as far as the loop knows already.
    learnt: BTreeMap<MonName, Learnt>,
    /// The result of the last look, as far as it isn't compared with the store yet.
    comparing: Option<Comparing>,
    /// Before this moment no look is made only because a deletion may be believed.
    pause: Moment,
    /// How many files the last look had to open.
    opened: usize,
    /// The portion of each service that is compared at one turn of the loop.
    pub(crate) portion: Portion,
}

/// A look that is on.
#[derive(Debug, Clone, Copy)]
struct Looking {
    began: Moment,
    /// No other look was made since.
    counts: bool,
}

/// The loop's knowledge of a client while a look is on.
#[derive(Debug, Clone)]
enum Learnt {
    /// Its registrations are these.
    Exactly(Vec<u8>),
    /// It has registered, and if nothing is found of it yet, this stands for it.
    AtLeast(Vec<u8>),
}

/// The comparison of a look's result with the records of the store.
#[derive(Debug)]
struct Comparing {
    /// When the look began.
    began: Moment,
    /// The life in which deletions meant something from then on.
    life: Option<Incarnation>,
    roles: Roles,
    services: BTreeMap<ServiceName, Comparison>,
    /// Something was committed.
    committed: bool,
    /// Something could not be.
    failed: bool,
}

impl Capture {
    pub(crate) fn new() -> Self {
        Self {
            found: Population::default(),
            problems: BTreeSet::new(),
            known_problems: BTreeSet::new(),
            addresses: Arc::default(),
            put_off: Addresses::new(),
            resolver: Resolver::default(),
            behind: false,
            caught_up: false,
            blind: None,
            looked: None,
            due: None,
            looking: None,
            learnt: BTreeMap::new(),
            comparing: None,
            pause: Moment::START,
            opened: 0,
            portion: Portion::of(COMPARED_AT_ONCE_MAX, COMMIT_RECORDS_MAX, REMOVED_AT_ONCE_MAX),
        }
    }

    /// Everything is looked at anew at the next turn, and nothing is protected until it is.
    pub(crate) fn begin_anew(&mut self) {
        (self.due, self.caught_up) = (None, false);
    }

    /// These are a client's registrations, which a look that is on may not show.
    pub fn knows(&mut self, client: &MonName, bytes: &[u8]) {
        self.found.clients.insert(client, bytes);
        if self.looking.is_some() {
            self.learnt.insert(client.clone(), Learnt::Exactly(bytes.to_vec()));
        }
    }

    /// A client registers: this stands for its record until that is found.
    pub fn expects(&mut self, client: &MonName, bytes: &[u8]) {
        self.found.clients.insert_if_absent(client, || bytes.into());
        if self.looking.is_some() {
            self.learnt.entry(client.clone()).or_insert_with(|| Learnt::AtLeast(bytes.to_vec()));
        }
    }

    /// When it is to be looked or compared next; `None` while that is on. `hinted`: more may have changed since the last look
    /// began. Which deletions may be believed does not hurry it.
    fn next_due(&self, hinted: bool) -> Option<Moment> {
        if self.comparing.is_some() {
            return Some(Moment::START);
        }
        match self.looking {
            // Also where it never ends, that is seen.
            Some(looking) => Some(looking.began + LOOK_TIME_MAX).filter(|_| self.blind.is_none()),
            None if hinted => Some(Moment::START),
            None => self.due.or(Some(Moment::START)),
        }
    }

    /// When a deletion that may be believed from that moment on is looked for.
    fn looks_for_deletions(&self, from: Moment) -> Option<Moment> {
        self.looking.is_none().then(|| from.max(self.pause))
    }

    #[cfg(feature = "inside")]
    pub fn opened(&self) -> usize {
        self.opened
    }

    /// Whether it is known which clients are there, or that this can't be known. Before that nothing is decided about the life
    /// that runs.
    pub(crate) fn has_looked(&self) -> bool {
        self.looked.is_some() || self.blind.is_some()
    }

    /// A look or a comparison is on.
    #[cfg(feature = "inside")]
    pub fn is_busy(&self) -> bool {
        self.looking.is_some() || self.comparing.is_some()
    }
}

impl<O: Outside> Inside<O> {
    /// Looks at the directory where that is due, and compares what a look found.
    pub fn tend_capture(&mut self, now: Moment) {
        if self.awaits_directory() {
            self.say_if_directory_hangs(now);
            return; // nothing is compared with what the status monitor knows and its directory may lack
        }
        self.compare_a_portion(now);
        self.say_if_a_look_hangs(now);
        let anew =
            self.deletions_due().is_some_and(|at| now >= at) || self.capture.due.is_none_or(|due| now >= due);
        let hinted = self.outside.is_hinted();
        let decides = self.run.is_some() || self.asked.is_some() || self.lives.is_reborn();
        match (decides, anew) {
            (true, true) => self.scan(now),
            (true, false) if hinted => self.look(now, false),
            (false, _) if anew || hinted => self.begin_look(now, anew),
            _ => {}
        }
    }

    /// When there is something to look at or to compare. That a deletion may be believed, where no lock manager serves again
    /// yet, is no reason to hurry.
    pub(crate) fn capture_due(&self) -> Option<Moment> {
        if self.awaits_directory() {
            return None;
        }
        let deletions = self.deletions_due().map(|at| at.max(self.outside.now() + STORE_RETRY));
        self.capture.next_due(self.outside.is_hinted()).into_iter().chain(deletions).min()
    }

    /// When a deletion may be believed and is looked for.
    fn deletions_due(&self) -> Option<Moment> {
        let from = self.held.values().filter_map(|held| held.ledger.next_tombstone_due()).min()?;
        self.capture.looks_for_deletions(from)
    }

    fn say_if_a_look_hangs(&mut self, now: Moment) {
        let hangs = self.capture.looking.is_some_and(|looking| now >= looking.began + LOOK_TIME_MAX);
        if hangs && self.capture.blind.is_none() {
            let why = format!("a look at it has been on for more than {} s", LOOK_TIME_MAX.as_secs());
            self.say_blind(Some(why));
        }
    }

    /// Looks, if more may have changed than the last look showed, before something is decided that rests upon the clients that
    /// are there.
    pub(crate) fn settle_capture(&mut self, now: Moment) {
        if self.capture.looking.is_some() || self.outside.is_hinted() {
            self.look(now, false);
        }
    }

    /// Looks at the directory, reads all of it, and makes the store know what it shows, before anything else is done.
    pub fn scan(&mut self, now: Moment) {
        self.capture.due = Some(now + self.settings.capture.scan_interval);
        self.look(now, true);
    }

    /// The same; not `anew`, as after a hint, but opening only those files that may have changed since earlier looks.
    fn look(&mut self, now: Moment, anew: bool) {
        if let Some(looking) = &mut self.capture.looking {
            looking.counts = false;
        }
        let basis = self.begin_basis(now);
        let kept = self.run.is_some() || self.asked.is_some();
        let found = self.outside.look(&self.capture.addresses, Recall { anew, kept });
        self.take_look(now, Looked { basis, found });
        self.record(now);
        self.report_registrations();
    }

    /// Begins to look, unless the last look is still on.
    fn begin_look(&mut self, now: Moment, anew: bool) {
        if self.capture.looking.is_some() || self.capture.comparing.is_some() {
            return;
        }
        if anew {
            self.capture.due = Some(now + self.settings.capture.scan_interval);
        }
        let basis = self.begin_basis(now);
        self.capture.learnt.clear();
        match self.outside.begin_look(basis, Arc::clone(&self.capture.addresses), anew) {
            Ok(()) => self.capture.looking = Some(Looking { began: now, counts: true }),
            Err(why) => {
                self.say_blind(Some(why));
                self.capture.due = Some(now + STORE_RETRY);
            }
        }
    }

    /// A look begins: it may not see any change from now on.
    fn begin_basis(&mut self, now: Moment) -> Basis {
        self.outside.forget_hints();
        self.follow_all(now);
        let (life, placed) = (self.life_that_deletes(), self.outside.placed());
        Basis { began: now, began_at: self.outside.now(), life, placed }
    }

    /// A look is over that was made elsewhere.
    pub fn looked(&mut self, now: Moment, looked: Looked) {
        let Some(looking) = self.capture.looking.take() else { return };
        let took = now.since(looking.began);
        self.capture.pause = now + took.saturating_mul(LOOK_PAUSE);
        let rests = Arc::ptr_eq(&looked.basis.placed, &self.outside.placed());
        if !looking.counts || self.run.is_some() || !rests {
            // It may show a conveyed record as if its client had registered, or a client that was there before as if it had come
            // back.
            self.capture.due = Some(now);
            return;
        }
        self.take_look(now, looked);
    }

    /// Knows what a look found, and begins to compare it with the store.
    pub fn take_look(&mut self, now: Moment, Looked { basis, found }: Looked) {
        self.capture.comparing = None;
        let took = self.outside.now().since(basis.began_at);
        self.counts.looks.ended(took, found.is_ok());
        let Found { mut population, problems, opened } = match found {
            Ok(found) => found,
            Err(why) => {
                // Records that can't be seen are not gone.
                self.say_blind(Some(why));
                return;
            }
        };
        tracing::debug!(clients = population.clients.len(), opened, "looked");
        (self.capture.looked, self.capture.opened) = (Some(basis.began_at), opened);
        self.say_blind(None);
        self.speak_of_problems(problems);
        let known = population.keys.keys();
        for name in self.capture.resolver.ask(&population.unresolved, known, now) {
            self.outside.begin(Work::LookUp(name));
        }
        for (client, learnt) in std::mem::take(&mut self.capture.learnt) {
            match learnt {
                Learnt::Exactly(bytes) => drop(population.clients.insert(client, bytes)),
                Learnt::AtLeast(bytes) => population.clients.insert_if_absent(client, || bytes.into()),
            }
        }
        let before = std::mem::replace(&mut self.capture.found, population);
        self.outside.begin(Work::Discard(before));
        let remembers = self.held.values().any(|held| held.ledger.remembers_peers());
        let roles = self.outside.roles(&self.nlm_ports, remembers);
        let begin =
            |(service, held): (&ServiceName, &mut Held)| (service.clone(), held.ledger.begin_comparison());
        let services = self.held.iter_mut().map(begin).collect();
        let Basis { began, life, .. } = basis;
        self.capture.comparing =
            Some(Comparing { began, life, roles, services, committed: false, failed: false });
    }

    /// Compares what was found with what the store holds, and commits the difference: all of it.
    pub fn record(&mut self, now: Moment) {
        self.compare(now, Portion::ALL);
    }

    /// The same for a portion of it, in which those that wait for a commit of their own get their turn.
    fn compare_a_portion(&mut self, now: Moment) {
        if self.run.is_some() && self.capture.comparing.take().is_some() {
            // The run's own looks show more.
            self.capture.due = Some(now);
        }
        self.compare(now, self.capture.portion);
    }

    pub fn compare(&mut self, now: Moment, portion: Portion) {
        let Some(mut comparing) = self.capture.comparing.take() else { return };
        // Another life than the one that the look began in says nothing of what it lacked.
        let life = self.life_that_deletes().filter(|life| comparing.life.as_ref() == Some(life));
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
            let (began, found, roles) = (comparing.began, &self.capture.found, &comparing.roles);
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
        let mut committing = Committing::new(self.store.as_ref(), &self.outside, &mut self.counts);
        let failures = commit_captured(&mut committing, work);
        self.held = held_services;
        for (service, failure) in failures {
            // The others go on.
            comparing.services.remove(&service);
            comparing.failed = true;
            self.capture.behind = true;
            self.store_failed(now, &failure);
            // Not put off by the hints that come meanwhile.
            let retry = now + STORE_RETRY;
            self.capture.due = self.capture.due.map(|due| due.min(retry));
        }
        if !comparing.services.is_empty() {
            self.capture.comparing = Some(comparing);
        } else if !comparing.failed {
            (self.capture.behind, self.capture.caught_up) = (false, self.capture.due.is_some());
            if comparing.committed {
                self.be_checked(now);
            }
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
        self.lives.where_deletions_count(self.outside.now(), self.run.is_some()).cloned()
    }

    /// A name was resolved, or could not be.
    pub fn resolved(&mut self, now: Moment, name: &MonName, found: Result<Vec<IpAddr>, String>) {
        self.capture.resolver.answered(name, now);
        let addresses = match found {
            Ok(addresses) => addresses,
            Err(why) => {
                tracing::warn!(%name, why, "the addresses of {name} are looked up later: {why}");
                return;
            }
        };
        if addresses.is_empty() {
            if !self.capture.addresses.contains_key(name)
                && self.outside.may_say("client's name without an address")
            {
                tracing::warn!(%name, "the client {name} can't be told of an adoption, for its name has no address now");
            }
        } else if self.run.is_some() {
            // A client that is being told must not become another one: its outcome would belong to no client.
            self.capture.put_off.insert(name.clone(), addresses);
        } else {
            self.learn(now, name, addresses);
        }
    }

    /// Takes in the names that were resolved while a run was on.
    pub(crate) fn learn_names_that_were_put_off(&mut self, now: Moment) {
        for (name, addresses) in std::mem::take(&mut self.capture.put_off) {
            self.learn(now, &name, addresses);
        }
    }

    fn learn(&mut self, now: Moment, name: &MonName, addresses: Vec<IpAddr>) {
        let before = self.capture.addresses.get(name).cloned();
        learn(Arc::make_mut(&mut self.capture.addresses), name, addresses);
        if self.capture.addresses.get(name) != before.as_ref() {
            if self.outside.may_say("client's name resolved") {
                tracing::info!(%name, addresses = ?self.capture.addresses.get(name), "the client {name} has the addresses {:?}", self.capture.addresses.get(name));
            }
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

    /// Each problem is said once, and not before it was seen twice if it may be a record in the making. The user of the status
    /// monitor can make any number of them.
    fn speak_of_problems(&mut self, problems: Vec<Problem>) {
        let seen: BTreeSet<Problem> = problems.into_iter().collect();
        for problem in &seen {
            let stays = !problem.may_be_in_the_making || self.capture.problems.contains(problem);
            if stays
                && self.capture.known_problems.insert(problem.clone())
                && self.outside.may_say("no monitor record")
            {
                tracing::warn!(path = %problem.path, why = %problem.why, "{} is no monitor record, and is left alone: {}", problem.path, problem.why);
            }
        }
        self.capture.known_problems.retain(|problem| seen.contains(problem));
        self.capture.problems = seen;
    }

    /// While a run waits for clients to come back: tells it which clients registered since it recognised.
    fn report_registrations(&mut self) {
        let Some(running) = &mut self.run else { return };
        running.spare(&self.capture.found.clients);
        running.machine.saw(self.capture.found.clients.clients());
        let Some(before) = &running.before else { return };
        let came = before.came(&self.capture.found.clients);
        if !came.is_empty() {
            self.advance(heirlock_core::takeover::Event::Registered(came));
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
