use std::collections::VecDeque;
use std::sync::Arc;

use super::*;
use crate::store::etcd::wire::{Op, Span};

type Script = VecDeque<(usize, Result<Reply, NoReply>)>;

/// Endpoints that answer as a test says, in this order, and note what they were asked.
#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<(Script, Vec<String>)>>);

impl Exchange for Scripted {
    fn ask(&self, place: usize, question: &Question<'_>) -> Result<Reply, NoReply> {
        let mut held = self.0.lock().unwrap();
        let token = question.token.map_or("no token", Secret::reveal);
        held.1.push(format!("{place} {} {token}", question.path.rsplit('/').next().unwrap()));
        let (expected, answer) = held.0.pop_front().expect("it is asked no more often than the test says");
        assert_eq!(place, expected);
        answer
    }
}

fn reply(status: u16, body: &str) -> Result<Reply, NoReply> {
    Ok(Reply { status, body: body.as_bytes().to_vec() })
}

const DONE: &str = r#"{"header":{"revision":"5"},"succeeded":true,"responses":[{"response_put":{}}]}"#;

fn put() -> Txn {
    Txn { then: vec![Op::Put("k".into(), "v".into())], ..Txn::default() }
}

fn client(count: usize, user: bool, script: Vec<(usize, Result<Reply, NoReply>)>) -> (Client, Scripted) {
    let scripted = Scripted(Arc::new(Mutex::new((script.into(), Vec::new()))));
    let user =
        user.then(|| User { name: "u".into(), password: Box::new(|| Ok(Secret::new("s3cret".into()))) });
    (Client::new(Box::new(scripted.clone()), count, user, Duration::from_secs(600)), scripted)
}

fn asked(scripted: &Scripted) -> Vec<String> {
    assert!(scripted.0.lock().unwrap().0.is_empty(), "it was asked less often than the test says");
    scripted.0.lock().unwrap().1.clone()
}

fn refused(code: u32, message: &str) -> Result<Reply, NoReply> {
    reply(400, &format!(r#"{{"error":"{message}","code":{code},"message":"{message}"}}"#))
}

#[test]
fn an_endpoint_that_fails_gives_way_to_the_next_and_is_asked_last_from_then_on() {
    let (client, scripted) = client(
        3,
        false,
        vec![
            (0, Err(NoReply::NotAsked("refused".into()))),
            (1, refused(14, "etcdserver: no leader")),
            (2, reply(200, DONE)),
            (2, reply(200, DONE)),
        ],
    );
    let first = client.txn(&put(), Purpose::Call).unwrap();
    assert!(first.answer.succeeded && first.was_repeated, "the second endpoint may have done it");
    assert!(!client.txn(&put(), Purpose::Call).unwrap().was_repeated);
    assert_eq!(asked(&scripted).len(), 4);
}

#[test]
fn a_question_that_never_left_was_not_asked_before() {
    let (client, _) = client(2, false, vec![(0, Err(NoReply::NotAsked("x".into()))), (1, reply(200, DONE))]);
    assert!(!client.txn(&put(), Purpose::Call).unwrap().was_repeated);
}

#[test]
fn where_no_endpoint_answers_each_is_asked_twice_and_what_may_be_done_is_said() {
    let lost = || Err(NoReply::Lost("closed".into()));
    let not_asked = || Err(NoReply::NotAsked("refused".into()));
    for (one, may_be_done) in [(lost(), true), (not_asked(), false)] {
        let script = vec![(0, not_asked()), (1, one), (0, not_asked()), (1, not_asked())];
        let (client, scripted) = client(2, false, script);
        let error = client.txn(&put(), Purpose::Call).unwrap_err();
        assert_eq!(error.may_be_done, may_be_done);
        assert_eq!(asked(&scripted).len(), 4);
    }
}

#[test]
fn what_every_member_would_refuse_is_asked_once() {
    for (code, message) in
        [(7, "etcdserver: permission denied"), (3, "etcdserver: too many operations in txn request")]
    {
        let (client, scripted) = client(3, false, vec![(0, refused(code, message))]);
        let error = client.txn(&put(), Purpose::Call).unwrap_err();
        assert!(!error.may_be_done && error.at("x").to_string().contains(message));
        assert_eq!(asked(&scripted).len(), 1);
    }
    let (client, _) = client(
        3,
        false,
        vec![(0, Err(NoReply::Lost("x".into()))), (1, refused(7, "etcdserver: permission denied"))],
    );
    assert!(client.txn(&put(), Purpose::Call).unwrap_err().may_be_done, "the first may have done it");
}

#[test]
fn an_answer_without_sense_counts_as_lost() {
    let script = vec![(0, reply(200, "{}")), (1, reply(200, "<html>")), (0, reply(200, DONE))];
    let (client, _) = client(2, false, script);
    assert!(client.txn(&put(), Purpose::Call).unwrap().was_repeated);
}

#[test]
fn a_token_is_asked_for_once_and_renewed_when_it_has_ended() {
    let token = |token: &str| reply(200, &format!(r#"{{"token":"{token}"}}"#));
    let (client, scripted) = client(
        1,
        true,
        vec![
            (0, token("one")),
            (0, reply(200, DONE)),
            (0, reply(200, DONE)),
            (0, reply(401, r#"{"error":"etcdserver: invalid auth token","code":16}"#)),
            (0, token("two")),
            (0, reply(200, DONE)),
        ],
    );
    for _ in 0..3 {
        assert!(!client.txn(&put(), Purpose::Call).unwrap().was_repeated, "a refused token did nothing");
    }
    let expected = [
        "0 authenticate no token",
        "0 txn one",
        "0 txn one",
        "0 txn one",
        "0 authenticate no token",
        "0 txn two",
    ];
    assert_eq!(asked(&scripted), expected);
}

#[test]
fn a_token_that_is_never_good_is_asked_for_a_few_times_and_no_more() {
    let mut script = Vec::new();
    for _ in 0..=RENEWALS_MAX {
        script.push((0, reply(200, r#"{"token":"t"}"#)));
        script.push((0, refused(16, "etcdserver: invalid auth token")));
    }
    let (client, scripted) = client(1, true, script);
    client.txn(&put(), Purpose::Call).unwrap_err();
    assert_eq!(asked(&scripted).len(), 2 * (RENEWALS_MAX + 1));
}

#[test]
fn where_etcd_has_no_users_none_is_named() {
    let (client, _) = client(
        1,
        true,
        vec![(0, refused(9, "etcdserver: authentication is not enabled")), (0, reply(200, DONE))],
    );
    client.txn(&put(), Purpose::Call).unwrap();
}

#[test]
fn a_wrong_password_is_said_without_it_and_without_the_token() {
    let (client, _) = client(
        1,
        true,
        vec![(0, refused(3, "etcdserver: authentication failed, invalid user ID or password"))],
    );
    let said = client.txn(&put(), Purpose::Call).unwrap_err();
    let said = format!("{said:?} {}", said.clone().at("x"));
    assert!(said.contains("store.password-file") && !said.contains("s3cret"), "{said}");
}

#[test]
fn an_answer_that_is_too_long_is_not_asked_for_again() {
    let (client, scripted) = client(3, false, vec![(0, Err(NoReply::TooLong))]);
    let read = Txn { then: vec![Op::Delete(Span::key("k"))], ..Txn::default() };
    assert!(client.txn(&read, Purpose::Call).unwrap_err().is_too_long());
    assert_eq!(asked(&scripted).len(), 1);
}

#[test]
fn a_heartbeat_is_no_progress_and_a_call_is_when_it_begins_and_when_it_ends() {
    let (client, _) = client(1, false, vec![(0, reply(200, DONE)), (0, reply(200, DONE))]);
    client.txn(&put(), Purpose::Heartbeat).unwrap();
    assert_eq!(client.progress(), 0);
    client.txn(&put(), Purpose::Call).unwrap();
    assert_eq!(client.progress(), 2);
}
