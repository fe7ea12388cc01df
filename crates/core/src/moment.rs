//! Time as the machines see it.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// How long before a process's start its time begins. An event before the start, such as a grace period that opened,
/// needs a moment of its own: taken for the start it would seem younger than it is.
const BEFORE_PROCESS: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A point in time, counted from an origin that only this process knows. Two servers' moments
/// can't be compared, and that is the purpose: no decision may rest on two clocks agreeing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(Duration);

// Each step of an agent's turn asks what time it is: these few instructions become a part of their callers.
impl Moment {
    /// The origin.
    pub const START: Moment = Moment(Duration::ZERO);

    /// Now, in a process that was started `uptime` ago.
    #[inline]
    #[must_use]
    pub fn of_process(uptime: Duration) -> Self {
        Self(BEFORE_PROCESS.saturating_add(uptime))
    }

    /// The moment that lies `since_origin` after the origin.
    #[inline]
    #[must_use]
    pub fn at(since_origin: Duration) -> Self {
        Self(since_origin)
    }

    /// How far this moment lies from the origin.
    #[inline]
    #[must_use]
    pub fn since_start(self) -> Duration {
        self.0
    }

    /// The time that has passed since `earlier`; zero where `earlier` lies later.
    #[inline]
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    #[inline]
    fn add(self, later: Duration) -> Moment {
        Moment(self.0.saturating_add(later))
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;

    /// Stops at the origin.
    #[inline]
    fn sub(self, earlier: Duration) -> Moment {
        Moment(self.0.saturating_sub(earlier))
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}s", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_before_the_process_has_a_moment_of_its_own() {
        let now = Moment::of_process(Duration::from_secs(2));
        let opened = now - Duration::from_secs(40);
        assert_eq!(now.since(opened), Duration::from_secs(40));
    }
}
