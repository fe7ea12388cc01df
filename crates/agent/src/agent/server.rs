//! The inside of an agent: a server, and the lock managers on it.
//!
//! [`Server::handle`] hands each message to the instance that it is for, and [`Server::do_what_is_due`] gives each its turn. The
//! server itself beats, answers for all of them, and makes them known.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Result, ensure};
use heirlock_core::planted::{Bug, planted};
use heirlock_core::store::{Asked, Place, Store};
use heirlock_core::{LockManagerName, Moment, ServiceName};
use heirlock_nsm::MonName;

use super::beat::Condition;
use super::common::{Beat, Common};
use super::health::Protection;
use super::instance::Instance;
use super::message::{Message, News};
use super::outside::{InstanceOutside, Outside};
use super::put_off::Later;
use super::status;
use super::tally::Tally;
use crate::config::{InstanceNumber, Settings};
use crate::control::report::observed::Observed;
use crate::control::report::{
    Ailment, AilmentKind, NamedLockManager, Problem, ProblemKind, ServerStatus, ServiceStatus, Source,
    StatusReport, StoreStatus,
};
use crate::control::{Answer, Request, Responder};
use crate::limits;

/// All that the loop owns.
pub struct Server<O: Outside> {
    common: Common<O>,
    /// Its lock managers, of which there is one at least.
    instances: Vec<Instance<O>>,
    protection: Protection,
    /// With which step the next turn begins: those before it were done in the last one.
    next_step: usize,
    /// How requests were answered.
    tally: Tally,
}

/// One step of a turn.
enum Step<O: Outside> {
    /// The server does it.
    OfServer(fn(&mut Server<O>, Moment)),
    /// Each of its lock managers does it, one after the other.
    OfEach(fn(&mut Instance<O>, &mut Common<O>, Moment)),
}

impl<O: Outside> Server<O> {
    /// One with this store, of which it has read nothing yet, and with these lock managers, in the order of the configuration.
    ///
    /// # Errors
    /// Where the store isn't what it should be, what is remembered of it can't be read, or a lock manager is missing.
    pub fn new(
        settings: Arc<Settings>,
        store: Box<dyn Store>,
        outside: O,
        lock_managers: Vec<O::Instance>,
    ) -> Result<Self> {
        let configured = settings.instances();
        let (wanted, found) = (configured.len(), lock_managers.len());
        ensure!(wanted == found, "the configuration has {wanted} lock managers, and {found} can be reached");
        let names: BTreeSet<&LockManagerName> = configured.iter().map(|instance| &instance.name).collect();
        ensure!(
            names.len() == wanted,
            "the configuration has {wanted} lock managers of {} names: give each its own",
            names.len()
        );
        let node = lock_managers.first().and_then(InstanceOutside::node);
        let common = Common::new(settings, store, outside, node)?;
        let lock_manager: Vec<String> = lock_managers.iter().map(InstanceOutside::lock_manager).collect();
        let (server, agent) = (common.server(), common.id());
        let (store, lock_manager) = (common.store().describe(), lock_manager.join(", "));
        tracing::info!(%server, agent, store, lock_manager, "the agent of {server} begins, on {store} and {lock_manager}");
        let instances = configured.into_iter().zip(lock_managers).enumerate();
        let instances = instances.map(|(place, (settings, outside))| {
            Instance::new(&common, InstanceNumber::at(place), settings, outside)
        });
        let instances = instances.collect();
        Ok(Self {
            common,
            instances,
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

    /// Its lock managers.
    pub(crate) fn instances(&self) -> &[Instance<O>] {
        &self.instances
    }

    /// The same, to change something of each.
    pub(crate) fn instances_mut(&mut self) -> &mut [Instance<O>] {
        &mut self.instances
    }

    /// The lock manager of this number, and what it has in common with the others.
    pub(crate) fn parts(&mut self, number: InstanceNumber) -> Option<(&mut Instance<O>, &mut Common<O>)> {
        let count = self.instances.len();
        let instance = self.instances.get_mut(number.place());
        if instance.is_none() {
            let place = number.place();
            tracing::error!(
                place,
                count,
                "a message is for the lock manager at place {place}, counted from 0, and this server has {count}: the message is left alone"
            );
        }
        Some((instance?, &mut self.common))
    }

    /// The lock manager that serves a service.
    pub(crate) fn instance_of(&self, service: &ServiceName) -> Option<&Instance<O>> {
        self.instances.get(self.common.settings().instance_of(service).place())
    }

    /// Has each lock manager do something.
    fn each(&mut self, mut does: impl FnMut(&mut Instance<O>, &mut Common<O>)) {
        for instance in &mut self.instances {
            does(instance, &mut self.common);
        }
    }

    /// Takes up what an earlier run of the agent held and left unfinished, as the store knows it.
    pub fn take_up(&mut self) {
        let now = self.common.now();
        match self.common.meet_store() {
            Ok(()) => self.each(|instance, common| instance.refresh_holdings(common, now)),
            Err(error) => self.common.fails(now, &error),
        }
        self.each(Instance::take_up);
    }

    /// heirlock is the status monitor of this lock manager from now on.
    pub fn monitors(&mut self, number: InstanceNumber, differing: Option<BTreeSet<MonName>>) {
        if let Some((instance, common)) = self.parts(number) {
            instance.monitors(common, differing);
        }
    }

    /// Takes in what callouts noted while no agent answered.
    pub fn take_in_spool(&mut self) {
        let now = self.common.now();
        self.each(|instance, common| instance.take_in_spool(common, now));
    }

    /// Takes a message in, and does at once what follows from it.
    pub fn handle(&mut self, message: Message) {
        let now = self.common.now();
        match message {
            Message::Of(number, news) => {
                let number = self.taken_for_the_one_of(number, now, &news);
                if let Some((instance, common)) = self.parts(number) {
                    instance.hear(common, now, news);
                }
            }
            Message::Request(request, responder) => self.requested(now, request, responder),
            Message::StoreAnswers => self.store_answers(now),
            Message::StoreChanged => self.common.beat_by(now + limits::STORE_CHANGED_AFTER),
            // See `Server::stop`.
            Message::Stop => {}
        }
    }

    /// The lock manager that a message is taken to be from, which is another one where such a bug is planted.
    fn taken_for_the_one_of(&mut self, number: InstanceNumber, now: Moment, news: &News) -> InstanceNumber {
        let is_taken_wrong = match news {
            News::Looked(_) => planted(Bug::DirectoryOfAnother),
            News::Observed(_) => planted(Bug::LifeOfAnother),
            News::Monitor(_) | News::Callout(..) => planted(Bug::RegisteredWithAnother),
            _ => false,
        };
        if is_taken_wrong {
            return InstanceNumber::at((number.place() + 1) % self.instances.len());
        }
        if planted(Bug::RecognisedByAll)
            && let News::Recognised(run, done) = news
        {
            let others = (0..self.instances.len()).map(InstanceNumber::at).filter(|other| *other != number);
            for other in others.collect::<Vec<_>>() {
                if let Some((instance, common)) = self.parts(other) {
                    instance.hear(common, now, News::Recognised(*run, done.clone()));
                }
            }
        }
        number
    }

    /// When there is something to do without a message.
    pub fn next_due(&self) -> Moment {
        let due = self.instances.iter().filter_map(|instance| instance.next_due(&self.common));
        let left = (self.next_step > 0).then_some(Moment::START);
        due.chain(left).chain([self.common.beat_due()]).min().unwrap_or(Moment::START)
    }

    /// Does what time has brought about. To be called after every message, or after some that came together.
    ///
    /// On a slow store the steps of a turn together may take long. Once they have taken [`limits::TURN_TIME_MAX`], the turn ends:
    /// messages are taken in, and the next turn goes on with the step that is next in order, so that each gets its turn.
    pub fn do_what_is_due(&mut self) {
        let began = self.common.now();
        for (at, step) in Self::STEPS.into_iter().enumerate().skip(std::mem::take(&mut self.next_step)) {
            let now = self.common.now();
            // The first is done in any case.
            if now.since(began) >= limits::TURN_TIME_MAX {
                self.next_step = at;
                break;
            }
            match step {
                Step::OfServer(step) => step(self, now),
                Step::OfEach(step) => self.each(|instance, common| step(instance, common, now)),
            }
        }
        self.each(|instance, common| instance.end_turn(common));
        self.note_protection();
        self.tally.settle();
        self.publish();
    }

    /// The steps of a turn, in order: each may ask the store for something.
    const STEPS: [Step<O>; 8] = [
        Step::OfEach(Instance::tend_capture),
        Step::OfServer(Self::beat_if_due),
        Step::OfEach(Instance::end_what_hangs),
        Step::OfEach(Instance::tick_asked_run),
        Step::OfEach(Instance::tick_own_run),
        Step::OfEach(Instance::go_on_sharing),
        Step::OfEach(|instance, _, now| instance.follow_when_quiet(now)),
        Step::OfEach(Instance::recover_once_looked),
    ];

    fn beat_if_due(&mut self, now: Moment) {
        if now >= self.common.beat_due() {
            self.common.beat_at(now + self.common.settings().heartbeat.interval);
            self.beat(now);
            self.each(|instance, common| instance.take_in_spool(common, now));
        }
    }

    /// Says that this server lives, and takes in what the others say.
    pub fn beat(&mut self, now: Moment) {
        self.common.outside().say_suppressed_lines(false);
        let condition = self.condition(now);
        self.each(|instance, common| {
            instance.say_messages_put_off(now);
            instance.say_progress_asked(common, now);
        });
        let of = self.instances.iter().flat_map(|instance| instance.looks_at(&self.common));
        let of: Vec<Asked> = of.collect();
        let beat = self.common.beat(now, condition, &of);
        if matches!(beat, Beat::Unwritten | Beat::Written { met: false, .. }) {
            self.instances.iter_mut().for_each(Instance::doubt_holdings);
        }
        let Beat::Written { met, seen } = beat else { return };
        self.each(|instance, common| instance.look_for_fenced_owners(common, now));
        if !met {
            return;
        }
        self.each(|instance, common| instance.refresh_by(common, now, seen.as_deref()));
        self.look_for_all(now);
        // Only what was looked at is well.
        if self.knows_its_holdings() && self.instances.iter().all(Instance::is_caught_up_with) {
            self.common.health_mut().worked();
        }
        self.each(|instance, common| instance.follow_beat(common, now));
    }

    /// The part of a heartbeat that speaks of this server, and of each of its lock managers.
    fn condition(&mut self, now: Moment) -> Condition {
        let (written_at_s, ailments) = (self.common.wall_s(), self.ailments());
        let mut condition = Condition { written_at_s, ailments, ..Condition::default() };
        let state_of = |instance: &Instance<O>| instance.own_state().map(|state| state.0);
        let Some((first, further)) = self.instances.split_first_mut() else { return condition };
        condition.state = state_of(first);
        condition.incarnation = first.lives().running().cloned();
        condition.facts = first.facts(&mut self.common, now);
        for other in further {
            condition.further_states.extend(state_of(other));
            condition.further_lock_managers.push(other.in_a_heartbeat(&mut self.common, now));
        }
        condition
    }

    /// The last look into the store showed all that is this server's.
    pub(crate) fn knows_its_holdings(&self) -> bool {
        self.instances.iter().all(Instance::knows_its_holdings)
    }

    /// Looks for all that this server holds where the store may have lost some of it.
    fn look_for_all(&mut self, now: Moment) {
        if !self.knows_its_holdings() || !self.common.acquaintance().is_doubted() {
            return;
        }
        tracing::warn!(
            "the store doesn't show the last heartbeat of this server: all records are looked for"
        );
        let common = &mut self.common;
        if self.instances.iter_mut().all(|instance| instance.complete_all(common, now)) {
            self.common.acquaintance_mut().was_looked_through();
        }
    }

    /// The store answers again: first what may have come about already is looked for, then the store itself is looked at, and
    /// then what others wait for is done.
    pub fn store_answers(&mut self, now: Moment) {
        self.each(|instance, common| instance.go_on(common, now, Later::may_have_come_about));
        if !self.common.store().is_busy() {
            self.each(|instance, common| {
                if !instance.is_caught_up_with() {
                    instance.scan(common, now);
                }
            });
            // A call that ended late may have changed the services that this server holds.
            self.beat(now);
        }
        self.each(|instance, common| instance.go_on(common, now, |_| true));
    }

    /// A request comes.
    fn requested(&mut self, now: Moment, request: Box<Request>, responder: Responder) {
        let responder = self.tally.counted(&request, responder);
        let service = match &*request {
            Request::Status => {
                tracing::debug!(?request, "asked");
                return responder.done(Answer::Status(Box::new(self.status())));
            }
            Request::Maintenance { on } => {
                tracing::debug!(?request, "asked");
                return self.maintain(*on, responder);
            }
            Request::Past | Request::Drill { .. } => {
                let why = "expected the server to answer by itself, found that it handed the request on to its agent";
                return responder.failed(why, true);
            }
            Request::Adopt { service, .. }
            | Request::Release { service }
            | Request::Failback { service, .. }
            | Request::Move { service, .. }
            | Request::Forget { service, .. }
            | Request::Report { service } => service,
        };
        let number = match planted(Bug::AskFirst) {
            true => InstanceNumber::FIRST,
            false => self.common.settings().instance_of(service),
        };
        if let Some((instance, common)) = self.parts(number) {
            instance.requested(common, now, request, responder);
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
        self.each(Instance::stop);
        self.common.outside().say_suppressed_lines(true);
        let now = self.common.now();
        self.each(|instance, common| instance.follow_all(common, now));
        self.common.say_farewell()
    }

    /// Since when every client that registers is on record, for a test.
    #[cfg(feature = "inside")]
    pub fn protection(&self) -> &Protection {
        &self.protection
    }

    /// Makes the status known.
    pub fn publish(&self) {
        if self.common.outside().shows_status() {
            self.common.outside().publish(self.status(), self.last_looked());
        }
    }

    /// When the last look at each of its status monitors' directories began that is over.
    fn last_looked(&self) -> Option<Moment> {
        let looked = self.instances.iter().map(|instance| instance.capture().looked());
        looked.min().flatten()
    }

    /// How this server is, now.
    pub fn status(&self) -> StatusReport {
        let (now, common) = (self.common.now(), &self.common);
        StatusReport {
            server: common.server().to_string(),
            agent: common.id().to_owned(),
            version: env!("CARGO_PKG_VERSION").into(),
            configuration: common.fingerprint().to_owned(),
            loop_turned_ms_ago: Some(0),
            looked_ms_ago: self.last_looked().map(|at| status::millis(now.since(at))),
            source: Source::Agent,
            store: StoreStatus {
                place: common.store().place(Place::Store),
                well: common.store_error().is_none(),
                error: common.store_error().map(str::to_owned),
                unprotected_since_s: common.health().unprotected_since_s(),
            },
            lock_manager: self.instances.first().map(Instance::lock_manager_status).unwrap_or_default(),
            lock_managers: self.named_lock_managers(now),
            protected_since_s: self.protection.since_s(),
            services: self.service_statuses(now),
            servers: self.server_statuses(now),
            maintenance: common.pulse().is_paused(),
            at_risk: status::clients_at_risk(&self.protection),
            problems: self.problems(),
            // The server that makes the status known adds them.
            drills: Vec::new(),
            observed: Some(Box::new(self.counted())),
        }
    }

    /// How each of its lock managers is, where there are several.
    fn named_lock_managers(&self, now: Moment) -> Vec<NamedLockManager> {
        let named = self.instances.iter().map(|instance| instance.named_status(&self.common, now));
        named.filter(|_| self.has_several()).collect()
    }

    /// Whether it has more than one lock manager. Of one alone nothing is named.
    fn has_several(&self) -> bool {
        self.instances.len() > 1
    }

    /// The counts since this agent began.
    fn counted(&self) -> Observed {
        let mut observed = self.common.counts().clone();
        observed.requests = self.tally.requests();
        for standing in self.instances.iter().filter_map(Instance::monitor_standing) {
            observed.monitor.add(&standing.refusals, standing.left_unanswered);
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
        let services = configured.chain([self.common.own_service().clone()]);
        let of = |service: ServiceName| {
            Some(self.instance_of(&service)?.service_status(&self.common, now, &service))
        };
        services.filter_map(of).collect()
    }

    /// The ailments of this server, each with the lock manager that it concerns, where there are several.
    fn own_ailments(&self) -> Vec<(Option<&LockManagerName>, Ailment)> {
        let ailment = |kind, error: &str| Ailment { kind, error: Some(error.to_owned()) };
        let blind = self.instances.iter().filter_map(|instance| {
            let why = instance.capture().blind()?;
            Some((self.named(instance), ailment(AilmentKind::MonitorDirectoryUnreadable, why)))
        });
        let store = self.common.store_error().map(|why| (None, ailment(AilmentKind::StoreFails, why)));
        let stopped = self.instances.iter().filter(|instance| instance.lacks_its_lock_manager());
        let stopped = stopped.map(|instance| {
            (self.named(instance), Ailment { kind: AilmentKind::NoLockManager, error: None })
        });
        blind.chain(store).chain(stopped).collect()
    }

    /// The name of a lock manager, where there are several.
    fn named<'a>(&self, instance: &'a Instance<O>) -> Option<&'a LockManagerName> {
        Some(instance.name()).filter(|_| self.has_several())
    }

    /// The ailments, as it tells the others.
    pub fn ailments(&self) -> Vec<String> {
        let ailments = self.own_ailments().into_iter();
        ailments.map(|(of, ailment)| ailment.of_lock_manager(of).in_a_heartbeat()).collect()
    }

    /// The problems of this server.
    pub fn problems(&self) -> Vec<Problem> {
        let ailments = self.own_ailments().into_iter();
        let ailments = ailments.map(|(of, ailment)| status::problem_of(&ailment).of_lock_manager(of));
        let mut problems: Vec<Problem> = ailments.collect();
        let each = || self.instances.iter().map(|instance| (self.named(instance), instance));
        let named = |(of, problem): (Option<&LockManagerName>, Problem)| problem.of_lock_manager(of);
        let of_work = each().flat_map(|(of, it)| it.problems_of_work().into_iter().map(move |p| (of, p)));
        problems.extend(of_work.map(named));
        problems.extend(status::hearts_unwatched(self.common.pulse(), self.common.now()));
        let acquaintance = self.common.acquaintance().problem();
        problems.extend(acquaintance.map(|why| Problem::new(ProblemKind::Other).saying(&why)));
        let heart = |why: String| Problem::new(ProblemKind::Other).saying(&why);
        problems.extend(status::some_of(self.common.pulse().unreadable(), heart, |more| {
            Problem::new(ProblemKind::Other).saying(&format!("{more} more heartbeats can't be read"))
        }));
        let of_records = |(of, it): (_, &Instance<O>)| {
            it.problems_of_records(&self.common).into_iter().map(move |problem| (of, problem))
        };
        problems.extend(each().flat_map(of_records).map(named));
        problems
    }

    /// Notes since when every client that registers is on record, and which are not.
    pub fn note_protection(&mut self) {
        let standings = self.instances.iter().filter_map(Instance::monitor_standing);
        let (mut at_risk, mut is_failing) = (Vec::new(), false);
        for standing in standings {
            at_risk.extend(standing.at_risk);
            is_failing |= standing.failing;
        }
        let is_protected = self.common.store_error().is_none()
            && self.instances.iter().all(|instance| instance.captures_all(&self.common))
            && at_risk.is_empty()
            && !is_failing;
        let (now, now_s) = (self.common.now(), self.common.wall_s());
        self.common.health_mut().note(now, now_s);
        self.protection.note(now_s, is_protected, at_risk);
    }
}
