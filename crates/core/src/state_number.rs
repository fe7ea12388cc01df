//! State numbers that were never sent before (I5).
//!
//! A client reacts to a notification only if its number differs from the last one it saw (nfs-utils
//! utils/statd/callback.c), so a repeated number loses the locks. Numbers are odd while a server is up (X/Open NSM)
//! and 32 bits wide.

use heirlock_nsm::StateNumber;

use crate::planted::{Bug, planted};

/// The smallest odd number above everything that may ever have been sent for a service: the numbers in the store,
/// the primary's own `state`, ours.
///
/// At the end of the range it starts over at 1, as nfs-utils does; the numbers in use are then skipped, since a
/// client compares for equality alone.
#[must_use]
pub fn next_unsent(sent: &[StateNumber]) -> StateNumber {
    let highest = sent.iter().map(|n| n.0).max().unwrap_or(1);
    if planted(Bug::ReuseNumber) && sent.first() != sent.last() {
        return StateNumber(highest | 1);
    }
    if planted(Bug::EvenNumber) {
        return StateNumber(next_odd(highest).saturating_add(1));
    }
    let mut next = next_odd(highest);
    while sent.contains(&StateNumber(next)) {
        next = next_odd(next);
    }
    StateNumber(next)
}

fn next_odd(n: u32) -> u32 {
    n.checked_add(1 + n % 2).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(sent: &[u32]) -> u32 {
        next_unsent(&sent.iter().map(|n| StateNumber(*n)).collect::<Vec<_>>()).0
    }

    #[test]
    fn a_new_state_number_is_odd_and_above_all_that_were_sent() {
        assert_eq!(next(&[]), 3);
        assert_eq!(next(&[3, 7, 5]), 9);
        assert_eq!(next(&[4]), 5);
        assert_eq!(next(&[0x7fff_ffff]), 0x8000_0001);
    }

    #[test]
    fn state_numbers_start_over_at_the_end_of_the_range_without_repeating_one() {
        assert_eq!(next(&[u32::MAX]), 1);
        assert_eq!(next(&[u32::MAX, 1, 3]), 5);
        assert_eq!(next(&[u32::MAX - 1]), u32::MAX);
    }

    proptest::proptest! {
        #[test]
        fn no_state_number_is_sent_twice_however_many_were_sent(
            sent in proptest::collection::vec(proptest::prelude::prop_oneof![
                0_u32..40, u32::MAX - 40..=u32::MAX, proptest::prelude::any::<u32>(),
            ], 0..40),
        ) {
            let mut sent = sent;
            for _ in 0..40 {
                let next = next(&sent);
                assert!(next % 2 == 1 && !sent.contains(&next), "{next} after {sent:?}");
                // A client compares for equality alone, but people read them: they rise until the range ends.
                let highest = sent.iter().max().copied().unwrap_or(1);
                assert!(next > highest || highest >= u32::MAX - 1, "{next} after {highest}");
                sent.push(next);
            }
        }
    }
}
