//! Log lines that a packet, or another user's program, causes. All of them ask here first: `heirlock_core::log_limit`
//! decides which of them may be written, and suppressed ones are counted and reported.
//!
//! There is one log in a program, so there is one counter.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

use heirlock_core::Moment;
use heirlock_core::log_limit::{LogLimit, Source, Suppressed};

struct Counter {
    began: Instant,
    limit: Mutex<LogLimit>,
    suppressed: AtomicU64,
}

static COUNTER: LazyLock<Counter> = LazyLock::new(|| Counter {
    began: Instant::now(),
    limit: Mutex::new(LogLimit::default()),
    suppressed: AtomicU64::new(0),
});

/// Whether a line of this kind may be written that this source causes.
pub(crate) fn may_say(kind: &'static str, source: impl Into<Source>) -> bool {
    let now = now();
    let mut limit = COUNTER.limit.lock().unwrap_or_else(PoisonError::into_inner);
    let over = limit.over(now);
    let may = limit.may_write(now, kind, source.into());
    drop(limit);
    COUNTER.suppressed.fetch_add(u64::from(!may), Ordering::Relaxed);
    say(&over);
    may
}

/// How many lines were not written since the program began.
pub(crate) fn suppressed_lines() -> u64 {
    COUNTER.suppressed.load(Ordering::Relaxed)
}

/// Says what was suppressed, also where nothing more comes. To be called now and then.
pub(crate) fn say_suppressed_lines() {
    let over = COUNTER.limit.lock().unwrap_or_else(PoisonError::into_inner).over(now());
    say(&over);
}

/// The same for all of it, at the end of the program.
pub(crate) fn say_all_that_was_suppressed() {
    let all = COUNTER.limit.lock().unwrap_or_else(PoisonError::into_inner).finish();
    say(&all);
}

fn now() -> Moment {
    Moment::at(COUNTER.began.elapsed())
}

fn say(over: &[Suppressed]) {
    for Suppressed { kind, lines, sources, most } in over {
        tracing::warn!(kind, lines, sources, %most, "{lines} log lines of the kind {kind} were suppressed, for others cause too many");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_not_written_is_counted() {
        let before = suppressed_lines();
        // Other tests may have lines of theirs suppressed meanwhile.
        let refused = (0..1_000).filter(|_| !may_say("a test of this counter", Source::Unknown)).count();
        assert!(refused > 900, "{refused}");
        assert!(suppressed_lines() - before >= u64::try_from(refused).unwrap());
    }
}
