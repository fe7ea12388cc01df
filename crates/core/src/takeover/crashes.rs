//! I9: any step may be the last. A run is killed after each thing it makes durable and each thing it does, again and again,
//! and the next run finishes the work, under numbers that never cross from one life of the lock manager to another.

use std::collections::{BTreeMap, BTreeSet};

use heirlock_nsm::StateNumber;
use proptest::collection::vec;
use proptest::prelude::{prop, proptest};

use super::tests::LIMITS;
use std::time::Duration;

use super::*;
use crate::claim::Authority;
use crate::names::Generation;
use crate::names::ServerName;
use crate::records::Records;

const SERVICES: [(&str, &[&str], u32); 3] = [
    ("nfs", &["10.0.0.1", "10.0.0.2"], 9),
    ("mail", &["10.0.0.2", "10.0.0.3"], 4),
    ("home", &["10.0.0.8"], 3),
];
const GRACE: Duration = Duration::from_secs(15);

fn service(text: &str) -> ServiceName {
    ServiceName::parse(text).unwrap()
}

fn client(text: &str) -> RecordKey {
    RecordKey::parse(text).unwrap()
}

/// One generation of one service, as it lies in the store.
#[derive(Debug, Clone)]
struct Kept {
    state: StateNumber,
    records: BTreeSet<RecordKey>,
    begun: Option<(Journal, Vec<OutcomeLine>)>,
}

/// A datagram that left: to whom, under which number, in which life.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Sent {
    service: ServiceName,
    client: RecordKey,
    state: StateNumber,
    life: u32,
}

/// The agent was killed.
#[derive(Debug)]
struct Killed;

/// The world that outlives the agent, and how many steps the agent has until it is killed.
struct World {
    now: Moment,
    store: BTreeMap<(ServiceName, Generation), Kept>,
    life: u32,
    grace_opened: Moment,
    sent: Vec<Sent>,
    registered: BTreeSet<RecordKey>,
    /// The agent's note beside the store when the lock manager recognised.
    noted: String,
    /// A grace period went by without an agent: which clients came back inside it is not known then.
    was_late: bool,
    steps_left: Option<usize>,
    steps: usize,
    cause: Cause,
    /// Before which event after it was begun all records are placed; never, where there is none.
    placed_before: usize,
}

impl World {
    fn new(cause: Cause) -> Self {
        let first = |(name, clients, state): &(&str, &[&str], u32)| {
            let records = clients.iter().map(|c| client(c)).collect();
            ((service(name), Generation(4)), Kept { state: StateNumber(*state), records, begun: None })
        };
        Self {
            now: Moment::START,
            store: SERVICES.iter().map(first).collect(),
            life: 1,
            grace_opened: Moment::START,
            sent: Vec::new(),
            registered: BTreeSet::new(),
            noted: String::new(),
            was_late: false,
            steps_left: None,
            steps: 0,
            cause,
            placed_before: 0,
        }
    }

    fn step(&mut self) -> Result<(), Killed> {
        self.steps += 1;
        match &mut self.steps_left {
            Some(0) => Err(Killed),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn restart(&mut self) {
        self.life += 1;
        self.grace_opened = self.now;
        self.registered.clear();
    }

    fn life(&self) -> Incarnation {
        Incarnation { boot: "b".into(), start: self.life.to_string(), reopened: 0 }
    }

    fn is_grace_over(&self) -> bool {
        self.now >= self.grace_opened + GRACE
    }

    fn recognition(&self, too_late_for_the_lost: bool) -> Recognition {
        Recognition {
            life: self.life(),
            grace_opened: self.grace_opened,
            grace_length: GRACE,
            too_late_for_the_lost,
        }
    }

    /// The records in the status monitor's directory.
    fn shown(&self) -> Records {
        self.registered.iter().map(|client| (client.clone(), self.life.to_string().into_bytes())).collect()
    }

    fn newest(&self, name: &ServiceName) -> (Generation, &Kept) {
        let ((_, generation), kept) = self.store.iter().rfind(|((service, _), _)| service == name).unwrap();
        (*generation, kept)
    }

    fn persist(&mut self, one: Persist) {
        match one {
            Persist::Begin { service, generation, state, records, journal } => {
                let kept = Kept {
                    state,
                    records: records.keys().cloned().collect(),
                    begun: Some((journal, Vec::new())),
                };
                assert!(self.newest(&service).0 < generation, "generations only rise");
                assert!(self.store.insert((service, generation), kept).is_none());
            }
            Persist::Journal { service, generation, journal } => {
                let kept = self.store.get_mut(&(service, generation)).expect("begun");
                kept.begun.as_mut().expect("begun").0 = journal;
            }
            Persist::Outcomes { service, generation, lines } => {
                let kept = self.store.get_mut(&(service, generation)).expect("begun");
                kept.begun.as_mut().expect("begun").1.extend(lines);
            }
            Persist::Retire { service, generation, clients } => {
                let kept = self.store.get_mut(&(service.clone(), generation)).expect("begun");
                for one in clients {
                    let told = self
                        .sent
                        .iter()
                        .any(|s| s.service == service && s.client == one && s.life == self.life);
                    assert!(told && kept.records.remove(&one), "{one} retires untold");
                }
            }
        }
    }

    /// A run that goes on with what the one before left, where that may be, or else a new one.
    fn next_run(&self) -> Option<(Takeover, Event)> {
        let newest: Vec<_> =
            SERVICES.iter().map(|(name, ..)| (service(name), self.newest(&service(name)))).collect();
        let journal = |kept: &Kept| kept.begun.as_ref().map(|(journal, _)| journal.clone());
        let unfinished = newest.iter().filter_map(|(_, (_, kept))| journal(kept)).find(|journal| {
            journal.phase.is_bound_to_a_life() && journal.life.as_ref() == Some(&self.life())
        });
        let members = newest.iter().filter_map(|(name, (generation, kept))| {
            let (journal, outcomes) = kept.begun.clone()?;
            let before = self.store.get(&(name.clone(), Generation(generation.0 - 1)));
            (journal.run == unfinished.as_ref()?.run).then(|| Remains {
                service: name.clone(),
                generation: *generation,
                state: kept.state,
                clients: kept.records.iter().cloned().collect(),
                begun_with: before.map(|before| before.records.clone()),
                journal,
                outcomes,
            })
        });
        let margin = Duration::from_secs(5);
        let noted = unfinished.as_ref().and_then(|journal| Registrations::parse(&self.noted, &journal.run));
        let found = Found {
            remains: members.collect(),
            held: newest.iter().map(|(name, _)| name.clone()).collect(),
            came: noted.map(|noted| noted.came(&self.shown())).unwrap_or_default(),
        };
        if let Some(run) = Takeover::resume(self.now, margin, LIMITS, found) {
            return Some((run, Event::Recognised(Ok(self.recognition(false)))));
        }
        let settled = |kept: &Kept| {
            journal(kept).is_some_and(|j| j.phase == Phase::Settled && j.life == Some(self.life()))
        };
        if newest.iter().all(|(_, (_, kept))| settled(kept)) {
            return None;
        }
        let own_restart = self.cause == Cause::OwnRestart;
        let all = SERVICES.map(|(name, ..)| service(name));
        let (targets, own) = all.split_at(if own_restart { 0 } else { 2 });
        let plan = Plan {
            run: format!("r{}", self.store.len()),
            server: ServerName::parse("nfs-b").unwrap(),
            cause: self.cause,
            targets: targets.to_vec(),
            standing: Standing {
                own: own.to_vec(),
                lost: own.iter().filter(|name| !settled(self.newest(name).1)).cloned().collect(),
                unknown: Vec::new(),
                life_before: None,
                life_now: Some(self.life()),
            },
            strategy: Strategy::RestartNfs,
            convey: Conveyance::Generate,
            until: Until::Settled,
            authority: Authority::default(),
            fence: self.cause == Cause::OwnerDead,
            margin,
            limits: LIMITS,
            primary_lost: None,
            started_at_s: 0,
        };
        Some((Takeover::new(self.now, plan), Event::Start))
    }

    /// Every number that may have been sent for a service, by the store alone.
    fn numbers(&self, name: &ServiceName) -> Vec<StateNumber> {
        self.store.iter().filter(|((service, _), _)| service == name).map(|(_, kept)| kept.state).collect()
    }

    fn claim(&self, services: &[(ServiceName, Part)]) -> Event {
        let won = services.iter().map(|(name, _)| {
            let (generation, kept) = self.newest(name);
            Claimed {
                service: name.clone(),
                generation: generation.next(),
                records: kept.records.iter().map(|c| (c.clone(), b"line\n".to_vec())).collect(),
                sent: self.numbers(name),
                told: BTreeSet::new(),
                troubles: Vec::new(),
            }
        });
        Event::Claimed { won: won.collect(), refused: Vec::new(), unread: Vec::new() }
    }

    /// Does what a run asks for; the events that come of it.
    fn act(&mut self, run: &str, action: Action) -> Result<Vec<Event>, Killed> {
        Ok(match action {
            Action::CheckFit(_) => vec![Event::Fit(Ok(()))],
            Action::Fence(_) => vec![Event::Fenced(Ok(()))],
            Action::Claim { services, .. } => vec![self.claim(&services)],
            // See `agent`.
            Action::Convey { .. } => Vec::new(),
            Action::Recognise(strategy) => {
                self.noted = Registrations::of(run, &self.shown()).render();
                self.step()?;
                let too_late = strategy.drops_own_locks() && self.is_grace_over();
                if strategy.drops_own_locks() {
                    self.restart();
                }
                vec![Event::Recognised(Ok(self.recognition(too_late)))]
            }
            Action::Prove if self.is_grace_over() => vec![Event::Proved(Err("grace is over".into()))],
            Action::Prove => vec![Event::Proved(Ok(()))],
            Action::BringUp(_) => vec![Event::BroughtUp(Ok(()))],
            Action::Notify(notices) => self.notify(notices)?,
            Action::AwaitFinish => vec![Event::Finish],
            Action::StopNotifying | Action::CleanUp | Action::Over(_) => Vec::new(),
        })
    }

    /// Tells all clients: the first one of each service comes back, the last only answers.
    fn notify(&mut self, notices: Vec<Notice>) -> Result<Vec<Event>, Killed> {
        let mut events = Vec::new();
        for Notice { service, state, clients, .. } in notices {
            for client in clients {
                self.step()?;
                let durable = self.newest(&service).1.begun.as_ref().map(|(journal, _)| journal.phase);
                assert_eq!(durable, Some(Phase::Notifying), "told before that was durable");
                self.sent.push(Sent {
                    service: service.clone(),
                    client: (&client).into(),
                    state,
                    life: self.life,
                });
                let comes_back = client.as_str().ends_with('1');
                events.push(Event::Acknowledged { service: service.clone(), clients: vec![client.clone()] });
                if comes_back {
                    self.registered.insert(client.into());
                    // The agent may end before it has seen it, and before that is durable.
                    self.step()?;
                    events.push(Event::Registered(self.registered.clone()));
                }
            }
            events.push(Event::NotifyEnded { service, left: Vec::new() });
        }
        Ok(events)
    }

    /// One life of the agent.
    fn agent(&mut self) -> Result<(), Killed> {
        while let Some((mut run, first)) = self.next_run() {
            let mut events = std::collections::VecDeque::from([first]);
            // How many events come before all is placed, while that is on.
            let mut placing = None;
            while !run.is_over() {
                if placing.take_if(|left| *left == 0).is_some() {
                    events.push_front(Event::Conveyed(Ok(Vec::new())));
                }
                placing = placing.map(|left| left - 1);
                let event = events.pop_front().unwrap_or_else(|| {
                    // Nothing more comes by itself: grace passes.
                    self.now = run.next_timeout().unwrap_or_else(|| panic!("stuck in {}", run.phase()));
                    Event::Tick { present: self.registered.clone(), looked_at: Some(self.now) }
                });
                let Batch { persist, then } = run.step(self.now, event);
                for one in persist {
                    self.step()?;
                    self.persist(one);
                }
                for action in then {
                    self.step()?;
                    if action.work() == Some(Work::Conveying) {
                        placing = Some(self.placed_before);
                        events.push_back(Event::Begun(Work::Conveying));
                    }
                    events.extend(self.act(run.run(), action)?);
                    self.step()?;
                }
            }
        }
        Ok(())
    }

    fn check(&self) {
        let mut lives: BTreeMap<(&ServiceName, StateNumber), BTreeSet<u32>> = BTreeMap::new();
        for Sent { service, state, life, .. } in &self.sent {
            assert!(state.is_odd() && state.0 > SERVICES.iter().find(|s| s.0 == service.as_str()).unwrap().2);
            lives.entry((service, *state)).or_default().insert(*life);
        }
        assert!(
            lives.values().all(|lives| lives.len() == 1),
            "a number crossed from one life to another: {lives:?}"
        );
        for (name, clients, _) in SERVICES {
            let name = service(name);
            let (_, newest) = self.newest(&name);
            for one in clients.iter().map(|c| client(c)) {
                let last =
                    Sent { service: name.clone(), client: one.clone(), state: newest.state, life: self.life };
                let retired = !newest.records.contains(&one);
                let told = self.sent.contains(&last);
                let told_before = self.sent.iter().any(|s| s.service == name && s.client == one);
                let mut lines = newest.begun.iter().flat_map(|(_, lines)| lines);
                let known = lines.rfind(|line| line.client == one);
                let known = known.map(|line| (line.outcome, line.is_final));
                let is_lost = matches!(known, Some((Outcome::Lost, _)));
                assert!(
                    told || is_lost || (retired && told_before),
                    "{one} of {name} was not told in this life: {:#?}",
                    self.sent
                );
                assert!(known.is_some() || retired, "nothing is said of {one} of {name}");
                // A client that asked to reclaim has come back, whenever the agent was killed.
                if told && self.registered.contains(&one) {
                    let good = known == Some((Outcome::ReRegistered, false));
                    let late = matches!(known, Some((Outcome::Lost, is_final)) if is_final || self.was_late);
                    assert!(good || late, "{one} of {name} has come back, and is {known:?}");
                }
            }
        }
    }
}

/// An event before the next agent is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    /// The lock manager is restarted.
    Restart,
    /// Grace goes by.
    Graceless,
}

const MEANWHILE: [Meanwhile; 3] = [Meanwhile::Nothing, Meanwhile::Restart, Meanwhile::Graceless];

/// Kills the agent after each of these numbers of steps, and lets the last one finish.
fn survive(cause: Cause, kills: &[(usize, Meanwhile)]) -> World {
    survive_placed(cause, 0, kills)
}

fn survive_placed(cause: Cause, placed_before: usize, kills: &[(usize, Meanwhile)]) -> World {
    let mut world = World { placed_before, ..World::new(cause) };
    for (steps, meanwhile) in kills {
        world.steps_left = Some(*steps);
        let _ = world.agent();
        match meanwhile {
            Meanwhile::Nothing => {}
            Meanwhile::Restart => world.restart(),
            Meanwhile::Graceless => {
                world.now = world.now.max(world.grace_opened + GRACE);
                world.was_late = true;
            }
        }
    }
    world.steps_left = None;
    world.agent().expect("it is not killed");
    world.check();
    world
}

const CAUSES: [Cause; 3] = [Cause::Asked, Cause::OwnerDead, Cause::OwnRestart];

#[test]
fn killed_once_after_any_step_the_next_run_finishes() {
    for cause in CAUSES {
        let whole = survive(cause, &[]).steps;
        assert!(whole > 25, "a whole run has {whole} steps");
        for steps in 0..whole {
            for meanwhile in MEANWHILE {
                survive(cause, &[(steps, meanwhile)]);
            }
        }
    }
}

/// Records are placed beside recognition and telling: that may end at any time, or never.
#[test]
fn killed_after_any_step_while_records_are_being_placed_the_next_run_finishes() {
    for placed_before in [1, 2, 3, 4, 6, 9, usize::MAX] {
        let whole = survive_placed(Cause::Asked, placed_before, &[]).steps;
        for steps in 0..whole {
            for meanwhile in MEANWHILE {
                survive_placed(Cause::Asked, placed_before, &[(steps, meanwhile)]);
            }
        }
    }
}

#[test]
fn killed_while_clients_are_told_it_goes_on_under_the_same_number_and_in_another_life_under_a_new_one() {
    let numbers = |meanwhile| {
        // Killed right after the first client was told.
        let mut world = World::new(Cause::Asked);
        let killed_at = (0..).find(|steps| {
            world = World::new(Cause::Asked);
            world.steps_left = Some(*steps);
            world.agent().is_err() && world.sent.len() == 1
        });
        let world = survive(Cause::Asked, &[(killed_at.unwrap(), meanwhile)]);
        let of_nfs = world.sent.iter().filter(|s| s.service == service("nfs"));
        of_nfs.map(|s| s.state.0).collect::<BTreeSet<_>>()
    };
    assert_eq!(numbers(Meanwhile::Nothing), BTreeSet::from([11]));
    assert_eq!(numbers(Meanwhile::Restart), BTreeSet::from([11, 13]));
}

proptest! {
    #[test]
    fn after_any_number_of_kills_the_last_run_finishes(
        kills in vec((0_usize..60, prop::sample::select(MEANWHILE.to_vec())), 0..8), cause in prop::sample::select(CAUSES.to_vec()),
        placed_before in 0_usize..20,
    ) {
        survive_placed(cause, placed_before, &kills);
    }
}
