//! Runs: beginning, resuming and driving an adoption from the agent's loop.
//!
//! The machine in `heirlock-core` decides; here its batches are carried out. Changes that must be durable are written
//! in order and tried again until the store takes them, and only then the work after them is begun.

use std::collections::BTreeSet;
use std::sync::Arc;

use heirlock_core::claim::Claim;
use heirlock_core::lives::Recognised;
use heirlock_core::store::{Change, Commit, StoreError};
use heirlock_core::takeover::{
    Action, Cause, End, Event, Found, Means, Notice, Part, Persist, Plan, Recognition, Registrations,
    Remains, Strategy, Takeover, Todo, Until, tells_peers,
};
use heirlock_core::{Batch, Generation, Moment, RecordKey, ServerName, ServiceName};
use heirlock_nsm::MyName;
use heirlock_nsm::record::render_record;

use super::Instance;
use crate::agent::common::Common;
use crate::agent::holdings::begin;
use crate::agent::outside::{InstanceOutside, Outside};
use crate::agent::running::Running;
use crate::agent::running::{Commission, Untold, unfit};
use crate::agent::status;
use crate::agent::work::{Fit, RunNumber, RunWork, Telling};
use crate::config::LockManagerSettings;
use crate::control::Answer;
use crate::survey;

impl<O: Outside> Instance<O> {
    /// Begins a run: a self-adoption where none is on, or one that is asked for, beside all others.
    pub fn begin_run(&mut self, server: &mut Common<O>, now: Moment, commission: Commission) {
        let Commission { order, waiting, insists, starts_first, before } = commission;
        let (is_own_restart, until) = (order.is_own_restart(), order.until);
        let run = format!("{:016x}", server.outside_mut().random());
        let plan =
            order.plan(run, server.server().clone(), self.standing(server), self.means(), server.wall_s());
        tracing::info!(run = %plan.run, cause = ?plan.cause, targets = ?plan.targets, own = ?plan.standing.own, "{}", beginning(&plan));
        let mut running = Running::new(Takeover::new(now, plan), self.next_run(), waiting);
        running.reborn = self.lives.is_reborn();
        running.insists = insists;
        if starts_first {
            running.machine.will_start_first();
        }
        running.waits_for_addresses = until == Until::Settled;
        for (milestone, at) in before {
            running.machine.came_before(now, milestone, at);
        }
        if is_own_restart {
            self.settle_capture(server, now);
            running.before = Some(self.registrations_now(running.machine.run()));
            self.run = Some(running);
            self.advance(server, Event::Start);
        } else {
            let number = running.number;
            self.asked.push(running);
            self.advance_asked(server, number, Event::Start);
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
    pub(crate) fn resume_run(&mut self, server: &mut Common<O>, now: Moment, run: &str) -> bool {
        let remains = match self.remains_of(server, run) {
            Ok(remains) => remains,
            Err(error) => {
                // Once the store works again it is asked for another time.
                server.fails(now, &error);
                return true;
            }
        };
        self.settle_capture(server, now);
        let noted = self.outside.registrations(run);
        let before = noted.unwrap_or_else(|| self.registrations_now(run));
        let found =
            Found { came: self.came_since(&before), remains, held: self.held.keys().cloned().collect() };
        let Means { margin, limits, .. } = self.means();
        let Some(mut machine) = Takeover::resume(now, margin, limits, found) else { return false };
        machine.begins(now, &Action::Recognise(Strategy::Notify));
        tracing::info!(run, phase = %machine.phase(), "{}: the run {run} was interrupted and goes on, from phase {}", status::names(machine.targets()), machine.phase());
        let number = self.next_run();
        let mut running = Running::new(machine, number, Vec::new());
        running.before = Some(before);
        self.run = Some(running);
        let (strategy, grace_seen) = (Strategy::Notify, self.grace_seen_for(server, number));
        let targets = self.volumes_left_out(number);
        let work = RunWork::Recognise { strategy, targets, grace_seen, owes: false };
        self.outside.begin_for(number, work);
        true
    }

    fn remains_of(&mut self, server: &mut Common<O>, run: &str) -> Result<Vec<Remains>, StoreError> {
        let roles = self.outside.roles(&self.nlm_ports, false);
        let members = self.held.iter().filter(|(_, held)| held.journal.run == run);
        members
            .map(|(service, held)| {
                let mut remains = held.remains(service);
                // As in `notify`: nothing is missed where they were not told.
                if !tells_peers(service, held.journal.has_rebooted()) {
                    remains.clients.retain(|client| !roles.is_peer(client.client()));
                }
                remains.begun_with = self.known_before(server, service, held.claim.generation, run)?;
                Ok(remains)
            })
            .collect()
    }

    /// The clients that the generation knew before this run began one. A claim that was interrupted leaves the run more than one:
    /// a later one begins with the clients that have come since.
    fn known_before(
        &self,
        server: &Common<O>,
        service: &ServiceName,
        generation: Generation,
        run: &str,
    ) -> Result<Option<BTreeSet<RecordKey>>, StoreError> {
        let mut of_run = generation;
        while let Some(before) = of_run.before() {
            let Some(before) = server.store().newest_generation(service, before)? else { break };
            let account = server.store().account(service, before)?;
            if account.journal.is_none_or(|journal| journal.run != run) {
                return Ok(Some(account.keys.into_iter().collect()));
            }
            of_run = before;
        }
        Ok(None)
    }

    /// Tells the run what has happened, now, and carries out what it asks for.
    pub(crate) fn advance(&mut self, server: &mut Common<O>, event: Event) {
        let unclaimed = self.run.as_ref().is_some_and(|running| running.machine.is_unclaimed());
        let standing = unclaimed.then(|| self.standing(server));
        let Some(running) = &mut self.run else { return };
        if let Some(standing) = standing {
            running.machine.stands(standing);
        }
        let batch = running.machine.step(server.now(), event);
        self.carry_on(server, batch);
    }

    /// A service is not this server's any more: its callers learn it now, where the run goes on for others.
    pub(super) fn left_by_service(&mut self, server: &mut Common<O>, service: &ServiceName, event: Event) {
        let why = match &event {
            Event::Overtaken(_) => format!("{service} was claimed by another server meanwhile"),
            _ => format!("{service} was released meanwhile"),
        };
        self.advance(server, event);
        self.answer_those_left(service, &why);
    }

    /// Adds this batch behind the work that was to be done before.
    pub(crate) fn carry_on(&mut self, server: &mut Common<O>, batch: Batch<Persist, Action>) {
        let Some(running) = &mut self.run else { return };
        running.todo.extend(batch);
        self.carry_out(server);
    }

    /// The needs of an adoption were looked for.
    pub(crate) fn looked_for_needs(&mut self, server: &mut Common<O>, run: RunNumber, looked: Fit) {
        let Fit { missing, said } = looked;
        let (now, settings) = (server.now(), Arc::clone(server.settings()));
        let Some(running) = self.running(run) else { return };
        let fit = if missing.is_empty() {
            Ok(())
        } else {
            let targets = status::names(running.machine.targets());
            Err(unfit(&targets, &missing, running.insists))
        };
        running.missing = missing;
        if fit.is_ok() {
            said.iter().for_each(|said| tracing::warn!("{said}"));
            running.told = said;
            running.say_progress(now, &settings);
        }
        self.worked_for(server, run, Event::Fit(fit));
    }

    /// Work is done, for the run that is on or for one before it, whose threads outlived it.
    pub fn worked_for(&mut self, server: &mut Common<O>, run: RunNumber, event: Event) {
        if self.is_on(run) {
            server.counts_mut().notices.heard(&event);
            self.advance(server, event);
        } else if self.asked_for(run).is_some() {
            self.advance_asked(server, run, event);
        } else {
            tracing::debug!(?event, "it comes too late for the run that asked for it");
        }
    }

    fn is_on(&self, run: RunNumber) -> bool {
        self.run.as_ref().is_some_and(|running| running.number == run)
    }

    /// The lock manager was made to recognise; the follower of its lives says which life it lives now. Where that comes
    /// too late for the run that asked for it, its locks are gone all the same: a life that began as any other does.
    pub(crate) fn recognised(
        &mut self,
        server: &mut Common<O>,
        run: RunNumber,
        done: Result<Recognised, String>,
    ) {
        // A run that is resumed recognised in an earlier life of the agent, and asks only whether that life goes on.
        let awaits = |running: &Running| running.number == run && running.machine.awaits_recognition();
        let awaited = self.run.as_ref().is_some_and(awaits);
        let is_first_start = self.starts_first(run);
        let recognition = done.and_then(|done| {
            if is_first_start {
                return self.looked_for_first_start(server, &done);
            }
            let (begun, recognition) = self.lives.recognised(&done, awaited);
            if let Some(begun) = begun {
                self.life_began(server, &begun);
            }
            // Before the run is said to have got here: the agent that goes on with it has to count this grace period.
            if let Ok(Recognition { life, grace_opened, .. }) = &recognition {
                self.grace_note.opened(life, *grace_opened, &mut self.outside, server.clocks());
            }
            recognition
        });
        if let Some(running) = self.run.as_mut().filter(|running| running.number == run) {
            for (service, held) in &self.held {
                running.machine.captured(service, held.ledger.stored().keys());
            }
        }
        self.forget_who_came();
        let told = self.run.as_ref().is_some_and(|running| running.machine.had_begun_to_tell());
        if awaited && !told && recognition.is_ok() {
            self.forget_who_registered_before(server);
        }
        if self.is_on(run) && recognition.is_ok() {
            self.share_adopted(server);
        }
        self.worked_for(server, run, Event::Recognised(recognition));
    }

    /// The lock manager has dropped its locks, and no client is told yet: a client that registered between the last look before and
    /// this moment has not come back.
    fn forget_who_registered_before(&mut self, server: &mut Common<O>) {
        // The last look may be old: the loop may have waited for the store, and a hint may have been lost.
        self.look(server, server.now(), false);
        let Some(run) = self.run.as_ref().map(|running| running.machine.run()) else { return };
        let before = self.registrations_now(run);
        self.outside.note_registrations(&before);
        if let Some(running) = &mut self.run {
            running.before = Some(before);
        }
    }

    /// The clients that are registered, for a run. Where heirlock is the status monitor, its memory decides: some of its files may not
    /// show that yet, a notifier may have moved others to `sm.bak`, and the agent is told of a registration after the client was
    /// answered.
    fn registrations_now(&self, run: &str) -> Registrations {
        let mut registrations = Registrations::of(run, self.capture.found().registered());
        registrations.note(&render_record(&self.outside.all_registered_lines()));
        registrations
    }

    /// The clients that registered since then. Where heirlock is the status monitor, a file may be left of a registration that it
    /// refused: an earlier agent wrote it, and died before it took it back.
    pub(crate) fn came_since(&self, before: &Registrations) -> BTreeSet<RecordKey> {
        let found = self.capture.found();
        let came = before.came(found.registered());
        if came.is_empty() || self.monitoring.is_none() {
            return came;
        }
        let mut registered = Registrations::of("", []);
        registered.note(&render_record(&self.outside.all_registered_lines()));
        before.came_among(&registered, found.registered())
    }

    /// Looks whether an owner that was said to be off lives, after a look at all heartbeats. A heartbeat that the first look
    /// shows may have been written before the owner was switched off.
    pub(crate) fn look_for_fenced_owners(&mut self, server: &Common<O>, now: Moment) {
        let runs = self.asked.iter_mut().chain(&mut self.run);
        for running in runs.filter(|running| !running.is_owner_alive) {
            let watched = *running.owner_watched.get_or_insert(now);
            let lives = |owner: &&ServerName| server.pulse().lived_after(owner, watched);
            let living = running.machine.fenced().find(lives).cloned();
            if let Some(owner) = living {
                running.say_owner_is_alive(now, &owner, server.settings());
            }
        }
    }

    /// Time passed for the runs that were asked for.
    pub fn tick_asked(&mut self, server: &mut Common<O>, now: Moment) {
        let due = self.asked.iter().filter(|asked| asked.machine.is_due(now)).map(|asked| asked.number);
        for run in due.collect::<Vec<_>>() {
            self.advance_asked(server, run, Event::Tick { present: BTreeSet::new(), looked_at: None });
        }
        if !self.asked.is_empty() {
            self.claim_in_turn(server);
        }
    }

    /// Time passed.
    pub fn tick_run(&mut self, server: &mut Common<O>, now: Moment) {
        let Some(running) = &mut self.run else { return };
        if running.todo.tries_again(now) || running.todo.is_to_recognise() {
            self.carry_out(server);
        }
        if let Some(running) =
            self.run.as_mut().filter(|r| now.since(r.said_at) >= crate::limits::PROGRESS_INTERVAL)
        {
            running.said_at = now;
            self.say_progress(server);
        }
        // The list of present clients is copied whole, so not before it matters.
        if self.run.as_ref().is_some_and(|running| running.machine.is_due(now)) {
            if self.run.as_ref().is_some_and(|running| running.machine.wants_last_look(now)) {
                self.scan(server, now);
            }
            let present = self.capture.found().clients.keys().cloned().collect();
            let looked_at = self.lives.looked_at();
            self.advance(server, Event::Tick { present, looked_at });
        }
    }

    /// Carries out what is to be done, in order, as far as the store goes along.
    fn carry_out(&mut self, server: &mut Common<O>) {
        loop {
            let Some(running) = &mut self.run else { return };
            if running.todo.waits() {
                return;
            }
            if self.holds_recognition(server.now()) {
                break;
            }
            let Some(running) = &mut self.run else { return };
            let Some(next) = running.todo.take() else { break };
            match next {
                Todo::Act(action) => self.act(server, action),
                Todo::Persist(portion) => {
                    let portion = self.spare_the_living(portion);
                    if let Err(error) = self.persist(server, &portion) {
                        let now = server.now();
                        let service = portion.first().map(|one| one.generation().0);
                        if error.is_not_owner() && !service.is_some_and(|one| self.held.contains_key(one)) {
                            tracing::warn!(%error, "the run writes no more of a service that is not this server's any more: {error}");
                            continue;
                        }
                        server.store_failed(now, &error);
                        let Some(running) = &mut self.run else { return };
                        running.todo.put_back(portion, now + crate::limits::STORE_RETRY, error.to_string());
                        return;
                    }
                }
            }
        }
        self.say_phase(server);
        self.answer_whose_wait_is_over(server);
    }

    /// Answers the callers that wait for no more than a phase that is durable now.
    pub(crate) fn answer_whose_wait_is_over(&mut self, server: &Common<O>) {
        let Some(running) = &mut self.run else { return };
        let machine = &running.machine;
        if !running.waiting.iter().any(|waiting| waiting.is_over(machine)) {
            return;
        }
        let (now, unready) = (server.now(), self.outside.unready());
        for over in running.waiting.extract_if(.., |waiting| waiting.is_over(machine)) {
            let report = status::report_for(now, machine, &over, server.store(), &unready);
            over.responder.done(Answer::adopted(report, true));
        }
    }

    /// Tells the callers how far it is.
    fn say_phase(&mut self, server: &mut Common<O>) {
        let Some(running) = &mut self.run else { return };
        let phase = running.machine.phase();
        let before = running.said.replace(phase);
        if before == Some(phase) {
            return;
        }
        let now = server.now();
        server.counts_mut().phases.passed(before, &mut running.in_phase_since, now);
        let (run, targets) = (running.machine.run(), status::names(running.machine.targets()));
        tracing::info!(run, %phase, "{targets}: the run {run} has reached the phase {phase}");
        self.say_progress(server);
    }

    fn say_progress(&mut self, server: &Common<O>) {
        if let Some(running) = &mut self.run {
            running.say_progress(server.now(), server.settings());
        }
    }

    /// Makes a portion durable: all of it concerns one generation.
    fn persist(&mut self, server: &mut Common<O>, portion: &[Persist]) -> Result<(), StoreError> {
        let mut changes = Vec::new();
        let mut target = None;
        for one in portion {
            match one {
                Persist::Begin { service, generation, state, records, journal } => {
                    let contents =
                        begin(server.store(), service, *generation, *state, records.clone(), journal)?;
                    let claim = Claim::new(*generation, server.server(), server.id(), server.wall_s());
                    self.hold(server, service, claim, contents, journal.clone());
                    if *generation == Generation::FIRST {
                        // Clients of its lock manager that are here already are clients of it too.
                        self.capture.begin_anew();
                    }
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
                || Claim::new(generation, server.server(), server.id(), server.wall_s()),
                |held| held.claim.clone(),
            );
            let commit = Commit { service: service.clone(), by, changes };
            let committed = server.committing().commit(&[commit]);
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

    fn act(&mut self, server: &mut Common<O>, action: Action) {
        let Some(running) = &mut self.run else { return };
        let number = running.number;
        // Of that of conveying see `convey`.
        if !matches!(action, Action::Convey { .. }) {
            running.machine.begins(server.now(), &action);
        }
        match action {
            // Of what is asked for before it has claimed; see `advance_asked`.
            Action::CheckFit(_) | Action::Fence(_) => {}
            Action::Claim { services, authority } => {
                if let Some(claimed) = self.claim_all(server, number, &services, &authority) {
                    self.advance(server, claimed);
                }
            }
            Action::Convey { services, how } => self.convey(server, number, services, how),
            Action::Recognise(strategy) => self.recognise(server, number, strategy),
            Action::Prove => match self.run.as_ref().and_then(|r| r.machine.grace().copied()) {
                Some(grace) => self.outside.begin_for(number, RunWork::Prove(grace)),
                None => self.advance(server, Event::Proved(Err("no grace period is known".into()))),
            },
            Action::BringUp(services) => {
                let last_call = self
                    .run
                    .as_ref()
                    .and_then(|r| r.machine.grace())
                    .map_or(server.now(), heirlock_core::grace::Grace::last_call);
                let held_up = self.run.as_ref().and_then(|running| running.todo.was_held_up());
                let held_up = held_up.map(str::to_owned);
                self.outside.begin_for(number, RunWork::BringUp { services, last_call, held_up });
            }
            Action::Notify(notices) => {
                let now = server.now();
                if let Some(running) = &mut self.run {
                    let until = now + crate::limits::SHARED_BEFORE_TOLD_MAX;
                    running.untold = Some(Untold { notices, until });
                }
                self.notify_once_shared(server, now);
            }
            Action::StopNotifying => self.stop_notifying(),
            Action::CleanUp => self.take_conveyed_away(server),
            // Its callers are answered when all is durable.
            Action::AwaitFinish => {}
            Action::Over(end) => self.over(server, end),
        }
    }

    fn recognise(&mut self, server: &mut Common<O>, number: RunNumber, strategy: Strategy) {
        if strategy.drops_own_locks() {
            // The last look before all locks are dropped: a record that is there now was there before.
            self.scan(server, server.now());
        }
        let Some(running) = &self.run else { return };
        let (targets, owes) = (running.machine.targets().to_vec(), running.machine.owes_already());
        let grace_seen = self.grace_seen_for(server, number);
        self.outside.begin_for(number, RunWork::Recognise { strategy, targets, grace_seen, owes });
    }

    /// Whether the run of this number recovers no lock, and waits for the lock manager to be looked at.
    fn starts_first(&self, run: RunNumber) -> bool {
        let is_it = |running: &Running| {
            running.number == run && running.machine.is_first_start() && running.machine.awaits_recognition()
        };
        self.run.as_ref().is_some_and(is_it)
    }

    /// The services whose volumes the agent before this one may not have brought up: it had, where it had recognised.
    fn volumes_left_out(&self, run: RunNumber) -> Vec<ServiceName> {
        let running = self.run.as_ref().filter(|_| self.starts_first(run));
        running.map(|running| running.machine.targets().to_vec()).unwrap_or_default()
    }

    /// The moment before which grace was not open. Where no lock is recovered, grace need not be open, and that it is not known
    /// is no hindrance.
    fn grace_seen_for(&self, server: &Common<O>, run: RunNumber) -> Option<Moment> {
        if self.starts_first(run) { Some(server.now()) } else { self.lives.grace_seen() }
    }

    /// The lock manager was looked at for a first start, and goes on as it was: where another life has begun, that is one that no
    /// run asked for.
    fn looked_for_first_start(
        &mut self,
        server: &mut Common<O>,
        done: &Recognised,
    ) -> Result<Recognition, String> {
        let now = server.now();
        if let Some(begun) = self.lives.looked(now, &done.observation) {
            self.life_began(server, &begun);
        }
        let life = self.lives.running().cloned().ok_or("no lock manager runs")?;
        Ok(Recognition {
            life,
            grace_opened: now,
            grace_length: done.grace_length,
            too_late_for_the_lost: false,
        })
    }

    pub(crate) fn stop_notifying(&mut self) {
        self.outside.stop_telling();
        if let Some(running) = &mut self.run {
            running.untold = None;
        }
    }

    pub(crate) fn notify(&mut self, server: &mut Common<O>, notices: Vec<Notice>) {
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
                    match self.addresses_of(server, &notice.service, part, client) {
                        Ok(addresses) => clients.push((client.clone(), addresses)),
                        Err(why) => untold.push((client.clone(), why)),
                    }
                }
                Telling {
                    clients,
                    untold,
                    from: self.announcing_addresses(server, &notice.service),
                    names: self.announced_names(server, &notice.service),
                    notice,
                }
            })
            .collect();
        let clients = tellings.iter().map(|telling| telling.clients.len() + telling.untold.len());
        server.counts_mut().notices.begin(clients.sum());
        self.outside.begin_for(number, RunWork::Tell { tellings, grace });
    }

    /// From which addresses a service's clients are told: those they mount it by.
    pub(crate) fn announcing_addresses(
        &self,
        server: &Common<O>,
        service: &ServiceName,
    ) -> Vec<std::net::IpAddr> {
        match server.settings().service(service) {
            Some(configured) => configured.addresses.clone(),
            None => server.settings().host.addresses.clone(),
        }
    }

    /// Under which names: those clients may have mounted it by, the full one first, its short form, the addresses.
    pub(crate) fn announced_names(&self, server: &Common<O>, service: &ServiceName) -> Vec<MyName> {
        server.settings().announced_names(service)
    }

    pub fn over(&mut self, server: &mut Common<O>, end: End) {
        let Some(mut running) = self.run.take() else { return };
        self.outside.stop_telling();
        self.has_ended(server, &mut running, &end);
        self.say_end_once_taken_away(server, running, end);
        self.learn_names_that_were_put_off(server, server.now());
        self.prune(server);
        self.capture.look_at(server.now());
    }

    /// A run has ended before anything was placed for it.
    pub(crate) fn conclude(&mut self, server: &mut Common<O>, mut running: Running, end: &End) {
        self.has_ended(server, &mut running, end);
        self.say_end(server, running, end);
    }

    /// Takes in that a run has ended.
    fn has_ended(&mut self, server: &mut Common<O>, running: &mut Running, end: &End) {
        let now = server.now();
        server.counts_mut().phases.passed(running.said, &mut running.in_phase_since, now);
        server.counts_mut().ended(running.machine.cause(), end);
        self.lives.run_ended(now, end, running.reborn);
        self.outside.run_ended(&running.machine, end);
    }

    /// Says how a run has ended, to the log and to its callers.
    pub(crate) fn say_end(&self, server: &Common<O>, running: Running, end: &End) {
        status::log_end(&running.machine, end);
        let (now, unready) = (server.now(), self.outside.unready());
        for waiting in running.waiting {
            let mut answer = status::answer(now, &running.machine, &waiting, end, server.store(), &unready);
            if let Err(failure) = &mut answer {
                failure.missing.clone_from(&running.missing);
            }
            waiting.responder.end(&answer);
        }
    }

    /// Old generations are kept for a while, to look at after the fact.
    fn prune(&self, server: &Common<O>) {
        for (service, held) in &self.held {
            let keep_from =
                Generation(held.claim.generation.0.saturating_sub(crate::limits::GENERATIONS_KEPT));
            let store = server.store();
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
    let (targets, own) = (status::names(targets), status::names(&plan.standing.own));
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
