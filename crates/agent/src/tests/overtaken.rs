//! Another server claims a service while this one holds it: from then on nothing is written for it, and all else goes on.

use std::time::Duration;

use heirlock_core::claim::Claim;
use heirlock_core::store::in_memory::InMemory;
use heirlock_core::store::{ClaimAnswer, Contents, Store};
use heirlock_core::takeover::Phase;
use heirlock_core::{Generation, ServiceName};
use heirlock_nsm::MonName;

use super::world::{Here, adopt, ask, begun, record, service};
use crate::status_monitor::Said;
use crate::{Agent, InstanceNumber, Message, News};

/// Another server claims `new`, and the agent hears nothing of it. Answers the generation that the agent holds, and its contents.
fn claimed_by_another(store: &InMemory, agent: &Agent<Here>) -> (Generation, Contents) {
    let held = agent.claim_of(&service("new")).unwrap().generation;
    let newer = Claim::new(held.next(), &"nfs-a".parse().unwrap(), "run-c", 0);
    assert_eq!(store.claim(&service("new"), &newer).unwrap(), ClaimAnswer::Won);
    (held, store.load(&service("new"), held).unwrap())
}

/// All that comes without time passing.
fn settle(agent: &mut Agent<Here>) {
    agent.do_what_is_due();
    while let Some(message) = agent.outside().next() {
        agent.handle(message);
        agent.do_what_is_due();
    }
}

/// Time passes until there is something to do.
fn pass(agent: &mut Agent<Here>) {
    let due = agent.next_due();
    agent.outside().pass(due);
}

fn newcomer() -> MonName {
    MonName::parse("10.0.0.9").unwrap()
}

fn host() -> ServiceName {
    ServiceName::host(&"nfs-b".parse().unwrap())
}

/// Whether the store has this client on record for the server's own service.
fn is_on_record(store: &InMemory, agent: &Agent<Here>) -> bool {
    let generation = agent.claim_of(&host()).unwrap().generation;
    store.record(&host(), generation, &newcomer().into()).is_some()
}

#[test]
fn a_client_that_registers_after_another_server_has_claimed_a_service_is_kept_in_all_others() {
    let (store, mut agent) = begun();
    adopt(&store, &mut agent, None);
    let (held, contents) = claimed_by_another(&store, &agent);
    agent.outside().world_mut().registered.insert(newcomer(), record(&newcomer()));
    agent.outside().world_mut().hinted = true;
    let began = agent.outside().world().now;
    while !is_on_record(&store, &agent) || agent.claim_of(&service("new")).is_some() {
        pass(&mut agent);
        settle(&mut agent);
        assert!(agent.outside().world().now.since(began) < Duration::from_secs(5), "it is never on record");
        assert_eq!(agent.status().store.error, None, "the store is well");
    }
    assert_eq!(store.load(&service("new"), held).unwrap(), contents);
}

#[test]
fn a_callout_that_comes_after_another_server_has_claimed_a_service_is_answered_by_all_others() {
    let (store, mut agent) = begun();
    adopt(&store, &mut agent, None);
    let (held, contents) = claimed_by_another(&store, &agent);
    let (tell, told) = std::sync::mpsc::channel();
    let said = Said::Add { mon_name: newcomer(), my_name: None };
    let answered = Box::new(move |answer: &Result<(), String>| tell.send(answer.clone()).unwrap());
    agent.handle(Message::Of(InstanceNumber::FIRST, News::Callout(said, answered)));
    assert_eq!(told.try_recv().unwrap(), Ok(()));
    assert!(is_on_record(&store, &agent));
    assert_eq!(agent.claim_of(&service("new")), None, "it was looked up at once");
    assert_eq!(store.load(&service("new"), held).unwrap(), contents);
    assert_eq!(agent.status().store.error, None);
}

/// Adopts `new`, of which another server takes hold after so many messages. Says whether the run was on at that moment.
fn overtaken_after(messages: usize) -> bool {
    let (store, mut agent) = begun();
    let mut came = 0;
    let mut last: Option<(Generation, Contents)> = None;
    let mut was_on = false;
    for _ in 0..5_000 {
        agent.do_what_is_due();
        assert_eq!(agent.must_end(), None);
        let phase = agent.journal_of(&service("new")).map(|journal| journal.phase);
        if last.is_none() && came >= messages && phase.is_some() {
            was_on = phase != Some(Phase::Settled);
            last = Some(claimed_by_another(&store, &agent));
        }
        match &last {
            None if phase.is_none() && agent.is_at_rest() && agent.knows_its_holdings() => ask(&mut agent),
            Some((held, contents)) if phase.is_none() && agent.is_at_rest() => {
                assert_eq!(store.load(&service("new"), *held).unwrap(), *contents, "{messages}");
                assert_eq!(agent.status().store.error, None, "{messages}");
                return was_on;
            }
            _ => {}
        }
        match agent.outside().next() {
            Some(message) => {
                came += 1;
                agent.handle(message);
            }
            None => pass(&mut agent),
        }
    }
    panic!("it goes on for ever after {messages} messages: {:?}", agent.outside().world().begun);
}

#[test]
fn a_run_that_another_server_overtakes_ends_and_writes_nothing_from_then_on() {
    // Until it is settled before the other server comes.
    let with_a_run = (0..)
        .skip_while(|messages| !overtaken_after(*messages))
        .take_while(|messages| overtaken_after(*messages));
    let with_a_run = with_a_run.count();
    assert!(with_a_run >= 5, "{with_a_run}");
}

#[test]
fn a_hint_of_the_store_has_the_agent_look_before_its_next_heartbeat_was_due() {
    let (store, mut agent) = begun();
    adopt(&store, &mut agent, None);
    // Until nothing but a heartbeat is due, and that not soon.
    let (began, mut due) = (agent.outside().world().now, agent.next_due());
    while due <= agent.outside().world().now + Duration::from_millis(100) {
        pass(&mut agent);
        settle(&mut agent);
        assert!(
            agent.outside().world().now.since(began) < Duration::from_secs(600),
            "something is always due"
        );
        due = agent.next_due();
    }
    claimed_by_another(&store, &agent);
    agent.handle(Message::StoreChanged);
    settle(&mut agent);
    assert!(agent.claim_of(&service("new")).is_some(), "changes that come together are seen by one look");
    while agent.claim_of(&service("new")).is_some() {
        pass(&mut agent);
        settle(&mut agent);
        assert!(agent.outside().world().now < due, "it has not looked before");
    }
}
