//! The clock on the wall, for what lasts weeks and survives a boot. People and NTP may set it at any time.

use std::time::Duration;

use crate::moment::Moment;

/// A clock on the wall as it was at one moment.
#[derive(Debug, Clone, Copy)]
pub struct WallClock {
    read_at: Moment,
    /// Seconds since 1970 at that moment.
    read_s: u64,
}

impl WallClock {
    /// It shows `wall_s` seconds since 1970 now.
    #[must_use]
    pub fn read(now: Moment, wall_s: u64) -> Self {
        Self { read_at: now, read_s: wall_s }
    }

    /// How long ago `since_s` was, at the least, where the clock shows `wall_s` now. That it was set forward since it was read
    /// makes nothing older: only the time that has passed counts. That it was set back makes everything younger.
    #[must_use]
    pub fn age(&self, now: Moment, wall_s: u64, since_s: u64) -> Duration {
        let passed_s = now.since(self.read_at).as_secs();
        let steady_s = self.read_s.saturating_add(passed_s);
        Duration::from_secs(wall_s.min(steady_s).saturating_sub(since_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_forward_makes_nothing_older_and_one_that_is_set_back_makes_all_younger() {
        let at = |seconds| Moment::at(Duration::from_secs(seconds));
        let clock = WallClock::read(at(100), 1_000_000);
        let age_s = |now, wall_s, since_s| clock.age(at(now), wall_s, since_s).as_secs();
        assert_eq!(age_s(160, 1_000_060, 999_000), 1_060, "it was not set");
        assert_eq!(age_s(160, 9_000_000, 999_000), 1_060, "by months, forward");
        assert_eq!(age_s(160, 999_500, 999_000), 500, "by minutes, back");
        assert_eq!(age_s(160, 5, 999_000), 0, "to 1970");
    }
}
