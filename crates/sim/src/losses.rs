//! What became of locks that were lost: how many were made good, and why nobody is blamed for the others.

use std::fmt;

/// Of one seed, or of many.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Losses {
    /// Their holders were told in time, and reclaimed them.
    pub made_good: u64,
    /// Excused: the holder was not on record yet.
    pub not_on_record: u64,
    /// Excused: nothing showed that a life of the lock manager had ended.
    pub unseen: u64,
    /// Excused: the holder could not be reached.
    pub away: u64,
    /// Excused: something failed meanwhile, and the outcome says that the lock is lost.
    pub told: u64,
    /// Excused: the store failed before anybody was told, or two failures came together.
    pub too_much: u64,
}

impl Losses {
    /// Adds those of another seed.
    pub fn add(&mut self, other: Losses) {
        self.made_good += other.made_good;
        self.not_on_record += other.not_on_record;
        self.unseen += other.unseen;
        self.away += other.away;
        self.told += other.told;
        self.too_much += other.too_much;
    }

    /// How many of a thousand were made good. A checker that excuses more and more shows here.
    #[must_use]
    pub fn made_good_per_mille(&self) -> u64 {
        let Losses { made_good, not_on_record, unseen, away, told, too_much } = self;
        let all = made_good + not_on_record + unseen + away + told + too_much;
        (made_good * 1_000).checked_div(all).unwrap_or(1_000)
    }
}

impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Losses { made_good, not_on_record, unseen, away, told, too_much } = self;
        let excused = not_on_record + unseen + away + told + too_much;
        write!(
            f,
            "{made_good} lost locks were made good ({} of 1,000), {excused} losses are excused: {not_on_record} not on record yet, {unseen} unseen, {away} of clients that were away, {told} told, {too_much} of two failures at once",
            self.made_good_per_mille()
        )
    }
}
