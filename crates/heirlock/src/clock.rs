//! The agent's clocks: one to decide by, one for people.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use heirlock_core::Moment;
use rustix::time::{ClockId, clock_gettime};

/// Monotonic time since the agent's start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Begins now.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// A clock that began so long ago.
    #[cfg(test)]
    pub(crate) fn ahead(by: Duration) -> Self {
        Self(Instant::now().checked_sub(by).unwrap())
    }

    /// Now.
    pub(crate) fn now(self) -> Moment {
        Moment::of_process(self.0.elapsed())
    }
}

/// Seconds since 1970 by this server's clock. Nothing is decided by it.
pub(crate) fn wall_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Time since this server's boot, which all its processes count alike.
pub(crate) fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}
