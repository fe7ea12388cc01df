//! The agent: the product's machines, driven as its loop drives them (crates/heirlock/src/agent), one message at a time.
//!
//! What it decides, `heirlock-core` decides. Where a message is handled in several steps the agent, or its whole
//! server, may die between any two of them: [`Out::step`] says whether it still lives.

mod asked;
mod left_behind;
mod runs;
mod services;
mod telling;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use heirlock_core::claim::{Authority, Claim};
use heirlock_core::duty::{Holding, Owed};
use heirlock_core::incarnation::{Incarnation, Observation, newest_of};
use heirlock_core::ledger::{Addresses, Comparison, Ledger, Population, Portion, Roles, population};
use heirlock_core::left_behind::LeftBehind;
use heirlock_core::liveness::{Beat, Hearts};
use heirlock_core::lives::{Begun, Lives, Next, Recognised};
use heirlock_core::store::{Change, Contents, RecordChange, ServerReport};
use heirlock_core::takeover::{Event, Journal, OutcomeLine, Phase, Remains, TimeLimits};
use heirlock_core::{Moment, ServerName, ServiceName};
use heirlock_nsm::{MonName, StateNumber};

use crate::Ms;
use crate::outside::Out;
use crate::server::Files;

use runs::Running;
use telling::Telling;
pub(crate) use telling::{millis, probe};

/// As in the configuration, but quicker where that costs no truth.
pub(crate) const MARGIN: Duration = Duration::from_secs(3);
/// How long what is done for a run may take; no work hangs in this world.
pub(crate) const LIMITS: TimeLimits = TimeLimits::each(Duration::from_secs(60));
pub(crate) const DEAD_AFTER: Duration = Duration::from_secs(4);
const TOMBSTONE_DELAY: Duration = Duration::from_secs(20);
const SCAN_INTERVAL: Duration = Duration::from_secs(2);
const BEAT_INTERVAL: Duration = Duration::from_secs(1);
const STORE_RETRY: Duration = Duration::from_millis(500);

/// Clients of a service that are compared at a time.
const COMPARED_AT_ONCE: usize = 2;

/// What the loop is told.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    Changed,
    Observed(Moment, Observation),
    Event(u32, Event),
    Recognised(u32, Result<Recognised, String>),
    AddressGone(usize),
    Adopt { service: usize, prepare: bool, authority: Authority },
    Finish(usize),
    Release(usize),
}

/// One service that is held.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) claim: Claim,
    ledger: Ledger,
    pub(crate) journal: Journal,
    state: StateNumber,
    outcomes: Vec<OutcomeLine>,
    pub(crate) frozen: bool,
}

/// All that a look into the status monitor's directory depends on.
#[derive(Debug)]
struct LookedInto {
    sm: Files,
    sm_bak: Files,
    book: Files,
    addresses: Addresses,
}

/// One run of the agent.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) id: u64,
    pub(crate) started: Ms,
    pub(crate) busy_until: Ms,
    /// What came while it was busy, in order.
    pub(crate) inbox: VecDeque<Message>,
    /// When it is woken without a message.
    pub(crate) wakes_at: Option<Ms>,
    pub(crate) held: BTreeMap<ServiceName, Held>,
    holdings_known: bool,
    lives: Lives,
    found: Population,
    /// What that was found in.
    looked_into: Option<LookedInto>,
    addresses: Addresses,
    scan_due: Option<Moment>,
    beat_due: Moment,
    behind: bool,
    failing: bool,
    hearts: Hearts,
    reports: BTreeMap<ServerName, ServerReport>,
    beat: u64,
    run: Option<Running>,
    asked: Option<Running>,
    /// The number of the last run that this agent began or went on with.
    numbers: u32,
    left_behind: LeftBehind,
    tellings: Vec<Option<Telling>>,
    releasing: BTreeSet<ServiceName>,
    unasked_not_before: BTreeMap<ServiceName, Moment>,
    pub(crate) runs_begun: u32,
}

impl Agent {
    pub(crate) fn start(out: &mut Out<'_>, id: u64) -> Self {
        let now = out.now();
        let mut agent = Self {
            id,
            started: out.w.now,
            busy_until: 0,
            inbox: VecDeque::new(),
            wakes_at: None,
            held: BTreeMap::new(),
            holdings_known: false,
            lives: Lives::default(),
            found: Population::default(),
            looked_into: None,
            addresses: Addresses::new(),
            scan_due: None,
            beat_due: now,
            behind: false,
            failing: false,
            hearts: Hearts::new(DEAD_AFTER),
            reports: BTreeMap::new(),
            beat: 0,
            run: None,
            asked: None,
            numbers: 0,
            left_behind: LeftBehind::default(),
            tellings: Vec::new(),
            releasing: BTreeSet::new(),
            unasked_not_before: BTreeMap::new(),
            runs_begun: 0,
        };
        agent.refresh_holdings(out, now);
        let known = agent.known_life(out);
        let recalled = known.as_ref().map(|life| out.recall_grace(life)).unwrap_or_default();
        agent.lives = Lives::new(known, recalled);
        agent.tidy_conveyed(out);
        agent
    }

    pub(crate) fn handle(&mut self, out: &mut Out<'_>, message: Message) {
        let now = out.now();
        match message {
            Message::Changed => self.scan_due = Some(now),
            Message::Observed(at, seen) => self.observed(out, now, at, &seen),
            Message::Event(run, event) => self.worked_for(out, now, run, event),
            Message::Recognised(run, done) => self.recognised(out, now, run, done),
            Message::AddressGone(service) => self.address_gone(out, now, service),
            Message::Adopt { service, prepare, authority } => {
                self.adopt(out, now, service, prepare, authority);
            }
            Message::Finish(service) => self.finish(out, now, service),
            Message::Release(service) => self.release(out, service),
        }
    }

    pub(crate) fn do_what_is_due(&mut self, out: &mut Out<'_>) {
        let now = out.now();
        let burial = self.held.values().filter_map(|held| held.ledger.next_burial()).any(|at| now >= at);
        if burial || self.scan_due.is_none_or(|due| now >= due) {
            self.scan(out, now);
        }
        if now >= self.beat_due {
            self.beat_due = now + BEAT_INTERVAL;
            self.beat(out, now);
        }
        self.tick_asked(out, now);
        self.tick_run(out, now);
        self.recover(out, now);
    }

    pub(crate) fn next_due(&self, now: Moment) -> Moment {
        let burial = self.held.values().filter_map(|held| held.ledger.next_burial()).min();
        let burial = burial.map(|at| at.max(now + STORE_RETRY));
        let [asked, run] = [&self.asked, &self.run].map(|run| run.as_ref().and_then(Running::due));
        let due = [burial, asked, run, self.scan_due].into_iter().flatten().chain([self.beat_due]).min();
        due.unwrap_or(now)
    }

    /// Whether nothing is going on: no run, nothing owed.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.run.is_none()
            && self.asked.is_none()
            && self.releasing.is_empty()
            && self.owed() == Owed::default()
    }

    /// Services whose adoption was interrupted, although one could go on with it now and none does, with how many runs were
    /// begun.
    pub(crate) fn left_interrupted(&self) -> impl Iterator<Item = (&ServiceName, u32)> {
        let may_go_on = self.run.is_none()
            && self.asked.is_none()
            && !self.failing
            && self.holdings_known
            && self.lives.to_recover_in().is_some();
        let is_interrupted = |held: &Held| {
            let journal = &held.journal;
            !held.frozen
                && journal.life.is_none()
                && matches!(journal.phase, Phase::Claimed | Phase::Conveyed)
        };
        let left = self.held.iter().filter(move |(_, held)| may_go_on && is_interrupted(held));
        left.map(|(service, _)| (service, self.runs_begun))
    }

    fn observed(&mut self, out: &mut Out<'_>, now: Moment, at: Moment, seen: &Observation) {
        if let Some(begun) = self.lives.looked(at, seen) {
            self.life_began(out, now, &begun);
        }
        if let Some(life) = self.lives.seen_closed(seen) {
            out.note_grace_closed(life);
        }
    }

    fn life_began(&mut self, out: &mut Out<'_>, now: Moment, Begun { life, since }: &Begun) {
        out.say(|| format!("sees another life, {life}"));
        if let Some(since) = since {
            out.note_grace(life, *since);
        }
        if self.run.as_ref().is_some_and(|run| run.machine.phase().is_bound_to_a_life()) {
            self.advance(out, now, Event::LifeChanged);
        }
    }

    fn recover(&mut self, out: &mut Out<'_>, now: Moment) {
        if self.run.is_some() || self.failing || !self.holdings_known || out.is_dead() {
            return;
        }
        let Some(life) = self.lives.to_recover_in().cloned() else { return };
        let owed = self.owed();
        self.give_life_to_fresh(out, &owed.fresh, &life);
        if !owed.unknown.is_empty() {
            let answer = out.probe();
            self.lives.told_of_strangers(&life, answer);
        }
        if owed.resume.as_ref().is_some_and(|run| self.resume_run(out, now, run)) {
            return;
        }
        let began = match self.lives.next(now, &owed, self.asked.is_some()) {
            Next::Later => return,
            Next::Nothing => false,
            Next::Begin(order) => {
                self.begin_run(out, now, order);
                true
            }
        };
        self.lives.followed_up(began, self.run.is_some());
    }

    fn owed(&self) -> Owed {
        self.lives.owed(self.holdings())
    }

    fn holdings(&self) -> impl Iterator<Item = Holding<'_>> + Clone {
        self.held.iter().map(|(service, held)| Holding {
            service,
            journal: &held.journal,
            has_clients: !held.ledger.stored().is_empty(),
            frozen: held.frozen,
        })
    }

    fn give_life_to_fresh(&mut self, out: &mut Out<'_>, fresh: &[ServiceName], life: &Incarnation) {
        for (service, held) in self.held.iter_mut().filter(|(service, _)| fresh.contains(service)) {
            let journal = Journal { life: Some(life.clone()), ..held.journal.clone() };
            let change = Change::PutJournal(Box::new(journal.clone()));
            if out.commit(service, held.claim.generation, vec![change]).is_ok() {
                held.journal = journal;
            }
        }
    }

    fn known_life(&self, out: &Out<'_>) -> Option<Incarnation> {
        let boot = out.server().observe(out.w.now).boot;
        let lives = self.held.values().filter_map(|held| held.journal.life.as_ref());
        newest_of(&boot, lives).cloned()
    }

    fn scan(&mut self, out: &mut Out<'_>, now: Moment) {
        self.scan_due = Some(now + SCAN_INTERVAL);
        self.look_into_directory(out);
        self.record(out, now);
        self.report_registrations(out, now);
    }

    /// Half of the time that a seed takes would go into looks that find what the one before found.
    fn look_into_directory(&mut self, out: &Out<'_>) {
        let server = out.server();
        let is_as_before = |before: &LookedInto| {
            (&before.sm, &before.sm_bak, &before.book) == (&server.sm, &server.sm_bak, &server.book)
                && before.addresses == self.addresses
        };
        if self.looked_into.as_ref().is_some_and(is_as_before) {
            return;
        }
        let found = population(&server.scan(), &server.book, &self.addresses);
        self.looked_into = Some(LookedInto {
            sm: server.sm.clone(),
            sm_bak: server.sm_bak.clone(),
            book: server.book.clone(),
            addresses: self.addresses.clone(),
        });
        for name in &found.unresolved {
            // A file of a client that the line in it doesn't tell: asked, and known at the next look.
            let number = name.as_str().strip_prefix("client").and_then(|n| n.parse().ok());
            if let Some(client) = number {
                self.addresses.insert(name.clone(), vec![crate::server::client_address(client)]);
            }
        }
        self.found = found;
    }

    fn record(&mut self, out: &mut Out<'_>, now: Moment) {
        let roles = out.roles();
        let life = self.lives.where_deletions_count(now, self.run.is_some()).cloned();
        let mut committed = false;
        self.behind = false;
        for (service, held) in &mut self.held {
            if self.run.as_ref().is_some_and(|running| running.begins(service)) {
                continue;
            }
            let life = life.as_ref().filter(|_| !held.frozen);
            // In portions, as an agent with very many clients does it.
            let mut comparison = held.ledger.begin_comparison();
            while comparison != Comparison::Over {
                let portion = Portion::of(COMPARED_AT_ONCE, COMPARED_AT_ONCE, COMPARED_AT_ONCE);
                let entries =
                    held.ledger.compare_some(&mut comparison, now, &self.found, &roles, life, portion);
                if entries.is_empty() {
                    continue;
                }
                match held.commit(out, service, &entries) {
                    Ok(()) => committed = true,
                    Err(_) => {
                        self.behind = true;
                        break;
                    }
                }
            }
        }
        if self.behind {
            self.failing = true;
            self.scan_due = Some(now + STORE_RETRY);
        } else if committed && self.failing {
            // It is well once all that is held was looked for in it.
            self.beat_due = now;
        }
    }

    fn report_registrations(&mut self, out: &mut Out<'_>, now: Moment) {
        let Some(running) = &mut self.run else { return };
        running.spare(&self.found.clients);
        running.machine.saw(self.found.clients.keys());
        let Some(before) = &running.before else { return };
        let came = before.came(&self.found.clients);
        if !came.is_empty() {
            self.advance(out, now, Event::Registered(came));
        }
    }

    fn beat(&mut self, out: &mut Out<'_>, now: Moment) {
        let report = ServerReport {
            beat: self.beat,
            state: Some(out.server().state),
            ..ServerReport::new(out.server().name.clone(), &self.id.to_string())
        };
        self.beat += 1;
        match out.beat(report) {
            Ok(reports) => self.saw(out, now, reports),
            Err(_) => {
                self.hearts.blind();
                self.holdings_known = false;
                self.failing = true;
                return;
            }
        }
        self.refresh_holdings(out, now);
        // Only what was looked at is well.
        if self.holdings_known && !self.behind {
            self.failing = false;
        }
        self.look_for_silence(out, now);
    }

    fn saw(&mut self, out: &Out<'_>, now: Moment, reports: BTreeMap<ServerName, ServerReport>) {
        let others = reports.iter().filter(|(name, _)| **name != out.server().name);
        let beats = others.map(|(name, r)| {
            (name.clone(), Beat { beat: format!("{}/{}", r.agent, r.beat), paused: r.paused })
        });
        self.hearts.saw(now, &beats.collect());
        self.reports = reports;
    }
}

impl Held {
    fn new(claim: Claim, contents: &Contents, journal: Journal, is_host: bool) -> Self {
        Self {
            claim,
            ledger: Ledger::new(contents.records.clone(), is_host, TOMBSTONE_DELAY),
            journal,
            state: contents.state.unwrap_or(StateNumber(1)),
            outcomes: contents.outcomes.clone(),
            frozen: false,
        }
    }

    fn remains(&self, service: &ServiceName) -> Remains {
        Remains {
            service: service.clone(),
            generation: self.claim.generation,
            state: self.state,
            clients: self.ledger.stored().keys().cloned().collect(),
            begun_with: None,
            journal: self.journal.clone(),
            outcomes: self.outcomes.clone(),
        }
    }

    fn commit(
        &mut self,
        out: &mut Out<'_>,
        service: &ServiceName,
        changes: &[RecordChange],
    ) -> Result<(), String> {
        let all = changes.iter().cloned().map(Change::Record).collect();
        let committed = out.commit(service, self.claim.generation, all);
        match committed {
            Ok(()) => self.ledger.committed(changes),
            Err(_) => self.ledger.uncommitted(changes),
        }
        committed
    }
}

/// Which of these are servers that this one mounts from.
pub(crate) fn roles(peer: &MonName) -> Roles {
    Roles { peers: BTreeSet::from([peer.clone()]), connected: BTreeSet::new() }
}
