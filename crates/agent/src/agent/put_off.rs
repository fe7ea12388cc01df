//! The messages that wait for a slow store.

use std::collections::VecDeque;

use heirlock_core::monitor::Arrival;
use heirlock_core::{Moment, ServiceName};

use super::Answered;
use super::work::RunNumber;
use crate::control::{Request, Responder};
use crate::status_monitor::Said;

/// The messages that were put off, in the order in which they came.
#[derive(Default)]
pub struct PutOff(VecDeque<Later>);

/// One of them.
pub enum Later {
    /// A run claims: it has tried to, and a call of the store has failed or was given up on the way.
    Claim {
        /// which
        run: RunNumber,
        /// it may have claimed something all the same
        may_be_made: bool,
        /// when it tries again; where a call goes on still, its end is waited for
        again: Option<Moment>,
    },
    /// A service is given up whose address is gone, until this moment.
    GiveUp(ServiceName, Moment),
    /// Clients of our own status monitor are to be made durable, and have been since that moment. It refuses them by itself
    /// where they wait too long.
    Commit(Moment, u64, Vec<Arrival>),
    /// rpc.statd's callout says something, and has waited since that moment. It ends by itself where it waits too long.
    Callout(Moment, Said, Answered),
    /// A request that needs the store, until this moment.
    Request(Box<Request>, Responder, Moment),
}

impl Later {
    /// When it has waited long enough, or is tried again. For the end of a call a run waits without an end, as it does for all
    /// that it makes durable.
    pub(super) fn until(&self) -> Option<Moment> {
        match self {
            Self::Claim { again, .. } => *again,
            Self::Commit(..) | Self::Callout(..) => None,
            Self::GiveUp(_, until) | Self::Request(_, _, until) => Some(*until),
        }
    }

    /// Whether the store may hold what this server does not know of: a claim that was made, or one that was given up.
    pub(super) fn may_have_come_about(&self) -> bool {
        matches!(self, Self::Claim { may_be_made: true, .. } | Self::GiveUp(..))
    }

    /// Whether it is a claim that is to be tried again by now.
    pub(super) fn is_claimed_again(&self, now: Moment) -> bool {
        matches!(self, Self::Claim { again: Some(at), .. } if now >= *at)
    }
}

impl PutOff {
    /// This waits as well.
    pub(crate) fn add(&mut self, later: Later) {
        self.0.push_back(later);
    }

    /// Takes out all of them.
    pub(crate) fn take(&mut self) -> VecDeque<Later> {
        std::mem::take(&mut self.0)
    }

    /// Keeps those of which this is so.
    pub(crate) fn retain(&mut self, keeps: impl FnMut(&mut Later) -> bool) {
        self.0.retain_mut(keeps);
    }

    /// Nothing waits for the store.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A call of the store goes on: claims wait for its end.
    pub(crate) fn await_answer(&mut self) {
        for later in &mut self.0 {
            if let Later::Claim { again, .. } = later {
                *again = None;
            }
        }
    }

    /// When one of them has waited long enough, or is tried again.
    pub(crate) fn due(&self) -> Option<Moment> {
        self.0.iter().filter_map(Later::until).min()
    }

    /// Whether the store may hold claims that this server does not know of.
    pub fn may_have_come_about(&self) -> bool {
        self.0.iter().any(Later::may_have_come_about)
    }
}
