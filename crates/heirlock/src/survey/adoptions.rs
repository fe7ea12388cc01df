//! Adoptions that are over or on, as the store tells them: of one generation, or the last ones of all services.

use heirlock_agent::past_report;
use heirlock_core::claim::Claim;
use heirlock_core::history::{Beginning, Tenure};
use heirlock_core::records::AsKey as _;
use heirlock_core::store::Account;
use heirlock_core::takeover::last_outcomes;
use heirlock_core::{Record, RecordKey, Records, ServiceName};

use super::{past, present};
use crate::control::report::{AdoptionReport, ClientOutcome, TenureReport};
use crate::limits::{PAST_ADOPTIONS_MAX, PAST_ADOPTIONS_OF_SERVICE_MAX, PAST_CLIENTS_MAX};
use crate::store::{Contents, Store, StoreError};

/// The last adoptions of all services, the newest first, each with the outcomes of its first clients, unnamed. A service whose past can't
/// be read says nothing of the others.
pub(crate) fn last(store: &dyn Store) -> Result<Vec<AdoptionReport>, StoreError> {
    let mut reports = Vec::new();
    for service in store.services()? {
        match last_of(store, &service) {
            Err(error) if error.is_absent() => return Err(error),
            Err(_) => {}
            Ok(of_service) => reports.extend(of_service),
        }
    }
    reports.sort_by_key(|report| std::cmp::Reverse(report.started_at_s));
    reports.truncate(PAST_ADOPTIONS_MAX);
    Ok(reports)
}

/// The last adoptions of one service, as [`last`] tells them.
pub(crate) fn last_of(store: &dyn Store, service: &ServiceName) -> Result<Vec<AdoptionReport>, StoreError> {
    let (tenures, _) = past::history(store, service)?;
    let claims = store.past(service)?;
    let adopted = tenures.iter().filter(|tenure| was_adopted(tenure)).take(PAST_ADOPTIONS_OF_SERVICE_MAX);
    let mut reports = Vec::new();
    for tenure in adopted {
        let claim = claims.claims.iter().find(|claim| claim.generation == tenure.generation);
        let contents = match claims.generations.contains(&tenure.generation) {
            true => Some(unread(store.account(service, tenure.generation)?)),
            false => None,
        };
        let mut each = contents.as_ref().map(each_client).unwrap_or_default();
        each.sort_by_key(|client| client.at_ms);
        each.truncate(PAST_CLIENTS_MAX);
        each.iter_mut().for_each(|client| *client = unnamed(client));
        let report = of_generation(store, service, tenure, claim.cloned(), contents);
        reports.push(AdoptionReport {
            each_client: each,
            failed: Vec::new(),
            troubles: Vec::new(),
            ..report
        });
    }
    Ok(reports)
}

/// A generation whose records were not read: of 200,000 clients they are many.
fn unread(account: Account) -> Contents {
    let Account { keys, state, journal, outcomes } = account;
    let mut records = Records::new();
    for key in keys {
        records.insert(key, Record::from(Vec::new()));
    }
    Contents { records, state, journal, outcomes, ..Contents::default() }
}

/// What became of a client, without its names, which are long.
fn unnamed(client: &ClientOutcome) -> ClientOutcome {
    let ClientOutcome { outcome, at_ms, .. } = *client;
    ClientOutcome { client: String::new(), names: Vec::new(), outcome, at_ms, why: None }
}

/// The report of the adoption that began this generation. Of a generation that was removed its counts are left.
pub(crate) fn of_generation(
    store: &dyn Store,
    service: &ServiceName,
    tenure: &Tenure,
    claim: Option<Claim>,
    contents: Option<Contents>,
) -> AdoptionReport {
    let whole =
        claim.zip(contents).and_then(|(claim, contents)| past_report(service, claim, contents, store));
    let mut report = whole.unwrap_or_else(|| of_tenure(service, tenure));
    report.tenure = Some(Box::new(TenureReport::from(tenure)));
    report
}

/// Whether a generation was begun by an adoption.
pub(crate) fn was_adopted(tenure: &Tenure) -> bool {
    !matches!(tenure.beginning, Beginning::First | Beginning::Unknown)
}

fn of_tenure(service: &ServiceName, tenure: &Tenure) -> AdoptionReport {
    let counts = tenure.clients;
    AdoptionReport {
        service: service.to_string(),
        generation: tenure.generation.0,
        state_number: tenure.state_number.unwrap_or(0),
        strategy: String::new(),
        phase: tenure.phase.shown(tenure.failure.is_some()).to_string(),
        grace_left_ms: None,
        finish_within_ms: None,
        clients: counts.clients,
        re_registered: counts.re_registered,
        acknowledged: counts.told,
        unreachable: counts.unreachable,
        lost: counts.lost,
        unknown: counts.unknown,
        timeline: Vec::new(),
        slowest: Vec::new(),
        failed: Vec::new(),
        others: Vec::new(),
        failure: tenure.failure.clone(),
        unready: Vec::new(),
        troubles: Vec::new(),
        records_at: String::new(),
        started_at_s: tenure.began_at_s,
        tenure: None,
        each_client: Vec::new(),
        changed: None,
    }
}

/// The outcome of each client of a generation.
pub(crate) fn each_client(contents: &Contents) -> Vec<ClientOutcome> {
    let Contents { records, outcomes, journal, .. } = contents;
    let is_over = journal.as_ref().is_none_or(|journal| journal.phase.is_over());
    let last = last_outcomes(outcomes);
    let untold = records.keys().filter(|key| !is_over && !last.contains_key(&key.as_key()));
    let untold = untold.map(|key| ClientOutcome {
        client: key.to_string(),
        names: names(key, records),
        outcome: None,
        at_ms: 0,
        why: None,
    });
    let untold: Vec<ClientOutcome> = untold.collect();
    let told = last.into_values().map(|line| ClientOutcome {
        names: names(&line.client, records),
        client: line.client.to_string(),
        outcome: Some(line.outcome),
        at_ms: line.at_ms,
        why: line.why.clone(),
    });
    told.chain(untold).collect()
}

fn names(key: &RecordKey, records: &Records) -> Vec<String> {
    records.get(key).map_or_else(Vec::new, |record| present::names(key.client(), record))
}
