//! Whether the store that is found is the one that is meant.
//!
//! Where a volume is not mounted there is an empty folder, and a store that is made in it looks like one whose services
//! were never claimed: an adoption from it tells no client, and state numbers begin anew (I5). So each store has an
//! identity, made at its creation, and each server remembers the identity of its store and how far the services in it had
//! come. A store that is an older copy of itself has the right identity and too low a generation.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::names::{Generation, ServiceName};

/// Hexadecimal digits of an identity: 128 bits, so that two stores never draw the same.
pub const IDENTITY_DIGITS: usize = 32;

/// Digits that are shown to people: enough to tell the stores of one site apart.
const SHOWN_DIGITS: usize = 8;

/// The identity of a store: drawn at its creation, never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StoreIdentity(String);

/// A text that is no identity.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a store's identity has {IDENTITY_DIGITS} hexadecimal digits, found {0:?}")]
pub struct NoIdentity(String);

impl StoreIdentity {
    /// The identity that these random bits stand for.
    #[must_use]
    pub fn of(random: u128) -> Self {
        Self(format!("{random:032x}"))
    }

    /// An identity as it is written.
    ///
    /// # Errors
    /// Where the text is anything but [`IDENTITY_DIGITS`] lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, NoIdentity> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == IDENTITY_DIGITS && text.bytes().all(is_digit) {
            return Ok(Self(text.to_owned()));
        }
        // An error must not carry all that was written in the place of an identity.
        Err(NoIdentity(text.chars().take(2 * IDENTITY_DIGITS).collect()))
    }

    /// All of its digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The first digits, for people.
impl fmt::Display for StoreIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", &self.0[..SHOWN_DIGITS])
    }
}

impl TryFrom<String> for StoreIdentity {
    type Error = NoIdentity;

    fn try_from(text: String) -> Result<Self, NoIdentity> {
        Self::parse(&text)
    }
}

impl From<StoreIdentity> for String {
    fn from(identity: StoreIdentity) -> String {
        identity.0
    }
}

/// The claims in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Nothing: it is new.
    Nothing,
    /// Only what servers serve under their own names.
    HostsAlone,
    /// At least one service that moves.
    Services,
}

impl Kept {
    /// Of a store in which these services are claimed.
    #[must_use]
    pub fn of<'a>(services: impl IntoIterator<Item = &'a ServiceName>) -> Self {
        services.into_iter().fold(Self::Nothing, |kept, service| match (kept, service.is_host()) {
            (Self::Services, _) | (_, false) => Self::Services,
            (_, true) => Self::HostsAlone,
        })
    }
}

/// A store that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its identity; a store of an earlier version has none.
    pub identity: Option<StoreIdentity>,
    /// The claims in it.
    pub kept: Kept,
}

/// A server's memory of its store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remembered {
    /// Its identity.
    pub identity: Option<StoreIdentity>,
    /// A service that moves was seen in it. Before that the server may have made it in the place of a volume that the
    /// active server had at that moment.
    pub confirmed: bool,
    /// This server had a store before it could remember which (it was enabled by an earlier version).
    pub had_one: bool,
}

/// The answer for a store that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is the one.
    Ours,
    /// It is the one from now on.
    Remember(StoreIdentity),
    /// It is the one from now on, and gets an identity first.
    Name,
    /// It is another one: nothing may be written to it.
    Refused(WrongStore),
}

/// Another store than the one that is meant.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct WrongStore {
    /// The one that this server remembers.
    pub expected: Option<StoreIdentity>,
    /// The one that is there.
    pub found: Found,
}

impl fmt::Display for WrongStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.expected {
            Some(expected) => write!(f, "expected store {expected}, found ")?,
            None => write!(f, "expected the store that this server had before, found ")?,
        }
        match (&self.found.identity, self.found.kept) {
            (_, Kept::Nothing) => write!(f, "a new one: is its volume mounted?"),
            (Some(found), _) => write!(f, "store {found}: is the right volume mounted?"),
            (None, _) => write!(f, "one without an identity: is the right volume mounted?"),
        }
    }
}

/// Whether a server may use the store that is there.
#[must_use]
pub fn judge(remembered: &Remembered, found: &Found) -> Verdict {
    let refused = || {
        let expected = remembered.identity.clone();
        Verdict::Refused(WrongStore { expected, found: found.clone() })
    };
    match (&remembered.identity, &found.identity) {
        (Some(expected), Some(identity)) if expected == identity => Verdict::Ours,
        // A cold standby is put under guard while the active server has the volume. A store that was made then gives way
        // to the one on the volume.
        (Some(_), Some(identity)) if !remembered.confirmed && found.kept == Kept::Services => {
            Verdict::Remember(identity.clone())
        }
        (Some(_), _) => refused(),
        (None, Some(identity)) => Verdict::Remember(identity.clone()),
        // Every agent claims something, so one in which nothing is claimed is none that this server had.
        (None, None) if remembered.had_one && found.kept == Kept::Nothing => refused(),
        (None, None) => Verdict::Name,
    }
}

/// The step of 'heirlock enable' for the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Use the one that is there, as [`judge`] says: never [`Verdict::Refused`].
    Use(Verdict),
    /// Use the one that is there in spite of what is remembered of it or of another one: the operator said so.
    Accept,
    /// Make one.
    Make,
    /// Do nothing: the store is not here now, and the operator knows it.
    Without,
    /// Stop before anything is changed.
    Refused(Refusal),
}

/// The operator's word on the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Word {
    /// Nothing.
    #[default]
    None,
    /// `--new-store`: the one that is there, or a new one, is the store from now on.
    NewStore,
    /// `--without-store`: the store is on a volume that this server does not have now.
    WithoutStore,
}

/// Why 'heirlock enable' does nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Another store is there.
    Wrong(WrongStore),
    /// None is there, and this server had one.
    Gone(Option<StoreIdentity>),
    /// None is there, and a volume that belongs there is not mounted.
    Unmounted,
}

/// The step of 'heirlock enable' for the store. `unmounted`: a volume that belongs at or above its folder is not mounted.
#[must_use]
pub fn choose(remembered: &Remembered, found: Option<&Found>, unmounted: bool, word: Word) -> Choice {
    let verdict = found.map(|found| judge(remembered, found));
    match (verdict, word) {
        // Also the right one where it is an older copy of itself: generations that it lacks are no longer expected.
        (Some(_), Word::NewStore) => Choice::Accept,
        (Some(Verdict::Refused(wrong)), Word::None) => Choice::Refused(Refusal::Wrong(wrong)),
        (Some(Verdict::Refused(_)) | None, Word::WithoutStore) => Choice::Without,
        (Some(verdict), _) => Choice::Use(verdict),
        (None, Word::NewStore) => Choice::Make,
        (None, Word::None) if unmounted => Choice::Refused(Refusal::Unmounted),
        (None, Word::None) if remembered.identity.is_some() || remembered.had_one => {
            Choice::Refused(Refusal::Gone(remembered.identity.clone()))
        }
        (None, Word::None) => Choice::Make,
    }
}

/// The store shows less of a service than this server knows of: it is an older copy of itself, or it lost something.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct OlderStore {
    /// The service.
    pub service: ServiceName,
    /// The generation that this server knows of.
    pub known: Generation,
    /// The newest one in the store.
    pub found: Option<Generation>,
}

impl fmt::Display for OlderStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, known, found } = self;
        write!(f, "expected generation {known} of {service} or a newer one, found ")?;
        match found {
            Some(found) => write!(f, "generation {found}: is the store an older copy of itself?"),
            None => write!(f, "none: did the store lose it?"),
        }
    }
}

/// Whether the store shows at least the generation of a service that this server knows of. Acting on less would tell
/// clients a state number for the second time (I5).
///
/// # Errors
/// Where it shows less.
pub fn check_age(
    service: &ServiceName,
    known: Option<Generation>,
    found: Option<Generation>,
) -> Result<(), OlderStore> {
    match known {
        Some(known) if found < Some(known) => Err(OlderStore { service: service.clone(), known, found }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(n: u128) -> StoreIdentity {
        StoreIdentity::of(n)
    }

    fn found(n: u128, kept: Kept) -> Found {
        Found { identity: Some(identity(n)), kept }
    }

    fn remembered(n: u128, confirmed: bool) -> Remembered {
        Remembered { identity: Some(identity(n)), confirmed, had_one: true }
    }

    #[test]
    fn an_identity_is_32_digits_and_shows_eight() {
        let drawn = identity(0x7f3a_9c01_0000_0000_0000_0000_0000_00ff);
        assert_eq!(drawn.to_string(), "7f3a9c01…");
        assert_eq!(StoreIdentity::parse(drawn.as_str()), Ok(drawn.clone()));
        let long = "7".repeat(4096);
        for text in
            ["", "7f3a", "7F3A9C01000000000000000000000000", "../../../../etc/passwd0000000000", &long]
        {
            let error = StoreIdentity::parse(text).unwrap_err().to_string();
            assert!(error.contains("32 hexadecimal digits") && error.len() < 200, "{error}");
        }
    }

    #[test]
    fn the_claims_in_a_store_are_told_by_its_services() {
        let host = ServiceName::host(&"nfs-a".parse().unwrap());
        let nfs = ServiceName::parse("nfs").unwrap();
        assert_eq!(Kept::of([]), Kept::Nothing);
        assert_eq!(Kept::of([&host]), Kept::HostsAlone);
        assert_eq!(Kept::of([&nfs, &host]), Kept::Services);
    }

    #[test]
    fn another_store_is_refused_in_one_sentence() {
        let sentence = |remembered: &Remembered, found: &Found| match judge(remembered, found) {
            Verdict::Refused(wrong) => wrong.to_string(),
            other => panic!("{other:?}"),
        };
        let ours = remembered(7 << 124, true);
        assert_eq!(
            sentence(&ours, &found(9 << 124, Kept::Nothing)),
            "expected store 70000000…, found a new one: is its volume mounted?"
        );
        assert_eq!(
            sentence(&ours, &found(9 << 124, Kept::Services)),
            "expected store 70000000…, found store 90000000…: is the right volume mounted?"
        );
        let unnamed = |kept| Found { identity: None, kept };
        assert_eq!(
            sentence(&ours, &unnamed(Kept::HostsAlone)),
            "expected store 70000000…, found one without an identity: is the right volume mounted?"
        );
        let upgraded = Remembered { had_one: true, ..Remembered::default() };
        assert_eq!(
            sentence(&upgraded, &unnamed(Kept::Nothing)),
            "expected the store that this server had before, found a new one: is its volume mounted?"
        );
    }

    #[test]
    fn the_store_that_is_met_first_is_remembered_and_an_earlier_versions_store_gets_an_identity() {
        let nothing = Remembered::default();
        assert_eq!(judge(&nothing, &found(7, Kept::Nothing)), Verdict::Remember(identity(7)));
        assert_eq!(judge(&remembered(7, true), &found(7, Kept::Nothing)), Verdict::Ours);
        let upgraded = Remembered { had_one: true, ..Remembered::default() };
        for (remembered, kept) in
            [(&nothing, Kept::Nothing), (&nothing, Kept::Services), (&upgraded, Kept::HostsAlone)]
        {
            assert_eq!(judge(remembered, &Found { identity: None, kept }), Verdict::Name, "{kept:?}");
        }
    }

    #[test]
    fn a_store_that_a_standby_made_before_it_saw_the_volume_gives_way_to_the_volumes() {
        let made = remembered(7, false);
        assert_eq!(judge(&made, &found(9, Kept::Services)), Verdict::Remember(identity(9)));
        for kept in [Kept::Nothing, Kept::HostsAlone] {
            assert!(matches!(judge(&made, &found(9, kept)), Verdict::Refused(_)), "{kept:?}");
        }
    }

    #[test]
    fn enable_makes_a_store_only_where_there_never_was_one_or_where_it_is_told_to() {
        let (never, ours) = (Remembered::default(), remembered(7, true));
        let upgraded = Remembered { had_one: true, ..Remembered::default() };
        assert_eq!(choose(&never, None, false, Word::None), Choice::Make);
        assert_eq!(choose(&never, None, true, Word::None), Choice::Refused(Refusal::Unmounted));
        assert_eq!(choose(&ours, None, false, Word::None), Choice::Refused(Refusal::Gone(Some(identity(7)))));
        assert_eq!(choose(&upgraded, None, false, Word::None), Choice::Refused(Refusal::Gone(None)));
        for remembered in [&never, &ours, &upgraded] {
            for unmounted in [false, true] {
                assert_eq!(choose(remembered, None, unmounted, Word::NewStore), Choice::Make);
                assert_eq!(choose(remembered, None, unmounted, Word::WithoutStore), Choice::Without);
            }
        }
    }

    #[test]
    fn enable_uses_the_store_that_is_there_and_accepts_another_one_where_it_is_told_to() {
        let (ours, other) = (remembered(7, true), found(9, Kept::Services));
        for word in [Word::None, Word::WithoutStore] {
            let own = found(7, Kept::Services);
            assert_eq!(choose(&ours, Some(&own), false, word), Choice::Use(Verdict::Ours), "{word:?}");
        }
        let refused = choose(&ours, Some(&other), false, Word::None);
        assert!(matches!(refused, Choice::Refused(Refusal::Wrong(_))), "{refused:?}");
        for found in [&other, &found(7, Kept::Services)] {
            assert_eq!(choose(&ours, Some(found), false, Word::NewStore), Choice::Accept);
        }
        assert_eq!(choose(&ours, Some(&other), false, Word::WithoutStore), Choice::Without);
    }

    #[test]
    fn a_store_that_shows_less_than_is_known_is_an_older_one() {
        let nfs = ServiceName::parse("nfs").unwrap();
        let check = |known: Option<u64>, found: Option<u64>| {
            check_age(&nfs, known.map(Generation), found.map(Generation))
        };
        for (known, found) in [(None, None), (None, Some(1)), (Some(4), Some(4)), (Some(4), Some(9))] {
            assert_eq!(check(known, found), Ok(()), "{known:?} {found:?}");
        }
        assert_eq!(
            check(Some(4), Some(2)).unwrap_err().to_string(),
            "expected generation 4 of nfs or a newer one, found generation 2: is the store an older copy of itself?"
        );
        assert_eq!(
            check(Some(4), None).unwrap_err().to_string(),
            "expected generation 4 of nfs or a newer one, found none: did the store lose it?"
        );
    }
}
