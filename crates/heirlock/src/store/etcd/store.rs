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

impl EtcdStore {
    /// Makes a transaction in the store that is expected.
    pub(super) fn make(&self, txn: Txn, purpose: Purpose) -> Result<Made, StoreError> {
        self.ask(txn, purpose).map_err(|error| error.at(self.shown()))?
    }

    /// The same. A failure of etcd is told apart from that of a store that is another one.
    ///
    /// A transaction with conditions of its own is asked without its other side: of a first registration etcd's gateway takes a
    /// fifth of its time for readings that hardly any transaction comes to. Where the conditions do not hold, nothing was done,
    /// and the other side is asked for by a second question. It shows a later moment than the refusal, so all that it is judged
    /// by has to be as true later: a mark and a claim are never written back to what they were, and what else was found is the
    /// condition of the next attempt.
    pub(super) fn ask(&self, mut txn: Txn, purpose: Purpose) -> Result<Result<Made, StoreError>, CallError> {
        if txn.compares.is_empty() {
            return self.ask_at_once(txn, purpose);
        }
        let then = std::mem::take(&mut txn.otherwise);
        let expected = self.expected().clone();
        txn.compares.insert(0, self.is_expected(expected.as_ref()));
        let answered = self.client.txn(&txn, purpose)?;
        let was_repeated = answered.was_repeated;
        if answered.answer.succeeded {
            let (done, revision) = (answered.answer.done, answered.answer.revision);
            return Ok(Ok(Made { held: true, done, revision, was_repeated }));
        }
        let found = self.ask_at_once(Txn { then, ..Txn::default() }, purpose);
        let found = found.map_err(|error| error.undone().after(was_repeated))?;
        Ok(found.map(|found| Made { held: false, was_repeated, ..found }))
    }

    /// The condition that the store is the one that is expected.
    fn is_expected(&self, expected: Option<&Standing>) -> Compare {
        match expected {
            // A store that was whole when it was met has its format.
            Some(expected) => Compare::Value(self.keys.identity(), expected.line().into_bytes()),
            None => Compare::Value(self.keys.format(), FORMAT.as_bytes().to_vec()),
        }
    }

    /// Makes a transaction whose only condition is the store. Where that does not hold, the same question shows what is there
    /// instead: what it answers is never taken for the contents of another store.
    fn ask_at_once(&self, mut txn: Txn, purpose: Purpose) -> Result<Result<Made, StoreError>, CallError> {
        let expected = self.expected().clone();
        txn.compares.insert(0, self.is_expected(expected.as_ref()));
        txn.otherwise =
            [self.keys.format(), self.keys.identity()].map(|key| Op::Range(Range::key(key))).into();
        let answered = self.client.txn(&txn, purpose)?;
        let was_repeated = answered.was_repeated;
        let (done, revision) = (answered.answer.done, answered.answer.revision);
        let made = Made { held: answered.answer.succeeded, done, revision, was_repeated };
        if made.held {
            return Ok(Ok(made));
        }
        let mut found = made.reads().map(Read::value);
        let (format, identity) = (found.next().flatten(), found.next().flatten());
        let checked = self.check(expected.as_ref(), format.as_deref(), identity.as_deref());
        Ok(checked.and_then(|()| {
            let said = "expected a store that is another one where it is not the one that is expected, found the expected one";
            Err(self.unexpected_at(said))
        }))
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use serde_json::Value;

    use super::super::client::Client;
    use super::super::http::{Exchange, NoReply, Question, Reply};
    use super::super::wire::Span;
    use super::*;

    /// An etcd in which no key is what it is asked for, unless the condition is that of the store alone.
    #[derive(Clone, Default)]
    struct Refuses(Arc<Mutex<Vec<Value>>>);

    impl Exchange for Refuses {
        fn ask(&self, _: usize, question: &Question<'_>) -> Result<Reply, NoReply> {
            let asked: Value = serde_json::from_slice(question.body).unwrap();
            let holds = asked["compare"].as_array().unwrap().len() == 1;
            let side = if holds { "success" } else { "failure" };
            let read = serde_json::json!({"response_range": {}});
            let responses = vec![read; asked[side].as_array().unwrap().len()];
            let body =
                serde_json::json!({"header": {"revision": "5"}, "succeeded": holds, "responses": responses});
            self.0.lock().unwrap().push(asked);
            Ok(Reply { status: 200, body: body.to_string().into_bytes() })
        }
    }

    #[test]
    fn what_is_read_where_a_condition_does_not_hold_is_asked_for_only_then() {
        let etcd = Refuses::default();
        let client = Client::new(Box::new(etcd.clone()), 1, None, Duration::from_secs(600));
        let store = EtcdStore::on(client, "/h/", "etcd");
        let read = || vec![Op::Range(Range::key("a")), Op::Range(Range::key("b"))];
        let put = vec![Op::Put("a".into(), "1".into())];
        let compares = vec![Compare::Absent(Span::key("a"))];
        let made = store.make(Txn { compares, then: put, otherwise: read() }, Purpose::Call).unwrap();
        assert_eq!((made.held, made.reads().count()), (false, 2));
        let sides = |asked: &Value| {
            ["compare", "success", "failure"].map(|side| asked[side].as_array().unwrap().len())
        };
        let asked: Vec<_> = etcd.0.lock().unwrap().drain(..).map(|asked| sides(&asked)).collect();
        assert_eq!(asked, [[2, 1, 0], [1, 2, 2]]);
        // What is read in any case is one question, which shows as well what is there in place of the store.
        store.make(Txn { then: read(), ..Txn::default() }, Purpose::Call).unwrap();
        assert_eq!(sides(&etcd.0.lock().unwrap()[0]), [1, 2, 2]);
    }
}
