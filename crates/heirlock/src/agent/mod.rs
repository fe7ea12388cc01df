//! The agent: one process on each server that captures, keeps, takes over and tells.
//!
//! One loop owns all state. Whatever takes its time runs in a thread of its own (`work.rs`) and reports by a
//! [`Message`]; what is decided is decided by the machines of `heirlock-core`, and carried out here in the order "durable,
//! then told".
//!
//! | file | holds |
//! |---|---|
//! | `capture.rs`, `looker.rs`, `roles.rs`, `resolve.rs` | from the status monitor's directory to durable records |
//! | `monitor.rs`, `callouts.rs` | what a status monitor waits for: durable before acknowledged |
//! | `holdings.rs`, `services.rs` | which services this server holds, and how it comes to hold them |
//! | `recovery.rs`, `watch.rs`, `grace.rs` | the lives of the lock manager and their grace, and self-adoption |
//! | `runs.rs`, `claims.rs`, `convey.rs`, `shared.rs`, `work.rs`, `volumes.rs` | a run, carried out |
//! | `requests.rs`, `release.rs`, `failback.rs` | the verbs of the control socket |
//! | `acquaintance.rs` | whether the store is the one that this server knows, and still shows what was written to it |
//! | `beat.rs`, `health.rs`, `status.rs` | heartbeats, the store's health, what is reported |

mod acquaintance;
mod asked;
mod beat;
mod callouts;
mod capture;
mod claims;
mod clock;
mod elsewhere;
mod failback;
mod grace;
mod health;
mod holdings;
mod left_behind;
mod looker;
mod mend;
mod monitor;
mod readiness;
mod recovery;
mod registrations;
mod release;
mod requests;
pub(crate) mod resolve;
mod runs;
mod services;
mod shared;
mod status;
#[cfg(test)]
mod testing;
mod volumes;
mod watch;
mod work;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use heirlock_core::claim::Claim;
use heirlock_core::grace::Probe;
use heirlock_core::incarnation::Incarnation;
use heirlock_core::left_behind::LeftBehind;
use heirlock_core::liveness::Hearts;
use heirlock_core::lives::{Lives, Recognised};
use heirlock_core::own_addresses::own_addresses;
use heirlock_core::takeover::Event;
use heirlock_core::{Moment, ServiceName, limits as core_limits};
use heirlock_nsm::{MonName, StateNumber};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::{ForEach, Settings};
use crate::control::{Answer, Listener, Request, Responder, trust};
use crate::convey::Conveyor;
use crate::detector::Hints;
use crate::files::Folder;
use crate::monitor::Wanted;
use crate::roles::Peers;
use crate::store::memory::StoreMemory;
use crate::store::{self, ServerReport, Store, StoreErrorKind};
use crate::threads::{self, Lasting};
use crate::watchdog::{Turns, Watchdog};
use crate::{callout, from_elsewhere, guard, limits, lock_manager};

use acquaintance::Acquaintance;
use beat::{Condition, Namesake, Pulse};
use capture::Capture;
use clock::Clock;
use health::{Health, Protection};
use holdings::Held;
use runs::Running;
use status::Snapshot;
#[cfg(test)]
pub(crate) use status::first as first_status;
use watch::Look;
use work::{Fit, RunNumber, Workshop};

/// What the loop is told.
pub(crate) enum Message {
    /// Something happened in the status monitor's directory: a hint.
    Changed,
    /// The status monitor's directory was looked at.
    Looked(Box<looker::Looked>),
    /// What lies there was read at the start, where heirlock is the status monitor.
    DirectoryRead(Box<Result<monitor::ReadDirectory>>),
    /// The lock manager was looked at.
    Observed(Box<Result<Look, String>>),
    /// The lock manager of this life was asked whether grace is open.
    GraceAsked(Incarnation, (Probe, String)),
    /// Where NLM listens over TCP.
    NlmPorts(Vec<u16>),
    /// Work that a run asked for is done.
    Event(RunNumber, Event),
    /// What an adoption needs was looked for, for a run.
    Fit(RunNumber, Fit),
    /// What this server needs to adopt a service that is to come home was looked for.
    HomeLookedFor(ServiceName, Fit),
    /// The lock manager was made to recognise, for a run.
    Recognised(RunNumber, Box<Result<Recognised, String>>),
    /// What other servers compare with their own.
    Facts(BTreeMap<String, String>),
    /// A name was looked up.
    Resolved(MonName, Vec<IpAddr>),
    /// The address of a service that is being released is gone, or isn't.
    AddressGone(ServiceName, Result<(), String>),
    /// The volume of a service that was released is gone, or isn't.
    VolumeGone(ServiceName, Result<(), String>),
    /// Somebody asks over the control socket.
    Request(Box<Request>, Responder),
    /// Our own status monitor wants something of the store.
    Monitor(Wanted),
    /// rpc.statd's callout says something, and waits.
    Callout(callout::Said, callout::Waiting),
    /// Stop in order.
    Stop,
}

/// What other servers compare with their own.
#[derive(Debug, Default)]
struct Facts {
    gathered_at: Option<Moment>,
    known: BTreeMap<String, String>,
    /// A thread gathers them; one that hangs with a disk is not joined by others.
    awaited: bool,
}

/// All that the loop owns.
pub(crate) struct Agent {
    settings: Arc<Settings>,
    /// This run of the agent: random.
    id: String,
    clock: Clock,
    store: Box<dyn Store>,
    acquaintance: Acquaintance,
    inbox: Sender<Message>,
    workshop: Workshop,
    capture: Capture,
    /// In mode `nsm`.
    monitoring: Option<monitor::Monitoring>,
    conveyor: Conveyor,
    lives: Lives,
    meeting: recovery::Meeting,
    grace_note: grace::GraceNote,
    nlm_ports: Vec<u16>,
    peers: Peers,
    held: BTreeMap<ServiceName, Held>,
    /// The last look into the store showed all that is ours. Else a run could drop locks of clients that nobody tells.
    holdings_known: bool,
    /// Claims of services that others hold, or nobody.
    others: BTreeMap<ServiceName, Claim>,
    /// Those of them whose address was on this server.
    left_behind: LeftBehind,
    /// The run that is on: a self-adoption, or what was asked for and has claimed.
    run: Option<Running>,
    /// What was asked for and has claimed nothing yet.
    asked: Option<Running>,
    /// From which addresses clients can be told, in the run that is on or in the last one.
    readiness: Arc<readiness::Readiness>,
    shared: shared::Shared,
    pulse: Pulse,
    beat_due: Moment,
    facts: Facts,
    health: Health,
    /// Services of which the store can't say whose they are, and why.
    unreadable: BTreeMap<ServiceName, String>,
    protection: Protection,
    releases: release::Releases,
    wishes: failback::Wishes,
    /// Before this moment no service of this name is adopted without being asked.
    unasked_not_before: BTreeMap<ServiceName, Moment>,
    snapshot: Arc<Snapshot>,
    /// Tells this configuration from others.
    fingerprint: String,
    /// Why the agent must end.
    fatal: Option<String>,
}

pub(crate) use status::past_report;

/// Runs the agent until it is told to stop.
///
/// # Errors
/// Where something it can't do without is missing, or another agent lives under its name.
pub(crate) fn run(settings: Settings) -> Result<()> {
    let settings = Arc::new(settings);
    let watchdog = Watchdog::start().context("can't begin to look whether the agent hangs")?;
    let turns = watchdog.follow("agent", core_limits::LOOP_SILENCE_MAX);
    turns.turn();
    for directory in [&settings.local_directory, &settings.runtime_directory] {
        trust::make_folder(directory).with_context(|| format!("can't create {}", directory.display()))?;
    }
    match guard::renew(&settings) {
        Ok(true) => tracing::info!("stock sm-notify is kept out again after a boot"),
        Ok(false) => {}
        Err(error) => {
            tracing::error!(%error, "stock sm-notify may not be kept out; look with 'heirlock doctor': {error}");
        }
    }
    if !settings.state_directory_is_set {
        tracing::info!(directory = %settings.state_directory.display(), "state-directory is not set, and the status monitor is followed to {}", settings.state_directory.display());
    }
    for finding in guard::commands(&settings) {
        tracing::error!(remedy = finding.remedy, "{}", finding.found);
    }
    let (inbox, messages) = channel();
    let snapshot = Arc::new(Snapshot::new(&settings));
    let mut listener = listen(&settings, &inbox, &snapshot)?;
    watchdog.keep(listener.take_thread());
    watchdog.keep(Some(stop_on_signal(inbox.clone())?));
    let mut agent = Agent::new(Arc::clone(&settings), inbox.clone(), snapshot)?;
    // A status monitor that resumes answers from now on, while the store is read.
    let _callouts = agent.begin_capture(&watchdog)?;
    agent.take_up();
    if settings.capture.mode.properties().is_status_monitor {
        // The status monitor answers known clients also where this loop hangs, as it may where a store does.
        turns.only_say();
    }
    let mut hints = agent.watch_directory()?;
    watchdog.keep(hints.as_mut().and_then(Hints::take_thread));
    watchdog.keep(Some(watch::start(&agent.workshop, inbox)?));
    agent.serve(&messages, &turns)
}

/// Answers what needs no decision at once, and hands on the rest.
fn listen(settings: &Settings, inbox: &Sender<Message>, snapshot: &Arc<Snapshot>) -> Result<Listener> {
    let (inbox, snapshot) = (Mutex::new(inbox.clone()), Arc::clone(snapshot));
    let requested = move |request: Request, responder: Responder| {
        if request == Request::Status {
            // Also while the loop waits for a store that hangs.
            responder.done(Answer::Status(Box::new(snapshot.report())));
            return;
        }
        let inbox = inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = inbox.send(Message::Request(Box::new(request), responder));
    };
    Listener::start(&settings.runtime_directory, requested)
        .with_context(|| format!("can't listen for requests in {}", settings.runtime_directory.display()))
}

fn stop_on_signal(inbox: Sender<Message>) -> Result<Lasting> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("can't wait for signals")?;
    let thread = threads::start("signals", move || {
        for _ in signals.forever() {
            if inbox.send(Message::Stop).is_err() {
                return Ok(());
            }
        }
        Err(io::Error::other("no signal can be heard any more"))
    })?;
    Ok(thread)
}

impl Agent {
    fn new(settings: Arc<Settings>, inbox: Sender<Message>, snapshot: Arc<Snapshot>) -> Result<Self> {
        let clock = Clock::start();
        let id = format!("{:016x}", fastrand::u64(..));
        let memory = StoreMemory::load(&settings.local_directory)?;
        let store = open_store(&settings, &memory)?;
        let conveyor = open_conveyor(&settings)?;
        let report = own_report(&settings, &id);
        let mut lock_manager = lock_manager::open(&settings);
        lock_manager.tidy();
        tracing::info!(server = %settings.server, agent = id, store = store.describe(), lock_manager = lock_manager.describe(), "the agent of {} begins, on {} and {}", settings.server, store.describe(), lock_manager.describe());
        let workshop = Workshop {
            settings: Arc::clone(&settings),
            clock,
            lock_manager: Arc::new(Mutex::new(lock_manager)),
            inbox: inbox.clone(),
            run: RunNumber::default(),
        };
        let capture = Capture::new(looker::Looker::new(settings.state_directory.clone(), inbox.clone()));
        Ok(Self {
            id,
            clock,
            store,
            acquaintance: Acquaintance::new(memory),
            inbox,
            workshop,
            capture,
            monitoring: None,
            conveyor,
            lives: Lives::default(),
            meeting: recovery::Meeting::default(),
            grace_note: grace::GraceNote::new(&settings.runtime_directory),
            nlm_ports: Vec::new(),
            peers: Peers::of(Path::new("/proc")),
            held: BTreeMap::new(),
            holdings_known: false,
            others: BTreeMap::new(),
            left_behind: LeftBehind::default(),
            run: None,
            asked: None,
            readiness: Arc::default(),
            shared: shared::Shared::default(),
            pulse: Pulse::new(report, Hearts::new(settings.heartbeat.dead_after)),
            beat_due: clock.now(),
            facts: Facts::default(),
            health: Health::default(),
            unreadable: BTreeMap::new(),
            protection: Protection::default(),
            releases: release::Releases::default(),
            wishes: failback::Wishes::default(),
            unasked_not_before: BTreeMap::new(),
            snapshot,
            fingerprint: settings.fingerprint(),
            fatal: None,
            settings,
        })
    }

    /// Takes up what an earlier run of the agent held and left unfinished, as the store knows it.
    fn take_up(&mut self) {
        let now = self.clock.now();
        match self.meet_store() {
            Ok(()) => self.refresh_holdings(now),
            Err(error) => self.health.failed(now, &error.to_string()),
        }
        let known = self.known_life();
        let recalled = self.grace_note.recall(known.as_ref(), self.clock);
        self.lives = Lives::new(known, recalled);
        self.tidy_conveyed();
    }

    /// Begins to learn of records in the way that is configured, besides looking at the directory.
    fn begin_capture(&mut self, watchdog: &Watchdog) -> Result<Option<callout::Listener>> {
        type Begin = fn(&mut Agent, &Watchdog) -> Result<Option<callout::Listener>>;
        let each = ForEach::<Begin> {
            watch: |_, _| Ok(None),
            callout: |agent, watchdog| {
                let mut listener = agent.listen_to_callouts()?;
                watchdog.keep(listener.take_thread());
                Ok(Some(listener))
            },
            nsm: |agent, watchdog| {
                let turns = watchdog.follow("status monitor", core_limits::MONITOR_SILENCE_MAX);
                agent.begin_monitoring(turns).map(|()| None)
            },
        };
        self.settings.capture.mode.choose(each)(self, watchdog)
    }

    fn watch_directory(&self) -> Result<Option<Hints>> {
        if !self.settings.capture.mode.properties().watches_directory {
            return Ok(None);
        }
        let directories = ["sm", "sm.bak"].map(|name| self.settings.state_directory.join(name)).to_vec();
        let (inbox, hinted) = (self.inbox.clone(), Arc::clone(&self.capture.hinted));
        let hints = Hints::start(directories, move || {
            if !hinted.swap(true, Ordering::SeqCst) {
                let _ = inbox.send(Message::Changed);
            }
        })?;
        Ok(Some(hints))
    }

    fn serve(&mut self, messages: &Receiver<Message>, turns: &Turns) -> Result<()> {
        loop {
            turns.turn();
            // Also where nothing is due for long: the watchdog counts the turns.
            let patience = self.next_due().since(self.clock.now()).min(core_limits::LOOP_SILENCE_MAX / 4);
            let first = match messages.recv_timeout(patience) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => bail!("nobody can speak to the agent any more"),
            };
            // What has come together is looked at together: a burst of hints causes one scan, a burst of answers one sync.
            let more = messages.try_iter().take(limits::MESSAGES_AT_ONCE_MAX);
            for message in join_alike(first.into_iter().chain(more)) {
                if matches!(message, Message::Stop) {
                    return self.stop();
                }
                self.handle(message);
            }
            self.do_what_is_due();
            if let Some(why) = self.fatal.take() {
                bail!(why);
            }
        }
    }

    fn handle(&mut self, message: Message) {
        let now = self.clock.now();
        match message {
            Message::Looked(looked) => self.looked(now, *looked),
            Message::DirectoryRead(read) => self.directory_read(*read),
            Message::Observed(look) => self.observed(*look),
            Message::GraceAsked(life, answer) => self.grace_asked(&life, answer),
            Message::NlmPorts(ports) => self.nlm_ports = ports,
            Message::Event(run, event) => self.worked_for(run, event),
            Message::Fit(run, fit) => self.looked_for_needs(run, fit),
            Message::HomeLookedFor(service, fit) => self.home_looked_for(&service, fit),
            Message::Recognised(run, done) => self.recognised(run, *done),
            Message::Facts(known) => self.facts_gathered(now, known),
            Message::Resolved(name, addresses) => self.resolved(now, &name, addresses),
            Message::AddressGone(service, gone) => self.address_gone(now, &service, gone),
            Message::VolumeGone(service, gone) => self.volume_gone(&service, &gone),
            Message::Request(request, responder) => self.requested(now, *request, responder),
            Message::Monitor(wanted) => self.wanted(now, wanted),
            Message::Callout(said, waiting) => self.called_out(now, &said, waiting),
            // The watch has noted its hint where the next look finds it; this only wakes the loop.
            Message::Changed | Message::Stop => {}
        }
    }

    fn next_due(&self) -> Moment {
        let [asked, run] = [&self.asked, &self.run].map(|run| run.as_ref().and_then(Running::due));
        [asked, run, self.capture_due(), self.shared.due(), self.who_came_due(), self.files_due()]
            .into_iter()
            .flatten()
            .chain([self.beat_due])
            .min()
            .unwrap_or(Moment::START)
    }

    fn do_what_is_due(&mut self) {
        let now = self.clock.now();
        self.tend_capture(now);
        if now >= self.beat_due {
            self.beat_due = now + self.settings.heartbeat.interval;
            self.beat(now);
            self.take_in_spool(now);
        }
        self.say_who_came(now);
        self.tick_asked(now);
        self.tick_run(now);
        self.share_a_portion(now);
        self.notify_once_shared(now);
        self.follow_when_quiet(now);
        if self.capture.has_looked() {
            self.recover(now);
        }
        self.tend_directory(now);
        self.tell_durable();
        self.note_protection();
        self.publish();
    }

    /// Says that this server lives, and takes in what the others say.
    fn beat(&mut self, now: Moment) {
        from_elsewhere::say_what_was_suppressed();
        let condition = Condition {
            incarnation: self.lives.running().cloned(),
            state: self.own_state().map(|state| state.0),
            ailments: self.ailments(),
            facts: self.facts(now),
        };
        if let Err(error) = self.meet_store() {
            // A server that can't see the others' hearts must not take them for silent.
            self.pulse.blind();
            self.holdings_known = false;
            self.health.failed(now, &error.to_string());
            return;
        }
        match self.pulse.beat(now, self.store.as_ref(), condition) {
            Ok(None) => {}
            Ok(Some(Namesake::WasFirst)) => {
                self.fatal = Some(format!(
                    "another agent lives under the name {} in this store: give each server a name of its own (server = …)",
                    self.settings.server
                ));
                return;
            }
            Ok(Some(Namesake::IsNew)) => {
                tracing::error!(server = %self.settings.server, "another agent was started under this server's name {}", self.settings.server);
            }
            Err(error) => {
                self.holdings_known = false;
                self.health.failed(now, &error.to_string());
                return;
            }
        }
        if self.pulse.was_set_back() {
            self.acquaintance.doubt();
        }
        self.look_for_fenced_owners(now);
        self.refresh_holdings(now);
        if self.holdings_known {
            self.look_for_all(now);
        }
        // Only what was looked at is well.
        if self.holdings_known && !self.capture.behind {
            self.health.worked();
        }
        self.look_for_silence(now);
        self.answer_wishes(now);
        self.fulfil_wishes(now);
        self.say_releases(now);
        self.say_progress_asked(now);
        self.forget_the_unreachable(now);
    }

    /// They change with a configuration, hardly ever. They are gathered in a thread, for programs are asked; until the first
    /// are there, none are told.
    fn facts(&mut self, now: Moment) -> BTreeMap<String, String> {
        let is_old = self.facts.gathered_at.is_none_or(|at| now.since(at) >= limits::FACTS_INTERVAL);
        if is_old && !self.facts.awaited {
            self.pulse.is_at(own_addresses_of(&self.settings));
            match self.workshop.gather_facts() {
                Ok(()) => self.facts.awaited = true,
                Err(error) => {
                    tracing::warn!(%error, "what other servers compare with their own is not gathered now: {error}");
                    self.facts.gathered_at = Some(now);
                }
            }
        }
        self.facts.known.clone()
    }

    fn facts_gathered(&mut self, now: Moment, known: BTreeMap<String, String>) {
        if self.facts.known != known {
            self.beat_due = now; // other servers compare it with their own
        }
        self.facts = Facts { gathered_at: Some(now), known, awaited: false };
    }

    /// This server's own NSM state number, as its status monitor keeps it.
    pub(crate) fn own_state(&self) -> Option<StateNumber> {
        let folder = Folder::open(&self.settings.state_directory).ok()?;
        let bytes = crate::monitor::read_state(&folder).ok()?;
        StateNumber::parse_file(&bytes).ok()
    }

    /// Stops in order: from now on this server's silence is no reason to adopt. A run that is on goes on at the next
    /// start.
    fn stop(&mut self) -> Result<()> {
        tracing::info!("the agent stops");
        self.stop_notifying();
        from_elsewhere::say_all_that_was_suppressed();
        self.follow_all(self.clock.now());
        self.pulse.pause(true);
        self.meet_store()
            .context("the last heartbeat could not be written: others may take this server for dead")?;
        let last = self.pulse.beat(self.clock.now(), self.store.as_ref(), Condition::default());
        last.map(drop)
            .context("the last heartbeat could not be written: others may take this server for dead")
    }
}

/// Clients of one service that answered one after the other answered together.
fn join_alike(messages: impl Iterator<Item = Message>) -> Vec<Message> {
    let mut joined: Vec<Message> = Vec::new();
    for message in messages {
        match (joined.last_mut(), message) {
            (
                Some(Message::Event(run, Event::Acknowledged { service, clients })),
                Message::Event(of, Event::Acknowledged { service: same, clients: more }),
            ) if *run == of && *service == same => clients.extend(more),
            (_, message) => joined.push(message),
        }
    }
    joined
}

/// What an earlier agent conveyed is remembered, and what it left half written is removed.
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

/// A store that isn't what it should be is an error; one that isn't there may come yet.
fn open_store(settings: &Settings, memory: &StoreMemory) -> Result<Box<dyn Store>> {
    let store = store::open(settings);
    store.expect(memory.identity.as_ref());
    match store.found() {
        Ok(_) => {}
        Err(error) if *error.kind() == StoreErrorKind::Unexpected => return Err(error.into()),
        Err(error) => tracing::error!(%error, "the store can't be opened yet: {error}"),
    }
    Ok(store)
}

/// As long as it exists, this server is being maintained.
fn maintenance_file(settings: &Settings) -> PathBuf {
    settings.local_directory.join("maintenance")
}

/// Where this server is, and no other one will be.
fn own_addresses_of(settings: &Settings) -> Vec<IpAddr> {
    let on_interfaces = crate::interfaces::addresses(Path::new("/proc"));
    own_addresses(&settings.host.addresses, &on_interfaces, &floating(settings))
}

/// The addresses of all services.
fn floating(settings: &Settings) -> Vec<IpAddr> {
    settings.services.iter().flat_map(|service| service.addresses.iter().copied()).collect()
}

/// What this server says of itself before its first heartbeat.
fn own_report(settings: &Settings, id: &str) -> ServerReport {
    ServerReport {
        paused: maintenance_file(settings).exists(),
        written_at_s: clock::wall_s(),
        node: rustix::system::uname().nodename().to_str().ok().map(str::to_owned),
        addresses: own_addresses_of(settings),
        ..ServerReport::new(settings.server.clone(), id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(service: &str, client: &str) -> Message {
        let clients = vec![MonName::parse(client).unwrap()];
        let service = ServiceName::parse(service).unwrap();
        Message::Event(RunNumber::default(), Event::Acknowledged { service, clients })
    }

    #[test]
    fn what_servers_compare_is_gathered_beside_the_loop_and_by_one_thread_at_a_time() {
        let mut place = testing::place();
        let now = place.agent.clock.now();
        assert_eq!(place.agent.facts(now), BTreeMap::new(), "nothing is waited for");
        place.agent.facts(now + limits::FACTS_INTERVAL * 3);
        let known = place.next_that(|message| match message {
            Message::Facts(known) => Some(known),
            _ => None,
        });
        assert!(place.agent.facts.awaited && known.contains_key("kernel"), "{known:?}");
        place.agent.handle(Message::Facts(known.clone()));
        let now = place.agent.clock.now();
        assert_eq!(place.agent.facts(now), known);
        assert!(!place.agent.facts.awaited, "they are new");
        let more = place.messages.try_iter().filter(|message| matches!(message, Message::Facts(_))).count();
        assert_eq!(more, 0);
    }

    #[test]
    fn answers_that_come_together_are_made_durable_together_and_nothing_overtakes_them() {
        let service = ServiceName::parse("nfs").unwrap();
        let ended = Message::Event(RunNumber::default(), Event::NotifyEnded { service, left: vec![] });
        let came = [
            answered("nfs", "192.0.2.1"),
            answered("nfs", "192.0.2.2"),
            answered("home", "192.0.2.1"),
            ended,
            answered("nfs", "192.0.2.3"),
        ];
        let said: Vec<String> = join_alike(came.into_iter())
            .iter()
            .map(|message| match message {
                Message::Event(_, Event::Acknowledged { service, clients }) => {
                    format!("{service} {}", clients.len())
                }
                Message::Event(..) => "ended".to_owned(),
                _ => "other".to_owned(),
            })
            .collect();
        assert_eq!(said, ["nfs 2", "home 1", "ended", "nfs 1"]);
    }
}
