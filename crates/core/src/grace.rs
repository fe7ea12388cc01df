//! Whether a notification may leave now (I4).
//!
//! A notification that reaches a client after grace is poison: its reclaim is refused, and at the next failover
//! it reclaims nothing. So one leaves only while grace is proved to be open with a margin left, and the proof is
//! younger than [`limits::GRACE_PROOF_AGE_MAX`].

mod questions;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::incarnation::Incarnation;
use crate::limits;
use crate::moment::Moment;
use crate::planted::{Bug, planted};

pub use questions::Questions;

/// The answer about grace to an NLM4 UNLOCK or CANCEL with a made-up handle (no side effect, true each time).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Status 4, NLM4_DENIED_GRACE_PERIOD.
    InGrace,
    /// Any other NLM status: grace is over, or was never opened.
    NotInGrace,
    /// No answer, or none that says: nothing is proved.
    NoAnswer,
}

/// One grace period of one lock manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grace {
    /// When it opened, at the latest: an earlier moment only makes us more careful.
    opened: Moment,
    /// How long it lasts, at the least.
    length: Duration,
    /// How much of it must be left for a notification to leave, so that the reclaims fit in.
    margin: Duration,
    proved: Option<Moment>,
    closed: bool,
}

/// The knowledge of a grace period that is open now. Each field is a moment, or leads to one, before which it did not
/// open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Now.
    pub now: Moment,
    /// When the lock manager was made to begin another life, where it was.
    pub forced: Option<Moment>,
    /// How long its threads have run. A grace period that opened again without a new start is younger.
    pub age: Option<Duration>,
    /// The last look before this life was seen for the first time.
    pub seen: Option<Moment>,
}

impl Opening {
    /// The moment from which grace is to be counted: an error that makes it seem older makes us only more careful, an error
    /// that makes it younger would be a lie. `None` where nothing is known.
    #[must_use]
    pub fn counted_from(&self) -> Option<Moment> {
        let started = self.age.map(|age| self.now - age);
        [self.forced, started, self.seen].into_iter().flatten().max()
    }
}

/// This moment by the clock of a process, and by that of this boot: the next process of the boot has another clock.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// By the process's own.
    pub now: Moment,
    /// How long after the boot.
    pub since_boot: Duration,
}

impl Clocks {
    /// How long after the boot it was at an earlier moment of this process.
    #[must_use]
    pub fn since_boot_at(&self, earlier: Moment) -> Duration {
        self.since_boot.saturating_sub(self.now.since(earlier))
    }
}

/// One process's observation of the grace period of a life, as it leaves it to the next one.
///
/// Since when grace has been open: not every lock manager can tell. A lock manager that is known by commands alone never
/// does, and lockd's thread is older than a grace period that SIGKILL opened. Without it a run that goes on after the agent's
/// death could not count grace, and would have to give its clients up.
///
/// When grace was last seen closed: where it is open at the next process's first look, and the lock manager's threads are the
/// same, its locks were dropped in between.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Remembered {
    /// The life whose grace period it is.
    life: Incarnation,
    /// How long after the boot it had not opened yet.
    #[serde(default)]
    opened_ms: Option<u64>,
    /// How long after the boot it was last seen closed.
    #[serde(default)]
    closed_ms: Option<u64>,
}

/// The memory of the grace period of a life, in a process with a clock of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recalled {
    /// The life that grace belongs to, where that life followed the known one in place: its beginning was seen, and nothing was
    /// done about it that the store knows.
    pub later: Option<Incarnation>,
    /// The moment before which it did not open.
    pub opened: Option<Moment>,
    /// When it was last seen closed.
    pub closed: Option<Moment>,
}

impl Remembered {
    /// Nothing is known of the grace period of this life.
    #[must_use]
    pub fn of(life: Incarnation) -> Self {
        Self { life, opened_ms: None, closed_ms: None }
    }

    /// Grace of this life did not open before `opened`.
    #[must_use]
    pub fn opened(life: Incarnation, opened: Moment, clocks: Clocks) -> Self {
        Self { opened_ms: Some(millis(clocks.since_boot_at(opened))), ..Self::of(life) }
    }

    /// Grace of the life that ran at `looked` was closed then. That look may be long ago where the process stood still after it,
    /// and grace may have opened since. Answers whether this is to be kept: it was not known, or it is a while ago that it was
    /// noted ([`limits::GRACE_NOTED_INTERVAL`]).
    pub fn sees_closed(&mut self, life: &Incarnation, looked: Moment, clocks: Clocks) -> bool {
        if self.life != *life {
            *self = Self::of(life.clone());
        }
        let closed = clocks.since_boot_at(looked);
        let is_new = |closed_ms| closed < Duration::from_millis(closed_ms) + limits::GRACE_NOTED_INTERVAL;
        if self.closed_ms.is_some_and(is_new) {
            return false;
        }
        self.closed_ms = Some(millis(closed));
        true
    }

    /// The memory, where this is the life that is known; nothing where it is of another one, save one that followed it in
    /// place.
    #[must_use]
    pub fn recall(&self, known: &Incarnation, Clocks { now, since_boot }: Clocks) -> Recalled {
        let is_later = self.life.followed_in_place(known);
        if self.life != *known && !is_later {
            return Recalled::default();
        }
        let later = is_later.then(|| self.life.clone());
        let at = |ms: u64| since_boot.checked_sub(Duration::from_millis(ms)).map(|ago| now - ago);
        Recalled { later, opened: self.opened_ms.and_then(at), closed: self.closed_ms.and_then(at) }
    }
}

fn millis(since_boot: Duration) -> u64 {
    u64::try_from(since_boot.as_millis()).unwrap_or(u64::MAX)
}

/// Whether a life of the lock manager was out of grace when another began at `ended`: from what it answered right before,
/// and from the moment before which its grace did not open. Where nothing is known the worse is taken to be true.
#[must_use]
pub fn had_ended(answer: Probe, opened: Option<Moment>, length: Duration, ended: Moment) -> bool {
    match answer {
        Probe::InGrace => false,
        Probe::NotInGrace => true,
        Probe::NoAnswer => opened.is_none_or(|opened| ended >= opened + length),
    }
}

/// May a batch of notifications leave?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Yes.
    Granted,
    /// Ask the lock manager again first.
    ProveFirst,
    /// Never again in this grace period.
    TooLate,
}

impl Grace {
    /// A grace period that opened at `opened` and lasts at least `length`.
    #[must_use]
    pub fn new(opened: Moment, length: Duration, margin: Duration) -> Self {
        Self { opened, length, margin, proved: None, closed: false }
    }

    /// Takes in what a probe said. After a probe without an answer the last proof grows older. Of two that were made beside each other
    /// the later proof counts, in whichever order they are told.
    pub fn prove(&mut self, at: Moment, probe: Probe) {
        match probe {
            Probe::InGrace => self.proved = self.proved.max(Some(at)),
            // Only a proof that followed an open one closes it: before, the lock manager may still be starting.
            Probe::NotInGrace if self.proved.is_some() => self.closed = true,
            Probe::NotInGrace | Probe::NoAnswer => {}
        }
    }

    /// Whether it was ever proved to be open.
    #[must_use]
    pub fn was_proved(&self) -> bool {
        self.proved.is_some()
    }

    /// Whether a batch may leave now.
    #[must_use]
    pub fn leave(&self, now: Moment) -> Leave {
        // For a while: a run that went on for ever would break another promise first.
        if planted(Bug::NotifyAfterGrace) && now < self.ends() + self.margin {
            return Leave::Granted;
        }
        if self.closed || now >= self.last_call() {
            return Leave::TooLate;
        }
        match self.proved {
            Some(at) if now.since(at) <= limits::GRACE_PROOF_AGE_MAX => Leave::Granted,
            _ => Leave::ProveFirst,
        }
    }

    /// The last moment at which a notification may leave.
    #[must_use]
    pub fn last_call(&self) -> Moment {
        if planted(Bug::IgnoreMargin) {
            return self.ends();
        }
        self.ends() - self.margin
    }

    /// When it ends, at the earliest.
    #[must_use]
    pub fn ends(&self) -> Moment {
        self.opened + self.length
    }

    /// Whether it is known to be over.
    #[must_use]
    pub fn is_over(&self, now: Moment) -> bool {
        self.closed || now >= self.ends()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::at(Duration::from_secs(seconds))
    }

    fn grace() -> Grace {
        Grace::new(at(10), Duration::from_secs(15), Duration::from_secs(5))
    }

    #[test]
    fn grace_is_counted_from_the_last_moment_before_which_it_was_not_open() {
        let known = Opening { now: at(100), forced: None, age: None, seen: None };
        assert_eq!(known.counted_from(), None);
        let started = Opening { age: Some(Duration::from_secs(4)), ..known };
        assert_eq!(started.counted_from(), Some(at(96)));
        assert_eq!(Opening { forced: Some(at(95)), ..started }.counted_from(), Some(at(96)));
        let old = Opening { age: Some(Duration::from_secs(90)), ..known };
        assert_eq!(
            Opening { forced: Some(at(99)), ..old }.counted_from(),
            Some(at(99)),
            "SIGKILL: same thread"
        );
        let by_others = Opening { seen: Some(at(98)), ..old };
        assert_eq!(by_others.counted_from(), Some(at(98)), "killed by another program, seen to open again");
    }

    #[test]
    fn the_memory_of_a_grace_period_is_for_the_same_life_alone() {
        let life = Incarnation { boot: "b".into(), start: "90@5".into(), reopened: 1 };
        let seconds = Duration::from_secs;
        let clocks = |now, since_boot| Clocks { now: at(now), since_boot: seconds(since_boot) };
        let mut remembered = Remembered::opened(life.clone(), at(96), clocks(100, 5_000));
        // The process ends, and another begins, whose time has another origin.
        let recalled = Recalled { opened: Some(at(993)), ..Recalled::default() };
        assert_eq!(remembered.recall(&life, clocks(1_003, 5_006)), recalled, "10 s ago");
        let next = Incarnation { reopened: 2, ..life.clone() };
        assert_eq!(remembered.recall(&next, clocks(1_003, 5_006)), Recalled::default());
        assert_eq!(remembered.recall(&life, clocks(1_003, 7)), Recalled::default(), "another boot's clock");
        // It is seen closed, again and again.
        assert!(
            remembered.sees_closed(&life, at(100), clocks(100, 5_100))
                && !remembered.sees_closed(&life, at(101), clocks(101, 5_101))
        );
        assert!(remembered.sees_closed(&life, at(102), clocks(102, 5_102)));
        let recalled = Recalled { opened: Some(at(888)), closed: Some(at(994)), later: None };
        assert_eq!(remembered.recall(&life, clocks(1_003, 5_111)), recalled);
        assert!(remembered.sees_closed(&next, at(106), clocks(106, 5_106)));
        assert_eq!(remembered.recall(&next, clocks(1_003, 5_111)).opened, None, "of the life before");
        let later = remembered.recall(&life, clocks(1_003, 5_111));
        assert_eq!(later, Recalled { later: Some(next.clone()), closed: Some(at(998)), opened: None });
        // A look that is taken in late shows what was so when it was made.
        assert!(remembered.sees_closed(&next, at(120), clocks(160, 5_160)));
        let late = remembered.recall(&next, clocks(1_003, 5_161)).closed;
        assert_eq!(late, Some(at(962)), "41 s ago");
        let restarted = Incarnation { start: "91@6".into(), reopened: 0, ..life };
        assert_eq!(remembered.recall(&restarted, clocks(1_003, 5_111)), Recalled::default());
    }

    #[test]
    fn no_notification_leaves_without_a_fresh_proof_of_grace() {
        let mut grace = grace();
        assert_eq!(grace.leave(at(11)), Leave::ProveFirst);
        grace.prove(at(11), Probe::NoAnswer);
        assert_eq!(grace.leave(at(11)), Leave::ProveFirst);
        grace.prove(at(11), Probe::InGrace);
        assert_eq!(grace.leave(at(12)), Leave::Granted);
        assert_eq!(grace.leave(at(13)), Leave::ProveFirst, "the proof has grown old");
    }

    #[test]
    fn nothing_leaves_inside_the_margin_however_often_grace_is_proved() {
        let mut grace = grace();
        grace.prove(at(20), Probe::InGrace);
        assert_eq!(grace.leave(at(20)), Leave::TooLate);
        assert_eq!(grace.last_call(), at(20));
    }

    #[test]
    fn a_grace_that_was_ended_early_is_over_and_one_that_is_not_yet_open_is_not() {
        let mut grace = grace();
        grace.prove(at(11), Probe::NotInGrace);
        assert_eq!(grace.leave(at(11)), Leave::ProveFirst, "lockd may still be starting");
        grace.prove(at(12), Probe::InGrace);
        grace.prove(at(13), Probe::NotInGrace);
        assert_eq!(grace.leave(at(13)), Leave::TooLate);
        assert!(grace.is_over(at(13)));
    }

    #[test]
    fn a_life_is_out_of_grace_by_its_own_word_or_by_the_clock_or_where_nothing_is_known() {
        let (length, opened) = (Duration::from_secs(10), Moment::at(Duration::from_secs(1)));
        let ended = |answer, opened, s| had_ended(answer, opened, length, Moment::at(Duration::from_secs(s)));
        for known in [None, Some(opened)] {
            assert!(!ended(Probe::InGrace, known, 20));
            assert!(ended(Probe::NotInGrace, known, 2));
        }
        assert!(ended(Probe::NoAnswer, None, 2));
        assert!(!ended(Probe::NoAnswer, Some(opened), 10));
        assert!(ended(Probe::NoAnswer, Some(opened), 11));
    }
}
