//! Records: the entry of one client, which must be told, as the store keeps it.
//!
//! A record has a key and bytes. The key says of which kind the record is, and which one of that kind ([`RecordKey`]). It is
//! neither a file name nor the name of a client: a store that keeps files makes a file name of it, and [`RecordKey`]
//! alone says what a kind means for the rest of heirlock. The bytes are shared ([`Record`]): every service of a lock
//! manager keeps the same records, and so does a look at the status monitor's directory.

mod change;
mod key;
mod record;

use std::borrow::Borrow;
use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::ops::Bound;

use heirlock_nsm::MonName;

pub use change::RecordChange;
pub use key::{AsKey, KeyRef, RecordKey, RecordKind};
pub use record::{Record, WeakRecord};

/// A set of records, in order of their keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Records(BTreeMap<RecordKey, Record>);

impl Records {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The record under this key.
    #[must_use]
    pub fn get(&self, key: &impl AsKey) -> Option<&Record> {
        let key: &dyn AsKey = key;
        self.0.get(key)
    }

    /// The same, with its key.
    #[must_use]
    pub fn get_key_value(&self, key: &impl AsKey) -> Option<(&RecordKey, &Record)> {
        let key: &dyn AsKey = key;
        self.0.get_key_value(key)
    }

    /// Whether there is one under this key.
    #[must_use]
    pub fn contains_key(&self, key: &impl AsKey) -> bool {
        self.get(key).is_some()
    }

    /// Puts a record under this key. The answer is the record that was there before.
    pub fn insert(&mut self, key: impl Into<RecordKey>, record: impl Into<Record>) -> Option<Record> {
        self.0.insert(key.into(), record.into())
    }

    /// Puts a record under this key, unless there is one.
    pub fn insert_if_absent(&mut self, key: impl Into<RecordKey>, record: impl FnOnce() -> Record) {
        self.0.entry(key.into()).or_insert_with(record);
    }

    /// Takes the record under this key out.
    pub fn remove(&mut self, key: &impl AsKey) -> Option<Record> {
        let key: &dyn AsKey = key;
        self.0.remove(key)
    }

    /// Keeps this record once, where the one under this key is equal to it.
    pub fn share(&mut self, key: &RecordKey, record: &Record) {
        if let Some(there) = self.0.get_mut(key)
            && !there.is_shared_with(record)
            && there == record
        {
            there.clone_from(record);
        }
    }

    /// Keeps once what is in both: keys and bytes that `known` has as well are its own from now on.
    pub fn share_with(&mut self, known: &Self) {
        // A set that is made anew takes a second place in memory, and leaves its own as a hole.
        if self.has_nothing_to_share_with(known) {
            return;
        }
        let all = std::mem::take(&mut self.0).into_iter();
        let shared = all.map(|(key, record)| match known.get_key_value(&key) {
            Some((known, same)) if *same == record => (known.clone(), same.clone()),
            _ => (key, record),
        });
        self.0 = shared.collect();
    }

    /// Whether all that is in both is kept once already.
    fn has_nothing_to_share_with(&self, known: &Self) -> bool {
        self.iter().all(|(key, record)| match known.get_key_value(key) {
            Some((known, same)) if *same == *record => {
                same.is_shared_with(record) && std::ptr::eq(known.as_str(), key.as_str())
            }
            _ => true,
        })
    }

    /// Takes out all records but those that `keep` holds true of.
    pub fn retain(&mut self, mut keep: impl FnMut(&RecordKey, &Record) -> bool) {
        self.0.retain(|key, record| keep(key, record));
    }

    /// All of them.
    pub fn iter(&self) -> btree_map::Iter<'_, RecordKey, Record> {
        self.0.iter()
    }

    /// Those whose key comes after this one, or all.
    pub fn after(&self, key: Option<&RecordKey>) -> btree_map::Range<'_, RecordKey, Record> {
        let beyond = key.map_or(Bound::Unbounded, Bound::Excluded);
        self.0.range::<RecordKey, _>((beyond, Bound::Unbounded))
    }

    /// The keys of all.
    pub fn keys(&self) -> btree_map::Keys<'_, RecordKey, Record> {
        self.0.keys()
    }

    /// The clients of all.
    pub fn clients(&self) -> impl Iterator<Item = &MonName> {
        self.keys().map(RecordKey::client)
    }

    /// The records that are placed in a status monitor's directory, each with the client in whose file its lines are.
    pub fn conveyed(&self) -> impl Iterator<Item = (&MonName, &Record)> {
        self.iter().filter_map(|(key, record)| Some((key.conveyed_as()?, record)))
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<K: Into<RecordKey>, R: Into<Record>> FromIterator<(K, R)> for Records {
    fn from_iter<I: IntoIterator<Item = (K, R)>>(all: I) -> Self {
        // A map that is made of all at once has full nodes.
        Self(all.into_iter().map(|(key, record)| (key.into(), record.into())).collect())
    }
}

impl<K: Into<RecordKey>, R: Into<Record>> Extend<(K, R)> for Records {
    fn extend<I: IntoIterator<Item = (K, R)>>(&mut self, more: I) {
        self.0.extend(more.into_iter().map(|(key, record)| (key.into(), record.into())));
    }
}

impl<K: Into<RecordKey>, R: Into<Record>, const N: usize> From<[(K, R); N]> for Records {
    fn from(all: [(K, R); N]) -> Self {
        all.into_iter().collect()
    }
}

impl IntoIterator for Records {
    type Item = (RecordKey, Record);
    type IntoIter = btree_map::IntoIter<RecordKey, Record>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = (&'a RecordKey, &'a Record);
    type IntoIter = btree_map::Iter<'a, RecordKey, Record>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> Borrow<dyn AsKey + 'a> for RecordKey {
    fn borrow(&self) -> &(dyn AsKey + 'a) {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> MonName {
        MonName::parse(text).unwrap()
    }

    #[test]
    fn a_record_is_found_by_its_key_and_by_what_stands_for_it() {
        let mut records = Records::from([(name("10.0.0.2"), "two"), (name("10.0.0.1"), "one")]);
        let key = RecordKey::from(name("10.0.0.1"));
        assert_eq!(records.get(&key).unwrap(), b"one");
        assert_eq!(records.get(&name("10.0.0.1")).unwrap(), b"one");
        assert!(!records.contains_key(&name("10.0.0.3")));
        assert_eq!(records.insert(key.clone(), "new"), Some(Record::from("one")));
        records.insert_if_absent(key.clone(), || unreachable!("there is one"));
        assert_eq!(records.remove(&name("10.0.0.1")), Some(Record::from("new")));
        assert_eq!(records.keys().collect::<Vec<_>>(), [&RecordKey::from(name("10.0.0.2"))]);
    }

    #[test]
    fn what_two_sets_have_in_common_is_kept_once_and_nothing_else_changes() {
        let known = Records::from([(name("a"), "same"), (name("b"), "ours"), (name("c"), "")]);
        let mut records = Records::from([(name("a"), "same"), (name("b"), "theirs"), (name("d"), "more")]);
        let before = records.clone();
        records.share_with(&known);
        assert_eq!(records, before);
        let is_shared = |key| {
            let (one, other) = (records.get(&name(key)).unwrap(), known.get(&name(key)).unwrap());
            one.is_shared_with(other)
        };
        assert!(is_shared("a") && !is_shared("b"));
        assert!(records.has_nothing_to_share_with(&known) && !before.has_nothing_to_share_with(&known));
        // The same bytes under a key of its own: the key is to be shared as well.
        let same = known.get(&name("a")).unwrap().clone();
        assert!(!Records::from([(name("a"), same)]).has_nothing_to_share_with(&known));
    }

    #[test]
    fn records_after_a_key_are_those_that_come_next_in_order_whether_it_is_there_or_not() {
        let names = ["a", "b", "c", "d"].map(name);
        let records: Records =
            names.iter().filter(|one| one.as_str() != "b").map(|n| (n.clone(), "")).collect();
        let after = |key: Option<&str>| -> Vec<String> {
            let key = key.map(|key| RecordKey::from(name(key)));
            records.after(key.as_ref()).map(|(key, _)| key.to_string()).collect()
        };
        assert_eq!(after(None), ["a", "c", "d"]);
        assert_eq!(after(Some("b")), ["c", "d"]);
        assert_eq!(after(Some("c")), ["d"]);
        assert_eq!(after(Some("d")), [""; 0]);
    }
}
