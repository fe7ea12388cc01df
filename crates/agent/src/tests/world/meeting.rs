//! Two and three services that are adopted to one server at the same time, in any overlap.

use super::troubled::{Fault, Faults, Troubled};
use super::verbs::{Heard, asked};
use super::*;

pub(super) const NAMES: [&str; 3] = ["new", "homes", "third"];

/// The clients of the service at this place.
fn clients_of(at: usize) -> [MonName; 2] {
    [1, 2].map(|host| MonName::parse(&format!("10.0.{at}.{host}")).unwrap())
}

/// Three services of nfs-a, with two clients each, may be adopted here.
pub(super) fn settings_of_three() -> Arc<Settings> {
    let mut settings = (*settings(false)).clone();
    let one = settings.services[0].clone();
    settings.services = NAMES
        .iter()
        .zip(11..)
        .map(|(name, host)| ServiceSettings {
            name: service(name),
            addresses: vec![[192, 0, 2, host].into()],
            ..one.clone()
        })
        .collect();
    Arc::new(settings)
}

pub(super) fn store_of_three() -> InMemory {
    let store = InMemory::new(StoreIdentity::of(7));
    for (at, name) in NAMES.iter().enumerate() {
        let claim = Claim::new(Generation(1), &"nfs-a".parse().unwrap(), "run-a", 0);
        let records = clients_of(at).map(|client| (client.clone(), record(&client))).into();
        let contents = Contents { records, state: Some(StateNumber(7)), ..Contents::default() };
        store.claim(&service(name), &claim).unwrap();
        store.begin_generation(&service(name), Generation(1), &contents).unwrap();
    }
    store
}

fn agent_on(store: Box<dyn Store>, world: World) -> Agent<Here> {
    let mut agent = started_on(settings_of_three(), store, world);
    agent.take_up();
    agent
}

/// An agent that knows what it holds, on a store with three services of another server.
fn begun_with_three() -> (InMemory, Agent<Here>) {
    let store = store_of_three();
    let world = World { now: Moment::of_process(Duration::ZERO), life: 1, ..World::default() };
    let mut agent = agent_on(Box::new(store.clone()), world);
    until(&mut agent, "it knows what it holds", |agent| agent.is_at_rest() && agent.knows_its_holdings());
    (store, agent)
}

fn adoption(name: &str, prepare: bool, finish: bool) -> Request {
    Request::Adopt {
        service: service(name),
        prepare,
        finish,
        fenced: None,
        force: !finish,
        answer_when: AnswerWhen::Settled,
    }
}

fn is_of_a_run(message: &Message) -> bool {
    matches!(
        message,
        Message::Of(_, News::Fit(..) | News::Placed(..) | News::Recognised(..) | News::Event(..))
    )
}

/// The work that is due is done, and messages are taken in, until so many of runs have come, or all is at rest.
fn after_messages_of_runs(agent: &mut Agent<Here>, count: usize) -> bool {
    let mut of_runs = 0;
    for _ in 0..5_000 {
        agent.do_what_is_due();
        if of_runs == count {
            return true;
        }
        if agent.is_at_rest() {
            return false;
        }
        match agent.outside().next() {
            Some(message) => {
                of_runs += usize::from(is_of_a_run(&message));
                agent.handle(message);
            }
            None => {
                let due = agent.next_due();
                agent.outside().pass(due);
            }
        }
    }
    panic!("it never comes to rest: {:?}", agent.outside().world().begun);
}

fn restarts(agent: &Agent<Here>) -> usize {
    agent.outside().world().begun.iter().filter(|begun| *begun == "command").count()
}

fn settles(agent: &mut Agent<Here>, callers: &[&Heard]) {
    until(agent, "all are answered", |agent| {
        agent.is_at_rest() && callers.iter().all(|heard| heard.answer().is_some())
    });
}

fn is_adopted(heard: &Heard, name: &str) {
    match heard.answer() {
        Some(Ok(Answer::Adoption(report))) if report.service == name => {}
        other => panic!("{name}: {other:?}"),
    }
}

/// Each client of these services has an outcome that is good, in the generation that is held.
fn all_are_told(store: &InMemory, agent: &Agent<Here>, services: &[usize], what: &str) {
    for at in services {
        let name = service(NAMES[*at]);
        let held = agent.claim_of(&name).unwrap_or_else(|| panic!("{what}: {name} is not held")).generation;
        let account = store.account(&name, held).unwrap();
        let last = last_outcomes(&account.outcomes);
        for client in clients_of(*at) {
            let outcome = last.get(&client.as_key()).map(|line| line.outcome);
            assert!(outcome.is_some_and(Outcome::is_good), "{what}: {client} of {name}: {outcome:?}");
        }
        let journal = account.journal.unwrap();
        assert_eq!((journal.phase, &journal.failure), (Phase::Settled, &None), "{what}: {name}");
    }
}

#[test]
fn two_services_are_adopted_in_any_overlap_with_one_restart_where_they_meet_before_it() {
    for prepared in [false, true] {
        let mut overlaps = [0; 2];
        for count in 0.. {
            let (store, mut agent) = begun_with_three();
            let first = asked(&mut agent, adoption("new", prepared, false));
            if !after_messages_of_runs(&mut agent, count) {
                break;
            }
            let is_restarted = restarts(&agent);
            let second = asked(&mut agent, adoption("homes", prepared, false));
            let mut callers = vec![first, second];
            if prepared {
                until(&mut agent, "both are prepared", |_| {
                    callers.iter().all(|heard| heard.answer().is_some())
                });
                callers.extend(["new", "homes"].map(|name| asked(&mut agent, adoption(name, false, true))));
            }
            settles(&mut agent, &callers.iter().collect::<Vec<_>>());
            let what =
                format!("after {count} messages, prepared: {prepared}: {:?}", agent.outside().world().begun);
            callers
                .iter()
                .zip(["new", "homes", "new", "homes"])
                .for_each(|(heard, name)| is_adopted(heard, name));
            all_are_told(&store, &agent, &[0, 1], &what);
            assert_eq!(restarts(&agent), 1 + is_restarted, "{what}");
            overlaps[is_restarted] += 1;
        }
        assert!(overlaps.iter().all(|count| *count >= 1), "{overlaps:?}");
    }
}

#[test]
fn three_services_that_are_asked_for_at_once_are_one_run() {
    let (store, mut agent) = begun_with_three();
    let callers = NAMES.map(|name| asked(&mut agent, adoption(name, false, false)));
    settles(&mut agent, &callers.each_ref());
    all_are_told(&store, &agent, &[0, 1, 2], "three");
    assert_eq!(restarts(&agent), 1, "{:?}", agent.outside().world().begun);
    let claims = NAMES.map(|name| store.newest_claim(&service(name)).unwrap().unwrap().generation);
    assert_eq!(claims, [Generation(2); 3], "each is claimed once");
}

#[test]
fn an_agent_that_is_killed_while_adoptions_meet_leaves_the_next_one_all_that_it_needs() {
    for met in 0.. {
        let mut killed = 0;
        while {
            let (store, mut agent) = begun_with_three();
            let _first = asked(&mut agent, adoption("new", false, false));
            if !after_messages_of_runs(&mut agent, met) {
                return;
            }
            let _second = asked(&mut agent, adoption("homes", false, false));
            let goes_on = after_messages_of_runs(&mut agent, killed);
            let mut world = agent.outside().take();
            world.said.clear();
            world.hanging.clear();
            let mut agent = agent_on(Box::new(store.clone()), world);
            until(&mut agent, "it knows what it holds", Agent::knows_its_holdings);
            // As a cluster manager says the verbs again.
            let callers = ["new", "homes"].map(|name| asked(&mut agent, adoption_again(name)));
            settles(&mut agent, &callers.each_ref());
            let what = format!("met after {met}, killed after {killed}: {:?}", agent.outside().world().begun);
            for (at, name) in NAMES.iter().enumerate().take(2) {
                let held =
                    agent.claim_of(&service(name)).unwrap_or_else(|| panic!("{what}: {name}")).generation;
                let account = store.account(&service(name), held).unwrap();
                let last = last_outcomes(&account.outcomes);
                assert!(
                    clients_of(at).iter().all(|client| last.contains_key(&client.as_key())),
                    "{what}: {name}"
                );
                let told = &agent.outside().world().told;
                assert!(clients_of(at).iter().all(|client| told.contains(client)), "{what}: {name}");
            }
            killed += 1;
            goes_on
        } {}
    }
}

/// It is claimed by force where it is not this server's yet, and by no force where it is.
fn adoption_again(name: &str) -> Request {
    Request::Adopt {
        service: service(name),
        prepare: false,
        finish: false,
        fenced: Some(crate::control::Fenced::Server("nfs-a".parse().unwrap())),
        force: false,
        answer_when: AnswerWhen::Settled,
    }
}

#[test]
fn a_refused_adoption_leaves_the_other_one_alone_whichever_comes_first() {
    for refused_first in [true, false] {
        let (store, mut agent) = begun_with_three();
        // The owner of homes lives, as far as this server can see, and nobody insists.
        let refuse = Request::Adopt {
            service: service("homes"),
            prepare: false,
            finish: false,
            fenced: None,
            force: false,
            answer_when: AnswerWhen::Settled,
        };
        let other = Claim::new(Generation(5), &"nfs-c".parse().unwrap(), "run-c", 0);
        let hear = |agent: &mut Agent<Here>, name: &str| match name {
            "new" => asked(agent, adoption("new", false, false)),
            _ => asked(agent, refuse.clone()),
        };
        let order = if refused_first { ["homes", "new"] } else { ["new", "homes"] };
        let heard = order.map(|name| hear(&mut agent, name));
        // Another server takes homes before its claim.
        store.claim(&service("homes"), &other).unwrap();
        settles(&mut agent, &heard.each_ref());
        let of = |name: &str| &heard[order.iter().position(|other| *other == name).unwrap()];
        is_adopted(of("new"), "new");
        assert!(of("homes").answer().unwrap().is_err_and(|failure| failure.refused), "{refused_first}");
        all_are_told(&store, &agent, &[0], "the other one");
        assert_eq!((restarts(&agent), agent.claim_of(&service("homes")).is_some()), (1, false));
    }
}

#[test]
fn an_adoption_that_is_released_before_it_claims_leaves_the_other_one_alone() {
    let (store, mut agent) = begun_with_three();
    let [first, second] = ["new", "homes"].map(|name| asked(&mut agent, adoption(name, false, false)));
    let released = asked(&mut agent, Request::Release { service: service("homes") });
    assert!(matches!(released.answer(), Some(Ok(Answer::Verb { changed: true, .. }))), "{released:?}");
    settles(&mut agent, &[&first, &second]);
    is_adopted(&first, "new");
    assert!(second.answer().unwrap().is_err());
    all_are_told(&store, &agent, &[0], "the other one");
    assert_eq!(store.newest_claim(&service("homes")).unwrap().unwrap().owner.as_str(), "nfs-a");
}

#[test]
fn a_service_that_is_released_while_both_are_told_leaves_the_other_one_alone() {
    for at in [Phase::Claimed, Phase::Conveyed, Phase::Proved, Phase::Notifying, Phase::Settling] {
        let (store, mut agent) = begun_with_three();
        let [first, second] = ["new", "homes"].map(|name| asked(&mut agent, adoption(name, false, false)));
        until(&mut agent, "it has come so far", |agent| phase(agent) >= Some(at));
        let released = asked(&mut agent, Request::Release { service: service("homes") });
        until(&mut agent, "it is released", |_| released.answer().is_some());
        assert!(
            matches!(released.answer(), Some(Ok(Answer::Verb { changed: true, .. }))),
            "{at}: {released:?}"
        );
        until(&mut agent, "its caller is told", |_| second.answer().is_some());
        assert!(second.answer().unwrap().is_err() && first.answer().is_none(), "{at}");
        settles(&mut agent, &[&first]);
        is_adopted(&first, "new");
        all_are_told(&store, &agent, &[0], &at.to_string());
        assert_eq!(restarts(&agent), 1, "{at}");
    }
}

/// Only the first client of each service, which comes back at once.
fn with_one_client_each(store: &InMemory) {
    for (at, name) in NAMES.iter().enumerate() {
        let claim = Claim::new(Generation(2), &"nfs-a".parse().unwrap(), "run-a", 0);
        let [client, _] = clients_of(at);
        let records = [(client.clone(), record(&client))].into();
        let contents = Contents { records, state: Some(StateNumber(9)), ..Contents::default() };
        store.claim(&service(name), &claim).unwrap();
        store.begin_generation(&service(name), Generation(2), &contents).unwrap();
    }
}

#[test]
fn a_caller_is_answered_when_its_own_clients_are_back_and_does_not_wait_for_those_of_the_other() {
    let (store, mut agent) = begun_with_three();
    with_one_client_each(&store);
    let [never, _] = clients_of(1);
    agent.outside().world_mut().off.insert(never.clone());
    let [first, second] = ["new", "homes"].map(|name| asked(&mut agent, adoption(name, false, false)));
    until(&mut agent, "the first is answered", |_| first.answer().is_some());
    let Some(Ok(Answer::Adoption(report))) = first.answer() else { panic!() };
    assert_eq!((report.service.as_str(), report.phase.as_str(), report.re_registered), ("new", "settled", 1));
    assert!(report.others.iter().all(|other| other.service != "homes"), "it has a caller of its own");
    assert!(second.answer().is_none() && !agent.is_at_rest(), "it is called until grace ends");
    settles(&mut agent, &[&second]);
    let Some(Ok(Answer::Adoption(report))) = second.answer() else { panic!() };
    assert_eq!((report.service.as_str(), report.unreachable), ("homes", 1));
}

#[test]
fn an_adoption_that_waits_in_line_says_so_and_for_which_run() {
    let (_, mut agent) = begun_with_three();
    agent.outside().world_mut().recognition_hangs = true;
    let _first = asked(&mut agent, adoption("new", false, false));
    until(&mut agent, "the lock manager is being restarted", |agent| phase(agent) == Some(Phase::Conveyed));
    let _second = asked(&mut agent, adoption("homes", false, false));
    until(&mut agent, "it waits in line", |agent| {
        let status = agent.status();
        let of = status.services.iter().find(|status| status.service == "homes").unwrap();
        of.waits_for.as_deref()
            == Some("the lock manager to be restarted for new first; then it is restarted once more")
    });
    let released = asked(&mut agent, Request::Release { service: service("homes") });
    assert!(matches!(released.answer(), Some(Ok(Answer::Verb { changed: true, .. }))), "{released:?}");
}

/// As clients' records at a server that serves several services.
#[test]
fn a_store_that_fails_while_adoptions_meet_leaves_no_client_out_of_any_record() {
    for calls in [&["claim"] as &[&str], &["begin_generation"], &["commit"], &["load"], &["newest_claim"]] {
        for count in 0.. {
            let (store, agent) = begun_with_three();
            let faults = Faults::default();
            let mut world = agent.outside().take();
            world.said.clear();
            let mut agent = agent_on(Box::new(Troubled::new(&store, &faults)), world);
            until(&mut agent, "it knows what it holds", |agent| {
                agent.is_at_rest() && agent.knows_its_holdings()
            });
            let first = asked(&mut agent, adoption("new", false, false));
            if !after_messages_of_runs(&mut agent, count) {
                break;
            }
            let second = asked(&mut agent, adoption("homes", false, false));
            let calls: &'static [&'static str] = Box::leak(calls.to_vec().into_boxed_slice());
            faults.add(Fault { service: None, ..Fault::of(&service("homes"), calls) });
            goes_on(&mut agent, Duration::from_secs(4));
            faults.mend();
            settles(&mut agent, &[&first, &second]);
            let what = format!("{calls:?} after {count}: {:?}", agent.outside().world().begun);
            let told = agent.outside().world().told.clone();
            for (at, name) in NAMES.iter().enumerate().take(2) {
                let missing = clients_of(at).into_iter().find(|client| !told.contains(client));
                assert_eq!(missing, None, "{what}");
                assert!(agent.claim_of(&service(name)).is_some(), "{what}");
            }
            // A client that has come back is on record with all that its lock manager serves.
            let registered: Vec<MonName> = agent.outside().world().registered.keys().cloned().collect();
            assert!(!registered.is_empty(), "{what}");
            for name in [service("new"), service("homes"), host()] {
                let held = agent.ledger_of(&name).unwrap().stored();
                let missing = registered.iter().find(|client| !held.clients().any(|held| held == *client));
                assert_eq!(missing, None, "{what}: {name}");
            }
        }
    }
}

#[test]
fn all_services_of_a_silent_owner_are_adopted_by_one_run_with_one_fence_and_one_restart() {
    let store = store_of_three();
    let mut settings = (*settings_of_three()).clone();
    settings.services.iter_mut().for_each(|service| service.mode = Mode::Automatic);
    settings.hooks.fence = settings.lock_manager.recognise.clone();
    let report = heirlock_core::store::ServerReport::new("nfs-a".parse().unwrap(), "run-a");
    store.put_server(&report).unwrap();
    let world = World { now: Moment::of_process(Duration::ZERO), life: 1, ..World::default() };
    let mut agent = started_on(Arc::new(settings), Box::new(store.clone()), world);
    agent.take_up();
    let beaten = std::cell::Cell::new(0);
    until(&mut agent, "all are adopted", |agent| {
        if beaten.get() < 5 && agent.outside().now() > Moment::of_process(Duration::from_secs(beaten.get())) {
            beaten.set(beaten.get() + 1);
            store
                .put_server(&heirlock_core::store::ServerReport { beat: beaten.get(), ..report.clone() })
                .unwrap();
        }
        agent.is_at_rest() && NAMES.iter().all(|name| agent.claim_of(&service(name)).is_some())
    });
    all_are_told(&store, &agent, &[0, 1, 2], "all");
    let begun = agent.outside().world().begun.clone();
    let fences = begun.iter().filter(|begun| *begun == "fence").count();
    assert_eq!((fences, restarts(&agent)), (1, 1), "{begun:?}");
}
