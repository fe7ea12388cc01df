//! What a store holds of a generation, and what is told of the generations before it.

use std::collections::{BTreeMap, BTreeSet};

use heirlock_nsm::{MonName, StateNumber};

use crate::claim::Claim;
use crate::history::Tenure;
use crate::names::Generation;

/// All of one generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// The state number reserved for this generation's notifications, or the primary's own at capture.
    pub state: Option<StateNumber>,
    /// One record a client, in statd's own lines.
    pub records: BTreeMap<MonName, Vec<u8>>,
    /// The adoption's journal, as its writer wrote it.
    pub journal: Option<String>,
    /// The outcomes, a line each, in the order they were appended; a torn last line is left out.
    pub outcomes: Vec<String>,
    /// What can't be read.
    pub damaged: Vec<Damaged>,
}

/// An entry of a generation that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// Which, below the generation. What is no text in it is escaped.
    pub path: String,
    /// What was expected and found.
    pub why: String,
    /// It lies where records lie.
    pub is_record: bool,
    /// The client whose record it is, where its name is one that a client can have.
    pub client: Option<MonName>,
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
    /// Its journal, as its writer wrote it.
    pub journal: Option<String>,
    /// Its outcomes, a line each.
    pub outcomes: Vec<String>,
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
    PutJournal(String),
    /// Appends a line (without its newline) to the outcomes.
    AppendOutcome(String),
}
