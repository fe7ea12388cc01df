//! Why a scenario must end early: Ctrl-C or its own time limit.
//!
//! The flag is only looked at between two steps, so that everything that was started is ended in its usual
//! order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::busy::stretched;
use crate::limits::POLL;

/// Exit code after Ctrl-C, as a shell gives it.
pub const INTERRUPTED: i32 = 130;

/// Asked before each step and while waiting.
#[derive(Clone, Debug)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    deadline: Option<Instant>,
}

impl Stop {
    /// Listens to SIGINT, SIGTERM and SIGHUP. The first asks all scenarios to end in order; the second ends
    /// the lab at once (the kernels of the guests end with it, temporary folders stay).
    ///
    /// # Errors
    /// When a signal can't be listened to.
    pub fn on_signals() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&flag))
                .context("can't listen to signals")?;
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("can't listen to signals")?;
        }
        Ok(Self { flag, deadline: None })
    }

    /// The same, with a time limit from now on.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self { flag: Arc::clone(&self.flag), deadline: Some(Instant::now() + limit) }
    }

    /// Was the lab asked to end?
    #[must_use]
    pub fn asked(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// # Errors
    /// When the lab was asked to end or the time limit is over.
    pub fn check(&self) -> Result<()> {
        if self.asked() {
            bail!("interrupted");
        }
        if self.deadline.is_some_and(|deadline| Instant::now() > deadline) {
            bail!("the scenario's time limit is over");
        }
        Ok(())
    }

    /// Looks again and again until `look` gives something.
    ///
    /// # Errors
    /// When `look` fails, when `limit` is over (the error names `what` was waited for), and as `check`.
    pub fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + stretched(limit);
        loop {
            self.check().with_context(|| format!("while waiting for {what}"))?;
            if let Some(found) = look()? {
                return Ok(found);
            }
            if Instant::now() > deadline {
                bail!("expected {what} within {} s, did not see it", limit.as_secs());
            }
            std::thread::sleep(POLL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet() -> Stop {
        Stop { flag: Arc::new(AtomicBool::new(false)), deadline: None }
    }

    #[test]
    fn a_wait_of_a_scenario_ends_with_the_condition_that_was_missing() {
        let error = quiet().wait_for("a sign", Duration::from_millis(1), || Ok(None::<()>)).unwrap_err();
        assert_eq!(error.to_string(), "expected a sign within 0 s, did not see it");
        assert_eq!(quiet().wait_for("a sign", Duration::ZERO, || Ok(Some(7))).unwrap(), 7);
    }

    #[test]
    fn a_flag_or_a_time_limit_stops_a_scenario() {
        let stop = quiet();
        assert!(stop.check().is_ok());
        assert!(stop.within(Duration::from_secs(60)).check().is_ok());
        let over = Stop { deadline: Instant::now().checked_sub(Duration::from_secs(1)), ..quiet() };
        assert!(over.check().unwrap_err().to_string().contains("time limit"));
        stop.flag.store(true, Ordering::Relaxed);
        assert!(stop.within(Duration::from_secs(60)).check().is_err());
    }
}
