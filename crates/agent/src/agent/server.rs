//! The inside of an agent: a server, and the lock managers on it.
//!
//! [`Server::handle`] hands each message to the instance that it is for, and [`Server::do_what_is_due`] gives each its turn. The
//! server itself beats, answers for all of them, and makes them known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Result;
use heirlock_core::store::{Place, Store};
use heirlock_core::{Moment, ServiceName};
use heirlock_nsm::MonName;

use super::beat::Condition;
use super::common::{Beat, Common};
use super::health::Protection;
use super::instance::Instance;
use super::message::Message;
use super::outside::Outside;
use super::put_off::Later;
use super::status;
use super::tally::Tally;
use super::work::Work;
use crate::config::Settings;
use crate::control::report::observed::{Monitored, Observed};
use crate::control::report::{
    Ailment, AilmentKind, LockManagerStatus, Problem, ProblemKind, ServerStatus, ServiceStatus, Source,
    StatusReport, StoreStatus,
};
use crate::control::{Answer, Request, Responder};
use crate::limits;

/// All that the loop owns.
pub struct Server<O> {
    common: Common<O>,
    instance: Instance<O>,
    facts: Facts,
    protection: Protection,
    /// With which step the next turn begins: those before it were done in the last one.
    next_step: usize,
    /// How requests were answered.
    tally: Tally,
}

/// The facts that other servers compare with their own.
#[derive(Debug, Default)]
struct Facts {
    gathered_at: Option<Moment>,
    known: BTreeMap<String, String>,
    /// They are being gathered. While gathering hangs with a disk, it is not begun a second time.
    awaited: bool,
}

impl<O: Outside> Server<O> {
    /// One with this store, of which it has read nothing yet.
    ///
    /// # Errors
    /// Where the store isn't what it should be, or what is remembered of it can't be read.
    pub fn new(settings: Arc<Settings>, store: Box<dyn Store>, outside: O) -> Result<Self> {
        let common = Common::new(settings, store, outside)?;
        let (server, agent) = (common.server(), common.id());
        let (store, lock_manager) = (common.store().describe(), common.outside().lock_manager());
        tracing::info!(%server, agent, store, lock_manager, "the agent of {server} begins, on {store} and {lock_manager}");
        Ok(Self {
            common,
            instance: Instance::new(),
            facts: Facts::default(),
            protection: Protection::default(),
            next_step: 0,
            tally: Tally::default(),
        })
    }

    /// What its lock managers have in common.
    pub fn common(&self) -> &Common<O> {
        &self.common
    }

    /// The same, to change something there.
    pub(crate) fn common_mut(&mut self) -> &mut Common<O> {
        &mut self.common
    }

    /// Its lock manager.
    pub(crate) fn instance(&self) -> &Instance<O> {
        &self.instance
    }

    /// Its lock manager and the rest, for a step of that one.
    pub(crate) fn parts(&mut self) -> (&mut Instance<O>, &mut Common<O>) {
        (&mut self.instance, &mut self.common)
    }

    /// Takes up what an earlier run of the agent held and left unfinished, as the store knows it.
    pub fn take_up(&mut self) {
        let now = self.common.now();
        match self.common.meet_store() {
            Ok(()) => self.instance.refresh_holdings(&mut self.common, now),
            Err(error) => self.common.fails(now, &error),
        }
        self.instance.take_up(&mut self.common);
    }

    /// heirlock is the status monitor of this server from now on.
    pub fn monitors(&mut self, differing: Option<BTreeSet<MonName>>) {
        self.instance.monitors(&mut self.common, differing);
    }

    /// Takes in what callouts noted while no agent answered.
    pub fn take_in_spool(&mut self) {
        let now = self.common.now();
        self.instance.take_in_spool(&mut self.common, now);
    }

    /// Takes a message in, and does at once what follows from it.
    pub fn handle(&mut self, message: Message) {
        let now = self.common.now();
        let (instance, common) = (&mut self.instance, &mut self.common);
        match message {
            Message::Looked(looked) => instance.looked(common, now, *looked),
            Message::DirectoryRead(read) => instance.directory_read(common, *read),
            Message::DirectorySynced(synced) => instance.directory_synced(synced),
            Message::Observed(look) => instance.observed(common, *look),
            Message::GraceAsked(life, answer) => instance.grace_asked(&life, answer),
            Message::NlmPorts(ports) => instance.nlm_listens_at(ports),
            Message::Event(run, event) => instance.worked_for(common, run, event),
            Message::Fit(run, fit) => instance.looked_for_needs(common, run, fit),
            Message::HomeLookedFor(service, fit) => instance.home_looked_for(common, &service, fit),
            Message::Placed(run, done) => instance.placed(common, run, done),
            Message::PlacedTakenAway(done) => instance.placed_taken_away(common, now, done),
            Message::Recognised(run, done) => instance.recognised(common, run, *done),
            Message::Facts(known) => self.facts_gathered(now, known),
            Message::Resolved(name, found) => instance.resolved(common, now, &name, found),
            Message::AddressGone(service, gone) => instance.address_gone(common, now, &service, gone),
            Message::VolumeGone(service, gone) => instance.volume_gone(&service, &gone),
            Message::HookRan(hook, took, is_done) => common.counts_mut().hooks.of(hook).ended(took, is_done),
            Message::Request(request, responder) => self.requested(now, request, responder),
            Message::StoreAnswers => self.store_answers(now),
            Message::StoreChanged => common.beat_by(now + limits::STORE_CHANGED_AFTER),
            Message::Monitor(wanted) => instance.wanted(common, now, wanted),
            Message::Callout(said, answered) => instance.called_out(common, now, now, said, answered),
            // The hint is noted where the next look finds it; this only wakes the loop. Of a stop see `Server::stop`.
            Message::Changed | Message::Stop => {}
        }
    }

    /// When there is something to do without a message.
    pub fn next_due(&self) -> Moment {
        let due = self.instance.next_due(&self.common);
        let left = (self.next_step > 0).then_some(Moment::START);
        due.into_iter().chain(left).chain([self.common.beat_due()]).min().unwrap_or(Moment::START)
    }

    /// Does what time has brought about. To be called after every message, or after some that came together.
    ///
    /// On a slow store the steps of a turn together may take long. Once they have taken [`limits::TURN_TIME_MAX`], the turn ends:
    /// messages are taken in, and the next turn goes on with the step that is next in order, so that each gets its turn.
    pub fn do_what_is_due(&mut self) {
        let began = self.common.now();
        for at in std::mem::take(&mut self.next_step)..Self::FIRST_STEPS.len() + Instance::<O>::STEPS.len() {
            let now = self.common.now();
            // The first is done in any case.
            if now.since(began) >= limits::TURN_TIME_MAX {
                self.next_step = at;
                break;
            }
            match Self::FIRST_STEPS.get(at) {
                Some(step) => step(self, now),
                None => {
                    Instance::STEPS[at - Self::FIRST_STEPS.len()](&mut self.instance, &mut self.common, now);
                }
            }
        }
        self.instance.end_turn(&mut self.common);
        self.note_protection();
        self.tally.settle();
        self.publish();
    }

    /// The first steps of a turn; those of its lock manager follow.
    const FIRST_STEPS: [fn(&mut Self, Moment); 2] = [
        |server, now| server.instance.tend_capture(&mut server.common, now),
        |server, now| {
            if now >= server.common.beat_due() {
                server.common.beat_at(now + server.common.settings().heartbeat.interval);
                server.beat(now);
                server.instance.take_in_spool(&mut server.common, now);
            }
        },
    ];

    /// Says that this server lives, and takes in what the others say.
    pub fn beat(&mut self, now: Moment) {
        self.common.outside().say_suppressed_lines(false);
        let condition = Condition {
            written_at_s: self.common.wall_s(),
            incarnation: self.instance.lives().running().cloned(),
            state: self.instance.own_state(&self.common).map(|state| state.0),
            ailments: self.ailments(),
            facts: self.facts(now),
        };
        self.instance.say_messages_put_off(now);
        self.instance.say_progress_asked(&self.common, now);
        let of = self.instance.services_looked_at(&self.common);
        let (is_met, seen) = match self.common.beat(now, condition, &of) {
            Beat::Unwritten => return self.instance.doubt_holdings(),
            Beat::GivesWay => return,
            Beat::Written { met, seen } => (met, seen),
        };
        if !is_met {
            self.instance.doubt_holdings();
        }
        self.instance.look_for_fenced_owners(&self.common, now);
        if !is_met {
            return;
        }
        self.instance.refresh_by(&mut self.common, now, seen);
        self.look_for_all(now);
        // Only what was looked at is well.
        if self.instance.knows_its_holdings() && self.instance.is_caught_up_with() {
            self.common.health_mut().worked();
        }
        self.instance.follow_beat(&mut self.common, now);
    }

    /// Looks for all that this server holds where the store may have lost some of it.
    fn look_for_all(&mut self, now: Moment) {
        if !self.instance.knows_its_holdings() || !self.common.acquaintance().is_doubted() {
            return;
        }
        tracing::warn!(
            "the store doesn't show the last heartbeat of this server: all records are looked for"
        );
        if self.instance.complete_all(&mut self.common, now) {
            self.common.acquaintance_mut().was_looked_through();
        }
    }

    /// The store answers again: first what may have come about already is looked for, then the store itself is looked at, and
    /// then what others wait for is done.
    pub fn store_answers(&mut self, now: Moment) {
        self.instance.go_on(&mut self.common, now, Later::may_have_come_about);
        if !self.common.store().is_busy() {
            if !self.instance.is_caught_up_with() {
                self.instance.scan(&mut self.common, now);
            }
            // A call that ended late may have changed the services that this server holds.
            self.beat(now);
        }
        self.instance.go_on(&mut self.common, now, |_| true);
    }

    /// A request comes.
    fn requested(&mut self, now: Moment, request: Box<Request>, responder: Responder) {
        let responder = self.tally.counted(&request, responder);
        match *request {
            Request::Status => {
                tracing::debug!(?request, "asked");
                responder.done(Answer::Status(Box::new(self.status())));
            }
            Request::Maintenance { on } => {
                tracing::debug!(?request, "asked");
                self.maintain(on, responder);
            }
            _ => self.instance.requested(&mut self.common, now, request, responder),
        }
    }

    fn maintain(&mut self, on: bool, responder: Responder) {
        if let Err(why) = self.common.outside_mut().maintain(on) {
            return responder.failed(&why, true);
        }
        let changed = self.common.pulse().is_paused() != on;
        self.common.pulse_mut().pause(on);
        self.common.beat_at(self.common.now());
        let text = match on {
            true => "in maintenance: this server's silence is no reason to adopt its services",
            false => "out of maintenance: a silence of this server counts again",
        };
        responder.done(match changed {
            true => Answer::changed(None, text),
            false => Answer::unchanged(None, text),
        });
    }

    /// Why the agent must end now, if so. It can't go on.
    pub fn must_end(&mut self) -> Option<String> {
        self.common.must_end()
    }

    /// Stops in order: from now on this server's silence is no reason to adopt. A run that is on goes on at the next
    /// start.
    ///
    /// # Errors
    /// Where the others can't be told.
    pub fn stop(&mut self) -> Result<()> {
        tracing::info!("the agent stops");
        self.instance.stop(&mut self.common);
        self.common.outside().say_suppressed_lines(true);
        let now = self.common.now();
        self.instance.follow_all(&mut self.common, now);
        self.common.say_farewell()
    }

    /// They change with a configuration, hardly ever. They are gathered beside the loop, for programs are asked; until the
    /// first are there, none are told.
    pub fn facts(&mut self, now: Moment) -> BTreeMap<String, String> {
        let is_old = self.facts.gathered_at.is_none_or(|at| now.since(at) >= limits::FACTS_INTERVAL);
        if is_old && !self.facts.awaited {
            self.common.look_at_addresses();
            self.common.outside_mut().begin(Work::GatherFacts);
            self.facts.awaited = true;
        }
        self.facts.known.clone()
    }

    /// Whether they are being gathered, for a test.
    #[cfg(feature = "inside")]
    pub fn facts_are_awaited(&mut self) -> &mut bool {
        &mut self.facts.awaited
    }

    /// Since when every client that registers is on record, for a test.
    #[cfg(feature = "inside")]
    pub fn protection(&self) -> &Protection {
        &self.protection
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
            self.common.beat_at(now); // other servers compare it with their own
        }
        self.facts = Facts { gathered_at: Some(now), known, awaited: false };
    }

    /// Makes the status known.
    pub fn publish(&self) {
        if self.common.outside().shows_status() {
            self.common.outside().publish(self.status(), self.instance.capture().looked);
        }
    }

    /// How this server is, now.
    pub fn status(&self) -> StatusReport {
        let (now, common) = (self.common.now(), &self.common);
        let lives = self.instance.lives();
        StatusReport {
            server: common.server().to_string(),
            agent: common.id().to_owned(),
            version: env!("CARGO_PKG_VERSION").into(),
            configuration: common.fingerprint().to_owned(),
            loop_turned_ms_ago: Some(0),
            looked_ms_ago: self.instance.capture().looked.map(|at| status::millis(now.since(at))),
            source: Source::Agent,
            store: StoreStatus {
                place: common.store().place(Place::Store),
                well: common.store_error().is_none(),
                error: common.store_error().map(str::to_owned),
                unprotected_since_s: common.health().unprotected_since_s(),
            },
            lock_manager: LockManagerStatus {
                kind: common.settings().lock_manager.kind.as_str().into(),
                incarnation: lives.running().map(ToString::to_string),
                serving: lives.is_serving(),
                needed: self.instance.needs_a_lock_manager(),
            },
            protected_since_s: self.protection.since_s(),
            services: self.service_statuses(now),
            servers: self.server_statuses(now),
            maintenance: common.pulse().is_paused(),
            at_risk: status::clients_at_risk(&self.protection),
            problems: self.problems(),
            observed: Some(Box::new(self.counted())),
        }
    }

    /// The counts since this agent began.
    fn counted(&self) -> Observed {
        let mut observed = self.common.counts().clone();
        observed.requests = self.tally.requests();
        if let Some(standing) = self.instance.monitor_standing(&self.common) {
            observed.monitor = Monitored::new(&standing.refusals, standing.left_unanswered);
        }
        observed
    }

    fn server_statuses(&self, now: Moment) -> Vec<ServerStatus> {
        let pulse = self.common.pulse();
        let others = pulse.servers().iter().filter(|(name, _)| *name != self.common.server());
        let interval = self.common.settings().heartbeat.interval;
        others
            .map(|(name, report)| status::server_status(report, pulse.heart_of(name, now), interval))
            .collect()
    }

    fn service_statuses(&self, now: Moment) -> Vec<ServiceStatus> {
        let configured = self.common.settings().services.iter().map(|s| s.name.clone());
        let host = ServiceName::host(self.common.server());
        let statuses = configured.chain([host]);
        statuses.map(|service| self.instance.service_status(&self.common, now, &service)).collect()
    }

    /// The ailments of this server.
    fn own_ailments(&self) -> Vec<Ailment> {
        let ailment = |kind, error: &str| Ailment { kind, error: Some(error.to_owned()) };
        let blind = self.instance.capture().blind.as_deref();
        let blind = blind.map(|why| ailment(AilmentKind::MonitorDirectoryUnreadable, why));
        let store = self.common.store_error().map(|why| ailment(AilmentKind::StoreFails, why));
        let stopped = self.instance.lives().running().is_none() && self.instance.needs_a_lock_manager();
        let stopped = stopped.then_some(Ailment { kind: AilmentKind::NoLockManager, error: None });
        blind.into_iter().chain(store).chain(stopped).collect()
    }

    /// The same, as it tells the others.
    pub fn ailments(&self) -> Vec<String> {
        self.own_ailments().iter().map(Ailment::in_a_heartbeat).collect()
    }

    /// The problems of this server.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.own_ailments().iter().map(status::problem_of).collect();
        problems.extend(self.instance.problems_of_work(&self.common));
        let acquaintance = self.common.acquaintance().problem();
        problems.extend(acquaintance.map(|why| Problem::new(ProblemKind::Other).saying(&why)));
        let heart = |why: String| Problem::new(ProblemKind::Other).saying(&why);
        problems.extend(status::some_of(self.common.pulse().unreadable(), heart, |more| {
            Problem::new(ProblemKind::Other).saying(&format!("{more} more heartbeats can't be read"))
        }));
        problems.extend(self.instance.problems_of_records(&self.common));
        problems
    }

    /// Notes since when every client that registers is on record, and which are not.
    pub fn note_protection(&mut self) {
        let standing = self.instance.monitor_standing(&self.common);
        let at_risk: Vec<MonName> = standing.as_ref().map(|s| s.at_risk.clone()).unwrap_or_default();
        let is_protected = self.common.store_error().is_none()
            && self.instance.captures_all()
            && at_risk.is_empty()
            && standing.is_none_or(|standing| !standing.failing);
        let (now, now_s) = (self.common.now(), self.common.wall_s());
        self.common.health_mut().note(now, now_s);
        self.protection.note(now_s, is_protected, at_risk);
    }
}
