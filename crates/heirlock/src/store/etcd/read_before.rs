//! The records that were read a moment ago. Services of one lock manager keep the same records: those that are read for a second
//! service are kept once, from the moment on in which they come.

use std::iter::Peekable;
use std::slice::Iter;

use heirlock_core::records::WeakRecord;
use heirlock_core::{Record, RecordKey, Records};

/// The records of the generation that was read last, in order of their keys. It keeps none of them alive.
#[derive(Debug, Default)]
pub(super) struct ReadBefore {
    records: Vec<(RecordKey, WeakRecord)>,
    /// They were read since it was last to forget.
    is_in_use: bool,
}

impl ReadBefore {
    /// Of these records, which have just been read.
    pub(super) fn of(records: &Records) -> Self {
        // Of its exact length: a list that grows takes up to three times as much meanwhile.
        let mut all = Vec::with_capacity(records.len());
        all.extend(records.iter().map(|(key, record)| (key.clone(), record.downgrade())));
        Self { records: all, is_in_use: true }
    }

    /// For a reading of records, which come in order of their keys.
    pub(super) fn in_order(&self) -> Known<'_> {
        Known(self.records.iter().peekable())
    }

    /// Forgets all of them, where none was read since it was last to forget: with very many records there are heartbeats between
    /// the readings of two services.
    pub(super) fn forget(&mut self) {
        if !std::mem::take(&mut self.is_in_use) {
            self.records = Vec::new();
        }
    }
}

/// The records that were read before, from the key on that was asked for last.
pub(super) struct Known<'a>(Peekable<Iter<'a, (RecordKey, WeakRecord)>>);

impl Known<'_> {
    /// The record under this key and the key itself, as they are kept already, where it has these bytes and is still in use.
    pub(super) fn same(&mut self, key: &RecordKey, bytes: &[u8]) -> Option<(RecordKey, Record)> {
        while self.0.next_if(|(before, _)| before < key).is_some() {}
        let (known, record) = self.0.next_if(|(known, _)| known == key)?;
        let record = record.upgrade().filter(|record| *record == *bytes)?;
        Some((known.clone(), record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> RecordKey {
        RecordKey::parse(text).unwrap()
    }

    #[test]
    fn a_record_is_the_same_by_its_key_and_its_bytes_wherever_the_sets_differ() {
        let records: Records = ["b", "c", "d", "f"].map(|name| (key(name), name)).into();
        let before = ReadBefore::of(&records);
        let mut known = before.in_order();
        let mut found = |name: &str, bytes: &str| {
            known.same(&key(name), bytes.as_bytes()).is_some_and(|(_, found)| {
                found.is_shared_with(records.get(&key(name)).unwrap()) && found == *bytes.as_bytes()
            })
        };
        let asked = [("a", "a"), ("b", "b"), ("c", "other"), ("d", "d"), ("e", "e"), ("f", "f"), ("g", "g")];
        assert_eq!(
            asked.map(|(name, bytes)| found(name, bytes)),
            [false, true, false, true, false, true, false]
        );
    }

    #[test]
    fn records_are_kept_in_mind_over_a_heartbeat_and_never_kept_alive() {
        let records: Records = [(key("a"), "a")].into();
        let mut before = ReadBefore::of(&records);
        before.forget();
        assert!(before.in_order().same(&key("a"), b"a").is_some(), "a heartbeat in between");
        before.forget();
        assert!(before.in_order().same(&key("a"), b"a").is_none());
        let before = ReadBefore::of(&records);
        drop(records);
        assert!(before.in_order().same(&key("a"), b"a").is_none(), "no set has it any more");
    }
}
