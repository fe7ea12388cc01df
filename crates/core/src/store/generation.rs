//! The contents of a generation in a store, and the accounts of the generations before it.

use std::collections::BTreeSet;

use heirlock_nsm::StateNumber;

use crate::claim::Claim;
use crate::history::Tenure;
use crate::names::Generation;
use crate::records::{AsKey, Record, RecordChange, RecordKey, Records};
use crate::takeover::{Journal, OutcomeLine};

/// All of one generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// The state number reserved for this generation's notifications, or the primary's own at capture.
    pub state: Option<StateNumber>,
    /// One record a client.
    pub records: Records,
    /// The adoption's journal.
    pub journal: Option<Journal>,
    /// The outcomes, in the order they were appended. An outcome that was torn, or has no sense, is left out.
    pub outcomes: Vec<OutcomeLine>,
    /// The entries that can't be read.
    pub damaged: Vec<Damaged>,
}

impl Contents {
    /// The entries that can't be read and are named to people; see [`Damaged::is_named`].
    pub fn left_alone(&self) -> impl Iterator<Item = &Damaged> {
        self.damaged.iter().filter(|damaged| damaged.is_named())
    }

    /// Why the journal has no sense, where that is why there is none.
    #[must_use]
    pub fn senseless_journal(&self) -> Option<&str> {
        let journal = self.damaged.iter().find(|damaged| damaged.part == DamagedPart::JournalText);
        journal.map(|damaged| damaged.why.as_str())
    }

    /// Applies a change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Record(RecordChange::Put(key, record)) => drop(self.records.insert(key, record)),
            Change::Record(RecordChange::Remove(key)) => drop(self.records.remove(&key)),
            Change::PutState(state) => self.state = Some(state),
            Change::PutJournal(journal) => self.journal = Some(*journal),
            Change::AppendOutcome(line) => self.outcomes.push(line),
        }
    }
}

/// An entry of a generation that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// Its place below the generation. Bytes that are no text are escaped.
    pub path: String,
    /// The error: what was expected and found.
    pub why: String,
    /// The part of the generation that it should be.
    pub part: DamagedPart,
}

/// A part of a generation that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DamagedPart {
    /// It lies where records lie: the record under this key, where its name is one that a record can have.
    Record(Option<RecordKey>),
    /// The state number.
    State,
    /// The journal.
    Journal,
    /// The journal, which can be read and has no sense.
    JournalText,
    /// The outcomes.
    Outcomes,
}

impl Damaged {
    /// The key of the record that it should be, as far as its name tells.
    #[must_use]
    pub fn key(&self) -> Option<&RecordKey> {
        match &self.part {
            DamagedPart::Record(key) => key.as_ref(),
            _ => None,
        }
    }

    /// Whether it lies where records lie, and may stand for a client.
    #[must_use]
    pub fn is_record(&self) -> bool {
        matches!(self.part, DamagedPart::Record(_))
    }

    /// Whether it is named to people among what was left alone. A journal without sense is not: the adoption that it told of
    /// is begun again, as where there is none, and the log says so.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.part != DamagedPart::JournalText
    }
}

/// The past of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// Claims that were not pruned.
    pub claims: Vec<Claim>,
    /// Generations that were not pruned.
    pub generations: Vec<Generation>,
    /// The accounts of removed generations.
    pub tenures: Vec<Tenure>,
    /// The entries that can't be read, in words.
    pub unreadable: Vec<String>,
}

/// One generation without its records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// The keys of its records.
    pub keys: BTreeSet<RecordKey>,
    /// Its state number.
    pub state: Option<StateNumber>,
    /// Its journal, where it has one that can be read and has sense.
    pub journal: Option<Journal>,
    /// Its outcomes, as far as they can be read.
    pub outcomes: Vec<OutcomeLine>,
}

impl Account {
    /// Whether it has a record under this key.
    #[must_use]
    pub fn has(&self, key: &impl AsKey) -> bool {
        let key: &dyn AsKey = key;
        self.keys.contains(key)
    }
}

/// One change of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Of a record.
    Record(RecordChange),
    /// Writes the generation's number anew, where it can't be read: another one it never gets.
    PutState(StateNumber),
    /// Replaces the journal.
    PutJournal(Box<Journal>),
    /// Appends an outcome.
    AppendOutcome(OutcomeLine),
}

impl Change {
    /// Writes a record.
    #[must_use]
    pub fn put(key: impl Into<RecordKey>, record: impl Into<Record>) -> Self {
        Self::Record(RecordChange::put(key, record))
    }

    /// Removes a record.
    #[must_use]
    pub fn remove(key: impl Into<RecordKey>) -> Self {
        Self::Record(RecordChange::remove(key))
    }
}

#[cfg(test)]
mod tests {
    use heirlock_nsm::MonName;

    use super::*;
    use crate::names::ServerName;
    use crate::outcome::Outcome;

    fn client(name: &str) -> RecordKey {
        MonName::parse(name).unwrap().into()
    }

    #[test]
    fn a_change_makes_of_a_generation_what_it_says() {
        let journal = Journal::quiet("run", &ServerName::parse("a").unwrap(), 7);
        let line = |client: &str| OutcomeLine::new(self::client(client), Outcome::Lost, 0);
        let mut contents = Contents::default();
        for change in [
            Change::put(client("one"), b"first".to_vec()),
            Change::put(client("two"), b"first".to_vec()),
            Change::put(client("one"), b"second".to_vec()),
            Change::remove(client("two")),
            Change::remove(client("unknown")),
            Change::PutState(StateNumber(7)),
            Change::PutJournal(Box::new(journal.clone())),
            Change::AppendOutcome(line("one")),
            Change::AppendOutcome(line("one")),
        ] {
            contents.apply(change);
        }
        let records = Records::from([(client("one"), "second")]);
        let outcomes = vec![line("one"), line("one")];
        let (state, journal) = (Some(StateNumber(7)), Some(journal));
        assert_eq!(contents, Contents { state, records, journal, outcomes, damaged: Vec::new() });
    }

    #[test]
    fn a_journal_without_sense_is_no_entry_that_is_named_and_one_that_cant_be_read_is() {
        let damaged = |part| Damaged { path: "x".into(), why: "torn".into(), part };
        let named = [
            DamagedPart::Record(None),
            DamagedPart::Record(Some(client("one"))),
            DamagedPart::State,
            DamagedPart::Journal,
            DamagedPart::Outcomes,
        ];
        let all = named.iter().cloned().chain([DamagedPart::JournalText]).map(damaged).collect();
        let contents = Contents { damaged: all, ..Contents::default() };
        assert!(contents.left_alone().map(|damaged| &damaged.part).eq(&named));
        assert_eq!(contents.senseless_journal(), Some("torn"));
        let clients: Vec<_> = contents.left_alone().filter_map(Damaged::key).collect();
        let records = contents.left_alone().filter(|damaged| damaged.is_record()).count();
        assert_eq!((clients, records), (vec![&client("one")], 2));
        let unread = Contents { damaged: vec![damaged(DamagedPart::Journal)], ..Contents::default() };
        assert_eq!(unread.senseless_journal(), None);
    }
}
