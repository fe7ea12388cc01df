//! Adoptions that meet, at each moment of the first one.

use super::super::tests::{Kept, at, claimed, client, end_of, life, plan, recognition, service, tick};
use super::super::{Conveyance, Event, Persist, Plan, Standing, Strategy};
use super::*;
use crate::Outcome;

/// An adoption of a service that may claim.
fn ready(name: &str, until: Until) -> Takeover {
    let standing = Standing { own: vec![service("home")], ..Standing::default() };
    let mut run = asked_for(name, until, standing);
    let _ = run.step(at(1_000), Event::Fit(Ok(())));
    assert!(run.is_ready_to_claim());
    run
}

/// One whose needs are being looked for.
fn asked_for(name: &str, until: Until, standing: Standing) -> Takeover {
    let plan = Plan {
        run: name.into(),
        targets: vec![service(name)],
        standing,
        ..plan(Strategy::RestartNfs, until)
    };
    let mut run = Takeover::new(at(0), plan);
    let _ = run.step(at(0), Event::Start);
    run
}

fn won(services: &[(&str, u64)]) -> Event {
    let won = services.iter().map(|(name, generation)| claimed(name, *generation, &["10.0.0.1"], &[3]));
    Event::Claimed { won: won.collect(), refused: Vec::new(), unread: Vec::new() }
}

/// The names of the services that it asks to claim, those that it takes over first.
fn asks_for(run: &Takeover) -> Vec<(String, Part)> {
    let Action::Claim { services, .. } = run.claim() else { panic!() };
    services.into_iter().map(|(service, part)| (service.to_string(), part)).collect()
}

/// How far the first adoption is when the second may claim, in the events of its own.
fn events() -> Vec<(Event, bool, bool)> {
    // After each: whether it makes way now, and whether that takes another restart.
    vec![
        (won(&[("a", 5), ("home", 2)]), true, false),
        (Event::Conveyed(Ok(Vec::new())), true, false),
        (Event::Begun(Work::Recognition), false, true),
        (recognition(life("2")), false, true),
        (Event::Proved(Ok(())), true, true),
        (Event::BroughtUp(Ok(())), true, true),
    ]
}

#[test]
fn an_adoption_claims_before_the_lock_manager_is_restarted_for_another_and_once_that_is_proved() {
    let mut first = ready("a", Until::Settled);
    let second = ready("b", Until::Settled);
    let mut starts_first = second.clone();
    starts_first.will_start_first();
    for (event, makes_way, was_touched) in events() {
        let what = format!("{event:?}");
        let _ = first.step(at(1_000), event);
        let turn = |run: &Takeover| run.turn(at(1_000), Some(&first), [].into_iter()).unwrap();
        let expected = if makes_way { Turn::Claims } else { Turn::WaitsForRecognition };
        assert_eq!(turn(&second), expected, "{what}");
        let of_first_start = if makes_way && was_touched { Turn::WaitsForEnd } else { expected };
        assert_eq!(turn(&starts_first), of_first_start, "{what}");
        assert_eq!(first.is_before_recognition(), !was_touched, "{what}");
    }
}

#[test]
fn an_adoption_waits_for_others_that_are_being_looked_at_and_not_for_long() {
    let run = ready("a", Until::Settled);
    let checked = asked_for("b", Until::Settled, Standing::default());
    let until = at(1_000) + limits::JOINING_TIME_MAX;
    let turn = |now, others: &[Takeover]| run.turn(now, None, others.iter());
    assert_eq!(turn(at(1_000), std::slice::from_ref(&checked)), Some(Turn::WaitsForOthers(until)));
    assert_eq!(turn(until, std::slice::from_ref(&checked)), Some(Turn::Claims));
    assert_eq!(turn(at(1_000), &[ready("b", Until::Settled)]), Some(Turn::Claims), "they go together");
    assert_eq!(checked.turn(at(1_000), None, [run.clone()].iter()), None, "it may not claim yet");
    let mut claimed = run.clone();
    let _ = claimed.step(at(1_000), won(&[("a", 5)]));
    assert_eq!(claimed.turn(at(1_000), None, [].into_iter()), None, "it has claimed");
}

#[test]
fn adoptions_that_may_claim_at_once_are_one_run_and_each_claim_has_its_own_permission() {
    let mut run = ready("a", Until::Prepared);
    let insists = Authority { insisted: true, ..Authority::default() };
    let mut other = ready("b", Until::Prepared);
    other.plan.authority = insists.clone();
    run.joined_by(other.clone());
    assert_eq!(run.targets(), [service("a"), service("b")]);
    assert_eq!(run.plan.until, Until::Prepared, "both wait for a word");
    let Action::Claim { authority, .. } = run.claim() else { panic!() };
    assert_eq!((authority.of(&service("a")), authority.of(&service("b"))), (&Authority::default(), &insists));
    let steps = run.step(at(1_000), won(&[("a", 5), ("b", 7), ("home", 2)]));
    let begun = steps.persist.iter().map(|one| one.generation().0.to_string()).collect::<Vec<_>>();
    assert_eq!(begun, ["a", "b", "home"]);
    let [Action::Convey { services, how: Conveyance::Generate }] = steps.then.as_slice() else { panic!() };
    assert_eq!(services.len(), 2, "of each that is taken over");

    let mut insisted = ready("a", Until::Prepared);
    insisted.plan.authority = insists.clone();
    let Action::Claim { authority, .. } = insisted.claim() else { panic!() };
    assert_eq!(authority.of(&service("a")), &insists);
    assert_eq!(
        authority.of(&service("home")),
        &Authority::default(),
        "nothing was said of what is held here"
    );

    let mut run = ready("a", Until::Prepared);
    run.joined_by(ready("b", Until::Settled));
    assert_eq!(run.plan.until, Until::Settled, "no client of b waits for a word on a");
    assert_eq!(run.met.prepared, [service("a")].into());
    let mut third = ready("c", Until::Settled);
    third.joined_by(other);
    run.joined_by(third);
    let Action::Claim { authority, .. } = run.claim() else { panic!() };
    assert_eq!(authority.of(&service("b")), &insists, "of one that had joined the joining one");
}

#[test]
fn a_joined_service_that_can_not_be_claimed_leaves_the_other_alone() {
    let mut run = ready("a", Until::Settled);
    run.joined_by(ready("b", Until::Settled));
    let refused = vec![(service("a"), "its owner lives".to_owned())];
    let won = vec![claimed("b", 7, &["10.0.0.1"], &[3]), claimed("home", 2, &[], &[3])];
    let steps = run.step(at(1_000), Event::Claimed { won, refused, unread: Vec::new() });
    assert!(matches!(steps.then.as_slice(), [Action::Convey { .. }]), "{steps:?}");
    assert_eq!((run.targets(), run.is_over()), ([service("b")].as_slice(), false));
}

/// The first adoption as far as this, and the second, which is about to take its place. What the store says of the services is what
/// the journals of the first lead to.
fn meet(count: usize) -> (Takeover, Takeover) {
    let mut first = ready("a", Until::Settled);
    for (event, ..) in events().into_iter().take(count) {
        let _ = first.step(at(1_000), event);
    }
    let mut second = ready("b", Until::Prepared);
    let own = vec![service("a"), service("home")];
    second.stands(Standing { lost: own.clone(), own, ..Standing::default() });
    second.takes_place_of(first.hands_on());
    (first, second)
}

#[test]
fn the_second_takes_over_what_the_first_was_to_and_neither_waits_for_a_word_on_the_other() {
    for events in [1, 2, 5, 6] {
        let (_, mut second) = meet(events);
        let expected = [("b", Part::Target), ("a", Part::Own), ("home", Part::Own)];
        assert_eq!(asks_for(&second), expected.map(|(name, part)| (name.to_owned(), part)));
        let steps = second.step(at(2_000), won(&[("b", 7), ("a", 6), ("home", 3)]));
        assert_eq!(second.targets(), [service("b"), service("a")], "after {events} events");
        assert_eq!(second.plan.until, Until::Settled);
        let journal = |one: &Persist| match one {
            Persist::Begin { journal, .. } => journal.members.clone(),
            other => panic!("{other:?}"),
        };
        let members = [("b", Part::Target), ("a", Part::Target), ("home", Part::Own)];
        let members = members.map(|(name, part)| (service(name), part)).to_vec();
        assert!(steps.persist.iter().all(|one| journal(one) == members), "as one run: {steps:?}");
    }
}

#[test]
fn a_service_that_the_first_has_claimed_and_not_begun_is_taken_along_as_well() {
    let (_, mut second) = meet(1);
    second.stands(Standing { own: vec![service("home")], ..Standing::default() });
    let asked = asks_for(&second);
    assert!(asked.contains(&("a".to_owned(), Part::Own)), "{asked:?}");
    let steps = second.step(at(2_000), won(&[("b", 7), ("home", 3), ("a", 6)]));
    assert_eq!((steps.persist.len(), second.targets().len()), (3, 2));
}

#[test]
fn a_second_adoption_that_is_refused_takes_nothing_along() {
    for (won, refused) in [
        (vec![], vec!["b"]),
        // Its clients would not be told, and the run that tells them would be gone.
        (vec![claimed("b", 7, &[], &[3]), claimed("home", 3, &[], &[3])], vec!["a"]),
    ] {
        let (_, mut second) = meet(6);
        let refused = refused.into_iter().map(|name| (service(name), "the store fails".to_owned())).collect();
        let steps = second.step(at(2_000), Event::Claimed { won, refused, unread: Vec::new() });
        let end = end_of(&steps);
        assert!(end.is_before_the_beginning() && steps.persist.is_empty(), "{end:?}");
    }
}

/// Outside grace a lock manager may have granted locks to others whose holders were not told in it. It has granted none of those that
/// it was not restarted for.
#[test]
fn locks_that_the_first_had_not_dropped_are_not_lost_for_good() {
    for (events, is_lost) in [(1, false), (2, false), (6, true)] {
        let (_, mut second) = meet(events);
        let mut kept = Kept::default();
        kept.persist(&second.step(at(2_000), won(&[("b", 7), ("a", 6), ("home", 3)])));
        assert_eq!(second.owes_already(), is_lost, "after {events} events");
        kept.persist(&second.step(at(2_000), Event::Conveyed(Ok(Vec::new()))));
        let Event::Recognised(Ok(recognised)) = recognition(life("3")) else { panic!() };
        let late = super::super::Recognition { too_late_for_the_lost: true, ..recognised };
        kept.persist(&second.step(at(2_000), Event::Recognised(Ok(late))));
        for name in ["a", "home"] {
            let lost = kept.of(&service(name)).outcomes.iter().filter(|line| line.is_final).count();
            assert_eq!(lost, usize::from(is_lost), "{name} after {events} events");
        }
    }
}

#[test]
fn clients_that_were_told_before_the_first_are_known_to_the_second() {
    let mut first = ready("a", Until::Settled);
    let told = BTreeSet::from([client("10.0.0.1")]);
    let home = Claimed { told: told.clone(), ..claimed("home", 2, &["10.0.0.1"], &[3]) };
    let both = vec![claimed("a", 5, &["10.0.0.1"], &[3]), home];
    let _ = first.step(at(1_000), Event::Claimed { won: both, refused: Vec::new(), unread: Vec::new() });
    let mut second = ready("b", Until::Settled);
    second.takes_place_of(first.hands_on());
    let _ = second.step(at(1_000), won(&[("b", 7), ("a", 6), ("home", 3)]));
    let of = |name: &str| second.members.iter().find(|member| member.service == service(name)).unwrap();
    assert_eq!((&of("home").told_before, of("a").told_before.len()), (&told, 0));
}

/// Work that hangs holds an adoption up before it restarts the lock manager, and another program restarts it meanwhile: grace of
/// that life may end before any client is told of it.
#[test]
fn locks_that_go_while_an_adoption_is_held_up_are_lost_for_good_once_grace_has_ended_also_those_of_clients_told_before()
 {
    let told = BTreeSet::from([client("10.0.0.1")]);
    for (changed, is_handed_on) in [(false, false), (true, false), (true, true)] {
        let mut run = ready("a", Until::Settled);
        run.stands(Standing {
            own: vec![service("home")],
            lost: vec![service("home")],
            ..Standing::default()
        });
        let home = Claimed { told: told.clone(), ..claimed("home", 2, &["10.0.0.1"], &[3]) };
        let both = vec![claimed("a", 5, &["10.0.0.1"], &[3]), home];
        let mut kept = Kept::default();
        kept.persist(&run.step(at(1_000), Event::Claimed { won: both, refused: vec![], unread: vec![] }));
        assert!(run.heeds_lives());
        if changed {
            assert_eq!(run.step(at(1_500), Event::LifeChanged), Steps::nothing());
        }
        if is_handed_on {
            let mut second = ready("b", Until::Settled);
            second.stands(Standing { own: vec![service("home")], ..Standing::default() });
            second.takes_place_of(run.hands_on());
            run = second;
            kept.persist(&run.step(at(2_000), won(&[("b", 7), ("a", 6), ("home", 3)])));
        }
        kept.persist(&run.step(at(20_000), Event::Conveyed(Ok(Vec::new()))));
        kept.persist(&run.step(at(20_000), Event::Begun(Work::Recognition)));
        assert!(!run.heeds_lives(), "the next life is its own");
        let Event::Recognised(Ok(recognised)) = recognition(life("3")) else { panic!() };
        let late = super::super::Recognition { too_late_for_the_lost: true, ..recognised };
        kept.persist(&run.step(at(20_100), Event::Recognised(Ok(late))));
        let lost = kept.of(&service("home")).outcomes.iter().filter(|line| line.is_final).count();
        assert_eq!(lost, usize::from(changed), "changed: {changed}, handed on: {is_handed_on}");
        assert!(kept.of(&service("a")).outcomes.is_empty(), "its locks were on the server that is dead");
    }
}

/// Two services are taken over by one run, and its clients are being told: a's at once, b's when its address is here.
fn telling_both() -> (Takeover, Kept) {
    let mut run = ready("a", Until::Settled);
    run.joined_by(ready("b", Until::Settled));
    let won = vec![claimed("a", 5, &["10.0.0.1"], &[3]), claimed("b", 7, &["10.0.0.2"], &[3])];
    let kept = goes_on_until(&mut run, won, Event::Served(service("a")));
    (run, kept)
}

/// A run that has won these services goes on until its services can be told, and to this event. Answers what is kept of it.
fn goes_on_until(run: &mut Takeover, won: Vec<Claimed>, last: Event) -> Kept {
    let mut kept = Kept::default();
    for event in [
        Event::Claimed { won, refused: Vec::new(), unread: Vec::new() },
        Event::Conveyed(Ok(Vec::new())),
        recognition(life("2")),
        Event::Proved(Ok(())),
        Event::BroughtUp(Ok(())),
        last,
    ] {
        kept.persist(&run.step(at(1_000), event));
    }
    kept
}

fn comes_back(run: &mut Takeover, kept: &mut Kept, name: &str, of: &str) {
    let clients = vec![client(of).client().clone()];
    kept.persist(&run.step(at(2_000), Event::Acknowledged { service: service(name), clients }));
    kept.persist(&run.step(at(2_000), Event::NotifyEnded { service: service(name), left: Vec::new() }));
    kept.persist(&run.step(at(2_000), Event::Registered([client(of)].into())));
}

#[test]
fn a_caller_waits_for_the_clients_of_its_own_service_alone() {
    let (mut run, mut kept) = telling_both();
    let (a, b) = (service("a"), service("b"));
    assert!(!run.has_tried_all_of(&a) && !run.is_settled_for(&a));
    comes_back(&mut run, &mut kept, "a", "10.0.0.1");
    assert!(run.has_tried_all_of(&a) && run.is_settled_for(&a), "{run:?}");
    assert!(!run.has_tried_all_of(&b) && !run.is_settled_for(&b) && !run.is_over());
    comes_back(&mut run, &mut kept, "b", "10.0.0.2");
    assert!(run.is_settled_for(&b));
    assert!(matches!(end_of(&tick(&mut run, &mut kept, 3_000, &[])), End::Settled(_)));
}

#[test]
fn a_service_that_is_only_to_be_prepared_says_so_though_the_run_goes_on_with_another_one() {
    let mut run = ready("a", Until::Settled);
    run.joined_by(ready("b", Until::Prepared));
    let won = vec![claimed("a", 5, &["10.0.0.1"], &[3]), claimed("b", 7, &["10.0.0.2"], &[3])];
    let claimed = Event::Claimed { won, refused: Vec::new(), unread: Vec::new() };
    for event in [claimed, Event::Conveyed(Ok(Vec::new())), recognition(life("2")), Event::Proved(Ok(()))] {
        let _ = run.step(at(1_000), event);
    }
    assert!(!run.awaits_finish() && run.is_prepared_besides(&service("b")));
    assert!(!run.is_prepared_besides(&service("a")), "its clients are told at once");
    let mut told = run.clone();
    told.has_word_for(&service("b"));
    assert!(!told.is_prepared_besides(&service("b")));
    let _ = run.step(at(1_000), Event::Served(service("b")));
    assert!(!run.is_prepared_besides(&service("b")), "its address is here");
}

#[test]
fn an_adoption_whose_address_never_comes_is_no_failure_of_the_other_one() {
    let (mut run, mut kept) = telling_both();
    comes_back(&mut run, &mut kept, "a", "10.0.0.1");
    let left = vec![(client("10.0.0.2").client().clone(), Outcome::Lost, "no address".to_owned())];
    kept.persist(&run.step(at(3_000), Event::NotifyEnded { service: service("b"), left }));
    let end = end_of(&tick(&mut run, &mut kept, 60_000, &[]));
    assert!(matches!(run.end_for(&service("a"), &end), End::Settled(_)));
    assert!(matches!(
        run.end_for(&service("b"), &end),
        End::Failed { hindrance: Hindrance::NoClientCalled, .. }
    ));
    let failures = ["a", "b"].map(|name| kept.of(&service(name)).journal.failure.is_some());
    assert_eq!(failures, [false, true]);
}

#[test]
fn an_adoption_that_is_taken_back_before_it_is_claimed_leaves_the_other_one() {
    let mut run = ready("a", Until::Settled);
    assert!(!run.goes_on_without(&service("a")), "there is none but it");
    run.joined_by(ready("b", Until::Settled));
    assert!(run.goes_on_without(&service("a")));
    assert_eq!(run.targets(), [service("b")]);
}

/// A caller asked for a service that this server holds and whose clients the run tells: it waits for that run.
#[test]
fn a_service_that_is_told_with_others_does_not_fail_where_these_leave_the_run() {
    let mut run = ready("a", Until::Settled);
    let won = vec![claimed("a", 5, &["10.0.0.1"], &[3]), claimed("home", 2, &["10.0.0.8"], &[3])];
    let mut kept = goes_on_until(&mut run, won, Event::GivenUp(service("a")));
    comes_back(&mut run, &mut kept, "home", "10.0.0.8");
    let end = end_of(&tick(&mut run, &mut kept, 3_000, &[]));
    assert!(matches!(run.end_for(&service("home"), &end), End::Settled(_)), "{end:?}");
    assert!(matches!(run.end_for(&service("a"), &end), End::Failed { hindrance: Hindrance::Released, .. }));
}
