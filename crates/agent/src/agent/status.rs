//! The reports of a run, of an adoption that is over, and of the agent.

use std::collections::BTreeMap;
use std::time::Duration;

use heirlock_core::claim::{Claim, OwnerHeart};
use heirlock_core::records::AsKey as _;
use heirlock_core::store::{Contents, Place, ServerReport, Store};
use heirlock_core::takeover::{
    ClientSummary, End, Journal, Milestone, Part, Phase, Stamp, Summary, Takeover, Trouble,
};
use heirlock_core::{Moment, Outcome, RecordKey, ServiceName};
use heirlock_nsm::MonName;

use super::beat::Pulse;
use super::health::Protection;
use super::holdings::Held;
use super::outside::Unready;
use super::waiting::Waiting;
use crate::config::Settings;
use crate::control::report::{
    AdoptionReport, Ailment, AilmentKind, ClientStatus, EntryTrouble, Heart, Missed, OtherService, Problem,
    ProblemKind, ServerStatus, Slow, Source, StatusReport, TimelineEntry,
};
use crate::control::{Answer, AnswerWhen, Failure, Progress, Wait};
use crate::limits;
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

/// How far a run is. `store`: why the store doesn't take what comes next; until it does nothing else is waited for.
pub fn progress(
    now: Moment,
    machine: &Takeover,
    settings: &Settings,
    store: Option<(&str, Option<Moment>)>,
) -> Progress {
    let (clients, answered) = machine.counts();
    let of_store = store.map(|(why, until)| (format!("the store to work again ({why})"), until));
    let wait = of_store
        .or_else(|| Some((waits_for(machine, settings)?, None)))
        .map(|(what, until)| Wait::new(what, now, until.or_else(|| machine.waits_until())));
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

/// The report of a run, as far as it has come, for a caller who waits for a service.
pub fn report_for(
    now: Moment,
    machine: &Takeover,
    waiting: &Waiting,
    store: &dyn Store,
    unready: &[Unready],
) -> AdoptionReport {
    let report = of_run(now, machine, &waiting.service, store, unready);
    match waiting.until == AnswerWhen::Prepared && machine.is_prepared_besides(&waiting.service) {
        // The run may go on by the word of another adoption. This one's clients are told once its address is here.
        true => AdoptionReport {
            phase: "prepared".to_owned(),
            finish_within_ms: machine.last_call_within(now).map(millis),
            ..report
        },
        false => report,
    }
}

/// The things that are missing at the addresses of one service.
pub(super) fn unready_of(service: &ServiceName, unready: &[Unready]) -> Vec<String> {
    unready.iter().filter(|(of, _)| of == service).map(|(_, why)| why.clone()).collect()
}

/// The answer to the callers at the end of a run.
pub(crate) fn answer(
    now: Moment,
    machine: &Takeover,
    waiting: &Waiting,
    end: &End,
    store: &dyn Store,
    unready: &[Unready],
) -> Result<Answer, Failure> {
    let report = || of_run(now, machine, &waiting.service, store, unready);
    match machine.end_for(&waiting.service, end) {
        End::Settled(_) => Ok(Answer::adopted(report(), true)),
        End::Refused(message) => Err(Failure { message, refused: true, report: None, missing: Vec::new() }),
        End::Failed { why, summaries, .. } => {
            let known = (!summaries.is_empty()).then(|| {
                let (failure, phase) = (Some(why.clone()), Phase::Failed.to_string());
                Box::new(AdoptionReport { failure, phase, ..report() })
            });
            Err(Failure {
                message: failed(machine, &waiting.service, &why),
                refused: false,
                report: known,
                missing: Vec::new(),
            })
        }
        End::Unbegun { why, claimed } => {
            let message = failed(machine, &waiting.service, &unbegun(&why, &claimed));
            Err(Failure { message, refused: false, report: None, missing: Vec::new() })
        }
    }
}

/// The sentence that tells an administrator what to do after a run that failed.
fn failed(machine: &Takeover, service: &ServiceName, why: &str) -> String {
    match machine.targets() {
        // They were taken from us, which is what it says.
        [] => why.to_owned(),
        // A caller that waits for a service which is only told with others is told of those.
        [first, ..] => {
            let service = if machine.targets().contains(service) { service } else { first };
            format!(
                "{service} could not be adopted as it should: {why}; mend that and say 'heirlock adopt {service}' again: it \
                 opens another grace period and tells every client"
            )
        }
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

/// The report of a run, as far as it has come, on a service that it takes over or whose clients it tells.
pub fn of_run(
    now: Moment,
    machine: &Takeover,
    service: &ServiceName,
    store: &dyn Store,
    unready: &[Unready],
) -> AdoptionReport {
    let summaries = machine.summaries();
    let main = summaries.iter().find(|summary| summary.service == *service);
    let phase = match machine.phase() {
        _ if machine.awaits_finish() => "prepared".to_owned(),
        // It goes on for another service that it takes over.
        _ if main.is_some_and(|main| machine.is_settled_for(&main.service)) => Phase::Settled.to_string(),
        phase => phase.to_string(),
    };
    let mut report = match main {
        Some(main) => of_summary(main, machine.timeline(), store),
        None => empty(service.as_str()),
    };
    // Before its addresses are looked for, the knowledge of them is of the run before.
    let looked_for = machine.phase() >= Phase::Proved && !machine.awaits_finish();
    let looked_at = main.filter(|_| looked_for);
    report.unready = looked_at.map(|main| unready_of(&main.service, unready)).unwrap_or_default();
    report.strategy = machine.strategy().as_str().into();
    report.phase = phase;
    report.grace_left_ms = machine.grace_left(now).map(millis);
    report.finish_within_ms = machine.finish_within(now).map(millis);
    report.timeline = timeline(machine.timeline());
    report.started_at_s = machine.started_at_s();
    // What else is taken over has a report of its own.
    let is_besides = |other: &&Summary| other.part == Part::Own || machine.targets().is_empty();
    let others = summaries.iter().filter(|other| other.service.as_str() != report.service);
    report.others = others.filter(is_besides).map(other).collect();
    let is_of_another = |of: &ServiceName| of != service && machine.targets().contains(of);
    let troubles = machine.troubles().iter().filter(|trouble| !is_of_another(&trouble.service));
    add_troubles(&mut report, troubles);
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
    let shown = phase.shown(failure.is_some());
    report.phase = if prepared { "prepared".into() } else { shown.to_string() };
    report.failure = failure.clone();
    report.strategy = strategy.as_str().into();
    report.timeline = timeline(stamps);
    report.started_at_s = *started_at_s;
    let is_of_another =
        |of: &ServiceName| of != service && held.journal.members.contains(&(of.clone(), Part::Target));
    let troubles = held.journal.troubles.iter().filter(|trouble| !is_of_another(&trouble.service));
    add_troubles(&mut report, troubles);
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
        grace_left_ms: None,
        finish_within_ms: None,
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
fn add_troubles<'a>(report: &mut AdoptionReport, troubles: impl Iterator<Item = &'a Trouble> + Clone) {
    let unknown = troubles.clone().filter(|trouble| trouble.fate_unknown).count();
    report.clients += unknown;
    report.unknown += unknown;
    report.troubles = troubles
        .map(|trouble| EntryTrouble { entry: trouble.entry.clone(), why: trouble.why.clone() })
        .collect();
}

/// A problem each, as many as are told, and one that counts the others: a user that may write into a folder may fill it.
pub(super) fn some_of<T>(
    mut all: impl Iterator<Item = T>,
    told: impl Fn(T) -> Problem,
    more: impl Fn(usize) -> Problem,
) -> Vec<Problem> {
    let mut some: Vec<Problem> = all.by_ref().take(limits::PROBLEMS_OF_A_KIND_MAX).map(told).collect();
    let left = all.count();
    some.extend((left > 0).then(|| more(left)));
    some
}

pub(super) fn more_strays(folder: &str, more: usize) -> Problem {
    let why = format!("{more} more entries below it are no records; look at the folder itself");
    Problem::new(ProblemKind::NoRecord).at(folder).saying(&why)
}

pub(super) fn problem_of(ailment: &Ailment) -> Problem {
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

/// The other servers are not watched to the end.
pub(super) fn hearts_unwatched(pulse: &Pulse, now: Moment) -> Option<Problem> {
    let (unwatched, since_s, error) = pulse.unwatched(now)?;
    let needed = unwatched.needed.as_secs();
    let last = error.map_or_else(String::new, |error| format!("; the last time: {error}"));
    let why = format!(
        "interrupted {}, and none of them was watched for {needed} s on end{last}",
        counted(usize::try_from(unwatched.times).unwrap_or(usize::MAX), "time")
    );
    Some(Problem::new(ProblemKind::HeartsUnwatched).saying(&why).since(since_s))
}

/// The clients of which it is known that they are not on record.
pub(super) fn clients_at_risk(protection: &Protection) -> Vec<ClientStatus> {
    let client = |(client, since_s): (&MonName, &u64)| ClientStatus {
        client: client.to_string(),
        names: Vec::new(),
        outcome: None,
        since_s: Some(*since_s),
        why: None,
    };
    protection.at_risk().iter().take(limits::STATUS_CLIENTS_MAX).map(client).collect()
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

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Held {
    /// The summary of its clients from the adoption that began its generation.
    fn summary(&self, service: &ServiceName) -> Summary {
        let mut answered: BTreeMap<&RecordKey, i64> = BTreeMap::new();
        for line in self.outcomes.iter().filter(|line| line.outcome.is_good()) {
            answered.entry(&line.client).or_insert(line.at_ms);
        }
        let last = self.last_outcomes();
        // A client without an outcome is yet to be told as long as the run is not over (I8); afterwards it came later.
        let untold = |key: &&RecordKey| !self.journal.phase.is_over() && !last.contains_key(&key.as_key());
        let untold: Vec<RecordKey> = self.ledger.stored().keys().filter(untold).cloned().collect();
        let clients = last
            .into_values()
            .map(|line| ClientSummary {
                client: line.client.clone(),
                outcome: Some(line.outcome),
                at_ms: line.at_ms,
                answered_ms: answered.get(&line.client).copied(),
                why: line.why.clone(),
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
