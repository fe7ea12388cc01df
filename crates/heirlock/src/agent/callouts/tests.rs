use std::fs;
use std::sync::mpsc::channel;

use heirlock_agent::News;
use heirlock_agent::agent::holdings::claim_first;
use heirlock_agent::status_monitor::Said;
use heirlock_core::claim::Claim;
use heirlock_core::takeover::Journal;
use heirlock_core::{Generation, Moment, ServerName};
use heirlock_nsm::{MonName, StateNumber};

use crate::agent::testing::{Place, place_in_mode, service};
use crate::config::CaptureMode;
use crate::store::dir::DirStore;
use crate::store::steered::Steered;
use crate::store::{StoreError, StoreErrorKind};

#[test]
fn a_callout_is_answered_once_its_client_is_on_record_and_told_why_it_is_not() {
    let mut place = place_in_mode("callout");
    let (told, answers) = channel();
    let call_out = |place: &mut Place| {
        let (mon_name, told) = (MonName::parse("10.0.0.1").unwrap(), told.clone());
        let said = Said::Add { mon_name, my_name: None };
        place.hear(News::Callout(said, Box::new(move |done| told.send(done.clone()).unwrap())));
        answers.try_recv().unwrap()
    };
    place.agent.held_mut().clear();
    let why = call_out(&mut place).unwrap_err();
    assert!(why.starts_with("this lock manager holds no service"), "{why}");
    let us = place.agent.settings().server.clone();
    let (claim, journal) = (Claim::new(Generation::FIRST, &us, "agent", 0), Journal::quiet("run", &us, 0));
    let store = place.agent.store();
    claim_first(store, &service("new"), &claim, StateNumber(1), &journal).unwrap().unwrap();
    place.agent.refresh_holdings(Moment::START);
    assert_eq!(call_out(&mut place), Ok(()));
    let records = place.agent.store().load(&service("new"), Generation::FIRST).unwrap().records;
    assert!(records.contains_key(&MonName::parse("10.0.0.1").unwrap()));
}

/// The next generation begins with the records that were there at its claim: one that came into the generation before since then
/// would be lost with it.
#[test]
fn a_client_is_not_durable_while_the_next_generation_of_a_service_is_claimed_and_not_begun() {
    let mut place = place_in_mode("callout");
    let us = place.agent.settings().server.clone();
    let (claim, journal) = (Claim::new(Generation::FIRST, &us, "agent", 0), Journal::quiet("run", &us, 0));
    let store = DirStore::open(&place.directory.path().join("store")).unwrap();
    claim_first(&store, &service("nfs"), &claim, StateNumber(1), &journal).unwrap().unwrap();
    place.agent.refresh_holdings(Moment::START);
    let before = |method| match method {
        "begin_generation" => Err(StoreError::new(StoreErrorKind::Unavailable, "store: it fails")),
        _ => Ok(()),
    };
    place.agent.replace_store(Box::new(Steered { store, before }));
    place.begin("nfs");
    while place.claims("nfs") < 2 {
        let message = place.next();
        place.agent.handle(message);
    }
    let (told, answers) = channel();
    let said = Said::Add { mon_name: MonName::parse("10.0.0.1").unwrap(), my_name: None };
    place.hear(News::Callout(said, Box::new(move |done| told.send(done.clone()).unwrap())));
    let why = answers.try_recv().unwrap().unwrap_err();
    assert!(why.contains("is claimed, and not begun yet"), "{why}");
}

/// The mode was changed before the store had taken in what a callout noted, and the client's record went meanwhile.
#[test]
fn a_note_of_a_callout_is_taken_in_under_any_later_capture_mode() {
    for mode in CaptureMode::ALL.all().map(CaptureMode::as_str) {
        let mut place = place_in_mode(mode);
        let here = place.directory.path();
        let store = DirStore::open(&here.join("store")).unwrap();
        let owner = ServerName::parse("nfs-b").unwrap();
        let (claim, journal) =
            (Claim::new(Generation::FIRST, &owner, "agent", 0), Journal::quiet("run", &owner, 0));
        claim_first(&store, &service("nfs"), &claim, StateNumber(1), &journal).unwrap().unwrap();
        let spool = here.join("nfs/sm/.heirlock-callouts");
        fs::write(&spool, "add-client\u{0}10.0.0.1\u{0}nfs-b\n").unwrap();
        place.agent.do_what_is_due();
        let stored = place.agent.held()[&service("nfs")].ledger.stored();
        assert_eq!(stored.clients().collect::<Vec<_>>(), [&MonName::parse("10.0.0.1").unwrap()], "{mode}");
        let left = fs::read_dir(spool.parent().unwrap()).unwrap();
        assert_eq!(left.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), [""; 0], "{mode}");
    }
}
