//! What is kept in an etcd of the tests' own, read past the store's own code.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::members::{Members, post, within};

/// The default of `store.prefix`.
const PREFIX: &str = "/heirlock/";

/// An entry as etcd has it.
#[derive(Default)]
pub(crate) struct Entry {
    pub(crate) value: String,
    /// How often it was written.
    pub(crate) writes: u64,
}

/// Keys below this one of the store, without it, and what they hold, as a majority knows them. It waits for one.
pub(crate) fn below(members: &Members, key: &str) -> BTreeMap<String, Entry> {
    let (from, question) = asking(key);
    entries(&members.answer("/v3/kv/range", &question.to_string()), &from)
}

/// The same as a member in that network namespace knows it by itself, which may be out of date: what no store may believe.
pub(crate) fn known_to(
    members: &Members,
    member: usize,
    namespace: &Path,
    key: &str,
) -> BTreeMap<String, Entry> {
    let (from, mut question) = asking(key);
    question["serializable"] = true.into();
    let answer = within(namespace, || post(members.own(member), "/v3/kv/range", &question.to_string()));
    entries(&answer.unwrap(), &from)
}

/// The question for all keys below this one, and how they begin.
fn asking(key: &str) -> (String, Value) {
    let from = format!("{PREFIX}{key}");
    let mut to = from.clone().into_bytes();
    *to.last_mut().unwrap() += 1;
    let question = json!({"key": STANDARD.encode(&from), "range_end": STANDARD.encode(to)});
    (from, question)
}

fn entries(answer: &str, from: &str) -> BTreeMap<String, Entry> {
    let body = &answer[answer.find('{').unwrap()..=answer.rfind('}').unwrap()];
    let found: Value = serde_json::from_str(body).unwrap();
    let text = |value: &Value| {
        String::from_utf8(STANDARD.decode(value.as_str().unwrap_or_default()).unwrap()).unwrap()
    };
    let entry = |found: &Value| {
        let writes = found["version"].as_str().unwrap().parse().unwrap();
        (text(&found["key"])[from.len()..].to_owned(), Entry { value: text(&found["value"]), writes })
    };
    found["kvs"].as_array().into_iter().flatten().map(entry).collect()
}

/// The generations of a service that were claimed, and those that were given up.
pub(crate) fn claims(members: &Members, service: &str) -> Vec<String> {
    let found = below(members, &format!("claims/{service}/"));
    found.into_keys().map(|key| key.trim_start_matches('0').to_owned()).collect()
}

/// The clients on record in a generation of a service.
pub(crate) fn clients(members: &Members, service: &str, generation: u64) -> Vec<String> {
    let found = below(members, &format!("generations/{service}/{generation:020}/sm/"));
    found.into_keys().collect()
}

/// A server's heartbeat.
pub(crate) fn heartbeat(members: &Members, server: &str) -> Entry {
    below(members, &format!("servers/{server}")).remove("").unwrap_or_default()
}

/// Makes the store, as 'enable' does.
pub(crate) fn make_store(members: &Members) {
    let [key, value] =
        [&format!("{PREFIX}format"), "heirlock store, format 1\n"].map(|text| STANDARD.encode(text));
    members.answer("/v3/kv/put", &json!({"key": key, "value": value}).to_string());
}
