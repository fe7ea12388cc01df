//! The messages that wait for a slow store.

use std::collections::VecDeque;

use heirlock_core::monitor::Arrival;
use heirlock_core::store::StoreError;
use heirlock_core::{Moment, ServiceName};

use super::Answered;
use super::waiting::{Adoption, Waiting};
use super::work::RunNumber;
use crate::control::{Request, Responder};
use crate::limits;
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
    /// A service is given up whose address is gone.
    GiveUp(ServiceName, Tries),
    /// Clients of our own status monitor are to be made durable, and have been since that moment. It refuses them by itself
    /// where they wait too long.
    Commit(Moment, u64, Vec<Arrival>),
    /// rpc.statd's callout says something, and has waited since that moment. It ends by itself where it waits too long.
    Callout(Moment, Said, Answered),
    /// A request that needs the store.
    Request(Box<Request>, Responder, Tries),
    /// An adoption that was asked for: whether this server may claim the service could not be read.
    Adoption(Box<Adoption>, Box<Waiting>, Tries),
    /// A run is to have owners fenced: whether it may could not be read. It is tried again at that moment; where a call goes on still,
    /// its end is waited for.
    Fence(RunNumber, Vec<ServiceName>, Option<Moment>),
}

/// For how long something that a caller waits for is tried, where the store fails or takes its time.
#[derive(Debug, Clone)]
pub struct Tries {
    /// Until when it is tried. It has failed then.
    pub(crate) until: Moment,
    /// When it is tried again; where a call goes on still, its end is waited for.
    pub(crate) again: Option<Moment>,
    /// The store's own error at the last try.
    pub(crate) why: Option<String>,
}

impl Tries {
    /// The store takes its time, and was not asked.
    pub(crate) fn until(until: Moment) -> Self {
        Self { until, again: None, why: None }
    }

    /// A call has failed that may succeed a moment later. Nothing where it may not, or where it was tried for long enough.
    pub(crate) fn after(error: &StoreError, now: Moment, until: Moment) -> Option<Self> {
        let again = (!error.is_late()).then(|| now + limits::STORE_RETRY);
        let may_be = error.may_pass() && now < until;
        may_be.then(|| Self { until, again, why: Some(error.to_string()) })
    }

    /// When there is something to do.
    fn due(&self) -> Moment {
        self.again.map_or(self.until, |again| again.min(self.until))
    }
}

impl Later {
    /// When it has waited long enough, or is tried again. For the end of a call a run waits without an end, as it does for all
    /// that it makes durable.
    pub(super) fn until(&self) -> Option<Moment> {
        match self {
            Self::Claim { again, .. } | Self::Fence(.., again) => *again,
            Self::Commit(..) | Self::Callout(..) => None,
            Self::GiveUp(_, tries) | Self::Request(.., tries) | Self::Adoption(.., tries) => {
                Some(tries.due())
            }
        }
    }

    /// Whether the store may hold what this server does not know of: a claim that was made, or one that was given up.
    pub(super) fn may_have_come_about(&self) -> bool {
        matches!(self, Self::Claim { may_be_made: true, .. } | Self::GiveUp(..))
    }

    /// Whether it is to be tried again by now.
    pub(super) fn is_tried_again(&self, now: Moment) -> bool {
        self.again().is_some_and(|at| now >= at)
    }

    /// When it is tried again.
    fn again(&self) -> Option<Moment> {
        match self {
            Self::Claim { again, .. } | Self::Fence(.., again) => *again,
            Self::GiveUp(_, tries) | Self::Request(.., tries) | Self::Adoption(.., tries) => tries.again,
            Self::Commit(..) | Self::Callout(..) => None,
        }
    }

    /// The end of a call is waited for.
    fn await_answer(&mut self) {
        match self {
            Self::Claim { again, .. } | Self::Fence(.., again) => *again = None,
            Self::GiveUp(_, tries) | Self::Request(.., tries) | Self::Adoption(.., tries) => {
                tries.again = None;
            }
            Self::Commit(..) | Self::Callout(..) => {}
        }
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

    /// A call of the store goes on: all that would be tried again waits for its end.
    pub(crate) fn await_answer(&mut self) {
        self.0.iter_mut().for_each(Later::await_answer);
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
