//! A server with two lock managers: the first serves `one` and what the server serves under its own name, the second `two`.

use heirlock_core::LockManagerName;
use heirlock_core::incarnation::Incarnation;
use heirlock_core::ledger::Ledger;
use heirlock_core::monitor::Arrival;
use heirlock_core::takeover::Journal;

use super::*;
use crate::control::report::ProblemKind;
use crate::status_monitor::Wanted;

const SECOND: InstanceNumber = InstanceNumber::at(1);

/// The server's agent, its store, and its lock managers.
struct Pair {
    store: InMemory,
    agent: Agent<Here>,
    here: [Here; 2],
}

/// The client of each service.
fn client_of(name: &str) -> MonName {
    MonName::parse(if name == "one" { "10.0.0.1" } else { "10.0.0.2" }).unwrap()
}

fn settings_of_two() -> Arc<Settings> {
    let mut two = (*settings(false)).clone();
    two.further = two.instances();
    two.further[0].name = LockManagerName::parse("two").unwrap();
    let of =
        |name: &str, instance| ServiceSettings { name: service(name), instance, ..two.services[0].clone() };
    two.services = vec![of("one", InstanceNumber::FIRST), of("two", SECOND)];
    Arc::new(two)
}

fn begun_with(store: &InMemory, worlds: [World; 2]) -> Pair {
    let here = worlds.map(Here::of);
    here[1].world_mut().number = SECOND;
    let mut agent =
        Agent::new(settings_of_two(), Box::new(store.clone()), here[0].clone(), here.to_vec()).unwrap();
    agent.take_up();
    Pair { store: store.clone(), agent, here }
}

/// Both services are nfs-a's, with a client each.
fn pair() -> Pair {
    let store = InMemory::new(StoreIdentity::of(7));
    for name in ["one", "two"] {
        let claim = Claim::new(Generation(1), &"nfs-a".parse().unwrap(), "run-a", 0);
        let records = [(client_of(name), record(&client_of(name)))].into();
        let contents = Contents { records, state: Some(StateNumber(7)), ..Contents::default() };
        store.claim(&service(name), &claim).unwrap();
        store.begin_generation(&service(name), Generation(1), &contents).unwrap();
    }
    let world = || World { now: Moment::of_process(Duration::ZERO), life: 1, ..World::default() };
    begun_with(&store, [world(), world()])
}

impl Pair {
    /// One turn of the loop. Where there is no message, time passes in both worlds.
    fn turn(&mut self) {
        self.agent.do_what_is_due();
        assert_eq!(self.agent.must_end(), None);
        let messages: Vec<Message> = self.here.iter().filter_map(Here::next).collect();
        if messages.is_empty() {
            let due = self.agent.next_due();
            self.here.iter().for_each(|here| here.pass(due));
        }
        messages.into_iter().for_each(|message| self.agent.handle(message));
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..20_000 {
            if is_so(self) {
                return;
            }
            self.turn();
        }
        panic!("never: {what}; {:?}", self.here.each_ref().map(|here| here.world().begun.clone()));
    }

    fn ask_for(&mut self, name: &str) {
        let request = Request::Adopt {
            service: service(name),
            prepare: false,
            finish: false,
            fenced: None,
            force: true,
            answer_when: AnswerWhen::Settled,
        };
        self.agent.handle(Message::Request(Box::new(request), Responder::new(Waits)));
    }

    fn journal(&self, name: &str) -> Option<&Journal> {
        self.agent.journal_of(&service(name))
    }

    fn is_settled(&self, name: &str) -> bool {
        self.journal(name).is_some_and(|journal| journal.phase == Phase::Settled)
    }

    fn adopt_both(&mut self) {
        self.until("it knows what it holds", |pair| pair.agent.knows_its_holdings());
        ["one", "two"].into_iter().for_each(|name| self.ask_for(name));
        self.until("both settle", |pair| {
            pair.is_settled("one") && pair.is_settled("two") && pair.agent.is_at_rest()
        });
    }

    /// The clients that are told by each lock manager, from now on.
    fn told_from_now_on(&self) {
        for here in &self.here {
            (here.world_mut().told, here.world_mut().begun) = (Vec::new(), Vec::new());
        }
    }

    fn told(&self) -> [BTreeSet<MonName>; 2] {
        self.here.each_ref().map(|here| here.world().told.iter().cloned().collect())
    }

    /// The agent is killed, and another one begins in the same worlds.
    fn start_again(self) -> Self {
        let worlds = self.here.each_ref().map(|here| {
            let world = here.take();
            World { said: VecDeque::new(), hanging: VecDeque::new(), ..world }
        });
        begun_with(&self.store, worlds)
    }

    /// The lock manager of this service begins another life, and its locks are gone.
    fn restarts(&self, at: usize) {
        let mut world = self.here[at].world_mut();
        (world.life, world.life_began) = (world.life + 1, world.now);
        // The status monitor has forgotten who was there before.
        world.registered.clear();
        world.hinted = true;
    }

    fn clients_on_record(&self, service: &ServiceName) -> Vec<MonName> {
        self.agent
            .ledger_of(service)
            .map(Ledger::stored)
            .into_iter()
            .flatten()
            .map(|(key, _)| key.client().clone())
            .collect()
    }
}

fn each_its_own() -> [BTreeSet<MonName>; 2] {
    ["one", "two"].map(|name| [client_of(name)].into())
}

#[test]
fn a_service_is_adopted_to_each_of_two_lock_managers_at_the_same_time() {
    let mut pair = pair();
    pair.adopt_both();
    assert_eq!(pair.told(), each_its_own(), "each its own");
    for here in &pair.here {
        assert_eq!(here.world().life, 2, "each recognised once");
        assert_eq!(here.world().begun, ["check", "place", "command", "prove", "bring up", "tell"]);
    }
    assert_eq!(pair.agent.run_count(), 2);
}

#[test]
fn a_lock_manager_that_begins_another_life_leaves_grace_ledgers_and_clients_of_the_other_alone() {
    let mut pair = pair();
    pair.adopt_both();
    let two = service("two");
    let before = (pair.journal("two").cloned(), pair.clients_on_record(&two));
    let grace = pair.here[1].world().grace.clone();
    let generation = pair.agent.claim_of(&two).unwrap().generation;
    let contents = pair.store.load(&two, generation).unwrap();
    pair.told_from_now_on();
    pair.restarts(0);
    pair.until("it is told", |pair| pair.told()[0].contains(&client_of("one")));
    pair.until("it settles", |pair| pair.agent.is_at_rest() && pair.agent.owes_nothing());
    assert_eq!(pair.told()[1], BTreeSet::new(), "the locks of these are where they were");
    assert_eq!(pair.here[1].world().begun, [] as [&str; 0]);
    assert_eq!((pair.here[1].world().life, &pair.here[1].world().grace), (2, &grace));
    assert_eq!((pair.journal("two").cloned(), pair.clients_on_record(&two)), before);
    assert_eq!(pair.store.load(&two, generation).unwrap(), contents);
}

#[test]
fn a_lock_manager_whose_directory_hangs_holds_no_adoption_of_the_other_up() {
    let mut pair = pair();
    pair.until("it knows what it holds", |pair| pair.agent.knows_its_holdings());
    pair.here[0].world_mut().hangs = true;
    ["one", "two"].into_iter().for_each(|name| pair.ask_for(name));
    pair.until("one waits for its records to be placed", |pair| {
        pair.journal("one").is_some_and(|journal| journal.phase == Phase::Claimed)
    });
    pair.until("two is told", |pair| pair.told()[1].contains(&client_of("two")));
    assert_eq!(pair.told()[0], BTreeSet::new(), "one still waits");
    assert!(!pair.here[0].world().begun.contains(&"command".to_owned()));
    pair.here[0].world_mut().hangs = false;
    let hanging = std::mem::take(&mut pair.here[0].world_mut().hanging);
    pair.here[0].world_mut().said.extend(hanging);
    pair.until("both settle", |pair| pair.is_settled("one") && pair.is_settled("two"));
    assert_eq!(pair.told(), each_its_own());
}

#[test]
fn a_crash_of_both_lock_managers_and_of_the_agent_is_recovered_from_by_each() {
    let mut pair = pair();
    pair.adopt_both();
    pair.told_from_now_on();
    [0, 1].into_iter().for_each(|at| pair.restarts(at));
    let mut pair = pair.start_again();
    pair.until("both are told", |pair| pair.told() == each_its_own());
    pair.until("nothing is owed", |pair| pair.agent.is_at_rest() && pair.agent.owes_nothing());
    assert!(pair.is_settled("one") && pair.is_settled("two"));
}

#[test]
fn an_agent_that_is_killed_in_the_middle_of_two_adoptions_finishes_both() {
    let mut pair = pair();
    pair.until("it knows what it holds", |pair| pair.agent.knows_its_holdings());
    ["one", "two"].into_iter().for_each(|name| pair.ask_for(name));
    pair.until("both have recognised", |pair| {
        ["one", "two"]
            .into_iter()
            .all(|name| pair.journal(name).is_some_and(|j| j.phase >= Phase::Recognised))
    });
    let mut pair = pair.start_again();
    pair.until("both settle", |pair| pair.is_settled("one") && pair.is_settled("two"));
    assert_eq!(pair.told(), each_its_own());
}

#[test]
fn a_client_is_kept_for_the_services_of_the_lock_manager_that_it_registers_with_alone() {
    let mut pair = pair();
    pair.adopt_both();
    let newcomer = MonName::parse("10.0.0.9").unwrap();
    pair.here[1].world_mut().registered.insert(newcomer.clone(), record(&newcomer));
    pair.here[1].world_mut().hinted = true;
    pair.until("it is on record", |pair| pair.clients_on_record(&service("two")).contains(&newcomer));
    for other in [service("one"), host()] {
        assert!(!pair.clients_on_record(&other).contains(&newcomer), "{other}");
    }
    let said = Said::Add { mon_name: MonName::parse("10.0.0.8").unwrap(), my_name: None };
    pair.agent.handle(Message::Of(
        InstanceNumber::FIRST,
        News::Callout(said, Box::new(|done| assert_eq!(*done, Ok(())))),
    ));
    let on_record =
        |name: &ServiceName| pair.clients_on_record(name).iter().any(|c| c.as_str() == "10.0.0.8");
    assert_eq!([service("one"), host(), service("two")].each_ref().map(on_record), [true, true, false]);
}

#[test]
fn the_others_learn_the_state_numbers_of_all_lock_managers_and_the_status_names_all_services() {
    let mut pair = pair();
    pair.until("it beats", |pair| pair.store.servers().unwrap().contains_key(&"nfs-b".parse().unwrap()));
    let report = pair.store.servers().unwrap().remove(&"nfs-b".parse().unwrap()).unwrap();
    assert_eq!((report.state, &report.further_states[..]), (Some(5), &[5][..]));
    let status = pair.agent.status();
    let services: Vec<&str> = status.services.iter().map(|service| service.service.as_str()).collect();
    assert_eq!(services, ["one", "two", "host.nfs-b"]);
}

#[test]
fn each_of_two_lock_managers_is_known_by_its_name_in_the_status_and_in_the_heartbeat() {
    let mut pair = pair();
    let fact = |value: &str| BTreeMap::from([("nlm-grace-period-s".to_owned(), value.to_owned())]);
    (pair.here[0].world_mut().facts, pair.here[1].world_mut().facts) = (fact("20"), fact("45"));
    pair.adopt_both();
    // The second one alone begins another life.
    pair.restarts(1);
    let is_seen = |pair: &Pair| {
        let life = pair.agent.status().lock_managers[1].status.incarnation.clone();
        life.is_some_and(|life| life.contains('3'))
    };
    pair.until("it is recovered from", |pair| is_seen(pair) && pair.agent.is_at_rest());
    let lives = pair.here.each_ref().map(|here| here.world().life);
    let status = pair.agent.status();
    let of = |at: usize| (status.lock_managers[at].name.as_str(), &status.lock_managers[at]);
    let ((first, host), (second, two)) = (of(0), of(1));
    assert_eq!((first, second, status.lock_managers.len()), ("host", "two", 2));
    assert_eq!(host.status, status.lock_manager, "the first is named beside the others");
    for (manager, life, service) in [(host, lives[0], "one"), (two, lives[1], "two")] {
        let incarnation = manager.status.incarnation.as_ref().unwrap();
        assert!(incarnation.contains(&life.to_string()), "{incarnation}, {life}");
        assert_eq!(
            (&manager.services[..], manager.captures_by.as_str()),
            (&[service.to_owned()][..], "watch")
        );
        assert!(manager.status.serving && manager.captures_all && manager.looked_ms_ago.is_some());
    }
    let us = "nfs-b".parse().unwrap();
    let is_known = |pair: &Pair| {
        let report = pair.store.servers().unwrap().remove(&us).unwrap();
        let further = &report.further_lock_managers[0];
        let is_of = |life: &Option<Incarnation>, at: usize| {
            life.as_ref().is_some_and(|life| life.start == lives[at].to_string())
        };
        (is_of(&report.incarnation, 0), is_of(&further.incarnation, 1)) == (true, true)
            && (&report.facts, &further.facts) == (&fact("20"), &fact("45"))
    };
    pair.until("the lives and the facts of both are told", is_known);
    let report = pair.store.servers().unwrap().remove(&us).unwrap();
    let further = &report.further_lock_managers[0];
    assert_eq!((further.name.as_str(), report.further_lock_managers.len()), ("two", 1));
    assert_eq!(report.nodes().collect::<Vec<_>>(), ["nfs-b", "nfs-b-two"]);
}

#[test]
fn a_problem_of_one_of_two_lock_managers_says_which_it_is() {
    let mut pair = pair();
    pair.adopt_both();
    pair.here[1].world_mut().stopped = true;
    let stopped = |pair: &Pair| {
        let problems = pair.agent.status().problems;
        problems.into_iter().find(|problem| problem.kind == ProblemKind::NoLockManager)
    };
    pair.until("it is seen", |pair| stopped(pair).is_some());
    assert_eq!(stopped(&pair).unwrap().lock_manager.as_deref(), Some("two"));
    let us = "nfs-b".parse().unwrap();
    let ailments = |pair: &Pair| pair.store.servers().unwrap()[&us].ailments.clone();
    pair.until("the others are told", |pair| !ailments(pair).is_empty());
    assert_eq!(ailments(&pair), ["no-lock-manager: lock manager two"]);
    let status = pair.agent.status();
    assert_eq!(status.lock_managers.iter().map(|it| it.status.serving).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn of_one_lock_manager_alone_nothing_is_named() {
    let store = InMemory::new(StoreIdentity::of(7));
    let here = Here::default();
    here.world_mut().stopped = true;
    let mut agent = Agent::new(settings(false), Box::new(store.clone()), here.clone(), vec![here]).unwrap();
    agent.take_up();
    agent.do_what_is_due();
    let status = serde_json::to_value(agent.status()).unwrap();
    let heartbeat = serde_json::to_value(store.servers().unwrap().into_values().next().unwrap()).unwrap();
    for (what, field) in [(&status, "lock_managers"), (&heartbeat, "further-lock-managers")] {
        assert!(what.get(field).is_none(), "{what}");
    }
    assert!(!status.to_string().contains(r#""host""#), "{status}");
}

#[test]
fn two_lock_managers_of_one_name_are_refused() {
    let mut settings = (*settings_of_two()).clone();
    settings.further[0].name = LockManagerName::host();
    let here = Here::default();
    let store = InMemory::new(StoreIdentity::of(7));
    let begun = Agent::new(settings.into(), Box::new(store), here.clone(), vec![here.clone(), here]);
    assert!(begun.is_err_and(|error| error.to_string().contains("2 lock managers of 1 names")));
}

#[test]
fn an_agent_does_not_begin_without_one_of_its_lock_managers_and_leaves_messages_of_unknown_ones_alone() {
    let store = InMemory::new(StoreIdentity::of(7));
    let here = Here::default();
    let begun = Agent::new(settings_of_two(), Box::new(store), here.clone(), vec![here]);
    assert!(begun.is_err_and(|error| error.to_string().contains("2 lock managers, and 1")));
    let mut pair = pair();
    pair.agent.handle(Message::Of(InstanceNumber::at(2), News::Changed));
    pair.adopt_both();
}

#[test]
fn a_lock_manager_that_holds_no_service_says_so_and_blames_no_store() {
    let mut pair = pair();
    pair.agent.monitors(SECOND, Some(BTreeSet::new()));
    let commits = |pair: &mut Pair, batch| {
        let line = MonitorLine::generated(client_of("one"), MyName::parse("nfs-b-two").unwrap());
        let wanted = Wanted::Commit { batch, arrivals: vec![Arrival { line, peer: false }] };
        pair.agent.handle(Message::Of(SECOND, News::Monitor(wanted)));
        pair.here[1].world().told_monitor.take()
    };
    pair.until("it knows what it holds", |pair| pair.agent.knows_its_holdings());
    pair.here[1].world().told_monitor.take();
    assert_eq!(commits(&mut pair, 2), [MonitorEvent::HoldsNothing { batch: 2 }]);
    assert_eq!(pair.agent.status().store.error, None, "the store is well");
    pair.ask_for("two");
    pair.until("it is settled", |pair| pair.is_settled("two"));
    pair.here[1].world().told_monitor.take();
    assert_eq!(commits(&mut pair, 3)[0], MonitorEvent::Committed { batch: 3, durable: true });
}
