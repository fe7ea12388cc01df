//! An agent that could read some of its services only, since its store fails.

use std::sync::mpsc::channel;

use heirlock_core::monitor::Arrival;
use heirlock_core::store::StoreErrorKind;

use super::troubled::{Fault, Faults, Troubled};
use super::*;
use crate::status_monitor::Wanted;

fn newcomer() -> MonName {
    MonName::parse("10.0.0.9").unwrap()
}

/// A callout tells of a client, and is answered at once.
fn call_out(agent: &mut Agent<Here>) -> Result<(), String> {
    let (told, answers) = channel();
    let said = Said::Add { mon_name: newcomer(), my_name: None };
    let answered = Box::new(move |done: &Result<(), String>| told.send(done.clone()).unwrap());
    agent.handle(Message::Of(InstanceNumber::FIRST, News::Callout(said, answered)));
    answers.try_recv().unwrap()
}

fn is_durable_in(store: &InMemory, agent: &Agent<Here>, service: &ServiceName) -> bool {
    let held = agent.claim_of(service).unwrap().generation;
    store.load(service, held).unwrap().records.contains_key(&newcomer())
}

/// The agent that holds `new` and its host's service is started again, on a store with this fault.
fn started_again_with(fault: Fault) -> (InMemory, Faults, Agent<Here>) {
    let (store, mut agent) = begun();
    adopt(&store, &mut agent, None);
    let faults = Faults::default();
    faults.add(fault);
    let agent = again(&agent, Box::new(Troubled::new(&store, &faults)));
    (store, faults, agent)
}

#[test]
fn a_client_is_durable_once_every_service_that_is_held_here_was_read_and_has_it() {
    for calls in [&["newest_claim"], &["newest_generation"], &["load"]] as [&[&str]; 3] {
        let (store, faults, mut agent) = started_again_with(Fault::of(&host(), calls));
        assert!(agent.held().eq([&service("new")]), "{calls:?}: the other one was not read yet");
        let why = call_out(&mut agent).unwrap_err();
        assert!(why.contains("whether this server holds host.nfs-b"), "{calls:?}: {why}");
        assert!(!is_durable_in(&store, &agent, &service("new")), "{calls:?}");
        // It is read as soon as that succeeds, and not at the next heartbeat only.
        faults.mend();
        assert_eq!(call_out(&mut agent), Ok(()), "{calls:?}");
        assert!([service("new"), host()].iter().all(|held| is_durable_in(&store, &agent, held)));
    }
}

#[test]
fn our_status_monitor_is_not_told_that_a_client_is_durable_or_the_store_works_before_all_was_read() {
    let (_, faults, mut agent) = started_again_with(Fault::of(&host(), &["newest_claim"]));
    agent.monitors(InstanceNumber::FIRST, Some(BTreeSet::new()));
    let told = |agent: &Agent<Here>| agent.outside().world().told_monitor.take();
    let wants = |agent: &mut Agent<Here>, wanted| {
        agent.handle(Message::Of(InstanceNumber::FIRST, News::Monitor(wanted)));
        agent.do_what_is_due();
    };
    let line = MonitorLine::generated(newcomer(), MyName::parse("nfs-b").unwrap());
    let commit = || Wanted::Commit { batch: 1, arrivals: vec![Arrival { line: line.clone(), peer: false }] };
    wants(&mut agent, commit());
    assert_eq!(told(&agent), [MonitorEvent::Committed { batch: 1, durable: false }]);
    wants(&mut agent, Wanted::Probe);
    assert_eq!(told(&agent), [MonitorEvent::Probed(false)]);
    faults.mend();
    wants(&mut agent, commit());
    let said = told(&agent);
    assert_eq!(said[0], MonitorEvent::Committed { batch: 1, durable: true });
    assert!(
        said[1..]
            .iter()
            .all(|event| matches!(event, MonitorEvent::Durable(clients) if clients.contains(&newcomer()))),
        "{said:?}"
    );
    wants(&mut agent, Wanted::Probe);
    assert_eq!(told(&agent), [MonitorEvent::Probed(true)]);
}

#[test]
fn a_service_that_the_store_cannot_tell_of_for_its_damage_keeps_no_client_waiting_where_its_address_is_not_here()
 {
    for has_address in [false, true] {
        let damaged = StoreErrorKind::Claim { service: service("new"), generation: Generation(2) };
        let fault = Fault { kind: damaged, ..Fault::of(&service("new"), &["newest_claim"]) };
        let (store, _, mut agent) = started_again_with(fault);
        assert!(agent.held().eq([&host()]));
        agent.outside().world_mut().has_addresses = has_address;
        assert_eq!(call_out(&mut agent).is_err(), has_address);
        assert_eq!(is_durable_in(&store, &agent, &host()), !has_address);
    }
}

#[test]
fn records_that_were_conveyed_stay_until_it_is_known_that_no_run_goes_on_with_them() {
    let (store, mut agent) = begun();
    let prepared = Request::Adopt {
        service: service("new"),
        prepare: true,
        finish: false,
        fenced: None,
        force: true,
        answer_when: AnswerWhen::Settled,
    };
    agent.do_what_is_due();
    agent.handle(Message::Request(Box::new(prepared), Responder::new(Waits)));
    goes_on(&mut agent, Duration::from_secs(1));
    assert_eq!(agent.journal_of(&service("new")).unwrap().phase, Phase::Proved, "it waits for --finish");
    let placed = agent.outside().placed();
    assert_eq!(placed.len(), 2);
    let faults = Faults::default();
    faults.add(Fault::of(&service("new"), &["newest_claim"]));
    let mut agent = again(&agent, Box::new(Troubled::new(&store, &faults)));
    goes_on(&mut agent, Duration::from_secs(1));
    assert_eq!(agent.outside().placed(), placed, "another program may work with them");
    faults.mend();
    goes_on(&mut agent, Duration::from_secs(2));
    assert_eq!(agent.outside().placed(), placed);
    assert_eq!(agent.journal_of(&service("new")).unwrap().phase, Phase::Proved);
    // An agent that finds no run that goes on takes them away, once the store tells of every service.
    let (store, mut agent) = begun();
    adopt(&store, &mut agent, None);
    agent.outside().world_mut().placed = Arc::clone(&placed);
    faults.add(Fault { kind: StoreErrorKind::Entry, ..Fault::of(&service("new"), &["newest_claim"]) });
    let mut agent = again(&agent, Box::new(Troubled::new(&store, &faults)));
    goes_on(&mut agent, Duration::from_secs(1));
    assert_eq!(agent.outside().placed(), placed);
    faults.mend();
    goes_on(&mut agent, Duration::from_secs(2));
    assert_eq!(agent.outside().placed(), Placed::default());
}
