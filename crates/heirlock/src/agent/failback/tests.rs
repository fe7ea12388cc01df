use std::fs;

use heirlock_agent::{Look, News, Outside};
use heirlock_core::claim::Claim;
use heirlock_core::incarnation::Observation;
use heirlock_core::store::Decline;
use heirlock_core::takeover::{Cause, Journal, Phase};
use heirlock_core::{Generation, ServiceName};
use heirlock_nsm::{MonName, StateNumber};

use crate::agent::testing::{Place, place_with, service};
use crate::control::{Answer, Line};
use crate::store::dir::DirStore;
use crate::store::{Contents, ServerReport, Store};

/// `nfs-b` has a service that is at home on `nfs-a`, which is seen to live and asks for it.
fn asked_for(place: &mut Place, asked: u64) {
    let store = DirStore::open(&place.directory.path().join("store")).unwrap();
    let report = ServerReport::new("nfs-a".parse().unwrap(), "run-1");
    let now = place.agent.outside().now();
    for beat in [2 * asked, 2 * asked + 1] {
        let wants = vec![service("nfs")];
        store.put_server(&ServerReport { beat, wants, asked, ..report.clone() }).unwrap();
        place.agent.pulse_mut().look(now, &store).unwrap();
    }
    place.agent.answer_wishes(now);
}

/// It holds that service, in the life 1 of its lock manager.
fn with_a_guest() -> Place {
    let mut place = place_with("home = \"nfs-a\"\n");
    look(&mut place, "1");
    let store = DirStore::open(&place.directory.path().join("store")).unwrap();
    let server = "nfs-b".parse().unwrap();
    let life = place.agent.lives().current().cloned();
    for name in ["nfs", "host.nfs-b"] {
        let name = ServiceName::try_from(name.to_owned()).unwrap();
        let journal = Journal { life: life.clone(), ..Journal::quiet("run-1", &server, 0) };
        let line = format!("0100007f 000186b5 00000003 00000010 {:032x} 10.0.0.1 nfs-b\n", 7);
        let records = [(MonName::parse("10.0.0.1").unwrap(), line.into_bytes())].into();
        let journal = Some(journal);
        let state = Some(StateNumber(7));
        let (generation, contents) =
            (Generation(4), Contents { state, records, journal, ..Contents::default() });
        store.claim(&name, &Claim::new(generation, &server, "run-1", 0)).unwrap();
        store.begin_generation(&name, generation, &contents).unwrap();
    }
    place.agent.refresh_holdings(place.agent.outside().now());
    place.agent.lives_mut().followed_up(false, false);
    place
}

fn look(place: &mut Place, start: &str) {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned();
    let observation = Observation { boot, start: Some(start.into()), in_grace: None, serving: true };
    let look = Look { at: place.agent.outside().now(), observation };
    place.hear(News::Observed(Box::new(Ok(look))));
}

fn decline(place: &Place) -> Option<&Decline> {
    place.agent.pulse().declined(&service("nfs"))
}

#[test]
fn a_release_that_failed_is_said_to_the_home_and_tried_again_when_it_asks_again() {
    let mut place = with_a_guest();
    asked_for(&mut place, 7);
    assert!(place.agent.is_releasing(&service("nfs")));
    let waits = decline(&place).unwrap();
    assert!(waits.why.contains("its address is being taken away") && waits.waits.is_some(), "{waits:?}");
    let now = place.agent.outside().now();
    place.agent.address_gone(now, &service("nfs"), Err("192.0.2.10 is still on this server".into()));
    let failed = decline(&place).unwrap().clone();
    assert_eq!((failed.asked, failed.waits.as_ref()), (7, None), "{failed:?}");
    assert!(failed.why.contains("still on this server") && place.agent.beat_due() <= now);
    asked_for(&mut place, 7);
    assert!(!place.agent.is_releasing(&service("nfs")), "nothing was mended");
    assert_eq!(decline(&place), Some(&failed));
    asked_for(&mut place, 8);
    assert!(place.agent.is_releasing(&service("nfs")), "it was asked for again");
    assert_eq!(decline(&place).unwrap().asked, 8);
}

#[test]
fn a_run_that_was_asked_for_holds_a_release_up_and_says_how_long() {
    let mut place = with_a_guest();
    place.had_elsewhere("new");
    place.begin("new");
    place.drive(Phase::Recognised);
    asked_for(&mut place, 7);
    assert!(!place.agent.is_releasing(&service("nfs")));
    let waits = decline(&place).unwrap();
    assert!(
        waits.why.contains("clients of nfs are being told right now") && waits.waits.is_some(),
        "{waits:?}"
    );
}

#[test]
fn a_self_adoption_goes_on_without_a_service_that_is_given_away_and_only_once_it_is() {
    let mut place = with_a_guest();
    look(&mut place, "2");
    place.turn();
    assert_eq!(place.agent.run().as_ref().map(|running| running.machine.cause()), Some(Cause::OwnRestart));
    let of_run =
        |place: &Place| place.agent.run().as_ref().is_some_and(|r| r.machine.has_member(&service("nfs")));
    assert!(of_run(&place));
    let now = place.agent.outside().now();
    place.agent.release(&service("nfs"), Vec::new(), None);
    place.agent.address_gone(now, &service("nfs"), Err("it is still here".into()));
    assert!(of_run(&place), "it stays, and its clients are told");
    place.agent.release(&service("nfs"), Vec::new(), None);
    place.agent.address_gone(now, &service("nfs"), Ok(()));
    assert!(!of_run(&place) && !place.agent.held().contains_key(&service("nfs")));
    assert!(place.agent.run().is_some(), "the clients of the others are told");
    let claim = place.agent.store().newest_claim(&service("nfs")).unwrap().unwrap();
    assert!(claim.released);
}

#[test]
fn a_lock_manager_that_takes_its_time_holds_the_volume_of_a_release_up_and_not_the_loop() {
    let mut place = with_a_guest();
    let turn = std::sync::Arc::clone(&place.agent.lock_manager().workshop.turn);
    let busy = turn.lock().unwrap();
    place.agent.release(&service("nfs"), Vec::new(), None);
    let now = place.agent.outside().now();
    place.agent.address_gone(now, &service("nfs"), Ok(()));
    assert!(!place.agent.held().contains_key(&service("nfs")), "the loop goes on");
    let is_gone = |news: &News| matches!(news, News::VolumeGone(..));
    assert!(!place.news().any(|news| is_gone(&news)), "its locks are still held");
    drop(busy);
    place.next_that(|news| is_gone(&news).then_some(()));
}

#[test]
fn all_callers_that_ask_for_a_release_that_is_on_hear_of_its_end() {
    let mut place = with_a_guest();
    let (service, now) = (service("nfs"), place.agent.outside().now());
    let ask = |place: &mut Place| {
        let (responder, lines) = crate::control::heard();
        place.agent.asked_to_release(&service, responder);
        lines
    };
    let heard = [ask(&mut place), ask(&mut place)];
    assert!(heard.iter().all(|lines| lines.try_iter().next().is_none()), "it is on");
    place.agent.address_gone(now, &service, Ok(()));
    place.agent.volume_gone(&service, &Ok(()));
    for lines in heard {
        let Some(Line::Done(Answer::Verb { changed, text, .. })) = lines.try_iter().last() else { panic!() };
        assert!(changed && text.starts_with("nfs is released"), "{text}");
    }
}
