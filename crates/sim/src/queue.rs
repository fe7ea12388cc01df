//! What happens when, in order.
//!
//! What is to happen lies in places that are used again, and only small keys are put in order: it is moved twice, once in and
//! once out.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::Ms;

/// A queue by time. Of what is to happen at the same moment, what was put in first comes first.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    /// When, how many were put in before, and where it lies.
    order: BinaryHeap<Reverse<(Ms, u64, usize)>>,
    places: Vec<Option<T>>,
    free: Vec<usize>,
    count: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { order: BinaryHeap::new(), places: Vec::new(), free: Vec::new(), count: 0 }
    }
}

impl<T> Queue<T> {
    pub(crate) fn insert(&mut self, at: Ms, it: T) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.places[place] = Some(it);
        self.count += 1;
        self.order.push(Reverse((at, self.count, place)));
    }

    /// The next one, with its time, where that is not after `end`.
    pub(crate) fn pop_until(&mut self, end: Ms) -> Option<(Ms, T)> {
        self.order.peek().filter(|Reverse((at, _, _))| *at <= end)?;
        let Reverse((at, _, place)) = self.order.pop()?;
        self.free.push(place);
        Some((at, self.places[place].take()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_comes_by_its_time_and_at_the_same_time_in_order_although_places_are_used_again() {
        let mut queue = Queue::default();
        [(5, "c"), (3, "a"), (5, "d"), (3, "b")].into_iter().for_each(|(at, it)| queue.insert(at, it));
        assert_eq!(queue.pop_until(2), None, "it is not time yet");
        assert_eq!(queue.pop_until(3), Some((3, "a")));
        queue.insert(5, "e");
        queue.insert(3, "b2");
        let all: Vec<_> = std::iter::from_fn(|| queue.pop_until(9)).collect();
        assert_eq!(all, [(3, "b"), (3, "b2"), (5, "c"), (5, "d"), (5, "e")]);
        assert_eq!(queue.places.len(), 5);
    }
}
