//! Whether the store can be written, and since when clients are unprotected.

use std::collections::{BTreeMap, BTreeSet};

use heirlock_core::Moment;
use heirlock_core::store::StoreError;
use heirlock_nsm::MonName;

use crate::limits::STORE_REASONS_SAID_MAX;

/// The store's health, as far as it is known.
#[derive(Debug, Clone, Default)]
pub struct Health {
    error: Option<String>,
    since: Option<Moment>,
    /// The same, in seconds since 1970.
    since_s: Option<u64>,
    /// The last heartbeat was late.
    beat_is_late: bool,
    /// The reasons that were said since it fails. Several calls fail in turn, each for a reason of its own.
    said: BTreeSet<String>,
}

/// Whether the log gets the reason of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Saying {
    /// It is a new one.
    Yes,
    /// It is a new one, and there were too many: no other one is said until the store has worked.
    AsLast,
    /// It was said, or is one too many.
    No,
}

impl Health {
    /// A write or read failed. Each reason is said at once, and not again before the store has worked.
    pub fn failed(&mut self, now: Moment, error: &str) {
        match self.saying(error) {
            Saying::Yes => {
                tracing::error!(%error, "the store fails, and clients that it doesn't know are unprotected: {error}");
            }
            Saying::AsLast => {
                tracing::error!(%error, "the store fails for more than {STORE_REASONS_SAID_MAX} reasons; 'heirlock status' has the last one, which is now: {error}");
            }
            Saying::No => {}
        }
        self.error = Some(error.to_owned());
        self.since.get_or_insert(now);
    }

    fn saying(&mut self, error: &str) -> Saying {
        if self.said.len() > STORE_REASONS_SAID_MAX || !self.said.insert(error.to_owned()) {
            Saying::No
        } else if self.said.len() > STORE_REASONS_SAID_MAX {
            Saying::AsLast
        } else {
            Saying::Yes
        }
    }

    /// A heartbeat was not written. One that is late alone is no failure of the store: a busy disk keeps one waiting now and then,
    /// and no other call has failed by that. The store fails where the next one is not written either. Answers whether it fails.
    pub(crate) fn beat_failed(&mut self, now: Moment, error: &StoreError) -> bool {
        let is_first = error.is_late() && self.error.is_none() && !self.beat_is_late;
        self.beat_is_late = error.is_late();
        if is_first {
            tracing::info!(%error, "a heartbeat is late, and the next one may be in time: {error}");
        } else {
            self.failed(now, &error.to_string());
        }
        !is_first
    }

    /// A heartbeat was written.
    pub(crate) fn beat_was_written(&mut self) {
        self.beat_is_late = false;
    }

    /// Everything that was to be written is durable, and everything that this server holds was looked for and found.
    pub(crate) fn worked(&mut self) {
        if self.error.take().is_some() {
            tracing::info!(
                "the store works again: all that this server holds is in it, and everything has been caught up"
            );
        }
        (self.since, self.since_s) = (None, None);
        self.said.clear();
    }

    /// Notes this server's clock now: for people, the time since when something fails.
    pub(crate) fn note(&mut self, now: Moment, now_s: u64) {
        let since = self.since.filter(|_| self.since_s.is_none());
        self.since_s = since.map(|since| now_s.saturating_sub(now.since(since).as_secs())).or(self.since_s);
    }

    /// The error of the store.
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Since when, in seconds since 1970.
    pub(crate) fn unprotected_since_s(&self) -> Option<u64> {
        self.since_s
    }
}

/// Since when every client that registers is on record, and which clients are not.
#[derive(Debug, Clone, Default)]
pub struct Protection {
    since_s: Option<u64>,
    at_risk: BTreeMap<MonName, u64>,
}

impl Protection {
    /// How it is now, at this time by this server's clock.
    pub(crate) fn note(&mut self, now_s: u64, is_protected: bool, at_risk: Vec<MonName>) {
        self.since_s = is_protected.then(|| self.since_s.unwrap_or(now_s));
        let since_s = |client: &MonName| self.at_risk.get(client).copied().unwrap_or(now_s);
        self.at_risk = at_risk.into_iter().map(|client| (client.clone(), since_s(&client))).collect();
    }

    /// In seconds since 1970; nothing where it isn't so.
    pub fn since_s(&self) -> Option<u64> {
        self.since_s
    }

    /// Clients that were granted locks and are not on record, and since when that is known.
    pub(crate) fn at_risk(&self) -> &BTreeMap<MonName, u64> {
        &self.at_risk
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn since_when_the_store_fails_is_told_by_the_clock_that_shows_it_and_stays() {
        let mut health = Health::default();
        let after = |seconds| Moment::START + Duration::from_secs(seconds);
        health.note(after(0), 1_000);
        assert_eq!(health.unprotected_since_s(), None);
        health.failed(after(2), "no space");
        health.failed(after(5), "no volume");
        health.note(after(6), 1_006);
        health.note(after(7), 9_999);
        assert_eq!((health.error(), health.unprotected_since_s()), (Some("no volume"), Some(1_002)));
        health.worked();
        assert_eq!((health.error(), health.unprotected_since_s()), (None, None));
        health.failed(after(20), "no space");
        health.note(after(20), 1_020);
        assert_eq!(health.unprotected_since_s(), Some(1_020));
    }

    #[test]
    fn a_store_that_fails_for_several_reasons_in_turn_has_each_of_them_said_once() {
        let mut health = Health::default();
        for round in 0..3 {
            let expected = if round == 0 { Saying::Yes } else { Saying::No };
            for reason in ["a commit takes longer", "a heartbeat takes longer"] {
                assert_eq!(health.saying(reason), expected, "{round}: {reason}");
            }
        }
        health.failed(Moment::START, "a commit takes longer");
        assert_eq!(health.error(), Some("a commit takes longer"), "the last one is known all the same");
        health.worked();
        assert_eq!(health.saying("a commit takes longer"), Saying::Yes, "it has worked meanwhile");
        for reason in 2..=STORE_REASONS_SAID_MAX {
            assert_eq!(health.saying(&reason.to_string()), Saying::Yes);
        }
        assert_eq!(health.saying("one more"), Saying::AsLast);
        assert_eq!(health.saying("and another"), Saying::No);
        assert_eq!(health.saying("and another"), Saying::No);
    }

    #[test]
    fn a_heartbeat_that_is_late_alone_is_no_failure_of_the_store() {
        use heirlock_core::store::StoreErrorKind;
        let error = |kind| StoreError::new(kind, "the heartbeat");
        let (late, full) = (error(StoreErrorKind::TimedOut), error(StoreErrorKind::Unavailable));
        let mut health = Health::default();
        for _ in 0..2 {
            assert!(!health.beat_failed(Moment::START, &late));
            assert_eq!(health.error(), None);
            health.beat_was_written();
        }
        assert!(!health.beat_failed(Moment::START, &late));
        assert!(health.beat_failed(Moment::START, &late));
        assert_eq!(health.error(), Some("the heartbeat"), "two in a row");
        health.worked();
        health.beat_was_written();
        assert!(health.beat_failed(Moment::START, &full));
        assert_eq!(health.error(), Some("the heartbeat"), "a store that refuses it fails at once");
    }
}
