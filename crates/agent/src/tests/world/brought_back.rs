//! Addresses that a release took away, and that come back where it does not come to its end.

use heirlock_core::store::StoreErrorKind;

use super::troubled::{Fault, Faults, Troubled};
use super::verbs::{Heard, asked};
use super::*;
use crate::control::report::ProblemKind;

/// An agent that holds `new`, and its address. `hook`: one brings addresses.
fn holder(hook: bool) -> (InMemory, Faults, Agent<Here>) {
    let (store, mut agent) = begun();
    adopt(&store, &mut agent, None);
    agent.outside().world_mut().has_addresses = true;
    let faults = Faults::default();
    let mut agent = next_agent(&agent, Box::new(Troubled::new(&store, &faults)), hook);
    goes_on(&mut agent, Duration::from_secs(5));
    let mut world = agent.outside().world_mut();
    (world.told, world.begun) = (Vec::new(), Vec::new());
    drop(world);
    (store, faults, agent)
}

/// The agent is killed, with all work that it had begun, and the next one starts in the same life of the lock manager.
fn next_agent(agent: &Agent<Here>, store: Box<dyn Store>, hook: bool) -> Agent<Here> {
    let mut world = agent.outside().take();
    world.said.clear();
    world.hanging.clear();
    let mut settings = Settings::clone(&settings(world.restarts_nfs));
    let command = Command { argv: vec!["address-up".to_owned()], time_limit: Duration::from_secs(30) };
    settings.hooks.address_up = hook.then_some(command);
    let mut agent = started_on(Arc::new(settings), store, world);
    agent.take_up();
    agent
}

fn release(agent: &mut Agent<Here>) -> Heard {
    asked(agent, Request::Release { service: service("new") })
}

fn begun_in(agent: &Agent<Here>) -> Vec<String> {
    agent.outside().world().begun.clone()
}

fn has_address(agent: &Agent<Here>) -> bool {
    agent.outside().world().has_addresses
}

fn noted(agent: &Agent<Here>) -> Vec<(ServiceName, Generation)> {
    let world = agent.outside().world();
    world.taken_away.noted().map(|(service, generation)| (service.clone(), generation)).collect()
}

/// The problems of addresses that were taken away, in words.
fn problems(agent: &Agent<Here>) -> Vec<String> {
    let problems = agent.status().problems.into_iter();
    let away = problems.filter(|problem| problem.kind == ProblemKind::AddressTakenAway);
    away.filter_map(|problem| problem.error).collect()
}

/// It is served as before: by this server, at its address, with the locks that its clients had.
fn is_served_as_before(store: &InMemory, agent: &Agent<Here>) {
    assert!(has_address(agent) && agent.held().any(|held| *held == service("new")));
    assert!(!store.newest_claim(&service("new")).unwrap().unwrap().released);
    assert_eq!(agent.outside().world().told, [], "no lock is lost, so no client is told");
    assert_eq!((noted(agent), problems(agent)), (vec![], vec![]));
    assert_eq!(agent.ledger_of(&service("new")).unwrap().stored().len(), 1);
}

#[test]
fn it_is_noted_before_an_address_goes_and_forgotten_when_the_claim_is_given_up() {
    let (store, _, mut agent) = holder(true);
    let generation = agent.claim_of(&service("new")).unwrap().generation;
    let heard = release(&mut agent);
    assert_eq!(begun_in(&agent), ["note", "take address away"]);
    assert_eq!(noted(&agent), [(service("new"), generation)]);
    until(&mut agent, "it is released", |_| heard.answer().is_some());
    assert!(
        heard.answer().unwrap().is_ok() && store.newest_claim(&service("new")).unwrap().unwrap().released
    );
    assert_eq!((noted(&agent), has_address(&agent)), (vec![], false));
    goes_on(&mut agent, Duration::from_secs(60));
    assert!(!has_address(&agent) && !begun_in(&agent).contains(&"bring address back".to_owned()));
}

#[test]
fn an_agent_that_is_killed_at_any_step_of_a_release_leaves_an_address_that_comes_back_or_no_claim() {
    // Before the address goes, and after that.
    for is_gone in [false, true] {
        let (store, _, mut agent) = holder(true);
        release(&mut agent);
        agent.outside().world_mut().has_addresses = !is_gone;
        let mut agent = next_agent(&agent, Box::new(store.clone()), true);
        goes_on(&mut agent, Duration::from_secs(5));
        is_served_as_before(&store, &agent);
        let brought = begun_in(&agent).iter().filter(|work| *work == "bring address back").count();
        assert_eq!(brought, usize::from(is_gone));
    }
    // After the claim is given up, and before the note is taken back.
    let (store, _, mut agent) = holder(true);
    let heard = release(&mut agent);
    let note = agent.outside().taken_away().unwrap();
    until(&mut agent, "it is released", |_| heard.answer().is_some());
    agent.outside().world_mut().taken_away = note;
    let mut agent = next_agent(&agent, Box::new(store.clone()), true);
    goes_on(&mut agent, Duration::from_secs(60));
    assert!(!has_address(&agent) && noted(&agent).is_empty());
    assert!(!begun_in(&agent).contains(&"bring address back".to_owned()));
}

#[test]
fn an_address_comes_back_that_a_hook_of_the_killed_agent_takes_away_after_the_next_one_has_begun() {
    let (store, _, mut agent) = holder(true);
    release(&mut agent);
    agent.outside().world_mut().has_addresses = true;
    let mut agent = next_agent(&agent, Box::new(store.clone()), true);
    goes_on(&mut agent, Duration::from_millis(1_500));
    assert!(has_address(&agent) && noted(&agent).len() == 1, "it may go yet");
    agent.outside().world_mut().has_addresses = false;
    goes_on(&mut agent, Duration::from_secs(5));
    is_served_as_before(&store, &agent);
}

#[test]
fn an_address_comes_back_after_a_release_that_the_store_did_not_take_and_not_before_the_store_says_whose_it_is()
 {
    let (store, faults, mut agent) = holder(true);
    faults.add(Fault::of(&service("new"), &["release", "newest_claim", "newest_generation"]));
    let heard = release(&mut agent);
    until(&mut agent, "it fails", |_| heard.answer().is_some());
    assert!(heard.answer().unwrap().unwrap_err().message.contains("was not released"));
    goes_on(&mut agent, Duration::from_secs(60));
    assert!(!has_address(&agent), "another server may have claimed it by now");
    faults.mend();
    goes_on(&mut agent, Duration::from_secs(5));
    is_served_as_before(&store, &agent);
}

#[test]
fn an_address_stays_away_where_a_release_that_had_failed_came_about_all_the_same() {
    let (store, faults, mut agent) = holder(true);
    let is_done = Fault { is_done: true, times: 1, ..Fault::of(&service("new"), &["release"]) };
    faults.add(is_done);
    let heard = release(&mut agent);
    let is_released = || store.newest_claim(&service("new")).unwrap().unwrap().released;
    until(&mut agent, "the claim is given up", |_| is_released());
    faults.add(Fault::of(&service("new"), &["load"]));
    until(&mut agent, "it fails", |_| heard.answer().is_some());
    assert!(heard.answer().unwrap().is_err());
    faults.mend();
    goes_on(&mut agent, Duration::from_secs(60));
    assert!(is_released());
    assert!(!has_address(&agent) && noted(&agent).is_empty());
    assert!(!begun_in(&agent).contains(&"bring address back".to_owned()));
}

#[test]
fn an_address_stays_away_while_its_release_may_come_about_late() {
    let (store, faults, mut agent) = holder(true);
    let late = Fault { kind: StoreErrorKind::TimedOut, ..Fault::of(&service("new"), &["release"]) };
    faults.add(late);
    let heard = release(&mut agent);
    goes_on(&mut agent, Duration::from_secs(10));
    assert!(heard.answer().is_none() && !has_address(&agent), "it may be given up at any moment");
    until(&mut agent, "it has waited long enough", |_| heard.answer().is_some());
    goes_on(&mut agent, Duration::from_secs(5));
    is_served_as_before(&store, &agent);
}

#[test]
fn where_no_hook_brings_an_address_a_person_is_told_what_to_do_until_it_is_back() {
    let (store, _, mut agent) = holder(false);
    release(&mut agent);
    agent.outside().world_mut().has_addresses = false;
    let mut agent = next_agent(&agent, Box::new(store.clone()), false);
    goes_on(&mut agent, Duration::from_secs(60));
    assert!(!has_address(&agent) && !begun_in(&agent).contains(&"bring address back".to_owned()));
    let [said] = &problems(&agent)[..] else { panic!("{:?}", problems(&agent)) };
    assert!(said.contains("bring the address back; 'heirlock release new' goes on"), "{said}");
    agent.outside().world_mut().has_addresses = true;
    goes_on(&mut agent, Duration::from_secs(2));
    is_served_as_before(&store, &agent);
}

#[test]
fn a_release_goes_on_where_its_address_was_taken_away_before() {
    let (store, _, mut agent) = holder(false);
    release(&mut agent);
    agent.outside().world_mut().has_addresses = false;
    let mut agent = next_agent(&agent, Box::new(store.clone()), false);
    goes_on(&mut agent, Duration::from_secs(5));
    let heard = release(&mut agent);
    until(&mut agent, "it is released", |_| heard.answer().is_some());
    assert!(
        heard.answer().unwrap().is_ok() && store.newest_claim(&service("new")).unwrap().unwrap().released
    );
    goes_on(&mut agent, Duration::from_secs(2));
    assert_eq!((noted(&agent), problems(&agent)), (vec![], vec![]));
}

#[test]
fn a_hook_that_fails_is_run_again_and_what_it_says_is_a_problem_until_then() {
    let (store, _, mut agent) = holder(true);
    release(&mut agent);
    agent.outside().world_mut().has_addresses = false;
    agent.outside().world_mut().address_up = Some("no such interface".to_owned());
    let mut agent = next_agent(&agent, Box::new(store.clone()), true);
    goes_on(&mut agent, Duration::from_secs(20));
    let brought =
        |agent: &Agent<Here>| begun_in(agent).iter().filter(|work| *work == "bring address back").count();
    assert_eq!(brought(&agent), 1, "not at each turn");
    assert!(problems(&agent)[0].contains("no such interface"), "{:?}", problems(&agent));
    agent.outside().world_mut().address_up = None;
    goes_on(&mut agent, Duration::from_secs(20));
    assert_eq!(brought(&agent), 2);
    is_served_as_before(&store, &agent);
}

#[test]
fn a_release_that_is_asked_for_while_its_address_is_brought_back_begins_after_that() {
    let (store, _, mut agent) = holder(true);
    release(&mut agent);
    agent.outside().world_mut().has_addresses = false;
    let mut agent = next_agent(&agent, Box::new(store.clone()), true);
    let is_on = |agent: &Agent<Here>| begun_in(agent).contains(&"bring address back".to_owned());
    until(&mut agent, "its address is being brought back", is_on);
    let heard = release(&mut agent);
    assert!(heard.answer().is_none() && noted(&agent).len() == 1);
    assert_eq!(begun_in(&agent).last().map(String::as_str), Some("bring address back"));
    until(&mut agent, "it is released", |_| heard.answer().is_some());
    assert!(heard.answer().unwrap().is_ok() && !has_address(&agent));
    assert!(store.newest_claim(&service("new")).unwrap().unwrap().released && noted(&agent).is_empty());
}

#[test]
fn an_address_of_which_no_note_can_be_made_is_not_taken_away() {
    let (store, _, mut agent) = holder(true);
    agent.outside().world_mut().notes_fail = true;
    let why = release(&mut agent).answer().unwrap().unwrap_err();
    assert!(why.refused && why.message.contains("no space left"), "{why:?}");
    goes_on(&mut agent, Duration::from_secs(5));
    assert_eq!(begun_in(&agent), [] as [&str; 0]);
    is_served_as_before(&store, &agent);
}

#[test]
fn clients_whose_locks_are_gone_meanwhile_are_told_by_a_run_that_brings_the_address_itself() {
    let (store, _, mut agent) = holder(true);
    release(&mut agent);
    agent.outside().world_mut().has_addresses = false;
    agent.outside().world_mut().restart_nfs();
    let before = agent.claim_of(&service("new")).unwrap().generation;
    let mut agent = next_agent(&agent, Box::new(store.clone()), true);
    goes_on(&mut agent, GRACE + Duration::from_secs(20));
    assert!(agent.claim_of(&service("new")).unwrap().generation > before);
    // As a client of this server itself as well.
    let told: BTreeSet<MonName> = agent.outside().world().told.iter().cloned().collect();
    assert_eq!(told, clients()[..1].iter().cloned().collect());
    let begun = begun_in(&agent);
    assert!(begun.contains(&"bring up".to_owned()), "{begun:?}");
    assert!(!begun.contains(&"bring address back".to_owned()), "before grace is proved: {begun:?}");
    assert_eq!(noted(&agent), []);
}

#[test]
fn an_address_that_is_brought_back_by_work_that_hangs_is_said_and_a_release_waits_no_longer_than_it_says() {
    let (store, _, mut agent) = holder(true);
    release(&mut agent);
    agent.outside().world_mut().has_addresses = false;
    agent.outside().world_mut().keeps_services = true;
    let mut agent = next_agent(&agent, Box::new(store.clone()), true);
    goes_on(&mut agent, Duration::from_secs(100));
    let [said] = &problems(&agent)[..] else { panic!("{:?}", problems(&agent)) };
    assert!(said.contains("hangs"), "{said}");
    let heard = release(&mut agent);
    assert!(heard.answer().is_none(), "it waits for it");
    goes_on(&mut agent, Duration::from_secs(1_000));
    let why = heard.answer().unwrap().unwrap_err().message;
    assert!(why.contains("its address is being brought back"), "{why}");
    let brought = begun_in(&agent).iter().filter(|work| *work == "bring address back").count();
    assert_eq!(brought, 1, "one hook at a time");
    // It reports at last.
    agent.outside().world_mut().has_addresses = true;
    let news = agent.outside().world_mut().hanging.pop_front().unwrap();
    agent.handle(Message::Of(InstanceNumber::FIRST, news));
    goes_on(&mut agent, Duration::from_secs(2));
    is_served_as_before(&store, &agent);
}
