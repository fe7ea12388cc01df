//! The checkers: one for each invariant of the design, as far as the model can show it.
//!
//! | | holds where |
//! |---|---|
//! | I1 | in modes `nsm` and `callout` a lock whose holder was said to be durable is on record, when it is granted and when it is lost; SM_MON is refused in time, and a client that is granted unprotected is listed as at risk; in mode `watch` nothing is promised |
//! | I2 | no client that believes to hold a lock is removed from the store; a lock whose holder was on record is there after an adoption, or its loss was told; of clients that were restarted locks are freed, and of no others, and none leaves the records for that while its service is being adopted |
//! | I3 | no claim over an owner that lives; the heart of a server that goes on beats; no server writes into another's generation, or holds a service and tells its clients long after a higher claim |
//! | I4 | no notification leaves outside grace or inside its margin |
//! | I5 | a number is odd, and reaches a client under one life alone |
//! | I6 | a record in the status monitor's directory is in the store soon, also where hints were lost |
//! | I7 | a run that drops a server's locks tells its clients; no peer is told of a mere restart |
//! | I8 | each client of an adoption has an outcome, in memory and in the store |
//! | I9 | an adoption that was interrupted is gone on with as soon as one may; none is refused for another one's sake; when faults have ended, every duty is done |
//! | I10 | runs, datagrams, and restarts of a lock manager for adoptions that meet are bounded |
//! | I11 | a name that becomes a file name can't leave its directory |

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use heirlock_agent::Agent;
use heirlock_core::claim::Claim;
use heirlock_core::history_check::HistoryCheck;
use heirlock_core::incarnation::Observation;
use heirlock_core::notify::Transmit;
use heirlock_core::store::{Change, Contents, RecordChange};
use heirlock_core::takeover::{Cause, End, Hindrance, Part, Phase, Takeover};
use heirlock_core::{Generation, Outcome, ServiceName, limits};
use heirlock_nsm::rpc::Call as RpcCall;
use heirlock_nsm::{MonName, StateNumber, sm};

use crate::Ms;
use crate::client::{Ask, Loss};
use crate::excuse::Losses;
use crate::lock_manager::{FileAt, GRACE_MS, Life, LockManagerAt, client_at};
use crate::losses::{Disturbed, Lost, Stored};
use crate::meetings::Meetings;
use crate::outside::OutsideOf;
use crate::schedule::{Capture, Level};
use crate::service::Service;
use crate::settings::{DEAD_AFTER, FORGET_AFTER, MARGIN};
use crate::world::{World, millis};

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: u8,
    /// How.
    pub what: String,
    /// When, in milliseconds since the world began.
    pub at: u64,
}

/// The memory of the checkers.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) violation: Option<Violation>,
    /// When something went wrong on the side of the servers.
    pub(crate) disturbances: Vec<Disturbed>,
    /// The clients that each lock manager has ever asked its status monitor to monitor.
    pub(crate) asked_for: BTreeSet<(LockManagerAt, usize)>,
    /// When each client's record was written by a lock manager's status monitor.
    pub(crate) recorded_at: BTreeMap<(LockManagerAt, usize), Ms>,
    /// When each lock manager last had each client registered.
    pub(crate) registered_at: BTreeMap<(LockManagerAt, usize), Ms>,
    /// In the order in which they were stored.
    pub(crate) outcomes: Vec<Stored>,
    /// Locks that were granted to another while their holder believed to have them.
    pub(crate) thefts: Vec<Lost>,
    pub(crate) losses: Losses,
    pub(crate) history: HistoryCheck,
    pub(crate) meetings: Meetings,
    datagrams: BTreeMap<usize, VecDeque<Ms>>,
    beats: BTreeMap<usize, VecDeque<Ms>>,
    runs: BTreeMap<(LockManagerAt, u64), (Ms, u64)>,
    /// How many runs that were asked for each agent has refused, by its number.
    refused: BTreeMap<(LockManagerAt, u64), u64>,
    /// Since when an adoption that was interrupted could be gone on with, by server, and how many runs had been begun.
    left_interrupted: BTreeMap<(usize, ServiceName), (Ms, u64)>,
}

/// How long after it lies in the directory a record is to be in the store.
pub(crate) const CAPTURED_MS_MAX: Ms = 6_000;
/// An interrupted adoption that could be gone on with for so long was forgotten: a run that is refused is begun again after 2 s.
const TAKEN_UP_MS_MAX: Ms = 6_000;
/// After which a server has learnt of a higher claim.
const LEARNT_MS_MAX: Ms = 3_000;
/// A number that was sent again in a life that began unseen, and came late.
const REPEATED_MS_MAX: Ms = 4_500;
/// After which an agent that stood still has looked at its lock manager, and what it sent before has arrived.
const LOOKED_MS_MAX: Ms = 1_000;
/// Datagrams to one client within a second.
const DATAGRAMS_MAX: usize = 120;
/// Heartbeats of one server within a second: one of its own accord, and the others for news. In 4,000 seeds 11 at most.
const BEATS_MAX: usize = 20;
/// Runs that one agent begins within a minute for each lock manager.
const RUNS_MAX: u64 = 40;

impl World {
    /// Notes the first promise that is broken.
    pub(crate) fn violated(&mut self, invariant: u8, what: String) {
        self.say(|| format!("I{invariant} VIOLATED: {what}"));
        let at = self.now;
        self.checks.violation.get_or_insert(Violation { invariant, what, at });
    }

    // I3

    pub(crate) fn check_claim(&mut self, server: usize, service: &ServiceName, claim: &Claim) {
        let Some(newest) = self.store.newest_claim(service) else { return };
        let us = &self.servers[server].name;
        if newest.generation >= claim.generation || newest.owner == *us || newest.released {
            return;
        }
        let Some(owner) = self.servers.iter().position(|s| s.name == newest.owner) else { return };
        let beat = self.beat_at[owner].unwrap_or_default();
        let is_maintained = self.store.is_maintained(&newest.owner);
        if is_maintained && !self.cluster.answers_for(server, service, &newest.owner) {
            let what = format!("{us} claims {service}, whose owner {} is being maintained", newest.owner);
            return self.violated(3, what);
        }
        let lives = self.agents[owner].is_some() && self.now < beat + millis(DEAD_AFTER) - 500;
        // Else an operator answers for it, or the cluster manager.
        if lives && !self.cluster.answers_for(server, service, &newest.owner) {
            let what = format!("{us} claims {service}, whose owner {} lives", newest.owner);
            self.violated(3, what);
        }
    }

    // I2, I3, I5, I8, by the history of services

    /// A server made a claim, or gave one up.
    pub(crate) fn note_claim(&mut self, service: &ServiceName) {
        if let Some(newest) = self.store.newest_claim(service) {
            self.checks.history.newest(service, &newest);
        }
        self.judge_history();
    }

    /// A generation is begun, and is not there yet: the one before has all its clients.
    pub(crate) fn note_begin(
        &mut self,
        server: usize,
        service: &ServiceName,
        generation: Generation,
        contents: &Contents,
    ) {
        self.look_at_history(service);
        let keys = contents.records.keys().cloned().collect();
        self.checks.history.begins(service, generation, &keys);
        self.note_act(server, service, generation);
    }

    /// A server writes into a generation.
    pub(crate) fn note_act(&mut self, server: usize, service: &ServiceName, generation: Generation) {
        self.checks.history.acts(service, generation, &self.servers[server].name);
        self.judge_history();
    }

    fn look_at_history(&mut self, service: &ServiceName) {
        let memory = self.store.memory.clone();
        // The store in memory can always be read.
        let _ = self.checks.history.look_at(&memory, service);
        self.judge_history();
    }

    fn judge_history(&mut self) {
        let broken = self.checks.history.broken().next().filter(|_| self.checks.violation.is_none());
        if let Some((invariant, what)) = broken.map(|broken| (broken.rule.invariant(), broken.to_string())) {
            self.violated(invariant, what);
        }
    }

    // I4, I3, I7, I10

    /// A lock manager tells clients of its own services alone.
    pub(crate) fn check_sender(&mut self, of: LockManagerAt, service: usize) {
        let its = self.services[service].lock_manager_on(of.server);
        if its != of {
            let (us, its, name) =
                (&self.servers[of].name, &self.servers[its].name, &self.services[service].name);
            let what = format!("{us} tells clients of {name}, which {its} serves");
            self.violated(7, what);
        }
    }

    pub(crate) fn check_datagram(&mut self, of: LockManagerAt, service: usize, transmit: &Transmit) {
        let server = of.server;
        let (name, us) = (self.services[service].name.clone(), self.servers[server].name.clone());
        let client = client_at(transmit.to.ip());
        if client.is_none() && !name.is_host() {
            self.violated(7, format!("{us} tells {}, a server that it mounts from, of {name}", transmit.to));
        }
        let now = self.now;
        if let Some(client) = client {
            let count = within_a_second(self.checks.datagrams.entry(client).or_default(), now);
            if count > DATAGRAMS_MAX {
                self.violated(10, format!("{count} datagrams to client {client} within a second"));
            }
        }
        let is_notify = RpcCall::decode(&transmit.payload).is_ok_and(|call| call.prog == sm::PROGRAM);
        if !is_notify {
            return;
        }
        let it = &self.servers[of];
        let left = it.grace_until.saturating_sub(now);
        // A proof is a second old at most; a stop of lockd meanwhile can't be seen.
        let was_stopped = now <= it.stopped_at + millis(limits::GRACE_PROOF_AGE_MAX);
        if (!it.in_grace(now) || left < millis(MARGIN)) && !was_stopped {
            let what = format!("{us} notifies {} of {name} with {left} ms of grace left", transmit.to);
            self.violated(4, what);
        }
        let newest = self.store.newest_claim(&name);
        if let Some(claim) = newest.filter(|claim| claim.owner != us) {
            let at = self.claimed_at.get(&(name.clone(), claim.generation)).copied().unwrap_or_default();
            let is_blind =
                self.is_cut_off(server) || self.was_disturbed_since(at.saturating_sub(3_000), service);
            if now > at.max(self.servers[server].resumed_at) + LEARNT_MS_MAX && !is_blind {
                self.violated(
                    3,
                    format!("{us} still tells clients of {name}, which {} claimed", claim.owner),
                );
            }
        }
    }

    // I5

    pub(crate) fn check_number(&mut self, client: usize, service: usize, life: Life, state: StateNumber) {
        let name = self.services[service].name.clone();
        if !state.is_odd() {
            self.violated(5, format!("{name} announces the even number {state}"));
        }
        let before = self.clients[client].heard.insert((service, state.0), life);
        // The next run's number follows soon. A server that tells knows that another one took over.
        let is_known =
            self.knows_of_life(life.of, self.servers[life.of].grace_until.saturating_sub(GRACE_MS));
        if let Some(before) = before.filter(|before| *before != life && (is_known || before.of != life.of)) {
            let what =
                format!("{name} tells client {client} number {state} in {life:?}, and did in {before:?}");
            self.violated(5, what);
        }
    }

    /// Whether the agent has had the time to see a life of its lock manager that began then: between two looks it can't, nor can one
    /// that stood still, until it has looked.
    fn knows_of_life(&self, of: LockManagerAt, began: Ms) -> bool {
        let resumed = self.servers[of.server].resumed_at + LOOKED_MS_MAX;
        self.now > self.servers[of].unseen_until.max(began + REPEATED_MS_MAX).max(resumed)
    }

    // I2, I8

    /// A client that is reported to have registered again was registered in the life of its lock manager that runs.
    fn check_registered(&mut self, server: usize, service: &ServiceName, client: &MonName) {
        let at = client.address().and_then(client_at).zip(self.service(service));
        let Some((number, at)) = at.filter(|_| self.is_of_the_life_that_runs(server, service)) else {
            return;
        };
        let of = self.services[at].lock_manager_on(server);
        let newest = self.store.newest_claim(service).map(|claim| (service.clone(), claim.generation));
        let claimed = newest.and_then(|claim| self.claimed_at.get(&claim)).copied().unwrap_or_default();
        // A run tells of the life that began after its claim, or that had begun before: another one may have begun since, whose own run
        // follows.
        let lives = &self.servers[of].graces_began;
        let began =
            lives.iter().find(|began| **began >= claimed).or(lives.last()).copied().unwrap_or_default();
        // It registered in the life before, whose end its server has yet to see: then it did so for this adoption.
        let since = if self.knows_of_life(of, began) { began } else { began.min(claimed) };
        let Checks { registered_at, recorded_at, .. } = &self.checks;
        let last = [registered_at, recorded_at].into_iter().filter_map(|seen| seen.get(&(of, number))).max();
        if last.is_none_or(|last| *last < since) {
            let what = format!(
                "{} reports of {service} that {client} registered again, which last did so at {last:?}, before {since}",
                self.servers[of].name
            );
            self.violated(8, what);
        }
    }

    pub(crate) fn check_change(&mut self, server: usize, service: &ServiceName, change: &Change) {
        match change {
            Change::AppendOutcome(line) => {
                let client = line.client.client().clone();
                let is_good = line.outcome.is_good();
                if line.outcome == Outcome::ReRegistered {
                    self.check_registered(server, service, &client);
                }
                // Of a life that is over, but whose end its server has yet to see, it says nothing about a later loss.
                if is_good && !self.is_of_the_life_that_runs(server, service) {
                    return;
                }
                let stored = Stored { service: service.clone(), client, is_good, at: self.now };
                self.checks.outcomes.push(stored);
            }
            Change::Record(RecordChange::Remove(key)) => {
                self.checks.history.gave_up(service, key);
                let name = key.client();
                let Some(client) = name.address().and_then(client_at) else { return };
                let Some(at) = self.service(service) else { return };
                let of = self.services[at].lock_manager_on(server);
                let it = &self.clients[client];
                let is_fresh =
                    self.checks.recorded_at.get(&(of, client)).is_some_and(|at| at + 3_000 > self.now);
                if is_fresh {
                    return; // too new for the last look; the next one brings it back
                }
                // It came back for another lock and gave that up: its lock manager knows that it holds none.
                let since = self.checks.registered_at.get(&(of, client)).copied().unwrap_or_default();
                let held = it.locks.iter().find(|(file, held)| {
                    // It asks for it again, or gives it up.
                    let is_reclaiming = it.calls.contains_key(file);
                    let is_told =
                        |loss: &Loss| self.told_of_loss(service, name, loss.at).any(|it| !it.is_good);
                    // It was reported as lost or unreachable, and did not come back for so long: that leaks end is a rule.
                    let is_over = |loss: &Loss| {
                        let mut told = self.told_of_loss(service, name, loss.at);
                        told.any(|it| !it.is_good && it.at + millis(FORGET_AFTER) <= self.now)
                    };
                    let was_there = self.checks.recorded_at.contains_key(&(of, client));
                    let came_back = held.loss.as_ref().is_some_and(|loss| {
                        since > loss.at
                            || loss.unseen
                            || loss.freed
                            || is_over(loss)
                            || (was_there && is_told(loss))
                    });
                    file.0 == at && held.listed && !is_reclaiming && !came_back
                });
                if let Some((file, held)) = held {
                    self.say(|| self.servers[of].files_of(client));
                    let what = format!(
                        "{} forgets client {client} of {service}, which believes to hold {file:?} ({held:?})",
                        self.servers[of].name
                    );
                    self.violated(2, what);
                }
            }
            Change::Record(RecordChange::Put(key, _)) => {
                self.check_name(key.client());
                self.check_client(server, service, key.client());
            }
            Change::PutState(_) | Change::PutJournal(_) => {}
        }
    }

    /// A client that says while a service is being adopted that it was restarted stays on record with the others: that it was told
    /// is known when the adoption is over, and not before. How far it is stands in the journal that is written with the removal:
    /// the one in the store may be older, where the store has failed since.
    pub(crate) fn check_restarted_stay(&mut self, server: usize, service: &ServiceName, changes: &[Change]) {
        // Nearly every commit removes no client.
        let removed = changes.iter().filter_map(|change| match change {
            Change::Record(RecordChange::Remove(key)) => key.client().address().and_then(client_at),
            _ => None,
        });
        let removed: Vec<usize> = removed.collect();
        if removed.is_empty() {
            return;
        }
        let Some(claim) = self.store.newest_claim(service) else { return };
        let claimed = self.claimed_at.get(&(service.clone(), claim.generation)).copied();
        let written = changes.iter().rev().find_map(|change| match change {
            Change::PutJournal(journal) => Some(journal.phase),
            _ => None,
        });
        let phase = written.or_else(|| Some(self.store.journal(service, claim.generation)?.phase));
        if phase.is_none_or(|phase| phase.is_over() || phase == Phase::Settling) {
            return;
        }
        for client in removed {
            if self.clients[client].restarted_at > claimed {
                let what = format!(
                    "{} forgets client {client}, which was restarted while {service} is being adopted",
                    self.servers[server].name
                );
                self.violated(2, what);
            }
        }
    }

    /// The newest generation of a service tells of locks in the life that this server's lock manager lives now.
    fn is_of_the_life_that_runs(&self, server: usize, service: &ServiceName) -> bool {
        let Some(of) = self.lock_manager_of(server, service) else { return false };
        let seen = self.servers[of].observe(self.now);
        let noted = self.store.see_newest(service, |contents| contents.journal.as_ref()?.life.clone());
        noted.flatten().is_some_and(|life| life.boot == seen.boot && seen.start.as_ref() == Some(&life.start))
    }

    /// I7: a client that comes onto record as a service's has registered with the lock manager that serves it there, or is a client
    /// of another service which that one serves.
    fn check_client(&mut self, server: usize, service: &ServiceName, name: &MonName) {
        let Some(client) = name.address().and_then(client_at) else { return };
        let Some(of) = self.lock_manager_of(server, service) else { return };
        let is_known = |service: &Service| {
            let its = service.lock_manager_on(server) == of;
            its && self.is_client_of(client, &service.name)
        };
        if self.checks.asked_for.contains(&(of, client)) || self.services.iter().any(is_known) {
            return;
        }
        let what = format!("{} takes client {client} for one of {service}", self.servers[of].name);
        self.violated(7, what);
    }

    /// I11
    pub(crate) fn check_name(&mut self, name: &MonName) {
        let text = name.as_str();
        if text.contains('/') || text.starts_with('.') || text.contains(char::is_control) {
            self.violated(11, format!("{text:?} becomes a file name"));
        }
    }

    // I8

    pub(crate) fn check_end(&mut self, of: LockManagerAt, machine: &Takeover, end: &End) {
        let foreign = self
            .services
            .iter()
            .find(|service| machine.has_member(&service.name) && service.lock_manager_on(of.server) != of);
        if let Some(service) = foreign {
            let what = format!("a run of {} tells clients of {}", self.servers[of].name, service.name);
            self.violated(7, what);
        }
        if machine.cause() == Cause::Asked && matches!(end, End::Refused(_)) {
            let agent = self.servers[of.server].agent;
            *self.checks.refused.entry((of, agent)).or_default() += 1;
        }
        let (End::Settled(summaries) | End::Failed { summaries, .. }) = end else { return };
        // A run that is done anew, or by another server, says nothing of its clients. Any other one does.
        let is_final = match end {
            End::Failed { hindrance, .. } => matches!(
                hindrance,
                Hindrance::Conveying
                    | Hindrance::Recognition
                    | Hindrance::Proof
                    | Hindrance::Finish
                    | Hindrance::BringUp
                    | Hindrance::NoClientCalled
            ),
            _ => machine.phase() == Phase::Settled,
        };
        if !is_final {
            return;
        }
        let silent = summaries.iter().find_map(|summary| {
            // Where a run fails on its way, another life shows whether locks of this server's own clients are gone.
            let is_owed = machine.phase() == Phase::Settled || machine.owes(&summary.service);
            let client = summary
                .clients
                .iter()
                .find(|c| is_owed && c.outcome.is_none() && is_client(c.client.client()))?;
            Some((summary.service.clone(), client.client.clone()))
        });
        if let Some((service, client)) = silent {
            self.violated(8, format!("nothing is said of {client}, a client of {service}"));
        }
    }

    // I7

    /// A run that drops a lock manager's locks must tell the clients of its services. `seen`: that lock manager, whose locks go.
    pub(crate) fn check_members(&mut self, of: LockManagerAt, agent: &Agent<OutsideOf>, seen: &Observation) {
        let is_served = |service: &ServiceName| self.lock_manager_of(of.server, service) == Some(of);
        let lives_here = |service: &ServiceName| {
            let life = agent.journal_of(service).and_then(|journal| journal.life.as_ref());
            life.is_some_and(|life| life.boot == seen.boot && seen.start.as_ref() == Some(&life.start))
        };
        let has_clients = |service: &ServiceName| {
            agent.ledger_of(service).is_some_and(|ledger| !ledger.stored().is_empty())
        };
        let forgotten = agent.held().find(|service| {
            is_served(service) && lives_here(service) && has_clients(service) && !agent.run_tells(service)
        });
        if let Some(service) = forgotten {
            let us = &self.servers[of].name;
            let what = format!("{service} loses its locks on {us}, and no run will tell its clients");
            self.violated(7, what);
        }
    }

    // I10

    /// `begun`: how many runs its agent has begun for this lock manager. Those that were asked for and refused do nothing; how
    /// often its caller asks is the caller's matter.
    pub(crate) fn check_bounds(&mut self, of: LockManagerAt, begun: u64) {
        let (now, agent) = (self.now, self.servers[of.server].agent);
        let begun = begun - self.checks.refused.get(&(of, agent)).copied().unwrap_or_default();
        let entry = self.checks.runs.entry((of, agent)).or_insert((now, begun));
        if now > entry.0 + 60_000 {
            *entry = (now, begun);
        }
        let runs = begun.saturating_sub(entry.1);
        if runs > RUNS_MAX {
            self.violated(10, format!("{} began {runs} runs within a minute", self.servers[of].name));
        }
    }

    /// A server has written a heartbeat, which all others read.
    pub(crate) fn check_beats(&mut self, server: usize) {
        let count = within_a_second(self.checks.beats.entry(server).or_default(), self.now);
        if count > BEATS_MAX {
            self.violated(10, format!("{} beats {count} times within a second", self.servers[server].name));
        }
    }

    // Locks

    /// A lock is granted: does another client believe to hold it?
    pub(crate) fn check_grant(&mut self, to: usize, file: FileAt) {
        for other in 0..self.clients.len() {
            let is_leaving = self.clients[other].calls.get(&file).is_some_and(|call| call.ask == Ask::Unlock);
            if other == to || is_leaving {
                continue;
            }
            let Some(held) = self.clients[other].locks.remove(&file) else { continue };
            self.clients[other].calls.remove(&file);
            self.say(|| {
                format!("{file:?} is granted to client {to}, and client {other} believes to hold it")
            });
            match held.loss {
                Some(loss) => {
                    self.checks.thefts.push(Lost { client: other, file, loss, listed: held.listed });
                }
                None => {
                    self.violated(
                        3,
                        format!("{file:?} is granted to client {to}, and client {other} has it"),
                    );
                }
            }
        }
    }

    /// All servers and clients had time to come to rest.
    pub(crate) fn check_all(&mut self) {
        if self.checks.violation.is_none() {
            self.check_rest();
            self.check_losses();
            let all: Vec<ServiceName> = self.services.iter().map(|service| service.name.clone()).collect();
            all.iter().for_each(|service| self.look_at_history(service));
        }
    }

    // I9

    /// An adoption that was interrupted is gone on with as soon as one may. An adoption that is refused was tried.
    fn check_interrupted(&mut self) {
        let now = self.now;
        let mut left: BTreeMap<(usize, ServiceName), (Ms, u64)> = BTreeMap::new();
        let going = self.agents.iter().enumerate().filter(|(server, _)| !self.is_stopped(*server));
        for (server, it) in going.filter_map(|(server, it)| Some((server, it.as_ref()?))) {
            // While the store keeps it waiting it can do nothing.
            let waited = if it.busy_until > now { 1_000 } else { 0 };
            for service in it.agent.left_interrupted() {
                let Some(of) = self.lock_manager_of(server, service) else { continue };
                let runs = it.agent.run_count_of(of.number);
                let key = (server, service.clone());
                let known = self.checks.left_interrupted.get(&key).filter(|(_, begun)| *begun == runs);
                let since = known.map_or(now, |(since, _)| *since + waited);
                left.insert(key, (since, runs));
            }
        }
        let forgotten = left.iter().find(|(_, (since, _))| since + TAKEN_UP_MS_MAX < now);
        let forgotten = forgotten.map(|((server, service), _)| (*server, service.clone()));
        self.checks.left_interrupted = left;
        if let Some((server, service)) = forgotten {
            let name = self.servers[server].name.clone();
            self.violated(9, format!("{name} does not go on with {service}, whose adoption was interrupted"));
        }
    }

    // I6, I3

    pub(crate) fn check_each_second(&mut self) {
        self.check_interrupted();
        self.check_waiting_registrations();
        let quiet = self.now.saturating_sub(CAPTURED_MS_MAX);
        for server in 0..self.servers.len() {
            if !self.has_seen_all_since(server, quiet) {
                continue;
            }
            if let Some((invariant, what)) =
                self.silent_heart(server, quiet).or_else(|| self.neglected(server, quiet))
            {
                return self.violated(invariant, what);
            }
        }
    }

    /// Whether this server's agent has gone on all the time since then, with nothing in its way.
    fn has_seen_all_since(&self, server: usize, quiet: Ms) -> bool {
        let it = &self.servers[server];
        // An agent that the store keeps waiting can do nothing.
        let goes_on = self.agents[server]
            .as_ref()
            .is_some_and(|agent| agent.started < quiet && agent.busy_until <= self.now);
        let was_stopped = self.is_stopped(server) || it.resumed_at >= quiet;
        let is_blind = self.is_cut_off(server) || self.store_is_away();
        it.on && goes_on && !was_stopped && !is_blind
    }

    /// Such an agent's heart beats, whatever of its work or of its looks may hang, where the store keeps it from nothing.
    fn silent_heart(&self, server: usize, quiet: Ms) -> Option<(u8, String)> {
        let of_store = [Level::StoreFails, Level::StoreAnswersLost, Level::StoreLate, Level::StoreSlow];
        let is_disturbed = self.checks.disturbances.last().is_some_and(|last| last.at > quiet);
        let beat = self.beat_at[server].unwrap_or_default();
        let is_silent = beat + millis(DEAD_AFTER) < self.now;
        (is_silent && !is_disturbed && of_store.iter().all(|level| self.levels.of(*level) == 0)).then(|| {
            (3, format!("the heart of {} has been silent since {beat} ms", self.servers[server].name))
        })
    }

    /// The duty that such an agent should have done long ago.
    fn neglected(&self, server: usize, quiet: Ms) -> Option<(u8, String)> {
        let it = &self.servers[server];
        let agent = &self.agents[server].as_ref()?.agent;
        for name in agent.held() {
            let Some(at) = self.service(name).filter(|at| !self.was_disturbed_since(quiet, *at)) else {
                continue;
            };
            let of = self.services[at].lock_manager_on(server);
            let monitor = &self.servers[of];
            let Some(held) = agent.claim_of(name) else { continue };
            let released = self.released_at.get(&(name.clone(), held.generation));
            if released.is_some_and(|at| *at < quiet) {
                return Some((3, format!("{} still holds {name}, whose claim it gave up", it.name)));
            }
            let Some(claim) = self.store.newest_claim(name) else { continue };
            let claimed = self.claimed_at.get(&(name.clone(), claim.generation));
            if claimed.is_none_or(|at| *at >= quiet) {
                continue; // known or compared at its next look
            }
            if claim.generation != held.generation {
                if claim.owner != it.name {
                    return Some((
                        3,
                        format!("{} still holds {name}, which {} claimed", it.name, claim.owner),
                    ));
                }
                continue;
            }
            // Where a look hangs that would have shown a client, only those are known that our own status monitor does not grant
            // before they are durable.
            let is_blind = monitor.blind_until >= quiet;
            if is_blind && (monitor.capture != Capture::Nsm || monitor.grants_unprotected) {
                continue;
            }
            let missing = self.store.see_newest(name, |contents| {
                let is_missing = |client: &usize| {
                    let at = self.checks.recorded_at.get(&(of, *client)).copied().unwrap_or(self.now);
                    let is_known = contents.records.contains_key(&self.clients[*client].key);
                    !is_known
                        && at < quiet
                        && (monitor.capture == Capture::Nsm || monitor.has_record(*client))
                };
                monitor.monitored().filter(is_missing).min()
            });
            if let Some(client) = missing.flatten() {
                return Some((
                    6,
                    format!("client {client} is registered at {}, and {name} doesn't know it", monitor.name),
                ));
            }
        }
        None
    }

    // I9

    /// Whether all agents run, and none of them has anything to do.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.agents.iter().all(|agent| agent.as_ref().is_some_and(|agent| is_at_rest(&agent.agent)))
    }

    /// Faults have ended long ago: nothing may be left to do.
    pub(crate) fn check_rest(&mut self) {
        for server in 0..self.servers.len() {
            let name = self.servers[server].name.clone();
            let Some(agent) = &self.agents[server] else {
                return self.violated(9, format!("{name} has no agent, long after everything was repaired"));
            };
            if !is_at_rest(&agent.agent) {
                return self
                    .violated(9, format!("{name} is not at rest, long after everything was repaired"));
            }
        }
        for at in 0..self.services.len() {
            let name = self.services[at].name.clone();
            let claim = self.store.newest_claim(&name);
            let Some(claim) = claim.filter(|claim| !claim.released) else {
                return self.violated(9, format!("no server has {name}, long after everything was repaired"));
            };
            let found = self.store.see(&name, claim.generation, |contents| {
                let known: BTreeSet<MonName> =
                    contents.outcomes.iter().map(|line| line.client.client().clone()).collect();
                (contents.journal.clone(), known)
            });
            let Some((journal, known)) = found else {
                return self
                    .violated(9, format!("generation {} of {name} was never begun", claim.generation));
            };
            let Some(journal) = journal else {
                return self.violated(9, format!("generation {} of {name} has no journal", claim.generation));
            };
            let phase = journal.phase;
            let begun_with = self.store.begun_with(&name, claim.generation).into_iter().flatten();
            let silent = begun_with.into_iter().find(|c| !known.contains(*c) && is_client(c)).cloned();
            // A run that failed on its way was judged at its end. It has left this server's own clients alone, if it did not owe
            // them word.
            let is_left_alone =
                phase == Phase::Failed && journal.members.contains(&(name.clone(), Part::Own));
            let tells = !journal.members.is_empty() && !is_left_alone;
            if !phase.is_over() {
                return self.violated(9, format!("the journal of {name} stays at {phase}"));
            }
            if let Some(client) = silent.filter(|_| tells) {
                self.violated(8, format!("no outcome of {client}, a client of {name}, is in the store"));
            }
        }
    }
}

/// Notes one more, and answers how many there were within a second.
fn within_a_second(times: &mut VecDeque<Ms>, now: Ms) -> usize {
    times.push_back(now);
    while times.front().is_some_and(|at| *at + 1_000 < now) {
        times.pop_front();
    }
    times.len()
}

/// Whether nothing is going on, and nothing owed.
pub(crate) fn is_at_rest(agent: &Agent<OutsideOf>) -> bool {
    agent.is_at_rest() && agent.owes_nothing()
}

/// A peer is told of a reboot alone, and has no outcome otherwise.
fn is_client(name: &MonName) -> bool {
    name.address().and_then(client_at).is_some()
}

/// How a run ended.
pub(crate) fn in_words(end: &End) -> String {
    let summaries = match end {
        End::Refused(why) => return format!("refused: {why}"),
        End::Unbegun { why, .. } => return format!("claimed, and refused: {why}"),
        End::Failed { summaries, .. } | End::Settled(summaries) => summaries,
    };
    let why = if let End::Failed { why, .. } = end { format!(" failed: {why}") } else { String::new() };
    let mut text = String::new();
    for summary in summaries {
        text += &format!(" {} {}:", summary.service, summary.state);
        for client in &summary.clients {
            let outcome = client.outcome.map_or("unknown".to_owned(), |outcome| outcome.to_string());
            text += &format!(" {} {outcome}", client.client);
        }
    }
    why + &text
}
