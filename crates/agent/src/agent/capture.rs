//! What is known of registrations between two looks at the status monitor's directory, and of the look that is on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use heirlock_core::incarnation::Incarnation;
use heirlock_core::ledger::{Addresses, Comparison, Population, Portion, Problem, Roles};
use heirlock_core::{Moment, ServiceName};
use heirlock_nsm::MonName;

use super::resolve::Resolver;
use crate::limits::{COMMIT_RECORDS_MAX, COMPARED_AT_ONCE_MAX, LOOK_TIME_MAX, REMOVED_AT_ONCE_MAX};

/// The memory of capturing between looks.
#[derive(Debug)]
pub struct Capture {
    /// The clients that were there at the last look.
    pub found: Population,
    /// Problems that were there at the last look: those that may have been in the making are spoken of now.
    pub(super) problems: BTreeSet<Problem>,
    /// Problems that were spoken of.
    pub(crate) known_problems: BTreeSet<Problem>,
    /// Addresses that names were resolved to.
    pub addresses: Arc<Addresses>,
    /// Addresses that were learnt since a run began.
    pub(super) put_off: Addresses,
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
    pub(super) looking: Option<Looking>,
    /// Clients that registered since the look began, as far as the loop knows already.
    pub(super) learnt: BTreeMap<MonName, Learnt>,
    /// The result of the last look, as far as it isn't compared with the store yet.
    pub(super) comparing: Option<Comparing>,
    /// Before this moment no look is made only because a deletion may be believed.
    pub(super) pause: Moment,
    /// How many files the last look had to open.
    pub(super) opened: usize,
    /// The portion of each service that is compared at one turn of the loop.
    pub(crate) portion: Portion,
}

/// A look that is on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looking {
    pub(super) began: Moment,
    /// No other look was made since.
    pub(super) counts: bool,
}

/// The loop's knowledge of a client while a look is on.
#[derive(Debug, Clone)]
pub(super) enum Learnt {
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
    pub(super) fn next_due(&self, hinted: bool) -> Option<Moment> {
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

    /// A look or a comparison is on.
    #[cfg(feature = "inside")]
    pub fn is_busy(&self) -> bool {
        self.looking.is_some() || self.comparing.is_some()
    }
}
