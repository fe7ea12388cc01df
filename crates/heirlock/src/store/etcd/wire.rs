//! Requests to etcd and its answers, as its JSON gateway writes them (etcd, api/etcdserverpb/rpc.proto, by grpc-gateway).
//!
//! Keys and values are base64, numbers of 64 bits are text, and what is false, zero or empty is left out. All that comes from
//! etcd is read as if another one had sent it: no answer makes this module panic, and none makes it keep more than the answer
//! itself is long.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Visitor;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::limits::FOUND_CHARS_MAX;

/// A condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Compare {
    /// The key has this value.
    Value(Vec<u8>, Vec<u8>),
    /// There is no such key.
    Absent(Span),
    /// There is such a key.
    Present(Vec<u8>),
    /// The key was changed last by the transaction of this revision; 0 where there is none.
    ChangedAt(Vec<u8>, u64),
    /// None of these keys was made or changed after this revision.
    UnchangedSince(Span, u64),
}

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    /// Writes a key.
    Put(Vec<u8>, Vec<u8>),
    /// Removes keys.
    Delete(Span),
    /// Reads keys.
    Range(Range),
}

/// One key, or all from one key to before another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    /// The first.
    pub(super) from: Vec<u8>,
    /// The one after the last. Nothing where it is a single key.
    pub(super) to: Option<Vec<u8>>,
}

impl Span {
    /// A single key.
    pub(super) fn key(key: impl Into<Vec<u8>>) -> Self {
        Self { from: key.into(), to: None }
    }

    /// All keys from this one to before that one.
    pub(super) fn between(from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) -> Self {
        Self { from: from.into(), to: Some(to.into()) }
    }
}

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    /// These keys.
    pub(super) span: Span,
    /// So many of them at most; 0 is all.
    pub(super) limit: u64,
    /// From the last to the first.
    pub(super) descending: bool,
    /// Without their values.
    pub(super) keys_only: bool,
    /// As they were at this revision; 0 is now.
    pub(super) revision: u64,
}

impl Range {
    /// Keys with their values, in order.
    pub(super) fn of(span: Span) -> Self {
        Self { span, limit: 0, descending: false, keys_only: false, revision: 0 }
    }

    /// One key with its value.
    pub(super) fn key(key: impl Into<Vec<u8>>) -> Self {
        Self::of(Span::key(key))
    }

    /// The last of them, so many at most.
    pub(super) fn last(span: Span, limit: u64) -> Self {
        Self { limit, descending: true, ..Self::of(span) }
    }

    /// Without their values.
    pub(super) fn names(self) -> Self {
        Self { keys_only: true, ..self }
    }
}

/// All conditions are looked at and all steps of one side are taken at one moment, or nothing is done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Txn {
    /// The conditions.
    pub(super) compares: Vec<Compare>,
    /// The steps where all of them hold.
    pub(super) then: Vec<Op>,
    /// The steps where one of them doesn't. The store asks for them by a question of their own (`store.rs`).
    pub(super) otherwise: Vec<Op>,
}

/// A key as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The key.
    pub(super) key: Vec<u8>,
    /// Its value.
    pub(super) value: Vec<u8>,
    /// The revision of the transaction that changed it last.
    pub(super) changed_at: u64,
}

/// The result of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Done {
    /// Of a write or of a removal.
    Changed,
    /// Of a read.
    Read(Read),
}

/// The keys that were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// In the order that was asked for.
    pub(super) entries: Vec<Entry>,
    /// There are more of them than were asked for at most.
    pub(super) is_cut: bool,
}

impl Read {
    /// The value of the single key that was asked for.
    pub(super) fn value(self) -> Option<Vec<u8>> {
        self.entries.into_iter().next().map(|entry| entry.value)
    }
}

/// The answer to a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TxnAnswer {
    /// The number of the last change of the whole of etcd.
    pub(super) revision: u64,
    /// All conditions held.
    pub(super) succeeded: bool,
    /// The results of the side that was taken, step by step.
    pub(super) done: Vec<Done>,
}

impl Txn {
    /// The bytes of the request.
    pub(super) fn encode(&self) -> Vec<u8> {
        let ops = |ops: &[Op]| ops.iter().map(Op::to_json).collect::<Vec<_>>();
        let compares: Vec<Value> = self.compares.iter().map(Compare::to_json).collect();
        let all = json!({"compare": compares, "success": ops(&self.then), "failure": ops(&self.otherwise)});
        all.to_string().into_bytes()
    }
}

impl Compare {
    fn to_json(&self) -> Value {
        let (span, target, result, rest) = match self {
            Self::Value(key, value) => (Span::key(key.clone()), "VALUE", "EQUAL", ("value", text(value))),
            Self::Absent(span) => (span.clone(), "CREATE", "EQUAL", ("create_revision", "0".to_owned())),
            Self::Present(key) => {
                (Span::key(key.clone()), "CREATE", "GREATER", ("create_revision", "0".to_owned()))
            }
            Self::ChangedAt(key, revision) => {
                (Span::key(key.clone()), "MOD", "EQUAL", ("mod_revision", revision.to_string()))
            }
            Self::UnchangedSince(span, revision) => {
                (span.clone(), "MOD", "LESS", ("mod_revision", revision.saturating_add(1).to_string()))
            }
        };
        let mut compare = span.to_json();
        compare.insert("target".to_owned(), target.into());
        compare.insert("result".to_owned(), result.into());
        compare.insert(rest.0.to_owned(), rest.1.into());
        Value::Object(compare)
    }
}

impl Op {
    /// Bytes that it writes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Put(key, value) => key.len() + value.len(),
            Self::Delete(_) | Self::Range(_) => 0,
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Put(key, value) => json!({"request_put": {"key": text(key), "value": text(value)}}),
            Self::Delete(span) => json!({"request_delete_range": span.to_json()}),
            Self::Range(range) => json!({"request_range": range.to_json()}),
        }
    }
}

impl Span {
    fn to_json(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("key".to_owned(), text(&self.from).into());
        if let Some(to) = &self.to {
            map.insert("range_end".to_owned(), text(to).into());
        }
        map
    }
}

impl Range {
    fn to_json(&self) -> Value {
        let mut map = self.span.to_json();
        if self.limit != 0 {
            map.insert("limit".to_owned(), self.limit.to_string().into());
        }
        if self.revision != 0 {
            map.insert("revision".to_owned(), self.revision.to_string().into());
        }
        if self.descending {
            map.insert("sort_order".to_owned(), "DESCEND".into());
            map.insert("sort_target".to_owned(), "KEY".into());
        }
        if self.keys_only {
            map.insert("keys_only".to_owned(), true.into());
        }
        Value::Object(map)
    }
}

fn text(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// A number of 64 bits, which the gateway writes as text. An absent one is 0.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Number(u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// One that sees which of the two it is. An untagged enum would copy each number before it looks at it.
        struct Written;
        impl Visitor<'_> for Written {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of 64 bits, or one as text")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Number, E> {
                text.parse().map(Number).map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Number, E> {
                Ok(Number(number))
            }
        }
        deserializer.deserialize_any(Written)
    }
}

/// Bytes, which the gateway writes as base64.
#[derive(Debug, Default)]
struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Written<'a>(#[serde(borrow)] Cow<'a, str>);
        let Written(text) = Written::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map(Self).map_err(serde::de::Error::custom)
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireHeader {
    revision: Number,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireTxn {
    header: WireHeader,
    succeeded: bool,
    responses: Vec<WireDone>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireDone {
    response_range: Option<WireRange>,
    response_put: Option<serde::de::IgnoredAny>,
    response_delete_range: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireRange {
    kvs: Vec<WireEntry>,
    more: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireEntry {
    key: Bytes,
    value: Bytes,
    mod_revision: Number,
}

impl TxnAnswer {
    /// The answer in these bytes, to this transaction. Where it does not have a result for each step, of the step's own kind, it
    /// is no answer to it.
    ///
    /// # Errors
    /// What was found, in words.
    pub(super) fn decode(bytes: &[u8], to: &Txn) -> Result<Self, String> {
        let read: WireTxn = parse(bytes)?;
        if read.header.revision.0 == 0 {
            return Err("expected an answer of etcd, found one without a revision".to_owned());
        }
        let steps = if read.succeeded { &to.then } else { &to.otherwise };
        if read.responses.len() != steps.len() {
            return Err(format!("expected {} results, found {}", steps.len(), read.responses.len()));
        }
        let done = read.responses.into_iter().zip(steps).map(|(done, step)| match (step, done) {
            (Op::Put(..), WireDone { response_put: Some(_), .. })
            | (Op::Delete(_), WireDone { response_delete_range: Some(_), .. }) => Ok(Done::Changed),
            (Op::Range(range), WireDone { response_range: Some(read), .. }) => {
                let entries: Vec<Entry> = read.kvs.into_iter().map(Entry::from).collect();
                match entries.iter().find(|entry| !range.span.has(&entry.key)) {
                    Some(entry) => Err(format!(
                        "a key that was not asked for, {:?}",
                        String::from_utf8_lossy(&entry.key).chars().take(FOUND_CHARS_MAX).collect::<String>()
                    )),
                    None => Ok(Done::Read(Read { entries, is_cut: read.more })),
                }
            }
            _ => Err("a result of another kind than its step".to_owned()),
        });
        let done = done.collect::<Result<_, _>>()?;
        Ok(Self { revision: read.header.revision.0, succeeded: read.succeeded, done })
    }
}

impl Span {
    fn has(&self, key: &[u8]) -> bool {
        match &self.to {
            None => self.from == key,
            Some(to) => *self.from <= *key && *key < **to,
        }
    }
}

impl From<WireEntry> for Entry {
    fn from(read: WireEntry) -> Self {
        Self { key: read.key.0, value: read.value.0, changed_at: read.mod_revision.0 }
    }
}

/// An error as the gateway writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The number of gRPC (google/rpc/code.proto).
    pub(super) code: u32,
    /// The sentence of etcd, shortened.
    pub(super) message: String,
}

impl Refusal {
    /// The error in these bytes. Bytes that are none, as those of a program between, are told as they are.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(default)]
            code: u32,
            #[serde(default)]
            message: Option<String>,
            #[serde(default)]
            error: Option<Value>,
        }
        let shortened = |text: &str| text.chars().take(FOUND_CHARS_MAX).collect::<String>();
        match serde_json::from_slice::<Wire>(bytes) {
            Ok(Wire { code, message, error }) => {
                let error = || error.as_ref().and_then(Value::as_str).map(str::to_owned);
                let message = message.or_else(error).unwrap_or_default();
                Self { code, message: shortened(&message) }
            }
            Err(_) => Self { code: 0, message: shortened(String::from_utf8_lossy(bytes).trim()) },
        }
    }
}

/// A user's name and password, for /v3/auth/authenticate.
#[derive(Serialize)]
struct Credentials<'a> {
    name: &'a str,
    password: &'a str,
}

/// The bytes of the request for a token.
///
/// # Errors
/// None but what serde can't write, which a text always is.
pub(super) fn encode_credentials(name: &str, password: &str) -> Result<Vec<u8>, String> {
    serde_json::to_vec(&Credentials { name, password }).map_err(|error| error.to_string())
}

/// The token in these bytes.
///
/// # Errors
/// Where there is none. The sentence has nothing of what was found, which may be a secret.
pub(super) fn decode_token(bytes: &[u8]) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Wire {
        token: String,
    }
    let is_token = |token: &str| {
        !token.is_empty()
            && token.len() <= TOKEN_BYTES_MAX
            && token.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let token = serde_json::from_slice::<Wire>(bytes).ok().map(|wire| wire.token);
    token.filter(|token| is_token(token)).ok_or_else(|| "expected a token, found none".to_owned())
}

/// Bytes of the longest token: that of a signed one, with room.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// How one member of the cluster is (/v3/maintenance/status).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct MemberStatus {
    /// The version of its program.
    pub(super) version: String,
    /// Bytes of its database, with what is free in it.
    pub(super) bytes: u64,
    /// The member that leads, by its number; 0 where it knows of none.
    pub(super) leader: u64,
    /// It only learns, and answers no question.
    pub(super) is_learner: bool,
    /// Its alarms and faults, in etcd's words.
    pub(super) errors: Vec<String>,
}

impl MemberStatus {
    /// The status in these bytes.
    ///
    /// # Errors
    /// What was found, in words.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct Wire {
            version: String,
            db_size: Number,
            leader: Number,
            is_learner: bool,
            errors: Vec<String>,
        }
        let read: Wire = parse(bytes)?;
        Ok(Self {
            version: read.version.chars().take(FOUND_CHARS_MAX).collect(),
            bytes: read.db_size.0,
            leader: read.leader.0,
            is_learner: read.is_learner,
            errors: read.errors,
        })
    }
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| {
        let said: String = error.to_string().chars().take(FOUND_CHARS_MAX).collect();
        format!(
            "expected an answer of etcd's JSON gateway, found {} bytes that are none: {said}",
            bytes.len()
        )
    })
}

#[cfg(test)]
mod tests;
