//! The calls that the lock manager is owed: each tells it that a client, or a server that it has locks on, was restarted.
//!
//! Each client is owed one call at most, however often it says that it was restarted, and however many numbers it says:
//! the last one counts. The call is on record before the SM_NOTIFY is answered, since its sender does not repeat an answered
//! one. Nothing here knows how a call is made; the number of clients and of calls at a time are bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use heirlock_nsm::{MonName, StateNumber};

use crate::{Moment, limits};

/// The end of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Called {
    /// The lock manager took it.
    Taken,
    /// The lock manager is there, or may be, and did not take it.
    Untaken,
    /// No lock manager is registered: no lock can be held.
    Unregistered,
}

/// The result of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is owed from now on: this must be on record.
    New,
    /// It was owed already.
    Known,
    /// There is no room.
    Full,
}

#[derive(Debug, Clone)]
struct Owed {
    state: StateNumber,
    tries: u32,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It waits for its turn.
    Ready,
    /// The lock manager is being told this number.
    Calling(StateNumber),
    /// Its turn comes at this moment.
    Later(Moment),
}

/// All that is owed.
#[derive(Debug, Clone, Default)]
pub(super) struct Downcalls {
    owed: BTreeMap<MonName, Owed>,
    ready: VecDeque<MonName>,
    later: BTreeSet<(Moment, MonName)>,
    calling: usize,
}

impl Downcalls {
    /// The lock manager is to be told this number, not before that moment.
    pub(super) fn owe(&mut self, client: &MonName, state: StateNumber, not_before: Moment) -> Taken {
        if let Some(owed) = self.owed.get_mut(client) {
            owed.state = state;
            return Taken::Known;
        }
        if self.owed.len() >= limits::DOWNCALLS_OWED_MAX {
            return Taken::Full;
        }
        self.owed.insert(client.clone(), Owed { state, tries: 0, phase: Phase::Later(not_before) });
        self.later.insert((not_before, client.clone()));
        Taken::New
    }

    /// The number that is owed to a client.
    pub(super) fn owed(&self, client: &MonName) -> Option<StateNumber> {
        self.owed.get(client).map(|owed| owed.state)
    }

    /// All clients that are owed a call.
    pub(super) fn all(&self) -> impl Iterator<Item = (&MonName, StateNumber)> {
        self.owed.iter().map(|(client, owed)| (client, owed.state))
    }

    /// How many clients are owed a call.
    pub(super) fn len(&self) -> usize {
        self.owed.len()
    }

    /// How many of them the lock manager has not taken in several tries.
    pub(super) fn untaken(&self) -> usize {
        self.owed.values().filter(|owed| owed.tries >= limits::DOWNCALL_TRIES).count()
    }

    /// When time alone makes a call due.
    pub(super) fn next_due(&self) -> Option<Moment> {
        self.later.first().map(|(due, _)| *due)
    }

    /// The next call to make, and how often it was tried before.
    pub(super) fn next(&mut self, now: Moment) -> Option<(MonName, StateNumber, u32)> {
        while let Some((due, _)) = self.later.first()
            && *due <= now
            && let Some((_, client)) = self.later.pop_first()
        {
            if let Some(owed) = self.owed.get_mut(&client) {
                owed.phase = Phase::Ready;
                self.ready.push_back(client);
            }
        }
        if self.calling >= limits::DOWNCALLS_AT_ONCE_MAX {
            return None;
        }
        let client = self.ready.pop_front()?;
        let owed = self.owed.get_mut(&client)?;
        owed.phase = Phase::Calling(owed.state);
        self.calling += 1;
        Some((client, owed.state, owed.tries))
    }

    /// The call of [`Downcalls::next`] is over. The number that the lock manager knows by now, and whether nothing is owed to
    /// the client any more.
    pub(super) fn called(
        &mut self,
        now: Moment,
        client: &MonName,
        called: Called,
    ) -> (Option<StateNumber>, bool) {
        let Some(owed) = self.owed.get_mut(client) else { return (None, false) };
        let Phase::Calling(told) = owed.phase else { return (None, false) };
        self.calling -= 1;
        owed.tries += 1;
        let taken = called == Called::Taken;
        let is_paid = match called {
            Called::Taken => told == owed.state,
            Called::Untaken => false,
            Called::Unregistered => owed.tries >= limits::DOWNCALL_TRIES,
        };
        if is_paid {
            self.owed.remove(client);
        } else {
            let wait = match (taken, owed.tries < limits::DOWNCALL_TRIES) {
                (true, _) => limits::DOWNCALL_SPACING,
                (false, true) => limits::DOWNCALL_RETRY,
                (false, false) => limits::DOWNCALL_RETRY_LATER,
            };
            owed.tries = if taken { 0 } else { owed.tries };
            owed.phase = Phase::Later(now + wait);
            self.later.insert((now + wait, client.clone()));
        }
        (taken.then_some(told), is_paid)
    }

    /// Nothing is owed to this client any more: the call of [`Downcalls::next`] is not made.
    pub(super) fn cancel(&mut self, client: &MonName) {
        if let Some(Owed { phase: Phase::Calling(_), .. }) = self.owed.remove(client) {
            self.calling -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::at(Duration::from_millis(ms))
    }

    fn client(number: u32) -> MonName {
        MonName::from_address(number.to_be_bytes().into())
    }

    #[test]
    fn a_client_is_owed_one_call_with_its_last_number() {
        let mut downcalls = Downcalls::default();
        assert_eq!(downcalls.owe(&client(1), StateNumber(1), at(0)), Taken::New);
        for number in 2..5_000 {
            assert_eq!(downcalls.owe(&client(1), StateNumber(number), at(0)), Taken::Known);
        }
        assert_eq!(downcalls.len(), 1);
        assert_eq!(downcalls.next(at(0)), Some((client(1), StateNumber(4_999), 0)));
        assert_eq!(downcalls.next(at(0)), None);
        // Another number while it is called: it is called again, after a while.
        downcalls.owe(&client(1), StateNumber(7), at(0));
        assert_eq!(downcalls.called(at(1), &client(1), Called::Taken), (Some(StateNumber(4_999)), false));
        assert_eq!(downcalls.next(at(1)), None);
        let due = downcalls.next_due().unwrap();
        assert_eq!(due, at(1) + limits::DOWNCALL_SPACING);
        assert_eq!(downcalls.next(due), Some((client(1), StateNumber(7), 0)));
        assert_eq!(downcalls.called(due, &client(1), Called::Taken), (Some(StateNumber(7)), true));
        assert_eq!((downcalls.len(), downcalls.next_due()), (0, None));
    }

    #[test]
    fn a_lock_manager_that_is_there_is_tried_until_it_takes_the_call_and_one_that_is_not_is_given_up() {
        for (called, given_up) in [(Called::Untaken, false), (Called::Unregistered, true)] {
            let mut downcalls = Downcalls::default();
            downcalls.owe(&client(1), StateNumber(1), at(0));
            let mut now = at(0);
            for tries in 0..limits::DOWNCALL_TRIES {
                now = downcalls.next_due().unwrap();
                assert_eq!(downcalls.next(now).unwrap().2, tries);
                downcalls.called(now, &client(1), called);
            }
            assert_eq!((downcalls.len() == 0, downcalls.untaken() == 0), (given_up, given_up));
            let again = (!given_up).then_some(now + limits::DOWNCALL_RETRY_LATER);
            assert_eq!(downcalls.next_due(), again);
        }
    }

    proptest! {
        /// For all notifications and all ends of calls: the calls that are owed and those that are out are bounded, no client
        /// has two calls at a time, and each has one in the end.
        #[test]
        fn calls_to_the_lock_manager_are_bounded_and_all_are_made(
            events in prop::collection::vec((0_u32..40, 0_u32..4, 0_u8..4), 1..300)
        ) {
            let mut downcalls = Downcalls::default();
            let mut on: BTreeSet<MonName> = BTreeSet::new();
            let mut now = at(0);
            for (who, state, kind) in events {
                now = now + Duration::from_millis(10);
                match kind {
                    0 | 1 => drop(downcalls.owe(&client(who), StateNumber(state), now)),
                    2 => while let Some((client, _, _)) = downcalls.next(now) {
                        prop_assert!(on.insert(client), "called twice at a time");
                        prop_assert!(on.len() <= limits::DOWNCALLS_AT_ONCE_MAX);
                    },
                    _ => if let Some(client) = on.pop_first() {
                        let how = if state == 0 { Called::Untaken } else { Called::Taken };
                        downcalls.called(now, &client, how);
                    },
                }
            }
            for _ in 0..1_000 {
                while let Some(client) = on.pop_first() {
                    downcalls.called(now, &client, Called::Taken);
                }
                now = downcalls.next_due().map_or(now, |due| due.max(now));
                while let Some((client, _, _)) = downcalls.next(now) {
                    on.insert(client);
                }
            }
            prop_assert_eq!((downcalls.len(), downcalls.calling, downcalls.ready.len()), (0, 0, 0));
        }
    }
}
