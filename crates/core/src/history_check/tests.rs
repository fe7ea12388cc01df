use super::*;
use crate::incarnation::Incarnation;
use crate::outcome::Outcome;
use crate::takeover::{OutcomeLine, Part, Phase};

fn service() -> ServiceName {
    ServiceName::parse("nfs").unwrap()
}

fn server(name: &str) -> ServerName {
    ServerName::parse(name).unwrap()
}

fn key(name: &str) -> RecordKey {
    RecordKey::parse(name).unwrap()
}

fn claim(generation: u64, owner: &str) -> Claim {
    Claim { adopts: generation > 1, ..Claim::new(Generation(generation), &server(owner), "agent", 0) }
}

fn life(start: &str) -> Incarnation {
    Incarnation { boot: "boot".into(), start: start.into(), reopened: 0 }
}

/// A generation whose run has settled, with these clients, of which the second ones were told.
fn settled(owner: &str, number: u32, clients: &[&str], told: &[&str]) -> Account {
    let journal = Journal {
        members: vec![(service(), Part::Target)],
        life: Some(life(owner)),
        ..Journal::quiet(&format!("run {number}"), &server(owner), 0)
    };
    Account {
        keys: clients.iter().map(|name| key(name)).collect(),
        state: Some(StateNumber(number)),
        journal: Some(journal),
        outcomes: told.iter().map(|name| OutcomeLine::new(key(name), Outcome::Acknowledged, 0)).collect(),
    }
}

/// One adoption from a to b, in which all goes well.
fn adopted() -> HistoryCheck {
    let mut check = HistoryCheck::default();
    check.newest(&service(), &claim(1, "a"));
    check.account(&service(), Generation(1), settled("a", 3, &["10.0.0.1", "10.0.0.2"], &[]));
    check.granted(&service(), &key("10.0.0.1"));
    check.newest(&service(), &claim(2, "b"));
    let keys = settled("b", 5, &["10.0.0.1", "10.0.0.2"], &[]).keys;
    check.begins(&service(), Generation(2), &keys);
    check.acts(&service(), Generation(2), &server("b"));
    check.account(&service(), Generation(2), settled("b", 5, &["10.0.0.1"], &["10.0.0.1", "10.0.0.2"]));
    check.told(&service(), &key("10.0.0.1"), StateNumber(5), "b/1");
    check.told(&service(), &key("10.0.0.1"), StateNumber(5), "b/1");
    check
}

fn broken(check: &HistoryCheck) -> Vec<(Rule, String)> {
    check.broken().map(|broken| (broken.rule, broken.what.clone())).collect()
}

/// What a third generation, of which this is changed, breaks.
fn third(change: impl FnOnce(&mut HistoryCheck)) -> Vec<(Rule, String)> {
    let mut check = adopted();
    change(&mut check);
    broken(&check)
}

#[test]
fn an_adoption_in_which_all_goes_well_breaks_nothing() {
    assert_eq!(broken(&adopted()), []);
    assert_eq!(adopted().generations_seen(), 2);
}

#[test]
fn a_generation_that_falls_or_is_held_again_is_found() {
    let falls = third(|check| check.newest(&service(), &claim(1, "a")));
    assert_eq!(
        falls,
        [(Rule::GenerationsRise, "the newest claim was that of generation 2, and is 1 now".to_owned())]
    );
    let again = third(|check| {
        check.newest(&service(), &Claim { released: true, ..claim(2, "b") });
        check.newest(&service(), &claim(2, "b"));
    });
    assert_eq!(again, [(Rule::GenerationsRise, "generation 2 was given up, and is held again".to_owned())]);
}

#[test]
fn a_second_server_in_a_generation_is_found_by_its_claim_its_journal_and_its_acts() {
    let claims = third(|check| check.newest(&service(), &claim(2, "a")));
    assert_eq!(claims, [(Rule::OneServer, "generation 2 was claimed by b, and is a's now".to_owned()),]);
    let acts = third(|check| check.acts(&service(), Generation(2), &server("a")));
    assert_eq!(acts, [(Rule::OneServer, "a acts in generation 2, which b claimed".to_owned())]);
    let writes = third(|check| {
        check.account(&service(), Generation(2), settled("a", 5, &[], &["10.0.0.1", "10.0.0.2"]));
    });
    assert_eq!(
        writes,
        [(Rule::OneServer, "a wrote the journal of generation 2, which b claimed".to_owned())]
    );
}

#[test]
fn a_client_that_the_next_generation_neither_has_nor_names_is_found() {
    let begins = third(|check| check.begins(&service(), Generation(3), &BTreeSet::new()));
    assert_eq!(
        begins,
        [(
            Rule::NoClientForgotten,
            "generation 3 begins without 10.0.0.1, which the one before had".to_owned()
        )]
    );
    let silent = third(|check| {
        check.newest(&service(), &claim(3, "a"));
        check.account(&service(), Generation(3), settled("a", 7, &["10.0.0.1"], &[]));
    });
    assert_eq!(
        silent,
        [(
            Rule::NoClientUnreported,
            "10.0.0.1 was on record before generation 3, whose run is over (settled) and says nothing of it"
                .to_owned()
        )]
    );
    let left = |count| {
        third(|check| {
            check.newest(&service(), &claim(3, "a"));
            let mut account = settled("a", 7, &["10.0.0.1"], &[]);
            account.journal.as_mut().unwrap().left_to_others = count;
            check.account(&service(), Generation(3), account);
        })
    };
    assert_eq!((left(0), left(1)), (silent, Vec::new()), "one is left to the server that has its service");
    let on = third(|check| {
        check.newest(&service(), &claim(3, "a"));
        let mut account = settled("a", 7, &["10.0.0.1"], &[]);
        account.journal.as_mut().unwrap().phase = Phase::Notifying;
        check.account(&service(), Generation(3), account);
    });
    assert_eq!(on, [], "the run goes on");
    let failed = third(|check| {
        check.newest(&service(), &claim(3, "a"));
        let mut account = settled("a", 7, &["10.0.0.1"], &[]);
        account.journal.as_mut().unwrap().failure = Some("the store failed".to_owned());
        check.account(&service(), Generation(3), account);
    });
    assert_eq!(failed, [], "the journal says why");
}

#[test]
fn a_client_that_was_seen_with_a_lock_and_is_on_no_record_is_found() {
    let unrecorded = third(|check| {
        check.granted(&service(), &key("10.0.0.9"));
        check.newest(&service(), &claim(3, "a"));
        check.account(&service(), Generation(3), settled("a", 7, &["10.0.0.1"], &["10.0.0.1"]));
    });
    assert_eq!(
        unrecorded,
        [(
            Rule::NoClientForgotten,
            "10.0.0.9 holds locks, and generation 3 takes the service over without it".to_owned()
        )]
    );
    let gave_up = third(|check| {
        check.granted(&service(), &key("10.0.0.9"));
        check.gave_up(&service(), &key("10.0.0.9"));
        check.newest(&service(), &claim(3, "a"));
        check.account(&service(), Generation(3), settled("a", 7, &["10.0.0.1"], &["10.0.0.1"]));
    });
    assert_eq!(gave_up, []);
}

#[test]
fn a_number_of_two_generations_or_of_two_lives_is_found() {
    let third_has = |number: u32, owner: &str| {
        third(|check| {
            check.newest(&service(), &claim(3, owner));
            check.account(&service(), Generation(3), settled(owner, number, &["10.0.0.1"], &["10.0.0.1"]));
        })
    };
    let said = |number: u32, before: u32| {
        let what = format!("generation 3 has the number {number}, and generation {before} had it");
        vec![(Rule::NumbersUsedOnce, what)]
    };
    assert_eq!(third_has(5, "a"), said(5, 2));
    assert_eq!(third_has(3, "b"), said(3, 1));
    assert_eq!(third_has(1, "a"), [], "numbers start over at the end of their range");
    assert_eq!(third_has(5, "b"), [], "the run goes on in the same life");
    let told = third(|check| check.told(&service(), &key("10.0.0.1"), StateNumber(5), "b/2"));
    assert_eq!(
        told,
        [(Rule::NumbersUsedOnce, "10.0.0.1 is told number 5 in the life b/2, and was in b/1".to_owned())]
    );
}
