//! The portions of a generation that is being begun: a few are on the way at once, and the last one goes when all others are there.
//!
//! etcd works on the questions of several connections at once, and joins their syncs. The portions name the same attempt as their
//! condition and write different keys, so their order does not matter. Only the last one, which has the mark that the generation is
//! whole, waits until etcd has confirmed each of the others.

use std::iter::Peekable;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use heirlock_core::store::StoreError;

use super::generation::portions;
use super::wire::Op;
use crate::limits::{ETCD_PORTIONS_AT_ONCE, ETCD_TXN_OPS_MAX};
use crate::threads;

/// How the writing of a portion ended where no other one is to follow.
pub(super) type End = Result<(), StoreError>;

/// The portions that are left. Each is made when it is asked for: with very many records all of them are more than the records.
struct Left<I: Iterator<Item = Vec<Op>>> {
    portions: Peekable<I>,
    last: Option<Vec<Op>>,
    end: Option<End>,
}

impl<I: Iterator<Item = Vec<Op>>> Left<I> {
    /// The next one; nothing where the last one alone is left, or the writing has ended.
    fn next(&mut self) -> Option<Vec<Op>> {
        if self.end.is_some() {
            return None;
        }
        let portion = self.portions.next()?;
        if self.portions.peek().is_some() {
            return Some(portion);
        }
        self.last = Some(portion);
        None
    }

    /// The first end is the one that counts.
    fn ended(&mut self, end: End) {
        self.end.get_or_insert(end);
    }
}

/// Writes puts in portions that etcd takes. `write` writes one of them, and says by `Some` that no other one is to follow. Answers
/// the last portion, which is not written, or how the writing ended. There are about so many puts.
///
/// # Errors
/// The first failure. Portions that were on the way then have been answered, or given up.
pub(super) fn write_all_but_last(
    puts: impl Iterator<Item = Op> + Send,
    about: usize,
    write: &(dyn Fn(Vec<Op>) -> Option<End> + Sync),
) -> Result<Option<Vec<Op>>, StoreError> {
    let left = Left { portions: portions(puts).peekable(), last: None, end: None };
    let left = Mutex::new(left);
    let write_some = || {
        loop {
            let next = entered(&left).next();
            let Some(portion) = next else { return };
            if let Some(end) = write(portion) {
                entered(&left).ended(end);
            }
        }
    };
    // Of the last portion and of a single one beside it no thread is needed.
    let beside = (about / ETCD_TXN_OPS_MAX).saturating_sub(1).min(ETCD_PORTIONS_AT_ONCE - 1);
    thread::scope(|scope| {
        for _ in 0..beside {
            // Where no thread can be had, this one writes all of them.
            if threads::start_in(scope, "etcd-portions", write_some).is_err() {
                break;
            }
        }
        write_some();
    });
    let left = left.into_inner().unwrap_or_else(PoisonError::into_inner);
    left.end.unwrap_or(Ok(())).map(|()| left.last)
}

fn entered<T>(left: &Mutex<T>) -> MutexGuard<'_, T> {
    // Its contents are still true after a thread has panicked.
    left.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Condvar;
    use std::time::Duration;

    use heirlock_core::store::StoreErrorKind;

    use super::*;

    const PORTIONS: usize = 40;

    fn puts() -> impl Iterator<Item = Op> + Send {
        (0..PORTIONS * (ETCD_TXN_OPS_MAX - 1))
            .map(|key| Op::Put(format!("{key:06}").into_bytes(), Vec::new()))
    }

    fn keys(portion: &[Op]) -> Vec<Vec<u8>> {
        let key = |put: &Op| match put {
            Op::Put(key, _) => key.clone(),
            other => panic!("{other:?}"),
        };
        portion.iter().map(key).collect()
    }

    /// What is on the way, and was.
    #[derive(Default)]
    struct Way {
        on: usize,
        most: usize,
        written: Vec<Vec<u8>>,
    }

    #[test]
    fn a_few_portions_are_on_the_way_at_once_and_the_last_one_is_left_until_all_are_there() {
        let (way, came) = (Mutex::new(Way::default()), Condvar::new());
        let write = |portion: Vec<Op>| {
            let mut held = way.lock().unwrap();
            held.on += 1;
            held.most = held.most.max(held.on);
            came.notify_all();
            // Nothing arrives before as many as may be are on the way. One after the other would wait here until it gives up.
            let patience = Duration::from_secs(60);
            let full = |way: &mut Way| way.most < ETCD_PORTIONS_AT_ONCE;
            let (mut held, waited) = came.wait_timeout_while(held, patience, full).unwrap();
            held.written.extend(keys(&portion));
            held.on -= 1;
            waited.timed_out().then(|| Err(StoreError::new(StoreErrorKind::Unavailable, "alone".to_owned())))
        };
        let last = write_all_but_last(puts(), PORTIONS * ETCD_TXN_OPS_MAX, &write).unwrap().unwrap();
        let way = way.into_inner().unwrap();
        assert_eq!((way.on, way.most), (0, ETCD_PORTIONS_AT_ONCE), "none is on the way any more");
        let all: BTreeSet<Vec<u8>> = way.written.iter().cloned().chain(keys(&last)).collect();
        assert_eq!(all.len(), PORTIONS * (ETCD_TXN_OPS_MAX - 1), "each put is in one of them");
        assert_eq!(way.written.len() + last.len(), all.len(), "and in no other");
        assert!(last.iter().all(|put| !way.written.contains(&keys(std::slice::from_ref(put))[0])));
    }

    #[test]
    fn after_a_failure_no_other_portion_is_begun_and_the_first_one_is_told() {
        let begun = Mutex::new(0);
        let write = |_| {
            let mut begun = begun.lock().unwrap();
            *begun += 1;
            let said = format!("failure {begun}");
            (*begun > 3).then(|| Err(StoreError::new(StoreErrorKind::Unavailable, said)))
        };
        let error = write_all_but_last(puts(), PORTIONS * ETCD_TXN_OPS_MAX, &write).unwrap_err();
        assert!(error.to_string().contains("failure "), "{error}");
        let begun = begun.into_inner().unwrap();
        assert!((4..4 + ETCD_PORTIONS_AT_ONCE).contains(&begun), "{begun}");
    }

    #[test]
    fn where_the_generation_turns_out_to_be_there_no_portion_is_left() {
        let last = write_all_but_last(puts(), PORTIONS * ETCD_TXN_OPS_MAX, &|_| Some(Ok(()))).unwrap();
        assert_eq!(last, None);
    }

    #[test]
    fn few_puts_are_one_portion_which_is_the_last_one() {
        let write = |portion: Vec<Op>| panic!("{portion:?}");
        assert_eq!(write_all_but_last(puts().take(9), 9, &write).unwrap().unwrap().len(), 9);
        assert_eq!(write_all_but_last(puts().take(0), 0, &write).unwrap(), Some(Vec::new()));
    }
}
