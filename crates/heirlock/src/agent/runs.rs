//! Runs: beginning, resuming and driving an adoption from the agent's loop.
//!
//! The machine in `heirlock-core` decides; here its batches are carried out. What must be durable is written in
//! order and tried again until the store takes it, and only then what follows is begun.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use heirlock_core::claim::{Authority, Claim, ClaimRefusal, OwnerHeart, next_generation};
use heirlock_core::incarnation::Change as LifeChange;
use heirlock_core::takeover::{
    Action, Cause, Claimed, Conveyance, End, Event, Notice, OutcomeLine, Part, Persist, Phase, Plan, Queue,
    Recognition, Strategy, Takeover, Todo, Trouble, Until,
};
use heirlock_core::{Moment, ServerName, ServiceName};
use heirlock_nsm::{MonName, MyName, StateNumber};

use super::holdings::begin;
use super::work::{RecognisedAt, RunNumber, Telling};
use super::{Agent, clock};
use crate::control::{Answer, Responder};
use crate::store::{Change, ClaimAnswer, StoreError, journal_text};

/// The run that is on.
pub(crate) struct Running {
    pub(crate) machine: Takeover,
    pub(crate) number: RunNumber,
    todo: Queue,
    /// Who waits for its end.
    pub(crate) waiting: Vec<Responder>,
    /// Registrations before the lock manager recognised: whoever differs from it has come back.
    pub(crate) before: Option<BTreeMap<MonName, Vec<u8>>>,
    stop: Arc<AtomicBool>,
    /// What clients are to be told once they are durable in every service.
    pub(crate) untold: Option<Untold>,
    /// Another life of the lock manager had begun, and what follows from it was this run's to do.
    reborn: bool,
    store_retry: Option<Moment>,
    /// The phase that those who wait were told of.
    said: Option<Phase>,
    /// When they were last told how many have answered.
    said_at: Moment,
}

/// What clients are to be told.
pub(crate) struct Untold {
    pub(crate) notices: Vec<Notice>,
    /// When they are told, come what may.
    pub(crate) until: Moment,
}

/// What a new run is to do.
pub(crate) struct Order {
    pub(crate) cause: Cause,
    pub(crate) targets: Vec<ServiceName>,
    pub(crate) until: Until,
    pub(crate) authority: Authority,
    pub(crate) waiting: Vec<Responder>,
    pub(crate) primary_lost: Option<Moment>,
}

/// Why a service was not claimed.
enum NotClaimed {
    /// It may not be, or somebody else was faster.
    Refused(String),
    /// Nobody knows: a claim may have been made all the same.
    StoreFails(StoreError),
}

impl From<StoreError> for NotClaimed {
    fn from(error: StoreError) -> Self {
        Self::StoreFails(error)
    }
}

impl Running {
    fn new(machine: Takeover, number: RunNumber, waiting: Vec<Responder>) -> Self {
        Self {
            machine,
            number,
            todo: Queue::default(),
            waiting,
            before: None,
            stop: Arc::new(AtomicBool::new(false)),
            untold: None,
            reborn: false,
            store_retry: None,
            said: None,
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

    /// Nothing more is sent.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// When the loop must look after it again.
    pub(crate) fn due(&self) -> Option<Moment> {
        self.store_retry.into_iter().chain(self.machine.next_timeout()).min()
    }
}

impl Agent {
    /// Begins a run. There must be none.
    pub(crate) fn begin_run(&mut self, now: Moment, order: Order) {
        let own = self.held.keys().filter(|service| !order.targets.contains(service)).cloned().collect();
        let lost = self.owed().to_be_told();
        let plan = Plan {
            run: format!("{:016x}", fastrand::u64(..)),
            server: self.settings.server.clone(),
            cause: order.cause,
            targets: order.targets,
            own,
            lost,
            strategy: self.settings.lock_manager.strategy,
            convey: self.settings.lock_manager.convey,
            until: order.until,
            authority: order.authority,
            fence: order.cause == Cause::OwnerDead,
            margin: self.settings.lock_manager.settle_margin,
            primary_lost: order.primary_lost,
            started_at_s: clock::wall_s(),
        };
        tracing::info!(run = %plan.run, cause = ?plan.cause, targets = ?plan.targets, own = ?plan.own, "a run begins");
        let mut running = Running::new(Takeover::new(now, plan), self.workshop.next_run(), order.waiting);
        running.reborn = self.reborn;
        if order.cause == Cause::OwnRestart {
            running.before = Some(self.capture.found.clients.clone());
        }
        self.run = Some(running);
        self.advance(Event::Start);
    }

    /// Goes on with what an earlier run of this agent left unfinished in the same life of the lock manager.
    pub(crate) fn resume_run(&mut self, now: Moment, run: &str) -> bool {
        let members = self.held.iter().filter(|(_, held)| held.journal.run == run);
        let remains: Vec<_> = members.map(|(service, held)| held.remains(service)).collect();
        let resumed = Takeover::resume(now, self.settings.lock_manager.settle_margin, remains);
        let Some(machine) = resumed else { return false };
        tracing::info!(run, phase = %machine.phase(), "a run that was interrupted goes on");
        let mut running = Running::new(machine, self.workshop.next_run(), Vec::new());
        running.before = Some(self.capture.found.clients.clone());
        self.run = Some(running);
        self.workshop.recognise(Strategy::Notify, Vec::new(), self.grace_seen.since());
        true
    }

    /// Tells the run what has happened, now, and carries out what it asks for.
    pub(crate) fn advance(&mut self, event: Event) {
        let Some(running) = &mut self.run else { return };
        running.machine.holds(self.held.keys());
        let batch = running.machine.step(self.clock.now(), event);
        running.todo.extend(batch);
        self.carry_out();
    }

    /// Work is done, for the run that is on or for one before it, whose threads outlived it.
    pub(crate) fn worked_for(&mut self, run: RunNumber, event: Event) {
        match self.is_on(run) {
            true => self.advance(event),
            false => tracing::debug!(?event, "it comes too late for the run that asked for it"),
        }
    }

    fn is_on(&self, run: RunNumber) -> bool {
        self.run.as_ref().is_some_and(|running| running.number == run)
    }

    /// The lock manager was made to recognise; whose life it lives now is the follower's to say. Where that comes too
    /// late for the run that asked for it, its locks are gone all the same: a life that began as any other does.
    pub(crate) fn recognised(&mut self, run: RunNumber, done: Result<RecognisedAt, String>) {
        // A run that is resumed recognised in an earlier life of the agent, and asks only whether that life goes on.
        let awaits = |running: &Running| running.number == run && running.machine.phase() == Phase::Conveyed;
        let asked = self.run.as_ref().is_some_and(awaits);
        let recognition = done.and_then(|done| {
            let change = self.follower.observe(&done.recognised.observation);
            let dropped = done.recognised.in_place.then(|| self.follower.restarted_in_place()).flatten();
            let change = dropped.map_or(change, LifeChange::Reborn);
            self.serving = done.recognised.observation.serving;
            if !asked {
                self.life_changed(change, Some(done.grace_opened));
            }
            let life = self.follower.current().cloned().filter(|_| self.follower.runs());
            let life = life.ok_or_else(|| "no lock manager runs".to_owned())?;
            // Before the run is said to have got here: whoever goes on with it has to count this grace period.
            self.grace_seen.note(&life, done.grace_opened, self.clock);
            Ok(Recognition { life, grace_opened: done.grace_opened, grace_length: done.grace_length })
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

    /// Time passed.
    pub(crate) fn tick_run(&mut self, now: Moment) {
        let Some(running) = &mut self.run else { return };
        if running.store_retry.is_some_and(|at| now >= at) {
            running.store_retry = None;
            self.carry_out();
        }
        if let Some(running) =
            self.run.as_mut().filter(|r| now.since(r.said_at) >= crate::limits::PROGRESS_INTERVAL)
        {
            running.said_at = now;
            self.say_progress();
        }
        // Who is present is asked of all there are, so not before it matters.
        if self.run.as_ref().is_some_and(|running| running.machine.is_due(now)) {
            if self
                .run
                .as_ref()
                .and_then(|running| running.machine.next_timeout())
                .is_some_and(|at| now >= at)
            {
                // Who is retired for having no record is looked for once more.
                self.scan(now);
            }
            let present = self.capture.found.clients.keys().cloned().collect();
            // A look at one that has stopped shows no life that goes on.
            let looked_at = self.looked_at.filter(|_| self.follower.runs());
            self.advance(Event::Tick { present, looked_at });
        }
    }

    /// Carries out what is to be done, in order, as far as the store goes along.
    fn carry_out(&mut self) {
        loop {
            let Some(running) = &mut self.run else { return };
            if running.store_retry.is_some() {
                return;
            }
            let Some(next) = running.todo.take() else { break };
            match next {
                Todo::Act(action) => self.act(action),
                Todo::Persist(portion) => {
                    let portion = self.spare_the_living(portion);
                    if let Err(error) = self.persist(&portion) {
                        let now = self.clock.now();
                        self.health.failed(now, &error.to_string());
                        let Some(running) = &mut self.run else { return };
                        running.store_retry = Some(now + crate::limits::STORE_RETRY);
                        running.todo.put_back(portion);
                        return;
                    }
                }
            }
        }
        self.say_phase();
    }

    /// Tells those who wait how far it is.
    fn say_phase(&mut self) {
        let Some(running) = &mut self.run else { return };
        let phase = running.machine.phase();
        if running.said.replace(phase) == Some(phase) {
            return;
        }
        tracing::info!(run = running.machine.run(), %phase, "a run goes on");
        self.say_progress();
    }

    fn say_progress(&mut self) {
        let Some(running) = &mut self.run else { return };
        if !running.waiting.is_empty() {
            let progress = super::status::progress(&running.machine);
            running.waiting.retain_mut(|responder| responder.progress(&progress));
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
                    let claim = Claim::new(*generation, &self.settings.server, &self.id, clock::wall_s());
                    self.hold(service, claim, contents, journal.clone());
                }
                Persist::Journal { service, generation, journal } => {
                    target = Some((service, *generation));
                    changes.push(Change::PutJournal(journal_text(journal)));
                }
                Persist::Outcomes { service, generation, lines } => {
                    target = Some((service, *generation));
                    changes.extend(lines.iter().map(|line| Change::AppendOutcome(outcome_text(line))));
                }
                Persist::Retire { service, generation, clients } => {
                    target = Some((service, *generation));
                    changes.extend(clients.iter().map(|client| Change::RemoveRecord(client.clone())));
                }
            }
        }
        if let Some((service, generation)) = target {
            self.store.commit(service, generation, &changes)?;
        }
        self.take_in(portion);
        Ok(())
    }

    /// What is durable is known.
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
                        held.outcomes.extend(lines.iter().cloned());
                    }
                }
                Persist::Retire { service, clients, .. } => {
                    if let Some(held) = self.held.get_mut(service) {
                        let removed: Vec<_> =
                            clients.iter().map(|c| heirlock_core::ledger::Entry::Remove(c.clone())).collect();
                        held.ledger.committed(&removed);
                    }
                }
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::CheckFit(strategy) => self.workshop.check_fit(strategy),
            Action::Fence(services) => {
                let owners =
                    services.iter().filter_map(|service| Some((service.clone(), self.owner_of(service)?)));
                self.workshop.fence(owners.collect());
            }
            Action::Claim { services, authority } => {
                let (won, refused) = self.claim_all(&services, &authority);
                self.advance(Event::Claimed { won, refused });
            }
            Action::Convey { services, how } => {
                let placed = self.convey(&services, how);
                self.advance(Event::Conveyed(placed));
            }
            Action::Recognise(strategy) => self.recognise(strategy),
            Action::Prove => match self.run.as_ref().and_then(|r| r.machine.grace().copied()) {
                Some(grace) => self.workshop.prove(grace),
                None => self.advance(Event::Proved(Err("no grace period is known".into()))),
            },
            Action::BringUp(services) => {
                let last_call = self
                    .run
                    .as_ref()
                    .and_then(|r| r.machine.grace())
                    .map_or(self.clock.now(), heirlock_core::grace::Grace::last_call);
                self.readiness.end();
                self.readiness = Arc::default();
                self.workshop.bring_up(&services, last_call, &self.readiness);
            }
            Action::Notify(notices) => {
                let now = self.clock.now();
                if let Some(running) = &mut self.run {
                    let until = now + crate::limits::SHARED_BEFORE_TOLD_MAX;
                    running.untold = Some(Untold { notices, until });
                }
                self.notify_once_shared(now);
            }
            Action::StopNotifying => self.stop_notifying(),
            Action::CleanUp => {
                self.take_conveyed_away();
            }
            Action::AwaitFinish => self.prepared(),
            Action::Over(end) => self.over(end),
        }
    }

    /// Places the records of all services. Those that can't be placed are named; their clients are told all the same.
    fn convey(
        &mut self,
        services: &[(ServiceName, BTreeMap<MonName, Vec<u8>>)],
        how: Conveyance,
    ) -> Result<Vec<Trouble>, String> {
        let directory = self.settings.state_directory.display().to_string();
        let mut troubles = Vec::new();
        for (service, records) in services {
            let name = self.announced_names(service).into_iter().next();
            let name = name.ok_or_else(|| format!("{service} has no name to announce"))?;
            let unplaced = self
                .conveyor
                .place(records, how, &name)
                .map_err(|error| format!("can't place the records of {service} into {directory}: {error}"))?;
            for (client, why) in unplaced {
                tracing::error!(%service, %client, why, "a record could not be placed; its client is told all the same");
                let entry = format!("{directory}/sm/{client}");
                troubles.push(Trouble { service: service.clone(), entry, why, fate_unknown: false });
            }
        }
        Ok(troubles)
    }

    /// Removes what was conveyed. What can't be removed is remembered, so that nobody takes it for a registration.
    pub(crate) fn take_conveyed_away(&mut self) {
        match self.conveyor.clean_up() {
            Ok(left) => {
                for (client, why) in left {
                    tracing::warn!(%client, why, "a conveyed record could not be taken away; the next start tries again");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "conveyed records could not all be taken away; the next start tries again");
            }
        }
    }

    fn recognise(&mut self, strategy: Strategy) {
        if strategy.drops_own_locks() {
            // The last look before everything is dropped: what is there now was there before.
            self.scan(self.clock.now());
        }
        let targets = self.run.as_ref().map(|r| r.machine.targets().to_vec()).unwrap_or_default();
        if let Some(running) = &mut self.run {
            running.before.get_or_insert_with(|| self.capture.found.clients.clone());
        }
        self.workshop.recognise(strategy, targets, self.grace_seen.since());
    }

    pub(crate) fn stop_notifying(&mut self) {
        if let Some(running) = &mut self.run {
            running.stop();
            running.untold = None;
            // Whoever is told from now on is told by others.
            running.stop = Arc::default();
        }
    }

    pub(crate) fn notify(&mut self, notices: Vec<Notice>) {
        let Some((grace, stop)) =
            self.run.as_ref().and_then(|r| Some((*r.machine.grace()?, Arc::clone(&r.stop))))
        else {
            return;
        };
        let host = ServiceName::host(&self.settings.server);
        let roles = self.peers.roles(&self.nlm_ports, false);
        // A reboot is told to peers as well: our own locks on them died with us. A mere restart is not.
        let rebooted = self.rebooted;
        let tellings = notices
            .into_iter()
            .map(|mut notice| {
                if notice.service == host && !rebooted {
                    notice.clients.retain(|client| !roles.is_peer(client));
                }
                Telling {
                    clients: notice.clients.iter().map(|c| (c.clone(), self.addresses_of(c))).collect(),
                    from: self.announcing_addresses(&notice.service),
                    names: self.announced_names(&notice.service),
                    notice,
                }
            })
            .collect();
        self.workshop.notify(tellings, grace, &stop, &self.readiness);
    }

    fn addresses_of(&self, client: &MonName) -> Vec<heirlock_core::notify::Destination> {
        let resolved = || self.capture.addresses.get(client).copied().map(Into::into);
        crate::notifier::destination_of(client).or_else(resolved).into_iter().collect()
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

    pub(crate) fn owner_of(&self, service: &ServiceName) -> Option<ServerName> {
        self.store.newest_claim(service).ok().flatten().map(|claim| claim.owner)
    }

    fn claim_all(
        &mut self,
        services: &[(ServiceName, Part)],
        authority: &Authority,
    ) -> (Vec<Claimed>, Vec<(ServiceName, String)>) {
        // What was captured until this moment belongs into the generation that is left.
        self.scan(self.clock.now());
        let (mut won, mut refused) = (Vec::new(), Vec::new());
        for (service, part) in services {
            let targets_lost = *part == Part::Own && won.is_empty() && services[0].1 == Part::Target;
            if targets_lost {
                break; // nothing is to be taken over, so nothing of our own is touched
            }
            match self.claim(service, authority) {
                Ok(claimed) => won.push(claimed),
                Err(NotClaimed::Refused(why)) => {
                    // What is held is looked up again before anybody asks for it another time.
                    self.beat_due = self.clock.now();
                    refused.push((service.clone(), why));
                }
                Err(NotClaimed::StoreFails(error)) => {
                    // Else whoever owes a run would begin the next one at once.
                    self.health.failed(self.clock.now(), &error.to_string());
                    refused.push((service.clone(), error.to_string()));
                }
            }
        }
        (won, refused)
    }

    fn claim(&mut self, service: &ServiceName, authority: &Authority) -> Result<Claimed, NotClaimed> {
        let store = self.store.as_ref();
        let newest = store.newest_claim(service)?;
        let heart = match &newest {
            Some(claim) if claim.owner != self.settings.server => {
                let now = self.clock.now();
                self.pulse.look(now, store)?;
                self.pulse.heart_of(&claim.owner, now)
            }
            _ => OwnerHeart::NeverSeen,
        };
        let generation = next_generation(service, newest.as_ref(), &self.settings.server, heart, authority)
            .map_err(|refusal| NotClaimed::Refused(refusal.to_string()))?;
        let claim = Claim {
            adopts: newest.as_ref().is_none_or(|c| c.owner != self.settings.server || c.released),
            ..Claim::new(generation, &self.settings.server, &self.id, clock::wall_s())
        };
        if let ClaimAnswer::Taken(other) = store.claim(service, &claim)? {
            let Claim { owner, generation, .. } = other;
            let overtaken = ClaimRefusal::Overtaken { service: service.clone(), owner, generation };
            return Err(NotClaimed::Refused(overtaken.to_string()));
        }
        tracing::info!(%service, %generation, "claimed");
        let (mut records, mut troubles) = (BTreeMap::new(), Vec::new());
        let mut sent: Vec<StateNumber> = self.own_state().into_iter().collect();
        // Loaded after the claim: the owner before us adds nothing any more.
        if let Some(base) = store.newest_generation(service, generation)? {
            let contents = store.load(service, base)?;
            let mended = self.mend(service, base, contents)?;
            sent.extend(mended.sent);
            (records, troubles) = (mended.contents.records, mended.troubles);
        }
        if let Some(claim) = newest {
            let of_owner = self.pulse.servers().get(&claim.owner).and_then(|report| report.state);
            sent.extend(of_owner.map(StateNumber));
        }
        Ok(Claimed { service: service.clone(), generation, records, sent, troubles })
    }

    fn prepared(&mut self) {
        let Some(running) = &mut self.run else { return };
        let report = super::status::report(&running.machine, &self.settings, &self.readiness);
        for responder in running.waiting.drain(..) {
            responder.done(Answer::Adoption(Box::new(report.clone())));
        }
    }

    pub(crate) fn over(&mut self, end: End) {
        let Some(running) = self.run.take() else { return };
        running.stop();
        self.reborn |= running.reborn && matches!(end, End::Refused(_));
        super::status::log_end(&running.machine, &end);
        let answer = super::status::answer(&running.machine, end, &self.settings, &self.readiness);
        for responder in running.waiting {
            responder.end(&answer);
        }
        self.rebooted = false;
        self.prune();
        self.capture.due = Some(self.clock.now());
    }

    /// Old generations are kept for a while, to look at after the fact.
    fn prune(&self) {
        for (service, held) in &self.held {
            let keep_from = heirlock_core::Generation(
                held.claim.generation.0.saturating_sub(crate::limits::GENERATIONS_KEPT),
            );
            if let Err(error) = self.store.prune(service, keep_from) {
                tracing::warn!(%service, %error, "old generations could not be removed");
            }
        }
    }
}

fn outcome_text(line: &OutcomeLine) -> String {
    serde_json::to_string(line).unwrap_or_default()
}

#[cfg(test)]
mod tests;
