//! A store whose calls end in time, also where a disk hangs, or a dead NFS server under the store's volume.
//!
//! Each call is made on a thread of the store's own, and the caller waits for it as long as [`STORE_WAIT_MAX`] says. A call
//! that takes longer fails with [`StoreErrorKind::TimedOut`], and may come about all the same. Until it has ended no other
//! one is begun, so that nothing overtakes it: each fails at once, in the same words. Its answer is thrown away when it
//! comes, for the caller was told that it failed; from then on the store is asked again ([`Store::is_busy`]).
//!
//! The calls that carry a whole generation, or many records, are waited for as long as the store makes progress: on a
//! slow disk a hundred thousand records need their time, and nothing hangs.
//!
//! Heartbeats have a thread besides. A record that hangs keeps no heart from beating, where the store takes that. A heartbeat
//! that ends late tells its result at the next beat.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use heirlock_core::claim::Claim;
use heirlock_core::history::Tenure;
use heirlock_core::store_identity::{Found, OlderStore, StoreIdentity, WrongStore};
use heirlock_core::{Generation, ServiceName};
use heirlock_core::{Record, RecordKey};
use heirlock_nsm::StateNumber;

use super::{
    Account, Beaten, Change, ClaimAnswer, Commit, Contents, Past, Place, ServerHearts, ServerReport, Store,
    StoreError, StoreErrorKind, Told,
};
use crate::limits::{BEAT_LATE_MAX, BEAT_WAIT_MAX, STORE_WAIT_MAX};
use crate::threads;

type Answer<T> = Result<T, StoreError>;
type Call = Box<dyn FnOnce(&dyn Store) + Send>;

/// A store behind threads of its own.
pub(crate) struct Timed {
    store: Arc<dyn Store>,
    calls: Lane,
    beats: Lane,
    /// The result of a heartbeat that ended after its caller had given it up.
    late: Arc<Mutex<Option<Beaten>>>,
    /// How late it may be for that to be of use.
    late_max: Duration,
}

/// Calls that are made one after the other, by one thread.
struct Lane {
    /// Held by the thread whose call is waited for.
    turn: Mutex<()>,
    calls: Sender<Call>,
    on: Arc<Mutex<Option<On>>>,
    wait_max: Duration,
}

/// The call that is on.
struct On {
    what: &'static str,
    began: Instant,
    given_up: bool,
}

/// How long a call is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// So long in all.
    Brief,
    /// As long as the store makes progress, and so long without any.
    WhileItProgresses,
}

impl Timed {
    /// Begins the threads. `ended` is told when a call has ended that was given up.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub(crate) fn new(store: Box<dyn Store>, ended: impl Fn() + Send + 'static) -> io::Result<Self> {
        let store: Arc<dyn Store> = Arc::from(store);
        let (calls, asked) = Lane::new(STORE_WAIT_MAX);
        let (beats, beaten) = Lane::new(BEAT_WAIT_MAX);
        let works = |lane: &Lane| (Arc::clone(&store), Arc::clone(&lane.on));
        let ((of_calls, on), (of_beats, beating)) = (works(&calls), works(&beats));
        threads::start("store", move || work(of_calls.as_ref(), &asked, &on, ended))?;
        threads::start("heartbeat", move || work(of_beats.as_ref(), &beaten, &beating, || {}))?;
        Ok(Self { store, calls, beats, late: Arc::default(), late_max: BEAT_LATE_MAX })
    }

    /// A store that waits for so long, for tests that show something else.
    #[cfg(test)]
    pub(crate) fn patient(store: Box<dyn Store>, wait_max: Duration) -> Self {
        let mut timed = Self::new(store, || {}).unwrap();
        (timed.calls.wait_max, timed.beats.wait_max) = (wait_max, wait_max);
        timed
    }

    fn brief<T: Send + 'static>(
        &self,
        what: &'static str,
        call: impl FnOnce(&dyn Store) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        self.calls.call(self.store.as_ref(), what, Wait::Brief, call)
    }

    fn long<T: Send + 'static>(
        &self,
        what: &'static str,
        call: impl FnOnce(&dyn Store) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        self.calls.call(self.store.as_ref(), what, Wait::WhileItProgresses, call)
    }
}

/// Makes the calls, in order, until no caller is left.
fn work(store: &dyn Store, calls: &Receiver<Call>, on: &Mutex<Option<On>>, ended: impl Fn()) {
    for call in calls {
        call(store);
        // Cleared by the call itself, before its caller hears of it; one that was given up has no caller any more.
        let given_up = entered(on).take_if(|on| on.given_up);
        if let Some(On { what, began, .. }) = given_up {
            let (place, took) = (store.place(Place::Store), began.elapsed().as_secs());
            tracing::warn!(%place, what, took, "{place}: {what} has ended after {took} s; it counts as failed, and may have come about");
            ended();
        }
    }
}

fn entered<T>(on: &Mutex<Option<T>>) -> MutexGuard<'_, Option<T>> {
    // Its contents are still true after a thread has panicked.
    on.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lane {
    /// One whose calls wait to be made.
    fn new(wait_max: Duration) -> (Self, Receiver<Call>) {
        let (calls, made) = channel();
        (Self { turn: Mutex::default(), calls, on: Arc::default(), wait_max }, made)
    }

    fn call<T: Send + 'static>(
        &self,
        store: &dyn Store,
        what: &'static str,
        wait: Wait,
        call: impl FnOnce(&dyn Store) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let too_long = |what: &str| {
            let place = store.place(Place::Store);
            let sentence = format!(
                "{place}: {what} takes longer than {} ms, and nothing more is asked of the store until that ends; look at its \
                 disk, volume or network (dmesg)",
                self.wait_max.as_millis()
            );
            StoreError::new(StoreErrorKind::TimedOut, sentence)
        };
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(on) = &*entered(&self.on) {
            return Err(too_long(on.what));
        }
        *entered(&self.on) = Some(On { what, began: Instant::now(), given_up: false });
        let (answer, answered) = channel();
        let on = Arc::clone(&self.on);
        let made = self.calls.send(Box::new(move |store| {
            let done = call(store);
            let mut on = entered(&on);
            // The answer to a call that was given up is thrown away: its caller goes by a failure.
            if !on.as_ref().is_some_and(|on| on.given_up) {
                // The caller may make the next call as soon as it knows of the end of this one.
                *on = None;
                drop(on);
                let _ = answer.send(done);
            }
        }));
        if made.is_err() {
            return Err(too_long(what));
        }
        let mut progress = store.progress();
        loop {
            match answered.recv_timeout(self.wait_max) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Timeout)
                    if wait == Wait::WhileItProgresses && store.progress() != progress =>
                {
                    progress = store.progress();
                }
                Err(_) => break,
            }
        }
        if let Some(on) = entered(&self.on).as_mut() {
            on.given_up = true;
            return Err(too_long(what));
        }
        // It has ended in this very moment.
        answered.recv().unwrap_or_else(|_| Err(too_long(what)))
    }

    fn is_busy(&self) -> bool {
        entered(&self.on).is_some()
    }
}

impl Store for Timed {
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

    fn is_busy(&self) -> bool {
        self.calls.is_busy()
    }

    fn progress(&self) -> u64 {
        self.store.progress()
    }

    fn probe(&self) -> Answer<()> {
        self.brief("a proof that it can be written", |store| store.probe())
    }

    fn found(&self) -> Answer<Found> {
        self.brief("a look at what it is", |store| store.found())
    }

    fn give_identity(&self, identity: &StoreIdentity) -> Answer<StoreIdentity> {
        let identity = identity.clone();
        self.brief("to give it an identity", move |store| store.give_identity(&identity))
    }

    fn expect(&self, identity: Option<&StoreIdentity>) {
        self.store.expect(identity);
    }

    fn on_change(&self, told: Told) {
        self.store.on_change(told);
    }

    fn services(&self) -> Answer<Vec<ServiceName>> {
        self.brief("a look for its services", |store| store.services())
    }

    fn newest_claim(&self, service: &ServiceName) -> Answer<Option<Claim>> {
        let service = service.clone();
        self.brief("a look for the newest claim", move |store| store.newest_claim(&service))
    }

    fn claim(&self, service: &ServiceName, claim: &Claim) -> Answer<ClaimAnswer> {
        let (service, claim) = (service.clone(), claim.clone());
        self.brief("a claim", move |store| store.claim(&service, &claim))
    }

    fn restore_claim(&self, service: &ServiceName, claim: &Claim) -> Answer<()> {
        let (service, claim) = (service.clone(), claim.clone());
        self.brief("to write a claim anew", move |store| store.restore_claim(&service, &claim))
    }

    fn release(&self, service: &ServiceName, generation: Generation) -> Answer<()> {
        let service = service.clone();
        self.brief("to give up a claim", move |store| store.release(&service, generation))
    }

    fn newest_generation(&self, service: &ServiceName, at_most: Generation) -> Answer<Option<Generation>> {
        let service = service.clone();
        self.brief("a look for the newest generation", move |store| {
            store.newest_generation(&service, at_most)
        })
    }

    fn check_records(&self, service: &ServiceName, generation: Generation) -> Answer<()> {
        let service = service.clone();
        self.long("a look for the records of a generation", move |store| {
            store.check_records(&service, generation)
        })
    }

    fn number_of(&self, service: &ServiceName, generation: Generation) -> Answer<Option<StateNumber>> {
        let service = service.clone();
        self.brief("to read a state number", move |store| store.number_of(&service, generation))
    }

    fn begin_generation(
        &self,
        service: &ServiceName,
        generation: Generation,
        contents: &Contents,
    ) -> Answer<()> {
        let (service, contents) = (service.clone(), contents.clone());
        self.long("to begin a generation", move |store| {
            store.begin_generation(&service, generation, &contents)
        })
    }

    fn load(&self, service: &ServiceName, generation: Generation) -> Answer<Contents> {
        let service = service.clone();
        self.long("to read a generation", move |store| store.load(&service, generation))
    }

    fn commit(&self, service: &ServiceName, by: &Claim, changes: &[Change]) -> Answer<()> {
        let (service, by, changes) = (service.clone(), by.clone(), changes.to_vec());
        self.long("a commit", move |store| store.commit(&service, &by, &changes))
    }

    fn commit_each(&self, work: &[Commit]) -> Answer<()> {
        let work = work.to_vec();
        self.long("a commit", move |store| store.commit_each(&work))
    }

    fn past(&self, service: &ServiceName) -> Answer<Past> {
        let service = service.clone();
        self.long("a look for earlier generations", move |store| store.past(&service))
    }

    fn account(&self, service: &ServiceName, generation: Generation) -> Answer<Account> {
        let service = service.clone();
        self.long("to read what became of a generation", move |store| store.account(&service, generation))
    }

    fn keep_tenure(&self, service: &ServiceName, tenure: &Tenure) -> Answer<()> {
        let (service, tenure) = (service.clone(), tenure.clone());
        self.long("to keep what is told of a generation", move |store| store.keep_tenure(&service, &tenure))
    }

    fn record(&self, service: &ServiceName, generation: Generation, key: &RecordKey) -> Option<Record> {
        let (service, key) = (service.clone(), key.clone());
        let read = self.brief("to read a record", move |store| Ok(store.record(&service, generation, &key)));
        read.ok().flatten()
    }

    fn written_at_s(&self, service: &ServiceName, generation: Generation, key: &RecordKey) -> Option<u64> {
        let (service, key) = (service.clone(), key.clone());
        let told = self.brief("to ask when a record was written", move |store| {
            Ok(store.written_at_s(&service, generation, &key))
        });
        told.ok().flatten()
    }

    fn prune(&self, service: &ServiceName, keep_from: Generation) -> Answer<()> {
        let service = service.clone();
        self.long("to remove old generations", move |store| store.prune(&service, keep_from))
    }

    fn put_server(&self, report: &ServerReport) -> Answer<()> {
        let report = report.clone();
        self.brief("to write a heartbeat", move |store| store.put_server(&report))
    }

    fn hearts(&self) -> Answer<ServerHearts> {
        self.brief("a look at the heartbeats", |store| store.hearts())
    }

    fn beat(&self, report: &ServerReport) -> Answer<Beaten> {
        let earlier = entered(&self.late).take();
        let (report, late, late_max) = (report.clone(), Arc::clone(&self.late), self.late_max);
        let beaten = self.beats.call(self.store.as_ref(), "a heartbeat", Wait::Brief, move |store| {
            let began = Instant::now();
            let beaten = store.beat(&report)?;
            // An older result tells nothing of this moment.
            if began.elapsed() <= late_max {
                *entered(&late) = Some(beaten.clone());
            }
            Ok(beaten)
        });
        match (beaten, earlier) {
            (Ok(beaten), _) => {
                entered(&self.late).take();
                Ok(beaten)
            }
            (Err(_), Some(earlier)) => Ok(earlier),
            (Err(error), None) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
