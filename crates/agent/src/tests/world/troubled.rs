//! A store of a test that fails where the test says so.

use std::sync::Mutex;

use heirlock_core::history::Tenure;
use heirlock_core::store::{
    Account, Change, ClaimAnswer, Commit, Past, Place, ServerHearts, ServerReport, StoreErrorKind,
};
use heirlock_core::store_identity::{Found as FoundStore, OlderStore, WrongStore};
use heirlock_core::{Record, RecordKey};

use super::*;

type Answer<T> = Result<T, StoreError>;

/// A fault of the store.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    /// Of these calls.
    pub(super) calls: &'static [&'static str],
    /// For this service alone.
    pub(super) service: Option<ServiceName>,
    pub(super) kind: StoreErrorKind,
    /// What was asked for is done all the same.
    pub(super) is_done: bool,
    /// So many calls fail.
    pub(super) times: usize,
}

impl Fault {
    /// These calls fail for a service until the fault is mended.
    pub(super) fn of(service: &ServiceName, calls: &'static [&'static str]) -> Self {
        let kind = StoreErrorKind::Unavailable;
        Self { calls, service: Some(service.clone()), kind, is_done: false, times: usize::MAX }
    }
}

/// The faults of a store, as the test changes them.
#[derive(Debug, Default, Clone)]
pub(super) struct Faults(Arc<Mutex<Vec<Fault>>>);

impl Faults {
    /// From now on the store has this fault as well.
    pub(super) fn add(&self, fault: Fault) {
        self.0.lock().unwrap().push(fault);
    }

    /// The store has no fault any more.
    pub(super) fn mend(&self) {
        self.0.lock().unwrap().clear();
    }
}

/// The store.
#[derive(Debug)]
pub(super) struct Troubled {
    memory: InMemory,
    faults: Faults,
}

impl Troubled {
    pub(super) fn new(memory: &InMemory, faults: &Faults) -> Self {
        Self { memory: memory.clone(), faults: faults.clone() }
    }

    fn call<T>(
        &self,
        call: &str,
        service: Option<&ServiceName>,
        does: impl FnOnce(&InMemory) -> Answer<T>,
    ) -> Answer<T> {
        let mut faults = self.faults.0.lock().unwrap();
        let is_meant = |fault: &&mut Fault| {
            let is_of_service = fault.service.is_none() || fault.service.as_ref() == service;
            fault.times > 0 && fault.calls.contains(&call) && is_of_service
        };
        let Some(fault) = faults.iter_mut().find(is_meant) else { return does(&self.memory) };
        fault.times -= 1;
        if fault.is_done {
            drop(does(&self.memory));
        }
        Err(StoreError::new(fault.kind.clone(), format!("{call}: the store of the test fails")))
    }
}

impl Store for Troubled {
    fn describe(&self) -> String {
        self.memory.describe()
    }

    fn place(&self, of: Place<'_>) -> String {
        self.memory.place(of)
    }

    fn wrong(&self, why: WrongStore) -> StoreError {
        self.memory.wrong(why)
    }

    fn older(&self, why: OlderStore) -> StoreError {
        self.memory.older(why)
    }

    fn progress(&self) -> u64 {
        0
    }

    fn probe(&self) -> Answer<()> {
        self.call("probe", None, Store::probe)
    }

    fn found(&self) -> Answer<FoundStore> {
        self.call("found", None, Store::found)
    }

    fn give_identity(&self, identity: &StoreIdentity) -> Answer<StoreIdentity> {
        self.call("give_identity", None, |memory| memory.give_identity(identity))
    }

    fn expect(&self, identity: Option<&StoreIdentity>) {
        self.memory.expect(identity);
    }

    fn services(&self) -> Answer<Vec<ServiceName>> {
        self.call("services", None, Store::services)
    }

    fn newest_claim(&self, service: &ServiceName) -> Answer<Option<Claim>> {
        self.call("newest_claim", Some(service), |memory| memory.newest_claim(service))
    }

    fn claim(&self, service: &ServiceName, claim: &Claim) -> Answer<ClaimAnswer> {
        self.call("claim", Some(service), |memory| memory.claim(service, claim))
    }

    fn restore_claim(&self, service: &ServiceName, claim: &Claim) -> Answer<()> {
        self.call("restore_claim", Some(service), |memory| memory.restore_claim(service, claim))
    }

    fn release(&self, service: &ServiceName, generation: Generation) -> Answer<()> {
        self.call("release", Some(service), |memory| memory.release(service, generation))
    }

    fn newest_generation(&self, service: &ServiceName, at_most: Generation) -> Answer<Option<Generation>> {
        self.call("newest_generation", Some(service), |memory| memory.newest_generation(service, at_most))
    }

    fn check_records(&self, service: &ServiceName, generation: Generation) -> Answer<()> {
        self.call("check_records", Some(service), |memory| memory.check_records(service, generation))
    }

    fn number_of(&self, service: &ServiceName, generation: Generation) -> Answer<Option<StateNumber>> {
        self.call("number_of", Some(service), |memory| memory.number_of(service, generation))
    }

    fn begin_generation(
        &self,
        service: &ServiceName,
        generation: Generation,
        contents: &Contents,
    ) -> Answer<()> {
        self.call("begin_generation", Some(service), |memory| {
            memory.begin_generation(service, generation, contents)
        })
    }

    fn load(&self, service: &ServiceName, generation: Generation) -> Answer<Contents> {
        self.call("load", Some(service), |memory| memory.load(service, generation))
    }

    fn commit(&self, service: &ServiceName, by: &Claim, changes: &[Change]) -> Answer<()> {
        self.call("commit", Some(service), |memory| memory.commit(service, by, changes))
    }

    fn commit_each(&self, work: &[Commit]) -> Answer<()> {
        let services: Vec<&ServiceName> = work.iter().map(|commit| &commit.service).collect();
        self.call("commit", services.first().copied(), |memory| memory.commit_each(work))
    }

    fn past(&self, service: &ServiceName) -> Answer<Past> {
        self.call("past", Some(service), |memory| memory.past(service))
    }

    fn account(&self, service: &ServiceName, generation: Generation) -> Answer<Account> {
        self.call("account", Some(service), |memory| memory.account(service, generation))
    }

    fn keep_tenure(&self, service: &ServiceName, tenure: &Tenure) -> Answer<()> {
        self.call("keep_tenure", Some(service), |memory| memory.keep_tenure(service, tenure))
    }

    fn record(&self, service: &ServiceName, generation: Generation, key: &RecordKey) -> Option<Record> {
        self.memory.record(service, generation, key)
    }

    fn written_at_s(&self, service: &ServiceName, generation: Generation, key: &RecordKey) -> Option<u64> {
        self.memory.written_at_s(service, generation, key)
    }

    fn prune(&self, service: &ServiceName, keep_from: Generation) -> Answer<()> {
        self.call("prune", Some(service), |memory| memory.prune(service, keep_from))
    }

    fn put_server(&self, report: &ServerReport) -> Answer<()> {
        self.call("put_server", None, |memory| memory.put_server(report))
    }

    fn hearts(&self) -> Answer<ServerHearts> {
        self.call("hearts", None, Store::hearts)
    }
}
