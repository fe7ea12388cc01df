//! A store in memory, for simulators and tests: it keeps every promise of a store and outlives nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use heirlock_nsm::StateNumber;
use heirlock_nsm::record::parse_record;

use super::{
    Account, Change, ClaimAnswer, Commit, Contents, CopiedStore, Damaged, DamagedPart, Fill, Past, Place,
    RecordChange, ServerHearts, ServerReport, Store, StoreError, StoreErrorKind, Told,
};
use crate::claim::Claim;
use crate::history::Tenure;
use crate::limits::{RECORD_BYTES_MAX, TENURES_KEPT};
use crate::names::{Generation, ServerName, ServiceName};
use crate::records::{Record, RecordKey};
use crate::store_identity::{Found, Kept, OlderStore, StoreIdentity, WrongStore};
use crate::store_standing::{NotInForce, Standing};

/// One server's handle of it. A clone is another server's: it holds the same, and expects nothing yet.
#[derive(Debug)]
pub struct InMemory {
    held: Arc<Mutex<Held>>,
    /// Tells the handles apart.
    handle: u64,
    expected: Mutex<Option<Standing>>,
    /// How many calls were made through it, but for heartbeats.
    calls: AtomicU64,
}

/// What all handles share.
#[derive(Debug)]
struct Held {
    /// Nothing before it is made.
    standing: Option<Standing>,
    services: BTreeMap<ServiceName, Service>,
    servers: BTreeMap<ServerName, Arc<ServerReport>>,
    /// How many handles there ever were.
    handles: u64,
    /// Those that want to be told of changes of others.
    watchers: BTreeMap<u64, Watcher>,
}

struct Watcher {
    told: Arc<dyn Fn() + Send + Sync>,
    /// It was told, and has not looked since.
    is_told: bool,
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("is_told", &self.is_told).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Service {
    claims: BTreeMap<Generation, Arc<Claim>>,
    generations: BTreeMap<Generation, Contents>,
    tenures: BTreeMap<Generation, Tenure>,
}

impl InMemory {
    /// An empty one.
    #[must_use]
    pub fn new(identity: StoreIdentity) -> Self {
        Self::with(Some(Standing::InForce(identity)))
    }

    /// A place where none was made yet.
    #[must_use]
    pub fn nowhere() -> Self {
        Self::with(None)
    }

    fn with(standing: Option<Standing>) -> Self {
        let held = Held {
            standing,
            services: BTreeMap::new(),
            servers: BTreeMap::new(),
            handles: 1,
            watchers: BTreeMap::new(),
        };
        Self {
            held: Arc::new(Mutex::new(held)),
            handle: 0,
            expected: Mutex::default(),
            calls: AtomicU64::default(),
        }
    }

    /// A claim as it is, whichever store is expected: for what looks on.
    #[must_use]
    pub fn claim_at(&self, service: &ServiceName, generation: Generation) -> Option<Claim> {
        self.enter_any().services.get(service)?.claims.get(&generation).map(|claim| Claim::clone(claim))
    }

    /// The newest claim of a service, which is not copied for that, whichever store is expected: for what looks on.
    #[must_use]
    pub fn newest(&self, service: &ServiceName) -> Option<Arc<Claim>> {
        self.enter_any().services.get(service)?.claims.values().next_back().cloned()
    }

    /// What a generation holds, which is not copied for that: for what looks on. The store must not be asked meanwhile.
    pub fn see<T>(
        &self,
        service: &ServiceName,
        generation: Generation,
        see: impl FnOnce(&Contents) -> T,
    ) -> Option<T> {
        self.enter_any().contents(service, generation).ok().map(see)
    }

    /// Writes a heartbeat that is not copied for that.
    ///
    /// # Errors
    /// As of [`Store::put_server`].
    pub fn put_report(&self, report: Arc<ServerReport>) -> Result<(), StoreError> {
        self.enter_expected()?.servers.insert(report.server.clone(), report);
        Ok(())
    }

    /// What it holds, whichever store is expected.
    fn enter_any(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A claim was made or given up: all other handles are told that have looked since they were told last.
    fn tell_others(&self, mut held: MutexGuard<'_, Held>) {
        let others =
            held.watchers.iter_mut().filter(|(handle, watcher)| **handle != self.handle && !watcher.is_told);
        let to_tell: Vec<_> = others
            .map(|(_, watcher)| {
                watcher.is_told = true;
                Arc::clone(&watcher.told)
            })
            .collect();
        drop(held);
        to_tell.iter().for_each(|told| told());
    }

    /// Begins every call but a heartbeat.
    fn enter(&self) -> Result<MutexGuard<'_, Held>, StoreError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.enter_expected()
    }

    /// What it holds, if it is the store that is expected.
    fn enter_expected(&self) -> Result<MutexGuard<'_, Held>, StoreError> {
        let held = self.enter_any();
        let there = held.standing.as_ref().ok_or_else(|| nothing("a store"))?;
        let expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        match (expected.as_ref(), there) {
            (None, Standing::InForce(_)) => {}
            (Some(expected), there) if expected == there => {}
            (Some(Standing::Filling { .. } | Standing::Moved { .. }), there) => return Err(changed(there)),
            (expected, there) => {
                let found = held.found(there.clone().in_force().map_err(|why| not_in_force(&why))?);
                let expected = expected.map(|expected| expected.identity().clone());
                return Err(self.wrong(WrongStore { expected, found }));
            }
        }
        drop(expected);
        Ok(held)
    }

    /// The identity of the store, if it is in force.
    fn identity(&self) -> Result<StoreIdentity, StoreError> {
        let standing = self.enter_any().standing.clone().ok_or_else(|| nothing("a store"))?;
        standing.in_force().map_err(|why| not_in_force(&why))
    }
}

fn not_in_force(why: &NotInForce) -> StoreError {
    StoreError::new(StoreErrorKind::NotInForce, format!("the store in memory: {why}"))
}

/// The failure of a copy whose store is not as it left it.
fn changed(there: &Standing) -> StoreError {
    let said = format!(
        "the store in memory: expected the standing that this copy gave it, found {:?}",
        there.line()
    );
    StoreError::new(StoreErrorKind::NotInForce, said)
}

impl Clone for InMemory {
    fn clone(&self) -> Self {
        let mut held = self.enter_any();
        let handle = held.handles;
        held.handles += 1;
        Self { held: Arc::clone(&self.held), handle, expected: Mutex::default(), calls: AtomicU64::default() }
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        self.enter_any().watchers.remove(&self.handle);
    }
}

impl Held {
    fn found(&self, identity: StoreIdentity) -> Found {
        Found { identity: Some(identity), kept: Kept::of(self.claimed().iter()) }
    }

    fn claimed(&self) -> Vec<ServiceName> {
        let is_claimed = |of: &Service| !of.claims.is_empty() || !of.generations.is_empty();
        let claimed = self.services.iter().filter(|(_, of)| is_claimed(of));
        claimed.map(|(service, _)| service.clone()).collect()
    }

    fn contents(&self, service: &ServiceName, generation: Generation) -> Result<&Contents, StoreError> {
        let contents = self.services.get(service).and_then(|of| of.generations.get(&generation));
        contents.ok_or_else(|| nothing(&format!("generation {generation} of {service}")))
    }

    /// The generation that a claim began, to be changed by the owner of the claim.
    fn contents_of(&mut self, service: &ServiceName, by: &Claim) -> Result<&mut Contents, StoreError> {
        let of = self.services.get_mut(service);
        let claims = of.as_ref().map(|of| of.claims.values().rev());
        if let Some(newer) = claims.into_iter().flatten().find(|claim| by.gives_way_to(claim)) {
            return Err(StoreError::not_owner(service, by, newer));
        }
        let contents = of.and_then(|of| of.generations.get_mut(&by.generation));
        contents.ok_or_else(|| nothing(&format!("generation {} of {service}", by.generation)))
    }
}

/// The failure where something is not there.
fn nothing(expected: &str) -> StoreError {
    StoreError::new(
        StoreErrorKind::Unavailable,
        format!("expected {expected} in the store in memory, found nothing"),
    )
}

/// Fails where a record is longer than any store keeps.
fn check<'a>(records: impl IntoIterator<Item = (&'a RecordKey, &'a Record)>) -> Result<(), StoreError> {
    let too_long = records.into_iter().find(|(_, record)| record.len() > RECORD_BYTES_MAX);
    too_long.map_or(Ok(()), |(key, record)| {
        let said =
            format!("the record of {key}: expected at most {RECORD_BYTES_MAX} bytes, found {}", record.len());
        Err(StoreError::new(StoreErrorKind::Unexpected, said))
    })
}

fn check_changes(changes: &[Change]) -> Result<(), StoreError> {
    check(changes.iter().filter_map(|change| match change {
        Change::Record(RecordChange::Put(key, record)) => Some((key, record)),
        _ => None,
    }))
}

impl Store for InMemory {
    fn describe(&self) -> String {
        "a store in memory".to_owned()
    }

    fn place(&self, of: Place<'_>) -> String {
        match of {
            Place::Store => self.describe(),
            Place::Claim(service, generation) => format!("claim {generation} of {service}"),
            Place::Generation(service, generation) => format!("generation {generation} of {service}"),
            Place::Records(service, generation) => format!("records of generation {generation} of {service}"),
        }
    }

    fn wrong(&self, why: WrongStore) -> StoreError {
        StoreError::new(StoreErrorKind::Wrong, format!("the store in memory: {why}"))
    }

    fn older(&self, why: OlderStore) -> StoreError {
        StoreError::new(StoreErrorKind::Older, format!("the store in memory: {why}"))
    }

    fn progress(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn probe(&self) -> Result<(), StoreError> {
        self.enter().map(drop)
    }

    fn found(&self) -> Result<Found, StoreError> {
        let identity = self.identity()?;
        Ok(self.enter_any().found(identity))
    }

    fn give_identity(&self, _: &StoreIdentity) -> Result<StoreIdentity, StoreError> {
        self.identity()
    }

    fn expect(&self, identity: Option<&StoreIdentity>) {
        let expected = identity.cloned().map(Standing::InForce);
        *self.expected.lock().unwrap_or_else(PoisonError::into_inner) = expected;
    }

    fn on_change(&self, told: Told) {
        let watcher = Watcher { told: Arc::from(told), is_told: false };
        self.enter_any().watchers.insert(self.handle, watcher);
    }

    fn services(&self) -> Result<Vec<ServiceName>, StoreError> {
        Ok(self.enter()?.claimed())
    }

    fn newest_claim(&self, service: &ServiceName) -> Result<Option<Claim>, StoreError> {
        let mut held = self.enter()?;
        if let Some(watcher) = held.watchers.get_mut(&self.handle) {
            watcher.is_told = false;
        }
        let newest = held.services.get(service).and_then(|of| of.claims.values().next_back());
        Ok(newest.map(|claim| Claim::clone(claim)))
    }

    fn claim(&self, service: &ServiceName, claim: &Claim) -> Result<ClaimAnswer, StoreError> {
        let mut held = self.enter()?;
        let claims = &mut held.services.entry(service.clone()).or_default().claims;
        match claims.values().next_back().filter(|newest| newest.generation > claim.generation) {
            Some(newer) => Ok(ClaimAnswer::Taken(Claim::clone(newer))),
            None => Ok(match claims.get(&claim.generation) {
                Some(there) if there.is_still(claim) => ClaimAnswer::Won,
                Some(there) => ClaimAnswer::Taken(Claim::clone(there)),
                None => {
                    claims.insert(claim.generation, Arc::new(claim.clone()));
                    self.tell_others(held);
                    ClaimAnswer::Won
                }
            }),
        }
    }

    fn restore_claim(&self, _: &ServiceName, _: &Claim) -> Result<(), StoreError> {
        // Each of them can be read.
        self.enter().map(drop)
    }

    fn release(&self, service: &ServiceName, generation: Generation) -> Result<(), StoreError> {
        let mut held = self.enter()?;
        let claim = held.services.get_mut(service).and_then(|of| of.claims.get_mut(&generation));
        let claim = claim.ok_or_else(|| nothing(&format!("claim {generation} of {service}")))?;
        Arc::make_mut(claim).released = true;
        self.tell_others(held);
        Ok(())
    }

    fn newest_generation(
        &self,
        service: &ServiceName,
        at_most: Generation,
    ) -> Result<Option<Generation>, StoreError> {
        let held = self.enter()?;
        let generations = held.services.get(service).map(|of| &of.generations);
        Ok(generations.and_then(|all| all.range(..=at_most).next_back()).map(|(newest, _)| *newest))
    }

    fn check_records(&self, service: &ServiceName, generation: Generation) -> Result<(), StoreError> {
        self.enter()?.contents(service, generation).map(drop)
    }

    fn number_of(
        &self,
        service: &ServiceName,
        generation: Generation,
    ) -> Result<Option<StateNumber>, StoreError> {
        Ok(self.enter()?.contents(service, generation).ok().and_then(|contents| contents.state))
    }

    fn begin_generation(
        &self,
        service: &ServiceName,
        generation: Generation,
        contents: &Contents,
    ) -> Result<(), StoreError> {
        let mut held = self.enter()?;
        check(&contents.records)?;
        let begun = Contents { damaged: Vec::new(), ..contents.clone() };
        held.services.entry(service.clone()).or_default().generations.entry(generation).or_insert(begun);
        Ok(())
    }

    fn load(&self, service: &ServiceName, generation: Generation) -> Result<Contents, StoreError> {
        let mut contents = self.enter()?.contents(service, generation)?.clone();
        let mut damaged = Vec::new();
        contents.records.retain(|key, record| {
            let why = parse_record(record).err();
            damaged.extend(why.as_ref().map(|why| Damaged {
                path: key.to_string(),
                why: why.to_string(),
                part: DamagedPart::Record(Some(key.clone())),
            }));
            why.is_none()
        });
        Ok(Contents { damaged, ..contents })
    }

    fn commit(&self, service: &ServiceName, by: &Claim, changes: &[Change]) -> Result<(), StoreError> {
        let mut held = self.enter()?;
        check_changes(changes)?;
        let contents = held.contents_of(service, by)?;
        changes.iter().cloned().for_each(|change| contents.apply(change));
        Ok(())
    }

    fn commit_each(&self, work: &[Commit]) -> Result<(), StoreError> {
        let mut held = self.enter()?;
        for Commit { service, by, changes } in work {
            check_changes(changes)?;
            held.contents_of(service, by)?;
        }
        for Commit { service, by, changes } in work {
            let contents = held.contents_of(service, by)?;
            changes.iter().cloned().for_each(|change| contents.apply(change));
        }
        Ok(())
    }

    fn past(&self, service: &ServiceName) -> Result<Past, StoreError> {
        let held = self.enter()?;
        let Some(of) = held.services.get(service) else { return Ok(Past::default()) };
        Ok(Past {
            claims: of.claims.values().rev().map(|claim| Claim::clone(claim)).collect(),
            generations: of.generations.keys().rev().copied().collect(),
            tenures: of.tenures.values().rev().cloned().collect(),
            unreadable: Vec::new(),
        })
    }

    fn account(&self, service: &ServiceName, generation: Generation) -> Result<Account, StoreError> {
        let held = self.enter()?;
        let contents = held.contents(service, generation)?;
        Ok(Account {
            keys: contents.records.keys().cloned().collect(),
            state: contents.state,
            journal: contents.journal.clone(),
            outcomes: contents.outcomes.clone(),
        })
    }

    fn keep_tenure(&self, service: &ServiceName, tenure: &Tenure) -> Result<(), StoreError> {
        let mut held = self.enter()?;
        let kept = &mut held.services.entry(service.clone()).or_default().tenures;
        kept.entry(tenure.generation).or_insert_with(|| tenure.clone());
        while kept.len() > TENURES_KEPT {
            kept.pop_first();
        }
        Ok(())
    }

    fn record(&self, service: &ServiceName, generation: Generation, key: &RecordKey) -> Option<Record> {
        let held = self.enter_any();
        let record = held.contents(service, generation).ok()?.records.get(key)?;
        parse_record(record).is_ok().then(|| record.clone())
    }

    fn written_at_s(&self, _: &ServiceName, _: Generation, _: &RecordKey) -> Option<u64> {
        None
    }

    fn prune(&self, service: &ServiceName, keep_from: Generation) -> Result<(), StoreError> {
        let mut held = self.enter()?;
        if let Some(of) = held.services.get_mut(service) {
            prune(&mut of.generations, keep_from);
            prune(&mut of.claims, keep_from);
        }
        Ok(())
    }

    fn put_server(&self, report: &ServerReport) -> Result<(), StoreError> {
        self.put_report(Arc::new(report.clone()))
    }

    fn hearts(&self) -> Result<ServerHearts, StoreError> {
        Ok(ServerHearts { reports: self.enter_expected()?.servers.clone(), unreadable: BTreeMap::new() })
    }
}

impl CopiedStore for InMemory {
    fn standing(&self) -> Result<Option<Standing>, StoreError> {
        Ok(self.enter_any().standing.clone())
    }

    fn expect_standing(&self, standing: &Standing) {
        *self.expected.lock().unwrap_or_else(PoisonError::into_inner) = Some(standing.clone());
    }

    fn change_standing(&self, from: &Standing, to: &Standing) -> Result<(), StoreError> {
        let mut held = self.enter_any();
        match held.standing.clone() {
            Some(there) if there == *from || there == *to => held.standing = Some(to.clone()),
            Some(there) => return Err(changed(&there)),
            None => return Err(nothing("a store")),
        }
        Ok(())
    }

    fn make_as(&self, standing: &Standing) -> Result<(), StoreError> {
        let mut held = self.enter_any();
        match held.standing.clone() {
            Some(there) if there != *standing => return Err(changed(&there)),
            _ => held.standing = Some(standing.clone()),
        }
        Ok(())
    }

    fn closes_at_once(&self) -> bool {
        true
    }

    fn fill(&self, service: &ServiceName, with: &Fill) -> Result<(), StoreError> {
        let mut held = self.enter()?;
        let of = held.services.entry(service.clone()).or_default();
        match with {
            Fill::Claim(claim) => drop(of.claims.insert(claim.generation, Arc::new(claim.clone()))),
            Fill::RemoveClaim(generation) => drop(of.claims.remove(generation)),
            Fill::Begin(generation, contents) => {
                check(&contents.records)?;
                of.generations.entry(*generation).or_insert_with(|| Contents::clone(contents));
            }
            Fill::Change(generation, changes) => {
                check_changes(changes)?;
                let contents = of.generations.get_mut(generation);
                let contents =
                    contents.ok_or_else(|| nothing(&format!("generation {generation} of {service}")))?;
                changes.iter().cloned().for_each(|change| contents.apply(change));
            }
            Fill::RemoveGeneration(generation) => drop(of.generations.remove(generation)),
            Fill::Tenure(tenure) => {
                of.tenures.entry(tenure.generation).or_insert_with(|| Tenure::clone(tenure));
            }
            Fill::RemoveTenure(generation) => drop(of.tenures.remove(generation)),
        }
        Ok(())
    }
}

/// Removes what is older than `keep_from`, but not the newest.
fn prune<T>(all: &mut BTreeMap<Generation, T>, keep_from: Generation) {
    let newest = all.keys().next_back().copied();
    all.retain(|generation, _| *generation >= keep_from || Some(*generation) == newest);
}
