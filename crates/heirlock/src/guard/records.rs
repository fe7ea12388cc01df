//! The store's contents for the services of this server, as far as the checks and `disable` need them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use heirlock_core::takeover::Phase;
use heirlock_core::{Generation, ServerName, ServiceName};
use heirlock_nsm::record::parse_record;
use heirlock_nsm::{MonName, StateNumber};

use super::Finding;
use crate::config::Settings;
use crate::host::Host;
use crate::store::memory::{Known, recognise};
use crate::store::{self, ServerReport, Store, StoreError, StoreOnHost};
use crate::survey::present::unreadable_claim;

/// Opens the configured store, which must be the one that this server knows.
pub(super) fn store(host: &Host, settings: &Settings) -> Result<Box<dyn StoreOnHost>, StoreError> {
    let store = store::open(host, settings);
    recognised(host, settings, store.as_ref()).map(|()| store)
}

/// Fails where the store is not there, or not the one that this server knows.
pub(super) fn recognised(host: &Host, settings: &Settings, store: &dyn Store) -> Result<(), StoreError> {
    let (_, wrong) = recognise(store, &host.at(&settings.local_directory))?;
    wrong.map_or(Ok(()), Err)
}

/// Fails where the store shows less of a service than this server knows of.
pub(super) fn check_age(host: &Host, settings: &Settings, store: &dyn Store) -> Result<(), StoreError> {
    let memory = store::memory::load(&host.at(&settings.local_directory))?;
    for service in memory.services.keys() {
        let newest = store.newest_generation(service, Generation(u64::MAX))?;
        memory.check_age(service, newest).map_err(|why| store.older(why))?;
    }
    Ok(())
}

/// The highest number that this server remembers to have been sent for any of its services, wherever the store is.
pub(super) fn remembered_number(host: &Host, settings: &Settings) -> Option<StateNumber> {
    let memory = store::memory::load(&host.at(&settings.local_directory)).ok()?;
    memory.services.values().filter_map(Known::sent).max()
}

/// The newest generation of one service.
#[derive(Debug)]
pub(super) struct Kept {
    /// The service.
    pub(super) service: ServiceName,
    /// Its owner.
    pub(super) owner: Option<ServerName>,
    /// The highest number that was sent for it.
    pub(super) state: Option<StateNumber>,
    /// How far the adoption is that began its generation; nothing where none did.
    pub(super) phase: Option<Phase>,
    /// Its clients, and where they are where that is known without asking a name server.
    pub(super) clients: BTreeMap<MonName, BTreeSet<IpAddr>>,
}

/// The services that this server may act for: those of the configuration and its own, as far as the store has them. An
/// unreadable service says nothing of the others.
pub(super) fn kept(
    store: &dyn Store,
    settings: &Settings,
) -> Result<Vec<Result<Kept, StoreError>>, StoreError> {
    let mut services: Vec<ServiceName> =
        settings.services.iter().map(|service| service.name.clone()).collect();
    services.push(ServiceName::host(&settings.server));
    let known = store.services()?;
    services.retain(|service| known.contains(service));
    Ok(services.into_iter().map(|service| load(store, service)).collect())
}

fn load(store: &dyn Store, service: ServiceName) -> Result<Kept, StoreError> {
    let newest = match store.newest_claim(&service) {
        // Its owner is not known; its numbers and clients are known all the same.
        Err(error) if error.lost_claim().is_some() => None,
        newest => newest?,
    };
    let owner = newest.filter(|claim| !claim.released).map(|claim| claim.owner);
    let mut kept = Kept { service, owner, state: None, phase: None, clients: BTreeMap::new() };
    let Some(newest) = store.newest_generation(&kept.service, Generation(u64::MAX))? else { return Ok(kept) };
    let contents = store.load(&kept.service, newest)?;
    kept.state = contents.state;
    kept.phase = contents.journal.map(|journal| journal.phase);
    for (key, record) in contents.records {
        let mut addresses: BTreeSet<IpAddr> = key.client().address().into_iter().collect();
        let lines = parse_record(&record).map(|record| record.lines).unwrap_or_default();
        addresses.extend(lines.iter().filter_map(|line| line.mon_name.address()));
        kept.clients.insert(key.client().clone(), addresses);
    }
    Ok(kept)
}

/// Claims that can't be read, of services that this server may act for, with the remedies.
pub(super) fn unreadable_claims(store: &dyn Store, settings: &Settings) -> Vec<Finding> {
    let own = ServiceName::host(&settings.server);
    let services = settings.services.iter().map(|service| service.name.clone()).chain([own]);
    let finding = |service: ServiceName| match store.newest_claim(&service) {
        Ok(claim) => {
            let problem = unreadable_claim(&service, &claim?)?;
            let found = format!("{service}: {}", problem.error.unwrap_or_default());
            Some(Finding::warning("claim", found, "see what the kernel says of that disk or volume (dmesg)"))
        }
        Err(error) if error.lost_claim().is_some() => Some(Finding::loses_locks(
            "claim",
            error.to_string(),
            "see what the kernel says of that disk or volume (dmesg)",
        )),
        // The check of the store as a whole says it.
        Err(_) => None,
    };
    services.filter_map(finding).collect()
}

/// The heartbeats of the other servers.
pub(super) fn others(
    store: &dyn Store,
    settings: &Settings,
) -> Result<BTreeMap<ServerName, ServerReport>, StoreError> {
    let mut servers = store.servers()?;
    servers.remove(&settings.server);
    Ok(servers)
}

/// The highest number that the store knows was sent for these services or by this server itself, for any of its lock managers.
pub(super) fn highest_number(
    store: &dyn Store,
    settings: &Settings,
) -> Result<Option<StateNumber>, StoreError> {
    let servers = store.servers()?;
    let own = servers.get(&settings.server).into_iter().flat_map(ServerReport::states).map(StateNumber);
    let kept = kept(store, settings)?.into_iter().collect::<Result<Vec<Kept>, StoreError>>()?;
    Ok(kept.into_iter().filter_map(|kept| kept.state).chain(own).max())
}
