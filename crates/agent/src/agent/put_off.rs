//! Messages that wait for a slow store: they go on as soon as the store answers again, and before anything else is
//! asked of the store.

use std::collections::VecDeque;

use heirlock_core::claim::Authority;
use heirlock_core::monitor::Arrival;
use heirlock_core::takeover::Part;
use heirlock_core::{Moment, ServiceName};

use super::outside::Outside;
use super::work::RunNumber;
use super::{Answered, Inside};
use crate::control::{Progress, Request, Responder, Wait};
use crate::limits::STORE_ANSWERS_TIME_MAX;
use crate::status_monitor::Said;

/// The messages that were put off, in the order in which they came.
#[derive(Default)]
pub struct PutOff(VecDeque<Later>);

/// One of them.
pub enum Later {
    /// A run claims. It may have, for its claim was given up on the way.
    Claim(RunNumber, Vec<(ServiceName, Part)>, Authority),
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
    /// Until when it waits. A run waits for the store without an end, as it does for all that it makes durable.
    fn until(&self) -> Option<Moment> {
        match self {
            Self::Claim(..) | Self::Commit(..) | Self::Callout(..) => None,
            Self::GiveUp(_, until) | Self::Request(_, _, until) => Some(*until),
        }
    }

    /// Whether the store may hold what this server does not know of: a claim that was made, or one that was given up.
    fn may_have_come_about(&self) -> bool {
        matches!(self, Self::Claim(..) | Self::GiveUp(..))
    }
}

impl PutOff {
    /// Nothing waits for the store.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When one of them has waited long enough.
    pub(crate) fn due(&self) -> Option<Moment> {
        self.0.iter().filter_map(Later::until).min()
    }

    /// Whether the store may hold claims that this server does not know of.
    pub fn may_have_come_about(&self) -> bool {
        self.0.iter().any(Later::may_have_come_about)
    }
}

impl<O: Outside> Inside<O> {
    /// This is done once the store answers again.
    pub(crate) fn put_off(&mut self, later: Later) {
        self.put_off.0.push_back(later);
    }

    /// Until when something waits for the store that begins to wait now.
    pub(crate) fn patience_with_the_store(&self) -> Moment {
        self.outside.now() + STORE_ANSWERS_TIME_MAX
    }

    /// A request comes. A request that needs the store is answered as soon as the store answers.
    pub(crate) fn requested(&mut self, now: Moment, request: Box<Request>, responder: Responder) {
        let responder = self.tally.counted(&request, responder);
        let is_of_memory =
            matches!(*request, Request::Status | Request::Report { .. } | Request::Maintenance { .. });
        if is_of_memory || !self.store.is_busy() {
            return self.answer(now, *request, responder);
        }
        let until = self.patience_with_the_store();
        self.put_off(Later::Request(request, responder, until));
    }

    /// The store answers again: first what may have come about already is looked for, then the store itself is looked at, and
    /// then what others wait for is done.
    pub fn store_answers(&mut self, now: Moment) {
        self.go_on(now, Later::may_have_come_about);
        if !self.store.is_busy() {
            if self.capture.behind {
                self.scan(now);
            }
            // A call that ended late may have changed the services that this server holds.
            self.beat(now);
        }
        self.go_on(now, |_| true);
    }

    /// Does what was put off and is of this kind, as long as the store answers.
    fn go_on(&mut self, now: Moment, of_kind: impl Fn(&Later) -> bool) {
        for later in std::mem::take(&mut self.put_off.0) {
            if self.store.is_busy() || !of_kind(&later) {
                self.put_off(later);
                continue;
            }
            match later {
                Later::Claim(run, services, authority) => self.go_on_claiming(run, services, authority),
                Later::GiveUp(service, _) => self.address_gone(now, &service, Ok(())),
                Later::Commit(heard, batch, arrivals) => self.commit_arrivals(now, heard, batch, arrivals),
                Later::Callout(heard, said, answered) => self.called_out(now, heard, said, answered),
                Later::Request(request, responder, _) => self.answer(now, *request, responder),
            }
        }
    }

    /// A message that has waited for the store for long enough is answered with the store's own error.
    pub fn end_messages_put_off_too_long(&mut self, now: Moment) {
        if self.put_off.due().is_none_or(|due| now < due) {
            return;
        }
        let error = self.store.found().err();
        let why =
            error.map_or_else(|| "the store did not answer in time".to_owned(), |error| error.to_string());
        for later in std::mem::take(&mut self.put_off.0) {
            match later {
                Later::GiveUp(service, until) if now >= until => {
                    self.address_gone(now, &service, Err(why.clone()));
                }
                Later::Request(_, responder, until) if now >= until => responder.failed(&why, false),
                later => self.put_off(later),
            }
        }
    }

    /// Tells those whose requests were put off what they wait for. One whose caller is gone is not begun any more.
    pub fn say_messages_put_off(&mut self, now: Moment) {
        self.put_off.0.retain_mut(|later| match later {
            Later::Request(_, responder, until) => {
                let wait = Wait::new("the store to answer", now, Some(*until));
                responder.progress(&Progress::waiting(wait))
            }
            _ => true,
        });
    }
}
