//! Clients that could not be told long ago: when they are forgotten, and when they are not.

use heirlock_core::incarnation::Incarnation;
use heirlock_core::takeover::{Journal, OutcomeLine};

use super::*;

fn adopted_long_ago() -> (InMemory, World) {
    adopted(Duration::from_secs(8 * 86_400))
}

/// A store in which `new` was adopted by nfs-b so long ago. Its first client came back since, and its second one did not; neither
/// could be told then.
fn adopted(ago: Duration) -> (InMemory, World) {
    let (store, server) = (InMemory::new(StoreIdentity::of(7)), "nfs-b".parse().unwrap());
    let world = World { life: 1, now: Moment::of_process(ago), ..World::default() };
    let adopted_at_s = (world.wall_s() - ago.as_secs()).max(1);
    let life = Incarnation { boot: "boot".into(), start: "1".into(), reopened: 0 };
    let contents = Contents {
        records: clients().map(|client| (client.clone(), record(&client))).into(),
        state: Some(StateNumber(7)),
        journal: Some(Journal { life: Some(life), ..Journal::quiet("run-a", &server, adopted_at_s) }),
        outcomes: clients().map(|client| OutcomeLine::new(client, Outcome::Lost, 0)).into(),
        ..Contents::default()
    };
    store.claim(&service("new"), &Claim::new(Generation(1), &server, "run-a", 0)).unwrap();
    store.begin_generation(&service("new"), Generation(1), &contents).unwrap();
    let [came_back, _] = clients();
    (store, World { registered: [(came_back.clone(), record(&came_back))].into(), ..world })
}

/// Lets an agent go on for so long, and looks on.
fn go_on(agent: &mut Agent<Here>, time: Duration, mut see: impl FnMut(&Agent<Here>)) {
    let end = agent.outside().world().now + time;
    while agent.outside().world().now < end {
        agent.do_what_is_due();
        see(agent);
        if let Some(message) = agent.outside().next() {
            agent.handle(message);
            continue;
        }
        let due = agent.next_due();
        agent.outside().pass(due);
    }
}

#[test]
fn a_client_that_is_registered_is_not_forgotten_before_the_first_look_shows_it_nor_after() {
    let (store, world) = adopted_long_ago();
    let mut agent = taken_up(&store, world);
    let [came_back, did_not] = clients();
    let kept = || -> Vec<MonName> {
        store.load(&service("new"), Generation(1)).unwrap().records.clients().cloned().collect()
    };
    agent.do_what_is_due();
    assert_eq!(kept(), clients(), "no look has told yet which clients are there");
    let delay = CaptureSettings::default().tombstone_delay;
    go_on(&mut agent, delay + Duration::from_secs(20), |_| assert!(kept().contains(&came_back)));
    assert_eq!(kept(), [came_back], "{did_not} was lost long ago, and did not come back");
}

#[test]
fn a_client_that_was_lost_long_ago_and_came_back_is_kept_when_its_record_vanishes_until_that_is_believed() {
    let (store, world) = adopted_long_ago();
    let mut agent = taken_up(&store, world);
    let kept = || store.load(&service("new"), Generation(1)).unwrap().records;
    go_on(&mut agent, Duration::from_secs(5), |_| {});
    agent.outside().world_mut().registered.clear();
    agent.outside().world_mut().hinted = true;
    let delay = CaptureSettings::default().tombstone_delay;
    go_on(&mut agent, delay - Duration::from_secs(6), |_| assert!(kept().contains_key(&clients()[0])));
    go_on(&mut agent, Duration::from_secs(30), |_| {});
    assert!(kept().is_empty(), "{:?}", kept());
}

#[test]
fn clients_that_were_lost_long_ago_are_kept_for_the_run_of_the_next_life_of_the_lock_manager() {
    let (store, world) = adopted_long_ago();
    let mut agent =
        taken_up(&store, World { registered: BTreeMap::new(), life: 2, life_began: world.now, ..world });
    go_on(&mut agent, Duration::from_secs(5), |agent| {
        let generation = agent.claim_of(&service("new")).unwrap().generation;
        let records = store.load(&service("new"), generation).unwrap().records;
        assert!(records.clients().eq(&clients()), "in generation {generation}");
    });
    assert_eq!(agent.outside().world().told, clients());
}

#[test]
fn a_clock_that_is_set_forward_by_weeks_has_no_client_forgotten() {
    let (store, world) = adopted(Duration::from_secs(3_600));
    let mut agent = taken_up(&store, world);
    go_on(&mut agent, Duration::from_secs(5), |_| {});
    agent.outside().world_mut().clock_set_forward_s = 20 * 86_400;
    let delay = CaptureSettings::default().tombstone_delay;
    go_on(&mut agent, delay * 2, |_| {});
    let kept = store.load(&service("new"), Generation(1)).unwrap().records;
    assert!(kept.keys().eq(&clients()), "{:?}", kept.keys());
}

/// A look has begun that hangs with what it has read: none of its clients is there.
fn a_look_hangs(agent: &mut Agent<Here>, is_hinted: bool) {
    agent.outside().world_mut().looks_hang = true;
    agent.outside().world_mut().hinted |= is_hinted;
    go_on(agent, Duration::from_secs(2), |_| {});
    assert!(!agent.outside().world().hanging.is_empty());
}

/// It goes on.
fn the_look_goes_on(agent: &mut Agent<Here>) {
    let mut world = agent.outside().world_mut();
    world.looks_hang = false;
    let late = std::mem::take(&mut world.hanging);
    world.said.extend(late);
}

#[test]
fn a_client_that_came_back_while_a_look_hung_is_not_gone_because_that_look_lacks_it() {
    let (store, world) = adopted(Duration::from_secs(60));
    let mut agent = taken_up(&store, world);
    let kept = || store.load(&service("new"), Generation(1)).unwrap().records.contains_key(&clients()[0]);
    go_on(&mut agent, Duration::from_secs(25), |_| {});
    let registered = std::mem::take(&mut agent.outside().world_mut().registered);
    agent.outside().world_mut().hinted = true;
    let delay = CaptureSettings::default().tombstone_delay;
    go_on(&mut agent, delay / 2, |_| assert!(kept()));
    let due = agent.ledger_of(&service("new")).unwrap().next_tombstone_due().unwrap();
    let left = due.since(agent.outside().now()) - Duration::from_millis(1);
    go_on(&mut agent, left, |_| assert!(kept()));
    // The look in which the deletion is believed.
    a_look_hangs(&mut agent, false);
    agent.outside().world_mut().registered = registered;
    go_on(&mut agent, Duration::from_secs(15), |_| assert!(kept()));
    the_look_goes_on(&mut agent);
    go_on(&mut agent, Duration::from_secs(20), |_| assert!(kept()));
    assert_eq!(agent.ledger_of(&service("new")).unwrap().tombstones(), 0, "the next look has seen it");
}

#[test]
fn a_client_that_was_lost_long_ago_and_comes_back_while_a_look_hangs_is_kept() {
    let (store, world) = adopted_long_ago();
    let mut agent = taken_up(&store, world);
    let [_, came_late] = clients();
    let kept = || store.load(&service("new"), Generation(1)).unwrap().records.contains_key(&clients()[1]);
    let delay = CaptureSettings::default().tombstone_delay;
    go_on(&mut agent, delay - Duration::from_secs(20), |_| assert!(kept()));
    a_look_hangs(&mut agent, true);
    agent.outside().world_mut().registered.insert(came_late.clone(), record(&came_late));
    go_on(&mut agent, delay + Duration::from_secs(20), |_| assert!(kept()));
    the_look_goes_on(&mut agent);
    go_on(&mut agent, delay + Duration::from_secs(20), |_| assert!(kept()));
}
