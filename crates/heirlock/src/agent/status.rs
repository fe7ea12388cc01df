//! What is reported: of a run, of an adoption that is over, and of the agent.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use heirlock_core::claim::OwnerHeart;
use heirlock_core::takeover::{
    ClientSummary, End, Journal, Milestone, Part, Phase, Stamp, Summary, Takeover,
};
use heirlock_core::{Generation, Moment, Outcome, ServiceName};

use super::Agent;
use super::holdings::Held;
use super::readiness::Readiness;
use crate::config::Settings;
use crate::control::report::{
    AdoptionReport, LockManagerStatus, Missed, OtherService, ServerStatus, ServiceStatus, Slow, StatusReport,
    StoreStatus, TimelineEntry,
};
use crate::control::{Answer, Failure, Progress, Wait};

/// Clients that a report names as the slowest.
const SLOWEST: usize = 5;

/// The last status, for whoever asks while the loop is busy.
#[derive(Debug)]
pub(crate) struct Snapshot(Mutex<Known>);

/// What was known at the last turn of the loop; how long that is ago is told when it is asked for.
#[derive(Debug)]
struct Known {
    report: StatusReport,
    turned: Option<Instant>,
    looked: Option<Instant>,
}

impl Snapshot {
    /// Before anything is known.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self(Mutex::new(Known { report: first(settings), turned: None, looked: None }))
    }

    /// The last one.
    pub(crate) fn report(&self) -> StatusReport {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ms_ago = |at: Instant| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        StatusReport {
            loop_turned_ms_ago: known.turned.map(ms_ago),
            looked_ms_ago: known.looked.map(ms_ago),
            ..known.report.clone()
        }
    }

    fn set(&self, report: StatusReport, looked: Option<Instant>) {
        let known = Known { report, turned: Some(Instant::now()), looked };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }
}

/// Before anything is known.
pub(crate) fn first(settings: &Settings) -> StatusReport {
    StatusReport {
        server: settings.server.to_string(),
        agent: String::new(),
        version: env!("CARGO_PKG_VERSION").into(),
        configuration: settings.fingerprint(),
        loop_turned_ms_ago: None,
        looked_ms_ago: None,
        store: StoreStatus {
            place: settings.store.path.display().to_string(),
            well: false,
            error: Some("the agent is starting".into()),
            unprotected_since_s: None,
        },
        lock_manager: LockManagerStatus { kind: String::new(), incarnation: None, serving: false },
        services: Vec::new(),
        servers: Vec::new(),
        maintenance: false,
        problems: Vec::new(),
    }
}

impl Agent {
    /// Makes the status known.
    pub(crate) fn publish(&self) {
        let now = self.clock.now();
        let life = self.follower.current().filter(|_| self.follower.runs());
        let report = StatusReport {
            server: self.settings.server.to_string(),
            agent: self.id.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            configuration: self.fingerprint.clone(),
            loop_turned_ms_ago: None,
            looked_ms_ago: None,
            store: StoreStatus {
                place: self.store.describe(),
                well: self.store_error().is_none(),
                error: self.store_error().map(str::to_owned),
                unprotected_since_s: self.health.unprotected_since_s(),
            },
            lock_manager: LockManagerStatus {
                kind: self.settings.lock_manager.kind.as_str().into(),
                incarnation: life.map(ToString::to_string),
                serving: self.serving,
            },
            services: self.service_statuses(),
            servers: self
                .pulse
                .servers()
                .iter()
                .filter(|(name, _)| **name != self.settings.server)
                .map(|(name, report)| ServerStatus {
                    server: name.to_string(),
                    heart: heart_in_words(self.pulse.heart_of(name, now)),
                    ailments: report.ailments.clone(),
                })
                .collect(),
            maintenance: self.pulse.is_paused(),
            problems: self.problems(),
        };
        self.snapshot.set(report, self.capture.looked);
    }

    fn service_statuses(&self) -> Vec<ServiceStatus> {
        let configured = self.settings.services.iter().map(|s| s.name.clone());
        let host = ServiceName::host(&self.settings.server);
        configured.chain([host]).map(|service| self.service_status(&service)).collect()
    }

    fn service_status(&self, service: &ServiceName) -> ServiceStatus {
        let held = self.held.get(service);
        let run = self.run_with(service);
        let claim = held.map(|held| &held.claim).or_else(|| self.others.get(service));
        let phase =
            run.map(|running| running.machine.phase()).or_else(|| held.map(|held| held.journal.phase));
        ServiceStatus {
            service: service.to_string(),
            owner: claim.filter(|claim| !claim.released).map(|claim| claim.owner.to_string()),
            held: held.is_some(),
            generation: claim.map(|claim| claim.generation.0),
            state_number: held.map(|held| held.state.0),
            records: held.map_or(0, |held| held.ledger.stored().len()),
            tombstones: held.map_or(0, |held| held.ledger.tombstones()),
            phase: phase.map(|phase| phase.to_string()),
            failure: held.and_then(|held| held.journal.failure.clone()),
        }
    }

    /// What ails this server, as it tells the others.
    pub(crate) fn ailments(&self) -> Vec<String> {
        let blind = self.capture.blind.as_ref().map(|why| format!("the status monitor's directory: {why}"));
        let store = self.store_error().map(|why| format!("the store: {why}"));
        let stopped = (!self.follower.runs()).then(|| "no lock manager runs".to_owned());
        blind.into_iter().chain(store).chain(stopped).collect()
    }

    /// What fails, or what was lost.
    pub(crate) fn store_error(&self) -> Option<&str> {
        self.health.error().or_else(|| self.acquaintance.missing())
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = self.ailments();
        problems.extend(self.monitor_problems());
        problems.extend(self.stranger_problems());
        problems.extend(self.left_behind_problems());
        problems.extend(self.acquaintance.problem());
        problems.extend(self.capture.known_problems.iter().map(|p| format!("{}: {}", p.path, p.why)));
        // While a run waits for them the run says so.
        let missing = if self.run.is_none() { self.readiness.missing() } else { Vec::new() };
        problems.extend(
            missing.into_iter().filter(|(service, _)| self.held.contains_key(service)).map(|(_, why)| why),
        );
        for (service, held) in &self.held {
            if held.ledger.refused() > 0 {
                problems.push(format!(
                    "{service}: {} clients found no room and are unprotected",
                    held.ledger.refused()
                ));
            }
            let lost = held.with_outcome(Outcome::Lost).count();
            if lost > 0 {
                problems.push(format!("{service}: {lost} clients lost their locks in the last adoption ('heirlock report {service}')"));
            }
        }
        problems
    }

    /// What became of the last adoption of a service, or how far the one is that is on.
    pub(crate) fn report_of(&self, service: &ServiceName) -> Option<AdoptionReport> {
        if let Some(running) = self.run_with(service) {
            return Some(of_run(&running.machine, Some(service), &self.settings, &self.readiness));
        }
        let held = self.held.get(service).filter(|held| !held.journal.timeline.is_empty())?;
        Some(AdoptionReport {
            unready: self.readiness.missing_of(service),
            ..of_journal(service, held, &self.settings)
        })
    }
}

/// How far a run is.
pub(crate) fn progress(now: Moment, machine: &Takeover, settings: &Settings) -> Progress {
    let (clients, answered) = machine.counts();
    let wait = waits_for(machine, settings).map(|what| Wait::new(what, now, machine.waits_until()));
    Progress { phase: machine.phase(), clients, answered, wait }
}

/// What a run waits for now.
fn waits_for(machine: &Takeover, settings: &Settings) -> Option<String> {
    let (clients, answered) = machine.counts();
    let of_clients = |count: usize| format!("{count} client{}", if count == 1 { "" } else { "s" });
    Some(match machine.phase() {
        Phase::Intent if machine.has_fence() => {
            "what the adoption needs to be looked for, and the fence to confirm that the owner is off".into()
        }
        Phase::Intent => "what the adoption needs to be looked for".into(),
        Phase::Conveyed => "the lock manager to recognise the records".into(),
        Phase::Recognised => "the grace period to be open".into(),
        Phase::Proved => format!("{} to be served here", addresses(machine, settings)),
        Phase::Notifying => format!("{} to answer", of_clients(clients.saturating_sub(answered))),
        Phase::Settling => {
            format!(
                "{} to ask for their locks, or the end of the grace period",
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

/// What a run has reached.
pub(crate) fn report(machine: &Takeover, settings: &Settings, readiness: &Readiness) -> AdoptionReport {
    of_run(machine, None, settings, readiness)
}

/// What those who asked are told at the end of a run.
pub(crate) fn answer(
    machine: &Takeover,
    end: End,
    settings: &Settings,
    readiness: &Readiness,
) -> Result<Answer, Failure> {
    match end {
        End::Settled(_) => Ok(Answer::Adoption(Box::new(report(machine, settings, readiness)))),
        End::Refused(message) => Err(Failure { message, refused: true, report: None, missing: Vec::new() }),
        End::Failed { why, summaries } => {
            let known = (!summaries.is_empty()).then(|| {
                Box::new(AdoptionReport {
                    failure: Some(why.clone()),
                    ..report(machine, settings, readiness)
                })
            });
            let message = match machine.targets() {
                // They were taken from us, which is what it says.
                [] => why,
                targets => format!(
                    "{0} could not be adopted as it should: {why}; mend that and say 'heirlock adopt {1}' again: it opens \
                     another grace period and tells every client",
                    names(targets),
                    targets.first().map_or("SERVICE", ServiceName::as_str)
                ),
            };
            Err(Failure { message, refused: false, report: known, missing: Vec::new() })
        }
    }
}

/// Says in the log how a run ended, and of every client that was not told.
pub(crate) fn log_end(machine: &Takeover, end: &End) {
    let (summaries, failure) = match end {
        End::Refused(why) => {
            tracing::warn!(run = machine.run(), why, "refused: nothing was changed");
            return;
        }
        End::Failed { why, summaries } => (summaries, Some(why)),
        End::Settled(summaries) => (summaries, None),
    };
    if let Some(why) = failure {
        tracing::error!(run = machine.run(), why, "a run failed");
    }
    for summary in summaries {
        let count = |wanted: Outcome| summary.clients.iter().filter(|c| c.outcome == Some(wanted)).count();
        tracing::info!(
            run = machine.run(),
            service = %summary.service,
            generation = %summary.generation,
            state = %summary.state,
            re_registered = count(Outcome::ReRegistered),
            acknowledged = count(Outcome::Acknowledged),
            unreachable = count(Outcome::Unreachable),
            lost = count(Outcome::Lost),
            "a run is over"
        );
        if summary.clients.is_empty() && summary.part == Part::Target {
            tracing::warn!(run = machine.run(), service = %summary.service, "no client is on record, so none was told");
        }
        for client in summary.clients.iter().filter(|client| !client.outcome.is_some_and(Outcome::is_good)) {
            let why = client.why.as_deref().unwrap_or("the run ended before");
            let outcome = client.outcome.map_or("unknown".to_owned(), |outcome| outcome.to_string());
            tracing::warn!(service = %summary.service, client = %client.client, outcome, why, "a client was not told");
        }
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
    settings: &Settings,
    readiness: &Readiness,
) -> AdoptionReport {
    let summaries = machine.summaries();
    let wanted = service.or(machine.targets().first());
    // In a self-adoption the one with the most clients is the most telling.
    let main = wanted
        .and_then(|wanted| summaries.iter().find(|summary| summary.service == *wanted))
        .or_else(|| summaries.iter().max_by_key(|summary| summary.clients.len()));
    let phase = if machine.awaits_finish() { "prepared".to_owned() } else { machine.phase().to_string() };
    let mut report = match main {
        Some(main) => of_summary(main, machine.timeline(), settings),
        None => empty(&names(machine.targets())),
    };
    report.unready = main.map(|main| readiness.missing_of(&main.service)).unwrap_or_default();
    report.strategy = machine.strategy().as_str().into();
    report.phase = phase;
    report.timeline = timeline(machine.timeline());
    report.started_at_s = machine.started_at_s();
    report.others =
        summaries.iter().filter(|other| other.service.as_str() != report.service).map(other).collect();
    report
}

fn of_journal(service: &ServiceName, held: &Held, settings: &Settings) -> AdoptionReport {
    let Journal { phase, strategy, timeline: stamps, started_at_s, failure, .. } = &held.journal;
    let summary = held.summary(service);
    let mut report = of_summary(&summary, stamps, settings);
    let prepared = *phase == Phase::Proved;
    report.phase = if prepared { "prepared".into() } else { phase.to_string() };
    report.failure = failure.clone();
    report.strategy = strategy.as_str().into();
    report.timeline = timeline(stamps);
    report.started_at_s = *started_at_s;
    report
}

/// `stamps` tell when its clients began to be told.
fn of_summary(summary: &Summary, stamps: &[Stamp], settings: &Settings) -> AdoptionReport {
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
        records_at: records_at(&settings.store.path, &summary.service, summary.generation),
        ..empty(summary.service.as_str())
    }
}

/// Who took longest to answer. A run that was resumed began to tell its clients more than once; the first time counts.
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
        others: Vec::new(),
        unready: Vec::new(),
        records_at: String::new(),
        started_at_s: 0,
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
        // Those that are yet to be told are not missed.
        missed: count(false),
    }
}

fn timeline(stamps: &[Stamp]) -> Vec<TimelineEntry> {
    let mut entries: Vec<TimelineEntry> =
        stamps.iter().map(|stamp| TimelineEntry { event: stamp.event, at_ms: stamp.at_ms }).collect();
    entries.sort_by_key(|entry| (entry.at_ms, entry.event == Milestone::Settled));
    entries
}

fn records_at(store: &Path, service: &ServiceName, generation: Generation) -> String {
    store
        .join("services")
        .join(service.as_str())
        .join(generation.to_string())
        .join("sm")
        .display()
        .to_string()
}

fn heart_in_words(heart: OwnerHeart) -> String {
    match heart {
        OwnerHeart::Beating { last_change } => format!("beating, {} ms ago", last_change.as_millis()),
        OwnerHeart::Silent { for_time } => format!("silent for {} s", for_time.as_secs()),
        OwnerHeart::Unknown { watched, needed } => {
            format!("not known yet: watched for {} of {} s", watched.as_secs(), needed.as_secs())
        }
        OwnerHeart::Paused => "paused in order".into(),
        OwnerHeart::NeverSeen => "never seen".into(),
    }
}

impl Held {
    /// What is known of its clients from the adoption that began its generation.
    fn summary(&self, service: &ServiceName) -> Summary {
        let mut answered: BTreeMap<&str, i64> = BTreeMap::new();
        for line in self.outcomes.iter().filter(|line| line.outcome.is_good()) {
            answered.entry(&line.client).or_insert(line.at_ms);
        }
        let clients = self
            .last_outcomes()
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

#[cfg(test)]
mod tests;
