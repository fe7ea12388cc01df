//! The loop's own looks at the status monitor's directory, while a run is on.

use super::*;
use crate::limits::{HINTED_LOOK_PAUSE, HINTED_LOOK_PAUSE_MAX};

/// An agent that waits for a client to come back, in the grace period of a run.
fn waiting_in_grace(look_takes: Duration) -> Agent<Here> {
    let (_, mut agent) = begun_in(World { restarts_nfs: true, ..World::default() });
    ask(&mut agent);
    for _ in 0..2_000 {
        if agent.journal_of(&service("new")).is_some_and(|journal| journal.phase == Phase::Settling) {
            agent.outside().world_mut().look_takes = look_takes;
            return agent;
        }
        agent.do_what_is_due();
        take_in_next(&mut agent);
    }
    panic!("its clients are never told: {:?}", agent.outside().world().begun);
}

/// For so long each moment brings a hint. Answers when each look was over.
fn hinted_for(agent: &mut Agent<Here>, time: Duration) -> Vec<Moment> {
    let until = agent.outside().now() + time;
    agent.outside().world_mut().looked.clear();
    while agent.outside().now() < until {
        agent.do_what_is_due();
        while let Some(message) = agent.outside().next() {
            agent.handle(message);
        }
        agent.outside().world_mut().hinted = true;
        let due = agent.next_due();
        let mut world = agent.outside().world_mut();
        world.now = due.max(world.now + Duration::from_micros(100));
    }
    agent.outside().world().looked.clone()
}

#[test]
fn looks_that_hints_cause_in_a_run_leave_the_loop_most_of_its_time() {
    let (takes, time) = (Duration::from_millis(10), Duration::from_secs(2));
    let mut agent = waiting_in_grace(takes);
    let looked = hinted_for(&mut agent, time);
    let most = time.as_millis() / (takes * (1 + HINTED_LOOK_PAUSE)).as_millis();
    let found = u128::try_from(looked.len()).unwrap();
    assert!(found <= most + 1 && found >= most / 2, "{found} of {most} looks: {looked:?}");
}

#[test]
fn a_look_that_takes_long_puts_the_next_one_off_for_no_longer_than_its_limit() {
    let takes = Duration::from_millis(400);
    let mut agent = waiting_in_grace(takes);
    let looked = hinted_for(&mut agent, Duration::from_secs(5));
    let longest = looked.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap();
    assert!(longest <= takes + HINTED_LOOK_PAUSE_MAX + Duration::from_millis(5), "{longest:?}");
}

#[test]
fn looks_that_take_no_time_follow_each_hint() {
    let mut agent = waiting_in_grace(Duration::ZERO);
    agent.outside().world_mut().looked.clear();
    for _ in 0..10 {
        agent.outside().world_mut().hinted = true;
        agent.do_what_is_due();
    }
    assert_eq!(agent.outside().world().looked.len(), 10);
}

#[test]
fn no_address_is_looked_for_on_this_server_where_a_clients_line_repeats_its_name() {
    let agent = waiting_in_grace(Duration::ZERO);
    assert_eq!(agent.outside().world().told, clients());
    let is_clients = |asked: &IpAddr| clients().iter().any(|client| client.address() == Some(*asked));
    assert!(!agent.outside().world().asked_for.iter().any(is_clients));
}

#[test]
fn an_adoption_that_was_interrupted_goes_on_in_its_grace_period_though_the_first_look_hangs() {
    let (store, mut agent) = begun_in(World { restarts_nfs: true, ..World::default() });
    ask(&mut agent);
    until(&mut agent, "it is recognised", |agent| phase(agent) >= Some(Phase::Recognised));
    assert_eq!(agent.outside().world().told, [], "no client is told yet");
    let world = World { looks_hang: true, ..agent.outside().take() };
    let mut agent = taken_up(&store, world);
    goes_on(&mut agent, Duration::from_secs(30));
    assert_eq!(agent.outside().world().told, clients());
}
