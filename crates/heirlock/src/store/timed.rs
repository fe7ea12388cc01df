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
//! that ends late tells its result at the next beat. The same thread looks at the claims after each beat; while such a look takes
//! its time, the heart has another thread.
//!
//! A loop that waits for one call after the other, each of which makes progress, lives: where a heartbeat is due meanwhile, the
//! caller itself repeats the last one ([`Timed::keep_heart`]), for so long as a loop may make no turn. A loop that hangs
//! anywhere else makes no call, and its heart stops.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
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
    Account, Asked, Beaten, Change, ClaimAnswer, Commit, Contents, Past, Place, Seen, ServerHearts,
    ServerReport, Store, StoreError, StoreErrorKind, Told,
};
use crate::limits::{BEAT_LATE_MAX, BEAT_WAIT_MAX, BEATS_ALONE_MAX, LOOK_LATE_MAX, STORE_WAIT_MAX};
use crate::threads;

type Answer<T> = Result<T, StoreError>;
type Call = Box<dyn FnOnce(&dyn Store) + Send>;

/// A store behind threads of its own.
pub(crate) struct Timed {
    store: Arc<dyn Store>,
    calls: Lane,
    /// A new one takes its place while it looks at the claims for long.
    beats: Mutex<Arc<Lane>>,
    heart: Mutex<Heart>,
    found: Arc<FoundLate>,
    /// How late a heartbeat may be for its result to be of use.
    late_max: Duration,
}

/// The results that came after their caller had given them up.
#[derive(Default)]
struct FoundLate {
    beaten: Mutex<Option<Beaten>>,
    /// And when that look began.
    seen: Mutex<Option<(Instant, Vec<Seen>)>>,
    /// A look at the claims is on.
    is_looking: AtomicBool,
}

/// The heart, as far as it beats while the loop waits.
#[derive(Default)]
struct Heart {
    /// How often it beats; nothing where it does so by the loop's own word alone.
    interval: Option<Duration>,
    /// The last heartbeat.
    last: Option<ServerReport>,
    /// When the loop gave its last word, and when the heart last beat.
    said: Option<Instant>,
    beaten: Option<Instant>,
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
    /// Its result was taken in though it was given up: no end of a failed call is to be told.
    has_not_failed: bool,
}

impl On {
    fn began_now(what: &'static str) -> Self {
        Self { what, began: Instant::now(), given_up: false, has_not_failed: false }
    }
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
        Self::with_waits(store, ended, [STORE_WAIT_MAX, BEAT_WAIT_MAX])
    }

    fn with_waits(
        store: Box<dyn Store>,
        ended: impl Fn() + Send + 'static,
        [of_calls, of_beats]: [Duration; 2],
    ) -> io::Result<Self> {
        let store: Arc<dyn Store> = Arc::from(store);
        Ok(Self {
            calls: Lane::start("store", &store, of_calls, ended)?,
            beats: Mutex::new(Arc::new(Lane::start("heartbeat", &store, of_beats, || {})?)),
            store,
            heart: Mutex::default(),
            found: Arc::default(),
            late_max: BEAT_LATE_MAX,
        })
    }

    /// The heart beats so often, also while a caller waits for calls that make progress.
    pub(crate) fn beating_every(self, interval: Duration) -> Self {
        entered(&self.heart).interval = Some(interval);
        self
    }

    /// A store that waits for so long, for tests that show something else.
    #[cfg(test)]
    pub(crate) fn patient(store: Box<dyn Store>, wait_max: Duration) -> Self {
        Self::with_waits(store, || {}, [wait_max; 2]).unwrap()
    }

    fn brief<T: Send + 'static>(
        &self,
        what: &'static str,
        call: impl FnOnce(&dyn Store) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        self.calls.call(self.store.as_ref(), what, Wait::Brief, &|| self.keep_heart(), call)
    }

    fn long<T: Send + 'static>(
        &self,
        what: &'static str,
        call: impl FnOnce(&dyn Store) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        self.calls.call(self.store.as_ref(), what, Wait::WhileItProgresses, &|| self.keep_heart(), call)
    }

    /// The caller waits for a call: where a heartbeat is due, the last one is repeated with the next number. Answers how long
    /// it is until the next is due.
    fn keep_heart(&self) -> Option<Duration> {
        let mut heart = entered(&self.heart);
        let interval = heart.interval?;
        if heart.said?.elapsed() > BEATS_ALONE_MAX {
            return None;
        }
        let left = interval.saturating_sub(heart.beaten?.elapsed());
        if !left.is_zero() {
            return Some(left);
        }
        heart.beaten = Some(Instant::now());
        let report = heart.last.as_mut()?;
        report.beat += 1;
        let (report, found, late_max) = (report.clone(), Arc::clone(&self.found), self.late_max);
        if let Ok(lane) = self.lane_of_beats() {
            lane.begin("a heartbeat", move |store| {
                let began = Instant::now();
                if let Ok(beaten) = store.beat(&report)
                    && began.elapsed() <= late_max
                {
                    *entered(&found.beaten) = Some(beaten);
                }
            });
        }
        Some(interval)
    }

    /// The thread of heartbeats; another one where that looks at the claims still.
    fn lane_of_beats(&self) -> io::Result<Arc<Lane>> {
        let mut beats = entered(&self.beats);
        if beats.is_busy() && self.found.is_looking.load(Ordering::Acquire) {
            *beats = Arc::new(Lane::start("heartbeat", &self.store, beats.wait_max, || {})?);
        }
        Ok(Arc::clone(&beats))
    }

    /// The loop's next heartbeat, with a number beyond those of all that were repeated.
    fn numbered(&self, report: &ServerReport) -> ServerReport {
        let mut heart = entered(&self.heart);
        let mut report = report.clone();
        if let Some(last) = heart.last.as_ref().filter(|last| last.agent == report.agent) {
            report.beat = report.beat.max(last.beat + 1);
        }
        let now = Some(Instant::now());
        (heart.said, heart.beaten, heart.last) = (now, now, Some(report.clone()));
        report
    }

    /// The result of a look that ended after its beat, unless that is too long ago.
    fn seen_late(&self) -> Option<Vec<Seen>> {
        let (began, seen) = entered(&self.found.seen).take()?;
        (began.elapsed() <= LOOK_LATE_MAX).then_some(seen)
    }

    fn beat_within_limits(&self, report: &ServerReport, of: &[Asked]) -> Answer<(Beaten, Option<Vec<Seen>>)> {
        let (earlier, seen_late) = (entered(&self.found.beaten).take(), self.seen_late());
        let (report, of, late_max) = (self.numbered(report), of.to_vec(), self.late_max);
        let lane = self.lane_of_beats().map_err(|error| {
            let sentence = format!("a heartbeat can't be written: {error}");
            StoreError::new(StoreErrorKind::Unavailable, sentence)
        })?;
        let (found, on) = (Arc::clone(&self.found), Arc::clone(&lane.on));
        let made = lane.call(self.store.as_ref(), "a heartbeat", Wait::Brief, &|| None, move |store| {
            let began = Instant::now();
            let beaten = store.beat(&report)?;
            // An older result tells nothing of this moment.
            if began.elapsed() <= late_max {
                *entered(&found.beaten) = Some(beaten.clone());
            }
            if of.is_empty() || found.is_looking.swap(true, Ordering::AcqRel) {
                return Ok((beaten, None));
            }
            let began = Instant::now();
            let seen = store.look(&of);
            *entered(&found.seen) = Some((began, seen.clone()));
            found.is_looking.store(false, Ordering::Release);
            // The heartbeat itself has not failed, whether the look was waited for or not.
            if let Some(on) = entered(&on).as_mut() {
                on.has_not_failed = true;
            }
            Ok((beaten, Some(seen)))
        });
        match made {
            Ok((beaten, seen)) => {
                entered(&self.found.beaten).take();
                if seen.is_some() {
                    entered(&self.found.seen).take();
                }
                Ok((beaten, seen.or(seen_late)))
            }
            Err(error) => {
                // It has beaten, and looks still; or this is the result of the beat before.
                let beaten = entered(&self.found.beaten).take().or(earlier);
                beaten.map(|beaten| (beaten, seen_late)).ok_or(error)
            }
        }
    }
}

/// Makes the calls, in order, until no caller is left. Of calls that are given up one after the other the first is said: those
/// of a cluster without a majority end each second, and hang again.
fn work(store: &dyn Store, calls: &Receiver<Call>, on: &Mutex<Option<On>>, ended: impl Fn()) {
    let mut was_said = false;
    for call in calls {
        call(store);
        // Cleared by the call itself, before its caller hears of it; one that was given up has no caller any more.
        let given_up = entered(on).take_if(|on| on.given_up);
        let is_first = !was_said;
        was_said = given_up.is_some() && was_said;
        if let Some(On { what, began, has_not_failed: false, .. }) = given_up {
            let (place, took) = (store.place(Place::Store), began.elapsed().as_secs());
            if is_first {
                tracing::warn!(%place, what, took, "{place}: {what} has ended after {took} s; it counts as failed, and may have come about");
            }
            was_said = true;
            ended();
        }
    }
}

fn entered<T>(on: &Mutex<T>) -> MutexGuard<'_, T> {
    // Its contents are still true after a thread has panicked.
    on.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lane {
    /// One with a thread of this name, which ends with it.
    fn start(
        name: &'static str,
        store: &Arc<dyn Store>,
        wait_max: Duration,
        ended: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let (calls, asked) = channel();
        let lane = Self { turn: Mutex::default(), calls, on: Arc::default(), wait_max };
        let (store, on) = (Arc::clone(store), Arc::clone(&lane.on));
        threads::start(name, move || work(store.as_ref(), &asked, &on, ended))?;
        Ok(lane)
    }

    /// Begins a call, unless one is on, and waits for nothing.
    fn begin(&self, what: &'static str, call: impl FnOnce(&dyn Store) + Send + 'static) {
        let Ok(_turn) = self.turn.try_lock() else { return };
        let mut is_on = entered(&self.on);
        if is_on.is_some() {
            return;
        }
        let on = Arc::clone(&self.on);
        let made = self.calls.send(Box::new(move |store| {
            call(store);
            *entered(&on) = None;
        }));
        *is_on = made.is_ok().then(|| On::began_now(what));
    }

    fn call<T: Send + 'static>(
        &self,
        store: &dyn Store,
        what: &'static str,
        wait: Wait,
        meanwhile: &dyn Fn() -> Option<Duration>,
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
        *entered(&self.on) = Some(On::began_now(what));
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
        let (mut progress, mut since) = (store.progress(), Instant::now());
        loop {
            let left = self.wait_max.saturating_sub(since.elapsed());
            match answered.recv_timeout(meanwhile().map_or(left, |due| due.min(left))) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Timeout) if since.elapsed() < self.wait_max => {}
                Err(RecvTimeoutError::Timeout)
                    if wait == Wait::WhileItProgresses && store.progress() != progress =>
                {
                    (progress, since) = (store.progress(), Instant::now());
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
        self.beat_within_limits(report, &[]).map(|(beaten, _)| beaten)
    }

    fn beat_and_look(&self, report: &ServerReport, of: &[Asked]) -> Answer<(Beaten, Option<Vec<Seen>>)> {
        self.beat_within_limits(report, of)
    }
}

#[cfg(test)]
mod tests;
