//! One agent's knowledge of the lives of its lock manager: which one runs, since when its grace has been open, whether its
//! beginning was acted on, and so the duties in it.
//!
//! A life that ends is seen in two ways: by the next look at the lock manager, or because a run made the lock manager
//! recognise. Where that comes too late for the run that asked for it, the locks are gone all the same: a life that began as
//! any other does.

use std::time::Duration;

use crate::duty::{EarlierLocks, Holding, Owed, owed};
use crate::grace::{Opening, Probe, Recalled, had_ended};
use crate::incarnation::{Change, Follower, Incarnation, Observation};
use crate::limits;
use crate::moment::Moment;
use crate::names::ServiceName;
use crate::takeover::{Cause, End, Order, Recognition, Standing, Strategy};

/// All that is known of them.
#[derive(Debug, Clone, Default)]
pub struct Lives {
    follower: Follower,
    /// Clients are served: nfsd has threads.
    serving: bool,
    /// The lock manager was reborn, and that was not acted on yet.
    reborn: bool,
    looked_at: Option<Moment>,
    grace_seen: Option<Moment>,
    /// When the agent before this one last looked, and saw grace closed; until this one has looked.
    seen_closed: Option<Moment>,
    /// The lock manager's answer on the locks of clients without a noted life, in the life that runs.
    told: EarlierLocks,
    /// The life that runs began after an earlier look, and that was not acted on yet.
    began_under_our_eyes: bool,
    /// When the last run was refused, if it was.
    refused_at: Option<Moment>,
}

/// Another life began. A run that is bound to the one before is told [`crate::takeover::Event::LifeChanged`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Begun {
    /// The life.
    pub life: Incarnation,
    /// When its grace opened, at the earliest: to be kept where the next agent of this boot finds it.
    pub since: Option<Moment>,
}

/// The lock manager is being made to recognise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recognising {
    /// How.
    pub strategy: Strategy,
    /// When that began.
    pub before: Moment,
    /// Since when grace was known to be open, at the earliest ([`Lives::grace_seen`]).
    pub grace_seen: Option<Moment>,
    /// The lock manager's answer right before, where it was asked ([`asks_first`]).
    pub answer: Option<Probe>,
}

/// The lock manager was made to recognise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recognised {
    /// The lock manager as it was seen right after.
    pub observation: Observation,
    /// Its locks were dropped without a new start of its threads.
    pub in_place: bool,
    /// When its grace period opened, at the latest.
    pub grace_opened: Moment,
    /// How long it lasts, at the least.
    pub grace_length: Duration,
    /// See [`Recognition::too_late_for_the_lost`].
    pub too_late_for_the_lost: bool,
}

/// The next step after a look at the duties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// No client's locks are gone.
    Nothing,
    /// A run is to be begun, and not now: one that was asked for tells those clients as well, once it has claimed, or the
    /// last one was refused a moment ago.
    Later,
    /// A run is to be begun.
    Begin(Order),
}

/// Whether the lock manager is asked first whether it is in grace: clients are still to be told in the life that this
/// strategy ends (`owes`), and outside grace that life may have granted their locks to others.
#[must_use]
pub fn asks_first(strategy: Strategy, owes: bool) -> bool {
    owes && strategy.drops_own_locks()
}

impl Recognising {
    /// It is done. `age` is how long the lock manager's threads have run, where that is known.
    ///
    /// # Errors
    /// Where nothing tells how long grace has been open.
    pub fn done(
        self,
        now: Moment,
        observation: Observation,
        in_place: bool,
        age: Option<Duration>,
        grace_length: Duration,
    ) -> Result<Recognised, String> {
        let forced = (in_place || self.strategy.opens_grace()).then_some(self.before);
        let opening = Opening { now, forced, age, seen: self.grace_seen };
        let grace_opened =
            opening.counted_from().ok_or("nothing tells how long grace has been open already")?;
        let ended = |answer| had_ended(answer, self.grace_seen, grace_length, self.before);
        let too_late_for_the_lost = self.answer.is_some_and(ended);
        Ok(Recognised { observation, in_place, grace_opened, grace_length, too_late_for_the_lost })
    }
}

impl Lives {
    /// Begins with the life that the store knows of, where there is one, and with what the agent before this one saw of its
    /// grace period.
    #[must_use]
    pub fn new(known: Option<Incarnation>, recalled: Recalled) -> Self {
        let Recalled { later, opened: grace_seen, closed: seen_closed } = recalled;
        let reborn = later.is_some();
        let follower = Follower::new(later.or(known), seen_closed.is_some());
        let began_under_our_eyes = reborn && grace_seen.is_some();
        Self { follower, reborn, began_under_our_eyes, grace_seen, seen_closed, ..Self::default() }
    }

    /// The life that is being followed, if any was ever seen.
    #[must_use]
    pub fn current(&self) -> Option<&Incarnation> {
        self.follower.current()
    }

    /// The same, where a lock manager ran at the last look.
    #[must_use]
    pub fn running(&self) -> Option<&Incarnation> {
        self.current().filter(|_| self.follower.runs())
    }

    /// Whether clients are served.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.serving
    }

    /// Whether another life than the one that was known runs, and nothing was done about it yet.
    #[must_use]
    pub fn is_reborn(&self) -> bool {
        self.reborn
    }

    /// The moment before which grace was not open; `None` where nothing is known.
    #[must_use]
    pub fn grace_seen(&self) -> Option<Moment> {
        self.grace_seen
    }

    /// When the lock manager was last looked at. A look at one that has stopped shows no life that goes on.
    #[must_use]
    pub fn looked_at(&self) -> Option<Moment> {
        self.looked_at.filter(|_| self.follower.runs())
    }

    /// The life in which a deletion may mean something. While a run drops and opens what it will, none does. Nor does one that
    /// no look has shown lately: a lock manager that was stopped takes records away, and an agent that stood still, or could not
    /// look, learns of the deletions before it learns of the life that ended.
    #[must_use]
    pub fn where_deletions_count(&self, now: Moment, a_run_is_on: bool) -> Option<&Incarnation> {
        let is_known = self.looked_at.is_some_and(|at| now.since(at) <= limits::LOOK_AGE_MAX);
        self.current().filter(|_| self.serving && is_known && !a_run_is_on)
    }

    /// The lock manager was looked at.
    pub fn looked(&mut self, at: Moment, seen: &Observation) -> Option<Begun> {
        let before = self.looked_at.replace(at).or(self.seen_closed.take());
        self.serving = seen.serving;
        let change = self.follower.observe(seen);
        // It began after the look before. Where there was none, nothing is known of its age.
        self.changed(change, before)
    }

    fn changed(&mut self, change: Change, since: Option<Moment>) -> Option<Begun> {
        match change {
            Change::Same => None,
            Change::Stopped => {
                self.grace_seen = None;
                None
            }
            Change::Reborn(life) => {
                self.grace_seen = since;
                self.reborn = true;
                self.began_under_our_eyes = since.is_some();
                self.told = EarlierLocks::Unknown;
                Some(Begun { life, since })
            }
        }
    }

    /// The life whose grace a look showed to be closed, where this is to be noted for the agent's next start.
    #[must_use]
    pub fn seen_closed(&self, seen: &Observation) -> Option<&Incarnation> {
        self.running().filter(|_| seen.in_grace == Some(false))
    }

    /// The lock manager was made to recognise. `awaited` says whether the run that asked for it waits for it still
    /// ([`crate::takeover::Takeover::awaits_recognition`]): then what follows from the life that began is that run's to do.
    ///
    /// # Errors
    /// Of the recognition: where no lock manager runs.
    pub fn recognised(
        &mut self,
        done: &Recognised,
        awaited: bool,
    ) -> (Option<Begun>, Result<Recognition, String>) {
        let change = self.follower.observe(&done.observation);
        let dropped = done.in_place.then(|| self.follower.restarted_in_place()).flatten();
        let change = dropped.map_or(change, Change::Reborn);
        self.serving = done.observation.serving;
        let begun = if awaited { None } else { self.changed(change, Some(done.grace_opened)) };
        let Some(life) = self.running().cloned() else {
            return (begun, Err("no lock manager runs".to_owned()));
        };
        self.grace_seen = Some(done.grace_opened);
        let recognition = Recognition {
            life,
            grace_opened: done.grace_opened,
            grace_length: done.grace_length,
            too_late_for_the_lost: done.too_late_for_the_lost,
        };
        (begun, Ok(recognition))
    }

    /// The lock manager of this life was asked whether grace is open, and so whether clients without a noted life have lost
    /// their locks. `None` where another life has begun meanwhile.
    pub fn told_of_earlier_locks(&mut self, life: &Incarnation, answer: Probe) -> Option<EarlierLocks> {
        if self.current() != Some(life) {
            return None;
        }
        self.told = EarlierLocks::told_by(answer);
        Some(self.told)
    }

    /// The duties towards the clients of all services that are held, in the life that is followed.
    #[must_use]
    pub fn owed<'a>(&self, holdings: impl IntoIterator<Item = Holding<'a>, IntoIter: Clone>) -> Owed {
        let Some(life) = self.current() else { return Owed::default() };
        let earlier_locks = if self.began_under_our_eyes { EarlierLocks::Lost } else { self.told };
        owed(holdings, life, self.reborn, earlier_locks)
    }

    /// The services and duties of this server, as a run has to know them; `host` is its own implicit service.
    #[must_use]
    pub fn standing<'a>(
        &self,
        host: &ServiceName,
        holdings: impl Iterator<Item = Holding<'a>> + Clone,
    ) -> Standing {
        let Owed { lost, unknown, .. } = self.owed(holdings.clone());
        let own = holdings.clone().map(|holding| holding.service.clone()).collect();
        let of_host = { holdings }.find(|holding| holding.service == host);
        let life_before = of_host.and_then(|holding| holding.journal.life_told().cloned());
        Standing { own, lost, unknown, life_before, life_now: self.running().cloned() }
    }

    /// The life in which what is owed can be done now: one that runs, and in which clients are served.
    #[must_use]
    pub fn to_recover_in(&self) -> Option<&Incarnation> {
        self.running().filter(|_| self.serving)
    }

    /// The run that the duties ask for. `is_asked` says whether a run that was asked for has not claimed yet.
    #[must_use]
    pub fn next(&self, now: Moment, owed: &Owed, is_asked: bool) -> Next {
        if owed.lost.is_empty() {
            return Next::Nothing;
        }
        let lately = |at: Moment| now.since(at) < limits::REDO_INTERVAL;
        let order = match &owed.redo {
            Some(_) if self.refused_at.is_some_and(lately) => return Next::Later,
            Some(redo) => Order::redo(redo.clone()),
            None => Order::own_restart(),
        };
        if order.cause != Cause::OwnRestart && is_asked { Next::Later } else { Next::Begin(order) }
    }

    /// The duties were seen to: a run began for them, or no locks were gone. Where that run is not on any more it was
    /// refused, and which clients the next one must tell still depends on what is known.
    pub fn followed_up(&mut self, began: bool, a_run_is_on: bool) {
        // The run uses the grace period. For a client without a noted life that is met later the lock manager is asked again.
        if began && self.told == EarlierLocks::Lost {
            self.told = EarlierLocks::Unknown;
        }
        self.reborn &= began && !a_run_is_on;
        self.began_under_our_eyes &= self.reborn;
    }

    /// A run has ended. `reborn` says whether it was this run's task to act on the beginning of another life.
    pub fn run_ended(&mut self, now: Moment, end: &End, reborn: bool) {
        let is_refused = end.is_before_the_beginning();
        self.reborn |= reborn && is_refused;
        self.refused_at = is_refused.then_some(now);
    }
}

#[cfg(test)]
mod tests;
