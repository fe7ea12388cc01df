//! Durable before acknowledged (I1): the commits that the status monitor's thread, or rpc.statd's callout, waits for.
//!
//! The loop owns the store, so commits are made here; registrations that come while one is on share the next. Files in the status
//! monitor's directory follow after the answer: the store counts, and the next look finds them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use heirlock_core::monitor::{Arrival, Event as MonitorEvent, Standing, key};
use heirlock_core::planted::{Bug, planted};
use heirlock_core::store::{RecordChange, StoreError};
use heirlock_core::takeover::{Event, Persist};
use heirlock_core::{Generation, Moment, Record, RecordKey, ServiceName};
use heirlock_nsm::record::render_record;
use heirlock_nsm::{MonName, MonitorLine, MyName};

use super::Instance;
use crate::agent::common::Common;
use crate::agent::holdings::{Held, commit_all};
use crate::agent::monitoring::Monitoring;
use crate::agent::outside::{InstanceOutside, Outside};
use crate::agent::put_off::Later;
use crate::agent::work::Work;
use crate::control::report::{Problem, ProblemKind};
use crate::limits;
use crate::status_monitor::Wanted;
use crate::words::counted;

/// A client to be made durable: its record, and whether it is this server's own peer.
struct Newcomer {
    bytes: Record,
    peer: bool,
}

/// Why a client is refused though the store is well.
const HOLDS_NOTHING: &str = "this lock manager holds no service as whose client a client could be on record ('heirlock status' says whose the services are)";

/// Why clients were not made durable.
enum NotDurable {
    NothingHeld,
    NothingKnown,
    NotRead(ServiceName),
    NotBegun(ServiceName),
    Full(ServiceName),
    Store(StoreError),
}

impl fmt::Display for NotDurable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingHeld => f.write_str(HOLDS_NOTHING),
            Self::NothingKnown => f.write_str("the store has not shown yet which services this server holds"),
            Self::NotRead(service) => {
                write!(
                    f,
                    "the store has not shown yet whether this server holds {service}, as whose client a client would have to be on record"
                )
            }
            Self::NotBegun(service) => {
                write!(
                    f,
                    "the next generation of {service} is claimed, and not begun yet, for the store fails"
                )
            }
            Self::Full(service) => write!(f, "{service} has as many records as a service may have"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl From<StoreError> for NotDurable {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl<O: Outside> Instance<O> {
    /// heirlock is the status monitor of this server from now on. `differing`: clients whose files are to follow, where its
    /// directory was read; else [`News::DirectoryRead`](crate::agent::News::DirectoryRead) tells.
    pub fn monitors(&mut self, server: &mut Common<O>, differing: Option<BTreeSet<MonName>>) {
        let registered = self.monitor_standing().map_or(0, |standing| standing.registered);
        tracing::info!(registered, "heirlock is the status monitor of {}", counted(registered, "client"));
        self.monitoring = Some(Monitoring { began: server.now(), ..Monitoring::default() });
        if let Some(differing) = differing {
            self.directory_read(server, Ok(differing));
        }
        self.tell_durable(server);
    }

    /// The status monitor's directory was read.
    pub(crate) fn directory_read(&mut self, server: &mut Common<O>, read: Result<BTreeSet<MonName>, String>) {
        let Some(monitoring) = self.monitoring.as_mut().filter(|monitoring| !monitoring.is_read) else {
            return;
        };
        match read {
            Ok(differing) => {
                monitoring.is_read = true;
                // Clients that an earlier run answered and whose files it could not write any more.
                monitoring.changed.extend(differing);
            }
            Err(why) => server.must_end_because(why),
        }
    }

    /// Whether the status monitor's directory may lack what the status monitor knows, since it wasn't read yet.
    pub fn awaits_directory(&self) -> bool {
        self.monitoring.as_ref().is_some_and(|monitoring| !monitoring.is_read)
    }

    /// Says that the directory takes too long to be read: until it was, no look is made at it.
    pub(crate) fn say_if_directory_hangs(&mut self, now: Moment) {
        let awaited = self.monitoring.as_mut().filter(|monitoring| !monitoring.is_read);
        let limit = self.capture.time_max();
        let Some(monitoring) = awaited.filter(|m| now.since(m.began) >= limit) else {
            return;
        };
        if !std::mem::replace(&mut monitoring.hangs, true) {
            let why = directory_hangs();
            tracing::error!(
                why,
                "the status monitor's directory can't be read, and no look is made at it: {why}"
            );
        }
    }

    /// Since when the status monitor's directory has been read for the first time, where that is not over.
    pub(crate) fn directory_read_since(&self) -> Option<Moment> {
        self.monitoring.as_ref().filter(|monitoring| !monitoring.is_read).map(|monitoring| monitoring.began)
    }

    /// The status monitor's thread wants something.
    pub fn wanted(&mut self, server: &mut Common<O>, now: Moment, wanted: Wanted) {
        if let Some(monitoring) = &mut self.monitoring {
            monitoring.wanted_at = now;
        }
        match wanted {
            Wanted::Commit { batch, arrivals } => self.commit_arrivals(server, now, now, batch, arrivals),
            Wanted::Probe => {
                let holds_all = !self.held.is_empty() && self.unread_service(server).is_none();
                let works = holds_all && server.store().probe().is_ok();
                self.outside.tell_monitor(MonitorEvent::Probed(works));
            }
            Wanted::Changed(client) => {
                if let Some(monitoring) = &mut self.monitoring {
                    if monitoring.changed.is_empty() {
                        monitoring.changed_since = now;
                    }
                    monitoring.changed.insert(client.clone());
                }
                self.saw(server, &client);
            }
        }
    }

    /// Makes clients durable for the status monitor's thread. While the store takes its time they wait, as they do for a slow
    /// disk; the status monitor refuses those that wait too long. `heard`: when the agent heard of them.
    pub(crate) fn commit_arrivals(
        &mut self,
        server: &mut Common<O>,
        now: Moment,
        heard: Moment,
        batch: u64,
        arrivals: Vec<Arrival>,
    ) {
        let in_step = self.is_told();
        let newcomers = self.newcomers(&arrivals);
        let durable = self.make_durable(server, now, &newcomers).is_ok();
        if !durable && server.store().is_busy() {
            return self.put_off(Later::Commit(heard, batch, arrivals));
        }
        server.answered_registrations(heard, arrivals.len(), durable);
        let arrived = self.arrived();
        let holds_nothing = !durable && self.holds_nothing();
        if let Some(monitoring) = &mut self.monitoring {
            if holds_nothing && !std::mem::replace(&mut monitoring.said_it_holds_nothing, true) {
                tracing::warn!("clients that register are refused: {HOLDS_NOTHING}");
            }
            monitoring.said_it_holds_nothing &= holds_nothing;
            self.outside.tell_monitor(match holds_nothing {
                true => MonitorEvent::HoldsNothing { batch },
                false => MonitorEvent::Committed { batch, durable },
            });
            // It knows of these already: to tell it of all for each one would grow with their number. Of those that a commit which
            // failed has stored all the same it does not.
            if in_step && durable {
                monitoring.told = Some(arrived);
            }
        }
    }

    /// A client that registers was there in this life of the lock manager, even where it is gone again before its file follows.
    fn saw(&mut self, server: &Common<O>, client: &MonName) {
        if !self.outside.registered_lines(client).is_empty() {
            let (known_as, life) = (self.store_key(client), self.life_that_deletes(server));
            for held in self.held.values_mut() {
                let life = held.where_deletions_count(life.as_ref());
                held.ledger.saw(&known_as, life);
            }
        }
    }

    /// Some files follow, once no registration waits. The store has all that counts, and in a storm of registrations the clients
    /// that still wait for it come first.
    pub(crate) fn follow_when_quiet(&mut self, now: Moment) {
        if self.files_due().is_some_and(|due| now >= due) {
            self.follow_some(now);
        }
    }

    /// All files follow, before a look is made at them.
    pub(crate) fn follow_all(&mut self, server: &mut Common<O>, now: Moment) {
        if self.awaits_directory() {
            // A look comes before the thread that reads the directory is done.
            let read = self.outside.read_directory();
            self.directory_read(server, read);
        }
        while self.files_due().is_some() {
            self.follow_some(now);
        }
    }

    fn follow_some(&mut self, now: Moment) {
        for _ in 0..limits::FOLLOWED_AT_ONCE_MAX {
            let next = self.monitoring.as_mut().and_then(|monitoring| monitoring.changed.pop_first());
            let Some(client) = next else { return };
            self.follow(now, &client);
        }
    }

    /// When files are to follow.
    pub(crate) fn files_due(&self) -> Option<Moment> {
        let has_some = |monitoring: &&Monitoring| monitoring.is_read && !monitoring.changed.is_empty();
        let monitoring = self.monitoring.as_ref().filter(has_some)?;
        let quiet = monitoring.wanted_at + limits::FOLLOWED_AFTER;
        Some(quiet.min(monitoring.changed_since + limits::FOLLOWED_AFTER_MAX))
    }

    /// rpc.statd says that it monitors a client, and waits.
    pub fn protect(
        &mut self,
        server: &mut Common<O>,
        now: Moment,
        mon_name: &MonName,
        my_name: &MyName,
    ) -> Result<(), String> {
        let line = MonitorLine::generated(mon_name.clone(), my_name.clone());
        let newcomer = Newcomer { bytes: render_record(&[line]).into(), peer: false };
        let client = self.store_key(mon_name);
        self.make_durable(server, now, &BTreeMap::from([(client, newcomer)]))
    }

    /// Whether a client may be removed from the store.
    pub fn may_forget(&self, client: &MonName) -> bool {
        self.monitoring.is_none() || self.outside.may_forget(client)
    }

    /// The same for all that are to be removed at a time.
    pub(crate) fn only_forgettable(&self, entries: Vec<RecordChange>) -> Vec<RecordChange> {
        let may = |entry: &RecordChange| match entry {
            RecordChange::Put(..) => true,
            // A client that is known by its address now has not left.
            RecordChange::Remove(key) => {
                self.capture.found().keys.contains_key(key.client()) || self.may_forget(key.client())
            }
        };
        entries.into_iter().filter(may).collect()
    }

    /// A client that has registered since the run decided to retire it stays: by the status monitor's word, by rpc.statd's callout
    /// or in its directory. The store may fail for long between the decision and this. So does every client of a service that is
    /// being given away: it may have been on its way back when the address went.
    pub(crate) fn spare_the_living(&self, portion: Vec<Persist>) -> Vec<Persist> {
        let is_frozen = |service: &ServiceName| self.held.get(service).is_some_and(|held| held.frozen);
        let spare = |one: Persist| match one {
            Persist::Retire { service, generation, mut clients } => {
                let stays = is_frozen(&service);
                let found = &self.capture.found().clients;
                let is_back = |client: &RecordKey| found.contains_key(client) && !planted(Bug::RetireAll);
                clients.retain(|client| !stays && !is_back(client) && self.may_forget(client.client()));
                Persist::Retire { service, generation, clients }
            }
            other => other,
        };
        portion.into_iter().map(spare).collect()
    }

    /// A life of the lock manager begins. A client that registered before it has not come back since.
    pub(crate) fn forget_who_came(&mut self) {
        if let Some(monitoring) = &mut self.monitoring {
            monitoring.came.clear();
        }
    }

    /// Tells the status monitor which clients are durable, where it does not know that.
    pub fn tell_durable(&mut self, server: &Common<O>) {
        if self.monitoring.is_none() || self.is_told() {
            return;
        }
        // Before all that this server holds is read, granted registrations count as durable.
        let knows_nothing = self.held.is_empty() && !self.holdings_known;
        if knows_nothing || self.unread_service(server).is_some() {
            return;
        }
        let (durable, arrived) = (self.durable_clients(), self.arrived());
        if let Some(monitoring) = &mut self.monitoring {
            self.outside.tell_monitor(MonitorEvent::Durable(durable));
            monitoring.told = Some(arrived);
        }
    }

    /// The durable clients may be others now, although none has arrived: the status monitor is told anew.
    pub(crate) fn durable_are_others(&mut self) {
        if let Some(monitoring) = &mut self.monitoring {
            monitoring.told = None;
        }
    }

    /// Files that could not be written are tried again, and written ones become durable in time.
    pub(crate) fn tend_directory(&mut self, now: Moment) {
        let Some(monitoring) = &mut self.monitoring else { return };
        let behind = std::mem::take(&mut monitoring.behind);
        let is_due = now.since(monitoring.synced) >= limits::DIRECTORY_SYNC_INTERVAL;
        if monitoring.unsynced && is_due && !monitoring.syncing {
            (monitoring.unsynced, monitoring.synced) = (false, now);
            monitoring.syncing = true;
            self.outside.begin(Work::SyncDirectory);
        }
        for client in behind.into_keys() {
            self.follow(now, &client);
        }
    }

    /// Nothing syncs the status monitor's directory now.
    pub(crate) fn directory_synced(&mut self, synced: Result<(), String>) {
        let Some(monitoring) = &mut self.monitoring else { return };
        monitoring.syncing = false;
        if let Err(why) = synced {
            monitoring.unsynced = true;
            tracing::warn!(why, "the status monitor's directory is synced later: {why}");
        }
    }

    /// The problems of the status monitor, for `status`.
    pub fn monitor_problems(&self) -> Vec<Problem> {
        let both = self.monitoring.as_ref().zip(self.monitor_standing());
        let Some((monitoring, standing)) = both else { return Vec::new() };
        let (at_risk, behind) = (standing.at_risk.len(), monitoring.behind.len());
        let refused = usize::try_from(standing.refused).unwrap_or(usize::MAX);
        let mut problems: Vec<Problem> = [
            (ProblemKind::ClientsAtRisk, at_risk, at_risk > 0),
            (ProblemKind::ClientsRefused, refused, standing.failing),
            (ProblemKind::RestartsNotTaken, standing.untaken, standing.untaken > 0),
        ]
        .into_iter()
        .filter(|(_, _, is_wrong)| *is_wrong)
        .map(|(kind, count, _)| Problem::new(kind).with(count))
        .map(|problem| match problem.kind == ProblemKind::ClientsRefused && standing.holds_nothing {
            true => problem.saying(HOLDS_NOTHING),
            false => problem,
        })
        .collect();
        if monitoring.hangs && !monitoring.is_read {
            problems.push(Problem::new(ProblemKind::MonitorDirectoryUnreadable).saying(&directory_hangs()));
        }
        if let Some((client, why)) = monitoring.behind.first_key_value() {
            let example = format!("{client}, for one: {why}");
            problems.push(Problem::new(ProblemKind::ClientFilesBehind).with(behind).saying(&example));
        }
        problems
    }

    /// How our own status monitor stands; nothing where rpc.statd is it.
    pub(crate) fn monitor_standing(&self) -> Option<Standing> {
        self.outside.monitor_standing()
    }

    /// A client's registrations changed: its files follow, and a run that waits for it is told.
    fn follow(&mut self, now: Moment, client: &MonName) {
        let Some(monitoring) = &mut self.monitoring else { return };
        if !monitoring.is_read {
            return;
        }
        let lines = self.outside.registered_lines(client);
        monitoring.unsynced = true;
        if let Err(error) = self.outside.write_registrations(client, &lines) {
            // Once for each of them, also where it is tried at every turn.
            if monitoring.said.insert(client.clone()) {
                tracing::error!(%client, error, "the file of {client} in the status monitor's directory can't be written, though the store has its record: {error}");
            }
            monitoring.behind.insert(client.clone(), error);
        } else {
            monitoring.said.remove(client);
        }
        if lines.is_empty() {
            return;
        }
        if !self.is_durable(&self.store_key(client)) {
            // Granted all the same: a look soon finds what is to be caught up.
            let soon = now + limits::STORE_RETRY;
            self.capture.look_soon(soon);
        }
        let (known_as, bytes) = (self.store_key(client), render_record(&lines));
        self.capture.knows(&known_as, &bytes);
        let known_as = RecordKey::from(known_as);
        if let Some(running) = &mut self.run {
            running.machine.saw(std::iter::once(&known_as));
        }
        let before = self.run.as_ref().and_then(|running| running.before.as_ref());
        let is_back = before.is_some_and(|before| before.is_back(&bytes));
        if let Some(monitoring) = self.monitoring.as_mut().filter(|_| is_back) {
            monitoring.came.insert(known_as);
        }
    }

    /// The run is told at once of all clients that came back in a while: each word costs a sync, and many come back at a time.
    pub(crate) fn say_who_came(&mut self, server: &mut Common<O>, now: Moment) {
        let Some(monitoring) = &mut self.monitoring else { return };
        let due = now.since(monitoring.said_who_came) >= limits::PROGRESS_INTERVAL;
        if monitoring.came.is_empty() || !due {
            return;
        }
        monitoring.said_who_came = now;
        let came = std::mem::take(&mut monitoring.came);
        self.advance(server, Event::Registered(came));
    }

    /// When the log is to name the clients that came back.
    pub(crate) fn returns_due(&self) -> Option<Moment> {
        let monitoring = self.monitoring.as_ref().filter(|monitoring| !monitoring.came.is_empty())?;
        Some(monitoring.said_who_came + limits::PROGRESS_INTERVAL)
    }

    /// The new record of each arrival, with the lines that the client has registered before.
    fn newcomers(&self, arrivals: &[Arrival]) -> BTreeMap<MonName, Newcomer> {
        let mut lines: BTreeMap<MonName, (Vec<MonitorLine>, bool)> = BTreeMap::new();
        for Arrival { line, peer } in arrivals {
            let client = key(&line.mon_name);
            let known = || self.outside.registered_lines(&client);
            let entry = lines.entry(self.store_key(&client)).or_insert_with(|| (known(), true));
            entry.1 &= *peer;
            // The same registration with another cookie takes its place.
            let same = |other: &MonitorLine| {
                let caller = (&line.mon_name, &line.my_name, line.prog, line.vers, line.proc_);
                caller == (&other.mon_name, &other.my_name, other.prog, other.vers, other.proc_)
            };
            entry.0.retain(|other| !same(other));
            entry.0.push(line.clone());
        }
        let newcomer =
            |(lines, peer): (Vec<MonitorLine>, bool)| Newcomer { bytes: render_record(&lines).into(), peer };
        lines.into_iter().map(|(client, known)| (client, newcomer(known))).collect()
    }

    /// Makes clients durable in every service that is held, and says whether that came about.
    fn make_durable(
        &mut self,
        server: &mut Common<O>,
        now: Moment,
        newcomers: &BTreeMap<MonName, Newcomer>,
    ) -> Result<(), String> {
        let mut made = self.make_durable_in_all(server, now, newcomers);
        let is_read_anew = match &made {
            // One of the services is another server's by now, and nothing was written for the others either.
            Err(NotDurable::Store(error)) => error.is_not_owner(),
            Err(NotDurable::NotRead(_)) => server.meet_store().is_ok(),
            _ => false,
        };
        if is_read_anew {
            self.refresh_holdings(server, now);
            made = self.make_durable_in_all(server, now, newcomers);
        }
        made.map_err(|error| error.to_string())
    }

    fn make_durable_in_all(
        &mut self,
        server: &mut Common<O>,
        now: Moment,
        newcomers: &BTreeMap<MonName, Newcomer>,
    ) -> Result<(), NotDurable> {
        if let Some(service) = self.unread_service(server) {
            let unread = NotDurable::NotRead(service.clone());
            // Else the store's own error says more.
            if server.health().error().is_none() {
                server.fails(now, &unread);
            }
            return Err(unread);
        }
        if self.held.is_empty() {
            return Err(if self.holds_nothing() {
                NotDurable::NothingHeld
            } else {
                NotDurable::NothingKnown
            });
        }
        // The next generation begins with the records of the claim, and a client that came into the one before would be lost.
        let begins =
            |service: &&ServiceName| self.run.as_ref().is_some_and(|running| running.begins(service));
        if let Some(service) = self.held.keys().find(begins) {
            return Err(NotDurable::NotBegun(service.clone()));
        }
        let mut committing = server.committing();
        let mut work: Vec<(&ServiceName, &mut Held, Vec<RecordChange>)> = self
            .held
            .iter_mut()
            .map(|(service, held)| {
                let entries = missing(service, held, newcomers);
                (service, held, entries)
            })
            .filter(|(_, _, entries)| !entries.is_empty())
            .collect();
        let is_news = !work.is_empty();
        let done = check_room(&work).and_then(|()| Ok(commit_all(&mut committing, &mut work)?));
        match &done {
            Ok(()) => {
                // Also where the store knows them: a look that began before this moment may take them for gone.
                for (client, newcomer) in newcomers {
                    self.capture.expects(client, &newcomer.bytes);
                }
                if is_news {
                    server.be_checked(now);
                }
            }
            Err(NotDurable::Store(error)) => server.store_failed(now, error),
            Err(not_now) => server.fails(now, &not_now),
        }
        done
    }

    /// The last look has shown that no service is this lock manager's.
    fn holds_nothing(&self) -> bool {
        self.held.is_empty() && self.holdings_known
    }

    /// Clients that every service knows.
    fn durable_clients(&self) -> BTreeSet<MonName> {
        let mut held = self.held.values();
        let Some(first) = held.next() else { return BTreeSet::new() };
        let others: Vec<&Held> = held.collect();
        let by_all = |client: &&MonName| {
            first.ledger.holds(client) && others.iter().all(|held| held.ledger.holds(client))
        };
        let mut durable: BTreeSet<MonName> =
            first.ledger.stored().clients().filter(by_all).cloned().collect();
        let named = self.capture.addresses().iter();
        let key_of = |list: &Vec<_>| list.first().copied().map(MonName::from_address);
        let named = named.filter(|(_, list)| key_of(list).is_some_and(|key| durable.contains(&key)));
        let named: Vec<MonName> = named.map(|(name, _)| name.clone()).collect();
        durable.extend(named);
        durable
    }

    /// Whether every service knows this client. A peer is known to one alone, and looked for once more.
    fn is_durable(&self, client: &MonName) -> bool {
        !self.held.is_empty() && self.held.values().all(|held| held.ledger.holds(client))
    }

    fn is_told(&self) -> bool {
        let told = self.monitoring.as_ref().and_then(|monitoring| monitoring.told.as_ref());
        told.is_some_and(|told| {
            self.arrivals().eq(told.iter().map(|(service, generation, count)| (service, *generation, *count)))
        })
    }

    fn arrived(&self) -> Vec<(ServiceName, Generation, u64)> {
        self.arrivals().map(|(service, generation, count)| (service.clone(), generation, count)).collect()
    }

    /// How many clients have arrived in each service. Every removal is made known to the status monitor beforehand, so the arrivals
    /// tell the rest.
    fn arrivals(&self) -> impl Iterator<Item = (&ServiceName, Generation, u64)> {
        self.held.iter().map(|(service, held)| (service, held.claim.generation, held.ledger.arrived()))
    }

    /// A client's name in the store.
    fn store_key(&self, mon_name: &MonName) -> MonName {
        let address = self.capture.address_of(mon_name);
        address.map_or_else(|| key(mon_name), MonName::from_address)
    }
}

fn directory_hangs() -> String {
    format!("it has not been read within {} s since the agent began", limits::LOOK_TIME_MAX.as_secs())
}

/// The records that this service lacks. Peers are none of its clients, unless it is the server's implicit service.
fn missing(service: &ServiceName, held: &Held, newcomers: &BTreeMap<MonName, Newcomer>) -> Vec<RecordChange> {
    let concerns = |newcomer: &Newcomer| !newcomer.peer || service.is_host();
    let lacks = |client: &MonName| !held.ledger.holds(client);
    newcomers
        .iter()
        .filter(|(client, newcomer)| concerns(newcomer) && lacks(client))
        .map(|(client, newcomer)| RecordChange::put(client, newcomer.bytes.clone()))
        .collect()
}

fn check_room(work: &[(&ServiceName, &mut Held, Vec<RecordChange>)]) -> Result<(), NotDurable> {
    match work.iter().find(|(_, held, entries)| entries.len() > held.room()) {
        Some((service, ..)) => Err(NotDurable::Full((*service).clone())),
        None => Ok(()),
    }
}
