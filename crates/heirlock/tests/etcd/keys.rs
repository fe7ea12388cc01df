//! What is kept in an etcd of the tests' own, read past the store's own code.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::members::{Members, post};

/// The default of `store.prefix`.
const PREFIX: &str = "/heirlock/";

/// Keys below this one of the store, without it, and their values, as this member knows them with its leader.
pub(crate) fn below(members: &Members, member: usize, key: &str) -> BTreeMap<String, String> {
    let from = format!("{PREFIX}{key}");
    let mut to = from.clone().into_bytes();
    *to.last_mut().unwrap() += 1;
    let question = json!({"key": STANDARD.encode(&from), "range_end": STANDARD.encode(to)}).to_string();
    let answer = post(members.own(member), "/v3/kv/range", &question).unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let found: Value =
        serde_json::from_str(&body[body.find('{').unwrap()..=body.rfind('}').unwrap()]).unwrap();
    let text = |value: &Value| {
        String::from_utf8(STANDARD.decode(value.as_str().unwrap_or_default()).unwrap()).unwrap()
    };
    let found = found["kvs"].as_array().cloned().unwrap_or_default();
    let named = |found: &Value| text(&found["key"])[from.len()..].to_owned();
    found.iter().map(|found| (named(found), text(&found["value"]))).collect()
}

/// The generations of a service that were claimed, and those that were given up.
pub(crate) fn claims(members: &Members, member: usize, service: &str) -> Vec<String> {
    let found = below(members, member, &format!("claims/{service}/"));
    found.into_keys().map(|key| key.trim_start_matches('0').to_owned()).collect()
}

/// The clients on record in a generation of a service.
pub(crate) fn clients(members: &Members, member: usize, service: &str, generation: u64) -> Vec<String> {
    let found = below(members, member, &format!("generations/{service}/{generation:020}/sm/"));
    found.into_keys().collect()
}

/// A server's heartbeat.
pub(crate) fn heartbeat(members: &Members, member: usize, server: &str) -> Option<Value> {
    let found = below(members, member, &format!("servers/{server}"));
    serde_json::from_str(found.get("")?).ok()
}
