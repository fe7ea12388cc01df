//! The services that are to come to this server from another one that lives: home, or by a move.

use heirlock_core::{Moment, ServerName, ServiceName};

use super::waiting::Waiting;

/// Services that are to come here, until when, and the callers that wait for it.
#[derive(Debug, Default)]
pub(crate) struct Wishes(Vec<Wish>);

impl Wishes {
    /// One more is.
    pub(super) fn add(&mut self, wish: Wish) {
        self.0.push(wish);
    }

    /// Whether this service is.
    pub(crate) fn contains(&self, service: &ServiceName) -> bool {
        self.0.iter().any(|wish| wish.service == *service)
    }

    /// What is waited for before a service comes, in words.
    pub(crate) fn waits_for(&self, service: &ServiceName) -> Option<&str> {
        self.0.iter().find(|wish| wish.service == *service)?.waits_for.as_deref()
    }

    /// The wish for a service whose owner was not asked yet.
    pub(super) fn unasked(&mut self, service: &ServiceName) -> Option<&mut Wish> {
        self.0.iter_mut().find(|wish| wish.service == *service && wish.asked_at.is_none())
    }

    /// Takes out all of them.
    pub(super) fn take(&mut self) -> Vec<Wish> {
        std::mem::take(&mut self.0)
    }

    /// Takes out those for a service.
    pub(super) fn take_of(&mut self, service: &ServiceName) -> Vec<Wish> {
        self.0.extract_if(.., |wish| wish.service == *service).collect()
    }

    /// No service is to come here.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Why a service is to come here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It is at home here.
    Home,
    /// A caller says so.
    Move,
}

impl Why {
    /// As a part of a sentence.
    pub(crate) fn in_words(self) -> &'static str {
        match self {
            Self::Home => "it is at home here",
            Self::Move => "it is to move here",
        }
    }
}

#[derive(Debug)]
pub(super) struct Wish {
    pub(super) service: ServiceName,
    pub(super) why: Why,
    /// When its owner was asked; none while it is being looked for whether the service could be adopted here.
    pub(super) asked_at: Option<Moment>,
    /// The owner that was asked: the wish is for no other one's service.
    pub(super) asked_of: Option<ServerName>,
    /// The last moment at which its owner had it and was not seen to give it up.
    pub(super) had_it_at: Option<Moment>,
    /// When its owner began to give it up, as it says.
    pub(super) giving_up_at: Option<Moment>,
    pub(super) until: Moment,
    pub(super) waiting: Waiting,
    /// The sentences that the waiting callers are told besides.
    pub(super) told: Vec<String>,
    /// The present wait, for the status.
    pub(super) waits_for: Option<String>,
}

impl Wish {
    /// One whose owner was not asked.
    pub(super) fn new(service: ServiceName, why: Why, until: Moment, waiting: Waiting) -> Self {
        Self {
            service,
            why,
            asked_at: None,
            asked_of: None,
            had_it_at: None,
            giving_up_at: None,
            until,
            waiting,
            told: Vec::new(),
            waits_for: None,
        }
    }
}
