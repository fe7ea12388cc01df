//! This server as its agent deals with it: clocks, files, threads, tables of the kernel. Nothing is decided here.
//!
//! | file | holds |
//! |---|---|
//! | `run.rs` | the loop that hands the agent its messages, and the sockets and watches that it listens to |
//! | `work.rs`, `readiness.rs`, `proofs.rs`, `volumes.rs`, `look_up.rs` | work that is begun in threads and told by messages |
//! | `conveying.rs` | the thread that places records and takes them away |
//! | `looker.rs`, `watch.rs` | looks at the status monitor's directory and at the lock manager |
//! | `monitoring.rs` | heirlock as the status monitor, and its directory |
//! | `drills.rs`, `past.rs` | drills and the last adoptions, for callers that wait beside the loop |
//! | `notes.rs`, `snapshot.rs` | notes for the next agent; the last status |
//! | `inbox.rs` | where the threads of a lock manager report |

mod conveying;
mod drills;
mod in_short;
mod inbox;
pub(crate) mod look_up;
mod looker;
mod monitoring;
mod notes;
mod past;
pub(crate) mod proofs;
mod readiness;
mod run;
mod snapshot;
mod volumes;
mod watch;
mod work;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(test)]
use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use heirlock_agent::News;
use heirlock_agent::{Basis, Found, Recall};
#[cfg(test)]
use heirlock_agent::{InstanceNumber, Message};
use heirlock_agent::{InstanceOutside, Outside, Placed, Unready};
use heirlock_agent::{RunNumber, RunWork, Work};
use heirlock_core::Moment;
use heirlock_core::grace::Remembered;
use heirlock_core::ledger::{Addresses, Roles};
use heirlock_core::log_limit::Source;
use heirlock_core::monitor::{Event as MonitorEvent, Standing};
use heirlock_core::notify::Destination;
use heirlock_core::taken_away::TakenAway;
use heirlock_core::takeover::Registrations;
use heirlock_nsm::{MonName, MonitorLine, StateNumber};

use crate::callout::{self, Said, Spool};
use crate::clock::{self, Clock};
use crate::config::Settings;
use crate::control::report::StatusReport;
use crate::control::trust;
use crate::convey::Conveyor;
use crate::detector::{self, Hints};
use crate::files::Folder;
use crate::first_round::FirstRounds;
use crate::host::{Host, Peers};
use crate::monitor::directory::Directory;
use crate::monitor::{OwnState, SharedMonitor};
use crate::store::memory::{StoreMemory, had_one};
use crate::store::{self, StoreError};
use crate::threads::Lasting;
use crate::{from_elsewhere, limits, lock_manager, monitor, notifier};

pub(crate) use inbox::Inbox;
pub(crate) use run::run;
pub(crate) use snapshot::Snapshot;

use conveying::Conveying;
use looker::Looker;
use readiness::Readiness;
use watch::Attention;
use work::Workshop;

/// How often it is looked anew since records were placed or taken away meanwhile. A run does each once.
const LOOKS_MET_MAX: usize = 16;

/// The server that this process runs on.
pub(crate) struct ThisServer {
    settings: Arc<Settings>,
    host: Host,
    pub(crate) clock: Clock,
    pub(crate) snapshot: Arc<Snapshot>,
}

/// A lock manager on it.
pub(crate) struct ThisLockManager {
    /// As this lock manager has it ([`Settings::of_instance`]).
    settings: Arc<Settings>,
    pub(crate) conveyor: Conveyor,
    conveying: Conveying,
    peers: Peers,
    pub(crate) workshop: Workshop,
    /// Something happened in the status monitor's directory since hints were last forgotten. The watch sets it: a thousand
    /// hints in the inbox would each cost a look.
    pub(crate) hinted: Arc<AtomicBool>,
    looker: Looker,
    /// The files that the agent's own looks have read.
    memory: detector::Memory,
    /// heirlock is the status monitor.
    pub(crate) monitor: Option<SharedMonitor>,
    /// This server's own number, with which the status monitor answers.
    answered_number: Option<OwnState>,
    directory: monitoring::Read,
    /// From which addresses clients can be told, in the run that was brought up last.
    readiness: Arc<Readiness>,
    /// How closely the lock manager is looked at.
    attention: Arc<Attention>,
    /// Ends the telling that is on.
    stop: Arc<AtomicBool>,
}

impl ThisServer {
    /// With the files that an earlier agent left here.
    pub(crate) fn new(host: Host, settings: &Arc<Settings>, clock: Clock, snapshot: Arc<Snapshot>) -> Self {
        Self { settings: Arc::clone(settings), host, clock, snapshot }
    }

    /// The same, whose status no client asks for, and its lock manager.
    #[cfg(test)]
    pub(crate) fn begun(
        host: Host,
        settings: &Arc<Settings>,
        inbox: Sender<Message>,
    ) -> (Self, ThisLockManager) {
        let snapshot = Arc::new(Snapshot::new(&host, settings));
        let clock = Clock::start();
        let inbox = Inbox::new(InstanceNumber::FIRST, inbox);
        let lock_manager = ThisLockManager::open(host.clone(), settings, clock, inbox).unwrap();
        (Self::new(host, settings, clock, snapshot), lock_manager)
    }
}

impl ThisLockManager {
    /// The one of `inbox`, to which work that is begun reports. It goes on with the files that an earlier agent left for it.
    ///
    /// # Errors
    /// Where the configuration has no such lock manager, a folder for its notes can't be made, or what was conveyed can't be known.
    pub(crate) fn open(host: Host, settings: &Settings, clock: Clock, inbox: Inbox) -> Result<Self> {
        let settings =
            settings.of_instance(inbox.of()).context("the configuration has no such lock manager")?;
        let settings = &Arc::new(settings);
        for directory in [&settings.local_directory, &settings.runtime_directory] {
            trust::make_folder(directory).with_context(|| format!("can't create {}", directory.display()))?;
        }
        let conveyor = open_conveyor(settings)?;
        let lock_manager = lock_manager::open_on(settings, &host);
        lock_manager.tidy();
        let first_rounds = FirstRounds::default();
        Ok(Self {
            settings: Arc::clone(settings),
            conveying: Conveying::new(conveyor.clone().giving_way_to(first_rounds.clone()), inbox.clone()),
            conveyor,
            peers: lock_manager.peers(),
            looker: Looker::new(settings.state_directory.clone(), inbox.clone()),
            workshop: Workshop {
                host,
                settings: Arc::clone(settings),
                clock,
                lock_manager,
                turn: Arc::default(),
                let_go_time_max: limits::LET_GO_TIME_MAX,
                inbox,
                run: RunNumber::default(),
                first_rounds,
            },
            hinted: Arc::default(),
            memory: detector::Memory::default(),
            monitor: None,
            answered_number: None,
            directory: Arc::default(),
            readiness: Arc::default(),
            attention: Arc::new(Attention::new().context("can't have a descriptor (raise LimitNOFILE=)")?),
            stop: Arc::default(),
        })
    }

    /// Begins to watch the status monitor's directory, where that is how records are noticed.
    pub(crate) fn watch_directory(&self) -> Result<Option<Hints>> {
        if !self.settings.capture.mode.properties().watches_directory {
            return Ok(None);
        }
        let directories = ["sm", "sm.bak"].map(|name| self.settings.state_directory.join(name)).to_vec();
        let (inbox, hinted) = (self.workshop.inbox.clone(), Arc::clone(&self.hinted));
        let hints = Hints::start(directories, self.host().mount_table(), move || {
            if !hinted.swap(true, Ordering::SeqCst) {
                let _ = inbox.send(News::Changed);
            }
        })?;
        Ok(Some(hints))
    }

    /// Begins to look at the lock manager, again and again.
    fn watch_lock_manager(&self) -> std::io::Result<Lasting> {
        watch::start(&self.workshop, Arc::clone(&self.attention))
    }

    /// Begins to listen to rpc.statd's callouts.
    fn listen_to_callouts(&self) -> Result<callout::Listener> {
        let inbox = self.workshop.inbox.clone();
        let sm = self.settings.state_directory.join("sm");
        let listener =
            callout::Listener::start(&self.settings.runtime_directory, sm, move |said, waiting| {
                let _ = inbox.send(News::Callout(said, Box::new(move |done| waiting.answer(done))));
            });
        listener.with_context(|| {
            format!("can't listen for callouts in {}", self.settings.runtime_directory.display())
        })
    }

    fn host(&self) -> &Host {
        &self.workshop.host
    }

    fn spool(&self) -> Spool {
        Spool::in_state_directory(&self.settings.state_directory)
    }

    /// Looks. A record that is placed or taken away during a look could be taken for a registration: then the look is repeated.
    fn look_while_placed(&mut self, addresses: &Addresses) -> Result<Found, String> {
        for _ in 0..LOOKS_MET_MAX {
            let placed = self.conveyor.placed();
            let found = looker::look(&self.settings.state_directory, &mut self.memory, &placed, addresses);
            if Arc::ptr_eq(&placed, &self.conveyor.placed()) {
                return found;
            }
        }
        Err("records were placed or taken away during each look".to_owned())
    }

    /// Makes the changes of the status monitor's directory durable, in time.
    fn sync_directory(&self) {
        let directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = directory.as_ref().map(Directory::changes);
        drop(directory);
        self.workshop.in_thread("sync", News::DirectorySynced, move |_| {
            changes.map_or(Ok(()), |changes| changes.sync().map_err(|error| error.to_string()))
        });
    }
}

/// Remembers the records that an earlier agent conveyed, and removes files that it left half written.
fn open_conveyor(settings: &Settings) -> Result<Conveyor> {
    let conveyor =
        Conveyor::open(&settings.state_directory, &settings.local_directory).with_context(|| {
            format!("can't read what was conveyed, in {}", settings.local_directory.display())
        })?;
    if let Err(error) = conveyor.tidy() {
        tracing::warn!(%error, "what an earlier agent left half written could not be removed: {error}");
    }
    Ok(conveyor)
}

impl Outside for ThisServer {
    type Instance = ThisLockManager;

    fn now(&self) -> Moment {
        self.clock.now()
    }

    fn wall_s(&self) -> u64 {
        clock::wall_s()
    }

    fn since_boot(&self) -> Duration {
        clock::since_boot()
    }

    fn random(&mut self) -> u64 {
        fastrand::u64(..)
    }

    fn may_say(&self, kind: &'static str) -> bool {
        from_elsewhere::may_say(kind, Source::Unknown)
    }

    fn say_suppressed_lines(&self, all: bool) {
        if all {
            from_elsewhere::say_all_that_was_suppressed();
        } else {
            from_elsewhere::say_suppressed_lines();
        }
    }

    fn boot(&self) -> Option<String> {
        self.host.boot().ok()
    }

    fn interface_addresses(&self) -> Vec<IpAddr> {
        self.host.addresses()
    }

    fn is_maintained(&self) -> bool {
        notes::is_maintained(&self.settings)
    }

    fn maintain(&mut self, on: bool) -> Result<(), String> {
        notes::maintain(&self.settings, on)
    }

    fn store_memory(&self) -> Result<StoreMemory, StoreError> {
        store::memory::load(&self.settings.local_directory)
    }

    fn had_store(&self) -> bool {
        had_one(&self.settings.local_directory)
    }

    fn remember_store(&mut self, change: &dyn Fn(&mut StoreMemory)) -> Result<StoreMemory, StoreError> {
        store::memory::update(&self.settings.local_directory, change)
    }

    fn publish(&self, report: StatusReport, looked: Option<Moment>) {
        self.snapshot.set(self.clock.now(), report, looked);
    }
}

impl InstanceOutside for ThisLockManager {
    fn node(&self) -> Option<String> {
        self.host().node()
    }

    fn is_present(&self, address: IpAddr) -> bool {
        self.host().is_present(address)
    }

    fn destination_of(&self, name: &MonName) -> Option<Destination> {
        notifier::destination_of(name)
    }

    fn roles(&mut self, nlm_ports: &[u16], remembers: bool) -> Roles {
        self.peers.roles(nlm_ports, remembers)
    }

    fn own_state(&self) -> Option<StateNumber> {
        let folder = Folder::open(&self.settings.state_directory).ok()?;
        let bytes = monitor::read_state(&folder).ok()?;
        let number = StateNumber::parse_file(&bytes).ok()?;
        if let Some(answered) = &self.answered_number {
            // It is read at each heartbeat.
            answered.is_now(number);
        }
        Some(number)
    }

    fn grace_note(&self) -> Option<Remembered> {
        notes::grace(&self.settings.runtime_directory)
    }

    fn note_grace(&mut self, noted: &Remembered) {
        notes::note_grace(&self.settings.runtime_directory, noted);
    }

    fn registrations(&self, run: &str) -> Option<Registrations> {
        notes::registrations(&self.settings.runtime_directory, run)
    }

    fn note_registrations(&mut self, registrations: &Registrations) {
        notes::note_registrations(&self.settings.runtime_directory, registrations);
    }

    fn taken_away(&self) -> Result<TakenAway, String> {
        notes::taken_away(&self.settings.local_directory)
    }

    fn note_taken_away(&mut self, noted: &TakenAway) -> Result<(), String> {
        notes::note_taken_away(&self.settings.local_directory, noted)
    }

    fn placed(&self) -> Placed {
        self.conveyor.placed()
    }

    fn noted_by_callouts(&mut self) -> Result<Vec<Said>, String> {
        self.spool().take().map_err(|error| error.to_string())
    }

    fn noted_is_durable(&mut self) -> Result<(), String> {
        self.spool().done().map_err(|error| error.to_string())
    }

    fn is_hinted(&self) -> bool {
        self.hinted.load(Ordering::SeqCst)
    }

    fn forget_hints(&mut self) {
        self.hinted.store(false, Ordering::SeqCst);
    }

    fn look(&mut self, addresses: &Addresses, recall: Recall) -> Result<Found, String> {
        if recall.anew {
            self.memory.distrust();
        }
        let found = self.look_while_placed(addresses);
        if !recall.kept {
            self.memory = detector::Memory::default();
        }
        found
    }

    fn begin_look(&mut self, basis: Basis, addresses: Arc<Addresses>, anew: bool) -> Result<(), String> {
        let begun = self.looker.look(basis, addresses, anew);
        begun.map_err(|error| format!("there is no thread to look at it: {error}"))
    }

    fn tell_monitor(&self, event: MonitorEvent) {
        if let Some(monitor) = &self.monitor {
            monitor.tell(event);
        }
    }

    fn registered_lines(&self, client: &MonName) -> Vec<MonitorLine> {
        self.monitor.as_ref().map(|monitor| monitor.lines(client)).unwrap_or_default()
    }

    fn all_registered_lines(&self) -> Vec<MonitorLine> {
        self.monitor.as_ref().map(SharedMonitor::all_lines).unwrap_or_default()
    }

    fn may_forget(&self, client: &MonName) -> bool {
        self.monitor.as_ref().is_none_or(|monitor| monitor.may_forget(client))
    }

    fn monitor_standing(&self) -> Option<Standing> {
        self.monitor.as_ref().map(SharedMonitor::standing)
    }

    fn read_directory(&mut self) -> Result<BTreeSet<MonName>, String> {
        self.read_now().map_err(|error| format!("{error:#}"))
    }

    fn write_registrations(&mut self, client: &MonName, lines: &[MonitorLine]) -> Result<(), String> {
        self.update(client, lines)
    }

    fn begin_for(&mut self, run: RunNumber, work: RunWork) {
        let shop = self.workshop.of_run(run);
        match work {
            RunWork::CheckFit { targets, insists, brings } => shop.check_fit(targets, insists, brings),
            RunWork::Place { services, how } => self.conveying.place(run, services, how),
            RunWork::Fence(owners) => shop.fence(owners),
            RunWork::Recognise { strategy, targets, grace_seen, owes } => {
                shop.recognise(strategy, targets, grace_seen, owes);
            }
            RunWork::Prove(grace) => shop.prove(grace),
            RunWork::BringUp { services, last_call, held_up } => {
                self.readiness.end();
                self.readiness = Arc::default();
                shop.bring_up(&services, last_call, held_up.as_deref(), &self.readiness);
            }
            RunWork::Tell { tellings, grace } => shop.notify(tellings, grace, &self.stop, &self.readiness),
        }
    }

    fn begin(&mut self, work: Work) {
        let shop = &self.workshop;
        match work {
            Work::CheckHome(service) => shop.check_home(&service),
            Work::GatherFacts => shop.gather_facts(),
            Work::AskGrace(life) => shop.ask_grace(life),
            Work::LookUp(name) => shop.look_up(name),
            Work::TakeAddressAway(service) => shop.take_address_away(&service),
            Work::BringAddressBack(service) => shop.bring_address_back(&service),
            Work::LeaveAddress(service) => shop.leave_address(&service),
            Work::TakeVolumeAway(service) => shop.take_volume_away(&service),
            Work::TakePlacedAway => self.conveying.take_away(),
            Work::SyncDirectory => self.sync_directory(),
            Work::Discard(population) => self.looker.discard(population),
        }
    }

    fn stop_telling(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Another flag stops the work that is begun from now on.
        self.stop = Arc::default();
    }

    fn unready(&self) -> Vec<Unready> {
        self.readiness.missing()
    }

    fn look_closely(&self, close: bool) {
        self.attention.pay(close);
    }

    fn lock_manager(&self) -> String {
        self.workshop.lock_manager.describe()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use heirlock_agent::config::InstanceSettings;
    use heirlock_core::incarnation::Incarnation;
    use heirlock_core::takeover::Conveyance;
    use heirlock_core::{Generation, LockManagerName, Records};
    use heirlock_nsm::MyName;

    use super::*;
    use crate::agent::testing::settings_in;
    use heirlock_agent::agent::outside::contract::{
        a_lock_manager_keeps_its_promises, a_server_keeps_its_promises,
    };

    #[test]
    fn this_server_and_its_lock_manager_keep_the_promises_of_theirs() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings_in(&directory);
        let (inbox, messages) = channel();
        let begun = || ThisServer::begun(Host::here(), &settings, inbox.clone());
        a_server_keeps_its_promises(begun().0, |before| {
            drop(before);
            begun().0
        });
        let next = |_: &mut ThisLockManager| loop {
            if let Message::Of(_, news) = messages.recv_timeout(Duration::from_secs(120)).unwrap() {
                return news;
            }
        };
        a_lock_manager_keeps_its_promises(begun().1, next, |before| {
            drop(before);
            begun().1
        });
    }

    /// The names below a folder, in order.
    fn names(folder: &std::path::Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn each_lock_manager_has_its_own_notes_and_the_first_finds_those_of_earlier_versions() {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = Settings::clone(&settings_in(&directory));
        let two = directory.path().join("nfs-two");
        std::fs::create_dir_all(two.join("sm")).unwrap();
        let [first] = &settings.instances()[..] else { panic!("a configuration makes one") };
        let name = LockManagerName::parse("two").unwrap();
        settings.further = vec![InstanceSettings { name, state_directory: two, ..first.clone() }];
        let opened = |at| {
            let inbox = Inbox::new(InstanceNumber::at(at), channel().0);
            ThisLockManager::open(Host::here(), &settings, Clock::start(), inbox)
        };
        let both = || [opened(0).unwrap(), opened(1).unwrap()];
        let life = |at: usize| Incarnation { boot: "boot".into(), start: at.to_string(), reopened: 0 };
        let client = |at: usize| MonName::parse(&format!("10.0.0.{at}")).unwrap();
        let records =
            |at: usize| Records::from([(client(at), format!("{} record\n", client(at)).into_bytes())]);
        let taken = |at: usize| {
            let mut taken = TakenAway::default();
            taken.note(&"nfs".parse().unwrap(), Generation(at as u64));
            taken
        };
        for (at, mut it) in both().into_iter().enumerate() {
            it.note_grace(&Remembered::of(life(at)));
            it.note_registrations(&Registrations::of("run", &records(at)));
            let my_name = MyName::parse("nfs-b").unwrap();
            it.conveyor.place(&records(at), Conveyance::Copy, &my_name).unwrap();
            it.note_taken_away(&taken(at)).unwrap();
        }
        for (at, it) in both().into_iter().enumerate() {
            assert_eq!(it.grace_note(), Some(Remembered::of(life(at))), "{at}");
            assert_eq!(it.registrations("run"), Some(Registrations::of("run", &records(at))), "{at}");
            assert_eq!(it.placed().keys().collect::<Vec<_>>(), [&client(at)], "{at}");
            assert_eq!(it.taken_away(), Ok(taken(at)), "{at}");
        }
        for (folder, noted) in [
            ("run", &["grace.json", "registered-before"][..]),
            ("local", &["addresses-taken-away.json", "conveyed.json"]),
        ] {
            let folder = directory.path().join(folder);
            let further = names(&folder.join("lock-managers/two"));
            assert_eq!(further, noted, "{}", folder.display());
            assert!(noted.iter().all(|name| names(&folder).contains(&(*name).to_owned())));
        }
        assert!(opened(2).is_err_and(|error| error.to_string().contains("no such lock manager")));
    }
}
