//! Why a store failed: of which kind the failure is, for the caller that has to go on, and what a person is told of it.

use thiserror::Error;

use crate::claim::Claim;
use crate::names::{Generation, ServiceName};

/// A store failed. The sentence is made by the store, which knows what it tried, where, what it found and what an
/// administrator can do. No caller reads it: the consequences of a failure depend on its kind alone.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{sentence}")]
pub struct StoreError {
    kind: StoreErrorKind,
    sentence: String,
}

/// Of which kind a failure is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The store can't be reached, read or written now: a disk, a volume or a network fails.
    Unavailable,
    /// A call took longer than it may. Its request may be done all the same.
    TimedOut,
    /// There is no store where one should be: its volume isn't mounted, or it was never made.
    Absent {
        /// this server remembers one
        is_remembered: bool,
    },
    /// It is another store than the one that this server remembers.
    Wrong,
    /// It is a store that no agent may use: it was moved to another place, or is a copy that is not finished.
    NotInForce,
    /// It is an older copy of the store that this server remembers, or has lost something.
    Older,
    /// The service is another server's by now: nothing was changed. That is no failure of the store.
    NotOwner,
    /// The newest claim of a service can't be read, and no generation tells what it said.
    Claim {
        /// of which service
        service: ServiceName,
        /// which
        generation: Generation,
    },
    /// One entry can't be read or changed: it is too long, or not this server's to read, or nothing that a store writes.
    Entry,
    /// The store, or the entry that was asked for, is not as it should be.
    Unexpected,
}

impl StoreError {
    /// A failure of this kind, in a sentence for people.
    #[must_use]
    pub fn new(kind: StoreErrorKind, sentence: impl Into<String>) -> Self {
        Self { kind, sentence: sentence.into() }
    }

    /// The failure of a commit to a service that another server has claimed meanwhile.
    #[must_use]
    pub fn not_owner(service: &ServiceName, by: &Claim, newest: &Claim) -> Self {
        let sentence = format!(
            "{service}: expected that it is held by {}, under claim {}, found that {} has claimed it as generation {}; nothing was \
             changed",
            by.owner, by.generation, newest.owner, newest.generation
        );
        Self::new(StoreErrorKind::NotOwner, sentence)
    }

    /// Of which kind it is.
    #[must_use]
    pub fn kind(&self) -> &StoreErrorKind {
        &self.kind
    }

    /// See [`StoreErrorKind::is_of_one_entry`].
    #[must_use]
    pub fn is_of_one_entry(&self) -> bool {
        self.kind.is_of_one_entry()
    }

    /// No store is there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Absent { .. })
    }

    /// The service is another server's by now.
    #[must_use]
    pub fn is_not_owner(&self) -> bool {
        self.kind == StoreErrorKind::NotOwner
    }

    /// The store did not answer in time. The request may be carried out all the same.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.kind == StoreErrorKind::TimedOut
    }

    /// The same call may succeed a moment later: the store can't be reached, read or written now, or did not answer in time.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Unavailable | StoreErrorKind::TimedOut)
    }

    /// The claim that can't be read, where that is the failure.
    #[must_use]
    pub fn lost_claim(&self) -> Option<Generation> {
        match &self.kind {
            StoreErrorKind::Claim { generation, .. } => Some(*generation),
            _ => None,
        }
    }

    /// There is a store, and this server may not use it. That is no failure of the store.
    #[must_use]
    pub fn is_of_another_store(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Wrong | StoreErrorKind::NotInForce | StoreErrorKind::Older)
    }
}

impl StoreErrorKind {
    /// One entry is not what it should be. That says nothing of the next one.
    #[must_use]
    pub fn is_of_one_entry(&self) -> bool {
        match self {
            Self::Claim { .. } | Self::Entry => true,
            Self::Unavailable
            | Self::TimedOut
            | Self::Absent { .. }
            | Self::Wrong
            | Self::NotInForce
            | Self::Older
            | Self::NotOwner
            | Self::Unexpected => false,
        }
    }
}
