//! The records that are still to be shared among the services of a lock manager.

use std::collections::VecDeque;

use heirlock_core::{Moment, Record, RecordKey};

use crate::limits::COMMIT_RECORDS_MAX;

/// The records that are still to be shared.
#[derive(Debug, Default)]
pub struct Shared {
    left: VecDeque<(RecordKey, Record)>,
    /// The store failed; when it is tried again.
    retry: Option<Moment>,
}

impl Shared {
    /// These are to be shared as well.
    pub(crate) fn add(&mut self, records: Vec<(RecordKey, Record)>) {
        self.left.extend(records);
    }

    /// How many are left.
    pub(crate) fn left(&self) -> usize {
        self.left.len()
    }

    /// Whether some are left, and the store takes them.
    pub(crate) fn goes_on(&self) -> bool {
        !self.left.is_empty() && self.retry.is_none()
    }

    /// Takes out what one commit carries.
    pub(crate) fn take_portion(&mut self) -> Vec<(RecordKey, Record)> {
        let count = self.left.len().min(COMMIT_RECORDS_MAX);
        self.left.drain(..count).collect()
    }

    /// A portion is durable.
    pub(crate) fn shared(&mut self) {
        self.retry = None;
    }

    /// A portion is not, and is tried again at that moment.
    pub(crate) fn put_back(&mut self, portion: Vec<(RecordKey, Record)>, retry: Moment) {
        portion.into_iter().rev().for_each(|one| self.left.push_front(one));
        self.retry = Some(retry);
    }

    /// When the next portion is due.
    pub fn due(&self) -> Option<Moment> {
        (!self.left.is_empty()).then(|| self.retry.unwrap_or(Moment::START))
    }
}
