//! What is known of registrations between two looks at the status monitor's directory, and of the look that is on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use heirlock_core::incarnation::Incarnation;
use heirlock_core::ledger::{Addresses, Comparison, Population, Portion, Problem, Roles, learn};
use heirlock_core::{Moment, ServiceName};
use heirlock_nsm::MonName;

use super::resolve::Resolver;
use crate::limits::{
    COMMIT_RECORDS_MAX, COMPARED_AT_ONCE_MAX, HINTED_LOOK_PAUSE, HINTED_LOOK_PAUSE_MAX, LOOK_BELIEVED_MAX,
    LOOK_PAUSE, LOOK_TIME_MAX, REMOVED_AT_ONCE_MAX,
};

/// The memory of capturing between looks.
#[derive(Debug)]
pub struct Capture {
    /// The clients that were there at the last look.
    found: Population,
    /// Problems that were there at the last look: those that may have been in the making are spoken of now.
    problems: BTreeSet<Problem>,
    /// Problems that were spoken of.
    known_problems: BTreeSet<Problem>,
    /// Addresses that names were resolved to.
    addresses: Arc<Addresses>,
    /// Addresses that were learnt since a run began.
    put_off: Addresses,
    resolver: Resolver,
    /// The store doesn't know yet what was found.
    behind: bool,
    /// Everything that a look found has been compared with the store since everything was to be looked at anew.
    caught_up: bool,
    /// The directory itself can't be read.
    blind: Option<String>,
    /// When the last look began that is over.
    looked: Option<Moment>,
    /// When everything is read anew, with or without a hint; `None`: now.
    due: Option<Moment>,
    /// The look that is on.
    looking: Option<Looking>,
    /// Clients that registered since the look began, as far as the loop knows already.
    learnt: BTreeMap<MonName, Learnt>,
    /// The result of the last look, as far as it isn't compared with the store yet.
    comparing: Option<Comparing>,
    /// Before this moment no look is made only because a deletion may be believed.
    pause: Moment,
    /// Before this moment the loop itself makes no look only because of a hint.
    hints_wait: Moment,
    /// How many files the last look had to open.
    opened: usize,
    /// The last look that is over says nothing of clients that have left.
    is_old: bool,
    /// See [`LOOK_TIME_MAX`] and [`LOOK_BELIEVED_MAX`].
    time_max: Duration,
    believed_max: Duration,
    /// The portion of each service that is compared at one turn of the loop.
    portion: Portion,
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
pub(super) struct Comparing {
    /// When the look began.
    pub(super) began: Moment,
    /// The life in which deletions meant something from then on.
    pub(super) life: Option<Incarnation>,
    pub(super) roles: Roles,
    pub(super) services: BTreeMap<ServiceName, Comparison>,
    /// Something was committed.
    pub(super) committed: bool,
    /// Something could not be.
    pub(super) failed: bool,
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
            hints_wait: Moment::START,
            opened: 0,
            is_old: false,
            time_max: LOOK_TIME_MAX,
            believed_max: LOOK_BELIEVED_MAX,
            portion: Portion::of(COMPARED_AT_ONCE_MAX, COMMIT_RECORDS_MAX, REMOVED_AT_ONCE_MAX),
        }
    }

    /// Everything is looked at anew at the next turn, and nothing is protected until it is.
    pub(crate) fn begin_anew(&mut self) {
        (self.due, self.caught_up) = (None, false);
    }

    /// These are a client's registrations, which a look that is on may not show.
    pub fn knows(&mut self, client: &MonName, bytes: &[u8]) {
        self.found.is_registered(client, bytes);
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

    /// The clients that were there at the last look.
    pub fn found(&self) -> &Population {
        &self.found
    }

    /// The addresses that names were resolved to.
    pub fn addresses(&self) -> &Arc<Addresses> {
        &self.addresses
    }

    /// The same, to add some.
    pub fn addresses_mut(&mut self) -> &mut Addresses {
        Arc::make_mut(&mut self.addresses)
    }

    /// A client's first address, where its name was resolved.
    pub(crate) fn address_of(&self, name: &MonName) -> Option<IpAddr> {
        self.addresses.get(name).and_then(|list| list.first()).copied()
    }

    /// The directory itself can't be read, and why.
    pub fn blind(&self) -> Option<&str> {
        self.blind.as_deref()
    }

    /// When the last look began that is over.
    pub fn looked(&self) -> Option<Moment> {
        self.looked
    }

    /// The store doesn't know yet what was found.
    pub fn is_behind(&self) -> bool {
        self.behind
    }

    /// Every registration that a look can find was found, and is in the store.
    pub(crate) fn is_complete(&self) -> bool {
        self.blind.is_none() && !self.behind && self.caught_up
    }

    /// The entries of the directory that are no records, as far as they were spoken of.
    pub(crate) fn known_problems(&self) -> &BTreeSet<Problem> {
        &self.known_problems
    }

    /// Compares so many clients of a service at one turn.
    pub(crate) fn compares_at_once(&mut self, portion: Portion) {
        self.portion = portion;
    }

    /// The portion of each service that is compared at one turn of the loop.
    pub(crate) fn portion(&self) -> Portion {
        self.portion
    }

    // When.

    /// When everything is read anew, with or without a hint; nothing: now.
    #[cfg(feature = "inside")]
    pub fn due(&self) -> Option<Moment> {
        self.due
    }

    /// Whether everything is to be read anew now.
    pub(crate) fn is_due(&self, now: Moment) -> bool {
        self.due.is_none_or(|due| now >= due)
    }

    /// Everything is read anew at this moment.
    pub fn look_at(&mut self, at: Moment) {
        self.due = Some(at);
    }

    /// Everything is read anew by this moment. Where that was to be done at once, it still is.
    pub(crate) fn look_by(&mut self, at: Moment) {
        self.due = self.due.map(|due| due.min(at));
    }

    /// Everything is read anew soon, by this moment.
    pub(crate) fn look_soon(&mut self, at: Moment) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Whether a hint is reason enough for the loop to look itself now.
    pub(crate) fn heeds_hints(&self, now: Moment) -> bool {
        now >= self.hints_wait
    }

    /// The loop itself has looked, for so long, until now.
    pub(crate) fn looked_itself(&mut self, now: Moment, took: Duration) {
        self.hints_wait = now + took.saturating_mul(HINTED_LOOK_PAUSE).min(HINTED_LOOK_PAUSE_MAX);
    }

    // A look beside the loop.

    /// A look is on.
    pub(crate) fn is_looking(&self) -> bool {
        self.looking.is_some()
    }

    /// A look or a comparison is on.
    pub fn is_busy(&self) -> bool {
        self.looking.is_some() || self.comparing.is_some()
    }

    /// A look is about to be begun.
    pub(crate) fn prepares(&mut self) {
        self.learnt.clear();
    }

    /// A look has begun.
    pub(crate) fn begins(&mut self, now: Moment) {
        self.looking = Some(Looking { began: now, counts: true });
    }

    /// Another look is made while one is on, which then does not count.
    pub(crate) fn is_overtaken(&mut self) {
        if let Some(looking) = &mut self.looking {
            looking.counts = false;
        }
    }

    /// The look that was on is over. Says whether it counts; nothing where none was on.
    pub(crate) fn ends(&mut self, now: Moment) -> Option<bool> {
        let Looking { began, counts } = self.looking.take()?;
        self.pause = now + now.since(began).saturating_mul(LOOK_PAUSE);
        Some(counts)
    }

    /// Says that a look has been on for too long.
    pub(crate) fn say_if_a_look_hangs(&mut self, now: Moment) {
        let hangs = self.looking.is_some_and(|looking| now >= looking.began + self.time_max);
        if hangs && self.blind.is_none() {
            let why = format!("a look at it has been on for more than {} s", self.time_max.as_secs());
            self.say_blind(Some(why));
        }
    }

    /// The directory can't be read, for this reason, or can be.
    pub(crate) fn say_blind(&mut self, why: Option<String>) {
        if self.blind != why {
            match &why {
                Some(why) => {
                    tracing::error!(%why, "new clients are unprotected, for the status monitor's directory can't be read: {why}");
                }
                None => tracing::info!("the status monitor's directory can be read again"),
            }
            self.blind = why;
        }
    }

    // The result of a look.

    /// Knows who is there, with the clients that registered meanwhile. Answers what was known before.
    pub(crate) fn takes(&mut self, mut population: Population) -> Population {
        for (client, learnt) in std::mem::take(&mut self.learnt) {
            match learnt {
                Learnt::Exactly(bytes) => population.is_registered(&client, &bytes),
                Learnt::AtLeast(bytes) => population.clients.insert_if_absent(client, || bytes.into()),
            }
        }
        std::mem::replace(&mut self.found, population)
    }

    /// A look that began then and took so long has shown the directory, and had to open so many files.
    pub(crate) fn saw(&mut self, began_at: Moment, took: Duration, opened: usize) {
        (self.looked, self.opened) = (Some(began_at), opened);
        self.is_old = took > self.believed_max;
        self.say_blind(None);
    }

    /// The last look that is over took so long that a client which it lacks may have come back meanwhile.
    pub(crate) fn is_old(&self) -> bool {
        self.is_old
    }

    /// Whether a client that no look has found is not there: the last look is over, did not take too long, and the next one does
    /// not hang either.
    pub(crate) fn sees_who_left(&self, now: Moment) -> bool {
        let hangs = self.looking.is_some_and(|looking| now.since(looking.began) > self.believed_max);
        self.looked.is_some() && self.blind.is_none() && !self.is_old && !hangs
    }

    /// Takes a look for hung after so long, and believes none that took longer than that in what it lacks.
    pub(crate) fn limits_looks(&mut self, time_max: Duration, believed_max: Duration) {
        (self.time_max, self.believed_max) = (time_max, believed_max);
    }

    /// Since when the look goes on that is on.
    pub(crate) fn looking_since(&self) -> Option<Moment> {
        self.looking.map(|looking| looking.began)
    }

    /// See [`LOOK_BELIEVED_MAX`].
    pub(crate) fn believed_max(&self) -> Duration {
        self.believed_max
    }

    /// After which a look hangs.
    pub(crate) fn time_max(&self) -> Duration {
        self.time_max
    }

    /// Each problem is said once, and not before it was seen twice if it may be a record in the making. The user of the status
    /// monitor can make any number of them: `may_say` tells whether one more may be said.
    pub(crate) fn speak_of_problems(&mut self, problems: Vec<Problem>, may_say: impl Fn() -> bool) {
        let seen: BTreeSet<Problem> = problems.into_iter().collect();
        for problem in &seen {
            let stays = !problem.may_be_in_the_making || self.problems.contains(problem);
            if stays && self.known_problems.insert(problem.clone()) && may_say() {
                tracing::warn!(path = %problem.path, why = %problem.why, "{} is no monitor record, and is left alone: {}", problem.path, problem.why);
            }
        }
        self.known_problems.retain(|problem| seen.contains(problem));
        self.problems = seen;
    }

    /// The comparison of a look's result with the records of the store, which is taken out to go on.
    pub(super) fn take_comparing(&mut self) -> Option<Comparing> {
        self.comparing.take()
    }

    /// It goes on at the next turn.
    pub(super) fn compares(&mut self, comparing: Comparing) {
        self.comparing = Some(comparing);
    }

    /// Something that was found could not be stored, and is looked for again at that moment: not put off by the hints that come
    /// meanwhile.
    pub(crate) fn falls_behind(&mut self, retry: Moment) {
        self.behind = true;
        self.look_by(retry);
    }

    /// All that was found is stored.
    pub(crate) fn catches_up(&mut self) {
        (self.behind, self.caught_up) = (false, self.due.is_some());
    }

    // Names.

    /// The names that are to be looked up now.
    pub(crate) fn ask(&mut self, population: &Population, now: Moment) -> Vec<MonName> {
        self.resolver.ask(&population.unresolved, population.keys.keys(), now)
    }

    /// A name was looked up.
    pub(crate) fn answered(&mut self, name: &MonName, now: Moment) {
        self.resolver.answered(name, now);
    }

    /// A name was resolved while a run was on. A client that is being told must not become another one: its outcome would belong to
    /// no client.
    pub(crate) fn learns_later(&mut self, name: MonName, addresses: Vec<IpAddr>) {
        self.put_off.insert(name, addresses);
    }

    /// The names that were resolved while a run was on.
    pub(crate) fn take_put_off(&mut self) -> Addresses {
        std::mem::take(&mut self.put_off)
    }

    /// These are the addresses of a name. Says whether that is news.
    pub(crate) fn learns(&mut self, now: Moment, name: &MonName, addresses: Vec<IpAddr>) -> bool {
        let before = self.addresses.get(name).cloned();
        learn(Arc::make_mut(&mut self.addresses), name, addresses);
        let is_news = self.addresses.get(name) != before.as_ref();
        if is_news {
            self.due = Some(now);
        }
        is_news
    }

    /// When it is to be looked or compared next; `None` while that is on. `hinted`: more may have changed since the last look
    /// began. Which deletions may be believed does not hurry it.
    pub(super) fn next_due(&self, hinted: bool) -> Option<Moment> {
        if self.comparing.is_some() {
            return Some(Moment::START);
        }
        match self.looking {
            // Also where it never ends, that is seen.
            Some(looking) => Some(looking.began + self.time_max).filter(|_| self.blind.is_none()),
            None if hinted => Some(self.hints_wait),
            None => self.due.or(Some(Moment::START)),
        }
    }

    /// When a deletion that may be believed from that moment on is looked for.
    pub(super) fn looks_for_deletions(&self, from: Moment) -> Option<Moment> {
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
}
