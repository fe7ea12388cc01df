//! The agent's clocks: one to decide by, one for people.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use heirlock_core::Moment;

/// Monotonic time since the agent's start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Begins now.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
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
