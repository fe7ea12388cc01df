//! The key of a record, and all that depends on its kind. No other place asks which kind a record is.
//!
//! | kind | id | noticed | conveyed | told | outcomes |
//! |---|---|---|---|---|---|
//! | `nsm` | the name that stands for a client's lines | in the status monitor's directory, or asked for by SM_MON | as lines of the client's file there | by SM_NOTIFY | all of [`Outcome`](crate::Outcome) |

use std::cmp::Ordering;
use std::fmt;

use heirlock_nsm::MonName;
use heirlock_nsm::name::NameError;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// A client that a status monitor has to tell of a restart: its locks are those of NFSv3.
    Nsm,
}

/// The key of a record: its kind, and its id among the records of that kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKey {
    /// A client of the status monitor, by the name that stands for all its lines: its address, where that is known.
    Nsm(MonName),
}

impl RecordKey {
    /// The key that stands in a line of a file: of an NSM record it is the client's name.
    ///
    /// # Errors
    /// Where the text is no name that a record can have.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        MonName::parse(text).map(Self::Nsm)
    }

    /// The key as it stands in a line of a file.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Nsm(client) => client.as_str(),
        }
    }

    /// Of which kind the record is.
    #[must_use]
    pub const fn kind(&self) -> RecordKind {
        match self {
            Self::Nsm(_) => RecordKind::Nsm,
        }
    }

    /// The client whose record it is, as people, outcomes and the control socket name it.
    #[must_use]
    pub const fn client(&self) -> &MonName {
        match self {
            Self::Nsm(client) => client,
        }
    }

    /// The client that is told of a restart by a notification. `None` where a client of this kind finds out by itself.
    #[must_use]
    pub const fn told(&self) -> Option<&MonName> {
        match self {
            Self::Nsm(client) => Some(client),
        }
    }

    /// The client in whose file of the status monitor's directory the lines of this record are placed. `None` where a record of
    /// this kind has no place there.
    #[must_use]
    pub const fn conveyed_as(&self) -> Option<&MonName> {
        match self {
            Self::Nsm(client) => Some(client),
        }
    }
}

/// A key that is borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyRef<'a> {
    /// As [`RecordKey::Nsm`].
    Nsm(&'a MonName),
}

impl<'a> KeyRef<'a> {
    /// As [`RecordKey::client`].
    #[must_use]
    pub const fn client(self) -> &'a MonName {
        match self {
            Self::Nsm(client) => client,
        }
    }
}

/// What a record is found by: its key, or an id that is of one kind alone.
pub trait AsKey {
    /// The key.
    fn as_key(&self) -> KeyRef<'_>;
}

impl AsKey for RecordKey {
    fn as_key(&self) -> KeyRef<'_> {
        match self {
            Self::Nsm(client) => KeyRef::Nsm(client),
        }
    }
}

impl AsKey for MonName {
    fn as_key(&self) -> KeyRef<'_> {
        KeyRef::Nsm(self)
    }
}

impl<K: AsKey + ?Sized> AsKey for &K {
    fn as_key(&self) -> KeyRef<'_> {
        (*self).as_key()
    }
}

impl From<KeyRef<'_>> for RecordKey {
    fn from(key: KeyRef<'_>) -> Self {
        match key {
            KeyRef::Nsm(client) => Self::Nsm(client.clone()),
        }
    }
}

impl From<MonName> for RecordKey {
    fn from(client: MonName) -> Self {
        Self::Nsm(client)
    }
}

impl From<&MonName> for RecordKey {
    fn from(client: &MonName) -> Self {
        Self::Nsm(client.clone())
    }
}

impl From<&Self> for RecordKey {
    fn from(key: &Self) -> Self {
        key.clone()
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.client().fmt(f)
    }
}

impl Serialize for RecordKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for RecordKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

// The order of borrowed keys, by which a set is searched, is that of the keys themselves.
impl PartialEq for dyn AsKey + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.as_key() == other.as_key()
    }
}

impl Eq for dyn AsKey + '_ {}

impl PartialOrd for dyn AsKey + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn AsKey + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_key().cmp(&other.as_key())
    }
}

impl PartialEq<MonName> for RecordKey {
    fn eq(&self, other: &MonName) -> bool {
        self.as_key() == other.as_key()
    }
}
