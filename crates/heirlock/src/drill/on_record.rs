//! The store's knowledge of a service, as an adoption would read it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use heirlock_core::claim::Claim;
use heirlock_core::drill::estimate::PastAdoption;
use heirlock_core::drill::{Check, Finding, STORE, Unreached};
use heirlock_core::takeover::Stamp;
use heirlock_core::{Generation, ServerName, ServiceName};
use heirlock_nsm::record::parse_record;
use heirlock_nsm::{MonName, MonitorLine};

use crate::config::Settings;
use crate::control::report::AdoptionReport;
use crate::store::memory::make_sure;
use crate::store::{Damaged, ServerReport, StoreError, StoreOnHost};
use crate::survey::adoptions;
use crate::words::counted;

/// A service as the store has it.
pub(super) struct OnRecord<'a> {
    pub(super) store: &'a dyn StoreOnHost,
    /// The newest claim of the service.
    pub(super) claim: Option<Claim>,
    /// Its clients, with the lines of each one's record.
    pub(super) clients: BTreeMap<MonName, Vec<MonitorLine>>,
    /// Records that can't be read.
    pub(super) unreadable: Vec<Unreached>,
    /// The last heartbeats of all servers.
    pub(super) servers: BTreeMap<ServerName, Arc<ServerReport>>,
    /// The last adoptions of the service.
    pub(super) past: Vec<PastAdoption>,
    /// How long it took to read the records.
    pub(super) read_in: Duration,
}

/// Reads it. Where it can't be read, the checks say why.
pub(super) fn read<'a>(
    store: &'a dyn StoreOnHost,
    settings: &Settings,
    service: &ServiceName,
) -> (Option<OnRecord<'a>>, Vec<Check>) {
    let mut checks = Vec::new();
    let on_record = match look(store, settings, service, &mut checks) {
        Ok(on_record) => on_record,
        Err(error) => return (None, vec![not_read(store, settings, &error)]),
    };
    let found = format!(
        "{} on record in {}, read in {} ms",
        counted(on_record.clients.len(), "client"),
        store.shown(settings),
        on_record.read_in.as_millis()
    );
    checks.insert(0, Check::new(STORE, Finding::Met, found));
    if let Err(why) = store.probe().map_err(|error| error.to_string()).and_then(|()| store.try_room()) {
        let remedy = "mend it: no server can claim there";
        checks.push(Check::new("store-writable", Finding::Unmet, why).with_remedy(remedy));
    }
    (Some(on_record), checks)
}

fn look<'a>(
    store: &'a dyn StoreOnHost,
    settings: &Settings,
    service: &ServiceName,
    checks: &mut Vec<Check>,
) -> Result<OnRecord<'a>, StoreError> {
    let began = Instant::now();
    let memory = make_sure(store, settings)?;
    let claim = match store.newest_claim(service) {
        Err(error) if error.lost_claim().is_some() => {
            let remedy = "see what the kernel says of that disk or volume (dmesg); 'heirlock adopt --force' alone claims it";
            checks.push(Check::new(super::CLAIM, Finding::Unmet, error.to_string()).with_remedy(remedy));
            None
        }
        newest => newest?,
    };
    let newest = store.newest_generation(service, Generation(u64::MAX))?;
    memory.check_age(service, newest).map_err(|why| store.older(why))?;
    let contents = newest.map(|newest| store.load(service, newest)).transpose()?.unwrap_or_default();
    let mut clients = BTreeMap::new();
    let mut senseless = 0;
    for (key, record) in &contents.records {
        let lines = parse_record(record).map(|parsed| parsed.lines);
        senseless += usize::from(lines.is_err());
        clients.insert(key.client().clone(), lines.unwrap_or_default());
    }
    if senseless > 0 {
        let found = format!(
            "{} of the store can't be understood: such a client is told at its address alone",
            counted(senseless, "record")
        );
        checks.push(Check::new("records", Finding::Noted, found));
    }
    let read_in = began.elapsed();
    let servers = store.hearts()?.reports;
    let past = match adoptions::last_of(store, service) {
        Ok(past) => past.iter().filter_map(|report| past_adoption(report, settings)).collect(),
        Err(error) => {
            let found = format!("the last adoptions can't be read, so nothing is estimated by them: {error}");
            checks.push(Check::new("history", Finding::Noted, found));
            Vec::new()
        }
    };
    let unreadable = contents.left_alone().map(not_readable).collect();
    Ok(OnRecord { store, claim, clients, unreadable, servers, past, read_in })
}

/// Another server may have its volume now, and a cluster manager brings it before it adopts.
fn not_read(store: &dyn StoreOnHost, settings: &Settings, error: &StoreError) -> Check {
    let found = format!("{error}: neither the records nor the clients in it could be looked at");
    if !error.is_absent() && !error.is_of_another_store() {
        return Check::new(STORE, Finding::Unmet, found).with_remedy("mend it: an adoption begins with it");
    }
    let unusable = store.unusable(settings, error);
    let finding = if unusable.costs_locks { Finding::Unmet } else { Finding::Unchecked };
    Check::new(STORE, finding, found).with_remedy(unusable.remedy)
}

/// An adoption tells such a client at its address, as far as the name of its file tells that, and never says that all went well.
fn not_readable(damaged: &Damaged) -> Unreached {
    let client = damaged.key().map_or_else(|| damaged.path.clone(), ToString::to_string);
    Unreached { client, names: Vec::new(), why: format!("its record can't be read: {}", damaged.why) }
}

fn past_adoption(report: &AdoptionReport, settings: &Settings) -> Option<PastAdoption> {
    let stamps = report.timeline.iter().map(|entry| Stamp { event: entry.event, at_ms: entry.at_ms });
    Some(PastAdoption {
        is_ours: report.tenure.as_ref().is_some_and(|tenure| tenure.to == settings.server.as_str()),
        strategy: report.strategy.parse().ok()?,
        clients: report.clients,
        timeline: stamps.collect(),
    })
}
