//! One transaction of the store: its condition is always that the store is there, and is the one that is expected.

use heirlock_core::store::{StoreError, StoreErrorKind};
use heirlock_core::store_identity::{StoreIdentity, WrongStore};
use heirlock_core::store_standing::Standing;
use heirlock_core::{Generation, ServiceName};

use super::EtcdStore;
use super::client::Purpose;
use super::failure::CallError;
use super::identity::FORMAT;
use super::wire::{Compare, Done, Op, Range, Read, Txn};
use crate::limits::FOUND_CHARS_MAX;

/// The answer to a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    /// Its conditions held, and it was made.
    pub(super) held: bool,
    /// The results of the side that was taken.
    pub(super) done: Vec<Done>,
    /// The number of the last change of etcd.
    pub(super) revision: u64,
    /// An earlier attempt may have been carried out. Where the conditions did not hold, that may be why.
    pub(super) was_repeated: bool,
}

impl Made {
    /// What was read, in order.
    pub(super) fn reads(self) -> impl Iterator<Item = Read> {
        self.done.into_iter().filter_map(|done| match done {
            Done::Read(read) => Some(read),
            Done::Changed => None,
        })
    }
}

/// Readings that each transaction begins with on its other side, by which it tells whether the store is the right one.
const OF_THE_STORE: usize = 2;

impl EtcdStore {
    /// Makes a transaction in the store that is expected.
    pub(super) fn make(&self, txn: Txn, purpose: Purpose) -> Result<Made, StoreError> {
        self.ask(txn, purpose).map_err(|error| error.at(self.shown()))?
    }

    /// The same. A failure of etcd is told apart from that of a store that is another one.
    pub(super) fn ask(&self, txn: Txn, purpose: Purpose) -> Result<Result<Made, StoreError>, CallError> {
        let expected = self.expected().clone();
        let condition = match &expected {
            // A store that was whole when it was met has its format.
            Some(expected) => Compare::Value(self.keys.identity(), expected.line().into_bytes()),
            None => Compare::Value(self.keys.format(), FORMAT.as_bytes().to_vec()),
        };
        let mut txn = txn;
        txn.compares.insert(0, condition);
        let of_the_store = [self.keys.format(), self.keys.identity()].map(|key| Op::Range(Range::key(key)));
        txn.otherwise.splice(0..0, of_the_store);
        let answered = self.client.txn(&txn, purpose)?;
        let was_repeated = answered.was_repeated;
        let (revision, held, mut done) =
            (answered.answer.revision, answered.answer.succeeded, answered.answer.done);
        if !held {
            let rest = done.split_off(OF_THE_STORE.min(done.len()));
            let mut found = done.into_iter().map(|done| match done {
                Done::Read(read) => read.value(),
                Done::Changed => None,
            });
            let (format, identity) = (found.next().flatten(), found.next().flatten());
            if let Err(error) = self.check(expected.as_ref(), format.as_deref(), identity.as_deref()) {
                return Ok(Err(error));
            }
            done = rest;
        }
        Ok(Ok(Made { held, done, revision, was_repeated }))
    }

    /// Reads without a condition but that.
    pub(super) fn read<const N: usize>(
        &self,
        ranges: [Range; N],
        purpose: Purpose,
    ) -> Result<(u64, [Read; N]), StoreError> {
        let then = ranges.into_iter().map(Op::Range).collect();
        let made = self.make(Txn { then, ..Txn::default() }, purpose)?;
        let (revision, mut reads) = (made.revision, made.reads());
        Ok((revision, std::array::from_fn(|_| reads.next().unwrap_or_default())))
    }

    /// Fails unless the store is there and is the one that is expected.
    fn check(
        &self,
        expected: Option<&Standing>,
        format: Option<&[u8]>,
        identity: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        if let Some(expected) = expected {
            if identity == Some(expected.line().as_bytes()) {
                return Ok(());
            }
            // Where nothing is there, it is no other store.
            self.check(None, format, identity).map_err(|error| self.absent_if(error))?;
            if !matches!(expected, Standing::InForce(_)) {
                return Err(self.other_copy(identity.and_then(Standing::parse).as_ref()));
            }
            let why = WrongStore { expected: Some(expected.identity().clone()), found: self.look_any()? };
            return Err(self.wrong_store(&why));
        }
        match format {
            Some(found) if found == FORMAT.as_bytes() => Ok(()),
            Some(found) => {
                let found = shortened(found);
                Err(self.unexpected_at(&format!(
                    "expected {:?}, found {found:?} in the key {}; use the version that made this store",
                    FORMAT.trim(),
                    self.key_text(&self.keys.format()),
                )))
            }
            None => Err(self.absent(None)),
        }
    }

    fn absent_if(&self, error: StoreError) -> StoreError {
        match error.is_absent() {
            true => self.absent(self.expected().as_ref().map(Standing::identity)),
            false => error,
        }
    }

    /// There is no store below the prefix.
    fn absent(&self, expected: Option<&StoreIdentity>) -> StoreError {
        let meant = expected.map_or_else(|| "a store".to_owned(), |expected| format!("store {expected}"));
        let remedy = match expected {
            Some(_) => {
                "are store.endpoints and store.prefix those of the right cluster, and has it lost its data?"
            }
            None => {
                "see that store.endpoints and store.prefix are right; where there never was a store, 'heirlock enable' makes one"
            }
        };
        let said = format!("{}: expected {meant}, found nothing: {remedy}", self.shown());
        StoreError::new(StoreErrorKind::Absent { is_remembered: expected.is_some() }, said)
    }

    /// Another store than the one that is expected.
    pub(super) fn wrong_store(&self, why: &WrongStore) -> StoreError {
        let expected = why.expected.as_ref();
        let expected = expected
            .map_or_else(|| "the store that this server had before".to_owned(), |one| format!("store {one}"));
        let found = match (&why.found.identity, why.found.kept) {
            (_, heirlock_core::store_identity::Kept::Nothing) => "a new one".to_owned(),
            (Some(found), _) => format!("store {found}"),
            (None, _) => "one without an identity".to_owned(),
        };
        let said = format!(
            "{}: expected {expected}, found {found}: are store.endpoints and store.prefix those of the right cluster? Set them; \
             where the store that is there is the one you want, say 'heirlock enable --new-store'",
            self.shown()
        );
        StoreError::new(StoreErrorKind::Wrong, said)
    }

    /// Something in it is not as it should be.
    pub(super) fn unexpected_at(&self, said: &str) -> StoreError {
        StoreError::new(StoreErrorKind::Unexpected, format!("{}: {said}", self.shown()))
    }

    /// The failure where a generation is not there.
    pub(super) fn no_generation(&self, service: &ServiceName, generation: Generation) -> StoreError {
        let said = format!(
            "{}: expected generation {generation} of {service}, found none; it was removed, or never begun",
            self.shown()
        );
        StoreError::new(StoreErrorKind::Unavailable, said)
    }

    /// The failure where others change the same again and again.
    pub(super) fn contended(&self, what: &str) -> StoreError {
        let said = format!(
            "{}: expected that {what} is changed by this server's agent alone, found another change each time; see that no two \
             agents run under this server's name",
            self.shown()
        );
        StoreError::new(StoreErrorKind::Unavailable, said)
    }

    /// A key, for people.
    pub(super) fn key_text(&self, key: &[u8]) -> String {
        format!("{}", key.escape_ascii())
    }
}

/// Bytes of a value, for people.
pub(super) fn shortened(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().chars().take(FOUND_CHARS_MAX).collect()
}
