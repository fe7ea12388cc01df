//! What a store holds of a generation, and what is told of the generations before it.

use std::collections::{BTreeMap, BTreeSet};

use heirlock_nsm::{MonName, StateNumber};

use crate::claim::Claim;
use crate::history::Tenure;
use crate::names::Generation;
use crate::takeover::{Journal, OutcomeLine};

/// All of one generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// The state number reserved for this generation's notifications, or the primary's own at capture.
    pub state: Option<StateNumber>,
    /// One record a client, in statd's own lines.
    pub records: BTreeMap<MonName, Vec<u8>>,
    /// The adoption's journal.
    pub journal: Option<Journal>,
    /// The outcomes, in the order they were appended. One that was torn, or has no sense, is left out.
    pub outcomes: Vec<OutcomeLine>,
    /// What can't be read.
    pub damaged: Vec<Damaged>,
}

impl Contents {
    /// What can't be read and is named to people; see [`Damaged::is_named`].
    pub fn left_alone(&self) -> impl Iterator<Item = &Damaged> {
        self.damaged.iter().filter(|damaged| damaged.is_named())
    }

    /// Why the journal has no sense, where that is why there is none.
    #[must_use]
    pub fn senseless_journal(&self) -> Option<&str> {
        let journal = self.damaged.iter().find(|damaged| damaged.part == DamagedPart::JournalText);
        journal.map(|damaged| damaged.why.as_str())
    }
}

/// An entry of a generation that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// Which, as a place below the generation. What is no text in it is escaped.
    pub path: String,
    /// What was expected and found.
    pub why: String,
    /// What it should be.
    pub part: DamagedPart,
}

/// What an entry should be that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DamagedPart {
    /// It lies where records lie: the record of this client, where its name is one that a client can have.
    Record(Option<MonName>),
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
    /// The client whose record it is, as far as its name tells.
    #[must_use]
    pub fn client(&self) -> Option<&MonName> {
        match &self.part {
            DamagedPart::Record(client) => client.as_ref(),
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

/// What there is of a service's past.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// Claims that were not pruned.
    pub claims: Vec<Claim>,
    /// Generations that were not pruned.
    pub generations: Vec<Generation>,
    /// What is told of generations that were.
    pub tenures: Vec<Tenure>,
    /// What can't be read, in words.
    pub unreadable: Vec<String>,
}

/// One generation without its records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Whose records it has.
    pub clients: BTreeSet<MonName>,
    /// Its state number.
    pub state: Option<StateNumber>,
    /// Its journal, where it has one that can be read and has sense.
    pub journal: Option<Journal>,
    /// Its outcomes, as far as they can be read.
    pub outcomes: Vec<OutcomeLine>,
}

/// One change of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Writes a client's record, whether it exists or not.
    PutRecord(MonName, Vec<u8>),
    /// Removes a client's record, if it exists.
    RemoveRecord(MonName),
    /// Writes the generation's number anew, where it can't be read: another one it never gets.
    PutState(StateNumber),
    /// Replaces the journal.
    PutJournal(Box<Journal>),
    /// Appends an outcome.
    AppendOutcome(OutcomeLine),
}
