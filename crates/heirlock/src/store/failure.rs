//! Failures of a store's files, and of the file in which a server remembers its store: the kind of each, and the sentence that a
//! person is told.

use std::io::{self, ErrorKind};
use std::path::Path;

use heirlock_core::store::{StoreError, StoreErrorKind};
use heirlock_core::store_identity::{OlderStore, WrongStore};
use heirlock_core::store_standing::NotInForce;
use heirlock_core::{Generation, ServiceName};
use thiserror::Error;

/// A failure of a file. Its sentence says where that file is.
#[derive(Debug, Error)]
pub(crate) enum FileError {
    /// Something in it could not be read or written.
    #[error("the store can't {action} {path}: {source}{}", remedy(.source))]
    Io {
        /// the step that was tried: "write", "sync", "link", …
        action: &'static str,
        /// where
        path: String,
        /// why
        #[source]
        source: io::Error,
    },
    /// There is no store where one should be: its volume isn't mounted, or it was never made.
    #[error("{path}: expected {}, found {found}: {}", meant(.expected.as_deref()), remedy_of_absence(.expected.as_deref()))]
    Absent {
        /// where
        path: String,
        /// the one that this server remembers, as it is shown to people
        expected: Option<String>,
        /// the finding
        found: String,
    },
    /// It is another store than the one that this server remembers.
    #[error(
        "{path}: {why} mount it; where the one that is there is the one you want, say 'heirlock enable --new-store'"
    )]
    Wrong {
        /// where
        path: String,
        /// the expectation and the finding
        #[source]
        why: WrongStore,
    },
    /// It is a store that no agent may use.
    #[error("{path}: {why}")]
    NotInForce {
        /// where
        path: String,
        /// why
        #[source]
        why: NotInForce,
    },
    /// It is not as the copy that changes it has left it.
    #[error(
        "{path}: expected the mark of this copy in it, found {found:?}: another copy is at work, or has ended"
    )]
    OtherCopy {
        /// where
        path: String,
        /// its line
        found: String,
    },
    /// It is an older copy of itself, or has lost something.
    #[error(
        "{path}: {why} put back the newest copy; to go on with what is there, say 'heirlock enable --new-store'"
    )]
    Older {
        /// where
        path: String,
        /// the expectation and the finding
        #[source]
        why: OlderStore,
    },
    /// The newest claim of a service can't be read, and no generation tells what it said.
    #[error(
        "{path}: expected claim {generation} of {service}, found {found}: the store can't say whose {service} is; put the file \
         back from a copy of the store; where there is none, see that no other server serves {service}, and say 'heirlock \
         adopt {service} --force', which claims it anew"
    )]
    Claim {
        /// of which service
        service: ServiceName,
        /// which
        generation: Generation,
        /// where it lies
        path: String,
        /// the fault
        found: String,
    },
    /// A file of it that was not written by this version, or not only by it.
    #[error(
        "{path}: expected JSON as this version writes it, found {found}; restore it, or remove it if it is no part of the store"
    )]
    Unreadable {
        /// which
        path: String,
        /// the fault
        found: String,
    },
    /// It is not what it should be.
    #[error("{path}: expected {expected}, found {found}; {remedy}")]
    Unexpected {
        /// where
        path: String,
        /// the expectation
        expected: String,
        /// the finding
        found: String,
        /// the remedy that an administrator has
        remedy: &'static str,
    },
}

/// Another store than this server's, in this folder.
pub(crate) fn wrong_store(path: &Path, why: WrongStore) -> StoreError {
    FileError::Wrong { path: path.display().to_string(), why }.into()
}

/// An older copy of this server's store, in this folder.
pub(crate) fn older_store(path: &Path, why: OlderStore) -> StoreError {
    FileError::Older { path: path.display().to_string(), why }.into()
}

fn meant(expected: Option<&str>) -> String {
    expected.map_or_else(|| "a folder that is a store".to_owned(), |identity| format!("store {identity}"))
}

fn remedy_of_absence(expected: Option<&str>) -> &'static str {
    match expected {
        Some(_) => "is its volume mounted? mount the volume it lies on",
        None => "mount the volume it lies on; where there never was a store, 'heirlock enable' makes one",
    }
}

impl FileError {
    /// Of which kind it is, for the callers of the store.
    pub(crate) fn kind(&self) -> StoreErrorKind {
        match self {
            Self::Io { source, .. } => match source.kind() {
                ErrorKind::InvalidInput
                | ErrorKind::IsADirectory
                | ErrorKind::NotADirectory
                | ErrorKind::FileTooLarge
                | ErrorKind::PermissionDenied => StoreErrorKind::Entry,
                _ => StoreErrorKind::Unavailable,
            },
            Self::Absent { expected, .. } => StoreErrorKind::Absent { is_remembered: expected.is_some() },
            Self::Wrong { .. } => StoreErrorKind::Wrong,
            Self::NotInForce { .. } | Self::OtherCopy { .. } => StoreErrorKind::NotInForce,
            Self::Older { .. } => StoreErrorKind::Older,
            Self::Claim { service, generation, .. } => {
                StoreErrorKind::Claim { service: service.clone(), generation: *generation }
            }
            Self::Unreadable { .. } => StoreErrorKind::Entry,
            Self::Unexpected { .. } => StoreErrorKind::Unexpected,
        }
    }

    /// See [`StoreErrorKind::is_of_one_entry`].
    pub(crate) fn is_of_one_entry(&self) -> bool {
        self.kind().is_of_one_entry()
    }

    /// It is no file at all: nothing that heirlock made.
    pub(crate) fn is_no_file(&self) -> bool {
        let is_none = |kind| matches!(kind, ErrorKind::InvalidInput | ErrorKind::IsADirectory);
        matches!(self, Self::Io { source, .. } if is_none(source.kind()))
    }

    /// There is nothing of that name.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == ErrorKind::NotFound)
    }
}

impl From<FileError> for StoreError {
    fn from(error: FileError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "; make room: clients are unprotected until then"
        }
        ErrorKind::PermissionDenied => "; give the folder to the user the agent runs as (mode 0700)",
        // The finding itself says what to do.
        ErrorKind::InvalidInput | ErrorKind::FileTooLarge | ErrorKind::IsADirectory => "",
        ErrorKind::NotADirectory => "; a folder belongs there: remove what is in its place",
        ErrorKind::NotFound => "; see whether its volume is mounted, and what became of that file",
        ErrorKind::ReadOnlyFilesystem => "; mount the volume read-write",
        ErrorKind::StaleNetworkFileHandle => "; unmount the volume and mount it again",
        _ => {
            "; see what the kernel says of that disk or volume (dmesg): clients are unprotected until it is mended"
        }
    }
}

#[cfg(test)]
mod tests {
    use heirlock_core::store_identity::{Found, Kept};

    use super::*;

    #[test]
    fn a_failure_of_a_file_is_of_one_entry_where_it_says_nothing_of_the_next_file() {
        let of = |kind: ErrorKind| {
            let error = FileError::Io { action: "read", path: "/x".into(), source: kind.into() };
            (error.kind(), error.is_of_one_entry(), error.is_no_file(), error.is_missing())
        };
        for kind in [ErrorKind::InvalidInput, ErrorKind::IsADirectory] {
            assert_eq!(of(kind), (StoreErrorKind::Entry, true, true, false), "{kind}");
        }
        for kind in [ErrorKind::NotADirectory, ErrorKind::FileTooLarge, ErrorKind::PermissionDenied] {
            assert_eq!(of(kind), (StoreErrorKind::Entry, true, false, false), "{kind}");
        }
        for kind in [ErrorKind::NotFound, ErrorKind::StorageFull, ErrorKind::StaleNetworkFileHandle] {
            let is_missing = kind == ErrorKind::NotFound;
            assert_eq!(of(kind), (StoreErrorKind::Unavailable, false, false, is_missing), "{kind}");
        }
    }

    #[test]
    fn a_failure_keeps_its_sentence_and_its_kind_when_it_leaves_the_store() {
        let service = ServiceName::parse("nfs").unwrap();
        let (path, generation) = (|| "/x".to_owned(), Generation(4));
        let wrong = WrongStore { expected: None, found: Found { identity: None, kept: Kept::Nothing } };
        let older = OlderStore { service: service.clone(), known: generation, found: None };
        let all = [
            (
                FileError::Io { action: "write", path: path(), source: io::Error::other("no") },
                StoreErrorKind::Unavailable,
                "the store can't write /x: no; see what the kernel says of that disk or volume (dmesg): clients are \
                 unprotected until it is mended",
            ),
            (
                FileError::Absent { path: path(), expected: None, found: "nothing".into() },
                StoreErrorKind::Absent { is_remembered: false },
                "/x: expected a folder that is a store, found nothing: mount the volume it lies on; where there never was a \
                 store, 'heirlock enable' makes one",
            ),
            (
                FileError::Absent { path: path(), expected: Some("7f…".into()), found: "nothing".into() },
                StoreErrorKind::Absent { is_remembered: true },
                "/x: expected store 7f…, found nothing: is its volume mounted? mount the volume it lies on",
            ),
            (
                FileError::Wrong { path: path(), why: wrong },
                StoreErrorKind::Wrong,
                "/x: expected the store that this server had before, found a new one: is its volume mounted? mount it; where \
                 the one that is there is the one you want, say 'heirlock enable --new-store'",
            ),
            (
                FileError::Older { path: path(), why: older },
                StoreErrorKind::Older,
                "/x: expected generation 4 of nfs or a newer one, found none: did the store lose it? put back the newest \
                 copy; to go on with what is there, say 'heirlock enable --new-store'",
            ),
            (
                FileError::Claim {
                    service: service.clone(),
                    generation,
                    path: path(),
                    found: "nothing".into(),
                },
                StoreErrorKind::Claim { service, generation },
                "/x: expected claim 4 of nfs, found nothing: the store can't say whose nfs is; put the file back from a copy \
                 of the store; where there is none, see that no other server serves nfs, and say 'heirlock adopt nfs \
                 --force', which claims it anew",
            ),
            (
                FileError::Unreadable { path: path(), found: "torn".into() },
                StoreErrorKind::Entry,
                "/x: expected JSON as this version writes it, found torn; restore it, or remove it if it is no part of the \
                 store",
            ),
            (
                FileError::Unexpected {
                    path: path(),
                    expected: "this".into(),
                    found: "that".into(),
                    remedy: "mend it",
                },
                StoreErrorKind::Unexpected,
                "/x: expected this, found that; mend it",
            ),
        ];
        for (error, kind, sentence) in all {
            assert_eq!(StoreError::from(error), StoreError::new(kind, sentence));
        }
    }
}
