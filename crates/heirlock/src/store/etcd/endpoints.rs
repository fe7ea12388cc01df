//! Which endpoint is asked: the one that answered last, and after a failure the next one. One that failed is left alone for a
//! while that grows, so that a member that is gone costs its time-out once, and not at each call.

use std::time::Duration;

/// How long an endpoint is left alone after its first failure. Each further one doubles it.
const LEFT_ALONE_MIN: Duration = Duration::from_secs(1);

/// How long it is left alone at most.
const LEFT_ALONE_MAX: Duration = Duration::from_secs(30);

/// What is known of the endpoints. Times are those of one clock that only rises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoints {
    known: Vec<Known>,
    /// The one that answered last.
    preferred: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Known {
    /// Failures since its last answer.
    failures: u32,
    /// Until when it is left alone.
    until: Duration,
}

impl Endpoints {
    /// So many of them.
    pub(super) fn new(count: usize) -> Self {
        Self { known: vec![Known::default(); count], preferred: 0 }
    }

    /// The order in which a call asks them: first those that are not left alone, beginning with the one that answered last, then
    /// the others, the one first whose time is over first. None is left out: where all have failed, one of them is asked all the
    /// same.
    pub(super) fn order(&self, now: Duration) -> Vec<usize> {
        let count = self.known.len();
        let all = (0..count).map(|place| (self.preferred + place) % count.max(1));
        let (mut open, mut left_alone): (Vec<usize>, Vec<usize>) =
            all.partition(|place| self.known.get(*place).is_some_and(|known| known.until <= now));
        left_alone.sort_by_key(|place| self.known.get(*place).map(|known| known.until));
        open.append(&mut left_alone);
        open
    }

    /// It answered.
    pub(super) fn answered(&mut self, place: usize) {
        if let Some(known) = self.known.get_mut(place) {
            *known = Known::default();
            self.preferred = place;
        }
    }

    /// It did not answer, or can't.
    pub(super) fn failed(&mut self, place: usize, now: Duration) {
        if let Some(known) = self.known.get_mut(place) {
            let grown = LEFT_ALONE_MIN.saturating_mul(1_u32.checked_shl(known.failures.min(16)).unwrap_or(1));
            known.failures = known.failures.saturating_add(1);
            known.until = now.saturating_add(grown.min(LEFT_ALONE_MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn the_one_that_answered_last_is_asked_first_and_one_that_failed_last() {
        let mut all = Endpoints::new(3);
        assert_eq!(all.order(at(0)), [0, 1, 2]);
        all.failed(0, at(10));
        assert_eq!(all.order(at(10)), [1, 2, 0]);
        all.answered(2);
        assert_eq!(all.order(at(10)), [2, 1, 0]);
        assert_eq!(all.order(at(11)), [2, 0, 1], "its time is over");
    }

    #[test]
    fn one_that_fails_again_is_left_alone_for_longer_until_it_answers() {
        let mut all = Endpoints::new(2);
        let mut now = at(0);
        for expected in [1, 2, 4, 8, 16, 30, 30] {
            all.failed(0, now);
            let before = now + at(expected) - Duration::from_millis(1);
            assert_eq!(all.order(before), [1, 0], "{expected}");
            now += at(expected);
            assert_eq!(all.order(now), [0, 1], "{expected}");
        }
        all.answered(0);
        all.failed(0, now);
        assert_eq!(all.order(now + at(1)), [0, 1]);
    }

    proptest! {
        #[test]
        fn none_is_ever_left_out(events in proptest::collection::vec((0_usize..5, any::<bool>(), 0_u64..100), 0..60), count in 1_usize..5) {
            let mut all = Endpoints::new(count);
            let mut now = at(0);
            for (place, failed, later) in events {
                now += at(later);
                if failed { all.failed(place, now) } else { all.answered(place) }
                let mut order = all.order(now);
                order.sort_unstable();
                prop_assert_eq!(order, (0..count).collect::<Vec<_>>());
            }
        }
    }
}
