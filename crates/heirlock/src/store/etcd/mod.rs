//! The `etcd` store: keys below a prefix of a cluster that all servers reach ([`keys`] has the layout).
//!
//! - A question goes over etcd's JSON gateway, blocking, to one endpoint after the other ([`client`], [`http`]).
//! - Every call is one transaction or several, whose condition is that the store is the one that is expected ([`store`]). All
//!   reads are linearizable: a member that lags, or has lost its majority, answers none.
//! - What is read where a condition does not hold is asked for after that, by a question of its own ([`store`]).
//! - A commit has the claim that it is made by as its condition, so a former owner's write fails in etcd itself (I3). Only
//!   where a commit is more than one transaction may a claim come between two of them ([`commit`]).
//! - A generation appears whole: its mark is written last, and no reader looks at one without it ([`generation`]). Before that a few
//!   portions of it are on the way at once ([`portions`]).
//! - A transaction whose answer was lost is repeated. Each one bears that, and none is carried out late, after others:
//!
//! | transaction | what a repetition finds |
//! |---|---|
//! | a claim | the claim, with this run of the agent in it ([`claims`]) |
//! | a commit | its own mark, which the transaction wrote ([`turn`]) |
//! | the steps of beginning a generation | the mark of the attempt, and the same keys; the last one finds the generation whole |
//! | a heartbeat | itself ([`hearts`]) |
//! | an identity, a claim that is written anew, an account | that it is there |
//! | giving up a claim, removing keys, a probe | nothing: it does the same again |
//! | a step of a copy | that it does the same again, or that the copy goes on under another name ([`copied`]) |
//! | making the store | that there is one |

mod bare;
mod claims;
mod client;
mod commit;
mod copied;
mod endpoints;
mod failure;
mod generation;
mod health;
mod hearts;
mod http;
mod identity;
mod keys;
mod on_host;
mod pages;
mod portions;
mod read_before;
mod secret;
mod store;
mod turn;
mod wire;
mod x509;

pub use bare::bare_puts;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use heirlock_core::claim::Claim;
use heirlock_core::history::Tenure;
use heirlock_core::store_identity::{Found, OlderStore, StoreIdentity, WrongStore};
use heirlock_core::store_standing::Standing;
use heirlock_core::{Generation, Record, RecordKey, ServerName, ServiceName};
use heirlock_nsm::StateNumber;
use heirlock_nsm::record::parse_record;

use super::{
    Account, Asked, Beaten, Change, ClaimAnswer, Commit, Contents, Past, Place, Seen, ServerHearts,
    ServerReport, Store, StoreError, StoreErrorKind,
};
use client::{Client, Purpose, User};
use commit::{Part, Turns};
use http::{Http, TlsFiles};
use keys::Keys;
use read_before::ReadBefore;
use wire::Range;

use crate::config::EtcdSettings;
use crate::host::Host;

/// A store in etcd.
pub(crate) struct EtcdStore {
    client: Arc<Client>,
    keys: Keys,
    /// The store, for people.
    shown: Arc<str>,
    /// Which store it must be.
    expected: Mutex<Option<Standing>>,
    /// What is known of the generations that this server changes. Held while it changes one.
    turns: Arc<Mutex<Turns>>,
    /// The revisions of the heartbeats that were written last.
    beaten: Arc<Mutex<HashMap<ServerName, u64>>>,
    /// The records that were read last. Held for a moment only: a heartbeat waits for no reading.
    read_before: Arc<Mutex<ReadBefore>>,
    unique: Arc<Unique>,
}

/// The same settings, with the files where they lie on this host.
pub(super) fn files_on(host: &Host, settings: &EtcdSettings) -> EtcdSettings {
    EtcdSettings {
        ca: settings.ca.as_ref().map(|ca| host.at(ca)),
        certificate: settings.certificate.as_ref().map(|(own, key)| (host.at(own), host.at(key))),
        user: settings.user.as_ref().map(|(name, password)| (name.clone(), host.at(password))),
        ..settings.clone()
    }
}

/// Makes texts that nothing else has: those of this process by their number, those of others by a random part.
struct Unique {
    of_this_process: u128,
    count: AtomicU64,
}

impl Unique {
    fn next(&self) -> String {
        format!("{:032x}.{}", self.of_this_process, self.count.fetch_add(1, Ordering::Relaxed))
    }
}

impl EtcdStore {
    /// The store that is configured. It need not be reached yet.
    pub(crate) fn at(settings: &EtcdSettings) -> Self {
        let EtcdSettings { endpoints, prefix, ca, certificate, .. } = settings;
        let files = TlsFiles { ca: ca.clone(), own: certificate.clone() };
        let exchange = Http::new(endpoints, files, settings.connect_time);
        let user = settings.user.clone().map(|(name, file)| {
            let password = Box::new(move || secret::read_password(&file));
            User { name, password }
        });
        let client = Client::new(Box::new(exchange), endpoints.len(), user, settings.answer_time);
        Self::on(client, prefix, &format!("etcd at {}, below {prefix}", endpoints.join(", ")))
    }

    fn on(client: Client, prefix: &str, shown: &str) -> Self {
        Self {
            client: Arc::new(client),
            keys: Keys::below(prefix),
            shown: shown.into(),
            expected: Mutex::default(),
            turns: Arc::default(),
            beaten: Arc::default(),
            read_before: Arc::default(),
            unique: Arc::new(Unique { of_this_process: fastrand::u128(..), count: AtomicU64::new(0) }),
        }
    }

    /// The same store, whichever it is.
    pub(super) fn for_any(&self) -> Self {
        Self {
            client: Arc::clone(&self.client),
            keys: self.keys.clone(),
            shown: Arc::clone(&self.shown),
            expected: Mutex::default(),
            turns: Arc::clone(&self.turns),
            beaten: Arc::clone(&self.beaten),
            read_before: Arc::clone(&self.read_before),
            unique: Arc::clone(&self.unique),
        }
    }

    fn read_before(&self) -> MutexGuard<'_, ReadBefore> {
        // Its contents are still true after a thread has panicked.
        self.read_before.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shown(&self) -> &str {
        &self.shown
    }

    fn hearts_known(&self) -> MutexGuard<'_, HashMap<ServerName, u64>> {
        // Its contents are still true after a thread has panicked.
        self.beaten.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for EtcdStore {
    fn describe(&self) -> String {
        self.shown().to_owned()
    }

    fn place(&self, of: Place<'_>) -> String {
        let key = match of {
            Place::Store => return self.shown().to_owned(),
            Place::Claim(service, generation) => self.keys.claim(service, generation),
            Place::Generation(service, generation) => self.keys.generation(service, generation).from,
            Place::Records(service, generation) => self.keys.records(service, generation).from,
        };
        // Entries of a generation lie below it, as in a folder.
        format!("{}, key {}", self.shown(), self.key_text(&key)).trim_end_matches('/').to_owned()
    }

    fn wrong(&self, why: WrongStore) -> StoreError {
        self.wrong_store(&why)
    }

    fn older(&self, why: OlderStore) -> StoreError {
        let said = format!(
            "{}: {why} Put back the newest copy; to go on with what is there, say 'heirlock enable --new-store'",
            self.shown()
        );
        StoreError::new(StoreErrorKind::Older, said)
    }

    fn progress(&self) -> u64 {
        self.client.progress()
    }

    fn probe(&self) -> Result<(), StoreError> {
        self.prove(0)
    }

    fn found(&self) -> Result<Found, StoreError> {
        self.look_any()
    }

    fn give_identity(&self, identity: &StoreIdentity) -> Result<StoreIdentity, StoreError> {
        self.identify(identity)
    }

    fn expect(&self, identity: Option<&StoreIdentity>) {
        *self.expected() = identity.cloned().map(Standing::InForce);
    }

    fn services(&self) -> Result<Vec<ServiceName>, StoreError> {
        self.claimed_services()
    }

    fn newest_claim(&self, service: &ServiceName) -> Result<Option<Claim>, StoreError> {
        self.newest(service)
    }

    fn claim(&self, service: &ServiceName, claim: &Claim) -> Result<ClaimAnswer, StoreError> {
        self.claim_once(service, claim)
    }

    fn restore_claim(&self, service: &ServiceName, claim: &Claim) -> Result<(), StoreError> {
        self.restore(service, claim)
    }

    fn release(&self, service: &ServiceName, generation: Generation) -> Result<(), StoreError> {
        self.give_up(service, generation)
    }

    fn newest_generation(
        &self,
        service: &ServiceName,
        at_most: Generation,
    ) -> Result<Option<Generation>, StoreError> {
        self.newest_begun(service, at_most)
    }

    fn check_records(&self, service: &ServiceName, generation: Generation) -> Result<(), StoreError> {
        let begun = Range::key(self.keys.begun(service, generation)).names();
        let records = Range { limit: 1, ..Range::of(self.keys.records(service, generation)).names() };
        let (_, [begun, _]) = self.read([begun, records], Purpose::Call)?;
        match begun.entries.is_empty() {
            true => Err(self.no_generation(service, generation)),
            false => Ok(()),
        }
    }

    fn number_of(
        &self,
        service: &ServiceName,
        generation: Generation,
    ) -> Result<Option<StateNumber>, StoreError> {
        self.number(service, generation)
    }

    fn begin_generation(
        &self,
        service: &ServiceName,
        generation: Generation,
        contents: &Contents,
    ) -> Result<(), StoreError> {
        self.begin(service, generation, contents)
    }

    fn load(&self, service: &ServiceName, generation: Generation) -> Result<Contents, StoreError> {
        self.load_all(service, generation)
    }

    fn commit(&self, service: &ServiceName, by: &Claim, changes: &[Change]) -> Result<(), StoreError> {
        let steps = self.steps(service, by.generation, changes)?;
        self.commit_parts(vec![Part { service, by, steps }])
    }

    fn commit_each(&self, work: &[Commit]) -> Result<(), StoreError> {
        let parts = work.iter().map(|Commit { service, by, changes }| {
            Ok(Part { service, by, steps: self.steps(service, by.generation, changes)? })
        });
        self.commit_parts(parts.collect::<Result<_, StoreError>>()?)
    }

    fn past(&self, service: &ServiceName) -> Result<Past, StoreError> {
        self.past_of(service)
    }

    fn account(&self, service: &ServiceName, generation: Generation) -> Result<Account, StoreError> {
        self.account_of(service, generation)
    }

    fn keep_tenure(&self, service: &ServiceName, tenure: &Tenure) -> Result<(), StoreError> {
        self.keep_one(service, tenure)
    }

    fn record(&self, service: &ServiceName, generation: Generation, key: &RecordKey) -> Option<Record> {
        let key = Range::key(self.keys.record(service, generation, key));
        let (_, [read]) = self.read([key], Purpose::Call).ok()?;
        read.value().filter(|value| parse_record(value).is_ok()).map(Record::from)
    }

    /// etcd keeps no times.
    fn written_at_s(&self, _: &ServiceName, _: Generation, _: &RecordKey) -> Option<u64> {
        None
    }

    fn prune(&self, service: &ServiceName, keep_from: Generation) -> Result<(), StoreError> {
        self.prune_all(service, keep_from)
    }

    fn beat(&self, report: &ServerReport) -> Result<Beaten, StoreError> {
        self.beat_once(report)
    }

    fn look(&self, of: &[Asked]) -> Vec<Seen> {
        self.look_at(of)
    }

    fn put_server(&self, report: &ServerReport) -> Result<(), StoreError> {
        self.write_report(report, None).map(drop)
    }

    fn hearts(&self) -> Result<ServerHearts, StoreError> {
        self.all_hearts()
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
