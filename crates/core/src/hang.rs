//! Whether a loop of a program hangs. The clock on the wall can't tell: on a busy machine a loop that is well stands still for
//! seconds, and a loop that waits for a disk is no better after a kill. Only time counts in which the loop could have made
//! headway and did not:
//!
//! - A loop that sleeps, while no other thread of its program works: it waits for something that will not come.
//! - A loop that is stopped (SIGSTOP, a debugger), or whose thread has ended.
//! - Processor time that a loop spends without headway: it turns in a circle.
//!
//! Time does not count while one of these holds: it waits for its turn on a processor; it waits for a disk; it waits for
//! another thread that does one or the other.

use std::time::Duration;

use crate::Moment;

/// The state of a thread at the moment (the letter in /proc/PID/task/TID/stat, proc(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// It runs, or waits for a processor.
    Runs,
    /// It waits for a disk, or something else that a signal does not interrupt.
    WaitsForDisk,
    /// It sleeps until another thread or the kernel wakes it.
    Sleeps,
    /// It was stopped, by a signal or a debugger.
    Stopped,
    /// It has ended.
    Gone,
}

/// A loop's thread, at one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Its state.
    pub doing: Doing,
    /// Some other thread of its program runs or waits for a disk: perhaps for this one's sake.
    pub others_work: bool,
    /// Processor time that it has had since its start.
    pub processor_time: Duration,
}

/// The verdict of the looks so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It makes headway, or may yet.
    Lives,
    /// For so long it could have made headway and did not: longer than it may.
    Hangs(Duration),
}

/// Watches one loop.
#[derive(Debug, Clone)]
pub struct Watch {
    limit: Duration,
    /// The time that one look counts at most: a watcher that was held up itself has seen nothing meanwhile.
    look_max: Duration,
    idle: Duration,
    last: Option<(Moment, Duration)>,
}

impl Watch {
    /// A loop may make no headway for `limit`, as this module counts. It is looked at every `interval`.
    #[must_use]
    pub fn new(limit: Duration, interval: Duration) -> Self {
        Self { limit, look_max: interval * 2, idle: Duration::ZERO, last: None }
    }

    /// It has made headway.
    pub fn headway(&mut self) {
        (self.idle, self.last) = (Duration::ZERO, None);
    }

    /// It has not since the last look.
    pub fn look(&mut self, now: Moment, look: Look) -> Verdict {
        if let Some((before, had)) = self.last.replace((now, look.processor_time)) {
            let passed = now.since(before).min(self.look_max);
            self.idle += match look.doing {
                Doing::Stopped | Doing::Gone => passed,
                Doing::Sleeps if !look.others_work => passed,
                Doing::Runs => look.processor_time.saturating_sub(had).min(passed),
                Doing::Sleeps | Doing::WaitsForDisk => Duration::ZERO,
            };
        }
        if self.idle >= self.limit { Verdict::Hangs(self.idle) } else { Verdict::Lives }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);
    const INTERVAL: Duration = Duration::from_millis(200);

    /// Looks every interval for a minute, and says when it was found to hang.
    fn found_hanging(mut look: impl FnMut(u32) -> Look) -> Option<u32> {
        let mut watch = Watch::new(LIMIT, INTERVAL);
        (0..300).find(|at| watch.look(Moment::START + INTERVAL * *at, look(*at)) != Verdict::Lives)
    }

    fn doing(doing: Doing) -> Look {
        Look { doing, others_work: false, processor_time: Duration::ZERO }
    }

    #[test]
    fn a_loop_that_sleeps_or_is_stopped_or_gone_hangs_after_its_limit() {
        for hanging in [Doing::Sleeps, Doing::Stopped, Doing::Gone] {
            assert_eq!(found_hanging(|_| doing(hanging)), Some(10), "{hanging:?}");
        }
    }

    #[test]
    fn a_loop_that_gets_no_processor_or_waits_for_a_disk_does_not_hang() {
        assert_eq!(found_hanging(|_| doing(Doing::Runs)), None, "all its time it waits for a processor");
        assert_eq!(found_hanging(|_| doing(Doing::WaitsForDisk)), None);
        assert_eq!(found_hanging(|_| Look { others_work: true, ..doing(Doing::Sleeps) }), None);
    }

    #[test]
    fn a_loop_that_turns_in_a_circle_hangs_by_the_processor_time_that_it_spends() {
        // It gets a tenth of a processor.
        let turning = |at: u32| Look { processor_time: INTERVAL / 10 * at, ..doing(Doing::Runs) };
        assert_eq!(found_hanging(turning), Some(100));
    }

    #[test]
    fn a_loop_that_makes_headway_now_and_then_lives() {
        let mut watch = Watch::new(LIMIT, INTERVAL);
        for at in 0..300 {
            if at % 9 == 0 {
                watch.headway();
            }
            assert_eq!(watch.look(Moment::START + INTERVAL * at, doing(Doing::Sleeps)), Verdict::Lives);
        }
    }

    #[test]
    fn a_watcher_that_was_held_up_itself_counts_no_more_than_it_saw() {
        let mut watch = Watch::new(LIMIT, INTERVAL);
        watch.look(Moment::START, doing(Doing::Sleeps));
        let later = Moment::START + Duration::from_secs(3_600);
        assert_eq!(watch.look(later, doing(Doing::Sleeps)), Verdict::Lives);
    }
}
