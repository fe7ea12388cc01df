//! A store for tests: another one, before each call of which the test has its say.

use std::sync::{Arc, Condvar, Mutex};

use heirlock_core::claim::Claim;
use heirlock_core::history::Tenure;
use heirlock_core::store_identity::{Found, OlderStore, StoreIdentity, WrongStore};
use heirlock_core::{Generation, ServiceName};
use heirlock_core::{Record, RecordKey};
use heirlock_nsm::StateNumber;

use super::{
    Account, Change, ClaimAnswer, Commit, Contents, Past, Place, ServerHearts, ServerReport, Store,
    StoreError, Told,
};

/// A store whose calls a test delays, or lets fail, by the name of the method.
pub(crate) struct Steered<S, F> {
    pub(crate) store: S,
    pub(crate) before: F,
}

/// Calls that hang until the test lets them go on: those of these methods.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<Vec<&'static str>>, Condvar)>);

impl Gate {
    /// From now on calls of these methods hang.
    pub(crate) fn shut(&self, methods: &[&'static str]) {
        *self.0.0.lock().unwrap() = methods.to_vec();
    }

    /// They go on.
    pub(crate) fn open(&self) {
        self.shut(&[]);
        self.0.1.notify_all();
    }

    /// A store whose calls pass this gate.
    pub(crate) fn before<S: Store>(&self, store: S) -> impl Store + use<S> {
        let gate = self.clone();
        let before = move |method| {
            gate.pass(method);
            Ok(())
        };
        Steered { store, before }
    }

    fn pass(&self, method: &'static str) {
        let shut = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(shut, |shut| shut.contains(&method)).unwrap());
    }
}

impl<S: Store, F: Fn(&'static str) -> Result<(), StoreError> + Send + Sync> Store for Steered<S, F> {
    fn describe(&self) -> String {
        self.store.describe()
    }

    fn place(&self, of: Place<'_>) -> String {
        self.store.place(of)
    }

    fn wrong(&self, why: WrongStore) -> StoreError {
        self.store.wrong(why)
    }

    fn older(&self, why: OlderStore) -> StoreError {
        self.store.older(why)
    }

    fn expect(&self, identity: Option<&StoreIdentity>) {
        self.store.expect(identity);
    }

    fn on_change(&self, told: Told) {
        self.store.on_change(told);
    }

    fn progress(&self) -> u64 {
        self.store.progress()
    }

    fn record(&self, service: &ServiceName, generation: Generation, key: &RecordKey) -> Option<Record> {
        (self.before)("record").ok()?;
        self.store.record(service, generation, key)
    }

    fn written_at_s(&self, service: &ServiceName, generation: Generation, key: &RecordKey) -> Option<u64> {
        (self.before)("written_at_s").ok()?;
        self.store.written_at_s(service, generation, key)
    }

    fn probe(&self) -> Result<(), StoreError> {
        (self.before)("probe")?;
        self.store.probe()
    }

    fn found(&self) -> Result<Found, StoreError> {
        (self.before)("found")?;
        self.store.found()
    }

    fn give_identity(&self, identity: &StoreIdentity) -> Result<StoreIdentity, StoreError> {
        (self.before)("give_identity")?;
        self.store.give_identity(identity)
    }

    fn services(&self) -> Result<Vec<ServiceName>, StoreError> {
        (self.before)("services")?;
        self.store.services()
    }

    fn newest_claim(&self, service: &ServiceName) -> Result<Option<Claim>, StoreError> {
        (self.before)("newest_claim")?;
        self.store.newest_claim(service)
    }

    fn claim(&self, service: &ServiceName, claim: &Claim) -> Result<ClaimAnswer, StoreError> {
        (self.before)("claim")?;
        self.store.claim(service, claim)
    }

    fn restore_claim(&self, service: &ServiceName, claim: &Claim) -> Result<(), StoreError> {
        (self.before)("restore_claim")?;
        self.store.restore_claim(service, claim)
    }

    fn release(&self, service: &ServiceName, generation: Generation) -> Result<(), StoreError> {
        (self.before)("release")?;
        self.store.release(service, generation)
    }

    fn newest_generation(
        &self,
        service: &ServiceName,
        at_most: Generation,
    ) -> Result<Option<Generation>, StoreError> {
        (self.before)("newest_generation")?;
        self.store.newest_generation(service, at_most)
    }

    fn check_records(&self, service: &ServiceName, generation: Generation) -> Result<(), StoreError> {
        (self.before)("check_records")?;
        self.store.check_records(service, generation)
    }

    fn number_of(
        &self,
        service: &ServiceName,
        generation: Generation,
    ) -> Result<Option<StateNumber>, StoreError> {
        (self.before)("number_of")?;
        self.store.number_of(service, generation)
    }

    fn begin_generation(
        &self,
        service: &ServiceName,
        generation: Generation,
        contents: &Contents,
    ) -> Result<(), StoreError> {
        (self.before)("begin_generation")?;
        self.store.begin_generation(service, generation, contents)
    }

    fn load(&self, service: &ServiceName, generation: Generation) -> Result<Contents, StoreError> {
        (self.before)("load")?;
        self.store.load(service, generation)
    }

    fn commit(&self, service: &ServiceName, by: &Claim, changes: &[Change]) -> Result<(), StoreError> {
        (self.before)("commit")?;
        self.store.commit(service, by, changes)
    }

    fn commit_each(&self, work: &[Commit]) -> Result<(), StoreError> {
        (self.before)("commit_each")?;
        self.store.commit_each(work)
    }

    fn past(&self, service: &ServiceName) -> Result<Past, StoreError> {
        (self.before)("past")?;
        self.store.past(service)
    }

    fn account(&self, service: &ServiceName, generation: Generation) -> Result<Account, StoreError> {
        (self.before)("account")?;
        self.store.account(service, generation)
    }

    fn keep_tenure(&self, service: &ServiceName, tenure: &Tenure) -> Result<(), StoreError> {
        (self.before)("keep_tenure")?;
        self.store.keep_tenure(service, tenure)
    }

    fn prune(&self, service: &ServiceName, keep_from: Generation) -> Result<(), StoreError> {
        (self.before)("prune")?;
        self.store.prune(service, keep_from)
    }

    fn put_server(&self, report: &ServerReport) -> Result<(), StoreError> {
        (self.before)("put_server")?;
        self.store.put_server(report)
    }

    fn hearts(&self) -> Result<ServerHearts, StoreError> {
        (self.before)("hearts")?;
        self.store.hearts()
    }
}
