//! An agent in a world of a test: no thread, no clock and no file. Tests ask it by its public interface alone.

use std::cell::{Ref, RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use heirlock_core::claim::Claim;
use heirlock_core::grace::{Probe, Remembered};
use heirlock_core::incarnation::Observation;
use heirlock_core::ledger::{Addresses, Population, Roles};
use heirlock_core::lives::{Recognised, Recognising, asks_first};
use heirlock_core::monitor::Event as MonitorEvent;
use heirlock_core::notify::Destination;
use heirlock_core::records::AsKey as _;
use heirlock_core::state_number::next_unsent;
use heirlock_core::store::in_memory::InMemory;
use heirlock_core::store::{Contents, Store, StoreError};
use heirlock_core::store_identity::StoreIdentity;
use heirlock_core::taken_away::TakenAway;
use heirlock_core::takeover::{Conveyance, Event, Phase, Registrations, Strategy, last_outcomes};
use heirlock_core::{Generation, Moment, Outcome, ServiceName};
use heirlock_nsm::{MonName, MonitorLine, MyName, StateNumber};

use crate::agent::outside::contract;
use crate::config::{
    CaptureSettings, Command, ControlSettings, HeartbeatSettings, HookSettings, HostSettings,
    LockManagerKind, LockManagerSettings, Mode, NotifySettings, ServiceSettings, Settings, StoreSettings,
};
use crate::control::report::StatusReport;
use crate::control::{Answer, AnswerWhen, Failure, Progress, Request, Respond, Responder};
use crate::status_monitor::Said;
use crate::store_memory::StoreMemory;
use crate::{
    Agent, Basis, Fit, Found, InstanceNumber, InstanceOutside, Look, Looked, Message, News, Outside, Placed,
    PlacedOf, Placing, Recall, RunNumber, RunWork, Telling, Unplaced, Unready, Work,
};

const GRACE: Duration = Duration::from_secs(20);

/// A server whose time passes when the test says so, and that does at once what is begun.
#[derive(Default)]
pub(super) struct World {
    /// Which lock manager of its server it is.
    pub(super) number: InstanceNumber,
    pub(super) now: Moment,
    numbers: u64,
    /// The messages that it has for its agent.
    pub(super) said: VecDeque<News>,
    /// The strategies and other work that runs asked for, in order.
    pub(super) begun: Vec<String>,
    told: Vec<MonName>,
    /// Clients that answer nothing.
    off: BTreeSet<MonName>,
    /// A client that answers nothing and is called until grace ends.
    calls_on_for: Option<MonName>,
    placed: Placed,
    pub(super) registered: BTreeMap<MonName, Vec<u8>>,
    pub(super) hinted: bool,
    /// Looks beside the loop hang with what they have read.
    pub(super) looks_hang: bool,
    /// How long each of the loop's own looks takes, and when each was over.
    pub(super) look_takes: Duration,
    pub(super) looked: Vec<Moment>,
    /// The addresses of which it was asked whether they are on this server.
    pub(super) asked_for: Vec<IpAddr>,
    /// Which life of the lock manager runs, and since when.
    life: u32,
    life_began: Moment,
    /// None runs any more.
    stopped: bool,
    /// The facts that other servers compare.
    facts: BTreeMap<String, String>,
    grace: Option<Remembered>,
    registrations: Option<String>,
    memory: StoreMemory,
    maintained: bool,
    /// By how much the clock on the wall was set forward.
    clock_set_forward_s: u64,
    /// NFS is restarted to make the lock manager recognise; else a command does it.
    restarts_nfs: bool,
    /// The status monitor's directory hangs: work that was begun there is done, in order, when it doesn't any more.
    hangs: bool,
    /// The notifier hangs.
    pub(super) notifier_hangs: bool,
    /// What takes addresses and volumes away, or brings them back, hangs.
    pub(super) keeps_services: bool,
    /// Nothing is exported, so the lock manager answers no question about grace.
    exports_nothing: bool,
    pub(super) hanging: VecDeque<News>,
    /// Work that makes the lock manager recognise hangs.
    recognition_hangs: bool,
    /// The addresses of all services are on this server.
    has_addresses: bool,
    /// What is noted of addresses that releases take away; or why nothing can be noted.
    taken_away: TakenAway,
    notes_fail: bool,
    /// What follows from the hook that brings an address.
    address_up: Option<String>,
    /// The words to the status monitor that heirlock is.
    told_monitor: RefCell<Vec<MonitorEvent>>,
}

impl World {
    fn observe(&self) -> Observation {
        let start = (!self.stopped).then(|| self.life.to_string());
        Observation { boot: "boot".into(), start, in_grace: None, serving: !self.stopped }
    }

    fn probe(&self) -> Probe {
        if self.now.since(self.life_began) < GRACE { Probe::InGrace } else { Probe::NotInGrace }
    }

    fn recognise(
        &mut self,
        strategy: Strategy,
        grace_seen: Option<Moment>,
        owes: bool,
    ) -> Result<Recognised, String> {
        let answer = asks_first(strategy, owes).then(|| self.probe());
        let work = Recognising { strategy, before: self.now, grace_seen, answer };
        if strategy.drops_own_locks() {
            self.restart_nfs();
        }
        work.done(self.now, self.observe(), false, Some(self.now.since(self.life_began)), GRACE)
    }

    /// NFS is restarted by another hand.
    fn restart_nfs(&mut self) {
        (self.life, self.life_began) = (self.life + 1, self.now);
    }

    /// Something was done in the status monitor's directory, or hangs.
    fn done_there(&mut self, message: News) {
        if self.hangs {
            self.hanging.push_back(message);
        } else {
            self.said.push_back(message);
        }
    }

    fn place(&mut self, services: Vec<Placing>) -> Vec<PlacedOf> {
        let placed = Arc::make_mut(&mut self.placed);
        let mut place = |placing: Placing| {
            placed.extend(placing.records.conveyed().map(|(file, record)| (file.clone(), record.to_vec())));
            (placing.service, Ok(Unplaced::new()))
        };
        services.into_iter().map(&mut place).collect()
    }

    /// Every client answers that is not off, and the first of them comes back for its locks.
    fn tell(&mut self, run: RunNumber, telling: Telling) {
        let of = telling.notice.service;
        assert_eq!(telling.untold, [], "all of them can be called");
        let clients = telling.clients.into_iter().map(|(client, _)| client);
        let (off, clients): (Vec<MonName>, Vec<MonName>) =
            clients.partition(|client| self.off.contains(client));
        let left = off.into_iter().map(|client| (client, Outcome::Unreachable, "it is off".to_owned()));
        let left = left.collect();
        if let Some(first) = clients.first() {
            self.registered.insert(first.clone(), record(first));
            self.hinted = true;
        }
        let (silent, clients): (Vec<MonName>, Vec<MonName>) =
            clients.into_iter().partition(|client| self.calls_on_for.as_ref() == Some(client));
        self.told.extend(clients.clone());
        let mut events = vec![
            Event::Acknowledged { service: of.clone(), clients },
            Event::TriedAll { service: of.clone() },
        ];
        if silent.is_empty() {
            events.push(Event::NotifyEnded { service: of, left });
        }
        self.said.extend(events.into_iter().map(|event| News::Event(run, event)));
    }

    fn wall_s(&self) -> u64 {
        self.now.since_start().as_secs() + self.clock_set_forward_s
    }

    fn found(&self) -> Found {
        let population =
            Population { clients: self.registered.clone().into_iter().collect(), ..Population::default() };
        Found { population, ..Found::default() }
    }

    fn begin_look(&mut self, basis: Basis) {
        let found = Ok(self.found());
        let waiting = if self.looks_hang { &mut self.hanging } else { &mut self.said };
        waiting.push_back(News::Looked(Box::new(Looked { basis, found })));
    }

    fn begin_for(&mut self, run: RunNumber, work: RunWork) {
        let (name, message) = match work {
            RunWork::CheckFit { .. } => ("check", News::Fit(run, all_is_here())),
            RunWork::Place { services, .. } => {
                self.begun.push("place".to_owned());
                let done = News::Placed(run, self.place(services));
                return self.done_there(done);
            }
            RunWork::Fence(owners) => {
                let servers: BTreeSet<_> = owners.iter().map(|(_, owner)| owner).collect();
                assert_eq!(servers.len(), owners.len(), "each is fenced once: {owners:?}");
                assert!(!owners.is_empty(), "a fence that is run for no owner confirms nothing");
                ("fence", News::Event(run, Event::Fenced(Ok(()))))
            }
            RunWork::Recognise { .. } if self.recognition_hangs => return,
            RunWork::Recognise { strategy, grace_seen, owes, .. } => {
                let done = self.recognise(strategy, grace_seen, owes);
                (strategy.as_str(), News::Recognised(run, Box::new(done)))
            }
            RunWork::Prove(_) if self.exports_nothing => {
                ("prove", News::ServesNobody(run, "its credential was refused".to_owned()))
            }
            RunWork::Prove(_) => ("prove", News::Event(run, Event::Proved(Ok(())))),
            RunWork::BringUp { .. } => ("bring up", News::Event(run, Event::BroughtUp(Ok(())))),
            RunWork::Tell { tellings, .. } => {
                self.begun.push("tell".to_owned());
                let tellings = if self.notifier_hangs { Vec::new() } else { tellings };
                return tellings.into_iter().for_each(|telling| self.tell(run, telling));
            }
        };
        self.begun.push(name.to_owned());
        self.said.push_back(message);
    }

    fn begin(&mut self, work: Work) {
        let of_services =
            matches!(&work, Work::TakeAddressAway(_) | Work::TakeVolumeAway(_) | Work::BringAddressBack(_));
        let message = match work {
            Work::CheckHome(service) => Some(News::HomeLookedFor(service, all_is_here())),
            Work::GatherFacts => Some(News::Facts(Ok(self.facts.clone()))),
            Work::AskGrace(life) => Some(News::GraceAsked(life, (self.probe(), "so it says".into()))),
            Work::LookUp(name) => Some(News::Resolved(name, Ok(Vec::new()))),
            Work::TakeAddressAway(service) => {
                self.begun.push("take address away".to_owned());
                self.has_addresses &= self.keeps_services;
                Some(News::AddressGone(service, Ok(())))
            }
            Work::BringAddressBack(service) => {
                self.begun.push("bring address back".to_owned());
                let back = self.address_up.clone().map_or(Ok(()), Err);
                self.has_addresses |= back.is_ok() && !self.keeps_services;
                Some(News::AddressBack(service, back))
            }
            Work::TakeVolumeAway(service) => Some(News::VolumeGone(service, Ok(()))),
            Work::SyncDirectory => Some(News::DirectorySynced(Ok(()))),
            Work::TakePlacedAway => {
                self.placed = Placed::default();
                self.done_there(News::PlacedTakenAway(Ok(Unplaced::new())));
                None
            }
            Work::LeaveAddress(_) | Work::Discard(_) => None,
        };
        match of_services && self.keeps_services {
            true => self.hanging.extend(message),
            false => self.said.extend(message),
        }
    }

    /// The lock manager is looked at.
    pub(super) fn look_at_lock_manager(&mut self) {
        let look = Look { at: self.now, observation: self.observe() };
        self.said.push_back(News::Observed(Box::new(Ok(look))));
    }
}

fn all_is_here() -> Fit {
    Fit { missing: Vec::new(), said: Vec::new() }
}

/// A world, as the server and the lock manager in it have it.
#[derive(Clone, Default)]
pub(super) struct Here(Rc<RefCell<World>>);

impl Here {
    pub(super) fn of(world: World) -> Self {
        Self(Rc::new(RefCell::new(world)))
    }

    pub(super) fn world(&self) -> Ref<'_, World> {
        self.0.borrow()
    }

    pub(super) fn world_mut(&self) -> RefMut<'_, World> {
        self.0.borrow_mut()
    }

    /// The world goes on without its agent.
    pub(super) fn take(&self) -> World {
        self.0.take()
    }

    /// The next message that it has for its agent.
    pub(super) fn next(&self) -> Option<Message> {
        let mut world = self.world_mut();
        let news = world.said.pop_front()?;
        Some(Message::Of(world.number, news))
    }

    /// Time goes on to this moment, and the lock manager is looked at.
    pub(super) fn pass(&self, due: Moment) {
        let mut world = self.world_mut();
        world.now = due.max(world.now + Duration::from_millis(1));
        world.look_at_lock_manager();
    }
}

impl Outside for Here {
    type Instance = Self;

    fn now(&self) -> Moment {
        self.world().now
    }

    fn wall_s(&self) -> u64 {
        self.world().wall_s()
    }

    fn since_boot(&self) -> Duration {
        self.world().now.since_start()
    }

    fn random(&mut self) -> u64 {
        let mut world = self.world_mut();
        world.numbers += 1;
        world.numbers
    }

    fn may_say(&self, _: &'static str) -> bool {
        true
    }

    fn say_suppressed_lines(&self, _: bool) {}

    fn boot(&self) -> Option<String> {
        Some(self.world().observe().boot)
    }

    fn interface_addresses(&self) -> Vec<IpAddr> {
        Vec::new()
    }

    fn is_maintained(&self) -> bool {
        self.world().maintained
    }

    fn maintain(&mut self, on: bool) -> Result<(), String> {
        self.world_mut().maintained = on;
        Ok(())
    }

    fn store_memory(&self) -> Result<StoreMemory, StoreError> {
        Ok(self.world().memory.clone())
    }

    fn had_store(&self) -> bool {
        false
    }

    fn remember_store(&mut self, change: &dyn Fn(&mut StoreMemory)) -> Result<StoreMemory, StoreError> {
        let mut world = self.world_mut();
        change(&mut world.memory);
        Ok(world.memory.clone())
    }

    fn publish(&self, _: StatusReport, _: Option<Moment>) {}
}

impl InstanceOutside for Here {
    fn node(&self) -> Option<String> {
        let number = self.world().number;
        Some(if number == InstanceNumber::FIRST { "nfs-b".to_owned() } else { "nfs-b-two".to_owned() })
    }

    fn is_present(&self, address: IpAddr) -> bool {
        self.world_mut().asked_for.push(address);
        self.world().has_addresses
    }

    fn tell_monitor(&self, event: MonitorEvent) {
        self.world().told_monitor.borrow_mut().push(event);
    }

    fn destination_of(&self, name: &MonName) -> Option<Destination> {
        name.address().map(Destination::from)
    }

    fn roles(&mut self, _: &[u16], _: bool) -> Roles {
        Roles::default()
    }

    fn own_state(&self) -> Option<StateNumber> {
        Some(StateNumber(5))
    }

    fn lock_manager(&self) -> String {
        "a lock manager of a test".to_owned()
    }

    fn grace_note(&self) -> Option<Remembered> {
        self.world().grace.clone()
    }

    fn note_grace(&mut self, noted: &Remembered) {
        self.world_mut().grace = Some(noted.clone());
    }

    fn registrations(&self, run: &str) -> Option<Registrations> {
        Registrations::parse(self.world().registrations.as_ref()?, run)
    }

    fn note_registrations(&mut self, registrations: &Registrations) {
        self.world_mut().registrations = Some(registrations.render());
    }

    fn taken_away(&self) -> Result<TakenAway, String> {
        Ok(self.world().taken_away.clone())
    }

    fn note_taken_away(&mut self, noted: &TakenAway) -> Result<(), String> {
        let mut world = self.world_mut();
        if world.notes_fail {
            return Err("no space left".to_owned());
        }
        world.begun.push("note".to_owned());
        world.taken_away = noted.clone();
        Ok(())
    }

    fn placed(&self) -> Placed {
        Arc::clone(&self.world().placed)
    }

    fn is_hinted(&self) -> bool {
        self.world().hinted
    }

    fn forget_hints(&mut self) {
        self.world_mut().hinted = false;
    }

    fn look(&mut self, _: &Addresses, _: Recall) -> Result<Found, String> {
        let mut world = self.world_mut();
        world.now = world.now + world.look_takes;
        let now = world.now;
        world.looked.push(now);
        Ok(world.found())
    }

    fn begin_look(&mut self, basis: Basis, _: Arc<Addresses>, _: bool) -> Result<(), String> {
        self.world_mut().begin_look(basis);
        Ok(())
    }

    fn begin_for(&mut self, run: RunNumber, work: RunWork) {
        self.world_mut().begin_for(run, work);
    }

    fn begin(&mut self, work: Work) {
        self.world_mut().begin(work);
    }

    fn stop_telling(&mut self) {}

    fn unready(&self) -> Vec<Unready> {
        Vec::new()
    }
}

pub(super) fn record(client: &MonName) -> Vec<u8> {
    heirlock_nsm::record::render_record(&[MonitorLine::generated(
        client.clone(),
        MyName::parse("nfs-a").unwrap(),
    )])
}

pub(super) fn clients() -> [MonName; 2] {
    ["10.0.0.1", "10.0.0.2"].map(|client| MonName::parse(client).unwrap())
}

pub(super) fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

/// A server with a lock manager of commands, that may hold `new`.
fn settings(restarts_nfs: bool) -> Arc<Settings> {
    let command =
        |word: &str| Some(Command { argv: vec![word.to_owned()], time_limit: Duration::from_secs(30) });
    let lock_manager = LockManagerSettings {
        kind: LockManagerKind::Command,
        strategy: if restarts_nfs { Strategy::RestartNfs } else { Strategy::Command },
        convey: Conveyance::Generate,
        settle_margin: Duration::from_secs(5),
        prepared_time: Duration::from_secs(10),
        restart_nfs: command("restart-nfs"),
        restart_status_monitor: None,
        recognise: command("recognise"),
        incarnation: command("incarnation"),
        grace_period: Some(GRACE),
    };
    let new = ServiceSettings {
        name: service("new"),
        addresses: vec![[192, 0, 2, 11].into()],
        names: Vec::new(),
        exports: Vec::new(),
        home: None,
        mode: Mode::Manual,
        candidates: None,
        instance: InstanceNumber::FIRST,
    };
    Arc::new(Settings {
        server: "nfs-b".parse().unwrap(),
        state_directory: "/var/lib/nfs".into(),
        state_directory_is_set: true,
        runtime_directory: "/run/heirlock".into(),
        local_directory: "/var/lib/heirlock".into(),
        store: StoreSettings { path: "/srv/heirlock".into(), shared: false, etcd: None },
        capture: CaptureSettings::default(),
        lock_manager,
        notify: NotifySettings { rpcbind_port: 111, privileged_port: false },
        heartbeat: HeartbeatSettings {
            interval: Duration::from_secs(1),
            dead_after: Duration::from_secs(10),
            candidate_time: Duration::from_secs(50),
        },
        host: HostSettings { addresses: Vec::new(), names: vec![MyName::parse("nfs-b").unwrap()] },
        hooks: HookSettings::default(),
        control: ControlSettings::default(),
        services: vec![new],
        further: Vec::new(),
    })
}

/// An agent that has read nothing yet, in this world, on this store.
pub(super) fn started(settings: Arc<Settings>, store: &InMemory, world: World) -> Agent<Here> {
    started_on(settings, Box::new(store.clone()), world)
}

/// The same, on any store.
fn started_on(settings: Arc<Settings>, store: Box<dyn Store>, world: World) -> Agent<Here> {
    let here = Here::of(world);
    Agent::new(settings, store, here.clone(), vec![here]).unwrap()
}

/// An agent that begins in this world, on this store.
pub(super) fn taken_up(store: &InMemory, world: World) -> Agent<Here> {
    let mut agent = started(settings(world.restarts_nfs), store, world);
    agent.take_up();
    agent
}

/// A store in which `new` is nfs-a's, with two clients, and the agent of nfs-b.
pub(super) fn begun() -> (InMemory, Agent<Here>) {
    begun_in(World::default())
}

fn begun_in(world: World) -> (InMemory, Agent<Here>) {
    let store = InMemory::new(StoreIdentity::of(7));
    let claim = Claim::new(Generation(1), &"nfs-a".parse().unwrap(), "run-a", 0);
    let records = clients().map(|client| (client.clone(), record(&client))).into();
    let contents = Contents { records, state: Some(StateNumber(7)), ..Contents::default() };
    store.claim(&service("new"), &claim).unwrap();
    store.begin_generation(&service("new"), Generation(1), &contents).unwrap();
    let world = World { now: Moment::of_process(Duration::ZERO), life: 1, ..world };
    let agent = taken_up(&store, world);
    (store, agent)
}

/// The agent is started again, in the same life of its lock manager, on this store.
fn again(agent: &Agent<Here>, store: Box<dyn Store>) -> Agent<Here> {
    let mut world = agent.outside().take();
    world.said.clear();
    let mut agent = started_on(settings(world.restarts_nfs), store, world);
    agent.take_up();
    agent
}

/// Time passes for so long.
fn goes_on(agent: &mut Agent<Here>, for_time: Duration) {
    let end = agent.outside().now() + for_time;
    while agent.outside().now() < end {
        while let Some(message) = agent.outside().next() {
            agent.handle(message);
        }
        agent.do_what_is_due();
        if agent.outside().world().said.is_empty() {
            let due = agent.next_due().min(end);
            agent.outside().pass(due);
        }
    }
}

/// A message is taken in; where there is none, time passes until something is due.
fn take_in_next(agent: &mut Agent<Here>) {
    match agent.outside().next() {
        Some(message) => agent.handle(message),
        None => {
            let due = agent.next_due();
            agent.outside().pass(due);
        }
    }
}

/// The work that is due is done, and the next message taken in, until this is so.
fn until(agent: &mut Agent<Here>, what: &str, is_so: impl Fn(&Agent<Here>) -> bool) {
    for _ in 0..5_000 {
        agent.do_what_is_due();
        if is_so(agent) {
            return;
        }
        take_in_next(agent);
    }
    panic!("never: {what}; {:?}", agent.outside().world().begun);
}

/// The phase that the run for `new` has reached.
fn phase(agent: &Agent<Here>) -> Option<Phase> {
    agent.journal_of(&service("new")).map(|journal| journal.phase)
}

/// The service that nfs-b has under its own name.
fn host() -> ServiceName {
    ServiceName::host(&"nfs-b".parse().unwrap())
}

/// A caller that waits for its answer, a success or a failure.
#[derive(Debug)]
struct Waits;

impl Respond for Waits {
    fn progress(&mut self, _: &Progress) -> bool {
        true
    }

    fn end(self: Box<Self>, _: Result<Answer, Failure>) {}
}

/// An operator insists on the adoption of `new`.
fn insisting() -> Request {
    Request::Adopt {
        service: service("new"),
        prepare: false,
        finish: false,
        fenced: None,
        force: true,
        answer_when: AnswerWhen::Settled,
    }
}

/// The same, said to an agent.
pub(super) fn ask(agent: &mut Agent<Here>) {
    agent.handle(Message::Request(Box::new(insisting()), Responder::new(Waits)));
}

/// Has `new` adopted, by an agent that is killed after so many messages of its runs, and by the next one then. Says how many
/// there were.
pub(super) fn adopt(store: &InMemory, agent: &mut Agent<Here>, killed_after: Option<usize>) -> usize {
    let (mut of_runs, mut is_killed) = (0, false);
    for _ in 0..5_000 {
        agent.do_what_is_due();
        assert_eq!(agent.must_end(), None);
        match agent.journal_of(&service("new")).map(|journal| journal.phase) {
            Some(Phase::Settled) if agent.is_at_rest() => return of_runs,
            None if agent.is_at_rest() && agent.knows_its_holdings() => ask(agent),
            _ => {}
        }
        let Some(message) = agent.outside().next() else {
            let due = agent.next_due();
            agent.outside().pass(due);
            continue;
        };
        of_runs += usize::from(matches!(
            message,
            Message::Of(_, News::Fit(..) | News::Placed(..) | News::Recognised(..) | News::Event(..))
        ));
        agent.handle(message);
        if killed_after == Some(of_runs) && !is_killed {
            is_killed = true;
            let mut world = agent.outside().take();
            // Work that was begun ends with the process.
            world.said.clear();
            world.hanging.clear();
            world.begun.push("killed".to_owned());
            *agent = taken_up(store, world);
        }
    }
    panic!("it never settles: {:?}", agent.outside().world().begun);
}

/// The outcomes of the clients in the generation that is held.
fn outcomes(store: &InMemory, agent: &Agent<Here>) -> [Outcome; 2] {
    let held = agent.claim_of(&service("new")).unwrap().generation;
    let outcomes = store.account(&service("new"), held).unwrap().outcomes;
    let last = last_outcomes(&outcomes);
    clients().map(|client| last[&client.as_key()].outcome)
}

#[test]
fn the_world_of_the_tests_keeps_the_promises_of_a_server_and_of_a_lock_manager() {
    let anew = |here: Here| Here::of(World { said: VecDeque::new(), ..here.take() });
    contract::a_server_keeps_its_promises(Here::default(), anew);
    let next = |here: &mut Here| here.world_mut().said.pop_front().unwrap();
    contract::a_lock_manager_keeps_its_promises(Here::default(), next, anew);
}

#[test]
fn an_adoption_comes_to_its_end_in_a_world_without_threads_and_clocks() {
    let (store, mut agent) = begun();
    adopt(&store, &mut agent, None);
    assert_eq!(agent.outside().world().begun, ["check", "place", "command", "prove", "bring up", "tell"]);
    assert_eq!(agent.outside().world().told, clients());
    assert_eq!(outcomes(&store, &agent), [Outcome::ReRegistered, Outcome::Acknowledged]);
    assert_eq!(agent.outside().placed(), Placed::default(), "what was conveyed is taken away");
    let ledger = agent.ledger_of(&service("new")).unwrap();
    // The other one acknowledged and did not register again: it is retired when grace is over.
    assert!(ledger.stored().keys().eq(&clients()[..1]), "{:?}", ledger.stored());
    assert!(agent.held().any(|held| *held == service("new")));
}

#[test]
fn an_agent_that_is_killed_after_any_message_of_a_run_leaves_the_next_agent_all_that_it_needs() {
    for restarts_nfs in [false, true] {
        let anew = || begun_in(World { restarts_nfs, ..World::default() });
        let (store, mut agent) = anew();
        let messages = adopt(&store, &mut agent, None);
        assert!(messages >= 6, "{messages}");
        for killed_after in 1..=messages {
            let (store, mut agent) = anew();
            adopt(&store, &mut agent, Some(killed_after));
            let begun = &agent.outside().world().begun;
            let mut before = begun.iter().take_while(|work| *work != "killed");
            // Killed before the lock manager had recognised, nothing tells that the life which ran was not asked for their locks.
            let expected = match before.any(|work| work == "command" || work == "restart-nfs") {
                true => [Outcome::ReRegistered, Outcome::Acknowledged],
                false => [Outcome::Lost; 2],
            };
            assert_eq!(outcomes(&store, &agent), expected, "{killed_after}");
            assert!(begun.contains(&"killed".to_owned()), "{killed_after}");
            let told: BTreeSet<_> = agent.outside().world().told.iter().cloned().collect();
            assert_eq!(told, clients().into(), "{killed_after}");
            assert_eq!(agent.outside().placed(), Placed::default(), "{killed_after}");
        }
    }
}

#[test]
fn a_service_that_is_taken_from_a_claim_without_a_generation_gets_a_number_that_its_owner_did_not_draw() {
    let (store, mut agent) = begun();
    let insisting = Claim::new(Generation(2), &"nfs-c".parse().unwrap(), "run-c", 0);
    store.claim(&service("new"), &insisting).unwrap();
    // nfs-c goes on from here, and knows the number of generation 1 and its own.
    let drawn = next_unsent(&[StateNumber(7), StateNumber(7)]);
    adopt(&store, &mut agent, None);
    let held = agent.claim_of(&service("new")).unwrap().generation;
    let number = store.number_of(&service("new"), held).unwrap().unwrap();
    assert!(held > insisting.generation && number > drawn, "{number:?} after {drawn:?}");
}
mod brought_back;
mod callouts;
mod candidates;
mod claiming;
mod conveying;
mod counted;
mod fencing;
mod first_start;
mod forgetting;
mod instances;
mod looks;
mod meeting;
mod moving;
mod part_read;
mod passive;
mod prepared;
mod recovering;
mod releasing;
mod repeated;
mod several;
mod troubled;
mod verbs;
mod watching;
