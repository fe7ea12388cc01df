//! Clients that are told for the first time go before files that are placed meanwhile: the processors and the disk are theirs
//! until each was tried once. No program reads those files that the run waits for.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many notifiers have not tried all their clients yet. A clone counts the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct FirstRounds(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    on: Mutex<usize>,
    ended: Condvar,
}

/// A notifier that has not tried all its clients yet. It has when this is dropped.
#[derive(Debug)]
pub(crate) struct FirstRound(FirstRounds);

impl FirstRounds {
    /// A notifier begins.
    pub(crate) fn begin(&self) -> FirstRound {
        *self.on() += 1;
        FirstRound(self.clone())
    }

    /// Waits until no notifier is in its first round, and for no longer than what is left of this time; that becomes less.
    pub(crate) fn give_way(&self, left: &mut Duration) {
        let on = self.on();
        if *on == 0 || left.is_zero() {
            return;
        }
        let began = Instant::now();
        let waited = self.0.ended.wait_timeout_while(on, *left, |on| *on > 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        *left = left.saturating_sub(began.elapsed());
    }

    fn on(&self) -> MutexGuard<'_, usize> {
        // A number is whole also after a thread has panicked.
        self.0.on.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FirstRound {
    fn drop(&mut self) {
        let FirstRound(rounds) = self;
        *rounds.on() -= 1;
        rounds.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    /// Much longer than any test takes.
    const LONG: Duration = Duration::from_secs(3_600);

    #[test]
    fn work_goes_on_when_the_last_of_several_rounds_has_ended() {
        let rounds = FirstRounds::default();
        let (one, other) = (rounds.begin(), rounds.begin());
        let (said, heard) = channel();
        let waiting = rounds.clone();
        let waits = thread::spawn(move || {
            let mut left = LONG;
            waiting.give_way(&mut left);
            said.send(()).unwrap();
            left
        });
        drop(one);
        heard.recv_timeout(Duration::from_millis(50)).unwrap_err();
        drop(other);
        heard.recv().unwrap();
        assert!(waits.join().unwrap() < LONG);
        let mut left = LONG;
        rounds.give_way(&mut left);
        assert_eq!(left, LONG, "nothing is on, and nothing is waited for");
    }

    #[test]
    fn a_round_that_does_not_end_is_waited_for_no_longer_than_may_be_in_all() {
        let rounds = FirstRounds::default();
        let _on = rounds.begin();
        let mut left = Duration::from_millis(20);
        while !left.is_zero() {
            rounds.give_way(&mut left);
        }
        rounds.give_way(&mut left);
    }
}
