//! The inside of an agent: it captures, keeps, takes over and tells.
//!
//! One loop owns all state: [`Inside::handle`] takes a [`Message`] in, [`Inside::do_what_is_due`] does the work whose time has
//! come, and [`Inside::next_due`] says when that is asked for again. The machines of `heirlock-core` decide, and their decisions
//! are carried out here in the order "durable, then told". Besides its store an agent touches only the things that `outside.rs`
//! names.
//!
//! | file | holds |
//! |---|---|
//! | `outside.rs`, `work.rs` | the questions of an agent to its server, and the work that it begins there |
//! | `capture.rs`, `look.rs`, `resolve.rs` | from the status monitor's directory to durable records |
//! | `monitor.rs`, `callouts.rs` | the commits that a status monitor waits for: durable before acknowledged |
//! | `holdings.rs`, `services.rs` | which services this server holds, and how it comes to hold them |
//! | `recovery.rs`, `grace.rs` | the lives of the lock manager and their grace, and self-adoption |
//! | `runs.rs`, `asked.rs`, `claims.rs`, `conveying.rs`, `mend.rs`, `shared.rs`, `elsewhere.rs` | a run, carried out |
//! | `requests.rs`, `release.rs`, `failback.rs` | the verbs of the control socket |
//! | `acquaintance.rs` | whether the store is the one that this server knows, and still shows all that was written to it |
//! | `beat.rs`, `health.rs`, `status.rs` | heartbeats, the store's health, reports |
//! | `tally.rs` | how requests were answered |

pub mod acquaintance;
pub mod asked;
pub mod beat;
pub mod callouts;
pub mod capture;
pub mod claims;
pub mod conveying;
pub mod elsewhere;
pub mod failback;
pub mod grace;
pub mod health;
pub mod holdings;
pub mod left_behind;
pub mod look;
pub mod mend;
pub mod monitor;
pub mod outside;
pub mod put_off;
pub mod recovery;
pub mod release;
pub mod requests;
pub mod resolve;
pub mod runs;
pub mod services;
pub mod shared;
pub mod status;
mod tally;
pub mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use heirlock_core::claim::Claim;
use heirlock_core::duty::Owed;
use heirlock_core::grace::Probe;
use heirlock_core::incarnation::Incarnation;
use heirlock_core::left_behind::LeftBehind;
use heirlock_core::liveness::Hearts;
use heirlock_core::lives::{Lives, Recognised};
use heirlock_core::own_addresses::own_addresses;
use heirlock_core::store::{ServerReport, Store, StoreErrorKind};
use heirlock_core::takeover::{Event, Phase, TimeLimits};
use heirlock_core::wall_clock::WallClock;
use heirlock_core::{Moment, ServiceName};
use heirlock_nsm::{MonName, StateNumber};

use crate::config::{Hook, Settings};
use crate::control::report::observed::Observed;
use crate::control::{Request, Responder};
use crate::limits;
use crate::status_monitor::Said;
use crate::status_monitor::Wanted;
use crate::store_memory::StoreMemory;

use acquaintance::Acquaintance;
use beat::{Condition, Namesake, Pulse};
use capture::Capture;
use health::{Health, Protection};
use holdings::Held;
use outside::Outside;
use recovery::Look;
use runs::Running;
pub use status::first as first_status;
use tally::Tally;
use work::{Fit, PlacedOf, RunNumber, Unplaced, Work};

/// Answers a callout that waits: its client is durable, or why it is not.
pub type Answered = Box<dyn FnOnce(&Result<(), String>) + Send>;

/// A message to the loop.
pub enum Message {
    /// Something happened in the status monitor's directory: a hint.
    Changed,
    /// The status monitor's directory was looked at.
    Looked(Box<look::Looked>),
    /// The directory was read at the start, where heirlock is the status monitor: the files of these clients are to follow.
    DirectoryRead(Box<Result<BTreeSet<MonName>, String>>),
    /// The changes of the directory are durable, or why they are not.
    DirectorySynced(Result<(), String>),
    /// The lock manager was looked at.
    Observed(Box<Result<Look, String>>),
    /// The lock manager of this life was asked whether grace is open.
    GraceAsked(Incarnation, (Probe, String)),
    /// Where NLM listens over TCP.
    NlmPorts(Vec<u16>),
    /// Work that a run asked for is done.
    Event(RunNumber, Event),
    /// The needs of an adoption were looked for, for a run.
    Fit(RunNumber, Fit),
    /// The needs of an adoption of a service that is to come home were looked for.
    HomeLookedFor(ServiceName, Fit),
    /// Records were placed, for a run.
    Placed(RunNumber, Vec<PlacedOf>),
    /// The placed records were taken away: the clients whose files could not be, or why none was.
    PlacedTakenAway(Result<Unplaced, String>),
    /// The lock manager was made to recognise, for a run.
    Recognised(RunNumber, Box<Result<Recognised, String>>),
    /// The facts that other servers compare with their own.
    Facts(Result<BTreeMap<String, String>, String>),
    /// A name was looked up.
    Resolved(MonName, Result<Vec<IpAddr>, String>),
    /// The address of a service that is being released is gone, or isn't.
    AddressGone(ServiceName, Result<(), String>),
    /// The volume of a service that was released is gone, or isn't.
    VolumeGone(ServiceName, Result<(), String>),
    /// A hook has run for so long, and succeeded or failed. Its result is told besides.
    HookRan(Hook, Duration, bool),
    /// A caller asks over the control socket.
    Request(Box<Request>, Responder),
    /// A call of the store has ended that had been given up: the store is asked again.
    StoreAnswers,
    /// The store says that another server has made or given up a claim: a hint, which replaces no look.
    StoreChanged,
    /// Our own status monitor wants something of the store.
    Monitor(Wanted),
    /// rpc.statd's callout says something, and waits for an answer.
    Callout(Said, Answered),
    /// Stop in order.
    Stop,
}

/// The facts that other servers compare with their own.
#[derive(Debug, Default)]
pub struct Facts {
    gathered_at: Option<Moment>,
    known: BTreeMap<String, String>,
    /// They are being gathered. While gathering hangs with a disk, it is not begun a second time.
    pub awaited: bool,
}

/// All that the loop owns.
pub struct Inside<O> {
    pub settings: Arc<Settings>,
    /// This run of the agent: random.
    id: String,
    pub outside: O,
    pub store: Box<dyn Store>,
    pub acquaintance: Acquaintance,
    pub capture: Capture,
    /// In mode `nsm`.
    monitoring: Option<monitor::Monitoring>,
    pub lives: Lives,
    grace_inquiry: recovery::GraceInquiry,
    grace_note: grace::GraceNote,
    nlm_ports: Vec<u16>,
    pub held: BTreeMap<ServiceName, Held>,
    /// The last look into the store showed all that is ours. Else a run could drop locks of clients that no run tells.
    pub holdings_known: bool,
    /// Claims of services that another server holds, or none.
    pub others: BTreeMap<ServiceName, Claim>,
    /// The services of another server whose address was on this one.
    left_behind: LeftBehind,
    /// The run that is on: a self-adoption, or what was asked for and has claimed.
    pub run: Option<Running>,
    /// A run that was asked for and has claimed nothing yet.
    pub asked: Option<Running>,
    /// The number of the last run that this agent began or went on with.
    last_run: RunNumber,
    pub shared: shared::Shared,
    conveying: conveying::Conveying,
    pub pulse: Pulse,
    pub beat_due: Moment,
    pub facts: Facts,
    pub health: Health,
    /// Services of which the store can't say whose they are, and why.
    unreadable: BTreeMap<ServiceName, String>,
    pub protection: Protection,
    releases: release::Releases,
    pub put_off: put_off::PutOff,
    home_requests: failback::HomeRequests,
    /// Before this moment no service of this name is adopted without being asked.
    unasked_not_before: BTreeMap<ServiceName, Moment>,
    /// How long the work of a run may take.
    pub(crate) time_limits: TimeLimits,
    /// Tells this configuration from others.
    fingerprint: String,
    /// The clock on the wall when the agent began.
    wall_clock: WallClock,
    /// Why the agent must end.
    fatal: Option<String>,
    /// The counts, but for those that the tally and the status monitor keep.
    pub(crate) counts: Observed,
    /// How requests were answered.
    pub(crate) tally: Tally,
}

pub use status::past_report;

impl<O: Outside> Inside<O> {
    /// One with this store, of which it has read nothing yet.
    ///
    /// # Errors
    /// Where the store isn't what it should be, or what is remembered of it can't be read.
    pub fn new(settings: Arc<Settings>, store: Box<dyn Store>, mut outside: O) -> Result<Self> {
        let id = format!("{:016x}", outside.random());
        let memory = outside.store_memory()?;
        meet_first(store.as_ref(), &memory)?;
        let report = own_report(&settings, &id, &outside);
        let (began, began_at_s) = (outside.now(), report.written_at_s);
        let lock_manager = outside.lock_manager();
        tracing::info!(server = %settings.server, agent = id, store = store.describe(), lock_manager, "the agent of {} begins, on {} and {lock_manager}", settings.server, store.describe());
        Ok(Self {
            id,
            beat_due: outside.now(),
            outside,
            store,
            acquaintance: Acquaintance::new(memory),
            capture: Capture::new(),
            monitoring: None,
            lives: Lives::default(),
            grace_inquiry: recovery::GraceInquiry::default(),
            grace_note: grace::GraceNote::default(),
            nlm_ports: Vec::new(),
            held: BTreeMap::new(),
            holdings_known: false,
            others: BTreeMap::new(),
            left_behind: LeftBehind::default(),
            run: None,
            asked: None,
            last_run: RunNumber::default(),
            shared: shared::Shared::default(),
            conveying: conveying::Conveying::default(),
            pulse: Pulse::new(report, Hearts::new(settings.heartbeat.dead_after)),
            facts: Facts::default(),
            health: Health::default(),
            unreadable: BTreeMap::new(),
            protection: Protection::default(),
            releases: release::Releases::default(),
            put_off: put_off::PutOff::default(),
            home_requests: failback::HomeRequests::default(),
            unasked_not_before: BTreeMap::new(),
            time_limits: work::time_limits(&settings),
            fingerprint: settings.fingerprint(),
            wall_clock: WallClock::read(began, began_at_s),
            fatal: None,
            counts: Observed { began_at_s, ..Observed::default() },
            tally: Tally::default(),
            settings,
        })
    }

    /// Takes up what an earlier run of the agent held and left unfinished, as the store knows it.
    pub fn take_up(&mut self) {
        let now = self.outside.now();
        match self.meet_store() {
            Ok(()) => self.refresh_holdings(now),
            Err(error) => self.health.failed(now, &error.to_string()),
        }
        let known = self.known_life();
        let recalled = self.grace_note.recall(known.as_ref(), &self.outside);
        self.lives = Lives::new(known, recalled);
        self.tidy_conveyed();
    }

    /// Takes a message in, and does at once what follows from it.
    pub fn handle(&mut self, message: Message) {
        let now = self.outside.now();
        match message {
            Message::Looked(looked) => self.looked(now, *looked),
            Message::DirectoryRead(read) => self.directory_read(*read),
            Message::DirectorySynced(synced) => self.directory_synced(synced),
            Message::Observed(look) => self.observed(*look),
            Message::GraceAsked(life, answer) => self.grace_asked(&life, answer),
            Message::NlmPorts(ports) => self.nlm_ports = ports,
            Message::Event(run, event) => self.worked_for(run, event),
            Message::Fit(run, fit) => self.looked_for_needs(run, fit),
            Message::HomeLookedFor(service, fit) => self.home_looked_for(&service, fit),
            Message::Placed(run, done) => self.placed(run, done),
            Message::PlacedTakenAway(done) => self.placed_taken_away(now, done),
            Message::Recognised(run, done) => self.recognised(run, *done),
            Message::Facts(known) => self.facts_gathered(now, known),
            Message::Resolved(name, found) => self.resolved(now, &name, found),
            Message::AddressGone(service, gone) => self.address_work_ended(now, &service, gone),
            Message::VolumeGone(service, gone) => self.volume_work_ended(&service, &gone),
            Message::HookRan(hook, took, is_done) => self.counts.hooks.of(hook).ended(took, is_done),
            Message::Request(request, responder) => self.requested(now, request, responder),
            Message::StoreAnswers => self.store_answers(now),
            Message::StoreChanged => self.beat_due = self.beat_due.min(now + limits::STORE_CHANGED_AFTER),
            Message::Monitor(wanted) => self.wanted(now, wanted),
            Message::Callout(said, answered) => self.called_out(now, now, said, answered),
            // The hint is noted where the next look finds it; this only wakes the loop. Of a stop see `Inside::stop`.
            Message::Changed | Message::Stop => {}
        }
    }

    /// When there is something to do without a message.
    pub fn next_due(&self) -> Moment {
        let [asked, run] = [&self.asked, &self.run].map(|run| run.as_ref().and_then(Running::due));
        [
            asked,
            run,
            self.capture_due(),
            self.shared.due(),
            self.returns_due(),
            self.files_due(),
            self.put_off.due(),
            self.conveying.due(),
        ]
        .into_iter()
        .flatten()
        .chain([self.beat_due])
        .min()
        .unwrap_or(Moment::START)
    }

    /// Does what time has brought about. To be called after every message, or after some that came together.
    pub fn do_what_is_due(&mut self) {
        let now = self.outside.now();
        self.tend_capture(now);
        if now >= self.beat_due {
            self.beat_due = now + self.settings.heartbeat.interval;
            self.beat(now);
            self.take_in_spool(now);
        }
        self.end_messages_put_off_too_long(now);
        self.say_who_came(now);
        self.tick_asked(now);
        self.tick_run(now);
        self.say_if_conveyed_stays(now);
        self.share_a_portion(now);
        self.notify_once_shared(now);
        self.follow_when_quiet(now);
        if self.capture.has_looked() {
            self.recover(now);
        }
        self.tend_directory(now);
        self.tell_durable();
        self.note_protection();
        self.tally.settle();
        self.publish();
    }

    /// Says that this server lives, and takes in what the others say.
    pub fn beat(&mut self, now: Moment) {
        self.outside.say_suppressed_lines(false);
        let condition = Condition {
            written_at_s: self.outside.wall_s(),
            incarnation: self.lives.running().cloned(),
            state: self.own_state().map(|state| state.0),
            ailments: self.ailments(),
            facts: self.facts(now),
        };
        self.say_messages_put_off(now);
        self.say_progress_asked(now);
        let met = self.meet_store();
        if let Err(error) = &met {
            self.holdings_known = false;
            self.health.failed(now, &error.to_string());
            if !self.acquaintance.may_beat(error) {
                // A server that can't see the others' hearts must not take them for silent.
                self.pulse.blind();
                return;
            }
        }
        let began = self.outside.now();
        let beaten = self.pulse.beat(now, self.store.as_ref(), condition);
        self.counts.heartbeats.ended(self.outside.now().since(began), beaten.is_ok());
        self.say_unreadable_hearts();
        match beaten {
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
        if met.is_err() {
            return;
        }
        self.refresh_holdings(now);
        if self.holdings_known {
            self.look_for_all(now);
        }
        // Only what was looked at is well.
        if self.holdings_known && !self.capture.behind {
            self.health.worked();
        }
        self.look_for_silence(now);
        self.answer_home_requests(now);
        self.fulfil_home_requests(now);
        self.end_releases_that_hang(now);
        self.say_releases(now);
        self.forget_the_unreachable(now);
    }

    /// Nothing is on that was asked for or begun, and nothing waits for the store.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.run.is_none()
            && self.asked.is_none()
            && !self.releases_are_on()
            && self.home_requests.is_empty()
            && self.put_off.is_empty()
            && self.conveying.is_over()
    }

    /// Nothing is owed to any client of what this server holds.
    pub(crate) fn owes_nothing(&self) -> bool {
        self.owed() == Owed::default()
    }

    /// How many runs this agent has begun or gone on with.
    pub(crate) fn run_count(&self) -> u64 {
        self.last_run.count()
    }

    /// Services whose adoption was interrupted, although it could be gone on with now and no run is on.
    pub(crate) fn left_interrupted(&self) -> impl Iterator<Item = &ServiceName> {
        let may_go_on = self.run.is_none()
            && self.asked.is_none()
            && self.health.error().is_none()
            && self.holdings_known
            && self.lives.to_recover_in().is_some();
        let is_interrupted = |held: &Held| {
            let journal = &held.journal;
            !held.frozen
                && journal.life.is_none()
                && matches!(journal.phase, Phase::Claimed | Phase::Conveyed)
        };
        let left = self.held.iter().filter(move |(_, held)| may_go_on && is_interrupted(held));
        left.map(|(service, _)| service)
    }

    /// Why the agent must end now, if so. It can't go on.
    pub(crate) fn must_end(&mut self) -> Option<String> {
        self.fatal.take()
    }

    /// They change with a configuration, hardly ever. They are gathered beside the loop, for programs are asked; until the
    /// first are there, none are told.
    pub fn facts(&mut self, now: Moment) -> BTreeMap<String, String> {
        let is_old = self.facts.gathered_at.is_none_or(|at| now.since(at) >= limits::FACTS_INTERVAL);
        if is_old && !self.facts.awaited {
            self.pulse.is_at(own_addresses_of(&self.settings, &self.outside));
            self.outside.begin(Work::GatherFacts);
            self.facts.awaited = true;
        }
        self.facts.known.clone()
    }

    fn facts_gathered(&mut self, now: Moment, gathered: Result<BTreeMap<String, String>, String>) {
        let known = match gathered {
            Ok(known) => known,
            Err(why) => {
                tracing::warn!(why, "what other servers compare with their own is not gathered now: {why}");
                self.facts.known.clone()
            }
        };
        if self.facts.known != known {
            self.beat_due = now; // other servers compare it with their own
        }
        self.facts = Facts { gathered_at: Some(now), known, awaited: false };
    }

    /// This server's own NSM state number, as its status monitor keeps it.
    pub(crate) fn own_state(&self) -> Option<StateNumber> {
        self.outside.own_state()
    }

    /// Stops in order: from now on this server's silence is no reason to adopt. A run that is on goes on at the next
    /// start.
    ///
    /// # Errors
    /// Where the others can't be told.
    pub(crate) fn stop(&mut self) -> Result<()> {
        tracing::info!("the agent stops");
        self.stop_notifying();
        self.say_ends();
        self.outside.say_suppressed_lines(true);
        self.follow_all(self.outside.now());
        self.pulse.pause(true);
        self.meet_store()
            .context("the last heartbeat could not be written: others may take this server for dead")?;
        let condition = Condition { written_at_s: self.outside.wall_s(), ..Condition::default() };
        let last = self.pulse.beat(self.outside.now(), self.store.as_ref(), condition);
        self.say_unreadable_hearts();
        last.map(drop)
            .context("the last heartbeat could not be written: others may take this server for dead")
    }
}

/// Clients of one service that answered one after the other answered together.
pub fn join_alike(messages: impl Iterator<Item = Message>) -> Vec<Message> {
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

/// A store that isn't what it should be is an error; one that isn't there may come yet.
fn meet_first(store: &dyn Store, memory: &StoreMemory) -> Result<()> {
    store.expect(memory.identity.as_ref());
    match store.found() {
        Ok(_) => {}
        Err(error) if *error.kind() == StoreErrorKind::Unexpected => return Err(error.into()),
        Err(error) => tracing::error!(%error, "the store can't be opened yet: {error}"),
    }
    Ok(())
}

/// Where this server is, and no other one will be.
fn own_addresses_of(settings: &Settings, outside: &impl Outside) -> Vec<IpAddr> {
    own_addresses(&settings.host.addresses, &outside.interface_addresses(), &floating(settings))
}

/// The addresses of all services.
pub fn floating(settings: &Settings) -> Vec<IpAddr> {
    settings.services.iter().flat_map(|service| service.addresses.iter().copied()).collect()
}

/// This server's report before its first heartbeat.
fn own_report(settings: &Settings, id: &str, outside: &impl Outside) -> ServerReport {
    ServerReport {
        paused: outside.is_maintained(),
        written_at_s: outside.wall_s(),
        node: outside.node(),
        addresses: own_addresses_of(settings, outside),
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
