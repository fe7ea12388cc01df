use std::fs;

use heirlock_agent::{Look, News, Outside};
use heirlock_core::grace::Probe;
use heirlock_core::incarnation::{Incarnation, Observation};
use heirlock_core::takeover::{Event, Phase};

use crate::agent::testing::{Place, place_with, service};

/// A server whose client has locked before its agent knew the lock manager.
fn with_a_client_of_an_unknown_life() -> Place {
    let mut place = place_with("home = \"nfs-b\"\n");
    let line = format!("0100007f 000186b5 00000003 00000010 {:032x} 10.0.0.1 nfs-b\n", 7);
    fs::write(place.directory.path().join("nfs/sm/10.0.0.1"), line).unwrap();
    place.hint();
    place.turn();
    assert_eq!(place.agent.held()[&service("nfs")].ledger.stored().len(), 1);
    place
}

fn look(place: &mut Place, start: &str, serving: bool) -> Incarnation {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned();
    let observation = Observation { boot, start: Some(start.into()), in_grace: None, serving };
    let look = Look { at: place.agent.outside().now(), observation };
    place.hear(News::Observed(Box::new(Ok(look))));
    place.turn();
    place.agent.lives().current().cloned().unwrap()
}

fn answers(place: &mut Place, life: &Incarnation, answer: Probe) {
    place.hear(News::GraceAsked(life.clone(), (answer, "so it says".into())));
    place.turn();
}

fn life_noted(place: &Place) -> Option<&Incarnation> {
    place.agent.held()[&service("nfs")].journal.life.as_ref()
}

#[test]
fn an_agent_that_is_started_beside_a_server_with_clients_asks_and_leaves_them_alone_outside_grace() {
    let mut place = with_a_client_of_an_unknown_life();
    let life = look(&mut place, "1", true);
    let asked = place.next_that(|message| match message {
        News::GraceAsked(of, answer) => Some((of, answer)),
        _ => None,
    });
    assert_eq!((&asked.0, asked.1.0), (&life, Probe::NoAnswer), "no lock manager is there to be asked");
    for answer in [Probe::NoAnswer, Probe::NotInGrace] {
        assert_eq!((place.phase(), place.claims("nfs"), life_noted(&place)), (None, 1, None));
        answers(&mut place, &life, answer);
        let said = place.agent.earlier_lock_problems().iter().any(|p| p.service.as_deref() == Some("nfs"));
        assert_eq!(said, answer == Probe::NoAnswer);
    }
    assert_eq!((place.phase(), place.claims("nfs"), life_noted(&place)), (None, 1, Some(&life)));
}

#[test]
fn clients_of_an_unknown_life_are_told_while_grace_is_open() {
    let mut place = with_a_client_of_an_unknown_life();
    let life = look(&mut place, "1", true);
    answers(&mut place, &life, Probe::InGrace);
    assert_eq!((place.phase(), place.claims("nfs")), (Some(Phase::Conveyed), 2));
}

#[test]
fn clients_of_an_unknown_life_are_told_after_a_life_that_began_under_our_eyes_and_no_answer_of_the_one_before_counts()
 {
    let mut place = with_a_client_of_an_unknown_life();
    let first = look(&mut place, "1", false);
    look(&mut place, "2", false);
    answers(&mut place, &first, Probe::NotInGrace);
    assert_eq!((place.phase(), life_noted(&place)), (None, None), "it does not serve yet");
    look(&mut place, "2", true);
    assert_eq!((place.phase(), place.claims("nfs")), (Some(Phase::Conveyed), 2));
}

#[test]
fn a_self_adoption_goes_on_while_another_run_is_checked_and_makes_way_when_that_has_claimed() {
    let mut place = with_a_client_of_an_unknown_life();
    let life = look(&mut place, "1", true);
    answers(&mut place, &life, Probe::InGrace);
    let own = place.number();
    let is_on = |place: &Place| place.agent.run().as_ref().map(|running| running.number);
    place.begin("new");
    let asked = place.number();
    assert_eq!((is_on(&place), place.claims("new")), (Some(own), 0), "nothing is claimed yet");
    place.agent.worked_for(asked, Event::Fit(Err("it can't work here".into())));
    assert!(place.agent.asked().is_empty(), "it was refused");
    assert_eq!(
        (is_on(&place), place.phase()),
        (Some(own), Some(Phase::Conveyed)),
        "and nothing else was touched"
    );

    place.begin("new");
    let asked = place.number();
    place.agent.worked_for(asked, Event::Fit(Ok(())));
    assert_eq!((is_on(&place), place.claims("new"), place.claims("nfs")), (Some(asked), 1, 3));
    let running = place.agent.run().as_ref().unwrap();
    assert!(
        running.machine.has_member(&service("nfs")),
        "its clients are told by the run that took its place"
    );
}

#[test]
fn a_self_adoption_begins_while_another_run_is_still_checked() {
    let mut place = with_a_client_of_an_unknown_life();
    place.begin("new");
    let asked = place.number();
    let life = look(&mut place, "1", true);
    answers(&mut place, &life, Probe::InGrace);
    assert_eq!(place.claims("nfs"), 2, "no claim waits for a fence");
    place.agent.worked_for(asked, Event::Fit(Ok(())));
    assert_eq!((place.claims("new"), place.claims("nfs")), (1, 3));
}
