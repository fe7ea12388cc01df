//! Whether a store is in force: each store says so beside its identity, in the one line that every call of it looks at.
//!
//! A store that is moved to another place keeps its identity, so the identity alone does not tell which of the two places counts.
//! At every moment at most one of them is in force ([`Standing::InForce`]), for the store that is left is closed before the copy
//! of it is opened.

use std::fmt;

use thiserror::Error;

use crate::limits::{COPY_NAME_CHARS, STANDING_BYTES_MAX, STANDING_PLACE_CHARS_MAX};
use crate::store_identity::StoreIdentity;

/// Begins the line of a store that is in force. Earlier versions know this one alone, and refuse a store with another one.
const IN_FORCE: &str = "heirlock store identity, format 1: ";
/// Begins the line of a copy that is not finished.
const FILLING: &str = "heirlock store that is being copied, format 1: ";
/// Begins the line of a store that was closed, for a copy of it.
const MOVED: &str = "heirlock store that was moved, format 1: ";

/// A name that no other copy has: what one run of a copy, or one pair of stores, is told from another by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyName(u64);

impl CopyName {
    /// The name that these random bits stand for.
    #[must_use]
    pub fn of(random: u64) -> Self {
        Self(random)
    }

    /// Another name of the same copy.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    fn parse(text: &str) -> Option<Self> {
        let name = u64::from_str_radix(text, 16).ok().map(Self)?;
        (name.to_string() == text).then_some(name)
    }
}

impl fmt::Display for CopyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0width$x}", self.0, width = COPY_NAME_CHARS)
    }
}

/// Which store it is, and whether it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Agents use it.
    InForce(StoreIdentity),
    /// It is filled from the store of this identity, which is in force until it is closed.
    Filling {
        /// the identity of the store that is copied
        identity: StoreIdentity,
        /// the copy: this store alone may be opened for it
        pair: CopyName,
        /// the run of the copy that fills it now: a run before that can't change it any more
        run: CopyName,
    },
    /// It is closed: it was moved, or is being moved in this moment.
    Moved {
        /// its identity
        identity: StoreIdentity,
        /// the copy that it was closed for
        pair: CopyName,
        /// the run of the copy that closed it
        run: CopyName,
        /// the other store, in words. They are for people: nothing is opened by them
        to: String,
    },
}

impl Standing {
    /// A store that is closed for a copy to this place. What is no part of a line is left out of the place.
    #[must_use]
    pub fn moved(identity: &StoreIdentity, [pair, run]: [CopyName; 2], to: &str) -> Self {
        let to = to.trim().chars().filter(|c| !c.is_control()).take(STANDING_PLACE_CHARS_MAX).collect();
        Self::Moved { identity: identity.clone(), pair, run, to }
    }

    /// The identity that it has, or will have.
    #[must_use]
    pub fn identity(&self) -> &StoreIdentity {
        match self {
            Self::InForce(identity) | Self::Filling { identity, .. } | Self::Moved { identity, .. } => {
                identity
            }
        }
    }

    /// The line that a store keeps.
    #[must_use]
    pub fn line(&self) -> String {
        match self {
            Self::InForce(identity) => format!("{IN_FORCE}{}\n", identity.as_str()),
            Self::Filling { identity, pair, run } => format!("{FILLING}{} {pair} {run}\n", identity.as_str()),
            Self::Moved { identity, pair, run, to } => {
                format!("{MOVED}{} {pair} {run} {to}\n", identity.as_str())
            }
        }
    }

    /// A line as a store keeps it. `None` where it is none.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(line).ok().filter(|text| text.len() <= STANDING_BYTES_MAX)?;
        let text = text.strip_suffix('\n').filter(|text| !text.chars().any(char::is_control))?;
        if let Some(identity) = text.strip_prefix(IN_FORCE) {
            return StoreIdentity::parse(identity).ok().map(Self::InForce);
        }
        if let Some(rest) = text.strip_prefix(FILLING) {
            let mut words = rest.splitn(3, ' ');
            let identity = StoreIdentity::parse(words.next()?).ok()?;
            let (pair, run) = (CopyName::parse(words.next()?)?, CopyName::parse(words.next()?)?);
            return Some(Self::Filling { identity, pair, run });
        }
        let mut words = text.strip_prefix(MOVED)?.splitn(4, ' ');
        let identity = StoreIdentity::parse(words.next()?).ok()?;
        let names = [CopyName::parse(words.next()?)?, CopyName::parse(words.next()?)?];
        let moved = Self::moved(&identity, names, words.next()?);
        // A line that this version would write otherwise is no line of it.
        (moved.line().as_bytes() == line).then_some(moved)
    }

    /// The beginning of the line of a store that is in force, for people.
    #[must_use]
    pub fn expected_text() -> &'static str {
        IN_FORCE.trim_end()
    }

    /// The identity, where the store is in force.
    ///
    /// # Errors
    /// Why it is not.
    pub fn in_force(self) -> Result<StoreIdentity, NotInForce> {
        match self {
            Self::InForce(identity) => Ok(identity),
            Self::Filling { identity, .. } => Err(NotInForce::Filling(identity)),
            Self::Moved { identity, to, .. } => Err(NotInForce::Moved { identity, to }),
        }
    }
}

/// A store that no agent may use.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotInForce {
    /// It is a copy that is not finished.
    #[error(
        "expected a store that is in force, found an unfinished copy of store {0}: the one that it is copied from counts; repeat \
         'heirlock store copy', which goes on with it"
    )]
    Filling(StoreIdentity),
    /// It was closed.
    #[error(
        "store {identity} was moved to {to}, and nothing is kept here any more: set [store] in this server's configuration to that \
         place, and restart its agent; where 'heirlock store copy' has not ended, repeat it, or take it back with --give-up"
    )]
    Moved {
        /// its identity
        identity: StoreIdentity,
        /// where it is now
        to: String,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity() -> StoreIdentity {
        StoreIdentity::of(7 << 124)
    }

    fn all(place: &str) -> [Standing; 3] {
        let (pair, run) = (CopyName::of(1), CopyName::of(u64::MAX));
        [
            Standing::InForce(identity()),
            Standing::Filling { identity: identity(), pair, run },
            Standing::moved(&identity(), [pair, run], place),
        ]
    }

    #[test]
    fn a_store_in_force_has_the_line_that_earlier_versions_know_and_no_other_has_it() {
        let [in_force, filling, moved] = all("etcd at x");
        assert_eq!(in_force.line(), format!("heirlock store identity, format 1: 7{:031}\n", 0));
        for other in [filling, moved] {
            assert!(!other.line().starts_with(IN_FORCE), "{}", other.line());
        }
    }

    #[test]
    fn a_store_that_is_not_in_force_says_where_the_one_is_that_counts() {
        let [in_force, filling, moved] = all("etcd at x, below /heirlock/");
        assert_eq!(in_force.in_force(), Ok(identity()));
        let filling = filling.in_force().unwrap_err().to_string();
        assert!(filling.contains("unfinished copy of store 70000000…"), "{filling}");
        let moved = moved.in_force().unwrap_err().to_string();
        assert!(moved.contains("store 70000000… was moved to etcd at x, below /heirlock/"), "{moved}");
    }

    proptest! {
        #[test]
        fn each_standing_is_read_as_it_was_written(place: String, pair: u64, run: u64, bits: u128) {
            let (identity, pair, run) = (StoreIdentity::of(bits), CopyName::of(pair), CopyName::of(run));
            for standing in [
                Standing::InForce(identity.clone()),
                Standing::Filling { identity: identity.clone(), pair, run },
                Standing::moved(&identity, [pair, run], &place),
            ] {
                prop_assert_eq!(Standing::parse(standing.line().as_bytes()), Some(standing));
            }
        }

        #[test]
        fn no_line_that_is_found_makes_it_panic_and_none_is_read_as_another_one(line: Vec<u8>) {
            if let Some(standing) = Standing::parse(&line) {
                prop_assert_eq!(standing.line().into_bytes(), line.clone());
            }
            let mut long = all("x")[2].line().into_bytes();
            long.splice(long.len() - 1..long.len() - 1, line);
            if let Some(standing) = Standing::parse(&long) {
                prop_assert_eq!(standing.line().into_bytes(), long);
            }
        }
    }
}
