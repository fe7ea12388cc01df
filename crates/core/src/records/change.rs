//! One change of a record: what the ledger asks for, a run brings about, and a store makes durable.

use heirlock_nsm::MonName;

use super::{Record, RecordKey};

/// One change of a record. Nothing else follows from what is found in a status monitor's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordChange {
    /// Writes the record, whether it exists or not.
    Put(RecordKey, Record),
    /// Removes the record, if it exists.
    Remove(RecordKey),
}

impl RecordChange {
    /// Writes the record, whether it exists or not.
    #[must_use]
    pub fn put(key: impl Into<RecordKey>, record: impl Into<Record>) -> Self {
        Self::Put(key.into(), record.into())
    }

    /// Removes the record, if it exists.
    #[must_use]
    pub fn remove(key: impl Into<RecordKey>) -> Self {
        Self::Remove(key.into())
    }

    /// The key of the record that is changed.
    #[must_use]
    pub fn key(&self) -> &RecordKey {
        match self {
            Self::Put(key, _) | Self::Remove(key) => key,
        }
    }

    /// The client whose record is changed.
    #[must_use]
    pub fn client(&self) -> &MonName {
        self.key().client()
    }

    /// The key of the record that is written, if one is.
    #[must_use]
    pub fn written(&self) -> Option<&RecordKey> {
        match self {
            Self::Put(key, _) => Some(key),
            Self::Remove(_) => None,
        }
    }
}
