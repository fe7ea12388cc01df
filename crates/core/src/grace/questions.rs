//! When the lock manager is asked whether grace is open, while clients are told.
//!
//! The kernel's lockd answers one request after the other in its only thread (Linux fs/lockd/svc.c), and waits there for the status
//! monitor. A client that was told reclaims at once, so the next question stands behind the reclaims of all that were told before. A
//! question that began only when the last proof is too old would hold up all others for that long. So questions begin at a steady pace,
//! whether the one before was answered or not: the answers come at that pace too, and each is a proof.

use super::{Grace, Leave};
use crate::limits;
use crate::moment::Moment;

/// The questions to one lock manager for one notification.
#[derive(Debug, Default)]
pub struct Questions {
    /// So many have no answer yet.
    on: usize,
    /// When the last one began.
    last: Option<Moment>,
}

impl Questions {
    /// Whether a question is to begin now; then it has. Its end is to be told by [`Questions::ended`], with an answer or without.
    pub fn begins(&mut self, now: Moment, grace: &Grace) -> bool {
        let is_soon = |last: Moment| now.since(last) < limits::GRACE_QUESTION_INTERVAL;
        if self.on >= limits::GRACE_QUESTIONS_MAX
            || self.last.is_some_and(is_soon)
            || grace.leave(now) == Leave::TooLate
        {
            return false;
        }
        self.on += 1;
        self.last = Some(now);
        true
    }

    /// One has ended.
    pub fn ended(&mut self) {
        self.on = self.on.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::grace::Probe;

    fn at(ms: u64) -> Moment {
        Moment::at(Duration::from_millis(ms))
    }

    fn grace() -> Grace {
        Grace::new(at(0), Duration::from_secs(15), Duration::from_secs(5))
    }

    /// The moments at which questions begin, each of which is answered so many milliseconds after it began, where the next is
    /// looked for each 10 ms.
    fn begun(answered_after_ms: u64, until_ms: u64) -> (Vec<u64>, bool) {
        let (mut questions, mut grace) = (Questions::default(), grace());
        let (mut begun, mut was_always_fresh) = (Vec::new(), true);
        for ms in (0..until_ms).step_by(10) {
            if begun.iter().any(|began| began + answered_after_ms == ms) {
                questions.ended();
                grace.prove(at(ms), Probe::InGrace);
            }
            if questions.begins(at(ms), &grace) {
                begun.push(ms);
            }
            was_always_fresh &= ms < answered_after_ms || grace.leave(at(ms)) == Leave::Granted;
        }
        (begun, was_always_fresh)
    }

    #[test]
    fn a_question_that_is_answered_at_once_is_asked_again_before_the_proof_is_old() {
        assert_eq!(begun(10, 1_700), (vec![0, 500, 1_000, 1_500], true));
    }

    #[test]
    fn answers_that_come_late_leave_no_gap_between_two_proofs() {
        for late_ms in [10, 500, 900, 1_500, 2_500, 3_900] {
            let (begun, was_always_fresh) = begun(late_ms, 9_000);
            assert!(was_always_fresh, "{late_ms} ms: {begun:?}");
        }
    }

    #[test]
    fn no_more_than_a_few_wait_for_an_answer_and_none_begins_when_nothing_may_leave_any_more() {
        let (mut questions, grace) = (Questions::default(), grace());
        let count = (0..9_000).filter(|ms| questions.begins(at(*ms), &grace)).count();
        assert_eq!(count, limits::GRACE_QUESTIONS_MAX);
        questions.ended();
        assert!(!questions.begins(at(10_000), &grace), "the margin has begun");
        assert!(questions.begins(at(9_999), &grace));
    }
}
