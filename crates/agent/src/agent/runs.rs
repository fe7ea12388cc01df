//! Runs: beginning, resuming and driving an adoption from the agent's loop.
//!
//! The machine in `heirlock-core` decides; here its batches are carried out. Changes that must be durable are written
//! in order and tried again until the store takes them, and only then the work after them is begun.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use heirlock_core::claim::Claim;
use heirlock_core::lives::Recognised;
use heirlock_core::store::{Change, Commit, StoreError};
use heirlock_core::takeover::{
    Action, Cause, End, Event, Found, Means, Milestone, Notice, Order, Part, Persist, Phase, Plan, Queue,
    Recognition, Registrations, Remains, Strategy, Takeover, Todo, Until, tells_peers,
};
use heirlock_core::{Batch, Generation, Moment, ServerName, ServiceName};
use heirlock_nsm::{MonName, MyName};

use super::Inside;
use super::claims::Attempts;
use super::holdings::{Committing, begin};
use super::outside::Outside;
use super::work::{Fit, RunNumber, RunWork, Telling};
use crate::config::{LockManagerSettings, Settings};
use crate::control::{Answer, AnswerWhen, Missing, Progress, Responder};
use crate::survey;

/// The run that is on.
pub struct Running {
    pub machine: Takeover,
    pub number: RunNumber,
    todo: Queue,
    /// The callers that wait for it.
    pub waiting: Vec<Waiting>,
    /// Registrations before the lock manager recognised: a client that differs from it has come back.
    pub(crate) before: Option<Registrations>,
    /// The services that it has tried to claim; see [`Inside::claim_all`].
    pub(crate) attempts: Attempts,
    /// The store's own error when its claim was put off.
    pub(crate) claim_waits_for: Option<String>,
    /// It goes on without what it needs (`--force`, or it was accepted before).
    pub(crate) insists: bool,
    /// It goes on until clients are told, so it waits for addresses that nothing here brings.
    pub(crate) waits_for_addresses: bool,
    /// Since when the heartbeat of an owner that was said to be off is looked at.
    owner_watched: Option<Moment>,
    /// It went on.
    is_owner_alive: bool,
    /// Its unmet needs: why it is refused.
    missing: Vec<Missing>,
    /// The sentences that the waiting callers are told besides.
    pub told: Vec<String>,
    /// The notice to clients that are to be told once they are durable in every service.
    pub untold: Option<Untold>,
    /// Another life of the lock manager had begun, and this run had to do what follows from it.
    pub(crate) reborn: bool,
    /// The last phase that the callers were told of.
    pub(crate) said: Option<Phase>,
    /// Since when it has been in that phase.
    pub(crate) in_phase_since: Moment,
    /// When they were last told how many have answered.
    said_at: Moment,
}

/// The notice to clients that are to be told.
pub struct Untold {
    pub(crate) notices: Vec<Notice>,
    /// When they are told, come what may.
    pub until: Moment,
}

/// The order for a new run, and the callers that wait for it.
pub struct Commission {
    pub(crate) order: Order,
    pub(crate) waiting: Vec<Waiting>,
    /// It goes on without what it needs.
    pub(crate) insists: bool,
    /// The events that led to it, for its timeline.
    pub(crate) before: Vec<(Milestone, Moment)>,
}

impl Commission {
    /// No caller waits for it. It was accepted before, or no caller asks for it: so it goes on also where its needs are not met.
    pub fn unasked(order: Order) -> Self {
        Self { order, waiting: Vec::new(), insists: true, before: Vec::new() }
    }
}

/// A caller that waits for a run.
#[derive(Debug)]
pub struct Waiting {
    pub responder: Responder,
    pub until: AnswerWhen,
}

impl Waiting {
    /// Whether the run has come as far as this one waits for. The end of a run ends every wait.
    pub(crate) fn is_over(&self, machine: &Takeover) -> bool {
        match self.until {
            AnswerWhen::Accepted => machine.has_claimed(),
            // The answer names the records that could not be placed.
            AnswerWhen::Notified => machine.has_tried_all() && !machine.is_placing(),
            AnswerWhen::Settled => false,
        }
    }
}

impl Running {
    fn new(machine: Takeover, number: RunNumber, waiting: Vec<Waiting>) -> Self {
        Self {
            machine,
            owner_watched: None,
            is_owner_alive: false,
            number,
            todo: Queue::default(),
            waiting,
            before: None,
            attempts: Attempts::new(),
            claim_waits_for: None,
            insists: false,
            waits_for_addresses: false,
            missing: Vec::new(),
            told: Vec::new(),
            untold: None,
            reborn: false,
            said: None,
            in_phase_since: Moment::START,
            said_at: Moment::START,
        }
    }

    /// See [`Queue::spare`].
    pub(crate) fn spare(&mut self, present: &BTreeMap<MonName, Vec<u8>>) {
        self.todo.spare(present);
    }

    /// See [`Queue::begins`].
    pub(crate) fn begins(&self, service: &ServiceName) -> bool {
        self.todo.begins(service)
    }

    /// Tells the callers how far it is.
    pub(crate) fn say_progress(&mut self, now: Moment, settings: &Settings) {
        if !self.waiting.is_empty() {
            let told = self.told.clone();
            let store = self.todo.waits_for_store().or(self.claim_waits_for.as_deref());
            let of_run = super::status::progress(now, &self.machine, settings, store);
            let progress = Progress { told, ..of_run };
            self.waiting.retain_mut(|waiting| waiting.responder.progress(&progress));
        }
    }

    /// Says that the owner which was said to be off has been seen to live since. A fence that works ends its heartbeat
    /// first, so this is a slip, or a fence that failed.
    fn say_owner_is_alive(&mut self, now: Moment, owner: &ServerName, settings: &Settings) {
        let targets = super::status::names(self.machine.targets());
        let said = format!(
            "{owner} was said to be off, and its heartbeat goes on: as long as it serves {targets}, both servers grant the same locks; \
             make sure that it is off"
        );
        tracing::error!(%owner, "{targets}: both servers grant the same locks as long as {owner} serves it, which was said to be off and whose heartbeat goes on: make sure that it is off");
        self.is_owner_alive = true;
        self.told.push(said);
        self.say_progress(now, settings);
    }

    /// When the loop must look after it again.
    pub fn due(&self) -> Option<Moment> {
        self.todo.due().into_iter().chain(self.machine.next_timeout()).min()
    }
}

impl<O: Outside> Inside<O> {
    /// Begins a run: a self-adoption where none is on, or one that is asked for where none is that was.
    pub fn begin_run(&mut self, now: Moment, commission: Commission) {
        let Commission { order, waiting, insists, before } = commission;
        let (is_own_restart, until) = (order.is_own_restart(), order.until);
        let (run, server) = (format!("{:016x}", self.outside.random()), self.settings.server.clone());
        let plan = order.plan(run, server, self.standing(), self.means(), self.outside.wall_s());
        tracing::info!(run = %plan.run, cause = ?plan.cause, targets = ?plan.targets, own = ?plan.standing.own, "{}", beginning(&plan));
        let mut running = Running::new(Takeover::new(now, plan), self.next_run(), waiting);
        running.reborn = self.lives.is_reborn();
        running.insists = insists;
        running.waits_for_addresses = until == Until::Settled;
        for (milestone, at) in before {
            running.machine.came_before(now, milestone, at);
        }
        if is_own_restart {
            self.settle_capture(now);
            let found = &self.capture.found.clients;
            running.before = Some(Registrations::of(running.machine.run(), found));
            self.run = Some(running);
            self.advance(Event::Start);
        } else {
            self.asked = Some(running);
            self.advance_asked(Event::Start);
        }
    }

    fn next_run(&mut self) -> RunNumber {
        self.last_run = self.last_run.next();
        self.last_run
    }

    /// How this server recognises.
    pub(crate) fn means(&self) -> Means {
        let LockManagerSettings { strategy, convey, settle_margin: margin, .. } = self.settings.lock_manager;
        Means { strategy, convey, margin, limits: self.time_limits }
    }

    /// Goes on with what an earlier run of this agent left unfinished in the same life of the lock manager. `false` where
    /// that can't be: then a new run is begun.
    pub(crate) fn resume_run(&mut self, now: Moment, run: &str) -> bool {
        let remains = match self.remains_of(run) {
            Ok(remains) => remains,
            Err(error) => {
                // Once the store works again it is asked for another time.
                self.health.failed(now, &error.to_string());
                return true;
            }
        };
        self.settle_capture(now);
        let found = &self.capture.found.clients;
        let noted = self.outside.registrations(run);
        let before = noted.unwrap_or_else(|| Registrations::of(run, found));
        let found = Found { came: before.came(found), remains, held: self.held.keys().cloned().collect() };
        let Means { margin, limits, .. } = self.means();
        let Some(mut machine) = Takeover::resume(now, margin, limits, found) else { return false };
        machine.begins(now, &Action::Recognise(Strategy::Notify));
        tracing::info!(run, phase = %machine.phase(), "{}: the run {run} was interrupted and goes on, from phase {}", super::status::names(machine.targets()), machine.phase());
        let number = self.next_run();
        let mut running = Running::new(machine, number, Vec::new());
        running.before = Some(before);
        self.run = Some(running);
        let (strategy, grace_seen) = (Strategy::Notify, self.lives.grace_seen());
        let work = RunWork::Recognise { strategy, targets: Vec::new(), grace_seen, owes: false };
        self.outside.begin_for(number, work);
        true
    }

    fn remains_of(&mut self, run: &str) -> Result<Vec<Remains>, StoreError> {
        let roles = self.outside.roles(&self.nlm_ports, false);
        let members = self.held.iter().filter(|(_, held)| held.journal.run == run);
        members
            .map(|(service, held)| {
                let mut remains = held.remains(service);
                // As in `notify`: nothing is missed where they were not told.
                if !tells_peers(service, held.journal.has_rebooted()) {
                    remains.clients.retain(|client| !roles.is_peer(client));
                }
                remains.begun_with = self.known_before(service, held.claim.generation)?;
                Ok(remains)
            })
            .collect()
    }

    /// The clients that the generation before this one knew.
    fn known_before(
        &self,
        service: &ServiceName,
        generation: Generation,
    ) -> Result<Option<BTreeSet<MonName>>, StoreError> {
        let Some(before) = generation.before() else { return Ok(None) };
        let Some(before) = self.store.newest_generation(service, before)? else { return Ok(None) };
        let contents = self.store.load(service, before)?;
        Ok(Some(contents.records.into_keys().collect()))
    }

    /// Tells the run what has happened, now, and carries out what it asks for.
    pub(crate) fn advance(&mut self, event: Event) {
        let unclaimed = self.run.as_ref().is_some_and(|running| running.machine.is_unclaimed());
        let standing = unclaimed.then(|| self.standing());
        let Some(running) = &mut self.run else { return };
        if let Some(standing) = standing {
            running.machine.stands(standing);
        }
        let batch = running.machine.step(self.outside.now(), event);
        self.carry_on(batch);
    }

    /// Adds this batch behind the work that was to be done before.
    pub(crate) fn carry_on(&mut self, batch: Batch<Persist, Action>) {
        let Some(running) = &mut self.run else { return };
        running.todo.extend(batch);
        self.carry_out();
    }

    /// The needs of an adoption were looked for.
    pub(crate) fn looked_for_needs(&mut self, run: RunNumber, looked: Fit) {
        let Fit { missing, said } = looked;
        let (now, settings) = (self.outside.now(), Arc::clone(&self.settings));
        let Some(running) = self.running(run) else { return };
        let fit = if missing.is_empty() {
            Ok(())
        } else {
            let targets = super::status::names(running.machine.targets());
            Err(unfit(&targets, &missing, running.insists))
        };
        running.missing = missing;
        if fit.is_ok() {
            said.iter().for_each(|said| tracing::warn!("{said}"));
            running.told = said;
            running.say_progress(now, &settings);
        }
        self.worked_for(run, Event::Fit(fit));
    }

    /// Work is done, for the run that is on or for one before it, whose threads outlived it.
    pub fn worked_for(&mut self, run: RunNumber, event: Event) {
        if self.is_on(run) {
            self.counts.notices.heard(&event);
            self.advance(event);
        } else if self.asked.as_ref().is_some_and(|asked| asked.number == run) {
            self.advance_asked(event);
        } else {
            tracing::debug!(?event, "it comes too late for the run that asked for it");
        }
    }

    fn is_on(&self, run: RunNumber) -> bool {
        self.run.as_ref().is_some_and(|running| running.number == run)
    }

    /// The lock manager was made to recognise; the follower of its lives says which life it lives now. Where that comes
    /// too late for the run that asked for it, its locks are gone all the same: a life that began as any other does.
    pub(crate) fn recognised(&mut self, run: RunNumber, done: Result<Recognised, String>) {
        // A run that is resumed recognised in an earlier life of the agent, and asks only whether that life goes on.
        let awaits = |running: &Running| running.number == run && running.machine.awaits_recognition();
        let awaited = self.run.as_ref().is_some_and(awaits);
        let recognition = done.and_then(|done| {
            let (begun, recognition) = self.lives.recognised(&done, awaited);
            if let Some(begun) = begun {
                self.life_began(&begun);
            }
            // Before the run is said to have got here: the agent that goes on with it has to count this grace period.
            if let Ok(Recognition { life, grace_opened, .. }) = &recognition {
                self.grace_note.opened(life, *grace_opened, &mut self.outside);
            }
            recognition
        });
        if let Some(running) = self.run.as_mut().filter(|running| running.number == run) {
            for (service, held) in &self.held {
                running.machine.captured(service, held.ledger.stored().keys());
            }
        }
        self.forget_who_came();
        if self.is_on(run) && recognition.is_ok() {
            self.share_adopted();
        }
        self.worked_for(run, Event::Recognised(recognition));
    }

    /// Looks whether an owner that was said to be off lives, after a look at all heartbeats. A heartbeat that the first look
    /// shows may have been written before the owner was switched off.
    pub(crate) fn look_for_fenced_owners(&mut self, now: Moment) {
        let Self { asked, run, pulse, settings, .. } = self;
        for running in asked.iter_mut().chain(run).filter(|running| !running.is_owner_alive) {
            let Some(owner) = running.machine.fenced().cloned() else { continue };
            if pulse.lived_after(&owner, *running.owner_watched.get_or_insert(now)) {
                running.say_owner_is_alive(now, &owner, settings);
            }
        }
    }

    /// Time passed for the run that was asked for.
    pub fn tick_asked(&mut self, now: Moment) {
        if self.asked.as_ref().is_some_and(|asked| asked.machine.is_due(now)) {
            self.advance_asked(Event::Tick { present: BTreeSet::new(), looked_at: None });
        }
    }

    /// Time passed.
    pub fn tick_run(&mut self, now: Moment) {
        let Some(running) = &mut self.run else { return };
        if running.todo.tries_again(now) {
            self.carry_out();
        }
        if let Some(running) =
            self.run.as_mut().filter(|r| now.since(r.said_at) >= crate::limits::PROGRESS_INTERVAL)
        {
            running.said_at = now;
            self.say_progress();
        }
        // The list of present clients is copied whole, so not before it matters.
        if self.run.as_ref().is_some_and(|running| running.machine.is_due(now)) {
            if self.run.as_ref().is_some_and(|running| running.machine.wants_last_look(now)) {
                self.scan(now);
            }
            let present = self.capture.found.clients.keys().cloned().collect();
            let looked_at = self.lives.looked_at();
            self.advance(Event::Tick { present, looked_at });
        }
    }

    /// Carries out what is to be done, in order, as far as the store goes along.
    fn carry_out(&mut self) {
        loop {
            let Some(running) = &mut self.run else { return };
            if running.todo.waits() {
                return;
            }
            let Some(next) = running.todo.take() else { break };
            match next {
                Todo::Act(action) => self.act(action),
                Todo::Persist(portion) => {
                    let portion = self.spare_the_living(portion);
                    if let Err(error) = self.persist(&portion) {
                        let now = self.outside.now();
                        let service = portion.first().map(|one| one.generation().0);
                        if error.is_not_owner() && !service.is_some_and(|one| self.held.contains_key(one)) {
                            tracing::warn!(%error, "the run writes no more of a service that is not this server's any more: {error}");
                            continue;
                        }
                        self.store_failed(now, &error);
                        let Some(running) = &mut self.run else { return };
                        running.todo.put_back(portion, now + crate::limits::STORE_RETRY, error.to_string());
                        return;
                    }
                }
            }
        }
        self.say_phase();
        self.answer_whose_wait_is_over();
    }

    /// Answers the callers that wait for no more than a phase that is durable now.
    pub(crate) fn answer_whose_wait_is_over(&mut self) {
        let Some(running) = &mut self.run else { return };
        let machine = &running.machine;
        if !running.waiting.iter().any(|waiting| waiting.is_over(machine)) {
            return;
        }
        let report = super::status::report(machine, self.store.as_ref(), &self.outside.unready());
        for over in running.waiting.extract_if(.., |waiting| waiting.is_over(machine)) {
            over.responder.done(Answer::adopted(report.clone(), true));
        }
    }

    /// Tells the callers how far it is.
    fn say_phase(&mut self) {
        let Some(running) = &mut self.run else { return };
        let phase = running.machine.phase();
        let before = running.said.replace(phase);
        if before == Some(phase) {
            return;
        }
        self.counts.phases.passed(before, &mut running.in_phase_since, self.outside.now());
        let (run, targets) = (running.machine.run(), super::status::names(running.machine.targets()));
        tracing::info!(run, %phase, "{targets}: the run {run} has reached the phase {phase}");
        self.say_progress();
    }

    fn say_progress(&mut self) {
        if let Some(running) = &mut self.run {
            running.say_progress(self.outside.now(), &self.settings);
        }
    }

    /// Makes a portion durable: all of it concerns one generation.
    fn persist(&mut self, portion: &[Persist]) -> Result<(), StoreError> {
        let mut changes = Vec::new();
        let mut target = None;
        for one in portion {
            match one {
                Persist::Begin { service, generation, state, records, journal } => {
                    let contents =
                        begin(self.store.as_ref(), service, *generation, *state, records.clone(), journal)?;
                    let claim =
                        Claim::new(*generation, &self.settings.server, &self.id, self.outside.wall_s());
                    self.hold(service, claim, contents, journal.clone());
                }
                Persist::Journal { service, generation, journal } => {
                    target = Some((service, *generation));
                    changes.push(Change::PutJournal(Box::new(journal.clone())));
                }
                Persist::Outcomes { service, generation, lines } => {
                    target = Some((service, *generation));
                    changes.extend(lines.iter().cloned().map(Change::AppendOutcome));
                }
                Persist::Retire { service, generation, clients } => {
                    target = Some((service, *generation));
                    changes.extend(clients.iter().cloned().map(Change::remove));
                }
            }
        }
        if let Some((service, generation)) = target {
            let held = self.held.get(service).filter(|held| held.claim.generation == generation);
            // A service that is not held any more is asked for all the same: the store knows whether it is another server's.
            let by = held.map_or_else(
                || Claim::new(generation, &self.settings.server, &self.id, self.outside.wall_s()),
                |held| held.claim.clone(),
            );
            let commit = Commit { service: service.clone(), by, changes };
            let committed =
                Committing::new(self.store.as_ref(), &self.outside, &mut self.counts).commit(&[commit]);
            if let (Err(_), Some(held)) = (&committed, self.held.get_mut(service)) {
                portion.iter().for_each(|one| held.ledger.uncommitted(&one.removals()));
            }
            committed?;
        }
        self.take_in(portion);
        Ok(())
    }

    /// Takes the changes in that are durable now.
    fn take_in(&mut self, portion: &[Persist]) {
        for one in portion {
            match one {
                Persist::Begin { .. } => {}
                Persist::Journal { service, journal, .. } => {
                    if let Some(held) = self.held.get_mut(service) {
                        held.journal = journal.clone();
                    }
                }
                Persist::Outcomes { service, lines, .. } => {
                    if let Some(held) = self.held.get_mut(service) {
                        held.learn(lines.clone());
                    }
                }
                Persist::Retire { service, .. } => {
                    if let Some(held) = self.held.get_mut(service) {
                        held.ledger.committed(&one.removals());
                    }
                }
            }
        }
    }

    fn act(&mut self, action: Action) {
        let Some(running) = &mut self.run else { return };
        let number = running.number;
        // Of that of conveying see `convey`.
        if !matches!(action, Action::Convey { .. }) {
            running.machine.begins(self.outside.now(), &action);
        }
        match action {
            // Of what is asked for before it has claimed; see `advance_asked`.
            Action::CheckFit(_) | Action::Fence(_) => {}
            Action::Claim { services, authority } => {
                if let Some(claimed) = self.claim_all(number, services, authority) {
                    self.advance(claimed);
                }
            }
            Action::Convey { services, how } => self.convey(number, services, how),
            Action::Recognise(strategy) => self.recognise(number, strategy),
            Action::Prove => match self.run.as_ref().and_then(|r| r.machine.grace().copied()) {
                Some(grace) => self.outside.begin_for(number, RunWork::Prove(grace)),
                None => self.advance(Event::Proved(Err("no grace period is known".into()))),
            },
            Action::BringUp(services) => {
                let last_call = self
                    .run
                    .as_ref()
                    .and_then(|r| r.machine.grace())
                    .map_or(self.outside.now(), heirlock_core::grace::Grace::last_call);
                let held_up = self.run.as_ref().and_then(|running| running.todo.was_held_up());
                let held_up = held_up.map(str::to_owned);
                self.outside.begin_for(number, RunWork::BringUp { services, last_call, held_up });
            }
            Action::Notify(notices) => {
                let now = self.outside.now();
                if let Some(running) = &mut self.run {
                    let until = now + crate::limits::SHARED_BEFORE_TOLD_MAX;
                    running.untold = Some(Untold { notices, until });
                }
                self.notify_once_shared(now);
            }
            Action::StopNotifying => self.stop_notifying(),
            Action::CleanUp => self.take_conveyed_away(),
            Action::AwaitFinish => self.prepared(),
            Action::Over(end) => self.over(end),
        }
    }

    fn recognise(&mut self, number: RunNumber, strategy: Strategy) {
        if strategy.drops_own_locks() {
            // The last look before all locks are dropped: a record that is there now was there before.
            self.scan(self.outside.now());
        }
        let Some(running) = &mut self.run else { return };
        let found = &self.capture.found.clients;
        let run = running.machine.run().to_owned();
        let before = running.before.get_or_insert_with(|| Registrations::of(&run, found));
        self.outside.note_registrations(before);
        let (targets, owes) = (running.machine.targets().to_vec(), running.machine.owes_already());
        let grace_seen = self.lives.grace_seen();
        self.outside.begin_for(number, RunWork::Recognise { strategy, targets, grace_seen, owes });
    }

    pub(crate) fn stop_notifying(&mut self) {
        self.outside.stop_telling();
        if let Some(running) = &mut self.run {
            running.untold = None;
        }
    }

    pub(crate) fn notify(&mut self, notices: Vec<Notice>) {
        let Some((number, grace)) = self.run.as_ref().and_then(|r| Some((r.number, *r.machine.grace()?)))
        else {
            return;
        };
        let roles = self.outside.roles(&self.nlm_ports, false);
        let rebooted = self.run.as_ref().is_some_and(|running| running.machine.has_rebooted());
        let tellings: Vec<Telling> = notices
            .into_iter()
            .map(|mut notice| {
                if !tells_peers(&notice.service, rebooted) {
                    notice.clients.retain(|client| !roles.is_peer(client));
                }
                let (mut clients, mut untold) = (Vec::new(), Vec::new());
                let is_target =
                    self.run.as_ref().is_some_and(|r| r.machine.targets().contains(&notice.service));
                let part = if is_target { Part::Target } else { Part::Own };
                for client in &notice.clients {
                    match self.addresses_of(&notice.service, part, client) {
                        Ok(addresses) => clients.push((client.clone(), addresses)),
                        Err(why) => untold.push((client.clone(), why)),
                    }
                }
                Telling {
                    clients,
                    untold,
                    from: self.announcing_addresses(&notice.service),
                    names: self.announced_names(&notice.service),
                    notice,
                }
            })
            .collect();
        let clients = tellings.iter().map(|telling| telling.clients.len() + telling.untold.len());
        self.counts.notices.begin(clients.sum());
        self.outside.begin_for(number, RunWork::Tell { tellings, grace });
    }

    /// From which addresses a service's clients are told: those they mount it by.
    pub(crate) fn announcing_addresses(&self, service: &ServiceName) -> Vec<std::net::IpAddr> {
        match self.settings.service(service) {
            Some(configured) => configured.addresses.clone(),
            None => self.settings.host.addresses.clone(),
        }
    }

    /// Under which names: those clients may have mounted it by, the full one first, its short form, the addresses.
    pub(crate) fn announced_names(&self, service: &ServiceName) -> Vec<MyName> {
        let (names, addresses) = match self.settings.service(service) {
            Some(configured) => (&configured.names, &configured.addresses),
            None => (&self.settings.host.names, &self.settings.host.addresses),
        };
        let mut announced: Vec<MyName> = Vec::new();
        for name in names {
            let short = name.as_str().split('.').next().and_then(|short| MyName::parse(short).ok());
            announced.extend([Some(name.clone()), short].into_iter().flatten());
        }
        announced.extend(addresses.iter().filter_map(|address| MyName::parse(&address.to_string()).ok()));
        let mut seen = Vec::new();
        announced.retain(|name| {
            !seen.contains(name) && {
                seen.push(name.clone());
                true
            }
        });
        announced.truncate(heirlock_core::limits::ANNOUNCED_NAMES_MAX);
        announced
    }

    fn prepared(&mut self) {
        let Some(running) = &mut self.run else { return };
        let report = super::status::report(&running.machine, self.store.as_ref(), &self.outside.unready());
        for waiting in running.waiting.drain(..) {
            waiting.responder.done(Answer::adopted(report.clone(), true));
        }
    }

    pub fn over(&mut self, end: End) {
        let Some(mut running) = self.run.take() else { return };
        self.outside.stop_telling();
        self.has_ended(&mut running, &end);
        self.say_end_once_taken_away(running, end);
        self.learn_names_that_were_put_off(self.outside.now());
        self.prune();
        self.capture.due = Some(self.outside.now());
    }

    /// A run has ended before anything was placed for it.
    pub(crate) fn conclude(&mut self, mut running: Running, end: End) {
        self.has_ended(&mut running, &end);
        self.say_end(running, end);
    }

    /// Takes in that a run has ended.
    fn has_ended(&mut self, running: &mut Running, end: &End) {
        let now = self.outside.now();
        self.counts.phases.passed(running.said, &mut running.in_phase_since, now);
        self.counts.ended(running.machine.cause(), end);
        self.lives.run_ended(now, end, running.reborn);
        self.outside.run_ended(&running.machine, end);
    }

    /// Says how a run has ended, to the log and to its callers.
    pub(crate) fn say_end(&self, running: Running, end: End) {
        super::status::log_end(&running.machine, &end);
        let mut answer =
            super::status::answer(&running.machine, end, self.store.as_ref(), &self.outside.unready());
        if let Err(failure) = &mut answer {
            failure.missing = running.missing;
        }
        for waiting in running.waiting {
            waiting.responder.end(&answer);
        }
    }

    /// Old generations are kept for a while, to look at after the fact.
    fn prune(&self) {
        for (service, held) in &self.held {
            let keep_from =
                Generation(held.claim.generation.0.saturating_sub(crate::limits::GENERATIONS_KEPT));
            let store = self.store.as_ref();
            // Their outcomes outlive them; a generation whose outcomes could not be kept is not removed.
            let kept = survey::past::keep_before(store, service, keep_from);
            if let Err(error) = kept.and_then(|()| store.prune(service, keep_from)) {
                tracing::warn!(%service, %error, "{service}: old generations could not be removed: {error}");
            }
        }
    }
}

/// Why a run begins, and for which services, in a line of the log.
fn beginning(plan: &Plan) -> String {
    let Plan { run, cause, targets, server, .. } = plan;
    let (targets, own) = (super::status::names(targets), super::status::names(&plan.standing.own));
    match cause {
        Cause::Asked => {
            format!("{targets}: its adoption by {server} begins, for it was asked for (run {run})")
        }
        Cause::OwnerDead => {
            format!("{targets}: its adoption by {server} begins, for its owner's heart is silent (run {run})")
        }
        Cause::OwnRestart => {
            format!("{own}: the lock manager was restarted, so the clients are told (run {run})")
        }
    }
}

/// A line for each thing that is missing.
pub fn unfit(targets: &str, missing: &[Missing], insists: bool) -> String {
    let lines: String = missing.iter().map(|missing| format!("\n  {missing}")).collect();
    // A caller that insists already is refused what can't be done at all.
    let can_be_forced = !insists && missing.iter().all(|missing| missing.check != "strategy");
    let force = if can_be_forced { "\n--force adopts all the same, and locks may be lost" } else { "" };
    format!("{targets} can't be adopted here now; nothing was changed:{lines}{force}")
}
