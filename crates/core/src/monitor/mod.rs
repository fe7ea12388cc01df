//! The answers of a status monitor, and when they leave (I1: durable before acknowledged).
//!
//! - A client that the store knows is answered at once: no write that waits for a disk.
//! - Any other waits for a commit. One commit is on at a time; clients that ask meanwhile share the next one. Where many
//!   shared the last one, as Ganesha's workers do, the next waits a moment until as many have asked again; lockd, which
//!   asks one at a time, waits for no other.
//! - A client that is not durable within `mon-timeout` is refused (the process gets ENOLCK), for lockd waits in its only thread;
//!   from then on all are refused at once, until a commit or a probe shows that the store works. With
//!   [`WhenUnprotected::Grant`] they are granted and listed as at risk instead; peers are in any case, since it is this
//!   server's own lock on another server's file that would be refused.
//! - SM_UNMON takes a registration away and says nothing of durability: the record in the store stays until the ledger
//!   believes the deletion (I2), and it asks [`Monitor::may_forget`] first.
//! - SM_NOTIFY becomes a call to the lock manager for each client that the name or the source address matches and
//!   whose last number is another one. That call is on record before SM_NOTIFY is answered, since its sender does not
//!   repeat an answered one. A notification that finds no room, or no place on record, is not answered, and its sender
//!   repeats it.

mod downcalls;
mod registry;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use heirlock_nsm::{MonName, MonitorLine, MyName, StateNumber};

use crate::planted::{Bug, planted};
use crate::{Batch, Moment, limits};

use downcalls::{Downcalls, Taken};
use registry::Registry;

pub use downcalls::Called;

/// A request that waits for an answer: numbered by the thread that reads the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// The answer to a client that can't be made durable in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenUnprotected {
    /// Its process gets ENOLCK.
    Refuse,
    /// It gets its lock, and is listed as at risk until the store knows it.
    Grant,
}

/// How the machine decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long a commit may take.
    pub mon_timeout: Duration,
    /// The answer to a client where it takes longer.
    pub when_unprotected: WhenUnprotected,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// SM_MON.
    Mon {
        /// the request that waits
        ticket: Ticket,
        /// what is registered
        line: MonitorLine,
        /// it is a server that this one mounts from, and no client
        peer: bool,
    },
    /// SM_UNMON: these names, and this way to be called.
    Unmon {
        /// the client
        mon_name: MonName,
        /// for whom
        caller: Caller,
    },
    /// SM_UNMON_ALL.
    UnmonAll(Caller),
    /// SM_NOTIFY.
    Notified {
        /// the request that waits
        ticket: Ticket,
        /// the name that was announced
        name: String,
        /// where it came from
        source: IpAddr,
        /// the number that was announced
        state: StateNumber,
    },
    /// The result of [`Action::LookUp`].
    LookedUp {
        /// which look-up
        ticket: Ticket,
        /// the addresses of the name, as far as it has any; `None` where no name service could be asked
        addresses: Option<Vec<IpAddr>>,
        /// the number that was announced
        state: StateNumber,
    },
    /// The call of [`Action::Call`] is over.
    Called {
        /// which client
        client: MonName,
        /// what became of it
        how: Called,
    },
    /// A commit is over.
    Committed {
        /// which
        batch: u64,
        /// everything of it is durable in every service that this server holds
        durable: bool,
    },
    /// A commit is over: this lock manager holds no service, so there is none as whose client a client could be on record. The store
    /// has not failed.
    HoldsNothing {
        /// which
        batch: u64,
    },
    /// The store was tried.
    Probed(bool),
    /// These and no other clients are durable in every service that this server holds.
    Durable(BTreeSet<MonName>),
    /// Registrations that another status monitor left in its directory, which the lock manager of this boot still means.
    Found(Vec<MonitorLine>),
    /// Time passed.
    Tick,
}

/// For whom a client is monitored: my_id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// the server's own name
    pub my_name: MyName,
    /// program of the downcall
    pub prog: u32,
    /// its version
    pub vers: u32,
    /// its procedure
    pub proc_: u32,
}

impl Caller {
    /// Whether a registration is this caller's.
    #[must_use]
    pub fn registered(&self, line: &MonitorLine) -> bool {
        (&self.my_name, self.prog, self.vers, self.proc_) == (&line.my_name, line.prog, line.vers, line.proc_)
    }
}

/// A change that must survive a kill, and need not survive a reboot: the lock manager's memory doesn't either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Persist {
    /// This registration is there.
    Keep(MonitorLine),
    /// This one is gone.
    Drop(MonitorLine),
    /// The lock manager is to be told that this client was restarted, with this number or a later one.
    Owe(MonName, StateNumber),
    /// It has been told, or no lock manager is there any more that could be told.
    Paid(MonName),
}

/// A client that is to be made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The registration.
    pub line: MonitorLine,
    /// It is a server that this one mounts from: for this server's own sake alone.
    pub peer: bool,
}

/// An action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Answer SM_MON.
    Answer {
        /// the request that waits
        ticket: Ticket,
        /// STAT_SUCC or STAT_FAIL
        granted: bool,
    },
    /// Make these durable in every service that this server holds.
    Commit {
        /// comes back in [`Event::Committed`]
        batch: u64,
        /// the clients that register
        arrivals: Vec<Arrival>,
    },
    /// Try whether the store works.
    Probe,
    /// The registrations of this client are others now: its file in the status monitor's directory is to follow.
    Changed(MonName),
    /// Tell the lock manager that a client was restarted, and say [`Event::Called`].
    Call {
        /// the client
        client: MonName,
        /// its registrations: what identifies it there
        lines: Vec<MonitorLine>,
        /// its new number
        state: StateNumber,
        /// how often it was tried in vain
        tries: u32,
    },
    /// Look the addresses of this name up and say [`Event::LookedUp`].
    LookUp {
        /// the request that waits
        ticket: Ticket,
        /// the name
        name: String,
        /// the number that was announced
        state: StateNumber,
    },
    /// Answer SM_NOTIFY: its calls are on record.
    Acknowledge(Ticket),
    /// Do not answer SM_NOTIFY: its sender repeats it.
    LeaveUnanswered(Ticket),
}

/// How it stands, for `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Registrations.
    pub registered: usize,
    /// Clients that were granted although the store does not know them.
    pub at_risk: Vec<MonName>,
    /// How many times a client was refused because it could not be protected.
    pub refused: u64,
    /// The same, by reason.
    pub refusals: Refusals,
    /// Clients are refused at once.
    pub failing: bool,
    /// And not because the store fails, but because no service is held.
    pub holds_nothing: bool,
    /// Clients of which the lock manager is still to be told that they were restarted.
    pub owed: usize,
    /// As many of them were not taken in several tries.
    pub untaken: usize,
    /// How many notifications were left unanswered because there was no room for them.
    pub left_unanswered: u64,
}

/// How many times a client was not protected, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Refused: there was no room for one registration more.
    pub no_room: u64,
    /// Refused: the store was failing already.
    pub store_fails: u64,
    /// Refused: the store did not take the client in time.
    pub late: u64,
    /// Refused: too many clients waited.
    pub busy: u64,
    /// Refused: the lock manager holds no service.
    pub no_service: u64,
    /// Granted for any of these reasons, since that is the rule or it is a peer.
    pub granted_all_the_same: u64,
}

impl Refusals {
    /// All that were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        let Self { no_room, store_fails, late, busy, no_service, granted_all_the_same: _ } = self;
        no_room + store_fails + late + busy + no_service
    }
}

/// A request that waits.
#[derive(Debug, Clone)]
struct Waiting {
    ticket: Ticket,
    line: MonitorLine,
    client: MonName,
    peer: bool,
    deadline: Moment,
}

/// The commit that is on.
#[derive(Debug, Clone)]
struct InFlight {
    batch: u64,
    clients: BTreeSet<MonName>,
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Monitor {
    rules: Rules,
    registry: Registry,
    /// Clients that every service which this server holds knows durably.
    durable: BTreeSet<MonName>,
    /// Whether these are more than what an earlier run knew: a service may be held here since, in which some are not on record.
    is_confirmed: bool,
    /// Requests of clients that were durable for the earlier run.
    unconfirmed: Vec<Waiting>,
    waiting: Vec<Waiting>,
    in_flight: Option<InFlight>,
    batches: u64,
    /// How many shared the last commit.
    shared_by: usize,
    /// Until when the next one waits for as many.
    gathering: Option<Moment>,
    /// When the store is to be tried next, where it failed: no client waits for it until it works again.
    failing: Option<Moment>,
    /// And not because it fails: the lock manager holds no service.
    holds_nothing: bool,
    probing: bool,
    at_risk: BTreeSet<MonName>,
    refusals: Refusals,
    downcalls: Downcalls,
    /// Names that are being looked up, by the request that waits, with the address that announced each.
    looking_up: BTreeMap<Ticket, IpAddr>,
    /// When the last look-up began.
    looked_up: Option<Moment>,
    left_unanswered: u64,
}

/// Why a client is refused: the count of such refusals.
type Reason = fn(&mut Refusals) -> &mut u64;

/// The batch that a step returns.
type Step = Batch<Persist, Action>;

impl Monitor {
    /// A monitor that knows what an earlier run of it in this boot was told and has granted.
    #[must_use]
    pub fn new(rules: Rules, kept: Vec<MonitorLine>) -> Self {
        Self::resumed(rules, kept, BTreeMap::new())
    }

    /// The same; `owed` is what the lock manager was still to be told.
    ///
    /// Its clients were durable when they were granted, and a service may be held here since. So a request of one of them waits for the
    /// first [`Event::Durable`], for [`limits::MON_CONFIRMED_TIME_MAX`] at most; after that all of them are taken for durable until it
    /// comes, and the lock manager does not wait while a store is slow or away.
    #[must_use]
    pub fn resumed(rules: Rules, kept: Vec<MonitorLine>, owed: BTreeMap<MonName, StateNumber>) -> Self {
        let mut downcalls = Downcalls::default();
        for (client, state) in owed {
            // As many as it had room for before.
            downcalls.owe(&client, state, Moment::START);
        }
        let registry = Registry::new(kept);
        Self {
            rules,
            durable: registry.clients().into_iter().collect(),
            is_confirmed: registry.is_empty(),
            unconfirmed: Vec::new(),
            registry,
            waiting: Vec::new(),
            in_flight: None,
            batches: 0,
            shared_by: 0,
            gathering: None,
            failing: None,
            holds_nothing: false,
            probing: false,
            at_risk: BTreeSet::new(),
            refusals: Refusals::default(),
            downcalls,
            looking_up: BTreeMap::new(),
            looked_up: None,
            left_unanswered: 0,
        }
    }

    /// Takes in what happened.
    pub fn step(&mut self, now: Moment, event: Event) -> Step {
        let mut step = Batch::nothing();
        match event {
            Event::Mon { ticket, line, peer } => self.mon(now, ticket, line, peer, &mut step),
            Event::Unmon { mon_name, caller } => {
                let gone =
                    self.registry.remove(&key(&mon_name), |l| l.mon_name == mon_name && caller.registered(l));
                dropped(gone, &mut step);
            }
            Event::UnmonAll(caller) => {
                for client in self.registry.clients() {
                    dropped(self.registry.remove(&client, |line| caller.registered(line)), &mut step);
                }
            }
            Event::Notified { ticket, name, source, state } => {
                self.notified(now, ticket, name, source, state, &mut step);
            }
            Event::LookedUp { ticket, addresses, state } => {
                self.looking_up.remove(&ticket);
                match addresses {
                    Some(addresses) => {
                        let meant = self.registry.meant("", &addresses);
                        self.owe(now, ticket, &meant, state, &mut step);
                    }
                    None => self.leave_unanswered(ticket, &mut step),
                }
            }
            Event::Called { client, how } => self.called(now, &key(&client), how, &mut step),
            Event::Committed { batch, durable } => self.committed(now, batch, durable, &mut step),
            Event::HoldsNothing { batch } => {
                self.holds_nothing = true;
                self.failed(now, batch, &mut step);
            }
            Event::Probed(works) => {
                self.probing = false;
                self.holds_nothing &= !works;
                self.failing = if works { None } else { Some(now + limits::MON_PROBE_INTERVAL) };
            }
            Event::Durable(clients) => {
                self.durable = clients;
                self.confirm();
                self.take_in_durable(&mut step);
                self.begin_commit(now, &mut step);
            }
            Event::Found(lines) => self.found(lines, &mut step),
            Event::Tick => self.tick(now, &mut step),
        }
        self.call(now, &mut step);
        step
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Moment> {
        let probe = self.failing.filter(|_| !self.probing && self.in_flight.is_none());
        let gathering = self.gathering.filter(|_| !self.waiting.is_empty());
        let call = self.downcalls.next_due();
        let waiting = self.waiting.iter().chain(&self.unconfirmed).map(|waiting| waiting.deadline);
        waiting.chain(probe).chain(gathering).chain(call).min()
    }

    /// Whether a client would be answered at once because it is durable.
    #[must_use]
    pub fn knows(&self, mon_name: &MonName) -> bool {
        self.durable.contains(&key(mon_name))
    }

    /// Before a client is removed from the store: whether it may be. From then on it counts as unknown, and its next
    /// SM_MON waits for a commit. A client that is registered or waits stays.
    pub fn may_forget(&mut self, client: &MonName) -> bool {
        // A record that is being committed will be there in a moment, whether a request still waits for it or not.
        let lives = self.registry.holds(client)
            || self.waiting.iter().any(|waiting| waiting.client == *client)
            || self.in_flight.as_ref().is_some_and(|flight| flight.clients.contains(client));
        if !lives {
            self.durable.remove(client);
        }
        !lives
    }

    /// The registrations of a client.
    #[must_use]
    pub fn lines(&self, client: &MonName) -> &[MonitorLine] {
        self.registry.lines(client)
    }

    /// The clients that the lock manager is still to be told of, with their numbers.
    pub fn all_owed(&self) -> impl Iterator<Item = (&MonName, StateNumber)> {
        self.downcalls.all()
    }

    /// All registrations.
    pub fn all_lines(&self) -> impl Iterator<Item = &MonitorLine> {
        self.registry.all()
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing {
            registered: self.registry.len(),
            at_risk: self.at_risk.iter().cloned().collect(),
            refused: self.refusals.refused(),
            refusals: self.refusals,
            failing: self.failing.is_some(),
            holds_nothing: self.failing.is_some() && self.holds_nothing,
            owed: self.downcalls.len(),
            untaken: self.downcalls.untaken(),
            left_unanswered: self.left_unanswered,
        }
    }

    fn mon(&mut self, now: Moment, ticket: Ticket, line: MonitorLine, peer: bool, step: &mut Step) {
        let client = key(&line.mon_name);
        if !self.registry.has_room(&client) {
            self.refusals.no_room += 1;
            step.then.push(Action::Answer { ticket, granted: false });
        } else if self.durable.contains(&client)
            && !self.is_confirmed
            && self.unconfirmed.len() < limits::MON_WAITING_MAX
        {
            let deadline = now + self.confirmed_time_max();
            self.unconfirmed.push(Waiting { ticket, line, client, peer, deadline });
        } else if self.durable.contains(&client) || planted(Bug::AnswerFirst) {
            self.grant(ticket, line, step);
        } else if self.failing.is_some() {
            let reason: Reason = match self.holds_nothing {
                true => |refusals| &mut refusals.no_service,
                false => |refusals| &mut refusals.store_fails,
            };
            self.unprotected(ticket, line, peer, reason, step);
        } else if self.waiting.len() >= limits::MON_WAITING_MAX {
            self.unprotected(ticket, line, peer, |refusals| &mut refusals.busy, step);
        } else {
            let deadline = now + self.rules.mon_timeout;
            self.waiting.push(Waiting { ticket, line, client, peer, deadline });
            self.begin_commit(now, step);
        }
    }

    /// See [`limits::MON_CONFIRMED_TIME_MAX`].
    fn confirmed_time_max(&self) -> Duration {
        limits::MON_CONFIRMED_TIME_MAX.min(self.rules.mon_timeout)
    }

    /// The clients that are durable are known: requests that waited for that wait for a commit where they have to.
    fn confirm(&mut self) {
        self.is_confirmed = true;
        let left = self.rules.mon_timeout.saturating_sub(self.confirmed_time_max());
        let unconfirmed = std::mem::take(&mut self.unconfirmed).into_iter();
        self.waiting.extend(unconfirmed.map(|it| Waiting { deadline: it.deadline + left, ..it }));
    }

    /// The lock manager's own word counts more.
    fn found(&mut self, lines: Vec<MonitorLine>, step: &mut Step) {
        // Most are new where an agent starts, and a list that grows takes up to three times as much meanwhile.
        step.persist.reserve(lines.len());
        for line in lines {
            let client = key(&line.mon_name);
            if self.registry.has_room(&client) && !self.registry.has(&client, &line) {
                self.registry.insert(&client, line.clone());
                step.persist.push(Persist::Keep(line));
            }
        }
    }

    fn grant(&mut self, ticket: Ticket, line: MonitorLine, step: &mut Step) {
        let client = key(&line.mon_name);
        if self.registry.insert(&client, line.clone()) {
            step.persist.push(Persist::Keep(line));
            step.then.push(Action::Changed(client));
        }
        step.then.push(Action::Answer { ticket, granted: true });
    }

    /// A client can't be protected, for this reason.
    fn unprotected(
        &mut self,
        ticket: Ticket,
        line: MonitorLine,
        peer: bool,
        reason: Reason,
        step: &mut Step,
    ) {
        if peer || self.rules.when_unprotected == WhenUnprotected::Grant {
            self.refusals.granted_all_the_same += 1;
            self.at_risk.insert(key(&line.mon_name));
            self.grant(ticket, line, step);
        } else {
            *reason(&mut self.refusals) += 1;
            step.then.push(Action::Answer { ticket, granted: false });
        }
    }

    fn begin_commit(&mut self, now: Moment, step: &mut Step) {
        if self.in_flight.is_some() || self.waiting.is_empty() {
            return;
        }
        if self.waiting.len() < self.shared_by
            && now < *self.gathering.get_or_insert(now + limits::MON_GATHER_TIME)
        {
            return;
        }
        self.gathering = None;
        let portion = &self.waiting[..self.waiting.len().min(limits::MON_COMMIT_MAX)];
        let clients = portion.iter().map(|waiting| waiting.client.clone()).collect();
        let arrival = |waiting: &Waiting| Arrival { line: waiting.line.clone(), peer: waiting.peer };
        let arrivals = portion.iter().map(arrival).collect();
        self.shared_by = portion.len();
        self.batches += 1;
        self.in_flight = Some(InFlight { batch: self.batches, clients });
        step.then.push(Action::Commit { batch: self.batches, arrivals });
    }

    fn committed(&mut self, now: Moment, batch: u64, durable: bool, step: &mut Step) {
        self.holds_nothing = false;
        if !durable {
            return self.failed(now, batch, step);
        }
        let Some(flight) = self.in_flight.take_if(|flight| flight.batch == batch) else { return };
        self.failing = None;
        self.durable.extend(flight.clients);
        self.take_in_durable(step);
        self.begin_commit(now, step);
    }

    fn failed(&mut self, now: Moment, batch: u64, step: &mut Step) {
        if self.in_flight.take_if(|flight| flight.batch == batch).is_some() {
            self.failing = Some(now + limits::MON_PROBE_INTERVAL);
            self.give_up(step);
        }
    }

    /// A client that waits and is durable now is granted; one that was at risk and is durable now isn't any more.
    fn take_in_durable(&mut self, step: &mut Step) {
        let (granted, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<Vec<_>, _>(|waiting| self.durable.contains(&waiting.client));
        self.waiting = waiting;
        for Waiting { ticket, line, .. } in granted {
            self.grant(ticket, line, step);
        }
        self.at_risk.retain(|client| !self.durable.contains(client));
    }

    fn tick(&mut self, now: Moment, step: &mut Step) {
        if self.unconfirmed.iter().any(|waiting| now >= waiting.deadline) {
            self.is_confirmed = true;
            for Waiting { ticket, line, .. } in std::mem::take(&mut self.unconfirmed) {
                self.grant(ticket, line, step);
            }
        }
        if self.waiting.iter().any(|waiting| now >= waiting.deadline) && !planted(Bug::WaitForStore) {
            // One commit that took too long is enough: no other client waits for the store.
            self.failing = Some(now + limits::MON_PROBE_INTERVAL);
            self.give_up(step);
        }
        self.begin_commit(now, step);
        // A commit that is still on is a probe by itself.
        if self.failing.is_some_and(|at| now >= at) && !self.probing && self.in_flight.is_none() {
            self.probing = true;
            step.then.push(Action::Probe);
        }
    }

    fn notified(
        &mut self,
        now: Moment,
        ticket: Ticket,
        name: String,
        source: IpAddr,
        state: StateNumber,
        step: &mut Step,
    ) {
        let meant = match planted(Bug::FreeAll) {
            true => self.registry.clients().into_iter().collect(),
            false => self.registry.meant(&name, &[source]),
        };
        let is_known = !meant.is_empty() || self.registry.is_empty() || name.parse::<IpAddr>().is_ok();
        if is_known || MonName::parse(&name).is_err() {
            return self.owe(now, ticket, &meant, state, step);
        }
        // A server with several addresses. No host may make us ask the name server without end, or keep others from it.
        let room = self.looking_up.len() < limits::LOOK_UPS_AT_ONCE_MAX
            && !self.looking_up.values().any(|other| *other == source)
            && self.looked_up.is_none_or(|last| now.since(last) >= limits::LOOK_UP_SPACING);
        if room {
            self.looking_up.insert(ticket, source);
            self.looked_up = Some(now);
            step.then.push(Action::LookUp { ticket, name, state });
        } else {
            self.leave_unanswered(ticket, step);
        }
    }

    /// The lock manager is to be told of these clients.
    fn owe(
        &mut self,
        now: Moment,
        ticket: Ticket,
        clients: &BTreeSet<MonName>,
        state: StateNumber,
        step: &mut Step,
    ) {
        let mut found_room = true;
        for client in clients {
            if self.downcalls.owed(client).is_none() && self.registry.has_seen(client, state) {
                continue;
            }
            let told_at = self.registry.told_at(client);
            let not_before = told_at.map_or(now, |told| now.max(told + limits::DOWNCALL_SPACING));
            match self.downcalls.owe(client, state, not_before) {
                Taken::New => step.persist.push(Persist::Owe(client.clone(), state)),
                // The number on record does not matter: it differs from the one that the lock manager knows.
                Taken::Known => {}
                Taken::Full => found_room = false,
            }
        }
        match found_room {
            true => step.then.push(Action::Acknowledge(ticket)),
            false => self.leave_unanswered(ticket, step),
        }
    }

    fn leave_unanswered(&mut self, ticket: Ticket, step: &mut Step) {
        self.left_unanswered += 1;
        step.then.push(Action::LeaveUnanswered(ticket));
    }

    /// The calls whose turn has come.
    fn call(&mut self, now: Moment, step: &mut Step) {
        while let Some((client, state, tries)) = self.downcalls.next(now) {
            let lines = self.registry.lines(&client).to_vec();
            if lines.is_empty() {
                // The lock manager unmonitors a client when it knows nothing of it any more.
                self.downcalls.cancel(&client);
                step.persist.push(Persist::Paid(client));
            } else {
                step.then.push(Action::Call { client, lines, state, tries });
            }
        }
    }

    fn called(&mut self, now: Moment, client: &MonName, how: Called, step: &mut Step) {
        let (told, is_paid) = self.downcalls.called(now, client, how);
        if let Some(state) = told {
            self.registry.told(now, client, state);
        }
        if is_paid {
            step.persist.push(Persist::Paid(client.clone()));
        }
    }

    /// Refuses all that wait, or grants them at risk.
    fn give_up(&mut self, step: &mut Step) {
        self.gathering = None;
        let reason: Reason = match self.holds_nothing {
            true => |refusals| &mut refusals.no_service,
            false => |refusals| &mut refusals.late,
        };
        for Waiting { ticket, line, peer, .. } in std::mem::take(&mut self.waiting) {
            self.unprotected(ticket, line, peer, reason, step);
        }
    }
}

/// The key of a client in the store: its address where its name is one.
#[must_use]
pub fn key(mon_name: &MonName) -> MonName {
    mon_name.address().map_or_else(|| mon_name.clone(), MonName::from_address)
}

fn dropped(gone: Vec<MonitorLine>, step: &mut Step) {
    for line in gone {
        let changed = Action::Changed(key(&line.mon_name));
        if !step.then.contains(&changed) {
            step.then.push(changed);
        }
        step.persist.push(Persist::Drop(line));
    }
}

#[cfg(test)]
mod tests;
