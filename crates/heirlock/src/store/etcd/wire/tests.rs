use proptest::prelude::*;

use super::*;

fn span() -> impl Strategy<Value = Span> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..12);
    (bytes(), proptest::option::of(bytes())).prop_map(|(from, to)| Span { from, to })
}

fn range() -> impl Strategy<Value = Range> {
    (span(), any::<u32>(), any::<bool>(), any::<bool>(), any::<u64>()).prop_map(
        |(span, limit, descending, keys_only, revision)| Range {
            span,
            limit: limit.into(),
            descending,
            keys_only,
            revision,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..12);
    prop_oneof![
        (bytes(), bytes()).prop_map(|(key, value)| Op::Put(key, value)),
        span().prop_map(Op::Delete),
        range().prop_map(Op::Range),
    ]
}

fn bytes_of(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap_or_default()).unwrap()
}

fn number_of(value: &Value) -> u64 {
    value.as_str().map_or(0, |number| number.parse().unwrap())
}

/// The request as etcd reads it, from its JSON alone.
fn read_op(value: &Value) -> Op {
    let span =
        |value: &Value| Span { from: bytes_of(&value["key"]), to: value.get("range_end").map(bytes_of) };
    if let Some(put) = value.get("request_put") {
        return Op::Put(bytes_of(&put["key"]), bytes_of(&put["value"]));
    }
    if let Some(delete) = value.get("request_delete_range") {
        return Op::Delete(span(delete));
    }
    let range = &value["request_range"];
    let descending = range.get("sort_order").is_some();
    assert!(!descending || (range["sort_order"] == "DESCEND" && range["sort_target"] == "KEY"));
    Op::Range(Range {
        span: span(range),
        limit: number_of(&range["limit"]),
        descending,
        keys_only: range["keys_only"].as_bool().unwrap_or_default(),
        revision: number_of(&range["revision"]),
    })
}

/// An answer as the gateway writes it: what is false, zero or empty is left out.
fn answer(succeeded: bool, ops: &[Op], entries: &[(Vec<u8>, Vec<u8>, u64)]) -> Vec<u8> {
    let results: Vec<Value> = ops
        .iter()
        .map(|op| match op {
            Op::Put(..) => json!({"response_put": {"header": {"revision": "9"}}}),
            Op::Delete(_) => json!({"response_delete_range": {"header": {"revision": "9"}, "deleted": "3"}}),
            Op::Range(_) => {
                let kvs: Vec<Value> = entries
                    .iter()
                    .map(|(key, value, revision)| {
                        let mut kv = Map::new();
                        for (name, bytes) in [("key", key), ("value", value)] {
                            if !bytes.is_empty() {
                                kv.insert(name.to_owned(), text(bytes).into());
                            }
                        }
                        kv.insert("mod_revision".to_owned(), revision.to_string().into());
                        kv.insert("version".to_owned(), "1".into());
                        Value::Object(kv)
                    })
                    .collect();
                if kvs.is_empty() {
                    json!({"response_range": {"header": {}}})
                } else {
                    json!({"response_range": {"kvs": kvs, "count": "7"}})
                }
            }
        })
        .collect();
    let mut all = Map::new();
    all.insert(
        "header".to_owned(),
        json!({"cluster_id": "14841639068965178418", "revision": "18446744073709551615"}),
    );
    if succeeded {
        all.insert("succeeded".to_owned(), true.into());
    }
    if !results.is_empty() {
        all.insert("responses".to_owned(), results.into());
    }
    Value::Object(all).to_string().into_bytes()
}

proptest! {
    #[test]
    fn a_transaction_says_what_it_is(then in proptest::collection::vec(op(), 0..6), otherwise in proptest::collection::vec(op(), 0..6)) {
        let txn = Txn { compares: Vec::new(), then: then.clone(), otherwise: otherwise.clone() };
        let read: Value = serde_json::from_slice(&txn.encode()).unwrap();
        for (side, ops) in [("success", then), ("failure", otherwise)] {
            let found: Vec<Op> = read[side].as_array().unwrap().iter().map(read_op).collect();
            prop_assert_eq!(found, ops);
        }
    }

    #[test]
    fn an_answer_is_read_as_the_gateway_writes_it(
        succeeded: bool,
        then in proptest::collection::vec(op(), 0..6),
        entries in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..6), proptest::collection::vec(any::<u8>(), 0..9), any::<u64>()), 0..5),
    ) {
        let all = Span::between(vec![], vec![0xff; 9]);
        let then: Vec<Op> = then.into_iter().map(|op| match op {
            Op::Range(range) => Op::Range(Range { span: all.clone(), ..range }),
            other => other,
        }).collect();
        let (mut txn, ops) = (Txn::default(), then.clone());
        if succeeded { txn.then = then } else { txn.otherwise = then }
        let read = TxnAnswer::decode(&answer(succeeded, &ops, &entries), &txn).unwrap();
        prop_assert_eq!((read.succeeded, read.revision), (succeeded, u64::MAX));
        let expected: Vec<Entry> = entries.into_iter().map(|(key, value, changed_at)| Entry { key, value, changed_at }).collect();
        for (op, done) in ops.iter().zip(read.done) {
            match op {
                Op::Range(_) => prop_assert_eq!(done, Done::Read(Read { entries: expected.clone(), is_cut: false })),
                _ => prop_assert_eq!(done, Done::Changed),
            }
        }
    }

    /// As if the answer came from a program that means harm.
    #[test]
    fn no_answer_makes_it_panic(bytes: Vec<u8>, at: prop::sample::Index, byte: u8, ops in proptest::collection::vec(op(), 0..4)) {
        let txn = Txn { then: ops.clone(), ..Txn::default() };
        let mut broken = answer(true, &ops, &[(b"k".to_vec(), b"v".to_vec(), 1)]);
        let at = at.index(broken.len());
        broken[at] = byte;
        let cut = &answer(true, &ops, &[])[..at.min(20)];
        for bytes in [&bytes[..], &broken, cut] {
            if let Err(said) = TxnAnswer::decode(bytes, &txn) {
                prop_assert!(said.len() < 2000, "{}", said);
            }
            let _ = (Refusal::decode(bytes), decode_token(bytes), MemberStatus::decode(bytes));
        }
    }

    #[test]
    fn a_password_is_sent_as_it_is(name: String, password: String) {
        let sent: Value = serde_json::from_slice(&encode_credentials(&name, &password).unwrap()).unwrap();
        prop_assert_eq!((sent["name"].as_str().unwrap(), sent["password"].as_str().unwrap()), (name.as_str(), password.as_str()));
    }
}

#[test]
fn conditions_are_those_that_etcd_knows() {
    let conditions = |compare: Compare| {
        let txn = Txn { compares: vec![compare], ..Txn::default() };
        serde_json::from_slice::<Value>(&txn.encode()).unwrap()["compare"][0].clone()
    };
    let (key, end) = ("ay8x", "ay8y");
    let span = || Span::between("k/1", "k/2");
    let all = [
        (
            Compare::Value("k/1".into(), "v".into()),
            json!({"key": key, "target": "VALUE", "result": "EQUAL", "value": "dg=="}),
        ),
        (
            Compare::Absent(span()),
            json!({"key": key, "range_end": end, "target": "CREATE", "result": "EQUAL", "create_revision": "0"}),
        ),
        (
            Compare::Present("k/1".into()),
            json!({"key": key, "target": "CREATE", "result": "GREATER", "create_revision": "0"}),
        ),
        (
            Compare::ChangedAt("k/1".into(), 7),
            json!({"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": "7"}),
        ),
        (
            Compare::UnchangedSince(span(), 7),
            json!({"key": key, "range_end": end, "target": "MOD", "result": "LESS", "mod_revision": "8"}),
        ),
    ];
    for (compare, expected) in all {
        assert_eq!(conditions(compare), expected);
    }
}

#[test]
fn an_answer_to_another_question_is_none() {
    let put = || Op::Put("k".into(), "v".into());
    let read = || Op::Range(Range::key("k"));
    let decode = |bytes: &[u8], then: Vec<Op>| TxnAnswer::decode(bytes, &Txn { then, ..Txn::default() });
    let one = answer(true, &[put()], &[]);
    assert!(decode(&one, vec![put()]).is_ok());
    assert!(decode(&one, vec![]).unwrap_err().contains("expected 0 results, found 1"));
    assert!(decode(&one, vec![put(), put()]).unwrap_err().contains("expected 2 results, found 1"));
    assert!(decode(&one, vec![read()]).unwrap_err().contains("another kind"));
    let other = answer(true, &[read()], &[(b"other".to_vec(), Vec::new(), 1)]);
    assert!(decode(&other, vec![read()]).unwrap_err().contains("not asked for"));
    assert!(decode(b"{}", vec![]).unwrap_err().contains("without a revision"));
    assert!(decode(b"<html>", vec![]).unwrap_err().contains("JSON gateway"));
}

#[test]
fn a_refusal_is_read_as_versions_3_4_and_3_5_write_it() {
    let of = |text: &str| Refusal::decode(text.as_bytes());
    let both =
        r#"{"error":"etcdserver: permission denied","message":"etcdserver: permission denied","code":7}"#;
    assert_eq!(of(both), Refusal { code: 7, message: "etcdserver: permission denied".into() });
    assert_eq!(of(r#"{"error":"x","code":3}"#), Refusal { code: 3, message: "x".into() });
    assert_eq!(of("404 page not found\n"), Refusal { code: 0, message: "404 page not found".into() });
    assert!(of(&"x".repeat(100_000)).message.len() <= FOUND_CHARS_MAX);
}

#[test]
fn an_answer_without_a_token_is_told_without_what_it_is() {
    assert_eq!(decode_token(br#"{"header":{},"token":"a.1"}"#).unwrap(), "a.1");
    for text in [r#"{"token":"s3cret\n"}"#, r#"{"token":""}"#, "s3cret", r#"{"token":7}"#] {
        let said = decode_token(text.as_bytes()).unwrap_err();
        assert!(!said.contains("s3cret"), "{said}");
    }
}

#[test]
fn the_status_of_a_member_is_read() {
    let text = r#"{"header":{"revision":"7"},"version":"3.4.23","dbSize":"20480","leader":"123","raftIndex":"4","errors":["NOSPACE"]}"#;
    let expected = MemberStatus {
        version: "3.4.23".into(),
        bytes: 20480,
        leader: 123,
        is_learner: false,
        errors: vec!["NOSPACE".into()],
    };
    assert_eq!(MemberStatus::decode(text.as_bytes()).unwrap(), expected);
    assert_eq!(MemberStatus::decode(b"{}").unwrap().leader, 0);
}
