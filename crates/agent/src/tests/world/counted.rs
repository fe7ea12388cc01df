//! The counts of an agent, and its own status.

use super::troubled::{Fault, Faults, Troubled};
use super::*;
use crate::config::Hook;
use crate::control::report::observed::{Answers, Ends, Hooks, Observed, Outcomes, Runs};

#[test]
fn events_of_an_agent_are_counted_where_they_happen_and_every_other_number_stays_at_zero() {
    let (store, mut agent) = begun();
    let before = *agent.status().observed.unwrap();
    assert_eq!(before, Observed { began_at_s: before.began_at_s, ..Observed::default() });
    adopt(&store, &mut agent, None);
    agent.handle(Message::Request(Box::new(Request::Maintenance { on: false }), Responder::without_client()));
    agent.handle(Message::Request(
        Box::new(Request::Release { service: service("gone") }),
        Responder::without_client(),
    ));
    agent.handle(Message::Of(
        InstanceNumber::FIRST,
        News::HookRan(Hook::Fence, Duration::from_secs(2), false),
    ));
    let counted = *agent.status().observed.unwrap();
    let fence = &counted.hooks.fence;
    assert_eq!((fence.failed_total, fence.done_total, fence.seconds.sum.0.as_secs()), (1, 0, 2));
    assert_eq!(counted.hooks, Hooks { fence: fence.clone(), ..Hooks::default() });
    assert_eq!((counted.notices.begun_total, counted.notices.answered_total), (2, 2));
    let outcomes = Outcomes { re_registered_total: 1, acknowledged_total: 1, ..Outcomes::default() };
    assert_eq!(counted.outcomes, outcomes);
    let settled = Ends { settled_total: 1, ..Ends::default() };
    assert_eq!(counted.runs, Runs { asked: settled, ..Runs::default() });
    let phases = &counted.phases;
    assert_eq!([phases.intent.count, phases.settling.count, phases.fenced.count], [1, 1, 0]);
    assert!(phases.settling.sum.0 > Duration::from_secs(1), "until grace is over: {:?}", phases.settling.sum);
    assert_eq!(counted.requests.adopt, Answers { asked_total: 1, done_total: 1, ..Answers::default() });
    assert_eq!(
        counted.requests.maintenance,
        Answers { asked_total: 1, unchanged_total: 1, ..Answers::default() }
    );
    assert_eq!(counted.requests.release, Answers { asked_total: 1, refused_total: 1, ..Answers::default() });
    assert!(counted.commits.done_total >= 3 && counted.commits.failed_total == 0, "{:?}", counted.commits);
    assert!(counted.heartbeats.done_total >= 10 && counted.looks.done_total >= 2, "{counted:?}");
    // The client that came back is known to the server's own service from then on.
    assert_eq!((counted.records.written_total, counted.records.failed_total), (1, 0));
    assert_eq!((counted.registrations, counted.monitor), Default::default());
}

#[test]
fn a_client_that_waits_is_counted_once_its_callout_is_answered() {
    let (store, mut agent) = begun();
    adopt(&store, &mut agent, None);
    let add = |agent: &mut Agent<Here>, client: &str| {
        let said = Said::Add { mon_name: MonName::parse(client).unwrap(), my_name: None };
        agent.handle(Message::Of(InstanceNumber::FIRST, News::Callout(said, Box::new(|_| ()))));
        *agent.status().observed.unwrap()
    };
    let before = *agent.status().observed.unwrap();
    let durable = add(&mut agent, "10.0.0.9");
    assert_eq!(durable.registrations.durable_total, 1);
    assert_eq!(durable.registrations.seconds.count, 1);
    let written = durable.records.written_total - before.records.written_total;
    assert_eq!(written, 2, "once in each of two services");
    assert_eq!(durable.commits.done_total, before.commits.done_total + 1);
    // The next agent holds nothing before it has read its store.
    let (world, faults) = (agent.outside().take(), Faults::default());
    faults.add(Fault { service: None, ..Fault::of(&service("new"), &["newest_claim"]) });
    let mut agent = started_on(settings(false), Box::new(Troubled::new(&store, &faults)), world);
    let failed = add(&mut agent, "10.0.0.10").registrations;
    assert_eq!((failed.durable_total, failed.failed_total, failed.seconds.count), (0, 1, 1));
}

#[test]
fn a_client_that_an_adoption_missed_is_in_the_status_of_the_agent_until_it_comes_back() {
    let (store, mut agent) = begun();
    let [_, off] = clients();
    agent.outside().world_mut().off.insert(off.clone());
    adopt(&store, &mut agent, None);
    let status = |agent: &Agent<Here>| {
        agent.status().services.into_iter().find(|status| status.service == "new").unwrap()
    };
    let missed = status(&agent);
    assert_eq!((missed.unreachable, missed.lost), (1, 0));
    let [named] = missed.missed.as_slice() else { panic!("{:?}", missed.missed) };
    let expected = (off.as_str(), Some(Outcome::Unreachable), Some("it is off"));
    assert_eq!((named.client.as_str(), named.outcome, named.why.as_deref()), expected);
    // The next agent knows it from the store.
    let world = agent.outside().take();
    agent = taken_up(&store, world);
    agent.do_what_is_due();
    assert_eq!(status(&agent).missed, missed.missed);
    agent.outside().world_mut().registered.insert(off.clone(), record(&off));
    agent.outside().world_mut().hinted = true;
    for _ in 0..10 {
        agent.do_what_is_due();
        while let Some(message) = agent.outside().next() {
            agent.handle(message);
        }
    }
    let back = status(&agent);
    assert_eq!((back.unreachable, back.missed), (0, Vec::new()));
}
