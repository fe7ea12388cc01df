//! Which store lies below a prefix, and whether it is in force: a key that is made with it. Its identity never changes.

use std::collections::BTreeSet;
use std::sync::{MutexGuard, PoisonError};

use heirlock_core::ServiceName;
use heirlock_core::store::{StoreError, StoreErrorKind};
use heirlock_core::store_identity::{Found, Kept, StoreIdentity};
use heirlock_core::store_standing::{NotInForce, Standing};

use super::EtcdStore;
use super::client::Purpose;
use super::keys::service_of;
use super::store::shortened;
use super::wire::{Compare, Op, Range, Span, Txn};

/// The value of the key that says what the store is.
pub(super) const FORMAT: &str = "heirlock store, format 1\n";

impl EtcdStore {
    pub(super) fn expected(&self) -> MutexGuard<'_, Option<Standing>> {
        // Its contents are still true after a thread has panicked.
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store as it is, expected or not.
    pub(super) fn look_any(&self) -> Result<Found, StoreError> {
        let any = self.for_any();
        let identity = any.read_identity()?;
        let services = any.claimed_services()?;
        Ok(Found { identity, kept: Kept::of(&services) })
    }

    /// Fails where the store is not in force.
    fn read_identity(&self) -> Result<Option<StoreIdentity>, StoreError> {
        let there = self.read_standing()?;
        there.map(|there| there.in_force().map_err(|why| self.not_in_force(&why))).transpose()
    }

    pub(super) fn read_standing(&self) -> Result<Option<Standing>, StoreError> {
        let (_, [found]) = self.read([Range::key(self.keys.identity())], Purpose::Call)?;
        let Some(value) = found.value() else { return Ok(None) };
        match Standing::parse(&value) {
            Some(standing) => Ok(Some(standing)),
            None => Err(self.unexpected_at(&format!(
                "expected {:?} and 32 digits, found {:?} in the key {}; use the version that made it; where this is the right \
                 store, write the digits that each server remembers (store.json in its local directory)",
                Standing::expected_text(),
                shortened(&value),
                self.key_text(&self.keys.identity()),
            ))),
        }
    }

    fn not_in_force(&self, why: &NotInForce) -> StoreError {
        StoreError::new(StoreErrorKind::NotInForce, format!("{}: {why}", self.shown()))
    }

    /// The failure of a copy whose store is not as it left it.
    pub(super) fn other_copy(&self, there: Option<&Standing>) -> StoreError {
        let found = there.map_or_else(|| "nothing".to_owned(), |there| there.line().trim_end().to_owned());
        let said = format!(
            "{}: expected the mark of this copy in it, found {found:?}: another copy is at work, or has ended",
            self.shown()
        );
        StoreError::new(StoreErrorKind::NotInForce, said)
    }

    /// Gives the store an identity, unless it has one. Of all servers that try at the same moment one wins. Repeated, it finds
    /// the one that it gave.
    pub(super) fn identify(&self, identity: &StoreIdentity) -> Result<StoreIdentity, StoreError> {
        let (any, key) = (self.for_any(), self.keys.identity());
        let put = Op::Put(key.clone(), Standing::InForce(identity.clone()).line().into_bytes());
        let compares = vec![Compare::Absent(Span::key(key))];
        any.make(Txn { compares, then: vec![put], ..Txn::default() }, Purpose::Call)?;
        any.read_identity()?
            .ok_or_else(|| self.unexpected_at("expected the identity that was just written, found none"))
    }

    /// The services that have a claim, or a generation whose claim was lost.
    pub(super) fn claimed_services(&self) -> Result<Vec<ServiceName>, StoreError> {
        let mut services = BTreeSet::new();
        for span in [self.keys.all_claims(), self.keys.all_begun()] {
            let names = self.read_all(&span, true, Purpose::Call)?;
            services.extend(names.iter().filter_map(|entry| service_of(&span, &entry.key)));
        }
        Ok(services.into_iter().collect())
    }

    /// Makes a store where nothing lies below the prefix. Its format and its identity appear at one moment, so a store that
    /// can be found has both.
    pub(super) fn make_store(&self, standing: &Standing) -> Result<(), StoreError> {
        let (format, all) = (self.keys.format(), self.keys.all());
        let then = vec![
            Op::Put(format.clone(), FORMAT.as_bytes().to_vec()),
            Op::Put(self.keys.identity(), standing.line().into_bytes()),
        ];
        let otherwise = vec![
            Op::Range(Range::key(format)),
            Op::Range(Range { limit: 1, ..Range::of(all.clone()) }.names()),
        ];
        let txn = Txn { compares: vec![Compare::Absent(all)], then, otherwise };
        let answered = self.client.txn(&txn, Purpose::Call).map_err(|error| error.at(self.shown()))?;
        if answered.answer.succeeded {
            return Ok(());
        }
        let mut reads = answered.answer.done.into_iter().filter_map(|done| match done {
            super::wire::Done::Read(read) => Some(read),
            super::wire::Done::Changed => None,
        });
        let format = reads.next().unwrap_or_default();
        let other = reads.next().unwrap_or_default();
        if format.entries.is_empty() {
            let other = other.entries.first().map(|entry| self.key_text(&entry.key)).unwrap_or_default();
            let prefix = self.keys.prefix();
            let said = format!(
                "expected nothing below the prefix {prefix}, found the key {other}; choose a prefix of its own (store.prefix)"
            );
            return Err(self.unexpected_at(&said));
        }
        Ok(())
    }
}
