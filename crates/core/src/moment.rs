//! Time as the machines see it.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time, counted from an origin that only this process knows (its start, say). Two servers' moments
/// can't be compared, and that is the purpose: no decision may rest on two clocks agreeing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(Duration);

impl Moment {
    /// The origin.
    pub const START: Moment = Moment(Duration::ZERO);

    /// The moment that lies `since_origin` after the origin.
    #[must_use]
    pub fn at(since_origin: Duration) -> Self {
        Self(since_origin)
    }

    /// How far this moment lies from the origin.
    #[must_use]
    pub fn since_start(self) -> Duration {
        self.0
    }

    /// The time that has passed since `earlier`; zero where `earlier` lies later.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, later: Duration) -> Moment {
        Moment(self.0.saturating_add(later))
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;

    /// Stops at the origin.
    fn sub(self, earlier: Duration) -> Moment {
        Moment(self.0.saturating_sub(earlier))
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}s", self.0.as_secs_f64())
    }
}
