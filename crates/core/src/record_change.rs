//! One change of a client's record: what the ledger asks for, a run brings about, and a store makes durable.

use heirlock_nsm::MonName;

/// One change of a client's record. Nothing else follows from what is found in a status monitor's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordChange {
    /// Writes the record, whether it exists or not.
    Put(MonName, Vec<u8>),
    /// Removes the record, if it exists.
    Remove(MonName),
}

impl RecordChange {
    /// The client whose record is changed.
    #[must_use]
    pub fn client(&self) -> &MonName {
        match self {
            Self::Put(client, _) | Self::Remove(client) => client,
        }
    }

    /// The client whose record is written, if one is.
    #[must_use]
    pub fn written(&self) -> Option<&MonName> {
        match self {
            Self::Put(client, _) => Some(client),
            Self::Remove(_) => None,
        }
    }
}
