//! How services, their clients and the servers are, as far as the store tells it.

use heirlock_core::claim::Claim;
use heirlock_core::duty::has_failed;
use heirlock_core::store::{Account, Store, StoreError};
use heirlock_core::takeover::last_outcomes;
use heirlock_core::{Generation, Outcome, ServerName, ServiceName};
use heirlock_nsm::MonName;
use heirlock_nsm::record::parse_record;

use crate::control::report::{
    Ailment, ClientStatus, Heart, Problem, ProblemKind, ServerStatus, ServiceStatus, StatusReport,
};
use crate::limits::STATUS_CLIENTS_MAX;

/// The services and servers in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Present {
    /// Each service that was claimed.
    pub services: Vec<ServiceStatus>,
    /// Each server but this one.
    pub servers: Vec<ServerStatus>,
    /// The entries that can't be read.
    pub problems: Vec<Problem>,
}

/// Looks through the store. A fault of one service concerns that service alone.
pub fn look(store: &dyn Store, us: &ServerName) -> Result<Present, StoreError> {
    let mut present = Present::default();
    for service in store.services()? {
        match status_of(store, &service) {
            Ok((status, problem)) => {
                present.services.extend(status);
                present.problems.extend(problem);
            }
            Err(error) if error.is_absent() => return Err(error),
            Err(error) => present
                .problems
                .push(Problem::new(ProblemKind::Unreadable).of(service.as_str()).saying(&error.to_string())),
        }
    }
    for (name, report) in store.servers()?.into_iter().filter(|(name, _)| name != us) {
        present.servers.push(ServerStatus {
            // How long ago that was is for an agent to say, which has watched it: clocks of two servers are not compared.
            heart: if report.paused { Heart::Paused } else { Heart::Unknown },
            last_beat_at_s: Some(report.written_at_s),
            ailments: Ailment::all_of_a_heartbeat(&report.ailments),
            ..ServerStatus::unknown(name.as_str())
        });
    }
    Ok(present)
}

/// Adds what the store holds to what an agent says, or to nothing. Of a service that the agent holds its own word counts:
/// it knows what is to be written yet.
pub fn add(report: &mut StatusReport, present: Present) {
    for stored in present.services {
        let known = report.services.iter_mut().find(|known| known.service == stored.service);
        match known {
            Some(known) if known.held => {
                if known.generation == stored.generation {
                    (known.unreachable, known.lost, known.missed) =
                        (stored.unreachable, stored.lost, stored.missed);
                }
            }
            Some(known) => {
                *known = ServiceStatus {
                    configured: known.configured,
                    home: known.home.take(),
                    automatic: known.automatic,
                    left_to: known.left_to.take(),
                    lacks_candidates: known.lacks_candidates,
                    ..stored
                };
            }
            None => report.services.push(stored),
        }
    }
    for server in present.servers {
        if !report.servers.iter().any(|known| known.server == server.server) {
            report.servers.push(server);
        }
    }
    // A problem that the agent has named already is not named twice.
    let news = present.problems.into_iter().filter(|problem| !report.problems.contains(problem));
    let news: Vec<Problem> = news.collect();
    report.problems.extend(news);
}

fn status_of(
    store: &dyn Store,
    service: &ServiceName,
) -> Result<(Option<ServiceStatus>, Option<Problem>), StoreError> {
    let Some(claim) = store.newest_claim(service)? else { return Ok((None, None)) };
    let problem = unreadable_claim(service, &claim);
    let owner = claim.owner.to_string();
    let mut status = ServiceStatus {
        service: service.to_string(),
        owner: (!claim.released).then(|| owner.clone()),
        released_by: claim.released.then_some(owner),
        generation: Some(claim.generation.0),
        ..ServiceStatus::default()
    };
    // A generation that is claimed and not begun yet has the clients of the one before.
    if let Some(generation) = store.newest_generation(service, claim.generation)? {
        let account = store.account(service, generation)?;
        describe(&mut status, store, service, generation, &account);
    }
    Ok((Some(status), problem))
}

fn describe(
    status: &mut ServiceStatus,
    store: &dyn Store,
    service: &ServiceName,
    generation: Generation,
    account: &Account,
) {
    status.records = account.keys.len();
    status.state_number = account.state.map(|state| state.0);
    let Some(journal) = &account.journal else { return };
    status.failure.clone_from(&journal.failure);
    status.adopted_at_s = (!journal.timeline.is_empty()).then_some(journal.started_at_s);
    for line in last_outcomes(&account.outcomes).into_values().filter(|line| !line.outcome.is_good()) {
        if !account.has(&line.client) {
            continue;
        }
        let since_s = journal.started_at_s.saturating_add_signed(line.at_ms / 1_000);
        let key = &line.client;
        // A record that was written later is that of a client that registered again.
        if store.written_at_s(service, generation, key).is_some_and(|at_s| at_s > since_s) {
            continue;
        }
        match line.outcome {
            Outcome::Lost => status.lost += 1,
            _ => status.unreachable += 1,
        }
        if status.missed.len() < STATUS_CLIENTS_MAX {
            status.missed.push(ClientStatus {
                names: store
                    .record(service, generation, key)
                    .map_or_else(Vec::new, |r| names(key.client(), &r)),
                client: key.to_string(),
                outcome: Some(line.outcome),
                since_s: Some(since_s),
                why: line.why.clone(),
            });
        }
    }
    let has_failed = has_failed(journal, status.lost + status.unreachable > 0);
    status.phase = Some(journal.phase.shown(has_failed).to_string());
}

/// The names in a client's record other than the key it is kept under.
pub fn names(client: &MonName, record: &[u8]) -> Vec<String> {
    let lines = parse_record(record).map(|parsed| parsed.lines).unwrap_or_default();
    let mut names: Vec<String> =
        lines.iter().filter(|line| line.mon_name != *client).map(|line| line.mon_name.to_string()).collect();
    names.sort();
    names.dedup();
    names
}

/// The problem of a claim that can't be read, where its generation tells its content.
pub fn unreadable_claim(service: &ServiceName, claim: &Claim) -> Option<Problem> {
    let why = claim.unreadable.as_ref()?;
    let (owner, generation) = (&claim.owner, claim.generation);
    let remedy = match claim.released {
        true => "the next adoption makes another one".to_owned(),
        false => format!("the agent of {owner} writes it anew: see that it runs"),
    };
    let said = format!(
        "claim {generation} can't be read, and the generation that it began says that it was made by {owner}; {remedy} ({why})"
    );
    Some(Problem::new(ProblemKind::Unreadable).of(service.as_str()).saying(&said))
}
