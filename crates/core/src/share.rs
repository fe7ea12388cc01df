//! How much of a loop's time goes to senders other than the lock manager, which it is there for. Any host on the network
//! may send without end, and a loop that is always busy with that is given the processor late when the lock manager asks.

use crate::{Moment, limits};

/// Keeps account of the time that went to others.
#[derive(Debug, Clone, Copy, Default)]
pub struct OthersShare {
    /// Until when what was done for them is their share.
    paid_until: Moment,
}

impl OthersShare {
    /// Something was done for others, in this time.
    pub fn worked(&mut self, began: Moment, ended: Moment) {
        // A machine that does much else, or stands still, is not their work.
        let took = ended.since(began).min(limits::OTHERS_TURN_MAX);
        self.paid_until = self.paid_until.max(began) + took * limits::OTHERS_SHARE;
    }

    /// Until when nothing is done for them; `None` where their turn may come.
    #[must_use]
    pub fn rests_until(&self, now: Moment) -> Option<Moment> {
        let until = self.paid_until - limits::OTHERS_BURST;
        (now < until).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TURN: Duration = Duration::from_micros(300);

    /// How long others are worked for in a second in which they never stop asking.
    fn worked_in_a_second(turn: Duration) -> Duration {
        let (mut share, mut now, mut worked) = (OthersShare::default(), Moment::START, Duration::ZERO);
        while now < Moment::at(Duration::from_secs(1)) {
            if let Some(until) = share.rests_until(now) {
                now = until;
                continue;
            }
            share.worked(now, now + turn);
            now = now + turn;
            worked += turn;
        }
        worked
    }

    #[test]
    fn a_sender_without_end_gets_no_more_than_a_share_however_small_each_turn_is() {
        let share = Duration::from_secs(1) / limits::OTHERS_SHARE;
        for turn in [Duration::from_micros(5), TURN, limits::OTHERS_TURN_MAX] {
            let worked = worked_in_a_second(turn);
            let most = share + limits::OTHERS_BURST / limits::OTHERS_SHARE + turn;
            assert!(worked <= most && worked * 2 >= share, "{turn:?}: {worked:?}, expected {share:?}");
        }
    }

    #[test]
    fn a_sender_that_asks_now_and_then_waits_for_nothing() {
        let (mut share, mut now) = (OthersShare::default(), Moment::START);
        for _ in 0..1000 {
            assert_eq!(share.rests_until(now), None);
            share.worked(now, now + TURN);
            now = now + TURN * (limits::OTHERS_SHARE + 1);
        }
    }

    #[test]
    fn a_machine_that_stood_still_keeps_no_host_waiting_for_long() {
        let mut share = OthersShare::default();
        let now = Moment::at(Duration::from_secs(3600));
        share.worked(Moment::START, now);
        let most = limits::OTHERS_TURN_MAX * limits::OTHERS_SHARE;
        assert!(share.rests_until(now).is_none_or(|until| until.since(now) <= most));
    }
}
