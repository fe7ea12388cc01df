//! The reports of a run, of an adoption that is over, and of the agent.

use std::collections::BTreeMap;
use std::time::Duration;

use heirlock_core::claim::{Claim, OwnerHeart};
use heirlock_core::store::{Contents, Damaged, Place, ServerReport, Store};
use heirlock_core::takeover::{
    ClientSummary, End, Journal, Milestone, Part, Phase, Stamp, Summary, Takeover, Trouble,
};
use heirlock_core::{Moment, Outcome, ServiceName};
use heirlock_nsm::MonName;

use super::Inside;
use super::holdings::Held;
use super::outside::{Outside, Unready};
use crate::config::{Mode, Settings};
use crate::control::report::observed::{Monitored, Observed};
use crate::control::report::{
    AdoptionReport, Ailment, AilmentKind, ClientStatus, EntryTrouble, Heart, LockManagerStatus, Missed,
    OtherService, Problem, ProblemKind, ServerStatus, ServiceStatus, Slow, Source, StatusReport, StoreStatus,
    TimelineEntry,
};
use crate::control::{Answer, Failure, Progress, Wait};
use crate::limits;
use crate::survey::present::{names as names_in, unreadable_claim};
use crate::words::counted;

/// Clients that a report names as the slowest.
const SLOWEST: usize = 5;

/// A heart that was not seen to beat for more than so many intervals beats late.
const MISSED_BEATS_MAX: u32 = 3;

/// Before anything is known.
pub fn first(settings: &Settings, store: &str) -> StatusReport {
    let mut report = StatusReport::without_agent(settings.server.as_str(), store);
    (report.source, report.configuration) = (Source::Agent, settings.fingerprint());
    (report.store.well, report.store.error) = (false, Some("the agent is starting".into()));
    report
}

impl<O: Outside> Inside<O> {
    /// Makes the status known.
    pub fn publish(&self) {
        if self.outside.shows_status() {
            self.outside.publish(self.status(), self.capture.looked);
        }
    }

    /// How this server is, now.
    pub(crate) fn status(&self) -> StatusReport {
        let now = self.outside.now();
        let life = self.lives.running();
        StatusReport {
            server: self.settings.server.to_string(),
            agent: self.id.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            configuration: self.fingerprint.clone(),
            loop_turned_ms_ago: Some(0),
            looked_ms_ago: self.capture.looked.map(|at| millis(now.since(at))),
            source: Source::Agent,
            store: StoreStatus {
                place: self.store.place(Place::Store),
                well: self.store_error().is_none(),
                error: self.store_error().map(str::to_owned),
                unprotected_since_s: self.health.unprotected_since_s(),
            },
            lock_manager: LockManagerStatus {
                kind: self.settings.lock_manager.kind.as_str().into(),
                incarnation: life.map(ToString::to_string),
                serving: self.lives.is_serving(),
                needed: self.needs_a_lock_manager(),
            },
            protected_since_s: self.protection.since_s(),
            services: self.service_statuses(now),
            servers: self.server_statuses(now),
            maintenance: self.pulse.is_paused(),
            at_risk: self.clients_at_risk(),
            problems: self.problems(),
            observed: Some(Box::new(self.counted())),
        }
    }

    /// The counts since this agent began.
    fn counted(&self) -> Observed {
        let mut observed = self.counts.clone();
        observed.requests = self.tally.requests();
        if let Some(standing) = self.monitor_standing() {
            observed.monitor = Monitored::new(&standing.refusals, standing.left_unanswered);
        }
        observed
    }

    fn server_statuses(&self, now: Moment) -> Vec<ServerStatus> {
        let others = self.pulse.servers().iter().filter(|(name, _)| **name != self.settings.server);
        let interval = self.settings.heartbeat.interval;
        others.map(|(name, report)| server_status(report, self.pulse.heart_of(name, now), interval)).collect()
    }

    fn service_statuses(&self, now: Moment) -> Vec<ServiceStatus> {
        let configured = self.settings.services.iter().map(|s| s.name.clone());
        let host = ServiceName::host(&self.settings.server);
        configured.chain([host]).map(|service| self.service_status(now, &service)).collect()
    }

    /// Adds the clients that the adoption of a service did not tell and that have not come back since.
    fn add_missed(&self, status: &mut ServiceStatus, held: &Held) {
        let is_away = |client: &MonName| !self.capture.found.clients.contains_key(client);
        for (client, line) in held.missed().filter(|(client, _)| is_away(client)) {
            match line.outcome {
                Outcome::Lost => status.lost += 1,
                _ => status.unreachable += 1,
            }
            if status.missed.len() < limits::STATUS_CLIENTS_MAX {
                let record = held.ledger.stored().get(client);
                status.missed.push(ClientStatus {
                    client: client.to_string(),
                    names: record.map(|record| names_in(client, record)).unwrap_or_default(),
                    outcome: Some(line.outcome),
                    since_s: Some(held.journal.started_at_s.saturating_add_signed(line.at_ms / 1_000)),
                    why: line.why.clone(),
                });
            }
        }
    }

    fn service_status(&self, now: Moment, service: &ServiceName) -> ServiceStatus {
        let held = self.held.get(service);
        let machine = self.run_with(service).map(|running| &running.machine);
        let claim = held.map(|held| &held.claim).or_else(|| self.others.get(service));
        let phase = machine.map(Takeover::phase).or_else(|| held.map(|held| held.journal.phase));
        let configured = self.settings.service(service);
        let counts = machine.map(|machine| machine.counts_of(service).unwrap_or_else(|| machine.counts()));
        let left = machine.and_then(Takeover::grace).map(|grace| grace.ends().since(now));
        let adopted = held.filter(|held| !held.journal.timeline.is_empty());
        let mut status = ServiceStatus {
            service: service.to_string(),
            owner: claim.filter(|claim| !claim.released).map(|claim| claim.owner.to_string()),
            released_by: claim.filter(|claim| claim.released).map(|claim| claim.owner.to_string()),
            held: held.is_some(),
            configured: configured.is_some(),
            home: configured.and_then(|service| service.home.as_ref()).map(ToString::to_string),
            automatic: configured.is_some_and(|service| service.mode == Mode::Automatic),
            generation: claim.map(|claim| claim.generation.0),
            state_number: held.map(|held| held.state.0),
            records: held.map_or(0, |held| held.ledger.stored().len()),
            tombstones: held.map_or(0, |held| held.ledger.tombstones()),
            phase: phase.map(|phase| phase.to_string()),
            // An adoption that is told beside it goes on with it, and by no word of its own.
            awaits_finish: machine
                .is_some_and(|machine| machine.awaits_finish() && machine.targets().contains(service)),
            clients_to_tell: counts.map(|(clients, _)| clients),
            clients_told: counts.map(|(_, told)| told),
            grace_left_ms: left.map(millis),
            adopted_at_s: adopted.map(|held| held.journal.started_at_s),
            failure: held.and_then(|held| held.journal.failure.clone()),
            ..ServiceStatus::default()
        };
        if let Some(held) = held {
            self.add_missed(&mut status, held);
        }
        status
    }

    /// Whether clients would be without one: on a standby that holds nothing but its own name, without a client, none
    /// need run.
    fn needs_a_lock_manager(&self) -> bool {
        self.held.iter().any(|(service, held)| !service.is_host() || !held.ledger.stored().is_empty())
    }

    /// The ailments of this server.
    fn own_ailments(&self) -> Vec<Ailment> {
        let ailment = |kind, error: &str| Ailment { kind, error: Some(error.to_owned()) };
        let blind = self.capture.blind.as_deref();
        let blind = blind.map(|why| ailment(AilmentKind::MonitorDirectoryUnreadable, why));
        let store = self.store_error().map(|why| ailment(AilmentKind::StoreFails, why));
        let stopped = self.lives.running().is_none() && self.needs_a_lock_manager();
        let stopped = stopped.then_some(Ailment { kind: AilmentKind::NoLockManager, error: None });
        blind.into_iter().chain(store).chain(stopped).collect()
    }

    /// The same, as it tells the others.
    pub fn ailments(&self) -> Vec<String> {
        self.own_ailments().iter().map(Ailment::in_a_heartbeat).collect()
    }

    /// The store's error or loss.
    pub fn store_error(&self) -> Option<&str> {
        self.health.error().or_else(|| self.acquaintance.missing())
    }

    pub fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.own_ailments().iter().map(problem_of).collect();
        problems.extend(self.monitor_problems());
        problems.extend(self.stranger_problems());
        let left_behind = self.left_behind_problems();
        problems
            .extend(left_behind.iter().map(|why| Problem::new(ProblemKind::AddressLeftBehind).saying(why)));
        problems.extend(self.acquaintance.problem().map(|why| Problem::new(ProblemKind::Other).saying(&why)));
        let heart = |why: String| Problem::new(ProblemKind::Other).saying(&why);
        problems.extend(some_of(self.pulse.unreadable(), heart, |more| {
            Problem::new(ProblemKind::Other).saying(&format!("{more} more heartbeats can't be read"))
        }));
        let unreadable = self.unreadable.iter();
        problems
            .extend(unreadable.map(|(service, why)| {
                Problem::new(ProblemKind::Unreadable).of(service.as_str()).saying(why)
            }));
        problems.extend(self.others.iter().filter_map(|(service, claim)| unreadable_claim(service, claim)));
        let no_record = |problem: &heirlock_core::ledger::Problem| {
            Problem::new(ProblemKind::NoRecord).at(&problem.path).saying(&problem.why)
        };
        let sm = self.settings.state_directory.display().to_string();
        problems
            .extend(some_of(self.capture.known_problems.iter(), no_record, |more| more_strays(&sm, more)));
        // While a run waits for them the run says so.
        let missing = if self.run.is_none() { self.outside.unready() } else { Vec::new() };
        let missing = missing.into_iter().filter(|(service, _)| self.held.contains_key(service));
        problems.extend(
            missing
                .map(|(service, why)| Problem::new(ProblemKind::NotReady).of(service.as_str()).saying(&why)),
        );
        let full = self.held.iter().filter(|(_, held)| held.ledger.refused() > 0);
        problems.extend(full.map(|(service, held)| {
            Problem::new(ProblemKind::NoRoom).of(service.as_str()).with(held.ledger.refused())
        }));
        for (service, held) in &self.held {
            let folder = self.store.place(Place::Generation(service, held.claim.generation));
            let damaged = |damaged: &Damaged| {
                let path = format!("{folder}/{}", damaged.path);
                Problem::new(ProblemKind::NoRecord).at(&path).saying(&damaged.why)
            };
            problems.extend(some_of(held.unreadable(), damaged, |more| more_strays(&folder, more)));
        }
        problems
    }

    /// Notes since when every client that registers is on record, and which are not.
    pub fn note_protection(&mut self) {
        let standing = self.monitor_standing();
        let at_risk: Vec<MonName> = standing.as_ref().map(|s| s.at_risk.clone()).unwrap_or_default();
        let is_protected = self.store_error().is_none()
            && self.capture.blind.is_none()
            && !self.capture.behind
            && self.capture.caught_up
            && self.holdings_known
            && at_risk.is_empty()
            && standing.is_none_or(|standing| !standing.failing);
        let (now, now_s) = (self.outside.now(), self.outside.wall_s());
        self.health.note(now, now_s);
        self.protection.note(now_s, is_protected, at_risk);
    }

    fn clients_at_risk(&self) -> Vec<ClientStatus> {
        let client = |(client, since_s): (&MonName, &u64)| ClientStatus {
            client: client.to_string(),
            names: Vec::new(),
            outcome: None,
            since_s: Some(*since_s),
            why: None,
        };
        self.protection.at_risk().iter().take(limits::STATUS_CLIENTS_MAX).map(client).collect()
    }

    /// The report of the last adoption of a service, or of the one that is on.
    pub(crate) fn report_of(&self, service: &ServiceName) -> Option<AdoptionReport> {
        if let Some(running) = self.run_with(service) {
            let unready = self.outside.unready();
            return Some(of_run(&running.machine, Some(service), self.store.as_ref(), &unready));
        }
        let held = self.held.get(service).filter(|held| !held.journal.timeline.is_empty())?;
        Some(AdoptionReport {
            unready: unready_of(service, &self.outside.unready()),
            ..of_journal(service, held, self.store.as_ref())
        })
    }
}

/// How far a run is. `store`: why the store doesn't take what comes next; until it does nothing else is waited for.
pub fn progress(now: Moment, machine: &Takeover, settings: &Settings, store: Option<&str>) -> Progress {
    let (clients, answered) = machine.counts();
    let of_store = store.map(|why| format!("the store to work again ({why})"));
    let wait = of_store
        .or_else(|| waits_for(machine, settings))
        .map(|what| Wait::new(what, now, machine.waits_until()));
    Progress { phase: machine.phase(), clients, answered, wait, told: Vec::new() }
}

const PLACING: &str = "records to be placed into the status monitor's directory";

/// The reason for which a run waits now.
fn waits_for(machine: &Takeover, settings: &Settings) -> Option<String> {
    let (clients, answered) = machine.counts();
    let of_clients = |count: usize| counted(count, "client");
    Some(match machine.phase() {
        Phase::Intent if machine.has_fence() => {
            "what the adoption needs to be looked for, and the fence to confirm that the owner is off".into()
        }
        Phase::Intent => "what the adoption needs to be looked for".into(),
        Phase::Claimed if machine.is_placing() => PLACING.into(),
        Phase::Settling if machine.is_placing() && machine.not_back() == 0 => PLACING.into(),
        Phase::Conveyed => "the lock manager to recognise the records".into(),
        Phase::Recognised => "the grace period to be open".into(),
        Phase::Proved => format!("{} to be on this server and served", addresses(machine, settings)),
        Phase::Notifying => format!("{} to answer", of_clients(clients.saturating_sub(answered))),
        Phase::Settling => {
            format!(
                "{} to come back for locks, or the end of the grace period",
                of_clients(machine.not_back())
            )
        }
        _ => return None,
    })
}

fn addresses(machine: &Takeover, settings: &Settings) -> String {
    let taken = machine.targets().iter().filter_map(|service| settings.service(service));
    let addresses: Vec<String> = taken.flat_map(|s| s.addresses.iter().map(ToString::to_string)).collect();
    if addresses.is_empty() { "NFS".into() } else { addresses.join(", ") }
}

/// The report of a run, as far as it has come.
pub fn report(machine: &Takeover, store: &dyn Store, unready: &[Unready]) -> AdoptionReport {
    of_run(machine, None, store, unready)
}

/// The things that are missing at the addresses of one service.
fn unready_of(service: &ServiceName, unready: &[Unready]) -> Vec<String> {
    unready.iter().filter(|(of, _)| of == service).map(|(_, why)| why.clone()).collect()
}

/// The answer to the callers at the end of a run.
pub(crate) fn answer(
    machine: &Takeover,
    end: End,
    store: &dyn Store,
    unready: &[Unready],
) -> Result<Answer, Failure> {
    match end {
        End::Settled(_) => Ok(Answer::adopted(report(machine, store, unready), true)),
        End::Refused(message) => Err(Failure { message, refused: true, report: None, missing: Vec::new() }),
        End::Failed { why, summaries, .. } => {
            let known = (!summaries.is_empty()).then(|| {
                Box::new(AdoptionReport { failure: Some(why.clone()), ..report(machine, store, unready) })
            });
            Err(Failure {
                message: failed(machine, &why),
                refused: false,
                report: known,
                missing: Vec::new(),
            })
        }
        End::Unbegun { why, claimed } => {
            let message = failed(machine, &unbegun(&why, &claimed));
            Err(Failure { message, refused: false, report: None, missing: Vec::new() })
        }
    }
}

/// The sentence that tells an administrator what to do after a run that failed.
fn failed(machine: &Takeover, why: &str) -> String {
    match machine.targets() {
        // They were taken from us, which is what it says.
        [] => why.to_owned(),
        targets => format!(
            "{0} could not be adopted as it should: {why}; mend that and say 'heirlock adopt {1}' again: it opens \
             another grace period and tells every client",
            names(targets),
            targets.first().map_or("SERVICE", ServiceName::as_str)
        ),
    }
}

/// Of a refusal it is said that nothing was changed; here something was.
fn unbegun(why: &str, claimed: &[ServiceName]) -> String {
    format!("{why}; {} was claimed before that, and is this server's from now on", names(claimed))
}

/// Says in the log how a run ended, and of every client that was not told. The journal shows a line's message alone: each names
/// the client and the reason by itself.
pub fn log_end(machine: &Takeover, end: &End) {
    let (run, targets) = (machine.run(), names(machine.targets()));
    let (summaries, failure) = match end {
        End::Refused(why) => {
            tracing::warn!(run, why, "{targets}: refused, and nothing was changed: {why}");
            return;
        }
        End::Unbegun { why, claimed } => {
            let why = unbegun(why, claimed);
            tracing::error!(run, why, "{targets}: the run {run} failed: {why}");
            return;
        }
        End::Failed { why, summaries, .. } => (summaries, Some(why)),
        End::Settled(summaries) => (summaries, None),
    };
    if let Some(why) = failure {
        tracing::error!(run, why, "{targets}: the run {run} failed: {why}");
    }
    for summary in summaries {
        log_summary(run, summary);
    }
}

fn log_summary(run: &str, summary: &Summary) {
    let Summary { service, generation, state, clients, .. } = summary;
    let count = |wanted: Outcome| clients.iter().filter(|c| c.outcome == Some(wanted)).count();
    let told = clients.iter().filter(|client| client.outcome.is_some_and(Outcome::is_good)).count();
    tracing::info!(
        run,
        %service,
        %generation,
        %state,
        re_registered = count(Outcome::ReRegistered),
        acknowledged = count(Outcome::Acknowledged),
        unreachable = count(Outcome::Unreachable),
        lost = count(Outcome::Lost),
        "{service}: {told} of {} told, {} of them registered again; unreachable: {}, lost: {} (generation {generation})",
        counted(clients.len(), "client"),
        count(Outcome::ReRegistered),
        count(Outcome::Unreachable),
        count(Outcome::Lost),
    );
    if clients.is_empty() && summary.part == Part::Target {
        tracing::warn!(run, %service, "{service}: no client is on record, so none was told");
    }
    for ClientSummary { client, outcome, why, .. } in clients {
        if outcome.is_some_and(Outcome::is_good) {
            continue;
        }
        let why = why.as_deref().unwrap_or("the run ended before its outcome was known");
        let outcome = outcome.map_or("unknown".to_owned(), |outcome| outcome.to_string());
        tracing::warn!(%service, %client, outcome, why, "{service}: {client} was not told ({outcome}): {why}");
    }
}

/// Names in a sentence.
pub(crate) fn names(services: &[ServiceName]) -> String {
    match services {
        [] => "what this server serves".to_owned(),
        some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn of_run(
    machine: &Takeover,
    service: Option<&ServiceName>,
    store: &dyn Store,
    unready: &[Unready],
) -> AdoptionReport {
    let summaries = machine.summaries();
    let wanted = service.or(machine.targets().first());
    // In a self-adoption the one with the most clients is the most telling.
    let main = wanted
        .and_then(|wanted| summaries.iter().find(|summary| summary.service == *wanted))
        .or_else(|| summaries.iter().max_by_key(|summary| summary.clients.len()));
    let phase = if machine.awaits_finish() { "prepared".to_owned() } else { machine.phase().to_string() };
    let mut report = match main {
        Some(main) => of_summary(main, machine.timeline(), store),
        None => empty(&names(machine.targets())),
    };
    // Before its addresses are looked for, the knowledge of them is of the run before.
    let looked_for = machine.phase() >= Phase::Proved && !machine.awaits_finish();
    let looked_at = main.filter(|_| looked_for);
    report.unready = looked_at.map(|main| unready_of(&main.service, unready)).unwrap_or_default();
    report.strategy = machine.strategy().as_str().into();
    report.phase = phase;
    report.timeline = timeline(machine.timeline());
    report.started_at_s = machine.started_at_s();
    add_troubles(&mut report, machine.troubles());
    report.others =
        summaries.iter().filter(|other| other.service.as_str() != report.service).map(other).collect();
    report
}

/// The report of the adoption that began this generation, from the store; nothing where its journal can't be read.
pub fn past_report(
    service: &ServiceName,
    claim: Claim,
    mut contents: Contents,
    store: &dyn Store,
) -> Option<AdoptionReport> {
    let journal = contents.journal.take()?;
    let held = Held::new(claim, contents, journal, false, Duration::ZERO);
    Some(of_journal(service, &held, store))
}

pub fn of_journal(service: &ServiceName, held: &Held, store: &dyn Store) -> AdoptionReport {
    let Journal { phase, strategy, timeline: stamps, started_at_s, failure, .. } = &held.journal;
    let summary = held.summary(service);
    let mut report = of_summary(&summary, stamps, store);
    let prepared = *phase == Phase::Proved;
    report.phase = if prepared { "prepared".into() } else { phase.to_string() };
    report.failure = failure.clone();
    report.strategy = strategy.as_str().into();
    report.timeline = timeline(stamps);
    report.started_at_s = *started_at_s;
    add_troubles(&mut report, &held.journal.troubles);
    report
}

/// `stamps` tell when its clients began to be told.
fn of_summary(summary: &Summary, stamps: &[Stamp], store: &dyn Store) -> AdoptionReport {
    let count = |wanted: Outcome| summary.clients.iter().filter(|c| c.outcome == Some(wanted)).count();
    let good = |client: &&ClientSummary| client.outcome.is_some_and(Outcome::is_good);
    AdoptionReport {
        service: summary.service.to_string(),
        generation: summary.generation.0,
        state_number: summary.state.0,
        clients: summary.clients.len(),
        re_registered: count(Outcome::ReRegistered),
        acknowledged: summary.clients.iter().filter(good).count(),
        unreachable: count(Outcome::Unreachable),
        lost: count(Outcome::Lost),
        unknown: summary.clients.iter().filter(|client| client.outcome.is_none()).count(),
        slowest: slowest(summary, stamps),
        failed: summary.clients.iter().filter_map(missed).collect(),
        records_at: store.place(Place::Records(&summary.service, summary.generation)),
        ..empty(summary.service.as_str())
    }
}

/// The clients that took longest to answer. A run that was resumed began to tell its clients more than once; the first time
/// counts.
fn slowest(summary: &Summary, stamps: &[Stamp]) -> Vec<Slow> {
    let ready = stamps.iter().filter(|stamp| stamp.event == Milestone::Ready).map(|stamp| stamp.at_ms).min();
    let Some(ready) = ready else { return Vec::new() };
    let took = |client: &ClientSummary| {
        let took_ms = client.answered_ms?.saturating_sub(ready).max(0);
        Some(Slow { client: client.client.to_string(), took_ms })
    };
    let mut slowest: Vec<Slow> = summary.clients.iter().filter_map(took).collect();
    slowest.sort_by_key(|slow| std::cmp::Reverse(slow.took_ms));
    slowest.truncate(SLOWEST);
    slowest
}

fn empty(service: &str) -> AdoptionReport {
    AdoptionReport {
        service: service.to_owned(),
        generation: 0,
        state_number: 0,
        strategy: String::new(),
        phase: String::new(),
        failure: None,
        clients: 0,
        re_registered: 0,
        acknowledged: 0,
        unreachable: 0,
        lost: 0,
        unknown: 0,
        timeline: Vec::new(),
        slowest: Vec::new(),
        failed: Vec::new(),
        troubles: Vec::new(),
        others: Vec::new(),
        unready: Vec::new(),
        records_at: String::new(),
        started_at_s: 0,
        tenure: None,
        each_client: Vec::new(),
        changed: None,
    }
}

fn missed(client: &ClientSummary) -> Option<Missed> {
    let outcome = client.outcome.filter(|outcome| !outcome.is_good())?;
    let why = client.why.clone().unwrap_or_default();
    Some(Missed { client: client.client.to_string(), outcome, why })
}

fn other(summary: &Summary) -> OtherService {
    let count =
        |good| summary.clients.iter().filter(|c| c.outcome.map(Outcome::is_good) == Some(good)).count();
    OtherService {
        service: summary.service.to_string(),
        state_number: summary.state.0,
        clients: summary.clients.len(),
        acknowledged: count(true),
        // Clients that are yet to be told are not missed.
        missed: count(false),
    }
}

fn timeline(stamps: &[Stamp]) -> Vec<TimelineEntry> {
    let mut entries: Vec<TimelineEntry> =
        stamps.iter().map(|stamp| TimelineEntry { event: stamp.event, at_ms: stamp.at_ms }).collect();
    entries.sort_by_key(|entry| (entry.at_ms, entry.event == Milestone::Settled));
    entries
}

/// Counts entries that can't be read: an entry that may stand for a client without a known name is a client of unknown fate (I8).
fn add_troubles(report: &mut AdoptionReport, troubles: &[Trouble]) {
    let unknown = troubles.iter().filter(|trouble| trouble.fate_unknown).count();
    report.clients += unknown;
    report.unknown += unknown;
    report.troubles = troubles
        .iter()
        .map(|trouble| EntryTrouble { entry: trouble.entry.clone(), why: trouble.why.clone() })
        .collect();
}

/// A problem each, as many as are told, and one that counts the others: a user that may write into a folder may fill it.
fn some_of<T>(
    mut all: impl Iterator<Item = T>,
    told: impl Fn(T) -> Problem,
    more: impl Fn(usize) -> Problem,
) -> Vec<Problem> {
    let mut some: Vec<Problem> = all.by_ref().take(limits::PROBLEMS_OF_A_KIND_MAX).map(told).collect();
    let left = all.count();
    some.extend((left > 0).then(|| more(left)));
    some
}

fn more_strays(folder: &str, more: usize) -> Problem {
    let why = format!("{more} more entries below it are no records; look at the folder itself");
    Problem::new(ProblemKind::NoRecord).at(folder).saying(&why)
}

fn problem_of(ailment: &Ailment) -> Problem {
    let kind = match ailment.kind {
        AilmentKind::MonitorDirectoryUnreadable => ProblemKind::MonitorDirectoryUnreadable,
        AilmentKind::StoreFails => ProblemKind::StoreFails,
        AilmentKind::NoLockManager => ProblemKind::NoLockManager,
        AilmentKind::Other => ProblemKind::Other,
    };
    match &ailment.error {
        Some(error) => Problem::new(kind).saying(error),
        None => Problem::new(kind),
    }
}

/// How another server is, by its heartbeat and by the observations of its heart.
pub fn server_status(report: &ServerReport, heart: OwnerHeart, interval: Duration) -> ServerStatus {
    let mut status = ServerStatus {
        last_beat_at_s: Some(report.written_at_s),
        ailments: Ailment::all_of_a_heartbeat(&report.ailments),
        ..ServerStatus::unknown(report.server.as_str())
    };
    match heart {
        OwnerHeart::Beating { last_change } => {
            let is_late = last_change > interval.saturating_mul(MISSED_BEATS_MAX);
            status.heart = if is_late { Heart::Late } else { Heart::Beating };
            status.last_beat_age_ms = Some(millis(last_change));
        }
        OwnerHeart::Silent { for_time } => {
            status.heart = Heart::Silent;
            status.last_beat_age_ms = Some(millis(for_time));
        }
        OwnerHeart::Unknown { watched, needed } => {
            (status.watched_ms, status.to_watch_ms) = (Some(millis(watched)), Some(millis(needed)));
        }
        OwnerHeart::Paused => status.heart = Heart::Paused,
        OwnerHeart::NeverSeen => status.heart = Heart::NeverSeen,
    }
    status
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Held {
    /// The summary of its clients from the adoption that began its generation.
    fn summary(&self, service: &ServiceName) -> Summary {
        let mut answered: BTreeMap<&str, i64> = BTreeMap::new();
        for line in self.outcomes.iter().filter(|line| line.outcome.is_good()) {
            answered.entry(&line.client).or_insert(line.at_ms);
        }
        let last = self.last_outcomes();
        // A client without an outcome is yet to be told as long as the run is not over (I8); afterwards it came later.
        let untold = |client: &&MonName| !self.journal.phase.is_over() && !last.contains_key(client.as_str());
        let untold: Vec<MonName> = self.ledger.stored().clients().filter(untold).cloned().collect();
        let clients = last
            .into_values()
            .filter_map(|line| {
                let client = line.key()?;
                Some(ClientSummary {
                    client,
                    outcome: Some(line.outcome),
                    at_ms: line.at_ms,
                    answered_ms: answered.get(line.client.as_str()).copied(),
                    why: line.why.clone(),
                })
            })
            .chain(untold.into_iter().map(|client| ClientSummary {
                client,
                outcome: None,
                at_ms: 0,
                answered_ms: None,
                why: None,
            }))
            .collect();
        let part = self
            .journal
            .members
            .iter()
            .find(|(name, _)| name == service)
            .map_or(Part::Own, |(_, part)| *part);
        Summary {
            service: service.clone(),
            part,
            generation: self.claim.generation,
            state: self.state,
            clients,
        }
    }
}
