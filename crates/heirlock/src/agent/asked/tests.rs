use heirlock_agent::Outside;
use heirlock_agent::agent::waiting::{Adoption, Waiting};
use heirlock_core::takeover::Phase;

use crate::agent::testing::{Place, place, place_on_a_network, service};
use crate::control::{AnswerWhen, Line, Progress};

/// The progress that the caller of an adoption hears until it has claimed.
fn heard(mut place: Place, prepare: bool) -> Vec<Progress> {
    let (responder, lines) = crate::control::heard();
    let service = service("nfs");
    let adoption = Adoption { service, prepare, fenced: None, insisted: true, before: Vec::new() };
    let waiting = Waiting { service: adoption.service.clone(), responder, until: AnswerWhen::Settled };
    place.agent.adopt(place.agent.outside().now(), adoption, waiting);
    place.drive(Phase::Conveyed);
    let progress = lines.try_iter().filter_map(|line| match line {
        Line::Progress(progress) => Some(progress),
        Line::Done(_) | Line::Failed(_) => None,
    });
    progress.collect()
}

#[test]
fn an_address_that_nothing_here_brings_is_said_before_the_run_waits_for_it() {
    let heard_of = heard(place_on_a_network(), false);
    let first = heard_of.iter().find(|progress| !progress.told.is_empty()).unwrap();
    assert_eq!(first.phase, Phase::Intent, "before anything is claimed");
    assert!(first.told[0].starts_with("nfs: 192.0.2.10 is not on this server"), "{first:?}");
    assert!(first.told[0].contains("within 15 s"), "20 s of grace, 5 s of which are kept free: {first:?}");
    let is_quiet = |heard: Vec<Progress>| heard.iter().all(|progress| progress.told.is_empty());
    assert!(is_quiet(heard(place_on_a_network(), true)), "--prepare waits for no address");
    assert!(is_quiet(heard(place(), false)), "it is here");
}
