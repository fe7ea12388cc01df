//! Clients that rpc.statd's callout tells of.

use std::sync::mpsc::channel;

use super::troubled::{Fault, Faults, Troubled};
use super::*;

/// A callout tells of a client, and learns at once that its record is in the store.
fn is_durable(agent: &mut Agent<Here>, number: InstanceNumber, client: &MonName) {
    let (told, answers) = channel();
    let said = Said::Add { mon_name: client.clone(), my_name: None };
    let answered = Box::new(move |done: &Result<(), String>| told.send(done.clone()).unwrap());
    agent.handle(Message::Of(number, News::Callout(said, answered)));
    assert_eq!(answers.try_recv(), Ok(Ok(())), "its record is in the store");
}

/// A client that came back vanishes from the directory, and its deletion comes to be believed. At the look that began at that
/// moment a callout tells of the client, before the look is over. Answers which look had the client removed, if one had.
fn removed_by_the_look(called_out_at: Option<Moment>) -> Option<Moment> {
    let (store, mut agent) = begun();
    adopt(&store, &mut agent, None);
    let ([client, _], held) = (clients(), agent.claim_of(&service("new")).unwrap().generation);
    agent.outside().world_mut().registered.clear();
    agent.outside().world_mut().hinted = true;
    let end = agent.outside().now() + 2 * CaptureSettings::default().tombstone_delay;
    let mut last_look = None;
    while agent.outside().now() < end {
        agent.do_what_is_due();
        if !store.load(&service("new"), held).unwrap().records.contains_key(&client) {
            return last_look;
        }
        let Some(message) = agent.outside().next() else {
            let due = agent.next_due();
            agent.outside().pass(due);
            continue;
        };
        if let Message::Of(number, News::Looked(looked)) = &message {
            last_look = Some(looked.basis.began);
            if last_look == called_out_at {
                is_durable(&mut agent, *number, &client);
                agent.outside().world_mut().registered.insert(client.clone(), record(&client));
                agent.outside().world_mut().hinted = true;
            }
        }
        agent.handle(message);
    }
    None
}

#[test]
fn a_client_that_a_callout_was_told_to_be_durable_is_not_removed_by_a_look_that_began_before() {
    let believed_at = removed_by_the_look(None);
    assert!(believed_at.is_some(), "its deletion is believed at last");
    assert_eq!(removed_by_the_look(believed_at), None);
}

#[test]
fn a_client_that_a_callout_was_told_to_be_durable_is_not_retired_by_a_run_that_had_settled_before() {
    for calls_out in [false, true] {
        let (store, agent) = begun();
        let faults = Faults::default();
        let mut agent = again(&agent, Box::new(Troubled::new(&store, &faults)));
        until(&mut agent, "it knows what it holds", |agent| agent.is_at_rest() && agent.knows_its_holdings());
        ask(&mut agent);
        until(&mut agent, "it settles", |agent| phase(agent) == Some(Phase::Settling));
        let generation = agent.claim_of(&service("new")).unwrap().generation;
        let records = || store.load(&service("new"), generation).unwrap().records;
        let back = |agent: &Agent<Here>| agent.outside().world().registered.clone();
        let away = records().clients().find(|client| !back(&agent).contains_key(*client)).cloned().unwrap();
        // The run comes to its end, and the store does not take that in.
        faults.add(Fault::of(&service("new"), &["commit"]));
        goes_on(&mut agent, GRACE + Duration::from_secs(5));
        assert!(records().contains_key(&away));
        if calls_out {
            let number = agent.outside().world().number;
            is_durable(&mut agent, number, &away);
        }
        faults.mend();
        goes_on(&mut agent, Duration::from_secs(2));
        assert_eq!(records().contains_key(&away), calls_out, "{away}");
    }
}
