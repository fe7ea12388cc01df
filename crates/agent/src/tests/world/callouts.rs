//! Clients that rpc.statd's callout tells of.

use std::sync::mpsc::channel;

use super::*;

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
                let (told, answers) = channel();
                let said = Said::Add { mon_name: client.clone(), my_name: None };
                let answered = Box::new(move |done: &Result<(), String>| told.send(done.clone()).unwrap());
                agent.handle(Message::Of(*number, News::Callout(said, answered)));
                assert_eq!(answers.try_recv(), Ok(Ok(())), "its record is in the store");
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
