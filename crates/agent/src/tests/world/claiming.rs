//! Adoptions whose claim meets a store that fails.

use std::sync::Mutex;

use heirlock_core::store::StoreErrorKind;

use super::troubled::{Fault, Faults, Troubled};
use super::*;

/// What a run waits for, and for how many milliseconds at most.
type Waits = (String, Option<u64>);

/// A caller that keeps all that it is told.
#[derive(Debug, Default, Clone)]
struct Told {
    waits: Arc<Mutex<Vec<Waits>>>,
    answer: Arc<Mutex<Option<Result<Answer, Failure>>>>,
}

impl Respond for Told {
    fn progress(&mut self, progress: &Progress) -> bool {
        let waits = progress.wait.iter().map(|wait| (wait.for_what.clone(), wait.at_most_ms));
        self.waits.lock().unwrap().extend(waits);
        true
    }

    fn end(self: Box<Self>, answer: Result<Answer, Failure>) {
        *self.answer.lock().unwrap() = Some(answer);
    }
}

impl Told {
    fn answer(&self) -> Option<Result<Answer, Failure>> {
        self.answer.lock().unwrap().clone()
    }
}

/// An adoption of `new` that is asked for, on a store that meets these faults once its needs were found.
fn asked_for_with(faults: &[Fault]) -> (InMemory, Faults, Agent<Here>, Told) {
    let (store, agent) = begun();
    let made = Faults::default();
    let mut agent = again(&agent, Box::new(Troubled::new(&store, &made)));
    agent.do_what_is_due();
    let told = Told::default();
    agent.handle(Message::Request(Box::new(insisting()), Responder::new(told.clone())));
    faults.iter().for_each(|fault| made.add(fault.clone()));
    (store, made, agent, told)
}

fn fails(calls: &'static [&'static str]) -> Fault {
    Fault::of(&service("new"), calls)
}

#[test]
fn a_claim_that_fails_with_a_call_of_the_store_is_tried_again_and_its_caller_is_told_so() {
    for (calls, is_done) in [
        (&["check_records"] as &[&str], false),
        (&["newest_generation"], false),
        (&["claim"], false),
        (&["claim"], true),
        (&["load"], false),
    ] {
        let what = format!("{calls:?}, done: {is_done}");
        let (store, faults, mut agent, told) = asked_for_with(&[Fault { is_done, ..fails(calls) }]);
        goes_on(&mut agent, Duration::from_secs(4));
        assert!(told.answer().is_none(), "{what}: {:?}", told.answer());
        let waits = told.waits.lock().unwrap().clone();
        let of_store = waits.iter().find(|(what, _)| what.contains("the store to work again"));
        let (waits_for, at_most_ms) = of_store.unwrap_or_else(|| panic!("{what}: {waits:?}"));
        assert!(waits_for.contains(calls[0]) && *at_most_ms == Some(30_000), "{waits_for}: {at_most_ms:?}");
        // A claim that was made all the same is found, and the run goes on.
        assert_eq!(agent.outside().world().told.is_empty(), !is_done, "{what}");
        faults.mend();
        goes_on(&mut agent, Duration::from_secs(1));
        let world = agent.outside().world();
        assert!(world.told.len() >= 2, "{what}: it goes on within a second: {:?}", world.begun);
        drop(world);
        goes_on(&mut agent, GRACE + Duration::from_secs(5));
        assert!(matches!(told.answer(), Some(Ok(_))), "{what}: {:?}", told.answer());
        let claim = store.newest_claim(&service("new")).unwrap().unwrap();
        assert_eq!(
            (claim.owner.as_str(), claim.generation),
            ("nfs-b", Generation(2)),
            "{what}: claimed once"
        );
    }
}

#[test]
fn a_claim_is_refused_once_the_store_has_failed_for_long_enough() {
    for calls in [&["check_records"], &["claim"], &["load"]] as [&[&str]; 3] {
        let (store, _, mut agent, told) = asked_for_with(&[fails(calls)]);
        goes_on(&mut agent, Duration::from_secs(29));
        assert!(told.answer().is_none(), "{calls:?}: {:?}", told.answer());
        goes_on(&mut agent, Duration::from_secs(3));
        let why = told.answer().unwrap().unwrap_err().message;
        assert!(why.contains("the store of the test fails"), "{calls:?}: {why}");
        let is_claimed = store.newest_claim(&service("new")).unwrap().unwrap().owner.as_str() == "nfs-b";
        assert_eq!(is_claimed, calls == ["load"]);
    }
}

#[test]
fn a_claim_that_can_not_get_better_by_waiting_is_refused_at_once() {
    for kind in
        [StoreErrorKind::Wrong, StoreErrorKind::Older, StoreErrorKind::Entry, StoreErrorKind::Unexpected]
    {
        let of_host = host();
        // Whatever else fails meanwhile.
        let other = Fault::of(&of_host, &["check_records"]);
        let faults = [Fault { kind: kind.clone(), ..fails(&["check_records"]) }, other];
        let (_, _, mut agent, told) = asked_for_with(&faults);
        goes_on(&mut agent, Duration::from_millis(100));
        let failure = told.answer().unwrap_or_else(|| panic!("{kind:?}")).unwrap_err();
        assert!(
            failure.refused && told.waits.lock().unwrap().iter().all(|(what, _)| !what.contains("store"))
        );
    }
}

#[test]
fn while_a_claim_is_tried_again_a_claim_of_another_server_is_seen_and_it_is_refused() {
    let (store, faults, mut agent, told) = asked_for_with(&[fails(&["claim"])]);
    goes_on(&mut agent, Duration::from_secs(3));
    assert!(agent.knows_its_holdings(), "a claim that was not made keeps nothing up");
    let other = Claim::new(Generation(9), &"nfs-c".parse().unwrap(), "run-c", 0);
    store.claim(&service("new"), &other).unwrap();
    faults.mend();
    goes_on(&mut agent, Duration::from_secs(1));
    // The operator insists, and so it is claimed from that one: above it.
    let claim = store.newest_claim(&service("new")).unwrap().unwrap();
    assert_eq!((claim.owner.as_str(), claim.generation), ("nfs-b", Generation(10)));
    assert!(told.answer().is_none());
}

/// A caller says a verb when the store has this fault.
fn says_with(request: Request, fault: Fault) -> (Faults, Agent<Here>, Told) {
    let (store, agent) = begun();
    let (faults, told) = (Faults::default(), Told::default());
    let mut agent = again(&agent, Box::new(Troubled::new(&store, &faults)));
    agent.do_what_is_due();
    faults.add(fault);
    agent.handle(Message::Request(Box::new(request), Responder::new(told.clone())));
    (faults, agent, told)
}

#[test]
fn a_verb_is_not_refused_for_a_read_of_the_store_that_fails_before_its_claim() {
    for times in [1, 3] {
        let (_, mut agent, told) = says_with(insisting(), Fault { times, ..fails(&["newest_claim"]) });
        assert!(told.answer().is_none(), "{:?}", told.answer());
        goes_on(&mut agent, GRACE + Duration::from_secs(10));
        assert!(matches!(told.answer(), Some(Ok(_))), "{times}: {:?}", told.answer());
    }
    let to = "nfs-b".parse().unwrap();
    let moved = Request::Move { service: service("new"), to, answer_when: AnswerWhen::Settled };
    let (_, mut agent, told) = says_with(moved, Fault { times: 1, ..fails(&["newest_claim"]) });
    assert!(told.answer().is_none(), "{:?}", told.answer());
    goes_on(&mut agent, Duration::from_secs(5));
    let waits = told.waits.lock().unwrap().clone();
    assert!(told.answer().is_none(), "{:?}", told.answer());
    assert!(
        waits.iter().any(|(what, _)| what.contains("nfs-a to give new up")),
        "its owner is asked: {waits:?}"
    );
}

#[test]
fn a_verb_is_refused_where_the_store_has_failed_for_long_enough_or_will_not_get_better() {
    let (_, mut agent, told) = says_with(insisting(), fails(&["newest_claim"]));
    goes_on(&mut agent, Duration::from_secs(29));
    assert!(told.answer().is_none(), "{:?}", told.answer());
    let waits = told.waits.lock().unwrap().clone();
    assert!(waits.iter().any(|(what, _)| what.contains("the store to work: newest_claim")), "{waits:?}");
    goes_on(&mut agent, Duration::from_secs(3));
    let failure = told.answer().unwrap().unwrap_err();
    assert!(failure.refused && failure.message.contains("newest_claim: the store"), "{failure:?}");
    let wrong = Fault { kind: StoreErrorKind::Wrong, ..fails(&["newest_claim"]) };
    let (_, _, told) = says_with(insisting(), wrong);
    assert!(told.answer().is_some_and(|answer| answer.unwrap_err().refused), "at once");
}
