//! Clients that register again before they have answered under every name of the service.

use super::*;

/// A run that tells its clients, of which 10.0.0.1 is one of both services: it has a lock that is moved here, and was a client of this
/// server before. `first` came before clients were told.
fn notifying_a_client_of_both(first: &[&str]) -> (Takeover, Kept) {
    let (mut run, mut kept) = asked_for();
    let won = vec![claimed("nfs", 5, &["10.0.0.1"], &[7]), claimed("home", 2, &["10.0.0.1"], &[3])];
    let then = [Event::Registered(first.iter().map(|who| client(who)).collect()), Event::BroughtUp(Ok(()))];
    for event in until_proved(won).into_iter().chain(then) {
        kept.persist(&run.step(at(1_500), event));
    }
    (run, kept)
}

/// It answers for one service and then for the other; nothing shows its registration again.
fn expect_back_with_its_answers(mut run: Takeover, mut kept: Kept) {
    for name in ["nfs", "home"] {
        assert!(!run.are_all_clients_back(), "it has not answered for {name}");
        ack(&mut run, &mut kept, name, "10.0.0.1");
    }
    for name in ["nfs", "home"] {
        let last = kept.of(&service(name)).outcomes.last().map(|line| line.outcome);
        assert_eq!(last, Some(Outcome::ReRegistered), "{name}");
        ended(&mut run, &mut kept, name, &[]);
    }
    let end = end_of(&tick(&mut run, &mut kept, 12_100, &["10.0.0.1"]));
    assert_eq!(outcome_of(&end, "nfs", "10.0.0.1"), Some(Outcome::ReRegistered));
}

#[test]
fn a_client_of_two_services_that_reclaims_at_its_first_name_is_back_as_soon_as_it_has_answered_to_all() {
    let (mut run, mut kept) = notifying_a_client_of_both(&[]);
    kept.persist(&run.step(at(1_550), Event::Registered([client("10.0.0.1")].into())));
    expect_back_with_its_answers(run, kept);
}

#[test]
fn a_client_that_registered_before_clients_were_told_is_back_as_soon_as_it_has_answered() {
    let (run, kept) = notifying_a_client_of_both(&["10.0.0.1"]);
    expect_back_with_its_answers(run, kept);
}

#[test]
fn a_client_that_registered_and_does_not_answer_is_not_back() {
    let (mut run, mut kept) = notifying_a_client_of_both(&["10.0.0.1"]);
    ack(&mut run, &mut kept, "nfs", "10.0.0.1");
    ended(&mut run, &mut kept, "nfs", &[]);
    ended(&mut run, &mut kept, "home", &[("10.0.0.1", Outcome::Unreachable)]);
    assert!(!run.are_all_clients_back(), "it is told of one service alone");
    let end = end_of(&tick(&mut run, &mut kept, 17_000, &["10.0.0.1"]));
    assert_eq!(outcome_of(&end, "nfs", "10.0.0.1"), Some(Outcome::ReRegistered));
    assert_eq!(outcome_of(&end, "home", "10.0.0.1"), Some(Outcome::Unreachable));
}
