//! The bytes of a record.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Weak};

/// The bytes of a record, as its kind writes them. A clone is the same bytes: they are kept once, however many services keep
/// the record.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record(Arc<[u8]>);

impl Record {
    /// The same record, which this does not keep.
    #[must_use]
    pub fn downgrade(&self) -> WeakRecord {
        WeakRecord(Arc::downgrade(&self.0))
    }

    /// Whether the two are kept once.
    #[must_use]
    pub fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A record that is kept only as long as another one holds it.
#[derive(Debug, Clone)]
pub struct WeakRecord(Weak<[u8]>);

impl WeakRecord {
    /// The record, where it is kept still.
    #[must_use]
    pub fn upgrade(&self) -> Option<Record> {
        self.0.upgrade().map(Record)
    }
}

impl Deref for Record {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Record {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Record {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<&[u8]> for Record {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl From<&str> for Record {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

impl PartialEq<[u8]> for Record {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl<const N: usize> PartialEq<[u8; N]> for Record {
    fn eq(&self, other: &[u8; N]) -> bool {
        **self == *other
    }
}

impl PartialEq<Vec<u8>> for Record {
    fn eq(&self, other: &Vec<u8>) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}
